//! What a command line calls channels, foundings, proposals and nodes, looked up in the cluster.

use channel::{ChannelReject, Founding, Governance, Hosting, Phase, Policy, Proposal, Subject};
use client::Client;
use ledger::{GroupId, GroupKind, Hash32, NodeId, OrgId, TimeMs};
use proto::views::ChannelLine;

use crate::commands::beacon::nodes;
use crate::commands::signer::Orgs;
use crate::error::CliError;
use crate::setup::policies::whole;

/// Fewest digits of an id that stand for it.
const PREFIX_DIGITS_MIN: usize = 4;
/// Digits of a whole id.
const ID_DIGITS: usize = 64;

/// A rule of channels, broken before anything was sent.
pub(super) fn rule(reject: ChannelReject, cause: String) -> CliError {
    CliError::new(reject.code(), cause, reject.fix())
}

/// Whether a text is the beginning of this id, or all of it.
fn begins(id: &Hash32, text: &str) -> bool {
    text.len() >= PREFIX_DIGITS_MIN && id.to_string().starts_with(&text.to_ascii_lowercase())
}

/// A channel of the directory, by `channel-N` or by its name.
pub(in crate::commands) async fn channel(client: &Client, text: &str) -> Result<ChannelLine, CliError> {
    pick(client.channels().await?, text)
}

/// A name may look like `channel-N`; what looks like that is the group.
fn pick(lines: Vec<ChannelLine>, text: &str) -> Result<ChannelLine, CliError> {
    let group = text.parse::<GroupId>().ok().filter(|group| group.kind() == Some(GroupKind::Channel));
    let found = lines.into_iter().find(|line| group.map_or(line.name == text, |group| line.group == group));
    found.ok_or_else(|| rule(ChannelReject::Unknown, format!("the directory has no channel '{text}'")))
}

/// A founding by name, by id or by the beginning of its id. One that is open comes before others of its name.
pub(super) fn founding<'a>(foundings: &'a [Founding], text: &str, now: TimeMs) -> Result<&'a Founding, CliError> {
    let mut of_name = foundings.iter().filter(|founding| founding.terms.name == text);
    let open = of_name.clone().find(|founding| founding.phase_at(now) == Phase::Proposed);
    if let Some(found) = open.or_else(|| of_name.next()) {
        return Ok(found);
    }
    let of_id: Vec<&Founding> = foundings.iter().filter(|founding| begins(&founding.id, text)).collect();
    match of_id.as_slice() {
        [one] => Ok(*one),
        [] => Err(CliError::new(
            "founding_unknown",
            format!("no channel '{text}' is being founded"),
            "see those that are with 'seamark channel ls'; a proposal in a channel is named after the channel",
        )),
        _ => Err(ambiguous(text)),
    }
}

/// A proposal by its id or the beginning of it.
pub(super) fn proposal<'a>(governance: &'a Governance, text: &str) -> Result<&'a Proposal, CliError> {
    let found: Vec<&Proposal> = governance.proposals.iter().filter(|known| begins(&known.id, text)).collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(no_proposal(text)),
        _ => Err(ambiguous(text)),
    }
}

/// A channel has no such proposal.
pub(super) fn no_proposal(text: &str) -> CliError {
    CliError::new(
        ChannelReject::ProposalUnknown.code(),
        format!("the channel has no proposal '{text}', or it ended long ago"),
        "see the proposals with 'seamark channel proposals', and give at least 4 digits",
    )
}

/// The id that a text is, if it is a whole one: then nothing has to be looked up.
pub(super) fn whole_id(text: &str) -> Option<Hash32> {
    if text.len() == ID_DIGITS { text.parse().ok() } else { None }
}

fn ambiguous(text: &str) -> CliError {
    CliError::new(
        "id_ambiguous",
        format!("several ids begin with '{text}'"),
        "give more digits of the one that is meant",
    )
}

/// Nodes as channels list them: each once, in order.
pub(super) fn in_order(nodes: &[u32]) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> = nodes.iter().copied().map(NodeId).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// The nodes that were named, else the organisation's first one that takes seats.
pub(super) async fn own_nodes(client: &Client, org: OrgId, named: &[u32]) -> Result<Vec<NodeId>, CliError> {
    if !named.is_empty() {
        return Ok(in_order(named));
    }
    let known = nodes(client).await?;
    let own = known.iter().filter(|node| node.org == org && node.capacity > 0).map(|node| node.id);
    own.min().map(|node| vec![node]).ok_or_else(|| {
        let cause = "the organisation has no node that takes seats".to_owned();
        CliError::new(
            ChannelReject::NodeUnknown.code(),
            cause,
            "register one, or give one capacity, or name it with --nodes",
        )
    })
}

/// What an organisation brings to a founding.
pub(super) async fn hosting(client: &Client, org: OrgId, named: &[u32], anchors: &[u32]) -> Result<Hosting, CliError> {
    let nodes = own_nodes(client, org, named).await?;
    let anchors = if anchors.is_empty() { nodes[..1].to_vec() } else { in_order(anchors) };
    Ok(Hosting { nodes, anchors })
}

/// A subject by its word.
pub(super) fn subject(word: &str) -> Result<Subject, CliError> {
    Subject::of_word(word).ok_or_else(|| {
        let words = Subject::ALL.map(Subject::word).join(", ");
        CliError::usage("channel_subject", format!("there is no policy of '{word}'"), format!("use one of {words}"))
    })
}

/// A policy as people write it; `any`, `all` and `majority` alone are meant over the admins of the members.
pub(super) fn policy(text: &str, orgs: &Orgs) -> Result<Policy, CliError> {
    let whole = whole(text);
    Policy::parse(&whole, &|name| orgs.by_name(name)).map_err(|error| {
        let fix = "see how policies are written in docs/channels.md";
        CliError::usage(error.code(), format!("the policy '{whole}': {error}"), fix)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use channel::{Engine, Quorum, Role, Terms};

    fn line(number: u32, name: &str) -> ChannelLine {
        ChannelLine {
            version: 1,
            group: GroupId::channel(number),
            name: name.to_owned(),
            founding: Hash32::ZERO,
            members: Vec::new(),
            nodes: Vec::new(),
            anchors: Vec::new(),
            status: "running".to_owned(),
        }
    }

    fn made(byte: u8, name: &str, phase: Phase) -> Founding {
        let policy = Policy::members(Quorum::All, Role::Admin);
        let terms = Terms {
            name: name.to_owned(),
            invited: Vec::new(),
            engine: Engine::Raft,
            founding: policy,
            policies: Vec::new(),
        };
        Founding {
            version: 1,
            id: Hash32([byte; 32]),
            terms,
            proposer: OrgId(1),
            until_ms: TimeMs(10),
            approvals: Vec::new(),
            rejections: Vec::new(),
            phase,
            promise: None,
            salt: [0; 16],
        }
    }

    #[test]
    fn a_channel_is_named_by_its_group_before_its_name() {
        let lines = || vec![line(0, "steel"), line(1, "channel-0")];
        assert_eq!(pick(lines(), "steel").unwrap().group, GroupId::channel(0));
        assert_eq!(pick(lines(), "channel-0").unwrap().name, "steel", "nobody takes another's group as a name");
        assert_eq!(pick(lines(), "channel-1").unwrap().name, "channel-0");
        for unknown in ["coal", "channel-2", "shard-0", ""] {
            assert_eq!(pick(lines(), unknown).unwrap_err().code, "channel_unknown", "{unknown}");
        }
    }

    #[test]
    fn the_open_founding_of_a_name_is_meant_and_ids_may_be_cut_short() {
        let all =
            [made(1, "steel", Phase::Abandoned), made(2, "steel", Phase::Proposed), made(3, "coal", Phase::Abandoned)];
        let id = |text: &str| founding(&all, text, TimeMs(5)).map(|found| found.id.0[0]);
        assert_eq!(id("steel"), Ok(2));
        assert_eq!(id("coal"), Ok(3), "the beacon says what became of it");
        assert_eq!(id("0101"), Ok(1));
        assert_eq!(id("010").unwrap_err().code, "founding_unknown", "too short");
        let twice = [made(4, "a", Phase::Proposed), made(4, "b", Phase::Proposed)];
        assert_eq!(founding(&twice, "0404", TimeMs(5)).unwrap_err().code, "id_ambiguous");
    }

    #[test]
    fn policies_and_subjects_are_read_or_refused_with_a_code() {
        let orgs = Orgs::named(&["org-a"]);
        assert_eq!(policy("majority", &orgs), Ok(Policy::members(Quorum::Majority, Role::Admin)));
        assert_eq!(policy("any(org-a.admin", &orgs).unwrap_err().code, "policy_text");
        assert_eq!(policy("org-x.admin", &orgs).unwrap_err().code, "policy_org");
        assert_eq!(subject("freeze"), Ok(Subject::Freeze));
        assert_eq!(subject("freezing").unwrap_err().code, "channel_subject");
    }
}
