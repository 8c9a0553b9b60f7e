use std::collections::BTreeMap;

use super::*;
use crate::core::entry::{Command, ENTRY_VERSION};
use crate::core::genesis::genesis_state;
use crate::core::records::ReceiptPlace;
use crate::core::support::{
    self, GROUPS, NOW, PEER, SHARD, address, bundle, certify, client_of, genesis, genesis_named, liars, path_to,
    transaction, twice,
};
use cross_shard::{AckProof, Bundle};
use ledger::evidence;
use ledger::genesis::Genesis;
use ledger::ids::{AssetId, Height, LedgerId};
use ledger::reject::Reject;
use ledger::tree::BitPrefix;
use ledger::{AssetSpec, Move, SecretKey, SignedTx, TxBody};

/// A group's state from block 0 on, in memory.
struct Group {
    constants: GroupConstants,
    state: BTreeMap<Vec<u8>, Bytes>,
    tree: StateTree,
    applied: AppliedRecord,
}

impl Group {
    fn new(genesis: &Genesis, group: GroupId) -> Self {
        let start = genesis_state(genesis, None, group).expect("the genesis names the group");
        let prefix = genesis.layout.prefix_of(group).map_or(BitPrefix::ROOT, ledger::BitPrefix::in_tree);
        Self {
            constants: GroupConstants { cluster: genesis.cluster_id(), group, verify: genesis.verify },
            state: start.writes.into_iter().map(|(key, value)| (key, value.into())).collect(),
            tree: StateTree::new(prefix),
            applied: start.applied,
        }
    }

    /// Executes a block and keeps what it wrote.
    fn block(&mut self, commands: Vec<Command>) -> ExecutedBlock {
        let stamp_ms = TimeMs(self.applied.time_ms.0 + 10);
        self.payload(&Entry { version: ENTRY_VERSION, stamp_ms, commands }.encode())
    }

    fn payload(&mut self, entry: &[u8]) -> ExecutedBlock {
        let payload = Bytes::copy_from_slice(entry);
        let consensus = AppliedState::default();
        let executed = execute(&self.state, &mut self.tree, &self.constants, &self.applied, consensus, &payload);
        let block = executed.expect("it is executed").block().expect("a block");
        for (key, value) in &block.writes {
            match value {
                Some(value) => self.state.insert(key.clone(), value.clone()),
                None => self.state.remove(key),
            };
        }
        self.applied = block.applied.clone();
        for line in &block.header.value_flow {
            assert!(line.balances(), "{line:?}");
        }
        assert_eq!(block.header_hash, block.header.hash());
        block
    }
}

fn borsh_of<T: borsh::BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).expect("writing to memory does not fail")
}

/// All mail of a block to `dest`, which has been sent nothing before.
fn first_mail(block: &ExecutedBlock, dest: GroupId) -> Bundle {
    let sent: Vec<Vec<u8>> =
        block.mail.iter().filter(|mail| mail.dest == dest).map(|mail| mail.message.to_vec()).collect();
    bundle(certify(block.header.clone()), &block.outbox, &sent, dest, 0, sent.len())
}

fn deliver(bundle: &Bundle) -> Command {
    Command::Deliver(borsh_of(bundle))
}

fn issuer() -> SecretKey {
    client_of(SHARD)
}

fn spec() -> AssetSpec {
    AssetSpec { issuer: address(&issuer()), symbol: "EUR".to_owned(), name: "Euro".to_owned(), decimals: 2 }
}

fn asset() -> AssetId {
    spec().id()
}

fn command(tx: &SignedTx) -> Command {
    Command::Tx(tx.encode())
}

fn issue(genesis: &Genesis) -> Command {
    let moves = vec![Move::Issue(spec())];
    command(&transaction(genesis.cluster_id(), LedgerId::BEACON, &issuer(), 0, moves))
}

/// Mints 70 to the issuer and 30 to an account of the other shard.
fn mint_both(genesis: &Genesis) -> SignedTx {
    let (from, to) = (address(&issuer()), address(&client_of(PEER)));
    let moves = vec![
        Move::Mint { issuer: from, to: from, asset: asset(), amount: 70 },
        Move::Mint { issuer: from, to, asset: asset(), amount: 30 },
    ];
    transaction(genesis.cluster_id(), LedgerId::MAIN, &issuer(), 1, moves)
}

/// The beacon's mail about the asset.
fn announcement(genesis: &Genesis, dest: GroupId) -> Bundle {
    first_mail(&Group::new(genesis, GroupId::BEACON).block(vec![issue(genesis)]), dest)
}

#[test]
fn block_one_follows_the_genesis() {
    let genesis = genesis();
    for group in GROUPS {
        let mut chain = Group::new(&genesis, group);
        let zero = chain.applied.clone();
        let block = chain.block(Vec::new());
        assert_eq!(block.header.height, Height(1));
        assert_eq!(block.header.parents, [zero.header_hash]);
        assert_eq!(block.header.group, group);
        assert_eq!(block.header.time_ms, TimeMs(NOW.0 + 10));
        assert_eq!(block.header.committee_hash, support::committee(group, 0).hash());
        assert_eq!(block.header.state_root, zero.state_root, "nothing happened");
        assert_eq!(certify(block.header.clone()).verify(&support::committee(group, 0)), Ok(()));
        assert!(!block.system_changed && block.receipts.is_empty() && block.mail.is_empty());
        let stored = chain.state.get(&schema::applied()).expect("the position is among the writes");
        assert_eq!(borsh::from_slice::<AppliedRecord>(stored).expect("it decodes"), block.applied);
        let late = chain.payload(&Entry { version: 1, stamp_ms: TimeMs(0), commands: Vec::new() }.encode());
        assert_eq!(late.header.time_ms, TimeMs(NOW.0 + 11), "time never stands still");
    }
}

#[test]
fn the_same_entry_gives_the_same_block() {
    let genesis = genesis();
    let announced = announcement(&genesis, SHARD);
    let run = || {
        let mut chain = Group::new(&genesis, SHARD);
        let block = chain.block(vec![deliver(&announced), command(&mint_both(&genesis)), Command::Ack(vec![1])]);
        (block.header_hash, block.writes, block.outcomes)
    };
    assert_eq!(run(), run());
    let beacon = || Group::new(&genesis, GroupId::BEACON).block(vec![issue(&genesis)]).header_hash;
    assert_eq!(beacon(), beacon());
    let garbage = Group::new(&genesis, SHARD).payload(b"garbage");
    assert!(garbage.outcomes.is_empty(), "garbage is an empty block");
}

#[test]
fn value_moves_between_shards_and_every_header_balances() {
    let genesis = genesis();
    let mut shard = Group::new(&genesis, SHARD);
    let mut peer = Group::new(&genesis, PEER);
    let sent = shard.block(vec![deliver(&announcement(&genesis, SHARD)), command(&mint_both(&genesis))]);
    assert_eq!(sent.outcomes[0], CommandOutcome::Delivered(GroupId::BEACON, 1));
    assert!(sent.receipts[0].committed(), "{:?}", sent.receipts);
    let [line] = &sent.header.value_flow[..] else { panic!("one asset moved") };
    assert_eq!((line.asset, line.opening, line.minted, line.closing), (asset(), 0, 100, 70));
    assert_eq!(line.exported, [(PEER, 30)]);

    let mail = first_mail(&sent, PEER);
    let taken = peer.block(vec![deliver(&mail), deliver(&mail)]);
    let delivered = [CommandOutcome::Delivered(SHARD, 1), CommandOutcome::Delivered(SHARD, 0)];
    assert_eq!(taken.outcomes, delivered, "mail is taken once");
    let [line] = &taken.header.value_flow[..] else { panic!("one asset moved") };
    assert_eq!((line.opening, line.closing), (0, 30));
    assert_eq!(line.imported, [(SHARD, 30)]);

    assert!(shard.state.contains_key(&schema::mail(PEER, 0)));
    let (leaf, path) = path_to(&taken.inbox, SHARD);
    let proof = AckProof { version: 1, leaf, path, certificate: certify(taken.header.clone()) };
    let acked = shard.block(vec![Command::Ack(borsh_of(&proof))]);
    assert_eq!(acked.outcomes, [CommandOutcome::Acked(PEER, 1)]);
    assert!(acked.header.value_flow.is_empty(), "nothing moved");
    assert!(!shard.state.contains_key(&schema::mail(PEER, 0)), "what the peer has taken is dropped");
}

#[test]
fn mail_of_an_ended_incarnation_moves_nothing() {
    let genesis = genesis();
    let mut shard = Group::new(&genesis, SHARD);
    let mut peer = Group::new(&genesis, PEER);
    let sent = shard.block(vec![deliver(&announcement(&genesis, SHARD)), command(&mint_both(&genesis))]);
    let mail = deliver(&first_mail(&sent, PEER));
    let committee = genesis.committee(SHARD).expect("the genesis names the group");
    let incarnation = ledger::ids::Incarnation(committee.incarnation.0 + 1);
    let reborn = Committee { incarnation, ..committee.clone() };
    peer.state.insert(schema::current_committee(SHARD), borsh_of(&reborn).into());
    let before = peer.applied.state_root;
    let refused = peer.block(vec![mail.clone()]);
    assert_eq!(refused.outcomes, [CommandOutcome::Ignored(Reject::DeadIncarnation)]);
    assert!(refused.inbox.is_empty() && refused.header.value_flow.is_empty());
    assert_eq!(refused.header.state_root, before);
    // It was nothing else that was wrong with it.
    peer.state.insert(schema::current_committee(SHARD), borsh_of(committee).into());
    assert_eq!(peer.block(vec![mail]).outcomes, [CommandOutcome::Delivered(SHARD, 1)]);
}

#[test]
fn a_transaction_is_executed_once() {
    let genesis = genesis();
    let mut shard = Group::new(&genesis, SHARD);
    let tx = mint_both(&genesis);
    let txid = tx.txid(&genesis.cluster_id());
    let first = shard.block(vec![deliver(&announcement(&genesis, SHARD)), command(&tx), command(&tx)]);
    let known = CommandOutcome::Known(txid, ReceiptPlace { height: Height(1), index: 0, chain: SHARD });
    assert_eq!(first.outcomes[1..], [CommandOutcome::Receipt(txid, 0), known.clone()]);
    assert_eq!(first.receipts.len(), 1);
    let later = shard.block(vec![command(&tx)]);
    assert_eq!(later.outcomes, [known]);
    assert!(later.receipts.is_empty() && later.mail.is_empty() && later.header.value_flow.is_empty());
    assert_eq!(later.header.state_root, first.header.state_root);
}

#[test]
fn a_refusal_names_the_bytes_and_leaves_the_transaction_to_better_witnesses() {
    let genesis = genesis();
    let mut shard = Group::new(&genesis, SHARD);
    let good = mint_both(&genesis);
    let mut bad = good.clone();
    bad.witnesses = SignedTx::sign(&TxBody::decode(&good.body).expect("a body"), &[&client_of(PEER)]).witnesses;
    let txid = good.txid(&genesis.cluster_id());
    assert_eq!(bad.txid(&genesis.cluster_id()), txid, "the witnesses are not in it");
    let commands = vec![deliver(&announcement(&genesis, SHARD)), command(&bad), command(&good), command(&bad)];
    let block = shard.block(commands);
    let refused = RefusedTx { txid, bytes: bad.encode().into(), reject: Reject::NotAuthorised };
    assert_eq!(block.refused, [refused], "who sent the others must not hear of it");
    let place = ReceiptPlace { height: Height(1), index: 0, chain: SHARD };
    assert_eq!(block.outcomes[2..], [CommandOutcome::Receipt(txid, 0), CommandOutcome::Known(txid, place)]);
    assert!(block.receipts[0].committed());
}

#[test]
fn mail_of_another_cluster_is_ignored() {
    // The same keys and committees: only the name in the header tells the clusters apart.
    let (ours, theirs) = (genesis(), genesis_named("other", VerifyMode::Ingest));
    let mut shard = Group::new(&ours, SHARD);
    let block = shard.block(vec![deliver(&announcement(&theirs, SHARD))]);
    assert_eq!(block.outcomes, [CommandOutcome::Ignored(Reject::WrongCluster)]);
    assert!(block.inbox.is_empty());
    let block = shard.block(vec![command(&mint_both(&theirs)), Command::Deliver(vec![1])]);
    let ignored = [Reject::WrongCluster, Reject::Malformed].map(CommandOutcome::Ignored);
    assert_eq!(block.outcomes, ignored);
    let block = shard.block(vec![deliver(&announcement(&ours, PEER)), deliver(&announcement(&ours, SHARD))]);
    let outcomes = [CommandOutcome::Ignored(Reject::MailForged), CommandOutcome::Delivered(GroupId::BEACON, 1)];
    assert_eq!(block.outcomes, outcomes, "another group's mail is not ours");
}

#[test]
fn replicas_that_check_signatures_are_given_the_new_transactions() {
    for (verify, count) in [(VerifyMode::Ingest, 0), (VerifyMode::Every, 1)] {
        let genesis = genesis_named("test", verify);
        let tx = command(&mint_both(&genesis));
        let mut shard = Group::new(&genesis, SHARD);
        let block = shard.block(vec![deliver(&announcement(&genesis, SHARD)), tx.clone(), tx]);
        assert_eq!(block.to_verify.len(), count, "{verify:?}");
        assert!(block.to_verify.iter().all(|tx| tx.verify_signatures().is_ok()));
    }
}

/// A proof is an outcome and a leaf of the state, once; the beacon draws the consequence by itself.
#[test]
fn evidence_is_kept_under_the_state_root_and_costs_the_node_its_seats() {
    let (genesis, proof) = (genesis(), twice(2));
    let taken = CommandOutcome::Evidence(Box::new(proof));
    let command = || Command::Evidence(borsh_of(&proof));
    for group in [SHARD, GroupId::BEACON] {
        let mut chain = Group::new(&genesis, group);
        let unknown = chain.block(vec![command(), Command::Evidence(vec![1])]);
        let ignored = [Reject::CommitteeUnknown, Reject::Malformed].map(CommandOutcome::Ignored);
        assert_eq!(unknown.outcomes, ignored, "a refusal is no fault");
        chain.state.insert(schema::committee(SHARD, &liars().hash()), borsh_of(&liars()).into());
        let block = chain.block(vec![command(), command()]);
        assert_eq!(block.outcomes, [taken.clone(), taken.clone()]);
        assert_ne!(block.header.state_root, unknown.header.state_root);
        let mut view = View::new(&chain.state);
        let owned = evidence::owned(&mut view, group);
        let [kept] = &evidence::kept(&mut view, owned)[..] else { panic!("one proof") };
        assert_eq!((kept.proof, kept.height), (proof, Height(2)));
        let later = chain.block(vec![command()]);
        assert_eq!((later.outcomes, later.header.state_root), (vec![taken.clone()], block.header.state_root));
        if group == GroupId::BEACON {
            let mut view = View::new(&chain.state);
            let accused: Vec<_> = beacon::accused::accusations(&mut view).iter().map(|found| found.node.0).collect();
            assert_eq!(accused, [2]);
            let coming = beacon::registry::coming_of(&mut view, SHARD).expect("another node takes the seat");
            assert!(coming.index_of(proof.node()).is_none());
            assert_eq!(block.mail.iter().map(|mail| mail.dest).collect::<Vec<_>>(), [SHARD]);
        } else {
            assert!(block.mail.is_empty());
        }
    }
    let mut elsewhere = Group::new(&genesis, PEER);
    let ignored = [CommandOutcome::Ignored(Reject::UnknownGroup)];
    assert_eq!(elsewhere.block(vec![command()]).outcomes, ignored, "a shard keeps what its own members have signed");
}
