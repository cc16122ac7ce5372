//! The image store of the supervisor, compiled for fuzzing: its own sources, and a stand-in for what it calls outside of
//! them. What the targets do with it is in promises.rs.

#[expect(dead_code, unused_imports, reason = "the targets use a part of the store")]
#[path = "../../../supervisor/src/images/mod.rs"]
mod images;

/// The sweeper of the supervisor starts a program; here nothing is swept.
mod shim_link {
    pub(crate) mod sweep {
        /// Does nothing.
        #[derive(Debug, Clone, Default)]
        pub(crate) struct Sweeper;

        impl Sweeper {
            pub(crate) fn with_room<T>(
                &self,
                mut work: impl FnMut() -> std::io::Result<T>,
            ) -> std::io::Result<T> {
                work()
            }
        }
    }
}

pub use images::fuzzing::{config, layer, manifest};
