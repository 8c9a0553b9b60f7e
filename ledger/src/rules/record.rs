//! Records and grants: one's own hashes, each once, and grants of them, as many as the limits allow.
//!
//! Both are changes of the account by its owner, and count in its version.

use crate::claim::{Claim, Item};
use crate::hash::Hash32;
use crate::ids::{Address, AssetId};
use crate::limits::{GRANT_CHANGES_MAX, GRANTEES_MAX, RECORDS_MAX};
use crate::record::{GrantChange, GrantLog, GrantTerms, Grantee, Record};
use crate::reject::Reject;
use crate::schema;

use super::work::Work;
use super::{HistoryKind, RuleContext};

impl Work<'_, '_> {
    pub(super) fn vote_record(&mut self, owner: &Address, hash: Hash32) -> Result<(), Reject> {
        if self.read::<Record>(&schema::record(owner, &hash)).is_some() {
            return Err(Reject::RecordExists);
        }
        // Whatever becomes of those that are undecided, there is room.
        let pending = self.pending(owner, |item| matches!(item, Item::Record(_)));
        let count: u32 = self.read(&schema::record_count(owner)).unwrap_or(0);
        if count + pending >= RECORDS_MAX {
            return Err(Reject::RecordFull);
        }
        self.change(owner, Item::Record(hash))
    }

    pub(super) fn vote_grant(
        &mut self,
        ctx: &RuleContext<'_>,
        owner: &Address,
        hash: Hash32,
        to: Grantee,
        terms: &GrantTerms,
    ) -> Result<(), Reject> {
        let grantees = self.grantees(owner, hash)?;
        if terms.until_ms.is_some_and(|until| until <= ctx.time_ms) {
            return Err(Reject::GrantExpired);
        }
        match self.read::<GrantLog>(&schema::grant(owner, &hash, &to)) {
            // The last place is kept for a revocation, which is never refused for want of room.
            Some(log) if log.changes.len() + 1 >= GRANT_CHANGES_MAX => return Err(Reject::RecordFull),
            Some(_) => {}
            None => {
                let pending = self.pending(owner, |item| matches!(item, Item::Grant(of, _) if *of == hash));
                if grantees + pending >= GRANTEES_MAX {
                    return Err(Reject::RecordFull);
                }
            }
        }
        self.change(owner, Item::Grant(hash, to))
    }

    /// How many a record was granted to. It may be one that this transaction makes.
    fn grantees(&mut self, owner: &Address, hash: Hash32) -> Result<u32, Reject> {
        if let Some(record) = self.read::<Record>(&schema::record(owner, &hash)) {
            return Ok(record.grantees);
        }
        let (at, txid) = (self.entry(owner), self.txid);
        let entry = &mut self.accounts[at];
        let makes = |claim: &Claim| *claim == Claim::Change(Item::Record(hash));
        let others = entry.claims(self.view, Some(txid)).filter(|claim| makes(claim)).count();
        let all = entry.claims(self.view, None).filter(|claim| makes(claim)).count();
        match (all, others) {
            (0, _) => Err(Reject::RecordUnknown),
            (_, 0) => Ok(0),
            _ => Err(Reject::Conflict),
        }
    }

    pub(super) fn vote_revoke(&mut self, owner: &Address, hash: Hash32, from: Grantee) -> Result<(), Reject> {
        self.grantees(owner, hash)?;
        let log: Option<GrantLog> = self.read(&schema::grant(owner, &hash, &from));
        // A grant that is undecided conflicts before it can be missed.
        self.change(owner, Item::Grant(hash, from))?;
        if log.is_some_and(|log| log.granted()) { Ok(()) } else { Err(Reject::GrantUnknown) }
    }

    fn pending(&mut self, owner: &Address, counts: impl Fn(&Item) -> bool) -> u32 {
        let at = self.entry(owner);
        let claims = self.accounts[at].claims(self.view, None);
        let pending = claims.filter(|claim| matches!(claim, Claim::Change(item) if counts(item))).count();
        u32::try_from(pending).expect("claims of an account are limited")
    }

    pub(super) fn post_record(&mut self, ctx: &RuleContext<'_>, at: usize, hash: Hash32, metadata: &[u8]) {
        let owner = self.accounts[at].address;
        let record =
            Record { version: 1, metadata: metadata.to_vec(), at_ms: ctx.time_ms, txid: self.txid, grantees: 0 };
        self.put(schema::record(&owner, &hash), &record);
        let count_key = schema::record_count(&owner);
        let count: u32 = self.read(&count_key).unwrap_or(0);
        self.put(count_key, &(count + 1));
        self.owner_changed(at, HistoryKind::Recorded);
    }

    pub(super) fn post_grant(
        &mut self,
        ctx: &RuleContext<'_>,
        at: usize,
        hash: Hash32,
        who: Grantee,
        terms: Option<GrantTerms>,
    ) {
        let owner = self.accounts[at].address;
        let kind = if terms.is_some() { HistoryKind::Granted } else { HistoryKind::Revoked };
        let key = schema::grant(&owner, &hash, &who);
        let known: Option<GrantLog> = self.read(&key);
        if known.is_none() {
            let key = schema::record(&owner, &hash);
            let mut record: Record = self.read(&key).expect("the vote found the record, and none is ever removed");
            record.grantees += 1;
            self.put(key, &record);
        }
        let mut log = known.unwrap_or_default();
        log.changes.push(GrantChange { at_ms: ctx.time_ms, txid: self.txid, terms });
        self.put(key, &log);
        let other = match who {
            Grantee::Account(account) => Some(account),
            Grantee::Org(_) => None,
        };
        self.count_change(at);
        self.line(owner, kind, AssetId::default(), 0, other);
    }
}
