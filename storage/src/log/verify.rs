//! The offline check of the shared log: every block, every frame, every group without holes, and
//! nothing missing that was acknowledged.

use std::path::Path;

use bytes::Bytes;

use super::group::describe;
use super::keys::{self, Record};
use super::mark;
use crate::rocks::{Kind, Profile, VerifyReport, verify_root};
use crate::{StorageError, frame};

/// Checks a log folder that no process has open. Needs no key: frames are around what is sealed.
pub fn verify_offline(root: &Path) -> Result<VerifyReport, StorageError> {
    let mut previous: Option<(u64, u64)> = None;
    let report = verify_root(root, Kind::Log, Profile::Log, &mut |folder, key, value| {
        let corrupt = |detail: String| StorageError::corrupt(folder, detail);
        let Some((group, record, index)) = keys::parse(key) else {
            return Err(corrupt(format!("unknown key {key:02x?}")));
        };
        frame::open(key, Bytes::copy_from_slice(value))
            .map_err(|damaged| corrupt(format!("{}, key {}: {damaged}", keys::name(group), describe(key))))?;
        if record == Record::Entry {
            if let Some((of, before)) = previous
                && of == group
                && before.checked_add(1) != Some(index)
            {
                return Err(corrupt(format!("{}: entry {} is missing", keys::name(group), before.saturating_add(1))));
            }
            previous = Some((group, index));
        }
        Ok(())
    })?;
    mark::check(root, &report.folder, report.sequence)?;
    Ok(report)
}
