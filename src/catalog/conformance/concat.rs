//! Partial and final uploads, and ending what was completed.

use super::*;
use crate::catalog::{Aborted, Leftover, Source};
use crate::model::upload::FailureReason;

/// A partial upload with all of its ten bytes, assembling.
async fn part(catalog: &Shared) -> Upload {
    let new = NewUpload {
        role: Role::Partial,
        ..new_upload()
    };
    let created = catalog.create(new, None).await.expect("created");
    let Created::New(upload) = created else {
        panic!("not new: {created:?}");
    };
    let (id, digests) = (upload.id, Digests::default());
    let received = all_of(id, FIRST, 10);
    catalog.commit(received).await.expect("committed");
    catalog
        .begin_assembly(id, FIRST, Length(10), digests, until(LATER), START)
        .await
        .expect("begun");
    upload
}

async fn finish(catalog: &Shared, upload: &Upload, size: u64) -> Vec<UploadId> {
    let object = Object {
        size: Length(size),
        ..object_of(upload)
    };
    let epoch = load(catalog, upload.id).await.upload.epoch;
    catalog
        .complete(upload.id, epoch, object, vec![IntentKind::Multipart], LATER)
        .await
        .expect("completed")
        .ready
}

async fn made_of(catalog: &Shared, parts: &[&Upload]) -> Created {
    let new = NewUpload {
        role: Role::Final,
        parts: parts.iter().map(|part| part.id).collect(),
        ..new_upload()
    };
    catalog.create(new, None).await.expect("asked")
}

async fn final_of(catalog: &Shared, parts: &[&Upload]) -> Upload {
    match made_of(catalog, parts).await {
        Created::New(upload) => upload,
        other => panic!("not created: {other:?}"),
    }
}

pub(crate) async fn a_final_upload_assembles_with_its_last_part(catalog: Shared) {
    let (one, two) = (part(&catalog).await, part(&catalog).await);
    let whole = final_of(&catalog, &[&one, &two, &one]).await;
    assert_eq!(whole.state, UploadState::Pending);
    assert_eq!(whole.length, Some(Length(30)), "what its parts will have");
    assert!(whole.readback);
    assert_eq!(finish(&catalog, &two, 7).await, []);
    assert_eq!(state(&catalog, whole.id).await, UploadState::Pending);
    assert_stale(catalog.sources(whole.id).await);
    assert_eq!(finish(&catalog, &one, 3).await, [whole.id]);
    let found = load(&catalog, whole.id).await.upload;
    let (attempts, until) = (0, LATER);
    assert_eq!(found.state, UploadState::Assembling { attempts, until });
    assert_eq!(found.length, Some(Length(13)));
    let source = |part: &Upload, size| Source {
        key: part.store_key.clone(),
        size: Length(size),
        digests: object_of(part).digests,
    };
    let sources = catalog.sources(whole.id).await.expect("complete");
    assert_eq!(sources, [source(&one, 3), source(&two, 7), source(&one, 3)]);
    let due = catalog.due_assemblies(LATER, None, 10).await.expect("read");
    assert_eq!(due.len(), 1, "whoever comes by goes on with it");
    assert_eq!(drain_events(&catalog).await, 0, "parts cause no event");
    assert_eq!(finish(&catalog, &whole, 13).await, []);
    assert_eq!(drain_events(&catalog).await, 1);
    assert_eq!(load(&catalog, one.id).await.upload.expires_at, LATER);
}

pub(crate) async fn a_final_upload_tells_its_length_when_all_its_parts_have_one(catalog: Shared) {
    let open = NewUpload {
        role: Role::Partial,
        ..new_upload()
    };
    let Created::New(open) = catalog.create(open, None).await.expect("asked") else {
        panic!("not created");
    };
    let whole = final_of(&catalog, &[&part(&catalog).await, &open, &open]).await;
    assert_eq!(whole.length, None);
    let told = Commit {
        length: Some(Length(5)),
        ..all_of(open.id, FIRST, 1)
    };
    catalog.commit(told).await.expect("committed");
    let whole = load(&catalog, whole.id).await.upload;
    assert_eq!(whole.length, Some(Length(20)));
    assert_eq!(whole.state, UploadState::Pending);
}

pub(crate) async fn a_final_upload_of_complete_parts_assembles_at_once(catalog: Shared) {
    let one = part(&catalog).await;
    finish(&catalog, &one, 10).await;
    let whole = final_of(&catalog, &[&one, &one]).await;
    let (attempts, until) = (0, EXPIRY);
    assert_eq!(whole.state, UploadState::Assembling { attempts, until });
    assert_eq!(whole.length, Some(Length(20)));
    let due = catalog.due_assemblies(LATER, None, 10).await.expect("read");
    assert_eq!(due, [], "its creator holds it");
}

pub(crate) async fn a_final_upload_is_made_of_partial_ones_that_go_on(catalog: Shared) {
    let good = part(&catalog).await;
    let whole = pending(&catalog).await;
    let ended = part(&catalog).await;
    catalog
        .fail(ended.id, FIRST, FailureReason::StoreLost, LATER)
        .await
        .expect("failed");
    let another = final_of(&catalog, &[&good]).await;
    for wrong in [&whole, &ended, &another] {
        let made = made_of(&catalog, &[&good, wrong]).await;
        assert_eq!(made, Created::PartGone(1));
    }
    assert_eq!(catalog.open().await.expect("read").uploads, 3);
}

pub(crate) async fn a_part_that_ends_fails_the_final_uploads_that_wait(catalog: Shared) {
    let (one, two) = (part(&catalog).await, part(&catalog).await);
    let waiting = final_of(&catalog, &[&one, &two]).await;
    let other = final_of(&catalog, &[&one]).await;
    catalog
        .fail(two.id, FIRST, FailureReason::StoreLost, LATER)
        .await
        .expect("failed");
    let reason = FailureReason::PartGone;
    let failed = UploadState::Failed { reason, at: LATER };
    assert_eq!(state(&catalog, waiting.id).await, failed);
    assert_eq!(state(&catalog, other.id).await, UploadState::Pending);
    assert_eq!(drain_events(&catalog).await, 1);
}

pub(crate) async fn parts_are_discarded_when_they_expired_and_nobody_needs_them(catalog: Shared) {
    let (one, two) = (part(&catalog).await, part(&catalog).await);
    finish(&catalog, &one, 10).await;
    let whole = final_of(&catalog, &[&one, &two]).await;
    let spent = async |before| {
        let due = catalog.spent_parts(before, None, 10).await.expect("read");
        due.into_iter().map(|due| due.id).collect::<Vec<_>>()
    };
    assert_eq!(spent(LATER).await, []);
    assert_eq!(
        spent(EXPIRY).await,
        [one.id],
        "the other one is not complete"
    );
    let discard = async |before| {
        let discarded = catalog.discard_part(one.id, before, EXPIRY).await;
        discarded.expect("asked")
    };
    assert!(!discard(EXPIRY).await, "one waits for it");
    finish(&catalog, &two, 10).await;
    assert!(!discard(EXPIRY).await, "one is assembled from it");
    finish(&catalog, &whole, 20).await;
    assert!(!discard(START).await, "it has not expired so early");
    assert!(discard(LATER).await, "used, so it expired");
    assert!(!discard(EXPIRY).await);
    assert_eq!(
        state(&catalog, one.id).await,
        UploadState::Expired { at: EXPIRY }
    );
    let intents = catalog.intents(one.id).await.expect("read");
    assert_eq!(intents.len(), 1);
    assert_eq!(
        (intents[0].kind, &intents[0].key),
        (IntentKind::Object, &one.store_key)
    );
    let left = catalog.leftovers(None, 10).await.expect("read");
    let id = one.id;
    assert_eq!(
        left,
        [Leftover {
            id,
            completed: false,
            ended_at: EXPIRY
        }]
    );
    assert!(!discard(EXPIRY).await);
}

pub(crate) async fn parts_are_not_purged_before_they_are_discarded(catalog: Shared) {
    let one = part(&catalog).await;
    finish(&catalog, &one, 10).await;
    let long_after = EXPIRY;
    assert_eq!(
        catalog.count_ended(long_after, START).await.expect("read"),
        0
    );
    assert_eq!(
        catalog
            .purge_ended(long_after, START, 10)
            .await
            .expect("done"),
        0
    );
    let before = EXPIRY;
    let discarded = catalog.discard_part(one.id, before, LATER).await;
    assert!(discarded.expect("asked"));
    catalog
        .settle(one.id, vec![IntentKind::Object])
        .await
        .expect("settled");
    assert_eq!(
        catalog
            .purge_ended(long_after, START, 10)
            .await
            .expect("done"),
        1
    );
}

pub(crate) async fn a_terminated_upload_leaves_its_object_to_be_deleted(catalog: Shared) {
    for with_object in [true, false] {
        let upload = completed(&catalog).await;
        drain_events(&catalog).await;
        let terminate = async || {
            let terminated = catalog.terminate(upload.id, with_object, EXPIRY).await;
            terminated.expect("asked")
        };
        assert_eq!(terminate().await, Aborted::Done);
        let found = load(&catalog, upload.id).await;
        assert_eq!(found.upload.state, UploadState::Aborted { at: EXPIRY });
        assert_eq!(found.upload.epoch, Epoch(2));
        assert!(found.received.iter().next().is_none());
        let intents = catalog.intents(upload.id).await.expect("read");
        assert_eq!(intents.len(), usize::from(with_object));
        assert_eq!(terminate().await, Aborted::Done);
        assert_eq!(drain_events(&catalog).await, 1);
    }
}

pub(crate) async fn only_what_has_an_end_to_undo_is_terminated(catalog: Shared) {
    let failed = assembling(&catalog).await;
    catalog
        .fail(failed.id, FIRST, FailureReason::StoreLost, LATER)
        .await
        .expect("failed");
    let terminate = async |id| catalog.terminate(id, true, EXPIRY).await;
    assert_eq!(terminate(failed.id).await.expect("asked"), Aborted::Done);
    let in_use = part(&catalog).await;
    finish(&catalog, &in_use, 10).await;
    let whole = final_of(&catalog, &[&in_use]).await;
    for open in [
        pending(&catalog).await.id,
        uploading(&catalog).await.id,
        assembling(&catalog).await.id,
        in_use.id,
        whole.id,
    ] {
        let before = load(&catalog, open).await;
        assert_eq!(terminate(open).await.expect("asked"), Aborted::Refused);
        assert_eq!(load(&catalog, open).await, before);
    }
    let unknown = terminate(UploadId::generate()).await;
    assert!(matches!(unknown, Err(CatalogError::NotFound)));
}
