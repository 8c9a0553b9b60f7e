//! Golden vectors of everything that travels between groups, and of the state that counts it.

mod support;

use cross_shard::commit::{Cast, Decision, Prepared, Received, Register, Resolved, Stamp};
use cross_shard::stream::{message_hash, root};
use cross_shard::{
    AckProof, AnchorsUpdate, Bundle, ChannelStatus, ChannelUpdate, Closed, ClosedStream, Ended, InCursor, Message,
    NodeEntry, OrgEntry, OutStream, Passed, RegistryUpdate, Reshaped, StreamLeaf, Vote,
};
use ledger::hash::Hash32;
use ledger::ids::{Address, AssetId, GroupId, Height, JobId, LedgerId, NodeId, OrgId, TimeMs, TxId};
use ledger::layout::{BitPrefix, Layout};
use ledger::lineage::{ChildShard, Seal};
use ledger::pair::Transfer;
use ledger::{AssetDef, AssetSpec, Reject, SecretKey, merkle};
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
        vote(Decision::Yes),
        vote(Decision::No(Reject::Conflict)),
        Message::Transfer(Transfer {
            txid: TxId(Hash32([1; 32])),
            move_index: 2,
            from: LedgerId::MAIN,
            to: LedgerId::of_channel(GroupId::channel(5)),
            account: Address([2; 20]),
            asset: AssetId([3; 16]),
            amount: 7,
        }),
        Message::CommitteePlan(Group::new(0).committee),
        Message::RegistryUpdate(RegistryUpdate {
            version: 1,
            orgs: vec![OrgEntry {
                org: OrgId(2),
                name: "acme".to_owned(),
                ca_hash: Hash32([4; 32]),
                admin_key: SecretKey::derive(b"admin", &[2]).public(),
            }],
            nodes: vec![NodeEntry { node: NodeId(3), org: OrgId(2), key: SecretKey::derive(b"node", &[3]).public() }],
            revoked: vec![(OrgId(2), Hash32([5; 32]))],
        }),
        Message::ChannelUpdate(ChannelUpdate {
            version: 2,
            members: vec![OrgId(1), OrgId(2)],
            nodes: vec![NodeId(1), NodeId(3)],
            anchors: vec![NodeId(3)],
            status: ChannelStatus::Frozen,
            engine: ledger::Engine::Bft,
        }),
        Message::Seal(Seal {
            version: 1,
            job: JobId(4),
            parents: vec![DEST],
            children: [2, 3].map(|ordinal| child(&reshaped_layout(), ordinal)).to_vec(),
            layout: reshaped_layout(),
        }),
        Message::Unseal(JobId(4)),
        Message::Reshaped(Reshaped {
            version: 1,
            job: JobId(4),
            layout: reshaped_layout(),
            committees: [2, 3].map(|ordinal| Group::new(ordinal).committee).to_vec(),
            ended: vec![Ended { group: DEST, taken: 6 }],
        }),
        Message::Closed(Closed { version: 1, source: DEST, dest: GroupId::shard(0), taken: 6 }),
        Message::AnchorsUpdate(AnchorsUpdate {
            version: 1,
            channel: GroupId::channel(5),
            anchors: vec![NodeId(1), NodeId(3)],
        }),
    ]
}

/// A layout of two shards of which the second was cut.
fn reshaped_layout() -> Layout {
    Layout::even(2).split(DEST, [2, 3].map(GroupId::shard)).expect("it can be cut")
}

fn child(layout: &Layout, ordinal: u32) -> ChildShard {
    let Group { id, committee, .. } = Group::new(ordinal);
    ChildShard { group: id, prefix: layout.prefix_of(id).expect("it lives"), committee }
}

fn vote(decision: Decision) -> Message {
    Message::Vote(Vote {
        txid: TxId(Hash32([1; 32])),
        tx: b"a signed transaction".to_vec(),
        legs: vec![0, 3],
        decision,
    })
}

/// A message without a vector does not compile here.
fn name_of(message: &Message) -> &'static str {
    match message {
        Message::Credit(_) => "message/credit",
        Message::AssetUpdate(_) => "message/asset update",
        Message::CommitteeUpdate(_) => "message/committee update",
        Message::CommitteePlan(_) => "message/committee plan",
        Message::LayoutUpdate(_) => "message/layout update",
        Message::Vote(Vote { decision: Decision::Yes, .. }) => "message/vote yes",
        Message::Vote(Vote { decision: Decision::No(_), .. }) => "message/vote no",
        Message::Transfer(_) => "message/transfer",
        Message::RegistryUpdate(_) => "message/registry update",
        Message::ChannelUpdate(_) => "message/channel update",
        Message::Seal(_) => "message/seal",
        Message::Unseal(_) => "message/unseal",
        Message::Reshaped(_) => "message/reshaped",
        Message::Closed(_) => "message/closed",
        Message::AnchorsUpdate(_) => "message/anchors update",
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
fn registers_and_what_a_group_knows_of_a_transaction() {
    let mut vectors = Vectors::open("commit.json");
    let at = |height| Stamp { height: Height(height), time_ms: TimeMs(1_700_000_000_000 + height) };
    for decision in [Decision::Yes, Decision::No(Reject::Expired)] {
        vectors.format(&format!("register/{decision:?}"), &Register { version: 1, decision, height: Height(3) }, "");
    }
    let mut record = Prepared {
        version: 2,
        txid: TxId(Hash32([1; 32])),
        tx: b"a signed transaction".to_vec(),
        openings: Vec::new(),
        voters: vec![GroupId::shard(0), GroupId::shard(1)],
        legs: vec![0, 2],
        valid_until_ms: at(60_000).time_ms,
        seen: at(1),
        handed_over: true,
        casts: Vec::new(),
        received: Vec::new(),
        dropped: None,
    };
    vectors.format("prepared/waits", &record, "");
    record.casts.push(Cast {
        group: GroupId::shard(0),
        decision: Decision::Yes,
        legs: vec![0],
        accounts: vec![Address([2; 20])],
        sent: vec![(GroupId::shard(1), 7)],
        at: at(2),
        within: BitPrefix::ALL,
        outcome: Some(Resolved { committed: true, at: at(3) }),
    });
    record.received = vec![Received { group: GroupId::shard(1), decision: Decision::Yes, legs: vec![2], at: at(3) }];
    record.dropped = Some(at(4));
    record.tx.clear();
    vectors.format("prepared/dropped", &record, "");
    vectors.finish();
}

#[test]
fn streams() {
    let mut vectors = Vectors::open("streams.json");
    let mut cursor = InCursor::default();
    for number in 0..7 {
        let message = credit(number).encode();
        cursor.push(&message);
        let head = cursor.leaf(DEST).head;
        vectors.pin(&format!("head after message {number}"), &message, &head.to_string());
    }
    vectors.format("outgoing", &OutStream { next_seq: 7, acked: 1, peaks: cursor.peaks.clone() }, "");
    vectors.format("incoming", &cursor, "");
    let closed = ClosedStream {
        version: 1,
        kept: 1,
        next_seq: 7,
        taken: Some(3),
        whole: true,
        passed: [(2, 4), (3, 2)]
            .map(|(to, upto)| Passed { by: GroupId::shard(0), dest: GroupId::shard(to), upto })
            .to_vec(),
    };
    vectors.format("closed", &closed, "");
    let head = cursor.leaf(DEST).head;
    let leaf = |peer, next_seq| StreamLeaf { peer: GroupId::shard(peer), next_seq, head };
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
    let sent: Vec<Vec<u8>> = every_message().iter().take(4).map(Message::encode).collect();
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
