//! What a switch of a group's engine would change: by what the beacon judges it by, what the members say of their votes, and,
//! of a channel, what its own members want, of which the beacon hears later. Sends nothing.

use std::collections::BTreeSet;

use beacon::{EngineBook, Preflight, Standing, preflight};
use client::Client;
use ledger::{Committee, Engine, GroupId, GroupKind, NodeId, Reject};
use proto::v1;

use crate::error::CliError;

/// What a channel says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Own {
    /// It is no channel: the beacon knows best.
    None,
    /// What its members want it to be ordered by, and the nodes that they name.
    Says(Engine, BTreeSet<NodeId>),
    /// Why it says nothing to whoever asks.
    Hidden(String),
}

/// What a switch would change, and why it cannot be, if so: as whoever is to decide about it would say in this moment.
pub(super) async fn look(client: &Client, group: GroupId, engine: Engine) -> Result<Preflight, CliError> {
    let EngineBook { standing, .. } = client.engines().await?;
    let own = match group.kind() {
        Some(GroupKind::Channel) => match client.governance(group).await {
            Ok(governance) => {
                let nodes = governance.members.iter().flat_map(|member| member.nodes.iter().map(|node| node.node));
                Own::Says(governance.record.engine, nodes.collect())
            }
            Err(error) => Own::Hidden(error.to_string()),
        },
        Some(GroupKind::Beacon | GroupKind::Shard) | None => Own::None,
    };
    judged(standing, &own, &client.status().await?, group, engine)
}

fn judged(
    mut standing: Standing,
    own: &Own,
    status: &v1::StatusReply,
    group: GroupId,
    engine: Engine,
) -> Result<Preflight, CliError> {
    let mut silent = Vec::new();
    if let Some(current) = standing.committees.iter().find(|committee| committee.group == group) {
        let seats = Seats::of(current, status);
        (standing.voteless, silent) = (seats.voteless, seats.silent);
        if *own != Own::None {
            // A channel asks nobody who is accused: its members may go where that one can do less harm.
            standing.accused.clear();
        }
        if let Own::Says(wants, nodes) = own {
            standing.switching.retain(|(switching, _)| *switching != group);
            standing.switching.extend((*wants != current.engine).then_some((group, *wants)));
            // Whatever is being prepared, a channel whose members are those in force changes from there.
            if current.members.iter().map(|member| member.node).eq(nodes.iter().copied()) {
                standing.coming.retain(|coming| coming.group != group);
            }
        }
    }
    let mut found = preflight(&standing, group, engine)
        .map_err(|reject| CliError::new(reject.code(), format!("{group}: {}", reject.cause()), reject.fix()))?;
    found.notes.extend(silent.iter().map(|node| format!("node {node} does not answer: it counts as one that votes")));
    if let Own::Hidden(why) = own {
        found.notes.push(format!("the channel does not say which engine it wants, and judges by itself: {why}"));
        if matches!(found.refusal, Some(Reject::EngineSame | Reject::EngineChanging)) {
            found.refusal = None;
        }
    }
    Ok(found)
}

/// What the members of a group say of their votes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seats {
    /// They have none now: they follow without, have stopped, do not run the group, or the leader's engine does not know
    /// them as voters.
    voteless: Vec<NodeId>,
    /// Their nodes do not answer.
    silent: Vec<NodeId>,
}

impl Seats {
    fn of(committee: &Committee, status: &v1::StatusReply) -> Self {
        let replica = |reply: &v1::NodeStatusReply| {
            reply.replicas.iter().find(|replica| replica.group == committee.group.0).cloned()
        };
        let leading =
            status.nodes.iter().filter_map(replica).filter(|replica| replica.leads && replica.stopped.is_empty());
        let leader = leading.max_by_key(|replica| (replica.term, replica.log_last, replica.round));
        let counted =
            |node: u32| leader.as_ref().is_none_or(|leader| leader.voters.is_empty() || leader.voters.contains(&node));
        let mut seats = Self::default();
        for node in committee.members.iter().map(|member| member.node) {
            let Some(reply) = status.nodes.iter().find(|reply| reply.node == node.0) else {
                seats.silent.push(node);
                continue;
            };
            let votes = replica(reply).is_some_and(|own| own.stopped.is_empty() && !own.learners.contains(&node.0));
            if !votes || !counted(node.0) {
                seats.voteless.push(node);
            }
        }
        seats
    }
}

#[cfg(test)]
mod tests {
    use ledger::genesis::NodeInfo;
    use ledger::{Epoch, Hash32, Incarnation, Member, OrgId, PublicKey};

    use super::*;

    const SHARD: GroupId = GroupId::shard(0);
    const STEEL: GroupId = GroupId::channel(0);

    fn member(node: u8) -> Member {
        Member { node: NodeId(node.into()), org: OrgId(node.into()), key: PublicKey([node; 33]) }
    }

    fn committee(group: GroupId, members: u8) -> Committee {
        Committee::of(Engine::Raft, group, Incarnation(0), Epoch(1), (1..=members).map(member).collect())
    }

    /// Replicas of a group on so many nodes, that of the first leads.
    fn status(group: GroupId, nodes: u32) -> v1::StatusReply {
        let node = |node: u32| {
            let replica =
                v1::ReplicaStatus { group: group.0, leads: node == 1, engine: "raft".to_owned(), ..Default::default() };
            v1::NodeStatusReply { node, replicas: vec![replica], ..Default::default() }
        };
        v1::StatusReply { nodes: (1..=nodes).map(node).collect(), unreachable: Vec::new() }
    }

    /// As the beacon would say of a group under Raft with so many members, on a cluster of five nodes.
    fn standing(group: GroupId, members: u8) -> Standing {
        let info = |node: u8| {
            let Member { node: id, org, key } = member(node);
            let (zone, addr) = (format!("zone-{node}"), String::new());
            let (peer_addr, client_addr) = (addr.clone(), addr);
            NodeInfo { id, org, zone, capacity: 1, key, tls_key_hash: Hash32::ZERO, peer_addr, client_addr }
        };
        Standing {
            nodes: (1..=5).map(info).collect(),
            committees: vec![committee(group, members)],
            configured: vec![(group, members.into())],
            ..Standing::default()
        }
    }

    #[test]
    fn a_shard_is_told_what_the_beacon_would_say() {
        let looked = |change: fn(&mut Standing), engine| {
            let mut standing = standing(SHARD, 3);
            change(&mut standing);
            let found = judged(standing, &Own::None, &status(SHARD, 3), SHARD, engine).unwrap();
            (found.refusal, found.under_way)
        };
        let switching: fn(&mut Standing) = |found| found.switching = vec![(SHARD, Engine::Bft)];
        let waiting: fn(&mut Standing) = |found| {
            found.switching = vec![(SHARD, Engine::Bft)];
            found.nodes.truncate(3);
        };
        let (raft, bft) = (Engine::Raft, Engine::Bft);
        let rows: [(&str, fn(&mut Standing), Engine, (Option<Reject>, Option<Engine>)); 10] = [
            ("nothing is under way", |_| {}, bft, (None, None)),
            ("it is in force", |_| {}, raft, (Some(Reject::EngineSame), None)),
            ("asked for again", switching, bft, (None, Some(bft))),
            ("taken back", switching, raft, (None, Some(bft))),
            ("asked for again while it lacks a node", waiting, bft, (None, Some(bft))),
            ("taken back while it lacks a node", waiting, raft, (None, Some(bft))),
            (
                "a seat moves",
                |found| found.coming = vec![committee(SHARD, 4)],
                bft,
                (Some(Reject::EngineChanging), None),
            ),
            ("a job is about it", |found| found.busy = vec![SHARD], bft, (Some(Reject::ShardBusy), None)),
            (
                "a job is about it, and the switch",
                |found| {
                    found.busy = vec![SHARD];
                    found.switching = vec![(SHARD, Engine::Bft)];
                },
                raft,
                (Some(Reject::ShardBusy), Some(bft)),
            ),
            ("one of four has lied", |found| found.accused = vec![NodeId(2)], bft, (Some(Reject::EngineRisk), None)),
        ];
        for (what, change, engine, expected) in rows {
            assert_eq!(looked(change, engine), expected, "{what}");
        }
        let unknown = judged(standing(SHARD, 3), &Own::None, &status(SHARD, 3), GroupId::shard(9), bft);
        assert_eq!(unknown.unwrap_err().code, "unknown_group");
    }

    #[test]
    fn whoever_takes_a_switch_back_is_told_so() {
        let found = Standing { switching: vec![(SHARD, Engine::Bft)], ..standing(SHARD, 3) };
        let back = judged(found.clone(), &Own::None, &status(SHARD, 3), SHARD, Engine::Raft).unwrap();
        assert_eq!((back.steps, back.then.members, back.refusal), (0, 3, None));
        assert!(back.notes.iter().any(|note| note.contains("on its way to bft, which this takes back")), "{back:?}");
        let mut few = found;
        few.nodes.truncate(3);
        let again = judged(few, &Own::None, &status(SHARD, 3), SHARD, Engine::Bft).unwrap();
        assert!(again.notes.iter().any(|note| note.contains("waits for a node")), "{again:?}");
    }

    #[test]
    fn a_channel_is_judged_by_what_its_members_want_and_by_itself_where_it_hides_that() {
        let four: BTreeSet<NodeId> = (1..=4).map(NodeId).collect();
        let says = |engine| Own::Says(engine, four.clone());
        let hidden = || Own::Hidden("access_denied".to_owned());
        let (raft, bft) = (Engine::Raft, Engine::Bft);
        let beacon_knows = |found: &mut Standing| found.switching = vec![(STEEL, Engine::Bft)];
        for (what, own, known, engine, refusal) in [
            ("to the other", says(raft), false, bft, None),
            ("the one in force", says(raft), false, raft, Some(Reject::EngineSame)),
            ("back, of which the beacon has not heard", says(bft), false, raft, None),
            ("wanted already", says(bft), true, bft, Some(Reject::EngineChanging)),
            ("taken back already", says(raft), true, raft, Some(Reject::EngineSame)),
            ("and on again", says(raft), true, bft, None),
            ("hidden, and perhaps taken back", hidden(), false, raft, None),
            ("hidden, and perhaps the other way by now", hidden(), true, bft, None),
        ] {
            let mut standing = standing(STEEL, 4);
            if known {
                beacon_knows(&mut standing);
            }
            let found = judged(standing, &own, &status(STEEL, 4), STEEL, engine).unwrap();
            assert_eq!(found.refusal, refusal, "{what}");
        }
        // Its members' nodes are not those in force: what the beacon prepares comes first.
        let moving = Standing { coming: vec![committee(STEEL, 5)], ..standing(STEEL, 4) };
        let five = Own::Says(raft, (1..=5).map(NodeId).collect());
        let found = judged(moving.clone(), &five, &status(STEEL, 4), STEEL, bft).unwrap();
        assert_eq!(found.refusal, Some(Reject::EngineChanging));
        let found = judged(moving, &says(raft), &status(STEEL, 4), STEEL, bft).unwrap();
        assert_eq!(found.refusal, None, "they are, and the channel begins from there");
        let accused = Standing { accused: vec![NodeId(2)], ..standing(STEEL, 4) };
        let found = judged(accused, &says(raft), &status(STEEL, 4), STEEL, bft).unwrap();
        assert_eq!(found.refusal, None, "the channel does not judge by who is accused");
        let three = judged(standing(STEEL, 3), &hidden(), &status(STEEL, 3), STEEL, bft).unwrap();
        assert_eq!(three.refusal, Some(Reject::EngineNodes), "what everybody sees cannot hold");
        assert!(three.notes.iter().any(|note| note.contains("access_denied")), "{three:?}");
    }

    #[test]
    fn a_member_has_a_vote_only_if_it_and_the_leader_say_so() {
        let change = |node: usize, change: fn(&mut v1::ReplicaStatus)| {
            let mut status = status(SHARD, 4);
            status.nodes[0].replicas[0].voters = vec![1, 2, 3, 4];
            change(&mut status.nodes[node - 1].replicas[0]);
            status
        };
        let of = |status: &v1::StatusReply| Seats::of(&committee(SHARD, 4), status);
        assert_eq!(of(&change(1, |_| {})), Seats::default());
        let voteless = |node: u32| Seats { voteless: vec![NodeId(node)], ..Seats::default() };
        assert_eq!(of(&change(4, |own| own.learners = vec![4])), voteless(4), "it follows without");
        assert_eq!(of(&change(3, |own| own.stopped = "bft_wal".to_owned())), voteless(3), "it has stopped");
        assert_eq!(of(&change(2, |own| own.group = GroupId::shard(9).0)), voteless(2), "the group does not run there");
        assert_eq!(of(&change(1, |own| own.voters = vec![1, 2, 3])), voteless(4), "its engine has not followed yet");
        assert_eq!(
            of(&change(2, |own| own.learners = vec![4])),
            Seats::default(),
            "what others say of it says nothing"
        );
        let mut silent = status(SHARD, 4);
        silent.nodes.remove(1);
        assert_eq!(of(&silent), Seats { silent: vec![NodeId(2)], ..Seats::default() });
    }
}
