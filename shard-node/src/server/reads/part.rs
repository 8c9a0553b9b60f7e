//! What an auditor of some assets is shown of an account: what is in it of these, in the form in which others are shown all
//! of it. An account with nothing of them is answered as one that is not there.
//!
//! Owns what belongs to an asset. Never judges: which assets these are, the channel's state says (`channel::access::sight`).

use channel::ChannelReject;
use ledger::account::{AccountRecord, Balance, FLAG_CLAIMED, FLAG_LIMITED, FLAG_RESTRICTED};
use ledger::claim::{Claim, ClaimList, Item, Restriction};
use ledger::ids::{Address, AssetId, GroupId};
use ledger::limits::INLINE_BALANCES_MAX;
use ledger::schema;
use ledger::view::ReadFault;
use proto::v1::query_request::Query;
use proto::views::{AccountView, RestrictionLine};
use proto::{edge, v1};
use storage::Kv;

use super::{Failure, begun, found, history, history_asked, load};
use crate::server::admission::Denial;
use crate::server::replica::ViewReader;

/// Answers a question about an account from one moment of the state, as far as it is about `assets`, which are sorted.
pub(super) fn look_up(
    db: &dyn Kv,
    group: GroupId,
    query: &Query,
    assets: &[AssetId],
) -> Result<v1::QueryReply, Failure> {
    let reader = ViewReader::of(db);
    let (applied, mut reply) = begun(&reader, group)?;
    reply.partial = true;
    match query {
        Query::Account(query) => {
            let view = view(&reader, &edge::address("address", &query.address)?, assets)?;
            found(&mut reply, view.map(|view| view.record));
        }
        Query::AccountView(query) => {
            found(&mut reply, view(&reader, &edge::address("address", &query.address)?, assets)?);
        }
        Query::History(query) => {
            let (address, before) = history_asked(query, &applied)?;
            found(&mut reply, Some(history::page_of(&reader, &address, before, query.limit, Some(assets))?));
        }
        // Nothing else has parts: see `admission::has_parts`.
        _ => return Err(Failure::Denied(Denial::Channel(ChannelReject::NoGrant))),
    }
    Ok(reply)
}

/// What lies in an account of these assets. Its keys, flags, sequence and data are not of any asset.
fn view(reader: &ViewReader<'_>, address: &Address, assets: &[AssetId]) -> Result<Option<AccountView>, ReadFault> {
    let Some(whole) = load::<AccountRecord>(reader, &schema::account(address))? else { return Ok(None) };
    let (mut record, mut restrictions) = (AccountRecord::default(), Vec::new());
    let (mut limits, mut supplies) = (Vec::new(), Vec::new());
    for asset in assets {
        let inline = whole.balances.iter().find(|(of, _)| of == asset).map(|(_, balance)| *balance);
        let balance = match inline {
            None if whole.balances.len() >= INLINE_BALANCES_MAX => {
                load::<Balance>(reader, &schema::extra_balance(address, asset))?
            }
            inline => inline,
        };
        record.balances.extend(balance.map(|balance| (*asset, balance)));
        if whole.flags & FLAG_RESTRICTED != 0 {
            let restriction = load::<Restriction>(reader, &schema::restriction(address, asset))?;
            restrictions.extend(restriction.map(|Restriction { frozen, suspense, .. }| RestrictionLine {
                asset: *asset,
                frozen,
                suspense,
            }));
        }
        if whole.flags & FLAG_LIMITED != 0 {
            let limit = load::<u128>(reader, &schema::limit(address, asset))?;
            limits.extend(limit.map(|limit| (*asset, limit)));
        }
        let supply = load::<u128>(reader, &schema::supply(address, asset))?;
        supplies.extend(supply.map(|supply| (*asset, supply)));
    }
    let mut claims = Vec::new();
    if whole.flags & FLAG_CLAIMED != 0 {
        claims = load::<ClaimList>(reader, &schema::claims(address))?.unwrap_or_default().claims;
        claims.retain(|claimed| asset_of(&claimed.claim).is_some_and(|asset| assets.binary_search(&asset).is_ok()));
    }
    let nothing = record.balances.is_empty()
        && restrictions.is_empty()
        && limits.is_empty()
        && supplies.is_empty()
        && claims.is_empty();
    let shown = AccountView {
        version: 1,
        record,
        restrictions,
        limits,
        supplies,
        claims,
        more_lines: 0,
        data: Vec::new(),
        more_data: false,
    };
    Ok((!nothing).then_some(shown))
}

/// The asset that a claim is about; none of what is about the account, or about a lock, which has its own question.
fn asset_of(claim: &Claim) -> Option<AssetId> {
    match claim {
        Claim::AtLeast { asset, .. }
        | Claim::AtMost { asset, .. }
        | Claim::Incoming { asset, .. }
        | Claim::Mint { asset, .. }
        | Claim::Suspense { asset, .. }
        | Claim::Change(Item::Limit(asset) | Item::Restriction(asset)) => Some(*asset),
        Claim::Version
        | Claim::Change(
            Item::Auth | Item::Data(_) | Item::Frozen | Item::Lock(_) | Item::Record(_) | Item::Grant(..),
        ) => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use consensus::port::AppliedState;
    use ledger::claim::Claimed;
    use ledger::ids::{Height, TimeMs, TxId};
    use ledger::rules::{HistoryKind, HistoryLine};
    use ledger::{Authorisation, Hash32};
    use proto::views::{HistoryChange, HistoryPage};
    use storage::{MemKv, WriteBatch};

    use super::*;
    use crate::core::applied::AppliedRecord;
    use crate::core::support::{self, SHARD, client_of, header};

    const HOLDER: Address = Address([1; 20]);
    const TXID: TxId = TxId(Hash32([9; 32]));

    fn asset(byte: u8) -> AssetId {
        AssetId([byte; 16])
    }

    fn put<T: borsh::BorshSerialize>(batch: &mut WriteBatch, key: Vec<u8>, value: &T) {
        batch.put(key, borsh::to_vec(value).expect("writing to memory does not fail"));
    }

    fn begun_at(height: u64) -> WriteBatch {
        let mut batch = WriteBatch::new();
        let applied = AppliedRecord {
            version: 1,
            consensus: AppliedState::default(),
            height: Height(height),
            header_hash: Hash32::ZERO,
            time_ms: TimeMs(height),
            state_root: Hash32::ZERO,
        };
        put(&mut batch, schema::applied(), &applied);
        batch
    }

    fn asked<T: borsh::BorshDeserialize>(db: &MemKv, query: Query, assets: &[AssetId]) -> Option<T> {
        let reply = look_up(db, SHARD, &query, assets).ok().expect("an answer");
        assert!(reply.partial, "it says that there may be more");
        reply.found.then(|| borsh::from_slice(&reply.values[0]).expect("of that form"))
    }

    fn account(address: Address) -> Query {
        Query::Account(v1::AccountQuery { address: Bytes::copy_from_slice(&address.0), group: 0 })
    }

    fn whole(address: Address) -> Query {
        let address = Bytes::copy_from_slice(&address.0);
        Query::AccountView(v1::AccountViewQuery { address, ..v1::AccountViewQuery::default() })
    }

    fn page(db: &MemKv, before: (u64, u32), limit: u32, assets: &[AssetId]) -> HistoryPage {
        let query = v1::HistoryQuery {
            address: Bytes::copy_from_slice(&HOLDER.0),
            before_height: before.0,
            before_index: before.1,
            limit,
            group: 0,
        };
        asked(db, Query::History(query), assets).expect("a page")
    }

    /// An account that holds so many assets, numbered from 1, as much of each as its number.
    fn holder(batch: &mut WriteBatch, count: u8) {
        let line = |byte: u8| (asset(byte), Balance { posted: u128::from(byte), held: 0 });
        let inline = u8::try_from(INLINE_BALANCES_MAX).expect("small").min(count);
        let key = client_of(SHARD);
        let record = AccountRecord {
            auth: Some(Authorisation::Single(key.public())),
            flags: FLAG_CLAIMED | FLAG_LIMITED | FLAG_RESTRICTED,
            sequence: 4,
            balances: (1..=inline).map(line).collect(),
            ..AccountRecord::default()
        };
        put(batch, schema::account(&HOLDER), &record);
        for byte in inline + 1..=count {
            put(batch, schema::extra_balance(&HOLDER, &asset(byte)), &line(byte).1);
        }
    }

    #[test]
    fn of_an_account_what_is_of_these_assets_is_shown_and_nothing_else() {
        let mut batch = begun_at(1);
        let last = u8::try_from(INLINE_BALANCES_MAX).expect("small") + 3;
        holder(&mut batch, last);
        for byte in [1, 2, last] {
            let restriction = Restriction { frozen: true, suspense: u128::from(byte), ..Restriction::default() };
            put(&mut batch, schema::restriction(&HOLDER, &asset(byte)), &restriction);
            put(&mut batch, schema::limit(&HOLDER, &asset(byte)), &(u128::from(byte) * 10));
            put(&mut batch, schema::supply(&HOLDER, &asset(byte)), &(u128::from(byte) * 100));
        }
        put(&mut batch, schema::data(&HOLDER, b"a key"), &b"a value".to_vec());
        let claim = |claim| Claimed { txid: TXID, claim };
        let all = [
            Claim::AtLeast { asset: asset(1), amount: 5 },
            Claim::AtLeast { asset: asset(2), amount: 6 },
            Claim::Change(Item::Limit(asset(1))),
            Claim::Change(Item::Auth),
            Claim::Version,
        ];
        let claims = ClaimList { claims: all.clone().map(claim).to_vec(), ..ClaimList::default() };
        put(&mut batch, schema::claims(&HOLDER), &claims);
        let db = MemKv::new();
        db.write(batch).expect("a write");

        let seen: AccountView = asked(&db, whole(HOLDER), &[asset(1), asset(last), asset(200)]).expect("it is there");
        let balance = |byte: u8| (asset(byte), Balance { posted: u128::from(byte), held: 0 });
        let record = AccountRecord { balances: vec![balance(1), balance(last)], ..AccountRecord::default() };
        let restriction = |byte: u8| RestrictionLine { asset: asset(byte), frozen: true, suspense: u128::from(byte) };
        let times = |factor: u128| [1, last].map(|byte| (asset(byte), u128::from(byte) * factor)).to_vec();
        assert_eq!(seen.record, record, "no keys, flags, or sequence");
        assert_eq!(seen.restrictions, [1, last].map(restriction));
        assert_eq!((seen.limits, seen.supplies), (times(10), times(100)));
        assert_eq!(seen.claims, [all[0].clone(), all[2].clone()].map(claim));
        assert!(seen.data.is_empty() && !seen.more_data && seen.more_lines == 0);
        let record_alone: AccountRecord = asked(&db, account(HOLDER), &[asset(1), asset(last)]).expect("it is there");
        assert_eq!(record_alone, record);

        // Nobody is told whether there is an account with other things in it.
        for (address, assets) in [(HOLDER, asset(200)), (Address([2; 20]), asset(1))] {
            assert_eq!(asked::<AccountView>(&db, whole(address), &[assets]), None);
            assert_eq!(asked::<AccountRecord>(&db, account(address), &[assets]), None);
        }
        let block = Query::Block(v1::BlockQuery { group: 0, height: 1 });
        assert!(matches!(look_up(&db, SHARD, &block, &[asset(1)]), Err(Failure::Denied(_))), "it has no parts");
    }

    fn history_of(kinds: &[(HistoryKind, AssetId)], heights: u64) -> MemKv {
        let mut batch = begun_at(heights);
        for height in 1..=heights {
            put(&mut batch, schema::header(Height(height)), &header(SHARD, height));
            for (index, (kind, asset)) in (0..).zip(kinds) {
                let (kind, other) = (*kind, Some(Address([3; 20])));
                let line = HistoryLine { account: HOLDER, kind, txid: TXID, asset: *asset, amount: 7, other };
                put(&mut batch, schema::history(&HOLDER, Height(height), index), &line);
            }
        }
        let db = MemKv::new();
        db.write(batch).expect("a write");
        db
    }

    #[test]
    fn of_a_history_the_lines_of_these_assets_are_shown() {
        let none = AssetId::default();
        let kinds = [
            (HistoryKind::Sent, asset(1)),
            (HistoryKind::Sent, asset(2)),
            (HistoryKind::Minted, asset(1)),
            (HistoryKind::Rotated, none),
            (HistoryKind::Frozen, none),
            (HistoryKind::Frozen, asset(1)),
            (HistoryKind::Locked, asset(2)),
        ];
        let db = history_of(&kinds, 2);
        let places = |page: &HistoryPage| page.lines.iter().map(|line| (line.height.0, line.index)).collect::<Vec<_>>();
        let all = page(&db, (u64::MAX, 0), 100, &[asset(1)]);
        assert_eq!(places(&all), [(2, 5), (2, 2), (2, 0), (1, 5), (1, 2), (1, 0)]);
        assert_eq!(all.before, None);
        assert_eq!(all.lines[0].change, HistoryChange::Frozen(Some(asset(1))));
        let first = page(&db, (u64::MAX, 0), 2, &[asset(1)]);
        let next = first.before.expect("there are more");
        assert_eq!((places(&first), (next.height.0, next.index)), (vec![(2, 5), (2, 2)], (2, 2)));
        assert_eq!(places(&page(&db, (2, 2), 2, &[asset(1)])), [(2, 0), (1, 5)]);
        // What is about the account has no asset, whatever stands in its place.
        assert!(page(&db, (u64::MAX, 0), 100, &[none]).lines.is_empty());
    }

    #[test]
    fn a_page_that_shows_little_reads_no_more_than_others_and_the_next_one_goes_on() {
        let db = history_of(&[(HistoryKind::Sent, asset(2)); 100], 300);
        // One line of the asset, in the oldest block.
        let mut batch = WriteBatch::new();
        let (kind, other) = (HistoryKind::Sent, None);
        let line = HistoryLine { account: HOLDER, kind, txid: TXID, asset: asset(1), amount: 7, other };
        put(&mut batch, schema::history(&HOLDER, Height(1), 40), &line);
        db.write(batch).expect("a write");
        let (mut before, mut pages, mut seen) = ((u64::MAX, 0), 0, Vec::new());
        loop {
            let page = page(&db, before, 10, &[asset(1)]);
            pages += 1;
            seen.extend(page.lines.iter().map(|line| (line.height.0, line.index)));
            let Some(next) = page.before else { break };
            assert!((next.height.0, next.index) < before, "it goes on");
            before = (next.height.0, next.index);
        }
        assert_eq!(seen, [(1, 40)]);
        assert!((2..=4).contains(&pages), "30,000 lines are no page, and no page is a line: {pages}");
    }

    #[test]
    fn what_a_group_has_of_an_asset_is_told_with_its_definition() {
        let spec = ledger::AssetSpec {
            issuer: support::address(&client_of(SHARD)),
            symbol: "EUR".to_owned(),
            name: "Euro".to_owned(),
            decimals: 2,
        };
        let definition = ledger::AssetDef { version: 1, id: spec.id(), spec, frozen: false };
        let db = MemKv::new();
        let mut batch = begun_at(1);
        put(&mut batch, schema::asset(&definition.id), &definition);
        put(&mut batch, schema::total(&definition.id), &55u128);
        db.write(batch).expect("a write");
        let ask = |id: AssetId| {
            let query = Query::Asset(v1::AssetQuery { asset: Bytes::copy_from_slice(&id.0), group: SHARD.0 });
            super::super::look_up(&db, SHARD, &query, [None; 2]).ok().expect("an answer")
        };
        let reply = ask(definition.id);
        let total: u128 = borsh::from_slice(&reply.values[1]).expect("an amount");
        assert_eq!((reply.values.len(), total), (2, 55));
        let unknown = ask(asset(1));
        assert!(!unknown.found && unknown.values.is_empty());
    }
}
