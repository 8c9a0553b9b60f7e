//! The harness is proved: bugs put back are found, each by the checkers and within 200 seeds. The
//! table in `docs/simulator.md` is what this prints.

mod support;

use std::any::Any;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use cluster_sim::checkers::Checkers;
use cluster_sim::{Lie, Proved, Ruse, Sabotage, Scenario, SimConfig, SimReport, run};
use ledger::committee::Engine;
use support::finders::{BY_UNIT_TESTS, finder, finders};
use support::{assert_passed, on_all_cores};

const SEEDS: u64 = 200;

/// What came of a bug that was put back.
enum Outcome {
    /// The first seed in which one of those finds it that are there for it, and what they say.
    Found(u64, Vec<String>),
    Missed,
    /// A seed in which something is wrong that is not the bug, and what.
    Failed(u64, String),
}

impl Outcome {
    /// So many seeds were run.
    fn seeds(&self) -> u64 {
        match self {
            Self::Found(seed, _) | Self::Failed(seed, _) => seed + 1,
            Self::Missed => SEEDS + 1,
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Found(_, said) => &said[0],
            Self::Missed => "not found",
            Self::Failed(_, why) => why,
        }
    }
}

/// What a panic says, cut to what a line can hold: the whole of it was printed where it happened.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("a panic that says nothing");
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(600).collect()
}

/// What those say of a run with a bug who are there to find it; `None` where they find nothing.
fn finds(sabotage: Sabotage, seed: u64, config: &SimConfig) -> Option<Vec<String>> {
    let report = run(seed, config);
    let expected = (!report.passed()).then(|| config.command(seed));
    assert_eq!(report.reproduce, expected);
    let own = |text: &&String| finders(sabotage).contains(&finder(text));
    let said: Vec<String> = report.violations.iter().filter(own).cloned().collect();
    if said.is_empty() {
        return None;
    }
    // What was found is the bug: without it the same run is sound.
    let sound = run(seed, &SimConfig { sabotage: None, ..config.clone() });
    if !sound.passed() {
        println!("{}", serde_json::to_string_pretty(&sound).expect("a report is plain data"));
        panic!("not sound without the bug: {:?}: {:?}", sound.reproduce, sound.violations);
    }
    Some(said)
}

/// Runs one seed after the other until a bug is found.
fn found(sabotage: Sabotage) -> Outcome {
    let usual = SimConfig { sabotage: Some(sabotage), ..SimConfig::default() };
    // Whoever does not look needs somebody to overlook.
    let lie = match sabotage {
        Sabotage::JudgeSkipsSignatures | Sabotage::TimeUnchecked => Some(Lie::BadProposer),
        Sabotage::ForeignRound | Sabotage::ForeignCommittee => Some(Lie::Forger),
        Sabotage::EvidenceUntold => Some(Lie::DoubleVoter),
        _ => None,
    };
    let config = if sabotage.byzantine() {
        SimConfig { consensus: Some(Engine::Bft), shards: Some(2), lie, ..usual }
    } else if sabotage.of_byzantine_seats() {
        let (consensus, moved) = (Some(Engine::Bft), SimConfig { reshapes: Some(1), moves: Some(12), ..usual });
        // So long that enough members of one shard leave it.
        SimConfig {
            consensus,
            lie,
            shards: Some(2),
            replicas: Some(4),
            nodes: Some(8),
            safety_ms: Some(12_000),
            ..moved
        }
    } else if sabotage.switching() {
        SimConfig { switches: Some(4), shards: Some(2), ..usual }
    } else if sabotage.reshaping() {
        SimConfig { reshapes: Some(6), shards: Some(2), ..usual }
    } else if sabotage.moving() {
        SimConfig { reshapes: Some(3), moves: Some(6), shards: Some(2), nodes: Some(7), ..usual }
    } else if sabotage.of_nodes() {
        SimConfig { reshapes: Some(2), comings: Some(10), shards: Some(2), nodes: Some(7), ..usual }
    } else if sabotage.of_keys() {
        SimConfig { keys: Some(12), shards: Some(2), ..usual }
    } else if sabotage.of_policies() {
        SimConfig { policies: Some(6), reshapes: Some(6), shards: Some(2), ..usual }
    } else if sabotage.of_removals() {
        SimConfig { removals: Some(2), lie, shards: Some(2), replicas: Some(4), nodes: Some(7), ..usual }
    } else if sabotage.of_epochs() {
        SimConfig { epochs: Some(2), shards: Some(2), ..usual }
    } else {
        usual
    };
    let config = match sabotage {
        // A vote has to be lost with the power.
        Sabotage::VoteBeforePersist => {
            SimConfig { scenario: Some(Scenario::Crashes), transactions: Some(40), ..config }
        }
        // Somebody has to hand something over to a channel whose members change.
        Sabotage::AdmitGone => SimConfig { money: Some(40), ..config },
        // Lost entries leave a long run that does not end, before or instead of what the checkers see.
        Sabotage::EarlySync => SimConfig { transactions: Some(40), ..config },
        Sabotage::VoteUnrestricted => SimConfig { shards: Some(4), reshapes: Some(12), ..config },
        _ => config,
    };
    for seed in 0..SEEDS {
        // Only the end of a long output may be left: the test says there which bug it was, and in which seed.
        match catch_unwind(AssertUnwindSafe(|| finds(sabotage, seed, &config))) {
            Ok(None) => {}
            Ok(Some(said)) => return Outcome::Found(seed, said),
            Err(panic) => return Outcome::Failed(seed, said(&*panic)),
        }
    }
    Outcome::Missed
}

/// Whatever a checker does not see any more, some bug is not found without it, or unit tests of its own fail.
#[test]
fn every_checker_is_needed_to_find_some_bug() {
    let alone = |name: &str| Sabotage::ALL.iter().any(|sabotage| finders(*sabotage) == [name]);
    for name in Checkers::names() {
        assert!(alone(name) != BY_UNIT_TESTS.contains(&name), "{name}");
    }
}

#[test]
fn every_bug_that_is_put_back_is_found() {
    // One or a few alone: SEAMARK_BUGS=Name,Name.
    let only = std::env::var("SEAMARK_BUGS").unwrap_or_default();
    let only: Vec<&str> = only.split(',').filter(|name| !name.is_empty()).collect();
    let wanted = |sabotage: &&Sabotage| only.is_empty() || only.contains(&format!("{sabotage:?}").as_str());
    let bugs: Vec<Sabotage> = Sabotage::ALL.iter().filter(wanted).copied().collect();
    assert!(!bugs.is_empty(), "no bug is called {only:?}");
    let outcomes = on_all_cores(&bugs, |sabotage| {
        let start = Instant::now();
        let outcome = found(*sabotage);
        println!("| {sabotage:?} | {} | {} | {:.1?}", outcome.seeds(), outcome.text(), start.elapsed());
        outcome
    });
    let (mut missed, mut failed, mut why_failed) = (Vec::new(), Vec::new(), Vec::new());
    for (bug, outcome) in bugs.iter().zip(&outcomes) {
        match outcome {
            Outcome::Found(..) => {}
            Outcome::Missed => missed.push(bug),
            Outcome::Failed(seed, why) => {
                failed.push((bug, seed));
                why_failed.push(format!("{bug:?} in seed {seed}: {why}"));
            }
        }
    }
    // Names last: where the output is cut, they are what is left.
    let (all, found) = (bugs.len(), bugs.len() - missed.len() - failed.len());
    let summary = format!(
        "{why_failed:?}; {found} of {all} bugs are found; something else is wrong, by bug and seed, in {failed:?}; \
         {SEEDS} seeds did not find {missed:?}"
    );
    println!("{summary}");
    assert!(missed.is_empty() && failed.is_empty(), "{summary}");
}

/// A run in which members lie, in shards of so many members on so many nodes.
fn lied_to(lie: Lie, scenario: Scenario, shards: u32, (replicas, nodes): (u16, u32)) -> SimConfig {
    SimConfig {
        scenario: Some(scenario),
        consensus: Some(Engine::Bft),
        lie: Some(lie),
        shards: Some(shards),
        replicas: Some(replicas),
        nodes: Some(nodes),
        transactions: Some(30),
        ..SimConfig::default()
    }
}

/// Every way to lie, under every kind of trouble, also in groups of seven; and each of them lies.
#[test]
fn no_liar_does_harm_in_groups_that_outlive_it() {
    let usual: Vec<Lie> = Lie::ALL.iter().copied().filter(|lie| *lie != Lie::Conspirator).collect();
    // Where a node is gone for good nobody lies.
    let all: Vec<Scenario> = Scenario::ALL.iter().copied().filter(|scenario| *scenario != Scenario::Minority).collect();
    // Who forgets needs the power to fail.
    let power = [Scenario::Crashes, Scenario::Storm];
    let shapes = [(4, 5), (7, 8)];
    let kinds = usual.iter().flat_map(|lie| shapes.map(|shape| (*lie, shape)));
    let runs: Vec<(Lie, (u16, u32), Scenario, u64)> = kinds
        .clone()
        .flat_map(|kind| std::iter::repeat_n(kind, 4))
        .enumerate()
        .map(|(at, (lie, shape))| {
            let troubles = if lie == Lie::Forgetful { &power[..] } else { &all[..] };
            (lie, shape, troubles[at % troubles.len()], 3_000 + at as u64)
        })
        .collect();
    let reports = on_all_cores(&runs, |(lie, shape, scenario, seed)| run(*seed, &lied_to(*lie, *scenario, 2, *shape)));
    reports.iter().for_each(assert_passed);
    for kind in kinds {
        let own = runs.iter().zip(&reports).filter(|((lie, shape, ..), _)| (*lie, *shape) == kind);
        let told: Vec<u64> = own.map(|(_, report)| report.coverage.lies).collect();
        // A run may end before a liar has led, or lost power; but one that acts does so again and again.
        let lies: u64 = told.iter().sum();
        assert!(lies >= told.len() as u64, "{kind:?}: {told:?} lies");
    }
}

/// What bad proposers and forgers do, each of it often enough. Whoever is caught proposing what nobody votes for does not lead
/// for a while, so it takes many groups to meet all of it.
#[test]
fn all_that_bad_proposers_and_forgers_do_is_met_and_does_no_harm() {
    let troubles = [Scenario::Leaders, Scenario::Storm, Scenario::Crashes];
    let kinds = [(Lie::BadProposer, 28), (Lie::Forger, 4)];
    let runs: Vec<(Lie, Scenario, u64)> = kinds
        .into_iter()
        .flat_map(|(lie, count)| troubles.into_iter().cycle().take(count).map(move |scenario| (lie, scenario)))
        .zip(16_000..)
        .map(|((lie, scenario), seed)| (lie, scenario, seed))
        .collect();
    let reports = on_all_cores(&runs, |(lie, scenario, seed)| run(*seed, &lied_to(*lie, *scenario, 4, (4, 5))));
    reports.iter().for_each(assert_passed);
    let met = |ruse: &Ruse| reports.iter().filter_map(|report| report.ruses.get(ruse.name())).sum::<u64>();
    let counts: Vec<(&str, u64)> = Ruse::ALL.iter().map(|ruse| (ruse.name(), met(ruse))).collect();
    println!("{counts:?}");
    assert!(counts.iter().all(|(_, count)| *count > 0), "{counts:?}");
    for ((lie, ..), report) in runs.iter().zip(&reports) {
        let mut others = Ruse::ALL.iter().filter(|ruse| ruse.of() != *lie);
        assert!(others.all(|ruse| !report.ruses.contains_key(ruse.name())), "seed {}", report.seed);
    }
    // Members vote for an overdraft, and it comes to nothing when it is executed; one that is made may also be lost.
    let refused: u64 = reports.iter().map(|report| report.overdrafts_refused).sum();
    println!("{refused} overdrafts were executed and rejected");
    assert!(refused > 0 && refused <= met(&Ruse::Overdraft), "{refused} overdrafts were rejected");
}

/// Both ways and under every kind of trouble, with groups of four, five and seven, and in them members that lie under the
/// engine under which one can.
#[test]
fn a_shard_goes_over_to_the_other_engine_and_back_whatever_happens() {
    let shapes = [(4, Engine::Raft), (4, Engine::Bft), (5, Engine::Raft), (7, Engine::Bft)];
    let runs: Vec<(Scenario, (u16, Engine), u64)> = Scenario::ALL
        .iter()
        .flat_map(|scenario| shapes.map(|shape| (*scenario, shape)))
        .zip(5_000..)
        .map(|((scenario, shape), seed)| (scenario, shape, seed))
        .collect();
    let reports = on_all_cores(&runs, |(scenario, (replicas, engine), seed)| {
        let config = SimConfig {
            scenario: Some(*scenario),
            consensus: Some(*engine),
            switches: Some(4),
            shards: Some(2),
            replicas: Some(*replicas),
            nodes: Some(8),
            transactions: Some(40),
            ..SimConfig::default()
        };
        run(*seed, &config)
    });
    reports.iter().for_each(assert_passed);
    let stints: u64 = reports.iter().map(|report| report.coverage.stints).sum();
    assert!(stints >= 4 * runs.len() as u64, "replicas went over {stints} times in {} runs", runs.len());
}

/// Whoever follows the registry, and all groups by their mail, find the committee under either engine. The members stay.
#[test]
fn the_beacon_goes_over_to_the_other_engine_and_back_whatever_happens() {
    // Those of its share: every fourteenth.
    let seeds = (0..).map(|place: u64| 7_009 + 14 * place);
    let scenarios = Scenario::ALL.iter().chain(Scenario::ALL);
    let runs: Vec<(Scenario, u64)> = scenarios.copied().zip(seeds).collect();
    let reports = on_all_cores(&runs, |(scenario, seed)| {
        let config =
            SimConfig { scenario: Some(*scenario), shards: Some(2), transactions: Some(40), ..SimConfig::default() };
        run(*seed, &config)
    });
    reports.iter().for_each(assert_passed);
    let stints: u64 = reports.iter().map(|report| report.coverage.stints).sum();
    assert!(stints >= 4 * runs.len() as u64, "replicas went over {stints} times in {} runs", runs.len());
}

/// The commit of a layout is in a beacon that hands over to the other engine meanwhile, and the children begin with the committee
/// that their parents knew of it.
#[test]
fn shards_are_cut_and_joined_while_the_beacon_goes_over() {
    let seeds = (0..).map(|place: u64| 7_009 + 14 * place);
    let runs: Vec<(Scenario, u64)> = Scenario::ALL.iter().copied().zip(seeds).collect();
    let reports = on_all_cores(&runs, |(scenario, seed)| {
        let config = SimConfig {
            scenario: Some(*scenario),
            reshapes: Some(4),
            shards: Some(2),
            transactions: Some(40),
            ..SimConfig::default()
        };
        run(*seed, &config)
    });
    reports.iter().for_each(assert_passed);
    let sum = |of: fn(&SimReport) -> u64| reports.iter().map(of).sum::<u64>();
    let (halves, stints) = (sum(|report| report.coverage.halves), sum(|report| report.coverage.stints));
    assert!(halves >= runs.len() as u64, "{halves} shards began as halves in {} runs", runs.len());
    assert!(stints >= 4 * runs.len() as u64, "replicas went over {stints} times in {} runs", runs.len());
}

/// Under every kind of trouble, with jobs beside each other and jobs that are taken back.
#[test]
fn shards_are_cut_and_joined_whatever_happens() {
    let shapes = [(3, 5), (3, 7), (5, 8)];
    let runs: Vec<(Scenario, (u16, u32), u64)> = Scenario::ALL
        .iter()
        .flat_map(|scenario| shapes.map(|shape| (*scenario, shape)))
        .zip(7_000..)
        .map(|((scenario, shape), seed)| (scenario, shape, seed))
        .collect();
    let reports = on_all_cores(&runs, |(scenario, (replicas, nodes), seed)| {
        let config = SimConfig {
            scenario: Some(*scenario),
            reshapes: Some(5),
            shards: Some(2),
            replicas: Some(*replicas),
            nodes: Some(*nodes),
            transactions: Some(60),
            ..SimConfig::default()
        };
        run(*seed, &config)
    });
    reports.iter().for_each(assert_passed);
    let sum = |of: fn(&SimReport) -> u64| reports.iter().map(of).sum::<u64>();
    let (halves, joined) = (sum(|report| report.coverage.halves), sum(|report| report.coverage.joined));
    assert!(halves >= runs.len() as u64, "{halves} shards began as halves in {} runs", runs.len());
    assert!(joined >= runs.len() as u64 / 4, "{joined} shards were joined in {} runs", runs.len());
    let stale = sum(|report| report.coverage.stale_routes);
    assert!(stale >= runs.len() as u64, "routers went by an old layout {stale} times in {} runs", runs.len());
}

/// Seats move by jobs of their own, and of two shards that are to be joined one takes the nodes of the other first.
#[test]
fn seats_of_shards_move_while_these_are_cut_and_joined_whatever_happens() {
    let shapes = [(3, 6), (3, 8), (5, 8)];
    let runs: Vec<(Scenario, (u16, u32), u64)> = Scenario::ALL
        .iter()
        .flat_map(|scenario| shapes.map(|shape| (*scenario, shape)))
        .zip(9_000..)
        .map(|((scenario, shape), seed)| (scenario, shape, seed))
        .collect();
    let reports = on_all_cores(&runs, |(scenario, (replicas, nodes), seed)| {
        let config = SimConfig {
            scenario: Some(*scenario),
            reshapes: Some(4),
            moves: Some(5),
            shards: Some(2),
            replicas: Some(*replicas),
            nodes: Some(*nodes),
            transactions: Some(60),
            ..SimConfig::default()
        };
        run(*seed, &config)
    });
    reports.iter().for_each(assert_passed);
    let sum = |of: fn(&SimReport) -> u64| reports.iter().map(of).sum::<u64>();
    let (seated, joined) = (sum(|report| report.coverage.reseated), sum(|report| report.coverage.joined));
    assert!(seated >= runs.len() as u64, "seats moved {seated} times in {} runs", runs.len());
    assert!(joined >= runs.len() as u64 / 8, "{joined} shards were joined in {} runs", runs.len());
}

/// Nodes are drained, taken back, replaced, struck off and registered anew while shards are cut, joined and moved and seeds
/// are drawn; members of the beacon among them, where Raft orders it.
#[test]
fn nodes_come_and_go_while_shards_are_cut_and_joined_whatever_happens() {
    let shapes = [(3, 6), (3, 8), (5, 8)];
    let runs: Vec<(Scenario, (u16, u32), u64)> = Scenario::ALL
        .iter()
        .flat_map(|scenario| shapes.map(|shape| (*scenario, shape)))
        .zip(10_000..)
        .map(|((scenario, shape), seed)| (scenario, shape, seed))
        .collect();
    let reports = on_all_cores(&runs, |(scenario, (replicas, nodes), seed)| {
        let config = SimConfig {
            scenario: Some(*scenario),
            reshapes: Some(3),
            moves: Some(2),
            comings: Some(8),
            epochs: Some(1),
            shards: Some(2),
            replicas: Some(*replicas),
            nodes: Some(*nodes),
            transactions: Some(60),
            ..SimConfig::default()
        };
        run(*seed, &config)
    });
    reports.iter().for_each(assert_passed);
    let sum = |of: fn(&SimReport) -> u64| reports.iter().map(of).sum::<u64>();
    let (comings, seated) = (sum(|report| report.coverage.comings), sum(|report| report.coverage.reseated));
    assert!(comings >= 3 * runs.len() as u64, "{comings} commands about nodes in {} runs", runs.len());
    assert!(seated >= runs.len() as u64, "seats moved {seated} times in {} runs", runs.len());
    let (halves, joined) = (sum(|report| report.coverage.halves), sum(|report| report.coverage.joined));
    assert!(halves >= runs.len() as u64 / 2, "{halves} shards began as halves in {} runs", runs.len());
    assert!(joined > 0, "no two shards were joined in {} runs", runs.len());
    let (epochs, stale) = (sum(|report| report.coverage.epochs), sum(|report| report.coverage.stale_routes));
    assert!(epochs >= runs.len() as u64 / 2, "{epochs} epochs ended in {} runs", runs.len());
    assert!(stale >= runs.len() as u64 / 2, "routers went by an old layout {stale} times in {} runs", runs.len());
    let across = sum(|report| report.coverage.vectors_across);
    assert!(across >= runs.len() as u64, "{across} vectors of heights had what shards became in {} runs", runs.len());
}

/// Each group takes a node's next key at a block of its own, while shards are cut and joined, seeds are drawn and power fails,
/// also before the key is durable on the node.
#[test]
fn signing_keys_of_nodes_are_replaced_whatever_happens() {
    let shapes = [(3, 5, 0), (3, 7, 3), (5, 8, 0)];
    let runs: Vec<(Scenario, (u16, u32, u32), u64)> = Scenario::ALL
        .iter()
        .flat_map(|scenario| shapes.map(|shape| (*scenario, shape)))
        .zip(13_000..)
        .map(|((scenario, shape), seed)| (scenario, shape, seed))
        .collect();
    let reports = on_all_cores(&runs, |(scenario, (replicas, nodes, reshapes), seed)| {
        let config = SimConfig {
            scenario: Some(*scenario),
            keys: Some(8),
            reshapes: Some(*reshapes),
            epochs: Some(1),
            shards: Some(2),
            replicas: Some(*replicas),
            nodes: Some(*nodes),
            transactions: Some(40),
            ..SimConfig::default()
        };
        run(*seed, &config)
    });
    reports.iter().for_each(assert_passed);
    let sum = |of: fn(&SimReport) -> u64| reports.iter().map(of).sum::<u64>();
    let (renewed, gone) = (sum(|report| report.coverage.renewed), sum(|report| report.coverage.keys_gone));
    assert!(renewed >= 2 * runs.len() as u64, "{renewed} keys were replaced in {} runs", runs.len());
    assert!(gone >= runs.len() as u64, "nodes dropped {gone} keys in {} runs", runs.len());
}

/// What is asked for meanwhile needs whatever approvals the policy in force asks for: of jobs, of engines, of policies.
#[test]
fn the_cluster_decides_by_other_policies_whatever_happens() {
    let runs: Vec<(Scenario, u64)> = Scenario::ALL.iter().chain(Scenario::ALL).copied().zip(15_000..).collect();
    let reports = on_all_cores(&runs, |(scenario, seed)| {
        let config = SimConfig {
            scenario: Some(*scenario),
            policies: Some(6),
            reshapes: Some(4),
            moves: Some(2),
            shards: Some(2),
            nodes: Some(7),
            transactions: Some(40),
            ..SimConfig::default()
        };
        run(*seed, &config)
    });
    reports.iter().for_each(assert_passed);
    let sum = |of: fn(&SimReport) -> u64| reports.iter().map(of).sum::<u64>();
    let (rulings, halves) = (sum(|report| report.coverage.rulings), sum(|report| report.coverage.halves));
    assert!(rulings >= 4 * runs.len() as u64, "{rulings} approvals of policies in {} runs", runs.len());
    assert!(halves >= runs.len() as u64 / 2, "{halves} shards began as halves in {} runs", runs.len());
}

/// Whoever votes twice in a shard loses all its seats, those of the beacon among them, without anybody's command, is
/// struck off by its organisation, and counts nowhere any more; its groups go on, also where somebody has to register a
/// node first. Of those whom liars accuse nobody loses anything.
#[test]
fn whoever_votes_twice_loses_all_its_seats_and_nobody_else_does_whatever_happens() {
    let shapes = [(4, 7, 0, Engine::Raft), (4, 5, 0, Engine::Bft), (7, 9, 2, Engine::Raft)];
    let runs: Vec<(Scenario, (u16, u32, u32, Engine), u64)> = Scenario::ALL
        .iter()
        .flat_map(|scenario| shapes.map(|shape| (*scenario, shape)))
        .zip(17_000..)
        .map(|((scenario, shape), seed)| (scenario, shape, seed))
        .collect();
    let reports = on_all_cores(&runs, |(scenario, (replicas, nodes, reshapes, beacon), seed)| {
        let config = SimConfig {
            scenario: Some(*scenario),
            beacon: Some(*beacon),
            removals: Some(2),
            lie: seed.is_multiple_of(2).then_some(Lie::DoubleVoter),
            reshapes: Some(*reshapes),
            shards: Some(2),
            replicas: Some(*replicas),
            nodes: Some(*nodes),
            transactions: Some(40),
            ..SimConfig::default()
        };
        run(*seed, &config)
    });
    reports.iter().for_each(assert_passed);
    for report in &reports {
        let (accused, struck_off) = (report.coverage.accused, report.coverage.struck_off);
        assert!(struck_off <= accused && accused <= 2, "seed {}: {accused} accused, {struck_off} gone", report.seed);
    }
    let sum = |of: fn(&SimReport) -> u64| reports.iter().map(of).sum::<u64>();
    let (accused, struck_off) = (sum(|report| report.coverage.accused), sum(|report| report.coverage.struck_off));
    println!("{accused} nodes were accused and {struck_off} struck off in {} runs", runs.len());
    assert!(accused >= runs.len() as u64, "{accused} nodes were accused in {} runs", runs.len());
    assert!(struck_off >= runs.len() as u64, "{struck_off} nodes were struck off in {} runs", runs.len());
    let (seated, slanders) = (sum(|report| report.coverage.reseated), sum(|report| report.coverage.slanders));
    assert!(seated >= runs.len() as u64, "seats moved {seated} times in {} runs", runs.len());
    assert!(slanders >= runs.len() as u64, "liars made up {slanders} proofs in {} runs", runs.len());
    let late = sum(|report| report.coverage.late_ballots);
    assert!(late >= runs.len() as u64, "keys without a seat signed {late} ballots in {} runs", runs.len());
}

/// Where seats move and nodes come and go a key is wanted of who is about to lose a seat, or to get one.
#[test]
fn signing_keys_are_replaced_while_nodes_come_and_go() {
    let runs: Vec<(Scenario, u64)> = Scenario::ALL.iter().copied().zip(13_500..).collect();
    let reports = on_all_cores(&runs, |(scenario, seed)| {
        let config = SimConfig {
            scenario: Some(*scenario),
            keys: Some(6),
            reshapes: Some(2),
            comings: Some(6),
            shards: Some(2),
            nodes: Some(8),
            transactions: Some(40),
            ..SimConfig::default()
        };
        run(*seed, &config)
    });
    reports.iter().for_each(assert_passed);
    let sum = |of: fn(&SimReport) -> u64| reports.iter().map(of).sum::<u64>();
    let (renewed, comings) = (sum(|report| report.coverage.renewed), sum(|report| report.coverage.comings));
    assert!(renewed >= runs.len() as u64, "{renewed} keys were replaced in {} runs", runs.len());
    assert!(comings >= runs.len() as u64, "{comings} commands about nodes in {} runs", runs.len());
}

/// Under the Byzantine engine ballots and headers are signed with the key by which the committee of their entry names the
/// member, the beacon's own among them; with members that lie.
#[test]
fn signing_keys_are_replaced_under_the_byzantine_engine_whatever_happens() {
    let shapes = [(4, 6, 0), (4, 7, 3), (7, 9, 0)];
    let runs: Vec<(Scenario, (u16, u32, u32), u64)> = Scenario::ALL
        .iter()
        .flat_map(|scenario| shapes.map(|shape| (*scenario, shape)))
        .zip(14_000..)
        .map(|((scenario, shape), seed)| (scenario, shape, seed))
        .collect();
    let reports = on_all_cores(&runs, |(scenario, (replicas, nodes, reshapes), seed)| {
        let config = SimConfig {
            scenario: Some(*scenario),
            consensus: Some(Engine::Bft),
            beacon: Some(Engine::Bft),
            keys: Some(8),
            reshapes: Some(*reshapes),
            shards: Some(2),
            replicas: Some(*replicas),
            nodes: Some(*nodes),
            transactions: Some(40),
            ..SimConfig::default()
        };
        run(*seed, &config)
    });
    reports.iter().for_each(assert_passed);
    let sum = |of: fn(&SimReport) -> u64| reports.iter().map(of).sum::<u64>();
    let (renewed, gone) = (sum(|report| report.coverage.renewed), sum(|report| report.coverage.keys_gone));
    assert!(renewed >= runs.len() as u64, "{renewed} keys were replaced in {} runs", runs.len());
    assert!(gone >= runs.len() as u64 / 2, "nodes dropped {gone} keys in {} runs", runs.len());
}

/// As above under the Byzantine engine: children are Byzantine groups of the members that their parents had, those who join a
/// shard come to vote before they have their seats, and who leaves one stops; with members that lie.
#[test]
fn byzantine_shards_are_cut_and_joined_and_their_seats_move_whatever_happens() {
    let shapes = [(4, 5, 0), (4, 8, 5), (7, 9, 4)];
    let runs: Vec<(Scenario, (u16, u32, u32), u64)> = Scenario::ALL
        .iter()
        .flat_map(|scenario| shapes.map(|shape| (*scenario, shape)))
        .zip(11_000..)
        .map(|((scenario, shape), seed)| (scenario, shape, seed))
        .collect();
    let reports = on_all_cores(&runs, |(scenario, (replicas, nodes, moves), seed)| {
        let config = SimConfig {
            scenario: Some(*scenario),
            consensus: Some(Engine::Bft),
            reshapes: Some(4),
            moves: Some(*moves),
            shards: Some(2),
            replicas: Some(*replicas),
            nodes: Some(*nodes),
            transactions: Some(40),
            ..SimConfig::default()
        };
        run(*seed, &config)
    });
    reports.iter().for_each(assert_passed);
    let sum = |of: fn(&SimReport) -> u64| reports.iter().map(of).sum::<u64>();
    let (halves, joined) = (sum(|report| report.coverage.halves), sum(|report| report.coverage.joined));
    assert!(halves >= runs.len() as u64 / 2, "{halves} shards began as halves in {} runs", runs.len());
    assert!(joined > 0, "no two shards were joined in {} runs", runs.len());
    let (seated, lies) = (sum(|report| report.coverage.reseated), sum(|report| report.coverage.lies));
    assert!(seated >= runs.len() as u64 / 2, "seats moved {seated} times in {} runs", runs.len());
    assert!(lies >= runs.len() as u64, "members lied {lies} times in {} runs", runs.len());
}

/// Nodes are drained, replaced, struck off and registered anew where shards and the beacon are Byzantine from the beginning: a
/// command of the beacon changes the members of a group, its own included, at a height.
#[test]
fn nodes_come_and_go_under_the_byzantine_engine_whatever_happens() {
    let runs: Vec<(Scenario, u64)> = Scenario::ALL.iter().copied().zip(12_000..).collect();
    let reports = on_all_cores(&runs, |(scenario, seed)| {
        let config = SimConfig {
            scenario: Some(*scenario),
            consensus: Some(Engine::Bft),
            beacon: Some(Engine::Bft),
            reshapes: Some(2),
            comings: Some(8),
            shards: Some(2),
            replicas: Some(4),
            nodes: Some(7),
            transactions: Some(40),
            ..SimConfig::default()
        };
        run(*seed, &config)
    });
    reports.iter().for_each(assert_passed);
    let sum = |of: fn(&SimReport) -> u64| reports.iter().map(of).sum::<u64>();
    let (comings, seated) = (sum(|report| report.coverage.comings), sum(|report| report.coverage.reseated));
    assert!(comings >= runs.len() as u64, "{comings} commands about nodes in {} runs", runs.len());
    assert!(seated >= runs.len() as u64 / 2, "seats moved {seated} times in {} runs", runs.len());
}

/// Members of the beacon are drained, replaced and taken back while it goes over to the other engine and back: what is decided
/// about its seats comes before a switch, and whoever joins follows the engine that is in force by then.
#[test]
fn members_of_the_beacon_come_and_go_while_it_goes_over() {
    let seeds = (0..).map(|place: u64| 7_009 + 14 * place);
    let runs: Vec<(Scenario, u64)> = Scenario::ALL.iter().copied().zip(seeds).collect();
    let reports = on_all_cores(&runs, |(scenario, seed)| {
        let config = SimConfig {
            scenario: Some(*scenario),
            reshapes: Some(2),
            comings: Some(8),
            shards: Some(2),
            nodes: Some(8),
            transactions: Some(40),
            ..SimConfig::default()
        };
        run(*seed, &config)
    });
    reports.iter().for_each(assert_passed);
    let sum = |of: fn(&SimReport) -> u64| reports.iter().map(of).sum::<u64>();
    let (stints, seated) = (sum(|report| report.coverage.stints), sum(|report| report.coverage.reseated));
    assert!(stints >= 4 * runs.len() as u64, "replicas went over {stints} times in {} runs", runs.len());
    assert!(seated >= runs.len() as u64, "seats moved {seated} times in {} runs", runs.len());
}

/// Under every kind of trouble, beside shards that are cut and joined, under both engines of the beacon.
#[test]
fn seeds_follow_from_what_was_published_whatever_happens() {
    let beacons = [Engine::Raft, Engine::Bft];
    let runs: Vec<(Scenario, Engine, u64)> = Scenario::ALL
        .iter()
        .flat_map(|scenario| beacons.map(|beacon| (*scenario, beacon)))
        .zip(8_000..)
        .map(|((scenario, beacon), seed)| (scenario, beacon, seed))
        .collect();
    let reports = on_all_cores(&runs, |(scenario, beacon, seed)| {
        let config = SimConfig {
            scenario: Some(*scenario),
            beacon: Some(*beacon),
            epochs: Some(2),
            reshapes: Some(3),
            shards: Some(2),
            transactions: Some(40),
            ..SimConfig::default()
        };
        run(*seed, &config)
    });
    reports.iter().for_each(assert_passed);
    let sum = |of: fn(&SimReport) -> u64| reports.iter().map(of).sum::<u64>();
    let (epochs, withheld) = (sum(|report| report.coverage.epochs), sum(|report| report.coverage.withheld));
    assert!(epochs >= 2 * runs.len() as u64, "{epochs} epochs ended in {} runs", runs.len());
    assert!(withheld >= runs.len() as u64 / 2, "{withheld} members withheld in {} runs", runs.len());
}

/// A leader that says of its turn that it has only just begun, for longer than members bear.
#[test]
fn a_liar_that_hides_how_long_its_turn_lasts_does_not_lead_on() {
    let seeds: Vec<u64> = (6_000..6_012).collect();
    let config = SimConfig {
        scenario: Some(Scenario::Calm),
        consensus: Some(Engine::Bft),
        lie: Some(Lie::Lingerer),
        shards: Some(1),
        replicas: Some(4),
        nodes: Some(5),
        transactions: Some(20),
        safety_ms: Some(30_000),
        ..SimConfig::default()
    };
    let reports = on_all_cores(&seeds, |seed| run(*seed, &config));
    reports.iter().for_each(assert_passed);
    let refused = reports.iter().filter(|report| report.coverage.lies > 0 && report.coverage.later_rounds > 0);
    assert!(refused.count() > 0, "nobody has lied long enough to lose its turn");
}

/// More liars than a group outlives: two of four, and three of seven, split the others into halves that decide two values for one
/// entry. What comes of it, and who finds it without the simulator, which has all bytes:
///
/// - who is shown a ballot for the other half's value has a proof against whoever cast both, about that very entry;
/// - who hears a signature under another header than its own raises an alarm;
/// - the beacon, once it has both certificates, records that the group signed two headers at one height.
#[test]
fn too_many_liars_are_found_out_and_nobody_else_is() {
    let shapes = [(4, 5), (7, 9)];
    let scenarios = [Scenario::Calm, Scenario::Lossy, Scenario::Partitions];
    let of_each = || scenarios.into_iter().cycle().take(24);
    let runs: Vec<((u16, u32), Scenario, u64)> = shapes
        .into_iter()
        .flat_map(|shape| of_each().map(move |scenario| (shape, scenario)))
        .zip(4_000..)
        .map(|((shape, scenario), seed)| (shape, scenario, seed))
        .collect();
    let reports = on_all_cores(&runs, |((replicas, nodes), scenario, seed)| {
        let config = SimConfig {
            scenario: Some(*scenario),
            consensus: Some(Engine::Bft),
            shards: Some(1),
            replicas: Some(*replicas),
            nodes: Some(*nodes),
            transactions: Some(30),
            too_many: true,
            ..SimConfig::default()
        };
        run(*seed, &config)
    });
    for shape in shapes {
        let own = runs.iter().zip(&reports).filter(|((of, ..), _)| *of == shape);
        let found: Vec<Found> = own.map(|(_, report)| Found::judged(report)).collect();
        let some = |of: fn(&Found) -> bool| found.iter().any(of);
        assert!(some(|found| found.two_headers), "no conspiracy among {shape:?} has come to anything");
        // Each that can find something without the simulator has, in some run.
        assert!(some(|found| found.alarm), "{shape:?}: nobody has raised an alarm");
        assert!(some(|found| found.beacon), "{shape:?}: the beacon has recorded nothing");
        let proved = "members have voted twice for what was decided twice, and nobody has shown it";
        assert!(some(|found| found.proofs > 0), "{shape:?}: {proved}");
    }
}

/// What was found in a run in which more members lie than the group outlives, and by what.
struct Found {
    /// Entries for which two values were decided, each with its group, says the simulator, which has all bytes.
    harmed: BTreeSet<(String, u64)>,
    /// Two headers were certified at one height, says the simulator.
    two_headers: bool,
    /// An honest member has raised the alarm that another one signed another header.
    alarm: bool,
    /// The beacon has recorded two certified headers.
    beacon: bool,
    /// Proofs of a double vote for a harmed entry that honest members have.
    proofs: usize,
    /// Such proofs for other entries: somebody lies, but that is not what did harm.
    beside: usize,
}

impl Found {
    fn by(report: &SimReport) -> Self {
        let says = |text: &str| report.violations.iter().any(|found| found.contains(text));
        let two_values = |found: &String| {
            let (_, of) = found.split_once("have decided two values for entry ")?;
            let (entry, group) = of.split_once(" of ")?;
            Some((group.to_owned(), entry.parse::<u64>().ok()?))
        };
        let harmed: BTreeSet<(String, u64)> = report.violations.iter().filter_map(two_values).collect();
        let about_harm = |proof: &&Proved| harmed.contains(&(proof.group.clone(), proof.entry));
        let proofs = report.proofs.iter().filter(about_harm).count();
        Self {
            two_headers: says("two headers are certified at height"),
            alarm: says("signed another header than this replica"),
            beacon: says("signed two headers at one height"),
            beside: report.proofs.len() - proofs,
            proofs,
            harmed,
        }
    }

    /// What was found in a run, which is judged and told.
    fn judged(report: &SimReport) -> Self {
        let found = Self::by(report);
        println!("seed {} {}: {}", report.seed, report.scenario, found.text());
        found.judge(report);
        found
    }

    fn text(&self) -> String {
        let harm = match (self.harmed.is_empty(), self.two_headers) {
            (true, false) => "nothing came of it",
            (false, false) => "two values were decided",
            (_, true) => "two headers were certified",
        };
        let by = [(self.alarm, "an alarm"), (self.beacon, "the beacon"), (self.proofs > 0, "proofs of double votes")];
        let by: Vec<&str> = by.iter().filter(|(found, _)| *found).map(|(_, by)| *by).collect();
        let by = if by.is_empty() { "nobody".to_owned() } else { by.join(", ") };
        format!("{harm}; found by {by}; {} proofs about it, {} about other entries", self.proofs, self.beside)
    }

    /// What must hold in each run: harm is found out by somebody who is no simulator, and nobody finds what is not there. A proof
    /// about another entry than those that were decided twice is none of this harm.
    fn judge(&self, report: &SimReport) {
        let run = || format!("seed {}: {}: {:?}", report.seed, self.text(), report.violations);
        let harm = !self.harmed.is_empty();
        let said = report.violations.iter().any(|found| found.contains("decided two values"));
        assert_eq!(said, harm, "which entry it was is not read: {}", run());
        assert!(!self.two_headers || harm, "found where it begins: {}", run());
        assert!(!harm || self.alarm || self.beacon || self.proofs > 0, "nobody has noticed: {}", run());
        assert!(!self.beacon || self.two_headers, "the beacon has recorded what is not there: {}", run());
        let framed = report.violations.iter().find(|found| found.contains("which votes once"));
        assert_eq!(framed, None, "{}", run());
    }
}
