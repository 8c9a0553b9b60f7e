//! Entries of an account that have names of their own: records, what a party was granted of one, and
//! hash-locks.
//!
//! Owns which entries can be asked for by name, how a name stands in a question and in a proof, and what it is
//! a name of. Pure.

use borsh::BorshDeserialize;
use borsh::io::Result as IoResult;
use ledger::lock::Lock;
use ledger::record::{GrantLog, Grantee, Record};
use ledger::{Address, Hash32, LockId, OrgId, schema};

/// An entry by its name below an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryName {
    /// The record of this hash.
    Record(Hash32),
    /// What this party was ever granted of the record of this hash.
    Grants(Hash32, Grantee),
    /// The hash-lock with this id, of which the account is the payer.
    Lock(LockId),
}

/// What an account has under a name; `None` where it has nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Of [`EntryName::Record`].
    Record(Hash32, Option<Record>),
    /// Of [`EntryName::Grants`].
    Grants(Hash32, Grantee, Option<GrantLog>),
    /// Of [`EntryName::Lock`].
    Lock(LockId, Option<Lock>),
}

impl EntryName {
    /// Key of the entry in the state.
    #[must_use]
    pub fn state_key(&self, account: &Address) -> Vec<u8> {
        match self {
            Self::Record(hash) => schema::record(account, hash),
            Self::Grants(record, who) => schema::grant(account, record, who),
            Self::Lock(id) => schema::lock(account, id),
        }
    }

    /// The part of that key behind the account's: a kind byte, and what tells entries of a kind apart.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        // It is the same for every account.
        let any = Address::default();
        self.state_key(&any).split_off(schema::of_account(&any).len())
    }

    /// The name that such a part of a key is; `None` of entries that are not asked for by name.
    #[must_use]
    pub fn of_key(key: &[u8]) -> Option<Self> {
        let hash = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).ok().map(Hash32);
        let (kind, rest) = key.split_first()?;
        match *kind {
            schema::KIND_RECORD => hash(rest).map(Self::Record),
            schema::KIND_LOCK => hash(rest).map(|id| Self::Lock(LockId(id))),
            schema::KIND_GRANT => {
                let (record, party) = rest.split_first_chunk()?;
                let who = match party.split_first()? {
                    (0, address) => Grantee::Account(Address(address.try_into().ok()?)),
                    (1, org) => Grantee::Org(OrgId(u16::from_be_bytes(org.try_into().ok()?))),
                    _ => return None,
                };
                Some(Self::Grants(Hash32(*record), who))
            }
            _ => None,
        }
    }
}

impl Entry {
    /// What stands under a name, by its encoded value.
    ///
    /// # Errors
    /// Where the value is none of what the name is for.
    pub fn decode(name: EntryName, value: Option<&[u8]>) -> IoResult<Self> {
        fn read<T: BorshDeserialize>(value: Option<&[u8]>) -> IoResult<Option<T>> {
            value.map(borsh::from_slice).transpose()
        }
        Ok(match name {
            EntryName::Record(hash) => Self::Record(hash, read(value)?),
            EntryName::Grants(record, who) => Self::Grants(record, who, read(value)?),
            EntryName::Lock(id) => Self::Lock(id, read(value)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_from_their_keys_and_nothing_else_is_a_name() {
        let hash = Hash32([7; 32]);
        let names = [
            EntryName::Record(hash),
            EntryName::Grants(hash, Grantee::Account(Address([3; 20]))),
            EntryName::Grants(hash, Grantee::Org(OrgId(0x0102))),
            EntryName::Lock(LockId(hash)),
        ];
        let account = Address([9; 20]);
        for name in names {
            let key = name.key();
            assert_eq!(EntryName::of_key(&key), Some(name));
            assert_eq!(name.state_key(&account), [schema::of_account(&account), key.clone()].concat());
            for length in 0..key.len() {
                assert_eq!(EntryName::of_key(&key[..length]), None, "{name:?} cut to {length}");
            }
            assert_eq!(EntryName::of_key(&[&key[..], &[0]].concat()), None);
        }
        // Neither the account itself, nor the number of its records, nor what other kinds hold.
        for kind in 0..=255u8 {
            let named = EntryName::of_key(&[&[kind][..], &[7; 32]].concat()).is_some();
            assert_eq!(named, [schema::KIND_RECORD, schema::KIND_LOCK].contains(&kind), "{kind}");
            assert_eq!(EntryName::of_key(&[kind]), None);
        }
        let foreign = [&[schema::KIND_GRANT][..], &[7; 32], &[2, 0, 1]].concat();
        assert_eq!(EntryName::of_key(&foreign), None, "there is no third kind of party");
    }
}
