use cross_shard::closed::ClosedStream;
use cross_shard::{Message, commit};
use ledger::header::FLAG_SEALED;
use ledger::tree::StateTree;
use ledger::{Layout, Move, SecretKey};

use super::*;
use crate::core::applied;
use crate::core::driver::SystemView;
use crate::core::elastic::{
    Chain, JOB, LEFT, RIGHT, State, all_of, asset, born, client, clients, command, copy, decoded, merge_seal, mint,
    pay, split_seal, tree_of, tx,
};
use crate::core::follow::{Right, Side, Writes};
use crate::core::support::{PEER, SHARD, address, genesis};
use crate::core::tally::Tally;

fn sync(from: &SecretKey, to: &SecretKey, amount: u128, salt: u8) -> crate::core::entry::Command {
    let mv = Move::PaySync { from: address(from), to: address(to), asset: asset().id, amount };
    command(&tx(from, salt, vec![mv]))
}

/// [`SHARD`] with 100 and 40 in its halves, of which 10 are on their way to [`PEER`], and 7 and 5 are undecided.
fn parent() -> Chain {
    let mut chain = Chain::new(SHARD);
    let known = chain.told(&[Message::AssetUpdate(asset())]);
    let (left, right, peer) = (client(LEFT), client(RIGHT), client(PEER));
    chain.block(vec![known, mint(&left, 100, 1), mint(&right, 40, 2)]);
    chain.block(vec![pay(&left, &peer, 10, 3), sync(&left, &peer, 7, 4)]);
    chain.block(vec![sync(&right, &peer, 5, 5), pay(&left, &right, 20, 6)]);
    chain
}

fn sealed(mut chain: Chain, seal: ledger::Seal) -> Chain {
    let told = chain.told(&[Message::Seal(seal)]);
    let block = chain.block(vec![told]);
    assert_eq!(block.header.flags, FLAG_SEALED);
    chain
}

fn tally(state: &State, prefix: BitPrefix) -> Tally {
    Tally::of(genesis().cluster_id(), prefix, state).expect("it can be counted")
}

/// The roots and counts of both halves of a parent that is cut.
fn halves(chain: &Chain) -> (Vec<SubtreeRoot>, Vec<ChildTally>) {
    let (left, right) = chain.tree.clone().split().expect("it can be cut");
    let roots = [left, right].map(|mut half: StateTree| half.subtree_root()).to_vec();
    let counted = split_seal().children.iter().map(|child| tally(&chain.state, child.prefix).counted()).collect();
    (roots, counted)
}

/// The roots and counts of two parents that are joined.
fn both(parents: [&Chain; 2]) -> (Vec<SubtreeRoot>, Vec<ChildTally>) {
    let roots = parents.map(|chain| chain.tree.clone().subtree_root()).to_vec();
    let prefix = |group| Layout::even(2).prefix_of(group).expect("it is in the layout");
    (roots, parents.map(|chain| tally(&chain.state, prefix(chain.group)).counted()).to_vec())
}

/// A half of the parent, from a copy that is made at once.
fn half(chain: &Chain, child: GroupId) -> (State, Birth) {
    let (roots, tallies) = halves(chain);
    let birth = birth(&[&chain.state], child, &roots, &tallies).expect("it is born");
    let mut state = State::new();
    let prefix = split_seal().layout.prefix_of(child).expect("it is in the layout");
    copy(&mut state, &Side::Half(prefix), &all_of(&chain.state));
    (born(state, &birth), birth)
}

#[test]
fn the_halves_of_a_shard_have_what_it_had() {
    let chain = sealed(parent(), split_seal());
    let mut parts = [LEFT, RIGHT].map(|child| half(&chain, child));
    let roots: Vec<SubtreeRoot> = parts
        .iter()
        .zip(split_seal().children)
        .map(|((state, _), child)| tree_of(state, child.prefix.in_tree()).subtree_root())
        .collect();
    assert_eq!(Hash32(combine(roots[0], roots[1]).hash), chain.applied.state_root);
    let total = |state: &State| decoded::<u128>(state, &schema::total(&asset().id));
    let open = |state: &State| decoded::<u128>(state, &schema::sync_debits(&asset().id));
    assert_eq!(parts.each_ref().map(|(state, _)| total(state)), [Some(70), Some(60)]);
    assert_eq!(parts.each_ref().map(|(state, _)| open(state)), [Some(7), Some(5)]);
    for (at, (state, birth)) in parts.iter().enumerate() {
        let child = &split_seal().children[at];
        let header = &birth.header;
        assert_eq!((header.group, header.height), (child.group, chain.applied.height.next()));
        assert_eq!(header.parents, [chain.applied.header_hash]);
        assert_eq!((header.state_root, header.flags), (Hash32(roots[at].hash), FLAG_BORN));
        assert_eq!(header.committee_hash, child.committee.hash());
        assert_eq!(decoded::<Layout>(state, &schema::layout()), Some(split_seal().layout));
        let gone = [schema::sealed(), schema::current_committee(SHARD), schema::outbox(PEER), schema::mail(PEER, 0)];
        assert!(gone.iter().all(|key| !state.contains_key(key)));
        assert!(
            state.contains_key(&schema::committee(SHARD, &genesis().committees[1].hash())),
            "for what it certified"
        );
        let origin: Origin = decoded(state, &schema::origin()).expect("an origin");
        assert!(origin.well_formed());
        let spine = [Segment { group: SHARD, from: Height(0), to: chain.applied.height }];
        assert_eq!((origin.job, origin.first, origin.header_hash), (JOB, header.height, header.hash()));
        assert_eq!((origin.spine.as_slice(), origin.parents[0].group), (&spine[..], SHARD));
        // What was on its way waits for the word how far it was taken, and one of the two passes on what is not a vote.
        let closed: ClosedStream = decoded(state, &schema::closed(SHARD, PEER)).expect("it has ended");
        assert_eq!((closed.kept, closed.next_seq, closed.taken, closed.whole), (0, 3, None, at == 0));
        assert!(state.contains_key(&schema::closed_mail(SHARD, PEER, 2)));
        // Old blocks are there, and so are receipts.
        assert!(state.contains_key(&schema::header(Height(1))) && state.contains_key(&schema::entry(header.height)));
    }
    // They go on, each with its own.
    let [(left, _), (right, birth)] = &mut parts;
    let (mut left, mut right) =
        (Chain::standing(LEFT, std::mem::take(left)), Chain::standing(RIGHT, std::mem::take(right)));
    let order = applied::order(&right.state, RIGHT).expect("it has an order");
    assert_eq!((order.after, order.anchor), (None, birth.header.hash()));
    let seen = SystemView::read(&right.state, RIGHT, genesis().verify).expect("a view");
    assert_eq!(seen.recent.iter().map(|block| block.header.height).collect::<Vec<_>>(), [birth.header.height]);
    let every = SystemView::read(&right.state, RIGHT, ledger::genesis::VerifyMode::Every).expect("a view");
    assert_eq!(every.checked, birth.header.height, "what the parent had is checked");
    let (payer, other) = (client(RIGHT), clients(RIGHT).nth(1).expect("another client"));
    let block = right.block(vec![pay(&payer, &other, 9, 7)]);
    assert!(block.receipts[0].committed());
    assert_eq!((right.balance(&payer), right.balance(&other)), (51, 9));
    let block = left.block(vec![pay(&client(LEFT), &payer, 1, 8)]);
    assert_eq!(block.header.parents, [left_header(&left).hash()]);
    assert_eq!((block.mail[0].dest, left.total(), left.balance(&client(LEFT))), (RIGHT, 69, 69));
    // A transaction of before is known.
    let known = left.block(vec![mint(&client(LEFT), 100, 1)]);
    assert!(matches!(known.outcomes[0], crate::core::machine::CommandOutcome::Known(_, place) if place.chain == SHARD));
}

/// The header of the first block of a chain that has one more.
fn left_header(chain: &Chain) -> Header {
    let origin: Origin = decoded(&chain.state, &schema::origin()).expect("an origin");
    decoded(&chain.state, &schema::header(origin.first)).expect("a header")
}

#[test]
fn a_birth_that_does_not_add_up_is_none() {
    let chain = sealed(parent(), split_seal());
    let (roots, tallies) = halves(&chain);
    let base: &dyn StateReader = &chain.state;
    let attempt = |roots: &[SubtreeRoot], tallies: &[ChildTally]| birth(&[base], LEFT, roots, tallies).err();
    assert!(attempt(&roots, &tallies).is_none());
    let swapped = [roots[1], roots[0]];
    assert!(matches!(attempt(&swapped, &tallies), Some(BirthError::Root(SHARD))));
    assert!(matches!(attempt(&roots[..1], &tallies), Some(BirthError::Root(SHARD))));
    let mut more = tallies.clone();
    more[0].totals[0].1 += 1;
    assert!(matches!(attempt(&roots, &more), Some(BirthError::Totals { had: 130, have: 131, .. })));
    let mut debits = tallies.clone();
    debits[1].sync_debits.clear();
    assert!(matches!(attempt(&roots, &debits), Some(BirthError::Totals { had: 12, have: 7, .. })));
    assert!(matches!(attempt(&roots, &tallies[..1]), Some(BirthError::Totals { .. })));
    let other = birth(&[base], PEER, &roots, &tallies).err();
    assert!(matches!(other, Some(BirthError::NoChild(PEER))));
    assert!(matches!(birth(&[base, base], LEFT, &roots, &tallies).err(), Some(BirthError::Apart)));
    let unsealed = parent();
    assert!(matches!(birth(&[&unsealed.state], LEFT, &roots, &tallies).err(), Some(BirthError::Apart)));
    let mut behind = chain.state.clone();
    let gone_on = AppliedRecord { height: Height(1), ..chain.applied.clone() };
    behind.insert(schema::applied(), borsh::to_vec(&gone_on).expect("it encodes").into());
    assert!(matches!(birth(&[&behind], LEFT, &roots, &tallies).err(), Some(BirthError::NotSealed(SHARD))));
}

/// A copy that was begun while the parent went on, and one that is made after a crash at the seal, become one state.
#[test]
fn a_half_is_the_same_from_whichever_copy() {
    let begun = parent();
    for child in split_seal().children {
        let mut warm = State::new();
        copy(&mut warm, &Side::Half(child.prefix), &all_of(&begun.state));
        let mut counted = tally(&begun.state, child.prefix);
        let mut chain = parent();
        chain.written.clear();
        let left = client(LEFT);
        chain.block(vec![pay(&left, &client(RIGHT), 3, 7), mint(&client(PEER), 9, 8)]);
        chain.block(vec![pay(&left, &clients(LEFT).nth(1).expect("another"), 4, 9), sync(&left, &client(PEER), 6, 10)]);
        let chain = sealed(chain, split_seal());
        let mut before = begun.state.clone();
        for writes in &chain.written {
            copy(&mut warm, &Side::Half(child.prefix), writes);
            for (key, value) in writes {
                let old = before.get(key).cloned();
                counted.change(key, old.as_deref(), value.as_deref()).expect("the change fits");
            }
            crate::core::elastic::write(&mut before, writes);
        }
        assert_eq!(before, chain.state);
        assert_eq!(counted, tally(&chain.state, child.prefix), "nothing is left to count");
        let (cold, birth) = half(&chain, child.group);
        assert_eq!(born(warm, &birth), cold);
        assert_eq!(half(&chain, child.group).1, birth);
    }
}

/// Two shards that have written to each other, sealed to be joined. The right one has taken the first of two credits and
/// no vote. Its own payment of 2 the left one has voted for and posted, one of 3 by the left one it has not heard of.
fn to_be_joined() -> [Chain; 2] {
    let (payer, payee) = (client(LEFT), client(PEER));
    let mut left = Chain::new(SHARD);
    let known = left.told(&[Message::AssetUpdate(asset())]);
    left.block(vec![known, mint(&payer, 100, 1), pay(&payer, &payee, 10, 2), pay(&payer, &payee, 11, 3)]);
    let mut right = Chain::new(PEER);
    let known = right.told(&[Message::AssetUpdate(asset())]);
    let mail = left.mail(PEER, 0, 1);
    right.block(vec![known, mail]);
    right.block(vec![pay(&payee, &payer, 4, 4), sync(&payee, &payer, 2, 5)]);
    let heard = right.mail(SHARD, 0, 2);
    left.block(vec![sync(&payer, &payee, 3, 6), heard]);
    [sealed(left, merge_seal()), sealed(right, merge_seal())]
}

fn joined(parents: &[Chain; 2], copy: State) -> (State, Birth) {
    let [left, right] = parents;
    let (roots, tallies) = both([left, right]);
    let birth = birth(&[&left.state, &right.state], LEFT, &roots, &tallies).expect("it is born");
    (born(copy, &birth), birth)
}

fn right_side(left: &State) -> Side<'_> {
    Side::Right(Right { group: PEER, origin: None, left_origin: None, left })
}

/// The copy that is made at the seal.
fn cold(parents: &[Chain; 2]) -> State {
    let mut state = State::new();
    copy(&mut state, &Side::Left, &all_of(&parents[0].state));
    copy(&mut state, &right_side(&parents[0].state), &all_of(&parents[1].state));
    state
}

#[test]
fn two_shards_that_are_joined_have_what_both_had() {
    let parents = to_be_joined();
    let (state, birth) = joined(&parents, cold(&parents));
    let last = parents.each_ref().map(|chain| chain.applied.height);
    let header = &birth.header;
    assert_eq!(header.height, last[0].max(last[1]).next());
    assert_eq!(header.parents, parents.each_ref().map(|chain| chain.applied.header_hash));
    assert!(birth.cut.is_empty());
    let origin: Origin = decoded(&state, &schema::origin()).expect("an origin");
    assert_eq!(origin.spine, [Segment { group: SHARD, from: Height(0), to: last[0] }]);
    assert_eq!(origin.archived, [Segment { group: PEER, from: Height(0), to: last[1] }]);
    for height in 0..=last[1].0 {
        let kept = &state[&schema::archived(PEER, &schema::header(Height(height)))];
        assert_eq!(*kept, parents[1].state[&schema::header(Height(height))]);
        let own = parents[0].state.get(&schema::header(Height(height)));
        assert_eq!(own, if height <= last[0].0 { state.get(&schema::header(Height(height))) } else { None });
    }
    let mut child = Chain::standing(LEFT, state);
    let (payer, payee) = (client(LEFT), client(PEER));
    assert_eq!((child.total(), child.balance(&payer), child.balance(&payee)), (91, 85, 6));
    assert_eq!(decoded::<u128>(&child.state, &schema::sync_debits(&asset().id)), Some(5));
    // What the right one had not taken stands between the two: a block is due, and takes it once.
    let deadline = SystemView::read(&child.state, LEFT, genesis().verify).expect("a view").next_deadline;
    assert_eq!(deadline, Some(birth.applied.time_ms));
    let block = child.block(Vec::new());
    assert_eq!((child.total(), child.balance(&payer), child.balance(&payee)), (100, 82, 18));
    let line = &block.header.value_flow[0];
    assert_eq!((line.imported.as_slice(), line.exported.as_slice()), (&[(SHARD, 11)][..], &[(SHARD, 2)][..]));
    assert!(block.next_deadline.is_none_or(|deadline| deadline > block.header.time_ms));
    let after = child.block(Vec::new());
    assert!(after.header.value_flow.is_empty() && after.mail.is_empty());
    // Each had a payment under way that the other one votes on: both have been made.
    let mut view = View::new(&child.state);
    for salt in [5, 6] {
        let (from, to, amount) = if salt == 5 { (&payee, &payer, 2) } else { (&payer, &payee, 3) };
        let mv = Move::PaySync { from: address(from), to: address(to), asset: asset().id, amount };
        let txid = tx(from, salt, vec![mv]).txid(&genesis().cluster_id());
        let record = commit::prepared(&mut view, &txid).expect("a record");
        assert!(record.outcome().is_some_and(|outcome| outcome.committed), "{salt}: {record:?}");
    }
}

#[test]
fn a_joined_shard_is_the_same_from_whichever_copy() {
    let parents = to_be_joined();
    let (cold, birth) = joined(&parents, cold(&parents));
    // In whatever order the blocks of the two come, as long as the left one's state is no older than the copy.
    for order in 0..3u8 {
        let mut warm = State::new();
        let starts = [SHARD, PEER].map(|group| Chain::new(group).state);
        let mut left = starts[0].clone();
        copy(&mut warm, &Side::Left, &all_of(&starts[0]));
        copy(&mut warm, &right_side(&left), &all_of(&starts[1]));
        let mut queues: [Vec<&Writes>; 2] = parents.each_ref().map(|chain| chain.written.iter().collect());
        while let Some(side) = next_side(order, &queues) {
            let writes = queues[side].remove(0);
            if side == 0 {
                crate::core::elastic::write(&mut left, writes);
                copy(&mut warm, &Side::Left, writes);
            } else {
                copy(&mut warm, &right_side(&left), writes);
            }
        }
        assert_eq!(born(warm, &birth), cold, "order {order}");
    }
}

/// Whose block comes next: the left one's first, the right one's first, or in turn.
fn next_side(order: u8, queues: &[Vec<&Writes>; 2]) -> Option<usize> {
    let has = queues.each_ref().map(|queue| !queue.is_empty());
    let preferred = match order {
        0 => 0,
        1 => 1,
        _ => usize::from(queues[0].len() < queues[1].len()),
    };
    [preferred, 1 - preferred].into_iter().find(|side| has[*side])
}
