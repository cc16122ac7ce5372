//! The names of all variants of everything that is an enum on the wire. A new variant does not compile before it is named.

use mysup_ipc::{
    api::{Request, Response},
    container::{ContainerState, ImageSource},
    error::ErrorCode,
    exit::{ExitReport, ExitStatus},
    plan::{Lifetime, MountSource, Network, StorageDriver},
    progress::{Progress, ProgressStep},
    registry::{FromRegistry, ToRegistry},
    shim::{FromShim, Role, Stream, ToShim},
    stop::StopUnderWay,
    teardown::{JournalEntry, Outcome, StepKind, TeardownReport},
};

/// Has a name, one of `ALL`.
pub(crate) trait Named {
    /// All names there are.
    const ALL: &'static [&'static str];
    /// This one's.
    fn name(&self) -> &'static str;
}

macro_rules! named {
    ($type:ident: $($variant:ident),+; never $($never:ident),*) => {
        impl Named for $type {
            const ALL: &'static [&'static str] = &[$(stringify!($variant)),+];

            fn name(&self) -> &'static str {
                match self {
                    $($type::$variant { .. } => stringify!($variant),)+
                    $($type::$never => unreachable!("never sent"),)*
                }
            }
        }
    };
}

named!(Request: Info, Create, Run, Start, Stop, Restart, Kill, Wait, Remove, Rename, List, Inspect, Top, Import, Images,
    RemoveImage, Shutdown, Heal, Image, Storage, Commit; never Unknown);
named!(Response: Done, Error, Created, Exited, Containers, Processes, Image, Images, Removed, Info, ImageAnswer, StorageAnswer;
    never Unknown);
named!(ToShim: Plan, Teardown, Hello, Stop, Signal, Stdin, StdinEnd, Resize, RetryTeardown, Adopt, InitReaped;
    never Unknown);
named!(FromShim: Created, Started, Failed, Output, LogGrew, Exited, Step, TornDown, Leftover, Report, Paused;
    never Unknown);
named!(JournalEntry: Begin, Cgroup, WriteLayer, Mountpoint, Released; never Unknown);
named!(ExitStatus: Code, Signal, Unknown; never);
named!(ErrorCode: NotFound, Ambiguous, Conflict, Invalid, CommandNotFound, CommandNotExecutable, System, Timeout,
    Leftover, Protocol; never Unknown);
named!(StepKind: Processes, Volume, Rootfs, Mountpoint, WriteLayer, Cgroups, RunDirectory, StateDirectory;
    never Unknown);
named!(Outcome: Done, Failed; never);
named!(Lifetime: Nothing, Record, WriteLayer; never);
named!(StorageDriver: Overlay, Aufs; never);
named!(Network: None, Host; never);
named!(MountSource: Bind, Tmpfs, Volume; never);
named!(ImageSource: Named, Archive, Directory; never);
named!(ContainerState: Created, Starting, Running, Stopping, TearingDown, Exited, Leftover, Unreachable, Damaged; never);
named!(ToRegistry: Pull, Present, Push, Login, Logout, Bring; never Unknown);
named!(FromRegistry: Layers, Progress, Pulled, Pushed, Done, Failed, Lacking; never Unknown);
named!(ProgressStep: Unpacking, Unpacked, Writing, Written, Downloading, Resuming, Downloaded, Present, Uploading,
    Uploaded, KnownThere; never Unknown);
named!(Role: Supervisor, Attach, LogFollower, Pause; never);
named!(Stream: Stdout, Stderr; never);

impl Named for ExitReport {
    const ALL: &'static [&'static str] = &["record"];

    fn name(&self) -> &'static str {
        "record"
    }
}

impl Named for TeardownReport {
    const ALL: &'static [&'static str] = &["record"];

    fn name(&self) -> &'static str {
        "record"
    }
}

impl Named for StopUnderWay {
    const ALL: &'static [&'static str] = &["record"];

    fn name(&self) -> &'static str {
        "record"
    }
}

impl Named for Progress {
    const ALL: &'static [&'static str] = &["message"];

    fn name(&self) -> &'static str {
        "message"
    }
}
