//! Registries that lie, are silent, or are somebody else; and what they ask for: tokens, redirects.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{
    Case, Sandbox,
    bundle::{Packed, Specimen},
    processes,
    registry::{Answer, Asked, Door, Fake, PASSWORD, Registry, USER, answer_from},
    skip,
    terminal::Terminal,
    tree, wait_until,
};
use crate::registries::{expect_nothing, load};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        corrupt_blob_is_refused_and_nothing_stays,
        liar_is_refused_in_one_line,
        silent_registry_holds_nobody,
        end_of_the_program_that_speaks_is_said,
        token_is_fetched_and_goes_nowhere_else,
        plain_http_is_for_this_machine_only,
        broken_upload_is_said_in_one_line,
        password_is_typed_without_being_shown,
    ]
}

fn corrupt_blob_is_refused_and_nothing_stays(sandbox: &Sandbox) {
    let registry = Registry::start(sandbox, Door::Open);
    let name = format!("{}/corrupt:1", registry.host);
    load(sandbox, &Specimen::new("corrupt"), &name);
    let said = sandbox.ok(&["push", &name]);
    let digest = said.split_whitespace().find(|word| word.starts_with("sha256:")).expect("a digest");
    let manifest: Value =
        serde_json::from_slice(&fs::read(registry.blob(digest)).expect("it is there")).expect("JSON");
    sandbox.ok(&["rmi", &name]);
    let blobs = manifest["layers"].as_array().expect("a list").iter().chain([&manifest["config"]]);
    for blob in blobs {
        let digest = blob["digest"].as_str().expect("a digest");
        let path = registry.blob(digest);
        let file = fs::File::options().read(true).write(true).open(&path).expect("it is there");
        let mut byte = [0];
        file.read_exact_at(&mut byte, 20).expect("it is longer");
        file.write_all_at(&[byte[0] ^ 1], 20).expect("the sandbox is ours");
        let output = sandbox.mysup(&["pull", "-q", &name]);
        output.expect_refusal(1, &[digest, "has the digest", "refused"]);
        expect_nothing(sandbox);
        file.write_all_at(&byte, 20).expect("the sandbox is ours");
    }
    sandbox.ok(&["pull", "-q", &name]);
}

fn liar_is_refused_in_one_line(sandbox: &Sandbox) {
    sandbox.ok(&["info"]);
    let specimen = Specimen::new("lies");
    let files = specimen.oci_files(None, Packed::Gzip);
    let index: Value = serde_json::from_slice(&files.last().expect("the index").1).expect("JSON");
    let digest = index["manifests"][0]["digest"].as_str().expect("a digest").to_owned();
    let is_manifest = |asked: &Asked| asked.line.contains("/manifests/");
    let manifest = |change: fn(&mut Value)| {
        let files = files.clone();
        let original = files.iter().find(|(name, _)| name.ends_with(&digest["sha256:".len()..]));
        let mut document: Value = serde_json::from_slice(&original.expect("it is there").1).expect("JSON");
        change(&mut document);
        Fake::start(move |asked| match is_manifest(asked) {
            true => Answer::ok(document.to_string().into_bytes()),
            false => answer_from(&files, asked),
        })
    };
    let blob = |change: fn(&mut Vec<u8>)| {
        let files = files.clone();
        Fake::start(move |asked| {
            let mut answer = answer_from(&files, asked);
            if asked.line.contains("/blobs/") && answer.status == 200 && answer.body.len() > 2000 {
                change(&mut answer.body);
            }
            answer
        })
    };
    let text = |status: u16, body: &'static str| {
        Fake::start(move |_| Answer { status, ..Answer::ok(body.as_bytes().to_vec()) })
    };
    let lies: [(&str, Fake, &[&str]); 14] = [
        (
            "another kind",
            manifest(|document| document["config"]["mediaType"] = json!("application/x")),
            &["no image"],
        ),
        ("both kinds", manifest(|document| document["manifests"] = json!([])), &["at once"]),
        ("schema 1", manifest(|document| document["schemaVersion"] = json!(1)), &["schema 1"]),
        ("longer", manifest(|document| document["layers"][0]["size"] = json!(1_u64 << 41)), &["longer"]),
        (
            "a layer less",
            manifest(|document| drop(document["layers"].as_array_mut().expect("a list").pop())),
            &["layers"],
        ),
        (
            "another size",
            manifest(|document| document["layers"][0]["size"] = json!(3)),
            &["longer than the 3 bytes"],
        ),
        ("no digest", manifest(|document| document["layers"][0]["digest"] = json!("../../etc")), &["digest"]),
        ("more bytes", blob(|bytes| bytes.extend([0; 10])), &["longer"]),
        ("other bytes", blob(|bytes| bytes[1000] ^= 1), &["has the digest"]),
        ("no JSON", text(200, "<html>"), &["expected value"]),
        ("forbidden", text(403, "no\n\u{1b}[2J way"), &["403", "no [2J way"]),
        ("broken", text(500, "x"), &["500"]),
        ("too many", text(429, "x"), &["429"]),
        ("nothing", text(404, "{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\"}]}"), &["has no image"]),
    ];
    for (lie, fake, words) in lies {
        let output = sandbox.mysup(&["pull", "-q", &format!("{}/a:1", fake.host())]);
        let errors = output.errors();
        assert!(output.code == 1 && errors.lines().count() == 1, "{lie}\n{output}");
        assert!(words.iter().all(|word| errors.contains(word)), "{lie}: {words:?}\n{output}");
        assert!(!errors.contains('\u{1b}'), "{lie}\n{output}");
        expect_nothing(sandbox);
    }
    // A registry that has another manifest for a digest.
    let other = manifest(|document| document["annotations"] = json!({ "a": "b" }));
    let pinned = format!("{}/a@{digest}", other.host());
    sandbox.refused(&["pull", "-q", &pinned], 1, &["digest"]);
    expect_nothing(sandbox);
    let honest = Fake::start(move |asked| answer_from(&files, asked));
    sandbox.ok(&["pull", "-q", &format!("{}/a@{digest}", honest.host())]);
    assert_eq!(sandbox.ok(&["images", "-q", "--no-trunc"]), specimen.id());
}

fn silent_registry_holds_nobody(sandbox: &Sandbox) {
    sandbox.ok(&["info"]);
    // Connections are taken by the kernel, and nobody ever says a word.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let name = format!("{}/a:1", silent.local_addr().expect("it listens"));
    let begun = Instant::now();
    let output = sandbox.call(&["pull", &name]).env("MYSUP_REGISTRY_TIMEOUT", "1").run();
    output.expect_refusal(1, &["does not answer"]);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let mut clients: Vec<_> = (0..8).map(|_| sandbox.call(&["run", "--rm", &name]).start()).collect();
    assert!(clients.iter_mut().all(|client| client.is_running()), "they wait for the registry");
    assert_eq!(sandbox.ok(&["run", "--rm", sandbox.image(), "echo", "served"]), "served");
    for mut client in clients {
        // A slow host may have let it give up meanwhile.
        if client.is_running() {
            client.signal(Signal::INT);
        }
        assert_ne!(client.wait().code, 0);
    }
    // One that stops in the middle of a blob.
    let specimen = Specimen::new("stops");
    let files = specimen.oci_files(None, Packed::Gzip);
    let stops = Fake::start(move |asked| {
        if asked.line.contains("/blobs/") {
            std::thread::sleep(Duration::from_secs(3));
        }
        answer_from(&files, asked)
    });
    let pull = sandbox.call(&["pull", &format!("{}/a:1", stops.host())]).env("MYSUP_REGISTRY_TIMEOUT", "1");
    let output = pull.run();
    assert!(output.code == 1 && output.errors().contains("does not answer"), "{output}");
    wait_until("nothing of it is left", || sandbox.ok(&["images", "-q"]).lines().count() == 1);
}

fn end_of_the_program_that_speaks_is_said(sandbox: &Sandbox) {
    sandbox.ok(&["info"]);
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let name = format!("{}/a:1", silent.local_addr().expect("it listens"));
    let client = sandbox.call(&["pull", &name]).start();
    let mut speaker = None;
    wait_until("the client has started it", || {
        let mut children = processes::children(client.pid()).into_iter();
        speaker = children.find(|(_, stat)| stat.program == "mysup-registry").map(|(pid, _)| pid);
        speaker.is_some()
    });
    // It has got its order.
    let _connection = silent.accept().expect("it connects");
    processes::signal(speaker.expect("just found"), Signal::KILL);
    client.wait().expect_refusal(1, &["mysup-registry ended"]);
    expect_nothing(sandbox);
}

/// Bearer tokens, and blobs that lie elsewhere: what a large registry asks for.
fn token_is_fetched_and_goes_nowhere_else(sandbox: &Sandbox) {
    let specimen = Specimen::new("token");
    let files = Arc::new(specimen.oci_files(None, Packed::Gzip));
    let elsewhere = Fake::start({
        let files = Arc::clone(&files);
        move |asked| answer_from(&files, asked)
    });
    let own = Arc::new(AtomicU16::new(0));
    let (port, other) = (Arc::clone(&own), elsewhere.host());
    let registry = Fake::start(move |asked| {
        let host = format!("127.0.0.1:{}", port.load(Ordering::SeqCst));
        if asked.line.starts_with("GET /token?") {
            let basic = format!("Basic {}", base64(&format!("{USER}:{PASSWORD}")));
            return match asked.header("authorization") {
                "" if asked.line.contains("open") => Answer::ok(b"{\"token\":\"for-all\"}".to_vec()),
                right if right == basic => Answer::ok(b"{\"access_token\":\"t0ken\"}".to_vec()),
                _ => Answer::status(401),
            };
        }
        let open = asked.line.contains("/open/") && asked.header("authorization") == "Bearer for-all";
        if !open && asked.header("authorization") != "Bearer t0ken" {
            let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"tests\"");
            return Answer::status(401).with("WWW-Authenticate", challenge);
        }
        match asked.line.split_once("/blobs/") {
            Some((_, digest)) => {
                Answer::status(307).with("Location", format!("http://{other}/v2/x/blobs/{digest}"))
            }
            None => answer_from(&files, asked),
        }
    });
    own.store(registry.port(), Ordering::SeqCst);
    let host = registry.host();
    sandbox.refused(&["pull", "-q", &format!("{host}/mine:1")], 1, &["wants credentials"]);
    sandbox.ok(&["pull", "-q", &format!("{host}/open/image:1")]);
    sandbox.ok(&["rmi", &specimen.id()]);
    sandbox.refused(&["login", "-u", USER, "-p", "wrong", &host], 1, &["refuses the credentials"]);
    sandbox.ok(&["login", "-u", USER, "-p", PASSWORD, &host]);
    sandbox.ok(&["pull", "-q", &format!("{host}/mine:1")]);
    assert_eq!(sandbox.ok(&["images", "-q", "--no-trunc"]), specimen.id());
    let told: Vec<String> =
        elsewhere.asked().iter().map(|asked| asked.header("authorization").to_owned()).collect();
    assert!(told.len() >= 8 && told.iter().all(String::is_empty), "{told:?}");
    let scopes =
        registry.asked().into_iter().filter(|asked| asked.line.contains("scope=repository%3Amine%3Apull"));
    assert!(scopes.count() >= 1, "{:?}", registry.asked());
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut coded = String::new();
    for three in text.as_bytes().chunks(3) {
        let number =
            three.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte)) << (8 * (3 - three.len()));
        for at in 0..4 {
            let digit = DIGITS[number >> (18 - 6 * at) & 63];
            coded.push(if at <= three.len() { char::from(digit) } else { '=' });
        }
    }
    coded
}

fn plain_http_is_for_this_machine_only(sandbox: &Sandbox) {
    // An address of this machine that is not loopback; nothing is sent to find it.
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
    let address = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
    let Ok(address) = address else { skip("this machine has no address but loopback") };
    let files = Specimen::new("plain").oci_files(None, Packed::Gzip);
    let fake = Fake::at("0.0.0.0:0", move |asked| answer_from(&files, asked));
    let host = format!("{}:{}", address.ip(), fake.port());
    let name = format!("{host}/a:1");
    let pull = |flags: &[&str]| {
        let arguments = [&["pull", "-q"], flags, &[name.as_str()]].concat();
        sandbox.call(&arguments).without_env("HTTPS_PROXY")
    };
    pull(&[]).run().expect_refusal(1, &[&host]);
    let asked: Vec<String> = fake.asked().into_iter().map(|asked| asked.line).collect();
    assert!(asked.iter().all(|line| !line.starts_with("GET")), "nothing was asked in the clear: {asked:?}");
    for flags in [&[][..], &["--tls-verify=false"]] {
        let bare = pull(flags).env("SSL_CERT_FILE", "/nonexistent").env("SSL_CERT_DIR", "/nonexistent");
        bare.run().expect_refusal(1, &["ca-certificates"]);
    }
    pull(&["--tls-verify=false"]).ok();
    pull(&[]).env("MYSUP_INSECURE_REGISTRIES", format!("x.example, {host}")).ok();
}

fn password_is_typed_without_being_shown(sandbox: &Sandbox) {
    let registry = Registry::start(sandbox, Door::Password);
    let mut terminal = Terminal::run(sandbox, &["login", &registry.host], 24, 80);
    terminal.wait_for("Username: ");
    terminal.type_keys(&format!("{USER}\n"));
    terminal.wait_for("Password: ");
    terminal.type_keys(&format!("{PASSWORD}\n"));
    terminal.wait_for("Login Succeeded");
    assert_eq!(terminal.wait(), Some(0));
    assert!(!terminal.screen().contains(PASSWORD), "{}", terminal.screen());
    terminal.expect_restored();
    let mut terminal = Terminal::run(sandbox, &["login", "-u", USER, &registry.host], 24, 80);
    terminal.wait_for("Password: ");
    terminal.type_keys("half\u{3}");
    assert_eq!(terminal.wait(), Some(1), "{}", terminal.screen());
    terminal.expect_restored();
}

fn broken_upload_is_said_in_one_line(sandbox: &Sandbox) {
    let specimen = Specimen::new("upload");
    let stubborn: [(&str, u16, &str); 3] = [
        ("denied", 403, "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"not yours\"}]}"),
        ("full", 507, "no space"),
        ("read only", 405, "{\"errors\":[{\"code\":\"UNSUPPORTED\",\"message\":\"read only\"}]}"),
    ];
    for (what, status, body) in stubborn {
        let fake = Fake::start(move |asked| match asked.line.split(' ').next() {
            Some("HEAD") => Answer::status(404),
            Some("GET") => Answer::ok(Vec::new()),
            _ => Answer { status, ..Answer::ok(body.as_bytes().to_vec()) },
        });
        let name = format!("{}/a:1", fake.host());
        load(sandbox, &specimen, &name);
        let output = sandbox.mysup(&["push", &name]);
        let errors = output.errors();
        assert!(output.code == 1 && errors.lines().count() == 1, "{what}\n{output}");
        assert!(errors.contains(&fake.host()), "{what}\n{output}");
        assert!(
            status == 507 || errors.contains("not yours") || errors.contains("read only"),
            "{what}\n{output}"
        );
    }
    let left = tree::paths(&sandbox.root(), &[]).into_iter().filter(|path| path.contains("spool"));
    assert_eq!(left.count(), 0);
}
