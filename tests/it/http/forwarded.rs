//! Whom the server believes to be asking, seen in the links of its answers.

use tokio::net::UnixStream;

use jumar::config::{Config, TrustedProxy};

use crate::support::http::Connection;
use crate::support::server::Server;

const PATH: &str = "/s3/params?filename=a.txt&type=text/plain";

/// What a link begins with, asked for with these fields over TCP and over the Unix socket.
async fn origins(trusted: &[&str], fields: &[(&str, &str)]) -> [String; 2] {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jumar.sock");
    let server = Server::with(|config: &mut Config| {
        config.server.listen_unix.clone_from(&path);
        let proxies = trusted.iter().map(|it| it.parse::<TrustedProxy>().unwrap());
        config.server.trusted_proxies = proxies.collect();
    })
    .await;
    let tcp = server.call("GET", PATH, fields, b"").await;
    let stream = UnixStream::connect(&path).await.unwrap();
    let mut unix = Connection::over(stream, "localhost");
    let unix = unix.call("GET", PATH, fields, b"").await;
    let main = server.main.to_string();
    [tcp, unix].map(|answer| {
        let url = answer.expect(200).json()["url"].clone();
        let url = url.as_str().unwrap().replace(&main, "tcp");
        url.split("/v1").next().unwrap().to_owned()
    })
}

#[tokio::test]
async fn only_trusted_proxies_say_what_was_asked_for() {
    let forwarded = [("Forwarded", "for=192.0.2.60;proto=https;host=up.example")];
    let other = [
        ("X-Forwarded-For", "192.0.2.60"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "up.example"),
    ];
    for fields in [&forwarded[..], &other] {
        for (trusted, expected) in [
            (&[][..], ["http://tcp", "http://localhost"]),
            (&["10.0.0.0/8"], ["http://tcp", "http://localhost"]),
            (&["127.0.0.1"], ["https://up.example", "http://localhost"]),
            (&["unix"], ["http://tcp", "https://up.example"]),
        ] {
            assert_eq!(origins(trusted, fields).await, expected, "{trusted:?}");
        }
    }
}
