//! From a committed entry to a block: applies the commands to a view, moves the state tree, and
//! computes the header. Pure; the host persists what comes out in one atomic batch.

use beacon::jobs::RootShape;
use bytes::Bytes;
use consensus::port::AppliedState;
use cross_shard::InCursor;
use cross_shard::commit::Decision;
use cross_shard::stream::StreamLeaf;
use ledger::committee::Committee;
use ledger::genesis::VerifyMode;
use ledger::hash::Hash32;
use ledger::header::{FLAG_SEALED, HEADER_VERSION, Header};
use ledger::ids::{ClusterId, GroupId, GroupKind, TimeMs, TxId};
use ledger::layout::Layout;
use ledger::lineage::{Seal, SealedBy};
use ledger::machine::BlockContext;
use ledger::merkle;
use ledger::receipt::Receipt;
use ledger::reject::Reject;
use ledger::schema;
use ledger::tree::{StateTree, TreeError, value_hash};
use ledger::tx::ParsedTx;
use ledger::view::{ReadFault, StateReader, View};

use crate::core::applied::{AppliedRecord, ENGINE_START_VERSION, EngineStart};
use crate::core::entry::{Command, Entry};
use crate::core::heads::Heads;
use crate::core::machine::{self, BlockWork, CommandOutcome};
use crate::core::records::{self, BlockRecord};
use crate::core::sealing;

/// What stays the same for all blocks of a group.
#[derive(Clone, Copy, Debug)]
pub struct GroupConstants {
    /// The cluster.
    pub cluster: ClusterId,
    /// The group.
    pub group: GroupId,
    /// How far client signatures are checked.
    pub verify: VerifyMode,
}

/// A message that a block emitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmittedMail {
    /// Where it goes.
    pub dest: GroupId,
    /// Its sequence number.
    pub seq: u64,
    /// Its bytes.
    pub message: Bytes,
}

/// A transaction that a block refused without a receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedTx {
    /// Its id.
    pub txid: TxId,
    /// The bytes that were refused; others with the same id may be executed yet.
    pub bytes: Bytes,
    /// Why.
    pub reject: Reject,
}

/// A block before it is persisted.
pub struct ExecutedBlock {
    /// The header.
    pub header: Header,
    /// Its hash.
    pub header_hash: Hash32,
    /// Everything to write, in one batch, sorted by key; `None` deletes.
    pub writes: Vec<(Vec<u8>, Option<Bytes>)>,
    /// What the next block continues from; also among the writes.
    pub applied: AppliedRecord,
    /// What became of each command.
    pub outcomes: Vec<CommandOutcome>,
    /// New receipts.
    pub receipts: Vec<Receipt>,
    /// Transactions refused without one, by their bytes: the txid does not cover the witnesses.
    pub refused: Vec<RefusedTx>,
    /// Votes of this group on transactions that others vote on, too.
    pub votes: Vec<(TxId, Decision)>,
    /// The earliest deadline in state: once the time is past it, a block is due.
    pub next_deadline: Option<TimeMs>,
    /// New mail.
    pub mail: Vec<EmittedMail>,
    /// Heads of outgoing streams after the block.
    pub outbox: Vec<StreamLeaf>,
    /// Cursors of incoming streams after the block.
    pub inbox: Vec<StreamLeaf>,
    /// Cursors with all that mail is followed by: those that the block has moved, and all of them when they were read.
    pub cursors: Vec<(GroupId, InCursor)>,
    /// Transactions whose signatures a replica has to check before it attests; empty in `ingest`.
    pub to_verify: Vec<ParsedTx>,
    /// Committees or the layout changed.
    pub system_changed: bool,
    /// Where another engine begins, and with which committee, when the block has put one into force.
    pub handed_over: Option<(EngineStart, Committee)>,
    /// The seal that the block has taken: nothing follows on it but what takes the seal back.
    pub sealed: Option<SealedBy>,
    /// With a seal: what stands at the top of both halves, left first, or of the whole where two shards are to be joined.
    pub shapes: Vec<RootShape>,
    /// A seal was taken back.
    pub unsealed: bool,
    /// The layout has changed, and with it streams have ended or begun: whoever keeps them in memory reads them again.
    pub reshaped: bool,
}

/// What an entry comes to.
pub enum Execution {
    /// A block.
    Block(Box<ExecutedBlock>),
    /// Nothing: the group is sealed, and the entry does not take the seal back. It makes no block and leaves no trace but
    /// that the position moves behind it.
    Void,
}

impl Execution {
    /// The block, if it is one.
    #[must_use]
    pub fn block(self) -> Option<ExecutedBlock> {
        match self {
            Self::Block(block) => Some(*block),
            Self::Void => None,
        }
    }
}

/// Why a block cannot be made. The group stops.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The database failed or holds bytes that are not ours.
    #[error(transparent)]
    Read(#[from] ReadFault),
    /// A key outside the shard's prefix, or another broken invariant of the tree.
    #[error("the state tree refused an update: {0}")]
    Tree(#[from] TreeError),
    /// Something that genesis wrote is missing.
    #[error("the state holds no {0}; the folder is damaged, restore it from a snapshot")]
    Missing(&'static str),
}

/// Applies one entry on top of `previous`. On an error nothing may be persisted and the tree is
/// not to be used again.
///
/// # Errors
/// [`ExecuteError`] stops the group.
pub fn execute(
    base: &dyn StateReader,
    tree: &mut StateTree,
    constants: &GroupConstants,
    previous: &AppliedRecord,
    consensus: AppliedState,
    payload: &Bytes,
) -> Result<Execution, ExecuteError> {
    execute_by(base, tree, constants, previous, consensus, payload, BlockWork::run)
}

/// As [`execute`], with `run` in place of [`BlockWork::run`]: how the simulator puts bugs into a
/// machine to see whether its checkers find them.
///
/// # Errors
/// As [`execute`].
#[doc(hidden)]
pub fn execute_by(
    base: &dyn StateReader,
    tree: &mut StateTree,
    constants: &GroupConstants,
    previous: &AppliedRecord,
    consensus: AppliedState,
    payload: &Bytes,
    run: impl FnOnce(&mut BlockWork, &mut View<'_>, BlockContext, &[Command]) -> Vec<CommandOutcome>,
) -> Result<Execution, ExecuteError> {
    execute_behind(base, tree, &mut Heads::default(), constants, previous, consensus, payload, run)
}

/// As [`execute_by`], with the heads of streams that blocks before have left: they are not read again. Those of another
/// block do no harm.
///
/// # Errors
/// As [`execute`].
pub fn execute_behind(
    base: &dyn StateReader,
    tree: &mut StateTree,
    heads: &mut Heads,
    constants: &GroupConstants,
    previous: &AppliedRecord,
    consensus: AppliedState,
    payload: &Bytes,
    run: impl FnOnce(&mut BlockWork, &mut View<'_>, BlockContext, &[Command]) -> Vec<CommandOutcome>,
) -> Result<Execution, ExecuteError> {
    let entry = Entry::decode(payload);
    let mut view = View::new(base);
    let layout: Layout = view.load(&schema::layout()).ok_or(ExecuteError::Missing("layout"))?;
    let committee: Committee =
        view.load(&schema::current_committee(constants.group)).ok_or(ExecuteError::Missing("committee"))?;
    let layout_version = layout.version;
    let at = BlockContext {
        cluster: constants.cluster,
        group: constants.group,
        height: previous.height.next(),
        time_ms: TimeMs(entry.stamp_ms.0.max(previous.time_ms.0 + 1)),
    };
    let mut work = BlockWork::new(constants.group, layout, constants.verify);
    let stood_still = work.stand(&mut view);
    let outcomes = run(&mut work, &mut view, at, &entry.commands);
    if stood_still && !work.unsealed {
        return view.fault().map_or(Ok(Execution::Void), |fault| Err(fault.clone().into()));
    }
    let refused = refused(&entry.commands, &outcomes);
    let BlockWork { flows, receipts, votes, parsed, system_changed, sealed, unsealed, reshaped, .. } = work;
    let mut value_flow = flows.close(&mut view);
    if constants.group.kind() == Some(GroupKind::Channel) {
        sealing::seal(&mut view, at.height, payload, std::mem::take(&mut value_flow));
    }
    let next_deadline = machine::next_deadline(&mut view, constants.group, at.time_ms);

    let cursors = heads.follow(&mut view, &previous.header_hash);
    let (outbox, inbox) = (heads.outbox().to_vec(), heads.inbox().to_vec());
    let (outbox_root, inbox_cursors_root) = heads.roots();
    let next_committee: Committee =
        view.load(&schema::current_committee(constants.group)).ok_or(ExecuteError::Missing("committee"))?;
    let mut writes = view.into_writes()?;
    let state_root = update_tree(tree, &writes)?;
    let shapes = sealed.as_ref().map_or(Ok(Vec::new()), |sealed| shapes(tree, &sealed.seal))?;

    let commands: Vec<Hash32> = entry.commands.iter().map(Command::hash).collect();
    let leaves: Vec<Hash32> = receipts.iter().map(Receipt::leaf).collect();
    let header = Header {
        version: HEADER_VERSION,
        cluster: constants.cluster,
        group: constants.group,
        incarnation: committee.incarnation,
        height: at.height,
        parents: vec![previous.header_hash],
        time_ms: at.time_ms,
        layout_version,
        batch_root: merkle::root(&commands),
        receipts_root: merkle::root(&leaves),
        state_root,
        outbox_root,
        inbox_cursors_root,
        value_flow,
        congestion: heads.congestion(),
        committee_hash: committee.hash(),
        next_committee_hash: next_committee.hash(),
        flags: if sealed.is_some() { FLAG_SEALED } else { 0 },
    };
    let header_hash = header.hash();
    heads.settle(header_hash);
    let handed_over = (next_committee.engine != committee.engine).then(|| {
        let start = EngineStart {
            version: ENGINE_START_VERSION,
            engine: next_committee.engine,
            after: consensus.position.unwrap_or_default(),
            height: at.height,
            anchor: header_hash,
        };
        (start, next_committee)
    });
    if let Some((start, _)) = &handed_over {
        writes.push((schema::engine_start(), Some(encoded(start))));
    }
    if sealed.is_some() {
        writes.push((records::seal_shapes(), Some(encoded(&shapes))));
    }
    let applied =
        AppliedRecord { version: 1, consensus, height: at.height, header_hash, time_ms: at.time_ms, state_root };
    let record = BlockRecord { receipts, outbox, inbox };
    writes.push((schema::header(at.height), Some(encoded(&header))));
    writes.push((schema::block(at.height), Some(encoded(&record))));
    writes.push((schema::entry(at.height), Some(payload.clone())));
    writes.push((schema::applied(), Some(encoded(&applied))));
    let mail = emitted(&writes);
    let BlockRecord { receipts, outbox, inbox } = record;
    Ok(Execution::Block(Box::new(ExecutedBlock {
        header,
        header_hash,
        writes,
        applied,
        outcomes,
        receipts,
        refused,
        votes,
        next_deadline,
        mail,
        outbox,
        inbox,
        cursors,
        to_verify: parsed,
        system_changed,
        handed_over,
        sealed,
        shapes,
        unsealed,
        reshaped,
    })))
}

/// What stands at the top of what the children of a seal will own, or of all of a shard that is to be joined.
fn shapes(tree: &mut StateTree, seal: &Seal) -> Result<Vec<RootShape>, TreeError> {
    if seal.parents.len() > 1 {
        let whole = *tree.prefix();
        return Ok(vec![RootShape::of(tree, &whole)?]);
    }
    seal.children.iter().map(|child| RootShape::of(tree, &child.prefix.in_tree())).collect()
}

fn encoded<T: borsh::BorshSerialize>(value: &T) -> Bytes {
    Bytes::from(borsh::to_vec(value).expect("writing to memory does not fail"))
}

fn refused(commands: &[Command], outcomes: &[CommandOutcome]) -> Vec<RefusedTx> {
    let refusal = |(command, outcome): (&Command, &CommandOutcome)| match (command, outcome) {
        (Command::Tx(bytes), CommandOutcome::Refused(txid, reject)) => {
            Some(RefusedTx { txid: *txid, bytes: Bytes::copy_from_slice(bytes), reject: *reject })
        }
        _ => None,
    };
    commands.iter().zip(outcomes).filter_map(refusal).collect()
}

fn update_tree(tree: &mut StateTree, writes: &[(Vec<u8>, Option<Bytes>)]) -> Result<Hash32, TreeError> {
    let updates: Vec<_> = writes
        .iter()
        .filter_map(|(key, value)| {
            let position = schema::tree_position(key)?;
            Some((position, value.as_ref().map(|value| value_hash(value))))
        })
        .collect();
    tree.apply(updates)?;
    Ok(Hash32(tree.root()))
}

/// The new mail among the writes: they are sorted, so messages of one stream are in order.
fn emitted(writes: &[(Vec<u8>, Option<Bytes>)]) -> Vec<EmittedMail> {
    writes
        .iter()
        .filter_map(|(key, value)| {
            let message = value.clone()?;
            let rest: &[u8; 16] = key.strip_prefix(&[schema::MAIL])?.try_into().ok()?;
            let (dest, seq) = rest.split_at(8);
            Some(EmittedMail {
                dest: GroupId(u64::from_be_bytes(dest.try_into().ok()?)),
                seq: u64::from_be_bytes(seq.try_into().ok()?),
                message,
            })
        })
        .collect()
}

#[cfg(test)]
#[path = "executor_tests.rs"]
mod tests;
