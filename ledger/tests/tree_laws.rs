//! Laws of the state tree that need no reference: order, bulk build, split and merge,
//! tampered proofs, and the golden vector.

use std::collections::BTreeMap;

use ledger::tree::{
    BitPrefix, NodeHash, PLACEHOLDER, PROOF_VERSION, Position, ProofError, StateTree, SubtreeProof, TreeError,
    TreeProof, combine, leaf_hash, value_hash,
};
use proptest::prelude::*;

type Leaves = BTreeMap<Position, NodeHash>;

fn position() -> impl Strategy<Value = Position> {
    (0u8..10, 0u8..3, any::<bool>()).prop_map(|(account, key, near)| {
        let mut position = value_hash(&[account]);
        if near {
            position[16..].fill(0);
            position[31] = key;
        } else {
            position[16..].copy_from_slice(&value_hash(&[account, key])[..16]);
        }
        position
    })
}

fn leaves(max: usize) -> impl Strategy<Value = Leaves> {
    prop::collection::btree_map(position(), any::<[u8; 32]>(), 0..max)
}

fn pairs(leaves: &Leaves) -> impl Iterator<Item = (Position, NodeHash)> {
    leaves.iter().map(|(p, v)| (*p, *v))
}

fn bulk(leaves: &Leaves) -> StateTree {
    StateTree::from_sorted(BitPrefix::ROOT, pairs(leaves)).expect("a map is sorted")
}

/// The leaves under a prefix, as a tree of their own.
fn shard(leaves: &Leaves, prefix: BitPrefix) -> StateTree {
    let owned = pairs(leaves).filter(|(p, _)| prefix.contains(p));
    StateTree::from_sorted(prefix, owned).expect("a map is sorted")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_root_depends_on_the_leaves_only(
        (wanted, order) in leaves(40).prop_flat_map(|wanted| {
            let list: Vec<_> = pairs(&wanted).collect();
            (Just(wanted), Just(list).prop_shuffle())
        }),
        passing in leaves(40),
        chunk in 1usize..9,
    ) {
        let mut built = bulk(&wanted);
        let mut grown = StateTree::new(BitPrefix::ROOT);
        grown.apply(pairs(&passing).map(|(p, v)| (p, Some(v)))).expect("whole space");
        for part in order.chunks(chunk) {
            grown.apply(part.iter().map(|(p, v)| (*p, Some(*v)))).expect("whole space");
            grown.root();
        }
        let gone = passing.keys().filter(|p| !wanted.contains_key(*p));
        grown.apply(gone.map(|p| (*p, None))).expect("whole space");
        prop_assert_eq!(grown.root(), built.root());
        prop_assert_eq!(grown.len(), wanted.len());
        prop_assert!(grown.leaves().eq(pairs(&wanted)));

        grown.apply(wanted.keys().map(|p| (*p, None))).expect("whole space");
        prop_assert_eq!(grown.root(), PLACEHOLDER);
        prop_assert!(grown.is_empty());
    }

    #[test]
    fn the_last_update_of_a_batch_wins(
        first in leaves(20), second in leaves(20), drop in any::<bool>(),
    ) {
        let later = |v: &NodeHash| (!drop).then_some(*v);
        let mut one = StateTree::new(BitPrefix::ROOT);
        one.apply(
            pairs(&first).map(|(p, v)| (p, Some(v)))
                .chain(second.iter().map(|(p, v)| (*p, later(v)))),
        ).expect("whole space");
        let mut two = bulk(&first);
        two.apply(second.iter().map(|(p, v)| (*p, later(v)))).expect("whole space");
        prop_assert_eq!(one.root(), two.root());
    }

    #[test]
    fn shard_roots_are_inner_nodes_of_the_whole_tree(
        leaves in leaves(40), at in position(), len in 0u16..=140,
    ) {
        let mut whole = bulk(&leaves);
        let prefix = BitPrefix::of(&at, len).expect("at most 256 bits");
        let mut own = shard(&leaves, prefix);
        let root = own.subtree_root();
        prop_assert_eq!(whole.subtree_root_at(&prefix).expect("under the root"), root);

        let halves = [false, true].map(|right| {
            shard(&leaves, prefix.child(right).expect("shorter than 256 bits")).subtree_root()
        });
        prop_assert_eq!(combine(halves[0], halves[1]), root);
    }

    #[test]
    fn split_and_merge_are_inverse(
        leaves in leaves(40), changes in leaves(20), at in position(), len in 0u16..=140,
    ) {
        let prefix = BitPrefix::of(&at, len).expect("at most 256 bits");
        let mut tree = shard(&leaves, prefix);
        let root = tree.root();
        let (mut left, mut right) = tree.split().expect("shorter than 256 bits");
        prop_assert_eq!(combine(left.subtree_root(), right.subtree_root()).hash, root);
        prop_assert!(left.leaves().all(|(p, _)| left.prefix().contains(&p)));
        prop_assert!(right.leaves().all(|(p, _)| right.prefix().contains(&p)));

        // The halves go on as trees of their own, and come together again.
        let mut expected = leaves.clone();
        expected.extend(changes.iter().filter(|(p, _)| prefix.contains(p)));
        for half in [&mut left, &mut right] {
            let own = *half.prefix();
            half.apply(pairs(&changes).filter(|(p, _)| own.contains(p)).map(|(p, v)| (p, Some(v))))
                .expect("filtered");
        }
        let refused = StateTree::merge(right.clone(), left.clone());
        prop_assert!(matches!(refused, Err(TreeError::NotSiblings)));
        let mut merged = StateTree::merge(left, right).expect("two halves");
        prop_assert_eq!(merged.prefix(), &prefix);
        prop_assert_eq!(merged.root(), shard(&expected, prefix).root());
        let gone: Vec<_> = merged.leaves().map(|(p, _)| (p, None)).collect();
        merged.apply(gone).expect("its own leaves");
        prop_assert_eq!(merged.root(), PLACEHOLDER);
    }

    #[test]
    fn proofs_of_a_shard_hold_and_altered_ones_do_not(
        leaves in leaves(40), at in position(), len in 0u16..=130,
        byte in any::<prop::sample::Index>(), mask in 1u8..,
    ) {
        let prefix = BitPrefix::of(&at, len).expect("at most 256 bits");
        let mut tree = shard(&leaves, prefix);
        let root = tree.root();
        let proof = tree.prove(&at).expect("under the prefix");
        let found = tree.get(&at);
        let holds = |proof: &TreeProof, root: &NodeHash| match found {
            Some(value) => proof.verify_inclusion(root, &prefix, &at, &value),
            None => proof.verify_exclusion(root, &prefix, &at),
        };
        prop_assert_eq!(holds(&proof, &root), Ok(()));

        let bytes = borsh::to_vec(&proof).expect("writing to memory");
        let decoded: TreeProof = borsh::from_slice(&bytes).expect("just written");
        prop_assert_eq!(&decoded, &proof);

        // Any altered byte: refused, be it by the decoder or by the verifier.
        let mut altered = bytes.clone();
        altered[byte.index(bytes.len())] ^= mask;
        if let Ok(altered) = borsh::from_slice::<TreeProof>(&altered) {
            prop_assert!(holds(&altered, &root).is_err());
        }
        let mut other_root = root;
        other_root[byte.index(32)] ^= mask;
        prop_assert!(holds(&proof, &other_root).is_err());

        // The opposite statement is never proved.
        let opposite = match found {
            Some(_) => proof.verify_exclusion(&root, &prefix, &at),
            None => proof.verify_inclusion(&root, &prefix, &at, &[9; 32]),
        };
        prop_assert!(opposite.is_err());
        if let Some(mut value) = found {
            value[byte.index(32)] ^= mask;
            prop_assert!(proof.verify_inclusion(&root, &prefix, &at, &value).is_err());
        }

        // Truncated and extended encodings are refused.
        prop_assert!(borsh::from_slice::<TreeProof>(&bytes[..byte.index(bytes.len())]).is_err());
        altered = bytes;
        altered.push(mask);
        prop_assert!(borsh::from_slice::<TreeProof>(&altered).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// All leaves of an account are proved to be all; fewer, more or altered ones are not.
    #[test]
    fn a_subtree_proof_holds_for_exactly_its_leaves(
        wanted in leaves(40),
        at in any::<prop::sample::Index>(),
        pick in any::<prop::sample::Index>(),
        shard_bits in 0u16..3,
        mask in 1u8..,
    ) {
        prop_assume!(!wanted.is_empty());
        let (position, _) = pairs(&wanted).nth(at.index(wanted.len())).expect("an index of it");
        let prefix = BitPrefix::of(&position, shard_bits).expect("a few bits");
        let under = BitPrefix::of(&position, 128).expect("half of them");
        let inside: Vec<_> = pairs(&wanted).filter(|(p, _)| under.contains(p)).collect();
        let mut tree = shard(&wanted, prefix);
        let root = tree.root();
        let path = tree.prove(&position).expect("under the prefix");
        prop_assert_eq!(path.alone_under(&prefix, &under), inside.len() == 1);
        let Some(proof) = path.down_to(&prefix, &under) else {
            prop_assert_eq!(inside.len(), 1, "a lone leaf is proved by its own path");
            return Ok(());
        };
        let holds = |leaves: &[(Position, NodeHash)]| proof.verify(&root, &prefix, &under, leaves.to_vec());
        prop_assert_eq!(holds(&inside), Ok(()));
        let bytes = borsh::to_vec(&proof).expect("writing to memory");
        prop_assert_eq!(&borsh::from_slice::<SubtreeProof>(&bytes).expect("just written"), &proof);

        let chosen = pick.index(inside.len());
        let mut fewer = inside.clone();
        fewer.remove(chosen);
        prop_assert!(holds(&fewer).is_err(), "one is left out");
        let mut altered = inside.clone();
        altered[chosen].1[7] ^= mask;
        prop_assert_eq!(holds(&altered), Err(ProofError::RootMismatch));
        let mut more = inside.clone();
        let mut further = inside[chosen];
        further.0[30] ^= mask;
        more.push(further);
        more.sort_unstable();
        prop_assert!(holds(&more).is_err(), "one is made up");
        let mut disordered = inside.clone();
        disordered.swap(0, 1);
        prop_assert_eq!(holds(&disordered), Err(ProofError::Leaves));
        let shorter = BitPrefix::of(&position, 127).expect("fewer bits");
        prop_assert_eq!(proof.verify(&root, &prefix, &shorter, inside.clone()), Err(ProofError::TooLong));
        let mut other_root = root;
        other_root[3] ^= mask;
        prop_assert!(proof.verify(&other_root, &prefix, &under, inside).is_err());
    }
}

#[test]
fn a_proof_for_a_wrong_prefix_excludes_nothing() {
    let present = [0u8; 32];
    let mut other = [0u8; 32];
    other[0] = 0x40;
    let leaves: Leaves = [(present, [1; 32]), (other, [2; 32])].into();
    let prefix = BitPrefix::of(&present, 1).expect("one bit");
    let mut tree = shard(&leaves, prefix);
    let root = tree.root();
    let proof = tree.prove(&present).expect("under the prefix");
    assert_eq!(proof.verify_exclusion(&root, &prefix, &present), Err(ProofError::Present));
    let mut outside = present;
    outside[0] = 0x80;
    assert_eq!(tree.prove(&outside), Err(TreeError::OutsidePrefix));
    assert_eq!(proof.verify_exclusion(&root, &prefix, &outside), Err(ProofError::UnrelatedLeaf));
    // A leaf from elsewhere in the tree says nothing about this path.
    let elsewhere = tree.prove(&other).expect("under the prefix");
    let mut near = present;
    near[31] = 1;
    assert_eq!(elsewhere.verify_exclusion(&root, &prefix, &near), Err(ProofError::UnrelatedLeaf));
    assert_eq!(elsewhere.verify_inclusion(&root, &BitPrefix::ROOT, &other, &[2; 32]), Err(ProofError::RootMismatch));
}

#[test]
fn refusals_change_nothing() {
    let left = BitPrefix::ROOT.child(false).expect("one bit");
    let inside = ([0x10; 32], Some([1; 32]));
    let outside = ([0x90; 32], Some([2; 32]));
    let mut tree = StateTree::new(left);
    assert_eq!(tree.apply([inside, outside]), Err(TreeError::OutsidePrefix));
    assert_eq!((tree.root(), tree.len()), (PLACEHOLDER, 0));
    let twice = [([1; 32], [1; 32]), ([1; 32], [1; 32])];
    assert_eq!(StateTree::from_sorted(left, twice).err(), Some(TreeError::Unsorted));
    assert_eq!(StateTree::from_sorted(left, [([0xff; 32], [1; 32])]).err(), Some(TreeError::OutsidePrefix));
    assert_eq!(tree.subtree_root_at(&BitPrefix::ROOT), Err(TreeError::OutsidePrefix));
    let full = BitPrefix::of(&[3; 32], 256).expect("a whole position");
    let mut single = StateTree::new(full);
    single.apply([([3; 32], Some([4; 32]))]).expect("the one position");
    assert_eq!(single.root(), leaf_hash(&[3; 32], &[4; 32]));
    let proof = single.prove(&[3; 32]).expect("the one position");
    assert_eq!(proof.verify_inclusion(&single.root(), &full, &[3; 32], &[4; 32]), Ok(()));
    assert_eq!(single.split().err(), Some(TreeError::CannotSplit));
}

#[test]
fn oversized_and_unknown_proofs_are_refused() {
    let proof = |version: u8, depth: u16, rest: usize| {
        let mut bytes = vec![version, 0];
        bytes.extend(depth.to_le_bytes());
        bytes.resize(4 + rest, 0);
        borsh::from_slice::<TreeProof>(&bytes)
    };
    assert!(proof(PROOF_VERSION, 256, 32).is_ok());
    assert!(proof(PROOF_VERSION, 257, 33).is_err());
    assert!(proof(PROOF_VERSION, u16::MAX, 8192).is_err());
    assert!(proof(PROOF_VERSION + 1, 0, 0).is_err());
    let deep = proof(PROOF_VERSION, 256, 32).expect("decodes");
    let prefix = BitPrefix::of(&[0; 32], 1).expect("one bit");
    assert_eq!(deep.verify_exclusion(&[0; 32], &prefix, &[0; 32]), Err(ProofError::TooLong));
}

/// A fixed tree: sixteen accounts, every other one with two more leaves of its own.
fn golden() -> Leaves {
    let mut leaves = Leaves::new();
    for account in 0u8..16 {
        let keys = if account % 2 == 0 { 3 } else { 1 };
        for key in 0..keys {
            let mut position = value_hash(&[account]);
            position[16..].copy_from_slice(&value_hash(&[account, key])[..16]);
            leaves.insert(position, value_hash(&[key, account]));
        }
    }
    leaves
}

#[test]
fn golden_root_and_proof() {
    let leaves = golden();
    let mut tree = bulk(&leaves);
    assert_eq!(hex::encode(tree.root()), "0d8b85423d1627f35c1bd3f2eca85fe2aa5e90e08747f780a7cc3890c14abb98");
    let (first, _) = pairs(&leaves).next().expect("not empty");
    let proof = borsh::to_vec(&tree.prove(&first).expect("whole space")).expect("memory");
    assert_eq!(hex::encode(value_hash(&proof)), "36fcde517bff5a96891a61e54546eec806636bb4cf315ddfb4fbdda656e78f44");
    assert_eq!(hex::encode(StateTree::new(BitPrefix::ROOT).root()), hex::encode(PLACEHOLDER));
}
