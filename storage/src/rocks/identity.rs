//! Whose folder this is: a small check-summed file beside the database's own.
//!
//! Owns: the file `SEAMARK`. Layout, big endian: magic(8) ‖ file version(4) ‖ kind(1) ‖ cluster(32)
//! ‖ group(8) ‖ format version(4) ‖ node(4) ‖ crc32 of all before(4). Version 1 has no node; it is
//! read, and written anew with the node of whoever opens the folder. Never does: open the database.

use std::path::Path;

use crate::StorageError;
use crate::rocks::folder::{read_file, write_durably};

/// Name of the identity file inside a database folder.
pub(crate) const IDENTITY_FILE: &str = "SEAMARK";
const MAGIC: &[u8; 8] = b"SEAMARKI";
const FILE_VERSION: u32 = 2;
const LEN: usize = 8 + 4 + 1 + 32 + 8 + 4 + 4 + 4;
/// Length of version 1, which names no node.
const LEN_1: usize = LEN - 4;

/// What kind of data a folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One group's state.
    State,
    /// The log of all groups of a node.
    Log,
}

impl Kind {
    fn tag(self) -> u8 {
        match self {
            Self::State => 1,
            Self::Log => 2,
        }
    }
}

/// The content of the identity file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) kind: Kind,
    pub(crate) cluster: [u8; 32],
    pub(crate) group: u64,
    pub(crate) format_version: u32,
    /// `None` only as found in a file of version 1.
    pub(crate) node: Option<u32>,
}

impl Identity {
    fn encode(&self) -> [u8; LEN] {
        let mut out = Vec::with_capacity(LEN);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FILE_VERSION.to_be_bytes());
        out.push(self.kind.tag());
        out.extend_from_slice(&self.cluster);
        out.extend_from_slice(&self.group.to_be_bytes());
        out.extend_from_slice(&self.format_version.to_be_bytes());
        out.extend_from_slice(&self.node.unwrap_or_default().to_be_bytes());
        out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
        out.try_into().expect("the fields above add up to LEN")
    }

    fn decode(path: &Path, bytes: &[u8]) -> Result<Self, StorageError> {
        let corrupt = |detail: &str| StorageError::corrupt(path, detail);
        if bytes.get(..8) != Some(&MAGIC[..]) {
            return Err(corrupt("not an identity file (magic differs)"));
        }
        let found = bytes.get(8..12).map_or(0, be_u32);
        if found > FILE_VERSION {
            return Err(StorageError::NewerVersion { path: path.into(), found, supported: FILE_VERSION });
        }
        let len = if found == 1 { LEN_1 } else { LEN };
        if bytes.len() != len {
            return Err(corrupt(&format!("identity file has {} bytes instead of {len}", bytes.len())));
        }
        if be_u32(&bytes[len - 4..]) != crc32fast::hash(&bytes[..len - 4]) {
            return Err(corrupt("identity file fails its checksum"));
        }
        let kind = match bytes[12] {
            1 => Kind::State,
            2 => Kind::Log,
            other => return Err(corrupt(&format!("unknown kind of data {other}"))),
        };
        let mut cluster = [0; 32];
        cluster.copy_from_slice(&bytes[13..45]);
        let mut group = [0; 8];
        group.copy_from_slice(&bytes[45..53]);
        // Nodes are numbered from 1.
        let node = (found > 1).then(|| be_u32(&bytes[57..61])).filter(|node| *node != 0);
        Ok(Self { kind, cluster, group: u64::from_be_bytes(group), format_version: be_u32(&bytes[53..57]), node })
    }

    /// Writes the file into `folder`, durably.
    pub(crate) fn store(&self, folder: &Path) -> Result<(), StorageError> {
        write_durably(folder, IDENTITY_FILE, &self.encode())
    }

    /// Reads the file of `folder`.
    pub(crate) fn load(folder: &Path) -> Result<Self, StorageError> {
        let path = folder.join(IDENTITY_FILE);
        match read_file(&path)? {
            Some(bytes) => Self::decode(&path, &bytes),
            None => Err(StorageError::corrupt(path, "the identity file is missing")),
        }
    }

    /// As [`Identity::expect_copy`], and refuses the folder of another node.
    pub(crate) fn expect_in(&self, folder: &Path) -> Result<Self, StorageError> {
        let found = self.expect_copy(folder)?;
        match (found.node, self.node) {
            (Some(found), Some(expected)) if found != expected => {
                Err(StorageError::WrongNode { path: folder.join(IDENTITY_FILE), found, expected })
            }
            _ => Ok(found),
        }
    }

    /// Reads the file of `folder` and refuses it unless it is of the same cluster and group, and of
    /// a format not newer than `self`. Returns what was found (its format may be older). Of which node it
    /// is does not matter: a snapshot may be another one's.
    pub(crate) fn expect_copy(&self, folder: &Path) -> Result<Self, StorageError> {
        let found = Self::load(folder)?;
        let path = folder.join(IDENTITY_FILE);
        if found.cluster != self.cluster {
            let (found, expected) = (hex(&found.cluster), hex(&self.cluster));
            return Err(StorageError::WrongCluster { path, found, expected });
        }
        if (found.kind, found.group) != (self.kind, self.group) {
            let (found, expected) = (found.describe(), self.describe());
            return Err(StorageError::WrongGroup { path, found, expected });
        }
        if found.format_version > self.format_version {
            let (found, supported) = (found.format_version, self.format_version);
            return Err(StorageError::NewerVersion { path, found, supported });
        }
        Ok(found)
    }

    /// Takes what was found in `folder` over for the node of `self`: writes its file anew if it names
    /// another node, or none. Returns what stands there now.
    pub(crate) fn adopt(&self, folder: &Path, found: Self) -> Result<Self, StorageError> {
        let own = Self { node: self.node, ..found };
        if own != found {
            own.store(folder)?;
        }
        Ok(own)
    }

    fn describe(&self) -> String {
        match self.kind {
            Kind::State => format!("the state of group {}", self.group),
            Kind::Log => "the node's shared log".to_owned(),
        }
    }
}

fn be_u32(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |sum, &byte| sum << 8 | u32::from(byte))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Identity {
        Identity { kind: Kind::State, cluster: [7; 32], group: 0x0102, format_version: 3, node: Some(0x0405) }
    }

    #[test]
    fn golden_bytes() {
        let bytes = sample().encode();
        assert_eq!(hex(&bytes[..13]), "5345414d41524b490000000201");
        assert_eq!(hex(&bytes[45..61]), "00000000000001020000000300000405");
        assert_eq!(Identity::decode(Path::new("x"), &bytes), Ok(sample()));
    }

    /// As earlier programs wrote it.
    fn version_1() -> Vec<u8> {
        let mut bytes = sample().encode()[..57].to_vec();
        bytes[11] = 1;
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
        bytes
    }

    #[test]
    fn version_1_is_read_and_taken_over_by_whoever_opens_it() {
        let folder = tempfile::tempdir().expect("temporary folder");
        std::fs::write(folder.path().join(IDENTITY_FILE), version_1()).expect("write");
        let found = sample().expect_in(folder.path()).expect("older");
        assert_eq!(found, Identity { node: None, ..sample() });
        assert_eq!(sample().adopt(folder.path(), found), Ok(sample()));
        assert_eq!(sample().expect_in(folder.path()), Ok(sample()));
        let other = Identity { node: Some(9), ..sample() };
        assert_eq!(other.expect_in(folder.path()).expect_err("of another node").code(), "storage_wrong_node");
        assert_eq!(other.expect_copy(folder.path()), Ok(sample()), "a snapshot may be anybody's");
    }

    #[test]
    fn any_flipped_byte_and_any_cut_is_refused() {
        let bytes = sample().encode();
        for at in 0..LEN {
            let mut bad = bytes;
            bad[at] ^= 0x10;
            assert!(Identity::decode(Path::new("x"), &bad).is_err(), "byte {at}");
            assert!(Identity::decode(Path::new("x"), &bytes[..at]).is_err(), "cut {at}");
        }
    }
}
