//! The files of the keys that a node signs with, and what it does while one is being replaced.
//!
//! Whoever replaces the key puts the next one beside it before the registry hears of it. The node takes it up as soon as the
//! registry names it by that key; from then on it has both, and signs each block with the one that the block's committee
//! names. The last step is here, too: once no committee names the key before, in the registry and in every group that runs
//! here, and every block that hands over is certified, the next key takes the place of the one before, which is gone then.
//! Who has which key is for the beacon to say ([`beacon::keys`]); nothing is made or chosen here.
//!
//! | | `signing.key` | `signing.key.next` | the node holds |
//! |---|---|---|---|
//! | nothing under way | the key | none | one |
//! | the next one is made | the key | the next one | both from its next start on, or from the registry's word on |
//! | the registry has it | the key before | the key | both |
//! | every group has it | the key | none | one |

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use client::secrets::{Keyring, SecretError};
use ledger::ids::NodeId;
use ledger::view::ReadFault;
use ledger::{Committee, NodeKeys, PublicKey, SecretKey, schema};
use parking_lot::Mutex;
use router::gateway::ClusterView;

use crate::server::config::NodeConfig;
use crate::server::group::{GroupHandle, HostContext};
use crate::server::local::Hosted;
use crate::server::membership;

/// The file of the key that follows the one in this file.
#[must_use]
pub fn next_file(signing_key: &Path) -> PathBuf {
    beside(signing_key, ".next")
}

fn beside(signing_key: &Path, ending: &str) -> PathBuf {
    let mut name = signing_key.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    signing_key.with_file_name(name)
}

/// Where the keys of a node are.
#[derive(Clone, Debug)]
pub struct KeyFiles {
    signing_key: PathBuf,
    passphrase_file: Option<PathBuf>,
}

impl KeyFiles {
    /// As the node's configuration names them.
    #[must_use]
    pub fn of(config: &NodeConfig) -> Self {
        Self { signing_key: config.signing_key.clone(), passphrase_file: config.passphrase_file.clone() }
    }

    /// Beside this file, which no passphrase opens.
    #[cfg(test)]
    pub(crate) fn at(signing_key: PathBuf) -> Self {
        Self { signing_key, passphrase_file: None }
    }

    /// The node's key, and behind it the next one if there is one.
    ///
    /// # Errors
    /// [`SecretError`] for either: a node that has taken part with both may need both.
    pub fn load(&self, keyring: &mut Keyring) -> Result<NodeKeys, SecretError> {
        let keys = NodeKeys::from(keyring.signing_key(&self.signing_key)?);
        let next = next_file(&self.signing_key);
        if next.exists() {
            keys.add(keyring.signing_key(&next)?);
        }
        Ok(keys)
    }

    /// Whether the node has had this key before the one in its file. What it knows of the registry may be that old.
    #[must_use]
    pub fn had(&self, key: &PublicKey) -> bool {
        let known = fs::read_to_string(self.former()).unwrap_or_default();
        known.lines().any(|line| line == key.to_string())
    }

    /// The public halves of keys that were replaced.
    fn former(&self) -> PathBuf {
        beside(&self.signing_key, ".former")
    }

    /// Puts the next key, which has to be this one, in the place of those before, whose public halves are kept. Done again it
    /// changes nothing: what lies beside the key then may be the one that follows it.
    fn put_in_place(&self, key: &PublicKey, before: &[PublicKey]) -> std::io::Result<()> {
        let (former, next) = (self.former(), next_file(&self.signing_key));
        let mut keyring = Keyring::finding(self.passphrase_file.clone());
        let mut public =
            |path: &Path| keyring.signing_key(path).map(|found| found.public()).map_err(std::io::Error::other);
        let done = public(&self.signing_key).is_ok_and(|found| found == *key);
        if !done && public(&next)? != *key {
            return Err(std::io::Error::other(format!("{} does not hold the key {key}", next.display())));
        }
        let mut known = match fs::read_to_string(&former) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            read => read.unwrap_or_default(),
        };
        for name in before.iter().map(ToString::to_string) {
            if known.lines().all(|line| line != name) {
                known.push_str(&name);
                known.push('\n');
            }
        }
        let fresh = beside(&former, ".new");
        let mut file = File::create(&fresh)?;
        file.write_all(known.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, &former)?;
        if !done {
            fs::rename(&next, &self.signing_key)?;
        }
        let folder = self.signing_key.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

/// The key that a node signs with what it tells the beacon of others and of jobs: one by which a committee in force names
/// it, else that of the registry. `None` while it holds none of them.
#[must_use]
pub fn voice(context: &HostContext, view: &ClusterView) -> Option<SecretKey> {
    let seats = view.committees.values();
    let named = seats.filter_map(|committee| named_in(committee, context.node));
    let known = view.nodes.get(&context.node).map(|info| info.key);
    named.chain(known).find_map(|key| context.key.of(&key))
}

fn named_in(committee: &Committee, node: NodeId) -> Option<PublicKey> {
    committee.index_of(node).map(|at| committee.members[at].key)
}

/// What a view asks of the node's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The node has what it needs, and nothing that it does not need.
    Rests,
    /// It is named by a key that it does not hold.
    Lacks(PublicKey),
    /// Committees name it by several keys.
    Both,
    /// The registry and all its committees name it by this key, and it holds others.
    Last(PublicKey),
}

/// `held` are the keys of the node, that of its file first.
fn stage(view: &ClusterView, node: NodeId, held: &[PublicKey]) -> Stage {
    let Some(registered) = view.nodes.get(&node).map(|info| info.key) else { return Stage::Rests };
    let committees = view.committees.values().chain(view.coming.values());
    let mut named: Vec<PublicKey> = committees.filter_map(|committee| named_in(committee, node)).collect();
    named.push(registered);
    named.sort_unstable();
    named.dedup();
    match named.iter().find(|key| !held.contains(key)) {
        Some(missing) => Stage::Lacks(*missing),
        None if named.len() > 1 => Stage::Both,
        // The next one may be made before the registry has it.
        None if held.len() > 1 && held[0] != registered => Stage::Last(registered),
        None => Stage::Rests,
    }
}

/// Follows what the registry says of the node's own key.
pub struct Rotation {
    hosted: Arc<Hosted>,
    files: KeyFiles,
    /// The key that it has said it lacks.
    lacked: Mutex<Option<PublicKey>>,
}

impl Rotation {
    /// For the node that hosts these groups, with its keys in these files.
    #[must_use]
    pub fn new(hosted: Arc<Hosted>, files: KeyFiles) -> Self {
        Self { hosted, files, lacked: Mutex::default() }
    }

    /// Does what a view asks for. Returns whether more is to be expected soon.
    pub async fn adapt(&self, view: &ClusterView) -> bool {
        let context = &self.hosted.context;
        match stage(view, context.node, &context.key.public()) {
            Stage::Rests => false,
            Stage::Both => true,
            Stage::Lacks(key) => {
                self.take_up(key).await;
                false
            }
            Stage::Last(key) => !(self.is_last(view, &key) && self.drop_others(key).await),
        }
    }

    /// Takes up the next key, if it is the one that is lacked.
    async fn take_up(&self, key: PublicKey) {
        if self.files.had(&key) {
            // The view is older than the file; the node follows the registry, and will see.
            return;
        }
        let next = next_file(&self.files.signing_key);
        let mut keyring = Keyring::finding(self.files.passphrase_file.clone());
        let path = next.clone();
        let read = tokio::task::spawn_blocking(move || keyring.signing_key(&path)).await;
        let why = match read {
            Ok(Ok(found)) if found.public() == key => {
                self.hosted.context.key.add(found);
                *self.lacked.lock() = None;
                tracing::info!(%key, "this node signs with its next key where a committee names it by that one");
                return;
            }
            Ok(Ok(found)) => format!("it holds the key {}", found.public()),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        if self.lacked.lock().replace(key) != Some(key) {
            tracing::error!(
                %key,
                file = %next.display(),
                "the registry names this node by a key that it does not have ({why}); put it into this file, sealed as the one \
                 beside it"
            );
        }
    }

    /// Whether no group needs another key than this one of the node. Asks for what is missing to say so.
    fn is_last(&self, view: &ClusterView, key: &PublicKey) -> bool {
        let node = self.hosted.context.node;
        let groups = self.hosted.groups.read();
        let seats = view.committees.values().filter(|committee| committee.index_of(node).is_some());
        let all_run = seats.map(|committee| &committee.group).all(|group| groups.contains_key(group));
        // Every one is looked at, so that all ask for what they miss.
        let others: Vec<_> =
            groups.values().filter(|handle| !matches!(has_taken(handle, node, key), Ok(true))).collect();
        all_run && others.is_empty()
    }

    async fn drop_others(&self, key: PublicKey) -> bool {
        let (files, held) = (self.files.clone(), self.hosted.context.key.clone());
        let before: Vec<PublicKey> = held.public().into_iter().filter(|other| *other != key).collect();
        let placed = tokio::task::spawn_blocking(move || files.put_in_place(&key, &before)).await;
        match placed {
            Ok(Ok(())) => {
                held.keep(&key);
                tracing::info!(%key, "the key before is gone: no group needs it any more");
                true
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the next key could not be put in the place of the one before; it is tried again");
                false
            }
            Err(error) => {
                tracing::error!(%error, "putting a key in its place failed");
                false
            }
        }
    }
}

/// Whether a group here signs nothing more with another key of the node than this one: the committee in force and the one
/// that is prepared name it so, the last certificate leads there, and no block that hands over misses its certificate.
fn has_taken(handle: &GroupHandle, node: NodeId, key: &PublicKey) -> Result<bool, ReadFault> {
    if let Some(height) = membership::uncertified_handover(handle)? {
        handle.want_certificate(height);
        return Ok(false);
    }
    let state = &handle.share.state;
    let current: Option<Committee> = state.load(&schema::current_committee(handle.group))?;
    let coming: Option<Committee> = state.load(&schema::coming_committee())?;
    let Some(current) = current else { return Ok(false) };
    let hash = current.hash();
    let certified = handle.certified.borrow();
    let leads_there = certified.as_ref().is_some_and(|certificate| {
        certificate.header.committee_hash == hash || certificate.header.next_committee_hash == hash
    });
    let mut named = [Some(&current), coming.as_ref()].into_iter().flatten();
    Ok(leads_there && named.all(|committee| named_in(committee, node).is_none_or(|named| named == *key)))
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
