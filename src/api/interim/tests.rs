//! What is on the wire, byte by byte: through the IO object alone, through a connection of hyper's over a pipe of a chosen
//! size, and through the accept loop.

use std::task::Waker;
use std::time::Duration;

use axum::Extension;
use axum::routing::{get, post};
use http::{HeaderName, HeaderValue};
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::super::body::DrainLimits;
use super::super::forwarded::Trusted;
use super::super::listener::Listener;
use super::super::observe::HeadLimits;
use super::super::server::{self, Limits};
use super::*;

const WIRE: &str =
    "HTTP/1.1 104 Upload Resumption Supported\r\nlocation: /1\r\nupload-offset: 5\r\n\r\n";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

fn head() -> InterimHead {
    let fields = [("location", "/1"), ("upload-offset", "5")].map(|(name, value)| {
        let name = HeaderName::from_static(name);
        (name, HeaderValue::from_static(value))
    });
    InterimHead::upload_resumption_supported(&fields.into_iter().collect())
}

/// The IO object, driven by hand.
struct Driven {
    io: InterimIo<DuplexStream>,
    client: DuplexStream,
    queue: InterimQueue,
}

impl Driven {
    /// The pipe holds so many bytes.
    fn new(capacity: usize) -> Self {
        let (client, server) = duplex(capacity);
        let queue = InterimQueue::default();
        let io = InterimIo::new(server, queue.clone());
        Self { io, client, queue }
    }

    fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(&mut context(), bytes)
    }

    fn write_vectored(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let slices = [io::IoSlice::new(bytes)];
        Pin::new(&mut self.io).poll_write_vectored(&mut context(), &slices)
    }

    fn flush(&mut self) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(&mut context())
    }

    /// What the client gets without waiting.
    fn received(&mut self) -> String {
        let mut bytes = [0; 1024];
        let mut buf = ReadBuf::new(&mut bytes);
        let _ = Pin::new(&mut self.client).poll_read(&mut context(), &mut buf);
        String::from_utf8(buf.filled().to_vec()).expect("text")
    }
}

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut context())
}

#[test]
fn a_head_goes_out_with_a_flush() {
    let mut driven = Driven::new(1024);
    let interim = driven.queue.open();
    let mut sending = Box::pin(interim.send(head()));
    assert!(poll(&mut sending).is_pending());
    assert_eq!(driven.received(), "");
    assert!(driven.flush().is_ready());
    assert_eq!(driven.received(), WIRE);
    assert_eq!(poll(&mut sending), Poll::Ready(true));
}

#[test]
fn a_head_is_not_begun_where_an_answer_may_be_waiting() {
    let mut driven = Driven::new(1024);
    let interim = driven.queue.open();
    let mut sending = Box::pin(interim.send(head()));
    assert!(poll(&mut sending).is_pending());
    assert!(driven.write(b"the answer ").is_ready());
    assert!(driven.write_vectored(b"before\n").is_ready());
    assert!(driven.flush().is_ready());
    assert_eq!(driven.received(), format!("the answer before\n{WIRE}"));
}

#[test]
fn a_begun_head_is_finished_before_anything_follows() {
    for write in [Driven::write, Driven::write_vectored] {
        let mut driven = Driven::new(30);
        let interim = driven.queue.open();
        let mut sending = Box::pin(interim.send(head()));
        assert!(poll(&mut sending).is_pending());
        assert!(driven.flush().is_pending());
        driven.queue.close();
        let mut received = String::new();
        while write(&mut driven, b"the answer").is_pending() {
            received += &driven.received();
        }
        received += &driven.received();
        assert_eq!(received, format!("{WIRE}the answer"));
        assert!(driven.flush().is_ready());
        assert_eq!(driven.received(), "");
    }
}

#[test]
fn a_head_that_nobody_waits_for_is_not_sent() {
    let mut driven = Driven::new(1024);
    let interim = driven.queue.open();
    let mut given_up = Box::pin(interim.send(head()));
    assert!(poll(&mut given_up).is_pending());
    drop(given_up);
    assert!(driven.flush().is_ready());
    assert_eq!(driven.received(), "");
}

#[test]
fn an_error_is_met_by_the_next_write() {
    let mut driven = Driven::new(30);
    let interim = driven.queue.open();
    let mut sending = Box::pin(interim.send(head()));
    assert!(poll(&mut sending).is_pending());
    assert!(driven.flush().is_pending());
    (driven.client, _) = duplex(1);
    assert!(matches!(driven.flush(), Poll::Ready(Ok(()))));
    assert_eq!(poll(&mut sending), Poll::Ready(false));
    assert!(matches!(driven.write(b"more"), Poll::Ready(Err(_))));
}

/// A connection of hyper's over a pipe that holds so many bytes each way.
fn connect(router: Router, capacity: usize) -> (DuplexStream, JoinHandle<()>) {
    let (client, server) = duplex(capacity);
    let queue = InterimQueue::default();
    let io = InterimIo::new(server, queue.clone());
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        queue.clone().answer(request.map(Body::new), router.clone())
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(io), service);
    let connection = tokio::spawn(async move {
        // Tests look at what the client got.
        let _ = connection.await;
    });
    (client, connection)
}

/// Fails rather than hangs: with the clock paused, the time is over when nothing moves any more.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_mins(1), future)
        .await
        .expect("nothing comes any more")
}

async fn read_head(client: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(client.read_u8()).await.expect("a whole head"));
    }
    String::from_utf8(head).expect("text")
}

/// The status of each head until the connection ends; answers have no bodies.
async fn statuses(client: &mut (impl AsyncRead + Unpin)) -> Vec<String> {
    let mut rest = String::new();
    soon(client.read_to_string(&mut rest)).await.expect("text");
    rest.split_inclusive("\r\n\r\n").map(status).collect()
}

/// The head has to be well-formed and, if it is one of ours, whole.
fn status(head: &str) -> String {
    assert!(head.ends_with("\r\n\r\n"), "{head}");
    let status = head.strip_prefix("HTTP/1.1 ").expect(head);
    let status = status.split(' ').next().expect(head);
    match status {
        "100" => assert_eq!(head, CONTINUE),
        "104" => assert_eq!(head, WIRE),
        _ => assert!(head.contains("content-length: 0\r\n"), "{head}"),
    }
    status.to_owned()
}

/// Sends one head and answers.
async fn inline(Extension(interim): Extension<Interim>) {
    assert!(interim.send(head()).await);
}

#[tokio::test(start_paused = true)]
async fn a_handler_sends_before_it_answers() {
    let (mut client, _connection) = connect(Router::new().route("/", get(inline)), 1024);
    let request = b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n";
    client.write_all(request).await.unwrap();
    assert_eq!(statuses(&mut client).await, ["104", "200"]);
}

#[tokio::test(start_paused = true)]
async fn a_task_sends_while_the_handler_waits_for_the_body() {
    let handler = async |Extension(interim): Extension<Interim>, body: Body| {
        let task = tokio::spawn(async move {
            // The connection's task has gone to sleep by then.
            tokio::time::sleep(Duration::from_secs(1)).await;
            interim.send(head()).await
        });
        assert_eq!(body.collect().await.unwrap().to_bytes(), "01234");
        assert!(task.await.unwrap());
    };
    let (mut client, _connection) = connect(Router::new().route("/", post(handler)), 1024);
    let request = b"POST / HTTP/1.1\r\ncontent-length: 5\r\nconnection: close\r\n\r\n";
    client.write_all(request).await.unwrap();
    assert_eq!(read_head(&mut client).await, WIRE);
    client.write_all(b"01234").await.unwrap();
    assert_eq!(statuses(&mut client).await, ["200"]);
}

#[tokio::test(start_paused = true)]
async fn both_interim_answers_where_both_are_expected() {
    let first = async |Extension(interim): Extension<Interim>, body: Body| {
        assert!(interim.send(head()).await);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "01234");
    };
    let together = async |Extension(interim): Extension<Interim>, body: Body| {
        let (body, sent) = tokio::join!(body.collect(), interim.send(head()));
        assert_eq!(body.unwrap().to_bytes(), "01234");
        assert!(sent);
    };
    let later = async |Extension(interim): Extension<Interim>, mut body: Body| {
        assert_eq!(
            body.frame().await.unwrap().unwrap().into_data().unwrap(),
            "0"
        );
        assert!(interim.send(head()).await);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "1234");
    };
    let router = Router::new()
        .route("/first", post(first))
        .route("/together", post(together))
        .route("/later", post(later));
    // In a narrow pipe each of the heads is cut into pieces.
    for capacity in [10, 1024] {
        for (path, begin, expected) in [
            ("/first", "", ["104", "100"]),
            ("/together", "", ["104", "100"]),
            ("/later", "0", ["100", "104"]),
        ] {
            let (mut client, _connection) = connect(router.clone(), capacity);
            let request = format!(
                "POST {path} HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 5\r\nconnection: close\r\n\r\n"
            );
            soon(client.write_all(request.as_bytes())).await.unwrap();
            let one = read_head(&mut client).await;
            client.write_all(begin.as_bytes()).await.unwrap();
            let mut got = [status(&one), status(&read_head(&mut client).await)];
            if path == "/together" {
                // Either may come first.
                got.sort_unstable_by(|a, b| b.cmp(a));
            }
            assert_eq!(got, expected, "{path}");
            let rest = &"01234"[begin.len()..];
            client.write_all(rest.as_bytes()).await.unwrap();
            assert_eq!(statuses(&mut client).await, ["200"], "{path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_head_stands_between_the_answer_before_and_its_own() {
    let handler = async |interim: Extension<Interim>, body: Body| {
        inline(interim).await;
        body.collect().await.unwrap();
    };
    for capacity in [10, 1024] {
        let router = Router::new().route("/", get(inline).post(handler));
        let (client, _connection) = connect(router, capacity);
        let (mut reading, mut writing) = tokio::io::split(client);
        let requests = "GET / HTTP/1.1\r\n\r\n\
            POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n01234\
            GET / HTTP/1.1\r\nconnection: close\r\n\r\n";
        let writing = tokio::spawn(async move { writing.write_all(requests.as_bytes()).await });
        let expected = ["104", "200", "104", "200", "104", "200"];
        assert_eq!(statuses(&mut reading).await, expected);
        soon(writing).await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_does_not_overtake_an_answer_that_waits() {
    let taken_up = Arc::new(Notify::new());
    let notify = Arc::clone(&taken_up);
    let handler = async move |interim: Extension<Interim>| {
        notify.notify_one();
        inline(interim).await;
    };
    let early = async |body: Body| {
        // Read on after the answer was given.
        tokio::spawn(body.collect());
    };
    let router = Router::new()
        .route("/early", get(async || ()).post(early))
        .route("/inline", get(handler));
    let first = b"GET /early HTTP/1.1\r\n\r\n";
    let (mut client, _connection) = connect(router.clone(), 1024);
    client.write_all(first).await.unwrap();
    let answer = read_head(&mut client).await;

    // The first answer fills the pipe, so that nothing of the second is written when its request has ended and the third is
    // taken up.
    let (mut client, _connection) = connect(router, answer.len());
    for sent in [
        &first[..],
        b"POST /early HTTP/1.1\r\ncontent-length: 5\r\n\r\n",
        b"01234GET /inline HTTP/1.1\r\n\r\n",
    ] {
        soon(client.write_all(sent)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    soon(taken_up.notified()).await;
    for expected in ["200", "200", "104", "200"] {
        assert_eq!(status(&read_head(&mut client).await), expected);
    }
}

/// Where handlers leave what outlives them.
type Left<T> = Arc<Mutex<Vec<T>>>;

#[tokio::test(start_paused = true)]
async fn a_handle_is_of_no_use_to_a_later_request() {
    let left = Left::<Interim>::default();
    let keep = Arc::clone(&left);
    let handler = async move |Extension(interim): Extension<Interim>| {
        keep.lock().unwrap().push(interim);
    };
    let slow = async || tokio::time::sleep(Duration::from_secs(10)).await;
    let router = Router::new()
        .route("/leave", get(handler))
        .route("/slow", get(slow));
    let (mut client, _connection) = connect(router, 1024);
    let request = b"GET /leave HTTP/1.1\r\n\r\n";
    client.write_all(request).await.unwrap();
    assert_eq!(status(&read_head(&mut client).await), "200");
    let interim = left.lock().unwrap().pop().expect("left by the handler");
    assert!(!soon(interim.send(head())).await);
    let request = b"GET /slow HTTP/1.1\r\nconnection: close\r\n\r\n";
    client.write_all(request).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!soon(interim.send(head())).await);
    assert_eq!(statuses(&mut client).await, ["200"]);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_queued_when_the_answer_comes_is_dropped() {
    type Sending = Pin<Box<dyn Future<Output = bool> + Send>>;
    let left = Left::<Sending>::default();
    let keep = Arc::clone(&left);
    let handler = async move |Extension(interim): Extension<Interim>| {
        let mut sending: Sending = Box::pin(async move { interim.send(head()).await });
        assert!(poll(&mut sending).is_pending());
        keep.lock().unwrap().push(sending);
    };
    let router = Router::new().route("/", get(handler));
    let (mut client, _connection) = connect(router, 1024);
    let requests = b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nconnection: close\r\n\r\n";
    client.write_all(requests).await.unwrap();
    assert_eq!(statuses(&mut client).await, ["200", "200"]);
    let left = std::mem::take(&mut *left.lock().unwrap());
    assert_eq!(left.len(), 2);
    for sending in left {
        assert!(!soon(sending).await);
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_told_when_the_connection_goes() {
    let waiting = Left::<JoinHandle<bool>>::default();
    let keep = Arc::clone(&waiting);
    let handler = async move |Extension(interim): Extension<Interim>| {
        // One begun, one queued, one before the queue.
        for _ in 0..3 {
            let interim = interim.clone();
            let sending = tokio::spawn(async move { interim.send(head()).await });
            keep.lock().unwrap().push(sending);
        }
        std::future::pending::<()>().await;
    };
    let (mut client, connection) = connect(Router::new().route("/", get(handler)), 30);
    let request = b"GET / HTTP/1.1\r\n\r\n";
    client.write_all(request).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let waiting = std::mem::take(&mut *waiting.lock().unwrap());
    assert_eq!(waiting.len(), 3);
    assert!(waiting.iter().all(|sending| !sending.is_finished()));
    connection.abort();
    for sending in waiting {
        assert!(!soon(sending).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_late_gets_whole_messages_and_is_read() {
    let handler = async |Extension(interim): Extension<Interim>, mut body: Body| {
        let progress = tokio::spawn(async move {
            let mut sent = 0;
            while interim.send(head()).await {
                sent += 1;
            }
            sent
        });
        let mut read = 0;
        while let Some(frame) = body.frame().await {
            read += frame.unwrap().into_data().unwrap().len();
        }
        assert_eq!(read, 10_000);
        drop(progress);
    };
    let (mut client, _connection) = connect(Router::new().route("/", post(handler)), 200);
    let request = b"POST / HTTP/1.1\r\ncontent-length: 10000\r\nconnection: close\r\n\r\n";
    client.write_all(request).await.unwrap();
    soon(client.write_all(&vec![b'.'; 10_000])).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let statuses = statuses(&mut client).await;
    let (last, heads) = statuses.split_last().expect("an answer");
    assert_eq!(last, "200");
    assert!(heads.len() > 2, "{heads:?}");
    assert!(heads.iter().all(|status| status == "104"), "{heads:?}");
}

async fn accept(router: Router) -> (std::net::SocketAddr, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Limits {
        head_timeout: Duration::from_secs(10),
        head: HeadLimits {
            bytes: 16 << 10,
            fields: 100,
        },
        connections: 10,
        refused_body: DrainLimits {
            bytes: 1 << 20,
            time: Duration::from_secs(1),
        },
    };
    let stop = CancellationToken::new();
    let listener = Listener::Tcp {
        socket: listener,
        tls: None,
    };
    let serving = server::serve(
        vec![listener],
        router,
        Trusted::default(),
        limits,
        stop.clone(),
    );
    tokio::spawn(serving);
    (address, stop)
}

#[tokio::test]
async fn http_1_1_alone_has_interim_answers() {
    let handler = async |interim: Option<Extension<Interim>>| match interim {
        Some(Extension(interim)) => interim.send(head()).await.to_string(),
        None => "none".to_owned(),
    };
    let (address, _stop) = accept(Router::new().route("/", get(handler))).await;

    let mut client = TcpStream::connect(address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n";
    client.write_all(request).await.unwrap();
    let mut got = String::new();
    client.read_to_string(&mut got).await.unwrap();
    let answer = got.strip_prefix(WIRE).expect(&got);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{got}");
    assert!(answer.ends_with("\r\n\r\ntrue"), "{got}");

    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut got = String::new();
    client.read_to_string(&mut got).await.unwrap();
    assert!(got.starts_with("HTTP/1.0 200 OK\r\n"), "{got}");
    assert!(got.ends_with("\r\n\r\nnone"), "{got}");

    let client = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), client)
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = Request::get(format!("http://{address}/")).body(Body::empty());
    let answer = client.send_request(request.unwrap()).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "none");
}

#[tokio::test]
async fn keep_what_came_also_when_a_head_meets_a_broken_connection() {
    let (result, read) = oneshot::channel();
    let result = Arc::new(Mutex::new(Some(result)));
    let handler = async move |Extension(interim): Extension<Interim>, mut body: Body| {
        let result = result.lock().unwrap().take().expect("one request");
        // The client has gone: a head may still go out, and is answered with a reset.
        while interim.send(head()).await {}
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.into_data().map_or(0, |data| data.len());
        }
        result.send(read).unwrap();
    };
    let (address, _stop) = accept(Router::new().route("/", post(handler))).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    let request = b"POST / HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n";
    client.write_all(request).await.unwrap();
    client.write_all(&vec![b'.'; 100_000]).await.unwrap();
    drop(client);
    assert_eq!(read.await, Ok(100_000));
}
