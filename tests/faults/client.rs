//! A client that goes through one scene: what it does before, what it asks for when the call goes wrong, and how it gets through.

use std::time::Duration;

use jumar::model::Handle;
use serde_json::{Value, json};

use crate::audit;
use crate::bench::Bench;
use crate::scenes::{Kind, Phase, Scene};
use crate::support::direct::send;
use crate::support::http::Answer;
use crate::support::rig::{MIB, noise};
use crate::support::s3::{Fault, Op, When};
use crate::support::server::{Upload, uploaded};

const CELL: u64 = 5 * MIB;

/// A file on its way.
pub(crate) struct File {
    pub(crate) bytes: Vec<u8>,
    /// None before it is created in the very request that is struck.
    pub(crate) upload: Option<Upload>,
    /// How much of it was acknowledged.
    pub(crate) acknowledged: u64,
    /// The partial uploads that it is joined from.
    partial: Vec<String>,
}

impl File {
    pub(crate) fn upload(&self) -> &Upload {
        self.upload.as_ref().expect("it was created")
    }
}

/// What a client sees of an answer: its status, and the word of a problem that is not the usual one.
fn told(answer: &Answer) -> String {
    audit::sound(answer);
    match answer.status {
        503 => "503".to_owned(),
        400.. => format!("{} `{}`", answer.status, answer.code()),
        status => status.to_string(),
    }
}

impl Bench {
    /// Everything that comes before the scene. Where the store is away for it, it still is.
    pub(crate) async fn prepare(&self, scene: &Scene, seed: u64) -> File {
        let length = match scene.kind {
            Kind::Empty | Kind::Ready => 0,
            Kind::Small | Kind::JoinedSmall | Kind::OneRequest | Kind::Address => 50_000,
            _ => CELL + 50_000,
        };
        let mut file = File {
            bytes: noise(length, seed),
            upload: None,
            acknowledged: 0,
            partial: Vec::new(),
        };
        if scene.phase == Phase::Chunk {
            // Before the server knows which checksums the store takes, none of the calls would be the one that is meant.
            self.warm_up(scene.kind).await;
        }
        match scene.kind {
            Kind::OneRequest | Kind::Ready => return file,
            Kind::Joined | Kind::JoinedSmall => {
                let cut = usize::try_from(length - 20_000).unwrap();
                let (first, second) = file.bytes.split_at(cut);
                file.partial = vec![self.partial(first).await, self.partial(second).await];
            }
            _ => file.upload = Some(self.server.create_of(length).await),
        }
        let control = self.control();
        match scene.kind {
            _ if scene.phase == Phase::Chunk => {}
            Kind::Tail => {
                control.set_away(true);
                self.send(&mut file).await.expect(204);
            }
            Kind::Stray => {
                self.warm_up(scene.kind).await;
                let lost = Fault::StatusAfter(500, "InternalError");
                control.fail(Op::CreateMultipartUpload, When::Always, lost);
                self.send(&mut file).await.expect(204);
                // Moving it to the store is tried and given up for some seconds.
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Kind::Direct => {
                self.put_directly(&mut file, false).await.expect(204);
            }
            Kind::Joined | Kind::JoinedSmall | Kind::Empty => self.warm_up(scene.kind).await,
            _ => {
                self.send(&mut file).await.expect(204);
            }
        }
        if scene.phase == Phase::StartUp {
            self.leave_assembling(scene.kind, &mut file).await;
        }
        if scene.phase == Phase::Prune {
            self.server.let_expire();
        }
        if scene.phase == Phase::Prune && scene.kind != Kind::Stray {
            // The first round only sees that the clock has jumped.
            let pruned = self.server.running.engine().prune(false).await;
            pruned.expect("pruned");
        }
        file
    }

    /// The server has found out which checksums the store takes, and which parts beside others.
    async fn warm_up(&self, kind: Kind) {
        let bytes = b"to find out";
        let answer = self.server.call("POST", "/v1/objects", &[], bytes).await;
        answer.expect(201);
        if kind == Kind::Direct {
            let upload = self.server.create_of(CELL).await;
            self.urls(&upload).await.expect(200);
            self.server.abort(&upload).await.expect(204);
        }
    }

    async fn urls(&self, upload: &Upload) -> Answer {
        let asked = json!({"part_numbers": [1]}).to_string();
        let fields = [("Content-Type", "application/json")];
        let urls = self
            .server
            .ask(upload, "POST", "/parts/urls", &fields, asked.as_bytes());
        urls.await
    }

    /// Leaves the upload assembling, in a process that dies then.
    async fn leave_assembling(&self, kind: Kind, file: &mut File) {
        let control = self.control();
        let error = Fault::Status(500, "InternalError");
        match kind {
            Kind::Lost => {
                control.fail(Op::CompleteMultipartUpload, When::Always, Fault::ResetAfter);
                control.fail(Op::HeadObject, When::Always, error);
            }
            Kind::Address => control.fail(Op::CopyObject, When::Always, error),
            Kind::Joined => control.fail(Op::UploadPartCopy, When::Always, error),
            _ => control.set_away(true),
        }
        let answer = self.ask_completion(file).await;
        assert!(matches!(answer.status, 202 | 503), "{answer:?}");
    }

    /// Asks for what the scene is about, and what is seen of it.
    pub(crate) async fn act(&self, scene: &Scene, file: &mut File, lasts: bool) -> String {
        if scene.kind == Kind::Ready {
            let ready = self.server.get("/readyz").await;
            let status = ready.json()["status"].as_str().unwrap().to_owned();
            return format!("{} `{status}`", ready.status);
        }
        match scene.phase {
            Phase::Chunk => {
                let answer = match scene.kind {
                    Kind::OneRequest => self.one_request(file).await,
                    Kind::Direct => self.put_directly(file, true).await,
                    _ => self.send(file).await,
                };
                told(&answer)
            }
            Phase::Complete | Phase::StartUp => {
                let mut answer = self.ask_completion(file).await;
                // It goes on by itself: that is waited for, unless it lasts.
                for _ in 0..10 {
                    if answer.status != 202 || lasts {
                        break;
                    }
                    answer = self.ask_completion(file).await;
                }
                let told = told(&answer);
                match answer.status {
                    // By whom it was completed does not matter; nor, as it is a matter of time, whether the first try is over.
                    200 => "201".to_owned(),
                    202 | 503 if lasts => "202 or 503".to_owned(),
                    _ => told,
                }
            }
            Phase::Abort => told(&self.server.abort(file.upload()).await),
            Phase::Prune => {
                let pruned = self.server.running.engine().prune(false).await;
                pruned.expect("pruned");
                let status = self.server.ask(file.upload(), "GET", "", &[], b"").await;
                audit::sound(&status);
                "done".to_owned()
            }
        }
    }

    /// Comes back until the file is through, sending what the server says is missing.
    pub(crate) async fn get_through(&self, file: &mut File) {
        let mut last = None;
        for _ in 0..20 {
            if file.upload.is_none() && file.partial.is_empty() {
                last = Some(self.one_request(file).await);
            } else {
                if file.partial.is_empty() {
                    self.send_missing(file).await;
                }
                let answer = self.ask_completion(file).await;
                if matches!(answer.status, 200 | 201) {
                    audit::object_of(self, file, &answer);
                    return;
                }
                audit::sound(&answer);
                last = Some(answer);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.a_minute_later().await;
        }
        panic!("it never got through: {last:?}");
    }

    async fn send_missing(&self, file: &mut File) {
        let status = self.server.status(file.upload()).await;
        audit::names_no_object_early(&status);
        if matches!(status["state"].as_str(), Some("assembling" | "completed")) {
            return;
        }
        let offset = status["offset"].as_u64().unwrap();
        assert!(
            offset >= file.acknowledged,
            "{} bytes were acknowledged: {status}",
            file.acknowledged
        );
        if offset < file.bytes.len() as u64 {
            audit::sound(&self.send_from(file, offset).await);
        }
    }

    async fn send(&self, file: &mut File) -> Answer {
        self.send_from(file, 0).await
    }

    async fn send_from(&self, file: &mut File, start: u64) -> Answer {
        let rest = &file.bytes[usize::try_from(start).unwrap()..];
        let length = file.bytes.len() as u64;
        let answer = self.server.put(file.upload(), start, rest, length).await;
        if answer.status == 204 {
            file.acknowledged = file.acknowledged.max(answer.offset());
        }
        answer
    }

    async fn ask_completion(&self, file: &mut File) -> Answer {
        if file.upload.is_none() {
            let of = format!("final;{}", file.partial.join(" "));
            let fields = [("Tus-Resumable", "1.0.0"), ("Upload-Concat", &of)];
            let created = self.server.call("POST", "/files", &fields, b"").await;
            if created.status != 201 {
                return created;
            }
            file.upload = Some(native(created.header("Location").unwrap()));
        }
        let answer = self.server.complete(file.upload()).await;
        if matches!(answer.status, 200 | 201) {
            audit::object_of(self, file, &answer);
        }
        answer
    }

    async fn one_request(&self, file: &mut File) -> Answer {
        let answer = self
            .server
            .call("POST", "/v1/objects", &[], &file.bytes)
            .await;
        if matches!(answer.status, 201 | 202) {
            file.upload = Some(uploaded(&answer));
        }
        if answer.status == 201 {
            audit::object_of(self, file, &answer);
        }
        answer
    }

    /// A part by its URL, and a word about it if it is to be told, then the rest through the server.
    async fn put_directly(&self, file: &mut File, tell: bool) -> Answer {
        let upload = file.upload();
        let (first, rest) = file.bytes.split_at(usize::try_from(CELL).unwrap());
        let urls = self.urls(upload).await;
        if urls.status == 200 {
            put_signed(&urls.json()["parts"][0], first).await;
            if tell {
                let arrived = self.server.ask(upload, "POST", "/parts/1", &[], b"{}");
                let arrived = arrived.await;
                if arrived.status != 204 {
                    return arrived;
                }
            }
        } else if urls.code() != "direct_unavailable" {
            return urls;
        }
        let length = file.bytes.len() as u64;
        let answer = self.server.put(upload, CELL, rest, length).await;
        if urls.status != 200 {
            return urls;
        }
        if answer.status == 204 {
            file.acknowledged = file.acknowledged.max(answer.offset());
        }
        answer
    }

    async fn partial(&self, bytes: &[u8]) -> String {
        let length = bytes.len().to_string();
        let fields = [
            ("Tus-Resumable", "1.0.0"),
            ("Upload-Concat", "partial"),
            ("Upload-Length", &length),
            ("Content-Type", "application/offset+octet-stream"),
        ];
        let created = self.server.call("POST", "/files", &fields, bytes).await;
        created
            .expect(201)
            .header("Location")
            .expect("a URL")
            .to_owned()
    }
}

async fn put_signed(part: &Value, bytes: &[u8]) {
    let headers = part["headers"].as_object().unwrap();
    let fields: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
        .collect();
    let (method, url) = (&part["method"], &part["url"]);
    let (method, url) = (method.as_str().unwrap(), url.as_str().unwrap());
    send(method, url, &fields, bytes).await.expect(200);
}

/// The upload of a tus URL as the native protocol names it.
fn native(url: &str) -> Upload {
    let handle = url.rsplit('/').next().expect("a segment");
    let handle: Handle = handle.parse().expect("a handle");
    Upload {
        id: handle.id.to_string(),
        key: handle.key.reveal(),
    }
}
