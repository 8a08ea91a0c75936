//! Memory and spool stay within their bounds, and nobody starves for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jumar::engine::{Body, EngineError};
use jumar::store::call::Call;
use jumar::store::faulty::{Fault, When};

use super::kit::{faulty_with, rig_with, until};
use crate::support::rig::{Ground, MIB, Rig, Session, noise, write};

/// A body that comes at its own pace, and counts what was taken of it.
fn paced(bytes: Vec<u8>, frame: usize, pause: Duration, taken: &Arc<AtomicU64>) -> Body {
    let taken = Arc::clone(taken);
    Box::pin(futures_util::stream::unfold(0, move |at| {
        let end = (at + frame).min(bytes.len());
        let piece = Bytes::copy_from_slice(&bytes[at..end]);
        let taken = Arc::clone(&taken);
        async move {
            if piece.is_empty() {
                return None;
            }
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            taken.fetch_add(piece.len() as u64, Ordering::SeqCst);
            Some((Ok(piece), end))
        }
    }))
}

/// Retries as a client does whose range is refused for want of room.
async fn upload(rig: &Rig, session: &Session, bytes: &[u8], frame: usize, pause: Duration) {
    let taken = Arc::default();
    for _ in 0..20 {
        let at = usize::try_from(rig.offset(session).await).unwrap();
        if at == bytes.len() {
            break;
        }
        let admission = match rig
            .engine
            .admit(write(session, at as u64, (bytes.len() - at) as u64))
            .await
        {
            Ok(admission) => admission,
            Err(EngineError::Unavailable { .. }) => continue,
            Err(error) => panic!("{error}"),
        };
        match admission
            .run(paced(bytes[at..].to_vec(), frame, pause, &taken))
            .await
        {
            Ok(_) | Err(EngineError::Unavailable { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    rig.expect_whole(session, bytes).await;
}

async fn all_get_through(rig: &Rig, writers: u64, len: u64) {
    let uploads = (0..writers).map(|n| async move {
        let bytes = noise(len + n * 1000, 100 + n);
        let session = rig.create(Some(bytes.len() as u64)).await;
        let (frame, pause) = match n % 3 {
            0 => (300_000, Duration::ZERO),
            1 => (20_000, Duration::ZERO),
            _ => (100_000, Duration::from_millis(10)),
        };
        upload(rig, &session, &bytes, frame, pause).await;
    });
    let all = futures_util::future::join_all(uploads);
    tokio::time::timeout(Duration::from_secs(100), all)
        .await
        .expect("nobody starves");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounded_fifty_writers_within_the_budget() {
    let (rig, faults) = faulty_with(Ground::s3().await, |settings| {
        settings.spool_max_bytes = 200 * MIB;
    })
    .await;
    faults.fail(
        Call::PutPart,
        When::Always,
        Fault::Delay(Duration::from_millis(30)),
    );
    all_get_through(&rig, 50, 6 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounded_forty_writers_with_room_for_a_few_cells() {
    let rig = rig_with(Ground::s3().await, |settings| {
        settings.memory_budget_bytes = 24 * MIB;
        settings.spool_max_bytes = 300 * MIB;
    })
    .await;
    all_get_through(&rig, 40, 6 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounded_a_budget_too_small_for_a_cell() {
    let rig = rig_with(Ground::s3().await, |settings| {
        settings.memory_budget_bytes = MIB;
        settings.spool_max_bytes = 300 * MIB;
    })
    .await;
    all_get_through(&rig, 6, 11 * MIB).await;
}

/// With a store that takes nothing, no more is read than fits the memory and the spool.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounded_what_is_read_while_the_store_hangs() {
    let (rig, faults) = faulty_with(Ground::s3().await, |settings| {
        settings.memory_budget_bytes = 24 * MIB;
        settings.spool_max_bytes = 8 * MIB;
        settings.commit_interval = Duration::from_millis(200);
    })
    .await;
    faults.fail(Call::PutPart, When::Always, Fault::Hang);
    let taken = Arc::new(AtomicU64::new(0));
    let mut running = Vec::new();
    for n in 0..10 {
        let session = rig.create(Some(20 * MIB)).await;
        let body = paced(noise(20 * MIB, n), 100_000, Duration::ZERO, &taken);
        let admission = rig
            .engine
            .admit(write(&session, 0, 20 * MIB))
            .await
            .unwrap();
        running.push(tokio::spawn(admission.run(body)));
    }
    until("cells are on their way", async || {
        faults.count(Call::PutPart) >= 2
    })
    .await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let read = taken.load(Ordering::SeqCst);
    // Beside budget and spool, each writer may hold a frame that waits for memory.
    assert!(read <= 32 * MIB + 10 * 100_000, "{read} bytes were read");
    let spooled: u64 = std::fs::read_dir(rig.ground.folder.path().join("spool"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(spooled <= 8 * MIB, "{spooled} bytes in the spool");
    for task in running {
        task.abort();
    }
    faults.heal();
}

/// A body that has to match a digest and is mostly there already waits for memory that it holds itself.
#[tokio::test]
async fn bounded_a_checked_body_that_skips_does_not_wait_for_itself() {
    let rig = rig_with(Ground::s3().await, |settings| {
        settings.memory_budget_bytes = 20 * MIB;
    })
    .await;
    let bytes = noise(30 * MIB, 120);
    let session = rig.create(Some(30 * MIB)).await;
    rig.put(&session, 6 * MIB, &bytes[6 * MIB as usize..])
        .await
        .unwrap();
    let mut checked = write(&session, 0, 30 * MIB);
    checked.digests = super::kit::digests_of(&[jumar::model::DigestAlgorithm::Md5], &bytes).into();
    let frames = paced(
        bytes.clone(),
        16 * MIB as usize,
        Duration::ZERO,
        &Arc::default(),
    );
    let written = rig.engine.admit(checked).await.unwrap().run(frames);
    tokio::time::timeout(Duration::from_secs(20), written)
        .await
        .expect("it gets on")
        .unwrap();
    rig.expect_whole(&session, &bytes).await;
}
