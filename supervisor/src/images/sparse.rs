//! Sparse files: the old GNU header, and the three forms of GNU's PAX records (0.0, 0.1 and 1.0).

use super::{
    error::{HeaderFault, ImageError},
    fields,
    limits::{Cap, Limits},
    tape::{BLOCK, Tape},
};

/// A run of data in a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// In the file.
    pub(super) offset: u64,
    /// Bytes.
    pub(super) length: u64,
}

/// Where the data of a sparse file belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SparseMap {
    /// In order, without overlap.
    pub(super) segments: Vec<Segment>,
    /// Bytes of the file with its holes.
    pub(super) size: u64,
}

impl SparseMap {
    /// A map that fits `stored` bytes of data.
    pub(super) fn checked(segments: Vec<Segment>, size: u64, stored: u64) -> Result<Self, HeaderFault> {
        let mut end = 0_u64;
        let mut data = 0_u64;
        for segment in &segments {
            if segment.offset < end {
                return Err(HeaderFault::Sparse);
            }
            end = segment.offset.checked_add(segment.length).ok_or(HeaderFault::Sparse)?;
            // No overflow: the data lies below `end`.
            data += segment.length;
        }
        if end > size || data != stored { Err(HeaderFault::Sparse) } else { Ok(Self { segments, size }) }
    }
}

/// What the `GNU.sparse.` records of one entry say.
#[derive(Debug, Clone, Default)]
pub(super) struct SparseRecords {
    present: bool,
    major: u64,
    minor: u64,
    /// The name that counts; the header has a made-up one.
    pub(super) name: Option<Vec<u8>>,
    size: Option<u64>,
    segments: Vec<Segment>,
    /// Of form 0.0, whose length comes in the next record.
    offset: Option<u64>,
}

impl SparseRecords {
    /// Whether there are any.
    pub(super) fn present(&self) -> bool {
        self.present
    }

    /// Takes one record; `key` is without its prefix.
    pub(super) fn set(&mut self, key: &[u8], value: &[u8], limits: &Limits) -> Result<(), HeaderFault> {
        let number = || fields::decimal(value).ok_or(HeaderFault::Sparse);
        self.present = true;
        match key {
            b"major" => self.major = number()?,
            b"minor" => self.minor = number()?,
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(number()?),
            // The number of segments is known from the segments.
            b"numblocks" => drop(number()?),
            b"offset" if self.offset.is_none() => self.offset = Some(number()?),
            b"numbytes" => {
                let offset = self.offset.take().ok_or(HeaderFault::Sparse)?;
                push(&mut self.segments, Segment { offset, length: number()? }, limits)?;
            }
            b"map" => {
                let mut numbers = value.split(|byte| *byte == b',').map(fields::decimal);
                while let Some(offset) = numbers.next() {
                    let (Some(offset), Some(Some(length))) = (offset, numbers.next()) else {
                        return Err(HeaderFault::Sparse);
                    };
                    push(&mut self.segments, Segment { offset, length }, limits)?;
                }
            }
            _ => return Err(HeaderFault::Sparse),
        }
        Ok(())
    }

    /// The map, and how many of the `stored` bytes on the tape are left as data: form 1.0 has the map among them.
    pub(super) fn map(
        &self,
        stored: u64,
        tape: &mut Tape,
        limits: &Limits,
    ) -> Result<(SparseMap, u64), ImageError> {
        let fault = |fault| ImageError::header(tape.position(), fault);
        let size = self.size.ok_or(HeaderFault::Sparse).map_err(fault)?;
        match (self.major, self.minor) {
            (0, _) if self.offset.is_none() => {
                let map = SparseMap::checked(self.segments.clone(), size, stored).map_err(fault)?;
                Ok((map, stored))
            }
            (1, 0) if self.segments.is_empty() => {
                let begin = tape.position();
                let segments = map_on_tape(stored, tape, limits)?;
                let stored = stored - (tape.position() - begin);
                let map = SparseMap::checked(segments, size, stored)
                    .map_err(|fault| ImageError::header(begin, fault))?;
                Ok((map, stored))
            }
            _ => Err(fault(HeaderFault::Sparse)),
        }
    }
}

/// The map of an old GNU header, which goes on in blocks after it.
pub(super) fn old_gnu_map(
    header: &tar::GnuHeader,
    stored: u64,
    tape: &mut Tape,
    limits: &Limits,
) -> Result<SparseMap, ImageError> {
    let begin = tape.position();
    let fault = |fault| ImageError::header(begin, fault);
    let mut segments = Vec::new();
    push_all(&mut segments, &header.sparse, limits).map_err(fault)?;
    let mut extended = header.isextended != [0];
    while extended {
        let block = tape.block()?.ok_or_else(|| tape.cut())?;
        let mut more = tar::GnuExtSparseHeader::new();
        more.as_mut_bytes().copy_from_slice(&block);
        push_all(&mut segments, &more.sparse, limits).map_err(fault)?;
        extended = more.isextended != [0];
    }
    let size = fields::unsigned(&header.realsize).ok_or_else(|| fault(HeaderFault::Number("realsize")))?;
    SparseMap::checked(segments, size, stored).map_err(fault)
}

/// An empty descriptor ends the list of its block.
fn push_all(
    segments: &mut Vec<Segment>,
    descriptors: &[tar::GnuSparseHeader],
    limits: &Limits,
) -> Result<(), HeaderFault> {
    for descriptor in descriptors.iter().take_while(|descriptor| descriptor.numbytes[0] != 0) {
        let offset = fields::unsigned(&descriptor.offset).ok_or(HeaderFault::Sparse)?;
        let length = fields::unsigned(&descriptor.numbytes).ok_or(HeaderFault::Sparse)?;
        push(segments, Segment { offset, length }, limits)?;
    }
    Ok(())
}

/// Form 1.0: decimal numbers, each with a newline, first how many segments; the last block is filled with zeros.
fn map_on_tape(stored: u64, tape: &mut Tape, limits: &Limits) -> Result<Vec<Segment>, ImageError> {
    let begin = tape.position();
    let fault = || ImageError::header(begin, HeaderFault::Sparse);
    let mut numbers = Vec::new();
    let mut digits = Vec::new();
    let mut wanted = None;
    let mut read = 0;
    while wanted.is_none_or(|wanted| numbers.len() < wanted) {
        read += BLOCK as u64;
        if read > stored {
            return Err(fault());
        }
        let block = tape.block()?.ok_or_else(|| tape.cut())?;
        for byte in block {
            if wanted.is_some_and(|wanted| numbers.len() >= wanted) {
                break;
            }
            match (byte, wanted) {
                (b'0'..=b'9', _) if digits.len() < 20 => digits.push(byte),
                (b'\n', None) => {
                    let count = fields::decimal(&digits).ok_or_else(fault)?;
                    let over = |over| ImageError::header(begin, HeaderFault::Over(over));
                    limits.check(Cap::Segments, count).map_err(over)?;
                    wanted = Some(usize::try_from(count).map_err(|_too_large| fault())? * 2);
                    digits.clear();
                }
                (b'\n', Some(_)) => {
                    numbers.push(fields::decimal(&digits).ok_or_else(fault)?);
                    digits.clear();
                }
                _ => return Err(fault()),
            }
        }
    }
    let pairs = numbers.chunks_exact(2).filter_map(|pair| match pair {
        [offset, length] => Some(Segment { offset: *offset, length: *length }),
        _ => None,
    });
    Ok(pairs.collect())
}

fn push(segments: &mut Vec<Segment>, segment: Segment, limits: &Limits) -> Result<(), HeaderFault> {
    limits.check(Cap::Segments, segments.len() as u64 + 1).map_err(HeaderFault::Over)?;
    segments.push(segment);
    Ok(())
}
