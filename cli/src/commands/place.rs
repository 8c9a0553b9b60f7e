//! The ledger that a command is about, with a client for it: the main ledger, or a channel, which is shown to its
//! members alone and by whose certificate asks.

use client::Client;
use ledger::LedgerId;

use super::channel::names;
use super::context::Context;
use super::signer::Orgs;
use crate::args::InLedger;
use crate::error::CliError;

/// A ledger, and what commands need there.
pub(super) struct Place {
    pub(super) context: Context,
    pub(super) client: Client,
    pub(super) ledger: LedgerId,
}

impl Place {
    /// Connects as whoever asks, and finds the channel if one is named.
    ///
    /// # Errors
    /// `channel_unknown` when the directory does not have it, `org` of an organisation that nobody knows, and what
    /// connecting ends with.
    pub(super) async fn enter(context: Context, on: &InLedger) -> Result<Self, CliError> {
        let client = match &on.asking {
            Some(text) => {
                let orgs = Orgs::of(&context.profile()?.genesis()?);
                Box::pin(context.client_of(&orgs.name(orgs.id(text)?))).await?
            }
            None => Box::pin(context.client()).await?,
        };
        let ledger = match &on.channel {
            Some(name) => LedgerId::of_channel(Box::pin(names::channel(&client, name)).await?.group),
            None => LedgerId::MAIN,
        };
        Ok(Self { context, client, ledger })
    }
}
