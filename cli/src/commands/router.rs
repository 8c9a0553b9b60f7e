//! `router`: a stand-alone front door, from its TOML file, or with one made for a cluster's folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use client::net::{self, Identity, TrustRoots};
use client::profile::read_genesis;
use client::secrets::SecretKind;
use router::gateway::{
    ClusterView, GatewayLimits, NodeBackend, Peers, follow, gateway_service, with_standard_services,
};
use serde::{Deserialize, Serialize};
use shard_node::server::doorkeeper;
use shard_node::server::socket::serve;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::stop::Stop;
use crate::args::{Router, Target};
use crate::error::CliError;
use crate::output::Output;
use crate::setup::{ClusterDir, Subject};

const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The configuration of a router. Relative paths start from the file's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RouterConfig {
    /// Where clients are answered.
    listen: SocketAddr,
    /// The cluster's genesis, in JSON.
    genesis: PathBuf,
    /// TLS certificate of a router, in PEM.
    cert: PathBuf,
    /// Its key, sealed or in PEM.
    key: PathBuf,
    /// Certificates of all organisations' authorities, in PEM.
    ca: PathBuf,
}

impl RouterConfig {
    fn load(file: &Path) -> Result<Self, CliError> {
        let length = std::fs::metadata(file).map_err(|error| CliError::file(file, &error))?.len();
        if length > FILE_BYTES_MAX {
            let cause = format!("{} is over 64 KiB", file.display());
            return Err(CliError::new("router_config", cause, "name the router's configuration"));
        }
        let text = std::fs::read_to_string(file).map_err(|error| CliError::file(file, &error))?;
        Self::parse(&text, file)
    }

    fn parse(text: &str, file: &Path) -> Result<Self, CliError> {
        let mut config: Self = toml::from_str(text).map_err(|error| {
            let cause = format!("{} is not a router's configuration: {error}", file.display());
            CliError::new(
                "router_config",
                cause,
                "correct the key at this place; 'seamark router --dir D' writes a complete example",
            )
        })?;
        let folder = file.parent().unwrap_or(Path::new(""));
        for path in [&mut config.genesis, &mut config.cert, &mut config.key, &mut config.ca] {
            *path = folder.join(&*path);
        }
        Ok(config)
    }
}

#[derive(Serialize)]
struct Started {
    listen: String,
    pid: u32,
    cluster_id: String,
    config: String,
}

pub(super) async fn run(args: Router, output: Output) -> Result<(), CliError> {
    let mut stop = Stop::listen()?;
    let file = match args.config {
        Some(file) => file,
        None => made_for(&Context::new(&Target { dir: args.dir })?, &args.listen)?,
    };
    let config = RouterConfig::load(&file)?;
    let genesis = read_genesis(&config.genesis)?;
    let identity = Identity::load(&config.cert, &config.key)?;
    let roots = TrustRoots::load(&config.ca)?;
    let listener = TcpListener::bind(config.listen).await.map_err(|error| {
        CliError::new(
            "listen",
            format!("cannot listen on {}: {error}", config.listen),
            "stop what uses the port, or choose another with --listen",
        )
    })?;
    let (view_out, view) = watch::channel(Arc::new(ClusterView::of_genesis(&genesis)));
    net::server_tls(&identity, &roots)?;
    let (end, entrance) = (CancellationToken::new(), doorkeeper::open(identity.clone(), &view)?);
    let keeping = tokio::spawn(doorkeeper::keep(Arc::clone(&entrance), view.clone(), end.clone()));
    let peers = Arc::new(Peers::new(identity, roots, view));
    let following = tokio::spawn(follow(Arc::clone(&peers), Arc::new(view_out), None));
    let gateway = gateway_service(NodeBackend::new(peers, None), GatewayLimits::default());
    let (server, health) = with_standard_services(net::server_behind_door().add_service(gateway)).await;
    let started = Started {
        listen: config.listen.to_string(),
        pid: std::process::id(),
        cluster_id: genesis.cluster_id().to_string(),
        config: file.display().to_string(),
    };
    output.result(&started, || {
        format!("router answers clients of cluster {} at {}", started.cluster_id, started.listen)
    })?;
    let serving = serve(server, Box::new(listener), entrance, end.clone().cancelled_owned(), Arc::default());
    tokio::pin!(serving);
    let served = tokio::select! {
        early = &mut serving => early,
        () = stop.asked() => {
            health.closing().await;
            end.cancel();
            serving.await
        }
    };
    following.abort();
    keeping.abort();
    served.map_err(|error| CliError::new("router_server", error, "see its log, and start it again"))
}

/// Issues a certificate by the first organisation's authority and writes the configuration, into a
/// folder of its own for each address.
fn made_for(context: &Context, listen: &str) -> Result<PathBuf, CliError> {
    let addr: SocketAddr = listen.parse().map_err(|_| {
        CliError::usage("router_listen", format!("'{listen}' is no address"), "use IP:PORT, such as 127.0.0.1:7700")
    })?;
    if addr.port() == 0 {
        return Err(CliError::usage("router_listen", "the port is 0", "name the port that clients will use"));
    }
    let dir = ClusterDir::at(context.dir());
    let genesis = dir.genesis()?;
    let folder = dir.root().join("routers").join(format!("router-{}", addr.port()));
    let file = folder.join("router.toml");
    if file.exists() {
        return Ok(file);
    }
    let org = genesis
        .orgs
        .first()
        .ok_or_else(|| CliError::new("genesis_form", "the genesis has no organisation", "restore it"))?;
    let authority = super::ca::open(&dir.ca_dir(&org.name), &org.name)?;
    let name = format!("router-{}", addr.port());
    let leaf = authority.issue(&Subject::router(&name, &org.name, vec![addr.ip().to_string()]))?;
    make_private(&folder)?;
    write(&folder.join("router.pem"), &leaf.cert_pem)?;
    let key = folder.join("router.key");
    super::ca::keyring_of(&key, None)?.write(&key, SecretKind::Tls, leaf.key_pem.as_bytes())?;
    let config = RouterConfig {
        listen: addr,
        genesis: Path::new("../../genesis.json").to_owned(),
        cert: "router.pem".into(),
        key: "router.key".into(),
        ca: Path::new("../../ca/roots.pem").to_owned(),
    };
    let text = toml::to_string(&config)
        .map_err(|error| CliError::new("router_config", error, "report it with the version"))?;
    write(&file, &text)?;
    Ok(file)
}

fn make_private(folder: &Path) -> Result<(), CliError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| CliError::file(folder, &error))
}

/// Readable by its owner alone; the configuration comes last, so what is there is complete.
fn write(path: &Path, text: &str) -> Result<(), CliError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| CliError::file(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Shape;
    use crate::cluster::{Prepared, spec};
    use crate::setup::Addresses;

    #[test]
    fn a_router_of_a_folder_gets_a_certificate_and_a_configuration() {
        let temp = tempfile::tempdir().unwrap();
        let shape = Shape { nodes: Some(1), shards: Some(1), ..Shape::default() };
        Prepared::open(temp.path(), || spec(&shape, Addresses::Free), Output::new(true)).unwrap();
        let context = Context::new(&Target { dir: Some(temp.path().to_owned()) }).unwrap();
        let file = made_for(&context, "127.0.0.1:7700").unwrap();
        let config = RouterConfig::load(&file).unwrap();
        assert_eq!(config.listen.port(), 7700);
        assert!(read_genesis(&config.genesis).is_ok());
        let identity = Identity::load(&config.cert, &config.key).unwrap();
        let roots = TrustRoots::load(&config.ca).unwrap();
        assert!(net::server_tls(&identity, &roots).is_ok());
        assert_eq!(made_for(&context, "127.0.0.1:7700").unwrap(), file);
        assert_eq!(made_for(&context, "here").unwrap_err().code, "router_listen");
        assert_eq!(made_for(&context, "127.0.0.1:0").unwrap_err().code, "router_listen");
    }

    #[test]
    fn unknown_keys_are_refused() {
        let text = "listen = \"127.0.0.1:1\"\ngenesis = \"g\"\ncert = \"c\"\nkey = \"k\"\nca = \"a\"\n";
        let file = Path::new("/x/router.toml");
        assert_eq!(RouterConfig::parse(text, file).unwrap().key, Path::new("/x/k"));
        let error = RouterConfig::parse(&format!("{text}colour = 1"), file).unwrap_err();
        assert_eq!(error.code, "router_config");
        assert!(error.cause.contains("colour"), "{error}");
    }
}
