//! `key seal` and `key reveal`: the private keys of nodes, organisations and certificates, in the files where they lie.
//!
//! Keys in one folder are of one owner and under one passphrase. A node's are those that its node.toml names, wherever
//! they lie. Keys of accounts are none of these: the keystore looks after them.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use client::secrets::{
    Holds, Keyring, PASSPHRASE_FILE, Passphrase, Sealing, SecretError, SecretKind, holds, seal_in_place,
};
use serde::Serialize;
use shard_node::server::NodeConfig;
use shard_node::server::rotation::next_files;
use zeroize::Zeroizing;

use super::ca::make_passphrase;
use super::context::passphrase;
use crate::error::CliError;
use crate::output::{Output, table};
use crate::setup::{Authority, KEYS_DIR, TRANSACTIONS_DIR};

const EXTENSION: &str = "key";
const CONFIG: &str = "node.toml";
/// The certificate of an authority, beside its key.
const CA_CERT: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const STORAGE_KEY: &str = "storage.key";
/// Folders of a cluster that hold no such keys.
const OTHERS: [&str; 3] = ["data", KEYS_DIR, TRANSACTIONS_DIR];
/// Folders below the one that is named.
const DEPTH_MAX: usize = 8;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Secret(SecretKind),
    /// The key of an authority, whose file other tools open.
    Authority,
}

/// The keys of one owner.
#[derive(Debug)]
struct Owner {
    folder: PathBuf,
    /// What node.toml names.
    passphrase_file: Option<PathBuf>,
    keys: Vec<(PathBuf, Kind)>,
}

#[derive(Debug, Serialize)]
struct Line {
    file: String,
    /// `sealed`, `sealed anew`, or `sealed before`.
    done: &'static str,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    keys: Vec<Line>,
    /// Files with passphrases that were made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    new_passphrases: Vec<String>,
}

impl Report {
    fn text(&self) -> String {
        let rows = self.keys.iter().map(|line| [line.file.clone(), line.done.to_owned()]);
        let mut text = table(["key", "is"], rows);
        for file in &self.new_passphrases {
            text.push_str(&format!(
                "\nthe passphrase is in {file}: move it to where no copy of the keys takes it along"
            ));
        }
        if self.keys.iter().any(|line| line.done == told(Sealing::Resealed)) {
            text.push_str("\nthe passphrase before opens nothing any more: remove its file, and name the new one where a node.toml names it");
        }
        text
    }
}

fn told(done: Sealing) -> &'static str {
    match done {
        Sealing::Sealed => "sealed",
        Sealing::Resealed => "sealed anew",
        Sealing::Already => "sealed before",
    }
}

/// Seals all keys at these paths, under the passphrase of a file that is named, or else the one that is found or made for
/// each owner.
pub(super) fn run(paths: &[PathBuf], named: Option<&Path>, output: Output) -> Result<(), CliError> {
    let mut report = Report::default();
    for path in paths {
        let owners = owners(path)?;
        if owners.is_empty() {
            let cause =
                format!("there is no private key of a node, an organisation or a certificate in {}", path.display());
            return Err(CliError::new(
                "key_not_found",
                cause,
                "name a file that ends in '.key', or a folder with some",
            ));
        }
        for owner in &owners {
            seal(owner, named, &mut report)?;
        }
    }
    output.result(&report, || report.text())
}

fn seal(owner: &Owner, named: Option<&Path>, report: &mut Report) -> Result<(), CliError> {
    let wanted = match named {
        Some(file) => Passphrase::read(file)?,
        None => match found(owner)? {
            Some(passphrase) => passphrase,
            // Nothing to do, and nothing that a passphrase is needed for.
            None if owner.keys.iter().all(|(path, kind)| *kind == Kind::Authority && is_sealed_pem(path)) => {
                let before = owner.keys.iter().map(|(path, _)| line(path, Sealing::Already));
                report.keys.extend(before);
                return Ok(());
            }
            None => {
                let file = owner.folder.join(PASSPHRASE_FILE);
                let made = make_passphrase(&file)?;
                report.new_passphrases.push(file.display().to_string());
                made
            }
        },
    };
    let mut keyring = Keyring::holding(wanted.clone());
    // Where one is named, what is sealed already may be under the one that is found.
    let mut earlier = named.map(|_| Keyring::finding(owner.passphrase_file.clone()));
    for (path, kind) in &owner.keys {
        let done = match kind {
            Kind::Secret(kind) => seal_in_place(path, *kind, &mut keyring, earlier.as_mut())?,
            Kind::Authority => seal_authority(path, &wanted, named.is_some())?,
        };
        report.keys.push(line(path, done));
    }
    Ok(())
}

fn line(path: &Path, done: Sealing) -> Line {
    Line { file: path.display().to_string(), done: told(done) }
}

/// The passphrase of an owner by the rule of all private keys. One that has sealed keys has one somewhere, so that none is
/// made.
fn found(owner: &Owner) -> Result<Option<Passphrase>, CliError> {
    let Some((first, _)) = owner.keys.first() else { return Ok(None) };
    if let Some(found) = Passphrase::find(owner.passphrase_file.as_deref(), first)? {
        return Ok(Some(found));
    }
    for (path, kind) in &owner.keys {
        if *kind != Kind::Authority && matches!(holds(path)?, Holds::Sealed(_)) {
            return Err(SecretError::NoPassphrase { path: path.display().to_string() }.into());
        }
    }
    Ok(None)
}

fn is_sealed_pem(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| Authority::is_sealed(&text))
}

/// Seals the key of an authority; one that is sealed already only when another passphrase was named.
fn seal_authority(path: &Path, wanted: &Passphrase, anew: bool) -> Result<Sealing, CliError> {
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| CliError::file(path, &error));
    let (cert, key) = (read(&path.with_file_name(CA_CERT))?, Zeroizing::new(read(path)?));
    let (authority, done) = if !Authority::is_sealed(&key) {
        (Authority::from_pem(&cert, &key)?, Sealing::Sealed)
    } else if !anew || Authority::from_sealed_pem(&cert, &key, wanted.text()).is_ok() {
        return Ok(Sealing::Already);
    } else {
        let present = match Passphrase::find(None, path)? {
            Some(found) => Zeroizing::new(found.text().to_owned()),
            None => passphrase(&path.display().to_string())?,
        };
        (Authority::from_sealed_pem(&cert, &key, &present)?, Sealing::Resealed)
    };
    replace(path, authority.sealed_key_pem(wanted.text())?.as_bytes())?;
    Ok(done)
}

/// Replaces a secret file in one step.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::file(path, &error);
    let folder = folder_of(path);
    // Such a file is readable by its owner alone.
    let mut temp = tempfile::NamedTempFile::new_in(&folder).map_err(failed)?;
    temp.write_all(bytes).map_err(failed)?;
    temp.as_file().sync_all().map_err(failed)?;
    temp.persist(path).map_err(|error| failed(error.error))?;
    std::fs::File::open(&folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

fn folder_of(path: &Path) -> PathBuf {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// The owners of keys at a path: that of a file, or those of a folder and of the folders below it.
fn owners(path: &Path) -> Result<Vec<Owner>, CliError> {
    let mut owners = Vec::new();
    if path.is_dir() {
        collect(path, DEPTH_MAX, &mut owners)?;
        return Ok(owners);
    }
    let folder = folder_of(path);
    let config = config_of(&folder)?;
    let as_node = config.as_ref().and_then(|config| kind_in(config, path));
    if let Some(kind) = kind(path)?.map(|kind| as_node.map_or(kind, Kind::Secret)) {
        let passphrase_file = config.and_then(|config| config.passphrase_file);
        owners.push(Owner { folder, passphrase_file, keys: vec![(path.to_owned(), kind)] });
    }
    Ok(owners)
}

fn collect(folder: &Path, depth: usize, owners: &mut Vec<Owner>) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::file(folder, &error);
    let config = config_of(folder)?;
    let (mut keys, mut below) = (Vec::new(), Vec::new());
    if let Some(config) = &config {
        let named = keys_of(config).into_iter().filter(|(path, _)| path.exists());
        keys.extend(named.map(|(path, kind)| (path, Kind::Secret(kind))));
    }
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type().map_err(failed)?.is_dir() {
            if !OTHERS.iter().any(|other| name == *other) {
                below.push(path);
            }
        } else if path.extension().is_some_and(|extension| extension == EXTENSION)
            && !keys.iter().any(|(known, _)| *known == path)
            && let Some(kind) = kind(&path)?
        {
            keys.push((path, kind));
        }
    }
    if !keys.is_empty() {
        keys.sort_by(|a, b| a.0.cmp(&b.0));
        let passphrase_file = config.and_then(|config| config.passphrase_file);
        owners.push(Owner { folder: folder.to_owned(), passphrase_file, keys });
    }
    below.sort();
    if depth > 0 {
        below.iter().try_for_each(|inner| collect(inner, depth - 1, owners))?;
    }
    Ok(())
}

/// What a file is by its content, and where that does not tell, by its name.
fn kind(path: &Path) -> Result<Option<Kind>, CliError> {
    let named = |name: &str| path.file_name().is_some_and(|found| found == name);
    let authority = named(CA_KEY) && path.with_file_name(CA_CERT).exists();
    Ok(match holds(path)? {
        Holds::Sealed(kind) => Some(Kind::Secret(kind)),
        Holds::Digits if named(STORAGE_KEY) => Some(Kind::Secret(SecretKind::Storage)),
        Holds::Digits => Some(Kind::Secret(SecretKind::Signing)),
        Holds::Pem if authority => Some(Kind::Authority),
        Holds::Pem => Some(Kind::Secret(SecretKind::Tls)),
        Holds::Other if authority && is_sealed_pem(path) => Some(Kind::Authority),
        Holds::Other => None,
    })
}

/// The keys that a node's configuration names, with those that follow its signing key.
fn keys_of(config: &NodeConfig) -> Vec<(PathBuf, SecretKind)> {
    let next = next_files(&config.signing_key).into_iter().map(|path| (path, SecretKind::Signing));
    let named = [
        (config.key.clone(), SecretKind::Tls),
        (config.signing_key.clone(), SecretKind::Signing),
        (config.storage_key.clone(), SecretKind::Storage),
    ];
    named.into_iter().chain(next).collect()
}

fn kind_in(config: &NodeConfig, path: &Path) -> Option<SecretKind> {
    keys_of(config).into_iter().find(|(known, _)| *known == path).map(|(_, kind)| kind)
}

/// The configuration of the node whose folder this is.
fn config_of(folder: &Path) -> Result<Option<NodeConfig>, CliError> {
    let file = folder.join(CONFIG);
    if !file.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&file).map_err(|error| CliError::file(&file, &error))?;
    Ok(Some(NodeConfig::parse(&text, &file)?))
}

#[derive(Serialize)]
struct Revealed {
    file: String,
    kind: &'static str,
    key: String,
}

/// Prints a sealed key in the clear.
pub(super) fn reveal(file: &Path, named: Option<PathBuf>, output: Output) -> Result<(), CliError> {
    let Holds::Sealed(kind) = holds(file)? else {
        let cause = format!("{} holds no sealed key of a node, an organisation or a certificate", file.display());
        let fix = "look into the file itself, or take 'openssl pkey' for the key of an authority";
        return Err(CliError::new("key_form", cause, fix));
    };
    let configured = config_of(&folder_of(file))?.and_then(|config| config.passphrase_file);
    let secret = Keyring::finding(named.or(configured)).open(file, kind)?;
    let key = match kind {
        SecretKind::Tls => String::from_utf8_lossy(&secret).trim_end().to_owned(),
        SecretKind::Signing | SecretKind::Storage => hex::encode(secret.as_slice()),
    };
    let revealed = Revealed { file: file.display().to_string(), kind: kind.name(), key };
    output.result(&revealed, || revealed.key.clone())
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
