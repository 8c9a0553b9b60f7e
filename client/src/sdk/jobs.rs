//! What the beacon tells of shards, of the jobs that cut, join and move them, and of what a switch of an engine is judged by,
//! unproved. The answers are the beacon's own records, which this crate does not look into; commands about jobs are in
//! [`super::command`].

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

    /// What the beacon would judge a switch of a group's engine by in this moment: `beacon::EngineBook`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn engines<T: BorshDeserialize>(&self) -> Result<T, ClientError> {
        let query = Query::Engines(v1::EnginesQuery {});
        let reply = self.query(Consistency::Linearizable, false, query).await?;
        let missing = || ClientError::Protocol("the beacon does not tell of engines".to_owned());
        found_value("engines", &reply)?.ok_or_else(missing)
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
