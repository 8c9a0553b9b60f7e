//! Bad transactions, each with its exact rejection, and none with a trace in the state.

mod support;

use ledger::account::FLAG_FROZEN;
use ledger::hash::Hash32;
use ledger::ids::{ClusterId, GroupId, LedgerId, TimeMs};
use ledger::layout::Layout;
use ledger::limits::{
    AUTH_KEYS_MAX, RECEIPT_KEPT_MS, SIGNED_TX_BYTES_MAX, SUPPLY_MAX, VALID_FOR_MS_MAX, WITNESSES_MAX,
};
use ledger::rules::{RuleContext, execute};
use ledger::tx::{Move, ParsedTx, SignedTx, Slot, TxBody};
use ledger::{AccountRecord, Address, AssetDef, Authorisation, Reject, schema};
use support::{NOW, Owner, State, asset_def, body, cluster, ingest, key, multi, pay, sign, single, with_view};

const PAYER: u8 = 1;
const ISSUER: u8 = 2;

fn money() -> AssetDef {
    asset_def(single(ISSUER).address(), "EUR")
}

fn payment() -> TxBody {
    body(vec![pay(single(PAYER).address(), single(9).address(), money().id, 5)])
}

fn ingest_of(change: impl FnOnce(&mut TxBody)) -> Result<ParsedTx, Reject> {
    let mut body = payment();
    change(&mut body);
    ingest(&sign(&body, &[&single(PAYER)]))
}

fn refused(expected: Reject, change: impl FnOnce(&mut TxBody)) {
    assert_eq!(ingest_of(change).map(|tx| tx.txid), Err(expected));
}

fn payments(count: u128) -> Vec<Slot> {
    let (from, to, asset) = (single(PAYER).address(), single(9).address(), money().id);
    support::body((1..=count).map(|amount| pay(from, to, asset, amount)).collect()).slots
}

#[test]
fn bodies_are_refused_at_ingest() {
    assert!(ingest_of(|_| ()).is_ok());
    refused(Reject::WrongCluster, |body| body.cluster = ClusterId(Hash32([8; 32])));
    refused(Reject::Malformed, |body| body.version = 0);
    refused(Reject::Malformed, |body| body.version = 2);
    refused(Reject::MoveCount, |body| body.slots.clear());
    refused(Reject::MoveCount, |body| body.slots = payments(65));
    assert!(ingest_of(|body| body.slots = payments(64)).is_ok());
    refused(Reject::MemoTooLarge, |body| body.memo = vec![0; 257]);
    assert!(ingest_of(|body| body.memo = vec![0; 256]).is_ok());
    let (from, to, asset) = (single(PAYER).address(), single(9).address(), money().id);
    for zero in [
        pay(from, to, asset, 0),
        Move::Mint { issuer: from, to, asset, amount: 0 },
        Move::Burn { issuer: from, asset, amount: 0 },
    ] {
        refused(Reject::ZeroAmount, |body| *body = support::body(vec![zero]));
    }
    for change in [
        |def: &mut AssetDef| def.spec.symbol.clear(),
        |def: &mut AssetDef| def.spec.symbol = "A".repeat(17),
        |def: &mut AssetDef| def.spec.symbol = "€".to_owned(),
        |def: &mut AssetDef| def.spec.name = "n".repeat(65),
        |def: &mut AssetDef| def.spec.decimals = 37,
    ] {
        let mut def = money();
        change(&mut def);
        refused(Reject::AssetForm, |body| *body = support::body(vec![Move::Issue(def.spec)]));
    }
}

#[test]
fn a_body_of_64_kib_is_read_and_one_byte_more_is_not() {
    assert_eq!(TxBody::decode(&vec![0; 64 * 1024]), Err(Reject::Malformed));
    assert_eq!(TxBody::decode(&vec![0; 64 * 1024 + 1]), Err(Reject::BodyTooLarge));
    refused(Reject::BodyTooLarge, |body| body.memo = vec![0; 64 * 1024 + 1]);
    let too_long = vec![0; SIGNED_TX_BYTES_MAX + 1];
    assert_eq!(ParsedTx::decode(&cluster(), &too_long).map(|tx| tx.txid), Err(Reject::BodyTooLarge));
}

#[test]
fn other_lengths_are_refused_inside_and_outside() {
    let signed = sign(&payment(), &[&single(PAYER)]);
    let decodes = |bytes: &[u8]| ParsedTx::decode(&cluster(), bytes).is_ok();
    support::vectors::refuses_other_lengths("signed", &signed.encode(), decodes);
    support::vectors::refuses_other_lengths("body", &signed.body, |bytes| TxBody::decode(bytes).is_ok());
    let mut longer = signed.clone();
    longer.body.push(0);
    assert_eq!(ingest(&longer).map(|tx| tx.txid), Err(Reject::Malformed));
    let versioned = SignedTx { version: 2, ..signed };
    assert_eq!(ingest(&versioned).map(|tx| tx.txid), Err(Reject::Malformed));
}

#[test]
fn authorisations_that_are_not_canonical_are_refused() {
    let with = |change: fn(&mut u8, &mut Vec<ledger::PublicKey>)| {
        let mut owner = multi(2, &[1, 2, 3]);
        let Authorisation::Multi { threshold, keys } = &mut owner.auth else { unreachable!("made as multi") };
        change(threshold, keys);
        owner.auth
    };
    let bad = [
        with(|_, keys| keys.swap(0, 1)),
        with(|_, keys| keys[1] = keys[0]),
        with(|threshold, _| *threshold = 0),
        with(|threshold, _| *threshold = 4),
        with(|_, keys| keys.clear()),
        Authorisation::Multi {
            threshold: 1,
            keys: multi(1, &(0..=AUTH_KEYS_MAX as u8).collect::<Vec<_>>())
                .keys
                .iter()
                .map(|key| key.public())
                .collect(),
        },
    ];
    for auth in bad {
        assert!(!auth.well_formed());
        let rotate = Move::Rotate { account: single(PAYER).address(), auth: auth.clone() };
        refused(Reject::AuthForm, |body| *body = support::body(vec![rotate]));
        let mut signed = sign(&payment(), &[&multi(2, &[1, 2, 3])]);
        signed.witnesses[0].auth = auth;
        assert_eq!(ingest(&signed).map(|tx| tx.txid), Err(Reject::AuthForm));
    }
}

#[test]
fn witnesses_carry_exactly_the_signatures_needed_in_order() {
    let owner = multi(2, &[1, 2, 3]);
    let changed = |change: fn(&mut SignedTx)| {
        let mut signed = sign(&payment(), &[&owner]);
        change(&mut signed);
        ingest(&signed).map(|tx| tx.txid)
    };
    assert!(changed(|_| ()).is_ok());
    assert_eq!(changed(|tx| tx.witnesses[0].signatures.truncate(1)), Err(Reject::AuthForm));
    assert_eq!(changed(|tx| tx.witnesses[0].signatures.clear()), Err(Reject::AuthForm));
    assert_eq!(changed(|tx| tx.witnesses[0].signatures.swap(0, 1)), Err(Reject::AuthForm));
    assert_eq!(changed(|tx| tx.witnesses[0].signatures[1] = tx.witnesses[0].signatures[0]), Err(Reject::AuthForm));
    assert_eq!(changed(|tx| tx.witnesses[0].signatures[1].0 = 3), Err(Reject::AuthForm));
    assert_eq!(
        changed(|tx| {
            let third = (2, tx.witnesses[0].signatures[0].1);
            tx.witnesses[0].signatures.push(third);
        }),
        Err(Reject::AuthForm)
    );
    assert_eq!(changed(|tx| tx.witnesses[0].signatures[1].0 = 2), Err(Reject::BadSignature));
    assert_eq!(changed(|tx| tx.witnesses[0].signatures[1].1.0[9] ^= 1), Err(Reject::BadSignature));
    assert_eq!(changed(|tx| tx.witnesses.clear()), Err(Reject::BadSignature));
    assert_eq!(changed(|tx| tx.witnesses = vec![tx.witnesses[0].clone(); WITNESSES_MAX + 1]), Err(Reject::Malformed));
    let mut other = sign(&payment(), &[&single(PAYER)]);
    other.witnesses[0].signatures[0].1 = key(PAYER).sign(&Hash32([1; 32]));
    assert_eq!(ingest(&other).map(|tx| tx.txid), Err(Reject::BadSignature));
}

/// A group with one funded payer; the issuer holds 10 of 100.
struct Group {
    state: State,
    layout: Layout,
    id: GroupId,
    now: TimeMs,
}

impl Group {
    fn new() -> Self {
        let layout = Layout::even(1);
        let mut group = Self { state: State::new(), id: layout.shards[0].group, layout, now: NOW };
        with_view(&mut group.state, |view| view.store(schema::asset(&money().id), &money()));
        let issuer = single(ISSUER).address();
        for (to, amount) in [(single(PAYER).address(), 90), (issuer, 10)] {
            let mint = body(vec![Move::Mint { issuer, to, asset: money().id, amount }]);
            group.run(&mint, &[&single(ISSUER)]).expect("the issuer mints");
        }
        group
    }

    fn run(&mut self, body: &TxBody, owners: &[&Owner]) -> Result<(), Reject> {
        let tx = ingest(&sign(body, owners)).expect("the form is right");
        let ctx = RuleContext {
            group: self.id,
            ledger: LedgerId::MAIN,
            layout: Some(&self.layout),
            time_ms: self.now,
            burned: &|_| 0,
            permission: None,
        };
        let (result, wrote) = with_view(&mut self.state, |view| execute(view, &ctx, &tx).map(|_| ()));
        assert_eq!(result.is_ok(), wrote, "a refusal leaves no trace");
        result
    }

    fn change(&mut self, owner: &Owner, change: impl FnOnce(&mut AccountRecord)) {
        let key = schema::account(&owner.address());
        with_view(&mut self.state, |view| {
            let mut record: AccountRecord = view.load(&key).unwrap_or_default();
            change(&mut record);
            view.store(key, &record);
        });
    }
}

#[test]
fn deadlines() {
    let deadline = payment().valid_until_ms.0;
    let at = |now: u64| {
        let mut group = Group::new();
        group.now = TimeMs(now);
        group.run(&payment(), &[&single(PAYER)])
    };
    assert_eq!(at(deadline), Ok(()));
    assert_eq!(at(deadline + 1), Err(Reject::Expired));
    assert_eq!(at(deadline + RECEIPT_KEPT_MS), Err(Reject::Expired));
    assert_eq!(at(deadline + RECEIPT_KEPT_MS + 1), Err(Reject::OutcomePruned));
    assert_eq!(at(deadline - VALID_FOR_MS_MAX), Ok(()));
    assert_eq!(at(deadline - VALID_FOR_MS_MAX - 1), Err(Reject::ValidTooLong));
    for (until, expected) in [(0, Reject::OutcomePruned), (u64::MAX, Reject::ValidTooLong)] {
        let mut body = payment();
        body.valid_until_ms = TimeMs(until);
        assert_eq!(Group::new().run(&body, &[&single(PAYER)]), Err(expected));
    }
}

#[test]
fn what_the_state_forbids() {
    let (payer, issuer, stranger) = (single(PAYER), single(ISSUER), single(7));
    let (from, to, asset) = (payer.address(), stranger.address(), money().id);
    let unknown = asset_def(issuer.address(), "USD").id;
    let mint = |by: Address, asset, amount| Move::Mint { issuer: by, to, asset, amount };
    let burn = |by: Address, asset, amount| Move::Burn { issuer: by, asset, amount };
    let cases = [
        (pay(from, to, asset, 91), &payer, Reject::InsufficientFunds),
        (pay(from, to, asset, u128::MAX), &payer, Reject::InsufficientFunds),
        (pay(from, from, asset, 91), &payer, Reject::InsufficientFunds),
        (pay(from, to, unknown, 1), &payer, Reject::NoSuchAsset),
        (pay(from, to, asset, 1), &stranger, Reject::NotAuthorised),
        (pay(to, from, asset, 1), &stranger, Reject::InsufficientFunds),
        (mint(issuer.address(), unknown, 1), &issuer, Reject::UnknownAsset),
        (mint(from, asset, 1), &payer, Reject::NotIssuer),
        (mint(issuer.address(), asset, 1), &payer, Reject::NotAuthorised),
        (mint(issuer.address(), asset, SUPPLY_MAX - 99), &issuer, Reject::Overflow),
        (mint(issuer.address(), asset, u128::MAX), &issuer, Reject::Overflow),
        (burn(issuer.address(), unknown, 1), &issuer, Reject::UnknownAsset),
        (burn(from, asset, 1), &payer, Reject::NotIssuer),
        (burn(issuer.address(), asset, 11), &issuer, Reject::InsufficientFunds),
        (Move::Rotate { account: from, auth: stranger.auth.clone() }, &stranger, Reject::NotAuthorised),
    ];
    for (mv, signer, expected) in cases {
        assert_eq!(Group::new().run(&body(vec![mv.clone()]), &[signer]), Err(expected), "{mv:?}");
    }
    let highest = mint(issuer.address(), asset, SUPPLY_MAX - 100);
    assert_eq!(Group::new().run(&body(vec![highest]), &[&issuer]), Ok(()));
    // A later move that fails takes the earlier ones with it.
    let two = body(vec![pay(from, to, asset, 50), pay(from, to, asset, 41)]);
    assert_eq!(Group::new().run(&two, &[&payer]), Err(Reject::InsufficientFunds));
}

#[test]
fn frozen_accounts_and_assets_and_holds_stop_debits_but_not_credits() {
    let (payer, issuer) = (single(PAYER), single(ISSUER));
    let spend = body(vec![pay(payer.address(), issuer.address(), money().id, 1)]);
    let receive = body(vec![pay(issuer.address(), payer.address(), money().id, 1)]);
    let mut group = Group::new();
    group.change(&payer, |record| record.flags = FLAG_FROZEN);
    assert_eq!(group.run(&spend, &[&payer]), Err(Reject::Frozen));
    assert_eq!(group.run(&receive, &[&issuer]), Ok(()));
    // Nobody learns of the freeze who could not have spent.
    assert_eq!(group.run(&spend, &[&issuer]), Err(Reject::NotAuthorised));

    let mut group = Group::new();
    group.change(&payer, |record| record.balances[0].1.held = 90);
    assert_eq!(group.run(&spend, &[&payer]), Err(Reject::InsufficientFunds));
    group.change(&payer, |record| record.balances[0].1.held = 89);
    assert_eq!(group.run(&spend, &[&payer]), Ok(()));

    let mut group = Group::new();
    let frozen = AssetDef { frozen: true, ..money() };
    with_view(&mut group.state, |view| view.store(schema::asset(&money().id), &frozen));
    let mint = Move::Mint { issuer: issuer.address(), to: payer.address(), asset: money().id, amount: 1 };
    let burn = Move::Burn { issuer: issuer.address(), asset: money().id, amount: 1 };
    assert_eq!(group.run(&spend, &[&payer]), Err(Reject::Frozen));
    assert_eq!(group.run(&body(vec![mint]), &[&issuer]), Err(Reject::Frozen));
    assert_eq!(group.run(&body(vec![burn]), &[&issuer]), Err(Reject::Frozen));
}

#[test]
fn voters_elsewhere_and_hidden_slots() {
    let mut group = Group::new();
    group.layout = Layout::even(2);
    let owned = |group: &Group, id| (1..=200).find(|seed| group.layout.locate(&single(*seed).address()) == id);
    let here = single(owned(&group, group.id).expect("one of 200 accounts"));
    let there = single(owned(&group, GroupId::shard(1)).expect("one of 200 accounts"));
    let mv = |owner: &Owner| pay(owner.address(), here.address(), money().id, 1);
    assert_eq!(group.run(&body(vec![mv(&there)]), &[&there]), Err(Reject::WrongShard));
    assert_eq!(group.run(&body(vec![mv(&here), mv(&there)]), &[&here, &there]), Err(Reject::MultiVoter));
    let on = |ledger| {
        let mut body = payment();
        body.slots[0] = Slot::Clear { ledger, mv: mv(&here) };
        body
    };
    assert_eq!(group.run(&on(LedgerId::BEACON), &[&here]), Err(Reject::WrongShard));
    assert_eq!(group.run(&on(LedgerId::of_channel(GroupId::channel(1))), &[&here]), Err(Reject::WrongShard));
    assert_eq!(
        group.run(&body(vec![Move::Issue(asset_def(here.address(), "X").spec)]), &[&here]),
        Err(Reject::WrongShard)
    );
    let mut hidden = on(LedgerId::MAIN);
    hidden.slots.push(Slot::Hidden { ledger: LedgerId::MAIN, group: group.id, hash: Hash32::ZERO });
    assert_eq!(group.run(&hidden, &[&here]), Err(Reject::HiddenSlot));
}

#[test]
fn after_a_rotation_the_old_key_is_refused_and_the_new_one_taken() {
    let (old, new) = (single(PAYER), multi(2, &[11, 12, 13]));
    let mut group = Group::new();
    let rotate = body(vec![Move::Rotate { account: old.address(), auth: new.auth.clone() }]);
    assert_eq!(group.run(&rotate, &[&old]), Ok(()));
    assert_eq!(group.run(&payment(), &[&old]), Err(Reject::NotAuthorised));
    assert_eq!(group.run(&rotate, &[&old]), Err(Reject::NotAuthorised));
    assert_eq!(group.run(&payment(), &[&new]), Ok(()));
}
