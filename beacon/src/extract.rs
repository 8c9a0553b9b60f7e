//! What channels are told of the registry, and what has been revoked in it.

use cross_shard::message::Message;
use cross_shard::notice::{NOTICE_VERSION, NodeEntry, OrgEntry, RegistryUpdate};
use ledger::hash::{Hash32, sha256};
use ledger::ids::{GroupId, OrgId};
use ledger::view::View;

use crate::channels;
use crate::limits::REVOCATIONS_PER_ORG_MAX;
use crate::registry;

const REVOKED: &[u8] = b"revoked/";

/// The part of the registry that channels follow, all revocations included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extract(RegistryUpdate);

/// The extract of the registry as it is.
pub(crate) fn of(view: &mut View<'_>) -> Extract {
    let orgs = registry::orgs(view).into_iter().map(|org| OrgEntry {
        org: org.id,
        ca_hash: sha256(org.ca_pem.as_bytes()),
        name: org.name,
        admin_key: org.admin_key,
    });
    let orgs = orgs.collect();
    let nodes = registry::nodes(view).into_iter().map(|node| NodeEntry { node: node.id, org: node.org, key: node.key });
    let nodes = nodes.collect();
    Extract(RegistryUpdate { version: NOTICE_VERSION, orgs, nodes, revoked: revoked(view) })
}

impl Extract {
    /// What a channel is told that knows nothing yet.
    pub(crate) fn first(self) -> RegistryUpdate {
        self.0
    }

    /// What every channel is told that knows `before`; nothing if nothing of it has changed.
    pub(crate) fn since(self, before: &Self, channels: &[GroupId]) -> Vec<(GroupId, Message)> {
        if self == *before {
            return Vec::new();
        }
        let RegistryUpdate { version, orgs, nodes, mut revoked } = self.0;
        revoked.retain(|line| before.0.revoked.binary_search(line).is_err());
        let update = RegistryUpdate { version, orgs, nodes, revoked };
        channels.iter().map(|group| (*group, Message::RegistryUpdate(update.clone()))).collect()
    }
}

/// The extract before a command, if there is a channel to be told of a change.
pub(crate) fn before(view: &mut View<'_>) -> Option<(Vec<GroupId>, Extract)> {
    let channels = channels::groups(view);
    if channels.is_empty() { None } else { Some((channels, of(view))) }
}

/// Key of a revocation. Its value is empty.
fn revoked_key(org: OrgId, credential: &Hash32) -> Vec<u8> {
    registry::key(REVOKED, &[&org.0.to_be_bytes(), &credential.0])
}

/// All that was ever revoked, by organisation and credential.
pub fn revoked(view: &mut View<'_>) -> Vec<(OrgId, Hash32)> {
    let prefix = registry::key(REVOKED, &[]);
    let parse = |(key, _): (Vec<u8>, _)| {
        let rest: &[u8; 34] = key.get(prefix.len()..)?.try_into().ok()?;
        let (org, credential) = rest.split_at(2);
        Some((OrgId(u16::from_be_bytes(org.try_into().ok()?)), Hash32(credential.try_into().ok()?)))
    };
    view.scan_prefix(&prefix).into_iter().filter_map(parse).collect()
}

/// Whether a key or certificate of an organisation was revoked.
pub fn is_revoked(view: &mut View<'_>, org: OrgId, credential: &Hash32) -> bool {
    view.get(&revoked_key(org, credential)).is_some()
}

/// Whether an organisation may revoke one more.
pub(crate) fn has_room(view: &mut View<'_>, org: OrgId) -> bool {
    view.scan_prefix(&registry::key(REVOKED, &[&org.0.to_be_bytes()])).len() < REVOCATIONS_PER_ORG_MAX
}

/// Notes that a key or certificate counts no more.
pub(crate) fn revoke(view: &mut View<'_>, org: OrgId, credential: &Hash32) {
    registry::put(view, revoked_key(org, credential), &());
}

/// Forgets what an organisation has revoked that is gone: nobody vouches for any of it.
pub(crate) fn forget(view: &mut View<'_>, org: OrgId) {
    let lines = view.scan_prefix(&registry::key(REVOKED, &[&org.0.to_be_bytes()]));
    lines.into_iter().for_each(|(key, _)| registry::remove(view, key));
}
