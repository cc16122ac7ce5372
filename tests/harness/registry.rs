//! Registries: Debian's own on loopback, one that is made up, and somebody in between who cuts the line.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use serde_json::Value;

use super::{PATIENCE, Sandbox, holds_within, skip};

/// User and password of a registry that wants some, with bcrypt's hash of it.
pub(crate) const USER: &str = "tester";
pub(crate) const PASSWORD: &str = "secret";
const HASH: &str = "$2b$04$.c8SoEO2htZBxdaMNAzxiu8SaogLvl.1JfDMjfZaPvBnok.NX0Yka";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a registry asks of who comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// Nothing, over plain HTTP.
    Open,
    /// A password, over plain HTTP.
    Password,
    /// To believe its certificate.
    Certificate,
}

/// Debian's docker-registry, with a directory and a port of its own.
pub(crate) struct Registry {
    child: Child,
    directory: PathBuf,
    /// `127.0.0.1:PORT`.
    pub(crate) host: String,
}

impl Registry {
    /// Starts one; where it is not installed that is a skip.
    pub(crate) fn start(sandbox: &Sandbox, door: Door) -> Registry {
        Registry::start_at(sandbox, door, "registry")
    }

    /// The same in another directory.
    pub(crate) fn start_at(sandbox: &Sandbox, door: Door, name: &str) -> Registry {
        let directory = sandbox.place(name);
        fs::create_dir_all(directory.join("storage")).expect("the sandbox is ours");
        let path = |name: &str| directory.join(name).display().to_string();
        let mut setting = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: 127.0.0.1:0\n",
            path("storage")
        );
        match door {
            Door::Open => {}
            Door::Password => {
                fs::write(path("users"), format!("{USER}:{HASH}\n")).expect("the sandbox is ours");
                let users = path("users");
                setting.push_str(&format!("auth: {{htpasswd: {{realm: tests, path: {users}}}}}\n"));
            }
            Door::Certificate => {
                certificates(&directory);
                let (own, key) = (path("own.pem"), path("own.key"));
                setting.push_str(&format!("  tls: {{certificate: {own}, key: {key}}}\n"));
            }
        }
        fs::write(path("setting.yml"), setting).expect("the sandbox is ours");
        let log = fs::File::create(path("log")).expect("the sandbox is ours");
        let mut command = Command::new("docker-registry");
        command.args(["serve", &path("setting.yml")]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let Ok(child) = command.spawn() else { skip("no docker-registry here") };
        let mut registry = Registry { child, directory: directory.clone(), host: String::new() };
        let came = holds_within(PATIENCE, || {
            let log = fs::read_to_string(path("log")).unwrap_or_default();
            let said = log.split_once("listening on ").map(|(_, rest)| rest);
            let address = said.and_then(|rest| rest.split(['"', ',']).next()).unwrap_or_default();
            registry.host = address.to_owned();
            TcpStream::connect(address).is_ok()
        });
        assert!(
            came,
            "docker-registry does not listen: {}",
            fs::read_to_string(path("log")).unwrap_or_default()
        );
        registry
    }

    /// The directory with the certificate of its authority, as `HOST:PORT/ca.crt`.
    pub(crate) fn authorities(&self) -> PathBuf {
        let place = self.directory.join("certs.d");
        fs::create_dir_all(place.join(&self.host)).expect("the sandbox is ours");
        fs::copy(self.directory.join("ca.pem"), place.join(&self.host).join("ca.crt")).expect("it is there");
        place
    }

    /// Where it keeps the bytes of a blob.
    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        let place = self.directory.join("storage/docker/registry/v2/blobs/sha256");
        place.join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It is ours, and may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An authority, and the certificate of a server at 127.0.0.1 that it vouches for.
fn certificates(directory: &Path) {
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        command.args(arguments.split(' ')).current_dir(directory).stdin(Stdio::null());
        let Ok(output) = command.output() else { skip("no openssl here") };
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=tests"));
    openssl(&format!("req {key} -keyout own.key -out own.csr -subj /CN=registry"));
    fs::write(directory.join("names"), "subjectAltName=IP:127.0.0.1\n").expect("the sandbox is ours");
    openssl(
        "x509 -req -in own.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out own.pem -days 2 -extfile names",
    );
}

/// A request that came in.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// `GET /v2/...`.
    pub(crate) line: String,
    /// All of its headers, in lower case but for their values.
    pub(crate) headers: Vec<(String, String)>,
}

impl Asked {
    /// A header, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

/// What a made-up registry says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// With a status alone.
    pub(crate) fn status(status: u16) -> Answer {
        Answer { status, ..Answer::default() }
    }

    /// 200.
    pub(crate) fn ok(body: Vec<u8>) -> Answer {
        Answer { status: 200, body, ..Answer::default() }
    }

    /// With one more header.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// A listener on loopback whose connections are served by threads, until it is dropped.
struct Listener {
    address: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Listener {
    fn start(at: &str, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Listener {
        let listener = TcpListener::bind(at).expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let over = Arc::new(AtomicBool::new(false));
        let (ends, serve) = (Arc::clone(&over), Arc::new(serve));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let serve = Arc::clone(&serve);
                thread::spawn(move || serve(stream));
            }
        });
        Listener { address, over }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // So that it looks.
        let _ = TcpStream::connect(("127.0.0.1", self.address.port()));
    }
}

/// A registry that is made up.
pub(crate) struct Fake {
    listener: Listener,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Fake {
    /// Answers each request so.
    pub(crate) fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Fake {
        Fake::at("127.0.0.1:0", answer)
    }

    /// The same at another address.
    pub(crate) fn at(at: &str, answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Fake {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&asked);
        let listener = Listener::start(at, move |stream| {
            // Who hangs up in the middle has got what he wanted.
            let _ = serve(&stream, &kept, &answer);
        });
        Fake { listener, asked }
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.listener.address.port()
    }

    /// All requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        lock(&self.asked).clone()
    }
}

fn serve(
    stream: &TcpStream,
    kept: &Mutex<Vec<Asked>>,
    answer: &(impl Fn(&Asked) -> Answer + ?Sized),
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut asked = Asked { line: line.trim().trim_end_matches(" HTTP/1.1").to_owned(), headers: Vec::new() };
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim().split_once(':') else { break };
        asked.headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    lock(kept).push(asked.clone());
    let Answer { status, headers, body } = answer(&asked);
    let mut head = format!("HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut writer = stream;
    writer.write_all(format!("{head}\r\n").as_bytes())?;
    if !asked.line.starts_with("HEAD") {
        writer.write_all(&body)?;
    }
    writer.flush()?;
    stream.shutdown(Shutdown::Write)?;
    // What is still under way to us must not turn into a reset.
    std::io::copy(&mut reader, &mut std::io::sink()).map(drop)
}

/// What a registry has that has the files of one OCI layout, by path; its manifest also by the tag 1.
pub(crate) fn answer_from(files: &[(String, Vec<u8>)], asked: &Asked) -> Answer {
    let path = asked.line.split(' ').nth(1).unwrap_or_default();
    let wanted = path.rsplit('/').next().unwrap_or_default();
    let index = files.iter().find(|(name, _)| name == "index.json").map(|(_, bytes)| bytes);
    let index: Value = serde_json::from_slice(index.expect("there is one")).expect("JSON");
    let top = &index["manifests"][0];
    if path == "/v2/" {
        return Answer::ok(Vec::new());
    }
    let digest = if wanted == "1" { top["digest"].as_str().unwrap_or_default() } else { wanted };
    let file = format!("blobs/sha256/{}", digest.trim_start_matches("sha256:"));
    match files.iter().find(|(name, _)| *name == file) {
        Some((_, bytes)) => Answer::ok(bytes.clone())
            .with("Content-Type", top["mediaType"].as_str().unwrap_or("application/octet-stream")),
        None => Answer::status(404),
    }
}

/// Somebody between a client and a registry, who counts, and cuts the line in the middle of a blob when he is told to.
pub(crate) struct Wire {
    listener: Listener,
    shared: Arc<Counted>,
}

#[derive(Default)]
struct Counted {
    lines: Mutex<Vec<String>>,
    /// Bytes from the registry to clients.
    served: AtomicU64,
    /// Bytes after which a connection is cut, once for each element.
    cuts: Mutex<Vec<u64>>,
    /// Lets no more bytes of blobs through, but for those of the first so many.
    holds: AtomicBool,
    free: AtomicU64,
}

impl Wire {
    /// To a registry.
    pub(crate) fn to(registry: &Registry) -> Wire {
        let shared = Arc::new(Counted::default());
        let (counted, host) = (Arc::clone(&shared), registry.host.clone());
        let listener = Listener::start("127.0.0.1:0", move |client| {
            let Ok(server) = TcpStream::connect(&host) else { return };
            connect(client, server, &counted);
        });
        Wire { listener, shared }
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.listener.address.port())
    }

    /// Cuts connections that fetch a blob after so many bytes, one after the other.
    pub(crate) fn cut_after(&self, bytes: &[u64]) {
        *lock(&self.shared.cuts) = bytes.iter().rev().copied().collect();
    }

    /// Whether bytes of blobs are kept back.
    pub(crate) fn hold(&self, holds: bool) {
        self.shared.holds.store(holds, Ordering::SeqCst);
    }

    /// Keeps back the bytes of all blobs but the next so many.
    pub(crate) fn let_through(&self, count: u64) {
        self.shared.free.store(count, Ordering::SeqCst);
        self.hold(true);
    }

    /// Bytes that clients got.
    pub(crate) fn served(&self) -> u64 {
        self.shared.served.load(Ordering::SeqCst)
    }

    /// First lines of all requests, and `Range` headers after them.
    pub(crate) fn lines(&self) -> Vec<String> {
        lock(&self.shared.lines).clone()
    }

    /// Requests for the bytes of blobs.
    pub(crate) fn fetched(&self) -> usize {
        self.lines().iter().filter(|line| is_fetch(line)).count()
    }
}

fn is_fetch(line: &str) -> bool {
    line.starts_with("GET ") && line.contains("/blobs/")
}

fn connect(client: TcpStream, server: TcpStream, counted: &Arc<Counted>) {
    let (Ok(mut from_client), Ok(mut to_server)) = (client.try_clone(), server.try_clone()) else { return };
    // The number of the blob's request that is being answered, 0 for others.
    let fetches = Arc::new(AtomicU64::new(0));
    let (told, fetching) = (Arc::clone(counted), Arc::clone(&fetches));
    thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        let mut number = 0;
        while let Ok(count @ 1..) = from_client.read(&mut buffer) {
            // Heads of requests come whole; what looks like one in a body is one more line.
            for line in String::from_utf8_lossy(&buffer[..count]).lines() {
                if line.ends_with(" HTTP/1.1") {
                    number += 1;
                    fetching.store(if is_fetch(line) { number } else { 0 }, Ordering::SeqCst);
                    lock(&told.lines).push(line.to_owned());
                } else if line.to_lowercase().starts_with("range:") {
                    lock(&told.lines).push(line.to_lowercase());
                }
            }
            if to_server.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let (mut from_server, mut to_client) = (server, client);
    let mut buffer = [0; 16 << 10];
    let (mut of_blob, mut is_free, mut last) = (0, false, 0);
    while let Ok(count @ 1..) = from_server.read(&mut buffer) {
        let fetch = fetches.load(Ordering::SeqCst);
        if fetch != 0 {
            if fetch != last {
                let take = |free: u64| free.checked_sub(1);
                let taken = counted.free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
                (last, of_blob, is_free) = (fetch, 0, taken.is_ok());
            }
            while counted.holds.load(Ordering::SeqCst) && !is_free {
                thread::sleep(std::time::Duration::from_millis(5));
            }
            of_blob += count as u64;
            let mut cuts = lock(&counted.cuts);
            if cuts.last().is_some_and(|limit| of_blob > *limit) {
                cuts.pop();
                break;
            }
        }
        if to_client.write_all(&buffer[..count]).is_err() {
            break;
        }
        counted.served.fetch_add(count as u64, Ordering::SeqCst);
    }
    let _ = to_client.shutdown(Shutdown::Both);
    let _ = from_server.shutdown(Shutdown::Both);
}
