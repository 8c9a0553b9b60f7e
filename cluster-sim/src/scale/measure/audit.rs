//! What the audit of a trail costs the beacon's machine: blocks of trails of some shards, each of which has streams to and
//! from all others, executed as a node does.
//!
//! Measured with few shards and with more, since a trail shows all streams of its shard if it shows any, and the audit reads
//! those of its peers then to see whether something is on its way; both grow with the number of shards. How often they are
//! shown does not matter here: each trail comes in a round of its own. No mail is ever taken to its end, as under load, so
//! that sums are not compared.

use std::collections::BTreeMap;

use beacon::audit::AUDIT_VERSION;
use beacon::audit::rounds::round_ms;
use beacon::{AuditEntry, Trail};
use bytes::Bytes;
use cross_shard::{StreamLeaf, stream};
use ledger::flow::FlowLine;
use ledger::genesis::VerifyMode;
use ledger::hash::tagged;
use ledger::header::Header;
use ledger::ids::{GroupId, Height, TimeMs};
use ledger::schema;
use shard_node::core::entry::Command;
use shard_node::core::machine::CommandOutcome;

use super::{Bench, Certifying, Clock, ROUNDS, least};
use crate::scale::cluster::{Directory, Shape};

/// Trails of a block: a beacon that has much to do takes as many at a time, and each looks through what others have written.
pub(super) const TRAILS: usize = 16;
/// Headers of a trail: as many as there are blocks between two checkpoints.
pub(super) const HEADERS: usize = 64;
/// Peers that a header has value from, and as many that it gives value to.
const PEERS: usize = 8;
/// In either cluster a trail has its peers compared as often as the audit does at most.
const FEW: u32 = 17;
const MANY: u32 = 65;

/// Streams of a shard among so many.
fn streams(shards: u32) -> u64 {
    u64::from(2 * (shards - 1))
}

/// Nanoseconds of a header, and of a stream. The trail's certificate is not among them, of which one check takes
/// `certificate_ns`.
pub(super) fn trails(clock: Clock<'_>, certificate_ns: u64) -> Result<[u64; 2], String> {
    let (few, many) = (trail(clock, FEW)?, trail(clock, MANY)?);
    let stream_ns = many.saturating_sub(few) / (streams(MANY) - streams(FEW));
    let headers = few.saturating_sub(stream_ns * streams(FEW)).saturating_sub(certificate_ns);
    Ok([headers / HEADERS as u64, stream_ns])
}

/// What a trail takes in a cluster of so many shards, its part of the block's cost and its certificate included.
fn trail(clock: Clock<'_>, shards: u32) -> Result<u64, String> {
    let shape = Shape { shards, nodes: 5, replicas: 5, accounts: 1, verify: VerifyMode::Ingest, seed: 1 };
    let directory = Directory::new(&shape)?;
    let mut beacon = Bench::new(&directory, GroupId::BEACON)?;
    let chains: Result<Vec<Chain<'_>>, String> =
        (0..shards).map(|shard| Chain::new(&directory, GroupId::shard(shard))).collect();
    let mut chains = chains?;
    let first = beacon.entry(posted(&mut chains)?);
    audited(&mut beacon, &first, chains.len())?;
    let mut entries: Vec<Bytes> = Vec::with_capacity(ROUNDS);
    let mut ms = 0;
    for _ in 0..ROUNDS {
        ms += round_ms(streams(shards));
        entries.push(beacon.entry_in(ms, posted(&mut chains[..TRAILS])?));
    }
    let mut next = entries.iter();
    least(clock, TRAILS, || audited(&mut beacon, next.next().ok_or("there are too few trails")?, TRAILS))
}

/// The next trail of each of these shards.
fn posted(chains: &mut [Chain<'_>]) -> Result<Vec<Command>, String> {
    chains.iter_mut().map(Chain::post).collect()
}

/// Executes a block in which the beacon takes so many trails.
fn audited(beacon: &mut Bench, entry: &Bytes, trails: usize) -> Result<(), String> {
    let mut taken = 0;
    beacon.run_by(entry, |work, view, at, commands| {
        let outcomes = work.run(view, at, commands);
        taken = outcomes.iter().filter(|outcome| **outcome == CommandOutcome::Registered).count();
        outcomes
    })?;
    if taken == trails { Ok(()) } else { Err(format!("the beacon takes {taken} of {trails} trails")) }
}

/// A shard that gives and takes one unit from some peers in each block, and has sent and taken mail of all others.
struct Chain<'a> {
    directory: &'a Directory,
    last: Header,
    /// Block 0, until it is shown.
    first: Option<Header>,
    total: u128,
    shown: u64,
}

impl<'a> Chain<'a> {
    fn new(directory: &'a Directory, group: GroupId) -> Result<Self, String> {
        let begun = directory.beginning(group, &BTreeMap::new())?;
        let bytes = begun.state.get(&schema::header(Height(0))).ok_or("a shard has no block 0")?;
        let last: Header = borsh::from_slice(bytes).map_err(|error| error.to_string())?;
        let total: u128 = last.value_flow.iter().map(|line| line.closing).sum();
        Ok(Self { directory, first: Some(last.clone()), last, total, shown: 0 })
    }

    fn peers(&self) -> impl Iterator<Item = GroupId> + '_ {
        let own = self.last.group;
        self.directory.groups().filter(move |group| *group != GroupId::BEACON && *group != own)
    }

    /// Where all streams stand; what was sent is an even number and what was taken an odd one, so that no stream is empty.
    fn ends(&self, next_seq: u64) -> Vec<StreamLeaf> {
        let head = tagged(b"scale study", &[&self.last.group.0.to_be_bytes(), &next_seq.to_be_bytes()]);
        self.peers().map(|peer| StreamLeaf { peer, next_seq, head }).collect()
    }

    fn next(&self) -> Header {
        let peers: Vec<(GroupId, u128)> = self.peers().map(|peer| (peer, 1)).take(PEERS).collect();
        let (asset, total) = (self.directory.asset.id, self.total);
        let line = FlowLine {
            asset,
            opening: total,
            closing: total,
            imported: peers.clone(),
            exported: peers,
            ..FlowLine::default()
        };
        Header {
            height: self.last.height.next(),
            parents: vec![self.last.hash()],
            time_ms: TimeMs(self.last.time_ms.0 + 1),
            value_flow: vec![line],
            ..self.last.clone()
        }
    }

    /// The command that brings the next blocks, block 0 with the first of them.
    fn post(&mut self) -> Result<Command, String> {
        self.shown += 1;
        let (outbox, inbox) = (self.ends(2 * self.shown), self.ends(2 * self.shown - 1));
        let mut headers: Vec<Header> = self.first.take().into_iter().collect();
        for _ in 1..HEADERS {
            self.last = self.next();
            headers.push(self.last.clone());
        }
        let (outbox_root, inbox_cursors_root) = (stream::root(&outbox), stream::root(&inbox));
        self.last = Header { outbox_root, inbox_cursors_root, ..self.next() };
        let committee = self.directory.genesis.committee(self.last.group).ok_or("a shard has no committee")?;
        let certificate = Certifying::new(self.directory, self.last.clone(), committee).certificate;
        let trail = Trail { version: AUDIT_VERSION, headers, certificate, outbox, inbox };
        Ok(Command::Audit(AuditEntry::Trail(trail).encode()))
    }
}
