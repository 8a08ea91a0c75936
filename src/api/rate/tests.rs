use axum::body::Body;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::any;
use axum::{Extension, Router};
use http::Request as HttpRequest;
use http::uri::Scheme;
use std::num::NonZeroU32;
use tower::ServiceExt as _;

use super::*;
use crate::api::gate::Asker;
use crate::model::Caller;

fn rate(per_minute: u32, burst: u32) -> Option<Rate> {
    Some(Rate {
        per_minute: NonZeroU32::new(per_minute)?,
        burst: NonZeroU32::new(burst)?,
    })
}

/// A token that begins with `good` is good, and is its own name.
async fn ask_who(mut request: Request, next: Next) -> Response {
    let token = request.headers().get(AUTHORIZATION);
    let token = token.and_then(|token| token.to_str().ok()).unwrap_or("");
    let asker = if token.starts_with("good") {
        Ok(Caller {
            token: token.parse().ok(),
            ..Caller::anonymous()
        })
    } else {
        Err(Problem::new(Code::Unauthorized, "no token, or a bad one"))
    };
    request.extensions_mut().insert(Asker(Arc::new(asker)));
    next.run(request).await
}

async fn answer(request: Request) -> Response {
    match gate::caller(request.extensions()) {
        Ok(_) => "taken".into_response(),
        Err(problem) => problem.into_response(),
    }
}

struct Stub(Router);

impl Stub {
    fn with(settings: &Settings) -> Self {
        let limits = Arc::new(RateLimits::new(settings, ["/uploads".to_owned()].into()));
        let routes = Router::new()
            .route("/uploads", any(answer))
            .route("/uploads/{id}", any(answer))
            .layer(from_fn_with_state(Arc::clone(&limits), limit))
            .layer(from_fn(ask_who))
            .layer(from_fn_with_state(limits, limit_failures));
        Self(routes)
    }

    async fn ask_with(&self, from: &str, token: &str, request: &str, extra: &str) -> Response {
        let (method, path) = request.split_once(' ').expect("method and path");
        let mut request = HttpRequest::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header(AUTHORIZATION, token);
        }
        if !extra.is_empty() {
            request = request.header("x-http-method-override", extra);
        }
        let client = Client {
            address: from.parse().expect("an address"),
            scheme: Scheme::HTTP,
            host: None,
        };
        let request = request.body(Body::empty()).expect("a request");
        let routes = self.0.clone().layer(Extension(client));
        routes.oneshot(request).await.expect("infallible")
    }

    async fn ask(&self, from: &str, token: &str, request: &str) -> u16 {
        let answer = self.ask_with(from, token, request, "").await;
        answer.status().as_u16()
    }
}

fn fields(response: &Response) -> String {
    let shown = |name: &str| {
        let value = response.headers().get(name)?;
        Some(format!("{name}: {}", value.to_str().ok()?))
    };
    let names = ["retry-after", "ratelimit", "ratelimit-policy"];
    let lines: Vec<String> = names.into_iter().filter_map(shown).collect();
    lines.join("\n")
}

const CREATE: &str = "POST /uploads";
const APPEND: &str = "PATCH /uploads/1";
const HERE: &str = "192.0.2.1";
const THERE: &str = "192.0.2.2";

#[tokio::test(start_paused = true)]
async fn creations_and_chunks_are_counted_apart_and_reading_is_not() {
    let stub = Stub::with(&Settings {
        creations: rate(60, 1),
        chunks: rate(60, 2),
        max_keys: 10,
        ..Settings::default()
    });
    for request in ["GET /uploads/1", "HEAD /uploads/1", "OPTIONS /uploads"] {
        for _ in 0..5 {
            assert_eq!(stub.ask(HERE, "good", request).await, 200, "{request}");
        }
    }
    assert_eq!(stub.ask(HERE, "good", CREATE).await, 200);
    assert_eq!(stub.ask(HERE, "good", CREATE).await, 429);
    assert_eq!(stub.ask(HERE, "good", APPEND).await, 200);
    assert_eq!(stub.ask(HERE, "good", "DELETE /uploads/1").await, 200);
    for request in ["PUT /uploads/1", "POST /uploads/1", APPEND] {
        assert_eq!(stub.ask(HERE, "good", request).await, 429, "{request}");
    }
    assert_eq!(stub.ask(THERE, "good", CREATE).await, 200, "another one");
}

#[tokio::test(start_paused = true)]
async fn another_method_in_a_header_field_is_no_way_around() {
    let stub = Stub::with(&Settings {
        chunks: rate(60, 1),
        max_keys: 10,
        ..Settings::default()
    });
    for (request, extra, status) in [
        ("GET /uploads/1", "GET", 200),
        ("GET /uploads/1", "PATCH", 200),
        ("GET /uploads/1", "PATCH", 429),
        ("OPTIONS /uploads/1", "DELETE", 429),
        ("POST /uploads/1", "GET", 429),
    ] {
        let answer = stub.ask_with(HERE, "good", request, extra).await;
        assert_eq!(answer.status(), status, "{request} {extra}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_network_of_64_bits_is_one_address_and_so_is_one_in_another_spelling() {
    let stub = Stub::with(&Settings {
        creations: rate(60, 1),
        max_keys: 10,
        ..Settings::default()
    });
    for (address, status) in [
        ("2001:db8:1:2:3::4", 200),
        ("2001:db8:1:2:ffff::1", 429),
        ("2001:db8:1:3::1", 200),
        ("192.0.2.1", 200),
        ("::ffff:192.0.2.1", 429),
        ("192.0.2.2", 200),
    ] {
        assert_eq!(stub.ask(address, "good", CREATE).await, status, "{address}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_counted_wherever_it_comes_from() {
    let stub = Stub::with(&Settings {
        creations: rate(60, 3),
        token_creations: rate(60, 2),
        max_keys: 10,
        ..Settings::default()
    });
    assert_eq!(stub.ask(HERE, "good1", CREATE).await, 200);
    assert_eq!(stub.ask(THERE, "good1", CREATE).await, 200);
    assert_eq!(stub.ask("192.0.2.3", "good1", CREATE).await, 429);
    assert_eq!(stub.ask(HERE, "good2", CREATE).await, 200);
    assert_eq!(stub.ask(HERE, "good1", APPEND).await, 200);
}

#[tokio::test(start_paused = true)]
async fn refused_tokens_are_told_to_wait_and_good_ones_of_the_same_address_go_on() {
    let stub = Stub::with(&Settings {
        failures: rate(6, 2),
        max_keys: 10,
        ..Settings::default()
    });
    for _ in 0..5 {
        assert_eq!(stub.ask(HERE, "", APPEND).await, 401, "no attempt");
        assert_eq!(stub.ask(HERE, "good", APPEND).await, 200, "no failure");
    }
    assert_eq!(stub.ask(HERE, "bad", APPEND).await, 401);
    assert_eq!(stub.ask(HERE, "bad", "GET /uploads/1").await, 401);
    assert_eq!(stub.ask(HERE, "bad", APPEND).await, 429);
    let answer = stub.ask_with(HERE, "bad", "GET /uploads/1", "").await;
    assert_eq!(answer.status(), 429);
    insta::assert_snapshot!(fields(&answer), @r#"
    retry-after: 10
    ratelimit: "failures";r=0;t=10
    ratelimit-policy: "failures";q=6;w=60
    "#);
    assert_eq!(stub.ask(HERE, "good", APPEND).await, 200, "a neighbour");
    assert_eq!(stub.ask(HERE, "", APPEND).await, 401);
    assert_eq!(stub.ask(THERE, "bad", APPEND).await, 401);
    tokio::time::advance(Duration::from_millis(9_990)).await;
    assert_eq!(stub.ask(HERE, "bad", APPEND).await, 429, "too early");
    tokio::time::advance(Duration::from_millis(10)).await;
    assert_eq!(stub.ask(HERE, "bad", APPEND).await, 401);
}

#[tokio::test(start_paused = true)]
async fn answers_tell_what_is_left_and_when_to_come_again() {
    let stub = Stub::with(&Settings {
        creations: rate(30, 2),
        token_creations: rate(6000, 10),
        max_keys: 10,
        ..Settings::default()
    });
    let answer = stub.ask_with(HERE, "good", CREATE, "").await;
    insta::assert_snapshot!(fields(&answer), @r#"
    ratelimit: "creations";r=1;t=2, "token_creations";r=9;t=1
    ratelimit-policy: "creations";q=30;w=60, "token_creations";q=6000;w=60
    "#);
    assert_eq!(stub.ask(HERE, "good", CREATE).await, 200);
    tokio::time::advance(Duration::from_millis(500)).await;
    let answer = stub.ask_with(HERE, "good", CREATE, "").await;
    assert_eq!(answer.status(), 429);
    insta::assert_snapshot!(fields(&answer), @r#"
    retry-after: 2
    ratelimit: "creations";r=0;t=2
    ratelimit-policy: "creations";q=30;w=60
    "#);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(stub.ask(HERE, "good", CREATE).await, 200);
    let answer = stub.ask_with(HERE, "good", "GET /uploads/1", "").await;
    assert_eq!(fields(&answer), "", "what is not counted");
}

#[tokio::test(start_paused = true)]
async fn by_default_there_is_no_limit() {
    let stub = Stub::with(&Settings::default());
    for _ in 0..200 {
        assert_eq!(stub.ask(HERE, "bad", CREATE).await, 401);
    }
    let answer = stub.ask_with(HERE, "good", CREATE, "").await;
    assert_eq!(fields(&answer), "");
}
