//! A proposal as the channel itself judges it: who has spoken, as far as it counts, what is left of its policy, who would
//! decide it, and what stands in the way of its change however many approve.

use channel::{Explanation, ProposalState, Refusal};
use serde::Serialize;

use super::names;
use super::words::{self, Standing};
use crate::args::InChannel;
use crate::commands::signer::{Orgs, Signer};
use crate::draft::words::and;
use crate::error::CliError;
use crate::output::{Output, foreign, moment};

/// Why a change could not come into force as things are.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Blocked {
    code: &'static str,
    cause: &'static str,
    fix: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl From<&Refusal> for Blocked {
    fn from(refusal: &Refusal) -> Self {
        let Refusal { reject, detail } = refusal;
        Self { code: reject.code(), cause: reject.cause(), fix: reject.fix(), detail: detail.clone() }
    }
}

/// A proposal, explained.
#[derive(Debug, Serialize)]
struct Explained {
    channel: String,
    name: String,
    /// The block whose state this is about.
    height: u64,
    proposal: String,
    change: String,
    subject: &'static str,
    proposer: String,
    proposed_height: u64,
    state: &'static str,
    until_ms: u64,
    /// The policy that decides, as it is now.
    policy: String,
    #[serde(flatten)]
    standing: Standing,
    /// Approvals that would together decide; none where none is missing or none can help.
    sufficient: Vec<String>,
    /// What stands in the way, however many approve.
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked: Option<Blocked>,
}

impl Explained {
    fn of(channel: String, name: String, said: &Explanation, orgs: &Orgs) -> Self {
        let proposal = &said.proposal;
        Self {
            channel,
            name,
            height: said.height.0,
            proposal: proposal.id.to_string(),
            change: words::change(&proposal.change, orgs),
            subject: proposal.change.subject().word(),
            proposer: orgs.name(proposal.proposer),
            proposed_height: proposal.height.0,
            state: words::state_word(said.state),
            until_ms: proposal.until_ms.0,
            policy: said.policy.text(&|org| orgs.known(org)),
            standing: Standing::of_explanation(said, orgs),
            sufficient: said.sufficient.iter().map(|one| words::elector(one, orgs)).collect(),
            blocked: said.blocked.as_ref().map(Blocked::from),
        }
    }
}

/// `channel explain`.
pub(super) async fn explain(on: &InChannel, text: &str, output: Output) -> Result<(), CliError> {
    let signer = Signer::of(&on.admin)?;
    let orgs = signer.orgs();
    let client = signer.reader().await?;
    let line = names::channel(&client, &on.channel).await?;
    let id = match names::whole_id(text) {
        Some(id) => id,
        None => names::proposal(&client.governance(line.group).await?, text)?.id,
    };
    let said = client.explain_proposal(line.group, &id).await?.ok_or_else(|| names::no_proposal(text))?;
    let explained = Explained::of(line.group.to_string(), line.name, &said, &orgs);
    output.result(&explained, || explained_text(&explained))
}

fn explained_text(said: &Explained) -> String {
    let nobody = |names: &[String]| if names.is_empty() { "nobody".to_owned() } else { and(names) };
    let open = said.state == words::state_word(ProposalState::Open);
    let mut lines = vec![
        format!("{} ({}), as of block {}", foreign(&said.name), said.channel, said.height),
        format!("  proposal {}", said.proposal),
        format!("  {}", said.change),
        format!(
            "  proposed by {} in block {}; {}{}",
            said.proposer,
            said.proposed_height,
            said.state,
            if open { format!(" until {}", moment(said.until_ms)) } else { String::new() }
        ),
        format!("  the policy of {} decides: {}", said.subject, said.policy),
        format!("  approved by {}, rejected by {}", nobody(&said.standing.approved), nobody(&said.standing.rejected)),
    ];
    if open {
        lines.push(format!("  {}", said.standing.needs));
        if !said.sufficient.is_empty() {
            lines.push(format!("  decided, for instance, by {}", and(&said.sufficient)));
        }
        lines.push(match &said.blocked {
            None => "  nothing stands in the way of the change".to_owned(),
            Some(Blocked { code, cause, fix, detail }) => {
                let detail = detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default();
                format!("  as things are it could not come into force: {code}: {cause}{detail}; {fix}")
            }
        });
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use channel::proposal::Proposal;
    use channel::{Change, ChannelReject, Elector, Policy, Role};
    use ledger::{Hash32, Height, OrgId, TimeMs};

    use super::*;

    fn orgs() -> Orgs {
        Orgs::named(&["org-a", "org-b", "org-c"])
    }

    fn admins(ids: &[u16]) -> Vec<Elector> {
        ids.iter().map(|id| Elector { org: OrgId(*id), role: Role::Admin }).collect()
    }

    /// A proposal to freeze, of three members of whom the majority decides, with what was said of it.
    fn said(state: ProposalState, sufficient: &[u16], blocked: Option<Refusal>) -> Explained {
        let proposal = Proposal {
            version: 1,
            id: Hash32([0x4f; 32]),
            change: Change::Freeze,
            base: 0,
            proposer: OrgId(1),
            height: Height(40),
            time_ms: TimeMs(1),
            until_ms: TimeMs(2),
            approvals: Vec::new(),
            rejections: Vec::new(),
            state,
        };
        let explanation = Explanation {
            version: channel::explain::EXPLANATION_VERSION,
            height: Height(42),
            time_ms: TimeMs(1),
            proposal,
            state,
            policy: Policy::parse("majority(members.admin)", &|name| orgs().by_name(name)).unwrap(),
            members: [1, 2, 3].map(OrgId).to_vec(),
            electors: admins(&[1, 2, 3]),
            approved: admins(&[1]),
            rejected: admins(&[3]),
            sufficient: admins(sufficient),
            blocked,
        };
        Explained::of("channel-0".to_owned(), "steel".to_owned(), &explanation, &orgs())
    }

    #[test]
    fn an_open_proposal_is_explained_line_by_line() {
        let text = explained_text(&said(ProposalState::Open, &[2], None));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "steel (channel-0), as of block 42");
        assert_eq!(lines[2], "  freeze the channel");
        assert!(lines[3].starts_with("  proposed by org-a in block 40; open until "), "{}", lines[3]);
        assert_eq!(
            lines[4..],
            [
                "  the policy of freeze decides: majority(members.admin)",
                "  approved by org-a, rejected by org-c",
                "  1 of 3 has approved; org-b is missing",
                "  decided, for instance, by org-b",
                "  nothing stands in the way of the change",
            ]
        );
    }

    #[test]
    fn what_stands_in_the_way_has_its_code_and_its_fix() {
        let refusal = Refusal::because(ChannelReject::QuorumLostNow, "2 of 3 seats");
        let explained = said(ProposalState::Open, &[2], Some(refusal));
        let told = serde_json::to_value(&explained).expect("it is JSON");
        assert_eq!(told["blocked"]["code"], "channel_quorum_lost");
        assert_eq!(told["missing"], serde_json::json!(["org-b"]));
        assert_eq!(told["blocked"]["detail"], "2 of 3 seats");
        let text = explained_text(&explained);
        let last = text.lines().last().unwrap_or_default();
        assert!(last.starts_with("  as things are it could not come into force: channel_quorum_lost: "), "{last}");
        assert!(last.contains(" (2 of 3 seats); ") && last.ends_with(ChannelReject::QuorumLostNow.fix()), "{last}");
    }

    #[test]
    fn of_an_ended_proposal_nothing_is_asked() {
        let text = explained_text(&said(ProposalState::Withdrawn, &[], None));
        assert!(text.contains("; withdrawn\n") && !text.contains("missing") && !text.contains("stands"), "{text}");
    }
}
