//! How much of what a copy has taken may not be durable yet, while it follows its parents. Numbers only.

/// Bytes that a copy takes until they are made durable, at first and at most: at the seal payers wait until the
/// rest is.
const UNFLUSHED: (usize, usize) = (1 << 20, 4 << 20);

/// How much a copy takes until it is made durable, of which so much was since it follows. Each time leaves a table file, which
/// every read asks until all are compacted: one that follows for long takes more at a time.
pub(super) fn unflushed_max(flushed: usize) -> usize {
    (flushed / 16).clamp(UNFLUSHED.0, UNFLUSHED.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_follows_is_never_far_from_durable_and_leaves_few_files() {
        const MIB: usize = 1 << 20;
        let followed = |bytes: usize| {
            let (mut flushed, mut waits, mut most, mut files) = (0, 0, 0_usize, 0);
            while flushed + waits < bytes {
                waits += MIB / 16;
                most = most.max(waits);
                if waits >= unflushed_max(flushed) {
                    flushed += std::mem::take(&mut waits);
                    files += 1;
                }
            }
            (most, files)
        };
        assert_eq!(followed(16 * MIB), (MIB, 16), "what a shard under load writes in half a minute");
        let (most, files) = followed(64 * MIB);
        assert!(most <= 4 * MIB && files <= 40, "{most} bytes, {files} files");
        let (most, more) = followed(464 * MIB);
        assert_eq!((most, more - files), (4 * MIB, 100), "as many as there have to be");
    }
}
