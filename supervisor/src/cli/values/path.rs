//! Paths of the host and of the container, cleaned as text: symbolic links are the business of those who open them.

use std::path::Path;

use super::Invalid;

/// An absolute path of the host; one that starts with `.` is taken from `cwd`. `.`, `..` and doubled slashes are
/// resolved in the text, as docker does.
pub(crate) fn host(text: &str, cwd: &Path) -> Result<String, Invalid> {
    if text.starts_with('/') {
        return Ok(clean(text));
    }
    let cwd = cwd.to_str().ok_or_else(|| {
        Invalid::new(format!("\"{text}\" is relative to a working directory whose name is not valid UTF-8"))
    })?;
    Ok(clean(&format!("{cwd}/{text}")))
}

/// The place of a mount in the container: absolute, without `..`, not the root, and nothing of the kernel's.
pub(crate) fn destination(text: &str) -> Result<String, Invalid> {
    if !text.starts_with('/') {
        return Err(Invalid::new(format!("invalid mount path \"{text}\": mount path must be absolute")));
    }
    if text.split('/').any(|part| part == "..") {
        return Err(Invalid::new(format!("invalid mount path \"{text}\": it must not contain '..'")));
    }
    let path = clean(text);
    if path == "/" {
        return Err(Invalid::new(format!(
            "invalid mount path \"{text}\": destination can't be '/' (--rootfs DIR gives another root)"
        )));
    }
    let reserved = ["/proc", "/sys"];
    if let Some(base) = reserved.iter().find(|base| is_at_or_below(&path, base)) {
        return Err(Invalid::new(format!(
            "invalid mount path \"{text}\": {base} is the kernel's and nothing may be mounted at or below it"
        )));
    }
    Ok(path)
}

/// A working directory in the container.
pub(crate) fn working_directory(text: &str) -> Result<String, Invalid> {
    if text.starts_with('/') {
        return Ok(clean(text));
    }
    Err(Invalid::new(format!("the working directory '{text}' is invalid, it needs to be an absolute path")))
}

fn is_at_or_below(path: &str, base: &str) -> bool {
    path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// An absolute path without `.`, `..` and empty parts.
fn clean(text: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_paths_become_absolute() {
        let cwd = Path::new("/home/me");
        let cases = [
            ("/a//b/./c/", "/a/b/c"),
            ("./x", "/home/me/x"),
            ("../y", "/home/y"),
            (".", "/home/me"),
            ("/..", "/"),
        ];
        for (text, path) in cases {
            assert_eq!(host(text, cwd).as_deref(), Ok(path), "{text}");
        }
    }

    #[test]
    fn destinations_are_checked() {
        for (text, path) in
            [("/data", "/data"), ("/a//b/.", "/a/b"), ("/procfs", "/procfs"), ("/dev/x", "/dev/x")]
        {
            assert_eq!(destination(text).as_deref(), Ok(path), "{text}");
        }
        for bad in ["", "data", "./data", "/a/../b", "/", "//", "/.", "/proc", "/proc/1", "/sys/", "//sys/fs"]
        {
            assert!(destination(bad).is_err(), "{bad}");
        }
    }
}
