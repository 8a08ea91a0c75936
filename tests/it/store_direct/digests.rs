//! Parts with a digest, and parts without beside those with one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jumar::model::upload::StoreUploadId;
use jumar::model::{Digest, DigestAlgorithm, Length};
use jumar::store::direct::PartPlace;
use jumar::store::s3::{ChecksumMode, S3Config, S3Store};
use jumar::store::{Direct as _, Parts as _, StoreError};

use super::{
    HOUR, ONE, TEXT, begin, digest, grounds, key, nothing_there, now, refused, send, sign,
};
use crate::support::s3::{Quirks, S3Server};

#[tokio::test]
async fn exact_bytes_a_part_with_a_checksum_is_that_or_none() {
    for (mode, algorithm, header) in [
        (
            ChecksumMode::Crc64Nvme,
            DigestAlgorithm::Crc64Nvme,
            "x-amz-checksum-crc64nvme",
        ),
        (
            ChecksumMode::Crc32c,
            DigestAlgorithm::Crc32c,
            "x-amz-checksum-crc32c",
        ),
        (ChecksumMode::Md5, DigestAlgorithm::Md5, "content-md5"),
        (ChecksumMode::None, DigestAlgorithm::Md5, "content-md5"),
        (ChecksumMode::Crc64Nvme, DigestAlgorithm::Md5, "content-md5"),
        (
            ChecksumMode::None,
            DigestAlgorithm::Sha256,
            "x-amz-checksum-sha256",
        ),
    ] {
        for ground in grounds(|config| config.checksum = mode).await {
            let store = &ground.store;
            let key = key();
            let upload = begin(store, &key).await;
            let right = digest(algorithm, TEXT);
            let place = PartPlace {
                key: &key,
                upload: &upload,
                number: ONE,
            };
            let size = Some(Length(TEXT.len() as u64));
            let signed = store
                .sign_part(place, size, Some(&right), now(), HOUR)
                .await;
            let signed = match signed {
                Err(StoreError::Refused(_)) if !store.mixes().await.unwrap() => {
                    assert_eq!(
                        (mode, algorithm),
                        (ChecksumMode::Crc64Nvme, DigestAlgorithm::Md5)
                    );
                    assert!(ground.server.is_none(), "ours is as AWS is");
                    continue;
                }
                signed => signed.unwrap(),
            };
            let value = STANDARD.encode(right.value());
            assert!(
                signed.headers.contains(&(header.into(), value)),
                "{algorithm}: {:?}",
                signed.headers
            );
            // Other bytes; without the header; with the other bytes' own.
            refused(&send(&signed, b"SOME BYTES").await);
            let mut bare = signed.clone();
            bare.headers.retain(|(name, _)| name != header);
            refused(&send(&bare, TEXT).await);
            let other = STANDARD.encode(digest(algorithm, b"SOME BYTES").value());
            bare.headers.push((header.into(), other));
            refused(&send(&bare, b"SOME BYTES").await);
            nothing_there(store, &key, &upload).await;
            send(&signed, TEXT).await.expect(200);
            store.abort(&key, &upload).await.unwrap();
        }
    }
}

#[tokio::test]
async fn whether_parts_without_a_checksum_are_taken_is_found_out_once() {
    for (wants_checksums, mixes) in [(false, true), (true, false)] {
        let server = S3Server::start().await;
        server.control().set_quirks(Quirks {
            wants_checksums,
            ..Quirks::default()
        });
        let store = server.store().await;
        let control = server.control();
        control.set_away(true);
        let away = store.mixes().await;
        assert!(matches!(away, Err(StoreError::Unavailable(_))), "{away:?}");
        control.heal();
        assert_eq!(store.mixes().await.unwrap(), mixes);
        control.set_away(true);
        assert_eq!(store.mixes().await.unwrap(), mixes, "it is known by now");
        control.heal();
        assert_eq!(server.backend().keys(), Vec::<String>::new());
        assert_eq!(server.backend().open_uploads(), []);

        let key = key();
        let upload = begin(&store, &key).await;
        let signed = sign(&store, &key, &upload).await;
        assert_eq!(send(&signed, TEXT).await.status == 200, mixes);
    }
}

#[tokio::test]
async fn parts_without_a_checksum_do_not_join_those_of_crc32c() {
    let server = S3Server::start().await;
    let config = S3Config {
        checksum: ChecksumMode::Crc32c,
        ..server.config()
    };
    let store = S3Store::open(config).await;
    assert!(!store.mixes().await.unwrap());
    let key = key();
    let upload = begin(&store, &key).await;
    let signed = sign(&store, &key, &upload).await;
    let answer = send(&signed, TEXT).await;
    assert!(answer.text().contains("InvalidRequest"), "as AWS does");
    nothing_there(&store, &key, &upload).await;
}

#[tokio::test]
async fn a_digest_that_the_store_would_not_verify_is_not_signed() {
    for (checksum, signed) in [
        (ChecksumMode::Auto, &["crc64nvme", "md5"][..]),
        (ChecksumMode::Crc64Nvme, &["crc64nvme", "md5"]),
        (ChecksumMode::Crc32c, &["crc32c"]),
        (
            ChecksumMode::Md5,
            &["sha-256", "md5", "crc32c", "crc64nvme"],
        ),
        (
            ChecksumMode::None,
            &["sha-256", "md5", "crc32c", "crc64nvme"],
        ),
    ] {
        let server = S3Server::start().await;
        let config = S3Config {
            checksum,
            ..server.config()
        };
        let store = S3Store::open(config).await;
        let key = key();
        let upload = StoreUploadId("some-upload".into());
        for algorithm in DigestAlgorithm::ALL {
            let place = PartPlace {
                key: &key,
                upload: &upload,
                number: ONE,
            };
            let digest = Digest::new(algorithm, vec![1; algorithm.len()]).unwrap();
            let result = store
                .sign_part(place, None, Some(&digest), now(), HOUR)
                .await;
            match result {
                Ok(_) => assert!(signed.contains(&algorithm.name()), "{algorithm}"),
                Err(StoreError::Refused(_)) => {
                    assert!(!signed.contains(&algorithm.name()), "{algorithm}");
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}
