//! `/healthz` and `/readyz`

use jumar::store::call::Call;
use jumar::store::faulty::{Fault, When};

use crate::support::http::Connection;
use crate::support::server::both;

#[tokio::test]
async fn on_both_listeners() {
    for server in both().await {
        for address in [server.main, server.admin] {
            let mut connection = Connection::open(address).await;
            let alive = connection.call("GET", "/healthz", &[], b"").await;
            insta::allow_duplicates! {
                insta::assert_snapshot!(alive.shown(), @r#"
                200
                cache-control: no-store
                content-length: 15
                content-type: application/json

                {"status":"ok"}
                "#);
            }
            let ready = connection.call("GET", "/readyz", &[], b"").await;
            insta::allow_duplicates! {
                insta::assert_snapshot!(ready.shown(), @r#"
                200
                cache-control: no-store
                content-length: 46
                content-type: application/json

                {"catalog":true,"status":"ready","store":true}
                "#);
            }
            connection
                .call("HEAD", "/readyz", &[], b"")
                .await
                .expect(200);
        }
    }
}

#[tokio::test]
async fn a_store_that_is_away_takes_no_node_out() {
    for server in both().await {
        for fault in [Fault::Unavailable, Fault::Hang] {
            server.faults.fail(Call::Ping, When::Always, fault);
            let degraded = server.get("/readyz").await;
            insta::allow_duplicates! {
                insta::assert_snapshot!(degraded.shown(), @r#"
                200
                cache-control: no-store
                content-length: 50
                content-type: application/json

                {"catalog":true,"status":"degraded","store":false}
                "#);
            }
            server.get("/healthz").await.expect(200);
            server.faults.heal();
        }
        assert_eq!(server.get("/readyz").await.json()["status"], "ready");
    }
}

#[tokio::test]
async fn a_bucket_that_is_away() {
    let server = crate::support::server::Server::s3().await;
    server.s3_server().control().set_away(true);
    assert_eq!(
        server.get("/readyz").await.expect(200).json()["status"],
        "degraded"
    );
    server.s3_server().control().heal();
    assert_eq!(
        server.get("/readyz").await.expect(200).json()["status"],
        "ready"
    );
}
