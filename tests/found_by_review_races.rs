//! What a review has found where supervisors come and go: a request that nobody has read, an operation that had begun.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::{Case, Sandbox};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![replacements_at_once_all_succeed_and_what_runs_beside_them_does_not_notice]
}

fn replacements_at_once_all_succeed_and_what_runs_beside_them_does_not_notice(sandbox: &Sandbox) {
    sandbox.image();
    let over = AtomicBool::new(false);
    let over = &over;
    std::thread::scope(|scope| {
        let replacers: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(move || {
                    let mut count = 0;
                    while !over.load(Ordering::Relaxed) {
                        sandbox.ok(&["start", "--replace"]);
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let runners: Vec<_> = (0..3)
            .map(|runner| {
                scope.spawn(move || {
                    for round in 0..10 {
                        let word = format!("word-{runner}-{round}");
                        assert_eq!(sandbox.ok(&["run", "--rm", "busybox", "echo", &word]), word);
                        sandbox.ok(&["ps", "-a"]);
                    }
                })
            })
            .collect();
        let ran: Vec<_> = runners.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::Relaxed);
        for replacer in replacers {
            let count = replacer.join().expect("every replacement succeeds");
            assert!(count > 0);
        }
        for ran in ran {
            ran.expect("every run prints its output once and succeeds");
        }
    });
}
