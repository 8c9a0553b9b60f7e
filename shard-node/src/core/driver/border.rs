//! Who carries mail across the border of a channel: its anchors, where it has any.
//!
//! An anchor that leads pulls, serves and proposes as any leader does. One that does not lead pulls, keeps nothing, and
//! passes on what it gets to the one that leads, which judges it. Owns what is known of anchors that are silent, and of
//! those who ask past them. Never does: take an anchor's word for anything. Which mail there is to be served and asked
//! for is in `mail`, whose anchors there are in `book`.

use std::collections::{BTreeMap, BTreeSet};

use cross_shard::Bundle;
use ledger::ids::{GroupId, NodeId, Tick};

use crate::core::driver::book::Book;
use crate::core::driver::mail::PULL_EVERY_MS;
use crate::core::driver::{Cause, DriverConfig, GroupDriver, Output};
use crate::core::peer::PeerMessage;

/// An operator is told of anchors none of which has been heard of for this long.
pub(super) const SILENT_ANCHORS_MS: u64 = 5_000;

/// What a replica is in its group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stand {
    /// Whether it leads.
    pub(super) leads: bool,
    /// Who leads, if known.
    pub(super) leader: Option<NodeId>,
}

impl Stand {
    /// Whether the replica asks a group for its mail: the one that leads. Across a border with anchors it asks only if
    /// it is one, and where the one that leads is none, all anchors ask.
    pub(super) fn fetches(self, config: &DriverConfig, committees: &Book, source: GroupId) -> bool {
        let Some(anchors) = committees.anchors(config.group, source) else { return self.leads };
        let asks = self.leads || self.leader.is_some_and(|leader| !anchors.contains(&leader));
        asks && anchors.contains(&config.node)
    }
}

/// What a replica knows of the anchors of its group and of others.
#[derive(Default)]
pub(super) struct Border {
    /// When one of the group's own anchors was heard of; kept by the one that leads, if it is none.
    heard: Option<Tick>,
    /// When this replica, an anchor, has told the one that leads that it is there.
    told: Option<Tick>,
    /// Groups none of whose anchors is heard of. There is an alarm for each.
    silent: BTreeSet<GroupId>,
    /// Who has asked for whose mail past the anchors, since anchors or seats changed.
    strays: BTreeSet<(GroupId, NodeId)>,
    /// How often that was refused.
    refused: u64,
    /// How often a node without a seat was not answered.
    strangers: u64,
}

impl GroupDriver {
    /// How often nodes were refused mail because it was not theirs, or not this node's, to carry it.
    #[must_use]
    pub fn refused_pulls(&self) -> u64 {
        self.border.refused
    }

    /// How often nodes asked for what is given to those alone that have a seat, and have none.
    #[must_use]
    pub fn strangers(&self) -> u64 {
        self.border.strangers
    }

    /// Counts one that is not answered.
    pub(super) fn stranger(&mut self) {
        self.border.strangers += 1;
    }

    pub(super) fn stand(&self) -> Stand {
        Stand { leads: self.leads, leader: self.leader }
    }

    pub(super) fn fetches(&self, source: GroupId) -> bool {
        self.stand().fetches(&self.config, &self.committees, source)
    }

    /// Whether mail between this group and another one may go between this node and one of its nodes.
    pub(super) fn crosses(&self, other: GroupId, there: NodeId) -> bool {
        let own = self.config.group;
        self.committees.carries(own, self.config.node, other) && self.committees.carries(other, there, own)
    }

    /// Whether a node is given what is mailed to a group, and told how far it goes. One that asks past the anchors is
    /// noted: it may not know yet who they are.
    pub(super) fn serves(&mut self, dest: GroupId, node: NodeId, out: &mut Vec<Output>) -> bool {
        if !self.committees.gets_mail_of(dest, node) {
            self.stranger();
            return false;
        }
        let crosses = self.crosses(dest, node);
        if !crosses {
            self.border.refused += 1;
            if self.border.strays.insert((dest, node)) {
                out.push(Output::Stray { dest, node });
            }
        }
        crosses
    }

    /// Takes mail where this replica leads, from the source or from an anchor that passes it on; as an anchor passes
    /// it on.
    pub(super) fn mail_arrives(&mut self, now: Tick, from: NodeId, bundle: Bundle, out: &mut Vec<Output>) {
        let (own, source) = (self.config.group, bundle.source);
        let crosses = self.is_member(source, from) && self.crosses(source, from);
        if self.leads {
            let passed_on = self.committees.anchors(own, source).is_some_and(|anchors| anchors.contains(&from));
            if crosses || passed_on {
                self.bundle(bundle);
            }
            return;
        }
        let Some(leader) = self.leader.filter(|leader| *leader != self.config.node) else { return };
        if crosses
            && self.fetches(source)
            && self.mailroom.passes_on(&bundle, &self.config, now, from, &self.committees)
        {
            out.push(Output::Send { node: leader, group: own, message: PeerMessage::Bundle(bundle) });
        }
    }

    /// An anchor of this group says that it is there.
    pub(super) fn anchor_heard(&mut self, now: Tick, from: NodeId) {
        let anchors = self.committees.all_anchors().get(&self.config.group);
        if self.leads && anchors.is_some_and(|anchors| anchors.contains(&from)) {
            self.border.heard = Some(now);
        }
    }

    /// Other seats or other anchors are in force.
    pub(super) fn border_changed(&mut self, before: &BTreeMap<GroupId, Vec<NodeId>>, out: &mut Vec<Output>) {
        self.border.strays.clear();
        let now = self.committees.all_anchors();
        let groups: BTreeSet<GroupId> = before.keys().chain(now.keys()).copied().collect();
        for group in groups.into_iter().filter(|group| before.get(group) != now.get(group)) {
            self.mailroom.anchors_changed(group);
            if group == self.config.group {
                self.border.heard = None;
            }
            if self.border.silent.remove(&group) {
                out.push(Output::AlarmEnded(Cause::Anchors(group)));
            }
        }
    }

    /// As an anchor, tells the one that leads that it is there; raises and ends the alarms about anchors that are not.
    pub(super) fn watch_border(&mut self, now: Tick, out: &mut Vec<Output>) {
        let (own, here) = (self.config.group, self.config.node);
        let late = |heard: Tick| now.0 >= heard.0 + SILENT_ANCHORS_MS;
        let (mut silent, mut heard) = (BTreeSet::new(), None);
        if let Some(anchors) = self.committees.all_anchors().get(&own) {
            if self.leads && !anchors.contains(&here) {
                let last = self.border.heard.unwrap_or(now);
                heard = Some(last);
                if late(last) {
                    silent.insert(own);
                }
            } else if let Some(leader) = self.leader.filter(|leader| !anchors.contains(leader))
                && anchors.contains(&here)
                && self.border.told.is_none_or(|told| now.0 >= told.0 + PULL_EVERY_MS)
            {
                self.border.told = Some(now);
                out.push(Output::Send { node: leader, group: own, message: PeerMessage::Serving { source: own } });
            }
        }
        self.border.heard = heard;
        let stand = self.stand();
        for group in self.committees.all_anchors().keys().copied().filter(|group| *group != own) {
            let asked = self.committees.anchors(group, own).is_some();
            if !asked || !stand.fetches(&self.config, &self.committees, group) {
                self.mailroom.forget_heard(group);
            } else if self.mailroom.heard(group).is_some_and(late) {
                silent.insert(group);
            }
        }
        for group in silent.difference(&self.border.silent) {
            out.push(Output::Alarm { cause: Cause::Anchors(*group), text: self.why_mail_waits(*group) });
        }
        for group in self.border.silent.difference(&silent) {
            out.push(Output::AlarmEnded(Cause::Anchors(*group)));
        }
        self.border.silent = silent;
    }

    fn why_mail_waits(&self, group: GroupId) -> String {
        let anchors = self.committees.all_anchors().get(&group).into_iter().flatten();
        let names = anchors.map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let whose = if group == self.config.group { "to it and from it" } else { "from it" };
        format!(
            "anchors_silent: no anchor of {group} is heard of (nodes {names}): mail {whose} waits, and nothing is lost; \
             its members can set others with 'channel anchors set'"
        )
    }
}

#[cfg(test)]
#[path = "border_tests.rs"]
mod tests;
