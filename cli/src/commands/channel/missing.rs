//! What is still missing behind a command to a channel, in sentences: what comes by itself and where that is seen, and
//! what somebody has to do. Pure.
//!
//! It is said of what the command came to, and not looked up: it was just executed, and nothing of it has had time to come.

use channel::{Change, Command, Outcome, Phase, ProposalState};

use crate::commands::signer::Orgs;
use crate::output::moment;

/// What a command was about.
pub(super) struct Behind<'a> {
    /// The channel's name.
    pub(super) name: &'a str,
    /// The organisation that signed.
    pub(super) org: &'a str,
    /// What it signed.
    pub(super) command: &'a Command,
    /// What the proposal would change, where the command is about one that could be read.
    pub(super) change: Option<&'a Change>,
    /// What the proposal needs, where it could be read.
    pub(super) needs: Option<String>,
}

impl Behind<'_> {
    /// What is missing; nothing where all of it is so now.
    pub(super) fn missing(&self, outcome: &Outcome, orgs: &Orgs) -> Vec<String> {
        let name = self.name;
        match outcome {
            Outcome::Proposal { state: ProposalState::Open, .. } => {
                let others = || format!("others have to approve: see 'seamark channel proposals {name}'");
                vec![self.needs.clone().unwrap_or_else(others)]
            }
            Outcome::Proposal { state: ProposalState::Applied, .. } => {
                self.change.map(|change| self.behind(change, orgs)).unwrap_or_default()
            }
            // It has ended, and what it would change is as it was.
            Outcome::Proposal { .. } => Vec::new(),
            Outcome::Joined { .. } => vec![
                "its nodes have neither state nor seat yet: each fetches a snapshot, and has its seat with the committee \
                 after that"
                    .to_owned(),
                self.seats(),
            ],
            Outcome::Left { .. } => vec![
                format!(
                    "the nodes of {} have their seats until the next committee, and get nothing more; each of their \
                     copies goes with the seat, and the local key before it",
                    self.org
                ),
                self.seats(),
            ],
            Outcome::Done => match self.command {
                Command::SetNodes { .. } => vec![
                    "nodes that are new have neither state nor seat yet: each fetches a snapshot first; those that are \
                     left out have their seats, and their copies, until the next committee"
                        .to_owned(),
                    self.seats(),
                ],
                Command::Propose { .. }
                | Command::Approve { .. }
                | Command::Reject { .. }
                | Command::Withdraw { .. }
                | Command::Settle { .. }
                | Command::Join { .. }
                | Command::Decline
                | Command::Leave
                | Command::AddKey { .. }
                | Command::RotateKey { .. }
                | Command::RevokeKey { .. }
                | Command::RevokeCertificate { .. }
                | Command::FinishClose
                | Command::Open { .. } => Vec::new(),
            },
            Outcome::Phase(Phase::Closing) => self.closing(),
            Outcome::Phase(_) => Vec::new(),
        }
    }

    /// Behind a change that is in force.
    fn behind(&self, change: &Change, orgs: &Orgs) -> Vec<String> {
        let name = self.name;
        match change {
            Change::Invite { org, until_ms } => {
                let (org, until) = (orgs.name(*org), moment(until_ms.0));
                vec![format!("{org} has to join until {until}: 'seamark channel join {name} --as {org}'")]
            }
            Change::Remove { org } => {
                let org = orgs.name(*org);
                vec![
                    format!(
                        "the nodes of {org} have their seats until the next committee, and get nothing more; what \
                         proves the removal: 'seamark channel receipt {name} {org} --as {}'",
                        self.org
                    ),
                    self.seats(),
                ]
            }
            Change::Close => self.closing(),
            Change::Anchors { .. } => {
                vec!["other groups go by these anchors when the beacon has told them, a moment later".to_owned()]
            }
            Change::Engine { engine } => {
                vec![format!("it goes on under {engine} when the beacon has prepared the committee"), self.seats()]
            }
            Change::Policy { .. }
            | Change::Freeze
            | Change::Thaw
            | Change::PermitAsset { .. }
            | Change::GrantAudit(_)
            | Change::RevokeAudit { .. }
            | Change::RevokeKey { .. } => Vec::new(),
        }
    }

    fn seats(&self) -> String {
        format!("seats and heights: 'seamark channel status {}'", self.name)
    }

    fn closing(&self) -> Vec<String> {
        vec![
            "it is closing, and not closed: it takes nothing new, and finishes what is under way; undecided transactions \
             of several groups, and mail that was not taken yet, hold it"
                .to_owned(),
            format!("then a member has to end it: 'seamark channel finish-close {} --as {}'", self.name, self.org),
        ]
    }
}

#[cfg(test)]
mod tests {
    use channel::Subject;
    use ledger::{Engine, Hash32, Height, NodeId, OrgId, TimeMs};

    use super::*;

    fn said(command: &Command, outcome: &Outcome, change: Option<&Change>, needs: Option<&str>) -> String {
        let needs = needs.map(str::to_owned);
        let behind = Behind { name: "steel", org: "org-a", command, change, needs };
        behind.missing(outcome, &Orgs::named(&["org-a", "org-b"])).join("; ")
    }

    #[test]
    fn what_is_missing_behind_a_change_is_said_with_the_command_that_brings_it() {
        let approve = Command::Approve { proposal: Hash32([1; 32]) };
        let applied = Outcome::Proposal { id: Hash32([1; 32]), state: ProposalState::Applied };
        let policy = channel::Policy::one(OrgId(1), channel::Role::Admin);
        for (change, parts) in [
            (
                Change::Invite { org: OrgId(2), until_ms: TimeMs(0) },
                &["org-b has to join until 1970-01-01", "'seamark channel join steel --as org-b'"][..],
            ),
            (
                Change::Remove { org: OrgId(2) },
                &["the nodes of org-b", "channel receipt steel org-b --as org-a'", "channel status steel'"],
            ),
            (Change::Close, &["not closed", "mail", "'seamark channel finish-close steel --as org-a'"]),
            (Change::Anchors { org: OrgId(1), nodes: Vec::new() }, &["the beacon has told them"]),
            (Change::Engine { engine: Engine::Bft }, &["when the beacon has prepared", "channel status steel'"]),
            (Change::Freeze, &[]),
            (Change::Policy { subject: Subject::Freeze, policy }, &[]),
        ] {
            let text = said(&approve, &applied, Some(&change), None);
            assert_eq!(text.is_empty(), parts.is_empty(), "{change:?}: {text}");
            for part in parts {
                assert!(text.contains(part), "{change:?}: {text}");
            }
        }
    }

    #[test]
    fn what_is_missing_behind_an_act_is_said_too() {
        let height = Height(7);
        let (join, nodes) = (Command::Join { nodes: vec![NodeId(3)] }, Command::SetNodes { nodes: vec![NodeId(3)] });
        for (command, outcome, part) in [
            (&join, Outcome::Joined { height }, "neither state nor seat yet"),
            (&Command::Leave, Outcome::Left { height }, "the local key before it"),
            (&nodes, Outcome::Done, "nodes that are new have neither state nor seat yet"),
            (&Command::FinishClose, Outcome::Phase(Phase::Closing), "finish-close steel"),
        ] {
            let text = said(command, &outcome, None, None);
            assert!(text.contains(part), "{command:?}: {text}");
        }
        for outcome in [Outcome::Done, Outcome::Phase(Phase::Closed)] {
            assert_eq!(said(&Command::FinishClose, &outcome, None, None), "");
        }
    }

    #[test]
    fn an_open_proposal_needs_what_its_policy_needs() {
        let command = Command::Propose { change: Change::Freeze, until_ms: TimeMs(9) };
        let at = |state| Outcome::Proposal { id: Hash32([1; 32]), state };
        assert_eq!(said(&command, &at(ProposalState::Open), None, Some("org-b is missing")), "org-b is missing");
        let unread = said(&command, &at(ProposalState::Open), None, None);
        assert!(unread.contains("channel proposals steel"), "{unread}");
        let change = Change::Close;
        for state in [ProposalState::Rejected, ProposalState::Withdrawn, ProposalState::Expired] {
            assert_eq!(said(&command, &at(state), Some(&change), None), "");
        }
    }
}
