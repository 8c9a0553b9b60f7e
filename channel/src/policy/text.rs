//! Policies as text, for command lines and answers. The grammar stands in `docs/channels.md`.
//!
//! Reading sorts the items of every rule, so that whatever order a person wrote, the policy is
//! canonical; writing a policy and reading it again gives the same policy.

use std::fmt;

use ledger::ids::OrgId;

use super::{Elector, Item, Policy, PolicyFault, Quorum, Role};
use crate::limits::{POLICY_DEPTH_MAX, POLICY_ITEMS_MAX, POLICY_TEXT_BYTES_MAX};

/// The word that stands for every member.
const MEMBERS: &str = "members";
/// Words that no organisation can be called by in a policy.
const RESERVED: [&str; 5] = [MEMBERS, "any", "all", "majority", "k-of"];

/// Why a text is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyTextError {
    /// Over the limit.
    #[error("the policy has more than {POLICY_TEXT_BYTES_MAX} bytes")]
    TooLong,
    /// Something else was expected.
    #[error("at character {at}: expected {expected}")]
    Expected {
        /// Byte offset, from 0.
        at: usize,
        /// What was expected.
        expected: &'static str,
    },
    /// No organisation has this name.
    #[error("at character {at}: no organisation is called '{name}'")]
    Org {
        /// Byte offset, from 0.
        at: usize,
        /// The name.
        name: String,
    },
    /// Well written, and refused.
    #[error("the policy is refused: {0}")]
    Fault(#[from] PolicyFault),
}

impl PolicyTextError {
    /// The stable code that programs match on.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong | Self::Expected { .. } => "policy_text",
            Self::Org { .. } => "policy_org",
            Self::Fault(fault) => fault.code(),
        }
    }
}

impl Policy {
    /// Reads a policy. `org_of` finds an organisation by name.
    ///
    /// # Errors
    /// [`PolicyTextError`] with the place.
    pub fn parse(text: &str, org_of: &dyn Fn(&str) -> Option<OrgId>) -> Result<Self, PolicyTextError> {
        if text.len() > POLICY_TEXT_BYTES_MAX {
            return Err(PolicyTextError::TooLong);
        }
        let mut parser = Parser { text, at: 0, left: POLICY_ITEMS_MAX, org_of };
        let found = match parser.item(1)? {
            Item::Sub(policy) => policy,
            Item::Each(_) => {
                let expected = "a rule around 'members', such as majority(members.admin)";
                return Err(PolicyTextError::Expected { at: 0, expected });
            }
        };
        parser.spaces();
        if parser.at < text.len() {
            return Err(parser.expected("the end"));
        }
        found.form()?;
        Ok(found)
    }

    /// Writes the policy with names where `name_of` has one that a policy can be written with, and
    /// `#id` elsewhere.
    #[must_use]
    pub fn text(&self, name_of: &dyn Fn(OrgId) -> Option<String>) -> String {
        let mut out = String::new();
        self.write_text(&mut out, name_of);
        out
    }

    fn write_text(&self, out: &mut String, name_of: &dyn Fn(OrgId) -> Option<String>) {
        let (quorum, items) = match self {
            Self::One(elector) => {
                match name_of(elector.org).filter(|name| usable(name)) {
                    Some(name) => out.push_str(&name),
                    None => out.push_str(&format!("#{}", elector.org)),
                }
                out.push('.');
                out.push_str(elector.role.word());
                return;
            }
            Self::Rule { quorum, items } => (quorum, items),
        };
        match quorum {
            Quorum::Any => out.push_str("any("),
            Quorum::All => out.push_str("all("),
            Quorum::Majority => out.push_str("majority("),
            Quorum::AtLeast(count) => out.push_str(&format!("k-of({count}, ")),
        }
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                out.push_str(", ");
            }
            match item {
                Item::Each(role) => out.push_str(&format!("{MEMBERS}.{}", role.word())),
                Item::Sub(policy) => policy.write_text(out, name_of),
            }
        }
        out.push(')');
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(&|_| None))
    }
}

fn letter(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// Whether a name can stand in a policy.
fn usable(name: &str) -> bool {
    !name.is_empty() && name.chars().all(letter) && !RESERVED.contains(&name)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    left: usize,
    org_of: &'a dyn Fn(&str) -> Option<OrgId>,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn expected(&self, expected: &'static str) -> PolicyTextError {
        PolicyTextError::Expected { at: self.at, expected }
    }

    fn spaces(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn take(&mut self, mark: char, expected: &'static str) -> Result<(), PolicyTextError> {
        self.spaces();
        if !self.rest().starts_with(mark) {
            return Err(self.expected(expected));
        }
        self.at += mark.len_utf8();
        Ok(())
    }

    fn next_is(&mut self, mark: char) -> bool {
        self.spaces();
        self.rest().starts_with(mark)
    }

    fn word(&mut self, expected: &'static str) -> Result<&'a str, PolicyTextError> {
        let rest = self.rest();
        let len = rest.find(|c| !letter(c)).unwrap_or(rest.len());
        if len == 0 {
            return Err(self.expected(expected));
        }
        self.at += len;
        Ok(&rest[..len])
    }

    fn number(&mut self, expected: &'static str) -> Result<u16, PolicyTextError> {
        let at = self.at;
        let word = self.word(expected)?;
        let digits = word.bytes().all(|byte| byte.is_ascii_digit());
        word.parse().ok().filter(|_| digits).ok_or(PolicyTextError::Expected { at, expected })
    }

    fn role(&mut self) -> Result<Role, PolicyTextError> {
        self.take('.', "'.' and a role")?;
        let at = self.at;
        let expected = "a role: admin, member, node or auditor";
        Role::of_word(self.word(expected)?).ok_or(PolicyTextError::Expected { at, expected })
    }

    fn item(&mut self, depth: usize) -> Result<Item, PolicyTextError> {
        self.left = self.left.checked_sub(1).ok_or(PolicyFault::TooLarge)?;
        self.spaces();
        if self.next_is('#') {
            self.at += 1;
            let org = OrgId(self.number("the number of an organisation")?);
            return Ok(Item::Sub(Policy::One(Elector { org, role: self.role()? })));
        }
        let at = self.at;
        let word = self.word("an organisation, 'members', any, all, majority or k-of")?;
        let rule = match word {
            "any" => Some(Quorum::Any),
            "all" => Some(Quorum::All),
            "majority" => Some(Quorum::Majority),
            "k-of" => Some(Quorum::AtLeast(0)),
            _ => None,
        };
        if let Some(quorum) = rule {
            return self.list(quorum, depth).map(Item::Sub);
        }
        if word == MEMBERS {
            return self.role().map(Item::Each);
        }
        let org = (self.org_of)(word).ok_or_else(|| PolicyTextError::Org { at, name: word.to_owned() })?;
        Ok(Item::Sub(Policy::One(Elector { org, role: self.role()? })))
    }

    /// What stands in the brackets of a rule.
    fn list(&mut self, quorum: Quorum, depth: usize) -> Result<Policy, PolicyTextError> {
        if depth > POLICY_DEPTH_MAX {
            return Err(PolicyFault::TooDeep.into());
        }
        self.take('(', "'('")?;
        let quorum = match quorum {
            Quorum::AtLeast(_) => {
                self.spaces();
                let count = self.number("how many of the list")?;
                self.take(',', "','")?;
                Quorum::AtLeast(count)
            }
            other => other,
        };
        let mut items = vec![self.item(depth + 1)?];
        while self.next_is(',') {
            self.at += 1;
            items.push(self.item(depth + 1)?);
        }
        self.take(')', "',' or ')'")?;
        Ok(Policy::rule(quorum, items))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn org(name: &str) -> Option<OrgId> {
        ["acme", "globex", "initech"].iter().position(|known| *known == name).map(|at| OrgId(at as u16 + 1))
    }

    fn name(org: OrgId) -> Option<String> {
        ["acme", "globex", "initech"].get(usize::from(org.0).checked_sub(1)?).map(|name| (*name).to_owned())
    }

    #[test]
    fn what_people_write_is_read_and_written_in_one_way() {
        for (text, written) in [
            ("acme.admin", "acme.admin"),
            (" any ( globex.admin ,acme.admin ) ", "any(acme.admin, globex.admin)"),
            ("majority(members.admin)", "majority(members.admin)"),
            (
                "k-of(2, acme.admin, all(globex.admin, initech.admin), globex.node)",
                "k-of(2, acme.admin, globex.node, all(globex.admin, initech.admin))",
            ),
            ("all(#9.node, members.admin)", "all(members.admin, #9.node)"),
            ("any(#2.admin, acme.member)", "any(acme.member, globex.admin)"),
        ] {
            let policy = Policy::parse(text, &org).expect(text);
            assert_eq!(policy.text(&name), written);
            assert_eq!(Policy::parse(&policy.text(&name), &org).as_ref(), Ok(&policy), "with names");
            assert_eq!(Policy::parse(&policy.to_string(), &org).as_ref(), Ok(&policy), "with numbers");
        }
    }

    #[test]
    fn what_is_no_policy_is_refused_with_its_place() {
        let expected = |text: &str, at: usize| match Policy::parse(text, &org) {
            Err(PolicyTextError::Expected { at: found, .. }) => assert_eq!(found, at, "{text}"),
            other => panic!("{text}: {other:?}"),
        };
        expected("", 0);
        expected("members.admin", 0);
        expected("acme", 4);
        expected("acme.boss", 5);
        expected("any()", 4);
        expected("any(acme.admin", 14);
        expected("any(acme.admin,)", 15);
        expected("any acme.admin", 4);
        expected("acme.admin globex.admin", 11);
        expected("k-of(acme.admin)", 5);
        expected("k-of(2 acme.admin)", 7);
        expected("k-of(+2, acme.admin)", 5);
        expected("k-of(70000, acme.admin)", 5);
        expected("#x.admin", 1);
        expected("äcme.admin", 0);
        assert_eq!(
            Policy::parse("any(acme.admin, hooli.admin)", &org),
            Err(PolicyTextError::Org { at: 16, name: "hooli".to_owned() })
        );
        for (text, fault) in [
            ("k-of(0, acme.admin)", PolicyFault::Count { needed: 0, of: 1 }),
            ("k-of(3, acme.admin, globex.admin)", PolicyFault::Count { needed: 3, of: 2 }),
            ("any(acme.admin, acme.admin)", PolicyFault::Twice),
            ("k-of(2, members.admin, acme.admin)", PolicyFault::Twice),
            ("any(members.node, members.node)", PolicyFault::Twice),
        ] {
            assert_eq!(Policy::parse(text, &org), Err(PolicyTextError::Fault(fault)), "{text}");
        }
    }

    #[test]
    fn reading_is_bounded_in_length_depth_and_items() {
        let nested = |depth: usize| format!("{}acme.admin{}", "any(".repeat(depth), ")".repeat(depth));
        assert!(Policy::parse(&nested(POLICY_DEPTH_MAX), &org).is_ok());
        assert_eq!(Policy::parse(&nested(POLICY_DEPTH_MAX + 1), &org), Err(PolicyFault::TooDeep.into()));
        assert_eq!(Policy::parse(&nested(1000), &org), Err(PolicyFault::TooDeep.into()));
        let listed = |count: usize| {
            let items: Vec<String> = (0..count).map(|id| format!("#{id}.admin")).collect();
            format!("any({})", items.join(","))
        };
        assert!(Policy::parse(&listed(POLICY_ITEMS_MAX - 1), &org).is_ok());
        assert_eq!(Policy::parse(&listed(POLICY_ITEMS_MAX), &org), Err(PolicyFault::TooLarge.into()));
        assert_eq!(Policy::parse(&" ".repeat(POLICY_TEXT_BYTES_MAX + 1), &org), Err(PolicyTextError::TooLong));
    }

    #[test]
    fn an_organisation_with_a_name_of_the_grammar_is_written_by_number() {
        let policy = Policy::one(OrgId(4), Role::Admin);
        for odd in ["members", "any", "k-of", "two words", "a.b", ""] {
            assert_eq!(policy.text(&|_| Some(odd.to_owned())), "#4.admin");
        }
    }
}
