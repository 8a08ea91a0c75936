//! A body that is all of its upload: one pass to the store, nothing put by on the way, and whole or not at all.

use std::time::Duration;

use bytes::Bytes;
use jumar::engine::{
    Body, BodyError, Create, EngineError, NewRole, Settings, Whole, Write, Written,
};
use jumar::model::digest::Digests;
use jumar::model::upload::{Declared, Protocol, Verified};
use jumar::model::{Digest, DigestAlgorithm, Length, UploadState};

use super::kit::{digest_of, files_of, is_gone, rig_with, send, until};
use crate::support::rig::{Ground, MIB, Rig, Session, body_of, cut, fed_body, noise, write};
use crate::support::s3::Op;

/// Without a spool, and with commits in the middle of every cell.
fn nothing_put_by(settings: &mut Settings) {
    settings.spool_max_bytes = 0;
    settings.commit_interval = Duration::from_millis(10);
}

/// On both stores, with commits in the middle of every cell.
async fn both() -> [Rig; 2] {
    [
        rig_with(Ground::fs(), nothing_put_by).await,
        rig_with(Ground::s3().await, nothing_put_by).await,
    ]
}

async fn create(rig: &Rig, length: Option<u64>, digests: Digests) -> Session {
    let create = Create {
        protocol: Protocol::Objects,
        declared: Declared {
            digests,
            ..Declared::default()
        },
        length: length.map(Length),
        idempotency: None,
        role: NewRole::Whole,
        seal: None,
    };
    let created = rig.engine.create(create).await.unwrap();
    Session {
        id: created.upload.id,
        key: created.key,
    }
}

fn whole(session: &Session, length: Option<u64>, at_most: u64) -> Write {
    let write = write(session, 0, length.unwrap_or(0));
    Write {
        end: write.end.filter(|_| length.is_some()),
        append: true,
        whole: Some(Whole {
            at_most: Length(at_most),
        }),
        ..write
    }
}

async fn take(rig: &Rig, write: Write, body: Body) -> Result<Written, EngineError> {
    rig.engine.admit(write).await?.run(body).await
}

/// A body so slow that it is committed many times in each cell.
fn slow(bytes: &[u8]) -> Body {
    let frames: Vec<_> = bytes.chunks(200_000).map(Bytes::copy_from_slice).collect();
    let paced = futures_util::stream::unfold(frames.into_iter(), async |mut frames| {
        tokio::time::sleep(Duration::from_millis(4)).await;
        frames.next().map(|frame| (Ok(frame), frames))
    });
    Box::pin(paced)
}

#[tokio::test]
async fn exact_bytes_a_body_of_unknown_length_in_one_pass() {
    for rig in both().await {
        for (length, parts) in [
            (15 * MIB + 7, 4),
            (10 * MIB, 2),
            (5 * MIB - 1, 0),
            (1, 0),
            (0, 0),
        ] {
            let bytes = noise(length, length);
            let session = create(&rig, None, Digests::default()).await;
            let write = whole(&session, None, 20 * MIB);
            let written = take(&rig, write, slow(&bytes)).await.unwrap();
            assert_eq!(written.length, Some(Length(length)));
            assert!(written.is_full());
            // Also in the catalog, where others will find it.
            let snapshot = rig.catalog.load(session.id).await.unwrap().unwrap();
            assert_eq!(snapshot.upload.length, Some(Length(length)));
            let object = rig.expect_whole(&session, &bytes).await;
            assert_eq!(object.verified, Verified::Stream);
            if let Some(s3) = &rig.ground.s3 {
                // Others are the store's, which tries what the bucket takes.
                let key = session.id.to_string();
                let calls = s3.control().calls();
                let count = |op| {
                    let ours = calls.iter().filter(|call| call.key.ends_with(&key));
                    ours.filter(|call| call.op == op).count()
                };
                let puts = usize::from(parts == 0);
                assert_eq!(
                    [
                        count(Op::UploadPart),
                        count(Op::CompleteMultipartUpload),
                        count(Op::PutObject)
                    ],
                    [parts, parts.min(1), puts],
                    "{length} bytes"
                );
                assert_eq!(files_of(&rig, &session), [""; 0]);
            }
        }
    }
}

#[tokio::test]
async fn exact_bytes_a_body_of_known_length_in_one_pass() {
    for rig in both().await {
        for length in [11 * MIB + 3, 5 * MIB, 70_000, 0] {
            let bytes = noise(length, length);
            let session = create(&rig, Some(length), Digests::default()).await;
            let write = whole(&session, Some(length), 20 * MIB);
            take(&rig, write, slow(&bytes)).await.unwrap();
            rig.expect_whole(&session, &bytes).await;
        }
    }
}

/// While it comes, the disk sees nothing of it, however often it is committed.
#[tokio::test]
async fn nothing_is_put_by_while_it_comes() {
    let rig = rig_with(Ground::s3().await, nothing_put_by).await;
    let bytes = noise(7 * MIB, 1);
    let session = create(&rig, None, Digests::default()).await;
    let (feed, body) = fed_body();
    let admission = rig.engine.admit(whole(&session, None, 20 * MIB)).await;
    let running = tokio::spawn(admission.unwrap().run(body));
    for piece in bytes.chunks(MIB as usize) {
        send(&feed, piece, 50_000);
        tokio::time::sleep(Duration::from_millis(30)).await;
        // Asking makes a writer commit what it can.
        rig.status(&session).await;
        assert_eq!(files_of(&rig, &session), [""; 0]);
    }
    drop(feed);
    running.await.unwrap().unwrap();
    rig.expect_whole(&session, &bytes).await;
}

/// Where the memory does not reach, staying within it comes first.
#[tokio::test]
async fn bounded_it_is_put_by_where_memory_is_short() {
    let rig = rig_with(Ground::s3().await, |settings| {
        settings.memory_budget_bytes = 12 * MIB;
    })
    .await;
    let uploads = (0..6).map(|n| {
        let rig = &rig;
        async move {
            let bytes = noise(6 * MIB + n, n);
            let session = create(rig, None, Digests::default()).await;
            let write = whole(&session, None, 20 * MIB);
            take(rig, write, slow(&bytes)).await.unwrap();
            rig.expect_whole(&session, &bytes).await;
        }
    });
    futures_util::future::join_all(uploads).await;
}

async fn expect_nothing(rig: &Rig, session: &Session) {
    rig.engine.abort(session.id, &session.key).await.unwrap();
    assert!(is_gone(rig, session), "{:?}", files_of(rig, session));
    let snapshot = rig.catalog.load(session.id).await.unwrap().unwrap();
    let state = snapshot.upload.state;
    assert!(matches!(state, UploadState::Aborted { .. }), "{state:?}");
}

#[tokio::test]
async fn one_that_breaks_counts_for_nothing() {
    for rig in both().await {
        for length in [None, Some(12 * MIB)] {
            for error in [
                cut(),
                Err(BodyError::Stalled(Duration::ZERO)),
                Err(BodyError::Malformed("it is no form".into())),
            ] {
                let session = create(&rig, length, Digests::default()).await;
                let (feed, body) = fed_body();
                send(&feed, &noise(7 * MIB, 1), 100_000);
                feed.send(error).unwrap();
                let broken = take(&rig, whole(&session, length, 20 * MIB), body).await;
                assert!(
                    matches!(broken, Err(EngineError::BodyBroken { .. })),
                    "{broken:?}"
                );
                if rig.ground.s3.is_some() {
                    assert_eq!(files_of(&rig, &session), [""; 0]);
                }
                expect_nothing(&rig, &session).await;
            }
        }
    }
}

#[tokio::test]
async fn one_that_is_too_short_or_too_long_counts_for_nothing() {
    for rig in both().await {
        let session = create(&rig, Some(100), Digests::default()).await;
        for body in [noise(99, 1), noise(101, 1)] {
            let wrong = take(&rig, whole(&session, Some(100), 200), body_of(&body)).await;
            assert!(
                matches!(wrong, Err(EngineError::RangeMismatch { .. })),
                "{wrong:?}"
            );
        }
        // Without being told the end again, too.
        let short = take(&rig, whole(&session, None, 200), body_of(&noise(99, 1))).await;
        assert!(
            matches!(short, Err(EngineError::RangeMismatch { .. })),
            "{short:?}"
        );
        expect_nothing(&rig, &session).await;
        let session = create(&rig, None, Digests::default()).await;
        let large = body_of(&noise(6 * MIB + 1, 1));
        let large = take(&rig, whole(&session, None, 6 * MIB), large).await;
        assert!(
            matches!(large, Err(EngineError::TooLarge { max: Length(max) }) if max == 6 * MIB),
            "{large:?}"
        );
        expect_nothing(&rig, &session).await;
        // Exactly a cell, too.
        for most in [6 * MIB, 5 * MIB] {
            let bytes = noise(most, 1);
            let session = create(&rig, None, Digests::default()).await;
            let write = whole(&session, None, most);
            take(&rig, write, body_of(&bytes)).await.unwrap();
            rig.expect_whole(&session, &bytes).await;
        }
    }
}

#[tokio::test]
async fn exact_bytes_a_declared_digest_is_looked_at_when_the_body_ends() {
    for rig in both().await {
        for (length, told) in [(100_000, None), (12 * MIB, Some(12 * MIB)), (0, None)] {
            let bytes = noise(length, 5);
            for algorithm in [DigestAlgorithm::Sha256, DigestAlgorithm::Md5] {
                let right = digest_of(algorithm, &bytes);
                let session = create(&rig, told, Digests::from_iter([right])).await;
                let write = whole(&session, told, 20 * MIB);
                take(&rig, write, body_of(&bytes)).await.unwrap();
                rig.expect_whole(&session, &bytes).await;
                let wrong = Digest::new(algorithm, vec![0; algorithm.len()]).unwrap();
                let session = create(&rig, told, Digests::from_iter([wrong])).await;
                let write = whole(&session, told, 20 * MIB);
                let wrong = take(&rig, write, body_of(&bytes)).await;
                assert!(
                    matches!(wrong, Err(EngineError::DigestMismatch { algorithm: found }) if found == algorithm),
                    "{wrong:?}"
                );
                expect_nothing(&rig, &session).await;
            }
        }
    }
}

/// Nobody will come back for one that broke off with the process; one that is all there may wait for its completion.
#[tokio::test]
async fn it_expires_soon_until_it_is_full() {
    for rig in both().await {
        let settings = rig.engine.settings().clone();
        let bytes = noise(100_000, 1);
        let session = create(&rig, None, Digests::default()).await;
        let expires_at = async || rig.status(&session).await.upload.expires_at;
        assert_eq!(
            expires_at().await,
            rig.clock.now().after(settings.orphan_grace)
        );
        let (feed, body) = fed_body();
        let admission = rig.engine.admit(whole(&session, None, 20 * MIB)).await;
        let running = tokio::spawn(admission.unwrap().run(body));
        send(&feed, &bytes, 10_000);
        // A pruner in another process sees only what is committed.
        rig.clock.advance(Duration::from_mins(9));
        until("it is known to be worked on", async || {
            let snapshot = rig.catalog.load(session.id).await.unwrap().unwrap();
            snapshot.upload.expires_at == rig.clock.now().after(settings.orphan_grace)
        })
        .await;
        drop(feed);
        running.await.unwrap().unwrap();
        let full = rig.clock.now().after(settings.session_ttl);
        assert_eq!(expires_at().await, full);
        rig.expect_whole(&session, &bytes).await;
    }
}
