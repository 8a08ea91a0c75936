//! What is used up, and by whom it is counted.

use super::*;
use crate::model::quota::{Device, Used};
use crate::model::{LimitHit, LimitName, Limits, SpaceName, UploadOwner};

fn owner(space: &str, subject: &str, device: &str) -> UploadOwner {
    UploadOwner {
        space: space.parse().expect("a name"),
        subject: Some(subject.parse().expect("a name")),
        token: Some(format!("of-{subject}").parse().expect("a name")),
        device: Some(match device {
            "" => Device::Unnamed,
            named => Device::Named(named.parse().expect("a name")),
        }),
    }
}

fn of(owner: &UploadOwner, length: Option<u64>, limits: &[(LimitName, u64)]) -> NewUpload {
    NewUpload {
        owner: owner.clone(),
        length: length.map(Length),
        limits: limits.iter().copied().collect(),
        ..new_upload()
    }
}

async fn create(catalog: &Shared, new: NewUpload) -> Upload {
    match catalog.create(new, None).await.expect("created") {
        Created::New(upload) => upload,
        other => panic!("not new: {other:?}"),
    }
}

async fn refused(catalog: &Shared, new: NewUpload) -> LimitHit {
    let id = new.id;
    match catalog.create(new, None).await {
        Err(CatalogError::Limited(hit)) => {
            assert!(
                catalog.load(id).await.expect("read").is_none(),
                "nothing changed"
            );
            hit
        }
        other => panic!("not limited: {other:?}"),
    }
}

/// How much is used up of what is asked for.
async fn used(catalog: &Shared, owner: &UploadOwner, limit: LimitName) -> u64 {
    let limits: Limits = [(limit, 1000)].into();
    let used = catalog
        .used(owner.clone(), limits, Timestamp(0), START)
        .await;
    match used.expect("read")[..] {
        [Used { used, left, .. }] => {
            assert_eq!(left, 1000 - used);
            used
        }
        ref other => panic!("not one: {other:?}"),
    }
}

async fn bring(catalog: &Shared, upload: &Upload, bytes: u64) -> Result<()> {
    let commit = Commit {
        received: vec![range(0, bytes)],
        ..nothing_of(upload.id, FIRST)
    };
    catalog.commit(commit).await.map(drop)
}

async fn finish(catalog: &Shared, upload: &Upload, bytes: u64) {
    let (length, digests) = (Length(bytes), Digests::default());
    catalog
        .begin_assembly(upload.id, FIRST, length, digests, until(LATER), START)
        .await
        .expect("begun");
    let object = Object {
        size: length,
        ..object_of(upload)
    };
    catalog
        .complete(upload.id, FIRST, object, vec![], LATER)
        .await
        .expect("completed");
}

const ALL_BYTES: [LimitName; 4] = [
    LimitName::BytesPerDayPerDevice,
    LimitName::BytesPerDayPerSubject,
    LimitName::BytesPerToken,
    LimitName::StoredBytes,
];
const ALL_UPLOADS: [LimitName; 4] = [
    LimitName::UploadsPerDayPerDevice,
    LimitName::UploadsPerDayPerSubject,
    LimitName::UploadsPerToken,
    LimitName::Uploads,
];

pub(crate) async fn each_limit_lets_in_what_it_allows_and_no_more(catalog: Shared) {
    for (n, limit) in ALL_UPLOADS.into_iter().enumerate() {
        let owner = owner(&format!("s{n}"), &format!("who{n}"), "d");
        for _ in 0..2 {
            create(&catalog, of(&owner, Some(1), &[(limit, 2)])).await;
        }
        let hit = refused(&catalog, of(&owner, Some(1), &[(limit, 2)])).await;
        assert_eq!((hit.limit, hit.allowed, hit.left), (limit, 2, 0));
    }
    for (n, limit) in ALL_BYTES.into_iter().enumerate() {
        let owner = owner(&format!("b{n}"), &format!("what{n}"), "d");
        create(&catalog, of(&owner, Some(70), &[(limit, 100)])).await;
        let hit = refused(&catalog, of(&owner, Some(31), &[(limit, 100)])).await;
        assert_eq!((hit.limit, hit.allowed, hit.left), (limit, 100, 30));
        create(&catalog, of(&owner, Some(30), &[(limit, 100)])).await;
    }
    let nobody = owner("z", "nobody", "");
    refused(&catalog, of(&nobody, Some(0), &[(LimitName::Uploads, 0)])).await;
}

pub(crate) async fn a_day_begins_anew_and_says_when(catalog: Shared) {
    let who = owner("default", "ann", "phone");
    let limits = [(LimitName::UploadsPerDayPerDevice, 1)];
    create(&catalog, of(&who, Some(1), &limits)).await;
    let hit = refused(&catalog, of(&who, Some(1), &limits)).await;
    assert_eq!(
        hit.resets_at,
        Some(Timestamp(86_400_000)),
        "START is on the first day"
    );
    let tomorrow = NewUpload {
        now: Timestamp(86_400_000),
        ..of(&who, Some(1), &limits)
    };
    create(&catalog, tomorrow).await;
    let for_good = [(LimitName::Uploads, 2)];
    let hit = refused(&catalog, of(&who, Some(1), &for_good)).await;
    assert_eq!(hit.resets_at, None);
}

pub(crate) async fn devices_subjects_and_spaces_are_counted_apart(catalog: Shared) {
    let ann = owner("photos", "ann", "phone");
    create(&catalog, of(&ann, Some(10), &[])).await;
    let tablet = owner("photos", "ann", "tablet");
    assert_eq!(
        used(&catalog, &tablet, LimitName::BytesPerDayPerDevice).await,
        0
    );
    assert_eq!(
        used(&catalog, &tablet, LimitName::BytesPerDayPerSubject).await,
        10
    );
    let bob = owner("photos", "bob", "phone");
    assert_eq!(
        used(&catalog, &bob, LimitName::BytesPerDayPerDevice).await,
        0
    );
    assert_eq!(used(&catalog, &bob, LimitName::BytesPerToken).await, 0);
    assert_eq!(used(&catalog, &bob, LimitName::StoredBytes).await, 10);
    let elsewhere = owner("films", "ann", "phone");
    assert_eq!(
        used(&catalog, &elsewhere, LimitName::BytesPerDayPerSubject).await,
        0
    );
    assert_eq!(used(&catalog, &elsewhere, LimitName::StoredBytes).await, 0);
}

pub(crate) async fn what_is_open_is_what_got_bytes_lately(catalog: Shared) {
    let who = owner("default", "ann", "");
    for limit in [LimitName::OpenPerDevice, LimitName::OpenPerToken] {
        let limits = [(limit, 2)];
        let first = create(&catalog, of(&who, None, &limits)).await;
        let second = create(&catalog, of(&who, None, &limits)).await;
        let hit = refused(&catalog, of(&who, None, &limits)).await;
        assert_eq!((hit.limit, hit.left), (limit, 0));
        let idle = NewUpload {
            idle_since: START,
            ..of(&who, None, &limits)
        };
        let third = create(&catalog, idle).await;
        catalog.abort(first.id, START).await.expect("aborted");
        refused(&catalog, of(&who, None, &limits)).await;
        catalog.abort(second.id, START).await.expect("aborted");
        let fourth = create(&catalog, of(&who, None, &limits)).await;
        for upload in [third, fourth] {
            catalog.abort(upload.id, START).await.expect("aborted");
        }
    }
}

pub(crate) async fn parts_of_an_upload_are_one_open_upload(catalog: Shared) {
    let who = owner("default", "ann", "d");
    let limits = [
        (LimitName::OpenPerDevice, 2),
        (LimitName::UploadsPerToken, 1000),
        (LimitName::BytesPerToken, 1000),
    ];
    let part = || NewUpload {
        role: Role::Partial,
        ..of(&who, Some(5), &limits)
    };
    for _ in 0..5 {
        create(&catalog, part()).await;
    }
    create(&catalog, of(&who, Some(1), &limits)).await;
    create(&catalog, part()).await;
    refused(&catalog, of(&who, Some(1), &limits)).await;
    assert_eq!(used(&catalog, &who, LimitName::UploadsPerToken).await, 1);
    assert_eq!(used(&catalog, &who, LimitName::BytesPerToken).await, 31);
    for _ in 6..64 {
        create(&catalog, part()).await;
    }
    refused(&catalog, part()).await;
}

pub(crate) async fn an_upload_made_of_a_part_many_times_is_charged_for_it(catalog: Shared) {
    let who = owner("default", "ann", "d");
    let part = create(
        &catalog,
        NewUpload {
            role: Role::Partial,
            ..of(&who, Some(40), &[(LimitName::BytesPerToken, 100)])
        },
    )
    .await;
    bring(&catalog, &part, 40).await.expect("taken");
    finish(&catalog, &part, 40).await;
    let times = |times: usize, limit| NewUpload {
        role: Role::Final,
        parts: vec![part.id; times],
        ..of(&who, None, &[(limit, 100)])
    };
    for limit in ALL_BYTES {
        let hit = refused(&catalog, times(3, limit)).await;
        assert_eq!((hit.limit, hit.left), (limit, 60));
    }
    create(&catalog, times(2, LimitName::BytesPerToken)).await;
    assert_eq!(used(&catalog, &who, LimitName::BytesPerToken).await, 80);
}

pub(crate) async fn what_a_token_has_brought_it_has_brought(catalog: Shared) {
    let who = owner("default", "ann", "d");
    let limits = [
        (LimitName::UploadsPerToken, 1),
        (LimitName::BytesPerToken, 100),
    ];
    let stored = create(&catalog, of(&who, Some(50), &limits)).await;
    bring(&catalog, &stored, 50).await.expect("taken");
    finish(&catalog, &stored, 50).await;
    catalog
        .terminate(stored.id, true, LATER)
        .await
        .expect("ended");
    assert_eq!(used(&catalog, &who, LimitName::BytesPerToken).await, 50);
    let hit = refused(&catalog, of(&who, Some(1), &limits)).await;
    assert_eq!(hit.limit, LimitName::UploadsPerToken);
}

pub(crate) async fn a_token_without_limits_has_no_account(catalog: Shared) {
    let who = owner("default", "ann", "d");
    create(&catalog, of(&who, Some(50), &[])).await;
    assert_eq!(used(&catalog, &who, LimitName::BytesPerToken).await, 0);
    assert_eq!(used(&catalog, &who, LimitName::StoredBytes).await, 50);
}

pub(crate) async fn what_is_completed_at_once_is_held_to_the_limits(catalog: Shared) {
    let who = owner("default", "ann", "d");
    let there = create(&catalog, of(&who, Some(50), &[])).await;
    bring(&catalog, &there, 50).await.expect("taken");
    finish(&catalog, &there, 50).await;
    let key = there.store_key.clone();
    let again = |max_size| NewUpload {
        instant: Some(key.clone()),
        max_size: Some(Length(max_size)),
        typed: false,
        declared: Declared::default(),
        ..of(&who, None, &[(LimitName::BytesPerDayPerDevice, 80)])
    };
    let small = create(&catalog, again(49)).await;
    assert_eq!(
        small.state,
        UploadState::Pending,
        "it is too large for this one"
    );
    let hit = refused(&catalog, again(50)).await;
    assert_eq!((hit.limit, hit.left), (LimitName::BytesPerDayPerDevice, 30));
}

pub(crate) async fn racing_creations_never_pass_a_limit_together(catalog: Shared) {
    let who = owner("default", "ann", "d");
    for (limit, length) in [
        (LimitName::OpenPerDevice, None),
        (LimitName::StoredBytes, Some(10)),
    ] {
        let allowed = length.map_or(2, |length| 2 * length);
        let mut racing = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let (catalog, new) = (Arc::clone(&catalog), of(&who, length, &[(limit, allowed)]));
            racing.spawn(async move { catalog.create(new, None).await.is_ok() });
        }
        let created = racing.join_all().await.into_iter().filter(|&ok| ok).count();
        assert_eq!(created, 2, "{limit:?}");
    }
}

pub(crate) async fn an_unknown_length_is_charged_as_it_arrives(catalog: Shared) {
    let who = owner("default", "ann", "d");
    let upload = create(&catalog, of(&who, None, &[(LimitName::BytesPerToken, 100)])).await;
    assert_eq!(used(&catalog, &who, LimitName::BytesPerToken).await, 0);
    bring(&catalog, &upload, 60).await.expect("taken");
    bring(&catalog, &upload, 60).await.expect("repeated");
    assert_eq!(used(&catalog, &who, LimitName::BytesPerToken).await, 60);
    match bring(&catalog, &upload, 101).await {
        Err(CatalogError::Limited(hit)) => assert_eq!(hit.left, 40),
        other => panic!("not limited: {other:?}"),
    }
    assert_eq!(load(&catalog, upload.id).await.received, set(&[(0, 60)]));
    let told = Commit {
        length: Some(Length(90)),
        ..nothing_of(upload.id, FIRST)
    };
    catalog.commit(told).await.expect("the length is known now");
    assert_eq!(used(&catalog, &who, LimitName::BytesPerToken).await, 90);
}

pub(crate) async fn what_ends_is_settled(catalog: Shared) {
    let who = owner("default", "ann", "d");
    let of_the_day = LimitName::BytesPerDayPerSubject;
    let counted = [(LimitName::UploadsPerToken, 9)];
    let aborted = create(&catalog, of(&who, Some(100), &counted)).await;
    bring(&catalog, &aborted, 30).await.expect("taken");
    catalog.abort(aborted.id, LATER).await.expect("aborted");
    assert_eq!(used(&catalog, &who, of_the_day).await, 30, "what arrived");
    assert_eq!(
        used(&catalog, &who, LimitName::UploadsPerDayPerSubject).await,
        1
    );
    for limit in [
        LimitName::StoredBytes,
        LimitName::Uploads,
        LimitName::UploadsPerToken,
    ] {
        assert_eq!(used(&catalog, &who, limit).await, 0, "{limit:?}");
    }
    let stored = create(&catalog, of(&who, None, &[])).await;
    bring(&catalog, &stored, 50).await.expect("taken");
    finish(&catalog, &stored, 50).await;
    assert_eq!(used(&catalog, &who, LimitName::StoredBytes).await, 50);
    assert_eq!(used(&catalog, &who, of_the_day).await, 80);
    catalog
        .terminate(stored.id, true, LATER)
        .await
        .expect("ended");
    catalog
        .terminate(stored.id, true, LATER)
        .await
        .expect("repeated");
    assert_eq!(used(&catalog, &who, LimitName::StoredBytes).await, 0);
    assert_eq!(used(&catalog, &who, LimitName::Uploads).await, 0);
    assert_eq!(
        used(&catalog, &who, of_the_day).await,
        80,
        "the day is past changing"
    );
}

pub(crate) async fn an_object_that_stays_goes_on_being_counted(catalog: Shared) {
    let who = owner("default", "ann", "d");
    let stored = create(&catalog, of(&who, Some(50), &[])).await;
    bring(&catalog, &stored, 50).await.expect("taken");
    finish(&catalog, &stored, 50).await;
    catalog
        .terminate(stored.id, false, LATER)
        .await
        .expect("ended");
    assert_eq!(used(&catalog, &who, LimitName::StoredBytes).await, 50);
    assert_eq!(used(&catalog, &who, LimitName::Uploads).await, 1);
}

pub(crate) async fn an_owner_is_found_beside_the_key(catalog: Shared) {
    let who = owner("photos", "ann", "");
    let new = of(&who, None, &[]);
    let hash = new.key_hash;
    let upload = create(&catalog, new).await;
    assert_eq!(upload.owner, who);
    let found = catalog.owner(upload.id).await.expect("read");
    assert_eq!(found, Some((hash, who)));
    let nobody = pending(&catalog).await;
    let found = catalog.owner(nobody.id).await.expect("read");
    assert_eq!(found.map(|(_, owner)| owner), Some(UploadOwner::default()));
    assert_eq!(nobody.owner.space, SpaceName::default());
    let none = catalog.owner(UploadId::generate()).await.expect("read");
    assert_eq!(none, None);
}

pub(crate) async fn a_record_stays_as_long_as_its_space_says(catalog: Shared) {
    let long_ago = Timestamp(0);
    let who = owner("photos", "ann", "");
    let short = NewUpload {
        retention: Some(std::time::Duration::from_millis(10)),
        ..of(&who, None, &[])
    };
    let short = create(&catalog, short).await;
    let usual = pending(&catalog).await;
    for upload in [&short, &usual] {
        catalog.abort(upload.id, START).await.expect("aborted");
    }
    let soon = Timestamp(START.0 + 10);
    assert_eq!(
        catalog
            .purge_ended(long_ago, soon, 9)
            .await
            .expect("purged"),
        0
    );
    let due = Timestamp(START.0 + 11);
    assert_eq!(
        catalog.count_ended(long_ago, due).await.expect("counted"),
        1
    );
    assert_eq!(
        catalog.purge_ended(long_ago, due, 9).await.expect("purged"),
        1
    );
    assert!(catalog.load(short.id).await.expect("read").is_none());
    assert!(catalog.load(usual.id).await.expect("read").is_some());
}
