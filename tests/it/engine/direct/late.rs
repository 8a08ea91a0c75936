//! Who has a URL can use it at any time: late, in between, after the end.

use super::*;

#[tokio::test]
async fn never_back_a_late_put_does_not_replace_what_was_acknowledged() {
    for (index, client) in everywhere().await.into_iter().enumerate() {
        let bytes = noise(2 * CELL + 10, 5);
        let session = client.rig.create(Some(bytes.len() as u64)).await;
        let signed = client.urls(&session, &[1, 3]).await;
        client.rig.put(&session, 0, &bytes).await.expect("taken");
        until("the part without a URL is in the store", async || {
            receipts(&client.rig, &session).await == 1
        })
        .await;
        let client = if index < 2 { client.restart() } else { client };
        for part in &signed {
            put(part, &noise(part.range.len(), 6)).await;
            // Nor is it taken for it.
            let told = client.told(&session, part.number.0, None).await;
            told.expect("it is there");
        }
        assert_eq!(files_of(&client.rig, &session).len(), 2, "they wait");
        let object = client.rig.expect_whole(&session, &bytes).await;
        assert_eq!(object.verified, Verified::Stream);
        assert_eq!(files_of(&client.rig, &session), Vec::<String>::new());
        tidy(&client, &object).await;
    }
}

#[tokio::test]
async fn never_back_a_put_between_putting_and_finishing_shows() {
    let client = Client::ours().await;
    let bytes = noise(CELL + 10, 7);
    let session = client.rig.create(Some(bytes.len() as u64)).await;
    let signed = client.urls(&session, &[1, 2]).await;
    client.rig.put(&session, 0, &bytes).await.expect("taken");
    let client = client.restart();
    client.faults.fail(Call::Finish, When::Next(1), Fault::Hang);
    let (engine, asked) = (client.rig.engine.clone(), session.clone());
    let completing = tokio::spawn(async move {
        let complete = Complete {
            id: asked.id,
            key: asked.key,
            digests: Digests::default(),
            length: None,
        };
        engine.complete(complete).await
    });
    until("it is about to be finished", async || {
        client.faults.count(Call::Finish) == 1
    })
    .await;
    for part in &signed {
        put(part, &noise(part.range.len(), 8)).await;
    }
    client.faults.heal();
    let done = completing.await.unwrap();
    assert!(matches!(done, Ok(Completion::Done { .. })), "{done:?}");
    assert_eq!(client.faults.count(Call::Finish), 2);
    // Tags alone do not prove that it holds what was acknowledged.
    assert_eq!(client.faults.count(Call::Read), 1);
    client.rig.expect_whole(&session, &bytes).await;
}

#[tokio::test]
async fn what_waited_for_a_url_leaves_when_that_is_dead() {
    let client = Client::with(ChecksumMode::Auto, |settings| {
        settings.url_ttl = Duration::from_mins(1);
    })
    .await;
    let bytes = noise(3 * CELL, 9);
    let session = client.rig.create(Some(3 * CELL)).await;
    client.urls(&session, &[1, 2]).await;
    client
        .rig
        .put(&session, 0, &bytes[..CELL as usize])
        .await
        .expect("taken");
    client.rig.clock.advance(Duration::from_mins(15));
    assert_eq!(receipts(&client.rig, &session).await, 0);
    client.rig.clock.advance(Duration::from_mins(1));
    client
        .rig
        .put(&session, CELL, &bytes[CELL as usize..])
        .await
        .expect("taken");
    until("all are in the store", async || {
        receipts(&client.rig, &session).await == 3
    })
    .await;
    let snapshot = client.rig.catalog.load(session.id).await.unwrap().unwrap();
    assert!(
        snapshot.direct.is_empty(),
        "what came does not pass for direct"
    );
    client.rig.expect_whole(&session, &bytes).await;
}

#[tokio::test]
async fn what_is_put_again_by_a_url_counts_as_it_is_now() {
    let client = Client::ours().await;
    let bytes = noise(2 * CELL, 17);
    let session = client.rig.create(Some(2 * CELL)).await;
    let signed = client.urls(&session, &[1, 2]).await;
    for part in &signed {
        put(part, &noise(CELL, 18)).await;
        client
            .told(&session, part.number.0, None)
            .await
            .expect("it is there");
        put(part, of(part, &bytes)).await;
    }
    client.rig.expect_whole(&session, &bytes).await;
}

#[tokio::test]
async fn own_only_what_comes_after_an_abort_is_refused_or_swept() {
    for client in everywhere().await {
        let Shape::Parts(parts) = client.rig.store.shape() else {
            panic!("it has parts");
        };
        let session = client.rig.create(Some(CELL + 9)).await;
        let signed = client.urls(&session, &[1, 2]).await;
        put(&signed[0], &noise(CELL, 21)).await;
        let snapshot = client.rig.catalog.load(session.id).await.unwrap().unwrap();
        let key = snapshot.upload.store_key;
        let about = About {
            upload: UploadId::generate(),
            content_type: None,
        };
        let other = format!("of-another/{}", UploadId::generate())
            .parse()
            .unwrap();
        let foreign = parts.begin(&other, &about, MadeOf::Parts).await.unwrap();
        client
            .rig
            .engine
            .abort(session.id, &session.key)
            .await
            .expect("aborted");
        let late = send_signed(&signed[1].request, &noise(9, 21)).await;
        assert_eq!(late.status, 404, "{}", late.text());
        for number in [1, 2] {
            let told = client.told(&session, number, None).await;
            assert!(matches!(told, Err(EngineError::Gone)), "{told:?}");
        }
        let asked = client.ask(&session, &[1], BTreeMap::new()).await;
        assert!(matches!(asked, Err(EngineError::Gone)), "{asked:?}");
        client.rig.clock.advance(Duration::from_mins(11));
        client.rig.engine.prune(false).await.expect("pruned");
        assert_eq!(parts.multipart_of(&key).await.unwrap(), []);
        assert_eq!(client.rig.store.head(&key).await.unwrap(), None);
        let left = parts.multipart_of(&other).await.unwrap();
        assert_eq!(left.len(), 1, "what is another's stays");
        parts.abort(&other, &foreign).await.unwrap();
    }
}

#[tokio::test]
async fn exact_bytes_a_put_after_completion_changes_nothing() {
    for client in everywhere().await {
        let bytes = noise(CELL + 1, 22);
        let session = client.rig.create(Some(CELL + 1)).await;
        let signed = client.urls(&session, &[1, 2]).await;
        put(&signed[0], of(&signed[0], &bytes)).await;
        client
            .rig
            .put(&session, CELL, &bytes[CELL as usize..])
            .await
            .expect("taken");
        client.rig.complete(&session).await.expect("completed");
        let late = send_signed(&signed[1].request, b"1").await;
        assert_eq!(late.status, 404, "{}", late.text());
        let asked = client.ask(&session, &[1], BTreeMap::new()).await;
        assert!(matches!(asked, Err(EngineError::Completed)), "{asked:?}");
        let object = client.rig.expect_whole(&session, &bytes).await;
        tidy(&client, &object).await;
    }
}

#[tokio::test]
async fn told_once_after_a_crash_between_putting_together_and_telling() {
    for all_held in [false, true] {
        let client = Client::ours().await;
        let bytes = noise(2 * CELL, 24);
        let session = client.rig.create(Some(2 * CELL)).await;
        let signed = client.urls(&session, &[1, 2]).await;
        client
            .rig
            .put(&session, 0, &bytes[..CELL as usize])
            .await
            .expect("taken");
        let second = &bytes[CELL as usize..];
        if all_held {
            client.rig.put(&session, CELL, second).await.expect("taken");
        } else {
            put(&signed[1], second).await;
        }
        client
            .faults
            .fail(Call::Finish, When::Next(1), Fault::LostAnswer);
        let failed = client.rig.complete(&session).await;
        assert!(
            matches!(failed, Err(EngineError::Unavailable { .. })),
            "{failed:?}"
        );
        let client = client.restart();
        client.rig.engine.recover(true).await.expect("gone on with");
        until("it is completed by itself", async || {
            let state = client.rig.status(&session).await.upload.state;
            matches!(state, UploadState::Completed { .. })
        })
        .await;
        client.rig.expect_whole(&session, &bytes).await;
        assert_eq!(client.rig.s3_server().backend().open_uploads(), []);
    }
}
