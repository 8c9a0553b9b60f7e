//! What the beacon shows of the audit: how far each group is, what is in flight, what was found, and who is held.

use std::collections::{BTreeMap, BTreeSet};

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::ids::{AssetId, GroupId, GroupKind};
use ledger::view::View;

use crate::audit::flows::{self, AssetSums};
use crate::audit::lines::Lines;
use crate::audit::quarantine::{self, DivergentMark, Quarantine};
use crate::audit::{AUDIT_VERSION, Finding, GroupAudit, findings, rounds, trail};
use crate::limits::AUDIT_TRANSITS_MAX;
use crate::registry::{self, Checkpoint};

/// How far one group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct GroupState {
    /// The group.
    pub group: GroupId,
    /// The last block that it showed a certificate of.
    pub checkpoint: Option<Checkpoint>,
    /// The last block that is audited.
    pub audited: Option<GroupAudit>,
}

/// What one shard has given to another, as of the blocks at which they last showed their streams, where the two do not say the
/// same: it is on its way, or one of them has shown them later. A shard that was cut or joined stands for all that came from each other, by the lowest number;
/// what they have given is shown as one amount, to all shards together (`to` is `from`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Transit {
    /// Who has given.
    pub from: GroupId,
    /// Who gets it.
    pub to: GroupId,
    /// The asset.
    pub asset: AssetId,
    /// What the first says it has given, modulo 2^128.
    pub exported: u128,
    /// What the second says it has got, modulo 2^128.
    pub imported: u128,
}

/// All of it, as of one block of the beacon.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AuditStatus {
    /// Format version, [`AUDIT_VERSION`].
    pub version: u8,
    /// Every group but the beacon, and the shards that are gone and not audited to their ends, ascending.
    pub groups: Vec<GroupState>,
    /// What is on its way between shards, the first of it.
    pub transits: Vec<Transit>,
    /// What was found and not released, the latest last.
    pub findings: Vec<Finding>,
    /// Groups that are or were in quarantine, ascending.
    pub quarantines: Vec<Quarantine>,
    /// Replicas that diverge or did, by node.
    pub divergent: Vec<DivergentMark>,
}

impl AuditStatus {
    /// Reads it from the beacon's state.
    pub fn read(view: &mut View<'_>) -> Self {
        let known: Vec<GroupId> = registry::committees(view).into_iter().map(|committee| committee.group).collect();
        let others: Vec<GroupId> = known.into_iter().filter(|group| *group != GroupId::BEACON).collect();
        let state = |view: &mut View<'_>, group| GroupState {
            group,
            checkpoint: registry::checkpoint(view, group),
            audited: trail::audited(view, group),
        };
        let mut groups: Vec<GroupState> = others.iter().map(|group| state(view, *group)).collect();
        for entry in registry::layout(view).into_iter().flat_map(|layout| layout.lineage) {
            let gone = state(view, entry.group);
            // Not before it has shown its streams at its end, too: until then no shard is compared.
            let end = gone.checkpoint.map(|last| last.height);
            if rounds::upto(view, entry.group) != end {
                groups.push(gone);
            }
        }
        groups.sort_by_key(|state| state.group);
        Self {
            version: AUDIT_VERSION,
            groups,
            transits: transits(view, &others),
            findings: findings(view),
            quarantines: quarantine::quarantines(view),
            divergent: quarantine::divergent(view),
        }
    }

    /// Whether nothing was found that is not released, and nobody is held.
    #[must_use]
    pub fn sound(&self) -> bool {
        self.findings.is_empty()
            && !self.quarantines.iter().any(Quarantine::holds)
            && !self.divergent.iter().any(DivergentMark::holds)
    }
}

/// What an operator must know of it: a line for each group in quarantine and for each replica that diverges, and one for
/// all that was found.
pub fn alarms(view: &mut View<'_>) -> Vec<String> {
    let held = quarantine::quarantines(view).into_iter().filter(Quarantine::holds).map(|mark| {
        format!(
            "{} is in quarantine since block {} of the beacon: what it has certified up to its height {} excludes each \
             other. Routers give it nothing new; see 'seamark audit report'",
            mark.group, mark.taken, mark.height
        )
    });
    let mut alarms: Vec<String> = held.collect();
    alarms.extend(quarantine::divergent(view).into_iter().filter(DivergentMark::holds).map(|mark| {
        format!(
            "node {} has another block {} of {} than was certified: its state there is wrong, and its seats go to others; \
             rebuild the replica, then 'seamark audit release'",
            mark.node, mark.height, mark.group
        )
    }));
    let found = findings(view);
    alarms.extend(found.first().map(|first| {
        let (count, text) = (found.len(), first.flaw.text());
        format!("the audit has found {count}, first of {} at height {}: {text}", first.group, first.height)
    }));
    alarms
}

/// What shards say differently of each other at present.
fn transits(view: &mut View<'_>, groups: &[GroupId]) -> Vec<Transit> {
    let layout = registry::layout(view);
    let lines = layout.as_ref().map(Lines::of).unwrap_or_default();
    let retired = layout.iter().flat_map(|layout| layout.lineage.iter().map(|entry| entry.group));
    let shards: BTreeSet<GroupId> = groups.iter().copied().chain(retired).filter(is_shard).collect();
    let all: Vec<AssetSums> = shards.into_iter().flat_map(|group| flows::sums(view, group)).collect();
    let place = |from: GroupId, to: GroupId, asset: AssetId| {
        let from = lines.name(from);
        (from, if lines.reshaped(from) { from } else { lines.name(to) }, asset)
    };
    let mut amounts: BTreeMap<(GroupId, GroupId, AssetId), (u128, u128)> = BTreeMap::new();
    for sums in &all {
        for (to, amount) in sums.exported.iter().filter(|(to, _)| is_shard(to)) {
            let given = &mut amounts.entry(place(sums.group, *to, sums.asset)).or_default().0;
            *given = given.wrapping_add(*amount);
        }
        for (from, amount) in sums.imported.iter().filter(|(from, _)| is_shard(from)) {
            let got = &mut amounts.entry(place(*from, sums.group, sums.asset)).or_default().1;
            *got = got.wrapping_add(*amount);
        }
    }
    let open = amounts.into_iter().filter(|(_, (exported, imported))| exported != imported);
    let transit = |((from, to, asset), (exported, imported))| Transit { from, to, asset, exported, imported };
    open.map(transit).take(AUDIT_TRANSITS_MAX).collect()
}

fn is_shard(group: &GroupId) -> bool {
    group.kind() == Some(GroupKind::Shard)
}
