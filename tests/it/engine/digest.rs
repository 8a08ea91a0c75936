//! Digests: of a chunk, which counts whole or not at all, and of the whole.

use std::time::Duration;

use jumar::engine::{Complete, Completion, EngineError, Write, Written};
use jumar::model::digest::Digests;
use jumar::model::upload::{Declared, FailureReason};
use jumar::model::{DigestAlgorithm, Length};
use jumar::store::call::Call;
use jumar::store::faulty::{Fault, When};

use super::kit::{both, digests_of, events, faulty, is_gone, rig_with, send, until, writer};
use crate::support::rig::{Ground, MIB, Rig, Session, body_of, cut, fed_body, noise, write};

fn checked(session: &Session, start: u64, len: u64, digests: Digests) -> Write {
    Write {
        digests: digests.into(),
        ..write(session, start, len)
    }
}

/// Sends all of the bytes at once, with digests that they should have.
async fn put_checked(
    rig: &Rig,
    session: &Session,
    bytes: &[u8],
    digests: Digests,
) -> Result<Written, EngineError> {
    let write = checked(session, 0, bytes.len() as u64, digests);
    let admission = rig.engine.admit(write).await.unwrap();
    admission.run(body_of(bytes)).await
}

#[tokio::test]
async fn exact_bytes_a_chunk_with_a_wrong_digest_leaves_all_as_it_was() {
    for rig in both().await {
        let bytes = noise(6 * MIB, 40);
        let session = rig.create(Some(6 * MIB)).await;
        rig.put(&session, MIB, &bytes[MIB as usize..2 * MIB as usize])
            .await
            .unwrap();
        let before = rig.status(&session).await;
        for algorithm in DigestAlgorithm::ALL {
            let wrong = digests_of(&[algorithm], b"something else");
            let outcome = put_checked(&rig, &session, &bytes, wrong).await;
            assert!(
                matches!(outcome, Err(EngineError::DigestMismatch { algorithm: of }) if of == algorithm),
                "{outcome:?}"
            );
            let after = rig.status(&session).await;
            assert_eq!(
                (after.received, after.upload),
                (before.received.clone(), before.upload.clone())
            );
        }
        let right = digests_of(&DigestAlgorithm::ALL, &bytes);
        put_checked(&rig, &session, &bytes, right).await.unwrap();
        rig.expect_whole(&session, &bytes).await;
    }
}

/// A refused body's last write is slow: whoever brings the right bytes next waits for it.
#[tokio::test]
async fn one_writer_a_refused_chunk_writes_nothing_behind_the_next_one() {
    let (rig, faults) = faulty(Ground::fs()).await;
    let bytes = noise(100_000, 45);
    let session = rig.create(Some(100_000)).await;
    faults.fail(
        Call::WriteAt,
        When::Next(1),
        Fault::Delay(Duration::from_millis(300)),
    );
    let right = digests_of(&[DigestAlgorithm::Sha256], &bytes);
    let wrong = noise(100_000, 46);
    let outcome = put_checked(&rig, &session, &wrong, right).await;
    assert!(
        matches!(outcome, Err(EngineError::DigestMismatch { .. })),
        "{outcome:?}"
    );
    rig.put(&session, 0, &bytes).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    rig.expect_whole(&session, &bytes).await;
}

#[tokio::test]
async fn bounded_wrong_chunks_over_many_cells_take_their_room_once() {
    let rig = rig_with(Ground::s3().await, |settings| {
        settings.spool_max_bytes = 72 * MIB;
    })
    .await;
    let bytes = noise(64 * MIB, 41);
    let session = rig.create(Some(64 * MIB)).await;
    let wrong = digests_of(&[DigestAlgorithm::Crc32c], b"something else");
    for _ in 0..3 {
        let outcome = put_checked(&rig, &session, &bytes, wrong.clone()).await;
        assert!(
            matches!(outcome, Err(EngineError::DigestMismatch { .. })),
            "{outcome:?}"
        );
        assert!(rig.status(&session).await.received.is_empty());
    }
    let right = digests_of(&[DigestAlgorithm::Crc32c], &bytes);
    put_checked(&rig, &session, &bytes, right).await.unwrap();
    rig.expect_whole(&session, &bytes).await;
}

/// Room in the spool that a failed chunk took is free again when the cell has gone to the store another way.
#[tokio::test]
async fn bounded_the_spool_is_empty_when_all_cells_have_landed() {
    let rig = Rig::s3().await;
    let bytes = noise(21 * MIB, 42);
    let session = rig.create(Some(21 * MIB)).await;
    let wrong = digests_of(&[DigestAlgorithm::Md5], b"something else");
    let outcome = put_checked(&rig, &session, &bytes, wrong).await;
    assert!(outcome.is_err());
    rig.put(&session, 0, &bytes[..20 * MIB as usize])
        .await
        .unwrap();
    until("only the last cell is in the tail", async || {
        super::kit::files_of(&rig, &session).len() <= 1
    })
    .await;
    rig.put(&session, 20 * MIB, &bytes[20 * MIB as usize..])
        .await
        .unwrap();
    rig.expect_whole(&session, &bytes).await;
}

#[tokio::test]
async fn a_chunk_with_a_digest_counts_whole_or_not_at_all() {
    for rig in both().await {
        let bytes = noise(6 * MIB, 43);
        let session = rig.create(Some(6 * MIB)).await;
        let right = digests_of(&[DigestAlgorithm::Sha256], &bytes);
        let (feed, body) = fed_body();
        send(&feed, &bytes[..5_500_000], 100_000);
        feed.send(cut()).unwrap();
        let write = checked(&session, 0, 6 * MIB, right.clone());
        let admission = rig.engine.admit(write).await.unwrap();
        assert!(admission.run(body).await.is_err());
        assert!(rig.status(&session).await.received.is_empty());
        let whole = put_checked(&rig, &session, &bytes, right.clone()).await;
        whole.unwrap();
        rig.expect_whole(&session, &bytes).await;
        let most = rig.engine.settings().max_checksummed_chunk_bytes;
        let large = rig.create(Some(2 * most)).await;
        let refused = rig.engine.admit(checked(&large, 0, most + 1, right)).await;
        assert!(matches!(refused, Err(EngineError::TooLarge { .. })));
    }
}

async fn expect_wrong(rig: &Rig, session: &Session) {
    let outcome = rig.complete(session).await;
    assert!(
        matches!(outcome, Err(EngineError::DigestMismatch { .. })),
        "{outcome:?}"
    );
    let again = rig.complete(session).await;
    assert!(
        matches!(
            again,
            Err(EngineError::Failed {
                reason: FailureReason::DigestMismatch
            })
        ),
        "{again:?}"
    );
    assert!(
        is_gone(rig, session),
        "{:?}",
        super::kit::files_of(rig, session)
    );
    assert_eq!((events(rig, "failed"), events(rig, "completed")), (1, 0));
}

fn declaring(digests: Digests) -> Declared {
    Declared {
        digests,
        ..Declared::default()
    }
}

#[tokio::test]
async fn exact_bytes_another_digest_than_declared_fails_and_leaves_nothing() {
    for len in [1000, 5 * MIB, 12 * MIB] {
        for rig in both().await {
            let wrong = digests_of(&[DigestAlgorithm::Md5], b"something else");
            let session = rig.create_declaring(Some(len), declaring(wrong)).await;
            rig.put(&session, 0, &noise(len, 44)).await.unwrap();
            expect_wrong(&rig, &session).await;
        }
    }
}

#[tokio::test]
async fn exact_bytes_another_digest_than_declared_fails_after_reading_back() {
    let rig = rig_with(Ground::s3().await, |settings| {
        settings.spool_max_bytes = 12 * MIB;
    })
    .await;
    let wrong = digests_of(&[DigestAlgorithm::Sha512], b"something else");
    let session = rig.create_declaring(Some(30 * MIB), declaring(wrong)).await;
    let bytes = noise(30 * MIB, 45);
    for start in (0..30).rev() {
        let at = start as usize * MIB as usize;
        rig.put(&session, start * MIB, &bytes[at..at + MIB as usize])
            .await
            .unwrap();
    }
    assert!(rig.status(&session).await.upload.readback);
    expect_wrong(&rig, &session).await;
}

#[tokio::test]
async fn exact_bytes_every_digest_declared_at_creation_or_completion() {
    for late in [false, true] {
        for rig in both().await {
            let bytes = noise(12 * MIB, 46);
            let right = digests_of(&DigestAlgorithm::ALL, &bytes);
            let at_creation = if late {
                Digests::default()
            } else {
                right.clone()
            };
            let session = rig
                .create_declaring(Some(12 * MIB), declaring(at_creation))
                .await;
            rig.put(&session, 0, &bytes[..7 * MIB as usize])
                .await
                .unwrap();
            let rig = rig.restart().await;
            rig.put(&session, 7 * MIB, &bytes[7 * MIB as usize..])
                .await
                .unwrap();
            let complete = |digests: Digests| Complete {
                id: session.id,
                key: session.key.clone(),
                digests,
                length: Some(Length(12 * MIB)),
            };
            let done = rig.engine.complete(complete(right.clone())).await.unwrap();
            let Completion::Done { object, .. } = done else {
                panic!("{done:?}")
            };
            assert_eq!(object.digests.first_conflict(&right), None);
            assert_eq!(object.digests, right);
            assert!(rig.stored(&object).await == bytes);
            rig.engine.complete(complete(right)).await.unwrap();
            let wrong = digests_of(&[DigestAlgorithm::Sha256], b"something else");
            let refused = rig.engine.complete(complete(wrong)).await;
            assert!(
                matches!(refused, Err(EngineError::DigestMismatch { .. })),
                "{refused:?}"
            );
        }
    }
}

/// Asked for at the end, while a writer's and the settler's hash of other algorithms may still be on their way.
#[tokio::test]
async fn exact_bytes_a_digest_asked_for_while_hashing_goes_on() {
    for rig in both().await {
        for round in 0..4 {
            let bytes = noise(9 * MIB, 47 + round);
            let session = rig.create(Some(9 * MIB)).await;
            for start in [6, 3, 0] {
                let at = start as usize * MIB as usize;
                rig.put(&session, start * MIB, &bytes[at..at + 3 * MIB as usize])
                    .await
                    .unwrap();
            }
            let right = digests_of(&[DigestAlgorithm::Sha512], &bytes);
            let complete = Complete {
                id: session.id,
                key: session.key.clone(),
                digests: right.clone(),
                length: None,
            };
            let done = rig.engine.complete(complete).await.unwrap();
            let Completion::Done { object, .. } = done else {
                panic!("{done:?}")
            };
            assert_eq!(object.digests.first_conflict(&right), None);
            assert_eq!(
                object.digests.get(DigestAlgorithm::Sha512),
                right.get(DigestAlgorithm::Sha512)
            );
        }
    }
}

#[tokio::test]
async fn what_was_hashed_is_not_read_again() {
    let (rig, faults) = faulty(Ground::fs()).await;
    let bytes = noise(12 * MIB, 48);
    let session = rig.create(Some(12 * MIB)).await;
    let mut at = 0;
    for to in [3 * MIB + 1, 5 * MIB, 9 * MIB + 77] {
        let (feed, running) = writer(&rig.engine, &session, at, 12 * MIB - at).await;
        send(&feed, &bytes[at as usize..to as usize], 90_000);
        feed.send(cut()).unwrap();
        assert!(running.await.unwrap().is_err());
        at = to;
    }
    rig.put(&session, at, &bytes[at as usize..]).await.unwrap();
    let object = rig.complete(&session).await.unwrap();
    assert_eq!(faults.count(Call::ReadAt), 0);
    assert!(rig.stored(&object).await == bytes);
}

#[tokio::test]
async fn what_was_hashed_before_a_restart_is_not_hashed_again() {
    for rig in both().await {
        let bytes = noise(12 * MIB, 49);
        let session = rig.create(Some(12 * MIB)).await;
        let (feed, running) = writer(&rig.engine, &session, 0, 12 * MIB).await;
        send(&feed, &bytes[..8 * MIB as usize + 3], 90_000);
        feed.send(cut()).unwrap();
        assert!(running.await.unwrap().is_err());
        let rig = rig.restart().await;
        let snapshot = rig.catalog.load(session.id).await.unwrap().unwrap();
        assert_eq!(snapshot.upload.hash.offset.get(), 8 * MIB + 3);
        rig.put(&session, 8 * MIB + 3, &bytes[8 * MIB as usize + 3..])
            .await
            .unwrap();
        let snapshot = rig.catalog.load(session.id).await.unwrap().unwrap();
        assert_eq!(snapshot.upload.hash.offset.get(), 12 * MIB);
        assert!(!snapshot.upload.readback);
        rig.expect_whole(&session, &bytes).await;
    }
}
