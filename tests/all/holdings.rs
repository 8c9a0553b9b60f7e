//! Accounts with more assets than their record has room for: everything that is shown is proved, and
//! that there is nothing else.

use std::path::Path;
use std::process::{Command, Stdio};

use client::proof::{Claim, Fact, ProofFile, verify};
use client::{Client, Consistency, Wait};
use ledger::limits::INLINE_BALANCES_MAX;
use ledger::{Address, AssetId, AssetSpec, Balance, LedgerId, Move};
use serde_json::Value;

use crate::support::bank::{Wallet, wallet};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::program::program;

const ASSETS: u128 = INLINE_BALANCES_MAX as u128 + 4;

/// Issues [`ASSETS`] assets and gives `to` 1 of the first, 2 of the second, and so on.
async fn give_many(client: &Client, issuer: &Wallet, to: Address) -> Vec<(AssetId, u128)> {
    let spec = |number| AssetSpec {
        issuer: issuer.address,
        symbol: format!("A{number}"),
        name: format!("Asset {number}"),
        decimals: 0,
    };
    let issues = (1..=ASSETS).map(|number| (LedgerId::BEACON, Move::Issue(spec(number))));
    client.execute(issues.collect(), b"", &[&issuer.key], Wait::Applied).await.unwrap();
    let mut given: Vec<_> = (1..=ASSETS).map(|number| (spec(number).id(), number)).collect();
    let mint = |(asset, amount): &(AssetId, u128)| {
        (LedgerId::MAIN, Move::Mint { issuer: issuer.address, to, asset: *asset, amount: *amount })
    };
    client.execute(given.iter().map(mint).collect(), b"", &[&issuer.key], Wait::Applied).await.unwrap();
    given.sort();
    given
}

fn seamark(cluster: &Path, args: &[&str]) -> Value {
    let output = Command::new(program())
        .args(args)
        .args(["--json", "--dir"])
        .arg(cluster)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_covers_every_balance_of_an_account_with_many_assets() {
    let cluster = TestCluster::start(Wanted::default()).await;
    let client = cluster.client();
    let (issuer, alice) = (wallet("issuer", 0), wallet("alice", 0));
    let given = give_many(&client, &issuer, alice.address).await;

    let answer = client.account(alice.address, Consistency::Linearizable, true).await.unwrap();
    let balance = |(asset, amount): &(AssetId, u128)| (*asset, Balance { posted: *amount, held: 0 });
    let expected: Vec<_> = given.iter().map(balance).collect();
    assert_eq!(answer.value.as_ref().unwrap().balances, expected);
    let unproved = client.account(alice.address, Consistency::Linearizable, false).await.unwrap();
    assert_eq!(unproved.value, answer.value);
    let proof = answer.proof.unwrap();
    let verified = verify(&proof, &cluster.genesis).unwrap();
    assert_eq!(verified.fact, Fact::Account { address: alice.address, record: answer.value });
    assert!(verified.complete);

    // Any entry altered or left out is noticed; the last are those beside the record.
    let Claim::Holdings { entries, .. } = &proof.claim else { panic!("{:?}", proof.claim) };
    assert_eq!(entries.len() as u128, 1 + ASSETS - INLINE_BALANCES_MAX as u128);
    for at in 0..entries.len() {
        let mut altered = proof.clone();
        let Claim::Holdings { entries, .. } = &mut altered.claim else { unreachable!() };
        *entries[at].value.last_mut().unwrap() ^= 1;
        assert_eq!(verify(&altered, &cluster.genesis).unwrap_err().code(), "proof_root_mismatch");
        let mut fewer = proof.clone();
        let Claim::Holdings { entries, .. } = &mut fewer.claim else { unreachable!() };
        entries.remove(at);
        assert_eq!(verify(&fewer, &cluster.genesis).unwrap_err().code(), "proof_root_mismatch");
    }

    // An issuer has further entries, which are no balances.
    let of_issuer = client.account(issuer.address, Consistency::Linearizable, true).await.unwrap();
    assert_eq!(of_issuer.value.unwrap().balances, []);
    assert!(matches!(of_issuer.proof.unwrap().claim, Claim::Holdings { .. }));

    // And the same by the program, with the file in between.
    let file = cluster.dir.root().join("alice.proof");
    let (address, path) = (alice.address.to_string(), file.to_str().unwrap());
    let (root, shown) = (cluster.dir.root().to_owned(), given.len());
    let account = seamark(&root, &["account", &address, "--proof", path]);
    assert_eq!(account["balances"].as_array().unwrap().len(), shown, "{account}");
    assert_eq!((&account["more_lines"], &account["more_lines_uncounted"]), (&Value::from(0), &Value::from(false)));
    let report = seamark(&root, &["verify", path]);
    assert_eq!((&report["valid"], &report["fact"]["complete"]), (&Value::from(true), &Value::from(true)), "{report}");
    let proved: Vec<_> =
        given.iter().map(|(asset, amount)| serde_json::json!([asset.to_string(), amount.to_string()])).collect();
    assert_eq!(report["fact"]["balances"], Value::from(proved), "{report}");
    let mut altered = ProofFile::from_file(&std::fs::read(&file).unwrap()).unwrap();
    let Claim::Holdings { entries, .. } = &mut altered.claim else { panic!("{altered:?}") };
    *entries.last_mut().unwrap().value.first_mut().unwrap() ^= 1;
    std::fs::write(&file, altered.to_file()).unwrap();
    assert_eq!(seamark(&root, &["verify", path])["error"]["code"], "proof_root_mismatch");

    // What happened, page by page: all of it, whether a page ends with a block or within one.
    for (account, kind) in [(address, "received"), (issuer.address.to_string(), "minted")] {
        let mut amounts = history(&root, &account, kind);
        amounts.sort_unstable();
        assert_eq!(amounts, (1..=ASSETS).collect::<Vec<_>>(), "what was {kind}");
    }
}

/// The amounts of every line of this kind, asked for five lines at a time.
fn history(root: &Path, account: &str, kind: &str) -> Vec<u128> {
    let (mut amounts, mut older) = (Vec::new(), None::<String>);
    loop {
        let mut args = vec!["account", account, "--history", "--limit", "5"];
        args.extend(older.iter().flat_map(|place| ["--before", place.as_str()]));
        let page = seamark(root, &args);
        let lines = page["history"].as_array().unwrap();
        assert!(lines.len() <= 5, "{page}");
        let of_kind = lines.iter().filter(|line| line["change"] == kind);
        amounts.extend(of_kind.map(|line| line["amount"].as_str().unwrap().parse::<u128>().unwrap()));
        match page["older"].as_str() {
            Some(place) => older = Some(place.to_owned()),
            None => return amounts,
        }
    }
}
