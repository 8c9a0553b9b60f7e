//! One network namespace a node, as `ip netns` makes them, and one with a bridge between all of them.
//!
//! Each namespace is held by a process of ours and has no name: it is gone with the test, however that
//! ends, and with it the pair of interfaces that leads there. A cut in one direction gives the sender a
//! wrong hardware address of the receiver, which no rules of a firewall are needed for: its packets go
//! out and nobody takes them. That is a loss, not an error, as on a real network.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use ledger::NodeId;
use seamark_cli::setup::NodeAddrs;

use crate::support::program::Process;

const PEER_PORT: u16 = 7600;
const CLIENT_PORT: u16 = 7601;
/// The last part of this process's own address; nodes have their numbers.
const HOST: u32 = 254;
/// The hardware address of nobody.
const NOBODY: &str = "02:00:00:00:00:00";

/// Namespaces of nodes that a bridge connects with each other and with this process.
pub struct Namespaces {
    nodes: Vec<Process>,
    /// The first three parts of all addresses.
    prefix: String,
    _bridge: Process,
}

/// Whether namespaces, bridges and pairs of interfaces can be made here.
pub fn possible() -> bool {
    // What fails here is said by nobody: the test goes on without.
    let script = "ip link add name one type veth peer name two && ip link add name switch type bridge && \
                  ip link set one master switch";
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", script]).stdout(Stdio::null()).stderr(Stdio::null());
    let inside = command.status().is_ok_and(|status| status.success());
    // The pair that leads out of them has an end here.
    let name = host_interface();
    inside
        && ip(&format!("link add name {name} type veth peer name {name}p")).is_ok()
        && ip(&format!("link del {name}")).is_ok()
}

/// A name that no other test uses.
fn host_interface() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("smk{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn ip(words: &str) -> Result<String, String> {
    run(Command::new("ip").args(words.split(' ')))
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// A network that nobody here has yet, of those that are set aside for tests of networks (RFC 2544).
fn free_prefix() -> String {
    let taken = ip("-o -4 address").unwrap();
    let start = std::process::id();
    let prefixes =
        (0..512).map(|number| (start + number) % 512).map(|at| format!("198.{}.{}", 18 + at / 256, at % 256));
    prefixes.into_iter().find(|prefix| !taken.contains(&format!("{prefix}."))).expect("a free network")
}

/// A process that holds a new namespace.
async fn hold(folder: &Path, name: &str) -> Process {
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", "ip link set lo up && echo there && exec cat"]);
    let mut holder = Process::start(command, &folder.join(format!("{name}.log")));
    holder.says("there").await;
    holder
}

fn pid(holder: &Process) -> i32 {
    holder.pid().as_raw_pid()
}

/// A command in the namespace that a process holds.
fn within(holder: &Process, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--net", "--target", &pid(holder).to_string()]).arg(program);
    command
}

fn ip_within(holder: &Process, words: &str) {
    run(within(holder, "ip").args(words.split(' '))).unwrap();
}

impl Namespaces {
    /// Makes the namespaces of this many nodes.
    pub async fn open(nodes: u32, folder: &Path) -> Self {
        let bridge = hold(folder, "bridge").await;
        ip_within(&bridge, "link add name switch type bridge");
        ip_within(&bridge, "link set switch up");
        let prefix = free_prefix();
        let host = host_interface();
        ip(&format!("link add name {host} type veth peer name host netns {}", pid(&bridge))).unwrap();
        ip_within(&bridge, "link set host master switch up");
        ip(&format!("address add {prefix}.{HOST}/24 dev {host}")).unwrap();
        ip(&format!("link set {host} up")).unwrap();
        let mut network = Self { nodes: Vec::new(), prefix, _bridge: bridge };
        for node in 1..=nodes {
            network.add(node, folder).await;
        }
        network
    }

    async fn add(&mut self, node: u32, folder: &Path) {
        let holder = hold(folder, &format!("network-{node}")).await;
        let bridge = &self._bridge;
        let (ours, theirs) = (pid(&holder), pid(bridge));
        ip(&format!("link add name node{node} netns {theirs} type veth peer name eth0 netns {ours}")).unwrap();
        ip_within(bridge, &format!("link set node{node} master switch up"));
        ip_within(&holder, &format!("address add {}.{node}/24 dev eth0", self.prefix));
        ip_within(&holder, "link set eth0 up");
        self.nodes.push(holder);
    }

    fn holder(&self, node: NodeId) -> &Process {
        &self.nodes[usize::try_from(node.0).unwrap() - 1]
    }

    pub(super) fn addrs(&self) -> Vec<NodeAddrs> {
        let addr = |node, port| format!("{}.{node}:{port}", self.prefix);
        let nodes = 1..=self.nodes.len();
        nodes.map(|node| NodeAddrs { peer: addr(node, PEER_PORT), client: addr(node, CLIENT_PORT) }).collect()
    }

    pub(super) fn command(&self, node: NodeId, program: impl AsRef<OsStr>) -> Command {
        within(self.holder(node), program)
    }

    pub(super) fn set(&self, from: NodeId, to: NodeId, open: bool) {
        let (sender, receiver) = (self.holder(from), format!("{}.{to} dev eth0", self.prefix));
        // What replaces an address makes the system ask for it again.
        ip_within(sender, &format!("neigh replace {receiver} lladdr {NOBODY} nud permanent"));
        if open {
            ip_within(sender, &format!("neigh del {receiver}"));
        }
    }
}
