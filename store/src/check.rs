//! Asks a store at start-up whether it works, so that a wrong setting is one
//! line on the terminal and not a cluster that never gets ready.

use std::error::Error as StdError;
use std::fs;
use std::path::Path as Folder;
use std::time::Duration;

use futures::StreamExt;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::error::{Cause, Error, code, one_line};
use crate::s3::Bucket;
use crate::store::{Home, Store};

/// Longest check: a little more than the tries of one request take when nobody
/// answers.
const CHECK_MAX: Duration = Duration::from_secs(6);
/// A folder in which nothing lies: listing it costs one small request.
const NOTHING: &str = "check";
/// Where the machines of Amazon get the credentials of their role from.
const METADATA: [&str; 2] = ["169.254.169.254", "169.254.170.2"];

impl Store {
    /// Asks whether the store works: lists a folder of a bucket, writes to a
    /// folder on disk. Takes a few seconds at most.
    ///
    /// # Errors
    /// One line that says what is wrong and what to do.
    /// [`Kind::Unavailable`](crate::Kind::Unavailable) for what may pass, such
    /// as an endpoint out of reach; [`Kind::Invalid`](crate::Kind::Invalid) for
    /// what will not, such as wrong credentials or a missing bucket.
    pub async fn check(&self) -> Result<(), Error> {
        if let Home::Folder(root) = self.home() {
            let probe = root.join(format!(".check-{}", self.nonce().0));
            return spawn_blocking(move || write(&probe)).await.map_err(Cause::from)?;
        }
        let path = Path::from(NOTHING);
        let mut listing = self.objects().list(Some(&path));
        let listed = timeout(CHECK_MAX, listing.next()).await;
        match (listed, self.home()) {
            (Ok(None | Some(Ok(_))), _) => Ok(()),
            (Ok(Some(Err(error))), Home::Bucket(bucket)) => {
                tracing::debug!(%error, "the store did not pass its check");
                Err(bucket.explain(&error).into())
            }
            (Ok(Some(Err(error))), _) => Err(self.error(&path, error)),
            (Err(_), Home::Bucket(bucket)) => Err(bucket.silent("no answer in time").into()),
            (Err(_), _) => Err(Error::failed(&path, "no answer in time")),
        }
    }
}

fn write(probe: &Folder) -> Result<(), Error> {
    fs::write(probe, []).and_then(|()| fs::remove_file(probe)).map_err(|error| Error::of_disk(probe, error))
}

impl Bucket {
    fn explain(&self, error: &object_store::Error) -> Cause {
        let text = error.to_string();
        let why = one_line(error);
        let Self { name, server } = self;
        // The address is in the text when credentials were sought there.
        if METADATA.iter().any(|address| text.contains(address)) {
            return Cause::Invalid(format!(
                "no credentials for {server}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a role"
            ));
        }
        match code(&text) {
            Some("NoSuchBucket") => Cause::Invalid(format!(
                "bucket {name:?} does not exist at {server}: create it or fix --store"
            )),
            Some("AccessDenied") => Cause::Invalid(format!(
                "bucket {name:?} is closed to these credentials (AccessDenied): allow s3:ListBucket, s3:GetObject, \
                 s3:PutObject and s3:DeleteObject, or fix AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )),
            Some(code) if refused(code) => Cause::Invalid(format!(
                "{server} refused the credentials ({code}): fix AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and \
                 AWS_SESSION_TOKEN"
            )),
            Some("RequestTimeTooSkewed") => Cause::Invalid(format!(
                "{server} refused the time (RequestTimeTooSkewed): set this machine's clock"
            )),
            Some(code) if elsewhere(code) => self.moved(code),
            Some(code) => Cause::Unreachable(format!(
                "{server} answered {code} for bucket {name:?}: look it up, or try again later"
            )),
            None if text.contains("redirect") => self.moved("a redirect"),
            None => match transport(error) {
                Some(HttpErrorKind::Connect | HttpErrorKind::Request | HttpErrorKind::Timeout) => {
                    self.silent(&why)
                }
                _ => Cause::Unreachable(format!(
                    "{server} did not answer as S3 does for bucket {name:?} ({why}): fix AWS_ENDPOINT_URL, or try \
                     again later"
                )),
            },
        }
    }

    fn moved(&self, why: &str) -> Cause {
        let Self { name, server } = self;
        Cause::Invalid(format!("bucket {name:?} is not at {server} ({why}): set AWS_REGION to its region"))
    }

    fn silent(&self, why: &str) -> Cause {
        let server = &self.server;
        Cause::Unreachable(format!(
            "{server} cannot be reached ({why}): start it, or fix AWS_ENDPOINT_URL or the network"
        ))
    }
}

/// Codes of credentials that are wrong, old or unknown.
fn refused(code: &str) -> bool {
    let codes = [
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "InvalidToken",
        "ExpiredToken",
        "TokenRefreshRequired",
    ];
    codes.contains(&code)
}

/// Codes of a bucket that lies in another region.
fn elsewhere(code: &str) -> bool {
    ["AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"]
        .contains(&code)
}

fn transport(error: &(dyn StdError + 'static)) -> Option<HttpErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            return Some(http.kind());
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn explained(body: &str) -> Error {
        let bucket = Bucket { name: "docs".into(), server: "http://s3:9000".into() };
        bucket.explain(&object_store::Error::Generic { store: "S3", source: body.into() }).into()
    }

    #[test]
    fn each_failure_names_what_to_fix() {
        for (body, kind, named) in [
            ("<Code>NoSuchBucket</Code>", Kind::Invalid, "--store"),
            ("<Code>InvalidAccessKeyId</Code>", Kind::Invalid, "AWS_ACCESS_KEY_ID"),
            ("<Code>SignatureDoesNotMatch</Code>", Kind::Invalid, "AWS_SECRET_ACCESS_KEY"),
            ("<Code>AccessDenied</Code>", Kind::Invalid, "s3:ListBucket"),
            ("<Code>PermanentRedirect</Code>", Kind::Invalid, "AWS_REGION"),
            ("Received redirect without LOCATION", Kind::Invalid, "AWS_REGION"),
            ("PUT http://169.254.169.254/latest/api/token", Kind::Invalid, "no credentials"),
            ("<Code>SlowDown</Code>", Kind::Unavailable, "SlowDown"),
            ("<html>Welcome!</html>", Kind::Unavailable, "http://s3:9000"),
        ] {
            let error = explained(body);
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(named), "{error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }

    #[tokio::test]
    async fn memory_and_a_fresh_folder_pass_and_leave_nothing_behind() {
        Store::memory().check().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        Store::local(folder.path()).unwrap().check().await.unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_folder_that_is_gone_does_not_pass() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::local(&folder.path().join("data")).unwrap();
        fs::remove_dir(folder.path().join("data")).unwrap();
        let error = store.check().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}
