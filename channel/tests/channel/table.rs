//! Every act on a proposal in every state that one can be in, by everybody: the whole table, through
//! the machine.

use channel::{Change, Command, Policy, ProposalState, Quorum, Refusal, Role, Subject};
use channel::{Outcome, state};
use ledger::hash::Hash32;
use ledger::ids::OrgId;

use crate::support::{DAY, World, admin, everyone, majority, node_key, outcome_of};

/// Who acts: the proposer, a member that has spoken, one that has not, a node of that one, an
/// organisation that was removed, and one that never was a member.
const ACTORS: [&str; 6] = ["proposer", "spoken", "silent", "node", "removed", "stranger"];
/// What they do.
const ACTS: [&str; 4] = ["approve", "reject", "withdraw", "settle"];

/// A channel of seven with a proposal of organisation 1 on which 2 has spoken, and 3 to 5 have not;
/// 6 was removed, 7 is only there to bear it, 9 is none. In the state that a row of the table names.
fn world(row: &str) -> (World, Hash32) {
    let mut world = World::with(&[1; 7], &everyone());
    world.enact(Change::Policy { subject: Subject::Membership, policy: majority() });
    world.enact(Change::Policy { subject: Subject::Policy, policy: majority() });
    world.enact(Change::Remove { org: OrgId(6) });
    let seats = world.committee.members.iter().filter(|seat| seat.org != OrgId(6)).cloned().collect();
    let old = &world.committee;
    world.committee = ledger::committee::Committee::majority(old.group, old.incarnation, old.epoch, seats);
    let of_freezing =
        |quorum| Change::Policy { subject: Subject::Freeze, policy: Policy::members(quorum, Role::Admin) };
    let needed = match row {
        "one missing" => 3,
        "applied" => 2,
        "rejected" => 5,
        _ => 4,
    };
    world.enact(of_freezing(Quorum::AtLeast(needed)));
    if row == "unknown" {
        return (world, Hash32([7; 32]));
    }
    let (id, _) = world.propose(1, Change::Freeze);
    match row {
        "open" | "one missing" => assert_eq!(world.approve(2, id), ProposalState::Open),
        // Six decide with four, so that the third rejection ends it.
        "one too many" => {
            world.reject(2, id);
            assert_eq!(world.reject(7, id), ProposalState::Open);
        }
        "met" => {
            world.approve(2, id);
            world.enact(of_freezing(Quorum::AtLeast(2)));
        }
        "applied" => assert_eq!(world.approve(2, id), ProposalState::Applied),
        "rejected" => {
            world.reject(2, id);
            assert_eq!(world.reject(7, id), ProposalState::Rejected);
        }
        "withdrawn" => {
            world.approve(2, id);
            world.run(1, &Command::Withdraw { proposal: id }).unwrap();
        }
        "expired" => {
            world.approve(2, id);
            world.now += DAY;
        }
        "superseded" => {
            world.approve(2, id);
            world.enact(Change::Freeze);
        }
        other => panic!("no such state: {other}"),
    }
    (world, id)
}

fn act(row: &str, actor: &str, act: &str) -> String {
    let (mut world, proposal) = world(row);
    let (org, secret) = match actor {
        "proposer" => (1, admin(1)),
        "spoken" => (2, admin(2)),
        "silent" => (3, admin(3)),
        "node" => (3, node_key(30)),
        "removed" => (6, admin(6)),
        "stranger" => (9, admin(9)),
        other => panic!("nobody is {other}"),
    };
    let command = match act {
        "approve" => Command::Approve { proposal },
        "reject" => Command::Reject { proposal },
        "withdraw" => Command::Withdraw { proposal },
        "settle" => Command::Settle { proposal },
        other => panic!("nobody can {other}"),
    };
    let before = world.read(|view| state::proposal(view, &proposal));
    match world.run_with(org, &secret, &command) {
        Ok(outcome @ Outcome::Proposal { .. }) => {
            let (id, standing) = outcome_of(outcome);
            let kept = world.read(|view| state::proposal(view, &id)).map(|kept| kept.state);
            assert_eq!((id, kept), (proposal, Some(standing)));
            format!("{standing:?}")
        }
        Ok(other) => panic!("{other:?}"),
        Err(Refusal { reject, .. }) => {
            assert_eq!(world.read(|view| state::proposal(view, &proposal)), before);
            reject.code().to_owned()
        }
    }
}

/// State and act, then a cell for each actor: where the proposal stands afterwards, or the code of the
/// refusal. A rejection brings nothing into force, also when the policy holds already.
#[rustfmt::skip]
const TABLE: &str = "\
unknown | approve | proposal_unknown | proposal_unknown | proposal_unknown | proposal_unknown | channel_removed | channel_not_member
unknown | reject | proposal_unknown | proposal_unknown | proposal_unknown | proposal_unknown | channel_removed | channel_not_member
unknown | withdraw | proposal_unknown | proposal_unknown | proposal_unknown | channel_role | channel_removed | channel_not_member
unknown | settle | proposal_unknown | proposal_unknown | proposal_unknown | proposal_unknown | channel_removed | channel_not_member
open | approve | proposal_acted | proposal_acted | Open | proposal_not_elector | channel_removed | channel_not_member
open | reject | proposal_acted | proposal_acted | Open | proposal_not_elector | channel_removed | channel_not_member
open | withdraw | Withdrawn | proposal_not_proposer | proposal_not_proposer | channel_role | channel_removed | channel_not_member
open | settle | proposal_undecided | proposal_undecided | proposal_undecided | proposal_undecided | channel_removed | channel_not_member
one missing | approve | proposal_acted | proposal_acted | Applied | proposal_not_elector | channel_removed | channel_not_member
one missing | reject | proposal_acted | proposal_acted | Open | proposal_not_elector | channel_removed | channel_not_member
one missing | withdraw | Withdrawn | proposal_not_proposer | proposal_not_proposer | channel_role | channel_removed | channel_not_member
one missing | settle | proposal_undecided | proposal_undecided | proposal_undecided | proposal_undecided | channel_removed | channel_not_member
one too many | approve | proposal_acted | proposal_acted | Open | proposal_not_elector | channel_removed | channel_not_member
one too many | reject | proposal_acted | proposal_acted | Rejected | proposal_not_elector | channel_removed | channel_not_member
one too many | withdraw | Withdrawn | proposal_not_proposer | proposal_not_proposer | channel_role | channel_removed | channel_not_member
one too many | settle | proposal_undecided | proposal_undecided | proposal_undecided | proposal_undecided | channel_removed | channel_not_member
met | approve | proposal_acted | proposal_acted | Applied | proposal_not_elector | channel_removed | channel_not_member
met | reject | proposal_acted | proposal_acted | Open | proposal_not_elector | channel_removed | channel_not_member
met | withdraw | Withdrawn | proposal_not_proposer | proposal_not_proposer | channel_role | channel_removed | channel_not_member
met | settle | Applied | Applied | Applied | Applied | channel_removed | channel_not_member
applied | approve | proposal_applied | proposal_applied | proposal_applied | proposal_applied | channel_removed | channel_not_member
applied | reject | proposal_applied | proposal_applied | proposal_applied | proposal_applied | channel_removed | channel_not_member
applied | withdraw | proposal_applied | proposal_not_proposer | proposal_not_proposer | channel_role | channel_removed | channel_not_member
applied | settle | proposal_applied | proposal_applied | proposal_applied | proposal_applied | channel_removed | channel_not_member
rejected | approve | proposal_rejected | proposal_rejected | proposal_rejected | proposal_rejected | channel_removed | channel_not_member
rejected | reject | proposal_rejected | proposal_rejected | proposal_rejected | proposal_rejected | channel_removed | channel_not_member
rejected | withdraw | proposal_rejected | proposal_not_proposer | proposal_not_proposer | channel_role | channel_removed | channel_not_member
rejected | settle | proposal_rejected | proposal_rejected | proposal_rejected | proposal_rejected | channel_removed | channel_not_member
withdrawn | approve | proposal_withdrawn | proposal_withdrawn | proposal_withdrawn | proposal_withdrawn | channel_removed | channel_not_member
withdrawn | reject | proposal_withdrawn | proposal_withdrawn | proposal_withdrawn | proposal_withdrawn | channel_removed | channel_not_member
withdrawn | withdraw | proposal_withdrawn | proposal_not_proposer | proposal_not_proposer | channel_role | channel_removed | channel_not_member
withdrawn | settle | proposal_withdrawn | proposal_withdrawn | proposal_withdrawn | proposal_withdrawn | channel_removed | channel_not_member
expired | approve | proposal_expired | proposal_expired | proposal_expired | proposal_expired | channel_removed | channel_not_member
expired | reject | proposal_expired | proposal_expired | proposal_expired | proposal_expired | channel_removed | channel_not_member
expired | withdraw | proposal_expired | proposal_not_proposer | proposal_not_proposer | channel_role | channel_removed | channel_not_member
expired | settle | proposal_expired | proposal_expired | proposal_expired | proposal_expired | channel_removed | channel_not_member
superseded | approve | proposal_stale | proposal_stale | proposal_stale | proposal_stale | channel_removed | channel_not_member
superseded | reject | proposal_stale | proposal_stale | proposal_stale | proposal_stale | channel_removed | channel_not_member
superseded | withdraw | proposal_stale | proposal_not_proposer | proposal_not_proposer | channel_role | channel_removed | channel_not_member
superseded | settle | proposal_stale | proposal_stale | proposal_stale | proposal_stale | channel_removed | channel_not_member
";

#[test]
fn every_cell_of_the_table_of_acts() {
    let mut rows: Vec<&str> = TABLE.lines().filter_map(|line| line.split(" | ").next()).collect();
    rows.dedup();
    assert_eq!(rows.len(), 10);
    let mut found = String::new();
    for row in rows {
        for name in ACTS {
            let cells: Vec<String> = ACTORS.iter().map(|actor| act(row, actor, name)).collect();
            found.push_str(&format!("{row} | {name} | {}\n", cells.join(" | ")));
        }
    }
    assert_eq!(found, TABLE, "\n{found}");
}
