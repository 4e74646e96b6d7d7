//! Putting to a log.
//!
//! **Invariant:** a number is never reused for other bytes. A put ends in one
//! of three ways: *some* object is known to be at the number (mine, or
//! another's), or the outcome is unknown. Absence after a failed put settles
//! nothing, for the put may still be on its way: only identical bytes may
//! follow.

use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::Deadline;
use crate::error::{Cause, Error, absent};
use crate::store::Store;

/// Wait after a first failure: about one round trip, for most failures are one
/// lost answer.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// Longest wait: a store that comes back is noticed within half a second.
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// Whose object is at the number now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// Mine, durably.
    Mine,
    /// Another's: these bytes. Mine never was and never will be there.
    Other(Bytes),
}

impl Store {
    /// Puts `bytes`, which hold a nonce drawn for them, at a numbered path, and
    /// retries the identical bytes until some object is there.
    ///
    /// # Errors
    /// [`Kind::Unknown`](crate::Kind::Unknown) at the deadline: the bytes may
    /// be there, or may yet land. Only identical bytes may be put there.
    ///
    /// # Cancel safety
    /// A dropped put has an unknown outcome.
    pub async fn put_numbered(&self, path: &Path, bytes: Bytes, deadline: Deadline) -> Result<Put, Error> {
        let mut backoff = BACKOFF_MIN;
        loop {
            let last = match timeout_at(deadline, self.try_put(path, &bytes)).await {
                Ok(Ok(Some(put))) => return Ok(put),
                // Taken, then collected as garbage before we could read it; or
                // S3 refused one of two puts at once, and neither is there yet.
                Ok(Ok(None)) => "another put was under way".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the deadline passed".to_owned(),
            };
            let again = Instant::now() + backoff;
            if again >= deadline {
                return Err(Cause::Unknown { path: path.to_string(), last }.into());
            }
            tracing::debug!(%path, last, "retrying a put with identical bytes");
            sleep_until(again).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn try_put(&self, path: &Path, bytes: &Bytes) -> Result<Option<Put>, Error> {
        let put = self.objects().put_opts(path, bytes.clone().into(), PutMode::Create.into()).await;
        match put {
            Ok(_) => return Ok(Some(Put::Mine)),
            Err(error) if taken(&error) => {}
            Err(error) => return Err(self.error(path, error)),
        }
        let found = match self.objects().get(path).await {
            Ok(found) => found.bytes().await.map_err(|error| self.error(path, error))?,
            Err(error) if absent(&error) => return Ok(None),
            Err(error) => return Err(self.error(path, error)),
        };
        // The nonce is among the bytes, so equal bytes are mine and only mine.
        if found != *bytes {
            return Ok(Some(Put::Other(found)));
        }
        // An earlier try may have failed between its link and its sync of the
        // folder: what is mine must be durable too.
        self.sync_object(path).await?;
        Ok(Some(Put::Mine))
    }
}

/// Whether a put-if-absent was refused since somebody is or was there: 412, 304
/// and 409 of S3 all say so. What is there tells the rest.
pub(crate) fn taken(error: &object_store::Error) -> bool {
    use object_store::Error::{AlreadyExists, NotModified, Precondition};
    matches!(error, AlreadyExists { .. } | Precondition { .. } | NotModified { .. })
}
