//! A cluster made, written, read back; and what is refused.
#![allow(clippy::unwrap_used)] // a test that meets an error has failed

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use beacon::assign::Constraints;
use beacon::genesis::first_committees;
use client::secrets::{Holds, Keyring, PASSPHRASE_FILE, Passphrase, holds};
use client::{PeerIdentity, Profile, Role, TrustRoots};
use ledger::committee::Engine;
use ledger::genesis::VerifyMode;
use ledger::ids::{GroupId, NodeId, OrgId};
use shard_node::server::config::NodeConfig;

use super::files::read_signing_key;
use super::genesis::KnownAuthority;
use super::genesis::org_name;
use super::*;

fn small() -> ClusterSpec {
    ClusterSpec { nodes: 3, orgs: 3, shards: 2, addresses: Addresses::Free, ..ClusterSpec::default() }
}

fn write_into(root: &Path, made: &MadeCluster) -> Result<ClusterDir, SetupError> {
    let dir = ClusterDir::at(root);
    let lock = ClusterLock::acquire(&dir)?;
    write_cluster(&dir, &lock, made)?;
    Ok(dir)
}

/// The first certificate of a PEM text, in DER.
fn der(pem: &str) -> rustls_pki_types::CertificateDer<'static> {
    use rustls_pki_types::pem::PemObject;
    rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn the_default_cluster() {
    let made = make_cluster(&ClusterSpec::default()).unwrap();
    let genesis = &made.genesis;
    assert_eq!((genesis.nodes.len(), genesis.orgs.len(), genesis.layout.shards.len()), (5, 3, 4));
    assert_eq!(genesis.verify, VerifyMode::Every, "several organisations");
    assert!(made.warnings.is_empty(), "{:?}", made.warnings);
    let orgs: Vec<u16> = genesis.nodes.iter().map(|node| node.org.0).collect();
    assert_eq!(orgs, [1, 2, 3, 1, 2]);
    assert_eq!(genesis.nodes[4].zone, "zone-b");
    assert_eq!(
        (genesis.nodes[0].peer_addr.as_str(), genesis.nodes[4].client_addr.as_str()),
        ("127.0.0.1:7600", "127.0.0.1:7609")
    );
    let again = first_committees(&genesis.seed, &genesis.nodes, 4, 3, 3, &Constraints::default()).unwrap();
    assert_eq!(genesis.committees, again, "anyone can recompute the assignment");
    for (node, info) in made.nodes.iter().zip(&genesis.nodes) {
        assert_eq!((node.signing_key.public(), node.tls.key_hash), (info.key, info.tls_key_hash));
        assert_eq!(node.tls.identity().key_hash().unwrap(), info.tls_key_hash, "as peers compute it");
    }
}

#[test]
fn certificates_say_who_they_are_and_their_issuer_says_whose() {
    let made = make_cluster(&small()).unwrap();
    let orgs = &made.genesis.orgs;
    let node = der(&made.nodes[1].tls.cert_pem);
    let peer = PeerIdentity::from_der(&node).unwrap();
    assert_eq!((peer.common_name.as_str(), peer.org.as_deref(), peer.role), ("node-2", Some("org-b"), Role::Node));
    assert_eq!(peer.node(), Some(NodeId(2)));
    assert_eq!(client::net::issuing_org(&[node], orgs), Some(OrgId(2)));
    let admin = der(&made.orgs[2].admin.cert_pem);
    assert_eq!(PeerIdentity::from_der(&admin).unwrap().role, Role::Admin);
    assert_eq!(client::net::issuing_org(&[admin], orgs), Some(OrgId(3)));
    let router = made.orgs[0].authority.issue(&Subject::router("router-1", "org-a", vec!["r.example".into()])).unwrap();
    assert_eq!(PeerIdentity::from_der(&der(&router.cert_pem)).unwrap().role, Role::Router);
    let roots = TrustRoots::of_orgs(orgs);
    assert!(client::net::server_tls(&made.nodes[0].tls.identity(), &roots).is_ok());
}

#[test]
fn an_authority_survives_its_files() {
    let authority = Authority::make("org-a").unwrap();
    let again = Authority::from_pem(authority.cert_pem(), &authority.key_pem()).unwrap();
    let leaf = again.issue(&Subject::client("bank", "org-a")).unwrap();
    let org = ledger::genesis::OrgInfo {
        id: OrgId(1),
        name: "org-a".into(),
        ca_pem: authority.cert_pem().into(),
        admin_key: ledger::SecretKey::derive(b"admin", b"").public(),
    };
    assert_eq!(client::net::issuing_org(&[der(&leaf.cert_pem)], &[org]), Some(OrgId(1)));
    assert_eq!(Authority::from_pem("no pem", &authority.key_pem()).unwrap_err().code(), "pki_authority");
    let other = Authority::make("org-a").unwrap();
    assert_ne!(authority.cert_pem(), other.cert_pem());
}

#[test]
fn an_organisation_brings_its_own_authority_and_keeps_its_key() {
    let own = Authority::make("Acme Ltd").unwrap();
    let known = KnownAuthority { cert_pem: own.cert_pem().to_owned(), key_pem: own.key_pem() };
    let spec = ClusterSpec { authorities: [("org-b".to_owned(), known)].into(), ..small() };
    let made = make_cluster(&spec).unwrap();
    let orgs = &made.genesis.orgs;
    assert_eq!(orgs[1].ca_pem, own.cert_pem());
    assert_eq!(client::net::issuing_org(&[der(&made.nodes[1].tls.cert_pem)], orgs), Some(OrgId(2)));
    // What it issues later, with its own tools, is a member's.
    let client = own.issue(&Subject::client("till", "Acme Ltd")).unwrap();
    assert_eq!(client::net::issuing_org(&[der(&client.cert_pem)], orgs), Some(OrgId(2)));

    let temp = tempfile::tempdir().unwrap();
    let dir = write_into(&temp.path().join("cluster"), &made).unwrap();
    assert!(dir.ca_dir("org-b").join("ca.pem").exists() && !dir.ca_dir("org-b").join("ca.key").exists());
    assert!(dir.ca_dir("org-a").join("ca.key").exists());
}

#[test]
fn a_folder_reads_back() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("cluster");
    let made = make_cluster(&small()).unwrap();
    let dir = write_into(&root, &made).unwrap();
    assert!(dir.exists());
    let genesis = dir.genesis().unwrap();
    assert_eq!(genesis, made.genesis);
    for (at, (node, path)) in dir.node_configs(&genesis).into_iter().enumerate() {
        let config = NodeConfig::load(&path).unwrap();
        assert_eq!(config.node, node);
        assert_eq!(config.listen_client.to_string(), genesis.nodes[at].client_addr);
        assert_eq!(read_signing_key(&config.signing_key).unwrap().public(), genesis.nodes[at].key);
        assert_eq!(fs::read(&config.genesis).unwrap(), fs::read(dir.genesis_path()).unwrap());
        assert!(config.data_dir.is_dir());
    }
    let profile = Profile::load_dir(&root).unwrap();
    assert_eq!(profile.genesis().unwrap(), genesis);
    assert_eq!(profile.routers.len(), 3);
    assert_eq!(profile.identity().unwrap().cert_pem, made.client.cert_pem);
    assert!(client::net::server_tls(&made.client.identity(), &profile.roots().unwrap()).is_ok());
    assert_eq!(dir.admin_key("org-b").unwrap().public(), genesis.orgs[1].admin_key);
    let keys = private_files(&root);
    // Of each organisation's authority and admin, of three nodes and of a client; and the passphrase of each folder.
    assert_eq!(keys.len(), 3 * (2 + 3) + 3 * 3 + 2, "{keys:?}");
    for path in keys {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
        let sealed = matches!(holds(&path).unwrap(), Holds::Sealed(_)) || path.ends_with("ca.key");
        assert!(sealed || path.ends_with(PASSPHRASE_FILE), "{}", path.display());
    }
    assert!(!root.join("cluster.making").exists());
}

/// Private keys and passphrases below a folder.
fn private_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let below = entries.map(|path| match path.is_dir() {
        true => private_files(&path),
        false if path.extension().is_some_and(|kind| kind == "key") || path.ends_with(PASSPHRASE_FILE) => vec![path],
        false => Vec::new(),
    });
    below.flatten().collect()
}

#[test]
fn keys_lie_under_a_passphrase_that_was_given_and_that_is_written_nowhere() {
    let temp = tempfile::tempdir().unwrap();
    let given = Passphrase::generate().unwrap();
    let made = make_cluster(&ClusterSpec { passphrase: Some(given.clone()), ..small() }).unwrap();
    let dir = write_into(temp.path(), &made).unwrap();
    assert!(private_files(temp.path()).iter().all(|path| !path.ends_with(PASSPHRASE_FILE)));
    let config = NodeConfig::load(&dir.node_config(NodeId(1))).unwrap();
    assert_eq!(config.passphrase_file, None);
    let mut keyring = Keyring::holding(given.clone());
    assert_eq!(keyring.signing_key(&config.signing_key).unwrap().public(), made.genesis.nodes[0].key);
    assert_eq!(keyring.pem(&config.key).unwrap(), made.nodes[0].tls.key_pem);
    let ca = |name: &str| fs::read_to_string(dir.ca_dir("org-a").join(name)).unwrap();
    let key = ca("ca.key");
    assert!(Authority::is_sealed(&key));
    assert!(Authority::from_sealed_pem(&ca("ca.pem"), &key, given.text()).is_ok());
    assert_eq!(Authority::from_sealed_pem(&ca("ca.pem"), &key, "another").unwrap_err().code(), "pki_locked");
}

#[test]
fn a_folder_is_never_overwritten() {
    let temp = tempfile::tempdir().unwrap();
    let made = make_cluster(&small()).unwrap();
    let dir = write_into(temp.path(), &made).unwrap();
    assert_eq!(write_into(temp.path(), &made).unwrap_err().code(), "setup_exists");
    let first = ClusterLock::acquire(&dir).unwrap();
    assert_eq!(ClusterLock::acquire(&dir).unwrap_err().code(), "setup_locked");
    drop(first);
    assert!(ClusterLock::acquire(&dir).is_ok());

    let own_key_first = tempfile::tempdir().unwrap();
    fs::create_dir(own_key_first.path().join(KEYS_DIR)).unwrap();
    fs::write(own_key_first.path().join(KEYS_DIR).join("alice.key"), "hers").unwrap();
    write_into(own_key_first.path(), &made).unwrap();
    assert_eq!(fs::read(own_key_first.path().join(KEYS_DIR).join("alice.key")).unwrap(), b"hers");

    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("thesis.tex"), "years of work").unwrap();
    let error = write_into(other.path(), &made).unwrap_err();
    assert_eq!(error.code(), "setup_not_empty");
    assert!(error.to_string().contains("thesis.tex"), "{error}");
    assert_eq!(ClusterDir::at(other.path()).genesis().unwrap_err().code(), "setup_no_cluster");
}

#[test]
fn a_half_made_folder_is_made_again() {
    let temp = tempfile::tempdir().unwrap();
    let first = make_cluster(&small()).unwrap();
    let dir = write_into(temp.path(), &first).unwrap();
    fs::rename(dir.genesis_path(), temp.path().join("genesis.json.tmp")).unwrap();
    fs::write(temp.path().join("cluster.making"), "").unwrap();
    let second = make_cluster(&small()).unwrap();
    let dir = write_into(temp.path(), &second).unwrap();
    assert_eq!(dir.genesis().unwrap(), second.genesis);
}

#[test]
fn an_altered_genesis_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let dir = write_into(temp.path(), &make_cluster(&small()).unwrap()).unwrap();
    let text = fs::read_to_string(dir.genesis_path()).unwrap();
    fs::write(dir.genesis_path(), text.replace("\"dev\"", "\"eve\"")).unwrap();
    assert_eq!(dir.genesis().unwrap_err().code(), "setup_altered");
    fs::write(dir.genesis_path(), text.replace("zone-a", &"z".repeat(99))).unwrap();
    assert_eq!(dir.genesis().unwrap_err().code(), "genesis_node");
    fs::write(dir.genesis_path(), &text[..text.len() / 2]).unwrap();
    assert_eq!(dir.genesis().unwrap_err().code(), "profile_form");
}

#[test]
fn impossible_clusters_are_refused_by_code() {
    let base = ClusterSpec::default;
    let one = NodeAddrs { peer: "a:1".into(), client: "a:2".into() };
    for (spec, code) in [
        (ClusterSpec { nodes: 0, ..base() }, "spec_range"),
        (ClusterSpec { nodes: 2000, ..base() }, "spec_range"),
        (ClusterSpec { orgs: 0, ..base() }, "spec_range"),
        (ClusterSpec { shards: 0, ..base() }, "spec_range"),
        (ClusterSpec { shards: 5000, ..base() }, "spec_range"),
        (ClusterSpec { replicas: 0, ..base() }, "spec_range"),
        (ClusterSpec { beacon_replicas: Some(0), ..base() }, "spec_range"),
        (ClusterSpec { replicas: 7, ..base() }, "spec_too_many_replicas"),
        (ClusterSpec { beacon_replicas: Some(7), ..base() }, "spec_too_many_replicas"),
        (ClusterSpec { engine: Engine::Bft, ..base() }, "spec_engine"),
        (ClusterSpec { beacon_engine: Some(Engine::Bft), beacon_replicas: Some(3), ..base() }, "spec_engine"),
        (ClusterSpec { orgs: 6, ..base() }, "spec_orgs_without_nodes"),
        (ClusterSpec { name: String::new(), ..base() }, "spec_name"),
        (ClusterSpec { policies: vec!["orgs".to_owned()], ..base() }, "spec_policy"),
        (ClusterSpec { policies: ["orgs=all", "orgs=any"].map(str::to_owned).to_vec(), ..base() }, "spec_policy"),
        (ClusterSpec { policies: vec!["weather=all".to_owned()], ..base() }, "genesis_policy"),
        (ClusterSpec { policies: vec!["orgs=k-of(2".to_owned()], ..base() }, "genesis_policy"),
        (ClusterSpec { policies: vec!["orgs=any(org-x.admin)".to_owned()], ..base() }, "genesis_policy"),
        (ClusterSpec { policies: vec!["orgs=k-of(4, members.admin)".to_owned()], ..base() }, "genesis_policy"),
        (ClusterSpec { policies: vec!["orgs=all(members.member)".to_owned()], ..base() }, "genesis_policy"),
        (ClusterSpec { addresses: Addresses::Loopback { base_port: 65_530 }, ..base() }, "spec_ports"),
        (ClusterSpec { addresses: Addresses::Loopback { base_port: 0 }, ..base() }, "spec_ports"),
        (ClusterSpec { addresses: Addresses::Hosts(vec![one.clone()]), ..base() }, "spec_addresses"),
        (ClusterSpec { addresses: Addresses::Hosts(vec![one; 5]), ..base() }, "spec_addresses"),
    ] {
        assert_eq!(make_cluster(&spec).unwrap_err().code(), code, "{spec:?}");
    }
}

#[test]
fn policies_that_are_stated_stand_in_the_genesis_and_nothing_where_none_is() {
    let text = |dir: &ClusterDir| fs::read_to_string(dir.genesis_path()).unwrap();
    let temp = tempfile::tempdir().unwrap();
    let plain = write_into(&temp.path().join("plain"), &make_cluster(&small()).unwrap()).unwrap();
    assert_eq!((plain.genesis().unwrap().version, text(&plain).contains("policies")), (1, false));
    let policies = ["orgs=all", "policy=k-of(2, org-a.admin, org-b.admin, org-c.admin)"].map(str::to_owned).to_vec();
    let made = make_cluster(&ClusterSpec { policies, ..small() }).unwrap();
    let stating = write_into(&temp.path().join("stating"), &made).unwrap();
    let genesis = stating.genesis().unwrap();
    assert_eq!(genesis, made.genesis);
    assert_eq!((genesis.version, genesis.policies["orgs"].as_str()), (2, "all(members.admin)"));
    // Without its policies it would be another cluster, and with the version of one without it is none.
    fs::write(stating.genesis_path(), text(&stating).replace("\"version\": 2", "\"version\": 1")).unwrap();
    assert_eq!(stating.genesis().unwrap_err().code(), "profile_form");
}

#[test]
fn operators_are_warned() {
    let warned = |spec: ClusterSpec, word: &str| {
        let made = make_cluster(&ClusterSpec { addresses: Addresses::Free, ..spec }).unwrap();
        assert!(made.warnings.iter().any(|text| text.contains(word)), "{word}: {:?}", made.warnings);
    };
    let base = ClusterSpec::default;
    warned(ClusterSpec { replicas: 4, ..base() }, "odd number");
    warned(ClusterSpec { engine: Engine::Bft, replicas: 5, ..base() }, "5 replicas tolerate 1 that lie");
    warned(ClusterSpec { nodes: 1, orgs: 1, replicas: 1, ..base() }, "one node");
    warned(ClusterSpec { orgs: 2, ..base() }, "stops without it");
    warned(ClusterSpec { verify: Some(VerifyMode::Ingest), ..base() }, "trusts");
    let single = make_cluster(&ClusterSpec { nodes: 1, orgs: 1, replicas: 1, ..base() }).unwrap();
    assert_eq!(single.genesis.verify, VerifyMode::Ingest);
    assert_eq!(single.genesis.committee(GroupId::BEACON).unwrap().members.len(), 1);
}

#[test]
fn shards_and_beacon_may_be_ordered_by_different_engines() {
    let engines = |spec: ClusterSpec| {
        let made = make_cluster(&ClusterSpec { addresses: Addresses::Free, ..spec }).unwrap();
        let of = |group: GroupId| {
            let committee = made.genesis.committee(group).unwrap();
            (committee.engine, committee.members.len(), committee.threshold)
        };
        (of(GroupId::shard(0)), of(GroupId::BEACON))
    };
    let four = || ClusterSpec { nodes: 4, orgs: 4, replicas: 4, engine: Engine::Bft, ..ClusterSpec::default() };
    assert_eq!(engines(four()), ((Engine::Bft, 4, 3), (Engine::Bft, 4, 3)));
    let beacon_engine = Some(Engine::Raft);
    assert_eq!(engines(ClusterSpec { beacon_engine, ..four() }), ((Engine::Bft, 4, 3), (Engine::Raft, 3, 2)));
    let beacon_engine = Some(Engine::Bft);
    assert_eq!(
        engines(ClusterSpec { beacon_engine, ..ClusterSpec::default() }),
        ((Engine::Raft, 3, 2), (Engine::Bft, 4, 3))
    );
}

#[test]
fn several_machines() {
    let hosts = (1..=3).map(|n| NodeAddrs { peer: format!("n{n}.example:7600"), client: format!("10.0.0.{n}:7601") });
    let made = make_cluster(&ClusterSpec { addresses: Addresses::Hosts(hosts.collect()), ..small() }).unwrap();
    let temp = tempfile::tempdir().unwrap();
    let dir = write_into(temp.path(), &made).unwrap();
    let config = NodeConfig::load(&dir.node_config(NodeId(2))).unwrap();
    assert_eq!(config.listen_peer.to_string(), "0.0.0.0:7600");
    assert_eq!(config.listen_client.to_string(), "10.0.0.2:7601");
}

#[test]
fn organisations_are_named_like_columns() {
    let names: Vec<String> = [0, 25, 26, 27, 63].map(org_name).to_vec();
    assert_eq!(names, ["org-a", "org-z", "org-aa", "org-ab", "org-bl"]);
}

#[test]
fn an_authority_under_a_passphrase() {
    let made = Authority::make("acme").unwrap();
    let sealed = made.sealed_key_pem("correct").unwrap();
    assert!(Authority::is_sealed(&sealed) && !Authority::is_sealed(&made.key_pem()));
    let opened = Authority::from_sealed_pem(made.cert_pem(), &sealed, "correct").unwrap();
    assert_eq!(opened.key_pem(), made.key_pem());
    let wrong = |pem: &str, passphrase: &str| Authority::from_sealed_pem(made.cert_pem(), pem, passphrase).unwrap_err();
    assert_eq!(wrong(&sealed, "wrong").code(), "pki_locked");
    let bytes = sealed.as_bytes();
    for at in [30, 60, 120, bytes.len() - 40] {
        let mut damaged = bytes.to_vec();
        damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
        let damaged = String::from_utf8(damaged).unwrap();
        assert!(matches!(wrong(&damaged, "correct").code(), "pki_locked" | "pki_authority"), "byte {at}");
    }
    assert_eq!(wrong(made.cert_pem(), "correct").code(), "pki_locked", "that is no key");
    let other = Authority::make("acme").unwrap();
    assert_eq!(Authority::from_pem(other.cert_pem(), &made.key_pem()).unwrap_err().code(), "pki_mismatch");
    let leaf = opened.issue_for(&Subject::auditor("eve", "acme"), 1).unwrap();
    let peer = PeerIdentity::from_der(&der(&leaf.cert_pem)).unwrap();
    assert_eq!((peer.role, peer.org.as_deref()), (Role::Auditor, Some("acme")));
}
