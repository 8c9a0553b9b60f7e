//! The governance of channels: a change is in force only if those whom its policy asks have approved
//! it, by signed commands that this checker counts itself, under keys that counted at the time; what an
//! organisation sends after it was excluded, or under a key that was revoked, does nothing; what the
//! disks say of members, keys, policies, phase and the blocks in which memberships have ended follows from the commands and
//! the beacon's mail alone;
//! and in the end the beacon's directory says of each channel what is so there.

mod book;

use std::collections::{BTreeMap, BTreeSet};

use beacon::channels::{ChannelEntry, channel_key};
use channel::state;
use channel::{Charter, Phase, PromiseStanding, state::MemberRecord};
use cross_shard::notice::CHANNEL_UPDATE_VERSION;
use cross_shard::{ChannelStatus, ChannelUpdate};
use ledger::ids::{GroupId, GroupKind, NodeId, OrgId};
use ledger::schema;
use ledger::view::View;
use shard_node::core::applied::AppliedRecord;

use self::book::{Book, Member};
use super::{BlockSeen, Checker, Facts, Governed, Moment, RawReplica, Seen};
use crate::state::{KvState, load};

/// The books of all channels.
#[derive(Default)]
pub struct Policies {
    books: BTreeMap<GroupId, Book>,
}

fn on_disk(record: MemberRecord) -> (OrgId, Member) {
    let member = Member {
        keys: record.keys.iter().map(|key| (key.key, key.role)).collect(),
        nodes: record.nodes.iter().map(|node| node.node).collect(),
        anchors: record.anchors.into_iter().collect(),
    };
    (record.org, member)
}

impl Policies {
    fn block(&mut self, facts: &Facts, block: &BlockSeen, found: &mut Vec<String>) {
        let book = self.books.entry(block.group).or_insert_with(|| Book::new(facts, block.group));
        book.height = block.header.height.0;
        for governed in &block.governed {
            match governed {
                Governed::Told(seq, update) => book.told(*seq, update),
                Governed::Act(_, None) | Governed::Planned(..) | Governed::Seated(..) | Governed::Registered(_) => {}
                Governed::Act(signed, Some(outcome)) => {
                    if let Err(why) = book.act(signed, *outcome, block.header.time_ms) {
                        let (group, height) = (block.group, block.header.height);
                        found.push(format!("{group} carried out a command of {} at {height}: {why}", signed.org));
                    }
                }
            }
        }
    }

    fn compare(&self, facts: &Facts, replica: &RawReplica<'_>, found: &mut Vec<String>) -> Result<(), String> {
        let Some(book) = self.books.get(&replica.group) else { return Ok(()) };
        let applied: AppliedRecord = load(replica.kv, &schema::applied())?;
        if applied.height.0 != book.height {
            return Ok(());
        }
        let group = replica.group;
        let reader = KvState { kv: replica.kv, hide_receipts: false };
        let mut view = View::new(&reader);
        let members: BTreeMap<OrgId, Member> = state::members(&mut view).into_iter().map(on_disk).collect();
        let phase = state::channel(&mut view).map(|channel| channel.phase);
        if members != book.members || phase != Some(book.phase) {
            let expected = (&book.members, book.phase);
            found.push(format!("{group} has {members:?} and is {phase:?}, not {expected:?}"));
        }
        for (subject, policy) in &book.policies {
            let there = state::policy(&mut view, *subject);
            if there.as_ref() != Some(policy) {
                found.push(format!("the policy of {subject:?} in {group} is {there:?}, not {policy}"));
            }
        }
        let waits = state::promise(&mut view).filter(|record| record.standing == PromiseStanding::Waits);
        let waits = waits.map(|record| record.hash);
        if waits != book.promised {
            found.push(format!("{group} waits for the opening of {waits:?}, not of {:?}", book.promised));
        }
        // A removal is final at its block: what proves it stands there for good, for this block and for no other one.
        for org in facts.genesis.orgs.iter().map(|org| org.id) {
            let there: Vec<u64> = state::exclusions(&mut view, org).iter().map(|ended| ended.height.0).collect();
            let expected = book.ended.get(&org).cloned().unwrap_or_default();
            if there != expected {
                found.push(format!("{group} has it that {org} went at {there:?}, not at {expected:?}"));
            }
        }
        for (org, credential) in &book.revoked {
            if state::revocation(&mut view, *org, credential).is_none() {
                found.push(format!("{group} has forgotten that {credential} of {org} was revoked"));
            }
        }
        Ok(())
    }

    /// What a channel has to look like from the beacon.
    fn shown(book: &Book) -> ChannelUpdate {
        let all = |of: &dyn Fn(&Member) -> &BTreeSet<NodeId>| {
            book.members.values().flat_map(of).copied().collect::<BTreeSet<_>>().into_iter().collect()
        };
        ChannelUpdate {
            version: CHANNEL_UPDATE_VERSION,
            members: book.members.keys().copied().collect(),
            nodes: all(&|member| &member.nodes),
            anchors: all(&|member| &member.anchors),
            status: match book.phase {
                Phase::Frozen => ChannelStatus::Frozen,
                Phase::Closing => ChannelStatus::Closing,
                Phase::Closed => ChannelStatus::Closed,
                Phase::Proposed | Phase::Approved | Phase::Running | Phase::Abandoned => ChannelStatus::Running,
            },
            engine: book.engine,
        }
    }

    fn directory(&self, beacon: &RawReplica<'_>, found: &mut Vec<String>) {
        for (group, book) in &self.books {
            let entry = load::<ChannelEntry>(beacon.kv, &channel_key(*group)).map(|entry| entry.shown);
            let expected = Self::shown(book);
            if entry.as_ref() != Ok(&expected) {
                found
                    .push(format!("on node {} the directory says {entry:?} of {group}, not {expected:?}", beacon.node));
            }
        }
    }
}

impl Checker for Policies {
    fn name(&self) -> &'static str {
        "policies"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        match seen {
            Seen::Block(block) if first && block.group.kind() == Some(GroupKind::Channel) => {
                self.block(facts, block, found);
            }
            Seen::Founded(foundation) => match borsh::from_slice::<Charter>(&foundation.charter) {
                Ok(charter) => {
                    self.books.entry(foundation.group).or_insert_with(|| Book::of(&charter));
                }
                Err(error) => found.push(format!("the charter of {} does not decode: {error}", foundation.group)),
            },
            _ => {}
        }
    }

    fn audit(&mut self, facts: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        for replica in replicas {
            match replica.group.kind() {
                Some(GroupKind::Channel) => {
                    if let Err(error) = self.compare(facts, replica, found) {
                        found.push(error);
                    }
                }
                // All mail has been taken by then.
                Some(GroupKind::Beacon) if moment == Moment::End => self.directory(replica, found),
                _ => {}
            }
        }
    }
}
