//! Scaling by policy: what holds for long enough, what is begun, and what is only written down.

use beacon::command::BeaconCommand;
use beacon::jobs::scale::{self, GroupLoad, Load};
use beacon::jobs::{self, JobKind, Phase, Said, ScaleAction, ScaleEvent, ScalePolicy};
use beacon::limits::PREPARE_MS_MAX;
use beacon::machine::{CommandOutcome, Executed};
use ledger::ids::{GroupId, JobId, NodeId, OrgId, TimeMs};
use ledger::reject::Reject;
use ledger::view::View;

use crate::jobs::{ALIKE, SHARDS, SPLIT, seven};
use crate::nodes::World;

const SPLITS: ScaleAction = ScaleAction::Job(SPLIT);

pub const POLICY: ScalePolicy = ScalePolicy {
    on: true,
    dry_run: false,
    split_accounts: 1000,
    split_tps: 100,
    merge_accounts: 200,
    merge_tps: 20,
    sustained_ms: 60_000,
    cooldown_ms: 600_000,
    shards_min: 2,
    shards_max: 6,
    ..ScalePolicy::DEFAULT
};

impl World {
    pub fn set_scale(&mut self, by: u16, policy: ScalePolicy) -> Result<Executed, Reject> {
        let until = TimeMs(self.now + 60_000);
        self.event(|view, at| scale::set(view, at, OrgId(by), policy, until))
    }

    /// All members of a shard report the same, and last who leads it.
    pub fn all_report(&mut self, leader: u32, group: GroupId, load: Load) {
        let Load { accounts, bytes, tps } = load;
        for member in self.committee(group).members {
            if member.node != NodeId(leader) {
                self.say(member.node.0, group, Said::Follows { accounts, bytes, tps }).unwrap();
            }
        }
        self.say(leader, group, Said::Load { accounts, bytes, tps }).unwrap();
    }

    fn load(&mut self, group: GroupId, accounts: u64, tps: u32) {
        self.all_report(1, group, Load { accounts, bytes: accounts * 100, tps });
    }

    /// A shard has the same load for a whole time-out.
    fn loaded(&mut self, group: GroupId, accounts: u64, tps: u32) {
        for _ in 0..=2 {
            self.load(group, accounts, tps);
            self.now += 30_000;
        }
    }

    pub fn noted(&self) -> Vec<(ScaleAction, ScaleEvent)> {
        let notes = scale::notes(&mut View::new(&self.state));
        notes.iter().map(|note| (note.action, note.event)).collect()
    }

    pub fn open_jobs(&self) -> Vec<JobKind> {
        jobs::under_way(&mut View::new(&self.state)).into_iter().map(|job| job.kind).collect()
    }

    fn loads_of(&self, group: GroupId) -> Option<GroupLoad> {
        scale::loads(&mut View::new(&self.state)).into_iter().find(|load| load.group == group)
    }
}

pub fn world(policy: ScalePolicy) -> World {
    let mut world = World::of(seven());
    let waits = CommandOutcome::Pending { approvals: 1, needed: 2 };
    assert_eq!(world.set_scale(1, policy).unwrap().outcome, waits);
    assert_eq!(world.set_scale(1, policy).unwrap().outcome, waits, "nobody counts twice");
    assert_eq!(world.set_scale(2, policy).unwrap().outcome, CommandOutcome::Applied);
    assert_eq!(scale::policy(&mut View::new(&world.state)), policy);
    world
}

#[test]
fn a_shard_that_has_too_much_for_long_is_cut() {
    for (accounts, tps) in [(1001, 0), (0, 101)] {
        let mut world = world(POLICY);
        world.load(SHARDS[2], accounts, tps);
        world.now += 59_000;
        world.load(SHARDS[2], accounts, tps);
        assert_eq!(world.noted(), [], "not for long enough");
        world.now += 1_000;
        world.load(SHARDS[2], accounts, tps);
        assert_eq!(world.noted(), [(SPLITS, ScaleEvent::Began(JobId(1)))]);
        let job = world.job(JobId(1));
        assert_eq!((job.kind, job.phase, job.by_scale), (SPLIT, Phase::Preparing, true));
        assert_eq!((job.approvals.len(), job.manual), (0, false));
        // Any organisation may take it back.
        world.event(|view, at| jobs::cancel(view, at, OrgId(3), JobId(1))).unwrap();
    }
}

#[test]
fn less_in_between_or_a_pause_begins_the_time_anew() {
    let mut world = world(POLICY);
    world.load(SHARDS[2], 1001, 0);
    world.now += 40_000;
    world.load(SHARDS[2], 1000, 100);
    world.now += 40_000;
    world.load(SHARDS[2], 1001, 0);
    world.now += 40_000;
    world.load(SHARDS[2], 1001, 0);
    assert_eq!(world.noted(), []);
    world.now += 180_001;
    world.load(SHARDS[2], 1001, 0);
    assert_eq!(world.noted(), [], "nobody knows what was in between");
    world.now += 60_000;
    world.load(SHARDS[2], 1001, 0);
    assert_eq!(world.noted().len(), 1);
    // One who has no seat has no say.
    let foreign = Said::Load { accounts: 5000, bytes: 0, tps: 0 };
    assert_eq!(world.say(7, SHARDS[2], foreign), Err(Reject::ReportForm));
    assert_eq!(world.say(1, GroupId::BEACON, foreign), Err(Reject::ReportForm));
}

impl World {
    /// Two shards have such loads, accounts and transactions a second, in so many rounds of reports.
    fn rounds(&mut self, count: usize, loads: [(GroupId, u64, u32); 2]) {
        for _ in 0..count {
            for (group, accounts, tps) in loads {
                let node = if group == SHARDS[1] { 3 } else { 1 };
                self.all_report(node, group, Load { accounts, bytes: 0, tps });
            }
            self.now += 30_000;
        }
    }
}

#[test]
fn two_halves_that_have_too_little_for_long_are_joined() {
    let mut world = world(POLICY);
    world.loaded(SHARDS[2], 99, 9);
    assert_eq!(world.noted(), [], "of the other half nothing is known");
    let [little, more] = [100, 101].map(|accounts| [(SHARDS[2], 99, 9), (SHARDS[3], accounts, 10)]);
    world.rounds(1, little);
    world.rounds(1, more);
    world.rounds(2, little);
    assert_eq!(world.noted(), [], "together too many in between");
    world.rounds(1, little);
    assert_eq!(world.noted(), [(ScaleAction::Job(ALIKE), ScaleEvent::Began(JobId(1)))]);
    assert_eq!(world.open_jobs(), [ALIKE]);
}

#[test]
fn a_pause_of_either_half_begins_the_time_anew() {
    for (silent, heard) in [(SHARDS[2], SHARDS[3]), (SHARDS[3], SHARDS[2])] {
        let mut world = world(ScalePolicy { sustained_ms: 300_000, ..POLICY });
        let little = [(SHARDS[2], 99, 9), (SHARDS[3], 99, 9)];
        world.rounds(2, little);
        for _ in 0..5 {
            world.load(heard, 99, 9);
            world.now += 30_000;
        }
        world.now += 30_000;
        world.load(silent, 99, 9);
        world.rounds(9, little);
        assert_eq!(world.noted(), [], "{silent}: nobody knows what was in between");
        world.rounds(3, little);
        assert_eq!(world.noted().len(), 1, "{silent}");
    }
}

#[test]
fn only_the_halves_of_one_prefix_are_joined() {
    let mut world = world(POLICY);
    for _ in 0..5 {
        world.rounds(1, [(SHARDS[0], 500, 0), (SHARDS[1], 1, 0)]);
        world.rounds(1, [(SHARDS[2], 1, 0), (SHARDS[3], 500, 0)]);
    }
    assert_eq!(world.noted(), [], "neighbours that are idle are no halves");
}

#[test]
fn a_limit_that_is_not_set_is_none() {
    let none = ScalePolicy { split_accounts: 0, split_tps: 0, merge_accounts: 0, merge_tps: 0, ..POLICY };
    let rows: [(&str, ScalePolicy, u64, u32, bool); 8] = [
        ("no limit at all", none, 0, 0, false),
        ("accounts alone", ScalePolicy { merge_accounts: 200, ..none }, 99, 5_000, true),
        ("accounts alone, too many", ScalePolicy { merge_accounts: 200, ..none }, 100, 0, false),
        ("a rate alone", ScalePolicy { merge_tps: 20, ..none }, 5_000, 9, true),
        ("a rate alone, too high", ScalePolicy { merge_tps: 20, ..none }, 0, 10, false),
        ("what would be cut again", ScalePolicy { merge_tps: 20, split_accounts: 1000, ..none }, 251, 0, false),
        ("half of what is cut", ScalePolicy { merge_tps: 20, split_accounts: 1000, ..none }, 250, 0, true),
        ("what would be cut again, by rate", ScalePolicy { merge_accounts: 20, split_tps: 100, ..none }, 0, 26, false),
    ];
    for (what, policy, accounts, tps, joins) in rows {
        let mut world = world(policy);
        world.rounds(4, [(SHARDS[2], accounts, tps), (SHARDS[3], accounts, tps)]);
        assert_eq!(world.noted().len(), usize::from(joins), "{what}");
    }
}

#[test]
fn load_that_flaps_changes_nothing() {
    let mut world = world(POLICY);
    for _ in 0..20 {
        world.rounds(1, [(SHARDS[2], 1001, 101), (SHARDS[3], 1, 1)]);
        world.rounds(1, [(SHARDS[2], 1, 1), (SHARDS[3], 1, 1)]);
    }
    assert_eq!((world.noted(), world.open_jobs()), (vec![], vec![]));
}

#[test]
fn nothing_is_begun_while_a_job_is_under_way_whoever_asked_for_it() {
    let mut world = world(POLICY);
    let elsewhere = JobKind::Split { group: SHARDS[0] };
    world.propose(1, elsewhere, true).unwrap();
    let id = world.decide(elsewhere, true);
    world.loaded(SHARDS[2], 1001, 0);
    assert_eq!((world.noted(), world.open_jobs()), (vec![], vec![elsewhere]));
    world.event(|view, at| jobs::cancel(view, at, OrgId(1), id)).unwrap();
    world.load(SHARDS[2], 1001, 0);
    assert_eq!(world.open_jobs(), [SPLIT], "it was too much for long enough, and nothing is in the way any more");
}

#[test]
fn what_was_taken_back_is_not_begun_again_at_once() {
    let mut world = world(POLICY);
    world.loaded(SHARDS[2], 1001, 0);
    world.event(|view, at| jobs::cancel(view, at, OrgId(3), JobId(1))).unwrap();
    for _ in 0..6 {
        world.loaded(SHARDS[2], 1001, 0);
        assert_eq!(world.open_jobs(), []);
    }
    world.loaded(SHARDS[2], 1001, 0);
    assert_eq!((world.open_jobs(), world.noted().len()), (vec![SPLIT], 2));
}

impl World {
    /// The members of the third shard say so many accounts for a whole time-out; the first one leads.
    fn said(&mut self, accounts: [Option<u64>; 3]) {
        for _ in 0..=2 {
            for (node, accounts) in (1..).zip(accounts).filter_map(|(node, said)| Some((node, said?))) {
                let (bytes, tps) = (0, 0);
                let said = match node {
                    1 => Said::Load { accounts, bytes, tps },
                    _ => Said::Follows { accounts, bytes, tps },
                };
                self.say(node, SHARDS[2], said).unwrap();
            }
            self.now += 30_000;
        }
    }
}

#[test]
fn no_member_alone_decides_what_the_load_of_its_shard_is() {
    let rows: [(&str, [Option<u64>; 3], &[ScaleEvent]); 6] = [
        ("the leader alone says more", [Some(9_999), Some(1), Some(1)], &[]),
        ("a follower alone says more", [Some(1), Some(9_999), Some(1)], &[]),
        ("the leader alone says less", [Some(1), Some(1001), Some(1001)], &[ScaleEvent::Began(JobId(1))]),
        ("a follower alone says less", [Some(1001), Some(1001), Some(0)], &[ScaleEvent::Began(JobId(1))]),
        ("nobody else says anything", [Some(9_999), None, None], &[]),
        ("nobody says that it leads", [None, Some(1001), Some(1001)], &[]),
    ];
    for (what, accounts, events) in rows {
        let mut world = world(POLICY);
        world.said(accounts);
        let noted: Vec<ScaleEvent> = world.noted().into_iter().map(|(_, event)| event).collect();
        assert_eq!(noted, events, "{what}");
    }
    // What counts is shown, and who leads.
    let mut world = world(ScalePolicy { split_accounts: 0, merge_accounts: 0, ..POLICY });
    world.said([Some(70), Some(50), Some(60)]);
    let shown = world.loads_of(SHARDS[2]).unwrap();
    assert_eq!((shown.node, shown.load), (NodeId(1), Load { accounts: 60, bytes: 0, tps: 0 }));
    // One who has left has no say any more, nor one that has been silent for long.
    world.now += 90_001;
    world.said([None, Some(40), None]);
    assert_eq!(world.loads_of(SHARDS[2]).unwrap().load.accounts, 60, "one of three is not enough");
    world.said([Some(30), Some(40), None]);
    assert_eq!(world.loads_of(SHARDS[2]).unwrap().load.accounts, 30);
}

#[test]
fn who_says_that_it_follows_is_not_shown_as_the_leader_any_more() {
    let mut world = world(ScalePolicy { split_accounts: 0, merge_accounts: 0, ..POLICY });
    let shown = |world: &World| world.loads_of(SHARDS[2]).map(|load| (load.node, load.load.accounts)).unwrap();
    world.said([Some(70), Some(50), Some(60)]);
    assert_eq!(shown(&world), (NodeId(1), 60));
    let (accounts, bytes, tps) = (10, 0, 0);
    for node in 1..=3 {
        world.say(node, SHARDS[2], Said::Follows { accounts, bytes, tps }).unwrap();
    }
    assert_eq!(shown(&world), (NodeId(1), 60), "nobody leads, so nothing counts");
    world.say(2, SHARDS[2], Said::Load { accounts, bytes, tps }).unwrap();
    assert_eq!(shown(&world), (NodeId(2), 10));
}

/// The watch is off, so this is all that is known of who is away.
#[test]
fn a_shard_is_not_cut_while_a_member_of_it_that_a_cut_needs_reports_nothing() {
    for dry_run in [true, false] {
        let mut world = world(ScalePolicy { dry_run, ..POLICY });
        world.said([Some(1001), None, Some(1001)]);
        assert_eq!(world.noted(), [(SPLITS, ScaleEvent::Refused(Reject::ShardRisk))]);
        assert_eq!(world.open_jobs(), []);
        world.said([Some(1001), Some(1001), Some(1001)]);
        let begun = if dry_run { ScaleEvent::WouldBegin } else { ScaleEvent::Began(JobId(1)) };
        assert_eq!(world.noted()[1..], [(SPLITS, begun)]);
    }
}

/// All members report, and one of them makes no copy: all three have to be ready.
#[test]
fn a_cut_that_nodes_did_not_answer_is_not_begun_again_and_again() {
    let mut world = world(POLICY);
    let cut = |world: &mut World, job: u64| {
        let id = JobId(job);
        assert_eq!(world.job(id).kind, SPLIT);
        world.warm_without(id, 2);
        assert_eq!(world.job(id).phase, Phase::Preparing, "it waits for the one who has none");
        world.now += PREPARE_MS_MAX + 1;
        world.tick();
        let ended = world.job(id);
        assert_eq!((ended.phase, ended.reason), (Phase::Cancelled, Some(Reject::Unanswered)));
        ended.since_ms.0
    };
    world.loaded(SHARDS[2], 1001, 0);
    let mut ended = cut(&mut world, 1);
    for (job, pause) in [(2, 2), (3, 4), (4, 8)] {
        let due = ended + pause * POLICY.cooldown_ms;
        while world.open_jobs().is_empty() {
            assert!(world.now < due + 300_000, "it is tried again some day");
            world.loaded(SHARDS[2], 1001, 0);
        }
        assert!(world.job(JobId(job)).since_ms.0 >= due, "job {job} came too soon");
        // As often as it would have been begun, the log says why it was not.
        let said: Vec<ScaleEvent> = world.noted().into_iter().map(|(_, event)| event).collect();
        let refused = ScaleEvent::Refused(Reject::Unanswered);
        assert_eq!(said[said.len() - 3..], [refused, refused, ScaleEvent::Began(JobId(job))]);
        ended = cut(&mut world, job);
    }
    // What somebody takes back was no fault of the nodes, and whoever asks by command does not wait.
    let id = world.decide(SPLIT, false);
    world.event(|view, at| jobs::cancel(view, at, OrgId(1), id)).unwrap();
}

#[test]
fn a_dry_run_writes_down_what_would_be_done_and_does_nothing() {
    let mut world = world(ScalePolicy { dry_run: true, cooldown_ms: 0, ..POLICY });
    let before = world.view();
    world.loaded(SHARDS[2], 1001, 0);
    assert_eq!(world.noted(), [(SPLITS, ScaleEvent::WouldBegin)]);
    world.load(SHARDS[2], 1001, 0);
    assert_eq!(world.noted().len(), 1, "once in a while");
    assert_eq!((world.view(), world.open_jobs()), (before, vec![]), "nobody has anything to follow");
    // What speaks against it is written down as well: here, that a seat is moving.
    world.command(3, &BeaconCommand::SetNodeCapacity { node: NodeId(3), capacity: 0 }).unwrap();
    world.loaded(SHARDS[2], 1001, 0);
    assert_eq!(world.noted()[1..], [(SPLITS, ScaleEvent::Refused(Reject::ShardBusy))]);
    for _ in 0..40 {
        world.loaded(SHARDS[2], 1001, 0);
    }
    let notes = scale::notes(&mut View::new(&world.state));
    assert_eq!(notes.len(), 32);
    assert!(notes[0].number > 0 && notes.windows(2).all(|pair| pair[0].number + 1 == pair[1].number));
}

#[test]
fn a_dry_run_rests_as_long_as_it_would_have() {
    let mut world = world(ScalePolicy { dry_run: true, ..POLICY });
    for _ in 0..7 {
        world.loaded(SHARDS[2], 1001, 0);
        assert_eq!(world.noted(), [(SPLITS, ScaleEvent::WouldBegin)]);
    }
    world.loaded(SHARDS[2], 1001, 0);
    assert_eq!(world.noted().len(), 2);
}

#[test]
fn one_at_a_time_not_too_many_and_not_right_behind_a_change() {
    let mut world = world(POLICY);
    world.loaded(SHARDS[2], 1001, 0);
    world.loaded(SHARDS[3], 1001, 0);
    assert_eq!(world.open_jobs(), [SPLIT], "one of the policy's at a time");
    world.warm_without(JobId(1), 0);
    world.seal_all(JobId(1));
    assert!(world.loads_of(SHARDS[2]).is_none(), "it has ended");
    world.open_all(JobId(1));
    world.loaded(SHARDS[3], 1001, 0);
    assert_eq!(world.open_jobs(), [], "the layout has just changed");
    world.now += 600_000;
    world.loaded(SHARDS[3], 1001, 0);
    let next = JobKind::Split { group: SHARDS[3] };
    assert_eq!(world.open_jobs(), [next]);
    world.warm_without(JobId(2), 0);
    world.seal_all(JobId(2));
    world.open_all(JobId(2));
    assert_eq!(world.view().layout.shards.len(), 6);
    world.now += 700_000;
    world.loaded(SHARDS[0], 1001, 0);
    assert_eq!(world.open_jobs(), [], "there are as many as there may be");

    let mut least = self::world(ScalePolicy { shards_min: 4, ..POLICY });
    least.loaded(SHARDS[2], 1, 1);
    least.loaded(SHARDS[3], 1, 1);
    assert_eq!((least.open_jobs(), least.noted()), (vec![], vec![]));
}

#[test]
fn limits_that_contradict_each_other_are_refused() {
    let mut world = World::of(seven());
    let rows: [(&str, ScalePolicy); 12] = [
        ("another version", ScalePolicy { version: 1, ..POLICY }),
        ("what is joined would be cut", ScalePolicy { merge_accounts: 501, ..POLICY }),
        ("what is joined would be cut, by rate", ScalePolicy { merge_tps: 51, ..POLICY }),
        ("more at least than at most", ScalePolicy { shards_min: 7, ..POLICY }),
        ("no shard at all", ScalePolicy { shards_min: 0, ..POLICY }),
        ("more than there may be", ScalePolicy { shards_max: 1025, ..POLICY }),
        ("at once", ScalePolicy { sustained_ms: 9_999, ..POLICY }),
        ("after days", ScalePolicy { sustained_ms: 86_400_001, ..POLICY }),
        ("hardly ever", ScalePolicy { cooldown_ms: 31 * 86_400_000, ..POLICY }),
        ("leads hardly ever", ScalePolicy { lead_cooldown_ms: 31 * 86_400_000, ..POLICY }),
        ("for nothing", ScalePolicy { margin_percent: 9, ..POLICY }),
        ("what nothing is worth", ScalePolicy { margin_percent: 91, ..POLICY }),
    ];
    for (what, policy) in rows {
        assert_eq!(world.set_scale(1, policy), Err(Reject::ScaleForm), "{what}");
    }
    assert!(world.set_scale(1, ScalePolicy { merge_accounts: 500, merge_tps: 50, ..POLICY }).is_ok());
    assert!(world.set_scale(1, ScalePolicy { split_accounts: 0, ..POLICY }).is_ok(), "no limit is none to contradict");
}

#[test]
fn a_new_policy_begins_all_times_anew() {
    let mut world = world(POLICY);
    world.load(SHARDS[2], 1001, 0);
    assert!(world.loads_of(SHARDS[2]).is_some_and(|load| load.split_since_ms.is_some()));
    assert_eq!(world.view().load_every_ms, Some(30_000), "twice in the time that counts");
    let off = ScalePolicy { on: false, ..POLICY };
    for org in [2, 3] {
        world.set_scale(org, off).unwrap();
    }
    assert!(world.loads_of(SHARDS[2]).is_none());
    assert_eq!(world.view().load_every_ms, None, "nobody asks for loads any more");
    let load = Said::Load { accounts: 5000, bytes: 0, tps: 0 };
    assert_eq!(world.say(1, SHARDS[2], load), Err(Reject::ReportForm));
    assert_eq!(world.set_scale(1, off).unwrap().outcome, CommandOutcome::Applied, "it is in force already");
}
