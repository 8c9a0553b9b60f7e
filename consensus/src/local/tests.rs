//! Random schedules: loss, repetition, reordering, crashes that lose unsynced writes.

use std::collections::BTreeMap;

use bytes::Bytes;
use ledger::ids::{NodeId, Tick};
use proptest::prelude::*;

use super::*;
use crate::port::{Committed, Payload, Timing};

struct World {
    random: u64,
    now: u64,
    replicas: Vec<LocalReplica>,
    disks: Vec<LocalDisk>,
    applied: Vec<u64>,
    network: Vec<(NodeId, NodeId, Msg)>,
    /// The one history: what any replica ever handed out, by index.
    history: BTreeMap<u64, Committed>,
    /// Leaders seen, by term.
    leaders: BTreeMap<u64, NodeId>,
    proposed: u64,
    rejected: u64,
    /// How many vote from the beginning.
    first: usize,
    /// Who lacks more than a leader's log can give, and that leader.
    lacking: Vec<(usize, usize)>,
    /// States that were handed over.
    installed: u64,
    /// Whether a log may lose its front when its replica starts again.
    purges: bool,
}

fn settings(id: usize, first: usize, seed: u64) -> LocalSettings {
    LocalSettings {
        id: NodeId(id as u32),
        voters: if id < first { (0..first as u32).map(NodeId).collect() } else { Vec::new() },
        timing: Timing { heartbeat_ms: 10, election_min_ms: 50, election_max_ms: 100 },
        seed,
    }
}

impl World {
    fn new(count: usize, seed: u64) -> Self {
        Self::with(count, count, seed)
    }

    /// So many replicas, of which the first ones vote from the beginning.
    fn with(count: usize, first: usize, seed: u64) -> Self {
        Self {
            random: seed,
            now: 0,
            replicas: (0..count)
                .map(|id| LocalReplica::new(settings(id, first, seed), LocalLog::default(), 0))
                .collect(),
            disks: vec![LocalDisk::default(); count],
            applied: vec![0; count],
            network: Vec::new(),
            history: BTreeMap::new(),
            leaders: BTreeMap::new(),
            proposed: 0,
            rejected: 0,
            first,
            lacking: Vec::new(),
            installed: 0,
            purges: false,
        }
    }

    /// A draw below `limit` (xorshift).
    fn draw(&mut self, limit: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.random >> 33) as usize) % limit.max(1)
    }

    fn step(&mut self, at: usize, input: Input) {
        let mut out = Vec::new();
        self.replicas[at].step(Tick(self.now), input, &mut out);
        for output in out {
            match output {
                Output::Send(to, message) => {
                    let bytes = borsh::to_vec(&message).unwrap();
                    assert_eq!(borsh::from_slice::<Msg>(&bytes).unwrap(), message);
                    self.network.push((NodeId(at as u32), to, message));
                }
                Output::Persist(persist) => self.disks[at].write(persist),
                Output::Committed(committed) => {
                    let index = committed.position.index;
                    assert_eq!(index, self.applied[at] + 1, "in order, without holes");
                    assert!(self.disks[at].durable().last_index() >= index, "applied but not durable");
                    self.applied[at] = index;
                    let known = self.history.entry(index).or_insert_with(|| committed.clone());
                    assert_eq!(*known, committed, "two histories at {index}");
                }
                Output::Role(role) => {
                    if role.leads {
                        let leader = self.leaders.entry(role.term).or_insert(NodeId(at as u32));
                        assert_eq!(*leader, NodeId(at as u32), "two leaders in term {}", role.term);
                    }
                }
                Output::Rejected(_) => self.rejected += 1,
                Output::Lacking(leader) => self.lacking.push((at, leader.0 as usize)),
            }
        }
    }

    fn sync(&mut self, at: usize, count: usize) {
        if let Some(upto) = self.disks[at].sync(count) {
            self.step(at, Input::Synced(upto));
        }
    }

    fn crash(&mut self, at: usize, seed: u64) {
        let keep = self.draw(self.disks[at].pending() + 1);
        let mut log = self.disks[at].crash(keep);
        // The host's state lost a tail too; it gets it again.
        let kept = self.draw(self.applied[at] as usize + 1) as u64;
        self.applied[at] = kept.max(log.base.index);
        if self.purges && self.draw(2) == 0 {
            log.purge(self.applied[at]);
            self.disks[at] = LocalDisk::new(log.clone());
        }
        self.replicas[at] = LocalReplica::new(settings(at, self.first, seed), log, self.applied[at]);
    }

    /// What stands behind an index that somebody has applied.
    fn base_at(&self, index: u64) -> Base {
        let before = self.history.range(..=index).rev();
        let voters = before.map(|(_, committed)| &committed.payload).find_map(|payload| match payload {
            Payload::Membership(voters) => Some(borsh::from_slice(voters).unwrap()),
            Payload::Blank | Payload::Batch(_) => None,
        });
        let first = || (0..self.first as u32).map(NodeId).collect();
        Base { index, term: self.history[&index].position.term, voters: voters.unwrap_or_else(first) }
    }

    /// Whoever lacks more than a leader can send gets the state of that leader.
    fn hand_over(&mut self, seed: u64) {
        for (at, from) in std::mem::take(&mut self.lacking) {
            let index = self.applied[from];
            if index <= self.applied[at] {
                continue;
            }
            self.disks[at].sync(usize::MAX);
            let log = self.disks[at].durable().behind(self.base_at(index));
            self.disks[at] = LocalDisk::new(log.clone());
            self.applied[at] = index;
            self.replicas[at] = LocalReplica::new(settings(at, self.first, seed), log, index);
            self.installed += 1;
        }
    }

    fn leader(&self) -> Option<usize> {
        self.replicas.iter().position(|replica| replica.role().leads)
    }

    /// A leader is asked to let somebody vote, or not to.
    fn change_members(&mut self) {
        let Some(leader) = self.leader() else { return };
        let one = NodeId(self.draw(self.replicas.len()) as u32);
        let mut voters = self.replicas[leader].role().voters;
        if voters.contains(&one) && voters.len() > 1 {
            voters.retain(|voter| *voter != one);
        } else if !voters.contains(&one) {
            voters.push(one);
        }
        self.step(leader, Input::Learners((0..self.replicas.len() as u32).map(NodeId).collect()));
        self.step(leader, Input::Voters(voters));
    }

    /// A leader is asked to let everybody vote, one after the other.
    fn admit_all(&mut self) {
        let Some(leader) = self.leader() else { return };
        let mut voters = self.replicas[leader].role().voters;
        let all = (0..self.replicas.len() as u32).map(NodeId);
        let missing = all.clone().find(|node| !voters.contains(node));
        self.step(leader, Input::Learners(all.collect()));
        if let Some(missing) = missing {
            voters.push(missing);
            self.step(leader, Input::Voters(voters));
        }
    }

    fn deliver(&mut self, which: usize) {
        let (from, to, message) = self.network.swap_remove(which);
        self.step(to.0 as usize, Input::Message(from, message));
    }

    fn chaos(&mut self, steps: usize, crashes: bool, seed: u64) {
        let count = self.replicas.len();
        for _ in 0..steps {
            let at = self.draw(count);
            match self.draw(20) {
                0..=3 => {
                    self.now += 5;
                    self.step(at, Input::Tick);
                }
                4..=5 => {
                    self.proposed += 1;
                    self.step(at, Input::Propose(Bytes::from(self.proposed.to_le_bytes().to_vec())));
                }
                6..=9 => {
                    let count = 1 + self.draw(4);
                    self.sync(at, count);
                }
                10 if !self.network.is_empty() => {
                    let lost = self.draw(self.network.len());
                    self.network.swap_remove(lost);
                }
                11 if !self.network.is_empty() => {
                    let again = self.draw(self.network.len());
                    let copy = self.network[again].clone();
                    self.network.push(copy);
                }
                12 if crashes && self.draw(10) == 0 => self.crash(at, seed),
                _ if !self.network.is_empty() => {
                    let which = self.draw(self.network.len());
                    self.deliver(which);
                }
                _ => {}
            }
        }
    }

    /// Everything works now: all replicas must reach one log with everything in it.
    fn heal(&mut self, seed: u64) {
        let marker = Bytes::from_static(b"healed");
        for _ in 0..2000 {
            self.now += 5;
            for at in 0..self.replicas.len() {
                self.step(at, Input::Tick);
                self.sync(at, usize::MAX);
            }
            for (from, to, message) in std::mem::take(&mut self.network) {
                self.step(to.0 as usize, Input::Message(from, message));
                self.sync(to.0 as usize, usize::MAX);
            }
            self.hand_over(seed);
            self.admit_all();
            let last = self.history.values().last();
            let healed = last.is_some_and(|last| last.payload == Payload::Batch(marker.clone()));
            let length = self.history.len() as u64;
            let everybody = |replica: &LocalReplica| replica.role().voters.len() == self.replicas.len();
            let admitted = self.replicas.iter().all(everybody);
            if healed && admitted && self.applied.iter().all(|applied| *applied == length) {
                return;
            }
            if let Some(leader) = self.leader().filter(|_| !healed) {
                self.step(leader, Input::Propose(marker.clone()));
            }
        }
        panic!("no progress after healing: {:?} of {}", self.applied, self.history.len());
    }
}

#[test]
fn a_single_replica_commits_after_its_sync_only() {
    let mut world = World::new(1, 1);
    world.now = 200;
    world.step(0, Input::Tick);
    world.now = 400;
    world.step(0, Input::Tick);
    world.sync(0, usize::MAX);
    world.sync(0, usize::MAX);
    assert!(world.replicas[0].role().leads);
    world.step(0, Input::Propose(Bytes::from_static(b"one")));
    assert_eq!(world.history.len(), 1, "the blank entry alone");
    world.sync(0, usize::MAX);
    assert_eq!(world.history[&2].payload, Payload::Batch(Bytes::from_static(b"one")));
}

#[test]
fn who_does_not_lead_rejects() {
    let mut world = World::new(3, 2);
    world.step(1, Input::Propose(Bytes::from_static(b"x")));
    assert_eq!(world.rejected, 1);
}

/// A replica that joins has nothing, and the leader has nothing before the entries that it kept.
#[test]
fn who_lacks_what_a_leader_dropped_takes_over_its_state() {
    let mut world = World::with(2, 1, 3);
    world.heal(3);
    assert_eq!(world.installed, 0, "the log had all");
    let (mut log, applied) = (world.disks[0].durable().clone(), world.applied[0]);
    log.purge(applied);
    assert_eq!((log.base.index, log.base.voters.len()), (applied, 2));
    world.disks[0] = LocalDisk::new(log.clone());
    world.replicas[0] = LocalReplica::new(settings(0, 1, 3), log, applied);
    (world.disks[1], world.applied[1]) = (LocalDisk::default(), 0);
    world.replicas[1] = LocalReplica::new(settings(1, 1, 3), LocalLog::default(), 0);
    world.heal(3);
    assert_eq!(world.installed, 1);
}

/// So a host does that goes over to another engine, and back.
#[test]
fn a_log_that_begins_anew_keeps_what_was_promised_and_no_entries() {
    let entry = |term| LocalEntry { term, leader: NodeId(0), batch: None, voters: None };
    let begin =
        |sequence, index, term| Persist { sequence, change: Change::Begin(Base { index, term, voters: Vec::new() }) };
    let mut disk = LocalDisk::default();
    disk.write(Persist { sequence: 1, change: Change::HardState { term: 3, voted_for: Some(NodeId(1)) } });
    let entries = vec![entry(1), entry(2), entry(3)];
    disk.write(Persist { sequence: 2, change: Change::Append { keep: 0, entries } });
    disk.write(begin(3, 2, 2));
    assert_eq!(disk.clone().crash(2).last_index(), 3, "what was not synced is not done");
    let log = disk.crash(3);
    assert_eq!((log.term, log.voted_for, log.entries.len()), (3, Some(NodeId(1)), 0));
    assert_eq!((log.last_index(), log.term_at(2)), (2, 2));
    disk.write(begin(4, 9, 5));
    let log = disk.crash(1);
    assert_eq!((log.term, log.voted_for, log.last_index()), (5, None, 9), "a vote of an earlier term says nothing");
}

/// Its log is newer than those of all others, who wait for it, and by its own it does not vote.
#[test]
fn who_takes_itself_out_and_is_alone_with_that_ends_it() {
    let mut world = World::new(2, 5);
    world.heal(5);
    let leader = world.leader().expect("it is healed");
    let left = vec![NodeId(1 - leader as u32)];
    world.step(leader, Input::Voters(left.clone()));
    world.sync(leader, usize::MAX);
    world.network.clear();
    let log = world.disks[leader].durable().clone();
    assert_eq!(log.entries.last().and_then(|entry| entry.voters.as_ref()), Some(&left));
    world.replicas[leader] = LocalReplica::new(settings(leader, 2, 5), log, world.applied[leader]);
    world.heal(5);
    let change = Payload::Membership(Bytes::from(borsh::to_vec(&left).unwrap()));
    assert!(world.history.values().any(|committed| committed.payload == change));
}

/// Whoever it leaves out may have been counted for what stands before it.
#[test]
fn voters_are_settled_once_their_change_is_applied() {
    let mut world = World::new(3, 5);
    world.heal(3);
    let leader = world.leader().expect("it is healed");
    assert!(world.replicas[leader].voters_settled(), "nobody has changed them");
    let stay: Vec<NodeId> = (0..3).filter(|id| *id != (leader + 1) % 3).map(|id| NodeId(id as u32)).collect();
    world.step(leader, Input::Voters(stay.clone()));
    assert_eq!(world.replicas[leader].role().voters, stay, "a leader counts by its log");
    assert!(!world.replicas[leader].voters_settled());
    world.sync(leader, usize::MAX);
    assert!(!world.replicas[leader].voters_settled(), "it is on its own disk alone");
    for _ in 0..20 {
        world.now += 5;
        world.step(leader, Input::Tick);
        for (from, to, message) in std::mem::take(&mut world.network) {
            world.step(to.0 as usize, Input::Message(from, message));
            world.sync(to.0 as usize, usize::MAX);
        }
    }
    assert!(world.replicas[leader].voters_settled(), "most of those who stay have it");
}

/// Paper §5.4.2, figure 8: an entry of an earlier term is committed with one of the own term only.
#[test]
fn an_old_entry_on_a_majority_is_not_committed_alone() {
    let entry = |term| LocalEntry { term, leader: NodeId(0), batch: Some(Bytes::from_static(b"old")), voters: None };
    let entries = vec![entry(1), entry(2)];
    let log = LocalLog { term: 2, voted_for: Some(NodeId(1)), entries, ..LocalLog::default() };
    let mut replica = LocalReplica::new(settings(0, 3, 1), log, 0);
    let mut step = |now, input| {
        let mut out = Vec::new();
        replica.step(Tick(now), input, &mut out);
        out.retain(|output| matches!(output, Output::Committed(_)));
        out.len()
    };
    let from = |message| Input::Message(NodeId(1), message);
    step(0, Input::Tick);
    step(200, Input::Tick);
    step(200, Input::Synced(1));
    step(200, from(Msg::VoteReply { term: 3, granted: true }));
    step(200, Input::Synced(2));
    let confirm = |index| from(Msg::AppendReply { term: 3, matched: true, index });
    assert_eq!(step(200, confirm(2)), 0, "on a majority, but of an earlier term");
    assert_eq!(step(200, confirm(3)), 3, "committed with the first entry of the own term");
}

#[test]
fn equal_seeds_give_equal_runs() {
    let run = |seed| {
        let mut world = World::new(3, seed);
        world.chaos(3000, true, seed);
        world.heal(seed);
        (world.history, world.leaders)
    };
    assert_eq!(run(7), run(7));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn one_history_and_progress(seed in any::<u64>(), size in 0_usize..3, crashes in any::<bool>()) {
        let mut world = World::new([2, 3, 5][size], seed);
        for _ in 0..3 {
            world.chaos(1500, crashes, seed);
            world.heal(seed);
            prop_assert!(!world.history.is_empty());
        }
    }

    #[test]
    fn one_history_while_replicas_join_and_leave(seed in any::<u64>(), first in 1_usize..4) {
        let mut world = World::with(5, first, seed);
        world.purges = true;
        for _ in 0..3 {
            for _ in 0..40 {
                world.chaos(50, true, seed);
                world.change_members();
                world.hand_over(seed);
            }
            world.heal(seed);
            prop_assert!(world.replicas.iter().all(|replica| replica.role().voters.len() == 5));
        }
    }
}
