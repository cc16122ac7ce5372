//! Tests of the images. They need root and, for the comparison, GNU tar.

mod differential;
mod formats;
mod hostile;
mod implied;
mod laboratory;
mod limits;
mod loading;
mod refusing;
mod replacing;
mod replaying;
mod sizes;
mod small;
mod storing;
mod whiteouts;
