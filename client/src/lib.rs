//! The SDK of Seamark: profiles, keystore, mutual TLS, submitting and reading with proofs. The
//! command line and the nodes are built on it.
//!
//! Owns everything a process needs to be a client of a cluster. It never knows which shard an
//! account lives in: the router does (crate `router`), and every answer can be proved against the
//! genesis alone ([`proof::verify`]).
//!
//! # A transaction of two payers
//! ```no_run
//! use client::{Client, ClientError, Wait};
//! use ledger::{Address, AssetId, LedgerId, Move, SecretKey};
//!
//! # async fn example(client: Client, alice: (SecretKey, Address), bob: (SecretKey, Address))
//! # -> Result<(), client::ClientError> {
//! // Euros against bonds: both payments happen, or neither does, wherever the two accounts live.
//! let (euro, bond) = (AssetId([1; 16]), AssetId([2; 16]));
//! let swap = vec![
//!     (LedgerId::MAIN, Move::Pay { from: alice.1, to: bob.1, asset: euro, amount: 500 }),
//!     (LedgerId::MAIN, Move::Pay { from: bob.1, to: alice.1, asset: bond, amount: 5 }),
//! ];
//! match client.execute(swap, b"trade 7", &[&alice.0, &bob.0], Wait::Receipt).await {
//!     // YES from every group that votes: final, even if every router died now.
//!     Ok(settled) => println!("{} is decided", settled.txid()),
//!     // One NO, and nothing changed anywhere. To try again, sign anew.
//!     Err(ClientError::Rejected { group, reject, .. }) => println!("{group} said no: {reject}"),
//!     // Nobody knows yet. It ends by itself; what each group knows, and its fate, can be asked for.
//!     Err(error) if error.code() == "timeout" => println!("not decided yet: {error}"),
//!     Err(error) => return Err(error),
//! }
//! # Ok(())
//! # }
//! ```
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
//!     Err(client::ClientError::Unsettled { tx, .. }) => client.settle(tx, Wait::Applied).await?.receipt().cloned(),
//!     paid => Some(paid?),
//! };
//! println!("{receipt:?}");
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

pub mod admins;
mod certificates;
pub mod descent;
mod door;
pub mod entry;
mod error;
pub mod evidence;
pub mod exclusion;
mod files;
pub mod kept;
mod keyfile;
pub mod keystore;
pub mod limits;
pub mod net;
pub mod opening;
pub mod profile;
pub mod proof;
mod routers;
pub mod sdk;
pub mod secrets;
pub mod sockets;
pub mod submit;
pub mod traffic;

pub use admins::{AdminsError, AdminsProof, ProvedAdmins};
pub use certificates::CertificateFault;
pub use descent::{BornProof, FoundedProof, Handover};
pub use door::{Door, LetIn};
pub use entry::{Entry, EntryName};
pub use error::ClientError;
pub use evidence::{EvidenceFile, EvidenceFileError, VerifiedEvidence};
pub use exclusion::{ExclusionFile, ExclusionFileError, VerifiedExclusion};
pub use kept::{KeptError, KeptTxs};
pub use keystore::{KeyInfo, KeyList, Keystore, KeystoreError};
pub use net::{Identity, NetError, PeerIdentity, Role, TrustRoots};
pub use opening::OpeningError;
pub use profile::{Profile, ProfileError, RouterEndpoint};
pub use proof::{ProofError, ProofFile, VerifiedClaim};
pub use sdk::{Answer, ChannelFate, Client, CommandFate, Consistency, FoundingFate, Settled, Wait};
pub use secrets::{Keyring, Passphrase, SecretError, SecretKind};
pub use sockets::{Sockets, SystemSockets};
pub use submit::{GroupVote, PreparedTx, SubmitEvent, SubmitEvents, SubmitOptions, SubmitSender, SubmitStream};
pub use traffic::{Counted, Traffic};
