//! Faults as they happen: power, cuts, stalls, clocks, disks; and their end.

use std::collections::BTreeSet;

use ledger::committee::Committee;
use ledger::ids::{GroupId, NodeId};
use ledger::view::View;
use rand::Rng;

use shard_node::core::driver;
use shard_node::core::peer::PeerMessage;

use crate::checkers::{Moment, Seen};
use crate::ending::Phase;
use crate::event::Event;
use crate::forgery;
use crate::network::Cut;
use crate::node::Node;
use crate::replica::Replica;
use crate::schedule::{AnchorFault, Direction, Fault, Scenario, Victim};
use crate::state::KvState;
use crate::wire::{Endpoint, Wire};
use crate::world::{FLUSH_MS_MAX, FLUSH_MS_MIN, POLL_MS, World};

/// How long a crash that wants to meet a write waits for one.
const AMBUSH_MS_MAX: u32 = 300;

impl World {
    pub(crate) fn restart(&mut self, id: NodeId) {
        if self.absent() == Some(id) {
            return;
        }
        let clock_ms = self.clock_ms();
        let Some(node) = self.nodes.get_mut(&id).filter(|node| !node.up) else { return };
        let mut effects = Vec::new();
        node.start(clock_ms, &mut self.rng, &mut effects);
        let (boot, groups): (u64, Vec<GroupId>) = (node.boot, node.replicas.keys().copied().collect());
        self.note(|| format!("n{id} starts"));
        for group in groups {
            let delay = self.rng.random_range(FLUSH_MS_MIN..FLUSH_MS_MAX);
            self.push(delay, Event::Flush { node: id, group, boot });
        }
        self.carry_out(id, boot, effects);
    }

    pub(crate) fn crash(&mut self, id: NodeId, down_ms: u64) {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.up) else { return };
        let cut = node.replicas.values().filter(|replica| replica.fetches()).count();
        let (log, state) = node.crash(&mut self.rng);
        let keys_gone = node.keys_gone();
        self.coverage.fetches_cut += cut as u64;
        self.stalled.remove(&id);
        self.coverage.crashes += 1;
        self.coverage.lost_log_writes += log as u64;
        self.coverage.lost_state_batches += state as u64;
        self.note(|| format!("n{id} loses power, {log} log writes and {state} batches"));
        self.push(down_ms, Event::Restart { node: id });
        // It was gone with the power, and not when the node is told to run again.
        for key in keys_gone {
            self.saw(&Seen::KeyGone { node: id, key });
        }
        self.audit(Moment::Crash);
    }

    /// A node has begun to fetch a state from another one: where power fails, it may fail one of them now.
    pub(crate) fn endanger(&mut self, node: NodeId, source: NodeId) {
        let deadly = matches!(
            self.schedule.scenario,
            Scenario::Crashes | Scenario::Leaders | Scenario::Disks | Scenario::Beacon | Scenario::Storm
        );
        if deadly && self.phase == Phase::Faults && self.rng.random_range(0..4) > 0 {
            let victim = if self.rng.random() { node } else { source };
            let (delay_ms, down_ms) = (self.rng.random_range(0..40), self.rng.random_range(60..700));
            self.push(delay_ms, Event::Cut { node: victim, down_ms });
        }
    }

    /// A node that fetches a state, gives one, or goes over to another engine loses power.
    pub(crate) fn cut(&mut self, node: NodeId, down_ms: u64) {
        if self.phase == Phase::Faults && self.nodes.get(&node).is_some_and(|node| node.up) {
            self.faults += 1;
            self.crash(node, down_ms);
        }
    }

    pub(crate) fn resolve(&self, victim: Victim) -> NodeId {
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        let at = |number: u32| nodes[number as usize % nodes.len()];
        match victim {
            Victim::Node(number) => at(number),
            Victim::LeaderOf(number) => {
                let groups = self.genesis.committees.iter().map(|committee| committee.group);
                let groups: Vec<GroupId> = groups.chain(self.founding).chain(self.born.keys().copied()).collect();
                let group = groups[number as usize % groups.len()];
                let leads = |node: &&Node| node.replicas.get(&group).is_some_and(Replica::leads);
                self.nodes.values().find(leads).map_or_else(|| at(number), |node| node.id)
            }
        }
    }

    /// Whether a fault that waits for its moment has to wait on.
    pub(crate) fn ambush(&self, fault: &Fault, tries: u32) -> bool {
        let Fault::CrashWriting(victim, _) = fault else { return false };
        let Some(node) = self.nodes.get(&self.resolve(*victim)) else { return false };
        let writing = node.replicas.values().any(|replica| replica.pending() > 0);
        !writing && tries < AMBUSH_MS_MAX
    }

    pub(crate) fn fault(&mut self, index: usize, tries: u32) {
        if self.phase != Phase::Faults {
            return;
        }
        let fault = self.schedule.faults[index].1.clone();
        if self.ambush(&fault, tries) {
            return self.push(1, Event::Fault { index, tries: tries + 1 });
        }
        self.faults += 1;
        self.note(|| format!("fault: {fault:?}"));
        match fault {
            Fault::Crash(victim, ms) | Fault::CrashWriting(victim, ms) => self.crash(self.resolve(victim), ms),
            Fault::PowerCut(ms) => {
                let all: Vec<NodeId> = self.nodes.keys().copied().collect();
                for node in all {
                    let up_after = ms + self.rng.random_range(0..200);
                    self.crash(node, up_after);
                }
            }
            Fault::Isolate(victim, direction, ms) => {
                let one = BTreeSet::from([self.resolve(victim)]);
                let others = self.nodes.keys().copied().filter(|node| !one.contains(node)).collect();
                let cut = match direction {
                    Direction::Both => Cut { from: one, to: others, both_ways: true },
                    Direction::Out => Cut { from: one, to: others, both_ways: false },
                    Direction::In => Cut { from: others, to: one, both_ways: false },
                };
                self.network.cuts.insert(index, cut);
                self.push(ms, Event::Over { index });
            }
            Fault::Split(mask, ms) => {
                let (from, to) = self.nodes.keys().copied().partition(|node| mask >> (node.0 % 32) & 1 == 1);
                self.network.cuts.insert(index, Cut { from, to, both_ways: true });
                self.push(ms, Event::Over { index });
            }
            Fault::Apart(one, other, ms) => {
                let cut = Cut { from: BTreeSet::from([one]), to: BTreeSet::from([other]), both_ways: true };
                self.network.cuts.insert(index, cut);
                self.push(ms, Event::Over { index });
            }
            Fault::Stall(victim, ms) => {
                let node = self.resolve(victim);
                self.stalled.insert(node, self.now_ms + ms);
            }
            Fault::ClockJump(victim, by_ms) => {
                let node = self.resolve(victim);
                if let Some(node) = self.nodes.get_mut(&node) {
                    node.skew_ms += by_ms;
                }
            }
            Fault::Weather(weather, ms) => {
                self.network.weather = weather;
                self.push(ms, Event::Over { index });
            }
            Fault::SlowLink(from, to, extra_ms) => {
                let (from, to) = (self.resolve(Victim::Node(from)), self.resolve(Victim::Node(to)));
                self.network.slow.insert((from, to), extra_ms);
            }
            Fault::SlowDisk(victim, extra_ms, ms) => {
                let node = self.resolve(victim);
                self.slow_disks.insert(node, extra_ms);
                self.push(ms, Event::Over { index });
            }
            Fault::Anchor(victim, kind, ms) => {
                let node = self.resolve(victim);
                self.anchors.insert(node, kind);
                self.push(ms, Event::Over { index });
            }
            Fault::BeaconLag(lag, ms) => {
                self.beacon_lag = Some(lag);
                self.push(ms, Event::Over { index });
            }
            Fault::Leap(ms) => self.leap(ms),
            Fault::Ghost(source, dest) => self.haunt(source, dest),
            Fault::Switch(group) => self.push(0, Event::Switch { group, to: None }),
            Fault::Reshape => self.push(0, Event::Reshape { kind: None }),
            Fault::MoveSeat => self.push(0, Event::MoveSeat),
            Fault::ComeAndGo => self.push(0, Event::ComeAndGo { place: None }),
            Fault::RenewKey => self.push(0, Event::RenewKey { place: None }),
            Fault::Rule => self.push(0, Event::Rule { place: None }),
            Fault::Slander => self.slander(),
        }
    }

    /// All clocks go ahead, as if every machine had been suspended for so long.
    pub(crate) fn leap(&mut self, ms: u64) {
        self.leapt_ms += ms;
        self.coverage.leaps += 1;
        self.note(|| format!("all clocks leap by {ms} ms"));
    }

    /// What a bad anchor or a lagging beacon does to a message that leaves a node: the message and
    /// by how much it is late, or the message that is not sent.
    pub(crate) fn hinder(&mut self, from: Endpoint, mut wire: Wire) -> Result<(Wire, u64), Wire> {
        let Endpoint::Node(node) = from else { return Ok((wire, 0)) };
        let Wire::Peer { group, message } = &mut wire else { return Ok((wire, 0)) };
        let from_beacon = match message.as_ref() {
            PeerMessage::Bundle(bundle) => bundle.source == GroupId::BEACON,
            PeerMessage::Serving { source } => *source == GroupId::BEACON,
            PeerMessage::Pull { .. } => *group == GroupId::BEACON,
            // Only mail and what brings it is hindered.
            _ => false,
        };
        let mut late_ms = match self.beacon_lag.filter(|_| from_beacon) {
            Some(Some(lag)) => lag,
            Some(None) => return Err(wire),
            None => 0,
        };
        match (self.anchors.get(&node), message.as_mut()) {
            (Some(AnchorFault::PullsNothing), PeerMessage::Pull { .. })
            | (Some(AnchorFault::ServesNothing), PeerMessage::Bundle(_) | PeerMessage::Serving { .. })
            | (Some(AnchorFault::OnlyPromises), PeerMessage::Bundle(_)) => return Err(wire),
            (Some(AnchorFault::Alters), PeerMessage::Bundle(bundle)) => {
                self.coverage.altered += 1;
                forgery::alter(&mut self.rng, bundle);
            }
            (Some(AnchorFault::Slow(ms)), PeerMessage::Bundle(_)) => late_ms += ms,
            _ => {}
        }
        Ok((wire, late_ms))
    }

    /// The node that has no power until everything has drained without it.
    pub(crate) fn absent(&self) -> Option<NodeId> {
        let gone = matches!(self.phase, Phase::Drain | Phase::Deadlines | Phase::Grace);
        if gone { self.gone } else { None }
    }

    pub(crate) fn over(&mut self, index: usize) {
        match &self.schedule.faults[index].1 {
            _ if self.phase != Phase::Faults => {}
            Fault::Isolate(..) | Fault::Split(..) | Fault::Apart(..) => {
                self.network.cuts.remove(&index);
            }
            Fault::Weather(..) => self.network.weather = self.schedule.weather,
            Fault::SlowDisk(..) => self.slow_disks.clear(),
            Fault::Anchor(..) => self.anchors.clear(),
            Fault::BeaconLag(..) => self.beacon_lag = None,
            Fault::Crash(..)
            | Fault::CrashWriting(..)
            | Fault::PowerCut(_)
            | Fault::Stall(..)
            | Fault::ClockJump(..)
            | Fault::SlowLink(..)
            | Fault::Leap(_)
            | Fault::Switch(_)
            | Fault::Reshape
            | Fault::MoveSeat
            | Fault::ComeAndGo
            | Fault::RenewKey
            | Fault::Rule
            | Fault::Slander
            | Fault::Ghost(..) => {}
        }
    }

    /// Whether some channel has no other anchor with a seat, by what anybody knows of it. Without that one its mail
    /// would wait until its members set others, as they do in `tests/all/anchors.rs`, and here nobody does.
    fn is_last_anchor(&self, node: NodeId) -> bool {
        let alone = |anchors: &[NodeId], committee: Option<&Committee>| {
            let has_seat = |anchor: &&NodeId| committee.is_none_or(|known| known.index_of(**anchor).is_some());
            let seated: Vec<&NodeId> = anchors.iter().filter(has_seat).collect();
            !seated.is_empty() && seated.into_iter().all(|anchor| *anchor == node)
        };
        self.nodes.values().flat_map(|host| &host.replicas).any(|(group, replica)| {
            let reader = KvState { kv: &replica.kv, hide_receipts: false };
            let mut view = View::new(&reader);
            let known = driver::committees(&mut view);
            let of = |channel: GroupId| known.current.iter().find(|committee| committee.group == channel);
            let told = known.anchors.iter().any(|(channel, anchors)| alone(anchors, of(*channel)));
            // What is still on its way there, or from there.
            let directory = beacon::channels::directory(&mut view);
            let shown = directory.iter().any(|entry| alone(&entry.shown.anchors, of(entry.group)));
            let members = channel::state::members(&mut view).into_iter();
            let own: Vec<NodeId> = members.flat_map(|member| member.anchors).collect();
            told || shown || alone(&own, of(*group))
        })
    }

    /// The phase with faults is over: nothing fails any more, but for what fails for good, and
    /// everything has to come to an end.
    pub(crate) fn heal(&mut self) {
        self.note(|| "everything heals".to_owned());
        let absent = self.schedule.absent.map(|victim| self.resolve(victim));
        self.gone = absent.filter(|node| !self.is_last_anchor(*node));
        self.enter(Phase::Drain);
        self.network.heal();
        self.slow_disks.clear();
        self.stalled.clear();
        self.anchors.clear();
        self.beacon_lag = None;
        self.schedule.sync_ms_max = self.schedule.sync_ms_max.min(4);
        if let Some((victim, kind)) = self.schedule.bad_anchor {
            let node = self.resolve(victim);
            if !self.is_last_anchor(node) {
                self.note(|| format!("n{node} stays a bad anchor: {kind:?}"));
                self.anchors.insert(node, kind);
            }
        }
        for node in self.nodes.values_mut() {
            node.skew_ms = node.skew_ms.clamp(-50, 50);
        }
        if let Some(gone) = self.gone {
            // Its restart is refused as long as it is gone.
            self.crash(gone, 1);
        }
        let down: Vec<NodeId> = self.nodes.values().filter(|node| !node.up).map(|node| node.id).collect();
        down.into_iter().for_each(|node| self.restart(node));
        self.push(POLL_MS, Event::Poll);
    }
}
