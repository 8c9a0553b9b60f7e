//! The last proved registry, kept in the data folder, so that a node finds its groups again while
//! nobody of the beacon answers.
//!
//! What is kept is the proof as it was followed, and it is judged again when it is read: a file that
//! was altered or cut off proves nothing, and the node starts from the genesis as it did at first. Beside it lie the
//! hand-overs of the beacon's committee, which lead from the genesis to the one that certified it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use beacon::proof::Judged;
use beacon::{RegistryProof, Succession};
use borsh::{BorshDeserialize, BorshSerialize};
use ledger::genesis::Genesis;
use ledger::handover::Handover;
use ledger::ids::{GroupId, Height};
use router::gateway::ClusterView;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The file below a data folder.
const FILE: &str = "registry";
/// The file beside it with the hand-overs of the beacon; not there before the first.
const HANDOVERS: &str = "beacon-handovers";
/// Version of that file.
const HANDOVERS_FORMAT: u8 = 1;

/// What stands in the file of hand-overs.
#[derive(BorshSerialize, BorshDeserialize)]
struct Steps {
    version: u8,
    /// From the committee of the genesis on.
    steps: Vec<Handover>,
}

/// A registry that was proved to this node before.
pub struct Kept {
    /// The registry.
    pub registry: beacon::ClusterView,
    /// The beacon's height that proves it.
    pub height: Height,
    /// The encoded proof, as others are shown it.
    pub proof: Vec<u8>,
    /// The committees of the beacon that are known with it.
    pub succession: Succession,
}

/// Reads and judges what is kept under a data folder; `None` when there is nothing of use.
#[must_use]
pub fn load(data_dir: &Path, genesis: &Genesis) -> Option<Kept> {
    let path = data_dir.join(FILE);
    let bytes = read(&path)?;
    let first = Succession::new(genesis.committee(GroupId::BEACON)?.clone());
    let steps = read(&data_dir.join(HANDOVERS)).and_then(|bytes| borsh::from_slice::<Steps>(&bytes).ok());
    let steps = steps.filter(|found| found.version == HANDOVERS_FORMAT).map(|found| found.steps).unwrap_or_default();
    let judged = RegistryProof::decode(&bytes).and_then(|proof| first.judge(&genesis.cluster_id(), &proof, &steps));
    match judged {
        Ok(Judged { registry, height, succession }) => Some(Kept { registry, height, proof: bytes, succession }),
        Err(error) => {
            tracing::warn!(path = %path.display(), code = error.code(), %error, "the kept registry is not proved");
            None
        }
    }
}

/// A file, if it is there.
fn read(path: &Path) -> Option<Vec<u8>> {
    match fs::read(path) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a kept registry cannot be read");
            None
        }
    }
}

/// Keeps every registry that the view has a proof of, until `stop`.
pub async fn keep(data_dir: PathBuf, mut view: watch::Receiver<std::sync::Arc<ClusterView>>, stop: CancellationToken) {
    let mut kept = view.borrow().proof.clone();
    loop {
        let (proof, beacon) = {
            let view = view.borrow_and_update();
            (view.proof.clone(), view.beacon.clone())
        };
        if !proof.is_empty() && proof != kept {
            let (folder, bytes) = (data_dir.clone(), proof.clone());
            let steps = beacon.map(|beacon| beacon.steps().to_vec()).unwrap_or_default();
            match tokio::task::spawn_blocking(move || write_all(&folder, &bytes, steps)).await {
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

/// Writes the hand-overs, if there are any, and then the registry: one that is there can be judged.
fn write_all(folder: &Path, registry: &[u8], steps: Vec<Handover>) -> std::io::Result<()> {
    if !steps.is_empty() {
        let steps = Steps { version: HANDOVERS_FORMAT, steps };
        write(folder, HANDOVERS, &borsh::to_vec(&steps)?)?;
    }
    write(folder, FILE, registry)
}

/// Replaces a file in one step.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let (path, fresh) = (folder.join(name), folder.join(format!("{name}.new")));
    let mut file = File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, &path)?;
    File::open(folder)?.sync_all()
}
