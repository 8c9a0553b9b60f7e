use std::collections::BTreeSet;

use super::*;
use ledger::asset::AssetSpec;
use ledger::limits::VOTER_GROUPS_MAX;
use ledger::{AssetId, ClusterId, Condition, Hash32, SecretKey, SignedTx, TimeMs};
use proptest::prelude::*;

fn body(slots: Vec<Slot>) -> TxBody {
    TxBody {
        version: 1,
        cluster: ClusterId::default(),
        valid_until_ms: TimeMs(1),
        salt: [0; 16],
        slots,
        memo: Vec::new(),
    }
}

/// A transaction as a router has it before planning, without signatures. Within a ledger no plan depends on whose
/// there are.
fn tx(slots: Vec<Slot>, openings: Vec<Opening>) -> Result<ParsedTx, Reject> {
    let signed = SignedTx::sign(&body(slots), &[]).encode();
    ParsedTx::decode(&ClusterId::default(), &Submission::encode(signed, openings))
}

fn planned(layout: &Layout, slots: Vec<Slot>) -> Result<Plan, Reject> {
    plan(layout, &tx(slots, Vec::new())?)
}

fn groups(plan: &Plan) -> Vec<GroupId> {
    plan.groups().collect()
}

fn address(number: u64) -> Address {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Address(bytes)
}

/// An account of this shard.
fn of(layout: &Layout, shard: u32) -> Address {
    (0..).map(address).find(|account| layout.locate(account) == GroupId::shard(shard)).unwrap()
}

fn pay(from: Address, to: Address) -> Move {
    Move::Pay { from, to, asset: AssetId([1; 16]), amount: 1 }
}

fn on_main(mv: Move) -> Slot {
    Slot::Clear { ledger: LedgerId::MAIN, mv }
}

fn issue(ledger: LedgerId) -> Slot {
    let spec = AssetSpec { issuer: address(1), symbol: "X".into(), name: String::new(), decimals: 0 };
    Slot::Clear { ledger, mv: Move::Issue(spec) }
}

fn opening(slot: u16, mv: Move) -> Opening {
    Opening { slot, salt: Hash32([7; 32]), mv }
}

fn hide(ledger: LedgerId, group: GroupId, opening: &Opening) -> Slot {
    Slot::Hidden { ledger, group, hash: opening.hash() }
}

#[test]
fn each_shape_has_its_groups_or_its_reason() {
    let layout = Layout::even(4);
    let [a, b, c] = [0, 1, 2].map(|shard| of(&layout, shard));
    let shard = GroupId::shard;
    let channel = GroupId::channel(5);
    let in_channel = |mv| Slot::Clear { ledger: LedgerId::of_channel(channel), mv };
    let hidden = |ledger, group| Slot::Hidden { ledger, group, hash: Hash32::ZERO };
    let asset = AssetId([1; 16]);
    let sync = Move::PaySync { from: a, to: b, asset, amount: 1 };
    let freeze = Move::Freeze { issuer: a, account: b, asset, frozen: true };
    let back = Move::Return { by: a, account: b, to: c, asset, amount: 1 };
    let check = Move::Check { account: b, condition: Condition::Consent };
    let rows: Vec<(&str, Vec<Slot>, Result<Vec<GroupId>, Reject>)> = vec![
        ("one payer", vec![on_main(pay(a, b))], Ok(vec![shard(0)])),
        ("two payers of one shard", vec![on_main(pay(a, b)), on_main(pay(a, c))], Ok(vec![shard(0)])),
        ("two payers", vec![on_main(pay(b, c)), on_main(pay(a, c))], Ok(vec![shard(0), shard(1)])),
        ("a payee that votes", vec![on_main(sync)], Ok(vec![shard(0), shard(1)])),
        ("issuer and holder", vec![on_main(freeze)], Ok(vec![shard(0), shard(1)])),
        ("a follower besides", vec![on_main(back)], Ok(vec![shard(0), shard(1)])),
        ("a payee's consent", vec![on_main(pay(a, b)), on_main(check)], Ok(vec![shard(0), shard(1)])),
        ("an asset", vec![issue(LedgerId::BEACON)], Ok(vec![GroupId::BEACON])),
        ("an asset on the wrong ledger", vec![issue(LedgerId::MAIN)], Err(Reject::UnknownGroup)),
        ("an asset among others", vec![issue(LedgerId::BEACON), on_main(pay(a, b))], Err(Reject::MultiVoter)),
        (
            "a payment on the beacon's ledger",
            vec![Slot::Clear { ledger: LedgerId::BEACON, mv: pay(a, b) }],
            Err(Reject::UnknownGroup),
        ),
        ("a ledger of no kind", vec![Slot::Clear { ledger: LedgerId(77), mv: pay(a, b) }], Err(Reject::UnknownGroup)),
        (
            "a shard as a ledger",
            vec![Slot::Clear { ledger: LedgerId(shard(0).0), mv: pay(a, b) }],
            Err(Reject::UnknownGroup),
        ),
        ("a channel", vec![in_channel(pay(a, b))], Ok(vec![channel])),
        ("an asset in a channel", vec![issue(LedgerId::of_channel(channel))], Err(Reject::UnknownGroup)),
        ("a channel and a shard", vec![in_channel(pay(b, c)), on_main(pay(a, b))], Ok(vec![shard(0), channel])),
        ("hidden", vec![hidden(LedgerId::MAIN, shard(3))], Ok(vec![shard(3)])),
        ("hidden besides", vec![hidden(LedgerId::MAIN, shard(3)), on_main(pay(a, b))], Ok(vec![shard(0), shard(3)])),
        ("hidden in a channel", vec![hidden(LedgerId::of_channel(channel), channel)], Ok(vec![channel])),
        ("hidden for a shard that is not", vec![hidden(LedgerId::MAIN, shard(4))], Err(Reject::UnknownGroup)),
        ("hidden for another ledger's group", vec![hidden(LedgerId::MAIN, channel)], Err(Reject::UnknownGroup)),
        ("hidden for nobody", vec![hidden(LedgerId::MAIN, GroupId(9))], Err(Reject::UnknownGroup)),
        ("hidden from the beacon", vec![hidden(LedgerId::BEACON, GroupId::BEACON)], Err(Reject::HiddenSlot)),
        (
            "hidden from the beacon, among others",
            vec![hidden(LedgerId::BEACON, GroupId::BEACON), on_main(pay(a, b))],
            Err(Reject::MultiVoter),
        ),
    ];
    for (name, slots, expected) in rows {
        assert_eq!(planned(&layout, slots).map(|plan| groups(&plan)), expected, "{name}");
    }
    assert_eq!(voters(&layout, &body(Vec::new())), Err(Reject::MoveCount));
}

#[test]
fn the_number_of_groups_is_limited() {
    let most = u32::try_from(VOTER_GROUPS_MAX).unwrap();
    let layout = Layout::even(most + 1);
    let payers = |count: u32| (0..count).map(|shard| on_main(pay(of(&layout, shard), address(0)))).collect();
    assert_eq!(groups(&planned(&layout, payers(most)).unwrap()).len(), VOTER_GROUPS_MAX);
    assert_eq!(planned(&layout, payers(most + 1)), Err(Reject::TooManyVoters));
}

#[test]
fn each_group_is_given_its_own_openings_and_no_others() {
    let layout = Layout::even(4);
    let (first, second) = (opening(1, pay(of(&layout, 1), address(3))), opening(3, pay(of(&layout, 2), address(4))));
    let also = opening(2, pay(of(&layout, 1), address(9)));
    let slots = vec![
        on_main(pay(of(&layout, 0), address(5))),
        hide(LedgerId::MAIN, GroupId::shard(1), &first),
        hide(LedgerId::MAIN, GroupId::shard(1), &also),
        hide(LedgerId::MAIN, GroupId::shard(2), &second),
    ];
    let signed = SignedTx::sign(&body(slots.clone()), &[&SecretKey::derive(b"key", b"")]).encode();
    let given = |openings| {
        let sent = ParsedTx::decode(&ClusterId::default(), &Submission::encode(signed.clone(), openings)).unwrap();
        let Plan::Several(parts) = plan(&layout, &sent).unwrap() else {
            panic!("three groups vote");
        };
        parts
    };
    let whole = given(vec![first.clone(), also.clone(), second.clone()]);
    let with = |openings| Some(Submission::encode(signed.clone(), openings));
    let expected = [
        Part { group: GroupId::shard(0), own: Some(signed.clone()) },
        Part { group: GroupId::shard(1), own: with(vec![first.clone(), also]) },
        Part { group: GroupId::shard(2), own: with(vec![second]) },
    ];
    assert_eq!(whole, expected);
    // One opening of several: its group gets what there is.
    assert_eq!(given(vec![first.clone()])[1].own, with(vec![first]));
    assert!(given(Vec::new()).iter().all(|part| part.own.is_none()), "nothing to deal out");
}

/// Of what a group is given of a transaction that spans ledgers: whose witnesses, and which slots are opened.
fn part_of(plan: &Plan, group: GroupId) -> (Vec<Address>, Vec<u16>) {
    let Plan::Several(parts) = plan else { panic!("several groups vote") };
    let part = parts.iter().find(|part| part.group == group).unwrap();
    let own = ParsedTx::decode(&ClusterId::default(), part.own.as_ref().unwrap()).unwrap();
    let signers = own.witnesses.iter().map(|witness| witness.auth.address()).collect();
    (signers, own.openings.iter().map(|opening| opening.slot).collect())
}

#[test]
fn each_ledger_is_given_the_witnesses_of_its_own_payers_and_no_others() {
    let layout = Layout::even(2);
    let keys = [0u8, 1, 2].map(|number| SecretKey::derive(&[number], b"payer"));
    let [steel, coal, main] = [0, 1, 2].map(|at| ledger::Authorisation::Single(keys[at].public()).address());
    let (one, other) = (GroupId::channel(1), GroupId::channel(2));
    let openings = [opening(0, pay(steel, address(1))), opening(1, pay(coal, address(2)))];
    let slots = vec![
        hide(LedgerId::of_channel(one), one, &openings[0]),
        hide(LedgerId::of_channel(other), other, &openings[1]),
        on_main(pay(main, address(3))),
    ];
    let signed = SignedTx::sign(&body(slots.clone()), &keys.each_ref());
    let plain = Submission::encode(signed.encode(), openings.to_vec());
    let parsed = ParsedTx::decode_sent(&ClusterId::default(), &plain).unwrap();
    // Dealt out here, or by the client: it is the same.
    let by_client = parsed.dealt_by(|_, _| None).unwrap().encode();
    let by_client = ParsedTx::decode_sent(&ClusterId::default(), &by_client).unwrap();
    for tx in [&parsed, &by_client] {
        let plan = plan(&layout, tx).unwrap();
        assert_eq!(part_of(&plan, one), (vec![steel], vec![0]));
        assert_eq!(part_of(&plan, other), (vec![coal], vec![1]));
        assert_eq!(part_of(&plan, layout.locate(&main)), (vec![main], vec![]));
    }
    // Whose witness it is, an address does not tell: it is given to nobody.
    let stranger = SecretKey::derive(b"stranger", b"");
    let signed = SignedTx::sign(&body(slots), &[&keys[0], &keys[1], &stranger]);
    let odd = Submission::encode(signed.encode(), openings.to_vec());
    let odd = ParsedTx::decode_sent(&ClusterId::default(), &odd).unwrap();
    assert_eq!(plan(&layout, &odd), Err(Reject::WitnessUnplaced));
}

#[test]
fn an_opening_that_belongs_elsewhere_is_refused() {
    let layout = Layout::even(4);
    let mv = pay(of(&layout, 1), address(3));
    let misplaced = opening(0, mv.clone());
    let slots = vec![hide(LedgerId::MAIN, GroupId::shard(2), &misplaced)];
    let planned = |slots: &[Slot], openings| tx(slots.to_vec(), openings).and_then(|tx| plan(&layout, &tx));
    assert_eq!(planned(&slots, vec![misplaced]), Err(Reject::WrongShard));
    // Without the opening nobody can tell yet.
    assert_eq!(planned(&slots, Vec::new()), Ok(Plan::One(GroupId::shard(2))));
    let other_salt = Opening { salt: Hash32::ZERO, ..opening(0, mv) };
    assert_eq!(planned(&slots, vec![other_salt]), Err(Reject::OpeningMismatch));
    let Slot::Clear { mv, .. } = issue(LedgerId::MAIN) else { unreachable!() };
    let asset = opening(0, mv);
    let slots = [hide(LedgerId::MAIN, GroupId::shard(2), &asset)];
    assert_eq!(planned(&slots, vec![asset]), Err(Reject::UnknownGroup));
}

#[test]
fn what_was_hidden_for_a_shard_that_has_ended_is_its_heirs() {
    let whole = Layout::even(4);
    let ended = GroupId::shard(1);
    let [left, right] = [GroupId::shard(4), GroupId::shard(5)];
    let layout = whole.split(ended, [left, right]).unwrap();
    for (account, found) in [
        (of(&layout, 4), Ok(Plan::One(left))),
        // It may have been decided before; if not, the heir says no.
        (of(&layout, 5), Ok(Plan::One(left))),
        (of(&layout, 2), Err(Reject::WrongShard)),
    ] {
        let opened = opening(0, pay(account, address(3)));
        let slots = vec![hide(LedgerId::MAIN, ended, &opened)];
        assert_eq!(plan(&layout, &tx(slots.clone(), vec![opened]).unwrap()), found);
        assert_eq!(planned(&layout, slots), Ok(Plan::One(left)), "without the opening nobody can tell");
    }
    // It gets the opening, and the other half, which votes on what is in the clear, does not.
    let opened = opening(1, pay(of(&layout, 4), address(3)));
    let slots = vec![on_main(pay(of(&layout, 5), address(5))), hide(LedgerId::MAIN, ended, &opened)];
    let signed = SignedTx::sign(&body(slots.clone()), &[]).encode();
    let Ok(Plan::Several(parts)) = plan(&layout, &tx(slots, vec![opened.clone()]).unwrap()) else { panic!("two vote") };
    let with = Submission::encode(signed.clone(), vec![opened]);
    assert_eq!(parts, [Part { group: left, own: Some(with) }, Part { group: right, own: Some(signed) }]);
}

/// What was begun within the limit may have more voters now, and only the groups know whether it was begun.
#[test]
fn once_a_shard_has_ended_the_groups_judge_how_many_may_vote() {
    let most = u32::try_from(VOTER_GROUPS_MAX).unwrap();
    let whole = Layout::even(most);
    let layout = whole.split(GroupId::shard(0), [GroupId::shard(most), GroupId::shard(most + 1)]).unwrap();
    let slots: Vec<Slot> = (1..most + 2).map(|shard| on_main(pay(of(&layout, shard), address(0)))).collect();
    assert_eq!(groups(&planned(&layout, slots.clone()).unwrap()).len(), VOTER_GROUPS_MAX + 1);
    assert_eq!(groups(&planned(&whole, slots).unwrap()).len(), VOTER_GROUPS_MAX);
}

/// A move between accounts of these numbers, of any kind that needs no asset definition.
fn any_move() -> impl Strategy<Value = Move> {
    (0u8..6, any::<u64>(), any::<u64>()).prop_map(|(kind, one, two)| {
        let (one, two, asset) = (address(one), address(two), AssetId([1; 16]));
        match kind {
            0 => pay(one, two),
            1 => Move::PaySync { from: one, to: two, asset, amount: 1 },
            2 => Move::Freeze { issuer: one, account: two, asset, frozen: true },
            3 => Move::Return { by: one, account: two, to: one, asset, amount: 1 },
            4 => Move::Release { account: one, asset, amount: 1 },
            _ => Move::Check { account: one, condition: Condition::Consent },
        }
    })
}

proptest! {
    /// The groups are those where voters live, found here without asking the rules.
    #[test]
    fn the_groups_are_where_all_voters_live(
        shards in 1u32..12,
        moves in prop::collection::vec((any_move(), any::<bool>()), 1..7),
    ) {
        let layout = Layout::even(shards);
        let mut homes = BTreeSet::new();
        let (mut slots, mut openings) = (Vec::new(), Vec::new());
        for ((mv, hidden), slot) in moves.into_iter().zip(0u16..) {
            let here: BTreeSet<_> = mv.voters().map(|voter| layout.locate(&voter.account)).collect();
            homes.extend(here.iter().copied());
            if hidden && here.len() == 1 {
                let opened = opening(slot, mv);
                slots.push(hide(LedgerId::MAIN, *here.first().unwrap(), &opened));
                openings.push(opened);
            } else {
                slots.push(on_main(mv));
            }
        }
        let Ok(tx) = tx(slots.clone(), openings.clone()) else { return Ok(()) };
        let planned = plan(&layout, &tx);
        if homes.len() > VOTER_GROUPS_MAX {
            prop_assert_eq!(planned, Err(Reject::TooManyVoters));
            return Ok(());
        }
        let planned = planned.unwrap();
        prop_assert_eq!(planned.groups().collect::<BTreeSet<_>>(), homes.clone());
        prop_assert_eq!(matches!(planned, Plan::One(_)), homes.len() == 1);
        let mut sorted = groups(&planned);
        sorted.sort_unstable();
        prop_assert_eq!(&sorted, &groups(&planned));
        // Every opening arrives once, where its slot says, and the signed bytes are the same everywhere.
        if let Plan::Several(parts) = planned {
            let mut dealt = Vec::new();
            for part in parts {
                let Some(own) = part.own else { continue };
                let (signed, given) = Submission::split(&own).unwrap();
                prop_assert_eq!(signed, tx.signed());
                for opening in given {
                    let Slot::Hidden { group, .. } = &slots[usize::from(opening.slot)] else { panic!("it is clear") };
                    prop_assert_eq!(*group, part.group);
                    dealt.push(opening);
                }
            }
            dealt.sort_by_key(|opening| opening.slot);
            prop_assert_eq!(dealt, openings);
        }
    }

    #[test]
    fn payees_and_order_do_not_matter(
        shards in 1u32..40,
        payers in prop::collection::vec(any::<u64>(), 1..4),
        payees in prop::collection::vec(any::<u64>(), 1..8),
    ) {
        let layout = Layout::even(shards);
        let pays = payees.iter().zip(payers.iter().cycle());
        let slots: Vec<_> = pays.map(|(payee, payer)| on_main(pay(address(*payer), address(*payee)))).collect();
        let mut reversed = slots.clone();
        reversed.reverse();
        let forth = voters(&layout, &body(slots)).unwrap();
        prop_assert_eq!(&forth, &voters(&layout, &body(reversed)).unwrap());
        let used = payees.len().min(payers.len());
        let homes: BTreeSet<_> = payers[..used].iter().map(|payer| layout.locate(&address(*payer))).collect();
        prop_assert_eq!(forth, homes.into_iter().collect::<Vec<_>>());
    }
}
