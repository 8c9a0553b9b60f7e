//! turmoil's network as the nodes and clients of a simulated cluster use it, and their wall clock.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use client::sockets::{Accepted, Listener, Sockets, Wire};
use futures::future::BoxFuture;
use ledger::NodeId;
use shard_node::server::clock::WallClock;

/// The first node's peer port; its client port follows, then those of the next node.
pub const BASE_PORT: u16 = 7_600;

/// What a node is called in the simulated network.
pub fn host_of(node: NodeId) -> String {
    format!("node-{node}")
}

/// The genesis names loopback addresses, and no two nodes have the same port: the port says who is
/// called.
fn owner(port: u16) -> io::Result<String> {
    let offset = port.checked_sub(BASE_PORT).ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok(host_of(NodeId(u32::from(offset / 2) + 1)))
}

/// Sockets of the host that is running.
pub struct SimSockets;

impl Sockets for SimSockets {
    fn connect(&self, _: String, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Wire>>> {
        Box::pin(async move {
            let stream = turmoil::net::TcpStream::connect((owner(port)?, port)).await?;
            Ok(Box::new(stream) as Box<dyn Wire>)
        })
    }

    fn listen(&self, addr: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let port = turmoil::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, addr.port())).await?;
            Ok(Box::new(SimListener(port)) as Box<dyn Listener>)
        })
    }
}

struct SimListener(turmoil::net::TcpListener);

impl Listener for SimListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async move {
            let (stream, remote) = self.0.accept().await?;
            let local = stream.local_addr().ok();
            Ok(Accepted { wire: Box::new(stream), local, remote: Some(remote) })
        })
    }
}

/// The wall clock of all simulated machines: set before each step, so that it is known to threads
/// outside the simulation, too.
#[derive(Clone, Default)]
pub struct SimWall(Arc<AtomicI64>);

impl SimWall {
    pub fn set(&self, unix_ms: i64) {
        self.0.store(unix_ms, Ordering::SeqCst);
    }
}

impl WallClock for SimWall {
    fn unix_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}
