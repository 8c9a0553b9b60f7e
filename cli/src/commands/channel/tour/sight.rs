//! What everybody is answered: the same questions to each organisation's own router, with its own
//! certificate, side by side; and whether the answers are what members, and all others, must be answered.
//!
//! An answer is a value or the code of a refusal, as it came. The only thing known beforehand is who is a
//! member of which channel at that moment of the story.

use std::collections::BTreeMap;

use channel::ChannelReject;
use client::{Client, ClientError};
use ledger::{Address, GroupId, Height, LedgerId, OrgId, Reject, TxId};
use serde::Serialize;

use super::cast::{AUDITOR, Cast};
use super::fund::{Good, Goods};
use super::stage::balance;
use super::trade::Trade;
use super::{Place, Places};
use crate::draft::words::and;
use crate::error::CliError;

/// Digits of a hash that are shown.
const HASH_DIGITS: usize = 8;
/// Who is asked: the three organisations and the auditor.
pub(super) const ASKED: usize = 4;

/// A moment of the story.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum After {
    /// Both channels have traded.
    Trade,
    /// The third organisation has joined the first channel.
    Join,
    /// The second organisation has left it.
    Leave,
}

/// What somebody was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Answer {
    /// A value, in words.
    Shown(String),
    /// The code of the refusal.
    Refused(String),
}

impl Answer {
    /// For a table.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Shown(value) => value.clone(),
            Self::Refused(code) => format!("no: {code}"),
        }
    }
}

/// Whom a question concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum For {
    /// All who are let into the cluster.
    Everybody,
    /// The channel's members, and auditors that it has let in.
    Members,
}

/// A question and everybody's answers.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    /// Stable, for programs.
    pub(super) question: &'static str,
    /// The channel that it is about; none where it is about all groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) channel: Option<&'static str>,
    #[serde(rename = "for")]
    pub(super) whom: For,
    /// In words.
    pub(super) asked: String,
    /// By who asked.
    pub(super) answers: BTreeMap<String, Answer>,
}

/// All answers of one moment.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sight {
    pub(super) after: After,
    /// Who is let into which channel.
    pub(super) insiders: BTreeMap<&'static str, Vec<String>>,
    pub(super) rows: Vec<Row>,
}

/// What is asked.
enum Ask<'a> {
    /// The members of a channel, of the beacon's directory.
    Directory(GroupId),
    /// The members of a channel, of the channel.
    Members(GroupId),
    /// What an account has.
    Balance(LedgerId, Address, &'a Good),
    /// A block.
    Block(GroupId, Height),
    /// The receipt of a transaction in a channel.
    Receipt(GroupId, TxId),
    /// What all groups that tell everybody know of a transaction.
    Explain(TxId),
}

struct Question<'a> {
    key: &'static str,
    channel: Option<&'static str>,
    whom: For,
    asked: String,
    ask: Ask<'a>,
}

/// What is looked at.
pub(super) struct Scene<'a> {
    pub(super) cast: &'a Cast,
    pub(super) places: &'a Places,
    pub(super) goods: &'a Goods,
    pub(super) trade: &'a Trade,
}

impl Scene<'_> {
    /// Asks everybody everything.
    pub(super) async fn look(&self, after: After) -> Result<Sight, CliError> {
        let mut rows = Vec::new();
        for question in self.questions()? {
            let mut answers = BTreeMap::new();
            for (name, client) in self.asked() {
                let answer = match self.ask(client, &question.ask).await {
                    Ok(value) => Answer::Shown(value),
                    Err(error) => Answer::Refused(CliError::from(error).code),
                };
                answers.insert(name.to_owned(), answer);
            }
            let Question { key, channel, whom, asked, .. } = question;
            rows.push(Row { question: key, channel, whom, asked, answers });
        }
        Ok(Sight { after, insiders: self.insiders(after), rows })
    }

    fn asked(&self) -> [(&str, &Client); ASKED] {
        let Cast { a, b, c, auditor, .. } = self.cast;
        let [a, b, c] = [a, b, c].map(|actor| (actor.name.as_str(), &actor.client));
        [a, b, c, (AUDITOR, auditor)]
    }

    /// Who must be let in, by the story so far.
    fn insiders(&self, after: After) -> BTreeMap<&'static str, Vec<String>> {
        let Cast { a, b, c, .. } = self.cast;
        let steel = match after {
            After::Trade => vec![&a.name, &b.name],
            After::Join => vec![&a.name, &b.name, &c.name],
            After::Leave => vec![&a.name, &c.name],
        };
        // The auditor is one of a member in the first channel, and has a grant in the second one.
        let with_auditor = |members: Vec<&String>| -> Vec<String> {
            members.into_iter().cloned().chain([AUDITOR.to_owned()]).collect()
        };
        let grain = vec![&b.name, &c.name];
        BTreeMap::from([(self.places.steel.name, with_auditor(steel)), (self.places.grain.name, with_auditor(grain))])
    }

    fn questions(&self) -> Result<Vec<Question<'_>>, CliError> {
        let Cast { a, c, .. } = self.cast;
        let Places { steel, grain } = self.places;
        let mut questions = Vec::new();
        for (place, holder, good) in [(steel, a, &self.goods.eur), (grain, c, &self.goods.grain)] {
            let Place { name, group } = *place;
            let height = self.trade.height(place)?;
            let mut add = |key, whom, asked: String, ask| {
                questions.push(Question { key, channel: Some(name), whom, asked, ask });
            };
            add("directory", For::Everybody, format!("who is in {name}"), Ask::Directory(group));
            add("members", For::Members, format!("who {name} says is in it"), Ask::Members(group));
            let paid = format!("{} of {} in {name}", good.symbol, holder.name);
            add("balance", For::Members, paid, Ask::Balance(place.ledger(), holder.party.address, good));
            add("block", For::Members, format!("block {height} of {name}"), Ask::Block(group, Height(height)));
            add("receipt", For::Members, format!("the trade in {name}"), Ask::Receipt(group, self.trade.id));
        }
        let (whom, asked) = (For::Everybody, "the trade, of all groups".to_owned());
        questions.push(Question { key: "explain", channel: None, whom, asked, ask: Ask::Explain(self.trade.id) });
        Ok(questions)
    }

    /// Asks, and puts the answer in words.
    async fn ask(&self, client: &Client, ask: &Ask<'_>) -> Result<String, ClientError> {
        let names = |orgs: Vec<OrgId>| orgs.iter().map(|org| self.cast.orgs.name(*org)).collect::<Vec<_>>();
        match ask {
            Ask::Directory(group) => {
                let lines = client.channels().await?;
                let line = lines.into_iter().find(|line| line.group == *group);
                Ok(line.map_or_else(|| "nobody".to_owned(), |line| names(line.members).join(" ")))
            }
            Ask::Members(group) => {
                let governance = client.governance(*group).await?;
                Ok(names(governance.members.iter().map(|member| member.org).collect()).join(" "))
            }
            Ask::Balance(ledger, account, good) => Ok(good.amount(balance(client, *ledger, *account, good.id).await?)),
            Ask::Block(group, height) => {
                let block = client.block(*group, *height).await?.value;
                Ok(block.map_or_else(
                    || "no such block".to_owned(),
                    |block| {
                        let hash: String = block.header.hash().to_string().chars().take(HASH_DIGITS).collect();
                        format!("{hash}, {} receipts", block.receipts.len())
                    },
                ))
            }
            Ask::Receipt(group, txid) => {
                let receipt = client.transaction(*txid, Some(*group), false).await?.value;
                Ok(receipt.map_or_else(
                    || "no receipt".to_owned(),
                    |receipt| match receipt.reason() {
                        None => format!("committed in {}", receipt.height),
                        Some(reason) => reason.code().to_owned(),
                    },
                ))
            }
            Ask::Explain(txid) => {
                let known = client.explain(*txid).await?;
                let told = known.iter().map(|one| match &one.unanswered {
                    None => one.group.to_string(),
                    Some(unanswered) => format!("{}: {}", one.group, unanswered.code),
                });
                let told: Vec<String> = told.collect();
                Ok(if told.is_empty() { "nobody knows it".to_owned() } else { and(&told) })
            }
        }
    }
}

/// Whether a refusal says that who asks may not know. Others, such as that nobody answered, prove nothing.
fn denies(code: &str) -> bool {
    let rules = [ChannelReject::NotMember, ChannelReject::Removed, ChannelReject::NoGrant];
    code == Reject::AccessDenied.code() || rules.iter().any(|rule| rule.code() == code)
}

impl Sight {
    /// What is not as it must be: a member that is refused, somebody else who is shown something, or two who
    /// are shown different things.
    pub(super) fn problems(&self) -> Vec<String> {
        self.rows.iter().flat_map(|row| self.problems_of(row)).collect()
    }

    fn problems_of(&self, row: &Row) -> Vec<String> {
        let insiders = row.channel.and_then(|channel| self.insiders.get(channel));
        let mut problems = Vec::new();
        let mut shown: Option<&str> = None;
        for (who, answer) in &row.answers {
            let may = row.whom == For::Everybody || insiders.is_some_and(|insiders| insiders.contains(who));
            match answer {
                Answer::Shown(value) if !may => {
                    problems.push(format!("{who} may not know '{}' and is told {value}", row.asked));
                }
                Answer::Refused(code) if may => {
                    problems.push(format!("{who} may know '{}' and is refused with {code}", row.asked));
                }
                Answer::Refused(code) if !denies(code) => {
                    problems.push(format!("{who} asks for '{}' and hears {code}, which is no denial", row.asked));
                }
                Answer::Refused(_) => {}
                // What each group tells of a transaction may depend on who asks.
                Answer::Shown(_) if row.channel.is_none() => {}
                Answer::Shown(value) => match shown {
                    Some(first) if first != value.as_str() => {
                        problems.push(format!("'{}' is {first} to one and {value} to {who}", row.asked));
                    }
                    _ => shown = Some(value.as_str()),
                },
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str) -> Answer {
        Answer::Shown(value.to_owned())
    }

    fn refused(code: &str) -> Answer {
        Answer::Refused(code.to_owned())
    }

    /// A question to two members and an outsider.
    fn sight(whom: For, answers: [Answer; 3]) -> Sight {
        let who = ["org-a", "org-b", "org-c"].map(str::to_owned);
        Sight {
            after: After::Trade,
            insiders: BTreeMap::from([("steel", who[..2].to_vec())]),
            rows: vec![Row {
                question: "balance",
                channel: Some("steel"),
                whom,
                asked: "what there is".to_owned(),
                answers: who.into_iter().zip(answers).collect(),
            }],
        }
    }

    #[test]
    fn members_are_shown_the_same_and_others_nothing() {
        let denied = || refused("channel_not_member");
        let problems = |answers| sight(For::Members, answers).problems();
        assert!(problems([shown("5"), shown("5"), denied()]).is_empty());
        for code in ["access_denied", "channel_removed", "channel_no_grant"] {
            assert!(problems([shown("5"), shown("5"), refused(code)]).is_empty(), "{code}");
        }
        for (answers, said) in [
            ([shown("5"), shown("5"), shown("5")], "org-c may not know"),
            ([shown("5"), shown("5"), refused("unreachable")], "no denial"),
            ([shown("5"), shown("6"), denied()], "is 5 to one and 6 to org-b"),
            ([shown("5"), denied(), denied()], "org-b may know"),
        ] {
            let found = problems(answers);
            assert!(found.len() == 1 && found[0].contains(said), "{said}: {found:?}");
        }
    }

    #[test]
    fn what_is_for_everybody_is_refused_to_nobody() {
        let problems = |answers| sight(For::Everybody, answers).problems();
        assert!(problems([shown("a b"), shown("a b"), shown("a b")]).is_empty());
        assert_eq!(problems([shown("a b"), shown("a b"), refused("channel_not_member")]).len(), 1);
        assert_eq!(problems([shown("a b"), shown("a b"), shown("a")]).len(), 1);
    }
}
