//! Recovering: an assembly that stopped anywhere is finished by itself, once.

use std::time::Duration;

use jumar::engine::EngineError;
use jumar::model::upload::FailureReason;
use jumar::model::{Length, UploadState};
use jumar::store::call::Call;
use jumar::store::faulty::{Fault, When};

use super::kit::{events, faulty, is_gone, receipts, send, spoil, until, writer};
use crate::support::rig::{Ground, MIB, Rig, Session, cut, noise};
use crate::support::s3::Quirks;

async fn finished_by_itself(rig: &Rig, session: &Session, sent: &[u8]) {
    until("it is completed by itself", async || {
        matches!(
            rig.status(session).await.upload.state,
            UploadState::Completed { .. }
        )
    })
    .await;
    assert_eq!(events(rig, "completed"), 1);
    rig.expect_whole(session, sent).await;
}

fn finish_of(rig: &Rig) -> Call {
    if rig.ground.s3.is_some() {
        Call::Finish
    } else {
        Call::Publish
    }
}

#[tokio::test]
async fn told_once_after_a_failure_when_it_is_due() {
    for fault in [Fault::Unavailable, Fault::LostAnswer] {
        for ground in [Ground::fs(), Ground::s3().await] {
            let (rig, faults) = faulty(ground).await;
            let bytes = noise(11 * MIB, 70);
            let session = rig.create(Some(11 * MIB)).await;
            rig.put(&session, 0, &bytes).await.unwrap();
            faults.fail(finish_of(&rig), When::Next(1), fault);
            let outcome = rig.complete(&session).await;
            assert!(
                matches!(outcome, Err(EngineError::Unavailable { .. })),
                "{outcome:?}"
            );
            rig.engine.recover(false).await.unwrap();
            assert!(
                matches!(
                    rig.status(&session).await.upload.state,
                    UploadState::Assembling { .. }
                ),
                "not due yet"
            );
            rig.clock.advance(Duration::from_secs(6));
            rig.engine.recover(false).await.unwrap();
            finished_by_itself(&rig, &session, &bytes).await;
        }
    }
}

#[tokio::test]
async fn told_once_after_a_restart_in_the_middle() {
    for fault in [Fault::Hang, Fault::Unavailable, Fault::LostAnswer] {
        for ground in [Ground::fs(), Ground::s3().await] {
            let (rig, faults) = faulty(ground).await;
            let bytes = noise(11 * MIB, 71);
            let session = rig.create(Some(11 * MIB)).await;
            rig.put(&session, 0, &bytes).await.unwrap();
            let finish = finish_of(&rig);
            faults.fail(finish, When::Next(1), fault);
            let (engine, asked) = (rig.engine.clone(), session.clone());
            let caller = tokio::spawn(async move {
                let complete = jumar::engine::Complete {
                    id: asked.id,
                    key: asked.key,
                    digests: jumar::model::digest::Digests::default(),
                    length: None,
                };
                engine.complete(complete).await
            });
            until("it is being finished", async || faults.count(finish) == 1).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            caller.abort();
            let rig = rig.restart().await;
            rig.engine.recover(true).await.unwrap();
            finished_by_itself(&rig, &session, &bytes).await;
            faults.heal();
            tokio::time::sleep(Duration::from_millis(200)).await;
            rig.expect_whole(&session, &bytes).await;
            assert_eq!((events(&rig, "completed"), events(&rig, "failed")), (1, 0));
        }
    }
}

#[tokio::test]
async fn never_back_over_a_restart_at_every_stage() {
    for ground in [Ground::fs(), Ground::s3().await] {
        let mut rig = ground.rig().await;
        let bytes = noise(17 * MIB + 9, 72);
        let session = rig.create(None).await;
        let mut at = 0;
        for to in [0, 1, 5 * MIB, 5 * MIB + 1, 9 * MIB, 16 * MIB, 17 * MIB + 9] {
            let (feed, running) = writer(&rig.engine, &session, at, 17 * MIB + 9 - at).await;
            send(&feed, &bytes[at as usize..to as usize], 70_000);
            feed.send(cut()).unwrap();
            assert!(running.await.unwrap().is_err());
            rig = rig.restart().await;
            assert_eq!(rig.offset(&session).await, to);
            at = to;
        }
        rig.expect_whole(&session, &bytes).await;
        let rig = rig.restart().await;
        rig.expect_whole(&session, &bytes).await;
    }
}

/// The process ends with a writer in the middle of it; what was committed on the way is there.
#[tokio::test]
async fn never_back_what_a_status_told_before_the_end() {
    for ground in [Ground::fs(), Ground::s3().await] {
        let rig = ground.rig().await;
        let bytes = noise(8 * MIB, 73);
        let session = rig.create(Some(8 * MIB)).await;
        let (feed, running) = writer(&rig.engine, &session, 0, 8 * MIB).await;
        send(&feed, &bytes[..7 * MIB as usize], 70_000);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let told = rig.offset(&session).await;
        running.abort();
        let rig = rig.restart().await;
        let there = rig.offset(&session).await;
        assert!(there >= told, "{there} {told}");
        rig.put(&session, there, &bytes[there as usize..])
            .await
            .unwrap();
        rig.expect_whole(&session, &bytes).await;
    }
}

#[tokio::test]
async fn keep_what_came_when_the_process_stops() {
    for ground in [Ground::fs(), Ground::s3().await] {
        let rig = ground.rig().await;
        let bytes = noise(8 * MIB, 74);
        let session = rig.create(Some(8 * MIB)).await;
        let (feed, running) = writer(&rig.engine, &session, 0, 8 * MIB).await;
        send(&feed, &bytes[..7 * MIB as usize + 5], 70_000);
        until("the writer has it", async || {
            rig.offset(&session).await == 7 * MIB + 5
        })
        .await;
        send(&feed, &bytes[7 * MIB as usize + 5..7 * MIB as usize + 9], 1);
        tokio::time::sleep(Duration::from_millis(100)).await;
        rig.engine.stop().await;
        assert!(running.await.unwrap().is_err());
        let rig = rig.restart().await;
        assert_eq!(rig.offset(&session).await, 7 * MIB + 9);
        rig.put(&session, 7 * MIB + 9, &bytes[7 * MIB as usize + 9..])
            .await
            .unwrap();
        rig.expect_whole(&session, &bytes).await;
    }
}

#[tokio::test]
async fn exact_bytes_what_the_store_lost_fails() {
    let rig = Rig::s3().await;
    let bytes = noise(12 * MIB, 75);
    let session = rig.create(Some(12 * MIB)).await;
    rig.put(&session, 0, &bytes).await.unwrap();
    until("all parts are there", async || {
        receipts(&rig, &session).await == 3
    })
    .await;
    rig.s3_server().backend().lose_uploads();
    let outcome = rig.complete(&session).await;
    assert!(
        matches!(outcome, Err(EngineError::Unavailable { .. })),
        "{outcome:?}"
    );
    rig.clock.advance(Duration::from_mins(1));
    for _ in 0..2 {
        let outcome = rig.complete(&session).await;
        assert!(
            matches!(
                outcome,
                Err(EngineError::Failed {
                    reason: FailureReason::StoreLost
                })
            ),
            "{outcome:?}"
        );
    }
    assert!(is_gone(&rig, &session));
    assert_eq!((events(&rig, "failed"), events(&rig, "completed")), (1, 0));
}

/// A multipart upload that the store lost before any part of it counted is begun again.
#[tokio::test]
async fn a_multipart_upload_lost_while_empty_is_begun_again() {
    let (rig, faults) = faulty(Ground::s3().await).await;
    let bytes = noise(12 * MIB, 76);
    let session = rig.create(Some(12 * MIB)).await;
    faults.fail(Call::PutPart, When::Next(1), Fault::Hang);
    let (feed, running) = writer(&rig.engine, &session, 0, 12 * MIB).await;
    send(&feed, &bytes[..6 * MIB as usize], 70_000);
    until("the first part is on its way", async || {
        faults.count(Call::PutPart) == 1
    })
    .await;
    rig.s3_server().backend().lose_uploads();
    faults.heal();
    send(&feed, &bytes[6 * MIB as usize..], 70_000);
    drop(feed);
    running.await.unwrap().unwrap();
    rig.expect_whole(&session, &bytes).await;
}

/// The store does not know a multipart upload for a moment, nor lists it, though parts of it have landed.
#[tokio::test]
async fn never_back_a_multipart_upload_is_not_found_for_a_moment() {
    for stays in [false, true] {
        let (rig, faults) = faulty(Ground::s3().await).await;
        let bytes = noise(13 * MIB, 77);
        let session = rig.create(Some(13 * MIB)).await;
        rig.put(&session, 0, &bytes[..6 * MIB as usize])
            .await
            .unwrap();
        until("a part is there", async || {
            let snapshot = rig.catalog.load(session.id).await.unwrap().unwrap();
            snapshot.parts.len() == 1
        })
        .await;
        rig.s3_server().control().set_quirks(Quirks {
            stale_lists: true,
            ..Quirks::default()
        });
        if stays {
            rig.s3_server().backend().lose_uploads();
        } else {
            faults.fail(Call::PutPart, When::Next(1), Fault::NotFound);
        }
        rig.put(&session, 6 * MIB, &bytes[6 * MIB as usize..])
            .await
            .expect("the tail takes it");
        if !stays {
            rig.expect_whole(&session, &bytes).await;
            continue;
        }
        let outcome = rig.complete(&session).await;
        assert!(
            matches!(outcome, Err(EngineError::Unavailable { .. })),
            "{outcome:?}"
        );
        rig.clock.advance(Duration::from_mins(1));
        let outcome = rig.complete(&session).await;
        assert!(
            matches!(
                outcome,
                Err(EngineError::Failed {
                    reason: FailureReason::StoreLost
                })
            ),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn holding_an_assembly_on_counts_no_attempt() {
    let (rig, faults) = faulty(Ground::fs()).await;
    let session = rig.create(Some(1000)).await;
    rig.put(&session, 0, &[1; 1000]).await.unwrap();
    faults.fail(Call::Publish, When::Next(1), Fault::Hang);
    let (engine, asked) = (rig.engine.clone(), session.clone());
    let caller = tokio::spawn(async move {
        let complete = jumar::engine::Complete {
            id: asked.id,
            key: asked.key,
            digests: jumar::model::digest::Digests::default(),
            length: None,
        };
        engine.complete(complete).await
    });
    until("it is being finished", async || {
        faults.count(Call::Publish) == 1
    })
    .await;
    let held = async || match rig
        .catalog
        .load(session.id)
        .await
        .unwrap()
        .unwrap()
        .upload
        .state
    {
        UploadState::Assembling { attempts, until } => (attempts, until),
        other => panic!("{other:?}"),
    };
    let (_, before) = held().await;
    rig.clock.advance(Duration::from_secs(20));
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(21)).await;
    tokio::time::resume();
    until("it is held for longer", async || held().await.1 > before).await;
    assert_eq!(held().await.0, 0);
    faults.heal();
    caller.await.unwrap().unwrap();
    rig.expect_whole(&session, &[1; 1000]).await;
}

/// More assemblies than one batch has cannot be read, and have waited longer than one that can.
#[tokio::test]
async fn one_that_cannot_be_read_keeps_no_assembly_waiting() {
    let rig = Rig::fs().await;
    let mut sessions = Vec::new();
    for n in 0..70 {
        let session = rig.create(Some(0)).await;
        let snapshot = rig.catalog.load(session.id).await.unwrap().unwrap();
        let (epoch, now) = (snapshot.upload.epoch, rig.clock.now());
        let until = now.after(Duration::from_millis(n));
        rig.catalog
            .begin_assembly(
                session.id,
                epoch,
                Length(0),
                jumar::model::digest::Digests::default(),
                jumar::catalog::Assemble { until, key: None },
                now,
            )
            .await
            .unwrap();
        sessions.push(session);
    }
    let good = sessions.pop().unwrap();
    for session in &sessions {
        spoil(
            &rig,
            "upload_sessions SET metadata = '[]' WHERE id",
            session,
        );
    }
    rig.clock.advance(Duration::from_secs(1));
    let rig = rig.restart().await;
    rig.engine.recover(false).await.unwrap();
    finished_by_itself(&rig, &good, &[]).await;
}
