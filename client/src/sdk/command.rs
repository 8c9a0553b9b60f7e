//! Commands to the beacon and to channels: the one way in which the SDK changes the registry, and who takes
//! part in what.

use std::time::Duration;

use borsh::BorshDeserialize;
use bytes::Bytes;
use ledger::{GroupId, Hash32, Height, Reject};
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
    /// What it has come to, if it was about the founding of a channel.
    pub founding: Option<FoundingFate>,
    /// The beacon's height at which this is known.
    pub height: Height,
}

/// What a founding has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundingFate {
    /// What names the founding.
    pub id: Hash32,
    /// The channel, once it is founded.
    pub channel: Option<GroupId>,
    /// It was rejected or withdrawn.
    pub abandoned: bool,
}

/// What an organisation's command to a channel has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelFate {
    /// What names the command.
    pub digest: Hash32,
    /// What it did.
    pub outcome: channel::Outcome,
    /// The channel's height at which this is known.
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
        fate_of(&self.commanded(GroupId::BEACON, signed.into()).await?)
    }

    /// As [`Self::command`], for a command about a job of shards: with what that has come to, which is a
    /// `beacon::CommandOutcome`, and this crate does not know it.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn job_command<T: BorshDeserialize>(
        &self,
        signed: impl Into<Bytes>,
    ) -> Result<(CommandFate, T), ClientError> {
        let reply = self.commanded(GroupId::BEACON, signed.into()).await?;
        Ok((fate_of(&reply)?, edge::value("outcome", &reply.outcome)?))
    }

    /// Hands over an organisation's command to a channel, as [`Self::command`] does to the beacon.
    ///
    /// # Errors
    /// As [`Self::command`]; the detail of `channel_refused` starts with the code of the channel's rule.
    pub async fn channel_command(
        &self,
        channel: GroupId,
        signed: impl Into<Bytes>,
    ) -> Result<ChannelFate, ClientError> {
        let reply = self.commanded(channel, signed.into()).await?;
        Ok(ChannelFate {
            digest: edge::hash("digest", &reply.digest)?,
            outcome: edge::value("outcome", &reply.outcome)?,
            height: Height(reply.height),
        })
    }

    async fn commanded(&self, group: GroupId, command: Bytes) -> Result<v1::CommandReply, ClientError> {
        let request =
            v1::CommandRequest { command, group: if group == GroupId::BEACON { 0 } else { group.0 }, caller: None };
        let mut backoff = Backoff::new(self.patience);
        let mut refusing = Vec::new();
        loop {
            let (turn, reply) = self
                .call_in_turn(|mut router| {
                    let request = request.clone();
                    async move { router.command(request).await }
                })
                .await?;
            let Some(refusal) = &reply.refusal else { return Ok(reply) };
            let error = ClientError::refused(refusal).by(Some(group));
            // Routers of organisations that take no part in a channel may hand nothing to it.
            if refusal.reject() == Some(Reject::AccessDenied) && self.elsewhere(turn, &mut refusing, &mut backoff).await
            {
                continue;
            }
            match backoff.delay(Duration::from_millis(u64::from(refusal.retry_after_ms))) {
                Some(delay) if error.retryable() => tokio::time::sleep(delay).await,
                _ => return Err(error),
            }
        }
    }
}

fn fate_of(reply: &v1::CommandReply) -> Result<CommandFate, ClientError> {
    let founding = match reply.founding.is_empty() {
        true => None,
        false => Some(FoundingFate {
            id: edge::hash("founding", &reply.founding)?,
            channel: (reply.channel != 0).then_some(GroupId(reply.channel)),
            abandoned: reply.abandoned,
        }),
    };
    Ok(CommandFate {
        digest: edge::hash("digest", &reply.digest)?,
        pending: (reply.needed > 0).then_some((reply.approvals, reply.needed)),
        founding,
        height: Height(reply.height),
    })
}
