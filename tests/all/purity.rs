//! What each crate may depend on. The machines that decide about money have no IO, no clock and no
//! randomness, which starts with not being able to reach any; and the crates depend on each other
//! only in the direction that the architecture names.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Crates of which no pure package may have any, by name or by the start of a name.
const IMPURE: &[&str] = &[
    "tokio",
    "tonic",
    "prost",
    "openraft",
    "rocksdb",
    "librocksdb-sys",
    "rand",
    "rand_*",
    "getrandom",
    "hyper",
    "mio",
    "socket2",
    "async-std",
    "smol",
    "chrono",
    "time",
];

/// Pure packages: these alone, without default features. `ledger` also with them, since its default
/// is what everything runs with.
const PURE: &[(&str, bool)] = &[
    ("ledger", true),
    ("ledger", false),
    ("cross-shard", true),
    ("channel", true),
    ("beacon", true),
    ("shard-node", false),
    ("consensus", false),
    ("storage", false),
    ("router", false),
];

/// Who may depend on whom, build and test dependencies aside. `tests` may on everything.
const LAYERS: &[(&str, &[&str])] = &[
    ("ledger", &[]),
    ("cross-shard", &["ledger"]),
    ("channel", &["ledger"]),
    ("beacon", &["channel", "cross-shard", "ledger"]),
    ("storage", &["ledger"]),
    ("consensus", &["ledger", "storage"]),
    ("proto", &["ledger"]),
    ("client", &["beacon", "channel", "ledger", "proto"]),
    ("router", &["beacon", "client", "ledger", "proto"]),
    (
        "shard-node",
        &["beacon", "channel", "client", "consensus", "cross-shard", "ledger", "proto", "router", "storage"],
    ),
    ("cluster-sim", &["beacon", "channel", "consensus", "cross-shard", "ledger", "router", "shard-node", "storage"]),
    (
        "cli",
        &[
            "beacon",
            "channel",
            "client",
            "cluster-sim",
            "cross-shard",
            "ledger",
            "proto",
            "router",
            "shard-node",
            "storage",
        ],
    ),
];

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command
}

/// Every package below `package` alone, as cargo would build it, and one path to each.
fn dependencies(package: &str, default_features: bool) -> BTreeMap<String, String> {
    let mut command = cargo();
    command.args([
        "tree",
        "--offline",
        "--locked",
        "-e",
        "normal,no-proc-macro",
        "--prefix",
        "depth",
        "-f",
        " {p}",
        "--no-dedupe",
        "-p",
        package,
    ]);
    if !default_features {
        command.arg("--no-default-features");
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let (mut above, mut found) = (Vec::<String>::new(), BTreeMap::new());
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (depth, rest) = line.split_once(' ').unwrap();
        let name = rest.split_whitespace().next().unwrap().to_owned();
        above.truncate(depth.parse().unwrap());
        above.push(name.clone());
        found.entry(name).or_insert_with(|| above.join(" → "));
    }
    found
}

fn is_impure(name: &str) -> bool {
    // Traits alone, which k256 names in signatures; where randomness would come from is getrandom.
    if name == "rand_core" {
        return false;
    }
    IMPURE.iter().any(|impure| match impure.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *impure,
    })
}

#[test]
fn pure_packages_reach_no_io_and_no_randomness() {
    let mut faults = Vec::new();
    for (package, default_features) in PURE {
        let found = dependencies(package, *default_features);
        assert!(found.len() > 3, "cargo tree shows nothing of {package}");
        for path in found.iter().filter(|(name, _)| is_impure(name)).map(|(_, path)| path) {
            faults.push(format!("{package} must stay pure, and depends on it by {path}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn workspace() -> Metadata {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let options = ["--offline", "--locked"].map(str::to_owned).to_vec();
    MetadataCommand::new().manifest_path(manifest).other_options(options).no_deps().exec().unwrap()
}

#[test]
fn crates_depend_on_each_other_only_downwards() {
    let metadata = workspace();
    let members: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    let layers: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    let mut faults = Vec::new();
    for package in metadata.packages.iter().filter(|package| package.name.as_str() != "tests") {
        let name = package.name.as_str();
        let Some(allowed) = layers.get(name) else {
            faults.push(format!("{name} is a new crate: an ADR and a line in LAYERS say what it may depend on"));
            continue;
        };
        let normal = package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
        for dependency in normal.map(|dependency| dependency.name.as_str()).filter(|name| members.contains(name)) {
            if !allowed.contains(&dependency) {
                faults.push(format!(
                    "{name} may not depend on {dependency}: the layers of the architecture do not have that edge"
                ));
            }
        }
    }
    for name in layers.keys().filter(|name| !members.contains(**name)) {
        faults.push(format!("{name} is in LAYERS and is no crate of the workspace"));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// No circle: a crate's place is above all that it may depend on.
#[test]
fn the_layers_are_layers() {
    let mut placed = BTreeSet::new();
    for (name, allowed) in LAYERS {
        for below in *allowed {
            assert!(placed.contains(below), "{below} stands above {name} in LAYERS");
        }
        placed.insert(*name);
    }
}
