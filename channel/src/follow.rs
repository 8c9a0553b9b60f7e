//! What a channel takes over from the cluster's registry, at the block that delivers the beacon's
//! mail. The beacon has decided; nothing here can be refused.

use ledger::crypto::PublicKey;
use ledger::hash::Hash32;
use ledger::ids::{NodeId, OrgId};
use ledger::machine::BlockContext;
use ledger::view::View;

use crate::policy::Role;
use crate::state::{self, Revocation, RoleKey};

/// A key or certificate of an organisation was revoked in the registry. A key that the organisation
/// holds in the channel goes with it, even the last one of its admins: the registry's new admin key
/// comes by [`apply_admin_key`], and where none comes, that which is there by [`keep_an_admin`].
pub fn apply_revocation(view: &mut View<'_>, at: &BlockContext, org: OrgId, credential: &Hash32) {
    if state::channel(view).is_none() {
        return;
    }
    if state::revocation(view, org, credential).is_none() {
        let revocation = Revocation { version: 1, height: at.height, time_ms: at.time_ms };
        view.store(state::revocation_key(org, credential), &revocation);
    }
    let Some(mut member) = state::member(view, org) else { return };
    let before = member.keys.len();
    member.keys.retain(|found| state::credential_of(&found.key) != *credential);
    if member.keys.len() != before {
        view.store(state::member_key(org), &member);
    }
}

/// An organisation has a new admin key in the registry. It becomes one in the channel, beside those
/// that are there; what it replaces is revoked by itself. A key that was revoked does not come back.
pub fn apply_admin_key(view: &mut View<'_>, org: OrgId, key: &PublicKey) {
    let Some(mut member) = state::member(view, org) else { return };
    let known = member.keys.iter().any(|found| found.key == *key);
    if known || state::revocation(view, org, &state::credential_of(key)).is_some() {
        return;
    }
    member.keys.push(RoleKey { key: *key, role: Role::Admin });
    member.keys.sort_by_key(|found| found.key);
    view.store(state::member_key(org), &member);
}

/// A node of an organisation has another key in the registry. It speaks with that one in the channel from now on, and with the
/// one before no more; which of them signs headers, the committee says.
pub fn apply_node_key(view: &mut View<'_>, org: OrgId, node: NodeId, key: &PublicKey) {
    let Some(mut member) = state::member(view, org) else { return };
    let Some(found) = member.nodes.iter_mut().find(|found| found.node == node && found.key != *key) else { return };
    found.key = *key;
    view.store(state::member_key(org), &member);
}

/// The registry has revoked something of an organisation. It may have been the last key of its admins, since what keys an
/// organisation holds in a channel the beacon does not know: then its admin key in the registry (`key`) becomes one here,
/// whatever it was before, so that nobody is a member for whom nobody can speak. It does not when it was revoked in the
/// channel; the next one that the registry is given does.
pub fn keep_an_admin(view: &mut View<'_>, org: OrgId, key: &PublicKey) {
    let Some(mut member) = state::member(view, org) else { return };
    if member.count(Role::Admin) > 0 || state::revocation(view, org, &state::credential_of(key)).is_some() {
        return;
    }
    member.keys.retain(|found| found.key != *key);
    member.keys.push(RoleKey { key: *key, role: Role::Admin });
    member.keys.sort_by_key(|found| found.key);
    view.store(state::member_key(org), &member);
}
