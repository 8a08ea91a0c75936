//! Past the server: parts are put by the URLs that it signs, and it is told of each.

use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;
use std::time::Instant;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::Load;
use crate::http::{Connection, Target};
use crate::report::Kind;
use crate::upload::{Call, Session, refused, repeat, send, stream};

/// How many URLs are asked for at once.
const AT_ONCE: u64 = 500;

/// A part, as the server tells how to put it.
struct Part {
    number: u64,
    offset: u64,
    length: u64,
    target: Target,
    path: String,
    headers: String,
}

/// Sends an upload in parts, as many at once as there are connections.
pub(crate) async fn upload(
    load: &Load,
    connections: &mut [Connection],
    session: &Session,
) -> io::Result<()> {
    let size = load.options.size;
    if size == 0 {
        return Ok(());
    }
    let first = signed(load, &mut connections[0], session, 1..2).await?;
    let cell = first.first().map_or(size, |part| part.length);
    let count = size.div_ceil(cell);
    let is_proxied = |number: u64| {
        let every = load.options.proxied;
        every > 0 && number.is_multiple_of(every)
    };
    let mut parts = Vec::new();
    let mut from = 1;
    while from <= count {
        let to = (from + AT_ONCE).min(count + 1);
        parts.extend(signed(load, &mut connections[0], session, from..to).await?);
        from = to;
    }
    let queue = Mutex::new(VecDeque::from(parts));
    let lanes = connections.iter_mut().map(async |connection| {
        let mut store = None;
        loop {
            let next = queue.lock().expect("nobody panics with it").pop_front();
            let Some(part) = next else { return Ok(()) };
            if is_proxied(part.number) {
                let range = part.offset..part.offset + part.length;
                send(load, connection, session, range).await?;
            } else {
                let store = store.get_or_insert_with(|| Connection::new(&part.target));
                put(load, connection, store, session, &part).await?;
            }
        }
    });
    join_all(lanes).await.into_iter().collect()
}

async fn signed(
    load: &Load,
    connection: &mut Connection,
    session: &Session,
    numbers: std::ops::Range<u64>,
) -> io::Result<Vec<Part>> {
    let numbers: Vec<u64> = numbers.collect();
    let body = json!({ "part_numbers": numbers }).to_string();
    let call = Call {
        kind: Kind::Urls,
        method: "POST",
        path: &format!("{}/parts/urls", session.path),
        headers: &session.headers,
        body: body.as_bytes(),
    };
    let told = repeat(load, connection, &call).await?.json()?;
    let parts = told["parts"].as_array().map(Vec::as_slice);
    parts.unwrap_or_default().iter().map(Part::read).collect()
}

impl Part {
    fn read(told: &Value) -> io::Result<Self> {
        let missing = || io::Error::other(format!("a part without a member: {told}"));
        let number = |name: &str| told[name].as_u64().ok_or_else(missing);
        let url = told["url"].as_str().ok_or_else(missing)?;
        let rest = url.strip_prefix("http://").ok_or_else(missing)?;
        let (host, path) = rest.split_once('/').ok_or_else(missing)?;
        let headers = told["headers"].as_object().ok_or_else(missing)?;
        let headers = headers.iter().filter(|(name, _)| *name != "content-length");
        Ok(Self {
            number: number("part_number")?,
            offset: number("offset")?,
            length: number("length")?,
            target: Target::parse(&format!("http://{host}")).map_err(io::Error::other)?,
            path: format!("/{path}"),
            headers: headers
                .filter_map(|(name, value)| Some(format!("{name}: {}\r\n", value.as_str()?)))
                .collect(),
        })
    }
}

/// Puts a part into the store, and tells the server.
async fn put(
    load: &Load,
    server: &mut Connection,
    store: &mut Connection,
    session: &Session,
    part: &Part,
) -> io::Result<()> {
    let began = Instant::now();
    let head = store.head("PUT", &part.path, &part.headers, part.length);
    if head.await.is_err() {
        store.cut();
        let head = store.head("PUT", &part.path, &part.headers, part.length);
        head.await?;
    }
    stream(load, store, session, part.offset, part.length).await?;
    let answer = store.answer().await?;
    if answer.status != 200 {
        return Err(refused("a part", &answer));
    }
    load.stats.took(Kind::Part, began.elapsed());
    load.stats.sent_directly(part.length);
    let body = json!({ "etag": answer.etag }).to_string();
    let call = Call {
        kind: Kind::Told,
        method: "POST",
        path: &format!("{}/parts/{}", session.path, part.number),
        headers: &session.headers,
        body: body.as_bytes(),
    };
    repeat(load, server, &call).await.map(drop)
}
