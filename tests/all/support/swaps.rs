//! Payers of two shards who pay each other in one transaction, one such after the other, until they are ended.

use client::{Client, Settled};
use ledger::{Address, GroupId};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::bank::{Bank, Wallet};
use super::{DEADLINE, in_time};

/// Swaps of 1 for 1 without end, one in flight for each couple. Each has to be executed: one that is aborted, refused or of
/// unknown fate fails the test.
pub struct Swaps {
    bank: Bank,
    couples: Vec<[Wallet; 2]>,
    /// What each account had before the first swap.
    before: Vec<u128>,
    stop: watch::Sender<bool>,
    /// How many swaps each couple has had executed.
    executed: watch::Receiver<Vec<usize>>,
    swapping: Vec<JoinHandle<()>>,
}

impl Swaps {
    /// Has the first of `left` swap with the first of `right`, and so on. Nobody else may pay to or from these accounts until
    /// the swaps are ended.
    pub async fn start(bank: &Bank, left: &[Wallet], right: &[Wallet]) -> Self {
        let couples: Vec<[Wallet; 2]> =
            left.iter().zip(right).map(|(left, right)| [left.clone(), right.clone()]).collect();
        let before = bank.balances(&addresses(&couples)).await;
        let (stop, stopped) = watch::channel(false);
        let (tell, executed) = watch::channel(vec![0; couples.len()]);
        let patient = Bank { client: patient(&bank.client), ..bank.clone() };
        let swapping = couples.iter().cloned().enumerate().map(|(at, couple)| {
            let (bank, stopped, tell) = (patient.clone(), stopped.clone(), tell.clone());
            tokio::spawn(async move {
                while !*stopped.borrow() {
                    swap(&bank, &couple).await;
                    tell.send_modify(|executed| executed[at] += 1);
                }
            })
        });
        let swapping = swapping.collect();
        Self { bank: bank.clone(), couples, before, stop, executed, swapping }
    }

    /// Waits until each couple has had two more swaps executed: the second of them began after this was called.
    pub async fn next(&mut self) {
        let wanted: Vec<usize> = self.executed.borrow_and_update().iter().map(|executed| executed + 2).collect();
        let there = |executed: &Vec<usize>| executed.iter().zip(&wanted).all(|(executed, wanted)| executed >= wanted);
        in_time("swaps of every couple", self.executed.wait_for(there)).await.expect("a swap has failed");
    }

    /// Ends them when those in flight are executed, and checks that each account has what it had before.
    pub async fn end(self) {
        self.stop.send_replace(true);
        for swapping in self.swapping {
            in_time("the last swap", swapping).await.unwrap();
        }
        assert_eq!(self.bank.balances(&addresses(&self.couples)).await, self.before, "a swap was executed by half");
    }
}

/// One that asks as long as anything may take.
fn patient(client: &Client) -> Client {
    client.clone().with_patience(DEADLINE)
}

fn addresses(couples: &[[Wallet; 2]]) -> Vec<Address> {
    couples.iter().flatten().map(|wallet| wallet.address).collect()
}

/// Has two payers of two groups swap, and waits until both credits are there.
async fn swap(bank: &Bank, [left, right]: &[Wallet; 2]) {
    let moves = vec![bank.pay(left, right.address, 1), bank.pay(right, left.address, 1)];
    let settled = bank.execute(moves, &[&left.key, &right.key]).await.unwrap();
    let Settled::Votes { votes, .. } = &settled else { panic!("both groups have to vote: {settled:?}") };
    let mut found: Vec<(GroupId, bool)> = votes.iter().map(|vote| (vote.group, vote.no.is_none())).collect();
    let mut wanted = [left, right].map(|wallet| (bank.home(&wallet.address), true));
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
}
