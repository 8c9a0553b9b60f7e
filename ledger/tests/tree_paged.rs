//! The paged tree does what the tree in memory does, whatever has been evicted.

use std::collections::BTreeMap;
use std::convert::Infallible;

use ledger::tree::{
    BitPrefix, LeafSource, NodeHash, PagedError, PagedTree, Position, StateTree, SubtreeRoot, TreeError, value_hash,
};
use proptest::prelude::*;

/// A database of leaves.
#[derive(Default)]
struct Database(BTreeMap<Position, NodeHash>);

impl LeafSource for Database {
    type Error = Infallible;

    fn leaves(&self, prefix: &BitPrefix) -> impl Iterator<Item = Result<(Position, NodeHash), Infallible>> {
        let prefix = *prefix;
        self.0
            .range(*prefix.first_position()..)
            .map(|(p, v)| (*p, *v))
            .take_while(move |(p, _)| prefix.contains(p))
            .map(Ok)
    }
}

fn position() -> impl Strategy<Value = Position> {
    (0u8..12, 0u8..3).prop_map(|(account, key)| {
        let mut position = value_hash(&[account]);
        position[16..].copy_from_slice(&value_hash(&[account, key])[..16]);
        position
    })
}

fn empty(prefix: BitPrefix, page_bits: u16) -> PagedTree {
    let roots = vec![SubtreeRoot::EMPTY; 1 << page_bits];
    PagedTree::open::<Infallible>(prefix, page_bits, &roots).expect("the shape fits")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn pages_equal_the_tree_in_memory(
        batches in prop::collection::vec(
            (prop::collection::vec((position(), any::<Option<[u8; 32]>>()), 0..12), 0usize..20),
            1..8,
        ),
        asked in prop::collection::vec(position(), 6),
        page_bits in 0u16..7, prefix_bits in 0u16..3,
    ) {
        let prefix = BitPrefix::of(&value_hash(&[0]), prefix_bits).expect("short");
        let mut database = Database::default();
        let mut whole = StateTree::new(prefix);
        let mut paged = empty(prefix, page_bits);
        let asked: Vec<_> = asked.into_iter().filter(|p| prefix.contains(p)).collect();
        for (batch, leaves_max) in batches {
            let batch: Vec<_> = batch.into_iter().filter(|(p, _)| prefix.contains(p)).collect();
            whole.apply(batch.iter().copied()).expect("filtered");
            let before = paged.page_roots().to_vec();
            let changed = paged.apply(&database, batch.iter().copied()).expect("intact");
            let mut expected = before;
            for (page, root) in changed {
                prop_assert_ne!(expected[page as usize], root);
                expected[page as usize] = root;
            }
            prop_assert_eq!(paged.page_roots(), &expected[..]);
            for (position, value) in batch {
                match value {
                    Some(value) => database.0.insert(position, value),
                    None => database.0.remove(&position),
                };
            }
            paged.evict(leaves_max);
            prop_assert!(paged.resident_leaves() <= leaves_max);
            prop_assert_eq!(paged.subtree_root(), whole.subtree_root());
            for position in &asked {
                let proof = paged.prove(&database, position).expect("intact");
                prop_assert_eq!(&proof, &whole.prove(position).expect("filtered"));
            }
            // A restart with the stored page roots gives the same tree.
            paged = PagedTree::open::<Infallible>(prefix, page_bits, paged.page_roots())
                .expect("the shape fits");
            prop_assert_eq!(paged.root(), whole.root());
        }
    }
}

#[test]
fn leaves_that_do_not_match_are_refused_and_change_nothing() {
    let at = |n: u8| value_hash(&[n]);
    let mut database = Database::default();
    let mut paged = empty(BitPrefix::ROOT, 2);
    let batch: Vec<_> = (0..20).map(|n| (at(n), Some(at(n + 1)))).collect();
    paged.apply(&database, batch.clone()).expect("empty pages");
    let root = paged.root();
    database.0 = batch.iter().map(|(p, v)| (*p, v.expect("set"))).collect();
    paged.evict(0);
    assert_eq!(paged.resident_leaves(), 0);
    *database.0.get_mut(&at(3)).expect("present") = [0; 32];

    let refused = paged.apply(&database, batch.iter().map(|(p, _)| (*p, None)));
    assert!(matches!(refused, Err(PagedError::PageMismatch { .. })));
    assert!(paged.prove(&database, &at(3)).is_err());
    assert_eq!(paged.root(), root);

    database.0.insert(at(3), at(4));
    paged.prove(&database, &at(3)).expect("intact again");
    let cleared = paged.apply(&database, batch.iter().map(|(p, _)| (*p, None)));
    assert_eq!(cleared.map(|pages| pages.len()), Ok(4));
    assert_eq!(paged.subtree_root(), SubtreeRoot::EMPTY);
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let open = |bits: u16, len: u16, count: usize| {
        let prefix = BitPrefix::of(&[0; 32], len).expect("at most 256 bits");
        PagedTree::open::<Infallible>(prefix, bits, &vec![SubtreeRoot::EMPTY; count]).map(|_| ())
    };
    assert_eq!(open(3, 0, 8), Ok(()));
    assert_eq!(open(3, 0, 7), Err(PagedError::Shape));
    assert_eq!(open(17, 0, 1 << 17), Err(PagedError::Shape));
    assert_eq!(open(3, 254, 8), Err(PagedError::Shape));
    let mut right = empty(BitPrefix::ROOT.child(true).expect("one bit"), 1);
    assert_eq!(right.apply(&Database::default(), [([0; 32], None)]), Err(PagedError::Tree(TreeError::OutsidePrefix)));
}
