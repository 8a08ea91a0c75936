//! The stores: the conformance suite on each of them, and what the S3 store makes of a store that misbehaves.

use std::sync::Arc;

use jumar::store::Store as _;
use jumar::store::call::Call;
use jumar::store::conformance::suite;
use jumar::store::faulty::Faults;
use jumar::store::fs::FsStore;
use jumar::store::hooked::Hooked;
use jumar::store::measured::Measured;
use jumar::store::s3::{ChecksumMode, S3Config, S3Store};

use crate::support::s3::{S3Server, real_config};

#[tokio::test]
async fn a_folder_conforms() {
    for power in [true, false] {
        let root = tempfile::tempdir().unwrap();
        suite(&FsStore::open(root.path(), power).unwrap()).await;
    }
}

#[tokio::test]
async fn wrapped_stores_conform_in_both_shapes() {
    let root = tempfile::tempdir().unwrap();
    let server = S3Server::start().await;
    let fs = Arc::new(FsStore::open(root.path(), false).unwrap());
    let faults = Faults::default();
    let timed = Arc::new(Hooked::new(fs, Measured));
    suite(&Hooked::new(timed, faults.clone())).await;
    let s3 = Arc::new(server.store().await);
    let timed = Arc::new(Hooked::new(s3, Measured));
    suite(&Hooked::new(timed, faults.clone())).await;
    for call in [Call::WriteAt, Call::CopyIn, Call::PutPart, Call::CopyPart] {
        assert!(faults.count(call) > 0, "{call:?}");
    }
}

#[tokio::test]
async fn a_strict_bucket_conforms_with_every_checksum() {
    for checksum in [
        ChecksumMode::Auto,
        ChecksumMode::Crc64Nvme,
        ChecksumMode::Crc32c,
        ChecksumMode::Md5,
        ChecksumMode::None,
    ] {
        let server = S3Server::start().await;
        let config = S3Config {
            checksum,
            prefix: "some/prefix".into(),
            ..server.config()
        };
        suite(&S3Store::open(config).await).await;
        assert_eq!(server.backend().keys(), Vec::<String>::new());
        assert_eq!(server.backend().open_uploads(), []);
    }
}

/// `scripts/dev-s3 start --env FILE` gives the variables.
#[tokio::test]
async fn a_real_s3_server_conforms() {
    let Some(real) = real_config() else {
        return;
    };
    for checksum in [
        ChecksumMode::Auto,
        ChecksumMode::Crc32c,
        ChecksumMode::Md5,
        ChecksumMode::None,
    ] {
        let config = S3Config {
            checksum,
            ..real.clone()
        };
        let store = S3Store::open(config).await;
        suite(&store).await;
        // Seen with --nocapture: what this server can do.
        println!("{checksum:?}: {:#?}", store.check().await);
    }
}
