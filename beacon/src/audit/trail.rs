//! Trails: the headers of a group from the audited one on, and a certificate of the last.
//!
//! Each header names the hash of the one before it, so the one certificate at the end binds all of them: no header in
//! between needs signatures. The beacon checks that a trail leads on from where the group is audited, adds up what the
//! headers say of value, and keeps where the streams stand at its end. Where they are many, not every trail shows them:
//! [`rounds`] says which does.

use borsh::{BorshDeserialize, BorshSerialize};
use cross_shard::stream::{self, StreamLeaf};
use ledger::certificate::Certificate;
use ledger::hash::Hash32;
use ledger::header::{HEADER_VERSION, Header};
use ledger::ids::{ClusterId, GroupId, GroupKind, Height, Incarnation, TimeMs};
use ledger::limits::PEERS_MAX;
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::view::View;

use crate::audit::evidence::{self, Proof};
use crate::audit::{AUDIT_VERSION, border, flows, rounds};
use crate::jobs::commit;
use crate::limits::{AUDIT_PEERS_AGAIN_MAX, AUDIT_TRAIL_BLOCKS_MAX};
use crate::registry::{self, Checkpoint};

/// Headers of one group in a row.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Trail {
    /// Format version, [`AUDIT_VERSION`].
    pub version: u8,
    /// All but the last, ascending.
    pub headers: Vec<Header>,
    /// The last one, certified.
    pub certificate: Certificate,
    /// Below the last header's `outbox_root`, sorted by destination. Nothing where streams are left out.
    pub outbox: Vec<StreamLeaf>,
    /// Below its `inbox_cursors_root`, sorted by source. Nothing where streams are left out.
    pub inbox: Vec<StreamLeaf>,
}

impl Trail {
    /// All headers, ascending.
    pub fn all(&self) -> impl Iterator<Item = &Header> {
        self.headers.iter().chain([&self.certificate.header])
    }

    /// The first header; the last one if it is the only one.
    #[must_use]
    pub fn first(&self) -> &Header {
        self.headers.first().unwrap_or(&self.certificate.header)
    }

    /// Whether each header continues the one before it, and all are of this cluster. What the certificate is worth, and
    /// where the first header continues, is not judged.
    #[must_use]
    pub fn links(&self, cluster: &ClusterId) -> bool {
        let mut before: Option<Place> = None;
        for header in self.all() {
            let fits = before.is_none_or(|before| before.leads_to(header));
            if !fits || header.version != HEADER_VERSION || header.cluster != *cluster {
                return false;
            }
            before = Some(Place::of(header));
        }
        self.version == AUDIT_VERSION && self.headers.len() < AUDIT_TRAIL_BLOCKS_MAX
    }

    /// Whether the streams are all of those that the last header commits to.
    #[must_use]
    pub fn shows_streams(&self) -> bool {
        let header = &self.certificate.header;
        let sorted = |leaves: &[StreamLeaf]| {
            leaves.len() <= PEERS_MAX && leaves.windows(2).all(|pair| pair[0].peer < pair[1].peer)
        };
        sorted(&self.outbox)
            && sorted(&self.inbox)
            && stream::root(&self.outbox) == header.outbox_root
            && stream::root(&self.inbox) == header.inbox_cursors_root
    }
}

/// A place in a chain that the next header continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    group: GroupId,
    incarnation: Incarnation,
    height: Height,
    hash: Hash32,
    next_committee: Hash32,
    time_ms: TimeMs,
}

impl Place {
    fn of(header: &Header) -> Self {
        Self {
            group: header.group,
            incarnation: header.incarnation,
            height: header.height,
            hash: header.hash(),
            next_committee: header.next_committee_hash,
            time_ms: header.time_ms,
        }
    }

    fn leads_to(&self, next: &Header) -> bool {
        next.group == self.group
            && next.incarnation >= self.incarnation
            && self.height.0.checked_add(1) == Some(next.height.0)
            && next.parents == [self.hash]
            && next.committee_hash == self.next_committee
            && next.time_ms > self.time_ms
    }
}

/// How far a group is audited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct GroupAudit {
    /// Format version, [`AUDIT_VERSION`].
    pub version: u8,
    /// The group.
    pub group: GroupId,
    /// Its incarnation there.
    pub incarnation: Incarnation,
    /// The last block that was audited, and with it all before.
    pub height: Height,
    /// Hash of its header.
    pub header_hash: Hash32,
    /// Hash of the committee that signs the next one.
    pub next_committee: Hash32,
    /// Time of that block.
    pub time_ms: TimeMs,
    /// The beacon's block that took it.
    pub taken: Height,
    /// Its time.
    pub taken_ms: TimeMs,
    /// The last block at which the group showed its streams and all mail to and from it had been taken, so that its flows
    /// could be compared with those of its peers.
    pub compared: Option<Height>,
}

impl GroupAudit {
    fn place(&self) -> Place {
        Place {
            group: self.group,
            incarnation: self.incarnation,
            height: self.height,
            hash: self.header_hash,
            next_committee: self.next_committee,
            time_ms: self.time_ms,
        }
    }
}

const AUDITED: &[u8] = b"audited/";

/// Key of a [`GroupAudit`].
#[must_use]
pub fn audited_key(group: GroupId) -> Vec<u8> {
    registry::key(AUDITED, &[&group.0.to_be_bytes()])
}

/// How far a group is audited; `None` before its first trail.
pub fn audited(view: &mut View<'_>, group: GroupId) -> Option<GroupAudit> {
    view.load(&audited_key(group))
}

/// Whether a header is the first block of its group: nothing before it but the genesis, what founded the group, or the ends
/// of the shards that were cut or joined into it.
fn begins(view: &mut View<'_>, header: &Header) -> bool {
    if let Some(born) = commit::born(view, header.group) {
        return commit::is_first(&born, header);
    }
    let founded: Option<ledger::foundation::Foundation> = view.load(&registry::foundation_key(header.group));
    let parent = founded.map_or(Hash32::ZERO, |foundation| foundation.hash());
    header.height == Height(0) && header.parents == [parent]
}

/// How a trail goes on from what is audited of its group.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// By its headers.
    On,
    /// It shows where the streams stand at the audited block, which is not known.
    Streams,
}

fn step(view: &mut View<'_>, before: Option<&GroupAudit>, trail: &Trail) -> Result<Step, Reject> {
    let last = &trail.certificate.header;
    let follows = match before {
        Some(before) => before.place().leads_to(trail.first()),
        None => begins(view, trail.first()),
    };
    let again = before.is_some_and(|before| trail.headers.is_empty() && before.header_hash == last.hash());
    match (follows, again) {
        (true, _) => Ok(Step::On),
        (false, true) if rounds::upto(view, last.group) < Some(last.height) => Ok(Step::Streams),
        (false, _) => Err(Reject::AuditGap),
    }
}

/// Takes a trail.
///
/// # Errors
/// [`Reject::WrongCluster`]; [`Reject::AuditForm`] when it is no chain, goes on behind the seal of a retired shard, does not show
/// the streams that it has to or shows what it has not to, or its certificate does not hold;
/// [`Reject::AuditGap`] when it does not lead on from what is audited; [`Reject::CommitteeUnknown`]. The view is then
/// unchanged.
pub(crate) fn apply(view: &mut View<'_>, at: &BlockContext, trail: &Trail) -> Result<(), Reject> {
    let last = &trail.certificate.header;
    let group = last.group;
    if last.cluster != at.cluster {
        return Err(Reject::WrongCluster);
    }
    // What a channel moves only its members see.
    let open = group.kind() == Some(GroupKind::Shard);
    let sealed = open || trail.all().all(|header| header.value_flow.is_empty());
    if group == GroupId::BEACON || !sealed || !trail.links(&at.cluster) {
        return Err(Reject::AuditForm);
    }
    if ended(view, group).is_some_and(|end| last.height > end.height) {
        return Err(Reject::AuditForm);
    }
    let before = audited(view, group);
    let step = step(view, before.as_ref(), trail)?;
    let shows = rounds::judge(view, at, trail)?;
    if step == Step::Streams && !shows {
        return Err(Reject::AuditGap);
    }
    let committee = registry::committee_by_hash(view, group, &last.committee_hash).ok_or(Reject::CommitteeUnknown)?;
    trail.certificate.verify(&committee).map_err(|_| Reject::AuditForm)?;
    if let Some(certificate) = contradicted(view, trail) {
        // Who signed may be a committee of long ago, whose keys are nobody's business any more. What such a one says
        // against the group's own checkpoint counts for nothing.
        if registry::committee(view, group).is_none_or(|current| current != committee) {
            return Err(Reject::AuditForm);
        }
        let height = certificate.header.height;
        evidence::against_group(view, at, group, height, &Proof::Fork { certificate, trail: trail.clone() });
        return Ok(());
    }
    let mut moved = Vec::new();
    if open {
        // The lines of a block are added up once.
        let news: Vec<&Header> = if step == Step::On { trail.all().collect() } else { Vec::new() };
        let added = flows::add(view, at, last, &news, shows);
        if added.flawed {
            evidence::against_group(view, at, group, last.height, &Proof::Unbalanced(trail.clone()));
        }
        moved = added.moved;
    }
    if shows {
        flows::keep_streams(view, at, trail);
        rounds::keep(view, at, trail);
    }
    let mut audit = GroupAudit {
        version: AUDIT_VERSION,
        group,
        incarnation: last.incarnation,
        height: last.height,
        header_hash: last.hash(),
        next_committee: last.next_committee_hash,
        time_ms: last.time_ms,
        taken: at.height,
        taken_ms: at.time_ms,
        compared: before.and_then(|before| before.compared),
    };
    if open && shows && flows::compare(view, at, group, last) {
        audit.compared = Some(last.height);
    }
    registry::put(view, audited_key(group), &audit);
    if open && shows {
        compare_peers(view, at, last);
    }
    if shows {
        border::compare(view, at, trail, &moved);
    }
    Ok(())
}

/// Where a retired shard has ended. Every other group goes on.
fn ended(view: &mut View<'_>, group: GroupId) -> Option<Checkpoint> {
    let retired = registry::layout(view).is_some_and(|layout| layout.retired(group));
    // The commit of the layout that retired it has left its last header there, and nobody writes another one.
    if retired { registry::checkpoint(view, group) } else { None }
}

/// Compares peers of the group with theirs that could not be compared at their own ends, because something was in flight
/// by what this group had shown. Those behind it by number come first, so that none waits behind the others for ever.
fn compare_peers(view: &mut View<'_>, at: &BlockContext, shown: &Header) {
    let peers = flows::peers(view, shown.group);
    let (before, behind): (Vec<_>, Vec<_>) = peers.into_iter().partition(|peer| *peer < shown.group);
    let mut tried = 0;
    for peer in behind.into_iter().chain(before) {
        let upto = rounds::upto(view, peer);
        let Some(mut audit) = audited(view, peer).filter(|audit| audit.compared != upto) else {
            continue;
        };
        if flows::compare(view, at, peer, shown) {
            audit.compared = upto;
            registry::put(view, audited_key(peer), &audit);
        }
        tried += 1;
        if tried == AUDIT_PEERS_AGAIN_MAX {
            break;
        }
    }
}

/// The certificate of the group's checkpoint, if the trail has another header at its height.
fn contradicted(view: &mut View<'_>, trail: &Trail) -> Option<Certificate> {
    let group = trail.certificate.header.group;
    let known = registry::checkpoint(view, group)?;
    let other = trail.all().find(|header| header.height == known.height)?;
    if other.hash() == known.header_hash {
        return None;
    }
    registry::checkpoint_proof(view, group)
}
