//! Who is accused of voting twice, by which proof, and what becomes of its seats: as the beacon's state has it, whoever
//! has restarted meanwhile. For `status` and `evidence ls`.

use beacon::accused::Hindrance;
use beacon::{Accusation, Accused, Removal};
use client::{Client, Consistency};
use serde::Serialize;

use crate::error::CliError;
use crate::output::{moment, table};

/// Digits of a proof's id that people are shown.
const ID_DIGITS_SHOWN: usize = 12;

/// A node that is accused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct AccusedLine {
    node: u32,
    org: u16,
    /// The group that it voted twice in.
    group: String,
    /// Id of the proof, which the beacon keeps.
    evidence: String,
    /// The beacon's block that took it.
    height: u64,
    since_ms: u64,
    /// The seats that it still has; empty when all have moved.
    seats: Vec<SeatLine>,
}

/// A seat that an accused node is to lose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct SeatLine {
    group: String,
    /// The committee without the node is being prepared.
    moving: bool,
    /// What stands in the way, for programs: `change` or `no_node`.
    #[serde(skip_serializing_if = "Option::is_none")]
    hindrance: Option<&'static str>,
    /// And for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    because: Option<&'static str>,
}

impl SeatLine {
    fn of(removal: &Removal) -> Self {
        Self {
            group: removal.group.to_string(),
            moving: removal.hindrance.is_none(),
            hindrance: removal.hindrance.map(Hindrance::name),
            because: removal.hindrance.map(Hindrance::text),
        }
    }

    fn text(&self) -> String {
        match self.because {
            None => format!("its seat in {} is being given to others", self.group),
            Some(because) => format!("it keeps its seat in {}: {because}", self.group),
        }
    }
}

impl AccusedLine {
    fn of(accusation: &Accusation, removals: &[Removal]) -> Self {
        let own = removals.iter().filter(|removal| removal.node == accusation.node);
        Self {
            node: accusation.node.0,
            org: accusation.org.0,
            group: accusation.group.to_string(),
            evidence: accusation.evidence.to_string(),
            height: accusation.height.0,
            since_ms: accusation.time_ms.0,
            seats: own.map(SeatLine::of).collect(),
        }
    }

    fn short(&self) -> &str {
        self.evidence.get(..ID_DIGITS_SHOWN).unwrap_or(&self.evidence)
    }

    /// What is wrong as long as it has a seat.
    fn problems(&self) -> impl Iterator<Item = String> {
        self.seats.iter().map(|seat| {
            let (node, group, evidence) = (self.node, &self.group, self.short());
            format!("node {node} has voted twice in {group} (evidence {evidence}); {}", seat.text())
        })
    }
}

/// Who is accused, from a replica of the beacon that is as fresh as this.
pub(super) async fn accused(client: &Client, consistency: Consistency) -> Result<Vec<AccusedLine>, CliError> {
    let found: Accused = client.accused(consistency).await?;
    Ok(lines(&found))
}

fn lines(found: &Accused) -> Vec<AccusedLine> {
    found.accusations.iter().map(|accusation| AccusedLine::of(accusation, &found.removals)).collect()
}

/// What is wrong because of them: one line for each seat that an accused node still has.
pub(super) fn problems(accused: &[AccusedLine]) -> Vec<String> {
    accused.iter().flat_map(AccusedLine::problems).collect()
}

/// A table for people; nothing when nobody is accused.
pub(super) fn accused_table(accused: &[AccusedLine]) -> Option<String> {
    let rows = accused.iter().map(|line| {
        let seats = match line.seats.is_empty() {
            true => "it has no seat any more".to_owned(),
            false => line.seats.iter().map(SeatLine::text).collect::<Vec<_>>().join("\n"),
        };
        [format!("node-{}", line.node), line.group.clone(), line.short().to_owned(), moment(line.since_ms), seats]
    });
    (!accused.is_empty()).then(|| table(["accused", "voted twice in", "evidence", "since", "its seats"], rows))
}

#[cfg(test)]
mod tests {
    use beacon::accused::{ACCUSATION_VERSION, ACCUSED_VERSION};
    use ledger::{GroupId, Hash32, Height, NodeId, OrgId, TimeMs};
    use serde_json::Value;

    use super::*;

    fn accusation(node: u32) -> Accusation {
        Accusation {
            version: ACCUSATION_VERSION,
            node: NodeId(node),
            org: OrgId(2),
            group: GroupId::shard(1),
            evidence: Hash32([0xab; 32]),
            height: Height(7),
            time_ms: TimeMs(8),
        }
    }

    #[test]
    fn who_is_accused_is_a_problem_for_each_seat_that_it_has() {
        let seat = |node, group, hindrance| Removal { node: NodeId(node), group, hindrance };
        let found = Accused {
            version: ACCUSED_VERSION,
            accusations: vec![accusation(3), accusation(5)],
            removals: vec![
                seat(3, GroupId::BEACON, Some(Hindrance::Change)),
                seat(3, GroupId::shard(1), None),
                seat(3, GroupId::shard(2), Some(Hindrance::NoNode)),
            ],
        };
        let lines = lines(&found);
        let told = problems(&lines);
        let expected = [
            "node 3 has voted twice in shard-1 (evidence abababababab); it keeps its seat in beacon: another change",
            "node 3 has voted twice in shard-1 (evidence abababababab); its seat in shard-1 is being given to others",
            "node 3 has voted twice in shard-1 (evidence abababababab); it keeps its seat in shard-2: no other node",
        ];
        assert_eq!(told.len(), expected.len(), "node 5 has none: {told:?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.starts_with(expected), "{told}");
        }
        let shown = accused_table(&lines).unwrap();
        for part in ["node-3", "node-5", "abababababab", "it has no seat any more", "is being given to others"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        let json = serde_json::to_value(&lines[0]).unwrap();
        assert_eq!(json["seats"][0]["hindrance"], Value::from("change"));
        assert_eq!(json["seats"][1]["moving"], Value::from(true));
        assert_eq!(accused_table(&[]), None);
    }
}
