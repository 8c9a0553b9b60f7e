//! The cluster of a study: its nodes, who sits where by the production assignment, its accounts, and block 0 of each
//! group.
//!
//! Everything here is the same for all groups and stays as it is during a run. Nothing is executed yet.

use std::collections::BTreeMap;

use beacon::Constraints;
use beacon::genesis::{committees_of, first_groups};
use bytes::Bytes;
use ledger::asset::{AssetDef, AssetSpec};
use ledger::committee::Engine;
use ledger::flow::FlowLine;
use ledger::genesis::{Genesis, NodeInfo, OrgInfo, VerifyMode};
use ledger::hash::{Hash32, tagged};
use ledger::ids::{Address, AssetId, ClusterId, GroupId, NodeId, OrgId, TimeMs};
use ledger::layout::Layout;
use ledger::tree::{BitPrefix, StateTree, value_hash};
use ledger::{AccountRecord, Authorisation, Balance, PublicKey, SecretKey, schema};
use shard_node::core::applied::AppliedRecord;
use shard_node::core::genesis::genesis_state;

/// When the cluster was made; modelled time begins here.
pub(super) const CREATED_MS: u64 = 1_750_000_000_000;
/// What every account begins with: more than it can spend.
pub(super) const BALANCE: u128 = 1_000_000_000_000_000;
const ORGS: u32 = 16;
const ZONES: u32 = 4;

/// Shape of a cluster.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shape {
    pub(super) shards: u32,
    pub(super) nodes: u32,
    pub(super) replicas: u16,
    pub(super) accounts: u32,
    pub(super) verify: VerifyMode,
    pub(super) seed: u64,
}

/// An account and the authorisation that it has shown. Nobody has the key: signatures are not checked here.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) address: Address,
    pub(super) auth: Authorisation,
}

/// The replicas of a group.
#[derive(Clone, Debug)]
pub(super) struct Seats {
    pub(super) members: Vec<NodeId>,
    /// Place of the one that leads among the members.
    pub(super) leader: usize,
    /// Signatures of a certificate.
    pub(super) threshold: usize,
}

/// What all groups know.
pub(super) struct Directory {
    pub(super) genesis: Genesis,
    pub(super) cluster: ClusterId,
    pub(super) seats: BTreeMap<GroupId, Seats>,
    /// By number of the node.
    pub(super) keys: Vec<SecretKey>,
    /// By number of the shard.
    pub(super) accounts: Vec<Vec<Account>>,
    pub(super) asset: AssetDef,
}

/// A group at block 0, with its accounts.
pub(super) struct Beginning {
    pub(super) state: BTreeMap<Vec<u8>, Bytes>,
    pub(super) tree: StateTree,
    pub(super) applied: AppliedRecord,
}

fn key_of(node: u32) -> SecretKey {
    SecretKey::derive(b"nodes of a scale study", &node.to_be_bytes())
}

fn node(id: u32, key: &SecretKey) -> NodeInfo {
    NodeInfo {
        id: NodeId(id),
        org: OrgId(u16::try_from(id % ORGS).unwrap_or_default()),
        // Each organisation has nodes in every zone.
        zone: format!("zone-{}", id / ORGS % ZONES),
        capacity: 1,
        key: key.public(),
        tls_key_hash: tagged(b"tls key of a scale study", &[&id.to_be_bytes()]),
        peer_addr: format!("node-{id}:1"),
        client_addr: format!("node-{id}:2"),
    }
}

fn org(id: u32) -> OrgInfo {
    OrgInfo {
        id: OrgId(u16::try_from(id).unwrap_or_default()),
        name: format!("org-{id}"),
        ca_pem: "-----BEGIN CERTIFICATE-----\nc2NhbGU=\n-----END CERTIFICATE-----".to_owned(),
        admin_key: SecretKey::derive(b"organisations of a scale study", &id.to_be_bytes()).public(),
    }
}

/// Accounts by shard, as many in each. Their keys are hashes and not points of the curve, which only a check of a
/// signature would notice.
fn accounts(layout: &Layout, each: u32) -> Vec<Vec<Account>> {
    let mut accounts: Vec<Vec<Account>> = vec![Vec::new(); layout.shards.len()];
    let mut missing = layout.shards.len() as u64 * u64::from(each);
    for number in 0u64.. {
        if missing == 0 {
            break;
        }
        let mut key = [2; 33];
        key[1..].copy_from_slice(&tagged(b"accounts of a scale study", &[&number.to_be_bytes()]).0);
        let auth = Authorisation::Single(PublicKey(key));
        let address = auth.address();
        let home = &mut accounts[layout.locate(&address).ordinal() as usize];
        if home.len() < each as usize {
            home.push(Account { address, auth });
            missing -= 1;
        }
    }
    accounts
}

impl Directory {
    /// The cluster of a seed. Seats are dealt by [`beacon::assign`]; of a group's members the one leads that leads the
    /// fewest groups so far.
    ///
    /// # Errors
    /// A text when the nodes cannot take the seats.
    pub(super) fn new(shape: &Shape) -> Result<Self, String> {
        let keys: Vec<SecretKey> = (0..shape.nodes).map(key_of).collect();
        let nodes: Vec<NodeInfo> = (0..).zip(&keys).map(|(id, key)| node(id, key)).collect();
        let seed: Hash32 = tagged(b"scale study", &[&shape.seed.to_be_bytes()]);
        let groups = first_groups(shape.shards, shape.replicas, shape.replicas, |_| Engine::Raft);
        let committees =
            committees_of(&seed, &nodes, &groups, &Constraints::default()).map_err(|error| error.to_string())?;
        let mut led = vec![0u32; nodes.len()];
        let mut seats = BTreeMap::new();
        for committee in &committees {
            let members: Vec<NodeId> = committee.members.iter().map(|member| member.node).collect();
            let fewest = (0..members.len()).min_by_key(|place| led[members[*place].0 as usize]);
            let leader = fewest.ok_or_else(|| format!("{} has no members", committee.group))?;
            led[members[leader].0 as usize] += 1;
            seats.insert(committee.group, Seats { members, leader, threshold: usize::from(committee.threshold) });
        }
        let layout = Layout::even(shape.shards);
        let accounts = accounts(&layout, shape.accounts);
        let issuer = accounts.first().and_then(|shard| shard.first()).ok_or("a shard needs an account")?.address;
        let spec = AssetSpec { issuer, symbol: "UNIT".to_owned(), name: "Unit of account".to_owned(), decimals: 2 };
        let asset = AssetDef { version: 1, id: spec.id(), spec, frozen: false };
        let genesis = Genesis {
            version: 1,
            name: "scale".to_owned(),
            created_ms: TimeMs(CREATED_MS),
            seed,
            orgs: (0..ORGS).map(org).collect(),
            nodes,
            committees,
            layout,
            verify: shape.verify,
            policies: Default::default(),
        };
        Ok(Self { cluster: genesis.cluster_id(), seats, keys, accounts, asset, genesis })
    }

    /// All groups, the beacon first.
    pub(super) fn groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.seats.keys().copied()
    }

    /// The accounts of a group; the beacon has none.
    pub(super) fn accounts_of(&self, group: GroupId) -> &[Account] {
        if group == GroupId::BEACON { &[] } else { &self.accounts[group.ordinal() as usize] }
    }

    /// A group before its first block. `shared` has the values that all groups have, so that each is in memory once.
    ///
    /// # Errors
    /// A text when the genesis makes no state.
    pub(super) fn beginning(&self, group: GroupId, shared: &BTreeMap<Vec<u8>, Bytes>) -> Result<Beginning, String> {
        let first = genesis_state(&self.genesis, None, group).map_err(|error| error.to_string())?;
        let prefix = self.genesis.layout.prefix_of(group).map_or(BitPrefix::ROOT, ledger::BitPrefix::in_tree);
        let state = first.writes.into_iter().map(|(key, value)| {
            let value = shared.get(&key).filter(|known| ***known == *value).cloned().unwrap_or_else(|| value.into());
            (key, value)
        });
        let begun = Beginning { state: state.collect(), tree: StateTree::new(prefix), applied: first.applied };
        let asset = (group != GroupId::BEACON).then_some(&self.asset);
        with_accounts(begun, first.header, self.accounts_of(group), asset)
    }

    /// The values of block 0 that are the same in all groups: the committees.
    ///
    /// # Errors
    /// A text when the genesis makes no state.
    pub(super) fn shared(&self) -> Result<BTreeMap<Vec<u8>, Bytes>, String> {
        let first = genesis_state(&self.genesis, None, GroupId::shard(0)).map_err(|error| error.to_string())?;
        let of_all = first.writes.into_iter().filter(|(key, _)| key.first() == Some(&schema::SYSTEM));
        Ok(of_all.map(|(key, value)| (key, Bytes::from(value))).collect())
    }
}

/// Puts accounts into a block 0, which then commits to them.
fn with_accounts(
    begun: Beginning,
    mut header: ledger::Header,
    accounts: &[Account],
    asset: Option<&AssetDef>,
) -> Result<Beginning, String> {
    let Beginning { mut state, mut tree, mut applied } = begun;
    if let Some(asset) = asset {
        let total = BALANCE * accounts.len() as u128;
        // The audit adds up from nothing: what is there was made in block 0.
        header.value_flow = vec![FlowLine { asset: asset.id, closing: total, minted: total, ..FlowLine::default() }];
        for account in accounts {
            let record = AccountRecord {
                auth: Some(account.auth.clone()),
                balances: vec![(asset.id, Balance { posted: BALANCE, held: 0 })],
                ..AccountRecord::default()
            };
            state.insert(schema::account(&account.address), encoded(&record));
        }
        state.insert(schema::asset(&asset.id), encoded(asset));
        state.insert(schema::total(&asset.id), encoded(&total));
    }
    let leaves = state.iter().filter_map(|(key, value)| Some((schema::tree_position(key)?, Some(value_hash(value)))));
    tree.apply(leaves).map_err(|error| error.to_string())?;
    header.state_root = Hash32(tree.root());
    applied.header_hash = header.hash();
    applied.state_root = header.state_root;
    state.insert(schema::header(header.height), encoded(&header));
    state.insert(schema::applied(), encoded(&applied));
    Ok(Beginning { state, tree, applied })
}

/// One group that owns all accounts of a cluster: what the shards together have to come to.
///
/// # Errors
/// A text when the genesis makes no state.
#[cfg(test)]
pub(super) fn undivided(directory: &Directory) -> Result<Beginning, String> {
    let mut genesis = directory.genesis.clone();
    genesis.layout = Layout::even(1);
    let first = genesis_state(&genesis, None, GroupId::shard(0)).map_err(|error| error.to_string())?;
    let state = first.writes.into_iter().map(|(key, value)| (key, Bytes::from(value))).collect();
    let begun = Beginning { state, tree: StateTree::new(BitPrefix::ROOT), applied: first.applied };
    with_accounts(begun, first.header, &directory.accounts.concat(), Some(&directory.asset))
}

pub(super) fn encoded<T: borsh::BorshSerialize>(value: &T) -> Bytes {
    Bytes::from(borsh::to_vec(value).expect("writing to memory does not fail"))
}

/// The asset that is paid with, and what of it an account has.
pub(super) fn posted(record: &AccountRecord, asset: &AssetId) -> u128 {
    record.balances.iter().filter(|line| line.0 == *asset).map(|line| line.1.posted).sum()
}
