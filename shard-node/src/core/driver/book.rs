//! The committees that a driver judges by: those in force, those before them, and the one that its own
//! group is being prepared for.
//!
//! A header names its committee by hash, and that committee judges it, whichever is in force by now.

use std::collections::{BTreeMap, BTreeSet};

use ledger::committee::{Committee, Member};
use ledger::crypto::PublicKey;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, GroupKind, Height, NodeId};

/// Committees as a group's state has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committees {
    /// In force, one of each group.
    pub current: Vec<Committee>,
    /// Not in force any more, in any order.
    pub former: Vec<Committee>,
    /// The one that the group itself is being prepared for.
    pub coming: Option<Committee>,
    /// The anchors of channels that have any.
    pub anchors: BTreeMap<GroupId, Vec<NodeId>>,
    /// The last block of this state.
    pub height: Height,
}

impl From<Vec<Committee>> for Committees {
    fn from(current: Vec<Committee>) -> Self {
        Self { current, ..Self::default() }
    }
}

/// Committees by what is known of them.
#[derive(Default)]
pub(super) struct Book {
    current: BTreeMap<GroupId, Committee>,
    /// The last one before the one in force.
    before: BTreeMap<GroupId, Committee>,
    by_hash: BTreeMap<(GroupId, Hash32), Committee>,
    coming: Option<Committee>,
    /// Whom each group is asked for its mail: its members, ascending.
    sources: BTreeMap<GroupId, Vec<NodeId>>,
    /// Nodes with a seat in the beacon by the registry that this node follows, which may be later than what this group
    /// has heard of by mail.
    beacon: Vec<NodeId>,
    /// Members of each group that are its anchors, where there are any.
    anchors: BTreeMap<GroupId, Vec<NodeId>>,
}

impl From<Committees> for Book {
    fn from(committees: Committees) -> Self {
        let mut book = Self { coming: committees.coming, ..Self::default() };
        for committee in committees.current {
            let seats = nodes_of(&committee);
            // An anchor without a seat has nothing to carry. Of a channel that has no other, mail must not stop.
            let named = committees.anchors.get(&committee.group).into_iter().flatten();
            let anchors: Vec<NodeId> = named.filter(|anchor| seats.contains(anchor)).copied().collect();
            if !anchors.is_empty() {
                book.anchors.insert(committee.group, anchors);
            }
            book.by_hash.insert((committee.group, committee.hash()), committee.clone());
            book.sources.insert(committee.group, seats);
            book.current.insert(committee.group, committee);
        }
        for committee in committees.former {
            // An incarnation that has ended says nothing any more.
            if book.current.get(&committee.group).is_some_and(|current| current.incarnation != committee.incarnation) {
                continue;
            }
            let last = book.before.get(&committee.group).is_none_or(|last| last.epoch < committee.epoch);
            if last {
                book.before.insert(committee.group, committee.clone());
            }
            book.by_hash.insert((committee.group, committee.hash()), committee);
        }
        book
    }
}

impl Book {
    /// The committee in force of a group.
    pub(super) fn current(&self, group: GroupId) -> Option<&Committee> {
        self.current.get(&group)
    }

    /// The groups that have a committee in force.
    pub(super) fn groups(&self) -> impl Iterator<Item = &GroupId> {
        self.current.keys()
    }

    /// The committees in force, by group.
    pub(super) fn all(&self) -> impl Iterator<Item = (&GroupId, &Committee)> {
        self.current.iter()
    }

    /// The keys by which committees in force name a node: none without a seat, and two while its key is being replaced.
    pub(super) fn keys_of(&self, node: NodeId) -> BTreeSet<PublicKey> {
        self.current.values().filter_map(|committee| seat(Some(committee), node)).map(|member| member.key).collect()
    }

    /// The committee that a header names.
    pub(super) fn named(&self, group: GroupId, hash: &Hash32) -> Option<&Committee> {
        self.by_hash.get(&(group, *hash))
    }

    /// The committee that the group itself is being prepared for.
    pub(super) fn coming(&self) -> Option<&Committee> {
        self.coming.as_ref()
    }

    /// Takes the nodes that have a seat in the beacon by the registry. They are asked and heard beside those that
    /// this group knows: it may have been away while all of these left. Nothing is judged by it.
    pub(super) fn beacon_is_on(&mut self, nodes: Vec<NodeId>) {
        self.beacon = nodes;
        if let Some(current) = self.current.get(&GroupId::BEACON) {
            let mut asked = nodes_of(current);
            asked.extend(&self.beacon);
            asked.sort_unstable();
            asked.dedup();
            self.sources.insert(GroupId::BEACON, asked);
        }
    }

    /// The nodes that have a seat in the beacon by the registry, as they were told.
    pub(super) fn beacon(&self) -> &[NodeId] {
        &self.beacon
    }

    /// Whether a node may speak for a group: it has a seat, or had one until the last change, which
    /// the group itself may not have taken yet. For the beacon also one that the registry names.
    pub(super) fn speaks_for(&self, group: GroupId, node: NodeId) -> bool {
        seat(self.current.get(&group), node).is_some()
            || seat(self.before.get(&group), node).is_some()
            || (group == GroupId::BEACON && self.beacon.contains(&node))
    }

    /// Whether a node is given what is mailed to a group: one that may speak for it. A channel's mail, however, goes to
    /// no node of an organisation without a seat in it. Such a one has left or was removed, and what comes from other
    /// channels names their transactions.
    pub(super) fn gets_mail_of(&self, group: GroupId, node: NodeId) -> bool {
        let current = self.current.get(&group);
        if seat(current, node).is_some() {
            return true;
        }
        let Some(had) = seat(self.before.get(&group), node) else { return false };
        let stays = current.is_some_and(|current| current.members.iter().any(|member| member.org == had.org));
        stays || group.kind() != Some(GroupKind::Channel)
    }

    /// The anchors of all groups that have any with a seat.
    pub(super) fn all_anchors(&self) -> &BTreeMap<GroupId, Vec<NodeId>> {
        &self.anchors
    }

    /// The anchors that carry mail between a group and another one, if the group has any. What the beacon and a channel
    /// tell each other, every replica carries: with it anchors are changed, and committees.
    pub(super) fn anchors(&self, group: GroupId, other: GroupId) -> Option<&[NodeId]> {
        let borders = group != GroupId::BEACON && other != GroupId::BEACON;
        self.anchors.get(&group).filter(|_| borders).map(Vec::as_slice)
    }

    /// Whether a replica of a group may carry mail between it and another one.
    pub(super) fn carries(&self, group: GroupId, node: NodeId, other: GroupId) -> bool {
        self.anchors(group, other).is_none_or(|anchors| anchors.contains(&node))
    }

    /// The nodes that `own` asks for the mail of a group.
    pub(super) fn sources(&self, own: GroupId, source: GroupId) -> &[NodeId] {
        let seats = || self.sources.get(&source).map(Vec::as_slice).unwrap_or_default();
        self.anchors(source, own).unwrap_or_else(seats)
    }

    /// Whether a node is about to join the group itself.
    pub(super) fn joins(&self, group: GroupId, node: NodeId) -> bool {
        let coming = self.coming.as_ref().is_some_and(|coming| coming.index_of(node).is_some());
        coming && self.current.get(&group).is_none_or(|current| current.index_of(node).is_none())
    }

    /// The key that a member of the group itself is about to sign with, if that is another one than now.
    pub(super) fn next_key(&self, group: GroupId, node: NodeId) -> Option<PublicKey> {
        let now = seat(self.current.get(&group), node)?;
        seat(self.coming.as_ref(), node).map(|next| next.key).filter(|next| *next != now.key)
    }
}

fn nodes_of(committee: &Committee) -> Vec<NodeId> {
    committee.members.iter().map(|member| member.node).collect()
}

fn seat(committee: Option<&Committee>, node: NodeId) -> Option<&Member> {
    let committee = committee?;
    Some(&committee.members[committee.index_of(node)?])
}
