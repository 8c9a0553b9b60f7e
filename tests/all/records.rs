//! Records, grants and hash-locks by command: what is found of a file and of an altered one, who has
//! access when, what a lock pays whom, and that all of it is proved.

use serde_json::{Value, json};

use crate::support::shell::Shell;

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
