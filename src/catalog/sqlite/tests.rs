//! What is particular to SQLite, beside the suite that every catalog runs.

use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::catalog::CatalogError;
use crate::catalog::conformance::{self, assembling, completed, nothing_of, pending, uploading};
use crate::model::upload::Verified;
use crate::model::{ByteRange, UploadState};

type Shared = Arc<dyn Catalog>;

/// An empty catalog in a folder of its own.
#[expect(
    clippy::unused_async,
    reason = "the suite is for catalogs that are reached over a network too"
)]
async fn empty() -> (Shared, TempDir) {
    let (path, folder) = migrated();
    (open(&path), folder)
}

conformance::suite!(empty);

const NOW: Timestamp = Timestamp(1_600_000);

fn migrated() -> (PathBuf, TempDir) {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("new/folder/jumar.db");
    migrate(&path).expect("migrated");
    (path, folder)
}

fn open(path: &Path) -> Shared {
    Arc::new(SqliteCatalog::open(path, Synchronous::Normal).expect("opened"))
}

fn impatient(path: &Path) -> SqliteCatalog {
    let patience = Duration::from_millis(50);
    SqliteCatalog::open_waiting(path, Synchronous::Full, patience).expect("opened")
}

/// Another process, as far as SQLite can tell.
fn outsider(path: &Path) -> Connection {
    let connection = Connection::open(path).expect("opened");
    connection
        .pragma_update(None, "ignore_check_constraints", true)
        .expect("set");
    connection
}

fn count(connection: &Connection, table: &str) -> i64 {
    connection
        .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
            row.get(0)
        })
        .expect("counted")
}

fn assert_unavailable<T: std::fmt::Debug>(result: Result<T>) {
    match result {
        Err(CatalogError::Unavailable(_)) => {}
        other => panic!("not unavailable: {other:?}"),
    }
}

#[tokio::test]
async fn what_is_committed_survives_opening_again() {
    let (path, _folder) = migrated();
    let first = open(&path);
    let id = uploading(&first).await.id;
    let before = first.load(id).await.expect("read");
    drop(first);
    let second = open(&path);
    assert_eq!(second.load(id).await.expect("read"), before);
    assert!(before.is_some());
}

#[tokio::test]
async fn two_processes_see_each_others_epochs() {
    let (path, _folder) = migrated();
    let (one, two) = (open(&path), open(&path));
    let id = pending(&one).await.id;
    let claimed = two.claim(id, NOW).await.expect("claimed");
    assert_eq!(claimed.upload.epoch, Epoch(2));
    let outdated = one.commit(nothing_of(id, Epoch(1))).await;
    assert!(matches!(outdated, Err(CatalogError::Stale)), "{outdated:?}");
    assert_eq!(one.load(id).await.expect("read"), Some(claimed));
}

#[tokio::test]
async fn a_lock_of_another_process_is_waited_for_and_then_given_up() {
    let (path, _folder) = migrated();
    let catalog: Shared = Arc::new(impatient(&path));
    let id = pending(&catalog).await.id;
    let other = outsider(&path);
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    assert_unavailable(catalog.claim(id, NOW).await);
    assert_unavailable(catalog.ping(Duration::from_secs(30)).await);
    let seen = catalog.load(id).await.expect("reading goes on");
    assert_eq!(seen.expect("there").upload.epoch, Epoch(1));
    other.execute_batch("ROLLBACK").expect("let go");
    let claimed = catalog.claim(id, NOW).await.expect("claimed");
    assert_eq!(claimed.upload.epoch, Epoch(2), "what failed did not happen");
}

#[tokio::test]
async fn a_ping_gives_up_when_its_time_is_over() {
    let (path, _folder) = migrated();
    let catalog = open(&path);
    let other = outsider(&path);
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    assert_unavailable(catalog.ping(Duration::from_millis(20)).await);
}

#[tokio::test]
async fn a_full_disk_is_unavailable_until_there_is_room() {
    let (path, _folder) = migrated();
    let catalog = impatient(&path);
    let limit = |pages: u32| {
        catalog.writer.run(move |tx| {
            let sql = format!("PRAGMA max_page_count = {pages}");
            Ok(tx.query_row(&sql, [], |_| Ok(()))?)
        })
    };
    let big = || {
        let mut new = conformance::new_upload();
        new.declared.filename = Some("x".repeat(100_000));
        catalog.create(new, None)
    };
    limit(1).await.expect("set");
    assert_unavailable(big().await);
    limit(1_000_000).await.expect("set");
    big().await.expect("created");
    assert_eq!(catalog.open().await.expect("counted").uploads, 1);
}

#[test]
fn another_schema_is_refused() {
    let (path, folder) = migrated();
    let missing = SqliteCatalog::open(&folder.path().join("none.db"), Synchronous::Full);
    assert!(matches!(missing, Err(OpenError::Older { found: 0, .. })));
    assert!(!folder.path().join("none.db").exists());
    let strange = outsider(&folder.path().join("strange.db"));
    strange.execute_batch("CREATE TABLE t (x)").expect("made");
    let strange = SqliteCatalog::open(&folder.path().join("strange.db"), Synchronous::Full);
    assert!(matches!(strange, Err(OpenError::Older { found: 0, .. })));

    let other = outsider(&path);
    // The last migration gets another number, or all of them are taken back.
    let set_version = |version: i64| {
        let last = "version = (SELECT max(version) FROM refinery_schema_history)";
        let sql = match version {
            0 => "DELETE FROM refinery_schema_history WHERE version >= ?1".to_owned(),
            _ => format!("UPDATE refinery_schema_history SET version = ?1 WHERE {last}"),
        };
        other.execute(&sql, [version]).expect("updated");
    };
    set_version(99);
    let newer = SqliteCatalog::open(&path, Synchronous::Full);
    assert!(matches!(newer, Err(OpenError::Newer { found: 99, .. })));
    assert!(matches!(
        migrate(&path),
        Err(OpenError::Newer { found: 99, .. })
    ));
    set_version(0);
    let older = SqliteCatalog::open(&path, Synchronous::Full);
    assert!(matches!(older, Err(OpenError::Older { found: 0, .. })));
}

#[test]
fn migrating_can_be_repeated_and_raced() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("jumar.db");
    let applied: Vec<_> = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..4).map(|_| scope.spawn(|| migrate(&path))).collect();
        racers
            .into_iter()
            .map(|racer| racer.join().expect("not panicked").expect("migrated"))
            .collect()
    });
    assert_eq!(
        applied.concat(),
        [
            "V1__uploads",
            "V2__protocols",
            "V3__objects",
            "V4__direct",
            "V5__tokens",
            "V6__spaces"
        ]
    );
    assert!(migrate(&path).expect("migrated").is_empty());
    SqliteCatalog::open(&path, Synchronous::Full).expect("opened");
}

#[test]
fn what_a_commit_waits_for_is_as_asked() {
    let (path, _folder) = migrated();
    for (asked, level) in [(Synchronous::Full, 2), (Synchronous::Normal, 1)] {
        let connection = open::for_writing(&path, asked, BUSY_TIMEOUT).expect("opened");
        let pragma = |name: &str| -> Value {
            connection
                .pragma_query_value(None, name, |row| {
                    Ok(match row.get_ref(0)? {
                        rusqlite::types::ValueRef::Integer(value) => json!(value),
                        other => json!(other.as_str()?),
                    })
                })
                .expect("read")
        };
        assert_eq!(pragma("synchronous"), json!(level));
        assert_eq!(pragma("journal_mode"), json!("wal"));
        assert_eq!(pragma("foreign_keys"), json!(1));
    }
}

/// Rows stay coalesced whatever the order: every second chunk makes a row, the rest fills the holes.
#[tokio::test]
async fn ten_thousand_chunks_out_of_order_end_as_one_row() {
    let (path, _folder) = migrated();
    let catalog = open(&path);
    let id = pending(&catalog).await.id;
    let other = outsider(&path);
    // 3,001 and 5,000 have no common factor, so this goes through them all, never to a neighbour.
    let shuffled: Vec<u64> = (0..5_000).map(|n| n * 3_001 % 5_000).collect();
    for (odd, rows) in [(0, 5_000), (1, 1)] {
        for some in shuffled.chunks(100) {
            let chunks = some.iter().map(|n| (n * 2 + odd) * 10);
            let commit = Commit {
                received: chunks
                    .filter_map(|start| ByteRange::new(start, start + 10))
                    .collect(),
                ..nothing_of(id, Epoch(1))
            };
            catalog.commit(commit).await.expect("committed");
        }
        assert_eq!(count(&other, "upload_ranges"), rows);
    }
    let received = catalog
        .load(id)
        .await
        .expect("read")
        .expect("there")
        .received;
    assert!(received.covers_length(Length(100_000)));
    assert_eq!(received.total(), 100_000);
}

#[tokio::test]
async fn what_has_ended_leaves_a_small_record_and_a_purge_nothing_of_it() {
    let (path, _folder) = migrated();
    let catalog = open(&path);
    let other = outsider(&path);
    let aborted = uploading(&catalog).await.id;
    completed(&catalog).await;
    catalog.abort(aborted, NOW).await.expect("aborted");
    assert_eq!(count(&other, "upload_parts"), 0);
    assert_eq!(count(&other, "upload_ranges"), 1);
    catalog
        .purge_ended(Timestamp(i64::MAX), Timestamp(0), 9)
        .await
        .expect("purged");
    for (table, rows) in [
        ("upload_sessions", 0),
        ("upload_ranges", 0),
        ("upload_parts", 0),
        ("objects", 1),
        ("events", 2),
    ] {
        assert_eq!(count(&other, table), rows, "{table}");
    }
}

#[tokio::test]
async fn an_event_tells_what_became_of_the_upload() {
    let (path, _folder) = migrated();
    let catalog = open(&path);
    let other = outsider(&path);
    let done = completed(&catalog).await;
    let failed = assembling(&catalog).await;
    catalog
        .fail(failed.id, Epoch(1), FailureReason::StoreLost, NOW)
        .await
        .expect("failed");
    let events: Vec<(String, [u8; 16], i64, String)> = other
        .prepare("SELECT kind, upload_id, at, payload FROM events ORDER BY seq")
        .expect("prepared")
        .query_map([], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .expect("read")
        .collect::<rusqlite::Result<_>>()
        .expect("read");
    assert_eq!(events.len(), 2);
    let (kind, id, at, payload) = &events[0];
    assert_eq!(
        (&**kind, id, *at),
        ("completed", done.id.as_bytes(), 1_500_000)
    );
    let payload: Value = serde_json::from_str(payload).expect("JSON");
    assert_eq!(
        payload,
        json!({
            "upload_id": done.id.to_string(),
            "event": "completed",
            "at": "1970-01-01T00:25:00Z",
            "protocol": "native",
            "length": 10,
            "filename": "a \"name\" with ✂.jpg",
            "content_type": "image/jpeg",
            "metadata": { "album": "Zoë's" },
            "created_at": "1970-01-01T00:16:40Z",
            "object": {
                "key": done.store_key.as_str(),
                "size": 10,
                "content_type": "image/jpeg",
                "digest": { "sha-256": "09".repeat(32) },
                "etag": "\"whole\"",
                "verified": "stream",
                "store_checked": true,
            },
        })
    );
    let (kind, id, at, payload) = &events[1];
    assert_eq!((&**kind, id, *at), ("failed", failed.id.as_bytes(), NOW.0));
    let payload: Value = serde_json::from_str(payload).expect("JSON");
    assert_eq!(payload["failure_reason"], "store_lost");
    assert_eq!(payload.get("object"), None);
}

#[tokio::test]
async fn what_cannot_be_read_is_corrupt() {
    for (table, column, value) in [
        ("upload_sessions", "state", "'resting'"),
        ("upload_sessions", "plan", "'equal:0'"),
        ("upload_sessions", "protocol", "'gopher'"),
        ("upload_sessions", "length", "-1"),
        ("upload_sessions", "epoch", "-1"),
        ("upload_sessions", "key_hash", "x'00'"),
        ("upload_sessions", "metadata", "'[]'"),
        ("upload_sessions", "declared_digests", r#"'{"md5":"00"}'"#),
        ("upload_sessions", "store_key", "'../up'"),
        ("upload_ranges", "stop", "start"),
        ("upload_parts", "checksum_kind", "'sum'"),
        ("upload_parts", "number", "1 << 40"),
        ("objects", "digests", "'{'"),
        ("objects", "size", "-1"),
        ("objects", "completed_at", "NULL"),
    ] {
        let (path, _folder) = migrated();
        let catalog = open(&path);
        let receiving = uploading(&catalog).await.id;
        let done = completed(&catalog).await.id;
        outsider(&path)
            .execute_batch(&format!("UPDATE {table} SET {column} = {value}"))
            .expect("spoilt");
        let id = if table == "objects" { done } else { receiving };
        let read = catalog.load(id).await;
        assert!(
            matches!(read, Err(CatalogError::Corrupt(_))),
            "{table}.{column} = {value}: {read:?}"
        );
    }
}

/// One row that cannot be read hides no other from what goes over many, and keeps none from being done.
#[tokio::test]
async fn one_that_cannot_be_read_stands_in_nobodys_way() {
    for spoilt in [
        "metadata = '[]'",
        "plan = 'equal:0'",
        "protocol = 'gopher'",
        "store_key = '../up'",
        "length = -1",
    ] {
        let (path, _folder) = migrated();
        let catalog = open(&path);
        let other = outsider(&path);
        let spoil = |table: &str, id: UploadId, change: &str| {
            let column = if table == "upload_sessions" {
                "id"
            } else {
                "upload_id"
            };
            let changed = other
                .execute(
                    &format!("UPDATE {table} SET {change} WHERE {column} = ?1"),
                    [id.as_bytes()],
                )
                .expect("spoilt");
            assert_eq!(changed, 1);
        };
        let mut open = Vec::new();
        let mut working = Vec::new();
        for _ in 0..3 {
            open.push(pending(&catalog).await.id);
            working.push(assembling(&catalog).await.id);
        }
        for id in &open {
            let intent = Intent {
                upload: *id,
                kind: IntentKind::Object,
                key: "key".parse().expect("safe"),
                store_upload_id: None,
                created_at: NOW,
            };
            catalog.announce(intent, Epoch(1)).await.expect("announced");
        }
        spoil("upload_sessions", open[1], spoilt);
        spoil("upload_sessions", working[1], spoilt);
        let far = Timestamp(i64::MAX);
        let listed = |due: Vec<Due>| due.into_iter().map(|due| due.id).collect::<Vec<_>>();
        let mut sorted = (open.clone(), working.clone());
        sorted.0.sort_unstable();
        sorted.1.sort_unstable();
        let expired = catalog.expired(far, None, 9).await.expect("read");
        assert_eq!(listed(expired), sorted.0, "{spoilt}");
        let due = catalog.due_assemblies(far, None, 9).await.expect("read");
        assert_eq!(listed(due), sorted.1, "{spoilt}");
        let (one, two, three) = tokio::join!(
            catalog.expire(open[0], far),
            catalog.expire(open[1], far),
            catalog.expire(open[2], far),
        );
        assert_eq!(one.expect("expired"), Some((Protocol::Native, Role::Whole)));
        assert!(matches!(two, Err(CatalogError::Corrupt(_))), "{two:?}");
        assert_eq!(
            three.expect("expired"),
            Some((Protocol::Native, Role::Whole))
        );
        for (n, id) in working.iter().enumerate() {
            let claimed = catalog.claim_assembly(*id, far, far).await;
            assert_eq!(claimed.is_ok(), n != 1, "{spoilt}: {claimed:?}");
        }

        let known = catalog.known_among(open.clone()).await.expect("read");
        let ended: Vec<_> = known.iter().map(|known| known.ended).collect();
        assert_eq!(ended, [true, false, true], "{spoilt}");
        spoil("intents", open[0], "key = '../up'");
        let left = catalog.leftovers(None, 9).await.expect("read");
        assert_eq!(left.len(), 2, "{spoilt}");
        assert!(catalog.intents(open[0]).await.is_err());
        assert_eq!(catalog.intents(open[2]).await.expect("read").len(), 1);
    }
}

/// What cron asks again and again goes by an index, and looks at no row that it does not want.
#[test]
fn queries_of_many_uploads_go_by_an_index() {
    let (path, _folder) = migrated();
    let connection = outsider(&path);
    for (sql, index) in [
        (
            super::assembling::DUE,
            "upload_sessions_assembling (held_until>? AND held_until<?)",
        ),
        (
            ending::EXPIRED,
            "upload_sessions_expiring (expires_at>? AND expires_at<?)",
        ),
        (
            super::concat::SPENT,
            "upload_sessions_spent (expires_at>? AND expires_at<?)",
        ),
        (intents::LEFT_OVER, "intents_left_over (upload_id>?)"),
        (super::rows::OBJECT_BY_CONTENT, "objects_sha256 (sha256=?)"),
        (super::assembling::AT_ADDRESS, "intents_address (key=?)"),
        (
            super::tokens::FORGET,
            "revoked_tokens_to_forget (forget_at<?)",
        ),
        (purging::PURGE_ENDED, "upload_sessions_ended (ended_at"),
        (purging::COUNT_ENDED, "upload_sessions_ended (ended_at"),
        (purging::OPEN, "upload_sessions_expiring"),
        (purging::OPEN, "upload_sessions_assembling"),
    ] {
        let asked = ["?1", "?2", "?3", "?4"]
            .iter()
            .fold(sql.to_owned(), |sql, name| sql.replace(name, &name[1..]));
        let plan: Vec<String> = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {asked}"))
            .expect("prepared")
            .query_map([], |row| row.get("detail"))
            .expect("planned")
            .collect::<rusqlite::Result<_>>()
            .expect("planned");
        let text = plan.join("\n");
        assert!(text.contains(index), "{sql}\n{text}");
        // Those of equal times may be sorted among themselves: they are few.
        let sorts = text.replace("USE TEMP B-TREE FOR LAST TERM OF ORDER BY", "");
        assert!(!sorts.contains("TEMP B-TREE"), "{sql}\n{text}");
        let scans = |line: &&String| {
            line.starts_with("SCAN")
                && !line.contains("USING COVERING INDEX")
                && !line.contains("CONSTANT ROW")
        };
        assert_eq!(plan.iter().find(scans), None, "{sql}\n{text}");
    }
}

mod embedded {
    refinery::embed_migrations!("migrations/sqlite");
}

/// What the first two versions of the schema had, with an upload that was completed and one that was aborted.
const OF_VERSION_2: &str = "
    INSERT INTO upload_sessions (id, key_hash, protocol, state, length, plan, epoch, readback, store_key, declared_digests,
            sequential, metadata, created_at, updated_at, expires_at, ended_at, role)
        VALUES (x'01900000000070008000000000000001', zeroblob(32), 'tus', 'completed', 10, 'one', 1, 1, 'media/a', '{}', 0, '{}', 1, 1, 9, 2, 'final'),
               (x'01900000000070008000000000000002', zeroblob(32), 'native', 'aborted', 10, 'one', 2, 0, 'media/b', '{}', 0, '{}', 1, 1, 9, 3, 'whole');
    INSERT INTO objects (key, upload_id, claimed_at, completed_at, size, digests, etag, verified)
        VALUES ('media/a', x'01900000000070008000000000000001', 1, 2, 10, '{}', 'tag', 1);
    INSERT INTO intents (upload_id, kind, key, store_upload_id, created_at, ended)
        VALUES (x'01900000000070008000000000000002', 'multipart', 'media/b', 'begun', 1, 1);";

#[tokio::test]
async fn never_back_what_an_older_version_recorded_is_found() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("jumar.db");
    {
        let mut older = Connection::open(&path).expect("opened");
        embedded::migrations::runner()
            .set_target(refinery::Target::Version(2))
            .run(&mut older)
            .expect("migrated");
        older.execute_batch(OF_VERSION_2).expect("written");
    }
    migrate(&path).expect("migrated");
    let catalog = open(&path);
    let id = |last| {
        let mut bytes = *b"\x01\x90\0\0\0\0\x70\0\x80\0\0\0\0\0\0\0";
        bytes[15] = last;
        UploadId::from_bytes(bytes)
    };
    let completed = catalog.load(id(1)).await.expect("read").expect("there");
    let UploadState::Completed { object, .. } = completed.upload.state else {
        panic!("{:?}", completed.upload.state);
    };
    assert_eq!((object.key.as_str(), object.first), ("media/a", id(1)));
    assert_eq!(object.verified, Verified::Readback);
    assert!(!object.shared && object.store_checked);
    let left = catalog.leftovers(None, 9).await.expect("read");
    assert_eq!(left.iter().map(|left| left.id).collect::<Vec<_>>(), [id(2)]);
    let intents = catalog.intents(id(2)).await.expect("read");
    assert_eq!(
        intents[0].store_upload_id,
        Some(StoreUploadId("begun".to_owned()))
    );
}
