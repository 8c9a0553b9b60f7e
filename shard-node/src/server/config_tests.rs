//! The form of `node.toml`, and what is refused.
#![allow(clippy::unwrap_used)] // a test that meets an error has failed

use super::*;

const MINIMAL: &str = r#"
    node = 3
    data_dir = "data"
    genesis = "genesis.json"
    listen_peer = "127.0.0.1:7604"
    listen_client = "127.0.0.1:7605"
    cert = "node.pem"
    key = "node.key"
    ca = "roots.pem"
    signing_key = "/secure/signing.key"
"#;

fn parsed(text: &str) -> Result<NodeConfig, ConfigError> {
    NodeConfig::parse(text, Path::new("/etc/seamark/node.toml"))
}

#[test]
fn defaults_and_paths() {
    let config = parsed(MINIMAL).unwrap();
    assert_eq!(config.data_dir, Path::new("/etc/seamark/data"));
    assert_eq!(config.signing_key, Path::new("/secure/signing.key"), "an absolute path stays");
    assert_eq!(config.storage_key, Path::new("/etc/seamark/storage.key"));
    assert_eq!(
        (config.raft, config.snapshot_every, config.log.as_str()),
        (RaftTiming::default(), 20_000, "info,openraft=error,arc_malachitebft=warn")
    );
    assert_eq!((config.verify, config.passphrase_file), (None, None));
    let named = |value: &str| parsed(&format!("passphrase_file = \"{value}\"\n{MINIMAL}")).unwrap().passphrase_file;
    assert_eq!(named("passphrase").as_deref(), Some(Path::new("/etc/seamark/passphrase")));
    assert_eq!(named("/run/secrets/node-3").as_deref(), Some(Path::new("/run/secrets/node-3")));
    let fast = parsed(&format!("verify = \"every\"\n{MINIMAL}\n[raft]\nheartbeat_ms = 50")).unwrap();
    assert_eq!((fast.verify, fast.raft.heartbeat_ms, fast.raft.election_min_ms), (Some(VerifyMode::Every), 50, 400));
}

#[test]
fn what_is_written_reads_back() {
    let peer = "10.0.0.1:7600".parse().unwrap();
    let client = "10.0.0.1:7601".parse().unwrap();
    let named = NodeConfig { passphrase_file: Some("p".into()), ..NodeConfig::in_folder(NodeId(7), peer, client) };
    let config = NodeConfig { verify: Some(VerifyMode::Ingest), ..named };
    let text = config.to_toml().unwrap();
    assert_eq!(NodeConfig::parse(&text, Path::new("node.toml")).unwrap(), config);
}

#[test]
fn unknown_missing_and_mistyped_keys_are_named() {
    for (text, named) in [
        (format!("colour = 1\n{MINIMAL}"), "colour"),
        (format!("{MINIMAL}\n[raft]\nheartbeat = 5"), "heartbeat"),
        (MINIMAL.replace("cert = ", "#"), "cert"),
        (MINIMAL.replace("node = 3", "node = \"three\""), "node"),
        (MINIMAL.replace("127.0.0.1:7604", "here"), "listen_peer"),
        (format!("verify = \"never\"\n{MINIMAL}"), "never"),
    ] {
        let error = parsed(&text).unwrap_err();
        assert_eq!(error.code(), "config_form");
        assert!(error.to_string().contains(named), "{error}");
        assert!(error.to_string().contains("/etc/seamark/node.toml"), "{error}");
    }
}

#[test]
fn values_are_checked_against_each_other() {
    for (text, key) in [
        (MINIMAL.replace("node = 3", "node = 0"), "node"),
        (MINIMAL.replace("7604", "0"), "listen_peer"),
        (MINIMAL.replace("7605", "7604"), "listen_client"),
        (format!("snapshot_every = 1\n{MINIMAL}"), "snapshot_every"),
        (format!("trim_bytes_per_s = 0\n{MINIMAL}"), "trim_bytes_per_s"),
        (format!("log = \"\"\n{MINIMAL}"), "log"),
        (format!("{MINIMAL}\n[raft]\nheartbeat_ms = 1"), "raft.heartbeat_ms"),
        (format!("{MINIMAL}\n[raft]\nelection_min_ms = 200"), "raft.election_min_ms"),
        (format!("{MINIMAL}\n[raft]\nelection_max_ms = 400"), "raft.election_max_ms"),
    ] {
        match parsed(&text).unwrap().check_values(Path::new("node.toml")) {
            Err(ConfigError::Value { key: found, .. }) => assert_eq!(found, key),
            other => panic!("{key}: {other:?}"),
        }
    }
}

#[test]
fn files_that_are_not_there_or_open_to_others_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    assert_eq!(NodeConfig::load(&file).unwrap_err().code(), "config_missing");
    std::fs::write(&file, MINIMAL.replace("/secure/", "")).unwrap();
    let named = |expected: &str| match NodeConfig::load(&file) {
        Err(ConfigError::Path { key, .. }) => assert_eq!(key, expected),
        other => panic!("{expected}: {other:?}"),
    };
    named("genesis");
    for name in ["genesis.json", "node.pem", "node.key", "roots.pem", "signing.key"] {
        std::fs::write(dir.path().join(name), "x").unwrap();
    }
    let private = |name: &str| {
        std::fs::set_permissions(dir.path().join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    named("key");
    private("node.key");
    named("signing_key");
    private("signing.key");
    assert!(NodeConfig::load(&file).is_ok());
    std::fs::write(dir.path().join("data"), "x").unwrap();
    named("data_dir");
    std::fs::write(&file, "#".repeat(70_000)).unwrap();
    assert_eq!(NodeConfig::load(&file).unwrap_err().code(), "config_io");
}
