//! Keys of a group's database. The first byte is the name space; everything of an account lies
//! under its partition, so that a prefix split moves all of it.
//!
//! Only `STATE` keys are leaves of the state tree. Receipts are committed to by `receipts_root`,
//! mail by `outbox_root`, and what came from the beacon by `inbox_cursors_root`, since it follows
//! from the beacon's mail alone.

use crate::hash::{Hash32, sha256, tagged};
use crate::ids::{Address, AssetId, GroupId, Height, LedgerId, LockId, NodeId, TimeMs, TxId};
use crate::pair;
use crate::record::Grantee;
use crate::tree::BitPrefix;

/// Leaves of the state tree.
pub const STATE: u8 = b'S';
/// What came from the beacon: asset definitions, committees, the layout.
pub const SYSTEM: u8 = b'Y';
/// Outgoing mail: destination, sequence number.
pub const MAIL: u8 = b'M';
/// Stream heads and cursors.
pub const STREAM: u8 = b'U';
/// Headers by height.
pub const HEADER: u8 = b'H';
/// Block bodies: receipts of a block, by height.
pub const BLOCK: u8 = b'B';
/// Transaction id to height and index.
pub const RECEIPT: u8 = b'R';
/// An account's history: partition, height, index.
pub const HISTORY: u8 = b'J';
/// Certificates by height. Node-local, gathered later, not part of the replicated state.
pub const CERTIFICATE: u8 = b'C';
/// What a node has found out by itself about the chain. Node-local, as certificates are.
pub const NODE: u8 = b'N';
/// The applied position and the group's running totals.
pub const META: u8 = b'X';
/// What a group knows of a transaction that several groups vote on, by transaction id.
pub const PREPARED: u8 = b'P';
/// Deadlines of prepared transactions, in order of time.
pub const DEADLINE: u8 = b'Q';
/// Registry of the beacon.
pub const REGISTRY: u8 = b'G';
/// Mail of streams that are not written any more, and of which it is not known yet how far they were taken: source,
/// destination, sequence number.
pub const CLOSED_MAIL: u8 = b'K';
/// What a shard has inherited of the chain of a shard that it was joined from, where its own keys are taken: group, and
/// the key there.
pub const ARCHIVE: u8 = b'A';

/// Kind byte of an account record.
pub const KIND_ACCOUNT: u8 = 1;
/// Kind byte of a balance beyond those in the record.
pub const KIND_BALANCE: u8 = 2;
/// Kind byte of an issuer's supply counter.
pub const KIND_SUPPLY: u8 = 3;

/// Kind byte of a vote register.
pub const KIND_REGISTER: u8 = 4;
/// Kind byte of the claims of undecided transactions, other than holds.
pub const KIND_CLAIMS: u8 = 5;
/// Kind byte of a restriction: what the issuer froze, and what arrived meanwhile.
pub const KIND_RESTRICTION: u8 = 6;
/// Kind byte of an entry of account data.
pub const KIND_DATA: u8 = 7;
/// Kind byte of a spending limit.
pub const KIND_LIMIT: u8 = 8;
/// Kind byte of a hash-lock.
pub const KIND_LOCK: u8 = 9;
/// Kind byte of a record, and without its hash of the number of records.
pub const KIND_RECORD: u8 = 10;
/// Kind byte of what a party was granted of a record.
pub const KIND_GRANT: u8 = 11;
/// Kind byte of a pair account.
pub const KIND_PAIR: u8 = 12;

fn join(space: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(space);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

/// Key of an account record.
#[must_use]
pub fn account(address: &Address) -> Vec<u8> {
    join(STATE, &[&address.partition().0, &[KIND_ACCOUNT]])
}

/// Whether a key is that of an account record.
#[must_use]
pub fn is_account(key: &[u8]) -> bool {
    key.len() == 34 && key[0] == STATE && key[33] == KIND_ACCOUNT
}

/// Key of a balance that has no room in the record.
#[must_use]
pub fn extra_balance(address: &Address, asset: &AssetId) -> Vec<u8> {
    join(STATE, &[&address.partition().0, &[KIND_BALANCE], &asset.0])
}

/// Key of the supply that an issuer has created.
#[must_use]
pub fn supply(issuer: &Address, asset: &AssetId) -> Vec<u8> {
    join(STATE, &[&issuer.partition().0, &[KIND_SUPPLY], &asset.0])
}

/// Prefix of every state key of an account.
#[must_use]
pub fn of_account(address: &Address) -> Vec<u8> {
    join(STATE, &[&address.partition().0])
}

/// The subtree that everything of an account lies in, and, as long as nobody finds two addresses
/// whose partitions begin with the same 128 bits, nothing else.
#[must_use]
pub fn subtree_of(address: &Address) -> BitPrefix {
    let mut position = [0; 32];
    position[..16].copy_from_slice(&address.partition().0[..16]);
    BitPrefix::of(&position, 128).expect("a position has more bits")
}

/// Key of an account's vote register on a transaction.
#[must_use]
pub fn register(account: &Address, txid: &TxId) -> Vec<u8> {
    join(STATE, &[&account.partition().0, &[KIND_REGISTER], &txid.0.0])
}

/// Key of an account's claims.
#[must_use]
pub fn claims(account: &Address) -> Vec<u8> {
    join(STATE, &[&account.partition().0, &[KIND_CLAIMS]])
}

/// Key of the restriction of an account's holdings of an asset.
#[must_use]
pub fn restriction(account: &Address, asset: &AssetId) -> Vec<u8> {
    join(STATE, &[&account.partition().0, &[KIND_RESTRICTION], &asset.0])
}

/// Key of an entry of an account's data.
#[must_use]
pub fn data(account: &Address, key: &[u8]) -> Vec<u8> {
    join(STATE, &[&account.partition().0, &[KIND_DATA], key])
}

/// Prefix of an account's data.
#[must_use]
pub fn data_prefix(account: &Address) -> Vec<u8> {
    join(STATE, &[&account.partition().0, &[KIND_DATA]])
}

/// Key of an account's spending limit of an asset.
#[must_use]
pub fn limit(account: &Address, asset: &AssetId) -> Vec<u8> {
    join(STATE, &[&account.partition().0, &[KIND_LIMIT], &asset.0])
}

/// Key of a hash-lock of an account.
#[must_use]
pub fn lock(account: &Address, id: &LockId) -> Vec<u8> {
    join(STATE, &[&account.partition().0, &[KIND_LOCK], &id.0.0])
}

/// Key of the number of records of an account.
#[must_use]
pub fn record_count(owner: &Address) -> Vec<u8> {
    join(STATE, &[&owner.partition().0, &[KIND_RECORD]])
}

/// Key of a record of an account.
#[must_use]
pub fn record(owner: &Address, hash: &Hash32) -> Vec<u8> {
    join(STATE, &[&owner.partition().0, &[KIND_RECORD], &hash.0])
}

/// Key of what a party was granted of a record of an account.
#[must_use]
pub fn grant(owner: &Address, record: &Hash32, who: &Grantee) -> Vec<u8> {
    let (kind, name) = match who {
        Grantee::Account(address) => (0, address.0.to_vec()),
        Grantee::Org(org) => (1, org.0.to_be_bytes().to_vec()),
    };
    join(STATE, &[&owner.partition().0, &[KIND_GRANT], &record.0, &[kind], &name])
}

/// Key of the pair account with a peer ledger.
#[must_use]
pub fn pair(peer: LedgerId, asset: &AssetId) -> Vec<u8> {
    join(STATE, &[&pair::address(peer, asset).partition().0, &[KIND_PAIR]])
}

/// Position of a `STATE` key in the state tree: `partition[..16] ‖ sha256(key)[..16]`, or `None`
/// for a key of another name space.
#[must_use]
pub fn tree_position(key: &[u8]) -> Option<[u8; 32]> {
    if key.len() < 33 || key[0] != STATE {
        return None;
    }
    let mut position = [0; 32];
    position[..16].copy_from_slice(&key[1..17]);
    position[16..].copy_from_slice(&sha256(&key[1..]).0[..16]);
    Some(position)
}

/// Key of an asset definition.
#[must_use]
pub fn asset(id: &AssetId) -> Vec<u8> {
    join(SYSTEM, &[b"asset/", &id.0])
}

/// Key of the committee with this hash.
#[must_use]
pub fn committee(group: GroupId, hash: &Hash32) -> Vec<u8> {
    join(SYSTEM, &[b"committee/", &group.0.to_be_bytes(), &hash.0])
}

/// Prefix of the committees in force, of every group that is known.
pub const CURRENT_COMMITTEES_PREFIX: &[u8] = b"Ycurrent/";
/// Prefix of all committees that are known, in force or not.
pub const COMMITTEES_PREFIX: &[u8] = b"Ycommittee/";

/// Key of a group's committee in force.
#[must_use]
pub fn current_committee(group: GroupId) -> Vec<u8> {
    join(SYSTEM, &[b"current/", &group.0.to_be_bytes()])
}

/// Key of the committee that the group itself is being prepared for.
#[must_use]
pub fn coming_committee() -> Vec<u8> {
    join(SYSTEM, &[b"coming"])
}

/// Prefix of the blocks after which another committee signs, in order: see [`handover`].
pub const HANDOVER_PREFIX: &[u8] = b"Xhandover/";

/// Key of a block whose header names another committee for the next one; the last that the committee
/// before certifies.
#[must_use]
pub fn handover(height: Height) -> Vec<u8> {
    join(META, &[b"handover/", &height.0.to_be_bytes()])
}

/// The block that a key of [`handover`] names.
#[must_use]
pub fn handover_of(key: &[u8]) -> Option<Height> {
    let bytes: [u8; 8] = key.strip_prefix(HANDOVER_PREFIX)?.try_into().ok()?;
    Some(Height(u64::from_be_bytes(bytes)))
}

/// Prefix of the anchors of channels, by channel.
pub const ANCHORS_PREFIX: &[u8] = b"Yanchors/";

/// Key of the anchors of a channel, as the beacon has told them. One without anchors has no such record.
#[must_use]
pub fn anchors(channel: GroupId) -> Vec<u8> {
    join(SYSTEM, &[b"anchors/", &channel.0.to_be_bytes()])
}

/// Key of the layout in force.
#[must_use]
pub fn layout() -> Vec<u8> {
    join(SYSTEM, &[b"layout"])
}

/// Key of the seal that is in force ([`crate::lineage::SealedBy`]); absent where none is.
#[must_use]
pub fn sealed() -> Vec<u8> {
    join(SYSTEM, &[b"sealed"])
}

/// Key of how the group began, where others were cut or joined into it ([`crate::lineage::Origin`]); absent in a group
/// that began at height 0.
#[must_use]
pub fn origin() -> Vec<u8> {
    join(META, &[b"origin"])
}

/// Key of what a group has inherited from another one's chain under `key`.
#[must_use]
pub fn archived(group: GroupId, key: &[u8]) -> Vec<u8> {
    join(ARCHIVE, &[&group.0.to_be_bytes(), key])
}

/// Key of what a channel knows of the beacon's registry.
#[must_use]
pub fn registry_extract() -> Vec<u8> {
    join(SYSTEM, &[b"registry"])
}

/// Key of the head of a channel's sealed value flows: a leaf of the state tree, in a partition that no
/// account has.
#[must_use]
pub fn flow_head() -> Vec<u8> {
    join(STATE, &[&tagged(b"seamark/flow-head/v1", &[]).0, &[KIND_FLOW_HEAD]])
}

/// Key of the value flow of a channel's block, and what it was sealed with.
#[must_use]
pub fn sealed_flow(height: Height) -> Vec<u8> {
    join(FLOW, &[&height.0.to_be_bytes()])
}

/// Key of what the value flow of a channel's next block is salted with.
#[must_use]
pub fn flow_salt() -> Vec<u8> {
    join(META, &[b"flow-salt"])
}

/// Key of what the beacon's state says of a group that it founded ([`crate::FoundedGroup`]): a leaf of the
/// state tree, in a partition that no account has. Written once and never removed.
#[must_use]
pub fn founded(group: GroupId) -> Vec<u8> {
    join(STATE, &[&tagged(b"seamark/founded/v1", &[]).0, &[KIND_FOUNDED], &group.0.to_be_bytes()])
}

/// Key of what the beacon's state says of a shard that others were cut or joined into
/// ([`crate::lineage::BornShard`]): a leaf of the state tree, in a partition that no account has. Written once and never
/// removed.
#[must_use]
pub fn born(group: GroupId) -> Vec<u8> {
    join(STATE, &[&tagged(b"seamark/born/v1", &[]).0, &[KIND_BORN], &group.0.to_be_bytes()])
}

/// Prefix of the evidence that a group keeps: leaves of the state tree, in a partition that no account has, under the
/// prefix of the tree that the group owns ([`crate::layout::BitPrefix::ALL`] where it is not a shard).
#[must_use]
pub fn evidence(owned: crate::layout::BitPrefix) -> Vec<u8> {
    let mut partition = tagged(b"seamark/evidence/v1", &[]).0;
    let mut head = [0; 8];
    head.copy_from_slice(&partition[..8]);
    let mask = u64::MAX.checked_shl(64u32.saturating_sub(u32::from(owned.length))).unwrap_or(0);
    let head = (u64::from_be_bytes(head) & !mask) | (owned.bits & mask);
    partition[..8].copy_from_slice(&head.to_be_bytes());
    join(STATE, &[&partition, &[KIND_EVIDENCE]])
}

/// Prefix of the evidence against a member of a committee; the name of the proof
/// ([`crate::Equivocation::id`]) follows.
#[must_use]
pub fn evidence_of(owned: crate::layout::BitPrefix, group: GroupId, committee: &Hash32, node: NodeId) -> Vec<u8> {
    let mut key = evidence(owned);
    key.extend_from_slice(&group.0.to_be_bytes());
    key.extend_from_slice(&committee.0);
    key.extend_from_slice(&node.0.to_be_bytes());
    key
}

/// Key of one outgoing message.
#[must_use]
pub fn mail(dest: GroupId, seq: u64) -> Vec<u8> {
    join(MAIL, &[&dest.0.to_be_bytes(), &seq.to_be_bytes()])
}

/// Key of the head of the stream to a destination.
#[must_use]
pub fn outbox(dest: GroupId) -> Vec<u8> {
    join(STREAM, &[b"out/", &dest.0.to_be_bytes()])
}

/// Key of the cursor into a source's stream.
#[must_use]
pub fn inbox(source: GroupId) -> Vec<u8> {
    join(STREAM, &[b"in/", &source.0.to_be_bytes()])
}

/// Key of a stream that is not written any more, of this group or inherited.
#[must_use]
pub fn closed(source: GroupId, dest: GroupId) -> Vec<u8> {
    join(STREAM, &[b"end/", &source.0.to_be_bytes(), &dest.0.to_be_bytes()])
}

/// Source and destination of a closed stream's key.
#[must_use]
pub fn closed_of(key: &[u8]) -> Option<(GroupId, GroupId)> {
    let rest: &[u8; 16] = key.strip_prefix(CLOSED_PREFIX)?.try_into().ok()?;
    let (source, dest) = rest.split_at(8);
    let id = |bytes: &[u8]| Some(GroupId(u64::from_be_bytes(bytes.try_into().ok()?)));
    Some((id(source)?, id(dest)?))
}

/// Key of one message of a stream that is not written any more.
#[must_use]
pub fn closed_mail(source: GroupId, dest: GroupId, seq: u64) -> Vec<u8> {
    join(CLOSED_MAIL, &[&source.0.to_be_bytes(), &dest.0.to_be_bytes(), &seq.to_be_bytes()])
}

/// Prefix of all streams that are not written any more.
pub const CLOSED_PREFIX: &[u8] = b"Uend/";
/// Prefix of all heads of outgoing streams.
pub const OUTBOX_PREFIX: &[u8] = b"Uout/";
/// Prefix of all incoming cursors.
pub const INBOX_PREFIX: &[u8] = b"Uin/";

/// Key of a header.
#[must_use]
pub fn header(height: Height) -> Vec<u8> {
    join(HEADER, &[&height.0.to_be_bytes()])
}

/// Key of the receipts of a block.
#[must_use]
pub fn block(height: Height) -> Vec<u8> {
    join(BLOCK, &[&height.0.to_be_bytes()])
}

/// Key of a certificate.
#[must_use]
pub fn certificate(height: Height) -> Vec<u8> {
    join(CERTIFICATE, &[&height.0.to_be_bytes()])
}

/// Key of a transaction's place in the chain.
#[must_use]
pub fn receipt(txid: &TxId) -> Vec<u8> {
    join(RECEIPT, &[&txid.0.0])
}

/// Key of what the group knows of a transaction that several groups vote on.
#[must_use]
pub fn prepared(txid: &TxId) -> Vec<u8> {
    join(PREPARED, &[&txid.0.0])
}

/// Key of a deadline of a prepared transaction.
#[must_use]
pub fn deadline(at: TimeMs, txid: &TxId) -> Vec<u8> {
    join(DEADLINE, &[&at.0.to_be_bytes(), &txid.0.0])
}

/// Key below all deadlines at or after a time.
#[must_use]
pub fn deadline_from(at: TimeMs) -> Vec<u8> {
    join(DEADLINE, &[&at.0.to_be_bytes()])
}

/// The time and the transaction of a deadline's key.
#[must_use]
pub fn deadline_of(key: &[u8]) -> Option<(TimeMs, TxId)> {
    let rest: &[u8; 40] = key.strip_prefix(&[DEADLINE])?.try_into().ok()?;
    let (at, txid) = rest.split_at(8);
    Some((TimeMs(u64::from_be_bytes(at.try_into().ok()?)), TxId(Hash32(txid.try_into().ok()?))))
}

/// Key of the time up to which deadlines have been dealt with.
#[must_use]
pub fn swept() -> Vec<u8> {
    join(META, &[b"swept"])
}

/// Key of one line of an account's history.
#[must_use]
pub fn history(address: &Address, height: Height, index: u32) -> Vec<u8> {
    join(HISTORY, &[&address.partition().0, &height.0.to_be_bytes(), &index.to_be_bytes()])
}

/// Prefix of an account's history.
#[must_use]
pub fn history_prefix(address: &Address) -> Vec<u8> {
    join(HISTORY, &[&address.partition().0])
}

/// Key of the applied position: the last block and the consensus log id.
#[must_use]
pub fn applied() -> Vec<u8> {
    join(META, &[b"applied"])
}

/// Key of where the engine in force took over from another one; absent while there was none before it.
#[must_use]
pub fn engine_start() -> Vec<u8> {
    join(META, &[b"engine"])
}

/// Key of a group's total of an asset.
#[must_use]
pub fn total(asset: &AssetId) -> Vec<u8> {
    join(META, &[b"total/", &asset.0])
}

/// Key of a group's undecided synchronous debits of an asset.
#[must_use]
pub fn sync_debits(asset: &AssetId) -> Vec<u8> {
    join(META, &[b"sync/", &asset.0])
}

/// Key of the sequenced bytes of a block.
#[must_use]
pub fn entry(height: Height) -> Vec<u8> {
    join(ENTRY, &[&height.0.to_be_bytes()])
}

/// Value flows of a channel's blocks, by height. Its headers show none.
pub const FLOW: u8 = b'F';
/// Kind byte of the head of sealed value flows.
pub const KIND_FLOW_HEAD: u8 = 0xD0;
/// Kind byte of a proof that a member of a committee has voted twice.
pub const KIND_EVIDENCE: u8 = 0xD1;
/// Kind byte of a group that the beacon founded.
pub const KIND_FOUNDED: u8 = 0xF2;
/// Kind byte of a shard that others were cut or joined into.
pub const KIND_BORN: u8 = 0xF4;

/// Name space of the sequenced bytes of each block.
pub const ENTRY: u8 = b'E';
