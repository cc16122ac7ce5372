//! The contract between the three processes of mysup.
//!
//! Both sides depend on this crate and not on each other. It holds wire types, records and framing, no policy
//! and no knowledge of how either side works. It knows no async runtime.
//!
//! ```text
//!  client  ── Request ─▶ supervisor         one request at a time, descriptors ride with it  (api.rs)
//!          ◀─ Response ─
//!
//!  supervisor ─ ToShim ─▶ shim              fd 0 of the shim, later any connection to shim.sock  (shim.rs)
//!             ◀ FromShim ─
//!
//!  client  ── ToShim ──▶ shim               fd 1 of the shim (`run`) or a connection to shim.sock;
//!          ◀─ FromShim ─                    the terminal does not pass through the supervisor
//!
//!  client  ─ ToRegistry ▶ mysup-registry    fd 0 of that program: it has the network              (registry.rs)
//!          ◀ FromRegistry
//! ```
//!
//! Who says what to whom, in order, on the control connection:
//!
//! | supervisor | shim | means |
//! |---|---|---|
//! | `Plan` | | everything the shim needs to make the container |
//! | | `Created` + pidfd | the init exists and waits before exec |
//! | | `Started` or `Failed` | the program runs, or why not |
//! | `Stop`, `Signal` | | at any time while it runs |
//! | | `Exited` | after the record is durable |
//! | | `Step`... | each teardown step when it ended |
//! | | `TornDown` or `Leftover` | the last word; after `Leftover` the shim tries again by itself |
//! | `RetryTeardown` | | try now |

pub mod api;
pub mod blocking;
pub mod codec;
pub mod commits;
pub mod container;
pub mod error;
pub mod exit;
pub mod fds;
pub mod frame;
mod growing;
pub mod id;
pub mod images;
pub mod init_status;
pub mod layout;
pub mod log;
#[cfg(feature = "next")]
mod next;
pub mod plan;
pub mod point;
pub mod progress;
pub mod record;
pub mod registry;
pub mod shim;
pub mod stop;
pub mod storage;
pub mod teardown;
