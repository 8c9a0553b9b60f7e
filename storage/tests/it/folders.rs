//! Whose folder it is, which database in it is live, and how a snapshot becomes the live one.

use std::fs;
use std::path::Path;

use storage::{Kv, LogEngine, LogIdentity, StateDb, StateIdentity, StorageError};

use crate::kv_suite::{batch, content};
use crate::support::{CLUSTER, Folder, LOG, STATE, cut, flip, plain, shared};

fn open_as(folder: &Folder, identity: StateIdentity) -> Result<StateDb, StorageError> {
    StateDb::open(&folder.root(), shared(), identity, plain())
}

fn refusal<T>(result: Result<T, StorageError>) -> StorageError {
    result.err().expect("must be refused")
}

#[test]
fn folders_of_others_are_refused() {
    let folder = Folder::new();
    drop(open_as(&folder, StateIdentity { format_version: 2, ..STATE }).expect("create"));
    let wrong_cluster = refusal(open_as(&folder, StateIdentity { cluster: [0; 32], ..STATE }));
    assert_eq!(wrong_cluster.code(), "storage_wrong_cluster");
    assert!(wrong_cluster.to_string().contains(&"c1".repeat(32)), "{wrong_cluster}");
    let wrong_group = refusal(open_as(&folder, StateIdentity { group: 8, format_version: 2, ..STATE }));
    assert_eq!(wrong_group.code(), "storage_wrong_group");
    assert!(wrong_group.to_string().contains("group 7"), "{wrong_group}");
    let wrong_node = refusal(open_as(&folder, StateIdentity { node: 2, format_version: 2, ..STATE }));
    assert_eq!(wrong_node.code(), "storage_wrong_node");
    let newer = refusal(open_as(&folder, STATE));
    assert_eq!(newer.code(), "storage_newer_version");
    assert!(newer.to_string().contains("format 2"), "{newer}");
    assert_eq!(refusal(folder.try_engine()).code(), "storage_wrong_group", "state is not a log");
    let older = open_as(&folder, StateIdentity { format_version: 3, ..STATE }).expect("older formats are read");
    assert_eq!(older.format_version(), 2);

    let folder = Folder::new();
    drop(folder.engine());
    let other = LogIdentity { cluster: [0; 32], ..LOG };
    assert_eq!(refusal(LogEngine::open(&folder.root(), shared(), other)).code(), "storage_wrong_cluster");
    let other = LogIdentity { node: 2, ..LOG };
    let wrong_node = refusal(LogEngine::open(&folder.root(), shared(), other));
    assert_eq!(wrong_node.code(), "storage_wrong_node");
    assert!(wrong_node.to_string().contains("belongs to node 1, and this is node 2"), "{wrong_node}");
    assert_eq!(refusal(folder.try_state()).code(), "storage_wrong_group", "a log is not state");
    drop(LogEngine::open(&folder.root(), shared(), LOG).expect("its own"));
}

#[test]
fn a_folder_in_use_is_refused() {
    let folder = Folder::new();
    let _open = folder.state();
    assert_eq!(refusal(folder.try_state()).code(), "storage_in_use");
}

#[test]
fn damaged_or_missing_identity_and_pointer_are_refused() {
    type Damage = fn(&Path);
    let damages: [Damage; 4] = [
        |file| flip(file, 9),
        |file| flip(file, 15),
        |file| cut(file, 5),
        |file| fs::remove_file(file).expect("remove"),
    ];
    for damage in damages {
        for pointer in [true, false] {
            let folder = Folder::new();
            drop(folder.state());
            damage(&if pointer { folder.root().join("LIVE") } else { folder.live().join("SEAMARK") });
            let error = refusal(folder.try_state());
            assert!(["storage_corrupt", "storage_newer_version"].contains(&error.code()), "{error}");
            assert!(storage::rocks::verify_offline(&folder.root()).is_err());
        }
    }
}

/// A folder with `a = old`, and a checkpoint of another database with `a = new`.
fn with_snapshot() -> (Folder, std::path::PathBuf) {
    let folder = Folder::new();
    let state = folder.state();
    state.write(batch(&[("a", "old"), ("only", "old")])).expect("write");
    state.flush().expect("flush");
    let other = Folder::new();
    let source = other.state();
    source.write(batch(&[("a", "new")])).expect("write");
    let received = folder.path().join("received");
    source.checkpoint(&received).expect("checkpoint");
    source.write(batch(&[("a", "later")])).expect("write");
    (folder, received)
}

fn install(folder: &Folder, received: &Path, identity: StateIdentity) -> Result<(), StorageError> {
    let staged = StateDb::stage(received, &folder.root(), shared(), identity, plain())?;
    staged.switch()?.remove_old()
}

fn value(state: &StateDb) -> String {
    let value = state.get(b"a").expect("get").expect("present");
    String::from_utf8(value.to_vec()).expect("text")
}

#[test]
fn an_installed_snapshot_replaces_the_state() {
    let (folder, received) = with_snapshot();
    install(&folder, &received, STATE).expect("install");
    assert_eq!(content(&folder.state()), [("a".to_string(), "new".to_string())]);
    assert_eq!(fs::read_dir(folder.root()).expect("folder").count(), 2, "LIVE and one database");
    // The received copy is untouched, whatever happens to the live one.
    folder.state().write(batch(&[("a", "mine")])).expect("write");
    install(&folder, &received, STATE).expect("again");
    assert_eq!(value(&folder.state()), "new");

    let fresh = Folder::new();
    install(&fresh, &received, STATE).expect("into a folder that never had a state");
    assert_eq!(value(&fresh.state()), "new");
}

#[test]
fn a_staged_snapshot_changes_nothing_until_it_is_switched_to() {
    let (folder, received) = with_snapshot();
    let folders = || fs::read_dir(folder.root()).expect("folder").count();
    let live = folder.state();
    let staged = StateDb::stage(&received, &folder.root(), shared(), STATE, plain()).expect("stage");
    assert_eq!((value(staged.db()), value(&live)), ("new".to_owned(), "old".to_owned()));
    drop(staged);
    assert_eq!((value(&live), folders()), ("old".to_owned(), 2), "what is not wanted is removed");

    let staged = StateDb::stage(&received, &folder.root(), shared(), STATE, plain()).expect("stage");
    staged.db().write(batch(&[("mark", "mine")])).expect("write");
    let next = staged.switch().expect("switch");
    assert_eq!((value(&live), value(&next)), ("old".to_owned(), "new".to_owned()), "readers may go on");
    drop(live);
    next.remove_old().expect("remove");
    assert_eq!(folders(), 2);
    drop(next);
    let reopened = folder.state();
    assert_eq!(value(&reopened), "new");
    assert!(reopened.get(b"mark").expect("get").is_some(), "what was written before the switch is durable");
}

#[test]
fn snapshots_of_others_and_damaged_ones_are_refused_and_change_nothing() {
    let (folder, received) = with_snapshot();
    let codes = [
        install(&folder, &received, StateIdentity { cluster: [0; 32], ..STATE }),
        install(&folder, &received, StateIdentity { group: 9, ..STATE }),
        install(&folder, &received, StateIdentity { format_version: 0, ..STATE }),
        install(&folder, &folder.path().join("nowhere"), STATE),
    ]
    .map(|result| refusal(result).code());
    assert_eq!(codes, ["storage_wrong_cluster", "storage_wrong_group", "storage_newer_version", "storage_corrupt"]);
    let table = fs::read_dir(&received)
        .expect("folder")
        .map(|entry| entry.expect("entry").path())
        .find(|path| path.extension().is_some_and(|kind| kind == "sst"))
        .expect("a table file");
    flip(&table, 10);
    assert_eq!(refusal(install(&folder, &received, STATE)).code(), "storage_corrupt");
    cut(&table, 20);
    assert_eq!(refusal(install(&folder, &received, STATE)).code(), "storage_corrupt");
    fs::remove_file(&table).expect("remove");
    assert_eq!(refusal(install(&folder, &received, STATE)).code(), "storage_corrupt");
    assert_eq!(value(&folder.state()), "old");
    assert_eq!(fs::read_dir(folder.root()).expect("folder").count(), 2, "no leftovers");
}

#[test]
fn leftovers_of_interrupted_steps_are_removed_at_the_next_open() {
    let (folder, received) = with_snapshot();
    // Power lost before the switch: a complete copy that LIVE does not name.
    let copy = folder.root().join("db-0000000000000002");
    fs::create_dir(&copy).expect("create");
    for entry in fs::read_dir(&received).expect("folder") {
        let path = entry.expect("entry").path();
        fs::copy(&path, copy.join(path.file_name().expect("name"))).expect("copy");
    }
    assert_eq!(value(&folder.state()), "old");
    assert!(!copy.exists());

    // Power lost during the very first creation: nothing is live, a half-made database lies around.
    let fresh = Folder::new();
    drop(fresh.state());
    let unnamed = fresh.root().join("LIVE");
    let mut pointer = b"SEAMLIVE\0\0\0\x01\0\0\0\0\0\0\0\0".to_vec();
    pointer.extend_from_slice(&crc32fast::hash(&pointer).to_be_bytes());
    fs::write(&unnamed, pointer).expect("write");
    assert!(content(&fresh.state()).is_empty());
    assert_eq!(fresh.state().folder(), fresh.live());
    assert_eq!(CLUSTER, STATE.cluster);
}
