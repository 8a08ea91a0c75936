//! Uploads whose client cuts its file as it likes, and says how only in the end.
//!
//! Most of it on the S3 server inside the tests and on a real one, where there is one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jumar::clock::Clock;
use jumar::engine::{
    CompleteWith, Completion, Create, EngineError, FoundPart, NewRole, PartUrls, Settings,
    SignedRequest, ToldPart,
};
use jumar::model::plan::MAX_PARTS;
use jumar::model::upload::{Declared, Protocol, Verified};
use jumar::model::{Length, Object, PartNumber, UploadState};
use jumar::store::Shape;
use jumar::store::call::Call;
use jumar::store::faulty::{Fault, Faults, When};
use jumar::store::hooked::Hooked;
use jumar::store::s3::{ChecksumMode, S3Config, S3Store};

use super::kit::{events, until};
use crate::support::direct::send_signed;
use crate::support::rig::{Ground, MIB, Rig, Session, body_of, noise, write};
use crate::support::s3::{Quirks, real_config};

const LEAST: u64 = 5 * MIB;

/// An engine over an S3 server that checks what is signed, so its clock shows today.
struct Bench {
    rig: Rig,
    faults: Faults,
}

impl Bench {
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

    async fn of(shape: impl Fn(&mut S3Config), change: impl Fn(&mut Settings)) -> Self {
        let ground = Ground::s3().await;
        let mut config = ground.s3.as_ref().unwrap().config();
        shape(&mut config);
        Self::over(config, ground, change).await
    }

    async fn plain() -> Self {
        Self::of(|_| {}, |_| {}).await
    }

    /// On every server that there is.
    async fn everywhere(change: impl Fn(&mut Settings) + Copy) -> Vec<Self> {
        let crc32c = |config: &mut S3Config| config.checksum = ChecksumMode::Crc32c;
        let mut all = vec![
            Self::of(|_| {}, change).await,
            Self::of(crc32c, change).await,
        ];
        if let Some(config) = real_config() {
            all.push(Self::over(config, Ground::fs(), change).await);
        }
        all
    }

    /// The next process over the same ground.
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

    async fn try_create(&self) -> Result<Session, EngineError> {
        let create = Create {
            protocol: Protocol::S3,
            declared: Declared::default(),
            length: None,
            idempotency: None,
            role: NewRole::Whole,
            seal: None,
        };
        let created = self.rig.engine.create(create).await?;
        Ok(Session {
            id: created.upload.id,
            key: created.key,
        })
    }

    async fn create(&self) -> Session {
        self.try_create().await.expect("created")
    }

    async fn sign(
        &self,
        session: &Session,
        numbers: &[u32],
    ) -> Result<Vec<(PartNumber, SignedRequest)>, EngineError> {
        let numbers = numbers.iter().copied().map(PartNumber).collect();
        let (id, key) = (session.id, &session.key);
        self.rig.engine.adopted_urls(id, key, numbers).await
    }

    async fn url(&self, session: &Session, number: u32) -> SignedRequest {
        let mut signed = self.sign(session, &[number]).await.expect("signed");
        let (named, request) = signed.remove(0);
        assert_eq!(named, PartNumber(number));
        request
    }

    /// Puts a part past the server; what its client tells of it.
    async fn put(&self, session: &Session, number: u32, bytes: &[u8]) -> ToldPart {
        let request = self.url(session, number).await;
        assert_eq!(request.headers, [], "a page can send it as it is");
        let answer = send_signed(&request, bytes).await;
        ToldPart {
            number: PartNumber(number),
            etag: answer.expect(200).header("ETag").unwrap().to_owned(),
        }
    }

    async fn list(&self, session: &Session) -> Result<Vec<FoundPart>, EngineError> {
        let (id, key) = (session.id, &session.key);
        self.rig.engine.adopted_parts(id, key).await
    }

    async fn finish(
        &self,
        session: &Session,
        parts: &[ToldPart],
    ) -> Result<(Object, bool), EngineError> {
        let complete = CompleteWith {
            id: session.id,
            key: session.key.clone(),
            parts: parts.to_vec(),
        };
        match self.rig.engine.complete_with(complete).await? {
            Completion::Done { object, repeated } => Ok((object, repeated)),
            Completion::Working { .. } => panic!("it took longer than the wait"),
        }
    }

    async fn expect(&self, session: &Session, parts: &[ToldPart], bytes: &[u8]) -> Object {
        let (object, _) = self.finish(session, parts).await.expect("completed");
        assert_eq!(object.size, Length(bytes.len() as u64));
        assert_eq!(object.verified, Verified::Readback);
        assert!(self.rig.stored(&object).await == bytes);
        let whole = self.rig.expect_whole(session, bytes).await;
        assert_eq!(whole, object);
        object
    }

    async fn state(&self, session: &Session) -> UploadState {
        let snapshot = self.rig.catalog.load(session.id).await.unwrap();
        snapshot.unwrap().upload.state
    }

    /// Nothing is left of an upload that has ended without an object.
    async fn assert_gone(&self, session: &Session) {
        let snapshot = self.rig.catalog.load(session.id).await.unwrap().unwrap();
        let key = snapshot.upload.store_key;
        let Shape::Parts(parts) = self.rig.store.shape() else {
            panic!("it has parts");
        };
        assert_eq!(parts.multipart_of(&key).await.unwrap(), []);
        assert_eq!(self.rig.store.head(&key).await.unwrap(), None);
    }
}

fn numbers(error: &EngineError) -> Vec<u32> {
    let (EngineError::PartsMissing { parts } | EngineError::PartsMismatch { parts, .. }) = error
    else {
        panic!("{error:?}");
    };
    parts.iter().map(|number| number.0).collect()
}

fn mismatched<T: std::fmt::Debug>(outcome: Result<T, EngineError>) -> (Vec<u32>, String) {
    let error = outcome.expect_err("refused");
    assert!(
        matches!(error, EngineError::PartsMismatch { .. }),
        "{error:?}"
    );
    (numbers(&error), error.to_string())
}

#[tokio::test]
async fn exact_bytes_of_parts_that_are_cut_by_their_client() {
    for bench in Bench::everywhere(|_| {}).await {
        let session = bench.create().await;
        assert_eq!(bench.list(&session).await.expect("a list"), []);
        let [one, two, last] = [LEAST + 3, LEAST, 7].map(|len| noise(len, len));
        // Not in order, with a hole, one put twice, one that is not named in the end.
        let told_last = bench.put(&session, 9, &last).await;
        let told_two = bench.put(&session, 2, &two).await;
        bench.put(&session, 1, &noise(LEAST, 1)).await;
        let told_one = bench.put(&session, 1, &one).await;
        bench.put(&session, 4, &noise(LEAST, 2)).await;
        assert_eq!(bench.rig.offset(&session).await, 0, "nothing is believed");
        let there = bench.list(&session).await.expect("a list");
        let there: Vec<_> = there
            .iter()
            .map(|part| (part.number.0, part.size))
            .collect();
        let sizes = [(1, LEAST + 3), (2, LEAST), (4, LEAST), (9, 7)];
        assert_eq!(there, sizes.map(|(number, size)| (number, Length(size))));
        let unquoted = ToldPart {
            etag: told_two.etag.trim_matches('"').to_owned(),
            ..told_two
        };
        let bytes = [one, two, last].concat();
        let told = [told_last, told_one, unquoted];
        let object = bench.expect(&session, &told, &bytes).await;
        let (again, repeated) = bench.finish(&session, &told).await.expect("again");
        assert_eq!((again, repeated), (object.clone(), true));
        assert_eq!(events(&bench.rig, "completed"), 1);
        for late in [
            bench.sign(&session, &[1]).await.map(|_| ()),
            bench.list(&session).await.map(|_| ()),
            bench.rig.engine.abort(session.id, &session.key).await,
        ] {
            assert!(matches!(late, Err(EngineError::Completed)), "{late:?}");
        }
        bench.rig.store.delete(&object.key).await.expect("deleted");
    }
}

#[tokio::test]
async fn exact_bytes_parts_that_are_not_as_told_are_refused() {
    for bench in Bench::everywhere(|_| {}).await {
        let session = bench.create().await;
        let none = bench.finish(&session, &[]).await;
        assert!(
            matches!(none, Err(EngineError::BadParts { .. })),
            "{none:?}"
        );
        let [one, two] = [LEAST, 9].map(|len| noise(len, len));
        let nowhere = ToldPart {
            number: PartNumber(3),
            etag: "d41d8cd98f00b204e9800998ecf8427e".to_owned(),
        };
        let unbegun = bench.finish(&session, std::slice::from_ref(&nowhere)).await;
        assert_eq!(numbers(&unbegun.expect_err("refused")), [3]);
        let first = bench.put(&session, 1, &one).await;
        let second = bench.put(&session, 2, &two).await;
        let missing = [first.clone(), nowhere.clone()];
        let missing = bench.finish(&session, &missing).await;
        let missing = missing.expect_err("refused");
        assert!(matches!(missing, EngineError::PartsMissing { .. }));
        assert_eq!(numbers(&missing), [3]);
        let other = ToldPart {
            etag: nowhere.etag.clone(),
            ..second.clone()
        };
        let (which, _) = mismatched(bench.finish(&session, &[first.clone(), other]).await);
        assert_eq!(which, [2]);
        let twice = [first.clone(), second.clone(), second.clone()];
        let twice = bench.finish(&session, &twice).await;
        assert!(matches!(twice, Err(EngineError::BadParts { .. })));
        assert_eq!(bench.state(&session).await, UploadState::Pending);
        let bytes = [one, two].concat();
        let object = bench.expect(&session, &[first, second], &bytes).await;
        bench.rig.store.delete(&object.key).await.expect("deleted");
    }
}

#[tokio::test]
async fn sizes_that_the_store_does_not_put_together_are_refused_before() {
    let bench = Bench::plain().await;
    let session = bench.create().await;
    let [small, two] = [LEAST - 1, LEAST].map(|len| noise(len, len));
    let first = bench.put(&session, 1, &small).await;
    let second = bench.put(&session, 2, &two).await;
    let (which, why) = mismatched(bench.finish(&session, &[first, second.clone()]).await);
    assert_eq!(which, [1]);
    insta::assert_snapshot!(why, @"every part but the last has to have at least 5242880 bytes");
    let empty = bench.put(&session, 3, b"").await;
    let (which, why) = mismatched(bench.finish(&session, &[second, empty]).await);
    assert_eq!(which, [3]);
    insta::assert_snapshot!(why, @"this part has no bytes");
    assert_eq!(bench.state(&session).await, UploadState::Pending);

    let equal = |config: &mut S3Config| config.equal_parts = true;
    let bench = Bench::of(equal, |settings| settings.equal_parts = true).await;
    let quirks = Quirks {
        equal_parts: true,
        ..Quirks::default()
    };
    bench.rig.s3_server().control().set_quirks(quirks);
    let session = bench.create().await;
    let cuts = [LEAST, LEAST + 1, LEAST + 2].map(|len| noise(len, len));
    let mut told = Vec::new();
    for (number, bytes) in (1..).zip(&cuts) {
        told.push(bench.put(&session, number, bytes).await);
    }
    let (which, why) = mismatched(bench.finish(&session, &told).await);
    assert_eq!(which, [2, 3]);
    insta::assert_snapshot!(why, @"this store puts only parts of one size together, but for a smaller last one: part 1 has 5242880 bytes");
    told[1] = bench.put(&session, 2, &cuts[0]).await;
    told[2] = bench.put(&session, 3, &cuts[0][..9]).await;
    let bytes = [&cuts[0][..], &cuts[0], &cuts[0][..9]].concat();
    bench.expect(&session, &told, &bytes).await;
}

#[tokio::test]
async fn one_part_may_be_small_or_empty() {
    for bench in Bench::everywhere(|_| {}).await {
        for bytes in [&b"small"[..], b""] {
            if bytes.is_empty() && bench.rig.ground.s3.is_none() {
                // Not every store takes an empty part.
                continue;
            }
            let session = bench.create().await;
            let told = bench.put(&session, 1, bytes).await;
            let object = bench.expect(&session, &[told], bytes).await;
            let Shape::Parts(parts) = bench.rig.store.shape() else {
                panic!("it has parts");
            };
            assert_eq!(parts.multipart_of(&object.key).await.unwrap(), []);
            bench.rig.store.delete(&object.key).await.expect("deleted");
        }
    }
}

#[tokio::test]
async fn bounded_what_is_too_large_is_aborted() {
    for bench in Bench::everywhere(|settings| settings.max_size_bytes = LEAST).await {
        let session = bench.create().await;
        let first = bench.put(&session, 1, &noise(LEAST, 1)).await;
        let second = bench.put(&session, 2, b"1").await;
        let told = [first, second];
        let large = bench.finish(&session, &told).await;
        assert!(
            matches!(large, Err(EngineError::TooLarge { max }) if max == Length(LEAST)),
            "{large:?}"
        );
        let again = bench.finish(&session, &told).await;
        assert!(matches!(again, Err(EngineError::Gone)), "{again:?}");
        bench.assert_gone(&session).await;
    }
}

#[tokio::test]
async fn told_once_after_a_crash_between_putting_together_and_telling() {
    let bench = Bench::plain().await;
    let bytes = noise(LEAST + 9, 1);
    let session = bench.create().await;
    let (one, two) = bytes.split_at(LEAST as usize);
    let told = [
        bench.put(&session, 1, one).await,
        bench.put(&session, 2, two).await,
    ];
    bench
        .faults
        .fail(Call::Finish, When::Next(1), Fault::LostAnswer);
    let failed = bench.finish(&session, &told).await;
    assert!(
        matches!(failed, Err(EngineError::Unavailable { .. })),
        "{failed:?}"
    );
    let there = bench.list(&session).await.expect("what is put together");
    assert_eq!(there.len(), 2);
    let late = bench.sign(&session, &[1]).await;
    assert!(matches!(late, Err(EngineError::Completed)), "{late:?}");
    let (others, _) = mismatched(bench.finish(&session, &told[..1]).await);
    assert_eq!(others, [2]);
    let bench = bench.restart();
    bench.rig.engine.recover(true).await.expect("gone on with");
    until("it is completed by itself", async || {
        matches!(bench.state(&session).await, UploadState::Completed { .. })
    })
    .await;
    bench.expect(&session, &told, &bytes).await;
    assert_eq!(events(&bench.rig, "completed"), 1);
    assert_eq!(bench.rig.s3_server().backend().open_uploads(), []);
}

#[tokio::test]
async fn never_back_a_crash_after_the_parts_were_remembered() {
    let bench = Bench::plain().await;
    let bytes = noise(LEAST + 9, 1);
    let session = bench.create().await;
    let (one, two) = bytes.split_at(LEAST as usize);
    let told = [
        bench.put(&session, 1, one).await,
        bench.put(&session, 2, two).await,
    ];
    bench
        .faults
        .fail(Call::Finish, When::Next(1), Fault::Unavailable);
    bench.finish(&session, &told).await.expect_err("away");
    let bench = bench.restart();
    // As a process leaves it that ends before it turns the upload to assembling.
    let path = bench.rig.ground.folder.path().join("jumar.db");
    let db = rusqlite::Connection::open(path).unwrap();
    let changed = db.execute(
        "UPDATE upload_sessions SET state = 'uploading', held_until = NULL",
        [],
    );
    assert_eq!(changed.unwrap(), 1);
    let late = bench.sign(&session, &[1]).await;
    assert!(matches!(late, Err(EngineError::Completed)), "{late:?}");
    bench.expect(&session, &told, &bytes).await;
    assert_eq!(events(&bench.rig, "completed"), 1);
}

#[tokio::test]
async fn told_once_completed_by_several_at_once() {
    let bench = Arc::new(Bench::plain().await);
    let bytes = noise(LEAST + 9, 1);
    let session = bench.create().await;
    let (one, two) = bytes.split_at(LEAST as usize);
    let told = [
        bench.put(&session, 1, one).await,
        bench.put(&session, 2, two).await,
    ];
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (bench, session, told) = (Arc::clone(&bench), session.clone(), told.clone());
            tokio::spawn(async move { bench.finish(&session, &told).await })
        })
        .collect();
    let mut objects = Vec::new();
    for task in tasks {
        let (object, _) = task.await.unwrap().expect("completed");
        objects.push(object);
    }
    objects.dedup();
    assert_eq!(objects.len(), 1);
    assert_eq!(events(&bench.rig, "completed"), 1);
}

#[tokio::test]
async fn the_same_bytes_are_one_object_where_content_is_the_address() {
    let by_content = |settings: &mut Settings| {
        settings.key_template = "{sha256}".parse().unwrap();
    };
    for bench in Bench::everywhere(by_content).await {
        let bytes = noise(LEAST + 9, 1);
        let (one, two) = bytes.split_at(LEAST as usize);
        let mut objects = Vec::new();
        for _ in 0..2 {
            let session = bench.create().await;
            let told = [
                bench.put(&session, 1, one).await,
                bench.put(&session, 2, two).await,
            ];
            objects.push(bench.expect(&session, &told, &bytes).await);
            bench.assert_gone_but(&session, &objects[0]).await;
        }
        assert_eq!(objects[0], objects[1]);
        let key = &objects[0].key;
        bench.rig.store.delete(key).await.expect("deleted");
    }
}

impl Bench {
    /// Nothing is left among what is staged.
    async fn assert_gone_but(&self, session: &Session, object: &Object) {
        let snapshot = self.rig.catalog.load(session.id).await.unwrap().unwrap();
        assert_ne!(snapshot.upload.store_key, object.key);
        self.assert_gone(session).await;
    }
}

#[tokio::test]
async fn own_only_what_was_put_goes_with_an_abort_and_when_it_expires() {
    for bench in Bench::everywhere(|_| {}).await {
        let session = bench.create().await;
        let told = bench.put(&session, 1, &noise(LEAST, 1)).await;
        let late = bench.url(&session, 2).await;
        let (id, key) = (session.id, &session.key);
        bench.rig.engine.abort(id, key).await.expect("aborted");
        assert_eq!(send_signed(&late, b"1").await.status, 404);
        for ended in [
            bench.finish(&session, &[told]).await.map(|_| ()),
            bench.sign(&session, &[1]).await.map(|_| ()),
            bench.list(&session).await.map(|_| ()),
        ] {
            assert!(matches!(ended, Err(EngineError::Gone)), "{ended:?}");
        }
        bench.assert_gone(&session).await;

        let session = bench.create().await;
        bench.put(&session, 1, b"1").await;
        bench.rig.clock.advance(Duration::from_hours(3));
        for _ in 0..2 {
            bench.rig.engine.prune(false).await.expect("pruned");
        }
        bench.assert_gone(&session).await;
    }
}

#[tokio::test]
async fn it_expires_by_when_a_url_was_asked_for_last() {
    let bench = Bench::plain().await;
    let session = bench.create().await;
    for number in 1..4 {
        bench.rig.clock.advance(Duration::from_mins(25));
        bench.url(&session, number).await;
    }
    assert_eq!(bench.state(&session).await, UploadState::Pending);
    let bench = bench.restart();
    bench.rig.clock.advance(Duration::from_mins(30));
    bench.sign(&session, &[4]).await.expect("not expired");
    bench.rig.clock.advance(Duration::from_mins(30));
    let late = bench.sign(&session, &[5]).await;
    assert!(matches!(late, Err(EngineError::Gone)), "{late:?}");
}

#[tokio::test]
async fn only_numbers_that_a_store_has_are_signed() {
    let bench = Bench::plain().await;
    let session = bench.create().await;
    let most: Vec<u32> = (1..=1_001).collect();
    for wrong in [&[][..], &[0], &[MAX_PARTS + 1], &most] {
        let refused = bench.sign(&session, wrong).await;
        assert!(
            matches!(refused, Err(EngineError::BadParts { .. })),
            "{refused:?}"
        );
    }
    let signed = bench.sign(&session, &[MAX_PARTS, 1]).await;
    assert_eq!(signed.expect("signed").len(), 2);
}

#[tokio::test]
async fn one_writer_nothing_gets_in_by_another_way() {
    let bench = Bench::plain().await;
    let session = bench.create().await;
    let told = bench.put(&session, 1, b"123").await;
    let (id, key) = (session.id, &session.key);
    let engine = &bench.rig.engine;
    let written = async {
        let admitted = engine.admit(write(&session, 0, 1)).await?;
        admitted.run(body_of(b"1")).await
    };
    let written = written.await;
    assert!(
        matches!(written, Err(EngineError::Unwritable)),
        "{written:?}"
    );
    let fixed = engine.displace(id, key, Some(Length(0))).await;
    assert!(matches!(fixed, Err(EngineError::Unwritable)), "{fixed:?}");
    let early = bench.rig.complete(&session).await;
    assert!(
        matches!(early, Err(EngineError::Incomplete { .. })),
        "{early:?}"
    );
    let ask = PartUrls {
        id,
        key: key.clone(),
        numbers: vec![PartNumber(1)],
        digests: BTreeMap::new(),
    };
    let asked = engine.part_urls(ask).await;
    assert!(
        matches!(asked, Err(EngineError::DirectUnavailable { .. })),
        "{asked:?}"
    );
    let arrived = engine.part_arrived(id, key, PartNumber(1), None).await;
    assert!(
        matches!(arrived, Err(EngineError::DirectUnavailable { .. })),
        "{arrived:?}"
    );
    bench.expect(&session, &[told], b"123").await;
    // And no upload of another kind is completed by parts.
    let native = bench.rig.create(Some(3)).await;
    for none in [
        bench.sign(&native, &[1]).await.map(|_| ()),
        bench.list(&native).await.map(|_| ()),
    ] {
        assert!(matches!(none, Err(EngineError::NotFound)), "{none:?}");
    }
}

#[tokio::test]
async fn a_multipart_upload_that_the_store_lost_is_begun_again() {
    let bench = Bench::plain().await;
    let session = bench.create().await;
    let lost = bench.put(&session, 1, b"123").await;
    bench.rig.s3_server().backend().lose_uploads();
    let missing = bench.finish(&session, std::slice::from_ref(&lost)).await;
    assert_eq!(numbers(&missing.expect_err("refused")), [1]);
    let told = bench.put(&session, 1, b"123").await;
    bench.expect(&session, &[told], b"123").await;
}

#[tokio::test]
async fn a_folder_adopts_nothing() {
    let rig = Rig::fs().await;
    let faults = Faults::default();
    let refused = Bench { rig, faults }.try_create().await;
    assert!(
        matches!(refused, Err(EngineError::DirectUnavailable { .. })),
        "{:?}",
        refused.err()
    );
}
