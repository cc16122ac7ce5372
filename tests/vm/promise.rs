//! What the machine told somebody before it was killed; one line of the serial line each.

use std::{fmt, str::FromStr};

/// A fact that must hold after the next boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Promise {
    /// An image was listed with this id.
    Image(String),
    /// `run -d` or `create` printed the id of a container. It ends with the code, if it comes to that.
    Made { name: String, id: String, code: Option<i32> },
    /// Somebody was told this exit code.
    Ended { name: String, code: i32 },
    /// `rm` said that it is done, or it had `--rm`.
    Gone { name: String },
    /// The program had synced so many records.
    Wrote(usize),
    /// A directory of the user's, which nobody writes to, by digest.
    Tree { place: String, digest: String },
    /// A process of ours had this pid; after the boot a stranger has it.
    Pid(i32),
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("promise ")?;
        match self {
            Promise::Image(id) => write!(f, "image {id}"),
            Promise::Made { name, id, code: Some(code) } => write!(f, "made {name} {id} {code}"),
            Promise::Made { name, id, code: None } => write!(f, "made {name} {id}"),
            Promise::Ended { name, code } => write!(f, "ended {name} {code}"),
            Promise::Gone { name } => write!(f, "gone {name}"),
            Promise::Wrote(count) => write!(f, "wrote {count}"),
            Promise::Tree { place, digest } => write!(f, "tree {place} {digest}"),
            Promise::Pid(pid) => write!(f, "pid {pid}"),
        }
    }
}

impl FromStr for Promise {
    type Err = ();

    /// A line that is cut, as the last one may be, is no promise.
    fn from_str(line: &str) -> Result<Promise, ()> {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |text: &str| text.parse().map_err(drop);
        match words[..] {
            ["promise", "image", id] => Ok(Promise::Image(id.to_owned())),
            ["promise", "made", name, id] => {
                Ok(Promise::Made { name: name.to_owned(), id: id.to_owned(), code: None })
            }
            ["promise", "made", name, id, code] => {
                Ok(Promise::Made { name: name.to_owned(), id: id.to_owned(), code: Some(number(code)?) })
            }
            ["promise", "ended", name, code] => {
                Ok(Promise::Ended { name: name.to_owned(), code: number(code)? })
            }
            ["promise", "gone", name] => Ok(Promise::Gone { name: name.to_owned() }),
            ["promise", "wrote", count] => Ok(Promise::Wrote(count.parse().map_err(drop)?)),
            ["promise", "tree", place, digest] => {
                Ok(Promise::Tree { place: place.to_owned(), digest: digest.to_owned() })
            }
            ["promise", "pid", pid] => Ok(Promise::Pid(number(pid)?)),
            _ => Err(()),
        }
    }
}
