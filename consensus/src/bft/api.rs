//! The machine's inputs and outputs.
//!
//! A shell feeds [`super::Machine::step`] and carries out what comes back, in order. It cannot send a ballot
//! too early: the machine holds a message back until the records before it are durable, and only then puts
//! out [`Output::Send`].

use std::sync::Arc;

use bytes::Bytes;
use ledger::ballot::Equivocation;
use ledger::committee::Committee;
use ledger::hash::Hash32;
use ledger::ids::{ClusterId, NodeId};
use ledger::keys::NodeKeys;

use super::message::{Message, Record};
use super::value::{Body, Chain, Decided};

/// Times that a member goes by, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BftTiming {
    /// A leader without work proposes a blank value after this, as a sign of life. Each costs every member two writes of
    /// records and one of an entry.
    pub idle_ms: u64,
    /// Others wait so much longer for a proposal before they prevote nothing, unless so many have that no value can get
    /// enough prevotes any more. Grows by `step_ms` with each round.
    pub propose_ms: u64,
    /// After more than two thirds of the votes of a step that do not agree, the rest is waited for so long. Grows
    /// by `step_ms` with each round.
    pub vote_ms: u64,
    /// What time-outs grow by from round to round.
    pub step_ms: u64,
    /// Between two repetitions of the last votes of a round that does not end.
    pub repeat_ms: u64,
}

impl BftTiming {
    /// Fits a loopback cluster on a busy machine: a dead leader costs well under three seconds.
    pub const DEFAULT: Self = Self { idle_ms: 500, propose_ms: 1000, vote_ms: 300, step_ms: 250, repeat_ms: 1000 };
}

/// What a member is.
#[derive(Clone)]
pub struct Settings {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// The keys that it signs ballots with. It votes only while the committee names it with one of these, and signs
    /// with that one.
    pub key: NodeKeys,
    /// Times.
    pub timing: BftTiming,
}

/// What a machine starts from: the state, and what was written down since.
pub struct Begin {
    /// Where the applied state stands in the order.
    pub chain: Chain,
    /// The committee that the state has in force; it decides entry `chain.index + 1`.
    pub committee: Arc<Committee>,
    /// Values behind `chain.index` that the log has, in order. They are committed again, since the state does
    /// not have them.
    pub decided: Vec<Decided>,
    /// What was written down, in order, and the number of the first record. Records of entries that were decided
    /// are passed over.
    pub records: (u64, Vec<Record>),
    /// Whether this replica may vote and propose, where the committee names it. One that may not, follows.
    pub votes: bool,
}

/// What happens to a machine.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time passes; to be given when [`super::Machine::deadline`] has come.
    Tick,
    /// A member has sent something. `from` is who the transport knows it to be.
    Peer {
        /// The sender.
        from: NodeId,
        /// What it sent.
        message: Message,
    },
    /// The host wants something ordered. Answered by [`Output::Fate`].
    Submit {
        /// Names it, chosen by the host.
        ticket: u64,
        /// What to order.
        body: Body,
    },
    /// The host wants this member to lead behind the next value, for the rest of the turn; only taken by the one that
    /// leads.
    HandOver(NodeId),
    /// All records up to this number are durable.
    Persisted(u64),
    /// The host has judged a value: whether it may be voted for.
    Judged {
        /// The value.
        value: Hash32,
        /// What it has found.
        valid: bool,
    },
    /// The host's state has an entry, and this committee is in force behind it.
    Applied {
        /// Index of the entry.
        index: u64,
        /// Decides the next one.
        committee: Arc<Committee>,
    },
    /// A peer's log has a decided value. Nothing of it is believed before it is judged.
    Decided {
        /// The peer.
        from: NodeId,
        /// What it sent.
        decided: Box<Decided>,
    },
    /// The state was replaced by a snapshot that stands here.
    Installed {
        /// Where it stands.
        chain: Box<Chain>,
        /// The committee that it has in force.
        committee: Arc<Committee>,
    },
}

/// What became of something that the host wanted ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is the entry of this index, and the host's state has it.
    Applied(u64),
    /// This member does not lead: it never was proposed. Names who leads, as far as known.
    NotLeader(Option<NodeId>),
    /// It was proposed, and another value was decided, or leadership moved before anything was: another member
    /// may still propose it again, so it may or may not be ordered.
    Unknown,
    /// Too much waits already.
    Full,
}

/// What a machine is at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether it leads: it is the proposer of the running round, and may propose.
    pub leads: bool,
    /// The proposer of the running round.
    pub leader: Option<NodeId>,
    /// The entry that is being decided.
    pub index: u64,
    /// The running round.
    pub round: u32,
    /// The committee that decides it, by node.
    pub members: Vec<NodeId>,
    /// The highest entry that each other member was heard to decide or work on, of those that are decided here.
    pub heard: Vec<(NodeId, u64)>,
}

/// What a machine wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Make these records durable, numbered from `first` on; answered by [`Input::Persisted`] with the last number. Comes
    /// when this member is about to say something: what nothing follows from yet is held, and may never be written.
    Persist {
        /// Number of the first.
        first: u64,
        /// The records.
        records: Vec<Record>,
    },
    /// Send a message. Everything that it follows from is durable.
    Send {
        /// To whom; never this node.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Judge a batch: form, limits, signatures and the time stamp. Answered by [`Input::Judged`]. `agreed` says
    /// that more than two thirds have prevoted it: its time, which honest members have looked at, need not be
    /// near this node's clock any more.
    Judge {
        /// The value.
        value: Hash32,
        /// Its batch.
        batch: Bytes,
        /// Whether time does not matter.
        agreed: bool,
    },
    /// An entry is decided: keep it in the log, and apply it with this note when it is durable there, so that no crash
    /// leaves a state whose last value nobody else may have. Comes in order, without a gap, and one at a time:
    /// answered by [`Input::Applied`].
    Commit {
        /// What was decided.
        decided: Box<Decided>,
        /// The note of the entry.
        note: Chain,
    },
    /// Records up to this number are not needed any more, as soon as the entries that were committed are durable.
    Forget(u64),
    /// Entries from this index on are decided elsewhere: ask this node for them. May be lost; it is repeated. A
    /// question to one node never waits for another's answer: that one may be silent.
    Fetch {
        /// Whom.
        node: NodeId,
        /// The first entry that is missing.
        index: u64,
    },
    /// What became of a submission.
    Fate {
        /// Its name.
        ticket: u64,
        /// Its fate.
        fate: Fate,
    },
    /// The machine is something else than before.
    Standing(Standing),
    /// A member has signed two ballots that exclude each other.
    Evidence(Box<Equivocation>),
    /// A member has signed more ballots of this entry than are remembered. Those farthest from the running round are not
    /// compared with others any more: a double vote among them may leave no proof here. Said once for each entry.
    Unremembered(NodeId),
    /// The machine cannot go on without doing harm, and takes no more inputs.
    Stop(String),
}
