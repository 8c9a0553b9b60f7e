//! The clients of a run: the SDK with the operations of tier 1's load, and what it is told.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use client::{Client, SubmitEvent, SubmitOptions};
use cluster_sim::workload::Operation;
use ledger::{Submission, TxId};

/// Between two looks for what is due.
const LOOK: Duration = Duration::from_millis(10);
/// Longer than any run: a client goes on until it knows.
const GIVE_UP_AFTER: Duration = Duration::from_secs(3_600);

/// What all clients of a run share with the one who drives it.
pub struct Load {
    pub operations: Rc<Vec<Operation>>,
    /// Milliseconds since the load began; nothing is sent before.
    pub now_ms: Cell<Option<u64>>,
    /// Whether what is to be sent at the very end is due.
    pub late: Cell<bool>,
    started: RefCell<BTreeSet<u32>>,
    finished: RefCell<BTreeSet<u32>>,
    /// What clients were told: the operation, and the event.
    pub told: RefCell<Vec<(u32, SubmitEvent)>>,
}

impl Load {
    pub fn new(operations: Vec<Operation>) -> Rc<Self> {
        Rc::new(Self {
            operations: Rc::new(operations),
            now_ms: Cell::default(),
            late: Cell::default(),
            started: RefCell::default(),
            finished: RefCell::default(),
            told: RefCell::default(),
        })
    }

    /// Operations that have no fate yet, though it is their time.
    pub fn open(&self) -> Vec<u32> {
        let finished = self.finished.borrow();
        let due = self.operations.iter().filter(|operation| !operation.late || self.late.get());
        due.map(|operation| operation.index).filter(|index| !finished.contains(index)).collect()
    }

    /// What the client of this operation sent and was told, for people.
    pub fn story(&self, index: u32) -> String {
        let operation = self.operations.iter().find(|operation| operation.index == index);
        let told = self.told.borrow();
        let told: Vec<_> = told.iter().filter(|(of, _)| *of == index).map(|(_, event)| event).collect();
        format!("{operation:#?} was told {told:#?}")
    }

    /// How many transactions were said to commit by one group, and by several; and how many not to.
    pub fn fates(&self) -> [usize; 3] {
        let mut counts = [0; 3];
        for (_, event) in self.told.borrow().iter() {
            match event {
                SubmitEvent::Receipt(receipt) if receipt.committed() => counts[0] += 1,
                SubmitEvent::Decided { votes, .. } if votes.iter().all(|vote| vote.no.is_none()) => counts[1] += 1,
                SubmitEvent::Receipt(_) | SubmitEvent::Decided { .. } | SubmitEvent::Refused { .. } => counts[2] += 1,
                SubmitEvent::Applied(_) => {}
            }
        }
        counts
    }

    fn due(&self, client: usize, clients: usize) -> Vec<Operation> {
        let Some(now_ms) = self.now_ms.get() else { return Vec::new() };
        let (mut started, finished) = (self.started.borrow_mut(), self.finished.borrow());
        let ready = |operation: &&Operation| {
            let mine = operation.index as usize % clients == client;
            let time = if operation.late { self.late.get() } else { operation.at_ms <= now_ms };
            let turn = operation.after.is_none_or(|before| finished.contains(&before));
            mine && time && turn && !started.contains(&operation.index)
        };
        let ready: Vec<Operation> = self.operations.iter().filter(ready).cloned().collect();
        started.extend(ready.iter().map(|operation| operation.index));
        ready
    }
}

/// What is sent: the signed bytes, with the openings that are not withheld.
fn submission(operation: &Operation) -> Bytes {
    let given = operation.openings.iter().filter(|(group, _)| !operation.handing.withheld.contains(group));
    let mut openings: Vec<_> = given.flat_map(|(_, openings)| openings.iter().cloned()).collect();
    openings.sort_by_key(|opening| opening.slot);
    Bytes::from(Submission::encode(operation.bytes.to_vec(), openings))
}

fn is_last(event: &SubmitEvent) -> bool {
    match event {
        SubmitEvent::Receipt(receipt) => !receipt.committed(),
        SubmitEvent::Decided { votes, .. } => votes.iter().any(|vote| vote.no.is_some()),
        SubmitEvent::Applied(_) | SubmitEvent::Refused { .. } => true,
    }
}

/// One client: sends its share of the load and notes what it is told, for as long as the run lasts.
pub async fn run(load: Rc<Load>, client: Client, place: usize, clients: usize) -> turmoil::Result {
    let options = SubmitOptions { in_flight_max: 4_096, notify_applied: true, give_up_after: GIVE_UP_AFTER };
    let (sender, mut events) = client.submit_stream(options).split();
    // A transaction that is sent twice while it is in flight has one fate for both.
    let mut asking: BTreeMap<TxId, Vec<u32>> = BTreeMap::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {
                for operation in load.due(place, clients) {
                    asking.entry(operation.txid).or_default().push(operation.index);
                    sender.send(vec![submission(&operation)]).await?;
                }
            }
            batch = events.next_events() => {
                for event in batch.ok_or("the submit stream ended")? {
                    let txid = event.txid();
                    let last = is_last(&event);
                    let operations = if last { asking.remove(&txid) } else { asking.get(&txid).cloned() };
                    for index in operations.ok_or("an event of a transaction that nobody sent")? {
                        load.told.borrow_mut().push((index, event.clone()));
                        if last {
                            load.finished.borrow_mut().insert(index);
                        }
                    }
                }
            }
        }
    }
}
