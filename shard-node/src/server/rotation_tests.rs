//! Which key a node takes up, and when it lets one go.

use ledger::genesis::VerifyMode;

use super::*;
use crate::core::support::{SHARD, node_key};
use crate::server::testing::lone_genesis;

const NODE: NodeId = crate::server::testing::NODE;

fn next_key() -> SecretKey {
    SecretKey::derive(b"the next one", b"node")
}

/// A view in which the registry has one key of the node, and committees another or the same one.
fn view(registered: &SecretKey, seated: &SecretKey) -> ClusterView {
    let mut view = ClusterView::of_genesis(&lone_genesis(VerifyMode::Ingest));
    view.nodes.get_mut(&NODE).expect("it is in the genesis").key = registered.public();
    view.committees.values_mut().for_each(|committee| committee.members[0].key = seated.public());
    view
}

#[test]
fn what_a_view_asks_of_the_keys() {
    let (old, new) = (node_key(NODE.0), next_key());
    let (before, both, after) = ([old.public()], [old.public(), new.public()], [new.public()]);
    for (registered, seated, held, expected) in [
        (&old, &old, &before[..], Stage::Rests),
        (&old, &old, &both[..], Stage::Rests),
        (&new, &old, &before[..], Stage::Lacks(new.public())),
        (&new, &old, &both[..], Stage::Both),
        (&new, &new, &both[..], Stage::Last(new.public())),
        (&new, &new, &after[..], Stage::Rests),
        (&new, &old, &after[..], Stage::Lacks(old.public())),
    ] {
        let found = stage(&view(registered, seated), NODE, held);
        assert_eq!(found, expected, "{registered:?} in the registry, {seated:?} in the shard, {held:?} held");
    }
    let coming = {
        let mut view = view(&old, &old);
        let mut coming = view.committees[&SHARD].clone();
        coming.members[0].key = new.public();
        view.coming.insert(SHARD, coming);
        view
    };
    assert_eq!(stage(&coming, NODE, &both), Stage::Both, "a committee that is prepared counts as well");
    assert_eq!(stage(&coming, NodeId(99), &both), Stage::Rests, "the registry does not name it");
}

/// A key in the clear.
fn write(path: &Path, key: &SecretKey) {
    let digits: String = key.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(path, digits).expect("written");
}

#[test]
fn the_next_key_takes_the_place_of_the_one_before_and_its_name_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = KeyFiles::at(folder.path().join("signing.key"));
    let (old, new) = (node_key(NODE.0), next_key());
    write(&files.signing_key, &old);
    assert_eq!(files.load(&mut Keyring::empty()).expect("readable").public(), [old.public()]);
    write(&next_file(&files.signing_key), &new);
    assert_eq!(files.load(&mut Keyring::empty()).expect("readable").public(), [old.public(), new.public()]);
    assert!(!files.had(&old.public()));

    files.put_in_place(&new.public(), &[old.public()]).expect("done");
    assert_eq!(files.load(&mut Keyring::empty()).expect("readable").public(), [new.public()]);
    assert!(files.had(&old.public()) && !files.had(&new.public()));
    assert!(!next_file(&files.signing_key).exists());
    // One that is damaged is not passed over: it may be the one that counts.
    fs::write(next_file(&files.signing_key), b"no key").expect("written");
    assert!(files.load(&mut Keyring::empty()).is_err());
}

#[test]
fn what_lies_beside_a_key_takes_its_place_only_if_it_is_the_one_that_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = KeyFiles::at(folder.path().join("signing.key"));
    let (old, new, third) = (node_key(NODE.0), next_key(), SecretKey::derive(b"the third one", b"node"));
    let held = || files.load(&mut Keyring::empty()).expect("readable").public();
    write(&files.signing_key, &old);
    assert!(files.put_in_place(&new.public(), &[old.public()]).is_err(), "there is none");
    write(&next_file(&files.signing_key), &third);
    assert!(files.put_in_place(&new.public(), &[old.public()]).is_err(), "it is another one");
    assert_eq!((held(), files.had(&old.public())), (vec![old.public(), third.public()], false));

    write(&next_file(&files.signing_key), &new);
    files.put_in_place(&new.public(), &[old.public()]).expect("done");
    // The disk may have failed behind that, and the next but one been made since.
    write(&next_file(&files.signing_key), &third);
    files.put_in_place(&new.public(), &[old.public()]).expect("done before");
    assert_eq!((held(), files.had(&old.public())), (vec![new.public(), third.public()], true));
}
