//! Past the server: URLs for parts, what comes of them, and what must not.
//!
//! Most of it on the S3 server inside the tests and on a real one, where there is one.

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
struct Past {
    rig: Rig,
    faults: Faults,
}

impl Past {
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
async fn everywhere() -> Vec<Past> {
    let mut all = Vec::new();
    for checksum in [
        ChecksumMode::Auto,
        ChecksumMode::Crc32c,
        ChecksumMode::Md5,
        ChecksumMode::None,
    ] {
        all.push(Past::with(checksum, |_| {}).await);
        if let Some(config) = real_config() {
            let config = S3Config { checksum, ..config };
            all.push(Past::over(config, Ground::fs(), |_| {}).await);
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

async fn tidy(past: &Past, object: &Object) {
    past.rig.store.delete(&object.key).await.expect("deleted");
}

#[tokio::test]
async fn exact_bytes_of_parts_that_are_all_put_directly() {
    for past in everywhere().await {
        let bytes = noise(2 * CELL + 345, 1);
        let session = past.rig.create(Some(bytes.len() as u64)).await;
        let signed = past.urls(&session, &[3, 1, 2]).await;
        let numbers: Vec<_> = signed.iter().map(|part| part.number.0).collect();
        assert_eq!(numbers, [3, 1, 2], "in the order asked");
        assert_eq!(
            signed[0].range,
            ByteRange::new(2 * CELL, 2 * CELL + 345).unwrap()
        );
        let mut there = 0;
        for part in &signed {
            let before = past.rig.status(&session).await.upload.expires_at;
            let etag = put(part, of(part, &bytes)).await;
            past.rig.clock.advance(Duration::from_secs(1));
            assert_eq!(past.rig.status(&session).await.received.total(), there);
            for _ in 0..2 {
                let told = past.told(&session, part.number.0, Some(&etag)).await;
                assert_eq!(
                    told.expect("it is there").length,
                    Some(Length(2 * CELL + 345))
                );
            }
            there += part.range.len();
            let status = past.rig.status(&session).await;
            assert_eq!(status.received.total(), there);
            assert!(status.upload.expires_at > before, "it slides");
        }
        let object = past.rig.expect_whole(&session, &bytes).await;
        assert_eq!(object.verified, Verified::Readback);
        assert!(object.store_checked);
        let again = past.told(&session, 2, None).await.expect("completed");
        assert!(again.is_full());
        tidy(&past, &object).await;
    }
}

#[tokio::test]
async fn exact_bytes_of_parts_of_both_ways_in_any_order() {
    for past in everywhere().await {
        let bytes = noise(5 * CELL + 99, 2);
        let session = past.rig.create(Some(bytes.len() as u64)).await;
        let proxied = async |number: u64| {
            let start = (number - 1) * CELL;
            let end = (start + CELL).min(bytes.len() as u64);
            let body = &bytes[start as usize..end as usize];
            past.rig.put(&session, start, body).await.expect("taken");
        };
        let last = past.url(&session, 6).await;
        proxied(3).await;
        put(&last, of(&last, &bytes)).await;
        let others = past.urls(&session, &[1, 2, 4, 5]).await;
        for part in [&others[3], &others[0], &others[2]] {
            let etag = put(part, of(part, &bytes)).await;
            let told = past.told(&session, part.number.0, Some(&etag)).await;
            told.expect("it is there");
        }
        // What has a URL goes through the server all the same, if its client prefers that.
        proxied(2).await;
        let object = past.rig.expect_whole(&session, &bytes).await;
        assert_eq!(object.verified, Verified::Readback);
        tidy(&past, &object).await;
    }
}

#[tokio::test]
async fn what_came_through_the_server_first_decides_whether_others_may_join() {
    for (checksum, joins) in [(ChecksumMode::Auto, true), (ChecksumMode::Crc32c, false)] {
        let past = Past::with(checksum, |_| {}).await;
        let bytes = noise(2 * CELL, 3);
        let session = past.rig.create(Some(2 * CELL)).await;
        let first = &bytes[..CELL as usize];
        past.rig.put(&session, 0, first).await.expect("taken");
        let past = past.restart();
        let signed = past.ask(&session, &[2], BTreeMap::new()).await;
        if joins {
            let part = &signed.expect("signed")[0];
            put(part, of(part, &bytes)).await;
        } else {
            assert_eq!(unavailable(signed), []);
            let rest = &bytes[CELL as usize..];
            past.rig.put(&session, CELL, rest).await.expect("taken");
        }
        past.rig.expect_whole(&session, &bytes).await;
    }
}

#[tokio::test]
async fn a_folder_takes_nothing_directly() {
    let rig = Rig::fs().await;
    let faults = Faults::default();
    let past = Past { rig, faults };
    let session = past.rig.create(Some(10)).await;
    let stranger = Session {
        id: UploadId::generate(),
        ..session.clone()
    };
    let sealed = past.ask(&stranger, &[1], BTreeMap::new()).await;
    assert!(matches!(sealed, Err(EngineError::NotFound)), "{sealed:?}");
    let signed = past.ask(&session, &[1], BTreeMap::new()).await;
    assert_eq!(unavailable(signed), []);
    assert_eq!(unavailable(past.told(&session, 1, None).await), []);
    let session = past.rig.create(Some(4)).await;
    past.rig.put(&session, 0, b"1234").await.expect("taken");
    past.rig.expect_whole(&session, b"1234").await;
}

#[tokio::test]
async fn only_parts_of_the_upload_have_urls() {
    let past = Past::ours().await;
    let session = past.rig.create(Some(2 * CELL)).await;
    let unknown = past.rig.create(None).await;
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
        let outcome = past.ask(session, numbers, BTreeMap::new()).await;
        assert!(
            matches!(outcome, Err(EngineError::BadParts { .. })),
            "{outcome:?}"
        );
    }
    let digest = digest_of(DigestAlgorithm::Md5, b"1");
    let stray = past.ask(&session, &[1], [(one(2), digest)].into()).await;
    assert!(
        matches!(stray, Err(EngineError::BadParts { .. })),
        "{stray:?}"
    );
    for (session, number) in [(&session, 3), (&session, 0), (&unknown, most + 1)] {
        let outcome = past.told(session, number, None).await;
        assert!(
            matches!(outcome, Err(EngineError::BadParts { .. })),
            "{outcome:?}"
        );
    }
    assert_eq!(past.urls(&unknown, &[most]).await[0].range.len(), CELL);
    let server = past.rig.s3_server().backend();
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
    let session = past.rig.create_declaring(Some(CELL), sequential).await;
    unavailable(past.ask(&session, &[1], BTreeMap::new()).await);
}

#[tokio::test]
async fn one_writer_no_url_for_what_is_there_or_on_its_way() {
    let past = Past::ours().await;
    let bytes = noise(4 * CELL, 4);
    let session = past.rig.create(Some(4 * CELL)).await;
    past.rig
        .put(&session, CELL - 1, &bytes[CELL as usize - 1..][..1])
        .await
        .expect("taken");
    let (feed, running) = writer(&past.rig.engine, &session, CELL + 7, 10).await;
    let refused = past.ask(&session, &[1, 2, 3], BTreeMap::new()).await;
    assert_eq!(unavailable(refused), [one(1), one(2)]);
    let snapshot = past.rig.catalog.load(session.id).await.unwrap().unwrap();
    assert!(snapshot.direct.is_empty(), "all or none");
    send(&feed, &bytes[CELL as usize + 7..][..10], 10);
    drop(feed);
    running.await.unwrap().expect("taken");
    let refused = past.ask(&session, &[2], BTreeMap::new()).await;
    assert_eq!(unavailable(refused), [one(2)]);
    // A cell that a displaced writer's call is still at work on.
    past.faults.fail(Call::PutPart, When::Next(1), Fault::Hang);
    let (feed, running) = writer(&past.rig.engine, &session, 3 * CELL, CELL).await;
    past.ask(&session, &[3], BTreeMap::new())
        .await
        .expect("signed");
    send(&feed, &bytes[3 * CELL as usize..], 64 * 1024);
    drop((feed, running));
    let refused = past.ask(&session, &[4], BTreeMap::new()).await;
    assert_eq!(unavailable(refused), [one(4)]);
    past.faults.heal();
}

#[tokio::test]
async fn never_back_a_late_put_does_not_replace_what_was_acknowledged() {
    for (index, past) in everywhere().await.into_iter().enumerate() {
        let bytes = noise(2 * CELL + 10, 5);
        let session = past.rig.create(Some(bytes.len() as u64)).await;
        let signed = past.urls(&session, &[1, 3]).await;
        past.rig.put(&session, 0, &bytes).await.expect("taken");
        until("the part without a URL is in the store", async || {
            receipts(&past.rig, &session).await == 1
        })
        .await;
        let past = if index < 2 { past.restart() } else { past };
        for part in &signed {
            put(part, &noise(part.range.len(), 6)).await;
            // Nor is it taken for it.
            let told = past.told(&session, part.number.0, None).await;
            told.expect("it is there");
        }
        assert_eq!(files_of(&past.rig, &session).len(), 2, "they wait");
        let object = past.rig.expect_whole(&session, &bytes).await;
        assert_eq!(object.verified, Verified::Stream);
        assert_eq!(files_of(&past.rig, &session), Vec::<String>::new());
        tidy(&past, &object).await;
    }
}

#[tokio::test]
async fn never_back_a_put_between_putting_and_finishing_shows() {
    let past = Past::ours().await;
    let bytes = noise(CELL + 10, 7);
    let session = past.rig.create(Some(bytes.len() as u64)).await;
    let signed = past.urls(&session, &[1, 2]).await;
    past.rig.put(&session, 0, &bytes).await.expect("taken");
    let past = past.restart();
    past.faults.fail(Call::Finish, When::Next(1), Fault::Hang);
    let (engine, asked) = (past.rig.engine.clone(), session.clone());
    let completing = tokio::spawn(async move {
        let complete = Complete {
            id: asked.id,
            key: asked.key,
            digests: Digests::default(),
            length: None,
        };
        engine.complete(complete).await
    });
    until("it is about to be finished", async || {
        past.faults.count(Call::Finish) == 1
    })
    .await;
    for part in &signed {
        put(part, &noise(part.range.len(), 8)).await;
    }
    past.faults.heal();
    let done = completing.await.unwrap();
    assert!(matches!(done, Ok(Completion::Done { .. })), "{done:?}");
    assert_eq!(past.faults.count(Call::Finish), 2);
    past.rig.expect_whole(&session, &bytes).await;
}

#[tokio::test]
async fn what_waited_for_a_url_leaves_when_that_is_dead() {
    let past = Past::with(ChecksumMode::Auto, |settings| {
        settings.url_ttl = Duration::from_mins(1);
    })
    .await;
    let bytes = noise(3 * CELL, 9);
    let session = past.rig.create(Some(3 * CELL)).await;
    past.urls(&session, &[1, 2]).await;
    past.rig
        .put(&session, 0, &bytes[..CELL as usize])
        .await
        .expect("taken");
    past.rig.clock.advance(Duration::from_mins(15));
    assert_eq!(receipts(&past.rig, &session).await, 0);
    past.rig.clock.advance(Duration::from_mins(1));
    past.rig
        .put(&session, CELL, &bytes[CELL as usize..])
        .await
        .expect("taken");
    until("all are in the store", async || {
        receipts(&past.rig, &session).await == 3
    })
    .await;
    let snapshot = past.rig.catalog.load(session.id).await.unwrap().unwrap();
    assert!(
        snapshot.direct.is_empty(),
        "what came does not pass for direct"
    );
    past.rig.expect_whole(&session, &bytes).await;
}

#[tokio::test]
async fn a_small_upload_with_a_url_goes_as_a_part() {
    let past = Past::ours().await;
    for direct in [true, false] {
        let bytes = noise(1000, 10);
        let session = past.rig.create(Some(1000)).await;
        let part = past.url(&session, 1).await;
        if direct {
            put(&part, &bytes).await;
        } else {
            past.rig.put(&session, 0, &bytes).await.expect("taken");
            put(&part, &noise(1000, 11)).await;
        }
        past.rig.expect_whole(&session, &bytes).await;
        assert_eq!(past.rig.s3_server().backend().open_uploads(), []);
    }
    assert_eq!(past.faults.count(Call::Put), 0);
}

#[tokio::test]
async fn exact_bytes_notices_that_lie_are_refused() {
    for past in everywhere().await {
        let bytes = noise(4 * CELL, 12);
        let session = past.rig.create(Some(4 * CELL)).await;
        let no_url = past.told(&session, 1, None).await;
        assert_eq!(unavailable(no_url), [one(1)]);
        let signed = past.urls(&session, &[1, 2]).await;
        let etag = put(&signed[0], of(&signed[0], &bytes)).await;
        for told in [None, Some(etag.as_str())] {
            let never_put = past.told(&session, 2, told).await;
            assert!(
                matches!(never_put, Err(EngineError::NotPut { .. })),
                "{never_put:?}"
            );
        }
        assert_eq!(unavailable(past.told(&session, 3, None).await), [one(3)]);
        let wrong = past
            .told(&session, 1, Some("\"00000000000000000000000000000000\""))
            .await;
        assert!(
            matches!(wrong, Err(EngineError::RangeMismatch { .. })),
            "{wrong:?}"
        );

        // Parts that were put in another way: one of another size, and one that no URL was for.
        let snapshot = past.rig.catalog.load(session.id).await.unwrap().unwrap();
        let (key, upload) = (
            &snapshot.upload.store_key,
            snapshot.upload.store_upload_id.unwrap(),
        );
        let direct = past.rig.store.direct().unwrap();
        for (number, size) in [(2, CELL - 1), (3, CELL)] {
            let place = PartPlace {
                key,
                upload: &upload,
                number: one(number),
            };
            let (now, hour) = (past.rig.clock.now(), Duration::from_hours(1));
            let signed = direct
                .sign_part(place, Some(Length(size)), None, now, hour)
                .await;
            send_signed(&signed.unwrap(), &noise(size, 1))
                .await
                .expect(200);
        }
        let wrong = past.told(&session, 2, None).await;
        assert!(
            matches!(wrong, Err(EngineError::RangeMismatch { .. })),
            "{wrong:?}"
        );
        assert_eq!(unavailable(past.told(&session, 3, None).await), [one(3)]);
        assert_eq!(past.received(&session).await, []);
        let early = past.rig.complete(&session).await;
        let Err(EngineError::Incomplete { missing, .. }) = early else {
            panic!("{early:?}");
        };
        assert_eq!(missing, [ByteRange::new(CELL, 4 * CELL).unwrap()]);
        past.rig
            .engine
            .abort(session.id, &session.key)
            .await
            .expect("aborted");
    }
}

#[tokio::test]
async fn a_part_of_which_bytes_came_through_the_server_is_not_believed() {
    let past = Past::ours().await;
    let bytes = noise(CELL, 13);
    let session = past.rig.create(Some(CELL)).await;
    let part = past.url(&session, 1).await;
    let (feed, running) = writer(&past.rig.engine, &session, 0, 10).await;
    put(&part, &noise(CELL, 14)).await;
    assert_eq!(unavailable(past.told(&session, 1, None).await), [one(1)]);
    send(&feed, &bytes[..10], 10);
    drop(feed);
    running.await.unwrap().expect("taken");
    assert_eq!(unavailable(past.told(&session, 1, None).await), [one(1)]);
    let early = past.rig.complete(&session).await;
    assert!(
        matches!(early, Err(EngineError::Incomplete { .. })),
        "{early:?}"
    );
    assert_eq!(past.received(&session).await, [(0, 10)]);
    past.rig
        .put(&session, 10, &bytes[10..])
        .await
        .expect("taken");
    past.rig.expect_whole(&session, &bytes).await;
}

#[tokio::test]
async fn lost_notices_cost_nothing() {
    for past in everywhere().await {
        let bytes = noise(3 * CELL + 1, 15);
        let session = past.rig.create(Some(bytes.len() as u64)).await;
        for part in past.urls(&session, &[1, 2, 3]).await {
            put(&part, of(&part, &bytes)).await;
        }
        past.told(&session, 2, None).await.expect("it is there");
        let past = past.restart();
        let early = past.rig.complete(&session).await;
        let Err(EngineError::Incomplete { missing, .. }) = early else {
            panic!("{early:?}");
        };
        assert_eq!(missing, [ByteRange::new(3 * CELL, 3 * CELL + 1).unwrap()]);
        assert_eq!(past.received(&session).await, [(0, 3 * CELL)]);
        let part = past.url(&session, 4).await;
        put(&part, of(&part, &bytes)).await;
        let object = past.rig.expect_whole(&session, &bytes).await;
        tidy(&past, &object).await;
    }
}

#[tokio::test]
async fn an_upload_of_unknown_length_has_whole_cells_past_the_server() {
    let past = Past::ours().await;
    let bytes = noise(2 * CELL + 3, 16);
    let session = past.rig.create(None).await;
    for part in past.urls(&session, &[1, 2]).await {
        put(&part, of(&part, &bytes)).await;
    }
    // Of the third only some bytes are to come, so it has to be said how many.
    past.urls(&session, &[3]).await;
    let (id, key) = (session.id, &session.key);
    let length = Some(Length(bytes.len() as u64));
    past.rig
        .engine
        .displace(id, key, length)
        .await
        .expect("fixed");
    let part = past.url(&session, 3).await;
    assert_eq!(part.range.len(), 3);
    put(&part, of(&part, &bytes)).await;
    past.told(&session, 3, None).await.expect("it is there");
    past.rig.expect_whole(&session, &bytes).await;

    let session = past.rig.create(None).await;
    let part = past.url(&session, 1).await;
    put(&part, of(&part, &bytes)).await;
    past.rig
        .expect_whole(&session, &bytes[..CELL as usize])
        .await;
}

#[tokio::test]
async fn what_is_put_again_by_a_url_counts_as_it_is_now() {
    let past = Past::ours().await;
    let bytes = noise(2 * CELL, 17);
    let session = past.rig.create(Some(2 * CELL)).await;
    let signed = past.urls(&session, &[1, 2]).await;
    for part in &signed {
        put(part, &noise(CELL, 18)).await;
        past.told(&session, part.number.0, None)
            .await
            .expect("it is there");
        put(part, of(part, &bytes)).await;
    }
    past.rig.expect_whole(&session, &bytes).await;
}

#[tokio::test]
async fn exact_bytes_another_digest_than_declared_fails_it() {
    for verify in [Verify::Readback, Verify::StoreChecksum] {
        for algorithm in [DigestAlgorithm::Sha256, DigestAlgorithm::Crc64Nvme] {
            let past = Past::with(ChecksumMode::Auto, |settings| settings.verify = verify).await;
            let declared = Declared {
                digests: Digests::from_iter([digest_of(algorithm, b"something else")]),
                ..Declared::default()
            };
            let session = past.rig.create_declaring(Some(CELL), declared).await;
            let part = past.url(&session, 1).await;
            put(&part, &noise(CELL, 19)).await;
            let outcome = past.rig.complete(&session).await;
            assert!(
                matches!(outcome, Err(EngineError::DigestMismatch { .. })),
                "{outcome:?}"
            );
            let again = past.rig.complete(&session).await;
            let reason = FailureReason::DigestMismatch;
            assert!(
                matches!(again, Err(EngineError::Failed { reason: why }) if why == reason),
                "{again:?}"
            );
            assert_eq!(past.rig.s3_server().backend().keys(), Vec::<String>::new());
            assert!(is_gone(&past.rig, &session));
        }
    }
}

#[tokio::test]
async fn the_stores_own_checksum_is_taken_where_nothing_else_is_asked_for() {
    let crc = DigestAlgorithm::Crc64Nvme;
    let bytes = noise(2 * CELL + 5, 20);
    let trust = |settings: &mut Settings| settings.verify = Verify::StoreChecksum;
    for declared in [None, Some(crc), Some(DigestAlgorithm::Sha256)] {
        let past = Past::with(ChecksumMode::Auto, trust).await;
        let digests = declared.map(|algorithm| digest_of(algorithm, &bytes));
        let declared_digests = Declared {
            digests: digests.into_iter().collect(),
            ..Declared::default()
        };
        let length = Some(bytes.len() as u64);
        let session = past.rig.create_declaring(length, declared_digests).await;
        let signed = past.urls(&session, &[1, 3]).await;
        for part in &signed {
            put(part, of(part, &bytes)).await;
        }
        let second = &bytes[CELL as usize..2 * CELL as usize];
        past.rig.put(&session, CELL, second).await.expect("taken");
        past.rig.s3_server().control().forget_calls();
        let object = past.rig.complete(&session).await.expect("completed");
        let read = past.rig.s3_server().control().count(Op::GetObject);
        if declared == Some(DigestAlgorithm::Sha256) {
            assert_eq!((object.verified, read), (Verified::Readback, 1));
        } else {
            assert_eq!((object.verified, read), (Verified::StoreChecksum, 0));
            assert_eq!(object.digests, Digests::from_iter([digest_of(crc, &bytes)]));
        }
        assert!(past.rig.stored(&object).await == bytes);
    }
    // Where the store has none, or the server knows better, nothing is different.
    let past = Past::with(ChecksumMode::None, trust).await;
    let session = past.rig.create(Some(CELL)).await;
    past.rig
        .put(&session, 0, &bytes[..CELL as usize])
        .await
        .expect("taken");
    let object = past.rig.complete(&session).await.expect("completed");
    assert_eq!(object.verified, Verified::Stream);
}

#[tokio::test]
async fn own_only_what_comes_after_an_abort_is_refused_or_swept() {
    for past in everywhere().await {
        let Shape::Parts(parts) = past.rig.store.shape() else {
            panic!("it has parts");
        };
        let session = past.rig.create(Some(CELL + 9)).await;
        let signed = past.urls(&session, &[1, 2]).await;
        put(&signed[0], &noise(CELL, 21)).await;
        let snapshot = past.rig.catalog.load(session.id).await.unwrap().unwrap();
        let key = snapshot.upload.store_key;
        let about = About {
            upload: UploadId::generate(),
            content_type: None,
        };
        let other = format!("of-another/{}", UploadId::generate())
            .parse()
            .unwrap();
        let foreign = parts.begin(&other, &about, MadeOf::Parts).await.unwrap();
        past.rig
            .engine
            .abort(session.id, &session.key)
            .await
            .expect("aborted");
        let late = send_signed(&signed[1].request, &noise(9, 21)).await;
        assert_eq!(late.status, 404, "{}", late.text());
        for number in [1, 2] {
            let told = past.told(&session, number, None).await;
            assert!(matches!(told, Err(EngineError::Gone)), "{told:?}");
        }
        let asked = past.ask(&session, &[1], BTreeMap::new()).await;
        assert!(matches!(asked, Err(EngineError::Gone)), "{asked:?}");
        past.rig.clock.advance(Duration::from_mins(11));
        past.rig.engine.prune(false).await.expect("pruned");
        assert_eq!(parts.multipart_of(&key).await.unwrap(), []);
        assert_eq!(past.rig.store.head(&key).await.unwrap(), None);
        let left = parts.multipart_of(&other).await.unwrap();
        assert_eq!(left.len(), 1, "what is another's stays");
        parts.abort(&other, &foreign).await.unwrap();
    }
}

#[tokio::test]
async fn exact_bytes_a_put_after_completion_changes_nothing() {
    for past in everywhere().await {
        let bytes = noise(CELL + 1, 22);
        let session = past.rig.create(Some(CELL + 1)).await;
        let signed = past.urls(&session, &[1, 2]).await;
        put(&signed[0], of(&signed[0], &bytes)).await;
        past.rig
            .put(&session, CELL, &bytes[CELL as usize..])
            .await
            .expect("taken");
        past.rig.complete(&session).await.expect("completed");
        let late = send_signed(&signed[1].request, b"1").await;
        assert_eq!(late.status, 404, "{}", late.text());
        let asked = past.ask(&session, &[1], BTreeMap::new()).await;
        assert!(matches!(asked, Err(EngineError::Completed)), "{asked:?}");
        let object = past.rig.expect_whole(&session, &bytes).await;
        tidy(&past, &object).await;
    }
}

#[tokio::test]
async fn told_once_after_a_crash_between_putting_together_and_telling() {
    for all_held in [false, true] {
        let past = Past::ours().await;
        let bytes = noise(2 * CELL, 24);
        let session = past.rig.create(Some(2 * CELL)).await;
        let signed = past.urls(&session, &[1, 2]).await;
        past.rig
            .put(&session, 0, &bytes[..CELL as usize])
            .await
            .expect("taken");
        let second = &bytes[CELL as usize..];
        if all_held {
            past.rig.put(&session, CELL, second).await.expect("taken");
        } else {
            put(&signed[1], second).await;
        }
        past.faults
            .fail(Call::Finish, When::Next(1), Fault::LostAnswer);
        let failed = past.rig.complete(&session).await;
        assert!(
            matches!(failed, Err(EngineError::Unavailable { .. })),
            "{failed:?}"
        );
        let past = past.restart();
        past.rig.engine.recover(true).await.expect("gone on with");
        until("it is completed by itself", async || {
            let state = past.rig.status(&session).await.upload.state;
            matches!(state, UploadState::Completed { .. })
        })
        .await;
        past.rig.expect_whole(&session, &bytes).await;
        assert_eq!(past.rig.s3_server().backend().open_uploads(), []);
    }
}

#[tokio::test]
async fn a_store_that_does_not_tell_is_no_store_without_parts() {
    let past = Past::ours().await;
    let bytes = noise(CELL, 25);
    let session = past.rig.create(Some(CELL)).await;
    let part = past.url(&session, 1).await;
    put(&part, &bytes).await;
    past.faults
        .fail(Call::PartsOf, When::Next(2), Fault::Unavailable);
    let told = past.told(&session, 1, None).await;
    assert!(
        matches!(told, Err(EngineError::Unavailable { .. })),
        "{told:?}"
    );
    let early = past.rig.complete(&session).await;
    assert!(
        matches!(early, Err(EngineError::Unavailable { .. })),
        "{early:?}"
    );
    past.restless_complete(&session).await.expect("completed");
    past.rig.expect_whole(&session, &bytes).await;
}

#[tokio::test]
async fn a_lost_multipart_upload_takes_new_urls() {
    let past = Past::ours().await;
    let bytes = noise(CELL, 26);
    let session = past.rig.create(Some(CELL)).await;
    let lost = past.url(&session, 1).await;
    past.rig.s3_server().backend().lose_uploads();
    assert_eq!(send_signed(&lost.request, &bytes).await.status, 404);
    let told = past.told(&session, 1, None).await;
    assert!(matches!(told, Err(EngineError::NotPut { .. })), "{told:?}");
    let part = past.url(&session, 1).await;
    put(&part, &bytes).await;
    past.rig.expect_whole(&session, &bytes).await;
}

#[tokio::test]
async fn exact_bytes_a_part_with_a_digest_is_that_or_none() {
    let past = Past::ours().await;
    let bytes = noise(CELL, 27);
    let session = past.rig.create(Some(CELL)).await;
    for algorithm in [DigestAlgorithm::Crc64Nvme, DigestAlgorithm::Md5] {
        let digest = digest_of(algorithm, &bytes);
        let signed = past.ask(&session, &[1], [(one(1), digest)].into()).await;
        let part = signed.expect("signed").remove(0);
        let wrong = send_signed(&part.request, &noise(CELL, 28)).await;
        assert_eq!(wrong.status, 400, "{}", wrong.text());
        let told = past.told(&session, 1, None).await;
        assert!(matches!(told, Err(EngineError::NotPut { .. })), "{told:?}");
    }
    for algorithm in [DigestAlgorithm::Sha512, DigestAlgorithm::Sha256] {
        let digest = digest_of(algorithm, &bytes);
        let refused = past.ask(&session, &[1], [(one(1), digest)].into()).await;
        assert!(
            matches!(refused, Err(EngineError::BadParts { .. })),
            "{refused:?}"
        );
    }
    let digest = digest_of(DigestAlgorithm::Crc64Nvme, &bytes);
    let signed = past.ask(&session, &[1], [(one(1), digest)].into()).await;
    put(&signed.expect("signed")[0], &bytes).await;
    past.rig.expect_whole(&session, &bytes).await;
}

#[tokio::test]
async fn exact_bytes_that_came_directly_reach_the_address_of_their_content() {
    for verify in [Verify::Readback, Verify::StoreChecksum] {
        let past = Past::with(ChecksumMode::Auto, |settings| {
            settings.key_template = "{sha256}".parse().unwrap();
            settings.verify = verify;
        })
        .await;
        let bytes = noise(CELL + 1, 29);
        let address = digest_of(DigestAlgorithm::Sha256, &bytes).to_hex();
        for way in 0..3 {
            let session = past.rig.create(Some(CELL + 1)).await;
            let signed = past.urls(&session, &[1, 2]).await;
            if way < 2 {
                for part in &signed {
                    put(part, of(part, &bytes)).await;
                }
            } else {
                past.rig.put(&session, 0, &bytes).await.expect("taken");
            }
            let object = past.rig.expect_whole(&session, &bytes).await;
            assert_eq!(object.key.as_str(), address);
            assert!(
                is_gone(&past.rig, &session),
                "nothing is left where it was staged"
            );
        }
        assert_eq!(past.rig.s3_server().backend().keys(), [address]);
    }
}
