//! Past the server: URLs for parts, what comes of them, and what must not.
//!
//! Most of it on the S3 server inside the tests and on a real one, where there is one.

mod late;
mod proof;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jumar::clock::Clock;
use jumar::engine::{
    Complete, Completion, EngineError, PartUrls, Settings, SignedPart, Verify, Written,
};
use jumar::model::digest::Digests;
use jumar::model::upload::{Declared, FailureReason, Verified};
use jumar::model::{
    ByteRange, Digest, DigestAlgorithm, Length, Object, PartNumber, UploadId, UploadState,
};
use jumar::store::call::Call;
use jumar::store::direct::PartPlace;
use jumar::store::faulty::{Fault, Faults, When};
use jumar::store::hooked::Hooked;
use jumar::store::s3::{ChecksumMode, S3Config, S3Store};
use jumar::store::{About, MadeOf, Shape};

use super::kit::{digest_of, files_of, is_gone, receipts, send, until, writer};
use crate::support::direct::send_signed;
use crate::support::rig::{Ground, MIB, Rig, Session, noise};
use crate::support::s3::{Op, real_config};

const CELL: u64 = 5 * MIB;

fn one(number: u32) -> PartNumber {
    PartNumber(number)
}

/// An engine over an S3 server that checks what is signed, so its clock shows today.
struct Client {
    rig: Rig,
    faults: Faults,
}

impl Client {
    async fn over(config: S3Config, ground: Ground, change: impl Fn(&mut Settings)) -> Self {
        let faults = Faults::default();
        let store = Arc::new(S3Store::open(config).await);
        let store = Arc::new(Hooked::new(store, faults.clone()));
        let mut settings = ground.settings();
        change(&mut settings);
        let clock = Clock::manual(Clock::system().now());
        let rig = ground.rig_at(store, settings, clock);
        Self { rig, faults }
    }

    async fn with(checksum: ChecksumMode, change: impl Fn(&mut Settings)) -> Self {
        let ground = Ground::s3().await;
        let server = ground.s3.as_ref().unwrap();
        let config = S3Config {
            checksum,
            ..server.config()
        };
        Self::over(config, ground, change).await
    }

    async fn ours() -> Self {
        Self::with(ChecksumMode::Auto, |_| {}).await
    }

    /// The next process over the same ground; what fails goes on failing.
    fn restart(self) -> Self {
        let Rig {
            engine,
            store,
            clock,
            ground,
            ..
        } = self.rig;
        let settings = engine.settings().clone();
        drop(engine);
        let rig = ground.rig_at(store, settings, clock);
        Self {
            rig,
            faults: self.faults,
        }
    }

    /// Asks for URLs.
    async fn ask(
        &self,
        session: &Session,
        numbers: &[u32],
        digests: BTreeMap<PartNumber, Digest>,
    ) -> Result<Vec<SignedPart>, EngineError> {
        let ask = PartUrls {
            id: session.id,
            key: session.key.clone(),
            numbers: numbers.iter().copied().map(PartNumber).collect(),
            digests,
        };
        self.rig.engine.part_urls(ask).await
    }

    async fn urls(&self, session: &Session, numbers: &[u32]) -> Vec<SignedPart> {
        let signed = self.ask(session, numbers, BTreeMap::new()).await;
        signed.expect("signed")
    }

    async fn url(&self, session: &Session, number: u32) -> SignedPart {
        self.urls(session, &[number]).await.remove(0)
    }

    async fn told(
        &self,
        session: &Session,
        number: u32,
        etag: Option<&str>,
    ) -> Result<Written, EngineError> {
        let (id, key) = (session.id, &session.key);
        self.rig
            .engine
            .part_arrived(id, key, one(number), etag)
            .await
    }

    async fn restless_complete(&self, session: &Session) -> Result<Object, EngineError> {
        loop {
            match self.rig.complete(session).await {
                Err(EngineError::Unavailable { .. }) => {
                    self.rig.clock.advance(Duration::from_secs(20));
                }
                outcome => return outcome,
            }
        }
    }

    async fn received(&self, session: &Session) -> Vec<(u64, u64)> {
        let received = self.rig.status(session).await.received;
        received.iter().map(|r| (r.start(), r.end())).collect()
    }
}

/// Every server that there is, and every way in which checksums may go.
async fn everywhere() -> Vec<Client> {
    let mut all = Vec::new();
    for checksum in [
        ChecksumMode::Auto,
        ChecksumMode::Crc32c,
        ChecksumMode::Md5,
        ChecksumMode::None,
    ] {
        all.push(Client::with(checksum, |_| {}).await);
        if let Some(config) = real_config() {
            let config = S3Config { checksum, ..config };
            all.push(Client::over(config, Ground::fs(), |_| {}).await);
        }
    }
    all
}

/// The part's bytes of the whole.
fn of<'a>(part: &SignedPart, bytes: &'a [u8]) -> &'a [u8] {
    let (start, end) = (part.range.start() as usize, part.range.end() as usize);
    &bytes[start..end]
}

/// Puts a part by its URL; the etag, as the client sees it.
async fn put(part: &SignedPart, bytes: &[u8]) -> String {
    let answer = send_signed(&part.request, bytes).await;
    answer.expect(200).header("ETag").unwrap().to_owned()
}

fn unavailable<T: std::fmt::Debug>(outcome: Result<T, EngineError>) -> Vec<PartNumber> {
    match outcome {
        Err(EngineError::DirectUnavailable { parts, .. }) => parts,
        other => panic!("{other:?}"),
    }
}

async fn tidy(client: &Client, object: &Object) {
    client.rig.store.delete(&object.key).await.expect("deleted");
}

#[tokio::test]
async fn exact_bytes_of_parts_that_are_all_put_directly() {
    for client in everywhere().await {
        let bytes = noise(2 * CELL + 345, 1);
        let session = client.rig.create(Some(bytes.len() as u64)).await;
        let signed = client.urls(&session, &[3, 1, 2]).await;
        let numbers: Vec<_> = signed.iter().map(|part| part.number.0).collect();
        assert_eq!(numbers, [3, 1, 2], "in the order asked");
        assert_eq!(
            signed[0].range,
            ByteRange::new(2 * CELL, 2 * CELL + 345).unwrap()
        );
        let mut there = 0;
        for part in &signed {
            let before = client.rig.status(&session).await.upload.expires_at;
            let etag = put(part, of(part, &bytes)).await;
            client.rig.clock.advance(Duration::from_secs(1));
            assert_eq!(client.rig.status(&session).await.received.total(), there);
            for _ in 0..2 {
                let told = client.told(&session, part.number.0, Some(&etag)).await;
                assert_eq!(
                    told.expect("it is there").length,
                    Some(Length(2 * CELL + 345))
                );
            }
            there += part.range.len();
            let status = client.rig.status(&session).await;
            assert_eq!(status.received.total(), there);
            assert!(status.upload.expires_at > before, "it slides");
        }
        let object = client.rig.expect_whole(&session, &bytes).await;
        assert_eq!(object.verified, Verified::Readback);
        assert!(object.store_checked);
        let again = client.told(&session, 2, None).await.expect("completed");
        assert!(again.is_full());
        tidy(&client, &object).await;
    }
}

#[tokio::test]
async fn exact_bytes_of_parts_of_both_ways_in_any_order() {
    for client in everywhere().await {
        let bytes = noise(5 * CELL + 99, 2);
        let session = client.rig.create(Some(bytes.len() as u64)).await;
        let proxied = async |number: u64| {
            let start = (number - 1) * CELL;
            let end = (start + CELL).min(bytes.len() as u64);
            let body = &bytes[start as usize..end as usize];
            client.rig.put(&session, start, body).await.expect("taken");
        };
        let last = client.url(&session, 6).await;
        proxied(3).await;
        put(&last, of(&last, &bytes)).await;
        let others = client.urls(&session, &[1, 2, 4, 5]).await;
        for part in [&others[3], &others[0], &others[2]] {
            let etag = put(part, of(part, &bytes)).await;
            let told = client.told(&session, part.number.0, Some(&etag)).await;
            told.expect("it is there");
        }
        // What has a URL goes through the server all the same, if its client prefers that.
        proxied(2).await;
        let object = client.rig.expect_whole(&session, &bytes).await;
        assert_eq!(object.verified, Verified::Readback);
        tidy(&client, &object).await;
    }
}

#[tokio::test]
async fn what_came_through_the_server_first_decides_whether_others_may_join() {
    for (checksum, joins) in [(ChecksumMode::Auto, true), (ChecksumMode::Crc32c, false)] {
        let client = Client::with(checksum, |_| {}).await;
        let bytes = noise(2 * CELL, 3);
        let session = client.rig.create(Some(2 * CELL)).await;
        let first = &bytes[..CELL as usize];
        client.rig.put(&session, 0, first).await.expect("taken");
        let client = client.restart();
        let signed = client.ask(&session, &[2], BTreeMap::new()).await;
        if joins {
            let part = &signed.expect("signed")[0];
            put(part, of(part, &bytes)).await;
        } else {
            assert_eq!(unavailable(signed), []);
            let rest = &bytes[CELL as usize..];
            client.rig.put(&session, CELL, rest).await.expect("taken");
        }
        client.rig.expect_whole(&session, &bytes).await;
    }
}

#[tokio::test]
async fn a_folder_takes_nothing_directly() {
    let rig = Rig::fs().await;
    let faults = Faults::default();
    let client = Client { rig, faults };
    let session = client.rig.create(Some(10)).await;
    let stranger = Session {
        id: UploadId::generate(),
        ..session.clone()
    };
    let sealed = client.ask(&stranger, &[1], BTreeMap::new()).await;
    assert!(matches!(sealed, Err(EngineError::NotFound)), "{sealed:?}");
    let signed = client.ask(&session, &[1], BTreeMap::new()).await;
    assert_eq!(unavailable(signed), []);
    assert_eq!(unavailable(client.told(&session, 1, None).await), []);
    let session = client.rig.create(Some(4)).await;
    client.rig.put(&session, 0, b"1234").await.expect("taken");
    client.rig.expect_whole(&session, b"1234").await;
}

#[tokio::test]
async fn only_parts_of_the_upload_have_urls() {
    let client = Client::ours().await;
    let session = client.rig.create(Some(2 * CELL)).await;
    let unknown = client.rig.create(None).await;
    let most = (1024 / 5) as u32;
    let many: Vec<u32> = (1..=1001).collect();
    for (session, numbers) in [
        (&session, &[0][..]),
        (&session, &[1, 3]),
        (&session, &[1, 1]),
        (&session, &[]),
        (&session, &[10_001]),
        (&unknown, &[most + 1]),
        (&unknown, &many),
    ] {
        let outcome = client.ask(session, numbers, BTreeMap::new()).await;
        assert!(
            matches!(outcome, Err(EngineError::BadParts { .. })),
            "{outcome:?}"
        );
    }
    let digest = digest_of(DigestAlgorithm::Md5, b"1");
    let stray = client.ask(&session, &[1], [(one(2), digest)].into()).await;
    assert!(
        matches!(stray, Err(EngineError::BadParts { .. })),
        "{stray:?}"
    );
    for (session, number) in [(&session, 3), (&session, 0), (&unknown, most + 1)] {
        let outcome = client.told(session, number, None).await;
        assert!(
            matches!(outcome, Err(EngineError::BadParts { .. })),
            "{outcome:?}"
        );
    }
    assert_eq!(client.urls(&unknown, &[most]).await[0].range.len(), CELL);
    let server = client.rig.s3_server().backend();
    assert_eq!(
        server.open_uploads().len(),
        1,
        "nothing was begun for what was refused"
    );
    // Nor has what takes its bytes in order any.
    let sequential = Declared {
        sequential: true,
        ..Declared::default()
    };
    let session = client.rig.create_declaring(Some(CELL), sequential).await;
    unavailable(client.ask(&session, &[1], BTreeMap::new()).await);
}

#[tokio::test]
async fn one_writer_no_url_for_what_is_there_or_on_its_way() {
    let client = Client::ours().await;
    let bytes = noise(4 * CELL, 4);
    let session = client.rig.create(Some(4 * CELL)).await;
    client
        .rig
        .put(&session, CELL - 1, &bytes[CELL as usize - 1..][..1])
        .await
        .expect("taken");
    let (feed, running) = writer(&client.rig.engine, &session, CELL + 7, 10).await;
    let refused = client.ask(&session, &[1, 2, 3], BTreeMap::new()).await;
    assert_eq!(unavailable(refused), [one(1), one(2)]);
    let snapshot = client.rig.catalog.load(session.id).await.unwrap().unwrap();
    assert!(snapshot.direct.is_empty(), "all or none");
    send(&feed, &bytes[CELL as usize + 7..][..10], 10);
    drop(feed);
    running.await.unwrap().expect("taken");
    let refused = client.ask(&session, &[2], BTreeMap::new()).await;
    assert_eq!(unavailable(refused), [one(2)]);
    // A cell that a displaced writer's call is still at work on.
    client
        .faults
        .fail(Call::PutPart, When::Next(1), Fault::Hang);
    let (feed, running) = writer(&client.rig.engine, &session, 3 * CELL, CELL).await;
    client
        .ask(&session, &[3], BTreeMap::new())
        .await
        .expect("signed");
    send(&feed, &bytes[3 * CELL as usize..], 64 * 1024);
    drop((feed, running));
    let refused = client.ask(&session, &[4], BTreeMap::new()).await;
    assert_eq!(unavailable(refused), [one(4)]);
    client.faults.heal();
}

#[tokio::test]
async fn a_small_upload_with_a_url_goes_as_a_part() {
    let client = Client::ours().await;
    for direct in [true, false] {
        let bytes = noise(1000, 10);
        let session = client.rig.create(Some(1000)).await;
        let part = client.url(&session, 1).await;
        if direct {
            put(&part, &bytes).await;
        } else {
            client.rig.put(&session, 0, &bytes).await.expect("taken");
            put(&part, &noise(1000, 11)).await;
        }
        client.rig.expect_whole(&session, &bytes).await;
        assert_eq!(client.rig.s3_server().backend().open_uploads(), []);
    }
    assert_eq!(client.faults.count(Call::Put), 0);
}

#[tokio::test]
async fn lost_notices_cost_nothing() {
    for client in everywhere().await {
        let bytes = noise(3 * CELL + 1, 15);
        let session = client.rig.create(Some(bytes.len() as u64)).await;
        for part in client.urls(&session, &[1, 2, 3]).await {
            put(&part, of(&part, &bytes)).await;
        }
        client.told(&session, 2, None).await.expect("it is there");
        let client = client.restart();
        let early = client.rig.complete(&session).await;
        let Err(EngineError::Incomplete { missing, .. }) = early else {
            panic!("{early:?}");
        };
        assert_eq!(missing, [ByteRange::new(3 * CELL, 3 * CELL + 1).unwrap()]);
        assert_eq!(client.received(&session).await, [(0, 3 * CELL)]);
        let part = client.url(&session, 4).await;
        put(&part, of(&part, &bytes)).await;
        let object = client.rig.expect_whole(&session, &bytes).await;
        tidy(&client, &object).await;
    }
}

#[tokio::test]
async fn an_upload_of_unknown_length_has_whole_cells_past_the_server() {
    let client = Client::ours().await;
    let bytes = noise(2 * CELL + 3, 16);
    let session = client.rig.create(None).await;
    for part in client.urls(&session, &[1, 2]).await {
        put(&part, of(&part, &bytes)).await;
    }
    // Of the third only some bytes are to come, so it has to be said how many.
    client.urls(&session, &[3]).await;
    let (id, key) = (session.id, &session.key);
    let length = Some(Length(bytes.len() as u64));
    client
        .rig
        .engine
        .displace(id, key, length)
        .await
        .expect("fixed");
    let part = client.url(&session, 3).await;
    assert_eq!(part.range.len(), 3);
    put(&part, of(&part, &bytes)).await;
    client.told(&session, 3, None).await.expect("it is there");
    client.rig.expect_whole(&session, &bytes).await;

    let session = client.rig.create(None).await;
    let part = client.url(&session, 1).await;
    put(&part, of(&part, &bytes)).await;
    client
        .rig
        .expect_whole(&session, &bytes[..CELL as usize])
        .await;
}

#[tokio::test]
async fn a_lost_multipart_upload_takes_new_urls() {
    let client = Client::ours().await;
    let bytes = noise(CELL, 26);
    let session = client.rig.create(Some(CELL)).await;
    let lost = client.url(&session, 1).await;
    client.rig.s3_server().backend().lose_uploads();
    assert_eq!(send_signed(&lost.request, &bytes).await.status, 404);
    let told = client.told(&session, 1, None).await;
    assert!(matches!(told, Err(EngineError::NotPut { .. })), "{told:?}");
    let part = client.url(&session, 1).await;
    put(&part, &bytes).await;
    client.rig.expect_whole(&session, &bytes).await;
}
