//! Who may do what in a channel, judged by the channel's own state.
//!
//! The state in the view is that of the height at which is judged: a host asks its newest applied
//! state, also when somebody wants to read an older height, so that whoever was excluded gets nothing
//! from the block of the exclusion on, whatever connection or certificate they still have.
//!
//! What nodes are sent as replicas, and which of them carry mail, is not asked here: committees and anchors say so.

use ledger::hash::Hash32;
use ledger::ids::{Address, AssetId, Height, LockId, OrgId, TimeMs};
use ledger::lock::Lock;
use ledger::schema;
use ledger::view::View;

use crate::change::{AuditGrant, Scope};
use crate::lifecycle::Deed;
use crate::policy::Role;
use crate::reject::ChannelReject;
use crate::state;

/// Who asks, as the transport has authenticated it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller<'a> {
    /// The organisation whose CA vouches for the certificate.
    pub org: OrgId,
    /// Roles that the certificate names. One that names the auditor is an auditor's, whatever else
    /// it names.
    pub roles: &'a [Role],
    /// What names the certificate, `sha256` of its subject public key info, or the key, see
    /// [`state::credential_of`].
    pub credential: Hash32,
}

/// What an auditor wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditTarget {
    /// All of the channel.
    Everything,
    /// One account.
    Account(Address),
    /// One asset.
    Asset(AssetId),
    /// A hash-lock of this payer: it belongs to the payer's account, and to the asset that it holds.
    Lock(Address, LockId),
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read the ledger as a member.
    Read,
    /// Submit a transaction.
    Write,
    /// Propose a change.
    Propose,
    /// Approve or reject a proposal.
    Approve,
    /// Change what is the organisation's own: keys, certificates, nodes, membership.
    OwnAct,
    /// Accept or decline an invitation.
    Join,
    /// Read as an auditor.
    AuditRead(AuditTarget),
    /// Have the exclusion receipt of this organisation: its members' to read, and its own.
    Receipt(OrgId),
}

/// Where in time is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Height of the state in the view.
    pub height: Height,
    /// Time of that block; ends of grants are judged by it.
    pub time_ms: TimeMs,
}

/// Whether a caller may do something.
///
/// # Errors
/// [`ChannelReject`] says why not. Nothing else about the channel can be learned from it than that
/// the caller's organisation is, was or is not a member.
pub fn may(view: &mut View<'_>, caller: &Caller<'_>, action: Action, at: At) -> Result<(), ChannelReject> {
    let channel = state::channel(view).ok_or(ChannelReject::Unknown)?;
    let member = state::member(view, caller.org);
    if state::revocation(view, caller.org, &caller.credential).is_some() {
        return Err(ChannelReject::CredentialRevoked);
    }
    let auditor = caller.roles.contains(&Role::Auditor);
    let verdict = match (&member, action) {
        (_, Action::Join) => join(view, caller, at),
        (Some(_), _) => as_member(caller, action),
        // Whoever is no member may only be an auditor.
        (None, Action::AuditRead(target)) if auditor => return audit(view, caller, target, at),
        (None, Action::Receipt(org)) => receipt(view, caller, org, at),
        (None, _) => Err(absent(view, caller.org)),
    };
    verdict?;
    channel.phase.allows(deed(action))
}

/// How much of what is asked for a caller is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// All of it.
    All,
    /// What is of these assets, strictly ascending; at least one.
    Assets(Vec<AssetId>),
}

impl Sight {
    /// Whether everything that this shows is shown by another one, too.
    #[must_use]
    pub fn within(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::All) => true,
            (Self::All, Self::Assets(_)) => false,
            (Self::Assets(these), Self::Assets(those)) => these.iter().all(|asset| those.binary_search(asset).is_ok()),
        }
    }
}

/// As [`may`], for a host that can show a part of an account: an auditor whose grants do not cover the account is
/// shown what is in it of the assets that they cover.
///
/// # Errors
/// As [`may`].
pub fn sight(view: &mut View<'_>, caller: &Caller<'_>, action: Action, at: At) -> Result<Sight, ChannelReject> {
    let reject = match may(view, caller, action, at) {
        Ok(()) => return Ok(Sight::All),
        Err(reject) => reject,
    };
    let of_account = matches!(action, Action::AuditRead(AuditTarget::Account(_)));
    let ungranted = matches!(reject, ChannelReject::NoGrant | ChannelReject::GrantExpired | ChannelReject::Removed);
    // Of those who may not, auditors outside alone are told by their grants; whoever is something else has none.
    if !of_account || !ungranted || !caller.roles.contains(&Role::Auditor) {
        return Err(reject);
    }
    let granted = granted_to(view, caller).filter_map(|grant| match &grant.scope {
        Scope::Assets(assets) => Some((in_force(&grant, at), assets.clone())),
        Scope::Everything | Scope::Accounts(_) => None,
    });
    let (mut assets, mut expired) = (Vec::new(), false);
    for (holds, named) in granted {
        if holds { assets.extend(named) } else { expired = true }
    }
    assets.sort_unstable();
    assets.dedup();
    match (assets.is_empty(), expired) {
        (false, _) => Ok(Sight::Assets(assets)),
        (true, true) => Err(ChannelReject::GrantExpired),
        (true, false) => Err(reject),
    }
}

fn as_member(caller: &Caller<'_>, action: Action) -> Result<(), ChannelReject> {
    let has = |role| caller.roles.contains(&role);
    let reads = matches!(action, Action::Read | Action::AuditRead(_) | Action::Receipt(_));
    if has(Role::Auditor) {
        // An auditor of a member sees what the member sees.
        return if reads { Ok(()) } else { Err(ChannelReject::AuditorReads) };
    }
    let allowed = match action {
        Action::Read | Action::AuditRead(_) | Action::Receipt(_) => {
            has(Role::Admin) || has(Role::Member) || has(Role::Node)
        }
        Action::Write => has(Role::Admin) || has(Role::Member),
        Action::Propose | Action::OwnAct => has(Role::Admin),
        // Judged by the invitation.
        Action::Join => false,
        Action::Approve => has(Role::Admin) || has(Role::Member) || has(Role::Node),
    };
    if allowed { Ok(()) } else { Err(ChannelReject::Role) }
}

/// An invitation lets an admin answer it, and do nothing else.
fn join(view: &mut View<'_>, caller: &Caller<'_>, at: At) -> Result<(), ChannelReject> {
    let open = state::invitation(view, caller.org).is_some_and(|invitation| invitation.until_ms >= at.time_ms);
    match (open, caller.roles.contains(&Role::Admin), caller.roles.contains(&Role::Auditor)) {
        (false, ..) => Err(ChannelReject::NotInvited),
        (true, _, true) => Err(ChannelReject::AuditorReads),
        (true, true, false) => Ok(()),
        (true, false, false) => Err(ChannelReject::Role),
    }
}

/// Whoever was excluded may have what proves that it was, and no more: not even whether there is a receipt of
/// somebody else. An auditor of everything reads it as it reads everything.
fn receipt(view: &mut View<'_>, caller: &Caller<'_>, org: OrgId, at: At) -> Result<(), ChannelReject> {
    match absent(view, caller.org) {
        ChannelReject::Removed if org == caller.org && !caller.roles.is_empty() => Ok(()),
        _ if caller.roles.contains(&Role::Auditor) => audit(view, caller, AuditTarget::Everything, at),
        reject => Err(reject),
    }
}

/// Why an organisation that is no member gets nothing.
fn absent(view: &mut View<'_>, org: OrgId) -> ChannelReject {
    if state::exclusions(view, org).is_empty() { ChannelReject::NotMember } else { ChannelReject::Removed }
}

fn audit(view: &mut View<'_>, caller: &Caller<'_>, target: AuditTarget, at: At) -> Result<(), ChannelReject> {
    let asset = asset_of(view, target);
    let covering: Vec<AuditGrant> =
        granted_to(view, caller).filter(|grant| covers(&grant.scope, target, asset)).collect();
    if covering.is_empty() {
        return Err(match absent(view, caller.org) {
            ChannelReject::Removed => ChannelReject::Removed,
            _ => ChannelReject::NoGrant,
        });
    }
    if covering.iter().any(|grant| in_force(grant, at)) { Ok(()) } else { Err(ChannelReject::GrantExpired) }
}

/// The grants that a caller may go by, whatever they cover, those that have ended, too.
fn granted_to(view: &mut View<'_>, caller: &Caller<'_>) -> impl Iterator<Item = AuditGrant> + use<> {
    let credential = caller.credential;
    let own = move |grant: &AuditGrant| grant.credential.is_none_or(|only| only == credential);
    state::grants_of(view, caller.org).into_iter().map(|record| record.grant).filter(own)
}

fn in_force(grant: &AuditGrant, at: At) -> bool {
    at.time_ms <= grant.until_ms && grant.until_height.is_none_or(|until| at.height <= until)
}

/// The asset that a target is of. That of a lock never changes, and one that is not there is of none: whoever may
/// not read a lock is not told whether there is one.
fn asset_of(view: &mut View<'_>, target: AuditTarget) -> Option<AssetId> {
    match target {
        AuditTarget::Asset(asset) => Some(asset),
        AuditTarget::Lock(payer, lock) => {
            view.load::<Lock>(&schema::lock(&payer, &lock)).map(|found| found.terms.asset)
        }
        AuditTarget::Everything | AuditTarget::Account(_) => None,
    }
}

fn covers(scope: &Scope, target: AuditTarget, asset: Option<AssetId>) -> bool {
    match (scope, target) {
        (Scope::Everything, _) => true,
        (Scope::Accounts(accounts), AuditTarget::Account(account) | AuditTarget::Lock(account, _)) => {
            accounts.binary_search(&account).is_ok()
        }
        (Scope::Assets(assets), AuditTarget::Asset(_) | AuditTarget::Lock(..)) => {
            asset.is_some_and(|asset| assets.binary_search(&asset).is_ok())
        }
        (Scope::Accounts(_), AuditTarget::Everything | AuditTarget::Asset(_))
        | (Scope::Assets(_), AuditTarget::Everything | AuditTarget::Account(_)) => false,
    }
}

/// What the phase has to allow for an action.
fn deed(action: Action) -> Deed {
    match action {
        Action::Read | Action::AuditRead(_) | Action::Receipt(_) => Deed::Read,
        Action::Write => Deed::Write,
        Action::Propose | Action::Approve | Action::Join => Deed::Govern,
        Action::OwnAct => Deed::OwnAct,
    }
}
