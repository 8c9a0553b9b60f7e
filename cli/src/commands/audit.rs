//! `audit`: what the beacon knows of the chains of all groups, as a table and as a file, and how one gets out of
//! quarantine.

use beacon::audit::quarantine::{Held, Quarantine};
use beacon::audit::report::{AuditReport, ReportError};
use beacon::audit::{DivergentMark, Finding};
use beacon::limits::AUDIT_REPORT_BYTES_MAX;
use beacon::{AuditStatus, BeaconCommand};
use client::profile::read_genesis;
use ledger::{GroupId, NodeId};
use serde::Serialize;

use super::beacon::send;
use super::context::Context;
use super::signer::Signer;
use crate::args::{Audit, VerifyFile};
use crate::error::CliError;
use crate::output::{Output, table};

/// What is shown of one group.
#[derive(Serialize)]
struct GroupLine {
    group: String,
    /// `sound`, `quarantined`, or `waiting` before its first headers came.
    state: &'static str,
    /// The last block that it showed a certificate of.
    checkpoint: Option<u64>,
    /// The last block that is audited.
    audited: Option<u64>,
    audited_ms: Option<u64>,
    /// The last block at which nothing was in flight, so that its flows were compared with those of its peers.
    compared: Option<u64>,
}

#[derive(Serialize)]
struct TransitLine {
    from: String,
    to: String,
    asset: String,
    /// Decimal, modulo 2^128.
    exported: String,
    imported: String,
}

#[derive(Serialize)]
struct FindingLine {
    group: String,
    height: u64,
    flaw: &'static str,
    text: String,
    beacon_height: u64,
    time_ms: u64,
}

#[derive(Serialize)]
struct HeldLine {
    group: String,
    /// The node of the replica that diverges; the group itself without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<u32>,
    height: u64,
    proof: String,
    beacon_height: u64,
    time_ms: u64,
    /// What is said of blocks up to here counts no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    released_upto: Option<u64>,
}

#[derive(Serialize)]
struct Shown {
    sound: bool,
    groups: Vec<GroupLine>,
    in_flight: Vec<TransitLine>,
    findings: Vec<FindingLine>,
    quarantines: Vec<HeldLine>,
    divergent: Vec<HeldLine>,
}

impl Shown {
    fn of(status: &AuditStatus) -> Self {
        let held = |group: GroupId| status.quarantines.iter().any(|mark| mark.group == group && mark.holds());
        let groups = status.groups.iter().map(|state| GroupLine {
            group: state.group.to_string(),
            state: match state.audited {
                _ if held(state.group) => "quarantined",
                Some(_) => "sound",
                None => "waiting",
            },
            checkpoint: state.checkpoint.map(|checkpoint| checkpoint.height.0),
            audited: state.audited.map(|audit| audit.height.0),
            audited_ms: state.audited.map(|audit| audit.time_ms.0),
            compared: state.audited.and_then(|audit| audit.compared).map(|height| height.0),
        });
        let transits = status.transits.iter().map(|transit| TransitLine {
            from: transit.from.to_string(),
            to: transit.to.to_string(),
            asset: transit.asset.to_string(),
            exported: transit.exported.to_string(),
            imported: transit.imported.to_string(),
        });
        let finding = |found: &Finding| FindingLine {
            group: found.group.to_string(),
            height: found.height.0,
            flaw: found.flaw.name(),
            text: found.flaw.text(),
            beacon_height: found.taken.0,
            time_ms: found.time_ms.0,
        };
        let quarantine = |mark: &Quarantine| HeldLine {
            group: mark.group.to_string(),
            node: None,
            height: mark.height.0,
            proof: mark.proof.to_string(),
            beacon_height: mark.taken.0,
            time_ms: mark.time_ms.0,
            released_upto: mark.released.map(|height| height.0),
        };
        let divergent = |mark: &DivergentMark| HeldLine {
            group: mark.group.to_string(),
            node: Some(mark.node.0),
            height: mark.height.0,
            proof: mark.proof.to_string(),
            beacon_height: mark.taken.0,
            time_ms: mark.time_ms.0,
            released_upto: mark.released.map(|height| height.0),
        };
        Self {
            sound: status.sound(),
            groups: groups.collect(),
            in_flight: transits.collect(),
            findings: status.findings.iter().map(finding).collect(),
            quarantines: status.quarantines.iter().map(quarantine).collect(),
            divergent: status.divergent.iter().map(divergent).collect(),
        }
    }

    fn text(&self) -> String {
        let number = |height: Option<u64>| height.map_or_else(|| "-".to_owned(), |height| height.to_string());
        let rows = self.groups.iter().map(|line| {
            let state = line.state.to_owned();
            [line.group.clone(), state, number(line.checkpoint), number(line.audited), number(line.compared)]
        });
        let mut text = table(["group", "state", "checkpoint", "audited up to", "flows compared at"], rows);
        if !self.in_flight.is_empty() {
            let rows = self.in_flight.iter().map(|line| {
                [line.from.clone(), line.to.clone(), line.asset.clone(), line.exported.clone(), line.imported.clone()]
            });
            let shown = table(["from", "to", "asset", "given", "got"], rows);
            text.push_str(&format!("\non its way, or audited on one side only\n{shown}"));
        }
        for line in &self.findings {
            text.push_str(&format!("\nfound in {} at height {}: {}", line.group, line.height, line.text));
        }
        for line in self.quarantines.iter().chain(&self.divergent) {
            let whom = line.node.map_or_else(|| line.group.clone(), |node| format!("node {node} in {}", line.group));
            let state = match line.released_upto {
                None => format!("is held since block {} of the beacon", line.beacon_height),
                Some(upto) => format!("was released; blocks up to {upto} count no more"),
            };
            text.push_str(&format!("\n{whom} {state}, for its height {}\n  proof {}", line.height, line.proof));
        }
        text
    }
}

#[derive(Serialize)]
struct Written {
    file: String,
    sound: bool,
    proofs: usize,
}

#[derive(Serialize)]
struct ProofLine {
    id: String,
    kind: &'static str,
    group: String,
    /// The committee that certified stands in the genesis; else it is the one that the report names.
    committee_of_genesis: bool,
}

#[derive(Serialize)]
struct Judged {
    valid: bool,
    cluster: String,
    proofs: Vec<ProofLine>,
    /// The word of the beacon that was asked.
    said: Shown,
}

pub(super) async fn run(args: Audit, output: Output) -> Result<(), CliError> {
    match args {
        Audit::Status { target } => {
            let status: AuditStatus = Context::new(&target)?.client().await?.audit(false).await?;
            let shown = Shown::of(&status);
            output.result(&shown, || shown.text())?;
            if shown.sound { Ok(()) } else { Err(unsound().after_report()) }
        }
        Audit::Report { target, out } => {
            let report: AuditReport = Context::new(&target)?.client().await?.audit(true).await?;
            std::fs::write(&out, report.to_file()).map_err(|error| CliError::file(&out, &error))?;
            let (sound, proofs) = (report.status.sound(), report.proofs.len());
            let written = Written { file: out.display().to_string(), sound, proofs };
            output.result(&written, || {
                let word = if written.sound { "all is sound" } else { "not all is sound" };
                format!(
                    "{word}; {} proofs\n  written to {}; 'seamark audit verify' judges it offline",
                    written.proofs, written.file
                )
            })
        }
        Audit::Verify(file) => verify(&file, output),
        Audit::Release { admin, group, node, within } => {
            let held = Held { group: group_of(&group)?, node: node.map(NodeId) };
            let command = BeaconCommand::ReleaseQuarantine(held);
            send(&Signer::of(&admin)?, None, command, within, output).await
        }
    }
}

fn unsound() -> CliError {
    let fix = "write a report with 'seamark audit report', look into it, then 'seamark audit release'";
    CliError::new("audit_unsound", "the audit has found something, or somebody is in quarantine", fix)
}

fn group_of(text: &str) -> Result<GroupId, CliError> {
    text.parse().map_err(|_| {
        let cause = format!("'{text}' is no group");
        CliError::usage("group", cause, "name it as shard-0 or channel-0")
    })
}

fn refused(error: &ReportError) -> CliError {
    CliError::from_message(error.code(), error)
}

fn verify(args: &VerifyFile, output: Output) -> Result<(), CliError> {
    let genesis = match &args.genesis {
        Some(path) => path.clone(),
        None => crate::setup::ClusterDir::at(Context::new(&args.target)?.dir()).genesis_path(),
    };
    let genesis = read_genesis(&genesis)?;
    let length = std::fs::metadata(&args.file).map_err(|error| CliError::file(&args.file, &error))?.len();
    if length > 2 * AUDIT_REPORT_BYTES_MAX as u64 {
        return Err(refused(&ReportError::Malformed("it is too large".to_owned())));
    }
    let bytes = std::fs::read(&args.file).map_err(|error| CliError::file(&args.file, &error))?;
    let report = AuditReport::from_file(&bytes).map_err(|error| refused(&error))?;
    let proofs = report.verify(&genesis).map_err(|error| refused(&error))?;
    let judged = Judged {
        valid: true,
        cluster: report.cluster.to_string(),
        proofs: proofs
            .iter()
            .map(|shown| ProofLine {
                id: shown.id.to_string(),
                kind: shown.kind,
                group: shown.group.to_string(),
                committee_of_genesis: shown.of_genesis,
            })
            .collect(),
        said: Shown::of(&report.status),
    };
    output.result(&judged, || {
        let mut text = format!("all {} proofs in the report hold", judged.proofs.len());
        for line in &judged.proofs {
            let whose =
                if line.committee_of_genesis { "its committee of the genesis" } else { "the committee it names" };
            text.push_str(&format!("\n  {} of {}, by {whose}: {}", line.kind, line.group, line.id));
        }
        format!("{text}\nthe beacon's word, which the file does not prove:\n{}", judged.said.text())
    })
}

#[cfg(test)]
mod tests {
    use beacon::audit::AUDIT_VERSION;
    use beacon::audit::Flaw;
    use beacon::audit::status::GroupState;
    use ledger::{AssetId, Hash32, Height, TimeMs};

    use super::*;

    fn status() -> AuditStatus {
        let state = |group| GroupState { group, checkpoint: None, audited: None };
        AuditStatus {
            version: AUDIT_VERSION,
            groups: vec![state(GroupId::shard(0)), state(GroupId::shard(1))],
            transits: Vec::new(),
            findings: Vec::new(),
            quarantines: Vec::new(),
            divergent: Vec::new(),
        }
    }

    #[test]
    fn what_was_found_and_who_is_held_is_told() {
        let calm = Shown::of(&status());
        assert!(calm.sound && calm.groups.iter().all(|line| line.state == "waiting"));
        let mut held = status();
        held.quarantines = vec![Quarantine {
            version: AUDIT_VERSION,
            group: GroupId::shard(0),
            height: Height(7),
            proof: Hash32([4; 32]),
            taken: Height(9),
            time_ms: TimeMs(1),
            released: None,
        }];
        let asset = AssetId([1; 16]);
        held.findings = vec![Finding {
            version: AUDIT_VERSION,
            number: 0,
            group: GroupId::shard(0),
            height: Height(7),
            flaw: Flaw::FlowsDiffer { peer: GroupId::shard(1), asset, exported: 5, imported: 6 },
            taken: Height(9),
            time_ms: TimeMs(1),
        }];
        let shown = Shown::of(&held);
        assert!(!shown.sound);
        assert_eq!(shown.groups.iter().map(|line| line.state).collect::<Vec<_>>(), ["quarantined", "waiting"]);
        let text = shown.text();
        for part in ["shard-0 is held since block 9", "it has given 5 of asset", "which has 6 from it"] {
            assert!(text.contains(part), "{text}");
        }
        held.quarantines[0].released = Some(Height(8));
        assert!(Shown::of(&held).text().contains("blocks up to 8 count no more"));
    }

    #[test]
    fn a_group_is_named_as_everywhere() {
        assert_eq!(group_of("shard-1"), Ok(GroupId::shard(1)));
        assert_eq!(group_of("one").unwrap_err().code, "group");
    }
}
