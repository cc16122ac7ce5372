//! A file without a name, on the disk where the images are.

use std::{fs::File, os::unix::fs::OpenOptionsExt};

use rustix::{fs::OFlags, io::Errno};

use crate::cli::{client::Instance, error::CliError};

/// Makes one. The state root must be there: connect to the supervisor first.
///
/// # Errors
/// As open(2).
pub(super) fn make(instance: &Instance) -> Result<File, CliError> {
    let root = &instance.config.root;
    let failed = |source| CliError::File { action: "make a file in", path: root.clone(), source };
    let mut options = File::options();
    options.read(true).write(true).mode(0o600);
    match options.clone().custom_flags(OFlags::TMPFILE.bits().cast_signed()).open(root) {
        // Not every file system has files without a name. The next start throws it away if we die in between.
        Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => {
            let path = root.join("layers").join(format!("import-spool-{}", std::process::id()));
            let file = options.create_new(true).open(&path).map_err(failed)?;
            std::fs::remove_file(&path).map_err(failed)?;
            Ok(file)
        }
        result => result.map_err(failed),
    }
}
