//! `/metrics`

use serde_json::json;

use crate::support::http::Connection;
use crate::support::rig::Ground;
use crate::support::server::{Server, range};

async fn figures(server: &Server) -> String {
    let mut connection = Connection::open(server.admin).await;
    let answer = connection.call("GET", "/metrics", &[], b"").await;
    let text = answer.expect(200).text();
    let content_type = answer.header("content-type").unwrap();
    assert!(
        content_type.starts_with("text/plain; version=0.0.4"),
        "{content_type}"
    );
    text
}

/// The value of a series.
fn value(figures: &str, series: &str) -> f64 {
    let line = figures
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

#[tokio::test]
async fn every_name_of_the_contract() {
    for ground in [Ground::fs(), Ground::s3().await] {
        let server = Server::with_jobs(ground).await;
        let before = figures(&server).await;
        let upload = server.create_of(20).await;
        let hanging = range(0, 10, Some(20));
        let mut connection = server
            .put_head(&upload, &hanging, &[("Content-Length", "10")])
            .await;
        connection.send(b"12345").await.unwrap();
        server.wait_for_offset(&upload, 5).await;
        server.put(&upload, 0, &[b'x'; 20], 20).await.expect(204);
        connection.answer().await.expect_problem(409, "displaced");
        server.complete(&upload).await.expect(201);
        let aborted = server.create_of(1).await;
        server.abort(&aborted).await.expect(204);
        let failed = server
            .create(&json!({"length": 0, "digest": {"sha-256": "00".repeat(32)}}))
            .await;
        server.complete(&failed).await.expect(422);
        let _expired = server.create_of(1).await;
        server.let_expire();
        server.prune().await;
        let after = figures(&server).await;
        let grew = |series: &str, by: f64| {
            let (from, to) = (value(&before, series), value(&after, series));
            assert!(to >= from + by, "{series}: {from}, then {to}");
        };
        grew(r#"jumar_received_bytes_total{protocol="native"}"#, 25.0);
        for (event, by) in [
            ("created", 4.0),
            ("completed", 1.0),
            ("aborted", 1.0),
            ("failed", 1.0),
            ("expired", 1.0),
        ] {
            grew(
                &format!(r#"jumar_uploads_total{{protocol="native",event="{event}"}}"#),
                by,
            );
        }
        grew(
            r#"jumar_request_duration_seconds_count{route="/v1/uploads/{id}/chunk",status="204"}"#,
            1.0,
        );
        grew(
            r#"jumar_request_duration_seconds_count{route="/v1/uploads/{id}/chunk",status="409"}"#,
            1.0,
        );
        grew("jumar_complete_duration_seconds_count", 1.0);
        grew("jumar_catalog_commit_duration_seconds_count", 5.0);
        grew("jumar_displaced_total", 1.0);
        let call = if server.ground.s3.is_some() {
            "put"
        } else {
            "publish"
        };
        grew(
            &format!(r#"jumar_store_call_duration_seconds_count{{call="{call}",outcome="ok"}}"#),
            1.0,
        );
        for name in [
            "jumar_received_bytes_total",
            "jumar_uploads_total",
            "jumar_request_duration_seconds",
            "jumar_complete_duration_seconds",
            "jumar_store_call_duration_seconds",
            "jumar_catalog_commit_duration_seconds",
            "jumar_memory_budget_bytes",
            "jumar_spool_bytes",
            "jumar_displaced_total",
            "jumar_pruned_total",
            "jumar_open_uploads",
        ] {
            assert!(
                after.contains(&format!("# TYPE {name} ")),
                "{name} is missing:\n{after}"
            );
            assert!(
                after.contains(&format!("# HELP {name} ")),
                "{name} is not explained"
            );
        }
        assert!(after.contains(r#"jumar_memory_budget_bytes{state=""#));
    }
}

#[tokio::test]
async fn on_the_admin_listener_only() {
    let server = Server::fs().await;
    server
        .get("/metrics")
        .await
        .expect_problem(404, "not_found");
    let mut admin = Connection::open(server.admin).await;
    let uploads = admin.call("POST", "/v1/uploads", &[], b"").await;
    uploads.expect_problem(404, "not_found");
}

#[tokio::test]
async fn routes_of_strangers_make_no_series() {
    let server = Server::fs().await;
    for path in ["/wp-login.php", "/v1/uploads/x/y/z"] {
        server.get(path).await.expect(404);
    }
    let upload = server.create_of(1).await;
    let figures = figures(&server).await;
    assert!(!figures.contains("wp-login"), "{figures}");
    assert!(!figures.contains(&upload.id));
    assert!(figures.contains(r#"route="unmatched",status="404""#));
}
