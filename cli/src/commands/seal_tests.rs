//! A folder whose keys lie in the clear, as builds before sealed keys left them, and what becomes of it.

use std::collections::BTreeMap;

use ledger::NodeId;

use super::*;
use crate::args::Shape;
use crate::cluster::{Prepared, spec};
use crate::setup::{Addresses, ClusterDir};

/// A folder with a cluster of one node whose keys lie in the clear, and what each file holds.
fn in_the_clear() -> (tempfile::TempDir, BTreeMap<PathBuf, String>) {
    let temp = tempfile::tempdir().unwrap();
    let shape = Shape { nodes: Some(1), shards: Some(1), ..Shape::default() };
    Prepared::open(temp.path(), || spec(&shape, Addresses::Free), Output::new(true)).unwrap();
    let mut all = BTreeMap::new();
    for owner in owners(temp.path()).unwrap() {
        for (path, kind) in owner.keys {
            let text = match kind {
                Kind::Authority => {
                    super::super::ca::open(&folder_of(&path), "org-a").unwrap().key_pem().as_str().to_owned()
                }
                Kind::Secret(kind) => {
                    let secret = Keyring::finding(None).open(&path, kind).unwrap();
                    match kind {
                        SecretKind::Tls => String::from_utf8(secret.to_vec()).unwrap(),
                        SecretKind::Signing | SecretKind::Storage => hex::encode(secret.as_slice()),
                    }
                }
            };
            std::fs::write(&path, &text).unwrap();
            all.insert(path, text);
        }
        std::fs::remove_file(owner.folder.join(PASSPHRASE_FILE)).unwrap();
    }
    let config = ClusterDir::at(temp.path()).node_config(NodeId(1));
    let text = std::fs::read_to_string(&config).unwrap();
    let without = text.replace("passphrase_file = \"passphrase\"\n", "");
    assert_ne!(without, text, "node.toml names the file of the passphrase");
    std::fs::write(config, without).unwrap();
    (temp, all)
}

fn sealed(path: &Path, named: Option<&Path>) -> Result<Report, CliError> {
    let mut report = Report::default();
    owners(path)?.iter().try_for_each(|owner| seal(owner, named, &mut report))?;
    Ok(report)
}

fn done(report: &Report) -> Vec<&'static str> {
    report.keys.iter().map(|line| line.done).collect()
}

#[test]
fn everything_is_sealed_once_and_opens_with_what_was_made_beside_it() {
    let (temp, all) = in_the_clear();
    // Of an authority, of an admin two, of a client and of a node two; the storage key is made when the node starts.
    assert_eq!(all.len(), 6, "{:?}", all.keys());
    let first = sealed(temp.path(), None).unwrap();
    assert_eq!(done(&first), ["sealed"; 6]);
    assert_eq!(first.new_passphrases.len(), 4, "one for each folder: {:?}", first.new_passphrases);
    assert!(first.text().contains("move it to where no copy"), "{}", first.text());
    let again = sealed(temp.path(), None).unwrap();
    assert_eq!((done(&again), again.new_passphrases.len()), (vec!["sealed before"; 6], 0));

    for (path, text) in &all {
        let found = std::fs::read(path).unwrap();
        assert!(!found.windows(40).any(|part| text.as_bytes().windows(40).any(|secret| secret == part)), "{path:?}");
    }
    let dir = ClusterDir::at(temp.path());
    let genesis = dir.genesis().unwrap();
    let config = NodeConfig::load(&dir.node_config(NodeId(1))).unwrap();
    let mut keyring = config.keyring();
    assert_eq!(keyring.signing_key(&config.signing_key).unwrap().public(), genesis.nodes[0].key);
    assert_eq!(keyring.pem(&config.key).unwrap().as_str(), all[&config.key]);
    assert_eq!(dir.admin_key("org-a").unwrap().public(), genesis.orgs[0].admin_key);
    assert!(super::super::ca::open(&dir.ca_dir("org-a"), "org-a").is_ok());
}

#[test]
fn keys_move_to_another_passphrase_and_an_interrupted_move_is_finished() {
    let (temp, all) = in_the_clear();
    sealed(temp.path(), None).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("all");
    make_passphrase(&file).unwrap();
    let node = ClusterDir::at(temp.path()).node_dir(NodeId(1));
    // As far as an interruption let it come.
    let one = sealed(&node.join("signing.key"), Some(&file)).unwrap();
    assert_eq!(done(&one), ["sealed anew"]);
    let error = sealed(&node, None).unwrap_err();
    assert_eq!(error.code, "wrong_passphrase", "{error}");
    let rest = sealed(&node, Some(&file)).unwrap();
    assert_eq!(done(&rest), ["sealed anew", "sealed before"], "node.key, signing.key");
    assert!(rest.text().contains("opens nothing any more"), "{}", rest.text());
    sealed(temp.path(), Some(&file)).unwrap();
    assert_eq!(done(&sealed(temp.path(), Some(&file)).unwrap()), ["sealed before"; 6]);

    let mut keyring = Keyring::finding(Some(file.clone()));
    assert_eq!(keyring.pem(&node.join("node.key")).unwrap().as_str(), all[&node.join("node.key")]);
    let ca = ClusterDir::at(temp.path()).ca_dir("org-a");
    let read = |name: &str| std::fs::read_to_string(ca.join(name)).unwrap();
    let passphrase = Passphrase::read(&file).unwrap();
    assert!(Authority::from_sealed_pem(&read(CA_CERT), &read(CA_KEY), passphrase.text()).is_ok());

    // A file that node.toml names and that is not there is not made.
    let owner = owners(&node).unwrap().remove(0);
    let missing = Owner { passphrase_file: Some(elsewhere.path().join("none")), ..owner };
    assert_eq!(found(&missing).unwrap_err().code, "passphrase_file");
}

#[test]
fn what_holds_no_key_is_said() {
    let temp = tempfile::tempdir().unwrap();
    let output = Output::new(true);
    let code = |path: &Path| run(&[path.to_owned()], None, output).unwrap_err().code;
    assert_eq!(code(temp.path()), "key_not_found");
    let other = temp.path().join("other.key");
    std::fs::write(&other, "not a key").unwrap();
    assert_eq!(code(&other), "key_not_found");
    assert_eq!(code(&temp.path().join("none.key")), "key_io");
    assert_eq!(reveal(&other, None, output).unwrap_err().code, "key_form");
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "not a key");
    assert!(!temp.path().join(PASSPHRASE_FILE).exists());
}
