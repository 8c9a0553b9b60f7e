//! From RocksDB's error strings to coded errors that name the file.

use std::path::{Path, PathBuf};

use rocksdb::ErrorKind;

use crate::StorageError;

/// Maps an error of the database in `folder`.
pub(crate) fn map_error(folder: &Path, error: &rocksdb::Error) -> StorageError {
    let detail: String = error.as_ref().to_owned();
    let path = || named_file(&detail).unwrap_or_else(|| folder.to_path_buf());
    match error.kind() {
        ErrorKind::Corruption => StorageError::Corrupt { path: path(), detail },
        _ if detail.contains("No space left on device") || detail.contains("Disk quota exceeded") => {
            StorageError::DiskFull { path: path(), detail }
        }
        // Before the lock: a lock file that cannot be opened for that reason is nobody's.
        _ if detail.contains("Too many open files") => StorageError::OpenFiles { path: path(), detail },
        ErrorKind::IOError if detail.contains("lock") && detail.contains("LOCK") => {
            StorageError::InUse { path: folder.to_path_buf(), detail }
        }
        // A file that the manifest names and that is not there, or a database without its CURRENT.
        ErrorKind::IOError if detail.contains("No such file or directory") => {
            StorageError::Corrupt { path: path(), detail }
        }
        ErrorKind::InvalidArgument if detail.contains("does not exist (create_if_missing is false)") => {
            StorageError::Corrupt { path: folder.join("CURRENT"), detail }
        }
        _ => StorageError::Io { path: path(), detail },
    }
}

/// The database file that a message mentions, if any.
fn named_file(detail: &str) -> Option<PathBuf> {
    detail
        .split_whitespace()
        .map(|word| word.trim_matches([':', ',', ';', '.', '\'', '"', '(', ')']))
        .find(|word| {
            let name = word.rsplit('/').next().unwrap_or(word);
            word.starts_with('/')
                && (name.ends_with(".sst")
                    || name.ends_with(".log")
                    || name.starts_with("MANIFEST-")
                    || name == "CURRENT")
        })
        .map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_in_messages() {
        let table = [
            (
                "Corruption: block checksum mismatch: stored = 1, computed = 2, type = 4  in /d/000009.sst offset 0 size 9",
                Some("/d/000009.sst"),
            ),
            (
                "IO error: No space left on device: While appending to file: /d/000012.log: No space left on device",
                Some("/d/000012.log"),
            ),
            (
                "IO error: While opening a file for sequentially reading: /d/CURRENT: No such file or directory",
                Some("/d/CURRENT"),
            ),
            ("Corruption: something else", None),
        ];
        for (text, file) in table {
            assert_eq!(named_file(text), file.map(PathBuf::from), "{text}");
        }
    }
}
