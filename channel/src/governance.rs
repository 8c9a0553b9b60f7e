//! All of a channel's governance at one moment, as its members read it.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::ids::{Height, TimeMs};
use ledger::view::View;

use crate::change::Subject;
use crate::opening::PromiseRecord;
use crate::policy::Policy;
use crate::proposal::Proposal;
use crate::state::{self, ChannelRecord, GrantRecord, Invitation, MemberRecord};

/// Version written into new [`Governance`]. Version 1 did not say what the founding promised.
pub const GOVERNANCE_VERSION: u8 = 2;

/// Who takes part in a channel, by which rules, and what is under way.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Governance {
    /// Format version, [`GOVERNANCE_VERSION`].
    pub version: u8,
    /// The block that this is the state after.
    pub height: Height,
    /// Its time; deadlines are judged by it.
    pub time_ms: TimeMs,
    /// The channel.
    pub record: ChannelRecord,
    /// Its members, by organisation.
    pub members: Vec<MemberRecord>,
    /// One policy for each subject, in order.
    pub policies: Vec<(Subject, Policy)>,
    /// Invitations, by organisation; they may have ended.
    pub invitations: Vec<Invitation>,
    /// Proposals that are kept, open or ended, by id.
    pub proposals: Vec<Proposal>,
    /// Audit grants, by organisation; they may have ended.
    pub grants: Vec<GrantRecord>,
    /// What the founding promised, and how far the channel is with it.
    pub promise: Option<PromiseRecord>,
}

impl Governance {
    /// Reads it; `None` in a group that is no channel.
    pub fn read(view: &mut View<'_>, height: Height, time_ms: TimeMs) -> Option<Self> {
        let record = state::channel(view)?;
        let policies =
            Subject::ALL.into_iter().filter_map(|subject| Some((subject, state::policy(view, subject)?))).collect();
        Some(Self {
            version: GOVERNANCE_VERSION,
            height,
            time_ms,
            record,
            members: state::members(view),
            policies,
            invitations: state::invitations(view),
            proposals: state::proposals(view),
            grants: state::grants(view),
            promise: state::promise(view),
        })
    }
}
