//! What a host keeps back: from nodes of an organisation that a channel has excluded all that comes after, also while
//! the engine still counts them; and a transaction from a client whose certificate the channel has heard to be revoked, or whose
//! organisation is no member.
//!
//! Mirrors production's `server/links.rs`, `server/command.rs` and `server/admission.rs`, in the runs that
//! [`crate::config::Shape::guarded`] names and, but for clients, in the channel that is founded while the cluster runs.
//! There a leader that is excluded hands over; here it falls silent, in every run, and the others elect one. Clients are looked
//! at when they come and not again, as they are in production when their transaction is taken from the queue and when they are
//! told of it. Whether their organisation is a member is asked in the channel that is founded meanwhile alone, in every run in
//! which it has money: in the others the load's clients are of all organisations, whoever is a member.

use std::collections::BTreeSet;

use channel::access::{self, Action, At, Caller};
use channel::{ChannelReject, Role};
use consensus::local::Msg;
use ledger::hash::Hash32;
use ledger::ids::{GroupKind, Height, NodeId, OrgId};
use ledger::reject::Reject;
use ledger::view::View;
use shard_node::core::entry::Command;

use crate::checkers::Seen;
use crate::replica::{Effect, Replica};
use crate::sabotage::Sabotage;
use crate::seat;
use crate::state::KvState;
use crate::wire::Reply;

impl Replica {
    /// The block in which the channel has excluded a node's organisation, if this host keeps anything back.
    pub(super) fn excluded_since(&self, node: NodeId) -> Option<Height> {
        self.exclusion(node).filter(|_| self.guards)
    }

    /// The block in which the channel has excluded a node's organisation, by the state of this replica.
    fn exclusion(&self, node: NodeId) -> Option<Height> {
        if self.founded.is_none() || self.sabotage == Some(Sabotage::TellRemoved) {
            return None;
        }
        let org = self.genesis.nodes.iter().find(|info| info.id == node)?.org;
        let reader = KvState { kv: &self.kv, hide_receipts: false };
        let mut view = View::new(&reader);
        if channel::state::member(&mut view, org).is_some() {
            return None;
        }
        channel::state::exclusions(&mut view, org).last().map(|exclusion| exclusion.height)
    }

    /// Whether a message to another replica of the group is kept back, which tells of this block or of none.
    pub(super) fn withholds(&self, node: NodeId, tells_of: Option<Height>) -> bool {
        self.excluded_since(node).is_some_and(|since| tells_of.is_none_or(|height| height > since))
    }

    /// Whether this node's own organisation is out: it leads no more, in any run. The beacon gives it none of the
    /// channel's mail, and so not the committee without it either.
    pub(super) fn stands_aside(&self) -> bool {
        self.exclusion(self.node).is_some()
    }

    /// What of the engine's message goes to a node: a heartbeat in the place of entries, if it may not have these.
    pub(super) fn let_through(&self, to: NodeId, message: Msg) -> Option<Msg> {
        match message {
            Msg::Append { .. } if self.stands_aside() => None,
            Msg::Append { term, previous_index, previous_term, commit, base, .. }
                if self.excluded_since(to).is_some() =>
            {
                Some(Msg::Append { term, previous_index, previous_term, entries: Vec::new(), commit, base })
            }
            other => Some(other),
        }
    }

    /// Whether commands have to wait: those to a channel until the voters are the committee in force, since one of them
    /// may end a membership; and all of them where the leader itself is out.
    pub(super) fn defers(&self, commands: &[Command]) -> bool {
        let governs = commands.iter().any(|command| matches!(command, Command::Channel(_)));
        if !self.guards || self.founded.is_none() || !governs {
            return false;
        }
        let voters: BTreeSet<NodeId> = self.role().unwrap_or_default().voters.into_iter().collect();
        let seated = seat::seats(&self.kv, self.group);
        let wanted: BTreeSet<NodeId> = seated.iter().map(|(node, join)| seat::seat(*node, *join)).collect();
        self.stands_aside() || voters != wanted
    }

    /// Whether a client's transaction is looked at; if not, it is answered. Whoever does not lead only says who does.
    pub(crate) fn admits(&self, request: u32, caller: Option<(OrgId, Hash32)>, out: &mut Vec<Effect>) -> bool {
        let (Some((org, credential)), Some(live)) = (caller, self.live.as_ref().filter(|live| live.leads)) else {
            return true;
        };
        if self.group.kind() != Some(GroupKind::Channel) {
            return true;
        }
        let at = At { height: live.applied.height, time_ms: live.applied.time_ms };
        let reader = KvState { kv: &self.kv, hide_receipts: false };
        let caller = Caller { org, roles: &[Role::Member], credential };
        let judged = access::may(&mut View::new(&reader), &caller, Action::Write, at);
        let refusal = match judged {
            Err(ChannelReject::CredentialRevoked) if self.sabotage != Some(Sabotage::AdmitRevoked) => {
                Some(Reject::ChannelRefused)
            }
            // The router is of the same organisation.
            Err(ChannelReject::NotMember | ChannelReject::Removed)
                if self.founded.is_some() && self.sabotage != Some(Sabotage::AdmitGone) =>
            {
                Some(Reject::AccessDenied)
            }
            // What else a channel does not take, its machine says.
            Ok(()) | Err(_) => None,
        };
        if let Some(reject) = refusal {
            out.push(Effect::Answer(request, self.group, Reply::Refused(reject)));
            return false;
        }
        out.push(Effect::Saw(Seen::Admitted { node: self.node, group: self.group, org, credential }));
        true
    }
}
