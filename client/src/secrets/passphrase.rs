//! The passphrase of private keys: where it comes from when nobody is there to be asked.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::SecretError;
use crate::keyfile::{self, Fault, KdfCost};

/// The environment variable that gives a passphrase to programs that cannot ask for it.
pub const PASSPHRASE_VARIABLE: &str = "SEAMARK_PASSPHRASE";
/// The file of a passphrase that is looked for beside a key, when no other one is named.
pub const PASSPHRASE_FILE: &str = "passphrase";
/// The name of a systemd credential that holds a passphrase (`LoadCredential=`, `LoadCredentialEncrypted=`).
pub const CREDENTIAL: &str = "seamark-passphrase";
/// Where systemd tells a service the folder of its credentials.
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";
/// Longest passphrase.
const BYTES_MAX: usize = 1024;
/// What a passphrase begins with that [`Passphrase::generate`] made: 256 random bits follow in hex.
const RANDOM_MARK: &str = "random-";
const RANDOM_BYTES: usize = 32;

/// A passphrase, and where it comes from. Wiped when dropped, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase {
    text: Zeroizing<String>,
    source: String,
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Passphrase(of {})", self.source)
    }
}

impl Passphrase {
    /// Takes a text that came from `source`.
    #[must_use]
    pub fn new(text: impl Into<String>, source: impl Into<String>) -> Self {
        Self { text: Zeroizing::new(text.into()), source: source.into() }
    }

    /// Makes one of 256 random bits.
    ///
    /// # Errors
    /// [`SecretError::Crypto`] when the system gives no randomness.
    pub fn generate() -> Result<Self, SecretError> {
        let drawn = keyfile::random::<RANDOM_BYTES>().map(Zeroizing::new).map_err(|fault| match fault {
            Fault::Crypto(cause) | Fault::Damaged(cause) => SecretError::Crypto(cause),
            Fault::Version(_) => SecretError::Crypto("no randomness".to_owned()),
        })?;
        let digits = Zeroizing::new(hex::encode(drawn.as_slice()));
        Ok(Self::new(format!("{RANDOM_MARK}{}", digits.as_str()), "this run"))
    }

    /// Reads the file of a passphrase, which its owner alone may be able to read.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let found = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        if readable_by_others(&found) {
            return Err(SecretError::PassphraseReadable { path: path.display().to_string() });
        }
        Self::read_unguarded(path)
    }

    fn read_unguarded(path: &Path) -> Result<Self, SecretError> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(BYTES_MAX + 1));
        let file = std::fs::File::open(path).map_err(|error| unreadable(path, &error))?;
        file.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
        let source = path.display().to_string();
        let bad = |cause| SecretError::PassphraseForm { source_of: source.clone(), cause };
        if bytes.len() > BYTES_MAX {
            return Err(bad("it is over 1024 bytes"));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| bad("it is no text"))?;
        // Whoever writes it with an editor or 'echo' has an end of line that belongs to the file.
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Err(bad("it is empty"));
        }
        if text.contains(['\n', '\r', '\0']) {
            return Err(bad("it is more than one line"));
        }
        Ok(Self::new(text, source))
    }

    /// The passphrase for a key: that of the file that is named; else that of the file `passphrase` beside the key, of
    /// the environment, or of the service's credentials, whichever is there first.
    ///
    /// # Errors
    /// [`SecretError`] when the first that is there holds none, or the file that is named is not there.
    pub fn find(named: Option<&Path>, key: &Path) -> Result<Option<Self>, SecretError> {
        if let Some(path) = named {
            return Self::read(path).map(Some);
        }
        let beside = key.with_file_name(PASSPHRASE_FILE);
        if beside.exists() {
            return Self::read(&beside).map(Some);
        }
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(text) = set(PASSPHRASE_VARIABLE) {
            let source_of = PASSPHRASE_VARIABLE.to_owned();
            let text = text
                .into_string()
                .map_err(|_| SecretError::PassphraseForm { source_of: source_of.clone(), cause: "it is no text" })?;
            return Ok(Some(Self::new(text, source_of)));
        }
        match set(CREDENTIALS_VARIABLE).map(|folder| PathBuf::from(folder).join(CREDENTIAL)) {
            // systemd grants a service its credentials by an access list, which shows as a mode for the group; the
            // folder is what keeps others out.
            Some(path) if path.exists() => Self::read_unguarded(&path).map(Some),
            _ => Ok(None),
        }
    }

    /// The text itself.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where it comes from, for people.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it has 256 random bits, and not what somebody thought of.
    #[must_use]
    pub fn is_random(&self) -> bool {
        is_random(&self.text)
    }

    /// What a try of it has to cost.
    pub(super) fn cost(&self) -> KdfCost {
        if self.is_random() { KdfCost::OF_RANDOM } else { KdfCost::default() }
    }
}

/// Whether a passphrase is one of those that [`Passphrase::generate`] makes.
#[must_use]
pub fn is_random(text: &str) -> bool {
    let digits = text.strip_prefix(RANDOM_MARK);
    digits.is_some_and(|digits| {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        digits.len() == RANDOM_BYTES * 2 && digits.bytes().all(hex)
    })
}

fn unreadable(path: &Path, error: &std::io::Error) -> SecretError {
    SecretError::PassphraseFile { path: path.display().to_string(), cause: error.to_string() }
}

fn readable_by_others(found: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    found.permissions().mode() & 0o077 != 0
}
