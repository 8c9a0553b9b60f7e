//! Which key a node takes up, and when it lets one go.

use ledger::genesis::VerifyMode;

use super::*;
use crate::core::support::{SHARD, node_key};
use crate::server::testing::{LoneNode, lone_genesis};

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
    let none = BTreeSet::new();
    for (registered, seated, held, expected) in [
        (&old, &old, &before[..], Stage::Rests),
        (&old, &old, &both[..], Stage::Rests),
        (&new, &old, &before[..], Stage::Lacks(new.public())),
        (&new, &old, &both[..], Stage::Both),
        (&new, &new, &both[..], Stage::Idle(vec![old.public()])),
        (&new, &new, &after[..], Stage::Rests),
        (&new, &old, &after[..], Stage::Lacks(old.public())),
    ] {
        let found = stage(&view(registered, seated), NODE, held, |_| false, &none);
        assert_eq!(found, expected, "{registered:?} in the registry, {seated:?} in the shard, {held:?} held");
    }
    let coming = {
        let mut view = view(&old, &old);
        let mut coming = view.committees[&SHARD].clone();
        coming.members[0].key = new.public();
        view.coming.insert(SHARD, coming);
        view
    };
    assert_eq!(
        stage(&coming, NODE, &both, |_| false, &none),
        Stage::Both,
        "a committee that is prepared counts as well"
    );
    assert_eq!(stage(&coming, NodeId(99), &both, |_| false, &none), Stage::Rests, "the registry does not name it");
}

/// One group names the node by the first key, as it cannot take another one; the registry has the third.
#[test]
fn where_a_group_cannot_take_a_key_the_one_in_between_goes_and_the_one_that_it_knows_stays() {
    let (old, new, third) = (node_key(NODE.0), next_key(), SecretKey::derive(b"the third one", b"node"));
    let [first, second, last] = [&old, &new, &third].map(SecretKey::public);
    let (all, none) = ([first, second, last], BTreeSet::new());
    let mut view = view(&third, &third);
    let mut stuck = view.committees[&SHARD].clone();
    stuck.group = GroupId::channel(7);
    stuck.members[0].key = first;
    view.committees.insert(stuck.group, stuck.clone());
    let asked = |held: &[PublicKey], had: &[PublicKey], left: &BTreeSet<GroupId>| {
        stage(&view, NODE, held, |key| had.contains(key), left)
    };
    assert_eq!(asked(&all, &[], &none), Stage::Idle(vec![second]));
    assert_eq!(asked(&[first, last], &[second], &none), Stage::Both);
    assert_eq!(asked(&[first, second], &[], &none), Stage::Lacks(last), "that of the registry comes first");
    assert_eq!(asked(&[second, last], &[], &none), Stage::Lacks(first));
    // It is closed, and has been waited for.
    let left = BTreeSet::from([stuck.group]);
    assert_eq!(asked(&all, &[], &left), Stage::Idle(vec![first, second]));
    assert_eq!(asked(&[last], &[first, second], &none), Stage::Rests, "a key that is gone is not looked for");
}

#[test]
fn closed_channels_are_waited_for_as_long_as_nothing_else_is() {
    let begin = Instant::now();
    let mut since = None;
    let (soon, late) = (begin + CLOSED_WAIT / 2, begin + CLOSED_WAIT);
    assert!(!waited(&mut since, true, begin) && !waited(&mut since, true, soon));
    assert!(waited(&mut since, true, late));
    assert!(!waited(&mut since, false, late), "another group needs a key");
    assert!(!waited(&mut since, true, late + CLOSED_WAIT / 2) && waited(&mut since, true, late + 2 * CLOSED_WAIT));
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

    files.let_go(&new.public(), &[old.public()]).expect("done");
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
    assert!(files.let_go(&new.public(), &[old.public()]).is_err(), "there is none");
    write(&next_file(&files.signing_key), &third);
    assert!(files.let_go(&new.public(), &[old.public()]).is_err(), "it is another one");
    assert_eq!((held(), files.had(&old.public())), (vec![old.public(), third.public()], false));

    write(&next_file(&files.signing_key), &new);
    files.let_go(&new.public(), &[old.public()]).expect("done");
    // The disk may have failed behind that, and the next but one been made since.
    write(&next_file(&files.signing_key), &third);
    files.let_go(&new.public(), &[old.public()]).expect("done before");
    assert_eq!((held(), files.had(&old.public())), (vec![new.public(), third.public()], true));
}

#[test]
fn keys_that_follow_one_another_are_found_in_their_order_and_go_one_by_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = KeyFiles::at(folder.path().join("signing.key"));
    let keys: Vec<SecretKey> = (0..12u8).map(|number| SecretKey::derive(b"a later one", &[number])).collect();
    let public: Vec<PublicKey> = keys.iter().map(SecretKey::public).collect();
    let held = || files.load(&mut Keyring::empty()).expect("readable").public();
    write(&files.signing_key, &keys[0]);
    for key in &keys[1..] {
        write(&free_file(&files.signing_key).expect("there is room"), key);
    }
    // What is beside them is none of them.
    for other in ["signing.key.next.02", "signing.key.next.1", "signing.key.next.new", "signing.key.nextto"] {
        write(&folder.path().join(other), &keys[0]);
    }
    assert_eq!(held(), public, "by number, not by name");

    files.let_go(&public[11], &public[1..4]).expect("done");
    assert_eq!(held(), [&public[..1], &public[4..]].concat());
    assert!(files.let_go(&public[11], &public[11..]).is_err(), "the one that counts stays");
    files.let_go(&public[5], &public[..5]).expect("done");
    assert_eq!(held(), public[5..], "the oldest that is left is the first, and those behind it stay");
    assert!(public[..5].iter().all(|key| files.had(key)) && !files.had(&public[5]));
    files.let_go(&public[11], &public[5..11]).expect("done");
    assert_eq!((held(), next_files(&files.signing_key)), (vec![public[11]], Vec::new()));
    for _ in 0..NEXT_KEYS_MAX {
        write(&free_file(&files.signing_key).expect("there is room"), &keys[0]);
    }
    assert_eq!(free_file(&files.signing_key), None);
}

/// The registry has the third key before a group names the node by the second one, which that group can take after all.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_taken_up_behind_a_later_one_goes_like_any_other_when_no_group_needs_it() {
    let node = LoneNode::new(Arc::new(lone_genesis(VerifyMode::Ingest)));
    let files = KeyFiles::at(node.folder.path().join("signing.key"));
    let (old, new, third) = (node_key(NODE.0), next_key(), SecretKey::derive(b"the third one", b"node"));
    let [first, second, last] = [&old, &new, &third].map(SecretKey::public);
    write(&files.signing_key, &old);
    for key in [&new, &third] {
        write(&free_file(&files.signing_key).expect("there is room"), key);
    }
    let rotation = Rotation::new(Arc::clone(&node.hosted), files);
    let held = || node.hosted.context.key.public();

    let newest = view(&third, &third);
    let mut late = newest.clone();
    let mut slow = late.committees[&SHARD].clone();
    slow.group = GroupId::channel(7);
    slow.members[0].key = second;
    late.committees.insert(slow.group, slow);
    rotation.adapt(&newest).await;
    assert_eq!(held(), [first, last]);
    rotation.adapt(&late).await;
    assert_eq!(held(), [first, second, last]);
    assert_eq!(rotation.stage(&late, &BTreeSet::new()), Stage::Idle(vec![first]));
    assert_eq!(rotation.stage(&newest, &BTreeSet::new()), Stage::Idle(vec![first, second]));
    node.end().await;
}
