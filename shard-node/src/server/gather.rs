//! Answers that gather several records: what a group knows of a transaction, and an account with
//! everything that lies beside its record. All records of one answer are of one moment of the state.
//!
//! Shows what any member may see. Openings of hidden slots, and accounts that only they name, stay
//! in the group.

use cross_shard::bundle::Bundle;
use cross_shard::closed;
use cross_shard::commit::{self, Decision, Prepared, Stamp};
use cross_shard::message::Message;
use ledger::account::{AccountRecord, Balance, FLAG_CLAIMED, FLAG_LIMITED, FLAG_RESTRICTED};
use ledger::claim::{ClaimList, Restriction};
use ledger::ids::{Address, AssetId, GroupId, TxId};
use ledger::limits::{ACCOUNT_LINES_MAX, DATA_PAGE_ENTRIES_MAX, INLINE_BALANCES_MAX, LINES_COUNTED_MAX};
use ledger::lineage::Origin;
use ledger::receipt::{Outcome, Receipt};
use ledger::reject::Reject;
use ledger::schema;
use ledger::view::{ReadFault, StateReader, View};
use ledger::{SignedTx, Submission, TxBody};
use proto::views::{AccountView, BlockPoint, Explain, OwnVote, PreparedView, ReceivedVote, RestrictionLine, SentMail};

use crate::core::applied::AppliedRecord;
use crate::core::entry::{Command, Entry};
use crate::core::records::{BlockRecord, ReceiptPlace};
use crate::server::replica::ViewReader;

/// What this group knows of a transaction; `None` when that is nothing.
///
/// # Errors
/// [`ReadFault`] when the database fails.
pub fn explain(
    reader: &ViewReader<'_>,
    group: GroupId,
    applied: &AppliedRecord,
    txid: &TxId,
) -> Result<Option<Explain>, ReadFault> {
    let mut view = View::new(reader);
    let prepared = commit::prepared(&mut view, txid);
    let receipt = receipt(&mut view, group, txid);
    let credits = receipt.as_ref().map_or(Vec::new(), |receipt| credits(&mut view, group, receipt));
    let shown = prepared.as_ref().map(|record| shown(&mut view, group, record));
    sound(&view)?;
    let (prepared, tx) = match (shown.zip(prepared), &receipt) {
        (Some((shown, record)), _) => (Some(with_transaction(reader, shown, record)?), Vec::new()),
        (None, Some(receipt)) => (None, executed_in(reader, receipt)?),
        (None, None) => return Ok(None),
    };
    Ok(Some(Explain {
        version: 1,
        group,
        height: applied.height,
        time_ms: applied.time_ms,
        stale: false,
        prepared,
        receipt,
        tx,
        credits,
        unanswered: None,
    }))
}

fn sound(view: &View<'_>) -> Result<(), ReadFault> {
    view.fault().map_or(Ok(()), |fault| Err(fault.clone()))
}

fn receipt(view: &mut View<'_>, here: GroupId, txid: &TxId) -> Option<Receipt> {
    let place: ReceiptPlace = view.load(&schema::receipt(txid))?;
    let origin: Option<Origin> = view.load(&schema::origin());
    let record: BlockRecord = view.load(&place.block_key(here, origin.as_ref()))?;
    record.receipts.into_iter().nth(place.index as usize)
}

fn credits(view: &mut View<'_>, here: GroupId, receipt: &Receipt) -> Vec<SentMail> {
    match &receipt.outcome {
        Outcome::Committed { mail } => {
            mail.iter().map(|(dest, seq)| sent(view, here, receipt.group, *dest, *seq)).collect()
        }
        Outcome::Rejected(_) | Outcome::Aborted { .. } => Vec::new(),
    }
}

/// What `source`, this group or one that it came from, has sent.
fn sent(view: &mut View<'_>, here: GroupId, source: GroupId, dest: GroupId, seq: u64) -> SentMail {
    SentMail { dest, seq, taken: closed::acknowledged(view, here, source, dest, seq) }
}

fn point(stamp: Stamp) -> BlockPoint {
    BlockPoint { height: stamp.height, time_ms: stamp.time_ms }
}

fn no(decision: Decision) -> Option<Reject> {
    match decision {
        Decision::Yes => None,
        Decision::No(reason) => Some(reason),
    }
}

/// The record as it is shown, except for the transaction. Votes of a line of groups are shown as one.
fn shown(view: &mut View<'_>, here: GroupId, record: &Prepared) -> PreparedView {
    let own = record.decision().zip(record.casts.first()).map(|(decision, first)| {
        let mut legs: Vec<u16> = record.casts.iter().flat_map(|cast| &cast.legs).copied().collect();
        legs.sort_unstable();
        legs.dedup();
        let mail = record.casts.iter().flat_map(|cast| cast.sent.iter().map(|(dest, seq)| (cast.group, *dest, *seq)));
        OwnVote {
            no: no(decision),
            legs,
            accounts: record.accounts().copied().collect(),
            sent: mail.map(|(source, dest, seq)| sent(view, here, source, dest, seq)).collect(),
            at: point(first.at),
        }
    });
    let received = record.received.iter().map(|vote| ReceivedVote {
        group: vote.group,
        no: no(vote.decision),
        legs: vote.legs.clone(),
        at: point(vote.at),
    });
    PreparedView {
        tx: Vec::new(),
        opened: record.openings.iter().map(|opening| opening.slot).collect(),
        voters: record.voters.clone(),
        legs: record.legs.clone(),
        valid_until_ms: record.valid_until_ms,
        seen: point(record.seen),
        handed_over: record.handed_over,
        own,
        received: received.collect(),
        resolved: record.outcome().map(|outcome| (point(outcome.at), outcome.committed)),
        dropped: record.dropped.map(point),
    }
}

/// Adds the transaction, from the block that brought it when the register is gone, and leaves out
/// accounts that it does not name in the clear.
fn with_transaction(
    reader: &ViewReader<'_>,
    mut shown: PreparedView,
    record: Prepared,
) -> Result<PreparedView, ReadFault> {
    shown.tx = record.tx;
    if shown.tx.is_empty()
        && let Some(entry) = reader.get(&schema::entry(record.seen.height))?
    {
        shown.tx = brought_by(&Entry::decode(&entry), &record.txid).unwrap_or_default();
    }
    let body = borsh::from_slice::<SignedTx>(&shown.tx).ok().and_then(|tx| TxBody::decode(&tx.body).ok());
    let clear: Vec<Address> = body.iter().flat_map(TxBody::moves).flat_map(|(_, mv)| mv.accounts()).collect();
    if let Some(own) = &mut shown.own {
        own.accounts.retain(|account| clear.contains(account));
    }
    Ok(shown)
}

/// The transaction of a receipt, from the block that executed it; nothing where that block is gone.
fn executed_in(reader: &ViewReader<'_>, receipt: &Receipt) -> Result<Vec<u8>, ReadFault> {
    let entry = reader.get(&schema::entry(receipt.height))?;
    Ok(entry.and_then(|entry| brought_by(&Entry::decode(&entry), &receipt.txid)).unwrap_or_default())
}

/// The signed transaction with this id among the commands of an entry.
fn brought_by(entry: &Entry, txid: &TxId) -> Option<Vec<u8>> {
    entry.commands.iter().find_map(|command| match command {
        Command::Tx(bytes) => signed_of(bytes, txid),
        Command::Deliver(bytes) => {
            let bundle: Bundle = borsh::from_slice(bytes).ok()?;
            bundle.messages.iter().find_map(|message| match borsh::from_slice(message).ok()? {
                Message::Vote(vote) if vote.txid == *txid => Some(vote.tx),
                _ => None,
            })
        }
        Command::Ack(_)
        | Command::Checkpoint(_)
        | Command::Registry(_)
        | Command::Channel(_)
        | Command::Ready(_)
        | Command::Evidence(_)
        | Command::Report(_)
        | Command::Sealed(_)
        | Command::Silence(_)
        | Command::Contribution(_)
        | Command::Audit(_) => None,
    })
}

fn signed_of(bytes: &[u8], txid: &TxId) -> Option<Vec<u8>> {
    let (tx, _) = Submission::split(bytes).ok()?;
    let signed: SignedTx = borsh::from_slice(&tx).ok()?;
    let body = TxBody::decode(&signed.body).ok()?;
    (signed.txid(&body.cluster) == *txid).then_some(tx)
}

/// An account with what lies beside its record, and the entries of its data after a key.
///
/// # Errors
/// [`ReadFault`] when the database fails, is closed, or holds foreign bytes.
pub fn account_view(
    reader: &ViewReader<'_>,
    address: &Address,
    data_after: &[u8],
) -> Result<Option<AccountView>, ReadFault> {
    let mut view = View::new(reader);
    let Some(mut record) = view.load::<AccountRecord>(&schema::account(address)) else {
        return sound(&view).map(|()| None);
    };
    let mut more_lines = 0;
    if record.balances.len() >= INLINE_BALANCES_MAX {
        let first = schema::extra_balance(address, &AssetId::default());
        record.balances.extend(by_asset::<Balance>(reader, first, &mut more_lines)?);
    }
    let mut restrictions = Vec::new();
    if record.flags & FLAG_RESTRICTED != 0 {
        let first = schema::restriction(address, &AssetId::default());
        let lines = by_asset::<Restriction>(reader, first, &mut more_lines)?;
        restrictions.extend(lines.into_iter().map(|(asset, Restriction { frozen, suspense, .. })| RestrictionLine {
            asset,
            frozen,
            suspense,
        }));
    }
    let mut limits = Vec::new();
    if record.flags & FLAG_LIMITED != 0 {
        limits = by_asset::<u128>(reader, schema::limit(address, &AssetId::default()), &mut more_lines)?;
    }
    let supplies = by_asset::<u128>(reader, schema::supply(address, &AssetId::default()), &mut more_lines)?;
    let mut claims = Vec::new();
    if record.flags & FLAG_CLAIMED != 0 {
        claims = view.load::<ClaimList>(&schema::claims(address)).unwrap_or_default().claims;
    }
    sound(&view)?;
    let (data, more_data) = data_page(reader, address, data_after)?;
    Ok(Some(AccountView { version: 1, record, restrictions, limits, supplies, claims, more_lines, data, more_data }))
}

/// The values of an account that have a key for each asset, and how many are left out; `first` is the
/// key of the first asset there can be.
fn by_asset<T: borsh::BorshDeserialize>(
    reader: &ViewReader<'_>,
    first: Vec<u8>,
    left_out: &mut u32,
) -> Result<Vec<(AssetId, T)>, ReadFault> {
    let prefix = &first[..first.len() - AssetId::default().0.len()];
    let decode = |(key, value): (bytes::Bytes, bytes::Bytes)| {
        let id = key[prefix.len()..].try_into().map_err(|_| ReadFault("an account has a foreign key".into()))?;
        let value = borsh::from_slice(&value).map_err(|error| ReadFault(error.to_string()))?;
        Ok((AssetId(id), value))
    };
    let mut found = reader.scan_from(prefix, prefix, LINES_COUNTED_MAX)?;
    let more = found.len().saturating_sub(ACCOUNT_LINES_MAX);
    *left_out += u32::try_from(more).expect("counted to a bound");
    found.truncate(ACCOUNT_LINES_MAX);
    found.into_iter().map(decode).collect()
}

type DataPage = (Vec<(Vec<u8>, Vec<u8>)>, bool);

fn data_page(reader: &ViewReader<'_>, address: &Address, after: &[u8]) -> Result<DataPage, ReadFault> {
    let prefix = schema::data_prefix(address);
    let mut from = schema::data(address, after);
    if !after.is_empty() {
        // The least key that is greater.
        from.push(0);
    }
    let mut found = reader.scan_from(&prefix, &from, DATA_PAGE_ENTRIES_MAX + 1)?;
    let more = found.len() > DATA_PAGE_ENTRIES_MAX;
    found.truncate(DATA_PAGE_ENTRIES_MAX);
    let entry = |(key, value): (bytes::Bytes, bytes::Bytes)| (key[prefix.len()..].to_vec(), value.to_vec());
    Ok((found.into_iter().map(entry).collect(), more))
}
