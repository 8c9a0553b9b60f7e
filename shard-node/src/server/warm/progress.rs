//! How far the copies are that are being made: bytes of tables that were read of those that have to be. Told to whoever
//! asks for a node's status; nothing is decided by it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts what one making of copies reads.
#[derive(Debug, Default)]
pub struct Copied {
    read: AtomicU64,
    of: AtomicU64,
}

impl Copied {
    /// They are made, perhaps anew: nothing is read, of about so many bytes.
    pub fn begin(&self, of: u64) {
        self.read.store(0, Ordering::Relaxed);
        self.of.store(of, Ordering::Relaxed);
    }

    /// So many bytes more are read.
    pub fn read(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What is read, and of how many bytes; never more than those.
    #[must_use]
    pub fn so_far(&self) -> (u64, u64) {
        let of = self.of.load(Ordering::Relaxed);
        (self.read.load(Ordering::Relaxed).min(of), of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_part_of_what_has_to_be_and_begins_anew() {
        let copied = Copied::default();
        assert_eq!(copied.so_far(), (0, 0));
        copied.begin(100);
        copied.read(30);
        copied.read(40);
        assert_eq!(copied.so_far(), (70, 100));
        copied.read(40);
        assert_eq!(copied.so_far(), (100, 100), "how much there is was about right");
        copied.begin(50);
        assert_eq!(copied.so_far(), (0, 50));
    }
}
