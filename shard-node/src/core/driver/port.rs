//! What goes into a driver and what comes out of it.
//!
//! Owns the types of both, which the host and the simulator carry; no behaviour.

use std::sync::Arc;

use beacon::jobs::{JobReport, RootShape};
use bytes::Bytes;
use cross_shard::InCursor;
use cross_shard::stream::StreamLeaf;
use ledger::ballot::Equivocation;
use ledger::certificate::Certificate;
use ledger::checked::Checked;
use ledger::genesis::VerifyMode;
use ledger::hash::Hash32;
use ledger::header::Header;
use ledger::ids::{GroupId, Height, JobId, NodeId, TimeMs};
use ledger::keys::NodeKeys;
use ledger::lineage::SealedBy;
use ledger::reject::Reject;
use ledger::tx::ParsedTx;

use crate::core::driver::book::Committees;
use crate::core::driver::system::CertifiedBlock;
use crate::core::driver::{OutboxView, SystemView};
use crate::core::executor::EmittedMail;
use crate::core::machine::CommandOutcome;
use crate::core::peer::{PeerMessage, Wanted};

/// What a driver is made for.
#[derive(Clone, Debug)]
pub struct DriverConfig {
    /// The group.
    pub group: GroupId,
    /// This node.
    pub node: NodeId,
    /// With which join this replica takes part ([`beacon::seats::join_at`]).
    pub join: u16,
    /// The keys headers are signed with: each as the committee that judges the header names it.
    pub key: NodeKeys,
    /// Proposals in flight at once.
    pub pipeline: usize,
    /// Blocks between two checkpoints in the beacon.
    pub checkpoint_every: u64,
    /// How far replicas check what others did.
    pub verify: VerifyMode,
    /// Certificates that this replica has found to hold; its machine goes by the same memory.
    pub checked: Checked,
}

/// A block after it was persisted.
#[derive(Clone, Debug)]
pub struct CommittedBlock {
    /// Its header.
    pub header: Arc<Header>,
    /// The header's hash.
    pub header_hash: Hash32,
    /// What became of its commands.
    pub outcomes: Vec<CommandOutcome>,
    /// What it emitted.
    pub mail: Vec<EmittedMail>,
    /// Heads of its outgoing streams.
    pub outbox: Vec<StreamLeaf>,
    /// Cursors of its incoming streams, as its header commits to them.
    pub inbox: Vec<StreamLeaf>,
    /// Cursors with all that mail is followed by: those that it has moved at least.
    pub cursors: Vec<(GroupId, InCursor)>,
    /// Signatures to check before it is attested.
    pub to_verify: Arc<Vec<ParsedTx>>,
    /// The earliest deadline in state.
    pub next_deadline: Option<TimeMs>,
    /// The seal that it has taken.
    pub sealed: Option<SealedBy>,
    /// With a seal: what stands at the top of both halves of the state, or of the whole.
    pub shapes: Vec<RootShape>,
    /// A seal was taken back.
    pub unsealed: bool,
    /// The layout has changed: [`Input::Streams`] follows.
    pub reshaped: bool,
}

/// What happens to a driver.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "the large one comes once, at a start; the others are many and small")]
pub enum Input {
    /// State as read by the host, at the start and after a snapshot.
    System(SystemView),
    /// The committees that the group knows changed.
    Committees(Committees),
    /// The streams as they are since a block that has changed the layout, and the committees that came with it.
    Streams {
        /// Outgoing ones.
        outbox: Vec<OutboxView>,
        /// Cursors of incoming ones.
        inbox: Vec<(GroupId, InCursor)>,
    },
    /// The host's own word on a job or on its load, to be brought to the beacon; again until the view shows its effect.
    Report(JobReport),
    /// The cluster's view shows that a job is committed: a group that was sealed for it is no more.
    JobCommitted(JobId),
    /// The nodes that have a seat in the beacon by the registry that this node follows. Where the group has been away, it
    /// is them whom it asks for the beacon's mail. Not given to the beacon itself.
    Beacon(Vec<NodeId>),
    /// This replica leads, or another does. Also given when an engine has begun in the place of another one: until
    /// then nothing is proposed.
    Role {
        /// Whether it may propose.
        leads: bool,
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// Whether the engine of this replica votes as soon as a committee names it; not before this was said, and not any
    /// more once another engine is in force. Under Raft, where a vote comes with a seat, nothing is made of it.
    Votes(bool),
    /// Offset of the guarded clock against the tick: `time = tick + offset`.
    ClockOffset(i64),
    /// Transactions whose signatures hold.
    Submit(Vec<Bytes>),
    /// A proposal left the pipeline: applied here, or lost.
    Proposed {
        /// As in [`Output::Propose`].
        id: u64,
        /// Whether it is in the log for certain.
        accepted: bool,
    },
    /// A block was persisted.
    Committed(CommittedBlock),
    /// The signatures of a block were checked.
    Verified {
        /// The block.
        height: Height,
        /// Whether all hold.
        valid: bool,
    },
    /// The blocks that were to be checked again were checked, from [`Output::Recheck`] on.
    Rechecked {
        /// The last of them.
        upto: Height,
        /// The lowest that does not hold.
        forged: Option<Height>,
    },
    /// Somebody needs the certificate of an earlier block, which is not kept here.
    Want(Height),
    /// Somebody needs a proof of what the group holds as of about now, and its last block is of an earlier time.
    Refresh,
    /// The certificate of an earlier block, which has come from [`Output::Late`] and is kept by now, with the heads of
    /// that block.
    Found(Box<CertifiedBlock>),
    /// A peer's message.
    Peer {
        /// Who sent it; the transport has authenticated it.
        from: NodeId,
        /// The message.
        message: Box<PeerMessage>,
    },
    /// The engine has two ballots of one member that exclude each other.
    Evidence(Box<Equivocation>),
    /// Time has passed.
    Timer,
}

/// What a driver asks of its host.
#[derive(Clone, Debug)]
pub enum Output {
    /// Propose an entry.
    Propose {
        /// Returned in [`Input::Proposed`].
        id: u64,
        /// The encoded entry.
        entry: Bytes,
    },
    /// Send a message to the replica of `group` on `node`.
    Send {
        /// The node; may be this one.
        node: NodeId,
        /// The group there.
        group: GroupId,
        /// The message.
        message: PeerMessage,
    },
    /// Check the signatures of a block and answer with [`Input::Verified`].
    Verify {
        /// The block.
        height: Height,
        /// Its transactions.
        txs: Arc<Vec<ParsedTx>>,
    },
    /// Check the client signatures of blocks in the database, in order, and answer with
    /// [`Input::Rechecked`].
    Recheck {
        /// The first block.
        from: Height,
        /// The last one.
        upto: Height,
    },
    /// Client signatures are checked up to here; the host keeps the mark.
    Checked(Height),
    /// A signature of this block does not hold; the host keeps the mark.
    Forged(Height),
    /// A certificate was completed; the host keeps it.
    Certified(Certificate),
    /// A certificate that the host wanted, of a block that is not at hand here: the host judges it by
    /// its database and keeps it.
    Late(Certificate),
    /// Send the certificate of this height to a node, if it is kept.
    Lookup {
        /// The height.
        height: Height,
        /// The node, of the same group.
        node: NodeId,
    },
    /// Ask a node for what the beacon's state misses of a group's headers and streams, if it misses any.
    AskTrail {
        /// The group.
        group: GroupId,
        /// Who has shown that the group is further.
        node: NodeId,
        /// How far it has certified.
        certified: Height,
        /// The time that a block of the beacon would have now.
        now: TimeMs,
    },
    /// Send what the audit wants to a node of the beacon.
    GiveTrail {
        /// The node.
        node: NodeId,
        /// What it wants.
        wanted: Wanted,
    },
    /// A peer group has taken everything of our stream below this.
    PeerTook {
        /// The peer.
        dest: GroupId,
        /// Its cursor.
        next_seq: u64,
    },
    /// Queued transactions that this replica cannot propose any more.
    Refuse {
        /// The transactions.
        txs: Vec<Bytes>,
        /// Why.
        reject: Reject,
    },
    /// Something an operator must know, until [`Output::AlarmEnded`]; most of it no time mends.
    Alarm {
        /// One alarm is shown for each.
        cause: Cause,
        /// What happened, and what it means.
        text: String,
    },
    /// What an alarm was about has ended.
    AlarmEnded(Cause),
    /// A node asked here for the mail of a group past the anchors, and was refused. Told once until anchors or seats
    /// change.
    Stray {
        /// The group.
        dest: GroupId,
        /// The node.
        node: NodeId,
    },
    /// This replica's state is wrong: nothing of it may be served any more, and the group must not go
    /// on here. The text says why.
    Stop(String),
}

/// What a lasting alarm of a driver is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A block carries a signature that does not hold.
    ForgedBlock,
    /// This node signed another header than this replica has.
    Divergence(NodeId),
    /// No anchor of this group is heard of, so that its mail waits.
    Anchors(GroupId),
}
