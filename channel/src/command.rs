//! Commands to a channel and the signed envelope they come in.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::crypto::{self, PublicKey, SecretKey, Signature};
use ledger::hash::{Hash32, tagged};
use ledger::ids::{ClusterId, GroupId, NodeId, OrgId, TimeMs};

use crate::access::Action;
use crate::change::Change;
use crate::limits::COMMAND_BYTES_MAX;
use crate::opening::Opening;
use crate::policy::Role;
use crate::reject::ChannelReject;

/// Version written into new envelopes.
pub const COMMAND_VERSION: u8 = 1;

/// One act in a channel. The first byte of its encoding is the variant and so the version: variants
/// are added, never changed.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Command {
    /// Proposes a change, and approves it at once where the policy asks the proposer.
    Propose {
        /// What to change.
        change: Change,
        /// Last block time at which it can be decided.
        until_ms: TimeMs,
    },
    /// Approves a proposal. The approval that satisfies the policy brings the change into force.
    Approve {
        /// Which.
        proposal: Hash32,
    },
    /// Rejects a proposal. The rejection after which its policy cannot be satisfied ends it.
    Reject {
        /// Which.
        proposal: Hash32,
    },
    /// Takes back a proposal of the signing organisation.
    Withdraw {
        /// Which.
        proposal: Hash32,
    },
    /// Brings a proposal into force whose policy holds without a further approval, because members
    /// have gone since the last one.
    Settle {
        /// Which.
        proposal: Hash32,
    },
    /// Accepts an invitation, under the admin key that the registry has for the organisation.
    Join {
        /// The organisation's nodes that will host the channel, strictly ascending.
        nodes: Vec<NodeId>,
    },
    /// Declines an invitation.
    Decline,
    /// Ends the signing organisation's membership.
    Leave,
    /// Adds a key of the signing organisation.
    AddKey {
        /// The key.
        key: PublicKey,
        /// [`Role::Admin`] or [`Role::Member`].
        role: Role,
    },
    /// Puts a key in place of another one, in the same role. What the old one approved still counts.
    RotateKey {
        /// The old key.
        old: PublicKey,
        /// The new key.
        new: PublicKey,
    },
    /// Revokes a key of the signing organisation. What it approved counts no more where it is open.
    RevokeKey {
        /// The key.
        key: PublicKey,
    },
    /// Revokes a certificate of the signing organisation, by `sha256` of its subject public key info.
    RevokeCertificate {
        /// The hash.
        credential: Hash32,
    },
    /// Sets the signing organisation's nodes that host the channel.
    SetNodes {
        /// Strictly ascending.
        nodes: Vec<NodeId>,
    },
    /// Closes a channel that is closing, once nothing is under way.
    FinishClose,
    /// Gives the channel what its founding promised: its policies come into force.
    Open {
        /// What the promised hash is of.
        opening: Opening,
    },
}

impl Command {
    /// What a caller has to be allowed to do so that a host takes this command from it. The machine
    /// judges the signature all the same.
    #[must_use]
    pub fn action(&self) -> Action {
        match self {
            Self::Propose { .. } | Self::Withdraw { .. } => Action::Propose,
            Self::Approve { .. } | Self::Reject { .. } | Self::Settle { .. } => Action::Approve,
            Self::Join { .. } | Self::Decline => Action::Join,
            Self::Leave
            | Self::AddKey { .. }
            | Self::RotateKey { .. }
            | Self::RevokeKey { .. }
            | Self::RevokeCertificate { .. }
            | Self::SetNodes { .. }
            | Self::FinishClose
            | Self::Open { .. } => Action::OwnAct,
        }
    }
}

/// A command under a signature.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedCommand {
    /// Format version, [`COMMAND_VERSION`].
    pub version: u8,
    /// The cluster.
    pub cluster: ClusterId,
    /// The channel's group.
    pub group: GroupId,
    /// For whom it is signed.
    pub org: OrgId,
    /// By which key.
    pub key: PublicKey,
    /// Last block time at which it may execute.
    pub valid_until_ms: TimeMs,
    /// Makes equal commands distinct.
    pub salt: [u8; 16],
    /// The encoded [`Command`]; these bytes are signed, never re-encoded.
    pub body: Vec<u8>,
    /// By `key` over [`SignedCommand::digest`].
    pub signature: Signature,
}

impl SignedCommand {
    /// Signs a command.
    #[must_use]
    pub fn sign(
        cluster: &ClusterId,
        group: GroupId,
        org: OrgId,
        command: &Command,
        salt: [u8; 16],
        valid_until_ms: TimeMs,
        secret: &SecretKey,
    ) -> Self {
        let mut signed = Self {
            version: COMMAND_VERSION,
            cluster: *cluster,
            group,
            org,
            key: secret.public(),
            valid_until_ms,
            salt,
            body: borsh::to_vec(command).expect("writing to memory does not fail"),
            signature: Signature([0; 64]),
        };
        signed.signature = secret.sign(&signed.digest());
        signed
    }

    /// Encodes for the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory does not fail")
    }

    /// What is signed, and what names the command: `sha256("seamark/channel-command/v1" ‖ version ‖
    /// cluster ‖ group ‖ org ‖ key ‖ valid_until ‖ salt ‖ body)`, numbers big-endian.
    #[must_use]
    pub fn digest(&self) -> Hash32 {
        let parts: [&[u8]; 8] = [
            &[self.version],
            &self.cluster.0.0,
            &self.group.0.to_be_bytes(),
            &self.org.0.to_be_bytes(),
            &self.key.0,
            &self.valid_until_ms.0.to_be_bytes(),
            &self.salt,
            &self.body,
        ];
        tagged(b"seamark/channel-command/v1", &parts)
    }
}

/// A command whose form and signature hold. Only [`CheckedCommand::check`] makes one, so a host may
/// check many in parallel where they enter and hand them to the machine later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedCommand {
    signed: SignedCommand,
    command: Command,
    digest: Hash32,
}

impl CheckedCommand {
    /// Decodes a command and checks all that needs no state: size, form, cluster, channel and
    /// signature. Whether the key is one of the organisation's is for the machine.
    ///
    /// # Errors
    /// [`ChannelReject::TooLarge`], [`ChannelReject::Malformed`], [`ChannelReject::WrongCluster`],
    /// [`ChannelReject::WrongChannel`] or [`ChannelReject::BadSignature`].
    pub fn check(bytes: &[u8], cluster: &ClusterId, group: GroupId) -> Result<Self, ChannelReject> {
        if bytes.len() > COMMAND_BYTES_MAX {
            return Err(ChannelReject::TooLarge);
        }
        let signed: SignedCommand = borsh::from_slice(bytes).map_err(|_| ChannelReject::Malformed)?;
        if signed.version != COMMAND_VERSION {
            return Err(ChannelReject::Malformed);
        }
        if signed.cluster != *cluster {
            return Err(ChannelReject::WrongCluster);
        }
        if signed.group != group {
            return Err(ChannelReject::WrongChannel);
        }
        let command: Command = borsh::from_slice(&signed.body).map_err(|_| ChannelReject::Malformed)?;
        let digest = signed.digest();
        crypto::verify(&signed.key, &digest, &signed.signature).map_err(|_| ChannelReject::BadSignature)?;
        Ok(Self { signed, command, digest })
    }

    /// The envelope.
    #[must_use]
    pub fn signed(&self) -> &SignedCommand {
        &self.signed
    }

    /// What it asks for.
    #[must_use]
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// What names it.
    #[must_use]
    pub fn digest(&self) -> Hash32 {
        self.digest
    }
}
