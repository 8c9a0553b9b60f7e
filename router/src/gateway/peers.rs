//! One lazily connected channel for each node, over mutual TLS, bound to the node's key.

use std::sync::Arc;

use client::net::{self, Identity, TrustRoots};
use client::{Sockets, SystemSockets, Traffic};
use hashbrown::HashMap;
use ledger::genesis::OrgInfo;
use ledger::{Hash32, NodeId};
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::Status;
use tonic::transport::Channel;

use super::view::ClusterView;

/// Channels to the nodes of the cluster. A channel is replaced when the registry gives its node
/// another address or key.
pub struct Peers {
    identity: Identity,
    roots: TrustRoots,
    view: watch::Receiver<Arc<ClusterView>>,
    sockets: Arc<dyn Sockets>,
    channels: Mutex<HashMap<NodeId, Peer>>,
    traffic: Arc<Traffic>,
}

struct Peer {
    addr: String,
    key_hash: Hash32,
    orgs: Arc<Vec<OrgInfo>>,
    channel: Channel,
}

impl Peers {
    /// Channels for the nodes of `view`, made with this identity when first asked for.
    #[must_use]
    pub fn new(identity: Identity, roots: TrustRoots, view: watch::Receiver<Arc<ClusterView>>) -> Self {
        Self::over(SystemSockets::shared(), identity, roots, view)
    }

    /// As [`Peers::new`], over another network than the system's.
    #[must_use]
    pub fn over(
        sockets: Arc<dyn Sockets>,
        identity: Identity,
        roots: TrustRoots,
        view: watch::Receiver<Arc<ClusterView>>,
    ) -> Self {
        Self { identity, roots, view, sockets, channels: Mutex::new(HashMap::new()), traffic: Arc::default() }
    }

    /// What goes through the sockets of all channels.
    #[must_use]
    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// The cluster that the nodes are looked up in.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.view.clone()
    }

    /// The channel to a node.
    ///
    /// # Errors
    /// `not_found` when there is no such node, `internal` when its address or our identity is
    /// unusable.
    pub fn channel(&self, node: NodeId) -> Result<Channel, Status> {
        let (addr, key_hash, orgs) = {
            let view = self.view.borrow();
            let info = view.nodes.get(&node).ok_or_else(|| Status::not_found(format!("there is no node {node}")))?;
            (info.peer_addr.clone(), info.tls_key_hash, Arc::clone(&view.orgs))
        };
        let mut channels = self.channels.lock();
        if let Some(peer) = channels.get(&node)
            && peer.addr == addr
            && peer.key_hash == key_hash
            && same_authorities(&peer.orgs, &orgs)
        {
            return Ok(peer.channel.clone());
        }
        let name = net::node_server_name(node);
        // Organisations that joined later have authorities of their own.
        let mut roots = self.roots.clone();
        roots.ca_pems.extend(TrustRoots::usable_of_orgs(&orgs).0.ca_pems);
        let (identity, roots) = (&self.identity, &roots);
        let channel = net::connect_pinned(&addr, identity, roots, &name, key_hash, &self.sockets, &self.traffic)
            .map_err(|error| Status::internal(error.to_string()))?;
        channels.insert(node, Peer { addr, key_hash, orgs, channel: channel.clone() });
        Ok(channel)
    }
}

/// Whether a channel that was made with one list of authorities is as good with the other.
fn same_authorities(one: &Arc<Vec<OrgInfo>>, other: &Arc<Vec<OrgInfo>>) -> bool {
    Arc::ptr_eq(one, other) || one.iter().map(|org| &org.ca_pem).eq(other.iter().map(|org| &org.ca_pem))
}
