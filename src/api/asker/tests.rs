use std::collections::BTreeSet;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse as _;
use axum::routing::get;
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt as _;

use super::*;
use crate::api::gate::caller;
use crate::auth::Settings;
use crate::catalog::sqlite::{SqliteCatalog, Synchronous, migrate};
use crate::catalog::{ApiKeyRecord, Tokens as _};
use crate::clock::Clock;
use crate::model::{ApiKey, Scope, SpaceName, Timestamp, TokenId};

/// Two routes: one says who asks, the other has to be reached by anybody.
struct Kit {
    router: Router,
    key: String,
    _folder: TempDir,
}

async fn kit(required: bool) -> Kit {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("jumar.db");
    migrate(&path).expect("migrated");
    let catalog = SqliteCatalog::open(&path, Synchronous::Normal).expect("opened");
    let key = ApiKey::generate();
    let record = ApiKeyRecord {
        id: "k1".parse::<TokenId>().expect("a name"),
        hash: key.hash(),
        name: "test".to_owned(),
        scope: Scope::Upload,
        space: None,
        created_at: Timestamp(0),
        expires_at: None,
        revoked_at: None,
    };
    catalog.add_api_key(record).await.expect("added");
    let settings = Settings {
        leeway: Duration::ZERO,
        refresh: Duration::from_mins(1),
        max_token_bytes: 1024,
        max_verified_tokens: 8,
        join: None,
        jwt: None,
    };
    let authenticator = Authenticator::start(
        Arc::new(catalog),
        Clock::manual(Timestamp(0)),
        settings,
        BTreeSet::from([SpaceName::default()]),
    );
    let door = Door {
        origins: Arc::default(),
        authenticator: authenticator.await.expect("started"),
        required,
    };
    let who = async |request: Request| match caller(request.extensions()) {
        Ok(caller) => {
            let device = caller.device.as_ref().map(DeviceId::as_str);
            let token = caller.token.as_ref().map(TokenId::as_str);
            format!("{} {}", token.unwrap_or("-"), device.unwrap_or("-")).into_response()
        }
        Err(problem) => problem.into_response(),
    };
    Kit {
        router: Router::new()
            .route("/who", get(who))
            .route("/healthz", get(async || "ok"))
            .layer(from_fn_with_state(door, find_out)),
        key: key.reveal(),
        _folder: folder,
    }
}

impl Kit {
    async fn ask(&self, path: &str, fields: &[(&str, &str)]) -> Response<Body> {
        let mut request = http::Request::builder().uri(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).expect("a request");
        let answer = self.router.clone().oneshot(request).await;
        answer.expect("infallible")
    }

    /// Who it is taken for.
    async fn who(&self, fields: &[(&str, &str)]) -> String {
        let answer = self.ask("/who", fields).await;
        assert_eq!(answer.status(), StatusCode::OK);
        String::from_utf8(bytes(answer).await).expect("text")
    }

    /// The status, the code and the challenge of a refusal.
    async fn refused(&self, fields: &[(&str, &str)]) -> (u16, String, String) {
        let answer = self.ask("/who", fields).await;
        let challenge = answer.headers().get(WWW_AUTHENTICATE);
        let challenge = challenge.map_or("", |field| field.to_str().expect("ASCII"));
        let (status, challenge) = (answer.status().as_u16(), challenge.to_owned());
        let problem: Value = serde_json::from_slice(&bytes(answer).await).expect("JSON");
        let code = problem["code"].as_str().expect("a code").to_owned();
        (status, code, challenge)
    }
}

async fn bytes(answer: Response<Body>) -> Vec<u8> {
    let body = answer.into_body().collect().await.expect("in memory");
    body.to_bytes().to_vec()
}

const BASIC: (&str, &str) = ("authorization", "Basic YTpi");

#[tokio::test]
async fn a_token_tells_who_asks_in_either_mode() {
    for required in [false, true] {
        let kit = kit(required).await;
        for scheme in ["Bearer", "bearer", "BEARER "] {
            let field = format!("{scheme} {}", kit.key);
            assert_eq!(kit.who(&[("authorization", &field)]).await, "k1 -");
        }
    }
}

#[tokio::test]
async fn without_a_token_an_open_server_takes_anybody() {
    let kit = kit(false).await;
    assert_eq!(kit.who(&[]).await, "- -");
    assert_eq!(kit.who(&[BASIC]).await, "- -");
}

#[tokio::test]
async fn without_a_token_a_closed_server_asks_for_one() {
    let kit = kit(true).await;
    for fields in [&[][..], &[BASIC]] {
        let (status, code, challenge) = kit.refused(fields).await;
        assert_eq!((status, &*code), (401, "unauthorized"));
        assert_eq!(challenge, r#"Bearer realm="jumar""#);
    }
}

#[tokio::test]
async fn a_bad_token_is_refused_in_either_mode() {
    for required in [false, true] {
        let kit = kit(required).await;
        let two = format!("Bearer {0} {0}", kit.key);
        let joined = format!("Bearer {0}, Bearer {0}", kit.key);
        for field in ["Bearer", "Bearer ", "Bearer x", &two, &joined] {
            let (status, code, challenge) = kit.refused(&[("authorization", field)]).await;
            assert_eq!((status, &*code), (401, "unauthorized"), "{field}");
            insta::allow_duplicates! {
                insta::assert_snapshot!(challenge, @r#"Bearer realm="jumar", error="invalid_token", error_description="the token is malformed""#);
            }
        }
    }
}

#[tokio::test]
async fn two_authorizations_are_one_too_many() {
    let kit = kit(false).await;
    let field = format!("Bearer {}", kit.key);
    for second in [&*field, BASIC.1] {
        let fields = [("authorization", &*field), ("authorization", second)];
        let (status, code, _) = kit.refused(&fields).await;
        assert_eq!((status, &*code), (400, "bad_request"));
    }
}

#[tokio::test]
async fn a_device_says_its_name_once_and_well() {
    let kit = kit(false).await;
    assert_eq!(kit.who(&[("device-id", "phone-1")]).await, "- phone-1");
    let long = "x".repeat(129);
    for wrong in ["", "a b", "é", &long] {
        let (status, code, _) = kit.refused(&[("device-id", wrong)]).await;
        assert_eq!((status, &*code), (400, "bad_request"), "{wrong}");
    }
    let twice = [("device-id", "a"), ("device-id", "a")];
    assert_eq!(kit.refused(&twice).await.0, 400);
}

#[tokio::test]
async fn what_needs_no_token_goes_on() {
    let kit = kit(true).await;
    for fields in [&[][..], &[("authorization", "Bearer x")]] {
        let answer = kit.ask("/healthz", fields).await;
        assert_eq!(answer.status(), StatusCode::OK);
    }
}

#[test]
fn a_space_that_is_not_there_is_forbidden_and_keys_that_are_away_are_waited_for() {
    assert_eq!(
        problem(&Refused::UnknownSpace).status,
        StatusCode::FORBIDDEN
    );
    let away = problem(&Refused::KeysAway).into_response();
    assert_eq!(away.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(away.headers().contains_key("retry-after"));
    let quoted = challenge(r#"the claim a"b\c"#);
    assert!(
        quoted
            .to_str()
            .expect("ASCII")
            .ends_with(r#"="the claim a'b'c""#)
    );
}
