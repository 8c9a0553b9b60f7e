//! What is modelled instead of run: the work of a processor, the network, and the order that an engine gives.
//!
//! Owns the constants and the arithmetic over them. Never reads a clock: constants come from outside, measured by
//! [`super::measure`] or taken from an earlier run.

use ledger::committee::Engine;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// A moment or a duration of modelled time, in nanoseconds.
pub type Ns = u64;

/// Nanoseconds of a millisecond.
pub const MS: Ns = 1_000_000;
const US: Ns = 1_000;

/// What work costs on the machine that measured it, in nanoseconds of one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constants {
    /// At a router: decoding a payment and finding the group that it goes to.
    pub route_ns: u64,
    /// At ingest: decoding it once more and checking its signature.
    pub verify_ns: u64,
    /// Executing it: rules, state tree, receipt, and its part of the header.
    pub execute_ns: u64,
    /// The part of `execute_ns` that is the state tree.
    pub tree_ns: u64,
    /// A block that does nothing, in a group without mail.
    pub block_ns: u64,
    /// In every block, each stream that the group has, changed or not: outgoing and incoming ones count.
    pub stream_ns: u64,
    /// Beside that, each of them that the block changes: its record and its head.
    pub head_ns: u64,
    /// A credit that comes by mail.
    pub credit_ns: u64,
    /// Signing a header.
    pub sign_ns: u64,
    /// Checking one signature.
    pub check_ns: u64,
    /// What checking a certificate costs beside its signatures.
    pub certificate_ns: u64,
    /// Encoding, or decoding, a message between nodes.
    pub message_ns: u64,
    /// Each stream of a header, when a leader makes the tree that paths are taken from.
    pub path_ns: u64,
    /// In the beacon's machine, each header of a trail. Zero in files of builds that did not measure it.
    #[serde(default)]
    pub audit_ns: u64,
    /// Beside that, each stream that a trail shows, outgoing or incoming: it is hashed, kept, and read again when sums are
    /// compared. Zero in files of builds that did not measure it.
    #[serde(default)]
    pub audit_stream_ns: u64,
}

/// What a message may weigh that costs `message_ns`.
const MESSAGE_BYTES: usize = 1024;

impl Constants {
    /// What it takes to check a certificate with so many signatures.
    #[must_use]
    pub fn certificate(&self, signatures: usize) -> Ns {
        self.certificate_ns + self.check_ns * signatures as u64
    }

    /// What it takes to write a message of so many bytes, or to read it.
    #[must_use]
    pub fn message(&self, bytes: usize) -> Ns {
        self.message_ns * bytes.div_ceil(MESSAGE_BYTES).max(1) as u64
    }

    /// What it takes the beacon's machine to take a trail with so many headers, which shows so many streams, beside its
    /// certificate.
    #[must_use]
    pub fn audit(&self, headers: u64, streams: u64) -> Ns {
        self.audit_ns * headers + self.audit_stream_ns * streams
    }
}

/// Network and disks, in microseconds. Each time is drawn anew: from what stands here to `jitter_pct` more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latencies {
    /// From one node to another, one way; not zero.
    pub hop_us: u64,
    /// Until a log entry is on a disk.
    pub fsync_us: u64,
    /// How much longer either takes at most, in percent.
    pub jitter_pct: u64,
}

impl Default for Latencies {
    /// Machines of one region: half a millisecond one way, a millisecond for an fsync.
    fn default() -> Self {
        Self { hop_us: 500, fsync_us: 1_000, jitter_pct: 50 }
    }
}

impl Latencies {
    /// The shortest way between two nodes: what happens elsewhere within this time has no effect here yet.
    #[must_use]
    pub fn shortest(&self) -> Ns {
        self.hop_us.max(1) * US
    }

    fn drawn(&self, us: u64, rng: &mut ChaCha8Rng) -> Ns {
        let least = us * US;
        least + rng.random_range(0..=least * self.jitter_pct / 100)
    }

    /// One message on its way.
    pub fn hop(&self, rng: &mut ChaCha8Rng) -> Ns {
        self.drawn(self.hop_us.max(1), rng)
    }

    /// From a proposal until the leader of so many members knows it to be ordered: its own disk and a majority's, which
    /// hear of it and answer. What Raft does while nobody fails.
    pub fn ordered(&self, members: usize, rng: &mut ChaCha8Rng) -> Ns {
        let own = self.drawn(self.fsync_us, rng);
        let mut others: Vec<Ns> =
            (1..members).map(|_| self.hop(rng) + self.drawn(self.fsync_us, rng) + self.hop(rng)).collect();
        others.sort_unstable();
        let needed = Engine::Raft.threshold(members) - 1;
        match needed.checked_sub(1).and_then(|last| others.get(last)) {
            Some(last) => own.max(*last),
            None => own,
        }
    }
}

/// What a leader's processor is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Routing payments and checking their signatures.
    Ingest,
    /// Executing them, and what a block costs beside.
    Execute,
    /// What each stream costs in each block, whether it has mail or not.
    Streams,
    /// Mail that comes and goes: checking it, taking it, proving it.
    Mail,
    /// Checking what others have taken.
    Acks,
    /// Asking other groups for mail, and being asked.
    Pulls,
    /// Signing headers and checking the signatures of the other members.
    Certify,
    /// Messages of the engine, and of checkpoints.
    Order,
    /// Headers for the audit: giving them in a shard, judging and adding them up in the beacon.
    Audit,
}

impl Work {
    /// How many kinds there are.
    pub const COUNT: usize = 9;
}

/// A node's processor as one of its groups sees it within a step: what others do on it meanwhile counts from the next
/// step on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// The node, by its place among all nodes.
    pub(super) node: usize,
    /// From here on it has nothing to do.
    pub(super) free: Ns,
    /// What this group has taken of it in this step.
    pub(super) used: Ns,
}

impl Share {
    /// Takes `cost` nanoseconds of one core, and returns when that is done. The work is known now, begins when what was
    /// known before is done, and not before a moment to come; until then others have the processor. Work that cannot be
    /// spread over cores takes at least its cost.
    pub(super) fn take(&mut self, now: Ns, from: Ns, cost: Ns, cores_milli: u64, spread: bool) -> Ns {
        let busy = cost * 1_000 / cores_milli;
        let start = self.free.max(now);
        self.free = start + busy;
        self.used += busy;
        start.max(from) + if spread { busy } else { busy.max(cost) }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn constants_of_before_are_read() {
        let before = r#"{"route_ns":1,"verify_ns":2,"execute_ns":3,"tree_ns":4,"block_ns":5,"stream_ns":6,"head_ns":7,
            "credit_ns":8,"sign_ns":9,"check_ns":10,"certificate_ns":11,"message_ns":12,"path_ns":13}"#;
        let read: Constants = serde_json::from_str(before).unwrap();
        assert_eq!((read.path_ns, read.audit_ns, read.audit_stream_ns), (13, 0, 0));
        let now = Constants { audit_ns: 14, audit_stream_ns: 15, ..read };
        let written = serde_json::to_string(&now).unwrap();
        assert_eq!(serde_json::from_str::<Constants>(&written).unwrap(), now);
        assert_eq!(now.audit(64, 10), 64 * 14 + 10 * 15);
        assert_eq!([0, 1, 1_024, 1_025].map(|bytes| now.message(bytes)), [12, 12, 12, 24]);
    }

    #[test]
    fn a_processor_does_one_thing_after_the_other() {
        let mut share = Share { node: 0, free: 100, used: 0 };
        assert_eq!(share.take(50, 50, 40, 1_000, true), 140, "it begins when it is free");
        assert_eq!(share.take(200, 200, 40, 2_000, true), 220, "two cores share what can be shared");
        assert_eq!(share.take(200, 200, 40, 2_000, false), 260, "and not what cannot");
        assert_eq!((share.free, share.used), (240, 80), "while the other core is free for others");
        assert_eq!(share.take(250, 400, 30, 1_000, true), 430, "what is to begin later");
        assert_eq!(share.take(250, 250, 10, 1_000, true), 290, "leaves the time until then to others");
        assert_eq!(share.take(300, 300, 10, 500, false), 320, "half a core takes twice as long");
    }

    #[test]
    fn an_order_waits_for_a_majority() {
        let exact = Latencies { hop_us: 500, fsync_us: 1_000, jitter_pct: 0 };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let of = |members, rng: &mut ChaCha8Rng| exact.ordered(members, rng);
        assert_eq!([1, 2, 3, 5].map(|members| of(members, &mut rng)), [MS, 2 * MS, 2 * MS, 2 * MS]);
        let drawn = Latencies { jitter_pct: 50, ..exact };
        for _ in 0..100 {
            let ordered = drawn.ordered(5, &mut rng);
            assert!((2 * MS..=3 * MS).contains(&ordered), "{ordered}");
            assert!((drawn.shortest()..=750 * US).contains(&drawn.hop(&mut rng)));
        }
    }
}
