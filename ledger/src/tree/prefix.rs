//! Bits of positions, and the bit-prefix that names a subtree.

use borsh::io::{Error, ErrorKind, Read, Result as IoResult};
use borsh::{BorshDeserialize, BorshSerialize};

use super::{DEPTH_MAX, Position};

/// Bit `index` of a position, counted from the most significant bit of byte 0.
#[inline]
pub(super) fn bit(position: &Position, index: u16) -> bool {
    position[usize::from(index >> 3)] & (0x80 >> (index & 7)) != 0
}

/// Number of leading bits that two positions have in common.
#[inline]
pub(super) fn common_bits(a: &Position, b: &Position) -> u16 {
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    let mut bits = 0;
    for (x, y) in words {
        let difference = u64::from_be_bytes(*x) ^ u64::from_be_bytes(*y);
        if difference != 0 {
            return bits + difference.leading_zeros() as u16;
        }
        bits += 64;
    }
    bits
}

/// The first `len` bits of a position: the name of an inner node of the tree, and of
/// the shard that owns what is below it. Bits after the prefix are always zero, so equal
/// prefixes have equal bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize)]
pub struct BitPrefix {
    bits: Position,
    len: u16,
}

impl BitPrefix {
    /// The empty prefix: the whole tree.
    pub const ROOT: Self = Self { bits: [0; 32], len: 0 };

    /// The first `len` bits of `position`; `None` when `len` is more than 256.
    pub fn of(position: &Position, len: u16) -> Option<Self> {
        if len > DEPTH_MAX {
            return None;
        }
        let mut bits = [0u8; 32];
        let whole = usize::from(len / 8);
        bits[..whole].copy_from_slice(&position[..whole]);
        if !len.is_multiple_of(8) {
            bits[whole] = position[whole] & !(0xff >> (len % 8));
        }
        Some(Self { bits, len })
    }

    /// Number of bits.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u16 {
        self.len
    }

    /// The lowest position under this prefix.
    pub fn first_position(&self) -> &Position {
        &self.bits
    }

    /// Whether `position` is under this prefix.
    pub fn contains(&self, position: &Position) -> bool {
        common_bits(&self.bits, position) >= self.len
    }

    /// Whether every position under `other` is under this prefix.
    pub fn covers(&self, other: &Self) -> bool {
        other.len >= self.len && self.contains(&other.bits)
    }

    /// The prefix one bit longer, on the left (`false`) or the right (`true`).
    /// `None` when this one is a whole position.
    pub fn child(&self, right: bool) -> Option<Self> {
        if self.len == DEPTH_MAX {
            return None;
        }
        let mut child = *self;
        if right {
            child.bits[usize::from(self.len / 8)] |= 0x80 >> (self.len % 8);
        }
        child.len += 1;
        Some(child)
    }

    /// The prefix one bit shorter; `None` for the whole tree.
    pub fn parent(&self) -> Option<Self> {
        Self::of(&self.bits, self.len.checked_sub(1)?)
    }

    /// The last bit: whether this is a right child. `None` for the whole tree.
    pub fn is_right(&self) -> Option<bool> {
        Some(bit(&self.bits, self.len.checked_sub(1)?))
    }
}

impl BorshDeserialize for BitPrefix {
    fn deserialize_reader<R: Read>(reader: &mut R) -> IoResult<Self> {
        let bits = Position::deserialize_reader(reader)?;
        let len = u16::deserialize_reader(reader)?;
        match Self::of(&bits, len) {
            Some(prefix) if prefix.bits == bits => Ok(prefix),
            _ => Err(Error::new(ErrorKind::InvalidData, "bit prefix is not canonical")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_count_from_the_most_significant() {
        let mut position = [0u8; 32];
        position[0] = 0b1000_0001;
        position[31] = 1;
        assert!(bit(&position, 0) && bit(&position, 7) && bit(&position, 255));
        assert!(!bit(&position, 1) && !bit(&position, 254));
        assert_eq!(common_bits(&position, &position), 256);
        assert_eq!(common_bits(&position, &[0; 32]), 0);
        let mut other = position;
        other[17] = 0x10;
        assert_eq!(common_bits(&position, &other), 17 * 8 + 3);
    }

    #[test]
    fn children_and_parents_agree() {
        let mut prefix = BitPrefix::ROOT;
        assert_eq!(prefix.parent(), None);
        assert_eq!(prefix.is_right(), None);
        for depth in 0..256u16 {
            let right = depth % 3 == 0;
            let child = prefix.child(right).expect("not yet at full length");
            assert_eq!(child.parent(), Some(prefix));
            assert_eq!(child.is_right(), Some(right));
            assert!(prefix.covers(&child) && !child.covers(&prefix));
            assert!(prefix.contains(child.first_position()));
            prefix = child;
        }
        assert_eq!(prefix.child(false), None);
        assert_eq!(BitPrefix::of(&[0; 32], 257), None);
    }

    #[test]
    fn decoding_refuses_bits_after_the_prefix() {
        let prefix = BitPrefix::of(&[0xff; 32], 13).expect("13 is in range");
        let bytes = borsh::to_vec(&prefix).expect("writing to memory");
        assert_eq!(borsh::from_slice::<BitPrefix>(&bytes).ok(), Some(prefix));
        let mut dirty = bytes.clone();
        dirty[1] |= 1;
        assert!(borsh::from_slice::<BitPrefix>(&dirty).is_err());
        let mut long = bytes;
        long[33] = 2;
        assert!(borsh::from_slice::<BitPrefix>(&long).is_err());
    }
}
