//! What checkers are told as it happens.

use beacon::epochs::{Deal, EpochRecord};
use beacon::{Accusation, Contribution};
use bytes::Bytes;
use consensus::local::Msg;
use consensus::port::Position;
use cross_shard::commit::{Decision, Register};
use cross_shard::{Message, RegistryUpdate, StreamLeaf};
use ledger::ballot::Equivocation;
use ledger::certificate::Certificate;
use ledger::committee::{Committee, Engine};
use ledger::crypto::PublicKey;
use ledger::flow::FlowLine;
use ledger::foundation::Foundation;
use ledger::hash::Hash32;
use ledger::header::Header;
use ledger::ids::{GroupId, Height, NodeId, OrgId, TxId};
use ledger::layout::Layout;
use ledger::receipt::Receipt;
use ledger::reject::Reject;
use ledger::rules::HistoryLine;
use shard_node::core::peer::PeerMessage;

use crate::checkers::BftSeen;
use crate::wire::Wire;

/// A vote register that a block wrote or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterWrite {
    /// Partition of its account.
    pub partition: [u8; 32],
    /// The transaction.
    pub txid: TxId,
    /// What it holds now; `None` if it is gone.
    pub value: Option<Register>,
}

/// Something that the governance of a channel, or of the cluster, goes by.
#[derive(Clone, Debug)]
pub enum Governed {
    /// A command, and what it did if it was not refused.
    Act(Box<channel::SignedCommand>, Option<channel::Outcome>),
    /// The beacon's mail on the registry, with its place in the stream. Told again it means nothing.
    Told(u64, RegistryUpdate),
    /// The beacon's mail on the committee that a channel is being prepared for, or on the one that it has if
    /// it is not being prepared any more; with its place in the stream.
    Planned(u64, Committee),
    /// The beacon's mail on the channel's own committee in force, with its place in the stream.
    Seated(u64, Committee),
    /// A command that the registry itself has carried out, or that was sent again.
    Registered(Box<beacon::SignedCommand>),
}

/// A block that a replica has persisted.
#[derive(Clone, Debug)]
pub struct BlockSeen {
    /// Where.
    pub node: NodeId,
    /// Of which group.
    pub group: GroupId,
    /// Where its entry stands in the log.
    pub position: Position,
    /// Its header.
    pub header: Header,
    /// The hash that the replica goes by.
    pub header_hash: Hash32,
    /// Its receipts.
    pub receipts: Vec<Receipt>,
    /// Votes that it wrote, as its host is told of them.
    pub votes: Vec<(TxId, Decision)>,
    /// Registers that it wrote or removed.
    pub registers: Vec<RegisterWrite>,
    /// Mail that it emitted: destination, sequence number, message.
    pub mail: Vec<(GroupId, u64, Message)>,
    /// Lines that it added to the history of accounts.
    pub lines: Vec<HistoryLine>,
    /// Its value flow: of a channel, what it sealed.
    pub flow: Vec<FlowLine>,
    /// What its entry has for governance, in order.
    pub governed: Vec<Governed>,
    /// Heads of its outgoing streams.
    pub outbox: Vec<StreamLeaf>,
    /// Its cursors.
    pub inbox: Vec<StreamLeaf>,
    /// The layout that it put in force in its group, if it did.
    pub layout: Option<Layout>,
    /// Committees that it noted.
    pub committees: Vec<Committee>,
    /// What a block of the beacon has about epochs.
    pub epochs: EpochsSeen,
    /// What a block of the beacon has about double votes.
    pub accused: AccusedSeen,
}

/// What a block of the beacon brings and writes about double votes.
#[derive(Clone, Debug, Default)]
pub struct AccusedSeen {
    /// What its entry brings as proofs, taken or not, in order.
    pub proofs: Vec<Equivocation>,
    /// Accusations that it has written.
    pub accusations: Vec<Accusation>,
}

/// What a block of the beacon brings and writes about epochs.
#[derive(Clone, Debug, Default)]
pub struct EpochsSeen {
    /// What its entry brings of members, taken or not, in order.
    pub contributions: Vec<Contribution>,
    /// Epochs that it has ended.
    pub records: Vec<EpochRecord>,
    /// What was dealt.
    pub deals: Vec<Deal>,
    /// The seed that it has put in force.
    pub seed: Option<Hash32>,
}

/// A shard as it begins on a node, out of others that were cut or joined.
#[derive(Clone, Debug)]
pub struct BornSeen {
    /// Where.
    pub node: NodeId,
    /// Its first header.
    pub header: Header,
    /// All that its database holds.
    pub pairs: Vec<(Bytes, Bytes)>,
    /// The groups that it came from, the left one first, and the leaves that each has had on this node.
    pub parents: Vec<(GroupId, Vec<(Bytes, Bytes)>)>,
}

/// What a replica gives to a node of what is in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// Entries of the log.
    Entries,
    /// A part of the state.
    State,
    /// A signature under the header of a block, or its certificate.
    Signed(Height),
}

impl Given {
    /// What a message gives, and of which group; nothing of one that says only how far its sender has come.
    pub(crate) fn of(wire: &Wire) -> Option<(GroupId, Self)> {
        match wire {
            Wire::Engine { group, message: Msg::Append { entries, .. }, .. } if !entries.is_empty() => {
                Some((*group, Self::Entries))
            }
            Wire::Part { group, .. } => Some((*group, Self::State)),
            Wire::Peer { group, message } => match &**message {
                PeerMessage::Attest { attestation, .. } => Some((*group, Self::Signed(attestation.height))),
                PeerMessage::Certified(certificate) => Some((*group, Self::Signed(certificate.header.height))),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Seen {
    /// A replica started from what its disk holds.
    Started {
        /// Where.
        node: NodeId,
        /// Of which group.
        group: GroupId,
        /// The height that its state has.
        height: Height,
    },
    /// A replica persisted a block.
    Block(Box<BlockSeen>),
    /// Something that happens in Byzantine groups only.
    Bft(BftSeen),
    /// A shard begins on a node, out of others.
    Born(Box<BornSeen>),
    /// A node starts a replica of a group that was founded while the cluster ran.
    Founded(Box<Foundation>),
    /// A replica has put the state of another one in the place of its own.
    Fetched {
        /// Where.
        node: NodeId,
        /// With which join the replica takes part.
        join: u16,
        /// Of which group.
        group: GroupId,
        /// Its height.
        height: Height,
        /// Up to where in the log.
        index: u64,
    },
    /// A node has removed a replica, with its log and its state.
    Left {
        /// Where.
        node: NodeId,
        /// Of which group.
        group: GroupId,
        /// The highest epoch of a committee of the group, in force or planned, that the node has heard of.
        epoch: u64,
        /// Whether it makes room for one that joins anew.
        rejoins: bool,
    },
    /// A replica gives something of its group to a node. Told only in runs in which hosts guard.
    Given {
        /// Who gives.
        node: NodeId,
        /// To whom.
        to: NodeId,
        /// Of which group.
        group: GroupId,
        /// What.
        what: Given,
    },
    /// A replica that leads a channel has taken a client's transaction, to look at it.
    Admitted {
        /// Where.
        node: NodeId,
        /// The channel.
        group: GroupId,
        /// The client's organisation.
        org: OrgId,
        /// What names its certificate.
        credential: Hash32,
    },
    /// A replica has applied an entry that says who votes from there on.
    Voters {
        /// Where.
        node: NodeId,
        /// Of which group.
        group: GroupId,
        /// Where the entry stands in the log.
        index: u64,
        /// The nodes that vote.
        voters: Vec<NodeId>,
    },
    /// A key is gone from a node's disk for good: another one took its place. Told in the moment in which it is gone, also of
    /// a node that loses power.
    KeyGone {
        /// Where.
        node: NodeId,
        /// The key.
        key: PublicKey,
    },
    /// A replica's role or term changed.
    Role {
        /// Where.
        node: NodeId,
        /// Of which group.
        group: GroupId,
        /// Whether it leads.
        leads: bool,
        /// The stint that the term is of.
        stint: u64,
        /// Its term.
        term: u64,
    },
    /// A replica takes part under another engine than before.
    Stint {
        /// Where.
        node: NodeId,
        /// Of which group.
        group: GroupId,
        /// The engine.
        engine: Engine,
        /// The entry that it begins behind.
        stint: u64,
    },
    /// A replica's state is durable up to this height.
    Flushed {
        /// Where.
        node: NodeId,
        /// Of which group.
        group: GroupId,
        /// Up to where.
        height: Height,
    },
    /// A replica gathered a certificate.
    Certified {
        /// Where.
        node: NodeId,
        /// Of which group.
        group: GroupId,
        /// The certificate.
        certificate: Box<Certificate>,
    },
    /// A leader has proof that a peer took mail.
    PeerTook {
        /// Where.
        node: NodeId,
        /// The group that sent it.
        group: GroupId,
        /// The peer.
        dest: GroupId,
        /// Everything below has been taken.
        next_seq: u64,
    },
    /// A transaction was met again and answered with its first receipt.
    Known {
        /// The transaction.
        txid: TxId,
    },
    /// A client got a receipt.
    Acknowledged {
        /// The operation.
        operation: u32,
        /// The receipt.
        receipt: Receipt,
    },
    /// A client was told of a group's vote.
    Told {
        /// The operation.
        operation: u32,
        /// The group.
        group: GroupId,
        /// Its vote.
        decision: Decision,
    },
    /// A client knows the outcome, from a receipt or from votes.
    Decided {
        /// The operation.
        operation: u32,
        /// Whether it commits.
        committed: bool,
    },
    /// A client was told that a group has applied all of a transaction, its credits elsewhere, too.
    Applied {
        /// The operation.
        operation: u32,
        /// The group.
        group: GroupId,
    },
    /// A group refused a client for good, without a trace.
    Refused {
        /// The operation.
        operation: u32,
        /// The group.
        group: GroupId,
        /// Why.
        reject: Reject,
    },
}
