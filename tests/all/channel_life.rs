//! A channel from its founding to its end, by command: an organisation joins and leaves, keys change hands, and
//! the channel is closed. What is refused on the way is refused with its code.

use ledger::{PublicKey, SecretKey};
use serde_json::{Value, json};

use crate::channels::{code, proposed, wait_for};
use crate::support::eventually;
use crate::support::shell::Shell;

/// Writes a signing key to a file, and gives its public half.
fn key_file(shell: &Shell, name: &str) -> PublicKey {
    let secret = SecretKey::derive(name.as_bytes(), b"");
    let digits: String = secret.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    shell.write(name, &digits);
    secret.public()
}

/// Where a proposal stands after an organisation has approved it.
fn approved(shell: &Shell, id: &str, by: &str) -> Value {
    shell.told(&format!("channel approve coal {id} --as {by}"))["state"].clone()
}

/// A command says that this is still missing.
fn lacks(told: &Value, what: &str) {
    let missing = told["missing"].as_array().unwrap_or_else(|| panic!("{told}"));
    assert!(missing.iter().any(|line| line.as_str().is_some_and(|line| line.contains(what))), "{what}: {told}");
}

/// Waits until exactly these nodes decide in the channel, and all of them stand at one height.
fn hosted_by(shell: &Shell, nodes: &[u64]) {
    wait_for(shell, "its nodes stand at one height", "channel status coal", |told| {
        let numbers = |list: &Value, key: &str| -> Vec<u64> {
            list.as_array().into_iter().flatten().filter_map(|line| line[key].as_u64()).collect()
        };
        let height = told["group"]["height"].as_u64().unwrap_or(0);
        let heights = numbers(&told["group"]["replicas"], "height");
        let seats = numbers(&told["committee"], "node");
        told["healthy"] == true && seats == nodes && height > 0 && heights == vec![height; nodes.len()]
    });
}

#[test]
fn a_channel_from_its_founding_to_its_end() {
    let shell = Shell::start(&["--nodes", "5", "--shards", "1"]);
    shell.told("channel create coal --as org-a --members org-b --nodes 1,4");
    wait_for(&shell, "it is listed", "channel ls", |told| !told["foundings"][0].is_null());
    assert_eq!(shell.told("channel approve coal --as org-b --nodes 2,5")["state"], "founded");
    hosted_by(&shell, &[1, 2, 4, 5]);

    joins(&shell);
    changes_keys(&shell);
    leaves(&shell);
    is_closed(&shell);
}

/// Invited, approved, joined: its node has the channel, and it reads.
fn joins(shell: &Shell) {
    for line in ["channel show coal --as org-c", "channel receipt coal org-c --as org-c"] {
        assert_eq!(code(shell, line), "channel_not_member", "{line}");
    }
    assert_eq!(code(shell, "channel join coal --as org-c"), "channel_not_invited");
    let (invite, state) = proposed(shell, "channel invite coal org-c --as org-a");
    assert_eq!(state, "open");
    assert_eq!(code(shell, "channel join coal --as org-c"), "channel_not_invited", "nobody has approved it yet");
    let agreed = shell.told(&format!("channel approve coal {invite} --as org-b"));
    assert_eq!(agreed["state"], "applied");
    lacks(&agreed, "'seamark channel join coal --as org-c'");
    assert_eq!(code(shell, "channel show coal --as org-c"), "channel_not_member", "an invitation shows nothing");
    let joined = shell.told("channel join coal --as org-c");
    assert!(joined["done"].as_str().unwrap().starts_with("org-c is a member from block "), "{joined}");
    lacks(&joined, "neither state nor seat yet");
    hosted_by(shell, &[1, 2, 3, 4, 5]);
    // With another organisation's node there, one of org-b's may go.
    lacks(&shell.told("channel nodes coal --set 2 --as org-b"), "until the next committee");
    hosted_by(shell, &[1, 2, 3, 4]);
    let shown = shell.told("channel show coal --as org-c");
    let orgs: Vec<&Value> = shown["members"].as_array().unwrap().iter().map(|member| &member["org"]).collect();
    assert_eq!(orgs, ["org-a", "org-b", "org-c"]);

    // What was proposed of a state that has changed since is decided by nobody any more.
    let (any, _) = proposed(shell, "channel policy coal freeze any --as org-a");
    assert_eq!(code(shell, &format!("channel approve coal {any} --as org-a")), "proposal_acted", "it proposed that");
    assert_eq!(code(shell, "channel invite coal org-a --as org-a"), "channel_invite_self");
    let (all, _) = proposed(shell, "channel policy coal freeze all --as org-b");
    assert_eq!(approved(shell, &any, "org-c"), "applied");
    assert_eq!(code(shell, &format!("channel approve coal {all} --as org-c")), "proposal_stale");
}

/// A key that was replaced or revoked signs nothing any more.
fn changes_keys(shell: &Shell) {
    let shown = shell.told("channel show coal --as org-b");
    let old = shown["members"][1]["keys"][0]["key"].as_str().unwrap();
    let (new, spare) = (key_file(shell, "new.key"), key_file(shell, "spare.key"));
    assert_eq!(code(shell, &format!("channel key revoke coal {old} --as org-b")), "channel_last_admin");
    shell.told(&format!("channel key rotate coal {old} {new} --as org-b"));
    assert_eq!(code(shell, "channel freeze coal --as org-b"), "channel_key_unknown");
    assert_eq!(shell.told("channel freeze coal --as org-b --key-file new.key")["state"], "applied");
    assert_eq!(shell.told("channel thaw coal --as org-c")["state"], "applied");

    shell.told(&format!("channel key add coal {spare} --role admin --as org-b --key-file new.key"));
    shell.told(&format!("channel key revoke coal {new} --as org-b --key-file spare.key"));
    assert_eq!(code(shell, "channel freeze coal --as org-b --key-file new.key"), "channel_credential_revoked");
    let again = format!("channel key add coal {new} --role admin --as org-b --key-file spare.key");
    assert_eq!(code(shell, &again), "channel_key_revoked", "it does not come back");
}

/// Who has left reads nothing from then on, but what proves that it left, which anybody can judge.
fn leaves(shell: &Shell) {
    assert_eq!(code(shell, "channel receipt coal org-c --as org-a"), "exclusion_none");
    let left = shell.told("channel leave coal --as org-c");
    lacks(&left, "the local key before it");
    let kept = left["receipt"].as_str().unwrap();
    assert!(kept.starts_with("exclusion-channel-0-org-3-at-"), "{left}");
    let judged = shell.told(&format!("verify {kept}"));
    let fact = &judged["fact"];
    assert_eq!((&judged["valid"], &fact["kind"], &fact["how"]), (&json!(true), &json!("exclusion"), &json!("left")));
    assert_eq!((&fact["org"], &fact["channel"]), (&json!("org-c"), &json!("channel-0")));
    assert_eq!(left["done"], format!("org-c is no member from block {} on", fact["excluded"]));
    let text = shell.seamark(&format!("verify {kept}")).stdout;
    assert!(text.contains("org-c left channel-0 in block"), "{text}");

    for line in [
        "channel show coal --as org-c",
        "channel proposals coal --as org-c",
        "channel receipt coal org-a --as org-c",
        "channel freeze coal --as org-c",
        "channel leave coal --as org-c",
    ] {
        assert_eq!(code(shell, line), "channel_removed", "{line}");
    }
    for org in ["org-a", "org-b", "org-c"] {
        let shown = shell.told(&format!("channel receipt coal org-c --as {org} --out {org}.receipt"));
        assert_eq!((&shown["file"], &shown["excluded"]), (&json!(format!("{org}.receipt")), &fact["excluded"]));
        assert_eq!(shell.told(&format!("verify {org}.receipt"))["fact"], *fact);
    }
    let good = std::fs::read(shell.dir().join("..").join(kept)).unwrap();
    for at in [8, good.len() / 4, good.len() / 2, good.len() - 1] {
        let mut altered = good.clone();
        altered[at] ^= 1;
        std::fs::write(shell.dir().join("../altered.receipt"), altered).unwrap();
        let refused = code(shell, "verify altered.receipt");
        assert!(refused.starts_with("exclusion_"), "byte {at}: {refused}");
    }
    hosted_by(shell, &[1, 2, 4]);
}

/// Closing takes nothing new, ends once all mail is taken, and the channel can be read afterwards.
fn is_closed(shell: &Shell) {
    assert_eq!(code(shell, "channel finish-close coal --as org-a"), "channel_transition", "it is not closing");
    let (close, state) = proposed(shell, "channel close coal --as org-a");
    assert_eq!(state, "open");
    // As people read it.
    let text = shell.seamark(&format!("channel approve coal {close} --as org-b --key-file spare.key")).stdout;
    assert!(text.contains("its change in force") && text.contains("it is closing, and not closed"), "{text}");
    assert!(text.contains("'seamark channel finish-close coal --as org-b'"), "{text}");
    assert_eq!(code(shell, "channel freeze coal --as org-a"), "channel_closing");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(eventually("it is closed", async || {
        let said = shell.seamark("channel finish-close coal --as org-a --json");
        let told = said.json();
        if said.success {
            return Ok(());
        }
        assert_eq!(told["error"]["code"], "channel_close_mail", "{said:?}");
        Err(said.stdout)
    }));
    wait_for(shell, "the directory has heard of it", "channel ls", |told| told["channels"][0]["status"] == "closed");
    assert_eq!(code(shell, "channel policy coal freeze all --as org-a"), "channel_closed");
    assert_eq!(shell.told("channel show coal --as org-a")["status"], "closed");
    let late = shell.told("channel receipt coal org-c --as org-c --out late.receipt");
    assert_eq!(late["how"], "left");
}
