//! One container on disk: `config.json`, sealed (`sealed.rs`). One damaged record damages one container.
//! `ephemeral.json` is the same, not synced.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use mysup_ipc::{
    container::ContainerConfig,
    id::{ContainerId, ContainerName, Digest},
    layout,
    plan::StopPlan,
    record::{Durability, replace},
};
use serde::{Deserialize, Serialize};

use crate::sealed;

const MAGIC: &str = "mysup-container";

/// What is known of a container from its creation on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Its id, the name of its directory too.
    pub(crate) id: ContainerId,
    /// Its name.
    pub(crate) name: ContainerName,
    /// Nanoseconds since 1970.
    pub(crate) created_at: u64,
    /// What was asked for.
    pub(crate) config: ContainerConfig,
    /// The image, unless it is a directory.
    pub(crate) image: Option<Digest>,
    /// The program, from image and command line.
    pub(crate) program: Program,
    /// A start was attempted: without an exit record the end of the container is unknown.
    #[serde(default)]
    pub(crate) launched: bool,
}

/// What is to be run, after image and command line were merged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    /// Program and arguments; at least one.
    pub(crate) args: Vec<String>,
    /// `K=V` each.
    pub(crate) env: Vec<String>,
    /// Absolute.
    pub(crate) workdir: String,
    /// As typed, or the image's.
    pub(crate) user: String,
    /// How it is asked to stop.
    pub(crate) stop: StopPlan,
}

impl Record {
    /// A container with `--rm` promises no record once it is started, so it pays for no fsync.
    pub(crate) fn durability(&self) -> Durability {
        if self.config.remove && self.launched { Durability::Volatile } else { Durability::Durable }
    }

    /// What is not synced has a name of its own: a power cut may leave a name without its bytes.
    fn file_name(&self) -> &'static str {
        match self.durability() {
            Durability::Durable => layout::CONFIG,
            Durability::Volatile => layout::EPHEMERAL_CONFIG,
        }
    }

    /// Replaces the record in the container's directory.
    pub(crate) fn write(&self, directory: &Path) -> io::Result<()> {
        let directory = File::open(directory)?;
        replace(directory.as_fd(), self.file_name(), &self.to_bytes()?, self.durability())
    }

    fn to_bytes(&self) -> io::Result<Vec<u8>> {
        sealed::to_bytes(MAGIC, self)
    }
}

/// Reads the record of a container's directory; the error says for people what is wrong with it.
pub(crate) fn read(directory: &Path, id: &ContainerId) -> Result<Record, String> {
    let record: Record = sealed::read(MAGIC, &path(directory))?;
    if record.id == *id { Ok(record) } else { Err(format!("it is the record of {}", record.id)) }
}

/// Where the record of a container's directory is, or should be.
pub(crate) fn path(directory: &Path) -> PathBuf {
    if is_ephemeral(directory) {
        directory.join(layout::EPHEMERAL_CONFIG)
    } else {
        directory.join(layout::CONFIG)
    }
}

/// Whether the container was started with `--rm`: after a new boot nothing of it is to be there.
pub(crate) fn is_ephemeral(directory: &Path) -> bool {
    directory.join(layout::EPHEMERAL_CONFIG).symlink_metadata().is_ok()
}

/// Whether this is what a record is called before it is whole: where there is nothing else, nobody was told of it.
pub(crate) fn is_temporary(name: &OsStr) -> bool {
    [layout::CONFIG, layout::EPHEMERAL_CONFIG].iter().any(|record| *name == *format!("{record}.tmp"))
}

#[cfg(test)]
pub(crate) mod tests {
    use mysup_ipc::{
        container::ImageSource,
        plan::{Limits, LogPlan, Network, StorageDriver},
    };

    use super::*;

    fn parse(bytes: &[u8]) -> Result<Record, String> {
        sealed::parse(MAGIC, bytes)
    }

    pub(crate) fn config() -> ContainerConfig {
        ContainerConfig {
            name: None,
            image: ImageSource::Named("busybox".into()),
            command: vec![],
            entrypoint: None,
            env: vec![],
            workdir: None,
            user: None,
            hostname: None,
            terminal: None,
            interactive: false,
            remove: false,
            keep: false,
            init: false,
            mounts: vec![],
            read_only: false,
            network: Network::None,
            storage_driver: StorageDriver::Overlay,
            privileged: false,
            cap_add: vec![],
            cap_drop: vec![],
            no_new_privileges: false,
            limits: Limits::default(),
            rlimits: vec![],
            labels: vec![],
            stop_signal: None,
            stop_timeout: None,
            log: LogPlan::default(),
        }
    }

    pub(crate) fn record() -> Record {
        Record {
            id: "ab".repeat(32).parse().unwrap(),
            name: "happy_turing".parse().unwrap(),
            created_at: 5,
            config: config(),
            image: None,
            program: Program {
                args: vec!["sh".into(), "a\nb".into()],
                env: vec!["PATH=/bin".into()],
                workdir: "/".into(),
                user: String::new(),
                stop: StopPlan { signal: 15, grace_ms: Some(10_000) },
            },
            launched: true,
        }
    }

    #[test]
    fn a_record_survives_the_round_trip() {
        let directory = std::env::temp_dir().join(format!("mysup-record-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        record().write(&directory).unwrap();
        assert_eq!(read(&directory, &record().id), Ok(record()));
        let other = "cd".repeat(32).parse().unwrap();
        assert!(
            read(&directory, &other).unwrap_err().contains("abab"),
            "a copied directory is not a container"
        );
        std::fs::remove_file(directory.join(layout::CONFIG)).unwrap();
        std::fs::remove_dir(directory).unwrap();
    }

    #[test]
    fn a_record_cut_at_any_byte_is_damaged() {
        let bytes = record().to_bytes().unwrap();
        for end in 0..bytes.len() {
            assert!(parse(&bytes[..end]).is_err(), "cut at {end}");
        }
        let mut longer = bytes;
        longer.push(b' ');
        assert!(parse(&longer).is_err());
    }

    #[test]
    fn a_record_with_any_flipped_bit_is_damaged() {
        let bytes = record().to_bytes().unwrap();
        for position in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[position / 8] ^= 1 << (position % 8);
            assert!(parse(&bytes).is_err(), "bit {position}");
        }
        assert!(parse(&vec![0; 4096]).is_err());
    }
}
