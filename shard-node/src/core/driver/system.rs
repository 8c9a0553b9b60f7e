//! What a driver starts from, at the start and after a snapshot, as one moment of the state shows it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use cross_shard::InCursor;
use cross_shard::notice::AnchorsUpdate;
use cross_shard::stream::{self, OutStream, StreamLeaf};
use ledger::ballot::Equivocation;
use ledger::certificate::Certificate;
use ledger::committee::Committee;
use ledger::evidence;
use ledger::genesis::VerifyMode;
use ledger::hash::Hash32;
use ledger::header::Header;
use ledger::ids::{GroupId, Height, NodeId, TimeMs};
use ledger::lineage::{Origin, SealedBy};
use ledger::schema;
use ledger::view::{ReadFault, StateReader, View};

use crate::core::applied::AppliedRecord;
use crate::core::driver::Standstill;
use crate::core::driver::book::Committees;
use crate::core::driver::certify::WINDOW;
use crate::core::machine::next_deadline;
use crate::core::marks::Marks;
use crate::core::records::{BlockRecord, seal_shapes};

/// Everything that a driver knows from state.
#[derive(Clone, Debug)]
pub struct SystemView {
    /// All committees in force, of every group.
    pub committees: Committees,
    /// The last block.
    pub height: Height,
    /// Outgoing streams.
    pub outbox: Vec<OutboxView>,
    /// Cursors of incoming streams.
    pub inbox: Vec<(GroupId, InCursor)>,
    /// Recent blocks, oldest first: the last one, and those before it that have no certificate here.
    pub recent: Vec<RecentBlock>,
    /// The highest certificate that is kept here.
    pub certified: Option<CertifiedBlock>,
    /// The blocks of the beacon that hand over to another committee, with their certificates, ascending: as many as prove
    /// mail that somebody has not taken.
    pub handovers: Vec<CertifiedBlock>,
    /// Client signatures are checked up to here: by this node, or by a quorum that certified.
    pub checked: Height,
    /// The lowest block that this node found to carry a signature that does not hold.
    pub forged: Option<Height>,
    /// The block at which another node's snapshot was installed last.
    pub installed: Option<Height>,
    /// The earliest deadline in state.
    pub next_deadline: Option<TimeMs>,
    /// Proofs that members have voted twice, as the state keeps them.
    pub evidence: Vec<Equivocation>,
    /// The seal in force.
    pub sealed: Option<Standstill>,
}

/// An outgoing stream as read from state.
#[derive(Clone, Debug)]
pub struct OutboxView {
    /// Its head.
    pub leaf: StreamLeaf,
    /// Everything below has been acknowledged.
    pub acked: u64,
    /// The messages from `acked` to the head.
    pub messages: Vec<Bytes>,
}

/// A block, with the heads that its header commits to where they may still be needed.
#[derive(Clone, Debug)]
pub struct RecentBlock {
    /// Its header.
    pub header: Arc<Header>,
    /// The header's hash.
    pub hash: Hash32,
    /// Heads of its outgoing streams.
    pub outbox: Vec<StreamLeaf>,
    /// Cursors of its incoming streams.
    pub inbox: Vec<StreamLeaf>,
}

/// A certificate, with the heads that its header commits to.
#[derive(Clone, Debug)]
pub struct CertifiedBlock {
    /// The certificate.
    pub certificate: Certificate,
    /// Heads of the outgoing streams.
    pub outbox: Vec<StreamLeaf>,
    /// Cursors of the incoming streams.
    pub inbox: Vec<StreamLeaf>,
}

impl SystemView {
    /// Reads it. All of it must come from one moment: give a view that nothing is applied to.
    ///
    /// # Errors
    /// [`ReadFault`] when the database fails, or lacks what every state has.
    pub fn read(reader: &dyn StateReader, group: GroupId, verify: VerifyMode) -> Result<Self, ReadFault> {
        let mut view = View::new(reader);
        let read = Self::of(&mut view, group, verify);
        // A fault makes everything absent; it says more than what was found missing because of it.
        match view.fault() {
            Some(fault) => Err(fault.clone()),
            None => read,
        }
    }

    fn of(view: &mut View<'_>, group: GroupId, verify: VerifyMode) -> Result<Self, ReadFault> {
        let applied: AppliedRecord = view.load(&schema::applied()).ok_or_else(|| missing("applied position"))?;
        let (outbox, inbox) = streams(view)?;
        let committees = committees(view);
        let origin: Option<Origin> = view.load(&schema::origin());
        let first = origin.map(|origin| origin.first).unwrap_or_default();
        let (recent, certified) = recent(view, group, &applied, first)?;
        let handovers = match group == GroupId::BEACON {
            true => handovers(view, &outbox)?,
            false => Vec::new(),
        };
        let marks = Marks::read(view);
        let quorum = certified.as_ref().map(|certified| certified.certificate.header.height);
        let checked = match verify {
            VerifyMode::Ingest => applied.height,
            VerifyMode::Every => marks.checked.max(quorum).unwrap_or_default().max(first).min(applied.height),
        };
        let Marks { forged, installed, .. } = marks;
        // What parents had is checked: their committees have certified it. And a state that came from another node before
        // this shard began is that of a parent, so the first block here follows from a certified one, too.
        let installed = installed.filter(|height| *height >= first);
        let next_deadline = next_deadline(view, group, applied.time_ms);
        let by: Option<SealedBy> = view.load(&schema::sealed());
        let sealed = by.map(|by| Standstill { by, shapes: view.load(&seal_shapes()).unwrap_or_default() });
        let owned = evidence::owned(view, group);
        let evidence = evidence::kept(view, owned).into_iter().map(|kept| kept.proof).collect();
        let height = applied.height;
        Ok(Self {
            committees,
            height,
            outbox,
            inbox,
            recent,
            certified,
            handovers,
            checked,
            forged,
            installed,
            next_deadline,
            evidence,
            sealed,
        })
    }
}

fn missing(what: &str) -> ReadFault {
    ReadFault(format!("the state holds no {what}"))
}

/// The committees that this group knows.
#[must_use]
pub fn committees(view: &mut View<'_>) -> Committees {
    // A record that does not decode is a fault of the view and stops the group.
    let mut all = |prefix: &[u8]| -> Vec<Committee> {
        let keys = view.scan_prefix(prefix);
        keys.into_iter().filter_map(|(key, _)| view.load(&key)).collect()
    };
    let current = all(schema::CURRENT_COMMITTEES_PREFIX);
    let mut former = all(schema::COMMITTEES_PREFIX);
    former.retain(|known| !current.contains(known));
    let applied: Option<AppliedRecord> = view.load(&schema::applied());
    let height = applied.map(|applied| applied.height).unwrap_or_default();
    Committees { current, former, coming: view.load(&schema::coming_committee()), anchors: anchors(view), height }
}

fn anchors(view: &mut View<'_>) -> BTreeMap<GroupId, Vec<NodeId>> {
    let keys = view.scan_prefix(schema::ANCHORS_PREFIX);
    let told = keys.into_iter().filter_map(|(key, _)| view.load::<AnchorsUpdate>(&key));
    told.map(|update| (update.channel, update.anchors)).collect()
}

/// The streams of a group, outgoing ones and cursors of incoming ones.
///
/// # Errors
/// [`ReadFault`] when the database lacks a message that has to be there.
pub fn streams(view: &mut View<'_>) -> Result<(Vec<OutboxView>, Vec<(GroupId, InCursor)>), ReadFault> {
    let outbox = outbox(view)?;
    Ok((outbox, stream::inbox_cursors(view)))
}

fn outbox(view: &mut View<'_>) -> Result<Vec<OutboxView>, ReadFault> {
    let leaves = stream::outbox_leaves(view);
    let mut outbox = Vec::with_capacity(leaves.len());
    for leaf in leaves {
        let head: OutStream = stream::out_stream(view, leaf.peer);
        let mut messages = Vec::new();
        for seq in head.acked..head.next_seq {
            let message = view.get(&schema::mail(leaf.peer, seq));
            messages.push(message.ok_or_else(|| missing(&format!("message {seq} to {}", leaf.peer)))?);
        }
        outbox.push(OutboxView { leaf, acked: head.acked, messages });
    }
    Ok(outbox)
}

/// The blocks that may still be attested, and the highest certificate among the last [`WINDOW`]
/// blocks. A certificate may have come with a snapshot, so it is judged before it counts. Blocks before the first one of
/// a shard are its parents': nobody signs them here.
fn recent(
    view: &mut View<'_>,
    group: GroupId,
    applied: &AppliedRecord,
    first: Height,
) -> Result<(Vec<RecentBlock>, Option<CertifiedBlock>), ReadFault> {
    let last = applied.height;
    let (mut blocks, mut certified) = (Vec::new(), None::<CertifiedBlock>);
    for height in (last.0.saturating_sub(WINDOW).max(first.0)..=last.0).rev().map(Height) {
        let kept = view.get(&schema::certificate(height)).is_some();
        if kept && certified.is_some() {
            continue;
        }
        let header: Header =
            view.load(&schema::header(height)).ok_or_else(|| missing(&format!("header of block {height}")))?;
        let hash = header.hash();
        // Below a certificate nobody needs the heads any more: a later header commits to as much.
        let heads: BlockRecord = match certified {
            None => view.load(&schema::block(height)).ok_or_else(|| missing(&format!("record of block {height}")))?,
            Some(_) => BlockRecord::default(),
        };
        let BlockRecord { outbox, inbox, .. } = heads;
        if kept && let Some(certificate) = judged(view, group, height, &header) {
            certified = Some(CertifiedBlock { certificate, outbox: outbox.clone(), inbox: inbox.clone() });
            if height != last {
                continue;
            }
        }
        blocks.push(RecentBlock { header: Arc::new(header), hash, outbox, inbox });
    }
    blocks.reverse();
    match blocks.last() {
        Some(block) if block.hash != applied.header_hash => Err(missing("header that its last block was made of")),
        _ => Ok((blocks, certified)),
    }
}

/// The certified blocks of the beacon behind which another committee certifies, where they prove mail that is still kept. A
/// certificate that is missing here others have.
fn handovers(view: &mut View<'_>, outbox: &[OutboxView]) -> Result<Vec<CertifiedBlock>, ReadFault> {
    let mut found = Vec::new();
    for (key, _) in view.scan_prefix(schema::HANDOVER_PREFIX) {
        let Some(height) = schema::handover_of(&key) else { continue };
        let block: Option<BlockRecord> = view.load(&schema::block(height));
        let BlockRecord { outbox: heads, inbox, .. } = block.ok_or_else(|| missing("record of a block"))?;
        // A stream that is not there any more was that to a retired shard: what nobody has taken of it is in others.
        let lacks =
            |leaf: &StreamLeaf| outbox.iter().any(|line| line.leaf.peer == leaf.peer && line.acked < leaf.next_seq);
        if !heads.iter().any(lacks) {
            continue;
        }
        let header: Option<Header> = view.load(&schema::header(height));
        let header = header.ok_or_else(|| missing("header of a block"))?;
        if let Some(certificate) = judged(view, GroupId::BEACON, height, &header) {
            found.push(CertifiedBlock { certificate, outbox: heads, inbox });
        }
    }
    Ok(found)
}

fn judged(view: &mut View<'_>, group: GroupId, height: Height, header: &Header) -> Option<Certificate> {
    let certificate: Certificate = view.load(&schema::certificate(height))?;
    let committee: Committee = view.load(&schema::committee(group, &header.committee_hash))?;
    (certificate.header == *header && certificate.verify(&committee).is_ok()).then_some(certificate)
}

#[cfg(test)]
#[path = "system_tests.rs"]
mod tests;
