//! A server under test: the real binary with a configuration of its own in a folder of its own.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::client;
use crate::random::Random;

/// How long a start may take. A debug build on a busy machine is slow.
const START: Duration = Duration::from_secs(30);
/// How long a command other than `serve` may take.
const COMMAND: Duration = Duration::from_mins(2);

/// What goes into the configuration: sections with their lines.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings(BTreeMap<&'static str, BTreeMap<&'static str, String>>);

impl Settings {
    /// A folder as the store.
    pub(crate) fn folder() -> Self {
        Self::default()
            .with("store", "kind", r#""fs""#)
            .with("store.fs", "path", r#""data""#)
    }

    /// The S3 server that `scripts/test` starts, under a prefix of this test's own.
    pub(crate) fn s3() -> Self {
        let prefix = format!("e2e-{:016x}/", Random::new().number());
        Self::bucket(
            &variable("ENDPOINT"),
            &variable("REGION"),
            &variable("BUCKET"),
            &variable("ACCESS_KEY_ID"),
            &variable("SECRET_ACCESS_KEY"),
        )
        .with("store.s3", "prefix", &quoted(&prefix))
    }

    /// A bucket as the store.
    pub(crate) fn bucket(
        endpoint: &str,
        region: &str,
        bucket: &str,
        access_key_id: &str,
        secret_access_key: &str,
    ) -> Self {
        Self::default()
            .with("store", "kind", r#""s3""#)
            .with("store.s3", "endpoint", &quoted(endpoint))
            .with("store.s3", "region", &quoted(region))
            .with("store.s3", "bucket", &quoted(bucket))
            .with("store.s3", "access_key_id", &quoted(access_key_id))
            .with("store.s3", "secret_access_key", &quoted(secret_access_key))
            .with("store.s3", "force_path_style", "true")
    }

    /// Sets a key to a value in TOML.
    pub(crate) fn with(mut self, section: &'static str, key: &'static str, value: &str) -> Self {
        self.0
            .entry(section)
            .or_default()
            .insert(key, value.to_owned());
        self
    }

    fn toml(&self) -> String {
        let mut text = String::new();
        for (section, keys) in &self.0 {
            text.extend(["[", section, "]\n"]);
            for (key, value) in keys {
                text.extend([key, " = ", value, "\n"]);
            }
        }
        text
    }
}

/// A text in TOML.
pub(crate) fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn variable(name: &str) -> String {
    let name = format!("JUMAR_TEST_S3_{name}");
    std::env::var(&name).unwrap_or_else(|_| {
        panic!("{name} is not set: run scripts/test, which starts an S3 server for the tests (or `scripts/dev-s3 start --env FILE` and export what is in FILE)")
    })
}

/// How many rounds a kill test goes through.
pub(crate) fn rounds() -> u64 {
    match std::env::var("JUMAR_E2E_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("JUMAR_E2E_ROUNDS is a number"),
        Err(_) => 10,
    }
}

/// A folder with a configuration, and the server that runs on it, if it runs.
pub(crate) struct Server {
    folder: TempDir,
    settings: Settings,
    child: Option<Child>,
    pub(crate) main: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Server {
    /// A folder with a configuration; nothing runs.
    pub(crate) fn prepare(settings: Settings) -> Self {
        let (main, admin) = (free_port(), free_port());
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut server = Self {
            folder: tempfile::tempdir().expect("a folder for the test"),
            settings,
            child: None,
            main: at(main),
            admin: at(admin),
        };
        server.configure(|settings| settings);
        server
    }

    /// A running server on an empty folder.
    pub(crate) async fn start(settings: Settings) -> Self {
        let mut server = Self::prepare(settings);
        server.launch().await;
        server
    }

    /// Changes the configuration for the next start.
    pub(crate) fn configure(&mut self, change: impl FnOnce(Settings) -> Settings) {
        self.settings = change(std::mem::take(&mut self.settings));
        let written = self
            .settings
            .clone()
            .with("server", "listen", &quoted(&self.main.to_string()))
            .with("server", "admin_listen", &quoted(&self.admin.to_string()))
            .with("catalog", "url", r#""sqlite:data/jumar.db""#)
            .with("spool", "path", r#""data/spool""#)
            .with(
                "spool",
                "min_free_bytes",
                self.settings
                    .0
                    .get("spool")
                    .and_then(|spool| spool.get("min_free_bytes"))
                    .map_or("16777216", String::as_str),
            );
        fs::write(self.config(), written.toml()).expect("the configuration can be written");
    }

    /// Starts the server and waits until it is ready.
    pub(crate) async fn launch(&mut self) {
        self.spawn();
        self.ready().await;
    }

    /// Starts the server with a socket passed to it, as systemd does it, and waits for nothing.
    pub(crate) fn activate(&mut self, socket: OwnedFd) {
        // The shell is given the socket as its input, and becomes the server.
        let mut shell = self.process("sh");
        shell
            .arg("-c")
            .arg(r#"exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$0" serve --config "$1""#)
            .arg(env!("CARGO_BIN_EXE_jumar"))
            .arg(self.config())
            .stdin(socket)
            .stdout(self.log_file())
            .stderr(self.log_file());
        self.child = Some(shell.spawn().expect("there is a shell"));
    }

    /// Waits until the server answers.
    pub(crate) async fn ready(&mut self) {
        let deadline = Instant::now() + START;
        loop {
            let child = self.child.as_mut().expect("was just spawned");
            if let Some(status) = child.try_wait().expect("our own child") {
                panic!("the server ended with {status} instead of starting");
            }
            match client::try_call(self.main, "GET", "/readyz", &[], b"").await {
                Ok(answer) if answer.status == 200 => return,
                other => assert!(
                    Instant::now() < deadline,
                    "not ready after {START:?}: {other:?}"
                ),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts the server and waits for nothing.
    pub(crate) fn spawn(&mut self) {
        let server = self.command(&["serve"]);
        self.run_beside(server);
    }

    fn run_beside(&mut self, mut server: Command) {
        assert!(self.child.is_none(), "one at a time");
        let child = server
            .stdout(self.log_file())
            .stderr(self.log_file())
            .spawn()
            .expect("the binary can be started");
        self.child = Some(child);
    }

    /// Starts the server to die at its `failpoint`th failpoint, by a power cut or alone, and waits for nothing.
    #[cfg(feature = "failpoints")]
    pub(crate) fn spawn_to_die(&mut self, failpoint: u64, power_cut: bool) {
        let mut server = self.command(&["serve"]);
        server.env("JUMAR_FAILPOINT", failpoint.to_string());
        if power_cut {
            server.env("JUMAR_FAILPOINT_POWER_CUT", "1");
        }
        self.run_beside(server);
    }

    /// Waits until it has died at its failpoint; it can be started again then.
    #[cfg(feature = "failpoints")]
    pub(crate) async fn dies(&mut self) {
        use std::os::unix::process::ExitStatusExt as _;

        let child = self.child.as_mut().expect("it runs");
        let status = child.wait().await.expect("our own child");
        assert_eq!(
            status.signal(),
            Some(9),
            "it ended with {status}, not by its failpoint"
        );
        self.child = None;
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().await.expect("our own child");
    }

    /// Sends SIGTERM.
    pub(crate) async fn terminate(&self) {
        let pid = self
            .child
            .as_ref()
            .and_then(Child::id)
            .expect("it runs")
            .to_string();
        let status = Command::new("sh")
            .args(["-c", "kill -TERM \"$0\"", &pid])
            .status()
            .await
            .expect("there is a shell");
        assert!(status.success(), "kill -TERM {pid}");
    }

    /// Waits until it has ended by itself; its exit code.
    pub(crate) async fn exit(&mut self, within: Duration) -> Option<i32> {
        let mut child = self.child.take().expect("it runs");
        timeout(within, child.wait())
            .await
            .unwrap_or_else(|_| panic!("still running after {within:?}"))
            .expect("our own child")
            .code()
    }

    /// Runs another command of the binary on the same configuration.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        timeout(COMMAND, self.command(arguments).output())
            .await
            .unwrap_or_else(|_| panic!("{arguments:?} still runs after {COMMAND:?}"))
            .expect("the binary can be started")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder().join("config.toml")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.process(env!("CARGO_BIN_EXE_jumar"));
        command.args(arguments).arg("--config").arg(self.config());
        command
    }

    /// A process in our folder that sees no variables of ours and does not outlive the test.
    fn process(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("JUMAR_") {
                command.env_remove(name);
            }
        }
        command
            .current_dir(self.folder())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// What the server has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder().join("log")
    }

    fn log_file(&self) -> File {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("the log can be written")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.len().saturating_sub(60);
            eprintln!("the end of the server's log:\n{}", lines[tail..].join("\n"));
        }
    }
}

/// A port that nothing listens on, below those that outgoing connections get: while the server is down, a client that
/// tries again must not be given the server's own port.
fn free_port() -> u16 {
    let mut random = Random::new();
    for _ in 0..1_000 {
        let port = u16::try_from(random.within(20_000..32_000)).expect("a port");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 20000 and 32000");
}
