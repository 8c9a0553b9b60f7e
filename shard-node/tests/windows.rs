//! Full mail windows: new work for a busy peer is refused without a trace and told in the header,
//! everything else goes on, and two full streams that face each other drain.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use bytes::Bytes;
use consensus::port::AppliedState;
use cross_shard::{AckProof, Message, stream};
use ledger::genesis::Genesis;
use ledger::hash::sha256;
use ledger::ids::{Address, AssetId, GroupId, LedgerId, TimeMs, TxId};
use ledger::limits::{BUNDLE_MESSAGES_MAX, MAIL_WINDOW_MESSAGES};
use ledger::reject::Reject;
use ledger::rules::{self, Credit};
use ledger::tree::{StateTree, value_hash};
use ledger::view::View;
use ledger::{Move, SecretKey, schema};
use shard_node::core::applied::AppliedRecord;
use shard_node::core::entry::{Command, ENTRY_VERSION, Entry};
use shard_node::core::executor::{ExecutedBlock, GroupConstants, execute};
use shard_node::core::genesis::genesis_state;
use shard_node::core::machine::CommandOutcome;
use support::{PEER, SHARD, address, bundle, certify, client_of, genesis, path_to, transaction};

const ASSET: AssetId = AssetId([7; 16]);
const FUNDS: u128 = 1 << 40;

/// A group's state in memory, with a customer who has money.
struct Group {
    constants: GroupConstants,
    customer: SecretKey,
    state: BTreeMap<Vec<u8>, Bytes>,
    tree: StateTree,
    applied: AppliedRecord,
    salt: u8,
}

impl Group {
    fn new(genesis: &Genesis, group: GroupId) -> Self {
        let start = genesis_state(genesis, None, group).unwrap();
        let prefix = ledger::BitPrefix::in_tree(genesis.layout.prefix_of(group).unwrap());
        let mut group = Self {
            constants: GroupConstants { cluster: genesis.cluster_id(), group, verify: genesis.verify },
            customer: client_of(group),
            state: start.writes.into_iter().map(|(key, value)| (key, value.into())).collect(),
            tree: StateTree::new(prefix),
            applied: start.applied,
            salt: 0,
        };
        let account = address(&group.customer);
        group.put(|view| {
            let credit = Credit { txid: TxId::default(), move_index: 0, account, asset: ASSET, amount: FUNDS };
            rules::apply_credit(view, &credit);
            view.store(schema::total(&ASSET), &FUNDS);
        });
        group
    }

    fn keep(&mut self, writes: Vec<(Vec<u8>, Option<Bytes>)>) {
        for (key, value) in writes {
            match value {
                Some(value) => self.state.insert(key, value),
                None => self.state.remove(&key),
            };
        }
    }

    /// Writes past the machine: how a state came about is not what is tested.
    fn put(&mut self, write: impl FnOnce(&mut View<'_>)) {
        let mut view = View::new(&self.state);
        write(&mut view);
        let writes = view.into_writes().unwrap();
        let leaves = writes.iter().filter_map(|(key, value)| {
            Some((schema::tree_position(key)?, value.as_ref().map(|value| value_hash(value))))
        });
        self.tree.apply(leaves.collect::<Vec<_>>()).unwrap();
        self.keep(writes);
    }

    /// Fills the stream to a peer with this many credits that nobody has acknowledged.
    fn fill(&mut self, dest: GroupId, to: Address, count: u64) -> Vec<Vec<u8>> {
        let credit = |number: u64| Credit {
            txid: TxId(sha256(&number.to_be_bytes())),
            move_index: 0,
            account: to,
            asset: ASSET,
            amount: 1,
        };
        let sent: Vec<Vec<u8>> = (0..count).map(|number| Message::Credit(credit(number)).encode()).collect();
        self.put(|view| {
            for message in &sent {
                stream::emit(view, dest, message.clone());
            }
        });
        sent
    }

    fn block(&mut self, commands: Vec<Command>) -> ExecutedBlock {
        let stamp_ms = TimeMs(self.applied.time_ms.0 + 10);
        let payload = Bytes::from(Entry { version: ENTRY_VERSION, stamp_ms, commands }.encode());
        let consensus = AppliedState::default();
        let executed =
            execute(&self.state, &mut self.tree, &self.constants, &self.applied, consensus, &payload).unwrap();
        let mut block = executed.block().unwrap();
        self.applied = block.applied.clone();
        self.keep(std::mem::take(&mut block.writes));
        block
    }

    /// A payment of the customer, different each time.
    fn pay(&mut self, to: Address) -> Command {
        self.salt += 1;
        let mv = Move::Pay { from: address(&self.customer), to, asset: ASSET, amount: 5 };
        let tx = transaction(self.constants.cluster, LedgerId::MAIN, &self.customer, self.salt, vec![mv]);
        Command::Tx(tx.encode())
    }
}

fn encoded<T: borsh::BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).unwrap()
}

fn refused(block: &ExecutedBlock, expected: Reject) -> bool {
    matches!(block.outcomes[..], [CommandOutcome::Refused(_, reject)] if reject == expected)
}

fn executed(block: &ExecutedBlock) -> bool {
    matches!(block.outcomes[..], [CommandOutcome::Receipt(..)])
        && block.receipts.iter().all(ledger::receipt::Receipt::committed)
}

/// What `from` has certified in this block, for `to`: mail from `first` on, as much as a bundle takes.
fn mail(from: &ExecutedBlock, sent: &[Vec<u8>], to: GroupId, first: usize) -> Command {
    let bundle = bundle(certify(from.header.clone()), &from.outbox, sent, to, first, first + BUNDLE_MESSAGES_MAX);
    Command::Deliver(encoded(&bundle))
}

/// The proof of how far the block's group has taken mail of `source`.
fn cursor(of: &ExecutedBlock, source: GroupId) -> Command {
    let (leaf, path) = path_to(&of.inbox, source);
    Command::Ack(encoded(&AckProof { version: 1, leaf, path, certificate: certify(of.header.clone()) }))
}

#[test]
fn a_full_window_refuses_new_work_for_that_peer_and_the_header_says_so() {
    let genesis = genesis();
    let mut group = Group::new(&genesis, SHARD);
    let (near, far) = (Address(address(&group.customer).0), address(&client_of(PEER)));
    group.fill(PEER, far, MAIL_WINDOW_MESSAGES / 2 - 1);
    let pay = group.pay(far);
    let below = group.block(vec![pay]);
    assert!(executed(&below), "{:?}", below.outcomes);
    assert_eq!(below.header.congestion, [(PEER, 50)], "the payment made the window half full");

    let mut group = Group::new(&genesis, SHARD);
    group.fill(PEER, far, MAIL_WINDOW_MESSAGES);
    let before = (group.state.clone(), group.tree.root());
    let pay = group.pay(far);
    let full = group.block(vec![pay.clone()]);
    assert!(refused(&full, Reject::PeerBusy), "{:?}", full.outcomes);
    assert!(Reject::PeerBusy.retryable() && !Reject::PeerBusy.leaves_receipt());
    assert_eq!(full.header.congestion, [(PEER, 100)]);
    assert!(full.receipts.is_empty() && full.mail.is_empty());
    assert_eq!(group.tree.root(), before.1, "nothing was debited");
    // Again, with the same fate: it has burned nothing. And what stays in the shard goes on.
    assert!(refused(&group.block(vec![pay]), Reject::PeerBusy));
    let local = group.pay(near);
    assert!(executed(&group.block(vec![local])));
}

#[test]
fn two_full_streams_that_face_each_other_drain() {
    let genesis = genesis();
    let (mut here, mut there) = (Group::new(&genesis, SHARD), Group::new(&genesis, PEER));
    let (alice, bob) = (address(&here.customer), address(&there.customer));
    let from_here = here.fill(PEER, bob, MAIL_WINDOW_MESSAGES);
    let from_there = there.fill(SHARD, alice, MAIL_WINDOW_MESSAGES);
    let (pay_here, pay_there) = (here.pay(bob), there.pay(alice));
    let (mut last_here, mut last_there) = (here.block(vec![pay_here.clone()]), there.block(vec![pay_there.clone()]));
    assert!(refused(&last_here, Reject::PeerBusy) && refused(&last_there, Reject::PeerBusy));

    // Each takes the other's mail although its own window is full, and says so with its next header.
    let windows = usize::try_from(MAIL_WINDOW_MESSAGES).unwrap();
    let mut first = 0;
    while first < windows {
        let (to_there, to_here) =
            (mail(&last_here, &from_here, PEER, first), mail(&last_there, &from_there, SHARD, first));
        last_there = there.block(vec![to_there]);
        last_here = here.block(vec![to_here]);
        let took = BUNDLE_MESSAGES_MAX as u64;
        assert_eq!(last_there.outcomes, [CommandOutcome::Delivered(SHARD, took)]);
        assert_eq!(last_here.outcomes, [CommandOutcome::Delivered(PEER, took)]);
        first += BUNDLE_MESSAGES_MAX;
        if first == BUNDLE_MESSAGES_MAX {
            // The first acknowledgement is room enough for the payment that was refused.
            let (of_there, of_here) = (cursor(&last_there, SHARD), cursor(&last_here, PEER));
            assert_eq!(here.block(vec![of_there]).outcomes, [CommandOutcome::Acked(PEER, took)]);
            assert_eq!(there.block(vec![of_here]).outcomes, [CommandOutcome::Acked(SHARD, took)]);
            last_here = here.block(Vec::new());
            last_there = there.block(Vec::new());
            assert_eq!(last_here.header.congestion, [(PEER, 93)]);
        }
    }
    let (of_there, of_here) = (cursor(&last_there, SHARD), cursor(&last_here, PEER));
    let last = here.block(vec![of_there]);
    assert_eq!(last.outcomes, [CommandOutcome::Acked(PEER, MAIL_WINDOW_MESSAGES)]);
    assert!(last.header.congestion.is_empty(), "{:?}", last.header.congestion);
    assert_eq!(there.block(vec![of_here]).outcomes, [CommandOutcome::Acked(SHARD, MAIL_WINDOW_MESSAGES)]);
    assert!(executed(&here.block(vec![pay_here])) && executed(&there.block(vec![pay_there])));
}
