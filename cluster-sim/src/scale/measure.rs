//! Measures what work costs on this machine: the same functions that a node calls, each many times, by a clock from
//! outside. Takes a second or two.
//!
//! Of several rounds the fastest counts, since whatever else the machine does only adds to a round. What a node does
//! besides is not measured, and not part of the model: sockets and TLS, the log and the database.

mod audit;

use std::collections::BTreeMap;
use std::hint::black_box;

use bytes::Bytes;
use consensus::port::AppliedState;
use cross_shard::{AckProof, InCursor, Message, OutStream, StreamLeaf, stream};
use ledger::certificate::Certificate;
use ledger::crypto;
use ledger::genesis::VerifyMode;
use ledger::hash::{Hash32, tagged};
use ledger::header::Header;
use ledger::ids::{GroupId, LedgerId, NodeId, TimeMs, TxId};
use ledger::machine::BlockContext;
use ledger::merkle::MerkleTree;
use ledger::rules::Credit;
use ledger::tree::value_hash;
use ledger::tx::BODY_VERSION;
use ledger::view::View;
use ledger::{Committee, Move, ParsedTx, SecretKey, SignedTx, Slot, TxBody, schema};
use router::plan;
use shard_node::core::entry::{Command, ENTRY_VERSION, Entry};
use shard_node::core::executor::{GroupConstants, execute_behind};
use shard_node::core::heads::Heads;
use shard_node::core::machine::{BlockWork, CommandOutcome};
use shard_node::core::peer::PeerMessage;

use crate::scale::cluster::{Beginning, CREATED_MS, Directory, Shape, encoded};
use crate::scale::load::payment;
use crate::scale::model::Constants;

const ROUNDS: usize = 7;
/// Rounds of signatures: about half a second.
const SIGNED_ROUNDS: usize = 50;
/// Payments of a block, and of each other round.
const PAYMENTS: usize = 256;
const SIGNATURES: usize = 64;
const BLOCKS: usize = 16;
const ACCOUNTS: u32 = 1024;
/// Streams to and from so many groups.
const PEERS: u32 = 512;
/// Of which one block writes to so many.
const WRITTEN: u32 = 64;
const HOME: GroupId = GroupId::shard(0);
const SEALED: &str = "a shard that nobody cuts is sealed";

/// Counts nanoseconds from any moment on.
pub type Clock<'a> = &'a dyn Fn() -> u64;

/// Measures all of them.
///
/// # Errors
/// A text when what is measured does not do what it should.
pub fn measure(clock: Clock<'_>) -> Result<Constants, String> {
    let shape = Shape { shards: 1, nodes: 5, replicas: 5, accounts: ACCOUNTS, verify: VerifyMode::Ingest, seed: 1 };
    let directory = Directory::new(&shape)?;
    let mut group = Bench::new(&directory, HOME)?;
    let payments: Vec<Bytes> = (0..(ROUNDS + 1) * PAYMENTS).map(|number| unsigned(&directory, number)).collect();
    let route_ns = least(clock, PAYMENTS, || {
        payments[..PAYMENTS].iter().try_for_each(|bytes| {
            let tx = decoded(&directory, bytes)?;
            plan(&directory.genesis.layout, &tx).map(|planned| drop(black_box(planned))).map_err(refusal)
        })
    })?;
    let block_ns = group.empty_blocks(clock)?;
    let execute_ns = group.payments(clock, &payments)?.saturating_sub(block_ns) / PAYMENTS as u64;
    let tree_ns = group.tree(clock, &directory)?;
    let credit_ns = group.credits(clock, &directory)?.saturating_sub(block_ns) / PAYMENTS as u64;
    let (header, committee) = (group.last()?, &directory.genesis.committees[1]);
    group.open_streams();
    let with_streams = group.empty_blocks(clock)?;
    let stream_ns = with_streams.saturating_sub(block_ns) / u64::from(2 * PEERS);
    let head_ns = group.mailed(clock)?.saturating_sub(with_streams) / u64::from(WRITTEN);
    let of_header = Certifying::new(&directory, header, committee);
    let [verify_ns, sign_ns, check_ns, whole_ns] = of_header.signatures(clock)?;
    let certificate_ns = whole_ns.saturating_sub(check_ns * of_header.certificate.signatures.len() as u64);
    let (message_ns, path_ns) = (of_header.message(clock)?, paths(clock)?);
    let [audit_ns, audit_stream_ns] = audit::trails(clock, whole_ns)?;
    Ok(Constants {
        route_ns,
        verify_ns,
        execute_ns,
        tree_ns,
        block_ns,
        stream_ns,
        head_ns,
        credit_ns,
        sign_ns,
        check_ns,
        certificate_ns,
        message_ns,
        path_ns,
        audit_ns,
        audit_stream_ns,
    })
}

/// What one of `count` pieces of work takes in the fastest round.
fn least(clock: Clock<'_>, count: usize, mut work: impl FnMut() -> Result<(), String>) -> Result<u64, String> {
    let mut least = u64::MAX;
    for _ in 0..ROUNDS {
        let begin = clock();
        work()?;
        least = least.min(clock().saturating_sub(begin));
    }
    Ok(least / count as u64)
}

fn refusal(reject: ledger::Reject) -> String {
    format!("a payment was refused: {reject:?}")
}

fn decoded(directory: &Directory, bytes: &[u8]) -> Result<ParsedTx, String> {
    ParsedTx::decode(&directory.cluster, bytes).map_err(refusal)
}

fn salt(number: usize) -> [u8; 16] {
    (number as u128).to_be_bytes()
}

/// A payment between two accounts, as clients of a study make it.
fn unsigned(directory: &Directory, number: usize) -> Bytes {
    let accounts = &directory.accounts[0];
    let (from, to) = (&accounts[number % accounts.len()], &accounts[(number * 7 + 1) % accounts.len()]);
    payment(directory, from, to.address, 1, salt(number))
}

/// A payment that is signed.
fn signed(directory: &Directory, number: usize) -> Bytes {
    let key = SecretKey::derive(b"clients of a scale study", &number.to_be_bytes());
    let from = ledger::Authorisation::Single(key.public()).address();
    let to = directory.accounts[0][number % directory.accounts[0].len()].address;
    let body = TxBody {
        version: BODY_VERSION,
        cluster: directory.cluster,
        valid_until_ms: TimeMs(CREATED_MS),
        salt: salt(number),
        slots: vec![Slot::Clear {
            ledger: LedgerId::MAIN,
            mv: Move::Pay { from, to, asset: directory.asset.id, amount: 1 },
        }],
        memo: Vec::new(),
    };
    SignedTx::sign(&body, &[&key]).encode().into()
}

/// A group that blocks are executed in.
struct Bench {
    begun: Beginning,
    heads: Heads,
    constants: GroupConstants,
}

impl Bench {
    fn new(directory: &Directory, group: GroupId) -> Result<Self, String> {
        let begun = directory.beginning(group, &BTreeMap::new())?;
        let constants = GroupConstants { cluster: directory.cluster, group, verify: VerifyMode::Ingest };
        Ok(Self { begun, heads: Heads::default(), constants })
    }

    /// An entry for the next block.
    fn entry(&self, commands: Vec<Command>) -> Bytes {
        self.entry_in(1, commands)
    }

    /// An entry for a block so many milliseconds behind the last one.
    fn entry_in(&self, ms: u64, commands: Vec<Command>) -> Bytes {
        let stamp_ms = TimeMs(self.begun.applied.time_ms.0 + ms);
        Entry { version: ENTRY_VERSION, stamp_ms, commands }.encode().into()
    }

    fn run(&mut self, entry: &Bytes) -> Result<usize, String> {
        self.run_by(entry, BlockWork::run)
    }

    /// Executes an entry as a node does, by `run`. Returns how many receipts there are.
    fn run_by(
        &mut self,
        entry: &Bytes,
        run: impl FnOnce(&mut BlockWork, &mut View<'_>, BlockContext, &[Command]) -> Vec<CommandOutcome>,
    ) -> Result<usize, String> {
        let Beginning { state, tree, applied } = &mut self.begun;
        let log = AppliedState::default();
        let executed = execute_behind(state, tree, &mut self.heads, &self.constants, applied, log, entry, run)
            .map_err(|error| error.to_string())?;
        let block = executed.block().ok_or(SEALED)?;
        let receipts = block.receipts.len();
        self.keep(block.writes);
        self.begun.applied = block.applied;
        Ok(receipts)
    }

    /// A block that mails something to some of the peers.
    fn mailed(&mut self, clock: Clock<'_>) -> Result<u64, String> {
        let entry = self.entry(Vec::new());
        least(clock, 1, || {
            self.run_by(&entry, |_, view, _, _| {
                for peer in (1..=WRITTEN).map(GroupId::shard) {
                    stream::emit(view, peer, vec![7; 100]);
                }
                Vec::new()
            })
            .map(|_| ())
        })
    }

    fn keep(&mut self, writes: Vec<(Vec<u8>, Option<Bytes>)>) {
        for (key, value) in writes {
            match value {
                Some(value) => self.begun.state.insert(key, value),
                None => self.begun.state.remove(&key),
            };
        }
    }

    fn empty_blocks(&mut self, clock: Clock<'_>) -> Result<u64, String> {
        let entry = self.entry(Vec::new());
        least(clock, BLOCKS, || (0..BLOCKS).try_for_each(|_| self.run(&entry).map(|_| ())))
    }

    /// A whole block of payments.
    fn payments(&mut self, clock: Clock<'_>, payments: &[Bytes]) -> Result<u64, String> {
        let command = |bytes: &Bytes| Command::Tx(bytes.to_vec());
        let entries: Vec<Bytes> =
            payments.chunks(PAYMENTS).map(|some| self.entry(some.iter().map(command).collect())).collect();
        let mut next = entries.iter();
        least(clock, 1, || {
            let entry = next.next().ok_or("there are too few payments")?;
            match self.run(entry)? {
                PAYMENTS => Ok(()),
                other => Err(format!("{other} of {PAYMENTS} payments have a receipt")),
            }
        })
    }

    /// The state tree alone, for each payment: two accounts change.
    fn tree(&mut self, clock: Clock<'_>, directory: &Directory) -> Result<u64, String> {
        let position = |at: usize| schema::tree_position(&schema::account(&directory.accounts[0][at].address));
        let positions: Vec<_> = (0..2 * PAYMENTS).filter_map(position).collect();
        let (mut tree, mut round) = (self.begun.tree.clone(), 0u64);
        least(clock, PAYMENTS, || {
            round += 1;
            let value = Some(value_hash(&round.to_be_bytes()));
            tree.apply(positions.iter().map(|at| (*at, value))).map_err(|error| error.to_string())?;
            black_box(tree.root());
            Ok(())
        })
    }

    /// A whole block of credits from another group, each decoded and counted by the cursor.
    fn credits(&mut self, clock: Clock<'_>, directory: &Directory) -> Result<u64, String> {
        let credit = |number: usize| Credit {
            txid: TxId(tagged(b"scale study", &[&number.to_be_bytes()])),
            move_index: 0,
            account: directory.accounts[0][number].address,
            asset: directory.asset.id,
            amount: 1,
        };
        let messages: Vec<Vec<u8>> = (0..PAYMENTS).map(|number| Message::Credit(credit(number)).encode()).collect();
        let entry = self.entry(Vec::new());
        least(clock, 1, || {
            let mut cursor = InCursor::default();
            self.run_by(&entry, |work, view, at, _| {
                for bytes in &messages {
                    cursor.push(bytes);
                    if let Ok(message) = borsh::from_slice::<Message>(bytes) {
                        work.receive(view, at, GroupId::shard(1), message);
                    }
                }
                black_box(&cursor);
                Vec::new()
            })
            .map(|_| ())
        })
    }

    /// The header of the last block.
    fn last(&self) -> Result<Header, String> {
        let key = schema::header(self.begun.applied.height);
        let bytes = self.begun.state.get(&key).ok_or("the last block has no header")?;
        borsh::from_slice(bytes).map_err(|error| error.to_string())
    }

    /// Gives the group streams to and from other groups, all of them taken.
    fn open_streams(&mut self) {
        let (mut sent, mut taken) = (OutStream::default(), InCursor::default());
        for number in 0u8..5 {
            sent.push(&[number]);
            taken.push(&[number]);
        }
        sent.acked = sent.next_seq;
        for peer in (1..=PEERS).map(GroupId::shard) {
            self.begun.state.insert(schema::outbox(peer), encoded(&sent));
            self.begun.state.insert(schema::inbox(peer), encoded(&taken));
        }
        // No block has brought them: they are to be read.
        self.heads = Heads::default();
    }
}

fn heads() -> Vec<StreamLeaf> {
    let head = |peer: u32| StreamLeaf { peer: GroupId::shard(peer), next_seq: 5, head: Hash32([7; 32]) };
    (0..PEERS).map(head).collect()
}

/// The tree over the streams of a header, for each of them.
fn paths(clock: Clock<'_>) -> Result<u64, String> {
    let heads = heads();
    least(clock, heads.len(), || {
        black_box(MerkleTree::new(heads.iter().map(StreamLeaf::hash).collect()));
        Ok(())
    })
}

/// A header that members of a group certify.
struct Certifying<'a> {
    directory: &'a Directory,
    key: &'a SecretKey,
    committee: &'a Committee,
    certificate: Certificate,
}

impl<'a> Certifying<'a> {
    fn new(directory: &'a Directory, header: Header, committee: &'a Committee) -> Self {
        let digest = header.hash();
        let sign = |node: NodeId| (node, directory.keys[node.0 as usize].sign(&digest));
        let signers = committee.members.iter().take(usize::from(committee.threshold));
        let signatures = signers.map(|member| sign(member.node)).collect();
        let certificate = Certificate { version: 1, header, signatures };
        let key = &directory.keys[committee.members[0].node.0 as usize];
        Self { directory, key, committee, certificate }
    }

    /// What the signature of a payment takes, decoding it included, then signing and checking a header, and checking a whole
    /// certificate. They are most of all work and are compared with each other, so each round measures all of them: what
    /// else the machine does meanwhile adds to all alike.
    fn signatures(&self, clock: Clock<'_>) -> Result<[u64; 4], String> {
        let payments: Vec<Bytes> = (0..SIGNATURES).map(|number| signed(self.directory, number)).collect();
        let digests: Vec<Hash32> = (0..SIGNATURES).map(|number| tagged(b"scale study", &[&salt(number)])).collect();
        let public = self.key.public();
        let mut least = [u64::MAX; 4];
        for _ in 0..SIGNED_ROUNDS {
            let begin = clock();
            payments
                .iter()
                .try_for_each(|bytes| decoded(self.directory, bytes)?.verify_signatures().map_err(refusal))?;
            let verified = clock();
            let signed: Vec<_> = digests.iter().map(|digest| (*digest, self.key.sign(digest))).collect();
            let made = clock();
            let mut all = signed.iter();
            all.try_for_each(|(digest, signature)| crypto::verify(&public, digest, signature))
                .map_err(|error| error.to_string())?;
            let checked = clock();
            (0..SIGNATURES)
                .try_for_each(|_| black_box(&self.certificate).verify(self.committee))
                .map_err(|error| error.to_string())?;
            let took = [verified - begin, made - verified, checked - made, clock() - checked];
            least.iter_mut().zip(took).for_each(|(least, took)| *least = took.min(*least));
        }
        Ok(least.map(|round| round / SIGNATURES as u64))
    }

    /// Encoding a usual message or decoding it: a request for mail, with the proof of what was taken.
    fn message(&self, clock: Clock<'_>) -> Result<u64, String> {
        let heads = heads();
        let tree = MerkleTree::new(heads.iter().map(StreamLeaf::hash).collect());
        let path = tree.prove(0).ok_or("there is no stream")?;
        let ack = AckProof { version: 1, leaf: heads[0], path, certificate: self.certificate.clone() };
        let node = self.committee.members[0].node;
        let pull = PeerMessage::Pull { dest: HOME, node, next_seq: 5, ack: Some(ack) };
        let both = least(clock, PAYMENTS, || {
            (0..PAYMENTS).try_for_each(|_| {
                let bytes = black_box(&pull).encode();
                borsh::from_slice::<PeerMessage>(&bytes).map(|read| drop(black_box(read))).map_err(|e| e.to_string())
            })
        })?;
        Ok(both / 2)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use ledger::ids::Height;

    use super::*;

    #[test]
    fn everything_is_measured_by_the_clock_that_is_given() {
        let now = Cell::new(0u64);
        let each = 51_200_000;
        let clock = || {
            now.set(now.get() + each);
            now.get()
        };
        let constants = measure(&clock).unwrap();
        // Every round took as long, whatever was done in it.
        let (blocks, payments, signatures) = (BLOCKS as u64, PAYMENTS as u64, SIGNATURES as u64);
        assert_eq!((constants.sign_ns, constants.check_ns), (each / signatures, each / signatures));
        assert_eq!((constants.verify_ns, constants.route_ns), (each / signatures, each / payments));
        assert_eq!(constants.block_ns, each / blocks);
        assert_eq!(constants.execute_ns, (each - each / blocks) / payments);
        assert_eq!((constants.credit_ns, constants.tree_ns), (constants.execute_ns, each / payments));
        assert_eq!((constants.path_ns, constants.message_ns), (each / u64::from(PEERS), each / payments / 2));
        // Blocks with streams took no longer than those without, and a certificate no longer than its signatures.
        assert_eq!((constants.stream_ns, constants.certificate_ns), (0, 0));
        assert_eq!(constants.head_ns, (each - each / blocks) / u64::from(WRITTEN));
        // Nor did trails with many streams take longer than those with few.
        let header_ns = (each / audit::TRAILS as u64 - each / signatures) / audit::HEADERS as u64;
        assert_eq!((constants.audit_ns, constants.audit_stream_ns), (header_ns, 0));
        assert!(now.get() > 0 && constants.certificate(3) == 3 * each / signatures);
    }

    #[test]
    fn what_is_measured_is_executed() {
        let shape = Shape { shards: 1, nodes: 5, replicas: 5, accounts: ACCOUNTS, verify: VerifyMode::Ingest, seed: 1 };
        let directory = Directory::new(&shape).unwrap();
        let mut bench = Bench::new(&directory, HOME).unwrap();
        let some: Vec<Command> = (0..3).map(|number| Command::Tx(unsigned(&directory, number).to_vec())).collect();
        let entry = bench.entry(some);
        assert_eq!(bench.run(&entry), Ok(3), "payments of the bench are executed");
        assert_eq!(bench.last().unwrap().height, Height(1));
        bench.open_streams();
        let entry = bench.entry(Vec::new());
        assert_eq!(bench.run(&entry), Ok(0));
        assert_ne!(bench.last().unwrap().outbox_root, cross_shard::stream::root(&[]), "streams are in the header");
    }
}
