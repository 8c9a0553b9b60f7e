//! Carrying out what the machine wants, in the order in which it wants it.

use bytes::Bytes;
use ledger::hash::Hash32;

use super::decided;
use super::task::{Event, Task, Ticket};
use crate::bft::{Chain, Decided, Fate, Output, Record};
use crate::port::{Committed, SequencerError};
use crate::raft::vouch;

/// So many records are forgotten at a time: forgetting costs a write.
const FORGET_RECORDS: u64 = 64;

impl Task {
    pub(super) fn carry_out(&mut self) {
        for output in std::mem::take(&mut self.out) {
            // A replica that has failed does nothing more, nor one whose engine has handed over.
            if self.failed() || self.over() {
                return;
            }
            self.carry(output);
        }
    }

    fn carry(&mut self, output: Output) {
        match output {
            Output::Persist { first, records } => self.persist(first, &records),
            Output::Send { to, message } => self.outbox.push(to, message),
            Output::Judge { value, batch, agreed } => self.judge(value, batch, agreed),
            Output::Commit { decided, note } if self.installing => self.held = Some((decided, note)),
            Output::Commit { decided, note } => self.commit(*decided, note),
            Output::Forget(upto) => {
                self.forgets.push_back((upto, self.last_index));
            }
            Output::Fetch { node, index } => self.ask(node, index),
            Output::Fate { ticket, fate } => {
                if let Some(ticket) = self.tickets.remove(&ticket) {
                    if matches!(ticket, Ticket::Barrier(_)) {
                        self.blank = false;
                    }
                    self.answer(ticket, fate);
                }
            }
            Output::Standing(standing) => self.standing = standing,
            Output::Evidence(proof) => {
                let (group, node) = (self.ground.config.group, proof.node());
                if self.parts.caught.keep(*proof) {
                    tracing::warn!(%group, %node, "a member has signed two ballots that exclude each other");
                }
            }
            Output::Unremembered(node) => {
                let (group, index) = (self.ground.config.group, self.chain.index + 1);
                tracing::warn!(
                    %group, %node, index,
                    "a member has signed more ballots of one entry than are remembered: those of far rounds are not compared"
                );
            }
            Output::Stop(reason) => self.ground.failure.note(&reason),
        }
    }

    fn persist(&mut self, first: u64, records: &[Record]) {
        let last = (first + records.len() as u64).saturating_sub(1);
        if !self.votes {
            // What does not vote has nothing to remember; and without a mark, records would be nobody's.
            return self.ground.failure.note("a replica that does not vote wanted to write down votes");
        }
        let (life, events, failure) = (self.life, self.shared.events.clone(), self.ground.failure.clone());
        self.wal.append(first, records, move |result| {
            let event = match result {
                Ok(()) => Event::Persisted { life, last },
                Err(error) => {
                    let cause = format!("{}: {error}", error.code());
                    // At once, so that nothing leaves that waits to be sent.
                    failure.note(&cause);
                    Event::Failed(cause)
                }
            };
            drop(events.send(event));
        });
    }

    fn judge(&mut self, value: Hash32, batch: Bytes, agreed: bool) {
        let (life, events, judge) = (self.life, self.shared.events.clone(), self.parts.judge.clone());
        let group = self.ground.config.group;
        self.work.spawn(async move {
            let judged = judge.judge(batch, agreed).await;
            if let Err(reason) = &judged {
                tracing::warn!(%group, %value, %reason, "a proposed batch is not voted for");
            }
            drop(events.send(Event::Judged { life, value, valid: judged.is_ok() }));
        });
    }

    /// Keeps an entry in the log. It is applied when it is durable there (see `apply`): what others may need of this
    /// replica for an entry that its state has, the value and who has precommitted it, is never lost before the state.
    pub(super) fn commit(&mut self, decided: Decided, note: Chain) {
        let index = decided.value.index;
        let position = self.position(index);
        let entry = decided::encode(&position, &decided);
        let events = self.shared.events.clone();
        let appended = self.ground.log.append_stored(index, entry, move |result| {
            let event = match result {
                Ok(()) => Event::Logged(index),
                Err(error) => Event::Failed(error.to_string()),
            };
            drop(events.send(event));
        });
        if let Err(error) = appended {
            return self.ground.failure.note(&error.to_string());
        }
        self.logged(index);
        self.applying = true;
        let committed = Committed { position, payload: decided.value.body.payload(), note: Some(note.encode()) };
        self.logging = Some((committed, note));
    }

    /// The log is durable up to this entry: one that has waited for that is applied.
    pub(super) fn apply(&mut self, durable: u64) {
        if self.failed() {
            return;
        }
        let waiting = self.logging.take_if(|(committed, _)| committed.position.index <= durable);
        let Some((committed, note)) = waiting else { return };
        let (applier, events) = (self.ground.applier.clone(), self.shared.events.clone());
        let snapshots = self.ground.snapshots.clone();
        self.work.spawn(async move {
            let applied = applier.run(move |applier| {
                applier.apply(vec![committed])?;
                snapshots.meetings.reached(applier, &snapshots)?;
                Ok((applier.committee()?, vouch::place(applier)))
            });
            let event = match applied.await {
                Ok((committee, place)) => Event::Applied(note, committee, place),
                Err(error) => Event::Failed(error.to_string()),
            };
            drop(events.send(event));
        });
    }

    /// The log is durable up to this entry: records that were kept for it may go.
    pub(super) fn forget(&mut self, durable: u64) {
        let mut upto = self.forgotten;
        let mut passed = 0;
        for (record, entry) in &self.forgets {
            if *entry > durable {
                break;
            }
            upto = upto.max(*record);
            passed += 1;
        }
        if upto < self.forgotten + FORGET_RECORDS || !self.votes {
            return;
        }
        self.forgets.drain(..passed);
        self.forgotten = upto;
        let (failure, events) = (self.ground.failure.clone(), self.shared.events.clone());
        self.wal.forget(upto, self.parts.start.index, move |result| {
            if let Err(error) = result {
                let cause = format!("{}: {error}", error.code());
                failure.note(&cause);
                drop(events.send(Event::Failed(cause)));
            }
        });
    }

    pub(super) fn answer(&self, ticket: Ticket, fate: Fate) {
        let outcome = match fate {
            Fate::Applied(index) => Ok(index),
            Fate::NotLeader(leader) => Err(SequencerError::NotLeader(leader)),
            Fate::Unknown => Err(SequencerError::Unknown("another value was decided, or another member leads".into())),
            Fate::Full => Err(SequencerError::Refused("too much waits to be ordered already".into())),
        };
        // Whoever does not wait any more does not care.
        match ticket {
            Ticket::Proposal(answer, _room) => drop(answer.send(outcome)),
            Ticket::Barrier(readers) => readers.into_iter().for_each(|reader| drop(reader.send(outcome.clone()))),
        }
    }
}
