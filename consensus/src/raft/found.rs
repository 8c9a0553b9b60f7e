//! Founding and joining: what a replica whose log is empty does before it takes part.
//!
//! Such a replica cannot tell whether it is new or has lost what it promised. It takes part only when it
//! knows that nobody can rely on a promise of its former self, which takes two steps:
//!
//! 1. *Unsure*: it asks all others. When each of them says that it has not begun, nothing that this
//!    replica may have promised before can have counted, since no other replica has ever voted or
//!    acknowledged. It writes an empty vote into its log, durably, and is *sure*: whatever it promises from
//!    now on stands behind that vote, and a log that is lost loses both.
//! 2. *Sure*: it begins when all others are sure as well, or when any has begun.
//!
//! So when one has begun, every one was sure: a replica that is unsure and hears of one that has begun
//! has lost its log, and stays away. No majority is asked, because a majority without the one that holds
//! a committed entry would not do, and because whoever is left out of a founding could never be told from
//! one that has lost its log.
//!
//! A replica that *joins* a group later is another case: nobody counts on it before the voters have become
//! ones that name it. The voters of before commit that, so a majority of them knows, and it is enough to ask
//! one. Joins are counted, so that the question can be put without names: is there a voter that has joined
//! with this replica or after it? See docs/adr/0017.
//!
//! A third case asks nobody: a group that begins out of one whose log lies in the same files. Who has those files has what
//! it promised in either group, so an empty log beside that of the parent was always empty. The host says so.

use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use futures::future::join_all;
use ledger::ids::NodeId;
use parking_lot::Mutex;

use super::codec;
use super::group::HandleError;
use super::log::Log;
use super::network::{Peer, Sender};
use super::types::{LeaderId, Vote};
use super::wire;
use crate::port::{any_replica, join_of, node_of};

/// Where a replica stands in the founding of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum Standing {
    /// Its log is empty, and it does not know whether it always was.
    Unsure,
    /// It has promised nothing so far, and knows it.
    Sure,
    /// It takes part, or has taken part.
    Begun,
}

/// Why a replica does not take part yet, or never will.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoundError {
    /// Others have to be heard first.
    #[error("a group takes its first step when every member is there: {}", said(.0))]
    Waiting(Vec<(NodeId, String)>),
    /// The others have begun, and this replica was among them.
    #[error(
        "this replica's log is empty, and node {0} says that the group has begun, which it did not without this replica: its log was lost, and it would vote against what it promised. Bring the node's data folder back as it was when it ran last, or drain the node, so that another one takes its seat"
    )]
    Lost(NodeId),
    /// A majority of the voters has to be heard first.
    #[error("a replica joins when a majority of the {} voters has said that it is new: {}", .of, said(.answers))]
    Joining {
        /// How many voters there are.
        of: usize,
        /// Those that have not said so, and what they said.
        answers: Vec<(NodeId, String)>,
    },
    /// The group has gone on with a committee that this replica came with, or a later one.
    #[error(
        "this replica's log is empty, and node {0} says that the group's voters are those it came with, or later ones: its log was lost, and it would vote against what it promised. Bring the node's data folder back as it was when it ran last, or drain the node, so that another one takes its seat"
    )]
    Overtaken(NodeId),
    /// What it knows cannot be written.
    #[error("{0}")]
    Log(String),
}

impl FoundError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Waiting(_) => "group_founding",
            Self::Joining { .. } => "group_joining",
            Self::Lost(_) | Self::Overtaken(_) => "replica_log_lost",
            Self::Log(_) => "raft_storage",
        }
    }
}

fn said(answers: &[(NodeId, String)]) -> String {
    let answers: Vec<String> = answers.iter().map(|(node, what)| format!("node {node} {what}")).collect();
    answers.join("; ")
}

/// Tells others where this replica stands, before it takes part.
#[derive(Clone)]
pub struct Founding {
    own_id: u64,
    standing: Arc<Mutex<Standing>>,
}

impl Founding {
    pub(crate) fn new(own_id: u64, standing: Standing) -> Self {
        Self { own_id, standing: Arc::new(Mutex::new(standing)) }
    }

    /// Where it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        *self.standing.lock()
    }

    pub(crate) fn rise(&self, to: Standing) {
        *self.standing.lock() = to;
    }

    /// Answers a request that the replica on node `from` sent, as [`super::RaftGroup::handle`] does once
    /// the replica runs. Nothing but the question where it stands is answered.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn handle(&self, from: NodeId, kind: u8, payload: Bytes) -> Result<Bytes, HandleError> {
        let request = wire::open_request(payload).map_err(|error| HandleError::Malformed(error.to_string()))?;
        if request.to != self.own_id {
            return Err(HandleError::WrongReplica { own: self.own_id, to: request.to });
        }
        if node_of(request.from) != Some(from) {
            return Err(HandleError::WrongSender { node: from, claimed: request.from });
        }
        match kind {
            wire::STANDING => Ok(wire::reply(&self.standing())),
            _ => Err(HandleError::Founding),
        }
    }
}

/// The vote of a replica that has not voted, as openraft starts from when it finds none.
pub(crate) fn no_vote(own_id: u64) -> Vote {
    Vote { leader_id: LeaderId { term: 0, node_id: own_id }, committed: false }
}

/// Where a replica with this log stands.
pub(crate) fn standing(log: &Log) -> std::io::Result<Standing> {
    // One that only follows has entries, and does not know what it promised.
    if let Some(stint) = log.stint()? {
        return Ok(if stint.votes { Standing::Begun } else { Standing::Unsure });
    }
    if !log.is_empty()? {
        return Ok(Standing::Begun);
    }
    match log.vote()? {
        None => Ok(Standing::Unsure),
        Some(vote) if vote.leader_id.term == 0 && !vote.committed => Ok(Standing::Sure),
        Some(_) => Ok(Standing::Begun),
    }
}

/// Writes down that this replica has promised nothing so far. One that only follows until now goes on to say
/// so: its engine knows when it may vote.
async fn be_sure(founding: &Founding, log: &Log) -> Result<(), FoundError> {
    if log.stint().map_err(|error| FoundError::Log(error.to_string()))?.is_some() {
        founding.rise(Standing::Sure);
        return Ok(());
    }
    let vote = codec::encode_vote(&no_vote(founding.own_id));
    log.save_vote_durably(vote).await.map_err(|error| FoundError::Log(error.to_string()))?;
    founding.rise(Standing::Sure);
    Ok(())
}

/// Lets a replica take part that has promised nothing, by the word of its host: it knows so without asking anybody. Nobody
/// waits until that is durable: it is so before anything that the replica promises, and where it is lost, nothing was promised,
/// and its host says the same again.
pub(crate) fn begin(founding: &Founding, log: &Log) -> Result<(), FoundError> {
    if founding.standing() == Standing::Unsure {
        let unusable = |error: std::io::Error| FoundError::Log(error.to_string());
        // One that only follows until now goes on to say so, as in `be_sure`.
        if log.stint().map_err(unusable)?.is_none() {
            log.note_vote(codec::encode_vote(&no_vote(founding.own_id))).map_err(unusable)?;
        }
    }
    founding.rise(Standing::Begun);
    Ok(())
}

/// One round of asking all others; to be called again while it says [`FoundError::Waiting`].
pub(crate) async fn found(
    founding: &Founding,
    sender: &Arc<Sender>,
    log: &Log,
    others: &[(u64, NodeId)],
) -> Result<(), FoundError> {
    if founding.standing() == Standing::Begun {
        return Ok(());
    }
    let asking = others.iter().map(|(id, node)| async move {
        let peer = Peer::to(sender.clone(), *id, *node);
        let request = peer.request(&());
        (*node, peer.call::<Standing>(wire::STANDING, request, peer.call_timeout()).await)
    });
    let answers = join_all(asking).await;
    let begun = answers.iter().find(|(_, answer)| *answer == Ok(Standing::Begun)).map(|(node, _)| *node);
    let unheard = answers.iter().filter_map(|(node, answer)| match answer {
        Ok(_) => None,
        Err(error) => Some((*node, format!("has not been heard: {error}"))),
    });
    let unheard: Vec<_> = unheard.collect();
    if founding.standing() == Standing::Unsure {
        if let Some(node) = begun {
            return Err(FoundError::Lost(node));
        }
        if !unheard.is_empty() {
            return Err(FoundError::Waiting(unheard));
        }
        be_sure(founding, log).await?;
    }
    let unsure = answers.iter().filter(|(_, answer)| *answer == Ok(Standing::Unsure));
    let mut missing = unheard;
    missing.extend(unsure.map(|(node, _)| (*node, "has not heard all others".to_owned())));
    if begun.is_none() && !missing.is_empty() {
        return Err(FoundError::Waiting(missing));
    }
    founding.rise(Standing::Begun);
    Ok(())
}

/// One round of asking the voters that a replica is about to join; to be called again while it says
/// [`FoundError::Joining`].
///
/// `voters` are the nodes of the committee before the one that the replica comes with. Whatever replica
/// of such a node answers, it has joined with or after the one that asks, or it is a voter that helps to
/// commit what comes after; so the answer does not depend on its id.
pub(crate) async fn join(
    founding: &Founding,
    sender: &Arc<Sender>,
    log: &Log,
    voters: &[NodeId],
) -> Result<(), FoundError> {
    if founding.standing() == Standing::Unsure {
        let asking = voters.iter().map(|node| async move {
            let peer = Peer::to(sender.clone(), any_replica(*node), *node);
            let request = peer.request(&());
            (*node, peer.call::<u16>(wire::LATEST_JOIN, request, peer.call_timeout()).await)
        });
        let answers = join_all(asking).await;
        let own = join_of(founding.own_id);
        if let Some((node, _)) = answers.iter().find(|(_, answer)| answer.as_ref().is_ok_and(|latest| *latest >= own)) {
            return Err(FoundError::Overtaken(*node));
        }
        let unheard: Vec<_> = answers
            .into_iter()
            .filter_map(|(node, answer)| answer.err().map(|error| (node, format!("has not been heard: {error}"))))
            .collect();
        if voters.len() - unheard.len() <= voters.len() / 2 {
            return Err(FoundError::Joining { of: voters.len(), answers: unheard });
        }
        be_sure(founding, log).await?;
    }
    founding.rise(Standing::Begun);
    Ok(())
}
