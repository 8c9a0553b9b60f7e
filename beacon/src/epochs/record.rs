//! What an epoch has left: who contributed what, and the seed that follows. Anyone recomputes it from the record alone.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::crypto::PublicKey;
use ledger::hash::{Hash32, tagged};
use ledger::ids::{ClusterId, GroupId, Height, NodeId, OrgId, TimeMs};

use super::commitment_of;

/// Version written into new [`EpochRecord`]s and [`EpochHead`]s.
pub const EPOCH_VERSION: u8 = 1;

/// A member of the beacon in an epoch, and what it has contributed.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Entrant {
    /// The node.
    pub node: NodeId,
    /// Its organisation.
    pub org: OrgId,
    /// The key that its contributions are signed with.
    pub key: PublicKey,
    /// Whether it sits the epoch out, since it withheld its secret in the one before.
    pub barred: bool,
    /// What it has committed itself to.
    pub commitment: Option<Hash32>,
    /// The secret.
    pub secret: Option<Hash32>,
}

/// What became of a member in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its secret is in the seed.
    Revealed,
    /// It committed itself and did not reveal before the cut-off.
    Withheld,
    /// It did not commit itself.
    Absent,
    /// It sat the epoch out.
    Barred,
}

impl Fate {
    /// Its name in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Revealed => "revealed",
            Self::Withheld => "withheld",
            Self::Absent => "absent",
            Self::Barred => "barred",
        }
    }
}

impl Entrant {
    /// What has become of it, as of the cut-off.
    #[must_use]
    pub fn fate(&self) -> Fate {
        match (self.barred, self.commitment, self.secret) {
            (true, ..) => Fate::Barred,
            (false, _, Some(_)) => Fate::Revealed,
            (false, Some(_), None) => Fate::Withheld,
            (false, None, None) => Fate::Absent,
        }
    }
}

/// An epoch that has ended.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EpochRecord {
    /// Format version, [`EPOCH_VERSION`].
    pub version: u8,
    /// The epoch.
    pub epoch: u64,
    /// The beacon's block that began it.
    pub began_height: Height,
    /// Its time.
    pub began_ms: TimeMs,
    /// The beacon's block that ended it: the first at or behind the cut-off.
    pub ended_height: Height,
    /// Its time.
    pub ended_ms: TimeMs,
    /// Secrets that make a new seed: as many as the beacon's committee has to have signatures.
    pub needed: u16,
    /// The seed before.
    pub previous: Hash32,
    /// The seed behind it; the one before when too few have revealed.
    pub seed: Hash32,
    /// Whether it is a new one.
    pub fresh: bool,
    /// The members of the beacon, ascending, and what they contributed.
    pub entrants: Vec<Entrant>,
    /// Hash of the [`super::Deal`] that was decided with the new seed.
    pub deal: Option<Hash32>,
}

/// The seed behind an epoch: `sha256("seamark/epoch-seed/v1" ‖ previous ‖ epoch ‖ node ‖ secret ‖ …)` over those who have
/// revealed, ascending by node, numbers in big-endian.
#[must_use]
pub fn seed_of(previous: &Hash32, epoch: u64, entrants: &[Entrant]) -> Hash32 {
    let mut secrets = Vec::new();
    for entrant in entrants.iter().filter(|entrant| entrant.fate() == Fate::Revealed) {
        secrets.extend_from_slice(&entrant.node.0.to_be_bytes());
        secrets.extend_from_slice(&entrant.secret.unwrap_or_default().0);
    }
    tagged(b"seamark/epoch-seed/v1", &[&previous.0, &epoch.to_be_bytes(), &secrets])
}

/// Why a record is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EpochFault {
    /// A record, a deal or the whole is of another version, or lists are out of order.
    #[error("what is said of epoch {0} is not well formed, or of another version of this program")]
    Form(u64),
    /// A secret that is not the one of the commitment.
    #[error("in epoch {epoch} the secret of node {node} is not the one that it committed itself to")]
    Secret {
        /// The epoch.
        epoch: u64,
        /// The node.
        node: NodeId,
    },
    /// The seed does not follow from the secrets.
    #[error("the seed of epoch {0} does not follow from the seed before and the secrets")]
    Seed(u64),
    /// Two records that do not follow on one another.
    #[error("epoch {0} does not go on from the seed of the epoch before")]
    Chain(u64),
    /// A deal that is not the one of its epoch.
    #[error("the deal of epoch {0} is missing, or another one than the epoch's record names")]
    Deal(u64),
    /// An assignment that does not follow from what it was made of.
    #[error("in the deal of epoch {epoch} the seats of {group} do not follow from seed, nodes and committees")]
    Assignment {
        /// The epoch.
        epoch: u64,
        /// The group.
        group: GroupId,
    },
}

impl EpochFault {
    /// The stable code that programs match on.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Form(_) => "epoch_record_form",
            Self::Secret { .. } => "epoch_secret",
            Self::Seed(_) => "epoch_seed",
            Self::Chain(_) => "epoch_chain",
            Self::Deal(_) => "epoch_deal",
            Self::Assignment { .. } => "epoch_assignment",
        }
    }
}

impl EpochRecord {
    /// `sha256("seamark/epoch-record/v1" ‖ borsh)`.
    #[must_use]
    pub fn hash(&self) -> Hash32 {
        let bytes = borsh::to_vec(self).expect("writing to memory does not fail");
        tagged(b"seamark/epoch-record/v1", &[&bytes])
    }

    /// Recomputes everything in it.
    ///
    /// # Errors
    /// [`EpochFault`] names the first thing that does not hold.
    pub fn check(&self, cluster: &ClusterId) -> Result<(), EpochFault> {
        let epoch = self.epoch;
        if self.version != EPOCH_VERSION || !self.entrants.windows(2).all(|pair| pair[0].node < pair[1].node) {
            return Err(EpochFault::Form(epoch));
        }
        for entrant in &self.entrants {
            let node = entrant.node;
            let kept = entrant.secret.is_none_or(|secret| {
                let commitment = commitment_of(cluster, epoch, node, &secret);
                !entrant.barred && entrant.commitment == Some(commitment)
            });
            if !kept || (entrant.barred && entrant.commitment.is_some()) {
                return Err(EpochFault::Secret { epoch, node });
            }
        }
        let revealed = self.entrants.iter().filter(|entrant| entrant.fate() == Fate::Revealed).count();
        let fresh = revealed >= usize::from(self.needed);
        let seed = if fresh { seed_of(&self.previous, epoch, &self.entrants) } else { self.previous };
        if self.fresh != fresh || self.seed != seed {
            return Err(EpochFault::Seed(epoch));
        }
        if self.deal.is_some() != fresh {
            return Err(EpochFault::Deal(epoch));
        }
        Ok(())
    }
}

/// Recomputes records that follow on one another, the first one included. One may be missing between two where epochs
/// were switched off meanwhile; the seed goes on all the same.
///
/// # Errors
/// [`EpochFault`] names the first thing that does not hold.
pub fn check_records(records: &[EpochRecord], cluster: &ClusterId) -> Result<(), EpochFault> {
    records.iter().try_for_each(|record| record.check(cluster))?;
    for pair in records.windows(2) {
        if pair[0].epoch >= pair[1].epoch {
            return Err(EpochFault::Form(pair[1].epoch));
        }
        if pair[0].seed != pair[1].previous || pair[0].ended_height > pair[1].began_height {
            return Err(EpochFault::Chain(pair[1].epoch));
        }
    }
    Ok(())
}

/// The epochs that are kept, as the beacon's state tree commits to them.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EpochHead {
    /// Format version, [`EPOCH_VERSION`].
    pub version: u8,
    /// Each epoch that is kept, ascending, with [`EpochRecord::hash`].
    pub records: Vec<(u64, Hash32)>,
}

impl EpochHead {
    /// The head of these records.
    #[must_use]
    pub fn of(records: &[EpochRecord]) -> Self {
        let lines = records.iter().map(|record| (record.epoch, record.hash()));
        Self { version: EPOCH_VERSION, records: lines.collect() }
    }
}
