//! One shard that owns everything, with an asset, four funded accounts, and a clock.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use ledger::claim::ClaimList;
use ledger::ids::{Address, AssetId, GroupId, LedgerId, TimeMs};
use ledger::layout::Layout;
use ledger::rules::{self, Credit, Effects, RuleContext, Signatures};
use ledger::tx::{Move, ParsedTx};
use ledger::view::View;
use ledger::{AccountRecord, Balance, Hash32, Reject, TxId, schema};

use super::{NOW, Owner, State, asset_def, body, ingest, sign, single, with_view};

pub const HERE: GroupId = GroupId::shard(0);

#[derive(Clone)]
pub struct Bank {
    pub state: State,
    pub layout: Layout,
    pub asset: AssetId,
    pub time: TimeMs,
    salt: u32,
}

impl Bank {
    /// Accounts 0 to 3 have 100 each; account 0 is the issuer.
    pub fn new() -> Self {
        let def = asset_def(single(0).address(), "EUR");
        let mut state = State::new();
        with_view(&mut state, |view| view.store(schema::asset(&def.id), &def));
        let mut bank = Self { state, layout: Layout::even(1), asset: def.id, time: NOW, salt: 0 };
        for seed in 0..4 {
            bank.credit(single(seed).address(), 100);
        }
        bank
    }

    pub fn credit(&mut self, account: Address, amount: u128) {
        let credit = Credit { txid: TxId(Hash32::ZERO), move_index: 0, account, asset: self.asset, amount };
        with_view(&mut self.state, |view| rules::apply_credit(view, &credit));
    }

    pub fn tx(&mut self, moves: Vec<Move>, owners: &[u8]) -> ParsedTx {
        self.salt += 1;
        let mut body = body(moves);
        body.salt[..4].copy_from_slice(&self.salt.to_le_bytes());
        body.valid_until_ms = TimeMs(self.time.0 + 60_000);
        let owners: Vec<Owner> = owners.iter().map(|seed| single(*seed)).collect();
        ingest(&sign(&body, &owners.iter().collect::<Vec<_>>())).expect("the form is right")
    }

    fn run<T>(&mut self, work: impl FnOnce(&mut View<'_>, &RuleContext<'_>) -> T) -> (T, bool) {
        let Self { state, layout, time, .. } = self;
        let ctx =
            RuleContext { group: HERE, ledger: LedgerId::MAIN, layout: Some(layout), time_ms: *time, burned: &|_| 0 };
        with_view(state, |view| work(view, &ctx))
    }

    /// Votes; a YES stays reserved until it is posted or released.
    pub fn prepare(&mut self, tx: &ParsedTx) -> Result<(), Reject> {
        let (vote, wrote) = self.run(|view, ctx| {
            let legs = ctx.own_legs(tx).expect("nothing is hidden");
            rules::reserve(view, ctx, tx, &legs, Signatures::Unchecked)
        });
        assert!(vote.is_ok() || !wrote, "a NO leaves no trace");
        vote
    }

    pub fn vote(&mut self, moves: Vec<Move>, owners: &[u8]) -> Result<ParsedTx, Reject> {
        let tx = self.tx(moves, owners);
        self.prepare(&tx).map(|()| tx)
    }

    pub fn post(&mut self, tx: &ParsedTx) -> Effects {
        self.run(|view, ctx| rules::post(view, ctx, tx.txid, &ctx.own_legs(tx).expect("nothing is hidden"))).0
    }

    pub fn release(&mut self, tx: &ParsedTx) {
        self.run(|view, ctx| rules::release(view, tx.txid, &ctx.own_legs(tx).expect("nothing is hidden")));
    }

    pub fn run_tx(&mut self, tx: &ParsedTx) -> Result<Effects, Reject> {
        let (result, wrote) = self.run(|view, ctx| rules::execute(view, ctx, tx));
        assert_eq!(wrote, result.is_ok(), "a refusal leaves no trace");
        result
    }

    pub fn execute(&mut self, moves: Vec<Move>, owners: &[u8]) -> Result<Effects, Reject> {
        let tx = self.tx(moves, owners);
        self.run_tx(&tx)
    }

    /// The reason of a refusal.
    pub fn refusal(&mut self, mv: Move, owners: &[u8]) -> Option<Reject> {
        self.execute(vec![mv], owners).err()
    }

    pub fn load<T: borsh::BorshDeserialize>(&self, key: &[u8]) -> Option<T> {
        self.state.get(key).map(|bytes| borsh::from_slice(bytes).expect("it decodes"))
    }

    pub fn record(&self, seed: u8) -> AccountRecord {
        self.load(&schema::account(&single(seed).address())).unwrap_or_default()
    }

    pub fn balance(&self, seed: u8) -> Balance {
        let record = self.record(seed);
        record.balances.iter().find(|line| line.0 == self.asset).map(|line| line.1).unwrap_or_default()
    }

    pub fn claims(&self, seed: u8) -> usize {
        let list: ClaimList = self.load(&schema::claims(&single(seed).address())).unwrap_or_default();
        list.claims.len()
    }
}
