//! Table files that are written beside a database and then become part of it as they are: nothing is sorted or compacted again.
//!
//! Owns how they are written, and how a database takes them over. Never does: choose what is in them.

use std::path::{Path, PathBuf};

use rocksdb::{DB, IngestExternalFileOptions, Options, SstFileWriter};

use crate::StorageError;
use crate::rocks::map_error;

/// Bytes after which a table file ends.
pub(super) const TABLE_BYTES: u64 = 32 << 20;

/// Table files on their way into a database.
pub(super) struct Tables<'a> {
    options: &'a Options,
    folder: &'a Path,
    paths: Vec<PathBuf>,
    open: Option<SstFileWriter<'a>>,
}

impl<'a> Tables<'a> {
    /// None yet; they will be in this folder, which is there.
    pub(super) fn new(options: &'a Options, folder: &'a Path) -> Self {
        Self { options, folder, paths: Vec::new(), open: None }
    }

    /// Adds a pair whose key is behind all before.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        let mut table = match self.open.take() {
            Some(table) => table,
            None => {
                let path = self.folder.join(format!("{:08}.sst", self.paths.len()));
                let table = SstFileWriter::create(self.options);
                table.open(&path).map_err(|error| self.error(&error))?;
                self.paths.push(path);
                table
            }
        };
        table.put(key, value).map_err(|error| self.error(&error))?;
        let full = table.file_size() >= TABLE_BYTES;
        self.open = Some(table);
        if full { self.end() } else { Ok(()) }
    }

    /// Ends the last one and tells where all of them are, in the order of their keys.
    pub(super) fn finish(mut self) -> Result<Vec<PathBuf>, StorageError> {
        self.end()?;
        Ok(self.paths)
    }

    fn end(&mut self) -> Result<(), StorageError> {
        let ended = self.open.take().map(|mut table| table.finish());
        ended.unwrap_or(Ok(())).map_err(|error| self.error(&error))
    }

    fn error(&self, error: &rocksdb::Error) -> StorageError {
        map_error(self.folder, error)
    }
}

/// Makes these files, no key of which is in two, part of a database, above all that is in it. The folder that they were written in
/// is gone then.
pub(super) fn move_into(database: &DB, folder: &Path, paths: Vec<PathBuf>) -> Result<(), StorageError> {
    if !paths.is_empty() {
        let mut ingest = IngestExternalFileOptions::default();
        ingest.set_move_files(true);
        let moved = database.ingest_external_file_opts(&ingest, paths);
        moved.map_err(|error| map_error(folder, &error))?;
    }
    std::fs::remove_dir_all(folder).map_err(|error| StorageError::io(folder, &error))
}
