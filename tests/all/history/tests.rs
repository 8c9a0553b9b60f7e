//! The checker is checked: right histories are accepted, wrong ones are refused for what is wrong with
//! them, and for small ones the answer is that of trying every order.

use super::{Account, Fate, History, Kind, Leg, Misfit, Read, Time, Transfer, Violation, Why, brute, check};
use crate::support::random::Random;

const A: Account = 0;
const B: Account = 1;

fn leg(account: Account, kind: Kind, amount: u128) -> Leg {
    Leg { account, kind, amount, at: None, over: None }
}

/// A transfer that is over when its fate is known.
fn transfer(invoked: Time, decided: Time, fate: Fate, legs: impl Into<Vec<Leg>>) -> Transfer {
    Transfer { invoked, fate, decided: Some(decided), applied: Some(decided), legs: legs.into() }
}

/// A payment from A to B, in the block that decides.
fn paid(invoked: Time, decided: Time, amount: u128) -> Transfer {
    transfer(invoked, decided, Fate::Yes, [leg(A, Kind::Debit, amount), leg(B, Kind::Credit, amount)])
}

/// A payment from A to B that both groups vote on.
fn voted(invoked: Time, decided: Time, applied: Time, fate: Fate) -> Transfer {
    let legs = vec![leg(A, Kind::Held, 10), leg(B, Kind::Mailed, 10)];
    Transfer { invoked, fate, decided: Some(decided), applied: Some(applied), legs }
}

fn read(account: Account, invoked: Time, completed: Time, posted: u128, held: u128) -> Read {
    Read { account, invoked, completed, height: 0, posted, held }
}

/// Two accounts of 100.
fn history(transfers: impl Into<Vec<Transfer>>, reads: impl Into<Vec<Read>>) -> History {
    History { opening: vec![100, 100], transfers: transfers.into(), reads: reads.into() }
}

fn refused(account: Account, time: Time, why: Why) -> Result<(), Violation> {
    Err(Violation::Account { account, misfit: Misfit { why, time } })
}

#[test]
fn what_can_have_happened_is_accepted() {
    // Nothing at all, and reads of what was there.
    assert_eq!(check(&History::default()), Ok(()));
    assert_eq!(check(&history([], [read(A, 0, 1, 100, 0), read(B, 5, 6, 100, 0)])), Ok(()));
    // Before and after; and while it is open, either, but in one order for all readers.
    let around = [read(A, 0, 1, 100, 0), read(A, 12, 13, 100, 0), read(A, 14, 15, 90, 0), read(A, 30, 31, 90, 0)];
    assert_eq!(check(&history([paid(10, 20, 10)], around)), Ok(()));
    // Two at once, in either order; a read that spans everything.
    for between in [90, 70] {
        let reads = [read(A, 12, 13, between, 0), read(A, 5, 40, 100, 0), read(A, 25, 26, 60, 0)];
        assert_eq!(check(&history([paid(10, 20, 10), paid(10, 20, 30)], reads)), Ok(()), "{between}");
    }
    // Held, then posted; the credit later than the debit.
    let reads = [read(A, 12, 13, 100, 10), read(B, 25, 26, 100, 0), read(A, 27, 28, 90, 0), read(B, 41, 42, 110, 0)];
    assert_eq!(check(&history([voted(10, 20, 40, Fate::Yes)], reads)), Ok(()));
    // Held and released after all, also later than the caller was told.
    let reads = [read(A, 12, 13, 100, 0), read(A, 22, 23, 100, 10), read(A, 24, 25, 100, 0), read(A, 50, 51, 100, 0)];
    assert_eq!(check(&history([voted(10, 20, 40, Fate::No)], reads)), Ok(()));
    assert_eq!(check(&history([voted(10, 20, 40, Fate::No)], [read(A, 22, 23, 100, 0)])), Ok(()));
    // Nobody knows what became of it: it happened, late, or not.
    let open = Transfer { decided: None, applied: None, ..voted(10, 0, 0, Fate::Unknown) };
    let seen = [read(A, 20, 21, 100, 0), read(A, 90, 91, 90, 0), read(B, 92, 93, 100, 0), read(B, 95, 96, 110, 0)];
    assert_eq!(check(&history([open.clone()], seen)), Ok(()));
    assert_eq!(check(&history([open], [read(A, 90, 91, 100, 0), read(B, 90, 91, 100, 0)])), Ok(()));
}

#[test]
fn heights_are_moments() {
    let at = |height, read: Read| Read { height, ..read };
    let mut payment = paid(10, 20, 10);
    payment.legs[0].at = Some(7);
    // What stands in block 7 is seen from block 7 on.
    let reads = [at(6, read(A, 12, 19, 100, 0)), at(7, read(A, 11, 13, 90, 0)), at(9, read(A, 30, 31, 90, 0))];
    assert_eq!(check(&history([payment.clone()], reads)), Ok(()));
    let early = [at(6, read(A, 12, 13, 90, 0))];
    assert_eq!(check(&history([payment.clone()], early)), refused(A, 13, Why::NoSum { read: 0 }));
    let late = [at(7, read(A, 12, 13, 100, 0))];
    assert_eq!(check(&history([payment.clone()], late)), refused(A, 13, Why::NoSum { read: 0 }));
    // Block 7 was read before the payment was sent.
    let before = [at(8, read(A, 1, 2, 100, 0))];
    assert_eq!(check(&history([payment.clone()], before)), refused(A, 10, Why::Foreseen { transfer: 0 }));
    // A later read of an older block, although the amounts would do.
    let back = [at(8, read(B, 30, 31, 110, 0)), at(7, read(B, 32, 33, 110, 0))];
    assert_eq!(check(&history([payment.clone()], back)), refused(B, 33, Why::Backwards { read: 1 }));
    let stale = [at(6, read(A, 30, 31, 90, 0))];
    assert_eq!(check(&history([payment], stale)), refused(A, 31, Why::Backwards { read: 0 }));
    // One block has one state: two payments that cancel out lie between two blocks.
    let there = transfer(5, 6, Fate::Yes, [leg(A, Kind::Debit, 10)]);
    let back = transfer(7, 8, Fate::Yes, [leg(A, Kind::Credit, 10)]);
    let same = [at(3, read(A, 1, 2, 100, 0)), at(3, read(A, 9, 10, 100, 0))];
    assert_eq!(check(&history([there, back], same)), refused(A, 10, Why::Backwards { read: 1 }));
}

#[test]
fn what_cannot_have_happened_is_refused_for_what_is_wrong_with_it() {
    let one = |transfers: &[Transfer], reads: &[Read]| check(&history(transfers, reads));
    let payment = || paid(10, 20, 10);
    let at = |read: Read| [read];

    // A credit that was acknowledged is lost, or comes too late.
    let lost = at(read(B, 30, 31, 100, 0));
    assert_eq!(one(&[payment()], &lost), refused(B, 31, Why::TooLittle { read: 0 }));
    let lost = at(read(B, 50, 51, 100, 0));
    assert_eq!(one(&[voted(10, 20, 40, Fate::Yes)], &lost), refused(B, 51, Why::TooLittle { read: 0 }));
    // A credit comes twice.
    assert_eq!(one(&[payment()], &at(read(B, 30, 31, 120, 0))), refused(B, 31, Why::TooMuch { read: 0 }));
    // A debit comes twice, also while it is open.
    for from in [12, 30] {
        let twice = at(read(A, from, from + 1, 80, 0));
        assert_eq!(one(&[payment()], &twice), refused(A, from + 1, Why::TooLittle { read: 0 }));
    }
    // A read that is stale: what was acknowledged is not there.
    let stale = at(read(A, 21, 22, 100, 0));
    assert_eq!(one(&[payment()], &stale), refused(A, 22, Why::TooMuch { read: 0 }));
    // A read of a transfer that has not been sent.
    let early = at(read(A, 8, 9, 90, 0));
    assert_eq!(one(&[payment()], &early), refused(A, 9, Why::TooLittle { read: 0 }));
    // A read of a transfer that was refused, on either side.
    let no = transfer(10, 20, Fate::No, [leg(A, Kind::Debit, 10), leg(B, Kind::Credit, 10)]);
    let refused_debit = at(read(A, 12, 13, 90, 0));
    assert_eq!(one(std::slice::from_ref(&no), &refused_debit), refused(A, 13, Why::TooLittle { read: 0 }));
    assert_eq!(one(&[no], &at(read(B, 30, 31, 110, 0))), refused(B, 31, Why::TooMuch { read: 0 }));
    let posted = at(read(A, 50, 51, 90, 0));
    assert_eq!(one(&[voted(10, 20, 40, Fate::No)], &posted), refused(A, 51, Why::TooLittle { read: 0 }));
    // A hold that stays: after a YES, and after a NO; and one that was never there.
    for fate in [Fate::Yes, Fate::No] {
        let held = at(read(A, 50, 51, if fate == Fate::Yes { 90 } else { 100 }, 10));
        assert_eq!(one(&[voted(10, 20, 40, fate)], &held), refused(A, 51, Why::NoSum { read: 0 }));
    }
    let skipped = at(read(A, 25, 26, 100, 0));
    assert_eq!(one(&[voted(10, 20, 40, Fate::Yes)], &skipped), refused(A, 26, Why::NoSum { read: 0 }));
    // A hold that comes back after its release.
    let again = [read(A, 12, 13, 100, 10), read(A, 14, 15, 100, 0), read(A, 16, 17, 100, 10)];
    assert_eq!(one(&[voted(10, 20, 40, Fate::No)], &again), refused(A, 17, Why::NoSum { read: 2 }));
    // Reads that go back: one reader sees it, and a later one does not.
    let back = [read(A, 12, 13, 90, 0), read(A, 14, 15, 100, 0)];
    assert_eq!(one(&[payment()], &back), refused(A, 15, Why::TooMuch { read: 1 }));
    // Two readers who saw two payments in different orders.
    let two = [paid(10, 40, 10), paid(10, 40, 30)];
    let differ = [read(A, 12, 20, 90, 0), read(A, 12, 21, 70, 0)];
    assert_eq!(one(&two, &differ), refused(A, 21, Why::NoSum { read: 1 }));
    // Half of an amount.
    assert_eq!(one(&[payment()], &at(read(A, 12, 13, 95, 0))), refused(A, 13, Why::NoSum { read: 0 }));
}

#[test]
fn both_sides_of_an_open_fate_agree() {
    let open = Transfer { decided: None, applied: None, ..voted(10, 0, 0, Fate::Unknown) };
    // Debited on one side, and on the other known to be over without a credit.
    let over = Transfer { applied: Some(40), ..open.clone() };
    let one_side = [read(A, 50, 51, 90, 0), read(B, 50, 51, 100, 0)];
    assert_eq!(check(&history([over.clone()], one_side)), Err(Violation::Split { transfers: vec![0] }));
    let other_side = [read(A, 50, 51, 100, 0), read(B, 50, 51, 110, 0)];
    assert_eq!(check(&history([over], other_side)), Err(Violation::Split { transfers: vec![0] }));
    // As long as it is open, the other side may be on its way.
    assert_eq!(check(&history([open.clone()], one_side)), Ok(()));
    // No fate suits this account.
    let back = [read(A, 50, 51, 90, 0), read(A, 52, 53, 100, 0)];
    assert_eq!(check(&history([open], back)), refused(A, 53, Why::TooMuch { read: 1 }));
}

/// What is drawn.
struct Shape {
    accounts: usize,
    transfers: usize,
    reads: usize,
    /// The time in which everything happens.
    span: u64,
    /// How much earlier than it happens something may be sent, and how much later be heard of.
    slack: u64,
    unknown_percent: u64,
}

/// Time of one block.
const BLOCK: u64 = 4;

/// A history that did happen: effects at certain moments, reads of what was there, and around each of
/// them a time at which its caller may have asked and been answered. Amounts are even.
fn happened(random: &mut Random, shape: &Shape) -> History {
    let opening = 1_000u128;
    // Account, block, posted, held.
    let mut done: Vec<(Account, u64, i128, i128)> = Vec::new();
    let mut transfers = Vec::new();
    for _ in 0..shape.transfers {
        let decides = 2 + random.below(shape.span / BLOCK);
        let (mut first, mut decided, mut applied) = (decides, decides, decides);
        let what_is_known = random.below(100);
        let yes = random.percent(70);
        let mut legs = Vec::new();
        let two = [random.below(shape.accounts as u64), random.below(shape.accounts as u64)];
        for (number, account) in two.into_iter().enumerate().take(1 + usize::from(two[0] != two[1])) {
            let account = usize::try_from(account).unwrap();
            let amount = 2 * i128::from(1 + random.below(4));
            let kind = match (number, random.percent(50)) {
                (0, true) => Kind::Debit,
                (0, false) => Kind::Held,
                (_, true) => Kind::Credit,
                (_, false) => Kind::Mailed,
            };
            let later = decides + random.below(4);
            let before = done.len();
            match (kind, yes) {
                (Kind::Debit, true) => done.push((account, decides, -amount, 0)),
                (Kind::Credit, true) => done.push((account, decides, amount, 0)),
                (Kind::Mailed, true) => {
                    done.push((account, later, amount, 0));
                    applied = applied.max(later);
                }
                (Kind::Held, _) if yes || random.percent(50) => {
                    let held = decides - random.below(2);
                    done.push((account, held, 0, amount));
                    done.push((account, later, if yes { -amount } else { 0 }, -amount));
                    first = first.min(held);
                    applied = applied.max(later);
                }
                _ => {}
            }
            let mine = |held: bool| done.iter().rev().find(|line| line.0 == account && (line.3 > 0) == held);
            let (at, over) = match kind {
                Kind::Held if done.len() > before => (mine(true).map(|line| line.1), Some(later)),
                Kind::Debit | Kind::Credit if yes => (Some(decides), None),
                _ => (None, None),
            };
            let (at, over) = (at.filter(|_| random.percent(50)), over.filter(|_| random.percent(50)));
            legs.push(Leg { account, kind, amount: u128::try_from(amount).unwrap(), at, over });
        }
        let unknown = what_is_known < shape.unknown_percent;
        decided = decided * BLOCK + random.below(shape.slack);
        applied = (applied * BLOCK).max(decided) + random.below(shape.slack);
        transfers.push(Transfer {
            invoked: (first * BLOCK).saturating_sub(random.below(shape.slack)),
            fate: match (unknown, yes) {
                (true, _) => Fate::Unknown,
                (false, true) => Fate::Yes,
                (false, false) => Fate::No,
            },
            decided: Some(decided).filter(|_| !unknown),
            applied: Some(applied).filter(|_| !unknown && random.percent(90)),
            legs,
        });
    }
    let mut reads = Vec::new();
    for _ in 0..shape.reads {
        let account = usize::try_from(random.below(shape.accounts as u64)).unwrap();
        let moment = BLOCK + random.below(shape.span + 4 * BLOCK);
        let height = moment / BLOCK;
        let seen = done.iter().filter(|line| line.0 == account && line.1 <= height);
        let (posted, held) =
            seen.fold((i128::try_from(opening).unwrap(), 0), |sum, line| (sum.0 + line.2, sum.1 + line.3));
        reads.push(Read {
            account,
            invoked: moment - random.below(shape.slack.min(moment)),
            completed: moment + random.below(shape.slack),
            height: if random.percent(70) { height } else { 0 },
            posted: u128::try_from(posted).unwrap(),
            held: u128::try_from(held).unwrap(),
        });
    }
    History { opening: vec![opening; shape.accounts], transfers, reads }
}

#[test]
fn whatever_happened_is_accepted_and_amounts_that_never_were_are_refused() {
    let mut random = Random::new(1);
    for _ in 0..300 {
        let shape = Shape { accounts: 3, transfers: 40, reads: 60, span: 400, slack: 30, unknown_percent: 3 };
        let mut history = happened(&mut random, &shape);
        assert_eq!(check(&history), Ok(()), "{history:#?}");
        let wrong = usize::try_from(random.below(history.reads.len() as u64)).unwrap();
        // All amounts are even.
        let read = &mut history.reads[wrong];
        if random.percent(50) {
            read.posted += 1
        } else {
            read.held += 1
        }
        let (account, time) = (read.account, read.completed);
        let Err(Violation::Account { account: found, misfit }) = check(&history) else { panic!("{history:#?}") };
        let named = match misfit.why {
            Why::TooLittle { read } | Why::TooMuch { read } | Why::NoSum { read } => Some(read),
            Why::Backwards { .. } | Why::Foreseen { .. } => None,
        };
        assert_eq!((found, misfit.time, named), (account, time, Some(wrong)), "{misfit:?}");
    }
}

#[test]
fn the_search_finds_what_trying_every_order_finds() {
    let mut random = Random::new(2);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..6_000 {
        let shape = Shape {
            accounts: 2,
            transfers: 2 + usize::try_from(random.below(3)).unwrap(),
            reads: 2 + usize::try_from(random.below(3)).unwrap(),
            span: 24,
            slack: 14,
            unknown_percent: 15,
        };
        let mut history = happened(&mut random, &shape);
        let items = |account: Account| {
            let legs = history.transfers.iter().flat_map(|transfer| &transfer.legs);
            let effects = legs.filter(|leg| leg.account == account).map(|leg| 1 + usize::from(leg.kind == Kind::Held));
            effects.sum::<usize>() + history.reads.iter().filter(|read| read.account == account).count()
        };
        if (0..shape.accounts).any(|account| items(account) > brute::ITEMS_MAX) {
            continue;
        }
        assert_eq!(check(&history), Ok(()), "{history:#?}");
        assert!(brute::possible(&history), "{history:#?}");
        // Something that is a little different.
        let at = usize::try_from(random.below(history.reads.len() as u64)).unwrap();
        let read = &mut history.reads[at];
        match random.below(6) {
            0 => read.posted += 2 * u128::from(1 + random.below(4)),
            1 => read.posted -= 2 * u128::from(1 + random.below(4)),
            2 => read.held = 2 * u128::from(random.below(4)),
            3 => read.height = 1 + random.below(8),
            4 => {
                let later = random.below(12);
                (read.invoked, read.completed) = (read.invoked + later, read.completed + later);
            }
            _ => {
                let transfer = random.below(history.transfers.len() as u64);
                let transfer = &mut history.transfers[usize::try_from(transfer).unwrap()];
                transfer.fate = *random.of(&[Fate::Yes, Fate::No]);
            }
        }
        let possible = brute::possible(&history);
        assert_eq!(check(&history).is_ok(), possible, "{history:#?}\n{:?}", check(&history));
        if possible { accepted += 1 } else { refused += 1 }
    }
    // Neither answer is rare.
    assert!(accepted > 500 && refused > 500, "{accepted} accepted, {refused} refused");
}
