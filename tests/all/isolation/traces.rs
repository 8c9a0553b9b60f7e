//! What attacks leave behind: denials in the logs of nodes, and in the folders of those outside nothing.

use std::path::Path;

use ledger::{NodeId, OrgId};

use super::{C, Scene};
use crate::support::cluster::TestCluster;
use crate::support::eventually;

/// What a node logs of whoever it denies something: at its doors, of a channel that it hosts, and for one that it does
/// not.
const DENIALS: [&str; 3] =
    ["a call was denied: ", "a call to a channel was denied", "transactions for a channel were denied"];
/// What it logs, once a minute, of whoever it does not answer.
const UNANSWERED: &str = "nothing was answered: the caller has no seat in the group";

/// For what somebody without a seat is not answered, as logs name it.
#[derive(Clone, Copy, Debug)]
pub enum Asked {
    ByLink,
    Foundation,
}

impl Asked {
    /// The method that asks for it.
    pub fn method(self) -> &'static str {
        match self {
            Self::ByLink => "/seamark.v1.Node/Link",
            Self::Foundation => "/seamark.v1.Node/Follow",
        }
    }
}

/// How many lines of these nodes' log files have all of these parts.
pub fn lines_with(cluster: &TestCluster, at: &[NodeId], parts: &[&str]) -> usize {
    lines(cluster, at, |line| parts.iter().all(|part| line.contains(part)))
}

fn lines(cluster: &TestCluster, at: &[NodeId], wanted: impl Fn(&str) -> bool) -> usize {
    at.iter().map(|node| cluster.logged(*node).lines().filter(|line| wanted(line)).count()).sum()
}

/// Whether any file below a folder has these bytes.
pub fn found_in(folder: &Path, secret: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().flatten().any(|entry| {
        let path = entry.path();
        match path.is_dir() {
            true => found_in(&path, secret),
            false => std::fs::read(&path).unwrap_or_default().windows(secret.len()).any(|part| part == secret),
        }
    })
}

impl Scene {
    /// How often these nodes have logged that they denied something about the channel to somebody of an organisation,
    /// or to one of its routers for whomever. Who may not make a call at all, whatever it is about, is logged without a
    /// group.
    pub fn noted(&self, at: &[NodeId], org: OrgId) -> usize {
        let (group, who) = (self.channel.to_string(), [format!("org=Some({org})"), format!("router=Some({org})")]);
        lines(&self.cluster, at, |line| {
            DENIALS.iter().any(|denial| line.contains(denial))
                && who.iter().any(|who| line.contains(who))
                && (line.contains(&group) || !line.contains("group="))
        })
    }

    /// Waits until [`Scene::noted`] is as high as that: every denial that somebody was told is in a log.
    pub async fn is_noted(&self, who: &str, at: &[NodeId], org: OrgId, times: usize) {
        eventually("denials are logged", async || {
            let noted = self.noted(at, org);
            if noted >= times { Ok(()) } else { Err(format!("{who}: {noted} of {times} by {at:?}")) }
        })
        .await;
    }

    /// Whether a node has logged that it did not answer this to a node of organisation C, or to a router of it.
    pub fn noted_unanswered(&self, at: NodeId, node: Option<NodeId>, asked: Asked) -> bool {
        let node = format!("node={:?}", node.map(|node| node.0));
        let (org, what) = (format!("org=Some({C})"), format!("asked={asked:?}"));
        lines_with(&self.cluster, &[at], &[UNANSWERED, &self.channel.to_string(), &org, &node, &what]) > 0
    }
}
