//! The composed machine of a group: account rules, mail, the commit of transactions that span groups
//! and, in the beacon, the registry, in a channel its governance.
//!
//! One command in, one outcome out; a refusal is an outcome. All state is in the view. What the
//! machine keeps itself ([`BlockWork`]) lives for one block: the layout it goes by, the value flow
//! and the receipts. `reshape` is the part about seals and changes of the layout.

#[path = "machine_reshape.rs"]
mod reshape;

use cross_shard::bundle::{AckProof, Bundle};
use cross_shard::commit::{self, CommitContext, Decision, Handed, Progress};
use cross_shard::message::Message;
use cross_shard::stream;
use ledger::ballot::Equivocation;
use ledger::certificate::Certificate;
use ledger::committee::Committee;
use ledger::evidence::{self, Keeping};
use ledger::genesis::VerifyMode;
use ledger::hash::Hash32;
use ledger::ids::{GroupId, GroupKind, LedgerId, TxId};
use ledger::layout::{BitPrefix, Layout};
use ledger::lineage::SealedBy;
use ledger::machine::{BlockContext, Machine, ReadSet};
use ledger::pair::{self, Transfer};
use ledger::receipt::{Outcome, Receipt};
use ledger::reject::Reject;
use ledger::rules::{self, Credit, Effects, HistoryLine, RuleContext};
use ledger::schema;
use ledger::tx::{Move, ParsedTx};
use ledger::view::View;

use crate::core::entry::Command;
use crate::core::flows::FlowBook;
use crate::core::governance;
use crate::core::records::ReceiptPlace;

pub use reshape::next_deadline;

/// What became of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandOutcome {
    /// A transaction was executed or refused for good: the receipt at this index of the block.
    Receipt(TxId, u32),
    /// A transaction had its receipt already.
    Known(TxId, ReceiptPlace),
    /// A transaction was refused without a trace.
    Refused(TxId, Reject),
    /// A transaction that other groups vote on, too, was voted on here, now or before.
    Voted(TxId, Decision),
    /// A transaction that other groups vote on, too, waits for the vote of one of them.
    Waits(TxId),
    /// Mail was taken: source and how many messages.
    Delivered(GroupId, u64),
    /// A peer's cursor was proved; everything below is dropped.
    Acked(GroupId, u64),
    /// The beacon took a checkpoint, or had it already.
    Checkpointed(GroupId),
    /// The registry took a command.
    Registered,
    /// The proof holds: it is kept, or as many are as say anything.
    Evidence(Box<Equivocation>),
    /// A channel judged an act of its governance.
    Governed {
        /// What names the command.
        digest: Hash32,
        /// What it did, or why it did nothing.
        verdict: Result<channel::Outcome, channel::Refusal>,
    },
    /// The command had no effect.
    Ignored(Reject),
}

/// The machine while it works on one block.
pub struct BlockWork {
    group: GroupId,
    /// Layout in force; replaced when the beacon's mail brings a newer one.
    pub layout: Layout,
    verify: VerifyMode,
    /// Value flow so far.
    pub flows: FlowBook,
    /// Receipts so far.
    pub receipts: Vec<Receipt>,
    /// Votes of this group, in the order they were written.
    pub votes: Vec<(TxId, Decision)>,
    /// Transactions seen in this block, for replicas that check signatures before they attest.
    pub parsed: Vec<ParsedTx>,
    /// Committees or the layout changed.
    pub system_changed: bool,
    /// The seal in force: from before this block, until the beacon takes it back, or taken in it.
    pub sealed: Option<SealedBy>,
    /// A seal was taken back.
    pub unsealed: bool,
    /// The layout changed, and with it streams ended or began.
    pub reshaped: bool,
    /// This group began when others were cut or joined into it.
    born: bool,
    lines: u32,
}

impl BlockWork {
    /// Starts a block.
    #[must_use]
    pub fn new(group: GroupId, layout: Layout, verify: VerifyMode) -> Self {
        Self {
            group,
            layout,
            verify,
            flows: FlowBook::default(),
            receipts: Vec::new(),
            votes: Vec::new(),
            parsed: Vec::new(),
            system_changed: false,
            sealed: None,
            unsealed: false,
            reshaped: false,
            born: false,
            lines: 0,
        }
    }

    fn ledger(&self) -> LedgerId {
        self.group.ledger().unwrap_or(LedgerId::MAIN)
    }

    fn is_channel(&self) -> bool {
        self.group.kind() == Some(GroupKind::Channel)
    }

    /// Why nothing new is voted for here at present, if so.
    fn barred(&self, view: &mut View<'_>) -> Option<Reject> {
        if self.is_channel() { governance::barred(view) } else { None }
    }

    /// Runs account rules or the commit protocol with what they go by.
    fn with_rules<T>(&self, at: BlockContext, work: impl FnOnce(&CommitContext<'_>) -> T) -> T {
        let burned = |asset: &_| self.flows.burned_of(asset);
        let rules = RuleContext {
            group: self.group,
            ledger: self.ledger(),
            layout: Some(&self.layout),
            time_ms: at.time_ms,
            burned: &burned,
            permission: self.is_channel().then_some(channel::state::asset_key),
        };
        let (height, by_hand) = (at.height, self.is_channel());
        work(&CommitContext { rules, cluster: at.cluster, height, barred: None, by_hand })
    }

    fn transaction(&mut self, view: &mut View<'_>, at: BlockContext, bytes: &[u8]) -> CommandOutcome {
        let tx = match ParsedTx::decode(&at.cluster, bytes) {
            Ok(tx) => tx,
            Err(reject) => return CommandOutcome::Ignored(reject),
        };
        let txid = tx.txid;
        if let Some(place) = view.load::<ReceiptPlace>(&schema::receipt(&txid)) {
            return CommandOutcome::Known(txid, place);
        }
        let outcome = self.execute(view, at, &tx);
        if self.verify == VerifyMode::Every {
            self.parsed.push(tx);
        }
        match outcome {
            Ok(done) => done,
            Err(reject) if reject.leaves_receipt() => self.leave_receipt(view, at, txid, Outcome::Rejected(reject)),
            Err(reject) => CommandOutcome::Refused(txid, reject),
        }
    }

    fn execute(&mut self, view: &mut View<'_>, at: BlockContext, tx: &ParsedTx) -> Result<CommandOutcome, Reject> {
        let groups = self.with_rules(at, |ctx| ctx.rules.all_voters(&tx.body))?;
        if !groups.contains(&self.group) {
            return Err(Reject::WrongShard);
        }
        if self.group == GroupId::BEACON {
            let mail = self.issue(view, at, tx)?;
            return Ok(self.leave_receipt(view, at, tx.txid, Outcome::Committed { mail }));
        }
        // Shards that were joined may have voted on it when it was one of several groups.
        let begun = !self.layout.lineage.is_empty() && commit::prepared(view, &tx.txid).is_some();
        if groups.len() > 1 || begun {
            return self.hand_over(view, at, tx, groups);
        }
        self.barred(view).map_or(Ok(()), Err)?;
        self.check_windows(view, tx, &[])?;
        let effects = self.with_rules(at, |ctx| rules::execute(view, &ctx.rules, tx))?;
        let mail = self.take_effects(view, at, effects);
        Ok(self.leave_receipt(view, at, tx.txid, Outcome::Committed { mail }))
    }

    fn issue(&self, view: &mut View<'_>, at: BlockContext, tx: &ParsedTx) -> Result<Vec<(GroupId, u64)>, Reject> {
        beacon::machine::refuse_full(view)?;
        let messages = beacon::machine::execute_issue(view, &at, tx)?;
        Ok(messages.into_iter().map(|(dest, message)| (dest, stream::emit(view, dest, message.encode()))).collect())
    }

    /// Phase one, begun by a client.
    fn hand_over(
        &mut self,
        view: &mut View<'_>,
        at: BlockContext,
        tx: &ParsedTx,
        groups: Vec<GroupId>,
    ) -> Result<CommandOutcome, Reject> {
        if commit::prepared(view, &tx.txid).is_none() {
            self.check_windows(view, tx, &groups)?;
        }
        let (mut progress, barred) = (Vec::new(), self.barred(view));
        let handed = self.with_rules(at, |ctx| {
            commit::hand_over(view, &CommitContext { barred, ..*ctx }, tx, groups, &mut progress)
        })?;
        self.take_progress(view, at, progress);
        Ok(match handed {
            Handed::Voted(decision) => CommandOutcome::Voted(tx.txid, decision),
            Handed::Waits => CommandOutcome::Waits(tx.txid),
        })
    }

    /// What the commit protocol brought about: receipts, credits, history.
    fn take_progress(&mut self, view: &mut View<'_>, at: BlockContext, progress: Vec<Progress>) {
        for step in progress {
            match step {
                Progress::Voted(txid, decision) => self.votes.push((txid, decision)),
                Progress::Committed(txid, effects) => {
                    let mail = self.take_effects(view, at, effects);
                    self.leave_receipt(view, at, txid, Outcome::Committed { mail });
                }
                Progress::Aborted(txid, group, reason) => {
                    let outcome = if group == self.group {
                        Outcome::Rejected(reason)
                    } else {
                        Outcome::Aborted { group, reason }
                    };
                    self.leave_receipt(view, at, txid, outcome);
                }
            }
        }
    }

    /// Books what a transaction did beyond its accounts and sends its credits.
    fn take_effects(&mut self, view: &mut View<'_>, at: BlockContext, effects: Effects) -> Vec<(GroupId, u64)> {
        for (asset, amount) in effects.minted {
            self.flows.minted(asset, amount);
        }
        for (asset, amount) in effects.burned {
            self.flows.burned(asset, amount);
        }
        for (group, asset, amount) in effects.exported {
            self.flows.exported(asset, group, amount);
        }
        for (group, asset, amount) in effects.imported {
            self.flows.imported(asset, group, amount);
        }
        for line in &effects.lines {
            self.write_line(view, at, line);
        }
        let mut mail: Vec<_> =
            effects.credits.into_iter().map(|(dest, credit)| self.send_credit(view, dest, credit)).collect();
        for (dest, transfer) in effects.transfers {
            mail.push(self.send_transfer(view, dest, transfer));
        }
        mail
    }

    fn send_transfer(&mut self, view: &mut View<'_>, dest: GroupId, transfer: Transfer) -> (GroupId, u64) {
        self.flows.exported(transfer.asset, dest, transfer.amount);
        (dest, stream::emit(view, dest, Message::Transfer(transfer).encode()))
    }

    fn send_credit(&mut self, view: &mut View<'_>, dest: GroupId, credit: Credit) -> (GroupId, u64) {
        self.flows.exported(credit.asset, dest, credit.amount);
        (dest, stream::emit(view, dest, Message::Credit(credit).encode()))
    }

    /// Refuses new work for a peer whose stream is full, before anything is debited.
    fn check_windows(&self, view: &mut View<'_>, tx: &ParsedTx, voters: &[GroupId]) -> Result<(), Reject> {
        let home = |ledger: LedgerId, account: &ledger::Address| {
            if ledger == LedgerId::MAIN { self.layout.locate(account) } else { GroupId(ledger.0) }
        };
        let payees = tx.visible().filter_map(|(_, ledger, mv)| Some(home(ledger, &mv.follower()?)));
        // If the pair account lies here, the amount leaves from here.
        let abroad = tx.visible().filter_map(|(_, here, mv)| match mv {
            Move::Transfer { asset, ledger, .. } => Some(home(*ledger, &pair::address(here, asset))),
            _ => None,
        });
        for peer in payees.chain(abroad).chain(voters.iter().copied()) {
            if peer != self.group && stream::out_stream(view, peer).full() {
                return Err(Reject::PeerBusy);
            }
        }
        Ok(())
    }

    /// What the passing of time calls for, before any command of the block.
    pub fn begin(&mut self, view: &mut View<'_>, at: BlockContext) {
        self.take_self_mail(view, at);
        self.tick_jobs(view, at);
        let mut progress = Vec::new();
        self.with_rules(at, |ctx| commit::sweep(view, ctx, &mut progress));
        self.take_progress(view, at, progress);
        if self.group == GroupId::BEACON {
            let mail = beacon::epochs::turn(view, &at);
            self.tell(view, at, mail);
        }
    }

    /// All of a block: what time calls for, then the commands in their order.
    pub fn run(&mut self, view: &mut View<'_>, at: BlockContext, commands: &[Command]) -> Vec<CommandOutcome> {
        self.begin(view, at);
        commands.iter().map(|command| self.apply(view, at, command)).collect()
    }

    fn leave_receipt(&mut self, view: &mut View<'_>, at: BlockContext, txid: TxId, outcome: Outcome) -> CommandOutcome {
        let index = u32::try_from(self.receipts.len()).expect("receipts of a block are limited by its batch");
        self.receipts.push(Receipt {
            version: 1,
            txid,
            group: self.group,
            height: at.height,
            index,
            time_ms: at.time_ms,
            outcome,
        });
        view.store(schema::receipt(&txid), &ReceiptPlace { height: at.height, index, chain: self.group });
        CommandOutcome::Receipt(txid, index)
    }

    fn write_line(&mut self, view: &mut View<'_>, at: BlockContext, line: &HistoryLine) {
        view.store(schema::history(&line.account, at.height, self.lines), line);
        self.lines += 1;
    }

    fn deliver(&mut self, view: &mut View<'_>, at: BlockContext, bytes: &[u8]) -> CommandOutcome {
        let Ok(bundle) = borsh::from_slice::<Bundle>(bytes) else {
            return CommandOutcome::Ignored(Reject::Malformed);
        };
        if bundle.certificate.header.cluster != at.cluster {
            return CommandOutcome::Ignored(Reject::WrongCluster);
        }
        if self.layout.retired(bundle.source) {
            return CommandOutcome::Ignored(Reject::MailRetired);
        }
        match bundle.deliver(view, self.group) {
            Ok(taken) => {
                let count = taken.len() as u64;
                for (_, message) in taken {
                    self.receive(view, at, bundle.source, message);
                }
                CommandOutcome::Delivered(bundle.source, count)
            }
            Err(reject) => CommandOutcome::Ignored(reject),
        }
    }

    /// Takes one message. Credits are infallible; what only the beacon may say is ignored from
    /// anybody else.
    #[doc(hidden)]
    pub fn receive(&mut self, view: &mut View<'_>, at: BlockContext, source: GroupId, message: Message) {
        match message {
            // A credit stands for a debit in the same ledger. What another ledger says it sends is
            // measured by what it was sent: see `transfer`.
            Message::Credit(credit) if source.ledger() == Some(self.ledger()) => {
                self.flows.imported(credit.asset, source, credit.amount);
                // The sender may know another layout. What was certified is never lost: it goes on.
                self.credit(view, at, credit);
            }
            Message::Credit(_) => {}
            Message::Transfer(transfer) => self.transfer(view, at, source, transfer),
            Message::Vote(vote) => {
                let (mut progress, barred) = (Vec::new(), self.barred(view));
                // A vote that is refused says nothing about a transaction of this group: only a
                // group that breaks the rules sends one, and it moves nothing here.
                let taken = self.with_rules(at, |ctx| {
                    commit::take_vote(view, &CommitContext { barred, ..*ctx }, source, &vote, &mut progress)
                });
                let _refused = taken.is_err();
                self.take_progress(view, at, progress);
            }
            Message::AssetUpdate(def) if source == GroupId::BEACON => {
                view.store(schema::asset(&def.id), &def);
            }
            Message::CommitteeUpdate(committee) if source == GroupId::BEACON && committee.well_formed() => {
                self.adopt_committee(view, at, &committee);
            }
            Message::LayoutUpdate(layout) if source == GroupId::BEACON => {
                if layout.version > self.layout.version && layout.well_formed() {
                    view.store(schema::layout(), &layout);
                    self.layout = layout;
                    self.system_changed = true;
                }
            }
            Message::CommitteePlan(committee) if source == GroupId::BEACON => self.plan(view, &committee),
            Message::RegistryUpdate(update)
                if source == GroupId::BEACON && self.is_channel() && update.well_formed() =>
            {
                governance::and_tell(view, |view| governance::follow(view, &at, update));
            }
            Message::AnchorsUpdate(update) if source == GroupId::BEACON && update.well_formed() => {
                let key = schema::anchors(update.channel);
                if update.anchors.is_empty() {
                    view.delete(key);
                } else {
                    view.store(key, &update);
                }
                self.system_changed = true;
            }
            Message::ChannelUpdate(shown) if self.group == GroupId::BEACON => {
                let mail = beacon::channels::apply_update(view, source, shown);
                self.tell(view, at, mail);
            }
            Message::AssetUpdate(_)
            | Message::CommitteeUpdate(_)
            | Message::LayoutUpdate(_)
            | Message::CommitteePlan(_)
            | Message::RegistryUpdate(_)
            | Message::AnchorsUpdate(_)
            | Message::ChannelUpdate(_) => {}
            Message::Seal(seal) if source == GroupId::BEACON => self.seal(view, at, seal),
            Message::Unseal(job) if source == GroupId::BEACON => self.unseal(view, job),
            Message::Reshaped(reshaped) if source == GroupId::BEACON => self.adopt_layout(view, reshaped),
            Message::Closed(told) => self.pass_on(view, at, source, &told),
            Message::Seal(_) | Message::Unseal(_) | Message::Reshaped(_) => {}
        }
    }

    /// Mails what the registry has to tell. What is for the beacon itself it takes at once.
    fn tell(&mut self, view: &mut View<'_>, at: BlockContext, mail: Vec<(GroupId, Message)>) {
        for (dest, message) in mail {
            if dest == self.group {
                self.receive(view, at, dest, message);
            } else {
                stream::emit(view, dest, message.encode());
            }
        }
    }

    /// Notes the committee in force of a group. Earlier ones stay, so that what they certified can be
    /// judged.
    fn adopt_committee(&mut self, view: &mut View<'_>, at: BlockContext, committee: &Committee) {
        if committee.group == self.group {
            let current: Option<Committee> = view.load(&schema::current_committee(self.group));
            if current.is_some_and(|current| current != *committee) {
                view.store(schema::handover(at.height), &committee.hash());
            }
            let coming: Option<Committee> = view.load(&schema::coming_committee());
            if coming.is_some_and(|coming| coming.epoch <= committee.epoch) {
                view.delete(schema::coming_committee());
            }
        }
        view.store(schema::committee(committee.group, &committee.hash()), committee);
        // A retired shard has none in force any more.
        if !self.layout.retired(committee.group) {
            view.store(schema::current_committee(committee.group), committee);
        }
        self.system_changed = true;
    }

    /// Notes for which committee this group is being prepared.
    fn plan(&mut self, view: &mut View<'_>, coming: &Committee) {
        if coming.group != self.group || !coming.well_formed() {
            return;
        }
        let current: Option<Committee> = view.load(&schema::current_committee(self.group));
        if current.is_some_and(|current| current == *coming) {
            view.delete(schema::coming_committee());
        } else {
            view.store(schema::coming_committee(), coming);
        }
        self.system_changed = true;
    }

    /// Value on its way to another ledger: it leaves this one, or has come from another one. Groups of
    /// this ledger follow the rules that this one does, or nothing holds; a group of another ledger
    /// speaks for that ledger only.
    fn transfer(&mut self, view: &mut View<'_>, at: BlockContext, source: GroupId, transfer: Transfer) {
        let (here, there) = (self.ledger(), source.ledger());
        let leaves = transfer.from == here && there == Some(here);
        let arrives =
            transfer.to == here && transfer.from != here && (there == Some(here) || there == Some(transfer.from));
        // No amount that another ledger's committee makes up may bring this group down.
        if !(leaves || arrives && self.flows.has_room(view, &transfer.asset, transfer.amount)) {
            return;
        }
        let counts = self.with_rules(at, |ctx| rules::next_of(&ctx.rules, &transfer));
        if counts != self.group {
            self.flows.imported(transfer.asset, source, transfer.amount);
            self.send_transfer(view, counts, transfer);
        } else if leaves {
            self.flows.imported(transfer.asset, source, transfer.amount);
            let (next, line) = self.with_rules(at, |ctx| rules::depart(view, &ctx.rules, &transfer));
            self.write_line(view, at, &line);
            self.send_transfer(view, next, transfer);
        } else if let Ok((credit, line)) = self.with_rules(at, |ctx| rules::arrive(view, &ctx.rules, &transfer)) {
            self.flows.imported(transfer.asset, source, transfer.amount);
            self.write_line(view, at, &line);
            self.credit(view, at, credit);
        }
    }

    fn credit(&mut self, view: &mut View<'_>, at: BlockContext, credit: Credit) {
        let owner = self.with_rules(at, |ctx| ctx.rules.home(self.ledger(), &credit.account));
        if owner != self.group {
            self.send_credit(view, owner, credit);
            return;
        }
        let line = rules::apply_credit(view, &credit);
        self.write_line(view, at, &line);
    }

    fn acknowledge(&self, view: &mut View<'_>, at: BlockContext, bytes: &[u8]) -> CommandOutcome {
        let Ok(proof) = borsh::from_slice::<AckProof>(bytes) else {
            return CommandOutcome::Ignored(Reject::Malformed);
        };
        if proof.certificate.header.cluster != at.cluster {
            return CommandOutcome::Ignored(Reject::WrongCluster);
        }
        if self.layout.retired(proof.certificate.header.group) {
            return CommandOutcome::Ignored(Reject::MailRetired);
        }
        match proof.apply(view, self.group) {
            Ok(upto) => CommandOutcome::Acked(proof.certificate.header.group, upto),
            Err(reject) => CommandOutcome::Ignored(reject),
        }
    }

    fn checkpoint(&self, view: &mut View<'_>, at: BlockContext, bytes: &[u8]) -> CommandOutcome {
        if self.group != GroupId::BEACON {
            return CommandOutcome::Ignored(Reject::UnknownGroup);
        }
        let Ok(certificate) = borsh::from_slice::<Certificate>(bytes) else {
            return CommandOutcome::Ignored(Reject::Malformed);
        };
        match beacon::machine::apply_checkpoint(view, &at, &certificate) {
            Ok(_) => CommandOutcome::Checkpointed(certificate.header.group),
            Err(reject) => CommandOutcome::Ignored(reject),
        }
    }
}

impl BlockWork {
    fn registry(&mut self, view: &mut View<'_>, at: BlockContext, bytes: &[u8]) -> CommandOutcome {
        if self.group != GroupId::BEACON {
            return CommandOutcome::Ignored(Reject::UnknownGroup);
        }
        let executed = beacon::machine::execute_command(view, &at, bytes);
        self.take_executed(view, at, executed)
    }

    fn ready(&mut self, view: &mut View<'_>, at: BlockContext, bytes: &[u8]) -> CommandOutcome {
        if self.group != GroupId::BEACON {
            return CommandOutcome::Ignored(Reject::UnknownGroup);
        }
        let Ok(ready) = borsh::from_slice(bytes) else {
            return CommandOutcome::Ignored(Reject::Malformed);
        };
        let executed = beacon::seats::apply_ready(view, &at, &ready).map_err(beacon::Refused::from);
        self.take_executed(view, at, executed)
    }

    /// A proof counts for what it shows, whoever brings it. A group keeps what its own members have signed, the beacon
    /// that of any group, and decides there what follows for the node.
    fn evidence(&mut self, view: &mut View<'_>, at: BlockContext, bytes: &[u8]) -> CommandOutcome {
        let Ok(proof) = borsh::from_slice::<Equivocation>(bytes) else {
            return CommandOutcome::Ignored(Reject::Malformed);
        };
        if self.group != GroupId::BEACON && proof.first.ballot.group != self.group {
            return CommandOutcome::Ignored(Reject::UnknownGroup);
        }
        let owned = self.layout.prefix_of(self.group).unwrap_or(BitPrefix::ALL);
        match evidence::keep(view, &at, owned, &proof) {
            Ok(keeping) => {
                if keeping == Keeping::New && self.group == GroupId::BEACON {
                    let mail = beacon::accused::accuse(view, &at, &proof);
                    self.tell(view, at, mail);
                }
                CommandOutcome::Evidence(Box::new(proof))
            }
            Err(reject) => CommandOutcome::Ignored(reject),
        }
    }

    /// What a node says of whom it does not hear is the beacon's to judge.
    fn silence(&mut self, view: &mut View<'_>, at: BlockContext, bytes: &[u8]) -> CommandOutcome {
        if self.group != GroupId::BEACON {
            return CommandOutcome::Ignored(Reject::UnknownGroup);
        }
        let Ok(report) = borsh::from_slice::<beacon::Silence>(bytes) else {
            return CommandOutcome::Ignored(Reject::Malformed);
        };
        match beacon::watch::apply_silence(view, &at, &report) {
            Ok(mail) => {
                self.tell(view, at, mail);
                CommandOutcome::Registered
            }
            Err(reject) => CommandOutcome::Ignored(reject),
        }
    }

    /// What shows how a group or a replica does is the beacon's to judge, whoever brings it.
    fn audit(&mut self, view: &mut View<'_>, at: BlockContext, bytes: &[u8]) -> CommandOutcome {
        if self.group != GroupId::BEACON {
            return CommandOutcome::Ignored(Reject::UnknownGroup);
        }
        match beacon::AuditEntry::decode(bytes).and_then(|entry| beacon::audit::apply(view, &at, &entry)) {
            Ok(mail) => {
                self.tell(view, at, mail);
                CommandOutcome::Registered
            }
            Err(reject) => CommandOutcome::Ignored(reject),
        }
    }

    /// What a member of the beacon gives to a seed.
    fn contribution(&self, view: &mut View<'_>, at: BlockContext, bytes: &[u8]) -> CommandOutcome {
        if self.group != GroupId::BEACON {
            return CommandOutcome::Ignored(Reject::UnknownGroup);
        }
        let Ok(given) = borsh::from_slice::<beacon::Contribution>(bytes) else {
            return CommandOutcome::Ignored(Reject::Malformed);
        };
        match beacon::epochs::apply_contribution(view, &at, &given) {
            Ok(_) => CommandOutcome::Registered,
            Err(reject) => CommandOutcome::Ignored(reject),
        }
    }

    fn take_executed(
        &mut self,
        view: &mut View<'_>,
        at: BlockContext,
        executed: Result<beacon::Executed, beacon::Refused>,
    ) -> CommandOutcome {
        match executed {
            Ok(executed) => {
                for committee in executed.committees {
                    self.adopt_committee(view, at, &committee);
                }
                self.tell(view, at, executed.mail);
                self.follow_layout(view);
                CommandOutcome::Registered
            }
            Err(refused) => CommandOutcome::Ignored(refused.reject),
        }
    }

    fn govern(&self, view: &mut View<'_>, at: BlockContext, bytes: &[u8]) -> CommandOutcome {
        if !self.is_channel() {
            return CommandOutcome::Ignored(Reject::UnknownGroup);
        }
        match governance::and_tell(view, |view| governance::execute(view, &at, bytes)) {
            Ok((digest, verdict)) => CommandOutcome::Governed { digest, verdict },
            Err(reject) => CommandOutcome::Ignored(reject),
        }
    }
}

impl Machine for BlockWork {
    type Command = Command;
    type Outcome = CommandOutcome;

    fn read_set(&self, command: &Command) -> ReadSet {
        if let Command::Channel(bytes) = command {
            return governance::read_set(bytes, self.group);
        }
        let Command::Tx(bytes) = command else { return Vec::new() };
        let Ok((tx, _)) = ledger::Submission::split(bytes) else { return Vec::new() };
        let Ok(signed) = borsh::from_slice::<ledger::SignedTx>(&tx) else { return Vec::new() };
        let Ok(body) = ledger::TxBody::decode(&signed.body) else { return Vec::new() };
        let mut keys = vec![schema::receipt(&signed.txid(&body.cluster))];
        for (ledger, mv) in body.moves().filter(|(ledger, _)| *ledger == self.ledger()) {
            for account in mv.accounts() {
                if ledger != LedgerId::MAIN || self.layout.locate(&account) == self.group {
                    keys.push(schema::account(&account));
                }
            }
        }
        keys
    }

    fn apply(&mut self, view: &mut View<'_>, at: BlockContext, command: &Command) -> CommandOutcome {
        if let Some(refused) = self.refused_by_seal(at, command) {
            return refused;
        }
        match command {
            Command::Tx(bytes) => self.transaction(view, at, bytes),
            Command::Deliver(bytes) => self.deliver(view, at, bytes),
            Command::Ack(bytes) => self.acknowledge(view, at, bytes),
            Command::Checkpoint(bytes) => self.checkpoint(view, at, bytes),
            Command::Registry(bytes) => self.registry(view, at, bytes),
            Command::Channel(bytes) => self.govern(view, at, bytes),
            Command::Ready(bytes) => self.ready(view, at, bytes),
            Command::Evidence(bytes) => self.evidence(view, at, bytes),
            Command::Silence(bytes) => self.silence(view, at, bytes),
            Command::Contribution(bytes) => self.contribution(view, at, bytes),
            Command::Audit(bytes) => self.audit(view, at, bytes),
            Command::Report(bytes) => self.report(view, at, bytes),
            Command::Sealed(bytes) => self.end_of_parent(view, at, bytes),
        }
    }
}
