//! What the S3 store makes of copies on the store's side, and of a store that refuses them or fails.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jumar::model::plan::MIN_PART_BYTES;
use jumar::model::upload::StoreUploadId;
use jumar::model::{ByteRange, Length, PartNumber, PartReceipt, StoreKey, UploadId};
use jumar::store::check::Outcome;
use jumar::store::s3::{ChecksumMode, S3Config, S3Store};
use jumar::store::{About, MadeOf, Parts as _, Payload, Result, Store as _, StoreError};

use crate::support::s3::{Fault, Op, S3Server, When};

const TEXT: &[u8] = b"some bytes";
const ONE: PartNumber = PartNumber(1);

fn source() -> StoreKey {
    "partial/one".parse().unwrap()
}

fn key() -> StoreKey {
    "final".parse().unwrap()
}

fn about() -> About {
    About {
        upload: UploadId::from_bytes([7; 16]),
        content_type: None,
    }
}

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::new(start, end).unwrap()
}

fn memory(bytes: impl Into<Bytes>) -> Payload {
    Payload::Memory(Arc::new([bytes.into()]))
}

/// A source, and a multipart upload that takes copies.
async fn begun(store: &S3Store) -> StoreUploadId {
    store.put(&source(), memory(TEXT), &about()).await.unwrap();
    store
        .begin(&key(), &about(), MadeOf::Unchecked)
        .await
        .unwrap()
}

/// Copies all of the source into the first part.
async fn copy(store: &S3Store, upload: &StoreUploadId) -> Result<PartReceipt> {
    let all = range(0, TEXT.len() as u64);
    copy_as(store, upload, all, &source(), None).await
}

async fn copy_as(
    store: &S3Store,
    upload: &StoreUploadId,
    range: ByteRange,
    source: &StoreKey,
    some: Option<ByteRange>,
) -> Result<PartReceipt> {
    store
        .copy_part(&key(), upload, ONE, range, source, some)
        .await
}

async fn finish(store: &S3Store, upload: &StoreUploadId, part: PartReceipt) -> Result<()> {
    let size = Length(part.range.len());
    store
        .finish(&key(), upload, &[part], size)
        .await
        .map(|_| ())
}

#[tokio::test]
async fn what_the_store_says_of_a_copy_decides_what_is_done_next() {
    let server = S3Server::start().await;
    let store = server.store().await;
    let upload = begun(&store).await;
    let refused: fn(&StoreError) -> bool = |error| matches!(error, StoreError::Refused(_));
    let absent: fn(&StoreError) -> bool = |error| matches!(error, StoreError::NotFound);
    let away: fn(&StoreError) -> bool = |error| matches!(error, StoreError::Unavailable(_));
    for (fault, expected) in [
        (Fault::Status(501, "NotImplemented"), refused),
        (Fault::Status(400, "InvalidRequest"), refused),
        (Fault::Status(400, "InvalidArgument"), refused),
        (Fault::Status(403, "AccessDenied"), refused),
        (Fault::Status(404, "NoSuchBucket"), refused),
        (Fault::Status(404, "NoSuchUpload"), absent),
        (Fault::Status(404, "NoSuchKey"), absent),
        (Fault::Generic404, away),
        (Fault::Status(503, "SlowDown"), away),
        (Fault::Status(200, "InternalError"), away),
        (Fault::ResetBefore, away),
    ] {
        let control = server.control();
        control.fail(Op::UploadPartCopy, When::Always, fault.clone());
        let error = copy(&store, &upload).await.unwrap_err();
        assert!(expected(&error), "{fault:?}: {error:?}");
        control.heal();
    }
    let part = copy(&store, &upload).await.unwrap();
    finish(&store, &upload, part).await.unwrap();
    assert_eq!(server.backend().bytes("final").unwrap(), TEXT);
}

#[tokio::test]
async fn no_source_and_no_upload_are_not_found_and_what_cannot_be_copied_is_refused() {
    let server = S3Server::start().await;
    let store = server.store().await;
    let upload = begun(&store).await;
    let large = vec![1; usize::try_from(MIN_PART_BYTES).unwrap() + 1];
    let large_key: StoreKey = "partial/large".parse().unwrap();
    store
        .put(&large_key, memory(large), &about())
        .await
        .unwrap();
    let ten = range(0, 10);
    for (source, some) in [
        // Small, so no range of it; and a range beyond the end.
        (source(), ten),
        (large_key.clone(), range(MIN_PART_BYTES, MIN_PART_BYTES + 2)),
    ] {
        let refused = copy_as(&store, &upload, ten, &source, Some(some)).await;
        assert!(
            matches!(refused, Err(StoreError::Refused(_))),
            "{refused:?}"
        );
    }
    let end = range(MIN_PART_BYTES, MIN_PART_BYTES + 1);
    copy_as(&store, &upload, range(0, 1), &large_key, Some(end))
        .await
        .unwrap();

    store.delete(&source()).await.unwrap();
    let no_source = copy(&store, &upload).await;
    assert!(
        matches!(no_source, Err(StoreError::NotFound)),
        "{no_source:?}"
    );
    store.abort(&key(), &upload).await.unwrap();
    store.put(&source(), memory(TEXT), &about()).await.unwrap();
    let no_upload = copy(&store, &upload).await;
    assert!(
        matches!(no_upload, Err(StoreError::NotFound)),
        "{no_upload:?}"
    );
}

#[tokio::test]
async fn no_bytes_pass_and_any_prefix_is_found() {
    let server = S3Server::start().await;
    let config = S3Config {
        prefix: "50% a+b/gr\u{fc}n".into(),
        ..server.config()
    };
    let store = S3Store::open(config).await;
    let upload = begun(&store).await;
    server.control().forget_calls();
    let part = copy(&store, &upload).await.unwrap();
    let calls = server.control().calls();
    let [call] = calls.as_slice() else {
        panic!("{calls:?}");
    };
    assert_eq!(
        (call.op, call.part, call.size),
        (Op::UploadPartCopy, Some(1), 0)
    );
    finish(&store, &upload, part).await.unwrap();
    let made = server.backend().bytes("50% a+b/gr\u{fc}n/final");
    assert_eq!(made.unwrap(), TEXT);
}

/// The server in the tests wants what AWS wants: where an upload was begun with CRC-32C, the checksum of every part; and where
/// it was begun with none, no such checksum.
#[tokio::test]
async fn copies_and_parts_between_them_are_finished_without_the_checksums_of_others() {
    for checksum in [
        ChecksumMode::Auto,
        ChecksumMode::Crc64Nvme,
        ChecksumMode::Crc32c,
        ChecksumMode::Md5,
        ChecksumMode::None,
    ] {
        let server = S3Server::start().await;
        let config = S3Config {
            checksum,
            ..server.config()
        };
        let store = S3Store::open(config).await;
        let upload = begun(&store).await;
        let large = memory(vec![1; usize::try_from(MIN_PART_BYTES).unwrap()]);
        let end = MIN_PART_BYTES + TEXT.len() as u64;
        let all = range(0, MIN_PART_BYTES);
        let put = store
            .put_part(&key(), &upload, ONE, all, large, MadeOf::Unchecked)
            .await
            .unwrap();
        assert_eq!(put.checksum, None);
        let rest = range(MIN_PART_BYTES, end);
        let copied = store
            .copy_part(&key(), &upload, PartNumber(2), rest, &source(), None)
            .await
            .unwrap();
        let parts = [put, copied];
        let stored = store.finish(&key(), &upload, &parts, Length(end)).await;
        assert!(!stored.unwrap().verified, "nobody has checked the copy");
    }
}

#[tokio::test]
async fn told_once_a_copy_whose_answer_is_lost_is_made_again() {
    let server = S3Server::start().await;
    let store = server.store().await;
    let upload = begun(&store).await;
    let lost = Fault::ResetAfter;
    server
        .control()
        .fail(Op::UploadPartCopy, When::Next(1), lost);
    let part = copy(&store, &upload).await.unwrap();
    assert_eq!(server.control().count(Op::UploadPartCopy), 2);
    finish(&store, &upload, part).await.unwrap();
}

#[tokio::test]
async fn a_large_copy_has_time() {
    let server = S3Server::start().await;
    let config = S3Config {
        attempt_timeout: Duration::from_millis(200),
        max_attempts: 1,
        checksum: ChecksumMode::None,
        ..server.config()
    };
    let store = S3Store::open(config).await;
    let upload = begun(&store).await;
    let slow = Fault::Slow(Duration::from_millis(600));
    server
        .control()
        .fail(Op::UploadPartCopy, When::Always, slow);
    let small = copy(&store, &upload).await;
    assert!(
        matches!(small, Err(StoreError::Unavailable(_))),
        "{small:?}"
    );
    let large = range(0, MIN_PART_BYTES);
    copy_as(&store, &upload, large, &source(), None)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_bucket_that_does_not_copy_is_not_broken() {
    let server = S3Server::start().await;
    let store = server.store().await;
    let refused = Fault::Status(501, "NotImplemented");
    server
        .control()
        .fail(Op::UploadPartCopy, When::Always, refused);
    let findings = store.check().await;
    let outcome = |what| {
        let finding = findings.iter().find(|finding| finding.what == what);
        finding.unwrap().outcome.clone()
    };
    let Outcome::Without(why) = outcome("copy a part from another object") else {
        panic!("{findings:#?}");
    };
    assert!(
        why.contains("NotImplemented") && why.contains("streams"),
        "{why}"
    );
    let broken = |outcome: &Outcome| matches!(outcome, Outcome::Broken(_));
    assert!(!findings.iter().any(|finding| broken(&finding.outcome)));
    assert_eq!(server.backend().keys(), Vec::<String>::new());
    assert_eq!(server.backend().open_uploads(), []);
}

#[tokio::test]
async fn a_large_object_is_copied_in_pieces_and_a_small_one_at_once() {
    let server = S3Server::start().await;
    let store = server.store().await;
    let piece = MIN_PART_BYTES;
    for (len, pieces) in [(piece, 0), (2 * piece + 7, 3)] {
        let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        let source = source();
        store
            .put(&source, memory(bytes.clone()), &about())
            .await
            .unwrap();
        // What an earlier try left under the key goes.
        store
            .begin(&key(), &about(), MadeOf::Unchecked)
            .await
            .unwrap();
        server.control().forget_calls();
        jumar::store::copy::to_key(&store, &source, Length(len), &key(), &about(), piece)
            .await
            .unwrap();
        assert_eq!(server.backend().bytes("final").unwrap(), bytes);
        let found = store.head(&key()).await.unwrap().unwrap();
        assert_eq!(found.upload, Some(about().upload));
        assert_eq!(server.control().count(Op::UploadPartCopy), pieces);
        let left = usize::from(pieces == 0);
        assert_eq!(server.backend().open_uploads().len(), left);
        store.delete(&key()).await.unwrap();
    }
}
