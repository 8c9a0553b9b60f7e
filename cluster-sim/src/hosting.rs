//! Which groups a node has replicas of, beyond those of the genesis: it follows the beacon's registry,
//! starts what names it, and removes what goes on without it.
//!
//! Mirrors production's `server/hosting.rs`, `leaving.rs` and `seat.rs`, but for one thing: a node that is to join a group again
//! removes its former replica at once, where production asks first whether it still counts. Nothing that was promised may
//! depend on that. What a node knows of the registry, and that it has left a group, survives the power. That a registry is
//! proved is not simulated: nodes of the beacon are believed.

use std::collections::BTreeSet;
use std::rc::Rc;

use beacon::{ClusterView, registry};
use ledger::committee::Committee;
use ledger::foundation::Foundation;
use ledger::ids::{GroupId, NodeId};
use ledger::view::View;

use crate::checkers::Seen;
use crate::node::Node;
use crate::replica::{Effect, Replica};
use crate::sabotage::Sabotage;
use crate::seat::join_at;
use crate::state::KvState;
use crate::wire::Wire;

/// Ticks between two questions to the beacon, and to groups that a node may have to leave.
const ASK_EVERY_TICKS: u64 = 15;

/// What is to be done about one group.
enum Step {
    Nothing,
    /// Take part from the beginning.
    Found,
    /// Take part anew, with this join.
    Join(u16),
    /// Leave, once its members say so.
    Leave,
}

/// What the registry says of a group, as far as a node has heard.
struct Standing<'a> {
    foundation: &'a Foundation,
    current: Option<&'a Committee>,
    coming: Option<&'a Committee>,
}

impl<'a> Standing<'a> {
    fn of(view: &'a ClusterView, foundation: &'a Foundation) -> Self {
        let group = foundation.group;
        let coming = view.coming.iter().find(|committee| committee.group == group);
        Self { foundation, current: view.committee(group), coming }
    }

    fn seats(committee: Option<&Committee>, node: NodeId) -> bool {
        committee.is_some_and(|committee| committee.index_of(node).is_some())
    }

    /// The highest epoch that is known.
    fn epoch(&self) -> u64 {
        self.current.into_iter().chain(self.coming).map(|committee| committee.epoch.0).max().unwrap_or(0)
    }

    /// What a node does that has a replica with this join, or none, and has left the group before, or not.
    fn step(&self, node: NodeId, here: Option<u16>, left: bool) -> Step {
        let seated = Self::seats(self.current, node);
        let joins = self.coming.filter(|coming| !seated && Self::seats(Some(*coming), node)).map(join_at);
        // Also when the others have begun long ago: no disk loses a log here. In production they would not
        // have begun without it, and a log that is missing by then is lost (ADR 17).
        let founds = Self::seats(Some(&self.foundation.committee), node);
        match (here, joins) {
            (here, Some(join)) if here != Some(join) => Step::Join(join),
            (None, None) if seated && !left && founds => Step::Found,
            (Some(_), None) if !seated => Step::Leave,
            _ => Step::Nothing,
        }
    }

    /// Whom to ask whether the group goes on.
    fn members(&self) -> Vec<NodeId> {
        let committee = self.current.unwrap_or(&self.foundation.committee);
        committee.members.iter().map(|member| member.node).collect()
    }
}

impl Node {
    /// Asks a node of the beacon for news of the registry, and the members of groups that may go on without
    /// this node.
    pub(crate) fn follow_registry(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        if !self.follows || !self.ticks.is_multiple_of(ASK_EVERY_TICKS) {
            return;
        }
        let revision = self.registry.as_ref().map_or(0, |view| view.revision);
        let beacon = self.genesis.committee(GroupId::BEACON).map_or(&[][..], |committee| &committee.members[..]);
        // One after the other, and every node another one.
        let turn = self.ticks / ASK_EVERY_TICKS + u64::from(self.id.0);
        if self.moves.beacon {
            out.extend(self.asked(turn).map(|node| Effect::Send(node, Wire::Follow { revision })));
        } else if let Some(member) = beacon.get((turn % beacon.len().max(1) as u64) as usize) {
            out.push(Effect::Send(member.node, Wire::Follow { revision }));
        }
        self.adapt(now_ms, out);
    }

    /// Whom to ask where the members of the beacon change: one of those that are known, and now and then anybody.
    fn asked(&self, turn: u64) -> Option<NodeId> {
        let known = self.registry.as_ref().and_then(|view| view.committee(GroupId::BEACON));
        let known = known.or_else(|| self.genesis.committee(GroupId::BEACON));
        let members = known.map_or(&[][..], |committee| &committee.members[..]);
        let (each, round) =
            ((turn / 4 * 3 + turn % 4) % members.len().max(1) as u64, turn / 4 % self.peers.len().max(1) as u64);
        match turn % 4 {
            0 => self.peers.get(round as usize).copied(),
            _ => members.get(each as usize).map(|member| member.node),
        }
    }

    /// A node asks what the registry says since a revision.
    pub(crate) fn tell_registry(&self, to: NodeId, revision: u64, out: &mut Vec<Effect>) {
        let Some(beacon) = self.replicas.get(&GroupId::BEACON) else { return };
        let reader = KvState { kv: &beacon.kv, hide_receipts: false };
        if ClusterView::revision_of(&reader).is_ok_and(|newest| newest > revision)
            && let Ok(view) = ClusterView::read(&reader)
        {
            let committees = view.committees.iter().chain(&view.coming);
            let seated = committees.filter(|committee| committee.index_of(to).is_some());
            let groups: BTreeSet<GroupId> = seated.map(|committee| committee.group).collect();
            let mut state = View::new(&reader);
            let found = groups.iter().filter_map(|group| state.get(&registry::foundation_key(*group)));
            let foundations = found.map(|bytes| bytes.to_vec()).collect();
            out.push(Effect::Send(to, Wire::Registry { view: view.encode(), foundations }));
        }
    }

    /// The registry as a node of the beacon has it.
    pub(crate) fn hear_registry(&mut self, now_ms: u64, view: &[u8], foundations: &[Vec<u8>], out: &mut Vec<Effect>) {
        let Ok(view) = borsh::from_slice::<ClusterView>(view) else { return };
        for foundation in foundations.iter().filter_map(|bytes| borsh::from_slice::<Foundation>(bytes).ok()) {
            if view.founded(foundation.group) == Some(&foundation.leaf()) {
                self.foundations.entry(foundation.group).or_insert_with(|| Rc::new(foundation));
            }
        }
        if self.registry.as_ref().is_none_or(|known| known.revision < view.revision) {
            self.registry = Some(Rc::new(view));
            self.adapt(now_ms, out);
        }
    }

    fn adapt(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        let Some(view) = self.registry.clone() else { return };
        self.adapt_seats(now_ms, &view, out);
        let foundations: Vec<Rc<Foundation>> = self.foundations.values().cloned().collect();
        for foundation in &foundations {
            let standing = Standing::of(&view, foundation);
            let group = foundation.group;
            let here = self.replicas.get(&group).map(Replica::join);
            match standing.step(self.id, here, self.left.contains(&group)) {
                Step::Nothing => {}
                Step::Found => {
                    out.push(Effect::Saw(Seen::Founded(Box::new((**foundation).clone()))));
                    match Replica::founder(foundation, self.id, &self.genesis, self.sabotage) {
                        Ok(replica) => self.open(now_ms, group, replica, standing.members(), out),
                        Err(why) => out.push(Effect::Broken(format!("{group} cannot begin: {why}"))),
                    }
                }
                Step::Join(join) => {
                    if here.is_some() {
                        self.remove(group, standing.epoch(), true, out);
                    }
                    out.push(Effect::Saw(Seen::Founded(Box::new((**foundation).clone()))));
                    let replica = Replica::joiner(foundation, join, self.id, &self.genesis, self.sabotage);
                    self.open(now_ms, group, replica, standing.members(), out);
                }
                Step::Leave => {
                    let members = standing.members().into_iter();
                    out.extend(members.map(|member| Effect::Send(member, Wire::Leaving { group })));
                }
            }
        }
    }

    pub(crate) fn open(
        &mut self,
        now_ms: u64,
        group: GroupId,
        mut replica: Replica,
        members: Vec<NodeId>,
        out: &mut Vec<Effect>,
    ) {
        self.members.insert(group, members);
        let (now, offset) = (self.tick_at(now_ms), self.guarded_offset(now_ms, group));
        (replica.guards, replica.accuses) = (self.guards, self.accuses);
        replica.keys = self.keys.held().clone();
        if self.moves.covers(group) {
            replica.moves();
        }
        // No two replicas wait equally long for a leader.
        let seed = group.0 ^ (u64::from(self.id.0) << 32) ^ self.ticks;
        if let Err(why) = replica.start(now, offset, seed, out) {
            out.push(Effect::Broken(format!("{group} cannot start on node {}: {why}", self.id)));
        }
        self.replicas.insert(group, replica);
        out.push(Effect::Opened(group));
    }

    pub(crate) fn remove(&mut self, group: GroupId, epoch: u64, rejoins: bool, out: &mut Vec<Effect>) {
        out.push(Effect::Saw(Seen::Left { node: self.id, group, epoch, rejoins }));
        self.left.insert(group);
        if rejoins || self.sabotage != Some(Sabotage::KeepState) {
            self.replicas.remove(&group);
            self.members.remove(&group);
        }
    }

    /// A node asks whether the group goes on without it.
    pub(crate) fn answer_leaving(&self, to: NodeId, group: GroupId, out: &mut Vec<Effect>) {
        if self.replicas.get(&group).is_some_and(|replica| replica.goes_on_without(to)) {
            out.push(Effect::Send(to, Wire::MayLeave { group }));
        }
    }

    /// A member says that the group goes on without this node.
    pub(crate) fn leave(&mut self, group: GroupId, out: &mut Vec<Effect>) {
        if self.moves.covers(group) {
            return self.leave_seat(group, out);
        }
        let Some(view) = self.registry.clone() else { return };
        let Some(foundation) = self.foundations.get(&group).cloned() else { return };
        let standing = Standing::of(&view, &foundation);
        let here = self.replicas.get(&group).map(Replica::join);
        // The answer may be to a question of long ago.
        if matches!(standing.step(self.id, here, true), Step::Leave) {
            self.remove(group, standing.epoch(), false, out);
        }
    }
}
