//! A member that says again what was said: of rounds and entries that are over, and with its own name under an
//! incarnation, a committee or a place that its ballots are not of.

use consensus::bft::Message;
use ledger::ballot::{Ballot, BallotKind};
use ledger::hash::Hash32;
use ledger::ids::{Incarnation, NodeId};
use rand::Rng;
use rand::seq::IndexedRandom;

use super::{Liar, Scene};
use crate::wire::Wire;

/// Messages that are remembered.
const KEPT: usize = 256;

impl Liar {
    /// Keeps a message for later.
    pub(super) fn remember(&mut self, message: &Message) {
        if self.heard.len() >= KEPT {
            self.heard.pop_front();
        }
        self.heard.push_back(message.clone());
    }

    /// Says something again.
    pub(super) fn replay(&mut self, scene: &Scene<'_>, said: &mut Vec<(NodeId, Wire)>) {
        let Some(to) = self.anybody(scene) else { return };
        self.deeds.lies += 1;
        if self.draw(3) > 0 {
            for _ in 0..3 {
                let at = self.rng.random_range(0..self.heard.len().max(1));
                said.extend(self.heard.get(at).map(|message| (to, scene.wire(message.clone()))));
            }
            return;
        }
        let value = Some(Hash32(self.rng.random()));
        let kind = [BallotKind::Prevote, BallotKind::Precommit].choose(&mut self.rng).copied();
        let ballot = scene.ballot(scene.chain.index + 1, scene.round, kind.unwrap_or(BallotKind::Prevote), value);
        let ballot = match self.draw(3) {
            0 => Ballot { incarnation: Incarnation(0), ..ballot },
            1 => Ballot { committee: Hash32(self.rng.random()), ..ballot },
            _ => Ballot { index: ballot.index.saturating_sub(3), ..ballot },
        };
        said.push((to, scene.wire(Message::Ballot(scene.sign(ballot)))));
    }
}
