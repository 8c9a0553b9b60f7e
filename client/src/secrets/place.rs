//! Sealing a key where it lies: one that is in the clear, or that is to have another passphrase.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use zeroize::Zeroizing;

use super::{Keyring, SecretError, SecretKind, plain, read, taken_apart};
use crate::keyfile;

/// What a file holds, as far as can be told without a passphrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// A key of a process or an organisation, sealed.
    Sealed(SecretKind),
    /// 32 bytes as 64 hex digits: a key that signs, or one that seals.
    Digits,
    /// The key of a certificate, in PEM and in the clear.
    Pem,
    /// Anything else.
    Other,
}

/// What was done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealing {
    /// It was in the clear.
    Sealed,
    /// It was under another passphrase.
    Resealed,
    /// It was under this one already.
    Already,
}

/// Looks what a file holds.
///
/// # Errors
/// [`SecretError::Io`], and what is wrong with a file that begins as a sealed one.
pub fn holds(path: &Path) -> Result<Holds, SecretError> {
    let bytes = read(path)?;
    if keyfile::is_sealed(&bytes) {
        return match taken_apart(path, SecretKind::Signing, &bytes) {
            Ok((header, _)) => Ok(Holds::Sealed(header.kind)),
            // An account's, which the keystore looks after.
            Err(SecretError::Form { .. }) => Ok(Holds::Other),
            Err(error) => Err(error),
        };
    }
    let Ok(text) = std::str::from_utf8(&bytes) else { return Ok(Holds::Other) };
    let mut digits = Zeroizing::new([0_u8; super::KEY_BYTES]);
    if hex::decode_to_slice(text.trim(), digits.as_mut_slice()).is_ok() {
        return Ok(Holds::Digits);
    }
    let is_pem = text.contains("-----BEGIN ") && text.contains("PRIVATE KEY-----") && !text.contains("ENCRYPTED");
    Ok(if is_pem { Holds::Pem } else { Holds::Other })
}

/// Seals a key where it lies, under the passphrase of `wanted`. One that is sealed under another passphrase, that of
/// `earlier`, is sealed anew. Doing it again changes nothing, and what an interruption leaves is finished by that.
///
/// The bytes of a key in the clear are overwritten once the sealed file has been read back. A file system that writes
/// elsewhere, and a disk that moves its blocks, may keep them all the same.
///
/// # Errors
/// [`SecretError`]; the file is as it was then.
pub fn seal_in_place(
    path: &Path,
    kind: SecretKind,
    wanted: &mut Keyring,
    earlier: Option<&mut Keyring>,
) -> Result<Sealing, SecretError> {
    let bytes = read(path)?;
    if keyfile::is_sealed(&bytes) {
        let refused = match wanted.unsealed(path, kind, &bytes) {
            Ok(_) => return Ok(Sealing::Already),
            Err(error) => error,
        };
        return match (refused, earlier) {
            (SecretError::WrongPassphrase { .. }, Some(earlier)) => {
                let secret = earlier.unsealed(path, kind, &bytes)?;
                wanted.write(path, kind, &secret)?;
                Ok(Sealing::Resealed)
            }
            (refused, _) => Err(refused),
        };
    }
    let secret = plain(path, kind, &bytes)?;
    // One that its owner may not write either stays as it is below the new one.
    let before = OpenOptions::new().write(true).open(path).ok();
    wanted.write(path, kind, &secret)?;
    if wanted.open(path, kind)? != secret {
        return Err(SecretError::damaged(path, "it does not read back as it was written"));
    }
    if let Some(before) = before {
        overwrite(before, bytes.len()).map_err(|error| SecretError::io(path, &error))?;
    }
    Ok(Sealing::Sealed)
}

fn overwrite(mut file: File, length: usize) -> io::Result<()> {
    file.write_all(&vec![0; length])?;
    file.sync_all()
}
