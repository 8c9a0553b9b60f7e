//! A member is removed, and a certificate revoked, while a transaction that they handed over waits for another group's
//! vote: over the streams that stand they hear that they are told nothing any more, and nothing later. The nodes are in
//! this process: one that leads is made to hand over, which no call asks for.

use std::collections::VecDeque;

use bytes::Bytes;
use channel::{Change, Command};
use client::{Wait, net};
use consensus::sequencer::Sequencer;
use ledger::{Condition, Hash32, LedgerId, Move, NodeId, OrgId, SignedTx, Slot};
use proto::v1;
use proto::v1::submit_event::Event;
use seamark_cli::setup::Subject;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::isolation::{A, B, C, INSIDE, OUTSIDE, Scene};
use crate::support::bank::body;
use crate::support::consortium::Consortium;
use crate::support::{eventually, in_time};

/// The certificate of a client of A that is revoked, and of one that is not.
const STOLEN: Hash32 = Hash32([9; 32]);
const KEPT: Hash32 = Hash32([8; 32]);

/// A stream of hand-overs to one node, as a router of an organisation keeps it, for one client of the same.
struct Stream {
    group: u64,
    caller: v1::Caller,
    batches: mpsc::Sender<v1::IngestBatch>,
    answers: tonic::Streaming<v1::SubmitEvents>,
    heard: VecDeque<v1::SubmitEvent>,
}

impl Stream {
    async fn open(scene: &Scene, leader: NodeId, org: OrgId, credential: Hash32) -> Self {
        let name = &scene.cluster.genesis.orgs.iter().find(|known| known.id == org).unwrap().name;
        let subject = Subject::router("router-x", name, Vec::new());
        let identity = scene.cluster.authority(name).issue(&subject).unwrap().identity();
        let (batches, outgoing) = mpsc::channel(4);
        let mut node = net::node_client(scene.back_door(leader, &identity));
        let opened = in_time("a stream", node.ingest(ReceiverStream::new(outgoing))).await;
        let credential = Bytes::copy_from_slice(&credential.0);
        let caller = v1::Caller { org: org.0.into(), role: "client".to_owned(), credential };
        let (group, heard) = (scene.channel.0, VecDeque::new());
        Self { group, caller, batches, answers: opened.unwrap().into_inner(), heard }
    }

    async fn send(&self, tx: &Bytes) {
        let (group, txs, caller) = (self.group, vec![tx.clone()], Some(self.caller.clone()));
        self.batches.send(v1::IngestBatch { group, txs, notify_applied: true, caller }).await.unwrap();
    }

    async fn hears(&mut self) -> Event {
        loop {
            if let Some(event) = self.heard.pop_front() {
                return event.event.expect("an event");
            }
            let answer = in_time("an answer", self.answers.message()).await.unwrap();
            self.heard.extend(answer.expect("the stream stands").events);
        }
    }

    async fn is_refused(&mut self) -> v1::Refusal {
        match self.hears().await {
            Event::Refusal(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }
}

/// The payer pays in the channel if it consents on the main ledger, which nobody has asked yet.
fn swap(scene: &Scene) -> Bytes {
    let (from, to, asset) = (scene.payer.address, scene.payee.address, scene.bank.asset);
    let consent = Move::Check { account: from, condition: Condition::Consent };
    let mut body = body(scene.cluster.genesis.cluster_id(), 200, [consent]);
    let mv = Move::Pay { from, to, asset, amount: 1 };
    body.slots.push(Slot::Clear { ledger: LedgerId::of_channel(scene.channel), mv });
    SignedTx::sign(&body, &[&scene.payer.key]).encode().into()
}

/// A node that leads the channel and stays in it.
async fn leader_that_stays(scene: &Scene) -> NodeId {
    eventually("a node that stays leads", async || {
        let leader = scene.cluster.leader(scene.channel).await;
        if leader != OUTSIDE {
            return Ok(leader);
        }
        let replica = scene.cluster.node(OUTSIDE).hosted().group(scene.channel.0).ok_or("it hosts it no more")?;
        replica.engine.transfer_leader(INSIDE).await.map_err(|error| error.to_string())?;
        Err("not yet".to_owned())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_shut_out_while_a_swap_waits_is_told_that_and_nothing_later() {
    let hosts: [(OrgId, &[NodeId]); 3] = [(A, &[INSIDE, NodeId(4)]), (B, &[NodeId(2)]), (C, &[OUTSIDE])];
    let scene = Scene::set_in_this_process(&hosts, &[A, B]).await;
    let (leader, tx) = (leader_that_stays(&scene).await, swap(&scene));
    let mut member = Stream::open(&scene, leader, A, KEPT).await;
    let mut removed = Stream::open(&scene, leader, C, KEPT).await;
    let mut revoked = Stream::open(&scene, leader, A, STOLEN).await;
    for stream in [&mut member, &mut removed, &mut revoked] {
        stream.send(&tx).await;
        let heard = stream.hears().await;
        assert!(matches!(&heard, Event::Vote(vote) if vote.yes && vote.group == scene.channel.0), "{heard:?}");
    }

    let consortium = Consortium::of(&scene.cluster);
    consortium.act(scene.channel, A, &Command::RevokeCertificate { credential: STOLEN }).await.unwrap();
    consortium.decide(scene.channel, Change::Remove { org: C }, &[A, B]).await;
    for (stream, why) in [(&mut removed, "channel_removed"), (&mut revoked, "channel_credential_revoked")] {
        let refusal = stream.is_refused().await;
        assert!(refusal.code == "channel_untold" && refusal.detail.contains(why), "{refusal:?}");
    }

    // A member hands it over to the main ledger, too, and it is carried out.
    let settled = Scene::member(&scene.cluster).submit_tx(tx.clone(), Vec::new(), Wait::Applied).await.unwrap();
    assert!(settled.committed(), "{settled:?}");
    let heard = member.hears().await;
    assert!(matches!(heard, Event::Receipt(_)), "{heard:?}");
    // What had been told them of that would come before the answer to this.
    for (stream, why) in [(&mut removed, "channel_removed"), (&mut revoked, "channel_credential_revoked")] {
        stream.send(&tx).await;
        let refusal = stream.is_refused().await;
        assert!(refusal.code == "channel_refused" && refusal.detail.contains(why), "{refusal:?}");
    }
}
