//! Policies: who has to approve. A policy is a tree of `any`, `all`, `majority` and `k-of` over
//! organisations and roles.
//!
//! Evaluation is pure and monotone: it looks at a set of approvals and the members of the moment,
//! and a further approval never turns a yes into a no. Who has approved, and whether an approval
//! still counts, is for [`crate::proposal`]; what a policy looks like as text is in `text`, as
//! bytes, and when it is refused, in `form`.

mod form;
mod text;

use std::collections::BTreeSet;

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::ids::OrgId;

pub use form::{POLICY_VERSION, PolicyFault};
pub use text::PolicyTextError;

/// What a certificate or key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub enum Role {
    /// Governs for its organisation.
    Admin,
    /// Works for its organisation: a client.
    Member,
    /// A node of its organisation.
    Node,
    /// Reads what it was granted, and never approves anything.
    Auditor,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Admin, Self::Member, Self::Node, Self::Auditor];

    /// The word for it in policies and certificates.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Node => "node",
            Self::Auditor => "auditor",
        }
    }

    /// The role of a word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.word() == word)
    }
}

/// An organisation in a role: what approves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Elector {
    /// The organisation.
    pub org: OrgId,
    /// In which role. An admin does not stand for a member: each role approves for itself.
    pub role: Role,
}

/// How many items of a rule have to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub enum Quorum {
    /// One.
    Any,
    /// Each.
    All,
    /// More than half.
    Majority,
    /// This many, at least one.
    AtLeast(u16),
}

impl Quorum {
    /// How many of `total` items have to hold.
    #[must_use]
    pub fn needed(self, total: usize) -> usize {
        match self {
            Self::Any => 1,
            Self::All => total,
            Self::Majority => total / 2 + 1,
            Self::AtLeast(count) => usize::from(count),
        }
    }
}

/// One entry of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    /// One entry for each member of the moment, in this role.
    Each(Role),
    /// A policy of its own.
    Sub(Policy),
}

/// Who has to approve. Canonical: the items of a rule are sorted and unique, see [`Policy::form`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// This elector.
    One(Elector),
    /// So many of these.
    Rule {
        /// How many.
        quorum: Quorum,
        /// Of what.
        items: Vec<Item>,
    },
}

/// Who is there to approve: the members, and in which roles each has a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// The members.
    pub members: BTreeSet<OrgId>,
    /// Every elector that could sign an approval.
    pub electors: BTreeSet<Elector>,
}

/// What is left of a policy once some have approved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Residual {
    /// Nothing: it holds.
    Met,
    /// This policy over those who can still approve: it holds exactly when the whole does.
    Open(Policy),
    /// It can not hold any more.
    Impossible,
}

impl Policy {
    /// A rule in canonical order.
    #[must_use]
    pub fn rule(quorum: Quorum, mut items: Vec<Item>) -> Self {
        items.sort();
        Self::Rule { quorum, items }
    }

    /// A rule over every member in a role.
    #[must_use]
    pub fn members(quorum: Quorum, role: Role) -> Self {
        Self::Rule { quorum, items: vec![Item::Each(role)] }
    }

    /// One organisation in a role.
    #[must_use]
    pub fn one(org: OrgId, role: Role) -> Self {
        Self::One(Elector { org, role })
    }

    /// Whether the policy holds. Approvals of organisations that are no members never count, and a
    /// rule over nothing never holds.
    #[must_use]
    pub fn holds(&self, members: &BTreeSet<OrgId>, approvals: &BTreeSet<Elector>) -> bool {
        match self {
            Self::One(elector) => members.contains(&elector.org) && approvals.contains(elector),
            Self::Rule { quorum, items } => {
                let (mut total, mut held) = (0, 0);
                for item in items {
                    match item {
                        Item::Each(role) => {
                            total += members.len();
                            held += each(members, *role).filter(|elector| approvals.contains(elector)).count();
                        }
                        Item::Sub(policy) => {
                            total += 1;
                            held += usize::from(policy.holds(members, approvals));
                        }
                    }
                }
                total > 0 && held >= quorum.needed(total)
            }
        }
    }

    /// What is left to be approved, by those in `open`, when `approvals` have been given.
    #[must_use]
    pub fn residual(
        &self,
        members: &BTreeSet<OrgId>,
        approvals: &BTreeSet<Elector>,
        open: &BTreeSet<Elector>,
    ) -> Residual {
        let (quorum, items) = match self {
            Self::One(elector) if !members.contains(&elector.org) => return Residual::Impossible,
            Self::One(elector) if approvals.contains(elector) => return Residual::Met,
            Self::One(elector) if open.contains(elector) => return Residual::Open(self.clone()),
            Self::One(_) => return Residual::Impossible,
            Self::Rule { quorum, items } => (quorum, items),
        };
        let (mut total, mut held, mut left) = (0, 0, Vec::new());
        let mut count = |residual| {
            total += 1;
            match residual {
                Residual::Met => held += 1,
                Residual::Open(policy) => left.push(Item::Sub(policy)),
                Residual::Impossible => {}
            }
        };
        for item in items {
            match item {
                Item::Each(role) => each(members, *role)
                    .for_each(|elector| count(Self::One(elector).residual(members, approvals, open))),
                Item::Sub(policy) => count(policy.residual(members, approvals, open)),
            }
        }
        let needed = quorum.needed(total);
        if total > 0 && held >= needed {
            return Residual::Met;
        }
        let missing = needed.saturating_sub(held);
        if total == 0 || missing > left.len() {
            return Residual::Impossible;
        }
        if let [Item::Sub(only)] = left.as_slice() {
            return Residual::Open(only.clone());
        }
        let quorum = match missing {
            1 => Quorum::Any,
            n if n == left.len() => Quorum::All,
            n => Quorum::AtLeast(u16::try_from(n).unwrap_or(u16::MAX)),
        };
        Residual::Open(Self::rule(quorum, left))
    }

    /// Electors that would together satisfy this residual: a small set, though where one elector
    /// counts in several branches not always the smallest. Meant for what [`Policy::residual`]
    /// leaves, where no item stands for all members.
    #[must_use]
    pub fn sufficient(&self) -> BTreeSet<Elector> {
        match self {
            Self::One(elector) => BTreeSet::from([*elector]),
            Self::Rule { quorum, items } => {
                let mut branches: Vec<BTreeSet<Elector>> = items
                    .iter()
                    .filter_map(|item| match item {
                        Item::Each(_) => None,
                        Item::Sub(policy) => Some(policy.sufficient()),
                    })
                    .collect();
                branches.sort_by_key(BTreeSet::len);
                let needed = quorum.needed(branches.len());
                branches.into_iter().take(needed).flatten().collect()
            }
        }
    }

    /// Whether the policy asks this elector at all.
    #[must_use]
    pub fn names(&self, members: &BTreeSet<OrgId>, elector: &Elector) -> bool {
        match self {
            Self::One(found) => found == elector,
            Self::Rule { items, .. } => items.iter().any(|item| match item {
                Item::Each(role) => *role == elector.role && members.contains(&elector.org),
                Item::Sub(policy) => policy.names(members, elector),
            }),
        }
    }
}

/// Every member in a role.
fn each(members: &BTreeSet<OrgId>, role: Role) -> impl Iterator<Item = Elector> + '_ {
    members.iter().map(move |org| Elector { org: *org, role })
}
