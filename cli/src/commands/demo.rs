//! `demo`: a new cluster settles a real block of transactions.

use super::replay::on_own_cluster;
use super::report;
use crate::args::Demo;
use crate::error::CliError;
use crate::history::{Order, bitcoin_block, opening};
use crate::load::Phases;
use crate::load::replay::Plan;
use crate::load::stage::fresh_symbol;
use crate::output::Output;

/// Keys of the demo's accounts; the cluster is thrown away with them.
const SEED: &str = "seamark demo";

pub(super) async fn run(args: Demo, output: Output) -> Result<(), CliError> {
    let mut phases = Phases::start();
    let history = bitcoin_block::mainnet_702861()?;
    let opening = opening::auto(&history).map_err(|error| {
        CliError::new("opening_supply_too_large", error, "report it: the block ships with the program")
    })?;
    phases.end("read the block");
    output.remark("Settling Bitcoin's block 702861 (mainnet, 2,500 transactions, mapped to transfers between accounts)\non a new cluster: real sockets, mutual TLS, signatures, consensus and fsync.");
    let plan = Plan {
        history: &history,
        opening: &opening,
        order: Order::Causal,
        rate: None,
        in_flight: args.in_flight,
        seed: SEED.as_bytes().to_vec(),
        symbol: fresh_symbol("DEMO")?,
        balances_file: None,
    };
    let report = Box::pin(on_own_cluster(&args.shape, args.processes, &plan, output, phases)).await?;
    output.result(&report, || report::text("Bitcoin's block 702861 on a Seamark cluster", &report))?;
    report.check()
}
