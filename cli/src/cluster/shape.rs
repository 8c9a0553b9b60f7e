//! From the options of a new cluster to its specification.

use std::collections::BTreeMap;

use ledger::Engine;
use ledger::genesis::Genesis;
use ledger::ids::GroupId;

use crate::args::Shape;
use crate::error::CliError;
use crate::setup::{Addresses, ClusterSpec, policies};

const NODES: u32 = 5;
const SHARDS: u32 = 4;
const REPLICAS: u16 = 3;
const ORGS: u16 = 3;
/// Nodes, organisations and replicas of a cluster that is to outlive one member that lies.
const OF_BFT: u16 = 4;

/// The specification of a new cluster. Without a number for them, there are never more replicas or
/// organisations than nodes.
#[must_use]
pub fn spec(shape: &Shape, addresses: Addresses) -> ClusterSpec {
    let engine: Engine = shape.consensus.map_or(Engine::Raft, Into::into);
    let of_engine = |raft: u16| match engine {
        Engine::Raft => raft,
        Engine::Bft => OF_BFT,
    };
    let nodes = shape.nodes.unwrap_or(match engine {
        Engine::Raft => NODES,
        Engine::Bft => OF_BFT.into(),
    });
    let at_most_nodes = |number: u16| u16::try_from(nodes).map_or(number, |nodes| number.min(nodes.max(1)));
    ClusterSpec {
        nodes,
        orgs: shape.orgs.unwrap_or_else(|| at_most_nodes(of_engine(ORGS))),
        shards: shape.shards.unwrap_or(SHARDS),
        replicas: shape.replicas.unwrap_or_else(|| at_most_nodes(of_engine(REPLICAS))),
        engine,
        beacon_engine: shape.beacon_consensus.map(Into::into),
        verify: shape.verify.map(Into::into),
        policies: shape.policy_for.clone(),
        addresses,
        ..ClusterSpec::default()
    }
}

/// Refuses options that contradict a cluster that is there already.
///
/// # Errors
/// `cluster_shape` names the first that differs.
pub fn check_resumed(shape: &Shape, genesis: &Genesis) -> Result<(), CliError> {
    let shards = genesis.layout.shards.len() as u64;
    let replicas = replicas_of(genesis);
    let checks = [
        ("nodes", shape.nodes.map(u64::from), genesis.nodes.len() as u64),
        ("orgs", shape.orgs.map(u64::from), genesis.orgs.len() as u64),
        ("shards", shape.shards.map(u64::from), shards),
        ("replicas", shape.replicas.map(u64::from), replicas),
    ];
    let differs = |option: &str, asked: String, found: String| {
        let cause = format!("the folder holds a cluster with {option} {found}, and {option} {asked} is asked for");
        Err(CliError::new(
            "cluster_shape",
            cause,
            format!("leave --{option} out to resume it, or name another folder with --dir"),
        ))
    };
    for (option, asked, found) in checks {
        if let Some(asked) = asked.filter(|asked| *asked != found) {
            return differs(option, asked.to_string(), found.to_string());
        }
    }
    let engines = [
        ("consensus", shape.consensus, engine_of(genesis)),
        ("beacon-consensus", shape.beacon_consensus, engine_of_group(genesis, GroupId::BEACON)),
    ];
    for (option, asked, found) in engines {
        if let Some(asked) = asked.map(Engine::from).filter(|asked| *asked != found) {
            return differs(option, asked.to_string(), found.to_string());
        }
    }
    let policies = policies::stated(&shape.policy_for)?;
    if !policies.is_empty() && policies != genesis.policies {
        let written = |policies: &BTreeMap<String, String>| {
            let all: Vec<String> = policies.iter().map(|(matter, policy)| format!("{matter}={policy}")).collect();
            if all.is_empty() { "majority".to_owned() } else { all.join(" ") }
        };
        return differs("policy-for", written(&policies), written(&genesis.policies));
    }
    match shape.verify.map(ledger::genesis::VerifyMode::from) {
        Some(asked) if asked != genesis.verify => {
            differs("verify", verify_name(asked).to_owned(), verify_name(genesis.verify).to_owned())
        }
        _ => Ok(()),
    }
}

/// What ordered the shards when the cluster was made.
#[must_use]
pub fn engine_of(genesis: &Genesis) -> Engine {
    genesis.layout.shards.first().map_or(Engine::Raft, |shard| engine_of_group(genesis, shard.group))
}

fn engine_of_group(genesis: &Genesis, group: GroupId) -> Engine {
    genesis.committee(group).map_or(Engine::Raft, |committee| committee.engine)
}

/// Replicas of the smallest shard.
#[must_use]
pub fn replicas_of(genesis: &Genesis) -> u64 {
    let of = |shard: &ledger::ShardRange| {
        genesis.committee(shard.group).map_or(0, |committee| committee.members.len() as u64)
    };
    genesis.layout.shards.iter().map(of).min().unwrap_or(0)
}

/// `ingest` or `every`.
#[must_use]
pub fn verify_name(mode: ledger::genesis::VerifyMode) -> &'static str {
    match mode {
        ledger::genesis::VerifyMode::Ingest => "ingest",
        ledger::genesis::VerifyMode::Every => "every",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::ConsensusArg;
    use crate::setup::make_cluster;

    #[test]
    fn defaults_fit_small_clusters() {
        let default = spec(&Shape::default(), Addresses::Free);
        assert_eq!((default.nodes, default.shards, default.replicas, default.orgs), (5, 4, 3, 3));
        let one = spec(&Shape { nodes: Some(1), ..Shape::default() }, Addresses::Free);
        assert_eq!((one.nodes, one.replicas, one.orgs), (1, 1, 1));
        let asked = spec(&Shape { nodes: Some(2), replicas: Some(3), ..Shape::default() }, Addresses::Free);
        assert_eq!(asked.replicas, 3, "what is asked for is refused later, not changed");
        let bft = Shape { consensus: Some(ConsensusArg::Bft), ..Shape::default() };
        let spec_of = |shape: Shape| spec(&shape, Addresses::Free);
        let four = spec_of(bft.clone());
        assert_eq!((four.nodes, four.shards, four.replicas, four.orgs), (4, 4, 4, 4));
        assert_eq!((four.engine, four.beacon_engine), (Engine::Bft, None));
        let few = spec_of(Shape { nodes: Some(3), ..bft });
        assert_eq!(make_cluster(&few).unwrap_err().code(), "spec_engine", "never silently of the other engine");
    }

    #[test]
    fn a_resumed_cluster_keeps_its_shape() {
        let shape = Shape { nodes: Some(3), shards: Some(2), ..Shape::default() };
        let made = make_cluster(&spec(&shape, Addresses::Free)).unwrap();
        assert!(check_resumed(&shape, &made.genesis).is_ok());
        assert!(check_resumed(&Shape::default(), &made.genesis).is_ok());
        let other = Shape { shards: Some(3), ..Shape::default() };
        let error = check_resumed(&other, &made.genesis).unwrap_err();
        assert_eq!(error.code, "cluster_shape");
        assert!(error.cause.contains("shards 2") && error.fix.contains("--shards"), "{error}");
        assert_eq!(replicas_of(&made.genesis), 3);
        let other = Shape { verify: Some(crate::args::Verify::Ingest), ..Shape::default() };
        assert!(check_resumed(&other, &made.genesis).is_err());
        let same = Shape { consensus: Some(ConsensusArg::Raft), ..Shape::default() };
        assert!(check_resumed(&same, &made.genesis).is_ok());
        let error =
            check_resumed(&Shape { policy_for: vec!["orgs=all".to_owned()], ..Shape::default() }, &made.genesis);
        assert!(error.unwrap_err().cause.contains("orgs=all(members.admin)"));
        for (consensus, beacon_consensus) in [(Some(ConsensusArg::Bft), None), (None, Some(ConsensusArg::Bft))] {
            let error = check_resumed(&Shape { consensus, beacon_consensus, ..Shape::default() }, &made.genesis);
            assert_eq!(error.unwrap_err().code, "cluster_shape");
        }
    }
}
