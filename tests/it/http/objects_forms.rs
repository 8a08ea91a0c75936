//! Forms to `POST /v1/objects`, however their bytes come: on a connection that was used before, in one frame, in many.

use bytes::Bytes;

use super::objects::{
    BASE, FORM, around, begin, expect_nothing, expect_object, form, sha256, soon_nothing,
};
use crate::support::h2::H2;
use crate::support::rig::{MIB, noise};
use crate::support::server::{both, uploaded};

/// The more a connection brings, the more of a body is read at once.
#[tokio::test]
async fn exact_bytes_of_forms_on_one_connection() {
    for server in both().await {
        let mut connection = server.connect().await;
        for seed in 0..6 {
            let bytes = noise([100_000, MIB][seed % 2], seed as u64);
            let fields = [("album", "1"), ("filename", "b.jpg")];
            let form = form(&fields, "a.jpg", &bytes);
            let taken = connection.call("POST", BASE, &[FORM], &form).await;
            expect_object(&server, &taken, &bytes).await;
            let status = server.status(&uploaded(&taken)).await;
            assert_eq!(status["filename"], "b.jpg");
        }
    }
}

#[tokio::test]
async fn exact_bytes_of_a_form_with_all_its_fields_over_http2() {
    for server in both().await {
        let client = H2::open(server.main).await;
        for (seed, length) in [(1, 100_000), (2, 3 * MIB)] {
            let bytes = noise(length, seed);
            let size = bytes.len().to_string();
            let digest = format!("sha-256:{}", sha256(&bytes));
            let fields = [
                ("album", "1"),
                ("filename", "b.jpg"),
                ("size", size.as_str()),
                ("digest", &digest),
            ];
            let form = form(&fields, "a.jpg", &bytes);
            let taken = client.call("POST", BASE, &[FORM], &form).await;
            expect_object(&server, &taken, &bytes).await;
            let (feed, answer) = client.begin("POST", BASE, &[FORM]);
            for frame in form.chunks(16 << 10) {
                feed.send(Bytes::copy_from_slice(frame)).unwrap();
            }
            drop(feed);
            let taken = answer.await.unwrap().expect("an answer");
            expect_object(&server, &taken, &bytes).await;
        }
    }
}

/// What never comes to its file, or never to its end, is refused while more would come, and nothing of it stays.
#[tokio::test]
async fn bounded_what_a_form_has_beside_its_file() {
    let (part, _) = around(&[("f", "1")], "");
    let head = "--frontier\r\nContent-Disposition: form-data; name=\"f\"\r\n";
    let file = around(&[], "a").0 + "some\r\n";
    for server in both().await {
        for (begins, more) in [
            (String::new(), "a preamble "),
            (head.to_owned() + "X: ", "a head "),
            (head.to_owned() + "\r\n", "a field "),
            (String::new(), &(part.clone() + "\r\n")),
            (file.clone() + head + "X: ", "a head "),
            (file.clone() + head + "\r\n", "a field "),
            (file.clone(), &(part.clone() + "\r\n")),
        ] {
            let mut connection = begin(&server, BASE, &[FORM]).await;
            let form = begins + &more.repeat(200_000 / more.len());
            // It is not ended. Refused early, the connection may be closed by now.
            let _ = connection.send_coded(form.as_bytes()).await;
            let refused = connection.answer().await;
            refused.expect_problem(400, "bad_request");
            let detail = refused.json()["detail"].to_string();
            assert!(detail.contains("may have 65536 bytes"), "{more}: {detail}");
            soon_nothing(&server).await;
            expect_nothing(&server).await;
        }
    }
}
