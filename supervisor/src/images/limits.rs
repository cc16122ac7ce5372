//! What one archive may ask for. All of it is a stranger's input: over a limit it is refused, never cut to fit.
//!
//! Each limit has a name, by which `mysup start --image-limits NAME=N,...` (or `MYSUP_IMAGE_LIMITS`) sets another one,
//! and which the error says that somebody gets who is over it.

use std::{fmt, str::FromStr};

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cap {
    /// Entries of an archive. Two million files are ten times the largest root file systems in use.
    Entries,
    /// Components of a name.
    Depth,
    /// Bytes of a name or of a link's target; the kernel's PATH_MAX without its NUL.
    Name,
    /// Bytes of one component of a name; the kernel's NAME_MAX.
    Component,
    /// Bytes of one extension header (PAX records, GNU long names), which is held in memory.
    Extension,
    /// Extended attributes of one entry. Files have a handful; looking for doubles must not take for ever.
    AttributeCount,
    /// Bytes of the names and values of one entry's extended attributes; the kernel takes 64 KiB for one value.
    Attributes,
    /// The same of all entries together.
    AllAttributes,
    /// Data segments of one sparse file; each is 16 bytes in memory.
    Segments,
    /// Bytes of one file as `stat` shows it: a sparse file may claim more than the archive holds.
    File,
    /// Bytes of the uncompressed archive.
    Archive,
    /// Uncompressed bytes for each compressed one, looked at when [`Cap::RatioFrom`] bytes are out. gzip cannot do
    /// more than 1032, zstd can do any; real root file systems stay below 20.
    Ratio,
    /// Below so many uncompressed bytes no ratio is a bomb: this much any host can hold.
    RatioFrom,
    /// Files of an archive of images: they have a few hundred.
    Members,
}

/// All, in the order of their declaration.
const ALL: [Cap; 14] = [
    Cap::Entries,
    Cap::Depth,
    Cap::Name,
    Cap::Component,
    Cap::Extension,
    Cap::AttributeCount,
    Cap::Attributes,
    Cap::AllAttributes,
    Cap::Segments,
    Cap::File,
    Cap::Archive,
    Cap::Ratio,
    Cap::RatioFrom,
    Cap::Members,
];

impl Cap {
    /// Its name in the setting, what it is without one, and the most it can be: what is held in memory is bounded
    /// (memory.rs), and some are the kernel's own.
    fn described(self) -> (&'static str, u64, u64) {
        match self {
            Cap::Entries => ("entries", 2_000_000, u64::MAX),
            Cap::Depth => ("depth", 512, 2047),
            Cap::Name => ("name", 4095, 4095),
            Cap::Component => ("component", 255, 255),
            Cap::Extension => ("extension", 1 << 20, 4 << 20),
            Cap::AttributeCount => ("attribute-count", 1000, 10_000),
            Cap::Attributes => ("attributes", 128 << 10, 4 << 20),
            Cap::AllAttributes => ("all-attributes", 256 << 20, u64::MAX),
            Cap::Segments => ("segments", 1 << 18, 1 << 20),
            Cap::File => ("file", 1 << 42, u64::MAX),
            Cap::Archive => ("archive", 1 << 40, u64::MAX),
            Cap::Ratio => ("ratio", 200, u64::MAX),
            Cap::RatioFrom => ("ratio-from", 1 << 30, u64::MAX),
            Cap::Members => ("members", 100_000, 200_000),
        }
    }
}

/// Something was more than a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Over {
    cap: Cap,
    limit: u64,
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = self.limit;
        match self.cap {
            Cap::Entries => write!(f, "it is one more than {limit} entries")?,
            Cap::Depth => write!(f, "it lies deeper than {limit} directories")?,
            Cap::Name => write!(f, "its name has more than {limit} bytes")?,
            Cap::Component => write!(f, "a part of its name has more than {limit} bytes")?,
            Cap::Extension => write!(f, "an extension header has more than {limit} bytes")?,
            Cap::AttributeCount => write!(f, "an entry has more than {limit} extended attributes")?,
            Cap::Attributes => write!(f, "its extended attributes have more than {limit} bytes")?,
            Cap::AllAttributes => write!(f, "the extended attributes up to it have more than {limit} bytes")?,
            Cap::Segments => write!(f, "a sparse file has more than {limit} segments")?,
            Cap::File => write!(f, "its size is more than {limit} bytes")?,
            Cap::Archive => write!(f, "the archive has more than {limit} bytes uncompressed")?,
            Cap::Ratio => {
                write!(f, "the archive looks like a bomb: each compressed byte became more than {limit}")?;
            }
            Cap::RatioFrom => write!(f, "the archive has more than {limit} bytes uncompressed")?,
            Cap::Members => write!(f, "it has more than {limit} files")?,
        }
        let (name, _, most) = self.cap.described();
        match limit < most {
            true => write!(f, ", which is the limit (mysup start --image-limits {name}=N sets another)"),
            false => f.write_str(", which is the limit, and no setting can raise it"),
        }
    }
}

/// The limits of one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits([u64; ALL.len()]);

impl Default for Limits {
    fn default() -> Self {
        Self(ALL.map(|cap| cap.described().1))
    }
}

impl Limits {
    /// The text that sets them, if they are not the usual ones.
    pub(crate) fn setting(&self) -> Option<String> {
        let changed = ALL.into_iter().filter(|cap| self.of(*cap) != cap.described().1);
        let parts: Vec<String> =
            changed.map(|cap| format!("{}={}", cap.described().0, self.of(cap))).collect();
        (!parts.is_empty()).then(|| parts.join(","))
    }

    /// The limit.
    pub(super) fn of(&self, cap: Cap) -> u64 {
        // The table has one for each.
        self.0.get(cap as usize).copied().unwrap_or_default()
    }

    /// # Errors
    /// If the value is more than the limit.
    pub(super) fn check(&self, cap: Cap, value: u64) -> Result<(), Over> {
        match value > self.of(cap) {
            true => Err(self.over(cap)),
            false => Ok(()),
        }
    }

    /// The error of whoever found out by himself.
    pub(super) fn over(&self, cap: Cap) -> Over {
        Over { cap, limit: self.of(cap) }
    }

    /// With another limit.
    #[cfg(any(test, fuzzing))]
    pub(super) fn with(mut self, cap: Cap, limit: u64) -> Self {
        if let Some(slot) = self.0.get_mut(cap as usize) {
            *slot = limit;
        }
        self
    }
}

/// What is wrong with a setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidLimits {
    /// No name, or none that is known.
    #[error("\"{0}\" is not NAME=N with a NAME of {names}", names = names())]
    Form(String),
    /// Out of its range.
    #[error("\"{text}\": N must be a number from 1 to {most}")]
    Range {
        /// As typed.
        text: String,
        /// The most that it can be.
        most: u64,
    },
}

fn names() -> String {
    ALL.map(|cap| cap.described().0).join(", ")
}

impl FromStr for Limits {
    type Err = InvalidLimits;

    /// `NAME=N`, with commas between several; what is not named stays as it is.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut limits = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let form = || InvalidLimits::Form(part.to_owned());
            let (name, number) = part.split_once('=').ok_or_else(form)?;
            let (at, cap) =
                ALL.iter().enumerate().find(|(_, cap)| cap.described().0 == name.trim()).ok_or_else(form)?;
            let most = cap.described().2;
            let number = number.trim().parse().ok().filter(|number| (1..=most).contains(number));
            let range = || InvalidLimits::Range { text: part.to_owned(), most };
            if let Some(slot) = limits.0.get_mut(at) {
                *slot = number.ok_or_else(range)?;
            }
        }
        Ok(limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_its_own_name_and_place() {
        for (at, cap) in ALL.into_iter().enumerate() {
            assert_eq!(cap as usize, at);
            let (name, usual, most) = cap.described();
            assert!(
                usual <= most && ALL.iter().filter(|cap| cap.described().0 == name).count() == 1,
                "{name}"
            );
            let limits: Limits = format!("{name}=1").parse().expect("it is known");
            assert_eq!(limits.of(cap), 1);
            let told = limits.over(cap).to_string();
            assert!(told.contains(&format!("--image-limits {name}=N")), "{told}");
            let told = Over { cap, limit: most }.to_string();
            assert!(told.contains("no setting can raise it"), "{told}");
        }
    }

    #[test]
    fn settings_are_read_strictly() {
        let limits: Limits = "entries=7, ratio=9,".parse().expect("well formed");
        assert_eq!((limits.of(Cap::Entries), limits.of(Cap::Ratio), limits.of(Cap::Name)), (7, 9, 4095));
        assert_eq!(limits.setting().as_deref(), Some("entries=7,ratio=9"));
        assert_eq!("".parse(), Ok(Limits::default()));
        assert_eq!(Limits::default().setting(), None);
        for wrong in
            ["entries", "entries=", "entries=0", "entries=-1", "entries=1k", "files=3", "=3", "name=4096"]
        {
            assert!(wrong.parse::<Limits>().is_err(), "{wrong}");
        }
    }
}
