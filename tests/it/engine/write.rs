//! Writing: what came is kept, whatever becomes of the connection, and it lands in parts of the plan.

use std::time::Duration;

use jumar::engine::EngineError;
use jumar::model::upload::Declared;
use jumar::model::{Length, Offset};
use jumar::store::call::Call;
use jumar::store::faulty::{Fault, When};

use super::kit::{both, faulty, send, until, writer};
use crate::support::rig::{Ground, MIB, Rig, body_of, cut, noise, write};
use crate::support::s3::Op;

const CELL: u64 = 5 * MIB;

#[tokio::test]
async fn keep_what_came_wherever_it_is_cut() {
    let bytes = noise(11 * MIB + 3, 10);
    let len = bytes.len() as u64;
    for known in [true, false] {
        for at in [1, CELL - 1, CELL, CELL + 1, 2 * CELL, len - 1] {
            for rig in both().await {
                let session = rig.create(known.then_some(len)).await;
                let (feed, running) = writer(&rig.engine, &session, 0, len).await;
                send(&feed, &bytes[..at as usize], 50_000);
                feed.send(cut()).unwrap();
                let outcome = running.await.unwrap();
                assert!(
                    matches!(outcome, Err(EngineError::BodyBroken { offset, .. }) if offset == Offset(at)),
                    "cut at {at}: {outcome:?}"
                );
                let rig = rig.restart().await;
                assert_eq!(rig.offset(&session).await, at);
                rig.put(&session, at, &bytes[at as usize..]).await.unwrap();
                rig.expect_whole(&session, &bytes).await;
            }
        }
    }
}

#[tokio::test]
async fn keep_what_came_in_frames_of_a_byte() {
    for rig in both().await {
        let bytes = noise(CELL + 70_000, 11);
        let session = rig.create(Some(bytes.len() as u64)).await;
        rig.put(&session, 0, &bytes[..CELL as usize - 30_000])
            .await
            .unwrap();
        let (feed, running) = writer(&rig.engine, &session, CELL - 30_000, 100_000).await;
        send(
            &feed,
            &bytes[CELL as usize - 30_000..CELL as usize + 30_001],
            1,
        );
        feed.send(cut()).unwrap();
        assert!(running.await.unwrap().is_err());
        assert_eq!(rig.offset(&session).await, CELL + 30_001);
        rig.put(&session, CELL + 30_001, &bytes[CELL as usize + 30_001..])
            .await
            .unwrap();
        rig.expect_whole(&session, &bytes).await;
    }
}

#[tokio::test]
async fn keep_what_came_with_full_cells_in_flight() {
    let (rig, faults) = faulty(Ground::s3().await).await;
    let bytes = noise(13 * MIB, 12);
    let session = rig.create(Some(bytes.len() as u64)).await;
    faults.fail(
        Call::PutPart,
        When::Always,
        Fault::Delay(Duration::from_millis(300)),
    );
    let (feed, running) = writer(&rig.engine, &session, 0, 13 * MIB).await;
    send(&feed, &bytes[..12 * MIB as usize], 100_000);
    feed.send(cut()).unwrap();
    assert!(running.await.unwrap().is_err());
    let rig = rig.restart().await;
    assert_eq!(rig.offset(&session).await, 12 * MIB);
    rig.put(&session, 12 * MIB, &bytes[12 * MIB as usize..])
        .await
        .unwrap();
    rig.expect_whole(&session, &bytes).await;
}

#[tokio::test]
async fn exact_bytes_a_range_again_is_read_and_skipped() {
    for rig in both().await {
        let bytes = noise(7 * MIB, 13);
        let session = rig.create(Some(bytes.len() as u64)).await;
        rig.put(&session, MIB, &bytes[MIB as usize..6 * MIB as usize])
            .await
            .unwrap();
        let other = noise(7 * MIB, 14);
        rig.put(&session, 2 * MIB, &other[..3 * MIB as usize])
            .await
            .unwrap();
        let mut mixed = other.clone();
        mixed[..MIB as usize].copy_from_slice(&bytes[..MIB as usize]);
        mixed[6 * MIB as usize..].copy_from_slice(&bytes[6 * MIB as usize..]);
        rig.put(&session, 0, &mixed).await.unwrap();
        rig.expect_whole(&session, &bytes).await;
    }
}

#[tokio::test]
async fn one_writer_for_overlapping_ranges_in_parallel() {
    for rig in both().await {
        let bytes = noise(12 * MIB, 15);
        let session = rig.create(Some(bytes.len() as u64)).await;
        let clients = [(0, 5), (3, 9), (4, 6), (8, 12)].map(|(from, to)| {
            let (engine, session) = (rig.engine.clone(), session.clone());
            let piece = bytes[from * MIB as usize..to * MIB as usize].to_vec();
            tokio::spawn(async move {
                let start = from as u64 * MIB;
                for _ in 0..100 {
                    let admitted = engine
                        .admit(write(&session, start, piece.len() as u64))
                        .await;
                    let outcome = match admitted {
                        Ok(admission) => admission.run(body_of(&piece)).await,
                        Err(error) => Err(error),
                    };
                    match outcome {
                        Ok(_) => return,
                        Err(EngineError::Displaced | EngineError::Unavailable { .. }) => {
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                panic!("it never got its bytes in");
            })
        });
        for client in clients {
            client.await.unwrap();
        }
        rig.expect_whole(&session, &bytes).await;
    }
}

#[tokio::test]
async fn bounded_chunks_of_one_upload_in_parallel() {
    let rig = Rig::fs().await;
    let session = rig.create(Some(10 * MIB)).await;
    let mut writers = Vec::new();
    for at in 0..4 {
        writers.push(writer(&rig.engine, &session, at * MIB, MIB).await);
    }
    let refused = rig.engine.admit(write(&session, 5 * MIB, MIB)).await;
    assert!(matches!(
        refused,
        Err(EngineError::TooManyChunks { max: 4 })
    ));
    drop(writers.pop());
    until("one has left", async || {
        rig.engine
            .admit(write(&session, 5 * MIB, MIB))
            .await
            .is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_sequential_upload_takes_no_hole() {
    for rig in both().await {
        let bytes = noise(6 * MIB, 16);
        let declared = Declared {
            sequential: true,
            ..Declared::default()
        };
        let session = rig.create_declaring(None, declared).await;
        rig.put(&session, 0, &bytes[..1000]).await.unwrap();
        let refused = rig.put(&session, 1001, &bytes[1001..2000]).await;
        assert!(
            matches!(
                refused,
                Err(EngineError::OutOfOrder {
                    expected: Offset(1000)
                })
            ),
            "{refused:?}"
        );
        rig.put(&session, 500, &bytes[500..]).await.unwrap();
        rig.expect_whole(&session, &bytes).await;
    }
}

#[tokio::test]
async fn chunks_out_of_order_land_in_parts_of_the_plan() {
    let rig = Rig::s3().await;
    let bytes = noise(22 * MIB + 5, 17);
    let session = rig.create(Some(bytes.len() as u64)).await;
    let mut order: Vec<u64> = (0..23).collect();
    order.sort_by_key(|n| (n * 7) % 23);
    for batch in order.chunks(4) {
        let puts = batch.iter().map(|n| {
            let (start, end) = (n * MIB, ((n + 1) * MIB).min(bytes.len() as u64));
            rig.put(&session, start, &bytes[start as usize..end as usize])
        });
        for outcome in futures_util::future::join_all(puts).await {
            outcome.unwrap();
        }
    }
    rig.expect_whole(&session, &bytes).await;
    let calls = rig.s3_server().control().calls();
    let parts: Vec<_> = calls
        .iter()
        .filter(|call| call.op == Op::UploadPart && call.key.contains(&session.id.to_string()))
        .collect();
    assert_eq!(parts.len(), 5, "each once: {parts:?}");
    for part in parts {
        let planned = if part.part == Some(5) {
            2 * MIB + 5
        } else {
            CELL
        };
        assert_eq!(part.size, planned, "{part:?}");
    }
}

#[tokio::test]
async fn keep_what_came_where_one_part_of_four_failed() {
    let (rig, faults) = faulty(Ground::s3().await).await;
    let bytes = noise(20 * MIB, 18);
    let session = rig.create(Some(bytes.len() as u64)).await;
    faults.fail(Call::PutPart, When::Nth(3), Fault::Unavailable);
    let written = rig.put(&session, 0, &bytes).await.unwrap();
    assert_eq!(written.offset.get(), 20 * MIB);
    rig.expect_whole(&session, &bytes).await;
}

#[tokio::test]
async fn a_length_is_fixed_once() {
    for rig in both().await {
        let bytes = noise(3 * MIB, 19);
        let session = rig.create(None).await;
        rig.put(&session, 0, &bytes[..MIB as usize]).await.unwrap();
        let telling = |length: u64| {
            let mut write = write(&session, MIB, MIB);
            write.length = Some(Length(length));
            write
        };
        let short = rig.engine.admit(telling(MIB)).await;
        assert!(matches!(short, Err(EngineError::RangeMismatch { .. })));
        let piece = body_of(&bytes[MIB as usize..2 * MIB as usize]);
        rig.engine
            .admit(telling(3 * MIB))
            .await
            .unwrap()
            .run(piece)
            .await
            .unwrap();
        let other = rig.engine.admit(telling(4 * MIB)).await;
        assert!(
            matches!(other, Err(EngineError::RangeMismatch { length: Some(Length(known)), .. }) if known == 3 * MIB)
        );
        let beyond = rig.put(&session, 2 * MIB, &noise(2 * MIB, 9)).await;
        assert!(matches!(beyond, Err(EngineError::RangeMismatch { .. })));
        let rig = rig.restart().await;
        let other = rig
            .engine
            .displace(session.id, &session.key, Some(Length(9)))
            .await;
        assert!(matches!(other, Err(EngineError::RangeMismatch { .. })));
        rig.put(&session, 2 * MIB, &bytes[2 * MIB as usize..])
            .await
            .unwrap();
        rig.expect_whole(&session, &bytes).await;
    }
}

/// What a writer of an upload without a length holds is there as much as what is committed.
#[tokio::test]
async fn never_back_a_length_cannot_cut_off_a_live_writer() {
    for rig in both().await {
        let bytes = noise(3 * MIB, 20);
        let session = rig.create(None).await;
        let (feed, running) = writer(&rig.engine, &session, 0, 3 * MIB).await;
        send(&feed, &bytes[..2 * MIB as usize], 10_000);
        until("the writer has it", async || {
            feed.is_closed() || rig.offset(&session).await == 2 * MIB
        })
        .await;
        send(
            &feed,
            &bytes[2 * MIB as usize..2 * MIB as usize + 500_000],
            10_000,
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut telling = write(&session, MIB, MIB);
        telling.length = Some(Length(2 * MIB));
        let refused = rig.engine.admit(telling).await;
        assert!(matches!(refused, Err(EngineError::RangeMismatch { .. })));
        send(&feed, &bytes[2 * MIB as usize + 500_000..], 10_000);
        drop(feed);
        running.await.unwrap().unwrap();
        rig.expect_whole(&session, &bytes).await;
    }
}

#[tokio::test]
async fn exact_bytes_at_the_edges_of_cells() {
    for len in [CELL, 2 * CELL, CELL - 1, CELL + 1] {
        for known in [true, false] {
            let rig = Rig::s3().await;
            let bytes = noise(len, len);
            let session = rig.create(known.then_some(len)).await;
            rig.put(&session, 0, &bytes).await.unwrap();
            rig.expect_whole(&session, &bytes).await;
            let calls = rig.s3_server().control().calls();
            let puts = calls.iter().filter(|call| {
                call.op == Op::PutObject && call.key.contains(&session.id.to_string())
            });
            assert_eq!(
                puts.count(),
                usize::from(len < CELL || (known && len == CELL)),
                "{len} {known}"
            );
            assert!(rig.s3_server().backend().open_uploads().is_empty());
        }
    }
}

#[tokio::test]
async fn keep_what_came_of_a_body_too_short_or_too_long() {
    for rig in both().await {
        let bytes = noise(4 * MIB, 21);
        let session = rig.create(Some(bytes.len() as u64)).await;
        let short = rig
            .put_body(&session, 0, 2 * MIB, body_of(&bytes[..MIB as usize]))
            .await;
        assert!(
            matches!(short, Err(EngineError::RangeMismatch { .. })),
            "{short:?}"
        );
        assert_eq!(rig.offset(&session).await, MIB);
        let long = rig
            .put_body(&session, MIB, MIB, body_of(&bytes[MIB as usize..]))
            .await;
        assert!(
            matches!(long, Err(EngineError::RangeMismatch { .. })),
            "{long:?}"
        );
        assert_eq!(rig.offset(&session).await, 2 * MIB);
        rig.put(&session, 2 * MIB, &bytes[2 * MIB as usize..])
            .await
            .unwrap();
        rig.expect_whole(&session, &bytes).await;
    }
}

#[tokio::test]
async fn a_status_has_what_live_writers_have() {
    for rig in both().await {
        let bytes = noise(9 * MIB, 22);
        let session = rig.create(Some(bytes.len() as u64)).await;
        let (feed, running) = writer(&rig.engine, &session, 0, 4 * MIB).await;
        let (feed_2, running_2) = writer(&rig.engine, &session, 4 * MIB, 5 * MIB).await;
        send(&feed, &bytes[..=(MIB as usize)], 10_000);
        send(&feed_2, &bytes[4 * MIB as usize..6 * MIB as usize], 70_000);
        let wanted = format!("[[0, {}), [{}, {})]", MIB + 1, 4 * MIB, 6 * MIB);
        until("all that was sent is told", async || {
            let received: Vec<_> = rig.status(&session).await.received.iter().collect();
            format!("{received:?}") == wanted
        })
        .await;
        send(&feed, &bytes[MIB as usize + 1..4 * MIB as usize], 10_000);
        send(&feed_2, &bytes[6 * MIB as usize..], 70_000);
        drop((feed, feed_2));
        running.await.unwrap().unwrap();
        running_2.await.unwrap().unwrap();
        rig.expect_whole(&session, &bytes).await;
    }
}

#[tokio::test]
async fn keep_what_came_of_a_body_that_stalls() {
    for ground in [Ground::fs(), Ground::s3().await] {
        let rig = super::kit::rig_with(ground, |settings| {
            settings.body_pace.stall = Duration::from_millis(200);
        })
        .await;
        let session = rig.create(Some(MIB)).await;
        let (feed, running) = writer(&rig.engine, &session, 0, MIB).await;
        send(&feed, &[7; 1234], 100);
        let outcome = running.await.unwrap();
        assert!(
            matches!(
                outcome,
                Err(EngineError::BodyBroken {
                    offset: Offset(1234),
                    ..
                })
            ),
            "{outcome:?}"
        );
    }
}
