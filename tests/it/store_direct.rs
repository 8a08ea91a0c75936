//! Past the server: what a plain client can do with a signed request, and what it cannot.
//!
//! Each on the S3 server inside the tests, and on a real one where there is one.

mod digests;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use jumar::clock::Clock;
use jumar::model::plan::MIN_PART_BYTES;
use jumar::model::upload::StoreUploadId;
use jumar::model::{
    ByteRange, Digest, DigestAlgorithm, Length, PartNumber, PartReceipt, StoreKey, Timestamp,
    UploadId,
};
use jumar::store::call::Call;
use jumar::store::direct::{AnswerWith, PartPlace, SignedRequest};
use jumar::store::faulty::{Fault, Faults, When};
use jumar::store::fs::FsStore;
use jumar::store::hooked::Hooked;
use jumar::store::s3::{ChecksumMode, S3Config, S3Store};
use jumar::store::{About, Direct as _, MadeOf, Parts as _, Payload, Store, StoreError};
use sha2::Digest as _;

use crate::support::http::{Answer, Connection, try_call};
use crate::support::s3::{Quirks, S3Server, real_config};

const ONE: PartNumber = PartNumber(1);
const TEXT: &[u8] = b"some bytes";
const HOUR: Duration = Duration::from_hours(1);

/// A store, and its server if it is ours.
struct Ground {
    store: S3Store,
    server: Option<S3Server>,
}

/// Where parts may come without a checksum, on every server.
fn bare(config: &mut S3Config) {
    config.checksum = ChecksumMode::None;
}

/// A store on each server that there is.
async fn grounds(change: impl Fn(&mut S3Config)) -> Vec<Ground> {
    let server = S3Server::start().await;
    let mut grounds = Vec::new();
    let real = real_config().map(|config| (config, None));
    for (mut config, server) in [(server.config(), Some(server))].into_iter().chain(real) {
        change(&mut config);
        let store = S3Store::open(config).await;
        grounds.push(Ground { store, server });
    }
    grounds
}

fn key() -> StoreKey {
    format!("direct/{}", UploadId::generate()).parse().unwrap()
}

fn about() -> About {
    About {
        upload: UploadId::from_bytes([7; 16]),
        content_type: Some("text/plain".into()),
    }
}

fn now() -> Timestamp {
    Clock::system().now()
}

fn memory(bytes: impl Into<Bytes>) -> Payload {
    Payload::Memory(Arc::new([bytes.into()]))
}

async fn begin(store: &S3Store, key: &StoreKey) -> StoreUploadId {
    store.begin(key, &about(), MadeOf::Parts).await.unwrap()
}

/// A request for a part of as many bytes as `TEXT`.
async fn sign(store: &S3Store, key: &StoreKey, upload: &StoreUploadId) -> SignedRequest {
    let place = PartPlace {
        key,
        upload,
        number: ONE,
    };
    let size = Some(Length(TEXT.len() as u64));
    let signed = store.sign_part(place, size, None, now(), HOUR).await;
    signed.unwrap()
}

/// The server's address, and the path with the query.
fn target(url: &str) -> (SocketAddr, String) {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    (host.parse().unwrap(), format!("/{path}"))
}

/// The headers that a client has to set, but for the length, which comes of the body.
fn fields(signed: &SignedRequest) -> Vec<(&str, &str)> {
    let headers = signed.headers.iter();
    headers
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| *name != "content-length")
        .collect()
}

/// Sends what was signed, as a client that knows nothing of S3 does.
async fn send(signed: &SignedRequest, body: &[u8]) -> Answer {
    let (server, path) = target(&signed.url);
    try_call(server, signed.method, &path, &fields(signed), body)
        .await
        .unwrap()
}

#[track_caller]
fn refused(answer: &Answer) {
    assert!((400..500).contains(&answer.status), "{}", answer.text());
}

async fn nothing_there(store: &S3Store, key: &StoreKey, upload: &StoreUploadId) {
    assert_eq!(store.parts_of(key, upload, None, 10).await.unwrap(), []);
}

fn digest(algorithm: DigestAlgorithm, bytes: &[u8]) -> Digest {
    let value = match algorithm {
        DigestAlgorithm::Sha256 => sha2::Sha256::digest(bytes).to_vec(),
        DigestAlgorithm::Md5 => md5::Md5::digest(bytes).to_vec(),
        DigestAlgorithm::Crc32c => {
            let sum = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes);
            u32::try_from(sum).unwrap().to_be_bytes().to_vec()
        }
        DigestAlgorithm::Crc64Nvme => crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes)
            .to_be_bytes()
            .to_vec(),
        other => panic!("{other}"),
    };
    Digest::new(algorithm, value).unwrap()
}

#[tokio::test]
async fn exact_bytes_parts_that_clients_put_and_parts_of_the_server_make_one_object() {
    for checksum in [
        ChecksumMode::Auto,
        ChecksumMode::Crc64Nvme,
        ChecksumMode::Md5,
        ChecksumMode::None,
    ] {
        for ground in grounds(|config| config.checksum = checksum).await {
            let store = &ground.store;
            if !store.mixes().await.unwrap() {
                assert!(ground.server.is_none(), "ours is as AWS is");
                continue;
            }
            let key = key();
            let upload = begin(store, &key).await;
            let large = vec![7; usize::try_from(MIN_PART_BYTES).unwrap()];
            let ranges = [
                ByteRange::new(0, MIN_PART_BYTES).unwrap(),
                ByteRange::new(MIN_PART_BYTES, MIN_PART_BYTES * 2).unwrap(),
                ByteRange::new(MIN_PART_BYTES * 2, MIN_PART_BYTES * 2 + 10).unwrap(),
            ];
            let mut parts = Vec::new();
            for (range, number) in ranges.into_iter().zip(1..) {
                let bytes = if number < 3 { &large } else { TEXT };
                let number = PartNumber(number);
                if number.0 == 2 {
                    let payload = memory(large.clone());
                    let put = store
                        .put_part(&key, &upload, number, range, payload, MadeOf::Parts)
                        .await;
                    parts.push(put.unwrap());
                    continue;
                }
                let place = PartPlace {
                    key: &key,
                    upload: &upload,
                    number,
                };
                let size = Length(range.len());
                let signed = store.sign_part(place, Some(size), None, now(), HOUR).await;
                send(&signed.unwrap(), bytes).await.expect(200);
                let before = Some(PartNumber(number.0 - 1));
                let found = store.parts_of(&key, &upload, before, 1).await.unwrap();
                assert_eq!((found[0].number, found[0].size), (number, size));
                parts.push(PartReceipt {
                    number,
                    range,
                    etag: found[0].etag.clone(),
                    checksum: None,
                });
            }
            let size = Length(ranges[2].end());
            let done = store.finish(&key, &upload, &parts, size).await.unwrap();
            assert!(!done.verified, "two parts came without a checksum");
            let all = [&large[..], &large, TEXT].concat();
            let sum = digest(DigestAlgorithm::Crc64Nvme, &all).to_hex();
            let told = store.checksum_of(&key).await.unwrap();
            if let Some(server) = &ground.server {
                assert_eq!(server.backend().bytes(key.as_str()).unwrap(), all);
                assert_eq!(told.as_ref(), Some(&sum));
            }
            assert!(told.is_none_or(|told| told == sum), "{checksum:?}");
            store.delete(&key).await.unwrap();
            let gone = store.checksum_of(&key).await;
            assert!(matches!(gone, Err(StoreError::NotFound)), "{gone:?}");
        }
    }
}

#[tokio::test]
async fn a_client_can_put_no_byte_more_nor_fewer() {
    for ground in grounds(bare).await {
        let store = &ground.store;
        let key = key();
        let upload = begin(store, &key).await;
        let signed = sign(store, &key, &upload).await;
        refused(&send(&signed, &[TEXT, b"!"].concat()).await);
        refused(&send(&signed, &TEXT[1..]).await);
        refused(&send(&signed, b"").await);

        // Of unknown length, in chunks.
        let (server, path) = target(&signed.url);
        let mut connection = Connection::open(server).await;
        let mut coded = fields(&signed);
        coded.push(("Transfer-Encoding", "chunked"));
        connection.head("PUT", &path, &coded).await;
        let _ = connection.send_coded(TEXT).await;
        let _ = connection.send_coded(b"").await;
        refused(&connection.answer().await);

        // With one length signed and another one said.
        let mut connection = Connection::open(server).await;
        let length = ("Content-Length", "11");
        let mut two = fields(&signed);
        two.extend([("X-Amz-Content-Length", "10"), length]);
        connection.head("PUT", &path, &two).await;
        connection.send(b"some bytes!").await.unwrap();
        refused(&connection.answer().await);
        nothing_there(store, &key, &upload).await;

        send(&signed, TEXT).await.expect(200);
        store.abort(&key, &upload).await.unwrap();
    }
}

#[tokio::test]
async fn a_request_is_good_for_one_part_of_one_upload_and_for_its_time() {
    for ground in grounds(bare).await {
        let store = &ground.store;
        let key = key();
        let upload = begin(store, &key).await;
        let other = begin(store, &key).await;
        let signed = sign(store, &key, &upload).await;
        for (is, instead) in [
            ("partNumber=1", "partNumber=2"),
            (upload.0.as_str(), other.0.as_str()),
            ("X-Amz-Expires=3600", "X-Amz-Expires=7200"),
            (key.as_str(), "direct/other"),
        ] {
            assert!(signed.url.contains(is), "{is}");
            let changed = SignedRequest {
                url: signed.url.replace(is, instead),
                ..signed.clone()
            };
            refused(&send(&changed, TEXT).await);
        }
        let got = SignedRequest {
            method: "GET",
            ..signed.clone()
        };
        refused(&send(&got, b"").await);

        let place = PartPlace {
            key: &key,
            upload: &upload,
            number: ONE,
        };
        let past = now().before(HOUR);
        let minute = Duration::from_mins(1);
        let old = store.sign_part(place, None, None, past, minute).await;
        let old = old.unwrap();
        assert_eq!(old.expires_at, past.after(minute));
        refused(&send(&old, TEXT).await);
        for upload in [&upload, &other] {
            nothing_there(store, &key, upload).await;
        }

        // Signed two hours ago, good for three.
        let three = HOUR * 3;
        let still = store.sign_part(place, None, None, past, three).await;
        send(&still.unwrap(), TEXT).await.expect(200);
        let found = store.parts_of(&key, &upload, None, 10).await.unwrap();
        assert_eq!(found.len(), 1);
        nothing_there(store, &key, &other).await;
        store.abort(&key, &other).await.unwrap();
        store.abort(&key, &upload).await.unwrap();
        refused(&send(&signed, TEXT).await);
        assert_eq!(store.multipart_of(&key).await.unwrap(), []);
        let gone = store.parts_of(&key, &upload, None, 10).await;
        assert!(matches!(gone, Err(StoreError::NotFound)), "{gone:?}");
        assert_eq!(store.head(&key).await.unwrap(), None);
    }
}

#[tokio::test]
async fn nothing_is_signed_that_a_plain_client_would_not_send() {
    for ground in grounds(bare).await {
        let key = key();
        let upload = StoreUploadId("some-upload".into());
        let place = PartPlace {
            key: &key,
            upload: &upload,
            number: ONE,
        };
        let md5 = digest(DigestAlgorithm::Md5, TEXT);
        let full = ground
            .store
            .sign_part(place, Some(Length(10)), Some(&md5), now(), HOUR)
            .await
            .unwrap();
        let bare = ground
            .store
            .sign_part(place, None, None, now(), HOUR)
            .await
            .unwrap();
        let read = ground
            .store
            .sign_read(&key, &AnswerWith::default(), now(), HOUR)
            .await
            .unwrap();
        for (signed, expected) in [
            (full, "content-length%3Bcontent-md5%3Bhost"),
            (bare, "host"),
            (read, "host"),
        ] {
            let query = signed.url.split_once('?').unwrap().1;
            let names: Vec<_> = query
                .split('&')
                .filter_map(|pair| pair.strip_prefix("X-Amz-SignedHeaders="))
                .collect();
            assert_eq!(names, [expected]);
            let mut told: Vec<_> = signed.headers.iter().map(|(name, _)| name).collect();
            told.sort();
            let mut listed: Vec<_> = expected.split("%3B").collect();
            listed.pop();
            assert_eq!(told, listed);
        }
    }
}

#[tokio::test]
async fn parts_are_listed_page_by_page() {
    for ground in grounds(|_| ()).await {
        let store = &ground.store;
        let key = key();
        let upload = begin(store, &key).await;
        let mut put = Vec::new();
        for number in [2, 3, 5, 8, 9] {
            let range = ByteRange::new(0, u64::from(number)).unwrap();
            let bytes = vec![1; number as usize];
            let number = PartNumber(number);
            let done = store
                .put_part(&key, &upload, number, range, memory(bytes), MadeOf::Parts)
                .await
                .unwrap();
            put.push((number, Length(range.len()), done.etag));
        }
        if let Some(server) = &ground.server {
            server.control().set_quirks(Quirks {
                page: Some(2),
                ..Quirks::default()
            });
        }
        for (after, limit, expected) in [
            (None, 100, &put[..]),
            (None, 3, &put[..3]),
            (None, 0, &[]),
            (Some(3), 100, &put[2..]),
            (Some(4), 2, &put[2..4]),
            (Some(9), 100, &[]),
        ] {
            let after = after.map(PartNumber);
            let found = store.parts_of(&key, &upload, after, limit).await.unwrap();
            let found: Vec<_> = found
                .into_iter()
                .map(|part| (part.number, part.size, part.etag))
                .collect();
            assert_eq!(found, expected, "{limit} after {after:?}");
        }
        store.abort(&key, &upload).await.unwrap();
    }
}

#[tokio::test]
async fn an_object_is_read_as_it_was_signed_and_only_in_time() {
    for ground in grounds(|_| ()).await {
        let store = &ground.store;
        let key = key();
        store.put(&key, memory(TEXT), &about()).await.unwrap();
        let with = AnswerWith {
            content_type: Some("image/jpeg".into()),
            content_disposition: Some("attachment; filename=\"a b.jpg\"".into()),
            cache_control: Some("private, max-age=60".into()),
        };
        let signed = store.sign_read(&key, &with, now(), HOUR).await.unwrap();
        assert_eq!(signed.method, "GET");
        let answer = send(&signed, b"").await;
        assert_eq!(answer.expect(200).body, TEXT);
        for (name, value) in [
            ("content-type", &with.content_type),
            ("content-disposition", &with.content_disposition),
            ("cache-control", &with.cache_control),
        ] {
            assert_eq!(answer.header(name), value.as_deref());
        }
        let as_it_is = AnswerWith::default();
        let plain = store.sign_read(&key, &as_it_is, now(), HOUR);
        let answer = send(&plain.await.unwrap(), b"").await;
        assert_eq!(
            answer.expect(200).header("content-type"),
            Some("text/plain")
        );

        let (server, path) = target(&signed.url);
        let some = [("Range", "bytes=5-7")];
        let range = try_call(server, "GET", &path, &some, b"").await.unwrap();
        assert_eq!(range.expect(206).body, b"byt");

        let changed = SignedRequest {
            url: signed.url.replace("jpeg", "png"),
            ..signed.clone()
        };
        refused(&send(&changed, b"").await);
        let past = now().before(HOUR);
        let old = store.sign_read(&key, &with, past, Duration::from_mins(1));
        refused(&send(&old.await.unwrap(), b"").await);
        store.delete(&key).await.unwrap();
        refused(&send(&signed, b"").await);
    }
}

#[tokio::test]
async fn a_copy_never_replaces_where_the_store_looks() {
    const TEXT_SIZE: Length = Length(TEXT.len() as u64);
    for ground in grounds(|_| ()).await {
        let store = &ground.store;
        let [source, target] = [key(), key()];
        let missing = store.copy(&source, TEXT_SIZE, &target, &about()).await;
        assert!(matches!(missing, Err(StoreError::NotFound)), "{missing:?}");
        store.put(&source, memory(TEXT), &about()).await.unwrap();
        let mine = About {
            upload: UploadId::from_bytes([8; 16]),
            content_type: Some("image/png".into()),
        };
        let copied = store
            .copy(&source, TEXT_SIZE, &target, &mine)
            .await
            .unwrap();
        let found = store.head(&target).await.unwrap().unwrap();
        assert_eq!(found.etag, copied.etag);
        assert_eq!(found.size, Length(TEXT.len() as u64));
        assert_eq!(found.upload, Some(mine.upload), "whose it is now");

        let other = memory("another");
        store.put(&source, other, &about()).await.unwrap();
        let again = store.copy(&source, TEXT_SIZE, &target, &mine).await;
        let Some(server) = &ground.server else {
            // A real store replaces it or not.
            assert!(matches!(again, Ok(_) | Err(StoreError::Taken)), "{again:?}");
            store.delete(&source).await.unwrap();
            store.delete(&target).await.unwrap();
            continue;
        };
        assert!(matches!(again, Err(StoreError::Taken)), "{again:?}");
        let stored = server.backend().bytes(target.as_str());
        assert_eq!(stored.unwrap(), TEXT);
        let (media_type, _) = server.backend().about(target.as_str()).unwrap();
        assert_eq!(media_type.as_deref(), Some("image/png"));

        server.control().set_quirks(Quirks {
            ignores_conditions: true,
            ..Quirks::default()
        });
        store
            .copy(&source, TEXT_SIZE, &target, &mine)
            .await
            .unwrap();
        let stored = server.backend().bytes(target.as_str());
        assert_eq!(stored.unwrap(), b"another");
    }
}

#[tokio::test]
async fn sealed_a_signed_request_does_not_print() {
    let server = S3Server::start().await;
    let store = server.store().await;
    let upload = StoreUploadId("some-upload".into());
    let signed = sign(&store, &key(), &upload).await;
    let shown = format!("{signed:?} {signed:#?}");
    assert!(signed.url.contains("X-Amz-Signature"));
    for secret in ["http", "Amz", "Signature", "some-upload", "direct/"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let forever = store
        .sign_read(&key(), &AnswerWith::default(), now(), HOUR * 24 * 8)
        .await;
    assert!(
        matches!(forever, Err(StoreError::Refused(_))),
        "no week more"
    );
}

/// What is logged, at every level.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn sealed_signing_logs_no_signature() {
    let server = S3Server::start().await;
    let store = server.store().await;
    let written = Written::default();
    let writer = written.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let logging = tracing::subscriber::set_default(subscriber);
    let upload = StoreUploadId("some-upload".into());
    let signed = sign(&store, &key(), &upload).await;
    drop(logging);
    let signature = signed.url.split("X-Amz-Signature=").nth(1).unwrap();
    let signature = signature.split('&').next().unwrap();
    let log = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    assert!(!log.is_empty(), "the library says something");
    assert!(!log.contains(signature), "{log}");
}

#[tokio::test]
async fn what_is_around_a_store_is_around_what_it_tells_and_not_around_what_it_signs() {
    let server = S3Server::start().await;
    let faults = Faults::default();
    let store = Hooked::new(Arc::new(server.store().await), faults.clone());
    let direct = store.direct().unwrap();
    for call in [Call::PartsOf, Call::ChecksumOf] {
        faults.fail(call, When::Always, Fault::Unavailable);
    }
    let key = key();
    let upload = StoreUploadId("some-upload".into());
    let parts = direct.parts_of(&key, &upload, None, 1).await;
    assert!(
        matches!(parts, Err(StoreError::Unavailable(_))),
        "{parts:?}"
    );
    let sum = direct.checksum_of(&key).await;
    assert!(matches!(sum, Err(StoreError::Unavailable(_))), "{sum:?}");
    server.control().set_away(true);
    let place = PartPlace {
        key: &key,
        upload: &upload,
        number: ONE,
    };
    direct
        .sign_part(place, None, None, now(), HOUR)
        .await
        .unwrap();
    direct
        .sign_read(&key, &AnswerWith::default(), now(), HOUR)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_folder_signs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = FsStore::open(folder.path(), true).unwrap();
    assert!(store.direct().is_none());
    let hooked = Hooked::new(Arc::new(store), Faults::default());
    assert!(hooked.direct().is_none());
}
