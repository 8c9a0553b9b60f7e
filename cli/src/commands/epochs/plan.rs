//! `beacon plan`: what each committee bears, the risk that is left, and what a deal of seats would move. Changes nothing.

use std::collections::BTreeMap;

use beacon::epochs::{Deal, step_towards, worst_risk};
use beacon::risk::of_lot;
use beacon::{EpochBook, EpochPolicy, NodeLives, Shards};
use ledger::genesis::NodeInfo;
use ledger::{Committee, GroupId, GroupKind, Hash32, NodeId, Reject};
use serde::Serialize;

use super::super::beacon::nodes;
use super::super::context::Context;
use super::super::shard::plan::Size;
use super::{listed, numbers};
use crate::error::CliError;
use crate::output::{Output, facts, grouped, table};

/// One of so many nodes is counted as bad where nobody says how many are.
const BAD_SHARE: usize = 8;

#[derive(Serialize)]
struct Plan {
    nodes: usize,
    bad_nodes: usize,
    /// The largest risk of a committee, parts of a thousand million.
    risk_ppb: u64,
    /// The target; zero is none.
    risk_max_ppb: u64,
    seed: String,
    groups: Vec<GroupLine>,
    /// What the end of an epoch moves by need.
    epoch_change: Moves,
    /// What it moves after 'beacon rebalance'.
    rebalance: Moves,
}

#[derive(Serialize)]
struct GroupLine {
    group: String,
    engine: &'static str,
    seats: usize,
    /// Members that may fail.
    tolerated: usize,
    /// Seats of each organisation, the most first.
    orgs: Vec<(u16, usize)>,
    /// Whole organisations that may fail at once, whichever they are.
    orgs_tolerated: usize,
    /// The same of zones.
    zones_tolerated: usize,
    risk_ppb: u64,
}

#[derive(Serialize)]
struct Moves {
    moves: Vec<MoveLine>,
    /// Replicas that are fetched anew: the cost.
    seats: usize,
    /// Accounts in all of these, as replicas count them now; absent where one is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    accounts: Option<u64>,
    /// Bytes of all of these, as members report them while scaling is on; absent where one is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    /// Epochs from the decision until the last one is in force.
    epochs: usize,
}

#[derive(Serialize)]
struct MoveLine {
    group: String,
    leaving: Vec<u32>,
    joining: Vec<u32>,
    /// Steps, one an epoch.
    steps: usize,
    /// Accounts that each new replica copies.
    #[serde(skip_serializing_if = "Option::is_none")]
    accounts: Option<u64>,
    /// Bytes that each new replica copies.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

/// The size of a replica of each group, as far as it is known.
type Sizes = BTreeMap<GroupId, Size>;

/// How many of these may be taken away, whichever they are, before more seats than are tolerated are gone.
fn whole(mut seats: Vec<usize>, tolerated: usize) -> usize {
    seats.sort_unstable_by(|a, b| b.cmp(a));
    let mut gone = 0;
    seats
        .into_iter()
        .take_while(|count| {
            gone += count;
            gone <= tolerated
        })
        .count()
}

impl GroupLine {
    fn of(committee: &Committee, nodes: &[NodeInfo], usable: usize, bad: usize) -> Self {
        let seats = committee.members.len();
        let tolerated = committee.engine.tolerated(seats);
        let mut orgs: BTreeMap<u16, usize> = BTreeMap::new();
        let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
        for member in &committee.members {
            *orgs.entry(member.org.0).or_default() += 1;
            let zone = nodes.iter().find(|node| node.id == member.node).map_or("", |node| node.zone.as_str());
            *zones.entry(zone).or_default() += 1;
        }
        let mut by_seats: Vec<(u16, usize)> = orgs.into_iter().collect();
        by_seats.sort_by_key(|(org, count)| (std::cmp::Reverse(*count), *org));
        Self {
            group: committee.group.to_string(),
            engine: committee.engine.name(),
            seats,
            tolerated,
            orgs_tolerated: whole(by_seats.iter().map(|(_, count)| *count).collect(), tolerated),
            zones_tolerated: whole(zones.into_values().collect(), tolerated),
            orgs: by_seats,
            risk_ppb: of_lot(usable, bad, seats, tolerated),
        }
    }
}

impl Moves {
    fn of(deal: &Deal, committees: &[Committee], nodes: &[NodeInfo], sizes: &Sizes) -> Self {
        let mut lines = Vec::new();
        for (group, target) in &deal.moves {
            let Some(current) = committees.iter().find(|committee| committee.group == *group) else { continue };
            let (mut last, mut steps) = (current.clone(), 0);
            while let Some(members) = step_towards(&last, target, nodes) {
                last.members = members;
                steps += 1;
            }
            let only = |one: &Committee, other: &Committee| {
                let members = one.members.iter().map(|member| member.node);
                numbers(members.filter(|node: &NodeId| other.index_of(*node).is_none()))
            };
            let size = sizes.get(group).copied().unwrap_or_default();
            lines.push(MoveLine {
                group: group.to_string(),
                leaving: only(current, &last),
                joining: only(&last, current),
                steps,
                accounts: size.accounts,
                bytes: size.bytes,
            });
        }
        let steps = lines.iter().map(|line| line.steps).max().unwrap_or(0);
        Self {
            seats: lines.iter().map(|line| line.joining.len()).sum(),
            accounts: total(lines.iter().map(|line| line.copied(line.accounts))),
            bytes: total(lines.iter().map(|line| line.copied(line.bytes))),
            // Prepared in the epoch after the decision, in force in the one behind that; then one step an epoch.
            epochs: if steps == 0 { 0 } else { steps + 1 },
            moves: lines,
        }
    }
}

/// All of these together, if each is known. What nodes report may be anything.
fn total(mut sizes: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    sizes.try_fold(0, |sum: u64, size| Some(sum.saturating_add(size?)))
}

impl MoveLine {
    /// What all new replicas copy together, of which each copies so much.
    fn copied(&self, each: Option<u64>) -> Option<u64> {
        each.map(|each| each.saturating_mul(self.joining.len() as u64))
    }
}

impl Plan {
    /// `nodes` are as they may take seats: one that may not has no capacity.
    fn of(
        nodes: &[NodeInfo],
        committees: &[Committee],
        sizes: &Sizes,
        seed: Hash32,
        (bad, risk_max_ppb): (usize, u64),
    ) -> Self {
        let usable = nodes.iter().filter(|node| node.capacity > 0).count();
        let shards: Vec<&Committee> =
            committees.iter().filter(|committee| committee.group.kind() == Some(GroupKind::Shard)).collect();
        let seated = shards.iter().map(|committee| (committee.members.len(), committee.engine));
        let deal = |even| Deal::of((0, seed), nodes, committees, &EpochPolicy::DEFAULT, even);
        let moves = |even| Moves::of(&deal(even), committees, nodes, sizes);
        Self {
            nodes: usable,
            bad_nodes: bad,
            risk_ppb: worst_risk(usable, bad, seated),
            risk_max_ppb,
            seed: seed.to_string(),
            groups: committees.iter().map(|committee| GroupLine::of(committee, nodes, usable, bad)).collect(),
            epoch_change: moves(false),
            rebalance: moves(true),
        }
    }

    /// That the risk is above the target, if it is.
    fn refusal(&self) -> Option<CliError> {
        (self.risk_max_ppb > 0 && self.risk_ppb > self.risk_max_ppb).then(|| {
            let cause = format!(
                "with {} bad ones of {} nodes, the risk of a committee is {} ppb, and the target {} ppb",
                self.bad_nodes, self.nodes, self.risk_ppb, self.risk_max_ppb
            );
            CliError::new(Reject::LayoutRisk.code(), cause, Reject::LayoutRisk.fix())
        })
    }

    fn text(&self) -> String {
        let target = match self.risk_max_ppb {
            0 => "no target".to_owned(),
            ppb => format!("target {ppb} ppb"),
        };
        let rows = self.groups.iter().map(|line| {
            let orgs: Vec<String> = line.orgs.iter().map(|(org, seats)| format!("{org}:{seats}")).collect();
            [
                line.group.clone(),
                format!("{} ({})", line.seats, line.engine),
                line.tolerated.to_string(),
                orgs.join(" "),
                line.orgs_tolerated.to_string(),
                line.zones_tolerated.to_string(),
                line.risk_ppb.to_string(),
            ]
        });
        let head = facts([
            ("nodes", format!("{}, of which {} are counted as bad", self.nodes, self.bad_nodes)),
            ("risk", format!("{} ppb at most, {target}", self.risk_ppb)),
        ]);
        let groups = table(
            ["group", "seats", "may fail", "seats by org", "whole orgs may fail", "whole zones", "risk, ppb"],
            rows,
        );
        let moves = [("an epoch change", &self.epoch_change), ("'beacon rebalance'", &self.rebalance)];
        let moves = moves.map(|(what, moves)| moves.text(what));
        format!("{head}\n{groups}\n{}", moves.join("\n"))
    }
}

impl Moves {
    fn text(&self, what: &str) -> String {
        if self.moves.is_empty() {
            return format!("{what} would move nobody");
        }
        let mut text = format!(
            "{what} would have {} replicas fetched anew, {}, and be in force {} epochs after its decision",
            self.seats,
            size(self.accounts, self.bytes),
            self.epochs
        );
        for line in &self.moves {
            let (leaving, joining) = (listed(&line.leaving), listed(&line.joining));
            let each = size(line.accounts, line.bytes);
            text.push_str(&format!("\n  {}: {leaving} -> {joining}, in {} steps, {each} each", line.group, line.steps));
        }
        text
    }
}

fn size(accounts: Option<u64>, bytes: Option<u64>) -> String {
    let shown = |number: Option<u64>, what: &str| match number {
        Some(number) => format!("about {} {what}", grouped(number.into())),
        None => format!("{what} not known"),
    };
    format!("{} ({})", shown(accounts, "accounts"), shown(bytes, "bytes"))
}

pub(in crate::commands) async fn run(
    context: &Context,
    bad: Option<u16>,
    risk_max_ppb: Option<u64>,
    output: Output,
) -> Result<(), CliError> {
    let client = context.client().await?;
    let book: EpochBook = client.epochs().await?;
    let lives: NodeLives = client.node_lives().await?;
    let mut nodes = nodes(&client).await?;
    nodes.iter_mut().filter(|node| book.barred.contains(&node.id)).for_each(|node| node.capacity = 0);
    let usable = nodes.iter().filter(|node| node.capacity > 0).count();
    let bad = match (bad, book.policy.bad_nodes) {
        (Some(bad), _) => usize::from(bad),
        (None, 0) => (usable / BAD_SHARE).max(1),
        (None, bad) => usize::from(bad),
    };
    let target = risk_max_ppb.unwrap_or(book.policy.risk_max_ppb);
    let (shards, status): (Shards, _) = (client.shards().await?, client.status().await?);
    let groups = lives.committees.iter().map(|committee| committee.group);
    let sizes: Sizes = groups.map(|group| (group, Size::of(group, &shards, &status))).collect();
    let plan = Plan::of(&nodes, &lives.committees, &sizes, book.seed, (bad, target));
    plan.refusal().map_or(Ok(()), Err)?;
    output.result(&plan, || plan.text())
}

#[cfg(test)]
mod tests {
    use ledger::GroupId;
    use ledger::committee::Member;
    use ledger::crypto::SecretKey;
    use ledger::{Epoch, Incarnation, OrgId};

    use super::*;

    fn node(id: u32, org: u16) -> NodeInfo {
        NodeInfo {
            id: NodeId(id),
            org: OrgId(org),
            zone: format!("zone-{org}"),
            capacity: 1,
            key: SecretKey::derive(b"node", &id.to_be_bytes()).public(),
            tls_key_hash: Hash32([9; 32]),
            peer_addr: "h:1".to_owned(),
            client_addr: "h:2".to_owned(),
        }
    }

    fn committee(group: GroupId, nodes: &[NodeInfo], ids: &[u32]) -> Committee {
        let members = nodes.iter().filter(|node| ids.contains(&node.id.0));
        let members = members.map(|node| Member { node: node.id, org: node.org, key: node.key });
        Committee::majority(group, Incarnation(0), Epoch(0), members.collect())
    }

    #[test]
    fn what_committees_bear_and_what_would_move_is_told() {
        // Organisation 1 has two of three seats in shard 1; node 4 of organisation 3 has none.
        let nodes: Vec<NodeInfo> = [(1, 1), (2, 1), (3, 2), (4, 3)].map(|(id, org)| node(id, org)).to_vec();
        let committees = [
            committee(GroupId::BEACON, &nodes, &[1, 3, 4]),
            committee(GroupId::shard(0), &nodes, &[1, 3, 4]),
            committee(GroupId::shard(1), &nodes, &[1, 2, 3]),
        ];
        let none = Sizes::new();
        let plan = Plan::of(&nodes, &committees, &none, Hash32([3; 32]), (2, 0));
        let rows: Vec<(usize, usize)> =
            plan.groups.iter().map(|line| (line.orgs_tolerated, line.zones_tolerated)).collect();
        assert_eq!(rows, [(1, 1), (1, 1), (0, 0)]);
        // Two bad ones of four: of four committees of three, two have both.
        assert_eq!((plan.risk_ppb, plan.groups[0].risk_ppb), (500_000_000, 500_000_000));
        let [line] = &plan.epoch_change.moves[..] else { panic!("one group breaks a rule: {}", plan.text()) };
        assert_eq!((line.group.as_str(), line.joining.as_slice(), line.steps), ("shard-1", &[4][..], 1));
        assert!([&[1][..], &[2][..]].contains(&line.leaving.as_slice()), "one of organisation 1 goes");
        assert_eq!((plan.epoch_change.seats, plan.epoch_change.epochs), (1, 2));
        let text = plan.text();
        for part in ["4, of which 2 are counted as bad", "500000000 ppb at most, no target", "1 replicas fetched anew"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert_eq!(plan.refusal(), None);
        let code = |target| {
            Plan::of(&nodes, &committees, &none, Hash32([3; 32]), (2, target)).refusal().map(|error| error.code)
        };
        assert_eq!((code(499_999_999), code(500_000_000)), (Some("layout_risk".to_owned()), None));
    }

    #[test]
    fn what_a_move_copies_is_told_as_far_as_it_is_known() {
        let size = |accounts, bytes| Size { accounts, bytes, tps: None };
        let nodes: Vec<NodeInfo> = [(1, 1), (2, 1), (3, 2), (4, 3)].map(|(id, org)| node(id, org)).to_vec();
        // One of organisation 1 leaves shard 1, where it has two seats of three; nobody leaves shard 0.
        let [zero, one] = [0, 1].map(GroupId::shard);
        let committees = [committee(zero, &nodes, &[1, 3, 4]), committee(one, &nodes, &[1, 2, 3])];
        let deal = |sizes: &Sizes| Plan::of(&nodes, &committees, sizes, Hash32([3; 32]), (1, 0)).epoch_change;
        let moves = deal(&Sizes::from([(one, size(Some(1_000), Some(70)))]));
        assert_eq!((moves.seats, moves.accounts, moves.bytes), (1, Some(1_000), Some(70)));
        let text = moves.text("an epoch change");
        for part in ["1 replicas fetched anew, about 1,000 accounts (about 70 bytes), and be", "(about 70 bytes) each"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        // Bytes are reported while scaling is on: until then no sum is made up.
        let moves = deal(&Sizes::from([(zero, size(Some(7), Some(7))), (one, size(Some(1_000), None))]));
        assert_eq!((moves.accounts, moves.bytes), (Some(1_000), None));
        assert!(moves.text("it").contains("about 1,000 accounts (bytes not known) each"));
        assert_eq!(total([Some(u64::MAX), Some(1)].into_iter()), Some(u64::MAX), "whatever is reported");
        assert_eq!((total([Some(1), None].into_iter()), total(std::iter::empty())), (None, Some(0)));
    }

    #[test]
    fn whole_organisations_are_counted_by_their_seats() {
        for (seats, tolerated, expected) in
            [(vec![1, 1, 1], 1, 1), (vec![2, 1], 1, 0), (vec![2, 2, 2, 1], 2, 1), (vec![1; 7], 3, 3), (vec![], 0, 0)]
        {
            assert_eq!(whole(seats.clone(), tolerated), expected, "{seats:?}");
        }
    }
}
