use ledger::committee::Member;
use ledger::crypto::SecretKey;
use ledger::ids::{Epoch, GroupId, Incarnation, OrgId};

use super::*;
use crate::port::Position;

const LENDER: NodeId = NodeId(1);
const HEADER: Hash32 = Hash32([2; 32]);
const UNCOVERED: Hash32 = Hash32([3; 32]);

fn committee(engine: Engine, nodes: impl IntoIterator<Item = u32>) -> Committee {
    let key = |node: u32| SecretKey::derive(&node.to_le_bytes(), b"vouch test").public();
    let member = |node: u32| Member { node: NodeId(node), org: OrgId(1), key: key(node) };
    let members = nodes.into_iter().map(member).collect();
    Committee::of(engine, GroupId::shard(7), Incarnation::default(), Epoch::default(), members)
}

fn at(index: u64) -> Option<Position> {
    Some(Position { term: 1, leader: 0, index })
}

/// What a snapshot of seven says of itself that stands behind entry 40. Two of the seven may lie.
fn honest() -> Candidate {
    let committee = committee(Engine::Bft, 1..=7);
    Candidate {
        applied: AppliedState { position: at(40), membership: Some((at(40), b"the note".to_vec())) },
        order: Order { engine: Engine::Bft, after: None, anchor: Hash32([1; 32]) },
        header: HEADER,
        signers: committee.clone(),
        committee,
        certified: false,
        uncovered: UNCOVERED,
    }
}

/// The first block behind the last one of another engine has not been made: the header hands over.
fn handing_over(from: Engine, to: Engine) -> Candidate {
    Candidate {
        order: Order { engine: to, after: at(40), anchor: HEADER },
        signers: committee(from, 1..=7),
        committee: committee(to, 1..=7),
        ..honest()
    }
}

/// These nodes tell of the place that a state says it is at.
fn told(nodes: impl IntoIterator<Item = u32>, of: &Candidate) -> BTreeMap<NodeId, Hash32> {
    let place = place_of(&of.applied, &of.order, &of.header);
    nodes.into_iter().map(|node| (NodeId(node), place)).collect()
}

/// Members of any version have to name a place alike.
#[test]
fn names_of_places_do_not_change() {
    let Candidate { applied, order, header, .. } = honest();
    let name = place_of(&applied, &order, &header);
    assert_eq!(name.to_string(), "84423df27e68c2bf2d21fd24ec719bfdce27dfaa15259f93f366a152e441ded7");
    let raft = Order { engine: Engine::Raft, after: at(40), anchor: HEADER };
    let name = place_of(&applied, &raft, &header);
    assert_eq!(name.to_string(), "33cb659ae87dd3d6221886822334f337fb9fc212c371ea0798c391fa2cebdecf");
    let asked = borsh::to_vec(&Ask { index: 5 }).expect("bytes");
    assert_eq!(asked, [5, 0, 0, 0, 0, 0, 0, 0]);
    let answer = borsh::to_vec(&Told { from: 1, upto: 2, place: Some(Hash32([7; 32])) }).expect("bytes");
    assert_eq!(answer, [&[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1][..], &[7; 32]].concat());
}

#[test]
fn as_many_have_to_tell_the_same_as_have_an_honest_one_among_them() {
    let rows: [(NodeId, &[u32], usize); 9] = [
        (LENDER, &[], 1),
        (LENDER, &[2], 2),
        (LENDER, &[2, 3], 3),
        (LENDER, &[2, 3, 4, 5, 6, 7], 7),
        // A lender that tells of its own snapshot says nothing new.
        (LENDER, &[1, 2], 2),
        // Nodes that are no members have no say, and if they are many.
        (LENDER, &[2, 8, 9, 10, 11], 2),
        // Nor has a lender that is none.
        (NodeId(8), &[], 0),
        (NodeId(8), &[2, 3], 2),
        (NodeId(8), &[2, 3, 4], 3),
    ];
    let snapshot = honest();
    for (lender, nodes, alike) in rows {
        let expected = if alike > 2 { Ok(()) } else { Err(Doubt::TooFew { alike, needed: 3 }) };
        assert_eq!(judge(&snapshot, lender, &told(nodes.iter().copied(), &snapshot)), expected, "{lender} {nodes:?}");
    }
    // A committee that bears nobody's lie is taken at each member's word.
    let three = committee(Engine::Bft, 1..=3);
    let small = Candidate { signers: three.clone(), committee: three, ..honest() };
    assert_eq!(judge(&small, LENDER, &BTreeMap::new()), Ok(()));
}

type Alter = fn(&mut Candidate);

/// What a liar can alter that the checks of the applier do not see, since nothing in the snapshot proves it.
const FORGERIES: [(&str, Alter); 9] = [
    ("a later position", |snapshot| snapshot.applied.position = at(41)),
    ("an earlier position", |snapshot| snapshot.applied.position = at(39)),
    ("the last position there is", |snapshot| snapshot.applied.position = at(u64::MAX)),
    ("another term", |snapshot| snapshot.applied.position = Some(Position { term: 2, leader: 0, index: 40 })),
    ("another note", |snapshot| snapshot.applied.membership = Some((at(40), b"the vote".to_vec()))),
    ("no note", |snapshot| snapshot.applied.membership = None),
    ("another beginning of the engine", |snapshot| snapshot.order.after = at(7)),
    ("another anchor of the engine", |snapshot| snapshot.order.anchor = Hash32([9; 32])),
    // With it the next committee, and the state: whatever a header names.
    ("another last header, which names a committee of liars", |snapshot| {
        snapshot.header = Hash32([9; 32]);
        snapshot.committee = committee(Engine::Bft, [1, 2, 8, 9]);
    }),
];

#[test]
fn as_many_liars_as_may_be_do_not_get_a_forged_snapshot_taken() {
    for (what, forge) in FORGERIES {
        let mut forged = honest();
        forge(&mut forged);
        // The second liar tells what the lender does, and so do two nodes that are members of the forged committee alone.
        let liars = told([2, 8, 9], &forged);
        let with = |honest_ones: std::ops::RangeInclusive<u32>| {
            let mut all = told(honest_ones, &honest());
            all.extend(liars.clone());
            judge(&forged, LENDER, &all)
        };
        assert_eq!(with(3..=7), Err(Doubt::Contradicted { otherwise: 5 }), "{what}");
        assert_eq!(with(3..=5), Err(Doubt::Contradicted { otherwise: 3 }), "{what}");
        // Two alone may be the liars: nobody is blamed for what they say, and nothing is taken either.
        let too_few = Err(Doubt::TooFew { alike: 2, needed: 3 });
        assert_eq!((with(3..=4), with(3..=3)), (too_few, too_few), "{what}");
        // And liars who contradict an honest lender do not have it refused.
        let mut all = told(3..=7, &honest());
        all.extend(told([1, 2], &forged));
        assert_eq!(judge(&honest(), NodeId(3), &all), Ok(()), "{what}");
    }
}

#[test]
fn who_vouches_follows_from_the_engines_on_both_sides_of_the_last_header() {
    let raft = committee(Engine::Raft, 1..=7);
    let order = Order { engine: Engine::Raft, after: None, anchor: Hash32([1; 32]) };
    let raft = Candidate { order, signers: raft.clone(), committee: raft, ..honest() };
    assert_eq!(judge(&raft, LENDER, &BTreeMap::new()), Ok(()), "nobody lies there");

    // Those in force, who have taken over at this entry.
    let to_bft = handing_over(Engine::Raft, Engine::Bft);
    let too_few = Err(Doubt::TooFew { alike: 1, needed: 3 });
    assert_eq!(judge(&to_bft, LENDER, &BTreeMap::new()), too_few);
    assert_eq!(judge(&to_bft, LENDER, &told([2, 3], &to_bft)), Ok(()));

    // Those who have handed over and run Raft by now, wherever Raft has got to.
    let to_raft = handing_over(Engine::Bft, Engine::Raft);
    assert_eq!(judge(&to_raft, LENDER, &BTreeMap::new()), too_few);
    let beyond = AppliedState { position: at(45), membership: Some((at(44), b"members".to_vec())) };
    let beyond = Candidate { applied: beyond, ..to_raft.clone() };
    let answers = [2, 3].map(|node| (NodeId(node), told_under_raft(Some(beyond.order), Ask { index: 45 })));
    let answers: BTreeMap<NodeId, Hash32> =
        answers.into_iter().filter_map(|(node, told)| Some((node, told.place?))).collect();
    assert_eq!(judge(&beyond, LENDER, &answers), Ok(()));
    // A hand-over that has not been: the others are at an entry of the engine that goes on.
    assert_eq!(judge(&to_raft, LENDER, &told(2..=7, &honest())), Err(Doubt::Contradicted { otherwise: 6 }));
}

/// These nodes tell this of what no header covers.
fn said(nodes: impl IntoIterator<Item = u32>, hash: Hash32) -> BTreeMap<NodeId, Hash32> {
    nodes.into_iter().map(|node| (NodeId(node), hash)).collect()
}

#[test]
fn what_no_header_covers_is_taken_only_if_as_many_have_the_same_as_have_an_honest_one_among_them() {
    let other = Hash32([9; 32]);
    let rows: [(&[u32], &[u32], Result<(), Doubt>); 6] = [
        (&[], &[], Err(Doubt::Unattested { alike: 1, needed: 3 })),
        (&[2], &[], Err(Doubt::Unattested { alike: 2, needed: 3 })),
        // Nodes that are no members have no say, and a lender says nothing new of its own.
        (&[1, 2, 8, 9], &[], Err(Doubt::Unattested { alike: 2, needed: 3 })),
        (&[2, 3], &[4, 5], Ok(())),
        // Two alone may be the liars.
        (&[2], &[3, 4], Err(Doubt::Unattested { alike: 2, needed: 3 })),
        (&[2], &[3, 4, 5], Err(Doubt::Altered { otherwise: 3 })),
    ];
    for (alike, otherwise, expected) in rows {
        let mut all = said(alike.iter().copied(), UNCOVERED);
        all.extend(said(otherwise.iter().copied(), other));
        assert_eq!(attest(&honest(), LENDER, &all), expected, "{alike:?} {otherwise:?}");
    }
    // A place is another thing, and does not stand for it.
    assert!(attest(&honest(), LENDER, &told(2..=7, &honest())).is_err());
    // Behind a change that is certified those in force may say so as well.
    assert_eq!(attest(&reseated(true), NodeId(8), &said([9, 10], UNCOVERED)), Ok(()));
    assert!(attest(&reseated(false), NodeId(8), &said([9, 10], UNCOVERED)).is_err());
    // Where raft goes on the lender is taken at its word, and where it has ended no longer.
    assert_eq!(attest(&handing_over(Engine::Bft, Engine::Raft), LENDER, &BTreeMap::new()), Ok(()));
    assert!(attest(&handing_over(Engine::Raft, Engine::Bft), LENDER, &BTreeMap::new()).is_err());
}

#[test]
fn only_doubts_that_prove_a_lie_are_held_against_the_lender() {
    let doubts = [
        (Doubt::Contradicted { otherwise: 3 }, "snapshot_contradicted", true),
        (Doubt::Incoherent, "snapshot_incoherent", true),
        (Doubt::TooFew { alike: 1, needed: 3 }, "snapshot_unconfirmed", false),
        (Doubt::Altered { otherwise: 3 }, "snapshot_altered", true),
        (Doubt::Unattested { alike: 1, needed: 3 }, "snapshot_unattested", false),
    ];
    for (doubt, code, lie) in doubts {
        assert_eq!((doubt.code(), doubt.lie()), (code, lie));
    }
}

/// Five seats go from the first seven to others with this header, and 6 and 7 stay.
fn reseated(certified: bool) -> Candidate {
    Candidate { committee: committee(Engine::Bft, 6..=12), certified, ..honest() }
}

#[test]
fn behind_a_change_that_is_certified_those_in_force_vouch_as_well() {
    let lender = NodeId(8);
    let judged = |certified, nodes: &[u32]| {
        let snapshot = reseated(certified);
        judge(&snapshot, lender, &told(nodes.iter().copied(), &snapshot))
    };
    // Those who signed it, whether or not its certificate came along.
    for certified in [false, true] {
        assert_eq!(judged(certified, &[1, 2, 3]), Ok(()));
        assert_eq!(judged(certified, &[1, 2]), Err(Doubt::TooFew { alike: 2, needed: 3 }));
    }
    // Those in force, the lender among them: with it, and not without, since nobody knows them for certain then.
    assert_eq!(judged(true, &[9, 10]), Ok(()));
    assert_eq!(judged(false, &[9, 10]), Err(Doubt::TooFew { alike: 0, needed: 3 }));
    assert_eq!(judged(false, &[6, 7, 9, 10, 11, 12]), Err(Doubt::TooFew { alike: 2, needed: 3 }));
    // Two of either may lie, and do not add up.
    assert_eq!(judged(true, &[1, 2, 9]), Err(Doubt::TooFew { alike: 2, needed: 3 }));
    // Only between Byzantine engines: where raft goes on, who has handed over says so.
    let to_raft = Candidate { certified: true, ..handing_over(Engine::Bft, Engine::Raft) };
    let to_raft = Candidate { committee: committee(Engine::Raft, 8..=12), ..to_raft };
    assert_eq!(judge(&to_raft, lender, &told(8..=12, &to_raft)), Err(Doubt::TooFew { alike: 0, needed: 3 }));
}

#[test]
fn of_two_committees_that_do_not_agree_neither_is_gone_by() {
    let (snapshot, mut forged) = (reseated(true), reseated(true));
    forged.applied.position = at(41);
    let mut all = told(1..=3, &forged);
    all.extend(told(8..=10, &snapshot));
    for candidate in [&snapshot, &forged] {
        let judged = judge(candidate, NodeId(13), &all);
        assert_eq!(judged, Err(Doubt::Contradicted { otherwise: 3 }));
    }
    // As many as each may have do not keep an honest snapshot away.
    let mut all = told([1, 2, 8, 9], &forged);
    all.extend(told(10..=12, &snapshot));
    assert_eq!(judge(&snapshot, NodeId(13), &all), Ok(()));
}

#[test]
fn an_engine_begins_behind_the_block_that_puts_its_committee_in_force() {
    let incoherent: [(&str, Alter); 4] = [
        ("the committee in force has another engine", |snapshot| {
            snapshot.committee = committee(Engine::Raft, 1..=7);
        }),
        ("an engine without its committee", |snapshot| snapshot.order.engine = Engine::Raft),
        ("behind another header", |snapshot| {
            *snapshot = handing_over(Engine::Bft, Engine::Raft);
            snapshot.order.anchor = Hash32([9; 32]);
        }),
        ("behind no entry", |snapshot| {
            *snapshot = handing_over(Engine::Raft, Engine::Bft);
            snapshot.order.after = None;
        }),
    ];
    for (what, alter) in incoherent {
        let mut altered = honest();
        alter(&mut altered);
        let all = told(1..=7, &altered);
        assert_eq!(judge(&altered, LENDER, &all), Err(Doubt::Incoherent), "{what}");
    }
}

#[test]
fn a_replica_under_raft_tells_where_raft_began_and_nothing_of_before() {
    let order = handing_over(Engine::Bft, Engine::Raft).order;
    let began = place_of(&AppliedState::default(), &order, &HEADER);
    for (index, place) in [(0, None), (39, None), (40, Some(began)), (41, Some(began)), (u64::MAX, Some(began))] {
        assert_eq!(told_under_raft(Some(order), Ask { index }), Told { from: 40, upto: 40, place }, "{index}");
    }
    // It is about to go over, and whoever runs then tells of it.
    let next = handing_over(Engine::Raft, Engine::Bft).order;
    for order in [Some(next), None] {
        assert_eq!(told_under_raft(order, Ask { index: 40 }), Told { from: 0, upto: 0, place: None });
    }
}

#[test]
fn a_snapshot_is_wanted_that_the_others_remember_and_not_one_that_nobody_has() {
    let rows: [(&[(u64, u64)], u64); 7] = [
        (&[], 0),
        (&[(0, 50), (0, 51), (0, 49)], 0),
        // One was started again, or all were.
        (&[(0, 61), (50, 60), (0, 60)], 50),
        (&[(60, 60), (61, 61), (60, 60)], 60),
        // A liar remembers nothing up to the end of time: the others have been at 60, and one of two says so.
        (&[(u64::MAX, u64::MAX), (0, 60), (0, 59)], 60),
        (&[(u64::MAX, 0), (0, 60), (0, 59)], 59),
        // One alone may be the liar.
        (&[(70, 80)], 0),
    ];
    for (answers, expected) in rows {
        let answers: Vec<Told> =
            answers.iter().map(|(from, upto)| Told { from: *from, upto: *upto, place: None }).collect();
        assert_eq!(reach(&answers, 1), expected, "{answers:?}");
    }
}

#[cfg(feature = "bft")]
#[test]
fn whoever_has_in_its_state_what_hands_over_has_gone_on() {
    let raft = |after| Some(Order { engine: Engine::Raft, after, anchor: HEADER });
    let over = Some(Order { engine: Engine::Bft, after: at(40), anchor: HEADER });
    let runs_raft = |order| told_under_raft(order, Ask { index: 40 });
    let runs_bft = |upto| Told { from: upto, upto, place: None };
    let rows = [
        (runs_raft(raft(None)), false),
        (runs_raft(raft(at(7))), false),
        (runs_raft(over), true),
        (runs_bft(39), false),
        (runs_bft(40), true),
        (runs_bft(90), true),
    ];
    for (told, expected) in rows {
        assert_eq!(told.has_gone_on(40), expected, "{told:?}");
    }
}
