//! Who is there and who does what: the coordinator, the view that every node
//! keeps of it, and the controller.
//!
//! **Invariant:** nothing here decides what is true. The store does, by
//! put-if-absent; the coordinator says who should try.

pub mod complaint;
#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
pub mod controller;
pub mod coordinator;
pub mod directory;
pub mod embedded;
pub mod etcd;
pub mod keys;
pub mod membership;
pub mod metrics;
#[cfg(any(test, feature = "test-util"))]
pub mod process;
pub mod view;

pub use complaint::Complaint;
pub use controller::Controller;
pub use coordinator::Coordinator;
pub use directory::Directory;
pub use embedded::Embedded;
pub use etcd::Etcd;
pub use membership::Membership;
pub use view::{Index, Keeper, Names, Placement, Registry, View, from_store};
