//! What a round will do, drawn from seed and number before anything runs: equal seeds give equal rounds, whatever the
//! machine does meanwhile. Only the moment at which a process is hit is the machine's.

use crate::harness::random::Random;

/// How a container is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// `run -d`
    Detached,
    /// `run`
    Foreground,
    /// `create`, then `start`
    Created,
}

/// What is to remain at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// The default.
    Record,
    /// `--rm`
    Nothing,
    /// `--keep`
    WriteLayer,
}

/// How its program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// After its records, by itself.
    Alone,
    /// When it is told by TERM.
    Obeys,
    /// It ignores TERM, so a stop ends with KILL.
    Ignores,
    /// When its input ends (`run -i`).
    Input,
    /// By a signal to itself (`--init`: PID 1 cannot).
    Signal(i32),
}

/// One container.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// Its name.
    pub(crate) name: String,
    /// The code with which its program ends, unless it is killed.
    pub(crate) code: i32,
    /// How it is started.
    pub(crate) start: Start,
    /// What is to remain.
    pub(crate) lifetime: Lifetime,
    /// How it ends.
    pub(crate) end: End,
    /// `-t`
    pub(crate) terminal: bool,
    /// `--init`
    pub(crate) init: bool,
    /// Limits of memory and processes.
    pub(crate) limits: bool,
    /// One to three, each within the one before.
    pub(crate) volumes: usize,
    /// How many records it writes if it ends alone.
    pub(crate) records: i32,
    /// Milliseconds between two records.
    pub(crate) pause: i32,
    /// What makes its records different from those of others.
    pub(crate) filling: String,
    /// The second life of a kept write layer ends with this code.
    pub(crate) second_code: i32,
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    Supervisor,
    Shim(usize),
    Init(usize),
    Client(usize),
    SupervisorAndShim(usize),
    TenShims,
    Everything,
}

/// Who is stopped for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frozen {
    Supervisor,
    Shim(usize),
}

/// Where a directory of the host is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the write layer, on the host.
    WriteLayer,
    /// In the source of the first volume, on the host.
    VolumeSource,
    /// In the root file system, in the shim's mount namespace.
    RootInShim,
    /// In the first volume, in the shim's mount namespace.
    VolumeInShim,
    /// In the first volume, in the program's mount namespace.
    VolumeInInit,
}

/// One thing that is done to the containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Launch(usize),
    Kill(Victim),
    Freeze(Frozen, u64),
    Stop(usize),
    KillVerb(usize),
    Remove(usize),
    Plant(usize, Place),
    Hold(usize, u64),
    Wait(usize),
    Follow(usize),
    Look(usize),
}

/// An action, and how many milliseconds after the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) pause: u64,
    pub(crate) action: Action,
}

/// A round.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) specs: Vec<Spec>,
    pub(crate) steps: Vec<Step>,
    /// Before the answers are looked at a second time, the supervisor is killed.
    pub(crate) look_again: bool,
}

/// Draws a round.
pub(crate) fn draw(seed: u64, round: u64) -> Plan {
    let mut dice = Dice(Random::new(seed, &format!("round {round}")));
    let count = dice.below(9) + 5;
    let specs: Vec<Spec> = (0..count).map(|number| dice.spec(number)).collect();
    let mut steps = Vec::new();
    let mut launched = 0;
    while launched < count {
        steps.push(Step { pause: dice.pause(60), action: Action::Launch(launched) });
        launched += 1;
        dice.around(&mut steps, launched - 1, 4);
        for _ in 0..dice.below(4) {
            let action = dice.action(launched);
            steps.push(Step { pause: dice.pause(120), action });
            dice.follow_up(&mut steps, action);
        }
    }
    for _ in 0..count * 2 {
        let action = dice.action(launched);
        steps.push(Step { pause: dice.pause(180), action });
        dice.follow_up(&mut steps, action);
    }
    Plan { specs, steps, look_again: dice.one_in(2) }
}

struct Dice(Random);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        let high = i32::try_from(bound).expect("bounds are small") - 1;
        usize::try_from(self.0.between(0, high)).expect("not negative")
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pause(&mut self, bound: usize) -> u64 {
        self.below(bound) as u64
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn spec(&mut self, number: usize) -> Spec {
        let start = self.pick(&[
            Start::Detached,
            Start::Detached,
            Start::Detached,
            Start::Foreground,
            Start::Foreground,
            Start::Created,
        ]);
        let init = self.one_in(4);
        let mut end = self.pick(&[End::Alone, End::Alone, End::Obeys, End::Obeys, End::Ignores]);
        if init && self.one_in(3) {
            end = End::Signal(self.pick(&[6, 11, 15]));
        } else if start == Start::Foreground && self.one_in(3) {
            end = End::Input;
        }
        let filling =
            (0..self.below(150) + 20).map(|_| self.pick(b"abcdefghijklmnopqrstuvwxyz0123456789") as char);
        let filling = filling.collect();
        Spec {
            // Not to be taken for the beginning of an id.
            name: format!("box{number}"),
            code: match end {
                End::Signal(signal) => 128 + signal,
                End::Alone | End::Obeys | End::Ignores | End::Input => self.0.exit_code(),
            },
            start,
            lifetime: self.pick(&[
                Lifetime::Record,
                Lifetime::Record,
                Lifetime::Nothing,
                Lifetime::WriteLayer,
            ]),
            end,
            terminal: end != End::Input && self.one_in(5),
            init,
            limits: self.one_in(3),
            volumes: self.below(3) + 1,
            records: self.0.between(1, 40),
            pause: self.0.between(10, 150),
            filling,
            second_code: self.0.exit_code(),
        }
    }

    /// Often a death comes right after something that takes its time has begun.
    fn follow_up(&mut self, steps: &mut Vec<Step>, action: Action) {
        match action {
            Action::Stop(number)
            | Action::KillVerb(number)
            | Action::Remove(number)
            | Action::Hold(number, _)
            | Action::Kill(Victim::Init(number) | Victim::Shim(number)) => self.around(steps, number, 2),
            Action::Launch(_)
            | Action::Kill(_)
            | Action::Freeze(..)
            | Action::Plant(..)
            | Action::Wait(_)
            | Action::Follow(_)
            | Action::Look(_) => {}
        }
    }

    fn around(&mut self, steps: &mut Vec<Step>, number: usize, one_in: usize) {
        if self.one_in(one_in) {
            let victim = self.pick(&[
                Victim::Supervisor,
                Victim::Shim(number),
                Victim::Shim(number),
                Victim::Init(number),
                Victim::SupervisorAndShim(number),
            ]);
            steps.push(Step { pause: self.pause(40), action: Action::Kill(victim) });
        }
    }

    fn victim(&mut self, number: usize) -> Victim {
        match self.below(40) {
            0..10 => Victim::Supervisor,
            10..22 => Victim::Shim(number),
            22..28 => Victim::Init(number),
            28..31 => Victim::Client(number),
            31..36 => Victim::SupervisorAndShim(number),
            36..39 => Victim::TenShims,
            _ => Victim::Everything,
        }
    }

    fn action(&mut self, launched: usize) -> Action {
        let number = self.below(launched);
        match self.below(40) {
            0..16 => Action::Kill(self.victim(number)),
            16..19 => Action::Freeze(Frozen::Shim(number), self.pause(800)),
            19..21 => Action::Freeze(Frozen::Supervisor, self.pause(800)),
            21..24 => Action::Stop(number),
            24 => Action::KillVerb(number),
            25..27 => Action::Remove(number),
            27..31 => {
                let places = [
                    Place::WriteLayer,
                    Place::VolumeSource,
                    Place::RootInShim,
                    Place::VolumeInShim,
                    Place::VolumeInInit,
                ];
                Action::Plant(number, self.pick(&places))
            }
            31..34 => Action::Hold(number, self.pause(2500)),
            34..36 => Action::Wait(number),
            36 => Action::Follow(number),
            _ => Action::Look(number),
        }
    }
}
