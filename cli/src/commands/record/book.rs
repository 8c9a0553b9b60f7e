//! The records and grants of one account, as its past tells them. Pure; the answer to who may do what is
//! the ledger's own, over the leaves that the same moves made there.

use std::collections::BTreeMap;

use bytes::Bytes;
use ledger::record::{Access, GrantChange, GrantLog, GrantTerms, Grantee, Record, access};
use ledger::view::{ReadFault, StateReader, View};
use ledger::{Address, Hash32, Move, TimeMs, TxId, schema};
use proto::views::HistoryChange;

use super::super::past::Step;

/// A record, grant or revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) at_ms: TimeMs,
    pub(super) txid: TxId,
    pub(super) mv: Move,
}

/// What is known of an account's records.
#[derive(Debug)]
pub(super) struct Book {
    owner: Address,
    /// By record; oldest first.
    entries: BTreeMap<Hash32, Vec<Entry>>,
    /// The hashes that were recorded, oldest first.
    recorded: Vec<Hash32>,
    /// Time of the last entry.
    latest: TimeMs,
    /// Transactions that changed the account's records in a way that cannot be seen.
    unseen: Vec<TxId>,
}

/// Whether a line of history is about records.
pub(super) fn about_records(change: &HistoryChange) -> bool {
    matches!(change, HistoryChange::Recorded | HistoryChange::Granted(_) | HistoryChange::Revoked(_))
}

/// The record that a move of this owner is about.
pub(super) fn record_of(mv: &Move, by: &Address) -> Option<Hash32> {
    match mv {
        Move::Record { owner, hash, .. } if owner == by => Some(*hash),
        Move::Grant { owner, record, .. } | Move::Revoke { owner, record, .. } if owner == by => Some(*record),
        _ => None,
    }
}

/// Whether a move makes this record.
pub(super) fn makes(mv: &Move, by: &Address, record: &Hash32) -> bool {
    matches!(mv, Move::Record { owner, hash, .. } if owner == by && hash == record)
}

impl Book {
    /// From the account's past, newest first.
    pub(super) fn of(owner: Address, steps: &[Step]) -> Self {
        let own = |mv: &Move| record_of(mv, &owner).is_some();
        let mut book = Self::empty(owner);
        for step in steps.iter().rev() {
            for (_, mv) in step.moves(own) {
                book.add(Entry { at_ms: step.time_ms, txid: step.txid, mv: mv.clone() });
            }
            if step.hides(own) {
                book.unseen.push(step.txid);
            }
        }
        book
    }

    fn empty(owner: Address) -> Self {
        let (entries, recorded, unseen) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { owner, entries, recorded, latest: TimeMs::default(), unseen }
    }

    /// Adds what came after all that is there.
    fn add(&mut self, entry: Entry) {
        let Some(record) = record_of(&entry.mv, &self.owner) else { return };
        if matches!(entry.mv, Move::Record { .. }) {
            self.recorded.push(record);
        }
        self.latest = self.latest.max(entry.at_ms);
        self.entries.entry(record).or_default().push(entry);
    }

    /// The hashes that were recorded, oldest first.
    pub(super) fn records(&self) -> &[Hash32] {
        &self.recorded
    }

    /// All that happened to a record, oldest first.
    pub(super) fn about(&self, record: &Hash32) -> &[Entry] {
        self.entries.get(record).map(Vec::as_slice).unwrap_or_default()
    }

    /// Everybody whom a record was ever granted to, in order.
    pub(super) fn parties(&self, record: &Hash32) -> Vec<Grantee> {
        let granted = |entry: &Entry| match &entry.mv {
            Move::Grant { to, .. } => Some(*to),
            _ => None,
        };
        let mut parties: Vec<Grantee> = self.about(record).iter().filter_map(granted).collect();
        parties.sort_unstable();
        parties.dedup();
        parties
    }

    /// The record, if the account made it.
    pub(super) fn record(&self, record: &Hash32) -> Option<Record> {
        self.view(record).load(&schema::record(&self.owner, record))
    }

    /// What a party may do with a record at a time, as far as can be seen. The record itself may be one that
    /// cannot be seen here.
    pub(super) fn access(&self, hash: &Hash32, record: &Record, who: &Grantee, at: TimeMs) -> Access {
        let mut view = self.view(hash);
        view.store(schema::record(&self.owner, hash), record);
        access(&mut view, &self.owner, hash, who, at)
    }

    /// The time of the last entry.
    pub(super) fn latest(&self) -> TimeMs {
        self.latest
    }

    /// Transactions that cannot be seen.
    pub(super) fn unseen(&self) -> &[TxId] {
        &self.unseen
    }

    /// The leaves that the moves about a record made in the ledger.
    fn view(&self, record: &Hash32) -> View<'static> {
        let mut view = View::new(&Nothing);
        for Entry { at_ms, txid, mv } in self.about(record) {
            let change = |terms: Option<GrantTerms>| GrantChange { at_ms: *at_ms, txid: *txid, terms };
            match mv {
                Move::Record { hash, metadata, .. } => {
                    let (at_ms, txid) = (*at_ms, *txid);
                    let record = Record { version: 1, metadata: metadata.clone(), at_ms, txid, grantees: 0 };
                    view.store(schema::record(&self.owner, hash), &record);
                }
                Move::Grant { record, to, terms, .. } => {
                    self.post(&mut view, record, to, change(Some(terms.clone())));
                }
                Move::Revoke { record, from, .. } => self.post(&mut view, record, from, change(None)),
                _ => {}
            }
        }
        view
    }

    fn post(&self, view: &mut View<'static>, record: &Hash32, who: &Grantee, change: GrantChange) {
        let key = schema::grant(&self.owner, record, who);
        let known: Option<GrantLog> = view.load(&key);
        let record_key = schema::record(&self.owner, record);
        if known.is_none()
            && let Some(mut found) = view.load::<Record>(&record_key)
        {
            found.grantees += 1;
            view.store(record_key, &found);
        }
        let mut log = known.unwrap_or_default();
        log.changes.push(change);
        view.store(key, &log);
    }
}

/// What a party may do with a record at a time, by the two leaves that answer that.
pub(super) fn access_by(
    owner: &Address,
    (hash, record): (&Hash32, &Record),
    (who, log): (&Grantee, Option<&GrantLog>),
    at: TimeMs,
) -> Access {
    let mut view = View::new(&Nothing);
    view.store(schema::record(owner, hash), record);
    if let Some(log) = log {
        view.store(schema::grant(owner, hash, who), log);
    }
    access(&mut view, owner, hash, who, at)
}

/// A state without anything.
struct Nothing;

impl StateReader for Nothing {
    fn get(&self, _: &[u8]) -> Result<Option<Bytes>, ReadFault> {
        Ok(None)
    }

    fn scan_prefix(&self, _: &[u8]) -> Result<Vec<(Bytes, Bytes)>, ReadFault> {
        Ok(Vec::new())
    }

    fn scan_from(&self, _: &[u8], _: &[u8], _: usize) -> Result<Vec<(Bytes, Bytes)>, ReadFault> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Address = Address([1; 20]);
    const HASH: Hash32 = Hash32([9; 32]);

    fn entry(at: u64, mv: Move) -> Entry {
        Entry { at_ms: TimeMs(at), txid: TxId(Hash32([7; 32])), mv }
    }

    fn granted(to: Grantee, until: Option<u64>) -> Move {
        let terms = GrantTerms { scope: "read".to_owned(), until_ms: until.map(TimeMs) };
        Move::Grant { owner: OWNER, record: HASH, to, terms }
    }

    #[test]
    fn access_is_what_the_ledger_says_of_the_same_moves() {
        let bob = Grantee::Account(Address([2; 20]));
        let entries = vec![
            entry(10, Move::Record { owner: OWNER, hash: HASH, metadata: b"a".to_vec() }),
            entry(20, granted(bob, Some(30))),
            entry(40, granted(bob, None)),
            entry(50, Move::Revoke { owner: OWNER, record: HASH, from: bob }),
        ];
        let mut book = Book::empty(OWNER);
        entries.into_iter().for_each(|entry| book.add(entry));
        let record = book.record(&HASH).unwrap();
        let allowed = |at| book.access(&HASH, &record, &bob, TimeMs(at)).allowed();
        let at = [(9, false), (10, false), (20, true), (30, false), (40, true), (49, true), (50, false)];
        for (at, expected) in at {
            assert_eq!(allowed(at), expected, "{at}");
        }
        let owner = Grantee::Account(OWNER);
        assert_eq!(book.access(&HASH, &record, &owner, TimeMs(9)), Access::NoRecord);
        assert_eq!(book.access(&HASH, &record, &owner, TimeMs(10)), Access::Owner);
        assert_eq!((record.at_ms, record.grantees), (TimeMs(10), 1));
        assert_eq!((book.parties(&HASH), book.latest()), (vec![bob], TimeMs(50)));
        assert_eq!((book.records(), book.about(&HASH).len()), (&[HASH][..], 4));
        // The leaves that the ledger keeps say the same.
        let txid = TxId(Hash32([7; 32]));
        let change = |at, terms| GrantChange { at_ms: TimeMs(at), txid, terms };
        let read = |until| Some(GrantTerms { scope: "read".to_owned(), until_ms: until });
        let log = GrantLog {
            version: 1,
            changes: vec![change(20, read(Some(TimeMs(30)))), change(40, read(None)), change(50, None)],
        };
        for (at, expected) in at {
            let access = access_by(&OWNER, (&HASH, &record), (&bob, Some(&log)), TimeMs(at));
            assert_eq!(access.allowed(), expected, "{at}");
        }
        assert_eq!(access_by(&OWNER, (&HASH, &record), (&bob, None), TimeMs(40)), Access::Never);
    }
}
