//! The admins' keys as a client believes them: what the beacon's certified state holds, from the genesis alone, and no other.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use beacon::registry::head_key;
use beacon::{ClusterView, RegistryHead};
use client::admins::{ADMINS_FORMAT, AdminsError, AdminsProof, ProvedAdmins, verify};
use client::descent::Handover;
use client::limits::{ADMINS_AGE_MS_MAX, ADMINS_AHEAD_MS_MAX};
use ledger::genesis::{Genesis, OrgInfo};
use ledger::hash::sha256;
use ledger::tree::{BitPrefix, StateTree, value_hash};
use ledger::*;
use support::{GROUP, certify, committee, header_of};

fn admin(org: u16, generation: u8) -> PublicKey {
    SecretKey::derive(&[generation], &org.to_be_bytes()).public()
}

/// Three organisations, each with its first key.
fn genesis() -> Genesis {
    let org =
        |id: u16| OrgInfo { id: OrgId(id), name: format!("org-{id}"), ca_pem: String::new(), admin_key: admin(id, 0) };
    Genesis { orgs: (1..=3).map(org).collect(), ..support::genesis() }
}

/// The registry after the second organisation has replaced its key.
fn rotated(genesis: &Genesis) -> ClusterView {
    let mut registry = ClusterView::from_genesis(genesis);
    registry.revision = 2;
    registry.orgs[1].admin_key = admin(2, 1);
    registry.revoked = vec![(OrgId(2), sha256(&admin(2, 0).0))];
    registry
}

fn keys(generations: [(u16, u8); 3]) -> BTreeMap<OrgId, PublicKey> {
    generations.map(|(org, generation)| (OrgId(org), admin(org, generation))).into()
}

/// What the beacon answers whose state holds this registry, or none but that of the genesis; certified by the committee of an
/// epoch.
fn answer(genesis: &Genesis, registry: Option<&ClusterView>, height: u64, epoch: u64) -> AdminsProof {
    let position = schema::tree_position(&head_key()).unwrap();
    let mut tree = StateTree::new(BitPrefix::ROOT);
    let others = (1..=5u8).map(|byte| ([byte; 32], Some(value_hash(&[byte]))));
    let head = registry.map(|registry| RegistryHead::of(registry.revision, &registry.encode()));
    let leaf = head.map(|head| (position, Some(value_hash(&borsh::to_vec(&head).unwrap()))));
    tree.apply(others.chain(leaf)).unwrap();
    let path = tree.prove(&position).unwrap();
    let header = Header { state_root: Hash32(tree.root()), ..header_of(genesis, GroupId::BEACON, height, epoch) };
    AdminsProof {
        version: ADMINS_FORMAT,
        registry: registry.map(ClusterView::encode),
        path,
        certificate: certify(header, epoch, &[1, 2]),
        committee: committee(GroupId::BEACON, epoch),
        handovers: Vec::new(),
    }
}

/// The step from the beacon's committee of the genesis to the next one, signed by these members of it.
fn step(genesis: &Genesis, signed_by: &[u32]) -> Handover {
    let next_committee_hash = committee(GroupId::BEACON, 1).hash();
    let last = Header { next_committee_hash, ..header_of(genesis, GroupId::BEACON, 5, 0) };
    Handover { committee: committee(GroupId::BEACON, 0), certificate: certify(last, 0, signed_by) }
}

fn code(proof: &AdminsProof, genesis: &Genesis) -> Result<BTreeMap<OrgId, PublicKey>, &'static str> {
    verify(proof, genesis).map(|proved| proved.keys).map_err(|error| error.code())
}

#[test]
fn keys_in_certified_state_are_believed() {
    let genesis = genesis();
    // Before the first change nothing of the registry stands in the state, and that is proved.
    assert_eq!(code(&answer(&genesis, None, 8, 0), &genesis), Ok(keys([(1, 0), (2, 0), (3, 0)])));
    let proof = answer(&genesis, Some(&rotated(&genesis)), 8, 0);
    let proved = verify(&proof, &genesis).unwrap();
    assert_eq!(proved.keys, keys([(1, 0), (2, 1), (3, 0)]));
    assert_eq!((proved.height, proved.time_ms), (Height(8), TimeMs(5)));
    let mut later = answer(&genesis, Some(&rotated(&genesis)), 8, 1);
    later.handovers = vec![step(&genesis, &[2, 3])];
    assert_eq!(code(&later, &genesis), Ok(keys([(1, 0), (2, 1), (3, 0)])));
}

#[test]
fn no_lie_of_a_router_is_believed() {
    let genesis = genesis();
    let good = answer(&genesis, Some(&rotated(&genesis)), 8, 0);
    let registry = |change: &dyn Fn(&mut ClusterView)| {
        let mut registry = rotated(&genesis);
        change(&mut registry);
        AdminsProof { registry: Some(registry.encode()), ..good.clone() }
    };
    let proof = |change: &dyn Fn(&mut AdminsProof)| {
        let mut proof = good.clone();
        change(&mut proof);
        proof
    };
    let elsewhere = Genesis { name: "another".to_owned(), ..genesis.clone() };
    let before = ClusterView::from_genesis(&genesis);
    let unsigned = Header { time_ms: TimeMs(u64::MAX), ..good.certificate.header.clone() };
    let of_a_shard = Header { state_root: good.certificate.header.state_root, ..header_of(&genesis, GROUP, 8, 0) };
    let unled = answer(&genesis, Some(&rotated(&genesis)), 8, 1);
    let mut forged_step = unled.clone();
    forged_step.handovers = vec![step(&genesis, &[2])];
    let lies = [
        ("another key", registry(&|shown| shown.orgs[1].admin_key = admin(9, 9)), "admins_not_in_state"),
        ("the key before", registry(&|shown| shown.orgs[1].admin_key = admin(2, 0)), "admins_not_in_state"),
        ("an organisation left out", registry(&|shown| drop(shown.orgs.remove(1))), "admins_not_in_state"),
        ("a revocation left out", registry(&|shown| shown.revoked.clear()), "admins_not_in_state"),
        ("another revision", registry(&|shown| shown.revision = 3), "admins_not_in_state"),
        ("organisations out of order", registry(&|shown| shown.orgs.reverse()), "admins_not_in_state"),
        ("the registry before", proof(&|shown| shown.registry = Some(before.encode())), "admins_not_in_state"),
        ("that nothing changed since the genesis", proof(&|shown| shown.registry = None), "admins_not_in_state"),
        ("half a registry", proof(&|shown| shown.registry.as_mut().unwrap().truncate(90)), "admins_malformed"),
        ("an unknown version", proof(&|shown| shown.version = 2), "admins_malformed"),
        (
            "a registry of another cluster",
            registry(&|shown| shown.cluster = elsewhere.cluster_id()),
            "admins_other_cluster",
        ),
        ("the beacon of another cluster", answer(&elsewhere, Some(&rotated(&elsewhere)), 8, 0), "admins_other_cluster"),
        ("one signature", proof(&|shown| shown.certificate.signatures.truncate(1)), "admins_committee"),
        (
            "a member twice",
            proof(&|shown| shown.certificate.signatures[1] = shown.certificate.signatures[0]),
            "admins_committee",
        ),
        ("a time that nobody signed", proof(&|shown| shown.certificate.header = unsigned.clone()), "admins_committee"),
        (
            "a shard's header",
            proof(&|shown| shown.certificate = certify(of_a_shard.clone(), 0, &[1, 2])),
            "admins_committee",
        ),
        ("a committee that nobody named", unled, "admins_committee"),
        ("a hand-over by too few", forged_step, "admins_committee"),
        (
            "the path of another state",
            proof(&|shown| shown.path = answer(&genesis, Some(&before), 8, 0).path),
            "admins_not_in_state",
        ),
        ("a path to nothing", proof(&|shown| shown.path = answer(&genesis, None, 8, 0).path), "admins_not_in_state"),
    ];
    assert!(code(&good, &genesis).is_ok());
    for (lie, proof, expected) in lies {
        assert_eq!(code(&proof, &genesis), Err(expected), "{lie}");
    }
}

#[test]
fn no_altered_byte_leads_to_another_key() {
    let genesis = genesis();
    let good = answer(&genesis, Some(&rotated(&genesis)), 8, 0);
    let (bytes, expected) = (borsh::to_vec(&good).unwrap(), code(&good, &genesis).unwrap());
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        let Ok(proof) = borsh::from_slice::<AdminsProof>(&altered) else { continue };
        if let Ok(keys) = code(&proof, &genesis) {
            assert_eq!(keys, expected, "byte {at}");
        }
    }
}

/// A block that was certified before a key was replaced proves the key before: what bounds that is its age.
#[test]
fn an_old_block_is_not_of_now() {
    let time = 1_700_000_000_000;
    let proved = ProvedAdmins { keys: BTreeMap::new(), height: Height(8), time_ms: TimeMs(time) };
    let second = 1_000;
    for (now, seen, expected) in [
        (time, 0, Ok(())),
        (time, 8, Ok(())),
        (time, 9, Err(AdminsError::Older { shown: Height(8), seen: Height(9) })),
        (time + ADMINS_AGE_MS_MAX, 8, Ok(())),
        (time + ADMINS_AGE_MS_MAX + second, 8, Err(AdminsError::Stale(ADMINS_AGE_MS_MAX / second + 1))),
        (time - ADMINS_AHEAD_MS_MAX, 8, Ok(())),
        (time - ADMINS_AHEAD_MS_MAX - second, 8, Err(AdminsError::Ahead(ADMINS_AHEAD_MS_MAX / second + 1))),
        (0, 0, Err(AdminsError::Ahead(time / second))),
        (u64::MAX, 0, Err(AdminsError::Stale((u64::MAX - time) / second))),
    ] {
        assert_eq!(proved.check_age(TimeMs(now), Height(seen)), expected, "at {now}, seen {seen}");
    }
    let codes =
        [AdminsError::Stale(1), AdminsError::Ahead(1), AdminsError::Older { shown: Height(1), seen: Height(2) }];
    assert_eq!(codes.map(|error| error.code()), ["admins_stale", "admins_ahead", "admins_older"]);
}
