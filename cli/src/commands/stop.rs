//! The two signals that end a command that runs until it is stopped.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::CliError;

/// Hears Ctrl-C and SIGTERM from the moment it is made.
pub(super) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    pub(super) fn listen() -> Result<Self, CliError> {
        let hear = |kind| {
            signal(kind).map_err(|error| {
                CliError::new("signal", format!("signals cannot be heard: {error}"), "run it in an ordinary process")
            })
        };
        Ok(Self { interrupt: hear(SignalKind::interrupt())?, terminate: hear(SignalKind::terminate())? })
    }

    /// Resolves when one has come.
    pub(super) async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The error of a command that was stopped before its work was done.
pub(super) fn interrupted() -> CliError {
    CliError::new(
        "interrupted",
        "stopped before it was done",
        "run it again; what was acknowledged is kept in a cluster that is",
    )
}
