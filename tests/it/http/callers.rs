//! Who may do what, through every protocol.

use serde_json::json;

use crate::support::callers::closed;
use crate::support::http::Answer;
use crate::support::server::{Server, Upload, uploaded};

const BYTES: (&str, &str) = ("Content-Type", "application/offset+octet-stream");
const PARTIAL: (&str, &str) = ("Content-Type", "application/partial-upload");
const JSON: (&str, &str) = ("Content-Type", "application/json");
const TUS: (&str, &str) = ("Tus-Resumable", "1.0.0");
const FORM: (&str, &str) = ("Content-Type", "multipart/form-data; boundary=x");
const FORM_BODY: &str =
    "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n123\r\n--x--\r\n";
const VERSIONS: [&str; 4] = ["3", "5", "6", "8"];

/// A request, and the secret in it that opens an upload, if it needs one.
struct Asked {
    method: &'static str,
    path: String,
    fields: Vec<(&'static str, String)>,
    body: &'static str,
    secret: Option<String>,
}

impl Asked {
    fn new(
        method: &'static str,
        path: &str,
        fields: &[(&'static str, &str)],
        body: &'static str,
    ) -> Self {
        let owned = |&(name, value): &(&'static str, &str)| (name, value.to_owned());
        Self {
            method,
            path: path.to_owned(),
            fields: fields.iter().map(owned).collect(),
            body,
            secret: None,
        }
    }

    fn opened_by(mut self, secret: &str) -> Self {
        self.secret = Some(secret.to_owned());
        self
    }

    /// The same with a secret that opens nothing.
    fn misspelled(&self) -> Option<Self> {
        let secret = self.secret.as_deref()?;
        let (before, last) = secret.split_at(secret.len() - 8);
        let other = if last.starts_with('A') { "B" } else { "A" };
        let wrong = format!("{before}{other}{}", &last[1..]);
        let fields = self.fields.iter();
        Some(Self {
            method: self.method,
            path: self.path.replace(secret, &wrong),
            fields: fields
                .map(|(name, value)| (*name, value.replace(secret, &wrong)))
                .collect(),
            body: self.body,
            secret: Some(wrong),
        })
    }

    async fn send(&self, server: &Server, bearer: Option<&str>) -> Answer {
        let fields = self.fields.iter();
        let mut fields: Vec<_> = fields
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        fields.extend(bearer.map(|bearer| ("Authorization", bearer)));
        let body = self.body.as_bytes();
        server.call(self.method, &self.path, &fields, body).await
    }

    fn shown(&self) -> String {
        format!("{} {} {:?}", self.method, self.path, self.fields)
    }
}

/// An upload of the guest's, or its URL, through each protocol.
struct Begun {
    native: Upload,
    tus: String,
    ietf: Vec<(&'static str, String)>,
    s3: (String, String),
}

async fn begin(server: &Server, guest: &str) -> Begun {
    let mine = ("Authorization", guest);
    let native = server.post_with(&[mine], &json!({"length": 6})).await;
    let post = async |path: &str, fields: &[(&str, &str)], body: &[u8]| {
        server.with_token(guest, "POST", path, fields, body).await
    };
    let url = |created: Answer| {
        let url = created.header("Location").expect("a URL");
        url[url.find("/files/").or(url.find("/resumable/")).unwrap()..].to_owned()
    };
    let tus = post("/files", &[TUS, ("Upload-Length", "6")], b"").await;
    let mut ietf = Vec::new();
    for version in VERSIONS {
        let of = ("Upload-Draft-Interop-Version", version);
        let created = post("/resumable", &[of, incomplete(version)], b"123").await;
        created.expect(201);
        ietf.push((version, url(created)));
    }
    let file = br#"{"filename":"a","type":"image/png"}"#;
    let s3 = post("/s3/multipart", &[JSON], file)
        .await
        .expect(200)
        .json();
    let text = |name: &str| s3[name].as_str().unwrap().to_owned();
    Begun {
        native: uploaded(native.expect(201)),
        tus: url(tus),
        ietf,
        s3: (text("uploadId"), text("key")),
    }
}

fn incomplete(version: &str) -> (&'static str, &'static str) {
    if version == "3" {
        ("Upload-Incomplete", "?1")
    } else {
        ("Upload-Complete", "?0")
    }
}

/// What creates.
fn creations() -> Vec<Asked> {
    let mut all = vec![
        Asked::new("POST", "/v1/uploads", &[JSON], r#"{"length":3}"#),
        Asked::new("POST", "/files", &[TUS, ("Upload-Length", "3")], ""),
        Asked::new(
            "POST",
            "/files",
            &[TUS, BYTES, ("Upload-Length", "3")],
            "123",
        ),
        Asked::new(
            "POST",
            "/v1/objects",
            &[("Content-Type", "text/plain")],
            "123",
        ),
        Asked::new("POST", "/v1/objects", &[FORM], FORM_BODY),
        Asked::new("POST", "/s3/multipart", &[JSON], r#"{"filename":"a"}"#),
        Asked::new("GET", "/s3/params?filename=a&type=b", &[], ""),
    ];
    for version in VERSIONS {
        let of = ("Upload-Draft-Interop-Version", version);
        for method in ["POST", "PUT", "PATCH"] {
            all.push(Asked::new(
                method,
                "/resumable",
                &[of, incomplete(version)],
                "123",
            ));
        }
    }
    all
}

/// What is done to uploads that are there, but for the HEAD of tus. What ends them comes last.
fn rest(begun: &Begun) -> Vec<Asked> {
    let mut all = Vec::new();
    let native = &begun.native;
    let key = ("Upload-Key", native.key.as_str());
    let range = ("Content-Range", "bytes 0-2/6");
    for (method, below, fields, body) in [
        ("GET", "", &[key][..], ""),
        ("HEAD", "", &[key], ""),
        ("PUT", "/chunk", &[key, range], "123"),
        ("POST", "/parts/urls", &[key], r#"{"part_numbers":[1]}"#),
        ("POST", "/parts/1", &[key], ""),
        ("POST", "/complete", &[key], "{}"),
        ("DELETE", "", &[key], ""),
    ] {
        all.push(Asked::new(method, &native.path(below), fields, body).opened_by(&native.key));
    }
    let handle = begun.tus.rsplit('/').next().unwrap();
    let patch = [TUS, BYTES, ("Upload-Offset", "0")];
    let over = ("X-HTTP-Method-Override", "PATCH");
    for (method, fields, body) in [
        ("PATCH", &patch[..], "123"),
        ("POST", &[over, patch[0], patch[1], patch[2]], "123"),
        ("DELETE", &[TUS], ""),
    ] {
        all.push(Asked::new(method, &begun.tus, fields, body).opened_by(handle));
    }
    for (version, url) in &begun.ietf {
        let of = ("Upload-Draft-Interop-Version", *version);
        let handle = url.rsplit('/').next().unwrap();
        let append = [of, PARTIAL, ("Upload-Offset", "3"), incomplete(version)];
        for (method, fields, body) in [
            ("HEAD", &[of][..], ""),
            ("PATCH", &append, "456"),
            ("DELETE", &[of], ""),
        ] {
            all.push(Asked::new(method, url, fields, body).opened_by(handle));
        }
    }
    let (id, key) = &begun.s3;
    for (method, below, body) in [
        ("GET", "", ""),
        ("GET", "/1", ""),
        ("GET", "/batch", ""),
        ("POST", "/complete", r#"{"parts":[]}"#),
        ("DELETE", "", ""),
    ] {
        let numbers = if below == "/batch" {
            "&partNumbers=1"
        } else {
            ""
        };
        let url = format!("/s3/multipart/{id}{below}?key={key}{numbers}");
        all.push(Asked::new(method, &url, &[JSON], body).opened_by(id));
    }
    all
}

fn assert_refused(asked: &Asked, answer: &Answer, status: u16, code: &str) {
    let shown = asked.shown();
    assert_eq!(answer.status, status, "{shown}: {}", answer.text());
    if asked.path.starts_with("/files") {
        assert_eq!(answer.header("Tus-Resumable"), Some("1.0.0"), "{shown}");
    }
    if asked.path.starts_with("/resumable") {
        // The client must not take this for an upload that it may go on with.
        assert_eq!(answer.header("Location"), None, "{shown}");
    }
    if asked.method != "HEAD" {
        assert_eq!(answer.code(), code, "{shown}");
    }
    let challenge = answer.header("WWW-Authenticate");
    assert_eq!(challenge.is_some(), status == 401, "{shown}: {challenge:?}");
}

#[tokio::test]
async fn whoever_has_no_token_does_nothing_in_any_protocol() {
    let server = Server::today(closed).await;
    let begun = begin(&server, &server.guest("alice")).await;
    let before = server.everything().await;
    let reader = server.bearer(&json!({"sub": "alice", "jti": "r", "scope": "read"}));
    let nowhere = server.bearer(&json!({"sub": "alice", "space": "nowhere"}));
    for asked in creations().into_iter().chain(rest(&begun)) {
        let refused = asked.send(&server, None).await;
        assert_refused(&asked, &refused, 401, "unauthorized");
        let challenge = refused.header("WWW-Authenticate");
        assert_eq!(challenge, Some("Bearer realm=\"jumar\""));
        for bearer in [&reader, &nowhere] {
            let refused = asked.send(&server, Some(bearer)).await;
            assert_refused(&asked, &refused, 403, "forbidden");
        }
    }
    assert_eq!(server.everything().await, before);
}

#[tokio::test]
async fn whoever_has_another_ones_key_does_nothing_with_it() {
    let server = Server::today(closed).await;
    let alice = server.guest("alice");
    let begun = begin(&server, &alice).await;
    let before = server.everything().await;
    let bob = server.guest("bob");
    for asked in rest(&begun) {
        let refused = asked.send(&server, Some(&bob)).await;
        assert_refused(&asked, &refused, 403, "forbidden");
        let wrong = asked.misspelled().expect("all have a secret");
        for bearer in [&alice, &bob] {
            let refused = wrong.send(&server, Some(bearer)).await;
            assert_refused(&wrong, &refused, 404, "not_found");
        }
    }
    assert_eq!(server.everything().await, before);
    for asked in rest(&begun) {
        let answer = asked.send(&server, Some(&alice)).await;
        let refused = matches!(answer.status, 401 | 403 | 404);
        assert!(!refused, "{}: {}", asked.shown(), answer.text());
    }
}

#[tokio::test]
async fn what_needs_no_token_goes_on_without() {
    let server = Server::today(closed).await;
    let begun = begin(&server, &server.guest("alice")).await;
    let head = server.call("HEAD", &begun.tus, &[TUS], b"").await;
    assert_eq!(head.expect(200).offset(), 0);
    assert_eq!(head.header("Upload-Length"), Some("6"));
    for path in [&begun.tus, &begun.ietf[3].1, "/files", "/resumable"] {
        server.call("OPTIONS", path, &[], b"").await.expect(204);
    }
}
