//! `-v`, `--mount` and `--tmpfs`.

use std::path::Path;

use mysup_ipc::{
    id::VolumeName,
    plan::{MountPlan, MountSource, VolumeMount},
};

use super::{
    Invalid, path,
    size::{self, Kilo},
};

/// Permission bits of a tmpfs when nobody says otherwise: anybody may write, as in /tmp.
const TMPFS_MODE: u32 = 0o1777;

/// `-v SRC:DST[:ro|rw]` with a path of the host (a missing directory will be made), `-v NAME:DST[:ro|rw,nocopy]` with a
/// volume, `-v DST` with a volume that nobody named.
///
/// # Errors
/// If it is no such volume.
pub(crate) fn volume(text: &str, cwd: &Path) -> Result<MountPlan, Invalid> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => ("", target, ""),
        ["", ..] => {
            return Err(Invalid::new(format!("invalid volume \"{text}\": empty section between colons")));
        }
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => return Err(Invalid::new(format!("invalid volume \"{text}\": SRC:DST[:OPTIONS] is allowed"))),
    };
    let is_path = source.starts_with(['/', '.']);
    let (mut read_only, mut no_copy) = (false, false);
    for option in options.split(',').filter(|_| !options.is_empty()) {
        match option {
            "rw" => read_only = false,
            "ro" => read_only = true,
            "nocopy" if !is_path => no_copy = true,
            _ => {
                return Err(Invalid::new(format!(
                    "invalid mode \"{options}\" of volume \"{text}\": ro and rw are allowed, and nocopy with a volume's \
                     name"
                )));
            }
        }
    }
    let source = if is_path {
        MountSource::Bind { path: path::host(source, cwd)?, create: true }
    } else {
        MountSource::Volume(VolumeMount { name: volume_name(source)?, no_copy, ..VolumeMount::default() })
    };
    Ok(MountPlan { destination: path::destination(target)?, read_only, source })
}

/// No name is a name that will be made up.
fn volume_name(text: &str) -> Result<String, Invalid> {
    if text.is_empty() {
        return Ok(String::new());
    }
    text.parse::<VolumeName>().map(String::from).map_err(|error| Invalid::new(error.to_string()))
}

/// `--tmpfs DST[:size=64m,mode=1777,exec,noexec,ro]`.
///
/// # Errors
/// If it is no such mount.
pub(crate) fn tmpfs(text: &str) -> Result<MountPlan, Invalid> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let (mut read_only, mut size, mut mode, mut exec) = (false, None, TMPFS_MODE, false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=').unwrap_or((option, "")) {
            ("ro", "") => read_only = true,
            ("rw", "") => read_only = false,
            ("exec", "") => exec = true,
            ("noexec", "") => exec = false,
            // Always so.
            ("nosuid" | "nodev", "") => {}
            ("size", value) => size = Some(size::parse(value, Kilo::Binary)?).filter(|&bytes| bytes != 0),
            ("mode", value) => mode = permission_bits(value)?,
            _ => {
                return Err(Invalid::new(format!(
                    "invalid tmpfs option \"{option}\": size=N, mode=N, exec, noexec, ro and rw are allowed"
                )));
            }
        }
    }
    let source = MountSource::Tmpfs { size, mode, exec };
    Ok(MountPlan { destination: path::destination(target)?, read_only, source })
}

fn permission_bits(text: &str) -> Result<u32, Invalid> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let bits = u32::from_str_radix(text, 8).ok().filter(|&bits| digits && bits <= 0o7777);
    bits.ok_or_else(|| Invalid::new(format!("invalid mode \"{text}\": octal digits up to 7777 are allowed")))
}

/// `--mount type=bind,...`, `--mount type=tmpfs,...` or, as without a type, `--mount type=volume,...`.
///
/// # Errors
/// If it is no such mount.
pub(crate) fn mount(text: &str, cwd: &Path) -> Result<MountPlan, Invalid> {
    let fields = MountFields::read(text)?;
    let target =
        fields.target.ok_or_else(|| Invalid::new(format!("invalid mount \"{text}\": target is required")))?;
    let not_with = |what: &str, kind: &str| {
        Invalid::new(format!("invalid mount \"{text}\": {what} does not go with type={kind}"))
    };
    let for_tmpfs = fields.size.is_some() || fields.mode.is_some();
    let kind = fields.kind.unwrap_or("volume");
    if for_tmpfs && kind != "tmpfs" {
        return Err(not_with("a tmpfs option", kind));
    }
    if fields.no_copy && kind != "volume" {
        return Err(not_with("volume-nocopy", kind));
    }
    let source = match (kind, fields.source) {
        ("bind", Some(source)) => {
            if !source.starts_with(['/', '.']) {
                return Err(Invalid::new(format!(
                    "invalid mount source \"{source}\": an absolute path, or one that starts with ./ or ../ is allowed"
                )));
            }
            MountSource::Bind { path: path::host(source, cwd)?, create: false }
        }
        ("bind", None) => {
            return Err(Invalid::new(format!("invalid mount \"{text}\": source is required with type=bind")));
        }
        ("tmpfs", None) => {
            MountSource::Tmpfs { size: fields.size, mode: fields.mode.unwrap_or(TMPFS_MODE), exec: false }
        }
        ("tmpfs", Some(_)) => return Err(not_with("source", kind)),
        ("volume", source) => {
            let name = volume_name(source.unwrap_or_default())?;
            MountSource::Volume(VolumeMount { name, no_copy: fields.no_copy, ..VolumeMount::default() })
        }
        (kind, _) => {
            return Err(Invalid::new(format!(
                "mount type \"{kind}\" is not supported: type=bind, type=tmpfs and type=volume are"
            )));
        }
    };
    Ok(MountPlan { destination: path::destination(target)?, read_only: fields.read_only, source })
}

#[derive(Default)]
struct MountFields<'a> {
    kind: Option<&'a str>,
    source: Option<&'a str>,
    target: Option<&'a str>,
    read_only: bool,
    size: Option<u64>,
    mode: Option<u32>,
    no_copy: bool,
}

impl<'a> MountFields<'a> {
    fn read(text: &'a str) -> Result<Self, Invalid> {
        let mut fields = Self::default();
        for field in text.split(',') {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (field, None),
            };
            match (key, value) {
                ("type", Some(value)) => fields.kind = Some(value),
                ("source" | "src", Some(value)) => fields.source = Some(value),
                ("target" | "dst" | "destination", Some(value)) => fields.target = Some(value),
                ("readonly" | "ro", None | Some("true" | "1")) => fields.read_only = true,
                ("readonly" | "ro", Some("false" | "0")) => fields.read_only = false,
                ("volume-nocopy", None | Some("true" | "1")) => fields.no_copy = true,
                ("volume-nocopy", Some("false" | "0")) => fields.no_copy = false,
                ("tmpfs-size", Some(value)) => {
                    fields.size = Some(size::parse(value, Kilo::Binary)?).filter(|&bytes| bytes != 0);
                }
                ("tmpfs-mode", Some(value)) => fields.mode = Some(permission_bits(value)?),
                _ => {
                    return Err(Invalid::new(format!(
                        "unexpected \"{field}\" in mount \"{text}\": allowed are type, source, target, readonly, \
                         volume-nocopy, tmpfs-size and tmpfs-mode"
                    )));
                }
            }
        }
        Ok(fields)
    }
}

/// All mounts of a container: no two at the same place.
///
/// # Errors
/// docker's text with the place.
pub(crate) fn refuse_duplicates(mounts: &[MountPlan]) -> Result<(), Invalid> {
    for (at, mount) in mounts.iter().enumerate() {
        if mounts[..at].iter().any(|earlier| earlier.destination == mount.destination) {
            return Err(Invalid::new(format!("Duplicate mount point: {}", mount.destination)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cwd() -> &'static Path {
        Path::new("/here")
    }

    fn bind(source: &str, destination: &str, read_only: bool, create: bool) -> MountPlan {
        let source = MountSource::Bind { path: source.to_owned(), create };
        MountPlan { destination: destination.to_owned(), read_only, source }
    }

    #[test]
    fn volumes_are_binds() {
        assert_eq!(volume("/a:/b", cwd()), Ok(bind("/a", "/b", false, true)));
        assert_eq!(volume("./a:/b:ro", cwd()), Ok(bind("/here/a", "/b", true, true)));
        assert_eq!(volume("../a:/b/:rw", cwd()), Ok(bind("/a", "/b", false, true)));
        for bad in [
            "a",
            "x/y:/b",
            "d:/b",
            "/a:/b:nocopy",
            "data:/b:nocopy,z",
            ":/b",
            "/a:",
            "/a:b",
            "/a:/b:z",
            "/a:/b:ro:x",
            "/a:/",
            "/a:/proc/x",
            "",
            ":",
            "/a:/../b",
        ] {
            assert!(volume(bad, cwd()).is_err(), "{bad}");
        }
    }

    #[test]
    fn words_are_names_of_volumes() {
        let plan = |name: &str, destination: &str, read_only, no_copy| MountPlan {
            destination: destination.to_owned(),
            read_only,
            source: MountSource::Volume(VolumeMount {
                name: name.to_owned(),
                no_copy,
                ..VolumeMount::default()
            }),
        };
        for (text, wanted) in [
            ("/d", plan("", "/d", false, false)),
            ("data:/d", plan("data", "/d", false, false)),
            ("data:/d:ro,nocopy", plan("data", "/d", true, true)),
            ("data:/d:nocopy", plan("data", "/d", false, true)),
        ] {
            assert_eq!(volume(text, cwd()), Ok(wanted), "{text}");
        }
        for (text, wanted) in [
            ("type=volume,src=data,dst=/d", plan("data", "/d", false, false)),
            ("src=data,dst=/d,readonly", plan("data", "/d", true, false)),
            ("dst=/d,volume-nocopy", plan("", "/d", false, true)),
        ] {
            assert_eq!(mount(text, cwd()), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn tmpfs_options() {
        let plan = |read_only, size, mode, exec| MountPlan {
            destination: "/t".to_owned(),
            read_only,
            source: MountSource::Tmpfs { size, mode, exec },
        };
        assert_eq!(tmpfs("/t"), Ok(plan(false, None, 0o1777, false)));
        assert_eq!(tmpfs("/t:size=64m,mode=700,exec,ro"), Ok(plan(true, Some(64 << 20), 0o700, true)));
        for bad in ["t", "/t:size=x", "/t:mode=9", "/t:mode=17777", "/t:suid", "/t:exec=1", "/", "/t:mode=+1"]
        {
            assert!(tmpfs(bad).is_err(), "{bad}");
        }
        assert_eq!(
            mount("type=tmpfs,dst=/t,tmpfs-size=1m", cwd()),
            Ok(plan(false, Some(1 << 20), 0o1777, false))
        );
    }

    #[test]
    fn mounts_need_type_source_and_target() {
        assert_eq!(mount("type=bind,src=/a,dst=/b,readonly", cwd()), Ok(bind("/a", "/b", true, false)));
        assert_eq!(
            mount("type=bind,source=./a,target=/b,ro=false", cwd()),
            Ok(bind("/here/a", "/b", false, false))
        );
        for bad in [
            "type=bind,dst=/b",
            "type=bind,src=/a",
            "src=/a,dst=/b",
            "type=volume,src=a,dst=/b",
            "type=volume,src=data,dst=/b,tmpfs-size=1",
            "type=bind,src=/a,dst=/b,volume-nocopy",
            "type=npipe,src=data,dst=/b",
            "type=bind,src=a,dst=/b",
            "type=bind,src=/a,dst=/b,what=1",
            "type=tmpfs,src=/a,dst=/b",
            "type=bind,src=/a,dst=/b,tmpfs-size=1",
            "",
        ] {
            assert!(mount(bad, cwd()).is_err(), "{bad}");
        }
    }

    #[test]
    fn two_mounts_at_one_place_are_refused() {
        let mounts = [bind("/a", "/b", false, true), bind("/c", "/b", false, true)];
        assert_eq!(refuse_duplicates(&mounts), Err(Invalid::new("Duplicate mount point: /b")));
        assert_eq!(refuse_duplicates(&mounts[..1]), Ok(()));
    }
}
