//! The keys that a node signs with, on its disk and in memory, and what it does while one is being replaced.
//!
//! Mirrors production's `server/rotation.rs`, where there is one next key: a run is too short for one to be replaced that
//! groups still lack. Somebody puts the next key beside the one before, before the registry hears of it; the node takes it up
//! when the registry names it by that one, or when it starts; and once no committee names the key before, in the registry and
//! in every group here, and all that hands over is certified, the next key takes its place. What is written takes a while until
//! it is durable, and a crash before that may take it. Which key signs what the committees say, and who gets another one is
//! decided in `council::keys`.

use beacon::ClusterView;
use ledger::committee::Committee;
use ledger::crypto::{PublicKey, SecretKey};
use ledger::ids::NodeId;
use ledger::keys::NodeKeys;

use crate::checkers::Seen;
use crate::cluster::node_key;
use crate::node::Node;
use crate::replica::Effect;
use crate::sabotage::Sabotage;

/// Ticks until what is written is durable.
const WRITE_TICKS: u64 = 6;
/// Ticks between two looks at what the registry says of the node's key.
const LOOK_EVERY_TICKS: u64 = 5;

/// Something that is being written.
#[derive(Clone)]
enum Write {
    /// The next key, beside the one before.
    Next(SecretKey),
    /// The next key, in the place of the one before.
    Place,
}

/// The keys of one node.
pub(crate) struct KeyRing {
    /// What it signs with. Gone with the power.
    held: NodeKeys,
    /// The key on the disk, and the one beside it.
    file: SecretKey,
    next: Option<SecretKey>,
    /// What is being written, and at which tick it is durable.
    writing: Option<(Write, u64)>,
    /// Keys that have gone from the disk and were not told of yet.
    gone: Vec<PublicKey>,
}

impl KeyRing {
    /// The key that a node begins with.
    pub(crate) fn new(node: NodeId) -> Self {
        let file = node_key(node).clone();
        Self { held: NodeKeys::from(file.clone()), file, next: None, writing: None, gone: Vec::new() }
    }

    /// A handle to what the node signs with.
    pub(crate) fn held(&self) -> &NodeKeys {
        &self.held
    }

    /// Whether something is being written.
    pub(crate) fn writes(&self) -> bool {
        self.writing.is_some()
    }

    /// Whether a key lies beside the one before, or has taken its place, for good.
    pub(crate) fn has(&self, key: &PublicKey) -> bool {
        self.file.public() == *key || self.next.as_ref().is_some_and(|next| next.public() == *key)
    }

    /// Begins to put a key beside the one before, unless another one lies there.
    pub(crate) fn put_next(&mut self, key: SecretKey, now: u64) {
        if self.next.is_none() && self.writing.is_none() {
            self.writing = Some((Write::Next(key), now + WRITE_TICKS));
        }
    }

    /// Begins to put the next key in the place of the one before.
    fn put_in_place(&mut self, now: u64) {
        if self.next.is_some() && self.writing.is_none() {
            self.writing = Some((Write::Place, now + WRITE_TICKS));
        }
    }

    fn done(&mut self, write: Write) {
        match write {
            Write::Next(key) => self.next = Some(key),
            Write::Place => {
                if let Some(next) = self.next.take() {
                    self.gone.push(std::mem::replace(&mut self.file, next).public());
                }
            }
        }
    }

    /// Time has passed: what was written long enough ago is durable.
    fn settle(&mut self, now: u64) {
        if let Some((write, _)) = self.writing.take_if(|(_, at)| *at <= now) {
            let placed = matches!(write, Write::Place);
            self.done(write);
            if placed {
                self.held.keep(&self.file.public());
            }
        }
    }

    /// Takes up the next key, if it is this one.
    fn take_up(&self, key: &PublicKey) {
        if let Some(next) = self.next.as_ref().filter(|next| next.public() == *key) {
            self.held.add(next.clone());
        }
    }

    /// Loses power: what was being written is there, or not.
    pub(crate) fn crash(&mut self, kept: bool) {
        if let Some((write, _)) = self.writing.take()
            && kept
        {
            self.done(write);
        }
    }

    /// Starts with what the disk holds.
    pub(crate) fn start(&mut self) {
        self.held = NodeKeys::from(self.file.clone());
        self.next.iter().for_each(|next| self.held.add(next.clone()));
    }
}

/// The key by which a committee names a node.
fn named_in(committee: &Committee, node: NodeId) -> Option<PublicKey> {
    committee.index_of(node).map(|at| committee.members[at].key)
}

impl Node {
    /// Keys of nodes are replaced in this run.
    pub(crate) fn renews_keys(&mut self, renews: bool) {
        self.renews = renews;
    }

    /// The key that this node signs with what it tells the beacon: that of the registry, else one by which a committee in force
    /// names it, as far as it holds any of them.
    pub(crate) fn voice(&self) -> SecretKey {
        let view = self.registry.as_deref();
        let seats = view.into_iter().flat_map(|view| &view.committees);
        let named = seats.filter_map(|committee| named_in(committee, self.id));
        let known = view.into_iter().flat_map(|view| &view.nodes).filter(|info| info.id == self.id);
        let mut keys = known.map(|info| info.key).chain(named);
        keys.find_map(|key| self.keys.held().of(&key)).unwrap_or_else(|| self.keys.file.clone())
    }

    /// Keys that have gone from the disk since somebody asked last.
    pub(crate) fn keys_gone(&mut self) -> Vec<PublicKey> {
        std::mem::take(&mut self.keys.gone)
    }

    /// Does what the registry says of this node's own key.
    pub(crate) fn follow_keys(&mut self, out: &mut Vec<Effect>) {
        if !self.renews {
            return;
        }
        self.keys.settle(self.ticks);
        for key in self.keys_gone() {
            out.push(Effect::Saw(Seen::KeyGone { node: self.id, key }));
        }
        if !self.ticks.is_multiple_of(LOOK_EVERY_TICKS) || self.keys.writes() {
            return;
        }
        let Some(view) = self.registry.clone() else { return };
        let Some(registered) = view.nodes.iter().find(|info| info.id == self.id).map(|info| info.key) else { return };
        let held = self.keys.held().public();
        let committees = view.committees.iter().chain(&view.coming);
        let named: Vec<PublicKey> = committees.filter_map(|committee| named_in(committee, self.id)).collect();
        let missing = named.iter().chain([&registered]).find(|key| !held.contains(key)).copied();
        // The next one may be there before the registry has it.
        let last = held.len() > 1 && held.first() != Some(&registered) && held.contains(&registered);
        if let Some(missing) = missing {
            self.keys.take_up(&missing);
        } else if last && (self.sabotage == Some(Sabotage::KeyDroppedEarly) || self.is_last(&view, &named, &registered))
        {
            self.keys.put_in_place(self.ticks);
        }
    }

    /// Whether no group needs another key of this node than this one: neither the registry nor a group here names it by
    /// another one, and every group that the registry seats it in runs here.
    fn is_last(&self, view: &ClusterView, named: &[PublicKey], key: &PublicKey) -> bool {
        let mut seats = view.committees.iter().filter(|committee| committee.index_of(self.id).is_some());
        named.iter().all(|named| named == key)
            && seats.all(|committee| self.replicas.contains_key(&committee.group))
            && self.replicas.values().all(|replica| replica.has_taken(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::later_key;

    const NODE: NodeId = NodeId(3);

    fn public(number: usize) -> PublicKey {
        later_key(NODE, number).public()
    }

    #[test]
    fn the_next_key_is_there_once_it_is_durable_and_takes_the_place_of_the_one_before() {
        let mut keys = KeyRing::new(NODE);
        keys.put_next(later_key(NODE, 1).clone(), 10);
        keys.settle(9 + WRITE_TICKS);
        assert!(keys.writes() && !keys.has(&public(1)));
        keys.settle(10 + WRITE_TICKS);
        assert!(!keys.writes() && keys.has(&public(1)));
        assert_eq!(keys.held().public(), [public(0)], "nobody has asked for it");
        keys.put_next(later_key(NODE, 2).clone(), 20);
        assert!(!keys.writes(), "another one lies there");
        keys.take_up(&public(2));
        keys.take_up(&public(1));
        assert_eq!(keys.held().public(), [public(0), public(1)]);
        keys.put_in_place(30);
        keys.settle(30 + WRITE_TICKS);
        assert_eq!((keys.held().public(), keys.gone.clone()), (vec![public(1)], vec![public(0)]));
        assert!(keys.has(&public(1)) && !keys.has(&public(0)));
    }

    #[test]
    fn a_crash_takes_what_is_not_durable_and_nothing_else() {
        for kept in [false, true] {
            let mut keys = KeyRing::new(NODE);
            keys.put_next(later_key(NODE, 1).clone(), 0);
            keys.crash(kept);
            keys.start();
            assert_eq!(keys.held().public().len(), if kept { 2 } else { 1 });
            keys.put_next(later_key(NODE, 1).clone(), 0);
            keys.settle(WRITE_TICKS);
            keys.start();
            assert_eq!(keys.held().public(), [public(0), public(1)]);
            keys.put_in_place(0);
            keys.crash(kept);
            assert_eq!(keys.gone, if kept { vec![public(0)] } else { Vec::new() }, "it is told before it starts again");
            keys.start();
            let left = if kept { vec![public(1)] } else { vec![public(0), public(1)] };
            assert_eq!(keys.held().public(), left);
        }
    }
}
