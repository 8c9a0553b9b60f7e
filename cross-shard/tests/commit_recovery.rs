//! What happens to a transaction when mail between its two groups is late, later than any deadline.

mod support;

use bytes::Bytes;
use cross_shard::Message;
use cross_shard::commit::{self, CommitContext, Decision, Handed, Progress, Register};
use ledger::hash::Hash32;
use ledger::ids::{Address, AssetId, ClusterId, GroupId, Height, LedgerId, TimeMs};
use ledger::limits::{REGISTER_GRACE_MS, REGISTER_RECHECK_MS};
use ledger::rules::RuleContext;
use ledger::tx::{Move, ParsedTx, SignedTx, Slot, TxBody};
use ledger::view::View;
use ledger::{AccountRecord, Authorisation, Balance, Layout, Reject, SecretKey, schema};
use support::{Group, State, with_view};

const NOW: u64 = 1_700_000_000_000;
const ASSET: AssetId = AssetId([1; 16]);
const CLUSTER: ClusterId = ClusterId(Hash32([9; 32]));

/// Two shards, with an account of a thousand in each.
struct Pair {
    layout: Layout,
    states: [State; 2],
    owners: [SecretKey; 2],
    heights: [u64; 2],
}

fn address(key: &SecretKey) -> Address {
    Authorisation::Single(key.public()).address()
}

impl Pair {
    fn new() -> Self {
        let layout = Layout::even(2);
        let owner_in = |shard: u32| {
            let mut keys = (0u32..).map(|number| SecretKey::derive(&number.to_le_bytes(), b"owner"));
            keys.find(|key| layout.locate(&address(key)) == GroupId::shard(shard)).expect("there are enough keys")
        };
        let owners = [owner_in(0), owner_in(1)];
        let states = [0, 1].map(|shard: usize| {
            let mut state = State::new();
            let balances = vec![(ASSET, Balance { posted: 1_000, held: 0 })];
            let record = AccountRecord { balances, ..AccountRecord::default() };
            with_view(&mut state, |view| {
                view.store(schema::account(&address(&owners[shard])), &record);
                for ordinal in 0..2 {
                    view.store(schema::current_committee(GroupId::shard(ordinal)), &Group::new(ordinal).committee);
                }
            });
            state
        });
        Self { layout, states, owners, heights: [0; 2] }
    }

    /// A transaction in which each account pays the other, signed by both.
    fn swap(&self, salt: u8, valid_until_ms: u64) -> ParsedTx {
        let [one, other] = [address(&self.owners[0]), address(&self.owners[1])];
        let pay = |from, to| Move::Pay { from, to, asset: ASSET, amount: 10 };
        let clear = |mv| Slot::Clear { ledger: LedgerId::MAIN, mv };
        let body = TxBody {
            version: 1,
            cluster: CLUSTER,
            valid_until_ms: TimeMs(valid_until_ms),
            salt: [salt; 16],
            slots: vec![clear(pay(one, other)), clear(pay(other, one))],
            memo: Vec::new(),
        };
        let signed = SignedTx::sign(&body, &[&self.owners[0], &self.owners[1]]);
        ParsedTx::decode(&CLUSTER, &signed.encode()).expect("it is well formed")
    }

    /// Makes a block of one group: the sweep, then whatever `run` does.
    fn block<R>(
        &mut self,
        shard: usize,
        time_ms: u64,
        run: impl FnOnce(&mut View<'_>, &CommitContext<'_>, &mut Vec<Progress>) -> R,
    ) -> (R, Vec<Progress>) {
        self.heights[shard] += 1;
        let rules = RuleContext {
            group: GroupId::shard(u32::try_from(shard).expect("there are two")),
            ledger: LedgerId::MAIN,
            layout: Some(&self.layout),
            time_ms: TimeMs(time_ms),
            burned: &|_| 0,
            permission: None,
        };
        let height = Height(self.heights[shard]);
        let ctx = CommitContext { rules, cluster: CLUSTER, height, barred: None, by_hand: false };
        let (result, _) = with_view(&mut self.states[shard], |view| {
            let mut progress = Vec::new();
            commit::sweep(view, &ctx, &mut progress);
            (run(view, &ctx, &mut progress), progress)
        });
        result
    }

    fn hand_over(&mut self, shard: usize, time_ms: u64, tx: &ParsedTx) -> Result<Handed, Reject> {
        let groups = vec![GroupId::shard(0), GroupId::shard(1)];
        self.block(shard, time_ms, |view, ctx, out| commit::hand_over(view, ctx, tx, groups, out)).0
    }

    /// Delivers all mail of a group to the other, and acknowledges it.
    fn deliver(&mut self, from: usize, time_ms: u64) -> Vec<Progress> {
        let (to, source) = (1 - from, GroupId::shard(u32::try_from(from).expect("there are two")));
        let dest = GroupId::shard(u32::try_from(to).expect("there are two"));
        let prefix = schema::mail(dest, 0)[..9].to_vec();
        let mail: Vec<Bytes> = self.states[from]
            .iter()
            .filter(|(key, _)| key.starts_with(&prefix))
            .map(|(_, value)| value.clone())
            .collect();
        let (_, progress) = self.block(to, time_ms, |view, ctx, out| {
            for bytes in &mail {
                let Ok(Message::Vote(vote)) = borsh::from_slice(bytes) else { continue };
                commit::take_vote(view, ctx, source, &vote, out).expect("it is a vote of a voter");
            }
        });
        with_view(&mut self.states[from], |view| {
            let mut head = cross_shard::stream::out_stream(view, dest);
            head.acked = head.next_seq;
            view.store(schema::outbox(dest), &head);
        });
        self.states[from].retain(|key, _| !key.starts_with(&prefix));
        progress
    }

    fn register(&self, shard: usize, tx: &ParsedTx) -> Option<Register> {
        let bytes = self.states[shard].get(&schema::register(&address(&self.owners[shard]), &tx.txid))?;
        Some(borsh::from_slice(bytes).expect("it decodes"))
    }

    fn held(&self, shard: usize) -> u128 {
        let bytes = &self.states[shard][&schema::account(&address(&self.owners[shard]))];
        let record: AccountRecord = borsh::from_slice(bytes).expect("it decodes");
        record.balances[0].1.held
    }
}

#[test]
fn a_register_goes_when_its_time_has_come_and_not_before() {
    let mut pair = Pair::new();
    let tx = pair.swap(1, NOW + 1_000);
    assert_eq!(pair.hand_over(0, NOW, &tx), Ok(Handed::Voted(Decision::Yes)));
    assert_eq!(pair.held(0), 10);
    let there = pair.deliver(0, NOW + 10);
    assert_eq!(there.len(), 2, "it votes and resolves in one apply: {there:?}");
    pair.deliver(1, NOW + 20);
    assert_eq!((pair.held(0), pair.held(1)), (0, 0));
    for shard in [0, 1] {
        pair.block(shard, NOW + 1_000 + REGISTER_GRACE_MS, |_, _, _| ());
        assert!(pair.register(shard, &tx).is_some());
        pair.block(shard, NOW + 2_001 + REGISTER_GRACE_MS, |_, _, _| ());
        assert_eq!(pair.register(shard, &tx), None);
    }
}

/// Mail that is under way for longer than deadline and grace makes the other group vote when it has
/// swept past the time at which that register could go.
#[test]
fn a_register_that_is_late_itself_goes_too() {
    let mut pair = Pair::new();
    let long_ago = pair.swap(1, NOW + 1_000);
    assert_eq!(pair.hand_over(0, NOW, &long_ago), Ok(Handed::Voted(Decision::Yes)));
    let late = NOW + 3 * REGISTER_GRACE_MS;
    // Something else is swept meanwhile, so that the sweep stands later than the first deadline.
    let other = pair.swap(2, NOW + REGISTER_GRACE_MS);
    assert_eq!(pair.hand_over(1, NOW, &other), Ok(Handed::Voted(Decision::Yes)));
    pair.block(1, late - 10_000, |_, _, _| ());
    pair.deliver(0, late);
    assert_eq!(pair.register(1, &long_ago).map(|register| register.decision), Some(Decision::No(Reject::Expired)));
    pair.deliver(1, late + 10);
    assert_eq!(pair.held(0), 0);
    for shard in [0, 1] {
        let due = pair.block(shard, late + 20, |view, _, _| commit::next_deadline(view)).0;
        assert!(due.is_some(), "shard {shard} has something left to do");
        pair.block(shard, late + 2 * REGISTER_RECHECK_MS, |_, _, _| ());
        assert_eq!(pair.register(shard, &long_ago), None, "shard {shard}");
    }
}
