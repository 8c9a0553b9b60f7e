//! The charter of a channel: what its group starts from. Made once by the beacon from an approved
//! founding; its first state is a pure function of it, so every founder's node starts the same.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::committee::{Committee, Member};
use ledger::hash::{Hash32, tagged};
use ledger::ids::{ClusterId, Epoch, GroupId, GroupKind, Height, Incarnation, OrgId, TimeMs};

use crate::change::Subject;
use crate::founding::Founding;
use crate::lifecycle::{Phase, Step};
use crate::limits::PROPOSAL_MS_MAX;
use crate::opening::PromiseRecord;
use crate::policy::{Policy, Role};
use crate::reject::{ChannelReject, Refusal};
use crate::state::{self, Batch, ChannelRecord, Invitation, MemberRecord, RoleKey};
use crate::surroundings::{Registry, nodes_of};
use ledger::Engine;

/// Version written into new charters. Version 1 knew no promise.
pub const CHARTER_VERSION: u8 = 2;

/// What a channel starts from.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Charter {
    /// Format version, [`CHARTER_VERSION`].
    pub version: u8,
    /// The cluster.
    pub cluster: ClusterId,
    /// The channel's group.
    pub group: GroupId,
    /// Name for people.
    pub name: String,
    /// What orders it.
    pub engine: Engine,
    /// The founding.
    pub founding: Hash32,
    /// When it was made.
    pub started_ms: TimeMs,
    /// The founders, by organisation.
    pub members: Vec<MemberRecord>,
    /// Whom the founding named and who did not approve it in time, nor reject it.
    pub invited: Vec<OrgId>,
    /// One policy for each subject, in order. Where something is promised, those that every such channel starts with.
    pub policies: Vec<(Subject, Policy)>,
    /// Hash of the opening that the founding promised.
    pub promise: Option<Hash32>,
}

impl Founding {
    /// Starts the channel under a group id that the beacon has never given before. Keys and nodes are
    /// those that the registry has now. Returns the founding as it is from then on, and the charter.
    ///
    /// # Errors
    /// [`ChannelReject::Transition`] when it is not approved or has started,
    /// [`ChannelReject::WrongChannel`] for an id that is no channel's, and what has become of an
    /// organisation or node since it approved.
    pub fn start(
        &self,
        cluster: &ClusterId,
        group: GroupId,
        registry: &dyn Registry,
        now: TimeMs,
    ) -> Result<(Self, Charter), Refusal> {
        let phase = self.phase.after(Step::Start)?;
        if group.kind() != Some(GroupKind::Channel) {
            return Err(ChannelReject::WrongChannel.into());
        }
        let mut members = Vec::with_capacity(self.approvals.len());
        for (org, hosting) in &self.approvals {
            let gone = |reject| Refusal::because(reject, format!("organisation {org}"));
            let entry = registry.org(*org).ok_or_else(|| gone(ChannelReject::OrgUnknown))?;
            members.push(MemberRecord {
                version: 1,
                org: *org,
                name: entry.name,
                joined: Height(0),
                keys: vec![RoleKey { key: entry.admin_key, role: Role::Admin }],
                nodes: nodes_of(registry, *org, &hosting.nodes).map_err(gone)?,
                anchors: hosting.anchors.clone(),
            });
        }
        let silent =
            |org: &OrgId| !self.rejections.contains(org) && !self.approvals.iter().any(|(known, _)| known == org);
        let charter = Charter {
            version: CHARTER_VERSION,
            cluster: *cluster,
            group,
            name: self.terms.name.clone(),
            engine: self.terms.engine,
            founding: self.id,
            started_ms: now,
            members,
            invited: self.terms.invited.iter().copied().filter(silent).collect(),
            policies: self.terms.policies.clone(),
            promise: self.promise.as_ref().map(|promise| promise.hash),
        };
        Ok((Self { phase, ..self.clone() }, charter))
    }
}

impl Charter {
    /// `sha256("seamark/channel-charter/v1" ‖ borsh)`.
    #[must_use]
    pub fn hash(&self) -> Hash32 {
        let bytes = borsh::to_vec(self).expect("writing to memory does not fail");
        tagged(b"seamark/channel-charter/v1", &[&bytes])
    }

    /// The first committee: every node of every founder.
    #[must_use]
    pub fn committee(&self) -> Committee {
        let seats = self.members.iter().flat_map(|member| {
            member.nodes.iter().map(|node| Member { node: node.node, org: member.org, key: node.key })
        });
        Committee::of(self.engine, self.group, Incarnation(0), Epoch(0), seats.collect())
    }

    /// The governance's first state, sorted by key. The group's committee and layout are not among it.
    #[must_use]
    pub fn genesis_writes(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut batch = Batch::default();
        let record = ChannelRecord {
            version: 1,
            cluster: self.cluster,
            group: self.group,
            name: self.name.clone(),
            engine: self.engine,
            phase: Phase::Running,
            founding: self.founding,
            started_ms: self.started_ms,
        };
        batch.put(state::channel_key(), &record);
        for member in &self.members {
            batch.put(state::member_key(member.org), member);
        }
        for (subject, policy) in &self.policies {
            batch.put(state::policy_key(*subject), policy);
        }
        if let Some(hash) = self.promise {
            batch.put(state::promise_key(), &PromiseRecord::waiting(hash));
        }
        let until_ms = TimeMs(self.started_ms.0.saturating_add(PROPOSAL_MS_MAX));
        for org in &self.invited {
            let invitation = Invitation { version: 1, org: *org, by: self.founding, until_ms };
            batch.put(state::invitation_key(*org), &invitation);
        }
        batch.into_puts()
    }
}
