//! What a connection may do: heads, their time, pipelining, and requests that two readers would read differently.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::server::Server;

#[tokio::test]
async fn heads_up_to_64_kib_are_taken() {
    let server = Server::fs().await;
    for (bytes, status) in [(60 << 10, 200), (66 << 10, 431), (128 << 10, 431)] {
        let value = "x".repeat(bytes);
        let answer = server
            .call("GET", "/healthz", &[("X-Large", &value)], b"")
            .await;
        answer.expect(status);
        if status == 431 {
            answer.expect_problem(431, "head_too_large");
        }
    }
    let path = format!("/healthz?{}", "x".repeat(40 << 10));
    server.get(&path).await.expect(200);
    let half = "x".repeat(40 << 10);
    let answer = server.call("GET", &path, &[("X-Large", &half)], b"").await;
    answer.expect_problem(431, "head_too_large");
}

#[tokio::test]
async fn so_many_fields() {
    let server = Server::fs().await;
    for (count, status) in [(90, 200), (101, 431), (150, 431), (1000, 431)] {
        let fields = vec![("X-Many", "1"); count];
        let answer = server.call("GET", "/healthz", &fields, b"").await;
        answer.expect(status);
        if status == 431 {
            answer.expect_problem(431, "head_too_large");
        }
    }
    let fields = vec![("X-Many", "1"); 3000];
    let answer = server.call("GET", "/healthz", &fields, b"").await;
    answer.expect(431);
}

#[tokio::test]
async fn a_head_without_end() {
    let server = Server::fs().await;
    let mut connection = server.connect().await;
    connection.send(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    let line = format!("X: {}\r\n", "x".repeat(1000));
    let mut sent = 0;
    while sent < 4 << 20 {
        if connection.send(line.as_bytes()).await.is_err() {
            break;
        }
        sent += line.len();
    }
    assert!(sent < 4 << 20, "four megabytes of a head were taken");
}

#[tokio::test]
async fn a_head_that_trickles_is_cut() {
    let server = Server::with(|config| config.server.head_timeout_secs = 1).await;
    for begun in ["", "P", "GET /healthz HTTP/1.1\r\nHost: x\r\n"] {
        let mut connection = server.connect().await;
        connection.send(begun.as_bytes()).await.unwrap();
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(20) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let more: &[u8] = if begun.len() > 1 { b"X" } else { b"" };
            if connection.send(more).await.is_err()
                || !connection.is_open_for(Duration::from_millis(1)).await
            {
                break;
            }
        }
        assert!(
            since.elapsed() < Duration::from_secs(10),
            "{begun:?} was waited for"
        );
    }
}

#[tokio::test]
async fn a_head_in_many_pieces() {
    let server = Server::fs().await;
    let mut connection = server.connect().await;
    for byte in b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" {
        connection.send(&[*byte]).await.unwrap();
    }
    connection.answer().await.expect(200);
}

#[tokio::test]
async fn requests_one_behind_the_other() {
    let server = Server::fs().await;
    let upload = server.create_of(6).await;
    let put = |range: &str, body: &str| {
        format!(
            "PUT {} HTTP/1.1\r\nHost: x\r\nUpload-Key: {}\r\nContent-Range: {range}\r\nContent-Length: {}\r\n\r\n{body}",
            upload.path("/chunk"),
            upload.key,
            body.len()
        )
    };
    let both = put("bytes 0-2/6", "123") + &put("bytes 3-5/6", "456");
    let mut connection = server.connect().await;
    connection.send(both.as_bytes()).await.unwrap();
    assert_eq!(connection.answer().await.expect(204).offset(), 3);
    assert_eq!(connection.answer().await.expect(204).offset(), 6);
}

#[tokio::test]
async fn lengths_that_contradict_each_other() {
    let server = Server::fs().await;
    let hidden = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    for fields in [
        "Content-Length: 0\r\nContent-Length: 34\r\n",
        "Content-Length: 0, 34\r\n",
        "Content-Length: +34\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x22\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Content-Length : 34\r\n",
        " Content-Length: 34\r\n",
    ] {
        let mut connection = server.connect().await;
        let request = format!("POST /v1/uploads HTTP/1.1\r\nHost: x\r\n{fields}\r\n{hidden}");
        connection.send(request.as_bytes()).await.unwrap();
        connection.answer().await.expect(400);
        assert!(
            connection.is_closed().await,
            "{fields:?}: what follows is not looked at"
        );
    }
}

/// RFC 9112, section 6.1: the coding decides, and the connection is closed, as something in between may have read it
/// differently. Refusing would be allowed as well, but hyper takes the length away before anybody sees the head.
#[tokio::test]
async fn a_length_beside_a_coding() {
    let server = Server::fs().await;
    let hidden = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 39\r\n",
    ] {
        let mut connection = server.connect().await;
        let request =
            format!("POST /v1/uploads HTTP/1.1\r\nHost: x\r\n{fields}\r\n0\r\n\r\n{hidden}");
        connection.send(request.as_bytes()).await.unwrap();
        let answer = connection.answer().await;
        assert!(matches!(answer.status, 201 | 400), "{answer:?}");
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(
            connection.is_closed().await,
            "{fields:?}: what follows is not looked at"
        );
    }
}

#[tokio::test]
async fn one_host() {
    let server = Server::fs().await;
    for (fields, status) in [
        ("", 400),
        ("Host: a\r\nHost: b\r\n", 400),
        ("Host: a\r\n", 200),
    ] {
        let mut connection = server.connect().await;
        let request = format!("GET /healthz HTTP/1.1\r\n{fields}\r\n");
        connection.send(request.as_bytes()).await.unwrap();
        connection.answer().await.expect(status);
    }
    let mut old = server.connect().await;
    old.send(b"GET /healthz HTTP/1.0\r\n\r\n").await.unwrap();
    old.answer().await.expect(200);
    assert!(old.is_closed().await);
}

#[tokio::test]
async fn no_http_at_all() {
    let server = Server::fs().await;
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"\r\n\r\n\0\0\0\0",
        b"GET\r\n\r\n",
        b"GET / HTTP/3.0\r\n\r\n",
    ] {
        let mut connection = server.connect().await;
        connection.send(garbage).await.unwrap();
        connection.half_close().await;
        // Whatever it says, it ends, and the server goes on.
        let _ = connection.try_answer().await;
        connection.is_closed().await;
    }
    server.get("/healthz").await.expect(200);
}

#[tokio::test]
async fn so_many_connections() {
    let server = Server::with(|config| config.server.max_connections = 2).await;
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    first.call("GET", "/healthz", &[], b"").await.expect(200);
    second.call("GET", "/healthz", &[], b"").await.expect(200);
    let mut third = server.connect().await;
    third.head("GET", "/healthz", &[]).await;
    assert!(
        third.is_open_for(Duration::from_millis(300)).await,
        "it waits"
    );
    drop(first);
    third.answer().await.expect(200);
}
