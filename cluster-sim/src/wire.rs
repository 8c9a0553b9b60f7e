//! What travels over the simulated network. Everything is encoded when it is sent and decoded when
//! it arrives, as between processes.

pub mod bft;

use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};
use consensus::local;
use cross_shard::Message;
use cross_shard::commit::Decision;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, Height, NodeId, OrgId};
use ledger::receipt::Receipt;
use ledger::reject::Reject;
use shard_node::core::peer::PeerMessage;

/// An end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// A node.
    Node(NodeId),
    /// The clients with their router.
    Client,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "n{node}"),
            Self::Client => f.write_str("client"),
        }
    }
}

/// Answer to a submitted transaction. There may be several to one request.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Reply {
    /// What became of it in this group, persisted.
    Receipt(Receipt),
    /// How this group has voted on it, persisted.
    Voted(Decision),
    /// It has been executed in this group, and all its credits have been taken elsewhere.
    Applied,
    /// Refused without a receipt.
    Refused(Reject),
    /// Another replica leads, perhaps this one.
    NotLeader(Option<NodeId>),
}

/// Which copy of a state a part is of. The height alone does not say it: a lender that was down makes another
/// copy at the same height, with other marks of its own and other certificates in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CopyName {
    /// The height of the state.
    pub height: Height,
    /// Hash of all its bytes.
    pub hash: Hash32,
}

/// One message.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub enum Wire {
    /// Consensus of a group.
    Engine {
        /// The group.
        group: GroupId,
        /// The stint of the sender.
        stint: u64,
        /// The seat that sends it.
        from: NodeId,
        /// The seat that it is for.
        to: NodeId,
        /// The message.
        message: local::Msg,
    },
    /// Between replicas of a Byzantine group.
    Bft {
        /// The group.
        group: GroupId,
        /// The stint of the sender.
        stint: u64,
        /// The message.
        message: Box<bft::BftWire>,
    },
    /// Answers a message of an earlier stint.
    Ahead {
        /// The group.
        group: GroupId,
        /// The stint of the sender.
        stint: u64,
    },
    /// Asks for a part of a group's state.
    Fetch {
        /// The group.
        group: GroupId,
        /// The copy that is being fetched; of any, to begin with.
        of: Option<CopyName>,
        /// The part, counted from 0.
        part: u32,
    },
    /// A part of a group's state.
    Part {
        /// The group.
        group: GroupId,
        /// The copy.
        of: CopyName,
        /// The part, counted from 0.
        part: u32,
        /// How many there are.
        parts: u32,
        /// What is in it.
        bytes: Vec<u8>,
    },
    /// Asks for the beacon's registry.
    Follow {
        /// The revision that the sender knows.
        revision: u64,
    },
    /// The beacon's registry.
    Registry {
        /// An encoded [`beacon::ClusterView`].
        view: Vec<u8>,
        /// How those groups began that the receiver has a seat in, encoded.
        foundations: Vec<Vec<u8>>,
    },
    /// Asks whether a group goes on without the sender.
    Leaving {
        /// The group.
        group: GroupId,
    },
    /// It does.
    MayLeave {
        /// The group.
        group: GroupId,
    },
    /// Between drivers.
    Peer {
        /// The receiving group.
        group: GroupId,
        /// The message.
        message: Box<PeerMessage>,
    },
    /// A reading of the sender's clock.
    Clock {
        /// Milliseconds since the epoch.
        wall_ms: u64,
    },
    /// A client's transaction.
    Submit {
        /// The client's name for this request.
        request: u32,
        /// A group that the router chose.
        group: GroupId,
        /// The signed transaction, with the openings for this group.
        tx: Vec<u8>,
        /// Whether the client wants to know when it is applied.
        wants_applied: bool,
        /// Whose client it is and what names its certificate, in runs in which hosts look at that.
        caller: Option<(OrgId, Hash32)>,
    },
    /// Answer to it.
    Answer {
        /// As in the request.
        request: u32,
        /// The group that answers.
        group: GroupId,
        /// The answer.
        reply: Reply,
    },
}

impl Wire {
    /// Encodes for the link.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory does not fail")
    }

    /// One line for the event log.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Engine { group, message, .. } => format!("{group} {}", engine(message)),
            Self::Bft { group, message, .. } => format!("{group} {}", message.describe()),
            Self::Ahead { group, stint } => format!("{group} is in the stint behind entry {stint}"),
            Self::Fetch { group, of, part } => {
                let of = of.map(|of| of.height);
                format!("{group} asks for part {part} of the state {of:?}")
            }
            Self::Part { group, of, part, parts, .. } => {
                format!("{group} part {part} of {parts} of the state of height {}", of.height)
            }
            Self::Follow { revision } => format!("asks for a registry after revision {revision}"),
            Self::Registry { view, foundations } => {
                format!("registry of {} bytes with {} foundations", view.len(), foundations.len())
            }
            Self::Leaving { group } => format!("asks whether {group} goes on without it"),
            Self::MayLeave { group } => format!("{group} goes on without it"),
            Self::Peer { group, message } => format!("{group} {}", peer(message)),
            Self::Clock { wall_ms } => format!("clock {wall_ms}"),
            Self::Submit { request, group, .. } => format!("{group} submit #{request}"),
            Self::Answer { request, group, reply } => format!("{group} answers #{request} {}", answer(reply)),
        }
    }
}

fn answer(reply: &Reply) -> String {
    match reply {
        Reply::Receipt(receipt) => {
            format!("receipt of {} at {}.{}: {:?}", receipt.txid, receipt.height, receipt.index, receipt.outcome)
        }
        Reply::Voted(decision) => format!("voted {decision:?}"),
        Reply::Applied => "applied".to_owned(),
        Reply::Refused(reject) => format!("refused: {reject:?}"),
        Reply::NotLeader(hint) => format!("not leader, perhaps {hint:?}"),
    }
}

fn mail(bytes: &[u8]) -> String {
    match borsh::from_slice::<Message>(bytes) {
        Ok(Message::Vote(vote)) => format!("vote {:?} on {}", vote.decision, vote.txid),
        Ok(Message::Credit(credit)) => format!("credit {}.{} of {}", credit.txid, credit.move_index, credit.amount),
        Ok(Message::Transfer(transfer)) => {
            format!("transfer {}.{} of {}", transfer.txid, transfer.move_index, transfer.amount)
        }
        Ok(Message::AssetUpdate(def)) => format!("asset {}", def.id),
        Ok(Message::CommitteeUpdate(committee)) => format!("committee of {}", committee.group),
        Ok(Message::CommitteePlan(committee)) => format!("plan for {}", committee.group),
        Ok(Message::LayoutUpdate(layout)) => format!("layout {}", layout.version),
        Ok(Message::RegistryUpdate(update)) => {
            format!("registry of {} organisations and {} nodes", update.orgs.len(), update.nodes.len())
        }
        Ok(Message::AnchorsUpdate(update)) => format!("anchors of {}: {:?}", update.channel, update.anchors),
        Ok(Message::ChannelUpdate(shown)) => format!("channel of {:?}, {:?}", shown.members, shown.status),
        Ok(Message::Seal(seal)) => format!("seal of {:?} by {}", seal.parents, seal.job),
        Ok(Message::Unseal(job)) => format!("unseal by {job}"),
        Ok(Message::Reshaped(reshaped)) => format!("layout {} by {}", reshaped.layout.version, reshaped.job),
        Ok(Message::Closed(closed)) => format!("{} to {} was taken below {}", closed.source, closed.dest, closed.taken),
        Err(_) => "no message".to_owned(),
    }
}

fn engine(message: &local::Msg) -> String {
    match message {
        local::Msg::Append { term, previous_index, entries, commit, .. } => {
            format!("append term {term} after {previous_index}: {} entries, commit {commit}", entries.len())
        }
        other @ (local::Msg::VoteRequest { .. } | local::Msg::VoteReply { .. } | local::Msg::AppendReply { .. }) => {
            format!("{other:?}")
        }
    }
}

fn peer(message: &PeerMessage) -> String {
    match message {
        PeerMessage::Attest { attestation, wants_certificate } => {
            format!("attest height {} (wants certificate: {wants_certificate})", attestation.height)
        }
        PeerMessage::Certified(certificate) => format!("certificate of height {}", certificate.header.height),
        PeerMessage::Pull { dest, next_seq, ack, .. } => {
            format!("pull for {dest} from {next_seq} (with proof: {})", ack.is_some())
        }
        PeerMessage::Serving { source } => format!("served by {source}"),
        PeerMessage::Bundle(bundle) => {
            let messages: Vec<String> = bundle.messages.iter().map(|bytes| mail(bytes)).collect();
            format!("bundle of {} from {}: {}", bundle.source, bundle.first_seq, messages.join(", "))
        }
        PeerMessage::Ack(proof) => format!("proof of cursor {}", proof.leaf.next_seq),
        PeerMessage::Ready(ready) => format!("ready {}", ready.group()),
        PeerMessage::Evidence(proof) => {
            format!("evidence against node {} of {}", proof.node(), proof.first.ballot.group)
        }
        PeerMessage::Silence(report) => {
            format!("silence of {} nodes for node {}", report.silent.len(), report.reporter)
        }
        PeerMessage::WantTrail { after } => match after {
            Some(after) => format!("asks for headers behind {after}"),
            None => "asks for all headers".to_owned(),
        },
        PeerMessage::WantHeaders { after } => format!("asks for headers behind {after}, without streams"),
        PeerMessage::WantStreams { at } => format!("asks where streams stand at {at}"),
        PeerMessage::Audit(entry) => format!("audit of {} (kind {})", entry.group(), entry.kind()),
        PeerMessage::Contribution(given) => {
            format!("contribution of node {} to epoch {}", given.node, given.epoch)
        }
        PeerMessage::Report(report) => {
            format!("report of node {} on {}: {:?}", report.node, report.group, report.said)
        }
        PeerMessage::Sealed(proof) => {
            let header = &proof.certificate.header;
            format!("proof that {} is sealed at height {} for {}", header.group, header.height, proof.job)
        }
        PeerMessage::Checkpoint(certificate) => {
            format!("checkpoint of {} height {}", certificate.header.group, certificate.header.height)
        }
        PeerMessage::Probe { dest, next_seq } => format!("probe for {dest} from {next_seq}"),
        PeerMessage::Want { height } => format!("asks for the certificate of height {height}"),
        PeerMessage::Head(proof) => format!("proof of head {}", proof.leaf.next_seq),
    }
}
