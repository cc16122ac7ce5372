//! Samples of what is asked about the changes of a container.

use mysup_ipc::commits::CommitRequest;

use crate::samples::{text, texts};

/// Of each kind.
pub(crate) fn commit_requests() -> impl Iterator<Item = CommitRequest> {
    let container = || text("one");
    [
        CommitRequest::Commit {
            container: container(),
            name: Some(text("a:b")),
            author: text("me"),
            message: text("m"),
            changes: texts(&["CMD x"]),
            pause: true,
        },
        CommitRequest::Export { container: container(), pause: true },
        CommitRequest::Diff { container: container() },
    ]
    .into_iter()
}
