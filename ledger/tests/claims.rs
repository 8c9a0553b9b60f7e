//! What undecided transactions keep others from doing: a vote relies on something, and nothing may
//! change it before the outcome is known.

mod support;

use ledger::account::FLAG_FROZEN;
use ledger::claim::Restriction;
use ledger::ids::{GroupId, LedgerId};
use ledger::limits::{SUPPLY_MAX, SYNC_DEBITS_MAX};
use ledger::rules::{self, Credit, OwnLeg, RuleContext, Signatures, apply_credit};
use ledger::tx::{AccountWrite, Condition, Move, ParsedTx, TxBody};
use ledger::{AccountRecord, Address, AssetId, Balance, Reject, TxId, schema};
use support::{NOW, Owner, State, asset_def, body, ingest, sign, single, with_view};

/// One group that owns every account, and votes on each transaction as if others voted, too.
struct Group {
    state: State,
    owner: Owner,
    issuer: Owner,
    asset: AssetId,
    salt: u8,
}

impl Group {
    fn new(posted: u128, suspense: u128) -> Self {
        let (owner, issuer) = (single(1), single(2));
        let def = asset_def(issuer.address(), "EUR");
        let mut state = State::new();
        let record = AccountRecord {
            flags: if suspense > 0 { ledger::account::FLAG_RESTRICTED } else { 0 },
            balances: vec![(def.id, Balance { posted, held: 0 })],
            ..AccountRecord::default()
        };
        with_view(&mut state, |view| {
            view.store(schema::asset(&def.id), &def);
            view.store(schema::account(&owner.address()), &record);
            if suspense > 0 {
                let restriction = Restriction { suspense, ..Restriction::default() };
                view.store(schema::restriction(&owner.address(), &def.id), &restriction);
            }
        });
        Self { state, owner, issuer, asset: def.id, salt: 0 }
    }

    fn account(&self) -> Address {
        self.owner.address()
    }

    fn tx(&mut self, moves: Vec<Move>) -> ParsedTx {
        self.salt += 1;
        let body = TxBody { salt: [self.salt; 16], ..body(moves) };
        ingest(&sign(&body, &[&self.owner, &self.issuer][..body.slots.len().min(2)])).expect("it is well formed")
    }

    fn with_legs<R>(
        &mut self,
        tx: &ParsedTx,
        run: impl FnOnce(&mut ledger::view::View<'_>, &RuleContext<'_>, &[OwnLeg<'_>]) -> R,
    ) -> R {
        let ctx = RuleContext {
            group: GroupId::shard(0),
            ledger: LedgerId::MAIN,
            layout: None,
            time_ms: NOW,
            burned: &|_| 0,
            permission: None,
        };
        let legs = ctx.own_legs(tx).expect("nothing is hidden");
        with_view(&mut self.state, |view| run(view, &ctx, &legs)).0
    }

    fn vote(&mut self, moves: Vec<Move>) -> Result<ParsedTx, Reject> {
        let body_of = self.tx(moves);
        let voted =
            self.with_legs(&body_of, |view, ctx, legs| rules::reserve(view, ctx, &body_of, legs, Signatures::Checked));
        voted.map(|()| body_of)
    }

    fn post(&mut self, tx: &ParsedTx) {
        self.with_legs(tx, |view, ctx, legs| rules::post(view, ctx, tx.txid, legs));
    }

    fn release(&mut self, tx: &ParsedTx) {
        self.with_legs(tx, |view, _, legs| rules::release(view, tx.txid, legs));
    }
}

#[test]
fn a_release_from_suspense_does_not_break_what_a_check_was_promised() {
    let mut group = Group::new(100, 50);
    let (account, asset) = (group.account(), group.asset);
    let at_most = |amount| Move::Check { account, condition: Condition::AtMost { asset, amount } };
    let release = |amount| Move::Release { account, asset, amount };
    let checked = group.vote(vec![at_most(120)]).expect("there are 100");
    assert_eq!(group.vote(vec![release(30)]).err(), Some(Reject::Conflict));
    let released = group.vote(vec![release(20)]).expect("120 are allowed");
    assert_eq!(group.vote(vec![at_most(110)]).err(), Some(Reject::CheckFailed), "120 are on their way");
    group.release(&checked);
    group.post(&released);
    assert!(group.vote(vec![release(30)]).is_ok());
}

#[test]
fn a_check_that_nothing_is_frozen_waits_for_no_freeze_that_is_undecided() {
    let mut group = Group::new(100, 0);
    let (account, asset) = (group.account(), group.asset);
    let check = || Move::Check { account, condition: Condition::NotFrozen(asset) };
    let freeze = group.vote(vec![Move::Write { account, write: AccountWrite::Frozen(true) }]).expect("its owner may");
    assert_eq!(group.vote(vec![check()]).err(), Some(Reject::Conflict));
    group.release(&freeze);
    assert!(group.vote(vec![check()]).is_ok());
    let freeze = group.vote(vec![Move::Write { account, write: AccountWrite::Frozen(true) }]).expect("its owner may");
    group.post(&freeze);
    let record: AccountRecord = borsh::from_slice(&group.state[&schema::account(&account)]).expect("it decodes");
    assert_eq!(record.flags & FLAG_FROZEN, FLAG_FROZEN);
    assert_eq!(group.vote(vec![check()]).err(), Some(Reject::CheckFailed));
}

/// The payee of a synchronous payment may have it, and pay it back, before the payer's group knows
/// the outcome: the amount then stands there twice, once held. However often that is repeated, no
/// balance may exceed what an amount can be.
#[test]
fn amounts_that_come_back_while_their_debit_is_undecided_never_overflow() {
    let mut group = Group::new(SUPPLY_MAX, 0);
    let (account, asset) = (group.account(), group.asset);
    let payee = single(9).address();
    let pay = |amount| Move::PaySync { from: account, to: payee, asset, amount };
    // In this group the payee's side is not posted: it stands for an account elsewhere.
    let first = group.vote(vec![pay(SUPPLY_MAX)]).expect("it is all there");
    let back = Credit { txid: TxId::default(), move_index: 0, account, asset, amount: SUPPLY_MAX };
    with_view(&mut group.state, |view| apply_credit(view, &back));
    assert_eq!(group.vote(vec![pay(1)]).err(), Some(Reject::Overflow), "one round of it at a time");
    group.release(&first);
    let part = group.vote(vec![pay(SYNC_DEBITS_MAX - 5)]).expect("nothing is open");
    let rest = group.vote(vec![pay(5)]).expect("it just fits");
    group.release(&part);
    group.release(&rest);
    assert!(!group.state.contains_key(&schema::sync_debits(&asset)), "nothing is open");
}
