//! `node`: one node until it is stopped; the offline check of its data, the first step of rebuilding a
//! replica, and another storage key. What changes a node's entry in the registry stands in `beacon`.

use std::path::{Path, PathBuf};

use ledger::GroupId;
use serde::Serialize;
use shard_node::server::rebuild::{ASIDE, set_aside};
use shard_node::server::{Node as Host, NodeConfig, vault};
use storage::{StorageError, VerifyReport};

use super::context::id;
use super::stop::Stop;
use crate::args::{Node, NodeCommand};
use crate::cluster::node_error;
use crate::error::CliError;
use crate::output::{Output, grouped, table};

/// Folders below the one that is named; data folders are not deeper.
const DEPTH_MAX: usize = 8;
/// The file that every database folder has.
const LIVE_FILE: &str = "LIVE";

#[derive(Serialize)]
struct Started {
    node: u32,
    pid: u32,
    listen_peer: String,
    listen_client: String,
}

pub(super) async fn run(args: Node, output: Output) -> Result<(), CliError> {
    match (args.command, args.config) {
        (Some(NodeCommand::Check { folder }), _) => check(&folder, output),
        (Some(NodeCommand::Rebuild { config, group }), _) => rebuild(&config, &group, output),
        (Some(NodeCommand::StorageKey { config }), _) => storage_key(&config, output),
        (Some(NodeCommand::Change(change)), _) => super::beacon::change_node(change, output).await,
        (None, Some(config)) => serve(&config, args.passphrase_file, args.with_parent, output).await,
        (None, None) => {
            Err(CliError::usage("node_config", "no configuration is named", "run: seamark node --config node.toml"))
        }
    }
}

async fn serve(
    file: &Path,
    passphrase_file: Option<PathBuf>,
    with_parent: bool,
    output: Output,
) -> Result<(), CliError> {
    let mut stop = Stop::listen()?;
    let mut config = NodeConfig::load(file)?;
    if passphrase_file.is_some() {
        config.passphrase_file = passphrase_file;
    }
    let id = config.node;
    let started = Started {
        node: id.0,
        pid: std::process::id(),
        listen_peer: config.listen_peer.to_string(),
        listen_client: config.listen_client.to_string(),
    };
    let node = Box::pin(Host::start(config)).await.map_err(|error| node_error(id, error))?;
    output.result(&started, || {
        format!("node {} runs: nodes at {}, clients at {}", started.node, started.listen_peer, started.listen_client)
    })?;
    let ended = tokio::select! {
        () = stop.asked() => false,
        () = parent_gone(), if with_parent => false,
        () = node.wait_stopped() => true,
    };
    Box::pin(node.shutdown()).await;
    if ended {
        let cause = format!("node {id} cannot go on");
        return Err(CliError::new(
            "node_stopped",
            cause,
            "see its log for the cause, mend it, and start the node again",
        )
        .after_report());
    }
    Ok(())
}

/// Resolves when the process that started this one has closed the pipe to it, or is gone.
async fn parent_gone() {
    let (gone, heard) = tokio::sync::oneshot::channel::<()>();
    // A thread of its own: a read of stdin cannot be taken back, and must not hold up the end.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = gone.send(());
    });
    // The sender only goes when stdin has ended.
    let _ = heard.await;
}

#[derive(Serialize)]
struct Rebuilding {
    node: u32,
    group: String,
    moved: Vec<Moved>,
    /// `snapshot` of another replica, or `log`.
    from: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_purged_upto: Option<u64>,
}

#[derive(Serialize)]
struct Moved {
    from: String,
    to: String,
}

fn rebuild(file: &Path, group: &str, output: Output) -> Result<(), CliError> {
    let config = NodeConfig::load(file)?;
    let group: GroupId = id("group", group)?;
    let done = tokio::task::block_in_place(|| set_aside(&config, group))?;
    let moved =
        |(from, to): &(PathBuf, PathBuf)| Moved { from: from.display().to_string(), to: to.display().to_string() };
    let result = Rebuilding {
        node: done.node.0,
        group: done.group.to_string(),
        moved: done.moved.iter().map(moved).collect(),
        from: if done.purged.is_some() { "snapshot" } else { "log" },
        log_purged_upto: done.purged,
    };
    output.result(&result, || rebuild_text(&result, file))
}

fn rebuild_text(result: &Rebuilding, file: &Path) -> String {
    let mut text = match result.moved.is_empty() {
        true => format!("there is no state of {} on node {} that could be moved", result.group, result.node),
        false => format!("{} of node {} is set aside:", result.group, result.node),
    };
    for moved in &result.moved {
        text.push_str(&format!("\n  {}\n    is now {}", moved.from, moved.to));
    }
    let how = match result.log_purged_upto {
        Some(index) => format!("fetches a snapshot of another replica, since its log was purged up to entry {index}"),
        None => "executes its log again, which goes back to the beginning".to_owned(),
    };
    text.push_str(&format!("\nthe votes and the log are untouched\nnext: seamark node --config {}", file.display()));
    text.push_str(&format!("\nthe replica then {how}; 'seamark status' shows when it has caught up"));
    text
}

#[derive(Serialize)]
struct NewStorageKey {
    node: u32,
    storage_key: String,
    /// Local keys of channels that are sealed under it.
    local_keys: usize,
}

fn storage_key(file: &Path, output: Output) -> Result<(), CliError> {
    let config = NodeConfig::load(file)?;
    let local_keys = tokio::task::block_in_place(|| vault::rotate(&config))?;
    let storage_key = config.storage_key.display().to_string();
    let result = NewStorageKey { node: config.node.0, storage_key, local_keys };
    output.result(&result, || {
        format!(
            "node {} has another storage key in {}\n  {} local keys of channels are sealed under it",
            result.node, result.storage_key, result.local_keys
        )
    })
}

#[derive(Serialize)]
struct Checked {
    folder: String,
    intact: bool,
    databases: Vec<Database>,
}

#[derive(Serialize)]
struct Database {
    folder: String,
    intact: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<Found>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Damage>,
}

#[derive(Serialize)]
struct Found {
    holds: String,
    cluster: String,
    format_version: u32,
    files: u64,
    pairs: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Damage {
    code: String,
    cause: String,
    fix: String,
}

fn check(folder: &Path, output: Output) -> Result<(), CliError> {
    let roots = databases(folder)?;
    if roots.is_empty() {
        let cause = format!("{} holds no database of a node", folder.display());
        return Err(CliError::new("check_no_data", cause, "name the data folder of a node, such as nodes/node-1/data"));
    }
    if let Some(root) = roots.iter().find(|root| in_use(root)) {
        let cause =
            format!("{} is in use, so its node runs, and what it has in memory is not in its files", root.display());
        return Err(CliError::new("check_running", cause, "stop the node first"));
    }
    let bar = output.bar(roots.len() as u64, "checking");
    let mut checked = Vec::new();
    let mut first_error = None;
    for root in roots {
        let result = tokio::task::block_in_place(|| verify(&root));
        bar.inc(1);
        let (found, error) = match result {
            Ok((holds, report)) => (Some(found(holds, &report)), None),
            Err(error) => {
                let error = CliError::from(error);
                let damage = Damage { code: error.code.clone(), cause: error.cause.clone(), fix: error.fix.clone() };
                first_error = first_error.or(Some(error));
                (None, Some(damage))
            }
        };
        checked.push(Database { folder: root.display().to_string(), intact: error.is_none(), found, error });
    }
    bar.finish_and_clear();
    let result = Checked { folder: folder.display().to_string(), intact: first_error.is_none(), databases: checked };
    output.result(&result, || text(&result))?;
    first_error.map_or(Ok(()), |error| Err(error.after_report()))
}

/// Whether another process has one of the databases below this folder open: RocksDB holds a lock on a
/// file of it.
fn in_use(root: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(root) else { return false };
    entries.flatten().any(|entry| {
        let lock = std::fs::OpenOptions::new().read(true).write(true).open(entry.path().join("LOCK"));
        // What cannot be opened is no evidence; the check itself says what is wrong with it.
        lock.is_ok_and(|lock| {
            let taken = rustix::fs::fcntl_lock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive);
            matches!(taken, Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS))
        })
    })
}

/// A state database, or the shared log: each says of itself which it is.
fn verify(root: &Path) -> Result<(&'static str, VerifyReport), StorageError> {
    match storage::rocks::verify_offline(root) {
        Err(StorageError::WrongGroup { .. }) => storage::log::verify_offline(root).map(|report| ("log", report)),
        other => other.map(|report| ("state", report)),
    }
}

fn found(holds: &str, report: &VerifyReport) -> Found {
    let holds = match holds {
        "log" => "log of all groups".to_owned(),
        _ => format!("state of {}", GroupId(report.group)),
    };
    Found {
        holds,
        cluster: hex::encode(report.cluster),
        format_version: report.format_version,
        files: report.files,
        pairs: report.pairs,
        bytes: report.bytes,
    }
}

fn text(result: &Checked) -> String {
    let rows = result.databases.iter().map(|database| match (&database.found, &database.error) {
        (Some(found), _) => [
            database.folder.clone(),
            found.holds.clone(),
            grouped(found.pairs.into()),
            grouped(found.bytes.into()),
            "intact".to_owned(),
        ],
        (None, error) => {
            let code = error.as_ref().map_or("", |error| error.code.as_str());
            [database.folder.clone(), String::new(), String::new(), String::new(), format!("DAMAGED: {code}")]
        }
    });
    let mut text = table(["folder", "holds", "entries", "bytes", "result"], rows);
    // Below the table: a cell is no place for sentences.
    for error in result.databases.iter().filter_map(|database| database.error.as_ref()) {
        text.push_str(&format!("\n{}: {}\n  fix: {}", error.code, error.cause, error.fix));
    }
    let verdict = if result.intact { "everything is intact" } else { "not everything is intact" };
    format!("{text}\n{verdict}")
}

/// Every database folder at or below this one, by name.
fn databases(folder: &Path) -> Result<Vec<PathBuf>, CliError> {
    let mut found = Vec::new();
    collect(folder, DEPTH_MAX, &mut found)?;
    found.sort();
    Ok(found)
}

fn collect(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), CliError> {
    let error = |error| CliError::file(folder, &error);
    let mut below = Vec::new();
    let mut is_database = false;
    for entry in std::fs::read_dir(folder).map_err(error)? {
        let entry = entry.map_err(error)?;
        let name = entry.file_name();
        // What was set aside is not in use, and is expected to be damaged.
        if name.to_string_lossy().starts_with(ASIDE) {
            continue;
        }
        let is_folder = entry.file_type().map_err(error)?.is_dir();
        // A database whose pointer is lost is still one, and has to be reported.
        is_database |= name == LIVE_FILE || (is_folder && name.to_string_lossy().starts_with("db-"));
        if is_folder {
            below.push(entry.path());
        }
    }
    if is_database {
        found.push(folder.to_owned());
        return Ok(());
    }
    if depth > 0 {
        for inner in below {
            collect(&inner, depth - 1, found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_found_at_any_depth_and_also_when_their_pointer_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let make = |path: &str| std::fs::create_dir_all(folder.path().join(path)).unwrap();
        make("data/log/db-0000000000000001");
        make("data/groups/shard-0");
        make("data/empty");
        std::fs::write(folder.path().join("data/groups/shard-0/LIVE"), b"x").unwrap();
        let found = databases(folder.path()).unwrap();
        let names: Vec<_> = found.iter().filter_map(|path| path.file_name()).collect();
        assert_eq!(names, ["shard-0", "log"]);
        assert_eq!(databases(&folder.path().join("data/log")).unwrap().len(), 1);
        assert_eq!(databases(&folder.path().join("none")).unwrap_err().code, "file");
    }

    #[test]
    fn the_table_names_the_damage_and_the_sentences_stand_below_it() {
        let error = StorageError::Truncated { path: "/d/7.log".into(), found: 2, acknowledged: 3 };
        let CliError { code, cause, fix, .. } = error.into();
        let damage = Damage { code, cause: cause.clone(), fix: fix.clone() };
        let database = Database { folder: "/d".into(), intact: false, found: None, error: Some(damage) };
        let text = text(&Checked { folder: "/d".into(), intact: false, databases: vec![database] });
        let below = format!("storage_truncated: {cause}\n  fix: {fix}\nnot everything is intact");
        let table = text.strip_suffix(&below).unwrap_or_else(|| panic!("{text}"));
        assert!(table.contains("DAMAGED: storage_truncated") && !table.contains("acknowledged"), "{table}");
    }

    #[test]
    fn what_is_damaged_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("LIVE"), b"garbage").unwrap();
        assert_eq!(verify(folder.path()).unwrap_err().code(), "storage_corrupt");
    }
}
