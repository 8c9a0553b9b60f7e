//! Epochs: a seed that nobody chooses alone, and the seats that are dealt by it.
//!
//! While epochs are on, each member of the beacon first commits itself to a secret and then reveals it, until the cut-off.
//! The seed behind an epoch is the hash of the seed before and of the secrets that were revealed. Whoever reveals last may
//! withhold instead, and so choose between two seeds; that is seen, named and counted, and who has done it sits out the
//! next epoch. Where fewer have revealed than the beacon's committee decides with, the seed stays as it was. Everything that
//! went into a seed is kept for some epochs, under the beacon's state tree, and recomputed by anybody ([`EpochProof`]).
//!
//! The end of epoch E decides a deal of seats ([`Deal`]): by need alone, or evened out where the organisations ask for
//! that. In E + 1 committees are prepared, and come into force in E + 2 at the earliest, as many seats at a time as a
//! committee tolerates faults. What is prepared when and how is for [`crate::seats`].
//!
//! Time is the beacon's block time: the beacon makes blocks only when there is something to do, so a count of blocks would
//! say nothing. The end of an epoch is a deadline in state, and calls for a block by itself.

mod contribution;
mod deal;
mod policy;
mod proof;
mod record;

use borsh::{BorshDeserialize, BorshSerialize};
use cross_shard::message::Message;
use ledger::committee::Committee;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, Height, NodeId, TimeMs};
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::view::View;

pub use contribution::{CONTRIBUTION_VERSION, Contribution, Part, commitment_of};
pub use deal::{Deal, Target, step_towards, worst_risk};
pub use policy::EpochPolicy;
pub(crate) use policy::{Ask, ask};
pub use proof::{EPOCH_FILE_MAGIC, EPOCH_PROOF_FORMAT, EpochBook, EpochProof, EpochProofError};
pub use record::{EPOCH_VERSION, Entrant, EpochFault, EpochHead, EpochRecord, Fate, check_records, seed_of};

use crate::limits::EPOCHS_KEPT;
use crate::registry;
use crate::seats;

/// What members contribute at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Commitments.
    Commit,
    /// Secrets.
    Reveal,
    /// Nothing: the next block ends the epoch.
    Over,
}

impl Phase {
    /// Its name in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Reveal => "reveal",
            Self::Over => "over",
        }
    }
}

/// The epoch that runs.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Round {
    /// Format version, [`EPOCH_VERSION`].
    pub version: u8,
    /// Its number; the first is 1, and none is given twice.
    pub epoch: u64,
    /// The beacon's block that began it.
    pub began_height: Height,
    /// Its time.
    pub began_ms: TimeMs,
    /// From this block time on secrets are taken, and no commitments.
    pub reveal_ms: TimeMs,
    /// The cut-off: from this block time on nothing is taken, and the first block ends it.
    pub ends_ms: TimeMs,
    /// Secrets that make a new seed.
    pub needed: u16,
    /// The members of the beacon, ascending.
    pub entrants: Vec<Entrant>,
}

impl Round {
    /// The phase at a block time.
    #[must_use]
    pub fn phase_at(&self, now: TimeMs) -> Phase {
        if now < self.reveal_ms {
            Phase::Commit
        } else if now < self.ends_ms {
            Phase::Reveal
        } else {
            Phase::Over
        }
    }

    /// A member's line.
    #[must_use]
    pub fn entrant(&self, node: NodeId) -> Option<&Entrant> {
        self.entrants.iter().find(|entrant| entrant.node == node)
    }
}

/// What a member has done in all epochs so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Tally {
    /// Format version, [`EPOCH_VERSION`].
    pub version: u8,
    /// The node.
    pub node: NodeId,
    /// Epochs whose seed has its secret.
    pub revealed: u64,
    /// Epochs in which it committed itself and did not reveal.
    pub withheld: u64,
    /// Epochs in which it did not commit itself.
    pub absent: u64,
    /// The last epoch in which it withheld; zero when it never did.
    pub withheld_last: u64,
}

/// A committee that a deal has prepared, and the epoch that it was prepared in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Dealt {
    /// Hash of the committee.
    pub coming: Hash32,
    /// The epoch.
    pub epoch: u64,
}

const RECORD: &[u8] = b"epochs-record/";
const DEAL: &[u8] = b"epochs-deal/";
const TALLY: &[u8] = b"epochs-tally/";
const DEALT: &[u8] = b"epochs-dealt/";

/// Key of the [`EpochPolicy`] in force.
#[must_use]
pub fn policy_key() -> Vec<u8> {
    registry::key(b"epochs-policy", &[])
}

/// Key of the [`Round`] that runs.
#[must_use]
pub fn round_key() -> Vec<u8> {
    registry::key(b"epochs-round", &[])
}

/// Key of an [`EpochRecord`].
#[must_use]
pub fn record_key(epoch: u64) -> Vec<u8> {
    registry::key(RECORD, &[&epoch.to_be_bytes()])
}

/// Key of a [`Deal`].
#[must_use]
pub fn deal_key(epoch: u64) -> Vec<u8> {
    registry::key(DEAL, &[&epoch.to_be_bytes()])
}

/// Key of the mark of a committee that a deal has prepared, a [`Dealt`].
#[must_use]
pub fn dealt_key(group: GroupId) -> Vec<u8> {
    registry::key(DEALT, &[&group.0.to_be_bytes()])
}

fn last_key() -> Vec<u8> {
    registry::key(b"epochs-last", &[])
}

fn targets_key() -> Vec<u8> {
    registry::key(b"epochs-targets", &[])
}

fn rebalance_key() -> Vec<u8> {
    registry::key(b"epochs-rebalance", &[])
}

fn tally_key(node: NodeId) -> Vec<u8> {
    registry::key(TALLY, &[&node.0.to_be_bytes()])
}

fn values<T: BorshDeserialize>(view: &mut View<'_>, family: &[u8]) -> Vec<T> {
    registry::family(view, &registry::key(family, &[])).into_iter().map(|(_, value)| value).collect()
}

fn drop_if_there(view: &mut View<'_>, key: Vec<u8>) {
    if view.get(&key).is_some() {
        registry::remove(view, key);
    }
}

/// The policy in force.
pub fn policy(view: &mut View<'_>) -> EpochPolicy {
    view.load(&policy_key()).unwrap_or(EpochPolicy::DEFAULT)
}

/// The epoch that runs.
pub fn round(view: &mut View<'_>) -> Option<Round> {
    view.load(&round_key())
}

/// The epochs that are kept, the latest last.
pub fn records(view: &mut View<'_>) -> Vec<EpochRecord> {
    values(view, RECORD)
}

/// Their deals, the latest last.
pub fn deals(view: &mut View<'_>) -> Vec<Deal> {
    values(view, DEAL)
}

/// What deals want and is not so yet, by group.
pub fn targets(view: &mut View<'_>) -> Vec<Target> {
    view.load(&targets_key()).unwrap_or_default()
}

/// What each member has done so far, by node.
pub fn tallies(view: &mut View<'_>) -> Vec<Tally> {
    values(view, TALLY)
}

/// Whether the next deal evens seats out.
pub fn rebalances(view: &mut View<'_>) -> bool {
    view.get(&rebalance_key()).is_some()
}

/// The block time from which on a block is due, as of a block with the time `now`: the end of commitments, then that of the
/// epoch. Members reveal once they have seen the block that closes commitments.
pub fn next_deadline(view: &mut View<'_>, now: TimeMs) -> Option<TimeMs> {
    let round = round(view)?;
    Some(if now < round.reveal_ms { round.reveal_ms } else { round.ends_ms })
}

/// Notes that a deal has prepared a committee, in the epoch that runs.
pub(crate) fn note_dealt(view: &mut View<'_>, group: GroupId, coming: Hash32) {
    let epoch = round(view).map_or(0, |round| round.epoch);
    registry::put(view, dealt_key(group), &Dealt { coming, epoch });
}

/// Whether what is being prepared in a group is there because of a deal.
pub(crate) fn is_dealt(view: &mut View<'_>, group: GroupId) -> bool {
    view.get(&dealt_key(group)).is_some()
}

/// Forgets that a deal has prepared a committee: it is in force, or another one is prepared.
pub(crate) fn forget_dealt(view: &mut View<'_>, group: GroupId) {
    drop_if_there(view, dealt_key(group));
}

/// Whether a committee has to wait: a deal has prepared it, in the epoch that still runs.
pub fn holds_back(view: &mut View<'_>, group: GroupId, coming: &Hash32) -> bool {
    let mark: Option<Dealt> = view.load(&dealt_key(group));
    let running = round(view).map(|round| round.epoch);
    mark.is_some_and(|mark| mark.coming == *coming && running.is_some_and(|epoch| epoch <= mark.epoch))
}

/// Begins the next epoch.
fn begin(view: &mut View<'_>, at: &BlockContext, policy: &EpochPolicy) {
    let Some(committee) = registry::committee(view, GroupId::BEACON) else { return };
    let last: u64 = view.load(&last_key()).unwrap_or(0);
    let (epoch, began) = (last + 1, at.time_ms.0);
    let withheld: Vec<NodeId> = tallies(view)
        .into_iter()
        .filter(|tally| tally.withheld_last == last && last > 0)
        .map(|tally| tally.node)
        .collect();
    let entrants = committee.members.iter().map(|member| Entrant {
        node: member.node,
        org: member.org,
        key: member.key,
        barred: withheld.contains(&member.node),
        commitment: None,
        secret: None,
    });
    let round = Round {
        version: EPOCH_VERSION,
        epoch,
        began_height: at.height,
        began_ms: at.time_ms,
        reveal_ms: TimeMs(began + policy.length_ms / 2),
        ends_ms: TimeMs(began + policy.length_ms),
        needed: committee.threshold,
        entrants: entrants.collect(),
    };
    registry::put(view, last_key(), &epoch);
    registry::put(view, round_key(), &round);
}

/// The beacon has another committee. A member that goes on with another key signs what it gives with that one.
pub(crate) fn members_changed(view: &mut View<'_>, committee: &Committee) {
    let Some(mut round) = round(view) else { return };
    let mut changed = false;
    for entrant in &mut round.entrants {
        let key = committee.index_of(entrant.node).map(|at| committee.members[at].key);
        if let Some(key) = key.filter(|key| *key != entrant.key) {
            entrant.key = key;
            changed = true;
        }
    }
    if changed {
        registry::put(view, round_key(), &round);
    }
}

/// Takes a contribution. Returns whether it was new: one that is there already changes nothing.
///
/// # Errors
/// [`Reject`] says why it counts for nothing. The view is then unchanged.
pub fn apply_contribution(view: &mut View<'_>, at: &BlockContext, given: &Contribution) -> Result<bool, Reject> {
    let mut round = round(view).ok_or(Reject::ContributionForm)?;
    if given.cluster != at.cluster {
        return Err(Reject::WrongCluster);
    }
    let phase = round.phase_at(at.time_ms);
    let entrant = round.entrants.iter_mut().find(|entrant| entrant.node == given.node);
    let entrant = entrant.filter(|entrant| given.holds(&entrant.key)).ok_or(Reject::ContributionForm)?;
    if given.epoch != round.epoch {
        return Err(Reject::ContributionPhase);
    }
    if entrant.barred {
        return Err(Reject::ContributionBarred);
    }
    match (phase, given.part) {
        (Phase::Commit, Part::Commitment(commitment)) => match entrant.commitment {
            Some(known) if known == commitment => return Ok(false),
            Some(_) => return Err(Reject::ContributionTwice),
            None => entrant.commitment = Some(commitment),
        },
        (Phase::Reveal, Part::Secret(secret)) => {
            let commitment = commitment_of(&at.cluster, round.epoch, given.node, &secret);
            if entrant.commitment != Some(commitment) {
                return Err(Reject::ContributionMismatch);
            }
            if entrant.secret.is_some() {
                return Ok(false);
            }
            entrant.secret = Some(secret);
        }
        (Phase::Commit, Part::Secret(_)) | (Phase::Reveal, Part::Commitment(_)) | (Phase::Over, _) => {
            return Err(Reject::ContributionPhase);
        }
    }
    registry::put(view, round_key(), &round);
    Ok(true)
}

/// Ends the epoch whose cut-off is past, and begins the next one. Comes before everything else of a block of the beacon.
/// Returns what is to be mailed: plans of committees that the deal prepares.
pub fn turn(view: &mut View<'_>, at: &BlockContext) -> Vec<(GroupId, Message)> {
    let Some(round) = round(view) else { return Vec::new() };
    if round.phase_at(at.time_ms) != Phase::Over {
        return Vec::new();
    }
    let policy = policy(view);
    end(view, at, round, &policy);
    begin(view, at, &policy);
    let mail = seats::go_on(view);
    if !mail.is_empty() {
        registry::bump_revision(view);
    }
    mail
}

/// Counts what was contributed, makes the seed and decides the deal.
fn end(view: &mut View<'_>, at: &BlockContext, round: Round, policy: &EpochPolicy) {
    let Round { epoch, began_height, began_ms, needed, entrants, .. } = round;
    let previous = registry::seed(view).unwrap_or_default();
    let revealed = entrants.iter().filter(|entrant| entrant.fate() == Fate::Revealed).count();
    let fresh = revealed >= usize::from(needed);
    let seed = if fresh { seed_of(&previous, epoch, &entrants) } else { previous };
    entrants.iter().for_each(|entrant| count(view, epoch, entrant));
    let mut deal = None;
    if fresh {
        registry::put(view, registry::seed_key(), &seed);
        let even = rebalances(view);
        let decided = Deal::decide(view, epoch, policy, even);
        drop_if_there(view, rebalance_key());
        want(view, &decided);
        registry::put(view, deal_key(epoch), &decided);
        deal = Some(decided.hash());
    }
    let record = EpochRecord {
        version: EPOCH_VERSION,
        epoch,
        began_height,
        began_ms,
        ended_height: at.height,
        ended_ms: at.time_ms,
        needed,
        previous,
        seed,
        fresh,
        entrants,
        deal,
    };
    registry::put(view, record_key(epoch), &record);
    let mut kept = records(view);
    let surplus = kept.len().saturating_sub(EPOCHS_KEPT);
    for old in kept.drain(..surplus) {
        registry::remove(view, record_key(old.epoch));
        drop_if_there(view, deal_key(old.epoch));
    }
    view.store(registry::epochs_key(), &EpochHead::of(&kept));
}

fn count(view: &mut View<'_>, epoch: u64, entrant: &Entrant) {
    let node = entrant.node;
    let fresh = Tally { version: EPOCH_VERSION, node, revealed: 0, withheld: 0, absent: 0, withheld_last: 0 };
    let mut tally: Tally = view.load(&tally_key(node)).unwrap_or(fresh);
    match entrant.fate() {
        Fate::Revealed => tally.revealed += 1,
        Fate::Withheld => (tally.withheld, tally.withheld_last) = (tally.withheld + 1, epoch),
        Fate::Absent => tally.absent += 1,
        Fate::Barred => {}
    }
    registry::put(view, tally_key(node), &tally);
}

/// Puts what a deal wants in the place of what earlier ones wanted in the same groups. What is so already, or was not
/// reached while its deal was kept, is wanted no more.
fn want(view: &mut View<'_>, deal: &Deal) {
    let before = targets(view);
    let seated = |group: GroupId| deal.groups.iter().find(|seated| seated.group == group).map(|seated| &seated.members);
    let mut wanted: Vec<Target> = before
        .iter()
        .filter(|target| deal.moves.iter().all(|(group, _)| *group != target.group))
        .filter(|target| deal.epoch.saturating_sub(target.epoch) < EPOCHS_KEPT as u64)
        .filter(|target| seated(target.group).is_some_and(|members| *members != target.members))
        .cloned()
        .collect();
    let new =
        deal.moves.iter().map(|(group, members)| Target { group: *group, epoch: deal.epoch, members: members.clone() });
    wanted.extend(new);
    wanted.sort_by_key(|target| target.group);
    if wanted != before {
        registry::put(view, targets_key(), &wanted);
    }
}
