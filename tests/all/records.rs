//! Records, grants and hash-locks by command: what is found of a file and of an altered one, who has
//! access when, what a lock pays whom, and that all of it is proved; on the main ledger, and in a channel, where
//! nobody but its members is told.

use client::{Client, Keystore, Profile, Wait};
use ledger::{Authorisation, GroupId, LedgerId, LockId, Move, TimeMs};
use serde_json::{Value, json};

use crate::channels::{proposed, wait_for};
use crate::support::bank::now_ms;
use crate::support::eventually;
use crate::support::shell::Shell;

/// How far ahead the deadline of a lock lies that is to be refunded: long enough to be locked by then.
const REFUND_AFTER_MS: u64 = 6_000;

/// The code that a command is refused with.
fn code(shell: &Shell, line: &str) -> String {
    shell.refused(line)["error"]["code"].as_str().unwrap().to_owned()
}

/// What is posted and what is available of an account's asset.
fn balance(shell: &Shell, account: &str, asset: &str) -> (String, String) {
    let told = shell.told(&format!("account {account}"));
    let line = told["balances"].as_array().unwrap().iter().find(|line| line["label"] == asset).cloned();
    let line = line.unwrap_or(json!({ "posted": "0", "available": "0" }));
    let text = |key: &str| line[key].as_str().unwrap().to_owned();
    (text("posted"), text("available"))
}

fn amounts(posted: u64, available: u64) -> (String, String) {
    (posted.to_string(), available.to_string())
}

#[test]
fn what_was_recorded_is_found_and_granted_and_nothing_else_is() {
    let shell = Shell::start(&["--nodes", "3", "--shards", "2"]);
    for key in ["alice", "bob", "carol"] {
        shell.told(&format!("key new {key}"));
    }
    shell.write("contract.txt", "Alice sells Bob a horse.\n");
    shell.write("altered.txt", "Alice sells Bob a house.\n");
    assert_eq!(code(&shell, "record verify contract.txt --owner alice"), "record_unknown");
    let put = shell.told("record put contract.txt --metadata contract-7 --key alice");
    let hash = put["records"][0]["record"].as_str().unwrap().to_owned();
    let recorded_ms = put["receipt"]["time_ms"].as_u64().unwrap();

    let found = shell.told("record verify contract.txt --owner alice");
    assert_eq!((&found["record"], &found["metadata"]), (&json!(hash), &json!("contract-7")));
    assert_eq!((&found["owner"], &found["txid"]), (&put["owner"], &put["txid"]));
    assert_eq!(found["at_ms"], json!(recorded_ms));
    assert_eq!(code(&shell, "record verify altered.txt --owner alice"), "record_unknown");
    assert_eq!(code(&shell, "record verify contract.txt --owner bob"), "record_unknown", "it is alice's");
    assert_eq!(code(&shell, "record put contract.txt --key alice"), "record_exists");
    assert_eq!(code(&shell, "record put altered.txt altered.txt --key alice"), "duplicate_move");
    assert_eq!(code(&shell, "record put nowhere.txt --key alice"), "file");

    // What bob may do, and what the command ends with.
    let access = |more: &str| shell.told(&format!("record access {hash} --owner alice {more}"));
    let bob = |more: &str| access(&format!("--account bob {more}"));
    assert_eq!((&bob("")["access"], &bob("")["allowed"]), (&json!("never"), &json!(false)));
    assert_eq!(code(&shell, "record revoke contract.txt --account bob --key alice"), "grant_unknown");
    assert_eq!(code(&shell, "record grant contract.txt --account bob --scope Read --key alice"), "record_form");
    assert_eq!(code(&shell, "record grant contract.txt --account carol --scope read --key bob"), "record_unknown");
    let past = "record grant contract.txt --account bob --scope read --until 2020-01-31T12:00:00Z --key alice";
    assert_eq!(code(&shell, past), "grant_expired");
    let granted = shell.told("record grant contract.txt --account bob --scope read --key alice");
    let granted_ms = granted["receipt"]["time_ms"].as_u64().unwrap();
    shell.told("record grant contract.txt --org 2 --scope audit --until 2100-01-31T12:00:00Z --key alice");
    let now = bob("--check");
    assert_eq!((&now["access"], &now["scope"], &now["allowed"]), (&json!("granted"), &json!("read"), &json!(true)));
    assert_eq!(access("--org 2")["until_ms"], json!(4_105_080_000_000_u64));
    assert_eq!(access("--org 2 --at 2100-01-31T12:00:00Z")["access"], "expired");
    assert_eq!(access("--org 1")["access"], "never");
    assert_eq!(access("--account carol")["allowed"], false);
    assert_eq!(access("--account alice")["access"], "owner");

    let revoked = shell.told("record revoke contract.txt --account bob --key alice");
    let revoked_ms = revoked["receipt"]["time_ms"].as_u64().unwrap();
    assert_eq!((&bob("")["access"], &bob("")["revoked_ms"]), (&json!("revoked"), &json!(revoked_ms)));
    let refused = shell.refused("record access contract.txt --owner alice --account bob --check");
    assert_eq!(refused["allowed"], false, "the answer is told, and the command fails");
    // The past stays as it was.
    assert_eq!(bob(&format!("--at {}", revoked_ms - 1))["allowed"], revoked_ms > granted_ms);
    assert_eq!(bob(&format!("--at {}", recorded_ms - 1))["access"], "no_record");

    let history = shell.told("record history contract.txt --owner alice");
    let events: Vec<&Value> = history["events"].as_array().unwrap().iter().map(|line| &line["event"]).collect();
    assert_eq!(events, ["recorded", "granted", "granted", "revoked"]);
    assert_eq!(history["events"][3]["txid"], revoked["txid"]);
    let shown = shell.told("record show --owner alice");
    assert_eq!(shown["records"].as_array().unwrap().len(), 1);
    assert_eq!(shown["records"][0]["parties"].as_array().unwrap().len(), 2);
    assert_eq!(shown["unseen"], json!([]));
    let text = shell.seamark("record show contract.txt --owner alice").stdout;
    assert!(text.contains("contract-7") && text.contains("bob: nothing any more: revoked"), "{text}");

    // What is asked for by name is proved, and anybody can judge the proof later.
    let kept = shell.told("record verify contract.txt --owner alice --proof contract.proof");
    assert_eq!((&kept["proof"], &kept["height"].is_u64()), (&json!("contract.proof"), &true));
    let judged = shell.told("verify contract.proof");
    assert_eq!((&judged["valid"], &judged["fact"]["kind"]), (&json!(true), &json!("record")));
    assert_eq!((&judged["fact"]["record"], &judged["fact"]["at_ms"]), (&json!(hash), &json!(recorded_ms)));
    shell.told("record access contract.txt --owner alice --account bob --proof bob.proof");
    let changes = shell.told("verify bob.proof")["fact"]["changes"].clone();
    assert_eq!((&changes[0]["scope"], &changes[1]["at_ms"]), (&json!("read"), &json!(revoked_ms)));
    assert_eq!((changes.as_array().unwrap().len(), &changes[1]["scope"]), (2, &Value::Null));
    shell.told("record access contract.txt --owner alice --account carol --proof carol.proof");
    assert_eq!(shell.told("verify carol.proof")["fact"]["changes"], json!([]), "that there is nothing is proved, too");
    let mut altered = std::fs::read(shell.dir().join("../bob.proof")).unwrap();
    *altered.last_mut().unwrap() ^= 1;
    std::fs::write(shell.dir().join("../altered.proof"), altered).unwrap();
    assert!(code(&shell, "verify altered.proof").starts_with("proof_"));

    // A move that is hidden is in no list; who knows what it recorded is told.
    let secret = ledger::hash::sha256(b"secret");
    shell.write("hidden.toml", &format!("[[record]]\nowner = 'alice'\nhash = '{secret}'\nhidden = true\n"));
    shell.told("tx submit hidden.toml --key alice");
    assert_eq!(shell.told(&format!("record verify {secret} --owner alice"))["record"], json!(secret.to_string()));
    assert_eq!(code(&shell, "record verify altered.txt --owner alice"), "record_unknown");
    assert_eq!(shell.told("record verify contract.txt --owner alice")["record"], json!(hash));
    assert_eq!(shell.told("record show --owner alice")["unseen"].as_array().unwrap().len(), 1);
}

#[test]
fn a_lock_is_claimed_by_its_secret_alone_and_refunded_only_after_its_deadline() {
    let shell = Shell::start(&["--nodes", "3", "--shards", "2"]);
    for key in ["alice", "bob"] {
        shell.told(&format!("key new {key}"));
    }
    shell.told("asset issue EUR --decimals 2 --supply 1000 --to alice");
    let made = shell.told("lock new-secret swap.secret");
    shell.told("lock new-secret other.secret");
    assert_eq!(code(&shell, "lock new-secret swap.secret"), "file");

    let line = "lock bob 250 --asset EUR --secret-file swap.secret --until 60 --key alice";
    let locked = shell.told(line);
    let lock = locked["lock"].as_str().unwrap().to_owned();
    assert_eq!((&locked["hash"], &locked["amount"]), (&made["hash"], &json!("250")));
    assert_eq!(balance(&shell, "alice", "EUR"), amounts(1000, 750), "it is held");
    assert_eq!(balance(&shell, "bob", "EUR"), amounts(0, 0));
    assert_eq!(code(&shell, "lock alice 1 --asset EUR --secret-file swap.secret --until 60 --key alice"), "lock_form");
    assert_eq!(code(&shell, "lock bob 1 --asset EUR --hash 00ff --until 60 --key alice"), "lock_hash");

    let claim = |how: &str| format!("claim {lock} --from alice {how}");
    assert_eq!(code(&shell, &claim("--secret-file other.secret")), "wrong_secret");
    assert_eq!(code(&shell, &claim("--secret 00ff")), "secret_form");
    assert_eq!(code(&shell, &format!("claim {lock} --from bob --secret-file swap.secret")), "lock_unknown");
    assert_eq!(code(&shell, &format!("refund {lock} --key alice")), "lock_early");
    assert_eq!(code(&shell, &format!("refund {lock} --key bob")), "lock_unknown");
    let shown = shell.told(&format!("lock show {lock} --from alice"));
    assert_eq!((&shown["state"], &shown["secret"]), (&json!("open"), &Value::Null));

    // Nobody signs: the secret authorises.
    let claimed = shell.told(&claim("--secret-file swap.secret"));
    assert_eq!(claimed["applied"], true);
    assert_eq!(balance(&shell, "alice", "EUR"), amounts(750, 750));
    assert_eq!(balance(&shell, "bob", "EUR"), amounts(250, 250));
    // The other side of the swap reads the secret.
    let shown = shell.told(&format!("lock show {lock} --from alice"));
    let secret = shown["secret"].as_str().unwrap();
    assert_eq!((&shown["state"], &shown["settled_by"]), (&json!("claimed"), &claimed["txid"]));
    assert_eq!(std::fs::read_to_string(shell.dir().join("../swap.secret")).unwrap().trim(), secret);
    let line = format!("lock show {lock} --from alice --proof swap.proof");
    assert_eq!(shell.told(&line)["proof"], "swap.proof");
    let fact = shell.told("verify swap.proof")["fact"].clone();
    assert_eq!((&fact["kind"], &fact["state"], &fact["secret"]), (&json!("lock"), &json!("claimed"), &json!(secret)));
    assert_eq!(code(&shell, &claim(&format!("--secret {secret}"))), "lock_settled");
    assert_eq!(balance(&shell, "bob", "EUR"), amounts(250, 250), "once");

    let hash = shell.told("lock new-secret third.secret")["hash"].as_str().unwrap().to_owned();
    let locked = shell.told(&format!("lock bob 50 --asset EUR --hash {hash} --until 1 --key alice --wait receipt"));
    let lock = locked["lock"].as_str().unwrap();
    let text = shell.seamark(&format!("lock show {lock} --from alice")).stdout;
    assert!(text.contains(": open") && text.contains("0.50 EUR"), "{text}");
    assert_eq!(balance(&shell, "alice", "EUR"), amounts(750, 700));
}

/// A channel of org-a and org-b that runs, with money of alice's in it; org-c is outside.
fn channel_with_money(shell: &Shell) {
    shell.told("asset issue EUR --decimals 2 --supply 1000 --to alice");
    shell.told("channel create coal --as org-a --members org-b --nodes 1,4");
    wait_for(shell, "it is listed", "channel ls", |told| !told["foundings"][0].is_null());
    assert_eq!(shell.told("channel approve coal --as org-b --nodes 2,5")["state"], "founded");
    let runs = |told: &Value| told["healthy"] == true && told["group"]["height"].as_u64() > Some(0);
    wait_for(shell, "it runs", "channel status coal", runs);
    let (permit, _) = proposed(shell, "channel permit coal EUR --as org-a");
    assert_eq!(shell.told(&format!("channel approve coal {permit} --as org-b"))["state"], "applied");
    let form = "from = 'alice'\nto = 'alice'\nasset = 'EUR'\namount = 600\nledger = 'channel-0'\n";
    shell.write("bring.toml", &format!("[[transfer]]\n{form}"));
    shell.told("tx submit bring.toml --key alice");
    wait_for(shell, "the money is there", "account alice --channel coal", |told| {
        told["balances"][0]["posted"] == "600"
    });
}

/// What is posted and what is available in the channel, as org-b is told.
fn in_channel(shell: &Shell, account: &str) -> (String, String) {
    let told = shell.told(&format!("account {account} --channel coal --as org-b"));
    let text = |key: &str| told["balances"][0][key].as_str().unwrap_or("0").to_owned();
    (text("posted"), text("available"))
}

#[test]
fn records_live_in_a_channel_too_and_only_its_members_are_told() {
    let shell = Shell::start(&["--nodes", "5", "--shards", "1"]);
    for key in ["alice", "bob"] {
        shell.told(&format!("key new {key}"));
    }
    channel_with_money(&shell);
    shell.write("contract.txt", "Alice sells Bob a horse.\n");
    let put = shell.told("record put contract.txt --metadata contract-7 --key alice --channel coal");
    let hash = put["records"][0]["record"].as_str().unwrap().to_owned();
    assert_eq!(put["receipt"]["group"], "channel-0");
    shell.told("record grant contract.txt --account bob --scope read --key alice --channel coal --as org-b");

    // The other member finds it, and keeps what proves it to anybody who has the genesis.
    let verify = "record verify contract.txt --owner alice";
    let found = shell.told(&format!("{verify} --channel coal --as org-b --proof contract.proof"));
    assert_eq!((&found["record"], &found["metadata"]), (&json!(hash), &json!("contract-7")));
    assert_eq!((&found["group"], &found["txid"]), (&json!("channel-0"), &put["txid"]));
    let judged = shell.told("verify contract.proof");
    assert_eq!((&judged["valid"], &judged["group"]), (&json!(true), &json!("channel-0")));
    assert_eq!((&judged["fact"]["kind"], &judged["fact"]["record"]), (&json!("record"), &json!(hash)));
    let access = "record access contract.txt --owner alice --account bob --channel coal";
    assert_eq!(shell.told(&format!("{access} --as org-b --check"))["scope"], "read");
    let history = shell.told("record history contract.txt --owner alice --channel coal --as org-b");
    let events: Vec<&Value> = history["events"].as_array().unwrap().iter().map(|line| &line["event"]).collect();
    assert_eq!((events, &history["unseen"]), (vec![&json!("recorded"), &json!("granted")], &json!([])));
    let shown = shell.told("record show --owner alice --channel coal --as org-a");
    assert_eq!(shown["records"][0]["parties"][0]["access"], "granted");
    shell.told("record revoke contract.txt --account bob --key alice --channel coal");
    assert_eq!(shell.told(&format!("{access} --as org-b"))["access"], "revoked");

    // It is nowhere else, and nobody else is told or writes there.
    assert_eq!(code(&shell, verify), "record_unknown", "it is in the channel");
    assert_eq!(shell.told("record show --owner alice")["records"], json!([]));
    for line in [
        verify,
        "record show --owner alice",
        "record show contract.txt --owner alice",
        "record history contract.txt --owner alice",
        "record access contract.txt --owner alice --account bob",
        "account alice",
        "account alice --history",
    ] {
        assert_eq!(code(&shell, &format!("{line} --channel coal --as org-c")), "channel_not_member", "{line}");
    }
    shell.write("other.txt", "Carol sells nothing.\n");
    assert_eq!(code(&shell, "record put other.txt --key alice --channel coal --as org-c"), "access_denied");
    assert_eq!(code(&shell, "record verify other.txt --owner alice --channel coal"), "record_unknown");
    assert_eq!(code(&shell, "record show --owner alice --channel steel"), "channel_unknown");
}

#[test]
fn a_lock_in_a_channel_is_claimed_and_refunded_there() {
    let shell = Shell::start(&["--nodes", "5", "--shards", "1"]);
    for key in ["alice", "bob"] {
        shell.told(&format!("key new {key}"));
    }
    channel_with_money(&shell);
    shell.told("lock new-secret swap.secret");
    let locked = shell.told("lock bob 250 --asset EUR --secret-file swap.secret --until 60 --key alice --channel coal");
    let lock = locked["lock"].as_str().unwrap().to_owned();
    assert_eq!(locked["receipt"]["group"], "channel-0");
    assert_eq!((in_channel(&shell, "alice"), in_channel(&shell, "bob")), (amounts(600, 350), amounts(0, 0)));
    let show = format!("lock show {lock} --from alice");
    assert_eq!(code(&shell, &show), "lock_unknown", "it is in the channel");
    assert_eq!(code(&shell, &format!("{show} --channel coal --as org-c")), "channel_not_member");
    assert_eq!(code(&shell, &format!("refund {lock} --key alice --channel coal")), "lock_early");

    // A member that is not the payer's claims it for bob.
    let claim = format!("claim {lock} --from alice --secret-file swap.secret --channel coal");
    assert_eq!(code(&shell, &format!("{claim} --as org-c")), "channel_not_member");
    assert_eq!(shell.told(&format!("{claim} --as org-b"))["applied"], true);
    assert_eq!((in_channel(&shell, "alice"), in_channel(&shell, "bob")), (amounts(350, 350), amounts(250, 250)));
    let shown = shell.told(&format!("{show} --channel coal --as org-b --proof swap.proof"));
    assert_eq!(shown["state"], "claimed");
    let judged = shell.told("verify swap.proof");
    assert_eq!((&judged["group"], &judged["fact"]["secret"]), (&json!("channel-0"), &shown["secret"]));

    // One that nobody claims goes back once its deadline has passed.
    let lock = about_to_end(&shell);
    assert_eq!(in_channel(&shell, "alice"), amounts(350, 300));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let refunded = runtime.block_on(eventually("the deadline has passed", async || {
        let said = shell.seamark(&format!("refund {lock} --key alice --channel coal --as org-b --json"));
        let told = said.json();
        if said.success {
            return Ok(told);
        }
        assert_eq!(told["error"]["code"], "lock_early", "{said:?}");
        Err(said.stdout)
    }));
    assert_eq!(refunded["receipt"]["group"], "channel-0");
    assert_eq!(in_channel(&shell, "alice"), amounts(350, 350));
    assert_eq!(shell.told(&format!("lock show {lock} --from alice --channel coal"))["state"], "refunded");
    assert_eq!(balance(&shell, "alice", "EUR"), amounts(400, 400), "the main ledger has nothing to do with it");
}

/// Locks 50 of alice's in the channel until a moment that is near, which no command line does.
fn about_to_end(shell: &Shell) -> LockId {
    let key = Keystore::new(shell.dir().join("keys")).unlock("alice", "correct-horse").unwrap();
    let account = |name: &str| shell.told(&format!("key show {name}"))["address"].as_str().unwrap().parse().unwrap();
    let asset = shell.told("asset show EUR")["id"].as_str().unwrap().parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::connect(&Profile::load_dir(&shell.dir()).unwrap()).await.unwrap();
        let lock = Move::Lock {
            from: Authorisation::Single(key.public()).address(),
            to: account("bob"),
            asset,
            amount: 50,
            hash: ledger::hash::sha256(b"a secret that is never told"),
            deadline_ms: TimeMs(now_ms() + REFUND_AFTER_MS),
        };
        let ledger = LedgerId::of_channel(GroupId::channel(0));
        let settled = client.execute(vec![(ledger, lock)], b"", &[&key], Wait::Applied).await.unwrap();
        LockId::derive(&settled.txid(), 0)
    })
}
