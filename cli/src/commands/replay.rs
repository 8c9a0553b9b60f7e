//! `replay`: real history through the router, on a running cluster or one of its own.

use client::{Client, Profile};

use super::context::operator;
use super::report;
use super::stop::{Stop, interrupted};
use crate::args::{Replay, Shape};
use crate::cluster::{LocalCluster, Mode, Prepared, spec};
use crate::error::CliError;
use crate::history::{Balances, History, HistoryReader, opening};
use crate::load::Phases;
use crate::load::oracle::Oracle;
use crate::load::replay::{Plan, Report, replay};
use crate::load::sign::Party;
use crate::load::stage::fresh_symbol;
use crate::output::Output;
use crate::setup::Addresses;

/// Keys of a cluster that is thrown away need no secret, and so each run places accounts alike.
const THROW_AWAY_SEED: &str = "seamark replay";

pub(super) async fn run(args: Replay, output: Output) -> Result<(), CliError> {
    let mut phases = Phases::start();
    let oracle = oracle(&args)?;
    let mut history = HistoryReader::read_files(&args.files)?;
    let opening = opening_balances(&args.opening, &mut history)?;
    phases.end("read input");
    let title = format!(
        "replay of {}",
        args.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
    );
    let plan = Plan {
        history: &history,
        opening: &opening,
        order: args.sending.order.into(),
        rate: args.sending.rate.map(|rate| rate.max(1)),
        in_flight: args.sending.in_flight,
        seed: seed(args.key_seed.as_deref(), args.dir.is_none())?,
        symbol: fresh_symbol("REPLAY")?,
        balances_file: args.balances.clone(),
    };
    let report = match &args.dir {
        Some(dir) => {
            let client = Client::connect(&Profile::load_dir(dir)?).await?;
            Box::pin(replay(&client, operator(dir)?, &plan, output, phases)).await?
        }
        None => Box::pin(on_own_cluster(&args.shape, args.processes, &plan, output, phases)).await?,
    };
    let checked = oracle.map(|oracle| oracle.check(&report));
    let right = checked.as_ref().is_some_and(Result::is_ok);
    output.result(&report, || {
        let text = report::text(&title, &report);
        if right {
            format!("{text}\nTransfers, accounts, supply and final state are those of the oracle.")
        } else {
            text
        }
    })?;
    report.check()?;
    checked.unwrap_or(Ok(())).map_err(CliError::after_report)
}

/// The right result, if one is named. Read before anything is sent.
fn oracle(args: &Replay) -> Result<Option<Oracle>, CliError> {
    let Some(path) = &args.oracle else { return Ok(None) };
    let named = args.oracle_set.clone();
    let set = named.or_else(|| args.files.first().map(|file| Oracle::set_of(file))).unwrap_or_default();
    Oracle::read(path, &set).map(Some)
}

fn opening_balances(asked: &str, history: &mut History) -> Result<Balances, CliError> {
    if asked == "auto" {
        return opening::auto(history).map_err(|error| {
            CliError::new("opening_supply_too_large", error, "replay a part of the history, or give an opening file")
        });
    }
    Ok(opening::read_file(std::path::Path::new(asked), &mut history.accounts)?)
}

fn seed(asked: Option<&str>, throw_away: bool) -> Result<Vec<u8>, CliError> {
    match asked {
        Some(text) => Ok(text.as_bytes().to_vec()),
        None if throw_away => Ok(THROW_AWAY_SEED.as_bytes().to_vec()),
        None => {
            let secret: [u8; 32] = crate::setup::pki::random()?;
            Ok(secret.to_vec())
        }
    }
}

/// Makes a cluster, replays on it, and throws it away, also when it is interrupted.
pub(super) async fn on_own_cluster(
    shape: &Shape,
    processes: bool,
    plan: &Plan<'_>,
    output: Output,
    mut phases: Phases,
) -> Result<Report, CliError> {
    let mut stop = Stop::listen()?;
    let prepared = Prepared::throw_away(spec(shape, Addresses::Free), output)?;
    phases.end("make the cluster");
    let spinner = output.spinner("starting the cluster");
    let mut cluster = Box::pin(prepared.start(Mode::of(processes))).await?;
    let result = tokio::select! {
        result = work(&mut cluster, plan, output, phases, &spinner) => result,
        () = stop.asked() => Err(interrupted()),
    };
    spinner.finish_and_clear();
    cluster.stop().await;
    result
}

async fn work(
    cluster: &mut LocalCluster,
    plan: &Plan<'_>,
    output: Output,
    mut phases: Phases,
    spinner: &indicatif::ProgressBar,
) -> Result<Report, CliError> {
    let client = cluster.ready().await?;
    spinner.finish_and_clear();
    phases.end("start the cluster");
    let issuer: Party = operator(cluster.dir().root())?;
    Box::pin(replay(&client, issuer, plan, output, phases)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opening_balances_are_read_or_computed() {
        let mut reader = HistoryReader::default();
        reader.add("h", &b"from,to,amount\na,b,5\nb,c,7\n"[..]).unwrap();
        let mut history = reader.finish();
        assert_eq!(opening_balances("auto", &mut history).unwrap().total(), 7);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("opening.csv");
        std::fs::write(&file, "account,balance\na,5\nz,4\n").unwrap();
        let read = opening_balances(file.to_str().unwrap(), &mut history).unwrap();
        assert_eq!((read.total(), history.accounts.len()), (9, 4));
        assert_eq!(opening_balances("/no/such/file", &mut history).unwrap_err().code, "history_read");
    }

    #[test]
    fn keys_are_secret_on_a_cluster_that_stays() {
        assert_eq!(seed(None, true).unwrap(), seed(None, true).unwrap());
        assert_ne!(seed(None, false).unwrap(), seed(None, false).unwrap());
        assert_eq!(seed(Some("x"), false).unwrap(), b"x");
    }
}
