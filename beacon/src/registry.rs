//! The registry in state: its keys, its records, and the readers over them.
//!
//! Every change goes through [`put`], which folds key and value into the audit head. That head is a
//! leaf of the beacon's state tree, so the beacon's certified headers commit to the whole registry,
//! and two replicas with different registries show different roots. A second leaf, the
//! [`RegistryHead`], holds the hash of what nodes and routers follow, so that it can be proved to
//! them whole. The initial registry is committed to by the cluster id instead.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use ledger::asset::AssetDef;
use ledger::certificate::Certificate;
use ledger::committee::Committee;
use ledger::foundation::Foundation;
use ledger::genesis::{Genesis, NodeInfo, OrgInfo, VerifyMode};
use ledger::hash::{Hash32, sha256, tagged};
use ledger::ids::{AssetId, ClusterId, Epoch, GroupId, GroupKind, Height, NodeId, OrgId, TimeMs};
use ledger::layout::Layout;
use ledger::schema::{self, REGISTRY, STATE};
use ledger::view::View;
use serde::{Deserialize, Serialize};

use crate::policies;
use crate::view::ClusterView;

/// Version of the registry's records, stored in [`Meta`].
pub const REGISTRY_FORMAT: u8 = 1;

/// What never changes about a cluster, and the format of everything beside it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Meta {
    /// Format of all records, [`REGISTRY_FORMAT`].
    pub format: u8,
    /// The cluster.
    pub cluster: ClusterId,
    /// Name for people.
    pub name: String,
    /// Checking of client signatures.
    pub verify: VerifyMode,
}

/// The last certified position of a group that the beacon has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Position in the group's chain.
    pub height: Height,
    /// Hash of the header there.
    pub header_hash: Hash32,
    /// Root of the group's state there.
    pub state_root: Hash32,
    /// Time of that block.
    pub time_ms: TimeMs,
}

/// Two certified headers of one group at one height: the group's committee signed both.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Divergence {
    /// Format version, 1.
    pub version: u8,
    /// What the beacon had accepted.
    pub first: Certificate,
    /// What contradicts it.
    pub second: Certificate,
    /// When the beacon learned of it.
    pub seen_ms: TimeMs,
}

/// Count and hash chain of all changes of the registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct AuditHead {
    /// Changes so far.
    pub changes: u64,
    /// `sha256("seamark/audit/v1" ‖ chain ‖ sha256(key) ‖ sha256(value))` over all of them; a
    /// removal has the zero hash for its value.
    pub chain: Hash32,
}

/// What followers are shown, as the state tree commits to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RegistryHead {
    /// Format version, 1.
    pub version: u8,
    /// Revision of the registry; that of the genesis is 1 and has no head.
    pub revision: u64,
    /// `sha256("seamark/registry-view/v1" ‖ borsh(ClusterView))` as of this revision.
    pub hash: Hash32,
}

impl RegistryHead {
    /// The head of an encoded [`ClusterView`] of this revision.
    #[must_use]
    pub fn of(revision: u64, encoded: &[u8]) -> Self {
        Self { version: 1, revision, hash: tagged(b"seamark/registry-view/v1", &[encoded]) }
    }
}

const ORG: &[u8] = b"org/";
const NODE: &[u8] = b"node/";
const COMMITTEE: &[u8] = b"committee/";
const CURRENT: &[u8] = b"current/";
const CHECKPOINT: &[u8] = b"checkpoint/";
const PROOF: &[u8] = b"proof/";
const DIVERGENCE: &[u8] = b"divergence/";
const ASSET: &[u8] = b"asset/";
const COMING: &[u8] = b"coming/";
const EPOCH: &[u8] = b"epoch/";
const FOUNDATION: &[u8] = b"foundation/";

/// Joins a key of the registry.
pub(crate) fn key(family: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![REGISTRY];
    key.extend_from_slice(family);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

/// Key of [`Meta`].
#[must_use]
pub fn meta_key() -> Vec<u8> {
    key(b"meta", &[])
}

/// Key of the layout in force.
#[must_use]
pub fn layout_key() -> Vec<u8> {
    key(b"layout", &[])
}

/// Key of the seed of the last assignment.
#[must_use]
pub fn seed_key() -> Vec<u8> {
    key(b"seed", &[])
}

/// Key of the counter that rises with every change nodes and routers have to follow.
#[must_use]
pub fn revision_key() -> Vec<u8> {
    key(b"revision", &[])
}

/// Key of an organisation.
#[must_use]
pub fn org_key(org: OrgId) -> Vec<u8> {
    key(ORG, &[&org.0.to_be_bytes()])
}

/// Key of a node.
#[must_use]
pub fn node_key(node: NodeId) -> Vec<u8> {
    key(NODE, &[&node.0.to_be_bytes()])
}

/// Key of a committee that is, was or will be in force.
#[must_use]
pub fn committee_key(group: GroupId, hash: &Hash32) -> Vec<u8> {
    key(COMMITTEE, &[&group.0.to_be_bytes(), &hash.0])
}

/// Key of the hash of a group's committee in force.
#[must_use]
pub fn current_key(group: GroupId) -> Vec<u8> {
    key(CURRENT, &[&group.0.to_be_bytes()])
}

/// Key of the committee that a group is being prepared for.
#[must_use]
pub fn coming_key(group: GroupId) -> Vec<u8> {
    key(COMING, &[&group.0.to_be_bytes()])
}

/// Key of the latest epoch for which a committee of a group was ever prepared.
#[must_use]
pub fn epoch_key(group: GroupId) -> Vec<u8> {
    key(EPOCH, &[&group.0.to_be_bytes()])
}

/// Key of a group's last [`Checkpoint`].
#[must_use]
pub fn checkpoint_key(group: GroupId) -> Vec<u8> {
    key(CHECKPOINT, &[&group.0.to_be_bytes()])
}

/// Key of the certificate of a group's last checkpoint.
#[must_use]
pub fn proof_key(group: GroupId) -> Vec<u8> {
    key(PROOF, &[&group.0.to_be_bytes()])
}

/// Key of a [`Divergence`].
#[must_use]
pub fn divergence_key(group: GroupId, height: Height, second: &Hash32) -> Vec<u8> {
    key(DIVERGENCE, &[&group.0.to_be_bytes(), &height.0.to_be_bytes(), &second.0])
}

/// Prefix of a group's divergences.
#[must_use]
pub fn divergence_prefix(group: GroupId) -> Vec<u8> {
    key(DIVERGENCE, &[&group.0.to_be_bytes()])
}

/// Key of an asset definition.
#[must_use]
pub fn asset_key(asset: &AssetId) -> Vec<u8> {
    key(ASSET, &[&asset.0])
}

/// Key of a founded group's [`Foundation`].
#[must_use]
pub fn foundation_key(group: GroupId) -> Vec<u8> {
    key(FOUNDATION, &[&group.0.to_be_bytes()])
}

/// Key of how many channels were ever founded: the ordinal of the next one.
#[must_use]
pub fn channels_key() -> Vec<u8> {
    key(b"channels", &[])
}

/// Key of the [`AuditHead`]: a leaf of the state tree, in a partition that no account has.
#[must_use]
pub fn audit_key() -> Vec<u8> {
    leaf_key(KIND_AUDIT)
}

/// Key of the [`RegistryHead`]: a leaf beside the audit head.
#[must_use]
pub fn head_key() -> Vec<u8> {
    leaf_key(KIND_HEAD)
}

/// Key of the head of the epochs that are kept, an [`EpochHead`](crate::epochs::EpochHead): a leaf beside the others.
#[must_use]
pub fn epochs_key() -> Vec<u8> {
    leaf_key(KIND_EPOCHS)
}

fn leaf_key(kind: u8) -> Vec<u8> {
    let mut key = vec![STATE];
    key.extend_from_slice(&tagged(b"seamark/registry/v1", &[]).0);
    key.push(kind);
    key
}

/// Kind bytes of the registry's leaves, beyond those of accounts in `ledger::schema`.
const KIND_AUDIT: u8 = 0xF0;
const KIND_HEAD: u8 = 0xF1;
const KIND_EPOCHS: u8 = 0xF3;

/// The initial registry, sorted by key. Neither head is among it: they appear with the first change.
#[must_use]
pub fn genesis_writes(genesis: &Genesis) -> Vec<(Vec<u8>, Vec<u8>)> {
    let meta = Meta {
        format: REGISTRY_FORMAT,
        cluster: genesis.cluster_id(),
        name: genesis.name.clone(),
        verify: genesis.verify,
    };
    let mut writes = vec![
        (meta_key(), encode(&meta)),
        (layout_key(), encode(&genesis.layout)),
        (seed_key(), encode(&genesis.seed)),
        (revision_key(), encode(&1u64)),
    ];
    writes.extend(genesis.orgs.iter().map(|org| (org_key(org.id), encode(org))));
    writes.extend(genesis.nodes.iter().map(|node| (node_key(node.id), encode(node))));
    for committee in &genesis.committees {
        let hash = committee.hash();
        writes.push((committee_key(committee.group, &hash), encode(committee)));
        writes.push((current_key(committee.group), encode(&hash)));
    }
    writes.extend(policies::genesis_writes(genesis));
    writes.sort();
    writes
}

pub(crate) fn encode<T: BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).expect("writing to memory does not fail")
}

/// Sets a record and notes it in the audit head.
pub(crate) fn put<T: BorshSerialize>(view: &mut View<'_>, key: Vec<u8>, value: &T) {
    let bytes = encode(value);
    note(view, &key, &sha256(&bytes));
    view.put(key, Bytes::from(bytes));
}

/// Removes a record and notes it in the audit head.
pub(crate) fn remove(view: &mut View<'_>, key: Vec<u8>) {
    note(view, &key, &Hash32::ZERO);
    view.delete(key);
}

fn note(view: &mut View<'_>, key: &[u8], value: &Hash32) {
    let mut head = audit(view);
    head.changes += 1;
    head.chain = tagged(b"seamark/audit/v1", &[&head.chain.0, &sha256(key).0, &value.0]);
    view.store(audit_key(), &head);
}

/// Marks that nodes and routers have something new to follow, and commits to it. Comes after all
/// other writes of a change.
pub(crate) fn bump_revision(view: &mut View<'_>) {
    let next = revision(view) + 1;
    put(view, revision_key(), &next);
    // Without a complete registry the view has a fault, and the block is never persisted.
    if let Some(picture) = ClusterView::collect(view) {
        view.store(head_key(), &RegistryHead::of(next, &picture.encode()));
    }
}

/// All records under a prefix, in key order. Goes through [`View::load`], so that a record that
/// does not decode stops the group instead of being skipped.
pub(crate) fn family<T: BorshDeserialize>(view: &mut View<'_>, prefix: &[u8]) -> Vec<(Vec<u8>, T)> {
    let keys: Vec<Vec<u8>> = view.scan_prefix(prefix).into_iter().map(|(key, _)| key).collect();
    keys.into_iter().filter_map(|key| view.load(&key).map(|value| (key, value))).collect()
}

fn values<T: BorshDeserialize>(view: &mut View<'_>, name: &[u8]) -> Vec<T> {
    family(view, &key(name, &[])).into_iter().map(|(_, value)| value).collect()
}

/// What never changes about the cluster.
pub fn meta(view: &mut View<'_>) -> Option<Meta> {
    view.load(&meta_key())
}

/// The layout in force.
pub fn layout(view: &mut View<'_>) -> Option<Layout> {
    view.load(&layout_key())
}

/// The seed of the last assignment.
pub fn seed(view: &mut View<'_>) -> Option<Hash32> {
    view.load(&seed_key())
}

/// Rises with every change of organisations, nodes, committees or layout.
pub fn revision(view: &mut View<'_>) -> u64 {
    view.load(&revision_key()).unwrap_or(0)
}

/// Count and chain of all changes since genesis.
pub fn audit(view: &mut View<'_>) -> AuditHead {
    view.load(&audit_key()).unwrap_or_default()
}

/// All organisations, by id.
pub fn orgs(view: &mut View<'_>) -> Vec<OrgInfo> {
    values(view, ORG)
}

/// One organisation.
pub fn org(view: &mut View<'_>, id: OrgId) -> Option<OrgInfo> {
    view.load(&org_key(id))
}

/// All nodes, by id.
pub fn nodes(view: &mut View<'_>) -> Vec<NodeInfo> {
    values(view, NODE)
}

/// One node.
pub fn node(view: &mut View<'_>, id: NodeId) -> Option<NodeInfo> {
    view.load(&node_key(id))
}

/// The committees in force, by group.
pub fn committees(view: &mut View<'_>) -> Vec<Committee> {
    let current: Vec<(GroupId, Hash32)> = by_group(view, CURRENT);
    current.into_iter().filter_map(|(group, hash)| view.load(&committee_key(group, &hash))).collect()
}

/// The committee in force of a group.
pub fn committee(view: &mut View<'_>, group: GroupId) -> Option<Committee> {
    let hash: Hash32 = view.load(&current_key(group))?;
    view.load(&committee_key(group, &hash))
}

/// How many members a shard or the beacon has by the genesis, or a shard began with; `None` for any other group.
pub fn configured(view: &mut View<'_>, group: GroupId) -> Option<usize> {
    if !matches!(group.kind(), Some(GroupKind::Shard | GroupKind::Beacon)) {
        return None;
    }
    // Every committee is kept, and the first one is that of the genesis or of the birth.
    kept(view, group).find(|committee| committee.epoch == Epoch(0)).map(|first| first.members.len())
}

/// All committees that a group has had, in no order.
pub(crate) fn kept(view: &mut View<'_>, group: GroupId) -> impl Iterator<Item = Committee> + use<> {
    let kept: Vec<(Vec<u8>, Committee)> = family(view, &key(COMMITTEE, &[&group.0.to_be_bytes()]));
    kept.into_iter().map(|(_, committee)| committee)
}

/// The committee that certifies the beacon's block at this height: the one before that in force, if the latter has
/// come into force with an earlier command of the same block.
pub(crate) fn certifying(view: &mut View<'_>, height: Height) -> Option<Committee> {
    let current = committee(view, GroupId::BEACON)?;
    if view.get(&schema::handover(height)).is_none() {
        return Some(current);
    }
    kept(view, GroupId::BEACON).filter(|former| former.epoch < current.epoch).max_by_key(|former| former.epoch)
}

/// The committees that are being prepared, by group.
pub fn coming(view: &mut View<'_>) -> Vec<Committee> {
    values(view, COMING)
}

/// The committee that a group is being prepared for.
pub fn coming_of(view: &mut View<'_>, group: GroupId) -> Option<Committee> {
    view.load(&coming_key(group))
}

/// The latest epoch that was given in a group, whether or not its committee came into force: none is
/// given twice, since the raft ids of those who join are made of it.
pub fn epoch_of(view: &mut View<'_>, current: &Committee) -> Epoch {
    let given: Option<Epoch> = view.load(&epoch_key(current.group));
    given.unwrap_or_default().max(current.epoch)
}

/// A committee of any epoch.
pub fn committee_by_hash(view: &mut View<'_>, group: GroupId, hash: &Hash32) -> Option<Committee> {
    view.load(&committee_key(group, hash))
}

/// The last checkpoint of every group that has one, by group.
pub fn checkpoints(view: &mut View<'_>) -> Vec<(GroupId, Checkpoint)> {
    by_group(view, CHECKPOINT)
}

/// The last checkpoint of a group.
pub fn checkpoint(view: &mut View<'_>, group: GroupId) -> Option<Checkpoint> {
    view.load(&checkpoint_key(group))
}

/// The certificate behind a group's last checkpoint.
pub fn checkpoint_proof(view: &mut View<'_>, group: GroupId) -> Option<Certificate> {
    view.load(&proof_key(group))
}

/// The foundations of all groups that were founded at run time, by group.
pub fn foundations(view: &mut View<'_>) -> Vec<Foundation> {
    values(view, FOUNDATION)
}

/// How many channels were ever founded.
pub fn channels(view: &mut View<'_>) -> u32 {
    view.load(&channels_key()).unwrap_or(0)
}

/// Every alarm about a group that certified two chains.
pub fn divergences(view: &mut View<'_>) -> Vec<Divergence> {
    values(view, DIVERGENCE)
}

/// One asset definition.
pub fn asset(view: &mut View<'_>, id: &AssetId) -> Option<AssetDef> {
    view.load(&asset_key(id))
}

/// All asset definitions, by id.
pub fn assets(view: &mut View<'_>) -> Vec<AssetDef> {
    values(view, ASSET)
}

fn by_group<T: BorshDeserialize>(view: &mut View<'_>, name: &[u8]) -> Vec<(GroupId, T)> {
    let prefix = key(name, &[]);
    family(view, &prefix)
        .into_iter()
        .filter_map(|(key, value)| {
            let id: [u8; 8] = key.get(prefix.len()..)?.try_into().ok()?;
            Some((GroupId(u64::from_be_bytes(id)), value))
        })
        .collect()
}
