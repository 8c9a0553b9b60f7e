//! What one group can say to another.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::asset::AssetDef;
use ledger::committee::Committee;
use ledger::ids::{JobId, TxId};
use ledger::layout::Layout;
use ledger::lineage::Seal;
use ledger::pair::Transfer;
use ledger::rules::Credit;

use crate::closed::{Closed, Reshaped};
use crate::commit::{Decision, LegId};
use crate::notice::{AnchorsUpdate, ChannelUpdate, RegistryUpdate};

/// A group's vote on a transaction. Cluster, group and incarnation are bound by the certified header
/// that it travels under.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Vote {
    /// The transaction.
    pub txid: TxId,
    /// The signed transaction, without openings, so that a group that never saw it can vote; for a group of another
    /// ledger without witnesses.
    pub tx: Vec<u8>,
    /// The legs that this vote speaks for, ascending.
    pub legs: Vec<LegId>,
    /// The vote; a NO for a group of another ledger has no reason but [`ledger::Reject::RefusedElsewhere`].
    pub decision: Decision,
}

/// The first byte of a [`Message::Credit`].
const CREDIT: u8 = 0;

/// One message. The first byte of its encoding is the variant's number and so the version: variants are
/// added, never changed.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Message {
    /// A payment's credit; emitted by the debit's group.
    Credit(Credit) = 0,
    /// The beacon defines or changes an asset.
    AssetUpdate(AssetDef) = 1,
    /// The beacon announces the committee of a group.
    CommitteeUpdate(Committee) = 2,
    /// The beacon announces a layout.
    LayoutUpdate(Layout) = 3,
    /// A voter group's vote; emitted when its registers are written.
    Vote(Vote) = 4,
    /// Value on its way to another ledger; emitted by the debit's group, and by the group of the
    /// sending ledger's pair account.
    Transfer(Transfer) = 5,
    /// The beacon names the committee that a group is being prepared for, to that group alone. The one
    /// in force cancels the plan.
    CommitteePlan(Committee) = 6,
    /// The beacon tells a channel who belongs to the cluster.
    RegistryUpdate(RegistryUpdate) = 7,
    /// A channel tells the beacon who takes part in it, and how far it has come.
    ChannelUpdate(ChannelUpdate) = 8,
    /// The beacon tells a shard to stand still, since it is to be cut or joined.
    Seal(Seal) = 9,
    /// The beacon takes back the seal of a job.
    Unseal(JobId) = 10,
    /// The beacon tells everybody but the children of a change of the layout.
    Reshaped(Reshaped) = 11,
    /// A group tells those that came from a retired one how far its stream was taken.
    Closed(Closed) = 12,
    /// The beacon tells all groups who carries the mail of a channel.
    AnchorsUpdate(AnchorsUpdate) = 13,
}

impl Message {
    /// Whether encoded mail may be sent a while after it could be: a credit alone. It cannot fail, and nobody holds
    /// anything until it comes; others wait for a vote, or for the beacon's word.
    #[must_use]
    pub fn may_wait(encoded: &[u8]) -> bool {
        encoded.first() == Some(&CREDIT)
    }

    /// The bytes that are chained, stored and sent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory does not fail")
    }
}
