//! In whose name commands to the beacon and to channels are signed: an organisation of the cluster, its
//! admin's key and its admin's certificate. Knows nothing of what is signed.

use std::collections::BTreeSet;

use beacon::limits::COMMAND_VALID_MS_MAX;
use beacon::{BeaconCommand, CommandOutcome, Phase, SignedCommand};
use client::{Client, CommandFate};
use ledger::genesis::Genesis;
use ledger::{JobId, OrgId, SecretKey, TimeMs};

use super::context::Context;
use crate::args::Admin;
use crate::error::CliError;
use crate::setup::ClusterDir;
use crate::setup::files::read_signing_key;
use crate::setup::pki::random;

/// So far this machine's clock may be ahead of the beacon's.
const CLOCK_SLACK_MS: u64 = 60_000;

/// How long a command may wait for its turn, minutes.
pub(super) const WITHIN_MINUTES: u64 = 5;

/// An organisation that signs.
pub(super) struct Signing {
    pub(super) id: OrgId,
    pub(super) name: String,
    pub(super) key: SecretKey,
}

/// Organisations as people name them: those of the genesis by name, and any by number, since one that
/// joined later is not in the genesis.
#[derive(Clone, Debug)]
pub(super) struct Orgs {
    known: Vec<(OrgId, String)>,
}

impl Orgs {
    pub(super) fn of(genesis: &Genesis) -> Self {
        Self { known: genesis.orgs.iter().map(|org| (org.id, org.name.clone())).collect() }
    }

    #[cfg(test)]
    pub(super) fn named(names: &[&str]) -> Self {
        let org = |(name, id): (&&str, u16)| (OrgId(id), (*name).to_owned());
        Self { known: names.iter().zip(1..).map(org).collect() }
    }

    /// The organisation of a name.
    pub(super) fn by_name(&self, name: &str) -> Option<OrgId> {
        self.known.iter().find(|(_, known)| known == name).map(|(id, _)| *id)
    }

    /// The name of an organisation of the genesis.
    pub(super) fn known(&self, id: OrgId) -> Option<String> {
        self.known.iter().find(|(known, _)| *known == id).map(|(_, name)| name.clone())
    }

    /// The name where one is known, else the number.
    pub(super) fn name(&self, id: OrgId) -> String {
        self.known(id).unwrap_or_else(|| id.to_string())
    }

    /// The organisation that a text of the command line names.
    pub(super) fn id(&self, text: &str) -> Result<OrgId, CliError> {
        self.by_name(text).or_else(|| text.parse().ok().map(OrgId)).ok_or_else(|| {
            let fix = "use a name of the genesis, or the organisation's number";
            CliError::usage("org", format!("there is no organisation '{text}'"), fix)
        })
    }
}

/// Signs in the name of an organisation of a cluster.
pub(super) struct Signer<'a> {
    admin: &'a Admin,
    context: Context,
    genesis: Genesis,
}

impl<'a> Signer<'a> {
    pub(super) fn of(admin: &'a Admin) -> Result<Self, CliError> {
        let context = Context::new(&admin.target)?;
        let genesis = context.profile()?.genesis()?;
        Ok(Self { admin, context, genesis })
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    pub(super) fn orgs(&self) -> Orgs {
        Orgs::of(&self.genesis)
    }

    fn dir(&self) -> ClusterDir {
        ClusterDir::at(self.context.dir())
    }

    /// The organisation that was named, else the one given, else the only one whose key is here; with its key.
    pub(super) fn org(&self, otherwise: Option<OrgId>) -> Result<Signing, CliError> {
        let (orgs, dir) = (self.orgs(), self.dir());
        let id = match (&self.admin.org, otherwise) {
            (Some(text), _) => orgs.id(text)?,
            (None, Some(org)) => org,
            (None, None) => {
                let mut here = self.genesis.orgs.iter().filter(|org| dir.admin_dir(&org.name).exists());
                match (here.next(), here.next()) {
                    (Some(org), None) => org.id,
                    _ => {
                        let cause = "it is not clear in whose name this is to be signed";
                        return Err(CliError::usage("org", cause, "name the organisation with --as"));
                    }
                }
            }
        };
        let name = orgs.name(id);
        let key = match &self.admin.key_file {
            Some(file) => read_signing_key(file)?,
            None => dir.admin_key(&name)?,
        };
        Ok(Signing { id, name, key })
    }

    /// As [`Context::client_of`].
    pub(super) async fn client_of(&self, org: &str) -> Result<Client, CliError> {
        self.context.client_of(org).await
    }

    /// As [`Context::client_among`].
    pub(super) async fn client_among(&self, org: &str, orgs: &BTreeSet<OrgId>) -> Result<Client, CliError> {
        self.context.client_among(org, orgs).await
    }

    /// A client for reading: of the organisation that was named, else that of the profile.
    pub(super) async fn reader(&self) -> Result<Client, CliError> {
        match &self.admin.org {
            Some(text) => {
                let orgs = self.orgs();
                self.client_of(&orgs.name(orgs.id(text)?)).await
            }
            None => self.context.client().await,
        }
    }

    /// Signs a command to the beacon and has it executed.
    pub(super) async fn command(
        &self,
        client: &Client,
        org: &Signing,
        command: &BeaconCommand,
        salt: [u8; 16],
        within_minutes: u64,
    ) -> Result<CommandFate, CliError> {
        Ok(client.command(signed(client, org, command, salt, within_minutes)).await?)
    }

    /// Signs a command about a job of shards and has it executed: says which job, and how far that has come.
    pub(super) async fn job_command(
        &self,
        client: &Client,
        org: &Signing,
        command: &BeaconCommand,
        salt: [u8; 16],
        within_minutes: u64,
    ) -> Result<(CommandFate, JobId, Phase), CliError> {
        let bytes = signed(client, org, command, salt, within_minutes);
        let (fate, outcome) = client.job_command::<CommandOutcome>(bytes).await?;
        match outcome {
            CommandOutcome::Job { id, phase } => Ok((fate, id, phase)),
            CommandOutcome::Applied
            | CommandOutcome::Pending { .. }
            | CommandOutcome::Founding { .. }
            | CommandOutcome::Founded { .. } => {
                let cause = format!("the beacon answers with {outcome:?}, which is about no job");
                Err(CliError::new("protocol", cause, "report it with both versions"))
            }
        }
    }
}

fn signed(client: &Client, org: &Signing, command: &BeaconCommand, salt: [u8; 16], within_minutes: u64) -> Vec<u8> {
    let until = valid_until(now(), within_minutes);
    SignedCommand::sign(&client.cluster_id(), command, org.id, salt, until, &org.key).encode()
}

/// What makes equal commands distinct.
pub(super) fn salt() -> Result<[u8; 16], CliError> {
    random::<16>().map_err(|error| CliError::from_message("randomness", error))
}

/// The time by this machine's clock.
pub(super) fn now() -> TimeMs {
    use std::time::{SystemTime, UNIX_EPOCH};
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    TimeMs(since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
}

/// Until when a command to the beacon is valid that is given so many minutes. The time of the beacon's blocks may be a little
/// behind this clock, so the most that it takes is not asked for to the last millisecond.
fn valid_until(now: TimeMs, within_minutes: u64) -> TimeMs {
    let most_ms = COMMAND_VALID_MS_MAX - CLOCK_SLACK_MS;
    TimeMs(now.0.saturating_add(within_minutes.saturating_mul(60_000).min(most_ms)))
}

/// So many minutes from now.
pub(super) fn ahead(minutes: u64) -> TimeMs {
    TimeMs(now().0.saturating_add(minutes.saturating_mul(60_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_asks_for_no_more_than_a_beacon_takes_that_is_a_little_behind() {
        let now = TimeMs(1_000_000);
        assert_eq!(valid_until(now, 5), TimeMs(1_000_000 + 300_000));
        for minutes in [1_440, u64::MAX] {
            let until = valid_until(now, minutes);
            assert!(until.0 < now.0 + COMMAND_VALID_MS_MAX, "{minutes}");
            assert_eq!(until.0, now.0 + 1_439 * 60_000, "{minutes}");
        }
    }
}
