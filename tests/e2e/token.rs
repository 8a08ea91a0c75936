//! `jumar token`, beside a running server.

use std::process::Output;

use serde_json::Value;

use crate::harness::{Server, Settings, quoted};

const SECRET: &str = "a secret of the tests with more than 32 bytes";

fn out(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn last_line(text: &str) -> &str {
    text.lines().last().expect("a line")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_shown_once_alone_on_the_last_line() {
    let server = Server::start(Settings::folder()).await;
    let create = [
        "token",
        "create",
        "--name",
        "nightly job",
        "--scope",
        "upload",
        "--space",
        "photos",
        "--expires-in",
        "30d",
    ];
    let created = out(&server.run(&create).await);
    let key = last_line(&created);
    assert!(key.starts_with("jumar_") && key.len() == 49, "{key:?}");

    let table = out(&server.run(&["token", "list"]).await);
    let json = out(&server.run(&["token", "list", "--json"]).await);
    for shown in [&table, &json] {
        assert!(
            shown.contains("nightly job") && shown.contains("photos"),
            "{shown}"
        );
        assert!(!shown.contains(&key[6..]), "{shown}");
    }
    let keys: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(keys[0]["revoked_at"], Value::Null);
    let id = keys[0]["id"].as_str().expect("an id").to_owned();

    let revoked = out(&server.run(&["token", "revoke", &id]).await);
    assert!(revoked.contains("API key"), "{revoked}");
    let json = out(&server.run(&["token", "list", "--json"]).await);
    let keys: Value = serde_json::from_str(&json).expect("JSON");
    assert!(keys[0]["revoked_at"].is_string(), "{json}");
    let other = out(&server.run(&["token", "revoke", "party-1"]).await);
    assert!(other.contains("no API key has this id"), "{other}");
}

#[tokio::test]
async fn a_join_token_needs_a_key_and_says_how_to_make_one() {
    let server = Server::prepare(Settings::folder());
    let refused = server.run(&["token", "join"]).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("JUMAR_AUTH__JOIN__SECRET") && said.contains("openssl"),
        "{said}"
    );

    let server = Server::prepare(Settings::folder().with("auth.join", "secret", &quoted(SECRET)));
    let join = [
        "token",
        "join",
        "--max-size",
        "25MB",
        "--content-type",
        "image/*",
    ];
    let made = out(&server.run(&join).await);
    assert_eq!(last_line(&made).matches('.').count(), 2, "{made}");
    assert!(!made.contains(SECRET), "{made}");
    for wrong in [
        &["--scope", "admin"][..],
        &["--content-type", "*/*"],
        &["--max-size", "much"],
        &["--expires-in", "soon"],
        &["--space", "Not A Space"],
    ] {
        let refused = server.run(&[&["token", "join"], wrong].concat()).await;
        assert!(!refused.status.success(), "{wrong:?}");
    }
}
