//! The clients and their router: where a transaction goes, whom to ask, when to ask again.
//!
//! A receipt is the acknowledgement. Silence, "not leader" and every retryable refusal lead to the
//! same transaction being sent again, with the same id.

use std::collections::BTreeMap;
use std::rc::Rc;

use ledger::genesis::Genesis;
use ledger::ids::{ClusterId, GroupId, NodeId};
use ledger::layout::Layout;
use ledger::receipt::Receipt;
use ledger::reject::Reject;
use ledger::tx::ParsedTx;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use router::Plan;

use crate::wire::{Reply, Wire};
use crate::workload::{Operation, Purpose};

const ANSWER_MS_MIN: u64 = 250;
const ANSWER_MS_MAX: u64 = 600;
const BACK_OFF_MS_MAX: u64 = 80;

/// What became of an operation, for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has a receipt.
    Acknowledged(Receipt),
    /// It was refused without one.
    Refused(Reject),
}

/// The one group that decides a transaction.
fn one_group(layout: &Layout, tx: &ParsedTx) -> Result<GroupId, Reject> {
    match router::plan(layout, tx)? {
        Plan::One(group) => Ok(group),
        Plan::Several(_) => Err(Reject::MultiVoter),
    }
}

/// What the client side wants done.
#[derive(Debug)]
pub enum Act {
    /// Send to a node.
    Send(NodeId, Wire),
    /// Call [`Clients::wake`] after this many milliseconds.
    Wake(u32, u64, u64),
    /// An operation has its fate.
    Settled(u32, Fate),
}

#[derive(Clone, Debug, Default)]
struct Progress {
    started: bool,
    /// Only the latest wake-up counts.
    token: u64,
    attempts: u64,
    fate: Option<Fate>,
}

/// All clients of a run.
pub struct Clients {
    rng: ChaCha8Rng,
    cluster: ClusterId,
    genesis: Rc<Genesis>,
    operations: Rc<Vec<Operation>>,
    progress: Vec<Progress>,
    leaders: BTreeMap<GroupId, NodeId>,
    open: usize,
    /// Times something was sent again.
    pub retries: u64,
}

impl Clients {
    /// Clients that have sent nothing yet.
    #[must_use]
    pub fn new(rng: ChaCha8Rng, genesis: Rc<Genesis>, operations: Rc<Vec<Operation>>) -> Self {
        let progress = vec![Progress::default(); operations.len()];
        let open = operations.len();
        Self {
            rng,
            cluster: genesis.cluster_id(),
            genesis,
            operations,
            progress,
            leaders: BTreeMap::new(),
            open,
            retries: 0,
        }
    }

    /// Operations without a fate.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open
    }

    /// What became of an operation so far.
    #[must_use]
    pub fn fate(&self, index: u32) -> Option<&Fate> {
        self.progress.get(index as usize)?.fate.as_ref()
    }

    /// Operations without a fate, for messages to people.
    #[must_use]
    pub fn stuck(&self) -> Vec<u32> {
        let open = |operation: &&Operation| self.fate(operation.index).is_none();
        self.operations.iter().filter(open).map(|operation| operation.index).collect()
    }

    /// Starts everything that waits for nothing.
    pub fn start(&mut self, acts: &mut Vec<Act>) {
        let operations = Rc::clone(&self.operations);
        for operation in operations.iter().filter(|operation| operation.after.is_none()) {
            self.begin(operation, 0, acts);
        }
    }

    fn begin(&mut self, operation: &Operation, now_ms: u64, acts: &mut Vec<Act>) {
        let progress = &mut self.progress[operation.index as usize];
        if !progress.started {
            progress.started = true;
            self.wake_in(operation.index, operation.at_ms.saturating_sub(now_ms), acts);
        }
    }

    fn wake_in(&mut self, index: u32, delay_ms: u64, acts: &mut Vec<Act>) {
        let progress = &mut self.progress[index as usize];
        progress.token += 1;
        acts.push(Act::Wake(index, progress.token, delay_ms));
    }

    /// Sends an operation, unless its fate is known or something newer is due.
    pub fn wake(&mut self, now_ms: u64, index: u32, token: u64, acts: &mut Vec<Act>) {
        let operations = Rc::clone(&self.operations);
        let (Some(operation), Some(progress)) = (operations.get(index as usize), self.progress.get_mut(index as usize))
        else {
            return;
        };
        if progress.fate.is_some() || progress.token != token {
            return;
        }
        progress.attempts += 1;
        let again = progress.attempts > 1;
        self.retries += u64::from(again);
        let cluster = self.cluster;
        let planned = ParsedTx::decode(&cluster, &operation.bytes).and_then(|tx| one_group(&self.genesis.layout, &tx));
        let group = match planned {
            Ok(group) => group,
            Err(reject) => return self.settle(now_ms, index, Fate::Refused(reject), acts),
        };
        let node = self.believed_leader(group, again);
        let tx = operation.bytes.to_vec();
        acts.push(Act::Send(node, Wire::Submit { request: index, group, tx }));
        let patience = self.rng.random_range(ANSWER_MS_MIN..ANSWER_MS_MAX);
        self.wake_in(index, patience, acts);
    }

    /// The node that is asked first; after silence it may be any of the group.
    fn believed_leader(&mut self, group: GroupId, again: bool) -> NodeId {
        let members = self.genesis.committee(group).map_or(&[][..], |committee| &committee.members[..]);
        let any =
            |rng: &mut ChaCha8Rng| members.get(rng.random_range(0..members.len().max(1))).map(|member| member.node);
        let believed = self.leaders.get(&group).copied();
        let chosen = if again && self.rng.random() { None } else { believed };
        chosen.or_else(|| any(&mut self.rng)).unwrap_or_default()
    }

    /// An answer arrived.
    pub fn answer(&mut self, now_ms: u64, from: NodeId, index: u32, reply: Reply, acts: &mut Vec<Act>) {
        let operations = Rc::clone(&self.operations);
        let Some(operation) = operations.get(index as usize) else { return };
        if self.fate(index).is_some() {
            // An acknowledgement that comes twice must say the same, so the checkers see it too.
            if let Reply::Receipt(receipt) = reply {
                acts.push(Act::Settled(index, Fate::Acknowledged(receipt)));
            }
            return;
        }
        let group =
            ParsedTx::decode(&self.cluster, &operation.bytes).and_then(|tx| one_group(&self.genesis.layout, &tx));
        match reply {
            Reply::Receipt(receipt) => {
                self.leaders.insert(receipt.group, from);
                self.settle(now_ms, index, Fate::Acknowledged(receipt), acts);
            }
            Reply::NotLeader(hint) => {
                if let Ok(group) = group {
                    match hint.filter(|hint| *hint != from) {
                        Some(hint) => self.leaders.insert(group, hint),
                        None => self.leaders.remove(&group),
                    };
                }
                self.back_off(index, acts);
            }
            Reply::Refused(reject) if reject.retryable() => self.back_off(index, acts),
            // The definition of the asset is on its way: it was acknowledged by the beacon.
            Reply::Refused(Reject::UnknownAsset)
                if matches!(operation.moves.first(), Some(ledger::Move::Mint { .. })) =>
            {
                self.back_off(index, acts);
            }
            Reply::Refused(reject) => self.settle(now_ms, index, Fate::Refused(reject), acts),
        }
    }

    fn back_off(&mut self, index: u32, acts: &mut Vec<Act>) {
        let delay = self.rng.random_range(10..BACK_OFF_MS_MAX);
        self.wake_in(index, delay, acts);
    }

    fn settle(&mut self, now_ms: u64, index: u32, fate: Fate, acts: &mut Vec<Act>) {
        self.progress[index as usize].fate = Some(fate.clone());
        self.open -= 1;
        acts.push(Act::Settled(index, fate));
        let operations = Rc::clone(&self.operations);
        for next in operations.iter().filter(|operation| operation.after == Some(index)) {
            self.begin(next, now_ms, acts);
        }
    }

    /// Distinct transactions, and how many of them were committed and refused.
    #[must_use]
    pub fn totals(&self) -> (u64, u64, u64) {
        let mut totals = (0, 0, 0);
        for operation in self.operations.iter().filter(|operation| operation.purpose != Purpose::Again) {
            totals.0 += 1;
            match self.fate(operation.index) {
                Some(Fate::Acknowledged(receipt)) if receipt.committed() => totals.1 += 1,
                Some(Fate::Acknowledged(_) | Fate::Refused(_)) => totals.2 += 1,
                None => {}
            }
        }
        totals
    }
}
