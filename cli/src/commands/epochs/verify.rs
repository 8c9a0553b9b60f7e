//! `beacon verify-assignment`: why each node sits where it sits. Recomputed from the genesis and from the deals of the epochs that
//! are kept; with a file that needs no network. Of a cluster that is asked, the committees in force are told as well, and
//! by which change each node came, as the beacon remembers it: that is its word, and not proved.

use std::path::Path;

use beacon::epochs::Deal;
use beacon::genesis::misassigned;
use beacon::seating::{Began, Seat, Seating, Why};
use beacon::{EpochProof, NodeLives};
use client::profile::read_genesis;
use ledger::genesis::Genesis;
use ledger::{GroupId, GroupKind, Height, NodeId};
use serde::Serialize;

use super::super::context::Context;
use super::{judged, listed, numbers, proved};
use crate::error::CliError;
use crate::output::{Output, facts, table};

#[derive(Serialize)]
struct Verified {
    cluster: String,
    /// Whether the seats of the genesis follow from its seed: what does not is an error.
    genesis: bool,
    /// Epochs whose seed and deal were recomputed.
    epochs: Vec<u64>,
    seed: String,
    /// The beacon's block that proves the epochs.
    #[serde(skip_serializing_if = "Option::is_none")]
    proved_height: Option<u64>,
    groups: Vec<GroupLine>,
    /// The committees in force, by the beacon's word; none where a file is judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_force: Option<Vec<SeatedLine>>,
}

/// A group as its committee in force has it.
#[derive(Serialize)]
struct SeatedLine {
    group: String,
    /// `genesis`, `founded`, or the job that it was cut or joined by.
    began: String,
    /// What it was cut or joined from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parents: Vec<String>,
    seats: Vec<SeatLine>,
}

/// A seat, and what it comes from.
#[derive(Serialize)]
struct SeatLine {
    node: u32,
    /// `first`, `job`, `deal`, `successor`, `need`, `share`, `more` or `named`.
    why: &'static str,
    /// Number of the committee with which the node came.
    committee: u64,
    /// Whose seat it was before.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<String>,
    /// The epoch whose deal wanted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
}

impl SeatLine {
    fn of(seat: &Seat) -> Self {
        let (why, job, epoch) = match seat.why {
            Why::First => ("first", None, None),
            Why::Job(job) => ("job", Some(job.to_string()), None),
            Why::Deal(epoch) => ("deal", None, Some(epoch)),
            Why::Successor => ("successor", None, None),
            Why::Need => ("need", None, None),
            Why::Share => ("share", None, None),
            Why::More => ("more", None, None),
            Why::Named => ("named", None, None),
        };
        let from = seat.from.map(|node| node.0);
        Self { node: seat.node.0, why, committee: seat.epoch.0, from, job, epoch }
    }

    /// For people.
    fn text(&self) -> String {
        let of = self.from.map_or_else(String::new, |from| format!(", in the place of node {from}"));
        let why = match (self.why, &self.job, self.epoch) {
            ("first", ..) => "since it began".to_owned(),
            (_, Some(job), _) => format!("by {job}{of}"),
            (_, _, Some(epoch)) => format!("by the deal of epoch {epoch}{of}"),
            ("successor", ..) => format!("named for that by 'node replace'{of}"),
            ("need", ..) => format!("by need{of}, which may have no seat by now"),
            ("share", ..) => format!("it took its share{of}"),
            ("named", ..) => format!("named by the channel's members{of}"),
            _ => "the group got a seat more".to_owned(),
        };
        format!("node {}: {why}", self.node)
    }
}

impl SeatedLine {
    fn of(seating: &Seating) -> Self {
        let (began, parents) = match &seating.began {
            Began::Genesis => ("genesis".to_owned(), Vec::new()),
            Began::Founded => ("founded".to_owned(), Vec::new()),
            Began::Born { job, parents } => (job.to_string(), parents.iter().map(ToString::to_string).collect()),
        };
        let seats = seating.seats.iter().map(SeatLine::of).collect();
        Self { group: seating.group.to_string(), began, parents, seats }
    }

    fn began(&self) -> String {
        match &self.parents[..] {
            [] => self.began.clone(),
            parents => format!("{}, from {}", self.began, parents.join(" and ")),
        }
    }
}

/// Where the seats of a group come from.
#[derive(Serialize)]
struct GroupLine {
    group: String,
    /// `genesis`, `deal`, or `ended`: it was cut or joined since.
    from: &'static str,
    /// The epoch whose deal has it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    /// Who was to have a seat.
    members: Vec<u32>,
    /// Who sat there then without a deal having wanted it: moved by need since the genesis.
    moved_by_need: Vec<u32>,
}

/// What the seats of each group follow from.
fn explained(deals: &[Deal], genesis: &Genesis) -> Vec<GroupLine> {
    let first = |group: GroupId| {
        genesis
            .committee(group)
            .map(|committee| committee.members.iter().map(|member| member.node).collect::<Vec<NodeId>>())
    };
    let mut groups: Vec<GroupId> = genesis.committees.iter().map(|committee| committee.group).collect();
    groups.extend(deals.iter().flat_map(|deal| &deal.groups).map(|seated| seated.group));
    groups.sort_unstable();
    groups.dedup();
    let line = |group: GroupId| {
        let dealt = |kind| kind == Some(GroupKind::Shard);
        let last = deals.iter().rev().find(|deal| deal.seats_of(group).is_some()).filter(|_| dealt(group.kind()));
        let wanted: Vec<NodeId> = deals
            .iter()
            .flat_map(|deal| &deal.moves)
            .filter(|(moved, _)| *moved == group)
            .flat_map(|(_, to)| to)
            .copied()
            .collect();
        let begun = first(group).unwrap_or_default();
        let members = last.and_then(|deal| deal.seats_of(group)).map_or_else(|| begun.clone(), <[NodeId]>::to_vec);
        let by_need = members.iter().copied().filter(|node| !begun.contains(node) && !wanted.contains(node));
        let known = |deal: &Deal| deal.seats_of(group).is_some();
        let ended = dealt(group.kind()) && deals.last().is_some_and(|deal| !known(deal));
        let from = match (ended, last) {
            (true, _) => "ended",
            (false, Some(_)) => "deal",
            (false, None) => "genesis",
        };
        GroupLine {
            group: group.to_string(),
            from,
            epoch: last.map(|deal| deal.epoch),
            moved_by_need: numbers(by_need),
            members: numbers(members.iter().copied()),
        }
    };
    groups.into_iter().map(line).collect()
}

pub(in crate::commands) async fn run(
    context: &Context,
    file: Option<&Path>,
    genesis: Option<&Path>,
    output: Output,
) -> Result<(), CliError> {
    let mut in_force = None;
    let (proof, genesis): (Option<(EpochProof, Height)>, Genesis) = match file {
        None => {
            let client = context.client().await?;
            let lives: NodeLives = client.node_lives().await?;
            in_force = Some(lives.seats);
            (proved(&client).await?, client.genesis().clone())
        }
        Some(path) => {
            let genesis = match genesis {
                Some(path) => read_genesis(path)?,
                None => context.profile()?.genesis()?,
            };
            let bytes = std::fs::read(path).map_err(|error| CliError::file(path, &error))?;
            let proof = EpochProof::of_file(&bytes)?;
            let height = judged(&proof, &genesis)?;
            (Some((proof, height)), genesis)
        }
    };
    if let Some(group) = misassigned(&genesis) {
        let cause = format!("the seats of {group} in the genesis do not follow from its seed and its nodes");
        return Err(CliError::new(
            "genesis_assignment",
            cause,
            "ask who made the genesis; 'seamark init' deals the seats by its seed",
        ));
    }
    let verified = verified(&genesis, proof.as_ref(), in_force.as_deref());
    output.result(&verified, || verified_text(&verified))
}

fn verified(genesis: &Genesis, proof: Option<&(EpochProof, Height)>, in_force: Option<&[Seating]>) -> Verified {
    let records = proof.map_or(&[][..], |(proof, _)| proof.records.as_slice());
    let mut groups = explained(proof.map_or(&[][..], |(proof, _)| proof.deals.as_slice()), genesis);
    // What was cut or joined behind the last deal has ended, too.
    let lives = |group: &str| in_force.is_none_or(|seats| seats.iter().any(|known| known.group.to_string() == group));
    groups.iter_mut().filter(|line| !lives(&line.group)).for_each(|line| line.from = "ended");
    Verified {
        cluster: genesis.cluster_id().to_string(),
        genesis: true,
        epochs: records.iter().map(|record| record.epoch).collect(),
        seed: records.last().map_or(genesis.seed, |record| record.seed).to_string(),
        proved_height: proof.map(|(_, height)| height.0),
        groups,
        in_force: in_force.map(|seats| seats.iter().map(SeatedLine::of).collect()),
    }
}

fn verified_text(verified: &Verified) -> String {
    let epochs: Vec<String> = verified.epochs.iter().map(ToString::to_string).collect();
    let rows = verified.groups.iter().map(|line| {
        let from = match (line.from, line.epoch) {
            ("ended", _) => "it has ended".to_owned(),
            (_, Some(epoch)) => format!("the deal of epoch {epoch}"),
            (_, None) => "the genesis".to_owned(),
        };
        [line.group.clone(), listed(&line.members), from, listed(&line.moved_by_need)]
    });
    let told = match verified.proved_height {
        Some(_) => format!("{}: seeds and deals recomputed", epochs.join(" ")),
        None => "none has ended".to_owned(),
    };
    let mut of = vec![
        ("cluster", verified.cluster.clone()),
        ("genesis", "its seats follow from its seed".to_owned()),
        ("epochs", told),
    ];
    of.extend(verified.proved_height.map(|height| ("proved by", format!("block {height} of the beacon"))));
    let mut text = format!("{}\n{}", facts(of), table(["group", "nodes", "by", "moved by need"], rows));
    if let Some(groups) = &verified.in_force {
        let row = |group: &SeatedLine| {
            let began = group.began();
            group.seats.iter().map(|seat| [group.group.clone(), began.clone(), seat.text()]).collect::<Vec<_>>()
        };
        let rows = groups.iter().flat_map(row);
        text.push_str(&format!("\nin force, by the beacon's word\n{}", table(["group", "began with", "seat"], rows)));
    }
    text
}

#[cfg(test)]
mod tests {
    use beacon::EpochPolicy;
    use beacon::assign::Seated;
    use ledger::committee::Member;
    use ledger::genesis::VerifyMode;
    use ledger::{Committee, Engine, Epoch, Hash32, Incarnation, JobId, Layout, OrgId, PublicKey, TimeMs};

    use super::*;

    const SHARD: GroupId = GroupId::shard(0);

    /// A beacon and a shard on nodes 1 to 3.
    fn genesis() -> Genesis {
        let member = |node| Member { node: NodeId(node), org: OrgId(1), key: PublicKey([2; 33]) };
        let of = |group| Committee::majority(group, Incarnation(0), Epoch(0), [1, 2, 3].map(member).to_vec());
        Genesis {
            version: 1,
            name: "test".to_owned(),
            created_ms: TimeMs(1),
            seed: Hash32([7; 32]),
            orgs: Vec::new(),
            nodes: Vec::new(),
            committees: vec![of(GroupId::BEACON), of(SHARD)],
            layout: Layout::even(1),
            verify: VerifyMode::Ingest,
            policies: Default::default(),
        }
    }

    fn deal(epoch: u64, members: [u32; 3], moves: Option<[u32; 3]>) -> Deal {
        let nodes = |members: [u32; 3]| members.map(NodeId).to_vec();
        let seated = Seated { group: SHARD, engine: Engine::Raft, members: nodes(members) };
        let moves = moves.map(|members| (SHARD, nodes(members)));
        let empty = Deal::of((epoch, Hash32([2; 32])), &[], &[], &EpochPolicy::DEFAULT, false);
        Deal { groups: vec![seated], moves: moves.into_iter().collect(), ..empty }
    }

    #[test]
    fn the_committees_in_force_are_told_without_an_epoch_and_after_a_cut() {
        let seat = |node, from, why| Seat { node: NodeId(node), epoch: Epoch(2), from, why };
        let child = |ordinal| Seating {
            group: GroupId::shard(ordinal),
            began: Began::Born { job: JobId(4), parents: vec![SHARD] },
            seats: vec![
                seat(1, None, Why::First),
                seat(2, Some(NodeId(7)), Why::Need),
                seat(3, Some(NodeId(8)), Why::Job(JobId(5))),
            ],
        };
        let beacon = Seating {
            group: GroupId::BEACON,
            began: Began::Genesis,
            seats: vec![seat(4, Some(NodeId(1)), Why::Successor)],
        };
        let told = verified(&genesis(), None, Some(&[beacon, child(1), child(2)]));
        assert_eq!(told.groups.iter().map(|line| line.from).collect::<Vec<_>>(), ["genesis", "ended"]);
        let text = verified_text(&told);
        for part in [
            "none has ended",
            "it has ended",
            "job-4, from shard-0",
            "node 1: since it began",
            "node 2: by need, in the place of node 7",
            "node 3: by job-5, in the place of node 8",
            "node 4: named for that by 'node replace', in the place of node 1",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let json = serde_json::to_value(&told).expect("it is JSON");
        let seat = &json["in_force"][1]["seats"][2];
        assert_eq!((&seat["why"], &seat["job"], &seat["from"]), (&"job".into(), &"job-5".into(), &8.into()));
        assert_eq!((&json["proved_height"], &json["epochs"]), (&serde_json::Value::Null, &serde_json::json!([])));
    }

    #[test]
    fn seats_are_told_by_what_they_follow_from() {
        let told = |deals: &[Deal]| {
            let lines = explained(deals, &genesis());
            assert_eq!((lines.len(), lines[0].from), (2, "genesis"), "the beacon is not dealt");
            (lines[1].from, lines[1].epoch, lines[1].members.clone(), lines[1].moved_by_need.clone())
        };
        assert_eq!(told(&[]), ("genesis", None, vec![1, 2, 3], vec![]));
        assert_eq!(told(&[deal(3, [1, 2, 3], Some([1, 2, 4]))]), ("deal", Some(3), vec![1, 2, 4], vec![]));
        // Node 4 came by the deal before, node 9 by a drain or a join since.
        let deals = [deal(3, [1, 2, 3], Some([1, 2, 4])), deal(4, [1, 4, 9], None)];
        assert_eq!(told(&deals), ("deal", Some(4), vec![1, 4, 9], vec![9]));
        // The last deal knows it no more.
        let mut without = deal(5, [1, 4, 9], None);
        without.groups.clear();
        let [_, four] = deals;
        assert_eq!(told(&[four, without]), ("ended", Some(4), vec![1, 4, 9], vec![4, 9]));
    }
}
