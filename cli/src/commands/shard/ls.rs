//! `shard ls`: every shard, its prefix and size, its nodes, where it came from, and what is under way there.

use beacon::{Job, Shards};
use ledger::GroupId;
use proto::v1;
use serde::Serialize;

use super::plan::Size;
use crate::commands::context::Context;
use crate::error::CliError;
use crate::health::groups;
use crate::output::{Output, table};

#[derive(Serialize)]
struct Listed {
    layout: u64,
    shards: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    shard: String,
    prefix: String,
    #[serde(flatten)]
    size: Size,
    nodes: Vec<u32>,
    engine: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<u32>,
    /// The shards that it was cut out of or joined from, by the layout.
    from: Vec<String>,
    /// The job that is about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<&'static str>,
}

pub(super) async fn run(context: &Context, output: Output) -> Result<(), CliError> {
    let client = context.client().await?;
    let shards: Shards = client.shards().await?;
    let listed = list(&shards, &client.status().await?);
    output.result(&listed, || text(&listed))
}

fn list(shards: &Shards, status: &v1::StatusReply) -> Listed {
    let standing = &shards.standing;
    let groups = groups(status, &standing.committees);
    let line = |shard: &ledger::ShardRange| {
        let group = shard.group;
        let at = standing.committees.iter().position(|committee| committee.group == group);
        let committee = at.map(|at| &standing.committees[at]);
        let job: Option<&Job> = standing.jobs.iter().find(|job| job.holds(group));
        Line {
            shard: group.to_string(),
            prefix: shard.prefix.to_string(),
            size: Size::of(group, shards, status),
            nodes: committee.map_or_else(Vec::new, |found| found.members.iter().map(|member| member.node.0).collect()),
            engine: committee.map_or("", |found| found.engine.name()),
            leader: at.and_then(|at| groups[at].leader),
            from: parents(shards, group),
            job: job.map(|job| job.id.to_string()),
            phase: job.map(|job| job.phase.name()),
        }
    };
    Listed { layout: standing.layout.version.0, shards: standing.layout.shards.iter().map(line).collect() }
}

fn parents(shards: &Shards, group: GroupId) -> Vec<String> {
    let lineage = shards.standing.layout.lineage.iter();
    lineage.filter(|entry| entry.successors.contains(&group)).map(|entry| entry.group.to_string()).collect()
}

fn text(listed: &Listed) -> String {
    let rows = listed.shards.iter().map(|line| {
        let nodes: Vec<String> = line.nodes.iter().map(ToString::to_string).collect();
        let [accounts, _, tps] = line.size.cells();
        let job = line.job.as_ref().map(|job| format!("{job} {}", line.phase.unwrap_or_default()));
        [
            line.shard.clone(),
            line.prefix.clone(),
            accounts,
            tps,
            nodes.join(" "),
            line.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string()),
            line.from.join(" "),
            job.unwrap_or_default(),
        ]
    });
    let header = ["shard", "prefix", "accounts", "tx/s", "nodes", "leader", "came from", "under way"];
    format!("{}\nlayout {}", table(header, rows), listed.layout)
}

#[cfg(test)]
mod tests {
    use beacon::jobs::scale::ScalePolicy;
    use beacon::jobs::{Phase, Standing};
    use ledger::{Layout, TimeMs};

    use super::super::lines::tests::{SPLIT, committee, job};
    use super::*;

    #[test]
    fn shards_are_listed_in_order_with_where_they_came_from_and_what_is_under_way() {
        let [one, two, three] = [1, 2, 3].map(GroupId::shard);
        let layout = Layout::even(2).split(GroupId::shard(0), [two, three]).unwrap();
        let standing = Standing {
            layout,
            nodes: Vec::new(),
            committees: [one, two, three].map(|group| committee(group, &[1, 2, 3])).to_vec(),
            coming: Vec::new(),
            switching: Vec::new(),
            barred: Vec::new(),
            silent: Vec::new(),
            quarantined: Vec::new(),
            jobs: vec![job(SPLIT, Phase::Sealing)],
            next_shard: 6,
            view_bytes: 0,
        };
        let shards = Shards {
            version: beacon::jobs::shards::SHARDS_VERSION,
            time_ms: TimeMs(1),
            standing,
            ended: Vec::new(),
            born: Vec::new(),
            policy: ScalePolicy::DEFAULT,
            loads: Vec::new(),
            notes: Vec::new(),
            lead: None,
        };
        let replica = v1::ReplicaStatus { group: three.0, leads: true, accounts: 77, ..v1::ReplicaStatus::default() };
        let node = v1::NodeStatusReply { node: 2, replicas: vec![replica], ..v1::NodeStatusReply::default() };
        let listed = list(&shards, &v1::StatusReply { nodes: vec![node], unreachable: Vec::new() });
        let lines: Vec<_> = listed.shards.iter().map(|line| (line.shard.as_str(), line.prefix.as_str())).collect();
        assert_eq!(lines, [("shard-2", "00"), ("shard-3", "01"), ("shard-1", "1")]);
        assert_eq!((listed.shards[1].leader, listed.shards[1].size.accounts), (Some(2), Some(77)));
        assert_eq!((&listed.shards[0].from, listed.shards[0].phase), (&vec!["shard-0".to_owned()], Some("sealing")));
        let text = text(&listed);
        for part in ["job-3 sealing", "not known", "layout 2"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let json = serde_json::to_value(&listed).unwrap();
        assert_eq!((&json["layout"], &json["shards"][1]["accounts"]), (&2.into(), &77.into()));
    }
}
