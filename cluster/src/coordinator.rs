//! Where processes agree on who is there and who does what.
//!
//! A small versioned key space with leases, guards and watches: what etcd
//! offers, and no more of it than we use.
//!
//! **Invariant:** the coordinator only says who should try. What is safe is
//! decided by put-if-absent in the store, so a coordinator that lies or stands
//! still loses nothing.

use std::time::Duration;

use async_trait::async_trait;
use proto::Error;
use tokio::sync::mpsc;

/// The number of a change; every change of any key has a higher one.
pub type Revision = u64;

/// Keys live as long as the lease that they are attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lease(pub u64);

/// A key's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its bytes.
    pub value: Vec<u8>,
    /// The change that wrote it.
    pub revision: Revision,
}

/// What a write expects of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// That it does not exist.
    Absent,
    /// That this change was its last.
    Revision(Revision),
}

/// A write.
#[derive(Clone, Debug)]
pub struct Put {
    /// The key.
    pub key: String,
    /// Its bytes.
    pub value: Vec<u8>,
    /// What it expects.
    pub expect: Expect,
    /// The lease that the key lives with.
    pub lease: Option<Lease>,
    /// Another key that must still be at this revision: the writer's own
    /// election.
    pub guard: Option<(String, Revision)>,
}

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key was written.
    Put(Entry),
    /// A key is gone.
    Delete {
        /// The key.
        key: String,
        /// The change that deleted it.
        revision: Revision,
    },
    /// Changes were missed: list again.
    Resync,
}

/// A bounded queue of events; a watcher that is slow finds [`Event::Resync`].
pub type Watch = mpsc::Receiver<Event>;

/// The agreement between processes.
#[async_trait]
pub trait Coordinator: Send + Sync + 'static {
    /// Returns a key.
    ///
    /// # Errors
    /// [`proto::Kind::Unavailable`] when the coordinator is out of reach; so
    /// for every call.
    async fn get(&self, key: &str) -> Result<Option<Entry>, Error>;

    /// Returns the keys that begin with `prefix`, in order.
    ///
    /// # Errors
    /// See [`Coordinator::get`].
    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, Error>;

    /// Writes a key; `None` when the expectation or the guard does not hold.
    ///
    /// # Errors
    /// See [`Coordinator::get`]; [`proto::Kind::NotFound`] for an ended lease.
    async fn put(&self, put: Put) -> Result<Option<Revision>, Error>;

    /// Deletes a key; whether it was there and as expected.
    ///
    /// # Errors
    /// See [`Coordinator::get`].
    async fn delete(&self, key: &str, expect: Expect) -> Result<bool, Error>;

    /// Begins a lease.
    ///
    /// # Errors
    /// See [`Coordinator::get`].
    async fn grant(&self, ttl: Duration) -> Result<Lease, Error>;

    /// Prolongs a lease by its time to live; false when it has ended.
    ///
    /// # Errors
    /// See [`Coordinator::get`].
    async fn keep_alive(&self, lease: Lease) -> Result<bool, Error>;

    /// Ends a lease and deletes its keys.
    ///
    /// # Errors
    /// See [`Coordinator::get`].
    async fn revoke(&self, lease: Lease) -> Result<(), Error>;

    /// Tells of every change to keys that begin with `prefix`, from now on, in
    /// order.
    ///
    /// # Errors
    /// See [`Coordinator::get`].
    async fn watch(&self, prefix: &str) -> Result<Watch, Error>;
}
