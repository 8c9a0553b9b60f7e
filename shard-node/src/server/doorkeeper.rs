//! Keeps the doors of a process in step with the registry: whose authorities are known, which keys are
//! nodes', and what was revoked. A change of the registry counts from the next handshake on, and for the
//! connections that stand: those of callers who would not be let in any more are cut off.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::net::{PeerIdentity, Role};
use client::{Door, Identity, LetIn, NetError, TrustRoots};
use ledger::Hash32;
use ledger::limits::PEER_CONNECTIONS_MAX;
use parking_lot::Mutex;
use router::gateway::ClusterView;
use tokio::sync::watch;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_util::sync::CancellationToken;

/// A door, and the connections that came in by it.
pub struct Entrance {
    door: Door,
    standing: Mutex<Standing>,
}

/// The connections that stand, by the order in which they came.
#[derive(Default)]
struct Standing {
    came: u64,
    connections: BTreeMap<u64, Connection>,
}

struct Connection {
    /// The key of its certificate, where that says that it is a node's.
    node: Option<Hash32>,
    certificates: Vec<CertificateDer<'static>>,
    since: UnixTime,
    cut: CancellationToken,
}

/// A connection's place among those that stand; it is given up when this is dropped.
pub struct Pass {
    entrance: Arc<Entrance>,
    number: u64,
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.entrance.standing.lock().connections.remove(&self.number);
    }
}

impl Entrance {
    /// Without connections.
    #[must_use]
    pub fn new(door: Door) -> Arc<Self> {
        Arc::new(Self { door, standing: Mutex::default() })
    }

    /// For one handshake.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        self.door.config()
    }

    /// Takes in a caller who has shaken hands under `config` with these certificates, leaf first; `cut` is
    /// cancelled as soon as it would not be let in any more. `None` when that is so already, or when it is a node that has
    /// as many connections as it may have.
    #[must_use]
    pub fn admit(
        self: &Arc<Self>,
        config: &Arc<ServerConfig>,
        certificates: Vec<CertificateDer<'static>>,
        cut: CancellationToken,
    ) -> Option<Pass> {
        let since = UnixTime::now();
        let leaf = certificates.first().and_then(|leaf| PeerIdentity::from_der(leaf).ok());
        let node = leaf.filter(|peer| peer.role == Role::Node).map(|peer| peer.key_hash);
        let mut standing = self.standing.lock();
        // Looked at under the lock: a change that is not seen here comes by this connection later.
        if !Arc::ptr_eq(config, &self.door.config()) && !self.door.keeps(&certificates, since) {
            return None;
        }
        // Clients and routers may share a certificate, and have their limits elsewhere.
        let same = standing.connections.values().filter(|other| node.is_some() && other.node == node).count();
        if same >= PEER_CONNECTIONS_MAX {
            tracing::warn!("a node has {same} connections here already: another one is refused");
            return None;
        }
        standing.came += 1;
        let number = standing.came;
        standing.connections.insert(number, Connection { node, certificates, since, cut });
        Some(Pass { entrance: Arc::clone(self), number })
    }

    /// Changes who is let in, and cuts off whoever is not any more.
    ///
    /// # Errors
    /// As [`Door::change`]; nothing has changed then.
    pub fn change(&self, let_in: LetIn) -> Result<(), NetError> {
        self.door.change(let_in)?;
        for (number, connection) in &self.standing.lock().connections {
            if !self.door.keeps(&connection.certificates, connection.since) {
                tracing::warn!(number, "a connection is cut: its certificate was revoked, or its organisation is gone");
                connection.cut.cancel();
            }
        }
        Ok(())
    }
}

fn let_in(view: &ClusterView) -> LetIn {
    let (_, unusable) = TrustRoots::usable_of_orgs(&view.orgs);
    for org in &unusable {
        tracing::warn!(%org, "the authority of an organisation cannot be used; whoever it vouches for is not let in");
    }
    LetIn {
        orgs: view.orgs.iter().filter(|org| !unusable.contains(&org.id)).cloned().collect(),
        nodes: view.nodes.values().map(|node| (node.tls_key_hash, node.org)).collect(),
        revoked: Arc::clone(&view.revoked),
    }
}

/// An entrance for whom the registry names.
///
/// # Errors
/// [`NetError`] when certificate or key cannot be used.
pub fn open(identity: Identity, view: &watch::Receiver<Arc<ClusterView>>) -> Result<Arc<Entrance>, NetError> {
    let known = let_in(&view.borrow());
    Ok(Entrance::new(Door::open(identity, known)?))
}

/// Changes the entrance with the registry, until `stop`.
pub async fn keep(entrance: Arc<Entrance>, mut view: watch::Receiver<Arc<ClusterView>>, stop: CancellationToken) {
    let mut known = let_in(&view.borrow_and_update());
    // What it was opened with may be older.
    change(&entrance, &known);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = view.changed() => if changed.is_err() { return },
        }
        let next = let_in(&view.borrow_and_update());
        if next != known {
            change(&entrance, &next);
            known = next;
        }
    }
}

fn change(entrance: &Entrance, let_in: &LetIn) {
    if let Err(error) = entrance.change(let_in.clone()) {
        tracing::error!(%error, "the registry's authorities cannot be used; those before stay");
    }
}
