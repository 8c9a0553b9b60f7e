//! What each crate may depend on. The machines that decide about money have no IO, no clock and no
//! randomness, which starts with not being able to reach any; and the crates depend on each other
//! only in the direction that the architecture names. And which crates may know one engine from the other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
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

/// Crates that work alike under either engine. `consensus` is the engines, and `cli` and `cluster-sim` choose them.
const UNDER_EITHER_ENGINE: &[&str] =
    &["ledger", "cross-shard", "channel", "beacon", "storage", "proto", "client", "router", "shard-node"];

/// The files of those crates that name an engine, and why each has to. All others ask an engine what they need to know
/// (`ledger::Engine`, `consensus::engine::Group`).
const NAME_AN_ENGINE: &[(&str, &str)] = &[
    ("ledger/src/committee.rs", "what an engine is asked is answered here"),
    ("beacon/src/engine.rs", "says what a switch comes to, in messages and words"),
    ("beacon/src/rate.rs", "has what was measured of each"),
    ("beacon/src/seats.rs", "seats that one engine needs and the other does not are given up"),
    ("beacon/src/genesis.rs", "the first committees of a cluster that states no engine"),
    ("shard-node/src/core/consortium.rs", "for unit tests alone"),
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

/// The Rust files below a folder, and those of the folders in it; but none of tests alone.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && name != "tests" {
            sources(&path, found);
        } else if name.ends_with(".rs") && name != "tests.rs" && !name.ends_with("_tests.rs") {
            found.push(path);
        }
    }
}

/// Lines of code that name an engine, up to the unit tests of the file.
fn names_an_engine(text: &str) -> Vec<&str> {
    let code = text.lines().take_while(|line| !line.starts_with("mod tests {")).map(str::trim);
    let names = ["Engine::Bft", "Engine::Raft", "\"bft\"", "\"raft\""];
    code.filter(|line| !line.starts_with("//") && names.iter().any(|name| line.contains(name))).collect()
}

#[test]
fn nobody_but_those_who_are_named_here_knows_one_engine_from_the_other() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let (mut files, mut faults) = (Vec::new(), Vec::new());
    for member in UNDER_EITHER_ENGINE {
        sources(&root.join(member).join("src"), &mut files);
    }
    let mut open: BTreeMap<&str, &str> = NAME_AN_ENGINE.iter().copied().collect();
    let mut seen = 0;
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        let path = file.strip_prefix(root).unwrap().to_str().unwrap();
        let found = names_an_engine(&text);
        seen += found.len();
        let known = NAME_AN_ENGINE.iter().any(|(known, _)| *known == path);
        match (known, found.first()) {
            (true, Some(_)) => {
                open.remove(path);
            }
            (false, Some(line)) => faults.push(format!(
                "{path} names an engine, '{line}': let it ask the engine instead, or say in NAME_AN_ENGINE and ARCHITECTURE.md why \
                 it cannot"
            )),
            (_, None) => {}
        }
    }
    assert!(files.len() > 100 && seen > 10, "{} files, {seen} lines", files.len());
    faults.extend(open.iter().map(|(path, why)| format!("{path} names no engine any more, and is allowed to: {why}")));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn an_engine_is_found_where_code_names_it_and_not_in_words_or_unit_tests() {
    let found = |text: &'static str| names_an_engine(text).len();
    assert_eq!(found("    if committee.engine == Engine::Bft {\n"), 1);
    assert_eq!(found("match engine {\n    Engine::Raft => 1,\n    ledger::Engine::Bft => 2,\n}\n"), 2);
    assert_eq!(found("if engine.name() == \"bft\" {}"), 1);
    assert_eq!(found("// As Engine::Bft has it.\n/// [`Engine::Raft`]\nif engine.bears_liars() {}\n"), 0);
    assert_eq!(found("#[cfg(test)]\nmod tests {\n    const ONE: Engine = Engine::Bft;\n}\n"), 0);
}
