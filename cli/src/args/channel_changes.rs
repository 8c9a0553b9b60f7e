//! The grammar of what `channel` proposes with a verb of its own: `anchors set`, `policy propose`, `audit grant` and
//! `audit revoke`.
//!
//! The spellings of before are taken as well, and not shown: `anchors CHANNEL --set`, `policy CHANNEL SUBJECT POLICY`,
//! `audit-grant` and `audit-revoke`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::channel::{FIVE_YEARS, MONTH, WEEK};
use super::{Admin, InChannel, Proposing};

/// `channel anchors`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Example:\n  seamark channel anchors set steel 1,4 --as org-a\n  seamark channel anchors set steel --none --as org-a"
)]
pub struct ChannelAnchors {
    /// Who proposes, in the spelling of before.
    #[command(flatten)]
    pub admin: Admin,
    /// Where, in the spelling of before
    #[arg(value_name = "CHANNEL", required = true, hide = true)]
    pub channel: Option<String>,
    /// Which, in the spelling of before
    #[arg(long, value_name = "N,N", value_delimiter = ',', required_unless_present = "none", hide = true)]
    pub set: Vec<u32>,
    /// None at all, in the spelling of before
    #[arg(long, conflicts_with = "set", hide = true)]
    pub none: bool,
    /// How long the others may take to approve, in the spelling of before, minutes
    #[arg(long, value_name = "MINUTES", default_value_t = WEEK, value_parser = clap::value_parser!(u64).range(1..=MONTH), hide = true)]
    pub within: u64,
    /// What is proposed of them.
    #[command(subcommand)]
    pub command: Option<AnchorsChange>,
}

/// `channel anchors set`.
#[derive(Debug, Subcommand)]
pub enum AnchorsChange {
    /// Propose which of the own nodes carry mail
    #[command(
        after_help = "Example:\n  seamark channel anchors set steel 1 --as org-a\n  seamark channel anchors set steel --none --as org-a"
    )]
    Set {
        /// Where.
        #[command(flatten)]
        proposing: Proposing,
        /// All of the organisation's anchors
        #[arg(value_name = "N,N", value_delimiter = ',', required_unless_present = "none")]
        nodes: Vec<u32>,
        /// None at all
        #[arg(long, conflicts_with = "nodes")]
        none: bool,
    },
}

impl ChannelAnchors {
    /// What is proposed, however it was spelt.
    #[must_use]
    pub fn change(self) -> AnchorsChange {
        match self.command {
            Some(change) => change,
            // The channel is required then.
            None => AnchorsChange::Set {
                proposing: proposing(self.admin, self.channel, self.within),
                nodes: self.set,
                none: self.none,
            },
        }
    }
}

/// `channel policy`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Example:\n  seamark channel policy propose steel freeze 'any(members.admin)' --as org-a\n\nSubjects: membership, policy, asset-issue, freeze, anchors, audit, close. A policy is written as\nin docs/channels.md."
)]
pub struct ChannelPolicy {
    /// Who proposes, in the spelling of before.
    #[command(flatten)]
    pub admin: Admin,
    /// Where, in the spelling of before
    #[arg(value_name = "CHANNEL", required = true, hide = true)]
    pub channel: Option<String>,
    /// Of what, in the spelling of before
    #[arg(required = true, hide = true)]
    pub subject: Option<String>,
    /// The policy, in the spelling of before
    #[arg(value_name = "POLICY", required = true, hide = true)]
    pub text: Option<String>,
    /// How long the others may take to approve, in the spelling of before, minutes
    #[arg(long, value_name = "MINUTES", default_value_t = WEEK, value_parser = clap::value_parser!(u64).range(1..=MONTH), hide = true)]
    pub within: u64,
    /// What is proposed of it.
    #[command(subcommand)]
    pub command: Option<PolicyChange>,
}

/// `channel policy propose`.
#[derive(Debug, Subcommand)]
pub enum PolicyChange {
    /// Propose another policy for a subject
    #[command(
        after_help = "Example:\n  seamark channel policy propose steel freeze 'any(members.admin)' --as org-a\n\nSubjects: membership, policy, asset-issue, freeze, anchors, audit, close. A policy is written as\nin docs/channels.md."
    )]
    Propose {
        /// Where.
        #[command(flatten)]
        proposing: Proposing,
        /// Of what
        subject: String,
        /// The policy
        #[arg(value_name = "POLICY")]
        text: String,
    },
}

impl ChannelPolicy {
    /// What is proposed, however it was spelt.
    #[must_use]
    pub fn change(self) -> PolicyChange {
        match self.command {
            Some(change) => change,
            // All three are required then.
            None => PolicyChange::Propose {
                proposing: proposing(self.admin, self.channel, self.within),
                subject: self.subject.unwrap_or_default(),
                text: self.text.unwrap_or_default(),
            },
        }
    }
}

fn proposing(admin: Admin, channel: Option<String>, within: u64) -> Proposing {
    Proposing { on: InChannel { admin, channel: channel.unwrap_or_default() }, within }
}

/// `channel audit`.
#[derive(Debug, Subcommand)]
pub enum ChannelAudit {
    /// Propose that auditors of an organisation may read
    Grant(GrantAudit),
    /// Propose to end an audit grant before its time
    Revoke(RevokeAudit),
}

/// `channel audit grant`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  seamark channel audit grant steel org-d --as org-a\n  seamark channel audit grant steel org-d --assets EUR --until 1440 --as org-a\n\nWithout --accounts and --assets it is everything."
)]
pub struct GrantAudit {
    /// Where.
    #[command(flatten)]
    pub proposing: Proposing,
    /// The auditors' organisation, by name or number
    #[arg(value_name = "ORG")]
    pub auditor: String,
    /// These accounts only: addresses or keys' names
    #[arg(long, value_name = "ACCOUNT,ACCOUNT", value_delimiter = ',', conflicts_with = "assets")]
    pub accounts: Vec<String>,
    /// These assets only
    #[arg(long, value_name = "ASSET,ASSET", value_delimiter = ',')]
    pub assets: Vec<String>,
    /// How long it lasts, minutes
    #[arg(long, value_name = "MINUTES", default_value_t = MONTH, value_parser = clap::value_parser!(u64).range(1..=FIVE_YEARS))]
    pub until: u64,
    /// One certificate alone, in PEM
    #[arg(long, value_name = "FILE")]
    pub certificate: Option<PathBuf>,
}

/// `channel audit revoke`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  seamark channel audit revoke steel org-d 4f0c...19 --as org-a")]
pub struct RevokeAudit {
    /// Where.
    #[command(flatten)]
    pub proposing: Proposing,
    /// The auditors' organisation, by name or number
    #[arg(value_name = "ORG")]
    pub auditor: String,
    /// The grant: the id of the proposal that gave it
    pub grant: String,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Channel, Cli, Command};

    fn parsed(line: &str) -> Result<Channel, clap::Error> {
        let args = std::iter::once("seamark").chain(line.split_whitespace());
        match Cli::try_parse_from(args)?.command {
            Command::Channel(channel) => Ok(channel),
            other => panic!("{line}: {other:?}"),
        }
    }

    fn where_from(proposing: &Proposing) -> (&str, Option<&str>, u64) {
        (&proposing.on.channel, proposing.on.admin.org.as_deref(), proposing.within)
    }

    #[test]
    fn anchors_are_set_by_either_spelling() {
        for (line, wanted) in [
            ("channel anchors set steel 1,4 --as org-a --within 60", (&[1, 4][..], false)),
            ("channel anchors steel --set 1,4 --as org-a --within 60", (&[1, 4], false)),
            ("channel anchors set steel --none --as org-a --within 60", (&[], true)),
            ("channel anchors steel --none --as org-a --within 60", (&[], true)),
        ] {
            let Ok(Channel::Anchors(anchors)) = parsed(line) else { panic!("{line}") };
            let AnchorsChange::Set { proposing, nodes, none } = anchors.change();
            assert_eq!((&nodes[..], none), wanted, "{line}");
            assert_eq!(where_from(&proposing), ("steel", Some("org-a"), 60), "{line}");
        }
        for wrong in [
            "channel anchors",
            "channel anchors steel",
            "channel anchors set steel",
            "channel anchors set steel 1 --none",
            "channel anchors steel --set 1 --none",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn policies_are_proposed_by_either_spelling() {
        for line in [
            "channel policy propose steel freeze any(members.admin) --as org-a",
            "channel policy steel freeze any(members.admin) --as org-a",
        ] {
            let Ok(Channel::Policy(policy)) = parsed(line) else { panic!("{line}") };
            let PolicyChange::Propose { proposing, subject, text } = policy.change();
            assert_eq!((subject.as_str(), text.as_str()), ("freeze", "any(members.admin)"), "{line}");
            assert_eq!(where_from(&proposing), ("steel", Some("org-a"), WEEK), "{line}");
        }
        for wrong in ["channel policy", "channel policy steel freeze", "channel policy propose steel freeze"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn audits_are_granted_and_revoked_by_either_spelling() {
        for line in [
            "channel audit grant steel org-d --assets EUR --until 1440 --as org-a",
            "channel audit-grant steel org-d --assets EUR --until 1440 --as org-a",
        ] {
            let (Ok(Channel::Audit(ChannelAudit::Grant(grant))) | Ok(Channel::AuditGrant(grant))) = parsed(line) else {
                panic!("{line}")
            };
            assert_eq!((grant.auditor.as_str(), grant.until), ("org-d", 1440), "{line}");
            assert_eq!(grant.assets, ["EUR"], "{line}");
            assert_eq!(where_from(&grant.proposing), ("steel", Some("org-a"), WEEK), "{line}");
        }
        for line in
            ["channel audit revoke steel org-d 4f0c --as org-a", "channel audit-revoke steel org-d 4f0c --as org-a"]
        {
            let (Ok(Channel::Audit(ChannelAudit::Revoke(revoke))) | Ok(Channel::AuditRevoke(revoke))) = parsed(line)
            else {
                panic!("{line}")
            };
            assert_eq!((revoke.auditor.as_str(), revoke.grant.as_str()), ("org-d", "4f0c"), "{line}");
            assert_eq!(where_from(&revoke.proposing), ("steel", Some("org-a"), WEEK), "{line}");
        }
        for wrong in ["channel audit", "channel audit grant steel", "channel audit revoke steel org-d"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
