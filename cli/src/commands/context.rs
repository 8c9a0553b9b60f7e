//! What several commands need: the cluster's folder, its client, its keys, and values of the
//! command line and of forms that stand for something else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use client::profile::RouterEndpoint;
use client::secrets::PASSPHRASE_VARIABLE;
use client::{Client, KeptTxs, Keystore, KeystoreError, Profile};
use ledger::{Address, AssetId, Move, NodeId, OrgId, PublicKey};
use zeroize::Zeroizing;

use super::amounts::definitions;
use crate::args::Target;
use crate::draft::Names;
use crate::draft::words::Labels;
use crate::error::CliError;
use crate::load::sign::Party;
use crate::setup::{ClusterDir, KEYS_DIR, TRANSACTIONS_DIR};

/// What the operator's key is called where a key's name is expected, unless the keystore has one of
/// that name.
const OPERATOR: &str = "operator";
/// The certificate of an organisation's admin in its folder, and the key of it.
pub(super) const ADMIN_FILES: [&str; 2] = ["admin.pem", "admin.key"];

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

    pub(super) fn profile(&self) -> Result<Profile, CliError> {
        Ok(Profile::load_dir(&self.dir)?)
    }

    pub(super) async fn client(&self) -> Result<Client, CliError> {
        Ok(Client::connect(&self.profile()?).await?)
    }

    /// A client that is let in as an organisation's admin, where the folder has that certificate, and
    /// else as the profile says: what a channel shows depends on whose certificate asks.
    pub(super) async fn client_of(&self, org: &str) -> Result<Client, CliError> {
        Ok(Client::connect(&self.profile_of(org)?).await?)
    }

    /// As [`Self::client_of`], over no router that the genesis knows to be of another organisation than these: what a client
    /// sends to a channel is not hidden from the router that carries it.
    pub(super) async fn client_among(&self, org: &str, orgs: &BTreeSet<OrgId>) -> Result<Client, CliError> {
        let mut profile = self.profile_of(org)?;
        let genesis = profile.genesis()?;
        retain_among(&mut profile.routers, orgs, |node| genesis.node(node).map(|info| info.org));
        if profile.routers.is_empty() {
            let cause = "the profile lists no router of an organisation that may be told this, and no other one is";
            return Err(CliError::new("unreachable", cause, "add the router of a node of one's own to client.toml"));
        }
        Ok(Client::connect(&profile).await?)
    }

    fn profile_of(&self, org: &str) -> Result<Profile, CliError> {
        let mut profile = self.profile()?;
        let folder = ClusterDir::at(&self.dir).admin_dir(org);
        let [cert, key] = ADMIN_FILES.map(|name| folder.join(name));
        if cert.exists() && key.exists() {
            // A profile's own paths start from its folder, these from where the command was called.
            profile.cert = std::path::absolute(&cert).map_err(|error| CliError::file(&cert, &error))?;
            profile.key = std::path::absolute(&key).map_err(|error| CliError::file(&key, &error))?;
        }
        Ok(profile)
    }

    /// The signed transactions whose fate is open.
    pub(super) fn kept(&self, client: &Client) -> KeptTxs {
        KeptTxs::new(self.dir.join(TRANSACTIONS_DIR), client.cluster_id())
    }

    pub(super) fn keystore(&self) -> Keystore {
        Keystore::new(self.dir.join(KEYS_DIR))
    }

    /// The account that signs: a key of the keystore, or the operator of a cluster whose folder
    /// this is.
    pub(super) fn party(&self, key: Option<&str>) -> Result<Party, CliError> {
        match key {
            // The name is looked up before the passphrase is asked for.
            Some(name) => match self.keystore().show(name) {
                Ok(_) => Ok(Party::of(self.keystore().unlock(name, &passphrase(name)?)?)),
                Err(KeystoreError::NotFound(_)) if name == OPERATOR => self.operator(),
                Err(error) => Err(error.into()),
            },
            None => self.operator(),
        }
    }

    /// The operator of this cluster. Without any cluster here, that is what is said.
    fn operator(&self) -> Result<Party, CliError> {
        operator(&self.dir).or_else(|error| self.profile().and(Err(error)))
    }

    /// The key of this name, without its secret.
    fn public(&self, name: &str) -> Result<Option<(Address, PublicKey)>, CliError> {
        match self.keystore().show(name) {
            Ok(info) => Ok(Some((info.address, info.public))),
            Err(KeystoreError::NotFound(_)) if name == OPERATOR => {
                let operator = self.operator()?;
                Ok(Some((operator.address, operator.key.public())))
            }
            Err(KeystoreError::NotFound(_) | KeystoreError::Name(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// An address as it stands, or that of a key's name.
    pub(super) fn address(&self, text: &str) -> Result<Address, CliError> {
        if let Ok(address) = text.parse() {
            return Ok(address);
        }
        match self.public(text)? {
            Some((address, _)) => Ok(address),
            None => Err(CliError::new(
                "address",
                format!("'{text}' is neither an account address nor the name of a key"),
                "use an address such as sm1..., or a name of 'seamark key list'; check for a typing error",
            )),
        }
    }

    /// What the keystore calls accounts and keys.
    pub(super) fn labels(&self) -> Labels {
        let mut labels = Labels::default();
        if let Ok(operator) = operator(&self.dir) {
            labels.accounts.insert(operator.address, OPERATOR.to_owned());
            labels.keys.insert(operator.key.public(), OPERATOR.to_owned());
        }
        // Names are a convenience here: a damaged key file must not keep anybody from looking.
        for info in self.keystore().list().map(|list| list.keys).unwrap_or_default() {
            labels.accounts.insert(info.address, info.name.clone());
            labels.keys.insert(info.public, info.name);
        }
        labels
    }

    /// Adds what the beacon calls these assets, and their decimals; those that it does not tell stay
    /// ids. A symbol alone is the operator's asset; others have their issuer before it, since anybody
    /// may issue an asset under any symbol.
    pub(super) async fn label_assets(
        &self,
        client: &Client,
        ids: impl IntoIterator<Item = AssetId>,
        labels: &mut Labels,
    ) {
        let operator = operator(&self.dir).ok().map(|operator| operator.address);
        let unknown: Vec<AssetId> = ids.into_iter().filter(|id| !labels.assets.contains_key(id)).collect();
        for asset in definitions(client, unknown).await {
            let (issuer, symbol) = (asset.spec.issuer, asset.spec.symbol);
            let label = if operator == Some(issuer) { symbol } else { format!("{}/{symbol}", labels.account(&issuer)) };
            labels.assets.insert(asset.id, label);
            labels.decimals.insert(asset.id, asset.spec.decimals);
        }
    }

    /// An asset by its id, by `ISSUER/SYMBOL`, or by a symbol of the operator's.
    pub(super) fn asset(&self, text: &str) -> Result<AssetId, CliError> {
        if let Ok(id) = text.parse() {
            return Ok(id);
        }
        match text.split_once('/') {
            Some((issuer, symbol)) => Ok(AssetId::derive(&self.address(issuer)?, symbol)),
            None => match self.operator() {
                Ok(operator) => Ok(AssetId::derive(&operator.address, text)),
                Err(error) if error.code == "no_operator" => Err(CliError::new(
                    "asset",
                    format!("'{text}' is no asset id, and without an operator's key it cannot be a symbol of theirs"),
                    "use the asset's id, or ISSUER/SYMBOL",
                )),
                Err(error) => Err(error),
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

impl Names for Context {
    fn account(&self, text: &str) -> Result<Address, CliError> {
        self.address(text)
    }

    fn asset(&self, text: &str) -> Result<AssetId, CliError> {
        Self::asset(self, text)
    }

    fn key(&self, text: &str) -> Result<PublicKey, CliError> {
        let mut key = [0; 33];
        if hex::decode_to_slice(text, &mut key).is_ok() {
            return Ok(PublicKey(key));
        }
        match self.public(text)? {
            Some((_, key)) => Ok(key),
            None => Err(CliError::new(
                "public_key",
                format!("'{text}' is neither a public key nor the name of one"),
                "use 66 hex digits as 'seamark key show' prints them, or a name of 'seamark key list'",
            )),
        }
    }
}

/// The assets that moves name.
pub(super) fn assets_of<'a>(moves: impl Iterator<Item = &'a Move>) -> Vec<AssetId> {
    use ledger::tx::{AccountWrite, Condition};
    let mut assets: Vec<AssetId> = moves
        .filter_map(|mv| match mv {
            Move::Pay { asset, .. }
            | Move::PaySync { asset, .. }
            | Move::Mint { asset, .. }
            | Move::Burn { asset, .. }
            | Move::Freeze { asset, .. }
            | Move::Release { asset, .. }
            | Move::Return { asset, .. }
            | Move::Lock { asset, .. }
            | Move::Transfer { asset, .. } => Some(*asset),
            Move::Claim { terms, .. } | Move::Refund { terms, .. } => Some(terms.asset),
            Move::Check { condition, .. } => match condition {
                Condition::AtLeast { asset, .. } | Condition::AtMost { asset, .. } | Condition::NotFrozen(asset) => {
                    Some(*asset)
                }
                Condition::Version(_) | Condition::Consent => None,
            },
            Move::Write { write: AccountWrite::Limit { asset, .. }, .. } => Some(*asset),
            Move::Write { .. }
            | Move::Issue(_)
            | Move::Rotate { .. }
            | Move::Record { .. }
            | Move::Grant { .. }
            | Move::Revoke { .. } => None,
        })
        .collect();
    assets.sort_unstable();
    assets.dedup();
    assets
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
pub(super) fn passphrase(name: &str) -> Result<Zeroizing<String>, CliError> {
    match from_environment() {
        Some(passphrase) => Ok(passphrase),
        None => ask(&format!("Passphrase of key '{name}': ")),
    }
}

/// A passphrase for a new key, asked for twice.
pub(super) fn new_passphrase(name: &str) -> Result<Zeroizing<String>, CliError> {
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

fn from_environment() -> Option<Zeroizing<String>> {
    std::env::var(PASSPHRASE_VARIABLE).ok().map(Zeroizing::new).filter(|value| !value.is_empty())
}

fn ask(prompt: &str) -> Result<Zeroizing<String>, CliError> {
    rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(|error| {
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

/// Takes out the routers that are known to be of other organisations than these.
fn retain_among(routers: &mut Vec<RouterEndpoint>, orgs: &BTreeSet<OrgId>, org_of: impl Fn(NodeId) -> Option<OrgId>) {
    routers.retain(|router| router.node.and_then(&org_of).is_none_or(|org| orgs.contains(&org)));
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
    fn what_is_for_some_organisations_goes_over_no_router_of_another_one() {
        let router = |node: Option<u32>, addr: &str| RouterEndpoint {
            node: node.map(NodeId),
            addr: addr.to_owned(),
            server_name: "router".to_owned(),
        };
        let mut routers =
            vec![router(Some(1), "a:1"), router(Some(2), "b:1"), router(None, "c:1"), router(Some(4), "d:1")];
        // Node 4 came after the genesis; whose a router without a node is, nobody says.
        let org_of = |node: NodeId| (node.0 < 4).then(|| OrgId(u16::try_from(node.0).unwrap()));
        retain_among(&mut routers, &BTreeSet::from([OrgId(2), OrgId(3)]), org_of);
        assert_eq!(routers.iter().map(|router| router.addr.as_str()).collect::<Vec<_>>(), ["b:1", "c:1", "d:1"]);
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
        assert_eq!(context.asset("EUR").unwrap_err().code, "profile_missing", "there is no cluster at all");
        assert_eq!(context.party(None).unwrap_err().code, "profile_missing");
        assert_eq!(context.party(Some("bob")).unwrap_err().code, "key_not_found");
    }
}
