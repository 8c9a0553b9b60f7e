//! A proxy before each node, which holds back what is cut.
//!
//! All nodes are reached at one address each, which the genesis has, so the proxy has to find out who
//! calls: the system tells which process has the other end of a connection on this machine. What is cut
//! is neither lost nor refused: it waits, as segments do that are sent again and again, and a new
//! connection is not answered. Over TCP, who does not hear a peer has its own segments acknowledged by
//! nobody and soon sends no more, so a cut in one direction stops both here.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use ledger::NodeId;
use parking_lot::Mutex;
use rustix::process::Pid;
use seamark_cli::setup::NodeAddrs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::cluster::base_port;
use crate::support::in_time;

/// Bytes that a proxy takes at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// Ports of a node: its own for nodes and for clients, and its proxy's.
const PORTS: u32 = 3;

/// How long nothing may come through a cut when this is tested. That it is too short can only hide
/// a fault, not invent one.
const QUIET: std::time::Duration = std::time::Duration::from_millis(200);

/// The proxies of a cluster.
pub struct Proxies {
    base: u16,
    nodes: u32,
    /// Who must not be heard by whom.
    cuts: watch::Sender<BTreeSet<(NodeId, NodeId)>>,
    processes: Arc<Mutex<BTreeMap<NodeId, Pid>>>,
    // Aborted with this value.
    _proxies: JoinSet<()>,
}

impl Proxies {
    /// Starts a proxy for each of this many nodes.
    pub async fn open(nodes: u32) -> Self {
        // It counts two ports a node.
        let base = base_port(nodes * PORTS.div_ceil(2));
        let (cuts, seen) = watch::channel(BTreeSet::new());
        let processes = Arc::default();
        let mut network = Self { base, nodes, cuts, processes, _proxies: JoinSet::new() };
        for node in (1..=nodes).map(NodeId) {
            let listener = TcpListener::bind(network.addr(node, 2)).await.unwrap();
            let proxy = Proxy {
                node,
                behind: network.listens(node),
                processes: Arc::clone(&network.processes),
                cuts: seen.clone(),
            };
            network._proxies.spawn(proxy.run(listener));
        }
        network
    }

    fn addr(&self, node: NodeId, which: u32) -> SocketAddr {
        let port = u32::from(self.base) + (node.0 - 1) * PORTS + which;
        SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()))
    }

    pub(super) fn addrs(&self) -> Vec<NodeAddrs> {
        let of = |node| NodeAddrs { peer: self.addr(node, 2).to_string(), client: self.addr(node, 1).to_string() };
        (1..=self.nodes).map(NodeId).map(of).collect()
    }

    pub(super) fn listens(&self, node: NodeId) -> SocketAddr {
        self.addr(node, 0)
    }

    pub(super) fn runs(&self, node: NodeId, pid: Pid) {
        self.processes.lock().insert(node, pid);
    }

    pub(super) fn set(&self, from: NodeId, to: NodeId, open: bool) {
        self.cuts.send_modify(|cuts| {
            if open {
                cuts.remove(&(from, to))
            } else {
                cuts.insert((from, to))
            };
        });
    }
}

struct Proxy {
    node: NodeId,
    behind: SocketAddr,
    processes: Arc<Mutex<BTreeMap<NodeId, Pid>>>,
    cuts: watch::Receiver<BTreeSet<(NodeId, NodeId)>>,
}

impl Proxy {
    async fn run(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            let (caller, from) = listener.accept().await.unwrap();
            let here = caller.local_addr().unwrap();
            let processes = self.processes.lock().clone();
            // Routers and whoever else is no node are not cut off.
            let who = processes.into_iter().find(|(_, pid)| has_connection(*pid, from, here));
            let way = Way { ends: who.map(|(node, _)| (node, self.node)), cuts: self.cuts.clone() };
            connections.spawn(carry(caller, self.behind, way));
            while connections.try_join_next().is_some() {}
        }
    }
}

/// A connection's way between two nodes.
#[derive(Clone)]
struct Way {
    ends: Option<(NodeId, NodeId)>,
    cuts: watch::Receiver<BTreeSet<(NodeId, NodeId)>>,
}

impl Way {
    /// Waits until nothing is cut.
    async fn open(&mut self) -> io::Result<()> {
        let Some((one, other)) = self.ends else { return Ok(()) };
        let open = |cuts: &BTreeSet<_>| !cuts.contains(&(one, other)) && !cuts.contains(&(other, one));
        self.cuts.wait_for(open).await.map(|_| ()).map_err(|_| io::ErrorKind::ConnectionAborted.into())
    }
}

async fn carry(caller: TcpStream, behind: SocketAddr, mut way: Way) {
    let carried = async {
        way.open().await?;
        let node = TcpStream::connect(behind).await?;
        caller.set_nodelay(true)?;
        node.set_nodelay(true)?;
        let (from_caller, to_caller) = caller.into_split();
        let (from_node, to_node) = node.into_split();
        tokio::try_join!(pump(from_caller, to_node, way.clone()), pump(from_node, to_caller, way))?;
        io::Result::Ok(())
    };
    // A connection that breaks is what nodes have to live with.
    let _ = carried.await;
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut way: Way) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = from.read(&mut chunk).await?;
        way.open().await?;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&chunk[..length]).await?;
    }
}

/// Whether a process has the end of a TCP connection that lies at `from` and leads to `to`.
fn has_connection(pid: Pid, from: SocketAddr, to: SocketAddr) -> bool {
    let process = Path::new("/proc").join(pid.as_raw_pid().to_string());
    // A process that is gone has none.
    let Ok(table) = std::fs::read_to_string(process.join("net/tcp")) else { return false };
    let Some(inode) = inode_of(&table, from, to) else { return false };
    let Ok(files) = std::fs::read_dir(process.join("fd")) else { return false };
    let wanted = format!("socket:[{inode}]");
    files.flatten().any(|file| std::fs::read_link(file.path()).is_ok_and(|link| link == Path::new(&wanted)))
}

/// The inode of a connection in the table of the kernel: local address, remote address, state, queues,
/// timer, retransmissions, user, timeout, inode.
fn inode_of(table: &str, from: SocketAddr, to: SocketAddr) -> Option<u64> {
    let (from, to) = (kernels(from)?, kernels(to)?);
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let found = fields.get(1) == Some(&from.as_str()) && fields.get(2) == Some(&to.as_str());
        found.then(|| fields.get(9)?.parse().ok())?
    })
}

/// An address as the kernel's table writes it: the four bytes as a number of this machine.
fn kernels(addr: SocketAddr) -> Option<String> {
    let SocketAddr::V4(addr) = addr else { return None };
    Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(addr.ip().octets()), addr.port()))
}

#[test]
fn a_connection_is_found_in_the_table_of_the_kernel() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let caller = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (from, to) = (caller.local_addr().unwrap(), caller.peer_addr().unwrap());
    assert!(has_connection(rustix::process::getpid(), from, to));
    drop(caller);
    assert!(!has_connection(rustix::process::getpid(), from, to));
}

#[tokio::test]
async fn what_is_cut_waits_and_what_is_no_node_is_let_through() {
    let network = Proxies::open(2).await;
    let (one, two) = (NodeId(1), NodeId(2));
    let listener = TcpListener::bind(network.listens(two)).await.unwrap();
    let addr: SocketAddr = network.addrs()[1].peer.parse().unwrap();
    // Who is no node is never cut off. Both ends of it are in this process, which is none yet.
    network.set(one, two, false);
    let mut stranger = TcpStream::connect(addr).await.unwrap();
    let (mut accepted, _) = in_time("a stranger gets through", listener.accept()).await.unwrap();
    stranger.write_all(b"a").await.unwrap();
    assert_eq!(in_time("its byte arrives", accepted.read_u8()).await.unwrap(), b'a');
    network.set(one, two, true);

    network.runs(one, rustix::process::getpid());
    for (from, to) in [(one, two), (two, one)] {
        let mut caller = TcpStream::connect(addr).await.unwrap();
        let (mut called, _) = in_time("a call", listener.accept()).await.unwrap();
        caller.write_all(b"b").await.unwrap();
        assert_eq!(in_time("a byte arrives", called.read_u8()).await.unwrap(), b'b');
        // What is sent over a connection that was there waits in both directions, and so does a new one.
        network.set(from, to, false);
        caller.write_all(b"c").await.unwrap();
        called.write_all(b"d").await.unwrap();
        let late = TcpStream::connect(addr).await.unwrap();
        let nothing = tokio::select! {
            _ = called.read_u8() => false,
            _ = caller.read_u8() => false,
            _ = listener.accept() => false,
            () = tokio::time::sleep(QUIET) => true,
        };
        assert!(nothing, "something came through a cut from {from} to {to}");
        network.set(from, to, true);
        assert_eq!(in_time("what waited arrives", called.read_u8()).await.unwrap(), b'c');
        assert_eq!(in_time("what waited arrives", caller.read_u8()).await.unwrap(), b'd');
        in_time("the new connection", listener.accept()).await.unwrap();
        drop(late);
    }
}
