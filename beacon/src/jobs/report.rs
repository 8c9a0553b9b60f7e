//! What nodes say about jobs and about their load, each under its signature.
//!
//! Owns the form of a report and whether it counts. A report counts for what its sender says of itself: a member of a
//! parent says that its copies are ready, a member of a child that it has opened its own. What follows is
//! [`super::table`]'s and [`super::scale`]'s.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::crypto::{self, PublicKey, SecretKey, Signature};
use ledger::hash::{Hash32, tagged};
use ledger::ids::{ClusterId, GroupId, JobId, NodeId, TimeMs};
use ledger::machine::BlockContext;
use ledger::reject::Reject;
use ledger::view::View;

use crate::jobs::scale::Load;
use crate::jobs::{scale, table};
use crate::keys;
use crate::limits::REPORT_SKEW_MS_MAX;
use crate::machine::{CommandOutcome, Executed};
use crate::registry;

/// Version written into new [`JobReport`]s.
pub const REPORT_VERSION: u8 = 1;

/// What a node says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Said {
    /// Its copies for all children of this job have caught up; of a parent that it is a member of.
    Warm(JobId),
    /// It has lost one of them, and makes it anew.
    Cold(JobId),
    /// Its replica of a child has executed that one's first block; of the child.
    Open(JobId),
    /// What its replica of the shard has and does, of a member that leads it.
    Load {
        /// Accounts.
        accounts: u64,
        /// Bytes of its database.
        bytes: u64,
        /// Transactions a second, over the last minute.
        tps: u32,
    },
    /// What its replica of the shard has and does, of a member that does not lead it.
    Follows {
        /// Accounts.
        accounts: u64,
        /// Bytes of its database.
        bytes: u64,
        /// Transactions a second, over the last minute.
        tps: u32,
    },
}

/// A node's word.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct JobReport {
    /// Format version, [`REPORT_VERSION`].
    pub version: u8,
    /// The cluster.
    pub cluster: ClusterId,
    /// Who says so.
    pub node: NodeId,
    /// The shard that it is about.
    pub group: GroupId,
    /// When, by its guarded clock; later than in any report of it about this shard before.
    pub at_ms: TimeMs,
    /// What it says.
    pub said: Said,
    /// By the key that the node signs headers with, over [`JobReport::digest`].
    pub signature: Signature,
}

impl JobReport {
    /// Signs a report.
    #[must_use]
    pub fn sign(cluster: ClusterId, node: NodeId, group: GroupId, at_ms: TimeMs, said: Said, key: &SecretKey) -> Self {
        let signature = key.sign(&digest(&cluster, node, group, at_ms, &said));
        Self { version: REPORT_VERSION, cluster, node, group, at_ms, said, signature }
    }

    /// What is signed: `sha256("seamark/report/v1" ‖ cluster ‖ borsh of the report without its signature)`.
    #[must_use]
    pub fn digest(&self) -> Hash32 {
        digest(&self.cluster, self.node, self.group, self.at_ms, &self.said)
    }

    /// Whether it is in form and signed with this key.
    #[must_use]
    pub fn holds(&self, key: &PublicKey) -> bool {
        self.version == REPORT_VERSION && crypto::verify(key, &self.digest(), &self.signature).is_ok()
    }
}

fn digest(cluster: &ClusterId, node: NodeId, group: GroupId, at_ms: TimeMs, said: &Said) -> Hash32 {
    let report = (REPORT_VERSION, *cluster, node, group, at_ms, *said);
    let bytes = borsh::to_vec(&report).expect("writing to memory does not fail");
    tagged(b"seamark/report/v1", &[&cluster.0.0, &bytes])
}

const SAID: &[u8] = b"said/";

/// Of which time the last report of a node about a shard was, by its clock.
fn said_key(node: NodeId, group: GroupId) -> Vec<u8> {
    registry::key(SAID, &[&node.0.to_be_bytes(), &group.0.to_be_bytes()])
}

/// Forgets when a node has reported, which is struck off.
pub(crate) fn forget_node(view: &mut View<'_>, node: NodeId) {
    let lines = view.scan_prefix(&registry::key(SAID, &[&node.0.to_be_bytes()]));
    lines.into_iter().for_each(|(key, _)| registry::remove(view, key));
}

/// Forgets when nodes have reported about a shard that has ended.
pub(crate) fn forget_group(view: &mut View<'_>, group: GroupId) {
    let lines = view.scan_prefix(&registry::key(SAID, &[])).into_iter().map(|(key, _)| key);
    let of_group: Vec<Vec<u8>> = lines.filter(|key| key.ends_with(&group.0.to_be_bytes())).collect();
    of_group.into_iter().for_each(|key| registry::remove(view, key));
}

/// Takes a node's report.
///
/// # Errors
/// [`Reject::WrongCluster`], and [`Reject::ReportForm`] when it counts for nothing: it is not signed by a node of the
/// registry, is not newer than the last one, or is not its sender's to say. The view is then unchanged.
pub fn apply_report(view: &mut View<'_>, at: &BlockContext, report: &JobReport) -> Result<Executed, Reject> {
    if report.cluster != at.cluster {
        return Err(Reject::WrongCluster);
    }
    let node = registry::node(view, report.node).ok_or(Reject::ReportForm)?;
    let key = said_key(report.node, report.group);
    let before: Option<TimeMs> = view.load(&key);
    let repeated = before.is_some_and(|before| report.at_ms <= before);
    let signed = keys::speaks_with(view, &node).iter().any(|key| report.holds(key));
    if repeated || at.time_ms.0.abs_diff(report.at_ms.0) > REPORT_SKEW_MS_MAX || !signed {
        return Err(Reject::ReportForm);
    }
    let from = (report.group, report.node);
    let heard = match report.said {
        Said::Warm(id) => table::warm(view, at, id, from)?,
        Said::Cold(id) => table::cold(view, id, from)?,
        Said::Open(id) => table::opened(view, at, id, from)?,
        Said::Load { accounts, bytes, tps } => scale::observe(view, at, from, (Load { accounts, bytes, tps }, true))?,
        Said::Follows { accounts, bytes, tps } => {
            scale::observe(view, at, from, (Load { accounts, bytes, tps }, false))?
        }
    };
    // What changes nothing is not remembered either: its sender need not have a seat there.
    let Some(executed) = heard else { return Ok(CommandOutcome::Applied.into()) };
    registry::put(view, key, &report.at_ms);
    Ok(executed)
}
