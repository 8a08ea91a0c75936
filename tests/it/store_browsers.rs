//! What `jumar check` finds out about going past the server, and what it sets: signed requests, and a bucket's CORS.

use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS};
use jumar::store::check::{Finding, Outcome};
use jumar::store::s3::{ChecksumMode, S3Config, S3Store};
use jumar::store::{Direct as _, Store as _, StoreError};
use s3s::dto::CORSRule;

use crate::support::http::try_call;
use crate::support::s3::{Fault, Op, Quirks, S3Server, When, real_config};

fn origins(origins: &[&str]) -> Vec<String> {
    origins.iter().map(|origin| (*origin).to_owned()).collect()
}

/// A rule that somebody else made.
fn of_others() -> CORSRule {
    CORSRule {
        id: Some("theirs".into()),
        allowed_headers: Some(vec!["x-theirs".into()]),
        allowed_methods: vec!["GET".into()],
        allowed_origins: vec!["https://theirs.example".into()],
        expose_headers: Some(vec!["x-exposed".into()]),
        max_age_seconds: Some(7),
    }
}

async fn signing(store: &S3Store) -> Outcome {
    let findings = store.check().await;
    let sound = |finding: &Finding| !matches!(finding.outcome, Outcome::Broken(_));
    assert!(findings.iter().all(sound), "{findings:#?}");
    let what = "sign a request for a part";
    let finding = findings.into_iter().find(|finding| finding.what == what);
    finding.expect("it is tried").outcome
}

#[tokio::test]
async fn a_request_is_signed_and_sent_as_a_client_would() {
    for (checksum, quirks, works) in [
        (ChecksumMode::Auto, Quirks::default(), ""),
        (ChecksumMode::Crc32c, Quirks::default(), "go without"),
        (ChecksumMode::None, Quirks::default(), ""),
        (
            ChecksumMode::Auto,
            Quirks {
                wants_checksums: true,
                ..Quirks::default()
            },
            "go without",
        ),
    ] {
        let server = S3Server::start().await;
        let config = S3Config {
            checksum,
            ..server.config()
        };
        server.control().set_quirks(quirks);
        let Outcome::Works(how) = signing(&S3Store::open(config).await).await else {
            panic!("{checksum:?}");
        };
        assert!(
            how.contains(works) && how.is_empty() == works.is_empty(),
            "{how}"
        );
        assert_eq!(server.backend().open_uploads(), []);
    }
    let server = S3Server::start().await;
    let store = server.store().await;
    server.control().fail(
        Op::ListParts,
        When::Always,
        Fault::Status(501, "NotImplemented"),
    );
    let Outcome::Without(why) = signing(&store).await else {
        panic!("it cannot do without the listing");
    };
    assert!(why.contains("go through the server"), "{why}");
    assert_eq!(server.backend().open_uploads(), []);
}

#[tokio::test]
async fn a_store_that_takes_more_than_was_signed_is_told_of() {
    let server = S3Server::start().await;
    let config = S3Config {
        checksum: ChecksumMode::None,
        ..server.config()
    };
    // Two parts are put and one is put beside a copy before the trial begins, with a byte too many.
    server
        .control()
        .fail(Op::UploadPart, When::Nth(4), Fault::Pretended);
    let Outcome::Without(why) = signing(&S3Store::open(config).await).await else {
        panic!("it is no reason to be refused, and no good");
    };
    assert!(why.contains("more bytes"), "{why}");
}

#[tokio::test]
async fn a_real_s3_server_takes_what_is_signed() {
    let Some(config) = real_config() else {
        return;
    };
    for checksum in [ChecksumMode::Auto, ChecksumMode::None] {
        let config = S3Config {
            checksum,
            ..config.clone()
        };
        let outcome = signing(&S3Store::open(config).await).await;
        assert!(matches!(outcome, Outcome::Works(_)), "{outcome:?}");
    }
}

#[tokio::test]
async fn own_only_the_rule_for_browsers_is_set_beside_those_of_others() {
    let server = S3Server::start().await;
    let store = server.store().await;
    let site = origins(&["https://a.example", "https://b.example"]);
    let Outcome::Without(why) = store.check_browsers(&site).await.outcome else {
        panic!("there is no rule at all");
    };
    assert!(why.contains("jumar check --apply-cors"), "{why}");
    assert_eq!(server.control().count(Op::PutBucketCors), 0);

    server.backend().set_cors(vec![of_others()]);
    let done = store.allow_browsers(&site).await.unwrap();
    assert!(done.contains("added") && done.contains("kept: 1"), "{done}");
    let ours = CORSRule {
        id: Some("jumar-direct".into()),
        allowed_headers: Some(vec!["*".into()]),
        allowed_methods: vec!["PUT".into(), "GET".into(), "HEAD".into()],
        allowed_origins: site.clone(),
        expose_headers: Some(vec!["ETag".into()]),
        max_age_seconds: Some(7200),
    };
    assert_eq!(server.backend().cors(), [of_others(), ours.clone()]);
    let works = Outcome::Works(String::new());
    assert_eq!(store.check_browsers(&site).await.outcome, works);

    let done = store.allow_browsers(&site).await.unwrap();
    assert!(done.contains("already"), "{done}");
    assert_eq!(server.control().count(Op::PutBucketCors), 1);

    let all = origins(&["*"]);
    let outcome = store.check_browsers(&all).await.outcome;
    assert!(matches!(outcome, Outcome::Without(_)), "{outcome:?}");
    let done = store.allow_browsers(&all).await.unwrap();
    assert!(
        done.contains("replaced") && done.contains("kept: 1"),
        "{done}"
    );
    let ours = CORSRule {
        allowed_origins: all.clone(),
        ..ours
    };
    assert_eq!(server.backend().cors(), [of_others(), ours]);
    assert_eq!(store.check_browsers(&all).await.outcome, works);
    assert_eq!(store.check_browsers(&site).await.outcome, works);
}

#[tokio::test]
async fn own_only_nothing_is_written_where_the_rules_cannot_be_read() {
    let server = S3Server::start().await;
    server.backend().set_cors(vec![of_others()]);
    let store = server.store().await;
    let denied = Fault::Status(403, "AccessDenied");
    server
        .control()
        .fail(Op::GetBucketCors, When::Always, denied);
    let all = origins(&["*"]);
    let failed = store.allow_browsers(&all).await;
    assert!(matches!(failed, Err(StoreError::Refused(_))), "{failed:?}");
    let outcome = store.check_browsers(&all).await.outcome;
    assert!(matches!(outcome, Outcome::Without(_)), "{outcome:?}");
    assert_eq!(server.control().count(Op::PutBucketCors), 0);
    assert_eq!(server.backend().cors(), [of_others()]);

    server.control().heal();
    store.allow_browsers(&[]).await.unwrap();
    assert_eq!(server.backend().cors(), [of_others()]);
}

/// The rules of the bucket are everybody's who tests with it, so this leaves ours there.
#[tokio::test]
async fn a_real_s3_server_lets_browsers_in() {
    let Some(config) = real_config() else {
        return;
    };
    let (endpoint, bucket) = (config.endpoint.clone().unwrap(), config.bucket.clone());
    let store = S3Store::open(config).await;
    let all = origins(&["*"]);
    store.allow_browsers(&all).await.unwrap();
    let works = Outcome::Works(String::new());
    assert_eq!(store.check_browsers(&all).await.outcome, works);
    let done = store.allow_browsers(&all).await.unwrap();
    assert!(done.contains("already"), "{done}");

    // What a browser asks before it puts a part.
    let server = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
    let fields = [
        ("Origin", "https://a.example"),
        ("Access-Control-Request-Method", "PUT"),
        ("Access-Control-Request-Headers", "content-md5,x-anything"),
    ];
    let path = format!("/{bucket}/some/object?partNumber=1&uploadId=x");
    let answer = try_call(server, "OPTIONS", &path, &fields, b"").await;
    let answer = answer.unwrap();
    answer.expect(200);
    for (name, expected) in [
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (ACCESS_CONTROL_EXPOSE_HEADERS, "etag"),
    ] {
        let value = answer.header(name.as_str()).map(str::to_lowercase);
        assert_eq!(value.as_deref(), Some(expected), "{answer:?}");
    }
}
