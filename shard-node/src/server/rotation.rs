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
//!
//! Where a group cannot take the key, as it has no quorum, the registry may be given one more, which lies in `signing.key.next.2`,
//! and so on. The files are in the order of their keys, and each goes when no group needs its key.
//!
//! A closed channel is waited for as well, since its certificates may still be wanted for a change of its committee: for an hour
//! behind all others ([`CLOSED_WAIT`]). Then it is taken to have no quorum, and the key goes: what happened in it is certified.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use channel::Phase;
use channel::state::{ChannelRecord, channel_key};
use client::secrets::{Keyring, SecretError};
use ledger::ids::{GroupId, NodeId};
use ledger::view::ReadFault;
use ledger::{Committee, NodeKeys, PublicKey, SecretKey, schema};
use parking_lot::Mutex;
use router::gateway::ClusterView;

use crate::server::config::NodeConfig;
use crate::server::group::{GroupHandle, HostContext};
use crate::server::local::Hosted;
use crate::server::membership;

/// How long a key is kept that closed channels alone need: one with a quorum takes the next key in seconds.
pub const CLOSED_WAIT: Duration = Duration::from_secs(60 * 60);
/// Keys that may follow the one in force and are not in its place, at most.
pub const NEXT_KEYS_MAX: usize = 16;

const NEXT: &str = ".next";

/// The file of the first key that follows the one in this file.
#[must_use]
pub fn next_file(signing_key: &Path) -> PathBuf {
    beside(signing_key, NEXT)
}

/// The files of all keys that follow the one in this file, as far as they are there, the oldest first.
#[must_use]
pub fn next_files(signing_key: &Path) -> Vec<PathBuf> {
    numbers(signing_key).into_iter().map(|number| numbered(signing_key, number)).collect()
}

/// The file for one more key behind those that are there; `None` when there are [`NEXT_KEYS_MAX`].
#[must_use]
pub fn free_file(signing_key: &Path) -> Option<PathBuf> {
    let there = numbers(signing_key);
    let free = there.last().map_or(Some(1), |last| last.checked_add(1));
    free.filter(|_| there.len() < NEXT_KEYS_MAX).map(|number| numbered(signing_key, number))
}

fn numbered(signing_key: &Path, number: u32) -> PathBuf {
    if number == 1 { next_file(signing_key) } else { beside(signing_key, &format!("{NEXT}.{number}")) }
}

fn numbers(signing_key: &Path) -> Vec<u32> {
    let first = next_file(signing_key);
    let Some(first) = first.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    let Ok(entries) = fs::read_dir(folder_of(signing_key)) else { return Vec::new() };
    let number = |name: &str| match name.strip_prefix(first)? {
        "" => Some(1),
        rest => {
            let digits = rest.strip_prefix('.')?;
            digits.parse::<u32>().ok().filter(|number| *number > 1 && number.to_string() == digits)
        }
    };
    let mut numbers: Vec<u32> = entries.flatten().filter_map(|entry| number(entry.file_name().to_str()?)).collect();
    numbers.sort_unstable();
    numbers
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
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

    /// The node's key, and behind it those that follow.
    ///
    /// # Errors
    /// [`SecretError`] for any: a node that has taken part with all of them may need all.
    pub fn load(&self, keyring: &mut Keyring) -> Result<NodeKeys, SecretError> {
        let keys = NodeKeys::from(keyring.signing_key(&self.signing_key)?);
        for next in next_files(&self.signing_key) {
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

    /// One of the keys that follow, by its public half, and those behind it; else what was found in its place.
    fn find(&self, key: &PublicKey) -> Result<(SecretKey, Vec<PublicKey>), String> {
        let mut keyring = Keyring::finding(self.passphrase_file.clone());
        let mut why = "there is none".to_owned();
        let mut files = next_files(&self.signing_key).into_iter();
        while let Some(path) = files.next() {
            match keyring.signing_key(&path) {
                Ok(found) if found.public() == *key => {
                    // One that cannot be read is not held either.
                    let later = files.filter_map(|path| keyring.signing_key(&path).ok());
                    return Ok((found, later.map(|key| key.public()).collect()));
                }
                Ok(found) => why = format!("{} holds the key {}", path.display(), found.public()),
                Err(error) => why = error.to_string(),
            }
        }
        Err(why)
    }

    /// Removes the files of these keys, whose public halves are kept. The first of those that are left takes the place of the
    /// first. Does nothing unless the key that `counts` is there, which is none of these. Done again it changes nothing.
    fn let_go(&self, counts: &PublicKey, idle: &[PublicKey]) -> std::io::Result<()> {
        let mut keyring = Keyring::finding(self.passphrase_file.clone());
        let mut found = Vec::new();
        for path in std::iter::once(self.signing_key.clone()).chain(next_files(&self.signing_key)) {
            let key = keyring.signing_key(&path).map_err(std::io::Error::other)?;
            found.push((path, key.public()));
        }
        if idle.contains(counts) || found.iter().all(|(_, key)| key != counts) {
            let why = format!("no file beside {} holds the key {counts}", self.signing_key.display());
            return Err(std::io::Error::other(why));
        }
        self.note(idle)?;
        let (gone, left): (Vec<_>, Vec<_>) = found.into_iter().partition(|(_, key)| idle.contains(key));
        for (path, _) in gone.iter().filter(|(path, _)| *path != self.signing_key) {
            fs::remove_file(path)?;
        }
        if let Some((path, _)) = left.first().filter(|(path, _)| *path != self.signing_key) {
            fs::rename(path, &self.signing_key)?;
        }
        File::open(folder_of(&self.signing_key))?.sync_all()
    }

    /// Keeps the public halves of keys, before the secret ones go.
    fn note(&self, keys: &[PublicKey]) -> std::io::Result<()> {
        let former = self.former();
        let mut known = match fs::read_to_string(&former) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            read => read.unwrap_or_default(),
        };
        for name in keys.iter().map(ToString::to_string) {
            if known.lines().all(|line| line != name) {
                known.push_str(&name);
                known.push('\n');
            }
        }
        let fresh = beside(&former, ".new");
        let mut file = File::create(&fresh)?;
        file.write_all(known.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, &former)
    }
}

/// The key that a node signs with what it tells the beacon of others and of jobs: that of the registry, else one by which a
/// committee in force names it. `None` while it holds none of them.
#[must_use]
pub fn voice(context: &HostContext, view: &ClusterView) -> Option<SecretKey> {
    let seats = view.committees.values();
    let named = seats.filter_map(|committee| named_in(committee, context.node));
    let known = view.nodes.get(&context.node).map(|info| info.key);
    known.into_iter().chain(named).find_map(|key| context.key.of(&key))
}

fn named_in(committee: &Committee, node: NodeId) -> Option<PublicKey> {
    committee.index_of(node).map(|at| committee.members[at].key)
}

/// What a view asks of the node's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// The node has what it needs, and nothing that it does not need.
    Rests,
    /// It is named by a key that it does not hold.
    Lacks(PublicKey),
    /// Committees name it by several keys.
    Both,
    /// It holds these keys from before the one of the registry, by which no committee of the registry names it.
    Idle(Vec<PublicKey>),
}

/// `held` are the keys of the node, the oldest first; those that it `had` are gone. Committees of groups that are `left` count
/// for nothing.
fn stage(
    view: &ClusterView,
    node: NodeId,
    held: &[PublicKey],
    had: impl Fn(&PublicKey) -> bool,
    left: &BTreeSet<GroupId>,
) -> Stage {
    let Some(registered) = view.nodes.get(&node).map(|info| info.key) else { return Stage::Rests };
    let Some(at) = held.iter().position(|key| *key == registered) else { return Stage::Lacks(registered) };
    let committees = view.committees.values().chain(view.coming.values());
    let counting = committees.filter(|committee| !left.contains(&committee.group));
    let mut named: Vec<PublicKey> = counting.filter_map(|committee| named_in(committee, node)).collect();
    named.push(registered);
    named.sort_unstable();
    named.dedup();
    if let Some(missing) = named.iter().find(|key| !held.contains(key) && !had(key)) {
        return Stage::Lacks(*missing);
    }
    named.retain(|key| held.contains(key));
    // One behind that of the registry may be made before the registry has it.
    let idle: Vec<PublicKey> = held[..at].iter().filter(|key| !named.contains(key)).copied().collect();
    match (idle.is_empty(), named.len()) {
        (false, _) => Stage::Idle(idle),
        (true, 1) => Stage::Rests,
        (true, _) => Stage::Both,
    }
}

/// Follows what the registry says of the node's own key.
pub struct Rotation {
    hosted: Arc<Hosted>,
    files: KeyFiles,
    /// The key that it has said it lacks.
    lacked: Mutex<Option<PublicKey>>,
    /// Since when closed channels alone keep keys from going.
    closed_alone: Mutex<Option<Instant>>,
}

impl Rotation {
    /// For the node that hosts these groups, with its keys in these files.
    #[must_use]
    pub fn new(hosted: Arc<Hosted>, files: KeyFiles) -> Self {
        Self { hosted, files, lacked: Mutex::default(), closed_alone: Mutex::default() }
    }

    /// Does what a view asks for. Returns whether more is to be expected soon.
    pub async fn adapt(&self, view: &ClusterView) -> bool {
        let idle = match self.stage(view, &BTreeSet::new()) {
            Stage::Rests => return false,
            Stage::Lacks(key) => {
                self.take_up(key).await;
                return false;
            }
            found @ (Stage::Both | Stage::Idle(_)) => self.may_go(view, found, Instant::now()),
        };
        if let Some(idle) = idle {
            self.drop_keys(view, idle).await;
        }
        self.stage(view, &BTreeSet::new()) != Stage::Rests
    }

    fn stage(&self, view: &ClusterView, left: &BTreeSet<GroupId>) -> Stage {
        let context = &self.hosted.context;
        stage(view, context.node, &context.key.public(), |key| self.files.had(key), left)
    }

    /// The keys that no group needs, or that closed channels alone have needed for so long that they have no quorum.
    fn may_go(&self, view: &ClusterView, found: Stage, now: Instant) -> Option<Vec<PublicKey>> {
        let free = |stage: Stage, left: &BTreeSet<GroupId>| match stage {
            Stage::Idle(idle) => {
                let free: Vec<PublicKey> = idle.into_iter().filter(|key| self.is_free(view, key, left)).collect();
                (!free.is_empty()).then_some(free)
            }
            Stage::Rests | Stage::Lacks(_) | Stage::Both => None,
        };
        if let Some(idle) = free(found, &BTreeSet::new()) {
            return Some(idle);
        }
        let closed = self.closed();
        let idle = free(self.stage(view, &closed), &closed);
        let over = waited(&mut self.closed_alone.lock(), idle.is_some(), now);
        idle.filter(|_| over)
    }

    /// The closed channels here in which everything is certified: no signature is missing of what happened there.
    fn closed(&self) -> BTreeSet<GroupId> {
        let groups = self.hosted.groups.read();
        groups.values().filter(|handle| is_over(handle).unwrap_or(false)).map(|handle| handle.group).collect()
    }

    /// Takes up the next key, if it is the one that is lacked.
    async fn take_up(&self, key: PublicKey) {
        if self.files.had(&key) {
            // The view is older than the file; the node follows the registry, and will see.
            return;
        }
        let files = self.files.clone();
        let read = tokio::task::spawn_blocking(move || files.find(&key)).await;
        let why = match read {
            Ok(Ok((found, later))) => {
                // A group may take a key up that another one has gone past.
                self.hosted.context.key.add_before(found, &later);
                *self.lacked.lock() = None;
                tracing::info!(%key, "this node signs with its next key where a committee names it by that one");
                return;
            }
            Ok(Err(why)) => why,
            Err(error) => error.to_string(),
        };
        if self.lacked.lock().replace(key) != Some(key) {
            tracing::error!(
                %key,
                file = %next_file(&self.files.signing_key).display(),
                "the registry names this node by a key that it does not have ({why}); put it into this file, sealed as the one \
                 beside it"
            );
        }
    }

    /// Whether no group needs a key of the node, but for those that are `left`. Asks for what is missing to say so.
    fn is_free(&self, view: &ClusterView, key: &PublicKey, left: &BTreeSet<GroupId>) -> bool {
        let node = self.hosted.context.node;
        let groups = self.hosted.groups.read();
        let seats = view.committees.values().filter(|committee| committee.index_of(node).is_some());
        let all_run = seats.map(|committee| &committee.group).all(|group| groups.contains_key(group));
        let counting = groups.values().filter(|handle| !left.contains(&handle.group));
        // Every one is looked at, so that all ask for what they miss.
        let others: Vec<_> = counting.filter(|handle| !matches!(has_let_go(handle, node, key), Ok(true))).collect();
        all_run && others.is_empty()
    }

    async fn drop_keys(&self, view: &ClusterView, idle: Vec<PublicKey>) {
        let Some(counts) = view.nodes.get(&self.hosted.context.node).map(|info| info.key) else { return };
        let (files, gone) = (self.files.clone(), idle.clone());
        let done = tokio::task::spawn_blocking(move || files.let_go(&counts, &gone)).await;
        match done {
            Ok(Ok(())) => {
                self.hosted.context.key.let_go(&idle);
                tracing::info!(key = %counts, "the key before is gone: no group needs it any more");
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "a key that no group needs could not be removed; it is tried again")
            }
            Err(error) => tracing::error!(%error, "removing a key failed"),
        }
    }
}

/// Whether something has been the case for [`CLOSED_WAIT`], without a break `since` then.
fn waited(since: &mut Option<Instant>, is_so: bool, now: Instant) -> bool {
    if !is_so {
        *since = None;
        return false;
    }
    now.saturating_duration_since(*since.get_or_insert(now)) >= CLOSED_WAIT
}

/// Whether a group here is a closed channel that misses no certificate.
fn is_over(handle: &GroupHandle) -> Result<bool, ReadFault> {
    let channel: Option<ChannelRecord> = handle.share.state.load(&channel_key())?;
    let applied = handle.share.stand.lock().applied.height;
    let certified = handle.certified.borrow().as_ref().is_some_and(|certificate| certificate.header.height >= applied);
    Ok(certified && channel.is_some_and(|channel| channel.phase == Phase::Closed))
}

/// Whether a group here signs nothing more with a key of the node: neither the committee in force nor the one that is
/// prepared names it so, the last certificate leads there, and no block that hands over misses its certificate.
fn has_let_go(handle: &GroupHandle, node: NodeId, key: &PublicKey) -> Result<bool, ReadFault> {
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
    Ok(leads_there && named.all(|committee| named_in(committee, node).is_none_or(|named| named != *key)))
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
