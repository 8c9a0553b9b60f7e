//! What a node notes beside a copy that is kept warm: for which job it is, of which shards, and whether it has become the
//! first state of a shard. Written before anything of the copy is made, so that no folder is there that nobody knows of.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ledger::ids::{GroupId, JobId};
use serde::{Deserialize, Serialize};

/// The file in the folder of a copy.
const FILE: &str = "warm.json";
/// The same, before it takes the place of an earlier one.
const FRESH: &str = "warm.json.new";
/// Start of the names of folders that hold copies.
const FOLDER: &str = "warm-";

/// What stands in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    version: u8,
    job: u64,
    group: String,
    parents: Vec<String>,
    /// The blocks that the copies of the parents were made at, left first; empty while they are being made.
    heights: Vec<u64>,
    /// It is complete: it became the first state of the shard, durably. That this is so may be forgotten, and then it is made anew.
    born: bool,
}

impl Record {
    /// Of a copy that is about to be made.
    #[must_use]
    pub fn new(job: JobId, group: GroupId, parents: &[GroupId]) -> Self {
        let parents = parents.iter().map(ToString::to_string).collect();
        Self { version: 1, job: job.0, group: group.to_string(), parents, heights: Vec::new(), born: false }
    }

    /// With the blocks that the copies were made at.
    #[must_use]
    pub fn at(self, heights: Vec<u64>) -> Self {
        Self { heights, ..self }
    }

    /// With the mark that it is complete.
    #[must_use]
    pub fn born(self) -> Self {
        Self { born: true, ..self }
    }

    /// The job that it is for.
    #[must_use]
    pub fn job(&self) -> JobId {
        JobId(self.job)
    }

    /// Whether it is complete.
    #[must_use]
    pub fn is_born(&self) -> bool {
        self.born
    }

    /// Writes it into the folder of a copy, which is made if it is not there. Durable when this returns.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let new = !folder.exists();
        fs::create_dir_all(folder)?;
        let fresh = folder.join(FRESH);
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&fresh, folder.join(FILE))?;
        File::open(folder)?.sync_all()?;
        // A folder that was there is one that an earlier record had made durable.
        folder.parent().filter(|_| new).map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    }

    /// Writes it into the folder of a copy, where there is one already. It is there for this process and for the next one, and
    /// durable some time later: for what may be forgotten when the power is lost.
    ///
    /// # Errors
    /// What the system says.
    pub fn note(&self, folder: &Path) -> io::Result<()> {
        let fresh = folder.join(FRESH);
        fs::write(&fresh, serde_json::to_vec(self)?)?;
        fs::rename(&fresh, folder.join(FILE))
    }

    /// Reads that of a folder. One that cannot be read is as if there were none: the copy can be made anew.
    #[must_use]
    pub fn read(folder: &Path) -> Option<Self> {
        let bytes = fs::read(folder.join(FILE)).ok()?;
        serde_json::from_slice::<Self>(&bytes).ok().filter(|record| record.version == 1)
    }

    /// Makes the copy in `warm` the folder of its shard, durably.
    ///
    /// # Errors
    /// What the system says; then it is still a copy.
    pub fn settle(warm: &Path, folder: &Path) -> io::Result<()> {
        fs::rename(warm, folder)?;
        folder.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())?;
        // It says nothing any more.
        let _ = fs::remove_file(folder.join(FILE));
        Ok(())
    }
}

/// The folder of a copy.
#[must_use]
pub fn folder(data_dir: &Path, child: GroupId) -> PathBuf {
    data_dir.join(format!("{FOLDER}{child}"))
}

/// The copies below a data folder, whether or not anything is known of them.
#[must_use]
pub fn copies(data_dir: &Path) -> Vec<(GroupId, PathBuf)> {
    let entries = fs::read_dir(data_dir).into_iter().flatten().flatten();
    let copy = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let child = name.to_str()?.strip_prefix(FOLDER)?.parse().ok()?;
        Some((child, entry.path()))
    };
    entries.filter_map(copy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_known_by_its_folder_and_settles_whole() {
        let root = tempfile::tempdir().expect("a folder");
        let child = GroupId::shard(7);
        let warm = folder(root.path(), child);
        let record = Record::new(JobId(3), child, &[GroupId::shard(1)]);
        record.write(&warm).expect("written");
        assert_eq!((Record::read(&warm), copies(root.path())), (Some(record.clone()), vec![(child, warm.clone())]));
        let at = record.at(vec![12]);
        at.write(&warm).expect("written");
        at.born().note(&warm).expect("noted");
        let found = Record::read(&warm).expect("it is there");
        assert!(found.is_born() && found.job() == JobId(3));
        // As the power may leave it that is lost behind that: as if there were nothing.
        fs::write(warm.join(FILE), b"").expect("emptied");
        assert_eq!(Record::read(&warm), None);
        found.note(&warm).expect("noted");
        assert_eq!(Record::read(&warm), Some(found));
        let settled = root.path().join(child.to_string());
        Record::settle(&warm, &settled).expect("settled");
        assert!(settled.is_dir() && !warm.exists());
        assert_eq!((Record::read(&settled), copies(root.path())), (None, Vec::new()));
        fs::create_dir(&warm).expect("a folder");
        fs::write(warm.join(FILE), b"{}").expect("damaged");
        assert_eq!(Record::read(&warm), None);
        assert_eq!(copies(root.path()), [(child, warm)], "it is removed with the others");
    }
}
