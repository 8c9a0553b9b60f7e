//! The SDK of Seamark: profiles, keystore, mutual TLS, submitting and reading with proofs. The
//! command line and the nodes are built on it.
//!
//! Owns everything a process needs to be a client of a cluster. It never knows which shard an
//! account lives in: the router does (crate `router`), and every answer can be proved against the
//! genesis alone ([`proof::verify`]).
//!
//! # A payment
//! ```no_run
//! use client::{Client, Consistency, Keystore, Profile, SubmitOptions, Wait};
//!
//! # async fn example(asset: ledger::AssetId, payee: ledger::Address, signed: Vec<bytes::Bytes>)
//! # -> Result<(), client::ClientError> {
//! // `seamark up` wrote the profile; $SEAMARK_DIR or ~/.seamark/dev is where it is looked for.
//! let profile = Profile::load_default()?;
//! let client = Client::connect(&profile).await?;
//!
//! // Keys are encrypted at rest. The passphrase comes from the caller.
//! let keys = Keystore::new(profile.base.join("keys"));
//! let alice = keys.unlock("alice", "correct horse battery staple")?;
//!
//! // Final in Alice's shard when this returns, and credited wherever the payee lives. An error after
//! // signing carries the signed bytes: send those again, never call `pay` again for the same debt.
//! let receipt = match client.pay(&alice, payee, asset, 250, Wait::Applied).await {
//!     Err(client::ClientError::Unsettled { tx, .. }) => client.settle(tx, Wait::Applied).await?,
//!     settled => settled?,
//! };
//! println!("{} is in block {} of {}", receipt.txid, receipt.height, receipt.group);
//!
//! // A read with a proof that has been checked against the genesis of the profile.
//! let answer = client.account(payee, Consistency::Linearizable, true).await?;
//! println!("{:?} at height {}", answer.value, answer.height);
//!
//! // Any number of payments in flight: one fate each, also when a router dies.
//! let (sender, mut events) = client.submit_stream(SubmitOptions::default()).split();
//! let sending = tokio::spawn(async move { sender.send(signed).await });
//! while let Some(batch) = events.next_events().await {
//!     for event in batch {
//!         println!("{:?}", event);
//!     }
//! }
//! sending.await.expect("the sender does not panic")?;
//! # Ok(())
//! # }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
mod files;
pub mod kept;
pub mod keystore;
pub mod net;
pub mod profile;
pub mod proof;
mod routers;
pub mod sdk;
pub mod submit;
pub mod traffic;

pub use error::ClientError;
pub use kept::{KeptError, KeptTxs};
pub use keystore::{KeyInfo, Keystore, KeystoreError};
pub use net::{Identity, NetError, PeerIdentity, Role, TrustRoots};
pub use profile::{Profile, ProfileError, RouterEndpoint};
pub use proof::{ProofError, ProofFile, VerifiedClaim};
pub use sdk::{Answer, Client, Consistency, Wait};
pub use submit::{PreparedTx, SubmitEvent, SubmitEvents, SubmitOptions, SubmitSender, SubmitStream};
pub use traffic::{Counted, Traffic};
