//! Cleaning up where something fails or is in the way: that stops nothing, and nothing of ours is left in the end.

use std::time::Duration;

use jumar::engine::EngineError;

use super::kit::{both, is_gone, spoil};
use crate::support::rig::{MIB, Rig, Session, noise, write};

const HOUR: Duration = Duration::from_hours(1);

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
