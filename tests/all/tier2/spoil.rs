//! Whether the verdict rests on what is there: a run that ended well is told wrongly, in one way after
//! the other, and each has to be noticed by the checker that is there for it.

use client::SubmitEvent;
use cluster_sim::checkers::own;
use consensus::port::Payload;
use ledger::account::AccountRecord;
use ledger::{Reject, schema};
use storage::{Kv, WriteBatch};

use super::history::History;
use super::judge::{Copied, judge};
use super::world::Ended;

/// What is found with these copies; `whose` has to be among those who find it.
fn found_by(ended: &Ended, copies: &[Copied], history: &History, whose: &str) {
    let violations = judge(&ended.genesis, &ended.load, copies, history);
    assert!(violations.iter().any(|text| text.starts_with(whose)), "{whose} noticed nothing: {violations:#?}");
}

/// Spoils the end of a run.
pub fn each_lie_is_found(ended: &Ended) {
    let fresh = || ended.copies.iter().map(Copied::again).collect::<Vec<_>>();

    let copies = fresh();
    rich(&copies);
    found_by(ended, &copies, &ended.history, "chain");
    found_by(ended, &copies, &ended.history, "equal_roots");

    let (copies, mut history) = (fresh(), ended.history.clone());
    history.forget(copies[0].group, |entry| matches!(entry.payload, Payload::Batch(_)));
    found_by(ended, &copies, &history, "chain");

    let mut copies = fresh();
    copies.iter_mut().skip(1).for_each(Copied::lose_log);
    found_by(ended, &copies, &ended.history, "durability");

    let told = ended.load.told.take();
    let lie = told.iter().find_map(|(operation, event)| match event {
        SubmitEvent::Receipt(receipt) if own::committed(receipt) => {
            let mut receipt = receipt.clone();
            receipt.outcome = ledger::Outcome::Rejected(Reject::Frozen);
            Some((*operation, SubmitEvent::Receipt(receipt)))
        }
        _ => None,
    });
    ended.load.told.replace(told.into_iter().chain([lie.expect("something was committed")]).collect());
    found_by(ended, &ended.copies, &ended.history, "durability");
}

/// Gives somebody money in one database.
fn rich(copies: &[Copied]) {
    for copied in copies {
        for (key, value) in cluster_sim::state::scan(&copied.kv, &[schema::STATE]) {
            let account = key.get(33) == Some(&schema::KIND_ACCOUNT);
            let Ok(mut record) = borsh::from_slice::<AccountRecord>(&value) else { continue };
            if let Some((_, balance)) = record.balances.first_mut().filter(|_| account) {
                balance.posted += 1;
                let mut batch = WriteBatch::new();
                batch.put(key, borsh::to_vec(&record).unwrap());
                return copied.kv.write(batch).unwrap();
            }
        }
    }
    panic!("nobody has anything");
}
