//! Who dies, and what can then still be known of the containers.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{
    plan::Victim,
    round::{Kind, Pending, Round},
    victims,
};

/// After the death of its shim a container may be without one for so long.
const ADOPTION: Duration = Duration::from_secs(3);

impl Round<'_> {
    pub(crate) fn kill(&mut self, victim: Victim) -> bool {
        let count = match victim {
            Victim::Supervisor => self.kill_supervisor(),
            Victim::Shim(number) => self.kill_shim(number),
            Victim::Init(number) => self.kill_init(number),
            Victim::Client(number) => self.kill_client(number),
            Victim::SupervisorAndShim(number) => self.kill_supervisor().max(self.kill_shim(number)),
            Victim::TenShims => self.kill_shims(10),
            Victim::Everything => self.kill_everything(),
        };
        if count > 0 {
            let name = match victim {
                Victim::Supervisor => "supervisor",
                Victim::Shim(_) => "shim",
                Victim::Init(_) => "init",
                Victim::Client(_) => "client",
                Victim::SupervisorAndShim(_) => "supervisor+shim",
                Victim::TenShims => "ten shims",
                Victim::Everything => "everything",
            };
            *self.figures.kills.entry(name).or_insert(0) += 1;
        }
        count > 0
    }

    /// Kills every supervisor of the instance.
    pub(crate) fn kill_supervisor(&mut self) -> usize {
        self.hits += 1;
        let found = victims::supervisors(self.sandbox);
        let count = found.iter().filter(|process| process.signal(Signal::KILL)).count();
        self.supervisor_hit = Some(Instant::now());
        self.last_supervisor_hit = self.supervisor_hit;
        for number in 0..self.fates.len() {
            if !self.fates[number].launched {
                continue;
            }
            let recent = self.fates[number].shim_hit.is_some_and(|hit| hit.elapsed() < ADOPTION);
            if recent || self.fates[number].shim_hit.is_some() && self.shim(number).is_none() {
                self.fates[number].unseen = true;
            }
        }
        count
    }

    fn kill_shim(&mut self, number: usize) -> usize {
        let Some(shim) = self.shim(number) else { return 0 };
        self.hit_shim(number);
        usize::from(shim.signal(Signal::KILL))
    }

    fn hit_shim(&mut self, number: usize) {
        let init_lives = self.init(number).is_some_and(|init| init.is_alive());
        let unseen = self.supervisor_hit.is_some();
        let fate = &mut self.fates[number];
        fate.touched += 1;
        fate.unread |= fate.killed || !init_lives;
        fate.unseen |= unseen;
        fate.shim_hit = Some(Instant::now());
    }

    fn kill_init(&mut self, number: usize) -> usize {
        let Some(init) = self.init(number) else { return 0 };
        let fate = &mut self.fates[number];
        fate.touched += 1;
        fate.killed = true;
        fate.unread |= fate.shim_hit.is_some_and(|hit| hit.elapsed() < ADOPTION);
        usize::from(init.signal(Signal::KILL))
    }

    fn kill_client(&mut self, number: usize) -> usize {
        let launch = |pending: &&Pending| pending.number == number && pending.kind == Kind::Launch;
        let Some(pending) = self.pending.iter().find(launch) else { return 0 };
        pending.client.signal(Signal::KILL);
        let fate = &mut self.fates[number];
        fate.touched += 1;
        fate.client_killed = true;
        1
    }

    fn kill_shims(&mut self, most: usize) -> usize {
        let shims: Vec<_> = (0..self.fates.len())
            .filter_map(|number| Some((number, self.shim(number)?)))
            .take(most)
            .collect();
        for (number, _) in &shims {
            self.hit_shim(*number);
        }
        shims.iter().filter(|(_, shim)| shim.signal(Signal::KILL)).count()
    }

    fn kill_everything(&mut self) -> usize {
        self.hits += 1;
        for fate in self.fates.iter_mut().filter(|fate| fate.launched) {
            (fate.killed, fate.unseen, fate.unread, fate.client_killed) = (true, true, true, true);
            fate.shim_hit = Some(Instant::now());
        }
        let inits: Vec<_> = (0..self.fates.len()).filter_map(|number| self.init(number)).collect();
        let mut all = victims::supervisors(self.sandbox);
        all.extend(victims::shims(self.sandbox));
        all.extend(inits);
        let count = all.iter().filter(|process| process.signal(Signal::KILL)).count();
        self.pending.iter().for_each(|pending| pending.client.signal(Signal::KILL));
        self.supervisor_hit = Some(Instant::now());
        self.last_supervisor_hit = self.supervisor_hit;
        count
    }
}
