//! The two-phase commit of transactions whose voters lie in several groups (DESIGN §7).
//!
//! Owns vote registers, the record of what each group knows, the outcome rule and recovery. Phase
//! one, *prepare*: a group checks and reserves, writes its registers once, and mails its vote, with
//! the signed transaction, to every other voter group. Phase two, *resolve*: the outcome is the AND
//! over all votes; a group posts or releases as soon as it knows it. There is no coordinator: a vote
//! that arrives makes a group vote that has not yet, so a router that reached one group and died
//! owes nothing, and nobody waits for anything but mail. `tests/model` explores these rules.
//!
//! Shards are cut and joined while transactions are undecided. Legs never change; what changes is who speaks for them.
//! A vote of a retired shard stands for all its legs, wherever they lie now, and is carried out by whoever has the
//! accounts. A group votes on those of its legs that no vote of its line speaks for.
//! What goes to a group of another ledger says no more than it has to: no witnesses, and no reason of a NO. So a group
//! votes on mail within a ledger only; on mail from another ledger it waits for a hand-over of its own.
//!
//! Never decides what a move means: that is `ledger::rules`. Never sends: votes are appended to
//! streams, and the caller turns [`Progress`] into receipts, credits and history.

mod legs;
mod merge;
mod record;
mod sweep;
mod sync;

use ledger::ids::{Address, ClusterId, GroupId, Height, TimeMs, TxId};
use ledger::layout::BitPrefix;
use ledger::limits::{REGISTER_GRACE_MS, VOTER_GROUPS_MAX};
use ledger::reject::Reject;
use ledger::rules::{self, Effects, OwnLeg, RuleContext, Signatures};
use ledger::schema;
use ledger::tx::{Opening, ParsedTx, Slot, TxBody};
use ledger::view::View;

use crate::message::{Message, Vote};
use crate::stream;

pub use legs::{hearers, legs_of};
pub use merge::merge_records;
pub use record::{
    Cast, Decision, LegId, PREPARED_VERSION, Prepared, Received, Register, Resolved, Stamp, Verdict, all_legs,
    legs_where,
};
pub use sweep::{next_deadline, sweep};

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

    /// The legs that this group speaks for.
    fn own(&self, body: &TxBody) -> Vec<LegId> {
        legs_of(self.rules.layout, self.me(), self.me(), body)
    }

    /// Whether an account of this ledger lies here.
    fn lies_here(&self, account: &Address) -> bool {
        self.rules.home(self.rules.ledger, account) == self.me()
    }

    /// Whether anything of a transaction lies here: a leg that this group speaks for, or an account that carries the
    /// register of a group that it came from.
    fn concerned(&self, record: &Prepared, own: &[LegId]) -> bool {
        !own.is_empty() || record.accounts().any(|account| self.lies_here(account))
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
/// opening, names a group that does not exist, or has too many voters to begin with. Anybody may repeat a hand-over; it
/// is harmless.
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
    if groups.len() > VOTER_GROUPS_MAX {
        return Err(Reject::TooManyVoters);
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
    let decision = decide(view, ctx, tx, (&[], &legs))?;
    let mut record = new_record(ctx, tx, groups, true);
    let speaks_for = ctx.own(&tx.body);
    Ok(Handed::Voted(vote_and_resolve(view, ctx, tx, &mut record, speaks_for, decision, out)))
}

/// It is known already: perhaps the openings it waited for come along, or it waited for this hand-over.
fn hand_over_again(
    view: &mut View<'_>,
    ctx: &CommitContext<'_>,
    tx: &ParsedTx,
    mut record: Prepared,
    out: &mut Vec<Progress>,
) -> Result<Handed, Reject> {
    let open = record.unspoken(&ctx.own(&tx.body));
    if let Some(said) = record.decision().filter(|_| open.is_empty() || record.dropped.is_some()) {
        return Ok(Handed::Voted(said));
    }
    if ctx.past(record.valid_until_ms) {
        return Err(Reject::Expired);
    }
    ctx.admits()?;
    let legs = ctx.rules.own_legs_among(tx, |leg| open.contains(&leg))?;
    let opened = opened(tx, &record);
    let decision = match decide(view, ctx, tx, (&reserved_before(ctx, &record, &opened), &legs)) {
        Err(Reject::NotAuthorised) => decide_as_mailed(view, ctx, tx, &record, &open)?,
        decided => decided?,
    };
    record.handed_over = true;
    record.openings = merge::both(record.openings, own_openings(ctx, tx));
    if ctx.spans(&record.voters) {
        // What mail has brought may be without the witnesses, which the rest of this ledger is to have.
        record.tx = tx.signed();
    }
    view.delete(schema::deadline(record.valid_until_ms, &tx.txid));
    Ok(Handed::Voted(vote_and_resolve(view, ctx, tx, &mut record, open, decision, out)))
}

/// The transaction with the openings that were recorded with what this group knows of it.
fn opened(tx: &ParsedTx, record: &Prepared) -> ParsedTx {
    let mut opened = tx.clone();
    opened.openings.clone_from(&record.openings);
    opened
}

/// The legs that this group, or one that it came from, has reserved for under accounts that lie here. An account may be
/// voted on in two parts: in a hidden slot that names a retired shard its legs are the heir's, and where that was joined
/// with the shard that has the account, the other legs may have been voted on before.
fn reserved_before<'t>(ctx: &CommitContext<'_>, record: &Prepared, opened: &'t ParsedTx) -> Vec<OwnLeg<'t>> {
    let reserved = |leg: &OwnLeg<'_>| {
        let of = |cast: &Cast| cast.legs.contains(&leg.leg) && cast.carries(&leg.voter.account);
        record.casts.iter().any(|cast| cast.decision == Decision::Yes && of(cast))
    };
    ctx.rules.legs_here(opened).filter(reserved).collect()
}

/// The vote on a hand-over, behind the legs that were reserved for before. A missing authorisation is no vote: it leaves
/// no trace, so that nobody can spend the txid of somebody else's transaction.
fn decide(
    view: &mut View<'_>,
    ctx: &CommitContext<'_>,
    tx: &ParsedTx,
    legs: (&[OwnLeg<'_>], &[OwnLeg<'_>]),
) -> Result<Decision, Reject> {
    match rules::reserve_behind(view, &ctx.rules, tx, legs, Signatures::Checked) {
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
    open: &[LegId],
) -> Result<Decision, Reject> {
    let mut mailed = ParsedTx::decode(&ctx.cluster, &record.tx)?;
    if mailed.witnesses.is_empty() && ctx.spans(&record.voters) {
        let opens = !own_openings(ctx, handed).is_empty();
        return if opens { Ok(Decision::No(Reject::NotAuthorised)) } else { Err(Reject::NotAuthorised) };
    }
    mailed.open(handed.openings.clone())?;
    // The legs have been seen, so none is hidden any more, and this is the hand-over.
    let opened = opened(&mailed, record);
    let earlier = reserved_before(ctx, record, &opened);
    vote_on_mail(view, ctx, &mailed, (false, true), (&earlier, open)).ok_or(Reject::HiddenSlot)
}

/// Takes another group's vote, which certified mail brought. In the same apply, a group that has
/// not voted on its legs votes.
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
    let groups = ctx.rules.all_voters(&tx.body)?;
    let hears = hearers(ctx.rules.layout, ctx.me(), &tx.body).contains(&ctx.me());
    let known = prepared(view, &tx.txid);
    if source == ctx.me() || !hears || !speaks(ctx, source, &tx.body, &vote.legs, known.as_ref()) {
        return Err(Reject::WrongShard);
    }
    let foreign = ctx.foreign(source);
    if foreign {
        // What another ledger says of ours counts as little as we tell it of that.
        tx.witnesses.clear();
    }
    let decision = if foreign { vote.decision.veiled() } else { vote.decision };
    let own = ctx.own(&tx.body);
    let mut record = match known {
        Some(record) => record,
        // It came from a shard that a hidden slot names, and that had said nothing: its heir does.
        None if own.is_empty() => return Ok(()),
        None => new_record(ctx, &tx, groups, false),
    };
    if record.dropped.is_some() || !ctx.concerned(&record, &own) {
        // A register is dropped only when every vote has come, so this one is a repetition.
        return Ok(());
    }
    let spoken = record.unspoken(&vote.legs).is_empty();
    let news = !spoken && !record.repeats(source, decision, &vote.legs);
    if news {
        record.received.push(Received { group: source, decision, legs: vote.legs.clone(), at: ctx.stamp() });
    }
    let open = record.unspoken(&own);
    if open.is_empty() {
        if resolve(view, ctx, &tx, &mut record, out) || news {
            store(view, &record);
        }
        return Ok(());
    }
    if !tx.witnesses.is_empty() && ctx.spans(&record.voters) {
        record.tx.clone_from(&vote.tx);
    }
    // Checked before they were recorded.
    tx.openings.clone_from(&record.openings);
    let earlier = reserved_before(ctx, &record, &tx);
    let known = (record.refusal().is_some(), record.handed_over);
    match vote_on_mail(view, ctx, &tx, known, (&earlier, &open)) {
        Some(decision) => {
            view.delete(schema::deadline(record.valid_until_ms, &tx.txid));
            vote_and_resolve(view, ctx, &tx, &mut record, open, decision, out);
        }
        None => {
            view.put(schema::deadline(record.valid_until_ms, &tx.txid), Vec::new());
            store(view, &record);
        }
    }
    Ok(())
}

/// Whether a group may say this: of legs that it speaks for, or, where two shards were joined and one had written to the
/// other, what the record that they left knows it has said.
fn speaks(ctx: &CommitContext<'_>, source: GroupId, body: &TxBody, legs: &[LegId], known: Option<&Prepared>) -> bool {
    let theirs = legs_of(ctx.rules.layout, ctx.me(), source, body);
    let in_order = !legs.is_empty() && legs.windows(2).all(|pair| pair[0] < pair[1]);
    let line = || {
        let descends = ctx.rules.layout.is_some_and(|layout| layout.descends(ctx.me(), source));
        descends && known.is_some_and(|record| record.unspoken(legs).is_empty())
    };
    in_order && (legs.iter().all(|leg| theirs.contains(leg)) || line())
}

/// The vote that another group's vote calls for, on the legs that no vote speaks for yet, behind those that were reserved
/// for before; `None` while an opening is missing, or the witnesses, which do not come from another ledger, or the hand-over
/// without which this group says nothing of its legs.
fn vote_on_mail(
    view: &mut View<'_>,
    ctx: &CommitContext<'_>,
    tx: &ParsedTx,
    (refused, handed_over): (bool, bool),
    (earlier, open): (&[OwnLeg<'_>], &[LegId]),
) -> Option<Decision> {
    if ctx.past(tx.body.valid_until_ms) {
        return Some(Decision::No(Reject::Expired));
    }
    if refused {
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
    let legs = match ctx.rules.own_legs_among(tx, |leg| open.contains(&leg)) {
        Ok(legs) => legs,
        Err(Reject::HiddenSlot) => return None,
        Err(reason) => return Some(Decision::No(reason)),
    };
    let bare = tx.witnesses.is_empty() && ctx.rules.all_voters(&tx.body).is_ok_and(|voters| ctx.spans(&voters));
    if bare && legs.iter().any(|leg| leg.voter.authorises) {
        return None;
    }
    // The sender's group answers for the signatures it needs, not for ours.
    match rules::reserve_behind(view, &ctx.rules, tx, (earlier, &legs), Signatures::Unchecked) {
        Ok(()) => Some(Decision::Yes),
        Err(reason) => Some(Decision::No(reason)),
    }
}

fn new_record(ctx: &CommitContext<'_>, tx: &ParsedTx, voters: Vec<GroupId>, handed_over: bool) -> Prepared {
    Prepared {
        version: PREPARED_VERSION,
        txid: tx.txid,
        tx: tx.signed(),
        openings: own_openings(ctx, tx),
        voters,
        legs: all_legs(&tx.body),
        valid_until_ms: tx.body.valid_until_ms,
        seen: ctx.stamp(),
        handed_over,
        casts: Vec::new(),
        received: Vec::new(),
        dropped: None,
    }
}

/// Openings that this group needs; those of other groups are none of its business.
fn own_openings(ctx: &CommitContext<'_>, tx: &ParsedTx) -> Vec<Opening> {
    let own = ctx.own(&tx.body);
    let mine = |opening: &&Opening| {
        let hidden = matches!(tx.body.slots.get(usize::from(opening.slot)), Some(Slot::Hidden { .. }));
        hidden && own.contains(&(2 * opening.slot))
    };
    tx.openings.iter().filter(mine).cloned().collect()
}

/// Writes the registers, all in this apply, mails the vote, and resolves if that decides it.
fn vote_and_resolve(
    view: &mut View<'_>,
    ctx: &CommitContext<'_>,
    tx: &ParsedTx,
    record: &mut Prepared,
    legs: Vec<LegId>,
    decision: Decision,
    out: &mut Vec<Progress>,
) -> Decision {
    let seen: Vec<OwnLeg<'_>> = ctx.rules.legs_here(tx).filter(|leg| legs.contains(&leg.leg)).collect();
    let accounts = rules::voters_of(&seen);
    for account in &accounts {
        let register = Register { version: 1, decision, height: ctx.height };
        view.store(schema::register(account, &tx.txid), &register);
    }
    let vote = Vote { txid: tx.txid, tx: record.tx.clone(), legs: legs.clone(), decision };
    let others = hearers(ctx.rules.layout, ctx.me(), &tx.body).into_iter().filter(|group| *group != ctx.me());
    let sent = others.map(|group| (group, stream::emit(view, group, vote_for(ctx, group, tx, &vote)))).collect();
    let (group, within, at) = (ctx.me(), BitPrefix::ALL, ctx.stamp());
    record.casts.push(Cast { group, decision, legs, accounts, sent, at, within, outcome: None });
    // Never in the past, also when this vote comes late: what lies before `swept` is not looked at.
    let earliest = record.valid_until_ms.0.saturating_add(REGISTER_GRACE_MS);
    let droppable = sweep::whole_seconds(earliest.max(ctx.rules.time_ms.0));
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

/// Phase two: as soon as the outcome is known, posts or releases what every vote that is not carried out yet has
/// reserved under accounts that lie here. Returns whether it did.
fn resolve(
    view: &mut View<'_>,
    ctx: &CommitContext<'_>,
    tx: &ParsedTx,
    record: &mut Prepared,
    out: &mut Vec<Progress>,
) -> bool {
    let due: Vec<&Cast> = record.casts.iter().filter(|cast| cast.outcome.is_none()).collect();
    let verdict = record.verdict();
    if due.is_empty() || verdict == Verdict::Open {
        return false;
    }
    let mine = |cast: &Cast, account: &Address| cast.carries(account) && ctx.lies_here(account);
    // Of a group that this one came from, whatever lies elsewhere is told of there. Only of a hidden slot nobody outside
    // knows where it lies: who hands the transaction over asks whoever speaks for the slot, which tells in any case.
    let own = ctx.own(&tx.body);
    let tells = due.iter().any(|cast| {
        cast.group == ctx.me()
            || cast.accounts.iter().any(|account| mine(cast, account))
            || cast.legs.iter().any(|leg| own.contains(leg)) && !record.carried_out_in_part(cast)
    });
    // The openings that this group was given; a vote that arrives later comes without any. They were checked before
    // they were recorded.
    let opened = opened(tx, record);
    let reserved = |leg: &OwnLeg<'_>| {
        let of = |cast: &Cast| cast.legs.contains(&leg.leg) && cast.carries(&leg.voter.account);
        due.iter().any(|cast| cast.decision == Decision::Yes && of(cast))
    };
    let legs: Vec<OwnLeg<'_>> = ctx.rules.legs_here(&opened).filter(reserved).collect();
    let committed = match verdict {
        Verdict::Open => return false,
        Verdict::Commit => {
            let mut effects = rules::post(view, &ctx.rules, tx.txid, &legs);
            sync::count_lone_halves(ctx, &legs, &mut effects);
            if tells {
                out.push(Progress::Committed(tx.txid, effects));
            }
            true
        }
        Verdict::Abort(group, reason) => {
            if !legs.is_empty() {
                rules::release(view, tx.txid, &legs);
            }
            if tells {
                out.push(Progress::Aborted(tx.txid, group, reason));
            }
            false
        }
    };
    for cast in record.casts.iter_mut().filter(|cast| cast.outcome.is_none()) {
        cast.outcome = Some(Resolved { committed, at: ctx.stamp() });
    }
    true
}

fn store(view: &mut View<'_>, record: &Prepared) {
    view.store(schema::prepared(&record.txid), record);
}
