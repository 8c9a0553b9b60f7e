//! What the organisations decide together, by a majority unless a policy says otherwise: whose approvals count and how
//! long, how many proposals wait, and what becomes of them. Every cell, for each of the commands that are decided so.

use beacon::audit::quarantine::Held;
use beacon::command::BeaconCommand;
use beacon::genesis::first_committees;
use beacon::limits::{PROPOSALS_MAX, PROPOSALS_PER_ORG_MAX};
use beacon::machine::{CommandOutcome, apply_checkpoint};
use beacon::{Constraints, EpochPolicy, Matter, PolicyChange, ScalePolicy, Watch, WatchMode};
use borsh::BorshSerialize;
use channel::{Policy, Quorum, Role};
use cross_shard::OutStream;
use ledger::committee::Engine;
use ledger::genesis::Genesis;
use ledger::hash::{Hash32, tagged};
use ledger::ids::{GroupId, OrgId, TimeMs};
use ledger::limits::MAIL_WINDOW_MESSAGES;
use ledger::reject::Reject;
use ledger::schema;

use crate::nodes::World;
use crate::support::{at, certified, dealt, genesis, org, settle};

/// How long the commands of a [`World`] are valid, and so a proposal.
const WITHIN_MS: u64 = 60_000;
const SHARD: GroupId = GroupId::shard(0);
const DONE: Result<CommandOutcome, Reject> = Ok(CommandOutcome::Applied);

fn waits(approvals: u16, needed: u16) -> Result<CommandOutcome, Reject> {
    Ok(CommandOutcome::Pending { approvals, needed })
}

fn bytes<T: BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).unwrap()
}

/// A command that is decided by a majority, and how its proposal is kept.
struct Kind {
    command: BeaconCommand,
    /// Whose policy decides it.
    matter: Matter,
    family: &'static [u8],
    /// What follows the family in its key.
    name: Vec<u8>,
    /// What is asked for, as it is kept.
    asked: Vec<u8>,
    /// The same of two others, and how many of them are left when it is decided.
    others: [Vec<u8>; 2],
    left: usize,
    /// Whether its decision has to be mailed.
    mails: bool,
    /// What comes before it can be asked for.
    before: fn(&mut World),
}

fn kinds(genesis: &Genesis) -> Vec<Kind> {
    let watch = Watch { mode: WatchMode::DryRun, ..Watch::DEFAULT };
    let epochs = EpochPolicy { length_ms: 3_600_000, ..EpochPolicy::DEFAULT };
    let scale = ScalePolicy { on: true, ..ScalePolicy::DEFAULT };
    let held = Held { group: SHARD, node: None };
    let committee = genesis.committee(SHARD).unwrap().hash();
    let switch = |group: GroupId, engine: Engine| bytes(&(1u8, group, engine, committee));
    let nothing: fn(&mut World) = |_| ();
    let change = |quorum: Quorum| {
        let policy = Policy::members(quorum, Role::Admin);
        PolicyChange { matter: Matter::Jobs, base: 0, policy }
    };
    vec![
        Kind {
            command: BeaconCommand::RegisterOrg(org(6)),
            matter: Matter::Orgs,
            family: b"Gproposal/",
            name: tagged(b"seamark/proposal/v1", &[&bytes(&org(6))]).0.to_vec(),
            asked: bytes(&org(6)),
            others: [7, 8].map(|id| bytes(&org(id))),
            left: 2,
            mails: false,
            before: nothing,
        },
        Kind {
            command: BeaconCommand::RemoveOrg { org: OrgId(5) },
            matter: Matter::Orgs,
            family: b"Gremoval/",
            name: vec![0, 5],
            asked: vec![],
            others: [vec![], vec![]],
            left: 2,
            mails: true,
            before: nothing,
        },
        Kind {
            command: BeaconCommand::SwitchEngine { group: SHARD, engine: Engine::Bft },
            matter: Matter::Engines,
            family: b"Gswitch/",
            name: [&SHARD.0.to_be_bytes()[..], b"bft"].concat(),
            asked: switch(SHARD, Engine::Bft),
            others: [switch(SHARD, Engine::Raft), switch(GroupId::shard(1), Engine::Bft)],
            left: 1,
            mails: true,
            before: nothing,
        },
        Kind {
            command: BeaconCommand::SetWatch(watch),
            matter: Matter::Operation,
            family: b"Gwatch-proposal/",
            name: bytes(&watch),
            asked: bytes(&watch),
            others: [1, 2].map(|at_most| bytes(&Watch { at_most, ..watch })),
            left: 0,
            mails: true,
            before: nothing,
        },
        Kind {
            command: BeaconCommand::SetEpochs(epochs),
            matter: Matter::Operation,
            family: b"Gepochs-proposal/",
            name: bytes(&(0u8, epochs)),
            asked: bytes(&(0u8, epochs)),
            others: [bytes(&(0u8, EpochPolicy::DEFAULT)), vec![1]],
            left: 0,
            mails: true,
            before: nothing,
        },
        Kind {
            command: BeaconCommand::Rebalance,
            matter: Matter::Operation,
            family: b"Gepochs-proposal/",
            name: vec![1],
            asked: vec![1],
            others: [bytes(&(0u8, EpochPolicy::DEFAULT)), bytes(&(0u8, epochs))],
            left: 2,
            mails: true,
            before: |world| {
                let policy = EpochPolicy { length_ms: 7_200_000, ..EpochPolicy::DEFAULT };
                decide(world, &BeaconCommand::SetEpochs(policy));
            },
        },
        Kind {
            command: BeaconCommand::ReleaseQuarantine(held),
            matter: Matter::Quarantine,
            family: b"Grelease/",
            name: bytes(&held),
            asked: vec![],
            others: [vec![], vec![]],
            left: 2,
            mails: true,
            before: |world| {
                // It has certified two headers of one height.
                for (root, moves) in [(1, true), (2, false)] {
                    let (context, header) = (at(&world.genesis, world.now), certified(&world.genesis, SHARD, 5, root));
                    world.state = settle(&world.state, |view| {
                        assert_eq!(apply_checkpoint(view, &context, &header), Ok(moves));
                    });
                }
            },
        },
        Kind {
            command: BeaconCommand::SetScale(scale),
            matter: Matter::Operation,
            family: b"Gscale-proposal/",
            name: bytes(&scale),
            asked: bytes(&scale),
            others: [1, 2].map(|shards_min| bytes(&ScalePolicy { shards_min, ..scale })),
            left: 0,
            mails: false,
            before: nothing,
        },
        Kind {
            command: BeaconCommand::SetPolicy(change(Quorum::Any)),
            matter: Matter::Policy,
            family: b"Gpolicy-proposal/",
            name: tagged(b"seamark/policy-proposal/v1", &[&bytes(&change(Quorum::Any))]).0.to_vec(),
            asked: bytes(&change(Quorum::Any)),
            others: [Quorum::All, Quorum::AtLeast(1)].map(|quorum| bytes(&change(quorum))),
            left: 0,
            mails: false,
            before: nothing,
        },
    ]
}

impl Kind {
    fn key(&self) -> Vec<u8> {
        [self.family, &self.name].concat()
    }

    /// Lets so many others of the kind wait, each with the approval of one of these.
    fn beside(&self, world: &mut World, count: usize, until: u64, by: &[u16]) {
        for ((place, asked), org) in (0u8..).zip(self.others.iter().cycle()).zip(by.iter().cycle()).take(count) {
            let key = [self.family, &[0xff, place]].concat();
            world.state.insert(key, kept(asked, until, &[*org]).into());
        }
    }

    /// How many of the kind wait.
    fn open(&self, world: &World) -> usize {
        world.state.keys().filter(|key| key.starts_with(self.family)).count()
    }

    fn send(&self, world: &mut World, by: u16) -> Result<CommandOutcome, Reject> {
        world.command(by, &self.command).map(|executed| executed.outcome)
    }
}

/// The record of a proposal: what is asked for, its deadline, and who has approved.
fn kept(asked: &[u8], until: u64, approvals: &[u16]) -> Vec<u8> {
    let approvals: Vec<OrgId> = approvals.iter().copied().map(OrgId).collect();
    [asked, &bytes(&(TimeMs(until), approvals))].concat()
}

/// The first three organisations decide something, or as many of them as it takes.
fn decide(world: &mut World, command: &BeaconCommand) {
    let mut outcomes = (1..=3).map(|by| world.command(by, command).unwrap().outcome);
    assert!(outcomes.any(|outcome| outcome == CommandOutcome::Applied), "{command:?}");
}

/// Five organisations, of which the last two have no nodes.
fn five() -> Genesis {
    Genesis { orgs: (1..=5).map(org).collect(), ..genesis() }
}

/// Each of the kinds, with a beacon in which it can be asked for.
fn each(genesis: &Genesis, test: impl Fn(&Kind, World)) {
    for kind in kinds(genesis) {
        let mut world = World::of(genesis.clone());
        (kind.before)(&mut world);
        test(&kind, world);
    }
}

#[test]
fn three_of_five_decide_before_the_deadline_of_the_first_one() {
    let rows = [
        (
            "nobody counts twice",
            vec![(0, 1, waits(1, 3)), (0, 1, waits(1, 3)), (0, 2, waits(2, 3)), (0, 2, waits(2, 3))],
        ),
        ("any three", vec![(0, 5, waits(1, 3)), (0, 2, waits(2, 3)), (0, 4, DONE)]),
        ("in its last moment", vec![(0, 1, waits(1, 3)), (WITHIN_MS, 2, waits(2, 3)), (0, 3, DONE)]),
        ("it lapses", vec![(0, 1, waits(1, 3)), (WITHIN_MS + 1, 2, waits(1, 3)), (0, 3, waits(2, 3))]),
        ("so does the last approval", vec![(0, 1, waits(1, 3)), (0, 2, waits(2, 3)), (WITHIN_MS + 1, 3, waits(1, 3))]),
        (
            "a later approval does not put it off",
            vec![(0, 1, waits(1, 3)), (WITHIN_MS / 2, 2, waits(2, 3)), (WITHIN_MS / 2 + 1, 3, waits(1, 3))],
        ),
    ];
    let genesis = five();
    for (what, steps) in rows {
        each(&genesis, |kind, mut world| {
            for (passes, by, expected) in &steps {
                world.now += passes;
                assert_eq!(kind.send(&mut world, *by), *expected, "{:?}: {what}", kind.command);
                assert_eq!(world.state.contains_key(&kind.key()), *expected != DONE, "{:?}: {what}", kind.command);
            }
        });
    }
}

#[test]
fn each_is_decided_by_the_policy_of_its_matter_and_by_no_other() {
    // One of the kinds changes the policy of jobs, and is about what is in force before.
    for matter in Matter::ALL.into_iter().filter(|matter| *matter != Matter::Jobs) {
        each(&five(), |kind, mut world| {
            let policy = Policy::members(Quorum::All, Role::Admin);
            decide(&mut world, &BeaconCommand::SetPolicy(PolicyChange { matter, base: 0, policy }));
            let needed = if kind.matter == matter { 5 } else { 3 };
            for by in 1..=needed {
                let expected = if by == needed { DONE } else { waits(by, needed) };
                assert_eq!(kind.send(&mut world, by), expected, "{:?} by the policy of {matter:?}", kind.command);
            }
        });
    }
}

#[test]
fn whom_the_policy_does_not_ask_leaves_no_trace() {
    each(&five(), |kind, mut world| {
        let policy = Policy::one(OrgId(2), Role::Admin);
        decide(&mut world, &BeaconCommand::SetPolicy(PolicyChange { matter: kind.matter, base: 0, policy }));
        assert_eq!(kind.send(&mut world, 1), Err(Reject::PolicyNotAsked), "{:?}", kind.command);
        assert_eq!(kind.open(&world), 0);
        assert_eq!(kind.send(&mut world, 2), DONE, "{:?}", kind.command);
    });
}

#[test]
fn who_is_gone_counts_no_more() {
    each(&five(), |kind, mut world| {
        assert_eq!(kind.send(&mut world, 4), waits(1, 3));
        decide(&mut world, &BeaconCommand::RemoveOrg { org: OrgId(4) });
        let outcomes = [1, 2, 3].map(|by| kind.send(&mut world, by));
        assert_eq!(outcomes, [waits(1, 3), waits(2, 3), DONE], "{:?}", kind.command);
    });
}

#[test]
fn the_only_organisation_decides_at_once() {
    let (three, nodes) = (genesis(), dealt(5, 1));
    let committees = first_committees(&three.seed, &nodes, 4, 3, 3, &Constraints::default()).unwrap();
    each(&Genesis { orgs: vec![org(1)], nodes, committees, ..three }, |kind, mut world| {
        // It cannot take itself out, and there is no other one.
        let removal = matches!(kind.command, BeaconCommand::RemoveOrg { .. });
        let expected = if removal { Err(Reject::Registry) } else { DONE };
        assert_eq!(kind.send(&mut world, 1), expected, "{:?}", kind.command);
        assert_eq!(kind.open(&world), 0);
    });
}

#[test]
fn a_proposal_is_kept_as_it_always_was() {
    each(&five(), |kind, mut world| {
        let until = world.now + WITHIN_MS;
        kind.send(&mut world, 2).unwrap();
        world.now += 1;
        kind.send(&mut world, 1).unwrap();
        let found = world.state.get(&kind.key()).expect("it waits under its key");
        assert_eq!(found[..], kept(&kind.asked, until, &[1, 2]), "{:?}", kind.command);
    });
}

#[test]
fn so_many_wait_and_what_has_lapsed_is_none_of_them() {
    each(&five(), |kind, world| {
        let with = |count: usize, until: u64| {
            let mut world = World::of(world.genesis.clone());
            (kind.before)(&mut world);
            kind.beside(&mut world, count, until, &[1, 2, 3, 4, 5]);
            world
        };
        let now = world.now;
        let mut full = with(PROPOSALS_MAX, now);
        assert_eq!(kind.send(&mut full, 1), Err(Reject::Busy), "{:?}: they wait for a last moment", kind.command);

        let mut last = with(PROPOSALS_MAX - 1, now);
        assert_eq!(kind.send(&mut last, 1), waits(1, 3), "{:?}: the last place", kind.command);
        assert_eq!(kind.send(&mut last, 2), waits(2, 3), "{:?}: it waits itself", kind.command);
        assert_eq!(kind.open(&last), PROPOSALS_MAX);
        assert_eq!(kind.send(&mut last, 3), DONE);

        let mut lapsed = with(PROPOSALS_MAX, now - 1);
        assert_eq!(kind.send(&mut lapsed, 1), waits(1, 3), "{:?}: nobody waits", kind.command);
        assert_eq!(kind.open(&lapsed), 1, "{:?}: what has lapsed is gone", kind.command);
    });
}

/// Else whoever proposes much would keep the others from changing a policy, or from taking somebody in.
#[test]
fn one_organisation_cannot_take_all_places() {
    each(&five(), |kind, mut world| {
        let now = world.now;
        kind.beside(&mut world, PROPOSALS_PER_ORG_MAX, now, &[1]);
        assert_eq!(kind.send(&mut world, 1), Err(Reject::Busy), "{:?}", kind.command);
        assert_eq!(kind.open(&world), PROPOSALS_PER_ORG_MAX, "a refusal leaves no trace");
        assert_eq!(kind.send(&mut world, 2), waits(1, 3), "{:?}: others have places", kind.command);
        assert_eq!(kind.send(&mut world, 1), waits(2, 3), "{:?}: to approve is free", kind.command);
        assert_eq!(kind.send(&mut world, 3), DONE);
    });
    each(&five(), |kind, mut world| {
        // What others have approved as well is not its own alone.
        let now = world.now;
        kind.beside(&mut world, PROPOSALS_PER_ORG_MAX - 1, now, &[1]);
        world.state.insert([kind.family, &[0xff, 0xff]].concat(), kept(&kind.others[0], now, &[1, 2]).into());
        assert_eq!(kind.send(&mut world, 1), waits(1, 3), "{:?}", kind.command);
        // Time gives its places back.
        let mut lapsed = World::of(world.genesis.clone());
        (kind.before)(&mut lapsed);
        kind.beside(&mut lapsed, PROPOSALS_PER_ORG_MAX, now - 1, &[1]);
        assert_eq!(kind.send(&mut lapsed, 1), waits(1, 3), "{:?}", kind.command);
    });
}

#[test]
fn a_decision_takes_those_with_it_that_were_about_another_state() {
    for (passes, lapse) in [(0, false), (2, true)] {
        each(&five(), |kind, mut world| {
            let until = world.now + 1;
            kind.beside(&mut world, 2, until, &[1]);
            assert_eq!([1, 2].map(|by| kind.send(&mut world, by)), [waits(1, 3), waits(2, 3)]);
            world.now += passes;
            assert_eq!(kind.send(&mut world, 3), DONE);
            let left = if lapse { 0 } else { kind.left };
            assert_eq!(kind.open(&world), left, "{:?}: lapsed {lapse}", kind.command);
        });
    }
}

#[test]
fn what_has_to_be_mailed_waits_until_everybody_takes_mail() {
    each(&five(), |kind, mut world| {
        let full = OutStream { next_seq: MAIL_WINDOW_MESSAGES, ..OutStream::default() };
        world.state = settle(&world.state, |view| view.store(schema::outbox(SHARD), &full));
        assert_eq!([1, 2].map(|by| kind.send(&mut world, by)), [waits(1, 3), waits(2, 3)]);
        if kind.mails {
            assert_eq!(kind.send(&mut world, 3), Err(Reject::PeerBusy), "{:?}", kind.command);
            world.state.remove(&schema::outbox(SHARD));
        }
        assert_eq!(kind.send(&mut world, 3), DONE, "{:?}", kind.command);
    });
}

/// What was approved is a switch of the committee that was in force.
#[test]
fn a_switch_of_another_committee_begins_anew() {
    let mut world = World::of(five());
    let kinds = kinds(&world.genesis);
    let switch = kinds.iter().find(|kind| kind.family == b"Gswitch/").unwrap();
    let former = bytes(&(1u8, SHARD, Engine::Bft, Hash32([9; 32])));
    world.state.insert(switch.key(), kept(&former, world.now + 1, &[1, 2]).into());
    assert_eq!(switch.send(&mut world, 3), waits(1, 3));
    let until = world.now + WITHIN_MS;
    assert_eq!(world.state[&switch.key()][..], kept(&switch.asked, until, &[3]));
}
