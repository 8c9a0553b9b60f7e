//! What replicas tell each other outside consensus: attestations, certificates, pulls, bundles,
//! proofs of cursors and stream heads, checkpoints, evidence, contributions to seeds. Every message may be lost, repeated or
//! late.

use beacon::jobs::{JobReport, SealedProof};
use beacon::{AuditEntry, Contribution, Readiness, Silence};
use borsh::{BorshDeserialize, BorshSerialize};
use cross_shard::{AckProof, Bundle, StreamLeaf};
use ledger::ballot::Equivocation;
use ledger::certificate::{Attestation, Certificate};
use ledger::ids::{GroupId, Height, NodeId};
use ledger::merkle::MerklePath;

/// What the beacon's audit wants of a group, where its headers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The headers behind a block, or all of them, and where the streams stand at the last one.
    Trail(Option<Height>),
    /// The headers behind a block, without the streams.
    Headers(Height),
    /// Where the streams stand at a block, the last one that is audited.
    Streams(Height),
}

/// One message to the replica of a group on a node. Variants are added, never changed.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum PeerMessage {
    /// A replica of the same group signed a header. With `wants_certificate` the sender still
    /// misses the certificate of that height, and is answered as [`PeerMessage::Want`] is.
    Attest {
        /// The signature.
        attestation: Attestation,
        /// Whether the sender asks for the certificate.
        wants_certificate: bool,
    },
    /// A certificate of the same group, for a replica that missed the attestations.
    Certified(Certificate),
    /// A replica of `dest` asks for mail from `next_seq` on, now and while it keeps asking.
    Pull {
        /// Group that asks.
        dest: GroupId,
        /// Node that asks, to which bundles go.
        node: NodeId,
        /// Its cursor.
        next_seq: u64,
        /// Proof of the cursor, so that the source can drop what was taken.
        ack: Option<AckProof>,
    },
    /// A replica of `source` has taken a pull and will send what there is. Within a group: an anchor tells the one that
    /// leads that it is there.
    Serving {
        /// The group of the sender.
        source: GroupId,
    },
    /// Mail for the receiving group, from its source or passed on by an anchor of the receiving group.
    Bundle(Bundle),
    /// A proof of a cursor, passed on to the replica that leads.
    Ack(AckProof),
    /// A group's certificate for the beacon.
    Checkpoint(Certificate),
    /// A replica of `dest` asks whether there is certified mail from `next_seq` on, without a
    /// subscription. Answered with [`PeerMessage::Head`], or not at all.
    Probe {
        /// Group that asks.
        dest: GroupId,
        /// Where the mail that it has ends.
        next_seq: u64,
    },
    /// How far a stream is certified.
    Head(HeadProof),
    /// A replica of the same group misses the certificate of a height. Who keeps it sends it; who does
    /// not have it sends its own signature, and the latest certificate before that height.
    Want {
        /// The height.
        height: Height,
    },
    /// A group's proof for the beacon that its prepared committee can take over.
    Ready(Readiness),
    /// A member of a group passes on a proof that another one has voted twice: to the one that leads, and to the
    /// beacon.
    Evidence(Equivocation),
    /// A node's report for the beacon on whom it does not hear of.
    Silence(Silence),
    /// A replica of the beacon misses headers of the receiving group behind a block, or all of them. Answered with
    /// [`PeerMessage::Audit`], or not at all.
    WantTrail {
        /// The last block that is audited.
        after: Option<Height>,
    },
    /// For the beacon's audit: headers of a group, or a proof against it or a replica of it.
    Audit(Box<AuditEntry>),
    /// What a member of the beacon gives to the seed of an epoch.
    Contribution(Contribution),
    /// A node's word for the beacon on a job, or on its load.
    Report(JobReport),
    /// A shard's proof for the beacon that it is sealed.
    Sealed(SealedProof),
    /// As [`PeerMessage::WantTrail`], without the streams: a group with many of them does not show them each time.
    WantHeaders {
        /// The last block that is audited.
        after: Height,
    },
    /// A replica of the beacon misses where the streams of the receiving group stand at the last block that is audited.
    /// Answered with [`PeerMessage::Audit`], or not at all.
    WantStreams {
        /// The block.
        at: Height,
    },
}

/// Proof that a group has certified mail for another one up to `leaf.next_seq`.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct HeadProof {
    /// Format version, 1.
    pub version: u8,
    /// The head of the stream; `peer` is the destination, to whom this goes.
    pub leaf: StreamLeaf,
    /// From the leaf to the header's `outbox_root`.
    pub path: MerklePath,
    /// A certified header of the source.
    pub certificate: Certificate,
}

impl PeerMessage {
    /// Encodes for the link.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory does not fail")
    }

    /// Asks for what the audit wants.
    #[must_use]
    pub const fn want(wanted: Wanted) -> Self {
        match wanted {
            Wanted::Trail(after) => Self::WantTrail { after },
            Wanted::Headers(after) => Self::WantHeaders { after },
            Wanted::Streams(at) => Self::WantStreams { at },
        }
    }

    /// What is asked for on behalf of the audit, if anything is.
    #[must_use]
    pub const fn wanted(&self) -> Option<Wanted> {
        match self {
            Self::WantTrail { after } => Some(Wanted::Trail(*after)),
            Self::WantHeaders { after } => Some(Wanted::Headers(*after)),
            Self::WantStreams { at } => Some(Wanted::Streams(*at)),
            _ => None,
        }
    }

    /// The block of the receiver's own group that the message is about; `None` where it is about another group, or
    /// about no block.
    #[must_use]
    pub fn tells_of(&self) -> Option<Height> {
        match self {
            Self::Attest { attestation, .. } => Some(attestation.height),
            Self::Certified(certificate) => Some(certificate.header.height),
            Self::Want { height } => Some(*height),
            Self::Pull { .. }
            | Self::Serving { .. }
            | Self::Bundle(_)
            | Self::Ack(_)
            | Self::Checkpoint(_)
            | Self::Probe { .. }
            | Self::Head(_)
            | Self::Ready(_)
            | Self::Evidence(_)
            | Self::Silence(_)
            | Self::WantTrail { .. }
            | Self::Audit(_)
            | Self::Contribution(_)
            | Self::Report(_)
            | Self::Sealed(_)
            | Self::WantHeaders { .. }
            | Self::WantStreams { .. } => None,
        }
    }
}
