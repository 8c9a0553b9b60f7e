//! Replacing the storage key of a node that does not run.
//!
//! The local keys of its channels stay as they are, and so does what is sealed under them; each is sealed anew under the
//! new storage key. First every local key is written under both, then the storage key is replaced, and then the copies
//! under the old one go. Whatever an interruption leaves, each local key opens under the storage key that is there: the
//! next start of the node, and doing this again, go on from it.

use std::fs;
use std::path::{Path, PathBuf};

use client::secrets::Keyring;
use ledger::ids::{ClusterId, GroupId, GroupKind, NodeId};
use storage::{LogEngine, LogIdentity, ResourceLimits, SharedResources};

use super::{FILE, KEY_BYTES, Key, MAGIC, Vault, VaultError, file, random, write, write_storage_key};
use crate::server::config::NodeConfig;
use crate::server::node::{NodeError, load_genesis};

/// Replaces the storage key of a node. Returns how many local keys are sealed under it.
///
/// # Errors
/// [`NodeError`]; `storage_in_use` while the node runs.
pub fn rotate(config: &NodeConfig) -> Result<usize, NodeError> {
    let cluster = load_genesis(&config.genesis)?.cluster_id();
    let log = config.data_dir.join("log");
    // Held open until the end, so that the node cannot start in between. Opening one that is not there would make it.
    let _running = if LogEngine::is_there(&log)? {
        let resources = SharedResources::new(ResourceLimits::default())?;
        Some(LogEngine::open(&log, &resources, LogIdentity { cluster: cluster.0.0, node: config.node.0 })?)
    } else {
        None
    };
    let mut keyring = config.keyring();
    let replacing = Replacing::begin(&config.storage_key, &config.data_dir, cluster, config.node, &mut keyring)?;
    replacing.seal_under_both()?;
    replacing.put_in_place(&mut keyring)?;
    replacing.finish()?;
    Ok(replacing.local.len())
}

/// A storage key that is being replaced, step by step.
pub(super) struct Replacing {
    path: PathBuf,
    old: Vault,
    new: Vault,
    key: Key,
    /// The channels, the files of their local keys, and these keys.
    local: Vec<(GroupId, PathBuf, Key)>,
}

impl Replacing {
    /// Draws the new key, and opens all local keys before anything changes.
    pub(super) fn begin(
        path: &Path,
        data_dir: &Path,
        cluster: ClusterId,
        node: NodeId,
        keyring: &mut Keyring,
    ) -> Result<Self, VaultError> {
        let old = Vault::open(path, data_dir, cluster, node, keyring)?;
        let key = random::<KEY_BYTES>()?;
        let new = Vault::under(&key, cluster, node)?;
        let mut local = Vec::new();
        for (group, path) in local_keys(data_dir)? {
            let bytes = fs::read(&path).map_err(|error| file(&path, &error))?;
            let opened = old.opened(group, &path, bytes)?;
            local.push((group, path, opened));
        }
        Ok(Self { path: path.to_owned(), old, new, key, local })
    }

    /// From here on every local key opens under either storage key.
    pub(super) fn seal_under_both(&self) -> Result<(), VaultError> {
        for (group, path, key) in &self.local {
            let both = [&self.old.sealed(*group, key)[..], &self.new.sealed(*group, key)[MAGIC.len()..]].concat();
            write(path, &both).map_err(|error| file(path, &error))?;
        }
        Ok(())
    }

    /// From here on the new key is the node's.
    pub(super) fn put_in_place(&self, keyring: &mut Keyring) -> Result<(), VaultError> {
        write_storage_key(&self.path, &self.key, keyring)
    }

    /// From here on nothing opens under the old one.
    pub(super) fn finish(&self) -> Result<(), VaultError> {
        for (group, path, key) in &self.local {
            write(path, &self.new.sealed(*group, key)).map_err(|error| file(path, &error))?;
        }
        Ok(())
    }
}

/// The local keys below a data folder. A channel that the node has left keeps none that counts.
fn local_keys(data_dir: &Path) -> Result<Vec<(GroupId, PathBuf)>, VaultError> {
    let mut found = Vec::new();
    for folder in fs::read_dir(data_dir).map_err(|error| file(data_dir, &error))? {
        let folder = folder.map_err(|error| file(data_dir, &error))?;
        let group = folder.file_name().to_str().and_then(|name| name.parse::<GroupId>().ok());
        let path = folder.path().join(FILE);
        if let Some(group) = group.filter(|group| group.kind() == Some(GroupKind::Channel) && path.exists()) {
            found.push((group, path));
        }
    }
    Ok(found)
}
