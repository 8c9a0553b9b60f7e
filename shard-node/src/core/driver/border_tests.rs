use bytes::Bytes;
use cross_shard::stream;
use ledger::committee::{Committee, Member};
use ledger::header::Header;
use ledger::ids::{Epoch, Height, Incarnation, OrgId};

use super::*;
use crate::core::driver::testing::{at_zero, config};
use crate::core::driver::{CertifiedBlock, Committees, Input, OutboxView, RecentBlock, SystemView};
use crate::core::support::{SHARD, certify, committee, credits, header, node_key, stream_head};
use ledger::machine::Driver;

/// The group under test: nodes 1, 2 and 3.
const OWN: GroupId = GroupId::channel(0);
/// Another channel: nodes 4, 5 and 6.
const OTHER: GroupId = GroupId::channel(1);

fn seats(group: GroupId, nodes: [u32; 3]) -> Committee {
    let member = |node| Member { node: NodeId(node), org: OrgId(0), key: node_key(node).public() };
    Committee::majority(group, Incarnation(0), Epoch(0), nodes.map(member).to_vec())
}

fn known(anchors: &[(GroupId, &[u32])]) -> Committees {
    let current =
        vec![committee(GroupId::BEACON, 0), seats(OWN, [1, 2, 3]), seats(OTHER, [4, 5, 6]), seats(SHARD, [10, 11, 12])];
    let nodes = |all: &[u32]| -> Vec<NodeId> { all.iter().copied().map(NodeId).collect() };
    let anchors = anchors.iter().map(|(group, all)| (*group, nodes(all))).collect();
    Committees { current, anchors, ..Committees::default() }
}

/// A driver of [`OWN`], with three certified messages for [`OTHER`] and for [`SHARD`], and the time.
struct Bench {
    driver: GroupDriver,
    now: u64,
}

impl Bench {
    fn new(node: u32, leader: u32, anchors: &[(GroupId, &[u32])]) -> Self {
        let driver = GroupDriver::new(DriverConfig { group: OWN, ..config(node) });
        let mut bench = Self { driver, now: 0 };
        let sent = credits(3);
        let outbox = [OTHER, SHARD].map(|peer| stream_head(peer, &sent));
        let mut leaves = outbox.to_vec();
        leaves.sort_by_key(|leaf| leaf.peer);
        let head = Header {
            committee_hash: seats(OWN, [1, 2, 3]).hash(),
            outbox_root: stream::root(&leaves),
            ..header(OWN, 1)
        };
        let recent = RecentBlock {
            hash: head.hash(),
            header: std::sync::Arc::new(head.clone()),
            outbox: leaves.clone(),
            inbox: Vec::new(),
        };
        let certified = CertifiedBlock { certificate: certify(head), outbox: leaves, inbox: Vec::new() };
        let messages: Vec<Bytes> = sent.into_iter().map(Bytes::from).collect();
        let view = |leaf| OutboxView { leaf, acked: 0, messages: messages.clone() };
        bench.step(Input::System(SystemView {
            committees: known(anchors),
            height: Height(1),
            checked: Height(1),
            recent: vec![recent],
            certified: Some(certified),
            outbox: outbox.map(view).to_vec(),
            ..at_zero(OWN, Vec::new())
        }));
        bench.step(Input::Role { leads: node == leader, leader: Some(NodeId(leader)) });
        bench
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.driver.step(Tick(self.now), input, &mut out);
        out
    }

    fn peer(&mut self, from: u32, message: PeerMessage) -> Vec<Output> {
        self.step(Input::Peer { from: NodeId(from), message: Box::new(message) })
    }

    /// Lets time pass, and answers every pull that `answers` names the node of. Returns what was asked for.
    fn pass(&mut self, ms: u64, answers: &[u32]) -> Vec<Output> {
        let mut all = Vec::new();
        for _ in 0..ms / 100 {
            self.now += 100;
            let out = self.step(Input::Timer);
            for output in &out {
                if let Output::Send { node, group, message: PeerMessage::Pull { .. } } = output
                    && answers.contains(&node.0)
                {
                    let _none = self.peer(node.0, PeerMessage::Serving { source: *group });
                }
            }
            all.extend(out);
        }
        all
    }

    /// From which nodes of which group mail is pulled.
    fn pulls(&mut self, answers: &[u32]) -> BTreeSet<(GroupId, u32)> {
        let asked = self.pass(6_000, answers).into_iter().filter_map(|output| match output {
            Output::Send { node, group, message: PeerMessage::Pull { .. } } => Some((group, node.0)),
            _ => None,
        });
        asked.collect()
    }
}

/// Mail that a source says is for [`OWN`]. Whether it holds is not for whoever passes it on to say.
fn bundle(source: GroupId, first_seq: u64, count: u64) -> PeerMessage {
    let messages = credits(count);
    let leaf = stream_head(OWN, &messages);
    let certificate = certify(header(source, 1));
    let path = ledger::merkle::MerklePath { index: 0, count: 1, siblings: Vec::new() };
    let bundle =
        Bundle { version: 2, source, dest: OWN, first_seq, messages, proof: Vec::new(), leaf, path, certificate };
    PeerMessage::Bundle(bundle)
}

fn alarms(out: &[Output]) -> Vec<(GroupId, bool)> {
    let told = out.iter().filter_map(|output| match output {
        Output::Alarm { cause: Cause::Anchors(group), .. } => Some((*group, true)),
        Output::AlarmEnded(Cause::Anchors(group)) => Some((*group, false)),
        _ => None,
    });
    told.collect()
}

#[test]
fn mail_is_pulled_by_the_one_that_leads_or_by_the_anchors_and_from_anchors_where_there_are_any() {
    let beacon = GroupId::BEACON;
    let (all, other, shard) = ([7, 8, 9], [4, 5, 6], [10, 11, 12]);
    let from = |asked: &[(GroupId, &[u32])]| -> BTreeSet<(GroupId, u32)> {
        asked.iter().flat_map(|(group, nodes)| nodes.iter().map(|node| (*group, *node))).collect()
    };
    let everything = from(&[(beacon, &all[..]), (OTHER, &other[..]), (SHARD, &shard[..])]);
    let to_anchors = from(&[(beacon, &all[..]), (OTHER, &[5][..]), (SHARD, &shard[..])]);
    let theirs: (GroupId, &[u32]) = (OTHER, &[5]);
    for (what, node, leader, anchors, pulled) in [
        ("no anchors, leads", 1, 1, vec![], everything.clone()),
        ("no anchors, follows", 1, 2, vec![], from(&[])),
        ("an anchor leads", 1, 1, vec![(OWN, &[1, 3][..])], everything.clone()),
        ("another anchor leads", 1, 3, vec![(OWN, &[1, 3][..])], from(&[])),
        ("leads and is none", 1, 1, vec![(OWN, &[3][..])], from(&[(beacon, &all[..])])),
        ("an anchor follows one that is none", 3, 1, vec![(OWN, &[3][..])], {
            from(&[(OTHER, &other[..]), (SHARD, &shard[..])])
        }),
        ("one of two anchors", 2, 1, vec![(OWN, &[2, 3][..])], from(&[(OTHER, &other[..]), (SHARD, &shard[..])])),
        ("follows and is none", 2, 1, vec![(OWN, &[3][..])], from(&[])),
        ("an anchor without a seat", 1, 1, vec![(OWN, &[9][..])], everything.clone()),
        ("the source has one, leads", 1, 1, vec![theirs], to_anchors.clone()),
        ("both have, leads", 1, 1, vec![(OWN, &[1][..]), theirs], to_anchors),
        ("both have, follows", 3, 1, vec![(OWN, &[3][..]), theirs], from(&[(OTHER, &[5][..]), (SHARD, &shard[..])])),
        ("the source's has no seat", 1, 1, vec![(OTHER, &[1][..])], everything),
    ] {
        // Nobody answers, so that all are asked in turn.
        assert_eq!(Bench::new(node, leader, &anchors).pulls(&[]), pulled, "{what}");
    }
}

#[test]
fn mail_is_served_by_anchors_and_to_anchors_and_what_is_asked_past_them_is_counted() {
    for (what, node, anchors, served) in [
        ("no anchors", 1, vec![], [[true; 3], [true; 3]]),
        ("an anchor serves", 1, vec![(OWN, &[1][..])], [[true; 3], [true; 3]]),
        ("who is none does not", 2, vec![(OWN, &[1][..])], [[false; 3], [false; 3]]),
        ("to an anchor", 1, vec![(OTHER, &[5][..])], [[false, true, false], [true; 3]]),
        ("to one of two", 2, vec![(OTHER, &[4, 6][..])], [[true, false, true], [true; 3]]),
        ("both", 1, vec![(OWN, &[1][..]), (OTHER, &[5][..])], [[false, true, false], [true; 3]]),
        ("theirs, and who is none", 2, vec![(OWN, &[1][..]), (OTHER, &[5][..])], [[false; 3], [false; 3]]),
    ] {
        // Whoever leads: serving is for every replica.
        for leader in [1, 2] {
            let mut bench = Bench::new(node, leader, &anchors);
            let mut refused = 0;
            for (dest, nodes, expected) in [(OTHER, [4, 5, 6], served[0]), (SHARD, [10, 11, 12], served[1])] {
                for (asks, expected) in nodes.into_iter().zip(expected) {
                    let pull = PeerMessage::Pull { dest, node: NodeId(asks), next_seq: 0, ack: None };
                    let first = bench.peer(asks, pull.clone());
                    let given = |out: &[Output]| {
                        out.iter().any(|output| {
                            matches!(output, Output::Send { message: PeerMessage::Bundle(bundle), .. } if bundle.dest == dest)
                        })
                    };
                    let heads = bench.peer(asks, PeerMessage::Probe { dest, next_seq: 0 });
                    let head = |output: &Output| matches!(output, Output::Send { message: PeerMessage::Head(_), .. });
                    assert_eq!(given(&first), expected, "{what}: {dest} by {asks}");
                    assert_eq!(heads.iter().any(head), expected, "{what}: {dest} by {asks}");
                    let strays = |out: &[Output]| {
                        out.iter().any(|output| {
                            matches!(output, Output::Stray { dest: told, node } if (*told, node.0) == (dest, asks))
                        })
                    };
                    assert_eq!(strays(&first), !expected, "{what}: the first time it is told");
                    assert!(!strays(&heads), "{what}: once");
                    refused += if expected { 0 } else { 2 };
                    assert_eq!(bench.driver.refused_pulls(), refused, "{what}");
                }
            }
            // What the beacon and a channel tell each other, everybody carries.
            let pull = PeerMessage::Pull { dest: GroupId::BEACON, node: NodeId(7), next_seq: 0, ack: None };
            let out = bench.peer(7, pull);
            assert!(matches!(&out[..], [Output::Send { message: PeerMessage::Serving { .. }, .. }]), "{what}: {out:?}");
        }
    }
}

#[test]
fn each_anchor_of_a_channel_has_a_subscription_and_of_others_the_last_one_that_asked() {
    for (anchors, subscribed) in [(vec![(OTHER, &[4, 5][..])], vec![4, 5]), (vec![], vec![5])] {
        let mut bench = Bench::new(1, 1, &anchors);
        for node in [4, 5] {
            // Beyond what there is: nothing is sent now.
            let pull = PeerMessage::Pull { dest: OTHER, node: NodeId(node), next_seq: 3, ack: None };
            bench.peer(node, pull);
        }
        let nodes = bench.driver.mailroom.subscribers(OTHER);
        assert_eq!(nodes, subscribed.into_iter().map(NodeId).collect::<Vec<_>>());
        // Whose part it is no more loses it at once.
        bench.step(Input::Committees(known(&[(OTHER, &[6][..])])));
        assert!(bench.driver.mailroom.subscribers(OTHER).is_empty());
    }
}

fn passed_to(out: &[Output], leader: u32) -> bool {
    out.iter().any(|output| {
        matches!(output, Output::Send { node, group: OWN, message: PeerMessage::Bundle(_) } if node.0 == leader)
    })
}

#[test]
fn an_anchor_that_follows_passes_on_what_it_asked_for_and_goes_on_from_there() {
    let mut bench = Bench::new(3, 1, &[(OWN, &[3]), (OTHER, &[5])]);
    bench.pass(300, &[5]);
    assert!(!passed_to(&bench.peer(4, bundle(OTHER, 0, 2)), 1), "from a node that is no anchor of the source");
    assert!(!passed_to(&bench.peer(5, bundle(OTHER, 1, 2)), 1), "a gap");
    assert!(passed_to(&bench.peer(5, bundle(OTHER, 0, 2)), 1));
    assert!(!passed_to(&bench.peer(5, bundle(OTHER, 0, 2)), 1), "the same again");
    assert!(passed_to(&bench.peer(5, bundle(OTHER, 2, 2)), 1), "what goes on");
    let asked_from = |out: &[Output]| {
        out.iter().rev().find_map(|output| match output {
            Output::Send { group: OTHER, message: PeerMessage::Pull { next_seq, .. }, .. } => Some(*next_seq),
            _ => None,
        })
    };
    assert_eq!(asked_from(&bench.pass(300, &[5])), Some(4), "what is on its way is not asked for again");
    assert_eq!(asked_from(&bench.pass(900, &[5])), Some(0), "it is when it has not been applied in time");
    assert!(passed_to(&bench.peer(5, bundle(OTHER, 0, 2)), 1));
    // Nobody leads, or an anchor does: then nothing is passed on.
    for leader in [None, Some(NodeId(3))] {
        bench.step(Input::Role { leads: false, leader });
        bench.pass(900, &[5]);
        assert!(!passed_to(&bench.peer(5, bundle(OTHER, 0, 2)), 1));
    }
}

#[test]
fn the_one_that_leads_takes_mail_of_its_anchors_and_past_them_of_nobody() {
    let sent = credits(2);
    let genuine = || {
        let outbox = vec![stream_head(OWN, &sent)];
        let committee_hash = seats(OTHER, [4, 5, 6]).hash();
        let head = Header { committee_hash, outbox_root: stream::root(&outbox), ..header(OTHER, 1) };
        let digest = head.hash();
        let signatures = [4, 5].map(|node| (NodeId(node), node_key(node).sign(&digest))).to_vec();
        let certificate = ledger::certificate::Certificate { version: 1, header: head, signatures };
        let path = ledger::merkle::MerkleTree::new(vec![outbox[0].hash()]).prove(0).expect("its only leaf");
        let (messages, leaf) = (sent.clone(), outbox[0]);
        PeerMessage::Bundle(Bundle {
            version: 2,
            source: OTHER,
            dest: OWN,
            first_seq: 0,
            messages,
            proof: Vec::new(),
            leaf,
            path,
            certificate,
        })
    };
    for (what, anchors, from, taken) in [
        ("as ever", vec![], 4, true),
        ("as ever, no member of the source", vec![], 3, false),
        ("the anchor passes it on", vec![(OWN, &[3][..])], 3, true),
        ("another replica does", vec![(OWN, &[3][..])], 2, false),
        ("the source past the anchor", vec![(OWN, &[3][..])], 4, false),
        ("the source's anchor to an anchor", vec![(OWN, &[1][..]), (OTHER, &[4][..])], 4, true),
        ("another one of the source", vec![(OWN, &[1][..]), (OTHER, &[5][..])], 4, false),
    ] {
        let mut bench = Bench::new(1, 1, &anchors);
        bench.pass(100, &[]);
        // What the bundle is proposed with may wait for company.
        let mut out = bench.peer(from, genuine());
        out.extend(bench.pass(200, &[]));
        let proposed = out.iter().any(|output| matches!(output, Output::Propose { .. }));
        assert_eq!(proposed, taken, "{what}");
    }
}

#[test]
fn anchors_that_are_silent_raise_an_alarm_that_names_them_until_they_are_heard_of_or_others_are_set() {
    // The one that leads waits for its own.
    let mut bench = Bench::new(1, 1, &[(OWN, &[2, 3])]);
    assert_eq!(alarms(&bench.pass(SILENT_ANCHORS_MS - 500, &[])), []);
    let out = bench.pass(1_000, &[]);
    assert_eq!(alarms(&out), [(OWN, true)]);
    let named = |output: &Output| matches!(output, Output::Alarm { text, .. } if text.contains("(nodes 2, 3)"));
    assert!(out.iter().any(named), "{out:?}");
    assert_eq!(alarms(&bench.pass(10_000, &[])), [], "once");
    bench.peer(5, PeerMessage::Serving { source: OWN });
    assert_eq!(alarms(&bench.pass(100, &[])), [], "that is no anchor");
    bench.peer(3, PeerMessage::Serving { source: OWN });
    assert_eq!(alarms(&bench.pass(100, &[])), [(OWN, false)]);
    assert_eq!(alarms(&bench.pass(SILENT_ANCHORS_MS + 500, &[])), [(OWN, true)]);
    let out = bench.step(Input::Committees(known(&[(OWN, &[2])])));
    assert_eq!(alarms(&out), [(OWN, false)], "others are set");
    assert_eq!(alarms(&bench.pass(SILENT_ANCHORS_MS - 500, &[])), [], "they have their time");
    assert_eq!(alarms(&bench.pass(1_000, &[])), [(OWN, true)]);
    assert_eq!(alarms(&bench.step(Input::Committees(known(&[])))), [(OWN, false)], "every replica carries");
    assert_eq!(alarms(&bench.pass(SILENT_ANCHORS_MS + 500, &[])), []);

    // Whoever pulls waits for those of the source.
    let (ours, theirs): ((GroupId, &[u32]), (GroupId, &[u32])) = ((OWN, &[3]), (OTHER, &[5, 6]));
    for (node, leader, anchors) in [(1, 1, vec![theirs]), (3, 1, vec![ours, theirs])] {
        let mut bench = Bench::new(node, leader, &anchors);
        assert_eq!(alarms(&bench.pass(SILENT_ANCHORS_MS + 500, &[])), [(OTHER, true)]);
        assert_eq!(alarms(&bench.pass(3_000, &[6])), [(OTHER, false)], "one of them is enough");
        assert_eq!(alarms(&bench.pass(10_000, &[6])), []);
    }
    // Who does not pull, does not wait.
    let mut bench = Bench::new(2, 1, &[(OWN, &[3]), (OTHER, &[5])]);
    assert_eq!(alarms(&bench.pass(2 * SILENT_ANCHORS_MS, &[])), []);
}

#[test]
fn an_anchor_tells_the_one_that_leads_that_it_is_there_if_that_one_is_none() {
    let tells = |node: u32, leader: u32, anchors: &[(GroupId, &[u32])]| {
        let out = Bench::new(node, leader, anchors).pass(900, &[]);
        let told = |output: &&Output| {
            matches!(output, Output::Send { node, group: OWN, message: PeerMessage::Serving { source: OWN } }
                if node.0 == leader)
        };
        out.iter().filter(told).count()
    };
    assert_eq!(tells(3, 1, &[(OWN, &[3])]), 3, "one every 300 ms");
    assert_eq!(tells(3, 1, &[(OWN, &[1, 3])]), 0, "an anchor leads");
    assert_eq!(tells(3, 1, &[(OWN, &[2])]), 0, "it is none");
    assert_eq!(tells(3, 1, &[]), 0);
}

#[test]
fn anchors_come_from_the_state() {
    let mut state = std::collections::BTreeMap::<Vec<u8>, Bytes>::new();
    let update = cross_shard::AnchorsUpdate { version: 1, channel: OTHER, anchors: vec![NodeId(5)] };
    let bytes = borsh::to_vec(&update).expect("writing to memory does not fail");
    state.insert(ledger::schema::anchors(OTHER), bytes.into());
    let mut view = ledger::view::View::new(&state);
    let read = crate::core::driver::committees(&mut view);
    assert_eq!(read.anchors, BTreeMap::from([(OTHER, vec![NodeId(5)])]));
    assert_eq!(read.height, Height(0));
}
