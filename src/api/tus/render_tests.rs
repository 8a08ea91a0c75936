use std::time::Duration;

use super::*;
use crate::model::digest::Digests;
use crate::model::upload::{Declared, Epoch, HashPoint, Protocol};
use crate::model::{ByteRange, Length, Object, Plan, UploadKey};

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn settings(public_url: &str) -> Settings {
    Settings {
        base: "/files".to_owned(),
        public_url: public_url.to_owned(),
        body_timeout: Duration::from_secs(1),
    }
}

fn upload(role: Role, state: UploadState, length: Option<u64>) -> Upload {
    Upload {
        id: UploadId::from_bytes([7; 16]),
        key_hash: UploadKey::generate().hash(),
        owner: crate::model::UploadOwner::default(),
        max_size: None,
        typed: false,
        protocol: Protocol::Tus,
        role,
        declared: Declared {
            metadata_field: Some("filename YS50eHQ=,secret".to_owned()),
            ..Declared::default()
        },
        state,
        length: length.map(Length),
        plan: Plan::OneCell,
        epoch: Epoch(1),
        hash: HashPoint {
            offset: Offset(0),
            state: Vec::new(),
        },
        readback: false,
        boot: String::new(),
        store_key: "k".parse().expect("a key"),
        store_upload_id: None,
        unchecked: false,
        created_at: NOW,
        updated_at: NOW,
        expires_at: NOW.after(Duration::from_mins(1)),
        sealed: None,
    }
}

fn completed() -> UploadState {
    let object = Object {
        key: "k".parse().expect("a key"),
        first: UploadId::from_bytes([7; 16]),
        space: crate::model::SpaceName::default(),
        shared: false,
        size: Length(100),
        content_type: None,
        digests: Digests::default(),
        etag: "tag".to_owned(),
        verified: crate::model::upload::Verified::Stream,
        store_checked: true,
    };
    UploadState::Completed { object, at: NOW }
}

fn status_of(upload: Upload, bytes: u64) -> Status {
    Status {
        upload,
        received: ByteRange::new(0, bytes).into_iter().collect(),
        sealed: Some(Secret("final;/files/a /files/b".to_owned())),
    }
}

/// Status and header fields.
fn shown(response: &Response) -> String {
    let fields: Vec<String> = response
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().expect("ASCII")))
        .collect();
    format!("{}\n{}", response.status(), fields.join("\n"))
}

fn creation(progress: Progress, public_url: &str) -> String {
    let upload = upload(Role::Whole, UploadState::Pending, Some(100));
    let handle = Handle {
        id: upload.id,
        key: UploadKey::generate(),
    };
    let response = created(&upload, &handle, progress, &settings(public_url));
    shown(&response).replace(&handle.reveal(), "(handle)")
}

#[test]
fn a_creation_tells_where_the_upload_is() {
    insta::assert_snapshot!(creation(Progress::default(), ""), @r"
    201 Created
    cache-control: no-store
    location: /files/(handle)
    upload-id: 07070707-0707-0707-0707-070707070707
    upload-expires: Tue, 14 Nov 2023 22:14:20 GMT
    ");
}

#[test]
fn a_creation_with_bytes_tells_how_many_are_there() {
    let some = Progress {
        offset: Some(Offset(10)),
        completed: false,
    };
    insta::assert_snapshot!(creation(some, "https://up.example"), @r"
    201 Created
    cache-control: no-store
    location: https://up.example/files/(handle)
    upload-id: 07070707-0707-0707-0707-070707070707
    upload-offset: 10
    upload-expires: Tue, 14 Nov 2023 22:14:20 GMT
    ");
    let all = Progress {
        offset: Some(Offset(100)),
        completed: true,
    };
    insta::assert_snapshot!(creation(all, ""), @r"
    201 Created
    cache-control: no-store
    location: /files/(handle)
    upload-id: 07070707-0707-0707-0707-070707070707
    upload-offset: 100
    ");
}

#[test]
fn a_patch_tells_the_offset_and_with_the_last_byte_the_upload() {
    let written = |offset| {
        let id = UploadId::from_bytes([7; 16]);
        let written = Written {
            offset: Offset(offset),
            length: Some(Length(100)),
            expires_at: NOW,
        };
        shown(&super::written(id, &written))
    };
    insta::assert_snapshot!(written(10), @r"
    204 No Content
    cache-control: no-store
    upload-offset: 10
    upload-expires: Tue, 14 Nov 2023 22:13:20 GMT
    ");
    insta::assert_snapshot!(written(100), @r"
    204 No Content
    cache-control: no-store
    upload-offset: 100
    upload-id: 07070707-0707-0707-0707-070707070707
    ");
}

#[test]
fn a_head_tells_all_but_the_offset_of_what_is_not_put_together() {
    let pending = upload(Role::Whole, UploadState::Uploading, None);
    insta::assert_snapshot!(shown(&status(&status_of(pending, 10))), @r"
    200 OK
    cache-control: no-store
    upload-offset: 10
    upload-defer-length: 1
    upload-metadata: filename YS50eHQ=,secret
    upload-expires: Tue, 14 Nov 2023 22:14:20 GMT
    ");
    let partial = upload(Role::Partial, completed(), Some(100));
    insta::assert_snapshot!(shown(&status(&status_of(partial, 100))), @r"
    200 OK
    cache-control: no-store
    upload-offset: 100
    upload-length: 100
    upload-metadata: filename YS50eHQ=,secret
    upload-concat: partial
    ");
    let waits = upload(Role::Final, UploadState::Pending, None);
    insta::assert_snapshot!(shown(&status(&status_of(waits, 0))), @r"
    200 OK
    cache-control: no-store
    upload-metadata: filename YS50eHQ=,secret
    upload-concat: final;/files/a /files/b
    upload-expires: Tue, 14 Nov 2023 22:14:20 GMT
    ");
    let waits = upload(Role::Final, UploadState::Pending, Some(100));
    insta::assert_snapshot!(shown(&status(&status_of(waits, 0))), @r"
    200 OK
    cache-control: no-store
    upload-length: 100
    upload-metadata: filename YS50eHQ=,secret
    upload-concat: final;/files/a /files/b
    upload-expires: Tue, 14 Nov 2023 22:14:20 GMT
    ");
    let there = upload(Role::Final, completed(), Some(100));
    insta::assert_snapshot!(shown(&status(&status_of(there, 100))), @r"
    200 OK
    cache-control: no-store
    upload-offset: 100
    upload-length: 100
    upload-metadata: filename YS50eHQ=,secret
    upload-concat: final;/files/a /files/b
    ");
}

#[test]
fn what_the_server_can_do() {
    insta::assert_snapshot!(shown(&discovery(AtPath::Base, 1 << 30)), @r"
    204 No Content
    cache-control: no-store
    allow: POST,OPTIONS
    tus-version: 1.0.0
    tus-extension: creation,creation-with-upload,creation-defer-length,expiration,checksum,checksum-trailer,termination,concatenation,concatenation-unfinished
    tus-max-size: 1073741824
    tus-checksum-algorithm: sha1,sha256,sha512,md5,crc32c
    ");
    insta::assert_snapshot!(shown(&discovery(AtPath::Upload, 1 << 30)), @r"
    204 No Content
    cache-control: no-store
    allow: HEAD,PATCH,GET,DELETE,OPTIONS
    tus-version: 1.0.0
    tus-extension: creation,creation-with-upload,creation-defer-length,expiration,checksum,checksum-trailer,termination,concatenation,concatenation-unfinished
    tus-max-size: 1073741824
    tus-checksum-algorithm: sha1,sha256,sha512,md5,crc32c
    ");
    insta::assert_snapshot!(shown(&terminated()), @r"
    204 No Content
    cache-control: no-store
    ");
}
