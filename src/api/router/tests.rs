use axum::body::Body;
use axum::routing::{get, post};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use super::*;

fn stub(origins: &[&str]) -> Router {
    let origins: Vec<String> = origins.iter().map(|origin| (*origin).to_owned()).collect();
    let routes = Router::new()
        .route(
            "/there",
            get(async || "ok")
                .options(async || (StatusCode::NO_CONTENT, [("tus-version", "1.0.0")])),
        )
        .route("/only-post", post(async || "ok"))
        .route("/panics", get(panics));
    let head = HeadLimits {
        bytes: 8192,
        fields: 20,
    };
    shell(routes, Cors::new(&origins), head)
}

async fn panics() -> &'static str {
    panic!("torn")
}

async fn ask(
    router: Router,
    method: Method,
    path: &str,
    fields: &[(&str, &str)],
) -> Response<Body> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "uploads.example");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).expect("a request");
    router.oneshot(request).await.expect("infallible")
}

async fn problem(response: Response<Body>) -> Value {
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    let body = response
        .into_body()
        .collect()
        .await
        .expect("in memory")
        .to_bytes();
    serde_json::from_slice(&body).expect("JSON")
}

fn field<'a>(response: &'a Response<Body>, name: &str) -> &'a str {
    response
        .headers()
        .get(name)
        .map_or("", |value| value.to_str().expect("ASCII"))
}

const ORIGIN: (&str, &str) = ("origin", "https://a.example");

#[tokio::test]
async fn unknown_routes_and_methods_are_problems_that_pages_can_read() {
    let response = ask(stub(&["*"]), Method::GET, "/nowhere", &[ORIGIN]).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(field(&response, "access-control-allow-origin"), "*");
    assert_eq!(problem(response).await["code"], "not_found");
    let response = ask(stub(&["*"]), Method::PUT, "/only-post", &[ORIGIN]).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(field(&response, "allow"), "POST");
    assert_eq!(field(&response, "access-control-allow-origin"), "*");
    assert!(field(&response, "access-control-expose-headers").contains("allow"));
    assert_eq!(problem(response).await["code"], "method_not_allowed");
}

#[tokio::test]
async fn a_preflight_is_answered_and_any_other_options_reaches_its_route() {
    let asked = [ORIGIN, ("access-control-request-method", "PATCH")];
    let response = ask(stub(&["*"]), Method::OPTIONS, "/there", &asked).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(field(&response, "access-control-max-age"), "7200");
    assert!(field(&response, "access-control-allow-methods").contains("PATCH"));
    for name in [
        "Upload-Key",
        "Content-Range",
        "Tus-Resumable",
        "Upload-Draft-Interop-Version",
    ] {
        assert!(
            field(&response, "access-control-allow-headers").contains(name),
            "{name}"
        );
    }
    assert_eq!(field(&response, "tus-version"), "");
    let response = ask(stub(&["*"]), Method::OPTIONS, "/there", &[ORIGIN]).await;
    assert_eq!(field(&response, "tus-version"), "1.0.0");
    assert_eq!(field(&response, "access-control-allow-origin"), "*");
    assert!(field(&response, "access-control-expose-headers").contains("tus-version"));
}

#[tokio::test]
async fn only_the_configured_origins_may_read() {
    let router = stub(&["https://a.example", "https://b.example"]);
    let response = ask(router.clone(), Method::GET, "/there", &[ORIGIN]).await;
    assert_eq!(
        field(&response, "access-control-allow-origin"),
        "https://a.example"
    );
    assert_eq!(field(&response, "vary"), "origin");
    let response = ask(
        router,
        Method::GET,
        "/there",
        &[("origin", "https://evil.example")],
    )
    .await;
    assert_eq!(field(&response, "access-control-allow-origin"), "");
}

#[tokio::test]
async fn a_request_keeps_its_own_id_if_that_can_stand_in_a_log() {
    let response = ask(
        stub(&[]),
        Method::GET,
        "/there",
        &[("x-request-id", "abc-1.2:3_X")],
    )
    .await;
    assert_eq!(field(&response, "x-request-id"), "abc-1.2:3_X");
    for bad in ["", "a b", "<script>", &"a".repeat(129)] {
        let response = ask(stub(&[]), Method::GET, "/nowhere", &[("x-request-id", bad)]).await;
        let id = field(&response, "x-request-id");
        assert!(id != bad && id.len() == 20, "{id}");
    }
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let long = "a".repeat(8192);
    let response = ask(stub(&[]), Method::GET, "/there", &[("x-long", &long)]).await;
    assert_eq!(
        response.status(),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    );
    assert_eq!(problem(response).await["code"], "head_too_large");
    let many = [("x-many", "1"); 21];
    let response = ask(stub(&[]), Method::GET, "/there", &many).await;
    assert_eq!(problem(response).await["code"], "head_too_large");
}

#[tokio::test]
async fn a_panic_is_an_internal_problem_with_an_incident() {
    let response = ask(stub(&["*"]), Method::GET, "/panics", &[ORIGIN]).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!field(&response, "x-request-id").is_empty());
    assert_eq!(field(&response, "access-control-allow-origin"), "*");
    let body = problem(response).await;
    assert_eq!(body["code"], "internal");
    assert!(body["incident"].is_string());
    assert!(!body.to_string().contains("torn"));
}
