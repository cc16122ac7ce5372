//! Samples of what a client and `mysup-registry` say to each other, and of progress.

use mysup_ipc::{
    progress::{Progress, ProgressStep},
    registry::{FromRegistry, PullOrder, Pulled, PushOrder, ToRegistry, Trust},
};

use crate::samples::{digest, text, texts};

/// How far a part is.
pub(crate) fn progress(step: ProgressStep) -> Progress {
    Progress { part: text("0123456789ab"), step, done: 91, total: 92 }
}

/// What a client says.
pub(crate) fn to_registry() -> Vec<ToRegistry> {
    let trust = || Trust { certificates: Some(text("/certs")), anybody: true };
    let order = PullOrder { reference: text("a:b"), platform: Some(text("linux/amd64")), trust: trust() };
    let push = PushOrder { reference: text("a:b"), others: texts(&["c"]), trust: trust() };
    let (server, user, secret) = (text("host"), text("me"), text("word"));
    vec![
        ToRegistry::Pull(order),
        ToRegistry::Present(2),
        ToRegistry::Push(push.clone()),
        ToRegistry::Login { server, user, secret, trust: trust() },
        ToRegistry::Logout { server: text("host") },
        ToRegistry::Bring { order: push, manifest: text("{}") },
    ]
}

/// What it is answered.
pub(crate) fn from_registry() -> Vec<FromRegistry> {
    let (name, tag) = (text("host/a:b"), Some(text("host/a:b")));
    let pulled = Pulled { name: name.clone(), tag, digest: digest(), manifest: digest(), image: digest() };
    vec![
        FromRegistry::Layers(vec![digest()]),
        FromRegistry::Progress(progress(ProgressStep::Resuming)),
        FromRegistry::Pulled(pulled),
        FromRegistry::Pushed { name, digest: digest(), size: 93 },
        FromRegistry::Done(text("done")),
        FromRegistry::Failed(text("why")),
        FromRegistry::Lacking,
    ]
}
