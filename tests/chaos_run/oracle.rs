//! After a round: everything is brought to rest, and each promise is looked at.

use std::{fs, path::Path, time::Duration, time::Instant};

use super::{
    plan::{End, Lifetime, Spec, Start},
    planting,
    round::{Fate, Round, tried},
    victims, workload,
};
use crate::harness::{command::Output, holds_within, inspect, tree::hex};

/// From the last blow to rest; only a broken product needs it.
const REST: Duration = Duration::from_secs(90);

impl Round<'_> {
    /// Lets everything come to its end.
    pub(crate) fn rest(&mut self) {
        self.end_all_lasting();
        for at in 0..self.decoys.len() {
            if self.decoys[at].on_host && !self.decoys[at].unmount() {
                let path = self.decoys[at].path.display().to_string();
                self.fail(format!("[mount] the bind of {path} on the host was taken away"));
            }
        }
        self.note("rest");
        if let Err(error) = tried(|| self.sandbox.ok(&["ps", "-a"])) {
            return self.fail(format!("[start] no supervisor comes up again: {error}"));
        }
        self.hear_launches();
        self.close_inputs();
        self.stop_all();
        let created =
            self.sandbox.mysup(&["ps", "-a", "--filter", "status=created", "--format", "{{.Names}}"]);
        let created: Vec<String> = created.text().lines().map(str::to_owned).collect();
        self.give_up_waiting_for(&created);
        self.hear(true);
        self.settle();
        let shown = self.sandbox.mysup(&["ps", "-a", "--format", "{{.Names}} {{.Status}}"]).text();
        self.note(&format!("at rest: {}", shown.replace('\n', ", ")));
    }

    /// Stops what would not end by itself.
    fn stop_all(&mut self) {
        let runs_on = |number: usize, round: &Self| match round.spec(number).end {
            End::Obeys | End::Ignores => true,
            End::Alone | End::Input | End::Signal(_) => false,
        };
        // A start that was going on when its client died may show only now.
        for _ in 0..3 {
            let running = self.sandbox.mysup(&["ps", "--format", "{{.Names}}"]).text();
            let numbers: Vec<usize> = (0..self.fates.len())
                .filter(|number| running.lines().any(|name| name == self.spec(*number).name))
                .filter(|number| runs_on(*number, self))
                .collect();
            if numbers.is_empty() {
                return;
            }
            self.note(&format!("stop {numbers:?}"));
            let calls: Vec<_> = numbers
                .iter()
                .map(|number| {
                    self.fates[*number].stopped_at.get_or_insert_with(Instant::now);
                    (*number, self.sandbox.call(&["stop", &self.spec(*number).name]).start())
                })
                .collect();
            for (number, call) in calls {
                let name = self.spec(number).name.clone();
                match tried(|| call.wait()) {
                    Ok(output) if output.code == 0 => {}
                    Ok(output) if output.errors().to_lowercase().contains("no such container") => {}
                    Ok(output) => self.fail(format!("[stop] of {name} at rest: {output}")),
                    Err(error) => self.fail(format!("[hang] stop of {name} at rest: {error}")),
                }
            }
        }
    }

    fn settle(&mut self) {
        let mut shown = String::new();
        let settled = holds_within(REST, || {
            shown = self.sandbox.mysup(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]).text();
            shown.lines().all(|line| line.ends_with(" exited") || line.ends_with(" created"))
        });
        if !settled {
            let wrong: Vec<&str> = shown
                .lines()
                .filter(|line| !line.ends_with(" exited") && !line.ends_with(" created"))
                .collect();
            let names: Vec<&str> = wrong.iter().filter_map(|line| line.split(' ').next()).collect();
            let details = self.sandbox.mysup(&[&["inspect"], &names[..]].concat());
            self.fail(format!("[unsettled] after {REST:?}: {}\n{}", wrong.join(", "), details.text()));
        }
    }

    /// Looks at every promise; afterwards nothing of the instance is left.
    pub(crate) fn judge(&mut self) {
        for number in 0..self.fates.len() {
            if self.fates[number].launched {
                self.ask(number, "inspect", "wait");
            }
        }
        if self.plan.look_again {
            self.kill_supervisor();
            for number in 0..self.fates.len() {
                if self.fates[number].launched {
                    self.ask(number, "inspect after a restart", "wait after a restart");
                }
            }
        }
        for number in 0..self.fates.len() {
            if self.fates[number].launched {
                self.judge_exit(number);
                self.judge_records(number);
                self.second_life(number);
            }
        }
        self.remove_all();
        for at in 0..self.decoys.len() {
            self.figures.bytes += planting::bytes_below(&self.decoys[at].path);
            let damage = self.decoys[at].damage();
            if !damage.is_empty() {
                self.fail(format!("[data] a decoy was touched: {}", damage.join("; ")));
            }
        }
        self.finish();
    }

    /// Asks how a container ended.
    fn ask(&mut self, number: usize, inspected: &'static str, waited: &'static str) {
        let name = self.spec(number).name.clone();
        let output = self.sandbox.mysup(&["inspect", &name]);
        if output.code != 0 {
            self.judge_absence(number, &output);
            return;
        }
        let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let Some(container) = list.get(0) else {
            return self.fail(format!("[answer] inspect of {name} shows nothing: {output}"));
        };
        let status = inspect::text(container, "State.Status").to_lowercase();
        let started = self.has_started(number);
        if status == "created" {
            if started {
                self.fail(format!("[state] {name} has run and is said to be only created"));
            }
            return;
        }
        if status != "exited" {
            // Told already when it did not settle.
            return;
        }
        let code =
            inspect::field(container, "State.ExitCode").as_i64().and_then(|code| i32::try_from(code).ok());
        let error = inspect::text(container, "State.Error");
        self.fates[number].answers.push((inspected, code.unwrap_or(i32::MIN), error));
        match tried(|| self.sandbox.call(&["wait", &name]).run()) {
            Ok(output) => {
                let code = output.text().parse().unwrap_or(i32::MIN);
                self.fates[number].answers.push((waited, code, output.errors()));
            }
            Err(error) => self.fail(format!("[hang] wait for {name}: {error}")),
        }
    }

    fn judge_absence(&mut self, number: usize, output: &Output) {
        let (spec, fate) = (self.spec(number), &self.fates[number]);
        let promised = fate.acknowledged || self.has_started(number);
        if promised && spec.lifetime != Lifetime::Nothing && !fate.removed {
            self.fail(format!("[lost] {} was made and is not there: {output}", spec.name));
        }
    }

    fn has_started(&self, number: usize) -> bool {
        self.fates[number].sources[0].join("started").exists()
    }

    fn judge_exit(&mut self, number: usize) {
        let spec = self.spec(number);
        let truth = Truth::of(spec, &self.fates[number]);
        let mut wrong = Vec::new();
        if let Some(output) = self.fates[number].foreground.take() {
            if !self.fates[number].client_killed {
                match truth.judge_client(output.code) {
                    Ok(true) => self.fates[number].answers.push(("client", output.code, output.errors())),
                    Ok(false) => {}
                    Err(why) => wrong.push(format!("the client: {why}\n{output}")),
                }
            }
            self.fates[number].foreground = Some(output);
        }
        let answers = self.fates[number].answers.clone();
        for (source, code, error) in &answers {
            // `wait` prints a code and nothing else, except for one that is not known.
            let error = if source.starts_with("wait") && *code != 255 { "not asked" } else { error };
            if let Err(why) = truth.judge(*code, error) {
                wrong.push(format!("{source} says {code} ({:?}): {why}", error.trim()));
            }
        }
        let mut codes: Vec<i32> = answers.iter().map(|(_, code, _)| *code).collect();
        codes.dedup();
        if codes.len() > 1 && codes.iter().any(|code| *code != codes[0]) {
            wrong.push(format!("more than one answer: {answers:?}"));
        }
        self.figures.exits += u64::from(!answers.is_empty());
        self.figures.answers += answers.len() as u64;
        self.figures.unknown += u64::from(codes.contains(&255));
        if !wrong.is_empty() {
            let facts = self.facts(number);
            self.fail(format!("[exit] {} {}\n  {facts}", spec.name, wrong.join("\n  ")));
        }
    }

    /// What is known of a container, for a report.
    fn facts(&self, number: usize) -> String {
        let (spec, fate) = (self.spec(number), &self.fates[number]);
        let name = fate.answers.len();
        format!(
            "{:?} {:?} {:?} code {} init {} terminal {}: acknowledged {}, killed {}, shim killed {}, unseen {}, stopped {}, removed {}, client killed {}, started {}, proof {:?}, {name} answers",
            spec.start,
            spec.lifetime,
            spec.end,
            spec.code,
            spec.init,
            spec.terminal,
            fate.acknowledged,
            fate.killed,
            fate.shim_hit.is_some(),
            fate.unseen,
            fate.stopped_at.is_some(),
            fate.removed,
            fate.client_killed,
            self.has_started(number),
            fs::read_to_string(fate.sources[0].join("code")).unwrap_or_default(),
        )
    }

    fn judge_records(&mut self, number: usize) {
        let spec = self.spec(number);
        let mut written = Vec::new();
        let mut wrong = Vec::new();
        for source in &self.fates[number].sources {
            match workload::complete(spec, &source.join("records")) {
                Ok(count) => written.push(count),
                Err(error) => wrong.push(error),
            }
            self.figures.bytes += planting::bytes_below(source);
        }
        for kept in &self.fates[number].kept {
            wrong.extend(kept.damage());
        }
        if let (Some(most), Some(least)) = (written.iter().max(), written.iter().min()) {
            // One record may have been under way.
            if *most > least + 1 {
                wrong.push(format!("the volumes have {written:?} records"));
            }
        }
        if !wrong.is_empty() {
            let facts = self.facts(number);
            self.fail(format!("[data] {} {}\n  {facts}", spec.name, wrong.join("; ")));
        }
        let outer = written.first().copied().unwrap_or(0);
        // The last record may have been cut off before its number was printed.
        let printed = written.last().copied().unwrap_or(0).min(outer).saturating_sub(1);
        self.figures.records += u64::try_from(printed).unwrap_or(0);
        let output = self.sandbox.mysup(&["logs", &spec.name]);
        if output.code == 0 {
            self.judge_log(number, "log", &output, printed, outer);
        }
        let hit = self.fates[number].shim_hit.is_some() || self.fates[number].client_killed;
        if let Some(output) = self.fates[number].foreground.take()
            && !hit
        {
            self.judge_log(number, "client's output", &output, printed, outer);
        }
    }

    fn judge_log(&mut self, number: usize, what: &str, output: &Output, least: usize, most: usize) {
        let text = output.text().replace('\r', "");
        let lines: Vec<&str> = text.lines().collect();
        let in_order = lines.iter().zip(1..).take_while(|(line, at)| **line == at.to_string()).count();
        self.figures.lines += u64::try_from(in_order).unwrap_or(0);
        let (fate, name) = (&self.fates[number], &self.spec(number).name);
        let whole = in_order == lines.len();
        let problem = if !whole {
            let seen = lines.get(in_order).copied().unwrap_or("");
            format!("after line {in_order} comes {seen:?} of {} lines", lines.len())
        } else if in_order > most {
            format!("{in_order} lines of {most} records")
        } else if in_order < least && (fate.unseen || fate.unread && self.spec(number).terminal) {
            // Nobody can read what was in a FIFO when program, shim and supervisor were dead. What a shim had read of a
            // terminal, and not yet written, dies with it; FIFOs are spliced.
            return;
        } else if in_order < least {
            format!("ends with line {in_order}, {least} were printed")
        } else {
            return;
        };
        let kind = match (whole, fate.shim_hit.is_some()) {
            (true, true) => "log tail after a dead shim",
            (false, true) => "log gap after a dead shim",
            (_, false) => "log",
        };
        let text = format!("[{kind}] {what} of {name}: {problem}\n  {}", self.facts(number));
        self.fail(text);
    }

    /// A kept write layer is there at the next start.
    fn second_life(&mut self, number: usize) {
        let spec = self.spec(number);
        let fate = &self.fates[number];
        let kept = spec.lifetime == Lifetime::WriteLayer || spec.start == Start::Created;
        if !kept || spec.lifetime == Lifetime::Nothing || fate.removed || !self.has_started(number) {
            return;
        }
        match tried(|| self.sandbox.mysup(&["start", "-a", &spec.name])) {
            Ok(output) if output.code == spec.second_code && output.text().trim_end() == spec.name => {}
            Ok(output) => {
                let facts = self.facts(number);
                let wanted = spec.second_code;
                self.fail(format!(
                    "[second life] {} should end with {wanted}: {output}\n  {facts}",
                    spec.name
                ));
            }
            Err(error) => self.fail(format!("[hang] second life of {}: {error}", spec.name)),
        }
    }

    fn remove_all(&mut self) {
        self.settle();
        let names = self.sandbox.mysup(&["ps", "-a", "--format", "{{.Names}}"]).text();
        let names: Vec<&str> = names.lines().collect();
        if names.is_empty() {
            return;
        }
        let output = self.sandbox.mysup(&[&["rm"], &names[..]].concat());
        if output.code != 0 {
            self.fail(format!("[rm] at rest: {output}"));
        }
    }

    fn finish(&mut self) {
        for place in ["decoy", "containers/decoy"] {
            for root in [self.sandbox.root(), self.sandbox.run_root()] {
                remove_decoy(&root.join(place));
            }
        }
        if let Err(error) = tried(|| self.sandbox.finish()) {
            self.fail(format!("[leak] {error}"));
        }
        let mut left = Vec::new();
        holds_within(Duration::from_secs(15), || {
            left = victims::shims(self.sandbox);
            left.is_empty()
        });
        if !left.is_empty() {
            let pids: Vec<i32> = left.iter().map(|shim| shim.pid).collect();
            self.fail(format!("[leak] shims are left: {pids:?}"));
        }
    }

    /// Words for a file that tells of this round.
    pub(crate) fn report(&self) -> String {
        let specs: Vec<String> = self.plan.specs.iter().map(shown).collect();
        format!("{}\n\n{}\n\n{}\n", specs.join("\n"), self.history(), self.failures.join("\n"))
    }
}

fn shown(spec: &Spec) -> String {
    let seal = hex(&spec.filling.as_bytes()[..8.min(spec.filling.len())]);
    let Spec { name, code, start, lifetime, end, terminal, init, volumes, records, pause, .. } = spec;
    format!(
        "{name}: {start:?} {lifetime:?} {end:?} code {code} terminal {terminal} init {init} volumes {volumes} records {records} pause {pause} ms ({seal})"
    )
}

#[expect(clippy::disallowed_methods, reason = "a tree of ours; nothing is mounted in it")]
fn remove_decoy(place: &Path) {
    // One that is not there any more was told before.
    let _ = fs::remove_dir_all(place);
}

/// How a container may have ended.
struct Truth {
    code: i32,
    /// Its program was about to end by itself.
    proof: bool,
    started: bool,
    killed: bool,
    /// A stop was asked for so long ago that it has killed.
    escalated: bool,
    /// TERM may have reached a program that does not handle it and is not PID 1.
    terminated: bool,
    /// Its terminal was hung up: nobody held it.
    hung_up: bool,
    unseen: bool,
}

impl Truth {
    fn of(spec: &Spec, fate: &Fate) -> Truth {
        let proof = fs::read_to_string(fate.sources[0].join("code")).unwrap_or_default();
        let started = fate.sources[0].join("started").exists();
        let plain = spec.end != End::Obeys && spec.end != End::Ignores;
        Truth {
            code: spec.code,
            proof: proof.trim() == spec.code.to_string(),
            started,
            killed: fate.killed,
            escalated: fate.stopped_at.is_some_and(|at| at.elapsed() >= workload::grace(spec)),
            terminated: fate.stopped_at.is_some() && spec.init && (plain || !started),
            hung_up: fate.unseen && spec.terminal && spec.init,
            unseen: fate.unseen,
        }
    }

    /// Whether an answer can be true; why not.
    fn judge(&self, code: i32, error: &str) -> Result<(), String> {
        let said = !error.trim().is_empty() && error.trim() != "null";
        if code == self.code && self.proof {
            return Ok(());
        }
        if code == 137 && (self.killed || self.escalated)
            || code == 143 && self.terminated
            || code == 129 && self.hung_up
        {
            return Ok(());
        }
        match code {
            255 if !self.started && !self.unseen => Err("it never ran".to_owned()),
            255 if self.unseen && said => Ok(()),
            255 if self.unseen => Err("it is unknown without a message".to_owned()),
            255 => {
                Err("it is said to be unknown, although supervisor and shim were never dead together"
                    .to_owned())
            }
            126..=128 if !self.started && said => Ok(()),
            137 if self.proof => Err("it ended by itself".to_owned()),
            137 => Err("nobody asked for its death".to_owned()),
            _ if code == self.code => Err("its program never came to its end: made up".to_owned()),
            _ => Err("made up".to_owned()),
        }
    }

    /// The same for the code of a client in the foreground; whether it is an answer at all.
    fn judge_client(&self, code: i32) -> Result<bool, String> {
        // Refused, or it cannot know whether anything was made.
        if code == 125 && (!self.started || self.unseen) {
            return Ok(false);
        }
        if code == 125 {
            return Err("it was refused, although the program ran".to_owned());
        }
        // The client has said why on its standard error; for a container that never ran that is all there is.
        if (126..=128).contains(&code) && !self.started {
            return Ok(false);
        }
        self.judge(code, "said").map(|()| true)
    }
}
