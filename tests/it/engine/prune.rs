//! Ending, expiring and pruning: all that is ours goes, and nothing else.

use std::time::Duration;

use jumar::engine::{Create, EngineError, IdempotencyKey, NewRole, PruneReport};
use jumar::model::upload::{Declared, Protocol};
use jumar::model::{Length, UploadId};
use jumar::store::call::Call;
use jumar::store::faulty::{Fault, When};
use jumar::store::{About, MadeOf, Shape};

use super::kit::{both, events, faulty, files_of, is_gone, receipts, send, until, writer};
use crate::support::rig::{Ground, MIB, Rig, Session, body_of, noise, write};
use crate::support::s3::BUCKET;

const HOUR: Duration = Duration::from_hours(1);
/// Beyond the time that the store's own clock shows.
const YEARS: Duration = Duration::from_hours(50 * 365 * 24);

async fn prune_after_jump(rig: &Rig) -> PruneReport {
    // The first round after the clock was moved expires nothing.
    rig.engine.prune(false).await.unwrap();
    rig.engine.prune(false).await.unwrap()
}

/// A multipart upload of someone else in the same bucket.
async fn foreign(rig: &Rig) {
    let Shape::Parts(parts) = rig.store.shape() else {
        return;
    };
    let about = About {
        upload: UploadId::generate(),
        content_type: None,
    };
    parts
        .begin(&"theirs/file".parse().unwrap(), &about, MadeOf::Parts)
        .await
        .unwrap();
}

fn foreign_is_there(rig: &Rig) -> bool {
    let server = rig.s3_server();
    let open = server.backend().open_uploads();
    open.len() == 1 && open[0].0 == "theirs/file" && !BUCKET.is_empty()
}

#[tokio::test]
async fn an_abort_leaves_nothing_and_can_be_repeated() {
    for rig in both().await {
        let session = rig.create(Some(13 * MIB)).await;
        rig.put(&session, 0, &noise(12 * MIB, 90)).await.unwrap();
        for _ in 0..2 {
            rig.engine.abort(session.id, &session.key).await.unwrap();
            assert!(is_gone(&rig, &session), "{:?}", files_of(&rig, &session));
        }
        assert_eq!(events(&rig, "aborted"), 1);
        let refused = rig.put(&session, 0, &[1]).await;
        assert!(matches!(refused, Err(EngineError::Gone)), "{refused:?}");
        assert!(matches!(
            rig.complete(&session).await,
            Err(EngineError::Gone)
        ));
        let done = rig.create(Some(10)).await;
        rig.put(&done, 0, &[1; 10]).await.unwrap();
        rig.complete(&done).await.unwrap();
        let refused = rig.engine.abort(done.id, &done.key).await;
        assert!(
            matches!(refused, Err(EngineError::Completed)),
            "{refused:?}"
        );
        rig.expect_whole(&done, &[1; 10]).await;
    }
}

#[tokio::test]
async fn an_abort_ends_a_writer() {
    for rig in both().await {
        let session = rig.create(Some(13 * MIB)).await;
        let (feed, running) = writer(&rig.engine, &session, 0, 13 * MIB).await;
        send(&feed, &noise(8 * MIB, 91), 60_000);
        tokio::time::sleep(Duration::from_millis(100)).await;
        rig.engine.abort(session.id, &session.key).await.unwrap();
        assert!(matches!(
            running.await.unwrap(),
            Err(EngineError::Displaced)
        ));
        until("all is gone", async || {
            rig.engine.prune(false).await.unwrap();
            is_gone(&rig, &session)
        })
        .await;
    }
}

#[tokio::test]
async fn an_abort_while_calls_are_on_their_way() {
    for (len, call) in [
        (13 * MIB, Call::PutPart),
        (13 * MIB, Call::Begin),
        (5 * MIB, Call::Put),
    ] {
        for fault in [Fault::Hang, Fault::HangAfter] {
            let (rig, faults) = faulty(Ground::s3().await).await;
            foreign(&rig).await;
            let before = faults.count(call);
            let session = rig.create(Some(len)).await;
            faults.fail(call, When::Always, fault);
            let (feed, running) = writer(&rig.engine, &session, 0, len).await;
            send(&feed, &noise(len, 92), 60_000);
            until("it is on its way", async || faults.count(call) > before).await;
            rig.engine.abort(session.id, &session.key).await.unwrap();
            assert!(running.await.unwrap().is_err());
            faults.heal();
            tokio::time::sleep(Duration::from_millis(200)).await;
            rig.engine.prune(false).await.unwrap();
            assert!(is_gone(&rig, &session), "{call:?} {fault:?}");
            assert!(foreign_is_there(&rig));
        }
    }
}

#[tokio::test]
async fn an_upload_past_its_time_is_gone_and_then_swept_and_purged() {
    for rig in both().await {
        let session = rig.create(Some(13 * MIB)).await;
        rig.put(&session, 0, &noise(12 * MIB, 93)).await.unwrap();
        rig.clock.advance(HOUR / 2);
        rig.put(&session, 12 * MIB, &[1; 100]).await.unwrap();
        rig.clock.advance(HOUR / 2 + Duration::from_mins(1));
        rig.put(&session, 12 * MIB + 100, &[1; 100])
            .await
            .expect("every byte moves the end");
        rig.clock.advance(HOUR);
        let touched = rig.put(&session, 12 * MIB, &[1; 300]).await;
        assert!(matches!(touched, Err(EngineError::Gone)), "{touched:?}");
        assert!(matches!(
            rig.engine.status(session.id, &session.key).await,
            Err(EngineError::Gone)
        ));
        assert!(!is_gone(&rig, &session));
        let report = prune_after_jump(&rig).await;
        assert_eq!((report.expired, report.failed), (1, 0), "{report:?}");
        assert!(is_gone(&rig, &session), "{:?}", files_of(&rig, &session));
        assert_eq!(events(&rig, "expired"), 1);
        rig.clock.advance(HOUR);
        rig.engine.prune(false).await.unwrap();
        rig.clock.advance(24 * HOUR);
        let report = rig.engine.prune(false).await.unwrap();
        assert_eq!(report.purged, 1, "{report:?}");
        assert!(matches!(
            rig.engine.status(session.id, &session.key).await,
            Err(EngineError::NotFound)
        ));
    }
}

#[tokio::test]
async fn nothing_expires_right_after_the_clock_jumped() {
    for rig in both().await {
        rig.create(Some(100)).await;
        rig.clock.advance(100 * HOUR);
        for _ in 0..2 {
            rig.engine.prune(true).await.unwrap();
        }
        assert_eq!(rig.engine.prune(false).await.unwrap().expired, 0);
        assert_eq!(rig.engine.prune(true).await.unwrap().expired, 1);
        assert_eq!(rig.engine.prune(false).await.unwrap().expired, 1);
    }
}

#[tokio::test]
async fn a_writer_that_is_slow_is_not_expired() {
    for rig in both().await {
        let bytes = noise(MIB, 94);
        let session = rig.create(Some(MIB)).await;
        let (feed, running) = writer(&rig.engine, &session, 0, MIB).await;
        send(&feed, &bytes[..1000], 100);
        rig.clock.advance(HOUR + HOUR / 2);
        assert_eq!(prune_after_jump(&rig).await.expired, 0);
        send(&feed, &bytes[1000..], 60_000);
        drop(feed);
        running.await.unwrap().unwrap();
        rig.expect_whole(&session, &bytes).await;
    }
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    for rig in both().await {
        let session = rig.create(Some(13 * MIB)).await;
        rig.put(&session, 0, &noise(12 * MIB, 95)).await.unwrap();
        rig.clock.advance(2 * HOUR);
        let listing = |rig: &Rig| {
            let folder = rig.ground.folder.path();
            let mut names = Vec::new();
            for sub in ["spool", "staging", "objects"] {
                if let Ok(entries) = std::fs::read_dir(folder.join(sub)) {
                    names.extend(entries.map(|entry| entry.unwrap().path()));
                }
            }
            names.sort();
            names
        };
        let before = (listing(&rig), rig.catalog.load(session.id).await.unwrap());
        for _ in 0..3 {
            rig.engine.prune(true).await.unwrap();
        }
        assert!(before == (listing(&rig), rig.catalog.load(session.id).await.unwrap()));
        let would = {
            rig.engine.prune(false).await.unwrap();
            rig.engine.prune(true).await.unwrap()
        };
        assert_eq!(would.expired, 1);
        assert_eq!(events(&rig, "expired"), 0);
    }
}

#[tokio::test]
async fn own_only_others_multipart_uploads_are_counted_and_left() {
    let rig = Rig::s3().await;
    foreign(&rig).await;
    let live = rig.create(Some(13 * MIB)).await;
    rig.put(&live, 0, &noise(12 * MIB, 96)).await.unwrap();
    until("its parts are there", async || {
        rig.s3_server().backend().open_uploads().len() == 2
    })
    .await;
    let report = rig.engine.prune(false).await.unwrap();
    assert_eq!(
        (report.foreign, report.multipart_aborted),
        (1, 0),
        "{report:?}"
    );
    rig.engine.abort(live.id, &live.key).await.unwrap();
    rig.clock.advance(YEARS);
    for _ in 0..3 {
        let report = rig.engine.prune(false).await.unwrap();
        assert_eq!(report.foreign, 1, "{report:?}");
    }
    assert!(foreign_is_there(&rig));
}

/// Begun twice, because the answer of the first was lost: the stray goes when it is old, the upload goes on.
#[tokio::test]
async fn a_stray_multipart_upload_of_ours_goes() {
    let (rig, faults) = faulty(Ground::s3().await).await;
    let bytes = noise(13 * MIB, 97);
    let session = rig.create(Some(13 * MIB)).await;
    faults.fail(Call::Begin, When::Next(1), Fault::LostAnswer);
    rig.put(&session, 0, &bytes[..12 * MIB as usize])
        .await
        .unwrap();
    until("one is left", async || {
        receipts(&rig, &session).await == 2 && rig.s3_server().backend().open_uploads().len() == 1
    })
    .await;
    let Shape::Parts(parts) = rig.store.shape() else {
        panic!()
    };
    let about = About {
        upload: session.id,
        content_type: None,
    };
    let key = rig.status(&session).await.upload.store_key;
    parts.begin(&key, &about, MadeOf::Parts).await.unwrap();
    rig.put(&session, 12 * MIB, &bytes[12 * MIB as usize..])
        .await
        .unwrap();
    rig.expect_whole(&session, &bytes).await;
    rig.clock.advance(YEARS);
    rig.engine.prune(false).await.unwrap();
    assert!(rig.s3_server().backend().open_uploads().is_empty());
    assert!(rig.s3_server().backend().bytes(key.as_str()) == Some(bytes));
}

#[tokio::test]
async fn creating_again_with_the_same_key_is_the_same_upload() {
    for rig in both().await {
        let create = |length: u64| Create {
            protocol: Protocol::Native,
            declared: Declared::default(),
            length: Some(Length(length)),
            idempotency: Some(IdempotencyKey(String::from("k"))),
            role: NewRole::Whole,
            seal: None,
        };
        let one = rig.engine.create(create(1000)).await.unwrap();
        let two = rig.engine.create(create(1000)).await.unwrap();
        assert_eq!(one.upload.id, two.upload.id);
        let stale = rig
            .engine
            .admit(write(
                &Session {
                    id: one.upload.id,
                    key: one.key,
                },
                0,
                10,
            ))
            .await;
        assert!(
            matches!(stale.map(|_| ()), Err(EngineError::NotFound)),
            "the key was shown again, as a new one"
        );
        let other = rig.engine.create(create(999)).await;
        assert!(matches!(other, Err(EngineError::IdempotencyMismatch)));
        let session = Session {
            id: two.upload.id,
            key: two.key,
        };
        let bytes = noise(1000, 98);
        rig.put_body(&session, 0, 1000, body_of(&bytes))
            .await
            .unwrap();
        assert!(matches!(
            rig.engine.create(create(1000)).await,
            Err(EngineError::InUse)
        ));
        rig.expect_whole(&session, &bytes).await;
    }
}
