//! Until when URLs of parts may be good.

use super::*;

pub(crate) async fn an_upload_is_staged_before_anything_is_announced(catalog: Shared) {
    let key: crate::model::StoreKey = "elsewhere".parse().expect("a safe key");
    let upload = pending(&catalog).await;
    let stage = |epoch| catalog.stage(upload.id, epoch, key.clone());
    assert_stale(stage(Epoch(2)).await);
    for _ in 0..2 {
        stage(FIRST).await.expect("staged");
        assert_eq!(load(&catalog, upload.id).await.upload.store_key, key);
    }
    let announced = intent(upload.id, IntentKind::Multipart);
    catalog.announce(announced, FIRST).await.expect("announced");
    assert_stale(stage(FIRST).await);
    let later = assembling(&catalog).await;
    assert_stale(catalog.stage(later.id, FIRST, key.clone()).await);
}
use crate::catalog::Idempotency;

const ONE: PartNumber = PartNumber(1);
const TWO: PartNumber = PartNumber(2);

async fn open(catalog: &Shared, id: UploadId, numbers: &[PartNumber], until: Timestamp) {
    let opened = catalog.open_parts(id, FIRST, numbers.to_vec(), until).await;
    opened.expect("opened");
}

pub(crate) async fn a_later_url_for_a_part_is_good_for_longer(catalog: Shared) {
    let id = pending(&catalog).await.id;
    open(&catalog, id, &[ONE, TWO], START).await;
    let before = load(&catalog, id).await;
    assert_eq!(before.direct, [(ONE, START), (TWO, START)].into());
    assert_eq!(before.upload.state, UploadState::Pending);
    open(&catalog, id, &[TWO, PartNumber(3)], LATER).await;
    open(&catalog, id, &[TWO], START).await;
    let direct = load(&catalog, id).await.direct;
    let expected = [(ONE, START), (TWO, LATER), (PartNumber(3), LATER)];
    assert_eq!(direct, expected.into());
    let claimed = catalog.claim(id, LATER).await.expect("claimed");
    assert_eq!(claimed.direct, direct, "they go with the upload");
    let other = pending(&catalog).await.id;
    assert!(load(&catalog, other).await.direct.is_empty());
}

pub(crate) async fn urls_are_forgotten_when_they_are_closed(catalog: Shared) {
    let id = pending(&catalog).await.id;
    open(&catalog, id, &[ONE, TWO], LATER).await;
    let commit = Commit {
        parts: vec![receipt(1, 0, 5)],
        closed: vec![ONE, PartNumber(7)],
        ..nothing_of(id, FIRST)
    };
    assert_stale(
        catalog
            .commit(Commit {
                epoch: Epoch(2),
                ..commit.clone()
            })
            .await,
    );
    assert_eq!(load(&catalog, id).await.direct.len(), 2);
    catalog.commit(commit).await.expect("committed");
    assert_eq!(load(&catalog, id).await.direct, [(TWO, LATER)].into());
}

pub(crate) async fn urls_are_forgotten_when_the_upload_ends(catalog: Shared) {
    let aborted = pending(&catalog).await.id;
    open(&catalog, aborted, &[ONE], LATER).await;
    catalog.abort(aborted, LATER).await.expect("aborted");
    let completed = uploading(&catalog).await;
    open(&catalog, completed.id, &[ONE], LATER).await;
    let assembled = catalog.begin_assembly(
        completed.id,
        FIRST,
        Length(10),
        Digests::default(),
        until(LATER),
        START,
    );
    assembled.await.expect("begun");
    assert_eq!(load(&catalog, completed.id).await.direct.len(), 1);
    let object = object_of(&completed);
    let done = catalog.complete(completed.id, FIRST, object, vec![], LATER);
    done.await.expect("completed");
    for id in [aborted, completed.id] {
        assert!(load(&catalog, id).await.direct.is_empty());
    }
}

pub(crate) async fn only_the_owner_of_what_takes_bytes_hands_out_urls(catalog: Shared) {
    let urls = |id, epoch| catalog.open_parts(id, epoch, vec![ONE], LATER);
    let assembling = assembling(&catalog).await.id;
    let aborted = pending(&catalog).await.id;
    catalog.abort(aborted, LATER).await.expect("aborted");
    for (id, epoch) in [
        (pending(&catalog).await.id, Epoch(2)),
        (assembling, FIRST),
        (aborted, FIRST),
        (aborted, Epoch(2)),
        (UploadId::generate(), FIRST),
    ] {
        assert_stale(urls(id, epoch).await);
    }
    // Nor does a repeated creation give another its key: whoever has a URL has had the first answer.
    let idempotency = || Idempotency {
        key_hash: [1; 32],
        fingerprint: [1; 32],
        expires_at: EXPIRY,
    };
    let first = new_upload();
    let id = first.id;
    let created = catalog.create(first, Some(idempotency())).await;
    created.expect("created");
    urls(id, FIRST).await.expect("opened");
    let again = catalog.create(new_upload(), Some(idempotency())).await;
    assert_eq!(again.expect("answered"), Created::InUse);
}
