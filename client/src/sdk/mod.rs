//! The client: one object for a whole cluster. It knows routers, never shards.
//!
//! Owns connections and fail-over between routers; `pay` submits, `read` asks and checks proofs.
//! Submitting is idempotent: the same signed bytes may be sent any number of times, over any router, and
//! have one fate. It keeps nothing on disk.

mod admins;
mod command;
mod jobs;
mod pay;
mod read;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use ledger::ClusterId;
use ledger::genesis::Genesis;
use proto::{edge, v1};
use tonic::Status;

use crate::certificates::CertificateFault;
use crate::error::ClientError;
use crate::net;
use crate::profile::{Profile, RouterEndpoint};
use crate::routers::{Backoff, Left, Routers, connection_lost, error_of};
use crate::sockets::Sockets;

pub use command::{ChannelFate, CommandFate, FoundingFate};
pub use pay::{Settled, Wait};
pub use read::{Answer, Consistency};

/// How long calls are retried unless another time is set.
const PATIENCE: Duration = Duration::from_secs(20);
/// One attempt at a read.
const ATTEMPT: Duration = Duration::from_secs(6);

/// A client of one cluster. Clones share the connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    patience: Duration,
}

struct Shared {
    cluster: ClusterId,
    genesis: Genesis,
    routers: Arc<Routers>,
    /// The latest block of the beacon that was proved to this client with the admins' keys.
    beacon_seen: AtomicU64,
}

impl Client {
    /// Connects by a profile and checks that the router serves the profile's cluster.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn connect(profile: &Profile) -> Result<Self, ClientError> {
        let client = Self::lazy(profile)?;
        client.check_cluster().await?;
        Ok(client)
    }

    /// Builds a client that connects when first used. Nothing is checked before.
    ///
    /// # Errors
    /// [`ClientError::Profile`] or [`ClientError::Net`].
    pub fn lazy(profile: &Profile) -> Result<Self, ClientError> {
        Self::build(profile, None)
    }

    /// As [`Client::lazy`], over another network than the system's.
    ///
    /// # Errors
    /// As [`Client::lazy`].
    pub fn lazy_over(profile: &Profile, sockets: &Arc<dyn Sockets>) -> Result<Self, ClientError> {
        Self::build(profile, Some(sockets))
    }

    fn build(profile: &Profile, sockets: Option<&Arc<dyn Sockets>>) -> Result<Self, ClientError> {
        let genesis = profile.genesis()?;
        let (identity, roots) = (profile.identity()?, profile.roots()?);
        let routers = Arc::new(Routers::new(&profile.routers, &identity, &roots, sockets)?);
        let shared = Shared { cluster: genesis.cluster_id(), genesis, routers, beacon_seen: AtomicU64::new(0) };
        Ok(Self { shared: Arc::new(shared), patience: PATIENCE })
    }

    /// With another limit on how long a call is retried.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The cluster.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        self.shared.cluster
    }

    /// Its genesis, as the profile names it.
    #[must_use]
    pub fn genesis(&self) -> &Genesis {
        &self.shared.genesis
    }

    /// The router in use now. When it is lost, the next one of the profile takes its place.
    #[must_use]
    pub fn router(&self) -> &RouterEndpoint {
        self.shared.routers.current().1
    }

    async fn check_cluster(&self) -> Result<(), ClientError> {
        let reply = self.cluster().await?;
        let genesis: Genesis = edge::value("genesis", &reply.genesis)?;
        if genesis.cluster_id() == self.shared.cluster {
            return Ok(());
        }
        Err(ClientError::OtherCluster { addr: self.router().addr.clone() })
    }

    /// Genesis, layout, committees and nodes, as the router knows them.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn cluster(&self) -> Result<v1::ClusterReply, ClientError> {
        self.call(|mut router| async move { router.cluster(v1::ClusterRequest {}).await }).await
    }

    /// The health of every group on every node.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn status(&self) -> Result<v1::StatusReply, ClientError> {
        self.call(|mut router| async move { router.status(v1::StatusRequest::default()).await }).await
    }

    /// Calls the router in use; when it is lost, the next, until patience ends.
    pub(super) async fn call<T, F, Fut>(&self, request: F) -> Result<T, ClientError>
    where
        F: Fn(proto::v1::router_client::RouterClient<tonic::transport::Channel>) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        self.call_in_turn(request).await.map(|(_, answer)| answer)
    }

    /// After the router chosen in `turn` has refused because of whose it is: moves on to the others, at once to
    /// those that have not been asked, and after a pause where only those are left that cannot be reached. Returns
    /// whether it is worth asking again.
    pub(super) async fn elsewhere(&self, turn: usize, refusing: &mut Vec<usize>, backoff: &mut Backoff) -> bool {
        match self.shared.routers.refused(turn, refusing) {
            Left::Others => true,
            Left::Nobody => false,
            Left::Unreachable => match backoff.delay(Duration::ZERO) {
                Some(delay) => {
                    tokio::time::sleep(delay).await;
                    true
                }
                None => false,
            },
        }
    }

    /// As [`Self::call`], and says in which turn the router was chosen that answered.
    pub(super) async fn call_in_turn<T, F, Fut>(&self, request: F) -> Result<(usize, T), ClientError>
    where
        F: Fn(proto::v1::router_client::RouterClient<tonic::transport::Channel>) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let routers = &self.shared.routers;
        let mut backoff = Backoff::new(self.patience);
        let (mut tried, mut refused) = (0usize, 0usize);
        loop {
            let (turn, _, channel) = routers.current();
            let attempt = request(net::router_client(channel));
            let within = ATTEMPT.min(backoff.left());
            let status = match tokio::time::timeout(within, attempt).await {
                Ok(Ok(response)) => return Ok((turn, response.into_inner())),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer in time"),
            };
            if !connection_lost(&status) {
                return Err(error_of(&status));
            }
            routers.lost(turn);
            tried += 1;
            refused = if CertificateFault::of(&status).is_some() { refused + 1 } else { 0 };
            // No router takes this certificate, or shows one that is to be taken. Asking again does not mend that.
            if refused >= routers.len() {
                return Err(error_of(&status));
            }
            if tried.is_multiple_of(routers.len()) || backoff.left().is_zero() {
                match backoff.delay(Duration::ZERO) {
                    Some(delay) => tokio::time::sleep(delay).await,
                    None => return Err(error_of(&status)),
                }
            }
        }
    }
}
