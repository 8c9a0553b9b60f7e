//! A new cluster: who belongs to it, which node takes which seat, and every key it starts with.
//!
//! Reads the clock and the system's random source once; what depends on neither is
//! `beacon::genesis`. Writes nothing: [`super::files`] does.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::{SystemTime, UNIX_EPOCH};

use beacon::assign::{AssignError, Constraints};
use beacon::genesis::{GenesisFault, check, committees_of, first_groups};
use beacon::limits::{NAME_BYTES_MAX, NODES_MAX, ORGS_MAX, SHARDS_MAX};
use client::secrets::Passphrase;
use ledger::committee::Engine;
use ledger::crypto::SecretKey;
use ledger::genesis::{Genesis, NodeInfo, OrgInfo, VerifyMode};
use ledger::hash::Hash32;
use ledger::ids::{GroupId, NodeId, OrgId, TimeMs};
use ledger::layout::Layout;
use ledger::limits::COMMITTEE_MAX;
use zeroize::Zeroizing;

use super::pki::{Authority, Leaf, PkiError, Subject, random};
use super::policies;

/// Replicas of a beacon that outlives one member that lies.
const BFT_BEACON: u16 = 4;

/// Where a node is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddrs {
    /// `host:port` for other nodes.
    pub peer: String,
    /// `host:port` for clients.
    pub client: String,
}

/// Where the nodes of a cluster are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// 127.0.0.1, two ports for each node from this one on.
    Loopback {
        /// The first node's peer port; its client port follows.
        base_port: u16,
    },
    /// 127.0.0.1, on ports that are free now.
    Free,
    /// One entry for each node, for several machines.
    Hosts(Vec<NodeAddrs>),
}

/// An authority that an organisation has already.
#[derive(Clone, PartialEq, Eq)]
pub struct KnownAuthority {
    /// Its certificate, in PEM.
    pub cert_pem: String,
    /// Its private key, in PEM; used to issue certificates, and written nowhere.
    pub key_pem: Zeroizing<String>,
}

impl std::fmt::Debug for KnownAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KnownAuthority(…)")
    }
}

/// What kind of cluster is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSpec {
    /// Name for people.
    pub name: String,
    /// Nodes, numbered from 1.
    pub nodes: u32,
    /// Organisations, named `org-a`, `org-b` and so on. Nodes are dealt to them in turn, and each
    /// is a zone of its own.
    pub orgs: u16,
    /// Shards of the main ledger.
    pub shards: u32,
    /// Replicas of each shard.
    pub replicas: u16,
    /// Replicas of the beacon; `None` takes as many as its engine needs to outlive one fault, or one where
    /// that is Raft and there are fewer nodes.
    pub beacon_replicas: Option<u16>,
    /// What orders the shards.
    pub engine: Engine,
    /// What orders the beacon; `None` takes what orders the shards.
    pub beacon_engine: Option<Engine>,
    /// Checking of client signatures; `None` takes what trust asks for: `every` with several
    /// organisations, else `ingest`.
    pub verify: Option<VerifyMode>,
    /// Who has to approve what in the beacon, `MATTER=POLICY` each; the default for every other matter.
    pub policies: Vec<String>,
    /// Where the nodes are reached.
    pub addresses: Addresses,
    /// Authorities of organisations that have one, by the organisation's name. The others get new ones.
    pub authorities: BTreeMap<String, KnownAuthority>,
    /// What all private keys are sealed under; `None` makes a passphrase for each folder that has some.
    pub passphrase: Option<Passphrase>,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            name: "dev".to_owned(),
            nodes: 5,
            orgs: 3,
            shards: 4,
            replicas: 3,
            beacon_replicas: None,
            engine: Engine::Raft,
            beacon_engine: None,
            verify: None,
            policies: Vec::new(),
            addresses: Addresses::Loopback { base_port: 7600 },
            authorities: BTreeMap::new(),
            passphrase: None,
        }
    }
}

/// Why a specification cannot become a cluster.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// A number is zero or over its limit.
    #[error("--{option} is {value}, and has to be from 1 to {max}")]
    Range {
        /// The option.
        option: &'static str,
        /// What was asked for.
        value: u64,
        /// The most there may be.
        max: u64,
    },
    /// More replicas than nodes.
    #[error("--{option} {value} needs {value} nodes, and there are {nodes}; raise --nodes or lower --{option}")]
    TooManyReplicas {
        /// The option.
        option: &'static str,
        /// What was asked for.
        value: u16,
        /// Nodes there are.
        nodes: u32,
    },
    /// Fewer replicas than a Byzantine engine makes sense with.
    #[error(
        "--{option} is {value}, and bft needs at least {}: of 3f + 1 replicas f may lie; use {} or more --nodes with as many replicas, or raft",
        Engine::Bft.least_members(),
        Engine::Bft.least_members()
    )]
    Engine {
        /// The option.
        option: &'static str,
        /// How many there would be.
        value: u16,
    },
    /// More organisations than nodes.
    #[error("{orgs} organisations share {nodes} nodes, so some would have none; raise --nodes or lower --orgs")]
    OrgsWithoutNodes {
        /// Organisations.
        orgs: u16,
        /// Nodes.
        nodes: u32,
    },
    /// A policy is not written as one.
    #[error("{0}; write such as --policy-for 'orgs=all(members.admin)', each matter once")]
    Policy(String),
    /// The name is empty, too long or holds control characters.
    #[error("the cluster's name must have 1 to {NAME_BYTES_MAX} bytes and no control characters")]
    Name,
    /// Ports run past the last one.
    #[error(
        "{nodes} nodes need {needed} ports from {base_port} on, and ports go from 1 to 65535; choose a base port that leaves room"
    )]
    Ports {
        /// First port.
        base_port: u16,
        /// Nodes.
        nodes: u32,
        /// Ports needed.
        needed: u64,
    },
    /// Not one address for each node, or an address twice.
    #[error("the list of addresses is not right: {0}; give each node two addresses of its own as host:port")]
    Addresses(String),
    /// No free port could be had.
    #[error("no free port on 127.0.0.1: {0}; close programs that hold many ports")]
    NoPort(std::io::Error),
    /// The clock is before 1970.
    #[error("this machine's clock is before 1970; set it")]
    Clock,
    /// The nodes cannot take the seats.
    #[error(transparent)]
    Assign(#[from] AssignError),
    /// The result would not be a genesis.
    #[error(transparent)]
    Genesis(#[from] GenesisFault),
    /// Certificates cannot be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

impl SpecError {
    /// The stable code that programs match on.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Range { .. } => "spec_range",
            Self::TooManyReplicas { .. } => "spec_too_many_replicas",
            Self::Engine { .. } => "spec_engine",
            Self::OrgsWithoutNodes { .. } => "spec_orgs_without_nodes",
            Self::Policy(_) => "spec_policy",
            Self::Name => "spec_name",
            Self::Ports { .. } => "spec_ports",
            Self::Addresses(_) => "spec_addresses",
            Self::NoPort(_) => "spec_no_port",
            Self::Clock => "spec_clock",
            Self::Assign(error) => error.code(),
            Self::Genesis(error) => error.code(),
            Self::Pki(error) => error.code(),
        }
    }
}

/// An organisation with everything it owns.
#[derive(Debug)]
pub struct MadeOrg {
    /// Id.
    pub id: OrgId,
    /// `org-a`, `org-b`, …
    pub name: String,
    /// Its certificate authority.
    pub authority: Authority,
    /// Whether it has had that before, so that the key lies elsewhere.
    pub had_authority: bool,
    /// Signs its commands to the beacon.
    pub admin_key: SecretKey,
    /// Its admin's TLS certificate.
    pub admin: Leaf,
}

/// A node with everything it owns.
#[derive(Debug)]
pub struct MadeNode {
    /// Id.
    pub id: NodeId,
    /// Signs headers.
    pub signing_key: SecretKey,
    /// Its TLS certificate.
    pub tls: Leaf,
}

/// A cluster that has not been written down yet.
#[derive(Debug)]
pub struct MadeCluster {
    /// The genesis, sound by `beacon::genesis::check`.
    pub genesis: Genesis,
    /// Organisations, by id.
    pub orgs: Vec<MadeOrg>,
    /// Nodes, by id.
    pub nodes: Vec<MadeNode>,
    /// A client of the first organisation.
    pub client: Leaf,
    /// What all private keys are sealed under, where it was given.
    pub passphrase: Option<Passphrase>,
    /// What an operator should know, in words.
    pub warnings: Vec<String>,
}

/// Makes a cluster: keys, certificates, addresses, committees and genesis.
///
/// # Errors
/// [`SpecError`] names the option and what to change.
pub fn make_cluster(spec: &ClusterSpec) -> Result<MadeCluster, SpecError> {
    check_spec(spec)?;
    let policies = policies::stated(&spec.policies)?;
    let addrs = addresses(spec)?;
    let orgs = (0..spec.orgs).map(|index| make_org(index, spec)).collect::<Result<Vec<_>, _>>()?;
    let (mut nodes, mut infos) = (Vec::new(), Vec::new());
    for (id, addrs) in (1u32..).zip(addrs) {
        let org = &orgs[(id as usize - 1) % orgs.len()];
        let (node, info) = make_node(NodeId(id), org, addrs)?;
        nodes.push(node);
        infos.push(info);
    }
    let seed = Hash32(random()?);
    let engine = |group: GroupId| if group == GroupId::BEACON { beacon_engine(spec) } else { spec.engine };
    let groups = first_groups(spec.shards, spec.replicas, beacon_replicas(spec), engine);
    let committees = committees_of(&seed, &infos, &groups, &Constraints::default())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| SpecError::Clock)?;
    let genesis = Genesis {
        version: Genesis::version_with(&policies),
        name: spec.name.clone(),
        created_ms: TimeMs(u64::try_from(now.as_millis()).map_err(|_| SpecError::Clock)?),
        seed,
        orgs: orgs.iter().map(org_info).collect(),
        nodes: infos,
        committees,
        layout: Layout::even(spec.shards),
        verify: spec.verify.unwrap_or_else(|| trusted_verify(spec.orgs)),
        policies,
    };
    check(&genesis)?;
    let client = orgs[0].authority.issue(&Subject::client("client", &orgs[0].name))?;
    let warnings = warnings(spec, &genesis);
    Ok(MadeCluster { genesis, orgs, nodes, client, passphrase: spec.passphrase.clone(), warnings })
}

/// `org-a` to `org-z`, then `org-aa` and so on.
#[must_use]
pub fn org_name(index: u16) -> String {
    let letter = |n: u16| char::from(b'a' + u8::try_from(n % 26).expect("below 26"));
    match index / 26 {
        0 => format!("org-{}", letter(index)),
        high => format!("org-{}{}", letter(high - 1), letter(index)),
    }
}

fn trusted_verify(orgs: u16) -> VerifyMode {
    if orgs > 1 { VerifyMode::Every } else { VerifyMode::Ingest }
}

fn beacon_engine(spec: &ClusterSpec) -> Engine {
    spec.beacon_engine.unwrap_or(spec.engine)
}

fn beacon_replicas(spec: &ClusterSpec) -> u16 {
    spec.beacon_replicas.unwrap_or(match beacon_engine(spec) {
        Engine::Raft if spec.nodes >= 3 => 3,
        Engine::Raft => 1,
        // With fewer nodes it is refused, and says so.
        Engine::Bft => u16::try_from(spec.nodes).unwrap_or(u16::MAX).clamp(1, BFT_BEACON),
    })
}

fn check_spec(spec: &ClusterSpec) -> Result<(), SpecError> {
    let name = &spec.name;
    if !(1..=NAME_BYTES_MAX).contains(&name.len()) || name.chars().any(char::is_control) {
        return Err(SpecError::Name);
    }
    let beacon = beacon_replicas(spec);
    for (option, value, max) in [
        ("nodes", u64::from(spec.nodes), NODES_MAX),
        ("orgs", u64::from(spec.orgs), ORGS_MAX),
        ("shards", u64::from(spec.shards), SHARDS_MAX),
        ("replicas", u64::from(spec.replicas), COMMITTEE_MAX),
        ("beacon-replicas", u64::from(beacon), COMMITTEE_MAX),
    ] {
        let max = max as u64;
        if !(1..=max).contains(&value) {
            return Err(SpecError::Range { option, value, max });
        }
    }
    for (option, value, engine) in
        [("replicas", spec.replicas, spec.engine), ("beacon-replicas", beacon, beacon_engine(spec))]
    {
        if u32::from(value) > spec.nodes {
            return Err(SpecError::TooManyReplicas { option, value, nodes: spec.nodes });
        }
        if usize::from(value) < engine.least_members() {
            return Err(SpecError::Engine { option, value });
        }
    }
    if u32::from(spec.orgs) > spec.nodes {
        return Err(SpecError::OrgsWithoutNodes { orgs: spec.orgs, nodes: spec.nodes });
    }
    Ok(())
}

fn addresses(spec: &ClusterSpec) -> Result<Vec<NodeAddrs>, SpecError> {
    let addrs = match &spec.addresses {
        Addresses::Hosts(list) => list.clone(),
        Addresses::Loopback { base_port } => {
            let needed = u64::from(spec.nodes) * 2;
            if *base_port == 0 || u64::from(*base_port) + needed > 65_536 {
                return Err(SpecError::Ports { base_port: *base_port, nodes: spec.nodes, needed });
            }
            let ports = (0..spec.nodes).map(|node| u32::from(*base_port) + node * 2);
            ports.map(|port| loopback(port, port + 1)).collect()
        }
        Addresses::Free => free_ports(spec.nodes)?,
    };
    if addrs.len() != spec.nodes as usize {
        return Err(SpecError::Addresses(format!("{} entries for {} nodes", addrs.len(), spec.nodes)));
    }
    let mut all: Vec<&str> = addrs.iter().flat_map(|node| [node.peer.as_str(), node.client.as_str()]).collect();
    all.sort_unstable();
    match all.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(SpecError::Addresses(format!("{} is there twice", pair[0]))),
        None => Ok(addrs),
    }
}

fn loopback(peer: u32, client: u32) -> NodeAddrs {
    NodeAddrs { peer: format!("127.0.0.1:{peer}"), client: format!("127.0.0.1:{client}") }
}

/// Ports that are free now, all held until the last is found so that none comes twice.
fn free_ports(nodes: u32) -> Result<Vec<NodeAddrs>, SpecError> {
    let mut held = Vec::new();
    for _ in 0..nodes * 2 {
        held.push(TcpListener::bind(("127.0.0.1", 0)).map_err(SpecError::NoPort)?);
    }
    let ports = held
        .iter()
        .map(|listener| listener.local_addr().map(|addr| u32::from(addr.port())))
        .collect::<Result<Vec<u32>, _>>()
        .map_err(SpecError::NoPort)?;
    Ok(ports.chunks_exact(2).map(|pair| loopback(pair[0], pair[1])).collect())
}

fn make_org(index: u16, spec: &ClusterSpec) -> Result<MadeOrg, SpecError> {
    let name = org_name(index);
    let known = spec.authorities.get(&name);
    let authority = match known {
        Some(known) => Authority::from_pem(&known.cert_pem, &known.key_pem)?,
        None => Authority::make(&name)?,
    };
    let admin = authority.issue(&Subject::admin("admin", &name))?;
    let had_authority = known.is_some();
    Ok(MadeOrg { id: OrgId(index + 1), name, authority, had_authority, admin_key: new_key()?, admin })
}

fn org_info(org: &MadeOrg) -> OrgInfo {
    OrgInfo {
        id: org.id,
        name: org.name.clone(),
        ca_pem: org.authority.cert_pem().to_owned(),
        admin_key: org.admin_key.public(),
    }
}

fn make_node(id: NodeId, org: &MadeOrg, addrs: NodeAddrs) -> Result<(MadeNode, NodeInfo), SpecError> {
    make_node_of(id, (org.id, &org.name), &org.authority, addrs)
}

/// Makes a node of an organisation: its keys, its certificate, and its entry for the registry. Each organisation is a zone
/// of its own.
///
/// # Errors
/// [`SpecError::Addresses`] when an address is no `host:port`, and what making keys fails with.
pub fn make_node_of(
    id: NodeId,
    (org, name): (OrgId, &str),
    authority: &Authority,
    addrs: NodeAddrs,
) -> Result<(MadeNode, NodeInfo), SpecError> {
    let host = |addr: &str| {
        let (host, port) = addr.rsplit_once(':').unwrap_or((addr, ""));
        match port.parse::<u16>() {
            Ok(port) if port > 0 && !host.is_empty() => Ok(host.to_owned()),
            _ => Err(SpecError::Addresses(format!("'{addr}' is not host:port"))),
        }
    };
    let hosts = vec![host(&addrs.peer)?, host(&addrs.client)?];
    let tls = authority.issue(&Subject::node(id, name, hosts))?;
    let signing_key = new_key()?;
    let info = NodeInfo {
        id,
        org,
        zone: format!("zone-{}", name.trim_start_matches("org-")),
        capacity: 1,
        key: signing_key.public(),
        tls_key_hash: tls.key_hash,
        peer_addr: addrs.peer,
        client_addr: addrs.client,
    };
    Ok((MadeNode { id, signing_key, tls }, info))
}

/// A random signing key. Practically the first draw is one.
///
/// # Errors
/// [`PkiError`] when the system gives no randomness.
pub fn new_key() -> Result<SecretKey, PkiError> {
    loop {
        if let Ok(key) = SecretKey::from_bytes(&random()?) {
            return Ok(key);
        }
    }
}

fn warnings(spec: &ClusterSpec, genesis: &Genesis) -> Vec<String> {
    let mut warnings = Vec::new();
    let groups =
        [("replicas", spec.replicas, spec.engine), ("beacon replicas", beacon_replicas(spec), beacon_engine(spec))];
    for (what, n, engine) in groups {
        let tolerated = engine.tolerated(n.into());
        if n > 1 && engine.tolerated(usize::from(n) - 1) == tolerated {
            let (failures, better) = match engine {
                Engine::Raft => ("failures", "use an odd number"),
                Engine::Bft => ("that lie", "use 4, 7 or 10"),
            };
            warnings.push(format!("{n} {what} tolerate {tolerated} {failures}, no more than {} do; {better}", n - 1));
        } else if n == 1 {
            warnings.push(format!("1 {what}: a group stops with its one node, and a lost disk is lost data"));
        }
    }
    let exposed = genesis.committees.iter().filter(|committee| {
        let n = committee.members.len();
        let most = genesis.orgs.iter().map(|org| committee.members.iter().filter(|m| m.org == org.id).count()).max();
        n > 1 && most.unwrap_or(0) > committee.engine.tolerated(n)
    });
    let exposed = exposed.count();
    if exposed > 0 && spec.orgs > 1 {
        warnings.push(format!(
            "in {exposed} of {} groups one organisation holds so many seats that the group stops without it; more organisations would spread them",
            genesis.committees.len()
        ));
    }
    if spec.orgs > 1 && genesis.verify == VerifyMode::Ingest {
        warnings.push(
            "verify is 'ingest' across several organisations: each trusts the others' nodes to check client signatures; 'every' does not"
                .to_owned(),
        );
    }
    warnings
}
