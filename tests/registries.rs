//! `pull`, `push`, `login` and `logout` against Debian's docker-registry on loopback.

use std::{fs, path::Path};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{
    Case, Sandbox,
    bundle::{self, Packed, Specimen},
    command::Output,
    peers::tool,
    registry::{Door, PASSWORD, Registry, USER, Wire},
    terminal::Terminal,
    tree, wait_until,
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        image_goes_to_a_registry_and_comes_back_the_same,
        only_layers_that_are_missing_travel,
        run_and_create_pull_what_is_missing,
        credentials_are_tried_kept_and_forgotten,
        certificate_of_a_stranger_is_not_believed,
        digest_is_a_name_that_nobody_can_change,
        index_gives_the_image_for_the_machine,
        cut_connection_goes_on_where_it_was,
        interrupted_pull_leaves_nothing_and_holds_nobody,
        pull_outlives_its_supervisor,
        layer_that_goes_meanwhile_is_fetched_after_all,
        several_pulls_of_one_image_share_it,
        terminal_has_bars_and_quiet_has_none,
    ]
}

const NAME: &str = "specimen:1";

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// An image in the store, under a name.
pub(crate) fn load(sandbox: &Sandbox, specimen: &Specimen, name: &str) {
    let path = sandbox.place("given.tar");
    fs::write(&path, bundle::archive(&specimen.docker_files(&[name]))).expect("the sandbox is ours");
    sandbox.ok(&["load", "-q", "-i", &text(&path)]);
}

/// One that is some megabytes long, however it is compressed.
pub(crate) fn large(word: &str) -> Specimen {
    let mut specimen = Specimen::new(word);
    let mut seed = 7_u64;
    let noise: Vec<u8> = (0..800_000)
        .flat_map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed.to_be_bytes()
        })
        .collect();
    let mut layer = crate::harness::image::TarWriter::new();
    layer.file("noise", 0o644, &noise);
    specimen.layers.push(layer.finish());
    specimen.config["rootfs"]["diff_ids"] = Value::from(specimen.diff_ids());
    specimen
}

/// Nothing is listed, no layer and no file is there.
#[track_caller]
pub(crate) fn expect_nothing(sandbox: &Sandbox) {
    assert_eq!(sandbox.ok(&["images", "-q"]), "");
    let layers = fs::read_dir(sandbox.root().join("layers")).map_or(0, Iterator::count);
    assert_eq!(layers, 0, "{:?}", tree::paths(&sandbox.root(), &[]));
    let known = ["containers", "images", "layers", "lock", "trash", "volumes"];
    let names = fs::read_dir(sandbox.root()).expect("it is there").flatten();
    let strange = names.filter(|entry| !known.contains(&&*entry.file_name().to_string_lossy())).count();
    assert_eq!(strange, 0, "{:?}", tree::paths(&sandbox.root(), &[]));
}

pub(crate) fn digest_of(pushed: &str) -> String {
    let line = pushed.lines().last().expect("it says something");
    line.split_whitespace().find(|word| word.starts_with("sha256:")).expect("a digest").to_owned()
}

fn image_goes_to_a_registry_and_comes_back_the_same(sandbox: &Sandbox) {
    let registry = Registry::start(sandbox, Door::Open);
    let specimen = Specimen::new("there and back");
    let name = format!("{}/some/where:1", registry.host);
    load(sandbox, &specimen, &name);
    let said = sandbox.ok(&["push", &name]);
    assert!(
        said.starts_with(&format!("The push refers to repository [{}/some/where]", registry.host)),
        "{said}"
    );
    assert_eq!(said.matches(": Pushed").count(), 3, "{said}");
    let digest = digest_of(&said);
    assert!(
        fs::read(registry.blob(&digest))
            .is_ok_and(|bytes| format!("sha256:{}", tree::sha256(&bytes)) == digest)
    );
    let again = sandbox.ok(&["push", &name]);
    assert_eq!(
        (again.matches("Layer already exists").count(), digest_of(&again)),
        (3, digest.clone()),
        "{again}"
    );
    assert_eq!(sandbox.ok(&["push", "-q", &name]), name);
    sandbox.ok(&["rmi", &name]);
    let said = sandbox.ok(&["pull", &name]);
    assert!(said.starts_with(&format!("1: Pulling from {}/some/where", registry.host)), "{said}");
    assert!(
        said.contains(&format!("\nDigest: {digest}\nStatus: Downloaded newer image for {name}\n{name}")),
        "{said}"
    );
    assert_eq!(said.matches(": Pull complete").count(), 3, "{said}");
    assert_eq!(sandbox.ok(&["images", "-q", "--no-trunc"]), specimen.id());
    assert_eq!(sandbox.ok(&["run", "--rm", &name]), "there and back\ntester\n/data");
    assert!(sandbox.ok(&["image", "verify"]).ends_with("whole"));
    let said = sandbox.ok(&["image", "pull", &name]);
    assert!(said.contains("Already exists") && said.contains("Image is up to date"), "{said}");
    assert_eq!(sandbox.ok(&["pull", "-q", &name]), name);
    sandbox.refused(&["push", &format!("{}/not/here", registry.host)], 1, &["not/here"]);
    sandbox.refused(&["pull", &format!("{}/not/here", registry.host)], 1, &["not/here", "has no image"]);
    sandbox.refused(&["pull", &format!("{}/UPPER", registry.host)], 1, &["invalid reference"]);
}

fn only_layers_that_are_missing_travel(sandbox: &Sandbox) {
    let registry = Registry::start(sandbox, Door::Open);
    let wire = Wire::to(&registry);
    let lower = Specimen::new("shared");
    let upper = large("shared");
    let name = |tag: &str| format!("{}/shared:{tag}", wire.host());
    load(sandbox, &lower, &name("lower"));
    load(sandbox, &upper, &name("upper"));
    sandbox.ok(&["push", "-q", &name("lower")]);
    let said = sandbox.ok(&["push", &name("upper")]);
    assert_eq!(
        (said.matches("Layer already exists").count(), said.matches(": Pushed").count()),
        (3, 1),
        "{said}"
    );
    // Into another repository of the same registry it is mounted.
    sandbox.ok(&["tag", &name("upper"), &format!("{}/other:1", wire.host())]);
    let before = wire.lines().iter().filter(|line| line.starts_with("PUT")).count();
    let said = sandbox.ok(&["push", &format!("{}/other:1", wire.host())]);
    assert_eq!(said.matches("Layer already exists").count(), 4, "{said}");
    let puts = wire.lines().iter().filter(|line| line.starts_with("PUT")).count() - before;
    assert_eq!(puts, 1, "the manifest alone: {:?}", wire.lines());
    sandbox.ok(&["rmi", &name("upper"), &format!("{}/other:1", wire.host())]);
    let before = wire.fetched();
    let said = sandbox.ok(&["pull", &name("upper")]);
    assert_eq!(said.matches("Already exists").count(), 3, "{said}");
    assert_eq!(wire.fetched() - before, 2, "one layer and the configuration: {:?}", wire.lines());
    assert!(sandbox.ok(&["image", "verify", &name("upper")]).ends_with("whole"));
}

fn run_and_create_pull_what_is_missing(sandbox: &Sandbox) {
    let registry = Registry::start(sandbox, Door::Open);
    let name = format!("{}/wanted", registry.host);
    load(sandbox, &Specimen::new("wanted"), &name);
    sandbox.ok(&["push", "-q", &name]);
    sandbox.ok(&["rmi", &name]);
    sandbox.refused(&["run", "--rm", "--pull", "never", &name], 125, &["no such image", "wanted"]);
    let output = sandbox.mysup(&["run", "--rm", &name]).expect_code(0);
    assert_eq!(output.text(), "wanted\ntester\n/data");
    assert!(output.errors().starts_with(&format!("Unable to find image '{name}' locally\n")), "{output}");
    // Now it is here, and nobody is asked.
    assert_eq!(sandbox.mysup(&["run", "--rm", &name]).expect_code(0).errors(), "");
    let output = sandbox.mysup(&["run", "--rm", "--pull", "always", &name]).expect_code(0);
    assert!(output.errors().contains("Already exists"), "{output}");
    sandbox.ok(&["rmi", &name]);
    sandbox.ok(&["create", "--name", "made", &name]);
    sandbox.ok(&["rm", "made"]);
    sandbox.refused(&["run", "--rm", "--pull", "sometimes", &name], 125, &["--pull", "always"]);
    let host = registry.host.clone();
    drop(registry);
    // What cannot be had is said at once, in one line.
    sandbox.refused(&["run", "--rm", "--pull", "always", &name], 125, &["refused", &host]);
    let gone = format!("{name}:gone");
    sandbox.refused(&["run", "--rm", &gone], 125, &["no such image", &gone, "cannot be pulled", "refused"]);
    sandbox.refused(&["create", "nosuch"], 1, &["no such image: nosuch", "cannot be pulled", "docker.io"]);
}

fn credentials_are_tried_kept_and_forgotten(sandbox: &Sandbox) {
    let registry = Registry::start(sandbox, Door::Password);
    let (host, name) = (registry.host.as_str(), format!("{}/private:1", registry.host));
    load(sandbox, &Specimen::new("private"), &name);
    let push = || sandbox.mysup(&["push", &name]);
    let expect = |output: Output, words: &[&str]| {
        let errors = output.errors();
        assert!(output.code == 1 && errors.lines().count() == 1, "{output}");
        assert!(words.iter().all(|word| errors.contains(word)), "{output}");
    };
    expect(push(), &["wants credentials", &format!("mysup login {host}")]);
    sandbox.refused(&["login", "-u", USER, "-p", "wrong", host], 1, &["refuses the credentials", USER]);
    let file = sandbox.place("docker-config").join("config.json");
    assert!(!file.exists());
    let login = sandbox.call(&["login", "-u", USER, "--password-stdin", host]).input(format!("{PASSWORD}\n"));
    assert!(login.ok().starts_with("Login Succeeded"));
    let mode = |path: &Path| {
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).expect("it is there").permissions())
    };
    assert_eq!(mode(&file) & 0o777, 0o600);
    push().expect_code(0);
    sandbox.ok(&["rmi", &name]);
    sandbox.ok(&["pull", "-q", &name]);
    // What else is in the file stays there.
    let mut config: Value = serde_json::from_slice(&fs::read(&file).expect("it is there")).expect("JSON");
    config["HttpHeaders"] = json!({ "a": "b" });
    config["auths"]["other.example"] = json!({ "auth": "eDp5" });
    fs::write(&file, config.to_string()).expect("the sandbox is ours");
    assert_eq!(sandbox.ok(&["logout", host]), format!("Removing login credentials for {host}"));
    assert_eq!(sandbox.ok(&["logout", host]), format!("Not logged in to {host}"));
    let left: Value = serde_json::from_slice(&fs::read(&file).expect("it is there")).expect("JSON");
    assert_eq!(
        left,
        json!({ "HttpHeaders": { "a": "b" }, "auths": { "other.example": { "auth": "eDp5" } } })
    );
    expect(push(), &["wants credentials"]);
    // As docker and podman write them.
    config["auths"] = json!({ format!("http://{host}/v1/"): { "username": USER, "password": PASSWORD } });
    fs::write(&file, config.to_string()).expect("the sandbox is ours");
    push().expect_code(0);
    config["auths"] = json!({ host: { "username": USER, "password": "old" } });
    fs::write(&file, config.to_string()).expect("the sandbox is ours");
    expect(push(), &["refuses the credentials", USER]);
    helper_keeps(sandbox, &file, host);
    push().expect_code(0);
    sandbox.ok(&["logout", host]);
    expect(push(), &["wants credentials"]);
    sandbox.refused(&["login", host], 1, &["--password-stdin"]);
}

/// From here on `docker-credential-test` keeps what is kept: a script with a file.
fn helper_keeps(sandbox: &Sandbox, file: &Path, host: &str) {
    let programs = sandbox.new_directory("programs");
    let store = format!("{programs}/store");
    let script = format!(
        "#!/bin/sh\ncase $1 in store) cat > {store};; get) cat > /dev/null; cat {store} 2> /dev/null || \
         {{ echo credentials not found in native keychain; exit 1; }};; erase) rm {store};; esac\n"
    );
    let program = format!("{programs}/docker-credential-test");
    fs::write(&program, script).expect("the sandbox is ours");
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
    let path = std::env::var("PATH").unwrap_or_default();
    sandbox.set_variable("PATH", format!("{programs}:{path}"));
    fs::write(file, json!({ "credHelpers": { host: "test" } }).to_string()).expect("the sandbox is ours");
    let said = sandbox.ok(&["login", "-u", USER, "-p", PASSWORD, host]);
    assert!(said.contains("docker-credential-test"), "{said}");
    let kept: Value = serde_json::from_slice(&fs::read(&store).expect("it was kept")).expect("JSON");
    assert_eq!(kept, json!({ "ServerURL": host, "Username": USER, "Secret": PASSWORD }));
    let config = fs::read_to_string(file).expect("it is there");
    assert!(!config.contains(PASSWORD) && !config.contains("\"auth\""), "{config}");
}

fn certificate_of_a_stranger_is_not_believed(sandbox: &Sandbox) {
    let registry = Registry::start(sandbox, Door::Certificate);
    let name = format!("{}/secure:1", registry.host);
    load(sandbox, &Specimen::new("secure"), &name);
    let output = sandbox.mysup(&["push", &name]);
    assert!(output.code == 1 && output.errors().contains("certificate"), "{output}");
    let place = registry.authorities();
    let own = text(&place.join(&registry.host));
    sandbox.ok(&["push", "-q", "--cert-dir", &own, &name]);
    sandbox.ok(&["pull", "-q", "--tls-verify=false", &name]);
    sandbox.refused(&["pull", "-q", &name], 1, &["certificate"]);
    sandbox.refused(&["pull", "-q", "--cert-dir", "/no/such", &name], 1, &["/no/such"]);
    sandbox.set_variable("MYSUP_CERTS_DIR", text(&place));
    sandbox.ok(&["rmi", &name]);
    assert_eq!(sandbox.ok(&["run", "--rm", &name]), "secure\ntester\n/data");
}

fn digest_is_a_name_that_nobody_can_change(sandbox: &Sandbox) {
    let registry = Registry::start(sandbox, Door::Open);
    let name = format!("{}/pinned:1", registry.host);
    load(sandbox, &Specimen::new("first"), &name);
    let first = digest_of(&sandbox.ok(&["push", &name]));
    sandbox.ok(&["rmi", &name]);
    load(sandbox, &Specimen::new("second"), &name);
    sandbox.ok(&["push", "-q", &name]);
    sandbox.ok(&["rmi", &name]);
    let pinned = format!("{}/pinned@{first}", registry.host);
    assert_eq!(sandbox.ok(&["run", "--rm", &pinned]), "first\ntester\n/data");
    assert_eq!(sandbox.ok(&["run", "--rm", &name]), "second\ntester\n/data");
    assert_eq!(sandbox.ok(&["pull", "-q", &format!("{}/pinned:1@{first}", registry.host)]), pinned);
    let shown = sandbox.ok(&["images", "--format", "{{.Repository}} {{.Tag}}", "-f", "dangling=false"]);
    let repository = format!("{}/pinned", registry.host);
    let mut lines: Vec<&str> = shown.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, [format!("{repository} 1"), format!("{repository} <none>")]);
    // It is no dangling image: it has a name.
    assert!(sandbox.ok(&["image", "prune", "-f"]).ends_with("0B"));
    assert_eq!(
        sandbox.ok(&["image", "inspect", "-f", "{{.RepoTags}} {{.RepoDigests}}", &pinned]),
        format!("[] [{pinned}]")
    );
    // Nobody may give such a name to something else, nor does an archive.
    sandbox.refused(&["tag", &name, &pinned], 1, &["invalid"]);
    sandbox.refused(&["pull", &format!("{repository}@sha256:{}", "0".repeat(64))], 1, &["has no image"]);
    sandbox.refused(&["pull", &format!("{repository}@sha256:0")], 1, &["invalid"]);
    sandbox.ok(&["rmi", &pinned]);
    sandbox.refused(&["run", "--pull", "never", &pinned], 125, &["no such image"]);
}

/// Images of several platforms, whose configurations differ.
fn index_gives_the_image_for_the_machine(sandbox: &Sandbox) {
    let registry = Registry::start(sandbox, Door::Open);
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut manifests = Vec::new();
    let mut ids = Vec::new();
    for (architecture, variant) in [("s390x", ""), ("amd64", ""), ("arm", "v6"), ("arm", "v7")] {
        let mut specimen = Specimen::new(&format!("{architecture}{variant}"));
        specimen.config["architecture"] = json!(architecture);
        if !variant.is_empty() {
            specimen.config["variant"] = json!(variant);
        }
        ids.push(specimen.id());
        let own = specimen.oci_files(None, Packed::Gzip);
        let (_, index) = own.last().expect("the index");
        let index: Value = serde_json::from_slice(index).expect("JSON");
        let mut manifest = index["manifests"][0].clone();
        manifest["platform"] = json!({ "os": "linux", "architecture": architecture, "variant": variant });
        manifests.push(manifest);
        files.extend(own.into_iter().filter(|(name, _)| name != "index.json" && name != "oci-layout"));
    }
    let kind = "application/vnd.oci.image.index.v1+json";
    let inner = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": manifests });
    let mut inner = bundle::put(&mut files, kind, inner.to_string().into_bytes());
    inner["annotations"] = json!({ "org.opencontainers.image.ref.name": "all" });
    let digest = inner["digest"].as_str().expect("a digest").to_owned();
    let top = json!({ "schemaVersion": 2, "manifests": [inner] });
    files.push(("index.json".to_owned(), top.to_string().into_bytes()));
    files.push(("oci-layout".to_owned(), b"{\"imageLayoutVersion\":\"1.0.0\"}".to_vec()));
    let layout = sandbox.place("layout");
    bundle::directory(&files, &layout);
    let name = format!("{}/many:all", registry.host);
    let from = format!("oci:{}:all", layout.display());
    tool("skopeo", &["copy", "-q", "--all", "--dest-tls-verify=false", &from, &format!("docker://{name}")]);
    let pulled = |arguments: &[&str]| {
        let said = sandbox.ok(&[&["pull"], arguments, &[name.as_str()]].concat());
        assert!(said.contains(&format!("Digest: {digest}")), "{said}");
        sandbox.ok(&["image", "inspect", "-f", "{{.Id}}", &name])
    };
    assert_eq!(pulled(&[]), ids[1]);
    assert_eq!(sandbox.ok(&["run", "--rm", &name]), "amd64\ntester\n/data");
    assert_eq!(pulled(&["--platform", "linux/s390x"]), ids[0]);
    assert_eq!(pulled(&["--platform", "linux/arm"]), ids[2]);
    assert_eq!(pulled(&["--platform", "linux/arm/v7"]), ids[3]);
    let words = ["linux/riscv64", "linux/s390x, linux/amd64, linux/arm/v6, linux/arm/v7"];
    sandbox.refused(&["pull", "--platform", "linux/riscv64", &name], 1, &words);
    sandbox.refused(&["pull", "--platform", "plan9/amd64", &name], 1, &["plan9/amd64", "linux/ARCH"]);
    // One image that says for what it is.
    let pinned = format!("{}/many@{}", registry.host, manifests[0]["digest"].as_str().expect("a digest"));
    sandbox.refused(&["pull", "--platform", "linux/amd64", &pinned], 1, &["linux/amd64", "linux/s390x"]);
}

fn cut_connection_goes_on_where_it_was(sandbox: &Sandbox) {
    let registry = Registry::start(sandbox, Door::Open);
    let wire = Wire::to(&registry);
    let specimen = large("cut");
    let name = format!("{}/cut:1", wire.host());
    load(sandbox, &specimen, &name);
    sandbox.ok(&["push", "-q", &name]);
    sandbox.ok(&["rmi", &name]);
    let before = wire.served();
    wire.cut_after(&[2_000_000, 2_000_000]);
    let said = sandbox.ok(&["pull", &name]);
    assert!(said.contains(": Resuming"), "{said}");
    let ranges: Vec<String> = wire.lines().into_iter().filter(|line| line.starts_with("range:")).collect();
    assert!(ranges.len() == 2 && ranges.iter().all(|range| range != "range: bytes=0-"), "{ranges:?}");
    let served = wire.served() - before;
    // 6.4 MB of noise and a few small layers: what was there before the cut did not come again.
    assert!((6_400_000..7_600_000).contains(&served), "{served} bytes were served");
    assert_eq!(sandbox.ok(&["images", "-q", "--no-trunc"]), specimen.id());
    assert!(sandbox.ok(&["image", "verify"]).ends_with("whole"));
    // A line that breaks each time before anything came is given up.
    sandbox.ok(&["rmi", &name]);
    wire.cut_after(&[0; 40]);
    let output = sandbox.mysup(&["pull", "-q", &name]).expect_refusal(1, &[&wire.host()]);
    assert!(wire.fetched() < 30, "{output}");
    expect_nothing(sandbox);
}

fn interrupted_pull_leaves_nothing_and_holds_nobody(sandbox: &Sandbox) {
    let registry = Registry::start(sandbox, Door::Open);
    let wire = Wire::to(&registry);
    let name = format!("{}/held:1", wire.host());
    load(sandbox, &large("held"), &name);
    sandbox.ok(&["push", "-q", &name]);
    sandbox.ok(&["rmi", &name]);
    sandbox.ok(&["images"]);
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        wire.hold(true);
        let before = wire.fetched();
        let client = sandbox.call(&["pull", &name]).start();
        wait_until("it fetches a blob", || wire.fetched() > before);
        // Others are served meanwhile.
        sandbox.ok(&["images"]);
        client.signal(signal);
        assert_ne!(client.wait().code, 0);
        wire.hold(false);
        expect_nothing(sandbox);
    }
    sandbox.ok(&["pull", "-q", &name]);
    assert!(sandbox.ok(&["image", "verify"]).ends_with("whole"));
}

fn pull_outlives_its_supervisor(sandbox: &Sandbox) {
    let registry = Registry::start(sandbox, Door::Open);
    let wire = Wire::to(&registry);
    let name = format!("{}/outlives:1", wire.host());
    load(sandbox, &large("outlives"), &name);
    sandbox.ok(&["push", "-q", &name]);
    sandbox.ok(&["rmi", &name]);
    wire.hold(true);
    let mut client = sandbox.call(&["pull", &name]).start();
    wait_until("it fetches a blob", || wire.fetched() > 0);
    sandbox.kill_supervisor();
    wire.hold(false);
    client.wait_for("Download complete");
    let output = client.wait();
    // It was killed while the first request waited for the layers' list, or later.
    output.expect_code(0);
    assert!(sandbox.ok(&["image", "verify"]).ends_with("whole"));
    // And while it unpacks: as often as it takes.
    for _ in 0..3 {
        sandbox.ok(&["rmi", &name]);
        let mut client = sandbox.call(&["pull", &name]).start();
        client.wait_for("Download complete");
        sandbox.kill_supervisor();
        client.wait().expect_code(0);
        assert!(sandbox.ok(&["image", "verify"]).ends_with("whole"));
    }
}

fn layer_that_goes_meanwhile_is_fetched_after_all(sandbox: &Sandbox) {
    let registry = Registry::start(sandbox, Door::Open);
    let wire = Wire::to(&registry);
    let (lower, upper) = (Specimen::new("meanwhile"), large("meanwhile"));
    let name = format!("{}/meanwhile:1", wire.host());
    load(sandbox, &upper, &name);
    sandbox.ok(&["push", "-q", &name]);
    sandbox.ok(&["rmi", &name]);
    load(sandbox, &lower, NAME);
    // What is fetched first is the configuration; it says which layers there are.
    let before = wire.fetched();
    wire.let_through(1);
    let client = sandbox.call(&["pull", &name]).start();
    wait_until("it fetches the layer that is missing", || wire.fetched() > before + 1);
    sandbox.ok(&["rmi", NAME]);
    wire.hold(false);
    client.wait().expect_code(0);
    // The configuration and one layer; then the configuration and all four.
    assert_eq!(wire.fetched() - before, 7, "{:?}", wire.lines());
    assert_eq!(sandbox.ok(&["images", "-q", "--no-trunc"]), upper.id());
    assert!(sandbox.ok(&["image", "verify"]).ends_with("whole"));
}

fn several_pulls_of_one_image_share_it(sandbox: &Sandbox) {
    let registry = Registry::start(sandbox, Door::Open);
    let name = format!("{}/shared:1", registry.host);
    load(sandbox, &large("several"), &name);
    sandbox.ok(&["push", "-q", &name]);
    sandbox.ok(&["rmi", &name]);
    let clients: Vec<_> = (0..4).map(|_| sandbox.call(&["run", "--rm", &name]).start()).collect();
    for client in clients {
        assert_eq!(client.wait().expect_code(0).text(), "several\ntester\n/data");
    }
    let layers = fs::read_dir(sandbox.root().join("layers")).map_or(0, Iterator::count);
    assert_eq!(layers, 4);
}

fn terminal_has_bars_and_quiet_has_none(sandbox: &Sandbox) {
    let registry = Registry::start(sandbox, Door::Open);
    let name = format!("{}/bars:1", registry.host);
    load(sandbox, &large("bars"), NAME);
    sandbox.ok(&["tag", NAME, &name]);
    let on_terminal = |arguments: &[&str], words: &[&str]| {
        let mut terminal = Terminal::run(sandbox, arguments, 30, 100);
        // What was printed last comes last.
        words.iter().for_each(|word| terminal.wait_for(word));
        assert_eq!(terminal.wait(), Some(0), "{}", terminal.screen());
        terminal.screen()
    };
    on_terminal(&["push", &name], &["6.10 MiB", "Pushed", "1: digest: "]);
    sandbox.ok(&["rmi", &name, NAME]);
    on_terminal(&["pull", &name], &["Download complete", "Unpacked", "Status: "]);
    let archive = text(&sandbox.place("saved.tar"));
    on_terminal(&["save", "-o", &archive, &name], &["Written"]);
    sandbox.ok(&["rmi", &name]);
    on_terminal(&["load", "-i", &archive], &["Unpacked", "Loaded image: "]);
    sandbox.ok(&["rmi", &name]);
    assert_eq!(on_terminal(&["load", "-q", "-i", &archive], &[]), "");
    assert_eq!(on_terminal(&["pull", "-q", &name], &[&name]).trim(), name);
}
