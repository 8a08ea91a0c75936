//! Whose an upload is, and what its creator is held to.

use std::sync::Arc;
use std::time::Duration;

use jumar::engine::{Create, Engine, EngineError, NewRole, Readers, Space};
use jumar::model::caller::{Grant, MediaTypes, Scopes};
use jumar::model::digest::Digests;
use jumar::model::upload::{Declared, FailureReason, Protocol};
use jumar::model::{Caller, DigestAlgorithm, Handle, Length, LimitName, Scope, UploadState};
use tokio::task::JoinSet;

use super::kit::{both, digests_of, is_gone, rig_with, until};
use crate::support::rig::{Ground, MIB, Rig, Session, body_of, noise, write};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01";
const JPEG: &[u8] = b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01";

fn caller(subject: &str) -> Caller {
    Caller {
        subject: Some(subject.parse().unwrap()),
        token: Some(format!("token-of-{subject}").parse().unwrap()),
        ..Caller::anonymous()
    }
}

fn a_file(length: Option<u64>) -> Create {
    Create {
        protocol: Protocol::Native,
        declared: Declared::default(),
        length: length.map(Length),
        idempotency: None,
        role: NewRole::Whole,
        seal: None,
    }
}

fn of_type(content_type: &str) -> Create {
    let mut create = a_file(None);
    create.declared.content_type = Some(content_type.to_owned());
    create
}

async fn create(engine: &Engine, create: Create) -> Result<Session, EngineError> {
    let created = engine.create(create).await?;
    Ok(Session {
        id: created.upload.id,
        key: created.key,
    })
}

/// A rig whose only space is as it is told.
async fn held_to(ground: Ground, space: Space) -> Rig {
    rig_with(ground, |settings| {
        settings.spaces = [("default".parse().unwrap(), space)].into();
    })
    .await
}

fn limited_to(limits: &[(LimitName, u64)]) -> Space {
    Space {
        limits: limits.iter().copied().collect(),
        ..Space::default()
    }
}

fn expect_limit(outcome: Result<Session, EngineError>, limit: LimitName) {
    match outcome {
        Err(EngineError::Limited(hit)) => assert_eq!(hit.limit, limit),
        other => panic!("not limited: {:?}", other.map(|session| session.id)),
    }
}

#[tokio::test]
async fn sealed_the_right_key_in_the_wrong_hands_opens_nothing() {
    for rig in both().await {
        let ann = rig.engine.on_behalf_of(caller("ann"));
        let session = create(&ann, a_file(Some(4))).await.unwrap();
        let (id, key) = (session.id, &session.key);
        let mut other_space = caller("ann");
        other_space.space = "photos".parse().unwrap();
        let mut reader = caller("eve");
        reader.scopes = [Scope::Read].into_iter().collect();
        for stranger in [caller("eve"), other_space, Caller::anonymous(), reader] {
            let eve = rig.engine.on_behalf_of(stranger);
            let complete = jumar::engine::Complete {
                id,
                key: key.clone(),
                digests: Digests::default(),
                length: None,
            };
            let urls = jumar::engine::PartUrls {
                id,
                key: key.clone(),
                numbers: Vec::new(),
                digests: std::collections::BTreeMap::new(),
            };
            let refused = [
                eve.admit(write(&session, 0, 4)).await.map(drop),
                eve.displace(id, key, None).await.map(drop),
                eve.halt(id, key).await.map(drop),
                eve.status(id, key).await.map(drop),
                eve.complete(complete).await.map(drop),
                eve.part_urls(urls).await.map(drop),
                eve.abort(id, key).await,
                eve.terminate(id, key).await,
            ];
            for outcome in refused {
                assert!(matches!(outcome, Err(EngineError::NotYours)), "{outcome:?}");
            }
            let wrong = jumar::model::UploadKey::generate();
            let hidden = eve.status(id, &wrong).await.map(drop);
            assert!(matches!(hidden, Err(EngineError::NotFound)), "{hidden:?}");
        }
        let mut renewed = caller("ann");
        renewed.token = Some("another".parse().unwrap());
        let renewed = rig.engine.on_behalf_of(renewed);
        let admission = renewed.admit(write(&session, 0, 4)).await.unwrap();
        admission.run(body_of(b"ours")).await.unwrap();
        rig.expect_whole(&session, b"ours").await;
    }
}

#[tokio::test]
async fn an_upload_of_nobody_is_anybodys_who_has_its_key() {
    let rig = Rig::fs().await;
    let anonymous = rig.engine.on_behalf_of(Caller::anonymous());
    let session = create(&anonymous, a_file(Some(4))).await.unwrap();
    let ann = rig.engine.on_behalf_of(caller("ann"));
    ann.status(session.id, &session.key).await.unwrap();
}

#[tokio::test]
async fn nobody_makes_a_file_of_anothers_parts() {
    let rig = Rig::fs().await;
    let part = Create {
        protocol: Protocol::Tus,
        role: NewRole::Partial,
        ..a_file(Some(4))
    };
    let ann = rig.engine.on_behalf_of(caller("ann"));
    let part = create(&ann, part).await.unwrap();
    let whole = Create {
        protocol: Protocol::Tus,
        role: NewRole::Final(vec![Handle {
            id: part.id,
            key: part.key,
        }]),
        ..a_file(None)
    };
    let eve = rig.engine.on_behalf_of(caller("eve"));
    let outcome = create(&eve, whole.clone()).await.map(drop);
    assert!(matches!(outcome, Err(EngineError::NotYours)), "{outcome:?}");
    create(&ann, whole).await.unwrap();
}

#[tokio::test]
async fn sealed_content_is_read_by_whom_its_space_lets_read() {
    for (readers, stranger_may, member_may) in [
        (Readers::Owner, false, false),
        (Readers::Space, false, true),
        (Readers::Public, true, true),
    ] {
        let space = Space {
            readers,
            ..Space::default()
        };
        let rig = held_to(Ground::fs(), space).await;
        let ann = rig.engine.on_behalf_of(caller("ann"));
        let session = create(&ann, a_file(Some(4))).await.unwrap();
        rig.put(&session, 0, b"text").await.unwrap();
        rig.complete(&session).await.unwrap();
        let with = |scopes: &[Scope], space: &str| Caller {
            scopes: scopes.iter().copied().collect::<Scopes>(),
            space: space.parse().unwrap(),
            ..caller("bob")
        };
        let unbound = Caller {
            bound: false,
            ..with(&[Scope::Read], "photos")
        };
        for (who, may) in [
            (with(&[Scope::Read], "default"), true),
            (with(&[Scope::Admin], "default"), true),
            (unbound, true),
            (with(&[Scope::Upload], "default"), member_may),
            (with(&[Scope::Read], "photos"), stranger_may),
            (Caller::anonymous(), stranger_may),
        ] {
            let bob = rig.engine.on_behalf_of(who.clone());
            let read = bob.content(session.id, None).await.map(drop);
            assert_eq!(read.is_ok(), may, "{readers:?} {who:?}");
            if !may {
                assert!(matches!(read, Err(EngineError::NotFound)), "{read:?}");
            }
        }
        ann.content(session.id, Some(&session.key)).await.unwrap();
    }
}

/// How often the race for places is run; more in the measure that the documentation tells of.
fn rounds() -> usize {
    std::env::var("JUMAR_TEST_RACES").map_or(20, |rounds| rounds.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_creations_never_open_more_than_may_be_open() {
    let rig = rig_with(Ground::fs(), |settings| {
        let space = limited_to(&[(LimitName::OpenPerToken, 2)]);
        settings.spaces = [("default".parse().unwrap(), space)].into();
        settings.open_wait = Duration::ZERO;
    })
    .await;
    for round in 0..rounds() {
        let engine = rig.engine.on_behalf_of(caller(&format!("who{round}")));
        let mut racing = JoinSet::new();
        for _ in 0..50 {
            let engine = engine.clone();
            racing.spawn(async move { create(&engine, a_file(None)).await });
        }
        let created = racing.join_all().await;
        assert_eq!(created.iter().filter(|made| made.is_ok()).count(), 2);
        for session in created.into_iter().flatten() {
            engine.abort(session.id, &session.key).await.unwrap();
        }
    }
}

#[tokio::test]
async fn who_waits_gets_the_place_of_the_next_that_ends() {
    let rig = rig_with(Ground::fs(), |settings| {
        let space = limited_to(&[(LimitName::OpenPerDevice, 1)]);
        settings.spaces = [("default".parse().unwrap(), space)].into();
        settings.open_wait = Duration::from_secs(20);
    })
    .await;
    let guest = Caller {
        guest: true,
        ..caller("ann")
    };
    let ann = rig.engine.on_behalf_of(guest.clone());
    let first = create(&ann, a_file(Some(4))).await.unwrap();
    let waiting = {
        let ann = ann.clone();
        tokio::spawn(async move { create(&ann, a_file(Some(4))).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished(), "as many are open as may be");
    let phone = rig.engine.on_behalf_of(Caller {
        device: Some("phone".parse().unwrap()),
        ..guest
    });
    create(&phone, a_file(None)).await.expect("another device");
    rig.put(&first, 0, b"done").await.unwrap();
    rig.complete(&first).await.unwrap();
    waiting.await.unwrap().expect("its turn");
}

#[tokio::test]
async fn who_has_few_connections_keeps_one_for_what_is_open() {
    let rig = rig_with(Ground::fs(), |settings| {
        let space = limited_to(&[(LimitName::OpenPerDevice, 1)]);
        settings.spaces = [("default".parse().unwrap(), space)].into();
        settings.open_wait = Duration::from_secs(20);
    })
    .await;
    let page = Caller {
        guest: true,
        few_connections: true,
        ..caller("ann")
    };
    let engine = rig.engine.on_behalf_of(page.clone());
    create(&engine, a_file(None)).await.unwrap();
    let mut waiting = JoinSet::new();
    for _ in 0..5 {
        let engine = engine.clone();
        waiting.spawn(async move { create(&engine, a_file(None)).await });
    }
    let refused = waiting.join_next().await.unwrap().unwrap();
    expect_limit(refused, LimitName::OpenPerDevice);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(waiting.try_join_next().is_none(), "four wait");
    waiting.shutdown().await;
    let next = tokio::time::timeout(Duration::from_millis(100), create(&engine, a_file(None)));
    assert!(next.await.is_err(), "who went away does not count");
    let program = rig.engine.on_behalf_of(Caller {
        few_connections: false,
        ..page
    });
    for _ in 0..5 {
        let engine = program.clone();
        waiting.spawn(async move { create(&engine, a_file(None)).await });
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(waiting.try_join_next().is_none(), "all of them wait");
}

#[tokio::test]
async fn a_place_that_does_not_come_free_is_refused_in_the_end() {
    let rig = held_to(Ground::fs(), limited_to(&[(LimitName::OpenPerToken, 1)])).await;
    let ann = rig.engine.on_behalf_of(caller("ann"));
    create(&ann, a_file(None)).await.unwrap();
    expect_limit(create(&ann, a_file(None)).await, LimitName::OpenPerToken);
    let nothing = held_to(Ground::fs(), limited_to(&[(LimitName::OpenPerToken, 0)])).await;
    let ann = nothing.engine.on_behalf_of(caller("ann"));
    expect_limit(create(&ann, a_file(None)).await, LimitName::OpenPerToken);
}

#[tokio::test]
async fn never_back_bytes_beyond_a_limit_end_the_body_and_lose_nothing() {
    for ground in [Ground::fs(), Ground::s3().await] {
        let rig = held_to(ground, limited_to(&[(LimitName::StoredBytes, 12 * MIB)])).await;
        let ann = rig.engine.on_behalf_of(caller("ann"));
        let session = create(&ann, a_file(None)).await.unwrap();
        let bytes = noise(20 * MIB, 3);
        rig.put(&session, 0, &bytes[..10 * MIB as usize])
            .await
            .unwrap();
        let outcome = rig
            .put(&session, 10 * MIB, &bytes[10 * MIB as usize..])
            .await;
        assert!(
            matches!(&outcome, Err(EngineError::Limited(hit)) if hit.limit == LimitName::StoredBytes),
            "{outcome:?}"
        );
        let offset = rig.offset(&session).await;
        assert!((10 * MIB..=12 * MIB).contains(&offset), "{offset}");
        rig.put(&session, offset, &bytes[offset as usize..12 * MIB as usize])
            .await
            .expect("what is left of it");
        rig.expect_whole(&session, &bytes[..12 * MIB as usize])
            .await;
        expect_limit(create(&ann, a_file(Some(1))).await, LimitName::StoredBytes);
    }
}

#[tokio::test]
async fn a_token_is_held_to_its_own_size_and_number() {
    let rig = Rig::fs().await;
    let mut guest = caller("ann");
    guest.grant = Grant {
        max_size: Some(Length(10)),
        max_uploads: Some(2),
        max_bytes: Some(15),
        ..Grant::default()
    };
    let ann = rig.engine.on_behalf_of(guest);
    let outcome = create(&ann, a_file(Some(11))).await.map(drop);
    assert!(
        matches!(outcome, Err(EngineError::TooLarge { max: Length(10) })),
        "{outcome:?}"
    );
    let session = create(&ann, a_file(None)).await.unwrap();
    let outcome = rig.put(&session, 0, &[0; 11]).await;
    assert!(
        matches!(outcome, Err(EngineError::TooLarge { max: Length(10) })),
        "{outcome:?}"
    );
    rig.put(&session, 0, &[0; 10]).await.unwrap();
    expect_limit(
        create(&ann, a_file(Some(6))).await,
        LimitName::BytesPerToken,
    );
    create(&ann, a_file(Some(5))).await.unwrap();
    expect_limit(
        create(&ann, a_file(Some(0))).await,
        LimitName::UploadsPerToken,
    );
}

#[tokio::test]
async fn a_space_says_how_keys_are_made() {
    let space = Space {
        key_template: Some("{space}/{subject}/{id}".parse().unwrap()),
        ..Space::default()
    };
    let rig = held_to(Ground::fs(), space).await;
    let ann = rig.engine.on_behalf_of(caller("ann@example.org"));
    let session = create(&ann, a_file(Some(0))).await.unwrap();
    let key = rig.complete(&session).await.unwrap().key.to_string();
    let middle = key
        .strip_prefix("default/")
        .and_then(|key| key.strip_suffix(&format!("/{}", session.id)));
    let subject = middle.expect("as the template says");
    assert!(subject.starts_with("ann_example_org-"), "{subject}");
}

fn pictures() -> Space {
    Space {
        content_types: MediaTypes::new(&["image/*".to_owned()]).unwrap(),
        ..Space::default()
    }
}

#[tokio::test]
async fn only_what_may_be_uploaded_is_declared() {
    let rig = held_to(Ground::fs(), pictures()).await;
    let ann = rig.engine.on_behalf_of(caller("ann"));
    for refused in [of_type("text/html"), a_file(None)] {
        let outcome = create(&ann, refused).await.map(drop);
        assert!(
            matches!(outcome, Err(EngineError::WrongType { .. })),
            "{outcome:?}"
        );
    }
    create(&ann, of_type("image/png")).await.unwrap();
}

#[tokio::test]
async fn content_that_is_not_what_it_says_is_refused_as_it_begins() {
    for ground in [Ground::fs(), Ground::s3().await] {
        let rig = held_to(ground, pictures()).await;
        let ann = rig.engine.on_behalf_of(caller("ann"));
        let session = create(&ann, of_type("image/png")).await.unwrap();
        let mut bytes = JPEG.to_vec();
        bytes.resize(MIB as usize, 7);
        let outcome = rig.put(&session, 0, &bytes).await;
        assert!(
            matches!(outcome, Err(EngineError::WrongType { .. })),
            "{outcome:?}"
        );
        let UploadState::Failed { reason, .. } = rig.status(&session).await.upload.state else {
            panic!("not failed");
        };
        assert_eq!(reason, FailureReason::ContentType);
        let honest = create(&ann, of_type("image/png")).await.unwrap();
        rig.put(&honest, 0, PNG).await.unwrap();
        rig.expect_whole(&honest, PNG).await;
    }
}

#[tokio::test]
async fn content_that_came_piece_by_piece_is_seen_through_when_it_is_whole() {
    for ground in [Ground::fs(), Ground::s3().await] {
        let rig = held_to(ground, pictures()).await;
        let ann = rig.engine.on_behalf_of(caller("ann"));
        let session = create(&ann, of_type("image/png")).await.unwrap();
        rig.put(&session, 1, &JPEG[1..]).await.unwrap();
        rig.put(&session, 0, &JPEG[..1])
            .await
            .expect("one byte tells nothing");
        let outcome = rig.complete(&session).await.map(drop);
        assert!(
            matches!(
                outcome,
                Err(EngineError::WrongType { .. }
                    | EngineError::Failed {
                        reason: FailureReason::ContentType
                    })
            ),
            "{outcome:?}"
        );
        until("nothing is left", async || is_gone(&rig, &session)).await;
        let honest = create(&ann, of_type("image/png")).await.unwrap();
        for at in 0..PNG.len() {
            let byte = &PNG[at..=at];
            rig.put(&honest, at as u64, byte).await.unwrap();
        }
        rig.expect_whole(&honest, PNG).await;
    }
}

#[tokio::test]
async fn who_gets_it_wrong_too_often_loses_the_upload() {
    let rig = rig_with(Ground::fs(), |settings| settings.max_failures = 5).await;
    let wrong = |session: &Session| {
        let mut wrong = write(session, 0, 4);
        wrong.digests = digests_of(&[DigestAlgorithm::Sha256], b"something else").into();
        wrong
    };
    let session = rig.create(Some(8)).await;
    for round in 0..2 {
        for _ in 0..4 {
            let admission = rig.engine.admit(wrong(&session)).await.unwrap();
            admission
                .run(body_of(b"text"))
                .await
                .expect_err("another digest");
        }
        rig.put(&session, round * 4, b"text")
            .await
            .expect("it was not too often");
    }
    let session = rig.create(Some(8)).await;
    for _ in 0..5 {
        let outcome = rig.put(&session, 0, &[0; 9]).await;
        assert!(
            matches!(outcome, Err(EngineError::RangeMismatch { .. })),
            "{outcome:?}"
        );
    }
    let outcome = rig.put(&session, 0, b"text").await;
    assert!(
        matches!(
            outcome,
            Err(EngineError::Failed {
                reason: FailureReason::Misbehaved
            })
        ),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn what_was_there_before_is_not_told_across_spaces() {
    let rig = rig_with(Ground::fs(), |settings| {
        settings.key_template = "{sha256}".parse().unwrap();
        settings.instant = true;
    })
    .await;
    let digests = digests_of(&[DigestAlgorithm::Sha256], b"the same");
    let in_space = |space: &str| {
        let who = Caller {
            space: space.parse().unwrap(),
            ..caller("ann")
        };
        rig.engine.on_behalf_of(who)
    };
    let declared = || {
        let mut create = a_file(Some(8));
        create.declared.digests = digests.clone();
        create
    };
    let first = create(&in_space("one"), declared()).await.unwrap();
    rig.put(&first, 0, b"the same").await.unwrap();
    rig.complete(&first).await.unwrap();
    let at_home = in_space("one").create(declared()).await.unwrap();
    assert!(at_home.upload.is_deduplicated(), "completed at once");
    let elsewhere = in_space("two").create(declared()).await.unwrap();
    assert_eq!(elsewhere.upload.state, UploadState::Pending);
    let session = Session {
        id: elsewhere.upload.id,
        key: elsewhere.key,
    };
    rig.put(&session, 0, b"the same").await.unwrap();
    rig.complete(&session).await.unwrap();
    let status = rig.status(&session).await.upload;
    assert!(!status.is_deduplicated());
    let sha256 = digests.get(DigestAlgorithm::Sha256).unwrap();
    let mut reader = caller("bob");
    reader.scopes = [Scope::Read].into_iter().collect();
    for (space, found) in [("one", true), ("two", false)] {
        reader.space = space.parse().unwrap();
        let engine = Arc::new(rig.engine.on_behalf_of(reader.clone()));
        assert_eq!(
            engine.object_with(sha256).await.unwrap().is_some(),
            found,
            "{space}"
        );
    }
}
