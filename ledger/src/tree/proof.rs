//! Proofs that a position holds a value hash, or holds nothing.
//!
//! Owns the proof format and its verification, which needs nothing but the root hash
//! and the prefix that the root stands for. The rules are those of `jmt` 0.12
//! (`types/proof/definition.rs`, `SparseMerkleProof::verify`).

use borsh::io::{Error, ErrorKind, Read, Result as IoResult, Write};
use borsh::{BorshDeserialize, BorshSerialize};

use super::hash::{internal_hash, leaf_hash};
use super::prefix::{bit, common_bits};
use super::{BitPrefix, DEPTH_MAX, NodeHash, PLACEHOLDER, Position, StateTree};

/// Version byte of an encoded proof.
pub const PROOF_VERSION: u8 = 1;

/// Most siblings a proof may have: one for each bit of a position.
pub const SIBLINGS_MAX: usize = DEPTH_MAX as usize;

/// Why a proof proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The position is not under the prefix the root stands for.
    #[error("the position is outside the prefix of the root")]
    OutsidePrefix,
    /// Prefix and path together are longer than a position.
    #[error("the proof is longer than a position, or does not end at the subtree")]
    TooLong,
    /// An inclusion proof must end in the leaf it proves.
    #[error("the proof does not end in the expected leaf")]
    LeafMismatch,
    /// An exclusion proof that ends in the very leaf it should exclude.
    #[error("the proof shows that the position is present")]
    Present,
    /// An exclusion proof that ends in a leaf elsewhere in the tree.
    #[error("the leaf in the proof is not on the path of the position")]
    UnrelatedLeaf,
    /// The path does not hash to the root.
    #[error("the proof does not lead to the root")]
    RootMismatch,
    /// The leaves of a subtree are not in strictly ascending order, or one is outside of it.
    #[error("the leaves are out of order or not of the subtree")]
    Leaves,
    /// A subtree proof needs two leaves: a single one has no subtree of its own, it rises.
    #[error("a subtree of fewer than two leaves has no node to be proved")]
    LoneLeaf,
}

impl ProofError {
    /// Stable code for logs and interfaces.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OutsidePrefix => "proof_outside_prefix",
            Self::TooLong => "proof_too_long",
            Self::LeafMismatch => "proof_leaf_mismatch",
            Self::Present => "proof_position_present",
            Self::UnrelatedLeaf => "proof_unrelated_leaf",
            Self::RootMismatch => "proof_root_mismatch",
            Self::Leaves => "proof_leaves",
            Self::LoneLeaf => "proof_lone_leaf",
        }
    }
}

/// The leaf a proof ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ProofLeaf {
    /// Where the leaf is.
    pub position: Position,
    /// Hash of its value.
    pub value_hash: NodeHash,
}

/// The path from the root of a (sub)tree to a leaf or to an empty subtree.
///
/// Encoded as `version ‖ leaf ‖ depth (u16) ‖ bitmap ‖ hashes`: bit `i` of the bitmap,
/// most significant first, says whether the sibling `i` levels below the root is
/// written or is the placeholder. One tree has one encoding of each proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeProof {
    leaf: Option<ProofLeaf>,
    siblings: Vec<NodeHash>,
}

impl TreeProof {
    pub(super) fn new(leaf: Option<ProofLeaf>, siblings: Vec<NodeHash>) -> Self {
        debug_assert!(siblings.len() <= SIBLINGS_MAX);
        Self { leaf, siblings }
    }

    /// The leaf the path ends in: the one asked for, or the only one that shares the path.
    pub fn leaf(&self) -> Option<&ProofLeaf> {
        self.leaf.as_ref()
    }

    /// Sibling hashes from the root downwards, placeholders included.
    pub fn siblings(&self) -> &[NodeHash] {
        &self.siblings
    }

    /// Whether the leaf that this path from `prefix` ends in, if any, is the only one under `under`,
    /// a longer prefix of its position: a leaf hangs as high as it can, so one that hangs no deeper
    /// than the top of a subtree shares it with nobody.
    pub fn alone_under(&self, prefix: &BitPrefix, under: &BitPrefix) -> bool {
        usize::from(prefix.len()) + self.siblings.len() <= usize::from(under.len())
    }

    /// The upper part of this path from `prefix`, down to the subtree under `under`; `None` when the
    /// path ends above or at its top.
    pub fn down_to(&self, prefix: &BitPrefix, under: &BitPrefix) -> Option<SubtreeProof> {
        let depth = usize::from(under.len().checked_sub(prefix.len())?);
        let siblings = self.siblings.get(..depth)?.to_vec();
        (self.siblings.len() > depth).then_some(SubtreeProof(Self { leaf: None, siblings }))
    }

    /// Puts the siblings of a path from a higher root above this proof.
    pub(super) fn below(mut self, mut upper: Vec<NodeHash>) -> Self {
        upper.append(&mut self.siblings);
        Self::new(self.leaf, upper)
    }

    /// Checks that `position` holds `value_hash` in the tree with this root.
    ///
    /// `prefix` is the prefix that the root stands for ([`BitPrefix::ROOT`] for a whole
    /// tree). It must come from whoever vouches for the root, not from the prover.
    pub fn verify_inclusion(
        &self,
        root: &NodeHash,
        prefix: &BitPrefix,
        position: &Position,
        value_hash: &NodeHash,
    ) -> Result<(), ProofError> {
        match &self.leaf {
            Some(leaf) if leaf.position == *position && leaf.value_hash == *value_hash => {
                self.verify_path(root, prefix, position)
            }
            _ => Err(ProofError::LeafMismatch),
        }
    }

    /// Checks that `position` holds nothing in the tree with this root.
    ///
    /// `prefix` matters even more than in [`verify_inclusion`](Self::verify_inclusion):
    /// with a wrong one, an empty place elsewhere could pass for this one.
    pub fn verify_exclusion(&self, root: &NodeHash, prefix: &BitPrefix, position: &Position) -> Result<(), ProofError> {
        if let Some(leaf) = &self.leaf {
            if leaf.position == *position {
                return Err(ProofError::Present);
            }
            let depth = usize::from(prefix.len()) + self.siblings.len();
            if usize::from(common_bits(&leaf.position, position)) < depth {
                return Err(ProofError::UnrelatedLeaf);
            }
        }
        self.verify_path(root, prefix, position)
    }

    /// Hashes from the end of the path up to the root, along the bits of `position`.
    fn verify_path(&self, root: &NodeHash, prefix: &BitPrefix, position: &Position) -> Result<(), ProofError> {
        if !prefix.contains(position) {
            return Err(ProofError::OutsidePrefix);
        }
        if usize::from(prefix.len()) + self.siblings.len() > SIBLINGS_MAX {
            return Err(ProofError::TooLong);
        }
        let end = match &self.leaf {
            Some(leaf) => leaf_hash(&leaf.position, &leaf.value_hash),
            None => PLACEHOLDER,
        };
        self.leads_to(root, end, prefix, position)
    }

    /// The siblings hashed onto `end`, upwards along the bits of `position`, give the root.
    fn leads_to(
        &self,
        root: &NodeHash,
        end: NodeHash,
        prefix: &BitPrefix,
        position: &Position,
    ) -> Result<(), ProofError> {
        let mut hash = end;
        let mut depth = prefix.len() + self.siblings.len() as u16;
        for sibling in self.siblings.iter().rev() {
            depth -= 1;
            hash = if bit(position, depth) { internal_hash(sibling, &hash) } else { internal_hash(&hash, sibling) };
        }
        if hash == *root { Ok(()) } else { Err(ProofError::RootMismatch) }
    }
}

/// The path from the root of a tree to the subtree under a longer prefix. Together with the leaves
/// of that subtree, two at least, it proves that they are there and that there are no others: their
/// hash is that of the inner node at its top, which any further leaf would change.
///
/// Encoded as a [`TreeProof`] that ends in no leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubtreeProof(TreeProof);

impl SubtreeProof {
    /// Checks that exactly these leaves lie under `under` in the tree with this root. They come in
    /// strictly ascending order of position.
    ///
    /// `prefix` is what the root stands for, from whoever vouches for the root.
    pub fn verify(
        &self,
        root: &NodeHash,
        prefix: &BitPrefix,
        under: &BitPrefix,
        leaves: Vec<(Position, NodeHash)>,
    ) -> Result<(), ProofError> {
        if !prefix.covers(under) {
            return Err(ProofError::OutsidePrefix);
        }
        if usize::from(prefix.len()) + self.0.siblings.len() != usize::from(under.len()) {
            return Err(ProofError::TooLong);
        }
        if leaves.len() < 2 {
            return Err(ProofError::LoneLeaf);
        }
        let mut subtree = StateTree::from_sorted(*under, leaves).map_err(|_| ProofError::Leaves)?;
        self.0.leads_to(root, subtree.root(), prefix, under.first_position())
    }
}

impl BorshSerialize for SubtreeProof {
    fn serialize<W: Write>(&self, writer: &mut W) -> IoResult<()> {
        self.0.serialize(writer)
    }
}

impl BorshDeserialize for SubtreeProof {
    fn deserialize_reader<R: Read>(reader: &mut R) -> IoResult<Self> {
        let path = TreeProof::deserialize_reader(reader)?;
        if path.leaf.is_some() {
            return Err(invalid("the path to a subtree ends in no leaf"));
        }
        Ok(Self(path))
    }
}

impl BorshSerialize for TreeProof {
    fn serialize<W: Write>(&self, writer: &mut W) -> IoResult<()> {
        PROOF_VERSION.serialize(writer)?;
        self.leaf.serialize(writer)?;
        let depth = u16::try_from(self.siblings.len()).map_err(|_| invalid("proof too long"))?;
        depth.serialize(writer)?;
        let mut bitmap = [0u8; SIBLINGS_MAX / 8];
        for (i, sibling) in self.siblings.iter().enumerate() {
            if *sibling != PLACEHOLDER {
                bitmap[i / 8] |= 0x80 >> (i % 8);
            }
        }
        writer.write_all(&bitmap[..self.siblings.len().div_ceil(8)])?;
        for sibling in self.siblings.iter().filter(|s| **s != PLACEHOLDER) {
            writer.write_all(sibling)?;
        }
        Ok(())
    }
}

impl BorshDeserialize for TreeProof {
    fn deserialize_reader<R: Read>(reader: &mut R) -> IoResult<Self> {
        if u8::deserialize_reader(reader)? != PROOF_VERSION {
            return Err(invalid("unknown version of a tree proof"));
        }
        let leaf = Option::<ProofLeaf>::deserialize_reader(reader)?;
        let depth = usize::from(u16::deserialize_reader(reader)?);
        if depth > SIBLINGS_MAX {
            return Err(invalid("tree proof longer than a position"));
        }
        let mut bitmap = [0u8; SIBLINGS_MAX / 8];
        reader.read_exact(&mut bitmap[..depth.div_ceil(8)])?;
        let written = |i: usize| bitmap[i / 8] & (0x80 >> (i % 8)) != 0;
        if (depth..depth.next_multiple_of(8)).any(written) {
            return Err(invalid("tree proof has bits after its bitmap"));
        }
        let mut siblings = vec![PLACEHOLDER; depth];
        for (i, sibling) in siblings.iter_mut().enumerate() {
            if written(i) {
                reader.read_exact(sibling)?;
                if *sibling == PLACEHOLDER {
                    return Err(invalid("tree proof writes out a placeholder"));
                }
            }
        }
        Ok(Self { leaf, siblings })
    }
}

fn invalid(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}
