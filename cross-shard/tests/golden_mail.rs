//! Golden vectors of everything that travels between groups, and of the state that counts it.

mod support;

use cross_shard::stream::{extend, message_hash, root};
use cross_shard::{AckProof, Bundle, InCursor, Message, OutStream, StreamLeaf};
use ledger::hash::Hash32;
use ledger::ids::{Address, GroupId};
use ledger::layout::Layout;
use ledger::{AssetDef, AssetSpec, merkle};
use support::vectors::Vectors;
use support::{Group, ack, bundle, credit};

const DEST: GroupId = GroupId::shard(1);

fn every_message() -> Vec<Message> {
    let spec = AssetSpec { issuer: Address([1; 20]), symbol: "EUR".to_owned(), name: "Euro".to_owned(), decimals: 2 };
    vec![
        credit(7),
        Message::AssetUpdate(AssetDef { version: 1, id: spec.id(), spec, frozen: true }),
        Message::CommitteeUpdate(Group::new(0).committee),
        Message::LayoutUpdate(Layout::even(3)),
    ]
}

/// A message without a vector does not compile here.
fn name_of(message: &Message) -> &'static str {
    match message {
        Message::Credit(_) => "message/credit",
        Message::AssetUpdate(_) => "message/asset update",
        Message::CommitteeUpdate(_) => "message/committee update",
        Message::LayoutUpdate(_) => "message/layout update",
    }
}

#[test]
fn messages() {
    let mut vectors = Vectors::open("messages.json");
    for message in every_message() {
        vectors.format(name_of(&message), &message, &message_hash(&message.encode()).to_string());
    }
    vectors.finish();
}

#[test]
fn streams() {
    let mut vectors = Vectors::open("streams.json");
    let chain = extend(&Hash32::ZERO, 0, &message_hash(&credit(0).encode()));
    vectors.pin("chain after the first message", &credit(0).encode(), &chain.to_string());
    let second = extend(&chain, 1, &message_hash(&credit(1).encode()));
    vectors.pin("chain after the second message", &credit(1).encode(), &second.to_string());
    vectors.format("outgoing", &OutStream { next_seq: 2, acked: 1, chain: second }, "");
    vectors.format("incoming", &InCursor { next_seq: 1, chain }, "");
    let leaf = |peer, next_seq| StreamLeaf { peer: GroupId::shard(peer), next_seq, chain: second };
    vectors.format("leaf", &leaf(1, 2), &leaf(1, 2).hash().to_string());
    let leaves = [leaf(1, 2), leaf(2, 3), leaf(3, 4)];
    let bytes = borsh::to_vec(&leaves).expect("writing to memory does not fail");
    vectors.pin("root of three", &bytes, &root(&leaves).to_string());
    vectors.pin("root of none", &[], &merkle::root(&[]).to_string());
    vectors.finish();
}

#[test]
fn bundles_and_acknowledgements() {
    let mut vectors = Vectors::open("bundles.json");
    let (mut source, mut dest) = (Group::new(0), Group::new(1));
    dest.learn(&source.committee);
    let sent: Vec<Vec<u8>> = every_message().iter().map(Message::encode).collect();
    for message in &sent {
        source.emit(DEST, message.clone());
    }
    source.emit(GroupId::shard(2), sent[0].clone());
    let at = source.certify();
    let header_hash = at.certificate.header.hash().to_string();
    let part: Bundle = bundle(&at, &sent, DEST, 0, 2);
    assert_eq!(dest.deliver(&part).0.map(|taken| taken.len()), Ok(2));
    vectors.format("bundle/first two of four", &part, &header_hash);
    vectors.format("bundle/whole", &bundle(&at, &sent, DEST, 0, 4), &header_hash);
    let at = dest.certify();
    let proof: AckProof = ack(&at, source.id).expect("mail was taken");
    vectors.format("acknowledgement", &proof, &at.certificate.header.hash().to_string());
    vectors.finish();
}
