//! Listeners on the wires of a cluster. Whoever calls a node at the address that the genesis has calls one of these; it
//! carries every byte on, both ways, and keeps it as it went by.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ledger::NodeId;
use parking_lot::Mutex;
use shard_node::server::NodeConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::cluster::{TestCluster, base_port};

/// Bytes that are taken at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// A TLS record begins with its type, its version and its length (RFC 8446, 5.1).
const RECORD_HEADER_BYTES: usize = 5;
/// Longest content of a TLS record, with what a cipher may add to it.
const RECORD_BYTES_MAX: usize = (1 << 14) + 256;
/// Types of TLS records.
pub const CHANGE_CIPHER_SPEC: u8 = 20;
pub const ALERT: u8 = 21;
pub const HANDSHAKE: u8 = 22;
pub const APPLICATION_DATA: u8 = 23;

/// A port of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    Nodes,
    Clients,
}

/// What went one way over one connection.
#[derive(Clone, Debug)]
pub struct Way {
    pub node: NodeId,
    pub port: Port,
    /// To the node that was called, or from it.
    pub to_node: bool,
    pub bytes: Vec<u8>,
}

impl Way {
    /// The types of the TLS records that it consists of. The last one may not be there as a whole.
    pub fn record_types(&self) -> Result<Vec<u8>, String> {
        record_types(&self.bytes)
    }

    /// Where it went.
    pub fn place(&self) -> String {
        format!("{:?} of node {}, to it: {}", self.port, self.node, self.to_node)
    }

    /// Fails the test unless all of it is TLS: a handshake, and from the first application data on nothing else but
    /// alerts.
    fn assert_sealed(&self) {
        let place = self.place();
        let types = self.record_types().unwrap_or_else(|error| panic!("{place}: {error}"));
        let in_clear = types.iter().take_while(|kind| **kind != APPLICATION_DATA).count();
        let (handshake, sealed) = types.split_at(in_clear);
        assert!(handshake.first().is_none_or(|kind| *kind == HANDSHAKE), "{place}: {types:?}");
        assert!(
            handshake.iter().all(|kind| [HANDSHAKE, CHANGE_CIPHER_SPEC, ALERT].contains(kind)),
            "{place}: {types:?}"
        );
        assert!(sealed.iter().all(|kind| [APPLICATION_DATA, ALERT].contains(kind)), "{place}");
    }
}

fn record_types(mut bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut types = Vec::new();
    while let Some(kind) = bytes.first() {
        let no_record = || format!("no TLS record behind {types:?}: {:?}", &bytes[..bytes.len().min(24)]);
        if !(CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(kind) {
            return Err(no_record());
        }
        let Some(header) = bytes.get(..RECORD_HEADER_BYTES) else { return Ok(types) };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if header[1] != 3 || length == 0 || length > RECORD_BYTES_MAX {
            return Err(no_record());
        }
        types.push(*kind);
        bytes = bytes.get(RECORD_HEADER_BYTES + length..).unwrap_or_default();
    }
    Ok(types)
}

type Record = Arc<Mutex<Vec<Way>>>;

/// All wires of a cluster, carried and kept as long as this is there.
#[derive(Default)]
pub struct Wires {
    record: Record,
    // Aborted with this value.
    listeners: JoinSet<()>,
}

impl Wires {
    /// Takes the addresses of all nodes of a cluster that was prepared, and has the nodes listen elsewhere.
    pub async fn before(cluster: &TestCluster) -> Self {
        let mut wires = Self::default();
        let files = cluster.dir.node_configs(&cluster.genesis);
        let base = base_port(u32::try_from(files.len()).unwrap());
        for ((node, file), first) in files.into_iter().zip((base..).step_by(2)) {
            let behind = [first, first + 1].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
            let mut config = NodeConfig::parse(&std::fs::read_to_string(&file).unwrap(), "".as_ref()).unwrap();
            [config.listen_peer, config.listen_client] = behind;
            std::fs::write(&file, config.to_toml().unwrap()).unwrap();
            let info = cluster.info(node);
            wires.listen(&info.peer_addr, behind[0], (node, Port::Nodes)).await;
            wires.listen(&info.client_addr, behind[1], (node, Port::Clients)).await;
        }
        wires
    }

    async fn listen(&mut self, addr: &str, behind: SocketAddr, called: (NodeId, Port)) {
        let listener = TcpListener::bind(addr).await.unwrap();
        self.listeners.spawn(accept(listener, behind, called, Arc::clone(&self.record)));
    }

    /// All that went by so far.
    pub fn record(&self) -> Vec<Way> {
        self.record.lock().clone()
    }

    /// All that went by so far, which is TLS, or the test fails.
    pub fn sealed(&self) -> Vec<Way> {
        let mut ways = self.record();
        ways.retain(|way| !way.bytes.is_empty());
        ways.iter().for_each(Way::assert_sealed);
        ways
    }
}

async fn accept(listener: TcpListener, behind: SocketAddr, called: (NodeId, Port), record: Record) {
    let mut connections = JoinSet::new();
    loop {
        let (caller, _) = listener.accept().await.unwrap();
        connections.spawn(carry(caller, behind, called, Arc::clone(&record)));
        while connections.try_join_next().is_some() {}
    }
}

async fn carry(caller: TcpStream, behind: SocketAddr, (node, port): (NodeId, Port), record: Record) {
    let carried = async {
        let called = TcpStream::connect(behind).await?;
        caller.set_nodelay(true)?;
        called.set_nodelay(true)?;
        let (from_caller, to_caller) = caller.into_split();
        let (from_called, to_called) = called.into_split();
        let there = {
            let mut all = record.lock();
            all.extend([true, false].map(|to_node| Way { node, port, to_node, bytes: Vec::new() }));
            all.len() - 2
        };
        let to = pump(from_caller, to_called, &record, there);
        let back = pump(from_called, to_caller, &record, there + 1);
        tokio::try_join!(to, back)?;
        io::Result::Ok(())
    };
    // A connection that breaks is what nodes have to live with.
    let _ = carried.await;
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, record: &Record, way: usize) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = from.read(&mut chunk).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        record.lock()[way].bytes.extend_from_slice(&chunk[..length]);
        to.write_all(&chunk[..length]).await?;
    }
}

#[tokio::test]
async fn every_byte_is_carried_on_and_kept_and_what_is_no_tls_is_seen() {
    let called = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = free.local_addr().unwrap();
    let mut wires = Wires::default();
    let carrying = accept(free, called.local_addr().unwrap(), (NodeId(1), Port::Nodes), Arc::clone(&wires.record));
    wires.listeners.spawn(carrying);
    let mut caller = TcpStream::connect(addr).await.unwrap();
    caller.write_all(b"PRI * HTTP/2.0").await.unwrap();
    let (mut accepted, _) = called.accept().await.unwrap();
    let mut heard = [0; 14];
    accepted.read_exact(&mut heard).await.unwrap();
    accepted.write_all(&[HANDSHAKE, 3, 3, 0, 1, 7, APPLICATION_DATA, 3]).await.unwrap();
    let mut answer = [0; 8];
    caller.read_exact(&mut answer).await.unwrap();

    assert_eq!(&heard, b"PRI * HTTP/2.0");
    let ways = wires.record();
    assert_eq!(
        ways.iter().map(|way| (way.to_node, &way.bytes[..])).collect::<Vec<_>>(),
        [(true, &heard[..]), (false, &answer[..])]
    );
    assert!(ways[0].record_types().is_err());
    assert_eq!(ways[1].record_types(), Ok(vec![HANDSHAKE]), "the second record is not there as a whole");
    for no_record in [[24, 3, 3, 0, 1], [HANDSHAKE, 2, 3, 0, 1], [HANDSHAKE, 3, 3, 0xFF, 0xFF], [HANDSHAKE, 3, 3, 0, 0]]
    {
        assert!(record_types(&no_record).is_err(), "{no_record:?}");
    }
}
