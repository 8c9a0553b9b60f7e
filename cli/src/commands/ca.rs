//! `ca`: authorities of organisations, and the certificates that they issue.
//!
//! The files are PEM that any other tool reads. Private keys of processes are in the clear, readable by their owner
//! only, because nodes start without anybody there; the key of an authority is under a passphrase.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use client::NetError;
use client::net::CertificateInfo;
use ledger::ids::NodeId;
use serde::Serialize;

use super::context::{new_passphrase, passphrase};
use crate::args::{Ca, RoleArg};
use crate::error::CliError;
use crate::output::{Output, foreign, moment};
use crate::setup::{Authority, Subject};

const CERT: &str = "ca.pem";
const KEY: &str = "ca.key";
const NAME_BYTES_MAX: usize = 64;
const DAY_SECS: i64 = 24 * 3600;

#[derive(Serialize)]
struct Line {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_file: Option<String>,
    subject: String,
    issuer: String,
    authority: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    org: Option<String>,
    /// `sha256` of the public key, as the registry binds a node to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_hash: Option<String>,
    valid_from_ms: u64,
    valid_until_ms: u64,
    /// Whole days that are left; below zero once it has expired.
    days_left: i64,
}

impl Line {
    fn of(file: &Path, key_file: Option<&Path>, pem: &str) -> Result<Self, CliError> {
        let info = CertificateInfo::from_pem(pem).map_err(|error| CliError::from(error).context(file.display()))?;
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let ms = |secs: i64| u64::try_from(secs).unwrap_or_default().saturating_mul(1000);
        Ok(Self {
            file: file.display().to_string(),
            key_file: key_file.map(|path| path.display().to_string()),
            subject: info.subject,
            issuer: info.issuer,
            authority: info.authority,
            role: info.peer.as_ref().map(|peer| peer.role.as_str()),
            org: info.peer.as_ref().and_then(|peer| peer.org.clone()),
            key_hash: info.peer.as_ref().map(|peer| peer.key_hash.to_string()),
            valid_from_ms: ms(info.from_secs),
            valid_until_ms: ms(info.until_secs),
            days_left: (info.until_secs - now).div_euclid(DAY_SECS),
        })
    }

    fn text(&self) -> String {
        let kind = if self.authority { "authority" } else { self.role.unwrap_or("certificate") };
        let left = match self.days_left {
            i64::MIN..=-1 => "EXPIRED".to_owned(),
            1 => "1 day left".to_owned(),
            days => format!("{days} days left"),
        };
        let mut text = format!(
            "{kind} {}\n  issued by    {}\n  valid until  {} ({left})\n  certificate  {}",
            foreign(&self.subject),
            foreign(&self.issuer),
            moment(self.valid_until_ms),
            self.file
        );
        if let Some(key) = &self.key_file {
            text.push_str(&format!("\n  key          {key}"));
        }
        if let Some(hash) = &self.key_hash {
            text.push_str(&format!("\n  key hash     {hash}"));
        }
        text
    }
}

pub(super) fn run(command: &Ca, output: Output) -> Result<(), CliError> {
    let line = match command {
        Ca::New { org, out } => new(org, out)?,
        Ca::Issue { role, name, ca, hosts, days, out } => issue(*role, name, ca, hosts, *days, out)?,
        Ca::Show { file } => Line::of(file, None, &read(file)?)?,
    };
    output.result(&line, || line.text())
}

fn new(org: &str, out: &Path) -> Result<Line, CliError> {
    checked_name(org)?;
    let (cert, key) = (out.join(CERT), out.join(KEY));
    for path in [&cert, &key] {
        absent(path)?;
    }
    let authority = Authority::make(org)?;
    let passphrase = new_passphrase(&format!("authority of {org}"))?;
    let sealed = authority.sealed_key_pem(&passphrase)?;
    // The key first: a certificate without its key would look whole.
    write(&key, sealed.as_bytes(), 0o600)?;
    write(&cert, authority.cert_pem().as_bytes(), 0o644)?;
    Line::of(&cert, Some(&key), authority.cert_pem())
}

fn issue(role: RoleArg, name: &str, ca: &Path, hosts: &[String], days: i64, out: &Path) -> Result<Line, CliError> {
    checked_name(name)?;
    let org = org_of(&ca.join(CERT), &read(&ca.join(CERT))?)?;
    let subject = subject(role, name, &org, hosts)?;
    let (cert, key) = (out.join(format!("{name}.pem")), out.join(format!("{name}.key")));
    for path in [&cert, &key] {
        absent(path)?;
    }
    let leaf = open(ca, &org)?.issue_for(&subject, days)?;
    write(&key, leaf.key_pem.as_bytes(), 0o600)?;
    write(&cert, leaf.cert_pem.as_bytes(), 0o644)?;
    Line::of(&cert, Some(&key), &leaf.cert_pem)
}

/// Opens the authority of an organisation in a folder, asking for the passphrase where there is one: that of a cluster
/// which `up` or `init` made has its key in the clear.
pub(super) fn open(ca: &Path, org: &str) -> Result<Authority, CliError> {
    let (cert_pem, key_pem) = (read(&ca.join(CERT))?, read(&ca.join(KEY))?);
    if Authority::is_sealed(&key_pem) {
        Ok(Authority::from_sealed_pem(&cert_pem, &key_pem, &passphrase(&format!("authority of {org}"))?)?)
    } else {
        Ok(Authority::from_pem(&cert_pem, &key_pem)?)
    }
}

fn subject(role: RoleArg, name: &str, org: &str, hosts: &[String]) -> Result<Subject, CliError> {
    let server = matches!(role, RoleArg::Node | RoleArg::Router);
    if !server && !hosts.is_empty() {
        let cause = "only nodes and routers answer under host names";
        return Err(CliError::usage("ca_hosts", cause, "leave out --host"));
    }
    Ok(match role {
        RoleArg::Node => {
            let number = name.strip_prefix("node-").and_then(|number| number.parse().ok()).map(NodeId);
            // Written back, so that `node-07` is not taken for another node than `node-7`.
            let id = number.filter(|id| format!("node-{id}") == name).ok_or_else(|| {
                let cause = format!("'{name}' is no node's name");
                CliError::usage("ca_name", cause, "a node is called node-N by its number, such as node-7")
            })?;
            Subject::node(id, org, hosts.to_vec())
        }
        RoleArg::Router => Subject::router(name, org, hosts.to_vec()),
        RoleArg::Client => Subject::client(name, org),
        RoleArg::Admin => Subject::admin(name, org),
        RoleArg::Auditor => Subject::auditor(name, org),
    })
}

/// The organisation whose authority it is.
fn org_of(path: &Path, pem: &str) -> Result<String, CliError> {
    let org = CertificateInfo::org_of_authority(pem).map_err(|error| CliError::from(error).context(path.display()))?;
    org.ok_or_else(|| {
        let cause = format!("{} is no certificate of an organisation's authority", path.display());
        CliError::new("pki_authority", cause, "name the folder with ca.pem and ca.key with --ca")
    })
}

fn checked_name(name: &str) -> Result<(), CliError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with('.') {
        return Ok(());
    }
    let cause = format!("'{name}' cannot be a name in a certificate");
    Err(CliError::usage("ca_name", cause, "use 1-64 letters, digits, '.', '-' or '_', not beginning with '.'"))
}

fn read(path: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(path)
        .map_err(|error| NetError::File { path: path.display().to_string(), cause: error.to_string() }.into())
}

fn absent(path: &Path) -> Result<(), CliError> {
    if path.exists() {
        let cause = format!("{} exists and is not replaced", path.display());
        return Err(CliError::new("ca_exists", cause, "name another folder with --out"));
    }
    Ok(())
}

/// Makes a file in one step: whole, or not at all, and never over another one.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::file(path, &error);
    let folder: PathBuf = path.parent().map(Path::to_owned).unwrap_or_default();
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let mut temp = tempfile::NamedTempFile::new_in(&folder).map_err(failed)?;
    temp.write_all(bytes).map_err(failed)?;
    temp.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    temp.as_file().sync_all().map_err(failed)?;
    temp.persist_noclobber(path).map_err(|error| failed(error.error))?;
    Ok(())
}
