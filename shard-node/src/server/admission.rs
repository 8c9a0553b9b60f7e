//! Who may ask a channel what, judged by the channel's own newest state on the node that serves the call.
//!
//! A call comes from a router that names the client it acts for. The router is known by its certificate,
//! and its word about the client counts only as far as its organisation could learn the answer anyhow: a
//! member's routers may speak for any member, those of an outsider for their own organisation alone, which
//! then gets what an outsider gets. Groups that are no channels are open to every caller that was let in.
//!
//! Owns no rule of channels: those are in `channel::access`.

use channel::access::{Action, At, AuditTarget, Caller};
use channel::{ChannelReject, Role, state};
use ledger::ids::{GroupKind, OrgId};
use ledger::reject::Reject;
use ledger::view::{ReadFault, View};
use proto::v1::query_request::Query;
use proto::{edge, v1};

use crate::server::group::GroupHandle;
use crate::server::replica::{ReplicaShare, ViewReader};

/// Why a call is not answered.
#[derive(Debug)]
pub enum Denial {
    /// The router's organisation takes no part in the channel, and does not act for itself.
    Outside,
    /// The router did not say for whom it asks, or nothing that could be.
    Nobody,
    /// The channel's rules say no.
    Channel(ChannelReject),
    /// The state could not be read.
    Fault(ReadFault),
}

impl Denial {
    /// What the caller is told.
    #[must_use]
    pub fn refusal(&self) -> v1::Refusal {
        let denied = |detail: &str| v1::Refusal::of(Reject::AccessDenied).detail(detail);
        match self {
            Self::Outside => denied("the router's organisation takes no part in the channel; use a member's router"),
            Self::Nobody => denied("the router does not know whose the client's certificate is"),
            Self::Channel(reject) => v1::Refusal::of(Reject::ChannelRefused).detail(reject.to_string()),
            Self::Fault(fault) => v1::Refusal::of(Reject::Storage).detail(fault.to_string()),
        }
    }
}

impl From<ReadFault> for Denial {
    fn from(fault: ReadFault) -> Self {
        Self::Fault(fault)
    }
}

/// What a question asks to be allowed. An auditor asks as one.
#[must_use]
pub fn action_of(query: &v1::QueryRequest) -> Action {
    if let Some(Query::Exclusion(asked)) = &query.query
        && let Ok(org) = u16::try_from(asked.org)
    {
        return Action::Receipt(OrgId(org));
    }
    if !is_auditor(query.caller.as_ref()) {
        return Action::Read;
    }
    let account = |bytes: &[u8]| edge::address("address", bytes).map_or(AuditTarget::Everything, AuditTarget::Account);
    Action::AuditRead(match &query.query {
        Some(Query::Account(query)) => account(&query.address),
        Some(Query::Entry(query)) => account(&query.address),
        Some(Query::AccountView(query)) => account(&query.address),
        Some(Query::History(query)) => account(&query.address),
        Some(Query::Asset(query)) => {
            edge::asset("asset", &query.asset).map_or(AuditTarget::Everything, AuditTarget::Asset)
        }
        _ => AuditTarget::Everything,
    })
}

fn is_auditor(caller: Option<&v1::Caller>) -> bool {
    caller.is_some_and(|caller| caller.role == client::net::Role::Auditor.as_str())
}

/// Whether a group may show its height, roots and counts to whom a router of `forwarder` asks for. Nobody has
/// asked for anything else by that, so it is not noted.
#[must_use]
pub fn shows(handle: &GroupHandle, forwarder: Option<OrgId>, caller: Option<&v1::Caller>) -> bool {
    let action = match is_auditor(caller) {
        true => Action::AuditRead(AuditTarget::Everything),
        false => Action::Read,
    };
    allows(handle, forwarder, caller, action)
}

/// Whether [`judge`] would let a call in now; it is not noted if not.
#[must_use]
pub fn allows(handle: &GroupHandle, forwarder: Option<OrgId>, caller: Option<&v1::Caller>, action: Action) -> bool {
    handle.group.kind() != Some(GroupKind::Channel) || try_judge(handle, forwarder, caller, action).is_ok()
}

/// Judges a call that a router of `forwarder` hands over for `caller`.
///
/// # Errors
/// [`Denial`], which is also noted in the log.
pub fn judge(
    handle: &GroupHandle,
    forwarder: Option<OrgId>,
    caller: Option<&v1::Caller>,
    action: Action,
) -> Result<(), Denial> {
    if handle.group.kind() != Some(GroupKind::Channel) {
        return Ok(());
    }
    let judged = try_judge(handle, forwarder, caller, action);
    if let Err(denial) = &judged {
        let (router, org) = (forwarder.map(|org| org.0), caller.map(|caller| caller.org));
        tracing::warn!(group = %handle.group, ?router, ?org, ?action, ?denial, "a call to a channel was denied");
    }
    judged
}

fn try_judge(
    handle: &GroupHandle,
    forwarder: Option<OrgId>,
    caller: Option<&v1::Caller>,
    action: Action,
) -> Result<(), Denial> {
    let caller = caller.ok_or(Denial::Nobody)?;
    let org = OrgId(u16::try_from(caller.org).map_err(|_| Denial::Nobody)?);
    let credential = edge::hash("credential", &caller.credential).map_err(|_| Denial::Nobody)?;
    let roles = roles_of(&caller.role).ok_or(Denial::Nobody)?;
    let forwarder = forwarder.ok_or(Denial::Outside)?;
    let (height, time_ms) = {
        let stand = handle.share.stand.lock();
        (stand.applied.height, stand.applied.time_ms)
    };
    read(handle, |view| {
        if forwarder != org && state::member(view, forwarder).is_none() {
            return Err(Denial::Outside);
        }
        let caller = Caller { org, roles, credential };
        channel::access::may(view, &caller, action, At { height, time_ms }).map_err(Denial::Channel)
    })?
}

/// Whether a channel has excluded an organisation, by the newest state of a replica.
#[must_use]
pub fn has_excluded(share: &ReplicaShare, org: OrgId) -> bool {
    let Some(db) = share.state.db() else { return false };
    let reader = ViewReader::of(&*db);
    let mut view = View::new(&reader);
    state::member(&mut view, org).is_none() && !state::exclusions(&mut view, org).is_empty()
}

/// What a certificate's role may be in a channel.
fn roles_of(role: &str) -> Option<&'static [Role]> {
    use client::net::Role as Certified;
    Some(match Certified::parse(role)? {
        Certified::Client => &[Role::Member],
        Certified::Admin => &[Role::Admin],
        Certified::Node | Certified::Router => &[Role::Node],
        Certified::Auditor => &[Role::Auditor],
    })
}

fn read<T>(handle: &GroupHandle, work: impl FnOnce(&mut View<'_>) -> T) -> Result<T, ReadFault> {
    let db = handle.share.state.db().ok_or_else(|| ReadFault("the state is closed".into()))?;
    let reader = ViewReader::of(&*db);
    let mut view = View::new(&reader);
    let result = work(&mut view);
    view.fault().cloned().map_or(Ok(result), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use ledger::ids::{Address, AssetId};

    fn asked(role: &str, query: Query) -> Action {
        let caller = v1::Caller { role: role.to_owned(), ..v1::Caller::default() };
        action_of(&v1::QueryRequest { query: Some(query), caller: Some(caller), ..v1::QueryRequest::default() })
    }

    #[test]
    fn an_auditor_asks_for_what_a_question_is_about_and_receipts_are_an_action_of_their_own() {
        let address = Bytes::copy_from_slice(&[3; 20]);
        let entry = Query::Entry(v1::EntryQuery { address: address.clone(), group: 0, key: Bytes::new() });
        let account = Query::Account(v1::AccountQuery { address, group: 0 });
        let asset = Query::Asset(v1::AssetQuery { asset: Bytes::copy_from_slice(&[4; 16]), group: 0 });
        let block = Query::Block(v1::BlockQuery { group: 0, height: 7 });
        let of = |target| Action::AuditRead(target);
        for (query, action) in [
            (entry, of(AuditTarget::Account(Address([3; 20])))),
            (account, of(AuditTarget::Account(Address([3; 20])))),
            (asset, of(AuditTarget::Asset(AssetId([4; 16])))),
            (block, of(AuditTarget::Everything)),
        ] {
            assert_eq!(asked("client", query.clone()), Action::Read);
            assert_eq!(asked("auditor", query), action);
        }
        let receipt = |org| Query::Exclusion(v1::ExclusionQuery { group: 0, org });
        for role in ["client", "admin", "node", "auditor"] {
            assert_eq!(asked(role, receipt(5)), Action::Receipt(OrgId(5)), "{role}");
        }
        // No organisation has such a number: whoever asks for it must be allowed to read at all.
        assert_eq!(asked("client", receipt(70_000)), Action::Read);
    }
}
