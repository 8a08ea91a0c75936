//! What the engine's tests share: stores with faults, bodies in pieces, digests, and waiting for something to be so.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jumar::engine::hasher::Hasher;
use jumar::engine::{BodyError, Engine, EngineError, Settings, Written};
use jumar::model::digest::Digests;
use jumar::model::{Digest, DigestAlgorithm};
use jumar::store::faulty::Faults;
use jumar::store::hooked::Hooked;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::support::rig::{Ground, Rig, Session, fed_body, write};

pub(super) type Feed = mpsc::UnboundedSender<Result<Bytes, BodyError>>;
pub(super) type Running = JoinHandle<Result<Written, EngineError>>;

/// Both stores, as they are.
pub(super) async fn both() -> [Rig; 2] {
    [Rig::fs().await, Rig::s3().await]
}

/// A rig whose store fails as it is told; a restart leaves the faults behind.
pub(super) async fn faulty(ground: Ground) -> (Rig, Faults) {
    faulty_with(ground, |_| {}).await
}

pub(super) async fn faulty_with(
    ground: Ground,
    change: impl FnOnce(&mut Settings),
) -> (Rig, Faults) {
    let faults = Faults::default();
    let store = Arc::new(Hooked::new(ground.store().await, faults.clone()));
    let mut settings = ground.settings();
    change(&mut settings);
    (ground.rig_with(store, settings), faults)
}

pub(super) async fn rig_with(ground: Ground, change: impl FnOnce(&mut Settings)) -> Rig {
    let store = ground.store().await;
    let mut settings = ground.settings();
    change(&mut settings);
    ground.rig_with(store, settings)
}

/// A writer that the test feeds.
pub(super) async fn writer(
    engine: &Engine,
    session: &Session,
    start: u64,
    len: u64,
) -> (Feed, Running) {
    let (feed, body) = fed_body();
    let admission = engine.admit(write(session, start, len)).await;
    (feed, tokio::spawn(admission.expect("admitted").run(body)))
}

pub(super) fn send(feed: &Feed, bytes: &[u8], frame: usize) {
    for piece in bytes.chunks(frame) {
        // A writer that is gone takes nothing more.
        let _ = feed.send(Ok(Bytes::copy_from_slice(piece)));
    }
}

/// Waits until something is so, which has to come of itself.
pub(super) async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    for _ in 0..2000 {
        if so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came to this: {what}");
}

pub(super) fn digest_of(algorithm: DigestAlgorithm, bytes: &[u8]) -> Digest {
    let mut asked = Digests::default();
    asked.insert(Digest::new(algorithm, vec![0; algorithm.len()]).unwrap());
    let mut hasher = Hasher::of_body(&asked.into());
    hasher.update(bytes);
    hasher.finish().get(algorithm).unwrap().clone()
}

pub(super) fn digests_of(algorithms: &[DigestAlgorithm], bytes: &[u8]) -> Digests {
    algorithms
        .iter()
        .map(|algorithm| digest_of(*algorithm, bytes))
        .collect()
}

/// Events of a kind in the outbox.
pub(super) fn events(rig: &Rig, kind: &str) -> u64 {
    let path = rig.ground.folder.path().join("jumar.db");
    let db = rusqlite::Connection::open(path).unwrap();
    db.query_row(
        "SELECT count(*) FROM events WHERE kind = ?1",
        [kind],
        |row| row.get::<_, i64>(0),
    )
    .unwrap()
    .try_into()
    .unwrap()
}

/// How many parts of an upload the catalog has receipts of.
pub(super) async fn receipts(rig: &Rig, session: &Session) -> usize {
    let snapshot = rig.catalog.load(session.id).await.unwrap();
    snapshot.unwrap().parts.len()
}

/// Makes something of an upload's record unreadable: `what` is from the table on to the column that has its id.
pub(super) fn spoil(rig: &Rig, what: &str, session: &Session) {
    let path = rig.ground.folder.path().join("jumar.db");
    let db = rusqlite::Connection::open(path).unwrap();
    let id = session.id.as_bytes();
    let spoilt = db
        .execute(&format!("UPDATE {what} = ?1"), [id.as_slice()])
        .unwrap();
    assert!(spoilt > 0, "{what}");
}

/// Names of an upload's files in the spool and among what is staged.
pub(super) fn files_of(rig: &Rig, session: &Session) -> Vec<String> {
    let id = session.id.to_string();
    let mut found = Vec::new();
    for folder in ["spool", "staging", "objects", "objects/staging"] {
        let Ok(entries) = std::fs::read_dir(rig.ground.folder.path().join(folder)) else {
            continue;
        };
        for entry in entries {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.starts_with(&id) {
                found.push(format!("{folder}/{name}"));
            }
        }
    }
    found
}

/// Whether nothing of an upload is left on disk or in the bucket.
pub(super) fn is_gone(rig: &Rig, session: &Session) -> bool {
    let id = session.id.to_string();
    let in_bucket = rig.ground.s3.as_ref().is_some_and(|server| {
        server.backend().keys().iter().any(|key| key.contains(&id))
            || server
                .backend()
                .open_uploads()
                .iter()
                .any(|(key, _)| key.contains(&id))
    });
    !in_bucket && files_of(rig, session).is_empty()
}
