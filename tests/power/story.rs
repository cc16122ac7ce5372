//! What users do, in chapters, and what they are told meanwhile. A chapter ends early when the power is gone.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::facts::{Fact, Life, Told};
use crate::harness::{
    PATIENCE, Sandbox,
    bundle::{self, Packed, Specimen},
    command::Output,
    image,
    registry::{Fake, answer_from},
    tree::Tree,
};

/// The power is gone.
#[derive(Debug)]
pub(super) struct PowerGone;

type Done = Result<(), PowerGone>;

/// The layers that were unpacked, by digest: whenever one is listed it must be this.
pub(super) type Layers = Arc<Mutex<BTreeMap<String, Tree>>>;

/// A part of the story that stands alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Chapter {
    /// An image, another one of the same name, and the first one removed.
    Import,
    /// A container is made, renamed, started.
    Create,
    /// A container runs in the background, and goes on.
    RunDetached,
    /// A container runs in the foreground, to its end.
    RunForeground,
    /// Somebody waits for a container in the background.
    Wait,
    /// A container is stopped.
    Stop,
    /// Containers with `--rm`: one ends, one goes on.
    Brief,
    /// A container writes into a write layer that is kept, and syncs.
    Keep,
    /// An ended container is started again and ends otherwise.
    Again,
    /// An ended container is removed, and one that runs.
    Remove,
    /// What a running container has changed becomes an image, and another one of the same name.
    Commit,
    /// Volumes: made, filled with what the image has, removed with a container and by name.
    Volumes,
    /// An image of several layers from an archive, another one of the same name, and the first one removed.
    Load,
    /// An image from a registry, and another one of the same name.
    Pull,
}

/// All of them, in the order of the story.
pub(super) const CHAPTERS: [Chapter; 14] = [
    Chapter::Import,
    Chapter::Create,
    Chapter::RunDetached,
    Chapter::RunForeground,
    Chapter::Wait,
    Chapter::Stop,
    Chapter::Brief,
    Chapter::Keep,
    Chapter::Again,
    Chapter::Remove,
    Chapter::Commit,
    Chapter::Volumes,
    Chapter::Load,
    Chapter::Pull,
];

impl Chapter {
    /// Its word on the command line.
    pub(super) fn word(self) -> &'static str {
        match self {
            Chapter::Import => "import",
            Chapter::Create => "create",
            Chapter::RunDetached => "run-d",
            Chapter::RunForeground => "run",
            Chapter::Wait => "wait",
            Chapter::Stop => "stop",
            Chapter::Brief => "run-rm",
            Chapter::Keep => "keep",
            Chapter::Again => "again",
            Chapter::Remove => "rm",
            Chapter::Commit => "commit",
            Chapter::Volumes => "volumes",
            Chapter::Load => "load",
            Chapter::Pull => "pull",
        }
    }

    /// Whether a shim is started in it.
    pub(super) fn has_shim(self) -> bool {
        !matches!(self, Chapter::Import | Chapter::Load | Chapter::Pull)
    }
}

impl fmt::Display for Chapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The container that has ended before the story begins, and the one that is started again in it.
const OLD: &str = "old";
const TWICE: &str = "twice";

/// Whoever plays the story.
pub(super) struct Player<'a> {
    sandbox: &'a Sandbox,
    /// How much has come to the disk.
    position: Box<dyn Fn() -> usize + Send + 'a>,
    /// The power is gone.
    gone: Arc<AtomicBool>,
    layers: Layers,
    /// What the user was told.
    pub(super) told: Told,
}

impl<'a> Player<'a> {
    /// A story that begins.
    pub(super) fn new(
        sandbox: &'a Sandbox,
        position: impl Fn() -> usize + Send + 'a,
        gone: &Arc<AtomicBool>,
        layers: &Layers,
    ) -> Player<'a> {
        let (position, gone) = (Box::new(position), Arc::clone(gone));
        Player { sandbox, position, gone, layers: Arc::clone(layers), told: Told::default() }
    }

    /// What happened long before, and is on the disk: an image and two ended containers.
    pub(super) fn before_the_story(&mut self) -> Done {
        let tar = self.tar("busybox", &[]);
        self.import(&tar, image::NAME)?;
        self.run_foreground(OLD, "exit 11", 11, &[])?;
        self.run_foreground(TWICE, "[ ! -e /ran ] || exit 82; echo > /ran; exit 12", 12, &["--keep"])
    }

    /// Plays one chapter.
    pub(super) fn play(&mut self, chapter: Chapter) -> Done {
        match chapter {
            Chapter::Import => self.chapter_import(),
            Chapter::Create => self.chapter_create(),
            Chapter::RunDetached => {
                self.run_detached("runs", "echo up; while :; do sleep 1; done", None, &[]).map(drop)
            }
            Chapter::RunForeground => self.run_foreground("fore", "echo up; exit 21", 21, &[]),
            Chapter::Wait => self.chapter_wait(),
            Chapter::Stop => self.chapter_stop(),
            Chapter::Brief => self.chapter_brief(),
            Chapter::Keep => self.chapter_keep(),
            Chapter::Again => self.chapter_again(),
            Chapter::Remove => self.chapter_remove(),
            Chapter::Commit => self.chapter_commit(),
            Chapter::Volumes => self.chapter_volumes(),
            Chapter::Load => self.chapter_load(),
            Chapter::Pull => self.chapter_pull(),
        }
    }

    fn chapter_import(&mut self) -> Done {
        let (one, other) =
            (self.tar("one", &[("etc/extra", "one\n")]), self.tar("other", &[("etc/extra", "other\n")]));
        let first = self.import(&one, "imported")?;
        self.note(&first, Some(Fact::Image(first.clone())));
        self.import(&other, "imported")?;
        self.note(&first, None);
        self.command(&["rmi", &first], 0)?;
        self.note(&first, Some(Fact::NoImage));
        Ok(())
    }

    fn chapter_create(&mut self) -> Done {
        let (made, renamed) = ("made", "renamed");
        for name in [made, renamed] {
            self.told.ends_with(name, 31);
        }
        self.note(made, None);
        let id = self.command(&["create", "--name", made, image::NAME, "sh", "-c", "exit 31"], 0)?.text();
        self.note(made, Some(Fact::Container(id.clone(), Life::Created)));
        self.note(made, None);
        self.note(renamed, None);
        self.command(&["rename", made, renamed], 0)?;
        self.note(made, Some(Fact::NoContainer));
        self.note(renamed, Some(Fact::Container(id.clone(), Life::Created)));
        self.note(renamed, None);
        self.command(&["start", renamed], 0)?;
        self.note(renamed, Some(Fact::Container(id.clone(), Life::Started)));
        self.wait(renamed, &id, 31)
    }

    fn chapter_wait(&mut self) -> Done {
        let go = self.sandbox.place("proof/go");
        // Not there the first time.
        let _ = fs::remove_file(&go);
        let script = "while [ ! -e /proof/go ]; do sleep 0.01; done; echo mine > /file; exit 41";
        let id = self.run_detached("waits", script, Some(41), &[])?;
        fs::write(go, "").expect("the sandbox is ours");
        self.wait("waits", &id, 41)
    }

    fn chapter_stop(&mut self) -> Done {
        let script = "trap 'exit 51' TERM; echo up; while :; do sleep 0.01; done";
        let id = self.run_detached("stops", script, Some(51), &[])?;
        self.until("the program heeds its signals", |player| {
            player.sandbox.mysup(&["logs", "stops"]).text().contains("up")
        })?;
        self.command(&["stop", "stops"], 0)?;
        self.wait("stops", &id, 51)
    }

    fn chapter_brief(&mut self) -> Done {
        for name in ["brief", "briefly"] {
            // After a cut it is not there, however far it came.
            self.note(name, Some(Fact::NoContainer));
        }
        self.command(
            &["run", "--rm", "--name", "brief", image::NAME, "sh", "-c", "echo mine > /file; exit 61"],
            61,
        )?;
        let script = "echo mine > /file; while :; do sleep 1; done";
        self.command(&["run", "-d", "--rm", "--name", "briefly", image::NAME, "sh", "-c", script], 0)?;
        Ok(())
    }

    fn chapter_keep(&mut self) -> Done {
        let script = "echo kept > /kept; sync /kept; echo synced; exit 71";
        let id = self.run_detached("keeps", script, Some(71), &["--keep"])?;
        self.until("the program has synced", |player| {
            player.sandbox.mysup(&["logs", "keeps"]).text().contains("synced")
        })?;
        self.note(KEPT, Some(Fact::Container(id.clone(), Life::Started)));
        self.wait("keeps", &id, 71)
    }

    fn chapter_again(&mut self) -> Done {
        self.told.ends_with(TWICE, 82);
        let id = self.sandbox.mysup(&["inspect", "-f", "{{.Id}}", TWICE]).text();
        self.note(TWICE, None);
        self.command(&["start", TWICE], 0)?;
        self.note(TWICE, Some(Fact::Container(id.clone(), Life::Started)));
        self.wait(TWICE, &id, 82)
    }

    fn chapter_remove(&mut self) -> Done {
        self.remove(OLD, &["rm", OLD])?;
        self.run_detached("doomed", "echo mine > /file; while :; do sleep 1; done", None, &[])?;
        self.told.ends_with("doomed", 137);
        self.remove("doomed", &["rm", "-f", "doomed"])
    }

    /// With times that are the same whenever it is played: so are the layers.
    fn chapter_commit(&mut self) -> Done {
        let script = "echo one > /one; echo mine > /etc/plain; touch -d @1000000000 /one /etc/plain; echo up; \
                      while [ ! -e /proof/more ]; do sleep 0.01; done; \
                      echo two > /two; touch -d @1000000001 /two; echo twice; while :; do sleep 1; done";
        let more = self.sandbox.place("proof/more");
        // Not there the first time.
        let _ = fs::remove_file(&more);
        self.run_detached("commits", script, None, &[])?;
        for word in ["up", "twice"] {
            self.until("it has changed something", |player| {
                player.sandbox.mysup(&["logs", "commits"]).text().contains(word)
            })?;
            self.note("committed", None);
            let id = self.command(&["commit", "commits", "committed"], 0)?.text();
            self.note("committed", Some(Fact::Image(id)));
            self.learn_layers();
            fs::write(&more, "").expect("the sandbox is ours");
        }
        Ok(())
    }

    fn chapter_volumes(&mut self) -> Done {
        self.volume("made", &["volume", "create", "--label", "of=story", "made"], Fact::Volume)?;
        self.volume("idle", &["volume", "create", "idle"], Fact::Volume)?;
        self.volume("idle", &["volume", "rm", "idle"], Fact::NoVolume)?;
        let flags = ["-v", "made:/etc", "-v", "used:/etc/deep", "-v", "/etc"];
        self.note("(volume) used", None);
        self.run_foreground("filled", "exit 91", 91, &flags[..4])?;
        self.note("(volume) used", Some(Fact::Volume("used".to_owned())));
        self.run_foreground("anonymous", "exit 92", 92, &flags[4..])?;
        self.remove("anonymous", &["rm", "-v", "anonymous"])?;
        self.note("briefest", Some(Fact::NoContainer));
        let brief = ["run", "-d", "--rm", "--name", "briefest", "-v", "/etc", image::NAME, "sleep", "1000"];
        self.command(&brief, 0)?;
        Ok(())
    }

    fn chapter_load(&mut self) -> Done {
        let images = [several_layers("first"), several_layers("second")];
        for image in &images {
            let path = self.sandbox.place("loaded.tar");
            fs::write(&path, bundle::archive(&image.docker_files(&["loaded:1"])))
                .expect("the sandbox is ours");
            self.arrives(&["load", "-q", "-i", &path.to_string_lossy()], "loaded", image)?;
        }
        let first = images[0].id();
        self.note(&first, None);
        self.command(&["rmi", &first], 0)?;
        self.note(&first, Some(Fact::NoImage));
        Ok(())
    }

    fn chapter_pull(&mut self) -> Done {
        let serving = Arc::new(Mutex::new(Vec::new()));
        let served = Arc::clone(&serving);
        let registry = Fake::start(move |asked| {
            answer_from(&served.lock().unwrap_or_else(PoisonError::into_inner), asked)
        });
        let repository = format!("{}/pulled", registry.host());
        for image in [several_layers("third"), several_layers("fourth")] {
            let files = image.oci_files(None, Packed::Gzip);
            *serving.lock().unwrap_or_else(PoisonError::into_inner) = files;
            self.arrives(&["pull", "-q", &format!("{repository}:1")], &repository, &image)?;
        }
        Ok(())
    }

    /// A command that brings an image and gives it a name.
    fn arrives(&mut self, command: &[&str], name: &str, image: &Specimen) -> Done {
        self.note(name, None);
        self.command(command, 0)?;
        self.note(name, Some(Fact::Image(image.id())));
        self.note(&image.id(), Some(Fact::Image(image.id())));
        self.learn_layers();
        Ok(())
    }

    fn volume(&mut self, name: &str, command: &[&str], fact: impl Fn(String) -> Fact) -> Done {
        let whom = format!("(volume) {name}");
        self.note(&whom, None);
        self.command(command, 0)?;
        self.note(&whom, Some(fact(name.to_owned())));
        Ok(())
    }

    fn remove(&mut self, name: &str, command: &[&str]) -> Done {
        self.note(name, None);
        self.command(command, 0)?;
        self.note(name, Some(Fact::NoContainer));
        Ok(())
    }

    fn import(&mut self, tar: &str, name: &str) -> Result<String, PowerGone> {
        self.note(name, None);
        let id = self.command(&["import", tar, name], 0)?.text();
        self.note(name, Some(Fact::Image(id.clone())));
        self.learn_layers();
        Ok(id)
    }

    fn run_foreground(&mut self, name: &str, script: &str, code: i32, flags: &[&str]) -> Done {
        self.told.ends_with(name, code);
        self.note(name, None);
        let line = [&["run", "--name", name], flags, &[image::NAME, "sh", "-c", script]].concat();
        self.command(&line, code)?;
        let id = self.sandbox.mysup(&["inspect", "-f", "{{.Id}}", name]).text();
        if id.is_empty() {
            // The client had its answer, and then the power went.
            return Err(PowerGone);
        }
        self.note(name, Some(Fact::Container(id, Life::Ended(code))));
        Ok(())
    }

    /// With two nested volumes and the proof.
    fn run_detached(
        &mut self,
        name: &str,
        script: &str,
        code: Option<i32>,
        flags: &[&str],
    ) -> Result<String, PowerGone> {
        code.into_iter().for_each(|code| self.told.ends_with(name, code));
        self.note(name, None);
        let volume = |name: &str, to: &str| format!("{}:{to}", self.sandbox.place(name).display());
        let volumes = [volume("b", "/a/b"), volume("a", "/a"), volume("proof", "/proof")];
        let mut line = vec!["run", "-d", "--name", name];
        volumes.iter().for_each(|volume| line.extend(["-v", volume]));
        let line = [&line[..], flags, &[image::NAME, "sh", "-c", script]].concat();
        let id = self.command(&line, 0)?.text();
        self.note(name, Some(Fact::Container(id.clone(), Life::Started)));
        Ok(id)
    }

    fn wait(&mut self, name: &str, id: &str, code: i32) -> Done {
        let told = self.command(&["wait", name], 0)?;
        assert!(told.text() == code.to_string(), "the program ended with {code}\n{told}");
        self.note(name, Some(Fact::Container(id.to_owned(), Life::Ended(code))));
        self.until("it is taken down", |player| player.sandbox.status(name) == "exited")
    }

    fn note(&mut self, whom: &str, fact: Option<Fact>) {
        self.told.note((self.position)(), whom, fact);
    }

    /// `mysup ARGUMENTS`, which must end with this code as long as there is power.
    fn command(&self, arguments: &[&str], code: i32) -> Result<Output, PowerGone> {
        self.powered()?;
        let told = self.sandbox.mysup(arguments);
        if told.code != code {
            self.powered()?;
        }
        Ok(told.expect_code(code))
    }

    fn powered(&self) -> Done {
        if self.gone.load(Ordering::SeqCst) { Err(PowerGone) } else { Ok(()) }
    }

    fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) -> Done {
        let end = Instant::now() + PATIENCE;
        loop {
            self.powered()?;
            if condition(self) {
                return Ok(());
            }
            assert!(Instant::now() < end, "waited in vain until {what}");
            thread::sleep(Duration::from_millis(3));
        }
    }

    /// Looks at every layer that is new.
    fn learn_layers(&self) {
        let mut known = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in fs::read_dir(self.sandbox.root().join("layers")).into_iter().flatten().flatten() {
            if let Ok(name) = entry.file_name().into_string()
                && name.len() == 64
            {
                known.entry(name).or_insert_with(|| Tree::read(&entry.path().join("tree")).into_unpacked());
            }
        }
    }

    fn tar(&self, name: &str, extra: &[(&str, &str)]) -> String {
        let path = self.sandbox.place(name).with_extension("tar");
        if !Path::new(&path).exists() {
            fs::write(&path, image::tar_bytes(extra)).expect("the sandbox is ours");
        }
        path.to_string_lossy().into_owned()
    }
}

/// Whose write layer has `/kept`, as its program was told by fsync(2).
pub(super) const KEPT: &str = "(kept)";

/// Its command is whatever it is run with.
fn several_layers(word: &str) -> Specimen {
    let mut specimen = Specimen::new(word);
    specimen.config["config"]["Entrypoint"] = serde_json::Value::Null;
    specimen
}
