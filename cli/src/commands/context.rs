//! What several commands need: the cluster's folder, its client, its keys, and values of the
//! command line that stand for something else.

use std::path::{Path, PathBuf};

use client::{Client, KeptTxs, Keystore, Profile};
use ledger::{Address, AssetId};

use crate::args::Target;
use crate::error::CliError;
use crate::load::sign::Party;
use crate::setup::ClusterDir;

/// The passphrase of keys, for programs that cannot be asked.
const PASSPHRASE_VARIABLE: &str = "SEAMARK_PASSPHRASE";

/// The cluster that a command talks to.
pub(super) struct Context {
    dir: PathBuf,
}

impl Context {
    pub(super) fn new(target: &Target) -> Result<Self, CliError> {
        let dir = match &target.dir {
            Some(dir) => dir.clone(),
            None => client::profile::default_dir()?,
        };
        Ok(Self { dir })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) async fn client(&self) -> Result<Client, CliError> {
        Ok(Client::connect(&Profile::load_dir(&self.dir)?).await?)
    }

    /// The signed transactions whose fate is open.
    pub(super) fn kept(&self, client: &Client) -> KeptTxs {
        KeptTxs::new(self.dir.join("transactions"), client.cluster_id())
    }

    pub(super) fn keystore(&self) -> Keystore {
        Keystore::new(self.dir.join("keys"))
    }

    /// The account that signs: a key of the keystore, or the operator of a cluster whose folder
    /// this is.
    pub(super) fn party(&self, key: Option<&str>) -> Result<Party, CliError> {
        match key {
            Some(name) => {
                // Before the passphrase is asked for.
                self.keystore().show(name)?;
                Ok(Party::of(self.keystore().unlock(name, &passphrase(name)?)?))
            }
            None => operator(&self.dir),
        }
    }

    /// An address as it stands, or that of a key's name.
    pub(super) fn address(&self, text: &str) -> Result<Address, CliError> {
        if let Ok(address) = text.parse() {
            return Ok(address);
        }
        match self.keystore().show(text) {
            Ok(info) => Ok(info.address),
            Err(client::KeystoreError::NotFound(_) | client::KeystoreError::Name(_)) => Err(CliError::new(
                "address",
                format!("'{text}' is neither an account address nor the name of a key"),
                "use an address such as sm1..., or a name of 'seamark key list'; check for a typing error",
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// An asset by its id, by `ISSUER/SYMBOL`, or by a symbol of the operator's.
    pub(super) fn asset(&self, text: &str) -> Result<AssetId, CliError> {
        if let Ok(id) = text.parse() {
            return Ok(id);
        }
        match text.split_once('/') {
            Some((issuer, symbol)) => Ok(AssetId::derive(&self.address(issuer)?, symbol)),
            None => match operator(&self.dir) {
                Ok(operator) => Ok(AssetId::derive(&operator.address, text)),
                Err(_) => Err(CliError::new(
                    "asset",
                    format!("'{text}' is no asset id, and without an operator's key it cannot be a symbol of theirs"),
                    "use the asset's id, or ISSUER/SYMBOL",
                )),
            },
        }
    }
}

/// Nobody has issued what was named.
pub(super) fn unknown_asset(named: &str, id: &AssetId) -> CliError {
    let derived = if named == id.to_string() { String::new() } else { format!(" (its id would be {id})") };
    CliError::new(
        ledger::Reject::UnknownAsset.code(),
        format!("there is no asset '{named}'{derived}"),
        "check the id, or name it as ISSUER/SYMBOL; a symbol alone is one of the operator's",
    )
}

/// The operator of a cluster whose folder is here: the first organisation's admin.
pub(super) fn operator(dir: &Path) -> Result<Party, CliError> {
    let dir = ClusterDir::at(dir);
    let missing = || {
        let cause = format!("{} holds no operator's key", dir.root().display());
        CliError::new("no_operator", cause, "name a key with --key, or the folder of a cluster made here with --dir")
    };
    let genesis = dir.genesis().map_err(|_| missing())?;
    let org = genesis.orgs.first().ok_or_else(missing)?;
    if !dir.admin_dir(&org.name).exists() {
        return Err(missing());
    }
    Ok(Party::of(dir.admin_key(&org.name)?))
}

/// The passphrase of a key that exists.
fn passphrase(name: &str) -> Result<String, CliError> {
    match from_environment() {
        Some(passphrase) => Ok(passphrase),
        None => ask(&format!("Passphrase of key '{name}': ")),
    }
}

/// A passphrase for a new key, asked for twice.
pub(super) fn new_passphrase(name: &str) -> Result<String, CliError> {
    if let Some(passphrase) = from_environment() {
        return Ok(passphrase);
    }
    let first = ask(&format!("Passphrase for the new key '{name}': "))?;
    if first.is_empty() {
        return Err(CliError::new(
            "passphrase_empty",
            "the passphrase is empty",
            "choose one; without it, whoever has the file has the key",
        ));
    }
    if ask("The same again: ")? != first {
        return Err(CliError::new("passphrase_differs", "the two passphrases differ", "run the command again"));
    }
    Ok(first)
}

fn from_environment() -> Option<String> {
    std::env::var(PASSPHRASE_VARIABLE).ok().filter(|value| !value.is_empty())
}

fn ask(prompt: &str) -> Result<String, CliError> {
    rpassword::prompt_password(prompt).map_err(|error| {
        let cause = format!("the passphrase cannot be asked for: {error}");
        CliError::new("passphrase_prompt", cause, format!("run it in a terminal, or set {PASSPHRASE_VARIABLE}"))
    })
}

/// An amount in the smallest unit of its asset: decimal digits, above zero, at most 128 bits.
pub(super) fn amount(text: &str) -> Result<u128, CliError> {
    let wrong = |code: &str, cause: String, fix: &str| Err(CliError::usage(code, cause, fix));
    let unit = "give a whole number of the asset's smallest unit, such as 250 for 2.50 with two decimals";
    if let Some(rest) = text.strip_prefix('-')
        && rest.starts_with(|c: char| c.is_ascii_digit())
    {
        return wrong(
            "amount_negative",
            format!("the amount {text} is negative"),
            "to take money back, its holder has to pay it",
        );
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return wrong("amount_form", format!("'{text}' is no amount"), unit);
    }
    match text.parse::<u128>() {
        Ok(0) => wrong("zero_amount", "the amount is zero".to_owned(), "give an amount above zero"),
        Ok(amount) => Ok(amount),
        Err(_) => wrong("amount_overflow", format!("the amount {text} exceeds 128 bits"), "use a smaller amount"),
    }
}

/// Takes a text of the command line as an id.
pub(super) fn id<T: std::str::FromStr>(code: &str, text: &str) -> Result<T, CliError>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| CliError::usage(code, error, "copy it whole from where it was shown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_digits_above_zero() {
        assert_eq!(amount("1"), Ok(1));
        assert_eq!(amount(&u128::MAX.to_string()), Ok(u128::MAX));
        for (text, code) in [
            ("0", "zero_amount"),
            ("-5", "amount_negative"),
            ("-", "amount_form"),
            ("", "amount_form"),
            ("1.5", "amount_form"),
            ("1e3", "amount_form"),
            ("340282366920938463463374607431768211456", "amount_overflow"),
        ] {
            let error = amount(text).unwrap_err();
            assert_eq!((error.code.as_str(), error.exit), (code, 2), "{text}");
            assert!(!error.fix.is_empty());
        }
    }

    #[test]
    fn accounts_and_assets_by_several_names() {
        let folder = tempfile::tempdir().unwrap();
        let context = Context::new(&Target { dir: Some(folder.path().to_owned()) }).unwrap();
        let cheap = client::keystore::KdfCost { memory_kib: 8, passes: 1, lanes: 1 };
        let key = ledger::SecretKey::derive(b"test", b"alice");
        let info = context.keystore().with_cost(cheap).create("alice", &key, "secret").unwrap();
        assert_eq!(context.address("alice"), Ok(info.address));
        assert_eq!(context.address(&info.address.to_string()), Ok(info.address));
        assert_eq!(context.address("sm1nobody").unwrap_err().code, "address");
        let asset = AssetId::derive(&info.address, "EUR");
        assert_eq!(context.asset("alice/EUR"), Ok(asset));
        assert_eq!(context.asset(&format!("{}/EUR", info.address)), Ok(asset));
        assert_eq!(context.asset(&asset.to_string()), Ok(asset));
        assert_eq!(context.asset("EUR").unwrap_err().code, "asset");
        assert_eq!(context.party(None).unwrap_err().code, "no_operator");
        assert_eq!(context.party(Some("bob")).unwrap_err().code, "key_not_found");
    }
}
