//! What the beacon tells of shards and of the jobs that cut, join and move them, unproved. The answers are the beacon's own
//! records, which this crate does not look into; commands about jobs are in [`super::command`].

use borsh::BorshDeserialize;
use ledger::JobId;
use proto::v1;
use proto::v1::query_request::Query;

use crate::error::ClientError;
use crate::sdk::read::found_value;
use crate::sdk::{Client, Consistency};

impl Client {
    /// The shards, what a job would be judged by, and the jobs that are kept: `beacon::Shards`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn shards<T: BorshDeserialize>(&self) -> Result<T, ClientError> {
        let query = Query::Shards(v1::ShardsQuery {});
        let reply = self.query(Consistency::Linearizable, false, query).await?;
        let missing = || ClientError::Protocol("the beacon does not tell of its shards".to_owned());
        found_value("shards", &reply)?.ok_or_else(missing)
    }

    /// One job by its number, `beacon::Job`; `None` when there is none, or it ended so long ago that it is forgotten.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn job<T: BorshDeserialize>(&self, job: JobId) -> Result<Option<T>, ClientError> {
        let query = Query::Job(v1::JobQuery { job: job.0 });
        let reply = self.query(Consistency::Linearizable, false, query).await?;
        found_value("job", &reply)
    }
}
