//! Swaps between ledgers in the composed machine, and what each group gets to see of them.

use channel::Change;
use cross_shard::{Message, commit};
use ledger::flow::{FlowHead, SealedFlow};
use ledger::hash::{Hash32, sha256};
use ledger::ids::{AssetId, GroupId, Height, LedgerId, LockId, TimeMs};
use ledger::lock::{Lock, LockState, LockTerms, Secret, hash_of};
use ledger::record::Record;
use ledger::tx::Opening;
use ledger::{Balance, Condition, Move, Outcome, Reject, SecretKey, SignedTx, Slot, schema};

use crate::core::consortium::{Consortium, SHARDS, address, borsh_of, clear, client, hidden};
use crate::core::machine::CommandOutcome;

/// Who pays in the first group, and who in the second; each pays the other.
const FIRST: u8 = 1;
const SECOND: u8 = 2;

struct Swap {
    tx: SignedTx,
    groups: [GroupId; 2],
    openings: [Opening; 2],
}

/// Two channels; the first payer has 100 of an asset in one, the second 100 of another in the other.
fn funded() -> (Consortium, [GroupId; 2], [AssetId; 2]) {
    let (mut world, first, second) = Consortium::with_two_channels();
    let (eur, usd) = (world.issue("EUR"), world.issue("USD"));
    world.bring(&client(FIRST), eur, 100, first);
    world.bring(&client(SECOND), usd, 100, second);
    world.enact(first, [1, 2], Change::PermitAsset { asset: eur });
    world.enact(second, [2, 3], Change::PermitAsset { asset: usd });
    world.settle();
    (world, [first, second], [eur, usd])
}

fn pay(from: &SecretKey, to: &SecretKey, asset: AssetId, amount: u128) -> Move {
    Move::Pay { from: address(from), to: address(to), asset, amount }
}

/// Each pays the other, in a hidden slot of its own group.
fn swap(world: &mut Consortium, groups: [GroupId; 2], assets: [AssetId; 2], amounts: [u128; 2]) -> Swap {
    let (one, other) = (client(FIRST), client(SECOND));
    let (first, opening) = hidden(0, groups[0], pay(&one, &other, assets[0], amounts[0]));
    let (second, other_opening) = hidden(1, groups[1], pay(&other, &one, assets[1], amounts[1]));
    let tx = world.sign(vec![first, second], &[&one, &other]);
    Swap { tx, groups, openings: [opening, other_opening] }
}

impl Swap {
    fn hand_over(&self, world: &mut Consortium, side: usize) -> CommandOutcome {
        world.submit(self.groups[side], &self.tx, &self.openings[side..=side])
    }

    fn hand_over_to_both(&self, world: &mut Consortium) {
        for side in 0..2 {
            self.hand_over(world, side);
        }
        world.settle();
    }

    fn outcomes(&self, world: &Consortium) -> [Option<Outcome>; 2] {
        self.groups.map(|group| world.chain(group).outcome(&self.tx))
    }

    /// What one side says no with, and that the other side hears of it, and not why.
    fn assert_aborted(&self, world: &Consortium, by: usize, reason: Reject) {
        let [own, other] = [by, 1 - by].map(|side| world.chain(self.groups[side]).outcome(&self.tx));
        assert_eq!(own, Some(Outcome::Rejected(reason)));
        assert_eq!(other, Some(Outcome::Aborted { group: self.groups[by], reason: Reject::RefusedElsewhere }));
    }

    /// Neither state nor mail of a group has a byte of the other side's move or salt.
    fn assert_secret(&self, world: &Consortium) {
        for (side, group) in self.groups.into_iter().enumerate() {
            let Opening { salt, mv, .. } = &self.openings[1 - side];
            let needles = [borsh_of(mv), salt.0.to_vec()];
            let chain = world.chain(group);
            let stored = chain.state.iter().flat_map(|(key, value)| [&key[..], &value[..]]);
            let all = stored.chain(chain.mailed.iter().map(|(_, message)| &message[..]));
            for bytes in all {
                for needle in &needles {
                    let found = bytes.windows(needle.len()).any(|window| window == needle);
                    assert!(!found, "{group} has something of the move of {}", self.groups[1 - side]);
                }
            }
        }
    }
}

fn balances(world: &Consortium, groups: [GroupId; 2], assets: [AssetId; 2]) -> [[u128; 2]; 2] {
    [0, 1].map(|side: usize| {
        [FIRST, SECOND].map(|number| world.chain(groups[side]).balance(&client(number), assets[side]))
    })
}

#[test]
fn two_channels_settle_one_against_the_other() {
    let (mut world, groups, assets) = funded();
    let swap = swap(&mut world, groups, assets, [30, 70]);
    assert_eq!(
        swap.hand_over(&mut world, 0),
        CommandOutcome::Voted(swap.tx.txid(&world.cluster), commit::Decision::Yes)
    );
    assert_eq!(balances(&world, groups, assets), [[100, 0], [0, 100]], "nothing is posted before both agree");
    swap.hand_over(&mut world, 1);
    world.settle();
    assert!(swap.outcomes(&world).iter().all(|outcome| matches!(outcome, Some(Outcome::Committed { .. }))));
    assert_eq!(balances(&world, groups, assets), [[70, 30], [70, 30]]);
    swap.assert_secret(&world);
    let votes_to = |dest: GroupId| {
        let mailed = world.chain(groups[0]).mailed.iter().filter(|(to, _)| *to == dest);
        mailed.filter(|(_, message)| matches!(borsh::from_slice(message), Ok(Message::Vote(_)))).count()
    };
    assert_eq!(votes_to(groups[1]), 1);
    assert!([GroupId::BEACON, SHARDS[0], SHARDS[1]].into_iter().all(|group| votes_to(group) == 0));
}

#[test]
fn a_vote_makes_the_other_channel_wait_for_its_opening_and_no_more() {
    let (mut world, groups, assets) = funded();
    let swap = swap(&mut world, groups, assets, [30, 70]);
    swap.hand_over(&mut world, 0);
    world.settle();
    assert_eq!(swap.outcomes(&world), [None, None]);
    // The opening comes late, from whoever has it.
    swap.hand_over(&mut world, 1);
    world.settle();
    assert_eq!(balances(&world, groups, assets), [[70, 30], [70, 30]]);
    // Without one, a channel says no once the deadline is past.
    let second = self::swap(&mut world, groups, assets, [1, 1]);
    second.hand_over(&mut world, 0);
    world.settle();
    world.now += 61_000;
    world.block(groups[1], Vec::new());
    world.settle();
    second.assert_aborted(&world, 1, Reject::Expired);
    second.assert_secret(&world);
    assert_eq!(balances(&world, groups, assets), [[70, 30], [70, 30]]);
}

#[test]
fn a_side_that_is_frozen_lacks_funds_or_does_not_permit_the_asset_undoes_both() {
    let (mut world, groups, assets) = funded();
    let before = balances(&world, groups, assets);
    let poor = swap(&mut world, groups, assets, [30, 1_000]);
    poor.hand_over_to_both(&mut world);
    poor.assert_aborted(&world, 1, Reject::InsufficientFunds);
    poor.assert_secret(&world);

    world.enact(groups[1], [2, 3], Change::Freeze);
    let cold = swap(&mut world, groups, assets, [30, 70]);
    let refused = CommandOutcome::Refused(cold.tx.txid(&world.cluster), Reject::ChannelFrozen);
    assert_eq!(cold.hand_over(&mut world, 1), refused, "nobody has voted, so nothing is left behind");
    cold.hand_over_to_both(&mut world);
    cold.assert_aborted(&world, 1, Reject::ChannelFrozen);
    cold.assert_secret(&world);
    world.enact(groups[1], [2, 3], Change::Thaw);

    let foreign = world.issue("GBP");
    world.bring(&client(SECOND), foreign, 100, groups[1]);
    let barred = swap(&mut world, groups, [assets[0], foreign], [30, 70]);
    barred.hand_over_to_both(&mut world);
    barred.assert_aborted(&world, 1, Reject::AssetNotPermitted);
    assert_eq!(balances(&world, groups, assets), before);
    for (side, group) in groups.into_iter().enumerate() {
        let payer = client([FIRST, SECOND][side]);
        let record = world.chain(group).read(|view| ledger::rules::load_account(view, &address(&payer)));
        assert!(record.into_iter().flat_map(|record| record.balances).all(|line| line.1.held == 0), "{group}");
    }
}

#[test]
fn a_channel_that_was_frozen_after_its_vote_keeps_its_word() {
    let (mut world, groups, assets) = funded();
    let swap = swap(&mut world, groups, assets, [30, 70]);
    swap.hand_over(&mut world, 0);
    world.enact(groups[0], [1, 2], Change::Freeze);
    swap.hand_over(&mut world, 1);
    world.settle();
    assert_eq!(balances(&world, groups, assets), [[70, 30], [70, 30]]);
}

#[test]
fn a_closed_channel_says_no_and_an_unknown_one_is_refused() {
    let (mut world, groups, assets) = funded();
    world.enact(groups[1], [2, 3], Change::Close);
    world.settle();
    assert!(world.govern(groups[1], 2, &channel::Command::FinishClose).is_ok());
    world.settle();
    let late = swap(&mut world, groups, assets, [30, 70]);
    late.hand_over_to_both(&mut world);
    late.assert_aborted(&world, 1, Reject::ChannelClosed);

    let nowhere = GroupId::channel(99);
    let lost = swap(&mut world, [groups[0], nowhere], assets, [30, 70]);
    let refused = CommandOutcome::Refused(lost.tx.txid(&world.cluster), Reject::UnknownGroup);
    assert_eq!(lost.hand_over(&mut world, 0), refused);
}

/// What makes the other side of a swap impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hurdle {
    Frozen,
    Closed,
    Unknown,
}

/// All amounts of both payers, held ones among them, in their shards and in the channels.
fn money(world: &Consortium, groups: [GroupId; 2]) -> Vec<Option<Vec<(AssetId, Balance)>>> {
    let payers = [client(FIRST), client(SECOND)];
    let places = payers.each_ref().map(|key| world.home(key)).into_iter().chain(groups);
    let lines = |group: GroupId| {
        let of = |key: &SecretKey| world.chain(group).read(|view| ledger::rules::load_account(view, &address(key)));
        payers.each_ref().map(|key| of(key).map(|record| record.balances))
    };
    places.flat_map(lines).collect()
}

#[test]
fn a_swap_whose_other_side_cannot_be_leaves_all_as_it_was() {
    for hurdle in [Hurdle::Frozen, Hurdle::Closed, Hurdle::Unknown] {
        for from_main in [false, true] {
            let (mut world, groups, assets) = funded();
            let (one, other) = (client(FIRST), client(SECOND));
            world.mint(&one, assets[0], 50);
            let (bad, reason) = match hurdle {
                Hurdle::Frozen => {
                    world.enact(groups[1], [2, 3], Change::Freeze);
                    (groups[1], Reject::ChannelFrozen)
                }
                Hurdle::Closed => {
                    world.enact(groups[1], [2, 3], Change::Close);
                    world.settle();
                    assert!(world.govern(groups[1], 2, &channel::Command::FinishClose).is_ok());
                    (groups[1], Reject::ChannelClosed)
                }
                Hurdle::Unknown => (GroupId::channel(99), Reject::UnknownGroup),
            };
            world.settle();
            let before = money(&world, groups);
            let (theirs, opening) = hidden(1, bad, pay(&other, &one, assets[1], 70));
            let mine = pay(&one, &other, assets[0], 30);
            let (own, slot, openings) = if from_main {
                (world.home(&one), clear(LedgerId::MAIN, mine), Vec::new())
            } else {
                let (slot, opening) = hidden(0, groups[0], mine);
                (groups[0], slot, vec![opening])
            };
            let tx = world.sign(vec![slot, theirs], &[&one, &other]);
            let (case, txid) = (format!("{hurdle:?}, from the main ledger: {from_main}"), tx.txid(&world.cluster));
            let told = world.submit(own, &tx, &openings);
            if hurdle == Hurdle::Unknown {
                assert_eq!(told, CommandOutcome::Refused(txid, reason), "{case}");
                assert_eq!(world.chain(own).outcome(&tx), None, "{case}");
            } else {
                assert_eq!(told, CommandOutcome::Voted(txid, commit::Decision::Yes), "{case}");
                assert_ne!(money(&world, groups), before, "{case}: what is to be paid is held");
                let refused = world.submit(bad, &tx, std::slice::from_ref(&opening));
                assert_eq!(refused, CommandOutcome::Refused(txid, reason), "{case}");
                world.settle();
                assert_eq!(world.chain(bad).outcome(&tx), Some(Outcome::Rejected(reason)), "{case}");
                let aborted = Outcome::Aborted { group: bad, reason: Reject::RefusedElsewhere };
                assert_eq!(world.chain(own).outcome(&tx), Some(aborted), "{case}");
            }
            assert_eq!(money(&world, groups), before, "{case}");
        }
    }
}

/// One side is paid by a hash-lock: with another secret, by another lock or by other terms it is refused without a trace, too late
/// it is a no. Either way the other side gets back what it held, and the lock is what it was.
#[test]
fn a_claim_that_cannot_be_leaves_the_other_side_of_a_swap_and_the_lock_as_they_were() {
    const SECRET: Secret = [7; 32];
    const HOUR_MS: u64 = 3_600_000;
    for reason in [Reject::WrongSecret, Reject::LockUnknown, Reject::LockTerms, Reject::LockExpired] {
        let (mut world, groups, assets) = funded();
        let (one, other) = (client(FIRST), client(SECOND));
        let (from, to, asset) = (address(&one), address(&other), assets[0]);
        let deadline_ms = TimeMs(world.now + HOUR_MS);
        let mv = Move::Lock { from, to, asset, amount: 30, hash: hash_of(&SECRET), deadline_ms };
        let locks = world.sign(vec![clear(LedgerId::of_channel(groups[0]), mv)], &[&one]);
        assert!(matches!(world.submit(groups[0], &locks, &[]), CommandOutcome::Receipt(..)));
        let id = LockId::derive(&locks.txid(&world.cluster), 0);
        if reason == Reject::LockExpired {
            world.now += HOUR_MS;
        }
        let before = money(&world, groups);
        let lock = if reason == Reject::LockUnknown { LockId(Hash32::ZERO) } else { id };
        let amount = if reason == Reject::LockTerms { 31 } else { 30 };
        let secret = if reason == Reject::WrongSecret { [8; 32] } else { SECRET };
        let claim = Move::Claim { from, lock, terms: LockTerms { to, asset, amount }, secret };
        let (first, opening) = hidden(0, groups[0], claim);
        let (second, other_opening) = hidden(1, groups[1], pay(&other, &one, assets[1], 70));
        let tx = world.sign(vec![first, second], &[&other]);
        let swap = Swap { tx, groups, openings: [opening, other_opening] };
        let txid = swap.tx.txid(&world.cluster);
        let told = swap.hand_over(&mut world, 0);
        let paid = swap.hand_over(&mut world, 1);
        assert_eq!(paid, CommandOutcome::Voted(txid, commit::Decision::Yes), "{reason}");
        world.settle();
        if reason == Reject::LockExpired {
            assert_eq!(told, CommandOutcome::Voted(txid, commit::Decision::No(reason)));
            swap.assert_aborted(&world, 0, reason);
        } else {
            assert_eq!(told, CommandOutcome::Refused(txid, reason));
            // Nobody's vote is given by it, so whoever has the secret can still come, until the deadline of the transaction.
            assert_eq!(swap.outcomes(&world), [None, None], "{reason}");
            world.now += 61_000;
            world.block(groups[0], Vec::new());
            world.settle();
            swap.assert_aborted(&world, 0, Reject::Expired);
        }
        assert_eq!(money(&world, groups), before, "{reason}");
        let kept: Option<Lock> = world.chain(groups[0]).read(|view| view.load(&schema::lock(&from, &id)));
        assert_eq!(kept.map(|lock| lock.state), Some(LockState::Open), "{reason}");
    }
}

#[test]
fn delivery_against_payment_between_a_channel_and_the_main_ledger() {
    let (mut world, groups, assets) = funded();
    // The second payer pays on the main ledger this time, in the clear there, hidden in the channel.
    let (one, other) = (client(FIRST), client(SECOND));
    world.mint(&other, assets[1], 40);
    let home = world.home(&other);
    let (slot, opening) = hidden(0, groups[0], pay(&one, &other, assets[0], 10));
    let slots: Vec<Slot> = vec![slot, clear(LedgerId::MAIN, pay(&other, &one, assets[1], 40))];
    let tx = world.sign(slots, &[&one, &other]);
    world.submit(home, &tx, &[]);
    world.settle();
    assert_eq!(world.chain(home).outcome(&tx), None, "the channel waits for its opening");
    world.submit(groups[0], &tx, std::slice::from_ref(&opening));
    world.settle();
    assert!(matches!(world.chain(home).outcome(&tx), Some(Outcome::Committed { .. })));
    assert_eq!(world.chain(groups[0]).balance(&other, assets[0]), 10);
    // The payee's shard gets the credit by mail.
    assert_eq!(world.chain(world.home(&one)).balance(&one, assets[1]), 40);
    let needle = borsh_of(&opening.mv);
    for group in [GroupId::BEACON, SHARDS[0], SHARDS[1], groups[1]] {
        let found = world.chain(group).state.values().any(|value| value.windows(needle.len()).any(|at| at == needle));
        assert!(!found, "{group} has the channel's move");
    }
}

/// A shard takes what anybody hands over to it, and mails it on. The signature of an account inside is not enough.
#[test]
fn a_channel_executes_nothing_that_only_a_shard_was_handed() {
    let (mut world, groups, assets) = funded();
    let (one, other) = (client(FIRST), client(SECOND));
    let (home, before) = (world.home(&one), balances(&world, groups, assets));
    let both = |world: &mut Consortium, amount| {
        let check = Move::Check { account: address(&one), condition: Condition::Consent };
        let inside = clear(LedgerId::of_channel(groups[0]), pay(&one, &other, assets[0], amount));
        world.sign(vec![clear(LedgerId::MAIN, check), inside], &[&one])
    };
    // Whether there is as much as that is not told either.
    for amount in [10, 1_000] {
        let tx = both(&mut world, amount);
        world.submit(home, &tx, &[]);
        world.settle();
        assert_eq!([home, groups[0]].map(|group| world.chain(group).outcome(&tx)), [None, None]);
        world.now += 61_000;
        world.block(groups[0], Vec::new());
        world.settle();
        assert_eq!(world.chain(groups[0]).outcome(&tx), Some(Outcome::Rejected(Reject::Expired)));
        let told = Outcome::Aborted { group: groups[0], reason: Reject::RefusedElsewhere };
        assert_eq!(world.chain(home).outcome(&tx), Some(told));
        assert_eq!(balances(&world, groups, assets), before);
    }
    // In the hands of somebody whom the channel admits it is a transaction like any other.
    let tx = both(&mut world, 10);
    world.submit(home, &tx, &[]);
    world.settle();
    world.submit(groups[0], &tx, &[]);
    world.settle();
    for group in [home, groups[0]] {
        assert!(matches!(world.chain(group).outcome(&tx), Some(Outcome::Committed { .. })), "{group}");
    }
    assert_eq!(world.chain(groups[0]).balance(&other, assets[0]), 10);
}

/// No witness goes from one ledger to another, so a shard has nothing to go by in what a channel mails. Whoever was to hand it
/// over there may be gone: time alone ends it, in both, and what was held is free.
#[test]
fn a_shard_executes_nothing_that_only_a_channel_was_handed() {
    for in_the_clear in [true, false] {
        let (mut world, groups, assets) = funded();
        let (one, other) = (client(FIRST), client(SECOND));
        world.mint(&other, assets[1], 40);
        let (channel, home) = (groups[0], world.home(&other));
        let trade = |world: &mut Consortium| {
            let (first, opening) = hidden(0, channel, pay(&one, &other, assets[0], 10));
            let mv = pay(&other, &one, assets[1], 40);
            let (second, others) = match in_the_clear {
                true => (clear(LedgerId::MAIN, mv), Vec::new()),
                false => {
                    let (slot, opening) = hidden(1, home, mv);
                    (slot, vec![opening])
                }
            };
            (world.sign(vec![first, second], &[&one, &other]), opening, others)
        };
        let before = money(&world, groups);
        let (tx, opening, others) = trade(&mut world);
        let yes = CommandOutcome::Voted(tx.txid(&world.cluster), commit::Decision::Yes);
        assert_eq!(world.submit(channel, &tx, std::slice::from_ref(&opening)), yes);
        world.settle();
        assert_eq!([channel, home].map(|group| world.chain(group).outcome(&tx)), [None, None]);
        assert_ne!(money(&world, groups), before, "the channel holds what it is to pay");
        // Nothing but the deadline calls for this block of the shard.
        world.now += 61_000;
        world.block(home, Vec::new());
        world.settle();
        assert_eq!(world.chain(home).outcome(&tx), Some(Outcome::Rejected(Reject::Expired)));
        let told = Outcome::Aborted { group: home, reason: Reject::RefusedElsewhere };
        assert_eq!(world.chain(channel).outcome(&tx), Some(told), "which whoever submitted it is told");
        assert_eq!(money(&world, groups), before, "nothing is held any more");
        // It comes too late now, wherever it is handed over, and moves nothing.
        world.submit(home, &tx, &others);
        world.submit(channel, &tx, &[opening]);
        world.settle();
        assert_eq!(money(&world, groups), before);

        // Handed over there in time, it is a transaction like any other.
        let (tx, opening, others) = trade(&mut world);
        world.submit(channel, &tx, &[opening]);
        world.settle();
        world.submit(home, &tx, &others);
        world.settle();
        for group in [channel, home] {
            assert!(matches!(world.chain(group).outcome(&tx), Some(Outcome::Committed { .. })), "{group}");
        }
        assert_eq!(world.chain(channel).balance(&other, assets[0]), 10);
    }
}

/// A memo is in the clear, so none goes with moves of several ledgers; what it would say, a hidden move says to its ledger alone.
#[test]
fn a_record_in_a_hidden_slot_stands_in_for_a_memo() {
    let (mut world, groups, assets) = funded();
    let (one, other) = (client(FIRST), client(SECOND));
    let (owner, note) = (address(&one), b"invoice 7 of the first payer".to_vec());
    let hash = sha256(&note);
    let says = Move::Record { owner, hash, metadata: note.clone() };
    let (first, opening) = hidden(0, groups[0], pay(&one, &other, assets[0], 30));
    let (second, other_opening) = hidden(1, groups[1], pay(&other, &one, assets[1], 70));
    let (third, note_opening) = hidden(2, groups[0], says);
    let tx = world.sign(vec![first, second, third], &[&one, &other]);
    world.submit(groups[0], &tx, &[opening, note_opening]);
    world.submit(groups[1], &tx, &[other_opening]);
    world.settle();
    for group in groups {
        assert!(matches!(world.chain(group).outcome(&tx), Some(Outcome::Committed { .. })), "{group}");
    }
    let kept: Option<Record> = world.chain(groups[0]).read(|view| view.load(&schema::record(&owner, &hash)));
    assert_eq!(kept.map(|record| (record.metadata, record.txid)), Some((note.clone(), tx.txid(&world.cluster))));
    let has = |bytes: &[u8]| bytes.windows(note.len()).any(|window| window == note);
    for (group, chain) in world.chains.iter().filter(|(group, _)| **group != groups[0]) {
        assert!(!chain.state.iter().any(|(key, value)| has(&key[..]) || has(&value[..])), "{group} has the note");
    }
    let mailed = &world.chain(groups[0]).mailed;
    assert!(!mailed.iter().any(|(_, message)| has(&message[..])), "nor is it mailed");
}

#[test]
fn each_pair_of_ledgers_counts_for_itself() {
    let (mut world, groups, assets) = funded();
    let who = client(FIRST);
    world.bring(&who, assets[1], 7, groups[0]);
    let pairs = |world: &Consortium, home: LedgerId, asset: &AssetId| -> Vec<u128> {
        let all = world.chains.values().filter(|chain| chain.state.contains_key(&schema::pair(home, asset)));
        all.map(|chain| chain.read(|view| view.load::<ledger::pair::Pair>(&schema::pair(home, asset))))
            .map(|pair| pair.expect("it is there").amount.posted)
            .collect()
    };
    // At home: what is out in each channel. In the channels: what came from home.
    assert_eq!(pairs(&world, LedgerId::of_channel(groups[0]), &assets[1]), [7]);
    assert_eq!(pairs(&world, LedgerId::of_channel(groups[1]), &assets[1]), [100]);
    assert_eq!(pairs(&world, LedgerId::MAIN, &assets[1]), [7, 100]);
    // More than came into this channel does not leave it, though the other one has more.
    let back =
        Move::Transfer { from: address(&who), to: address(&who), asset: assets[1], amount: 8, ledger: LedgerId::MAIN };
    let back = world.sign(vec![clear(LedgerId::of_channel(groups[0]), back)], &[&who]);
    world.submit(groups[0], &back, &[]);
    assert!(matches!(world.chain(groups[0]).outcome(&back), Some(Outcome::Rejected(_))));
}

#[test]
fn headers_of_channels_show_no_flow_and_commit_to_it() {
    let (mut world, groups, assets) = funded();
    let swap = swap(&mut world, groups, assets, [30, 70]);
    swap.hand_over_to_both(&mut world);
    for group in groups {
        let chain = world.chain(group);
        assert!(chain.headers.iter().all(|header| header.value_flow.is_empty()));
        // Whoever has the chain recomputes what the leaf says, and the sums.
        let (mut head, mut totals) = (FlowHead::default(), std::collections::BTreeMap::<AssetId, u128>::new());
        let mut salts = Vec::new();
        for height in 1..=chain.applied.height.0 {
            let Some(sealed) = chain.read(|view| view.load::<SealedFlow>(&schema::sealed_flow(Height(height)))) else {
                continue;
            };
            for line in &sealed.lines {
                assert!(line.balances());
                assert_eq!(totals.insert(line.asset, line.closing).unwrap_or(0), line.opening);
            }
            salts.push(sealed.salt);
            head = head.after(&sealed.commitment(Height(height)));
        }
        assert!(head.blocks > 0 && salts.windows(2).all(|pair| pair[0] != pair[1]));
        let leaf: Option<FlowHead> = chain.read(|view| view.load(&schema::flow_head()));
        assert_eq!(leaf, Some(head));
        assert!(schema::tree_position(&schema::flow_head()).is_some(), "the state root covers it");
        // No salt and no line stands in what others are given.
        for (dest, message) in &chain.mailed {
            let told = |salt: &Hash32| message.windows(32).any(|window| window == salt.0);
            assert!(!salts.iter().any(told), "{group} tells {dest} a salt");
        }
    }
    // Shards show theirs.
    assert!(world.chain(SHARDS[0]).headers.iter().any(|header| !header.value_flow.is_empty()));
}
