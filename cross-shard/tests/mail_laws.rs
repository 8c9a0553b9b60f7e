//! Laws of mail: between two groups with real certificates, every message is taken exactly once and
//! in order, whatever is cut, repeated, reordered, delayed or tampered with on the way.

mod support;

use cross_shard::stream::{StreamLeaf, outbox_leaves};
use cross_shard::{AckProof, Bundle, Message};
use ledger::hash::Hash32;
use ledger::ids::{GroupId, Height, NodeId};
use ledger::{Reject, schema};
use proptest::prelude::*;
use proptest::sample::Index;
use support::{Certified, Group, ack, bundle, credit, with_view};

const SOURCE: GroupId = GroupId::shard(0);
const DEST: GroupId = GroupId::shard(1);

/// One way to tamper with a bundle; `at` chooses among messages that are new to the receiver.
#[derive(Clone, Copy, Debug)]
enum Tamper {
    Flip,
    Drop,
    Repeat,
    Swap,
    Foreign,
    Undecodable,
    Proof,
    Head,
    NextSeq,
    Peer,
    Path,
    PathIndex,
    Header,
    OutboxRoot,
    Signature,
    TooFew,
    Signer,
    Version,
    CertificateVersion,
    Source,
    Dest,
}

const TAMPERS: [Tamper; 21] = [
    Tamper::Flip,
    Tamper::Drop,
    Tamper::Repeat,
    Tamper::Swap,
    Tamper::Foreign,
    Tamper::Undecodable,
    Tamper::Proof,
    Tamper::Head,
    Tamper::NextSeq,
    Tamper::Peer,
    Tamper::Path,
    Tamper::PathIndex,
    Tamper::Header,
    Tamper::OutboxRoot,
    Tamper::Signature,
    Tamper::TooFew,
    Tamper::Signer,
    Tamper::Version,
    Tamper::CertificateVersion,
    Tamper::Source,
    Tamper::Dest,
];

/// Tampers with a bundle, or returns `None` when there is nothing to tamper with in this way.
fn tamper(original: &Bundle, how: Tamper, known: usize, index: Index) -> Option<Bundle> {
    let mut b = original.clone();
    let at = known + index.index(b.messages.len().checked_sub(known).filter(|new| *new > 0)?);
    match how {
        Tamper::Flip => {
            let byte = index.index(b.messages[at].len());
            b.messages[at][byte] ^= 1;
        }
        Tamper::Drop => {
            b.messages.remove(at);
        }
        Tamper::Repeat => b.messages.insert(at, b.messages[at].clone()),
        Tamper::Swap => {
            let other = known + usize::from(at == known);
            (other < b.messages.len()).then(|| b.messages.swap(at, other))?;
        }
        Tamper::Foreign => b.messages[at] = credit(1 << 40).encode(),
        Tamper::Undecodable => b.messages[at].push(0),
        Tamper::Proof => b.proof.first_mut()?.0[0] ^= 1,
        Tamper::Head => b.leaf.head.0[31] ^= 1,
        Tamper::NextSeq => b.leaf.next_seq += 1,
        Tamper::Peer => b.leaf.peer = GroupId::shard(2),
        Tamper::Path => b.path.siblings.first_mut()?.0[0] ^= 1,
        Tamper::PathIndex => b.path.index = b.path.count,
        Tamper::Header => b.certificate.header.height = Height(1 << 40),
        Tamper::OutboxRoot => b.certificate.header.outbox_root = Hash32::ZERO,
        Tamper::Signature => b.certificate.signatures[0].1.0[0] ^= 1,
        Tamper::TooFew => b.certificate.signatures.truncate(1),
        Tamper::Signer => b.certificate.signatures[1].0 = NodeId(9),
        Tamper::Version => b.version = 1,
        Tamper::CertificateVersion => b.certificate.version = 2,
        Tamper::Source => b.source = GroupId::shard(2),
        Tamper::Dest => b.dest = GroupId::shard(2),
    }
    // With as many hashes as there should be, only where they lead can tell.
    if index.index(2) == 1 {
        match how {
            Tamper::Drop => b.proof.insert(0, Hash32::ZERO),
            Tamper::Repeat => b.proof.truncate(b.proof.len().saturating_sub(1)),
            _ => {}
        }
    }
    Some(b)
}

#[derive(Clone, Debug)]
enum Event {
    Emit(usize),
    Certify,
    Deliver { certified: Index, first: Index, length: usize },
    Next { length: usize },
    Tampered { certified: Index, first: Index, length: usize, how: Tamper, at: Index },
    CertifyDest,
    Ack(Index),
    ForgedAck(Index, u8),
}

fn event() -> impl Strategy<Value = Event> {
    let index = || any::<Index>();
    prop_oneof![
        4 => (1usize..6).prop_map(Event::Emit),
        3 => Just(Event::Certify),
        4 => (index(), index(), 1usize..10)
            .prop_map(|(certified, first, length)| Event::Deliver { certified, first, length }),
        4 => (1usize..6).prop_map(|length| Event::Next { length }),
        4 => (index(), index(), 1usize..10, prop::sample::select(TAMPERS.to_vec()), index())
            .prop_map(|(certified, first, length, how, at)| Event::Tampered { certified, first, length, how, at }),
        2 => Just(Event::CertifyDest),
        3 => index().prop_map(Event::Ack),
        2 => (index(), any::<u8>()).prop_map(|(at, how)| Event::ForgedAck(at, how)),
    ]
}

/// The two groups, and what a person with paper and pencil would expect of them.
struct World {
    source: Group,
    dest: Group,
    sent: Vec<Vec<u8>>,
    taken: Vec<Vec<u8>>,
    acked: u64,
    heads: Vec<Certified>,
    cursors: Vec<Certified>,
}

impl World {
    fn new() -> Self {
        let (mut source, mut dest) = (Group::new(0), Group::new(1));
        dest.learn(&source.committee);
        source.learn(&dest.committee);
        // Neighbours on both sides, so that paths have siblings.
        for peer in [2, 3, 4] {
            source.emit(GroupId::shard(peer), credit(peer.into()).encode());
        }
        let (sent, taken, heads, cursors) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { source, dest, sent, taken, acked: 0, heads, cursors }
    }

    /// Any part of the stream under any certified head, as far as there is one.
    fn pick(&self, certified: Index, first: Index, length: usize) -> Option<Bundle> {
        let at = self.heads.get(certified.index(self.heads.len().max(1)))?;
        let head = at.outbox.iter().find(|leaf| leaf.peer == DEST)?.next_seq as usize;
        let first = first.index(head);
        Some(bundle(at, &self.sent, DEST, first, first + length))
    }

    fn deliver(&mut self, bundle: &Bundle) {
        let cursor = self.taken.len();
        let (first, end) = (bundle.first_seq as usize, bundle.first_seq as usize + bundle.messages.len());
        let (result, wrote) = self.dest.deliver(bundle);
        if first > cursor {
            assert_eq!((result, wrote), (Err(Reject::MailGap), false));
            return;
        }
        let new = &bundle.messages[(cursor - first).min(bundle.messages.len())..];
        let expected: Vec<(u64, Message)> = (cursor as u64..)
            .zip(new)
            .map(|(seq, bytes)| (seq, borsh::from_slice(bytes).expect("we sent it")))
            .collect();
        assert_eq!((result, wrote), (Ok(expected), end > cursor));
        self.taken.extend_from_slice(new);
    }

    fn deliver_tampered(&mut self, original: &Bundle, how: Tamper, at: Index) {
        let Some(known) = self.taken.len().checked_sub(original.first_seq as usize) else {
            return;
        };
        let Some(bundle) = tamper(original, how, known, at) else {
            return;
        };
        if bundle.messages.len() <= known {
            return;
        }
        // A source that nobody knows starts at cursor 0, which may look like a gap.
        let (result, wrote) = self.dest.deliver(&bundle);
        let refusals: &[Reject] = match how {
            Tamper::Source => &[Reject::MailForged, Reject::MailGap],
            _ => &[Reject::MailForged],
        };
        assert!(!wrote && refusals.contains(&result.clone().expect_err("tampered")), "{how:?}: {result:?}");
    }

    fn acknowledge(&mut self, proof: &AckProof) {
        let expected = proof.leaf.next_seq.max(self.acked);
        let (result, wrote) = self.source.acknowledge(proof);
        assert_eq!((result, wrote), (Ok(expected), expected > self.acked));
        self.acked = expected;
    }

    fn acknowledge_forged(&mut self, mut proof: AckProof, how: u8) {
        match how % 7 {
            0 => proof.leaf.next_seq += 1,
            1 => proof.leaf.peer = GroupId::shard(2),
            2 => proof.version = 2,
            3 => proof.path.index = proof.path.count,
            4 => proof.certificate.signatures.truncate(1),
            5 => proof.certificate.header.inbox_cursors_root = Hash32::ZERO,
            _ => proof.certificate.header.group = SOURCE,
        }
        if proof.leaf.next_seq > self.acked {
            let (result, wrote) = self.source.acknowledge(&proof);
            assert!(result.is_err() && !wrote, "{result:?}");
        }
    }

    fn check(&mut self) {
        assert!(self.sent.starts_with(&self.taken), "taken once, in order, nothing else");
        assert_eq!(self.dest.cursor(SOURCE), self.taken.len() as u64);
        assert!(self.acked <= self.taken.len() as u64, "nothing is acknowledged before it is taken");
        for (seq, message) in (0u64..).zip(&self.sent) {
            let stored = self.source.state.get(&schema::mail(DEST, seq));
            let expected = (seq >= self.acked).then_some(&message[..]);
            assert_eq!(stored.map(|bytes| &bytes[..]), expected, "message {seq}");
        }
        let leaf = |leaves: Vec<StreamLeaf>| leaves.into_iter().find(|leaf| leaf.peer == DEST);
        let (head, _) = with_view(&mut self.source.state, |view| leaf(outbox_leaves(view)));
        assert_eq!(head.map_or(0, |head| head.next_seq), self.sent.len() as u64);
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Emit(count) => {
                for _ in 0..count {
                    let message = credit(self.sent.len() as u64).encode();
                    assert_eq!(self.source.emit(DEST, message.clone()), self.sent.len() as u64);
                    self.sent.push(message);
                }
            }
            Event::Certify => self.heads.push(self.source.certify()),
            Event::CertifyDest => self.cursors.push(self.dest.certify()),
            Event::Deliver { certified, first, length } => {
                if let Some(bundle) = self.pick(certified, first, length) {
                    self.deliver(&bundle);
                }
            }
            Event::Next { length } => {
                let first = self.taken.len();
                let head = self
                    .heads
                    .last()
                    .filter(|at| at.outbox.iter().any(|leaf| leaf.peer == DEST && leaf.next_seq > first as u64));
                if let Some(at) = head {
                    let bundle = bundle(at, &self.sent, DEST, first, first + length);
                    self.deliver(&bundle);
                    assert!(self.taken.len() > first, "a bundle at the cursor always moves it");
                }
            }
            Event::Tampered { certified, first, length, how, at } => {
                if let Some(bundle) = self.pick(certified, first, length) {
                    self.deliver_tampered(&bundle, how, at);
                }
            }
            Event::Ack(at) => {
                let certified = self.cursors.get(at.index(self.cursors.len().max(1)));
                if let Some(proof) = certified.and_then(|certified| ack(certified, SOURCE)) {
                    self.acknowledge(&proof);
                }
            }
            Event::ForgedAck(at, how) => {
                let certified = self.cursors.get(at.index(self.cursors.len().max(1)));
                if let Some(proof) = certified.and_then(|certified| ack(certified, SOURCE)) {
                    self.acknowledge_forged(proof, how);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_message_is_taken_exactly_once_and_in_order(events in prop::collection::vec(event(), 1..60)) {
        let mut world = World::new();
        for event in events {
            world.step(event);
            world.check();
        }
        // Then the network heals: what is left arrives, and everything is acknowledged.
        world.step(Event::Emit(1));
        world.step(Event::Certify);
        while world.taken.len() < world.sent.len() {
            world.step(Event::Next { length: 3 });
        }
        let certified = world.dest.certify();
        world.acknowledge(&ack(&certified, SOURCE).expect("mail was taken"));
        world.check();
        prop_assert_eq!(&world.taken, &world.sent);
        prop_assert_eq!(world.acked, world.sent.len() as u64);
    }

    #[test]
    fn every_kind_of_tampering_is_refused(count in 2usize..8, known in 0usize..2, at in any::<Index>()) {
        let mut world = World::new();
        world.step(Event::Emit(count + 1));
        world.step(Event::Certify);
        if known > 0 {
            world.step(Event::Next { length: known });
        }
        let whole = bundle(&world.heads[0], &world.sent, DEST, 0, count);
        for how in TAMPERS {
            prop_assert!(tamper(&whole, how, known, at).is_some() || matches!(how, Tamper::Swap), "{:?}", how);
            world.deliver_tampered(&whole, how, at);
        }
        world.deliver(&whole);
        prop_assert_eq!(world.taken.len(), count);
    }

    #[test]
    fn no_bytes_bring_a_decoder_down(
        bytes in prop::collection::vec(any::<u8>(), 0..500),
        at in any::<Index>(),
        mask in 1u8..,
    ) {
        let _ = borsh::from_slice::<Message>(&bytes);
        let _ = borsh::from_slice::<Bundle>(&bytes);
        let _ = borsh::from_slice::<AckProof>(&bytes);
        let mut world = World::new();
        world.step(Event::Emit(3));
        world.step(Event::Certify);
        let whole = bundle(&world.heads[0], &world.sent, DEST, 0, 2);
        let mut bytes = borsh::to_vec(&whole).expect("writing to memory does not fail");
        let at = at.index(bytes.len());
        bytes[at] ^= mask;
        if let Ok(changed) = borsh::from_slice::<Bundle>(&bytes) {
            prop_assert_eq!(borsh::to_vec(&changed).expect("writing to memory does not fail"), bytes);
            let (result, wrote) = world.dest.deliver(&changed);
            // Only the path's index and count are not bound by anything.
            prop_assert!(!wrote || result.is_ok_and(|taken| taken.len() == 2) && changed.messages == whole.messages);
        }
    }
}

#[test]
fn an_unknown_committee_parks_the_bundle_and_its_arrival_frees_it() {
    let (mut source, mut dest) = (Group::new(0), Group::new(1));
    let sent = vec![credit(0).encode()];
    source.emit(DEST, sent[0].clone());
    let bundle = bundle(&source.certify(), &sent, DEST, 0, 1);
    assert_eq!(dest.deliver(&bundle), (Err(Reject::CommitteeUnknown), false));
    dest.learn(&Group::new(5).committee);
    assert_eq!(dest.deliver(&bundle), (Err(Reject::CommitteeUnknown), false));
    dest.learn(&source.committee);
    assert_eq!(dest.deliver(&bundle), (Ok(vec![(0, credit(0))]), true));
    let proof = ack(&dest.certify(), SOURCE).expect("mail was taken");
    assert_eq!(source.acknowledge(&proof), (Err(Reject::CommitteeUnknown), false));
    source.learn(&dest.committee);
    assert_eq!(source.acknowledge(&proof), (Ok(1), true));
    assert_eq!(source.acknowledge(&proof), (Ok(1), false));
}

#[test]
fn a_cursor_beyond_the_stream_is_refused() {
    let (mut source, mut dest) = (Group::new(0), Group::new(1));
    source.learn(&dest.committee);
    let beyond = cross_shard::InCursor { next_seq: 5, peaks: vec![Hash32::ZERO; 2] };
    with_view(&mut dest.state, |view| view.store(schema::inbox(SOURCE), &beyond));
    let proof = ack(&dest.certify(), SOURCE).expect("a cursor is there");
    assert_eq!(source.acknowledge(&proof), (Err(Reject::MailForged), false));
}

#[test]
fn sizes_beyond_the_limits_are_refused_before_anything_else() {
    use ledger::limits::{BUNDLE_BYTES_MAX, BUNDLE_MESSAGES_MAX};
    let (mut source, mut dest) = (Group::new(0), Group::new(1));
    let sent = vec![credit(0).encode()];
    source.emit(DEST, sent[0].clone());
    let whole = bundle(&source.certify(), &sent, DEST, 0, 1);
    let too_many = Bundle { messages: vec![sent[0].clone(); BUNDLE_MESSAGES_MAX + 1], ..whole.clone() };
    let too_large = Bundle { messages: vec![vec![0; BUNDLE_BYTES_MAX + 1]], ..whole.clone() };
    let last = Bundle { first_seq: u64::MAX, ..whole.clone() };
    assert_eq!(dest.deliver(&too_many), (Err(Reject::MailForged), false));
    assert_eq!(dest.deliver(&too_large), (Err(Reject::MailForged), false));
    assert_eq!(dest.deliver(&last), (Err(Reject::MailGap), false));
    let empty = Bundle { messages: Vec::new(), ..whole };
    assert_eq!(dest.deliver(&empty), (Ok(Vec::new()), false));
}

#[test]
fn a_stream_entry_that_does_not_decode_is_a_fault_and_not_left_out() {
    let mut source = Group::new(0);
    source.emit(DEST, credit(0).encode());
    source.state.insert(schema::outbox(DEST), bytes::Bytes::from_static(b"torn"));
    let mut view = ledger::view::View::new(&source.state);
    let _ = outbox_leaves(&mut view);
    assert!(view.into_writes().is_err());
}
