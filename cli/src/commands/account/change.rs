//! `account freeze`, `thaw`, `release`, `return`, `limit` and `data`: one move each.

use client::{Client, Consistency};
use ledger::tx::AccountWrite;
use ledger::{Address, Move};
use serde::Serialize;

use super::super::context::{Context, amount, assets_of};
use super::super::done::execute;
use crate::args::{AccountCommand, AmountOf, DataCommand, Owned, Target};
use crate::draft::words::{Labels, quoted};
use crate::error::CliError;
use crate::load::sign::Party;
use crate::output::{Output, table};

pub(super) async fn run(command: AccountCommand, output: Output) -> Result<(), CliError> {
    match command {
        AccountCommand::Freeze(owned) => write(&owned, AccountWrite::Frozen(true), output).await,
        AccountCommand::Thaw(owned) => write(&owned, AccountWrite::Frozen(false), output).await,
        AccountCommand::Release { owned, of } => {
            let context = Context::new(&owned.target)?;
            let (amount, asset) = (amount(&of.amount)?, context.asset(&of.asset)?);
            let (account, party) = holder(&context, &owned)?;
            finish(&context, &party, Move::Release { account, asset, amount }, output).await
        }
        AccountCommand::Return { owned, of, to } => give_back(&owned, &of, &to, output).await,
        AccountCommand::Limit { owned, asset, per_tx, lift: _ } => {
            let asset = Context::new(&owned.target)?.asset(&asset)?;
            // A limit of zero forbids every debit, so it is a limit like any other.
            let per_tx = per_tx.as_deref().map(|text| if text == "0" { Ok(0) } else { amount(text) }).transpose()?;
            write(&owned, AccountWrite::Limit { asset, per_tx }, output).await
        }
        AccountCommand::Data(DataCommand::Set { owned, entry, value }) => {
            let write_data = AccountWrite::Data { key: entry.into_bytes(), value: Some(value.into_bytes()) };
            write(&owned, write_data, output).await
        }
        AccountCommand::Data(DataCommand::Remove { owned, entry }) => {
            write(&owned, AccountWrite::Data { key: entry.into_bytes(), value: None }, output).await
        }
        AccountCommand::Data(DataCommand::Get { target, account, entry }) => {
            get(&target, &account, entry.as_deref(), output).await
        }
    }
}

/// The account that is changed, and the key that signs for it.
fn holder(context: &Context, owned: &Owned) -> Result<(Address, Party), CliError> {
    let account = context.address(&owned.account)?;
    let key = match &owned.key {
        Some(key) => key.clone(),
        None => context.labels().accounts.remove(&account).ok_or_else(|| {
            let cause = format!("the keystore has no key that account {account} started with");
            CliError::new(
                "no_key",
                cause,
                "name the account's key with --key; for several keys, see 'seamark tx build --help'",
            )
        })?,
    };
    Ok((account, context.party(Some(&key))?))
}

async fn write(owned: &Owned, write: AccountWrite, output: Output) -> Result<(), CliError> {
    let context = Context::new(&owned.target)?;
    let (account, party) = holder(&context, owned)?;
    finish(&context, &party, Move::Write { account, write }, output).await
}

async fn give_back(owned: &Owned, of: &AmountOf, to: &str, output: Output) -> Result<(), CliError> {
    let context = Context::new(&owned.target)?;
    let (amount, asset, to) = (amount(&of.amount)?, context.asset(&of.asset)?, context.address(to)?);
    let (account, party) = holder(&context, owned)?;
    // The account's own key, also a newer one, signs for the account; another key for the issuer.
    let client = context.client().await?;
    let by = if issues(&client, &party, asset).await? { party.address } else { account };
    finish_with(&context, &client, &party, Move::Return { by, account, to, asset, amount }, output).await
}

async fn issues(client: &Client, party: &Party, asset: ledger::AssetId) -> Result<bool, CliError> {
    Ok(client.asset(asset, None).await?.value.is_some_and(|asset| asset.spec.issuer == party.address))
}

async fn finish(context: &Context, party: &Party, mv: Move, output: Output) -> Result<(), CliError> {
    let client = context.client().await?;
    finish_with(context, &client, party, mv, output).await
}

async fn finish_with(
    context: &Context,
    client: &Client,
    party: &Party,
    mv: Move,
    output: Output,
) -> Result<(), CliError> {
    let mut labels: Labels = context.labels();
    context.label_assets(client, assets_of(std::iter::once(&mv)), &mut labels).await;
    execute(client, party, mv.clone(), labels.sentence(&mv), output).await
}

#[derive(Serialize)]
struct Entry {
    /// As text where it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    key_hex: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    value_hex: String,
}

#[derive(Serialize)]
struct Data {
    account: String,
    height: u64,
    data: Vec<Entry>,
}

async fn get(target: &Target, account: &str, entry: Option<&str>, output: Output) -> Result<(), CliError> {
    let context = Context::new(target)?;
    let address = context.address(account)?;
    let client = context.client().await?;
    let (mut found, mut after, mut height) = (Vec::new(), None::<Vec<u8>>, 0);
    loop {
        let answer = client.account_view(address, Consistency::Linearizable, after.as_deref()).await?;
        height = answer.height.0.max(height);
        let Some(view) = answer.value else { break };
        after = view.data.last().map(|(key, _)| key.clone());
        found.extend(view.data);
        if !view.more_data || after.is_none() {
            break;
        }
    }
    if let Some(entry) = entry {
        found.retain(|(key, _)| key == entry.as_bytes());
        if found.is_empty() {
            let cause = format!("account {address} has no entry '{entry}'");
            return Err(CliError::new("not_found", cause, "see all with 'seamark account data get ACCOUNT'"));
        }
    }
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(ToOwned::to_owned);
    let line = |(key, value): &(Vec<u8>, Vec<u8>)| Entry {
        key: text(key),
        key_hex: hex::encode(key),
        value: text(value),
        value_hex: hex::encode(value),
    };
    let data = Data { account: address.to_string(), height, data: found.iter().map(line).collect() };
    output.result(&data, || match (entry, found.as_slice()) {
        (Some(_), [(_, value)]) => text(value).unwrap_or_else(|| quoted(value)),
        (_, []) => format!("account {address} has no data"),
        (_, found) => table(["entry", "value"], found.iter().map(|(key, value)| [quoted(key), quoted(value)])),
    })
}
