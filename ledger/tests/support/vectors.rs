//! Golden vectors: `vectors/*.json` pins the bytes and hashes of a format. A run compares; it
//! writes only when `SEAMARK_REGENERATE_VECTORS=1` is set, and the difference is then for review.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;

use borsh::{BorshDeserialize, BorshSerialize};
use serde_json::{Value, json};

/// The vectors of one file while a test goes through them.
pub struct Vectors {
    path: PathBuf,
    regenerate: bool,
    golden: BTreeMap<String, (String, String)>,
    seen: Vec<(String, String, String)>,
}

impl Vectors {
    /// Opens `vectors/<file>` of the crate under test.
    pub fn open(file: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors").join(file);
        let regenerate = std::env::var("SEAMARK_REGENERATE_VECTORS").is_ok_and(|value| value == "1");
        let golden = if regenerate { BTreeMap::new() } else { read(&path) };
        Self { path, regenerate, golden, seen: Vec::new() }
    }

    /// Pins bytes and a hash of them that the format defines (may be empty).
    pub fn pin(&mut self, name: &str, bytes: &[u8], hash: &str) -> Vec<u8> {
        assert!(self.seen.iter().all(|entry| entry.0 != name), "{name} is pinned twice");
        let bytes = hex::encode(bytes);
        if !self.regenerate {
            let golden = self.golden.get(name).unwrap_or_else(|| panic!("{name} has no golden vector"));
            assert_eq!(golden.0, bytes, "the bytes of {name} changed");
            assert_eq!(golden.1, hash, "the hash of {name} changed");
        }
        self.seen.push((name.to_owned(), bytes.clone(), hash.to_owned()));
        hex::decode(bytes).expect("just encoded")
    }

    /// Pins an encoded value: the golden bytes decode to it, and no truncation of them and nothing
    /// longer decodes at all.
    pub fn format<T>(&mut self, name: &str, value: &T, hash: &str)
    where
        T: BorshSerialize + BorshDeserialize + PartialEq + Debug,
    {
        let bytes = borsh::to_vec(value).expect("writing to memory does not fail");
        let golden = self.pin(name, &bytes, hash);
        assert_eq!(&borsh::from_slice::<T>(&golden).expect("golden bytes decode"), value, "{name}");
        refuses_other_lengths(name, &golden, |bytes| borsh::from_slice::<T>(bytes).is_ok());
    }

    /// Checks that no golden vector was left out, or writes the file.
    pub fn finish(self) {
        if !self.regenerate {
            let names: Vec<_> = self.seen.iter().map(|entry| &entry.0).collect();
            for name in self.golden.keys() {
                assert!(names.contains(&name), "{name} is no longer produced");
            }
            return;
        }
        let entries: Vec<Value> =
            self.seen.iter().map(|(name, bytes, hash)| json!({ "name": name, "bytes": bytes, "hash": hash })).collect();
        let text = serde_json::to_string_pretty(&entries).expect("JSON of strings");
        std::fs::write(&self.path, text + "\n").expect("the vectors folder is writable");
    }
}

/// Every prefix and one byte more must be refused.
pub fn refuses_other_lengths(name: &str, bytes: &[u8], decodes: impl Fn(&[u8]) -> bool) {
    for length in 0..bytes.len() {
        assert!(!decodes(&bytes[..length]), "{name} truncated to {length} bytes was accepted");
    }
    for extra in [0, 1, 255] {
        let longer = [bytes, &[extra]].concat();
        assert!(!decodes(&longer), "{name} with a trailing byte was accepted");
    }
}

fn read(path: &PathBuf) -> BTreeMap<String, (String, String)> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let entries: Vec<Value> = serde_json::from_str(&text).expect("a JSON list");
    let field = |entry: &Value, name: &str| entry[name].as_str().expect("a string").to_owned();
    entries.iter().map(|entry| (field(entry, "name"), (field(entry, "bytes"), field(entry, "hash")))).collect()
}
