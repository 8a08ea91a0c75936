//! Intents, leftovers, purging and counting.

use std::time::Duration;

use super::*;
use crate::catalog::{Aborted, Claimed, Idempotency, Leftover};
use crate::model::StoreKey;
use crate::model::upload::{FailureReason, StoreUploadId};

pub(crate) async fn an_announcement_stays_as_it_was(catalog: Shared) {
    let upload = pending(&catalog).await;
    let first = Intent {
        store_upload_id: Some(StoreUploadId("known".to_owned())),
        ..intent(upload.id, IntentKind::Object)
    };
    let again = Intent {
        key: "another/key".parse().expect("a safe key"),
        created_at: LATER,
        ..intent(upload.id, IntentKind::Object)
    };
    for announced in [&first, &again] {
        catalog
            .announce(announced.clone(), FIRST)
            .await
            .expect("announced");
        let found = catalog.intents(upload.id).await.expect("read");
        assert_eq!(found, std::slice::from_ref(&first));
    }
    let other = intent(upload.id, IntentKind::Multipart);
    assert_stale(catalog.announce(other.clone(), Epoch(2)).await);
    catalog.abort(upload.id, LATER).await.expect("aborted");
    for epoch in [FIRST, Epoch(2)] {
        assert_stale(catalog.announce(other.clone(), epoch).await);
    }
    let nobody = intent(UploadId::generate(), IntentKind::Object);
    assert_stale(catalog.announce(nobody, FIRST).await);
    assert_eq!(catalog.intents(upload.id).await.expect("read"), [first]);
}

pub(crate) async fn a_multipart_upload_is_named(catalog: Shared) {
    let upload = pending(&catalog).await;
    let name = |epoch, name: &str| {
        let unchecked = name == "second";
        let name = StoreUploadId(name.to_owned());
        catalog.name_multipart(upload.id, epoch, name, unchecked)
    };
    assert_stale(name(FIRST, "not announced").await);
    catalog
        .announce(intent(upload.id, IntentKind::Multipart), FIRST)
        .await
        .expect("announced");
    for given in ["first", "second"] {
        name(FIRST, given).await.expect("named");
        let given = Some(StoreUploadId(given.to_owned()));
        let found = load(&catalog, upload.id).await.upload;
        assert_eq!(found.store_upload_id, given);
        assert_eq!(
            found.unchecked,
            given == Some(StoreUploadId("second".to_owned()))
        );
        let intents = catalog.intents(upload.id).await.expect("read");
        assert_eq!(intents[0].store_upload_id, given);
    }
    assert_stale(name(Epoch(2), "of another").await);
    catalog.abort(upload.id, LATER).await.expect("aborted");
    assert_stale(name(Epoch(2), "too late").await);
    let intents = catalog.intents(upload.id).await.expect("read");
    assert_eq!(
        intents[0].store_upload_id,
        Some(StoreUploadId("second".to_owned()))
    );
}

pub(crate) async fn what_is_settled_is_gone(catalog: Shared) {
    let upload = pending(&catalog).await;
    for kind in [IntentKind::Multipart, IntentKind::Object] {
        catalog
            .announce(intent(upload.id, kind), FIRST)
            .await
            .expect("announced");
    }
    for _ in 0..2 {
        catalog
            .settle(upload.id, vec![IntentKind::Multipart])
            .await
            .expect("settled");
        let left = catalog.intents(upload.id).await.expect("read");
        assert_eq!(left, [intent(upload.id, IntentKind::Object)]);
    }
    catalog
        .settle(UploadId::generate(), vec![IntentKind::Object])
        .await
        .expect("nothing to do");
}

pub(crate) async fn leftovers_are_of_ended_uploads_in_pages(catalog: Shared) {
    let mut expected = Vec::new();
    for n in 0..5 {
        let upload = if n == 3 {
            uploading(&catalog).await
        } else {
            pending(&catalog).await
        };
        let mut intents = vec![intent(upload.id, IntentKind::Multipart)];
        if n % 2 == 0 {
            intents.push(intent(upload.id, IntentKind::Object));
        }
        for intent in &intents {
            catalog
                .announce(intent.clone(), FIRST)
                .await
                .expect("announced");
        }
        let at = Timestamp(EXPIRY.0 + n);
        let id = upload.id;
        match n {
            0 => continue,
            1 => drop(catalog.expire(id, at).await.expect("expired")),
            2 => drop(catalog.abort(id, at).await.expect("aborted")),
            3 => {
                catalog
                    .begin_assembly(
                        id,
                        FIRST,
                        Length(10),
                        Digests::default(),
                        until(LATER),
                        START,
                    )
                    .await
                    .expect("begun");
                catalog
                    .complete(id, FIRST, object_of(&upload), vec![], at)
                    .await
                    .expect("completed");
            }
            _ => catalog
                .fail(id, FIRST, FailureReason::StoreLost, at)
                .await
                .expect("failed"),
        }
        assert_eq!(catalog.intents(id).await.expect("read"), intents);
        expected.push(Leftover {
            id,
            completed: n == 3,
            ended_at: at,
        });
    }
    completed(&catalog).await;
    expected.sort_by_key(|leftover| leftover.id);

    assert_eq!(catalog.leftovers(None, 10).await.expect("read"), expected);
    let mut paged = Vec::new();
    while let page = catalog
        .leftovers(paged.last().map(|last: &Leftover| last.id), 3)
        .await
        .expect("read")
        && !page.is_empty()
    {
        assert!(page.len() <= 3 && paged.len() < 9, "pages come to an end");
        paged.extend(page);
    }
    assert_eq!(paged, expected);
    for leftover in expected {
        let kinds = vec![IntentKind::Multipart, IntentKind::Object];
        catalog.settle(leftover.id, kinds).await.expect("settled");
    }
    assert_eq!(catalog.leftovers(None, 10).await.expect("read"), []);
}

pub(crate) async fn purging_takes_what_ended_before_and_left_nothing(catalog: Shared) {
    let mut ended = Vec::new();
    for at in [10, 30, 20] {
        let id = uploading(&catalog).await.id;
        catalog.abort(id, Timestamp(at)).await.expect("aborted");
        ended.push(id);
    }
    let leaves = pending(&catalog).await.id;
    catalog
        .announce(intent(leaves, IntentKind::Object), FIRST)
        .await
        .expect("announced");
    catalog.abort(leaves, Timestamp(5)).await.expect("aborted");
    let open = [
        pending(&catalog).await.id,
        uploading(&catalog).await.id,
        assembling(&catalog).await.id,
    ];
    let before = Timestamp(30);
    let count = || catalog.count_ended(before, START);
    assert_eq!(count().await.expect("counted"), 2);
    assert_eq!(
        catalog.purge_ended(before, START, 1).await.expect("purged"),
        1
    );
    assert_eq!(catalog.load(ended[0]).await.expect("read"), None);
    assert_eq!(
        catalog.purge_ended(before, START, 9).await.expect("purged"),
        1
    );
    assert_eq!(catalog.load(ended[2]).await.expect("read"), None);
    assert_eq!(
        catalog
            .purge_ended(before, START, 9)
            .await
            .expect("repeated"),
        0
    );
    assert_eq!(count().await.expect("counted"), 0);
    for id in [ended[1], leaves].into_iter().chain(open) {
        assert!(catalog.load(id).await.expect("read").is_some());
    }
    catalog
        .settle(leaves, vec![IntentKind::Object])
        .await
        .expect("settled");
    assert_eq!(
        catalog.purge_ended(before, START, 9).await.expect("purged"),
        1
    );
}

pub(crate) async fn a_purge_leaves_the_object_and_its_key(catalog: Shared) {
    let done = completed(&catalog).await;
    let purged = catalog.purge_ended(EXPIRY, START, 9).await;
    assert_eq!(purged.expect("purged"), 1);
    assert_eq!(catalog.load(done.id).await.expect("read"), None);
    let other = assembling(&catalog).await;
    let answer = catalog
        .claim_key(done.store_key.clone(), other.id, EXPIRY)
        .await;
    assert_eq!(
        answer.expect("answered"),
        Claimed::Stored(Box::new(object_of(&done)))
    );
}

pub(crate) async fn records_are_purged_by_their_age(catalog: Shared) {
    for (n, expires_at) in [(1, 10), (2, 20), (3, 30)] {
        let record = Idempotency {
            key_hash: [n; 32],
            fingerprint: [0; 32],
            expires_at: Timestamp(expires_at),
        };
        let new = NewUpload {
            now: Timestamp(0),
            ..new_upload()
        };
        let id = new.id;
        catalog.create(new, Some(record)).await.expect("created");
        let aborted = catalog.abort(id, Timestamp(expires_at)).await;
        assert_eq!(aborted.expect("aborted"), Aborted::Done);
    }
    let purge =
        |now, events, limit| catalog.purge_records(Timestamp(now), Timestamp(events), limit);
    assert_eq!(purge(9, 10, 9).await.expect("purged"), 0);
    // Records at 10 and 20, events before 20: one.
    assert_eq!(purge(20, 20, 1).await.expect("purged"), 1);
    assert_eq!(purge(20, 20, 9).await.expect("purged"), 2);
    assert_eq!(purge(20, 20, 9).await.expect("repeated"), 0);
    // Purging an upload takes its idempotency record with it, its event stays.
    assert_eq!(
        catalog
            .purge_ended(Timestamp(31), START, 9)
            .await
            .expect("purged"),
        3
    );
    assert_eq!(purge(30, 0, 9).await.expect("purged"), 0);
    assert_eq!(drain_events(&catalog).await, 2);
}

pub(crate) async fn open_uploads_are_told_from_ended_ones(catalog: Shared) {
    let open = [
        pending(&catalog).await.id,
        uploading(&catalog).await.id,
        assembling(&catalog).await.id,
    ];
    let aborted = pending(&catalog).await.id;
    catalog.abort(aborted, LATER).await.expect("aborted");
    let ended = [completed(&catalog).await.id, aborted];
    let ids = [
        ended[0],
        open[0],
        UploadId::generate(),
        open[1],
        ended[1],
        open[2],
    ];
    let known = catalog.known_among(ids.into()).await.expect("read");
    let found: Vec<_> = known
        .iter()
        .map(|upload| (upload.id, upload.ended))
        .collect();
    let expected =
        [ended[0], open[0], open[1], ended[1], open[2]].map(|id| (id, ended.contains(&id)));
    assert_eq!(found, expected);
    assert_eq!(catalog.known_among(vec![]).await.expect("read"), []);

    let key = |id| catalog_key(&catalog, id);
    let (mine, theirs) = (key(open[2]).await, key(ended[0]).await);
    let stranger = "nobodys".parse::<StoreKey>().expect("safe");
    let asked = vec![mine.clone(), stranger, theirs.clone()];
    let owners = catalog.owners(asked).await.expect("read");
    let found: Vec<_> = owners
        .iter()
        .map(|owner| (&owner.key, owner.upload.id, owner.upload.ended))
        .collect();
    assert_eq!(found, [(&mine, open[2], false), (&theirs, ended[0], true)]);
    assert_eq!(catalog.open().await.expect("counted").uploads, 3);
}

pub(crate) async fn a_ping_commits(catalog: Shared) {
    catalog
        .ping(Duration::from_secs(30))
        .await
        .expect("writable");
}

async fn catalog_key(catalog: &Shared, id: UploadId) -> StoreKey {
    let snapshot = catalog.load(id).await.expect("read").expect("there");
    snapshot.upload.store_key
}
