//! Reads: how fresh they are, and what their proofs prove without the cluster.

use client::proof::{Fact, ProofFile, verify};
use client::{Consistency, Wait};
use ledger::genesis::Genesis;
use ledger::{Height, Reject, TxId};

use crate::support::bank::{Bank, reason, wallet, wallets_in_each_shard};
use crate::support::cluster::{TestCluster, Wanted};

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_as_fresh_as_was_asked_for() {
    let cluster = TestCluster::start(Wanted::default()).await;
    let bank = Bank::open(&cluster.client()).await;
    let homes = wallets_in_each_shard(&cluster.genesis.layout, "home", 2);
    bank.fund(homes.iter().flatten(), 1_000).await;
    let (alice, bob) = (&homes[0][0], &homes[0][1]);
    let available = |record: Option<ledger::AccountRecord>| record.map(|record| record.balances[0].1.available());

    for paid in 1..=20u128 {
        let receipt = bank.client.pay(&alice.key, bob.address, bank.asset, 1, Wait::Receipt).await.unwrap();
        for node in cluster.node_ids() {
            let client = cluster.client_of(node);
            // Acknowledged before, so every linearizable read shows it, through any router.
            let fresh = client.account(alice.address, Consistency::Linearizable, false).await.unwrap();
            assert_eq!(available(fresh.value), Some(1_000 - paid));
            let later = client.account(alice.address, Consistency::AtLeast(receipt.height), false).await.unwrap();
            assert!(later.height >= receipt.height);
            assert_eq!(available(later.value), Some(1_000 - paid));
            // A stale read shows some state that was.
            let stale = client.account(alice.address, Consistency::Stale, false).await.unwrap();
            assert!(available(stale.value).unwrap() >= 1_000 - paid);
        }
    }
    let far = Consistency::AtLeast(Height(1_000_000));
    let client = bank.client.clone().with_patience(std::time::Duration::from_secs(8));
    let error = client.account(alice.address, far, false).await.unwrap_err();
    assert_eq!(reason(&error), Some(Reject::Behind), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn history_tells_everything_newest_first_in_pages() {
    let cluster = TestCluster::start(Wanted::default()).await;
    let bank = Bank::open(&cluster.client()).await;
    let homes = wallets_in_each_shard(&cluster.genesis.layout, "home", 1);
    bank.fund(homes.iter().flatten(), 1_000).await;
    let (alice, bob) = (&homes[0][0], &homes[1][0]);
    let mut expected = Vec::new();
    for amount in 1..=30u128 {
        let receipt = bank.client.pay(&alice.key, bob.address, bank.asset, amount, Wait::Applied).await.unwrap();
        expected.push(receipt.txid);
    }
    for account in [alice, bob] {
        let (mut before, mut found) = (None, Vec::<TxId>::new());
        loop {
            let page = bank.client.history(account.address, before, 7).await.unwrap().value;
            assert!(page.lines.len() == 7 || page.before.is_none(), "a page is full, or it is the last");
            found.extend(page.lines.iter().map(|line| line.txid));
            before = page.before;
            if before.is_none() {
                break;
            }
        }
        // The oldest line is the funding.
        found.pop();
        found.reverse();
        assert_eq!(found, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_holds_against_the_genesis_alone_and_no_altered_one_does() {
    let cluster = TestCluster::start(Wanted::default()).await;
    let bank = Bank::open(&cluster.client()).await;
    let homes = wallets_in_each_shard(&cluster.genesis.layout, "home", 1);
    bank.fund(homes.iter().flatten(), 1_000).await;
    let (alice, bob) = (&homes[0][0], &homes[1][0]);
    let receipt = bank.client.pay(&alice.key, bob.address, bank.asset, 77, Wait::Applied).await.unwrap();

    let present = bank.client.account(alice.address, Consistency::Linearizable, true).await.unwrap();
    let nobody = wallet("nobody", 0).address;
    let absent = bank.client.account(nobody, Consistency::Linearizable, true).await.unwrap();
    assert_eq!(absent.value, None);
    let executed = bank.client.transaction(receipt.txid, None, true).await.unwrap();
    let facts = [
        (present.proof, Fact::Account { address: alice.address, record: present.value }),
        (absent.proof, Fact::Account { address: nobody, record: None }),
        (executed.proof, Fact::Receipt(receipt)),
    ];
    let genesis: Genesis = {
        // As an auditor has it: the file, and nothing else of the cluster.
        let text = std::fs::read_to_string(cluster.dir.genesis_path()).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let others = TestCluster::prepare(&Wanted::default()).genesis;
    for (proof, fact) in facts {
        let file = proof.unwrap().to_file();
        let verified = verify(&ProofFile::from_file(&file).unwrap(), &genesis).unwrap();
        assert_eq!(verified.fact, fact);
        assert!(verified.signers.len() >= 2, "{:?}", verified.signers);
        let other = verify(&ProofFile::from_file(&file).unwrap(), &others).unwrap_err();
        assert_eq!(other.code(), "proof_other_cluster");
        refuses_every_alteration(&file, &genesis, &fact);
    }
}

/// Cut short anywhere, or with any one bit changed, it is refused with a code and never proves what
/// is not so. (That an account is absent is proved by what stands around its place, which proves the
/// same of other places there: with another address it is the proof of another true fact.)
fn refuses_every_alteration(file: &[u8], genesis: &Genesis, fact: &Fact) {
    let absent = matches!(fact, Fact::Account { record: None, .. });
    let judge = |bytes: &[u8]| ProofFile::from_file(bytes).and_then(|proof| verify(&proof, genesis));
    for length in 0..file.len() {
        assert!(judge(&file[..length]).is_err(), "cut to {length} bytes it still proves");
    }
    for at in 0..file.len() {
        let mut altered = file.to_vec();
        altered[at] ^= 1 << (at % 8);
        match judge(&altered) {
            Err(error) => assert!(!error.code().is_empty()),
            Ok(other) => {
                let of_another =
                    absent && matches!(&other.fact, Fact::Account { record: None, .. }) && other.fact != *fact;
                assert!(of_another, "with byte {at} of {} changed it still proves {fact:?}", file.len());
            }
        }
    }
    let longer = [file, &[0]].concat();
    assert!(judge(&longer).is_err(), "with a byte more it still proves");
}
