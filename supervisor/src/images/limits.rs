//! What one archive may ask for. All of it is a stranger's input: over a limit it is refused, never cut to fit.

/// The limits of one import.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// Entries of an archive. Two million files are ten times the largest root file systems in use.
    pub(super) entries: u64,
    /// Components of a name.
    pub(super) depth: usize,
    /// Bytes of a name or of a link's target; the kernel's PATH_MAX without its NUL.
    pub(super) path: usize,
    /// Bytes of one component of a name; the kernel's NAME_MAX.
    pub(super) component: usize,
    /// Bytes of one extension header (PAX records, GNU long names), which is held in memory.
    pub(super) extension: u64,
    /// Bytes of the names and values of one entry's extended attributes; the kernel takes 64 KiB for one value.
    pub(super) attributes: usize,
    /// The same of all entries together.
    pub(super) all_attributes: u64,
    /// Data segments of one sparse file; each is 16 bytes in memory.
    pub(super) segments: usize,
    /// Bytes of the uncompressed archive.
    pub(super) archive: u64,
    /// Bytes of one file as `stat` shows it: a sparse file may claim more than the archive holds.
    pub(super) file: u64,
    /// Uncompressed bytes for each compressed one, looked at when `ratio_from` bytes are out. gzip cannot do more
    /// than 1032, zstd can do any; real root file systems stay below 20.
    pub(super) ratio: u64,
    /// Below so many uncompressed bytes no ratio is a bomb: this much any host can hold.
    pub(super) ratio_from: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 2_000_000,
            depth: 512,
            path: 4095,
            component: 255,
            extension: 1 << 20,
            attributes: 128 << 10,
            all_attributes: 256 << 20,
            segments: 1 << 18,
            archive: 1 << 40,
            file: 1 << 42,
            ratio: 200,
            ratio_from: 1 << 30,
        }
    }
}
