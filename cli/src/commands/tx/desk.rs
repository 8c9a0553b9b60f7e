//! What transaction files are read, written and shown with: names, the layout, and the cluster they
//! are for.

use std::io::Write as _;
use std::path::Path;

use client::{Client, Consistency};
use ledger::{Address, Authorisation, ClusterId, Hash32, Layout, TimeMs};
use proto::edge;

use super::super::context::{Context, assets_of};
use crate::args::Target;
use crate::draft::file::{Frame, TxFile};
use crate::draft::form;
use crate::draft::words::{Labels, Plan};
use crate::error::CliError;
use crate::load::sign::Party;
use crate::setup::pki::random;

/// A place to work on transaction files.
pub(super) struct Desk {
    context: Context,
    client: Option<Client>,
    cluster: ClusterId,
    layout: Layout,
    labels: Labels,
}

impl Desk {
    /// With the cluster, or offline with its genesis alone.
    pub(super) async fn open(target: &Target, offline: bool) -> Result<Self, CliError> {
        let context = Context::new(target)?;
        let genesis = context.profile()?.genesis()?;
        let labels = context.labels();
        let (mut client, mut layout) = (None, genesis.layout.clone());
        if !offline {
            let connected = context.client().await?;
            layout = edge::value("layout", &connected.cluster().await?.layout)?;
            client = Some(connected);
        }
        Ok(Self { context, client, cluster: genesis.cluster_id(), layout, labels })
    }

    pub(super) fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The cluster; there is one unless the desk is offline.
    pub(super) fn client(&self) -> Result<&Client, CliError> {
        let offline = || CliError::usage("offline", "this needs the cluster", "leave out --offline");
        self.client.as_ref().ok_or_else(offline)
    }

    pub(super) fn party(&self, key: &str) -> Result<Party, CliError> {
        self.context.party(Some(key))
    }

    /// Reads a transaction file for this cluster.
    pub(super) fn read(&self, path: &Path) -> Result<TxFile, CliError> {
        let text = read_text(path)?;
        let file = TxFile::from_text(&text).map_err(|error| error.context(path.display()))?;
        if file.body().cluster == self.cluster {
            return Ok(file);
        }
        let reject = ledger::Reject::WrongCluster;
        Err(CliError::new(reject.code(), reject.cause(), reject.fix()).context(path.display()))
    }

    /// Builds a transaction from a form.
    pub(super) async fn build(&mut self, path: &Path) -> Result<TxFile, CliError> {
        let text = read_text(path)?;
        let reading = form::read(&text, &self.context).map_err(|error| error.context(path.display()))?;
        for (address, name) in &reading.joint_names {
            self.labels.accounts.insert(*address, name.clone());
        }
        let known = self.known_rules(&reading).await?;
        let frame = Frame {
            cluster: self.cluster,
            layout: &self.layout,
            valid_until_ms: TimeMs(now_ms()?.saturating_add(reading.valid_for_ms)),
            salt: random()?,
            slot_secret: Hash32(random()?),
            memo: &reading.memo,
        };
        let rule = |account: &Address| known.iter().find(|(known, _)| known == account).map(|(_, rule)| rule.clone());
        TxFile::build(&frame, &reading.legs, rule).map_err(|error| error.context(path.display()))
    }

    /// By what accounts are authorised: what the ledger says now, else what the form says, else the
    /// key of the keystore that the account started with.
    async fn known_rules(&self, reading: &form::Reading) -> Result<Vec<(Address, Authorisation)>, CliError> {
        let voters = reading.legs.iter().flat_map(|leg| leg.mv.voters());
        let mut accounts: Vec<Address> = voters.filter(|voter| voter.authorises).map(|voter| voter.account).collect();
        accounts.sort_unstable();
        accounts.dedup();
        let mut rules = Vec::new();
        if let Some(client) = &self.client {
            let records = client.accounts(&accounts, Consistency::Linearizable).await?;
            let found = accounts.iter().zip(records);
            rules.extend(found.filter_map(|(account, record)| Some((*account, record?.auth?))));
        }
        rules.extend(reading.joint.iter().cloned());
        rules.extend(self.labels.keys.keys().map(|key| {
            let rule = Authorisation::Single(*key);
            (rule.address(), rule)
        }));
        Ok(rules)
    }

    /// What a file means, in words.
    pub(super) async fn plan(&mut self, file: &TxFile) -> Plan {
        if let Some(client) = &self.client {
            let assets = assets_of(file.moves().filter_map(|(_, mv)| mv));
            self.context.label_assets(client, assets, &mut self.labels).await;
        }
        Plan::of(file, &self.layout, &self.labels)
    }
}

fn now_ms() -> Result<u64, CliError> {
    let clock = |_| CliError::new("clock", "this machine's clock is before 1970", "set it");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_err(clock)?;
    Ok(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

/// Reads a form or a file; both have a size that no sound one exceeds.
pub(super) fn read_text(path: &Path) -> Result<String, CliError> {
    let length = std::fs::metadata(path).map_err(|error| CliError::file(path, &error))?.len();
    if length > crate::draft::file::FILE_BYTES_MAX as u64 {
        let cause = format!("{} is too large for a transaction", path.display());
        return Err(CliError::new("tx_file", cause, "check that it is the right file"));
    }
    std::fs::read_to_string(path).map_err(|error| CliError::file(path, &error))
}

/// Writes a transaction file in one step: a crash leaves the old one or the new one. Only its owner
/// may read it, since openings of hidden moves are in it.
pub(super) fn write(path: &Path, file: &TxFile) -> Result<(), CliError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut temp| {
        temp.write_all(file.to_text().as_bytes())?;
        temp.as_file().sync_all()?;
        temp.persist(path).map_err(|error| error.error)
    });
    written.map(|_| ()).map_err(|error| CliError::file(path, &error))
}
