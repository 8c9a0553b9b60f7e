//! What followers are given: a registry that the beacon's certified state holds, and nothing else.

use beacon::command::{BeaconCommand, SignedCommand};
use beacon::machine::{CommandOutcome, execute_command};
use beacon::{ClusterView, RegistryProof, RegistryProofError, Succession, registry};
use ledger::certificate::{Certificate, CertificateError};
use ledger::committee::Committee;
use ledger::genesis::Genesis;
use ledger::handover::Handover;
use ledger::hash::Hash32;
use ledger::ids::{ClusterId, Epoch, GroupId, Height, NodeId, OrgId, TimeMs};
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

/// The beacon's committee of the genesis, and two later ones, of which each has one member that the one before lacks.
pub fn committees(genesis: &Genesis) -> [Committee; 3] {
    let first = genesis.committee(GroupId::BEACON).unwrap().clone();
    let changed = |from: &Committee, epoch: u64, gone: usize| {
        let members = from.members.iter().enumerate().filter(|(at, _)| *at != gone).map(|(_, member)| member.clone());
        let free =
            genesis.nodes.iter().find(|node| first.index_of(node.id).is_none() && from.index_of(node.id).is_none());
        let free = free.unwrap();
        let joins = ledger::Member { node: free.id, org: free.org, key: free.key };
        Committee::of(from.engine, from.group, from.incarnation, Epoch(epoch), members.chain([joins]).collect())
    };
    let second = changed(&first, 1, 0);
    let third = changed(&second, 2, 0);
    [first, second, third]
}

/// A header of the beacon, certified by one committee and naming another one for the next.
pub fn signed_by(genesis: &Genesis, committee: &Committee, next: &Committee, height: u64, root: Hash32) -> Certificate {
    let mut certificate = certified(genesis, GroupId::BEACON, height, 0);
    let header = &mut certificate.header;
    (header.committee_hash, header.next_committee_hash, header.state_root) = (committee.hash(), next.hash(), root);
    certificate.signatures =
        committee.members.iter().map(|member| (member.node, certificate.signatures[0].1)).collect();
    sign_again(&mut certificate);
    certificate
}

pub fn step(genesis: &Genesis, from: &Committee, to: &Committee, height: u64) -> Handover {
    Handover { committee: from.clone(), certificate: signed_by(genesis, from, to, height, Hash32([height as u8; 32])) }
}

/// The registry of a state with this committee of the beacon in force, proved by `signs`.
fn proved(genesis: &Genesis, in_force: &Committee, signs: &Committee, height: u64) -> RegistryProof {
    let state = settle(&state_of(genesis), |view| {
        let hash = in_force.hash();
        view.store(registry::committee_key(GroupId::BEACON, &hash), in_force);
        view.store(registry::current_key(GroupId::BEACON), &hash);
    });
    let state = changed(&state, genesis, 7);
    let mut leaves: Vec<_> =
        state.iter().filter_map(|(key, value)| Some((schema::tree_position(key)?, value_hash(value)))).collect();
    leaves.sort_unstable_by_key(|leaf| leaf.0);
    let mut tree = StateTree::from_sorted(BitPrefix::ROOT, leaves).unwrap();
    let position = schema::tree_position(&registry::head_key()).unwrap();
    let path = tree.prove(&position).unwrap();
    let certificate = signed_by(genesis, signs, in_force, height, Hash32(tree.root()));
    RegistryProof::new(&ClusterView::read(&state).unwrap(), path, certificate)
}

#[test]
fn whoever_has_the_genesis_alone_follows_the_beacon_over_changes_of_its_committee() {
    let genesis = genesis();
    let cluster = genesis.cluster_id();
    let [first, second, third] = committees(&genesis);
    let steps = [step(&genesis, &first, &second, 5), step(&genesis, &second, &third, 8)];
    let new = Succession::new(first.clone());
    let proof = proved(&genesis, &third, &third, 9);
    let judged = new.judge(&cluster, &proof, &steps).unwrap();
    assert_eq!((judged.height, judged.registry.committee(GroupId::BEACON)), (Height(9), Some(&third)));
    assert_eq!(judged.succession, Succession::of(steps.to_vec(), third.clone()));
    // One that was there for a part of it needs the rest, and takes no harm from the whole.
    let old = Succession::of(steps[..1].to_vec(), second.clone());
    for given in [&steps[..], &steps[1..], judged.succession.since(Epoch(1))] {
        assert_eq!(old.judge(&cluster, &proof, given).as_ref(), Ok(&judged));
    }
    assert_eq!(judged.succession.judge(&cluster, &proof, &[]).as_ref(), Ok(&judged), "one that knows all needs none");
    // The block that hands over is certified by the committee before it, which is enough for both.
    let last = proved(&genesis, &third, &second, 8);
    let handed = Handover { committee: second.clone(), certificate: last.certificate.clone() };
    let at_once = new.judge(&cluster, &last, &[steps[0].clone(), handed.clone()]).unwrap();
    assert_eq!(at_once.succession.last(), &third);
    // Neither that registry nor the first step says who has certified it: it waits for the second one.
    let early = new.judge(&cluster, &last, &steps[..1]);
    assert_eq!(early, Err(RegistryProofError::Certificate(CertificateError::Committee)));
    // An old registry is judged by whom it was certified, with whatever came since.
    let earlier = proved(&genesis, &first, &first, 3);
    assert_eq!(judged.succession.judge(&cluster, &earlier, &steps).unwrap().succession, judged.succession);
    // One that has handed over certifies nothing behind that.
    let ghost = proved(&genesis, &first, &first, 6);
    let refused = judged.succession.judge(&cluster, &ghost, &steps).map_err(|error| error.code());
    assert_eq!(refused.map(drop), Err("registry_certificate"));
}

/// What is wrong with two steps.
type Change<'a> = &'a dyn Fn(&mut [Handover; 2]);

#[test]
fn no_committee_is_believed_that_the_one_before_has_not_named() {
    let genesis = genesis();
    let cluster = genesis.cluster_id();
    let [first, second, third] = committees(&genesis);
    let good = [step(&genesis, &first, &second, 5), step(&genesis, &second, &third, 8)];
    let proof = proved(&genesis, &third, &third, 9);
    let of = |change: Change<'_>| {
        let mut steps = good.clone();
        change(&mut steps);
        Succession::new(first.clone()).judge(&cluster, &proof, &steps).map(drop).map_err(|error| error.code())
    };
    assert_eq!(of(&|_| ()), Ok(()));
    let wrong: [(&str, Change<'_>, &str); 7] = [
        ("none", &|steps| steps[0].committee = third.clone(), "registry_certificate"),
        ("a step is missing", &|steps| steps[1] = steps[0].clone(), "registry_handover"),
        ("signed by too few", &|steps| steps[1].certificate.signatures.truncate(1), "registry_handover"),
        ("another one is named", &|steps| steps[1] = step(&genesis, &second, &first, 8), "registry_certificate"),
        ("out of order", &|steps| steps[1] = step(&genesis, &second, &third, 5), "registry_handover"),
        ("altered", &|steps| steps[0].certificate.header.next_committee_hash = third.hash(), "registry_handover"),
        (
            "of a shard",
            &|steps| steps[1].certificate = certified(&genesis, GroupId::shard(0), 8, 0),
            "registry_handover",
        ),
    ];
    for (what, change, code) in wrong {
        assert_eq!(of(change), Err(code), "{what}");
    }
    // Nor does a registry name its own judge.
    let alone = Succession::new(first).judge(&cluster, &proof, &[]).map_err(|error| error.code());
    assert_eq!(alone, Err("registry_certificate"));
}
