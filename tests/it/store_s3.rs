//! What the S3 store makes of a store that misbehaves.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jumar::model::plan::MIN_PART_BYTES;
use jumar::model::upload::{PartChecksum, StoreUploadId};
use jumar::model::{ByteRange, Length, PartNumber, PartReceipt, StoreKey, UploadId};
use jumar::store::check::Outcome;
use jumar::store::s3::{ChecksumMode, S3Config, S3Store, Sse};
use jumar::store::{About, MadeOf, Parts as _, Payload, Result, Store as _, StoreError};

use crate::support::s3::{Fault, Op, Quirks, S3Server, When};

fn key() -> StoreKey {
    "folder/object".parse().unwrap()
}

fn about() -> About {
    About {
        upload: UploadId::from_bytes([7; 16]),
        content_type: Some("text/plain".into()),
    }
}

fn text(text: &'static str) -> Payload {
    Payload::Memory(Arc::new([Bytes::from_static(text.as_bytes())]))
}

async fn put_part(
    store: &S3Store,
    upload: &StoreUploadId,
    number: u32,
    payload: Payload,
) -> Result<PartReceipt> {
    let range = ByteRange::new(0, payload.len()).unwrap();
    store
        .put_part(
            &key(),
            upload,
            PartNumber(number),
            range,
            payload,
            MadeOf::Parts,
        )
        .await
}

/// A store that has found out which checksum to send, so that faults strike the calls that a test means.
async fn warm(server: &S3Server, config: S3Config) -> S3Store {
    let store = S3Store::open(config).await;
    store.put(&key(), text("warm"), &about()).await.unwrap();
    store.delete(&key()).await.unwrap();
    server.control().forget_calls();
    store
}

#[tokio::test]
async fn auto_takes_the_best_that_is_verified_and_asks_once() {
    let server = S3Server::start().await;
    let store = server.store().await;
    let upload = store.begin(&key(), &about(), MadeOf::Parts).await.unwrap();
    let part = put_part(&store, &upload, 1, text("one")).await.unwrap();
    assert_eq!(part.checksum.as_ref().unwrap().0, PartChecksum::Crc64Nvme);
    let done = store.finish(&key(), &upload, &[part], Length(3)).await;
    assert!(done.unwrap().verified);

    server.control().forget_calls();
    assert!(
        store
            .put(&key(), text("two"), &about())
            .await
            .unwrap()
            .checksum
            .is_some()
    );
    assert_eq!(server.control().calls().len(), 1, "it is known by now");
    assert_eq!(server.backend().keys(), ["folder/object"]);
    assert_eq!(server.backend().open_uploads(), []);
}

#[tokio::test]
async fn auto_falls_back_where_checksums_are_refused_or_ignored() {
    for (quirks, best, verified) in [
        (
            Quirks {
                refuses_checksums: true,
                ..Quirks::default()
            },
            Some(PartChecksum::Md5),
            true,
        ),
        (
            Quirks {
                ignores_checksums: true,
                ..Quirks::default()
            },
            None,
            false,
        ),
    ] {
        let server = S3Server::start().await;
        server.control().set_quirks(quirks);
        let store = server.store().await;
        let upload = store.begin(&key(), &about(), MadeOf::Parts).await.unwrap();
        let part = put_part(&store, &upload, 1, text("one")).await.unwrap();
        assert_eq!(part.checksum.as_ref().map(|(kind, _)| *kind), best);
        let done = store.finish(&key(), &upload, &[part], Length(3)).await;
        assert_eq!(done.unwrap().verified, verified);
    }
}

#[tokio::test]
async fn auto_goes_on_where_a_store_changes_its_mind() {
    let server = S3Server::start().await;
    let store = warm(&server, server.config()).await;
    server.control().set_quirks(Quirks {
        refuses_checksums: true,
        ..Quirks::default()
    });
    let upload = store.begin(&key(), &about(), MadeOf::Parts).await.unwrap();
    let part = put_part(&store, &upload, 1, text("one")).await.unwrap();
    assert_eq!(part.checksum, None);
    let done = store.finish(&key(), &upload, &[part], Length(3)).await;
    assert!(!done.unwrap().verified);
    assert_eq!(server.backend().bytes("folder/object").unwrap(), b"one");
}

#[tokio::test]
async fn a_probe_while_the_store_is_away_decides_nothing() {
    let server = S3Server::start().await;
    let store = server.store().await;
    server.control().set_away(true);
    let away = store.put(&key(), text("one"), &about()).await;
    assert!(matches!(away, Err(StoreError::Unavailable(_))), "{away:?}");
    server.control().heal();
    let stored = store.put(&key(), text("one"), &about()).await.unwrap();
    assert!(stored.checksum.is_some());
}

#[tokio::test]
async fn exact_bytes_a_part_that_changed_on_its_way_is_refused() {
    let server = S3Server::start().await;
    let config = S3Config {
        checksum: ChecksumMode::Crc32c,
        ..server.config()
    };
    let store = S3Store::open(config).await;
    server.control().fail(
        Op::UploadPart,
        When::Next(1),
        Fault::Status(400, "BadDigest"),
    );
    let upload = store.begin(&key(), &about(), MadeOf::Parts).await.unwrap();
    let changed = put_part(&store, &upload, 1, text("one")).await;
    assert!(
        matches!(changed, Err(StoreError::Changed(_))),
        "{changed:?}"
    );
    put_part(&store, &upload, 1, text("one")).await.unwrap();
}

#[tokio::test]
async fn what_passes_is_tried_again_by_itself() {
    let server = S3Server::start().await;
    let store = warm(&server, server.config()).await;
    let control = server.control();
    for fault in [
        Fault::Status(503, "SlowDown"),
        Fault::Status(500, "InternalError"),
        Fault::ResetBefore,
        Fault::ResetAfter,
    ] {
        control.fail(Op::PutObject, When::Next(1), fault);
        store.put(&key(), text("one"), &about()).await.unwrap();
        control.heal();
    }
    assert_eq!(control.count(Op::PutObject), 8);
    assert_eq!(server.backend().bytes("folder/object").unwrap(), b"one");
    control.fail(Op::PutObject, When::Always, Fault::Status(503, "SlowDown"));
    let given_up = store.put(&key(), text("one"), &about()).await;
    assert!(
        matches!(given_up, Err(StoreError::Unavailable(_))),
        "{given_up:?}"
    );
}

#[tokio::test]
async fn told_once_a_completion_whose_answer_is_lost_leads_to_the_object() {
    let server = S3Server::start().await;
    let store = warm(&server, server.config()).await;
    let upload = store.begin(&key(), &about(), MadeOf::Parts).await.unwrap();
    let part = put_part(&store, &upload, 1, text("one")).await.unwrap();
    let finish = Op::CompleteMultipartUpload;
    server
        .control()
        .fail(finish, When::Next(1), Fault::ResetAfter);
    let lost = store.finish(&key(), &upload, &[part], Length(3)).await;
    assert!(matches!(lost, Err(StoreError::NotFound)), "{lost:?}");
    let found = store.head(&key()).await.unwrap().unwrap();
    assert_eq!(found.upload, Some(about().upload));
}

#[tokio::test]
async fn an_error_in_a_200_is_an_error() {
    let server = S3Server::start().await;
    let store = warm(&server, server.config()).await;
    let upload = store.begin(&key(), &about(), MadeOf::Parts).await.unwrap();
    let part = put_part(&store, &upload, 1, text("one")).await.unwrap();
    server.control().fail(
        Op::CompleteMultipartUpload,
        When::Always,
        Fault::Status(200, "InternalError"),
    );
    let parts = [part];
    let failed = store.finish(&key(), &upload, &parts, Length(3)).await;
    assert!(
        matches!(failed, Err(StoreError::Unavailable(_))),
        "{failed:?}"
    );
    server.control().heal();
    let done = store.finish(&key(), &upload, &parts, Length(3)).await;
    done.unwrap();
}

#[tokio::test]
async fn a_404_of_somebody_else_is_no_proof() {
    let server = S3Server::start().await;
    let store = warm(&server, server.config()).await;
    let upload = store.begin(&key(), &about(), MadeOf::Parts).await.unwrap();
    let part = put_part(&store, &upload, 1, text("one")).await.unwrap();
    server.control().fail(None, When::Always, Fault::Generic404);
    let unavailable = |error: StoreError| assert!(matches!(error, StoreError::Unavailable(_)));
    unavailable(store.head(&key()).await.unwrap_err());
    unavailable(store.read(&key(), None).await.map(|_| ()).unwrap_err());
    unavailable(store.abort(&key(), &upload).await.unwrap_err());
    unavailable(store.multipart_of(&key()).await.unwrap_err());
    let parts = [part];
    unavailable(
        store
            .finish(&key(), &upload, &parts, Length(3))
            .await
            .unwrap_err(),
    );
    unavailable(put_part(&store, &upload, 1, text("one")).await.unwrap_err());
}

#[tokio::test]
async fn no_bucket_no_access_and_no_such_key_are_the_operators() {
    let server = S3Server::start().await;
    for config in [
        S3Config {
            bucket: "another-bucket".into(),
            ..server.config()
        },
        S3Config {
            secret_access_key: Some("wrong-secret".into()),
            ..server.config()
        },
        S3Config {
            access_key_id: Some("wrong".into()),
            ..server.config()
        },
    ] {
        let store = S3Store::open(config).await;
        for result in [
            store.ping().await,
            store.head(&key()).await.map(|_| ()),
            store
                .begin(&key(), &about(), MadeOf::Parts)
                .await
                .map(|_| ()),
            store.put(&key(), text("one"), &about()).await.map(|_| ()),
        ] {
            assert!(matches!(result, Err(StoreError::Refused(_))), "{result:?}");
            let shown = result.unwrap_err().to_string();
            assert!(!shown.contains("wrong-secret") && !shown.contains("test-secret"));
        }
        let findings = store.check().await;
        assert!(matches!(findings[0].outcome, Outcome::Broken(_)));
    }
}

#[tokio::test]
async fn exact_bytes_a_failed_completion_destroys_nothing() {
    let server = S3Server::start().await;
    let store = warm(&server, server.config()).await;
    let upload = store.begin(&key(), &about(), MadeOf::Parts).await.unwrap();
    let small = put_part(&store, &upload, 1, text("small")).await.unwrap();
    let last = put_part(&store, &upload, 2, text("last")).await.unwrap();
    for (parts, why) in [
        (vec![small.clone(), last.clone()], "EntityTooSmall"),
        (vec![last.clone(), small.clone()], "InvalidPartOrder"),
    ] {
        let refused = store.finish(&key(), &upload, &parts, Length(9)).await;
        let Err(StoreError::Changed(error)) = refused else {
            panic!("{refused:?}");
        };
        assert!(error.to_string().contains(why), "{error}");
    }
    assert_eq!(store.head(&key()).await.unwrap(), None);
    let size = usize::try_from(MIN_PART_BYTES).unwrap();
    let large = Payload::Memory(Arc::new([Bytes::from(vec![1; size])]));
    let large = put_part(&store, &upload, 1, large).await.unwrap();
    let parts = [
        large,
        PartReceipt {
            range: ByteRange::new(MIN_PART_BYTES, MIN_PART_BYTES + 4).unwrap(),
            ..last
        },
    ];
    let size = Length(MIN_PART_BYTES + 4);
    let stored = store.finish(&key(), &upload, &parts, size).await.unwrap();
    assert!(stored.verified);
}

#[tokio::test]
async fn pages_are_walked_to_the_end_and_foreign_names_left_out() {
    let server = S3Server::start().await;
    let config = S3Config {
        prefix: "ours".into(),
        ..server.config()
    };
    let store = warm(&server, config).await;
    let foreign = S3Store::open(server.config()).await;
    foreign
        .begin(
            &"elsewhere/object".parse().unwrap(),
            &about(),
            MadeOf::Parts,
        )
        .await
        .unwrap();
    let mut mine = Vec::new();
    for _ in 0..5 {
        mine.push(store.begin(&key(), &about(), MadeOf::Parts).await.unwrap());
    }
    server.control().set_quirks(Quirks {
        page: Some(2),
        ..Quirks::default()
    });
    let all = store.multipart_uploads(None, 100).await.unwrap();
    let ids: Vec<_> = all.iter().map(|found| found.id.clone()).collect();
    assert_eq!(ids, mine);
    assert!(all.iter().all(|found| found.initiated.is_some()));
    let rest = store.multipart_uploads(Some(&all[2]), 100).await.unwrap();
    assert_eq!(rest, all[3..]);
    assert_eq!(store.multipart_of(&key()).await.unwrap(), all);
}

#[tokio::test]
async fn objects_say_whose_they_are_and_are_encrypted_as_told() {
    let server = S3Server::start().await;
    for (sse, expected) in [
        (Sse::None, None),
        (Sse::Aes256, Some("AES256")),
        (
            Sse::Kms {
                key_id: Some("key".into()),
            },
            Some("aws:kms"),
        ),
    ] {
        let config = S3Config {
            sse,
            ..server.config()
        };
        let store = S3Store::open(config).await;
        for parts in [true, false] {
            if parts {
                let upload = store.begin(&key(), &about(), MadeOf::Parts).await.unwrap();
                let part = put_part(&store, &upload, 1, text("one")).await.unwrap();
                let done = store.finish(&key(), &upload, &[part], Length(3)).await;
                done.unwrap();
            } else {
                store.put(&key(), text("one"), &about()).await.unwrap();
            }
            let found = store.head(&key()).await.unwrap().unwrap();
            assert_eq!(found.upload, Some(about().upload));
            let (media_type, encryption) = server.backend().about("folder/object").unwrap();
            assert_eq!(media_type.as_deref(), Some("text/plain"));
            assert_eq!(encryption.as_deref(), expected);
        }
    }
}

#[tokio::test]
async fn bounded_a_store_that_hangs_is_given_up() {
    let server = S3Server::start().await;
    let config = S3Config {
        attempt_timeout: Duration::from_millis(200),
        max_attempts: 1,
        ..server.config()
    };
    let store = S3Store::open(config).await;
    server.control().fail(None, When::Always, Fault::Hang);
    let hung = store.head(&key()).await;
    assert!(matches!(hung, Err(StoreError::Unavailable(_))), "{hung:?}");
    server.control().heal();
}

#[tokio::test]
async fn bytes_are_not_hashed_for_their_signature() {
    let server = S3Server::start().await;
    let store = warm(&server, server.config()).await;
    let upload = store.begin(&key(), &about(), MadeOf::Parts).await.unwrap();
    put_part(&store, &upload, 1, text("one")).await.unwrap();
    store.put(&key(), text("one"), &about()).await.unwrap();
    for call in server.control().calls() {
        if matches!(call.op, Op::UploadPart | Op::PutObject) {
            assert_eq!(call.signed_payload.as_deref(), Some("UNSIGNED-PAYLOAD"));
            assert_eq!(call.size, 3, "sent as it is, not in chunks of the SDK's");
        }
    }
}

#[tokio::test]
async fn a_bucket_that_works_has_nothing_broken_and_a_poor_one_says_what_to_choose() {
    let server = S3Server::start().await;
    let store = server.store().await;
    let findings = store.check().await;
    assert!(
        findings
            .iter()
            .all(|finding| matches!(finding.outcome, Outcome::Works(_))),
        "{findings:#?}"
    );
    assert_eq!(server.backend().keys(), Vec::<String>::new());
    assert_eq!(server.backend().open_uploads(), []);

    server.control().set_quirks(Quirks {
        refuses_checksums: true,
        ..Quirks::default()
    });
    let findings = server.store().await.check().await;
    let without: Vec<_> = findings
        .iter()
        .filter(|finding| matches!(finding.outcome, Outcome::Without(_)))
        .map(|finding| finding.what)
        .collect();
    assert_eq!(without, ["checksum crc64nvme", "checksum crc32c"]);
}
