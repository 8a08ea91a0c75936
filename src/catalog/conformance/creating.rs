//! `create` and `load`.

use super::*;
use crate::catalog::Idempotency;

fn idempotency(fingerprint: u8) -> Idempotency {
    Idempotency {
        key_hash: [1; 32],
        fingerprint: [fingerprint; 32],
        expires_at: LATER,
    }
}

pub(crate) async fn a_new_upload_is_found_as_it_was_declared(catalog: Shared) {
    let new = NewUpload {
        length: Some(Length(12)),
        ..new_upload()
    };
    let expected = Upload {
        owner: new.owner.clone(),
        max_size: new.max_size,
        typed: new.typed,
        id: new.id,
        key_hash: new.key_hash,
        protocol: new.protocol,
        role: new.role,
        declared: new.declared.clone(),
        state: UploadState::Pending,
        length: Some(Length(12)),
        plan: new.plan,
        epoch: FIRST,
        hash: HashPoint {
            offset: Offset(0),
            state: Vec::new(),
        },
        readback: false,
        boot: String::new(),
        store_key: new.store_key.clone(),
        store_upload_id: None,
        unchecked: false,
        created_at: START,
        updated_at: START,
        expires_at: EXPIRY,
        sealed: new.sealed.clone(),
    };
    let created = catalog.create(new, None).await.expect("created");
    assert_eq!(created, Created::New(expected.clone()));
    let found = load(&catalog, expected.id).await;
    assert_eq!(found.upload, expected);
    assert!(found.received.is_empty() && found.parts.is_empty() && found.direct.is_empty());
    let missing = catalog.load(UploadId::generate()).await.expect("read");
    assert_eq!(missing, None);

    let plain = NewUpload {
        declared: Declared::default(),
        plan: Plan::OneCell,
        ..new_upload()
    };
    let id = plain.id;
    catalog.create(plain, None).await.expect("created");
    assert_eq!(
        load(&catalog, id).await.upload.declared,
        Declared::default()
    );
}

pub(crate) async fn an_id_is_taken_once(catalog: Shared) {
    let new = new_upload();
    catalog.create(new.clone(), None).await.expect("created");
    let before = load(&catalog, new.id).await;
    let again = NewUpload {
        key_hash: UploadKey::generate().hash(),
        ..new.clone()
    };
    assert_stale(catalog.create(again, None).await);
    assert_eq!(load(&catalog, new.id).await, before);
}

pub(crate) async fn a_repeated_creation_finds_the_upload_under_a_new_key(catalog: Shared) {
    let first = new_upload();
    let again = NewUpload {
        now: Timestamp(START.0 + 1),
        ..new_upload()
    };
    let created = catalog
        .create(first.clone(), Some(idempotency(1)))
        .await
        .expect("created");
    assert!(matches!(created, Created::New(_)));
    let repeated = catalog
        .create(again.clone(), Some(idempotency(1)))
        .await
        .expect("found");
    let Created::Repeated(upload) = repeated else {
        panic!("{repeated:?}");
    };
    assert_eq!(upload.id, first.id);
    assert_eq!(upload.key_hash, again.key_hash);
    assert_eq!(upload.epoch, Epoch(2));
    assert_eq!(load(&catalog, first.id).await.upload, upload);
    assert_eq!(catalog.load(again.id).await.expect("read"), None);
    assert_stale(catalog.commit(all_of(first.id, FIRST, 10)).await);
}

pub(crate) async fn another_request_under_the_same_idempotency_key_is_a_mismatch(catalog: Shared) {
    let first = new_upload();
    catalog
        .create(first.clone(), Some(idempotency(1)))
        .await
        .expect("created");
    let before = load(&catalog, first.id).await;
    let other = new_upload();
    let answer = catalog
        .create(other.clone(), Some(idempotency(2)))
        .await
        .expect("answered");
    assert_eq!(answer, Created::Mismatch);
    assert_eq!(load(&catalog, first.id).await, before);
    assert_eq!(catalog.load(other.id).await.expect("read"), None);
}

pub(crate) async fn a_repeated_creation_of_what_is_in_use_changes_nothing(catalog: Shared) {
    let first = new_upload();
    catalog
        .create(first.clone(), Some(idempotency(1)))
        .await
        .expect("created");
    for end in [false, true] {
        if end {
            catalog.abort(first.id, START).await.expect("aborted");
        } else {
            let received = vec![range(5, 6)];
            let commit = Commit {
                received,
                ..nothing_of(first.id, FIRST)
            };
            catalog.commit(commit).await.expect("committed");
        }
        let before = load(&catalog, first.id).await;
        let answer = catalog
            .create(new_upload(), Some(idempotency(1)))
            .await
            .expect("answered");
        assert_eq!(answer, Created::InUse);
        assert_eq!(load(&catalog, first.id).await, before);
    }
}

pub(crate) async fn an_expired_idempotency_record_counts_as_none(catalog: Shared) {
    let first = new_upload();
    catalog
        .create(first.clone(), Some(idempotency(1)))
        .await
        .expect("created");
    let second = NewUpload {
        now: LATER,
        ..new_upload()
    };
    let later = Idempotency {
        expires_at: EXPIRY,
        ..idempotency(2)
    };
    let created = catalog
        .create(second.clone(), Some(later.clone()))
        .await
        .expect("created");
    assert!(matches!(created, Created::New(upload) if upload.id == second.id));
    assert_eq!(load(&catalog, first.id).await.upload.epoch, FIRST);
    let third = NewUpload {
        now: LATER,
        ..new_upload()
    };
    let found = catalog.create(third, Some(later)).await.expect("found");
    assert!(matches!(found, Created::Repeated(upload) if upload.id == second.id));
}

pub(crate) async fn an_expired_upload_is_not_found_by_a_repeated_creation(catalog: Shared) {
    for received in [false, true] {
        for pruned in [false, true] {
            let record = Idempotency {
                key_hash: [2 + u8::from(received) * 2 + u8::from(pruned); 32],
                fingerprint: [1; 32],
                expires_at: Timestamp(EXPIRY.0 * 2),
            };
            let at = |now| NewUpload {
                now: Timestamp(now),
                expires_at: Timestamp(now + 1000),
                ..new_upload()
            };
            let first = at(EXPIRY.0 - 1000);
            let create = |new: NewUpload| catalog.create(new, Some(record.clone()));
            create(first.clone()).await.expect("created");
            if received {
                let commit = Commit {
                    received: vec![range(0, 5)],
                    ..nothing_of(first.id, FIRST)
                };
                catalog.commit(commit).await.expect("committed");
            } else {
                let just_before = at(EXPIRY.0 - 1);
                let found = create(just_before).await.expect("found");
                assert!(matches!(found, Created::Repeated(upload) if upload.id == first.id));
            }
            if pruned {
                catalog.expire(first.id, EXPIRY).await.expect("expired");
            }
            let before = load(&catalog, first.id).await;
            let other = Idempotency {
                fingerprint: [2; 32],
                ..record.clone()
            };
            let answer = catalog.create(at(EXPIRY.0), Some(other)).await;
            assert_eq!(answer.expect("answered"), Created::Mismatch);
            let second = at(EXPIRY.0);
            let created = create(second.clone()).await.expect("created");
            assert!(
                matches!(&created, Created::New(upload) if upload.id == second.id),
                "{received} {pruned}: {created:?}"
            );
            assert_eq!(load(&catalog, first.id).await, before, "it stays as it was");
            let found = create(at(EXPIRY.0 + 1)).await.expect("found");
            assert!(matches!(found, Created::Repeated(upload) if upload.id == second.id));
        }
    }
}

pub(crate) async fn racing_creations_with_one_idempotency_key_make_one_upload(catalog: Shared) {
    let racers: Vec<_> = (0..16)
        .map(|_| {
            let catalog = Arc::clone(&catalog);
            tokio::spawn(async move { catalog.create(new_upload(), Some(idempotency(1))).await })
        })
        .collect();
    let mut new = 0;
    let mut uploads = Vec::new();
    for racer in racers {
        match racer.await.expect("not panicked").expect("answered") {
            Created::New(upload) => {
                new += 1;
                uploads.push(upload);
            }
            Created::Repeated(upload) => uploads.push(upload),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(new, 1);
    assert!(uploads.iter().all(|upload| upload.id == uploads[0].id));
    let mut epochs: Vec<u64> = uploads.iter().map(|upload| upload.epoch.0).collect();
    epochs.sort_unstable();
    assert_eq!(epochs, (1..=16).collect::<Vec<_>>());
    assert_eq!(catalog.open().await.expect("counted").uploads, 1);
}
