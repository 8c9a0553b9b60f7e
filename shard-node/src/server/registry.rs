//! What this node knows of the cluster at first hand, put into its view: the beacon's registry if it
//! hosts a replica of the beacon, the committees and the layout that its own groups hold, and who
//! leads them. Everybody who follows this node and its own router see it from there.
//!
//! Others believe a registry only under a proof, so a node of the beacon also gathers that: the path
//! in the state tree at some block, and then, once it is there, the certificate of that block.

use std::sync::Arc;

use beacon::{RegistryProof, Succession, registry};
use bytes::Bytes;
use ledger::certificate::Certificate;
use ledger::committee::Committee;
use ledger::foundation::Foundation;
use ledger::handover::Handover;
use ledger::header::Header;
use ledger::ids::{GroupId, Height};
use ledger::layout::Layout;
use ledger::schema;
use ledger::tree::TreeProof;
use ledger::view::ReadFault;
use router::gateway::ClusterView;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::server::group::GroupHandle;
use crate::server::local::Hosted;
use crate::server::membership;
use crate::server::replica::DbReader;

/// A registry as it stood at a block that may not be certified yet.
struct Picture {
    height: Height,
    registry: beacon::ClusterView,
    path: TreeProof,
}

/// The beacon's registry as a replica of the beacon on this node has it.
struct Source {
    /// Taken, and not proved yet.
    open: Option<Picture>,
    /// Revision that is proved; that of the genesis needs no proof.
    proved: u64,
}

/// Keeps the view until `stop`.
pub async fn publish(hosted: Arc<Hosted>, view: Arc<watch::Sender<Arc<ClusterView>>>, stop: CancellationToken) {
    let mut source = Source::new();
    let mut beacon = hosted.groups.read().get(&GroupId::BEACON).cloned();
    let mut certified = beacon.as_ref().map(|handle| handle.certified.clone());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = hosted.context.changed.notified() => {}
            Some(()) = news(&mut certified), if source.open.is_some() => {}
        }
        let groups: Vec<Arc<GroupHandle>> = hosted.groups.read().values().cloned().collect();
        let running = groups.iter().find(|handle| handle.group == GroupId::BEACON);
        if running.map(Arc::as_ptr) != beacon.as_ref().map(Arc::as_ptr) {
            // A replica that had to be rebuilt or that joins starts late, and one that has left the beacon ends.
            beacon = running.cloned();
            certified = beacon.as_ref().map(|handle| handle.certified.clone());
            source = Source::new();
        }
        let mut next = (**view.borrow()).clone();
        let mut modified = false;
        if let Some(handle) = &beacon {
            modified |= source.look(handle, &mut next);
        }
        for handle in groups.iter().filter(|handle| handle.group != GroupId::BEACON) {
            modified |= own_state(handle, &mut next);
        }
        for handle in &groups {
            if let Some(leader) = handle.role().leader {
                modified |= next.leaders.insert(handle.group, leader) != Some(leader);
            }
        }
        if modified {
            view.send_modify(|current| merge(current, next));
        }
    }
}

/// What follows the cluster may have brought a later view in between; the later parts of both count.
fn merge(current: &mut Arc<ClusterView>, mut next: ClusterView) {
    if let Some(beacon) = &current.beacon {
        next.adopt_beacon(Arc::clone(beacon));
    }
    let foundations: Vec<_> = current.foundations.values().chain(next.foundations.values()).cloned().collect();
    if current.revision > next.revision {
        let (leaders, beacon) = (std::mem::take(&mut next.leaders), next.beacon.take());
        let mut later = (**current).clone();
        later.adopt_layout(&next.layout);
        for committee in next.committees.into_values() {
            if !later.layout.retired(committee.group) {
                later.adopt_committee(committee);
            }
        }
        later.leaders.extend(leaders);
        later.beacon = beacon;
        next = later;
    }
    for foundation in foundations {
        next.adopt_foundation(foundation);
    }
    *current = Arc::new(next);
}

/// Waits for the next certificate of the beacon; for ever when there is no beacon here any more.
async fn news(certified: &mut Option<watch::Receiver<Option<Certificate>>>) -> Option<()> {
    if let Some(receiver) = certified
        && receiver.changed().await.is_ok()
    {
        return Some(());
    }
    std::future::pending().await
}

/// Committee and layout as the group itself holds them: the beacon's mail brought them, certified.
fn own_state(handle: &GroupHandle, view: &mut ClusterView) -> bool {
    let read = || -> Result<(Option<Committee>, Option<Layout>), ReadFault> {
        let state = &handle.share.state;
        Ok((state.load(&schema::current_committee(handle.group))?, state.load(&schema::layout())?))
    };
    match read() {
        Ok((committee, layout)) => {
            let layout = layout.is_some_and(|layout| view.adopt_layout(&layout));
            // A shard that has ended has a committee in its own state for good.
            let living = !view.layout.retired(handle.group);
            let committee = committee.filter(|_| living).is_some_and(|committee| view.adopt_committee(committee));
            layout || committee
        }
        Err(error) => {
            tracing::warn!(group = %handle.group, %error, "committee and layout cannot be read");
            false
        }
    }
}

impl Source {
    fn new() -> Self {
        Self { open: None, proved: 1 }
    }

    /// Shows the registry that the replica has, and its proof as soon as there is one.
    fn look(&mut self, handle: &GroupHandle, view: &mut ClusterView) -> bool {
        match self.try_look(handle, view) {
            Ok(modified) => modified,
            Err(error) => {
                tracing::warn!(%error, "the beacon's registry cannot be read");
                false
            }
        }
    }

    fn try_look(&mut self, handle: &GroupHandle, view: &mut ClusterView) -> Result<bool, ReadFault> {
        let latest = self.take(handle)?;
        let mut modified = latest.is_some_and(|(registry, height)| view.adopt(&registry, height));
        let lacking: Vec<GroupId> =
            view.founded.keys().filter(|group| !view.foundations.contains_key(group)).copied().collect();
        for group in lacking {
            // One that the state here does not have yet is of a later registry, which was followed.
            if let Some(foundation) = handle.share.state.load::<Foundation>(&registry::foundation_key(group))? {
                modified |= view.adopt_foundation(Arc::new(foundation));
            }
        }
        if let Some(open) = &self.open
            && let Some(certificate) = certificate(handle, open.height)?
            && can_be_judged(handle, view, &certificate.header)?
        {
            // Following others may have brought a later one, with a proof of its own.
            if open.registry.revision == view.revision {
                let proof = RegistryProof::new(&open.registry, open.path.clone(), certificate);
                view.proof = Bytes::from(proof.encode());
                modified = true;
            }
            self.proved = open.registry.revision;
            self.open = None;
        }
        Ok(modified)
    }

    /// Takes a picture when there is a revision that is not proved and no picture of it, or when the
    /// one there is has been passed over: a later block is certified, and that one is not.
    fn take(&mut self, handle: &GroupHandle) -> Result<Option<(beacon::ClusterView, Height)>, ReadFault> {
        let closed = || ReadFault("the state is closed".into());
        // Registry, path and height under one lock: the next block cannot come between them.
        let mut stand = handle.share.stand.lock();
        let db = handle.share.state.db().ok_or_else(closed)?;
        let reader = DbReader(&*db);
        let revision = beacon::ClusterView::revision_of(&reader)?;
        if revision <= self.proved {
            return Ok(None);
        }
        if let Some(open) = self.open.as_ref().filter(|open| open.registry.revision == revision) {
            let passed = handle.certified.borrow().as_ref().is_some_and(|latest| latest.header.height > open.height);
            if !passed || certificate(handle, open.height)?.is_some() {
                return Ok(None);
            }
        }
        let registry = beacon::ClusterView::read(&reader)?;
        let position = schema::tree_position(&registry::head_key()).ok_or_else(closed)?;
        let path = stand.tree.prove(&position).map_err(|error| ReadFault(error.to_string()))?;
        let height = stand.applied.height;
        self.open = Some(Picture { height, registry: registry.clone(), path });
        Ok(Some((registry, height)))
    }
}

/// Whether the view leads from the genesis to the committee of a header, after it has taken what this replica knows. A
/// hand-over whose certificate is missing here is on its way.
fn can_be_judged(handle: &GroupHandle, view: &mut ClusterView, header: &Header) -> Result<bool, ReadFault> {
    let in_force: Option<Committee> = handle.share.state.load(&schema::current_committee(GroupId::BEACON))?;
    let known = view.beacon.as_ref().is_some_and(|known| Some(known.last()) == in_force.as_ref());
    if !known && let Some(succession) = succession(handle)? {
        view.adopt_beacon(Arc::new(succession));
    }
    Ok(view.beacon.as_ref().is_some_and(|known| known.judges(header).is_some()))
}

/// The committees that the beacon has had, as far as this replica has the certificates by which each has named the next.
fn succession(handle: &GroupHandle) -> Result<Option<Succession>, ReadFault> {
    let state = &handle.share.state;
    let lacks = |what: &str| ReadFault(format!("the state holds no {what} of a hand-over"));
    let mut steps = Vec::new();
    for height in membership::handovers(handle)? {
        let header: Header = state.load(&schema::header(height))?.ok_or_else(|| lacks("header"))?;
        let committee: Option<Committee> = state.load(&schema::committee(GroupId::BEACON, &header.committee_hash))?;
        let committee = committee.ok_or_else(|| lacks("committee"))?;
        match certificate(handle, height)? {
            Some(certificate) => steps.push(Handover { committee, certificate }),
            None => return Ok(Some(Succession::of(steps, committee))),
        }
    }
    let last: Option<Committee> = state.load(&schema::current_committee(GroupId::BEACON))?;
    Ok(last.map(|last| Succession::of(steps, last)))
}

fn certificate(handle: &GroupHandle, height: Height) -> Result<Option<Certificate>, ReadFault> {
    handle.share.state.load(&schema::certificate(height))
}
