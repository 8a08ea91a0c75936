//! What every store has to do, as assertions that run on any of them.
//!
//! Made for tests of this crate and of others' stores; it panics where a store is wrong. Each call of [`suite`] uses names of
//! its own and removes what it made, so it can run on a store that is in use.

mod copies;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt as _;

use super::check::Outcome;
use super::file::LocalFile;
use super::{
    About, FoundMultipart, InPlace, MadeOf, Parts, Payload, Shape, StagedFile, Store, StoreError,
};
use crate::model::plan::MIN_PART_BYTES;
use crate::model::upload::StoreUploadId;
use crate::model::{ByteRange, Length, PartNumber, PartReceipt, StoreKey, UploadId};

/// Runs everything that fits the store's shape.
///
/// # Panics
/// Where the store does not keep its contract.
pub async fn suite(store: &dyn Store) {
    absent_objects(store).await;
    objects(store).await;
    match store.shape() {
        Shape::InPlace(files) => {
            staged_files(store, files).await;
            publishing(store, files).await;
            copies::into_files(store, files).await;
        }
        Shape::Parts(parts) => {
            whole_objects(store, parts).await;
            multipart(store, parts).await;
            replaced_parts(store, parts).await;
            copies::into_parts(store, parts).await;
            copies::of_nothing(store, parts).await;
            ended_uploads(store, parts).await;
            listings(parts).await;
        }
    }
    store.ping().await.expect("it answers");
    for finding in store.check().await {
        assert!(
            !matches!(finding.outcome, Outcome::Broken(_)),
            "{finding:?}"
        );
    }
}

fn key_of(id: UploadId) -> StoreKey {
    key(&format!("conformance/{id}"))
}

fn key(text: &str) -> StoreKey {
    text.parse().expect("a safe key")
}

fn about(upload: UploadId) -> About {
    About {
        upload,
        content_type: Some("application/x-conformance".into()),
    }
}

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::new(start, end).expect("not empty")
}

/// Bytes that differ from place to place and from seed to seed.
fn pattern(len: u64, seed: u8) -> Bytes {
    (0..len)
        .map(|at| (at.wrapping_mul(31) >> 3).to_le_bytes()[0] ^ seed)
        .collect()
}

fn memory(bytes: &Bytes) -> Payload {
    // In two frames, because that is how bytes come.
    let middle = bytes.len() / 3;
    Payload::Memory(Arc::new([bytes.slice(..middle), bytes.slice(middle..)]))
}

async fn content(store: &dyn Store, key: &StoreKey, range: Option<ByteRange>) -> Vec<u8> {
    let stream = store.read(key, range).await.expect("it is there");
    let frames: Vec<Bytes> = stream.try_collect().await.expect("it can be read");
    frames.concat()
}

/// Makes an object the way that the store's shape has.
async fn make(store: &dyn Store, id: UploadId, bytes: &Bytes) {
    let key = key_of(id);
    let etag = match store.shape() {
        Shape::InPlace(files) => {
            let file = files.open(id).await.expect("opened");
            file.write_at(0, std::slice::from_ref(bytes))
                .expect("written");
            let size = Length(bytes.len() as u64);
            let stored = files.publish(id, &key, size).await.expect("published");
            files.discard(id).await.expect("discarded");
            stored.etag
        }
        Shape::Parts(parts) => {
            let put = parts.put(&key, memory(bytes), &about(id)).await;
            put.expect("put").etag
        }
    };
    let found = store.head(&key).await.expect("looked").expect("there");
    assert_eq!(found.etag, etag);
}

async fn absent_objects(store: &dyn Store) {
    let key = key_of(UploadId::generate());
    assert_eq!(store.head(&key).await.expect("looked"), None);
    let read = store.read(&key, None).await.map(|_| ());
    assert!(matches!(read, Err(StoreError::NotFound)), "{read:?}");
    store.delete(&key).await.expect("not there is deleted");
}

async fn objects(store: &dyn Store) {
    for len in [0, 1, 700_001] {
        let id = UploadId::generate();
        let key = key_of(id);
        let bytes = pattern(len, 7);
        make(store, id, &bytes).await;

        let found = store.head(&key).await.expect("looked").expect("there");
        assert_eq!(found.size, Length(len));
        assert_eq!(found.upload, Some(id), "it is recognised");
        assert!(!found.etag.is_empty() && !found.etag.contains('"'));
        assert!(content(store, &key, None).await == bytes, "{len} bytes");
        if len > 1 {
            for some in [range(0, 1), range(len - 1, len), range(300_000, 600_000)] {
                let (start, end) = (some.start(), some.end());
                let start = usize::try_from(start).expect("small");
                let end = usize::try_from(end).expect("small");
                let got = content(store, &key, Some(some)).await;
                assert!(got == bytes[start..end], "{some:?}");
            }
        }
        // More than there is must not pass for all that was asked for.
        let beyond = match store.read(&key, Some(range(0, len + 1))).await {
            Ok(stream) => stream.try_collect::<Vec<Bytes>>().await.map(|_| ()),
            Err(error) => Err(error),
        };
        assert!(beyond.is_err(), "{len} bytes");

        store.delete(&key).await.expect("deleted");
        store.delete(&key).await.expect("deleted again");
        assert_eq!(store.head(&key).await.expect("looked"), None);
    }
}

async fn staged_files(store: &dyn Store, files: &dyn InPlace) {
    let id = UploadId::generate();
    let one = files.open(id).await.expect("opened");
    let two = files.open(id).await.expect("opened again");
    two.write_at(3, &[Bytes::from_static(b"de"), Bytes::from_static(b"f")])
        .expect("written ahead");
    one.write_at(0, &[Bytes::from_static(b"abc")])
        .expect("written behind");
    one.sync().expect("synced");
    let mut back = [0; 8];
    assert_eq!(two.read_at(0, &mut back).expect("read"), 6);
    assert_eq!(&back[..6], b"abcdef");
    assert!(files.staged().await.expect("listed").contains(&id));
    assert_eq!(
        store.head(&key_of(id)).await.expect("looked"),
        None,
        "what is staged is no object"
    );
    files.discard(id).await.expect("discarded");
    files.discard(id).await.expect("discarded again");
    assert!(!files.staged().await.expect("listed").contains(&id));
    let nothing = files.publish(id, &key_of(id), Length(0)).await;
    assert!(matches!(nothing, Err(StoreError::NotFound)), "{nothing:?}");
}

async fn publishing(store: &dyn Store, files: &dyn InPlace) {
    let [winner, loser] = [UploadId::generate(), UploadId::generate()];
    let key = key_of(winner);
    for (id, text) in [(winner, "winner and more"), (loser, "loser")] {
        let file = files.open(id).await.expect("opened");
        file.write_at(0, &[Bytes::copy_from_slice(text.as_bytes())])
            .expect("written");
    }
    let first = files.publish(winner, &key, Length(6)).await;
    let again = files.publish(winner, &key, Length(6)).await;
    let first = first.expect("published");
    assert_eq!(first, again.expect("published again"));
    assert!(first.verified);
    let refused = files.publish(loser, &key, Length(5)).await;
    assert!(matches!(refused, Err(StoreError::Taken)), "{refused:?}");
    assert_eq!(content(store, &key, None).await, b"winner");
    let mut back = [0; 5];
    let kept = files.open(loser).await.expect("opened");
    assert_eq!(kept.read_at(0, &mut back).expect("read"), 5);
    assert_eq!(&back, b"loser", "what was refused its name is kept");
    for id in [winner, loser] {
        files.discard(id).await.expect("discarded");
    }
    assert_eq!(content(store, &key, None).await, b"winner");
    store.delete(&key).await.expect("deleted");
}

async fn whole_objects(store: &dyn Store, parts: &dyn Parts) {
    let id = UploadId::generate();
    let key = key_of(id);
    let bytes = pattern(100_000, 1);
    let first = parts.put(&key, memory(&bytes), &about(id)).await;
    let again = parts.put(&key, memory(&bytes), &about(id)).await;
    first.expect("put");
    again.expect("put again");
    assert!(content(store, &key, None).await == bytes);
    store.delete(&key).await.expect("deleted");
}

/// Puts parts of these bytes, the last one first, and gives their receipts in order.
async fn put_parts(
    store: &dyn Parts,
    key: &StoreKey,
    upload: &StoreUploadId,
    parts: &[Bytes],
) -> Vec<PartReceipt> {
    let mut receipts = Vec::new();
    let mut end: u64 = parts.iter().map(|part| part.len() as u64).sum();
    for (part, number) in parts.iter().zip(1..).collect::<Vec<_>>().into_iter().rev() {
        let start = end - part.len() as u64;
        let stretch = range(start, end);
        let number = PartNumber(number);
        let receipt = store
            .put_part(key, upload, number, stretch, memory(part), MadeOf::Parts)
            .await
            .expect("put");
        assert_eq!((receipt.number, receipt.range), (number, stretch));
        receipts.insert(0, receipt);
        end = start;
    }
    receipts
}

async fn multipart(store: &dyn Store, parts: &dyn Parts) {
    let id = UploadId::generate();
    let key = key_of(id);
    let upload = parts
        .begin(&key, &about(id), MadeOf::Parts)
        .await
        .expect("begun");
    let pieces = [
        pattern(MIN_PART_BYTES, 2),
        pattern(MIN_PART_BYTES, 3),
        pattern(4_321, 4),
    ];
    let mut receipts = put_parts(parts, &key, &upload, &pieces).await;

    // The second one again, from a file, as a cell that was spooled.
    let folder = std::env::temp_dir().join(format!("jumar-conformance-{id}"));
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&folder)
        .expect("a file");
    std::fs::remove_file(&folder).expect("removed, and open still");
    let file = LocalFile::new(file, false);
    file.write_at(10, &pieces[1..2]).expect("written");
    let stretch = receipts[1].range;
    let payload = Payload::File {
        file: Arc::new(file),
        range: range(10, 10 + MIN_PART_BYTES),
    };
    receipts[1] = parts
        .put_part(
            &key,
            &upload,
            PartNumber(2),
            stretch,
            payload,
            MadeOf::Parts,
        )
        .await
        .expect("put from a file");

    assert_eq!(store.head(&key).await.expect("looked"), None);
    let size = Length(2 * MIN_PART_BYTES + 4_321);
    let stored = parts
        .finish(&key, &upload, &receipts, size)
        .await
        .expect("finished");
    assert_eq!(
        stored.verified,
        receipts.iter().all(|part| part.checksum.is_some())
    );
    let found = store.head(&key).await.expect("looked").expect("there");
    assert_eq!((found.size, found.upload), (size, Some(id)));
    assert_eq!(found.etag, stored.etag);
    assert!(content(store, &key, None).await == pieces.concat());
    store.delete(&key).await.expect("deleted");
}

async fn replaced_parts(store: &dyn Store, parts: &dyn Parts) {
    let id = UploadId::generate();
    let key = key_of(id);
    let upload = parts
        .begin(&key, &about(id), MadeOf::Parts)
        .await
        .expect("begun");
    let old = put_parts(parts, &key, &upload, &[pattern(9_000, 5)]).await;
    let new = put_parts(parts, &key, &upload, &[pattern(9_000, 6)]).await;
    let refused = parts.finish(&key, &upload, &old, Length(9_000)).await;
    assert!(
        matches!(refused, Err(StoreError::Changed(_))),
        "a receipt that is out of date: {refused:?}"
    );
    parts
        .finish(&key, &upload, &new, Length(9_000))
        .await
        .expect("a failed attempt destroys nothing");
    assert!(content(store, &key, None).await == pattern(9_000, 6));
    store.delete(&key).await.expect("deleted");
}

async fn ended_uploads(store: &dyn Store, parts: &dyn Parts) {
    let id = UploadId::generate();
    let key = key_of(id);
    let piece = pattern(2_000, 8);
    let all = range(0, 2_000);
    for finished in [true, false] {
        let upload = parts
            .begin(&key, &about(id), MadeOf::Parts)
            .await
            .expect("begun");
        let receipts = put_parts(parts, &key, &upload, std::slice::from_ref(&piece)).await;
        if finished {
            let done = parts.finish(&key, &upload, &receipts, Length(2_000)).await;
            done.expect("finished");
        } else {
            parts.abort(&key, &upload).await.expect("aborted");
        }
        let again = parts.finish(&key, &upload, &receipts, Length(2_000)).await;
        // A store may remember that it has finished it, and say so.
        let known = finished && again.is_ok();
        assert!(
            known || matches!(again, Err(StoreError::NotFound)),
            "{again:?}"
        );
        let late = parts
            .put_part(
                &key,
                &upload,
                PartNumber(1),
                all,
                memory(&piece),
                MadeOf::Parts,
            )
            .await;
        assert!(matches!(late, Err(StoreError::NotFound)), "{late:?}");
        parts.abort(&key, &upload).await.expect("gone is ended");
        assert!(content(store, &key, None).await == piece);
    }
    store.delete(&key).await.expect("deleted");
}

async fn listings(parts: &dyn Parts) {
    let id = UploadId::generate();
    let names = [key_of(id), key(&format!("{}-longer", key_of(id)))];
    let mut mine = Vec::new();
    for name in [&names[0], &names[0], &names[1]] {
        let upload = parts
            .begin(name, &about(id), MadeOf::Parts)
            .await
            .expect("begun");
        mine.push((name.clone(), upload));
    }
    mine.sort();
    mine.dedup();
    assert_eq!(mine.len(), 3, "each begins another one");

    for name in &names {
        let mut found: Vec<_> = (parts.multipart_of(name).await.expect("listed").into_iter())
            .map(|found| (found.key, found.id))
            .collect();
        found.sort();
        let expected: Vec<_> = mine
            .iter()
            .filter(|(key, _)| key == name)
            .cloned()
            .collect();
        assert_eq!(found, expected);
    }

    let mut walked: Vec<FoundMultipart> = Vec::new();
    loop {
        let page = parts.multipart_uploads(walked.last(), 2).await;
        let page = page.expect("listed");
        assert!(page.len() <= 2);
        if page.is_empty() {
            break;
        }
        walked.extend(page);
        assert!(walked.len() < 10_000, "the walk ends");
    }
    let seen = |(key, upload): &(StoreKey, StoreUploadId)| {
        let times = walked
            .iter()
            .filter(|found| found.key == *key && found.id == *upload);
        times.count()
    };
    for one in &mine {
        assert_eq!(seen(one), 1, "each is listed once");
        parts.abort(&one.0, &one.1).await.expect("aborted");
    }
    for name in &names {
        assert_eq!(parts.multipart_of(name).await.expect("listed"), []);
    }
}
