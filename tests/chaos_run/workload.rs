//! The program in each container: it writes record n into all its volumes, makes that durable, and only then prints n.

use std::{fs, path::Path, time::Duration};

use super::plan::{End, Lifetime, Spec, Start};

/// Where the volumes are in the container, each within the one before.
const DESTINATIONS: [&str; 3] = ["/v", "/v/deep/er", "/v/deep/er/est"];

/// What it writes as its n-th record.
pub(crate) fn record(spec: &Spec, number: usize) -> String {
    format!("{} {number} {}\n", spec.name, spec.filling)
}

/// How many records are complete in a file; an error where anything else is in it.
pub(crate) fn complete(spec: &Spec, file: &Path) -> Result<usize, String> {
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(format!("{}: {error}", file.display())),
    };
    let mut rest = &bytes[..];
    let mut count = 0;
    while let Some(tail) = rest.strip_prefix(record(spec, count + 1).as_bytes()) {
        rest = tail;
        count += 1;
    }
    if rest.is_empty() {
        return Ok(count);
    }
    let shown = String::from_utf8_lossy(&rest[..rest.len().min(80)]).into_owned();
    Err(format!("{}: after record {count} comes {shown:?} ({} bytes)", file.display(), rest.len()))
}

/// How long a stop waits before it kills.
pub(crate) fn grace(spec: &Spec) -> Duration {
    Duration::from_secs(match spec.end {
        End::Ignores => 1,
        End::Obeys => 8,
        End::Alone | End::Input | End::Signal(_) => 3,
    })
}

/// The arguments of `run` or `create`; `sources` are the volumes' directories on the host.
pub(crate) fn arguments(spec: &Spec, image: &str, sources: &[String], shared: &str) -> Vec<String> {
    let mut line: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| line.extend(words.iter().map(|word| (*word).to_owned()));
    match spec.start {
        Start::Detached => add(&["run", "-d"]),
        Start::Foreground => add(&["run"]),
        Start::Created => add(&["create"]),
    }
    add(&["--name", &spec.name]);
    match spec.lifetime {
        Lifetime::Record => {}
        Lifetime::Nothing => add(&["--rm"]),
        Lifetime::WriteLayer if spec.start == Start::Created => {}
        Lifetime::WriteLayer => add(&["--keep"]),
    }
    if spec.terminal {
        add(&["-t"]);
    }
    if spec.end == End::Input {
        add(&["-i"]);
    }
    if spec.init {
        add(&["--init"]);
    }
    if spec.limits {
        add(&["-m", "64m", "--pids-limit", "32"]);
    }
    add(&["--stop-timeout", &grace(spec).as_secs().to_string()]);
    for (source, destination) in sources.iter().zip(DESTINATIONS) {
        add(&["-v", &format!("{source}:{destination}")]);
    }
    add(&["-v", &format!("{shared}:/shared:ro")]);
    add(&[image, "sh", "-c", &script(spec)]);
    line
}

fn script(spec: &Spec) -> String {
    let Spec { name, code, records, filling, second_code, .. } = spec;
    let mut write = String::new();
    for destination in &DESTINATIONS[..spec.volumes] {
        write.push_str(&format!(
            "printf '%s %d %s\\n' {name} $n {filling} >> {destination}/records; sync {destination}/records; "
        ));
    }
    let (trap, many) = match spec.end {
        End::Alone | End::Input | End::Signal(_) => (String::new(), *records),
        End::Obeys => (format!("trap 'echo {code} > /v/code; exit {code}' TERM; "), 100_000),
        End::Ignores => ("trap '' TERM; ".to_owned(), 100_000),
    };
    let end = match spec.end {
        End::Input => format!("while read line; do :; done; echo {code} > /v/code; exit {code}"),
        End::Signal(signal) => format!("echo {code} > /v/code; kill -{signal} $$; sleep 100"),
        End::Alone | End::Obeys | End::Ignores => format!("echo {code} > /v/code; exit {code}"),
    };
    format!(
        "if [ -e /kept ]; then cat /kept; exit {second_code}; fi; {trap}echo {name} > /kept; : > /v/started; n=0; \
         while [ $n -lt {many} ]; do n=$((n+1)); {write}echo $n; usleep {}000; done; {end}",
        spec.pause
    )
}
