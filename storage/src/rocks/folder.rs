//! The live pointer: which database folder of a root counts, switched by one durable rename.
//!
//! Owns: the file `LIVE` and the folders `db-N`. Layout of `LIVE`, big endian: magic(8) ‖
//! version(4) ‖ generation(8) ‖ crc32 of all before(4); generation 0 means "none yet".
//! Never does: look inside a database. Rules: a database is complete and durable before `LIVE`
//! names it; everything else is a leftover of an interrupted step and is removed once the live one
//! has been opened; a root with databases but without `LIVE` is damaged, never guessed at.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::StorageError;
use crate::rocks::Identity;

const LIVE_FILE: &str = "LIVE";
const MAGIC: &[u8; 8] = b"SEAMLIVE";
const VERSION: u32 = 1;
const LEN: usize = 8 + 4 + 8 + 4;

fn io<T>(path: &Path, result: std::io::Result<T>) -> Result<T, StorageError> {
    result.map_err(|error| StorageError::io(path, &error))
}

/// A whole file, or `None` if there is none.
pub(crate) fn read_file(path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StorageError::io(path, &error)),
    }
}

/// Makes the entries of a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), StorageError> {
    io(folder, File::open(folder).and_then(|handle| handle.sync_all()))
}

/// Replaces `folder/name` by one atomic, durable rename.
pub(crate) fn write_durably(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
    let (path, temporary) = (folder.join(name), folder.join(format!("{name}.tmp")));
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    io(&temporary, written)?;
    io(&path, fs::rename(&temporary, &path))?;
    sync_folder(folder)
}

fn database_folder(root: &Path, generation: u64) -> PathBuf {
    root.join(format!("db-{generation:016}"))
}

/// All `db-N` folders of a root.
fn generations(root: &Path) -> Result<Vec<u64>, StorageError> {
    let mut found = Vec::new();
    for entry in io(root, fs::read_dir(root))? {
        let name = io(root, entry)?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix("db-")).filter(|digits| digits.len() == 16);
        found.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

/// The live generation: `None` if the root was never used, 0 if it was prepared only.
fn read_live(root: &Path) -> Result<Option<u64>, StorageError> {
    let path = root.join(LIVE_FILE);
    let Some(bytes) = read_file(&path)? else {
        return Ok(None);
    };
    let corrupt = |detail: &str| Err(StorageError::corrupt(&path, detail));
    let Ok(bytes) = <[u8; LEN]>::try_from(&bytes[..]) else {
        return corrupt("the pointer file has a wrong length");
    };
    let number =
        |range: std::ops::Range<usize>| bytes[range].iter().fold(0_u64, |sum, &byte| sum << 8 | u64::from(byte));
    if bytes[..8] != MAGIC[..] {
        return corrupt("not a pointer file (magic differs)");
    }
    if number(20..24) != u64::from(crc32fast::hash(&bytes[..20])) {
        return corrupt("the pointer file fails its checksum");
    }
    match u32::try_from(number(8..12)) {
        Ok(VERSION) => Ok(Some(number(12..20))),
        Ok(found) if found > VERSION => Err(StorageError::NewerVersion { path, found, supported: VERSION }),
        _ => corrupt("unknown version of the pointer file"),
    }
}

fn write_live(root: &Path, generation: u64) -> Result<(), StorageError> {
    let mut bytes = Vec::with_capacity(LEN);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&generation.to_be_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    write_durably(root, LIVE_FILE, &bytes)
}

/// Creates the root if needed and returns its live generation (0: none).
fn prepare(root: &Path) -> Result<u64, StorageError> {
    io(root, fs::create_dir_all(root))?;
    if let Some(generation) = read_live(root)? {
        return Ok(generation);
    }
    if let Some(generation) = generations(root)?.last() {
        let detail = format!("the pointer file is missing beside {}", database_folder(root, *generation).display());
        return Err(StorageError::corrupt(root.join(LIVE_FILE), detail));
    }
    write_live(root, 0)?;
    if let Some(parent) = root.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync_folder(parent)?;
    }
    Ok(0)
}

/// Removes every database folder but the live one.
fn remove_leftovers(root: &Path, live: u64) -> Result<(), StorageError> {
    for generation in generations(root)?.into_iter().filter(|&generation| generation != live) {
        let folder = database_folder(root, generation);
        tracing::info!(folder = %folder.display(), "removing a database folder that is not live");
        io(&folder, fs::remove_dir_all(&folder))?;
    }
    Ok(())
}

/// Whether a root has a database, or has had one: a pointer that is lost is not nothing.
pub(crate) fn is_there(root: &Path) -> Result<bool, StorageError> {
    match read_live(root)? {
        Some(generation) => Ok(generation != 0),
        None if root.is_dir() => Ok(!generations(root)?.is_empty()),
        None => Ok(false),
    }
}

/// The live database folder of a root that must already have one.
pub(crate) fn live_folder(root: &Path) -> Result<PathBuf, StorageError> {
    match read_live(root)? {
        Some(0) | None => Err(StorageError::corrupt(root.join(LIVE_FILE), "there is no database in this folder")),
        Some(generation) => Ok(database_folder(root, generation)),
    }
}

/// Opens the live database of `root`, or creates the first one.
///
/// `open(folder, create)` opens the database itself. Returns it with its folder and the identity
/// that was found. A new database becomes live only when it exists completely.
pub(crate) fn open_or_create<T>(
    root: &Path,
    identity: &Identity,
    open: impl Fn(&Path, bool) -> Result<T, StorageError>,
) -> Result<(T, PathBuf, Identity), StorageError> {
    let live = prepare(root)?;
    if live != 0 {
        let folder = database_folder(root, live);
        let found = identity.expect_in(&folder)?;
        let database = open(&folder, false)?;
        remove_leftovers(root, live)?;
        let found = identity.adopt(&folder, found)?;
        return Ok((database, folder, found));
    }
    remove_leftovers(root, 0)?;
    let folder = database_folder(root, 1);
    io(&folder, fs::create_dir(&folder))?;
    identity.store(&folder)?;
    let database = open(&folder, true)?;
    sync_folder(&folder)?;
    sync_folder(root)?;
    write_live(root, 1)?;
    Ok((database, folder, *identity))
}

/// Copies the database folder `received` beside the live one of `root`, without making it live.
/// Returns the copy and its generation.
///
/// `check(folder)` must refuse a damaged copy. `received` stays as it is, so an interrupted
/// installation can be repeated; what was copied before is removed.
pub(crate) fn stage(
    received: &Path,
    root: &Path,
    check: impl FnOnce(&Path) -> Result<(), StorageError>,
) -> Result<(PathBuf, u64), StorageError> {
    stage_by(root, |folder| copy_folder(received, folder).and_then(|()| check(folder)))
}

/// Has `fill(folder)` make a database in an empty folder beside the live one of `root`, without making
/// it live. Returns the folder and its generation; nothing is left when `fill` fails.
pub(crate) fn stage_by(
    root: &Path,
    fill: impl FnOnce(&Path) -> Result<(), StorageError>,
) -> Result<(PathBuf, u64), StorageError> {
    let live = prepare(root)?;
    remove_leftovers(root, live)?;
    let folder = database_folder(root, live + 1);
    io(&folder, fs::create_dir(&folder))?;
    if let Err(error) = fill(&folder) {
        io(&folder, fs::remove_dir_all(&folder))?;
        return Err(error);
    }
    Ok((folder, live + 1))
}

/// Makes a staged copy the live database: it is durable, and then named, by one rename.
pub(crate) fn switch(folder: &Path, root: &Path, generation: u64) -> Result<(), StorageError> {
    sync_folder(folder)?;
    sync_folder(root)?;
    write_live(root, generation)
}

/// Removes what a switch left behind. The database that was live before must be closed.
pub(crate) fn remove_old(root: &Path, generation: u64) -> Result<(), StorageError> {
    remove_leftovers(root, generation)
}

/// Copies a flat folder durably; table files are immutable and therefore only linked where possible.
fn copy_folder(from: &Path, to: &Path) -> Result<(), StorageError> {
    for entry in io(from, fs::read_dir(from))? {
        let source = io(from, entry)?.path();
        let Some(name) = source.file_name().filter(|_| source.is_file()) else {
            return Err(StorageError::corrupt(&source, "a received snapshot holds plain files only"));
        };
        if name == "LOCK" || name == "LOG" {
            continue;
        }
        let target = to.join(name);
        let linked = source.extension().is_some_and(|kind| kind == "sst") && fs::hard_link(&source, &target).is_ok();
        if !linked {
            io(&target, fs::copy(&source, &target))?;
        }
        io(&target, File::open(&target).and_then(|file| file.sync_all()))?;
    }
    Ok(())
}
