//! A way to a folder that goes on leading there when that folder, or one above it, is renamed.
//!
//! An open database opens its files by their names as long as it lives. A copy of a state that becomes the state of its group
//! goes to another folder, and would have to be closed and opened again there while payers wait. The system has a name for every
//! file that a process has open, and by that a folder is found wherever it has gone. Linux alone has such names, and only where
//! `/proc` is mounted; elsewhere nothing is anchored.
//!
//! RocksDB's guard against opening a database twice goes by names within a process, so it knows nothing of an anchored one: who
//! has such a database closes it before anybody opens it by the name of its folder.

use std::fs::File;
use std::path::{Path, PathBuf};

/// A folder, by a name that is good for as long as this is there.
pub(super) struct Anchor {
    folder: File,
    path: PathBuf,
}

impl Anchor {
    /// That of a folder; none where the system has no such name.
    pub(super) fn of(folder: &Path) -> Option<Self> {
        let folder = File::open(folder).ok()?;
        let path = name_of(&folder)?;
        let anchor = Self { folder, path };
        anchor.is_at(&anchor.path).then_some(anchor)
    }

    /// The name.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a path leads to the folder, too.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        is_same(&self.folder, path)
    }
}

#[cfg(target_os = "linux")]
fn name_of(folder: &File) -> Option<PathBuf> {
    use std::os::fd::AsRawFd;

    Some(PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())))
}

#[cfg(not(target_os = "linux"))]
fn name_of(_: &File) -> Option<PathBuf> {
    None
}

#[cfg(target_os = "linux")]
fn is_same(folder: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;

    let identity = |found: std::fs::Metadata| (found.dev(), found.ino());
    let there = std::fs::metadata(path).map(identity);
    folder.metadata().map(identity).is_ok_and(|own| there.is_ok_and(|there| there == own))
}

#[cfg(not(target_os = "linux"))]
fn is_same(_: &File, _: &Path) -> bool {
    false
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_found_by_its_anchor_wherever_it_has_gone() {
        let root = tempfile::tempdir().expect("a folder");
        let (before, after) = (root.path().join("before"), root.path().join("after"));
        std::fs::create_dir_all(before.join("inner")).expect("a folder");
        let anchor = Anchor::of(&before.join("inner")).expect("this system has one");
        assert!(Anchor::of(&after).is_none(), "there is nothing yet");
        std::fs::write(anchor.path().join("one"), b"1").expect("written");
        std::fs::rename(&before, &after).expect("renamed");
        assert!(anchor.is_at(&after.join("inner")) && !anchor.is_at(&after) && !anchor.is_at(&before.join("inner")));
        std::fs::write(anchor.path().join("two"), b"2").expect("written");
        assert_eq!(std::fs::read(after.join("inner").join("one")).expect("read"), b"1");
        assert_eq!(std::fs::read(after.join("inner").join("two")).expect("read"), b"2");
        // Another folder of the same name is another one.
        std::fs::create_dir_all(before.join("inner")).expect("a folder");
        assert!(!anchor.is_at(&before.join("inner")));
    }
}
