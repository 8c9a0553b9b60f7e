use super::*;
use crate::core::driver::book::Committees;
use crate::core::driver::testing::{block, config};
use crate::core::executor::EmittedMail;
use crate::core::peer::HeadProof;
use crate::core::support::{
    PEER, SHARD, ack_from_peer, bundle_from_peer, certify, committee, committees, credits, cursor_behind, header,
    stream_head,
};
use ledger::committee::Committee;
use ledger::header::Header;
use ledger::view::View;

fn known() -> Book {
    Committees::from(committees()).into()
}

const LEADING: Stand = Stand { leads: true, leader: Some(NodeId(1)) };
const FOLLOWING: Stand = Stand { leads: false, leader: Some(NodeId(2)) };

/// A mailroom of [`SHARD`] that has these messages for [`PEER`].
fn sending(sent: &[Vec<u8>]) -> Mailroom {
    let mut mailroom = Mailroom::default();
    let messages = sent.iter().cloned().map(Bytes::from).collect();
    mailroom.reset(&[OutboxView { leaf: stream_head(PEER, sent), acked: 0, messages }], &[]);
    mailroom
}

/// A mailroom of [`SHARD`] that has taken these messages of [`PEER`].
fn receiving(taken: &[Vec<u8>]) -> Mailroom {
    let mut mailroom = Mailroom::default();
    mailroom.reset(&[], &[(PEER, cursor_behind(taken))]);
    mailroom
}

/// A certified header of [`SHARD`] over these messages for [`PEER`].
fn certified(sent: &[Vec<u8>]) -> Certified {
    let outbox = vec![stream_head(PEER, sent)];
    let header = Header { outbox_root: cross_shard::stream::root(&outbox), ..header(SHARD, 9) };
    Certified { certificate: certify(header), outbox, inbox: Vec::new() }
}

fn bundles(out: &[Output]) -> Vec<&Bundle> {
    out.iter()
        .filter_map(|output| match output {
            Output::Send { node: NodeId(4), group: PEER, message: PeerMessage::Bundle(bundle) } => Some(bundle),
            _ => None,
        })
        .collect()
}

fn subscribe(mailroom: &mut Mailroom, next_seq: u64, latest: Option<&Certified>) -> Vec<Output> {
    let mut out = Vec::new();
    mailroom.subscribe(&config(1), Tick(0), PEER, NodeId(4), next_seq, latest, &known(), &mut out);
    out
}

fn judge(mailroom: &mut Mailroom, taken: &[Vec<u8>]) -> bool {
    mailroom.judge_ack(&ack_from_peer(taken), &config(1), &known())
}

fn accept(mailroom: &mut Mailroom, sent: &[Vec<u8>], first: usize, end: usize) -> bool {
    let bundle = bundle_from_peer(&committee(PEER, 0), sent, first, end);
    mailroom.accept(bundle, &config(1), &known()).is_some()
}

#[test]
fn an_acknowledgement_counts_once_and_again_after_leadership_was_lost() {
    let sent = credits(3);
    let mut mailroom = sending(&sent);
    assert!(judge(&mut mailroom, &sent[..2]));
    assert!(!judge(&mut mailroom, &sent[..2]), "it says nothing new");
    assert!(!judge(&mut mailroom, &sent[..1]));
    mailroom.leadership_changed();
    assert!(judge(&mut mailroom, &sent[..2]), "what was judged may not have got into the log");
    mailroom.proposals_lost();
    assert!(judge(&mut mailroom, &sent[..2]));
    assert!(judge(&mut mailroom, &sent), "a later cursor is news");
}

#[test]
fn an_acknowledgement_in_the_log_stays_known() {
    let sent = credits(3);
    let mut mailroom = sending(&sent);
    let acked = CommandOutcome::Acked(PEER, 2);
    mailroom.committed(&CommittedBlock { outcomes: vec![acked], ..block(header(SHARD, 1)) });
    mailroom.leadership_changed();
    assert!(!judge(&mut mailroom, &sent[..2]));
    assert_eq!(mailroom.outgoing[&PEER].kept.len(), 1, "what was acknowledged is dropped");
    assert!(judge(&mut mailroom, &sent));
}

#[test]
fn a_forged_acknowledgement_does_not_count() {
    let sent = credits(3);
    let mut mailroom = sending(&sent);
    assert!(!judge(&mut mailroom, &credits(4)), "beyond the stream");
    let mut forged = ack_from_peer(&sent);
    forged.certificate.signatures.truncate(1);
    assert!(!mailroom.judge_ack(&forged, &config(1), &known()));
    let mut raised = ack_from_peer(&sent[..1]);
    raised.leaf.next_seq = 3;
    assert!(!mailroom.judge_ack(&raised, &config(1), &known()));
    assert!(judge(&mut mailroom, &sent), "neither stands in the way of a good one");
}

#[test]
fn gaps_and_duplicates_are_ignored() {
    let sent = credits(6);
    let mut mailroom = receiving(&sent[..1]);
    assert!(!accept(&mut mailroom, &sent, 2, 4), "a gap");
    assert!(accept(&mut mailroom, &sent, 1, 3));
    assert!(!accept(&mut mailroom, &sent, 1, 3), "the same again");
    assert!(!accept(&mut mailroom, &sent, 0, 2), "an older part");
    assert!(!accept(&mut mailroom, &sent, 4, 6), "a gap behind what is expected");
    assert!(accept(&mut mailroom, &sent, 2, 5), "what overlaps and goes on");
    mailroom.proposals_lost();
    assert!(accept(&mut mailroom, &sent, 1, 3), "lost mail is taken again");
}

#[test]
fn mail_for_another_group_or_with_a_false_proof_is_ignored() {
    let sent = credits(3);
    let mut mailroom = receiving(&[]);
    let good = bundle_from_peer(&committee(PEER, 0), &sent, 0, 3);
    let mut taken = |bundle: &Bundle| mailroom.accept(bundle.clone(), &config(1), &known()).is_some();
    assert!(!taken(&Bundle { dest: GroupId::shard(2), ..good.clone() }));
    assert!(!taken(&Bundle { source: GroupId::shard(2), ..good.clone() }));
    assert!(!taken(&Bundle { proof: vec![Hash32::ZERO], ..good.clone() }));
    let mut weak = good.clone();
    weak.certificate.signatures.truncate(1);
    assert!(!taken(&weak));
    assert!(taken(&good));
}

#[test]
fn a_bundle_off_the_stream_does_not_keep_the_genuine_one_out() {
    let sent = credits(6);
    let mut mailroom = receiving(&sent[..1]);
    let good = bundle_from_peer(&committee(PEER, 0), &sent, 1, 3);
    // Certificate, path and counts are genuine in all of these; what they carry is not.
    let other = cross_shard::stream::message_hash(b"other");
    let forgeries = [
        Bundle { messages: vec![sent[2].clone(), sent[1].clone()], ..good.clone() },
        Bundle { messages: vec![sent[1].clone(), sent[4].clone()], ..good.clone() },
        Bundle { messages: vec![sent[1].clone(), b"no message".to_vec()], ..good.clone() },
        Bundle { proof: vec![other; good.proof.len()], ..good.clone() },
        Bundle { proof: good.proof.iter().rev().copied().collect(), ..good.clone() },
        Bundle { proof: good.proof[1..].to_vec(), ..good.clone() },
        Bundle { proof: [&good.proof[..], &[other]].concat(), ..good.clone() },
    ];
    for (number, forged) in forgeries.into_iter().enumerate() {
        assert_eq!(forged.check(&mut |group, _| Some(committee(group, 0))), Ok(()), "forgery {number}");
        assert!(mailroom.accept(forged, &config(1), &known()).is_none(), "forgery {number}");
    }
    assert!(mailroom.accept(good, &config(1), &known()).is_some());
    assert!(accept(&mut mailroom, &sent, 3, 6), "and what comes after it continues it");
}

#[test]
fn what_is_expected_continues_the_state_again_when_a_block_went_further() {
    let sent = credits(6);
    let mut mailroom = receiving(&sent[..1]);
    assert!(accept(&mut mailroom, &sent, 1, 2));
    // Another leader's entry brought more than we had proposed.
    let cursors = vec![(PEER, cursor_behind(&sent[..4]))];
    mailroom.committed(&CommittedBlock { cursors, ..block(header(SHARD, 1)) });
    assert!(accept(&mut mailroom, &sent, 4, 6));
}

/// A proof by a replica of [`PEER`] that it has these messages for [`SHARD`].
fn head(sent: &[Vec<u8>]) -> HeadProof {
    let Bundle { leaf, path, certificate, .. } = bundle_from_peer(&committee(PEER, 0), sent, 0, sent.len());
    HeadProof { version: 1, leaf, path, certificate }
}

/// A leader of [`SHARD`] that pulls from [`PEER`], and its time.
struct Puller {
    mailroom: Mailroom,
    now: u64,
}

impl Puller {
    fn new(taken: &[Vec<u8>]) -> Self {
        Self { mailroom: receiving(taken), now: 0 }
    }

    fn serving(&mut self, from: u32) {
        self.mailroom.serving(&config(1), Tick(self.now), PEER, NodeId(from), &known());
    }

    fn head(&mut self, from: u32, proof: &HeadProof) {
        self.mailroom.head(&config(1), Tick(self.now), NodeId(from), proof, &known());
    }

    /// Lets time pass in which the replica that is pulled from answers; returns whom pulls and
    /// probes went to.
    fn pass(&mut self, ms: u64, has_room: bool) -> (Vec<u32>, Vec<u32>) {
        let (mut pulls, mut probes) = (Vec::new(), Vec::new());
        for _ in 0..ms / 25 {
            let mut out = Vec::new();
            self.mailroom.pull(&config(1), LEADING, Tick(self.now), has_room, None, &known(), &mut out);
            for output in out {
                match output {
                    Output::Send { node, group: PEER, message: PeerMessage::Pull { .. } } => {
                        pulls.push(node.0);
                        self.serving(node.0);
                    }
                    Output::Send { node, group: PEER, message: PeerMessage::Probe { .. } } => probes.push(node.0),
                    _ => {}
                }
            }
            self.now += 25;
        }
        (pulls, probes)
    }
}

#[test]
fn a_source_that_answers_and_delivers_is_kept_and_the_others_are_asked_beside_it() {
    let sent = credits(6);
    let mut puller = Puller::new(&sent[..1]);
    let (pulls, probes) = puller.pass(9_000, true);
    assert_eq!(pulls, [4; 30], "one every 300 ms, to the same replica");
    assert_eq!(probes, [5, 6].repeat(5), "one every 900 ms, to the others in turn");
    for end in 2..=6 {
        puller.head(5, &head(&sent[..end]));
        assert!(puller.pass(200, true).0.iter().all(|node| *node == 4));
        assert!(accept(&mut puller.mailroom, &sent[..end], end - 1, end));
        assert!(puller.pass(2_000, true).0.iter().all(|node| *node == 4), "it was delivered in time");
    }
}

#[test]
fn a_source_that_answers_and_does_not_deliver_is_left() {
    let sent = credits(4);
    let mut puller = Puller::new(&sent[..1]);
    puller.pass(1_000, true);
    puller.head(6, &head(&sent));
    assert_eq!(puller.pass(DELIVER_WITHIN_MS, true).0, [4, 4], "it has a moment");
    let (pulls, _) = puller.pass(500, true);
    assert!(
        !pulls.is_empty() && pulls.iter().all(|node| *node == 6),
        "then the one that proved it is asked: {pulls:?}"
    );
    // That one withholds what it proved: the next one is asked, until it has come.
    let (pulls, _) = puller.pass(3 * DELIVER_WITHIN_MS, true);
    assert!([4, 5].iter().all(|node| pulls.contains(node)), "{pulls:?}");
    assert!(accept(&mut puller.mailroom, &sent, 1, 4));
    let (pulls, _) = puller.pass(5_000, true);
    assert!(pulls.windows(2).all(|pair| pair[0] == pair[1]), "what delivers is kept: {pulls:?}");
}

#[test]
fn nobody_is_left_for_what_is_not_proved() {
    let sent = credits(4);
    let mut puller = Puller::new(&sent[..1]);
    let good = head(&sent);
    let mut weak = good.clone();
    weak.certificate.signatures.truncate(1);
    let mut raised = good.clone();
    raised.leaf.next_seq = 1_000;
    let mut other = good.clone();
    other.leaf.peer = GroupId::shard(2);
    for proof in [weak, raised, other, HeadProof { version: 2, ..good.clone() }, head(&sent[..1])] {
        puller.head(5, &proof);
    }
    puller.head(2, &good);
    assert!(puller.pass(5_000, true).0.iter().all(|node| *node == 4));
    // Nor for what was delivered and had no room here.
    puller.head(5, &good);
    assert!(puller.pass(5_000, false).0.iter().all(|node| *node == 4));
}

#[test]
fn only_the_replica_that_was_asked_can_answer() {
    let mut mailroom = receiving(&[]);
    let mut asked = Vec::new();
    for step in 0..200 {
        let mut out = Vec::new();
        mailroom.pull(&config(1), LEADING, Tick(step * 25), true, None, &known(), &mut out);
        asked.extend(out.iter().filter_map(|output| match output {
            Output::Send { node, group: PEER, message: PeerMessage::Pull { .. } } => Some(node.0),
            _ => None,
        }));
        mailroom.serving(&config(1), Tick(step * 25), PEER, NodeId(6), &known());
    }
    assert_eq!(asked[..5], [4, 4, 5, 5, 6], "others answering do not make a silent one heard");
    assert!(asked[5..].iter().all(|node| *node == 6), "{asked:?}");
}

#[test]
fn a_probe_is_answered_with_what_is_certified_and_new() {
    let sent = credits(3);
    let ask = |next_seq, latest: Option<&Certified>| {
        let mut out = Vec::new();
        Mailroom::default().probed(PEER, NodeId(4), next_seq, latest, &mut out);
        out
    };
    let latest = certified(&sent);
    assert!(ask(0, None).is_empty(), "nothing is certified");
    assert!(ask(3, Some(&latest)).is_empty(), "nothing is new");
    let out = ask(2, Some(&latest));
    let [Output::Send { node: NodeId(4), group: PEER, message: PeerMessage::Head(proof) }] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(proof.leaf, stream_head(PEER, &sent));
    assert!(proof.path.leads_to(&proof.leaf.hash(), &proof.certificate.header.outbox_root));
}

/// The state of [`PEER`], as far as mail of [`SHARD`] needs it.
fn receiver() -> BTreeMap<Vec<u8>, Bytes> {
    let shard = committee(SHARD, 0);
    let bytes = borsh::to_vec(&shard).expect("writing to memory does not fail");
    BTreeMap::from([(ledger::schema::committee(SHARD, &shard.hash()), bytes.into())])
}

/// Takes bundles as the machine of [`PEER`] does and returns how many messages were new.
fn deliver_all(state: &mut BTreeMap<Vec<u8>, Bytes>, bundles: &[&Bundle]) -> u64 {
    let mut view = View::new(&*state);
    let mut taken = 0;
    for bundle in bundles {
        taken += bundle.deliver(&mut view, PEER).expect("it leads to the head").len() as u64;
    }
    let writes = view.into_writes().expect("a map does not fail");
    state.extend(writes.into_iter().filter_map(|(key, value)| Some((key, value?))));
    taken
}

#[test]
fn long_streams_are_cut_into_bundles_that_the_receiver_takes() {
    let count = 2 * BUNDLE_MESSAGES_MAX + 100;
    let sent = credits(count as u64);
    let mut mailroom = sending(&sent);
    let out = subscribe(&mut mailroom, 0, Some(&certified(&sent)));
    let bundles = bundles(&out);
    let shape: Vec<_> = bundles.iter().map(|bundle| (bundle.messages.len(), bundle.proof.len())).collect();
    let max = BUNDLE_MESSAGES_MAX;
    // Between 4,096 and 8,292 lie the trees of 4,096, 64, 32 and 4 messages.
    assert_eq!(shape, [(max, 4), (max, 3), (100, 0)]);
    for bundle in &bundles {
        assert_eq!(bundle.check(&mut |group, _| Some(committee(group, 0))), Ok(()));
    }
    assert_eq!(deliver_all(&mut receiver(), &bundles), count as u64);
}

/// Mail that deliveries cause is not gated, and the destination may be away for long: of a stream far
/// beyond the window, under one late certificate, everything can be proved and is taken.
#[test]
fn a_stream_far_beyond_the_window_drains_under_one_certificate() {
    let count = 200_000;
    assert!(count > 3 * ledger::limits::MAIL_WINDOW_MESSAGES);
    let sent = credits(count);
    let latest = certified(&sent);
    // Part of it came after the start, and part was acknowledged in the middle of a bundle.
    let known = 70_000;
    let mut mailroom = sending(&sent[..known]);
    let mail = sent[known..].iter().zip(known as u64..).map(|(message, seq)| EmittedMail {
        dest: PEER,
        seq,
        message: message.clone().into(),
    });
    mailroom.committed(&CommittedBlock { mail: mail.collect(), ..block(header(SHARD, 9)) });
    let (mut state, mut next) = (receiver(), 0);
    let mut pulls = 0;
    while next < count {
        let out = subscribe(&mut mailroom, next, Some(&latest));
        let bundles = bundles(&out);
        assert!(bundles.len() <= SERVED_BUNDLES_MAX, "nobody is flooded");
        for bundle in &bundles {
            assert!(bundle.proof.len() <= ledger::limits::BUNDLE_PROOF_MAX);
            assert!(borsh::object_length(*bundle).expect("it encodes") < ledger::limits::BATCH_BYTES_MAX / 2);
        }
        // The last bundle is lost on the way, but for the last pull.
        let arrived = bundles.len() - usize::from(pulls < 2);
        let taken = deliver_all(&mut state, &bundles[..arrived]);
        assert!(taken > 0, "nothing comes beyond {next}");
        next += taken;
        pulls += 1;
        // What was taken is acknowledged, at no boundary of bundles.
        let acked = CommandOutcome::Acked(PEER, next - 1_000);
        mailroom.committed(&CommittedBlock { outcomes: vec![acked], ..block(header(SHARD, 9 + pulls)) });
    }
    assert_eq!(next, count);
    let head = ledger::schema::inbox(SHARD);
    let cursor: InCursor = borsh::from_slice(&state[&head]).expect("a cursor");
    assert_eq!(cursor.leaf(PEER), latest.outbox[0]);
}

/// A receiver comes back at a point that lies far behind, under a committee and a head of today.
#[test]
fn a_leader_that_was_away_for_long_accepts_what_it_missed() {
    let sent = credits(100_000);
    let mut mailroom = receiving(&sent[..10]);
    let whole = bundle_from_peer(&committee(PEER, 0), &sent, 10, 10 + BUNDLE_MESSAGES_MAX);
    assert!(mailroom.accept(whole, &config(1), &known()).is_some());
    assert_eq!(mailroom.incoming[&PEER].expected.next_seq, 10 + BUNDLE_MESSAGES_MAX as u64);
}

#[test]
fn large_messages_are_cut_by_size() {
    let sent = vec![vec![7; BUNDLE_BYTES_MAX / 3]; 7];
    let mut mailroom = sending(&sent);
    let out = subscribe(&mut mailroom, 1, Some(&certified(&sent)));
    let bundles = bundles(&out);
    let shape: Vec<_> =
        bundles.iter().map(|bundle| (bundle.first_seq, bundle.messages.len(), bundle.proof.len())).collect();
    // Between 4 and 7 lie the trees of two messages and of one.
    assert_eq!(shape, [(1, 3, 2), (4, 3, 0)]);
    for bundle in bundles {
        assert_eq!(bundle.check(&mut |group, _| Some(committee(group, 0))), Ok(()));
    }
}

#[test]
fn only_certified_mail_leaves_and_only_once() {
    let sent = credits(5);
    let mut mailroom = sending(&sent);
    assert!(bundles(&subscribe(&mut mailroom, 0, None)).is_empty(), "nothing is certified");
    let mut served = |latest: &Certified| {
        let mut out = Vec::new();
        mailroom.certified(&config(1), FOLLOWING, Tick(1), latest, &known(), &mut out);
        bundles(&out).iter().map(|bundle| (bundle.first_seq, bundle.messages.len())).collect::<Vec<_>>()
    };
    assert_eq!(served(&certified(&sent[..2])), [(0, 2)]);
    assert_eq!(served(&certified(&sent[..2])), []);
    assert_eq!(served(&certified(&sent)), [(2, 3)]);
}

#[test]
fn a_subscription_ends_when_it_is_not_repeated() {
    let sent = credits(4);
    let served = |expired_at: u64| {
        let mut mailroom = sending(&sent);
        subscribe(&mut mailroom, 0, None);
        mailroom.expire(Tick(expired_at));
        let mut out = Vec::new();
        mailroom.certified(&config(1), FOLLOWING, Tick(expired_at), &certified(&sent), &known(), &mut out);
        bundles(&out).len()
    };
    assert_eq!(served(SUBSCRIPTION_MS), 1);
    assert_eq!(served(SUBSCRIPTION_MS + 1), 0);
}

#[test]
fn a_subscription_ends_with_the_seat() {
    let sent = credits(3);
    let mut others = committee(PEER, 0);
    others.members.retain(|member| member.node != NodeId(4));
    let without: Book = Committees { current: vec![committee(SHARD, 0), others], ..Committees::default() }.into();
    for (committees, served) in [(known(), 1), (without, 0)] {
        let mut mailroom = sending(&sent);
        subscribe(&mut mailroom, 0, None);
        mailroom.keep_subscribers(&config(1), &committees);
        let mut out = Vec::new();
        mailroom.certified(&config(1), FOLLOWING, Tick(1), &certified(&sent), &committees, &mut out);
        assert_eq!(bundles(&out).len(), served);
    }
}

/// The committees after [`PEER`] was rebuilt under a new incarnation: that of the dead one is still in state.
fn reborn() -> (Committee, Book) {
    let old = committee(PEER, 0);
    let new = Committee { incarnation: ledger::ids::Incarnation(1), ..old.clone() };
    let mut current: Vec<Committee> = known().all().map(|(_, committee)| committee.clone()).collect();
    current.retain(|committee| committee.group != PEER);
    current.push(new.clone());
    (new, Committees { current, former: vec![old], ..Committees::default() }.into())
}

#[test]
fn mail_of_a_dead_incarnation_is_neither_taken_nor_kept_and_the_living_one_is_not_hindered() {
    let sent = credits(3);
    let (alive, known) = reborn();
    let living = || {
        let mut bundle = bundle_from_peer(&alive, &sent, 0, 3);
        let header = Header { incarnation: alive.incarnation, ..bundle.certificate.header.clone() };
        bundle.certificate = certify(header);
        bundle
    };
    let dead = bundle_from_peer(&committee(PEER, 0), &sent, 0, 3);
    let mut mailroom = receiving(&[]);
    assert!(mailroom.accept(dead.clone(), &config(1), &known).is_none());
    assert!(mailroom.unpark().is_empty(), "nothing brings its committee back");
    // Relabelled, so that it claims to be of the living one.
    let mut relabelled = dead.clone();
    relabelled.certificate.header.incarnation = alive.incarnation;
    relabelled.certificate.header.committee_hash = alive.hash();
    assert!(mailroom.accept(relabelled, &config(1), &known).is_none());
    // One that waits for a newer committee is not pushed out by it.
    let mut newer = bundle_from_peer(&committee(PEER, 7), &sent, 0, 3);
    newer.certificate.header.incarnation = alive.incarnation;
    assert!(mailroom.accept(newer, &config(1), &known).is_none());
    assert!(mailroom.accept(dead, &config(1), &known).is_none());
    assert_eq!(mailroom.unpark().len(), 1);
    assert!(mailroom.accept(living(), &config(1), &known).is_some());

    let mut mailroom = sending(&sent);
    assert!(!mailroom.judge_ack(&ack_from_peer(&sent), &config(1), &known), "nor are its acknowledgements");
    assert!(mailroom.judge_ack(&ack_from_peer(&sent), &config(1), &super::tests::known()));
}

/// What hands over is kept while somebody lacks what it proves, and no longer.
#[test]
fn a_hand_over_is_forgotten_when_its_mail_is_taken() {
    let sent = credits(6);
    let at = |height: u64, count: usize| {
        let outbox = vec![stream_head(PEER, &sent[..count])];
        let header = Header { outbox_root: cross_shard::stream::root(&outbox), ..header(SHARD, height) };
        Certified { certificate: certify(header), outbox, inbox: Vec::new() }
    };
    let mut mailroom = sending(&sent);
    // In whichever order their certificates come, and told again.
    for (height, count) in [(5, 4), (3, 2), (5, 4)] {
        mailroom.handed_over(at(height, count));
    }
    let latest = at(9, 6);
    let served = |mailroom: &mut Mailroom, from: u64| {
        let out = subscribe(mailroom, from, Some(&latest));
        let line = |bundle: &&Bundle| (bundle.first_seq, bundle.messages.len(), bundle.certificate.header.height.0);
        bundles(&out).iter().map(line).collect::<Vec<_>>()
    };
    assert_eq!(served(&mut mailroom, 0), [(0, 2, 3), (2, 2, 5), (4, 2, 9)]);
    for (taken, kept) in [(1, vec![3, 5]), (2, vec![5]), (3, vec![5]), (4, vec![])] {
        let outcomes = vec![CommandOutcome::Acked(PEER, taken)];
        mailroom.committed(&CommittedBlock { outcomes, ..block(header(SHARD, 9)) });
        let heights: Vec<u64> = mailroom.handovers.iter().map(|block| block.certificate.header.height.0).collect();
        assert_eq!(heights, kept, "{taken} are taken");
    }
    assert_eq!(served(&mut mailroom, 4), [(4, 2, 9)]);
}

/// The groups of [`known`], and so many others that mail waits.
fn crowded() -> Book {
    let mut current = committees();
    current.extend((100..400).map(|ordinal| Committee { group: GroupId::shard(ordinal), ..committee(PEER, 0) }));
    Committees::from(current).into()
}

/// Milliseconds between two bundles of a stream of [`crowded`].
const APART_MS: u64 = 1_515;

/// A certified header of [`SHARD`] over these messages for [`PEER`], and over what was taken of it.
fn certified_both(sent: &[Vec<u8>], taken: &[Vec<u8>]) -> Certified {
    let (outbox, inbox) = (vec![stream_head(PEER, sent)], vec![stream_head(PEER, taken)]);
    let root = cross_shard::stream::root;
    let header = Header { outbox_root: root(&outbox), inbox_cursors_root: root(&inbox), ..header(SHARD, 9) };
    Certified { certificate: certify(header), outbox, inbox }
}

/// A source among many groups.
struct Crowded {
    mailroom: Mailroom,
    known: Book,
}

impl Crowded {
    fn sending(sent: &[Vec<u8>]) -> Self {
        let known = crowded();
        assert_eq!(known.groups().count() as u64 * 5, APART_MS);
        let mut crowd = Self { mailroom: sending(sent), known };
        crowd.pull(0, 0);
        crowd
    }

    /// [`PEER`] asks from a place on, before anything is certified.
    fn pull(&mut self, now: u64, next_seq: u64) {
        let mut out = Vec::new();
        self.mailroom.subscribe(&config(1), Tick(now), PEER, NodeId(4), next_seq, None, &self.known, &mut out);
    }

    /// What goes to it with a new certificate: places of bundles, and proofs of what was taken.
    fn certify(&mut self, now: u64, latest: &Certified) -> (Vec<(u64, usize)>, Vec<AckProof>) {
        let mut out = Vec::new();
        self.mailroom.certified(&config(1), FOLLOWING, Tick(now), latest, &self.known, &mut out);
        told(&out)
    }

    /// What goes to it at a look.
    fn look(&mut self, now: u64, latest: &Certified) -> (Vec<(u64, usize)>, Vec<AckProof>) {
        let mut out = Vec::new();
        self.mailroom.serve_waiting(&config(1), Tick(now), Some(latest), &self.known, &mut out);
        told(&out)
    }
}

fn told(out: &[Output]) -> (Vec<(u64, usize)>, Vec<AckProof>) {
    let acks = out.iter().filter_map(|output| match output {
        Output::Send { node: NodeId(4), group: PEER, message: PeerMessage::Ack(proof) } => Some(proof.clone()),
        _ => None,
    });
    (bundles(out).iter().map(|bundle| (bundle.first_seq, bundle.messages.len())).collect(), acks.collect())
}

#[test]
fn among_many_groups_credits_wait_for_those_that_follow() {
    let sent = credits(40);
    let mut crowd = Crowded::sending(&sent);
    let at = |count: usize| certified_both(&sent[..count], &sent[..3]);
    assert_eq!(crowd.certify(1, &at(1)).0, [(0, 1)], "the first goes at once");
    assert_eq!(crowd.certify(2, &at(5)).0, []);
    assert_eq!(crowd.look(APART_MS - 100, &at(6)).0, []);
    let (places, acks) = crowd.look(APART_MS + 1, &at(7));
    assert_eq!(places, [(1, 6)], "then all that has come since");
    let [ack] = &acks[..] else { panic!("{acks:?}") };
    assert_eq!((ack.leaf, &ack.certificate), (stream_head(PEER, &sent[..3]), &at(7).certificate));
    assert_eq!(ack.check(PEER, &mut |group, _| Some(committee(group, 0))), Ok(()), "with what was taken, under it");
    assert_eq!(crowd.look(APART_MS + 10, &at(9)).0, [], "it was looked at a moment ago");
    assert_eq!(crowd.certify(3 * APART_MS, &at(10)).0, [(7, 3)], "after a pause it goes at once again");
    assert_eq!(crowd.look(9 * APART_MS, &at(10)), (vec![], vec![]), "there is nothing new");
}

#[test]
fn what_somebody_waits_for_does_not_wait_nor_do_many_credits() {
    let (mut sent, far) = (credits(3), credits(300));
    // No credit, by its first byte.
    sent.push(vec![4; 30]);
    sent.extend(credits(1));
    let at = |count: usize| certified_both(&sent[..count], &[]);
    let mut crowd = Crowded::sending(&sent);
    assert_eq!(crowd.certify(1, &at(1)), (vec![(0, 1)], vec![]), "nothing was taken, so nothing tells of it");
    assert_eq!(crowd.certify(2, &at(4)).0, [(1, 3)]);
    assert_eq!(crowd.certify(3, &at(5)).0, []);
    let mut crowd = Crowded::sending(&far);
    let at = |count: usize| certified_both(&far[..count], &[]);
    assert_eq!(crowd.certify(1, &at(1)).0, [(0, 1)]);
    assert_eq!(crowd.certify(2, &at(256)).0, []);
    assert_eq!(crowd.certify(3, &at(257)).0, [(1, 256)], "they are worth a certificate");
}

#[test]
fn asking_again_does_not_make_credits_come_sooner() {
    let sent = credits(9);
    let mut crowd = Crowded::sending(&sent);
    let at = |count: usize| certified_both(&sent[..count], &[]);
    assert_eq!(crowd.certify(1, &at(1)).0, [(0, 1)]);
    crowd.pull(300, 1);
    assert_eq!(crowd.certify(301, &at(3)).0, []);
    let mut out = Vec::new();
    crowd.mailroom.subscribe(&config(1), Tick(302), PEER, NodeId(5), 1, Some(&at(3)), &crowd.known, &mut out);
    let to_another =
        |output: &&Output| matches!(output, Output::Send { node: NodeId(5), message: PeerMessage::Bundle(_), .. });
    assert_eq!(out.iter().filter(to_another).count(), 1, "another replica is sent its first at once");
}

/// The proofs that a leader among many groups sends by itself, of mail of [`PEER`]: when, and of what.
fn proofs_of(taken: &[Vec<u8>], until: u64) -> Vec<(u64, u64)> {
    let (mut crowd, mut proofs) = (Crowded { mailroom: receiving(&[]), known: crowded() }, Vec::new());
    let config = config(1);
    let bundle = bundle_from_peer(&committee(PEER, 0), taken, 0, taken.len());
    assert!(crowd.mailroom.accept(bundle, &config, &crowd.known).is_some());
    let latest = certified_both(&[], taken);
    for now in (0..until).step_by(25) {
        let mut out = Vec::new();
        crowd.mailroom.certified(&config, LEADING, Tick(now), &latest, &crowd.known, &mut out);
        crowd.mailroom.pull(&config, LEADING, Tick(now), true, Some(&latest), &crowd.known, &mut out);
        proofs.extend(out.iter().filter_map(|output| match output {
            Output::Send { group: PEER, message: PeerMessage::Pull { ack: Some(ack), .. }, .. } => {
                Some((now, ack.leaf.next_seq))
            }
            _ => None,
        }));
    }
    proofs
}

#[test]
fn what_was_taken_of_mail_that_somebody_waits_for_is_told_at_once() {
    let apart = 4 * APART_MS;
    let credits = proofs_of(&credits(3), 3 * apart);
    let [(0, 3), (second, 3), (third, 3)] = credits[..] else { panic!("{credits:?}") };
    assert!(second >= apart && third >= second + apart, "{credits:?}");
    let seal = cross_shard::Message::Unseal(ledger::JobId(7)).encode();
    assert!(!Message::may_wait(&seal));
    let mut hurried = Incoming { told: 1, urgent: 2, proved: Some(Tick(9)), ..Incoming::default() };
    assert!(hurried.hurries());
    let (mut out, latest) = (Vec::new(), certified_both(&[], &[seal.clone(), seal]));
    let inbox = Heads::of(&latest.inbox);
    hurried.pull(&config(1), Tick(10), PEER, &[NodeId(4)], Some((&latest, &inbox)), Pace::of(400), &mut out);
    assert!(!hurried.hurries(), "it is told");
    hurried.pull(&config(1), Tick(11), PEER, &[NodeId(4)], Some((&latest, &inbox)), Pace::of(400), &mut out);
    let with = |output: &Output| matches!(output, Output::Send { message: PeerMessage::Pull { ack: Some(_), .. }, .. });
    assert_eq!(out.iter().map(with).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn a_certificate_is_checked_once_and_a_bad_one_each_time() {
    let sent = credits(2);
    let config = config(1);
    let bundle = bundle_from_peer(&committee(PEER, 0), &sent, 0, 2);
    let name = |certificate: &Certificate| ledger::Checked::name(certificate, &certificate.header.committee_hash);
    let mut forged = bundle.clone();
    forged.certificate.signatures[0].1.0[40] ^= 1;
    for _ in 0..2 {
        assert!(receiving(&[]).accept(forged.clone(), &config, &known()).is_none());
        assert!(!config.checked.knows(&name(&forged.certificate)));
    }
    assert!(receiving(&[]).accept(bundle.clone(), &config, &known()).is_some());
    assert!(config.checked.knows(&name(&bundle.certificate)));
    assert!(receiving(&[]).accept(forged, &config, &known()).is_none(), "another certificate of the same header");
    assert!(receiving(&[]).accept(bundle.clone(), &config, &known()).is_some());
    // Fewer signatures are another certificate.
    let mut weak = bundle;
    weak.certificate.signatures.truncate(1);
    assert!(receiving(&[]).accept(weak, &config, &known()).is_none());
}
