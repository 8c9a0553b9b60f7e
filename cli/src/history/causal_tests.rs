//! The law of the causal order, checked against a ledger of its own: whatever
//! the network does, the outcome is that of sequential execution.

use proptest::prelude::*;

use super::*;
use crate::history::{Order, Schedule, execute, opening};

fn history(rows: &[(u32, u32, u128)]) -> History {
    let transfer = |(line, &(from, to, amount)): (u64, &(u32, u32, u128))| Transfer {
        line,
        from: AccountIx(from),
        to: AccountIx(to),
        amount,
    };
    let mut history = History { transfers: (1..).zip(rows).map(transfer).collect(), ..History::default() };
    for (from, to, _) in rows {
        for name in 0..=*from.max(to) {
            history.accounts.intern(&name.to_string()).unwrap();
        }
    }
    history
}

fn balances(all: &[u128]) -> Balances {
    Balances::new(all.to_vec()).unwrap()
}

#[test]
fn independent_payments_are_in_flight_at_once() {
    let history = history(&[(0, 1, 5), (2, 3, 5), (0, 2, 5), (1, 3, 5), (3, 0, 10)]);
    let mut order = Causal::new(&history, &balances(&[10, 0, 5, 0]));
    assert_eq!(order.ready(2), [0, 1]);
    assert_eq!(order.ready(100), [2]);
    order.committed(0).unwrap();
    assert_eq!(order.ready(100), Vec::<u32>::new());
    order.visible(0).unwrap();
    assert_eq!(order.ready(100), [3]);
    order.visible(3).unwrap();
    assert_eq!(order.ready(100), Vec::<u32>::new());
    order.visible(1).unwrap();
    assert_eq!(order.ready(100), [4]);
}

#[test]
fn a_payer_keeps_its_order_even_if_a_later_debit_is_covered() {
    let history = history(&[(1, 0, 10), (0, 2, 10), (0, 2, 1)]);
    let mut order = Causal::new(&history, &balances(&[1, 10, 0]));
    assert_eq!(order.ready(9), [0]);
    order.visible(0).unwrap();
    assert_eq!(order.ready(9), [1, 2]);
}

#[test]
fn any_credit_will_do_not_only_the_one_before() {
    let history = history(&[(1, 0, 10), (0, 3, 10), (2, 0, 10)]);
    let mut order = Causal::new(&history, &balances(&[0, 10, 10]));
    assert_eq!(order.ready(9), [0, 2]);
    order.visible(2).unwrap();
    assert_eq!(order.ready(9), [1]);
}

#[test]
fn an_unfunded_payment_is_sent_to_be_rejected_before_later_credits() {
    let history = history(&[(0, 1, 1), (0, 1, 9), (2, 0, 9), (0, 1, 9)]);
    let mut order = Causal::new(&history, &balances(&[1, 0, 9]));
    assert_eq!(order.unfunded(), [1]);
    assert_eq!(order.ready(9), [0]);
    order.committed(0).unwrap();
    assert_eq!(order.ready(9), [1]);
    order.rejected(1).unwrap();
    assert_eq!(order.ready(9), [2]);
    order.visible(2).unwrap();
    assert_eq!(order.ready(9), [3]);
}

#[test]
fn a_rejection_nobody_expected_gives_the_money_back_and_may_stall() {
    let history = history(&[(0, 1, 5), (1, 2, 5), (0, 2, 5)]);
    let opening = balances(&[10]);
    let mut schedule = Schedule::new(Order::Causal, &history, &opening);
    assert_eq!(schedule.ready(9), [0, 2]);
    schedule.rejected(0).unwrap();
    assert!(!schedule.is_stalled());
    schedule.visible(2).unwrap();
    assert!(schedule.is_stalled() && !schedule.is_finished());
    assert_eq!(schedule.unsent(), 1);
}

#[test]
fn nothing_to_do_is_finished() {
    let history = History::default();
    let schedule = Schedule::new(Order::Causal, &history, &Balances::default());
    assert!(schedule.is_finished() && !schedule.is_stalled());
}

/// What may happen next to a transfer that was sent.
#[derive(Clone, Copy, Debug)]
enum Event {
    Debit(u32),
    Credit(u32),
    TellCommitted(u32),
    TellVisible(u32),
    TellRejected(u32),
}

/// A ledger whose events come in an order picked by `picks`.
struct World<'h> {
    history: &'h History,
    now: Vec<u128>,
    rejected: Vec<u32>,
    pending: Vec<Event>,
    picks: Vec<u16>,
    picked: usize,
}

impl World<'_> {
    fn pick(&mut self, of: usize) -> usize {
        let pick = self.picks[self.picked % self.picks.len()] as usize + self.picked / 7;
        self.picked += 1;
        pick % of
    }

    fn step(&mut self, order: &mut Schedule) {
        let at = self.pick(self.pending.len());
        match self.pending.swap_remove(at) {
            Event::Debit(ix) => {
                let Transfer { from, amount, .. } = self.history.transfers[ix as usize];
                match self.now[from.at()].checked_sub(amount) {
                    None => {
                        self.rejected.push(ix);
                        self.pending.push(Event::TellRejected(ix));
                    }
                    Some(left) => {
                        self.now[from.at()] = left;
                        self.pending.extend([Event::Credit(ix), Event::TellCommitted(ix)]);
                    }
                }
            }
            Event::Credit(ix) => {
                let Transfer { to, amount, .. } = self.history.transfers[ix as usize];
                self.now[to.at()] += amount;
                self.pending.push(Event::TellVisible(ix));
            }
            // The news of the credit may overtake that of the debit.
            Event::TellCommitted(ix) => drop(order.committed(ix)),
            Event::TellVisible(ix) => order.visible(ix).unwrap(),
            Event::TellRejected(ix) => order.rejected(ix).unwrap(),
        }
    }

    fn run(&mut self, order: &mut Schedule) {
        while !order.is_finished() {
            let max = 1 + self.pick(5);
            let ready = order.ready(max);
            self.pending.extend(ready.into_iter().map(Event::Debit));
            assert!(!order.is_stalled() && !self.pending.is_empty(), "nothing can happen");
            self.step(order);
        }
    }
}

fn check(rows: &[(u32, u32, u128)], percent: u128, picks: Vec<u16>) {
    let history = history(rows);
    let least = opening::auto(&history).unwrap();
    let scaled: Vec<u128> = history.accounts.iter().map(|(ix, _)| least.get(ix) * percent / 100).collect();
    let opening = balances(&scaled);
    let expected = execute(&history, &opening);
    assert!(percent < 100 || expected.rejected.is_empty());

    let mut order = Schedule::new(Order::Causal, &history, &opening);
    let mut world =
        World { history: &history, now: scaled, rejected: Vec::new(), pending: Vec::new(), picks, picked: 0 };
    world.run(&mut order);
    world.rejected.sort_unstable();
    assert_eq!(world.rejected, expected.rejected);
    assert_eq!(balances(&world.now), expected.balances);
    assert_eq!((order.in_flight(), order.unsent()), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Any history, any delays and reorderings, opening balances of any height:
    /// the payments rejected and the final balances are the sequential ones, and
    /// with the least opening that suffices nothing is rejected.
    #[test]
    fn any_order_of_events_gives_the_sequential_outcome(
        rows in prop::collection::vec((0u32..6, 0u32..6, 1u128..12), 0..60),
        percent in prop_oneof![Just(100u128), Just(0), 0u128..200],
        picks in prop::collection::vec(any::<u16>(), 1..40),
    ) {
        check(&rows, percent, picks);
    }
}

#[test]
fn a_long_history_with_a_busy_account_is_quick() {
    // One account takes part in every payment, funded and unfunded in turn.
    let rows: Vec<(u32, u32, u128)> =
        (0..120_000u32).map(|n| if n % 2 == 0 { (1 + n % 997, 0, 3) } else { (0, 1 + n % 991, 4) }).collect();
    for percent in [100, 50, 0] {
        let picks = vec![7, 1, 3, 60_000, 11];
        check(&rows, percent, picks);
    }
}
