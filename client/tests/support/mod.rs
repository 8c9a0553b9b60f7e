//! A small genesis and proofs under it that the tests share.

#![allow(clippy::unwrap_used)]
#![allow(dead_code, reason = "every test binary uses a part of it")]

use channel::exclusion::{Departure, Exclusion, ExclusionReceipt};
use client::proof::{Claim, StateEntry, tree_prefix};
use client::{BornProof, EntryName, ExclusionFile, FoundedProof, ProofFile};
use ledger::committee::Member;
use ledger::genesis::{Genesis, OrgInfo, VerifyMode};
use ledger::header::HEADER_VERSION;
use ledger::tree::{StateTree, value_hash};
use ledger::*;

pub const GROUP: GroupId = GroupId::shard(1);
/// Founded later: the genesis does not name it.
pub const CHANNEL: GroupId = GroupId::channel(4);
/// The left half of the shard, after it was cut: the genesis does not name it.
pub const CHILD: GroupId = GroupId::shard(2);

pub fn node_key(epoch: u64, node: u32) -> SecretKey {
    SecretKey::derive(&epoch.to_le_bytes(), &node.to_le_bytes())
}

pub fn committee(group: GroupId, epoch: u64) -> Committee {
    let member = |node| Member { node: NodeId(node), org: OrgId(1), key: node_key(epoch, node).public() };
    Committee::majority(group, Incarnation(0), Epoch(epoch), (1..=3).map(member).collect())
}

pub fn genesis() -> Genesis {
    let org = OrgInfo { id: OrgId(1), name: "a".into(), ca_pem: String::new(), admin_key: node_key(0, 9).public() };
    Genesis {
        version: 1,
        name: "test".into(),
        created_ms: TimeMs(1),
        seed: Hash32::ZERO,
        orgs: vec![org],
        nodes: Vec::new(),
        committees: [GroupId::BEACON, GroupId::shard(0), GROUP].map(|group| committee(group, 0)).to_vec(),
        layout: Layout::even(2),
        verify: VerifyMode::Ingest,
        policies: Default::default(),
    }
}

pub fn header(genesis: &Genesis, height: u64, epoch: u64) -> Header {
    header_of(genesis, GROUP, height, epoch)
}

pub fn header_of(genesis: &Genesis, group: GroupId, height: u64, epoch: u64) -> Header {
    Header {
        version: HEADER_VERSION,
        cluster: genesis.cluster_id(),
        group,
        incarnation: Incarnation(0),
        height: Height(height),
        parents: vec![Hash32::ZERO],
        time_ms: TimeMs(5),
        layout_version: LayoutVersion(1),
        batch_root: Hash32::ZERO,
        receipts_root: Hash32::ZERO,
        state_root: Hash32::ZERO,
        outbox_root: Hash32::ZERO,
        inbox_cursors_root: Hash32::ZERO,
        value_flow: Vec::new(),
        congestion: Vec::new(),
        committee_hash: committee(group, epoch).hash(),
        next_committee_hash: committee(group, epoch).hash(),
        flags: 0,
    }
}

pub fn certify(header: Header, epoch: u64, nodes: &[u32]) -> Certificate {
    let digest = header.hash();
    let signatures = nodes.iter().map(|node| (NodeId(*node), node_key(epoch, *node).sign(&digest))).collect();
    Certificate { version: 1, header, signatures }
}

/// Addresses of the shard, in order of search.
pub fn addresses() -> impl Iterator<Item = Address> {
    (0u32..)
        .map(|number| {
            let mut bytes = [0; 20];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            Address(bytes)
        })
        .filter(|address| Layout::even(2).locate(address) == GROUP)
}

pub fn account_proof(genesis: &Genesis, present: bool) -> ProofFile {
    let prefix = tree_prefix(genesis.layout.prefix_of(GROUP).unwrap()).unwrap();
    let mut tree = StateTree::new(prefix);
    let known: Vec<Address> = addresses().take(20).collect();
    let position = |address: &Address| schema::tree_position(&schema::account(address)).unwrap();
    let record = |sequence: usize| {
        borsh::to_vec(&AccountRecord { sequence: sequence as u64, ..AccountRecord::default() }).unwrap()
    };
    let leaves = known.iter().enumerate().map(|(at, address)| (position(address), Some(value_hash(&record(at)))));
    tree.apply(leaves).unwrap();
    let address = if present { known[7] } else { addresses().nth(30).unwrap() };
    let claim =
        Claim::Account { address, record: present.then(|| record(7)), proof: tree.prove(&position(&address)).unwrap() };
    let header = Header { state_root: Hash32(tree.root()), ..header(genesis, 8, 0) };
    ProofFile::new(genesis.cluster_id(), claim, certify(header, 0, &[1, 3]), committee(GROUP, 0))
}

/// What an account of the shard has under a name: this, or nothing.
pub fn entry_proof(genesis: &Genesis, name: EntryName, value: Option<Vec<u8>>) -> ProofFile {
    let mut tree = StateTree::new(tree_prefix(genesis.layout.prefix_of(GROUP).unwrap()).unwrap());
    let address = addresses().nth(7).unwrap();
    let position = |key: Vec<u8>| schema::tree_position(&key).unwrap();
    let others = addresses().take(20).map(|other| (position(schema::account(&other)), Some(value_hash(&other.0))));
    let own = value.as_ref().map(|value| (position(name.state_key(&address)), Some(value_hash(value))));
    tree.apply(others.chain(own)).unwrap();
    let proof = tree.prove(&position(name.state_key(&address))).unwrap();
    let header = Header { state_root: Hash32(tree.root()), ..header(genesis, 8, 0) };
    let claim = Claim::Entry { address, key: name.key(), value, proof };
    ProofFile::new(genesis.cluster_id(), claim, certify(header, 0, &[1, 3]), committee(GROUP, 0))
}

/// A record with its name.
pub fn record_entry() -> (EntryName, Vec<u8>) {
    let record = ledger::record::Record {
        version: 1,
        metadata: b"contract 7".to_vec(),
        at_ms: TimeMs(5),
        txid: TxId(Hash32([6; 32])),
        grantees: 2,
    };
    (EntryName::Record(Hash32([5; 32])), borsh::to_vec(&record).unwrap())
}

/// The beacon's word that it founded the channel with the committee of epoch 0.
pub fn founded(genesis: &Genesis) -> FoundedProof {
    let (committee_of_channel, beacon) = (committee(CHANNEL, 0), committee(GroupId::BEACON, 0));
    let committee = committee_of_channel.hash();
    let leaf = FoundedGroup { version: 1, group: CHANNEL, committee, foundation: Hash32([8; 32]) };
    let position = schema::tree_position(&schema::founded(CHANNEL)).unwrap();
    let mut tree = StateTree::new(ledger::tree::BitPrefix::ROOT);
    let others = (1..=5u8).map(|byte| ([byte; 32], Some(value_hash(&[byte]))));
    tree.apply(others.chain([(position, Some(value_hash(&borsh::to_vec(&leaf).unwrap())))])).unwrap();
    let path = tree.prove(&position).unwrap();
    let header = Header { state_root: Hash32(tree.root()), ..header_of(genesis, GroupId::BEACON, 6, 0) };
    FoundedProof { leaf, path, certificate: certify(header, 0, &[1, 2]), committee: beacon, handovers: Vec::new() }
}

/// An account of the channel.
pub fn channel_proof(genesis: &Genesis) -> ProofFile {
    let address = Address([3; 20]);
    let position = schema::tree_position(&schema::account(&address)).unwrap();
    let record = borsh::to_vec(&AccountRecord { sequence: 3, ..AccountRecord::default() }).unwrap();
    let mut tree = StateTree::new(ledger::tree::BitPrefix::ROOT);
    tree.apply([(position, Some(value_hash(&record))), ([9; 32], Some(value_hash(b"another")))]).unwrap();
    let claim = Claim::Account { address, record: Some(record), proof: tree.prove(&position).unwrap() };
    let header = Header { state_root: Hash32(tree.root()), ..header_of(genesis, CHANNEL, 8, 0) };
    ProofFile::new(genesis.cluster_id(), claim, certify(header, 0, &[1, 3]), committee(CHANNEL, 0))
        .with_founded(founded(genesis))
}

/// The beacon's word that the shard was cut, and that its left half began with the committee of epoch 0.
pub fn born(genesis: &Genesis) -> BornProof {
    let end = ParentEnd {
        group: GROUP,
        height: Height(6),
        header_hash: Hash32([5; 32]),
        time_ms: TimeMs(4),
        root: ledger::tree::SubtreeRoot::EMPTY,
    };
    let leaf = BornShard {
        version: 1,
        group: CHILD,
        prefix: genesis.layout.prefix_of(GROUP).unwrap().child(false),
        committee: committee(CHILD, 0).hash(),
        job: JobId(2),
        layout: LayoutVersion(2),
        parents: vec![end],
        roots: vec![ledger::tree::SubtreeRoot::EMPTY],
    };
    let position = schema::tree_position(&schema::born(CHILD)).unwrap();
    let mut tree = StateTree::new(ledger::tree::BitPrefix::ROOT);
    let others = (1..=5u8).map(|byte| ([byte; 32], Some(value_hash(&[byte]))));
    tree.apply(others.chain([(position, Some(value_hash(&borsh::to_vec(&leaf).unwrap())))])).unwrap();
    let path = tree.prove(&position).unwrap();
    let header = Header { state_root: Hash32(tree.root()), ..header_of(genesis, GroupId::BEACON, 6, 0) };
    let (certificate, committee) = (certify(header, 0, &[1, 2]), committee(GroupId::BEACON, 0));
    BornProof { leaf, path, certificate, committee, handovers: Vec::new() }
}

/// That an account of the shard's left half is not there, by the group that it is.
pub fn child_proof(genesis: &Genesis) -> ProofFile {
    let prefix = genesis.layout.prefix_of(GROUP).unwrap().child(false);
    let mut own = addresses().filter(|address| prefix.covers(&address.partition().0));
    let (known, absent) = (own.next().unwrap(), own.next().unwrap());
    let position = |address: &Address| schema::tree_position(&schema::account(address)).unwrap();
    let mut tree = StateTree::new(prefix.in_tree());
    tree.apply([(position(&known), Some(value_hash(b"a record")))]).unwrap();
    let claim = Claim::Account { address: absent, record: None, proof: tree.prove(&position(&absent)).unwrap() };
    let header =
        Header { state_root: Hash32(tree.root()), layout_version: LayoutVersion(2), ..header_of(genesis, CHILD, 8, 0) };
    ProofFile::new(genesis.cluster_id(), claim, certify(header, 0, &[1, 3]), committee(CHILD, 0))
        .with_born(born(genesis))
}

/// The receipt of an organisation that left the channel.
pub fn exclusion_file(genesis: &Genesis) -> ExclusionFile {
    let exclusion = Exclusion {
        version: 1,
        group: CHANNEL,
        org: OrgId(3),
        joined: Height(0),
        height: Height(7),
        time_ms: TimeMs(4),
        how: Departure::Left,
    };
    let key = channel::state::exclusion_key(exclusion.org, exclusion.height);
    let position = schema::tree_position(&key).unwrap();
    let mut tree = StateTree::new(ledger::tree::BitPrefix::ROOT);
    let others = (1..=5u8).map(|byte| ([byte; 32], Some(value_hash(&[byte]))));
    tree.apply(others.chain([(position, Some(value_hash(&borsh::to_vec(&exclusion).unwrap())))])).unwrap();
    let path = tree.prove(&position).unwrap();
    let header = Header { state_root: Hash32(tree.root()), ..header_of(genesis, CHANNEL, 8, 0) };
    let receipt = ExclusionReceipt::new(exclusion, path, certify(header, 0, &[1, 3]));
    let file = ExclusionFile::new(receipt, committee(CHANNEL, 0), Vec::new());
    ExclusionFile { founded: Some(founded(genesis)), ..file }
}

/// An account with this many assets among others: those that fill its record, and entries for more.
/// The amount of each is its number.
pub fn holdings(assets: u8) -> (Address, Vec<StateEntry>, StateTree) {
    let genesis = genesis();
    let mut tree = StateTree::new(tree_prefix(genesis.layout.prefix_of(GROUP).unwrap()).unwrap());
    let address = addresses().nth(7).unwrap();
    let balance = |number: u8| (AssetId([number; 16]), Balance { posted: number.into(), held: 0 });
    let inline = assets.min(limits::INLINE_BALANCES_MAX as u8);
    let record = AccountRecord { balances: (1..=inline).map(balance).collect(), ..AccountRecord::default() };
    let mut entries = vec![StateEntry { key: vec![schema::KIND_ACCOUNT], value: borsh::to_vec(&record).unwrap() }];
    for (asset, balance) in (inline + 1..=assets).map(balance) {
        let key = [&[schema::KIND_BALANCE], &asset.0[..]].concat();
        entries.push(StateEntry { key, value: borsh::to_vec(&balance).unwrap() });
    }
    let position = |key: Vec<u8>| schema::tree_position(&key).unwrap();
    let others = addresses().take(20).filter(|other| *other != address);
    let others = others.map(|other| (position(schema::account(&other)), Some(value_hash(&other.0))));
    let part = schema::of_account(&address);
    let own = entries.iter().map(|entry| {
        let key = [&part[..], &entry.key].concat();
        (position(key), Some(value_hash(&entry.value)))
    });
    tree.apply(others.chain(own)).unwrap();
    (address, entries, tree)
}

/// The proof of all entries of such an account.
pub fn holdings_proof(genesis: &Genesis, assets: u8) -> ProofFile {
    let (address, entries, mut tree) = holdings(assets);
    let path = tree.prove(&schema::tree_position(&schema::account(&address)).unwrap()).unwrap();
    let proof = path.down_to(tree.prefix(), &schema::subtree_of(&address)).expect("it has several entries");
    let header = Header { state_root: Hash32(tree.root()), ..header(genesis, 8, 0) };
    let claim = Claim::Holdings { address, entries, proof };
    ProofFile::new(genesis.cluster_id(), claim, certify(header, 0, &[1, 3]), committee(GROUP, 0))
}

/// What was given before there were proofs of all entries: the record of such an account alone.
pub fn record_proof(genesis: &Genesis, assets: u8) -> ProofFile {
    let (address, entries, mut tree) = holdings(assets);
    let proof = tree.prove(&schema::tree_position(&schema::account(&address)).unwrap()).unwrap();
    let header = Header { state_root: Hash32(tree.root()), ..header(genesis, 8, 0) };
    let claim = Claim::Account { address, record: Some(entries[0].value.clone()), proof };
    ProofFile::new(genesis.cluster_id(), claim, certify(header, 0, &[1, 3]), committee(GROUP, 0))
}

pub fn receipt_proof(genesis: &Genesis) -> ProofFile {
    let receipts: Vec<Receipt> = (0..5)
        .map(|index| Receipt {
            version: 1,
            txid: TxId(hash::sha256(&[index as u8])),
            group: GROUP,
            height: Height(8),
            index,
            time_ms: TimeMs(5),
            outcome: Outcome::Rejected(Reject::InsufficientFunds),
        })
        .collect();
    let leaves: Vec<Hash32> = receipts.iter().map(Receipt::leaf).collect();
    let claim =
        Claim::Receipt { receipt: borsh::to_vec(&receipts[3]).unwrap(), path: merkle::prove(&leaves, 3).unwrap() };
    let header = Header { receipts_root: merkle::root(&leaves), ..header(genesis, 8, 0) };
    ProofFile::new(genesis.cluster_id(), claim, certify(header, 0, &[1, 2, 3]), committee(GROUP, 0))
}
