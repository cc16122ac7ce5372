//! What runs the machine's instructions: KVM where it really boots a kernel, and else qemu itself.

use std::{fmt, fs, path::Path, sync::OnceLock, time::Duration};

use super::{
    Cgroups,
    kernel::Kernel,
    machine::{Boot, Machine},
};

/// How long KVM has to boot; it needs about a second.
const PROBE: Duration = Duration::from_secs(10);

/// Who runs the machine's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// The processor, through the kernel.
    Kvm,
    /// qemu, about ten times slower.
    Tcg,
}

impl Accelerator {
    /// As an argument of qemu.
    pub(super) fn argument(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg,thread=single",
        }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg",
        })
    }
}

/// The faster one that works; a machine in a machine often has /dev/kvm and boots nothing.
pub(super) fn best(kernel: &Kernel, initrd: &Path, disk: &Path) -> Accelerator {
    static BEST: OnceLock<Accelerator> = OnceLock::new();
    *BEST.get_or_init(|| {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let can = processors.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
        if !can || !Path::new("/dev/kvm").exists() {
            return Accelerator::Tcg;
        }
        let boot =
            Boot { kernel, initrd, disk, accelerator: Accelerator::Kvm, cgroups: Cgroups::V2, phases: &[] };
        let boots = Machine::boot(&boot).is_ok_and(|machine| machine.wait_for("up ", PROBE).is_ok());
        if boots { Accelerator::Kvm } else { Accelerator::Tcg }
    })
}
