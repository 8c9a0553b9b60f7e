//! Limits of the registry. Those that other crates share stand in `ledger::limits`.

use channel::limits::{POLICY_ITEMS_MAX, PROMISE_BYTES_MAX, TERMS_BYTES_MAX};
use ledger::limits::{
    BATCH_BYTES_MAX, BUNDLE_BYTES_MAX, CHARTER_BYTES_MAX, COMMITTEE_MAX, FOUNDERS_MAX, GRPC_BYTES_MAX,
    MAIL_WINDOW_MESSAGES, PEERS_MAX,
};

/// One encoded node: its texts at their limits, keys and numbers.
const NODE_BYTES_MAX: usize = NAME_BYTES_MAX + 2 * ADDR_BYTES_MAX + 128;
/// One encoded committee: for each member node, organisation and key, and a head.
const COMMITTEE_BYTES_MAX: usize = COMMITTEE_MAX * (4 + 2 + 33) + 32;
/// What is said for good of one shard that has begun: itself, and where two parents ended.
const BORN_BYTES_MAX: usize = 128 + 2 * 96;
/// One shard that has ended, as the layout says it.
const LINEAGE_BYTES_MAX: usize = 48;
/// One job: who approved it, two children, and what their members and those of two parents have said.
const JOB_BYTES_MAX: usize = ORGS_MAX * 2 + 2 * (COMMITTEE_BYTES_MAX + 32) + 4 * COMMITTEE_MAX * 12 + 512;
/// One encoded item of a policy: tags, count, organisation and role, rounded up.
const POLICY_ITEM_BYTES_MAX: usize = 16;
/// The layout: every shard that lives, and every one that has ended.
const LAYOUT_BYTES_MAX: usize = SHARDS_MAX * 17 + LINEAGE_MAX * LINEAGE_BYTES_MAX;
/// One encoded foundation: its charter, its members, two committees and a layout.
const FOUNDATION_BYTES_MAX: usize =
    CHARTER_BYTES_MAX + FOUNDERS_MAX * 2 + 2 * COMMITTEE_BYTES_MAX + LAYOUT_BYTES_MAX + 256;
/// What everybody is shown of a foundation: version, group and two hashes.
const FOUNDED_BYTES: usize = 1 + 8 + 2 * 32;
/// What everybody is shown of scaling: how often loads are reported, and which lead is to move.
const SCALE_BYTES: usize = 64;
/// What proves a registry: a path in the state tree, a header, and signatures of the beacon.
const PROOF_BYTES_MAX: usize = 512 * 1024;

/// Organisations of a cluster.
pub const ORGS_MAX: usize = 64;
/// Organisations that were removed in the life of a cluster. Each leaves its number and a revoked key.
pub const REMOVED_ORGS_MAX: usize = 1024;
/// Nodes of a cluster.
pub const NODES_MAX: usize = 1024;
/// Nodes that were struck off one by one in the life of a cluster. Each leaves its number and its key.
pub const REMOVED_NODES_MAX: usize = 4096;
/// Keys of nodes that were replaced, which are never taken again.
pub const REPLACED_KEYS_MAX: usize = 16_384;
/// Of these, those of one organisation that are taken whatever others have replaced: half of the room is for whoever comes
/// first, and the other half in equal parts, so that no organisation keeps others from replacing theirs.
pub const REPLACED_KEYS_OF_ORG: usize = REPLACED_KEYS_MAX / 2 / ORGS_MAX;
/// How long after a key was replaced two votes by it still take its node's seats. Longer than anybody can keep a proof from the
/// beacon, so that no node votes twice and has another key before that is found out; and then whoever finds an old key has
/// nothing by it.
pub const REPLACED_KEY_ACCUSES_MS: u64 = 24 * 60 * 60 * 1000;
/// How long the next key of a node stands, as long as some group still names it by one before. A group that can takes it in
/// seconds; for one that cannot, the key may then be replaced again.
pub const NODE_KEY_STANDS_MS: u64 = 60 * 60 * 1000;
/// Groups in which a node that joins is prepared for a seat at a time: it fetches the state of each.
pub const ARRIVALS_AT_ONCE: usize = 4;
/// Nodes that the pure function of assignment deals seats to. More than a registry holds, so that clusters can be
/// studied that are larger than those that run.
pub const ASSIGNED_NODES_MAX: usize = 4096;
/// Shards of a cluster.
pub const SHARDS_MAX: usize = 1024;
/// Shards that end in the life of a cluster. The layout names each of them for ever.
pub const LINEAGE_MAX: usize = 4096;
/// Bits of the prefix of a shard.
pub const PREFIX_MAX: u32 = 32;
/// Jobs that are under way at a time. Those that wait for approvals do not count: no organisation alone keeps the others
/// from deciding on any.
pub const JOBS_OPEN_MAX: usize = 16;
/// Jobs that have one organisation's approval and wait for others, or give it seats of its own by its word alone, when it
/// proposes another one.
pub const JOBS_PER_ORG_MAX: usize = 4;
/// Jobs that have ended and are still kept; the oldest is forgotten.
pub const JOBS_KEPT_MAX: usize = 64;
/// Bytes that followers of the registry are shown, beyond which no shard is cut or joined any more: half of a message, so
/// that nodes and channels that come later still find room.
pub const VIEW_BYTES_MAX: usize = (GRPC_BYTES_MAX - PROOF_BYTES_MAX) / 2;
/// How long the right half may take to get the nodes of the left one, milliseconds.
pub const ALIGN_MS_MAX: u64 = 60 * 60 * 1000;
/// How long nodes may take to make their copies, milliseconds.
pub const PREPARE_MS_MAX: u64 = 600_000;
/// How long parents may stand still before that is taken back, milliseconds.
pub const SEALING_MS_MAX: u64 = 5_000;
/// How long nodes are waited for to open the children, milliseconds.
pub const OPEN_MS_MAX: u64 = 600_000;
/// How far the clock of a report about a job may be from the block's time, milliseconds.
pub const REPORT_SKEW_MS_MAX: u64 = 30_000;
/// The longest time between two reports of a shard's load, milliseconds. They are more frequent where the policy of
/// scaling asks for a shorter time than two of these.
pub const LOAD_EVERY_MS_MAX: u64 = 60_000;
/// For how many times the time between two reports a load counts without being reported again.
pub const LOAD_REPORTS_FRESH: u64 = 3;
/// The shortest time for which a limit of scaling has to be passed, milliseconds.
pub const SCALE_SUSTAINED_MS_MIN: u64 = 10_000;
/// The longest such time, milliseconds: a day.
pub const SCALE_SUSTAINED_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// The longest pause after a change of the layout, milliseconds: 30 days.
pub const SCALE_COOLDOWN_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1000;
/// By how much the greater load of two nodes has to fall for a seat or a lead to move, percent: the least that a policy may
/// ask for. Loads are measured, and below that seats would move for nothing.
pub const SCALE_MARGIN_PERCENT_MIN: u8 = 10;
/// The most that a policy may ask for, percent.
pub const SCALE_MARGIN_PERCENT_MAX: u8 = 90;
/// How long a node is asked to give a lead away, milliseconds. Who does not in that time is not asked again before the load
/// speaks for it anew.
pub const LEAD_HINT_MS: u64 = 60_000;
/// How often the pause doubles that a job of scaling is followed by when it came to nothing since nodes did not answer: it
/// would come to nothing again.
pub const SCALE_DOUBLINGS_MAX: u32 = 5;
/// What was decided about scaling: so many lines are kept.
pub const SCALE_NOTES_MAX: usize = 32;
/// Channels that are not closed at a time: each costs its nodes a group that runs, and everybody mail.
pub const CHANNELS_MAX: usize = 64;
/// Channels that one organisation has proposed and that are not closed, with those that wait for approval. No
/// organisation alone keeps the others from founding any, and each may have several times what a consortium of average size
/// needs.
pub const CHANNELS_PER_ORG_MAX: usize = 16;
/// Channels that are founded in the life of a cluster. Everybody is shown the committee and the members of each, also when
/// it is closed, since it is read and proved for good; no ordinal is given twice.
pub const CHANNELS_EVER_MAX: usize = 512;
/// Foundations that a node asks for at a time, and is given in one message with the registry. Each may bring a layout with
/// all shards that have ever ended.
pub const FOUNDATIONS_ASKED_MAX: usize = 4;
/// Messages to a closed channel that wait to be taken. Beyond it is told nothing more: its nodes may have gone for good, and
/// the beacon neither waits for them nor keeps what nobody fetches.
pub const CLOSED_MAIL_MAX: u64 = 256;
/// Weight of one node in assignment.
pub const CAPACITY_MAX: u16 = 1000;
/// Bytes of the name of a cluster, an organisation or a zone.
pub const NAME_BYTES_MAX: usize = 64;
/// Bytes of a `host:port`: a DNS name, a colon and a port.
pub const ADDR_BYTES_MAX: usize = 253 + 1 + 5;
/// Bytes of an organisation's CA certificate in PEM.
pub const CA_PEM_BYTES_MAX: usize = 8 * 1024;
/// Encoded signed command.
pub const COMMAND_BYTES_MAX: usize = 16 * 1024;
/// How far in the future a command's deadline may lie.
pub const COMMAND_VALID_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// Commands remembered because they could still be sent again.
pub const COMMANDS_OPEN_MAX: usize = 4096;
/// Keys and certificates that one organisation may have revoked.
pub const REVOCATIONS_PER_ORG_MAX: usize = 128;
/// Foundings of channels that one organisation has proposed and that are kept, but for those that founded one:
/// those that wait for a decision, and those that came to nothing until their deadline.
pub const FOUNDINGS_PER_ORG_MAX: usize = 8;
/// Proposals of one kind that wait for approval.
pub const PROPOSALS_MAX: usize = 64;
/// Proposals of one kind that wait with the approval of one organisation alone. To approve what another one has proposed is
/// always free, so nobody can keep the others from deciding.
pub const PROPOSALS_PER_ORG_MAX: usize = 16;
/// Divergences kept for one group; the first ones are the evidence, more add nothing.
pub const DIVERGENCES_MAX: usize = 8;
/// The shortest silence after which a node counts as vanished, milliseconds.
pub const WATCH_AFTER_MS_MIN: u64 = 10_000;
/// The longest such silence, milliseconds: 30 days.
pub const WATCH_AFTER_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1000;
/// Nodes that may be out by policy at a time.
pub const WATCH_NODES_MAX: usize = 64;
/// What was decided about nodes that vanished: so many lines are kept.
pub const WATCH_NOTES_MAX: usize = 64;
/// The shortest epoch, milliseconds of block time.
pub const EPOCH_MS_MIN: u64 = 4_000;
/// The longest epoch, milliseconds of block time: 30 days.
pub const EPOCH_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1000;
/// Epochs that are kept with all that went into their seeds and deals.
pub const EPOCHS_KEPT: usize = 8;
/// Encoded contribution to a seed.
pub const CONTRIBUTION_BYTES_MAX: usize = 256;
/// Silent nodes that one report names. Where more are silent, the network is cut, and none of them is replaced.
pub const SILENT_NODES_MAX: usize = 64;
/// How long a report counts without being repeated, by block time, milliseconds.
pub const SILENCE_FRESH_MS: u64 = 30_000;
/// How far the clock of a report may be from the block's time, milliseconds.
pub const SILENCE_SKEW_MS_MAX: u64 = 30_000;
/// Encoded report about silent nodes: its head, and a number for each.
pub const SILENCE_BYTES_MAX: usize = 256 + SILENT_NODES_MAX * 4;
/// Encoded certificate of a checkpoint.
pub const CHECKPOINT_BYTES_MAX: usize = 256 * 1024;

/// Blocks between two checkpoints of a group, each of which is followed by a trail.
pub const CHECKPOINT_EVERY_BLOCKS: u64 = 64;
/// A group that made fewer blocks shows its last one again after so long, milliseconds: nothing that was done stays
/// unaudited, and what got lost is asked for again.
pub const CHECKPOINT_AGAIN_MS: u64 = 5_000;
/// Headers of a trail. What a group is behind beyond that comes with the next ones.
pub const AUDIT_TRAIL_BLOCKS_MAX: usize = 256;
/// Encoded headers of a trail, without the certified one.
pub const AUDIT_TRAIL_BYTES_MAX: usize = 512 * 1024;
/// Encoded trail or proof: headers, a certificate, and where all streams of a group stand.
pub const AUDIT_BYTES_MAX: usize = AUDIT_TRAIL_BYTES_MAX + 2 * CHECKPOINT_BYTES_MAX + 2 * PEERS_MAX * 48;
/// Streams that the audit is shown of a group in a second, over a long time. One with no more than these shows all of them with
/// each trail; one with more shows all of them once in so many seconds that it comes to no more.
pub const AUDIT_STREAMS_PER_S: u64 = 16;
/// How many peers of a shard are compared again with theirs when a trail of it is taken: that of the shard may be what
/// they waited for.
pub const AUDIT_PEERS_AGAIN_MAX: usize = 16;
/// Shards that are gone whose missing headers are asked for at a time, of a member of one that came of them.
pub const AUDIT_RETIRED_ASKED_MAX: usize = 4;
/// Proofs that are kept of one group; the first ones say enough.
pub const AUDIT_PROOFS_MAX: usize = 8;
/// Lines of what was found and not released yet.
pub const AUDIT_FINDINGS_MAX: usize = 256;
/// Amounts on their way that are shown.
pub const AUDIT_TRANSITS_MAX: usize = 1024;
/// Encoded audit report.
pub const AUDIT_REPORT_BYTES_MAX: usize = 4 * 1024 * 1024;

const _: () = assert!(AUDIT_BYTES_MAX * 2 < BATCH_BYTES_MAX, "a trail fits into a batch with other commands");
const _: () = assert!(AUDIT_REPORT_BYTES_MAX < GRPC_BYTES_MAX, "a report is one answer");
const _: () = assert!(AUDIT_STREAMS_PER_S > 0, "a round of the audit has an end");
const _: () = assert!(CHECKPOINT_EVERY_BLOCKS < AUDIT_TRAIL_BLOCKS_MAX as u64, "trails catch up with checkpoints");
const _: () = assert!(CA_PEM_BYTES_MAX * 2 <= COMMAND_BYTES_MAX, "a CA certificate fits into a command");
const _: () = assert!(
    TERMS_BYTES_MAX + PROMISE_BYTES_MAX + 1024 <= COMMAND_BYTES_MAX,
    "a founding with what it promises and the proposer's nodes fits into a command"
);
const _: () = assert!(COMMAND_BYTES_MAX < BATCH_BYTES_MAX, "a command fits into a batch");
const _: () = assert!(POLICY_ITEMS_MAX * POLICY_ITEM_BYTES_MAX < COMMAND_BYTES_MAX / 2, "a policy fits into a command");
const _: () = assert!(
    PROPOSALS_MAX * (POLICY_ITEMS_MAX * POLICY_ITEM_BYTES_MAX + ORGS_MAX * 4 + 64)
        + PROPOSALS_MAX * 2 * (NAME_BYTES_MAX + ORGS_MAX * 4 + 64)
        < GRPC_BYTES_MAX,
    "what waits about organisations and policies is one answer"
);
const _: () = assert!(CHECKPOINT_BYTES_MAX * 8 < BATCH_BYTES_MAX, "several checkpoints fit into a batch");
const _: () = assert!(PROPOSALS_MAX >= ORGS_MAX, "the removal of every organisation can be proposed");
const _: () =
    assert!(PROPOSALS_PER_ORG_MAX * 4 <= PROPOSALS_MAX, "one organisation has a part of the proposals at most");
const _: () = assert!(FOUNDERS_MAX >= ORGS_MAX, "all organisations may found a group together");
const _: () = assert!(CHANNELS_PER_ORG_MAX * 4 <= CHANNELS_MAX, "one organisation has a part of the channels at most");
const _: () = assert!(JOBS_PER_ORG_MAX * 4 <= JOBS_OPEN_MAX, "one organisation has a part of the jobs at most");
const _: () = assert!(CHANNELS_MAX <= CHANNELS_EVER_MAX, "as many channels can be founded as may run");
const _: () = assert!(CLOSED_MAIL_MAX < MAIL_WINDOW_MESSAGES, "a closed channel is left before its stream is full");
const _: () = assert!(1 + SHARDS_MAX + CHANNELS_EVER_MAX <= PEERS_MAX, "every group may write to every other one");
const _: () = assert!(COMMITTEE_MAX <= NODES_MAX, "the largest committee can be seated");
const _: () = assert!(SILENCE_BYTES_MAX * NODES_MAX < BATCH_BYTES_MAX, "a report of every node fits into a batch");
const _: () = assert!(
    CONTRIBUTION_BYTES_MAX * 2 * COMMITTEE_MAX < BATCH_BYTES_MAX,
    "both parts of every member fit into a batch"
);
const _: () = assert!(
    EPOCHS_KEPT * (NODES_MAX * (NAME_BYTES_MAX + 32) + 2 * SHARDS_MAX * (COMMITTEE_MAX * 4 + 32) + COMMITTEE_MAX * 256)
        + PROOF_BYTES_MAX
        < GRPC_BYTES_MAX,
    "the epochs that are kept and their proof fit into one message"
);
const _: () = assert!(NODES_MAX <= ASSIGNED_NODES_MAX, "all nodes of a registry can be given seats");
const _: () = assert!(
    ORGS_MAX * (CA_PEM_BYTES_MAX + 256)
        + NODES_MAX * NODE_BYTES_MAX
        + (SHARDS_MAX + 1) * (COMMITTEE_BYTES_MAX + 64)
        + LINEAGE_MAX * LINEAGE_BYTES_MAX
        + JOBS_OPEN_MAX * JOB_BYTES_MAX
        + SCALE_BYTES
        + SHARDS_MAX * BORN_BYTES_MAX
        + CHANNELS_EVER_MAX * (COMMITTEE_BYTES_MAX + FOUNDED_BYTES + ORGS_MAX * 2 + 12)
        + CHANNELS_MAX * COMMITTEE_BYTES_MAX
        + FOUNDATIONS_ASKED_MAX * FOUNDATION_BYTES_MAX
        + (SHARDS_MAX + CHANNELS_EVER_MAX) * 8
        + (ORGS_MAX * REVOCATIONS_PER_ORG_MAX + REMOVED_ORGS_MAX) * 34
        + PROOF_BYTES_MAX
        < GRPC_BYTES_MAX,
    "a registry with its layout, its committees, its jobs and its proof fits into one message, with foundations that are \
     asked for"
);
const _: () = assert!(
    LAYOUT_BYTES_MAX + 2 * (COMMITTEE_BYTES_MAX + 64) + 256 < BUNDLE_BYTES_MAX,
    "a seal, and a change of the layout, is one message"
);
const _: () = assert!(LOAD_REPORTS_FRESH >= 2, "one report of a load may be lost");
const _: () = assert!(SCALE_SUSTAINED_MS_MIN / 2 > 1_000, "loads are not reported faster than they are taken");
const _: () = assert!(SEALING_MS_MAX < PREPARE_MS_MAX, "a shard stands still for a moment only");
const _: () = assert!(
    ORGS_MAX * (NAME_BYTES_MAX + 128)
        + NODES_MAX * 64
        + (ORGS_MAX * REVOCATIONS_PER_ORG_MAX + REMOVED_ORGS_MAX) * 34
        + 1024
        < BUNDLE_BYTES_MAX,
    "what a channel is told of the registry is one message"
);
