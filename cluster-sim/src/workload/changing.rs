//! What happens in the channel that is founded while the cluster runs, and whose members come and go meanwhile: value is
//! brought in and taken home, paid inside, and swapped with other channels and with the main ledger, hidden. No account is an
//! organisation's, so what becomes of a member changes nothing of what accounts have; who may hand something over is
//! looked at by the channel (`replica/guard`), and by clients (`client`).
//!
//! Made after everything else and drawn from a stream of its own, so that the rest of a seed's load is what it would be
//! without.

use ledger::ids::GroupId;
use rand::Rng;

use super::maker::{ASSETS, Maker};
use crate::cluster::CHANNEL_ACCOUNTS;

/// Times that value is brought in for each account and asset: some of it is too late.
const BROUGHT: usize = 2;
/// Of so many transactions one is sent once more.
const AGAIN_OF: usize = 6;

impl Maker<'_> {
    /// So many transactions about the channel, besides those that bring value into it.
    pub(super) fn changing(&mut self, group: GroupId, count: usize) {
        let channel = self.inside.len() / CHANNEL_ACCOUNTS;
        self.settle_in(group);
        let first = self.made();
        for _ in 0..BROUGHT {
            for number in 0..ASSETS {
                self.bring(channel, number);
            }
        }
        let end = self.shape.safety_ms.max(1_001);
        for _ in 0..count {
            // It takes a while until the channel is there, and its assets are permitted.
            let at_ms = self.rng.random_range(end / 3..end);
            match self.rng.random_range(0..100) {
                0..=34 => self.inside(channel, at_ms),
                35..=74 => self.across(channel, at_ms),
                _ => self.take_home(channel, at_ms),
            }
        }
        self.again_of(first, count / AGAIN_OF);
    }
}
