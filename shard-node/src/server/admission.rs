//! Who may ask a channel what, judged by the channel's own newest state on the node that serves the call.
//!
//! A call comes from a router that names the client it acts for. The router is known by its certificate,
//! and its word about the client counts only as far as its organisation could learn the answer anyhow: a
//! member's routers may speak for any member, those of an outsider for their own organisation alone, which
//! then gets what an outsider gets. One whose certificate is revoked in the channel speaks for nobody. Groups that are
//! no channels are open to every caller that was let in.
//!
//! Owns no rule of channels: those are in `channel::access`.

use channel::access::{self, Action, At, AuditTarget, Caller, Sight};
use channel::{ChannelReject, Role, state};
use client::EntryName;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, GroupKind, Height, OrgId};
use ledger::reject::Reject;
use ledger::view::{ReadFault, View};
use proto::v1::query_request::Query;
use proto::{edge, v1};

use crate::server::group::GroupHandle;
use crate::server::replica::{ReplicaShare, ViewReader};

/// Who hands a call over: a router, or a node, whose certificate was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Forwarder {
    /// Its organisation, by the registry.
    pub org: OrgId,
    /// `sha256` of the subject public key info of its certificate.
    pub credential: Hash32,
}

/// Why a call is not answered.
#[derive(Debug)]
pub enum Denial {
    /// The router's organisation takes no part in the channel, and does not act for itself.
    Outside,
    /// The router's organisation has revoked its certificate in the channel.
    Revoked,
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
            Self::Revoked => denied("the router's certificate is revoked in the channel; use another of a member"),
            Self::Nobody => denied("the router does not know whose the client's certificate is"),
            Self::Channel(reject) => v1::Refusal::of(told(*reject)).detail(reject.to_string()),
            // What could not be read stands in the log. Nobody has been let in.
            Self::Fault(_) => v1::Refusal::of(Reject::Storage),
        }
    }
}

/// What of the channel's rules the machine says of the same transaction, it says here, too: a client is told one reason,
/// whichever of the two is asked first.
fn told(reject: ChannelReject) -> Reject {
    match reject {
        ChannelReject::Frozen => Reject::ChannelFrozen,
        ChannelReject::Closing => Reject::ChannelClosing,
        ChannelReject::Closed => Reject::ChannelClosed,
        _ => Reject::ChannelRefused,
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
        Some(Query::Entry(query)) => match (account(&query.address), EntryName::of_key(&query.key)) {
            (AuditTarget::Account(payer), Some(EntryName::Lock(lock))) => AuditTarget::Lock(payer, lock),
            (target, _) => target,
        },
        Some(Query::AccountView(query)) => account(&query.address),
        Some(Query::History(query)) => account(&query.address),
        Some(Query::Asset(query)) => {
            edge::asset("asset", &query.asset).map_or(AuditTarget::Everything, AuditTarget::Asset)
        }
        _ => AuditTarget::Everything,
    })
}

/// Whether a part can be shown of what a question is about: of an account what is in it of some assets. What proves a
/// record is about all of it.
#[must_use]
pub fn has_parts(query: &v1::QueryRequest) -> bool {
    match &query.query {
        Some(Query::Account(_)) => !query.prove,
        Some(Query::AccountView(_) | Query::History(_)) => true,
        _ => false,
    }
}

fn is_auditor(caller: Option<&v1::Caller>) -> bool {
    caller.is_some_and(|caller| caller.role == client::net::Role::Auditor.as_str())
}

/// Whether a group may show its height, roots and counts to whom `forwarder` asks for. Nobody has asked for anything
/// else by that, so it is not noted.
#[must_use]
pub fn shows(handle: &GroupHandle, forwarder: Option<Forwarder>, caller: Option<&v1::Caller>) -> bool {
    let action = match is_auditor(caller) {
        true => Action::AuditRead(AuditTarget::Everything),
        false => Action::Read,
    };
    handle.group.kind() != Some(GroupKind::Channel) || try_judge(&handle.share, forwarder, caller, action).is_ok()
}

/// Whether [`sight`] would show something now; it is not noted if not.
#[must_use]
pub fn sees(
    handle: &GroupHandle,
    forwarder: Option<Forwarder>,
    caller: Option<&v1::Caller>,
    action: Action,
    parts: bool,
) -> bool {
    handle.group.kind() != Some(GroupKind::Channel)
        || try_sight(&handle.share, forwarder, caller, action, parts).is_ok()
}

/// Judges a call that `forwarder` hands over for `caller`.
///
/// # Errors
/// [`Denial`], which is also noted in the log.
pub fn judge(
    handle: &GroupHandle,
    forwarder: Option<Forwarder>,
    caller: Option<&v1::Caller>,
    action: Action,
) -> Result<(), Denial> {
    if handle.group.kind() != Some(GroupKind::Channel) {
        return Ok(());
    }
    noted(handle.group, forwarder, caller, action, try_judge(&handle.share, forwarder, caller, action))
}

/// Judges whether whoever has handed a transaction over to a channel may still be told of it, as whoever may read there is.
/// What the channel refuses to take any more it tells of nevertheless.
///
/// # Errors
/// As [`judge`].
pub fn hears(
    share: &ReplicaShare,
    channel: GroupId,
    forwarder: Option<Forwarder>,
    caller: Option<&v1::Caller>,
) -> Result<(), Denial> {
    noted(channel, forwarder, caller, Action::Read, try_judge(share, forwarder, caller, Action::Read))
}

/// As [`judge`], of a question that may be answered in part ([`has_parts`]): how much of the answer is shown.
///
/// # Errors
/// As [`judge`].
pub fn sight(
    handle: &GroupHandle,
    forwarder: Option<Forwarder>,
    caller: Option<&v1::Caller>,
    action: Action,
    parts: bool,
) -> Result<Sight, Denial> {
    if handle.group.kind() != Some(GroupKind::Channel) {
        return Ok(Sight::All);
    }
    noted(handle.group, forwarder, caller, action, try_sight(&handle.share, forwarder, caller, action, parts))
}

/// Judges again, after the answer was read: who may see less now than was read is shown nothing.
///
/// # Errors
/// As [`judge`].
pub fn still(
    handle: &GroupHandle,
    forwarder: Option<Forwarder>,
    caller: Option<&v1::Caller>,
    action: Action,
    shown: &Sight,
) -> Result<(), Denial> {
    let now = sight(handle, forwarder, caller, action, *shown != Sight::All)?;
    let judged = match shown.within(&now) {
        true => Ok(()),
        false => Err(Denial::Channel(ChannelReject::GrantExpired)),
    };
    noted(handle.group, forwarder, caller, action, judged)
}

fn noted<T>(
    group: GroupId,
    forwarder: Option<Forwarder>,
    caller: Option<&v1::Caller>,
    action: Action,
    judged: Result<T, Denial>,
) -> Result<T, Denial> {
    if let Err(denial) = &judged {
        let (router, org) = (forwarder.map(|forwarder| forwarder.org.0), caller.map(|caller| caller.org));
        tracing::warn!(%group, ?router, ?org, ?action, ?denial, "a call to a channel was denied");
    }
    judged
}

fn try_judge(
    share: &ReplicaShare,
    forwarder: Option<Forwarder>,
    caller: Option<&v1::Caller>,
    action: Action,
) -> Result<(), Denial> {
    try_sight(share, forwarder, caller, action, false).map(drop)
}

fn try_sight(
    share: &ReplicaShare,
    forwarder: Option<Forwarder>,
    caller: Option<&v1::Caller>,
    action: Action,
    parts: bool,
) -> Result<Sight, Denial> {
    let caller = caller.ok_or(Denial::Nobody)?;
    let org = OrgId(u16::try_from(caller.org).map_err(|_| Denial::Nobody)?);
    let credential = edge::hash("credential", &caller.credential).map_err(|_| Denial::Nobody)?;
    let roles = roles_of(&caller.role).ok_or(Denial::Nobody)?;
    let forwarder = forwarder.ok_or(Denial::Outside)?;
    let (height, time_ms) = {
        let stand = share.stand.lock();
        (stand.applied.height, stand.applied.time_ms)
    };
    read(share, |view| {
        if forwarder.org != org && state::member(view, forwarder.org).is_none() {
            return Err(Denial::Outside);
        }
        if state::revocation(view, forwarder.org, &forwarder.credential).is_some() {
            return Err(Denial::Revoked);
        }
        let (caller, at) = (Caller { org, roles, credential }, At { height, time_ms });
        let judged = match parts {
            true => access::sight(view, &caller, action, at),
            false => access::may(view, &caller, action, at).map(|()| Sight::All),
        };
        judged.map_err(Denial::Channel)
    })?
}

/// Whether a channel has excluded an organisation, by the newest state of a replica. See [`excluded_since`].
#[must_use]
pub fn has_excluded(share: &ReplicaShare, org: OrgId) -> bool {
    excluded_since(share, org).is_some()
}

/// The block in which a channel has excluded an organisation, by the newest state of a replica; `None` of one that is a
/// member or never was. A state that cannot be read might say it of anybody, so it counts as if it did, from block 0 on.
#[must_use]
pub fn excluded_since(share: &ReplicaShare, org: OrgId) -> Option<Height> {
    const UNREADABLE: Option<Height> = Some(Height(0));
    let Some(db) = share.state.db() else { return UNREADABLE };
    let reader = ViewReader::of(&*db);
    let mut view = View::new(&reader);
    let since = match state::member(&mut view, org) {
        Some(_) => None,
        None => state::exclusions(&mut view, org).last().map(|exclusion| exclusion.height),
    };
    if view.fault().is_some() { UNREADABLE } else { since }
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

fn read<T>(share: &ReplicaShare, work: impl FnOnce(&mut View<'_>) -> T) -> Result<T, ReadFault> {
    let db = share.state.db().ok_or_else(|| ReadFault("the state is closed".into()))?;
    let reader = ViewReader::of(&*db);
    let mut view = View::new(&reader);
    let result = work(&mut view);
    view.fault().cloned().map_or(Ok(result), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::testing::Lone;
    use bytes::Bytes;
    use channel::exclusion::{Departure, EXCLUSION_VERSION, Exclusion};
    use channel::state::MemberRecord;
    use ledger::genesis::VerifyMode;
    use ledger::ids::{Address, AssetId, LockId, TimeMs};
    use storage::WriteBatch;

    fn asked(role: &str, query: Query) -> Action {
        let caller = v1::Caller { role: role.to_owned(), ..v1::Caller::default() };
        action_of(&v1::QueryRequest { query: Some(query), caller: Some(caller), ..v1::QueryRequest::default() })
    }

    #[test]
    fn an_auditor_asks_for_what_a_question_is_about_and_receipts_are_an_action_of_their_own() {
        let address = Bytes::copy_from_slice(&[3; 20]);
        let named = |name: EntryName| {
            Query::Entry(v1::EntryQuery { address: address.clone(), group: 0, key: Bytes::from(name.key()) })
        };
        let entry = Query::Entry(v1::EntryQuery { address: address.clone(), group: 0, key: Bytes::new() });
        let (record, id) = (named(EntryName::Record(Hash32([5; 32]))), LockId(Hash32([6; 32])));
        let lock = named(EntryName::Lock(id));
        let history = Query::History(v1::HistoryQuery { address: address.clone(), ..v1::HistoryQuery::default() });
        let view = v1::AccountViewQuery { address: address.clone(), ..v1::AccountViewQuery::default() };
        let account = Query::Account(v1::AccountQuery { address: address.clone(), group: 0 });
        let asset = Query::Asset(v1::AssetQuery { asset: Bytes::copy_from_slice(&[4; 16]), group: 0 });
        let block = Query::Block(v1::BlockQuery { group: 0, height: 7 });
        let of = |target| Action::AuditRead(target);
        for (query, action) in [
            (entry, of(AuditTarget::Account(Address([3; 20])))),
            (record, of(AuditTarget::Account(Address([3; 20])))),
            (lock, of(AuditTarget::Lock(Address([3; 20]), id))),
            (history, of(AuditTarget::Account(Address([3; 20])))),
            (Query::AccountView(view), of(AuditTarget::Account(Address([3; 20])))),
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

    #[test]
    fn accounts_have_parts_and_what_proves_them_has_none() {
        let has = |query: Query, prove| {
            has_parts(&v1::QueryRequest { query: Some(query), prove, ..v1::QueryRequest::default() })
        };
        let account = || Query::Account(v1::AccountQuery::default());
        assert!(has(account(), false) && !has(account(), true));
        assert!(has(Query::AccountView(v1::AccountViewQuery::default()), false));
        assert!(has(Query::History(v1::HistoryQuery::default()), false));
        assert!(!has(Query::Block(v1::BlockQuery::default()), false));
        assert!(!has(Query::Entry(v1::EntryQuery::default()), false));
    }

    fn write(share: &ReplicaShare, key: Vec<u8>, value: Option<Vec<u8>>) {
        let mut batch = WriteBatch::new();
        match value {
            Some(value) => batch.put(key, value),
            None => batch.delete(key),
        }
        share.state.db().expect("the state is open").write(batch).expect("a write");
    }

    fn encoded<T: borsh::BorshSerialize>(value: &T) -> Option<Vec<u8>> {
        Some(borsh::to_vec(value).expect("writing to memory does not fail"))
    }

    fn member(org: OrgId) -> MemberRecord {
        let (name, joined) = ("a member".to_owned(), Height(0));
        MemberRecord { version: 1, org, name, joined, keys: Vec::new(), nodes: Vec::new(), anchors: Vec::new() }
    }

    fn exclusion(org: OrgId, height: u64) -> Exclusion {
        let (group, joined, time_ms) = (GroupId::channel(0), Height(0), TimeMs(height));
        let (height, how) = (Height(height), Departure::Left);
        Exclusion { version: EXCLUSION_VERSION, group, org, joined, height, time_ms, how }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whoever_was_excluded_stays_so_until_it_joins_again_and_an_unreadable_state_excludes_everybody() {
        let lone = Lone::start(VerifyMode::Ingest).await;
        let share = lone.handle.share.clone();
        let (gone, other) = (OrgId(5), OrgId(6));
        let key = state::member_key(gone);
        assert_eq!(excluded_since(&share, gone), None, "it never was a member");
        write(&share, key.clone(), encoded(&member(gone)));
        assert_eq!(excluded_since(&share, gone), None, "it is one");
        write(&share, key.clone(), None);
        write(&share, state::exclusion_key(gone, Height(7)), encoded(&exclusion(gone, 7)));
        assert_eq!(excluded_since(&share, gone), Some(Height(7)));
        assert!(has_excluded(&share, gone) && !has_excluded(&share, other));
        write(&share, key.clone(), encoded(&member(gone)));
        assert!(!has_excluded(&share, gone), "it was invited, and has joined again");
        write(&share, key.clone(), None);
        write(&share, state::exclusion_key(gone, Height(9)), encoded(&exclusion(gone, 9)));
        assert_eq!(excluded_since(&share, gone), Some(Height(9)), "the last time counts");

        // What stands there is no record: nobody can say whether it is a member, or was excluded.
        write(&share, key, Some(vec![0xFF]));
        assert_eq!(excluded_since(&share, gone), Some(Height(0)));
        write(&share, state::exclusion_key(other, Height(3)), Some(vec![0xFF]));
        assert_eq!(excluded_since(&share, other), Some(Height(0)));
        let open = OrgId(7);
        assert!(!has_excluded(&share, open));
        share.state.close();
        assert!(has_excluded(&share, open), "nobody is given anything of a state that is closed");
        lone.stop().await;
    }
}
