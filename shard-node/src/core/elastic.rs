//! Shards in memory that are sealed, cut and joined, for tests: real blocks, and a beacon that says what a test wants.

use std::collections::BTreeMap;

use bytes::Bytes;
use consensus::port::AppliedState;
use cross_shard::{Message, stream};
use ledger::asset::AssetDef;
use ledger::ids::{Address, AssetId, GroupId, JobId, LedgerId, TimeMs};
use ledger::lineage::{ChildShard, SEAL_VERSION, Seal};
use ledger::tree::{BitPrefix, StateTree, value_hash};
use ledger::view::View;
use ledger::{AssetSpec, Header, Layout, Move, SecretKey, SignedTx, schema};

use crate::core::applied::AppliedRecord;
use crate::core::birth::Birth;
use crate::core::entry::{Command, ENTRY_VERSION, Entry};
use crate::core::executor::{ExecutedBlock, Execution, GroupConstants, execute};
use crate::core::follow::{Side, Writes, follow};
use crate::core::genesis::genesis_state;
use crate::core::support::{
    PEER, SHARD, address, bundle, certify, client_key, committee, genesis, header, stream_head, transaction,
};

pub type State = BTreeMap<Vec<u8>, Bytes>;

/// The shards that begin: two halves of [`SHARD`], or what [`SHARD`] and [`PEER`] are joined into.
pub const LEFT: GroupId = GroupId::shard(2);
pub const RIGHT: GroupId = GroupId::shard(3);
pub const JOB: JobId = JobId(4);

pub fn borsh_of<T: borsh::BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).expect("writing to memory does not fail")
}

pub fn decoded<T: borsh::BorshDeserialize>(state: &State, key: &[u8]) -> Option<T> {
    state.get(key).map(|bytes| borsh::from_slice(bytes).expect("it decodes"))
}

/// The seal that cuts [`SHARD`] into [`LEFT`] and [`RIGHT`].
pub fn split_seal() -> Seal {
    let layout = Layout::even(2).split(SHARD, [LEFT, RIGHT]).expect("it can be cut");
    seal(vec![SHARD], &[LEFT, RIGHT], layout)
}

/// The seal that joins [`SHARD`] and [`PEER`] into [`LEFT`].
pub fn merge_seal() -> Seal {
    let layout = Layout::even(2).merge([SHARD, PEER], LEFT).expect("they are halves of one prefix");
    seal(vec![SHARD, PEER], &[LEFT], layout)
}

fn seal(parents: Vec<GroupId>, children: &[GroupId], layout: Layout) -> Seal {
    let child = |group: &GroupId| ChildShard {
        group: *group,
        prefix: layout.prefix_of(*group).expect("it is in the layout"),
        committee: committee(*group, 0),
    };
    let children = children.iter().map(child).collect();
    let seal = Seal { version: SEAL_VERSION, job: JOB, parents, children, layout };
    assert!(seal.well_formed());
    seal
}

/// Clients whose accounts lie in one half of [`SHARD`], or in [`PEER`].
pub fn clients(group: GroupId) -> impl Iterator<Item = SecretKey> {
    let layout = split_seal().layout;
    (0..=u8::MAX).map(client_key).filter(move |key| layout.locate(&address(key)) == group)
}

pub fn client(group: GroupId) -> SecretKey {
    clients(group).next().expect("a quarter of all keys belong there")
}

/// The asset of these tests, whose issuer lies in the left half of [`SHARD`].
pub fn asset() -> AssetDef {
    let issuer = address(&client(LEFT));
    let spec = AssetSpec { issuer, symbol: "EUR".to_owned(), name: "Euro".to_owned(), decimals: 2 };
    AssetDef { version: 1, id: spec.id(), spec, frozen: false }
}

pub fn command(tx: &SignedTx) -> Command {
    Command::Tx(tx.encode())
}

/// A transaction of the main ledger; `salt` tells equal ones apart.
pub fn tx(by: &SecretKey, salt: u8, moves: Vec<Move>) -> SignedTx {
    transaction(genesis().cluster_id(), LedgerId::MAIN, by, salt, moves)
}

pub fn mint(to: &SecretKey, amount: u128, salt: u8) -> Command {
    let issuer = client(LEFT);
    let mv = Move::Mint { issuer: address(&issuer), to: address(to), asset: asset().id, amount };
    command(&tx(&issuer, salt, vec![mv]))
}

pub fn pay(from: &SecretKey, to: &SecretKey, amount: u128, salt: u8) -> Command {
    let mv = Move::Pay { from: address(from), to: address(to), asset: asset().id, amount };
    command(&tx(from, salt, vec![mv]))
}

/// One shard from its first block on.
pub struct Chain {
    pub group: GroupId,
    constants: GroupConstants,
    pub state: State,
    pub tree: StateTree,
    pub applied: AppliedRecord,
    /// What the beacon has told it.
    told: Vec<Vec<u8>>,
    /// What it has mailed, and the last block, with which that is certified.
    sent: BTreeMap<GroupId, Vec<Vec<u8>>>,
    last: Option<(Header, Vec<stream::StreamLeaf>)>,
    /// What each block wrote.
    pub written: Vec<Writes>,
}

impl Chain {
    /// A shard of the genesis.
    pub fn new(group: GroupId) -> Self {
        let start = genesis_state(&genesis(), None, group).expect("the genesis names it");
        Self::standing(group, start.writes.into_iter().map(|(key, value)| (key, value.into())).collect())
    }

    /// A shard as its state is after a restart: everything is rebuilt from that.
    pub fn standing(group: GroupId, state: State) -> Self {
        let applied: AppliedRecord = decoded(&state, &schema::applied()).expect("a position");
        let layout: Layout = decoded(&state, &schema::layout()).expect("a layout");
        let prefix = layout.prefix_of(group).map_or(BitPrefix::ROOT, ledger::BitPrefix::in_tree);
        let mut tree = tree_of(&state, prefix);
        assert_eq!(tree.root(), applied.state_root.0, "the state adds up to its root");
        let genesis = genesis();
        let constants = GroupConstants { cluster: genesis.cluster_id(), group, verify: genesis.verify };
        let (told, sent, written) = (Vec::new(), BTreeMap::new(), Vec::new());
        Self { group, constants, state, tree, applied, told, sent, last: None, written }
    }

    /// Executes an entry and keeps what it wrote; `None` when it is void.
    pub fn entry(&mut self, commands: Vec<Command>) -> Option<ExecutedBlock> {
        let stamp_ms = TimeMs(self.applied.time_ms.0 + 10);
        let payload = Bytes::from(Entry { version: ENTRY_VERSION, stamp_ms, commands }.encode());
        let log = AppliedState::default();
        let executed = execute(&self.state, &mut self.tree, &self.constants, &self.applied, log, &payload);
        let Execution::Block(block) = executed.expect("it is executed") else { return None };
        write(&mut self.state, &block.writes);
        self.written.push(block.writes.clone());
        self.applied = block.applied.clone();
        assert_eq!(self.tree.root(), block.header.state_root.0);
        for line in &block.header.value_flow {
            assert!(line.balances(), "{line:?}");
        }
        for mail in &block.mail {
            self.sent.entry(mail.dest).or_default().push(mail.message.to_vec());
        }
        self.last = Some((block.header.clone(), block.outbox.clone()));
        Some(*block)
    }

    pub fn block(&mut self, commands: Vec<Command>) -> ExecutedBlock {
        self.entry(commands).expect("a block")
    }

    /// Messages of the beacon that follow on those before.
    pub fn told(&mut self, messages: &[Message]) -> Command {
        let first = self.told.len();
        self.told.extend(messages.iter().map(Message::encode));
        let outbox = [stream_head(self.group, &self.told)];
        let height = self.told.len() as u64;
        let header = Header { outbox_root: stream::root(&outbox), ..header(GroupId::BEACON, height) };
        let bundle = bundle(certify(header), &outbox, &self.told, self.group, first, self.told.len());
        Command::Deliver(borsh_of(&bundle))
    }

    /// What this shard has mailed to another one, from message `first` up to `end`.
    pub fn mail(&self, dest: GroupId, first: usize, end: usize) -> Command {
        let (header, outbox) = self.last.as_ref().expect("a block");
        let bundle = bundle(certify(header.clone()), outbox, &self.sent[&dest], dest, first, end);
        Command::Deliver(borsh_of(&bundle))
    }

    /// What an account has of the asset.
    pub fn balance(&self, key: &SecretKey) -> u128 {
        balance(&self.state, &address(key), &asset().id)
    }

    pub fn total(&self) -> u128 {
        decoded(&self.state, &schema::total(&asset().id)).unwrap_or(0)
    }
}

fn balance(state: &State, account: &Address, asset: &AssetId) -> u128 {
    let mut view = View::new(state);
    let record = ledger::rules::load_account(&mut view, account);
    let lines = record.into_iter().flat_map(|record| record.balances);
    lines.filter(|line| line.0 == *asset).map(|line| line.1.posted).sum()
}

pub fn tree_of(state: &State, prefix: BitPrefix) -> StateTree {
    let mut tree = StateTree::new(prefix);
    let leaves = state.iter().filter_map(|(key, value)| Some((schema::tree_position(key)?, Some(value_hash(value)))));
    tree.apply(leaves).expect("all leaves lie under the prefix");
    tree
}

pub fn write(state: &mut State, writes: &Writes) {
    for (key, value) in writes {
        match value {
            Some(value) => state.insert(key.clone(), value.clone()),
            None => state.remove(key),
        };
    }
}

/// All of a state, as writes.
pub fn all_of(state: &State) -> Writes {
    state.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect()
}

/// Adds to a copy what of these writes belongs into it.
pub fn copy(into: &mut State, side: &Side<'_>, writes: &Writes) {
    let kept = follow(side, writes).expect("the other parent can be read");
    write(into, &kept);
}

/// A copy as the child's first state.
pub fn born(mut copy: State, birth: &Birth) -> State {
    copy.retain(|key, _| !birth.cut.iter().any(|range| range.contains(key)));
    write(&mut copy, &birth.writes);
    copy
}
