//! Removal is final at its block: whoever has the block of a founded channel in which a membership ends gives nothing
//! that comes after to a node of that organisation, unless it has joined again: no entry of the log, no state, no
//! signature under a later block and no certificate of one. Where the engine still counts such a node does not matter.
//! Where the channel has money, no such replica takes a transaction from a client of an organisation that is no member, or is
//! none any more.
//!
//! When memberships begin and end it works out from the commands that were carried out. Mail is not meant: it goes to
//! the group that it is for, on whatever node that is led.

use std::collections::{BTreeMap, BTreeSet};

use channel::{Change, Command, Outcome, ProposalState, SignedCommand};
use ledger::hash::Hash32;
use ledger::ids::{GroupId, NodeId, OrgId};

use super::{BlockSeen, Checker, Facts, Given, Governed, Moment, RawReplica, Seen};
use crate::cluster::node_info;

/// One channel.
#[derive(Default)]
struct Channel {
    /// Who was a member from the beginning.
    founders: BTreeSet<OrgId>,
    /// Commands that were carried out; sent again they do nothing.
    done: BTreeSet<Hash32>,
    /// Proposals that remove somebody.
    removals: BTreeMap<Hash32, OrgId>,
    /// The blocks in which memberships have ended (`false`) and begun again (`true`), in order.
    turns: BTreeMap<OrgId, Vec<(u64, bool)>>,
}

impl Channel {
    fn act(&mut self, signed: &SignedCommand, outcome: Outcome, height: u64) -> Result<(), String> {
        if !self.done.insert(signed.digest()) {
            return Ok(());
        }
        let act: Command = borsh::from_slice(&signed.body).map_err(|error| error.to_string())?;
        if let (Command::Propose { change: Change::Remove { org }, .. }, Outcome::Proposal { id, .. }) = (&act, outcome)
        {
            self.removals.insert(id, *org);
        }
        let turn = match (act, outcome) {
            (Command::Leave, _) => Some((signed.org, false)),
            (Command::Join { .. }, _) => Some((signed.org, true)),
            (_, Outcome::Proposal { id, state: ProposalState::Applied }) => {
                self.removals.remove(&id).map(|org| (org, false))
            }
            _ => None,
        };
        if let Some((org, member)) = turn {
            self.turns.entry(org).or_default().push((height, member));
        }
        Ok(())
    }

    /// Whether an organisation is a member, as of a height.
    fn has(&self, org: OrgId, height: u64) -> bool {
        let turns = self.turns.get(&org).map_or(&[][..], Vec::as_slice);
        let last = turns.iter().rev().find(|(at, _)| *at <= height);
        last.map_or_else(|| self.founders.contains(&org), |(_, member)| *member)
    }

    /// The block in which an organisation's membership has ended, as of a height.
    fn ended(&self, org: OrgId, height: u64) -> Option<u64> {
        let turns = self.turns.get(&org)?.iter().rev();
        let (since, member) = turns.copied().find(|(at, _)| *at <= height)?;
        (!member).then_some(since)
    }
}

/// Who is out of which channel, and how far replicas are.
#[derive(Default)]
pub struct Removal {
    channels: BTreeMap<GroupId, Channel>,
    heights: BTreeMap<(GroupId, NodeId), u64>,
}

impl Removal {
    fn block(&mut self, block: &BlockSeen, first: bool, found: &mut Vec<String>) {
        let Some(channel) = self.channels.get_mut(&block.group) else { return };
        let height = block.header.height.0;
        for governed in block.governed.iter().filter(|_| first) {
            if let Governed::Act(signed, Some(outcome)) = governed
                && let Err(why) = channel.act(signed, *outcome, height)
            {
                found.push(format!("a command that {} carried out at {height} does not decode: {why}", block.group));
            }
        }
        self.heights.insert((block.group, block.node), height);
    }

    /// A replica has taken a client's transaction.
    fn admitted(&self, group: GroupId, node: NodeId, org: OrgId) -> Option<String> {
        let (channel, height) = (self.channels.get(&group)?, *self.heights.get(&(group, node))?);
        let outside = !channel.has(org, height);
        outside
            .then(|| format!("node {node} took a transaction to {group} at {height} from a client of {org}, no member"))
    }

    fn given(&self, group: GroupId, ways: (NodeId, NodeId), what: Given) -> Option<String> {
        let (node, to) = ways;
        let (channel, height) = (self.channels.get(&group)?, *self.heights.get(&(group, node))?);
        // Also of a node that the genesis did not have: whose it is never changes.
        let org = node_info(to.0).org;
        let since = channel.ended(org, height)?;
        let late = match what {
            Given::Entries | Given::State => true,
            Given::Signed(of) => of.0 > since,
        };
        late.then(|| {
            format!(
                "node {node} gave {what:?} of {group} to node {to} of {org}, out since {since}, as it knew at {height}"
            )
        })
    }
}

impl Checker for Removal {
    fn name(&self) -> &'static str {
        "removal"
    }

    fn see(&mut self, _: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        match seen {
            Seen::Founded(foundation) => {
                let channel = self.channels.entry(foundation.group).or_default();
                channel.founders.extend(&foundation.members);
            }
            Seen::Block(block) => self.block(block, first, found),
            Seen::Started { node, group, height } | Seen::Fetched { node, group, height, .. } => {
                self.heights.insert((*group, *node), height.0);
            }
            Seen::Left { node, group, .. } => {
                self.heights.remove(&(*group, *node));
            }
            Seen::Admitted { node, group, org, .. } => found.extend(self.admitted(*group, *node, *org)),
            Seen::Given { node, to, group, what } => found.extend(self.given(*group, (*node, *to), *what)),
            _ => {}
        }
    }

    fn audit(&mut self, _: &Facts, _: Moment, _: &[RawReplica<'_>], _: &mut Vec<String>) {}
}

#[cfg(test)]
mod tests {
    use ledger::ids::Height;

    use super::*;

    #[test]
    fn who_is_out_is_given_nothing_of_later_on_any_of_its_nodes() {
        let group = GroupId::channel(0);
        // The organisation of nodes 2, 5, 8, … goes at height 4, and comes back at height 9.
        let turns = BTreeMap::from([(OrgId(2), vec![(4, false), (9, true)])]);
        let channels = BTreeMap::from([(group, Channel { turns, ..Channel::default() })]);
        for (what, height, to, given, late) in [
            ("before it goes", 3, 2, Given::State, false),
            ("when it has gone", 4, 2, Given::State, true),
            ("to a node that was registered later", 4, 8, Given::Entries, true),
            ("to another one's", 4, 1, Given::Entries, false),
            ("a signature of when it went", 7, 5, Given::Signed(Height(4)), false),
            ("a signature of later", 7, 5, Given::Signed(Height(5)), true),
            ("when it is back", 9, 5, Given::State, false),
        ] {
            let heights = BTreeMap::from([((group, NodeId(0)), height)]);
            let checker = Removal { channels: BTreeMap::new(), heights };
            assert!(checker.given(group, (NodeId(0), NodeId(to)), given).is_none(), "{what}: of no channel");
            let checker = Removal { channels: copied(&channels), ..checker };
            assert_eq!(checker.given(group, (NodeId(0), NodeId(to)), given).is_some(), late, "{what}");
        }
    }

    #[test]
    fn who_is_no_member_hands_nothing_over() {
        let (group, elsewhere) = (GroupId::channel(0), GroupId::channel(1));
        // One of the two that have founded it goes at height 4; another one joins at height 6, goes, and comes back.
        let turns = BTreeMap::from([(OrgId(1), vec![(4, false)]), (OrgId(2), vec![(6, true), (8, false), (11, true)])]);
        let founders = BTreeSet::from([OrgId(0), OrgId(1)]);
        let channels = BTreeMap::from([(group, Channel { founders, turns, ..Channel::default() })]);
        for (org, height, member) in [
            (0, 3, true),
            (0, 20, true),
            (1, 3, true),
            (1, 4, false),
            (1, 20, false),
            (2, 5, false),
            (2, 7, true),
            (2, 8, false),
            (2, 12, true),
            (3, 7, false),
        ] {
            let heights = BTreeMap::from([((group, NodeId(0)), height), ((elsewhere, NodeId(0)), height)]);
            let checker = Removal { channels: copied(&channels), heights };
            assert_eq!(checker.admitted(group, NodeId(0), OrgId(org)).is_none(), member, "{org} at {height}");
            assert!(checker.admitted(elsewhere, NodeId(0), OrgId(org)).is_none(), "members stay there");
        }
    }

    fn copied(channels: &BTreeMap<GroupId, Channel>) -> BTreeMap<GroupId, Channel> {
        let copy = |channel: &Channel| Channel {
            founders: channel.founders.clone(),
            turns: channel.turns.clone(),
            ..Channel::default()
        };
        channels.iter().map(|(group, channel)| (*group, copy(channel))).collect()
    }
}
