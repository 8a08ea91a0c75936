//! Random operations against a simple model: whatever happens, at the end the bytes are the ones that were sent.

use std::time::{Duration, Instant};

use jumar::engine::EngineError;
use jumar::store::call::Call;
use jumar::store::faulty::{Fault, Faults, When};

use super::kit::{digests_of, events, faulty_with, send};
use crate::support::rig::{Ground, MIB, Rig, Session, cut, fed_body, noise, write};

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

async fn write_some(
    rig: &Rig,
    session: &Session,
    bytes: &[u8],
    dice: &mut Dice,
) -> tokio::task::JoinHandle<()> {
    let len = bytes.len() as u64;
    let start = if dice.roll(2) == 0 {
        rig.offset(session).await.min(len - 1)
    } else {
        dice.roll(len)
    };
    let end = (start + 1 + dice.roll(6 * MIB)).min(len);
    let piece = bytes[start as usize..end as usize].to_vec();
    let mut write = write(session, start, end - start);
    let checked = dice.roll(6);
    if checked < 2 {
        let of: &[u8] = if checked == 0 {
            &piece
        } else {
            b"something else"
        };
        write.digests = digests_of(&[jumar::model::DigestAlgorithm::Crc32c], of).into();
    }
    let cut_at = if dice.roll(3) == 0 {
        dice.roll(end - start) as usize
    } else {
        piece.len()
    };
    let frame = 1000 + dice.roll(200_000) as usize;
    let pause = dice.roll(4) == 0;
    let engine = rig.engine.clone();
    tokio::spawn(async move {
        let Ok(admission) = engine.admit(write).await else {
            return;
        };
        let (feed, body) = fed_body();
        let running = tokio::spawn(admission.run(body));
        for part in piece[..cut_at].chunks(frame) {
            send(&feed, part, frame);
            if pause {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        if cut_at < piece.len() {
            let _ = feed.send(cut());
        }
        drop(feed);
        if let Err(EngineError::Internal(error)) = running.await.unwrap() {
            panic!("{error}");
        }
    })
}

fn break_something(faults: &Faults, dice: &mut Dice) {
    let calls = [
        Call::Put,
        Call::Begin,
        Call::PutPart,
        Call::Finish,
        Call::WriteAt,
        Call::Open,
        Call::Publish,
    ];
    let call = calls[dice.roll(calls.len() as u64) as usize];
    let fault = match dice.roll(4) {
        0 => Fault::Unavailable,
        1 => Fault::LostAnswer,
        2 => Fault::Delay(Duration::from_millis(50)),
        _ => Fault::HangAfter,
    };
    faults.fail(call, When::Next(1), fault);
}

async fn a_life(ground: Ground, seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let change = |settings: &mut jumar::engine::Settings| {
        settings.memory_budget_bytes = 24 * MIB;
        settings.spool_max_bytes = 40 * MIB;
        settings.commit_interval = Duration::from_millis(100);
        settings.session_ttl = Duration::from_secs(1_000_000);
        settings.session_max_age = Duration::from_secs(1_000_000);
    };
    let (mut rig, faults) = faulty_with(ground, change).await;
    let bytes = noise(1 + dice.roll(24 * MIB), seed);
    let session = rig
        .create((dice.roll(2) == 0).then_some(bytes.len() as u64))
        .await;
    let mut told = 0;
    let mut running = Vec::new();
    for _ in 0..14 {
        match dice.roll(10) {
            0 => break_something(&faults, &mut dice),
            1 => faults.release(),
            2 => {
                if let Ok(written) = rig.engine.displace(session.id, &session.key, None).await {
                    assert!(written.offset.get() >= told, "never back");
                    told = written.offset.get();
                }
            }
            3 => {
                rig.engine.stop().await;
                rig = rig.restart().await;
            }
            4 => tokio::time::sleep(Duration::from_millis(dice.roll(100))).await,
            _ => running.push(write_some(&rig, &session, &bytes, &mut dice).await),
        }
        let offset = rig.offset(&session).await;
        assert!(offset >= told, "never back: {offset} after {told}");
        told = offset;
    }
    faults.heal();
    for task in running {
        task.await.unwrap();
    }
    for _ in 0..40 {
        let missing: Vec<_> = {
            let received = rig.status(&session).await.received;
            let all = jumar::model::ByteRange::new(0, bytes.len() as u64).unwrap();
            received.gaps(all).collect()
        };
        if missing.is_empty() {
            break;
        }
        for gap in missing {
            let piece = &bytes[gap.start() as usize..gap.end() as usize];
            match rig.put(&session, gap.start(), piece).await {
                Ok(_) | Err(EngineError::Unavailable { .. } | EngineError::Displaced) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    rig.expect_whole(&session, &bytes).await;
    assert_eq!((events(&rig, "completed"), events(&rig, "failed")), (1, 0));
    if let Some(server) = &rig.ground.s3 {
        rig.clock.advance(Duration::from_secs(2_000_000_000));
        rig.engine.prune(false).await.unwrap();
        assert!(server.backend().open_uploads().is_empty());
        assert_eq!(server.backend().keys(), [session.id.to_string()]);
    }
}

/// `JUMAR_TEST_SEED` runs one life again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exact_bytes_of_random_lives() {
    let one = std::env::var("JUMAR_TEST_SEED")
        .ok()
        .map(|seed| seed.parse::<u64>().unwrap());
    let first = one.unwrap_or_else(|| {
        u64::from_le_bytes(
            jumar::model::UploadId::generate().as_bytes()[8..]
                .try_into()
                .unwrap(),
        )
    });
    let begun = Instant::now();
    for seed in first..first.saturating_add(if one.is_some() { 1 } else { 24 }) {
        println!("JUMAR_TEST_SEED={seed}");
        a_life(Ground::fs(), seed).await;
        a_life(Ground::s3().await, seed).await;
        if begun.elapsed() > Duration::from_secs(12) {
            break;
        }
    }
}
