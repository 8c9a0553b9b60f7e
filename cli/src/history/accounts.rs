//! The account strings of the input, each stored once and known by its index.
//!
//! Never changes a string: case, spaces inside and length stay as they were
//! read, because the state hash and the derived keys depend on them.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

/// Index of an account in [`Accounts`], in the order of first mention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountIx(pub u32);

impl AccountIx {
    /// The index as a position in a table with one entry an account.
    #[must_use]
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// The input names more accounts than an index can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {} accounts: split the input", u32::MAX)]
pub struct TooManyAccounts;

/// Interned account strings.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    names: Vec<Box<str>>,
    lookup: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Accounts {
    /// The index of `name`, a new one if it was not known.
    ///
    /// # Errors
    /// When every index is taken.
    pub fn intern(&mut self, name: &str) -> Result<AccountIx, TooManyAccounts> {
        if let Some(known) = self.get(name) {
            return Ok(known);
        }
        let ix = u32::try_from(self.names.len()).map_err(|_| TooManyAccounts)?;
        let Self { names, lookup, hasher } = self;
        names.push(name.into());
        lookup.insert_unique(hasher.hash_one(name), ix, |&other| hasher.hash_one(&*names[other as usize]));
        Ok(AccountIx(ix))
    }

    /// The index of `name`, if it was mentioned.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<AccountIx> {
        let same = |&ix: &u32| &*self.names[ix as usize] == name;
        self.lookup.find(self.hasher.hash_one(name), same).copied().map(AccountIx)
    }

    /// The string of an account; empty for an index that was never handed out.
    #[must_use]
    pub fn name(&self, ix: AccountIx) -> &str {
        self.names.get(ix.at()).map_or("", |name| name)
    }

    /// How many accounts there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Every account in the order of first mention.
    pub fn iter(&self) -> impl Iterator<Item = (AccountIx, &str)> {
        (0u32..).map(AccountIx).zip(self.names.iter().map(|name| &**name))
    }

    /// Every account, sorted by the bytes of its string.
    #[must_use]
    pub fn sorted(&self) -> Vec<AccountIx> {
        let mut all: Vec<AccountIx> = self.iter().map(|(ix, _)| ix).collect();
        all.sort_unstable_by_key(|&ix| self.name(ix));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_index_and_an_index_one_name() {
        let mut accounts = Accounts::default();
        let names: Vec<String> = (0..5_000).map(|n| format!("account {n}")).collect();
        for (n, name) in names.iter().enumerate() {
            assert_eq!(accounts.intern(name).unwrap().at(), n);
        }
        for (n, name) in names.iter().enumerate() {
            assert_eq!(accounts.intern(name).unwrap().at(), n);
            assert_eq!(accounts.get(name).map(AccountIx::at), Some(n));
            assert_eq!(accounts.name(AccountIx(n as u32)), name);
        }
        assert_eq!(accounts.len(), 5_000);
        assert_eq!(accounts.get("Account 1"), None);
        assert_eq!(accounts.name(AccountIx(5_000)), "");
    }

    #[test]
    fn sorting_is_by_bytes() {
        let mut accounts = Accounts::default();
        for name in ["b", "a10", "a2", "B", "é", "a"] {
            accounts.intern(name).unwrap();
        }
        let sorted: Vec<&str> = accounts.sorted().into_iter().map(|ix| accounts.name(ix)).collect();
        assert_eq!(sorted, ["B", "a", "a10", "a2", "b", "é"]);
    }
}
