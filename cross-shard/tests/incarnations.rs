//! A group that was rebuilt goes on under a new incarnation. What the ended one certified, before or
//! after, is refused with its own code and moves nothing; what the living one sends continues the
//! streams where they were.

mod support;

use cross_shard::commit::Decision;
use cross_shard::{Bundle, Message, Vote};
use ledger::ids::{GroupId, TxId};
use ledger::{Hash32, Reject, schema};
use support::{Group, ack, bundle, credit, with_view};

const SOURCE: GroupId = GroupId::shard(0);
const DEST: GroupId = GroupId::shard(1);

fn vote(decision: Decision) -> Vec<u8> {
    let vote = Vote { txid: TxId(Hash32([1; 32])), tx: b"a signed transaction".to_vec(), legs: vec![0], decision };
    Message::Vote(vote).encode()
}

/// Makes a committee known and the one in force, as the beacon's mail does.
fn follow(group: &mut Group, of: &Group) {
    group.learn(&of.committee);
    with_view(&mut group.state, |view| view.store(schema::current_committee(of.id), &of.committee));
}

/// A source whose first life and second life both continue the same stream, and a destination.
fn lives() -> (Group, Group, Group, Vec<Vec<u8>>) {
    let (mut first, mut dest) = (Group::new(0), Group::new(1));
    follow(&mut dest, &first);
    follow(&mut first, &dest);
    let sent = vec![credit(0).encode(), vote(Decision::Yes), vote(Decision::No(Reject::Conflict))];
    for message in &sent {
        first.emit(DEST, message.clone());
    }
    let mut second = Group::of_incarnation(0, 1);
    second.state = first.state.clone();
    (first, second, dest, sent)
}

#[test]
fn a_bundle_of_an_ended_incarnation_is_refused_and_the_living_one_continues_the_stream() {
    let (mut first, mut second, mut dest, sent) = lives();
    let (old, new) = (first.certify(), second.certify());
    let part = |at, from, to| bundle(at, &sent, DEST, from, to);
    assert_eq!(dest.deliver(&part(&old, 0, 1)), (Ok(vec![(0, credit(0))]), true), "it was alive then");
    follow(&mut dest, &second);
    // Also what it had certified while it lived, and what its replicas sign now.
    let posthumous = first.certify();
    for at in [&old, &posthumous] {
        assert_eq!(dest.deliver(&part(at, 1, 3)), (Err(Reject::DeadIncarnation), false));
        assert_eq!(dest.deliver(&part(at, 0, 3)), (Err(Reject::DeadIncarnation), false), "however it is cut");
        assert_eq!(dest.deliver(&part(at, 0, 1)), (Ok(vec![]), false), "what was taken is not looked at");
    }
    assert_eq!(dest.cursor(SOURCE), 1);
    let (taken, wrote) = dest.deliver(&part(&new, 1, 3));
    assert_eq!((taken.map(|taken| taken.len()), wrote), (Ok(2), true), "the sequences continue");
    assert_eq!(dest.deliver(&part(&new, 0, 3)), (Ok(vec![]), false), "and nothing is taken twice");
}

#[test]
fn a_vote_cannot_be_replayed_from_one_incarnation_into_another() {
    let (mut first, mut second, mut dest, sent) = lives();
    follow(&mut dest, &second);
    let genuine = bundle(&second.certify(), &sent, DEST, 0, 3);
    let old = bundle(&first.certify(), &sent, DEST, 0, 3);
    // The very same vote, under a header that claims to be of the living incarnation.
    let mut relabelled = old.clone();
    relabelled.certificate.header.incarnation = second.committee.incarnation;
    assert_eq!(dest.deliver(&relabelled), (Err(Reject::MailForged), false));
    relabelled.certificate.header.committee_hash = second.committee.hash();
    assert_eq!(dest.deliver(&relabelled), (Err(Reject::MailForged), false));
    // The living one's header with the dead one's signatures, and its stream under the dead one's.
    let mut signed = genuine.clone();
    signed.certificate.signatures.clone_from(&old.certificate.signatures);
    assert_eq!(dest.deliver(&signed), (Err(Reject::MailForged), false));
    let under_dead = Bundle { certificate: old.certificate.clone(), ..genuine.clone() };
    assert_eq!(dest.deliver(&under_dead), (Err(Reject::DeadIncarnation), false));
    // A vote of its own making, put where another one stands.
    let mut swapped = genuine.clone();
    swapped.messages[1] = vote(Decision::No(Reject::Conflict));
    assert_eq!(dest.deliver(&swapped), (Err(Reject::MailForged), false));
    assert_eq!(dest.cursor(SOURCE), 0);
    assert_eq!(dest.deliver(&genuine).0.map(|taken| taken.len()), Ok(3));
}

#[test]
fn an_acknowledgement_by_an_ended_incarnation_drops_nothing() {
    let (mut source, mut first) = (Group::new(0), Group::new(1));
    follow(&mut source, &first);
    first.learn(&source.committee);
    let sent = vec![vote(Decision::Yes)];
    source.emit(DEST, sent[0].clone());
    assert!(first.deliver(&bundle(&source.certify(), &sent, DEST, 0, 1)).1);
    let proof = ack(&first.certify(), SOURCE).expect("it was taken");
    let mut second = Group::of_incarnation(1, 1);
    follow(&mut source, &second);
    assert_eq!(source.acknowledge(&proof), (Err(Reject::DeadIncarnation), false));
    assert!(source.state.contains_key(&schema::mail(DEST, 0)), "the living one may not have it");
    second.state = first.state.clone();
    let proof = ack(&second.certify(), SOURCE).expect("it was taken");
    assert_eq!(source.acknowledge(&proof), (Ok(1), true));
}
