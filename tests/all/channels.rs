//! Channels by command: what `docs/channels.md` walks through, as three organisations run it beside one
//! cluster, and what is refused with which code.

use beacon::{BeaconCommand, SignedCommand};
use channel::{FoundingAct, Hosting};
use client::{Client, Profile};
use ledger::{NodeId, OrgId, TimeMs};
use seamark_cli::setup::ClusterDir;
use serde_json::{Value, json};

use crate::support::bank::now_ms;
use crate::support::eventually;
use crate::support::shell::Shell;

/// Asks until the answer is as wanted. Commands return when they are executed; what is told to others by
/// mail, such as the directory, follows.
pub fn wait_for(shell: &Shell, what: &str, line: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(eventually(what, async || {
        let said = shell.seamark(&format!("{line} --json"));
        if !said.success {
            return Err(said.stdout);
        }
        let told = said.json();
        if wanted(&told) { Ok(told) } else { Err(told.to_string()) }
    }))
}

/// The code that a command is refused with.
pub fn code(shell: &Shell, line: &str) -> String {
    shell.refused(line)["error"]["code"].as_str().unwrap().to_owned()
}

/// The id of the proposal that a command made, and where it stands.
pub fn proposed(shell: &Shell, line: &str) -> (String, String) {
    let told = shell.told(line);
    (told["proposal"].as_str().unwrap().to_owned(), told["state"].as_str().unwrap().to_owned())
}

/// Where a proposal stands after what an organisation says about it.
fn said(shell: &Shell, word: &str, id: &str, org: &str) -> Value {
    let told = shell.told(&format!("channel {word} steel {id} --as {org}"));
    assert_eq!(told["proposal"].as_str().unwrap().get(..id.len()), Some(id));
    told["state"].clone()
}

/// Waits until the directory has the channel in this phase.
fn directory_says(shell: &Shell, status: &str) {
    wait_for(shell, "the directory has heard of it", "channel ls", |told| told["channels"][0]["status"] == status);
}

/// A channel of all three organisations that runs.
fn found(shell: &Shell) {
    let created = shell.told("channel create steel --as org-a --members org-a,org-b,org-c");
    assert_eq!((&created["state"], &created["name"]), (&json!("open"), &json!("steel")));
    let listed = wait_for(shell, "it is listed", "channel ls", |told| !told["foundings"][0].is_null());
    let founding = &listed["foundings"][0];
    assert_eq!(founding["founding"], created["founding"]);
    assert_eq!(founding["missing"], json!(["org-b", "org-c"]));
    assert_eq!(founding["needs"], "1 of 3 has approved; org-b and org-c are missing");
    assert_eq!(code(shell, "channel create steel --as org-b --members org-c"), "founding_form", "the name is taken");

    assert_eq!(shell.told("channel approve steel --as org-b --nodes 2,5 --anchors 5")["state"], "open");
    let one = |told: &Value| told["foundings"][0]["missing"] == json!(["org-c"]);
    wait_for(shell, "one is missing", "channel ls", one);
    let text = shell.seamark("channel ls").stdout;
    assert!(text.contains("2 of 3 have approved; org-c is missing"), "{text}");
    assert_eq!(code(shell, "channel approve steel --as org-b"), "proposal_acted", "nobody speaks twice");
    assert_eq!(code(shell, "channel withdraw steel --as org-b"), "proposal_not_proposer");
    assert_eq!(code(shell, "channel approve steel --as org-c --nodes 1"), "channel_node_unknown", "it is another's");
    assert_eq!(code(shell, "channel status steel"), "channel_unknown", "it is not there before all have approved");

    // What it is to go by is for those whom it names; the beacon has the hash of it alone.
    let id = created["founding"].as_str().unwrap();
    let charter = shell.told("channel charter steel --as org-c");
    assert_eq!((&charter["founding"], &charter["state"]), (&created["founding"], &json!("proposed")));
    assert_eq!(charter["promised"].as_str().map(str::len), Some(64), "{charter}");
    assert_eq!(charter["policies"][0], json!({ "subject": "membership", "policy": "majority(members.admin)" }));
    let founded = shell.told(&format!("channel approve {} --as org-c", &id[..12]));
    assert_eq!((&founded["state"], &founded["channel"]), (&json!("founded"), &json!("channel-0")));
    assert_eq!((&founded["in_force"], &founded["policies"]), (&json!(true), &charter["policies"]));
    let runs = |told: &Value| told["healthy"] == true && told["group"]["height"].as_u64() > Some(0);
    let status = wait_for(shell, "it runs", "channel status steel", runs);
    assert_eq!(status["members"], json!(["org-a", "org-b", "org-c"]));
    assert_eq!((&status["nodes"], &status["anchors"]), (&json!([1, 2, 3, 5]), &json!([1, 3, 5])));
    assert_eq!((&status["threshold"], &status["committee"][3]), (&json!(3), &json!({ "node": 5, "org": "org-b" })));
    assert!(status["group"]["leader"].is_u64(), "{status}");
    assert_eq!(shell.told("channel ls")["foundings"], json!([]));
    // Whoever approved last has given the channel what was promised.
    let kept = |told: &Value| told["promise"]["state"] == "kept";
    let shown = wait_for(shell, "it goes by that", "channel show steel --as org-a", kept);
    assert_eq!((&shown["policies"], &shown["promise"]["hash"]), (&charter["policies"], &charter["promised"]));
    assert_eq!(code(shell, "channel open steel --as org-b"), "channel_promise_kept");
}

#[test]
fn three_organisations_found_a_channel_and_govern_it() {
    let shell = Shell::start(&["--nodes", "5", "--shards", "1"]);
    shell.told("asset issue EUR --decimals 2");
    found(&shell);

    // A proposal takes two of three; each organisation speaks once.
    let (permit, state) = proposed(&shell, "channel permit steel EUR --as org-a");
    assert_eq!(state, "open");
    let listed = wait_for(&shell, "it is listed", "channel proposals steel --as org-c", |told| {
        told["proposals"][0]["proposal"] == permit.as_str()
    });
    assert_eq!(listed["proposals"][0]["needs"], "1 of 3 has approved; one of org-b, org-c has to approve");
    assert_eq!(listed["proposals"][0]["missing"], json!(["org-b", "org-c"]));
    let explained = shell.told(&format!("channel explain steel {} --as org-c", &permit[..12]));
    assert_eq!((&explained["proposal"], &explained["state"]), (&json!(permit), &json!("open")));
    assert_eq!((&explained["approved"], &explained["blocked"]), (&json!(["org-a"]), &Value::Null));
    assert_eq!(explained["policy"], "majority(members.admin)");
    assert_eq!(explained["sufficient"].as_array().map(Vec::len), Some(1), "one more is enough: {explained}");
    let nothing = "0".repeat(64);
    assert_eq!(code(&shell, &format!("channel explain steel {nothing} --as org-c")), "proposal_unknown");
    assert_eq!(code(&shell, &format!("channel approve steel {permit} --as org-a")), "proposal_acted");
    assert_eq!(said(&shell, "approve", &permit[..12], "org-b"), "applied");
    assert_eq!(code(&shell, &format!("channel approve steel {permit} --as org-c")), "proposal_applied");
    assert_eq!(code(&shell, "channel permit steel EUR --as org-b"), "channel_asset_permitted");

    // Only who proposed takes it back; two rejections of three end it.
    let (freeze, _) = proposed(&shell, "channel freeze steel --as org-a");
    assert_eq!(code(&shell, &format!("channel withdraw steel {freeze} --as org-b")), "proposal_not_proposer");
    assert_eq!(said(&shell, "withdraw", &freeze, "org-a"), "withdrawn");
    assert_eq!(code(&shell, &format!("channel approve steel {freeze} --as org-b")), "proposal_withdrawn");
    let (freeze, _) = proposed(&shell, "channel freeze steel --as org-b");
    assert_eq!(said(&shell, "reject", &freeze, "org-a"), "open");
    assert_eq!(said(&shell, "reject", &freeze, "org-c"), "rejected");

    let (freeze, _) = proposed(&shell, "channel freeze steel --as org-a");
    assert_eq!(said(&shell, "approve", &freeze, "org-c"), "applied");
    directory_says(&shell, "frozen");
    let (thaw, _) = proposed(&shell, "channel thaw steel --as org-c");
    assert_eq!(said(&shell, "approve", &thaw, "org-b"), "applied");
    directory_says(&shell, "running");

    // Under another policy, one of them is enough.
    let (policy, _) = proposed(&shell, "channel policy propose steel freeze any(members.admin) --as org-a");
    assert_eq!(said(&shell, "approve", &policy, "org-b"), "applied");
    assert_eq!(proposed(&shell, "channel freeze channel-0 --as org-b").1, "applied");
    directory_says(&shell, "frozen");
    assert_eq!(proposed(&shell, "channel thaw channel-0 --as org-c").1, "applied");
    directory_says(&shell, "running");

    let key = ledger::SecretKey::derive(b"clerk", b"").public();
    shell.told(&format!("channel key add steel {key} --role member --as org-b"));
    let has = |told: &Value| told["members"][1]["keys"].as_array().is_some_and(|keys| keys.len() == 2);
    let shown = wait_for(&shell, "members see the key", "channel show steel --as org-c", has);
    assert!(shown["members"][1]["keys"].as_array().unwrap().contains(&json!({ "key": key, "role": "member" })));
    let policy = |subject: &str| {
        let mut lines = shown["policies"].as_array().unwrap().iter();
        lines.find(|line| line["subject"] == subject).unwrap()["policy"].clone()
    };
    assert_eq!((policy("freeze"), policy("close")), (json!("any(members.admin)"), json!("majority(members.admin)")));
}

#[test]
fn an_organisation_is_invited_and_declines() {
    let shell = Shell::start(&["--nodes", "5", "--shards", "1"]);
    let secret = ledger::SecretKey::derive(b"org-d", b"");
    let digits: String = secret.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    shell.write("d.key", &digits);
    // It comes with an authority of its own, and its admin with a certificate of that.
    shell.told("ca new org-d --out d-ca");
    shell.told("ca issue admin dora --ca d-ca --out d");
    let ca = shell.dir().join("../d-ca/ca.pem");
    let folder = shell.dir().join("admin/4");
    std::fs::create_dir(&folder).unwrap();
    for (from, to) in [("dora.pem", "admin.pem"), ("dora.key", "admin.key"), ("passphrase", "passphrase")] {
        std::fs::copy(shell.dir().join("../d").join(from), folder.join(to)).unwrap();
    }
    for org in ["org-a", "org-b"] {
        let register =
            format!("beacon org register org-d --id 4 --ca {} --admin-key {}", ca.display(), secret.public());
        shell.told(&format!("{register} --as {org}"));
    }
    shell.told("asset issue EUR");
    found(&shell);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(eventually("nodes let in whom the registry has let in", async || {
        match code(&shell, "channel join steel --as 4 --key-file d.key --nodes 1") {
            code if code == "channel_not_invited" => Ok(()),
            code => Err(code),
        }
    }));
    assert_eq!(code(&shell, "channel invite steel 77 --as org-a"), "channel_org_unknown");

    // The channel hears of the registry by mail.
    let invite = runtime.block_on(eventually("the channel knows the organisation", async || {
        let said = shell.seamark("channel invite steel 4 --as org-a --json");
        let told = said.json();
        if said.success {
            return Ok(told["proposal"].as_str().unwrap().to_owned());
        }
        assert_eq!(told["error"]["code"], "channel_org_unknown", "{said:?}");
        Err(said.stdout)
    }));
    assert_eq!(said(&shell, "withdraw", &invite, "org-a"), "withdrawn");
    let (invite, _) = proposed(&shell, "channel invite steel 4 --within 60 --as org-b");
    assert_eq!(said(&shell, "approve", &invite, "org-c"), "applied");
    let invited = |told: &Value| told["invitations"][0]["org"] == "4";
    wait_for(&shell, "members see the invitation", "channel show steel --as org-a", invited);
    assert_eq!(code(&shell, "channel invite steel 4 --as org-a"), "channel_already_invited");
    shell.told("channel decline steel --as 4 --key-file d.key");
    let gone = |told: &Value| told["invitations"] == json!([]);
    wait_for(&shell, "members see that it declined", "channel show steel --as org-a", gone);

    let (grant, _) = proposed(&shell, "channel audit grant steel 4 --assets EUR --as org-a");
    assert_eq!(said(&shell, "approve", &grant, "org-b"), "applied");
    let granted = |told: &Value| told["grants"][0]["grant"] == grant.as_str();
    let shown = wait_for(&shell, "members see the grant", "channel show steel --as org-b", granted);
    assert!(shown["grants"][0]["what"].as_str().unwrap().starts_with("auditors of 4 read the assets "), "{shown}");
    let revoke = format!("channel audit revoke steel 4 {grant} --as org-c");
    let (revoke, _) = proposed(&shell, &revoke);
    assert_eq!(said(&shell, "approve", &revoke, "org-a"), "applied");
}

/// A channel of org-a and org-b that is founded by org-b's approval, of which nothing else comes: the command was cut short.
fn founded_and_cut_short(shell: &Shell, name: &str) {
    let created = shell.told(&format!("channel create {name} --as org-a --members org-b --policy any --nodes 1"));
    let founding = created["founding"].as_str().unwrap().parse().unwrap();
    let dir = ClusterDir::at(shell.dir());
    let mut profile = Profile::load(&dir.profile_path()).unwrap();
    let folder = dir.admin_dir("org-b");
    (profile.cert, profile.key) = (folder.join("admin.pem"), folder.join("admin.key"));
    let act = FoundingAct::Approve(Hosting { nodes: vec![NodeId(2)], anchors: vec![NodeId(2)] });
    let (command, until) = (BeaconCommand::ActOnChannel { founding, act }, TimeMs(now_ms() + 60_000));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::connect(&profile).await.unwrap();
        let (cluster, key) = (client.cluster_id(), dir.admin_key("org-b").unwrap());
        let signed = SignedCommand::sign(&cluster, &command, OrgId(2), [1; 16], until, &key);
        let fate = client.command(signed.encode()).await.unwrap().founding.unwrap();
        assert!(fate.channel.is_some(), "{fate:?}");
    });
    let waits = |told: &Value| told["promise"]["state"] == "waits";
    let shown = wait_for(shell, "it runs", &format!("channel show {name} --as org-a"), waits);
    for line in shown["policies"].as_array().unwrap() {
        assert_eq!(line["policy"], "all(members.admin)", "what everybody knows");
    }
}

#[test]
fn what_was_agreed_on_comes_into_force_later_where_a_command_was_cut_short() {
    let shell = Shell::start(&["--nodes", "5", "--shards", "1"]);
    founded_and_cut_short(&shell, "coal");
    let text = shell.seamark("channel show coal --as org-b").stdout;
    assert!(text.contains("waits: see 'seamark channel open channel-0'"), "{text}");
    assert_eq!(shell.told("channel open coal --as org-b")["done"], "it is in force");
    let shown = shell.told("channel show coal --as org-a");
    assert_eq!(shown["promise"]["state"], "kept");
    for line in shown["policies"].as_array().unwrap() {
        assert_eq!(line["policy"], "any(members.admin)");
    }
    assert_eq!(code(&shell, "channel open coal --as org-a"), "channel_promise_kept");
    assert_eq!(proposed(&shell, "channel freeze coal --as org-b").1, "applied", "one is enough");

    // Without it all of them decide, and what they have decided nobody undoes with it.
    founded_and_cut_short(&shell, "slate");
    let (policy, state) = proposed(&shell, "channel policy propose slate freeze majority --as org-a");
    assert_eq!(state, "open");
    assert_eq!(shell.told(&format!("channel approve slate {policy} --as org-b"))["state"], "applied");
    assert_eq!(code(&shell, "channel open slate --as org-b"), "channel_promise_superseded");
    assert_eq!(shell.told("channel show slate --as org-a")["promise"]["state"], "superseded");
}

#[test]
fn what_cannot_be_is_refused_with_a_code() {
    let shell = Shell::start(&["--nodes", "5", "--shards", "1"]);
    for (line, expected) in [
        ("channel status steel", "channel_unknown"),
        ("channel freeze channel-7 --as org-a", "channel_unknown"),
        ("channel approve steel --as org-b", "founding_unknown"),
        ("channel create steel --members org-b,org-c", "org"),
        ("channel create steel --as org-x --members org-b", "org"),
        ("channel create steel --as org-a --members org-b,org-x", "org"),
        ("channel create steel --as org-a --members org-b,77", "channel_org_unknown"),
        ("channel create st/eel --as org-a --members org-b", "founding_form"),
        ("channel create steel --as org-a --members org-b --policy any(", "policy_text"),
        ("channel create steel --as org-a --members org-b --policy org-x.admin", "policy_org"),
        ("channel create steel --as org-a --members org-b --policy org-c.admin", "policy_unsatisfiable"),
        ("channel create steel --as org-a --members org-b --policy-for frost=any", "channel_subject"),
        ("channel create steel --as org-a --members org-b --nodes 2", "channel_node_unknown"),
        ("channel create steel --as org-a --members org-b --nodes 1 --anchors 4", "channel_anchors_form"),
    ] {
        assert_eq!(code(&shell, line), expected, "{line}");
    }
    assert_eq!(shell.told("channel ls"), json!({ "channels": [], "foundings": [] }), "nothing came of it");

    // Two organisations only: the third has no part in it.
    shell.told("channel create pair --as org-a --members org-b");
    wait_for(&shell, "it is listed", "channel ls", |told| !told["foundings"][0].is_null());
    assert_eq!(code(&shell, "channel approve pair --as org-c"), "channel_not_invited");
    assert_eq!(code(&shell, "channel charter pair --as org-c"), "channel_not_invited");
    assert_eq!(shell.told("channel reject pair --as org-b")["state"], "abandoned", "all are needed");
    shell.told("channel create pair --as org-a --members org-b");
    wait_for(&shell, "it is listed again", "channel ls", |told| !told["foundings"][0].is_null());
    assert_eq!(shell.told("channel withdraw pair --as org-a")["state"], "abandoned");
    wait_for(&shell, "nothing waits", "channel ls", |told| told["foundings"] == json!([]));

    found(&shell);
    for (line, expected) in [
        ("channel policy propose steel freeze any( --as org-a", "policy_text"),
        ("channel policy propose steel frost any --as org-a", "channel_subject"),
        ("channel policy propose steel freeze k-of(4,members.admin) --as org-a", "policy_unsatisfiable"),
        ("channel policy propose steel freeze majority --as org-a", "channel_no_change"),
        ("channel invite steel org-x --as org-a", "org"),
        ("channel invite steel org-b --as org-a", "channel_already_member"),
        ("channel invite steel org-a --as org-a", "channel_invite_self"),
        ("channel remove steel org-a --as org-a", "channel_remove_self"),
        ("channel remove steel org-b --as org-a", "channel_quorum_lost"),
        ("channel leave steel --as org-b", "channel_quorum_lost"),
        ("channel anchors set steel 4 --as org-a", "channel_anchors_form"),
        ("channel nodes steel --set 2 --as org-a", "channel_node_unknown"),
        ("channel finish-close steel --as org-a", "channel_transition"),
        ("channel thaw steel --as org-a", "channel_transition"),
        ("channel approve steel 0000 --as org-a", "proposal_unknown"),
        ("channel approve steel 0000 --nodes 1 --as org-a", "channel_nodes"),
        ("channel key revoke steel 02aa --as org-a", "public_key"),
    ] {
        assert_eq!(code(&shell, line), expected, "{line}");
    }
}
