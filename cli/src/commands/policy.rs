//! `beacon policy`: who has to approve what in the cluster, what waits for approvals about organisations and policies, and
//! another policy for a matter.

use beacon::policies::book::{Asked, Waiting};
use beacon::{BeaconCommand, Matter, PolicyBook, PolicyChange};
use channel::Policy;
use ledger::OrgId;
use serde::Serialize;

use super::context::Context;
use crate::error::CliError;
use crate::output::{Output, moment, table};
use crate::setup::policies::whole;

#[derive(Serialize)]
struct Shown {
    matters: Vec<MatterLine>,
    /// About organisations and policies.
    waiting: Vec<WaitingLine>,
}

#[derive(Serialize)]
struct MatterLine {
    matter: &'static str,
    policy: String,
    revision: u64,
}

#[derive(Serialize)]
struct WaitingLine {
    /// `admit`, `remove` or `policy`.
    asks: &'static str,
    text: String,
    until_ms: u64,
    approvals: Vec<String>,
    /// Whose approvals would decide it now; none where any further one does.
    enough: Vec<String>,
}

fn name(book: &PolicyBook, id: OrgId) -> Option<String> {
    book.orgs.iter().find(|(org, _)| *org == id).map(|(_, name)| name.clone())
}

fn names(book: &PolicyBook, orgs: &[OrgId]) -> Vec<String> {
    orgs.iter().map(|org| name(book, *org).unwrap_or_else(|| org.to_string())).collect()
}

fn written(book: &PolicyBook, policy: &Policy) -> String {
    policy.text(&|org| name(book, org))
}

impl Shown {
    fn of(book: &PolicyBook) -> Self {
        let matters = book.ruled.iter().map(|(matter, ruled)| MatterLine {
            matter: matter.word(),
            policy: written(book, &ruled.policy),
            revision: ruled.revision,
        });
        let waiting = |found: &Waiting| {
            let (asks, text) = match &found.asked {
                Asked::Admit { org, name } => ("admit", format!("{name} joins as organisation {org}")),
                Asked::Remove(org) => ("remove", format!("{} goes", names(book, &[*org]).concat())),
                Asked::Policy(change) => (
                    "policy",
                    format!(
                        "{} by {}, in the place of revision {}",
                        change.matter.word(),
                        written(book, &change.policy),
                        change.base
                    ),
                ),
            };
            WaitingLine {
                asks,
                text,
                until_ms: found.until_ms.0,
                approvals: names(book, &found.approvals),
                enough: names(book, &found.enough),
            }
        };
        Self { matters: matters.collect(), waiting: book.waiting.iter().map(waiting).collect() }
    }
}

pub(super) async fn show(context: &Context, output: Output) -> Result<(), CliError> {
    let book: PolicyBook = context.client().await?.policies().await?;
    let shown = Shown::of(&book);
    output.result(&shown, || text(&shown))
}

fn text(shown: &Shown) -> String {
    let matters =
        shown.matters.iter().map(|line| [line.matter.to_owned(), line.policy.clone(), line.revision.to_string()]);
    let mut text = table(["matter", "who has to approve", "revision"], matters);
    if !shown.waiting.is_empty() {
        let rows = shown.waiting.iter().map(|line| {
            let enough = match line.enough.is_empty() {
                true => "any one, again".to_owned(),
                false => line.enough.join(" "),
            };
            [line.text.clone(), line.approvals.join(" "), enough, moment(line.until_ms)]
        });
        text.push_str(&format!("\n{}", table(["what waits", "approved by", "enough would be", "until"], rows)));
    }
    text
}

/// The command that proposes a policy for a matter, or approves that very proposal: on the revision that was named, else
/// on the one in force.
pub(super) async fn change(
    context: &Context,
    word: &str,
    text: &str,
    on: Option<u64>,
) -> Result<BeaconCommand, CliError> {
    let book: PolicyBook = context.client().await?.policies().await?;
    asked(&book, word, text, on)
}

fn asked(book: &PolicyBook, word: &str, text: &str, on: Option<u64>) -> Result<BeaconCommand, CliError> {
    let matter = Matter::of_word(word).ok_or_else(|| {
        let words = Matter::ALL.map(Matter::word).join(", ");
        CliError::usage("org_policy_matter", format!("there is no policy of '{word}'"), format!("use one of {words}"))
    })?;
    let whole = whole(text);
    let org_of = |name: &str| book.orgs.iter().find(|(_, known)| known == name).map(|(org, _)| *org);
    let policy = Policy::parse(&whole, &org_of).map_err(|error| {
        let fix = "see how policies are written in docs/channels.md";
        CliError::usage(error.code(), format!("the policy '{whole}': {error}"), fix)
    })?;
    let base = on.or_else(|| book.of(matter).map(|ruled| ruled.revision)).unwrap_or_default();
    Ok(BeaconCommand::SetPolicy(PolicyChange { matter, base, policy }))
}

#[cfg(test)]
mod tests {
    use beacon::Ruled;
    use beacon::policies::book::POLICY_BOOK_VERSION;
    use beacon::policies::{POLICY_RECORD_VERSION, default_policy};
    use channel::{Quorum, Role};
    use ledger::TimeMs;

    use super::*;

    fn book() -> PolicyBook {
        let all = Policy::members(Quorum::All, Role::Admin);
        let ruled = |matter: Matter| {
            let (revision, policy) = if matter == Matter::Orgs { (3, all.clone()) } else { (0, default_policy()) };
            (matter, Ruled { version: POLICY_RECORD_VERSION, revision, policy })
        };
        let change = PolicyChange { matter: Matter::Policy, base: 0, policy: Policy::one(OrgId(2), Role::Admin) };
        let waits = |asked, approvals: &[u16], enough: &[u16]| Waiting {
            asked,
            until_ms: TimeMs(1_000),
            approvals: approvals.iter().copied().map(OrgId).collect(),
            enough: enough.iter().copied().map(OrgId).collect(),
        };
        PolicyBook {
            version: POLICY_BOOK_VERSION,
            orgs: (1..).zip(["org-a", "org-b", "org-d"]).map(|(id, name)| (OrgId(id), name.to_owned())).collect(),
            ruled: Matter::ALL.map(ruled).to_vec(),
            waiting: vec![
                waits(Asked::Admit { org: OrgId(7), name: "org-g".to_owned() }, &[1], &[2, 3]),
                waits(Asked::Remove(OrgId(3)), &[1, 2], &[]),
                waits(Asked::Policy(change), &[1], &[2]),
            ],
        }
    }

    #[test]
    fn policies_and_what_waits_are_told_by_name() {
        let shown = Shown::of(&book());
        assert_eq!(shown.matters.len(), Matter::ALL.len());
        let text = text(&shown);
        for part in [
            "all(members.admin)",
            "majority(members.admin)",
            "org-g joins as organisation 7",
            "org-d goes",
            "policy by org-b.admin, in the place of revision 0",
            "org-b org-d",
            "any one, again",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let json = serde_json::to_value(&shown).unwrap();
        assert_eq!((&json["matters"][0]["matter"], &json["matters"][0]["revision"]), (&"orgs".into(), &3.into()));
        assert_eq!(
            (&json["waiting"][1]["asks"], &json["waiting"][1]["approvals"][1]),
            (&"remove".into(), &"org-b".into())
        );
    }

    #[test]
    fn a_change_is_made_on_the_revision_in_force_or_on_the_one_that_is_named() {
        let asks = |word: &str, text: &str, on| match asked(&book(), word, text, on) {
            Ok(BeaconCommand::SetPolicy(change)) => Ok((change.matter, change.base, change.policy.to_string())),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.code),
        };
        assert_eq!(asks("orgs", "any", None), Ok((Matter::Orgs, 3, "any(members.admin)".to_owned())));
        assert_eq!(asks("orgs", "org-d.admin", Some(2)), Ok((Matter::Orgs, 2, "#3.admin".to_owned())));
        assert_eq!(asks("weather", "any", None), Err("org_policy_matter".to_owned()));
        assert_eq!(asks("jobs", "any(org-c.admin)", None), Err("policy_org".to_owned()));
        assert_eq!(asks("jobs", "k-of(2", None), Err("policy_text".to_owned()));
    }
}
