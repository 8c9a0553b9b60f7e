//! Genesis, asset issues, checkpoints and the view that followers get.

use beacon::machine::{apply_checkpoint, execute_issue};
use beacon::{ClusterView, genesis as first_state, registry};
use cross_shard::message::Message;
use ledger::asset::AssetSpec;
use ledger::auth::Authorisation;
use ledger::committee::{Committee, Engine};
use ledger::crypto::SecretKey;
use ledger::genesis::Genesis;
use ledger::ids::{Address, AssetId, GroupId, Height, LedgerId, NodeId, TimeMs};
use ledger::reject::Reject;
use ledger::tx::{BODY_VERSION, Move, ParsedTx, SignedTx, Slot, TxBody};
use ledger::view::View;

use crate::support::{NOW, State, at, certified, genesis, settle, state_of};

fn spec(issuer: &SecretKey, symbol: &str) -> AssetSpec {
    let issuer = Authorisation::Single(issuer.public()).address();
    AssetSpec { issuer, symbol: symbol.to_owned(), name: "a test asset".to_owned(), decimals: 2 }
}

fn tx(genesis: &Genesis, slots: Vec<Slot>, keys: &[&SecretKey]) -> ParsedTx {
    let body = TxBody {
        version: BODY_VERSION,
        cluster: genesis.cluster_id(),
        valid_until_ms: TimeMs(NOW + 1000),
        salt: [0; 16],
        slots,
        memo: Vec::new(),
    };
    ParsedTx::decode(&genesis.cluster_id(), &SignedTx::sign(&body, keys).encode()).unwrap()
}

fn issue(spec: AssetSpec) -> Slot {
    Slot::Clear { ledger: LedgerId::BEACON, mv: Move::Issue(spec) }
}

fn issue_in(state: &mut State, genesis: &Genesis, tx: &ParsedTx, now: u64) -> Result<Vec<(GroupId, Message)>, Reject> {
    let mut result = Err(Reject::Storage);
    let next = settle(state, |view| result = execute_issue(view, &at(genesis, now), tx));
    if result.is_err() {
        assert_eq!(next, *state, "a refusal leaves no trace");
    }
    *state = next;
    result
}

#[test]
fn the_registry_of_a_genesis_reads_back_as_the_genesis() {
    let genesis = genesis();
    first_state::check(&genesis).unwrap();
    let state = state_of(&genesis);
    let view = ClusterView::read(&state).unwrap();
    assert_eq!(view, ClusterView::from_genesis(&genesis));
    assert_eq!(ClusterView::revision_of(&state), Ok(1));
    let bytes = borsh::to_vec(&view).unwrap();
    assert_eq!(borsh::from_slice::<ClusterView>(&bytes).unwrap(), view);
    let seats: usize = view.nodes.iter().map(|node| view.groups_of(node.id).count()).sum();
    assert_eq!(seats, 5 * 3);
    assert!(view.committee(GroupId::shard(4)).is_none());
    let mut reader = View::new(&state);
    for committee in &genesis.committees {
        assert_eq!(
            registry::committee_by_hash(&mut reader, committee.group, &committee.hash()).as_ref(),
            Some(committee)
        );
    }
    assert!(ClusterView::read(&State::new()).is_err(), "no registry, no view");
}

#[test]
fn a_record_that_does_not_decode_is_a_fault() {
    let mut state = state_of(&genesis());
    state.insert(registry::node_key(NodeId(2)), bytes::Bytes::from_static(b"torn"));
    assert!(ClusterView::read(&state).is_err());
}

#[test]
fn a_genesis_out_of_form_is_refused() {
    type Spoil = fn(&mut Genesis);
    let table: [(&str, Spoil); 13] = [
        ("genesis_version", |g| g.version = 2),
        ("genesis_name", |g| g.name.clear()),
        ("genesis_count", |g| g.orgs.clear()),
        ("genesis_org", |g| g.orgs[1].id = g.orgs[0].id),
        ("genesis_org", |g| g.orgs[0].ca_pem.clear()),
        ("genesis_node", |g| g.nodes[1].id = g.nodes[0].id),
        ("genesis_node", |g| g.nodes[0].org.0 = 77),
        ("genesis_layout", |g| g.layout.shards[0].prefix.length = 1),
        ("genesis_layout", |g| g.layout.shards[0].group = g.layout.shards[1].group),
        ("genesis_committee", |g| drop(g.committees.remove(0))),
        ("genesis_committee", |g| g.committees[1].threshold = 1),
        ("genesis_committee", |g| g.committees[1].members[0].key = g.committees[1].members[1].key),
        ("genesis_engine", |g| {
            let Committee { engine, threshold, .. } = &mut g.committees[1];
            (*engine, *threshold) = (Engine::Bft, 3);
        }),
    ];
    for (code, spoil) in table {
        let mut spoiled = genesis();
        spoil(&mut spoiled);
        assert_eq!(first_state::check(&spoiled).unwrap_err().code(), code);
    }
}

#[test]
fn an_issue_is_kept_and_told_to_every_shard() {
    let genesis = genesis();
    let mut state = state_of(&genesis);
    let key = SecretKey::derive(b"issuer", b"");
    let euro = spec(&key, "EUR");
    let mail = issue_in(&mut state, &genesis, &tx(&genesis, vec![issue(euro.clone())], &[&key]), NOW).unwrap();
    let shards: Vec<GroupId> = mail.iter().map(|(dest, _)| *dest).collect();
    assert_eq!(shards, (0..4).map(GroupId::shard).collect::<Vec<_>>());
    let def = registry::asset(&mut View::new(&state), &euro.id()).unwrap();
    assert!(mail.iter().all(|(_, message)| *message == Message::AssetUpdate(def.clone())));
    assert_eq!((def.spec, def.frozen), (euro.clone(), false));

    let again = tx(&genesis, vec![issue(spec(&key, "USD")), issue(euro)], &[&key]);
    assert_eq!(issue_in(&mut state, &genesis, &again, NOW), Err(Reject::AssetExists));
    let other_name = AssetSpec { name: "another name".to_owned(), ..spec(&key, "USD") };
    let twice = tx(&genesis, vec![issue(spec(&key, "USD")), issue(other_name)], &[&key]);
    assert_eq!(issue_in(&mut state, &genesis, &twice, NOW), Err(Reject::AssetExists));
    assert_eq!(registry::assets(&mut View::new(&state)).len(), 1);
}

#[test]
fn an_issue_that_is_none_of_the_beacons_is_refused() {
    let genesis = genesis();
    let mut state = state_of(&genesis);
    let (key, other) = (SecretKey::derive(b"issuer", b""), SecretKey::derive(b"other", b""));
    let pay = Slot::Clear {
        ledger: LedgerId::MAIN,
        mv: Move::Pay { from: Address([1; 20]), to: Address([2; 20]), asset: AssetId::default(), amount: 1 },
    };
    let misplaced = Slot::Clear { ledger: LedgerId::MAIN, mv: Move::Issue(spec(&key, "EUR")) };
    let hidden = Slot::Hidden { ledger: LedgerId::BEACON, group: GroupId::BEACON, hash: ledger::hash::Hash32::ZERO };
    for (slots, signer, now, reason) in [
        (vec![issue(spec(&key, "EUR"))], &other, NOW, Reject::NotAuthorised),
        (vec![pay.clone()], &key, NOW, Reject::WrongShard),
        (vec![misplaced], &key, NOW, Reject::WrongShard),
        (vec![issue(spec(&key, "EUR")), pay], &key, NOW, Reject::MultiVoter),
        (vec![hidden], &key, NOW, Reject::HiddenSlot),
        (vec![issue(spec(&key, "EUR"))], &key, NOW + 1001, Reject::Expired),
    ] {
        assert_eq!(issue_in(&mut state, &genesis, &tx(&genesis, slots, &[signer]), now), Err(reason));
    }
    let mut unformed = tx(&genesis, vec![issue(spec(&key, "EUR"))], &[&key]);
    unformed.body.slots = vec![issue(spec(&key, "no spaces"))];
    assert_eq!(issue_in(&mut state, &genesis, &unformed, NOW), Err(Reject::AssetForm));
}

#[test]
fn checkpoints_only_rise_and_repeat_without_effect() {
    let genesis = genesis();
    let mut state = state_of(&genesis);
    let shard = GroupId::shard(2);
    let mut post = |height, root| {
        let mut moved = Err(Reject::Storage);
        let certificate = certified(&genesis, shard, height, root);
        state = settle(&state, |view| moved = apply_checkpoint(view, &at(&genesis, NOW), &certificate));
        (moved, state.clone())
    };
    assert_eq!(post(5, 1).0, Ok(true));
    assert_eq!(post(9, 2).0, Ok(true));
    let (moved, before) = post(9, 2);
    assert_eq!(moved, Ok(false), "known");
    let (moved, state) = post(7, 3);
    assert_eq!(moved, Ok(false), "older");
    assert_eq!(state, before);
    let mut view = View::new(&state);
    let found = registry::checkpoints(&mut view);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].0, found[0].1.height, found[0].1.state_root.0[0]), (shard, Height(9), 2));
    assert_eq!(registry::checkpoint_proof(&mut view, shard).unwrap().header.hash(), found[0].1.header_hash);
    assert!(registry::divergences(&mut view).is_empty());
}

#[test]
fn two_certified_chains_raise_an_alarm_with_the_evidence() {
    let genesis = genesis();
    let mut state = state_of(&genesis);
    let shard = GroupId::shard(0);
    let (first, second) = (certified(&genesis, shard, 5, 1), certified(&genesis, shard, 5, 2));
    for certificate in [&first, &second, &second] {
        state = settle(&state, |view| {
            let moved = apply_checkpoint(view, &at(&genesis, NOW), certificate).unwrap();
            assert_eq!(moved, certificate == &first);
        });
    }
    let found = registry::divergences(&mut View::new(&state));
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].first, &found[0].second), (&first, &second));
    assert_eq!(registry::checkpoint(&mut View::new(&state), shard).unwrap().state_root.0[0], 1, "the first stays");
    for root in 3..40 {
        let more = certified(&genesis, shard, 5, root);
        state = settle(&state, |view| {
            assert_eq!(apply_checkpoint(view, &at(&genesis, NOW), &more), Ok(false));
        });
    }
    assert_eq!(registry::divergences(&mut View::new(&state)).len(), beacon::limits::DIVERGENCES_MAX);
}

#[test]
fn a_checkpoint_that_proves_nothing_is_refused() {
    let genesis = genesis();
    let state = state_of(&genesis);
    let good = certified(&genesis, GroupId::shard(0), 5, 1);
    let mut few = good.clone();
    few.signatures.truncate(1);
    let mut forged = good.clone();
    forged.header.height = Height(6);
    let mut elsewhere = good.clone();
    elsewhere.header.cluster = ledger::ids::ClusterId::default();
    let mut stranger = good.clone();
    stranger.header.committee_hash = ledger::hash::Hash32::ZERO;
    let mut nobody = good.clone();
    nobody.header.group = GroupId::shard(9);
    let mut version = good;
    version.version = 2;
    for (certificate, reason) in [
        (few, Reject::MailForged),
        (forged, Reject::MailForged),
        (elsewhere, Reject::WrongCluster),
        (stranger, Reject::CommitteeUnknown),
        (nobody, Reject::CommitteeUnknown),
        (version, Reject::MailForged),
    ] {
        let after = settle(&state, |view| {
            assert_eq!(apply_checkpoint(view, &at(&genesis, NOW), &certificate), Err(reason));
        });
        assert_eq!(after, state);
    }
}
