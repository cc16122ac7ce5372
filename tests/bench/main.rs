//! `tests/bench`: what one short container costs, side by side in one run.
//!
//! Whole client processes by wall clock, medians of interleaved runs: `mysup run --rm IMAGE true`, `crun run` and
//! `runc run` of the same root file system where they are installed and work, and a loop of the bare system calls as the
//! floor. Nothing is judged: a shared machine is no place for limits in seconds.

mod floor;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const RUNS: usize = 40;
const WARM_UP: usize = 5;

struct Contender {
    name: &'static str,
    run: Box<dyn FnMut() -> Result<(), String>>,
    times: Vec<Duration>,
    failure: Option<String>,
}

fn main() {
    let scratch = Scratch::new();
    let rootfs = make_rootfs(&scratch.0);
    let mut contenders = vec![
        mysup(&scratch.0, &rootfs, &[]),
        mysup(&scratch.0, &rootfs, &["--network", "host"]),
        runtime("crun", &scratch.0, &rootfs),
        runtime("runc", &scratch.0, &rootfs),
        floor(&scratch.0, &rootfs),
    ];
    for round in 0..WARM_UP + RUNS {
        for contender in contenders.iter_mut().filter(|contender| contender.failure.is_none()) {
            let begun = Instant::now();
            match (contender.run)() {
                Ok(()) if round >= WARM_UP => contender.times.push(begun.elapsed()),
                Ok(()) => {}
                Err(error) => contender.failure = Some(error),
            }
        }
    }
    report(contenders);
    let _ = mysup_command(&scratch.0).arg("shutdown").arg("--containers").status();
}

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
fn report(contenders: Vec<Contender>) {
    println!("{:<40} {:>9} {:>9} {:>9}   ({RUNS} runs each, interleaved)", "", "min ms", "median", "p90");
    for mut contender in contenders {
        if let Some(failure) = contender.failure {
            println!("{:<40} not measured: {failure}", contender.name);
            continue;
        }
        contender.times.sort_unstable();
        let at = |share: usize| contender.times[(RUNS - 1) * share / 100].as_secs_f64() * 1e3;
        println!("{:<40} {:>9.2} {:>9.2} {:>9.2}", contender.name, at(0), at(50), at(90));
    }
}

/// Removed at the end by the sweep of the shim, which crosses no mount.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("mysup-bench-{}", std::process::id()));
        fs::create_dir(&path).expect("make a scratch directory");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = Command::new(binary("mysup-shim")).arg("sweep").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}

fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("own path");
    // target/<triple>/release/deps/bench-... : the programs are one folder up.
    own.parent().and_then(Path::parent).expect("in target").join(name)
}

fn make_rootfs(scratch: &Path) -> PathBuf {
    let rootfs = scratch.join("rootfs");
    for directory in ["bin", "etc", "dev", "proc", "sys", "tmp"] {
        fs::create_dir_all(rootfs.join(directory)).expect("make the root file system");
    }
    fs::copy("/bin/busybox", rootfs.join("bin/busybox")).expect("busybox-static is installed");
    std::os::unix::fs::symlink("busybox", rootfs.join("bin/true")).expect("link");
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").expect("write passwd");
    rootfs
}

fn quiet(mut command: Command) -> Result<(), String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(text.lines().last().unwrap_or("it failed and said nothing").to_owned())
}

fn mysup_command(scratch: &Path) -> Command {
    let mut command = Command::new(binary("mysup"));
    command.arg("--root").arg(scratch.join("root")).arg("--run-root").arg(scratch.join("run"));
    command
}

fn mysup(scratch: &Path, rootfs: &Path, flags: &[&'static str]) -> Contender {
    let (scratch, tar) = (scratch.to_owned(), scratch.join("busybox.tar"));
    let setup = if tar.exists() {
        Ok(())
    } else {
        let mut pack = Command::new("tar");
        pack.arg("-C").arg(rootfs).arg("-cf").arg(&tar).arg(".");
        quiet(pack).and_then(|()| {
            let mut import = mysup_command(&scratch);
            import.arg("import").arg(&tar).arg("busybox");
            quiet(import)
        })
    };
    let flags = flags.to_vec();
    let name = if flags.is_empty() {
        "mysup run --rm busybox true"
    } else {
        "mysup run --rm --network host busybox true"
    };
    let run = move || {
        let mut command = mysup_command(&scratch);
        command.args(["run", "--rm"]).args(&flags).args(["busybox", "true"]);
        quiet(command)
    };
    Contender { name, run: Box::new(run), times: Vec::new(), failure: setup.err() }
}

fn runtime(program: &'static str, scratch: &Path, rootfs: &Path) -> Contender {
    let bundle = scratch.join(program);
    let name = if program == "crun" {
        "crun run (no layers, no supervisor)"
    } else {
        "runc run (no layers, no supervisor)"
    };
    let setup = make_bundle(program, &bundle, rootfs);
    let mut count = 0;
    let run = move || {
        count += 1;
        let mut command = Command::new(program);
        command
            .arg("run")
            .arg("--bundle")
            .arg(&bundle)
            .arg(format!("mysup-bench-{}-{count}", std::process::id()));
        quiet(command)
    };
    Contender { name, run: Box::new(run), times: Vec::new(), failure: setup.err() }
}

fn make_bundle(program: &str, bundle: &Path, rootfs: &Path) -> Result<(), String> {
    fs::create_dir(bundle).map_err(|error| error.to_string())?;
    let mut spec = Command::new(program);
    spec.arg("spec").current_dir(bundle);
    quiet(spec)?;
    let path = bundle.join("config.json");
    let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
    let mut config: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = serde_json::json!(["true"]);
    config["root"] = serde_json::json!({ "path": rootfs, "readonly": false });
    fs::write(&path, config.to_string()).map_err(|error| error.to_string())
}

fn floor(scratch: &Path, rootfs: &Path) -> Contender {
    let (scratch, rootfs) = (scratch.to_owned(), rootfs.to_owned());
    let run = move || floor::run(&scratch, &rootfs).map_err(|error| error.to_string());
    Contender { name: "the bare system calls", run: Box::new(run), times: Vec::new(), failure: None }
}
