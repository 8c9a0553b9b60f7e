//! Drives the engine's voters after the committee in the group's state, on whichever replica leads: whoever
//! is about to join gets the log, and once its committee is in force the voters become that committee, one
//! at a time.
//!
//! Mirrors production's `server/membership.rs`, where the change is a joint one. Nothing is remembered, so
//! another leader goes on where one has died. Voters change only behind the certificates of all blocks that
//! hand over: those who leave may be needed for them.
//!
//! A Byzantine engine has no voters of its own: its members are the committee, from the next entry on. There every replica
//! sees to it that it has the certificates of blocks that hand over, since any of them may lend its state; a replica that
//! the group goes on without stops; and what was decided goes to those who have a seat, are about to get one, or have yet to
//! sign the block that took theirs.

use std::collections::BTreeSet;

use consensus::local::Input;
use consensus::port::RoleView;
use ledger::committee::Committee;
use ledger::crypto::PublicKey;
use ledger::header::Header;
use ledger::ids::{GroupId, GroupKind, Height, NodeId};
use ledger::lineage::Origin;
use ledger::schema;
use storage::kv::Kv;

use crate::replica::Replica;
use crate::sabotage::Sabotage;
use crate::seat::{self, join_at, seat};
use crate::state;

/// Entries by which a replica may lag and still become a voter.
const LAG_MAX: u64 = 8;

impl Replica {
    /// What the engine of a leader is to be told.
    pub(super) fn follow_committee(&self) -> Vec<Input> {
        let Some(live) = self.live.as_ref().filter(|live| live.leads && self.reseats()) else {
            return Vec::new();
        };
        let role = live.engine.role();
        let voters: BTreeSet<NodeId> = role.voters.iter().copied().collect();
        let seated = seat::seats(&self.kv, self.group);
        let wanted: BTreeSet<NodeId> = seated.iter().map(|(node, join)| seat(*node, *join)).collect();
        let mut learners: BTreeSet<NodeId> = wanted.difference(&voters).copied().collect();
        let certified = self.uncertified_handover().is_none();
        if certified
            && voters == wanted
            && let Ok(Some(coming)) = state::find::<Committee>(&self.kv, &schema::coming_committee())
        {
            let joining = coming.members.iter().filter(|member| !seated.contains_key(&member.node));
            learners.extend(joining.map(|member| seat(member.node, join_at(&coming))));
        }
        if self.sabotage == Some(Sabotage::TellGone) {
            learners.extend(seat::all_seats(&self.kv, self.group).difference(&voters));
        }
        let mut inputs = vec![Input::Learners(learners.into_iter().collect())];
        if certified {
            inputs.extend(self.next_voters(voters, &wanted, &role).map(Input::Voters));
        }
        inputs
    }

    /// The voters with one more who has a seat, or else with one less who has none.
    fn next_voters(
        &self,
        mut voters: BTreeSet<NodeId>,
        wanted: &BTreeSet<NodeId>,
        role: &RoleView,
    ) -> Option<Vec<NodeId>> {
        let mut missing = wanted.difference(&voters).copied().peekable();
        if missing.peek().is_some() {
            let has_log = |one: &NodeId| {
                role.replicated.iter().any(|(other, upto)| other == one && upto + LAG_MAX >= role.last_log_index)
            };
            let one = missing.find(has_log)?;
            voters.insert(one);
        } else {
            let own = self.seat();
            let mut leaving = voters.difference(wanted).copied();
            // This replica goes last: it leads until then.
            let one = leaving.find(|one| *one != own).or_else(|| (!wanted.contains(&own)).then_some(own))?;
            if !voters.remove(&one) {
                return None;
            }
        }
        Some(voters.into_iter().collect())
    }

    /// The lowest block after which another committee signs and whose certificate this replica has not.
    fn uncertified_handover(&self) -> Option<Height> {
        // Of blocks before its first one others see to it, who may be gone.
        let first =
            state::find::<Origin>(&self.kv, &schema::origin()).ok().flatten().map_or(Height(0), |born| born.first);
        let blocks = state::scan(&self.kv, schema::HANDOVER_PREFIX).into_iter();
        let heights = blocks.filter_map(|(key, _)| {
            let height = key.strip_prefix(schema::HANDOVER_PREFIX)?.try_into().ok()?;
            Some(Height(u64::from_be_bytes(height)))
        });
        let mut own = heights.filter(|height| *height >= first);
        own.find(|height| !matches!(self.kv.get(&schema::certificate(*height)), Ok(Some(_))))
    }

    /// What a leader asks for: the certificate of a block that hands over, so that its committee can change, and so that
    /// the beacon can prove its mail to those who do not know the next one. In a Byzantine group whose seats move everybody
    /// asks for it.
    pub(super) fn wanted_certificate(&self) -> Option<Height> {
        let proves = self.reseats() || self.group == GroupId::BEACON;
        let live = self.live.as_ref()?;
        let lends = self.reseats() && live.engine.member().is_some();
        // Without it the key before could not go.
        let renews = self.keys.public().len() > 1;
        if lends || renews || live.leads && proves { self.uncertified_handover() } else { None }
    }

    /// Whether all blocks that hand over are certified here, as whoever lends its state has to know.
    pub(super) fn handovers_certified(&self) -> bool {
        self.uncertified_handover().is_none()
    }

    /// Whether this replica signs nothing more with another key of its node than this one: the committee in force and the one
    /// that is prepared name it so, the last certificate leads there, and no block that hands over misses its certificate.
    pub(crate) fn has_taken(&self, key: &PublicKey) -> bool {
        let find = |at: &[u8]| state::find::<Committee>(&self.kv, at).ok().flatten();
        let Some(current) = find(&schema::current_committee(self.group)) else { return false };
        let hash = current.hash();
        let last = self.live.as_ref().and_then(|live| live.driver.certificate());
        let leads_there = last.is_some_and(|certificate| {
            let header = &certificate.header;
            header.committee_hash == hash || header.next_committee_hash == hash
        });
        let coming = find(&schema::coming_committee());
        let mut named = [Some(&current), coming.as_ref()].into_iter().flatten();
        let others =
            |committee: &Committee| committee.index_of(self.node).is_some_and(|at| committee.members[at].key != *key);
        leads_there && self.handovers_certified() && !named.any(others)
    }

    /// Whether this is a shard whose seats move, which nobody follows without a right to it.
    fn keeps_to_seats(&self) -> bool {
        self.moves && self.group.kind() == Some(GroupKind::Shard)
    }

    /// Whether a Byzantine shard goes on without this replica: the committee that it has joined with was in force, and the one
    /// that its state has in force does not name its node. Should that one be named again, another replica begins.
    pub(super) fn is_out(&self) -> bool {
        let member = self.live.as_ref().and_then(|live| live.engine.member());
        self.keeps_to_seats() && member.is_some_and(|member| member.goes_on_without(self.node, self.join))
    }

    /// Whether a node is given what a Byzantine group has decided. Of a shard whose seats move that is who may have its state,
    /// and who may be needed for the certificate of the block that took its seat.
    pub(super) fn may_follow(&self, node: NodeId) -> bool {
        if !self.keeps_to_seats() || self.may_have(node) {
            return true;
        }
        let signs = |height: Height| -> Option<Committee> {
            let header: Header = state::find(&self.kv, &schema::header(height)).ok().flatten()?;
            state::find(&self.kv, &schema::committee(self.group, &header.committee_hash)).ok().flatten()
        };
        self.uncertified_handover().and_then(signs).is_some_and(|before| before.index_of(node).is_some())
    }

    /// Whether this replica leads and the group goes on without a node: it neither votes nor gets the log, those who vote
    /// have all that it may have been counted for, and its signature is not needed for a block that hands over.
    #[must_use]
    pub fn goes_on_without(&self, node: NodeId) -> bool {
        let Some(live) = self.live.as_ref().filter(|live| live.leads) else { return false };
        let role = live.engine.role();
        let others = role.voters.iter().chain(&role.learners).all(|other| seat::node_of(*other) != node);
        others && live.engine.voters_settled() && self.uncertified_handover().is_none()
    }
}
