//! `key`: the encrypted keystore in the cluster's folder. What it does with keys of nodes and organisations stands in
//! `seal`.

use client::KeyInfo;
use serde::Serialize;

use super::context::{Context, new_passphrase};
use super::seal;
use crate::args::Key;
use crate::error::CliError;
use crate::output::{Output, table};

#[derive(Serialize)]
struct Line {
    name: String,
    address: String,
    public_key: String,
    file: String,
}

impl Line {
    fn of(info: &KeyInfo) -> Self {
        Self {
            name: info.name.clone(),
            address: info.address.to_string(),
            public_key: info.public.to_string(),
            file: info.path.display().to_string(),
        }
    }

    fn text(&self) -> String {
        format!(
            "key {}\n  address     {}\n  public key  {}\n  file        {}",
            self.name, self.address, self.public_key, self.file
        )
    }
}

#[derive(Serialize)]
struct List {
    keys: Vec<Line>,
    /// Key files that cannot be read, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<String>,
}

pub(super) fn run(command: Key, output: Output) -> Result<(), CliError> {
    match command {
        Key::New { target, name } => {
            let store = Context::new(&target)?.keystore();
            // Before anybody thinks of a passphrase for a name that is taken or is none.
            match store.show(&name) {
                Ok(_) => return Err(client::KeystoreError::Exists(name).into()),
                Err(client::KeystoreError::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
            let line = Line::of(&store.generate(&name, &new_passphrase(&name)?)?);
            output.result(&line, || line.text())
        }
        Key::Seal { paths, passphrase_file } => seal::run(&paths, passphrase_file.as_deref(), output),
        Key::Reveal { file, passphrase_file } => seal::reveal(&file, passphrase_file, output),
        Key::Show { target, name } => {
            let line = Line::of(&Context::new(&target)?.keystore().show(&name)?);
            output.result(&line, || line.text())
        }
        Key::List { target } => {
            let found = Context::new(&target)?.keystore().list()?;
            let unreadable = found.unreadable.iter().map(ToString::to_string).collect();
            let list = List { keys: found.keys.iter().map(Line::of).collect(), unreadable };
            output.result(&list, || {
                if list.keys.is_empty() && list.unreadable.is_empty() {
                    return "no keys; 'seamark key new NAME' makes one".to_owned();
                }
                table(["name", "address"], list.keys.iter().map(|line| [line.name.clone(), line.address.clone()]))
            })?;
            // Those that can be read are of use without it; the exit code still says that something is wrong.
            found.unreadable.into_iter().next().map_or(Ok(()), |error| Err(CliError::from(error).after_report()))
        }
    }
}
