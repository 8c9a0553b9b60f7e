//! The two-phase commit of transactions whose voters lie in several groups (DESIGN §7).
//!
//! Owns vote registers, the record of what each group knows, the outcome rule and recovery. Phase
//! one, *prepare*: a group checks and reserves, writes its registers once, and mails its vote, with
//! the signed transaction, to every other voter group. Phase two, *resolve*: the outcome is the AND
//! over all votes; a group posts or releases as soon as it knows it. There is no coordinator: a vote
//! that arrives makes a group vote that has not yet, so a router that reached one group and died
//! owes nothing, and nobody waits for anything but mail. `tests/model` explores these rules.
//!
//! What goes to a group of another ledger says no more than it has to: no witnesses, and no reason of a NO. So a group
//! votes on mail within a ledger only; on mail from another ledger it waits for a hand-over of its own.
//!
//! Never decides what a move means: that is `ledger::rules`. Never sends: votes are appended to
//! streams, and the caller turns [`Progress`] into receipts, credits and history.

mod deadlines;
mod record;

use ledger::ids::{ClusterId, GroupId, Height, TimeMs, TxId};
use ledger::limits::REGISTER_GRACE_MS;
use ledger::reject::Reject;
use ledger::rules::{self, Effects, OwnLeg, RuleContext, Signatures};
use ledger::schema;
use ledger::tx::{Opening, ParsedTx, Slot};
use ledger::view::View;

use crate::message::{Message, Vote};
use crate::stream;

pub use deadlines::{next_deadline, sweep};
pub use record::{Cast, Decision, LegId, Prepared, Received, Register, Resolved, Stamp, Verdict, all_legs, legs_where};

/// What a step goes by, besides the state.
#[derive(Clone, Copy)]
pub struct CommitContext<'a> {
    /// The account rules' context: group, ledger, layout, time.
    pub rules: RuleContext<'a>,
    /// The cluster.
    pub cluster: ClusterId,
    /// The block being built.
    pub height: Height,
    /// Why this group votes for nothing at present, if it does not: its channel is frozen, or closes.
    /// What it has voted for is carried out all the same.
    pub barred: Option<Reject>,
    /// Whether this group votes YES only on what somebody whom it admits has handed over to it: a channel. What the
    /// mail of an open group brings, anybody may have handed over there. The accounts of a move all lie in the
    /// channel, so each hand-over that it takes shows a party, and none is answered with [`Handed::Waits`].
    pub by_hand: bool,
}

impl CommitContext<'_> {
    fn me(&self) -> GroupId {
        self.rules.group
    }

    fn stamp(&self) -> Stamp {
        Stamp { height: self.height, time_ms: self.rules.time_ms }
    }

    /// A hand-over to a group that votes for nothing is refused without a trace: whoever sent it may
    /// send it again, and another group's vote will be answered.
    fn admits(&self) -> Result<(), Reject> {
        self.barred.map_or(Ok(()), Err)
    }

    /// Whether a group belongs to another ledger, so that what is of this one is none of its business.
    fn foreign(&self, group: GroupId) -> bool {
        group.ledger() != Some(self.rules.ledger)
    }

    /// Whether groups of another ledger take part.
    fn spans(&self, voters: &[GroupId]) -> bool {
        voters.iter().any(|group| self.foreign(*group))
    }

    fn past(&self, time: TimeMs) -> bool {
        self.rules.time_ms > time
    }
}

/// What a step brought about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// This group voted.
    Voted(TxId, Decision),
    /// All voted yes, and this group posted: what it did beyond its accounts.
    Committed(TxId, Effects),
    /// A vote was no, and this group released: whose, and why.
    Aborted(TxId, GroupId, Reject),
}

/// What a hand-over found or brought about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handed {
    /// This group has voted; here is its vote.
    Voted(Decision),
    /// This group votes when another group's vote arrives, since none of its own accounts has to
    /// authorise and no secret opens a lock here: whoever hands it over has not shown to be a party.
    Waits,
}

/// What this group knows of a transaction that several groups vote on.
pub fn prepared(view: &mut View<'_>, txid: &TxId) -> Option<Prepared> {
    view.load(&schema::prepared(txid))
}

/// A client's hand-over of a transaction that several groups vote on. `groups` are its voters, this
/// one among them; signatures were verified before it was sequenced.
///
/// # Errors
/// [`Reject`] when it is refused without a trace: it came too late, lacks an authorisation or an
/// opening, or names a group that does not exist. Anybody may repeat a hand-over; it is harmless.
pub fn hand_over(
    view: &mut View<'_>,
    ctx: &CommitContext<'_>,
    tx: &ParsedTx,
    groups: Vec<GroupId>,
    out: &mut Vec<Progress>,
) -> Result<Handed, Reject> {
    if let Some(known) = prepared(view, &tx.txid) {
        return hand_over_again(view, ctx, tx, known, out);
    }
    rules::check_time(tx, ctx.rules.time_ms)?;
    ctx.admits()?;
    for group in groups.iter().filter(|group| **group != ctx.me()) {
        if view.get(&schema::current_committee(*group)).is_none() {
            return Err(Reject::UnknownGroup);
        }
    }
    let legs = ctx.rules.own_legs(tx)?;
    if !legs.iter().any(OwnLeg::shows_party) {
        return Ok(Handed::Waits);
    }
    let decision = decide(view, ctx, tx, &legs)?;
    let mut record = new_record(ctx, tx, groups, true);
    Ok(Handed::Voted(vote_and_resolve(view, ctx, tx, &mut record, decision, out)))
}

/// It is known already: perhaps the openings it waited for come along, or it waited for this hand-over.
fn hand_over_again(
    view: &mut View<'_>,
    ctx: &CommitContext<'_>,
    tx: &ParsedTx,
    mut record: Prepared,
    out: &mut Vec<Progress>,
) -> Result<Handed, Reject> {
    if let Some(own) = &record.own {
        return Ok(Handed::Voted(own.decision));
    }
    if ctx.past(record.valid_until_ms) {
        return Err(Reject::Expired);
    }
    ctx.admits()?;
    let legs = ctx.rules.own_legs(tx)?;
    let decision = match decide(view, ctx, tx, &legs) {
        Err(Reject::NotAuthorised) => decide_as_mailed(view, ctx, tx, &record)?,
        decided => decided?,
    };
    record.handed_over = true;
    record.openings = own_openings(ctx, tx);
    if ctx.spans(&record.voters) {
        // What mail has brought may be without the witnesses, which the rest of this ledger is to have.
        record.tx = tx.signed();
    }
    view.delete(schema::deadline(record.valid_until_ms, &tx.txid));
    Ok(Handed::Voted(vote_and_resolve(view, ctx, tx, &mut record, decision, out)))
}

/// The vote on a hand-over. A missing authorisation is no vote: it leaves no trace, so that nobody
/// can spend the txid of somebody else's transaction.
fn decide(
    view: &mut View<'_>,
    ctx: &CommitContext<'_>,
    tx: &ParsedTx,
    legs: &[OwnLeg<'_>],
) -> Result<Decision, Reject> {
    match rules::reserve(view, &ctx.rules, tx, legs, Signatures::Checked) {
        Ok(()) => Ok(Decision::Yes),
        Err(reason) if reason.precedes_authorisation() => Err(reason),
        Err(reason) => Ok(Decision::No(reason)),
    }
}

/// The vote of a group that waits, on the transaction as mail brought it, now that its legs can be seen. A party
/// has shown itself in another group, so an authorisation that is missing here is a NO, as it is where nothing is
/// hidden; whoever opens the legs has been given their salts by a party. Where the votes came from other ledgers, and so
/// without witnesses, whoever opens nothing has not shown to be sent by a party, and leaves no trace.
fn decide_as_mailed(
    view: &mut View<'_>,
    ctx: &CommitContext<'_>,
    handed: &ParsedTx,
    record: &Prepared,
) -> Result<Decision, Reject> {
    let mut mailed = ParsedTx::decode(&ctx.cluster, &record.tx)?;
    if mailed.witnesses.is_empty() && ctx.spans(&record.voters) {
        let opens = !own_openings(ctx, handed).is_empty();
        return if opens { Ok(Decision::No(Reject::NotAuthorised)) } else { Err(Reject::NotAuthorised) };
    }
    mailed.open(handed.openings.clone())?;
    // The legs have been seen, so none is hidden any more, and this is the hand-over.
    vote_on_mail(view, ctx, &mailed, Decision::Yes, true).ok_or(Reject::HiddenSlot)
}

/// Takes another group's vote, which certified mail brought. In the same apply, a group that has
/// not voted on the transaction votes.
///
/// # Errors
/// [`Reject`] when the vote says nothing about a transaction that both groups vote on. It is then
/// ignored; only a group that does not follow the rules sends such a vote.
pub fn take_vote(
    view: &mut View<'_>,
    ctx: &CommitContext<'_>,
    source: GroupId,
    vote: &Vote,
    out: &mut Vec<Progress>,
) -> Result<(), Reject> {
    let mut tx = ParsedTx::decode(&ctx.cluster, &vote.tx)?;
    if tx.txid != vote.txid || !tx.openings.is_empty() {
        return Err(Reject::Malformed);
    }
    let groups = ctx.rules.voter_groups(&tx.body)?;
    let both_vote = source != ctx.me() && groups.contains(&source) && groups.contains(&ctx.me());
    if !both_vote || vote.legs != legs_of(ctx, source, &tx) {
        return Err(Reject::WrongShard);
    }
    let foreign = ctx.foreign(source);
    if foreign {
        // What another ledger says of ours counts as little as we tell it of that.
        tx.witnesses.clear();
    }
    let decision = if foreign { vote.decision.veiled() } else { vote.decision };
    let known = prepared(view, &tx.txid);
    let mut record = known.unwrap_or_else(|| new_record(ctx, &tx, groups, false));
    if record.dropped.is_some() || record.received.iter().any(|known| known.group == source) {
        // A register is dropped only when every vote has come, so this one is a repetition.
        return Ok(());
    }
    record.received.push(Received { group: source, decision, legs: vote.legs.clone(), at: ctx.stamp() });
    if record.own.is_some() {
        resolve(view, ctx, &tx, &mut record, out);
        store(view, &record);
        return Ok(());
    }
    if !foreign && ctx.spans(&record.voters) {
        record.tx.clone_from(&vote.tx);
    }
    if !record.openings.is_empty() {
        tx.open(record.openings.clone())?;
    }
    match vote_on_mail(view, ctx, &tx, decision, record.handed_over) {
        Some(decision) => {
            view.delete(schema::deadline(record.valid_until_ms, &tx.txid));
            vote_and_resolve(view, ctx, &tx, &mut record, decision, out);
        }
        None => {
            view.put(schema::deadline(record.valid_until_ms, &tx.txid), Vec::new());
            store(view, &record);
        }
    }
    Ok(())
}

/// The vote that another group's vote calls for; `None` while an opening is missing, or the witnesses, which do not
/// come from another ledger, or the hand-over without which this group says nothing of its legs.
fn vote_on_mail(
    view: &mut View<'_>,
    ctx: &CommitContext<'_>,
    tx: &ParsedTx,
    theirs: Decision,
    handed_over: bool,
) -> Option<Decision> {
    if ctx.past(tx.body.valid_until_ms) {
        return Some(Decision::No(Reject::Expired));
    }
    if let Decision::No(_) = theirs {
        // The outcome is known; there is nothing to reserve for.
        return Some(Decision::No(Reject::Aborted));
    }
    if let Some(reason) = ctx.barred {
        // Nothing that may come could make this a yes, so nothing is waited for.
        return Some(Decision::No(reason));
    }
    if ctx.by_hand && !handed_over {
        // Before anything is looked at: a NO would tell what is here.
        return None;
    }
    let legs = match ctx.rules.own_legs(tx) {
        Ok(legs) => legs,
        Err(Reject::HiddenSlot) => return None,
        Err(reason) => return Some(Decision::No(reason)),
    };
    let bare = tx.witnesses.is_empty() && ctx.rules.voter_groups(&tx.body).is_ok_and(|voters| ctx.spans(&voters));
    if bare && legs.iter().any(|leg| leg.voter.authorises) {
        return None;
    }
    // The sender's group answers for the signatures it needs, not for ours.
    match rules::reserve(view, &ctx.rules, tx, &legs, Signatures::Unchecked) {
        Ok(()) => Some(Decision::Yes),
        Err(reason) => Some(Decision::No(reason)),
    }
}

fn new_record(ctx: &CommitContext<'_>, tx: &ParsedTx, voters: Vec<GroupId>, handed_over: bool) -> Prepared {
    Prepared {
        version: 1,
        txid: tx.txid,
        tx: tx.signed(),
        openings: own_openings(ctx, tx),
        voters,
        legs: all_legs(&tx.body),
        valid_until_ms: tx.body.valid_until_ms,
        seen: ctx.stamp(),
        handed_over,
        own: None,
        received: Vec::new(),
        outcome: None,
        dropped: None,
    }
}

/// Openings that this group needs; those of other groups are none of its business.
fn own_openings(ctx: &CommitContext<'_>, tx: &ParsedTx) -> Vec<Opening> {
    let mine = |opening: &&Opening| {
        let slot = tx.body.slots.get(usize::from(opening.slot));
        matches!(slot, Some(Slot::Hidden { group, .. }) if *group == ctx.me())
    };
    tx.openings.iter().filter(mine).cloned().collect()
}

/// The legs that a group votes on, by the layout this group knows.
fn legs_of(ctx: &CommitContext<'_>, group: GroupId, tx: &ParsedTx) -> Vec<LegId> {
    legs_where(&tx.body, |slot, account| match (slot, account) {
        (Slot::Clear { ledger, .. }, Some(account)) => ctx.rules.home(*ledger, &account) == group,
        (Slot::Hidden { group: named, .. }, _) => *named == group,
        (Slot::Clear { .. }, None) => false,
    })
}

/// Writes the registers, all in this apply, mails the vote, and resolves if that decides it.
fn vote_and_resolve(
    view: &mut View<'_>,
    ctx: &CommitContext<'_>,
    tx: &ParsedTx,
    record: &mut Prepared,
    decision: Decision,
    out: &mut Vec<Progress>,
) -> Decision {
    let legs = legs_of(ctx, ctx.me(), tx);
    let accounts = rules::voters_of(&visible_legs(ctx, tx));
    for account in &accounts {
        let register = Register { version: 1, decision, height: ctx.height };
        view.store(schema::register(account, &tx.txid), &register);
    }
    let vote = Vote { txid: tx.txid, tx: record.tx.clone(), legs: legs.clone(), decision };
    let others = record.voters.iter().filter(|group| **group != ctx.me());
    let sent = others.map(|group| (*group, stream::emit(view, *group, vote_for(ctx, *group, tx, &vote)))).collect();
    record.own = Some(Cast { decision, legs, accounts, sent, at: ctx.stamp() });
    // Never in the past, also when this vote comes late: what lies before `swept` is not looked at.
    let earliest = record.valid_until_ms.0.saturating_add(REGISTER_GRACE_MS);
    let droppable = whole_seconds(earliest.max(ctx.rules.time_ms.0));
    view.put(schema::deadline(droppable, &tx.txid), Vec::new());
    out.push(Progress::Voted(tx.txid, decision));
    resolve(view, ctx, tx, record, out);
    store(view, record);
    decision
}

/// The vote as a group is told it: one of another ledger neither by which witnesses, nor why not.
fn vote_for(ctx: &CommitContext<'_>, group: GroupId, tx: &ParsedTx, vote: &Vote) -> Vec<u8> {
    let mut vote = vote.clone();
    if ctx.foreign(group) {
        vote.tx = tx.signed_with(Vec::new());
        vote.decision = vote.decision.veiled();
    }
    Message::Vote(vote).encode()
}

/// This group's legs as far as they can be seen: a NO may be due before openings came.
fn visible_legs<'t>(ctx: &CommitContext<'_>, tx: &'t ParsedTx) -> Vec<OwnLeg<'t>> {
    tx.visible()
        .flat_map(|(slot, ledger, mv)| mv.voters().map(move |voter| OwnLeg { slot, ledger, mv, voter }))
        .filter(|leg| ctx.rules.home(leg.ledger, &leg.voter.account) == ctx.me())
        .collect()
}

/// Deadlines of many transactions share an empty block.
fn whole_seconds(time_ms: u64) -> TimeMs {
    TimeMs(time_ms.div_ceil(1000).saturating_mul(1000))
}

/// Phase two: as soon as the outcome is known, posts or releases.
fn resolve(
    view: &mut View<'_>,
    ctx: &CommitContext<'_>,
    tx: &ParsedTx,
    record: &mut Prepared,
    out: &mut Vec<Progress>,
) {
    let Some(own) = record.own.as_ref().filter(|_| record.outcome.is_none()) else { return };
    let committed = match record.verdict(ctx.me()) {
        Verdict::Open => return,
        Verdict::Commit => {
            let opened = reopened(tx, record);
            let effects = rules::post(view, &ctx.rules, tx.txid, &visible_legs(ctx, &opened));
            out.push(Progress::Committed(tx.txid, effects));
            true
        }
        Verdict::Abort(group, reason) => {
            if own.decision == Decision::Yes {
                let opened = reopened(tx, record);
                rules::release(view, tx.txid, &visible_legs(ctx, &opened));
            }
            out.push(Progress::Aborted(tx.txid, group, reason));
            false
        }
    };
    record.outcome = Some(Resolved { committed, at: ctx.stamp() });
}

/// The transaction with the openings that this group was given when it voted; a vote that arrives
/// later comes without any.
fn reopened(tx: &ParsedTx, record: &Prepared) -> ParsedTx {
    let mut opened = tx.clone();
    opened.open(record.openings.clone()).expect("openings were checked before they were recorded");
    opened
}

fn store(view: &mut View<'_>, record: &Prepared) {
    view.store(schema::prepared(&record.txid), record);
}
