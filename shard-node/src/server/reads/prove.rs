//! Answers with a proof: what was read, the path from it to a root, and a certificate of the header with
//! that root.
//!
//! Owns that these are of one block: entries and path are those of one height, and it is the certificate of
//! that height which is waited for.

use std::time::Duration;

use beacon::epochs::EPOCH_PROOF_FORMAT;
use beacon::{ClusterView, EpochProof, registry};
use bytes::Bytes;
use channel::ExclusionReceipt;
use client::admins::ADMINS_FORMAT;
use client::descent::{BornProof, FoundedProof, Handover};
use client::evidence::EVIDENCE_FORMAT;
use client::proof::{Claim, ProofFile};
use client::{AdminsProof, EntryName, EvidenceFile, ExclusionFile};
use ledger::account::AccountRecord;
use ledger::evidence;
use ledger::ids::{Address, GroupId, Height, OrgId, TimeMs, TxId};
use ledger::lineage::{Origin, Segment};
use ledger::receipt::Receipt;
use ledger::reject::Reject;
use ledger::tree::{BitPrefix, TreeProof};
use ledger::view::{ReadFault, StateReader};
use ledger::{BornShard, Certificate, Committee, FoundedGroup, Hash32, merkle, schema};
use parking_lot::Mutex;
use proto::v1;
use storage::Kv;

use super::{Failure, add_extra_balances, aside, closed, decoded, encoded, entries, load, refuse, viewed};
use crate::server::group::GroupHandle;
use crate::server::halt::Halt;
use crate::server::membership;
use crate::server::replica::{Stand, ViewReader};

/// How long a proof waits for the certificate of its block.
const CERTIFICATE_WITHIN: Duration = Duration::from_secs(3);
/// Between two looks for the certificate of a block of a shard that has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Whose blocks they are, and where they stand here: those of the group itself, or of one that it came from.
struct Chain<'a> {
    handle: &'a GroupHandle,
    group: GroupId,
    /// They stand under the keys of [`schema::archived`].
    archived: bool,
    /// The first and the last of them; of the group itself they go on.
    from: Height,
    to: Height,
}

impl<'a> Chain<'a> {
    /// The group's own.
    fn own(handle: &'a GroupHandle) -> Result<Self, Failure> {
        let from = membership::first_block(handle)?;
        Ok(Self { handle, group: handle.group, archived: false, from, to: Height(u64::MAX) })
    }

    /// That of a group.
    fn of(handle: &'a GroupHandle, group: GroupId) -> Result<Self, Failure> {
        if group == handle.group {
            return Self::own(handle);
        }
        let origin: Option<Origin> = handle.share.state.load(&schema::origin())?;
        let origin = origin.ok_or_else(|| refuse(Reject::WrongShard))?;
        let in_part = |part: &[Segment]| part.iter().find(|segment| segment.group == group).copied();
        let (segment, archived) = match (in_part(&origin.spine), in_part(&origin.archived)) {
            (Some(segment), _) => (segment, false),
            (None, Some(segment)) => (segment, true),
            (None, None) => return Err(refuse(Reject::OutcomePruned)),
        };
        Ok(Self { handle, group, archived, from: segment.from, to: segment.to })
    }

    fn key(&self, plain: Vec<u8>) -> Vec<u8> {
        if self.archived { schema::archived(self.group, &plain) } else { plain }
    }

    /// The certificate of a block: kept already, or completed within moments.
    async fn certificate(&self, height: Height) -> Result<Certificate, Failure> {
        let handle = self.handle;
        let mut certified = handle.certified.clone();
        let mut asked = false;
        let wait = async {
            loop {
                let latest = certified.borrow_and_update().as_ref().map(|latest| latest.header.height);
                let kept: Option<Certificate> = handle.share.state.load(&self.key(schema::certificate(height)))?;
                if let Some(certificate) = kept {
                    return Ok(certificate);
                }
                if self.group != handle.group {
                    // The shard that has ended passes on what it still gathers, as long as it is here.
                    tokio::time::sleep(LOOK_AGAIN).await;
                    continue;
                }
                // Later blocks are certified here: this certificate was missed, and comes when asked for.
                if !asked && latest.is_some_and(|latest| latest > height) {
                    asked = true;
                    handle.want_certificate(height);
                }
                if certified.changed().await.is_err() {
                    return Err(refuse(Reject::GroupStopped));
                }
            }
        };
        tokio::time::timeout(CERTIFICATE_WITHIN, wait).await.unwrap_or_else(|_| Err(refuse(Reject::Behind)))
    }

    /// The blocks after which another committee signs.
    fn handovers(&self) -> Result<Vec<Height>, ReadFault> {
        let mut blocks = membership::handovers_under(self.handle, &self.key(schema::HANDOVER_PREFIX.to_vec()))?;
        blocks.retain(|height| self.from <= *height && *height <= self.to);
        Ok(blocks)
    }

    /// The steps from the group's first committee to the one that certified this height.
    async fn steps(&self, upto: Height) -> Result<Vec<Handover>, Failure> {
        let mut steps = Vec::new();
        for height in self.handovers()?.into_iter().filter(|height| *height < upto) {
            let certificate = self.certificate(height).await?;
            let committee = committee(self.handle, &certificate)?;
            steps.push(Handover { committee, certificate });
        }
        Ok(steps)
    }
}

/// The certificate of one of the group's own blocks.
async fn certificate(handle: &GroupHandle, height: Height) -> Result<Certificate, Failure> {
    Chain::own(handle)?.certificate(height).await
}

/// The committee that a header names.
fn committee(handle: &GroupHandle, certificate: &Certificate) -> Result<Committee, Failure> {
    let header = &certificate.header;
    let committee = handle.share.state.load(&schema::committee(header.group, &header.committee_hash))?;
    committee.ok_or_else(|| Failure::Fault(ReadFault("the committee of a header is missing".into())))
}

/// The steps from the first committee of a header's group to the one that certified it.
async fn chain(handle: &GroupHandle, certificate: &Certificate) -> Result<Vec<Handover>, Failure> {
    let header = &certificate.header;
    Chain::of(handle, header.group)?.steps(header.height).await
}

async fn proved(
    handle: &GroupHandle,
    certificate: Certificate,
    claim: Claim,
    value: Option<Bytes>,
) -> Result<v1::QueryReply, Failure> {
    let committee = committee(handle, &certificate)?;
    let handovers = chain(handle, &certificate).await?;
    let file = ProofFile { handovers, ..ProofFile::new(certificate.header.cluster, claim, certificate, committee) };
    Ok(v1::QueryReply {
        group: handle.group.0,
        height: file.certificate.header.height.0,
        found: value.is_some(),
        values: value.into_iter().collect(),
        proof: encoded(&file),
        ..v1::QueryReply::default()
    })
}

/// An entry of the state with its path, both of one block.
struct Caught<'a> {
    /// What the state holds as of that block.
    reader: ViewReader<'a>,
    height: Height,
    path: TreeProof,
    /// What the tree's root stands for.
    prefix: BitPrefix,
}

/// Catches tree and database at one block, while no other can be applied. What is read afterwards comes from
/// what was caught.
fn catch<'a>(db: &'a dyn Kv, stand: &Mutex<Stand>, halt: &Halt, key: &[u8]) -> Result<Caught<'a>, Failure> {
    let position = schema::tree_position(key).ok_or_else(|| refuse(Reject::Malformed))?;
    let mut stand = stand.lock();
    // After a failed write the tree may be ahead of the database.
    if let Some(reason) = halt.reason() {
        return Err(Failure::Refused(Reject::GroupStopped, reason, None));
    }
    let path = stand.tree.prove(&position).map_err(|_| refuse(Reject::WrongShard))?;
    Ok(Caught { reader: ViewReader::of(db), height: stand.applied.height, path, prefix: *stand.tree.prefix() })
}

/// That there is nothing of what was asked for, as the group stands now; not proved.
fn nothing(handle: &GroupHandle) -> v1::QueryReply {
    let height = handle.share.stand.lock().applied.height;
    v1::QueryReply { group: handle.group.0, height: height.0, ..v1::QueryReply::default() }
}

/// An account as of one block, and what proves it once the header of that block is certified.
pub(super) struct Standing {
    pub(super) height: Height,
    /// The encoded record with all balances; none where there is no such account.
    pub(super) record: Option<Bytes>,
    pub(super) claim: Claim,
}

/// Reads an account with its path.
pub(super) fn standing(db: &dyn Kv, stand: &Mutex<Stand>, halt: &Halt, address: Address) -> Result<Standing, Failure> {
    let key = schema::account(&address);
    let Caught { reader, height, path: proof, prefix } = catch(db, stand, halt, &key)?;
    let rest = proof.down_to(&prefix, &schema::subtree_of(&address));
    let (record, claim) = match (reader.get(&key)?, rest) {
        // Not the only entry of the account: all of them are proved together.
        (Some(bytes), Some(proof)) => {
            let entries = entries(&reader, &address, &[])?;
            let mut record: AccountRecord = decoded(&bytes)?;
            add_extra_balances(&mut record, &entries)?;
            (Some(encoded(&record)), Claim::Holdings { address, entries, proof })
        }
        (record, _) => {
            let bytes = record.as_ref().map(|bytes| bytes.to_vec());
            (record, Claim::Account { address, record: bytes, proof })
        }
    };
    Ok(Standing { height, record, claim })
}

/// An account, or that there is none, with a proof.
pub(super) async fn account(handle: &GroupHandle, address: Address) -> Result<v1::QueryReply, Failure> {
    let share = handle.share.clone();
    let read = move || standing(&*share.state.db().ok_or_else(closed)?, &share.stand, &share.halt, address);
    let Standing { height, record, claim } = aside(read).await?;
    let certificate = certificate(handle, height).await?;
    proved(handle, certificate, claim, record).await
}

/// What an account has under a name, or that it has nothing, with a proof.
pub(super) async fn entry(handle: &GroupHandle, address: Address, name: EntryName) -> Result<v1::QueryReply, Failure> {
    let share = handle.share.clone();
    let read = move || -> Result<_, Failure> {
        let (db, key) = (share.state.db().ok_or_else(closed)?, name.state_key(&address));
        let Caught { reader, height, path, .. } = catch(&*db, &share.stand, &share.halt, &key)?;
        let value = reader.get(&key)?;
        Ok((value, height, path))
    };
    let (value, height, proof) = aside(read).await?;
    let certificate = certificate(handle, height).await?;
    let bytes = value.as_ref().map(|bytes| bytes.to_vec());
    proved(handle, certificate, Claim::Entry { address, key: name.key(), value: bytes, proof }, value).await
}

/// With which committee a group began that this beacon founded. That it founded none is not proved.
pub(super) async fn founded(handle: &GroupHandle, group: GroupId) -> Result<v1::QueryReply, Failure> {
    let share = handle.share.clone();
    let read = move || -> Result<_, Failure> {
        let (db, key) = (share.state.db().ok_or_else(closed)?, schema::founded(group));
        let Caught { reader, height, path, .. } = catch(&*db, &share.stand, &share.halt, &key)?;
        let leaf: Option<FoundedGroup> = load(&reader, &key)?;
        Ok(leaf.map(|leaf| (leaf, height, path)))
    };
    let Some((leaf, height, path)) = aside(read).await? else { return Ok(nothing(handle)) };
    let certificate = certificate(handle, height).await?;
    let committee = committee(handle, &certificate)?;
    let handovers = chain(handle, &certificate).await?;
    let proof = FoundedProof { leaf, path, certificate, committee, handovers };
    Ok(v1::QueryReply { height: height.0, found: true, values: vec![encoded(&proof)], ..nothing(handle) })
}

/// The epochs that the beacon keeps. That it keeps none is not proved.
pub(super) async fn epochs(handle: &GroupHandle) -> Result<v1::QueryReply, Failure> {
    let share = handle.share.clone();
    let read = move || -> Result<_, Failure> {
        let (db, key) = (share.state.db().ok_or_else(closed)?, registry::epochs_key());
        let Caught { reader, height, path, .. } = catch(&*db, &share.stand, &share.halt, &key)?;
        let kept = viewed(&reader, |view| (beacon::epochs::records(view), beacon::epochs::deals(view)))?;
        Ok((kept, height, path))
    };
    let ((records, deals), height, path) = aside(read).await?;
    if records.is_empty() {
        return Ok(nothing(handle));
    }
    let certificate = certificate(handle, height).await?;
    let committee = committee(handle, &certificate)?;
    let handovers = chain(handle, &certificate).await?;
    let proof = EpochProof { version: EPOCH_PROOF_FORMAT, records, deals, path, certificate, committee, handovers };
    Ok(v1::QueryReply { height: height.0, found: true, values: vec![encoded(&proof)], ..nothing(handle) })
}

/// The admin key of every organisation, with the registry that it stands in, at a block of this time or later if the beacon
/// makes one in time: whoever asks judges how old an answer may be.
pub(super) async fn admins(handle: &GroupHandle, since: TimeMs) -> Result<v1::QueryReply, Failure> {
    if handle.group != GroupId::BEACON {
        return Ok(nothing(handle));
    }
    refreshed(handle, since).await;
    let share = handle.share.clone();
    let read = move || -> Result<_, Failure> {
        let (db, key) = (share.state.db().ok_or_else(closed)?, registry::head_key());
        let Caught { reader, height, path, .. } = catch(&*db, &share.stand, &share.halt, &key)?;
        // It appears with the first change. Before that the registry is that of the genesis, which everybody has.
        let changed = reader.get(&key)?.is_some();
        let registry = if changed { Some(ClusterView::read(&reader)?.encode()) } else { None };
        Ok((registry, height, path))
    };
    let (registry, height, path) = aside(read).await?;
    let certificate = certificate(handle, height).await?;
    let committee = committee(handle, &certificate)?;
    let handovers = chain(handle, &certificate).await?;
    let proof = AdminsProof { version: ADMINS_FORMAT, registry, path, certificate, committee, handovers };
    Ok(v1::QueryReply { height: height.0, found: true, values: vec![encoded(&proof)], ..nothing(handle) })
}

/// Waits until the last block is of this time or later, which a leader makes; no longer than a proof waits for its
/// certificate. Nobody certifies block 0.
async fn refreshed(handle: &GroupHandle, since: TimeMs) {
    let there = || {
        let stand = handle.share.stand.lock();
        stand.applied.height > Height(0) && stand.applied.time_ms >= since
    };
    if there() {
        return;
    }
    let mut certified = handle.certified.clone();
    handle.refresh();
    let wait = async { while !there() && certified.changed().await.is_ok() {} };
    let _ = tokio::time::timeout(CERTIFICATE_WITHIN, wait).await;
}

/// With which committee a shard began that others were cut or joined into. That there is none such is not proved.
pub(super) async fn born(handle: &GroupHandle, shard: GroupId) -> Result<v1::QueryReply, Failure> {
    let share = handle.share.clone();
    let read = move || -> Result<_, Failure> {
        let (db, key) = (share.state.db().ok_or_else(closed)?, schema::born(shard));
        let Caught { reader, height, path, .. } = catch(&*db, &share.stand, &share.halt, &key)?;
        let leaf: Option<BornShard> = load(&reader, &key)?;
        Ok(leaf.map(|leaf| (leaf, height, path)))
    };
    let Some((leaf, height, path)) = aside(read).await? else { return Ok(nothing(handle)) };
    let certificate = certificate(handle, height).await?;
    let committee = committee(handle, &certificate)?;
    let handovers = chain(handle, &certificate).await?;
    let proof = BornProof { leaf, path, certificate, committee, handovers };
    Ok(v1::QueryReply { height: height.0, found: true, values: vec![encoded(&proof)], ..nothing(handle) })
}

/// The newest exclusion of an organisation, as its receipt. That there is none is not proved.
pub(super) async fn exclusion(handle: &GroupHandle, org: OrgId) -> Result<v1::QueryReply, Failure> {
    let share = handle.share.clone();
    let read = move || -> Result<_, Failure> {
        let db = share.state.db().ok_or_else(closed)?;
        // None is ever removed, so the path can be caught afterwards.
        let known = viewed(&ViewReader::of(&*db), |view| channel::state::exclusions(view, org))?;
        let Some(newest) = known.last().copied() else { return Ok(None) };
        let key = channel::state::exclusion_key(org, newest.height);
        let Caught { height, path, .. } = catch(&*db, &share.stand, &share.halt, &key)?;
        Ok(Some((newest, height, path)))
    };
    let Some((newest, height, path)) = aside(read).await? else { return Ok(nothing(handle)) };
    let certificate = certificate(handle, height).await?;
    let committee = committee(handle, &certificate)?;
    let handovers = chain(handle, &certificate).await?;
    let file = ExclusionFile::new(ExclusionReceipt::new(newest, path, certificate), committee, handovers);
    Ok(v1::QueryReply { height: height.0, found: true, values: vec![encoded(&file)], ..nothing(handle) })
}

/// A proof that a member has voted twice, by its name, as a file. That there is none is not proved.
pub(super) async fn evidence(handle: &GroupHandle, id: Hash32) -> Result<v1::QueryReply, Failure> {
    let (share, group) = (handle.share.clone(), handle.group);
    let read = move || -> Result<_, Failure> {
        let db = share.state.db().ok_or_else(closed)?;
        let reader = ViewReader::of(&*db);
        // None is ever removed, so the path can be caught afterwards.
        let (owned, kept) = viewed(&reader, |view| {
            let owned = evidence::owned(view, group);
            (owned, evidence::kept(view, owned))
        })?;
        let Some(found) = kept.into_iter().find(|kept| kept.proof.id() == id) else { return Ok(None) };
        let ballot = &found.proof.first.ballot;
        let accused: Option<Committee> = load(&reader, &schema::committee(ballot.group, &ballot.committee))?;
        let accused = accused.ok_or_else(|| ReadFault("the committee of kept evidence is missing".into()))?;
        let key = client::evidence::state_key(owned, &found);
        let Caught { height, path, .. } = catch(&*db, &share.stand, &share.halt, &key)?;
        Ok(Some((found, accused, height, path)))
    };
    let Some((evidence, accused, height, path)) = aside(read).await? else { return Ok(nothing(handle)) };
    let certificate = certificate(handle, height).await?;
    let committee = committee(handle, &certificate)?;
    let handovers = chain(handle, &certificate).await?;
    let version = EVIDENCE_FORMAT;
    let (founded, born) = (None, None);
    let file = EvidenceFile { version, evidence, accused, path, certificate, committee, handovers, founded, born };
    Ok(v1::QueryReply { height: height.0, found: true, values: vec![encoded(&file)], ..nothing(handle) })
}

/// A receipt with a proof. That a group has none is not proved.
pub(super) async fn receipt(handle: &GroupHandle, txid: TxId) -> Result<v1::QueryReply, Failure> {
    let (state, here) = (handle.share.state.clone(), handle.group);
    let read = move || {
        let db = state.db().ok_or_else(closed)?;
        super::receipt(&ViewReader::of(&*db), here, &txid)
    };
    let Some((receipt, record)) = aside(read).await? else { return Ok(nothing(handle)) };
    // Of a receipt that was inherited the header is that of the shard that gave it.
    let certificate = Chain::of(handle, receipt.group)?.certificate(receipt.height).await?;
    let leaves: Vec<Hash32> = record.receipts.iter().map(Receipt::leaf).collect();
    let path = merkle::prove(&leaves, receipt.index as usize)
        .ok_or_else(|| Failure::Fault(ReadFault("a receipt is not in its block".into())))?;
    let bytes = encoded(&receipt);
    proved(handle, certificate, Claim::Receipt { receipt: bytes.to_vec(), path }, Some(bytes)).await
}
