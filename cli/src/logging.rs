//! Logs: to stderr, never to stdout, which belongs to a command's result.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::args::{Channel, Command};
use crate::error::CliError;

/// What is logged when nobody says: warnings and worse. The consensus engine also warns of what is
/// everyday business, such as a peer that is being stopped. The Byzantine one tells of each vote, below that.
const DEFAULT_FILTER: &str = "warn,openraft=error";
/// As that, without the denials that the tour of channels provokes, and shows as its result.
const TOUR_FILTER: &str = "warn,openraft=error,shard_node::server::admission=error";

/// Starts logging by `--log`, else `RUST_LOG`, else the `log` key of a node's configuration, else
/// warnings.
///
/// # Errors
/// `log_filter` when the filter has no valid form.
pub fn start(asked: Option<&str>, command: &Command) -> Result<(), CliError> {
    let variable = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|filter| !filter.is_empty());
    let filter = asked.map(str::to_owned).or(variable).or_else(|| configured(command));
    let text = filter.as_deref().unwrap_or_else(|| default_filter(command));
    let filter = EnvFilter::try_new(text).map_err(|error| {
        let cause = format!("'{text}' is no log filter: {error}");
        CliError::usage("log_filter", cause, "use a level such as 'info', or 'info,openraft=warn'")
    })?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // In tests several commands run in one process; the first one's filter stays.
    let _ = subscriber.try_init();
    Ok(())
}

fn default_filter(command: &Command) -> &'static str {
    if matches!(command, Command::Channel(Channel::Tour)) { TOUR_FILTER } else { DEFAULT_FILTER }
}

/// The filter of a node's configuration. A configuration that cannot be read is reported by the
/// command itself.
fn configured(command: &Command) -> Option<String> {
    let Command::Node(node) = command else {
        return None;
    };
    let file = node.config.as_ref()?;
    shard_node::server::NodeConfig::load(file).ok().map(|config| config.log)
}
