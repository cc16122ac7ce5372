//! Tests of the images. They need root and, for the comparison, GNU tar.

mod differential;
mod formats;
mod hostile;
mod laboratory;
mod limits;
mod replacing;
mod sizes;
mod storing;
