//! A payment whose fate is open: the program says which one, keeps its bytes, and sends them again.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use ledger::{Authorisation, NodeId};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::bank::{Bank, Wallet, wallet};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::program::program;
use crate::support::{eventually, in_time};

fn seamark(dir: &Path, args: &[&str]) -> Child {
    Command::new(program())
        .args(args)
        .args(["--json", "--dir"])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The object that a command printed, and its exit code.
async fn ended(child: Child) -> (Value, i32) {
    let waited = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let Output { status, stdout, stderr } = in_time("a command ends", waited).await.unwrap();
    let text = String::from_utf8(stdout).unwrap();
    let value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text:?}, {}", String::from_utf8_lossy(&stderr)));
    (value, status.code().expect("it exited by itself"))
}

fn kept(dir: &Path) -> Vec<PathBuf> {
    let Ok(folder) = std::fs::read_dir(dir.join("transactions")) else { return Vec::new() };
    let files = folder.map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|ending| ending == "tx")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_was_interrupted_is_sent_again_and_not_paid_twice() {
    let wanted = Wanted { shards: 1, ..Wanted::default() };
    let mut cluster = TestCluster::start(wanted).await;
    let bank = Bank::open(&cluster.client()).await;
    let key = cluster.dir.admin_key(&cluster.genesis.orgs[0].name).unwrap();
    let address = Authorisation::Single(key.public()).address();
    let (operator, bob) = (Wallet { key, address }, wallet("bob", 0));
    bank.fund([&operator], 1_000).await;
    let dir = cluster.dir.root().to_owned();
    let (asset, to) = (bank.asset.to_string(), bob.address.to_string());
    let pay = ["pay", &to, "250", "--asset", &asset];

    // Nothing can be sequenced, and the sender gives up by hand.
    cluster.stop_node(NodeId(2)).await;
    cluster.stop_node(NodeId(3)).await;
    let paying = seamark(&dir, &pay);
    let file = eventually("the bytes are kept before they are sent", async || {
        kept(&dir).pop().ok_or_else(|| "no file".to_owned())
    })
    .await;
    let pid = Pid::from_raw(i32::try_from(paying.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let (report, exit) = ended(paying).await;
    assert_eq!((report["error"]["code"].as_str(), exit), (Some("interrupted"), 1), "{report}");
    let txid = report["error"]["transaction"]["txid"].as_str().unwrap().to_owned();
    assert_eq!(report["error"]["transaction"]["file"].as_str().unwrap(), file.to_str().unwrap());
    assert!(report["error"]["fix"].as_str().unwrap().contains(&format!("seamark tx resubmit {txid}")));
    let copy = dir.join("copy.tx");
    std::fs::copy(&file, &copy).unwrap();

    cluster.start_all().await;
    let (receipt, exit) = ended(seamark(&dir, &["tx", "resubmit", &txid])).await;
    assert_eq!((receipt["txid"].as_str(), exit), (Some(txid.as_str()), 0), "{receipt}");
    assert!(kept(&dir).is_empty(), "its fate is known");
    // By its file, for the second time: the same receipt, and the money has moved once.
    let (again, exit) = ended(seamark(&dir, &["tx", "resubmit", copy.to_str().unwrap()])).await;
    assert_eq!((&again, exit), (&receipt, 0));
    let (shown, _) = ended(seamark(&dir, &["tx", &txid])).await;
    assert_eq!(shown["receipts"][0], receipt);
    assert_eq!(bank.balances(&[address, bob.address]).await, [750, 250]);
    let (gone, exit) = ended(seamark(&dir, &["tx", "resubmit", &txid])).await;
    assert_eq!((gone["error"]["code"].as_str(), exit), (Some("tx_not_kept"), 1));

    // A payment that is settled leaves nothing behind, also when it is rejected.
    let (paid, exit) = ended(seamark(&dir, &pay)).await;
    assert_eq!(exit, 0, "{paid}");
    let (rejected, exit) = ended(seamark(&dir, &["pay", &to, "9999999", "--asset", &asset])).await;
    assert_eq!((rejected["error"]["code"].as_str(), exit), (Some("insufficient_funds"), 1));
    assert!(rejected["error"].get("transaction").is_none(), "{rejected}");
    assert!(kept(&dir).is_empty());
    assert_eq!(bank.balance(bob.address).await, 500);
}
