//! Transactions that several groups vote on: what is handed to whom, and what clients hear, whatever
//! the groups answer and in whatever order.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::{Client, ClientError, GroupVote, Settled, Wait};
use ledger::{
    Address, AssetId, GroupId, Hash32, Height, LayoutVersion, LedgerId, Move, NodeId, Opening, Outcome, Reject, Slot,
    Submission, TxId,
};
use proto::v1;
use proto::v1::submit_event::Event;
use router::gateway::GatewayLimits;

use super::support::{self, Answer, Cluster, RunningRouter};
use super::{RawSender, raw_stream, soon};

const ZERO: GroupId = GroupId::shard(0);
const ONE: GroupId = GroupId::shard(1);
const BOTH: [GroupId; 2] = [ZERO, ONE];

/// A router whose deadlines a test can wait for.
fn impatient() -> GatewayLimits {
    GatewayLimits {
        receipt_within: Duration::from_millis(1500),
        applied_within: Duration::from_millis(1500),
        resend_after: Duration::from_millis(200),
        ..GatewayLimits::default()
    }
}

/// A cluster, its router, and one stream of a client without the SDK's own retries.
struct Scene {
    cluster: Cluster,
    router: RunningRouter,
    events: tonic::Streaming<v1::SubmitEvents>,
    sender: RawSender,
    txid: TxId,
    tx: Bytes,
}

impl Scene {
    /// Each shard is led by another node.
    async fn start(limits: GatewayLimits) -> Self {
        let cluster = Cluster::start().await;
        cluster.world.lead(ONE, 2);
        let router = cluster.router(limits).await;
        let (events, sender) = raw_stream(&cluster, &router.addr, 4).await;
        let swap = cluster.swap(1);
        let (txid, tx) = (swap.txid(&cluster.cluster_id()), Bytes::from(swap.encode()));
        Self { cluster, router, events, sender, txid, tx }
    }

    async fn send(&self, notify_applied: bool) {
        let batch = v1::SubmitBatch { txs: vec![self.tx.clone()], notify_applied };
        self.sender.0.send(batch).await.unwrap();
    }

    fn tell(&self, group: GroupId, event: v1::SubmitEvent) {
        self.cluster.world.tell(group, event);
    }

    /// The next event, which must be of the transaction.
    async fn next(&mut self) -> v1::SubmitEvent {
        next(&mut self.events, self.txid).await
    }

    async fn decided(&mut self) -> Vec<v1::Vote> {
        votes_of(self.next().await)
    }

    async fn refused(&mut self) -> (GroupId, Reject, String) {
        let event = self.next().await;
        let Some(Event::Refusal(refusal)) = event.event else { panic!("{event:?}") };
        (GroupId(event.group), refusal.reject().unwrap(), refusal.detail)
    }

    /// Nothing more comes: the stream ends, since everything has its fate.
    async fn ends(mut self) {
        drop(self.sender);
        let after = soon(self.events.message()).await.unwrap();
        assert!(after.is_none(), "{after:?}");
    }
}

async fn next(events: &mut tonic::Streaming<v1::SubmitEvents>, txid: TxId) -> v1::SubmitEvent {
    let mut batch = soon(events.message()).await.unwrap().unwrap().events;
    assert_eq!(batch.len(), 1, "{batch:?}");
    let event = batch.remove(0);
    assert_eq!(event.txid, txid.0.0.as_slice());
    event
}

fn votes_of(event: v1::SubmitEvent) -> Vec<v1::Vote> {
    let Some(Event::Decided(votes)) = event.event else { panic!("{event:?}") };
    votes.votes
}

fn vote(group: GroupId, no: Option<Reject>, height: u64) -> v1::Vote {
    v1::Vote::of(group, no, Some(Height(height)))
}

#[tokio::test(flavor = "multi_thread")]
async fn all_groups_are_asked_at_once_and_a_yes_from_each_decides() {
    let mut scene = Scene::start(GatewayLimits::default()).await;
    scene.send(false).await;
    // Neither has answered, and both have it.
    scene.cluster.world.until_handed(&BOTH, 1).await;
    let nodes: std::collections::BTreeSet<_> =
        scene.cluster.world.handed.lock().iter().map(|handed| (handed.group, handed.node.0)).collect();
    assert_eq!(nodes.into_iter().collect::<Vec<_>>(), [(ZERO, 1), (ONE, 2)]);
    scene.tell(ONE, support::vote(scene.txid, ONE, None));
    scene.tell(ZERO, support::vote(scene.txid, ZERO, None));
    assert_eq!(scene.decided().await, [vote(ZERO, None, 5), vote(ONE, None, 5)]);
    scene.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_no_decides_whatever_the_others_say_later() {
    let mut scene = Scene::start(GatewayLimits::default()).await;
    scene.cluster.world.answer(ONE, &[Answer::No(Reject::InsufficientFunds)]);
    scene.send(true).await;
    assert_eq!(scene.decided().await, [vote(ONE, Some(Reject::InsufficientFunds), 5)]);
    scene.cluster.world.until_handed(&[ZERO], 1).await;
    scene.tell(ZERO, support::vote(scene.txid, ZERO, None));
    // An abort is applied when it is decided: there is nothing to wait for.
    scene.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_group_that_can_be_reached_is_enough() {
    let mut scene = Scene::start(impatient()).await;
    // Nobody answers for the other one: its leader is gone, and nobody follows it.
    scene.cluster.stop_node(2);
    scene.cluster.world.answer(ZERO, &[Answer::Yes]);
    scene.send(false).await;
    scene.cluster.world.until_handed(&[ZERO], 1).await;
    assert_eq!(scene.cluster.world.handed_to(ONE), 0);
    // The votes went by mail, and the group that was reached knows the outcome.
    scene.tell(ZERO, support::receipt(scene.txid, ZERO, Outcome::Committed { mail: Vec::new() }));
    assert_eq!(scene.decided().await, [vote(ZERO, None, 5), v1::Vote::of(ONE, None, None)]);
    scene.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_is_heard_from_any_group_that_was_reached() {
    let mut scene = Scene::start(impatient()).await;
    scene.cluster.stop_node(2);
    scene.cluster.world.answer(ZERO, &[Answer::Yes]);
    scene.send(false).await;
    scene.cluster.world.until_handed(&[ZERO], 1).await;
    let outcome = Outcome::Aborted { group: ONE, reason: Reject::Conflict };
    scene.tell(ZERO, support::receipt(scene.txid, ZERO, outcome));
    let votes = scene.decided().await;
    assert_eq!(votes, [vote(ZERO, None, 5), v1::Vote::of(ONE, Some(Reject::Conflict), None)]);
    scene.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_is_asked_for_the_vote_that_the_old_one_owes() {
    let mut scene = Scene::start(GatewayLimits::default()).await;
    scene.cluster.world.answer(ZERO, &[Answer::Yes]);
    scene.cluster.world.answer(ONE, &[Answer::Silent, Answer::Yes]);
    scene.send(false).await;
    scene.cluster.world.until_handed(&BOTH, 1).await;
    scene.cluster.world.lead(ONE, 3);
    scene.cluster.world.cut_streams();
    assert_eq!(scene.decided().await, [vote(ZERO, None, 5), vote(ONE, None, 5)]);
    let handed = scene.cluster.world.handed.lock().clone();
    let of = |group| handed.iter().filter(move |handed| handed.group == group).map(|handed| handed.node.0);
    assert_eq!(of(ONE).collect::<Vec<_>>(), [2, 3]);
    assert!(of(ZERO).all(|node| node == 1), "the other group stays where it is");
    assert!(handed.iter().all(|handed| handed.bytes == scene.tx), "the same bytes every time");
    scene.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_dies_with_the_transaction_is_replaced() {
    let mut scene = Scene::start(GatewayLimits::default()).await;
    scene.cluster.world.answer(ZERO, &[Answer::Drop, Answer::Yes]);
    scene.cluster.world.answer(ONE, &[Answer::Drop, Answer::Drop, Answer::No(Reject::Frozen)]);
    scene.send(false).await;
    let votes = scene.decided().await;
    assert!(votes.contains(&vote(ONE, Some(Reject::Frozen), 5)), "{votes:?}");
    scene.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_by_all_is_the_fate_and_names_the_group() {
    for (answers, group, reject) in [
        ([Answer::Refuse(Reject::NotAuthorised); 2], ZERO, Reject::NotAuthorised),
        ([Answer::Refuse(Reject::PeerBusy), Answer::Refuse(Reject::Expired)], ONE, Reject::Expired),
        ([Answer::Refuse(Reject::UnknownGroup), Answer::Refuse(Reject::PeerBusy)], ZERO, Reject::UnknownGroup),
        ([Answer::Refuse(Reject::HiddenSlot), Answer::Waits], ZERO, Reject::HiddenSlot),
        ([Answer::Waits, Answer::Refuse(Reject::NotAuthorised)], ONE, Reject::NotAuthorised),
        ([Answer::Refuse(Reject::NotAuthorised), Answer::Refuse(Reject::Busy)], ONE, Reject::Busy),
    ] {
        let mut scene = Scene::start(GatewayLimits::default()).await;
        // One node leads both: whom it speaks for is what it says, not where it is.
        scene.cluster.world.lead(ONE, 1);
        for (group, answer) in BOTH.into_iter().zip(answers) {
            scene.cluster.world.answer(group, &[answer]);
        }
        scene.send(true).await;
        let told = scene.refused().await;
        assert_eq!((told.0, told.1), (group, reject), "{answers:?}");
        scene.ends().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_no_fate_once_another_group_has_voted() {
    for reject in [Reject::NotAuthorised, Reject::HiddenSlot, Reject::UnknownGroup, Reject::PeerBusy, Reject::Expired] {
        for refusal_first in [true, false] {
            let mut scene = Scene::start(GatewayLimits::default()).await;
            let (first, second) = if refusal_first { (ONE, ZERO) } else { (ZERO, ONE) };
            scene.send(false).await;
            scene.cluster.world.until_handed(&BOTH, 1).await;
            let refusal = v1::Refusal { leader_node: 2, ..v1::Refusal::of(reject) };
            let refusal = v1::SubmitEvent::refused(proto::edge::bytes_of(&scene.txid), refusal).by(ONE);
            let mut said = [(ZERO, support::vote(scene.txid, ZERO, None)), (ONE, refusal)];
            if refusal_first {
                said.reverse();
            }
            assert_eq!((said[0].0, said[1].0), (first, second));
            for (group, event) in said {
                scene.tell(group, event);
            }
            // The vote reaches the group that refused by mail, and it votes, too. What it does not tell
            // any more, the other one does.
            let outcome = Outcome::Aborted { group: ONE, reason: reject };
            scene.tell(ZERO, support::receipt(scene.txid, ZERO, outcome));
            assert_eq!(scene.decided().await, [vote(ZERO, None, 5), v1::Vote::of(ONE, Some(reject), None)]);
            scene.ends().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_outcome_is_reported_as_open() {
    // A group that never answers may have voted, so the refusal of the other one is not the fate; and
    // a YES without the other vote is none either.
    for (answer, words) in [
        (Answer::Refuse(Reject::HiddenSlot), "shard-0 refused: hidden_slot; shard-1 has not answered"),
        (Answer::Yes, "shard-0 has voted yes; shard-1 has not answered"),
        (Answer::Waits, "shard-0 waits for another vote; shard-1 has not answered"),
    ] {
        let mut scene = Scene::start(impatient()).await;
        scene.cluster.world.answer(ZERO, &[answer]);
        scene.send(false).await;
        let (group, reject, detail) = scene.refused().await;
        assert_eq!((group, reject), (GroupId(0), Reject::TooLate));
        assert!(detail.starts_with(words) && detail.contains("seamark tx"), "{detail}");
        let handed = (scene.cluster.world.handed_to(ZERO), scene.cluster.world.handed_to(ONE));
        assert!(handed.0 > 2 && handed.1 > 2, "both were asked again: {handed:?}");
        scene.ends().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_refused_is_asked_again_and_may_vote_then() {
    let mut scene = Scene::start(impatient()).await;
    scene.cluster.world.answer(ZERO, &[Answer::Yes]);
    scene.cluster.world.answer(ONE, &[Answer::Refuse(Reject::PeerBusy), Answer::Yes]);
    scene.send(false).await;
    assert_eq!(scene.decided().await, [vote(ZERO, None, 5), vote(ONE, None, 5)]);
    scene.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_hand_over_is_answered_by_the_receipt() {
    let mut scene = Scene::start(GatewayLimits::default()).await;
    scene.cluster.world.answer(ZERO, &[Answer::Known(Reject::InsufficientFunds)]);
    scene.send(false).await;
    assert_eq!(scene.decided().await, [vote(ZERO, Some(Reject::InsufficientFunds), 6)]);
    scene.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn applied_comes_when_every_group_has_applied() {
    let mut scene = Scene::start(impatient()).await;
    scene.cluster.world.answer(ZERO, &[Answer::Yes]);
    scene.cluster.world.answer(ONE, &[Answer::Yes]);
    scene.send(true).await;
    assert_eq!(scene.decided().await.len(), 2);
    let txid = scene.txid;
    let committed = Outcome::Committed { mail: vec![(ONE, 3)] };
    scene.tell(ZERO, support::receipt(txid, ZERO, committed.clone()));
    scene.tell(ZERO, support::applied(txid, ZERO));
    // Somebody else who sends it now hears at once that it is decided, and waits for the rest.
    let (mut events, sender) = raw_stream(&scene.cluster, &scene.router.addr, 1).await;
    sender.0.send(v1::SubmitBatch { txs: vec![scene.tx.clone()], notify_applied: true }).await.unwrap();
    assert_eq!(votes_of(next(&mut events, txid).await).len(), 2);
    // Until it has said so, a group is asked again.
    let before = scene.cluster.world.handed_to(ONE);
    scene.cluster.world.until_handed(&[ONE], before + 2).await;
    scene.tell(ONE, support::receipt(txid, ONE, committed));
    scene.tell(ONE, support::applied(txid, ONE));
    for event in [scene.next().await, next(&mut events, txid).await] {
        assert!(matches!(event.event, Some(Event::Applied(true))), "{event:?}");
    }
    assert!(scene.cluster.world.handed.lock().iter().all(|handed| handed.applied));
    scene.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credits_that_are_not_confirmed_in_time_leave_the_decision_as_it_is() {
    let mut scene = Scene::start(impatient()).await;
    scene.cluster.world.answer(ZERO, &[Answer::Yes]);
    scene.cluster.world.answer(ONE, &[Answer::Yes]);
    scene.send(true).await;
    assert_eq!(scene.decided().await.len(), 2);
    let (_, reject, detail) = scene.refused().await;
    assert_eq!(reject, Reject::TooLate);
    assert!(detail.contains("committed"), "{detail}");
    scene.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_shard_is_planned_again_and_the_others_keep_their_votes() {
    let mut scene = Scene::start(GatewayLimits::default()).await;
    scene.cluster.world.answer(ZERO, &[Answer::Yes]);
    scene.cluster.world.answer(ONE, &[Answer::Refuse(Reject::WrongShard)]);
    scene.send(false).await;
    scene.cluster.world.until_handed(&BOTH, 1).await;
    // Shard 1 has become shard 2, which node 3 leads.
    let two = GroupId::shard(2);
    scene.cluster.world.answer(two, &[Answer::Yes]);
    scene.cluster.world.lead(two, 3);
    scene.cluster.view.send_modify(|view| {
        let mut new = (**view).clone();
        let mut layout = (*new.layout).clone();
        layout.version = LayoutVersion(2);
        layout.shards[1].group = two;
        new.layout = Arc::new(layout);
        let committee = new.committees[&ONE].clone();
        new.committees.insert(two, ledger::Committee { group: two, ..committee });
        *view = Arc::new(new);
    });
    assert_eq!(scene.decided().await, [vote(ZERO, None, 5), vote(two, None, 5)]);
    assert_eq!(scene.cluster.world.handed_to(ZERO), 1);
    scene.ends().await;
}

/// A transaction whose two payments are both hidden, each for its shard, and their openings.
fn hidden_swap(cluster: &Cluster) -> (Bytes, TxId, [Opening; 2]) {
    let payers = [cluster.payer(0, 1), cluster.payer(1, 1)];
    let mut openings = payers.each_ref().map(|payer| {
        let mv = Move::Pay { from: payer.1, to: Address([9; 20]), asset: AssetId([1; 16]), amount: 1 };
        Opening { slot: 0, salt: Hash32([3; 32]), mv }
    });
    openings[1].slot = 1;
    let slots = BOTH.into_iter().zip(&openings).map(|(group, opening)| Slot::Hidden {
        ledger: LedgerId::MAIN,
        group,
        hash: opening.hash(),
    });
    let tx = cluster.signed(9, slots.collect(), &[&payers[0].0, &payers[1].0]);
    (tx.encode().into(), tx.txid(&cluster.cluster_id()), openings)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_group_is_given_its_own_openings_alone() {
    let cluster = Cluster::start().await;
    cluster.world.answer(ZERO, &[Answer::Yes]);
    cluster.world.answer(ONE, &[Answer::Yes]);
    let router = cluster.router(GatewayLimits::default()).await;
    let client = Client::connect(&cluster.profile(&[&router.addr])).await.unwrap();
    let (tx, txid, openings) = hidden_swap(&cluster);
    let settled = soon(client.submit_tx(tx.clone(), openings.to_vec(), Wait::Receipt)).await.unwrap();
    let votes = BOTH.map(|group| GroupVote { group, no: None, height: Some(Height(5)) });
    assert_eq!(settled, Settled::Votes { txid, votes: votes.to_vec() });
    let handed = cluster.world.handed.lock().clone();
    for (group, opening) in BOTH.into_iter().zip(openings) {
        let bytes = &handed.iter().find(|handed| handed.group == group).unwrap().bytes;
        assert_eq!(Submission::split(bytes).unwrap(), (tx.to_vec(), vec![opening]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parties_may_bring_their_openings_one_by_one() {
    let scene = Scene::start(GatewayLimits::default()).await;
    let (tx, txid, openings) = hidden_swap(&scene.cluster);
    scene.cluster.world.answer(ONE, &[Answer::Refuse(Reject::HiddenSlot), Answer::Yes]);
    let with = |opening: &Opening| Bytes::from(Submission::encode(tx.to_vec(), vec![opening.clone()]));
    let (mut first, first_sender) = raw_stream(&scene.cluster, &scene.router.addr, 1).await;
    first_sender.send(vec![with(&openings[0])]).await.unwrap();
    scene.cluster.world.until_handed(&BOTH, 1).await;
    // The second party: its group gets the transaction again, the other one has what it needs.
    let (mut second, second_sender) = raw_stream(&scene.cluster, &scene.router.addr, 1).await;
    second_sender.send(vec![with(&openings[1])]).await.unwrap();
    scene.cluster.world.until_handed(&[ONE], 2).await;
    let handed = scene.cluster.world.handed.lock().clone();
    let last = handed.iter().rfind(|handed| handed.group == ONE).unwrap();
    assert_eq!(last.bytes, with(&openings[1]));
    assert_eq!(scene.cluster.world.handed_to(ZERO), 1);
    scene.tell(ZERO, support::vote(txid, ZERO, None));
    for events in [&mut first, &mut second] {
        assert_eq!(votes_of(next(events, txid).await).len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_group_could_decide_is_refused_by_the_router() {
    // Of a channel that is not there nobody will ever hear.
    let short = GatewayLimits { heard_within: Duration::from_millis(1), ..GatewayLimits::default() };
    let mut scene = Scene::start(short).await;
    let (key, from) = scene.cluster.payer(0, 1);
    let pay = |ledger: LedgerId| {
        let amount = u128::from(ledger.0) + 1;
        let mv = Move::Pay { from, to: Address([9; 20]), asset: AssetId([1; 16]), amount };
        Slot::Clear { ledger, mv }
    };
    let spec = ledger::AssetSpec { issuer: from, symbol: "X".into(), name: String::new(), decimals: 0 };
    let issue = Slot::Clear { ledger: LedgerId::BEACON, mv: Move::Issue(spec) };
    let channel = pay(LedgerId::of_channel(GroupId::channel(7)));
    for (slots, expected) in [
        (vec![pay(LedgerId::MAIN), issue], Reject::MultiVoter),
        (vec![pay(LedgerId::MAIN), channel.clone()], Reject::UnknownGroup),
        (vec![channel], Reject::UnknownGroup),
    ] {
        let tx = scene.cluster.signed(3, slots, &[&key]);
        scene.txid = tx.txid(&scene.cluster.cluster_id());
        scene.sender.send(vec![tx.encode().into()]).await.unwrap();
        let (group, reject, _) = scene.refused().await;
        assert_eq!((group, reject), (GroupId(0), expected));
    }
    assert!(scene.cluster.world.handed.lock().is_empty());
    scene.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_asks_every_group_and_names_those_that_do_not_answer() {
    let cluster = Cluster::start().await;
    let limits = GatewayLimits { read_within: Duration::from_millis(600), ..GatewayLimits::default() };
    let router = cluster.router(limits).await;
    let client = Client::connect(&cluster.profile(&[&router.addr])).await.unwrap();
    let receipt = client.submit(cluster.payment(1).encode()).await.unwrap().receipt().unwrap().clone();
    let known = client.explain(receipt.txid).await.unwrap();
    assert_eq!(known.iter().map(|known| (known.group, known.stale)).collect::<Vec<_>>(), [(receipt.group, false)]);
    assert_eq!(known[0].receipt.as_ref(), Some(&receipt));
    assert!(client.explain(TxId::default()).await.unwrap().is_empty());

    // Without a leader a group cannot say what is, but any of its replicas what was.
    cluster.world.leaders.lock().remove(&receipt.group);
    let known = client.explain(receipt.txid).await.unwrap();
    assert_eq!(known.iter().map(|known| (known.group, known.stale)).collect::<Vec<_>>(), [(receipt.group, true)]);

    // A group of which no node answers is not taken for one that knows nothing.
    let silent = if receipt.group == ZERO { ONE } else { ZERO };
    cluster.view.send_modify(|view| {
        let mut new = (**view).clone();
        let committee = new.committees.get_mut(&silent).unwrap();
        committee.members.truncate(1);
        committee.members[0].node = NodeId(9);
        *view = Arc::new(new);
    });
    let known = client.explain(TxId::default()).await.unwrap();
    let [only] = &known[..] else { panic!("{known:?}") };
    assert_eq!((only.group, only.receipt.is_none(), only.prepared.is_none()), (silent, true, true));
    assert_eq!(only.unanswered.as_ref().unwrap().code, "unanswered");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_tells_who_said_no_and_survives_its_router() {
    let cluster = Cluster::start().await;
    let first = cluster.router(GatewayLimits::default()).await;
    let second = cluster.router(GatewayLimits::default()).await;
    let client = Client::connect(&cluster.profile(&[&first.addr, &second.addr])).await.unwrap();
    let (one, two) = (cluster.payer(0, 4), cluster.payer(1, 4));
    let pay = |from, to| (LedgerId::MAIN, Move::Pay { from, to, asset: AssetId([1; 16]), amount: 1 });
    cluster.world.answer(ZERO, &[Answer::Yes]);
    cluster.world.answer(ONE, &[Answer::No(Reject::Conflict)]);
    let moves = vec![pay(one.1, two.1), pay(two.1, one.1)];
    let error = soon(client.execute(moves.clone(), b"", &[&one.0, &two.0], Wait::Applied)).await.unwrap_err();
    let ClientError::Rejected { group, reject, settled } = &error else { panic!("{error:?}") };
    assert_eq!((*group, *reject, settled.no()), (ONE, Reject::Conflict, Some((ONE, Reject::Conflict))));
    assert_eq!((error.code(), error.retryable()), ("conflict", false));

    // The router dies with the transaction; the next one hands it over again and hears the votes.
    cluster.world.answer(ZERO, &[Answer::Silent]);
    cluster.world.answer(ONE, &[Answer::Silent]);
    let before = cluster.world.handed_to(ONE);
    let executing = tokio::spawn(async move { client.execute(moves, b"", &[&one.0, &two.0], Wait::Receipt).await });
    cluster.world.until_handed(&[ONE], before + 1).await;
    cluster.world.answer(ZERO, &[Answer::Yes]);
    cluster.world.answer(ONE, &[Answer::Yes]);
    first.kill();
    let settled = soon(executing).await.unwrap().unwrap();
    assert!(settled.committed() && settled.receipt().is_none());
}
