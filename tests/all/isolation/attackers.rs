//! Those who come to the doors of nodes for what is in a channel, and what they have to be told. Whatever is denied to
//! them has to be in the logs.

use std::collections::BTreeSet;

use bytes::Bytes;
use client::net::Identity;
use ledger::{GroupId, NodeId};
use prost::Message;
use proto::v1;
use tonic::transport::Channel;

use super::calls::{BFT_MESSAGES, SNAPSHOT_MEET, raft_calls};
use super::traces::Asked;
use super::{C, OUTSIDE, Scene};
use crate::support::cluster::TestCluster;
use crate::support::eventually;
use crate::support::rpc::{call, methods, short};

/// Who comes to the port between nodes, with a certificate of an organisation that has no part in the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Burglar {
    Node,
    Router,
}

impl Burglar {
    /// For what it is not answered, which is logged once a minute and without saying so to it.
    fn asks(self) -> &'static [Asked] {
        match self {
            Self::Node => &[Asked::ByLink, Asked::Foundation],
            // It has no link.
            Self::Router => &[Asked::Foundation],
        }
    }
}

/// The call was not let through to any group.
pub fn is_denied_at_the_door(what: &str, answer: Result<Option<Bytes>, tonic::Status>) {
    let status = answer.expect_err(what);
    let denied = (tonic::Code::PermissionDenied, ledger::Reject::AccessDenied.to_string());
    assert_eq!((status.code(), status.message().to_owned()), denied, "{what}");
}

/// What was said is that it is not for those of an outsider.
fn is_refused(what: &str, refusal: &v1::Refusal) {
    assert!(["access_denied", "channel_refused"].contains(&refusal.code.as_str()), "{what}: {refusal:?}");
}

/// What is about the channel alone says that it was refused. Returns how many denials the answer is: one or none.
fn denials_in(what: &str, method: &str, bytes: Bytes) -> usize {
    match method {
        "Query" => {
            let reply = v1::QueryReply::decode(bytes).unwrap();
            let public = [
                "channels", "accounts", "explain", "founded", "nodes", "accused", "audit", "epochs", "shards", "job",
                "policies", "admins", "engines",
            ];
            if public.iter().any(|kind| what.ends_with(kind)) {
                return 0;
            }
            let refusal = reply.refusal.unwrap_or_else(|| panic!("{what}: it was answered"));
            is_refused(what, &refusal);
            assert!(reply.values.is_empty() && reply.proof.is_empty());
            1
        }
        "Command" => {
            is_refused(what, &v1::CommandReply::decode(bytes).unwrap().refusal.expect(what));
            1
        }
        "Submit" => {
            let events = v1::SubmitEvents::decode(bytes).unwrap().events;
            assert!(!events.is_empty(), "{what}: it is told nothing");
            for event in events {
                let Some(v1::submit_event::Event::Refusal(refusal)) = event.event else { panic!("{what}: {event:?}") };
                is_refused(what, &refusal);
            }
            1
        }
        _ => 0,
    }
}

impl Scene {
    /// Every call of a router, about the channel, by somebody of organisation C; each must be denied, and that be
    /// logged, or be of what everybody may know.
    pub async fn knocks(&self, who: &str, door: &Channel) {
        // Whoever hosts the channel judges what the router hands on.
        let nodes = self.cluster.node_ids();
        let (before, mut denied) = (self.noted(&nodes, C), 0);
        for method in methods("Router") {
            for (what, message) in self.to_router(who, &method) {
                let bytes = match call(door, &method, message).await {
                    Ok(Some(bytes)) => bytes,
                    Err(status) if status.code() == tonic::Code::PermissionDenied => {
                        denied += 1;
                        continue;
                    }
                    other => panic!("{what}: {other:?}"),
                };
                // The id of what somebody sends is its own; what it learns must not be more.
                if short(&method) != "Submit" {
                    self.is_clean(&what, &bytes);
                }
                denied += denials_in(&what, short(&method), bytes);
            }
        }
        assert!(denied > 0, "{who} was denied nothing");
        self.is_noted(who, &nodes, C, before + denied).await;
    }

    /// Every call between nodes, about the channel, to the node `at` by somebody who has no part in it: by a node
    /// with a certificate as good as any, or by a router. What is denied, that node logs. Returns what was denied by
    /// whoever leads: a follower sends transactions and commands to the leader without looking at them.
    async fn breaks_in(&self, by: Burglar, at: NodeId, door: &Channel) -> BTreeSet<&'static str> {
        let (who, before) = (format!("a {by:?} outside at node {at}"), self.noted(&[at], C));
        let (mut denied, mut by_leader) = (0, BTreeSet::new());
        for method in methods("Node") {
            for (what, message) in self.to_node(&who, &method, at) {
                let answer = call(door, &method, message).await;
                let at_the_door = match short(&method) {
                    "Raft" => true,
                    // Between nodes, whatever it is about; what a node may say of a group, its driver judges.
                    "Link" | "Clock" => by == Burglar::Router,
                    _ => false,
                };
                if at_the_door {
                    is_denied_at_the_door(&what, answer);
                    denied += 1;
                    continue;
                }
                let bytes = answer.unwrap_or_else(|status| panic!("{what}: {status:?}")).expect(&what);
                match short(&method) {
                    "Read" => {
                        self.is_clean(&what, &bytes);
                        let reply = v1::QueryReply::decode(bytes).unwrap();
                        let refusal = reply.refusal.unwrap_or_else(|| panic!("{what}: it was answered"));
                        // What it says of its caller is not looked at any further: it may speak for nobody here.
                        assert_eq!(refusal.code, "access_denied", "{what}: {refusal:?}");
                        assert!(reply.values.is_empty() && reply.proof.is_empty(), "{what}");
                        denied += 1;
                    }
                    "Ingest" | "Command" if bytes.windows(10).any(|part| part == b"not_leader") => {}
                    "Ingest" => {
                        let event = v1::SubmitEvents::decode(bytes).unwrap().events.remove(0).event;
                        let Some(v1::submit_event::Event::Refusal(refusal)) = event else {
                            panic!("{what}: {event:?}")
                        };
                        assert_eq!(refusal.code, "access_denied", "{what}: {refusal:?}");
                        denied += 1;
                        by_leader.insert("ingest");
                    }
                    "Command" => {
                        let refusal = v1::CommandReply::decode(bytes).unwrap().refusal.expect(&what);
                        assert_eq!(refusal.code, "access_denied", "{what}: {refusal:?}");
                        denied += 1;
                        by_leader.insert("command");
                    }
                    "Follow" => {
                        self.is_clean(&what, &bytes);
                        let reply = v1::FollowReply::decode(bytes).unwrap();
                        assert!(reply.foundations.is_empty(), "{what}: how the channel began is for its nodes");
                    }
                    _ => self.is_clean(&what, &bytes),
                }
            }
        }
        self.is_noted(&who, &[at], C, before + denied).await;
        by_leader
    }

    /// As [`Scene::breaks_in`], at all of these nodes, until what a leader alone judges was denied by one: who leads
    /// may change meanwhile.
    pub async fn breaks_in_everywhere(&self, by: Burglar, identity: &Identity, nodes: &[NodeId]) {
        let doors: Vec<(NodeId, Channel)> = nodes.iter().map(|node| (*node, self.back_door(*node, identity))).collect();
        let mut denied = BTreeSet::<&'static str>::new();
        eventually("a leader denies transactions and commands", async || {
            for (node, door) in &doors {
                denied.extend(Box::pin(self.breaks_in(by, *node, door)).await);
            }
            let missing = ["ingest", "command"].into_iter().find(|what| !denied.contains(what));
            missing.map_or(Ok(()), |what| Err(format!("no {what} of a {by:?} came to a leader")))
        })
        .await;
        for (node, door) in &doors {
            for asked in by.asks() {
                self.is_unanswered(by, *node, door, *asked).await;
            }
        }
    }

    /// Asks a node for this until its log says that it was not answered.
    async fn is_unanswered(&self, by: Burglar, at: NodeId, door: &Channel, asked: Asked) {
        let (who, method) = (format!("a {by:?} outside at node {at}"), asked.method());
        eventually("who asks without a seat is in the log", async || {
            if self.noted_unanswered(at, (by == Burglar::Node).then_some(OUTSIDE), asked) {
                return Ok(());
            }
            for (what, message) in self.to_node(&who, method, at) {
                call(door, method, message).await.map_err(|status| format!("{what}: {status:?}"))?;
            }
            Err(format!("{who}: {asked:?}"))
        })
        .await;
    }
}

/// The calls of [`raft_calls`] are what replicas say to each other: where the node has a seat, they are answered.
pub async fn a_member_answers(cluster: &TestCluster, door: &Channel, group: GroupId, at: NodeId) {
    assert!(cluster.genesis.committee(group).unwrap().index_of(OUTSIDE).is_some(), "it has a seat in {group}");
    let questions = |kind: u32| kind >= 8 && kind != BFT_MESSAGES && kind != SNAPSHOT_MEET;
    for (kind, payload) in raft_calls(OUTSIDE, at).into_iter().filter(|(kind, _)| questions(*kind)) {
        let request = v1::RaftRequest { group: group.0, kind, payload }.encode_to_vec();
        let answer = call(door, "/seamark.v1.Node/Raft", request.into()).await;
        assert!(matches!(answer, Ok(Some(_))), "raft {kind}: {answer:?}");
    }
}
