//! What organisations decide about epochs: how long they are, what is asked of their deals, and whether the next one evens
//! seats out.

use borsh::{BorshDeserialize, BorshSerialize};
use cross_shard::message::Message;
use ledger::ids::{GroupId, OrgId, TimeMs};
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::view::View;

use super::{
    Deal, EPOCH_VERSION, begin, drop_if_there, policy, policy_key, rebalance_key, rebalances, round, round_key,
    targets_key,
};
use crate::limits::{EPOCH_MS_MAX, EPOCH_MS_MIN};
use crate::machine::{CommandOutcome, Executed, refuse_full};
use crate::majority::{self, Verdict};
use crate::policies::Matter;
use crate::registry;
use crate::risk::PARTS;
use crate::seats;

/// How long an epoch is, and what is asked of its deals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EpochPolicy {
    /// Format version, [`EPOCH_VERSION`].
    pub version: u8,
    /// Length of an epoch, milliseconds of block time. Zero: there are none.
    pub length_ms: u64,
    /// Bad nodes, anywhere, that the target of risk counts with.
    pub bad_nodes: u16,
    /// The target: the largest probability, in parts of a thousand million, that a committee drawn by lot has more of them
    /// than it tolerates. Zero: no target.
    pub risk_max_ppb: u64,
}

impl EpochPolicy {
    /// The policy of a cluster that has decided on none.
    pub const DEFAULT: Self = Self { version: EPOCH_VERSION, length_ms: 0, bad_nodes: 0, risk_max_ppb: 0 };

    fn well_formed(&self) -> bool {
        self.version == EPOCH_VERSION
            && (self.length_ms == 0 || (EPOCH_MS_MIN..=EPOCH_MS_MAX).contains(&self.length_ms))
            && (self.bad_nodes == 0) == (self.risk_max_ppb == 0)
            && self.risk_max_ppb < PARTS
    }
}

/// What organisations decide about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) enum Ask {
    /// A policy.
    Policy(EpochPolicy),
    /// That the next deal evens seats out.
    Rebalance,
}

const PROPOSAL: &[u8] = b"epochs-proposal/";

/// Takes an organisation's approval; the one with which the policy holds decides. The first epoch begins with the policy that
/// asks for epochs. One that runs ends as it began when another length is decided, and is given up, with all that deals
/// want, when they are switched off.
///
/// # Errors
/// [`Reject::EpochForm`], [`Reject::LayoutRisk`], [`Reject::EpochsOff`], and when mail or proposals are full. The view is
/// then unchanged.
pub(crate) fn ask(
    view: &mut View<'_>,
    at: &BlockContext,
    signer: OrgId,
    ask: Ask,
    until_ms: TimeMs,
) -> Result<Executed, Reject> {
    let before = policy(view);
    match ask {
        Ask::Policy(wanted) if !wanted.well_formed() => return Err(Reject::EpochForm),
        Ask::Policy(wanted) if wanted == before => return Ok(CommandOutcome::Applied.into()),
        Ask::Policy(wanted) if Deal::decide(view, 0, &wanted, false).above_target() => return Err(Reject::LayoutRisk),
        Ask::Rebalance if before.length_ms == 0 => return Err(Reject::EpochsOff),
        Ask::Rebalance if rebalances(view) => return Ok(CommandOutcome::Applied.into()),
        Ask::Policy(_) | Ask::Rebalance => {}
    }
    let proposal = (Matter::Operation, PROPOSAL, registry::key(PROPOSAL, &[&registry::encode(&ask)]));
    let decided = match majority::approve(view, at, proposal, ask, (signer, until_ms))? {
        Verdict::Waits(pending) => return Ok(pending.into()),
        Verdict::Decided(decided) => decided,
    };
    refuse_full(view)?;
    let mail = match ask {
        Ask::Policy(wanted) => {
            // What was approved beside it was about another policy in force.
            decided.close(view, |_| true);
            registry::put(view, policy_key(), &wanted);
            put_in_force(view, at, &wanted)
        }
        Ask::Rebalance => {
            decided.close(view, |_| false);
            registry::put(view, rebalance_key(), &());
            Vec::new()
        }
    };
    registry::bump_revision(view);
    Ok(Executed { mail, ..CommandOutcome::Applied.into() })
}

fn put_in_force(view: &mut View<'_>, at: &BlockContext, wanted: &EpochPolicy) -> Vec<(GroupId, Message)> {
    match (round(view), wanted.length_ms) {
        (None, 0) | (Some(_), 1..) => Vec::new(),
        (None, 1..) => {
            begin(view, at, wanted);
            Vec::new()
        }
        (Some(_), 0) => {
            for key in [round_key(), targets_key(), rebalance_key()] {
                drop_if_there(view, key);
            }
            seats::go_on(view)
        }
    }
}
