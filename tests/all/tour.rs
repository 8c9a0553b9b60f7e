//! The tour of channels, as it is run at a prompt: the story happens, each organisation is shown its own and
//! nothing else, and nothing is left behind, also when it is stopped.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::program::{Process, program};

const EVERYBODY: [&str; 4] = ["org-a", "org-b", "org-c", "auditor"];
/// What members alone are shown of each channel.
const OF_MEMBERS: [&str; 4] = ["members", "balance", "block", "receipt"];

/// The tour, with its temporary folder here.
fn tour(temp: &TempDir) -> Command {
    let mut command = Command::new(program());
    command.args(["channel", "tour", "--json"]).env("TMPDIR", temp.path());
    command
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

/// The answers to a question after a part of the story, by who asked.
fn answers(told: &Value, after: &str, question: &str, channel: &str) -> BTreeMap<String, Value> {
    let of = |value: &Value, key: &str, wanted: &str| value[key] == wanted;
    let views = told["views"].as_array().unwrap();
    let view = views.iter().find(|view| of(view, "after", after)).unwrap();
    let mut rows = view["rows"].as_array().unwrap().iter();
    let row = rows.find(|row| of(row, "question", question) && of(row, "channel", channel)).unwrap();
    row["answers"].as_object().unwrap().iter().map(|(who, answer)| (who.clone(), answer.clone())).collect()
}

/// That exactly these are shown what is in a channel, all of them the same, and that the others hear these codes.
fn shown_to(told: &Value, after: &str, channel: &str, insiders: &[&str], others: &[(&str, &str)]) {
    assert_eq!(insiders.len() + others.len(), EVERYBODY.len());
    for question in OF_MEMBERS {
        let answers = answers(told, after, question, channel);
        assert_eq!(answers.len(), EVERYBODY.len());
        let first = &answers[insiders[0]];
        assert!(first["shown"].is_string(), "{question} of {channel} after {after}: {first}");
        for who in insiders {
            assert_eq!(&answers[*who], first, "{question} of {channel} after {after}: {who}");
        }
        for (who, code) in others {
            let refused = json!({ "refused": code });
            assert_eq!(answers[*who], refused, "{question} of {channel} after {after}: {who}");
        }
    }
}

#[test]
fn the_tour_tells_the_whole_story_and_shows_each_its_own() {
    let temp = tempfile::tempdir().unwrap();
    let output = tour(&temp).stderr(Stdio::inherit()).output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{told}");
    assert_eq!(told["problems"], json!([]));
    assert_eq!(told["asked"], json!(EVERYBODY));

    // Founding takes both, and so does every change.
    let steps = told["steps"].as_array().unwrap();
    assert_eq!(steps[0]["then"], "1 of 2 has approved; org-b is missing");
    assert_eq!(steps[0]["missing"], json!(["org-b"]));
    let invited = steps.iter().find(|step| step["did"] == "proposes to invite org-c").unwrap();
    assert_eq!((&invited["place"], &invited["missing"]), (&json!("steel"), &json!(["org-b"])));

    // The trade is committed in both channels, by both of their votes.
    let trade = &told["trade"];
    for (place, channel) in [(0, "channel-0"), (1, "channel-1")] {
        let receipt = &trade["receipts"][place];
        assert_eq!((&receipt["group"], &receipt["outcome"]), (&json!(channel), &json!("committed")));
        assert_eq!(receipt["txid"], trade["txid"]);
        let votes = trade["votes"].as_array().unwrap();
        assert!(votes.iter().any(|vote| vote["group"] == channel && vote["yes"] == true), "{trade}");
    }

    // Whom the others cannot do without stays, until there is somebody else.
    assert_eq!(told["too_early"]["code"], "channel_quorum_lost");
    let join = &told["join"];
    let height = |value: &Value| value.as_u64().unwrap();
    assert!(height(&join["node_height"]) >= height(&join["height"]), "{join}");
    assert!((1..=height(&join["node_height"])).contains(&height(&join["snapshot_height"])), "{join}");
    let seats = |committee: &Value| -> Vec<u64> {
        committee.as_array().unwrap().iter().map(|seat| seat["node"].as_u64().unwrap()).collect()
    };
    assert_eq!(seats(&join["committee_before"]), [1, 2, 4, 5]);
    assert_eq!(seats(&join["committee_after"]), [1, 2, 3, 4, 5]);

    let leave = &told["leave"];
    assert_eq!(leave["answered"]["code"], "channel_removed");
    assert!(height(&leave["height"]) > height(&join["height"]), "{leave}");
    assert_eq!(seats(&leave["committee_after"]), [1, 3, 4]);
    assert_eq!(leave["taken_home"], json!(["40 STEEL", "3,000.00 EUR"]), "what it bought, and what was left");
    assert_eq!(leave["next_payment"]["outcome"], "committed");
    assert!(height(&leave["next_payment"]["height"]) > height(&leave["height"]), "the others go on");

    let (never, gone) = ("channel_not_member", "channel_removed");
    shown_to(&told, "trade", "steel", &["org-a", "org-b", "auditor"], &[("org-c", never)]);
    shown_to(&told, "join", "steel", &["org-a", "org-b", "org-c", "auditor"], &[]);
    shown_to(&told, "leave", "steel", &["org-a", "org-c", "auditor"], &[("org-b", gone)]);
    for after in ["trade", "join", "leave"] {
        shown_to(&told, after, "grain", &["org-b", "org-c", "auditor"], &[("org-a", never)]);
    }
    // What the trade paid is there, and the directory is for everybody.
    assert_eq!(answers(&told, "trade", "balance", "steel")["org-a"], json!({ "shown": "2,000.00 EUR" }));
    assert_eq!(answers(&told, "trade", "balance", "grain")["org-c"], json!({ "shown": "25 GRAIN" }));
    for (after, members) in [("trade", "org-a org-b"), ("join", "org-a org-b org-c"), ("leave", "org-a org-c")] {
        let listed = answers(&told, after, "directory", "steel");
        assert!(EVERYBODY.iter().all(|who| listed[*who] == json!({ "shown": members })), "{after}: {listed:?}");
    }
    assert!(is_empty(temp.path()), "the cluster's folder is gone");
}

#[tokio::test]
async fn a_tour_that_is_stopped_leaves_nothing_behind() {
    let (temp, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut process = Process::start(tour(&temp), &logs.path().join("tour.log"));
    process.says("org-a proposes steel to org-b").await;
    assert!(!is_empty(temp.path()), "its cluster runs there");
    assert_eq!(process.terminate().code(), Some(1));
    assert!(process.said().contains("\"code\":\"interrupted\""), "{}", process.said());
    assert!(is_empty(temp.path()), "the cluster's folder is gone");
}
