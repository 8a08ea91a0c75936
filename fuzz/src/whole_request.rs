//! Any bytes on a connection to a whole server, in place of a request.
//!
//! `{id}`, `{key}` and `{handle}` in them stand for those of an upload of the fuzzer's own. Whatever comes: the server answers
//! each with something that is no fault of its own or closes the connection, and what others uploaded is as it was. Of an
//! answer in HTTP/2, only that is looked at.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use jumar::app::App;
use jumar::config::Config;
use jumar::engine::Durability;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// An answer that takes longer than this is none.
const PATIENCE: Duration = Duration::from_secs(20);
/// After this much silence the server is waiting for more of the request.
const PAUSE: Duration = Duration::from_millis(5);
const LAST_REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const OTHERS_BYTES: &[u8] = b"nobody else's";

/// A server, and an upload on it that the fuzzer does not know.
pub(crate) struct Ground {
    _runtime: Runtime,
    folder: TempDir,
    address: SocketAddr,
    others: Upload,
    own: Upload,
    rounds: u64,
}

struct Upload {
    id: String,
    key: String,
    handle: String,
}

impl Ground {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let mut config = Config::default();
        config.server.listen.set_port(0);
        config.server.admin_listen.set_port(0);
        config.server.body_stall_secs = 1;
        config.catalog.url = format!("sqlite:{}", data.join("jumar.db").display());
        config.store.fs.path.clone_from(&data);
        config.spool.path = data.join("spool");
        config.spool.min_free_bytes = 0;
        config.uploads.durability = Durability::Process;
        config.uploads.max_size_bytes = 1 << 30;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let address = runtime.block_on(async {
            let app = App::builder(config)
                .without_jobs()
                .build()
                .await
                .expect("put together");
            let running = app.serve().await.expect("listening");
            let address = running.address();
            // It runs until the process ends.
            std::mem::forget(running);
            address
        });
        let mut ground = Self {
            _runtime: runtime,
            folder,
            address,
            others: Upload::none(),
            own: Upload::none(),
            rounds: 0,
        };
        ground.others = ground.create();
        let range = format!("bytes 0-{}/{}", OTHERS_BYTES.len() - 1, 100);
        let head = format!(
            "PUT /v1/uploads/{}/chunk HTTP/1.1\r\nHost: a\r\nUpload-Key: {}\r\nContent-Range: {range}\r\nContent-Length: {}\r\n\r\n",
            ground.others.id,
            ground.others.key,
            OTHERS_BYTES.len()
        );
        let answer = ground.exchange(&[head.as_bytes(), OTHERS_BYTES].concat());
        assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
        ground.own = ground.create();
        ground
    }

    pub(crate) fn feed(&mut self, data: &[u8]) {
        let mut request = data.to_vec();
        for (name, value) in [
            ("{id}", &self.own.id),
            ("{key}", &self.own.key),
            ("{handle}", &self.own.handle),
        ] {
            request = replaced(&request, name.as_bytes(), value.as_bytes());
        }
        let answer = self.exchange(&request);
        assert!(!answer.contains("HTTP/1.1 500 "), "{answer}");
        assert!(!answer.contains(&self.others.key), "sealed: {answer}");
        self.rounds += 1;
        if self.rounds.is_multiple_of(64) {
            self.look_around();
            self.own = self.create();
        }
    }

    /// What others uploaded is there, and nothing is beside the server's folder.
    pub(crate) fn look_around(&self) {
        let answer = self.exchange(
            format!(
                "GET /v1/uploads/{} HTTP/1.1\r\nHost: a\r\nUpload-Key: {}\r\n\r\n",
                self.others.id, self.others.key
            )
            .as_bytes(),
        );
        let there = format!("\"received\":[[0,{}]]", OTHERS_BYTES.len());
        assert!(answer.contains(&there), "never_back: {answer}");
        let beside: Vec<PathBuf> = std::fs::read_dir(self.folder.path())
            .expect("the folder is there")
            .map(|entry| entry.expect("readable").path())
            .collect();
        assert_eq!(beside, [self.folder.path().join("data")]);
    }

    fn create(&self) -> Upload {
        let answer = self.exchange(
            b"POST /v1/uploads HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"length\":100}",
        );
        let text = |name: &str| {
            let start = answer
                .find(&format!("\"{name}\":\""))
                .unwrap_or_else(|| panic!("{answer}"));
            let value = &answer[start + name.len() + 4..];
            value[..value.find('"').expect("it ends")].to_owned()
        };
        let answer = self.exchange(
            b"POST /files HTTP/1.1\r\nHost: a\r\nTus-Resumable: 1.0.0\r\nUpload-Length: 100\r\nContent-Length: 0\r\n\r\n",
        );
        let (_, handle) = answer.split_once("/files/").expect("a location");
        Upload {
            id: text("upload_id"),
            key: text("upload_key"),
            handle: handle.lines().next().expect("a line").to_owned(),
        }
    }

    /// Sends bytes and a last request behind them; what comes back until the server closes. If it waits for more, it is told
    /// that nothing comes.
    fn exchange(&self, request: &[u8]) -> String {
        let mut connection = TcpStream::connect(self.address).expect("the server lives");
        // The server may have closed before it has read all.
        let _ = connection.write_all(&[request, LAST_REQUEST].concat());
        let mut answer = Vec::new();
        for patience in [PAUSE, PATIENCE] {
            connection
                .set_read_timeout(Some(patience))
                .expect("a timeout");
            match connection
                .read_to_end(&mut answer)
                .map_err(|error| error.kind())
            {
                Ok(_) | Err(ErrorKind::ConnectionReset) => break,
                Err(ErrorKind::WouldBlock) if patience == PAUSE => {
                    let _ = connection.shutdown(Shutdown::Write);
                }
                Err(error) => panic!("after {:?}: {error}", String::from_utf8_lossy(&answer)),
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Upload {
    fn none() -> Self {
        Self {
            id: String::new(),
            key: String::new(),
            handle: String::new(),
        }
    }
}

fn replaced(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    replaced.extend_from_slice(rest);
    replaced
}
