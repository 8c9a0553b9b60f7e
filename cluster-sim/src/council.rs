//! The admins of channels' members: they propose, approve, withdraw, leave and come back, at once and
//! against each other, sometimes with a command that was sent before or a key that is not theirs.
//!
//! An admin looks at the state of whoever leads and signs what seems right then; when its command is
//! executed, things may have changed.

use std::collections::BTreeMap;

use channel::state;
use channel::{Change, Command as Act, Policy, ProposalState, Quorum, Role, SignedCommand, Subject};
use ledger::asset::AssetSpec;
use ledger::hash::Hash32;
use ledger::ids::{AssetId, GroupId, NodeId, OrgId, TimeMs};
use ledger::tx::Move;
use ledger::view::View;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use shard_node::core::entry::Command;

use crate::cluster::{CREATED_MS, ORGS, org_admin};
use crate::state::KvState;
use crate::world::World;

/// Acts for each channel in the phase with faults.
const ACTS: usize = 40;
/// How long a command is good for.
const VALID_MS: u64 = 30_000;
/// How long a proposal is.
const OPEN_MS: u64 = 20_000;

/// What the admins remember.
pub(crate) struct Council {
    rng: ChaCha8Rng,
    sent: BTreeMap<GroupId, Vec<Vec<u8>>>,
}

impl Council {
    pub(crate) fn new(rng: ChaCha8Rng) -> Self {
        Self { rng, sent: BTreeMap::new() }
    }

    /// When somebody acts in which channel.
    pub(crate) fn moments(&mut self, channels: &[GroupId], safety_ms: u64) -> Vec<(u64, GroupId)> {
        let end = safety_ms.max(1_001);
        let mut all = Vec::new();
        for channel in channels {
            // Assets are permitted early, or little would happen.
            all.extend((0..ACTS).map(|act| {
                let at_ms =
                    if act < ACTS / 3 { self.rng.random_range(400..1_200) } else { self.rng.random_range(800..end) };
                (at_ms, *channel)
            }));
        }
        all
    }

    fn change(&mut self, view: &mut View<'_>, by: OrgId, assets: &[AssetId], now: TimeMs) -> Change {
        let missing = assets.iter().find(|asset| !state::asset_permitted(view, asset));
        if let Some(asset) = missing.filter(|_| self.rng.random_range(0..4) > 0) {
            return Change::PermitAsset { asset: *asset };
        }
        let org = OrgId(self.rng.random_range(0..ORGS));
        let until_ms = TimeMs(now.0 + OPEN_MS);
        match self.rng.random_range(0..10) {
            0 | 1 => Change::Freeze,
            2 | 3 => Change::Thaw,
            // All but the last organisation have two seats, which the quorum cannot spare.
            4 => Change::Remove { org: OrgId(ORGS - 1) },
            5 => Change::Remove { org },
            6 | 7 => Change::Invite { org: OrgId(ORGS - 1), until_ms },
            8 => {
                let quorum = [Quorum::Majority, Quorum::Majority, Quorum::All, Quorum::Any].choose(&mut self.rng);
                let subject = [Subject::Freeze, Subject::Membership, Subject::Policy].choose(&mut self.rng);
                let (quorum, subject) = (quorum.copied().unwrap_or(Quorum::All), subject.copied());
                let policy = Policy::members(quorum, Role::Admin);
                Change::Policy { subject: subject.unwrap_or(Subject::Freeze), policy }
            }
            _ => {
                let own = state::member(view, by).map_or_else(Vec::new, |member| member.nodes);
                let nodes: Vec<NodeId> = own.iter().map(|node| node.node).filter(|_| self.rng.random()).collect();
                Change::Anchors { org: by, nodes }
            }
        }
    }

    fn act(&mut self, view: &mut View<'_>, by: OrgId, assets: &[AssetId], now: TimeMs) -> Act {
        let until_ms = TimeMs(now.0 + OPEN_MS);
        let mut proposals = state::proposals(view);
        let any = proposals.choose(&mut self.rng).map_or(Hash32([9; 32]), |proposal| proposal.id);
        proposals.retain(|proposal| proposal.state_at(now) == ProposalState::Open && proposal.proposer != by);
        let open = proposals.choose(&mut self.rng).map(|proposal| proposal.id);
        if state::invitation(view, by).is_some() && state::member(view, by).is_none() {
            // Nodes are dealt to organisations in turn.
            let nodes = vec![NodeId(u32::from(by.0))];
            return if self.rng.random_range(0..4) == 0 { Act::Decline } else { Act::Join { nodes } };
        }
        match (self.rng.random_range(0..20), open) {
            (0..=9, Some(proposal)) => Act::Approve { proposal },
            (10, Some(proposal)) => Act::Reject { proposal },
            (11, _) => Act::Withdraw { proposal: any },
            (12, _) => Act::Settle { proposal: any },
            (13, _) => Act::Approve { proposal: any },
            (14, _) if by.0 == ORGS - 1 => Act::Leave,
            _ => Act::Propose { change: self.change(view, by, assets, now), until_ms },
        }
    }
}

/// The assets that the load issues.
fn assets(world: &World) -> Vec<AssetId> {
    let moves = world.operations.iter().flat_map(|operation| &operation.moves);
    let issued = moves.filter_map(|mv| if let Move::Issue(spec) = mv { Some(AssetSpec::id(spec)) } else { None });
    issued.collect()
}

impl World {
    /// Somebody acts in the governance of a channel.
    pub(crate) fn govern(&mut self, channel: GroupId) {
        let Some(leader) = self.leader_of(channel) else { return };
        let assets = assets(self);
        let now = TimeMs(CREATED_MS + self.clock_ms());
        let cluster = self.genesis.cluster_id();
        let Some(replica) = self.nodes.get(&leader).and_then(|node| node.replicas.get(&channel)) else { return };
        let reader = KvState { kv: &replica.kv, hide_receipts: false };
        let mut view = View::new(&reader);
        let council = &mut self.council;
        let by = OrgId(council.rng.random_range(0..ORGS));
        let earlier = council.sent.get(&channel).and_then(|sent| sent.choose(&mut council.rng)).cloned();
        let bytes = match (council.rng.random_range(0..12), earlier) {
            (0, Some(earlier)) => earlier,
            (kind, _) => {
                let act = council.act(&mut view, by, &assets, now);
                // With the key of another organisation it is nobody's command.
                let signer = if kind == 1 { OrgId((by.0 + 1) % ORGS) } else { by };
                let (salt, until) = (council.rng.random(), TimeMs(now.0 + VALID_MS));
                SignedCommand::sign(&cluster, channel, by, &act, salt, until, org_admin(signer)).encode()
            }
        };
        council.sent.entry(channel).or_default().push(bytes.clone());
        self.coverage.acts += 1;
        let commands = vec![Command::Channel(bytes)];
        self.on_node(leader, None, |node, now_ms, out| {
            node.with(now_ms, channel, out, |replica, now, out| replica.inject(now, commands, out));
        });
    }
}
