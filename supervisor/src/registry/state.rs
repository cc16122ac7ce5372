//! The life of a container as the registry sees it: one pure function, no IO, no clock.
//!
//! ```text
//!  New ─Written─▶ Created ─Start─▶ Starting ─Held─▶ Held ─Started─▶ Running ─Stop─▶ Stopping
//!                    ▲                 └──────┬───────┘                └──────┬────────┘
//!                    │                      Failed                          Ended
//!                    │                        ▼                               ▼
//!    Exited ◀──────TornDown──────────── TearingDown ◀─────────────────────────┘   Lost leads here too
//!                                         │    ▲
//!                                     Leftover Retry
//!                                         ▼    │
//!                                        Leftover
//! ```
//! `Unreachable` lies over any of them while a shim that lives does not answer: it keeps what was before, and the next
//! word of the shim goes on from there.

/// Where a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// Its record is being written.
    New,
    /// Recorded; never ran, or could not be started.
    Created,
    /// It ran, ended, and nothing is left.
    Exited,
    /// Its record is on the way to the trash.
    Removing {
        /// It was `Exited`, not `Created`.
        ran: bool,
    },
    /// There is, or must be, a shim for it.
    Live(Live),
    /// Its shim lives and does not answer; what it was before.
    Unreachable(Live),
}

/// Where a container with a shim is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Live {
    /// A shim is making it.
    Starting,
    /// Its init exists and waits before exec.
    Held {
        /// The init on the host.
        pid: u32,
    },
    /// The program runs.
    Running {
        /// The init on the host.
        pid: u32,
        /// Nanoseconds since 1970.
        since: u64,
    },
    /// A stop was sent to the shim.
    Stopping {
        /// The init on the host.
        pid: u32,
        /// When it was started, nanoseconds since 1970.
        since: u64,
    },
    /// What was made for it is being undone.
    TearingDown {
        /// The program was started.
        ran: bool,
    },
    /// Some of it could not be undone.
    Leftover {
        /// The program was started.
        ran: bool,
    },
}

/// What may happen to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The record is on disk.
    Written,
    /// The record could not be removed.
    NotRemoved,
    /// A user wants something.
    Wanted(Want),
    /// The shim, or the link to it, says something.
    Said(Said),
}

/// What a user may want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// Run the program.
    Start,
    /// End the program.
    Stop,
    /// Try the teardown again.
    Retry,
    /// Remove the record.
    Remove,
}

/// What a shim, or the link to it, may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// No shim could be started at all.
    NotLaunched,
    /// The init exists.
    Held {
        /// The init on the host.
        pid: u32,
    },
    /// The program runs.
    Started {
        /// Nanoseconds since 1970.
        at: u64,
    },
    /// The program could not be started.
    Failed,
    /// The program ended, or is known never to have run.
    Ended {
        /// The program was started.
        ran: bool,
    },
    /// The shim is dead.
    Lost,
    /// A step of the teardown ended.
    Step,
    /// Nothing is left.
    TornDown,
    /// Something is left.
    Leftover,
    /// The shim did not answer in time.
    Silent,
    /// After a new connection: where the shim is.
    Stands(Live),
}

/// Why an event does not lead anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Its record is being written: in a moment it can be asked again.
    Busy,
    /// A start is under way.
    Starting,
    /// It runs.
    Running,
    /// It does not run.
    NotRunning,
    /// Its teardown is under way.
    TearingDown,
    /// Its teardown is not finished and waits.
    Leftover,
    /// Its shim does not answer.
    Unreachable,
    /// It is being removed.
    Removing,
    /// A shim said what cannot be said now.
    OutOfOrder,
}

/// The state after an event, or why there is none.
pub(crate) fn next(state: &State, event: Event) -> Result<State, Refusal> {
    match event {
        Event::Written => match state {
            State::New => Ok(State::Created),
            State::Created
            | State::Exited
            | State::Removing { .. }
            | State::Live(_)
            | State::Unreachable(_) => Err(Refusal::OutOfOrder),
        },
        Event::NotRemoved => match state {
            State::Removing { ran } => Ok(at_rest(*ran)),
            State::New | State::Created | State::Exited | State::Live(_) | State::Unreachable(_) => {
                Err(Refusal::OutOfOrder)
            }
        },
        Event::Wanted(want) => wanted(state, want),
        Event::Said(said) => match state {
            State::Live(live) | State::Unreachable(live) => after(*live, said),
            State::New | State::Created | State::Exited | State::Removing { .. } => Err(Refusal::OutOfOrder),
        },
    }
}

/// Where a container rests when nothing is left of its last run.
pub(crate) fn at_rest(ran: bool) -> State {
    if ran { State::Exited } else { State::Created }
}

fn wanted(state: &State, want: Want) -> Result<State, Refusal> {
    match (state, want) {
        (State::Created | State::Exited, Want::Start) => Ok(State::Live(Live::Starting)),
        (State::Created, Want::Remove) => Ok(State::Removing { ran: false }),
        (State::Exited, Want::Remove) => Ok(State::Removing { ran: true }),
        (State::Created | State::Exited, Want::Stop | Want::Retry) => Err(Refusal::NotRunning),
        (State::New, Want::Start | Want::Stop | Want::Retry | Want::Remove) => Err(Refusal::Busy),
        (State::Removing { .. }, Want::Start | Want::Stop | Want::Retry | Want::Remove) => {
            Err(Refusal::Removing)
        }
        (State::Unreachable(_), Want::Start | Want::Stop | Want::Retry | Want::Remove) => {
            Err(Refusal::Unreachable)
        }
        (State::Live(live), want) => wanted_of_live(*live, want).map(State::Live),
    }
}

fn wanted_of_live(live: Live, want: Want) -> Result<Live, Refusal> {
    match (live, want) {
        (Live::Running { pid, since } | Live::Stopping { pid, since }, Want::Stop) => {
            Ok(Live::Stopping { pid, since })
        }
        (Live::Leftover { ran }, Want::Retry) => Ok(Live::TearingDown { ran }),
        (Live::Starting | Live::Held { .. }, Want::Start | Want::Stop | Want::Retry | Want::Remove) => {
            Err(Refusal::Starting)
        }
        (Live::Running { .. } | Live::Stopping { .. }, Want::Start | Want::Retry | Want::Remove) => {
            Err(Refusal::Running)
        }
        (Live::TearingDown { .. }, Want::Start | Want::Stop | Want::Retry | Want::Remove) => {
            Err(Refusal::TearingDown)
        }
        (Live::Leftover { .. }, Want::Stop) => Err(Refusal::NotRunning),
        (Live::Leftover { .. }, Want::Start | Want::Remove) => Err(Refusal::Leftover),
    }
}

/// Whatever a silent shim says ends its silence, so `Unreachable` is handled as what was before.
fn after(live: Live, said: Said) -> Result<State, Refusal> {
    match (said, live) {
        (Said::NotLaunched, Live::Starting) => Ok(State::Created),
        (Said::Held { pid }, Live::Starting) => Ok(State::Live(Live::Held { pid })),
        (Said::Started { at }, Live::Held { pid }) => Ok(State::Live(Live::Running { pid, since: at })),
        (Said::Failed, Live::Starting | Live::Held { .. }) => {
            Ok(State::Live(Live::TearingDown { ran: false }))
        }
        (Said::Ended { ran: now }, live) => Ok(State::Live(Live::TearingDown { ran: live.ran() || now })),
        (Said::Lost, live) => Ok(State::Live(Live::TearingDown { ran: live.ran() })),
        // A shim that tries again by itself does not make it look better than it is.
        // Before the end it is about what was killed and is not gone.
        (
            Said::Step,
            Live::Running { .. } | Live::Stopping { .. } | Live::TearingDown { .. } | Live::Leftover { .. },
        ) => Ok(State::Live(live)),
        (Said::TornDown, live) => Ok(at_rest(live.ran())),
        (Said::Leftover, live) => Ok(State::Live(Live::Leftover { ran: live.ran() })),
        (Said::Silent, live) => Ok(State::Unreachable(live)),
        (
            Said::Stands(stands),
            Live::Starting
            | Live::Held { .. }
            | Live::Running { .. }
            | Live::Stopping { .. }
            | Live::TearingDown { .. }
            | Live::Leftover { .. },
        ) => Ok(State::Live(stands)),
        (
            Said::NotLaunched,
            Live::Held { .. }
            | Live::Running { .. }
            | Live::Stopping { .. }
            | Live::TearingDown { .. }
            | Live::Leftover { .. },
        )
        | (
            Said::Held { .. },
            Live::Held { .. }
            | Live::Running { .. }
            | Live::Stopping { .. }
            | Live::TearingDown { .. }
            | Live::Leftover { .. },
        )
        | (
            Said::Started { .. },
            Live::Starting
            | Live::Running { .. }
            | Live::Stopping { .. }
            | Live::TearingDown { .. }
            | Live::Leftover { .. },
        )
        | (
            Said::Failed,
            Live::Running { .. } | Live::Stopping { .. } | Live::TearingDown { .. } | Live::Leftover { .. },
        )
        | (Said::Step, Live::Starting | Live::Held { .. }) => Err(Refusal::OutOfOrder),
    }
}

impl Live {
    /// Whether the program was started.
    pub(crate) fn ran(self) -> bool {
        match self {
            Live::Starting | Live::Held { .. } => false,
            Live::Running { .. } | Live::Stopping { .. } => true,
            Live::TearingDown { ran } | Live::Leftover { ran } => ran,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 18] = [
        State::New,
        State::Created,
        State::Exited,
        State::Removing { ran: false },
        State::Removing { ran: true },
        State::Live(Live::Starting),
        State::Live(Live::Held { pid: 7 }),
        State::Live(Live::Running { pid: 7, since: 1 }),
        State::Live(Live::Stopping { pid: 7, since: 1 }),
        State::Live(Live::TearingDown { ran: false }),
        State::Live(Live::TearingDown { ran: true }),
        State::Live(Live::Leftover { ran: false }),
        State::Live(Live::Leftover { ran: true }),
        State::Unreachable(Live::Starting),
        State::Unreachable(Live::Held { pid: 7 }),
        State::Unreachable(Live::Running { pid: 7, since: 1 }),
        State::Unreachable(Live::TearingDown { ran: true }),
        State::Unreachable(Live::Leftover { ran: true }),
    ];

    const EVENTS: [Event; 17] = [
        Event::Written,
        Event::NotRemoved,
        Event::Wanted(Want::Start),
        Event::Wanted(Want::Stop),
        Event::Wanted(Want::Retry),
        Event::Wanted(Want::Remove),
        Event::Said(Said::NotLaunched),
        Event::Said(Said::Held { pid: 9 }),
        Event::Said(Said::Started { at: 2 }),
        Event::Said(Said::Failed),
        Event::Said(Said::Ended { ran: true }),
        Event::Said(Said::Lost),
        Event::Said(Said::Step),
        Event::Said(Said::TornDown),
        Event::Said(Said::Leftover),
        Event::Said(Said::Silent),
        Event::Said(Said::Stands(Live::Running { pid: 5, since: 3 })),
    ];

    /// One letter for each result, in the order of `EVENTS`; the rows in the order of `STATES`.
    ///
    /// N new, c created, x exited, m removing, s starting, h held, r running, p stopping, t tearing down, l leftover,
    /// u unreachable; refused: B busy, S starting, R running, O not running, T tearing down, L leftover,
    /// U unreachable, M removing, - out of order.
    const TABLE: [&str; 18] = [
        "c-BBBB-----------",
        "--sOOm-----------",
        "--sOOm-----------",
        "-cMMMM-----------",
        "-xMMMM-----------",
        "--SSSSch-ttt-clur",
        "--SSSS--rttt-clur",
        "--RpRR----ttrxlur",
        "--RpRR----ttpxlur",
        "--TTTT----tttclur",
        "--TTTT----tttxlur",
        "--LOtL----ttlclur",
        "--LOtL----ttlxlur",
        "--UUUUch-ttt-clur",
        "--UUUU--rttt-clur",
        "--UUUU----ttrxlur",
        "--UUUU----tttxlur",
        "--UUUU----ttlxlur",
    ];

    fn letter(result: &Result<State, Refusal>) -> char {
        match result {
            Ok(State::New) => 'N',
            Ok(State::Created) => 'c',
            Ok(State::Exited) => 'x',
            Ok(State::Removing { .. }) => 'm',
            Ok(State::Live(Live::Starting)) => 's',
            Ok(State::Live(Live::Held { .. })) => 'h',
            Ok(State::Live(Live::Running { .. })) => 'r',
            Ok(State::Live(Live::Stopping { .. })) => 'p',
            Ok(State::Live(Live::TearingDown { .. })) => 't',
            Ok(State::Live(Live::Leftover { .. })) => 'l',
            Ok(State::Unreachable(_)) => 'u',
            Err(Refusal::Busy) => 'B',
            Err(Refusal::Starting) => 'S',
            Err(Refusal::Running) => 'R',
            Err(Refusal::NotRunning) => 'O',
            Err(Refusal::TearingDown) => 'T',
            Err(Refusal::Leftover) => 'L',
            Err(Refusal::Unreachable) => 'U',
            Err(Refusal::Removing) => 'M',
            Err(Refusal::OutOfOrder) => '-',
        }
    }

    #[test]
    fn every_pair_of_state_and_event_is_as_in_the_table() {
        for (state, row) in STATES.iter().zip(TABLE) {
            let found: String = EVENTS.iter().map(|event| letter(&next(state, *event))).collect();
            assert_eq!(found, row, "{state:?}");
        }
    }

    #[test]
    fn what_the_states_carry_is_kept() {
        let held = State::Live(Live::Held { pid: 7 });
        let running = next(&held, Event::Said(Said::Started { at: 2 })).unwrap();
        assert_eq!(running, State::Live(Live::Running { pid: 7, since: 2 }));
        let stopping = next(&running, Event::Wanted(Want::Stop)).unwrap();
        assert_eq!(stopping, State::Live(Live::Stopping { pid: 7, since: 2 }));
        let lost = next(&State::Unreachable(Live::Running { pid: 7, since: 2 }), Event::Said(Said::Lost));
        assert_eq!(lost.unwrap(), State::Live(Live::TearingDown { ran: true }));
        let never =
            next(&State::Live(Live::TearingDown { ran: false }), Event::Said(Said::Ended { ran: false }));
        assert_eq!(never.unwrap(), State::Live(Live::TearingDown { ran: false }));
        let silent = next(&stopping, Event::Said(Said::Silent)).unwrap();
        assert_eq!(silent, State::Unreachable(Live::Stopping { pid: 7, since: 2 }));
    }
}
