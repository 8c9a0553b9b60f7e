//! The last proved registry, kept in the data folder, so that a node finds its groups again while
//! nobody of the beacon answers.
//!
//! What is kept is the proof as it was followed, and it is judged again when it is read: a file that
//! was altered or cut off proves nothing, and the node starts from the genesis as it did at first.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use beacon::RegistryProof;
use ledger::genesis::Genesis;
use ledger::ids::{GroupId, Height};
use router::gateway::ClusterView;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The file below a data folder.
const FILE: &str = "registry";

/// A registry that was proved to this node before.
pub struct Kept {
    /// The registry.
    pub registry: beacon::ClusterView,
    /// The beacon's height that proves it.
    pub height: Height,
    /// The encoded proof, as others are shown it.
    pub proof: Vec<u8>,
}

/// Reads and judges what is kept under a data folder; `None` when there is nothing of use.
#[must_use]
pub fn load(data_dir: &Path, genesis: &Genesis) -> Option<Kept> {
    let path = data_dir.join(FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the kept registry cannot be read");
            return None;
        }
    };
    let beacon = genesis.committee(GroupId::BEACON)?;
    let judged = RegistryProof::decode(&bytes).and_then(|proof| proof.verify(&genesis.cluster_id(), beacon));
    match judged {
        Ok((registry, height)) => Some(Kept { registry, height, proof: bytes }),
        Err(error) => {
            tracing::warn!(path = %path.display(), code = error.code(), %error, "the kept registry is not proved");
            None
        }
    }
}

/// Keeps every registry that the view has a proof of, until `stop`.
pub async fn keep(data_dir: PathBuf, mut view: watch::Receiver<std::sync::Arc<ClusterView>>, stop: CancellationToken) {
    let mut kept = view.borrow().proof.clone();
    loop {
        let proof = view.borrow_and_update().proof.clone();
        if !proof.is_empty() && proof != kept {
            let (folder, bytes) = (data_dir.clone(), proof.clone());
            match tokio::task::spawn_blocking(move || write(&folder, &bytes)).await {
                Ok(Ok(())) => kept = proof,
                Ok(Err(error)) => tracing::warn!(%error, "the registry could not be kept"),
                Err(error) => tracing::error!(%error, "keeping the registry failed"),
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = view.changed() => if changed.is_err() { return },
        }
    }
}

/// Replaces the file in one step.
fn write(folder: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let (path, fresh) = (folder.join(FILE), folder.join("registry.new"));
    let mut file = File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, &path)?;
    File::open(folder)?.sync_all()
}
