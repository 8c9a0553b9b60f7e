//! Vouching: what other members say of a snapshot, before a replica makes it its state.
//!
//! A snapshot is lent by one member, and in a Byzantine group that one may lie. What can be checked without the others,
//! the applier checks ([`crate::port::Applier::prepare`]): the leaves have the root that the last header names, and the
//! headers continue this replica's own chain, with a certificate wherever the committee changes; so the committee that
//! signs the last header is known for certain. Two things are left that nothing in the snapshot proves: the last header
//! itself, which names the next committee, since its certificate is usually younger than the snapshot; and the place in
//! the order of the engine, which no header names. That is the position, the note beside it (in the Byzantine engine the
//! last value, whose turn it is, and who has missed one), and where the engine in force began.
//!
//! Both are told by the members of that committee, in one hash of all of it ([`place_of`]), so that nobody can put
//! parts of two places together. More of them than may lie have to tell it alike, the lender among them ([`judge`]): then
//! one of these is honest, has executed that header itself, and stood at that entry with this note. That is what the group
//! trusts its members for anyway, and says as much as a certificate of the header. Certificates alone would not do: one of
//! the value that was decided there proves the value, but not the turn, which follows from every value since the engine
//! began; and to wait for that of the header would be to wait for a question to peers that is asked elsewhere.
//!
//! Replicas remember their places for a while (`bft::group::places`), so the others are asked as soon as a lender has said
//! where its snapshot stands, before any of it is read, and a snapshot is wanted that is not older than what they
//! remember ([`remembered`]).
//!
//! | The last header is signed under | From the next entry on | Who vouches, and for what |
//! |---|---|---|
//! | Raft | Raft | nobody: a lender does not lie there |
//! | Raft | Byzantine | the committee in force, for the place |
//! | Byzantine | Byzantine | those who sign the header, for header and place; or where that hands over and is certified, the committee in force, for the place |
//! | Byzantine | Raft | those who sign the header, for the hand-over: where Raft goes from there is Raft's |
//!
//! Right behind a change of members, those who sign the header may have left, and the entries that make no block, which are
//! all that an idle group decides, are decided by others from then on. So the next committee may vouch as well. It follows
//! from the header alone, so the header has to be certain without the others: its certificate, which every member keeps for
//! good where it hands over, has to have come with the snapshot and to be of those who sign it. Then more of the next
//! committee than may lie say as much as more of the one before. Where both tell and do not agree, one of them has more liars
//! than it bears, and nothing is taken.
//!
//! What no root of a header covers (docs/adr/0003) follows from none of this: two states at the same place may differ there,
//! if one of them was altered. So where a Byzantine engine goes on, the same members have to tell one hash of all of it, of
//! snapshots that they have made behind the very entry ([`super::meet`], [`attest`]). Where Raft does, the lender is taken at
//! its word for it.
//!
//! Never does: believe an answer by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};
use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt};
use ledger::committee::{Committee, Engine};
use ledger::hash::{Hash32, tagged};
use ledger::ids::NodeId;
use tokio::time::{Instant, timeout_at};

use super::network::{Peer, Sender};
use super::wire;
#[cfg(feature = "bft")]
use crate::port::Applier;
use crate::port::{AppliedState, Candidate, Order, any_replica, node_of};

/// So long a question for a place waits until the replica has got there.
pub(crate) const WAIT: Duration = Duration::from_millis(500);
/// So long [`tip`] waits for the slower ones: in less time than a busy group takes for the entries that a meeting may be ahead.
const SLOW: Duration = Duration::from_millis(200);

/// A question for the place of a replica behind an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct Ask {
    /// Index of the entry.
    pub(crate) index: u64,
}

/// Its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct Told {
    /// The first entry behind which the replica remembers its place.
    pub(crate) from: u64,
    /// The last one.
    pub(crate) upto: u64,
    /// The place that was asked for, by [`place_of`].
    pub(crate) place: Option<Hash32>,
}

#[cfg(feature = "bft")]
impl Told {
    /// Whether who has told this has in its state what a stint begins behind, if it was asked for that entry: it stands there or
    /// further on, or runs raft and is about to go over.
    fn has_gone_on(&self, stint: u64) -> bool {
        self.upto >= stint || (self.upto == 0 && self.place.is_none())
    }
}

/// Names the place of a state, the same on all replicas that do not lie:
/// `sha256("seamark/place/v1" ‖ borsh((engine, after, anchor), applied, header))`. Under Raft, whose members nobody has to
/// doubt, it is where Raft began: `sha256("seamark/place/v1" ‖ borsh((engine, after, anchor)))`.
pub(crate) fn place_of(applied: &AppliedState, order: &Order, header: &Hash32) -> Hash32 {
    let begun = (order.engine, order.after, order.anchor);
    let written = match order.engine {
        Engine::Raft => borsh::to_vec(&begun),
        Engine::Bft => borsh::to_vec(&(begun, applied, header)),
    };
    let written = written.expect("writing to memory does not fail");
    tagged(b"seamark/place/v1", &[&written])
}

/// The place of a replica's state; `None` for a state without headers.
#[cfg(feature = "bft")]
pub(crate) fn place(applier: &dyn Applier) -> Option<Hash32> {
    Some(place_of(&applier.applied(), &applier.order()?, &applier.header()?))
}

/// What a replica answers that runs Raft, in this order.
pub(crate) fn told_under_raft(order: Option<Order>, ask: Ask) -> Told {
    // A replica is about to go over whose state is in another order already.
    let order = order.filter(|order| order.engine == Engine::Raft);
    let begun = order.and_then(|order| order.after).map_or(0, |after| after.index);
    let reached = order.filter(|_| ask.index >= begun);
    let place = reached.map(|order| place_of(&AppliedState::default(), &order, &order.anchor));
    Told { from: begun, upto: begun, place }
}

/// Why a snapshot is not gone by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Doubt {
    /// More members than may lie say otherwise: the lender lies.
    #[error("of its committee {otherwise} say that their state was another one there")]
    Contradicted {
        /// So many.
        otherwise: usize,
    },
    /// Engine, committee and last header do not go together: the lender lies.
    #[error("the engine that goes on behind it does not follow from its last header")]
    Incoherent,
    /// Too few members have said anything.
    #[error("of its committee {alike} say that their state was the same there, and {needed} have to")]
    TooFew {
        /// So many, the lender among them if it is a member.
        alike: usize,
        /// As many as have an honest one among them.
        needed: usize,
    },
    /// More members than may lie have something else in their states there, where no header covers it: the lender lies.
    #[error("of its committee {otherwise} say that what no header covers was something else there")]
    Altered {
        /// So many.
        otherwise: usize,
    },
    /// Too few members have told what is in their states there that no header covers.
    #[error("of its committee {alike} say that what no header covers was the same there, and {needed} have to")]
    Unattested {
        /// So many, the lender among them if it is a member.
        alike: usize,
        /// As many as have an honest one among them.
        needed: usize,
    },
}

impl Doubt {
    /// The stable code.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Contradicted { .. } => "snapshot_contradicted",
            Self::Incoherent => "snapshot_incoherent",
            Self::TooFew { .. } => "snapshot_unconfirmed",
            Self::Altered { .. } => "snapshot_altered",
            Self::Unattested { .. } => "snapshot_unattested",
        }
    }

    /// Whether the lender has lied. Where too few have answered, it need not have.
    pub(crate) fn lie(self) -> bool {
        match self {
            Self::Contradicted { .. } | Self::Incoherent | Self::Altered { .. } => true,
            Self::TooFew { .. } | Self::Unattested { .. } => false,
        }
    }
}

/// Whose word a snapshot needs: that of any one of these committees. None where the lender's is enough.
fn witnesses(candidate: &Candidate) -> Vec<&Committee> {
    let Candidate { order, signers, committee, certified, .. } = candidate;
    match (signers.engine, order.engine) {
        (Engine::Raft, Engine::Raft) => Vec::new(),
        (Engine::Raft, Engine::Bft) => vec![committee],
        (Engine::Bft, Engine::Bft) if *certified && committee != signers => vec![signers, committee],
        (Engine::Bft, Engine::Raft | Engine::Bft) => vec![signers],
    }
}

/// Judges a snapshot that has passed the applier's checks by what the others have told. The lender's word is the snapshot,
/// and counts once. Answers of nodes that are no members do not count, whoever they are.
pub(crate) fn judge(candidate: &Candidate, lender: NodeId, told: &BTreeMap<NodeId, Hash32>) -> Result<(), Doubt> {
    let Candidate { applied, order, header, signers, committee, .. } = candidate;
    // An engine begins behind the block that put its committee in force.
    let begins = order.after.is_some() && order.anchor == *header;
    if committee.engine != order.engine || (signers.engine != order.engine && !begins) {
        return Err(Doubt::Incoherent);
    }
    weigh_all(candidate, place_of(applied, order, header), lender, told)
}

/// Judges what is in a snapshot that no root of its last header covers, by the hashes that others have told of the same in
/// their own states behind the same entry. Under Raft, from the next entry on, the lender's word is enough.
pub(crate) fn attest(candidate: &Candidate, lender: NodeId, said: &BTreeMap<NodeId, Hash32>) -> Result<(), Doubt> {
    match candidate.order.engine {
        Engine::Raft => Ok(()),
        Engine::Bft => weigh_all(candidate, candidate.uncovered, lender, said).map_err(|doubt| match doubt {
            Doubt::Contradicted { otherwise } => Doubt::Altered { otherwise },
            Doubt::TooFew { alike, needed } => Doubt::Unattested { alike, needed },
            doubt @ (Doubt::Incoherent | Doubt::Altered { .. } | Doubt::Unattested { .. }) => doubt,
        }),
    }
}

/// What members have told of a hash, by each committee whose word is enough.
fn weigh_all(
    candidate: &Candidate,
    hash: Hash32,
    lender: NodeId,
    told: &BTreeMap<NodeId, Hash32>,
) -> Result<(), Doubt> {
    let words = witnesses(candidate).into_iter().map(|witnesses| weigh(witnesses, hash, lender, told));
    let words: Vec<Result<(), Doubt>> = words.collect();
    let lie = words.iter().find(|word| word.is_err_and(Doubt::lie));
    let enough = words.iter().find(|word| word.is_ok());
    lie.or(enough).or(words.first()).copied().unwrap_or(Ok(()))
}

/// What the members of one committee have told of a place, or of what is in a state there.
fn weigh(witnesses: &Committee, place: Hash32, lender: NodeId, told: &BTreeMap<NodeId, Hash32>) -> Result<(), Doubt> {
    let tolerated = witnesses.engine.tolerated(witnesses.members.len());
    let (mut alike, mut otherwise) = (0, 0);
    for member in &witnesses.members {
        let said = if member.node == lender { Some(&place) } else { told.get(&member.node) };
        match said {
            Some(said) if *said == place => alike += 1,
            Some(_) => otherwise += 1,
            None => {}
        }
    }
    if alike > tolerated {
        return Ok(());
    }
    let lies = otherwise > tolerated;
    Err(if lies { Doubt::Contradicted { otherwise } } else { Doubt::TooFew { alike, needed: tolerated + 1 } })
}

/// As [`judge`]. Members who have not been heard are asked before it is too few: the committee of the snapshot may have
/// others than those that this replica knew before.
pub(crate) async fn confirm(
    sender: &Arc<Sender>,
    candidate: &Candidate,
    lender: NodeId,
    mut told: BTreeMap<NodeId, Hash32>,
) -> Result<(), Doubt> {
    let judged = judge(candidate, lender, &told);
    let Err(Doubt::TooFew { .. }) = judged else { return judged };
    let index = candidate.applied.position.map_or(0, |position| position.index);
    let own = node_of(sender.own_id);
    let members = witnesses(candidate).into_iter().flat_map(|witnesses| &witnesses.members).map(|member| member.node);
    let unheard: BTreeSet<NodeId> = members.filter(|node| Some(*node) != own && !told.contains_key(node)).collect();
    let unheard: Vec<NodeId> = unheard.into_iter().collect();
    told.extend(places(sender, &unheard, lender, index).await);
    judge(candidate, lender, &told)
}

/// What these nodes, but for the lender, tell of their place behind an entry.
pub(crate) async fn places(
    sender: &Arc<Sender>,
    nodes: &[NodeId],
    lender: NodeId,
    index: u64,
) -> BTreeMap<NodeId, Hash32> {
    let others: Vec<NodeId> = nodes.iter().copied().filter(|node| *node != lender).collect();
    let told = ask(sender, &others, index).await;
    told.into_iter().filter_map(|(node, told)| Some((node, told.place?))).collect()
}

/// The first entry that a snapshot has to reach for these nodes, so many of which may lie, to be able to vouch for it; 0
/// where none of them says.
pub(crate) async fn remembered(sender: &Arc<Sender>, nodes: &[NodeId], tolerated: usize) -> u64 {
    let told: Vec<Told> = ask(sender, nodes, 0).await.into_iter().map(|(_, told)| told).collect();
    reach(&told, tolerated)
}

/// The last entry that these nodes, so many of which may lie, have been at for certain; 0 where none of them says. When one of
/// those who do not lie has answered, the others have [`SLOW`]: what was told before one that holds its answer back has come
/// is of an entry that a busy group has long passed.
pub(crate) async fn tip(sender: &Arc<Sender>, nodes: &[NodeId], tolerated: usize) -> u64 {
    let mut asking: FuturesUnordered<_> = nodes.iter().map(|node| ask_one(sender, *node, 0)).collect();
    let (mut told, mut until): (Vec<Told>, Option<Instant>) = (Vec::new(), None);
    loop {
        let answer = match until {
            None => asking.next().await,
            Some(until) => timeout_at(until, asking.next()).await.ok().flatten(),
        };
        let Some(answer) = answer else { break };
        told.extend(answer.map(|(_, told)| told));
        if until.is_none() && told.len() > tolerated {
            until = Some(Instant::now() + SLOW);
        }
    }
    supported(&told, tolerated)
}

/// The last entry that one of those who do not lie has been at.
fn supported(told: &[Told], tolerated: usize) -> u64 {
    let mut reached: Vec<u64> = told.iter().map(|told| told.upto).collect();
    reached.sort_unstable();
    reached.into_iter().rev().nth(tolerated).unwrap_or(0)
}

/// What the one that remembers least remembers, unless it claims to be where no honest one has been yet.
fn reach(told: &[Told], tolerated: usize) -> u64 {
    let remembered = told.iter().map(|told| told.from).max().unwrap_or(0);
    remembered.min(supported(told, tolerated))
}

/// How many of these nodes have in their states what a stint begins behind, as far as they say so within this time.
#[cfg(feature = "bft")]
pub(crate) async fn gone_on(sender: &Arc<Sender>, nodes: &[NodeId], stint: u64, patience: Duration) -> usize {
    let asking = nodes.iter().map(|node| async move {
        let peer = Peer::to(sender.clone(), any_replica(*node), *node);
        let told = peer.call::<Told>(wire::BFT_PLACE, peer.request(&Ask { index: stint }), patience).await;
        told.is_ok_and(|told| told.has_gone_on(stint))
    });
    join_all(asking).await.into_iter().filter(|gone| *gone).count()
}

/// Asks nodes for their places, all at once. Who is silent or does not know is not waited for longer than a call takes.
async fn ask(sender: &Arc<Sender>, nodes: &[NodeId], index: u64) -> Vec<(NodeId, Told)> {
    let asking = nodes.iter().map(|node| ask_one(sender, *node, index));
    join_all(asking).await.into_iter().flatten().collect()
}

async fn ask_one(sender: &Arc<Sender>, node: NodeId, index: u64) -> Option<(NodeId, Told)> {
    let peer = Peer::to(sender.clone(), any_replica(node), node);
    let request = peer.request(&Ask { index });
    let told = peer.call::<Told>(wire::BFT_PLACE, request, peer.call_timeout() + WAIT).await;
    Some((node, told.ok()?))
}

#[cfg(test)]
#[path = "vouch_tests.rs"]
mod tests;
