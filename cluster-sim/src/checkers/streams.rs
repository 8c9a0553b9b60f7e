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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use consensus::local::LocalLog;
    use cross_shard::closed::{CLOSED_STREAM_VERSION, CLOSED_VERSION, RESHAPED_VERSION};
    use cross_shard::{Closed, Ended, Reshaped, StreamLeaf};
    use ledger::ids::{JobId, NodeId};
    use storage::kv::{Kv, WriteBatch};
    use storage::mem::MemKv;

    use super::super::trial::{self, block, header, leaf};
    use super::*;

    const fn shard(ordinal: u32) -> GroupId {
        GroupId::shard(ordinal)
    }

    /// Of two shards the second one was cut.
    fn cut() -> Layout {
        Layout::even(2).split(shard(1), [shard(2), shard(3)]).expect("it can be cut")
    }

    fn after_the_cut() -> Facts {
        let mut facts = trial::facts(Layout::even(2));
        facts.lines.learn(&cut());
        facts
    }

    fn found(streams: &mut Streams, facts: &Facts, block: BlockSeen) -> Vec<String> {
        let mut found = Vec::new();
        streams.see(facts, &Seen::Block(Box::new(block)), true, &mut found);
        found
    }

    /// The stream from the shard that was cut to the other one.
    fn closed(kept: u64, next_seq: u64, taken: Option<u64>) -> (Bytes, Bytes) {
        let version = CLOSED_STREAM_VERSION;
        let closed = ClosedStream { version, kept, next_seq, taken, whole: true, passed: Vec::new() };
        let key = schema::closed(shard(1), shard(0));
        (key.into(), borsh::to_vec(&closed).expect("it is plain data").into())
    }

    fn message(seq: u64) -> (Bytes, Bytes) {
        (schema::closed_mail(shard(1), shard(0), seq).into(), Bytes::new())
    }

    #[test]
    fn a_stream_to_a_shard_that_has_ended_and_a_cursor_of_one_are_found() {
        let facts = after_the_cut();
        let of = |layout: Option<Layout>, inbox: &[u32], outbox: &[u32]| {
            let leaves =
                |peers: &[u32]| -> Vec<StreamLeaf> { peers.iter().map(|peer| leaf(shard(*peer), 4)).collect() };
            let seen = BlockSeen { layout, inbox: leaves(inbox), outbox: leaves(outbox), ..block(shard(0), 1) };
            found(&mut Streams::default(), &facts, seen)
        };
        assert_eq!(of(Some(cut()), &[2], &[3]), Vec::<String>::new());
        for (inbox, outbox) in [([1], [3]), ([2], [1])] {
            let found = of(Some(cut()), &inbox, &outbox);
            assert!(matches!(&found[..], [one] if one.contains("which had ended by its layout")), "{found:?}");
        }
        // A group that has not heard of the layout goes by the one before.
        assert_eq!(of(None, &[1], &[1]), Vec::<String>::new());
    }

    #[test]
    fn who_is_told_by_the_beacon_how_far_a_stream_was_taken_is_told_the_truth() {
        let facts = after_the_cut();
        for (taken, wrong) in [(7, 0), (6, 1), (8, 1)] {
            let mut streams = Streams::default();
            let last = BlockSeen { inbox: vec![leaf(shard(0), 7)], ..block(shard(1), 5) };
            assert_eq!(found(&mut streams, &facts, last), Vec::<String>::new());
            let reshaped = Reshaped {
                version: RESHAPED_VERSION,
                job: JobId(1),
                layout: cut(),
                committees: Vec::new(),
                ended: vec![Ended { group: shard(1), taken }],
            };
            let mail = vec![(shard(0), 0, Message::Reshaped(reshaped))];
            let told = found(&mut streams, &facts, BlockSeen { mail, ..block(GroupId::BEACON, 3) });
            assert_eq!(told.len(), wrong, "{taken}: {told:?}");
        }
    }

    #[test]
    fn who_took_a_stream_says_how_far_and_speaks_of_no_other() {
        let facts = after_the_cut();
        let says = |by: GroupId, source: GroupId, taken: u64| {
            let mut streams = Streams::default();
            let before = BlockSeen { inbox: vec![leaf(shard(1), 7)], ..block(shard(0), 1) };
            assert_eq!(found(&mut streams, &facts, before), Vec::<String>::new());
            let closed = Closed { version: CLOSED_VERSION, source, dest: shard(0), taken };
            let mail = vec![(shard(2), 0, Message::Closed(closed))];
            found(&mut streams, &facts, BlockSeen { mail, ..block(by, 2) })
        };
        assert_eq!(says(shard(0), shard(1), 7), Vec::<String>::new());
        for (by, source, taken, what) in [
            (shard(0), shard(1), 6, "says that it took 6 messages"),
            // It did not take that stream.
            (shard(2), shard(1), 7, "which is not its own, or goes on"),
            // That one lives.
            (shard(0), shard(2), 0, "which is not its own, or goes on"),
        ] {
            let found = says(by, source, taken);
            assert!(matches!(&found[..], [one] if one.contains(what)), "{what}: {found:?}");
        }
    }

    #[test]
    fn a_shard_begins_with_all_that_was_left_and_with_nothing_else() {
        let facts = after_the_cut();
        let waits = closed(3, 5, None);
        for (pairs, what) in [
            (vec![waits.clone(), message(3), message(4)], None),
            // Of what two that were joined had sent each other.
            (vec![closed(3, 5, Some(3)), message(4)], None),
            (vec![waits.clone(), message(3)], Some("without message 4")),
            (vec![waits.clone(), message(3), message(4), message(5)], Some("with 3 messages, and speaks of 2")),
            (vec![(schema::inbox(shard(0)).into(), Bytes::new())], Some("streams that are not its own")),
            (vec![(schema::outbox(shard(0)).into(), Bytes::new())], Some("streams that are not its own")),
        ] {
            let born = BornSeen { node: NodeId(0), header: header(shard(2), 6), pairs, parents: Vec::new() };
            let mut found = Vec::new();
            Streams::default().see(&facts, &Seen::Born(Box::new(born)), true, &mut found);
            match what {
                None => assert!(found.is_empty(), "{found:?}"),
                Some(what) => assert!(matches!(&found[..], [one] if one.contains(what)), "{what}: {found:?}"),
            }
        }
    }

    #[test]
    fn nothing_waits_in_the_end_in_a_stream_that_has_ended() {
        let facts = after_the_cut();
        let at = |moment: Moment, pairs: Vec<(Bytes, Bytes)>| {
            let (kv, mut batch) = (MemKv::new(), WriteBatch::new());
            pairs.into_iter().for_each(|(key, value)| batch.put(key, value));
            kv.write(batch).expect("memory takes it");
            let log = LocalLog::default();
            let replica = RawReplica { node: NodeId(0), group: shard(2), kv: &kv, log: &log, wal: None };
            let mut found = Vec::new();
            Streams::default().audit(&facts, moment, &[replica], &mut found);
            found.len()
        };
        assert_eq!(at(Moment::End, vec![closed(5, 5, Some(4))]), 0);
        assert_eq!(at(Moment::End, vec![closed(5, 5, None)]), 1, "nobody has said how far it was taken");
        assert_eq!(at(Moment::End, vec![closed(3, 5, Some(3))]), 1, "not all was passed on");
        assert_eq!(at(Moment::End, vec![closed(5, 5, Some(4)), message(4)]), 1, "a message was left");
        assert_eq!(at(Moment::Passing, vec![closed(3, 5, None), message(3), message(4)]), 0, "it is on its way");
    }
}
