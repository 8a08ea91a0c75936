//! Displacing: one writer for a byte, and a newcomer that never waits for a dead connection.

use std::time::{Duration, Instant};

use jumar::engine::EngineError;
use jumar::store::call::Call;
use jumar::store::faulty::{Fault, When};

use super::kit::{both, faulty, faulty_with, send, until, writer};
use crate::support::rig::{Ground, MIB, body_of, cut, noise, write};

/// The contract is a second; the machine that runs this may be busy.
const SOON: Duration = Duration::from_millis(2500);

#[tokio::test]
async fn one_writer_a_half_open_connection_gives_way_to_the_same_range() {
    for rig in both().await {
        let bytes = noise(9 * MIB, 30);
        let session = rig.create(Some(9 * MIB)).await;
        let (feed, old) = writer(&rig.engine, &session, 0, 9 * MIB).await;
        send(&feed, &bytes[..6 * MIB as usize], 60_000);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let begun = Instant::now();
        rig.put(&session, 0, &bytes).await.unwrap();
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        assert!(matches!(old.await.unwrap(), Err(EngineError::Displaced)));
        rig.expect_whole(&session, &bytes).await;
    }
}

#[tokio::test]
async fn one_writer_while_a_call_to_the_store_hangs() {
    let (rig, faults) = faulty(Ground::s3().await).await;
    let bytes = noise(12 * MIB, 31);
    let session = rig.create(Some(12 * MIB)).await;
    faults.fail(Call::PutPart, When::Next(2), Fault::Hang);
    let (feed, old) = writer(&rig.engine, &session, 0, 12 * MIB).await;
    send(&feed, &bytes[..11 * MIB as usize], 60_000);
    until("both cells are on their way", async || {
        faults.count(Call::PutPart) == 2
    })
    .await;
    let begun = Instant::now();
    let written = rig
        .engine
        .displace(session.id, &session.key, None)
        .await
        .unwrap();
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    let at = written.offset.get();
    assert!(at >= 10 * MIB, "what hangs is in the tail: {at}");
    assert!(matches!(old.await.unwrap(), Err(EngineError::Displaced)));
    rig.put(&session, at, &bytes[at as usize..]).await.unwrap();
    assert!(
        faults.count(Call::PutPart) <= 3,
        "one call a cell at a time"
    );
    faults.heal();
    rig.expect_whole(&session, &bytes).await;
    assert_eq!(
        faults.count(Call::PutPart),
        3,
        "a cell that landed is not sent again"
    );
}

#[tokio::test]
async fn one_writer_while_a_write_to_the_disk_hangs() {
    let (rig, faults) = faulty(Ground::fs()).await;
    let bytes = noise(2 * MIB, 32);
    let session = rig.create(Some(2 * MIB)).await;
    faults.fail(Call::WriteAt, When::Next(1), Fault::Hang);
    let (feed, old) = writer(&rig.engine, &session, 0, 2 * MIB).await;
    send(&feed, &bytes[..MIB as usize], 60_000);
    until("the write hangs", async || faults.count(Call::WriteAt) == 1).await;
    let refused = rig.put(&session, 0, &bytes).await;
    assert!(
        matches!(refused, Err(EngineError::Unavailable { .. })),
        "{refused:?}"
    );
    faults.heal();
    assert!(matches!(old.await.unwrap(), Err(EngineError::Displaced)));
    assert_eq!(rig.offset(&session).await, MIB);
    rig.put(&session, 0, &bytes).await.unwrap();
    rig.expect_whole(&session, &bytes).await;
}

#[tokio::test]
async fn one_writer_gets_on_where_two_displace_each_other() {
    for rig in both().await {
        let bytes = noise(4 * MIB, 33);
        let session = rig.create(Some(4 * MIB)).await;
        let clients = [0, 1].map(|_| {
            let (engine, session, bytes) = (rig.engine.clone(), session.clone(), bytes.clone());
            tokio::spawn(async move {
                let mut displaced = 0;
                for _ in 0..200 {
                    let admitted = engine.admit(write(&session, 0, 4 * MIB)).await;
                    let outcome = match admitted {
                        Ok(admission) => {
                            let (feed, body) = crate::support::rig::fed_body();
                            let running = tokio::spawn(admission.run(body));
                            for piece in bytes.chunks(256 * 1024) {
                                if feed.send(Ok(bytes::Bytes::copy_from_slice(piece))).is_err() {
                                    break;
                                }
                                tokio::time::sleep(Duration::from_millis(20)).await;
                            }
                            drop(feed);
                            running.await.unwrap()
                        }
                        Err(error) => Err(error),
                    };
                    match outcome {
                        Ok(_) => return displaced,
                        Err(EngineError::Displaced) => displaced += 1,
                        Err(EngineError::Unavailable { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                panic!("nobody got on");
            })
        });
        for client in clients {
            client.await.unwrap();
        }
        rig.expect_whole(&session, &bytes).await;
    }
}

/// The offset that displacing gives is final: a request from before it that still waits for its turn does not get it.
#[tokio::test]
async fn one_writer_who_waited_from_before_does_not_come_after() {
    let (rig, faults) = faulty(Ground::fs()).await;
    let bytes = noise(2 * MIB, 34);
    let session = rig.create(Some(2 * MIB)).await;
    faults.fail(Call::WriteAt, When::Next(1), Fault::Hang);
    let (feed, old) = writer(&rig.engine, &session, 0, 2 * MIB).await;
    send(&feed, &bytes[..1000], 1000);
    until("the write is on its way or gathered", async || {
        send(&feed, &[], 1);
        tokio::time::sleep(Duration::from_millis(100)).await;
        true
    })
    .await;
    let (engine, waiting) = (rig.engine.clone(), session.clone());
    let second =
        tokio::spawn(async move { engine.admit(write(&waiting, 0, 2 * MIB)).await.map(|_| ()) });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (engine, asking) = (rig.engine.clone(), session.clone());
    let third = tokio::spawn(async move { engine.displace(asking.id, &asking.key, None).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    faults.heal();
    assert_eq!(third.await.unwrap().unwrap().offset.get(), 1000);
    assert!(matches!(old.await.unwrap(), Err(EngineError::Displaced)));
    assert!(
        matches!(second.await.unwrap(), Err(EngineError::Displaced)),
        "it came from before"
    );
}

/// A call that nobody could save lands late, with other bytes than those that count by then.
#[tokio::test]
async fn exact_bytes_a_late_landing_of_other_bytes_changes_nothing() {
    let (rig, faults) = faulty_with(Ground::s3().await, |settings| {
        settings.spool_max_bytes = 8 * MIB;
    })
    .await;
    let (bytes, other) = (noise(8 * MIB, 35), noise(8 * MIB, 36));
    let filler = rig.create(Some(20 * MIB)).await;
    let (feed, filling) = writer(&rig.engine, &filler, 0, 20 * MIB).await;
    send(&feed, &other[..4 * MIB as usize], 60_000);
    feed.send(cut()).unwrap();
    assert!(filling.await.unwrap().is_err());
    let session = rig.create(Some(8 * MIB)).await;
    faults.fail(Call::PutPart, When::Next(1), Fault::Hang);
    let (feed, old) = writer(&rig.engine, &session, 0, 8 * MIB).await;
    send(&feed, &other[..5 * MIB as usize], 60_000);
    until("the cell is on its way", async || {
        faults.count(Call::PutPart) == 1
    })
    .await;
    let written = rig
        .engine
        .displace(session.id, &session.key, None)
        .await
        .unwrap();
    assert_eq!(written.offset.get(), 0, "there was no room to keep it");
    assert!(old.await.unwrap().is_err());
    rig.engine.abort(filler.id, &filler.key).await.unwrap();
    rig.put(&session, 0, &bytes).await.unwrap();
    faults.heal();
    rig.expect_whole(&session, &bytes).await;
}

#[tokio::test]
async fn keep_what_came_of_who_waits_for_memory() {
    let (rig, faults) = faulty_with(Ground::s3().await, |settings| {
        settings.memory_budget_bytes = 20 * MIB;
    })
    .await;
    let bytes = noise(40 * MIB, 37);
    let session = rig.create(Some(40 * MIB)).await;
    faults.fail(Call::PutPart, When::Always, Fault::Hang);
    let (feed, old) = writer(&rig.engine, &session, 0, 40 * MIB).await;
    send(&feed, &bytes[..30 * MIB as usize], 60_000);
    until("cells are on their way", async || {
        faults.count(Call::PutPart) >= 3
    })
    .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let written = rig
        .engine
        .displace(session.id, &session.key, None)
        .await
        .unwrap();
    assert!(written.offset.get() >= 15 * MIB, "{written:?}");
    assert!(matches!(old.await.unwrap(), Err(EngineError::Displaced)));
    faults.heal();
    let at = written.offset.get();
    rig.put_body(&session, at, 40 * MIB - at, body_of(&bytes[at as usize..]))
        .await
        .unwrap();
    rig.expect_whole(&session, &bytes).await;
}
