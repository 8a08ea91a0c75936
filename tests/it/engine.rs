//! The engine's main job on both stores, without HTTP; what goes wrong has files of its own.

#![expect(
    clippy::cast_possible_truncation,
    reason = "the offsets of a test are small"
)]

mod address;
mod adopt;
mod append;
mod callers;
mod cleaning;
mod complete;
mod concat;
mod digest;
mod direct;
mod displace;
mod faults;
mod kit;
mod memory;
mod prune;
mod random;
mod recover;
mod whole;
mod write;

use jumar::engine::EngineError;

use crate::support::rig::{Ground, MIB, Rig, body_of, cut, fed_body, noise};

async fn both() -> [Rig; 2] {
    [Rig::fs().await, Rig::s3().await]
}

#[tokio::test]
async fn one_body_of_several_cells() {
    for rig in both().await {
        let bytes = noise(12 * MIB + 345, 1);
        let session = rig.create(Some(bytes.len() as u64)).await;
        let written = rig.put(&session, 0, &bytes).await.expect("taken");
        assert_eq!(written.offset.get(), bytes.len() as u64);
        rig.expect_whole(&session, &bytes).await;
    }
}

#[tokio::test]
async fn keep_what_came_of_a_cut_body() {
    for rig in both().await {
        let bytes = noise(7 * MIB, 2);
        let session = rig.create(Some(bytes.len() as u64)).await;
        let (feed, body) = fed_body();
        for piece in bytes[..6_000_000].chunks(10_000) {
            feed.send(Ok(bytes::Bytes::copy_from_slice(piece))).unwrap();
        }
        feed.send(cut()).unwrap();
        let outcome = rig.put_body(&session, 0, bytes.len() as u64, body).await;
        assert!(
            matches!(outcome, Err(EngineError::BodyBroken { .. })),
            "{outcome:?}"
        );
        assert_eq!(rig.offset(&session).await, 6_000_000);
        let rig = rig.restart().await;
        assert_eq!(rig.offset(&session).await, 6_000_000);
        rig.put(&session, 6_000_000, &bytes[6_000_000..])
            .await
            .expect("taken");
        rig.expect_whole(&session, &bytes).await;
    }
}

#[tokio::test]
async fn chunks_in_any_order_and_again() {
    for rig in both().await {
        let bytes = noise(11 * MIB + 77, 3);
        let session = rig.create(None).await;
        let size = 700_001;
        let mut starts: Vec<usize> = (0..bytes.len()).step_by(size).collect();
        starts.reverse();
        starts.swap(0, 3);
        for start in starts.iter().chain(&starts[2..5]) {
            let end = (start + size).min(bytes.len());
            rig.put(&session, *start as u64, &bytes[*start..end])
                .await
                .expect("taken");
        }
        rig.expect_whole(&session, &bytes).await;
    }
}

#[tokio::test]
async fn a_small_upload_to_s3_is_one_put() {
    let rig = Rig::s3().await;
    let bytes = noise(256 * 1024, 4);
    let session = rig.create(Some(bytes.len() as u64)).await;
    rig.s3_server().control().forget_calls();
    rig.put(&session, 0, &bytes).await.expect("taken");
    rig.complete(&session).await.expect("completed");
    let calls = rig.s3_server().control().calls();
    println!("{calls:?}");
    let of_its_key: Vec<_> = calls
        .iter()
        .filter(|call| format!("{call:?}").contains(&session.id.to_string()))
        .collect();
    assert_eq!(of_its_key.len(), 1, "{calls:?}");
}

#[tokio::test]
async fn an_empty_file_is_a_file() {
    for rig in both().await {
        let session = rig.create(Some(0)).await;
        rig.expect_whole(&session, &[]).await;
    }
}

#[tokio::test]
async fn half_open_connection_is_displaced() {
    for rig in both().await {
        let bytes = noise(6 * MIB, 5);
        let session = rig.create(Some(bytes.len() as u64)).await;
        let (feed, body) = fed_body();
        feed.send(Ok(bytes::Bytes::copy_from_slice(&bytes[..2_000_000])))
            .unwrap();
        let write = crate::support::rig::write(&session, 0, bytes.len() as u64);
        let old = tokio::spawn(rig.engine.admit(write).await.expect("admitted").run(body));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let outcome = rig
            .engine
            .displace(session.id, &session.key, None)
            .await
            .expect("displaced");
        assert_eq!(outcome.offset.get(), 2_000_000);
        assert!(matches!(old.await.unwrap(), Err(EngineError::Displaced)));
        assert!(
            feed.send(Ok(bytes::Bytes::from_static(b"late"))).is_err(),
            "nobody listens any more"
        );
        rig.put(&session, 2_000_000, &bytes[2_000_000..])
            .await
            .expect("taken");
        rig.expect_whole(&session, &bytes).await;
    }
}

#[tokio::test]
async fn out_of_order_beyond_the_spool_reads_back() {
    let ground = Ground::s3().await;
    let store = ground.store().await;
    let mut settings = ground.settings();
    settings.spool_max_bytes = 12 * MIB;
    let rig = ground.rig_with(store, settings);
    let bytes = noise(40 * MIB, 6);
    let session = rig.create(Some(bytes.len() as u64)).await;
    for start in (0..40).rev() {
        let at = (start * MIB) as usize;
        rig.put_body(
            &session,
            start * MIB,
            MIB,
            body_of(&bytes[at..at + MIB as usize]),
        )
        .await
        .expect("taken");
    }
    assert!(rig.status(&session).await.upload.readback);
    rig.expect_whole(&session, &bytes).await;
}
