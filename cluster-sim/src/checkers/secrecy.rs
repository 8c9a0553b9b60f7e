//! Secrecy: what a hidden slot hides leaves its group neither in a vote nor in any other mail.

use cross_shard::Message;

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
        }
    }

    fn audit(&mut self, _: &Facts, _: Moment, _: &[RawReplica<'_>], _: &mut Vec<String>) {}
}
