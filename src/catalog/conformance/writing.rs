//! `claim` and `commit`.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::*;

pub(crate) async fn a_claim_puts_the_writers_before_it_out(catalog: Shared) {
    let upload = uploading(&catalog).await;
    let before = load(&catalog, upload.id).await;
    let claimed = catalog.claim(upload.id, LATER).await.expect("claimed");
    assert_eq!(claimed.upload.epoch, Epoch(2));
    assert_eq!(claimed.received, before.received);
    assert_eq!(claimed.parts, before.parts);
    assert_eq!(load(&catalog, upload.id).await, claimed);
    assert_stale(catalog.commit(nothing_of(upload.id, FIRST)).await);
    assert_stale(catalog.commit(nothing_of(upload.id, Epoch(3))).await);
    catalog
        .commit(nothing_of(upload.id, Epoch(2)))
        .await
        .expect("its own epoch");
    let again = catalog.claim(upload.id, LATER).await.expect("claimed");
    assert_eq!(again.upload.epoch, Epoch(3));
    let missing = catalog.claim(UploadId::generate(), LATER).await;
    assert!(
        matches!(missing, Err(CatalogError::NotFound)),
        "{missing:?}"
    );
}

pub(crate) async fn claims_that_race_get_different_epochs(catalog: Shared) {
    let id = pending(&catalog).await.id;
    let racers: Vec<_> = (0..8)
        .map(|_| {
            let catalog = Arc::clone(&catalog);
            tokio::spawn(async move { catalog.claim(id, LATER).await })
        })
        .collect();
    let mut epochs = Vec::new();
    for racer in racers {
        let claimed = racer.await.expect("not panicked").expect("claimed");
        epochs.push(claimed.upload.epoch.0);
    }
    epochs.sort_unstable();
    assert_eq!(epochs, (2..=9).collect::<Vec<_>>());
}

pub(crate) async fn an_ended_upload_is_claimed_as_it_is(catalog: Shared) {
    let upload = completed(&catalog).await;
    let before = load(&catalog, upload.id).await;
    let claimed = catalog.claim(upload.id, EXPIRY).await.expect("returned");
    assert_eq!(claimed, before);
    assert_eq!(load(&catalog, upload.id).await, before);
}

pub(crate) async fn a_commit_is_remembered_whole(catalog: Shared) {
    let upload = pending(&catalog).await;
    let commit = Commit {
        parts: vec![
            receipt(1, 0, 6),
            PartReceipt {
                checksum: None,
                ..receipt(2, 6, 10)
            },
        ],
        expires_at: Some(Timestamp(3_000_000)),
        ..all_of(upload.id, FIRST, 10)
    };
    catalog.commit(commit.clone()).await.expect("committed");
    let found = load(&catalog, upload.id).await;
    let expected = Upload {
        state: UploadState::Uploading,
        length: Some(Length(10)),
        hash: commit.hash.expect("set"),
        readback: true,
        boot: "this boot".to_owned(),
        updated_at: LATER,
        expires_at: Timestamp(3_000_000),
        ..upload
    };
    assert_eq!(found.upload, expected);
    assert_eq!(found.received, set(&[(0, 10)]));
    let parts: Vec<_> = found.parts.into_values().collect();
    assert_eq!(parts, commit.parts);
}

pub(crate) async fn a_commit_without_news_keeps_what_was_there(catalog: Shared) {
    let waiting = pending(&catalog).await;
    catalog
        .commit(nothing_of(waiting.id, FIRST))
        .await
        .expect("committed");
    assert_eq!(state(&catalog, waiting.id).await, UploadState::Pending);

    let upload = uploading(&catalog).await;
    let before = load(&catalog, upload.id).await;
    let commit = Commit {
        now: LATER,
        ..nothing_of(upload.id, FIRST)
    };
    catalog.commit(commit).await.expect("committed");
    assert_eq!(load(&catalog, upload.id).await, before);

    let replaced = PartReceipt {
        etag: "another".to_owned(),
        checksum: None,
        ..receipt(1, 0, 5)
    };
    let commit = Commit {
        parts: vec![replaced.clone()],
        ..nothing_of(upload.id, FIRST)
    };
    catalog.commit(commit).await.expect("committed");
    let parts = load(&catalog, upload.id).await.parts;
    assert_eq!(parts.into_values().collect::<Vec<_>>(), [replaced]);
}

pub(crate) async fn a_commit_repeated_changes_nothing(catalog: Shared) {
    let upload = pending(&catalog).await;
    let commit = all_of(upload.id, FIRST, 10);
    catalog.commit(commit.clone()).await.expect("committed");
    let before = load(&catalog, upload.id).await;
    catalog.commit(commit).await.expect("committed again");
    assert_eq!(load(&catalog, upload.id).await, before);
}

pub(crate) async fn a_commit_that_fails_leaves_nothing(catalog: Shared) {
    let upload = uploading(&catalog).await;
    let before = load(&catalog, upload.id).await;
    let other_length = Commit {
        received: vec![range(2, 4)],
        parts: vec![receipt(9, 0, 1)],
        boot: Some("another".to_owned()),
        ..all_of(upload.id, FIRST, 11)
    };
    assert_stale(catalog.commit(other_length).await);
    assert_eq!(load(&catalog, upload.id).await, before);
    let other_epoch = Commit {
        parts: vec![receipt(9, 0, 1)],
        ..all_of(upload.id, Epoch(7), 10)
    };
    assert_stale(catalog.commit(other_epoch).await);
    assert_eq!(load(&catalog, upload.id).await, before);
    assert_stale(
        catalog
            .commit(nothing_of(UploadId::generate(), FIRST))
            .await,
    );
}

pub(crate) async fn bytes_beyond_the_length_are_refused(catalog: Shared) {
    let upload = uploading(&catalog).await;
    let before = load(&catalog, upload.id).await;
    let beyond = Commit {
        received: vec![range(10, 11)],
        parts: vec![receipt(2, 10, 11)],
        ..nothing_of(upload.id, FIRST)
    };
    assert_stale(catalog.commit(beyond).await);
    assert_eq!(load(&catalog, upload.id).await, before);

    let open_ended = pending(&catalog).await;
    let some = Commit {
        received: vec![range(0, 10)],
        ..nothing_of(open_ended.id, FIRST)
    };
    catalog.commit(some).await.expect("committed");
    let too_short = Commit {
        length: Some(Length(9)),
        ..nothing_of(open_ended.id, FIRST)
    };
    assert_stale(catalog.commit(too_short).await);
    assert_eq!(load(&catalog, open_ended.id).await.upload.length, None);
}

/// Any ranges in any order, several a commit: what is loaded is what the model's set holds.
pub(crate) async fn ranges_come_back_as_the_model_has_them(catalog: Shared) {
    let one = (0_u64..64, 1_u64..16).prop_map(|(start, len)| range(start, start + len));
    let commits = prop::collection::vec(prop::collection::vec(one, 0..4), 1..10);
    let mut runner = TestRunner::deterministic();
    for _ in 0..64 {
        let commits = commits.new_tree(&mut runner).expect("drawn").current();
        let id = pending(&catalog).await.id;
        let mut model = RangeSet::new();
        for received in commits {
            for range in &received {
                model.insert(*range);
            }
            let commit = Commit {
                received,
                ..nothing_of(id, FIRST)
            };
            catalog.commit(commit).await.expect("committed");
            assert_eq!(load(&catalog, id).await.received, model);
        }
    }
}

pub(crate) async fn writers_that_commit_at_once_are_all_remembered(catalog: Shared) {
    let shared = pending(&catalog).await.id;
    let writers: Vec<_> = (0..64)
        .map(|n| {
            let catalog = Arc::clone(&catalog);
            tokio::spawn(async move {
                let own = pending(&catalog).await.id;
                for (id, at) in [(own, 0), (shared, n * 2)] {
                    let commit = Commit {
                        received: vec![range(at, at + 1)],
                        ..nothing_of(id, FIRST)
                    };
                    catalog.commit(commit).await.expect("committed");
                    let seen = load(&catalog, id).await.received;
                    assert!(seen.covers(range(at, at + 1)), "what was committed is read");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("not panicked");
    }
    let received = load(&catalog, shared).await.received;
    assert_eq!(received.iter().count(), 64);
    assert_eq!(catalog.open().await.expect("counted").uploads, 65);
}

pub(crate) async fn one_that_fails_among_many_fails_alone(catalog: Shared) {
    let id = pending(&catalog).await.id;
    let writers: Vec<_> = (0..32_u64)
        .map(|n| {
            let catalog = Arc::clone(&catalog);
            let epoch = Epoch(1 + n % 2);
            tokio::spawn(async move {
                let commit = Commit {
                    received: vec![range(n * 2, n * 2 + 1)],
                    ..nothing_of(id, epoch)
                };
                (n, catalog.commit(commit).await)
            })
        })
        .collect();
    for writer in writers {
        let (n, result) = writer.await.expect("not panicked");
        if n % 2 == 0 {
            result.expect("under the right epoch");
        } else {
            assert_stale(result);
        }
    }
    let received = load(&catalog, id).await.received;
    let starts: Vec<u64> = received.iter().map(ByteRange::start).collect();
    assert_eq!(starts, (0..16).map(|n| n * 4).collect::<Vec<_>>());
}

pub(crate) async fn nothing_but_an_open_upload_takes_a_commit(catalog: Shared) {
    let upload = assembling(&catalog).await;
    let more = Commit {
        parts: vec![receipt(4, 0, 1)],
        ..nothing_of(upload.id, FIRST)
    };
    catalog.commit(more.clone()).await.expect("assembling");
    assert!(matches!(
        state(&catalog, upload.id).await,
        UploadState::Assembling { .. }
    ));
    catalog
        .complete(upload.id, FIRST, object_of(&upload), vec![], LATER)
        .await
        .expect("completed");
    assert_stale(catalog.commit(more).await);
}
