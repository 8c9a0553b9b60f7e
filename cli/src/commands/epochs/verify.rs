//! `beacon verify-assignment`: why each node sits where it sits, recomputed from the genesis and from the deals of the epochs that
//! are kept. With a file it needs no network.

use std::path::Path;

use beacon::EpochProof;
use beacon::epochs::Deal;
use beacon::genesis::misassigned;
use client::profile::read_genesis;
use ledger::genesis::Genesis;
use ledger::{GroupId, GroupKind, NodeId};
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
    proved_height: u64,
    groups: Vec<GroupLine>,
}

/// Where the seats of a group come from.
#[derive(Serialize)]
struct GroupLine {
    group: String,
    /// `genesis`, or `deal`.
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
        GroupLine {
            group: group.to_string(),
            from: if last.is_some() { "deal" } else { "genesis" },
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
    let (proof, height, genesis) = match file {
        None => proved(context).await?,
        Some(path) => {
            let genesis = match genesis {
                Some(path) => read_genesis(path)?,
                None => context.profile()?.genesis()?,
            };
            let bytes = std::fs::read(path).map_err(|error| CliError::file(path, &error))?;
            let proof = EpochProof::of_file(&bytes)?;
            let height = judged(&proof, &genesis)?;
            (proof, height, genesis)
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
    let verified = Verified {
        cluster: genesis.cluster_id().to_string(),
        genesis: true,
        epochs: proof.records.iter().map(|record| record.epoch).collect(),
        seed: proof.records.last().map_or(genesis.seed, |record| record.seed).to_string(),
        proved_height: height.0,
        groups: explained(&proof.deals, &genesis),
    };
    output.result(&verified, || verified_text(&verified))
}

fn verified_text(verified: &Verified) -> String {
    let epochs: Vec<String> = verified.epochs.iter().map(ToString::to_string).collect();
    let rows = verified.groups.iter().map(|line| {
        let from = match line.epoch {
            Some(epoch) => format!("the deal of epoch {epoch}"),
            None => "the genesis".to_owned(),
        };
        [line.group.clone(), listed(&line.members), from, listed(&line.moved_by_need)]
    });
    format!(
        "{}\n{}",
        facts([
            ("cluster", verified.cluster.clone()),
            ("genesis", "its seats follow from its seed".to_owned()),
            ("epochs", format!("{}: seeds and deals recomputed", epochs.join(" "))),
            ("proved by", format!("block {} of the beacon", verified.proved_height)),
        ]),
        table(["group", "nodes", "by", "moved by need"], rows)
    )
}

#[cfg(test)]
mod tests {
    use beacon::EpochPolicy;
    use beacon::assign::Seated;
    use ledger::committee::Member;
    use ledger::genesis::VerifyMode;
    use ledger::{Committee, Engine, Epoch, Hash32, Incarnation, Layout, OrgId, PublicKey, TimeMs};

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
    }
}
