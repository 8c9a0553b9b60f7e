//! Groups founded at run time: who approves, what is written, who is told, and what is refused.

use beacon::command::{BeaconCommand, Engine, FoundedKind, Founding, SignedCommand};
use beacon::limits::CHANNELS_MAX;
use beacon::machine::{CommandOutcome, Executed, execute_command};
use beacon::{ClusterView, registry};
use cross_shard::message::Message;
use ledger::asset::AssetSpec;
use ledger::genesis::Genesis;
use ledger::ids::{GroupId, NodeId, OrgId, TimeMs};
use ledger::limits::CHARTER_BYTES_MAX;
use ledger::reject::Reject;
use ledger::{Address, Foundation};

use crate::support::{NOW, State, admin, at, genesis, settle, state_of};

fn founding(members: &[u16], replicas: u16) -> Founding {
    Founding {
        kind: FoundedKind::Channel,
        charter: b"a charter".to_vec(),
        members: members.iter().copied().map(OrgId).collect(),
        replicas,
        consensus: Engine::Raft,
    }
}

fn send(state: &mut State, genesis: &Genesis, founding: &Founding, by: u16, salt: u8) -> Result<Executed, Reject> {
    send_at(state, genesis, founding, by, salt, NOW)
}

fn send_at(
    state: &mut State,
    genesis: &Genesis,
    founding: &Founding,
    by: u16,
    salt: u8,
    now: u64,
) -> Result<Executed, Reject> {
    let command = BeaconCommand::FoundGroup(founding.clone());
    let until = TimeMs(now + 60_000);
    let signed = SignedCommand::sign(&genesis.cluster_id(), &command, OrgId(by), [salt; 16], until, &admin(by));
    let mut executed = Err(Reject::Storage);
    let next = settle(state, |view| executed = execute_command(view, &at(genesis, now), &signed.encode()));
    if executed.is_err() {
        assert_eq!(next, *state, "a refusal leaves no trace");
    }
    *state = next;
    executed
}

fn pending(approvals: u16, needed: u16) -> CommandOutcome {
    CommandOutcome::Pending { approvals, needed }
}

fn outcome(executed: Result<Executed, Reject>) -> Result<CommandOutcome, Reject> {
    executed.map(|executed| {
        let told = executed.outcome == CommandOutcome::Applied;
        assert_eq!(!executed.mail.is_empty(), told, "mail goes out when it is decided, and not before");
        executed.outcome
    })
}

#[test]
fn a_group_is_founded_by_all_its_members_and_everybody_is_told() {
    let genesis = genesis();
    let mut state = state_of(&genesis);
    let asset = AssetSpec { issuer: Address([3; 20]), symbol: "EUR".into(), name: "Euro".into(), decimals: 2 };
    let def = ledger::AssetDef { version: 1, id: asset.id(), spec: asset, frozen: false };
    state.insert(registry::asset_key(&def.id), borsh::to_vec(&def).unwrap().into());

    let wanted = founding(&[1, 3], 2);
    assert_eq!(outcome(send(&mut state, &genesis, &wanted, 1, 1)), Ok(pending(1, 2)));
    assert_eq!(outcome(send(&mut state, &genesis, &wanted, 1, 2)), Ok(pending(1, 2)), "nobody counts twice");
    assert!(ClusterView::read(&state).unwrap().foundations.is_empty());
    let executed = send(&mut state, &genesis, &wanted, 3, 3).unwrap();
    assert_eq!(executed.outcome, CommandOutcome::Applied);

    let view = ClusterView::read(&state).unwrap();
    assert!(view.well_formed());
    let channel = GroupId::channel(0);
    let founded: &Foundation = view.foundation(channel).unwrap();
    assert!(founded.well_formed());
    assert_eq!((founded.charter.as_slice(), &founded.members), (&b"a charter"[..], &wanted.members));
    assert_eq!((&founded.layout, founded.founded_ms), (&genesis.layout, TimeMs(NOW)));
    assert_eq!(Some(&founded.beacon_committee), genesis.committee(GroupId::BEACON));
    assert_eq!(view.committee(channel), Some(&founded.committee));
    let orgs: Vec<OrgId> = founded.committee.members.iter().map(|member| member.org).collect();
    assert_eq!(founded.committee.members.len(), 2);
    assert!(orgs.contains(&OrgId(1)) && orgs.contains(&OrgId(3)), "one seat each: {orgs:?}");
    assert_eq!(executed.committees, std::slice::from_ref(&founded.committee));

    // Every shard hears of the group, and the group hears of everybody, in this order.
    let update = |group| Message::CommitteeUpdate(view.committee(group).unwrap().clone());
    let shards: Vec<GroupId> = genesis.layout.shards.iter().map(|shard| shard.group).collect();
    let mut expected: Vec<(GroupId, Message)> = shards.iter().map(|shard| (*shard, update(channel))).collect();
    let all = [GroupId::BEACON].into_iter().chain(shards).chain([channel]);
    expected.extend(all.map(|group| (channel, update(group))));
    expected.push((channel, Message::LayoutUpdate(genesis.layout.clone())));
    expected.push((channel, Message::AssetUpdate(def)));
    assert_eq!(executed.mail, expected);

    // The next one gets another ordinal, and the first one hears of it.
    let next = founding(&[2], 1);
    let executed = send(&mut state, &genesis, &next, 2, 4).unwrap();
    assert_eq!(executed.outcome, CommandOutcome::Applied);
    let view = ClusterView::read(&state).unwrap();
    let second = view.committee(GroupId::channel(1)).unwrap();
    assert!(second.members.iter().all(|member| member.org == OrgId(2)));
    assert!(executed.mail.contains(&(channel, Message::CommitteeUpdate(second.clone()))));
}

#[test]
fn a_proposal_expires_with_its_first_approval() {
    let genesis = genesis();
    let mut state = state_of(&genesis);
    let wanted = founding(&[1, 2], 1);
    assert_eq!(outcome(send(&mut state, &genesis, &wanted, 1, 1)), Ok(pending(1, 2)));
    let late = send_at(&mut state, &genesis, &wanted, 2, 2, NOW + 60_001);
    assert_eq!(outcome(late), Ok(pending(1, 2)), "the first approval has lapsed");
    let again = send_at(&mut state, &genesis, &wanted, 1, 3, NOW + 60_002);
    assert_eq!(outcome(again), Ok(CommandOutcome::Applied));
}

#[test]
fn what_cannot_be_founded_is_refused() {
    let genesis = genesis();
    let mut state = state_of(&genesis);
    let good = founding(&[1, 2], 2);
    for (wrong, by, reject) in [
        (good.clone(), 3, Reject::NotAuthorised),
        (founding(&[], 1), 1, Reject::Registry),
        (founding(&[2, 1], 1), 1, Reject::Registry),
        (founding(&[1, 1], 1), 1, Reject::Registry),
        (founding(&[1, 9], 1), 1, Reject::Registry),
        (founding(&[1, 2], 0), 1, Reject::Seats),
        (founding(&[1, 2], 5), 1, Reject::Seats),
        (Founding { charter: vec![0; CHARTER_BYTES_MAX + 1], ..good.clone() }, 1, Reject::Registry),
    ] {
        assert_eq!(outcome(send(&mut state, &genesis, &wrong, by, 1)), Err(reject), "{wrong:?}");
    }
    // Nodes that lose their capacity between approval and decision count when it is decided.
    assert_eq!(outcome(send(&mut state, &genesis, &founding(&[3], 1), 3, 2)), Ok(CommandOutcome::Applied));
    let mut nodes: Vec<_> = genesis.nodes.iter().filter(|node| node.org == OrgId(3)).cloned().collect();
    for node in &mut nodes {
        node.capacity = 0;
        state.insert(registry::node_key(node.id), borsh::to_vec(node).unwrap().into());
    }
    assert_eq!(outcome(send(&mut state, &genesis, &founding(&[3], 1), 3, 3)), Err(Reject::Seats));
}

#[test]
fn ordinals_end_and_are_never_given_again() {
    let genesis = genesis();
    let mut state = state_of(&genesis);
    let last = u32::try_from(CHANNELS_MAX).unwrap() - 1;
    state.insert(registry::channels_key(), borsh::to_vec(&last).unwrap().into());
    let wanted = founding(&[1], 1);
    assert_eq!(outcome(send(&mut state, &genesis, &wanted, 1, 1)), Ok(CommandOutcome::Applied));
    let view = ClusterView::read(&state).unwrap();
    assert_eq!(view.foundations[0].group, GroupId::channel(last));
    assert!(view.groups_of(NodeId(1)).count() > 0);
    assert_eq!(outcome(send(&mut state, &genesis, &wanted, 1, 2)), Err(Reject::Busy));
}
