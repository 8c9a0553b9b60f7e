//! Who calls: the certificate that a client shows, as far as the registry knows whose it is.

use bytes::Bytes;
use client::net::{self, Role};
use ledger::{GroupId, GroupKind, Hash32, OrgId};
use proto::v1;
use proto::v1::query_request::Query;
use tonic::{Request, Status};

use super::view::ClusterView;

/// A client, by its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// The organisation whose authority signed it; `None` of one that the registry does not know.
    pub(super) org: Option<OrgId>,
    pub(super) role: Role,
    credential: Hash32,
}

impl Caller {
    /// Reads the certificate of a call.
    ///
    /// # Errors
    /// `permission_denied` when it names no role.
    pub(super) fn of<T>(view: &ClusterView, request: &Request<T>) -> Result<Self, Status> {
        let identity = net::peer_identity(request).map_err(|error| denied(view, request, None, &error.to_string()))?;
        Ok(Self { org: net::peer_org(request, &view.orgs), role: identity.role, credential: identity.key_hash })
    }

    /// As nodes are told; nothing of one whose organisation is not known.
    pub(super) fn to_wire(&self) -> Option<v1::Caller> {
        Some(v1::Caller {
            org: self.org?.0.into(),
            role: self.role.as_str().to_owned(),
            credential: Bytes::copy_from_slice(&self.credential.0),
        })
    }

    /// Whether it may hand in transactions for a group.
    pub(super) fn writes_to(&self, view: &ClusterView, group: GroupId) -> bool {
        if group.kind() != Some(GroupKind::Channel) {
            return true;
        }
        let members = view.channels.get(&group);
        self.org.is_some_and(|org| members.is_some_and(|members| members.contains(&org)))
    }
}

/// The role of a caller, if it is one of these; `group` is what the call is about, if it is about one.
///
/// # Errors
/// `permission_denied`.
pub(super) fn role<T>(
    view: &ClusterView,
    request: &Request<T>,
    group: Option<GroupId>,
    allowed: &[Role],
) -> Result<Role, Status> {
    let denied = |why: &str| denied(view, request, group, why);
    let role = net::peer_identity(request).map_err(|error| denied(&error.to_string()))?.role;
    match allowed.contains(&role) {
        true => Ok(role),
        false => Err(denied(&format!("a certificate with the role '{}' may not do this", role.as_str()))),
    }
}

/// The roles whose certificates may hand in a command. The registry changes by admins alone. A channel's policies may ask
/// clients and nodes to approve, too; what it takes of whom, it judges itself.
pub(super) fn commanders(request: &v1::CommandRequest) -> &'static [Role] {
    match GroupId(request.group).kind() {
        Some(GroupKind::Channel) => &[Role::Admin, Role::Client, Role::Node],
        Some(GroupKind::Beacon | GroupKind::Shard) | None => &[Role::Admin],
    }
}

/// Notes in the log who is denied a call about what.
fn denied<T>(view: &ClusterView, request: &Request<T>, group: Option<GroupId>, why: &str) -> Status {
    let key = net::peer_key_hash(request);
    let node = view.nodes.values().find(|node| Some(node.tls_key_hash) == key);
    let org = node.map(|node| node.org).or_else(|| net::peer_org(request, &view.orgs));
    let (node, org) = (node.map(|node| node.id.0), org.map(|org| org.0));
    let group = group.map(|group| group.to_string());
    tracing::warn!(?node, ?org, group, "a call was denied: {why}");
    Status::permission_denied(format!("{}: {why}", ledger::Reject::AccessDenied))
}

/// What a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    Group(GroupId),
    /// Of channels, those of whoever asks.
    OwnChannels,
    /// Shards and the beacon alone.
    Everybodys,
}

/// The group that a question names.
pub(super) fn group_asked(request: &v1::QueryRequest) -> Option<GroupId> {
    match about(request) {
        About::Group(group) => Some(group).filter(|group| group.kind().is_some()),
        About::OwnChannels | About::Everybodys => None,
    }
}

/// Whether a question may be about what a channel holds, or is going to: whoever answers it has to know who asks.
pub(super) fn asks_channel(request: &v1::QueryRequest) -> bool {
    match about(request) {
        About::Group(group) => group.kind() == Some(GroupKind::Channel),
        About::OwnChannels => true,
        About::Everybodys => false,
    }
}

fn about(request: &v1::QueryRequest) -> About {
    let group = match &request.query {
        Some(Query::Account(query)) => query.group,
        Some(Query::Entry(query)) => query.group,
        Some(Query::AccountView(query)) => query.group,
        Some(Query::History(query)) => query.group,
        Some(Query::Transaction(query)) => query.group,
        Some(Query::Block(query)) => query.group,
        Some(Query::Asset(query)) => query.group,
        Some(Query::Governance(query)) => query.group,
        Some(Query::Exclusion(query)) => query.group,
        Some(Query::Evidence(query)) => query.group,
        // It goes to the channels of whoever asks.
        Some(Query::Explain(_)) => return About::OwnChannels,
        Some(Query::Channels(query)) if query.foundings => return About::OwnChannels,
        // Of shards and of the beacon alone.
        Some(
            Query::Accounts(_)
            | Query::Channels(_)
            | Query::Founded(_)
            | Query::Nodes(_)
            | Query::Accused(_)
            | Query::Audit(_)
            | Query::Epochs(_)
            | Query::Shards(_)
            | Query::Job(_)
            | Query::Policies(_)
            | Query::Admins(_)
            | Query::Engines(_),
        )
        | None => return About::Everybodys,
    };
    About::Group(GroupId(group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_and_nodes_hand_in_what_is_for_a_channel_and_nothing_else() {
        for (group, others) in [
            (GroupId(0), false),
            (GroupId::BEACON, false),
            (GroupId::shard(0), false),
            (GroupId(u64::MAX), false),
            (GroupId::channel(3), true),
        ] {
            let allowed = commanders(&v1::CommandRequest { group: group.0, ..v1::CommandRequest::default() });
            assert!(allowed.contains(&Role::Admin), "{group}");
            for role in [Role::Client, Role::Node] {
                assert_eq!(allowed.contains(&role), others, "{group}");
            }
            for role in [Role::Auditor, Role::Router] {
                assert!(!allowed.contains(&role), "{group}");
            }
        }
    }
}
