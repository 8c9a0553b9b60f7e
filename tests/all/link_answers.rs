//! What replicas tell each other outside consensus, over links: signatures, certificates, mail. Links go one way, so
//! whatever a replica says to that goes to the port of the node that has asked. Here the test has that port, and asks
//! with the node's certificate what is not its business, or not any more.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use beacon::audit::Twice;
use beacon::jobs::{JobReport, Said, SealedProof};
use beacon::{AuditEntry, Readiness};
use channel::Change;
use client::{Consistency, Settled, Wait, net};
use cross_shard::{AckProof, Bundle, StreamLeaf};
use ledger::ballot::{BALLOT_VERSION, Ballot, BallotKind, Equivocation};
use ledger::merkle::MerklePath;
use ledger::{
    Attestation, Certificate, GroupId, Hash32, Header, Height, Incarnation, JobId, LedgerId, Move, NodeId, Receipt,
    SecretKey,
};
use proto::v1;
use shard_node::core::peer::{HeadProof, PeerMessage};
use tonic::transport::Channel;

use crate::isolation::{A, B, C, INSIDE, OUTSIDE, Scene};
use crate::support::consortium::Consortium;
use crate::support::decoy::{Decoy, Heard};
use crate::support::eventually;

/// Groups of the genesis in which the node outside has a seat.
const SEATS: [GroupId; 2] = [GroupId::BEACON, GroupId::shard(0)];
/// Nodes that host the channel, and go on doing so.
const HOSTS: [NodeId; 3] = [INSIDE, NodeId(2), NodeId(4)];
/// Kinds of messages.
const KINDS: usize = 20;

/// Whoever has the key of [`OUTSIDE`].
struct Asker {
    scene: Scene,
    decoy: Decoy,
    doors: BTreeMap<NodeId, Channel>,
    /// How often each group was asked.
    turns: RefCell<BTreeMap<GroupId, usize>>,
}

impl Asker {
    async fn of(mut scene: Scene) -> Self {
        for group in SEATS {
            let committee = scene.cluster.genesis.committee(group).unwrap();
            assert!(committee.index_of(OUTSIDE).is_some(), "it has a seat in {group}");
        }
        let identity = scene.cluster.node_identity(OUTSIDE);
        let doors = scene.cluster.node_ids().into_iter().map(|node| (node, scene.back_door(node, &identity))).collect();
        let decoy = Decoy::instead_of(OUTSIDE, &mut scene.cluster).await;
        Self { scene, decoy, doors, turns: RefCell::default() }
    }

    /// The other nodes of a group of the genesis.
    fn others_in(&self, group: GroupId) -> Vec<NodeId> {
        let committee = self.scene.cluster.genesis.committee(group).unwrap();
        committee.members.iter().map(|member| member.node).filter(|node| *node != OUTSIDE).collect()
    }

    /// Puts questions to the replicas of a group on these nodes. Returns all that was heard until every one of them
    /// has answered the last question, which is whether it will serve a group in which the asker has a seat.
    async fn ask(&self, at: &[NodeId], group: GroupId, questions: &[PeerMessage]) -> Vec<Heard> {
        // Every other time for another group, so that no answer of the last time is taken for one of this time.
        let turn = {
            let mut turns = self.turns.borrow_mut();
            let turn = turns.entry(group).or_default();
            *turn += 1;
            *turn
        };
        let dest = SEATS[turn % SEATS.len()];
        let last = PeerMessage::Pull { dest, node: OUTSIDE, next_seq: u64::MAX, ack: None };
        let before = self.decoy.count();
        eventually("all have answered the last question", async || {
            let heard = self.decoy.since(before);
            let answers =
                |heard: &Heard| heard.group == dest && heard.message() == PeerMessage::Serving { source: group };
            let has_answered = |node: NodeId| heard.iter().any(|heard| heard.from == node && answers(heard));
            let silent: Vec<NodeId> = at.iter().copied().filter(|node| !has_answered(*node)).collect();
            for node in &silent {
                let frames = questions
                    .iter()
                    .chain([&last])
                    .map(|message| v1::LinkFrame { group: group.0, payload: message.encode().into() });
                let batch = v1::LinkBatch { frames: frames.collect() };
                let link = net::node_client(self.doors[node].clone()).link(tokio_stream::iter([batch])).await;
                link.map_err(|status| status.to_string())?;
            }
            if silent.is_empty() { Ok(heard) } else { Err(format!("{silent:?} are silent")) }
        })
        .await
    }

    /// A message of every kind, as a member's node might send it to a replica of the channel, with this header in it
    /// where one belongs; and questions about what that node has no business to know.
    fn messages(&self, header: &Header) -> Vec<PeerMessage> {
        let (channel, height) = (self.scene.channel, header.height);
        let signature = SecretKey::derive(b"nobody", b"").sign(&Hash32([7; 32]));
        let attestation =
            Attestation { group: channel, height, header_hash: Hash32([7; 32]), node: OUTSIDE, signature };
        let certificate = Certificate { version: 1, header: header.clone(), signatures: Vec::new() };
        let shown = certificate.clone();
        let leaf = StreamLeaf { peer: channel, next_seq: 0, head: Hash32::ZERO };
        let path = MerklePath { index: 0, count: 1, siblings: Vec::new() };
        let ack = AckProof { version: 1, leaf, path: path.clone(), certificate: certificate.clone() };
        let pull = |node| PeerMessage::Pull { dest: channel, node, next_seq: 0, ack: None };
        let sealed = SealedProof {
            version: 1,
            job: JobId(1),
            certificate: certificate.clone(),
            inbox: Vec::new(),
            roots: Vec::new(),
            shapes: Vec::new(),
        };
        vec![
            PeerMessage::Attest { attestation, wants_certificate: true },
            PeerMessage::Want { height },
            PeerMessage::Want { height: Height(1) },
            PeerMessage::Want { height: Height(u64::MAX / 2) },
            pull(OUTSIDE),
            pull(INSIDE),
            PeerMessage::Probe { dest: channel, next_seq: 0 },
            PeerMessage::Certified(certificate.clone()),
            PeerMessage::Serving { source: GroupId::shard(0) },
            PeerMessage::Bundle(Bundle {
                version: 2,
                source: GroupId::shard(0),
                dest: channel,
                first_seq: 0,
                messages: Vec::new(),
                proof: Vec::new(),
                leaf,
                path: path.clone(),
                certificate: certificate.clone(),
            }),
            PeerMessage::Ack(ack),
            PeerMessage::Checkpoint(certificate.clone()),
            PeerMessage::Head(HeadProof { version: 1, leaf, path, certificate: certificate.clone() }),
            PeerMessage::Ready(Readiness { version: 1, coming: Hash32::ZERO, certificate, signatures: Vec::new() }),
            PeerMessage::Evidence(self.evidence()),
            PeerMessage::Silence(beacon::Silence::sign(
                self.scene.cluster.genesis.cluster_id(),
                OUTSIDE,
                ledger::TimeMs(1),
                vec![NodeId(1)],
                &SecretKey::derive(b"nobody", b""),
            )),
            PeerMessage::WantTrail { after: None },
            PeerMessage::Audit(Box::new(AuditEntry::Twice(Twice::of(shown.clone(), shown)))),
            PeerMessage::Contribution(beacon::Contribution::sign(
                self.scene.cluster.genesis.cluster_id(),
                1,
                OUTSIDE,
                beacon::epochs::Part::Commitment(Hash32([7; 32])),
                &SecretKey::derive(b"nobody", b""),
            )),
            PeerMessage::Report(JobReport::sign(
                self.scene.cluster.genesis.cluster_id(),
                OUTSIDE,
                channel,
                ledger::TimeMs(1),
                Said::Open(JobId(1)),
                &SecretKey::derive(b"nobody", b""),
            )),
            PeerMessage::Sealed(sealed),
            PeerMessage::WantHeaders { after: Height(0) },
            PeerMessage::WantStreams { at: Height(0) },
        ]
    }

    /// Two ballots that the asker has signed, as if it were a member of the channel.
    fn evidence(&self) -> Equivocation {
        let key = SecretKey::derive(b"nobody", b"");
        let ballot = |value: u8| Ballot {
            version: BALLOT_VERSION,
            cluster: self.scene.cluster.genesis.cluster_id(),
            group: self.scene.channel,
            incarnation: Incarnation(0),
            committee: Hash32::ZERO,
            index: 1,
            round: 0,
            kind: BallotKind::Prevote,
            value: Some(Hash32([value; 32])),
            node: OUTSIDE,
        };
        Equivocation::of(ballot(1).sign(&key), ballot(2).sign(&key)).unwrap()
    }

    /// Questions to another group, for what it mails to the channel.
    fn for_mail(&self) -> [PeerMessage; 2] {
        let dest = self.scene.channel;
        [PeerMessage::Pull { dest, node: OUTSIDE, next_seq: 0, ack: None }, PeerMessage::Probe { dest, next_seq: 0 }]
    }

    /// That nothing of this was said to a replica of the channel, and nothing of the channel to any.
    fn is_nothing(&self, heard: &[Heard]) {
        for heard in heard {
            assert_ne!(heard.group, self.scene.channel, "node {}: {:?}", heard.from, heard.message());
            self.scene.is_clean(&format!("node {}", heard.from), &heard.payload);
        }
    }

    /// Pays in the channel.
    async fn pay(&self) -> Receipt {
        let ledger = LedgerId::of_channel(self.scene.channel);
        let pay = self.scene.bank.pay(&self.scene.payer, self.scene.payee.address, 1);
        let member = Scene::member(&self.scene.cluster);
        let settled = member.execute(vec![(ledger, pay)], b"", &[&self.scene.payer.key], Wait::Receipt).await.unwrap();
        let Settled::Receipt(receipt) = settled else { panic!("{settled:?}") };
        receipt
    }

    /// A block of the channel, once it is certified.
    async fn certified(&self, height: Height) -> Certificate {
        let member = Scene::member(&self.scene.cluster);
        eventually("the block is certified", async || {
            let answer = member.block(self.scene.channel, height).await.map_err(|error| error.to_string())?;
            answer.value.and_then(|block| block.certificate).ok_or_else(|| "not yet".to_owned())
        })
        .await
    }
}

/// Tells the kinds apart. A new one has to be among [`Asker::messages`].
fn kind(message: &PeerMessage) -> usize {
    match message {
        PeerMessage::Attest { .. } => 0,
        PeerMessage::Certified(_) => 1,
        PeerMessage::Pull { .. } => 2,
        PeerMessage::Serving { .. } => 3,
        PeerMessage::Bundle(_) => 4,
        PeerMessage::Ack(_) => 5,
        PeerMessage::Checkpoint(_) => 6,
        PeerMessage::Probe { .. } => 7,
        PeerMessage::Head(_) => 8,
        PeerMessage::Want { .. } => 9,
        PeerMessage::Ready(_) => 10,
        PeerMessage::Evidence(_) => 11,
        PeerMessage::Silence(_) => 12,
        PeerMessage::WantTrail { .. } => 13,
        PeerMessage::Audit(_) => 14,
        PeerMessage::Contribution(_) => 15,
        PeerMessage::Report(_) => 16,
        PeerMessage::Sealed(_) => 17,
        PeerMessage::WantHeaders { .. } => 18,
        PeerMessage::WantStreams { .. } => 19,
    }
}

/// The block of the channel that a message to its replica tells of.
fn block_in(message: &PeerMessage) -> Option<Height> {
    match message {
        PeerMessage::Attest { attestation, .. } => Some(attestation.height),
        PeerMessage::Certified(certificate) => Some(certificate.header.height),
        PeerMessage::Want { height } => Some(*height),
        PeerMessage::Pull { .. }
        | PeerMessage::Serving { .. }
        | PeerMessage::Bundle(_)
        | PeerMessage::Ack(_)
        | PeerMessage::Checkpoint(_)
        | PeerMessage::Probe { .. }
        | PeerMessage::Head(_)
        | PeerMessage::Ready(_)
        | PeerMessage::Evidence(_)
        | PeerMessage::Silence(_)
        | PeerMessage::WantTrail { .. }
        | PeerMessage::Audit(_)
        | PeerMessage::Contribution(_)
        | PeerMessage::Report(_)
        | PeerMessage::Sealed(_)
        | PeerMessage::WantHeaders { .. }
        | PeerMessage::WantStreams { .. } => None,
    }
}

/// Those of these nodes from which nothing was heard for a group that is as wanted.
fn missing(at: &[NodeId], heard: &[Heard], group: GroupId, wanted: impl Fn(&PeerMessage) -> bool) -> Vec<NodeId> {
    let from = |node: NodeId| {
        let all = heard.iter().filter(|heard| heard.from == node && heard.group == group);
        all.map(Heard::message).any(|message| wanted(&message))
    };
    at.iter().copied().filter(|node| !from(*node)).collect()
}

fn none(missing: &[NodeId]) -> Result<(), String> {
    if missing.is_empty() { Ok(()) } else { Err(format!("not from {missing:?}")) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_seat_in_a_channel_is_told_nothing_over_its_links() {
    let scene = Scene::set(&[(A, &[NodeId(1), NodeId(4)]), (B, &[NodeId(2)])], &[A, B]).await;
    let (channel, shard) = (scene.channel, GroupId::shard(0));
    let (from, asset) = (scene.payer.address, scene.bank.asset);
    let home = Move::Transfer { from, to: from, asset, amount: 1, ledger: LedgerId::MAIN };
    let moves = vec![(LedgerId::of_channel(channel), home)];
    Scene::member(&scene.cluster).execute(moves, b"", &[&scene.payer.key], Wait::Applied).await.unwrap();

    let asker = Asker::of(scene).await;
    // What is for a group in which it has a seat, it is told: that the channel has mailed something there.
    let probe = PeerMessage::Probe { dest: shard, next_seq: 0 };
    eventually("the channel's replicas tell of mail for the main ledger", async || {
        let heard = asker.ask(&HOSTS, channel, std::slice::from_ref(&probe)).await;
        none(&missing(&HOSTS, &heard, shard, |message| matches!(message, PeerMessage::Head(_))))
    })
    .await;

    let header = asker.certified(asker.scene.height).await.header;
    let messages = asker.messages(&header);
    assert_eq!(messages.iter().map(kind).collect::<BTreeSet<_>>().len(), KINDS, "every kind is tried");
    asker.is_nothing(&asker.ask(&HOSTS, channel, &messages).await);
    for group in SEATS {
        asker.is_nothing(&asker.ask(&asker.others_in(group), group, &asker.for_mail()).await);
    }
    // Nor was anything said to it unasked.
    asker.is_nothing(&asker.decoy.since(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_is_told_of_no_later_block_and_given_no_later_mail() {
    let scene = Scene::set(&[(A, &[NodeId(1), NodeId(4)]), (B, &[NodeId(2)]), (C, &[OUTSIDE])], &[A, B]).await;
    let asker = Asker::of(scene).await;
    let (scene, channel) = (&asker.scene, asker.scene.channel);
    // As long as it is a member, it is given all of that.
    let want = PeerMessage::Want { height: scene.height };
    eventually("members give each other certificates", async || {
        let heard = asker.ask(&HOSTS, channel, std::slice::from_ref(&want)).await;
        let wanted = |message: &PeerMessage| {
            matches!(message, PeerMessage::Certified(certificate) if certificate.header.height == scene.height)
        };
        none(&missing(&HOSTS, &heard, channel, wanted))
    })
    .await;
    for group in SEATS {
        let others = asker.others_in(group);
        eventually("a member is given the channel's mail", async || {
            let heard = asker.ask(&others, group, &asker.for_mail()).await;
            none(&missing(&others, &heard, channel, |message| matches!(message, PeerMessage::Head(_))))
        })
        .await;
    }

    Consortium::of(&scene.cluster).decide(channel, Change::Remove { org: C }, &[A, B]).await;
    let admin = Consortium::of(&scene.cluster).client(A);
    let since = eventually("the removal is proved", async || {
        let receipt = admin.exclusion(channel, C).await.map_err(|error| error.to_string())?;
        let receipt = receipt.ok_or_else(|| "not yet".to_owned())?;
        let verified =
            client::exclusion::verify(&receipt, &scene.cluster.genesis).map_err(|error| error.to_string())?;
        Ok::<_, String>(verified.exclusion.height)
    })
    .await;
    eventually("those who stay know", async || {
        let status = admin.status().await.map_err(|error| error.to_string())?;
        let knows = |node: NodeId| {
            let mut replicas =
                status.nodes.iter().filter(|reply| reply.node == node.0).flat_map(|reply| &reply.replicas);
            replicas.any(|replica| replica.group == channel.0 && replica.height >= since.0)
        };
        none(&HOSTS.into_iter().filter(|node| !knows(*node)).collect::<Vec<NodeId>>())
    })
    .await;
    let paid = asker.pay().await;
    assert!(paid.height > since);
    let header = asker.certified(paid.height).await.header;
    let heard = asker.ask(&HOSTS, channel, &asker.messages(&header)).await;
    let served = PeerMessage::Serving { source: channel };
    assert!(!heard.iter().any(|heard| heard.group == channel && heard.message() == served));
    let told = asker.decoy.since(0).into_iter().filter(|heard| heard.group == channel);
    let last = told.filter_map(|heard| block_in(&heard.message())).max();
    assert!(last.is_some_and(|height| height <= since), "it was told of block {last:?}, and removed in {since}");

    // Other groups hear of it with the channel's next committee. From then on they give it no mail of the channel.
    for group in SEATS {
        let others = asker.others_in(group);
        eventually("its seat is gone", async || {
            let heard = asker.ask(&others, group, &asker.for_mail()).await;
            let given = heard.iter().any(|heard| heard.group == channel && others.contains(&heard.from));
            if given { Err(format!("{group} gives it mail")) } else { Ok(()) }
        })
        .await;
    }
    let before = asker.decoy.count();
    scene.bank.fund([&scene.payer], 10).await;
    let (from, asset, ledger) = (scene.payer.address, scene.bank.asset, LedgerId::of_channel(channel));
    let bring = Move::Transfer { from, to: from, asset, amount: 10, ledger };
    scene.bank.execute(vec![bring], &[&scene.payer.key]).await.unwrap();
    let paid = asker.pay().await;
    for group in SEATS {
        asker.ask(&asker.others_in(group), group, &asker.for_mail()).await;
    }
    let header = asker.certified(paid.height).await.header;
    asker.ask(&HOSTS, channel, &asker.messages(&header)).await;
    // Certificates of blocks that it was a member in are no secret to it.
    let of_before = |heard: &Heard| {
        heard.group == channel
            && matches!(heard.message(), PeerMessage::Certified(certificate) if certificate.header.height <= since)
    };
    let heard = asker.decoy.since(before).into_iter().filter(|heard| !of_before(heard)).collect::<Vec<_>>();
    asker.is_nothing(&heard);
    // The money came in all the same.
    let member = Scene::member(&scene.cluster);
    let account = member.account_of(ledger, from, Consistency::Linearizable, false).await.unwrap().value.unwrap();
    let line = account.balances.iter().find(|line| line.0 == asset).unwrap();
    assert_eq!(line.1.posted, 1_000 - 77 - 2 + 10);
}
