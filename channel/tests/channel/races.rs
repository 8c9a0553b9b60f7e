//! Proposals that race, against a model that keeps nothing but counts: whatever members say in
//! whatever order and however late, every answer is the model's.

use std::collections::BTreeSet;

use channel::proposal::Voice;
use channel::{Change, ChannelReject as R, Command, Phase, Policy, ProposalState as S, Quorum, Role, Subject, state};
use ledger::hash::Hash32;
use ledger::ids::{AssetId, TimeMs};
use proptest::prelude::*;

use crate::support::{World, outcome_of};

const MEMBERS: usize = 5;
/// A block of the test world lasts a second.
const BLOCK_MS: u64 = 1_000;
/// The most open proposals of a member.
const OPEN_MAX: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    Freeze,
    Thaw,
    Permit(u8),
    /// So many members decide on freezing from then on.
    Decide(usize),
}

/// What only one of several proposals can still change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thing {
    Phase,
    Asset(u8),
    Rule,
}

impl Aim {
    fn thing(self) -> Thing {
        match self {
            Self::Freeze | Self::Thaw => Thing::Phase,
            Self::Permit(asset) => Thing::Asset(asset),
            Self::Decide(_) => Thing::Rule,
        }
    }

    fn change(self) -> Change {
        match self {
            Self::Freeze => Change::Freeze,
            Self::Thaw => Change::Thaw,
            Self::Permit(asset) => Change::PermitAsset { asset: AssetId([asset; 16]) },
            Self::Decide(needed) => {
                let quorum = Quorum::AtLeast(u16::try_from(needed).unwrap());
                Change::Policy { subject: Subject::Freeze, policy: Policy::members(quorum, Role::Admin) }
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Propose { by: u16, aim: Aim, blocks: u64 },
    Approve { by: u16, pick: usize },
    Reject { by: u16, pick: usize },
    Withdraw { by: u16, pick: usize },
    Settle { by: u16, pick: usize },
    Wait { blocks: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let aim = prop_oneof![
        3 => Just(Aim::Freeze),
        3 => Just(Aim::Thaw),
        2 => (0..3u8).prop_map(Aim::Permit),
        3 => (1..=MEMBERS).prop_map(Aim::Decide),
    ];
    let (by, pick) = (1..=5u16, any::<prop::sample::Index>());
    // The latest proposals are where the races are.
    let pick = pick.prop_map(|index| index.index(6));
    let step = prop_oneof![
        4 => (by.clone(), aim, 2..30u64).prop_map(|(by, aim, blocks)| Step::Propose { by, aim, blocks }),
        10 => (by.clone(), pick.clone()).prop_map(|(by, pick)| Step::Approve { by, pick }),
        4 => (by.clone(), pick.clone()).prop_map(|(by, pick)| Step::Reject { by, pick }),
        1 => (by.clone(), pick.clone()).prop_map(|(by, pick)| Step::Withdraw { by, pick }),
        2 => (by, pick).prop_map(|(by, pick)| Step::Settle { by, pick }),
        1 => (1..20u64).prop_map(|blocks| Step::Wait { blocks }),
    ];
    prop::collection::vec(step, 1..80)
}

#[derive(Clone, Debug)]
struct Proposed {
    id: Hash32,
    aim: Aim,
    by: u16,
    until: u64,
    for_it: BTreeSet<u16>,
    against: BTreeSet<u16>,
    state: S,
}

/// The channel by counting.
struct Model {
    frozen: bool,
    permitted: BTreeSet<u8>,
    /// How many members decide on freezing, once that was stated; on the rest a majority does.
    stated: Option<usize>,
    proposals: Vec<Proposed>,
}

impl Model {
    fn needed_for(&self, aim: Aim) -> usize {
        self.stated.filter(|_| aim.thing() == Thing::Phase).unwrap_or(MEMBERS / 2 + 1)
    }

    fn possible(&self, aim: Aim) -> Result<(), R> {
        match aim {
            Aim::Freeze if self.frozen => Err(R::Transition),
            Aim::Thaw if !self.frozen => Err(R::Transition),
            Aim::Permit(asset) if self.permitted.contains(&asset) => Err(R::AssetPermitted),
            Aim::Decide(needed) if self.stated == Some(needed) => Err(R::NoChange),
            Aim::Freeze | Aim::Thaw | Aim::Permit(_) | Aim::Decide(_) => Ok(()),
        }
    }

    fn standing(proposed: &Proposed, now: u64) -> S {
        if proposed.state == S::Open && now > proposed.until { S::Expired } else { proposed.state }
    }

    fn expect_open(proposed: &Proposed, now: u64) -> Result<(), R> {
        match Self::standing(proposed, now) {
            S::Open => Ok(()),
            S::Applied => Err(R::ProposalApplied),
            S::Rejected => Err(R::ProposalRejected),
            S::Withdrawn => Err(R::ProposalWithdrawn),
            S::Expired => Err(R::ProposalExpired),
            S::Superseded => Err(R::ProposalStale),
        }
    }

    /// Brings a proposal into force; others of the same thing that are open are overtaken.
    fn apply(&mut self, proposed: &mut Proposed, now: u64) -> Result<S, R> {
        self.possible(proposed.aim)?;
        match proposed.aim {
            Aim::Freeze => self.frozen = true,
            Aim::Thaw => self.frozen = false,
            Aim::Permit(asset) => _ = self.permitted.insert(asset),
            Aim::Decide(needed) => self.stated = Some(needed),
        }
        proposed.state = S::Applied;
        for other in self.proposals.iter_mut().filter(|other| other.id != proposed.id) {
            if other.aim.thing() == proposed.aim.thing() && Self::standing(other, now) == S::Open {
                other.state = S::Superseded;
            }
        }
        Ok(S::Applied)
    }

    fn propose(&mut self, by: u16, aim: Aim, until: u64, now: u64) -> Result<(Proposed, S), R> {
        self.possible(aim)?;
        let open = self.proposals.iter().filter(|own| own.by == by && Self::standing(own, now) == S::Open);
        if open.count() >= OPEN_MAX {
            return Err(R::ProposalsFull);
        }
        let for_it = BTreeSet::from([by]);
        let (id, against) = (Hash32::ZERO, BTreeSet::new());
        let mut proposed = Proposed { id, aim, by, until, for_it, against, state: S::Open };
        if self.needed_for(aim) == 1 {
            self.apply(&mut proposed, now)?;
        }
        let standing = proposed.state;
        Ok((proposed, standing))
    }

    fn speak(&mut self, by: u16, place: usize, approves: bool, now: u64) -> Result<S, R> {
        let mut proposed = self.proposals[place].clone();
        Self::expect_open(&proposed, now)?;
        if proposed.for_it.contains(&by) || proposed.against.contains(&by) {
            return Err(R::ProposalActed);
        }
        if approves { &mut proposed.for_it } else { &mut proposed.against }.insert(by);
        let needed = self.needed_for(proposed.aim);
        let standing = if approves && proposed.for_it.len() >= needed {
            self.apply(&mut proposed, now)?
        } else if !approves && proposed.for_it.len() < needed && MEMBERS - proposed.against.len() < needed {
            proposed.state = S::Rejected;
            S::Rejected
        } else {
            S::Open
        };
        self.proposals[place] = proposed;
        Ok(standing)
    }

    fn settle(&mut self, place: usize, now: u64) -> Result<S, R> {
        let mut proposed = self.proposals[place].clone();
        Self::expect_open(&proposed, now)?;
        if proposed.for_it.len() < self.needed_for(proposed.aim) {
            return Err(R::Undecided);
        }
        let standing = self.apply(&mut proposed, now)?;
        self.proposals[place] = proposed;
        Ok(standing)
    }

    fn withdraw(&mut self, by: u16, place: usize, now: u64) -> Result<S, R> {
        if self.proposals[place].by != by {
            return Err(R::NotProposer);
        }
        Self::expect_open(&self.proposals[place], now)?;
        self.proposals[place].state = S::Withdrawn;
        Ok(S::Withdrawn)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn every_answer_is_that_of_the_model(steps in steps()) {
        let mut world = World::five();
        let mut model = Model { frozen: false, permitted: BTreeSet::new(), stated: None, proposals: Vec::new() };
        for step in steps {
            let now = world.now;
            // Counted from the latest.
            let place = |pick: usize| model.proposals.len().checked_sub(1 + pick % model.proposals.len().max(1));
            let (by, command, expected) = match step {
                Step::Wait { blocks } => {
                    world.now += blocks * BLOCK_MS;
                    continue;
                }
                Step::Propose { by, aim, blocks } => {
                    let until = now + blocks * BLOCK_MS;
                    let command = Command::Propose { change: aim.change(), until_ms: TimeMs(until) };
                    let expected = model.propose(by, aim, until, now);
                    let found = world.run(by, &command).map(outcome_of).map_err(|refusal| refusal.reject);
                    match (expected, found) {
                        (Ok((proposed, standing)), Ok((id, state))) => {
                            prop_assert_eq!(state, standing);
                            model.proposals.push(Proposed { id, ..proposed });
                        }
                        (Err(expected), Err(found)) => prop_assert_eq!(found, expected),
                        (expected, found) => prop_assert!(false, "{found:?}, not {expected:?}"),
                    }
                    continue;
                }
                Step::Approve { by, pick } => {
                    let Some(place) = place(pick) else { continue };
                    let proposal = model.proposals[place].id;
                    (by, Command::Approve { proposal }, model.speak(by, place, true, now))
                }
                Step::Reject { by, pick } => {
                    let Some(place) = place(pick) else { continue };
                    let proposal = model.proposals[place].id;
                    (by, Command::Reject { proposal }, model.speak(by, place, false, now))
                }
                Step::Withdraw { by, pick } => {
                    let Some(place) = place(pick) else { continue };
                    let proposal = model.proposals[place].id;
                    (by, Command::Withdraw { proposal }, model.withdraw(by, place, now))
                }
                Step::Settle { by, pick } => {
                    let Some(place) = place(pick) else { continue };
                    let proposal = model.proposals[place].id;
                    (by, Command::Settle { proposal }, model.settle(place, now))
                }
            };
            let found = world.run(by, &command).map(|outcome| outcome_of(outcome).1);
            prop_assert_eq!(found.map_err(|refusal| refusal.reject), expected, "{:?}", step);
        }
        let phase = world.read(state::channel).unwrap().phase;
        prop_assert_eq!(phase, if model.frozen { Phase::Frozen } else { Phase::Running });
        let now = TimeMs(world.now);
        for proposed in &model.proposals {
            let kept = world.read(|view| state::proposal(view, &proposed.id)).unwrap();
            prop_assert_eq!(kept.state_at(now), Model::standing(proposed, now.0), "{:?}", proposed);
            let voices = |voices: &[Voice]| voices.iter().map(|voice| voice.elector.org.0).collect::<BTreeSet<_>>();
            prop_assert_eq!((voices(&kept.approvals), voices(&kept.rejections)), (proposed.for_it.clone(), proposed.against.clone()));
        }
    }
}
