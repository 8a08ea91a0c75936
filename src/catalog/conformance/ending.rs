//! `complete`, `fail`, `abort` and `expire`: each upload ends once, with one event.

use super::*;
use crate::catalog::{Aborted, Claimed, Due};
use crate::model::upload::FailureReason;

const REASON: FailureReason = FailureReason::DigestMismatch;

pub(crate) async fn completing_happens_once(catalog: Shared) {
    let upload = uploading(&catalog).await;
    for kind in [IntentKind::Multipart, IntentKind::Object] {
        catalog
            .announce(intent(upload.id, kind), FIRST)
            .await
            .expect("announced");
    }
    catalog
        .begin_assembly(
            upload.id,
            FIRST,
            Length(10),
            Digests::default(),
            until(LATER),
            START,
        )
        .await
        .expect("begun");
    catalog
        .claim_key(upload.store_key.clone(), upload.id, START)
        .await
        .expect("claimed");
    let complete = || {
        let object = object_of(&upload);
        catalog.complete(upload.id, FIRST, object, vec![IntentKind::Multipart], LATER)
    };
    complete().await.expect("completed");
    let found = load(&catalog, upload.id).await;
    let object = object_of(&upload);
    assert_eq!(
        found.upload.state,
        UploadState::Completed { object, at: LATER }
    );
    assert_eq!(found.upload.epoch, FIRST);
    assert_eq!(found.received, set(&[(0, 10)]));
    assert!(found.parts.is_empty());
    let left = catalog.intents(upload.id).await.expect("read");
    assert_eq!(left, [intent(upload.id, IntentKind::Object)]);
    assert_stale(complete().await);
    assert_eq!(load(&catalog, upload.id).await, found);
    assert_eq!(drain_events(&catalog).await, 1);
}

pub(crate) async fn completing_under_a_key_of_another_is_refused(catalog: Shared) {
    let first = completed(&catalog).await;
    let second = assembling(&catalog).await;
    catalog
        .announce(intent(second.id, IntentKind::Object), FIRST)
        .await
        .expect("announced");
    let before = load(&catalog, second.id).await;
    let settled = vec![IntentKind::Object];
    assert_stale(
        catalog
            .complete(second.id, FIRST, object_of(&first), settled, LATER)
            .await,
    );
    assert_eq!(load(&catalog, second.id).await, before);
    assert_eq!(catalog.intents(second.id).await.expect("read").len(), 1);
    assert!(matches!(
        state(&catalog, first.id).await,
        UploadState::Completed { .. }
    ));
}

pub(crate) async fn completing_needs_an_assembly_under_the_epoch(catalog: Shared) {
    for (upload, epoch) in [
        (assembling(&catalog).await, Epoch(2)),
        (uploading(&catalog).await, FIRST),
    ] {
        let before = load(&catalog, upload.id).await;
        let object = object_of(&upload);
        assert_stale(
            catalog
                .complete(upload.id, epoch, object, vec![], LATER)
                .await,
        );
        assert_eq!(load(&catalog, upload.id).await, before);
    }
    assert_eq!(drain_events(&catalog).await, 0);
}

pub(crate) async fn failing_happens_once_and_gives_the_key_back(catalog: Shared) {
    let upload = assembling(&catalog).await;
    let claim = |id| catalog.claim_key(upload.store_key.clone(), id, START);
    assert_eq!(claim(upload.id).await.expect("claimed"), Claimed::Yes);
    let fail = |epoch| catalog.fail(upload.id, epoch, REASON, LATER);
    assert_stale(fail(Epoch(2)).await);
    fail(FIRST).await.expect("failed");
    let found = load(&catalog, upload.id).await;
    let (reason, at) = (REASON, LATER);
    assert_eq!(found.upload.state, UploadState::Failed { reason, at });
    assert!(found.parts.is_empty());
    assert_stale(fail(FIRST).await);
    assert_eq!(drain_events(&catalog).await, 1);
    let other = assembling(&catalog).await;
    assert_eq!(claim(other.id).await.expect("claimed"), Claimed::Yes);

    for open in [pending(&catalog).await, uploading(&catalog).await] {
        let lost = FailureReason::StoreLost;
        catalog
            .fail(open.id, FIRST, lost, LATER)
            .await
            .expect("failed");
        let found = state(&catalog, open.id).await;
        assert!(matches!(found, UploadState::Failed { reason, .. } if reason == lost));
    }
}

pub(crate) async fn aborting_can_be_repeated(catalog: Shared) {
    for upload in [pending(&catalog).await, uploading(&catalog).await] {
        let first = catalog.abort(upload.id, LATER).await;
        assert_eq!(first.expect("aborted"), Aborted::Done);
        let found = load(&catalog, upload.id).await;
        assert_eq!(found.upload.state, UploadState::Aborted { at: LATER });
        assert_eq!(found.upload.epoch, Epoch(2));
        let again = catalog.abort(upload.id, EXPIRY).await;
        assert_eq!(again.expect("repeated"), Aborted::Done);
        assert_eq!(load(&catalog, upload.id).await, found);
        assert_eq!(drain_events(&catalog).await, 1);
    }
    let missing = catalog.abort(UploadId::generate(), LATER).await;
    assert!(
        matches!(missing, Err(CatalogError::NotFound)),
        "{missing:?}"
    );
}

pub(crate) async fn what_assembles_or_has_ended_is_not_aborted(catalog: Shared) {
    let failed = pending(&catalog).await;
    catalog
        .fail(failed.id, FIRST, REASON, LATER)
        .await
        .expect("failed");
    let expired = pending(&catalog).await;
    catalog.expire(expired.id, EXPIRY).await.expect("expired");
    let (working, done) = (assembling(&catalog).await, completed(&catalog).await);
    drain_events(&catalog).await;
    for upload in [failed, expired, working, done] {
        let before = load(&catalog, upload.id).await;
        let answer = catalog.abort(upload.id, EXPIRY).await.expect("answered");
        assert_eq!(answer, Aborted::Refused);
        assert_eq!(load(&catalog, upload.id).await, before);
    }
    assert_eq!(drain_events(&catalog).await, 0);
}

pub(crate) async fn only_what_is_past_expires(catalog: Shared) {
    let waiting = pending(&catalog).await.id;
    let receiving = uploading(&catalog).await.id;
    let working = assembling(&catalog).await.id;
    let done = completed(&catalog).await.id;
    drain_events(&catalog).await;
    let slid = pending(&catalog).await.id;
    let commit = Commit {
        expires_at: Some(Timestamp(EXPIRY.0 + 1)),
        ..nothing_of(slid, FIRST)
    };
    catalog.commit(commit).await.expect("committed");
    let all = vec![
        waiting,
        receiving,
        working,
        done,
        slid,
        UploadId::generate(),
    ];

    for id in &all {
        let too_early = catalog.expire(*id, Timestamp(EXPIRY.0 - 1)).await;
        assert_eq!(too_early.expect("nothing to do"), None);
    }
    for id in &all {
        let past = *id == waiting || *id == receiving;
        let changed = catalog.expire(*id, EXPIRY).await.expect("expired");
        assert_eq!(changed, past.then_some((Protocol::Native, Role::Whole)));
        if past {
            let found = load(&catalog, *id).await.upload;
            assert_eq!(found.state, UploadState::Expired { at: EXPIRY });
            assert_eq!(found.epoch, Epoch(2));
        }
    }
    assert_eq!(state(&catalog, slid).await, UploadState::Pending);
    for id in &all {
        let repeated = catalog.expire(*id, EXPIRY).await;
        assert_eq!(repeated.expect("nothing to do"), None);
    }
    assert_eq!(drain_events(&catalog).await, 2);
}

pub(crate) async fn one_is_expired_once_among_many_at_once(catalog: Shared) {
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(pending(&catalog).await.id);
    }
    let racers: Vec<_> = (0..60)
        .map(|n| {
            let (catalog, id) = (Arc::clone(&catalog), ids[n % ids.len()]);
            tokio::spawn(async move { catalog.expire(id, EXPIRY).await })
        })
        .collect();
    let mut changed = 0;
    for racer in racers {
        let outcome = racer.await.expect("not panicked").expect("answered");
        changed += usize::from(outcome.is_some());
    }
    assert_eq!(changed, ids.len());
    assert_eq!(drain_events(&catalog).await, 20);
}

pub(crate) async fn expired_ones_are_found_oldest_first(catalog: Shared) {
    let mut ids = Vec::new();
    for expires_at in [30, 10, 20, 40] {
        let new = NewUpload {
            expires_at: Timestamp(expires_at),
            ..new_upload()
        };
        ids.push(new.id);
        catalog.create(new, None).await.expect("created");
    }
    let sliding = Commit {
        expires_at: Some(Timestamp(5)),
        ..all_of(ids[0], FIRST, 10)
    };
    catalog.commit(sliding).await.expect("committed");
    assembling(&catalog).await;
    completed(&catalog).await;
    let expired = |now, limit| catalog.expired(Timestamp(now), None, limit);
    let due = |at, id| Due {
        at: Timestamp(at),
        id,
    };
    let all = [
        due(5, ids[0]),
        due(10, ids[1]),
        due(20, ids[2]),
        due(40, ids[3]),
    ];
    assert_eq!(expired(4, 9).await.expect("read"), []);
    assert_eq!(expired(20, 9).await.expect("read"), all[..3]);
    assert_eq!(expired(20, 1).await.expect("read"), all[..1]);
    assert_eq!(expired(EXPIRY.0 * 2, 9).await.expect("read"), all);
    assert_eq!(state(&catalog, ids[0]).await, UploadState::Uploading);
}

pub(crate) async fn expired_ones_are_found_in_pages(catalog: Shared) {
    let mut all = Vec::new();
    for expires_at in [10, 20, 20, 20, 20, 20, 30] {
        let new = NewUpload {
            expires_at: Timestamp(expires_at),
            ..new_upload()
        };
        all.push(Due {
            at: new.expires_at,
            id: new.id,
        });
        catalog.create(new, None).await.expect("created");
    }
    all.sort_unstable();
    for limit in 1..=8 {
        let mut paged = Vec::new();
        while let page = catalog
            .expired(Timestamp(30), paged.last().copied(), limit)
            .await
            .expect("read")
            && !page.is_empty()
        {
            assert!(page.len() <= limit as usize && paged.len() < all.len());
            paged.extend(page);
        }
        assert_eq!(paged, all, "{limit}");
    }
}

pub(crate) async fn an_ending_from_outside_forgets_the_bytes(catalog: Shared) {
    let (aborted, expired) = (uploading(&catalog).await.id, uploading(&catalog).await.id);
    catalog.abort(aborted, LATER).await.expect("aborted");
    catalog.expire(expired, EXPIRY).await.expect("expired");
    for id in [aborted, expired] {
        let found = load(&catalog, id).await;
        assert!(found.received.is_empty() && found.parts.is_empty());
        assert_stale(catalog.commit(nothing_of(id, FIRST)).await);
        assert_stale(catalog.commit(nothing_of(id, Epoch(2))).await);
    }
}

pub(crate) async fn endings_that_race_are_one(catalog: Shared) {
    let upload = assembling(&catalog).await;
    let racers: Vec<_> = (0..16)
        .map(|n| {
            let (catalog, upload) = (Arc::clone(&catalog), upload.clone());
            tokio::spawn(async move {
                if n % 2 == 0 {
                    let object = object_of(&upload);
                    catalog
                        .complete(upload.id, FIRST, object, vec![], LATER)
                        .await
                        .map(drop)
                } else {
                    catalog.fail(upload.id, FIRST, REASON, LATER).await
                }
            })
        })
        .collect();
    let mut ended = 0;
    for racer in racers {
        match racer.await.expect("not panicked") {
            Ok(()) => ended += 1,
            other => assert_stale(other),
        }
    }
    assert_eq!(ended, 1);
    assert_eq!(drain_events(&catalog).await, 1);
}
