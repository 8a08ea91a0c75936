//! Uploads that are put together from partial ones.

use std::sync::Arc;
use std::time::Duration;

use jumar::engine::{Create, EngineError, NewRole, Settings};
use jumar::model::upload::{Declared, FailureReason, Protocol, Role, Verified};
use jumar::model::{Handle, Length, Object, StoreKey, UploadState};
use jumar::store::call::Call;
use jumar::store::faulty::{Fault, Faults, When};
use jumar::store::hooked::Hooked;
use jumar::store::s3::{S3Config, S3Store};
use jumar::store::{About, Payload, Shape};
use sha2::{Digest as _, Sha256};

use super::kit::{both, events, faulty, is_gone, rig_with, until};
use crate::support::rig::{Ground, MIB, Rig, Session, noise, sha256_of};

fn create(role: NewRole, length: Option<u64>) -> Create {
    Create {
        protocol: Protocol::Tus,
        declared: Declared {
            sequential: true,
            ..Declared::default()
        },
        length: length.map(Length),
        idempotency: None,
        role,
        seal: None,
    }
}

async fn created(rig: &Rig, create: Create) -> Result<Session, EngineError> {
    let created = rig.engine.create(create).await?;
    Ok(Session {
        id: created.upload.id,
        key: created.key,
    })
}

async fn partial(rig: &Rig, bytes: &[u8]) -> Session {
    let create = create(NewRole::Partial, Some(bytes.len() as u64));
    created(rig, create).await.unwrap()
}

/// A partial upload that is complete.
async fn complete(rig: &Rig, bytes: &[u8]) -> Session {
    let session = partial(rig, bytes).await;
    if !bytes.is_empty() {
        rig.put(&session, 0, bytes).await.unwrap();
    }
    rig.complete(&session).await.unwrap();
    session
}

fn handles(parts: &[&Session]) -> NewRole {
    NewRole::Final(
        parts
            .iter()
            .map(|part| Handle {
                id: part.id,
                key: part.key.clone(),
            })
            .collect(),
    )
}

async fn made_of(rig: &Rig, parts: &[&Session]) -> Session {
    created(rig, create(handles(parts), None)).await.unwrap()
}

/// Completes it, and compares what is stored with `expected`.
async fn expect(rig: &Rig, session: &Session, expected: &[u8]) -> Object {
    let object = rig.complete(session).await.unwrap();
    assert_eq!(sha256_of(&object), hex::encode(Sha256::digest(expected)));
    assert!(object.store_checked);
    assert_eq!(object.verified, Verified::Readback);
    assert!(rig.stored(&object).await == expected);
    let status = rig.status(session).await;
    assert_eq!(status.upload.role, Role::Final);
    assert_eq!(
        status.received.contiguous().get(),
        expected.len() as u64,
        "every byte is there"
    );
    object
}

#[tokio::test]
async fn exact_bytes_of_parts_of_all_sizes_in_their_order() {
    for rig in both().await {
        let sizes = [6 * MIB, 0, 1000, 3 * MIB, 12 * MIB + 1, 5 * MIB, 7];
        let bytes: Vec<_> = (0..).zip(sizes).map(|(n, len)| noise(len, n)).collect();
        let mut parts = Vec::new();
        for bytes in &bytes {
            parts.push(complete(&rig, bytes).await);
        }
        for order in [
            &[0, 1, 2, 3, 4, 5, 6][..],
            &[4, 4, 2],
            &[2, 6, 2],
            &[1, 1],
            &[0],
        ] {
            let chosen: Vec<_> = order.iter().map(|n| &parts[*n]).collect();
            let expected: Vec<_> = order.iter().flat_map(|n| bytes[*n].clone()).collect();
            let whole = made_of(&rig, &chosen).await;
            expect(&rig, &whole, &expected).await;
        }
        assert_eq!(events(&rig, "completed"), 5, "parts cause no event");
    }
}

/// Some stores want all parts of one size.
#[tokio::test]
async fn exact_bytes_where_parts_have_to_be_equal() {
    let ground = Ground::s3().await;
    let config = S3Config {
        equal_parts: true,
        ..ground.s3.as_ref().unwrap().config()
    };
    let settings = ground.settings();
    let rig = ground.rig_with(Arc::new(S3Store::open(config).await), settings);
    let (one, two) = (noise(17 * MIB, 1), noise(9 * MIB + 5, 2));
    let parts = [complete(&rig, &one).await, complete(&rig, &two).await];
    let whole = made_of(&rig, &[&parts[0], &parts[1]]).await;
    expect(&rig, &whole, &[one, two].concat()).await;
}

#[tokio::test]
async fn the_store_copies_what_it_can() {
    let (rig, faults) = faulty(Ground::s3().await).await;
    let bytes: Vec<_> = (0..3).map(|n| noise(6 * MIB, n)).collect();
    let mut parts = Vec::new();
    for bytes in &bytes {
        parts.push(complete(&rig, bytes).await);
    }
    let puts = faults.count(Call::Put) + faults.count(Call::PutPart);
    let reads = faults.count(Call::Read);
    let whole = made_of(&rig, &[&parts[0], &parts[1], &parts[2]]).await;
    expect(&rig, &whole, &bytes.concat()).await;
    assert_eq!(faults.count(Call::CopyPart), 3);
    assert_eq!(faults.count(Call::Put) + faults.count(Call::PutPart), puts);
    // Once for the digest, and once by the test.
    assert_eq!(faults.count(Call::Read), reads + 2);
}

#[tokio::test]
async fn what_the_store_does_not_copy_is_streamed() {
    let (rig, faults) = faulty(Ground::s3().await).await;
    let bytes: Vec<_> = (0..3).map(|n| noise(6 * MIB, n)).collect();
    let mut parts = Vec::new();
    for bytes in &bytes {
        parts.push(complete(&rig, bytes).await);
    }
    faults.fail(Call::CopyPart, When::Always, Fault::Refused);
    let whole = made_of(&rig, &[&parts[0], &parts[1], &parts[2]]).await;
    expect(&rig, &whole, &bytes.concat()).await;
}

#[tokio::test]
async fn a_final_upload_may_come_before_its_parts() {
    for rig in both().await {
        let (one, two) = (noise(6 * MIB, 1), noise(100, 2));
        let parts = [partial(&rig, &one).await, partial(&rig, &two).await];
        let whole = made_of(&rig, &[&parts[0], &parts[1]]).await;
        let incomplete = rig.complete(&whole).await;
        assert!(matches!(incomplete, Err(EngineError::Incomplete { .. })));
        let status = rig.engine.halt(whole.id, &whole.key).await.unwrap();
        assert_eq!(status.upload.state, UploadState::Pending);
        rig.put(&parts[1], 0, &two).await.unwrap();
        rig.complete(&parts[1]).await.unwrap();
        rig.put(&parts[0], 0, &one).await.unwrap();
        rig.complete(&parts[0]).await.unwrap();
        until("it is completed by itself", async || {
            let status = rig.status(&whole).await;
            matches!(status.upload.state, UploadState::Completed { .. })
        })
        .await;
        expect(&rig, &whole, &[one, two].concat()).await;
    }
}

#[tokio::test]
async fn never_back_a_final_upload_survives_a_crash_before_it_is_put_together() {
    for ground in [Ground::fs(), Ground::s3().await] {
        let (rig, faults) = faulty(ground).await;
        let (one, two) = (noise(6 * MIB, 1), noise(6 * MIB, 2));
        let parts = [complete(&rig, &one).await, complete(&rig, &two).await];
        for call in [Call::CopyPart, Call::CopyIn] {
            faults.fail(call, When::Always, Fault::Unavailable);
        }
        let whole = made_of(&rig, &[&parts[0], &parts[1]]).await;
        let waits = rig.complete(&whole).await;
        assert!(
            matches!(waits, Err(EngineError::Unavailable { .. })),
            "{waits:?}"
        );
        let rig = rig.restart().await;
        rig.engine.recover(true).await.unwrap();
        until("it is completed by itself", async || {
            let status = rig.status(&whole).await;
            matches!(status.upload.state, UploadState::Completed { .. })
        })
        .await;
        expect(&rig, &whole, &[one, two].concat()).await;
    }
}

#[tokio::test]
async fn sealed_only_ones_own_partial_uploads_can_be_put_together() {
    for rig in both().await {
        let good = complete(&rig, b"good").await;
        let other = complete(&rig, b"other").await;
        let foreign = Session {
            id: good.id,
            key: other.key.clone(),
        };
        let native = rig.create(Some(4)).await;
        let whole = made_of(&rig, &[&good]).await;
        let gone = partial(&rig, b"gone").await;
        rig.engine.abort(gone.id, &gone.key).await.unwrap();
        for wrong in [&foreign, &native, &whole, &gone] {
            let made = created(&rig, create(handles(&[&good, wrong]), None)).await;
            let Err(EngineError::BadParts { detail }) = made.map(|session| session.id) else {
                panic!("it was made");
            };
            assert!(detail.starts_with("part 2 "), "{detail}");
        }
        let written = rig.put(&whole, 0, b"x").await;
        assert!(
            matches!(written, Err(EngineError::Unwritable)),
            "{written:?}"
        );
    }
}

#[tokio::test]
async fn bounded_parts_may_not_be_more_than_an_upload_together() {
    let rig = rig_with(Ground::fs(), |settings| settings.max_size_bytes = 10).await;
    let part = complete(&rig, b"1234").await;
    made_of(&rig, &[&part, &part]).await;
    let larger = created(&rig, create(handles(&[&part; 3]), None)).await;
    let max = Length(10);
    assert!(matches!(larger, Err(EngineError::TooLarge { max: found }) if found == max));
    // Of those whose length is not known yet it turns out later.
    let part = created(&rig, create(NewRole::Partial, None)).await.unwrap();
    let whole = made_of(&rig, &[&part; 3]).await;
    rig.put(&part, 0, b"1234").await.unwrap();
    rig.complete(&part).await.unwrap();
    until("it fails", async || {
        let status = rig.status(&whole).await.upload.state;
        matches!(
            status,
            UploadState::Failed {
                reason: FailureReason::TooLarge,
                ..
            }
        )
    })
    .await;
}

#[tokio::test]
async fn own_only_parts_go_when_they_are_used_and_the_whole_stays() {
    for rig in both().await {
        let (used, unused) = (
            complete(&rig, b"used").await,
            complete(&rig, b"unused").await,
        );
        let whole = made_of(&rig, &[&used, &used]).await;
        let object = expect(&rig, &whole, b"usedused").await;
        // A client that did not get the answer finds its parts for a while, and asks again.
        rig.engine.prune(false).await.unwrap();
        let again = made_of(&rig, &[&used, &used]).await;
        expect(&rig, &again, b"usedused").await;
        rig.clock.advance(Duration::from_mins(15));
        // Right after the clock has jumped nothing expires.
        let jumped = rig.engine.prune(false).await.unwrap();
        assert_eq!(jumped.expired, 0);
        let dry = rig.engine.prune(true).await.unwrap();
        assert_eq!(dry.expired, 1);
        let done = rig.engine.prune(false).await.unwrap();
        assert_eq!((done.expired, done.failed), (1, 0));
        assert!(is_gone(&rig, &used));
        assert!(!is_gone(&rig, &unused));
        assert!(rig.stored(&object).await == b"usedused");
        let gone = rig.engine.halt(used.id, &used.key).await;
        assert!(matches!(gone, Err(EngineError::Gone)));
        rig.clock.advance(Duration::from_hours(24 * 7));
        rig.engine.prune(false).await.unwrap();
        rig.engine.prune(false).await.unwrap();
        assert!(is_gone(&rig, &unused));
        assert!(rig.stored(&object).await == b"usedused");
    }
}

#[tokio::test]
async fn a_part_that_is_ended_fails_what_waits_for_it() {
    for rig in both().await {
        let part = partial(&rig, b"part").await;
        let whole = made_of(&rig, &[&part]).await;
        rig.engine.terminate(part.id, &part.key).await.unwrap();
        let reason = FailureReason::PartGone;
        let failed = rig.complete(&whole).await;
        assert!(
            matches!(failed, Err(EngineError::Failed { reason: found }) if found == reason),
            "{failed:?}"
        );
    }
}

async fn tried_until_ended(rig: &Rig, whole: &Session) -> UploadState {
    for _ in 0..12 {
        let _ = rig.complete(whole).await;
        let state = rig.status(whole).await.upload.state;
        if state.has_ended() {
            return state;
        }
        rig.clock.advance(Duration::from_secs(20));
    }
    panic!("it never ended");
}

/// The parts' own objects are there, so nothing is lost.
#[tokio::test]
async fn never_back_a_final_upload_whose_multipart_upload_is_gone_is_put_together_anew() {
    let (rig, faults) = faulty(Ground::s3().await).await;
    let (one, two) = (noise(6 * MIB, 1), noise(6 * MIB, 2));
    let parts = [complete(&rig, &one).await, complete(&rig, &two).await];
    for call in [Call::CopyPart, Call::Finish] {
        faults.fail(call, When::Always, Fault::Unavailable);
        let whole = made_of(&rig, &[&parts[0], &parts[1]]).await;
        let _ = rig.complete(&whole).await;
        rig.s3_server().backend().lose_uploads();
        faults.heal();
        let state = tried_until_ended(&rig, &whole).await;
        assert!(matches!(state, UploadState::Completed { .. }), "{state:?}");
        expect(&rig, &whole, &[&one[..], &two].concat()).await;
    }
}

#[tokio::test]
async fn never_back_two_short_lags_of_the_store_are_no_loss() {
    let (rig, faults) = faulty(Ground::s3().await).await;
    let (one, two) = (noise(6 * MIB, 1), noise(6 * MIB, 2));
    let parts = [complete(&rig, &one).await, complete(&rig, &two).await];
    faults.fail(Call::CopyPart, When::Always, Fault::NotFound);
    let whole = made_of(&rig, &[&parts[0], &parts[1]]).await;
    let first = rig.complete(&whole).await;
    assert!(
        matches!(first, Err(EngineError::Unavailable { .. })),
        "{first:?}"
    );
    faults.heal();
    faults.fail(Call::Finish, When::Next(1), Fault::Unavailable);
    let _ = rig.complete(&whole).await;
    rig.clock.advance(Duration::from_secs(61));
    faults.fail(Call::Read, When::Next(1), Fault::NotFound);
    let third = rig.complete(&whole).await;
    assert!(
        !matches!(third, Err(EngineError::Failed { .. })),
        "{third:?}"
    );
}

#[tokio::test]
async fn exact_bytes_what_is_not_what_its_parts_were_is_never_completed() {
    for rig in both().await {
        let part = complete(&rig, b"1234").await;
        let key = StoreKey::staged(part.id);
        match rig.store.shape() {
            Shape::Parts(parts) => {
                let other = Payload::Memory(Arc::new([bytes::Bytes::from_static(b"12x4")]));
                let about = About {
                    upload: part.id,
                    content_type: None,
                };
                parts.put(&key, other, &about).await.unwrap();
            }
            Shape::InPlace(_) => {
                let objects = rig.ground.folder.path().join("objects");
                std::fs::write(objects.join(key.as_str()), b"12x4").unwrap();
            }
        }
        let whole = made_of(&rig, &[&part, &part]).await;
        let reason = FailureReason::StoreLost;
        let state = tried_until_ended(&rig, &whole).await;
        assert!(
            matches!(state, UploadState::Failed { reason: found, .. } if found == reason),
            "{state:?}"
        );
    }
}

#[tokio::test]
async fn bounded_putting_together_leaves_the_disk_its_reserve() {
    let rig = Rig::fs().await;
    let mut settings = rig.ground.settings();
    let part = complete(&rig, b"1234").await;
    let Rig {
        engine,
        store,
        clock,
        ground,
        ..
    } = rig;
    drop(engine);
    settings.min_free_bytes = u64::MAX;
    let rig = ground.rig_at(store, settings, clock);
    let whole = made_of(&rig, &[&part]).await;
    let done = rig.complete(&whole).await;
    assert!(
        matches!(done, Err(EngineError::Unavailable { .. })),
        "{done:?}"
    );
}

/// The size of equal parts changes while an upload is put together.
#[tokio::test]
async fn exact_bytes_where_the_grid_changed_in_between() {
    let ground = Ground::s3().await;
    let config = || S3Config {
        equal_parts: true,
        ..ground.s3.as_ref().unwrap().config()
    };
    let faults = Faults::default();
    let store = Arc::new(S3Store::open(config()).await);
    let store = Arc::new(Hooked::new(store, faults.clone()));
    let plain = Arc::new(S3Store::open(config()).await);
    let settings = |mib: u64| Settings {
        chunk_size_bytes: mib * MIB,
        ..ground.settings()
    };
    let (before, after) = (settings(8), settings(6));
    let rig = ground.rig_with(store, before);
    let (one, two) = (noise(20 * MIB, 1), noise(20 * MIB, 2));
    let parts = [complete(&rig, &one).await, complete(&rig, &two).await];
    faults.fail(Call::CopyPart, When::Nth(4), Fault::Unavailable);
    let whole = made_of(&rig, &[&parts[0], &parts[1]]).await;
    let _ = rig.complete(&whole).await;
    let Rig {
        engine,
        clock,
        ground,
        ..
    } = rig;
    drop(engine);
    let rig = ground.rig_at(plain, after, clock);
    expect(&rig, &whole, &[one, two].concat()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_final_upload_that_is_asked_for_as_it_becomes_ready_is_completed_soon() {
    let rig = Arc::new(Rig::fs().await);
    for _ in 0..30 {
        let part = partial(&rig, b"1234").await;
        let whole = made_of(&rig, &[&part]).await;
        rig.put(&part, 0, b"1234").await.unwrap();
        let asking = {
            let (rig, whole) = (Arc::clone(&rig), whole.clone());
            tokio::spawn(async move {
                loop {
                    let status = rig.engine.halt(whole.id, &whole.key).await;
                    if status.is_ok_and(|status| status.upload.state != UploadState::Pending) {
                        break;
                    }
                }
            })
        };
        rig.complete(&part).await.unwrap();
        asking.await.unwrap();
        until("it is completed by itself", async || {
            let stored = rig.catalog.load(whole.id).await.unwrap().unwrap();
            stored.upload.state.has_ended()
        })
        .await;
    }
}
