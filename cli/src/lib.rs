//! The `seamark` command: every role of a cluster and every tool for it, one program.
//!
//! Owns the command line, its texts and its JSON, local clusters and the load that `replay`, `demo`
//! and `bench` put on them. Decides nothing about money: clients talk through the crate `client`,
//! nodes run in `shard-node`, routers in `router`.
//!
//! Code map: [`args`] is the grammar, `commands` has one file for each command, [`draft`] has
//! transactions as forms and files, [`explain`] tells what became of them, [`history`] reads what a
//! replay sends, [`load`] sends it, [`cluster`] runs local clusters, [`setup`] makes their
//! folders, [`health`] judges them, [`output`] and [`error`] are all that is ever printed.

// A test that cannot unwrap has failed, which is what a test is for.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod args;
pub mod cluster;
mod commands;
pub mod draft;
pub mod error;
pub mod explain;
pub mod health;
pub mod history;
pub mod load;
pub mod logging;
pub mod output;
pub mod setup;

use std::process::ExitCode;

use clap::Parser;

use args::Cli;
use error::CliError;
use output::Output;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Runs the command of this process's arguments. Usage errors end with 2, refusals and failures
/// with 1.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let output = Output::new(cli.json);
    match start(cli, output) {
        Ok(()) if output::unwritten() => ExitCode::from(error::EXIT_FAILED),
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.failure(&error);
            ExitCode::from(error.exit)
        }
    }
}

/// Help that was asked for, or a command line that cannot be read: clap's own text, and for programs
/// the one object that every failure has.
fn usage(error: &clap::Error) -> ExitCode {
    // Nothing more can be done when even the terminal is gone.
    let _ = error.print();
    let exit = u8::try_from(error.exit_code()).unwrap_or(error::EXIT_USAGE);
    if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
        let text = error.to_string();
        // The first paragraph names what is missing or wrong; what follows is the usage.
        let lines: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
        let cause = lines.join(" ");
        let error = CliError::usage(
            "usage",
            cause.trim_start_matches("error: "),
            "see 'seamark help' and the command's --help",
        );
        Output::new(true).failure_for_programs(&error);
    }
    ExitCode::from(exit)
}

/// Lets this process have as many files open as its user may: every database and every connection takes
/// some, and the usual soft limit is meant for programs that cannot count so far.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // What the system refuses stays as it is; whoever runs out of files says so.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

fn start(cli: Cli, output: Output) -> Result<(), CliError> {
    raise_open_files();
    logging::start(cli.log.as_deref(), &cli.command)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::new("runtime", error, "check the limits of threads and open files of this user"))?;
    let result = runtime.block_on(commands::run(cli, output));
    // A blocking task that hangs must not keep a command that is done.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}
