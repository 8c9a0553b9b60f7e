//! Whether whoever has handed a transaction over may still be told of it. A channel may have excluded the sender's
//! organisation since, or taken in that its certificate is revoked, and connections that stand outlive both.
//!
//! Owns what was found at the newest block, so that a block that tells many asks the state once for each of them. It owns no
//! rule: those are in `admission`. Groups that are no channels tell everybody.

use hashbrown::HashMap;
use ledger::ids::{GroupId, GroupKind, Height};
use ledger::reject::Reject;
use parking_lot::Mutex;
use proto::v1;

use crate::server::admission::{self, Forwarder};
use crate::server::replica::ReplicaShare;

/// Who has handed a transaction over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sender {
    /// The router or node that did, if the registry knows its organisation.
    pub from: Option<Forwarder>,
    /// For whom, if it said so.
    pub caller: Option<v1::Caller>,
}

/// Who says whether a sender is told.
pub trait Admits: Send + Sync {
    /// The block that is asked.
    fn newest(&self) -> Height;

    /// What a sender is told instead, if it is not admitted.
    fn denies(&self, sender: &Sender) -> Option<v1::Refusal>;
}

/// A channel's own state.
struct OfChannel {
    group: GroupId,
    share: ReplicaShare,
}

impl Admits for OfChannel {
    fn newest(&self) -> Height {
        self.share.stand.lock().applied.height
    }

    fn denies(&self, sender: &Sender) -> Option<v1::Refusal> {
        let judged = admission::hears(&self.share, self.group, sender.from, sender.caller.as_ref());
        judged.err().map(|denial| denial.refusal())
    }
}

/// Says whom a group tells.
pub struct Gate {
    rules: Option<Box<dyn Admits>>,
    known: Mutex<Known>,
}

/// So many senders are known at a time: a router names its callers, and may name ever new ones.
const KNOWN_MAX: usize = 4_096;

/// What was found at a block, of those who were asked about since it is the newest.
#[derive(Default)]
struct Known {
    at: Height,
    refusals: HashMap<Sender, Option<v1::Refusal>>,
}

impl Gate {
    /// Everybody is told.
    #[must_use]
    pub fn open() -> Self {
        Self { rules: None, known: Mutex::default() }
    }

    /// As a group's kind asks for.
    #[must_use]
    pub fn of(group: GroupId, share: &ReplicaShare) -> Self {
        if group.kind() != Some(GroupKind::Channel) {
            return Self::open();
        }
        Self::by(Box::new(OfChannel { group, share: share.clone() }))
    }

    /// By these rules.
    pub(super) fn by(rules: Box<dyn Admits>) -> Self {
        Self { rules: Some(rules), known: Mutex::default() }
    }

    /// Whether everybody is told.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.rules.is_none()
    }

    /// What a sender is told in place of anything else, by the newest state; nothing if it is admitted.
    #[must_use]
    pub fn denies(&self, sender: &Sender) -> Option<v1::Refusal> {
        let rules = self.rules.as_ref()?;
        let mut known = self.known.lock();
        // Read before the state is: what is found is of this block or a later one.
        let newest = rules.newest();
        if known.at != newest {
            *known = Known { at: newest, refusals: HashMap::new() };
        }
        if let Some(refusal) = known.refusals.get(sender) {
            return refusal.clone();
        }
        if known.refusals.len() >= KNOWN_MAX {
            known.refusals.clear();
        }
        let refusal = rules.denies(sender);
        known.refusals.insert(sender.clone(), refusal.clone());
        refusal
    }

    /// As [`Gate::denies`], of what was taken from the sender: it may have been executed, and the sender is not told.
    #[must_use]
    pub fn ends(&self, sender: &Sender) -> Option<v1::Refusal> {
        let refusal = self.denies(sender)?;
        Some(match refusal.reject() {
            Some(Reject::ChannelRefused | Reject::AccessDenied) => {
                v1::Refusal::of(Reject::ChannelUntold).detail(refusal.detail)
            }
            _ => refusal,
        })
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
