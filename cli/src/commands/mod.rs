//! One file for each command. Each reads its options, does its work through the layers below, and
//! prints one result.

mod account;
mod accused;
mod amounts;
mod asset;
mod audit;
mod beacon;
mod bench;
mod block;
mod ca;
mod channel;
mod context;
mod demo;
mod done;
mod epochs;
mod evidence;
mod exclusion;
mod group;
mod init;
mod key;
mod lock;
mod node;
mod past;
mod pay;
mod place;
mod policy;
mod proved;
mod record;
mod replay;
mod report;
mod rotation;
mod router;
mod seal;
mod seats;
mod settle;
mod shard;
mod show;
mod signer;
mod sim;
mod status;
mod stop;
mod tx;
mod up;
mod verify;
mod watch;

use crate::args::{Cli, Command};
use crate::error::CliError;
use crate::output::Output;

/// Runs a command to its end.
pub(crate) async fn run(cli: Cli, output: Output) -> Result<(), CliError> {
    // Boxed: a command's state can be large, and only one of them ever exists.
    match cli.command {
        Command::Up(args) => Box::pin(up::run(args, output)).await,
        Command::Init(args) => init::run(&args, output),
        Command::Node(args) => Box::pin(node::run(args, output)).await,
        Command::Beacon(args) => Box::pin(beacon::run(args, output)).await,
        Command::Channel(args) => Box::pin(channel::run(args, output)).await,
        Command::Router(args) => Box::pin(router::run(args, output)).await,
        Command::Group(args) => Box::pin(group::run(args, output)).await,
        Command::Shard(args) => Box::pin(shard::run(args, output)).await,
        Command::Status(args) => Box::pin(status::run(args, output)).await,
        Command::Ca(args) => ca::run(&args, output),
        Command::Key(args) => key::run(args, output),
        Command::Asset(args) => Box::pin(asset::run(args, output)).await,
        Command::Pay(args) => Box::pin(pay::run(args, output)).await,
        Command::Lock(args) => Box::pin(lock::run(args, output)).await,
        Command::Claim(args) => Box::pin(lock::claim(args, output)).await,
        Command::Refund(args) => Box::pin(lock::refund(args, output)).await,
        Command::Record(args) => Box::pin(record::run(args, output)).await,
        Command::Account(args) => Box::pin(account::run(args, output)).await,
        Command::Tx(args) => Box::pin(tx::run(args, output)).await,
        Command::Block(args) => Box::pin(block::run(args, output)).await,
        Command::Verify(args) => verify::run(&args, output),
        Command::Evidence(args) => Box::pin(evidence::run(args, output)).await,
        Command::Audit(args) => Box::pin(audit::run(args, output)).await,
        Command::Replay(args) => Box::pin(replay::run(args, output)).await,
        Command::Demo(args) => Box::pin(demo::run(args, output)).await,
        Command::Bench(args) => Box::pin(bench::run(args, output)).await,
        Command::Sim(args) => sim::run(&args, output),
    }
}
