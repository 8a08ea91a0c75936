//! Objects at the address of their content: shared by uploads of the same bytes, never written again.

use std::sync::Arc;
use std::time::Duration;

use jumar::engine::{Create, EngineError, NewRole, Settings};
use jumar::model::digest::Digests;
use jumar::model::upload::{Declared, FailureReason, Protocol, Verified};
use jumar::model::{Handle, Length, Object, StoreKey, UploadId, UploadState};
use jumar::store::call::Call;
use jumar::store::faulty::{Fault, Faults, When};
use jumar::store::{About, Payload, Shape};
use sha2::{Digest as _, Sha256};

use super::kit::{digests_of, events, faulty_with, files_of, is_gone, rig_with, until};
use crate::support::rig::{Ground, MIB, Rig, Session, noise, sha256_of};

fn by_content(settings: &mut Settings) {
    settings.key_template = "{sha256}".parse().unwrap();
}

async fn both() -> [(Rig, Faults); 2] {
    [
        faulty_with(Ground::fs(), by_content).await,
        faulty_with(Ground::s3().await, by_content).await,
    ]
}

/// The call that brings an object to its address. On a folder it is the second of its name: the first one gives it its staged
/// key.
fn bringing(rig: &Rig) -> (Call, u32) {
    match rig.ground.s3 {
        Some(_) => (Call::Copy, 1),
        None => (Call::Publish, 2),
    }
}

async fn upload(rig: &Rig, bytes: &[u8]) -> Session {
    let session = rig.create(Some(bytes.len() as u64)).await;
    if !bytes.is_empty() {
        rig.put(&session, 0, bytes).await.unwrap();
    }
    session
}

/// All that the store has: keys of objects, in order.
fn stored_keys(rig: &Rig) -> Vec<String> {
    if let Some(server) = &rig.ground.s3 {
        assert_eq!(server.backend().open_uploads(), []);
        return server.backend().keys();
    }
    let root = rig.ground.folder.path().join("objects");
    let mut keys = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let key = path.strip_prefix(&root).unwrap();
                keys.push(key.to_str().unwrap().to_owned());
            }
        }
    }
    keys.sort();
    keys
}

fn hex_of(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Puts an object that no record knows of.
async fn smuggle(rig: &Rig, key: &str, bytes: &[u8]) {
    let key: StoreKey = key.parse().unwrap();
    let id = UploadId::generate();
    match rig.store.shape() {
        Shape::InPlace(files) => {
            let file = files.open(id).await.unwrap();
            let frame = bytes::Bytes::copy_from_slice(bytes);
            file.write_at(0, &[frame]).unwrap();
            let size = Length(bytes.len() as u64);
            files.publish(id, &key, size).await.unwrap();
            files.discard(id).await.unwrap();
        }
        Shape::Parts(parts) => {
            let frame = bytes::Bytes::copy_from_slice(bytes);
            let about = About {
                upload: id,
                content_type: None,
            };
            let payload = Payload::Memory(Arc::new([frame]));
            parts.put(&key, payload, &about).await.unwrap();
        }
    }
}

#[tokio::test]
async fn the_same_bytes_are_one_object() {
    for len in [0, 1000, 11 * MIB + 1] {
        for (rig, faults) in both().await {
            let bytes = noise(len, 300);
            let first = upload(&rig, &bytes).await;
            let object = rig.expect_whole(&first, &bytes).await;
            assert_eq!(object.key.as_str(), hex_of(&bytes));
            assert!(object.shared);
            assert_eq!(
                (object.first, object.verified),
                (first.id, Verified::Stream)
            );

            let (call, _) = bringing(&rig);
            let calls = faults.count(call);
            let second = upload(&rig, &bytes).await;
            assert_eq!(rig.expect_whole(&second, &bytes).await, object);
            assert_eq!(
                faults.count(call),
                calls,
                "nothing is brought a second time"
            );
            assert!(!rig.status(&first).await.upload.is_deduplicated());
            assert!(rig.status(&second).await.upload.is_deduplicated());

            assert_eq!(stored_keys(&rig), [hex_of(&bytes)]);
            for session in [&first, &second] {
                assert_eq!(files_of(&rig, session), Vec::<String>::new());
            }
            let sha256 = object.digests.iter().next().unwrap();
            assert_eq!(
                rig.engine.object_with(sha256).await.unwrap(),
                Some(object.clone())
            );
            assert_eq!(events(&rig, "completed"), 2);
            let rig = rig.restart().await;
            assert_eq!(rig.expect_whole(&second, &bytes).await, object);
        }
    }
}

#[tokio::test]
async fn twenty_at_once_make_one_object() {
    for (rig, faults) in both().await {
        let bytes = noise(6 * MIB, 301);
        let mut sessions = Vec::new();
        for _ in 0..20 {
            sessions.push(upload(&rig, &bytes).await);
        }
        let completions = sessions.iter().map(|session| rig.complete(session));
        let mut first = Vec::new();
        for object in futures_util::future::join_all(completions).await {
            let object = object.expect("each succeeds");
            assert_eq!(sha256_of(&object), hex_of(&bytes));
            first.push(object.first);
        }
        first.dedup();
        assert_eq!(first.len(), 1, "one of them has brought it");
        assert_eq!(stored_keys(&rig), [hex_of(&bytes)]);
        for session in &sessions {
            assert_eq!(files_of(&rig, session), Vec::<String>::new());
        }
        if rig.ground.s3.is_some() {
            assert_eq!(faults.count(Call::Copy), 1);
        }
        assert_eq!(events(&rig, "completed"), 20);
    }
}

#[tokio::test]
async fn others_wait_for_who_brings_it() {
    for (rig, faults) in both().await {
        let bytes = noise(1000, 302);
        let (first, second) = (upload(&rig, &bytes).await, upload(&rig, &bytes).await);
        let (call, nth) = bringing(&rig);
        faults.fail(call, When::Nth(nth), Fault::Hang);
        let (rig, first) = (Arc::new(rig), Arc::new(first));
        let one = tokio::spawn({
            let (rig, first) = (Arc::clone(&rig), Arc::clone(&first));
            async move { rig.complete(&first).await }
        });
        until("the first is at it", async || faults.count(call) == nth).await;
        let mut other = Box::pin(rig.complete(&second));
        let waits = tokio::time::timeout(Duration::from_millis(300), &mut other);
        assert!(waits.await.is_err(), "there is no object yet");
        faults.heal();
        let object = one.await.unwrap().unwrap();
        assert_eq!(other.await.unwrap(), object);
        assert_eq!(object.first, first.id);
    }
}

#[tokio::test]
async fn told_once_though_the_answer_of_the_copy_was_lost() {
    for (rig, faults) in both().await {
        let bytes = noise(6 * MIB, 303);
        let session = upload(&rig, &bytes).await;
        let (call, nth) = bringing(&rig);
        faults.fail(call, When::Nth(nth), Fault::LostAnswer);
        let put_off = rig.complete(&session).await;
        assert!(
            matches!(put_off, Err(EngineError::Unavailable { .. })),
            "{put_off:?}"
        );
        // Another process goes on.
        let rig = rig.restart().await;
        rig.engine.recover(true).await.unwrap();
        let object = rig.expect_whole(&session, &bytes).await;
        assert_eq!(object.first, session.id);
        assert_eq!(stored_keys(&rig), [hex_of(&bytes)]);
        assert_eq!(events(&rig, "completed"), 1);
    }
}

#[tokio::test]
async fn an_object_without_a_record_is_taken_if_it_is_the_same() {
    for (rig, _) in both().await {
        let bytes = noise(6 * MIB, 304);
        smuggle(&rig, &hex_of(&bytes), &bytes).await;
        let session = upload(&rig, &bytes).await;
        let object = rig.expect_whole(&session, &bytes).await;
        assert_eq!(object.first, session.id);
        assert_eq!(stored_keys(&rig), [hex_of(&bytes)]);
    }
}

#[tokio::test]
async fn exact_bytes_what_is_there_and_differs_is_neither_taken_nor_overwritten() {
    for (rig, _) in both().await {
        let (bytes, other) = (noise(6 * MIB, 305), noise(6 * MIB, 306));
        smuggle(&rig, &hex_of(&bytes), &other).await;
        let session = upload(&rig, &bytes).await;
        let refused = rig.complete(&session).await;
        assert!(
            matches!(refused, Err(EngineError::Unavailable { .. })),
            "{refused:?}"
        );
        let key = hex_of(&bytes).parse().unwrap();
        let mut there = rig.store.read(&key, None).await.unwrap();
        let mut found = Vec::new();
        while let Some(piece) = futures_util::StreamExt::next(&mut there).await {
            found.extend_from_slice(&piece.unwrap());
        }
        assert!(found == other);
        // Its own bytes are safe, and it completes when whoever put that there has removed it.
        rig.store.delete(&key).await.unwrap();
        rig.expect_whole(&session, &bytes).await;
    }
}

#[tokio::test]
async fn exact_bytes_a_wrong_digest_brings_nothing_to_any_address() {
    for (rig, faults) in both().await {
        let bytes = noise(6 * MIB, 307);
        let declared = Declared {
            digests: digests_of(&[jumar::model::DigestAlgorithm::Sha256], b"other"),
            ..Declared::default()
        };
        let session = rig.create_declaring(Some(6 * MIB), declared).await;
        rig.put(&session, 0, &bytes).await.unwrap();
        let wrong = rig.complete(&session).await;
        assert!(
            matches!(wrong, Err(EngineError::DigestMismatch { .. })),
            "{wrong:?}"
        );
        assert_eq!(faults.count(bringing(&rig).0), 0);
        assert!(is_gone(&rig, &session));
        assert_eq!(stored_keys(&rig), Vec::<String>::new());
    }
}

async fn terminate(rig: &Rig, session: &Session) {
    let ended = rig.engine.terminate(session.id, &session.key).await;
    ended.expect("ended");
}

#[tokio::test]
async fn own_only_an_object_goes_with_the_last_upload_that_names_it_and_comes_again() {
    for (rig, _) in both().await {
        let bytes = noise(1000, 308);
        let (first, second) = (upload(&rig, &bytes).await, upload(&rig, &bytes).await);
        rig.expect_whole(&first, &bytes).await;
        let object = rig.expect_whole(&second, &bytes).await;
        terminate(&rig, &first).await;
        assert_eq!(rig.expect_whole(&second, &bytes).await, object);
        terminate(&rig, &second).await;
        assert_eq!(stored_keys(&rig), Vec::<String>::new());
        let sha256 = object.digests.iter().next().unwrap();
        assert_eq!(rig.engine.object_with(sha256).await.unwrap(), None);

        let third = upload(&rig, &bytes).await;
        assert_eq!(rig.expect_whole(&third, &bytes).await.first, third.id);
        // What is swept again and again of those that ended takes nothing from it.
        rig.clock.advance(rig.engine.settings().orphan_grace * 2);
        for _ in 0..2 {
            rig.engine.prune(false).await.unwrap();
        }
        rig.expect_whole(&third, &bytes).await;
        assert_eq!(stored_keys(&rig), [hex_of(&bytes)]);
    }
}

#[tokio::test]
async fn an_address_waits_until_it_is_cleared() {
    for (rig, faults) in both().await {
        let bytes = noise(1000, 309);
        let first = upload(&rig, &bytes).await;
        rig.expect_whole(&first, &bytes).await;
        faults.fail(Call::Delete, When::Next(1), Fault::Hang);
        let deletes = faults.count(Call::Delete);
        let (rig, first) = (Arc::new(rig), Arc::new(first));
        let ending = tokio::spawn({
            let (rig, first) = (Arc::clone(&rig), Arc::clone(&first));
            async move { terminate(&rig, &first).await }
        });
        until("it is being removed", async || {
            faults.count(Call::Delete) > deletes
        })
        .await;
        // Somebody else who cleans up leaves it to who is at it.
        rig.engine.prune(false).await.unwrap();
        let second = upload(&rig, &bytes).await;
        let mut coming = Box::pin(rig.complete(&second));
        let waits = tokio::time::timeout(Duration::from_millis(300), &mut coming);
        assert!(
            waits.await.is_err(),
            "else the removal would take its object"
        );
        faults.heal();
        ending.await.unwrap();
        assert_eq!(coming.await.unwrap().first, second.id);
        rig.expect_whole(&second, &bytes).await;
    }
}

#[tokio::test]
async fn what_is_put_together_is_read_back_before_it_has_an_address() {
    for (rig, _) in both().await {
        let create = |role, length: Option<u64>| Create {
            protocol: Protocol::Tus,
            declared: Declared::default(),
            length: length.map(Length),
            idempotency: None,
            role,
            seal: None,
        };
        let bytes = noise(12 * MIB, 310);
        let mut handles = Vec::new();
        for piece in bytes.chunks(6 * MIB as usize) {
            let part = create(NewRole::Partial, Some(piece.len() as u64));
            let created = rig.engine.create(part).await.unwrap();
            let session = Session {
                id: created.upload.id,
                key: created.key.clone(),
            };
            rig.put(&session, 0, piece).await.unwrap();
            rig.complete(&session).await.unwrap();
            handles.push(Handle {
                id: created.upload.id,
                key: created.key,
            });
        }
        let whole = create(NewRole::Final(handles), None);
        let created = rig.engine.create(whole).await.unwrap();
        let session = Session {
            id: created.upload.id,
            key: created.key,
        };
        let object = rig.expect_whole(&session, &bytes).await;
        assert_eq!(object.key.as_str(), hex_of(&bytes));
        assert_eq!(object.verified, Verified::Readback);
        let same = upload(&rig, &bytes).await;
        assert_eq!(rig.expect_whole(&same, &bytes).await, object);
    }
}

#[tokio::test]
async fn a_creation_of_what_is_there_is_completed_at_once_where_that_is_on() {
    for instant in [false, true] {
        for ground in [Ground::fs(), Ground::s3().await] {
            let rig = rig_with(ground, |settings| {
                by_content(settings);
                settings.instant = instant;
            })
            .await;
            let bytes = noise(1000, 311);
            let first = upload(&rig, &bytes).await;
            let object = rig.expect_whole(&first, &bytes).await;
            let declaring = |digests: Digests| Declared {
                digests,
                ..Declared::default()
            };
            let known = rig
                .create_declaring(None, declaring(object.digests.clone()))
                .await;
            let status = rig.status(&known).await;
            let done = matches!(status.upload.state, UploadState::Completed { .. });
            assert_eq!((done, status.upload.is_deduplicated()), (instant, instant));
            if instant {
                assert_eq!(rig.expect_whole(&known, &bytes).await, object);
                rig.put(&known, 0, &bytes)
                    .await
                    .expect("the same again is fine");
            }
            let other = digests_of(&[jumar::model::DigestAlgorithm::Sha256], b"other");
            let unknown = rig.create_declaring(None, declaring(other)).await;
            assert_eq!(
                rig.status(&unknown).await.upload.state,
                UploadState::Pending
            );
        }
    }
}

#[tokio::test]
async fn keys_are_made_of_what_is_known() {
    for ground in [Ground::fs(), Ground::s3().await] {
        let rig = rig_with(ground, |settings| {
            settings.key_template = "{date}/{sha256}/{filename}".parse().unwrap();
        })
        .await;
        let bytes = noise(1000, 312);
        let named = |name: &str| Declared {
            filename: Some(name.to_owned()),
            ..Declared::default()
        };
        let mut objects: Vec<Object> = Vec::new();
        for name in ["a b.jpg", "../c.jpg", "a b.jpg"] {
            let session = rig.create_declaring(Some(1000), named(name)).await;
            rig.put(&session, 0, &bytes).await.unwrap();
            objects.push(rig.expect_whole(&session, &bytes).await);
        }
        let key = |name| format!("2023-11-14/{}/{name}", hex_of(&bytes));
        assert_eq!(stored_keys(&rig), [key("___c.jpg"), key("a_b.jpg")]);
        assert_eq!(objects[0], objects[2]);
        assert_ne!(objects[0].key, objects[1].key);
    }
}

#[tokio::test]
async fn an_upload_that_the_store_lost_gives_its_address_to_the_next() {
    let (rig, faults) = faulty_with(Ground::s3().await, by_content).await;
    let bytes = noise(1000, 313);
    let first = upload(&rig, &bytes).await;
    faults.fail(Call::Copy, When::Next(1), Fault::Unavailable);
    assert!(rig.complete(&first).await.is_err());
    let staged = format!("staging/{}", first.id);
    rig.s3_server().backend().lose_object(&staged);
    assert!(rig.complete(&first).await.is_err());
    rig.clock.advance(Duration::from_mins(2));
    let lost = rig.complete(&first).await;
    let reason = FailureReason::StoreLost;
    assert!(
        matches!(lost, Err(EngineError::Failed { reason: found }) if found == reason),
        "{lost:?}"
    );
    let second = upload(&rig, &bytes).await;
    assert_eq!(rig.expect_whole(&second, &bytes).await.first, second.id);
    assert_eq!(stored_keys(&rig), [hex_of(&bytes)]);
}

#[tokio::test]
async fn never_back_what_only_a_copy_does_not_find_is_not_lost() {
    let (rig, faults) = faulty_with(Ground::s3().await, by_content).await;
    let bytes = noise(1000, 314);
    let session = upload(&rig, &bytes).await;
    faults.fail(Call::Copy, When::Always, Fault::NotFound);
    for _ in 0..3 {
        let put_off = rig.complete(&session).await;
        assert!(
            matches!(put_off, Err(EngineError::Unavailable { .. })),
            "{put_off:?}"
        );
        rig.clock.advance(Duration::from_mins(2));
    }
    faults.heal();
    rig.expect_whole(&session, &bytes).await;
}

#[tokio::test]
async fn exact_bytes_an_object_that_the_store_lost_is_brought_again() {
    for len in [1000, 6 * MIB] {
        for (rig, _) in both().await {
            let bytes = noise(len, 315);
            let first = upload(&rig, &bytes).await;
            let object = rig.expect_whole(&first, &bytes).await;
            rig.store.delete(&object.key).await.unwrap();
            let second = upload(&rig, &bytes).await;
            assert_eq!(rig.expect_whole(&second, &bytes).await, object);
            rig.expect_whole(&first, &bytes).await;
            assert_eq!(stored_keys(&rig), [hex_of(&bytes)]);
        }
    }
}

#[tokio::test]
async fn a_removal_that_failed_is_made_up_for_by_who_waits() {
    for (rig, faults) in both().await {
        let bytes = noise(1000, 316);
        let first = upload(&rig, &bytes).await;
        rig.expect_whole(&first, &bytes).await;
        faults.fail(Call::Delete, When::Next(1), Fault::Unavailable);
        terminate(&rig, &first).await;
        rig.clock.advance(Duration::from_mins(4));
        let second = upload(&rig, &bytes).await;
        assert_eq!(rig.expect_whole(&second, &bytes).await.first, second.id);
    }
}

#[tokio::test]
async fn an_upload_goes_on_to_where_it_was_on_its_way() {
    for (rig, faults) in both().await {
        let bytes = noise(1000, 317);
        let session = upload(&rig, &bytes).await;
        let (call, nth) = bringing(&rig);
        faults.fail(call, When::Nth(nth), Fault::LostAnswer);
        assert!(rig.complete(&session).await.is_err());
        let Rig {
            engine,
            clock,
            ground,
            ..
        } = rig;
        let mut settings = engine.settings().clone();
        drop(engine);
        settings.key_template = "other/{sha256}".parse().unwrap();
        let store = ground.store().await;
        let rig = ground.rig_at(store, settings, clock);
        rig.engine.recover(true).await.unwrap();
        rig.expect_whole(&session, &bytes).await;
        assert_eq!(stored_keys(&rig), [hex_of(&bytes)]);
        let next = upload(&rig, &noise(1000, 318)).await;
        let object = rig.expect_whole(&next, &noise(1000, 318)).await;
        assert!(object.key.as_str().starts_with("other/"));
    }
}
