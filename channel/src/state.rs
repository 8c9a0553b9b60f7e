//! A channel's governance in state: its keys, its records, and the readers over them.
//!
//! Every record is a leaf of the channel's state tree, in a partition that no account has, so the
//! channel's certified headers commit to members, policies and proposals, and any of them can be
//! proved with an ordinary inclusion proof.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::crypto::PublicKey;
use ledger::hash::{Hash32, sha256, tagged};
use ledger::ids::{AssetId, ClusterId, GroupId, Height, NodeId, OrgId, TimeMs};
use ledger::schema::STATE;
use ledger::view::View;

use crate::change::{AuditGrant, Subject, Target};
use crate::exclusion::Exclusion;
use crate::lifecycle::Phase;
use crate::opening::PromiseRecord;
use crate::policy::{Elector, Policy, Role, Roster};
use crate::proposal::{Proposal, Voice};
use ledger::Engine;

/// The channel itself.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ChannelRecord {
    /// Format version, 1.
    pub version: u8,
    /// The cluster.
    pub cluster: ClusterId,
    /// The channel's group.
    pub group: GroupId,
    /// Name for people.
    pub name: String,
    /// What its members want it to be ordered by. What orders it stands in its committee, and follows.
    pub engine: Engine,
    /// How far it has come.
    pub phase: Phase,
    /// The founding that it was started by.
    pub founding: Hash32,
    /// When it was started.
    pub started_ms: TimeMs,
}

/// A key and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RoleKey {
    /// The key.
    pub key: PublicKey,
    /// [`Role::Admin`] or [`Role::Member`]; keys of nodes come with the nodes.
    pub role: Role,
}

/// A node of a member that hosts the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct MemberNode {
    /// The node.
    pub node: NodeId,
    /// Key that signs headers, and speaks as [`Role::Node`].
    pub key: PublicKey,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct MemberRecord {
    /// Format version, 1.
    pub version: u8,
    /// The organisation.
    pub org: OrgId,
    /// Its name, as the registry had it when it joined.
    pub name: String,
    /// Block in which it became a member; 0 for a founder.
    pub joined: Height,
    /// Sorted by key.
    pub keys: Vec<RoleKey>,
    /// Sorted by node.
    pub nodes: Vec<MemberNode>,
    /// Those of its nodes that carry mail, sorted.
    pub anchors: Vec<NodeId>,
}

impl MemberRecord {
    /// What a key of this member is for.
    #[must_use]
    pub fn role_of(&self, key: &PublicKey) -> Option<Role> {
        let own = self.keys.iter().find(|found| found.key == *key).map(|found| found.role);
        own.or_else(|| self.nodes.iter().any(|node| node.key == *key).then_some(Role::Node))
    }

    /// Whether a node hosts the channel for this member.
    #[must_use]
    pub fn hosts(&self, node: NodeId) -> bool {
        self.nodes.iter().any(|found| found.node == node)
    }

    /// Keys of a role.
    #[must_use]
    pub fn count(&self, role: Role) -> usize {
        match role {
            Role::Node => self.nodes.len(),
            Role::Admin | Role::Member | Role::Auditor => self.keys.iter().filter(|key| key.role == role).count(),
        }
    }
}

/// Leave to join.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Invitation {
    /// Format version, 1.
    pub version: u8,
    /// Whom.
    pub org: OrgId,
    /// The proposal that was approved, or the founding.
    pub by: Hash32,
    /// Last time at which it may join.
    pub until_ms: TimeMs,
}

/// An audit grant in force, under the proposal that gave it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct GrantRecord {
    /// Format version, 1.
    pub version: u8,
    /// The proposal.
    pub id: Hash32,
    /// What it allows.
    pub grant: AuditGrant,
}

/// A key or certificate that counts no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Revocation {
    /// Format version, 1.
    pub version: u8,
    /// From this block on.
    pub height: Height,
    /// Its time.
    pub time_ms: TimeMs,
}

/// Kind bytes of the channel's leaves, beyond those of accounts in `ledger::schema`.
const KIND_CHANNEL: u8 = 0xE0;
const KIND_MEMBER: u8 = 0xE1;
const KIND_POLICY: u8 = 0xE2;
const KIND_REVISION: u8 = 0xE3;
const KIND_PROPOSAL: u8 = 0xE4;
const KIND_INVITATION: u8 = 0xE5;
const KIND_GRANT: u8 = 0xE6;
const KIND_EXCLUSION: u8 = 0xE7;
const KIND_REVOCATION: u8 = 0xE8;
const KIND_ASSET: u8 = 0xE9;
const KIND_DONE: u8 = 0xEA;
const KIND_PROMISE: u8 = 0xEB;

fn key(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![STATE];
    key.extend_from_slice(&tagged(b"seamark/channel/v1", &[]).0);
    key.push(kind);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

/// Key of the [`ChannelRecord`].
#[must_use]
pub fn channel_key() -> Vec<u8> {
    key(KIND_CHANNEL, &[])
}

/// Key of a [`MemberRecord`].
#[must_use]
pub fn member_key(org: OrgId) -> Vec<u8> {
    key(KIND_MEMBER, &[&org.0.to_be_bytes()])
}

/// Key of the [`Policy`] of a subject.
#[must_use]
pub fn policy_key(subject: Subject) -> Vec<u8> {
    let subject = borsh::to_vec(&subject).expect("writing to memory does not fail");
    key(KIND_POLICY, &[&subject])
}

/// Key of the revision of a target, a `u64`.
#[must_use]
pub fn revision_key(target: Target) -> Vec<u8> {
    let target = borsh::to_vec(&target).expect("writing to memory does not fail");
    key(KIND_REVISION, &[&target])
}

/// Key of a [`Proposal`].
#[must_use]
pub fn proposal_key(id: &Hash32) -> Vec<u8> {
    key(KIND_PROPOSAL, &[&id.0])
}

/// Key of an [`Invitation`].
#[must_use]
pub fn invitation_key(org: OrgId) -> Vec<u8> {
    key(KIND_INVITATION, &[&org.0.to_be_bytes()])
}

/// Key of a [`GrantRecord`].
#[must_use]
pub fn grant_key(org: OrgId, id: &Hash32) -> Vec<u8> {
    key(KIND_GRANT, &[&org.0.to_be_bytes(), &id.0])
}

/// Key of an [`Exclusion`]: the leaf that an exclusion receipt proves. It is never removed.
#[must_use]
pub fn exclusion_key(org: OrgId, height: Height) -> Vec<u8> {
    key(KIND_EXCLUSION, &[&org.0.to_be_bytes(), &height.0.to_be_bytes()])
}

/// Key of a [`Revocation`] of an organisation's key or certificate.
#[must_use]
pub fn revocation_key(org: OrgId, credential: &Hash32) -> Vec<u8> {
    key(KIND_REVOCATION, &[&org.0.to_be_bytes(), &credential.0])
}

/// Key of an asset's permission; its value is the proposal that gave it.
#[must_use]
pub fn asset_key(asset: &AssetId) -> Vec<u8> {
    key(KIND_ASSET, &[&asset.0])
}

/// Key of the [`PromiseRecord`].
#[must_use]
pub fn promise_key() -> Vec<u8> {
    key(KIND_PROMISE, &[])
}

/// Key of what an executed command did.
#[must_use]
pub(crate) fn done_key(org: OrgId, until_ms: TimeMs, digest: &Hash32) -> Vec<u8> {
    key(KIND_DONE, &[&org.0.to_be_bytes(), &until_ms.0.to_be_bytes(), &digest.0])
}

/// Prefix of what an organisation's executed commands did, by deadline.
#[must_use]
pub(crate) fn done_prefix(org: OrgId) -> Vec<u8> {
    key(KIND_DONE, &[&org.0.to_be_bytes()])
}

/// What names a key where certificates are named by the hash of their public key: its `sha256`.
#[must_use]
pub fn credential_of(key: &PublicKey) -> Hash32 {
    sha256(&key.0)
}

/// Writes that are made together once everything has been checked.
#[derive(Debug, Default)]
pub(crate) struct Batch(Vec<(Vec<u8>, Option<Vec<u8>>)>);

impl Batch {
    pub(crate) fn put<T: BorshSerialize>(&mut self, key: Vec<u8>, value: &T) {
        self.0.push((key, Some(borsh::to_vec(value).expect("writing to memory does not fail"))));
    }

    pub(crate) fn delete(&mut self, key: Vec<u8>) {
        self.0.push((key, None));
    }

    pub(crate) fn write(self, view: &mut View<'_>) {
        for (key, value) in self.0 {
            match value {
                Some(value) => view.put(key, value),
                None => view.delete(key),
            }
        }
    }

    /// All of it as puts, sorted by key; for a first state, which removes nothing.
    pub(crate) fn into_puts(self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut puts: Vec<_> = self.0.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        puts.sort();
        puts
    }
}

/// The records under a prefix, in key order.
fn family<T: BorshDeserialize>(view: &mut View<'_>, prefix: &[u8]) -> Vec<T> {
    let keys: Vec<Vec<u8>> = view.scan_prefix(prefix).into_iter().map(|(key, _)| key).collect();
    keys.into_iter().filter_map(|key| view.load(&key)).collect()
}

/// The channel, or `None` in a group that is none.
pub fn channel(view: &mut View<'_>) -> Option<ChannelRecord> {
    view.load(&channel_key())
}

/// One member.
pub fn member(view: &mut View<'_>, org: OrgId) -> Option<MemberRecord> {
    view.load(&member_key(org))
}

/// All members, by id.
pub fn members(view: &mut View<'_>) -> Vec<MemberRecord> {
    family(view, &key(KIND_MEMBER, &[]))
}

/// The policy of a subject.
pub fn policy(view: &mut View<'_>, subject: Subject) -> Option<Policy> {
    view.load(&policy_key(subject))
}

/// What the founding promised, and how far the channel is with it; `None` where it stated its policies itself.
pub fn promise(view: &mut View<'_>) -> Option<PromiseRecord> {
    view.load(&promise_key())
}

/// The revision of a target; it rises with every change.
pub fn revision(view: &mut View<'_>, target: Target) -> u64 {
    view.load(&revision_key(target)).unwrap_or(0)
}

/// One proposal, open or ended.
pub fn proposal(view: &mut View<'_>, id: &Hash32) -> Option<Proposal> {
    view.load(&proposal_key(id))
}

/// All proposals that are kept, by id.
pub fn proposals(view: &mut View<'_>) -> Vec<Proposal> {
    family(view, &key(KIND_PROPOSAL, &[]))
}

/// One invitation, which may have ended.
pub fn invitation(view: &mut View<'_>, org: OrgId) -> Option<Invitation> {
    view.load(&invitation_key(org))
}

/// All invitations, by organisation.
pub fn invitations(view: &mut View<'_>) -> Vec<Invitation> {
    family(view, &key(KIND_INVITATION, &[]))
}

/// The audit grants of an organisation, which may have ended.
pub fn grants_of(view: &mut View<'_>, org: OrgId) -> Vec<GrantRecord> {
    family(view, &key(KIND_GRANT, &[&org.0.to_be_bytes()]))
}

/// All audit grants, by organisation.
pub fn grants(view: &mut View<'_>) -> Vec<GrantRecord> {
    family(view, &key(KIND_GRANT, &[]))
}

/// When an organisation was excluded, earliest first.
pub fn exclusions(view: &mut View<'_>, org: OrgId) -> Vec<Exclusion> {
    family(view, &key(KIND_EXCLUSION, &[&org.0.to_be_bytes()]))
}

/// The revocation of an organisation's key or certificate.
pub fn revocation(view: &mut View<'_>, org: OrgId, credential: &Hash32) -> Option<Revocation> {
    view.load(&revocation_key(org, credential))
}

/// How many keys and certificates an organisation has revoked.
pub(crate) fn revocations(view: &mut View<'_>, org: OrgId) -> usize {
    view.scan_prefix(&key(KIND_REVOCATION, &[&org.0.to_be_bytes()])).len()
}

/// Whether an asset may be paid with and locked in the channel.
pub fn asset_permitted(view: &mut View<'_>, asset: &AssetId) -> bool {
    view.get(&asset_key(asset)).is_some()
}

/// How many assets are permitted.
pub(crate) fn assets(view: &mut View<'_>) -> usize {
    view.scan_prefix(&key(KIND_ASSET, &[])).len()
}

/// Who can sign approvals, given these members.
#[must_use]
pub fn roster(members: &[MemberRecord]) -> Roster {
    let mut roster = Roster::default();
    for member in members {
        roster.members.insert(member.org);
        let roles = [Role::Admin, Role::Member, Role::Node].into_iter().filter(|role| member.count(*role) > 0);
        roster.electors.extend(roles.map(|role| Elector { org: member.org, role }));
    }
    roster
}

/// Whether a voice still counts: its organisation is a member, and its key has not been revoked. What
/// an organisation said before it was excluded is gone from every open proposal, so it does not count
/// again when it comes back.
pub(crate) fn counts(view: &mut View<'_>, members: &[MemberRecord], voice: &Voice) -> bool {
    members.iter().any(|member| member.org == voice.elector.org)
        && revocation(view, voice.elector.org, &credential_of(&voice.key)).is_none()
}
