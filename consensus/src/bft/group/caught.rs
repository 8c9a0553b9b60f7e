//! What members were caught at and the state does not have yet: two ballots that exclude each other.
//!
//! Owns the open proofs of a replica, from when its engine has found them until its host says that the state has them, in
//! memory and on the disk: a liar may not lie again, and a process may end at any time. They lie in the slot of the
//! records' log that is a vote's elsewhere, so that they are sealed and deleted with the records, and forgetting
//! records does not touch them. They outlive the stint that they were found in. Never judges a proof: the engine has
//! checked both signatures, and whoever is shown it checks them again.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::ballot::Equivocation;
use ledger::hash::Hash32;
use ledger::ids::{ClusterId, GroupId, NodeId};
use ledger::limits::EVIDENCE_PER_MEMBER_MAX;
use parking_lot::Mutex;
use storage::{LogStore, StorageError};
use tokio::sync::watch;

use super::wal::Wal;
use crate::raft::StartError;

/// Proofs that wait for the state. The first ones say enough.
const OPEN_MAX: usize = 64;
/// Proofs in state that are remembered, so that one that is found again is not kept again.
const SETTLED_MAX: usize = 1024;

/// Whom a proof is about: a member of a committee.
type About = (Hash32, NodeId);

fn about(proof: &Equivocation) -> About {
    (proof.first.ballot.committee, proof.node())
}

#[derive(Default)]
struct Kept {
    /// By name.
    open: BTreeMap<Hash32, Equivocation>,
    settled: BTreeMap<Hash32, About>,
}

impl Kept {
    fn settled_of(&self, about: About) -> usize {
        self.settled.values().filter(|other| **other == about).count()
    }

    /// Keeps a proof, unless it is known or there are as many as say anything. Returns whether it does.
    fn keep(&mut self, proof: Equivocation) -> bool {
        let (id, of) = (proof.id(), about(&proof));
        let open_of = self.open.values().filter(|other| about(other) == of).count();
        let known = self.open.contains_key(&id) || self.settled.contains_key(&id);
        let enough = open_of + self.settled_of(of) >= EVIDENCE_PER_MEMBER_MAX || self.open.len() >= OPEN_MAX;
        if known || enough {
            return false;
        }
        self.open.insert(id, proof);
        true
    }

    /// The state has these. Returns whether something is open no more.
    fn settle(&mut self, proofs: &[Equivocation]) -> bool {
        self.settled.extend(proofs.iter().map(|proof| (proof.id(), about(proof))));
        let before = self.open.len();
        let mut open = std::mem::take(&mut self.open);
        // The state keeps no more of a member than this, so the rest never gets there.
        open.retain(|id, proof| {
            !self.settled.contains_key(id) && self.settled_of(about(proof)) < EVIDENCE_PER_MEMBER_MAX
        });
        self.open = open;
        while self.settled.len() > SETTLED_MAX {
            self.settled.pop_first();
        }
        self.open.len() < before
    }
}

struct Inner {
    wal: Wal,
    kept: Mutex<Kept>,
    open: watch::Sender<BTreeMap<Hash32, Equivocation>>,
}

/// The open proofs of one replica. Clones share them.
#[derive(Clone)]
pub struct Caught {
    inner: Arc<Inner>,
}

impl Caught {
    /// Reads what was open when the replica was stopped, from the log of its records.
    ///
    /// # Errors
    /// [`StartError::Wal`] when it is another replica's, or not what was written.
    pub fn open(
        store: Arc<dyn LogStore>,
        cluster: ClusterId,
        (group, replica): (GroupId, u64),
    ) -> Result<Self, StartError> {
        let wal = Wal::new(store, cluster, group, replica);
        let found = wal.caught().map_err(|error| StartError::Wal { group, detail: error.to_string() })?;
        let open: BTreeMap<Hash32, Equivocation> = found.into_iter().map(|proof| (proof.id(), proof)).collect();
        let kept = Kept { open: open.clone(), settled: BTreeMap::new() };
        Ok(Self { inner: Arc::new(Inner { wal, kept: Mutex::new(kept), open: watch::Sender::new(open) }) })
    }

    /// What is open, by name, now and as it changes: whoever comes late misses nothing.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<BTreeMap<Hash32, Equivocation>> {
        self.inner.open.subscribe()
    }

    /// Keeps a proof until the state has it. Returns whether it is a new one.
    pub(super) fn keep(&self, proof: Equivocation) -> bool {
        let mut kept = self.inner.kept.lock();
        let new = kept.keep(proof);
        if new {
            self.changed(&kept);
        }
        new
    }

    /// The state has these proofs, whoever has found them.
    pub fn settle(&self, proofs: &[Equivocation]) {
        let mut kept = self.inner.kept.lock();
        if kept.settle(proofs) {
            self.changed(&kept);
        }
    }

    /// Called under the lock, so that the last change is the last one on the disk, too.
    fn changed(&self, kept: &Kept) {
        let proofs: Vec<Equivocation> = kept.open.values().copied().collect();
        self.inner.wal.save_caught(&proofs, |result| {
            // Nothing follows from a proof that is only in memory, and a log of records that has failed stops the
            // replica at its next vote.
            match result {
                Ok(()) | Err(StorageError::Closed { .. }) => {}
                Err(error) => tracing::error!(%error, "proofs of double votes could not be kept"),
            }
        });
        self.inner.open.send_replace(kept.open.clone());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ledger::ballot::{BALLOT_VERSION, Ballot, BallotKind};
    use ledger::crypto::SecretKey;
    use ledger::ids::Incarnation;
    use storage::MemLog;

    use super::*;

    const CLUSTER: ClusterId = ClusterId(Hash32([1; 32]));
    const REPLICA: (GroupId, u64) = (GroupId::shard(0), 7);

    fn twice(node: u32, round: u32) -> Equivocation {
        let vote = |value: u8| {
            let ballot = Ballot {
                version: BALLOT_VERSION,
                cluster: CLUSTER,
                group: REPLICA.0,
                incarnation: Incarnation(0),
                committee: Hash32([2; 32]),
                index: 9,
                round,
                kind: BallotKind::Prevote,
                value: Some(Hash32([value; 32])),
                node: NodeId(node),
            };
            ballot.sign(&SecretKey::derive(b"node", &node.to_be_bytes()))
        };
        Equivocation::of(vote(1), vote(2)).unwrap()
    }

    fn open(log: &MemLog) -> Caught {
        Caught::open(Arc::new(log.clone()), CLUSTER, REPLICA).unwrap()
    }

    fn shown(caught: &Caught) -> Vec<Equivocation> {
        let mut shown: Vec<Equivocation> = caught.follow().borrow().values().copied().collect();
        shown.sort();
        shown
    }

    #[test]
    fn a_proof_is_open_until_the_state_has_it_whatever_happens_to_the_process() {
        let log = MemLog::manual("wal");
        let caught = open(&log);
        assert!(caught.keep(twice(2, 0)));
        assert!(!caught.keep(twice(2, 0)), "once");
        log.flush(usize::MAX);
        assert!(caught.keep(twice(3, 0)));
        // The power goes before the second one is durable.
        log.crash(0);
        let caught = open(&log);
        assert_eq!(shown(&caught), [twice(2, 0)]);
        caught.settle(&[twice(2, 0), twice(4, 0)]);
        assert!(shown(&caught).is_empty());
        assert!(!caught.keep(twice(2, 0)), "the state has it");
        assert!(caught.keep(twice(2, 1)), "another one of the same member");
        log.flush(usize::MAX);
        assert_eq!(shown(&open(&log)), [twice(2, 1)]);
    }

    #[test]
    fn of_one_member_no_more_are_kept_than_the_state_takes() {
        let caught = open(&MemLog::immediate("wal"));
        let most = EVIDENCE_PER_MEMBER_MAX as u32;
        for round in 0..most {
            assert!(caught.keep(twice(2, round)));
        }
        assert!(!caught.keep(twice(2, most)));
        assert!(caught.keep(twice(3, 0)));
        // Others have found as many, and those are what the state has.
        let theirs: Vec<Equivocation> = (most..2 * most).map(|round| twice(2, round)).collect();
        caught.settle(&theirs[1..]);
        assert_eq!(shown(&caught).len(), EVIDENCE_PER_MEMBER_MAX + 1);
        caught.settle(&theirs[..1]);
        assert_eq!(shown(&caught), [twice(3, 0)]);
        assert!(!caught.keep(twice(2, 2 * most)));
    }

    #[test]
    fn however_many_lie_what_is_kept_is_bounded() {
        let caught = open(&MemLog::immediate("wal"));
        let kept = (1..=2 * OPEN_MAX as u32).filter(|node| caught.keep(twice(*node, 0))).count();
        assert_eq!((kept, shown(&caught).len()), (OPEN_MAX, OPEN_MAX));
    }

    #[test]
    fn what_another_replica_has_kept_or_was_altered_is_refused() {
        let log = MemLog::immediate("wal");
        assert!(open(&log).keep(twice(2, 0)));
        let other = Caught::open(Arc::new(log.clone()), CLUSTER, (REPLICA.0, 8));
        assert_eq!(other.err().unwrap().code(), "bft_wal");
        let mut bytes = log.read_vote().unwrap().unwrap().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        log.save_vote(bytes.into(), Box::new(|done| done.unwrap()));
        let altered = Caught::open(Arc::new(log), CLUSTER, REPLICA);
        assert_eq!(altered.err().unwrap().code(), "bft_wal");
    }
}
