use cross_shard::closed::RESHAPED_VERSION;
use cross_shard::stream::OutStream;
use cross_shard::{ClosedStream, Ended};
use ledger::header::FLAG_SEALED;
use ledger::ids::{AssetId, LayoutVersion};
use ledger::{Committee, Layout};

use super::*;
use crate::core::elastic::{
    Chain, JOB, LEFT, RIGHT, asset, borsh_of, client, clients, command, decoded, merge_seal, mint, pay, split_seal, tx,
};
use crate::core::support::{PEER, SHARD, address, bundle_from_peer, committee, credits};
use cross_shard::Message;
use ledger::Move;

/// [`SHARD`] with 100 in an account of its left half and 40 in one of its right half.
fn funded() -> Chain {
    let mut chain = Chain::new(SHARD);
    let known = chain.told(&[Message::AssetUpdate(asset())]);
    let block = chain.block(vec![known, mint(&client(LEFT), 100, 1), mint(&client(RIGHT), 40, 2)]);
    assert!(block.receipts.iter().all(ledger::Receipt::committed));
    chain
}

fn refused(outcome: &CommandOutcome) -> bool {
    matches!(outcome, CommandOutcome::Refused(_, Reject::Sealing) | CommandOutcome::Ignored(Reject::Sealing))
}

#[test]
fn what_stands_before_a_seal_counts_and_nothing_behind_it_does() {
    let mut chain = funded();
    let (payer, payee) = (client(LEFT), client(RIGHT));
    let other = ledger::asset::AssetDef { id: AssetId([9; 16]), ..asset() };
    let sealing = chain.told(&[Message::Seal(split_seal()), Message::AssetUpdate(other.clone())]);
    let commands = vec![
        pay(&payer, &payee, 5, 3),
        sealing,
        pay(&payer, &payee, 6, 4),
        Command::Ack(vec![1]),
        chain.told(&[Message::Unseal(JOB)]),
    ];
    let block = chain.block(commands);
    assert!(matches!(block.outcomes[0], CommandOutcome::Receipt(..)));
    assert_eq!(block.outcomes[1], CommandOutcome::Delivered(GroupId::BEACON, 2));
    assert!(block.outcomes[2..].iter().all(refused), "{:?}", block.outcomes);
    assert_eq!(block.refused.len(), 1, "its sender hears of it");
    assert!(chain.state.contains_key(&schema::asset(&other.id)), "later messages of the same bundle count");
    assert_eq!(block.header.flags, FLAG_SEALED);
    let sealed = block.sealed.expect("a seal is in force");
    assert_eq!((sealed.height, &sealed.seal), (block.header.height, &split_seal()));
    assert_eq!(decoded::<SealedBy>(&chain.state, &schema::sealed()).expect("it is in state"), sealed);
    let roots: Vec<_> = block.shapes.iter().map(beacon::jobs::RootShape::root).collect();
    assert_eq!(ledger::tree::combine(roots[0], roots[1]).hash, block.header.state_root.0);
    let kept: Vec<beacon::jobs::RootShape> = decoded(&chain.state, &records::seal_shapes()).expect("they are kept");
    assert_eq!(kept, block.shapes);
    assert_eq!((chain.balance(&payer), chain.balance(&payee)), (95, 45));
}

#[test]
fn an_entry_behind_a_seal_leaves_no_trace() {
    let mut chain = funded();
    let sealing = chain.told(&[Message::Seal(split_seal())]);
    chain.block(vec![sealing]);
    let before = (chain.state.clone(), chain.applied.clone(), chain.tree.root());
    let mail = bundle_from_peer(&committee(PEER, 0), &credits(2), 0, 2);
    let again = Seal { job: JobId(JOB.0 + 1), ..split_seal() };
    let entries = [
        Vec::new(),
        vec![pay(&client(LEFT), &client(RIGHT), 1, 5)],
        vec![Command::Ack(vec![1]), Command::Deliver(borsh_of(&mail))],
        // Mail of the beacon that does not take the seal back waits with it.
        vec![chain.told(&[Message::AssetUpdate(asset()), Message::Seal(again), Message::Unseal(JobId(99))])],
    ];
    for entry in entries {
        assert!(chain.entry(entry).is_none());
        assert_eq!((&chain.state, &chain.applied, chain.tree.root()), (&before.0, &before.1, before.2));
    }
}

#[test]
fn a_seal_that_is_taken_back_leaves_the_group_as_if_there_had_been_none() {
    let mut chain = funded();
    let (payer, payee) = (client(LEFT), client(RIGHT));
    let sealing = chain.told(&[Message::Seal(split_seal())]);
    let sealed = chain.block(vec![sealing]);
    let back = chain.told(&[Message::AssetUpdate(asset()), Message::Unseal(JOB)]);
    let block = chain.block(vec![pay(&payer, &payee, 1, 6), back, pay(&payer, &payee, 2, 7)]);
    assert_eq!(block.header.parents, [sealed.header_hash], "the chain goes on");
    assert!(refused(&block.outcomes[0]), "it stands before the word that lets the group go on");
    assert_eq!(block.outcomes[1], CommandOutcome::Delivered(GroupId::BEACON, 2));
    assert!(matches!(block.outcomes[2], CommandOutcome::Receipt(..)));
    assert!(block.unsealed && block.sealed.is_none() && block.shapes.is_empty());
    assert_eq!(block.header.flags, 0);
    assert!(!chain.state.contains_key(&schema::sealed()) && !chain.state.contains_key(&records::seal_shapes()));
    assert_eq!((chain.balance(&payer), chain.balance(&payee)), (98, 42));
    // Sealed and taken back by one bundle, and sealed again.
    let both = chain.told(&[Message::Seal(split_seal()), Message::Unseal(JOB)]);
    let block = chain.block(vec![both, pay(&payer, &payee, 3, 8)]);
    assert!(block.sealed.is_none() && block.header.flags == 0);
    assert!(matches!(block.outcomes[1], CommandOutcome::Receipt(..)));
    let sealing = chain.told(&[Message::Seal(split_seal())]);
    assert!(chain.block(vec![sealing]).sealed.is_some());
    let anew = chain.told(&[Message::Unseal(JOB), Message::Seal(split_seal())]);
    let block = chain.block(vec![anew, pay(&payer, &payee, 4, 9)]);
    assert_eq!(block.sealed.map(|sealed| sealed.height), Some(block.header.height));
    assert!(block.unsealed && refused(&block.outcomes[1]));
}

#[test]
fn a_seal_that_is_not_the_groups_next_one_seals_nothing() {
    let later = |by: u64| Layout { version: LayoutVersion(split_seal().layout.version.0 + by), ..split_seal().layout };
    let cases = [
        ("of another version", Seal { version: 0, ..split_seal() }),
        ("of a later layout", Seal { layout: later(1), ..split_seal() }),
        ("without its children", Seal { children: Vec::new(), ..split_seal() }),
        ("that ends nobody", Seal { parents: Vec::new(), ..split_seal() }),
        ("of others", Seal { parents: vec![PEER], ..split_seal() }),
    ];
    for (what, seal) in cases {
        let mut chain = funded();
        let told = chain.told(&[Message::Seal(seal)]);
        let block = chain.block(vec![told, pay(&client(LEFT), &client(RIGHT), 1, 3)]);
        assert!(block.sealed.is_none() && block.header.flags == 0, "{what}");
        assert!(matches!(block.outcomes[1], CommandOutcome::Receipt(..)), "{what}");
    }
    // Nobody but the beacon seals.
    let mut peer = Chain::new(PEER);
    let mut view = View::new(&peer.state);
    let mut work = BlockWork::new(PEER, Layout::even(2), ledger::genesis::VerifyMode::Ingest);
    let at = BlockContext {
        cluster: crate::core::support::genesis().cluster_id(),
        group: PEER,
        height: peer.applied.height.next(),
        time_ms: peer.applied.time_ms,
    };
    work.receive(&mut view, at, SHARD, Message::Seal(merge_seal()));
    assert!(work.sealed.is_none() && view.get(&schema::sealed()).is_none());
    let told = peer.told(&[Message::Seal(merge_seal())]);
    let block = peer.block(vec![told]);
    assert_eq!(block.shapes.len(), 1, "one that is joined shows its own root");
    assert_eq!(block.shapes[0].root().hash, block.header.state_root.0);
}

/// What [`PEER`] is told when [`SHARD`] was cut, which has taken so much of its mail.
fn reshaped(taken: u64) -> Reshaped {
    let seal = split_seal();
    Reshaped {
        version: RESHAPED_VERSION,
        job: JOB,
        layout: seal.layout,
        committees: seal.children.into_iter().map(|child| child.committee).collect(),
        ended: vec![Ended { group: SHARD, taken }],
    }
}

#[test]
fn a_change_of_the_layout_takes_mail_to_those_that_own_the_accounts_now() {
    let mut peer = Chain::new(PEER);
    let known = peer.told(&[Message::AssetUpdate(asset())]);
    peer.block(vec![known]);
    let mut shard = funded();
    let payer = client(PEER);
    shard.block(vec![pay(&client(LEFT), &payer, 50, 3)]);
    let first = shard.mail(PEER, 0, 1);
    peer.block(vec![first]);
    let payees: Vec<_> = [LEFT, RIGHT].map(client).into();
    let sent =
        peer.block(vec![pay(&payer, &payees[0], 1, 4), pay(&payer, &payees[0], 2, 5), pay(&payer, &payees[1], 3, 6)]);
    assert_eq!(sent.mail.len(), 3);
    let told = peer.told(&[Message::Reshaped(reshaped(1))]);
    let block = peer.block(vec![told]);
    assert!(block.reshaped && block.system_changed);
    assert_eq!(decoded::<Layout>(&peer.state, &schema::layout()).expect("a layout"), split_seal().layout);
    let of = |dest: GroupId| block.mail.iter().filter(|mail| mail.dest == dest).count();
    // One credit for each half, and to both the word on how far the stream of their parent was taken.
    assert_eq!((of(LEFT), of(RIGHT), of(SHARD)), (2, 2, 0));
    assert!(!peer.state.contains_key(&schema::outbox(SHARD)) && !peer.state.contains_key(&schema::inbox(SHARD)));
    let closed: ClosedStream = decoded(&peer.state, &schema::closed(PEER, SHARD)).expect("it is noted");
    assert_eq!((closed.taken, closed.next_seq), (Some(1), 3));
    let out: OutStream = decoded(&peer.state, &schema::outbox(LEFT)).expect("a stream");
    assert_eq!(out.next_seq, 2);
    for child in [LEFT, RIGHT] {
        let known: Committee = decoded(&peer.state, &schema::current_committee(child)).expect("a committee");
        assert_eq!(known, committee(child, 0));
    }
    assert!(!peer.state.contains_key(&schema::current_committee(SHARD)));
    // Nothing of the retired group is taken any more, and no change of the layout twice.
    let late = shard.mail(PEER, 0, 1);
    let again = peer.told(&[Message::Reshaped(reshaped(3))]);
    let block = peer.block(vec![late, again]);
    assert_eq!(block.outcomes[0], CommandOutcome::Ignored(Reject::MailRetired));
    assert!(!block.reshaped && block.mail.is_empty());
}

#[test]
fn receipts_say_whose_block_they_stand_in() {
    let mut chain = funded();
    let payer = client(LEFT);
    let payee = clients(LEFT).nth(1).expect("another client");
    let mv = Move::Pay { from: address(&payer), to: address(&payee), asset: asset().id, amount: 1 };
    let paid = tx(&payer, 9, vec![mv]);
    let block = chain.block(vec![command(&paid)]);
    let place: records::ReceiptPlace =
        decoded(&chain.state, &schema::receipt(&paid.txid(&block.header.cluster))).expect("a receipt");
    assert_eq!((place.chain, place.height, place.index), (SHARD, block.header.height, 0));
}
