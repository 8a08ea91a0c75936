//! Nothing that a client says of a part is believed, and the whole is known by what it is.

use super::*;

#[tokio::test]
async fn exact_bytes_notices_that_lie_are_refused() {
    for client in everywhere().await {
        let bytes = noise(4 * CELL, 12);
        let session = client.rig.create(Some(4 * CELL)).await;
        let no_url = client.told(&session, 1, None).await;
        assert_eq!(unavailable(no_url), [one(1)]);
        let signed = client.urls(&session, &[1, 2]).await;
        let etag = put(&signed[0], of(&signed[0], &bytes)).await;
        for told in [None, Some(etag.as_str())] {
            let never_put = client.told(&session, 2, told).await;
            assert!(
                matches!(never_put, Err(EngineError::NotPut { .. })),
                "{never_put:?}"
            );
        }
        assert_eq!(unavailable(client.told(&session, 3, None).await), [one(3)]);
        let wrong = client
            .told(&session, 1, Some("\"00000000000000000000000000000000\""))
            .await;
        assert!(
            matches!(wrong, Err(EngineError::RangeMismatch { .. })),
            "{wrong:?}"
        );

        // Parts that were put in another way: one of another size, and one that no URL was for.
        let snapshot = client.rig.catalog.load(session.id).await.unwrap().unwrap();
        let (key, upload) = (
            &snapshot.upload.store_key,
            snapshot.upload.store_upload_id.unwrap(),
        );
        let direct = client.rig.store.direct().unwrap();
        for (number, size) in [(2, CELL - 1), (3, CELL)] {
            let place = PartPlace {
                key,
                upload: &upload,
                number: one(number),
            };
            let (now, hour) = (client.rig.clock.now(), Duration::from_hours(1));
            let signed = direct
                .sign_part(place, Some(Length(size)), None, now, hour)
                .await;
            send_signed(&signed.unwrap(), &noise(size, 1))
                .await
                .expect(200);
        }
        let wrong = client.told(&session, 2, None).await;
        assert!(
            matches!(wrong, Err(EngineError::RangeMismatch { .. })),
            "{wrong:?}"
        );
        assert_eq!(unavailable(client.told(&session, 3, None).await), [one(3)]);
        assert_eq!(client.received(&session).await, []);
        let early = client.rig.complete(&session).await;
        let Err(EngineError::Incomplete { missing, .. }) = early else {
            panic!("{early:?}");
        };
        assert_eq!(missing, [ByteRange::new(CELL, 4 * CELL).unwrap()]);
        client
            .rig
            .engine
            .abort(session.id, &session.key)
            .await
            .expect("aborted");
    }
}

#[tokio::test]
async fn a_part_of_which_bytes_came_through_the_server_is_not_believed() {
    let client = Client::ours().await;
    let bytes = noise(CELL, 13);
    let session = client.rig.create(Some(CELL)).await;
    let part = client.url(&session, 1).await;
    let (feed, running) = writer(&client.rig.engine, &session, 0, 10).await;
    put(&part, &noise(CELL, 14)).await;
    assert_eq!(unavailable(client.told(&session, 1, None).await), [one(1)]);
    send(&feed, &bytes[..10], 10);
    drop(feed);
    running.await.unwrap().expect("taken");
    assert_eq!(unavailable(client.told(&session, 1, None).await), [one(1)]);
    let early = client.rig.complete(&session).await;
    assert!(
        matches!(early, Err(EngineError::Incomplete { .. })),
        "{early:?}"
    );
    assert_eq!(client.received(&session).await, [(0, 10)]);
    client
        .rig
        .put(&session, 10, &bytes[10..])
        .await
        .expect("taken");
    client.rig.expect_whole(&session, &bytes).await;
}

#[tokio::test]
async fn exact_bytes_another_digest_than_declared_fails_it() {
    for verify in [Verify::Readback, Verify::StoreChecksum] {
        for algorithm in [DigestAlgorithm::Sha256, DigestAlgorithm::Crc64Nvme] {
            let client =
                Client::with(ChecksumMode::Auto, |settings| settings.verify = verify).await;
            let declared = Declared {
                digests: Digests::from_iter([digest_of(algorithm, b"something else")]),
                ..Declared::default()
            };
            let session = client.rig.create_declaring(Some(CELL), declared).await;
            let part = client.url(&session, 1).await;
            put(&part, &noise(CELL, 19)).await;
            let outcome = client.rig.complete(&session).await;
            assert!(
                matches!(outcome, Err(EngineError::DigestMismatch { .. })),
                "{outcome:?}"
            );
            let again = client.rig.complete(&session).await;
            let reason = FailureReason::DigestMismatch;
            assert!(
                matches!(again, Err(EngineError::Failed { reason: why }) if why == reason),
                "{again:?}"
            );
            assert_eq!(
                client.rig.s3_server().backend().keys(),
                Vec::<String>::new()
            );
            // It never had its final name.
            let calls = client.rig.s3_server().control().calls();
            let own = session.id.to_string();
            let named = |call: &crate::support::s3::Call| {
                let makes = [Op::CopyObject, Op::CompleteMultipartUpload, Op::PutObject];
                call.key == own && makes.contains(&call.op)
            };
            assert!(!calls.iter().any(named), "{calls:?}");
            assert!(is_gone(&client.rig, &session));
        }
    }
}

#[tokio::test]
async fn the_stores_own_checksum_is_taken_where_nothing_else_is_asked_for() {
    let crc = DigestAlgorithm::Crc64Nvme;
    let bytes = noise(2 * CELL + 5, 20);
    let trust = |settings: &mut Settings| settings.verify = Verify::StoreChecksum;
    for declared in [None, Some(crc), Some(DigestAlgorithm::Sha256)] {
        let client = Client::with(ChecksumMode::Auto, trust).await;
        let digests = declared.map(|algorithm| digest_of(algorithm, &bytes));
        let declared_digests = Declared {
            digests: digests.into_iter().collect(),
            ..Declared::default()
        };
        let length = Some(bytes.len() as u64);
        let session = client.rig.create_declaring(length, declared_digests).await;
        let signed = client.urls(&session, &[1, 3]).await;
        for part in &signed {
            put(part, of(part, &bytes)).await;
        }
        let second = &bytes[CELL as usize..2 * CELL as usize];
        client.rig.put(&session, CELL, second).await.expect("taken");
        client.rig.s3_server().control().forget_calls();
        let object = client.rig.complete(&session).await.expect("completed");
        // It is read where it is staged, or not at all.
        let calls = client.rig.s3_server().control().calls();
        let staged = format!("staging/{}", session.id);
        let reads = (calls.iter()).filter(|call| call.op == Op::GetObject && call.key == staged);
        let read = reads.count();
        if declared == Some(DigestAlgorithm::Sha256) {
            assert_eq!((object.verified, read), (Verified::Readback, 1));
        } else {
            assert_eq!((object.verified, read), (Verified::StoreChecksum, 0));
            assert_eq!(object.digests, Digests::from_iter([digest_of(crc, &bytes)]));
        }
        assert!(client.rig.stored(&object).await == bytes);
    }
    // Where the store has none, or the server knows better, nothing is different.
    let client = Client::with(ChecksumMode::None, trust).await;
    let session = client.rig.create(Some(CELL)).await;
    client
        .rig
        .put(&session, 0, &bytes[..CELL as usize])
        .await
        .expect("taken");
    let object = client.rig.complete(&session).await.expect("completed");
    assert_eq!(object.verified, Verified::Stream);
}

#[tokio::test]
async fn a_store_that_does_not_tell_is_no_store_without_parts() {
    let client = Client::ours().await;
    let bytes = noise(CELL, 25);
    let session = client.rig.create(Some(CELL)).await;
    let part = client.url(&session, 1).await;
    put(&part, &bytes).await;
    client
        .faults
        .fail(Call::PartsOf, When::Next(2), Fault::Unavailable);
    let told = client.told(&session, 1, None).await;
    assert!(
        matches!(told, Err(EngineError::Unavailable { .. })),
        "{told:?}"
    );
    let early = client.rig.complete(&session).await;
    assert!(
        matches!(early, Err(EngineError::Unavailable { .. })),
        "{early:?}"
    );
    client.restless_complete(&session).await.expect("completed");
    client.rig.expect_whole(&session, &bytes).await;
}

#[tokio::test]
async fn exact_bytes_a_part_with_a_digest_is_that_or_none() {
    let client = Client::ours().await;
    let bytes = noise(CELL, 27);
    let session = client.rig.create(Some(CELL)).await;
    for algorithm in [DigestAlgorithm::Crc64Nvme, DigestAlgorithm::Md5] {
        let digest = digest_of(algorithm, &bytes);
        let signed = client.ask(&session, &[1], [(one(1), digest)].into()).await;
        let part = signed.expect("signed").remove(0);
        let wrong = send_signed(&part.request, &noise(CELL, 28)).await;
        assert_eq!(wrong.status, 400, "{}", wrong.text());
        let told = client.told(&session, 1, None).await;
        assert!(matches!(told, Err(EngineError::NotPut { .. })), "{told:?}");
    }
    for algorithm in [DigestAlgorithm::Sha512, DigestAlgorithm::Sha256] {
        let digest = digest_of(algorithm, &bytes);
        let refused = client.ask(&session, &[1], [(one(1), digest)].into()).await;
        assert!(
            matches!(refused, Err(EngineError::BadParts { .. })),
            "{refused:?}"
        );
    }
    let digest = digest_of(DigestAlgorithm::Crc64Nvme, &bytes);
    let signed = client.ask(&session, &[1], [(one(1), digest)].into()).await;
    put(&signed.expect("signed")[0], &bytes).await;
    client.rig.expect_whole(&session, &bytes).await;
}

#[tokio::test]
async fn exact_bytes_that_came_directly_reach_the_address_of_their_content() {
    for verify in [Verify::Readback, Verify::StoreChecksum] {
        let client = Client::with(ChecksumMode::Auto, |settings| {
            settings.key_template = "{sha256}".parse().unwrap();
            settings.verify = verify;
        })
        .await;
        let bytes = noise(CELL + 1, 29);
        let address = digest_of(DigestAlgorithm::Sha256, &bytes).to_hex();
        for way in 0..3 {
            let session = client.rig.create(Some(CELL + 1)).await;
            let signed = client.urls(&session, &[1, 2]).await;
            if way < 2 {
                for part in &signed {
                    put(part, of(part, &bytes)).await;
                }
            } else {
                client.rig.put(&session, 0, &bytes).await.expect("taken");
            }
            let object = client.rig.expect_whole(&session, &bytes).await;
            assert_eq!(object.key.as_str(), address);
            assert!(
                is_gone(&client.rig, &session),
                "nothing is left where it was staged"
            );
        }
        assert_eq!(client.rig.s3_server().backend().keys(), [address]);
    }
}
