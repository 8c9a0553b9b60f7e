//! Proposers that lie: two values for one round, or values that no honest member votes for.
//!
//! The machine of such a member has made a sound value. Another one takes its place on the way, for some members or
//! for all, and is proposed with the node's own key.

use bytes::Bytes;
use consensus::bft::{Body, Message, Part, Value};
use ledger::ballot::{Ballot, BallotKind};
use ledger::hash::Hash32;
use ledger::ids::{NodeId, TimeMs};
use ledger::limits::BATCH_BYTES_MAX;
use ledger::tx::{ParsedTx, SignedTx, TxBody};
use rand::Rng;
use rand::seq::IndexedRandom;
use shard_node::core::entry::{Command, ENTRY_VERSION, Entry};

use super::{Instead, Liar, Lie, Ruse, Scene};
use crate::wire::Wire;

/// How far ahead a stamp is that is wrong.
const AHEAD_MS: u64 = 3_600_000;
/// What a bad proposer draws from. Signatures are what members have to look at most closely, and what comes to be executed lets it
/// lead on.
const BAD: [Ruse; 15] = [
    Ruse::WrongParent,
    Ruse::WrongIndex,
    Ruse::WrongRound,
    Ruse::OwnHeir,
    Ruse::StrangeHeir,
    Ruse::Garbage,
    Ruse::Oversized,
    Ruse::PastStamp,
    Ruse::FutureStamp,
    Ruse::ForgedTransaction,
    Ruse::ForgedTransaction,
    Ruse::ForgedTransaction,
    Ruse::Overdraft,
    Ruse::Overdraft,
    Ruse::Overdraft,
];

impl Liar {
    /// What the machine says, with another value in the place of its own.
    pub(super) fn propose(&mut self, scene: &Scene<'_>, to: NodeId, message: Message, said: &mut Vec<(NodeId, Wire)>) {
        let both = self.lie == Lie::Equivocator && self.draw(4) == 0;
        let other = match self.lie {
            Lie::Equivocator => scene.odd(to) || both,
            _ => true,
        };
        match self.instead_of(scene, &message).filter(|_| other) {
            Some(instead) => {
                self.deeds.lies += 1;
                if both {
                    said.push((to, scene.wire(message)));
                }
                said.extend(instead.into_iter().map(|message| (to, scene.wire(message))));
            }
            None => said.push((to, scene.wire(message))),
        }
    }

    /// What is said of the other value where the machine speaks of one of its own; nothing where it does not.
    pub(super) fn instead_of(&mut self, scene: &Scene<'_>, message: &Message) -> Option<Vec<Message>> {
        match message {
            Message::Part(part) => {
                self.make_instead(scene, part);
                let instead = self.instead.get(&part.value)?;
                Some(parts(part.index, instead))
            }
            Message::Ballot(signed) => {
                let Ballot { kind: BallotKind::Proposal { valid_round: None }, value: Some(value), .. } = signed.ballot
                else {
                    return None;
                };
                let instead = self.instead.get(&value).filter(|_| signed.ballot.node == scene.node)?;
                let ballot = scene.sign(Ballot { value: Some(instead.id), ..signed.ballot });
                Some(vec![Message::Ballot(ballot)])
            }
            Message::Ballots(..) | Message::Want { .. } => None,
        }
    }

    /// What is said by one that lies in its values, and votes for what it has told.
    pub(super) fn linger(&mut self, scene: &Scene<'_>, to: NodeId, message: Message, said: &mut Vec<(NodeId, Wire)>) {
        if let Some(instead) = self.instead_of(scene, &message) {
            self.deeds.lies += 1;
            return said.extend(instead.into_iter().map(|message| (to, scene.wire(message))));
        }
        let message = match message {
            Message::Ballot(signed) if signed.ballot.node == scene.node => {
                let told = signed.ballot.value.and_then(|value| self.instead.get(&value)).map(|instead| instead.id);
                let ballot = Ballot { value: told.or(signed.ballot.value), ..signed.ballot };
                Message::Ballot(scene.sign(ballot))
            }
            other => other,
        };
        said.push((to, scene.wire(message)));
    }

    /// Gives the other values to those who want them.
    pub(super) fn wanted(&self, scene: &Scene<'_>, from: NodeId, message: &Message, said: &mut Vec<(NodeId, Wire)>) {
        let Message::Want { index, value } = message else { return };
        let found = self.instead.values().find(|instead| instead.id == *value);
        let parts = found.map_or_else(Vec::new, |instead| parts(*index, instead));
        said.extend(parts.into_iter().map(|part| (from, scene.wire(part))));
    }

    /// Makes another value where the part is a whole one that this node has made.
    fn make_instead(&mut self, scene: &Scene<'_>, part: &Part) {
        if self.instead.contains_key(&part.value) || part.data.len() != part.total_bytes as usize {
            return;
        }
        let Ok(value) = borsh::from_slice::<Value>(&part.data) else { return };
        // One time in four this member is honest, and until there is something to overdraw: whoever is caught leads no more.
        let honest = self.lie == Lie::BadProposer && (self.draw(4) == 0 || self.payer(scene).is_none());
        // To split a group over nothing would show in no block.
        let idle = self.lie == Lie::Conspirator && emptied(&value.body) == value.body;
        if honest || idle || value.proposer != scene.node {
            return;
        }
        let other = match self.lie {
            Lie::BadProposer => Some(self.bad(scene, &value)),
            // With the least that may be said of a turn.
            Lie::Lingerer => {
                let lasted_ms = scene.chain.turn.lasted_ms;
                (value.lasted_ms > lasted_ms).then(|| Value { lasted_ms, ..value.clone() })
            }
            Lie::Conspirator => others(scene, &value, emptied(&value.body)).find(|other| other.id() > part.value),
            _ => others(scene, &value, Body::Blank).next(),
        };
        let Some(encoded) = other.map(|other| other.encode()) else { return };
        if self.index != value.index {
            self.index = value.index;
            self.instead.clear();
        }
        self.instead.insert(part.value, Instead { id: Value::id_of(&encoded), encoded });
    }

    /// A value that nobody should vote for, or one with a batch of which nothing may come.
    fn bad(&mut self, scene: &Scene<'_>, value: &Value) -> Value {
        let drawn = BAD.choose(&mut self.rng).copied().unwrap_or(Ruse::FutureStamp);
        let ruse = self.sought.unwrap_or(drawn);
        let transaction = if ruse == Ruse::ForgedTransaction {
            self.forged(scene, value).map(|command| (scene.time, command))
        } else if ruse == Ruse::Overdraft {
            self.overdraft(scene, value)
        } else {
            None
        };
        let with = |body: Body| Value { body, ..value.clone() };
        let batch = |stamp_ms: TimeMs, commands: Vec<Command>| {
            with(Body::Batch(Bytes::from(Entry { version: ENTRY_VERSION, stamp_ms, commands }.encode())))
        };
        if let Some((stamp_ms, command)) = transaction {
            self.did(ruse);
            return batch(stamp_ms, vec![command]);
        }
        // While there is nobody to sign for, it is wrong about the time.
        let unsigned = matches!(ruse, Ruse::ForgedTransaction | Ruse::Overdraft);
        let ruse = if unsigned { Ruse::FutureStamp } else { ruse };
        self.did(ruse);
        match ruse {
            Ruse::WrongParent => Value { previous: Hash32([7; 32]), ..value.clone() },
            Ruse::WrongIndex => Value { index: value.index + 1, ..value.clone() },
            Ruse::WrongRound => Value { round: value.round + 1, ..value.clone() },
            Ruse::OwnHeir => Value { heir: Some(value.proposer), ..value.clone() },
            Ruse::StrangeHeir => Value { heir: Some(NodeId(u32::MAX)), ..value.clone() },
            Ruse::Garbage => with(Body::Batch(Bytes::from_static(b"garbage"))),
            Ruse::Oversized => with(Body::Batch(Bytes::from(vec![0; BATCH_BYTES_MAX + 1]))),
            Ruse::PastStamp => batch(TimeMs(scene.time.0.saturating_sub(AHEAD_MS)), Vec::new()),
            Ruse::FutureStamp
            | Ruse::ForgedTransaction
            | Ruse::Overdraft
            | Ruse::DecidedValue
            | Ruse::Votes
            | Ruse::Polka
            | Ruse::Precommits
            | Ruse::Skip
            | Ruse::Certificate
            | Ruse::ForgedMail
            | Ruse::ForgedAck => batch(TimeMs(scene.time.0 + AHEAD_MS), Vec::new()),
        }
    }

    /// A transaction of the value, or of an earlier one, as one that its account has not signed.
    fn forged(&mut self, scene: &Scene<'_>, value: &Value) -> Option<Command> {
        let recent = scene.log.iter().rev().take(16).filter_map(crate::replica::decided_of);
        let bodies = std::iter::once(value.body.clone()).chain(recent.map(|decided| decided.value.body));
        let mut txs = bodies.flat_map(|body| match body {
            Body::Batch(batch) => Entry::decode(&batch).commands,
            Body::Blank => Vec::new(),
        });
        let tx = txs.find_map(|command| match command {
            Command::Tx(bytes) => ParsedTx::decode(&scene.cluster, &bytes).ok(),
            _ => None,
        })?;
        let body = TxBody { salt: self.rng.random(), ..tx.body };
        let forged = SignedTx { version: 1, body: body.encode(), witnesses: tx.witnesses };
        Some(Command::Tx(forged.encode()))
    }
}

/// Other values that may be voted for as well, with this body.
fn others(scene: &Scene<'_>, value: &Value, body: Body) -> impl Iterator<Item = Value> {
    let proposer = value.proposer;
    let heirs = scene.committee.members.iter().map(|member| Some(member.node));
    // Nobody hands over to itself.
    let heirs = heirs.filter(move |heir| *heir != Some(proposer));
    let all = std::iter::once(None).chain(heirs).map(move |heir| Value { heir, body: body.clone(), ..value.clone() });
    all.filter(move |other| other != value)
}

/// The block of a value without what is in it.
fn emptied(body: &Body) -> Body {
    match body {
        Body::Blank => Body::Blank,
        Body::Batch(batch) => {
            let entry = Entry { commands: Vec::new(), ..Entry::decode(batch) };
            Body::Batch(Bytes::from(entry.encode()))
        }
    }
}

/// A value in parts.
fn parts(index: u64, instead: &Instead) -> Vec<Message> {
    let total_bytes = u32::try_from(instead.encoded.len()).unwrap_or(u32::MAX);
    let chunks = instead.encoded.chunks(consensus::bft::PART_BYTES_MAX).zip(0_u16..);
    let part = |(data, part)| Part { index, value: instead.id, total_bytes, part, data: Bytes::copy_from_slice(data) };
    chunks.map(part).map(Message::Part).collect()
}
