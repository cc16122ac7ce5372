//! What a child that could not execute its program says: the step and the error number.

/// Declares the steps with the words that people see.
macro_rules! steps {
    ($($step:ident = $name:literal,)*) => {
        /// What a child does on its way to exec.
        #[derive(Clone, Copy)]
        #[repr(u32)]
        pub(super) enum Step { $($step,)* }

        const STEPS: &[(u32, &str)] = &[$((Step::$step as u32, $name),)*];
    };
}

steps! {
    Wait = "wait for the shim",
    Session = "make a session",
    Keyring = "make a session keyring",
    Cgroup = "make a cgroup namespace",
    Hostname = "set the host name",
    Loopback = "bring up the loopback interface",
    Pivot = "enter the root file system",
    Proc = "mount /proc",
    Sys = "mount /sys",
    CgroupMounts = "mount /sys/fs/cgroup",
    Mqueue = "mount /dev/mqueue",
    Mask = "mask paths of /proc and /sys",
    ReadOnly = "make paths of /proc read-only",
    Limits = "set a ulimit (raising a hard limit needs CAP_SYS_RESOURCE)",
    Terminal = "take the terminal",
    Stdio = "set up standard input and output",
    Privileges = "drop privileges",
    Cwd = "change to the working directory (it must be a directory inside the container that the user may enter)",
    Exec = "exec",
}

impl Step {
    /// Allocates nothing: the child calls it.
    pub(super) fn name(self) -> &'static str {
        STEPS.iter().find(|(number, _)| *number == self as u32).map_or("", |(_, name)| name)
    }
}

/// Bytes of a report.
pub(super) const REPORT_SIZE: usize = 8;

/// What the child said before it left.
pub(super) struct Report {
    step: u32,
    /// Error number.
    pub(super) errno: i32,
}

impl Report {
    pub(super) fn from_bytes(bytes: [u8; REPORT_SIZE]) -> Self {
        let [s0, s1, s2, s3, e0, e1, e2, e3] = bytes;
        Self { step: u32::from_ne_bytes([s0, s1, s2, s3]), errno: i32::from_ne_bytes([e0, e1, e2, e3]) }
    }

    pub(super) fn is_exec(&self) -> bool {
        self.step == Step::Exec as u32
    }

    pub(super) fn step_name(&self) -> &'static str {
        STEPS.iter().find(|(number, _)| *number == self.step).map_or("an unknown step", |(_, name)| name)
    }
}
