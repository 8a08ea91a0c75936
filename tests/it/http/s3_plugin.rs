//! `/s3`, as Uppy's S3 plugin asks for it.

use std::fmt::Write as _;
use std::time::Duration;

use jumar::store::call::Call;
use jumar::store::faulty::{Fault, When};
use serde_json::{Value, json};

use crate::support::direct::send;
use crate::support::http::Answer;
use crate::support::rig::noise;
use crate::support::server::{Server, both};

const LEAST: usize = 5 << 20;

/// An upload as the plugin knows it.
struct Begun {
    key: String,
    id: String,
}

impl Begun {
    fn path(&self, below: &str) -> String {
        format!("/s3/multipart/{}{below}?key={}", self.id, self.key)
    }
}

async fn post(server: &Server, path: &str, json: &Value) -> Answer {
    let fields = [("Content-Type", "application/json")];
    let json = json.to_string();
    server.call("POST", path, &fields, json.as_bytes()).await
}

async fn begin(server: &Server) -> Begun {
    let file = json!({"filename": "a b.bin", "type": "image/png", "metadata": {"name": "a b.bin", "relativePath": null}});
    let begun = post(server, "/s3/multipart", &file)
        .await
        .expect(200)
        .json();
    let text = |name: &str| begun[name].as_str().expect("a text").to_owned();
    Begun {
        key: text("key"),
        id: text("uploadId"),
    }
}

/// Puts a part by its URL, with no header fields, as the plugin of any version does it.
async fn put(url: &Value, bytes: &[u8]) -> Answer {
    send("PUT", url.as_str().expect("a URL"), &[], bytes).await
}

fn part(number: u32, put: &Answer) -> Value {
    json!({"PartNumber": number, "ETag": put.header("ETag").unwrap()})
}

async fn put_part(server: &Server, upload: &Begun, number: u32, bytes: &[u8]) -> Value {
    let signed = server.get(&upload.path(&format!("/{number}"))).await;
    let put = put(&signed.expect(200).json()["url"], bytes).await;
    put.expect(200);
    part(number, &put)
}

async fn complete(server: &Server, upload: &Begun, parts: &[Value]) -> Answer {
    post(
        server,
        &upload.path("/complete"),
        &json!({ "parts": parts }),
    )
    .await
}

/// The path of a URL that names this server.
fn path_of<'a>(server: &Server, url: &'a Value) -> &'a str {
    let url = url.as_str().expect("a URL");
    url.strip_prefix(&format!("http://{}", server.main))
        .expect("this server's")
}

#[tokio::test]
async fn exact_bytes_of_a_file_that_the_plugin_cuts() {
    let server = Server::today(|_| {}).await;
    let upload = begin(&server).await;
    let listed = server.get(&upload.path("")).await;
    assert_eq!(listed.expect(200).json(), json!([]));
    let bytes = noise(2 * LEAST as u64 + 345, 1);
    let [one, two, three] = [
        &bytes[..LEAST],
        &bytes[LEAST..2 * LEAST],
        &bytes[2 * LEAST..],
    ];
    let signed = server.get(&upload.path("/1")).await;
    let signed = signed.expect(200);
    assert_eq!(signed.header("cache-control"), Some("no-store"));
    let signed = signed.json();
    assert_eq!(signed["method"], "PUT");
    assert_eq!(signed["expires"], 3600);
    let first = put(&signed["url"], one).await;
    let first = part(1, first.expect(200));
    let batch = format!(
        "/s3/multipart/{}/batch?key={}&partNumbers=2,3",
        upload.id, upload.key
    );
    let urls = server.get(&batch).await.expect(200).json();
    let urls = &urls["presignedUrls"];
    let third = put(&urls["3"], three).await;
    let third = part(3, third.expect(200));
    let second = put(&urls["2"], two).await;
    let second = part(2, second.expect(200));
    let listed = server.get(&upload.path("")).await.expect(200).json();
    let sizes: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|part| &part["Size"])
        .collect();
    assert_eq!(sizes, [LEAST, LEAST, 345]);
    assert_eq!(listed[0]["PartNumber"], 1);
    let told = first["ETag"].as_str().unwrap().trim_matches('"');
    assert_eq!(listed[0]["ETag"], told);

    let parts = [first, second, third];
    let completed = complete(&server, &upload, &parts).await.expect(200).json();
    assert_eq!(completed["key"], upload.key);
    assert_eq!(completed["object"]["verified"], "readback");
    let content = server.get(path_of(&server, &completed["location"])).await;
    assert_eq!(content.expect(200).body, bytes);
    assert_eq!(content.header("content-type"), Some("image/png"));
    let again = complete(&server, &upload, &parts).await.expect(200).json();
    assert_eq!(again, completed);
    // Whoever has the link to the content can read it and no more.
    let tus = [("Tus-Resumable", "1.0.0")];
    for (below, fields) in [("/files", &tus[..]), ("/resumable", &[])] {
        let path = format!("{below}/{}", upload.id);
        let ended = server.call("DELETE", &path, fields, b"").await;
        ended.expect(404);
    }
    server
        .call("DELETE", &upload.path(""), &[], b"")
        .await
        .expect(409);
    let content = server.get(path_of(&server, &completed["location"])).await;
    assert_eq!(content.expect(200).body, bytes);
    assert_eq!(server.s3_server().backend().open_uploads(), []);
}

#[tokio::test]
async fn exact_bytes_a_completion_is_answered_when_the_object_is_there() {
    let server = Server::today(|config| config.uploads.complete_wait_secs = 1).await;
    let upload = begin(&server).await;
    let parts = [put_part(&server, &upload, 1, b"123").await];
    server.faults.fail(Call::Finish, When::Always, Fault::Hang);
    let healing = async {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        server.faults.heal();
    };
    let (completed, ()) = tokio::join!(complete(&server, &upload, &parts), healing);
    let location = completed.expect(200).json()["location"].clone();
    let content = server.get(path_of(&server, &location)).await;
    assert_eq!(content.expect(200).text(), "123");
}

#[tokio::test]
async fn small_files_go_to_our_own_form_and_never_to_the_bucket() {
    for server in both().await {
        let path = "/s3/params?filename=a+b%26c.txt&type=text%2Fplain&metadata%5Bname%5D=x";
        let form = server.get(path).await.expect(200).json();
        assert_eq!(form["method"], "POST");
        assert_eq!(path_of(&server, &form["url"]), "/v1/objects");
        assert_eq!(
            form["fields"],
            json!({"key": "a b&c.txt", "filename": "a b&c.txt"})
        );
    }
    let server =
        Server::with(|config| config.server.public_url = "https://up.example".into()).await;
    let form = server.get("/s3/params?filename=a").await.expect(200).json();
    assert_eq!(form["url"], "https://up.example/v1/objects");
}

#[tokio::test]
async fn a_store_that_cannot_sign_says_so_at_once() {
    let server = Server::fs().await;
    let refused = post(&server, "/s3/multipart", &json!({"filename": "a"})).await;
    refused.expect_problem(409, "direct_unavailable");
    assert_eq!(server.stored_files(), Vec::<String>::new());
}

#[tokio::test]
async fn exact_bytes_a_completion_that_lies_is_refused() {
    let server = Server::today(|config| config.uploads.max_size_bytes = 2 * LEAST as u64).await;
    let upload = begin(&server).await;
    let first = put_part(&server, &upload, 1, &noise(LEAST as u64, 1)).await;
    let second = put_part(&server, &upload, 2, b"1").await;
    let none = complete(&server, &upload, &[]).await;
    none.expect_problem(400, "bad_request");
    let mut other = second.clone();
    other["ETag"] = json!("\"00000000000000000000000000000000\"");
    let differs = complete(&server, &upload, &[first.clone(), other]).await;
    let differs = differs.expect_problem(409, "range_mismatch").json();
    assert_eq!(differs["part_numbers"], json!([2]));
    let mut absent = second.clone();
    absent["PartNumber"] = json!(3);
    let missing = complete(&server, &upload, &[first.clone(), absent]).await;
    let missing = missing.expect_problem(409, "upload_incomplete").json();
    assert_eq!(missing["part_numbers"], json!([3]));
    let third = put_part(&server, &upload, 3, &noise(LEAST as u64, 2)).await;
    let parts = [first, second, third];
    let large = complete(&server, &upload, &parts).await;
    large.expect_problem(413, "upload_limit");
    let again = complete(&server, &upload, &parts).await;
    again.expect_problem(410, "session_expired");
    assert_eq!(server.stored_files(), Vec::<String>::new());
}

#[tokio::test]
async fn own_only_what_the_plugin_aborts_leaves_nothing() {
    let server = Server::today(|_| {}).await;
    let upload = begin(&server).await;
    put_part(&server, &upload, 1, b"1").await;
    for _ in 0..2 {
        let aborted = server.call("DELETE", &upload.path(""), &[], b"").await;
        assert_eq!(aborted.expect(200).json(), json!({}));
    }
    assert_eq!(server.stored_files(), Vec::<String>::new());
    let late = server.get(&upload.path("/2")).await;
    late.expect_problem(410, "session_expired");
}

#[tokio::test]
async fn sealed_what_is_no_handle_opens_nothing() {
    let server = Server::today(|_| {}).await;
    let (upload, other) = (begin(&server).await, begin(&server).await);
    let told = put_part(&server, &upload, 1, b"1").await;
    // The id of the one with the key of the other.
    let crossed = format!("{}{}", &upload.id[..21], &other.id[21..]);
    for (id, key) in [
        ("nonsense", &*upload.key),
        (&*crossed, &*upload.key),
        (&*upload.id, &*other.key),
        (&*upload.id, "nonsense"),
        ("%ff", &*upload.key),
    ] {
        let wrong = Begun {
            id: id.to_owned(),
            key: key.to_owned(),
        };
        for below in ["", "/1", "/content"] {
            let answer = server.get(&wrong.path(below)).await;
            answer.expect_problem(404, "not_found");
        }
        let batch = format!("{}&partNumbers=1", wrong.path("/batch"));
        server.get(&batch).await.expect_problem(404, "not_found");
        complete(&server, &wrong, std::slice::from_ref(&told))
            .await
            .expect_problem(404, "not_found");
        let aborted = server.call("DELETE", &wrong.path(""), &[], b"").await;
        aborted.expect_problem(404, "not_found");
    }
    complete(&server, &upload, &[told]).await.expect(200);
}

#[tokio::test]
async fn pages_of_other_origins_may_use_it() {
    let server = Server::today(|_| {}).await;
    let upload = begin(&server).await;
    let origin = [("Origin", "https://page.example")];
    for path in [upload.path(""), upload.path("/1"), "/s3/nothing".into()] {
        let answer = server.call("GET", &path, &origin, b"").await;
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    }
}

/// What a plugin can do, well and badly, and all that was answered but what it has to be told.
pub(super) async fn all_operations(server: &Server) -> (Vec<String>, String) {
    let mut said = String::new();
    let mut secrets = Vec::new();
    let mut hear = |answer: Answer| {
        let _ = write!(said, "{:?}{}", answer.headers, answer.text());
    };
    let upload = begin(server).await;
    for path in [
        upload.path("/1"),
        format!("{}&partNumbers=2", upload.path("/batch")),
    ] {
        let signed = server.get(&path).await.expect(200).text();
        let (_, signature) = signed.split_once("Signature=").unwrap();
        secrets.push(signature.split(['&', '"']).next().unwrap().to_owned());
    }
    for below in ["", "/content", "/0", "/x", "/1/2"] {
        hear(server.get(&upload.path(below)).await);
    }
    let altered = Begun {
        id: format!("{}A", upload.id),
        key: upload.key.clone(),
    };
    hear(server.get(&altered.path("")).await);
    hear(server.call("PUT", &upload.path("/1"), &[], b"1").await);
    hear(complete(server, &upload, &[json!({"PartNumber": 1, "ETag": "a"})]).await);
    hear(server.call("DELETE", &upload.path(""), &[], b"").await);
    hear(server.get(&upload.path("/1")).await);
    secrets.push(upload.id);
    (secrets, said)
}
