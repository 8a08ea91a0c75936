//! Carries a sequence out, and holds every answer against the model; at the end, every client finishes its uploads.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body as HttpBody;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jumar::model::{Handle, Timestamp, UploadId, UploadKey};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::case::{Api, At, Body, Case, Fate, Op};
use crate::client::{Answer, Chunk, Ends, Head, Sender};
use crate::ground::{Ground, MAX_AGE, ORPHAN_GRACE, Process};
use crate::model::{Before, Upload, Verdict};
use crate::weather::{Dice, Schedule, Weather};

/// An op that takes longer than this, in simulated time, hangs.
const HANGS: Duration = Duration::from_hours(6);
/// How long what came in a body that broke off may take to count.
const COUNTS_WITHIN: Duration = Duration::from_mins(2);

/// When a client that is told again and again that there is no room ends its upload, in rounds.
const GIVES_UP: u32 = 12;

/// What is wrong, and what led to it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) what: String,
    pub(crate) log: Vec<String>,
}

/// What came in a sequence, to see that anything did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) answers: u64,
    pub(crate) completions: u64,
    pub(crate) ended: u64,
    pub(crate) faults: u64,
    pub(crate) deaths: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.answers += other.answers;
        self.completions += other.completions;
        self.ended += other.ended;
        self.faults += other.faults;
        self.deaths += other.deaths;
    }
}

/// Runs a sequence.
pub(crate) fn run(case: &Case, schedule: Schedule, seed: u64) -> Result<Tally, Failure> {
    let ground = Ground::new(case.setup);
    let world = World::default();
    let mut dice = Dice::new(seed);
    let mut left = case.ops.iter();
    let mut process = Process::start(&ground, schedule, seed);
    loop {
        let end = process.block_on(async {
            let stage = Stage::new(&world, &ground, &process);
            tokio::select! {
                biased;
                () = process.weather.has_blown() => End::Crashed,
                end = stage.play(&mut left) => end,
            }
        });
        world.known().tally.faults += process.weather.struck();
        match end {
            End::Crashed => {
                world.note("the process died".to_owned());
                world.known().tally.deaths += 1;
                process.crash();
            }
            End::Stopped => process.stop(),
            End::Finished => break,
            End::Wrong(what) => {
                let log = world.known().log.clone();
                process.crash();
                return Err(Failure { what, log });
            }
        }
        process = Process::start(&ground, schedule, seed ^ (1 + dice.roll(1 << 40)));
    }
    drop(process);
    let known = world.known();
    let mut tally = known.tally;
    for upload in &known.uploads {
        tally.completions += u64::from(upload.completed);
        tally.ended += u64::from(upload.ended);
    }
    Ok(tally)
}

enum End {
    Crashed,
    Stopped,
    Finished,
    Wrong(String),
}

#[derive(Default)]
struct Known {
    uploads: Vec<Upload>,
    /// Contents of uploads that nobody learned of.
    orphans: Vec<Bytes>,
    created: u64,
    tally: Tally,
    /// What was in the outbox, also what has been pruned since.
    events: BTreeMap<i64, (String, [u8; 16])>,
    log: Vec<String>,
    wrong: Option<String>,
}

/// What clients know. It outlives processes.
#[derive(Clone, Default)]
struct World(Arc<Mutex<Known>>);

impl World {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, line: String) {
        self.known().log.push(line);
    }

    fn hold(&self, verdict: Verdict, about: &str) {
        if let Err(what) = verdict {
            let mut known = self.known();
            known.log.push(format!("WRONG {what}"));
            known.wrong.get_or_insert(format!("{what} ({about})"));
        }
    }
}

/// A process, and clients before it.
#[derive(Clone)]
struct Clients {
    world: World,
    router: Router,
    weather: Weather,
    clock: jumar::clock::Clock,
}

struct Stage<'a> {
    clients: Clients,
    ground: &'a Ground,
    process: &'a Process,
    beside: RefCell<JoinSet<()>>,
    seen: RefCell<Instant>,
}

fn content(number: u64, len: u32) -> Bytes {
    let mut dice = Dice::new(number + 77);
    (0..len).map(|_| dice.roll(256).to_le_bytes()[0]).collect()
}

impl<'a> Stage<'a> {
    fn new(world: &World, ground: &'a Ground, process: &'a Process) -> Self {
        Self {
            clients: Clients {
                world: world.clone(),
                router: process.router.clone(),
                weather: process.weather.clone(),
                clock: ground.clock.clone(),
            },
            ground,
            process,
            beside: RefCell::default(),
            seen: RefCell::new(Instant::now()),
        }
    }

    /// The wall clock goes on as the process's own.
    fn keep_time(&self) {
        let now = Instant::now();
        let before = self.seen.replace(now);
        self.ground.clock.advance(now - before);
    }

    async fn play(&self, left: &mut std::slice::Iter<'_, Op>) -> End {
        for op in left {
            let step = async {
                match op {
                    Op::Restart => return Some(End::Stopped),
                    op => self.act(*op).await,
                }
                None
            };
            let Ok(ended) = timeout(HANGS, step).await else {
                return End::Wrong(format!("one_writer: {op:?} hangs"));
            };
            self.keep_time();
            if let Some(what) = self.clients.world.known().wrong.take() {
                return End::Wrong(what);
            }
            if let Some(end) = ended {
                return end;
            }
        }
        match timeout(HANGS * 10, self.finish_all()).await {
            Err(_) => End::Wrong("one_writer: finishing hangs".to_owned()),
            Ok(Err(what)) => End::Wrong(what),
            Ok(Ok(())) => End::Finished,
        }
    }

    async fn act(&self, op: Op) {
        let clients = self.clients.clone();
        match op {
            Op::Create {
                api,
                len,
                known,
                digest,
                first,
                fate,
            } => {
                let create = Create {
                    api,
                    len,
                    known,
                    digest,
                    first: first.min(len),
                    op,
                };
                self.request(fate, move |sender| clients.create(create, fate, sender))
                    .await;
            }
            Op::Chunk {
                upload,
                api,
                at,
                len,
                frame,
                body,
                fate,
            } => {
                let Some(upload) = clients.named(upload) else {
                    return;
                };
                let Some((head, chunk)) = clients.chunk(upload, api, at, len, body) else {
                    return;
                };
                let sending = Sending {
                    upload,
                    head,
                    chunk,
                    frame: usize::from(frame),
                    body,
                    op,
                };
                self.send(sending, fate).await;
            }
            Op::Status { upload, api } => {
                let Some(upload) = clients.named(upload) else {
                    return;
                };
                clients.status(upload, api, &format!("{op:?}")).await;
            }
            Op::Halt { upload } => {
                let Some(upload) = clients.named(upload) else {
                    return;
                };
                let head = Head::halt(&clients.handle(upload), None);
                clients
                    .ask(upload, head, HttpBody::empty(), &format!("{op:?}"))
                    .await;
            }
            Op::Complete { upload, fate } => {
                let Some(upload) = clients.named(upload) else {
                    return;
                };
                self.request(fate, move |_| async move {
                    clients.complete(upload, fate, &format!("{op:?}")).await;
                })
                .await;
            }
            Op::Abort { upload, api, fate } => {
                let Some(upload) = clients.named(upload) else {
                    return;
                };
                self.request(fate, move |_| async move {
                    clients.abort(upload, api, fate, op).await;
                })
                .await;
            }
            Op::WrongKey { upload, api } => {
                let Some(upload) = clients.named(upload) else {
                    return;
                };
                self.wrong_key(upload, api).await;
            }
            op => self.turn(op).await,
        }
    }

    /// A body goes on its way; what of it came before it broke off has to count.
    async fn send(&self, sending: Sending, fate: Fate) {
        let clients = self.clients.clone();
        let (upload, body) = (sending.upload, sending.body);
        let (start, struck) = (sending.chunk.start, self.process.weather.struck());
        let quiet = self.is_quiet();
        let sender = Sender::default();
        let takes = sender.clone();
        self.request_with(sender, fate, move |sender| {
            clients.put(sending, fate, sender)
        })
        .await;
        let kept = matches!(body, Body::Plain | Body::Cut(_))
            && matches!(fate, Fate::Heard | Fate::HangsUp(_));
        if kept && quiet {
            let end = start + takes.taken() as u64;
            self.keep_what_came(upload, start, end, struck).await;
        }
    }

    /// What no client does.
    async fn turn(&self, op: Op) {
        let world = &self.clients.world;
        match op {
            Op::Prune => {
                let quiet = self.is_quiet();
                self.see_events();
                let pruned = self.process.engine.prune(false).await;
                world.note(format!("{op:?} {:?}", pruned.as_ref().ok()));
                if quiet && self.is_quiet() && pruned.is_err() {
                    world.hold(Err(format!("pruning failed: {pruned:?}")), "Prune");
                }
            }
            Op::Wait(millis) => sleep(Duration::from_millis(u64::from(millis))).await,
            Op::Pass(secs) => {
                world.note(format!("{op:?}"));
                self.pass(Duration::from_secs(u64::from(secs))).await;
            }
            Op::Join => self.join().await,
            Op::Strike {
                struck,
                skip,
                fault,
            } => {
                world.note(format!("{op:?}"));
                self.process.weather.strike(struck, u32::from(skip), fault);
            }
            Op::Crash { calls, after } => {
                world.note(format!("{op:?}"));
                self.process.weather.light_fuse(u32::from(calls), after);
            }
            Op::StaleLists(stale) => {
                if let Some(bucket) = &self.ground.bucket {
                    bucket.set_stale(stale);
                }
            }
            _ => {}
        }
    }

    /// Time passes, and what runs by the clock runs.
    async fn pass(&self, time: Duration) {
        let simulated = time.min(Duration::from_hours(4));
        sleep(simulated).await;
        self.keep_time();
        self.ground.clock.advance(time.saturating_sub(simulated));
        // It fails where the weather is bad, and is run again.
        let _ = self.process.engine.recover(false).await;
    }

    async fn join(&self) {
        let mut beside = self.beside.take();
        while beside.join_next().await.is_some() {}
    }

    /// Nothing is on its way, and nothing goes wrong.
    fn is_quiet(&self) -> bool {
        self.process.weather.is_calm()
    }

    async fn request<F>(&self, fate: Fate, work: impl FnOnce(Sender) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.request_with(Sender::default(), fate, work).await;
    }

    async fn request_with<F>(&self, sender: Sender, fate: Fate, work: impl FnOnce(Sender) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let gone = sender.gone.clone();
        match fate {
            Fate::Lost => {}
            Fate::Heard | Fate::Unheard => work(sender).await,
            Fate::Beside => {
                self.beside.borrow_mut().spawn(work(sender));
                // It is on its way before the next one.
                tokio::task::yield_now().await;
            }
            Fate::HangsUp(millis) => {
                let within = Duration::from_millis(u64::from(millis));
                if timeout(within, work(sender)).await.is_err() {
                    gone.cancel();
                }
            }
        }
    }

    /// What the server took of a body without a digest counts when its writer has ended, whatever became of the connection.
    async fn keep_what_came(&self, upload: usize, start: u64, end: u64, struck: u64) {
        let clients = &self.clients;
        let deadline = Instant::now() + COUNTS_WITHIN;
        let weather = &self.process.weather;
        while self.ground.setup.roomy && weather.is_calm() && weather.struck() == struck {
            let answer = clients.status(upload, Api::Native, "what came").await;
            let counts = clients.world.known().uploads[upload].is_told(start, end);
            if counts || answer.status != 200 && answer.status != 503 {
                return;
            }
            if Instant::now() > deadline {
                let what = format!(
                    "keep_what_came: not all of {start}..{end} counts: {}",
                    answer.shown()
                );
                clients.world.hold(Err(what), "a body that broke off");
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    fn see_events(&self) {
        let events = self.ground.events();
        self.clients.world.known().events.extend(events);
    }

    /// The uploads that there is an event of this kind of.
    fn told_of(&self, kind: &str) -> impl Iterator<Item = [u8; 16]> + use<> {
        let known = self.clients.world.known();
        let of_kind = known.events.values().filter(|event| event.0 == kind);
        let ids: Vec<_> = of_kind.map(|event| event.1).collect();
        ids.into_iter()
    }

    /// A wrong key gets the answer that an upload gets that is not there.
    async fn wrong_key(&self, upload: usize, api: Api) {
        let clients = &self.clients;
        let quiet = self.is_quiet();
        let right = clients.handle(upload);
        let key = UploadKey::generate();
        let wrong = Handle {
            id: right.id,
            key: key.clone(),
        };
        let nobody = Handle {
            id: UploadId::generate(),
            key,
        };
        let bytes = Bytes::from_static(b"let me in");
        let chunk = Chunk {
            start: 0,
            bytes: bytes.clone(),
            digest_of: None,
            length: None,
            last: false,
        };
        let asks: [fn(Api, &Handle, &Chunk) -> Head; 4] = [
            |api, handle, _| Head::status(api, handle),
            |api, handle, _| Head::abort(api, handle),
            |api, handle, chunk| Head::chunk(api, handle, chunk),
            |_, handle, _| Head::content(handle),
        ];
        for ask in asks {
            let mut answers = Vec::new();
            for handle in [&wrong, &nobody] {
                let body = HttpBody::from(bytes.clone());
                let mut answer = ask(api, handle, &chunk).send(&clients.router, body).await;
                // Each answer has its own.
                answer.headers.remove("x-request-id");
                answers.push(answer);
            }
            let same = answers[0].status == answers[1].status
                && answers[0].headers == answers[1].headers
                && answers[0].body == answers[1].body;
            let sealed = same && matches!(answers[0].status, 404);
            if !sealed && quiet && self.is_quiet() {
                let what = format!(
                    "sealed: a wrong key gets {}, a wrong id {}",
                    answers[0].shown(),
                    answers[1].shown()
                );
                clients.world.hold(Err(what), "WrongKey");
            }
        }
    }

    /// All faults end, and every client finishes its uploads from what status says.
    async fn finish_all(&self) -> Verdict {
        let clients = &self.clients;
        clients.world.note("all faults end".to_owned());
        self.process.weather.clear();
        if let Some(bucket) = &self.ground.bucket {
            bucket.set_stale(false);
        }
        self.join().await;
        let count = clients.world.known().uploads.len();
        let mut open: BTreeSet<usize> = (0..count).collect();
        for round in 0..60 {
            if round >= GIVES_UP && round % 4 == 0 && !self.ground.setup.roomy {
                // A spool that is full of cells that nobody can fill up frees itself only when an upload ends.
                let first = open.first().copied().unwrap_or_default();
                clients
                    .abort(first, Api::Native, Fate::Heard, Op::Join)
                    .await;
            }
            for upload in open.clone() {
                if self.finish(upload).await {
                    open.remove(&upload);
                }
                if let Some(what) = clients.world.known().wrong.take() {
                    return Err(what);
                }
            }
            if open.is_empty() {
                break;
            }
            self.pass(Duration::from_secs(if round < 20 { 3 } else { 61 }))
                .await;
        }
        if !open.is_empty() {
            return Err(format!(
                "uploads {open:?} cannot be finished by their clients"
            ));
        }
        self.objects().await?;
        self.clean().await
    }

    /// One try to finish an upload; whether it has ended.
    async fn finish(&self, upload: usize) -> bool {
        let clients = &self.clients;
        let answer = clients
            .status(upload, Api::Native, "finishing: Status")
            .await;
        let json = answer.json();
        match (answer.status, json["state"].as_str()) {
            (404 | 410, _) | (200, Some("completed" | "failed")) => return true,
            (200, Some("pending" | "uploading")) => {}
            _ => return false,
        }
        let missing = clients.world.known().uploads[upload].missing(&json["received"]);
        for (start, end) in missing {
            let Some((head, chunk)) = clients.stretch(upload, Api::Native, start, end, Body::Plain)
            else {
                continue;
            };
            let op = Op::Join;
            let sending = Sending {
                upload,
                head,
                chunk,
                frame: 5000,
                body: Body::Plain,
                op,
            };
            clients
                .clone()
                .put(sending, Fate::Heard, Sender::default())
                .await;
        }
        clients
            .complete(upload, Fate::Heard, "finishing: Complete")
            .await;
        false
    }

    /// Each upload that is completed has one event, and one object with the bytes that were sent.
    async fn objects(&self) -> Verdict {
        let clients = &self.clients;
        self.see_events();
        let count = clients.world.known().uploads.len();
        for upload in 0..count {
            let handle = clients.handle(upload);
            let told = self
                .told_of("completed")
                .filter(|id| id == handle.id.as_bytes())
                .count();
            let (completed, ended, content) = {
                let known = clients.world.known();
                let upload = &known.uploads[upload];
                (upload.completed, upload.ended, upload.content.clone())
            };
            if told > 1 || (completed && told == 0) {
                return Err(format!("told_once: upload {upload} has {told} events"));
            }
            if !completed || ended {
                continue;
            }
            if self.ground.object(&handle.id.to_string()).as_deref() != Some(&content) {
                return Err(format!(
                    "exact_bytes: the object of upload {upload} is not what was sent"
                ));
            }
            let answer = Head::content(&handle)
                .send(&clients.router, HttpBody::empty())
                .await;
            if answer.status != 200 || answer.body != content {
                return Err(format!(
                    "exact_bytes: upload {upload} is not read as it was sent: {}",
                    answer.status
                ));
            }
        }
        Ok(())
    }

    /// Time passes, and nothing is left but the objects, and what is others'.
    async fn clean(&self) -> Verdict {
        for time in [
            MAX_AGE + Duration::from_mins(1),
            ORPHAN_GRACE + Duration::from_mins(1),
            Duration::from_secs(1),
        ] {
            self.pass(time).await;
            self.see_events();
            let pruned = self.process.engine.prune(false).await;
            self.clients
                .world
                .note(format!("finishing: Prune {:?}", pruned.as_ref().ok()));
            pruned.map_err(|error| format!("bounded: pruning fails: {error}"))?;
            sleep(Duration::from_mins(1)).await;
            self.keep_time();
        }
        let used = self.process.engine.memory_used_bytes();
        if used > 0 {
            return Err(format!(
                "bounded: {used} bytes of memory are never given back"
            ));
        }
        let deleted: BTreeSet<_> = self.told_of("aborted").collect();
        let objects: BTreeSet<String> = self
            .told_of("completed")
            .filter(|id| !deleted.contains(id))
            .map(|id| format!("objects/{}", UploadId::from_bytes(id)))
            .collect();
        let found = self
            .ground
            .leftovers()
            .map_err(|what| format!("own_only: {what}"))?;
        let found: BTreeSet<String> = found.into_iter().collect();
        if let Some(name) = found.difference(&objects).next() {
            return Err(format!("bounded: {name} is left over"));
        }
        if let Some(name) = objects.difference(&found).next() {
            return Err(format!("exact_bytes: {name} is gone"));
        }
        let known = self.clients.world.known();
        for name in found {
            let object = self
                .ground
                .object(&name["objects/".len()..])
                .unwrap_or_default();
            let uploads = known.uploads.iter().map(|upload| &upload.content);
            if !uploads
                .chain(&known.orphans)
                .any(|content| *content == object)
            {
                return Err(format!("exact_bytes: {name} is not what anybody sent"));
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Create {
    api: Api,
    len: u32,
    known: bool,
    digest: Option<bool>,
    first: u32,
    op: Op,
}

/// A chunk on its way.
struct Sending {
    upload: usize,
    head: Head,
    chunk: Chunk,
    frame: usize,
    body: Body,
    op: Op,
}

impl Clients {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The upload that a number means.
    fn named(&self, upload: u8) -> Option<usize> {
        let count = self.world.known().uploads.len();
        usize::from(upload).checked_rem(count)
    }

    fn handle(&self, upload: usize) -> Handle {
        self.world.known().uploads[upload].handle.clone()
    }

    fn before(&self, upload: usize) -> Before {
        self.world.known().uploads[upload].before()
    }

    /// Holds an answer against the model: what holds for all, and what `more` says.
    fn hear(
        &self,
        upload: usize,
        before: &Before,
        answer: &Answer,
        about: &str,
        more: impl FnOnce(&mut Upload) -> Verdict,
    ) {
        let now = self.now();
        self.world
            .note(format!("#{upload} {about} -> {}", answer.shown()));
        let verdict = {
            let mut known = self.world.known();
            known.tally.answers += 1;
            let upload = &mut known.uploads[upload];
            upload
                .judge(before, answer, now)
                .and_then(|()| more(upload))
        };
        self.world.hold(verdict, about);
    }

    async fn ask(&self, upload: usize, head: Head, body: HttpBody, about: &str) -> Answer {
        let before = self.before(upload);
        let answer = head.send(&self.router, body).await;
        self.hear(upload, &before, &answer, about, |_| Ok(()));
        answer
    }

    async fn status(&self, upload: usize, api: Api, about: &str) -> Answer {
        let before = self.before(upload);
        let head = Head::status(api, &self.handle(upload));
        let answer = head.send(&self.router, HttpBody::empty()).await;
        self.hear(upload, &before, &answer, about, |upload| match api {
            Api::Native => upload.judge_status(&before, &answer),
            // A full offset is told only of an upload that is completed.
            Api::Tus
                if answer.status == 200
                    && answer.field("upload-length").is_some()
                    && answer.offset() == Some(upload.len()) =>
            {
                upload.complete()
            }
            Api::Ietf if answer.says_complete() => upload.complete(),
            _ => Ok(()),
        });
        answer
    }

    async fn complete(&self, upload: usize, fate: Fate, about: &str) {
        let (before, handle) = (self.before(upload), self.handle(upload));
        let length = self.world.known().uploads[upload].len();
        let json = json!({ "length": length }).to_string();
        let answer = Head::complete(&handle)
            .send(&self.router, HttpBody::from(json))
            .await;
        if fate == Fate::Unheard {
            return;
        }
        self.hear(upload, &before, &answer, about, |upload| {
            upload.judge_completion(&before, &answer)
        });
    }

    async fn abort(&self, upload: usize, api: Api, fate: Fate, op: Op) {
        let (mut before, handle) = (self.before(upload), self.handle(upload));
        // One that is ended may be ended again.
        before.ended = false;
        self.world.known().uploads[upload].end_asked = true;
        let answer = Head::abort(api, &handle)
            .send(&self.router, HttpBody::empty())
            .await;
        if fate == Fate::Unheard {
            return;
        }
        self.hear(upload, &before, &answer, &format!("{op:?}"), |upload| {
            upload.ended |= answer.is_success();
            Ok(())
        });
    }

    fn chunk(
        &self,
        upload: usize,
        api: Api,
        at: At,
        len: u32,
        body: Body,
    ) -> Option<(Head, Chunk)> {
        let (start, end) = {
            let known = self.world.known();
            let upload = &known.uploads[upload];
            let start = match at {
                At::Offset => upload.offset,
                At::Byte(byte) => u64::from(byte) % (upload.len() + 1),
            };
            (start, (start + u64::from(len)).min(upload.len()))
        };
        self.stretch(upload, api, start, end, body)
    }

    /// A request that brings this stretch. `None` if the protocol has no words for it.
    fn stretch(
        &self,
        upload: usize,
        api: Api,
        start: u64,
        end: u64,
        body: Body,
    ) -> Option<(Head, Chunk)> {
        let known = self.world.known();
        let upload = &known.uploads[upload];
        if start == end && (api == Api::Native || body == Body::Corrupt) {
            return None;
        }
        let right = upload
            .content
            .slice(usize::try_from(start).ok()?..usize::try_from(end).ok()?);
        let bytes = if body == Body::Corrupt {
            let mut wrong = right.to_vec();
            let place = wrong.len() / 2;
            wrong[place] ^= 1;
            Bytes::from(wrong)
        } else {
            right.clone()
        };
        let last = end == upload.len();
        let chunk = Chunk {
            start,
            bytes,
            digest_of: matches!(body, Body::Checked | Body::Corrupt).then_some(right),
            length: (last || upload.length_told)
                .then_some(upload.len())
                .filter(|_| api != Api::Tus || !upload.length_told),
            last,
        };
        Some((Head::chunk(api, &upload.handle, &chunk), chunk))
    }

    async fn put(self, sending: Sending, fate: Fate, sender: Sender) {
        let Sending {
            upload,
            head,
            chunk,
            frame,
            body,
            op,
        } = sending;
        let before = self.before(upload);
        let (start, end) = (chunk.start, chunk.start + chunk.bytes.len() as u64);
        let part = |n: u8| chunk.bytes.len() * usize::from(n) / 256;
        let ends = match body {
            Body::Cut(n) => Ends::Cut(part(n)),
            Body::Stalls(n) => Ends::Stalls(part(n)),
            Body::Plain | Body::Checked | Body::Corrupt => Ends::Whole,
        };
        let corrupt = body == Body::Corrupt;
        let note = self.noting(upload, start, corrupt);
        let http = sender.body(&chunk.bytes, frame, ends, self.weather.clone(), note);
        let answer = head.send(&self.router, http).await;
        if fate == Fate::Unheard {
            return;
        }
        let about = format!("{op:?} [{start}..{end})");
        self.hear(upload, &before, &answer, &about, |upload| {
            upload.length_told |= answer.is_success() && chunk.length.is_some();
            let whole = answer.is_success() && ends == Ends::Whole;
            if whole || corrupt {
                upload.judge_chunk(start, end, corrupt, &answer)?;
            }
            if answer.says_complete() && answer.is_success() {
                upload.complete()?;
            }
            Ok(())
        });
    }

    async fn create(self, create: Create, fate: Fate, sender: Sender) {
        let content = {
            let mut known = self.world.known();
            known.created += 1;
            let content = content(known.created, create.len);
            known.orphans.push(content.clone());
            content
        };
        let born = self.now();
        let declared = create.digest.filter(|_| create.api != Api::Tus);
        let sha256 = declared.map(|right| {
            let of: &[u8] = if right { &content } else { b"something else" };
            Sha256::digest(of).to_vec()
        });
        let length = create.known.then_some(u64::from(create.len));
        let about = format!("{:?}", create.op);
        if create.api == Api::Native {
            let mut told = json!({ "length": length });
            if let Some(sha256) = sha256 {
                told["digest"] = json!({ "sha-256": hex::encode(sha256) });
            }
            let again = format!("{}{}", UploadId::generate(), "model");
            let ask =
                || Head::create_native(&again).send(&self.router, HttpBody::from(told.to_string()));
            let mut answer = ask().await;
            if fate == Fate::Unheard {
                // So the client asks again.
                answer = ask().await;
            }
            let json = answer.json();
            let handle = json["upload_id"].as_str().zip(json["upload_key"].as_str());
            let Some((id, key)) = handle.filter(|_| answer.status == 201) else {
                self.world.note(format!("{about} -> {}", answer.shown()));
                return;
            };
            let handle = Handle {
                id: id.parse().expect("an id"),
                key: key.parse().expect("a key"),
            };
            let mut upload = Upload::new(handle, content, declared, born);
            upload.length_told = create.known;
            let mut known = self.world.known();
            let line = format!("#{} {about} -> {}", known.uploads.len(), answer.shown());
            known.log.push(line);
            known.uploads.push(upload);
            return;
        }
        let first = usize::try_from(create.first).expect("small");
        let last = create.first == create.len;
        let handed: Arc<Mutex<Vec<(usize, usize, Timestamp)>>> = Arc::default();
        let (noted, clock) = (Arc::clone(&handed), self.clock.clone());
        let note = move |from, to| {
            let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
            noted.push((from, to, clock.now()));
        };
        let body = sender.body(
            &content.slice(..first),
            3000,
            Ends::Whole,
            self.weather.clone(),
            note,
        );
        let sha256 = sha256.map(|sha256| STANDARD.encode(sha256));
        let head = Head::create(create.api, length, sha256, u64::from(create.first), last);
        let answer = head.send(&self.router, body).await;
        let location = answer
            .field("location")
            .and_then(|url| url.rsplit('/').next()?.parse().ok());
        let Some(handle) = location.filter(|_| fate != Fate::Unheard) else {
            self.world.note(format!("{about} -> {}", answer.shown()));
            return;
        };
        let mut upload = Upload::new(handle, content, declared, born);
        for (from, to, at) in handed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            upload.hand_over(from, to, at);
        }
        upload.length_told = create.known || (create.api == Api::Ietf && last);
        let (before, number) = (upload.before(), {
            let mut known = self.world.known();
            known.uploads.push(upload);
            known.uploads.len() - 1
        });
        self.hear(number, &before, &answer, &about, |upload| {
            let all = match create.api {
                Api::Ietf => answer.says_complete(),
                _ => {
                    create.known
                        && last
                        && (create.len == 0 || answer.offset() == Some(upload.len()))
                }
            };
            if all && answer.is_success() {
                return upload.complete();
            }
            Ok(())
        });
    }

    fn noting(
        &self,
        upload: usize,
        start: u64,
        corrupt: bool,
    ) -> impl Fn(usize, usize) + Send + Sync + 'static {
        let (world, clock) = (self.world.clone(), self.clock.clone());
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        move |from, to| {
            if !corrupt {
                let now = clock.now();
                world.known().uploads[upload].hand_over(start + from, start + to, now);
            }
        }
    }
}
