//! Stand-alone routers.

use std::path::Path;
use std::process::Command;

use client::profile::RouterEndpoint;

use super::program::{Process, program};

/// A `seamark router` and where it listens.
pub struct Router {
    pub process: Process,
    pub endpoint: RouterEndpoint,
}

impl Router {
    /// Starts a router of the cluster in a folder.
    pub async fn start(dir: &Path, port: u16) -> Self {
        let addr = format!("127.0.0.1:{port}");
        let mut command = Command::new(program());
        command.args(["router", "--listen", &addr, "--dir"]).arg(dir);
        let mut process = Process::start(command, &dir.join(format!("router-{port}.log")));
        process.says("router answers clients").await;
        let endpoint = RouterEndpoint { node: None, addr, server_name: format!("router-{port}.seamark") };
        Self { process, endpoint }
    }
}
