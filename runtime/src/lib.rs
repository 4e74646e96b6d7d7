//! What every role runs on: clock, task scopes, the CPU pool, shutdown, telemetry;
//! and, for tests, trouble on purpose.
//!
//! **Invariant:** this crate knows nothing of searching. It is the only one
//! that spawns tasks ([`TaskScope`]) and threads ([`Pool`]), so everything that
//! runs belongs to something that waits for it.

pub mod cancel;
pub mod clock;
pub mod deadline;
pub mod distribution;
pub mod duration;
pub mod faults;
pub mod pool;
pub mod random;
pub mod scope;
pub mod shutdown;
pub mod system;
pub mod telemetry;

pub use cancel::Cancel;
pub use clock::Clock;
pub use deadline::Deadline;
pub use distribution::Distribution;
pub use faults::Faults;
pub use pool::{Pool, PoolError, Priority};
pub use random::Random;
pub use scope::{OnError, TaskScope};
pub use shutdown::Shutdown;
pub use tokio_util::sync::CancellationToken;
