//! Cleaning up where something fails or is in the way: that stops nothing, and nothing of ours is left in the end.

use std::time::Duration;

use futures_util::future::join_all;
use jumar::engine::{EngineError, PruneReport};
use jumar::model::DigestAlgorithm;
use jumar::model::upload::Declared;
use jumar::store::call::Call;
use jumar::store::faulty::{Fault, Faults, When};
use jumar::store::{About, MadeOf, Shape};

use super::kit::{both, digests_of, events, faulty, is_gone, spoil, until};
use crate::support::rig::{Ground, MIB, Rig, Session, noise, write};

const HOUR: Duration = Duration::from_hours(1);
/// What comes back as 503 or is cut before it took effect, what is cut after it did, and what does not come back.
const FAULTS: [Fault; 4] = [
    Fault::Unavailable,
    Fault::LostAnswer,
    Fault::Hang,
    Fault::HangAfter,
];

fn hangs(fault: Fault) -> bool {
    matches!(fault, Fault::Hang | Fault::HangAfter)
}

async fn ground(call: Call) -> Ground {
    match call {
        Call::Staged | Call::Discard => Ground::fs(),
        _ => Ground::s3().await,
    }
}

/// Two uploads that left parts, or what is staged, and one that was put in one piece.
async fn unfinished(rig: &Rig) -> [Session; 3] {
    let mut sessions = Vec::new();
    for (len, sent) in [(12 * MIB, 6 * MIB), (12 * MIB, 6 * MIB), (100_000, 100_000)] {
        let session = rig.create(Some(len)).await;
        rig.put(&session, 0, &noise(sent, 100)).await.unwrap();
        sessions.push(session);
    }
    let Ok(sessions) = sessions.try_into() else {
        panic!("there are three");
    };
    sessions
}

/// A round of pruning in which one call of the store fails; one that hangs returns when the round waits for it.
async fn prune_through(rig: &Rig, faults: &Faults, call: Call, fault: Fault) -> PruneReport {
    let before = faults.count(call);
    faults.fail(call, When::Next(1), fault);
    let engine = rig.engine.clone();
    let round = tokio::spawn(async move { engine.prune(false).await });
    until("the call is made", async || faults.count(call) > before).await;
    if hangs(fault) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!round.is_finished(), "{call:?} {fault:?}");
    }
    faults.release();
    round.await.unwrap().expect("a failed call fails no round")
}

/// One call of a round of pruning fails: the rest of the round is done, and the next one does what is left.
#[tokio::test]
async fn own_only_pruning_goes_on_past_a_call_that_fails() {
    for call in [
        Call::MultipartOf,
        Call::Abort,
        Call::Delete,
        Call::MultipartUploads,
        Call::Staged,
        Call::Discard,
    ] {
        for fault in FAULTS {
            let label = format!("{call:?} {fault:?}");
            let (rig, faults) = faulty(ground(call).await).await;
            let left = unfinished(&rig).await;
            rig.clock.advance(2 * HOUR);
            // The first round after the clock was moved expires nothing.
            rig.engine.prune(false).await.unwrap();
            let bytes = noise(12 * MIB, 101);
            let live = rig.create(Some(12 * MIB)).await;
            rig.put(&live, 0, &bytes[..11 * MIB as usize])
                .await
                .unwrap();
            let theirs = rig.ground.s3.is_some();
            if let Shape::Parts(parts) = rig.store.shape() {
                let about = About {
                    upload: left[0].id,
                    content_type: None,
                };
                let key = "theirs/file".parse().unwrap();
                parts.begin(&key, &about, MadeOf::Parts).await.unwrap();
            }

            let report = prune_through(&rig, &faults, call, fault).await;
            assert_eq!(report.expired, 3, "{label}: {report:?}");
            assert_eq!(
                report.failed,
                u64::from(!hangs(fault)),
                "{label}: {report:?}"
            );
            let gone = left.iter().filter(|session| is_gone(&rig, session)).count();
            assert!(gone >= 2 || call == Call::Staged, "{label}: {gone}");

            let report = rig.engine.prune(false).await.unwrap();
            assert_eq!(report.failed, 0, "{label}: {report:?}");
            for session in &left {
                assert!(is_gone(&rig, session), "{label}");
            }
            assert_eq!(events(&rig, "expired"), 3, "{label}");
            rig.put(&live, 11 * MIB, &bytes[11 * MIB as usize..])
                .await
                .unwrap();
            let object = rig.expect_whole(&live, &bytes).await;
            assert_eq!(report.foreign, u64::from(theirs), "{label}");
            rig.clock.advance(26 * HOUR);
            for _ in 0..2 {
                rig.engine.prune(false).await.unwrap();
            }
            let gone = rig.catalog.load(left[0].id).await.unwrap();
            assert_eq!(gone, None, "{label}: its record goes in its time");
            assert!(rig.stored(&object).await == bytes, "{label}: it stays");
        }
    }
}

/// Aborting answers in time whatever the store does, and what it could not remove goes with the next pruning.
#[tokio::test]
async fn own_only_an_abort_goes_on_past_a_call_that_fails() {
    let mut cases = Vec::new();
    for (call, which) in [
        (Call::MultipartOf, 0),
        (Call::Abort, 0),
        (Call::Delete, 2),
        (Call::Discard, 0),
    ] {
        for fault in FAULTS {
            cases.push(async move {
                let label = format!("{call:?} {fault:?}");
                let (rig, faults) = faulty(ground(call).await).await;
                let left = unfinished(&rig).await;
                let before = faults.count(call);
                faults.fail(call, When::Next(1), fault);
                let session = &left[which];
                rig.engine.abort(session.id, &session.key).await.unwrap();
                assert!(faults.count(call) > before, "{label}");
                let outcome = rig.engine.status(session.id, &session.key).await;
                assert!(matches!(outcome, Err(EngineError::Gone)), "{label}");
                rig.engine.abort(session.id, &session.key).await.unwrap();
                let report = rig.engine.prune(false).await.unwrap();
                assert_eq!(report.failed, 0, "{label}: {report:?}");
                assert!(is_gone(&rig, session), "{label}");
                faults.heal();
                tokio::time::sleep(Duration::from_millis(50)).await;
                assert!(is_gone(&rig, session), "{label}: late");
                assert_eq!(events(&rig, "aborted"), 1, "{label}");
                for other in &left {
                    if other.id != session.id {
                        assert!(rig.offset(other).await > 0, "{label}");
                    }
                }
            });
        }
    }
    join_all(cases).await;
}

/// An upload that fails for good says why, whether what it left could be removed or not.
#[tokio::test]
async fn exact_bytes_a_wrong_whole_leaves_nothing_though_cleaning_up_fails() {
    let mut cases = Vec::new();
    for (call, len) in [
        (Call::MultipartOf, 12 * MIB),
        (Call::Abort, 12 * MIB),
        (Call::Delete, 100_000),
        (Call::Discard, 100_000),
    ] {
        for fault in FAULTS {
            cases.push(async move {
                let label = format!("{call:?} {fault:?}");
                let (rig, faults) = faulty(ground(call).await).await;
                let declared = Declared {
                    digests: digests_of(&[DigestAlgorithm::Sha256], b"something else"),
                    ..Declared::default()
                };
                let session = rig.create_declaring(Some(len), declared).await;
                rig.put(&session, 0, &noise(len, 102)).await.unwrap();
                let before = faults.count(call);
                faults.fail(call, When::Next(1), fault);
                let outcome = rig.complete(&session).await;
                assert!(
                    matches!(outcome, Err(EngineError::DigestMismatch { .. })),
                    "{label}: {outcome:?}"
                );
                assert!(faults.count(call) > before, "{label}");
                assert_eq!(events(&rig, "failed"), 1, "{label}");
                let report = rig.engine.prune(false).await.unwrap();
                assert_eq!(report.failed, 0, "{label}: {report:?}");
                assert!(is_gone(&rig, &session), "{label}");
                faults.heal();
                tokio::time::sleep(Duration::from_millis(50)).await;
                assert!(is_gone(&rig, &session), "{label}: late");
            });
        }
    }
    join_all(cases).await;
}

/// Looking for an object and reading it back fail while an upload completes: it completes in the end, once.
#[tokio::test]
async fn told_once_though_looking_and_reading_fail() {
    for call in [Call::Head, Call::Read] {
        for fault in FAULTS {
            let label = format!("{call:?} {fault:?}");
            let ground = Ground::s3().await;
            let (rig, faults) = super::kit::faulty_with(ground, |settings| {
                if call == Call::Read {
                    settings.spool_max_bytes = 12 * MIB;
                }
            })
            .await;
            let bytes = noise(30 * MIB, 103);
            let session = rig.create(Some(30 * MIB)).await;
            for start in (0..30).rev() {
                let at = start as usize * MIB as usize;
                rig.put(&session, start * MIB, &bytes[at..at + MIB as usize])
                    .await
                    .unwrap();
            }
            let reads = rig.status(&session).await.upload.readback;
            assert_eq!(reads, call == Call::Read, "{label}");
            if call == Call::Head {
                faults.fail(Call::Finish, When::Next(1), Fault::LostAnswer);
            }
            faults.fail(call, When::Next(1), fault);
            let mut done = false;
            for _ in 0..6 {
                let asked = rig.complete(&session);
                let asked = tokio::time::timeout(Duration::from_secs(1), asked).await;
                if matches!(asked, Ok(Ok(_))) {
                    done = true;
                    break;
                }
                faults.release();
            }
            assert!(done, "{label}");
            let told = (events(&rig, "completed"), events(&rig, "failed"));
            assert_eq!(told, (1, 0), "{label}");
            rig.expect_whole(&session, &bytes).await;
            for _ in 0..2 {
                rig.clock.advance(2 * HOUR);
                rig.engine.prune(false).await.unwrap();
            }
            rig.expect_whole(&session, &bytes).await;
        }
    }
}

/// As many uploads as one batch has, all past their time and all with writers, come before one that nobody writes to.
#[tokio::test]
async fn slow_writers_keep_nobody_else_from_expiring() {
    let rig = Rig::fs().await;
    let mut writers = Vec::new();
    for _ in 0..500 {
        let session = rig.create(Some(10)).await;
        writers.push(rig.engine.admit(write(&session, 0, 10)).await.unwrap());
    }
    rig.clock.advance(Duration::from_secs(1));
    let idle = rig.create(Some(10)).await;
    rig.clock.advance(2 * HOUR);
    rig.engine.prune(false).await.unwrap();
    let would = rig.engine.prune(true).await.unwrap();
    assert_eq!(would.expired, 501, "a dry run does not ask who writes");
    let report = rig.engine.prune(false).await.unwrap();
    assert_eq!((report.expired, report.failed), (1, 0), "{report:?}");
    let outcome = rig.engine.status(idle.id, &idle.key).await;
    assert!(matches!(outcome, Err(EngineError::Gone)), "{outcome:?}");
    drop(writers);
    let report = rig.engine.prune(false).await.unwrap();
    assert_eq!((report.expired, report.failed), (500, 0), "{report:?}");
}

#[tokio::test]
async fn one_that_cannot_be_read_keeps_nobody_else_from_being_pruned() {
    for rig in both().await {
        let left = unfinished(&rig).await;
        spoil(
            &rig,
            "upload_sessions SET metadata = '[]' WHERE id",
            &left[0],
        );
        rig.clock.advance(2 * HOUR);
        rig.engine.prune(false).await.unwrap();
        let report = rig.engine.prune(false).await.unwrap();
        assert_eq!((report.expired, report.failed), (2, 1), "{report:?}");
        assert!(is_gone(&rig, &left[1]) && is_gone(&rig, &left[2]));
        assert!(!is_gone(&rig, &left[0]), "it can be looked at by somebody");

        let in_parts = rig.ground.s3.is_some();
        if in_parts {
            spoil(&rig, "intents SET key = '../up' WHERE upload_id", &left[1]);
        }
        rig.clock.advance(HOUR);
        rig.engine.prune(false).await.unwrap();
        rig.clock.advance(24 * HOUR);
        rig.engine.prune(false).await.unwrap();
        let report = rig.engine.prune(false).await.unwrap();
        assert_eq!(report.failed, 1 + u64::from(in_parts), "{report:?}");
        for (session, there) in [(&left[1], in_parts), (&left[2], false)] {
            let found = rig.catalog.load(session.id).await.unwrap();
            assert_eq!(found.is_some(), there);
        }
    }
}
