//! How a channel is founded while the cluster runs, and how its members come and go: one organisation
//! proposes it to the registry with a promise of its policies, the next one approves, and either gives the channel what was
//! promised; the third one, which it invites, joins and leaves
//! it, and all set the nodes that they host it on. The committee follows.

use std::ops::Range;

use beacon::{BeaconCommand, SignedCommand, channels, registry};
use channel::opening::{PROMISE_VERSION, first_policies};
use channel::policy::Item;
use channel::{
    Change, Command as Act, Engine, FoundingAct, Hosting, Opening, Phase as Stage, Policy, Promise, PromiseStanding,
    ProposalState, Quorum, Role, SealedOpening, Subject, Terms, state,
};
use cross_shard::RegistryUpdate;
use ledger::ids::{GroupId, NodeId, OrgId, TimeMs};
use ledger::schema;
use ledger::view::View;
use rand::Rng;
use rand::seq::IndexedRandom;

use super::acts::{GUEST, OPEN_MS};
use super::{Council, VALID_MS};
use crate::cluster::{CREATED_MS, admin_key, admin_secret};
use crate::ending::Phase;
use crate::event::Event;
use crate::state::KvState;
use crate::world::World;

/// When the first step towards a channel is taken, and how long each waits for the one before.
pub(super) const FOUND_MS: u64 = 300;
const FOUND_AGAIN_MS: u64 = 150;
/// Who founds it.
const FOUNDERS: [OrgId; 2] = [OrgId(0), OrgId(1)];
/// Nodes of an organisation that host it, if it has so many.
const HOSTS_MAX: usize = 2;
const NAME: &str = "founded";
/// How long after it has given up a node an organisation wants it back, if it does: about as long as it takes
/// until the committee without the node is in force.
const REGRET_MS: Range<u64> = 40..300;

/// What the founders want, which the beacon is not told.
fn wanted() -> Opening {
    let policy = Policy::members(Quorum::Majority, Role::Admin);
    Opening::new([7; 32], Subject::ALL.map(|subject| (subject, policy.clone())).to_vec())
}

/// What they promise instead. The copies open to nothing: those who are simulated know what they want.
fn promise() -> Promise {
    let keys = FOUNDERS.into_iter().chain([GUEST]).map(|org| (org, [0; 48])).collect();
    let sealed = SealedOpening { sender: admin_key(FOUNDERS[0], 0).public(), keys, body: vec![0; 528] };
    Promise { version: PROMISE_VERSION, hash: wanted().hash(), sealed }
}

/// The nodes that an organisation brings, the first one as its anchor if it is to have one.
fn hosting(view: &mut View<'_>, org: OrgId, anchors: bool) -> Hosting {
    let own = registry::nodes(view).into_iter().filter(|node| node.org == org).map(|node| node.id);
    let nodes: Vec<NodeId> = own.take(HOSTS_MAX).collect();
    Hosting { anchors: nodes.iter().take(usize::from(anchors)).copied().collect(), nodes }
}

impl Council {
    /// The next step towards the channel, if one is left.
    fn next_step(&mut self, view: &mut View<'_>, group: GroupId, now: TimeMs) -> Option<SignedCommand> {
        if registry::foundations(view).iter().any(|foundation| foundation.group == group) {
            return None;
        }
        let until_ms = TimeMs(now.0 + VALID_MS);
        let open = channels::foundings(view).into_iter().find(|found| found.phase_at(now) == Stage::Proposed);
        let (org, command) = match open {
            Some(founding) => {
                let spoken = |org: &OrgId| founding.approvals.iter().any(|(known, _)| known == org);
                let org = FOUNDERS.into_iter().find(|org| !spoken(org))?;
                let act = FoundingAct::Approve(hosting(view, org, self.anchors));
                (org, BeaconCommand::ActOnChannel { founding: founding.id, act })
            }
            None => {
                let founders = FOUNDERS.map(|org| Item::Sub(Policy::one(org, Role::Admin)));
                let terms = Terms {
                    name: NAME.to_owned(),
                    invited: vec![FOUNDERS[1], GUEST],
                    engine: Engine::Raft,
                    founding: Policy::rule(Quorum::All, founders.to_vec()),
                    policies: first_policies(),
                };
                let hosting = hosting(view, FOUNDERS[0], self.anchors);
                (FOUNDERS[0], BeaconCommand::ProposeSealedChannel { terms, promise: promise(), hosting, until_ms })
            }
        };
        let secret = admin_secret(&registry::org(view, org)?.admin_key)?;
        Some(SignedCommand::sign(&self.cluster, &command, org, self.rng.random(), until_ms, secret))
    }

    /// What the channel is given that its founding has promised: mostly soon, sometimes something else, and now and then
    /// once it has it.
    pub(super) fn opening(&mut self, view: &mut View<'_>) -> Option<Act> {
        let waits = state::promise(view).is_some_and(|record| record.standing == PromiseStanding::Waits);
        let often = if waits { 6 } else { 1 };
        if self.rng.random_range(0..12) >= often {
            return None;
        }
        let mut opening = wanted();
        if self.rng.random_range(0..4) == 0 {
            opening.salt = [8; 32];
        }
        Some(Act::Open { opening })
    }

    /// What an organisation does about who is a member, and where.
    pub(super) fn come_or_go(&mut self, view: &mut View<'_>, by: OrgId, now: TimeMs) -> Act {
        let until_ms = TimeMs(now.0 + OPEN_MS);
        let known: RegistryUpdate = view.load(&schema::registry_extract()).unwrap_or_default();
        let own = known.nodes.iter().filter(|node| node.org == by).map(|node| node.node);
        let nodes: Vec<NodeId> = own.take(self.rng.random_range(1..=HOSTS_MAX)).collect();
        let inside = state::member(view, GUEST).is_some();
        if by == GUEST && !inside && state::invitation(view, GUEST).is_some() {
            return Act::Join { nodes };
        }
        let mut open = state::proposals(view);
        open.retain(|found| {
            let moves = matches!(found.change, Change::Invite { org: GUEST, .. } | Change::Remove { org: GUEST });
            moves && found.proposer != by && found.state_at(now) == ProposalState::Open
        });
        if let Some(proposal) = open.choose(&mut self.rng).map(|found| found.id) {
            return Act::Approve { proposal };
        }
        match self.rng.random_range(0..4) {
            0 => {
                let held = state::member(view, by).map_or_else(Vec::new, |member| member.nodes);
                if held.len() > nodes.len() && self.rng.random() {
                    self.regret = Some((by, held.iter().map(|node| node.node).collect()));
                }
                Act::SetNodes { nodes }
            }
            _ if by == GUEST => Act::Leave,
            _ if inside => Act::Propose { change: Change::Remove { org: GUEST }, until_ms },
            _ => Act::Propose { change: Change::Invite { org: GUEST, until_ms }, until_ms },
        }
    }
}

impl World {
    /// Somebody has just given up a node in a channel, and is going to want it back.
    pub(super) fn regret(&mut self, group: GroupId) {
        let delay_ms = self.council.rng.random_range(REGRET_MS);
        self.push(delay_ms, Event::Govern { group });
    }

    /// The next step towards the channel that is founded while the cluster runs.
    pub(crate) fn found(&mut self, group: GroupId) {
        if self.phase != Phase::Faults || self.foundations.contains(&group) {
            return;
        }
        self.push(FOUND_AGAIN_MS, Event::Found { group });
        let Some(leader) = self.leader_of(GroupId::BEACON) else { return };
        let now = TimeMs(CREATED_MS + self.clock_ms());
        let Some(replica) = self.nodes.get(&leader).and_then(|node| node.replicas.get(&GroupId::BEACON)) else {
            return;
        };
        let reader = KvState { kv: &replica.kv, hide_receipts: false };
        if let Some(signed) = self.council.next_step(&mut View::new(&reader), group, now) {
            self.submit(leader, GroupId::BEACON, signed.encode());
        }
    }
}
