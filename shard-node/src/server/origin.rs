//! How a channel began, as a node keeps it beside its replica: the foundation, with the charter.
//!
//! The registry that everybody follows has the hash of it alone. A node with a seat is given it by a node of the beacon, and
//! keeps it in the folder of the group under the local key of the channel, so that it begins, and starts again, while the
//! beacon cannot be asked. Never judges it: the view has done so, by the hash. It goes with the folder when the node leaves.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use ledger::foundation::Foundation;
use ledger::ids::GroupId;

use crate::server::vault::LocalSeal;

/// The file in the folder of a group: [`MAGIC`] and the sealed foundation.
const FILE: &str = "origin";
const MAGIC: &[u8; 8] = b"SEAMORIG";

/// Why a node does not know how a group began.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// The file cannot be read or written, or holds something else.
    #[error("{path}: {cause}; remove it while a node of the beacon answers, which gives it anew")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
}

impl OriginError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "origin_file",
        }
    }
}

/// Whether it is kept in the folder of a group.
#[must_use]
pub fn is_kept(folder: &Path) -> bool {
    folder.join(FILE).exists()
}

/// How a group began: as the registry's hash has shown (`known`), and otherwise as it is kept. What is known is kept from
/// then on.
///
/// # Errors
/// [`OriginError::File`], also when it is neither known nor kept.
pub fn of(
    known: Option<Arc<Foundation>>,
    group: GroupId,
    folder: &Path,
    seal: &LocalSeal,
) -> Result<Arc<Foundation>, OriginError> {
    let path = folder.join(FILE);
    let bad = |cause: String| OriginError::File { path: path.clone(), cause };
    let context = [MAGIC.as_slice(), &group.0.to_be_bytes()].concat();
    if let Some(known) = known {
        if !path.exists() {
            let plain = borsh::to_vec(&*known).expect("writing to memory does not fail");
            let sealed = [MAGIC.as_slice(), &seal.cipher().seal(&context, &plain)].concat();
            write(folder, &path, &sealed).map_err(|error| bad(error.to_string()))?;
        }
        return Ok(known);
    }
    let bytes = Bytes::from(fs::read(&path).map_err(|error| bad(error.to_string()))?);
    if !bytes.starts_with(MAGIC) {
        return Err(bad("it is no foundation that was kept".to_owned()));
    }
    let plain = seal.cipher().open(&context, bytes.slice(MAGIC.len()..)).map_err(|damaged| bad(damaged.0))?;
    let kept: Foundation = borsh::from_slice(&plain).map_err(|error| bad(error.to_string()))?;
    if kept.group == group { Ok(Arc::new(kept)) } else { Err(bad(format!("it is of {}", kept.group))) }
}

/// Writes the file in one step, durably.
fn write(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let fresh = folder.join("origin.new");
    let mut file = File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use client::secrets::Keyring;
    use ledger::committee::{Committee, Engine};
    use ledger::hash::Hash32;
    use ledger::ids::{ClusterId, Epoch, Height, Incarnation, NodeId, OrgId, TimeMs};
    use ledger::layout::Layout;

    use super::*;
    use crate::server::vault::Vault;

    const SECRET: &[u8] = b"majority of those who must not be named";

    fn foundation(group: GroupId) -> Arc<Foundation> {
        Arc::new(Foundation {
            version: ledger::foundation::FOUNDATION_VERSION,
            group,
            charter: SECRET.to_vec(),
            members: vec![OrgId(1)],
            committee: Committee::of(Engine::Raft, group, Incarnation(0), Epoch(0), Vec::new()),
            beacon_committee: Committee::of(Engine::Raft, GroupId::BEACON, Incarnation(0), Epoch(0), Vec::new()),
            layout: Layout::even(1),
            founded_ms: TimeMs(1),
            beacon_height: Height(1),
        })
    }

    #[test]
    fn it_is_kept_sealed_and_read_again_without_the_beacon() {
        let root = tempfile::tempdir().expect("a folder");
        let cluster = ClusterId(Hash32([1; 32]));
        let key = root.path().join("storage.key");
        let vault = Vault::open(&key, root.path(), cluster, NodeId(1), &mut Keyring::empty()).expect("a vault");
        let group = GroupId::channel(3);
        let folder = root.path().join("channel-3");
        let seal = vault.seal_of(group, &folder).expect("a local key");
        assert_eq!(of(None, group, &folder, &seal).map_err(|error| error.code()).err(), Some("origin_file"));
        assert!(!is_kept(&folder));
        let known = foundation(group);
        assert_eq!(of(Some(Arc::clone(&known)), group, &folder, &seal).expect("it is known"), known);
        assert!(is_kept(&folder));
        let bytes = fs::read(folder.join(FILE)).expect("it is there");
        assert!(!bytes.windows(SECRET.len()).any(|window| window == SECRET), "it lies in the clear");
        assert_eq!(of(None, group, &folder, &seal).expect("it is kept"), known);

        let other = root.path().join("channel-4");
        let foreign = vault.seal_of(GroupId::channel(4), &other).expect("a local key");
        fs::copy(folder.join(FILE), other.join(FILE)).expect("copied");
        let read = of(None, GroupId::channel(4), &other, &foreign).map_err(|error| error.code());
        assert_eq!(read.err(), Some("origin_file"), "that of another channel does not open");
        fs::write(folder.join(FILE), b"SEAMORIG").expect("damaged");
        assert_eq!(of(None, group, &folder, &seal).map_err(|error| error.code()).err(), Some("origin_file"));
    }
}
