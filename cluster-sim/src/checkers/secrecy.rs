//! Secrecy: what a hidden slot hides leaves its group neither in a vote nor in any other mail. A vote tells another
//! ledger nothing of who has signed, nor of whom a hidden move is about, nor why it is a NO.

use std::collections::BTreeSet;

use cross_shard::commit::Decision;
use cross_shard::{Message, Vote};
use ledger::auth::Authorisation;
use ledger::ids::GroupId;
use ledger::reject::Reject;

use crate::workload::Operation;

use super::{Checker, Facts, Moment, RawReplica, Seen};

/// Keeps no books, but for what it looks for.
#[derive(Default)]
pub struct Secrecy {
    /// What hides the moves of a run, each known to one group.
    salts: Option<BTreeSet<[u8; 32]>>,
}

/// Everything that hides a move.
fn salts(facts: &Facts) -> BTreeSet<[u8; 32]> {
    let hidden = facts.operations.iter().flat_map(|operation| operation.hidden.iter().flatten());
    hidden.map(|(_, salt)| salt.0).collect()
}

impl Checker for Secrecy {
    fn name(&self) -> &'static str {
        "secrecy"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        let (Seen::Block(block), true) = (seen, first) else { return };
        for (dest, seq, message) in &block.mail {
            let bytes = message.encode();
            let Message::Vote(vote) = message else {
                let salts = self.salts.get_or_insert_with(|| salts(facts));
                if bytes.windows(32).any(|window| salts.contains(window)) {
                    found.push(format!("message {seq} from {} to {dest} opens a slot", block.group));
                }
                continue;
            };
            let Some((_, operation)) = facts.tx(&vote.txid) else { continue };
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::rc::Rc;

    use bytes::Bytes;
    use cross_shard::RegistryUpdate;
    use cross_shard::notice::NOTICE_VERSION;
    use ledger::hash::Hash32;
    use ledger::ids::{OrgId, TimeMs, TxId};

    use super::super::testing::Bench;
    use super::*;
    use crate::workload::{Handing, Purpose};

    #[test]
    fn what_hides_a_move_is_found_in_mail_of_any_kind() {
        let (salt, other) = (Hash32([7; 32]), Hash32([8; 32]));
        let operation = Operation {
            index: 0,
            purpose: Purpose::Pay,
            txid: TxId(Hash32([1; 32])),
            bytes: Bytes::new(),
            openings: BTreeMap::new(),
            witnesses: BTreeMap::new(),
            moves: Vec::new(),
            ledgers: Vec::new(),
            hidden: vec![None, Some((GroupId::shard(0), salt))],
            valid_until: TimeMs(0),
            at_ms: 0,
            after: None,
            awaits: None,
            late: false,
            handing: Handing::default(),
        };
        let tells = |what| {
            let revoked = vec![(OrgId(0), what)];
            let update = RegistryUpdate { version: NOTICE_VERSION, orgs: Vec::new(), nodes: Vec::new(), revoked };
            vec![(GroupId::shard(1), Message::RegistryUpdate(update))]
        };
        let mut bench = Bench::new(Secrecy::default());
        bench.facts.operations = Rc::new(vec![operation]);
        bench.beacon(1, &[], tells(other));
        assert_eq!(bench.found(), Vec::<String>::new());
        bench.beacon(2, &[], tells(salt));
        let found = bench.found();
        assert!(matches!(&found[..], [one] if one.contains("opens a slot")), "{found:?}");
    }
}
