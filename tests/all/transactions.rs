//! Transactions of many moves as people write, sign and submit them: every command of
//! docs/transactions.md, and what `tx explain` tells when things go wrong.

use serde_json::Value;

use crate::support::eventually;
use crate::support::shell::{Shell, blocks};

const MANUAL: &str = "docs/transactions.md";

fn available(shell: &Shell, account: &str, asset: &str) -> String {
    let told = shell.told(&format!("account {account}"));
    let balances = told["balances"].as_array().unwrap();
    let line = balances.iter().find(|line| line["label"] == asset);
    line.map_or("0".to_owned(), |line| line["available"].as_str().unwrap().to_owned())
}

#[test]
fn the_manual_works_line_by_line() {
    let shell = Shell::start(&["--nodes", "3", "--shards", "4"]);
    let said = shell.script(&blocks(MANUAL, "sh").concat()).stdout;
    for part in ["COMMITTED", "applied everywhere", "DE02120300000000202051", "operator thaws what bob holds of EUR"] {
        assert!(said.contains(part), "{part:?} in\n{said}");
    }
    // The trade happened twice: once at once, once by the file. Then a payment went into suspense and
    // was released, and the joint account was paid.
    assert_eq!(available(&shell, "bob", "EUR"), "1250");
    assert_eq!(available(&shell, "alice", "BOND"), "10");
    assert_eq!(available(&shell, "alice", "EUR"), (100_000 - 500 - 500 - 250 - 100).to_string());
    let trade = shell.told("tx explain trade.tx");
    assert_eq!((&trade["fate"], &trade["applied"]), (&"committed".into(), &true.into()));
    assert_eq!(trade["moves"][0], "alice pays bob 5.00 EUR");
    // Sent again, it is the same transaction.
    let again = shell.told("tx submit trade.tx");
    assert_eq!((&again["txid"], &again["fate"]), (&trade["txid"], &"committed".into()));
    assert_eq!(available(&shell, "bob", "EUR"), "1250");

    // The forms that the manual shows are forms.
    shell.told("key new dave");
    for (number, form) in blocks(MANUAL, "toml").into_iter().enumerate() {
        shell.write("shown.toml", &form.join("\n"));
        let built = shell.told(&format!("tx build shown.toml -o shown-{number}.tx"));
        assert_eq!(built["complete"], false);
    }
}

/// Keys of two accounts in different shards.
fn couple(shell: &Shell) -> (String, String) {
    let mut found: Vec<(String, Value)> = Vec::new();
    for number in 0.. {
        let name = format!("key-{number}");
        shell.told(&format!("key new {name}"));
        let group = shell.told(&format!("account {name}"))["group"].clone();
        if let Some((first, _)) = found.iter().find(|(_, other)| *other != group) {
            return (first.clone(), name);
        }
        found.push((name, group));
    }
    unreachable!()
}

/// One of A's payments, and a write of B that is hidden; with all signatures, whole and redacted.
fn hidden(shell: &Shell, name: &str, valid_for: &str, (a, b): (&str, &str)) {
    shell.write(
        &format!("{name}.toml"),
        &format!(
            "valid_for = '{valid_for}'\n[[pay]]\nfrom = '{a}'\nto = '{b}'\nasset = 'EUR'\namount = 5\n\
             [[write]]\naccount = '{b}'\ndata = {{ key = 'k', value = '{name}' }}\nhidden = true\n"
        ),
    );
    shell.told(&format!("tx build {name}.toml -o {name}.tx"));
    shell.told(&format!("tx sign {name}.tx --key {a}"));
    shell.told(&format!("tx cosign {name}.tx --key {b}"));
    shell.told(&format!("tx redact {name}.tx -o {name}-redacted.tx"));
}

#[test]
fn what_becomes_of_a_transaction_is_told() {
    let shell = Shell::start(&["--nodes", "3", "--shards", "2"]);
    let (a, b) = couple(&shell);
    let (a, b) = (a.as_str(), b.as_str());
    let home_b = shell.told(&format!("account {b}"))["group"].clone();
    shell.told(&format!("asset issue EUR --supply 100 --to {a}"));

    // Without its opening, B's group waits, and says for what.
    hidden(&shell, "first", "10m", (a, b));
    let mut waiting = shell.begin("tx submit first-redacted.tx --wait decided");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(eventually("the group waits for its opening", async || {
        let said = shell.seamark("tx explain first-redacted.tx --json");
        if said.success && said.stdout.contains("needs the opening of move 2") {
            Ok(())
        } else {
            Err(format!("{said:?}"))
        }
    }));
    let told = shell.told("tx explain first-redacted.tx");
    assert_eq!(told["fate"], "undecided");
    assert_eq!(available(&shell, a, "EUR"), "95", "the payment is held");
    assert!(shell.seamark("tx explain first-redacted.tx").stdout.contains("UNDECIDED"));

    // A's payment is only held, so it can be refused to somebody else who needs all of it.
    let all = format!(
        "[[pay]]\nfrom = '{a}'\nto = '{b}'\nasset = 'EUR'\namount = 100\n[[check]]\naccount = '{b}'\nconsent = true\n"
    );
    shell.write("all.toml", &all);
    let refused = shell.refused(&format!("tx submit all.toml --key {a} --key {b} --save all.tx"));
    assert_eq!((&refused["fate"], &refused["reason"]["code"]), (&"aborted".into(), &"insufficient_funds".into()));
    let story = shell.told("tx explain all.tx");
    assert_eq!((&story["fate"], &story["reason"]), (&"aborted".into(), &refused["reason"]));
    let text = shell.seamark("tx explain all.tx").stdout;
    for part in ["vote NO", "insufficient_funds", "cause: ", "fix: ", "ABORTED"] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }

    // With it, both commit; whoever waited hears of it.
    assert_eq!(shell.told("tx submit first.tx")["fate"], "committed");
    assert!(waiting.wait().unwrap().success());
    let told = shell.told(&format!("tx {} --wait applied", told["txid"].as_str().unwrap()));
    assert_eq!((&told["fate"], &told["applied"]), (&"committed".into(), &true.into()));
    assert_eq!(told["receipts"].as_array().unwrap().len(), 2);
    assert_eq!(shell.seamark(&format!("account data get {b} k")).stdout.trim(), "first");

    // While B's entry is being written, nobody else can write it; afterwards a new try can.
    let other = format!(
        "[[write]]\naccount = '{b}'\ndata = {{ key = 'k', value = 'other' }}\n[[check]]\naccount = '{a}'\nconsent = true\n"
    );
    shell.write("other.toml", &other);
    // The other way round: A's group lacks its opening, so B's entry is held.
    let slow = format!(
        "[[write]]\naccount = '{b}'\ndata = {{ key = 'k', value = 'slow' }}\n[[check]]\naccount = '{a}'\nconsent = true\nhidden = true\n"
    );
    shell.write("slow.toml", &slow);
    shell.told("tx build slow.toml -o slow.tx");
    shell.told(&format!("tx sign slow.tx --key {a} --key {b}"));
    shell.told("tx redact slow.tx -o slow-redacted.tx");
    let mut waiting = shell.begin("tx submit slow-redacted.tx --wait decided");
    runtime.block_on(eventually("B's entry is held", async || {
        let told = shell.told(&format!("account {b}"));
        if told["undecided"].as_array().unwrap().is_empty() { Err("nothing is undecided") } else { Ok(()) }
    }));
    let conflict = shell.refused(&format!("tx submit other.toml --key {a} --key {b}"));
    assert_eq!((&conflict["reason"]["code"], &conflict["reason"]["group"]), (&"conflict".into(), &home_b));
    assert_eq!(shell.told("tx submit slow.tx")["fate"], "committed");
    assert!(waiting.wait().unwrap().success());
    assert_eq!(shell.told(&format!("tx submit other.toml --key {a} --key {b}"))["fate"], "committed");
    assert_eq!(shell.seamark(&format!("account data get {b} k")).stdout.trim(), "other");

    // An opening that never comes: the group says no by itself, and what was held is free again.
    hidden(&shell, "never", "8s", (a, b));
    let expired = shell.refused("tx submit never-redacted.tx");
    assert_eq!((&expired["reason"]["code"], &expired["reason"]["group"]), (&"expired".into(), &home_b));
    runtime.block_on(eventually("nothing is held any more", async || {
        let free = available(&shell, a, "EUR");
        if free == "95" { Ok(()) } else { Err(format!("{free} available")) }
    }));
}

#[test]
fn what_is_not_signed_by_the_right_keys_is_not_sent() {
    let shell = Shell::start(&["--nodes", "3", "--shards", "2"]);
    for key in ["alice", "bob", "carol", "mallory"] {
        shell.told(&format!("key new {key}"));
    }
    shell.told("asset issue EUR --supply 100 --to alice");
    shell.write(
        "joint.toml",
        "[[account]]\nname = 'board'\nthreshold = 2\nkeys = ['alice', 'bob', 'carol']\n\
         [[pay]]\nfrom = 'alice'\nto = 'board'\nasset = 'EUR'\namount = 7\n\
         [[check]]\naccount = 'board'\nconsent = true\n",
    );
    let code = |answer: &Value| answer["error"]["code"].as_str().unwrap().to_owned();
    assert_eq!(code(&shell.refused("tx submit joint.toml --key alice")), "tx_incomplete");
    assert_eq!(code(&shell.refused("tx submit joint.toml --key mallory")), "tx_not_a_signer");
    let built = shell.told("tx build joint.toml -o joint.tx");
    assert_eq!(code(&shell.refused("tx explain joint.tx")), "not_found");
    let missing = |plan: &Value| {
        plan["signers"].as_array().unwrap().iter().map(|signer| signer["missing"].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!(missing(&built), 3);
    assert_eq!(missing(&shell.told("tx sign joint.tx --key alice -o of-alice.tx")), 1, "for herself and for the board");
    assert_eq!(missing(&shell.told("tx sign joint.tx --key bob -o of-bob.tx")), 2);
    assert_eq!(missing(&shell.told("tx cosign of-alice.tx --with of-bob.tx -o signed.tx")), 0);
    assert_eq!(shell.told("tx submit signed.tx")["fate"], "committed");

    // A changed file is refused before anybody signs it.
    let text = std::fs::read_to_string(shell.dir().parent().unwrap().join("joint.tx")).unwrap();
    shell.write("forged.tx", &text.replacen("\"version\": 1", "\"version\": 9", 1));
    assert_eq!(code(&shell.refused("tx sign forged.tx --key alice")), "tx_version");
    shell.write("wrong.toml", "[[pay]]\nfrom = 'alice'\nto = 'bobb'\nasset = 'EUR'\namount = 1\n");
    let wrong = shell.refused("tx build wrong.toml -o wrong.tx");
    assert_eq!(code(&wrong), "address");
    assert!(wrong["error"]["cause"].as_str().unwrap().contains("line 3"), "{wrong}");
}
