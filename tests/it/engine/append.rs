//! Writing where an upload's bytes end, as tus and the IETF's protocol do, and ending uploads whatever their state.

use std::time::{Duration, Instant};

use jumar::engine::{EngineError, Expected, Trailing, Write};
use jumar::model::digest::Digests;
use jumar::model::{DigestAlgorithm, UploadState};
use jumar::store::call::Call;
use jumar::store::faulty::{Fault, When};

use super::kit::{both, digests_of, faulty, is_gone, rig_with, send, until};
use crate::support::rig::{Ground, MIB, Rig, Session, body_of, fed_body, noise, write};

/// The contract is a second; the machine that runs this may be busy.
const SOON: Duration = Duration::from_millis(2500);

fn append(session: &Session, start: u64, len: u64) -> Write {
    Write {
        append: true,
        ..write(session, start, len)
    }
}

async fn appended(
    rig: &Rig,
    session: &Session,
    start: u64,
    bytes: &[u8],
) -> Result<u64, EngineError> {
    let write = append(session, start, bytes.len() as u64);
    let admission = rig.engine.admit(write).await?;
    Ok(admission.run(body_of(bytes)).await?.offset.get())
}

#[track_caller]
fn expect_order(result: &Result<u64, EngineError>, expected: u64) {
    assert!(
        matches!(result, Err(EngineError::OutOfOrder { expected: found }) if found.get() == expected),
        "{result:?}"
    );
}

#[tokio::test]
async fn a_body_is_appended_at_the_end_and_nowhere_else() {
    for rig in both().await {
        let bytes = noise(100_000, 1);
        let session = rig.create(Some(100_000)).await;
        expect_order(&appended(&rig, &session, 1, &bytes[1..]).await, 0);
        assert_eq!(appended(&rig, &session, 0, &bytes[..50]).await.unwrap(), 50);
        for wrong in [0, 49, 51, 99_999] {
            expect_order(&appended(&rig, &session, wrong, b"x").await, 50);
            expect_order(&appended(&rig, &session, wrong, b"").await, 50);
        }
        assert_eq!(appended(&rig, &session, 50, b"").await.unwrap(), 50);
        let end = appended(&rig, &session, 50, &bytes[50..]).await;
        assert_eq!(end.unwrap(), 100_000);
        rig.expect_whole(&session, &bytes).await;
        expect_order(&appended(&rig, &session, 50, &bytes[50..]).await, 100_000);
        assert_eq!(
            appended(&rig, &session, 100_000, b"").await.unwrap(),
            100_000
        );
    }
}

#[tokio::test]
async fn one_writer_an_append_displaces_what_hangs_and_goes_on_behind_its_bytes() {
    for rig in both().await {
        let bytes = noise(9 * MIB, 2);
        let session = rig.create(Some(9 * MIB)).await;
        let (feed, body) = fed_body();
        let admission = rig
            .engine
            .admit(append(&session, 0, 9 * MIB))
            .await
            .unwrap();
        let old = tokio::spawn(admission.run(body));
        send(&feed, &bytes[..6 * MIB as usize], 60_000);
        until("all of it is taken", async || {
            rig.offset(&session).await == 6 * MIB
        })
        .await;
        // One that cannot fit displaces nobody.
        expect_order(&appended(&rig, &session, 0, &bytes).await, 6 * MIB);
        expect_order(&appended(&rig, &session, 7 * MIB, b"x").await, 6 * MIB);
        assert!(!old.is_finished());
        let begun = Instant::now();
        let end = appended(&rig, &session, 6 * MIB, &bytes[6 * MIB as usize..]).await;
        assert_eq!(end.unwrap(), 9 * MIB);
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        assert!(matches!(old.await.unwrap(), Err(EngineError::Displaced)));
        // What the old one still gets changes nothing.
        send(&feed, &noise(MIB, 3), 60_000);
        rig.expect_whole(&session, &bytes).await;
    }
}

/// Some browsers repeat a request by themselves when its connection breaks, before its bytes were even read.
#[tokio::test]
async fn keep_what_came_before_a_newer_request_did() {
    for rig in both().await {
        let bytes = noise(9 * MIB, 9);
        let session = rig.create(Some(9 * MIB)).await;
        let (feed, body) = fed_body();
        let admission = rig
            .engine
            .admit(append(&session, 0, 9 * MIB))
            .await
            .unwrap();
        // All of it has come, and none of it was taken.
        send(&feed, &bytes[..8 * MIB as usize], 60_000);
        let halted = {
            let (engine, session) = (rig.engine.clone(), session.clone());
            tokio::spawn(async move { engine.halt(session.id, &session.key).await })
        };
        tokio::task::yield_now().await;
        let old = tokio::spawn(admission.run(body));
        let status = halted.await.unwrap().unwrap();
        assert!(matches!(old.await.unwrap(), Err(EngineError::Displaced)));
        let at = status.received.contiguous().get();
        assert_eq!(at, 8 * MIB);
        appended(&rig, &session, at, &bytes[at as usize..])
            .await
            .unwrap();
        rig.expect_whole(&session, &bytes).await;
    }
}

#[tokio::test]
async fn one_writer_an_empty_append_displaces_too() {
    for rig in both().await {
        let session = rig.create(Some(100)).await;
        let (feed, body) = fed_body();
        let admission = rig.engine.admit(append(&session, 0, 100)).await.unwrap();
        let old = tokio::spawn(admission.run(body));
        send(&feed, &[7; 30], 30);
        until("it is taken", async || rig.offset(&session).await == 30).await;
        assert_eq!(appended(&rig, &session, 30, b"").await.unwrap(), 30);
        assert!(matches!(old.await.unwrap(), Err(EngineError::Displaced)));
    }
}

#[tokio::test]
async fn never_back_the_offset_after_a_halt_is_final() {
    for rig in both().await {
        let bytes = noise(8 * MIB, 4);
        let session = rig.create(Some(8 * MIB)).await;
        let (feed, body) = fed_body();
        let admission = rig
            .engine
            .admit(append(&session, 0, 8 * MIB))
            .await
            .unwrap();
        let old = tokio::spawn(admission.run(body));
        send(&feed, &bytes[..7 * MIB as usize + 11], 60_000);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let begun = Instant::now();
        let status = rig.engine.halt(session.id, &session.key).await.unwrap();
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        assert!(matches!(old.await.unwrap(), Err(EngineError::Displaced)));
        let at = status.received.contiguous().get();
        let _ = feed.send(Ok(bytes::Bytes::from_static(b"late")));
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(rig.offset(&session).await, at);
        let rig = rig.restart().await;
        appended(&rig, &session, at, &bytes[at as usize..])
            .await
            .unwrap();
        rig.expect_whole(&session, &bytes).await;
    }
}

/// Whoever only asks, again and again, cannot keep somebody from uploading whose bytes flow.
#[tokio::test]
async fn one_writer_gets_on_where_another_client_keeps_halting_it() {
    let rig = Rig::fs().await;
    let bytes = noise(4 * MIB, 5);
    let session = rig.create(Some(4 * MIB)).await;
    let asking = {
        let (engine, session) = (rig.engine.clone(), session.clone());
        tokio::spawn(async move {
            let mut refused = 0;
            loop {
                match engine.halt(session.id, &session.key).await {
                    Ok(status) if matches!(status.upload.state, UploadState::Completed { .. }) => {
                        return refused;
                    }
                    Err(EngineError::Unavailable { .. }) => refused += 1,
                    _ => {}
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    };
    let mut displaced = 0;
    loop {
        let at = rig.offset(&session).await;
        if at == 4 * MIB {
            break;
        }
        let write = append(&session, at, 4 * MIB - at);
        let (feed, body) = fed_body();
        let Ok(admission) = rig.engine.admit(write).await else {
            continue;
        };
        let running = tokio::spawn(admission.run(body));
        for piece in bytes[at as usize..].chunks(256 * 1024) {
            let _ = feed.send(Ok(bytes::Bytes::copy_from_slice(piece)));
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        drop(feed);
        displaced += u32::from(running.await.unwrap().is_err());
    }
    assert!((1..10).contains(&displaced), "{displaced}");
    rig.expect_whole(&session, &bytes).await;
    assert!(asking.await.unwrap() > 0);
}

fn trailing(session: &Session, len: u64, trailing: &Trailing) -> Write {
    Write {
        digests: Expected::Trailing(trailing.clone()),
        end: None,
        ..append(session, 0, len)
    }
}

#[tokio::test]
async fn a_digest_that_follows_the_body_decides_over_it() {
    let algorithms = [DigestAlgorithm::Sha1, DigestAlgorithm::Crc32c];
    for rig in both().await {
        let bytes = noise(6 * MIB, 6);
        let session = rig.create(Some(6 * MIB)).await;
        let told = async |told: Option<Result<Digests, String>>| {
            let place = Trailing::of(&algorithms);
            let write = trailing(&session, 6 * MIB, &place);
            let admission = rig.engine.admit(write).await.unwrap();
            let (feed, body) = fed_body();
            let running = tokio::spawn(admission.run(body));
            send(&feed, &bytes, 100_000);
            if let Some(told) = told {
                place.tell(told);
            }
            drop(feed);
            running.await.unwrap()
        };
        for missing in [None, Some(Err(String::from("it is malformed")))] {
            let outcome = told(missing).await;
            assert!(
                matches!(outcome, Err(EngineError::DigestMissing { .. })),
                "{outcome:?}"
            );
            assert_eq!(rig.offset(&session).await, 0);
        }
        let wrong = digests_of(&[DigestAlgorithm::Sha1], b"something else");
        let outcome = told(Some(Ok(wrong))).await;
        assert!(
            matches!(outcome, Err(EngineError::DigestMismatch { .. })),
            "{outcome:?}"
        );
        assert_eq!(rig.offset(&session).await, 0);
        let right = digests_of(&[DigestAlgorithm::Crc32c], &bytes);
        assert_eq!(told(Some(Ok(right))).await.unwrap().offset.get(), 6 * MIB);
        rig.expect_whole(&session, &bytes).await;
    }
}

#[tokio::test]
async fn bounded_a_body_with_a_digest_of_unknown_length_may_not_go_on_for_ever() {
    let rig = rig_with(Ground::fs(), |settings| {
        settings.max_checksummed_chunk_bytes = 1000;
    })
    .await;
    let session = rig.create(Some(10_000)).await;
    let place = Trailing::of(&[DigestAlgorithm::Sha1]);
    let write = trailing(&session, 10_000, &place);
    let admission = rig.engine.admit(write).await.unwrap();
    let outcome = admission.run(body_of(&noise(1001, 7))).await;
    assert!(
        matches!(outcome, Err(EngineError::TooLarge { max }) if max.get() == 1000),
        "{outcome:?}"
    );
    assert_eq!(rig.offset(&session).await, 0);
}

#[tokio::test]
async fn terminating_ends_an_upload_whatever_its_state() {
    for rig in both().await {
        let bytes = noise(6 * MIB, 8);
        let fresh = rig.create(Some(6 * MIB)).await;
        let begun = rig.create(Some(6 * MIB)).await;
        rig.put(&begun, 0, &bytes[..MIB as usize]).await.unwrap();
        let done = rig.create(Some(6 * MIB)).await;
        rig.put(&done, 0, &bytes).await.unwrap();
        rig.expect_whole(&done, &bytes).await;
        for session in [fresh, begun, done] {
            rig.engine
                .terminate(session.id, &session.key)
                .await
                .unwrap();
            assert!(is_gone(&rig, &session));
            for gone in [
                rig.engine.terminate(session.id, &session.key).await,
                rig.engine.halt(session.id, &session.key).await.map(drop),
                rig.engine
                    .content(session.id, Some(&session.key))
                    .await
                    .map(drop),
            ] {
                assert!(matches!(gone, Err(EngineError::Gone)), "{gone:?}");
            }
        }
    }
}

#[tokio::test]
async fn terminating_may_leave_the_object() {
    let rig = rig_with(Ground::fs(), |settings| settings.delete_completed = false).await;
    let session = rig.create(Some(4)).await;
    rig.put(&session, 0, b"stay").await.unwrap();
    let object = rig.expect_whole(&session, b"stay").await;
    rig.engine
        .terminate(session.id, &session.key)
        .await
        .unwrap();
    let gone = rig.engine.content(session.id, Some(&session.key)).await;
    assert!(matches!(gone, Err(EngineError::Gone)));
    rig.engine.prune(false).await.unwrap();
    assert!(rig.stored(&object).await == b"stay");
}

#[tokio::test]
async fn own_only_an_object_that_could_not_be_deleted_is_deleted_by_pruning() {
    let (rig, faults) = faulty(Ground::s3().await).await;
    let session = rig.create(Some(4)).await;
    rig.put(&session, 0, b"gone").await.unwrap();
    rig.expect_whole(&session, b"gone").await;
    faults.fail(Call::Delete, When::Next(1), Fault::Unavailable);
    rig.engine
        .terminate(session.id, &session.key)
        .await
        .unwrap();
    assert!(!is_gone(&rig, &session));
    rig.engine.prune(false).await.unwrap();
    assert!(is_gone(&rig, &session));
}

#[tokio::test]
async fn terminating_waits_for_a_completion_and_undoes_it() {
    let (rig, faults) = faulty(Ground::fs()).await;
    let session = rig.create(Some(4)).await;
    rig.put(&session, 0, b"done").await.unwrap();
    faults.fail(Call::Publish, When::Next(1), Fault::Hang);
    let completing = {
        let (engine, session) = (rig.engine.clone(), session.clone());
        tokio::spawn(async move {
            let complete = jumar::engine::Complete {
                id: session.id,
                key: session.key,
                digests: Digests::default(),
                length: None,
            };
            engine.complete(complete).await
        })
    };
    until("it is being published", async || {
        faults.count(Call::Publish) == 1
    })
    .await;
    let terminating = {
        let (engine, session) = (rig.engine.clone(), session.clone());
        tokio::spawn(async move { engine.terminate(session.id, &session.key).await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!terminating.is_finished());
    faults.heal();
    completing.await.unwrap().unwrap();
    terminating.await.unwrap().unwrap();
    assert!(is_gone(&rig, &session));
}
