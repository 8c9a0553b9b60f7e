//! `channel tour`: the whole story of channels, played on a cluster that is thrown away.
//!
//! Three organisations found two channels, trade between them, take in a member and let one go; then each
//! is asked the same questions. Owns the order of the story. What happens is what the commands of channels
//! do, sent by each organisation over the routers of its own nodes, and what is shown is what came back:
//! nothing is known beforehand but who is a member when, by which [`sight`] judges the answers.
//!
//! Code map, in the order of the story: [`cast`] is who plays, [`found`] founds and decides, [`fund`] brings
//! assets, [`trade`] swaps, [`join`] and [`leave`] change members, [`sight`] asks everybody, [`report`] prints.
//! [`stage`] waits for events. The receipt of an exclusion belongs behind [`leave`].

mod cast;
mod found;
mod fund;
mod join;
mod leave;
mod report;
mod sight;
mod stage;
mod trade;

use ledger::{GroupId, LedgerId};

use crate::cluster::{LocalCluster, Mode, Prepared};
use crate::commands::stop::{Stop, interrupted};
use crate::error::CliError;
use crate::load::Phases;
use crate::output::Output;
use crate::setup::{Addresses, ClusterSpec};
use cast::{Cast, Teller};
use report::Report;
use sight::{After, Scene};

/// Organisations take turns: two nodes each for the first two, one for the third. With two founders of two
/// nodes, a channel bears that one of them leaves as soon as a third one has joined.
const NODES: u32 = 5;
const ORGS: u16 = 3;
/// So few, and a member that joins needs a snapshot after some hundred payments.
const SNAPSHOT_EVERY: u64 = 100;

/// A channel of the tour.
#[derive(Clone, Copy, Debug)]
struct Place {
    name: &'static str,
    group: GroupId,
}

impl Place {
    fn ledger(&self) -> LedgerId {
        LedgerId::of_channel(self.group)
    }
}

/// Both channels.
#[derive(Clone, Copy, Debug)]
struct Places {
    /// Of the first two organisations; the third one joins, and then the second one leaves.
    steel: Place,
    /// Of the last two organisations.
    grain: Place,
}

fn spec() -> ClusterSpec {
    ClusterSpec {
        name: "tour".to_owned(),
        nodes: NODES,
        orgs: ORGS,
        shards: 1,
        addresses: Addresses::Free,
        ..ClusterSpec::default()
    }
}

pub(super) async fn run(output: Output) -> Result<(), CliError> {
    let mut stop = Stop::listen()?;
    let mut phases = Phases::start();
    let prepared = Prepared::throw_away(spec(), output)?;
    prepared.snapshot_every(SNAPSHOT_EVERY)?;
    phases.end("make the cluster");
    let mut cluster = Box::pin(prepared.start(Mode::InProcess)).await?;
    let result = tokio::select! {
        result = Box::pin(play(&mut cluster, output, phases)) => result,
        () = stop.asked() => Err(interrupted()),
    };
    cluster.stop().await;
    let report = result?;
    output.result(&report, || report.text())?;
    report.check()
}

async fn play(cluster: &mut LocalCluster, output: Output, mut phases: Phases) -> Result<Report, CliError> {
    let spinner = output.spinner("starting the cluster");
    let ready = cluster.ready().await;
    spinner.finish_and_clear();
    ready?;
    phases.end("start the cluster");
    let cluster = &*cluster;
    let cast = Cast::gather(cluster)?;
    let mut teller = Teller::new(output);

    teller.part("Two channels are founded");
    let steel = Box::pin(found::found(&cast, "steel", [&cast.a, &cast.b], &mut teller)).await?;
    let grain = Box::pin(found::found(&cast, "grain", [&cast.b, &cast.c], &mut teller)).await?;
    let places = Places { steel, grain };
    phases.end("found two channels");

    teller.part("Assets are issued, permitted, and brought into the channels");
    let goods = Box::pin(fund::bring_goods(&cast, &places, &mut teller)).await?;
    phases.end("bring assets");

    teller.part("A trade between the channels");
    let trade = Box::pin(trade::trade(&cast, &places, &goods, &teller)).await?;
    phases.end("trade");

    let scene = Scene { cast: &cast, places: &places, goods: &goods, trade: &trade };
    let mut views = vec![Box::pin(scene.look(After::Trade)).await?];
    phases.end("ask everybody");

    teller.part("A member would leave that the others cannot do without");
    let too_early = Box::pin(leave::too_early(&cast, &places, &teller)).await?;

    teller.part("A member joins from a snapshot");
    let join = Box::pin(join::join(cluster, &cast, &places, &goods, &mut teller)).await?;
    phases.end("join");
    views.push(Box::pin(scene.look(After::Join)).await?);
    phases.end("ask everybody again");

    teller.part("A member leaves");
    let leave = Box::pin(leave::leave(cluster, &cast, &places, &goods, &mut teller)).await?;
    phases.end("leave");
    views.push(Box::pin(scene.look(After::Leave)).await?);
    phases.end("ask everybody once more");

    let channels = report::directory(&cast).await?;
    let (steps, phases) = (teller.into_steps(), phases.finish());
    Ok(Report::new(&cast, channels, steps, trade, too_early, join, leave, views, phases))
}
