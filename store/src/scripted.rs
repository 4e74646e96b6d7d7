//! A store that stops, fails and lands late where a test says so.
//!
//! Each client of a test has its own [`Scripted`] over shared objects, so that
//! one can be stopped while another goes on. Puts are counted from 1 for each
//! client. Nothing here sleeps: a [`Gate`] is reached, and then let through.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::Notify;

/// What happens at a put or a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Waits at the gate, then does it.
    PauseBefore,
    /// Does it, then waits at the gate.
    PauseAfter,
    /// Does nothing and reports an error.
    Fail,
    /// Does it and reports an error.
    FailAfter,
    /// Reports an error; [`Gate::land`] does it.
    FailThenLand,
}

/// Where a scripted operation waits.
#[derive(Clone, Debug)]
pub struct Gate(Arc<GateInner>);

#[derive(Debug)]
struct GateInner {
    step: Step,
    reached: Notify,
    open: Notify,
    late: Mutex<Option<Late>>,
}

type Late = (Arc<dyn ObjectStore>, Path, PutPayload);

impl Gate {
    fn new(step: Step) -> Self {
        Self(Arc::new(GateInner {
            step,
            reached: Notify::new(),
            open: Notify::new(),
            late: Mutex::default(),
        }))
    }

    /// Waits until the operation has come to its gate.
    pub async fn reached(&self) {
        self.0.reached.notified().await;
    }

    /// Makes [`Gate::reached`] true again, for a second waiter.
    pub fn rearm(&self) {
        self.0.reached.notify_one();
    }

    /// Lets the operation go on.
    pub fn resume(&self) {
        self.0.open.notify_one();
    }

    /// Lands a [`Step::FailThenLand`] put now, if it was tried.
    ///
    /// # Errors
    /// When something is at its path already.
    pub async fn land(&self) -> Result<()> {
        let late = lock(&self.0.late).take();
        let Some((objects, path, payload)) = late else {
            return Ok(());
        };
        objects.put_opts(&path, payload, PutMode::Create.into()).await.map(|_| ())
    }

    async fn wait(&self) {
        self.0.reached.notify_one();
        self.0.open.notified().await;
    }
}

/// One client's view of shared objects.
#[derive(Clone)]
pub struct Scripted {
    objects: Arc<dyn ObjectStore>,
    script: Arc<Mutex<Script>>,
}

#[derive(Default)]
struct Script {
    puts: usize,
    deletes: usize,
    at_put: BTreeMap<usize, Gate>,
    at_delete: BTreeMap<usize, Gate>,
    log: Vec<String>,
}

impl Scripted {
    /// A client of `objects` without a script.
    #[must_use]
    pub fn new(objects: Arc<dyn ObjectStore>) -> Self {
        Self { objects, script: Arc::default() }
    }

    /// Scripts this client's put number `n`.
    #[must_use = "the gate says when it is reached"]
    pub fn at_put(&self, n: usize, step: Step) -> Gate {
        let gate = Gate::new(step);
        lock(&self.script).at_put.insert(n, gate.clone());
        gate
    }

    /// Scripts this client's delete number `n`.
    #[must_use = "the gate says when it is reached"]
    pub fn at_delete(&self, n: usize, step: Step) -> Gate {
        let gate = Gate::new(step);
        lock(&self.script).at_delete.insert(n, gate.clone());
        gate
    }

    /// Puts so far.
    #[must_use]
    pub fn puts(&self) -> usize {
        lock(&self.script).puts
    }

    /// Deletes so far.
    #[must_use]
    pub fn deletes(&self) -> usize {
        lock(&self.script).deletes
    }

    /// What was asked for so far, in order: "put 3 indexes/…".
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        lock(&self.script).log.clone()
    }

    fn note(&self, what: &str, path: &Path) {
        lock(&self.script).log.push(format!("{what} {path}"));
    }

    async fn delete_one(self, path: Path) -> Result<Path> {
        let gate = {
            let mut script = lock(&self.script);
            script.deletes += 1;
            let n = script.deletes;
            script.log.push(format!("delete {n} {path}"));
            script.at_delete.remove(&n)
        };
        let Some(gate) = gate else {
            self.objects.delete(&path).await?;
            return Ok(path);
        };
        if gate.0.step == Step::PauseBefore {
            gate.wait().await;
        }
        if !matches!(gate.0.step, Step::Fail | Step::FailThenLand) {
            self.objects.delete(&path).await?;
        }
        match gate.0.step {
            Step::PauseBefore => {}
            Step::PauseAfter => gate.wait().await,
            Step::Fail | Step::FailAfter | Step::FailThenLand => {
                gate.0.reached.notify_one();
                return Err(scripted_failure());
            }
        }
        Ok(path)
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scripted({})", self.objects)
    }
}

impl fmt::Display for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[async_trait]
impl ObjectStore for Scripted {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let gate = {
            let mut script = lock(&self.script);
            script.puts += 1;
            let n = script.puts;
            script.log.push(format!("put {n} {path}"));
            script.at_put.remove(&n)
        };
        let Some(gate) = gate else {
            return self.objects.put_opts(path, payload, options).await;
        };
        match gate.0.step {
            Step::PauseBefore => {
                gate.wait().await;
                self.objects.put_opts(path, payload, options).await
            }
            Step::PauseAfter => {
                let result = self.objects.put_opts(path, payload, options).await;
                gate.wait().await;
                result
            }
            Step::Fail => {
                gate.0.reached.notify_one();
                Err(scripted_failure())
            }
            Step::FailAfter => {
                self.objects.put_opts(path, payload, options).await?;
                gate.0.reached.notify_one();
                Err(scripted_failure())
            }
            Step::FailThenLand => {
                let late = (Arc::clone(&self.objects), path.clone(), payload);
                *lock(&gate.0.late) = Some(late);
                gate.0.reached.notify_one();
                Err(scripted_failure())
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.note("put in parts", path);
        self.objects.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.note(if options.head { "head" } else { "get" }, path);
        self.objects.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let client = self.clone();
        paths
            .then(move |path| {
                let client = client.clone();
                async move { client.delete_one(path?).await }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.note("list", prefix.unwrap_or(&Path::default()));
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.note("list", prefix.unwrap_or(&Path::default()));
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.note("copy", from);
        self.objects.copy_opts(from, to, options).await
    }
}

fn scripted_failure() -> object_store::Error {
    object_store::Error::Generic { store: "Scripted", source: "a scripted failure".into() }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
