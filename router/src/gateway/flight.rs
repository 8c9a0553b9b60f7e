//! One transaction without a fate: what is handed to which group, what is known of it, who waits.
//!
//! State only: [`super::flights`] sends, keeps time and tells. A transaction that one group decides
//! costs nothing beyond its entry; one that several groups vote on has a [`Ballot`].

use std::sync::Arc;

use bytes::Bytes;
use ledger::tx::ParsedTx;
use ledger::{GroupId, Layout, NodeId, OrgId, Submission, TxId};
use proto::{edge, v1};
use tokio::time::Instant;

use super::ballot::{Ballot, Voter};
use super::outbox::Outbox;
use super::shares::{HeldTx, Shares};
use super::view::ClusterView;
use crate::plan::{Part, Plan};

/// Different witnesses over one body that may wait behind each other.
const RIVALS_MAX: usize = 4;

/// A decoded and planned transaction of a client.
pub(super) struct Planned {
    pub(super) txid: TxId,
    pub(super) plan: Plan,
    pub(super) bytes: Bytes,
    /// For whom it counts.
    pub(super) org: Option<OrgId>,
    /// Who sends it, if it goes to a channel.
    pub(super) caller: Option<Arc<v1::Caller>>,
}

pub(super) struct Waiter {
    pub(super) outbox: Arc<Outbox>,
    pub(super) applied: bool,
}

/// Other bytes for the same txid: another set of witnesses over the same body. They are tried after
/// the ones before were refused, so that nobody can spoil a transaction by sending it with a bad
/// signature first.
pub(super) struct Rival {
    tx: HeldTx,
    caller: Option<Arc<v1::Caller>>,
    plan: Plan,
    pub(super) waiters: Vec<Waiter>,
}

/// The transaction on its way to one group.
pub(super) struct HandOver {
    pub(super) group: GroupId,
    /// Where it is; `None` while it waits for a leader.
    pub(super) node: Option<NodeId>,
    pub(super) sent_at: Instant,
    /// Told that the accounts lie elsewhere: the groups are found anew.
    pub(super) replan: bool,
    /// It was sent, and not answered for certain: a link was lost, a leader was silent or lost its
    /// leadership. What was sent may have had its effect, or may yet.
    pub(super) open: bool,
}

impl HandOver {
    pub(super) fn to(group: GroupId, now: Instant) -> Self {
        Self { group, node: None, sent_at: now, replan: false, open: false }
    }

    /// Whether an earlier attempt may have had its effect: it was not answered for certain, or not yet.
    pub(super) fn unanswered(&self) -> bool {
        self.open || self.node.is_some()
    }

    /// It goes to another group, or to the same one anew.
    pub(super) fn moves(&mut self, group: GroupId, now: Instant) {
        *self = Self { open: self.unanswered(), ..Self::to(group, now) };
    }
}

/// Who decides.
pub(super) enum Course {
    /// One group, whose receipt is the fate.
    One {
        hand_over: HandOver,
        /// Known, and only `applied` is missing.
        receipt: Option<Bytes>,
    },
    /// Several groups by their votes.
    Several(Box<Ballot>),
}

impl Course {
    pub(super) fn of(plan: Plan, now: Instant) -> Self {
        match plan {
            Plan::One(group) => Self::One { hand_over: HandOver::to(group, now), receipt: None },
            Plan::Several(parts) => Self::Several(Box::new(Ballot::new(parts, now))),
        }
    }
}

pub(super) struct Flight {
    /// As it came, with all openings that came.
    tx: HeldTx,
    /// Who sent it first, if it goes to a channel.
    pub(super) caller: Option<Arc<v1::Caller>>,
    pub(super) course: Course,
    pub(super) deadline: Instant,
    pub(super) notify_applied: bool,
    pub(super) waiters: Vec<Waiter>,
    pub(super) rivals: Vec<Rival>,
}

/// What became of somebody else who sends the same transaction.
pub(super) enum Joined {
    /// Will be told; `resend` when the leaders have to hear that `applied` is wanted.
    Waits { resend: bool },
    /// Will be told, and brought openings that these groups do not have yet.
    Opens(Vec<GroupId>),
    /// The fate was known.
    Told,
    /// Too many rivals; this one is not taken.
    Crowded(TxId),
}

impl Flight {
    pub(super) fn new(held: &mut Shares, tx: Planned, waiter: Waiter, now: Instant, deadline: Instant) -> Self {
        Self {
            tx: held.hold(tx.org, &tx.bytes),
            caller: tx.caller,
            course: Course::of(tx.plan, now),
            deadline,
            notify_applied: waiter.applied,
            waiters: vec![waiter],
            rivals: Vec::new(),
        }
    }

    /// As it came, with all openings that came.
    pub(super) fn bytes(&self) -> &Bytes {
        self.tx.bytes()
    }

    fn voters(&self) -> (Option<&HandOver>, &[Voter]) {
        match &self.course {
            Course::One { hand_over, .. } => (Some(hand_over), &[]),
            Course::Several(ballot) => (None, &ballot.voters),
        }
    }

    /// The groups it goes to.
    pub(super) fn groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        let (one, several) = self.voters();
        one.map(|hand_over| hand_over.group).into_iter().chain(several.iter().map(|voter| voter.hand_over.group))
    }

    /// All that is on its way, except to groups that have nothing left to say.
    pub(super) fn hand_overs(&mut self) -> impl Iterator<Item = &mut HandOver> {
        let (one, several) = match &mut self.course {
            Course::One { hand_over, .. } => (Some(hand_over), &mut [][..]),
            Course::Several(ballot) => (None, ballot.voters.as_mut_slice()),
        };
        let several = several.iter_mut().filter(|voter| !voter.applied).map(|voter| &mut voter.hand_over);
        one.into_iter().chain(several)
    }

    /// What is on its way to this group; `None` when it does not go there (any more).
    pub(super) fn hand_over(&mut self, group: GroupId) -> Option<&mut HandOver> {
        match &mut self.course {
            Course::One { hand_over, .. } => Some(hand_over).filter(|one| one.group == group),
            Course::Several(ballot) => ballot.voter(group).map(|voter| &mut voter.hand_over),
        }
    }

    /// Notes that it goes to a node of this group, and returns what that group is given; `None` when
    /// there is nothing to send.
    pub(super) fn sent(&mut self, group: GroupId, node: NodeId, now: Instant) -> Option<Bytes> {
        match &mut self.course {
            Course::One { hand_over, .. } if hand_over.group == group => {
                (hand_over.node, hand_over.sent_at) = (Some(node), now);
            }
            Course::One { .. } => return None,
            Course::Several(ballot) => ballot.sent(group, node, now)?,
        }
        Some(self.given(group).clone())
    }

    /// What a group is given.
    pub(super) fn given(&self, group: GroupId) -> &Bytes {
        match &self.course {
            Course::One { .. } => self.tx.bytes(),
            Course::Several(ballot) => ballot.own(group).unwrap_or(self.tx.bytes()),
        }
    }

    /// The event that tells the fate, once it is known.
    pub(super) fn fate(&self, txid: &TxId) -> Option<v1::SubmitEvent> {
        match &self.course {
            Course::One { receipt, .. } => {
                receipt.as_ref().map(|receipt| v1::SubmitEvent::receipt(edge::bytes_of(txid), receipt.clone()))
            }
            Course::Several(ballot) => {
                ballot.decided().map(|votes| v1::SubmitEvent::decided(edge::bytes_of(txid), votes.to_vec()))
            }
        }
    }

    /// Queues the fate for everybody who waits. Returns whether somebody goes on waiting for `applied`.
    pub(super) fn tell(
        &mut self,
        event: &v1::SubmitEvent,
        committed: bool,
        mut touch: impl FnMut(&Arc<Outbox>),
    ) -> bool {
        let more = self.notify_applied && committed;
        let rivals = std::mem::take(&mut self.rivals);
        self.waiters.extend(rivals.into_iter().flat_map(|rival| rival.waiters));
        for waiter in &self.waiters {
            waiter.outbox.push(event.clone(), !(more && waiter.applied));
            touch(&waiter.outbox);
        }
        self.waiters.retain(|waiter| more && waiter.applied);
        !self.waiters.is_empty()
    }

    pub(super) fn waits(&self, outbox: &Arc<Outbox>) -> bool {
        let rivals = self.rivals.iter().flat_map(|rival| &rival.waiters);
        self.waiters.iter().chain(rivals).any(|waiter| Arc::ptr_eq(&waiter.outbox, outbox))
    }

    /// The same stream sends it again: one fate, but it may now want `applied`, or bring openings.
    pub(super) fn again(&mut self, view: &ClusterView, tx: &Planned, outbox: &Arc<Outbox>, applied: bool) -> Joined {
        for waiter in &mut self.waiters {
            if Arc::ptr_eq(&waiter.outbox, outbox) {
                waiter.applied |= applied;
            }
        }
        let opens = self.open_more(view, tx);
        let resend = applied && !std::mem::replace(&mut self.notify_applied, true);
        opens.filter(|_| !resend).map_or(Joined::Waits { resend }, Joined::Opens)
    }

    /// Somebody else sends it. `heavy` when nothing more may be held for that one.
    pub(super) fn join(
        &mut self,
        view: &ClusterView,
        tx: Planned,
        waiter: Waiter,
        held: &mut Shares,
        heavy: bool,
    ) -> Joined {
        if let Some(event) = self.fate(&tx.txid) {
            waiter.outbox.push(event, !waiter.applied);
            if waiter.applied {
                self.waiters.push(waiter);
            }
            return Joined::Told;
        }
        let opens = self.open_more(view, &tx);
        // What a channel says to one client is not for another one, also when they send the same bytes. Who brings
        // an opening is another party of the same transaction, and both go on together.
        if opens.is_some() || (self.caller == tx.caller && *self.tx.bytes() == tx.bytes) {
            let resend = waiter.applied && !std::mem::replace(&mut self.notify_applied, true);
            self.waiters.push(waiter);
            return opens.filter(|_| !resend).map_or(Joined::Waits { resend }, Joined::Opens);
        }
        if let Some(rival) =
            self.rivals.iter_mut().find(|rival| *rival.tx.bytes() == tx.bytes && rival.caller == tx.caller)
        {
            rival.waiters.push(waiter);
        } else if self.rivals.len() < RIVALS_MAX && !heavy {
            self.rivals.push(Rival {
                tx: held.hold(tx.org, &tx.bytes),
                caller: tx.caller,
                plan: tx.plan,
                waiters: vec![waiter],
            });
        } else {
            return Joined::Crowded(tx.txid);
        }
        Joined::Waits { resend: false }
    }

    /// Takes openings that somebody else brings for the same signed transaction, and the witnesses of other ledgers:
    /// each party may hand over only its own. Returns the groups that have to be given more; `None` when it is not the
    /// same transaction.
    fn open_more(&mut self, view: &ClusterView, tx: &Planned) -> Option<Vec<GroupId>> {
        let Course::Several(ballot) = &mut self.course else { return None };
        if *self.tx.bytes() == tx.bytes {
            return Some(Vec::new());
        }
        let bytes: Bytes = Submission::together(self.tx.bytes(), &tx.bytes)?.into();
        let opened = ParsedTx::decode_sent(&view.cluster, &bytes).ok()?;
        let Ok(Plan::Several(parts)) = view.plan(&opened) else { return None };
        let more = ballot.give(parts, self.tx.bytes());
        self.tx.replace(bytes);
        Some(more)
    }

    /// The next rival takes the place of what was refused. Returns whether there is one.
    pub(super) fn next_rival(&mut self, now: Instant, deadline: Instant) -> bool {
        if self.rivals.is_empty() {
            return false;
        }
        let next = self.rivals.remove(0);
        let open: Vec<GroupId> = self.hand_overs().filter(|one| one.open).map(|one| one.group).collect();
        self.tx = next.tx;
        self.caller = next.caller;
        self.course = Course::of(next.plan, now);
        // The txid is the same: what was open about it stays open.
        self.hand_overs().for_each(|one| one.open = open.contains(&one.group));
        self.waiters = next.waiters;
        self.notify_applied = self.waiters.iter().any(|waiter| waiter.applied);
        self.deadline = deadline;
        true
    }

    /// Goes by a new plan. What groups that stay have said still counts, and what those that have ended have voted.
    /// Returns the groups that it did not go to before.
    pub(super) fn adopt(&mut self, plan: Plan, layout: &Layout, now: Instant) -> Vec<GroupId> {
        let before: Vec<GroupId> = self.groups().collect();
        let parts = match plan {
            Plan::One(group) => vec![Part { group, own: None }],
            Plan::Several(parts) => parts,
        };
        match (&mut self.course, &parts[..]) {
            // The receipt is known. When its credits are applied, the heir of whoever mailed them says.
            (Course::One { hand_over, receipt: Some(_) }, _) => hand_over.moves(layout.heir(hand_over.group), now),
            (Course::One { hand_over, receipt: None }, [part]) => hand_over.moves(part.group, now),
            (Course::One { hand_over, receipt: None }, _) => {
                let open = hand_over.unanswered();
                let mut ballot = Ballot::new(parts, now);
                ballot.voters.iter_mut().for_each(|voter| voter.hand_over.open = open);
                self.course = Course::Several(Box::new(ballot));
            }
            (Course::Several(ballot), _) => ballot.adopt(parts, layout, now),
        }
        self.groups().filter(|group| !before.contains(group)).collect()
    }
}
