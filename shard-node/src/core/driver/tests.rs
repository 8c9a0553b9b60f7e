use super::attest::{FRESH_MS, WANTED_MS};
use std::collections::VecDeque;

use super::*;
use crate::core::driver::testing::{block, config};
use crate::core::entry::{Command, Entry};
use crate::core::executor::EmittedMail;
use crate::core::support::{
    self, GROUPS, PEER, SHARD, ack_from_peer, bundle_from_peer, client_key, committee, committees, credits, header,
    stream_head,
};
use beacon::limits::CHECKPOINT_BYTES_MAX;
use bytes::Bytes;
use ledger::committee::Member;
use ledger::genesis::VerifyMode;
use ledger::hash::Hash32;
use ledger::header::Header;
use ledger::ids::{Address, AssetId, Epoch, Incarnation, LedgerId, OrgId};
use ledger::tx::{Move, ParsedTx};

/// A driver on node 1 of [`SHARD`] at block 0, with three messages for [`PEER`] and none from it.
struct Bench {
    driver: GroupDriver,
    now: Tick,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self { driver: GroupDriver::new(config(1)), now: Tick(0) };
        bench.step(Input::System(system(0)));
        bench
    }

    fn leading() -> Self {
        let mut bench = Self::new();
        bench.role(true, Some(NodeId(1)));
        bench
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.driver.step(self.now, input, &mut out);
        out
    }

    fn role(&mut self, leads: bool, leader: Option<NodeId>) -> Vec<Output> {
        self.step(Input::Role { leads, leader })
    }

    fn peer(&mut self, from: u32, message: PeerMessage) -> Vec<Output> {
        self.step(Input::Peer { from: NodeId(from), message: Box::new(message) })
    }

    fn committed(&mut self, height: u64, txs: Vec<ParsedTx>) -> Vec<Output> {
        self.step(Input::Committed(CommittedBlock { to_verify: Arc::new(txs), ..block(header(SHARD, height)) }))
    }

    fn verified(&mut self, height: u64, valid: bool) -> Vec<Output> {
        self.step(Input::Verified { height: Height(height), valid })
    }
}

fn recent(group: GroupId, height: u64) -> RecentBlock {
    let header = header(group, height);
    RecentBlock { hash: header.hash(), header: Arc::new(header), outbox: Vec::new(), inbox: Vec::new() }
}

fn certified(height: u64) -> CertifiedBlock {
    CertifiedBlock { certificate: support::certify(header(SHARD, height)), outbox: Vec::new(), inbox: Vec::new() }
}

fn system(height: u64) -> SystemView {
    let sent = credits(3);
    SystemView {
        committees: committees().into(),
        height: Height(height),
        recent: vec![recent(SHARD, height)],
        certified: None,
        handovers: Vec::new(),
        checked: Height(height),
        forged: None,
        installed: None,
        outbox: vec![OutboxView {
            leaf: stream_head(PEER, &sent),
            acked: 0,
            messages: sent.into_iter().map(Bytes::from).collect(),
        }],
        inbox: Vec::new(),
        next_deadline: None,
        evidence: Vec::new(),
        sealed: None,
    }
}

/// Heights whose certificates node 2 is asked for.
fn wanted(out: &[Output]) -> Vec<u64> {
    out.iter()
        .filter_map(|output| match output {
            Output::Send { node: NodeId(2), group: SHARD, message: PeerMessage::Want { height } } => Some(height.0),
            _ => None,
        })
        .collect()
}

fn parsed() -> ParsedTx {
    let cluster = support::genesis().cluster_id();
    let key = client_key(1);
    let mv = Move::Pay { from: support::address(&key), to: Address([2; 20]), asset: AssetId([1; 16]), amount: 1 };
    let signed = support::transaction(cluster, LedgerId::MAIN, &key, 0, vec![mv]);
    ParsedTx::decode(&cluster, &signed.encode()).expect("a transaction")
}

/// Heights attested to node 2.
fn attested(out: &[Output]) -> Vec<u64> {
    out.iter()
        .filter_map(|output| match output {
            Output::Send { node: NodeId(2), message: PeerMessage::Attest { attestation, .. }, .. } => {
                Some(attestation.height.0)
            }
            _ => None,
        })
        .collect()
}

fn proposed(out: &[Output]) -> Vec<Command> {
    out.iter()
        .filter_map(|output| match output {
            Output::Propose { entry, .. } => Some(Entry::decode(entry).commands),
            _ => None,
        })
        .flatten()
        .collect()
}

fn bundle(epoch: u64) -> PeerMessage {
    PeerMessage::Bundle(bundle_from_peer(&committee(PEER, epoch), &credits(2), 0, 2))
}

fn pull(node: u32) -> PeerMessage {
    PeerMessage::Pull { dest: PEER, node: NodeId(node), next_seq: 0, ack: None }
}

#[test]
fn blocks_are_attested_in_order_whatever_is_checked_first() {
    let mut bench = Bench::new();
    let out = bench.committed(1, vec![parsed()]);
    assert!(matches!(&out[..], [Output::Verify { height: Height(1), txs }] if txs.len() == 1), "{out:?}");
    assert!(attested(&bench.committed(2, vec![parsed()])).is_empty());
    assert!(attested(&bench.committed(3, Vec::new())).is_empty(), "nothing to check, but others come first");
    assert!(attested(&bench.verified(2, true)).is_empty());
    assert_eq!(bench.driver.attested(), Height(0), "what it signed last is the block it began with");
    assert_eq!(attested(&bench.verified(1, true)), [1, 2, 3]);
    assert_eq!(bench.driver.attested(), Height(3));
    assert_eq!(attested(&bench.committed(4, Vec::new())), [4]);
    assert!(attested(&bench.verified(1, true)).is_empty(), "once");
}

#[test]
fn nothing_at_or_after_a_forged_block_is_attested() {
    let mut bench = Bench::new();
    for height in 1..=4 {
        assert!(attested(&bench.committed(height, vec![parsed()])).is_empty());
    }
    let out = bench.verified(3, false);
    assert!(
        matches!(&out[..], [Output::Forged(Height(3)), Output::Alarm { cause: Cause::ForgedBlock, .. }]),
        "{out:?}"
    );
    assert!(attested(&bench.verified(4, true)).is_empty());
    assert!(attested(&bench.verified(2, true)).is_empty());
    assert_eq!(attested(&bench.verified(1, true)), [1, 2], "what stands before it is not touched");
    assert_eq!(bench.driver.attested(), Height(2));
    assert!(attested(&bench.committed(5, Vec::new())).is_empty());
    assert!(attested(&bench.verified(3, true)).is_empty());
    assert!(attested(&bench.step(Input::System(system(9)))).is_empty(), "nor after a snapshot");
    for _ in 0..3 {
        bench.now = Tick(bench.now.0 + 1000);
        assert!(attested(&bench.step(Input::Timer)).is_empty(), "nor announced");
    }
}

#[test]
fn only_members_attest_and_only_for_themselves() {
    let mut bench = Bench::new();
    bench.committed(1, Vec::new());
    let good = support::attestation(2, &header(SHARD, 1));
    let message = PeerMessage::Attest { attestation: good, wants_certificate: false };
    assert!(bench.peer(3, message.clone()).is_empty(), "passed off by another node");
    assert!(matches!(&bench.peer(2, message)[..], [Output::Certified(_)]));
    let mut stranger = GroupDriver::new(config(4));
    let mut out = Vec::new();
    stranger.step(Tick(0), Input::System(system(1)), &mut out);
    assert!(attested(&out).is_empty(), "a node outside the committee does not attest");
}

#[test]
fn who_misses_a_certificate_is_given_it() {
    let mut bench = Bench::new();
    bench.committed(1, Vec::new());
    let ask = |wants| PeerMessage::Attest {
        attestation: support::attestation(2, &header(SHARD, 1)),
        wants_certificate: wants,
    };
    bench.peer(2, ask(false));
    let out = bench.peer(2, ask(true));
    let [Output::Send { node: NodeId(2), message: PeerMessage::Certified(certificate), .. }] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(certificate.verify(&committee(SHARD, 0)), Ok(()));
}

#[test]
fn who_is_no_member_is_given_no_certificate() {
    let mut bench = Bench::new();
    bench.committed(1, Vec::new());
    let attest = |node| PeerMessage::Attest {
        attestation: support::attestation(node, &header(SHARD, 1)),
        wants_certificate: true,
    };
    assert!(!bench.peer(2, attest(2)).is_empty(), "it is certified now");
    let want = PeerMessage::Want { height: Height(1) };
    // Node 4 has a seat in another group, and nobody knows node 99.
    for stranger in [4, 99] {
        assert!(bench.peer(stranger, attest(stranger)).is_empty(), "node {stranger}");
        let before = bench.driver.strangers();
        assert!(bench.peer(stranger, want.clone()).is_empty(), "node {stranger}");
        assert_eq!(bench.driver.strangers(), before + 1, "the host can tell that it was not answered");
    }
    let out = bench.peer(2, want);
    assert!(matches!(&out[..], [Output::Send { node: NodeId(2), message: PeerMessage::Certified(_), .. }]), "{out:?}");
}

#[test]
fn pulls_and_bundles_of_strangers_are_ignored() {
    let mut bench = Bench::leading();
    for stranger in [2, 7, 99] {
        assert!(bench.peer(stranger, pull(stranger)).is_empty(), "node {stranger}");
        assert!(bench.peer(stranger, bundle(0)).is_empty(), "node {stranger}");
    }
    assert!(bench.peer(4, pull(5)).is_empty(), "mail is not sent to whom another node names");
    let out = bench.peer(4, pull(4));
    assert!(
        matches!(
            &out[..],
            [Output::Send { node: NodeId(4), group: PEER, message: PeerMessage::Serving { source: SHARD } }]
        ),
        "{out:?}"
    );
    assert!(matches!(&proposed(&bench.peer(4, bundle(0)))[..], [Command::Deliver(_)]));
}

/// A driver of [`SHARD`] that has certified mail for a group whose node 5 made way for another one of its organisation
/// and whose node 6 was the only one of its.
fn with_mail_for(group: GroupId) -> Bench {
    let seats = |epoch: u64, seats: [(u32, u16); 3]| {
        let member =
            |(node, org)| Member { node: NodeId(node), org: OrgId(org), key: support::node_key(node).public() };
        Committee::majority(group, Incarnation(0), Epoch(epoch), seats.map(member).to_vec())
    };
    let (before, now) = (seats(0, [(4, 1), (5, 2), (6, 3)]), seats(1, [(4, 1), (7, 2), (8, 1)]));
    let committees =
        Committees { current: vec![committee(SHARD, 0), now], former: vec![before], ..Committees::default() };
    let sent = credits(3);
    let leaf = stream_head(group, &sent);
    let outbox = vec![leaf];
    let header = Header { outbox_root: cross_shard::stream::root(&outbox), ..header(SHARD, 1) };
    let certified = CertifiedBlock { certificate: support::certify(header), outbox, inbox: Vec::new() };
    let messages = sent.into_iter().map(Bytes::from).collect();
    let mut bench = Bench::new();
    bench.step(Input::System(SystemView {
        committees,
        certified: Some(certified),
        outbox: vec![OutboxView { leaf, acked: 0, messages }],
        ..system(1)
    }));
    bench
}

#[test]
fn a_channels_mail_goes_to_no_node_of_an_organisation_that_has_no_seat_in_it_any_more() {
    for (group, served) in [(GroupId::channel(0), vec![4, 5, 7, 8]), (PEER, vec![4, 5, 6, 7, 8])] {
        let mut bench = with_mail_for(group);
        let mut given = |message: &dyn Fn(NodeId) -> PeerMessage, answer: fn(&PeerMessage) -> bool| -> Vec<u32> {
            let mut asked = |node: u32| bench.peer(node, message(NodeId(node)));
            let gives = |out: &Output| matches!(out, Output::Send { message, .. } if answer(message));
            (1..=9).filter(|node| asked(*node).iter().any(gives)).collect()
        };
        let pull = |node| PeerMessage::Pull { dest: group, node, next_seq: 0, ack: None };
        let probe = |_: NodeId| PeerMessage::Probe { dest: group, next_seq: 0 };
        assert_eq!(given(&pull, |answer| matches!(answer, PeerMessage::Bundle(_))), served, "{group}");
        assert_eq!(given(&probe, |answer| matches!(answer, PeerMessage::Head(_))), served, "{group}");
        let others = 2 * (9 - served.len() as u64);
        assert_eq!(bench.driver.strangers(), others, "{group}: the host can tell that they were not answered");
    }
}

#[test]
fn a_bundle_waits_for_its_committee() {
    let mut bench = Bench::leading();
    assert!(bench.peer(4, bundle(1)).is_empty());
    assert!(bench.step(Input::Committees(committees().into())).is_empty(), "still unknown: it waits on");
    let mut changed = committees();
    changed[2] = committee(PEER, 1);
    let commands = proposed(&bench.step(Input::Committees(changed.clone().into())));
    let PeerMessage::Bundle(expected) = bundle(1) else { panic!() };
    let expected = borsh::to_vec(&expected).expect("writing to memory does not fail");
    assert_eq!(commands, [Command::Deliver(expected)]);
    assert!(bench.step(Input::Committees(changed.into())).is_empty(), "it is taken once");
}

#[test]
fn who_does_not_lead_passes_acknowledgements_on_and_ignores_bundles() {
    let mut bench = Bench::new();
    let ack = PeerMessage::Ack(ack_from_peer(&credits(2)));
    assert!(bench.peer(4, ack.clone()).is_empty(), "nobody leads");
    bench.role(false, Some(NodeId(2)));
    assert!(bench.peer(4, bundle(0)).is_empty());
    let with_ack =
        PeerMessage::Pull { dest: PEER, node: NodeId(5), next_seq: 2, ack: Some(ack_from_peer(&credits(2))) };
    for message in [ack.clone(), with_ack] {
        let out = bench.peer(4, message);
        let [Output::Send { node: NodeId(2), group: SHARD, message }] = &out[..] else { panic!("{out:?}") };
        assert_eq!(*message, ack);
    }
    bench.role(true, Some(NodeId(1)));
    let out = bench.peer(4, ack);
    assert!(matches!(&out[..], [Output::PeerTook { dest: PEER, next_seq: 2 }]), "{out:?}");
    bench.now = Tick(1000);
    assert!(matches!(&proposed(&bench.step(Input::Timer))[..], [Command::Ack(_)]));
}

#[test]
fn losing_leadership_returns_what_is_queued() {
    let mut bench = Bench::new();
    let tx = |byte: u8| Bytes::from(vec![byte; 10]);
    let out = bench.step(Input::Submit(vec![tx(1)]));
    assert!(matches!(&out[..], [Output::Refuse { reject: Reject::NotLeader, .. }]), "{out:?}");
    bench.role(true, Some(NodeId(1)));
    assert_eq!(proposed(&bench.step(Input::Submit(vec![tx(1)]))), [Command::Tx(vec![1; 10])]);
    assert!(bench.step(Input::Submit(vec![tx(2), tx(3)])).is_empty(), "the pipeline is full");
    assert_eq!(bench.driver.queued(), 2);
    let out = bench.role(false, Some(NodeId(2)));
    let refused: Vec<_> = out
        .iter()
        .filter_map(|output| match output {
            Output::Refuse { txs, reject } => Some((txs.clone(), *reject)),
            _ => None,
        })
        .collect();
    assert_eq!(refused, [(vec![tx(2), tx(3)], Reject::NotLeader)]);
    assert_eq!(bench.driver.queued(), 0);
    assert!(proposed(&bench.role(true, Some(NodeId(1)))).is_empty(), "nothing is proposed twice");
}

#[test]
fn the_beacon_pulls_from_channels_alone() {
    let channel = GroupId::channel(0);
    let mut driver = GroupDriver::new(DriverConfig { group: GroupId::BEACON, ..config(7) });
    let mut pulls = |input| {
        let mut out = Vec::new();
        driver.step(Tick(0), input, &mut out);
        let pulled = out.iter().filter_map(|output| match output {
            Output::Send { group, message: PeerMessage::Pull { dest: GroupId::BEACON, .. }, .. } => Some(*group),
            _ => None,
        });
        pulled.collect::<Vec<GroupId>>()
    };
    let view = SystemView { recent: vec![recent(GroupId::BEACON, 0)], outbox: Vec::new(), ..system(0) };
    assert!(pulls(Input::System(view)).is_empty());
    assert!(pulls(Input::Role { leads: true, leader: Some(NodeId(7)) }).is_empty(), "shards write nothing to it");
    let mut with_channel = committees();
    with_channel.push(Committee { group: channel, ..committee(PEER, 0) });
    let mut pulled = pulls(Input::Committees(with_channel.into()));
    pulled.extend(pulls(Input::Timer));
    assert_eq!(pulled, [channel]);
}

#[test]
fn the_beacon_takes_only_checkpoints_that_hold() {
    let mut driver = GroupDriver::new(DriverConfig { group: GroupId::BEACON, ..config(7) });
    let mut step = |input| {
        let mut out = Vec::new();
        driver.step(Tick(0), input, &mut out);
        proposed(&out)
    };
    let view = SystemView { recent: vec![recent(GroupId::BEACON, 0)], outbox: Vec::new(), ..system(0) };
    step(Input::System(view));
    let take = |from: u32, certificate: &Certificate| Input::Peer {
        from: NodeId(from),
        message: Box::new(PeerMessage::Checkpoint(certificate.clone())),
    };
    let good = support::certify(header(SHARD, 64));
    assert!(step(take(1, &good)).is_empty(), "it does not lead");
    step(Input::Role { leads: true, leader: Some(NodeId(7)) });

    assert!(step(take(4, &good)).is_empty(), "by a node that is not in the group");
    let mut far = support::certify(header(SHARD, 1_000_000));
    far.signatures[1].1 = support::node_key(50).sign(&far.header.hash());
    assert!(step(take(1, &far)).is_empty(), "a forged height");
    let mut weak = support::certify(header(SHARD, 64));
    weak.signatures.truncate(1);
    assert!(step(take(1, &weak)).is_empty(), "too few signatures");
    let line = ledger::flow::FlowLine::default();
    let count = CHECKPOINT_BYTES_MAX / borsh::object_length(&line).expect("it encodes") + 1;
    let large = support::certify(Header { value_flow: vec![line; count], ..header(SHARD, 128) });
    assert_eq!(large.verify(&committee(SHARD, 0)), Ok(()));
    assert!(step(take(1, &large)).is_empty(), "too large");

    let expected = Command::Checkpoint(borsh::to_vec(&good).expect("writing to memory does not fail"));
    assert_eq!(step(take(1, &good)), [expected], "none of them stood in its way");
    step(Input::Proposed { id: 0, accepted: true });
    assert!(step(take(2, &good)).is_empty(), "it is not sequenced again and again");
    assert!(step(take(2, &support::certify(header(SHARD, 63)))).is_empty(), "nor an older one");
    let other = support::certify(Header { state_root: Hash32([7; 32]), ..header(SHARD, 64) });
    assert_eq!(step(take(2, &other)).len(), 1, "but a contradiction is, which is evidence");
    step(Input::Proposed { id: 1, accepted: true });
    assert_eq!(step(take(2, &support::certify(header(SHARD, 65)))).len(), 1);
}

#[test]
fn blocks_of_the_database_are_checked_before_anything_is_attested() {
    let start = || {
        let mut driver = GroupDriver::new(config(1));
        let mut out = Vec::new();
        let view = SystemView { checked: Height(2), recent: vec![recent(SHARD, 3), recent(SHARD, 5)], ..system(5) };
        driver.step(Tick(0), Input::System(view), &mut out);
        assert!(matches!(&out[..], [Output::Recheck { from: Height(3), upto: Height(5) }]), "{out:?}");
        let mut bench = Bench { driver, now: Tick(0) };
        assert!(attested(&bench.committed(6, vec![parsed()])).is_empty());
        assert!(attested(&bench.verified(6, true)).is_empty(), "what it is built on comes first");
        bench
    };
    let rechecked = |forged| Input::Rechecked { upto: Height(5), forged };
    let mut bench = start();
    let out = bench.step(rechecked(None));
    assert_eq!(attested(&out), [3, 5, 6]);
    let marks: Vec<u64> = out
        .iter()
        .filter_map(|output| match output {
            Output::Checked(height) => Some(height.0),
            _ => None,
        })
        .collect();
    assert_eq!(marks.last(), Some(&6), "the next start does not check them again");

    let mut bench = start();
    let out = bench.step(rechecked(Some(Height(4))));
    assert_eq!(attested(&out), [3]);
    assert!(out.iter().any(|output| matches!(output, Output::Forged(Height(4)))), "{out:?}");
    assert!(out.iter().any(|output| matches!(output, Output::Alarm { cause: Cause::ForgedBlock, .. })), "{out:?}");
    assert!(attested(&bench.committed(7, Vec::new())).is_empty());
}

#[test]
fn a_forged_block_is_not_forgotten_at_the_next_start() {
    let mut driver = GroupDriver::new(config(1));
    let mut out = Vec::new();
    let view = SystemView { forged: Some(Height(4)), recent: vec![recent(SHARD, 3), recent(SHARD, 5)], ..system(5) };
    driver.step(Tick(0), Input::System(view), &mut out);
    assert_eq!(attested(&out), [3]);
    assert!(out.iter().any(|output| matches!(output, Output::Alarm { cause: Cause::ForgedBlock, .. })), "{out:?}");
    let mut bench = Bench { driver, now: Tick(0) };
    assert!(attested(&bench.committed(6, Vec::new())).is_empty());
}

#[test]
fn where_replicas_check_each_other_nothing_is_attested_on_a_snapshot_that_is_not_certified() {
    let start = |certified| {
        let mut driver = GroupDriver::new(DriverConfig { verify: VerifyMode::Every, ..config(1) });
        let mut out = Vec::new();
        let view = SystemView { installed: Some(Height(5)), certified, ..system(5) };
        driver.step(Tick(0), Input::System(view), &mut out);
        (Bench { driver, now: Tick(0) }, attested(&out))
    };
    assert_eq!(start(Some(certified(5))).1, [5], "it came with its certificate");

    let (mut bench, out) = start(Some(certified(4)));
    assert!(out.is_empty(), "a certificate of an earlier block says nothing about it");
    assert!(attested(&bench.committed(6, Vec::new())).is_empty());
    assert_eq!(wanted(&bench.step(Input::Timer)), [6], "but the others are asked");
    bench.now = Tick(100);
    assert!(wanted(&bench.step(Input::Timer)).is_empty(), "now and then");
    let out = bench.peer(3, PeerMessage::Certified(support::certify(header(SHARD, 6))));
    assert_eq!(attested(&out), [5, 6], "a later block says it of all before it");
    bench.now = Tick(1_000);
    assert!(wanted(&bench.step(Input::Timer)).is_empty());

    let (mut bench, _) = start(None);
    let other = Header { state_root: Hash32([7; 32]), ..header(SHARD, 5) };
    let out = bench.peer(3, PeerMessage::Certified(support::certify(other)));
    assert!(matches!(&out[..], [.., Output::Stop(_)]), "it was another state: {out:?}");
}

/// Two of three replicas: node 1 leads and has executed everything, but its last block is not certified,
/// and node 2 has node 1's snapshot of just that block. Whatever they propose is committed.
struct Pair {
    replicas: BTreeMap<u32, Bench>,
    certified: BTreeMap<u32, BTreeSet<u64>>,
    signed_by_rebuilt: Vec<u64>,
    last: u64,
}

impl Pair {
    fn new(last: u64, verify: VerifyMode, leader_has: Option<u64>, rebuilt_has: Option<u64>) -> Self {
        let mut replicas = BTreeMap::new();
        for (node, has, installed) in [(1, leader_has, None), (2, rebuilt_has, Some(Height(last)))] {
            let mut bench = Bench { driver: GroupDriver::new(DriverConfig { verify, ..config(node) }), now: Tick(0) };
            let recent = (last - 2..=last).map(|height| recent(SHARD, height)).collect();
            bench.step(Input::System(SystemView { recent, certified: has.map(certified), installed, ..system(last) }));
            bench.role(node == 1, Some(NodeId(1)));
            replicas.insert(node, bench);
        }
        Self { replicas, certified: BTreeMap::new(), signed_by_rebuilt: Vec::new(), last }
    }

    /// Lets time pass.
    fn run(&mut self, rounds: u64) {
        for _ in 0..rounds {
            let mut open = VecDeque::new();
            for (node, bench) in &mut self.replicas {
                bench.now.0 += 25;
                open.extend(bench.step(Input::Timer).into_iter().map(|output| (*node, output)));
            }
            while let Some((from, output)) = open.pop_front() {
                let mut give = |node: u32, input: Input| {
                    let Some(bench) = self.replicas.get_mut(&node) else { return };
                    open.extend(bench.step(input).into_iter().map(|output| (node, output)));
                };
                match output {
                    Output::Send { node, group: SHARD, message } => {
                        if let (2, PeerMessage::Attest { attestation, .. }) = (from, &message) {
                            self.signed_by_rebuilt.push(attestation.height.0);
                        }
                        give(node.0, Input::Peer { from: NodeId(from), message: Box::new(message) });
                    }
                    Output::Propose { id, .. } => {
                        self.last += 1;
                        give(from, Input::Proposed { id, accepted: true });
                        for node in [1, 2] {
                            give(node, Input::Committed(block(header(SHARD, self.last))));
                        }
                    }
                    Output::Certified(certificate) => {
                        self.certified.entry(from).or_default().insert(certificate.header.height.0);
                    }
                    Output::Alarm { .. } | Output::Stop(_) => panic!("{output:?}"),
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn two_of_three_go_on_of_which_one_was_rebuilt_at_a_block_without_a_certificate() {
    // However the rebuilt one hears of the last certificate, and also where there was none yet.
    let cases = [(1_000, Some(999), Some(999)), (1_000, Some(999), None), (5, None, None)];
    for (last, leader_has, rebuilt_has) in cases {
        let mut pair = Pair::new(last, VerifyMode::Ingest, leader_has, rebuilt_has);
        pair.run(40);
        assert_eq!(pair.last, last + 1, "one block is made, since the last one could not be certified");
        assert_eq!(pair.signed_by_rebuilt.first(), Some(&(last + 1)), "what it computed itself comes first");
        for node in [1, 2] {
            assert!(pair.certified[&node].is_superset(&[last, last + 1].into()), "{node}: {:?}", pair.certified);
        }
        pair.run(400);
        assert_eq!(pair.last, last + 1, "and then they rest");
    }
}

#[test]
fn nobody_signs_on_a_snapshot_that_nothing_certified_leads_to() {
    // The last certificate is missing, too far back, or members do not take each other at their word.
    let far = 1_000 - certify::WINDOW - 1;
    for (verify, has) in [(VerifyMode::Ingest, None), (VerifyMode::Ingest, Some(far)), (VerifyMode::Every, Some(999))] {
        let mut pair = Pair::new(1_000, verify, has, has);
        pair.run(400);
        assert!(pair.certified.is_empty(), "{verify:?}: {:?}", pair.certified);
        assert!(pair.signed_by_rebuilt.is_empty());
        assert_eq!(pair.last, 1_000, "blocks that would be of no use are not made");
    }
}

#[test]
fn certificates_of_earlier_blocks_are_asked_for_and_each_node_answers_once() {
    let mut bench = Bench::new();
    bench.step(Input::System(system(1_000)));
    let old = |from: u32, bench: &mut Bench| {
        let out = bench.peer(from, PeerMessage::Certified(support::certify(header(SHARD, 7))));
        out.iter().filter(|output| matches!(output, Output::Late(_))).count()
    };
    assert_eq!(old(2, &mut bench), 0, "nobody asked");
    assert_eq!(wanted(&bench.step(Input::Want(Height(7)))), [7]);
    assert_eq!(old(4, &mut bench), 0, "a stranger");
    assert_eq!((old(2, &mut bench), old(2, &mut bench), old(3, &mut bench)), (1, 0, 1));
    bench.now = Tick(WANTED_MS - 1);
    assert_eq!(wanted(&bench.step(Input::Timer)), [7], "and again while it is wanted");
    bench.now = Tick(WANTED_MS);
    bench.step(Input::Timer);
    bench.now = Tick(2 * WANTED_MS);
    assert!(wanted(&bench.step(Input::Timer)).is_empty());
    assert_eq!(old(2, &mut bench), 0, "too late");
}

#[test]
fn a_leader_makes_a_block_for_who_needs_a_proof_as_of_now_and_not_twice_a_minute() {
    let made = |out: &[Output]| out.iter().filter(|output| matches!(output, Output::Propose { .. })).count();
    let at = |height: u64, leads: bool, later_ms: u64| {
        let mut bench = Bench::new();
        bench.step(Input::System(system(height)));
        let last = header(SHARD, height).time_ms.0;
        bench.step(Input::ClockOffset(i64::try_from(last + later_ms).expect("small")));
        bench.role(leads, Some(NodeId(if leads { 1 } else { 2 })));
        bench
    };
    for (height, leads, later_ms, blocks) in [
        (5, true, FRESH_MS, 1),
        (5, true, u64::from(u32::MAX), 1),
        (5, true, FRESH_MS - 1, 0),
        (5, false, FRESH_MS, 0),
        // Nobody certifies block 0.
        (0, true, 0, 1),
    ] {
        let out = at(height, leads, later_ms).step(Input::Refresh);
        assert_eq!(made(&out), blocks, "block {height}, {later_ms} ms ago, leads: {leads}");
        assert!(proposed(&out).is_empty(), "nothing is in it: {out:?}");
    }
    let mut bench = at(5, true, FRESH_MS);
    assert_eq!(made(&bench.step(Input::Refresh)), 1);
    assert_eq!(made(&bench.step(Input::Refresh)), 0, "one is on its way");
    bench.step(Input::Proposed { id: 0, accepted: true });
    let time_ms = TimeMs(header(SHARD, 5).time_ms.0 + FRESH_MS);
    bench.step(Input::Committed(block(Header { time_ms, ..header(SHARD, 6) })));
    bench.now = Tick(FRESH_MS - 1);
    assert_eq!(made(&bench.step(Input::Refresh)), 0, "and the one that it made is young");
    bench.now = Tick(FRESH_MS);
    assert_eq!(made(&bench.step(Input::Refresh)), 1);
}

#[test]
fn who_asks_for_a_certificate_gets_it_or_what_makes_one() {
    let mut bench = Bench::new();
    bench.step(Input::System(SystemView { certified: Some(certified(998)), ..system(1_000) }));
    let mut ask = |from, height| bench.peer(from, PeerMessage::Want { height: Height(height) });
    assert!(ask(4, 998).is_empty(), "a stranger");
    assert!(matches!(&ask(2, 3)[..], [Output::Lookup { height: Height(3), node: NodeId(2) }]), "the host may have it");
    let out = ask(2, 1_000);
    let [
        Output::Send {
            node: NodeId(2), message: PeerMessage::Attest { attestation, wants_certificate: false }, ..
        },
        Output::Send { node: NodeId(2), message: PeerMessage::Certified(latest), .. },
    ] = &out[..]
    else {
        panic!("{out:?}")
    };
    assert_eq!((attestation.height, latest.header.height), (Height(1_000), Height(998)));
    let good = support::attestation(3, &header(SHARD, 1_000));
    bench.peer(3, PeerMessage::Attest { attestation: good, wants_certificate: false });
    let out = bench.peer(2, PeerMessage::Want { height: Height(1_000) });
    assert!(
        matches!(&out[..], [Output::Send { message: PeerMessage::Certified(exact), .. }] if exact.header.height.0 == 1_000),
        "{out:?}"
    );
}

/// Two replicas lost each other's signatures of a block on the link; later blocks are certified.
#[test]
fn a_gap_in_the_certificates_closes_by_itself() {
    let mut replicas: BTreeMap<u32, Bench> = BTreeMap::new();
    for node in [1, 2] {
        let mut bench = Bench { driver: GroupDriver::new(config(node)), now: Tick(0) };
        bench.step(Input::System(system(0)));
        bench.committed(1, Vec::new());
        replicas.insert(node, bench);
    }
    let mut certified: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
    for round in 0..8 {
        let mut open = Vec::new();
        for (node, bench) in &mut replicas {
            bench.now = Tick(round * 100);
            let mut out = bench.step(Input::Timer);
            if round == 1 {
                out.extend(bench.committed(2, Vec::new()));
            }
            open.extend(out.into_iter().map(|output| (*node, output)));
        }
        while let Some((from, output)) = open.pop() {
            match output {
                Output::Send { node, group: SHARD, message } => {
                    if let Some(bench) = replicas.get_mut(&node.0) {
                        open.extend(bench.peer(from, message).into_iter().map(|output| (node.0, output)));
                    }
                }
                Output::Certified(certificate) => {
                    certified.entry(from).or_default().insert(certificate.header.height.0);
                }
                _ => {}
            }
        }
        if round == 1 {
            assert!(certified.values().all(|heights| heights.contains(&2) && !heights.contains(&1)), "{certified:?}");
        }
    }
    for node in [1, 2] {
        assert!([1, 2].iter().all(|height| certified[&node].contains(height)), "{certified:?}");
    }
}

#[test]
fn a_committee_that_is_prepared_right_behind_a_hand_over_does_not_wait_for_traffic() {
    let mut coming = committee(SHARD, 2);
    coming.members[2].node = NodeId(7);
    coming.members[2].key = support::node_key(7).public();
    // The block names the committee of epoch 0, whichever is in force behind it.
    for (epoch, makes_another) in [(1, true), (0, false)] {
        let mut bench = Bench::leading();
        let current = GROUPS.map(|group| committee(group, if group == SHARD { epoch } else { 0 })).to_vec();
        let former = if epoch > 0 { vec![committee(SHARD, 0)] } else { Vec::new() };
        bench.step(Input::Committees(Committees {
            current,
            former,
            coming: Some(coming.clone()),
            ..Committees::default()
        }));
        bench.committed(1, Vec::new());
        let out = bench.step(Input::Timer);
        let made = out.iter().any(|output| matches!(output, Output::Propose { .. }));
        assert_eq!(made, makes_another, "epoch {epoch}: {out:?}");
    }
}

#[test]
fn who_starts_again_behind_the_block_that_gave_it_its_seat_asks_for_its_certificate() {
    let mut current = committee(SHARD, 1);
    current.members[2].node = NodeId(7);
    current.members[2].key = support::node_key(7).public();
    let known = Committees { current: vec![current], former: vec![committee(SHARD, 0)], ..Committees::default() };
    let mut bench = Bench { driver: GroupDriver::new(DriverConfig { join: 2, ..config(7) }), now: Tick(0) };
    // Those before it have certified the block, to which nothing is added any more.
    bench.step(Input::System(SystemView { committees: known, ..system(1) }));
    for now in [0, certify::ANNOUNCE_AGAIN_MS] {
        bench.now = Tick(now);
        let out = bench.step(Input::Timer);
        assert_eq!((wanted(&out), attested(&out)), (vec![1], vec![]), "at {now} ms");
    }
    let out = bench.peer(2, PeerMessage::Certified(support::certify(header(SHARD, 1))));
    assert!(matches!(&out[..], [Output::Certified(_)]), "{out:?}");
    bench.now = Tick(2 * certify::ANNOUNCE_AGAIN_MS);
    assert!(wanted(&bench.step(Input::Timer)).is_empty());
}

#[test]
fn the_certificate_of_a_hand_over_is_asked_of_those_who_signed_it_too() {
    let mut current = committee(SHARD, 1);
    current.members[2].node = NodeId(7);
    let known = Committees { current: vec![current], former: vec![committee(SHARD, 0)], ..Committees::default() };
    let mut bench = Bench { driver: GroupDriver::new(config(1)), now: Tick(0) };
    bench.step(Input::System(SystemView { committees: known, ..system(1) }));
    let out = bench.step(Input::Want(Height(1)));
    let asked = out.iter().filter_map(|output| match output {
        Output::Send { node, message: PeerMessage::Want { height: Height(1) }, .. } => Some(node.0),
        _ => None,
    });
    assert_eq!(asked.collect::<Vec<_>>(), [2, 3, 7]);
}

/// The node has a replica since an earlier plan, which has not heard of this one yet and signs on.
#[test]
fn a_signature_of_a_block_from_before_a_plan_does_not_show_that_who_is_to_join_is_ready() {
    let mut coming = committee(SHARD, 2);
    coming.members[2].node = NodeId(14);
    coming.members[2].key = support::node_key(14).public();
    let mut bench = Bench::leading();
    bench.committed(1, Vec::new());
    bench.step(Input::Committees(Committees { coming: Some(coming), height: Height(2), ..committees().into() }));
    let mut out = bench.step(Input::Timer);
    assert!(out.iter().any(|output| matches!(output, Output::Propose { .. })), "a later block is called for: {out:?}");
    let ready =
        |out: &[Output]| out.iter().any(|output| matches!(output, Output::Send { message: PeerMessage::Ready(_), .. }));
    for (height, proves) in [(1, false), (2, false), (3, true)] {
        if height > 1 {
            bench.committed(height, Vec::new());
        }
        for node in [2, 14] {
            let attestation = support::attestation(node, &header(SHARD, height));
            out.extend(bench.peer(node, PeerMessage::Attest { attestation, wants_certificate: false }));
        }
        assert_eq!(ready(&out), proves, "block {height}");
    }
}

#[test]
fn a_replica_left_from_an_earlier_time_in_the_group_does_not_sign_for_the_one_that_is_to_join() {
    let mut coming = committee(SHARD, 4);
    coming.members[2].node = NodeId(7);
    coming.members[2].key = support::node_key(7).public();
    for (join, signs) in [(5, true), (1, false), (4, false)] {
        let mut bench = Bench { driver: GroupDriver::new(DriverConfig { join, ..config(7) }), now: Tick(0) };
        let known = Committees { coming: Some(coming.clone()), ..committees().into() };
        bench.step(Input::System(SystemView { committees: known, ..system(0) }));
        assert_eq!(attested(&bench.committed(1, Vec::new())).contains(&1), signs, "join {join}");
        bench.now = Tick(1_000);
        assert_eq!(attested(&bench.step(Input::Timer)).contains(&1), signs, "join {join}, again");
    }
}

#[test]
fn a_replica_whose_state_a_majority_contradicts_asks_to_be_stopped() {
    let mut bench = Bench::new();
    bench.committed(1, Vec::new());
    let other = Header { state_root: Hash32([7; 32]), ..header(SHARD, 1) };
    let mut weak = support::certify(other.clone());
    weak.signatures.truncate(1);
    assert!(bench.peer(2, PeerMessage::Certified(weak)).is_empty(), "nobody is stopped without a majority");
    let out = bench.peer(2, PeerMessage::Certified(support::certify(other)));
    assert!(matches!(&out[..], [.., Output::Stop(why)] if why.contains("height 1 of shard-0")), "{out:?}");
}

/// The replicas of [`PEER`], with the signatures that they send each other on their way.
struct Sources(BTreeMap<u32, GroupDriver>);

impl Sources {
    fn new() -> Self {
        let start = |node: u32| {
            let mut driver = GroupDriver::new(DriverConfig { group: PEER, ..config(node) });
            let view = SystemView { recent: vec![recent(PEER, 0)], outbox: Vec::new(), ..system(0) };
            driver.step(Tick(0), Input::System(view), &mut Vec::new());
            (node, driver)
        };
        Self([4, 5, 6].map(start).into())
    }

    /// A block with this mail for [`SHARD`] reaches these replicas, and they certify it.
    fn commit(&mut self, sent: &[Vec<u8>], among: &[u32]) {
        let outbox = vec![stream_head(SHARD, sent)];
        let header = Header { outbox_root: cross_shard::stream::root(&outbox), ..header(PEER, 1) };
        let mail =
            (0..).zip(sent).map(|(seq, message)| EmittedMail { dest: SHARD, seq, message: message.clone().into() });
        let block = CommittedBlock { mail: mail.collect(), outbox, ..block(header) };
        let mut sends = Vec::new();
        for node in among {
            let driver = self.0.get_mut(node).expect("a replica");
            let mut out = Vec::new();
            driver.step(Tick(0), Input::Committed(block.clone()), &mut out);
            sends.extend(out.into_iter().map(|output| (*node, output)));
        }
        for (from, output) in sends {
            let Output::Send { node, group: PEER, message } = output else { continue };
            if among.contains(&node.0) {
                self.receive(Tick(0), from, node, message);
            }
        }
        for node in among {
            assert_eq!(self.0[node].certificate().map(|certificate| certificate.header.height), Some(Height(1)));
        }
    }

    fn receive(&mut self, now: Tick, from: u32, node: NodeId, message: PeerMessage) -> Vec<Output> {
        let mut out = Vec::new();
        let driver = self.0.get_mut(&node.0).expect("a replica");
        driver.step(now, Input::Peer { from: NodeId(from), message: Box::new(message) }, &mut out);
        out
    }
}

#[test]
fn mail_comes_from_another_replica_when_the_one_that_is_pulled_from_is_cut_off_from_its_group() {
    let sent = credits(3);
    let (mut puller, mut sources) = (Bench::leading(), Sources::new());
    // Node 4 hears from nobody in its group, but answers whoever asks it.
    sources.commit(&sent, &[5, 6]);
    let mut delivered = None;
    while delivered.is_none() && puller.now < Tick(10_000) {
        puller.now = Tick(puller.now.0 + 25);
        let mut asked = puller.step(Input::Timer);
        while let Some(output) = asked.pop() {
            let Output::Send { node, group: PEER, message } = output else { continue };
            for answer in sources.receive(puller.now, 1, node, message) {
                let Output::Send { node: NodeId(1), group: SHARD, message } = answer else { continue };
                let out = puller.peer(node.0, message);
                if proposed(&out).iter().any(|command| matches!(command, Command::Deliver(_))) {
                    delivered = Some(node);
                }
                asked.extend(out);
            }
        }
    }
    assert!(delivered.is_some_and(|node| node != NodeId(4)), "by {delivered:?}");
    assert!(puller.now < Tick(3_000), "after {:?}", puller.now);
}
