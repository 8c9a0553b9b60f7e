//! `beacon epoch` and `beacon seed`: the epochs of the beacon, and what went into their seeds. What is printed as proved was
//! recomputed here, from the genesis on. Why each node sits where it sits is for [`verify`], what a deal would move for
//! [`plan`].

pub(super) mod plan;
pub(super) mod verify;

use std::path::Path;

use beacon::epochs::{EpochRecord, Phase, Round};
use beacon::{EpochBook, EpochPolicy, EpochProof};
use client::Client;
use ledger::genesis::Genesis;
use ledger::{GroupId, Height, NodeId, TimeMs};
use serde::Serialize;

use super::context::Context;
use crate::error::CliError;
use crate::output::{Output, facts, moment, table};

/// Digits of a hash that people are shown in a table.
const DIGITS_SHOWN: usize = 16;

/// The policy that a command line asks for.
pub(super) fn policy(length_seconds: u64, bad_nodes: u16, risk_max_ppb: u64) -> EpochPolicy {
    let length_ms = length_seconds.saturating_mul(1_000);
    EpochPolicy { length_ms, bad_nodes, risk_max_ppb, ..EpochPolicy::DEFAULT }
}

fn numbers(nodes: impl IntoIterator<Item = NodeId>) -> Vec<u32> {
    nodes.into_iter().map(|node| node.0).collect()
}

fn listed(nodes: &[u32]) -> String {
    if nodes.is_empty() {
        return "none".to_owned();
    }
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[derive(Serialize)]
struct Shown {
    /// Length of an epoch; zero when there are none.
    length_seconds: u64,
    bad_nodes: u16,
    risk_max_ppb: u64,
    seed: String,
    rebalance: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    running: Option<RunningLine>,
    /// The latest last.
    ended: Vec<EndedLine>,
    members: Vec<MemberLine>,
    /// Groups whose seats a deal moves.
    moving: Vec<MovingLine>,
}

#[derive(Serialize)]
struct RunningLine {
    epoch: u64,
    /// `commit`, `reveal` or `over`, as of this machine's clock.
    phase: &'static str,
    began_ms: u64,
    reveal_ms: u64,
    ends_ms: u64,
    committed: Vec<u32>,
    revealed: Vec<u32>,
    barred: Vec<u32>,
    /// Secrets that make a new seed.
    needed: u16,
}

#[derive(Serialize)]
struct EndedLine {
    epoch: u64,
    ended_height: u64,
    ended_ms: u64,
    seed: String,
    /// Whether enough have revealed for a new seed.
    fresh: bool,
    revealed: Vec<u32>,
    withheld: Vec<u32>,
    absent: Vec<u32>,
    barred: Vec<u32>,
    /// Groups whose seats its deal moves.
    moves: usize,
}

#[derive(Serialize)]
struct MemberLine {
    node: u32,
    revealed: u64,
    withheld: u64,
    absent: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    withheld_last: Option<u64>,
}

#[derive(Serialize)]
struct MovingLine {
    group: String,
    epoch: u64,
    members: Vec<u32>,
}

impl RunningLine {
    fn of(round: &Round, now: TimeMs) -> Self {
        let those = |wanted: fn(&beacon::epochs::Entrant) -> bool| {
            numbers(round.entrants.iter().filter(|entrant| wanted(entrant)).map(|entrant| entrant.node))
        };
        Self {
            epoch: round.epoch,
            phase: round.phase_at(now).name(),
            began_ms: round.began_ms.0,
            reveal_ms: round.reveal_ms.0,
            ends_ms: round.ends_ms.0,
            committed: those(|entrant| entrant.commitment.is_some()),
            revealed: those(|entrant| entrant.secret.is_some()),
            barred: those(|entrant| entrant.barred),
            needed: round.needed,
        }
    }
}

impl EndedLine {
    fn of(record: &EpochRecord, moves: usize) -> Self {
        let those = |name: &str| {
            numbers(record.entrants.iter().filter(|entrant| entrant.fate().name() == name).map(|entrant| entrant.node))
        };
        Self {
            epoch: record.epoch,
            ended_height: record.ended_height.0,
            ended_ms: record.ended_ms.0,
            seed: record.seed.to_string(),
            fresh: record.fresh,
            revealed: those("revealed"),
            withheld: those("withheld"),
            absent: those("absent"),
            barred: those("barred"),
            moves,
        }
    }
}

impl Shown {
    fn of(book: &EpochBook, now: TimeMs) -> Self {
        let moves = |epoch: u64| book.deals.iter().find(|deal| deal.epoch == epoch).map_or(0, |deal| deal.moves.len());
        let members = book.tallies.iter().map(|tally| MemberLine {
            node: tally.node.0,
            revealed: tally.revealed,
            withheld: tally.withheld,
            absent: tally.absent,
            withheld_last: (tally.withheld_last > 0).then_some(tally.withheld_last),
        });
        let moving = book.targets.iter().map(|target| MovingLine {
            group: target.group.to_string(),
            epoch: target.epoch,
            members: numbers(target.members.iter().copied()),
        });
        Self {
            length_seconds: book.policy.length_ms / 1_000,
            bad_nodes: book.policy.bad_nodes,
            risk_max_ppb: book.policy.risk_max_ppb,
            seed: book.seed.to_string(),
            rebalance: book.rebalance,
            running: book.round.as_ref().map(|round| RunningLine::of(round, now)),
            ended: book.records.iter().map(|record| EndedLine::of(record, moves(record.epoch))).collect(),
            members: members.collect(),
            moving: moving.collect(),
        }
    }
}

fn now() -> TimeMs {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    TimeMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

pub(super) async fn show(context: &Context, output: Output) -> Result<(), CliError> {
    let book: EpochBook = context.client().await?.epochs().await?;
    let shown = Shown::of(&book, now());
    output.result(&shown, || text(&shown))
}

fn text(shown: &Shown) -> String {
    let length = match shown.length_seconds {
        0 => "there are no epochs".to_owned(),
        seconds => format!("an epoch lasts {seconds} s"),
    };
    let target = match shown.risk_max_ppb {
        0 => "none".to_owned(),
        ppb => format!("{ppb} ppb with {} bad nodes", shown.bad_nodes),
    };
    let mut text = facts([("policy", length), ("target of risk", target), ("seed", shown.seed.clone())]);
    if let Some(running) = &shown.running {
        text.push_str(&format!(
            "\nepoch {}: {} until {}, ends {}\n  committed: {}\n  revealed: {}, of {} that make a seed",
            running.epoch,
            running.phase,
            moment(if running.phase == Phase::Commit.name() { running.reveal_ms } else { running.ends_ms }),
            moment(running.ends_ms),
            listed(&running.committed),
            listed(&running.revealed),
            running.needed
        ));
        if !running.barred.is_empty() {
            text.push_str(&format!("\n  sit it out, since they withheld: {}", listed(&running.barred)));
        }
    }
    if shown.rebalance {
        text.push_str("\nits deal evens seats out");
    }
    if !shown.ended.is_empty() {
        let rows = shown.ended.iter().map(|line| {
            let seed: String = line.seed.chars().take(DIGITS_SHOWN).collect();
            [
                line.epoch.to_string(),
                if line.fresh { seed } else { format!("{seed} (as before: too few secrets)") },
                listed(&line.revealed),
                listed(&line.withheld),
                listed(&line.absent),
                line.moves.to_string(),
            ]
        });
        text.push_str(&format!(
            "\n{}",
            table(["epoch", "seed", "revealed", "withheld", "absent", "groups that move"], rows)
        ));
    }
    if !shown.members.is_empty() {
        let rows = shown.members.iter().map(|line| {
            let last = line.withheld_last.map_or_else(|| "never".to_owned(), |epoch| format!("epoch {epoch}"));
            [line.node.to_string(), line.revealed.to_string(), line.withheld.to_string(), line.absent.to_string(), last]
        });
        text.push_str(&format!("\n{}", table(["member", "revealed", "withheld", "absent", "withheld last"], rows)));
    }
    for line in &shown.moving {
        text.push_str(&format!("\n{} goes to nodes {}, by epoch {}", line.group, listed(&line.members), line.epoch));
    }
    text
}

/// The proof of the epochs that are kept, judged by the genesis, and the height that proves it. `None` when none has ended.
async fn proved(client: &Client) -> Result<Option<(EpochProof, Height)>, CliError> {
    let proof: Option<EpochProof> = client.epoch_proof().await?;
    let Some(proof) = proof else { return Ok(None) };
    let height = judged(&proof, client.genesis())?;
    Ok(Some((proof, height)))
}

fn judged(proof: &EpochProof, genesis: &Genesis) -> Result<Height, CliError> {
    let beacon = genesis.committee(GroupId::BEACON).ok_or_else(|| {
        CliError::new("genesis_committee", "the genesis names no committee of the beacon", "use the cluster's genesis")
    })?;
    Ok(proof.verify(&genesis.cluster_id(), beacon)?)
}

#[derive(Serialize)]
struct Seed {
    epoch: u64,
    seed: String,
    previous: String,
    fresh: bool,
    needed: u16,
    began_height: u64,
    ended_height: u64,
    ended_ms: u64,
    inputs: Vec<InputLine>,
    /// The deal's hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    deal: Option<String>,
    /// Whether seed, secrets and proof were recomputed here, and hold: what does not hold is an error.
    verified: bool,
    /// The beacon's block that proves it.
    proved_height: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

#[derive(Serialize)]
struct InputLine {
    node: u32,
    org: u16,
    fate: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    commitment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

impl Seed {
    fn of(record: &EpochRecord, height: Height, file: Option<&Path>) -> Self {
        let inputs = record.entrants.iter().map(|entrant| InputLine {
            node: entrant.node.0,
            org: entrant.org.0,
            fate: entrant.fate().name(),
            commitment: entrant.commitment.map(|hash| hash.to_string()),
            secret: entrant.secret.map(|secret| secret.to_string()),
        });
        Self {
            epoch: record.epoch,
            seed: record.seed.to_string(),
            previous: record.previous.to_string(),
            fresh: record.fresh,
            needed: record.needed,
            began_height: record.began_height.0,
            ended_height: record.ended_height.0,
            ended_ms: record.ended_ms.0,
            inputs: inputs.collect(),
            deal: record.deal.map(|hash| hash.to_string()),
            verified: true,
            proved_height: height.0,
            file: file.map(|path| path.display().to_string()),
        }
    }

    fn text(&self) -> String {
        let rows = self.inputs.iter().map(|line| {
            let secret = line.secret.clone().unwrap_or_else(|| "-".to_owned());
            [line.node.to_string(), line.org.to_string(), line.fate.to_owned(), secret]
        });
        let follows = if self.fresh {
            "follows from the seed before and the secrets: recomputed"
        } else {
            "as before: too few have revealed"
        };
        let written = self.file.as_ref().map_or_else(String::new, |path| {
            format!("\nwritten to {path}; 'seamark beacon verify-assignment --file' judges it offline")
        });
        format!(
            "{}\n{}{written}",
            facts([
                ("epoch", format!("{}, ended {} in block {}", self.epoch, moment(self.ended_ms), self.ended_height)),
                ("seed", format!("{} ({follows})", self.seed)),
                ("seed before", self.previous.clone()),
                ("proved by", format!("block {} of the beacon", self.proved_height)),
            ]),
            table(["node", "org", "", "secret"], rows)
        )
    }
}

pub(super) async fn seed(
    context: &Context,
    epoch: Option<u64>,
    out: Option<&Path>,
    output: Output,
) -> Result<(), CliError> {
    let (proof, height) = proved(&context.client().await?).await?.ok_or_else(|| {
        let fix = "switch epochs on with 'seamark beacon epoch set', and ask again when one has ended";
        CliError::new("not_found", "no epoch has ended yet", fix)
    })?;
    let found = match epoch {
        Some(epoch) => proof.records.iter().find(|record| record.epoch == epoch),
        None => proof.records.last(),
    };
    let record = found.ok_or_else(|| {
        let kept = proof.records.first().zip(proof.records.last());
        let kept = kept.map_or_else(String::new, |(first, last)| format!("; {} to {} are", first.epoch, last.epoch));
        let cause = format!("epoch {} is not kept{kept}", epoch.unwrap_or_default());
        CliError::new("not_found", cause, "name one that has ended and is kept: see 'seamark beacon epoch'")
    })?;
    if let Some(path) = out {
        std::fs::write(path, proof.to_file()).map_err(|error| CliError::file(path, &error))?;
    }
    let seed = Seed::of(record, height, out);
    output.result(&seed, || seed.text())
}

#[cfg(test)]
mod tests {
    use beacon::epochs::{EPOCH_VERSION, Entrant, Tally, Target};
    use ledger::crypto::SecretKey;
    use ledger::{Hash32, OrgId};

    use super::*;

    fn entrant(node: u32, commitment: Option<u8>, secret: Option<u8>) -> Entrant {
        let key = SecretKey::derive(b"node", &node.to_be_bytes()).public();
        let hash = |byte| Hash32([byte; 32]);
        Entrant {
            node: NodeId(node),
            org: OrgId(1),
            key,
            barred: false,
            commitment: commitment.map(hash),
            secret: secret.map(hash),
        }
    }

    fn record(entrants: Vec<Entrant>) -> EpochRecord {
        EpochRecord {
            version: EPOCH_VERSION,
            epoch: 3,
            began_height: Height(7),
            began_ms: TimeMs(0),
            ended_height: Height(9),
            ended_ms: TimeMs(10_000),
            needed: 2,
            previous: Hash32([1; 32]),
            seed: Hash32([2; 32]),
            fresh: true,
            entrants,
            deal: None,
        }
    }

    #[test]
    fn the_policy_the_running_epoch_and_who_withheld_are_told() {
        let entrants = vec![entrant(1, Some(1), Some(2)), entrant(2, Some(1), None), entrant(3, None, None)];
        let book = EpochBook {
            version: EPOCH_VERSION,
            policy: policy(60, 1, 500),
            round: Some(Round {
                version: EPOCH_VERSION,
                epoch: 4,
                began_height: Height(9),
                began_ms: TimeMs(10_000),
                reveal_ms: TimeMs(40_000),
                ends_ms: TimeMs(70_000),
                needed: 2,
                entrants: vec![entrant(1, Some(1), None), Entrant { barred: true, ..entrant(2, None, None) }],
            }),
            seed: Hash32([2; 32]),
            rebalance: true,
            records: vec![record(entrants)],
            deals: Vec::new(),
            targets: vec![Target { group: GroupId::shard(1), epoch: 3, members: vec![NodeId(1), NodeId(3)] }],
            tallies: vec![Tally {
                version: EPOCH_VERSION,
                node: NodeId(2),
                revealed: 1,
                withheld: 1,
                absent: 0,
                withheld_last: 3,
            }],
            barred: Vec::new(),
        };
        let shown = Shown::of(&book, TimeMs(20_000));
        let running = shown.running.as_ref().expect("one runs");
        assert_eq!((running.epoch, running.phase), (4, "commit"));
        assert_eq!((running.committed.as_slice(), running.barred.as_slice()), (&[1][..], &[2][..]));
        let [ended] = &shown.ended[..] else { panic!("one has ended") };
        assert_eq!(
            (ended.revealed.as_slice(), ended.withheld.as_slice(), ended.absent.as_slice()),
            (&[1][..], &[2][..], &[3][..])
        );
        let text = text(&shown);
        for part in [
            "an epoch lasts 60 s",
            "500 ppb with 1 bad nodes",
            "epoch 4: commit until",
            "committed: 1",
            "since they withheld: 2",
            "its deal evens seats out",
            "epoch 3",
            "shard-1 goes to nodes 1 3, by epoch 3",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let off = EpochBook { policy: EpochPolicy::DEFAULT, round: None, records: Vec::new(), ..book };
        assert!(super::text(&Shown::of(&off, TimeMs(0))).contains("there are no epochs"));
    }

    #[test]
    fn a_seed_is_told_with_its_inputs() {
        let seed = Seed::of(&record(vec![entrant(1, Some(1), Some(2)), entrant(2, Some(1), None)]), Height(12), None);
        let text = seed.text();
        let secret = "02".repeat(32);
        for part in ["recomputed", "withheld", secret.as_str(), "block 12 of the beacon"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let line = serde_json::to_value(&seed).expect("it is JSON");
        assert_eq!((&line["verified"], &line["inputs"][1]["fate"]), (&true.into(), &"withheld".into()));
    }
}
