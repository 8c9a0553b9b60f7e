//! Writing small files so that a crash leaves the old one or the new one, never half of one.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Result, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rand::TryRngCore;

/// Replaces `path`, or makes it.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let temp = write_temp(path, bytes, mode)?;
    finish(&temp, path, std::fs::rename(&temp, path))
}

/// Makes `path`; an existing file stays and is an error. A link is used instead of a rename because
/// a rename would silently replace a file made in between.
pub(crate) fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let temp = write_temp(path, bytes, mode)?;
    let linked = std::fs::hard_link(&temp, path);
    std::fs::remove_file(&temp)?;
    linked?;
    sync_folder(path)
}

fn finish(temp: &Path, path: &Path, moved: Result<()>) -> Result<()> {
    if let Err(error) = moved {
        // The temporary file is of no use to anybody; the first error is the one that matters.
        let _ = std::fs::remove_file(temp);
        return Err(error);
    }
    sync_folder(path)
}

fn sync_folder(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn write_temp(path: &Path, bytes: &[u8], mode: u32) -> Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| Error::new(ErrorKind::InvalidInput, "no file name"))?;
    let mut random = [0; 8];
    rand::rngs::OsRng.try_fill_bytes(&mut random).map_err(Error::other)?;
    let mut temp_name = std::ffi::OsString::from(".");
    temp_name.push(name);
    temp_name.push(format!(".{}.tmp", hex::encode(random)));
    let temp = path.with_file_name(temp_name);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temp)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(error) = written {
        let _ = std::fs::remove_file(&temp);
        return Err(error);
    }
    Ok(temp)
}
