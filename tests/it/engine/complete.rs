//! Completing: one object, one completion, one event, however often it is asked for.

use std::time::Duration;

use jumar::engine::{Complete, Completion, EngineError, Write};
use jumar::model::digest::Digests;
use jumar::model::{Digest, DigestAlgorithm, Length, UploadState};
use jumar::store::call::Call;
use jumar::store::faulty::{Fault, When};

use super::kit::{both, events, faulty, send, until, writer};
use crate::support::rig::{Ground, MIB, Rig, Session, body_of, noise, write};
use crate::support::s3::Op;

fn command(session: &Session, length: Option<u64>) -> Complete {
    Complete {
        id: session.id,
        key: session.key.clone(),
        digests: Digests::default(),
        length: length.map(Length),
    }
}

#[tokio::test]
async fn told_once_to_eight_at_once() {
    for len in [0, 1000, 11 * MIB] {
        for rig in both().await {
            let bytes = noise(len, 60);
            let session = rig.create(Some(len)).await;
            if len > 0 {
                rig.put(&session, 0, &bytes).await.unwrap();
            }
            let asked = (0..8).map(|_| {
                let (engine, command) = (rig.engine.clone(), command(&session, None));
                tokio::spawn(async move { engine.complete(command).await })
            });
            for outcome in futures_util::future::join_all(asked).await {
                let outcome = outcome.unwrap();
                assert!(
                    matches!(outcome, Ok(Completion::Done { .. })),
                    "{outcome:?}"
                );
            }
            assert_eq!(events(&rig, "completed"), 1);
            if let Some(server) = &rig.ground.s3 {
                assert_eq!(server.backend().keys(), [session.id.to_string()]);
                assert_eq!(
                    server.control().count(Op::CompleteMultipartUpload),
                    usize::from(len > 5 * MIB)
                );
            }
            rig.expect_whole(&session, &bytes).await;
            let rig = rig.restart().await;
            rig.expect_whole(&session, &bytes).await;
            assert_eq!(events(&rig, "completed"), 1);
        }
    }
}

#[tokio::test]
async fn told_once_though_its_caller_went_away() {
    for ground in [Ground::fs(), Ground::s3().await] {
        let (rig, faults) = faulty(ground).await;
        let bytes = noise(11 * MIB, 61);
        let session = rig.create(Some(11 * MIB)).await;
        rig.put(&session, 0, &bytes).await.unwrap();
        let call = if rig.ground.s3.is_some() {
            Call::Finish
        } else {
            Call::Publish
        };
        faults.fail(call, When::Next(1), Fault::Hang);
        let (engine, asked) = (rig.engine.clone(), command(&session, None));
        let caller = tokio::spawn(async move { engine.complete(asked).await });
        until("it is being finished", async || faults.count(call) == 1).await;
        caller.abort();
        let refused = rig.engine.abort(session.id, &session.key).await;
        assert!(
            matches!(refused, Err(EngineError::Completed)),
            "{refused:?}"
        );
        faults.heal();
        until("it is completed by itself", async || {
            matches!(
                rig.status(&session).await.upload.state,
                UploadState::Completed { .. }
            )
        })
        .await;
        assert_eq!((events(&rig, "completed"), faults.count(call)), (1, 1));
        rig.expect_whole(&session, &bytes).await;
    }
}

#[tokio::test]
async fn exact_bytes_what_is_missing_is_named() {
    for rig in both().await {
        let bytes = noise(8 * MIB, 62);
        let session = rig.create(Some(8 * MIB)).await;
        rig.put(&session, MIB, &bytes[MIB as usize..3 * MIB as usize])
            .await
            .unwrap();
        rig.put(
            &session,
            5 * MIB,
            &bytes[5 * MIB as usize..8 * MIB as usize - 1],
        )
        .await
        .unwrap();
        match rig.complete(&session).await {
            Err(EngineError::Incomplete {
                missing,
                truncated: false,
            }) => assert_eq!(
                format!("{missing:?}"),
                format!(
                    "[[0, {}), [{}, {}), [{}, {})]",
                    MIB,
                    3 * MIB,
                    5 * MIB,
                    8 * MIB - 1,
                    8 * MIB
                )
            ),
            outcome => panic!("{outcome:?}"),
        }
        rig.put(&session, 0, &bytes).await.unwrap();
        rig.expect_whole(&session, &bytes).await;
    }
}

#[tokio::test]
async fn exact_bytes_a_length_is_told_at_the_end() {
    for rig in both().await {
        let bytes = noise(6 * MIB, 63);
        let session = rig.create(None).await;
        rig.put(&session, 0, &bytes).await.unwrap();
        let short = rig
            .engine
            .complete(command(&session, Some(6 * MIB - 1)))
            .await;
        assert!(
            matches!(short, Err(EngineError::RangeMismatch { .. })),
            "{short:?}"
        );
        let long = rig
            .engine
            .complete(command(&session, Some(6 * MIB + 1)))
            .await;
        assert!(
            matches!(long, Err(EngineError::Incomplete { .. })),
            "{long:?}"
        );
        rig.engine
            .complete(command(&session, Some(6 * MIB)))
            .await
            .unwrap();
        rig.expect_whole(&session, &bytes).await;
        let refused = rig.put(&session, 0, &noise(6 * MIB, 64)).await;
        assert!(
            matches!(refused, Err(EngineError::Completed)),
            "{refused:?}"
        );
        rig.put(&session, 0, &bytes)
            .await
            .expect("the same again is fine");
    }
}

/// Without a length the end is where the bytes end; what a writer brings at that moment counts or is refused, and breaks nothing.
#[tokio::test]
async fn exact_bytes_completing_beside_a_writer_without_a_length() {
    for rig in both().await {
        for round in 0..4 {
            let bytes = noise(8 * MIB, 65 + round);
            let session = rig.create(None).await;
            rig.put(&session, 0, &bytes[..2 * MIB as usize])
                .await
                .unwrap();
            let (feed, running) = writer(&rig.engine, &session, 2 * MIB, 6 * MIB).await;
            send(&feed, &bytes[2 * MIB as usize..4 * MIB as usize], 50_000);
            let feeding = {
                let rest = bytes[4 * MIB as usize..].to_vec();
                tokio::spawn(async move {
                    for piece in rest.chunks(50_000) {
                        send(&feed, piece, 50_000);
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                })
            };
            tokio::time::sleep(Duration::from_millis(20 * round)).await;
            let object = match rig.engine.complete(command(&session, None)).await {
                Ok(Completion::Done { object, .. }) => object,
                outcome => panic!("{outcome:?}"),
            };
            feeding.await.unwrap();
            let _ = running.await.unwrap();
            let size = usize::try_from(object.size.get()).unwrap();
            assert!(size >= 2 * MIB as usize);
            rig.expect_whole(&session, &bytes[..size]).await;
        }
    }
}

#[tokio::test]
async fn sealed_to_who_has_another_key() {
    for rig in both().await {
        let session = rig.create(Some(1000)).await;
        let other = Session {
            id: session.id,
            key: rig.create(Some(1)).await.key,
        };
        rig.put(&session, 0, &[1; 500]).await.unwrap();
        for rig in [&rig] {
            assert!(matches!(
                rig.engine.status(other.id, &other.key).await,
                Err(EngineError::NotFound)
            ));
            assert!(matches!(
                rig.engine.admit(write(&other, 0, 10)).await.map(|_| ()),
                Err(EngineError::NotFound)
            ));
            assert!(matches!(
                rig.engine.complete(command(&other, None)).await,
                Err(EngineError::NotFound)
            ));
            assert!(matches!(
                rig.engine.abort(other.id, &other.key).await,
                Err(EngineError::NotFound)
            ));
            assert!(matches!(
                rig.engine.displace(other.id, &other.key, None).await,
                Err(EngineError::NotFound)
            ));
            assert!(matches!(
                rig.engine.content(other.id, Some(&other.key)).await,
                Err(EngineError::NotFound)
            ));
        }
        let rig: Rig = rig.restart().await;
        assert!(matches!(
            rig.engine.displace(other.id, &other.key, None).await,
            Err(EngineError::NotFound)
        ));
        assert_eq!(rig.offset(&session).await, 500);
    }
}

/// A body that names no end says nothing of its length: all that it brings was there, so it may stop anywhere. What goes
/// beyond the object is another file.
#[tokio::test]
async fn a_repeated_body_without_an_end_may_stop_anywhere() {
    for rig in both().await {
        let bytes = noise(100_000, 66);
        let session = rig.create(None).await;
        rig.put(&session, 0, &bytes).await.unwrap();
        rig.expect_whole(&session, &bytes).await;
        let repeat = async |start: u64, sent: &[u8]| {
            let write = Write {
                end: None,
                ..write(&session, start, 0)
            };
            let admission = rig.engine.admit(write).await?;
            let written = admission.run(body_of(sent)).await?;
            Ok::<_, EngineError>(written.offset.get())
        };
        for (start, end) in [
            (0, 100_000),
            (0, 70_000),
            (0, 0),
            (60_000, 80_000),
            (100_000, 100_000),
        ] {
            let all = repeat(start as u64, &bytes[start..end]).await;
            assert_eq!(all.unwrap(), 100_000, "{start} {end}");
        }
        let longer = [&bytes[..], b"x"].concat();
        for (start, sent) in [
            (0, &longer[..]),
            (100_000, b"x"),
            (100_001, b""),
            (5, &bytes[..10]),
        ] {
            let other = repeat(start, sent).await;
            assert!(
                matches!(other, Err(EngineError::Completed)),
                "{start} {other:?}"
            );
        }
    }
}

/// Drops a completion while the catalog turns the upload to assembling.
async fn hang_up_while_turning(rig: &Rig, session: &Session, digests: Digests) {
    let complete = Complete {
        id: session.id,
        key: session.key.clone(),
        digests,
        length: None,
    };
    let mut work = Box::pin(rig.engine.complete(complete));
    assert!(futures_util::poll!(&mut work).is_pending());
    until("the catalog knows", async || {
        let stored = rig.catalog.load(session.id).await.unwrap().unwrap();
        matches!(stored.upload.state, UploadState::Assembling { .. })
    })
    .await;
    drop(work);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_once_what_was_hung_up_on_can_be_terminated() {
    let rig = Rig::fs().await;
    let session = rig.create(Some(4)).await;
    rig.put(&session, 0, b"1234").await.unwrap();
    hang_up_while_turning(&rig, &session, Digests::default()).await;
    let ended = rig.engine.terminate(session.id, &session.key);
    let ended = tokio::time::timeout(Duration::from_secs(30), ended).await;
    ended.expect("it ends").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exact_bytes_a_digest_told_with_a_completion_that_was_hung_up_on_counts() {
    let (rig, faults) = faulty(Ground::fs()).await;
    faults.fail(Call::Publish, When::Always, Fault::Unavailable);
    let session = rig.create(Some(4)).await;
    rig.put(&session, 0, b"1234").await.unwrap();
    let wrong = Digest::new(DigestAlgorithm::Sha256, vec![7; 32]).unwrap();
    hang_up_while_turning(&rig, &session, [wrong].into_iter().collect()).await;
    faults.heal();
    rig.clock.advance(Duration::from_secs(90));
    rig.engine.recover(false).await.unwrap();
    until("it ends", async || {
        rig.status(&session).await.upload.state.has_ended()
    })
    .await;
    let state = rig.status(&session).await.upload.state;
    assert!(matches!(state, UploadState::Failed { .. }), "{state:?}");
}
