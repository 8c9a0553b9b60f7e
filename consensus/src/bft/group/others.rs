//! Whom a replica asks for what it has missed: whoever has a seat by the registry, beside the members that its own state
//! has in force.
//!
//! The own state is all that a replica can judge decided values by, and it may be old: that of one that joins begins with
//! the first block, and that of one that was away stands where it was then. The members that it knows may have left since.
//! The registry, as the host knows it, says who is there now. Nothing is believed because of it: decided values are judged
//! by the own state, and a snapshot by the committee that its certified changes lead to (`crate::raft::vouch`). So a
//! registry that is old, or not the group's, costs questions and nothing else.

use std::sync::Arc;
use std::time::Duration;

use ledger::committee::{Committee, Engine};
use ledger::ids::NodeId;
use tokio::time::Instant;

/// The others of a replica.
pub(super) struct Others {
    own: NodeId,
    registry: Arc<dyn Fn() -> Vec<NodeId> + Send + Sync>,
    /// Between two looks at the registry.
    every: Duration,
    look_at: Instant,
    /// Who has a seat by the registry; nobody where the host does not know.
    seated: Vec<NodeId>,
    /// What was applied at the last look.
    applied: Option<u64>,
    /// Nothing was applied between the last two looks.
    still: bool,
    /// All of them are asked at once no earlier.
    ask_all_at: Instant,
}

impl Others {
    pub(super) fn new(
        own: NodeId,
        registry: Arc<dyn Fn() -> Vec<NodeId> + Send + Sync>,
        every_ms: u64,
        now: Instant,
    ) -> Self {
        let every = Duration::from_millis(every_ms);
        Self { own, registry, every, look_at: now, seated: Vec::new(), applied: None, still: false, ask_all_at: now }
    }

    /// Looks at the registry when it is time to; the replica has applied so much.
    pub(super) fn look(&mut self, now: Instant, applied: u64) {
        if now < self.look_at {
            return;
        }
        self.look_at = now + self.every;
        self.seated = (self.registry)();
        self.seated.retain(|node| *node != self.own);
        self.still = self.applied.replace(applied) == Some(applied);
    }

    /// All of them, each once.
    pub(super) fn all(&self, in_force: &Committee) -> Vec<NodeId> {
        let mut all = self.seated.clone();
        let members = in_force.members.iter().map(|member| member.node);
        all.extend(members.filter(|node| *node != self.own && !self.seated.contains(node)));
        all
    }

    /// Those that the own state does not know, while it stands still: the group may have gone on to them. Nobody else is to
    /// be asked by a member, which hears from those that it knows.
    pub(super) fn strangers(&self, in_force: &Committee) -> Vec<NodeId> {
        if !self.still {
            return Vec::new();
        }
        self.seated.iter().copied().filter(|node| in_force.index_of(*node).is_none()).collect()
    }

    /// All of them, to be asked at once; nobody when that was a moment ago, so that nobody has it happen all the time.
    pub(super) fn at_once(&mut self, now: Instant, in_force: &Committee) -> Vec<NodeId> {
        if now < self.ask_all_at {
            return Vec::new();
        }
        self.ask_all_at = now + self.every;
        self.all(in_force)
    }

    /// So many members of the group may lie: of those by the registry, where it is known.
    pub(super) fn tolerated(&self, in_force: &Committee) -> usize {
        let members = if self.seated.is_empty() { in_force.members.len() } else { self.seated.len() + 1 };
        Engine::Bft.tolerated(members)
    }
}

#[cfg(test)]
mod tests {
    use ledger::committee::Member;
    use ledger::crypto::SecretKey;
    use ledger::ids::{Epoch, GroupId, Incarnation, OrgId};

    use super::*;

    fn nodes(nodes: &[u32]) -> Vec<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }

    fn committee(of: &[u32]) -> Committee {
        let key = |node: u32| SecretKey::derive(&node.to_le_bytes(), b"others test").public();
        let member = |node: &u32| Member { node: NodeId(*node), org: OrgId(1), key: key(*node) };
        let members = of.iter().map(member).collect();
        Committee::of(Engine::Bft, GroupId::shard(7), Incarnation::default(), Epoch::default(), members)
    }

    fn others(own: u32, registry: &'static [u32]) -> Others {
        let mut others = Others::new(NodeId(own), Arc::new(move || nodes(registry)), 100, Instant::now());
        others.look(Instant::now(), 0);
        others
    }

    #[test]
    fn whoever_has_a_seat_by_the_registry_is_asked_beside_the_members_in_force() {
        let founders = committee(&[1, 2, 3, 4]);
        assert_eq!(others(4, &[]).all(&founders), nodes(&[1, 2, 3]), "the host does not know");
        assert_eq!(others(4, &[4, 3, 1, 2]).all(&founders), nodes(&[3, 1, 2]));
        assert_eq!(others(9, &[5, 6, 7, 4]).all(&founders), nodes(&[5, 6, 7, 4, 1, 2, 3]));
    }

    #[test]
    fn how_many_may_lie_follows_from_the_registry_where_it_is_known() {
        let founders = committee(&[1, 2, 3, 4]);
        assert_eq!(others(4, &[]).tolerated(&founders), 1);
        assert_eq!(others(4, &[1, 2, 3, 4, 5, 6, 7]).tolerated(&founders), 2);
        assert_eq!(others(1, &[1, 2, 3]).tolerated(&founders), 0, "the group has gone over to raft");
        assert_eq!(others(9, &[5, 6, 7, 8]).tolerated(&committee(&[1, 2, 3, 4, 9, 10, 11])), 1);
    }

    #[test]
    fn all_are_asked_at_once_no_more_often_than_the_registry_is_looked_at() {
        let (founders, mut others, now) = (committee(&[1, 2, 3, 4]), others(4, &[5]), Instant::now());
        assert_eq!(others.at_once(now, &founders), nodes(&[5, 1, 2, 3]));
        assert!(others.at_once(now + Duration::from_millis(99), &founders).is_empty());
        assert_eq!(others.at_once(now + Duration::from_millis(100), &founders), nodes(&[5, 1, 2, 3]));
    }

    #[test]
    fn a_member_asks_strangers_only_while_it_stands_still() {
        let founders = committee(&[1, 2, 3, 4]);
        let mut others = others(4, &[4, 5, 2, 6]);
        assert!(others.strangers(&founders).is_empty(), "it has just begun");
        let mut now = Instant::now();
        let looks: [(u64, &[u32]); 4] = [(0, &[5, 6]), (1, &[]), (2, &[]), (2, &[5, 6])];
        for (applied, expected) in looks {
            now += Duration::from_millis(200);
            others.look(now, applied);
            assert_eq!(others.strangers(&founders), nodes(expected), "{applied}");
        }
        others.look(now, 3);
        assert_eq!(others.strangers(&founders), nodes(&[5, 6]), "it does not look all the time");
    }
}
