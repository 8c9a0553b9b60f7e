//! What followers are given: a registry that the beacon's certified state holds, and nothing else.

use beacon::command::{BeaconCommand, SignedCommand};
use beacon::machine::{CommandOutcome, execute_command};
use beacon::{ClusterView, RegistryProof, registry};
use ledger::certificate::Certificate;
use ledger::committee::Committee;
use ledger::genesis::Genesis;
use ledger::hash::Hash32;
use ledger::ids::{ClusterId, GroupId, Height, NodeId, OrgId, TimeMs};
use ledger::schema;
use ledger::tree::{BitPrefix, StateTree, value_hash};

use crate::support::{NOW, State, admin, at, certified, genesis, node_key, settle, state_of};

/// A state with one change, its tree, and the certificate of a header over it.
struct Scene {
    genesis: Genesis,
    state: State,
    tree: StateTree,
    certificate: Certificate,
}

fn sign_again(certificate: &mut Certificate) {
    let digest = certificate.header.hash();
    for (node, signature) in &mut certificate.signatures {
        *signature = node_key(node.0).sign(&digest);
    }
}

fn changed(state: &State, genesis: &Genesis, capacity: u16) -> State {
    let command = BeaconCommand::SetNodeCapacity { node: NodeId(1), capacity };
    let salt = [capacity as u8; 16];
    let until = TimeMs(NOW + 60_000);
    let signed = SignedCommand::sign(&genesis.cluster_id(), &command, OrgId(1), salt, until, &admin(1));
    settle(state, |view| {
        let executed = execute_command(view, &at(genesis, NOW), &signed.encode());
        assert_eq!(executed.map(|executed| executed.outcome), Ok(CommandOutcome::Applied));
    })
}

fn scene() -> Scene {
    let genesis = genesis();
    let state = changed(&state_of(&genesis), &genesis, 7);
    let mut leaves: Vec<_> =
        state.iter().filter_map(|(key, value)| Some((schema::tree_position(key)?, value_hash(value)))).collect();
    leaves.sort_unstable_by_key(|leaf| leaf.0);
    let tree = StateTree::from_sorted(BitPrefix::ROOT, leaves).unwrap();
    let mut certificate = certified(&genesis, GroupId::BEACON, 9, 0);
    let mut sealed = tree.clone();
    certificate.header.state_root = Hash32(sealed.root());
    sign_again(&mut certificate);
    Scene { genesis, state, tree, certificate }
}

impl Scene {
    fn proof(&mut self) -> RegistryProof {
        let position = schema::tree_position(&registry::head_key()).unwrap();
        let path = self.tree.prove(&position).unwrap();
        RegistryProof::new(&ClusterView::read(&self.state).unwrap(), path, self.certificate.clone())
    }

    fn beacon(&self) -> Committee {
        self.genesis.committee(GroupId::BEACON).unwrap().clone()
    }

    fn judge(&self, proof: &RegistryProof) -> Result<(ClusterView, Height), &'static str> {
        proof.verify(&self.genesis.cluster_id(), &self.beacon()).map_err(|error| error.code())
    }
}

#[test]
fn a_registry_in_certified_state_is_believed() {
    let mut scene = scene();
    let proof = scene.proof();
    let decoded = RegistryProof::decode(&proof.encode()).unwrap();
    let (registry, height) = scene.judge(&decoded).unwrap();
    assert_eq!(height, Height(9));
    assert_eq!((registry.revision, registry.node(NodeId(1)).unwrap().capacity), (2, 7));
    assert_eq!(registry, ClusterView::read(&scene.state).unwrap());
}

#[test]
fn nothing_else_is_believed() {
    let mut scene = scene();
    let good = scene.proof();
    let forged = |change: &dyn Fn(&mut ClusterView)| {
        let mut registry = ClusterView::read(&scene.state).unwrap();
        change(&mut registry);
        RegistryProof { registry: registry.encode(), ..good.clone() }
    };
    // A key of the forger's for a node, a node more, a later revision, another committee.
    let node_of_mine = forged(&|registry| registry.nodes[0].tls_key_hash = Hash32([6; 32]));
    assert_eq!(scene.judge(&node_of_mine), Err("registry_not_in_state"));
    let later = forged(&|registry| registry.revision = u64::MAX);
    assert_eq!(scene.judge(&later), Err("registry_not_in_state"));
    let seats = forged(&|registry| {
        registry.committees[0].members.pop();
    });
    assert!(scene.judge(&seats).is_err());
    let disordered = forged(&|registry| registry.nodes.reverse());
    assert_eq!(scene.judge(&disordered), Err("registry_form"));
    let elsewhere = forged(&|registry| registry.cluster = ClusterId(Hash32([1; 32])));
    assert_eq!(scene.judge(&elsewhere), Err("registry_other_cluster"));

    // A header that one member signs alone, or that names a height of its own.
    let mut alone = good.clone();
    alone.certificate.signatures.truncate(1);
    assert_eq!(scene.judge(&alone), Err("registry_certificate"));
    let mut higher = good.clone();
    higher.certificate.header.height = Height(u64::MAX);
    assert_eq!(scene.judge(&higher), Err("registry_certificate"));
    let mut of_a_shard = good.clone();
    of_a_shard.certificate = certified(&scene.genesis, GroupId::shard(0), 9, 0);
    assert_eq!(scene.judge(&of_a_shard), Err("registry_certificate"));

    // The certified state of another block holds another registry.
    let mut before = good.clone();
    before.certificate.header.state_root = Hash32([3; 32]);
    sign_again(&mut before.certificate);
    assert_eq!(scene.judge(&before), Err("registry_not_in_state"));
    let mut bytes = good.encode();
    bytes[0] = 2;
    assert_eq!(RegistryProof::decode(&bytes).map_err(|error| error.code()), Err("registry_malformed"));
}

#[test]
fn every_change_moves_what_the_state_commits_to() {
    let genesis = genesis();
    let first = state_of(&genesis);
    assert!(!first.contains_key(&registry::head_key()), "the genesis commits to the first registry itself");
    assert_eq!(ClusterView::read(&first).unwrap(), ClusterView::from_genesis(&genesis));
    let second = changed(&first, &genesis, 7);
    let third = changed(&second, &genesis, 8);
    for state in [&second, &third] {
        let picture = ClusterView::read(state).unwrap();
        let head = registry::RegistryHead::of(picture.revision, &picture.encode());
        assert_eq!(state[&registry::head_key()], borsh::to_vec(&head).unwrap());
    }
    assert_ne!(second[&registry::head_key()], third[&registry::head_key()]);
}
