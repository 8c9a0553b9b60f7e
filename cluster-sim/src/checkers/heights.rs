//! The books of [`super::conservation`] by height: what each group held, and how far each of its streams was written and
//! taken. So conservation is judged over any vector of heights, one of each group, and not over the newest alone: what groups
//! hold at their heights, and what is on its way between them by heads and cursors, is what they had made by then.
//!
//! Owns what was held at which height, and vectors that are drawn of these. Never looks at a disk. A vector need not be one
//! that any moment had: what a group has taken that another one has not sent yet, at its height, counts as less than nothing.
//! Where shards are cut and joined, a vector has a shard, or what came from it.
//!
//! All sums are modulo 2^128, so that nothing overflows and "less than nothing" is a number.

use std::collections::{BTreeMap, BTreeSet};

use ledger::flow::FlowLine;
use ledger::ids::{AssetId, GroupId, Height};

use super::conservation::value;
use super::{BlockSeen, Facts};

/// Heights of a group that are kept, the newest ones.
const HEIGHTS_MAX: usize = 48;

/// An amount by peer and asset, since the group began.
type Amounts = BTreeMap<(GroupId, AssetId), u128>;

/// An amount by asset.
pub(super) type Sums = BTreeMap<AssetId, u128>;

/// A group's books at one height.
#[derive(Clone, Default)]
struct Book {
    held: Sums,
    /// Minted less burned.
    made: Sums,
    /// What left for a destination, and what came from a source, by the group's value flow.
    exported: Amounts,
    imported: Amounts,
    /// Synchronous credits that were posted on the payer's side, by the payee's group, and on the payee's by the payer's.
    paid: Amounts,
    received: Amounts,
    /// Heads of streams by destination, and cursors by source.
    sent: BTreeMap<GroupId, u64>,
    taken: BTreeMap<GroupId, u64>,
}

/// What a group did so far.
#[derive(Default)]
struct Past {
    now: Book,
    kept: BTreeMap<Height, Book>,
}

impl Past {
    fn keep(&mut self, height: Height) {
        self.kept.insert(height, self.now.clone());
        while self.kept.len() > HEIGHTS_MAX {
            self.kept.pop_first();
        }
    }
}

/// The books of all groups.
#[derive(Default)]
pub(super) struct Heights {
    groups: BTreeMap<GroupId, Past>,
    /// What messages carry, by source, destination and number.
    values: BTreeMap<(GroupId, GroupId), BTreeMap<u64, (AssetId, u128)>>,
    drawn: u64,
    /// Vectors that were compared.
    pub(super) vectors: u64,
    /// Of these, those in which shards have ended and others stand for them.
    pub(super) across: u64,
}

fn more(sums: &mut Sums, asset: AssetId, amount: u128) {
    let sum = sums.entry(asset).or_insert(0);
    *sum = sum.wrapping_add(amount);
}

fn less(sums: &mut Sums, asset: AssetId, amount: u128) {
    more(sums, asset, amount.wrapping_neg());
}

fn book(amounts: &mut Amounts, peer: GroupId, asset: AssetId, amount: u128) {
    let sum = amounts.entry((peer, asset)).or_insert(0);
    *sum = sum.wrapping_add(amount);
}

impl Heights {
    /// A shard begins with what its parents had, or with a part of it.
    pub(super) fn begun(&mut self, group: GroupId, height: Height, held: Sums) {
        self.groups.entry(group).or_insert_with(|| {
            let mut past = Past { now: Book { held, ..Book::default() }, kept: BTreeMap::new() };
            past.keep(height);
            past
        });
    }

    /// A group has posted the payer's side of a synchronous credit to an account of `payee`.
    pub(super) fn paid(&mut self, group: GroupId, payee: GroupId, asset: AssetId, amount: u128) {
        book(&mut self.groups.entry(group).or_default().now.paid, payee, asset, amount);
    }

    /// A group has posted the payee's side of one from an account of `payer`.
    pub(super) fn received(&mut self, group: GroupId, payer: GroupId, asset: AssetId, amount: u128) {
        book(&mut self.groups.entry(group).or_default().now.received, payer, asset, amount);
    }

    /// The rest of a block. What it posts of synchronous credits has been told before.
    pub(super) fn block(&mut self, block: &BlockSeen) {
        for (dest, seq, message) in &block.mail {
            if let Some(carried) = value(message) {
                self.values.entry((block.group, *dest)).or_default().insert(*seq, carried);
            }
        }
        let past = self.groups.entry(block.group).or_default();
        for line in &block.flow {
            past.now.line(line);
        }
        past.now.sent = block.outbox.iter().map(|leaf| (leaf.peer, leaf.next_seq)).collect();
        past.now.taken = block.inbox.iter().map(|leaf| (leaf.peer, leaf.next_seq)).collect();
        past.keep(block.header.height);
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&block.header_hash.0[..8]);
        self.drawn ^= u64::from_be_bytes(bytes);
    }

    /// What a group held at a height, if that is kept.
    pub(super) fn held(&self, group: GroupId, height: Height) -> Option<Sums> {
        let book = self.groups.get(&group)?.kept.get(&height)?;
        Some(book.held.iter().filter(|(_, amount)| **amount > 0).map(|(asset, amount)| (*asset, *amount)).collect())
    }

    /// A number below another one, which is not 0. It follows from the blocks so far.
    fn draw(&mut self, below: usize) -> usize {
        self.drawn = self.drawn.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.drawn ^ (self.drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        usize::try_from((mixed ^ (mixed >> 27)) % below as u64).unwrap_or(0)
    }

    /// Groups that together have every account once, and the shards that have ended before these began.
    fn cut(&mut self, facts: &Facts, first: &BTreeSet<GroupId>) -> (BTreeSet<GroupId>, Vec<GroupId>) {
        let (mut members, mut ended) = (first.clone(), Vec::new());
        let lineage = facts.lines.layouts().values().next_back().map_or(&[][..], |layout| &layout.lineage[..]);
        for entry in lineage {
            let parents = lineage.iter().filter(|other| other.successors == entry.successors);
            let parents: Vec<GroupId> = parents.map(|parent| parent.group).collect();
            let there = parents.iter().all(|parent| members.contains(parent))
                && entry.successors.iter().all(|child| self.groups.contains_key(child));
            if there && self.draw(3) > 0 {
                members.retain(|member| !parents.contains(member));
                members.extend(&entry.successors);
                ended.extend(parents);
            }
        }
        (members, ended)
    }

    /// Draws a vector of heights, and compares.
    ///
    /// # Errors
    /// A text with the heights, and by how much what there is differs from what was made.
    pub(super) fn compare(&mut self, facts: &Facts) -> Result<(), String> {
        let committees = facts.genesis.committees.iter().map(|committee| committee.group);
        // A channel that is founded meanwhile begins with nothing, so it is as if it had been there.
        let committees = committees.chain(facts.channels());
        let first: BTreeSet<GroupId> =
            committees.chain(facts.genesis.layout.shards.iter().map(|shard| shard.group)).collect();
        let (members, ended) = self.cut(facts, &first);
        let mut vector: Vec<(GroupId, Height)> = Vec::new();
        for group in members {
            let heights: Vec<Height> =
                self.groups.get(&group).map_or(Vec::new(), |past| past.kept.keys().copied().collect());
            if !heights.is_empty() {
                vector.push((group, heights[self.draw(heights.len())]));
            }
        }
        let plain = |group: GroupId| first.contains(&group) && !facts.lines.retired(group);
        let mut sums = Sums::new();
        for (group, height) in &vector {
            let Some(book) = self.groups.get(group).and_then(|past| past.kept.get(height)) else { continue };
            book.held.iter().for_each(|(asset, amount)| more(&mut sums, *asset, *amount));
            self.on_its_way(*group, book, &|peer| plain(*group) && plain(peer), &mut sums);
        }
        for group in &ended {
            let Some(past) = self.groups.get(group) else { continue };
            self.on_its_way(*group, &past.now, &|_| false, &mut sums);
        }
        self.vectors += u64::from(vector.len() > 1);
        self.across += u64::from(!ended.is_empty());
        match sums.into_iter().find(|(_, sum)| *sum != 0) {
            None => Ok(()),
            Some((asset, sum)) => {
                Err(format!("at {vector:?} what there is of {asset} differs by {} from what was made", sum as i128))
            }
        }
    }

    /// What has left a group and what has come to it, less what it has made. Between groups that have been there from the start
    /// and live, it is counted by heads and cursors and the messages between them; with all others by value flows, since
    /// messages of streams that have ended are addressed anew.
    fn on_its_way(&self, group: GroupId, book: &Book, by_cursor: &dyn Fn(GroupId) -> bool, sums: &mut Sums) {
        book.made.iter().for_each(|(asset, amount)| less(sums, *asset, *amount));
        for (dest, next_seq) in book.sent.iter().filter(|(dest, _)| by_cursor(**dest)) {
            self.carried((group, *dest), *next_seq).for_each(|(asset, amount)| more(sums, asset, amount));
        }
        for (source, next_seq) in book.taken.iter().filter(|(source, _)| by_cursor(**source)) {
            self.carried((*source, group), *next_seq).for_each(|(asset, amount)| less(sums, asset, amount));
        }
        for (amounts, of_cursors, left) in [
            (&book.paid, true, true),
            (&book.received, true, false),
            (&book.exported, false, true),
            (&book.imported, false, false),
        ] {
            for ((_, asset), amount) in amounts.iter().filter(|((peer, _), _)| by_cursor(*peer) == of_cursors) {
                if left { more(sums, *asset, *amount) } else { less(sums, *asset, *amount) }
            }
        }
    }

    /// What the messages of a stream below a number carry.
    fn carried(&self, stream: (GroupId, GroupId), next_seq: u64) -> impl Iterator<Item = (AssetId, u128)> + '_ {
        self.values
            .get(&stream)
            .into_iter()
            .flat_map(move |values| values.range(..next_seq))
            .map(|(_, carried)| *carried)
    }
}

impl Book {
    fn line(&mut self, line: &FlowLine) {
        self.held.insert(line.asset, line.closing);
        more(&mut self.made, line.asset, line.minted);
        less(&mut self.made, line.asset, line.burned);
        for (dest, amount) in &line.exported {
            book(&mut self.exported, *dest, line.asset, *amount);
        }
        for (source, amount) in &line.imported {
            book(&mut self.imported, *source, line.asset, *amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use cross_shard::Message;
    use ledger::committee::Committee;
    use ledger::ids::{Address, Epoch, Incarnation, TxId};
    use ledger::layout::Layout;
    use ledger::rules::Credit;

    use super::super::Seen;
    use super::super::trial::{self, block, leaf};
    use super::*;

    const ASSET: AssetId = AssetId([7; 16]);
    /// As many draws as meet every vector of a few heights.
    const DRAWS: usize = 200;

    const fn shard(ordinal: u32) -> GroupId {
        GroupId::shard(ordinal)
    }

    fn line(opening: u128, closing: u128) -> FlowLine {
        FlowLine { asset: ASSET, opening, closing, ..FlowLine::default() }
    }

    fn credit(amount: u128) -> Message {
        let (txid, account) = (TxId::default(), Address::default());
        Message::Credit(Credit { txid, move_index: 0, account, asset: ASSET, amount })
    }

    /// The first shard has made 100 and sends 30 and 20; the second one takes the first of the two, as `imported`.
    fn exchange(imported: u128) -> Heights {
        exchange_with(shard(1), imported)
    }

    /// The same with another group in the place of the second shard.
    fn exchange_with(peer: GroupId, imported: u128) -> Heights {
        let mut heights = Heights::default();
        heights.block(&BlockSeen { flow: vec![FlowLine { minted: 100, ..line(0, 100) }], ..block(shard(0), 1) });
        for (height, seq, closing, amount) in [(2, 0, 70, 30), (3, 1, 50, 20)] {
            let sent = FlowLine { exported: vec![(peer, amount)], ..line(closing + amount, closing) };
            heights.block(&BlockSeen {
                flow: vec![sent],
                mail: vec![(peer, seq, credit(amount))],
                outbox: vec![leaf(peer, seq + 1)],
                ..block(shard(0), height)
            });
        }
        heights.block(&block(peer, 1));
        let taken = FlowLine { imported: vec![(shard(0), imported)], ..line(0, imported) };
        heights.block(&BlockSeen { flow: vec![taken], inbox: vec![leaf(shard(0), 1)], ..block(peer, 2) });
        heights
    }

    fn wrong(heights: &mut Heights, facts: &Facts) -> usize {
        (0..DRAWS).filter(|_| heights.compare(facts).is_err()).count()
    }

    #[test]
    fn at_any_heights_what_there_is_and_is_on_its_way_was_made() {
        let facts = trial::facts(Layout::even(2));
        let mut heights = exchange(30);
        assert_eq!(heights.held(shard(0), Height(2)), Some(Sums::from([(ASSET, 70)])));
        assert_eq!(heights.held(shard(0), Height(9)), None);
        assert_eq!(wrong(&mut heights, &facts), 0);
        assert_eq!((heights.vectors, heights.across), (DRAWS as u64, 0));
    }

    #[test]
    fn whoever_takes_another_amount_than_its_cursor_has_passed_is_found() {
        let facts = trial::facts(Layout::even(2));
        for imported in [29, 31, 50] {
            let count = wrong(&mut exchange(imported), &facts);
            // Not at heights before it was taken.
            assert!((1..DRAWS).contains(&count), "{imported}: {count}");
        }
    }

    #[test]
    fn a_channel_that_was_founded_meanwhile_is_looked_at_like_any_group() {
        let channel = GroupId::channel(0);
        let committee = Committee::majority(channel, Incarnation(0), Epoch(0), Vec::new());
        let mut facts = trial::facts(Layout::even(2));
        let mail = vec![(shard(0), 0, Message::CommitteeUpdate(committee))];
        facts.learn(&Seen::Block(Box::new(BlockSeen { mail, ..block(GroupId::BEACON, 1) })));
        for (imported, sound) in [(30, true), (29, false), (31, false)] {
            let count = wrong(&mut exchange_with(channel, imported), &facts);
            assert_eq!(count == 0, sound, "{imported}: {count}");
        }
    }

    #[test]
    fn a_synchronous_credit_is_there_by_both_sides() {
        let facts = trial::facts(Layout::even(2));
        for posted in [true, false] {
            let mut heights = exchange(30);
            heights.paid(shard(0), shard(1), ASSET, 5);
            let paid = FlowLine { exported: vec![(shard(1), 5)], ..line(50, 45) };
            let outbox = vec![leaf(shard(1), 2)];
            heights.block(&BlockSeen { flow: vec![paid], outbox, ..block(shard(0), 4) });
            if posted {
                heights.received(shard(1), shard(0), ASSET, 5);
            }
            let received = FlowLine { imported: vec![(shard(0), 5)], ..line(30, 35) };
            let inbox = vec![leaf(shard(0), 1)];
            heights.block(&BlockSeen { flow: vec![received], inbox, ..block(shard(1), 3) });
            assert_eq!(wrong(&mut heights, &facts) == 0, posted);
        }
    }

    #[test]
    fn shards_that_begin_out_of_another_one_have_together_what_it_had() {
        let mut facts = trial::facts(Layout::even(2));
        facts.lines.learn(&Layout::even(2).split(shard(1), [shard(2), shard(3)]).expect("it can be cut"));
        for (left, right, sound) in [(10, 20, true), (30, 0, true), (10, 21, false), (30, 30, false)] {
            let mut heights = exchange(30);
            heights.begun(shard(2), Height(3), Sums::from([(ASSET, left)]));
            assert_eq!(wrong(&mut heights, &facts), 0, "only one of them is there");
            heights.begun(shard(3), Height(3), Sums::from([(ASSET, right)]));
            assert_eq!(wrong(&mut heights, &facts) == 0, sound, "{left} {right}");
            assert!(heights.across > 0 && heights.across < heights.vectors);
        }
    }

    #[test]
    fn of_every_group_the_newest_heights_are_kept() {
        let mut heights = Heights::default();
        let all = 3 * HEIGHTS_MAX as u64;
        (1..=all).for_each(|height| heights.block(&block(shard(0), height)));
        assert_eq!(heights.held(shard(0), Height(all)), Some(Sums::new()));
        assert_eq!(heights.held(shard(0), Height(all - HEIGHTS_MAX as u64)), None);
        assert_eq!(heights.groups[&shard(0)].kept.len(), HEIGHTS_MAX);
    }
}
