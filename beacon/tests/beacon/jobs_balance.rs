//! Seats and leads that move by load: what is chosen, when it is worth it, and what becomes of a wish.

use beacon::jobs::scale::{self, GroupLoad, Load, SCALE_VERSION};
use beacon::jobs::{JobKind, LeadHint, Phase, Said, ScaleAction, ScaleEvent, ScalePolicy, Standing};
use ledger::ids::{GroupId, JobId, NodeId, TimeMs};
use ledger::view::View;

use crate::jobs::{SHARDS, seven};
use crate::jobs_scale::{POLICY, world};
use crate::nodes::World;
use crate::support::{NOW, state_of};

/// Neither cuts nor joins.
const STILL: ScalePolicy = ScalePolicy {
    split_accounts: 0,
    split_tps: 0,
    merge_accounts: 0,
    merge_tps: 0,
    move_tps: 150,
    lead_tps: 100,
    margin_percent: 25,
    ..POLICY
};
const MOVES: ScalePolicy = ScalePolicy { lead_tps: 0, ..STILL };
const LEADS: ScalePolicy = ScalePolicy { move_tps: 0, ..STILL };
/// The shards, who leads each, and its transactions a second. The nodes have 210, 210, 220, 20, 20, 10 and 10 by their
/// seats, and the first one 210 by its leads.
const RATES: [(GroupId, u32, u32); 4] =
    [(SHARDS[0], 1, 10), (SHARDS[1], 3, 10), (SHARDS[2], 1, 100), (SHARDS[3], 1, 100)];

fn loads() -> Vec<GroupLoad> {
    let load = |(group, node, tps): (GroupId, u32, u32)| GroupLoad {
        version: SCALE_VERSION,
        group,
        node: NodeId(node),
        load: Load { accounts: 10, bytes: 10, tps },
        taken_ms: TimeMs(NOW),
        split_since_ms: None,
        merge_since_ms: None,
    };
    RATES.map(load).to_vec()
}

fn standing() -> Standing {
    let state = state_of(&seven());
    Standing::read(&mut View::new(&state), TimeMs(NOW)).unwrap()
}

const fn moves(group: GroupId, from: u32, to: u32) -> Option<JobKind> {
    Some(JobKind::Move { group, from: NodeId(from), to: NodeId(to) })
}

#[test]
fn the_fullest_node_gives_a_seat_where_it_is_worth_it_and_allowed() {
    // Of the three members of a shard each has an organisation and a zone of its own: only one of its own may follow it.
    let two = SHARDS[2];
    let rows: [(&str, fn(&mut Standing, &mut ScalePolicy), Option<JobKind>); 11] = [
        ("the fullest gives to the emptiest", |_, _| {}, moves(two, 3, 6)),
        ("no limit", |_, policy| policy.move_tps = 0, None),
        ("at the limit", |_, policy| policy.move_tps = 220, None),
        ("above it", |_, policy| policy.move_tps = 219, moves(two, 3, 6)),
        ("220 to 120 is 45 percent", |_, policy| policy.margin_percent = 45, moves(two, 3, 6)),
        ("and no more", |_, policy| policy.margin_percent = 46, None),
        (
            "the seats of one are moving",
            |found, _| found.coming.push(found.committees[3].clone()),
            moves(SHARDS[3], 3, 6),
        ),
        ("it may have no seat", |found, _| found.barred = vec![NodeId(6)], None),
        ("it is not heard of", |found, _| found.silent = vec![NodeId(6)], None),
        ("one more failure would stop it", |found, _| found.silent = vec![NodeId(2)], None),
        ("capacity counts", |found, _| found.nodes[2].capacity = 2, moves(two, 1, 7)),
    ];
    for (what, change, expected) in rows {
        let (mut found, mut policy) = (standing(), MOVES);
        change(&mut found, &mut policy);
        assert_eq!(scale::best_move(&found, &loads(), &policy), expected, "{what}");
    }
}

#[test]
fn who_leads_most_gives_a_lead_to_another_member() {
    let lead = |group, to| Some((group, NodeId(1), NodeId(to)));
    let rows: [(&str, fn(&mut Standing, &mut ScalePolicy), Option<(GroupId, NodeId, NodeId)>); 6] = [
        ("to who leads least", |_, _| {}, lead(SHARDS[2], 2)),
        ("no limit", |_, policy| policy.lead_tps = 0, None),
        ("at the limit", |_, policy| policy.lead_tps = 210, None),
        ("210 to 110 is not half", |_, policy| policy.margin_percent = 50, None),
        ("that one is not heard of", |found, _| found.silent = vec![NodeId(2)], lead(SHARDS[2], 3)),
        ("the seats are moving", |found, _| found.coming.push(found.committees[3].clone()), lead(SHARDS[3], 2)),
    ];
    for (what, change, expected) in rows {
        let (mut found, mut policy) = (standing(), LEADS);
        change(&mut found, &mut policy);
        assert_eq!(scale::best_lead(&found, &loads(), &policy), expected, "{what}");
    }
}

impl World {
    /// All members report, but those of this shard, in so many rounds.
    fn reported(&mut self, rounds: usize, but: Option<GroupId>) {
        for _ in 0..rounds {
            for (group, node, tps) in RATES.into_iter().filter(|(group, ..)| Some(*group) != but) {
                self.all_report(node, group, Load { accounts: 10, bytes: 10, tps });
            }
            self.now += 30_000;
        }
    }
}

#[test]
fn a_seat_moves_by_a_job_when_it_was_worth_it_for_long_enough() {
    let mut world = world(MOVES);
    world.reported(10, Some(SHARDS[3]));
    assert_eq!(world.noted(), [], "of one shard nothing is known");
    world.reported(3, None);
    assert_eq!(world.noted(), [], "not for long enough");
    world.reported(1, None);
    let kind = moves(SHARDS[2], 3, 6).unwrap();
    assert_eq!(world.noted(), [(ScaleAction::Job(kind), ScaleEvent::Began(JobId(1)))]);
    let job = world.job(JobId(1));
    assert_eq!((job.kind, job.phase, job.by_scale), (kind, Phase::Preparing, true));
    let coming = world.view().coming;
    let nodes: Vec<NodeId> = coming[0].members.iter().map(|member| member.node).collect();
    assert_eq!((coming.len(), nodes), (1, [1, 2, 6].map(NodeId).to_vec()));
    world.reported(10, None);
    assert_eq!(world.noted().len(), 1, "one at a time");
}

#[test]
fn a_lead_that_is_to_move_stands_in_the_view_until_it_has() {
    let mut world = world(LEADS);
    world.reported(3, None);
    assert_eq!((world.noted(), world.view().lead), (vec![], None));
    world.reported(1, None);
    let (from, to, group) = (NodeId(1), NodeId(2), SHARDS[2]);
    assert_eq!(world.noted(), [(ScaleAction::Lead { group, from, to }, ScaleEvent::Asked)]);
    let hint = world.view().lead.unwrap();
    let expected = LeadHint { version: SCALE_VERSION, number: 1, group, from, to, until_ms: hint.until_ms };
    assert_eq!(hint, expected);
    world.say(1, SHARDS[3], Said::Load { accounts: 1, bytes: 1, tps: 100 }).unwrap();
    world.say(1, group, Said::Load { accounts: 1, bytes: 1, tps: 100 }).unwrap();
    assert_eq!(world.view().lead, Some(hint), "it still leads");
    world.say(2, group, Said::Load { accounts: 1, bytes: 1, tps: 100 }).unwrap();
    assert_eq!(world.view().lead, None, "it is done");
    assert_eq!(world.open_jobs(), []);
}

#[test]
fn a_lead_that_does_not_move_is_asked_for_again_after_a_while() {
    let mut world = world(LEADS);
    world.reported(4, None);
    assert_eq!(world.view().lead.map(|hint| hint.number), Some(1));
    world.reported(3, None);
    assert_eq!(world.view().lead, None, "nobody waits for it for ever");
    world.reported(16, None);
    assert_eq!(world.noted().len(), 1, "it was asked for not long ago");
    world.reported(1, None);
    assert_eq!(world.view().lead.map(|hint| hint.number), Some(2));
    // What was decided about scaling before is void with another policy.
    for org in [1, 2] {
        world.set_scale(org, ScalePolicy { on: false, ..LEADS }).unwrap();
    }
    assert_eq!(world.view().lead, None);
}

#[test]
fn a_dry_run_moves_neither() {
    let mut world = world(ScalePolicy { dry_run: true, ..STILL });
    let before = world.view();
    world.reported(6, None);
    let seat = ScaleAction::Job(moves(SHARDS[2], 3, 6).unwrap());
    let lead = ScaleAction::Lead { group: SHARDS[2], from: NodeId(1), to: NodeId(2) };
    assert_eq!(world.noted(), [(seat, ScaleEvent::WouldBegin), (lead, ScaleEvent::WouldBegin)]);
    assert_eq!((world.view(), world.open_jobs()), (before, vec![]));
}
