//! The mark that a node has run: a small file outside its data folder.
//!
//! A data folder that is gone, because its disk is not mounted or somebody removed it, looks like that
//! of a node that never ran. The mark tells them apart: with it and without a log, the node has
//! forgotten what its replicas promised, and must not start.
//!
//! Owns: the file. Layout, big endian: magic(8) ‖ version(4) ‖ cluster(32) ‖ node(4) ‖ crc32 of all
//! before(4). Never does: decide what a missing log means. It is written once the log is there and
//! before any replica promises anything, so it never stands beside a log that was not made yet.

use std::path::{Path, PathBuf};

use crate::StorageError;
use crate::rocks::{read_file, write_durably};

const MAGIC: &[u8; 8] = b"SEAMSTRT";
const VERSION: u32 = 1;
const LEN: usize = 8 + 4 + 32 + 4 + 4;
/// What is put behind the name of the file that it stands beside.
const ENDING: &str = ".started";

/// The mark of one node, whether it is there or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartedMark {
    path: PathBuf,
    cluster: [u8; 32],
    node: u32,
}

impl StartedMark {
    /// The mark beside the file `key`, which is the node's own and not in its data folder.
    #[must_use]
    pub fn beside(key: &Path, cluster: [u8; 32], node: u32) -> Self {
        let mut path = key.as_os_str().to_owned();
        path.push(ENDING);
        Self { path: path.into(), cluster, node }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn encode(&self) -> [u8; LEN] {
        let mut out = Vec::with_capacity(LEN);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&self.cluster);
        out.extend_from_slice(&self.node.to_be_bytes());
        out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
        out.try_into().expect("the fields above add up to LEN")
    }

    /// Whether the node has run.
    ///
    /// # Errors
    /// A mark that is damaged, or of another cluster or node, is refused.
    pub fn is_set(&self) -> Result<bool, StorageError> {
        let path = self.path.clone();
        let Some(bytes) = read_file(&path)? else { return Ok(false) };
        let number = |bytes: &[u8]| bytes.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
        let magic = bytes.get(..8) == Some(&MAGIC[..]);
        if let Some(found) = bytes.get(8..12).map(number).filter(|found| magic && *found > VERSION) {
            return Err(StorageError::NewerVersion { path, found, supported: VERSION });
        }
        if !magic || bytes.len() != LEN || number(&bytes[LEN - 4..]) != crc32fast::hash(&bytes[..LEN - 4]) {
            return Err(StorageError::corrupt(path, "the mark that this node has run fails its checksum"));
        }
        if bytes[12..44] != self.cluster {
            let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            return Err(StorageError::WrongCluster { path, found: hex(&bytes[12..44]), expected: hex(&self.cluster) });
        }
        match number(&bytes[44..48]) {
            node if node == self.node => Ok(true),
            found => Err(StorageError::WrongNode { path, found, expected: self.node }),
        }
    }

    /// Says that the node has run, durably.
    ///
    /// # Errors
    /// What the system says: the folder of the key has to be writable.
    pub fn set(&self) -> Result<(), StorageError> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = self.path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| StorageError::Refused {
            path: self.path.clone(),
            detail: "the mark that a node has run needs a name that is text".to_owned(),
        })?;
        write_durably(folder, name, &self.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(folder: &Path) -> StartedMark {
        StartedMark::beside(&folder.join("signing.key"), [7; 32], 0x0102)
    }

    #[test]
    fn golden_bytes() {
        let bytes = mark(Path::new("/x")).encode();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(&hex[..24], "5345414d5354525400000001");
        assert_eq!(&hex[24..88], "07".repeat(32));
        assert_eq!(&hex[88..96], "00000102");
    }

    #[test]
    fn it_is_read_back_and_refused_when_it_is_damaged_or_anothers() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let own = mark(folder.path());
        assert_eq!(own.is_set(), Ok(false));
        own.set().expect("written");
        assert_eq!(own.path(), folder.path().join("signing.key.started"));
        assert_eq!(own.is_set(), Ok(true));
        let other = StartedMark { node: 3, ..own.clone() };
        assert_eq!(other.is_set().expect_err("another node's").code(), "storage_wrong_node");
        let other = StartedMark { cluster: [8; 32], ..own.clone() };
        assert_eq!(other.is_set().expect_err("another cluster's").code(), "storage_wrong_cluster");
        let whole = std::fs::read(own.path()).expect("file");
        for at in 0..LEN {
            let mut bad = whole.clone();
            bad[at] ^= 0x10;
            std::fs::write(own.path(), &bad).expect("write");
            assert!(own.is_set().is_err(), "byte {at}");
            std::fs::write(own.path(), &whole[..at]).expect("write");
            assert!(own.is_set().is_err(), "cut {at}");
        }
    }
}
