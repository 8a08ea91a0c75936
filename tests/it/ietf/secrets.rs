//! What a URL holds is in no log and no refusal. `http/secrets.rs` listens to the log.

use std::fmt::Write as _;

use super::{PARTIAL, credentials, newest};
use crate::support::http::Answer;
use crate::support::server::Server;

/// What a client can do to an upload, well and badly, and all that was answered but where the upload is.
pub(crate) async fn all_operations(server: &Server) -> (Vec<String>, String) {
    let client = newest(server);
    let mut said = String::new();
    let mut hear = |answer: Answer| {
        let _ = write!(said, "{:?}{}", answer.headers, answer.text());
    };
    let url = client.begun(b"123").await;
    let fields = [("Content-Length", "100")];
    let mut cut = client.append_head(&url, 3, false, &fields).await;
    cut.send(b"45").await.unwrap();
    client.wait_for(&url, 5).await;
    drop(cut);
    hear(client.head(&url).await);
    hear(client.append(&url, 3, true, b"45").await);
    hear(client.call("PATCH", &url, &[PARTIAL], b"").await);
    hear(client.call("POST", &url, &[], b"").await);
    hear(client.call("GET", &format!("{url}/below"), &[], b"").await);
    hear(client.call("HEAD", &format!("{url}A"), &[], b"").await);
    client.append(&url, 5, true, b"").await.expect(201);
    hear(client.append(&url, 5, false, b"6").await);
    hear(client.get(&url).await);
    hear(client.delete(&url).await);
    hear(client.delete(&url).await);
    let handle = url.trim_start_matches("/resumable/").to_owned();
    (vec![handle, credentials(&url).1.reveal()], said)
}
