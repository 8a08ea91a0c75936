//! From every byte there to one who makes the object: `begin_assembly` to `claim_key`.

use super::*;
use crate::catalog::{Assembled, Claimed, Due};

pub(crate) async fn assembly_begins_when_every_byte_is_there(catalog: Shared) {
    let upload = uploading(&catalog).await;
    let begin = || {
        catalog.begin_assembly(
            upload.id,
            FIRST,
            Length(10),
            Digests::default(),
            until(EXPIRY),
            LATER,
        )
    };
    begin().await.expect("begun");
    let found = load(&catalog, upload.id).await.upload;
    let assembling = UploadState::Assembling {
        attempts: 0,
        until: EXPIRY,
    };
    assert_eq!(found.state, assembling);
    assert_eq!(found.length, Some(Length(10)));
    assert_eq!(found.updated_at, LATER);
    assert_stale(begin().await);

    let empty = pending(&catalog).await;
    catalog
        .begin_assembly(
            empty.id,
            FIRST,
            Length(0),
            Digests::default(),
            until(EXPIRY),
            LATER,
        )
        .await
        .expect("nothing is missing of nothing");
    assert_eq!(
        load(&catalog, empty.id).await.upload.length,
        Some(Length(0))
    );
}

pub(crate) async fn assembly_does_not_begin_otherwise(catalog: Shared) {
    let begin = |id, epoch, length| {
        catalog.begin_assembly(
            id,
            epoch,
            Length(length),
            Digests::default(),
            until(EXPIRY),
            LATER,
        )
    };
    let whole = uploading(&catalog).await;
    assert_stale(begin(whole.id, Epoch(2), 10).await);
    assert_stale(begin(whole.id, FIRST, 11).await);
    assert_stale(begin(whole.id, FIRST, 9).await);
    assert_stale(begin(UploadId::generate(), FIRST, 0).await);
    assert_eq!(state(&catalog, whole.id).await, UploadState::Uploading);

    for holes in [&[(0, 4), (5, 10)][..], &[(1, 10)], &[(0, 9)], &[(0, 11)]] {
        let holed = pending(&catalog).await;
        let commit = Commit {
            received: set(holes).iter().collect(),
            ..nothing_of(holed.id, FIRST)
        };
        catalog.commit(commit).await.expect("committed");
        assert_stale(begin(holed.id, FIRST, 10).await);
        let found = load(&catalog, holed.id).await.upload;
        assert_eq!((found.state, found.length), (UploadState::Uploading, None));
    }

    let ended = uploading(&catalog).await;
    catalog.abort(ended.id, LATER).await.expect("aborted");
    assert_stale(begin(ended.id, Epoch(2), 10).await);
}

pub(crate) async fn digests_join_what_was_declared(catalog: Shared) {
    let upload = uploading(&catalog).await;
    let declared = digest(DigestAlgorithm::Md5, 7);
    let told = digest(DigestAlgorithm::Sha256, 1);
    let begin = |digests: Vec<Digest>| {
        let digests = digests.into_iter().collect();
        catalog.begin_assembly(upload.id, FIRST, Length(10), digests, until(EXPIRY), LATER)
    };
    assert_stale(begin(vec![told.clone(), digest(DigestAlgorithm::Md5, 8)]).await);
    assert_eq!(
        load(&catalog, upload.id).await.upload.declared,
        upload.declared
    );
    begin(vec![told.clone()]).await.expect("begun");
    assert_eq!(
        load(&catalog, upload.id).await.upload.declared.digests,
        [declared, told].into_iter().collect()
    );
}

pub(crate) async fn an_assembly_is_due_when_nobody_holds_it(catalog: Shared) {
    let mut ids = Vec::new();
    for at in [30, 10, 20, 40] {
        let upload = uploading(&catalog).await;
        catalog
            .begin_assembly(
                upload.id,
                FIRST,
                Length(10),
                Digests::default(),
                until(Timestamp(at)),
                START,
            )
            .await
            .expect("begun");
        ids.push(upload.id);
    }
    uploading(&catalog).await;
    let due = |now, after, limit| catalog.due_assemblies(Timestamp(now), after, limit);
    let all = [(10, ids[1]), (20, ids[2]), (30, ids[0])].map(|(at, id)| Due {
        at: Timestamp(at),
        id,
    });
    assert_eq!(due(9, None, 10).await.expect("read"), []);
    assert_eq!(due(30, None, 10).await.expect("read"), all);
    assert_eq!(due(30, None, 2).await.expect("read"), all[..2]);
    assert_eq!(due(30, Some(all[0]), 2).await.expect("read"), all[1..]);
    assert_eq!(due(30, Some(all[2]), 2).await.expect("read"), []);
}

pub(crate) async fn an_assembly_is_claimed_by_one(catalog: Shared) {
    let upload = assembling(&catalog).await;
    let just_before = Timestamp(LATER.0 - 1);
    let held = catalog.claim_assembly(upload.id, just_before, EXPIRY).await;
    assert_eq!(held.expect("answered"), None);
    let racers: Vec<_> = (0..8)
        .map(|_| {
            let catalog = Arc::clone(&catalog);
            tokio::spawn(async move { catalog.claim_assembly(upload.id, LATER, EXPIRY).await })
        })
        .collect();
    let mut won = Vec::new();
    for racer in racers {
        won.extend(racer.await.expect("not panicked").expect("answered"));
    }
    assert_eq!(won.len(), 1);
    assert_eq!(won[0].upload.epoch, Epoch(2));
    let (attempts, until) = (0, EXPIRY);
    assert_eq!(
        won[0].upload.state,
        UploadState::Assembling { attempts, until }
    );
    assert_eq!(won[0], load(&catalog, upload.id).await);
    for other in [uploading(&catalog).await.id, UploadId::generate()] {
        let answer = catalog.claim_assembly(other, EXPIRY, EXPIRY).await;
        assert_eq!(answer.expect("answered"), None);
    }
}

pub(crate) async fn an_assembly_put_off_counts_the_attempt(catalog: Shared) {
    let upload = assembling(&catalog).await;
    for attempts in 1..=2 {
        let until = Timestamp(EXPIRY.0 + i64::from(attempts));
        catalog
            .postpone_assembly(upload.id, FIRST, until)
            .await
            .expect("put off");
        assert_eq!(
            state(&catalog, upload.id).await,
            UploadState::Assembling { attempts, until }
        );
    }
    assert_stale(catalog.postpone_assembly(upload.id, Epoch(2), EXPIRY).await);
    let other = uploading(&catalog).await;
    assert_stale(catalog.postpone_assembly(other.id, FIRST, EXPIRY).await);
    assert_eq!(state(&catalog, other.id).await, UploadState::Uploading);
}

pub(crate) async fn an_assembly_that_is_held_on_counts_no_attempt(catalog: Shared) {
    let upload = assembling(&catalog).await;
    let put_off = catalog.postpone_assembly(upload.id, FIRST, LATER).await;
    put_off.expect("put off");
    for until in [EXPIRY, EXPIRY, Timestamp(EXPIRY.0 + 1)] {
        let held = catalog.hold_assembly(upload.id, FIRST, until).await;
        held.expect("held");
        assert_eq!(
            state(&catalog, upload.id).await,
            UploadState::Assembling { attempts: 1, until }
        );
        let claimed = catalog.claim_assembly(upload.id, LATER, EXPIRY).await;
        assert_eq!(claimed.expect("answered"), None, "it is held");
    }
    assert_stale(catalog.hold_assembly(upload.id, Epoch(2), EXPIRY).await);
    let other = uploading(&catalog).await;
    assert_stale(catalog.hold_assembly(other.id, FIRST, EXPIRY).await);
    assert_eq!(state(&catalog, other.id).await, UploadState::Uploading);
}

pub(crate) async fn a_key_has_one_upload(catalog: Shared) {
    let one = assembling(&catalog).await;
    let two = assembling(&catalog).await;
    let claim = |id| catalog.claim_key(one.store_key.clone(), id, LATER);
    assert_eq!(claim(one.id).await.expect("claimed"), Claimed::Yes);
    assert_eq!(claim(one.id).await.expect("repeated"), Claimed::Yes);
    assert_eq!(
        claim(two.id).await.expect("answered"),
        Claimed::Busy(one.id)
    );
    catalog
        .complete(one.id, FIRST, object_of(&one), vec![], LATER)
        .await
        .expect("completed");
    assert_eq!(claim(one.id).await.expect("repeated"), Claimed::Yes);
    assert_eq!(
        claim(two.id).await.expect("answered"),
        Claimed::Stored(Box::new(object_of(&one)))
    );

    let shared = two.store_key.clone();
    let racers: Vec<_> = (0..2)
        .map(|_| {
            let (catalog, key) = (Arc::clone(&catalog), shared.clone());
            tokio::spawn(async move {
                let own = assembling(&catalog).await.id;
                let answer = catalog.claim_key(key, own, LATER).await;
                (own, answer.expect("answered"))
            })
        })
        .collect();
    let mut answers = Vec::new();
    for racer in racers {
        answers.push(racer.await.expect("not panicked"));
    }
    answers.sort_by_key(|(_, answer)| *answer != Claimed::Yes);
    assert_eq!(answers[0].1, Claimed::Yes);
    assert_eq!(answers[1].1, Claimed::Busy(answers[0].0));
}

pub(crate) async fn a_key_is_not_claimed_for_what_has_ended(catalog: Shared) {
    let upload = pending(&catalog).await;
    catalog.abort(upload.id, LATER).await.expect("aborted");
    for id in [upload.id, UploadId::generate()] {
        assert_stale(catalog.claim_key(upload.store_key.clone(), id, LATER).await);
    }
}

pub(crate) async fn an_assembly_begins_with_the_last_bytes(catalog: Shared) {
    let upload = pending(&catalog).await;
    let key = Some(upload.store_key.clone());
    let with = |received| Commit {
        received: vec![received],
        length: Some(Length(10)),
        now: LATER,
        assemble: Some(Assemble {
            until: EXPIRY,
            key: key.clone(),
        }),
        ..nothing_of(upload.id, FIRST)
    };
    let some = catalog.commit(with(range(0, 9))).await;
    assert_eq!(some.expect("committed"), Assembled::default());
    assert_eq!(state(&catalog, upload.id).await, UploadState::Uploading);
    let all = catalog.commit(with(range(9, 10))).await.expect("committed");
    let whole = Assembled {
        begun: true,
        claimed: true,
    };
    assert_eq!(all, whole);
    let assembling = UploadState::Assembling {
        attempts: 0,
        until: EXPIRY,
    };
    assert_eq!(state(&catalog, upload.id).await, assembling);
    let again = catalog.commit(with(range(9, 10))).await;
    assert_eq!(again.expect("committed"), Assembled::default());
    assert_eq!(state(&catalog, upload.id).await, assembling);
    let other = pending(&catalog).await;
    let taken = catalog.claim_key(upload.store_key.clone(), other.id, LATER);
    assert_eq!(taken.await.expect("asked"), Claimed::Busy(upload.id));
}

pub(crate) async fn an_assembly_begins_without_a_key_that_is_taken(catalog: Shared) {
    let [holder, upload] = [pending(&catalog).await, uploading(&catalog).await];
    let key = upload.store_key.clone();
    let claimed = catalog.claim_key(key.clone(), holder.id, LATER).await;
    assert_eq!(claimed.expect("claimed"), Claimed::Yes);
    let how = Assemble {
        until: EXPIRY,
        key: Some(key),
    };
    let begun = catalog
        .begin_assembly(upload.id, FIRST, Length(10), Digests::default(), how, LATER)
        .await;
    let without = Assembled {
        begun: true,
        claimed: false,
    };
    assert_eq!(begun.expect("begun"), without);
}
