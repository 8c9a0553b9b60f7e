//! What a node gives to the seeds of the beacon, if it is a member of it.
//!
//! Mirrors production's `server/epochs.rs`: a commitment as soon as it sees an epoch, the secret once a block of the beacon is
//! past the time of commitments, both until the state has them. A secret follows from seed, node and epoch, so it is the
//! same after a crash, as one on a disk is. It also decides how the member behaves: most keep to the rules, some do what
//! somebody would who wants a seed of his own choice.

use beacon::Contribution;
use beacon::epochs::{Part, Phase, Round, commitment_of, round_key};
use ledger::hash::{Hash32, tagged};
use ledger::ids::{GroupId, NodeId, TimeMs};
use shard_node::core::peer::PeerMessage;

use crate::node::Node;
use crate::replica::Effect;
use crate::state;
use crate::wire::Wire;

/// Ticks between two looks at the epoch that runs.
const LOOK_EVERY_TICKS: u64 = 12;

/// How a member behaves in an epoch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// By the rules.
    Honest,
    /// It commits itself and reveals nothing.
    Withholds,
    /// It reveals another secret than the one that it has committed itself to.
    Swaps,
    /// It commits itself only when it can see secrets of others.
    Late,
}

impl Manner {
    const fn of(secret: &Hash32) -> Self {
        match secret.0[0] % 16 {
            0 | 1 => Self::Withholds,
            2 => Self::Swaps,
            3 => Self::Late,
            _ => Self::Honest,
        }
    }
}

fn secret_of(seed: &Hash32, node: NodeId, epoch: u64) -> Hash32 {
    tagged(b"simulated secret of an epoch", &[&seed.0, &node.0.to_be_bytes(), &epoch.to_be_bytes()])
}

/// What a member gives as of a block of the beacon with this time, if anything.
fn due(round: &Round, now: TimeMs, node: NodeId, secret: Hash32, commitment: Hash32) -> Option<Part> {
    let entrant = round.entrant(node).filter(|entrant| !entrant.barred)?;
    let manner = Manner::of(&secret);
    match (round.phase_at(now), entrant.commitment, entrant.secret) {
        (Phase::Commit, None, _) if manner != Manner::Late => Some(Part::Commitment(commitment)),
        (Phase::Reveal, None, _) if manner == Manner::Late => Some(Part::Commitment(commitment)),
        (Phase::Reveal, Some(_), None) => match manner {
            Manner::Honest | Manner::Late => Some(Part::Secret(secret)),
            Manner::Swaps => Some(Part::Secret(commitment)),
            Manner::Withholds => None,
        },
        (Phase::Commit | Phase::Reveal | Phase::Over, ..) => None,
    }
}

impl Node {
    /// Gives what is due to all members of the beacon, this node among them.
    pub(crate) fn contribute(&self, out: &mut Vec<Effect>) {
        if !self.epochs || !self.ticks.is_multiple_of(LOOK_EVERY_TICKS) {
            return;
        }
        let Some(beacon) = self.replicas.get(&GroupId::BEACON) else { return };
        let Some(now) = beacon.time() else { return };
        let Ok(Some(round)) = state::find::<Round>(&beacon.kv, &round_key()) else { return };
        let (cluster, epoch) = (self.genesis.cluster_id(), round.epoch);
        let secret = secret_of(&self.genesis.seed, self.id, epoch);
        let commitment = commitment_of(&cluster, epoch, self.id, &secret);
        let Some(part) = due(&round, now, self.id, secret, commitment) else { return };
        // The key that the member's line has, which follows the beacon's committee.
        let Some(key) = round.entrant(self.id).and_then(|entrant| self.keys.held().of(&entrant.key)) else { return };
        let given = Contribution::sign(cluster, epoch, self.id, part, &key);
        for member in self.members.get(&GroupId::BEACON).into_iter().flatten() {
            let message = Box::new(PeerMessage::Contribution(given.clone()));
            out.push(Effect::Send(*member, Wire::Peer { group: GroupId::BEACON, message }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_behave_in_every_way_and_most_by_the_rules() {
        let secrets: Vec<Hash32> = (0..400).map(|epoch| secret_of(&Hash32([1; 32]), NodeId(0), epoch)).collect();
        let count = |manner| secrets.iter().filter(|secret| Manner::of(secret) == manner).count();
        let others = [Manner::Withholds, Manner::Swaps, Manner::Late].map(count);
        assert!(others.iter().all(|count| *count > 0), "{others:?}");
        assert!(count(Manner::Honest) > 200);
    }
}
