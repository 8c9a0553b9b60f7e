//! Bugs that the simulator can put into what it runs, to prove that its checkers find them. None is
//! ever set outside tests, and production code has no switch for any: those of the shell sit in the
//! simulator's own host, those of the machine work on its view between its steps, through
//! [`shard_node::core::executor::execute_by`].

#[path = "sabotage_elastic.rs"]
mod elastic;
#[path = "sabotage_epochs.rs"]
mod epochs;
#[path = "sabotage_nodes.rs"]
mod nodes;

use bytes::Bytes;
use channel::proposal::Voice;
use channel::{Policy, PromiseRecord, Proposal, ProposalState, Quorum, Role, Subject};
use cross_shard::bundle::Bundle;
use cross_shard::commit::{self, CommitContext, Decision, Prepared, Received, Stamp};
use cross_shard::{Message, Vote, stream};
use ledger::asset::{AssetDef, AssetSpec};
use ledger::genesis::OrgInfo;
use ledger::ids::{Address, AssetId, GroupId, GroupKind, LedgerId, TimeMs, TxId};
use ledger::lock::Lock;
use ledger::machine::{BlockContext, Machine};
use ledger::reject::Reject;
use ledger::rules::{self, RuleContext};
use ledger::schema;
use ledger::tx::{Move, ParsedTx};
use ledger::view::View;
use shard_node::core::entry::Command;
use shard_node::core::machine::{BlockWork, CommandOutcome};

use crate::liars::Ruse;

pub(crate) use elastic::spoil_right_half;

macro_rules! sabotages {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        /// A bug put back. Never set outside tests.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Sabotage { $($(#[$doc])* $name,)* }

        impl Sabotage {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
        }
    };
}

sabotages! {
    /// Clients get their receipt when the batch is proposed, not when it is committed and persisted.
    ReplyOnPropose;
    /// The cursors of a block are written in a batch of their own, so that a crash can part them
    /// from the credits.
    SplitBatch;
    /// Replicas take one signature for a certificate.
    LoneSignature;
    /// Execution does not see earlier receipts, so a transaction that is sent again runs again.
    ForgetReceipts;
    /// The log engine reports writes as durable before they are.
    EarlySync;
    /// A restarted replica applies its last block once more.
    ApplyTwice;
    /// A group that voted NO votes again when the transaction is handed over again.
    VoteAgain;
    /// A hand-over is accepted when the register has been dropped, and votes as if for the first time.
    LateHandOver;
    /// A group aborts by itself what is undecided when the deadline passes.
    TimeOutAlone;
    /// A vote that has not come within a moment counts as NO.
    AbsenceIsNo;
    /// A register is dropped, and its record forgotten, as soon as the outcome is applied.
    DropEarly;
    /// A group that receives a vote on a transaction it has not seen waits for a router to bring it.
    NoVoteOnMail;
    /// What an aborted transaction held is set free twice.
    ReleaseTwice;
    /// A group votes YES and holds nothing.
    HoldNothing;
    /// Mail of an incarnation that has ended is taken.
    TakeDeadMail;
    /// Credits that were taken before are applied again when they are delivered again.
    CreditAgain;
    /// Clients are told that a transaction is applied when its group has voted, not when it resolved.
    AppliedOnVote;
    /// A router tells its client that a transaction commits when the first group has agreed.
    HastyRouter;
    /// A hash-lock is claimed after its deadline.
    LateClaim;
    /// A hash-lock that is claimed stays open.
    LockStaysOpen;
    /// In a channel any one member decides, whatever the policies say.
    OneDecides;
    /// A channel takes whatever it is given for what its founding promised.
    AnyOpening;
    /// A member that leaves a channel or is removed goes on as before.
    KeepRemoved;
    /// A channel does not count what comes from the main ledger.
    ForgetPair;
    /// A channel tells the beacon what happens inside.
    TellOthers;
    /// A key that was revoked in the registry goes on counting in a channel.
    RevokedSigns;
    /// A proposal stays open when what it would change has changed meanwhile.
    StaleWins;
    /// The beacon does not hear what channels show of themselves.
    DeafDirectory;
    /// An approval goes on counting in a channel when the registry has revoked its key.
    LapsedVoice;
    /// The registry takes an organisation's command under the admin key of another one.
    AnyAdmin;
    /// A node that has left a channel keeps its replica.
    KeepState;
    /// A leader goes on sending a channel's log to those who have left it.
    TellGone;
    /// A host goes on giving what is in a channel to nodes of an organisation that the channel has excluded.
    TellRemoved;
    /// A host takes a client's transaction under a certificate that its channel has heard to be revoked.
    AdmitRevoked;
    /// A host takes a transaction of a client whose organisation is no member of its channel.
    AdmitGone;
    /// A member of a Byzantine group tells its vote before it is durable.
    VoteBeforePersist;
    /// A member of a Byzantine group takes one precommit too few for a quorum.
    QuorumOffByOne;
    /// A member of a Byzantine group that is behind takes the proof of another entry for a proof of this one.
    ForeignCertificate;
    /// A member of a Byzantine group that is behind takes the proof of another round for a proof of this one.
    ForeignRound;
    /// A member of a Byzantine group that is behind takes the proof of a committee that was in force before for one of the
    /// committee that decides.
    ForeignCommittee;
    /// A member of a Byzantine group votes for a batch of whatever time.
    TimeUnchecked;
    /// A member of a Byzantine group that comes back executes the last entry of its log once more.
    RunAgain;
    /// What shows that a member of a Byzantine group has voted twice is dropped.
    EvidenceDropped;
    /// A member of a Byzantine group votes for a batch without looking at its signatures.
    JudgeSkipsSignatures;
    /// A member of a Byzantine group that comes back has lost its records and votes on.
    LockForgotten;
    /// The first value of the Byzantine engine does not build on the block that hands over to it.
    SwitchWithoutParent;
    /// Entries that the engine before has ordered behind the one that hands over are executed.
    VoidCounts;
    /// What a retired shard has taken of a stream is addressed anew with the rest.
    TakenIgnored;
    /// What a retired shard has not taken is addressed anew twice.
    ReaddressTwice;
    /// A group keeps its cursor of a shard that has ended.
    CursorKept;
    /// Both children of a shard pass on the credits that it had sent.
    CreditByBoth;
    /// A child passes on a vote of its parent as it is, for the legs of its sibling, too.
    VoteUnrestricted;
    /// The vote registers of a half stay behind when a shard is cut.
    RegisterLeft;
    /// A child votes again on what its parent had voted on: it takes the record for its sibling's alone.
    SiblingVotesNo;
    /// A shard that stands still does not hear that it may go on.
    SealForGood;
    /// The beacon has a second job's shards stand still before the first one has ended.
    TwoSealing;
    /// Shards of a job that came to nothing give their numbers to others.
    OrdinalReused;
    /// Each child of a shard that is cut begins with what the other one has.
    TallyOfWrongHalf;
    /// The beacon puts a committee of a shard into force whose new members have not shown that they have the state.
    SeatBeforeState;
    /// A node that a shard goes on without keeps its replica.
    SeatKept;
    /// A node that is drained has its capacity again at once.
    DrainUndone;
    /// The number and the key of a node that was struck off are given again.
    NumberReused;
    /// The registry forgets which keys were replaced, and takes them again.
    KeyTaken;
    /// A node drops a key as soon as the registry has another one, whatever its groups name it by.
    KeyDroppedEarly;
    /// The registry hears of a node's next key before that is durable on the node.
    KeyUnsynced;
    /// The registry has jobs decided as before there was another policy for them.
    PolicyBefore;
    /// A group does not tell the beacon of the proofs in its state that a member has voted twice.
    EvidenceUntold;
    /// The beacon takes the seats of whoever a proof names, whether it holds or not.
    AccusedUnproved;
    /// An epoch in which enough have revealed leaves the seed as it was.
    SeedStands;
    /// A commitment is taken when secrets of others can be seen.
    CommitLate;
    /// A secret is taken that is not the one of the commitment.
    SecretUnchecked;
    /// Who has withheld its secret takes part in the next epoch.
    WithholderPlays;
    /// A deal takes a seat away that it does not by its seed.
    DealAltered;
}

impl Sabotage {
    /// Whether it is a bug of the Byzantine engine or its shell, which only a run with such groups can meet.
    #[must_use]
    pub const fn byzantine(self) -> bool {
        matches!(
            self,
            Self::VoteBeforePersist
                | Self::QuorumOffByOne
                | Self::ForeignCertificate
                | Self::ForeignRound
                | Self::TimeUnchecked
                | Self::RunAgain
                | Self::EvidenceDropped
                | Self::JudgeSkipsSignatures
                | Self::LockForgotten
        )
    }

    /// What a bad proposer has to do for the bug to show, where it seldom does. Whoever is caught proposing anything else leads no
    /// more for a while.
    pub(crate) const fn sought(self) -> Option<Ruse> {
        match self {
            Self::TimeUnchecked => Some(Ruse::FutureStamp),
            Self::JudgeSkipsSignatures => Some(Ruse::ForgedTransaction),
            _ => None,
        }
    }

    /// Whether it is a bug that only a run can meet in which shards are cut and joined.
    #[must_use]
    pub const fn reshaping(self) -> bool {
        matches!(
            self,
            Self::TakenIgnored
                | Self::ReaddressTwice
                | Self::CursorKept
                | Self::CreditByBoth
                | Self::VoteUnrestricted
                | Self::RegisterLeft
                | Self::SiblingVotesNo
                | Self::SealForGood
                | Self::TwoSealing
                | Self::OrdinalReused
                | Self::TallyOfWrongHalf
        )
    }

    /// Whether it is a bug that only a run can meet in which seats of shards move.
    #[must_use]
    pub const fn moving(self) -> bool {
        matches!(self, Self::SeatBeforeState | Self::SeatKept)
    }

    /// Whether it is a bug of the Byzantine engine that only a run can meet in which seats of its groups move.
    #[must_use]
    pub const fn of_byzantine_seats(self) -> bool {
        matches!(self, Self::ForeignCommittee)
    }

    /// Whether it is a bug that only a run can meet in which nodes come and go.
    #[must_use]
    pub const fn of_nodes(self) -> bool {
        matches!(self, Self::DrainUndone | Self::NumberReused)
    }

    /// Whether it is a bug that only a run can meet in which signing keys of nodes are replaced.
    #[must_use]
    pub const fn of_keys(self) -> bool {
        matches!(self, Self::KeyTaken | Self::KeyDroppedEarly | Self::KeyUnsynced)
    }

    /// Whether it is a bug that only a run can meet in which policies of the cluster change and jobs are decided by them.
    #[must_use]
    pub const fn of_policies(self) -> bool {
        matches!(self, Self::PolicyBefore)
    }

    /// Whether it is a bug that only a run can meet in which members lose their seats because they vote twice.
    #[must_use]
    pub const fn of_removals(self) -> bool {
        matches!(self, Self::EvidenceUntold | Self::AccusedUnproved)
    }

    /// Whether it is a bug that only a run with epochs can meet.
    #[must_use]
    pub const fn of_epochs(self) -> bool {
        matches!(
            self,
            Self::SeedStands | Self::CommitLate | Self::SecretUnchecked | Self::WithholderPlays | Self::DealAltered
        )
    }

    /// Whether it is a bug that only a run can meet in which a shard goes over to another engine.
    #[must_use]
    pub const fn switching(self) -> bool {
        matches!(self, Self::SwitchWithoutParent | Self::VoidCounts)
    }
}

/// A vote that has not come after this long counts as NO: [`Sabotage::AbsenceIsNo`].
const ABSENT_MS: u64 = 400;

/// Runs a block as [`BlockWork::run`] does, but for the bug.
pub(crate) fn run(
    sabotage: Option<Sabotage>,
    work: &mut BlockWork,
    view: &mut View<'_>,
    at: BlockContext,
    commands: &[Command],
) -> Vec<CommandOutcome> {
    let Some(sabotage) = sabotage else { return work.run(view, at, commands) };
    work.begin(view, at);
    epochs::begun(sabotage, view, at);
    match sabotage {
        Sabotage::TimeOutAlone => give_up(work, view, at, |record, _| at.time_ms > record.valid_until_ms),
        Sabotage::AbsenceIsNo => {
            give_up(work, view, at, |_, since| at.time_ms.0 > since.time_ms.0 + ABSENT_MS);
        }
        _ => {}
    }
    let mut outcomes = Vec::with_capacity(commands.len());
    for command in commands {
        let (receipts, votes) = (work.receipts.len(), work.votes.len());
        outcomes.push(apply(sabotage, work, view, at, command));
        if let (Sabotage::TellOthers, Command::Tx(bytes)) = (sabotage, command) {
            tell_beacon(view, at, bytes);
        }
        let resolved: Vec<TxId> = work.receipts[receipts..].iter().map(|receipt| receipt.txid).collect();
        let voted: Vec<(TxId, Decision)> = work.votes[votes..].to_vec();
        afterwards(sabotage, work, view, at, &resolved, &voted);
    }
    outcomes
}

fn apply(
    sabotage: Sabotage,
    work: &mut BlockWork,
    view: &mut View<'_>,
    at: BlockContext,
    command: &Command,
) -> CommandOutcome {
    if let Some(outcome) = elastic::apply(sabotage, work, view, at, command) {
        return outcome;
    }
    if let Some(outcome) = nodes::apply(sabotage, work, view, at, command) {
        return outcome;
    }
    if let Some(outcome) = epochs::apply(sabotage, work, view, at, command) {
        return outcome;
    }
    match (sabotage, command) {
        (Sabotage::VoteAgain, Command::Tx(bytes)) => {
            let said_no =
                |record: &Prepared| record.dropped.is_none() && matches!(record.decision(), Some(Decision::No(_)));
            forget(view, at, bytes, said_no);
            work.apply(view, at, command)
        }
        (Sabotage::LateHandOver, Command::Tx(bytes)) => {
            let dropped = forget(view, at, bytes, |record| record.dropped.is_some());
            let time_ms = dropped.map_or(at.time_ms, |record| record.valid_until_ms);
            work.apply(view, BlockContext { time_ms, ..at }, command)
        }
        (Sabotage::LateClaim, Command::Tx(bytes)) => {
            let before = locks_of(view, at, bytes);
            for (key, lock) in &before {
                view.store(key.clone(), &Lock { deadline_ms: TimeMs(u64::MAX), ..*lock });
            }
            let outcome = work.apply(view, at, command);
            for (key, lock) in before {
                let state = view.load::<Lock>(&key).map_or(lock.state, |settled| settled.state);
                view.store(key, &Lock { state, ..lock });
            }
            outcome
        }
        (Sabotage::LockStaysOpen, Command::Tx(bytes)) => {
            let before = locks_of(view, at, bytes);
            let outcome = work.apply(view, at, command);
            for (key, lock) in before {
                view.store(key, &lock);
            }
            outcome
        }
        (Sabotage::OneDecides, Command::Channel(_)) => {
            let anybody = Policy::members(Quorum::Any, Role::Admin);
            let stated = Subject::ALL.map(channel::state::policy_key).map(|key| (key.clone(), view.get(&key)));
            for (key, policy) in &stated {
                if policy.is_some() {
                    view.store(key.clone(), &anybody);
                }
            }
            let outcome = work.apply(view, at, command);
            for (key, policy) in stated {
                // What the command itself has set stays.
                if let Some(policy) = policy.filter(|_| view.load::<Policy>(&key).as_ref() == Some(&anybody)) {
                    view.put(key, policy);
                }
            }
            outcome
        }
        (Sabotage::AnyOpening, Command::Channel(bytes)) => {
            let signed = borsh::from_slice::<channel::SignedCommand>(bytes).ok();
            let act = signed.and_then(|signed| borsh::from_slice::<channel::Command>(&signed.body).ok());
            let promised = channel::state::promise(view);
            let (Some(channel::Command::Open { opening }), Some(promised)) = (act, promised) else {
                return work.apply(view, at, command);
            };
            view.store(channel::state::promise_key(), &PromiseRecord { hash: opening.hash(), ..promised });
            let outcome = work.apply(view, at, command);
            let after = channel::state::promise(view).unwrap_or(promised);
            view.store(channel::state::promise_key(), &PromiseRecord { hash: promised.hash, ..after });
            outcome
        }
        (Sabotage::KeepRemoved, Command::Channel(_)) => {
            let before = channel::state::members(view);
            let outcome = work.apply(view, at, command);
            for member in before {
                if channel::state::member(view, member.org).is_none() {
                    view.store(channel::state::member_key(member.org), &member);
                }
            }
            outcome
        }
        (Sabotage::RevokedSigns, Command::Deliver(_)) if at.group.kind() == Some(GroupKind::Channel) => {
            let before = channel::state::members(view);
            let outcome = work.apply(view, at, command);
            for old in before {
                let Some(mut member) = channel::state::member(view, old.org) else { continue };
                let lost = old.keys.into_iter().filter(|key| member.role_of(&key.key).is_none()).collect::<Vec<_>>();
                for key in &lost {
                    view.delete(channel::state::revocation_key(old.org, &channel::state::credential_of(&key.key)));
                }
                member.keys.extend(lost);
                member.keys.sort_by_key(|key| key.key);
                view.store(channel::state::member_key(old.org), &member);
            }
            outcome
        }
        (Sabotage::LapsedVoice, Command::Channel(_)) => {
            let open = channel::state::proposals(view).into_iter().filter(|found| found.state == ProposalState::Open);
            let voices: Vec<Voice> = open.flat_map(|found| found.approvals).collect();
            let mut lapsed: Vec<(Vec<u8>, Bytes)> = Vec::new();
            for voice in voices {
                let credential = channel::state::credential_of(&voice.key);
                let key = channel::state::revocation_key(voice.elector.org, &credential);
                if let Some(revocation) = view.get(&key) {
                    view.delete(key.clone());
                    lapsed.push((key, revocation));
                }
            }
            let outcome = work.apply(view, at, command);
            for (key, revocation) in lapsed {
                view.put(key, revocation);
            }
            outcome
        }
        (Sabotage::AnyAdmin, Command::Registry(bytes)) if at.group == GroupId::BEACON => {
            let Ok(signed) = beacon::SignedCommand::decode(bytes) else { return work.apply(view, at, command) };
            let orgs = beacon::registry::orgs(view);
            let signer = orgs.iter().find(|org| signed.verify(&at.cluster, &org.admin_key).is_ok());
            let own = orgs.iter().find(|org| org.id == signed.org);
            let (Some(own), Some(signer)) = (own, signer) else { return work.apply(view, at, command) };
            let (key, lent) =
                (beacon::registry::org_key(own.id), OrgInfo { admin_key: signer.admin_key, ..own.clone() });
            view.store(key.clone(), &lent);
            let outcome = work.apply(view, at, command);
            // What the command itself has set stays.
            if view.load::<OrgInfo>(&key).as_ref() == Some(&lent) {
                view.store(key, own);
            }
            outcome
        }
        (Sabotage::StaleWins, Command::Channel(_)) => {
            let before = channel::state::proposals(view);
            let outcome = work.apply(view, at, command);
            for old in before.into_iter().filter(|old| old.state == ProposalState::Open) {
                let now = channel::state::proposal(view, &old.id);
                if let Some(now) = now.filter(|now| now.state == ProposalState::Superseded) {
                    let base = channel::state::revision(view, now.change.target());
                    let open = Proposal { state: ProposalState::Open, base, ..now };
                    view.store(channel::state::proposal_key(&old.id), &open);
                }
            }
            outcome
        }
        (Sabotage::DeafDirectory, Command::Deliver(_)) if at.group == GroupId::BEACON => {
            let before = beacon::channels::directory(view);
            let outcome = work.apply(view, at, command);
            for entry in before {
                view.store(beacon::channels::channel_key(entry.group), &entry);
            }
            outcome
        }
        (Sabotage::ForgetPair, Command::Deliver(_)) if at.group.kind() == Some(GroupKind::Channel) => {
            let pairs = |view: &mut View<'_>| -> Vec<(Vec<u8>, Bytes)> {
                let leaves = view.scan_prefix(&[schema::STATE]).into_iter();
                leaves.filter(|(key, _)| key.get(33) == Some(&schema::KIND_PAIR)).collect()
            };
            let before = pairs(view);
            let outcome = work.apply(view, at, command);
            for (key, _) in pairs(view) {
                match before.iter().find(|(known, _)| *known == key) {
                    Some((_, value)) => view.put(key, value.clone()),
                    None => view.delete(key),
                }
            }
            outcome
        }
        (Sabotage::NoVoteOnMail, Command::Deliver(bytes)) => wait_for_router(work, view, at, bytes),
        (Sabotage::TakeDeadMail, Command::Deliver(bytes)) => {
            let Ok(bundle) = borsh::from_slice::<Bundle>(bytes) else { return work.apply(view, at, command) };
            // Without a committee in force nothing says that the incarnation has ended.
            let key = schema::current_committee(bundle.source);
            let current = view.get(&key);
            view.delete(key.clone());
            let outcome = work.apply(view, at, command);
            if let Some(current) = current {
                view.put(key, current);
            }
            outcome
        }
        (Sabotage::CreditAgain, Command::Deliver(bytes)) => {
            if let Ok(bundle) = borsh::from_slice::<Bundle>(bytes) {
                let cursor = stream::in_cursor(view, bundle.source).next_seq;
                for (_, message) in (bundle.first_seq..cursor).zip(&bundle.messages) {
                    if let Ok(Message::Credit(credit)) = borsh::from_slice(message) {
                        work.receive(view, at, bundle.source, Message::Credit(credit));
                    }
                }
            }
            work.apply(view, at, command)
        }
        _ => work.apply(view, at, command),
    }
}

/// Mails the id of a channel's transaction to the beacon, as something that it takes from nobody.
fn tell_beacon(view: &mut View<'_>, at: BlockContext, bytes: &[u8]) {
    let Ok(tx) = ParsedTx::decode(&at.cluster, bytes) else { return };
    if at.group.kind() != Some(GroupKind::Channel) {
        return;
    }
    let (mut id, mut issuer) = ([0; 16], [0; 20]);
    id.copy_from_slice(&tx.txid.0.0[..16]);
    issuer[..16].copy_from_slice(&tx.txid.0.0[16..]);
    let spec = AssetSpec { issuer: Address(issuer), symbol: String::new(), name: String::new(), decimals: 0 };
    let told = AssetDef { version: 1, id: AssetId(id), spec, frozen: false };
    stream::emit(view, GroupId::BEACON, Message::AssetUpdate(told).encode());
}

fn afterwards(
    sabotage: Sabotage,
    work: &BlockWork,
    view: &mut View<'_>,
    at: BlockContext,
    resolved: &[TxId],
    voted: &[(TxId, Decision)],
) {
    match sabotage {
        Sabotage::DropEarly => {
            for txid in resolved {
                let Some(record) = commit::prepared(view, txid) else { continue };
                for account in record.accounts() {
                    view.delete(schema::register(account, txid));
                }
                view.delete(schema::prepared(txid));
            }
        }
        Sabotage::ReleaseTwice => {
            for txid in resolved {
                let Some(record) = commit::prepared(view, txid) else { continue };
                let aborted = record.outcome().is_some_and(|outcome| !outcome.committed);
                let held = record.decision() == Some(Decision::Yes);
                if aborted && held {
                    release(work, view, at, &record);
                }
            }
        }
        Sabotage::HoldNothing => {
            for (txid, decision) in voted {
                let undecided = commit::prepared(view, txid).filter(|record| record.outcome().is_none());
                if let (Some(record), Decision::Yes) = (undecided, decision) {
                    release(work, view, at, &record);
                }
            }
        }
        _ => {}
    }
}

fn with_rules<T>(work: &BlockWork, at: BlockContext, run: impl FnOnce(&CommitContext<'_>) -> T) -> T {
    let rules = RuleContext {
        group: at.group,
        ledger: at.group.ledger().unwrap_or(LedgerId::MAIN),
        layout: Some(&work.layout),
        time_ms: at.time_ms,
        burned: &|_| 0,
        permission: None,
    };
    let by_hand = at.group.kind() == Some(GroupKind::Channel);
    run(&CommitContext { rules, cluster: at.cluster, height: at.height, barred: None, by_hand })
}

/// Sets free what a transaction holds in this group, as far as so much is held at all.
fn release(work: &BlockWork, view: &mut View<'_>, at: BlockContext, record: &Prepared) {
    let Ok(mut tx) = ParsedTx::decode(&at.cluster, &record.tx) else { return };
    if tx.open(record.openings.clone()).is_err() {
        return;
    }
    with_rules(work, at, |ctx| {
        let Ok(legs) = ctx.rules.own_legs(&tx) else { return };
        let held = |leg: &rules::OwnLeg<'_>, view: &mut View<'_>| match leg.mv {
            Move::Pay { from, asset, amount, .. } | Move::PaySync { from, asset, amount, .. } => {
                let record = rules::load_account(view, from).unwrap_or_default();
                record.balances.iter().any(|line| line.0 == *asset && line.1.held >= *amount)
            }
            _ => true,
        };
        if legs.iter().all(|leg| held(leg, view)) {
            rules::release(view, tx.txid, &legs);
        }
    });
}

/// Forgets what is known of a transaction, if it is as `when` says.
fn forget(view: &mut View<'_>, at: BlockContext, bytes: &[u8], when: impl Fn(&Prepared) -> bool) -> Option<Prepared> {
    let tx = ParsedTx::decode(&at.cluster, bytes).ok()?;
    let record = commit::prepared(view, &tx.txid).filter(when)?;
    view.delete(schema::prepared(&tx.txid));
    view.delete(schema::receipt(&tx.txid));
    Some(record)
}

/// The locks that a transaction claims, as they are.
fn locks_of(view: &mut View<'_>, at: BlockContext, bytes: &[u8]) -> Vec<(Vec<u8>, Lock)> {
    let Ok(tx) = ParsedTx::decode(&at.cluster, bytes) else { return Vec::new() };
    let claimed = tx.visible().filter_map(|(_, _, mv)| match mv {
        Move::Claim { from, lock, .. } => Some(schema::lock(from, lock)),
        _ => None,
    });
    claimed.collect::<Vec<_>>().into_iter().filter_map(|key| Some((key.clone(), view.load(&key)?))).collect()
}

/// Takes every vote that is missing for a NO, where `when` holds, given the record and when this
/// group voted.
fn give_up(work: &mut BlockWork, view: &mut View<'_>, at: BlockContext, when: impl Fn(&Prepared, &Stamp) -> bool) {
    for (_, bytes) in view.scan_prefix(&[schema::PREPARED]) {
        let Ok(record) = borsh::from_slice::<Prepared>(&bytes) else { continue };
        let Some(own) = record.casts.last().filter(|_| record.outcome().is_none()) else { continue };
        if !when(&record, &own.at) {
            continue;
        }
        let heard: Vec<GroupId> = record.received.iter().map(|vote| vote.group).collect();
        let missing = record.voters.iter().find(|group| **group != at.group && !heard.contains(group));
        let Some(missing) = missing.copied() else { continue };
        let Ok(tx) = ParsedTx::decode(&at.cluster, &record.tx) else { continue };
        let legs = commit::legs_of(Some(&work.layout), at.group, missing, &tx.body);
        let vote = Vote { txid: record.txid, tx: record.tx.clone(), legs, decision: Decision::No(Reject::TooLate) };
        work.receive(view, at, missing, Message::Vote(vote));
    }
}

/// Delivers mail; a vote on what this group has not voted on is only noted.
fn wait_for_router(work: &mut BlockWork, view: &mut View<'_>, at: BlockContext, bytes: &[u8]) -> CommandOutcome {
    let Ok(bundle) = borsh::from_slice::<Bundle>(bytes) else { return CommandOutcome::Ignored(Reject::Malformed) };
    match bundle.deliver(view, at.group) {
        Ok(taken) => {
            let count = taken.len() as u64;
            for (_, message) in taken {
                match message {
                    Message::Vote(vote) if unvoted(view, &vote.txid) => note(view, at, bundle.source, &vote, work),
                    other => work.receive(view, at, bundle.source, other),
                }
            }
            CommandOutcome::Delivered(bundle.source, count)
        }
        Err(reject) => CommandOutcome::Ignored(reject),
    }
}

fn unvoted(view: &mut View<'_>, txid: &TxId) -> bool {
    commit::prepared(view, txid).is_none_or(|record| record.decision().is_none())
}

fn note(view: &mut View<'_>, at: BlockContext, source: GroupId, vote: &Vote, work: &BlockWork) {
    let Ok(tx) = ParsedTx::decode(&at.cluster, &vote.tx) else { return };
    let voters = with_rules(work, at, |ctx| ctx.rules.voter_groups(&tx.body)).unwrap_or_default();
    let stamp = Stamp { height: at.height, time_ms: TimeMs(at.time_ms.0) };
    let mut record = commit::prepared(view, &tx.txid).unwrap_or(Prepared {
        version: commit::PREPARED_VERSION,
        txid: tx.txid,
        tx: vote.tx.clone(),
        openings: Vec::new(),
        voters,
        legs: commit::all_legs(&tx.body),
        valid_until_ms: tx.body.valid_until_ms,
        seen: stamp,
        handed_over: false,
        casts: Vec::new(),
        received: Vec::new(),
        dropped: None,
    });
    record.received.push(Received { group: source, decision: vote.decision, legs: vote.legs.clone(), at: stamp });
    view.store(schema::prepared(&record.txid), &record);
}
