//! What a channel's group executes besides transactions: signed commands on its governance.
//!
//! Nothing is written until everything has been checked, so a refusal leaves no trace in the view.
//! What a command did is remembered until its deadline: sent again, it returns the first outcome.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::crypto::PublicKey;
use ledger::hash::Hash32;
use ledger::ids::{Height, OrgId, TimeMs};
use ledger::machine::{BlockContext, ReadSet};
use ledger::view::View;

use crate::change::Subject;
use crate::command::{CheckedCommand, Command};
use crate::lifecycle::{Deed, Phase};
use crate::limits::{COMMAND_VALID_MS_MAX, COMMANDS_OPEN_PER_ORG_MAX};
use crate::policy::{Elector, Role};
use crate::proposal::ProposalState;
use crate::reject::{ChannelReject, Refusal};
use crate::scene::Scene;
use crate::state::{self, Batch};
use crate::surroundings::Surroundings;

/// What an accepted command did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Outcome {
    /// What it asked for is in force.
    Done,
    /// A proposal was made, spoken on or ended: where it stands now.
    Proposal {
        /// Which.
        id: Hash32,
        /// Where it stands.
        state: ProposalState,
    },
    /// The organisation is a member from this block on.
    Joined {
        /// The block.
        height: Height,
    },
    /// The organisation is no member from this block on; the exclusion is a leaf of its state.
    Left {
        /// The block.
        height: Height,
    },
    /// The channel is in another phase.
    Phase(Phase),
}

/// Version of [`DoneRecord`].
const DONE_VERSION: u8 = 1;

/// A command that has been executed, kept as long as it could be sent again.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
struct DoneRecord {
    version: u8,
    outcome: Outcome,
}

/// Checks and executes a signed command.
///
/// # Errors
/// [`Refusal`]; the view is then unchanged.
pub fn execute(
    view: &mut View<'_>,
    at: &BlockContext,
    around: &Surroundings<'_>,
    bytes: &[u8],
) -> Result<Outcome, Refusal> {
    let checked = CheckedCommand::check(bytes, &at.cluster, at.group)?;
    execute_checked(view, at, around, &checked)
}

/// Executes a command whose form and signature have been checked before.
///
/// # Errors
/// [`Refusal`]; the view is then unchanged.
pub fn execute_checked(
    view: &mut View<'_>,
    at: &BlockContext,
    around: &Surroundings<'_>,
    checked: &CheckedCommand,
) -> Result<Outcome, Refusal> {
    let signed = checked.signed();
    if signed.cluster != at.cluster {
        return Err(ChannelReject::WrongCluster.into());
    }
    if signed.group != at.group {
        return Err(ChannelReject::WrongChannel.into());
    }
    let done_key = state::done_key(signed.org, signed.valid_until_ms, &checked.digest());
    // A known digest was authorised when it was first executed, also if keys have changed since.
    if let Some(done) = view.load::<DoneRecord>(&done_key) {
        return Ok(done.outcome);
    }
    if at.time_ms > signed.valid_until_ms {
        return Err(ChannelReject::Expired.into());
    }
    if signed.valid_until_ms.0 > at.time_ms.0.saturating_add(COMMAND_VALID_MS_MAX) {
        return Err(ChannelReject::ValidTooLong.into());
    }
    let mut scene = Scene::open(view, at, around)?;
    let role = scene.signer(signed.org, &signed.key, checked.command())?;
    let expired = remembered(scene.view, signed.org, at.time_ms)?;
    let by = Signer { org: signed.org, key: signed.key, role, salt: signed.salt };
    let (outcome, mut batch) = scene.run(&by, checked.command())?;
    expired.into_iter().for_each(|key| batch.delete(key));
    batch.put(done_key, &DoneRecord { version: DONE_VERSION, outcome });
    batch.write(view);
    Ok(outcome)
}

/// What a command that was executed has come to, as long as it is remembered.
pub fn outcome_of(view: &mut View<'_>, checked: &CheckedCommand) -> Option<Outcome> {
    let signed = checked.signed();
    let key = state::done_key(signed.org, signed.valid_until_ms, &checked.digest());
    view.load::<DoneRecord>(&key).map(|done| done.outcome)
}

/// Keys that a command will probably read.
#[must_use]
pub fn read_set(checked: &CheckedCommand) -> ReadSet {
    let signed = checked.signed();
    let mut keys = vec![
        state::done_key(signed.org, signed.valid_until_ms, &checked.digest()),
        state::channel_key(),
        state::member_key(signed.org),
    ];
    match checked.command() {
        Command::Propose { change, .. } => {
            keys.push(state::policy_key(change.subject()));
            keys.push(state::revision_key(change.target()));
        }
        Command::Approve { proposal }
        | Command::Reject { proposal }
        | Command::Withdraw { proposal }
        | Command::Settle { proposal } => keys.push(state::proposal_key(proposal)),
        Command::Join { .. } | Command::Decline => keys.push(state::invitation_key(signed.org)),
        Command::Leave
        | Command::AddKey { .. }
        | Command::RotateKey { .. }
        | Command::RevokeKey { .. }
        | Command::RevokeCertificate { .. }
        | Command::SetNodes { .. } => keys.extend(Subject::ALL.map(state::policy_key)),
        Command::Open { .. } => {
            keys.push(state::promise_key());
            keys.extend(Subject::ALL.map(state::policy_key));
        }
        Command::FinishClose => {}
    }
    keys
}

/// Keys of an organisation's remembered commands past their deadline.
fn remembered(view: &mut View<'_>, org: OrgId, now: TimeMs) -> Result<Vec<Vec<u8>>, ChannelReject> {
    let prefix = state::done_prefix(org);
    let keys: Vec<Vec<u8>> = view.scan_prefix(&prefix).into_iter().map(|(key, _)| key).collect();
    let total = keys.len();
    let expired: Vec<Vec<u8>> = keys
        .into_iter()
        .filter(|key| key.get(prefix.len()..prefix.len() + 8).is_some_and(|until| until < &now.0.to_be_bytes()[..]))
        .collect();
    if total - expired.len() >= COMMANDS_OPEN_PER_ORG_MAX { Err(ChannelReject::Busy) } else { Ok(expired) }
}

/// Who signed a command, once that is known to be theirs.
pub(crate) struct Signer {
    pub org: OrgId,
    pub key: PublicKey,
    pub role: Role,
    pub salt: [u8; 16],
}

impl Signer {
    pub fn elector(&self) -> Elector {
        Elector { org: self.org, role: self.role }
    }
}

impl Scene<'_, '_> {
    /// In which role a key signs for an organisation.
    fn signer(&mut self, org: OrgId, key: &PublicKey, command: &Command) -> Result<Role, ChannelReject> {
        let revoked = state::revocation(self.view, org, &state::credential_of(key)).is_some();
        if self.member(org).is_none() && matches!(command, Command::Join { .. } | Command::Decline) {
            if revoked {
                return Err(ChannelReject::CredentialRevoked);
            }
            self.invitation(org).ok_or(ChannelReject::NotInvited)?;
            let entry = self.around.registry.org(org).ok_or(ChannelReject::OrgUnknown)?;
            return if entry.admin_key == *key { Ok(Role::Admin) } else { Err(ChannelReject::KeyUnknown) };
        }
        let member = self.expect_member(org)?;
        if revoked {
            return Err(ChannelReject::CredentialRevoked);
        }
        member.role_of(key).ok_or(ChannelReject::KeyUnknown)
    }

    fn run(&mut self, by: &Signer, command: &Command) -> Result<(Outcome, Batch), Refusal> {
        self.channel.phase.allows(deed(command))?;
        let speaks = matches!(command, Command::Approve { .. } | Command::Reject { .. } | Command::Settle { .. });
        if by.role != Role::Admin && !speaks {
            return Err(ChannelReject::Role.into());
        }
        let height = self.at.height;
        let done = |batch| (Outcome::Done, batch);
        match command {
            Command::Propose { change, until_ms } => self.propose(by, change, *until_ms),
            Command::Approve { proposal } => self.speak(by, proposal, true),
            Command::Reject { proposal } => self.speak(by, proposal, false),
            Command::Withdraw { proposal } => self.withdraw(by.org, proposal),
            Command::Settle { proposal } => self.settle(proposal),
            Command::Join { .. } if self.member(by.org).is_some() => Err(ChannelReject::AlreadyMember.into()),
            Command::Join { nodes } => {
                let batch = self.join(by.org, &by.key, nodes)?;
                Ok((Outcome::Joined { height }, batch))
            }
            Command::Decline => self.decline(by.org).map(done),
            Command::Leave => {
                let batch = self.leave(by.org)?;
                Ok((Outcome::Left { height }, batch))
            }
            Command::AddKey { key, role } => self.add_key(by.org, key, *role).map(done),
            Command::RotateKey { old, new } => self.rotate_key(by.org, old, new).map(done),
            Command::RevokeKey { key } => self.revoke_own_key(by.org, key).map(done),
            Command::RevokeCertificate { credential } => self.revoke_certificate(by.org, credential).map(done),
            Command::SetNodes { nodes } => self.set_nodes(by.org, nodes).map(done),
            Command::FinishClose => {
                let batch = self.finish_close()?;
                Ok((Outcome::Phase(Phase::Closed), batch))
            }
            Command::Open { opening } => self.keep_promise(opening).map(done),
        }
    }
}

/// What the phase has to allow for a command.
fn deed(command: &Command) -> Deed {
    match command {
        Command::Propose { .. }
        | Command::Approve { .. }
        | Command::Reject { .. }
        | Command::Withdraw { .. }
        | Command::Settle { .. }
        | Command::Join { .. }
        | Command::Decline
        | Command::Open { .. } => Deed::Govern,
        Command::Leave
        | Command::AddKey { .. }
        | Command::RotateKey { .. }
        | Command::RevokeKey { .. }
        | Command::RevokeCertificate { .. }
        | Command::SetNodes { .. } => Deed::OwnAct,
        // The table of steps says when it is possible, and with which code it is refused otherwise.
        Command::FinishClose => Deed::Read,
    }
}
