//! Objects made of objects.

use bytes::Bytes;

use super::{about, content, key_of, make, memory, pattern, range};
use crate::model::plan::MIN_PART_BYTES;
use crate::model::upload::StoreUploadId;
use crate::model::{ByteRange, Length, Offset, PartNumber, PartReceipt, StoreKey, UploadId};
use crate::store::{InPlace, MadeOf, Parts, Store, StoreError};

pub(super) async fn into_files(store: &dyn Store, files: &dyn InPlace) {
    let sources = [pattern(700_001, 1), pattern(3, 2), pattern(0, 0)].map(|bytes| {
        let id = UploadId::generate();
        (id, bytes)
    });
    let id = UploadId::generate();
    let mut copied = sources.each_ref().map(|(_, bytes)| bytes.clone()).concat();
    let mut at = copied.len() as u64;
    // From the end: nothing is staged before the empty one, and what is behind stays.
    for (source, bytes) in sources.iter().rev() {
        make(store, *source, bytes).await;
        at -= bytes.len() as u64;
        for _ in 0..2 {
            let size = Length(bytes.len() as u64);
            let copy = files.copy_in(id, Offset(at), &key_of(*source), size).await;
            copy.expect("copied, and once more");
        }
    }

    let (some, end) = (key_of(sources[1].0), Offset(copied.len() as u64));
    for size in [2, 4] {
        let other = files.copy_in(id, end, &some, Length(size)).await;
        assert!(matches!(other, Err(StoreError::Changed(_))), "{other:?}");
    }
    for (source, _) in &sources {
        store.delete(&key_of(*source)).await.expect("deleted");
    }
    let absent = files.copy_in(id, end, &some, Length(3)).await;
    assert!(matches!(absent, Err(StoreError::NotFound)), "{absent:?}");

    // What is copied and what is written go into one file.
    let file = files.open(id).await.expect("opened");
    let piece = Bytes::from_static(b"written");
    file.write_at(1_000, std::slice::from_ref(&piece))
        .expect("written");
    copied[1_000..1_007].copy_from_slice(&piece);
    let key = key_of(id);
    let longer = files.publish(id, &key, Length(end.get() + 1)).await;
    assert!(
        matches!(longer, Err(StoreError::Changed(_))),
        "what failed has written nothing: {longer:?}"
    );
    let published = files.publish(id, &key, Length(end.get())).await;
    published.expect("published");
    files.discard(id).await.expect("discarded");
    assert!(content(store, &key, None).await == copied);
    store.delete(&key).await.expect("deleted");
}

/// A part to be, and the object that it can be copied from.
struct Piece {
    bytes: Bytes,
    source: Option<(UploadId, Option<ByteRange>)>,
}

impl Piece {
    /// Copied, twice; or put, where there is no source or the store does not copy it.
    async fn put(
        &self,
        store: &dyn Parts,
        key: &StoreKey,
        upload: &StoreUploadId,
        number: PartNumber,
        stretch: ByteRange,
    ) -> PartReceipt {
        if let Some((source, some)) = self.source {
            let source = key_of(source);
            let copy = || store.copy_part(key, upload, number, stretch, &source, some);
            let (first, again) = (copy().await, copy().await);
            match (first, again) {
                (Ok(_), Ok(again)) => return again,
                (Err(StoreError::Refused(_)), Err(StoreError::Refused(_))) => {}
                other => panic!("{other:?}"),
            }
        }
        let payload = memory(&self.bytes);
        let put = store.put_part(key, upload, number, stretch, payload, MadeOf::Unchecked);
        put.await.expect("put")
    }
}

/// A whole object, a range of one, a part that is put, and a small object at the end.
pub(super) async fn into_parts(store: &dyn Store, parts: &dyn Parts) {
    let [id, large, small] = [(); 3].map(|()| UploadId::generate());
    let objects = [pattern(MIN_PART_BYTES + 70_001, 9), pattern(4_321, 10)];
    for (id, bytes) in [large, small].into_iter().zip(&objects) {
        make(store, id, bytes).await;
    }
    let some = range(70_000, 70_000 + MIN_PART_BYTES);
    let end = usize::try_from(some.end()).expect("small");
    let pieces = [
        Piece {
            bytes: objects[0].clone(),
            source: Some((large, None)),
        },
        Piece {
            bytes: objects[0].slice(70_000..end),
            source: Some((large, Some(some))),
        },
        Piece {
            bytes: pattern(MIN_PART_BYTES, 11),
            source: None,
        },
        Piece {
            bytes: objects[1].clone(),
            source: Some((small, None)),
        },
    ];

    let key = key_of(id);
    let upload = parts.begin(&key, &about(id), MadeOf::Unchecked).await;
    let upload = upload.expect("begun");
    let mut receipts = Vec::new();
    let mut whole = Vec::new();
    for (piece, number) in pieces.iter().zip(1..) {
        let start = whole.len() as u64;
        whole.extend_from_slice(&piece.bytes);
        let stretch = range(start, whole.len() as u64);
        let number = PartNumber(number);
        let receipt = piece.put(parts, &key, &upload, number, stretch).await;
        assert_eq!((receipt.number, receipt.range), (number, stretch));
        receipts.push(receipt);
    }
    let size = Length(whole.len() as u64);
    let finished = parts.finish(&key, &upload, &receipts, size).await;
    assert_eq!(
        finished.expect("finished").verified,
        receipts.iter().all(|part| part.checksum.is_some())
    );
    let found = store.head(&key).await.expect("looked").expect("there");
    assert_eq!((found.size, found.upload), (size, Some(id)));
    assert!(content(store, &key, None).await == whole);
    for id in [id, large, small] {
        store.delete(&key_of(id)).await.expect("deleted");
    }
}

/// No source, then no multipart upload.
pub(super) async fn of_nothing(store: &dyn Store, parts: &dyn Parts) {
    let [id, source] = [(); 2].map(|()| UploadId::generate());
    let key = key_of(id);
    let upload = parts.begin(&key, &about(id), MadeOf::Unchecked).await;
    let upload = upload.expect("begun");
    for source_is_there in [false, true] {
        if source_is_there {
            make(store, source, &pattern(9_000, 12)).await;
            parts.abort(&key, &upload).await.expect("aborted");
        }
        let stretch = range(0, 9_000);
        let nothing = parts
            .copy_part(&key, &upload, PartNumber(1), stretch, &key_of(source), None)
            .await;
        // A store that does not copy at all looks for neither.
        assert!(
            matches!(nothing, Err(StoreError::NotFound | StoreError::Refused(_))),
            "{nothing:?}"
        );
    }
    store.delete(&key_of(source)).await.expect("deleted");
}
