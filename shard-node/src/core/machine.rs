//! The composed machine of a group: account rules, mail and, in the beacon, the registry.
//!
//! One command in, one outcome out; a refusal is an outcome. All state is in the view. What the
//! machine keeps itself ([`BlockWork`]) lives for one block: the layout it goes by, the value flow
//! and the receipts.

use cross_shard::bundle::{AckProof, Bundle};
use cross_shard::message::Message;
use cross_shard::stream;
use ledger::certificate::Certificate;
use ledger::genesis::VerifyMode;
use ledger::ids::{GroupId, GroupKind, LedgerId, TxId};
use ledger::layout::Layout;
use ledger::machine::{BlockContext, Machine, ReadSet};
use ledger::receipt::{Outcome, Receipt};
use ledger::reject::Reject;
use ledger::rules::{self, HistoryLine, RuleContext};
use ledger::schema;
use ledger::tx::{Leg, ParsedTx};
use ledger::view::View;

use crate::core::entry::Command;
use crate::core::flows::FlowBook;
use crate::core::records::ReceiptPlace;

/// What became of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandOutcome {
    /// A transaction was executed or refused for good: the receipt at this index of the block.
    Receipt(TxId, u32),
    /// A transaction had its receipt already.
    Known(TxId, ReceiptPlace),
    /// A transaction was refused without a trace.
    Refused(TxId, Reject),
    /// Mail was taken: source and how many messages.
    Delivered(GroupId, u64),
    /// A peer's cursor was proved; everything below is dropped.
    Acked(GroupId, u64),
    /// The beacon took a checkpoint, or had it already.
    Checkpointed(GroupId),
    /// The registry changed.
    Registered,
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
    /// Transactions seen in this block, for replicas that check signatures before they attest.
    pub parsed: Vec<ParsedTx>,
    /// Committees or the layout changed.
    pub system_changed: bool,
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
            parsed: Vec::new(),
            system_changed: false,
            lines: 0,
        }
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
            Ok(mail) => self.leave_receipt(view, at, txid, Outcome::Committed { mail }),
            Err(reject) if reject.leaves_receipt() => self.leave_receipt(view, at, txid, Outcome::Rejected(reject)),
            Err(reject) => CommandOutcome::Refused(txid, reject),
        }
    }

    fn execute(&mut self, view: &mut View<'_>, at: BlockContext, tx: &ParsedTx) -> Result<Vec<(GroupId, u64)>, Reject> {
        if self.group == GroupId::BEACON {
            let messages = beacon::machine::execute_issue(view, &at, tx)?;
            return Ok(messages
                .into_iter()
                .map(|(dest, message)| (dest, stream::emit(view, dest, message.encode())))
                .collect());
        }
        let ledger = match self.group.kind() {
            Some(GroupKind::Channel) => LedgerId::of_channel(self.group),
            _ => LedgerId::MAIN,
        };
        let ctx = RuleContext { group: self.group, ledger, layout: Some(&self.layout), time_ms: at.time_ms };
        self.check_windows(view, tx)?;
        let effects = rules::execute(view, &ctx, tx)?;
        for (asset, amount) in effects.minted {
            self.flows.minted(asset, amount);
        }
        for (asset, amount) in effects.burned {
            self.flows.burned(asset, amount);
        }
        let mut mail = Vec::with_capacity(effects.credits.len());
        for (dest, credit) in effects.credits {
            self.flows.exported(credit.asset, dest, credit.amount);
            mail.push((dest, stream::emit(view, dest, Message::Credit(credit).encode())));
        }
        for line in &effects.lines {
            self.write_line(view, at, line);
        }
        Ok(mail)
    }

    /// Refuses new work for a peer whose stream is full, before anything is debited.
    fn check_windows(&self, view: &mut View<'_>, tx: &ParsedTx) -> Result<(), Reject> {
        for (_, mv) in tx.body.moves() {
            for leg in mv.legs() {
                if let Leg::Follower(account) = leg {
                    let owner = self.layout.locate(&account);
                    if owner != self.group && stream::out_stream(view, owner).full() {
                        return Err(Reject::PeerBusy);
                    }
                }
            }
        }
        Ok(())
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
        view.store(schema::receipt(&txid), &ReceiptPlace { height: at.height, index });
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
    fn receive(&mut self, view: &mut View<'_>, at: BlockContext, source: GroupId, message: Message) {
        match message {
            Message::Credit(credit) => {
                self.flows.imported(credit.asset, source, credit.amount);
                let line = rules::apply_credit(view, &credit);
                self.write_line(view, at, &line);
            }
            Message::AssetUpdate(def) if source == GroupId::BEACON => {
                view.store(schema::asset(&def.id), &def);
            }
            Message::CommitteeUpdate(committee) if source == GroupId::BEACON && committee.well_formed() => {
                view.store(schema::committee(committee.group, &committee.hash()), &committee);
                view.store(schema::current_committee(committee.group), &committee);
                self.system_changed = true;
            }
            Message::LayoutUpdate(layout) if source == GroupId::BEACON => {
                if layout.version > self.layout.version && layout.well_formed() {
                    view.store(schema::layout(), &layout);
                    self.layout = layout;
                    self.system_changed = true;
                }
            }
            Message::AssetUpdate(_) | Message::CommitteeUpdate(_) | Message::LayoutUpdate(_) => {}
        }
    }

    fn acknowledge(&self, view: &mut View<'_>, at: BlockContext, bytes: &[u8]) -> CommandOutcome {
        let Ok(proof) = borsh::from_slice::<AckProof>(bytes) else {
            return CommandOutcome::Ignored(Reject::Malformed);
        };
        if proof.certificate.header.cluster != at.cluster {
            return CommandOutcome::Ignored(Reject::WrongCluster);
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
    fn registry(&self, view: &mut View<'_>, at: BlockContext, bytes: &[u8]) -> CommandOutcome {
        if self.group != GroupId::BEACON {
            return CommandOutcome::Ignored(Reject::UnknownGroup);
        }
        match beacon::machine::execute_command(view, &at, bytes) {
            Ok(_) => CommandOutcome::Registered,
            Err(reject) => CommandOutcome::Ignored(reject),
        }
    }
}

impl Machine for BlockWork {
    type Command = Command;
    type Outcome = CommandOutcome;

    fn read_set(&self, command: &Command) -> ReadSet {
        let Command::Tx(bytes) = command else { return Vec::new() };
        let Ok(signed) = borsh::from_slice::<ledger::SignedTx>(bytes) else { return Vec::new() };
        let Ok(body) = ledger::TxBody::decode(&signed.body) else { return Vec::new() };
        let mut keys = vec![schema::receipt(&signed.txid(&body.cluster))];
        for (_, mv) in body.moves() {
            for leg in mv.legs() {
                let (Leg::Voter(account) | Leg::Follower(account)) = leg;
                if self.layout.locate(&account) == self.group {
                    keys.push(schema::account(&account));
                }
            }
        }
        keys
    }

    fn apply(&mut self, view: &mut View<'_>, at: BlockContext, command: &Command) -> CommandOutcome {
        match command {
            Command::Tx(bytes) => self.transaction(view, at, bytes),
            Command::Deliver(bytes) => self.deliver(view, at, bytes),
            Command::Ack(bytes) => self.acknowledge(view, at, bytes),
            Command::Checkpoint(bytes) => self.checkpoint(view, at, bytes),
            Command::Registry(bytes) => self.registry(view, at, bytes),
        }
    }
}
