//! Secrecy: what a hidden slot hides leaves its group neither in a vote nor in any other mail. A vote tells another
//! ledger nothing of who has signed, nor of whom a hidden move is about, nor why it is a NO.

use cross_shard::commit::Decision;
use cross_shard::{Message, Vote};
use ledger::auth::Authorisation;
use ledger::ids::GroupId;
use ledger::reject::Reject;

use crate::workload::Operation;

use super::{Checker, Facts, Moment, RawReplica, Seen};

/// Needs no books.
pub struct Secrecy;

impl Checker for Secrecy {
    fn name(&self) -> &'static str {
        "secrecy"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        let (Seen::Block(block), true) = (seen, first) else { return };
        for (dest, seq, message) in &block.mail {
            let Message::Vote(vote) = message else { continue };
            let Some((_, operation)) = facts.tx(&vote.txid) else { continue };
            let bytes = message.encode();
            for (_, salt) in operation.hidden.iter().flatten() {
                if bytes.windows(32).any(|window| window == salt.0) {
                    found.push(format!("message {seq} from {} to {dest} opens a slot of {}", block.group, vote.txid));
                }
            }
            if block.group.ledger() != dest.ledger() {
                let told = abroad(vote, &bytes, block.group, operation);
                found.extend(told.map(|what| format!("message {seq} from {} to {dest} tells {what}", block.group)));
            }
        }
    }

    fn audit(&mut self, _: &Facts, _: Moment, _: &[RawReplica<'_>], _: &mut Vec<String>) {}
}

/// What a vote for another ledger tells that is none of its business.
fn abroad(vote: &Vote, bytes: &[u8], from: GroupId, operation: &Operation) -> Option<String> {
    let has = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    if let Decision::No(reason) = vote.decision
        && reason != Reject::RefusedElsewhere
    {
        return Some(format!("why {from} says no to {}: {reason:?}", vote.txid));
    }
    for witness in operation.witnesses.values().flatten() {
        let keys = match &witness.auth {
            Authorisation::Single(key) => std::slice::from_ref(key),
            Authorisation::Multi { keys, .. } => keys.as_slice(),
        };
        if keys.iter().any(|key| has(&key.0)) {
            return Some(format!("who has signed {}", vote.txid));
        }
    }
    let hidden = operation.moves.iter().zip(&operation.hidden).filter(|(_, hidden)| hidden.is_some());
    let mut accounts = hidden.flat_map(|(mv, _)| mv.accounts());
    accounts.find(|account| has(&account.0)).map(|account| format!("that {} is about {account}", vote.txid))
}
