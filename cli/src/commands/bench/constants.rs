//! `bench --constants`: what single pieces of work cost on this machine, for [scale studies](crate::commands::sim).

use std::path::Path;
use std::time::Instant;

use cluster_sim::scale::Constants;
use cluster_sim::scale::measure::measure;

use crate::error::CliError;
use crate::output::{Output, facts};

pub(super) fn run(output: Output) -> Result<(), CliError> {
    let constants = measured()?;
    output.result(&constants, || text(&constants))
}

/// Measures them. Takes a second or two, and wants the machine for itself.
pub(in crate::commands) fn measured() -> Result<Constants, CliError> {
    let start = Instant::now();
    let clock = || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    tokio::task::block_in_place(|| measure(&clock)).map_err(|cause| {
        CliError::new("bench_constants", cause, "this is a bug: report it with the version of the program")
    })
}

/// Reads what an earlier run has written.
pub(in crate::commands) fn read(file: &Path) -> Result<Constants, CliError> {
    let text = std::fs::read(file).map_err(|error| CliError::file(file, &error))?;
    serde_json::from_slice(&text).map_err(|error| {
        let cause = format!("{} has no constants: {error}", file.display());
        CliError::usage("bench_constants", cause, "write them with: seamark bench --constants --json")
    })
}

/// For people, in microseconds.
pub(in crate::commands) fn text(constants: &Constants) -> String {
    let Constants {
        route_ns,
        verify_ns,
        execute_ns,
        tree_ns,
        block_ns,
        stream_ns,
        head_ns,
        credit_ns,
        sign_ns,
        check_ns,
        certificate_ns,
        message_ns,
        path_ns,
        audit_ns,
        audit_stream_ns,
    } = *constants;
    let micros = |ns: u64| format!("{}.{:03} µs", ns / 1_000, ns % 1_000);
    facts([
        ("route a payment", micros(route_ns)),
        ("decode and verify it", micros(verify_ns)),
        ("execute it", micros(execute_ns)),
        ("  of which the state tree", micros(tree_ns)),
        ("a block", micros(block_ns)),
        ("  and for each stream", micros(stream_ns)),
        ("  and for each that it changes", micros(head_ns)),
        ("a credit by mail", micros(credit_ns)),
        ("sign a header", micros(sign_ns)),
        ("check a signature", micros(check_ns)),
        ("a certificate beside its signatures", micros(certificate_ns)),
        ("read or write a message", micros(message_ns)),
        ("a stream in a tree of paths", micros(path_ns)),
        ("audit a header", micros(audit_ns)),
        ("  and each stream that a trail shows", micros(audit_stream_ns)),
    ])
}
