//! One upload after the other: create, chunks, complete; and what a client does when its connection is cut.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::task::JoinHandle;

use crate::Load;
use crate::content::Dice;
use crate::direct;
use crate::http::{Answer, Connection};
use crate::options::Protocol;
use crate::report::Kind;

/// How long a request is repeated before the upload counts as failed: longer than any server waits for its own locks.
const PATIENCE: Duration = Duration::from_mins(1);
/// How much goes into one write where nothing limits it.
const STRETCH: u64 = 1 << 20;
/// How often a second a limited connection sends.
const BEATS: u64 = 4;

/// What every request of tus says.
const TUS: &str = "Tus-Resumable: 1.0.0\r\n";

/// What one of the uploads at once needs: its connections, kept from upload to upload.
pub(crate) struct Worker<'a> {
    load: &'a Load,
    connections: Vec<Connection>,
}

/// An upload that was created.
pub(crate) struct Session {
    number: u64,
    pub(crate) path: String,
    pub(crate) headers: String,
}

/// Chunks that wait to be sent.
type Queue = Mutex<VecDeque<Range<u64>>>;

impl<'a> Worker<'a> {
    pub(crate) fn new(load: &'a Load) -> Self {
        let connections = (0..load.options.parallel.max(1))
            .map(|_| Connection::new(&load.target))
            .collect();
        Self { load, connections }
    }

    /// Does the upload with this number from its creation to its end.
    pub(crate) async fn upload(&mut self, number: u64) -> io::Result<()> {
        let load = self.load;
        let size = load.options.size;
        let own = load.options.verify.then(|| {
            let content = load.content.clone();
            tokio::task::spawn_blocking(move || content.sha256(number..number + 1, size))
        });
        let declared = if load.options.declare {
            let content = load.content.clone();
            let own = move || content.sha256(number..number + 1, size);
            Some(
                tokio::task::spawn_blocking(own)
                    .await
                    .map_err(io::Error::other)?,
            )
        } else {
            None
        };
        let session = self.create(number, declared).await?;
        if load.options.direct {
            direct::upload(load, &mut self.connections, &session).await?;
        } else {
            let queue = Mutex::new(chunks(load, number));
            let lanes = self
                .connections
                .iter_mut()
                .enumerate()
                .map(|(lane, connection)| drain(load, connection, &session, &queue, lane));
            for lane in join_all(lanes).await {
                lane?;
            }
        }
        if load.options.no_complete {
            return Ok(());
        }
        let told = match load.options.protocol {
            Protocol::Native => self.complete(&session).await?,
            // It was completed with its last byte; its tag is its SHA-256.
            Protocol::Tus if own.is_some() => self.look(&session).await?,
            Protocol::Tus => None,
        };
        if load.options.concat {
            load.parts
                .lock()
                .expect("nobody panics with it")
                .insert(number, session.path);
        }
        match own {
            Some(own) => self.compare(told, own).await,
            None => Ok(()),
        }
    }

    async fn compare(&self, told: Option<String>, own: JoinHandle<String>) -> io::Result<()> {
        let own = own.await.map_err(io::Error::other)?;
        if told.as_ref() != Some(&own) {
            self.load.stats.wrong();
            return Err(io::Error::other(format!(
                "the digest is {told:?}, sent was {own}"
            )));
        }
        self.load.stats.verified();
        Ok(())
    }

    /// Puts all uploads together, in the order of their numbers, and waits until that is done.
    pub(crate) async fn put_together(&mut self) -> io::Result<()> {
        let load = self.load;
        let parts = load.parts.lock().expect("nobody panics with it").clone();
        let urls: Vec<String> = parts.into_values().collect();
        let call = Call {
            kind: Kind::Complete,
            method: "POST",
            path: load.options.base(),
            headers: &format!("{TUS}Upload-Concat: final;{}\r\n", urls.join(" ")),
            body: b"",
        };
        let answer = repeat(load, &mut self.connections[0], &call).await?;
        let path = answer.location;
        let session = Session {
            number: 0,
            path: path.ok_or_else(|| io::Error::other("the final upload has no Location"))?,
            headers: TUS.to_owned(),
        };
        let call = Call {
            kind: Kind::Status,
            method: "HEAD",
            path: &session.path,
            headers: TUS,
            body: b"",
        };
        // An upload that is being put together has no offset yet, and is locked.
        repeat(load, &mut self.connections[0], &call).await?;
        if !load.options.verify {
            return Ok(());
        }
        let told = self.look(&session).await?;
        let (content, size) = (load.content.clone(), load.options.size);
        let count = urls.len() as u64;
        let own = tokio::task::spawn_blocking(move || content.sha256(0..count, size));
        self.compare(told, own).await
    }

    async fn create(&mut self, number: u64, declared: Option<String>) -> io::Result<Session> {
        let load = self.load;
        let size = load.options.size;
        let (headers, body) = match load.options.protocol {
            Protocol::Native => (
                "Content-Type: application/json\r\n".to_owned(),
                match declared {
                    Some(hex) => format!(
                        r#"{{"filename":"load-{number}.bin","length":{size},"digest":{{"sha-256":"{hex}"}}}}"#
                    ),
                    None => format!(r#"{{"filename":"load-{number}.bin","length":{size}}}"#),
                },
            ),
            Protocol::Tus => {
                let concat = if load.options.concat {
                    "Upload-Concat: partial\r\n"
                } else {
                    ""
                };
                let headers = format!("{TUS}{concat}Upload-Length: {size}\r\n");
                (headers, String::new())
            }
        };
        let connection = &mut self.connections[0];
        let call = Call {
            kind: Kind::Create,
            method: "POST",
            path: load.options.base(),
            headers: &headers,
            body: body.as_bytes(),
        };
        let answer = repeat(load, connection, &call).await?;
        if load.options.protocol == Protocol::Tus {
            let path = answer.location;
            let path = path.ok_or_else(|| io::Error::other("the creation has no Location"))?;
            let headers = TUS.to_owned();
            return Ok(Session {
                number,
                path,
                headers,
            });
        }
        let told = answer.json()?;
        let text = |name: &str| {
            told[name]
                .as_str()
                .map(str::to_owned)
                .ok_or_else(|| io::Error::other(format!("the creation's answer has no {name}")))
        };
        let path = match answer.location.as_deref() {
            Some(location) if location.starts_with('/') => location.to_owned(),
            _ => format!("{}/{}", load.options.base(), text("upload_id")?),
        };
        Ok(Session {
            number,
            path,
            headers: format!("Upload-Key: {}\r\n", text("upload_key")?),
        })
    }

    /// Completes it; returns its SHA-256.
    async fn complete(&mut self, session: &Session) -> io::Result<Option<String>> {
        let path = format!("{}/complete", session.path);
        loop {
            let connection = &mut self.connections[0];
            let call = Call {
                kind: Kind::Complete,
                method: "POST",
                path: &path,
                headers: &session.headers,
                body: b"",
            };
            let answer = repeat(self.load, connection, &call).await?;
            if answer.status != 202 {
                let told = answer.json()?;
                let digest = told["object"]["digest"]["sha-256"].as_str();
                return Ok(digest.map(str::to_owned));
            }
            wait(&answer).await;
        }
    }

    /// Reads the first byte of a completed upload; returns its tag.
    async fn look(&mut self, session: &Session) -> io::Result<Option<String>> {
        let call = Call {
            kind: Kind::Status,
            method: "GET",
            path: &session.path,
            headers: "Range: bytes=0-0\r\n",
            body: b"",
        };
        Ok(repeat(self.load, &mut self.connections[0], &call)
            .await?
            .etag)
    }
}

/// The chunks of an upload, in the order in which they are sent.
fn chunks(load: &Load, number: u64) -> VecDeque<Range<u64>> {
    let size = load.options.size;
    let step = match load.options.chunk {
        0 => size.max(1),
        step => step,
    };
    let mut chunks = VecDeque::new();
    let mut start = 0;
    while start < size {
        let end = size.min(start.saturating_add(step));
        chunks.push_back(start..end);
        start = end;
    }
    if load.options.shuffle {
        let mut dice = Dice::new(number + 1);
        for last in (1..chunks.len()).rev() {
            let other = dice.below(last as u64 + 1);
            chunks.swap(last, usize::try_from(other).unwrap_or(0));
        }
    }
    chunks
}

/// Sends chunks on one connection until none wait.
async fn drain(
    load: &Load,
    connection: &mut Connection,
    session: &Session,
    queue: &Queue,
    lane: usize,
) -> io::Result<()> {
    let mut dice = Dice::new(session.number * 1_000 + lane as u64 + 1);
    loop {
        let next = queue.lock().expect("nobody panics with it").pop_front();
        let Some(chunk) = next else { return Ok(()) };
        if dice.hits(load.options.cut) {
            let sent = cut_within(load, connection, session, &chunk, &mut dice).await?;
            let hung = if load.options.hang {
                connection.leave()
            } else {
                None
            };
            connection.cut();
            let began = Instant::now();
            let rests = missing(load, connection, session, &chunk, sent).await?;
            load.stats.took(Kind::Resume, began.elapsed());
            for rest in rests {
                send(load, connection, session, rest).await?;
            }
            drop(hung);
        } else {
            send(load, connection, session, chunk).await?;
        }
    }
}

/// Sends a range whole, going on from the status if something goes wrong on the way.
pub(crate) async fn send(
    load: &Load,
    connection: &mut Connection,
    session: &Session,
    range: Range<u64>,
) -> io::Result<()> {
    let mut waiting = vec![range];
    let first = Instant::now();
    while let Some(range) = waiting.pop() {
        let began = Instant::now();
        let mut ended = began;
        let outcome = async {
            head(load, connection, session, &range).await?;
            let all = range.end - range.start;
            // A server that refuses early may close while we send: its answer still counts.
            let sent = stream(load, connection, session, range.start, all).await;
            ended = Instant::now();
            match connection.answer().await {
                Ok(answer) => Ok(answer),
                Err(error) => Err(sent.err().unwrap_or(error)),
            }
        };
        match outcome.await {
            Ok(answer) if answer.status == 204 => {
                load.stats.took(Kind::Chunk, began.elapsed());
                load.stats.took(Kind::Answer, ended.elapsed());
                load.stats.chunk_taken(load);
            }
            other => {
                let spent = first.elapsed() >= PATIENCE;
                load.stats.repeated();
                connection.cut();
                match &other {
                    Ok(answer) if fatal(answer) || spent => {
                        return Err(refused("a chunk", answer));
                    }
                    Err(error) if spent => return Err(error.kind().into()),
                    Ok(answer) => wait(answer).await,
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
                waiting.extend(missing(load, connection, session, &range, 0).await?);
            }
        }
    }
    Ok(())
}

/// Sends a range's head and a random part of its body, for its connection to be cut then. Returns how much was sent.
async fn cut_within(
    load: &Load,
    connection: &mut Connection,
    session: &Session,
    range: &Range<u64>,
    dice: &mut Dice,
) -> io::Result<u64> {
    head(load, connection, session, range).await?;
    let sent = dice.below(range.end - range.start);
    // An error here is a cut as well.
    let _ = stream(load, connection, session, range.start, sent).await;
    load.stats.cut();
    Ok(sent)
}

/// Asks the status for what of `range` is missing; `sent` is how much of it was on its way, to count what is sent twice.
async fn missing(
    load: &Load,
    connection: &mut Connection,
    session: &Session,
    range: &Range<u64>,
    sent: u64,
) -> io::Result<Vec<Range<u64>>> {
    let tus = load.options.protocol == Protocol::Tus;
    let call = Call {
        kind: Kind::Status,
        method: if tus { "HEAD" } else { "GET" },
        path: &session.path,
        headers: &session.headers,
        body: b"",
    };
    let answer = repeat(load, connection, &call).await?;
    let received = if tus {
        vec![serde_json::json!([0, answer.offset])]
    } else {
        let told = answer.json()?;
        told["received"].as_array().cloned().unwrap_or_default()
    };
    let mut missing = Vec::new();
    let mut at = range.start;
    for have in &received {
        let (Some(start), Some(end)) = (have[0].as_u64(), have[1].as_u64()) else {
            return Err(io::Error::other("a range that is no pair"));
        };
        if end <= at || start >= range.end {
            continue;
        }
        if start > at {
            missing.push(at..start);
        }
        at = end;
    }
    if at < range.end {
        missing.push(at..range.end);
    }
    let reached = range.start + sent;
    let twice = missing
        .iter()
        .map(|gap| gap.end.min(reached).saturating_sub(gap.start))
        .sum();
    load.stats.sent_twice(twice);
    Ok(missing)
}

async fn head(
    load: &Load,
    connection: &mut Connection,
    session: &Session,
    range: &Range<u64>,
) -> io::Result<()> {
    let (method, path, headers) = match load.options.protocol {
        Protocol::Native => (
            "PUT",
            format!("{}/chunk", session.path),
            format!(
                "{}Content-Range: bytes {}-{}/{}\r\n",
                session.headers,
                range.start,
                range.end - 1,
                load.options.size
            ),
        ),
        Protocol::Tus => (
            "PATCH",
            session.path.clone(),
            format!(
                "{TUS}Content-Type: application/offset+octet-stream\r\nUpload-Offset: {}\r\n",
                range.start
            ),
        ),
    };
    let length = range.end - range.start;
    if connection
        .head(method, &path, &headers, length)
        .await
        .is_ok()
    {
        return Ok(());
    }
    // A kept connection that the server closed meanwhile: once more on a new one.
    connection.cut();
    connection.head(method, &path, &headers, length).await
}

/// Sends `length` bytes of the upload's file from `start` on, at the rate that is wanted.
pub(crate) async fn stream(
    load: &Load,
    connection: &mut Connection,
    session: &Session,
    start: u64,
    length: u64,
) -> io::Result<()> {
    let rate = load.options.rate;
    let stretch = match rate {
        0 => STRETCH,
        rate => (rate / BEATS).clamp(1, STRETCH),
    };
    let began = Instant::now();
    let mut sent = 0;
    while sent < length {
        let bytes = load
            .content
            .run(session.number, start + sent, stretch.min(length - sent));
        connection.body(bytes).await?;
        sent += bytes.len() as u64;
        load.stats.sent(bytes.len() as u64);
        if let Some(micros) = (sent * 1_000_000).checked_div(rate) {
            tokio::time::sleep_until((began + Duration::from_micros(micros)).into()).await;
        }
    }
    Ok(())
}

/// A request with a small body.
pub(crate) struct Call<'a> {
    pub(crate) kind: Kind,
    pub(crate) method: &'static str,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a str,
    pub(crate) body: &'a [u8],
}

/// Makes a call until it succeeds, for a bounded time.
pub(crate) async fn repeat(
    load: &Load,
    connection: &mut Connection,
    call: &Call<'_>,
) -> io::Result<Answer> {
    let first = Instant::now();
    loop {
        let began = Instant::now();
        let outcome = connection
            .call(call.method, call.path, call.headers, call.body)
            .await;
        let spent = first.elapsed() >= PATIENCE;
        match outcome {
            Ok(answer) if (200..300).contains(&answer.status) => {
                load.stats.took(call.kind, began.elapsed());
                return Ok(answer);
            }
            Ok(answer) if fatal(&answer) || spent => {
                return Err(refused(call.kind.name(), &answer));
            }
            Err(error) if spent => return Err(error),
            Ok(answer) => wait(&answer).await,
            Err(_) => {
                connection.cut();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        load.stats.repeated();
    }
}

/// Whether an answer will be the same next time.
fn fatal(answer: &Answer) -> bool {
    !matches!(answer.status, 409 | 423 | 429 | 500..=599)
}

pub(crate) fn refused(what: &str, answer: &Answer) -> io::Error {
    let body = String::from_utf8_lossy(&answer.body);
    io::Error::other(format!("{what}: {} {body}", answer.status))
}

/// Waits as long as the answer asks for, but never long.
async fn wait(answer: &Answer) {
    let seconds = answer.retry_after.unwrap_or(0).min(2);
    let pause = Duration::from_secs(seconds).max(Duration::from_millis(50));
    tokio::time::sleep(pause).await;
}
