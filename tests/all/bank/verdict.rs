//! What has to be true when everything is up again.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use client::{Client, Consistency};
use ledger::{Receipt, TxId};
use proto::views::HistoryChange;

use super::customer::{Deed, Seen, read};
use super::{ACCOUNTS, FUNDS, OUTLIVES_ANYWHERE_MS, OUTLIVES_MAX_MS, ROUNDS, Town};
use crate::history::{self, Fate, History, Kind};
use crate::support::audit::{Receipts, audit_receipts};
use crate::support::eventually;
use crate::support::machines::Machines;

/// Lines of a page of an account's history.
const PAGE: u32 = 200;

/// Judges everything that customers did and saw, and the chains.
pub(super) async fn judge(town: &Town, machines: &mut Machines, client: &Client, seen: Seen) {
    let Seen { mut deeds, mut reads } = seen;
    let unheard = deeds.iter().filter(|deed| deed.transfer.fate == Fate::Unknown).count();
    println!("{unheard} transactions whose fate their senders did not hear");
    // They ask now. What has a fate by then holds nothing when all mail has been taken.
    for deed in deeds.iter_mut().filter(|deed| deed.transfer.fate == Fate::Unknown) {
        deed.ask_again(town, client).await;
    }
    let heights = machines.settled(client).await;
    let settled = town.now();
    for deed in deeds.iter_mut().filter(|deed| deed.late) {
        deed.transfer.applied = Some(settled);
    }
    let all = FUNDS * 2 * u128::try_from(ACCOUNTS).unwrap();
    let (supply, receipts) = audit_receipts(client, &heights).await;
    assert_eq!(supply[&town.bank.asset].held, all);
    assert_eq!(town.bank.total(&town.wallets).await, all);
    for wallet in &town.wallets {
        let answer = client.account_view(wallet.address, Consistency::Linearizable, None).await.unwrap();
        let view = answer.value.unwrap();
        let held = view.record.balances.iter().any(|(_, balance)| balance.held > 0);
        assert!(!held && view.claims.is_empty(), "{view:?}");
    }
    // Everybody can see all of it now.
    for account in 0..town.wallets.len() {
        let last = eventually("a last read", async || read(town, client, account).await.ok_or("nobody answers")).await;
        reads.push(last);
    }
    let mut longest = (0, None);
    let mut credits = Credits::default();
    let unheard = deeds.iter().filter(|deed| deed.transfer.fate == Fate::Unknown).count();
    println!("{unheard} transactions whose fate their senders did not hear");
    for deed in &mut deeds {
        let found = receipts.get(&deed.txid).map_or(&[][..], Vec::as_slice);
        compare(deed, found);
        if deed.voters.len() > 1 {
            // The receipt stands in the block that posts or releases.
            let outlived = found.iter().map(|receipt| receipt.time_ms.0.saturating_sub(deed.valid_until_ms)).max();
            longest = longest.max((outlived.unwrap_or_default(), Some(deed.txid)));
        }
        if deed.late {
            learn(town, client, &mut credits, deed, found).await;
        }
    }
    tell(&deeds, &reads, &receipts);
    println!("a hold outlived its transaction by at most {} ms of its group's time: {:?}", longest.0, longest.1);
    let long_run = std::env::var_os(ROUNDS).is_some();
    assert!(longest.0 <= if long_run { OUTLIVES_MAX_MS } else { OUTLIVES_ANYWHERE_MS }, "{longest:?}");
    let transfers = deeds.into_iter().map(|deed| deed.transfer).collect();
    let history = History { opening: vec![FUNDS; town.wallets.len()], transfers, reads };
    if let Err(violation) = history::check(&history) {
        panic!("{}", shown(&history, &violation));
    }
}

/// A transaction's receipts: one of each group that votes, all of one outcome, which is what its sender
/// was told.
fn compare(deed: &Deed, found: &[Receipt]) {
    if found.is_empty() {
        assert!(deed.traceless, "a transaction was lost: {deed:?}");
        return;
    }
    let mut groups: Vec<_> = found.iter().map(|receipt| receipt.group).collect();
    groups.sort_unstable();
    assert_eq!(groups, deed.voters, "{deed:?}: {found:?}");
    let yes = found[0].committed();
    assert!(found.iter().all(|receipt| receipt.committed() == yes), "groups disagree on {deed:?}: {found:?}");
    match deed.transfer.fate {
        Fate::Yes => assert!(yes, "{deed:?}: {found:?}"),
        Fate::No => assert!(!yes, "{deed:?}: {found:?}"),
        Fate::Unknown => panic!("its sender has asked to the end: {deed:?}"),
    }
}

/// What the cluster tells of a transaction whose sender asked again in the end. Nobody heard of it in
/// time, so the blocks have to tell when it happened.
async fn learn(town: &Town, client: &Client, credits: &mut Credits, deed: &mut Deed, found: &[Receipt]) {
    let yes = found.first().is_some_and(Receipt::committed);
    let known = client.explain(deed.txid).await.unwrap();
    let mut legs = Vec::new();
    for leg in &deed.transfer.legs {
        let (mut leg, home) = (*leg, town.homes[leg.account]);
        let receipt = found.iter().find(|receipt| receipt.group == home).map(|receipt| receipt.height.0);
        match leg.kind {
            Kind::Debit | Kind::Credit => leg.at = receipt,
            Kind::Held => {
                let prepared =
                    known.iter().find(|explain| explain.group == home).and_then(|explain| explain.prepared.as_ref());
                let vote = prepared.and_then(|prepared| prepared.own.as_ref()).filter(|own| own.no.is_none());
                let Some(vote) = vote else { continue };
                (leg.at, leg.over) = (Some(vote.at.height.0), receipt);
            }
            Kind::Mailed if yes => leg.at = credits.take(town, client, leg.account, deed.txid, leg.amount).await,
            Kind::Mailed => {}
        }
        legs.push(leg);
    }
    deed.transfer.legs = legs;
}

/// The blocks of credits, as the history of each account has them.
#[derive(Default)]
struct Credits(BTreeMap<usize, Vec<(TxId, u128, u64)>>);

impl Credits {
    /// The block of one credit, which is not found again.
    async fn take(&mut self, town: &Town, client: &Client, account: usize, txid: TxId, amount: u128) -> Option<u64> {
        let lines = match self.0.entry(account) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(credits_of(town, client, account).await),
        };
        let at = lines.iter().position(|line| (line.0, line.1) == (txid, amount));
        Some(lines.swap_remove(at.expect("a committed credit is in the history of its account")).2)
    }
}

/// Every credit of an account: transaction, amount, block.
async fn credits_of(town: &Town, client: &Client, account: usize) -> Vec<(TxId, u128, u64)> {
    let (mut before, mut lines) = (None, Vec::new());
    loop {
        let page = client.history(town.wallets[account].address, before, PAGE).await.unwrap().value;
        for line in page.lines {
            if let HistoryChange::Credit { amount, .. } = line.change {
                lines.push((line.txid, amount, line.height.0));
            }
        }
        before = page.before;
        if before.is_none() {
            return lines;
        }
    }
}

/// Says what there was, and fails when something was too rare to show anything.
fn tell(deeds: &[Deed], reads: &[history::Read], receipts: &Receipts) {
    let count = |what: &dyn Fn(&Deed) -> bool| deeds.iter().filter(|deed| what(deed)).count();
    let several = count(&|deed| deed.voters.len() > 1);
    let yes = count(&|deed| deed.voters.len() > 1 && deed.transfer.fate == Fate::Yes);
    let no = count(&|deed| deed.voters.len() > 1 && deed.transfer.fate == Fate::No);
    let half_open = count(&|deed| deed.half_open && receipts.contains_key(&deed.txid));
    let (again, traceless) = (count(&|deed| deed.attempts > 1), count(&|deed| deed.traceless));
    println!(
        "{} reads, {} transactions; {several} of two groups: {yes} yes, {no} no, {half_open} of them half open; \
         {again} were sent again, {traceless} refused without a trace",
        reads.len(),
        deeds.len()
    );
    assert!(yes > 20 && no > 5 && half_open > 0 && deeds.len() - several > 20 && reads.len() > 50);
}

/// A violation with what the account's customers saw around it.
fn shown(history: &History, violation: &history::Violation) -> String {
    let history::Violation::Account { account, misfit } = violation else { return format!("{violation:?}") };
    let mut lines = vec![format!("{violation:?}")];
    let near = |from: u64, until: Option<u64>| {
        from <= misfit.time && until.is_none_or(|until| until + 10_000_000_000 > misfit.time)
    };
    for (number, transfer) in history.transfers.iter().enumerate() {
        let legs: Vec<_> = transfer.legs.iter().filter(|leg| leg.account == *account).collect();
        if !legs.is_empty() && near(transfer.invoked, transfer.applied) {
            let history::Transfer { invoked, fate, decided, applied, .. } = transfer;
            lines.push(format!("transfer {number}: {invoked} {fate:?} {decided:?} {applied:?} {legs:?}"));
        }
    }
    let reads = history.reads.iter().enumerate().filter(|(_, read)| read.account == *account);
    lines.extend(
        reads
            .filter(|(_, read)| near(read.invoked, Some(read.completed)))
            .map(|(at, read)| format!("read {at}: {read:?}")),
    );
    lines.join("\n")
}
