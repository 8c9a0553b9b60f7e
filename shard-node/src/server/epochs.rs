//! What this node gives to the seeds of the beacon, if it is a member of it.
//!
//! Owns the secret of the epoch that runs: drawn here, and nowhere below, and kept durably in one file of the data folder
//! before anybody hears of it. So a node that starts again reveals what it has committed itself to, and never draws twice
//! for an epoch. It commits itself as soon as it sees an epoch, and reveals once a block of the beacon is past the time of
//! commitments: nobody who sees the secret can commit to anything any more. Both are repeated until the state has them; what
//! follows from them, the beacon decides ([`beacon::epochs`]).

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use beacon::Contribution;
use beacon::epochs::{Part, Phase, Round, commitment_of, round_key};
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use ledger::hash::{Hash32, sha256};
use ledger::ids::{ClusterId, GroupId, NodeId, TimeMs};
use rand::TryRngCore;

use crate::core::peer::PeerMessage;
use crate::server::local::Hosted;

/// The file below a data folder: [`MAGIC`], a [`Kept`], and the hash of both.
const FILE: &str = "epoch.secret";
const MAGIC: &[u8; 8] = b"SEAMEPOC";
const KEPT_VERSION: u8 = 1;
/// Readable by the owner alone.
const SECRET: u32 = 0o600;

/// A secret as it is kept.
#[derive(Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Kept {
    version: u8,
    cluster: ClusterId,
    node: NodeId,
    epoch: u64,
    secret: Hash32,
}

/// What there is to do for an epoch.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    /// Nothing, until something changes.
    Nothing,
    /// Draw a secret first.
    Draw,
    /// Give this.
    Give(Part),
    /// The state has a commitment to a secret that is not here.
    Lost,
}

/// What a member has to do as of a block of the beacon with this time.
fn due(round: &Round, now: TimeMs, (cluster, node): (&ClusterId, NodeId), kept: Option<(u64, Hash32)>) -> Due {
    let Some(entrant) = round.entrant(node).filter(|entrant| !entrant.barred) else { return Due::Nothing };
    let own = kept.filter(|(epoch, _)| *epoch == round.epoch).map(|(_, secret)| secret);
    let commitment = own.map(|secret| commitment_of(cluster, round.epoch, node, &secret));
    match (round.phase_at(now), entrant.commitment) {
        (Phase::Commit, None) => match commitment {
            Some(commitment) => Due::Give(Part::Commitment(commitment)),
            // A state that is behind shows an epoch that is over.
            None if kept.is_some_and(|(epoch, _)| epoch > round.epoch) => Due::Nothing,
            None => Due::Draw,
        },
        (Phase::Reveal, Some(known)) if entrant.secret.is_none() => match own {
            Some(secret) if commitment == Some(known) => Due::Give(Part::Secret(secret)),
            _ => Due::Lost,
        },
        (Phase::Commit, Some(_)) | (Phase::Reveal, _) | (Phase::Over, _) => Due::Nothing,
    }
}

/// Contributes until the node stops.
pub async fn contribute(hosted: Arc<Hosted>, data_dir: PathBuf) {
    let context = &hosted.context;
    let (cluster, node) = (context.genesis.cluster_id(), context.node);
    let mut readings = context.readings.clone();
    let folder = data_dir.clone();
    let read = tokio::task::spawn_blocking(move || read(&folder, &cluster, node)).await;
    let mut kept = read.ok().flatten();
    let mut lost = None;
    loop {
        tokio::select! {
            () = context.stop.cancelled() => return,
            // Once a second, by which what may be lost is repeated.
            changed = readings.changed() => if changed.is_err() { return },
        }
        readings.borrow_and_update();
        let Some(handle) = hosted.group(GroupId::BEACON.0).filter(|handle| handle.stopped().is_none()) else {
            continue;
        };
        let now = handle.share.stand.lock().applied.time_ms;
        let Ok(Some(round)) = handle.share.state.load::<Round>(&round_key()) else { continue };
        let known = kept.map(|kept: Kept| (kept.epoch, kept.secret));
        match due(&round, now, (&cluster, node), known) {
            Due::Nothing => {}
            Due::Draw => {
                let (folder, epoch) = (data_dir.clone(), round.epoch);
                let drawn = tokio::task::spawn_blocking(move || draw(&folder, cluster, node, epoch)).await;
                match drawn {
                    Ok(Ok(drawn)) => {
                        kept = Some(drawn);
                        let commitment = commitment_of(&cluster, epoch, node, &drawn.secret);
                        give(&hosted, cluster, &round, Part::Commitment(commitment));
                    }
                    Ok(Err(error)) => tracing::warn!(%error, "the secret of an epoch could not be kept"),
                    Err(error) => tracing::error!(%error, "drawing a secret failed"),
                }
            }
            Due::Give(part) => give(&hosted, cluster, &round, part),
            Due::Lost if lost != Some(round.epoch) => {
                lost = Some(round.epoch);
                tracing::warn!(
                    epoch = round.epoch,
                    "this node has committed itself to a secret that it does not have: {FILE} was lost or altered"
                );
            }
            Due::Lost => {}
        }
    }
}

fn give(hosted: &Hosted, cluster: ClusterId, round: &Round, part: Part) {
    let context = &hosted.context;
    // By whichever key the member's line has: it changes with the committee.
    let Some(key) = round.entrant(context.node).and_then(|entrant| context.key.of(&entrant.key)) else { return };
    let given = Contribution::sign(cluster, round.epoch, context.node, part, &key);
    let payload = Bytes::from(PeerMessage::Contribution(given).encode());
    for node in context.links.members(GroupId::BEACON) {
        context.links.send(node, GroupId::BEACON, payload.clone());
    }
}

/// What is kept in a data folder; `None` when there is nothing of use.
fn read(folder: &Path, cluster: &ClusterId, node: NodeId) -> Option<Kept> {
    let path = folder.join(FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the secret of an epoch cannot be read");
            return None;
        }
    };
    let kept = decode(&bytes).filter(|kept| kept.cluster == *cluster && kept.node == node);
    if kept.is_none() {
        tracing::warn!(path = %path.display(), "the secret of an epoch is damaged, or of another node");
    }
    kept
}

fn decode(bytes: &[u8]) -> Option<Kept> {
    let (content, check) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if sha256(content).0 != *check {
        return None;
    }
    let kept: Kept = borsh::from_slice(content.strip_prefix(MAGIC)?).ok()?;
    (kept.version == KEPT_VERSION).then_some(kept)
}

fn encode(kept: &Kept) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(borsh::to_vec(kept).expect("writing to memory does not fail"));
    let check = sha256(&bytes);
    bytes.extend_from_slice(&check.0);
    bytes
}

/// Draws a secret and keeps it in the place of the one before. It is on disk when this returns.
fn draw(folder: &Path, cluster: ClusterId, node: NodeId, epoch: u64) -> std::io::Result<Kept> {
    let mut secret = [0; 32];
    rand::rngs::OsRng.try_fill_bytes(&mut secret).map_err(|error| std::io::Error::other(error.to_string()))?;
    let kept = Kept { version: KEPT_VERSION, cluster, node, epoch, secret: Hash32(secret) };
    let (path, fresh) = (folder.join(FILE), folder.join("epoch.secret.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(SECRET).open(&fresh)?;
    file.write_all(&encode(&kept))?;
    file.sync_all()?;
    fs::rename(&fresh, &path)?;
    fs::File::open(folder)?.sync_all()?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use beacon::epochs::{EPOCH_VERSION, Entrant};
    use ledger::crypto::SecretKey;
    use ledger::ids::{Height, OrgId};

    use super::*;

    const CLUSTER: ClusterId = ClusterId(Hash32([1; 32]));
    const NODE: NodeId = NodeId(2);
    const SECRET_OF_3: Hash32 = Hash32([9; 32]);

    fn round(barred: bool, commitment: Option<Hash32>, secret: Option<Hash32>) -> Round {
        let key = SecretKey::derive(b"node", b"2").public();
        Round {
            version: EPOCH_VERSION,
            epoch: 3,
            began_height: Height(1),
            began_ms: TimeMs(0),
            reveal_ms: TimeMs(10),
            ends_ms: TimeMs(20),
            needed: 2,
            entrants: vec![Entrant { node: NODE, org: OrgId(1), key, barred, commitment, secret }],
        }
    }

    #[test]
    fn what_is_due_in_every_phase() {
        let own = commitment_of(&CLUSTER, 3, NODE, &SECRET_OF_3);
        let (fresh, committed) = (round(false, None, None), round(false, Some(own), None));
        let (revealed, barred) = (round(false, Some(own), Some(SECRET_OF_3)), round(true, None, None));
        let (has, before, ahead) = (Some((3, SECRET_OF_3)), Some((2, Hash32([8; 32]))), Some((4, Hash32([7; 32]))));
        for (what, round, now, kept, expected) in [
            ("nothing is drawn yet", &fresh, 5, None, Due::Draw),
            ("that of the epoch before", &fresh, 5, before, Due::Draw),
            ("drawn, and not in state", &fresh, 5, has, Due::Give(Part::Commitment(own))),
            ("the state is behind", &fresh, 5, ahead, Due::Nothing),
            ("in state, and the others may still commit", &committed, 9, has, Due::Nothing),
            ("commitments are over", &committed, 10, has, Due::Give(Part::Secret(SECRET_OF_3))),
            ("after a start without the file", &committed, 10, None, Due::Lost),
            ("another secret than the one committed to", &committed, 10, Some((3, Hash32([5; 32]))), Due::Lost),
            ("too late to commit", &fresh, 10, has, Due::Nothing),
            ("done", &revealed, 15, has, Due::Nothing),
            ("over", &committed, 20, has, Due::Nothing),
            ("sits it out", &barred, 5, has, Due::Nothing),
        ] {
            assert_eq!(due(round, TimeMs(now), (&CLUSTER, NODE), kept), expected, "{what}");
        }
        assert_eq!(due(&fresh, TimeMs(5), (&CLUSTER, NodeId(7)), has), Due::Nothing, "no member");
    }

    #[test]
    fn a_secret_outlives_a_start_and_a_damaged_one_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(read(folder.path(), &CLUSTER, NODE).is_none());
        let drawn = draw(folder.path(), CLUSTER, NODE, 3).expect("it is kept");
        assert!(read(folder.path(), &CLUSTER, NODE) == Some(drawn));
        assert!(read(folder.path(), &CLUSTER, NodeId(7)).is_none(), "of another node");
        let next = draw(folder.path(), CLUSTER, NODE, 4).expect("it is kept");
        assert!(next.secret != drawn.secret && read(folder.path(), &CLUSTER, NODE) == Some(next));
        let good = encode(&next);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(decode(&bad).is_none(), "byte {at}");
            assert!(decode(&good[..at]).is_none(), "cut at {at}");
        }
    }
}
