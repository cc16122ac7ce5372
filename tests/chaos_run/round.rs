//! One round: a fresh instance, the planned actions, and what is known of each container while they are done to it.

use std::{
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{
    figures::Figures,
    plan::{Action, End, Frozen, Place, Plan, Spec, Start, Step},
    planting::{Decoy, Expected},
    victims::{self, Process},
    workload,
};
use crate::harness::{
    Sandbox,
    command::{Call, Client, Output},
    image,
    plant::Holder,
};

/// A killed process may still take a connection for so long.
const DYING: Duration = Duration::from_secs(1);

/// What is known of a container.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    /// It was started, or tried to be.
    pub(crate) launched: bool,
    /// The user was told that it was made.
    pub(crate) acknowledged: bool,
    /// KILL was sent to its first process, by us or at our wish.
    pub(crate) killed: bool,
    /// Its shim was killed.
    pub(crate) shim_hit: Option<Instant>,
    /// Its client in the foreground was killed.
    pub(crate) client_killed: bool,
    /// There was a moment without a supervisor that knows it and without a shim.
    pub(crate) unseen: bool,
    /// Its first process may have ended while its shim was dead: nobody read its terminal.
    pub(crate) unread: bool,
    /// When it was first asked to stop.
    pub(crate) stopped_at: Option<Instant>,
    /// `rm -f` was asked.
    pub(crate) removed: bool,
    /// How often something was done to it.
    pub(crate) touched: u64,
    /// Every answer to "how did it end?".
    pub(crate) answers: Vec<(&'static str, i32, String)>,
    /// What its client in the foreground printed, and with what it ended.
    pub(crate) foreground: Option<Output>,
    /// Its volumes on the host, outermost first.
    pub(crate) sources: Vec<PathBuf>,
    /// What was in the volumes before.
    pub(crate) kept: Vec<Decoy>,
    directory: Option<PathBuf>,
}

impl Fate {
    /// Its program has said so in the outermost volume.
    pub(crate) fn has_begun(&self) -> bool {
        self.sources.first().is_some_and(|source| source.join("started").exists())
    }
}

/// What a call of `mysup` in the background is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Launch,
    Wait,
    Follow,
    Look,
    Other,
}

/// A call in the background.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) kind: Kind,
    pub(crate) number: usize,
    pub(crate) client: Client,
    began: Instant,
    touched: u64,
}

/// What ends by itself a while after it began.
#[derive(Debug)]
enum Lasting {
    Frozen(Process),
    Held(Holder),
}

/// A round at work.
pub(crate) struct Round<'a> {
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) plan: &'a Plan,
    pub(crate) fates: Vec<Fate>,
    pub(crate) decoys: Vec<Decoy>,
    pub(crate) figures: Figures,
    pub(crate) failures: Vec<String>,
    history: Vec<String>,
    pub(crate) pending: Vec<Pending>,
    lasting: Vec<(Instant, Lasting)>,
    began: Instant,
    /// It was killed and has not answered since.
    pub(crate) supervisor_hit: Option<Instant>,
    pub(crate) last_supervisor_hit: Option<Instant>,
    /// Deaths that may concern every container.
    pub(crate) hits: u64,
    planted: usize,
}

/// Runs something that fails by a panic; its text is the error.
pub(crate) fn tried<T>(action: impl FnOnce() -> T) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(action)).map_err(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        text.unwrap_or_else(|| "panicked with no text".to_owned())
    })
}

impl<'a> Round<'a> {
    /// Makes the volumes and decoys; starts nothing.
    pub(crate) fn new(sandbox: &'a Sandbox, plan: &'a Plan) -> Round<'a> {
        let mut round = Round {
            sandbox,
            plan,
            fates: Vec::new(),
            decoys: Vec::new(),
            figures: Figures::default(),
            failures: Vec::new(),
            history: Vec::new(),
            pending: Vec::new(),
            lasting: Vec::new(),
            began: Instant::now(),
            supervisor_hit: None,
            last_supervisor_hit: None,
            hits: 0,
            planted: 0,
        };
        sandbox.image();
        for spec in &plan.specs {
            let mut fate = Fate::default();
            for depth in 0..spec.volumes {
                let source = PathBuf::from(sandbox.new_directory(&format!("volumes/{}.{depth}", spec.name)));
                fate.kept.push(Decoy::make(source.join("before")));
                fate.sources.push(source);
            }
            round.fates.push(fate);
        }
        let (root, run) = (sandbox.root(), sandbox.run_root());
        for place in [
            sandbox.place("outside"),
            sandbox.place("volumes/beside"),
            sandbox.place("shared"),
            root.join("decoy"),
            root.join("containers/decoy"),
            run.join("decoy"),
            run.join("containers/decoy"),
        ] {
            round.decoys.push(Decoy::make(place));
        }
        round
    }

    /// Does everything that is planned.
    pub(crate) fn act(&mut self) {
        for Step { pause, action } in &self.plan.steps {
            self.pass(Duration::from_millis(*pause));
            let done = self.act_on(*action);
            self.note(&format!("{action:?}{}", if done { "" } else { " (missed)" }));
        }
    }

    /// Writes down what happened.
    pub(crate) fn note(&mut self, text: &str) {
        self.history.push(format!("{:8.3} {text}", self.began.elapsed().as_secs_f64()));
    }

    /// All that happened, in order.
    pub(crate) fn history(&self) -> String {
        self.history.join("\n")
    }

    /// Something is not as promised.
    pub(crate) fn fail(&mut self, text: String) {
        self.note(&format!("FAILURE {text}"));
        self.failures.push(text);
    }

    /// The names and codes of a container.
    pub(crate) fn spec(&self, number: usize) -> &'a Spec {
        &self.plan.specs[number]
    }

    /// Its directory, if it has one.
    pub(crate) fn directory(&mut self, number: usize) -> Option<PathBuf> {
        if self.fates[number].directory.is_none() {
            let found = victims::directory(self.sandbox, &self.plan.specs[number].name);
            self.fates[number].directory = found;
        }
        self.fates[number].directory.clone()
    }

    /// Its first process, if there is one.
    pub(crate) fn init(&mut self, number: usize) -> Option<Process> {
        let directory = self.directory(number)?;
        victims::init(directory.file_name()?.to_str()?)
    }

    /// Its shim, if one lives.
    pub(crate) fn shim(&mut self, number: usize) -> Option<Process> {
        victims::shim(&self.directory(number)?)
    }

    /// Lets time pass; what lasts only a while ends meanwhile, and calls that have ended are heard.
    fn pass(&mut self, time: Duration) {
        // The moment of the next action is what is random here: there is no condition to wait for.
        let end = Instant::now() + time;
        loop {
            self.end_lasting(Instant::now());
            self.hear(false);
            let now = Instant::now();
            if now >= end {
                return;
            }
            thread::sleep((end - now).min(Duration::from_millis(10)));
        }
    }

    /// Ends what is to last until then.
    pub(crate) fn end_lasting(&mut self, until: Instant) {
        let (over, rest) = std::mem::take(&mut self.lasting).into_iter().partition(|(at, _)| *at <= until);
        self.lasting = rest;
        let over: Vec<(Instant, Lasting)> = over;
        for (_, lasting) in over {
            match lasting {
                Lasting::Frozen(process) => drop(process.signal(Signal::CONT)),
                Lasting::Held(holder) => holder.leave(),
            }
        }
    }

    /// Ends everything that lasts.
    pub(crate) fn end_all_lasting(&mut self) {
        self.end_lasting(Instant::now() + Duration::from_secs(3600));
    }

    /// Starts a call in the background.
    pub(crate) fn call(&mut self, kind: Kind, number: usize, call: Call) {
        let client = call.start();
        let (began, touched) = (Instant::now(), self.touches(number));
        self.pending.push(Pending { kind, number, client, began, touched });
    }

    fn touches(&self, number: usize) -> u64 {
        self.fates[number].touched + self.hits
    }

    /// Whether a call had a supervisor that was about to die from its beginning on.
    fn began_with_a_dying_supervisor(&self, began: Instant) -> bool {
        let since = |hit: Instant| began.saturating_duration_since(hit);
        self.last_supervisor_hit.is_some_and(|hit| since(hit) < DYING)
    }

    /// Hears calls that have ended; waits for those that have not if `all`.
    pub(crate) fn hear(&mut self, all: bool) {
        let mut left = Vec::new();
        for mut pending in std::mem::take(&mut self.pending) {
            // What a killed one has started may wait for a supervisor that is stopped, and that only we wake.
            if !all && !pending.client.is_over() {
                left.push(pending);
                continue;
            }
            let Pending { kind, number, client, began, touched } = pending;
            match tried(|| client.wait()) {
                Ok(output) => self.take(kind, number, output, began, touched),
                Err(error) => self.fail(format!("[hang] {}: {error}", self.plan.specs[number].name)),
            }
        }
        self.pending.extend(left);
    }

    /// Ends the input of every program that waits for it.
    pub(crate) fn close_inputs(&mut self) {
        self.pending.iter_mut().for_each(|pending| pending.client.close_input());
    }

    /// Ends the calls that wait for the end of containers that were made and never started: it may never come.
    pub(crate) fn give_up_waiting_for(&mut self, created: &[String]) {
        let in_vain = |pending: &Pending| {
            let name = &self.plan.specs[pending.number].name;
            matches!(pending.kind, Kind::Wait | Kind::Follow) && created.contains(name)
        };
        self.pending.retain(|pending| !in_vain(pending));
    }

    /// Waits for the calls that start something in the background.
    pub(crate) fn hear_launches(&mut self) {
        let specs = &self.plan.specs;
        let launches = |pending: &Pending| {
            pending.kind == Kind::Launch && specs[pending.number].start != Start::Foreground
        };
        let (wanted, rest) = std::mem::take(&mut self.pending).into_iter().partition(launches);
        self.pending = wanted;
        self.hear(true);
        self.pending.extend(rest);
    }

    fn take(&mut self, kind: Kind, number: usize, output: Output, began: Instant, touched: u64) {
        let untouched = self.touches(number) == touched && !self.began_with_a_dying_supervisor(began);
        let spec = self.spec(number);
        if output.errors().contains("panicked") {
            self.fail(format!("[panic] {}: {output}", spec.name));
        }
        let fate = &mut self.fates[number];
        match kind {
            Kind::Launch if spec.start == Start::Foreground => fate.foreground = Some(output),
            Kind::Launch => {
                fate.acknowledged |= output.code == 0;
                if output.code != 0 && untouched {
                    self.fail(format!("[start] {} failed although nothing was hit: {output}", spec.name));
                }
            }
            Kind::Wait if output.code == 0 => match output.text().parse() {
                // Made and not started: answered at once, with the code that `inspect` shows, as docker does.
                Ok(0) if spec.start == Start::Created && !fate.has_begun() => {}
                Ok(code) => fate.answers.push(("wait under fire", code, output.errors())),
                Err(_) => self.fail(format!("[answer] {}: wait printed no code: {output}", spec.name)),
            },
            Kind::Look if output.code == 0 && self.supervisor_hit.is_some_and(|hit| hit < began) => {
                self.supervisor_hit = None;
            }
            Kind::Look if output.code != 0 && untouched => {
                self.fail(format!("[ps] failed although nothing was hit: {output}"));
            }
            Kind::Wait | Kind::Follow | Kind::Look | Kind::Other => {}
        }
    }

    fn act_on(&mut self, action: Action) -> bool {
        match action {
            Action::Launch(number) => self.launch(number),
            Action::Kill(victim) => return self.kill(victim),
            Action::Freeze(frozen, time) => return self.freeze(frozen, Duration::from_millis(time)),
            Action::Stop(number) => self.stop(number),
            Action::KillVerb(number) => {
                self.fates[number].killed = true;
                self.verb(number, &["kill"]);
            }
            Action::Remove(number) => {
                let fate = &mut self.fates[number];
                (fate.killed, fate.removed) = (true, true);
                self.verb(number, &["rm", "-f"]);
            }
            Action::Plant(number, place) => return self.plant(number, place).unwrap_or(false),
            Action::Hold(number, time) => {
                return self.hold(number, Duration::from_millis(time)).is_some();
            }
            Action::Wait(number) => {
                let call = self.sandbox.call(&["wait", &self.spec(number).name]);
                self.call(Kind::Wait, number, call);
            }
            Action::Follow(number) => {
                let call = self.sandbox.call(&["logs", "-f", &self.spec(number).name]);
                self.call(Kind::Follow, number, call);
            }
            Action::Look(number) => {
                let call = self.sandbox.call(&["ps", "-a"]);
                self.call(Kind::Look, number, call);
            }
        }
        true
    }

    fn launch(&mut self, number: usize) {
        let spec = self.spec(number);
        let sources: Vec<String> =
            self.fates[number].sources.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let shared = self.sandbox.place("shared").to_string_lossy().into_owned();
        let line = workload::arguments(spec, image::NAME, &sources, &shared);
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        let mut call = self.sandbox.call(&line);
        if spec.start == Start::Created {
            let script = format!("\"$@\" && exec \"$1\" start {}", spec.name);
            let program = call.program.clone().into_os_string();
            let head = ["-c".into(), script.into(), "sh".into(), program];
            call.arguments = head.into_iter().chain(call.arguments).collect();
            call.program = PathBuf::from("/bin/sh");
        }
        if spec.end == End::Input {
            call = call.open_input();
        }
        self.fates[number].launched = true;
        self.figures.containers += 1;
        self.call(Kind::Launch, number, call);
    }

    /// Asks a container to stop.
    pub(crate) fn stop(&mut self, number: usize) {
        self.fates[number].stopped_at.get_or_insert_with(Instant::now);
        self.verb(number, &["stop"]);
    }

    fn verb(&mut self, number: usize, words: &[&str]) {
        self.fates[number].touched += 1;
        let call = self.sandbox.call(&[words, &[self.spec(number).name.as_str()]].concat());
        self.call(Kind::Other, number, call);
    }

    fn freeze(&mut self, frozen: Frozen, time: Duration) -> bool {
        let process = match frozen {
            Frozen::Supervisor => victims::supervisors(self.sandbox).pop(),
            Frozen::Shim(number) => self.shim(number),
        };
        let Some(process) = process.filter(|process| process.signal(Signal::STOP)) else { return false };
        self.figures.freezes += 1;
        self.lasting.push((Instant::now() + time, Lasting::Frozen(process)));
        true
    }

    fn hold(&mut self, number: usize, time: Duration) -> Option<()> {
        let place = |process: Option<Process>, path: &str| {
            let path = format!("/proc/{}/root{path}", process?.pid);
            Path::new(&path).is_dir().then_some(path)
        };
        let path = place(self.shim(number), "/mnt/v").or_else(|| place(self.init(number), "/v"))?;
        let holder = tried(|| Holder::sit_in(Path::new(&path))).ok()?;
        self.figures.holders += 1;
        self.lasting.push((Instant::now() + time, Lasting::Held(holder)));
        Some(())
    }

    fn plant(&mut self, number: usize, place: Place) -> Option<bool> {
        self.planted += 1;
        let name = format!("planted{}", self.planted);
        let directory = self.directory(number)?;
        let source = self.fates[number].sources[0].clone();
        let volume = Expected::same(&source)?;
        let mut decoy = Decoy::make(self.sandbox.place(&format!("decoys/{name}x")));
        let done = match place {
            Place::WriteLayer => decoy.bind_in(&directory.join("upper"), &name),
            Place::VolumeSource => decoy.bind_in(&source, &name),
            Place::RootInShim => {
                decoy.bind_inside(self.shim(number)?.pid, Path::new("/mnt"), &name, Expected::Overlay)
            }
            Place::VolumeInShim => {
                decoy.bind_inside(self.shim(number)?.pid, Path::new("/mnt/v"), &name, volume)
            }
            Place::VolumeInInit => decoy.bind_inside(self.init(number)?.pid, Path::new("/v"), &name, volume),
        };
        self.decoys.push(decoy);
        self.figures.decoys += u64::from(done);
        Some(done)
    }
}
