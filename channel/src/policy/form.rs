//! The bytes of a policy, and when it is refused.
//!
//! Reading is bounded in depth and in items before anything is built, since commands come from
//! outside and a policy nests.

use borsh::io::{Error, ErrorKind, Read, Result as IoResult, Write};
use borsh::{BorshDeserialize, BorshSerialize};
use ledger::ids::OrgId;

use super::{Elector, Item, Policy, Quorum, Role, Roster};
use crate::limits::{POLICY_DEPTH_MAX, POLICY_ITEMS_MAX};

/// First byte of an encoded policy.
pub const POLICY_VERSION: u8 = 1;

/// Why a policy is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyFault {
    /// A rule over nothing.
    #[error("a rule lists nothing")]
    Empty,
    /// Rules nested too deep.
    #[error("rules are nested more than {POLICY_DEPTH_MAX} deep")]
    TooDeep,
    /// Too many items.
    #[error("it has more than {POLICY_ITEMS_MAX} electors, rules and member lists")]
    TooLarge,
    /// Items of a rule out of order.
    #[error("the items of a rule are not in canonical order")]
    Order,
    /// One approval would count twice in one rule.
    #[error("a rule lists the same twice, so that one approval would count twice")]
    Twice,
    /// More is asked for than is listed, or nothing is asked for.
    #[error("a rule asks for {needed} of {of}")]
    Count {
        /// What it asks for.
        needed: usize,
        /// What it lists, with the members of the moment.
        of: usize,
    },
    /// Names an organisation that is no member.
    #[error("organisation {0} is no member")]
    NotMember(OrgId),
    /// Even if all approved, it would not hold.
    #[error("it would not hold if everybody who can approve did: a role that is asked for has no key")]
    Unsatisfiable,
}

impl PolicyFault {
    /// The stable code that programs match on.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty | Self::TooDeep | Self::TooLarge | Self::Order | Self::Twice => "policy_form",
            Self::Count { .. } | Self::NotMember(_) | Self::Unsatisfiable => "policy_unsatisfiable",
        }
    }
}

impl Policy {
    /// Whether the policy is canonical and within limits.
    ///
    /// # Errors
    /// [`PolicyFault`] names the first thing that is not.
    pub fn form(&self) -> Result<(), PolicyFault> {
        let mut items = 0;
        self.form_below(1, &mut items)
    }

    fn form_below(&self, depth: usize, count: &mut usize) -> Result<(), PolicyFault> {
        *count += 1;
        if *count > POLICY_ITEMS_MAX {
            return Err(PolicyFault::TooLarge);
        }
        let Self::Rule { quorum, items } = self else { return Ok(()) };
        if depth > POLICY_DEPTH_MAX {
            return Err(PolicyFault::TooDeep);
        }
        if items.is_empty() {
            return Err(PolicyFault::Empty);
        }
        for pair in items.windows(2) {
            match pair[0].cmp(&pair[1]) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Err(PolicyFault::Twice),
                std::cmp::Ordering::Greater => return Err(PolicyFault::Order),
            }
        }
        let lists = |role: Role| items.contains(&Item::Each(role));
        if items.iter().any(|item| matches!(item, Item::Sub(Self::One(elector)) if lists(elector.role))) {
            return Err(PolicyFault::Twice);
        }
        let fixed = !items.iter().any(|item| matches!(item, Item::Each(_)));
        let needed = quorum.needed(items.len());
        if needed == 0 || (fixed && needed > items.len()) {
            return Err(PolicyFault::Count { needed, of: items.len() });
        }
        for item in items {
            match item {
                Item::Each(_) => {
                    *count += 1;
                    if *count > POLICY_ITEMS_MAX {
                        return Err(PolicyFault::TooLarge);
                    }
                }
                Item::Sub(policy) => policy.form_below(depth + 1, count)?,
            }
        }
        Ok(())
    }

    /// Whether the policy may be set with these members: in form, naming members only, with no rule
    /// that asks for more than it lists, and satisfiable by the keys there are.
    ///
    /// # Errors
    /// [`PolicyFault`] names the first thing that does not hold.
    pub fn check(&self, roster: &Roster) -> Result<(), PolicyFault> {
        self.form()?;
        self.check_rules(roster)?;
        self.check_satisfiable(roster)
    }

    /// Whether the policy could hold with these members and keys. It may name others: that is how a
    /// policy that was in force is judged when somebody leaves.
    ///
    /// # Errors
    /// [`PolicyFault::Unsatisfiable`].
    pub fn check_satisfiable(&self, roster: &Roster) -> Result<(), PolicyFault> {
        let asked = roster.electors.iter().copied().filter(|elector| elector.role != Role::Auditor).collect();
        if self.holds(&roster.members, &asked) { Ok(()) } else { Err(PolicyFault::Unsatisfiable) }
    }

    fn check_rules(&self, roster: &Roster) -> Result<(), PolicyFault> {
        let (quorum, items) = match self {
            Self::One(elector) if roster.members.contains(&elector.org) => return Ok(()),
            Self::One(elector) => return Err(PolicyFault::NotMember(elector.org)),
            Self::Rule { quorum, items } => (quorum, items),
        };
        let mut of = 0;
        for item in items {
            match item {
                Item::Each(_) => of += roster.members.len(),
                Item::Sub(policy) => {
                    of += 1;
                    policy.check_rules(roster)?;
                }
            }
        }
        let needed = quorum.needed(of);
        if needed > of { Err(PolicyFault::Count { needed, of }) } else { Ok(()) }
    }

    fn write<W: Write>(&self, writer: &mut W) -> IoResult<()> {
        match self {
            Self::One(elector) => {
                0u8.serialize(writer)?;
                elector.serialize(writer)
            }
            Self::Rule { quorum, items } => {
                1u8.serialize(writer)?;
                quorum.serialize(writer)?;
                u16::try_from(items.len()).map_err(|_| invalid(&PolicyFault::TooLarge))?.serialize(writer)?;
                for item in items {
                    match item {
                        Item::Each(role) => {
                            0u8.serialize(writer)?;
                            role.serialize(writer)?;
                        }
                        Item::Sub(policy) => {
                            1u8.serialize(writer)?;
                            policy.write(writer)?;
                        }
                    }
                }
                Ok(())
            }
        }
    }

    fn read<R: Read>(reader: &mut R, depth: usize, left: &mut usize) -> IoResult<Self> {
        *left = left.checked_sub(1).ok_or_else(|| invalid(&PolicyFault::TooLarge))?;
        match u8::deserialize_reader(reader)? {
            0 => Elector::deserialize_reader(reader).map(Self::One),
            1 if depth > POLICY_DEPTH_MAX => Err(invalid(&PolicyFault::TooDeep)),
            1 => {
                let quorum = Quorum::deserialize_reader(reader)?;
                let count = u16::deserialize_reader(reader)?;
                let mut items = Vec::new();
                for _ in 0..count {
                    items.push(match u8::deserialize_reader(reader)? {
                        0 => {
                            *left = left.checked_sub(1).ok_or_else(|| invalid(&PolicyFault::TooLarge))?;
                            Item::Each(Role::deserialize_reader(reader)?)
                        }
                        1 => Item::Sub(Self::read(reader, depth + 1, left)?),
                        tag => return Err(unknown(tag)),
                    });
                }
                Ok(Self::Rule { quorum, items })
            }
            tag => Err(unknown(tag)),
        }
    }
}

fn invalid(fault: &PolicyFault) -> Error {
    Error::new(ErrorKind::InvalidData, fault.to_string())
}

fn unknown(tag: u8) -> Error {
    Error::new(ErrorKind::InvalidData, format!("a policy has no part with tag {tag}"))
}

impl BorshSerialize for Policy {
    fn serialize<W: Write>(&self, writer: &mut W) -> IoResult<()> {
        POLICY_VERSION.serialize(writer)?;
        self.write(writer)
    }
}

impl BorshDeserialize for Policy {
    fn deserialize_reader<R: Read>(reader: &mut R) -> IoResult<Self> {
        let version = u8::deserialize_reader(reader)?;
        if version != POLICY_VERSION {
            return Err(Error::new(ErrorKind::InvalidData, format!("a policy of version {version} is not known")));
        }
        let policy = Self::read(reader, 1, &mut { POLICY_ITEMS_MAX })?;
        policy.form().map_err(|fault| invalid(&fault))?;
        Ok(policy)
    }
}
