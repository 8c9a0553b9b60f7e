//! Keeps the doors of a process in step with the registry: whose authorities are known, and which keys are
//! nodes'. A change of the registry counts from the next handshake on.

use std::collections::BTreeSet;
use std::sync::Arc;

use client::{Door, Identity, NetError, TrustRoots};
use ledger::Hash32;
use router::gateway::ClusterView;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

fn let_in(view: &ClusterView) -> (TrustRoots, BTreeSet<Hash32>) {
    let (roots, unusable) = TrustRoots::usable_of_orgs(&view.orgs);
    for org in unusable {
        tracing::warn!(%org, "the authority of an organisation cannot be used; whoever it vouches for is not let in");
    }
    (roots, view.nodes.values().map(|node| node.tls_key_hash).collect())
}

/// A door for whom the registry names.
///
/// # Errors
/// [`NetError`] when certificate or key cannot be used.
pub fn open(identity: Identity, view: &watch::Receiver<Arc<ClusterView>>) -> Result<Arc<Door>, NetError> {
    let (roots, nodes) = let_in(&view.borrow());
    Ok(Arc::new(Door::open(identity, &roots, nodes)?))
}

/// Changes the door with the registry, until `stop`.
pub async fn keep(door: Arc<Door>, mut view: watch::Receiver<Arc<ClusterView>>, stop: CancellationToken) {
    let mut known = let_in(&view.borrow_and_update());
    // What it was opened with may be older.
    change(&door, &known);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = view.changed() => if changed.is_err() { return },
        }
        let next = let_in(&view.borrow_and_update());
        if next.0.ca_pems != known.0.ca_pems || next.1 != known.1 {
            change(&door, &next);
            known = next;
        }
    }
}

fn change(door: &Door, (roots, nodes): &(TrustRoots, BTreeSet<Hash32>)) {
    if let Err(error) = door.change(roots, nodes.clone()) {
        tracing::error!(%error, "the registry's authorities cannot be used; those before stay");
    }
}
