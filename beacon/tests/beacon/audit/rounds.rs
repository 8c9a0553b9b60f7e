//! Groups with many streams: when trails show them, and that nothing is missed between.

use beacon::audit::rounds::{Due, Shown, due, round_ms, shown_key, upto};
use beacon::limits::AUDIT_STREAMS_PER_S;
use beacon::registry;
use ledger::ids::LayoutVersion;
use ledger::layout::Lineage;

use super::*;

/// Channels that each shard has written to, so that a round of it is two seconds long.
const OTHERS: u32 = 20;
const ROUND: u64 = 2_000;

fn rest(world: &mut World) {
    let mut plan = Plan::default();
    plan.rest();
    world.build(&plan.blocks);
}

/// Shards with many streams, which they have shown.
fn busy() -> World {
    let mut world = World::new();
    for chain in &mut world.chains {
        for channel in (1..=OTHERS).map(GroupId::channel) {
            chain.outs.entry(channel).or_default().push(&[1]);
        }
    }
    rest(&mut world);
    (0..SHARDS).for_each(|shard| world.show(shard).unwrap());
    world
}

fn bare(trail: &Trail) -> Trail {
    Trail { outbox: Vec::new(), inbox: Vec::new(), ..trail.clone() }
}

/// Shows everything of a shard that was not shown, without its streams.
fn show_headers(world: &mut World, shard: usize) -> Result<(), Reject> {
    let trail = bare(&world.trail(shard));
    world.take(&AuditEntry::Trail(trail))?;
    world.chains[shard].shown = world.chains[shard].headers.len();
    Ok(())
}

/// Where the streams of a shard stand at its last block, which was shown.
fn streams_alone(world: &World, shard: usize) -> Trail {
    let chain = &world.chains[shard];
    let certificate = certify(&world.genesis, chain.headers.last().unwrap().clone());
    let (outbox, inbox) = (chain.outbox(), chain.inbox());
    Trail { version: AUDIT_VERSION, headers: Vec::new(), certificate, outbox, inbox }
}

fn upto_of(world: &World, shard: usize) -> Option<Height> {
    upto(&mut View::new(&world.state), group(shard))
}

fn due_of(world: &World, shard: usize) -> Due {
    due(&mut View::new(&world.state), group(shard), TimeMs(world.now))
}

fn compared(world: &World, shard: usize) -> Option<Height> {
    audited(&mut View::new(&world.state), group(shard)).unwrap().compared
}

/// Refused, and nothing has changed.
fn refuses(world: &mut World, trail: Trail, reject: Reject, what: &str) {
    let before = world.state.clone();
    assert_eq!(world.take(&AuditEntry::Trail(trail)), Err(reject), "{what}");
    assert_eq!(world.state, before, "{what}");
}

/// All ways to show some of the streams, or others.
fn pieces(good: &Trail) -> Vec<Trail> {
    let with = |change: &dyn Fn(&mut Trail)| {
        let mut trail = good.clone();
        change(&mut trail);
        trail
    };
    let mut pieces = vec![
        with(&|trail| trail.inbox.clear()),
        with(&|trail| trail.outbox.clear()),
        with(&|trail| trail.outbox.truncate(16)),
        with(&|trail| trail.outbox.swap(0, 1)),
        with(&|trail| trail.outbox[0].next_seq += 1),
        with(&|trail| trail.inbox[0].head = Hash32::ZERO),
    ];
    for leaf in &good.outbox {
        pieces.push(with(&|trail| trail.outbox.retain(|other| other != leaf)));
    }
    pieces
}

/// Every row of the table in `beacon::audit::rounds`.
#[test]
fn a_trail_shows_all_streams_or_none_as_its_round_has_it() {
    let refused: Result<(), Reject> = Err(Reject::AuditForm);
    // When a trail without streams was taken, if one was, and when the next one is, behind the round's begin.
    for (what, before, now, due, all, none) in [
        ("the same round", None, ROUND - 1, Due::Early, refused, Ok(())),
        ("another round", None, ROUND, Due::Open, Ok(()), Ok(())),
        ("another round, none was taken in it", Some(1_000), ROUND, Due::Open, Ok(()), Ok(())),
        ("another round, one was taken in it", Some(ROUND), ROUND + 1, Due::Owed, Ok(()), refused),
        ("some rounds later", Some(ROUND), 9 * ROUND, Due::Owed, Ok(()), refused),
    ] {
        for (shows, expected) in [(true, all), (false, none)] {
            let mut world = busy();
            let mut plan = Plan::default();
            plan.mint(0, 1, 100);
            plan.pay(0, 1, 1, 30);
            world.build(&plan.blocks);
            if let Some(before) = before {
                world.now = NOW + before;
                assert_eq!(show_headers(&mut world, 1), Ok(()), "{what}");
                rest(&mut world);
            }
            world.now = NOW + now;
            assert_eq!(due_of(&world, 1), due, "{what}");
            let good = world.trail(1);
            for piece in pieces(&good) {
                refuses(&mut world, piece, Reject::AuditForm, what);
            }
            let trail = if shows { good } else { bare(&good) };
            match expected {
                Err(reject) => refuses(&mut world, trail, reject, what),
                Ok(()) => {
                    let last = trail.certificate.header.height;
                    assert_eq!(world.take(&AuditEntry::Trail(trail)), Ok(()), "{what}");
                    assert_eq!(upto_of(&world, 1) == Some(last), shows, "{what}");
                }
            }
        }
    }
}

#[test]
fn a_first_trail_and_one_of_few_streams_show_all_of_them() {
    let mut world = World::new();
    let mut plan = Plan::default();
    plan.mint(0, 1, 100);
    plan.pay(0, 1, 1, 30);
    world.build(&plan.blocks);
    for block in 0..3 {
        assert_eq!(due_of(&world, 1), Due::Owed);
        let trail = world.trail(1);
        refuses(&mut world, bare(&trail), Reject::AuditForm, "it shows none");
        world.show(1).unwrap();
        assert_eq!(world.state.get(&shown_key(group(1))), None, "nothing is kept of it: {block}");
        rest(&mut world);
    }
    // It has more of them from now on.
    for channel in (1..=OTHERS).map(GroupId::channel) {
        world.chains[1].outs.entry(channel).or_default().push(&[1]);
    }
    rest(&mut world);
    world.show(1).unwrap();
    let kept: Shown = View::new(&world.state).load(&shown_key(group(1))).unwrap();
    assert_eq!((kept.streams, kept.time_ms), (u64::from(OTHERS) + 1, TimeMs(NOW)));
    assert_eq!((kept.height, due_of(&world, 1)), (world.chains[1].headers.last().unwrap().height, Due::Early));
    // And fewer again.
    world.chains[1].outs.clear();
    rest(&mut world);
    world.now += ROUND;
    world.show(1).unwrap();
    assert_eq!((world.state.get(&shown_key(group(1))), due_of(&world, 1)), (None, Due::Owed));
}

#[test]
fn a_shard_that_is_gone_shows_its_streams_whenever_it_is_asked() {
    let mut world = busy();
    rest(&mut world);
    let mut layout = registry::layout(&mut View::new(&world.state)).unwrap();
    let prefix = layout.shards[0].prefix;
    let successors = vec![GroupId::shard(8), GroupId::shard(9)];
    layout.lineage.push(Lineage { group: group(0), prefix, until: LayoutVersion(2), successors });
    world.state = settle(&world.state, |view| view.store(registry::layout_key(), &layout));
    assert_eq!((due_of(&world, 0), due_of(&world, 1)), (Due::Owed, Due::Early));
    let trail = world.trail(0);
    refuses(&mut world, bare(&trail), Reject::AuditForm, "it shows none");
    world.show(0).unwrap();
}

#[test]
fn a_shard_that_rests_shows_its_streams_by_themselves_and_is_compared() {
    for (more, found) in [(0, false), (5, true)] {
        let mut world = busy();
        let mut plan = Plan::default();
        plan.mint(0, 1, 100);
        plan.pay(0, 1, 1, 30);
        let line = &mut plan.blocks.last_mut().unwrap().lines[0];
        (line.imported[0].1, line.closing) = (30 + more, 30 + more);
        world.build(&plan.blocks);
        world.now += 1;
        for shard in [0, 1] {
            show_headers(&mut world, shard).unwrap();
            let early = streams_alone(&world, shard);
            refuses(&mut world, early, Reject::AuditForm, "the round goes on");
        }
        assert_eq!((world.flaws(), world.status().transits), (vec![], vec![]), "streams and sums are of one block");
        assert_eq!((upto_of(&world, 0), compared(&world, 0)), (Some(Height(1)), Some(Height(1))));
        world.now = NOW + ROUND;
        for shard in [0, 1] {
            let end = streams_alone(&world, shard);
            refuses(&mut world, bare(&end), Reject::AuditGap, "there is nothing in it");
            let mut old = end.clone();
            old.certificate = certify(&world.genesis, world.chains[shard].headers[1].clone());
            refuses(&mut world, old, Reject::AuditGap, "it is of another block");
            assert_eq!(world.take(&AuditEntry::Trail(end.clone())), Ok(()));
            refuses(&mut world, end, Reject::AuditGap, "they are known");
        }
        let differ = Flaw::FlowsDiffer { peer: group(1), asset: asset(1), exported: 30, imported: 30 + more };
        assert_eq!(world.flaws(), if found { vec![differ] } else { vec![] });
        for shard in [0, 1] {
            let last = world.chains[shard].headers.last().unwrap().height;
            assert_eq!((upto_of(&world, shard), compared(&world, shard)), (Some(last), Some(last)), "{shard}");
        }
        // Nothing was added up twice, and what comes next leads on.
        rest(&mut world);
        world.now += ROUND;
        (0..SHARDS).for_each(|shard| world.show(shard).unwrap());
        assert_eq!(world.flaws().len(), usize::from(found));
    }
}

#[test]
fn a_block_that_does_not_balance_is_found_before_streams_are_shown() {
    for (opened, raised, name) in [(0, 1, "unbalanced"), (5, 5, "discontinuous")] {
        let mut world = busy();
        let mut plan = Plan::default();
        plan.mint(0, 1, 100);
        plan.mint(0, 1, 1);
        let line = &mut plan.blocks[1].lines[0];
        line.opening += opened;
        line.closing += raised;
        // One of the two is in a trail of its own: what went before stands beside the sums.
        for block in &plan.blocks {
            world.build(std::slice::from_ref(block));
            world.now += 1;
            show_headers(&mut world, 0).unwrap();
        }
        assert_eq!(world.flaws().iter().map(Flaw::name).collect::<Vec<_>>(), [name]);
        assert_eq!(ClusterView::read(&world.state).unwrap().quarantined, [group(0)]);
    }
}

/// What was shown of one shard.
#[derive(Clone, Copy, Default)]
struct Seen {
    trails: u64,
    streams: u64,
    /// The round in which a trail without streams was taken last.
    bare_in: Option<u64>,
}

/// Runs a plan, a trail behind each block at these times, each of which shows streams where it may; then all come to rest, and
/// show their streams. Checks on the way how often they are shown.
fn run(world: &mut World, plan: &Plan, pauses: &[u64]) -> Result<(), TestCaseError> {
    let mut seen = [Seen::default(); SHARDS];
    for (block, pause) in plan.blocks.iter().zip(pauses.iter().cycle()) {
        world.build(std::slice::from_ref(block));
        world.now += pause;
        let (shard, round) = (block.shard, world.now / ROUND);
        let seen = &mut seen[shard];
        seen.trails += 1;
        if due_of(world, shard) == Due::Early {
            show_headers(world, shard).unwrap();
            seen.bare_in = Some(round);
        } else {
            let trail = world.trail(shard);
            seen.streams += (trail.outbox.len() + trail.inbox.len()) as u64;
            prop_assert!(seen.bare_in != Some(round), "every stream is shown with the first trail of a round");
            world.show(shard).unwrap();
        }
    }
    let most = (OTHERS as usize + 2 * SHARDS) as u64;
    prop_assert_eq!(round_ms(most), ROUND);
    for seen in seen {
        let seconds = (world.now - NOW) as f64 / 1_000.0;
        // Of the first round and the last one a part has passed.
        let bound = AUDIT_STREAMS_PER_S as f64 * seconds + most as f64;
        prop_assert!(seen.streams as f64 <= bound, "{} streams in {seconds} s", seen.streams);
        prop_assert!(seen.streams <= seen.trails * most, "no more than all with each trail");
    }
    for _ in 0..2 {
        rest(world);
        world.now += ROUND;
        for shard in 0..SHARDS {
            prop_assert!(due_of(world, shard) != Due::Early);
            world.show(shard).unwrap();
        }
    }
    Ok(())
}

fn pauses() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(0u64..1_500, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn honest_shards_with_many_streams_are_never_contradicted(acts in acts(), pauses in pauses()) {
        let mut world = busy();
        run(&mut world, &planned(&acts), &pauses)?;
        prop_assert_eq!(world.flaws(), []);
        prop_assert!(world.status().sound() && world.status().transits.is_empty());
        for shard in 0..SHARDS {
            let last = world.chains[shard].headers.last().unwrap().height;
            prop_assert_eq!(compared(&world, shard), Some(last));
        }
    }

    #[test]
    fn an_amount_that_one_of_many_streams_does_not_bear_out_is_found(
        acts in acts(),
        pauses in pauses(),
        place in any::<prop::sample::Index>(),
        by in 1u128..1_000,
    ) {
        let mut plan = planned(&acts);
        prop_assume!(misbook(&mut plan, place, by));
        let mut world = busy();
        run(&mut world, &plan, &pauses)?;
        let differ = world.flaws().iter().any(|flaw| matches!(flaw, Flaw::FlowsDiffer { .. }));
        prop_assert!(differ, "{:?}", world.flaws());
    }

    #[test]
    fn other_mail_in_one_of_many_streams_is_found(
        acts in acts(),
        pauses in pauses(),
        place in any::<prop::sample::Index>(),
    ) {
        let mut plan = planned(&acts);
        let arrivals: Vec<usize> = (0..plan.blocks.len()).filter(|at| !plan.blocks[*at].takes.is_empty()).collect();
        prop_assume!(!arrivals.is_empty());
        plan.blocks[arrivals[place.index(arrivals.len())]].takes[0].1 = u64::MAX;
        let mut world = busy();
        run(&mut world, &plan, &pauses)?;
        let found = world.flaws().iter().any(|flaw| matches!(flaw, Flaw::OtherMail { .. }));
        prop_assert!(found, "{:?}", world.flaws());
    }
}
