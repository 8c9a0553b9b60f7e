//! Commands to the beacon: what an organisation's admin asks the registry to change, and the signed
//! envelope it comes in.

use borsh::{BorshDeserialize, BorshSerialize};
use channel::{FoundingAct, Hosting, Promise, Terms};
use ledger::committee::Engine;
use ledger::crypto::{self, PublicKey, SecretKey, Signature};
use ledger::genesis::{NodeInfo, OrgInfo};
use ledger::hash::{Hash32, tagged};
use ledger::ids::{ClusterId, GroupId, JobId, LayoutVersion, NodeId, OrgId, TimeMs};
use ledger::reject::Reject;

use crate::audit::quarantine::Held;
use crate::epochs::EpochPolicy;
use crate::jobs::ScalePolicy;
use crate::limits::COMMAND_BYTES_MAX;
use crate::policies::PolicyChange;
use crate::watch::Watch;

/// Version written into new envelopes.
pub const COMMAND_VERSION: u8 = 1;

/// One change of the registry. The first byte of its encoding is the variant's number and so the version:
/// variants are added, never changed. The number of one that is gone is given to no other, and means no command: 8 stated the
/// policies of a channel in clear.
///
/// What more than half of the organisations have to send is sent by others where the policy of its [`Matter`] says so.
///
/// [`Matter`]: crate::policies::Matter
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum BeaconCommand {
    /// Proposes a new organisation, or approves that very proposal. It joins once more than half
    /// of the organisations have sent it. Nobody gets the number of one that is gone.
    RegisterOrg(OrgInfo) = 0,
    /// Adds a node of the signing organisation. It gets seats that become free, and its share when it is to join. Nobody gets
    /// the number or the key of one that is gone.
    RegisterNode(NodeInfo) = 1,
    /// Changes where a node of the signing organisation is reached.
    UpdateNodeAddrs {
        /// The node.
        node: NodeId,
        /// `host:port` for other nodes.
        peer_addr: String,
        /// `host:port` for clients.
        client_addr: String,
    } = 2,
    /// Announces a new TLS key for a node of the signing organisation.
    UpdateNodeTls {
        /// The node.
        node: NodeId,
        /// `sha256` of the new certificate's subject public key info.
        tls_key_hash: Hash32,
    } = 3,
    /// Changes a node's weight in assignments. Zero takes its seats: each goes to another node as soon
    /// as that one has the state.
    SetNodeCapacity {
        /// The node.
        node: NodeId,
        /// The new weight.
        capacity: u16,
    } = 4,
    /// Replaces the signing organisation's CA certificate.
    UpdateOrgCa {
        /// The new certificate in PEM.
        ca_pem: String,
    } = 5,
    /// Replaces the signing organisation's admin key. The old one is revoked.
    RotateAdminKey {
        /// The new key.
        key: PublicKey,
    } = 6,
    /// Revokes a key or a certificate of the signing organisation for good, wherever it counts. That of a node
    /// is replaced first.
    RevokeCredential {
        /// `sha256` of the key, or of the certificate's subject public key info.
        credential: Hash32,
    } = 7,
    /// Approves, rejects or takes back a channel that was proposed. The approval that decides founds it.
    ActOnChannel {
        /// The id of the founding.
        founding: Hash32,
        /// The signing organisation's word.
        act: FoundingAct,
    } = 9,
    /// Proposes that an organisation goes, or approves that very proposal. It is gone, with its nodes, once more
    /// than half of the organisations have sent it, of which it is one itself. It has no seat by then, and is in
    /// no channel.
    RemoveOrg {
        /// The organisation.
        org: OrgId,
    } = 10,
    /// Proposes that a shard goes on under another engine, or approves that very proposal. It is prepared once more
    /// than half of the organisations have sent it. The engine in force takes back a switch that is not there yet.
    SwitchEngine {
        /// The shard.
        group: GroupId,
        /// The engine.
        engine: Engine,
    } = 11,
    /// Strikes a node of the signing organisation off that has no seat. Nobody gets its number or its key.
    RemoveNode {
        /// The node.
        node: NodeId,
    } = 20,
    /// Has a node of the signing organisation take its share of the seats, a few at a time, from those with most load.
    JoinNode {
        /// The node.
        node: NodeId,
    } = 21,
    /// Gives the seats of a node of the signing organisation to another one of it, in one plan for all groups. The first
    /// has no capacity any more.
    ReplaceNode {
        /// The node that goes.
        node: NodeId,
        /// The one that takes its seats.
        successor: NodeId,
    } = 22,
    /// Proposes what is done about nodes that vanish, or approves that very proposal. It is in force once more than half
    /// of the organisations have sent it.
    SetWatch(Watch) = 23,
    /// Proposes how long epochs are and what is asked of their deals, or approves that very proposal. It is in force once
    /// more than half of the organisations have sent it.
    SetEpochs(EpochPolicy) = 24,
    /// Proposes that the deal of the epoch that runs evens seats out, or approves that. It does once more than half of the
    /// organisations have sent it.
    Rebalance = 25,
    /// Proposes that a group, or a node for its replica of one, is let out of quarantine, or approves that very proposal. It
    /// is out once more than half of the organisations have sent it.
    ReleaseQuarantine(Held) = 27,
    /// Proposes that a shard is cut into the halves of its prefix, or approves that very proposal. It is begun once more
    /// than half of the organisations have sent it.
    SplitShard {
        /// The shard.
        group: GroupId,
        /// The layout that the plan was made on.
        layout: LayoutVersion,
        /// Whether the shard is told to stand still only by [`BeaconCommand::CutShard`].
        manual: bool,
    } = 30,
    /// Proposes that the two halves of a prefix are joined, or approves that very proposal, as a cut.
    MergeShards {
        /// The left half.
        left: GroupId,
        /// The right half.
        right: GroupId,
        /// The layout that the plan was made on.
        layout: LayoutVersion,
        /// Whether the shards are told to stand still only by [`BeaconCommand::CutShard`].
        manual: bool,
    } = 31,
    /// Moves a seat from one node to another one: by the organisation's word whose both are, else once more than half of the
    /// organisations have sent it.
    MoveShard {
        /// The shard.
        group: GroupId,
        /// Who has the seat.
        from: NodeId,
        /// Who is to have it.
        to: NodeId,
        /// The layout that the plan was made on.
        layout: LayoutVersion,
    } = 32,
    /// Has the shards of a job stand still, now that copies are ready. By an organisation that has approved it.
    CutShard {
        /// The job.
        job: JobId,
    } = 33,
    /// Takes a job back, up to its commit. By an organisation that has approved it; one that the policy of scaling has
    /// begun, by any.
    CancelJob {
        /// The job.
        job: JobId,
    } = 34,
    /// Proposes when the beacon cuts and joins shards, and moves seats and leads, by itself, or approves that very proposal.
    /// It is in force once more than half of the organisations have sent it.
    SetScale(ScalePolicy) = 35,
    /// Replaces the key that a node of the signing organisation signs with. Each group that the node has a seat in takes the
    /// new one with a committee of its own; the one before is never taken again.
    RotateNodeKey {
        /// The node.
        node: NodeId,
        /// The new key.
        key: PublicKey,
        /// By the new key over [`crate::keys::possession`].
        possession: Signature,
    } = 40,
    /// Proposes who has to approve a matter, or approves that very proposal. It is in force once the policy of policies holds.
    SetPolicy(PolicyChange) = 42,
    /// Proposes a channel. The proposer's approval and its nodes come with it, and a promise in place of policies: what the
    /// channel comes to go by is read by those whom the terms name, and not by the beacon.
    ProposeSealedChannel {
        /// What it states; of policies, those that every such channel starts with.
        terms: Terms,
        /// What it promises.
        promise: Promise,
        /// The proposer's nodes.
        hosting: Hosting,
        /// Last block time at which it can be approved.
        until_ms: TimeMs,
    } = 44,
}

/// A command under the signature of an organisation's admin.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedCommand {
    /// Format version, [`COMMAND_VERSION`].
    pub version: u8,
    /// The encoded [`BeaconCommand`]; these bytes are signed, never re-encoded.
    pub command: Vec<u8>,
    /// Makes equal commands distinct.
    pub salt: [u8; 16],
    /// Last block time at which it may execute.
    pub valid_until_ms: TimeMs,
    /// Whose admin signs.
    pub org: OrgId,
    /// By the organisation's admin key over [`SignedCommand::digest`].
    pub signature: Signature,
}

impl SignedCommand {
    /// Signs a command.
    #[must_use]
    pub fn sign(
        cluster: &ClusterId,
        command: &BeaconCommand,
        org: OrgId,
        salt: [u8; 16],
        valid_until_ms: TimeMs,
        admin: &SecretKey,
    ) -> Self {
        let command = borsh::to_vec(command).expect("writing to memory does not fail");
        let digest = digest(cluster, org, valid_until_ms, &salt, &command);
        Self { version: COMMAND_VERSION, command, salt, valid_until_ms, org, signature: admin.sign(&digest) }
    }

    /// Encodes for the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory does not fail")
    }

    /// Decodes an envelope and checks what needs no state.
    ///
    /// # Errors
    /// [`Reject::BodyTooLarge`] or [`Reject::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Reject> {
        if bytes.len() > COMMAND_BYTES_MAX {
            return Err(Reject::BodyTooLarge);
        }
        let signed: Self = borsh::from_slice(bytes).map_err(|_| Reject::Malformed)?;
        if signed.version == COMMAND_VERSION { Ok(signed) } else { Err(Reject::Malformed) }
    }

    /// The command inside.
    ///
    /// # Errors
    /// [`Reject::Malformed`] when the bytes are no command.
    pub fn parse(&self) -> Result<BeaconCommand, Reject> {
        borsh::from_slice(&self.command).map_err(|_| Reject::Malformed)
    }

    /// What is signed, and what names the command:
    /// `sha256("seamark/command/v1" ‖ cluster ‖ org ‖ valid_until ‖ salt ‖ command)`.
    #[must_use]
    pub fn digest(&self, cluster: &ClusterId) -> Hash32 {
        digest(cluster, self.org, self.valid_until_ms, &self.salt, &self.command)
    }

    /// Verifies the signature by the admin key that the registry holds.
    ///
    /// # Errors
    /// [`Reject::BadSignature`] if it does not hold.
    pub fn verify(&self, cluster: &ClusterId, admin: &PublicKey) -> Result<(), Reject> {
        crypto::verify(admin, &self.digest(cluster), &self.signature).map_err(|_| Reject::BadSignature)
    }
}

fn digest(cluster: &ClusterId, org: OrgId, valid_until_ms: TimeMs, salt: &[u8; 16], command: &[u8]) -> Hash32 {
    let parts: [&[u8]; 5] = [&cluster.0.0, &org.0.to_be_bytes(), &valid_until_ms.0.to_be_bytes(), salt, command];
    tagged(b"seamark/command/v1", &parts)
}
