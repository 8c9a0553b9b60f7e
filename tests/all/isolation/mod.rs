//! What happens in a channel is its members' alone: whoever else asks, over whatever port, with whatever
//! certificate of the cluster, gets nothing of it, and a log says that it was denied. The nodes are processes, as
//! operators run them; their log files and their folders are what is searched.
//!
//! [`scene`] is the channel and the certificates that others come with, [`calls`] all that can be asked about it. That
//! list is held against the service descriptors, so that a new call has to be put there. [`attackers`] make those
//! calls, [`traces`] looks for what they leave behind. The tests are [`outsiders`], [`removed`], [`roles`] and
//! [`status`]. What a link is answered comes back over another one: see [`crate::link_answers`].

mod attackers;
mod calls;
mod outsiders;
mod removed;
mod roles;
mod scene;
mod status;
mod traces;

pub use scene::{Scene, balance};
pub use traces::{found_in, lines_with};

use ledger::{NodeId, OrgId};

pub const A: OrgId = OrgId(1);
pub const B: OrgId = OrgId(2);
pub const C: OrgId = OrgId(3);
/// Organisation C's only node.
pub const OUTSIDE: NodeId = NodeId(3);
/// A node of A that hosts the channel.
pub const INSIDE: NodeId = NodeId(1);
/// Nodes that host the channel, if C has no part in it.
const HOSTS: [NodeId; 3] = [INSIDE, NodeId(2), NodeId(4)];
/// Who hosts it then.
const HOSTED_BY: [(OrgId, &[NodeId]); 2] = [(A, &[INSIDE, NodeId(4)]), (B, &[NodeId(2)])];
