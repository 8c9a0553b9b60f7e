//! What a run tells.

use std::collections::{BTreeMap, BTreeSet};

use beacon::BeaconCommand;
use channel::{Command as Act, Outcome as Done};
use cross_shard::Message;
use cross_shard::commit::Decision;
use ledger::header::FLAG_SEALED;
use ledger::receipt::Outcome;
use ledger::reject::Reject;
use ledger::rules::HistoryKind;
use serde::{Deserialize, Serialize};

use crate::checkers::{BlockSeen, Governed};
use crate::council::carried_out;

macro_rules! coverage {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        /// What happened in a run, so that a set of runs can be shown to have tested something.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Coverage { $($(#[$doc])* pub $name: u64,)* }

        impl Coverage {
            /// Adds another run's counts.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// Every count with its name.
            #[must_use]
            pub fn counts(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

coverage! {
    /// Blocks of all groups, each counted once.
    blocks;
    /// Terms that got a leader, beyond the first of each group.
    leader_changes;
    /// Nodes that lost power.
    crashes;
    /// Log writes that crashes took.
    lost_log_writes;
    /// Batches of state that crashes took.
    lost_state_batches;
    /// Blocks that a replica applied again after a crash.
    replayed_blocks;
    /// Messages that never arrived.
    lost_messages;
    /// Messages that arrived twice.
    duplicated_messages;
    /// Messages that were held back so that later ones overtook them.
    reordered_messages;
    /// Times that all clocks leapt ahead.
    leaps;
    /// Bundles that a bad anchor altered.
    altered;
    /// Bundles that an anchor of a channel passed on to the replica that leads.
    passed_on;
    /// Forged messages of incarnations that have ended.
    ghosts;
    /// Times a router asked a group again.
    retries;
    /// Routers that died in the middle of a hand-over.
    dead_routers;
    /// Times a client was told that a group has applied a transaction.
    applied;
    /// Transactions that were answered with an earlier receipt.
    known;
    /// Votes for a transaction.
    yes_votes;
    /// Votes against one.
    no_votes;
    /// Votes against, because something undecided was in the way.
    conflicts;
    /// Votes against, because the deadline was past.
    late_votes;
    /// Votes against, because an account had not signed.
    unsigned_votes;
    /// Receipts of an abort, one for each group.
    resolved_aborts;
    /// Registers that were removed.
    dropped_registers;
    /// Receipts with a credit for another group.
    cross_shard;
    /// Receipts without funds.
    overdrafts;
    /// Credits that went into suspense.
    suspended;
    /// Hash-locks that were made.
    locked;
    /// Hash-locks that were claimed.
    claimed;
    /// Hash-locks that were refunded.
    refunded;
    /// Hashes that were recorded.
    recorded;
    /// Grants and revocations.
    granted;
    /// Acts in the governance of channels and in the registry that admins sent.
    acts;
    /// Leaders that lost power with an act under way.
    acts_cut;
    /// Acts that were executed and not refused.
    governed;
    /// Organisations that left a channel, or became members again.
    moved;
    /// Changes of a member's keys.
    rekeyed;
    /// Keys and certificates revoked in the registry that a channel heard of.
    revoked;
    /// Acts under a key that the registry had revoked, in a channel that had not heard of it yet: they count.
    stolen_used;
    /// Acts that a channel refused under a key that had counted there until it heard of its revocation.
    stolen_refused;
    /// Approvals of what was not decided that ceased to count when the channel heard that their key was revoked.
    voices_lost;
    /// Entries that Byzantine groups decided, each counted once.
    decided;
    /// Of these, those that it took more than one round to decide.
    later_rounds;
    /// Times that a member of a Byzantine group lied.
    lies;
    /// Proofs of a double vote that honest members found.
    evidence;
    /// Nodes that the beacon has accused of having voted twice.
    accused;
    /// Accused nodes that their organisations had struck off at the end, none of them with a seat.
    struck_off;
    /// Proofs of a double vote that liars made up and had the beacon judge.
    slanders;
    /// Ballots that the keys of accused nodes signed when these had no seat any more.
    late_ballots;
    /// Times that a replica took part under another engine than before.
    stints;
    /// Shards that began as one half of another one.
    halves;
    /// Shards that two others were joined into.
    joined;
    /// Blocks that told a shard to stand still, each counted once.
    seals;
    /// Committees of shards and of the beacon that came into force with other members than before.
    reseated;
    /// Commands that nodes come or go by, and that the registry has carried out.
    comings;
    /// Approvals of other policies of the cluster that the registry has taken.
    rulings;
    /// Signing keys of nodes that the registry has replaced.
    renewed;
    /// Signing keys that nodes have dropped because another one took their place everywhere.
    keys_gone;
    /// Times a router that went by an old layout handed a transaction to a shard that had ended.
    stale_routes;
    /// Epochs that ended.
    epochs;
    /// Members of the beacon that had committed themselves in one of them and did not reveal.
    withheld;
    /// Channels that were founded while the cluster ran.
    founded;
    /// Openings that such channels were given and that their foundings had promised.
    opened;
    /// Committees of such channels that came into force after the first.
    seated;
    /// Transactions that such a channel and another group have carried out together.
    swaps_in_changing_channels;
    /// Transactions that such a channel had agreed to and that were undecided when its members or its committee changed, at each
    /// such change.
    undecided_at_a_change;
    /// Transactions that such a channel has carried out alone, behind a change of its members or of its committee.
    payments_behind_a_change;
    /// Amounts that came into such channels from the main ledger.
    brought_in;
    /// Amounts that left such channels for the main ledger.
    taken_home;
    /// Times that such a channel refused a client because its organisation is no member, and another organisation's came in
    /// its place.
    handed_on;
    /// States that replicas fetched from others.
    fetched;
    /// Fetches that were interrupted: by the power, or because the source was gone.
    fetches_cut;
    /// Replicas that nodes removed because their group went on without them.
    departed;
    /// Votes against, because the channel was frozen.
    barred_votes;
    /// Amounts that arrived from another ledger.
    transferred;
    /// Times a client was refused because the deadline was past.
    expired;
    /// Certificates gathered, counted on each replica.
    certificates;
    /// Checkpoints that the beacon took, counted at the end.
    checkpoints;
    /// Times that what all groups hold on disk at their newest heights was compared with what was minted and burned.
    sums;
    /// Vectors of heights, one of each group, at which what there is was compared with what was minted and burned.
    vectors;
    /// Of these, those in which shards have ended and others stand for them.
    vectors_across;
    /// Disks whose accounts were compared with what their group held at their height.
    disks_compared;
}

impl Coverage {
    /// Counts what a block shows, once for each height.
    pub(crate) fn of_block(&mut self, block: &BlockSeen) {
        self.governed += carried_out(block, |_, _| true);
        self.moved += carried_out(block, |_, outcome| matches!(outcome, Done::Joined { .. } | Done::Left { .. }));
        self.rekeyed += carried_out(block, |act, _| {
            matches!(act, Act::AddKey { .. } | Act::RotateKey { .. } | Act::RevokeKey { .. })
        });
        self.opened += carried_out(block, |act, _| matches!(act, Act::Open { .. }));
        for governed in &block.governed {
            if let Governed::Told(_, update) = governed {
                self.revoked += update.revoked.len() as u64;
            }
        }
        for (dest, _, message) in &block.mail {
            if let Message::CommitteeUpdate(committee) = message {
                self.seated += u64::from(committee.group == *dest && committee.epoch.0 > 0);
            }
        }
        let commands = block.governed.iter().filter_map(|governed| match governed {
            Governed::Registered(signed) => signed.parse().ok(),
            _ => None,
        });
        let commands: Vec<BeaconCommand> = commands.collect();
        let rulings = commands.iter().filter(|command| matches!(command, BeaconCommand::SetPolicy(_)));
        self.rulings += rulings.count() as u64;
        let renewed = commands.iter().filter(|command| matches!(command, BeaconCommand::RotateNodeKey { .. }));
        self.renewed += renewed.count() as u64;
        let comings = commands.iter().filter(|command| {
            matches!(
                command,
                BeaconCommand::RegisterNode(_)
                    | BeaconCommand::SetNodeCapacity { .. }
                    | BeaconCommand::RemoveNode { .. }
                    | BeaconCommand::JoinNode { .. }
                    | BeaconCommand::ReplaceNode { .. }
            )
        });
        self.comings += comings.count() as u64;
        self.accused += block.accused.accusations.len() as u64;
        self.epochs += block.epochs.records.len() as u64;
        let entrants = block.epochs.records.iter().flat_map(|record| &record.entrants);
        let silent = entrants.filter(|entrant| entrant.commitment.is_some() && entrant.secret.is_none());
        self.withheld += silent.count() as u64;
        let arrived = block.lines.iter().filter(|line| line.kind == HistoryKind::Arrived);
        self.transferred += arrived.count() as u64;
        for (_, decision) in &block.votes {
            let Decision::No(reason) = decision else {
                self.yes_votes += 1;
                continue;
            };
            self.no_votes += 1;
            self.barred_votes += u64::from(*reason == Reject::ChannelFrozen);
            self.conflicts += u64::from(*reason == Reject::Conflict);
            self.late_votes += u64::from(*reason == Reject::Expired);
            self.unsigned_votes += u64::from(*reason == Reject::NotAuthorised);
        }
        for receipt in &block.receipts {
            match &receipt.outcome {
                Outcome::Committed { mail } => self.cross_shard += u64::from(!mail.is_empty()),
                Outcome::Rejected(reason) => self.overdrafts += u64::from(*reason == Reject::InsufficientFunds),
                Outcome::Aborted { .. } => self.resolved_aborts += 1,
            }
        }
        self.seals += u64::from(block.header.flags & FLAG_SEALED != 0);
        self.dropped_registers += block.registers.iter().filter(|write| write.value.is_none()).count() as u64;
        for line in &block.lines {
            let counted = match line.kind {
                HistoryKind::Suspended => &mut self.suspended,
                HistoryKind::Locked => &mut self.locked,
                HistoryKind::Claimed => &mut self.claimed,
                HistoryKind::Refunded => &mut self.refunded,
                HistoryKind::Recorded => &mut self.recorded,
                HistoryKind::Granted | HistoryKind::Revoked => &mut self.granted,
                _ => continue,
            };
            *counted += 1;
        }
    }
}

/// What a proof of a double vote is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proved {
    /// The group.
    pub group: String,
    /// The entry that was voted on twice.
    pub entry: u64,
    /// Who voted.
    pub node: u32,
}

/// The result of one seed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimReport {
    /// The seed.
    pub seed: u64,
    /// The kind of faults.
    pub scenario: String,
    /// Shards of the cluster.
    pub shards: u64,
    /// Its nodes.
    pub nodes: u64,
    /// Distinct transactions in the load.
    pub transactions: u64,
    /// How many were executed.
    pub committed: u64,
    /// How many have a receipt that says they were not. The rest was refused without one, or never
    /// reached a group.
    pub aborted: u64,
    /// Faults that were injected: crashes, cuts, stalls, clock jumps, slow disks, bad weather, bad
    /// anchors, leaps, forged mail. Single lost or repeated messages are counted in `coverage`.
    pub faults: u64,
    /// What must never happen and did; empty for a good run.
    pub violations: Vec<String>,
    /// SHA-256 over all delivered events, in hex.
    pub event_hash: String,
    /// Virtual time of the whole run, leaps included.
    pub virtual_seconds: f64,
    /// Delivered events.
    pub events: u64,
    /// What was tested.
    pub coverage: Coverage,
    /// What liars have done that has a name, and how often ([`crate::liars::Ruse`]).
    pub ruses: BTreeMap<String, u64>,
    /// Payments of more than there is that liars have made, and that were executed and rejected for that.
    pub overdrafts_refused: u64,
    /// What proofs of double votes were about that honest members have, each once; in runs with too many liars alone.
    pub proofs: BTreeSet<Proved>,
    /// The last events before the first violation, if the run was recorded.
    pub tail: Vec<String>,
    /// The command that repeats the run, when something was violated.
    pub reproduce: Option<String>,
}

impl SimReport {
    /// Whether nothing was violated.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.violations.is_empty()
    }
}
