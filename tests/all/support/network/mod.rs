//! A network between the nodes of a cluster that can be cut, pair by pair, in one direction or in
//! both. Clients reach every node all the time.
//!
//! Where the system lets us, each node has a network namespace of its own ([`namespaces`]), and what is
//! cut is lost on the way. Elsewhere every node is behind a proxy that holds back what is cut
//! ([`proxies`]). Which of them runs is found out, and printed; `SEAMARK_TEST_NETWORK` demands one.

mod namespaces;
mod proxies;

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use ledger::NodeId;
use rustix::process::Pid;
use seamark_cli::setup::NodeAddrs;

pub use namespaces::Namespaces;
pub use proxies::Proxies;

/// Demands a kind of network: `namespaces` or `proxies`.
const DEMANDED: &str = "SEAMARK_TEST_NETWORK";

/// What a network is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    Namespaces,
    Proxies,
}

impl Medium {
    /// What is demanded, or else the best that is possible here.
    pub fn best() -> Self {
        match std::env::var(DEMANDED).as_deref() {
            Ok("namespaces") => Self::Namespaces,
            Ok("proxies") => Self::Proxies,
            Ok(other) => panic!("{DEMANDED} is {other:?}: set it to namespaces or proxies, or leave it out"),
            Err(_) if namespaces::possible() => Self::Namespaces,
            Err(_) => Self::Proxies,
        }
    }
}

/// The network of a cluster, gone with this value.
pub enum Network {
    Namespaces(Namespaces),
    Proxies(Proxies),
}

/// In which way a node is cut off from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing goes either way.
    Both,
    /// It hears the others, and they do not hear it.
    Unheard,
    /// They hear it, and it does not hear them.
    Deaf,
}

impl Network {
    /// A network of this many nodes. Logs of what it needs go to `folder`.
    pub async fn open(medium: Medium, nodes: u32, folder: &Path) -> Self {
        println!("the network between nodes is made of {medium:?}");
        match medium {
            Medium::Namespaces => Self::Namespaces(Namespaces::open(nodes, folder).await),
            Medium::Proxies => Self::Proxies(Proxies::open(nodes).await),
        }
    }

    /// Where each node is reached, node 1 first.
    pub fn addrs(&self) -> Vec<NodeAddrs> {
        match self {
            Self::Namespaces(network) => network.addrs(),
            Self::Proxies(network) => network.addrs(),
        }
    }

    /// Where a node has to listen for other nodes, if not where they reach it.
    pub fn listens(&self, node: NodeId) -> Option<SocketAddr> {
        match self {
            Self::Namespaces(_) => None,
            Self::Proxies(network) => Some(network.listens(node)),
        }
    }

    /// A command that runs where a node is.
    pub fn command(&self, node: NodeId, program: impl AsRef<OsStr>) -> Command {
        match self {
            Self::Namespaces(network) => network.command(node, program),
            Self::Proxies(_) => Command::new(program),
        }
    }

    /// Says which process a node is now.
    pub fn runs(&self, node: NodeId, pid: Pid) {
        if let Self::Proxies(network) = self {
            network.runs(node, pid);
        }
    }

    /// Cuts a node off from these others.
    pub fn cut(&self, node: NodeId, others: &[NodeId], cut: Cut) {
        for other in others {
            if cut != Cut::Deaf {
                self.set(node, *other, false);
            }
            if cut != Cut::Unheard {
                self.set(*other, node, false);
            }
        }
    }

    /// Lets everything through again between a node and these others.
    pub fn heal(&self, node: NodeId, others: &[NodeId]) {
        for other in others {
            self.set(node, *other, true);
            self.set(*other, node, true);
        }
    }

    fn set(&self, from: NodeId, to: NodeId, open: bool) {
        match self {
            Self::Namespaces(network) => network.set(from, to, open),
            Self::Proxies(network) => network.set(from, to, open),
        }
    }
}
