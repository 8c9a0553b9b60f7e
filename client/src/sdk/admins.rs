//! The organisations' admin keys, which something is about to be sealed for.
//!
//! Owns how fresh they are asked for, and that none is handed out which is not proved. How they are judged is for
//! [`crate::admins`].

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use ledger::{Height, OrgId, PublicKey, TimeMs};
use proto::v1;
use proto::v1::query_request::Query;

use super::read::{Consistency, found_value};
use crate::admins::{self, AdminsProof};
use crate::error::ClientError;
use crate::limits::ADMINS_ASKED_AGE_MS;
use crate::sdk::Client;

impl Client {
    /// The admin key of every organisation of the cluster, proved against the genesis, as the beacon held them at a block that
    /// is no earlier than one that this client was shown before, nor older than
    /// [`ADMINS_AGE_MS_MAX`](crate::limits::ADMINS_AGE_MS_MAX).
    ///
    /// # Errors
    /// [`ClientError::Admins`] when the router shows what is not proved, or not as of now; [`ClientError`].
    pub async fn admins(&self) -> Result<BTreeMap<OrgId, PublicKey>, ClientError> {
        // What was proved before this is asked for: of two answers under way the earlier one may come last.
        let seen = Height(self.shared.beacon_seen.load(Ordering::Acquire));
        let since_ms = now().0.saturating_sub(ADMINS_ASKED_AGE_MS);
        let query = Query::Admins(v1::AdminsQuery { since_ms });
        let reply = self.query(Consistency::Linearizable, true, query).await?;
        let missing = || ClientError::Protocol("the beacon does not tell the admins' keys".to_owned());
        let proof = found_value::<AdminsProof>("admins", &reply)?.ok_or_else(missing)?;
        let proved = admins::verify(&proof, &self.shared.genesis)?;
        proved.check_age(now(), seen)?;
        self.shared.beacon_seen.fetch_max(proved.height.0, Ordering::AcqRel);
        Ok(proved.keys)
    }
}

/// This machine's clock. One before 1970 makes every proof one of a time to come, which is said clearly.
fn now() -> TimeMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TimeMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
