//! What the doctor finds: one thing that should not be as it is, for a person and for a script.

use std::fmt::Write as _;

use mysup_ipc::{id::ContainerId, teardown::Holder};
use serde_json::{Value, json};

/// What is wrong; the words are stable, scripts read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A shim that no supervisor can find or reach.
    OrphanShim,
    /// A shim or supervisor that was stopped by a signal.
    Stopped,
    /// A container's lock is held by something that is no shim.
    ForeignLock,
    /// Processes of a container that no shim looks after.
    Init,
    /// An ended container that cannot be taken down.
    Leftover,
    /// A root file system that is mounted without its shim.
    Mount,
    /// A cgroup without its shim.
    Cgroup,
    /// Sockets, FIFOs and journal of a container whose shim is dead.
    RunDirectory,
    /// The write layer of a container that has ended.
    WriteLayer,
    /// A container's directory that was to be gone, or was never finished.
    Directory,
    /// A container that was started and whose end nobody has recorded.
    UnknownEnd,
    /// A record that cannot be read.
    DamagedRecord,
    /// An image that cannot be used.
    DamagedImage,
    /// An import that was interrupted, or a layer that no image needs.
    Layer,
    /// A volume whose making or filling was broken off, or that was to be gone.
    Volume,
    /// A volume whose record cannot be read, or that has lost its files.
    DamagedVolume,
    /// Something that waits to be removed.
    Trash,
    /// The socket of a supervisor that is dead.
    Socket,
    /// A mount of somebody else in our directories.
    MountInTheWay,
    /// Something in our directories that is not ours.
    UnknownEntry,
}

/// Who can put a finding right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cure {
    /// A supervisor that starts.
    Recovery,
    /// The shim, which tries again by itself, once it is let.
    Patience,
    /// Only a person: mysup cannot prove that it may, or has no means.
    Person,
}

impl Kind {
    /// The stable word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Kind::OrphanShim => "orphan-shim",
            Kind::Stopped => "stopped",
            Kind::ForeignLock => "foreign-lock",
            Kind::Init => "init",
            Kind::Leftover => "leftover",
            Kind::Mount => "mount",
            Kind::Cgroup => "cgroup",
            Kind::RunDirectory => "run-directory",
            Kind::WriteLayer => "write-layer",
            Kind::Directory => "directory",
            Kind::UnknownEnd => "unknown-end",
            Kind::DamagedRecord => "damaged-record",
            Kind::DamagedImage => "damaged-image",
            Kind::Layer => "layer",
            Kind::Volume => "volume",
            Kind::DamagedVolume => "damaged-volume",
            Kind::Trash => "trash",
            Kind::Socket => "socket",
            Kind::MountInTheWay => "mount-in-the-way",
            Kind::UnknownEntry => "unknown-entry",
        }
    }
}

/// The container that a finding is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    /// Its id.
    pub(super) id: ContainerId,
    /// Its name, where its record can be read.
    pub(super) name: Option<String>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// What kind of thing.
    pub(super) kind: Kind,
    /// Of which container, where it is of one.
    pub(super) container: Option<Subject>,
    /// What is wrong, a sentence for people.
    pub(super) what: String,
    /// Paths and places.
    pub(super) places: Vec<String>,
    /// Processes that hold it, or that it consists of.
    pub(super) holders: Vec<Holder>,
    /// Who can put it right.
    pub(super) cure: Cure,
    /// What a person can do about it.
    pub(super) remedy: String,
}

/// What became of a finding under `--fix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was only looked at.
    Found,
    /// It is gone.
    Repaired,
    /// It stays, and why.
    Stays(String),
}

impl Finding {
    /// Whether two looks have seen the same thing.
    pub(super) fn is_same(&self, other: &Finding) -> bool {
        let id = |finding: &Finding| finding.container.as_ref().map(|subject| subject.id.clone());
        // Where a busy container is held changes with its holders.
        let is_there = self.kind == Kind::Leftover || self.places == other.places;
        self.kind == other.kind && id(self) == id(other) && is_there
    }

    /// One block for a terminal.
    pub(super) fn block(&self, fate: &Fate) -> String {
        let mut text = String::new();
        let verdict = match fate {
            Fate::Found => "",
            Fate::Repaired => "repaired: ",
            Fate::Stays(_) => "stays: ",
        };
        let subject = self.container.as_ref().map_or(String::new(), |subject| {
            let name = subject.name.as_ref().map_or(String::new(), |name| format!(" ({name})"));
            format!(" of container {}{name}", subject.id.short())
        });
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{verdict}{}{subject}", self.kind.word());
        let _ = writeln!(text, "  {}", self.what);
        for place in &self.places {
            let _ = writeln!(text, "  where:   {place}");
        }
        if !self.holders.is_empty() {
            let _ = writeln!(text, "  holders: {}", people(&self.holders));
        }
        match fate {
            Fate::Found => {
                let _ = writeln!(text, "  remedy:  {}", self.remedy);
            }
            Fate::Repaired => {}
            Fate::Stays(why) => {
                let _ = writeln!(text, "  why:     {why}\n  remedy:  {}", self.remedy);
            }
        }
        text
    }

    /// One object for a script.
    pub(super) fn document(&self, fate: &Fate) -> Value {
        let container = self.container.as_ref().map(
            |subject| json!({"Id": subject.id.as_str(), "ShortId": subject.id.short(), "Name": subject.name}),
        );
        let holders: Vec<Value> =
            self.holders.iter().map(|holder| json!({"Pid": holder.pid, "Program": holder.program})).collect();
        let mut document = json!({
            "Kind": self.kind.word(),
            "Container": container,
            "What": self.what,
            "Where": self.places,
            "Holders": holders,
            "Remedy": self.remedy,
        });
        match fate {
            Fate::Found => {}
            Fate::Repaired => document["Repaired"] = Value::Bool(true),
            Fate::Stays(why) => {
                document["Repaired"] = Value::Bool(false);
                document["Why"] = Value::from(why.as_str());
            }
        }
        document
    }
}

/// `pid 7 (sleep), pid 9 (sh)`; of many the first ones.
pub(super) fn people(holders: &[Holder]) -> String {
    const SHOWN: usize = 8;
    let mut words: Vec<String> =
        holders.iter().take(SHOWN).map(|holder| format!("pid {} ({})", holder.pid, holder.program)).collect();
    if holders.len() > SHOWN {
        words.push(format!("and {} more", holders.len() - SHOWN));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding() -> Finding {
        Finding {
            kind: Kind::Leftover,
            container: Some(Subject {
                id: "ab".repeat(32).parse().expect("an id"),
                name: Some("web".to_owned()),
            }),
            what: "its program has ended".to_owned(),
            places: vec!["/mnt/data".to_owned()],
            holders: vec![Holder { pid: 7, program: "sleep".to_owned() }],
            cure: Cure::Patience,
            remedy: "end pid 7".to_owned(),
        }
    }

    #[test]
    fn a_block_says_it_all_to_a_person() {
        assert_eq!(
            finding().block(&Fate::Found),
            "leftover of container abababababab (web)\n  its program has ended\n  where:   /mnt/data\n  \
             holders: pid 7 (sleep)\n  remedy:  end pid 7\n"
        );
        assert!(finding().block(&Fate::Repaired).starts_with("repaired: leftover of"));
        assert!(
            finding()
                .block(&Fate::Stays("busy".to_owned()))
                .contains("  why:     busy\n  remedy:  end pid 7")
        );
    }

    #[test]
    fn a_document_says_it_all_to_a_script() {
        let document = finding().document(&Fate::Stays("busy".to_owned()));
        assert_eq!(document["Kind"], "leftover");
        assert_eq!(document["Container"]["ShortId"], "abababababab");
        assert_eq!(document["Container"]["Name"], "web");
        assert_eq!(document["Where"][0], "/mnt/data");
        assert_eq!(document["Holders"][0], json!({"Pid": 7, "Program": "sleep"}));
        assert_eq!((&document["Repaired"], &document["Why"]), (&Value::Bool(false), &Value::from("busy")));
        assert!(finding().document(&Fate::Found).get("Repaired").is_none());
    }

    #[test]
    fn many_holders_are_counted() {
        let many: Vec<Holder> = (0..20).map(|pid| Holder { pid, program: "x".to_owned() }).collect();
        assert!(people(&many).ends_with("pid 7 (x), and 12 more"));
    }
}
