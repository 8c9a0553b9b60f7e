//! Commands to the beacon: the one way in which the SDK changes the registry.

use std::time::Duration;

use bytes::Bytes;
use ledger::{GroupId, Hash32, Height};
use proto::{edge, v1};

use crate::error::ClientError;
use crate::routers::Backoff;
use crate::sdk::Client;

/// What an organisation's command to the beacon has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandFate {
    /// What names the command: the digest that its admin signed.
    pub digest: Hash32,
    /// Organisations that have approved and how many have to; `None` when the change is in force.
    pub pending: Option<(u32, u32)>,
    /// The beacon's height at which this is known.
    pub height: Height,
}

impl Client {
    /// Hands over an organisation's command to the beacon, encoded and signed by its admin, and waits
    /// until it is executed. The same bytes may be sent any number of times.
    ///
    /// # Errors
    /// [`ClientError`]: [`ClientError::Refused`] says why the registry did not change; after `timeout`
    /// and [`ClientError::Unreachable`] it may have, and sending the same bytes again tells.
    pub async fn command(&self, signed: impl Into<Bytes>) -> Result<CommandFate, ClientError> {
        let request = v1::CommandRequest { command: signed.into() };
        let mut backoff = Backoff::new(self.patience);
        loop {
            let reply = self
                .call(|mut router| {
                    let request = request.clone();
                    async move { router.command(request).await }
                })
                .await?;
            let Some(refusal) = &reply.refusal else {
                let pending = (reply.needed > 0).then_some((reply.approvals, reply.needed));
                let digest = edge::hash("digest", &reply.digest)?;
                return Ok(CommandFate { digest, pending, height: Height(reply.height) });
            };
            let error = ClientError::refused(refusal).by(Some(GroupId::BEACON));
            match backoff.delay(Duration::from_millis(u64::from(refusal.retry_after_ms))) {
                Some(delay) if error.retryable() => tokio::time::sleep(delay).await,
                _ => return Err(error),
            }
        }
    }
}
