//! Each table has what was approved, what a replica of the beacon has in force then, and whether that is to be found: too much
//! found is as wrong as too little.

use beacon::epochs::EPOCH_VERSION;
use beacon::jobs::job_key;
use beacon::registry::org_key;
use beacon::{Phase, SignedCommand};
use consensus::port::AppliedState;
use ledger::hash::Hash32;
use ledger::ids::{Height, Incarnation, LayoutVersion};
use ledger::reject::Reject;
use storage::kv::WriteBatch;
use storage::mem::MemKv;

use super::super::testing::{Bench, expect, job};
use super::*;

const SHARD: GroupId = GroupId::shard(0);
const ALL: [u16; 3] = [0, 1, 2];

fn bench() -> Bench<Rules> {
    let mut bench = Bench::new(Rules::default());
    bench.facts.policies_change = true;
    bench
}

fn policy(quorum: Quorum) -> Policy {
    Policy::members(quorum, Role::Admin)
}

fn change(matter: Matter, base: u64, quorum: Quorum) -> BeaconCommand {
    BeaconCommand::SetPolicy(PolicyChange { matter, base, policy: policy(quorum) })
}

/// These organisations send a command, each in a block of its own.
fn approve(bench: &mut Bench<Rules>, orgs: &[u16], command: &BeaconCommand) {
    for org in orgs {
        let signed = bench.signed(*org, command, 10_000);
        bench.beacon(1, &[signed], Vec::new());
    }
}

/// A replica of the beacon that has all blocks, with these organisations and with these records.
fn disk(bench: &Bench<Rules>, orgs: &[OrgInfo], records: Vec<(Vec<u8>, Vec<u8>)>) -> MemKv {
    let (kv, mut batch) = (MemKv::new(), WriteBatch::new());
    let zero = Hash32([0; 32]);
    let applied = AppliedRecord {
        version: 1,
        consensus: AppliedState { position: None, membership: None },
        height: Height(bench.checker.height),
        header_hash: zero,
        time_ms: TimeMs(0),
        state_root: zero,
    };
    batch.put(schema::applied(), bytes(&applied));
    orgs.iter().for_each(|org| batch.put(org_key(org.id), bytes(org)));
    records.into_iter().for_each(|(key, value)| batch.put(key, value));
    kv.write(batch).expect("memory takes it");
    kv
}

/// As [`disk`], with the organisations of the genesis.
fn with(bench: &Bench<Rules>, records: Vec<(Vec<u8>, Vec<u8>)>) -> MemKv {
    disk(bench, &bench.facts.genesis.orgs, records)
}

fn record(matter: Matter, revision: u64, quorum: Quorum) -> (Vec<u8>, Vec<u8>) {
    (policy_key(matter), bytes(&Ruled { version: 1, revision, policy: policy(quorum) }))
}

#[test]
fn a_policy_is_in_force_with_the_approvals_that_the_one_of_policies_asks_for() {
    let (all, jobs, policies) = (Quorum::All, Matter::Jobs, Matter::Policy);
    let wanted = || change(jobs, 0, all);
    let strict = || change(policies, 0, all);
    let one_less = Some("jobs is decided by policy 1, and 0 is the last that was approved");
    let one_more = Some("jobs is decided by policy 0, and 1 is the last that was approved");
    let (end, passing) = (Moment::End, Moment::Passing);
    let in_force = || vec![record(jobs, 1, all)];
    for (what, asked, there, moment, expected) in [
        ("two of three", vec![(&[0, 1][..], wanted())], in_force(), end, None),
        ("one of three", vec![(&[0][..], wanted())], in_force(), passing, one_less),
        ("one of three, twice", vec![(&[0, 0][..], wanted())], in_force(), passing, one_less),
        ("nobody", vec![], in_force(), passing, one_less),
        ("it did not come into force", vec![(&[0, 1][..], wanted())], vec![], end, one_more),
        ("it is behind", vec![(&[0, 1][..], wanted())], vec![], passing, None),
        ("one of three, and it waits", vec![(&[0][..], wanted())], vec![], end, None),
        (
            "another one came into force",
            vec![(&[0, 1][..], wanted())],
            vec![record(jobs, 1, Quorum::Any)],
            passing,
            Some("jobs is decided by policy 1, and 1 is the last that was approved"),
        ),
        (
            "two have approved different ones",
            vec![(&[0][..], wanted()), (&[1][..], change(jobs, 0, Quorum::Any))],
            in_force(),
            passing,
            one_less,
        ),
        (
            "all have to, and two have",
            vec![(&[0, 1][..], strict()), (&[0, 1][..], wanted())],
            vec![record(jobs, 1, all), record(policies, 1, all)],
            passing,
            one_less,
        ),
        (
            "all have to, and have",
            vec![(&[0, 1][..], strict()), (&ALL[..], wanted())],
            vec![record(jobs, 1, all), record(policies, 1, all)],
            end,
            None,
        ),
        (
            "another one was asked for before",
            vec![(&[0][..], change(jobs, 0, Quorum::Any)), (&[0, 1][..], wanted())],
            in_force(),
            end,
            None,
        ),
    ] {
        let mut bench = bench();
        asked.iter().for_each(|(orgs, command)| approve(&mut bench, orgs, command));
        let kv = with(&bench, there);
        bench.audit(GroupId::BEACON, moment, &kv);
        expect(what, &bench.found(), expected);
    }
    let mut bench = bench();
    approve(&mut bench, &[0], &change(jobs, 1, all));
    expect("it was made on another one", &bench.found(), Some("made on one that is not in force"));
}

#[test]
fn approvals_count_once_and_until_the_deadline_of_the_first() {
    for (what, until_ms, at_ms, expected) in
        [("in time", 200, 200, None), ("too late", 199, 200, Some("jobs is decided by policy 1, and 0"))]
    {
        let mut bench = bench();
        let wanted = change(Matter::Jobs, 0, Quorum::All);
        let (first, second) = (bench.signed(0, &wanted, until_ms), bench.signed(1, &wanted, 10_000));
        bench.beacon(100, &[first.clone(), first], Vec::new());
        bench.beacon(at_ms, &[second], Vec::new());
        let kv = with(&bench, vec![record(Matter::Jobs, 1, Quorum::All)]);
        bench.audit(GroupId::BEACON, Moment::Passing, &kv);
        expect(what, &bench.found(), expected);
    }
}

/// What happens to the jobs of a run.
#[derive(Clone, Copy)]
enum Step {
    /// An organisation asks for the usual one.
    Ask(u16),
    /// So it does until this time only.
    AskUntil(u16, u64),
    /// At a time.
    AskAt(u16, u64),
    /// It asks for one that is cut by command.
    Manual(u16),
    /// Another policy of jobs comes into force.
    Policy(Quorum),
    /// Somebody takes a job back.
    Cancel(u64),
    /// The beacon lets a job's shards go on by itself.
    Unseal(u64),
}

fn split(manual: bool) -> BeaconCommand {
    BeaconCommand::SplitShard { group: SHARD, layout: LayoutVersion(0), manual }
}

fn step(bench: &mut Bench<Rules>, asked: &BeaconCommand, step: Step) {
    let tell = |bench: &mut Bench<Rules>, org, command: &BeaconCommand, (at_ms, until_ms)| {
        let signed: SignedCommand = bench.signed(org, command, until_ms);
        bench.beacon(at_ms, &[signed], Vec::new());
    };
    match step {
        Step::Ask(org) => tell(bench, org, asked, (1, 10_000)),
        Step::AskUntil(org, until_ms) => tell(bench, org, asked, (1, until_ms)),
        Step::AskAt(org, at_ms) => tell(bench, org, asked, (at_ms, 10_000)),
        Step::Manual(org) => tell(bench, org, &split(true), (1, 10_000)),
        Step::Cancel(id) => tell(bench, 0, &BeaconCommand::CancelJob { job: JobId(id) }, (1, 10_000)),
        Step::Policy(quorum) => approve(bench, &[0, 1], &change(Matter::Jobs, 0, quorum)),
        Step::Unseal(id) => bench.beacon(1, &[], vec![(SHARD, Message::Unseal(JobId(id)))]),
    }
}

#[test]
fn a_job_begins_with_approvals_of_its_own() {
    use Step::{Ask, AskAt, AskUntil, Cancel, Manual, Policy, Unseal};
    let begun = Phase::Preparing;
    let split = split(false);
    let kind = JobKind::Split { group: SHARD };
    // Nodes 0 and 3 are of one organisation.
    let (from, to) = (NodeId(0), NodeId(3));
    let own = BeaconCommand::MoveShard { group: SHARD, from, to, layout: LayoutVersion(0) };
    let seat = JobKind::Move { group: SHARD, from, to };
    for (what, (asked, kind), steps, jobs, fits) in [
        ("two of three", (&split, kind), vec![Ask(0), Ask(1)], vec![(1, begun)], true),
        ("one of three", (&split, kind), vec![Ask(0)], vec![(1, begun)], false),
        ("one of three, twice", (&split, kind), vec![Ask(0), Ask(0)], vec![(1, begun)], false),
        ("nobody", (&split, kind), vec![], vec![(1, begun)], false),
        ("it waits", (&split, kind), vec![Ask(0)], vec![(1, Phase::Proposed)], true),
        ("two for different ones", (&split, kind), vec![Ask(0), Manual(1)], vec![(1, begun)], false),
        ("in time", (&split, kind), vec![AskUntil(0, 200), AskAt(1, 200)], vec![(1, begun)], true),
        ("lapsed", (&split, kind), vec![AskUntil(0, 199), AskAt(1, 200)], vec![(2, begun)], false),
        (
            "lapsed, and asked anew",
            (&split, kind),
            vec![AskUntil(0, 199), AskAt(1, 200), AskAt(2, 201)],
            vec![(2, begun)],
            true,
        ),
        ("taken back while it waits", (&split, kind), vec![Ask(0), Cancel(1), Ask(1)], vec![(2, begun)], false),
        (
            "taken back while it waits, and asked anew",
            (&split, kind),
            vec![Ask(0), Cancel(1), Ask(1), Ask(2)],
            vec![(1, Phase::Cancelled), (2, begun)],
            true,
        ),
        (
            "taken back with an approval too many",
            (&split, kind),
            vec![Ask(0), Ask(1), Ask(2), Cancel(1), Ask(0)],
            vec![(1, Phase::Cancelled), (2, begun)],
            false,
        ),
        (
            "taken back, and asked anew by one",
            (&split, kind),
            vec![Ask(0), Ask(1), Cancel(1), Ask(0)],
            vec![(1, Phase::Cancelled), (2, begun)],
            false,
        ),
        (
            "taken back, and asked anew",
            (&split, kind),
            vec![Ask(0), Ask(1), Ask(2), Cancel(1), Ask(0), Ask(2)],
            vec![(1, Phase::Cancelled), (2, begun)],
            true,
        ),
        (
            "its shards have gone on, and one asks anew",
            (&split, kind),
            vec![Ask(0), Ask(1), Unseal(1), Ask(2)],
            vec![(1, Phase::Cancelled), (2, begun)],
            false,
        ),
        (
            "its shards have gone on, and it is asked for anew",
            (&split, kind),
            vec![Ask(0), Ask(1), Unseal(1), Ask(2), Ask(1)],
            vec![(1, Phase::Cancelled), (2, begun)],
            true,
        ),
        ("all have to", (&split, kind), vec![Policy(Quorum::All), Ask(0), Ask(1)], vec![(1, begun)], false),
        ("all have", (&split, kind), vec![Policy(Quorum::All), Ask(0), Ask(1), Ask(2)], vec![(1, begun)], true),
        ("any may", (&split, kind), vec![Policy(Quorum::Any), Ask(2)], vec![(1, begun)], true),
        (
            "the one in force last counts",
            (&split, kind),
            vec![Ask(0), Policy(Quorum::Any), Ask(2)],
            vec![(1, begun)],
            true,
        ),
        ("its own seat", (&own, seat), vec![Ask(0)], vec![(1, begun)], true),
        ("another one's seat", (&own, seat), vec![Ask(1)], vec![(1, begun)], false),
        ("most may move any seat", (&own, seat), vec![Ask(1), Ask(2)], vec![(1, begun)], true),
    ] {
        let mut bench = bench();
        let in_force = steps.iter().find_map(|step| if let Policy(quorum) = step { Some(*quorum) } else { None });
        steps.iter().for_each(|one| step(&mut bench, asked, *one));
        let kept = jobs.iter().map(|(id, phase)| (job_key(JobId(*id)), bytes(&job(*id, kind, *phase))));
        let policies = in_force.map(|quorum| record(Matter::Jobs, 1, quorum));
        let kv = with(&bench, kept.chain(policies).collect());
        bench.audit(GroupId::BEACON, Moment::Passing, &kv);
        expect(what, &bench.found(), if fits { None } else { Some("without the approvals of the policy of jobs") });
    }
}

#[test]
fn a_seat_that_has_moved_and_moves_again_is_approved_anew() {
    for (what, again, fits) in [("by one", &[0][..], false), ("by two", &[1, 2][..], true)] {
        let mut bench = bench();
        let before = bench.committee(SHARD);
        let from = before.members[0].node;
        // A node of another organisation than the one that has the seat, and that has none.
        let free =
            (0..9).map(node_info).find(|info| before.index_of(info.id).is_none() && info.org != node_info(from.0).org);
        let to = free.expect("there are more nodes than seats");
        let asked = BeaconCommand::MoveShard { group: SHARD, from, to: to.id, layout: LayoutVersion(0) };
        approve(&mut bench, &[0, 1], &asked);
        let mut members = before.members.clone();
        (members[0].node, members[0].org, members[0].key) = (to.id, to.org, to.key);
        let of = |epoch, members| Committee::of(before.engine, SHARD, before.incarnation, Epoch(epoch), members);
        for seated in [of(1, members), of(2, before.members.clone())] {
            bench.beacon(2, &[], vec![(SHARD, Message::CommitteeUpdate(seated))]);
        }
        approve(&mut bench, again, &asked);
        let kind = JobKind::Move { group: SHARD, from, to: to.id };
        let jobs = [(1, Phase::Done), (2, Phase::Preparing)];
        let kept = jobs.iter().map(|(id, phase)| (job_key(JobId(*id)), bytes(&job(*id, kind, *phase))));
        let kv = with(&bench, kept.collect());
        bench.audit(GroupId::BEACON, Moment::Passing, &kv);
        expect(what, &bench.found(), if fits { None } else { Some("without the approvals of the policy of jobs") });
    }
}

#[test]
fn what_nobody_tells_of_a_job_is_not_held_against_the_next_one() {
    let kind = JobKind::Split { group: SHARD };
    let ended = |reason| Job { reason, ..job(1, kind, Phase::Cancelled) };
    let by_scale = |by_scale| Job { by_scale, ..job(2, kind, Phase::Preparing) };
    for (what, first, second, fits) in [
        ("it lasted too long", ended(Some(Reject::Unanswered)), by_scale(false), true),
        ("somebody took it back", ended(None), by_scale(false), false),
        ("the cluster itself has begun the next", ended(None), by_scale(true), true),
    ] {
        let mut bench = bench();
        approve(&mut bench, &[0, 1], &split(false));
        if first.reason.is_none() {
            approve(&mut bench, &[0], &BeaconCommand::CancelJob { job: JobId(1) });
        }
        approve(&mut bench, &[2], &split(false));
        let kept = [first, second].map(|job| (job_key(job.id), bytes(&job)));
        let kv = with(&bench, kept.to_vec());
        bench.audit(GroupId::BEACON, Moment::Passing, &kv);
        expect(what, &bench.found(), if fits { None } else { Some("without the approvals of the policy of jobs") });
    }
}

#[test]
fn a_group_goes_over_to_an_engine_that_was_decided() {
    let switch = |engine| BeaconCommand::SwitchEngine { group: SHARD, engine };
    let (raft, bft) = (Engine::Raft, Engine::Bft);
    let strict = || change(Matter::Engines, 0, Quorum::All);
    for (what, asked, seated, then, fits) in [
        ("two of three", vec![(&[0, 1][..], switch(bft))], vec![], bft, true),
        ("one of three", vec![(&[0][..], switch(bft))], vec![], bft, false),
        ("nobody", vec![], vec![], bft, false),
        ("nobody, and it stays", vec![], vec![], raft, true),
        (
            "two, of whom one wants the other",
            vec![(&[0][..], switch(bft)), (&[1][..], switch(raft))],
            vec![],
            bft,
            false,
        ),
        ("all have to", vec![(&[0, 1][..], strict()), (&[0, 1][..], switch(bft))], vec![], bft, false),
        ("all have", vec![(&[0, 1][..], strict()), (&ALL[..], switch(bft))], vec![], bft, true),
        ("back, by nobody", vec![(&[0, 1][..], switch(bft))], vec![bft], raft, false),
        (
            "it was taken back, and came",
            vec![(&[0, 1][..], switch(bft)), (&[0, 1][..], switch(raft))],
            vec![],
            bft,
            true,
        ),
        (
            "it was taken back, came, and goes back by nobody",
            vec![(&[0, 1][..], switch(bft)), (&[0, 1][..], switch(raft))],
            vec![bft],
            raft,
            false,
        ),
    ] {
        for planned in [false, true] {
            let mut bench = bench();
            let before = bench.committee(SHARD);
            asked.iter().for_each(|(orgs, command)| approve(&mut bench, orgs, command));
            for (epoch, engine) in (1..).zip(seated.iter().copied().chain([then])) {
                let next = Committee::of(engine, SHARD, Incarnation(1), Epoch(epoch), before.members.clone());
                let last = usize::try_from(epoch).is_ok_and(|epoch| epoch > seated.len());
                let message =
                    if planned && last { Message::CommitteePlan(next) } else { Message::CommitteeUpdate(next) };
                bench.beacon(2, &[], vec![(SHARD, message)]);
            }
            let expected = Some("without the approvals of the policy of engines");
            expect(what, &bench.found(), if fits { None } else { expected });
        }
    }
}

#[test]
fn what_the_cluster_does_by_itself_was_decided() {
    let epochs = |length_ms| EpochPolicy { version: EPOCH_VERSION, length_ms, bad_nodes: 0, risk_max_ppb: 0 };
    let (hour, day) = (epochs(3_600_000), epochs(24 * 3_600_000));
    let key = beacon::epochs::policy_key;
    let ask = BeaconCommand::SetEpochs;
    let strict = || change(Matter::Operation, 0, Quorum::All);
    for (what, asked, there, fits) in [
        ("two of three", vec![(&[0, 1][..], ask(hour))], Some(hour), true),
        ("one of three", vec![(&[0][..], ask(hour))], Some(hour), false),
        ("nobody", vec![], Some(hour), false),
        ("nobody, and there are none", vec![], None, true),
        ("it did not come into force", vec![(&[0, 1][..], ask(hour))], None, false),
        ("another one came", vec![(&[0, 1][..], ask(hour))], Some(day), false),
        ("the later one", vec![(&[0, 1][..], ask(hour)), (&[0, 1][..], ask(day))], Some(day), true),
        ("the earlier one", vec![(&[0, 1][..], ask(hour)), (&[0, 1][..], ask(day))], Some(hour), false),
        (
            "what was approved beside it counts no more",
            vec![(&[0][..], ask(day)), (&[0, 1][..], ask(hour)), (&[1][..], ask(day))],
            Some(hour),
            true,
        ),
        ("all have to", vec![(&[0, 1][..], strict()), (&[0, 1][..], ask(hour))], Some(hour), false),
        ("all have", vec![(&[0, 1][..], strict()), (&ALL[..], ask(hour))], Some(hour), true),
    ] {
        let mut bench = bench();
        asked.iter().for_each(|(orgs, command)| approve(&mut bench, orgs, command));
        let ruled = asked.iter().any(|(_, command)| *command == strict());
        let records = there.map(|policy| (key(), bytes(&policy)));
        let records = records.into_iter().chain(ruled.then(|| record(Matter::Operation, 1, Quorum::All)));
        let kv = with(&bench, records.collect());
        bench.audit(GroupId::BEACON, Moment::Passing, &kv);
        expect(what, &bench.found(), if fits { None } else { Some("the policy of Epochs is not the one") });
        // Nobody has seen the last block of one that is behind.
        bench.beacon(3, &[], Vec::new());
        bench.audit(GroupId::BEACON, Moment::Passing, &kv);
        expect(what, &bench.found(), None);
    }
    for (command, key, value) in [
        (BeaconCommand::SetWatch(later_watch()), beacon::watch::policy_key(), bytes(&later_watch())),
        (BeaconCommand::SetScale(later_scale()), beacon::jobs::scale::policy_key(), bytes(&later_scale())),
    ] {
        for (orgs, fits) in [(&[0, 1][..], true), (&[0][..], false)] {
            let mut bench = bench();
            approve(&mut bench, orgs, &command);
            let kv = with(&bench, vec![(key.clone(), value.clone())]);
            bench.audit(GroupId::BEACON, Moment::Passing, &kv);
            expect("a setting", &bench.found(), if fits { None } else { Some("is not the one that was approved") });
        }
    }
}

/// Another one than the first; what it says is nothing to the checker.
fn later_watch() -> Watch {
    Watch { version: Watch::DEFAULT.version.wrapping_add(1), ..Watch::DEFAULT }
}

fn later_scale() -> ScalePolicy {
    ScalePolicy { on: !ScalePolicy::DEFAULT.on, ..ScalePolicy::DEFAULT }
}

#[test]
fn an_organisation_comes_and_goes_by_the_word_of_as_many_as_the_policy_asks_for() {
    let genesis = bench().facts.genesis.orgs.clone();
    let fourth = OrgInfo { id: OrgId(3), name: "org-3".to_owned(), ..genesis[0].clone() };
    let admit = BeaconCommand::RegisterOrg(fourth.clone());
    let remove = |org| BeaconCommand::RemoveOrg { org: OrgId(org) };
    let (three, two) = (&genesis[..], &genesis[..2]);
    let four: Vec<OrgInfo> = genesis.iter().cloned().chain([fourth]).collect();
    for (what, asked, there, fits) in [
        ("nobody asks", vec![], three, true),
        ("two admit it", vec![(&[0, 1][..], admit.clone())], &four[..], true),
        ("one admits it", vec![(&[0][..], admit.clone())], &four[..], false),
        ("two admit it, and it is not there", vec![(&[0, 1][..], admit.clone())], three, false),
        ("two remove the third", vec![(&[0, 1][..], remove(2))], two, true),
        ("one removes the third", vec![(&[0][..], remove(2))], two, false),
        ("two for different ones", vec![(&[0][..], remove(2)), (&[1][..], remove(1))], two, false),
        // Most of four are three.
        ("two of four remove it", vec![(&[0, 1][..], admit.clone()), (&[0, 1][..], remove(3))], three, false),
        ("three of four remove it", vec![(&[0, 1][..], admit.clone()), (&ALL[..], remove(3))], three, true),
        // Of the two that are left one has approved; the word of the third went with it.
        (
            "the word of one that is gone",
            vec![(&[2][..], admit.clone()), (&[0, 1][..], remove(2)), (&[0][..], admit.clone())],
            two,
            true,
        ),
    ] {
        let mut bench = bench();
        asked.iter().for_each(|(orgs, command)| approve(&mut bench, orgs, command));
        let kv = disk(&bench, there, Vec::new());
        bench.audit(GroupId::BEACON, Moment::Passing, &kv);
        expect(what, &bench.found(), if fits { None } else { Some("were approved") });
    }
}
