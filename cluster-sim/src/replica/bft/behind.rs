//! A member that has missed what was decided: whom it asks, what it is given, and when one votes again that has
//! forgotten what it promised. Mirrors production's `catchup` and `task`.
//!
//! Decided values are taken as the machine judges them. A state is asked for when more members than may lie have
//! said that their logs begin too late, and taken when the committee has certified its last block. Of the checks in
//! production's `server/snapshot.rs` it makes those of the tree, the last header and its certificate, by the committee that
//! the certified blocks that hand over lead to; no liar gives a false state.
//!
//! Where seats move, the members that a replica knows may all have left: it asks those, too, that have a seat by the registry,
//! as production's `others` does.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use consensus::bft::{Begin, Chain, Decided, Input, Machine};
use consensus::local::{LocalDisk, LocalLog};
use ledger::certificate::Certificate;
use ledger::committee::Committee;
use ledger::header::Header;
use ledger::ids::{Height, NodeId, Tick};
use ledger::schema;
use shard_node::core::applied::AppliedRecord;
use shard_node::core::driver::{self, SystemView};
use shard_node::core::marks;
use storage::kv::{Kv, WriteBatch};
use storage::mem::MemKv;

use super::{Event, decided, hole, settings};
use crate::checkers::{BftSeen, Seen};
use crate::replica::{Effect, Job, Replica, encoded};
use crate::state::{self, KvState};
use crate::wire::bft::BftWire;

/// Decided values that one answer has.
const VALUES_MAX: usize = 4;
/// Entries that a log keeps for members that are behind, besides those of the last moments.
pub(in crate::replica) const KEPT_ENTRIES: u64 = 24;
/// Between two questions of a replica without a vote.
const ASK_MS: u64 = 60;
/// Between two looks of one with a vote, in which a group makes an entry also when it has nothing to do.
const LOOK_MS: u64 = 500;

/// Whom a member asks that has heard of a later stint from another one: that one, and when its log begins too late, all the
/// others and those that it does not know, until more than may lie have said so. Most may never speak to it by themselves, as
/// when the group has gone over to Raft, where its leader alone does. `beyond` are those who have said so.
fn whom(
    (own, ahead): (NodeId, NodeId),
    committee: &Committee,
    beyond: &BTreeSet<NodeId>,
    strangers: &[NodeId],
) -> Vec<NodeId> {
    let tolerated = committee.engine.tolerated(committee.members.len());
    if !beyond.contains(&ahead) || beyond.len() > tolerated {
        return vec![ahead];
    }
    let others = committee.members.iter().map(|member| member.node).chain(strangers.iter().copied());
    others.filter(|node| *node != own && !beyond.contains(node)).collect()
}

impl Replica {
    /// One that has no vote asks the members in turn, and votes as soon as nobody can rely on what it has forgotten.
    pub(super) fn follow(&mut self, now: Tick, jobs: &mut VecDeque<Job>, out: &mut Vec<Effect>) {
        if self.is_out() {
            return;
        }
        let own = self.node;
        let Some(member) = self.member_mut() else { return };
        if member.votes {
            return self.ask_strangers(now, out);
        }
        if member.pending.is_none() && member.admission.may_vote(member.chain.index) {
            return self.begin_to_vote(now, jobs, out);
        }
        if now < member.ask_at {
            return;
        }
        member.ask_at = Tick(now.0 + ASK_MS);
        member.turn += 1;
        let (from, turn, committee) = (member.chain.index + 1, member.turn, Arc::clone(&member.committee));
        let members = committee.members.iter().map(|member| member.node);
        let others = members.chain(self.strangers(&committee)).filter(|node| *node != own);
        let others: Vec<NodeId> = others.collect();
        let asked = others.get(turn % others.len().max(1)).copied();
        if let Some(node) = asked {
            self.bft_send(node, BftWire::Ask { from }, out);
        }
    }

    /// Who has a seat by the registry, and none by the committee that the state has in force.
    fn strangers(&self, in_force: &Committee) -> impl Iterator<Item = NodeId> {
        let own = self.node;
        let registered = self.registered.iter().copied();
        registered.filter(move |node| *node != own && in_force.index_of(*node).is_none())
    }

    /// One that has a vote hears from the members that it knows. While it stands still it asks those that it does not know: the
    /// group may have gone on to them.
    fn ask_strangers(&mut self, now: Tick, out: &mut Vec<Effect>) {
        let Some(member) = self.member_mut().filter(|member| now >= member.ask_at) else { return };
        member.ask_at = Tick(now.0 + LOOK_MS);
        member.turn += 1;
        let applied = member.chain.index;
        let still = member.looked.replace(applied) == Some(applied);
        let (turn, committee) = (member.turn, Arc::clone(&member.committee));
        let strangers: Vec<NodeId> = self.strangers(&committee).filter(|_| still).collect();
        if let Some(node) = strangers.get(turn % strangers.len().max(1)).copied() {
            self.bft_send(node, BftWire::Ask { from: applied + 1 }, out);
        }
    }

    /// Whom a member asks that has heard of a later stint from a node.
    pub(in crate::replica) fn asked_about(&self, ahead: NodeId) -> Vec<NodeId> {
        let Some(member) = self.live.as_ref().and_then(|live| live.engine.member()) else { return vec![ahead] };
        let committee = &member.committee;
        let strangers: Vec<NodeId> = self.strangers(committee).collect();
        whom((self.node, ahead), committee, &member.beyond, &strangers)
    }

    fn begin_to_vote(&mut self, now: Tick, jobs: &mut VecDeque<Job>, out: &mut Vec<Effect>) {
        let first = self.beside.wal.begin();
        let settings = settings(self, true);
        let (node, group) = (self.node, self.group);
        let Some(member) = self.member_mut() else { return };
        let begin = Begin {
            chain: member.chain.clone(),
            committee: Arc::clone(&member.committee),
            decided: Vec::new(),
            records: (first, Vec::new()),
            votes: true,
        };
        let mut outputs = Vec::new();
        member.machine = Machine::new(settings, begin, now, &mut outputs);
        member.standing = member.machine.standing().clone();
        member.forgets.clear();
        member.votes = true;
        out.push(Effect::Saw(Seen::Bft(BftSeen::Admitted { node, group })));
        jobs.push_back(Job::Bft(Event::Carry(outputs)));
        // One that joins may say now that it is ready.
        jobs.push_back(Job::Driver(driver::Input::Votes(true)));
    }

    /// A member asks for what was decided from an entry on.
    pub(super) fn asked(&mut self, now: Tick, to: NodeId, from: u64, out: &mut Vec<Effect>) {
        if !self.may_follow(to) {
            return;
        }
        let Some(live) = &self.live else { return };
        let member = live.engine.member();
        // One that runs another engine votes for nobody here.
        let (reached, votes) = member.map_or((live.stint, false), |member| (member.reached, member.votes));
        let (lies, values) = (self.lies() && member.is_some(), self.decided_from(from, member.is_some()));
        let answer = BftWire::Answer { reached, votes, values };
        if lies {
            self.with_liar(now, out, |liar, scene, said| liar.answer(scene, to, answer, said));
        } else {
            self.bft_send(to, answer, out);
        }
    }

    /// Decided values from an entry on, out of the log of a member, or of what it had before it began anew. `None` when
    /// that begins later.
    fn decided_from(&self, from: u64, member: bool) -> Option<Vec<Decided>> {
        let log = self.disk.durable();
        let last = log.last_index();
        if member && from > last {
            return Some(Vec::new());
        }
        let kept = member && from > 0 && from + KEPT_ENTRIES >= last;
        let value = |index: u64| match log.entry(index).filter(|_| kept) {
            Some(entry) => decided(entry),
            None => self.beside.earlier.get(&index).cloned(),
        };
        let values: Vec<Decided> = (from..).map_while(value).take(VALUES_MAX).collect();
        (!values.is_empty()).then_some(values)
    }

    /// A member has answered: how far it is and whether it votes, and what it has.
    pub(super) fn answered(
        &mut self,
        now: Tick,
        (from, stint): (NodeId, u64),
        (reached, votes): (u64, bool),
        values: Option<Vec<Decided>>,
        jobs: &mut VecDeque<Job>,
        out: &mut Vec<Effect>,
    ) {
        if let Some(values) = &values {
            self.with_liar(now, out, |liar, scene, said| liar.told(scene, from, values, said));
        }
        let registered = self.registered.contains(&from);
        let Some(member) = self.member_mut() else { return };
        if votes && !member.votes {
            member.admission.heard(from, reached, member.chain.index);
        }
        let Some(values) = values else {
            let tolerated = member.committee.engine.tolerated(member.committee.members.len());
            if registered || member.committee.index_of(from).is_some() {
                member.beyond.insert(from);
            }
            if member.beyond.len() > tolerated {
                if stint > self.stint() {
                    self.lack(from, out);
                } else {
                    self.bft_send(from, BftWire::WantState, out);
                }
            }
            return;
        };
        // Whoever has more is asked for more at once.
        if values.len() == VALUES_MAX && !member.votes {
            member.ask_at = now;
        }
        for decided in values {
            jobs.push_back(Job::Bft(Event::Input(Input::Decided { from, decided: Box::new(decided) })));
        }
    }

    /// Gives the state to a member, when its last block is certified.
    pub(super) fn give_state(&self, to: NodeId, out: &mut Vec<Effect>) {
        let Some(member) = self.live.as_ref().and_then(|live| live.engine.member()) else { return };
        let seated = member.committee.index_of(to).is_some() || self.may_have(to);
        let lends = !self.reseats() || self.handovers_certified();
        if seated && lends && self.height().is_some() && self.certified() == self.height() {
            self.bft_send(to, BftWire::State(self.kv.export().to_vec()), out);
        }
    }

    /// A state has come: judged, it takes the place of the one here if it is of a later entry.
    pub(super) fn take_state(&mut self, exported: &[u8], jobs: &mut VecDeque<Job>, out: &mut Vec<Effect>) {
        match self.install_decided(exported, jobs, out) {
            Ok(()) => {}
            Err(why) => {
                let (group, node) = (self.group, self.node);
                out.push(Effect::Broken(format!("node {node} cannot use the state of {group} that it got: {why}")));
            }
        }
    }

    /// The committee that signs a block in a state of another replica: behind each block that hands over, and that the
    /// committee before it has certified, the one that this block names.
    fn signs(&self, kv: &MemKv, own: &Committee, height: Height) -> Result<Committee, String> {
        let (here, mut signs) = (self.height().unwrap_or_default(), own.clone());
        for (key, _) in state::scan(kv, schema::HANDOVER_PREFIX) {
            let Some(at) = schema::handover_of(&key).filter(|at| *at > here && *at < height) else { continue };
            let certificate: Certificate = state::load(kv, &schema::certificate(at))?;
            certificate.verify(&signs).map_err(|error| error.to_string())?;
            signs = state::load(kv, &schema::committee(self.group, &certificate.header.next_committee_hash))?;
            if signs.hash() != certificate.header.next_committee_hash {
                return Err(format!("behind height {at} it has another committee than was certified"));
            }
        }
        Ok(signs)
    }

    fn install_decided(
        &mut self,
        exported: &[u8],
        jobs: &mut VecDeque<Job>,
        out: &mut Vec<Effect>,
    ) -> Result<(), String> {
        let kv = MemKv::import(exported, Path::new("a fetched state")).map_err(|error| error.to_string())?;
        let applied: AppliedRecord = state::load(&kv, &schema::applied())?;
        let index = applied.consensus.position.map_or(0, |position| position.index);
        let Some(member) = self.live.as_ref().and_then(|live| live.engine.member()) else { return Ok(()) };
        // What has come by values in the meantime may be more, and nobody needs a state that asks for none.
        if index <= member.chain.index || member.beyond.is_empty() {
            return Ok(());
        }
        let note = applied.consensus.membership.as_ref().ok_or("it does not say where it stands in the order")?;
        let chain: Chain = borsh::from_slice(&note.1).map_err(|error| error.to_string())?;
        let committee: Committee = state::load(&kv, &schema::current_committee(self.group))?;
        let header: Header = state::load(&kv, &schema::header(applied.height))?;
        let certificate: Certificate = state::load(&kv, &schema::certificate(applied.height))?;
        let mut tree = state::rebuild_tree(&kv, self.group)?;
        let signs = self.signs(&kv, &member.committee, applied.height)?;
        certificate.verify(&signs).map_err(|error| error.to_string())?;
        let own = header.group == self.group && header.cluster == self.constants.cluster;
        if !own
            || certificate.header != header
            || header.hash() != applied.header_hash
            || tree.root() != header.state_root.0
            || chain.index != index
        {
            return Err("its last header is not of its content".to_owned());
        }
        let mut batch = WriteBatch::new();
        for (key, _) in state::scan(&kv, &[schema::NODE]) {
            batch.delete(key);
        }
        // What this node has found out by itself stays.
        for (key, value) in state::scan(&self.kv, &[schema::NODE]) {
            batch.put(key, value);
        }
        batch.put(marks::installed(), encoded(&applied.height));
        kv.write(batch).and_then(|()| kv.flush()).map_err(|error| error.to_string())?;
        // The log begins anew behind it.
        let log = self.disk.durable();
        let entries = (log.base.index..index).map(|_| hole()).collect();
        self.disk = LocalDisk::new(LocalLog { entries, ..log.clone() });
        self.kv = kv;
        let (node, join, group, height) = (self.node, self.join, self.group, applied.height);
        out.push(Effect::Saw(Seen::Bft(BftSeen::Installed { node, join, group, height, index })));
        let reader = KvState { kv: &self.kv, hide_receipts: false };
        let view = SystemView::read(&reader, self.group, self.genesis.verify).map_err(|error| error.to_string())?;
        let view = SystemView { committees: self.committees(), ..view };
        let committee = Arc::new(committee);
        let Some(live) = &mut self.live else { return Ok(()) };
        (live.tree, live.applied) = (tree, applied);
        if let Some(member) = live.engine.member_mut() {
            member.chain = chain.clone();
            member.committee = Arc::clone(&committee);
            (member.last_index, member.reached) = (index, member.reached.max(index));
            member.pending = None;
            member.admission.in_force(&committee);
            member.beyond.clear();
            member.forgets.clear();
        }
        jobs.push_back(Job::Driver(driver::Input::System(view)));
        let chain = Box::new(chain);
        jobs.push_back(Job::Bft(Event::Input(Input::Installed { chain, committee })));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ledger::committee::{Engine, Member};
    use ledger::ids::{Epoch, GroupId, Incarnation, OrgId};

    use super::*;
    use crate::cluster::node_key;

    fn committee(members: u32) -> Committee {
        let member = |node| Member { node, org: OrgId(0), key: node_key(node).public() };
        let members = (0..members).map(NodeId).map(member).collect();
        Committee::of(Engine::Bft, GroupId::shard(0), Incarnation(0), Epoch(0), members)
    }

    fn nodes<T: FromIterator<NodeId>>(nodes: &[u32]) -> T {
        nodes.iter().copied().map(NodeId).collect()
    }

    /// Node 0 has heard of a later stint from node 1.
    #[test]
    fn who_hears_that_one_log_begins_too_late_asks_the_others_until_more_than_may_lie_have_said_so() {
        for (members, beyond, strangers, asked) in [
            (7, &[][..], &[][..], &[1][..]),
            (7, &[2][..], &[][..], &[1][..]),
            (7, &[1][..], &[][..], &[2, 3, 4, 5, 6][..]),
            (7, &[1, 4][..], &[][..], &[2, 3, 5, 6][..]),
            (7, &[1, 4][..], &[8, 9][..], &[2, 3, 5, 6, 8, 9][..]),
            (7, &[1, 8][..], &[8, 9][..], &[2, 3, 4, 5, 6, 9][..]),
            (7, &[1, 4, 5][..], &[8, 9][..], &[1][..]),
            (4, &[1][..], &[][..], &[2, 3][..]),
            (4, &[1, 2][..], &[][..], &[1][..]),
        ] {
            let strangers: Vec<NodeId> = nodes(strangers);
            let found = whom((NodeId(0), NodeId(1)), &committee(members), &nodes(beyond), &strangers);
            assert_eq!(found, nodes::<Vec<NodeId>>(asked), "of {members} members {beyond:?} begin too late");
        }
    }

    /// The leader of Raft alone speaks to a member that has missed the change to it: of seven it takes three words to fetch a
    /// state, and of four two.
    #[test]
    fn a_member_to_which_a_leader_alone_speaks_comes_to_fetch_a_state() {
        for members in [4, 7] {
            let committee = committee(members);
            let mut beyond = BTreeSet::new();
            for _ in 0..2 {
                beyond.extend(whom((NodeId(0), NodeId(1)), &committee, &beyond, &[]));
            }
            assert!(beyond.len() > committee.engine.tolerated(committee.members.len()), "of {members}: {beyond:?}");
        }
    }
}
