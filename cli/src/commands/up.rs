//! `up`: a whole local cluster in the foreground.

use ledger::GroupId;
use serde::Serialize;

use super::context::Context;
use super::stop::{Stop, interrupted};
use crate::args::Up;
use crate::cluster::{LocalCluster, Mode, NodeLine, Prepared, check_resumed, spec};
use crate::error::CliError;
use crate::output::{Output, table};
use crate::setup::Addresses;

#[derive(Serialize)]
struct Ready {
    dir: String,
    cluster: String,
    cluster_id: String,
    profile: String,
    resumed: bool,
    routers: Vec<String>,
    nodes: Vec<NodeLine>,
    groups: Vec<String>,
}

pub(super) async fn run(args: Up, output: Output) -> Result<(), CliError> {
    let context = Context::new(&args.target)?;
    let mut stop = Stop::listen()?;
    let addresses = args.base_port.map_or(Addresses::Free, |base_port| Addresses::Loopback { base_port });
    let prepared = Prepared::open(context.dir(), || spec(&args.shape, addresses), output)?;
    if prepared.resumed {
        check_resumed(&args.shape, prepared.genesis())?;
        if args.base_port.is_some() {
            output.remark("note: the cluster is resumed on the ports it was made with; --base-port is not looked at");
        }
    }
    let resumed = prepared.resumed;
    let spinner = output.spinner("starting the cluster");
    let mut cluster = Box::pin(prepared.start(Mode::of(args.processes))).await?;
    let ready = tokio::select! {
        ready = cluster.ready() => ready.map(|_| true),
        () = stop.asked() => Ok(false),
    };
    spinner.finish_and_clear();
    let result = match ready {
        Ok(true) => serve(&mut cluster, &mut stop, resumed, output).await,
        Ok(false) => Err(interrupted()),
        Err(error) => {
            cluster.take_untold().iter().for_each(|earlier| output.remark(earlier.to_string()));
            Err(error)
        }
    };
    output.remark("stopping");
    cluster.stop().await;
    result
}

async fn serve(cluster: &mut LocalCluster, stop: &mut Stop, resumed: bool, output: Output) -> Result<(), CliError> {
    let ready = describe(cluster, resumed);
    output.result(&ready, || text(&ready))?;
    loop {
        tokio::select! {
            () = stop.asked() => return Ok(()),
            ended = cluster.node_ended() => {
                output.remark(ended.to_string());
                if !cluster.any_running() {
                    return Err(ended.after_report());
                }
                output.remark("the other nodes go on; 'seamark status' shows each group");
            }
        }
    }
}

fn describe(cluster: &LocalCluster, resumed: bool) -> Ready {
    let genesis = cluster.genesis();
    let groups = genesis.committees.iter().map(|committee| committee.group);
    Ready {
        dir: cluster.dir().root().display().to_string(),
        cluster: genesis.name.clone(),
        cluster_id: genesis.cluster_id().to_string(),
        profile: cluster.dir().profile_path().display().to_string(),
        resumed,
        routers: cluster.profile().routers.iter().map(|router| router.addr.clone()).collect(),
        nodes: cluster.nodes(),
        groups: groups.map(|group: GroupId| group.to_string()).collect(),
    }
}

fn text(ready: &Ready) -> String {
    let row = |node: &NodeLine| [format!("node-{}", node.id), node.client_addr.clone(), node.peer_addr.clone()];
    let [a, b, c] = ["node", "for clients", "for nodes"];
    let nodes = if ready.nodes.iter().any(|node| node.pid.is_some()) {
        let pid = |node: &NodeLine| node.pid.map_or("none".to_owned(), |pid| pid.to_string());
        let rows = ready.nodes.iter().map(|node| (row(node), pid(node))).map(|([a, b, c], pid)| [a, b, c, pid]);
        table([a, b, c, "process"], rows)
    } else {
        table([a, b, c], ready.nodes.iter().map(row))
    };
    let made = if ready.resumed { "resumed" } else { "made" };
    format!(
        "cluster {} {made} in {}\n{}\n{} groups: {}\nready: every group has a leader. Ctrl-C stops it. Try: seamark status --dir {}",
        ready.cluster,
        ready.dir,
        nodes,
        ready.groups.len(),
        ready.groups.join(", "),
        ready.dir,
    )
}
