//! A value's envelope: version and checksum, bound to the key it is stored under.
//!
//! Owns: the byte layout `version(1) ‖ crc32(4, big endian) ‖ payload`. The checksum covers
//! `version ‖ length of context(8) ‖ context ‖ payload`; the context is the key, so a value that
//! turns up under another key is found too.
//! Never does: encryption; a cipher's output is what gets framed, so an offline check needs no key.

use bytes::Bytes;

use crate::cipher::Damaged;

/// The layout's version; bumped when the layout changes.
pub const FRAME_VERSION: u8 = 1;
/// Bytes that a frame adds to its payload.
pub const FRAME_OVERHEAD_BYTES: usize = 5;

/// Wraps `payload`, to be stored under `context`.
pub fn seal(context: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(FRAME_OVERHEAD_BYTES + payload.len());
    framed.push(FRAME_VERSION);
    framed.extend_from_slice(&checksum(context, payload).to_be_bytes());
    framed.extend_from_slice(payload);
    framed
}

/// Checks and unwraps what was stored under `context`; shares the buffer.
pub fn open(context: &[u8], mut framed: Bytes) -> Result<Bytes, Damaged> {
    let [version, a, b, c, d, ..] = framed[..] else {
        return Err(Damaged(format!("a value of {} bytes is shorter than its envelope", framed.len())));
    };
    if version != FRAME_VERSION {
        return Err(Damaged(format!("envelope version {version} is unknown (expected {FRAME_VERSION})")));
    }
    let payload = framed.split_off(FRAME_OVERHEAD_BYTES);
    let (stored, computed) = (u32::from_be_bytes([a, b, c, d]), checksum(context, &payload));
    if stored != computed {
        return Err(Damaged(format!("checksum of a value is {computed:08x}, stored is {stored:08x}")));
    }
    Ok(payload)
}

fn checksum(context: &[u8], payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[FRAME_VERSION]);
    crc.update(&(context.len() as u64).to_be_bytes());
    crc.update(context);
    crc.update(payload);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_layout() {
        // Pinned: changing the layout needs a new FRAME_VERSION.
        let framed = seal(b"key", b"value");
        assert_eq!(framed, [&[1][..], &0xd4b32ab4_u32.to_be_bytes(), b"value"].concat());
        assert_eq!(open(b"key", Bytes::from(framed)).expect("intact"), "value");
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_found() {
        let framed = seal(b"key", b"value");
        for at in 0..framed.len() {
            let mut bad = framed.clone();
            bad[at] ^= 1;
            assert!(open(b"key", Bytes::from(bad)).is_err(), "byte {at}");
            assert!(open(b"key", Bytes::copy_from_slice(&framed[..at])).is_err(), "cut {at}");
        }
        assert!(open(b"kez", Bytes::from(framed)).is_err(), "another key");
    }
}
