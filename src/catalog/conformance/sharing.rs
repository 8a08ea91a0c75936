//! Objects that are addressed by their content, and that several uploads name.

use super::*;
use crate::catalog::{Aborted, Claimed};
use crate::model::StoreKey;
use crate::model::upload::FailureReason;

const SHA256: u8 = 9;

fn address() -> StoreKey {
    "by-content".parse().expect("a safe key")
}

/// The object that an upload brings to the shared address.
fn shared_object(upload: &Upload) -> Object {
    Object {
        key: address(),
        space: crate::model::SpaceName::default(),
        shared: true,
        ..object_of(upload)
    }
}

/// An upload that has brought the shared object.
async fn bringing(catalog: &Shared) -> (Upload, Object) {
    let upload = assembling(catalog).await;
    let object = shared_object(&upload);
    let claimed = catalog.claim_key(address(), upload.id, LATER).await;
    assert_eq!(claimed.expect("claimed"), Claimed::Yes);
    complete(catalog, &upload, &object)
        .await
        .expect("completed");
    (upload, object)
}

async fn complete(catalog: &Shared, upload: &Upload, object: &Object) -> Result<Completed> {
    let epoch = load(catalog, upload.id).await.upload.epoch;
    let settled = vec![IntentKind::Address];
    catalog
        .complete(upload.id, epoch, object.clone(), settled, LATER)
        .await
}

/// One more upload that names the shared object.
async fn joining(catalog: &Shared, object: &Object) -> Upload {
    let upload = assembling(catalog).await;
    let claimed = catalog.claim_key(address(), upload.id, LATER).await;
    let stored = Claimed::Stored(Box::new(object.clone()));
    assert_eq!(claimed.expect("answered"), stored);
    complete(catalog, &upload, object).await.expect("completed");
    upload
}

async fn found(catalog: &Shared) -> Option<Object> {
    let sha256 = digest(DigestAlgorithm::Sha256, SHA256);
    catalog.object_with(sha256).await.expect("read")
}

pub(crate) async fn an_object_is_shared_by_uploads_of_the_same_bytes(catalog: Shared) {
    assert_eq!(found(&catalog).await, None);
    let (first, object) = bringing(&catalog).await;
    let second = joining(&catalog, &object).await;
    for upload in [&first, &second] {
        let loaded = load(&catalog, upload.id).await.upload;
        let (object, at) = (object.clone(), LATER);
        assert_eq!(loaded.is_deduplicated(), upload.id == second.id);
        assert_eq!(loaded.state, UploadState::Completed { object, at });
    }
    assert_eq!(found(&catalog).await, Some(object));
    assert_eq!(drain_events(&catalog).await, 2);
}

pub(crate) async fn what_is_not_shared_is_not_found_by_its_content(catalog: Shared) {
    completed(&catalog).await;
    assert_eq!(found(&catalog).await, None);
}

pub(crate) async fn another_object_is_never_recorded_over_a_shared_one(catalog: Shared) {
    let (_, object) = bringing(&catalog).await;
    let upload = assembling(&catalog).await;
    let others = [
        shared_object(&upload),
        Object {
            size: Length(11),
            ..object.clone()
        },
        Object {
            digests: Digests::from_iter([digest(DigestAlgorithm::Sha256, 1)]),
            ..object.clone()
        },
    ];
    for other in &others {
        assert_stale(complete(&catalog, &upload, other).await);
    }
    assert_eq!(found(&catalog).await, Some(object));
}

pub(crate) async fn a_shared_object_goes_with_the_last_that_names_it(catalog: Shared) {
    let (first, object) = bringing(&catalog).await;
    let second = joining(&catalog, &object).await;
    let terminate = |id| catalog.terminate(id, true, LATER);
    let nothing_left = async |id| catalog.intents(id).await.expect("read").is_empty();

    assert_eq!(terminate(first.id).await.expect("ended"), Aborted::Done);
    assert_eq!(terminate(first.id).await.expect("repeated"), Aborted::Done);
    assert!(nothing_left(first.id).await);
    assert_eq!(found(&catalog).await, Some(object.clone()));
    let loaded = load(&catalog, second.id).await.upload.state;
    let at = LATER;
    assert_eq!(loaded, UploadState::Completed { object, at });

    assert_eq!(terminate(second.id).await.expect("ended"), Aborted::Done);
    assert_eq!(found(&catalog).await, None);
    let intents = catalog.intents(second.id).await.expect("read");
    let [intent] = &intents[..] else {
        panic!("{intents:?}");
    };
    assert_eq!(
        (intent.kind, &intent.key),
        (IntentKind::Address, &address())
    );
}

pub(crate) async fn letting_go_without_the_object_leaves_it(catalog: Shared) {
    let (first, object) = bringing(&catalog).await;
    let ended = catalog.terminate(first.id, false, LATER).await;
    assert_eq!(ended.expect("ended"), Aborted::Done);
    assert_eq!(found(&catalog).await, Some(object));
}

pub(crate) async fn an_address_is_free_again_when_it_is_cleared_by_one(catalog: Shared) {
    let (first, _) = bringing(&catalog).await;
    catalog
        .terminate(first.id, true, LATER)
        .await
        .expect("ended");
    let next = assembling(&catalog).await;
    let claim = || catalog.claim_key(address(), next.id, LATER);
    assert_eq!(claim().await.expect("answered"), Claimed::Busy(first.id));

    let hold = |now| catalog.hold_address(first.id, now, Timestamp(now.0 + 10));
    assert!(hold(LATER).await.expect("answered"));
    for early in [LATER, Timestamp(LATER.0 + 9)] {
        assert!(!hold(early).await.expect("answered"), "somebody is at it");
    }
    assert!(hold(Timestamp(LATER.0 + 10)).await.expect("answered"));
    assert_eq!(claim().await.expect("answered"), Claimed::Busy(first.id));

    let settled = vec![IntentKind::Address];
    catalog.settle(first.id, settled).await.expect("settled");
    assert!(!hold(EXPIRY).await.expect("answered"), "it is cleared");
    assert_eq!(claim().await.expect("answered"), Claimed::Yes);
}

pub(crate) async fn an_address_is_not_cleared_under_one_that_goes_on(catalog: Shared) {
    let upload = assembling(&catalog).await;
    let intent = Intent {
        key: address(),
        ..intent(upload.id, IntentKind::Address)
    };
    catalog.announce(intent, FIRST).await.expect("announced");
    let held = catalog.hold_address(upload.id, LATER, EXPIRY).await;
    assert!(!held.expect("answered"));
    let failed = catalog
        .fail(upload.id, FIRST, FailureReason::StoreLost, LATER)
        .await;
    failed.expect("failed");
    let held = catalog.hold_address(upload.id, LATER, EXPIRY).await;
    assert!(held.expect("answered"));
}

pub(crate) async fn an_upload_of_what_is_there_is_completed_at_once(catalog: Shared) {
    let instant = |length, sha256| {
        let mut new = NewUpload {
            instant: Some(address()),
            length,
            ..new_upload()
        };
        let declared = digest(DigestAlgorithm::Sha256, sha256);
        new.declared.digests = Digests::from_iter([declared]);
        let catalog = &catalog;
        async move {
            match catalog.create(new, None).await.expect("created") {
                Created::New(upload) => upload,
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(instant(None, SHA256).await.state, UploadState::Pending);
    let (first, object) = bringing(&catalog).await;
    drain_events(&catalog).await;
    for length in [None, Some(Length(10))] {
        let upload = instant(length, SHA256).await;
        assert_eq!(upload.length, Some(Length(10)));
        assert!(upload.is_deduplicated());
        let (object, at) = (object.clone(), START);
        assert_eq!(upload.state, UploadState::Completed { object, at });
        assert_eq!(load(&catalog, upload.id).await.upload, upload);
    }
    assert_eq!(drain_events(&catalog).await, 2);
    assert_eq!(
        instant(Some(Length(9)), SHA256).await.state,
        UploadState::Pending
    );
    assert_eq!(instant(None, 1).await.state, UploadState::Pending);
    let mut unknown = NewUpload {
        instant: Some(address()),
        length: None,
        ..new_upload()
    };
    unknown.declared.digests = Digests::from_iter([
        digest(DigestAlgorithm::Sha256, SHA256),
        digest(DigestAlgorithm::Md5, 1),
    ]);
    let Ok(Created::New(unknown)) = catalog.create(unknown, None).await else {
        panic!("not created");
    };
    assert_eq!(unknown.state, UploadState::Pending, "nobody knows its MD5");
    // Each of them names it.
    catalog
        .terminate(first.id, true, LATER)
        .await
        .expect("ended");
    assert_eq!(found(&catalog).await, Some(object));
}

pub(crate) async fn what_was_shared_and_is_gone_is_not_recorded_again(catalog: Shared) {
    let (first, object) = bringing(&catalog).await;
    let second = assembling(&catalog).await;
    catalog
        .terminate(first.id, true, LATER)
        .await
        .expect("ended");
    assert_stale(complete(&catalog, &second, &object).await);
    let settled = vec![IntentKind::Address];
    catalog.settle(first.id, settled).await.expect("settled");
    assert_stale(complete(&catalog, &second, &object).await);
    assert_eq!(found(&catalog).await, None);
    // Nobody is left with a claim on it.
    let claimed = catalog.claim_key(address(), second.id, LATER).await;
    assert_eq!(claimed.expect("answered"), Claimed::Yes);
}

pub(crate) async fn a_creation_completed_at_once_can_be_repeated(catalog: Shared) {
    let (_, object) = bringing(&catalog).await;
    let idempotency = crate::catalog::Idempotency {
        key_hash: [1; 32],
        fingerprint: [2; 32],
        expires_at: EXPIRY,
    };
    let create = || {
        let mut new = NewUpload {
            instant: Some(address()),
            length: None,
            ..new_upload()
        };
        new.declared.digests = Digests::from_iter([digest(DigestAlgorithm::Sha256, SHA256)]);
        let key_hash = new.key_hash;
        let (catalog, idempotency) = (&catalog, idempotency.clone());
        async move {
            let created = catalog.create(new, Some(idempotency)).await;
            (created.expect("created"), key_hash)
        }
    };
    let (Created::New(first), _) = create().await else {
        panic!("not new");
    };
    let (Created::Repeated(again), key_hash) = create().await else {
        panic!("not repeated");
    };
    assert_eq!((again.id, again.key_hash), (first.id, key_hash));
    let (at, state) = (START, again.state);
    assert_eq!(state, UploadState::Completed { object, at });
}

pub(crate) async fn an_address_is_of_who_brings_the_object(catalog: Shared) {
    let upload = assembling(&catalog).await;
    let owner = async || {
        let owners = catalog.owners(vec![address()]).await.expect("read");
        owners
            .first()
            .map(|owner| (owner.upload.id, owner.upload.ended, owner.at_address))
    };
    assert_eq!(owner().await, None);
    let claimed = catalog.claim_key(address(), upload.id, LATER).await;
    assert_eq!(claimed.expect("claimed"), Claimed::Yes);
    assert_eq!(owner().await, Some((upload.id, false, true)));
    let object = shared_object(&upload);
    complete(&catalog, &upload, &object)
        .await
        .expect("completed");
    assert_eq!(owner().await, Some((upload.id, true, true)));
    catalog.purge_ended(EXPIRY, START, 9).await.expect("purged");
    assert_eq!(owner().await, Some((upload.id, true, true)));
}
