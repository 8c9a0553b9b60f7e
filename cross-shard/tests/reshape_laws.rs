//! Laws of groups that are cut and joined while mail is under way and transactions are undecided, over the real
//! account rules. Whatever is cut and joined when, and in whatever order mail arrives: every payment has its effect
//! exactly once or not at all, every vote that is sent is taken, and once mail flows and time passes nothing is held, no
//! stream has anything left, every register is gone, and whoever is asked for the outcome of a transaction can tell it.

mod support;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use cross_shard::closed::{self, ClosedStream};
use cross_shard::commit::{self, CommitContext, Prepared, Progress};
use cross_shard::estate::{self, Parent};
use cross_shard::stream::{self, InCursor, OutStream};
use cross_shard::{Ended, Message, Reshaped};
use ledger::account::FLAG_LIMITED;
use ledger::hash::{Hash32, sha256};
use ledger::ids::{Address, AssetId, ClusterId, GroupId, Height, JobId, LedgerId, TimeMs, TxId};
use ledger::layout::{BitPrefix, Layout};
use ledger::limits::REGISTER_GRACE_MS;
use ledger::rules::{self, Credit, RuleContext};
use ledger::tx::{Move, Opening, ParsedTx, SignedTx, Slot, Submission, TxBody};
use ledger::view::View;
use ledger::{AccountRecord, Authorisation, SecretKey, schema};
use proptest::prelude::*;
use support::{Group, State, with_view};

const CLUSTER: ClusterId = ClusterId(Hash32([5; 32]));
const ASSET: AssetId = AssetId([1; 16]);
const FUNDS: u128 = 100;
const ACCOUNTS: usize = 10;
/// So few that self mail lasts for several blocks.
const SELF_MAIL: usize = 1;
const NOTHING_BURNED: &dyn Fn(&AssetId) -> u128 = &|_| 0;

fn key(number: usize) -> SecretKey {
    SecretKey::derive(&number.to_le_bytes(), b"reshape")
}

fn address(number: usize) -> Address {
    Authorisation::Single(key(number).public()).address()
}

struct Shard {
    state: State,
    layout: Layout,
    height: u64,
    /// What the beacon has sent and the group has not taken.
    news: VecDeque<Reshaped>,
}

struct Made {
    signed: SignedTx,
    openings: Vec<(GroupId, Opening)>,
    /// What it does to each account: before, after.
    effect: Vec<(usize, u128, u128)>,
}

struct World {
    layout: Layout,
    shards: BTreeMap<GroupId, Shard>,
    now_ms: u64,
    salt: u64,
    outcomes: BTreeMap<TxId, bool>,
    /// Who has told how a transaction ended, and so has a receipt, as have all that come from it.
    told: BTreeSet<(TxId, GroupId)>,
    /// Synchronous payments: what has left a group, less what has come into one.
    on_its_way: i128,
}

/// A group at work on one block.
struct Work<'a> {
    me: GroupId,
    layout: &'a mut Layout,
    now_ms: u64,
    height: u64,
    outcomes: &'a mut BTreeMap<TxId, bool>,
    told: &'a mut BTreeSet<(TxId, GroupId)>,
    on_its_way: &'a mut i128,
}

impl Work<'_> {
    fn run<T>(
        &mut self,
        view: &mut View<'_>,
        work: impl FnOnce(&mut View<'_>, &CommitContext<'_>, &mut Vec<Progress>) -> T,
    ) -> T {
        let rules = RuleContext {
            group: self.me,
            ledger: LedgerId::MAIN,
            layout: Some(&*self.layout),
            time_ms: TimeMs(self.now_ms),
            burned: NOTHING_BURNED,
            permission: None,
        };
        let height = Height(self.height);
        let ctx = CommitContext { rules, cluster: CLUSTER, height, barred: None, by_hand: false };
        let mut progress = Vec::new();
        let result = work(view, &ctx, &mut progress);
        for step in progress {
            let (txid, committed) = match step {
                Progress::Voted(..) => continue,
                Progress::Committed(txid, effects) => {
                    let sum = |side: &[(GroupId, AssetId, u128)]| side.iter().map(|line| line.2 as i128).sum::<i128>();
                    *self.on_its_way += sum(&effects.exported) - sum(&effects.imported);
                    for (dest, credit) in effects.credits {
                        stream::emit(view, dest, Message::Credit(credit).encode());
                    }
                    (txid, true)
                }
                Progress::Aborted(txid, ..) => (txid, false),
            };
            let known = *self.outcomes.entry(txid).or_insert(committed);
            assert_eq!(known, committed, "{txid} ends in one way everywhere");
            assert!(self.told.insert((txid, self.me)), "{} has one receipt of {txid}", self.me);
        }
        result
    }

    fn begin(&mut self, view: &mut View<'_>) {
        for (source, message) in estate::self_mail(view, self.layout, self.me, SELF_MAIL) {
            self.receive(view, source, message);
        }
        self.run(view, commit::sweep);
    }

    fn receive(&mut self, view: &mut View<'_>, source: GroupId, message: Message) {
        match message {
            Message::Credit(credit) => {
                let owner = self.layout.locate(&credit.account);
                if owner == self.me {
                    rules::apply_credit(view, &credit);
                } else {
                    stream::emit(view, owner, Message::Credit(credit).encode());
                }
            }
            Message::Vote(vote) => {
                let taken = self.run(view, |view, ctx, out| commit::take_vote(view, ctx, source, &vote, out));
                assert_eq!(taken, Ok(()), "{source} says to {} what it may say", self.me);
            }
            Message::Closed(told) => {
                let moved = closed::take(view, self.layout, self.me, source, &told);
                for (source, message) in moved.own {
                    self.receive(view, source, message);
                }
            }
            Message::Reshaped(reshaped) => {
                assert!(reshaped.follows(self.layout.version));
                closed::adopt(view, self.me, &reshaped);
                *self.layout = reshaped.layout;
            }
            other => panic!("nobody sends {other:?}"),
        }
    }
}

fn prefixed(state: &State, space: u8) -> Vec<(Vec<u8>, Bytes)> {
    state.iter().filter(|(key, _)| key[0] == space).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn load<T: borsh::BorshDeserialize>(state: &State, key: &[u8]) -> Option<T> {
    state.get(key).map(|bytes| borsh::from_slice(bytes).expect("it decodes"))
}

/// What is under a prefix of the accounts that a state has.
fn cut(state: &mut State, prefix: BitPrefix) {
    state.retain(|key, _| {
        let partition = key.get(1..33).and_then(|part| <&[u8; 32]>::try_from(part).ok());
        key[0] != schema::STATE || partition.is_some_and(|part| prefix.covers(part))
    });
}

impl World {
    fn new(count: u32) -> Self {
        let layout = Layout::even(count);
        let shard = |group| {
            let mut state = State::new();
            with_view(&mut state, |view| {
                for other in &layout.shards {
                    view.put(schema::current_committee(other.group), Vec::new());
                }
                view.store(schema::layout(), &layout);
                for number in (0..ACCOUNTS).filter(|number| layout.locate(&address(*number)) == group) {
                    let (txid, account) = (TxId(Hash32::ZERO), address(number));
                    rules::apply_credit(view, &Credit { txid, move_index: 0, account, asset: ASSET, amount: FUNDS });
                }
            });
            Shard { state, layout: layout.clone(), height: 0, news: VecDeque::new() }
        };
        let shards = layout.shards.iter().map(|range| (range.group, shard(range.group))).collect();
        let (outcomes, told) = (BTreeMap::new(), BTreeSet::new());
        Self { layout, shards, now_ms: 1_000_000, salt: 0, outcomes, told, on_its_way: 0 }
    }

    fn groups(&self) -> Vec<GroupId> {
        self.shards.keys().copied().collect()
    }

    fn apply<T>(&mut self, group: GroupId, work: impl FnOnce(&mut Work<'_>, &mut View<'_>) -> T) -> T {
        let shard = self.shards.get_mut(&group).expect("it lives");
        shard.height += 1;
        let mut at = Work {
            me: group,
            layout: &mut shard.layout,
            now_ms: self.now_ms,
            height: shard.height,
            outcomes: &mut self.outcomes,
            told: &mut self.told,
            on_its_way: &mut self.on_its_way,
        };
        with_view(&mut shard.state, |view| {
            at.begin(view);
            work(&mut at, view)
        })
        .0
    }

    /// Takes the next word of the beacon, if there is one.
    fn hear(&mut self, group: GroupId) -> bool {
        let Some(reshaped) = self.shards.get_mut(&group).expect("it lives").news.pop_front() else { return false };
        self.apply(group, |at, view| at.receive(view, GroupId::BEACON, Message::Reshaped(reshaped)));
        true
    }

    /// Takes the next message of a stream, if there is one and the receiver knows the sender.
    fn deliver(&mut self, source: GroupId, dest: GroupId) -> bool {
        let layout = &self.shards[&dest].layout;
        if layout.prefix_of(source).is_none() {
            // Not heard of yet: the bundle is parked.
            return false;
        }
        let mut cursor: InCursor = load(&self.shards[&dest].state, &schema::inbox(source)).unwrap_or_default();
        let mail = schema::mail(dest, cursor.next_seq);
        let Some(bytes) = self.shards[&source].state.get(&mail).cloned() else { return false };
        let message: Message = borsh::from_slice(&bytes).expect("a message");
        cursor.push(&bytes);
        self.apply(dest, |at, view| {
            view.store(schema::inbox(source), &cursor);
            at.receive(view, source, message);
        });
        true
    }

    fn acknowledge(&mut self, source: GroupId, dest: GroupId) {
        let Some(cursor) = load::<InCursor>(&self.shards[&dest].state, &schema::inbox(source)) else { return };
        let shard = self.shards.get_mut(&source).expect("it lives");
        let Some(head) = load::<OutStream>(&shard.state, &schema::outbox(dest)) else { return };
        for seq in head.acked..cursor.next_seq {
            shard.state.remove(&schema::mail(dest, seq));
        }
        let head = OutStream { acked: head.acked.max(cursor.next_seq), ..head };
        with_view(&mut shard.state, |view| view.store(schema::outbox(dest), &head));
    }

    fn pairs(&self) -> Vec<(GroupId, GroupId)> {
        let groups = self.groups();
        let all = groups.iter().flat_map(|a| groups.iter().map(|b| (*a, *b)));
        all.filter(|(a, b)| a != b).collect()
    }

    /// Seals, births and the word to all others, as one job of the beacon does it.
    fn reshape(&mut self, parents: &[GroupId], next: Layout) {
        // The seal stands behind every earlier word of the beacon.
        for parent in parents {
            while self.hear(*parent) {}
        }
        let ended: Vec<Shard> = parents.iter().map(|parent| self.shards.remove(parent).expect("it lives")).collect();
        let children = next.lineage.last().expect("somebody ended").successors.clone();
        let committees: Vec<_> = children.iter().map(|child| Group::new(child.ordinal()).committee).collect();
        for (group, shard) in &mut self.shards {
            let taken = |end: &Shard| load::<InCursor>(&end.state, &schema::inbox(*group)).unwrap_or_default().next_seq;
            let of = |(parent, end): (&GroupId, &Shard)| Ended { group: *parent, taken: taken(end) };
            shard.news.push_back(Reshaped {
                version: 1,
                job: JobId(next.version.0),
                layout: next.clone(),
                committees: committees.clone(),
                ended: parents.iter().zip(&ended).map(of).collect(),
            });
        }
        for (child, whole) in children.iter().zip([true, false]) {
            let state = birth(parents, &ended, *child, whole, &next, &children);
            let height = 1 + ended.iter().map(|end| end.height).max().unwrap_or_default();
            self.shards.insert(*child, Shard { state, layout: next.clone(), height, news: VecDeque::new() });
        }
        self.layout = next;
    }

    fn split(&mut self, at: usize) {
        let group = self.layout.shards[at % self.layout.shards.len()].group;
        let first = self.layout.next_shard();
        let children = [first, GroupId::shard(first.ordinal() + 1)];
        let next = self.layout.split(group, children).expect("it is not so deep");
        self.reshape(&[group], next);
    }

    fn merge(&mut self, at: usize) {
        let pairs = self.layout.shards.windows(2).map(|pair| [pair[0].group, pair[1].group]);
        let next = |pair| Some((pair, self.layout.merge(pair, self.layout.next_shard())?));
        let mut can: Vec<_> = pairs.filter_map(next).collect();
        if !can.is_empty() {
            let (pair, next) = can.swap_remove(at % can.len());
            self.reshape(&pair, next);
        }
    }

    fn has_self_mail(&self, group: GroupId) -> bool {
        let mut closed = self.shards[&group].state.iter().filter(|(key, _)| key.starts_with(schema::CLOSED_PREFIX));
        closed.any(|(_, bytes)| {
            let stream: ClosedStream = borsh::from_slice(bytes).expect("a stream");
            stream.taken.is_some() && stream.kept < stream.next_seq
        })
    }

    /// All mail is delivered and time passes, until nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..6 {
            loop {
                let heard = self.groups().into_iter().filter(|group| self.hear(*group)).count();
                let taken = self.pairs().into_iter().filter(|(a, b)| self.deliver(*a, *b)).count();
                if heard + taken == 0 {
                    break;
                }
            }
            self.pairs().into_iter().for_each(|(a, b)| self.acknowledge(a, b));
            self.now_ms += 60_000 + 2 * REGISTER_GRACE_MS;
            for group in self.groups() {
                self.apply(group, |_, _| ());
                // Self mail that is left makes blocks due.
                while self.has_self_mail(group) {
                    self.apply(group, |_, _| ());
                }
            }
        }
    }

    fn make(&mut self, legs: &[(usize, usize, u128, bool)], valid_ms: u64, hidden: u8) -> Made {
        let (mut slots, mut openings, mut effect) = (Vec::new(), Vec::new(), Vec::new());
        for ((from, to, amount, sync), slot) in legs.iter().zip(0u16..) {
            let (asset, amount) = (ASSET, *amount);
            effect.push((*from, amount, 0));
            effect.push((*to, 0, amount));
            let (from, to) = (address(*from), address(*to));
            let mv = match sync {
                true => Move::PaySync { from, to, asset, amount },
                false => Move::Pay { from, to, asset, amount },
            };
            let homes: BTreeSet<GroupId> = mv.voters().map(|voter| self.layout.locate(&voter.account)).collect();
            match homes.first() {
                Some(group) if hidden >> slot & 1 == 1 && homes.len() == 1 => {
                    let opening = Opening { slot, salt: sha256(&[slot as u8]), mv };
                    slots.push(Slot::Hidden { ledger: LedgerId::MAIN, group: *group, hash: opening.hash() });
                    openings.push((*group, opening));
                }
                _ => slots.push(Slot::Clear { ledger: LedgerId::MAIN, mv }),
            }
        }
        self.salt += 1;
        let mut salt = [0; 16];
        salt[..8].copy_from_slice(&self.salt.to_le_bytes());
        let valid_until_ms = TimeMs(self.now_ms + valid_ms);
        let body = TxBody { version: 1, cluster: CLUSTER, valid_until_ms, salt, slots, memo: Vec::new() };
        let signers: BTreeSet<usize> = legs.iter().map(|leg| leg.0).collect();
        let keys: Vec<SecretKey> = signers.into_iter().map(key).collect();
        Made { signed: SignedTx::sign(&body, &keys.iter().collect::<Vec<_>>()), openings, effect }
    }

    /// Hands a transaction to a group, with the openings of the slots that it votes on by what it knows.
    fn hand_over(&mut self, group: GroupId, made: &Made) {
        let layout = &self.shards[&group].layout;
        let own = made.openings.iter().filter(|(named, _)| layout.heir(*named) == group);
        let bytes = Submission::encode(made.signed.encode(), own.map(|(_, opening)| opening.clone()).collect());
        // A hidden move may repeat another one; whoever opens it sees that.
        let Ok(tx) = ParsedTx::decode(&CLUSTER, &bytes) else { return };
        self.apply(group, |at, view| {
            at.run(view, |view, ctx, out| {
                let Ok(groups) = ctx.rules.all_voters(&tx.body) else { return };
                let several = groups.len() > 1 || commit::prepared(view, &tx.txid).is_some();
                if several && groups.contains(&ctx.rules.group) {
                    // Refused or not: whoever was not reached votes on mail.
                    let _refused = commit::hand_over(view, ctx, &tx, groups, out);
                }
            });
        });
    }

    /// Posted and held of every account, wherever it lies, which is in one group.
    fn balances(&self) -> BTreeMap<usize, (u128, u128)> {
        let of = |number: usize| {
            let key = schema::account(&address(number));
            let mut found = self.shards.values().filter_map(|shard| load::<AccountRecord>(&shard.state, &key));
            let record = found.next().expect("every account is somewhere");
            assert!(found.next().is_none(), "and nowhere else");
            let balance = record.balances.iter().find(|(asset, _)| *asset == ASSET).map(|(_, balance)| *balance);
            (number, balance.map_or((0, 0), |balance| (balance.posted, balance.held)))
        };
        (0..ACCOUNTS).map(of).collect()
    }

    /// A router asks the groups that vote by the layout in force, and each of them has a receipt of what has ended.
    fn check_told(&self, signed: &SignedTx) {
        let (txid, body) = (signed.txid(&CLUSTER), TxBody::decode(&signed.body).expect("it was made here"));
        if !self.outcomes.contains_key(&txid) {
            return;
        }
        for asked in rules::all_voter_groups(&self.layout, &body).expect("shards of this layout") {
            let mut told = self.told.iter().filter(|(of, _)| *of == txid).map(|(_, group)| *group);
            assert!(told.any(|group| self.layout.descends(asked, group)), "{asked} tells how {txid} ended");
        }
    }

    fn check_rest(&self, made: &[Made]) {
        let mut expected: BTreeMap<usize, u128> = (0..ACCOUNTS).map(|number| (number, FUNDS)).collect();
        let done = made.iter().filter(|made| self.outcomes.get(&made.signed.txid(&CLUSTER)) == Some(&true));
        let effects: Vec<(usize, u128, u128)> = done.flat_map(|made| made.effect.clone()).collect();
        for (number, _, plus) in &effects {
            *expected.get_mut(number).expect("an account") += plus;
        }
        for (number, minus, _) in &effects {
            *expected.get_mut(number).expect("an account") -= minus;
        }
        let expected: BTreeMap<usize, (u128, u128)> =
            expected.into_iter().map(|(number, sum)| (number, (sum, 0))).collect();
        assert_eq!(self.balances(), expected, "each transaction once or not at all, and nothing held");
        assert_eq!(self.on_its_way, 0, "what has left a group has come into another one");
        for made in made {
            self.check_told(&made.signed);
        }
        for (group, shard) in &self.shards {
            let kind = |kind| shard.state.keys().filter(|key| key[0] == schema::STATE && key[33] == kind).count();
            assert_eq!((kind(schema::KIND_REGISTER), kind(schema::KIND_CLAIMS)), (0, 0), "{group}");
            assert!(prefixed(&shard.state, schema::CLOSED_MAIL).is_empty(), "{group}");
            assert!(prefixed(&shard.state, schema::MAIL).is_empty(), "{group}");
            assert!(prefixed(&shard.state, schema::DEADLINE).is_empty(), "{group}");
            for (_, bytes) in prefixed(&shard.state, schema::PREPARED) {
                let record: Prepared = borsh::from_slice(&bytes).expect("a record");
                let carried_out =
                    record.casts.iter().filter(|cast| cast.group == *group).all(|cast| cast.outcome.is_some());
                assert!(record.dropped.is_some() && carried_out, "{group} {record:?}");
            }
            for (key, bytes) in shard.state.iter().filter(|(key, _)| key.starts_with(schema::CLOSED_PREFIX)) {
                let stream: ClosedStream = borsh::from_slice(bytes).expect("a stream");
                assert!(stream.taken.is_some() && stream.kept == stream.next_seq, "{group} {key:?} {stream:?}");
            }
            for (key, _) in shard.state.iter().filter(|(key, _)| key[0] == schema::STREAM) {
                let peer = GroupId(u64::from_be_bytes(key[key.len() - 8..].try_into().expect("eight bytes")));
                let open = !key.starts_with(schema::CLOSED_PREFIX);
                assert!(
                    !open || !shard.layout.retired(peer),
                    "{group} has a stream of or to {peer}, which was retired"
                );
            }
        }
    }
}

/// The first state of a child: that of its parents, as far as it is for it.
fn birth(
    parents: &[GroupId],
    ended: &[Shard],
    child: GroupId,
    whole: bool,
    next: &Layout,
    children: &[GroupId],
) -> State {
    let prefix = next.prefix_of(child).expect("it lives");
    let estates: Vec<Parent<'_>> =
        parents.iter().zip(ended).map(|(group, end)| Parent { group: *group, state: &end.state }).collect();
    let writes = estate::inherit(&estates, whole).expect("a map does not fail");
    let mut state = ended[0].state.clone();
    for (key, value) in writes {
        match value {
            Some(value) => state.insert(key, value),
            None => state.remove(&key),
        };
    }
    if let [left, right] = ended {
        let prefix_of = |at: usize| next.prefix_ever(parents[at]).expect("it has lived");
        for space in [schema::STATE, schema::DEADLINE] {
            state.extend(prefixed(&right.state, space));
        }
        let deadlines = ended.iter().flat_map(|end| prefixed(&end.state, schema::DEADLINE));
        let open: BTreeSet<TxId> = deadlines.filter_map(|(key, _)| Some(schema::deadline_of(&key)?.1)).collect();
        for (key, bytes) in prefixed(&right.state, schema::PREPARED) {
            let theirs: Prepared = borsh::from_slice(&bytes).expect("a record");
            let merged = match load::<Prepared>(&left.state, &key) {
                // What both have done with is history.
                Some(ours) if open.contains(&theirs.txid) => {
                    commit::merge_records((prefix_of(0), ours), (prefix_of(1), theirs))
                }
                Some(ours) => ours,
                None => theirs,
            };
            state.insert(key, Bytes::from(borsh::to_vec(&merged).expect("it encodes")));
        }
        // Of what is undecided each had counted its own part; after a cut this is more than there is, and never less.
        for (key, bytes) in right.state.iter().filter(|(key, _)| key.starts_with(b"Xsync/")) {
            let theirs: u128 = borsh::from_slice(bytes).expect("an amount");
            let sum = theirs + load::<u128>(&left.state, key).unwrap_or_default();
            state.insert(key.clone(), Bytes::from(borsh::to_vec(&sum).expect("it encodes")));
        }
        let swept = |end: &Shard| load::<TimeMs>(&end.state, &schema::swept()).unwrap_or_default();
        let lower = swept(left).min(swept(right));
        state.insert(schema::swept(), Bytes::from(borsh::to_vec(&lower).expect("it encodes")));
    }
    cut(&mut state, prefix);
    with_view(&mut state, |view| {
        view.store(schema::layout(), next);
        parents.iter().for_each(|parent| view.delete(schema::current_committee(*parent)));
        children.iter().for_each(|child| view.put(schema::current_committee(*child), Vec::new()));
    });
    state
}

#[derive(Clone, Debug)]
enum Act {
    Make { legs: Vec<(usize, usize, u128, bool)>, valid_ms: u64, hidden: u8 },
    HandOver { tx: usize, group: usize },
    Deliver { pair: usize, acknowledge: bool },
    Hear { group: usize },
    Pass(u64),
    Split(usize),
    Merge(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let account = || 0usize..ACCOUNTS;
    let leg = (account(), account(), 1u128..60, prop::bool::weighted(0.3)).prop_map(|(from, to, amount, sync)| {
        let to = if to == from { (to + 1) % ACCOUNTS } else { to };
        (from, to, amount, sync)
    });
    prop_oneof![
        4 => (prop::collection::vec(leg, 1..4), 1u64..60_000, any::<u8>(), any::<bool>())
            .prop_map(|(legs, valid_ms, hidden, hides)| Act::Make { legs, valid_ms, hidden: if hides { hidden } else { 0 } }),
        8 => (0usize..6, 0usize..8).prop_map(|(tx, group)| Act::HandOver { tx, group }),
        14 => (0usize..64, any::<bool>()).prop_map(|(pair, acknowledge)| Act::Deliver { pair, acknowledge }),
        4 => (0usize..8).prop_map(|group| Act::Hear { group }),
        1 => (1u64..30_000).prop_map(Act::Pass),
        1 => (0usize..8).prop_map(Act::Split),
        1 => (0usize..8).prop_map(Act::Merge),
    ]
}

/// What happens, then rest, at which the laws hold.
fn play(count: u32, acts: Vec<Act>) {
    let mut world = World::new(count);
    let mut made: Vec<Made> = Vec::new();
    for act in acts {
        match act {
            Act::Make { legs, valid_ms, hidden } => {
                let tx = world.make(&legs, valid_ms, hidden);
                if ParsedTx::decode(&CLUSTER, &tx.signed.encode()).is_ok() {
                    made.push(tx);
                }
            }
            Act::HandOver { tx, group } if !made.is_empty() => {
                let groups = world.groups();
                world.hand_over(groups[group % groups.len()], &made[made.len() - 1 - tx % made.len()]);
            }
            Act::Deliver { pair, acknowledge } => {
                let pairs = world.pairs();
                if let Some((source, dest)) = pairs.get(pair % pairs.len().max(1)).copied() {
                    world.deliver(source, dest);
                    if acknowledge {
                        world.acknowledge(source, dest);
                    }
                }
            }
            Act::Hear { group } => {
                let groups = world.groups();
                world.hear(groups[group % groups.len()]);
            }
            Act::Pass(ms) => world.now_ms += ms,
            Act::Split(at) if world.shards.len() < 6 => world.split(at),
            Act::Merge(at) => world.merge(at),
            Act::HandOver { .. } | Act::Split(_) => {}
        }
    }
    world.settle();
    world.check_rest(&made);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn reshape_laws(count in 1u32..4, acts in prop::collection::vec(act(), 1..120)) {
        play(count, acts);
    }
}

fn pay(legs: &[(usize, usize)]) -> Act {
    let legs = legs.iter().map(|(from, to)| (*from, *to, 1, false)).collect();
    Act::Make { legs, valid_ms: 1, hidden: 0 }
}

fn hand(tx: usize, group: usize) -> Act {
    Act::HandOver { tx, group }
}

fn deliver(pair: usize) -> Act {
    Act::Deliver { pair, acknowledge: false }
}

// Both halves of a shard take of its self mail, and one is through with it before the other when they are joined again.

#[test]
fn self_mail_that_one_half_was_behind_with_is_taken_when_they_are_joined() {
    // A hand-over that comes to nothing gives the left half a block of its own, and so a message of self mail.
    let acts = vec![Act::Merge(0), Act::Merge(0), pay(&[(0, 1)]), Act::Split(0), hand(0, 6), Act::Merge(0)];
    play(3, acts);
    let twice = vec![Act::Split(0), Act::Split(0), Act::Merge(0), Act::Merge(0)];
    play(1, [twice, vec![pay(&[(0, 1)]), Act::Split(0), hand(0, 2), Act::Merge(0)]].concat());
}

#[test]
fn a_credit_that_the_left_half_has_taken_of_self_mail_is_not_taken_again() {
    let shaped = vec![Act::Merge(0), Act::Hear { group: 0 }, deliver(2), Act::Merge(0), Act::Split(0)];
    let paid = vec![pay(&[(0, 5), (5, 0)]), hand(0, 1), deliver(19), deliver(8)];
    play(3, [shaped, paid, vec![Act::Merge(0), Act::Split(0), hand(0, 2), Act::Merge(0)]].concat());
}

#[test]
fn a_credit_that_the_right_half_has_left_of_self_mail_is_not_lost() {
    let paid = vec![pay(&[(0, 1)]), pay(&[(9, 0), (0, 1)]), pay(&[(0, 1)]), hand(0, 0), hand(4, 1), deliver(7)];
    play(2, [paid, vec![Act::Merge(0), Act::Split(0), hand(0, 1), hand(0, 1), Act::Merge(0)]].concat());
}

#[test]
fn a_half_that_a_vote_does_not_concern_takes_none_of_self_mail() {
    let paid = vec![pay(&[(0, 1)]), Act::Make { legs: vec![(0, 5, 1, true)], valid_ms: 1, hidden: 0 }, hand(2, 5)];
    play(2, [paid, vec![Act::Merge(0), Act::Split(0), Act::Split(0)]].concat());
}

/// Two halves had carried out one vote of theirs differently far when they were joined; the half of the tree that has
/// none of its accounts knows of it all the same.
#[test]
fn a_vote_is_known_where_none_of_its_accounts_lies_any_more() {
    let made = Act::Make { legs: vec![(1, 0, 1, false), (0, 1, 1, false)], valid_ms: 1, hidden: 2 };
    let apart = vec![Act::Split(2), made, Act::Split(2), hand(0, 3), Act::Merge(0), Act::Pass(2), Act::Merge(0)];
    let joined = vec![Act::Split(1), Act::Split(3), Act::Merge(0), Act::Merge(0), pay(&[(0, 1)])];
    let beside = vec![Act::Merge(0), Act::Merge(0), Act::Split(0), Act::Split(6), pay(&[(0, 1)]), Act::Merge(0)];
    play(2, [apart, joined, beside].concat());
}

/// A shard votes on a hidden slot and is cut. Its heir speaks for the slot, and is asked; the account is its sibling's.
#[test]
fn the_heir_of_a_shard_that_a_hidden_slot_names_tells_how_it_ended_wherever_its_account_lies() {
    let quarters = Layout::even(4);
    let in_quarter = |at: usize| {
        let mut accounts = 0..ACCOUNTS;
        accounts.find(|number| quarters.locate(&address(*number)) == quarters.shards[at].group).expect("there is one")
    };
    for (hidden, other) in [(0, 2), (1, 2), (0, 3), (1, 3)].map(|(one, two)| (in_quarter(one), in_quarter(two))) {
        let legs = vec![(hidden, other, 1, false), (other, hidden, 1, false)];
        let made = Act::Make { legs, valid_ms: 1, hidden: 1 };
        // The other shard votes when it hears of it; or only when time is up.
        play(2, vec![made.clone(), hand(0, 0), Act::Split(0)]);
        play(2, vec![made.clone(), hand(0, 0), Act::Split(0), Act::Pass(2)]);
        // And so it stays when they are joined again, or cut further.
        play(2, vec![made.clone(), hand(0, 0), Act::Split(0), Act::Merge(0)]);
        play(2, vec![made, hand(0, 0), Act::Split(0), Act::Split(0)]);
    }
}

/// A shard is cut before it votes; the right half votes on what is in the clear, and the heir is given what is hidden when
/// it was joined with the right half. The account lies there, and lets one transaction take no more than its limit.
#[test]
fn the_limit_of_an_account_holds_for_a_transaction_that_is_voted_on_in_two_parts() {
    for (limit, commits) in [(29_u128, false), (30, false), (49, false), (50, true), (100, true)] {
        let mut world = World::new(1);
        let right = Layout::even(2).shards[1].group;
        let mut numbers = 0..ACCOUNTS;
        let payer = numbers.find(|number| Layout::even(2).locate(&address(*number)) == right).expect("there is one");
        let payee = (payer + 1) % ACCOUNTS;
        let whole = world.layout.shards[0].group;
        let shard = world.shards.get_mut(&whole).expect("it lives");
        with_view(&mut shard.state, |view| {
            let key = schema::account(&address(payer));
            let mut record: AccountRecord = view.load(&key).expect("it has funds");
            record.flags |= FLAG_LIMITED;
            view.store(key, &record);
            view.store(schema::limit(&address(payer), &ASSET), &limit);
        });
        let made = world.make(&[(payer, payee, 30, false), (payer, payee, 20, false)], 60_000, 2);
        let txid = made.signed.txid(&CLUSTER);
        world.split(0);
        let right = world.layout.shards[1].group;
        world.hand_over(right, &made);
        world.merge(0);
        let joined = world.layout.shards[0].group;
        assert_eq!(world.layout.shards.len(), 1);
        world.hand_over(joined, &made);
        world.settle();
        assert_eq!(world.outcomes.get(&txid), Some(&commits), "at most {limit}");
        world.check_rest(&[made]);
    }
}
