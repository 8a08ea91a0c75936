//! Every call to the store in every way that it can go wrong: the upload survives, and nothing is left over.

use std::time::Duration;

use jumar::engine::EngineError;
use jumar::model::UploadState;
use jumar::model::upload::FailureReason;
use jumar::store::call::Call;
use jumar::store::faulty::{Fault, Faults, When};

use super::kit::{digests_of, events, faulty, faulty_with, is_gone, rig_with, until, writer};
use crate::support::rig::{Ground, MIB, Rig, Session, noise};
use crate::support::s3::Quirks;

const FAULTS: [Fault; 6] = [
    Fault::Unavailable,
    Fault::LostAnswer,
    Fault::Hang,
    Fault::HangAfter,
    Fault::NotFound,
    Fault::Changed,
];

/// A client that comes back until it is through, and a job that goes on with what is due.
async fn through(
    rig: &Rig,
    session: &Session,
    bytes: &[u8],
    faults: &Faults,
) -> Result<(), String> {
    for round in 0..12 {
        if round == 2 {
            faults.heal();
        }
        let at = match rig.engine.displace(session.id, &session.key, None).await {
            Ok(written) => usize::try_from(written.offset.get()).unwrap(),
            Err(EngineError::Failed { reason }) => return Err(reason.to_string()),
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                continue;
            }
        };
        if at < bytes.len() {
            let put = rig.put(session, at as u64, &bytes[at..]);
            // A client does not wait for ever for an answer.
            let _ = tokio::time::timeout(Duration::from_millis(700), put).await;
        }
        let complete = tokio::time::timeout(Duration::from_millis(700), rig.complete(session));
        if let Ok(Ok(_)) = complete.await {
            rig.expect_whole(session, bytes).await;
            return Ok(());
        }
        rig.clock.advance(Duration::from_secs(61));
        rig.engine.recover(false).await.unwrap();
    }
    Err(format!(
        "not through: {:?}",
        rig.status(session).await.upload.state
    ))
}

async fn survives(ground: Ground, len: u64, call: Call, fault: Fault) {
    let label = format!("{call:?} {fault:?} {len}");
    let (rig, faults) = faulty_with(ground, |settings| {
        settings.session_ttl = Duration::from_secs(1_000_000);
        settings.session_max_age = Duration::from_secs(1_000_000);
    })
    .await;
    let bytes = noise(len, 80);
    let session = rig.create(Some(len)).await;
    faults.fail(call, When::Next(1), fault);
    let outcome = through(&rig, &session, &bytes, &faults).await;
    assert_eq!(outcome, Ok(()), "{label}");
    assert_eq!(
        (events(&rig, "completed"), events(&rig, "failed")),
        (1, 0),
        "{label}"
    );
    faults.heal();
    rig.clock.advance(Duration::from_secs(100_000_000));
    for _ in 0..2 {
        rig.engine.prune(false).await.unwrap();
    }
    if let Some(server) = &rig.ground.s3 {
        assert!(server.backend().open_uploads().is_empty(), "{label}");
        assert_eq!(server.backend().keys().len(), 1, "{label}");
    }
}

#[tokio::test]
async fn exact_bytes_through_faults_of_parts() {
    for fault in FAULTS {
        for call in [Call::Begin, Call::PutPart, Call::Finish] {
            survives(Ground::s3().await, 12 * MIB, call, fault).await;
        }
    }
}

#[tokio::test]
async fn exact_bytes_through_faults_of_a_single_put() {
    for fault in FAULTS {
        survives(Ground::s3().await, 100_000, Call::Put, fault).await;
    }
}

#[tokio::test]
async fn exact_bytes_through_faults_of_a_folder() {
    for fault in FAULTS {
        for call in [Call::Open, Call::WriteAt, Call::Publish, Call::Discard] {
            // A folder has what was written to it.
            if call == Call::Open && fault == Fault::NotFound {
                continue;
            }
            survives(Ground::fs(), 3 * MIB, call, fault).await;
        }
    }
}

/// A multipart upload that the store denies, and does not list, is replaced; what was on its way into the old one is put again.
#[tokio::test]
async fn never_back_a_part_that_lands_in_a_multipart_upload_that_was_given_up() {
    let (rig, faults) = faulty(Ground::s3().await).await;
    rig.s3_server().control().set_quirks(Quirks {
        stale_lists: true,
        ..Quirks::default()
    });
    faults.fail(Call::PutPart, When::Nth(1), Fault::HangAfter);
    faults.fail(Call::PutPart, When::Nth(2), Fault::NotFound);
    let bytes = noise(12 * MIB, 105);
    let session = rig.create(Some(12 * MIB)).await;
    let put = rig.put(&session, 0, &bytes);
    let released = async {
        until("the other part is put again", async || {
            faults.count(Call::PutPart) >= 3
        })
        .await;
        faults.release();
    };
    let (put, ()) = tokio::join!(put, released);
    put.unwrap();
    rig.s3_server().control().set_quirks(Quirks::default());
    rig.expect_whole(&session, &bytes).await;
}

/// What the store does not have is looked for again; only when it stays so for a while, the upload is lost.
#[tokio::test]
async fn exact_bytes_a_store_that_is_behind_loses_nothing() {
    for stays in [false, true] {
        for (ground, call, fault) in [
            (Ground::s3().await, Call::Finish, Fault::NotFound),
            (Ground::s3().await, Call::Finish, Fault::Changed),
            (Ground::fs(), Call::Publish, Fault::NotFound),
        ] {
            let label = format!("{call:?} {fault:?} {stays}");
            let (rig, faults) = faulty(ground).await;
            let bytes = noise(12 * MIB, 104);
            let session = rig.create(Some(12 * MIB)).await;
            rig.put(&session, 0, &bytes).await.unwrap();
            faults.fail(call, When::Always, fault);
            for secs in [0, 0, 59] {
                rig.clock.advance(Duration::from_secs(secs));
                let outcome = rig.complete(&session).await;
                assert!(
                    matches!(outcome, Err(EngineError::Unavailable { .. })),
                    "{label}: {outcome:?}"
                );
            }
            assert_eq!(events(&rig, "failed"), 0, "{label}");
            if !stays {
                faults.heal();
            }
            rig.clock.advance(Duration::from_secs(1));
            if stays {
                let outcome = rig.complete(&session).await;
                let reason = FailureReason::StoreLost;
                assert!(
                    matches!(outcome, Err(EngineError::Failed { reason: found }) if found == reason),
                    "{label}: {outcome:?}"
                );
                assert_eq!(events(&rig, "failed"), 1, "{label}");
                assert!(is_gone(&rig, &session), "{label}");
            } else {
                rig.expect_whole(&session, &bytes).await;
            }
        }
    }
}

/// An earlier try took effect and its answer was lost; the store says that the parts are wrong, and has the object.
#[tokio::test]
async fn told_once_where_the_object_is_there_after_all() {
    for fault in [Fault::NotFound, Fault::Changed] {
        let (rig, faults) = faulty(Ground::s3().await).await;
        let bytes = noise(12 * MIB, 105);
        let session = rig.create(Some(12 * MIB)).await;
        rig.put(&session, 0, &bytes).await.unwrap();
        faults.fail(Call::Finish, When::Next(1), Fault::LostAnswer);
        assert!(rig.complete(&session).await.is_err());
        faults.fail(Call::Finish, When::Always, fault);
        rig.expect_whole(&session, &bytes).await;
        assert_eq!((events(&rig, "completed"), events(&rig, "failed")), (1, 0));
    }
}

/// How long the store stays with it that something is missing is known though nobody asks in between.
#[tokio::test]
async fn an_upload_that_nobody_asks_for_is_lost_in_the_end() {
    let (rig, faults) = faulty(Ground::fs()).await;
    let session = rig.create(Some(10)).await;
    rig.put(&session, 0, &[1; 10]).await.unwrap();
    faults.fail(Call::Publish, When::Always, Fault::NotFound);
    assert!(rig.complete(&session).await.is_err());
    // What nobody touches leaves the memory in this time.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(100)).await;
    tokio::time::resume();
    tokio::time::sleep(Duration::from_millis(50)).await;
    rig.clock.advance(Duration::from_secs(100));
    rig.engine.recover(false).await.unwrap();
    until("it is lost", async || events(&rig, "failed") == 1).await;
}

/// The answer to finishing was lost, and looking for the object fails too.
#[tokio::test]
async fn told_once_where_looking_for_the_object_fails() {
    for fault in [Fault::Unavailable, Fault::LostAnswer, Fault::Hang] {
        let (rig, faults) = faulty(Ground::s3().await).await;
        let bytes = noise(12 * MIB, 81);
        let session = rig.create(Some(12 * MIB)).await;
        rig.put(&session, 0, &bytes).await.unwrap();
        faults.fail(Call::Finish, When::Next(1), Fault::LostAnswer);
        faults.fail(Call::Head, When::Next(1), fault);
        let mut session_done = false;
        for _ in 0..4 {
            let asked = tokio::time::timeout(Duration::from_millis(800), rig.complete(&session));
            if matches!(asked.await, Ok(Ok(_))) {
                session_done = true;
                break;
            }
            faults.release();
            rig.clock.advance(Duration::from_secs(61));
        }
        assert!(session_done);
        assert_eq!((events(&rig, "completed"), events(&rig, "failed")), (1, 0));
        rig.expect_whole(&session, &bytes).await;
    }
}

/// Reading back fails: it is tried again, and a wrong digest found then still removes the object.
#[tokio::test]
async fn exact_bytes_where_reading_back_fails() {
    for right in [true, false] {
        for fault in [Fault::Unavailable, Fault::LostAnswer, Fault::NotFound] {
            let (rig, faults) = faulty_with(Ground::s3().await, |settings| {
                settings.spool_max_bytes = 12 * MIB;
            })
            .await;
            let bytes = noise(30 * MIB, 82);
            let of: &[u8] = if right { &bytes } else { b"something else" };
            let declared = jumar::model::upload::Declared {
                digests: digests_of(&[jumar::model::DigestAlgorithm::Crc64Nvme], of),
                ..Default::default()
            };
            let session = rig.create_declaring(Some(30 * MIB), declared).await;
            for start in (0..30).rev() {
                let at = start as usize * MIB as usize;
                rig.put(&session, start * MIB, &bytes[at..at + MIB as usize])
                    .await
                    .unwrap();
            }
            faults.fail(Call::Read, When::Next(2), fault);
            for _ in 0..2 {
                let outcome = rig.complete(&session).await;
                assert!(
                    matches!(outcome, Err(EngineError::Unavailable { .. })),
                    "{outcome:?}"
                );
                let content = rig.engine.content(session.id, Some(&session.key)).await;
                assert!(
                    matches!(content, Err(EngineError::Incomplete { .. })),
                    "not named before it is known"
                );
            }
            if right {
                rig.expect_whole(&session, &bytes).await;
            } else {
                faults.fail(Call::Delete, When::Next(1), Fault::Unavailable);
                let outcome = rig.complete(&session).await;
                assert!(
                    matches!(outcome, Err(EngineError::DigestMismatch { .. })),
                    "{outcome:?}"
                );
                rig.engine.prune(false).await.unwrap();
                assert!(is_gone(&rig, &session));
            }
        }
    }
}

#[tokio::test]
async fn keep_what_came_while_the_bucket_is_away() {
    let rig = Rig::s3().await;
    let bytes = noise(21 * MIB, 83);
    let session = rig.create(Some(21 * MIB)).await;
    rig.put(&session, 0, &bytes[..6 * MIB as usize])
        .await
        .unwrap();
    rig.s3_server().control().set_away(true);
    rig.put(
        &session,
        6 * MIB,
        &bytes[6 * MIB as usize..20 * MIB as usize],
    )
    .await
    .unwrap();
    let rig = rig.restart().await;
    assert_eq!(rig.offset(&session).await, 20 * MIB);
    assert!(!rig.engine.ready().await.store);
    rig.put(&session, 20 * MIB, &bytes[20 * MIB as usize..])
        .await
        .unwrap();
    let outcome = rig.complete(&session).await;
    assert!(
        matches!(outcome, Err(EngineError::Unavailable { .. })),
        "{outcome:?}"
    );
    rig.s3_server().control().heal();
    rig.expect_whole(&session, &bytes).await;
}

#[tokio::test]
async fn a_full_disk_is_told_and_works_again_after() {
    let (rig, faults) = faulty(Ground::fs()).await;
    let bytes = noise(3 * MIB, 84);
    let session = rig.create(Some(3 * MIB)).await;
    rig.put(&session, 0, &bytes[..MIB as usize]).await.unwrap();
    faults.fail(Call::WriteAt, When::Always, Fault::Full);
    let outcome = rig.put(&session, MIB, &bytes[MIB as usize..]).await;
    assert!(
        matches!(outcome, Err(EngineError::Unavailable { .. })),
        "{outcome:?}"
    );
    assert_eq!(
        rig.offset(&session).await,
        MIB,
        "nothing counts that is not there"
    );
    faults.heal();
    rig.put(&session, MIB, &bytes[MIB as usize..])
        .await
        .unwrap();
    rig.expect_whole(&session, &bytes).await;
}

#[tokio::test]
async fn a_sync_that_fails_counts_nothing() {
    let (rig, faults) = faulty_with(Ground::fs(), |settings| {
        settings.durability = jumar::engine::Durability::Power;
    })
    .await;
    let bytes = noise(3 * MIB, 85);
    let session = rig.create(Some(3 * MIB)).await;
    faults.fail(Call::Sync, When::Always, Fault::Unavailable);
    let outcome = rig.put(&session, 0, &bytes).await;
    assert!(
        matches!(outcome, Err(EngineError::Unavailable { .. })),
        "{outcome:?}"
    );
    assert_eq!(rig.offset(&session).await, 0);
    faults.heal();
    rig.put(&session, 0, &bytes).await.unwrap();
    assert!(faults.count(Call::Sync) >= 2);
    rig.expect_whole(&session, &bytes).await;
}

#[tokio::test]
async fn bounded_a_full_spool_is_told_and_works_again_after() {
    let rig = rig_with(Ground::s3().await, |settings| {
        settings.spool_max_bytes = 2 * MIB;
    })
    .await;
    let (one, two) = (noise(4 * MIB, 86), noise(4 * MIB, 87));
    let first = rig.create(Some(20 * MIB)).await;
    let second = rig.create(Some(20 * MIB)).await;
    rig.put(&first, 0, &one[..MIB as usize + 500_000])
        .await
        .unwrap();
    // Nobody waits for the rest of a cell that no room is left for.
    let (feed, running) = writer(&rig.engine, &second, 0, 2 * MIB).await;
    super::kit::send(&feed, &two[..MIB as usize], 50_000);
    drop(feed);
    let outcome = running.await.unwrap();
    assert!(
        matches!(outcome, Err(EngineError::Unavailable { .. })),
        "{outcome:?}"
    );
    let kept = rig.offset(&second).await;
    assert!(kept <= MIB / 2 + 100_000, "{kept}");
    rig.engine.abort(first.id, &first.key).await.unwrap();
    rig.put(&second, kept, &two[kept as usize..MIB as usize])
        .await
        .unwrap();
    assert_eq!(rig.offset(&second).await, MIB);
}

#[tokio::test]
async fn bounded_bodies_are_refused_where_the_disk_has_too_little() {
    for ground in [Ground::fs(), Ground::s3().await] {
        let rig = rig_with(ground, |settings| settings.min_free_bytes = u64::MAX).await;
        let session = rig.create(Some(MIB)).await;
        let refused = rig.put(&session, 0, &[1; 1000]).await;
        assert!(
            matches!(refused, Err(EngineError::Unavailable { .. })),
            "{refused:?}"
        );
        rig.engine.abort(session.id, &session.key).await.unwrap();
    }
}

#[tokio::test]
async fn cleaning_up_that_fails_is_repeated() {
    for call in [Call::Abort, Call::MultipartOf, Call::Delete] {
        for fault in [Fault::Unavailable, Fault::LostAnswer, Fault::Hang] {
            let (rig, faults) = faulty(Ground::s3().await).await;
            let session = rig.create(Some(12 * MIB)).await;
            rig.put(&session, 0, &noise(11 * MIB, 88)).await.unwrap();
            faults.fail(call, When::Next(1), fault);
            rig.engine.abort(session.id, &session.key).await.unwrap();
            faults.heal();
            until("all is gone", async || {
                rig.engine.prune(false).await.unwrap();
                is_gone(&rig, &session)
            })
            .await;
            let outcome = rig.engine.status(session.id, &session.key).await;
            assert!(matches!(outcome, Err(EngineError::Gone)));
        }
    }
}

#[tokio::test]
async fn an_upload_in_assembly_tells_so() {
    let (rig, faults) = faulty(Ground::s3().await).await;
    let session = rig.create(Some(6 * MIB)).await;
    rig.put(&session, 0, &noise(6 * MIB, 89)).await.unwrap();
    faults.fail(Call::Finish, When::Next(1), Fault::Unavailable);
    assert!(rig.complete(&session).await.is_err());
    let state = rig.status(&session).await.upload.state;
    assert!(
        matches!(state, UploadState::Assembling { attempts: 1, .. }),
        "{state:?}"
    );
    let refused = rig.engine.abort(session.id, &session.key).await;
    assert!(matches!(refused, Err(EngineError::Completed)));
    rig.put(&session, 0, &noise(6 * MIB, 89))
        .await
        .expect("read and skipped");
}
