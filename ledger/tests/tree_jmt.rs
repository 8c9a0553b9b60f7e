//! The state tree against the `jmt` crate: roots after every batch, and every proof.

use std::collections::BTreeMap;

use borsh::BorshDeserialize;
use jmt::mock::MockTreeStore;
use jmt::proof::SparseMerkleProof;
use jmt::{JellyfishMerkleTree, KeyHash, RootHash};
use ledger::tree::{BitPrefix, NodeHash, PLACEHOLDER, Position, StateTree, internal_hash, leaf_hash, value_hash};
use proptest::prelude::*;
use sha2_010::Sha256;

type Batch = Vec<(Position, Option<Vec<u8>>)>;

/// A `jmt` tree with its store, one version a batch.
struct Reference {
    store: MockTreeStore,
    version: u64,
}

impl Reference {
    fn new() -> Self {
        Self { store: MockTreeStore::default(), version: 0 }
    }

    fn tree(&self) -> JellyfishMerkleTree<'_, MockTreeStore, Sha256> {
        JellyfishMerkleTree::new(&self.store)
    }

    fn apply(&mut self, batch: &BTreeMap<Position, Option<Vec<u8>>>) -> NodeHash {
        let values = batch.iter().map(|(p, v)| (KeyHash(*p), v.clone()));
        let (root, nodes) = self.tree().put_value_set(values, self.version).expect("the mock store does not fail");
        self.store.write_tree_update_batch(nodes).expect("the mock store does not fail");
        self.version += 1;
        root.0
    }

    fn prove(&self, position: &Position) -> (Option<Vec<u8>>, SparseMerkleProof<Sha256>) {
        self.tree().get_with_proof(KeyHash(*position), self.version - 1).expect("the mock store does not fail")
    }
}

/// The fields of a `jmt` proof, which has no accessor for its siblings, from its borsh
/// encoding: the leaf, and the sibling hashes from the root downwards.
fn open(proof: &SparseMerkleProof<Sha256>) -> (Option<(Position, NodeHash)>, Vec<NodeHash>) {
    #[derive(BorshDeserialize)]
    enum Node {
        Null,
        Internal { left: NodeHash, right: NodeHash },
        Leaf { key: NodeHash, value: NodeHash },
    }
    let bytes = borsh::to_vec(proof).expect("writing to memory");
    let (leaf, siblings): (Option<(Position, NodeHash)>, Vec<Node>) =
        borsh::from_slice(&bytes).expect("the layout of the proof of jmt 0.12");
    let hashes = siblings.into_iter().rev().map(|node| match node {
        Node::Null => PLACEHOLDER,
        Node::Internal { left, right } => internal_hash(&left, &right),
        Node::Leaf { key, value } => leaf_hash(&key, &value),
    });
    (leaf, hashes.collect())
}

/// Positions that collide a lot: few first halves, few second halves, dense and sparse
/// bit patterns, so that batches hit one-sided chains of every length.
fn position() -> impl Strategy<Value = Position> {
    let half = || {
        prop_oneof![
            2 => (0u8..4).prop_map(|n| [n; 16]),
            2 => (0u8..4).prop_map(|n| { let mut h = [0xa5; 16]; h[15] = n; h }),
            2 => (0u8..8).prop_map(|n| { let mut h = [0; 16]; h[0] = n << 5; h }),
            1 => any::<[u8; 16]>(),
        ]
    };
    (half(), half()).prop_map(|(account, key)| {
        let mut position = [0; 32];
        position[..16].copy_from_slice(&account);
        position[16..].copy_from_slice(&key);
        position
    })
}

fn batch(max: usize) -> impl Strategy<Value = Batch> {
    let value = prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..4).prop_map(Some),
        2 => Just(None),
    ];
    prop::collection::vec((position(), value), 0..max)
}

fn hashed(batch: &Batch) -> Vec<(Position, Option<NodeHash>)> {
    batch.iter().map(|(p, v)| (*p, v.as_deref().map(value_hash))).collect()
}

/// Compares one proof of ours with the one `jmt` makes, and runs both verifiers.
fn check_proof(tree: &mut StateTree, reference: &Reference, position: &Position) {
    let root = tree.root();
    let ours = tree.prove(position).expect("the tree is the whole space");
    let (value, theirs) = reference.prove(position);
    let (leaf, siblings) = open(&theirs);
    assert_eq!(ours.leaf().map(|l| (l.position, l.value_hash)), leaf);
    assert_eq!(ours.siblings(), siblings);
    theirs.verify(RootHash(root), KeyHash(*position), value.as_ref()).expect("jmt's proof holds under our root");
    match value {
        Some(value) => {
            ours.verify_inclusion(&root, &BitPrefix::ROOT, position, &value_hash(&value)).expect("the leaf is there")
        }
        None => ours.verify_exclusion(&root, &BitPrefix::ROOT, position).expect("no leaf is there"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn roots_and_proofs_equal_those_of_jmt(
        batches in prop::collection::vec(batch(24), 1..6),
        others in prop::collection::vec(position(), 8),
    ) {
        let mut tree = StateTree::new(BitPrefix::ROOT);
        let mut reference = Reference::new();
        let mut model = BTreeMap::new();
        for batch in &batches {
            // Later updates win: jmt is given the last one of each position.
            let last: BTreeMap<_, _> = batch.iter().cloned().collect();
            tree.apply(hashed(batch)).expect("the tree is the whole space");
            for (position, value) in &last {
                match value {
                    Some(value) => model.insert(*position, value_hash(value)),
                    None => model.remove(position),
                };
            }
            let root = tree.root();
            prop_assert_eq!(root, reference.apply(&last));
            prop_assert_eq!(tree.len(), model.len());
            for position in last.keys().chain(&others) {
                prop_assert_eq!(tree.get(position), model.get(position).copied());
                check_proof(&mut tree, &reference, position);
            }
            prop_assert!(tree.leaves().eq(model.iter().map(|(p, v)| (*p, *v))));
        }
    }
}

#[test]
fn a_larger_tree_equals_jmt_through_growth_and_decay() {
    let spread = |n: u32| value_hash(&n.to_be_bytes());
    let mut tree = StateTree::new(BitPrefix::ROOT);
    let mut reference = Reference::new();
    for round in 0..6u32 {
        let mut batch: Batch = Vec::new();
        for n in 0..400 {
            // Every fourth leaf shares its first 128 bits with the one before.
            let mut position = spread(n % 400);
            if n % 4 == 3 {
                position[..16].copy_from_slice(&spread(n - 1)[..16]);
            }
            let gone = (n + round) % 3 == 0 || (round == 5 && n > 1);
            batch.push((position, (!gone).then(|| vec![round as u8, n as u8])));
        }
        tree.apply(hashed(&batch)).expect("whole space");
        let root = reference.apply(&batch.iter().cloned().collect());
        assert_eq!(tree.root(), root);
        for (position, _) in batch.iter().step_by(7) {
            check_proof(&mut tree, &reference, position);
        }
    }
}

/// The same leaves and root as the golden vector of `tree_laws.rs`, by `jmt`.
#[test]
fn jmt_agrees_with_the_golden_root() {
    let mut leaves = BTreeMap::new();
    for account in 0u8..16 {
        let keys = if account % 2 == 0 { 3 } else { 1 };
        for key in 0..keys {
            let mut position = value_hash(&[account]);
            position[16..].copy_from_slice(&value_hash(&[account, key])[..16]);
            leaves.insert(position, Some(vec![key, account]));
        }
    }
    assert_eq!(
        hex::encode(Reference::new().apply(&leaves)),
        "0d8b85423d1627f35c1bd3f2eca85fe2aa5e90e08747f780a7cc3890c14abb98"
    );
}
