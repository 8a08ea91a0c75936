//! Sockets that are passed to the process: systemd's socket activation.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use tokio::net::UnixStream;

use crate::client::Connection;
use crate::harness::{Server, Settings};
use crate::random::Random;
use crate::session::{How, Session};

const START: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passed_socket_takes_the_place_of_the_configured_address() {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let mut server = Server::prepare(Settings::folder());
    let configured = server.main;
    server.main = socket.local_addr().expect("bound");
    server.activate(socket.into());
    server.ready().await;
    let session = Session::create_until(server.main, Random::new().bytes(100_000)).await;
    session.send_all(How::WHOLE).await;
    session.complete().await;
    session.verify().await;
    assert!(
        TcpListener::bind(configured).is_ok(),
        "nobody listens on the configured one"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passed_unix_socket_stays_when_the_server_ends() {
    let mut server = Server::prepare(Settings::folder());
    let path = server.folder().join("passed.sock");
    let socket = UnixListener::bind(&path).expect("a socket");
    server.activate(socket.into());
    server.ready().await;
    let stream = UnixStream::connect(&path).await.expect("a connection");
    let mut connection = Connection::over(stream, "localhost");
    let answer = connection.call("GET", "/healthz", &[], b"").await;
    answer.expect(200);
    server.terminate().await;
    assert_eq!(server.exit(START).await, Some(0));
    assert!(path.exists(), "it is another's");
}

/// What counts is the address that is really listened on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passed_socket_that_others_can_reach_is_refused() {
    let socket = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
    let mut server = Server::prepare(Settings::folder());
    server.activate(socket.into());
    assert_eq!(server.exit(START).await, Some(2));
    assert!(server.log().contains("--insecure"), "{}", server.log());
}
