//! Proof files: a claim about the ledger with everything needed to check it offline.
//!
//! Owns the format and the one function that judges it. Pure: what a verifier has to trust is the
//! cluster's genesis and nothing else. How the committee that signed follows from it is for
//! [`crate::descent`] to say.

use borsh::io::{Read, Result as IoResult, Write};
use borsh::{BorshDeserialize, BorshSerialize};
use ledger::certificate::CertificateError;
use ledger::genesis::Genesis;
use ledger::layout;
use ledger::limits::INLINE_BALANCES_MAX;
use ledger::merkle::{self, MerklePath};
use ledger::tree::{BitPrefix, SubtreeProof, TreeProof, value_hash};
use ledger::{
    AccountRecord, Address, AssetId, Balance, Certificate, ClusterId, Committee, GroupId, GroupKind, Hash32, Height,
    NodeId, Receipt, TimeMs, schema,
};

use crate::descent::Descent;
pub use crate::descent::{BornProof, FoundedProof, Handover};
use crate::entry::{Entry, EntryName};

/// First bytes of a proof file.
pub const PROOF_MAGIC: &[u8; 8] = b"SEAMPROF";
/// Newest version of a proof. A proof has the oldest one that knows what is in it: 1 for the record of an
/// account and for receipts, 2 for [`Claim::Holdings`], 3 for [`Claim::Entry`] and whatever a channel has
/// certified, 4 for whatever a shard has certified that others were cut or joined into.
pub const PROOF_FORMAT: u8 = 4;
/// The first version in which a founding may stand.
const FOUNDED_SINCE: u8 = 3;
/// The first version in which the birth of a shard may stand.
const BORN_SINCE: u8 = 4;
/// Largest proof that is looked at.
pub const PROOF_BYTES_MAX: usize = ledger::limits::GRPC_BYTES_MAX;

/// What a proof is about.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Claim {
    /// An account had this record, or there was no such account, after a block.
    Account {
        /// The account.
        address: Address,
        /// Its encoded `AccountRecord`; `None` claims that there is none.
        record: Option<Vec<u8>>,
        /// The path in the state tree of its shard.
        proof: TreeProof,
    },
    /// A block holds this receipt.
    Receipt {
        /// The encoded `Receipt`.
        receipt: Vec<u8>,
        /// The path below `receipts_root`.
        path: MerklePath,
    },
    /// An account had exactly these entries after a block: its record, the balances that have no room
    /// in it, and whatever else is stored under it.
    Holdings {
        /// The account.
        address: Address,
        /// All of them, in strictly ascending order of key.
        entries: Vec<StateEntry>,
        /// The path to the subtree that is the account's.
        proof: SubtreeProof,
    },
    /// An account had this under one name, or nothing, after a block.
    Entry {
        /// The account.
        address: Address,
        /// The name, see [`EntryName::key`].
        key: Vec<u8>,
        /// The encoded value; `None` claims that there is none.
        value: Option<Vec<u8>>,
        /// The path in the state tree of its group.
        proof: TreeProof,
    },
}

/// One entry of an account.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StateEntry {
    /// Its state key behind the account's part of it: a kind byte, and what tells entries of a kind
    /// apart.
    pub key: Vec<u8>,
    /// Its encoded value.
    pub value: Vec<u8>,
}

impl Claim {
    /// The oldest version of the format that knows it.
    #[must_use]
    pub fn version(&self) -> u8 {
        match self {
            Self::Account { .. } | Self::Receipt { .. } => 1,
            Self::Holdings { .. } => 2,
            Self::Entry { .. } => 3,
        }
    }
}

/// A claim and all that proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofFile {
    /// Format version: the oldest one that knows what is in it.
    pub version: u8,
    /// The cluster.
    pub cluster: ClusterId,
    /// What is proved.
    pub claim: Claim,
    /// The header it is proved against, certified.
    pub certificate: Certificate,
    /// The committee that certified it.
    pub committee: Committee,
    /// From the group's first committee to the last one before `committee`; empty when `committee`
    /// is the first.
    pub handovers: Vec<Handover>,
    /// What proves the first committee of a channel, which the genesis does not name.
    pub founded: Option<FoundedProof>,
    /// What proves the first committee and the prefix of a shard that the genesis does not name.
    pub born: Option<BornProof>,
}

impl BorshSerialize for ProofFile {
    fn serialize<W: Write>(&self, writer: &mut W) -> IoResult<()> {
        let Self { version, cluster, claim, certificate, committee, handovers, founded, born } = self;
        version.serialize(writer)?;
        cluster.serialize(writer)?;
        claim.serialize(writer)?;
        certificate.serialize(writer)?;
        committee.serialize(writer)?;
        handovers.serialize(writer)?;
        if *version >= FOUNDED_SINCE {
            founded.serialize(writer)?;
        }
        if *version >= BORN_SINCE { born.serialize(writer) } else { Ok(()) }
    }
}

impl BorshDeserialize for ProofFile {
    fn deserialize_reader<R: Read>(reader: &mut R) -> IoResult<Self> {
        let version = u8::deserialize_reader(reader)?;
        Ok(Self {
            version,
            cluster: ClusterId::deserialize_reader(reader)?,
            claim: Claim::deserialize_reader(reader)?,
            certificate: Certificate::deserialize_reader(reader)?,
            committee: Committee::deserialize_reader(reader)?,
            handovers: Vec::deserialize_reader(reader)?,
            founded: match version >= FOUNDED_SINCE {
                true => Option::deserialize_reader(reader)?,
                false => None,
            },
            born: match version >= BORN_SINCE {
                true => Option::deserialize_reader(reader)?,
                false => None,
            },
        })
    }
}

/// What a proof has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedClaim {
    /// The cluster.
    pub cluster: ClusterId,
    /// The group.
    pub group: GroupId,
    /// The block it stands at.
    pub height: Height,
    /// Time of the block.
    pub time_ms: TimeMs,
    /// Hash of its header.
    pub header_hash: Hash32,
    /// The nodes that certified it.
    pub signers: Vec<NodeId>,
    /// The fact.
    pub fact: Fact,
    /// Whether the fact is the whole of it. `false` only for the record of an account that may have
    /// balances beside it, which an old proof says nothing about.
    pub complete: bool,
}

/// A proven fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The account's record after the block; `None`: there was no such account.
    Account {
        /// The account.
        address: Address,
        /// Its record, with all balances that are proved, as reads show it.
        record: Option<AccountRecord>,
    },
    /// The block holds this receipt.
    Receipt(Receipt),
    /// What the account had under a name after the block.
    Entry {
        /// The account.
        address: Address,
        /// Name and value.
        entry: Entry,
    },
}

/// Why a proof proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Not a proof file, truncated, or altered in its form.
    #[error("this is no proof file: {0}; ask for the proof again")]
    Malformed(String),
    /// Made by another version.
    #[error(
        "the proof says it has version {0}, which this program does not know or its content is not of; use a newer program, or ask for the proof again"
    )]
    Version(u8),
    /// Of another cluster.
    #[error("the proof is of cluster {found}, the genesis is of {expected}; use the genesis of the proof's cluster")]
    OtherCluster {
        /// The proof's.
        found: ClusterId,
        /// The genesis'.
        expected: ClusterId,
    },
    /// The committee does not follow from the genesis.
    #[error("the committee that signed cannot be traced to the genesis: {0}")]
    Committee(&'static str),
    /// The certificate does not hold.
    #[error("the certificate does not hold: {0}")]
    Certificate(#[from] CertificateError),
    /// The state tree's path does not hold.
    #[error("it is not proved by the block's state: {0}")]
    Tree(#[from] ledger::tree::ProofError),
    /// The receipt is not in the block.
    #[error("the receipt is not proved by the block: {0}")]
    Receipt(&'static str),
    /// The group does not own the account, or its layout is not known.
    #[error("the group that signed does not own the account: {0}")]
    Layout(&'static str),
}

impl ProofError {
    /// Stable code for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "proof_malformed",
            Self::Version(_) => "proof_version",
            Self::OtherCluster { .. } => "proof_other_cluster",
            Self::Committee(_) => "proof_committee",
            Self::Certificate(_) => "proof_certificate",
            Self::Tree(error) => error.code(),
            Self::Receipt(_) => "proof_receipt",
            Self::Layout(_) => "proof_layout",
        }
    }
}

impl ProofFile {
    /// A proof whose committee is the group's first.
    #[must_use]
    pub fn new(cluster: ClusterId, claim: Claim, certificate: Certificate, committee: Committee) -> Self {
        let (handovers, founded, born) = (Vec::new(), None, None);
        Self { version: claim.version(), cluster, claim, certificate, committee, handovers, founded, born }
    }

    /// With what proves the first committee of a channel, which the genesis does not name.
    #[must_use]
    pub fn with_founded(self, founded: FoundedProof) -> Self {
        let proof = Self { founded: Some(founded), ..self };
        Self { version: proof.oldest_version(), ..proof }
    }

    /// With what proves the first committee and the prefix of a shard that the genesis does not name.
    #[must_use]
    pub fn with_born(self, born: BornProof) -> Self {
        let proof = Self { born: Some(born), ..self };
        Self { version: proof.oldest_version(), ..proof }
    }

    /// The oldest version that knows the claim, and how the group began.
    fn oldest_version(&self) -> u8 {
        let began = match (&self.founded, &self.born) {
            (_, Some(_)) => BORN_SINCE,
            (Some(_), None) => FOUNDED_SINCE,
            (None, None) => 1,
        };
        self.claim.version().max(began)
    }

    /// Encodes for the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory does not fail")
    }

    /// Decodes from the wire. Says nothing about whether the proof holds.
    ///
    /// # Errors
    /// [`ProofError::Malformed`] or [`ProofError::Version`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ProofError> {
        if bytes.len() > PROOF_BYTES_MAX {
            return Err(ProofError::Malformed("it is too large".to_owned()));
        }
        match bytes.first() {
            Some(1..=PROOF_FORMAT) => {}
            Some(&other) => return Err(ProofError::Version(other)),
            None => return Err(ProofError::Malformed("it is empty".to_owned())),
        }
        borsh::from_slice(bytes).map_err(|error| ProofError::Malformed(error.to_string()))
    }

    /// The bytes of a proof file: magic, then the encoding.
    #[must_use]
    pub fn to_file(&self) -> Vec<u8> {
        let mut bytes = PROOF_MAGIC.to_vec();
        bytes.extend_from_slice(&self.encode());
        bytes
    }

    /// Reads the bytes of a proof file.
    ///
    /// # Errors
    /// As [`ProofFile::decode`].
    pub fn from_file(bytes: &[u8]) -> Result<Self, ProofError> {
        let body = bytes
            .strip_prefix(PROOF_MAGIC)
            .ok_or_else(|| ProofError::Malformed("it does not start as one".to_owned()))?;
        Self::decode(body)
    }
}

/// Judges a proof by a genesis that the caller trusts.
///
/// # Errors
/// [`ProofError`] names the first thing that does not hold.
pub fn verify(proof: &ProofFile, genesis: &Genesis) -> Result<VerifiedClaim, ProofError> {
    if proof.version != proof.oldest_version() {
        return Err(ProofError::Version(proof.version));
    }
    let header = &proof.certificate.header;
    let expected = genesis.cluster_id();
    for found in [proof.cluster, header.cluster] {
        if found != expected {
            return Err(ProofError::OtherCluster { found, expected });
        }
    }
    let ProofFile { committee, handovers, founded, born, .. } = proof;
    Descent { committee, handovers, founded: founded.as_ref(), born: born.as_ref() }.check(header, genesis)?;
    proof.certificate.verify(committee)?;
    let (fact, complete) = match &proof.claim {
        Claim::Account { address, record, proof: path } => {
            account_fact(proof, genesis, address, record.as_deref(), path)?
        }
        Claim::Receipt { receipt, path } => (receipt_fact(&proof.certificate, receipt, path)?, true),
        Claim::Holdings { address, entries, proof: path } => {
            (holdings_fact(proof, genesis, address, entries, path)?, true)
        }
        Claim::Entry { address, key, value, proof: path } => {
            (entry_fact(proof, genesis, address, key, value.as_deref(), path)?, true)
        }
    };
    Ok(VerifiedClaim {
        cluster: expected,
        group: header.group,
        height: header.height,
        time_ms: header.time_ms,
        header_hash: header.hash(),
        signers: proof.certificate.signatures.iter().map(|(node, _)| *node).collect(),
        fact,
        complete,
    })
}

fn account_fact(
    proof: &ProofFile,
    genesis: &Genesis,
    address: &Address,
    record: Option<&[u8]>,
    path: &TreeProof,
) -> Result<(Fact, bool), ProofError> {
    let header = &proof.certificate.header;
    let prefix = owned_prefix(proof, genesis)?;
    let position = schema::tree_position(&schema::account(address))
        .expect("account keys are state keys, which all have a position");
    let root = &header.state_root.0;
    let Some(bytes) = record else {
        path.verify_exclusion(root, &prefix, &position)?;
        return Ok((Fact::Account { address: *address, record: None }, true));
    };
    path.verify_inclusion(root, &prefix, &position, &value_hash(bytes))?;
    let record: AccountRecord = decoded(bytes)?;
    // Balances have entries of their own only when the record is full; and when nothing else hangs
    // under the account, it has no other entry at all.
    let complete =
        record.balances.len() < INLINE_BALANCES_MAX || path.alone_under(&prefix, &schema::subtree_of(address));
    Ok((Fact::Account { address: *address, record: Some(record) }, complete))
}

/// All entries of an account at once: the subtree has no other leaf.
fn holdings_fact(
    proof: &ProofFile,
    genesis: &Genesis,
    address: &Address,
    entries: &[StateEntry],
    path: &SubtreeProof,
) -> Result<Fact, ProofError> {
    let header = &proof.certificate.header;
    let prefix = owned_prefix(proof, genesis)?;
    if !entries.is_sorted_by(|one, next| one.key < next.key) {
        return Err(ProofError::Malformed("its entries are out of order".to_owned()));
    }
    let part = schema::of_account(address);
    let leaf = |entry: &StateEntry| {
        let position = schema::tree_position(&[&part[..], &entry.key].concat());
        (position.expect("it begins as a state key"), value_hash(&entry.value))
    };
    let mut leaves: Vec<_> = entries.iter().map(leaf).collect();
    leaves.sort_unstable();
    path.verify(&header.state_root.0, &prefix, &schema::subtree_of(address), leaves)?;

    let (mut record, mut extra) = (None::<AccountRecord>, Vec::<(AssetId, Balance)>::new());
    for StateEntry { key, value } in entries {
        match key.split_first() {
            Some((&schema::KIND_ACCOUNT, [])) => record = Some(decoded(value)?),
            Some((&schema::KIND_BALANCE, asset)) => {
                let asset = asset.try_into().map_err(|_| ProofError::Malformed("a balance of no asset".to_owned()))?;
                extra.push((AssetId(asset), decoded(value)?));
            }
            // What an issuer has created, and kinds that later versions add.
            _ => {}
        }
    }
    let mut record = record.ok_or_else(|| ProofError::Malformed("it holds no account record".to_owned()))?;
    record.balances.extend(extra);
    Ok(Fact::Account { address: *address, record: Some(record) })
}

fn entry_fact(
    proof: &ProofFile,
    genesis: &Genesis,
    address: &Address,
    key: &[u8],
    value: Option<&[u8]>,
    path: &TreeProof,
) -> Result<Fact, ProofError> {
    let header = &proof.certificate.header;
    let prefix = owned_prefix(proof, genesis)?;
    let name = EntryName::of_key(key).ok_or_else(|| ProofError::Malformed("no entry has such a name".to_owned()))?;
    let position = schema::tree_position(&name.state_key(address)).expect("it is a state key");
    let root = &header.state_root.0;
    match value {
        Some(bytes) => path.verify_inclusion(root, &prefix, &position, &value_hash(bytes))?,
        None => path.verify_exclusion(root, &prefix, &position)?,
    }
    let entry = Entry::decode(name, value).map_err(|error| ProofError::Malformed(error.to_string()))?;
    Ok(Fact::Entry { address: *address, entry })
}

fn decoded<T: BorshDeserialize>(bytes: &[u8]) -> Result<T, ProofError> {
    borsh::from_slice(bytes).map_err(|error| ProofError::Malformed(error.to_string()))
}

/// The part of the key space that a group's state root stands for. That of a shard is the same for all its life,
/// whatever the layout.
fn owned_prefix(proof: &ProofFile, genesis: &Genesis) -> Result<BitPrefix, ProofError> {
    let group = proof.certificate.header.group;
    match group.kind() {
        Some(GroupKind::Shard) => {
            let born = proof.born.as_ref().map(|born| born.leaf.prefix);
            let prefix = genesis.layout.prefix_of(group).or(born);
            tree_prefix(prefix.ok_or(ProofError::Layout("it is no shard that is known"))?)
                .ok_or(ProofError::Layout("its prefix is too long"))
        }
        Some(GroupKind::Channel) => Ok(BitPrefix::ROOT),
        // Its state is the registry: that an account is absent there would say nothing.
        Some(GroupKind::Beacon) => Err(ProofError::Layout("the beacon keeps no accounts")),
        None => Err(ProofError::Layout("there is no such kind of group")),
    }
}

/// A prefix of the layout as the state tree names it.
#[must_use]
pub fn tree_prefix(prefix: layout::BitPrefix) -> Option<BitPrefix> {
    let mut position = [0; 32];
    position[..8].copy_from_slice(&prefix.bits.to_be_bytes());
    BitPrefix::of(&position, u16::from(prefix.length))
}

fn receipt_fact(certificate: &Certificate, bytes: &[u8], path: &MerklePath) -> Result<Fact, ProofError> {
    let header = &certificate.header;
    let receipt: Receipt = decoded(bytes)?;
    if receipt.group != header.group || receipt.height != header.height || receipt.index != path.index {
        return Err(ProofError::Receipt("it names another block or position"));
    }
    if !path.leads_to(&merkle::leaf_hash(bytes), &header.receipts_root) {
        return Err(ProofError::Receipt("its path does not lead to the block's root"));
    }
    Ok(Fact::Receipt(receipt))
}
