//! Signed commands: who may change what, exactly once, and approvals of new organisations.

use beacon::command::{BeaconCommand, SignedCommand};
use beacon::machine::{CommandOutcome, execute_command};
use beacon::{ClusterView, registry};
use ledger::crypto::SecretKey;
use ledger::genesis::Genesis;
use ledger::hash::Hash32;
use ledger::ids::{NodeId, OrgId, TimeMs};
use ledger::reject::Reject;
use ledger::view::View;

use crate::support::{NOW, State, admin, at, genesis, node, node_key, org, settle, state_of};

fn signed(genesis: &Genesis, command: &BeaconCommand, by: u16, salt: u8) -> SignedCommand {
    SignedCommand::sign(&genesis.cluster_id(), command, OrgId(by), [salt; 16], TimeMs(NOW + 60_000), &admin(by))
}

fn run(state: &mut State, genesis: &Genesis, command: &SignedCommand) -> Result<CommandOutcome, Reject> {
    run_at(state, genesis, &command.encode(), NOW)
}

fn run_at(state: &mut State, genesis: &Genesis, bytes: &[u8], now: u64) -> Result<CommandOutcome, Reject> {
    let mut outcome = Err(Reject::Storage);
    let next = settle(state, |view| {
        outcome = execute_command(view, &at(genesis, now), bytes)
            .map(|executed| executed.outcome)
            .map_err(|refused| refused.reject)
    });
    if outcome.is_err() {
        assert_eq!(next, *state, "a refusal leaves no trace");
    }
    *state = next;
    outcome
}

#[test]
fn a_node_joins_and_changes_under_its_own_organisation() {
    let genesis = genesis();
    let mut state = state_of(&genesis);
    let join = signed(&genesis, &BeaconCommand::RegisterNode(node(6, 2, "zone-2")), 2, 1);
    assert_eq!(run(&mut state, &genesis, &join), Ok(CommandOutcome::Applied));

    let moved = BeaconCommand::UpdateNodeAddrs {
        node: NodeId(6),
        peer_addr: "node-6.example:7000".to_owned(),
        client_addr: "node-6.example:8000".to_owned(),
    };
    assert_eq!(run(&mut state, &genesis, &signed(&genesis, &moved, 1, 2)), Err(Reject::NotAuthorised));
    assert_eq!(run(&mut state, &genesis, &signed(&genesis, &moved, 2, 2)), Ok(CommandOutcome::Applied));
    let tls = BeaconCommand::UpdateNodeTls { node: NodeId(6), tls_key_hash: Hash32([9; 32]) };
    assert_eq!(run(&mut state, &genesis, &signed(&genesis, &tls, 2, 3)), Ok(CommandOutcome::Applied));
    assert_eq!(run(&mut state, &genesis, &signed(&genesis, &tls, 2, 4)), Err(Reject::Registry), "the key is taken");
    let drain = BeaconCommand::SetNodeCapacity { node: NodeId(6), capacity: 0 };
    assert_eq!(run(&mut state, &genesis, &signed(&genesis, &drain, 2, 5)), Ok(CommandOutcome::Applied));

    let view = ClusterView::read(&state).unwrap();
    let node = view.node_by_tls_key(&Hash32([9; 32])).unwrap();
    assert_eq!((node.id, node.capacity, node.peer_addr.as_str()), (NodeId(6), 0, "node-6.example:7000"));
    assert_eq!(view.revision, 5);
}

#[test]
fn a_command_executes_once() {
    let genesis = genesis();
    let mut state = state_of(&genesis);
    let drain = |capacity| BeaconCommand::SetNodeCapacity { node: NodeId(1), capacity };
    let first = signed(&genesis, &drain(7), 1, 1);
    assert_eq!(run(&mut state, &genesis, &first), Ok(CommandOutcome::Applied));
    assert_eq!(run(&mut state, &genesis, &signed(&genesis, &drain(2), 1, 2)), Ok(CommandOutcome::Applied));
    let before = state.clone();
    assert_eq!(run(&mut state, &genesis, &first), Ok(CommandOutcome::Applied), "the first outcome again");
    assert_eq!(state, before);
    assert_eq!(run_at(&mut state, &genesis, &first.encode(), NOW + 60_001), Err(Reject::Expired));

    // Past their deadline the two are forgotten with the next command.
    let late =
        SignedCommand::sign(&genesis.cluster_id(), &drain(3), OrgId(1), [3; 16], TimeMs(NOW + 120_000), &admin(1));
    assert_eq!(run_at(&mut state, &genesis, &late.encode(), NOW + 60_001), Ok(CommandOutcome::Applied));
    assert_eq!(state.keys().filter(|key| key.starts_with(b"Gdone/")).count(), 1);
}

#[test]
fn what_is_not_signed_so_is_refused() {
    let genesis = genesis();
    let mut state = state_of(&genesis);
    let command = BeaconCommand::SetNodeCapacity { node: NodeId(1), capacity: 3 };
    let good = signed(&genesis, &command, 1, 1);

    let mut broken = good.clone();
    broken.salt[0] ^= 1;
    assert_eq!(run(&mut state, &genesis, &broken), Err(Reject::BadSignature));
    let other_org = SignedCommand { org: OrgId(2), ..good.clone() };
    assert_eq!(run(&mut state, &genesis, &other_org), Err(Reject::BadSignature));
    let unknown = SignedCommand { org: OrgId(9), ..good.clone() };
    assert_eq!(run(&mut state, &genesis, &unknown), Err(Reject::Registry));
    let version = SignedCommand { version: 2, ..good.clone() };
    assert_eq!(run(&mut state, &genesis, &version), Err(Reject::Malformed));
    let mut inner = good.clone();
    inner.command.push(0);
    assert_eq!(run(&mut state, &genesis, &inner), Err(Reject::Malformed));
    let mut trailing = good.encode();
    trailing.push(0);
    assert_eq!(run_at(&mut state, &genesis, &trailing, NOW), Err(Reject::Malformed));
    assert_eq!(run_at(&mut state, &genesis, &vec![0; 20_000], NOW), Err(Reject::BodyTooLarge));
    assert_eq!(run_at(&mut state, &genesis, &good.encode(), NOW - 25 * 3_600_000), Err(Reject::ValidTooLong));
    let elsewhere = SignedCommand::sign(
        &ledger::ids::ClusterId(Hash32([1; 32])),
        &command,
        OrgId(1),
        [1; 16],
        TimeMs(NOW + 60_000),
        &admin(1),
    );
    assert_eq!(run(&mut state, &genesis, &elsewhere), Err(Reject::BadSignature));
}

#[test]
fn nodes_out_of_form_or_taken_are_refused() {
    let genesis = genesis();
    let mut state = state_of(&genesis);
    let fresh = node(6, 1, "zone-1");
    let wrong = [
        ledger::genesis::NodeInfo { id: NodeId(1), ..fresh.clone() },
        ledger::genesis::NodeInfo { org: OrgId(2), ..fresh.clone() },
        ledger::genesis::NodeInfo { key: node_key(1).public(), ..fresh.clone() },
        ledger::genesis::NodeInfo { key: ledger::crypto::PublicKey([5; 33]), ..fresh.clone() },
        ledger::genesis::NodeInfo { peer_addr: "no port".to_owned(), ..fresh.clone() },
        ledger::genesis::NodeInfo { client_addr: "host:0".to_owned(), ..fresh.clone() },
        ledger::genesis::NodeInfo { zone: "z".repeat(65), ..fresh.clone() },
        ledger::genesis::NodeInfo { capacity: 1001, ..fresh },
    ];
    for (salt, node) in (0u8..).zip(wrong) {
        let command = signed(&genesis, &BeaconCommand::RegisterNode(node), 1, salt);
        assert_eq!(run(&mut state, &genesis, &command), Err(Reject::Registry));
    }
}

#[test]
fn an_organisation_joins_when_more_than_half_approve_the_same_terms() {
    let genesis = genesis();
    let mut state = state_of(&genesis);
    let proposal = BeaconCommand::RegisterOrg(org(4));
    let pending = Ok(CommandOutcome::Pending { approvals: 1, needed: 2 });
    assert_eq!(run(&mut state, &genesis, &signed(&genesis, &proposal, 1, 1)), pending);
    assert_eq!(run(&mut state, &genesis, &signed(&genesis, &proposal, 1, 2)), pending, "nobody counts twice");
    let other_terms = BeaconCommand::RegisterOrg(ledger::genesis::OrgInfo { name: "org-four".to_owned(), ..org(4) });
    assert_eq!(run(&mut state, &genesis, &signed(&genesis, &other_terms, 2, 1)), pending);
    assert_eq!(ClusterView::read(&state).unwrap().orgs.len(), 3);
    assert_eq!(run(&mut state, &genesis, &signed(&genesis, &proposal, 3, 1)), Ok(CommandOutcome::Applied));
    assert_eq!(ClusterView::read(&state).unwrap().org(OrgId(4)), Some(&org(4)));
    assert_eq!(run(&mut state, &genesis, &signed(&genesis, &proposal, 2, 3)), Err(Reject::Registry), "it is in");
}

#[test]
fn a_proposal_lapses_with_its_deadline() {
    let genesis = genesis();
    let mut state = state_of(&genesis);
    let proposal = BeaconCommand::RegisterOrg(org(4));
    run(&mut state, &genesis, &signed(&genesis, &proposal, 1, 1)).unwrap();
    let late =
        SignedCommand::sign(&genesis.cluster_id(), &proposal, OrgId(2), [1; 16], TimeMs(NOW + 120_000), &admin(2));
    let outcome = run_at(&mut state, &genesis, &late.encode(), NOW + 60_001);
    assert_eq!(outcome, Ok(CommandOutcome::Pending { approvals: 1, needed: 2 }));
}

#[test]
fn an_admin_key_rotates() {
    let genesis = genesis();
    let mut state = state_of(&genesis);
    let next = SecretKey::derive(b"next", b"");
    let rotate = signed(&genesis, &BeaconCommand::RotateAdminKey { key: next.public() }, 1, 1);
    assert_eq!(run(&mut state, &genesis, &rotate), Ok(CommandOutcome::Applied));
    assert_eq!(run(&mut state, &genesis, &rotate), Ok(CommandOutcome::Applied), "sent again");
    let drain = BeaconCommand::SetNodeCapacity { node: NodeId(1), capacity: 0 };
    assert_eq!(run(&mut state, &genesis, &signed(&genesis, &drain, 1, 2)), Err(Reject::BadSignature));
    let by_new = SignedCommand::sign(&genesis.cluster_id(), &drain, OrgId(1), [2; 16], TimeMs(NOW + 60_000), &next);
    assert_eq!(run(&mut state, &genesis, &by_new), Ok(CommandOutcome::Applied));
    let ca = BeaconCommand::UpdateOrgCa { ca_pem: "not a certificate".to_owned() };
    let ca = SignedCommand::sign(&genesis.cluster_id(), &ca, OrgId(1), [3; 16], TimeMs(NOW + 60_000), &next);
    assert_eq!(run(&mut state, &genesis, &ca), Err(Reject::Registry));
}

#[test]
fn a_nodes_certificate_is_replaced_before_it_is_revoked_and_does_not_come_back() {
    let genesis = genesis();
    let mut state = state_of(&genesis);
    let (old, next) = (genesis.nodes[0].tls_key_hash, Hash32([9; 32]));
    assert_eq!(genesis.nodes[0].org, OrgId(1));
    let revoke = BeaconCommand::RevokeCredential { credential: old };
    assert_eq!(run(&mut state, &genesis, &signed(&genesis, &revoke, 1, 1)), Err(Reject::Registry), "it is in use");
    // Another organisation may say what it likes; it counts for its own certificates alone.
    assert_eq!(run(&mut state, &genesis, &signed(&genesis, &revoke, 2, 2)), Ok(CommandOutcome::Applied));
    let tls = |tls_key_hash| BeaconCommand::UpdateNodeTls { node: NodeId(1), tls_key_hash };
    assert_eq!(run(&mut state, &genesis, &signed(&genesis, &tls(next), 1, 3)), Ok(CommandOutcome::Applied));
    assert_eq!(run(&mut state, &genesis, &signed(&genesis, &revoke, 1, 4)), Ok(CommandOutcome::Applied));
    assert_eq!(run(&mut state, &genesis, &signed(&genesis, &tls(old), 1, 5)), Err(Reject::Registry));
    let join = BeaconCommand::RegisterNode(ledger::genesis::NodeInfo { tls_key_hash: old, ..node(6, 1, "zone-1") });
    assert_eq!(run(&mut state, &genesis, &signed(&genesis, &join, 1, 6)), Err(Reject::Registry));
    assert_eq!(ClusterView::read(&state).unwrap().revoked, [(OrgId(1), old), (OrgId(2), old)]);
}

#[test]
fn every_change_moves_the_audit_head() {
    let genesis = genesis();
    let mut state = state_of(&genesis);
    let head = |state: &State| registry::audit(&mut View::new(state));
    let before = head(&state);
    assert_eq!(before.changes, 0);
    let drain = BeaconCommand::SetNodeCapacity { node: NodeId(1), capacity: 2 };
    run(&mut state, &genesis, &signed(&genesis, &drain, 1, 1)).unwrap();
    let after = head(&state);
    assert_eq!(after.changes, 3, "the node, the revision, the executed command");
    assert_ne!(after.chain, before.chain);
    assert!(ledger::schema::tree_position(&registry::audit_key()).is_some(), "it is a leaf of the state tree");
}
