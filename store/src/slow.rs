//! Objects that take their time, as a test says.
//!
//! Every operation waits before it begins: each deleted object, but not each
//! chunk of what is read, nor each part of a large put. What goes past the
//! objects, a hard link of a local store, waits through [`Slow::wait`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Objects whose operations wait first.
#[derive(Clone)]
pub(crate) struct Slow {
    objects: Arc<dyn ObjectStore>,
    delay: Arc<dyn Fn() -> Option<Duration> + Send + Sync>,
}

impl Slow {
    pub(crate) fn new(
        objects: Arc<dyn ObjectStore>,
        delay: impl Fn() -> Option<Duration> + Send + Sync + 'static,
    ) -> Self {
        Self { objects, delay: Arc::new(delay) }
    }

    /// Waits as long as is drawn for one operation.
    pub(crate) async fn wait(&self) {
        if let Some(delay) = (self.delay)() {
            tokio::time::sleep(delay).await;
        }
    }

    async fn delete_one(self, path: Path) -> Result<Path> {
        self.wait().await;
        self.objects.delete(&path).await.map(|()| path)
    }
}

impl fmt::Debug for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slow({})", self.objects)
    }
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[async_trait]
impl ObjectStore for Slow {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.wait().await;
        self.objects.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.wait().await;
        self.objects.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.wait().await;
        self.objects.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let slow = self.clone();
        paths
            .then(move |path| {
                let slow = slow.clone();
                async move { slow.delete_one(path?).await }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (slow, prefix) = (self.clone(), prefix.cloned());
        let listing = async move {
            slow.wait().await;
            slow.objects.list(prefix.as_ref())
        };
        stream::once(listing).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.wait().await;
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.wait().await;
        self.objects.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::TryStreamExt;
    use tokio::time::Instant;

    use super::*;
    use crate::Store;

    const DELAY: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn every_operation_waits() {
        let drawn = Arc::new(AtomicU32::new(0));
        let draws = drawn.clone();
        let slowed = move || {
            draws.fetch_add(1, Ordering::Relaxed);
            Some(DELAY)
        };
        let store = Store::memory().slowed(slowed);
        let (objects, began) = (store.objects(), Instant::now());
        let [one, two] = ["a/1", "a/2"].map(Path::from);
        objects.put(&one, "x".into()).await.unwrap();
        objects.copy(&one, &two).await.unwrap();
        assert_eq!(objects.get(&two).await.unwrap().bytes().await.unwrap(), "x");
        objects.head(&two).await.unwrap();
        let listed: Vec<ObjectMeta> = objects.list(Some(&Path::from("a"))).try_collect().await.unwrap();
        assert_eq!(listed.len(), 2);
        objects.list_with_delimiter(None).await.unwrap();
        objects.delete(&one).await.unwrap();
        let mut upload = objects.put_multipart(&one).await.unwrap();
        upload.put_part("y".into()).await.unwrap();
        upload.complete().await.unwrap();
        assert_eq!(drawn.load(Ordering::Relaxed), 8);
        assert!(began.elapsed() >= DELAY * 8, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_file_that_is_linked_waits_too() {
        let folder = tempfile::tempdir().unwrap();
        let drawn = Arc::new(AtomicU32::new(0));
        let draws = drawn.clone();
        let store = Store::local(&folder.path().join("store")).unwrap().slowed(move || {
            draws.fetch_add(1, Ordering::Relaxed);
            None
        });
        let local = folder.path().join("segment");
        std::fs::write(&local, "x").unwrap();
        let file = store.put_file(&local, &Path::from("segments/x")).await.unwrap();
        store.fetch_file_to(&file, &folder.path().join("copy")).await.unwrap();
        assert_eq!(drawn.load(Ordering::Relaxed), 2);
    }
}
