//! Streams over a change of the layout: a group that goes by a layout has neither a stream to a shard that had ended with it nor
//! a cursor of one; whoever is told how far a stream was taken is told the truth; a shard begins without streams of its own,
//! and with every message that its parents had left; and in the end nothing waits in a stream that has ended.

use std::collections::{BTreeMap, BTreeSet};

use cross_shard::{ClosedStream, Message};
use ledger::ids::GroupId;
use ledger::layout::Layout;
use ledger::schema;

use super::{BlockSeen, BornSeen, Checker, Facts, Moment, RawReplica, Seen};
use crate::state;

/// What was taken so far, and who goes by which layout.
#[derive(Default)]
pub struct Streams {
    /// Destination, source.
    taken: BTreeMap<(GroupId, GroupId), u64>,
    /// The layout that a group goes by.
    versions: BTreeMap<GroupId, u64>,
}

/// Source and destination of a stream that has ended, by its key.
fn ends(key: &[u8]) -> Option<(GroupId, GroupId)> {
    let rest: [u8; 16] = key.strip_prefix(schema::CLOSED_PREFIX)?.try_into().ok()?;
    let number = |at: usize| u64::from_be_bytes(rest[at..at + 8].try_into().unwrap_or_default());
    Some((GroupId(number(0)), GroupId(number(8))))
}

impl Streams {
    fn block(&mut self, facts: &Facts, block: &BlockSeen, found: &mut Vec<String>) {
        let group = block.group;
        for (dest, _, message) in &block.mail {
            self.told(facts, block, *dest, message, found);
        }
        for leaf in &block.inbox {
            let taken = self.taken.entry((group, leaf.peer)).or_insert(0);
            *taken = leaf.next_seq.max(*taken);
        }
        if let Some(layout) = &block.layout {
            self.versions.insert(group, layout.version.0);
        }
        let version = self.versions.get(&group);
        let Some(layout) = version.and_then(|version| facts.lines.layouts().get(version)) else { return };
        let ended: BTreeSet<GroupId> = layout.lineage.iter().map(|ended| ended.group).collect();
        for leaf in block.inbox.iter().chain(&block.outbox) {
            if ended.contains(&leaf.peer) {
                let height = block.header.height;
                found.push(format!(
                    "{group} has a stream with {} at {height}, which had ended by its layout",
                    leaf.peer
                ));
            }
        }
    }

    /// Somebody tells how far a stream was taken.
    fn told(&self, facts: &Facts, block: &BlockSeen, dest: GroupId, message: &Message, found: &mut Vec<String>) {
        let taken = |of: GroupId, source: GroupId| self.taken.get(&(of, source)).copied().unwrap_or(0);
        match message {
            Message::Reshaped(reshaped) if block.group == GroupId::BEACON => {
                for ended in &reshaped.ended {
                    let own = taken(ended.group, dest);
                    // What one that has ended was told goes on to those that came from it.
                    let of_line = |((of, source), next): (&(GroupId, GroupId), &u64)| {
                        *of == ended.group && *next == ended.taken && facts.lines.descends(dest, *source)
                    };
                    if ended.taken != own && !self.taken.iter().any(of_line) {
                        found.push(format!(
                            "{dest} is told that {} took {} of its messages; it took {own}",
                            ended.group, ended.taken
                        ));
                    }
                }
            }
            Message::Closed(closed) => {
                let there = taken(closed.dest, closed.source);
                let in_this = block.inbox.iter().find(|leaf| leaf.peer == closed.source).map(|leaf| leaf.next_seq);
                if closed.dest == block.group && in_this.is_none() && closed.taken < there {
                    found.push(format!(
                        "{} says that it took {} messages of {}; it took {there}",
                        closed.dest, closed.taken, closed.source
                    ));
                }
                if !facts.lines.descends(block.group, closed.dest) || !facts.lines.retired(closed.source) {
                    found.push(format!(
                        "{} speaks of the stream from {} to {}, which is not its own, or goes on",
                        block.group, closed.source, closed.dest
                    ));
                }
            }
            _ => {}
        }
    }

    fn born(&mut self, born: &BornSeen, found: &mut Vec<String>) -> Result<(), String> {
        let (group, node) = (born.header.group, born.node);
        let keys: BTreeSet<&[u8]> = born.pairs.iter().map(|(key, _)| &key[..]).collect();
        let own = |key: &&[u8]| key.starts_with(schema::INBOX_PREFIX) || key.starts_with(schema::OUTBOX_PREFIX);
        if keys.iter().any(own) {
            found.push(format!("{group} begins on node {node} with streams that are not its own"));
        }
        let mut kept = 0;
        for (key, value) in &born.pairs {
            if **key == schema::layout()[..] {
                let layout: Layout = borsh::from_slice(value).map_err(|error| error.to_string())?;
                self.versions.entry(group).or_insert(layout.version.0);
            }
            let Some((source, dest)) = ends(key) else { continue };
            let closed: ClosedStream = borsh::from_slice(value).map_err(|error| error.to_string())?;
            for seq in closed.kept..closed.next_seq {
                let message = schema::closed_mail(source, dest, seq);
                match keys.contains(&message[..]) {
                    true => kept += 1,
                    // Of what two that were joined had sent each other a half may have taken its share already.
                    false if closed.taken.is_some() => {}
                    false => found
                        .push(format!("{group} begins on node {node} without message {seq} from {source} to {dest}")),
                }
            }
        }
        let there = keys.iter().filter(|key| key.first() == Some(&schema::CLOSED_MAIL)).count();
        if there != kept {
            found.push(format!("{group} begins on node {node} with {there} messages, and speaks of {kept}"));
        }
        Ok(())
    }

    fn at_rest(replica: &RawReplica<'_>, found: &mut Vec<String>) -> Result<(), String> {
        let (node, group) = (replica.node, replica.group);
        for (key, value) in state::scan(replica.kv, schema::CLOSED_PREFIX) {
            let Some((source, dest)) = ends(&key) else { continue };
            let closed: ClosedStream = borsh::from_slice(&value).map_err(|error| error.to_string())?;
            if closed.taken.is_none() || closed.kept != closed.next_seq {
                found.push(format!("on node {node} {group} never heard the end of the stream from {source} to {dest}"));
            }
        }
        let left = state::scan(replica.kv, &[schema::CLOSED_MAIL]).len();
        if left > 0 {
            found.push(format!("on node {node} {group} has {left} messages of streams that have ended"));
        }
        Ok(())
    }
}

impl Checker for Streams {
    fn name(&self) -> &'static str {
        "streams"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen, first: bool, found: &mut Vec<String>) {
        match seen {
            Seen::Block(block) if first => self.block(facts, block, found),
            Seen::Born(born) => {
                if let Err(why) = self.born(born, found) {
                    found.push(why);
                }
            }
            _ => {}
        }
    }

    fn audit(&mut self, _: &Facts, moment: Moment, replicas: &[RawReplica<'_>], found: &mut Vec<String>) {
        if moment != Moment::End {
            return;
        }
        for replica in replicas {
            if let Err(why) = Self::at_rest(replica, found) {
                found.push(why);
            }
        }
    }
}
