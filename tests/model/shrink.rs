//! Makes a failing sequence smaller: fewer operations first, then simpler ones.

use std::time::{Duration, Instant};

use crate::case::{Api, At, Body, Case, Fate, Op};
use crate::run::{self, Failure};
use crate::weather::Schedule;

/// How often a sequence is run before it counts as one that does not fail: what it takes may be a matter of luck, and with fewer
/// operations the luck is another.
const TRIES: u64 = 4;
/// How long it may take.
const SHRINK_FOR: Duration = Duration::from_secs(90);

pub(crate) struct Shrinker {
    pub(crate) case: Case,
    pub(crate) schedule: Schedule,
    pub(crate) failure: Failure,
    seed: u64,
    until: Instant,
}

impl Shrinker {
    /// The smallest failing sequence that is found.
    pub(crate) fn shrink(case: Case, schedule: Schedule, failure: Failure, seed: u64) -> Self {
        let mut shrinker = Self {
            case,
            schedule,
            failure,
            seed,
            until: Instant::now() + SHRINK_FOR,
        };
        while shrinker.fewer() | shrinker.simpler() {}
        shrinker
    }

    /// Whether these operations fail too; then they are taken.
    fn take(&mut self, ops: Vec<Op>) -> bool {
        if Instant::now() > self.until {
            return false;
        }
        let case = Case {
            setup: self.case.setup,
            ops,
        };
        let seeds = (0..TRIES).map(|n| self.seed.wrapping_add(n << 32));
        let mut failures = seeds.filter_map(|seed| run::run(&case, self.schedule, seed).err());
        let Some(failure) = failures.next() else {
            return false;
        };
        (self.case, self.failure) = (case, failure);
        true
    }

    fn fewer(&mut self) -> bool {
        let mut any = false;
        let mut block = self.case.ops.len().div_ceil(2);
        loop {
            let mut at = 0;
            while at < self.case.ops.len() {
                let mut ops = self.case.ops.clone();
                ops.drain(at..ops.len().min(at + block));
                if self.take(ops) {
                    any = true;
                } else {
                    at += block;
                }
            }
            if block <= 1 {
                return any;
            }
            block /= 2;
        }
    }

    fn simpler(&mut self) -> bool {
        let mut any = false;
        for at in 0..self.case.ops.len() {
            for op in simpler(self.case.ops[at]) {
                let mut ops = self.case.ops.clone();
                if op != ops[at] {
                    ops[at] = op;
                    any |= self.take(ops);
                }
            }
        }
        any
    }
}

/// Simpler operations to try in the place of one.
fn simpler(op: Op) -> Vec<Op> {
    match op {
        Op::Create {
            api,
            len,
            known,
            digest,
            first,
            fate,
        } => {
            let with = |api, len, known, digest, first, fate| Op::Create {
                api,
                len,
                known,
                digest,
                first,
                fate,
            };
            vec![
                with(api, len, known, digest, first, Fate::Heard),
                with(Api::Native, len, known, digest, first, fate),
                with(api, len, true, digest, first, fate),
                with(api, len, known, None, first, fate),
                with(api, len, known, digest, 0, fate),
                with(api, len, known, digest, first / 2, fate),
                with(api, len / 2, known, digest, first, fate),
            ]
        }
        Op::Chunk {
            upload,
            api,
            at,
            len,
            frame,
            body,
            fate,
        } => {
            let with = |api, at, len, frame, body, fate| Op::Chunk {
                upload,
                api,
                at,
                len,
                frame,
                body,
                fate,
            };
            let nearer = match at {
                At::Offset => At::Offset,
                At::Byte(byte) => At::Byte(byte / 2),
            };
            vec![
                with(api, at, len, frame, body, Fate::Heard),
                with(api, at, len, frame, Body::Plain, fate),
                with(Api::Native, at, len, frame, body, fate),
                with(api, At::Offset, len, frame, body, fate),
                with(api, nearer, len, frame, body, fate),
                with(api, at, len / 2, frame, body, fate),
                with(api, at, len, 4096, body, fate),
            ]
        }
        Op::Status { upload, .. } => vec![Op::Status {
            upload,
            api: Api::Native,
        }],
        Op::Complete { upload, .. } => vec![Op::Complete {
            upload,
            fate: Fate::Heard,
        }],
        Op::Abort { upload, api, .. } => vec![Op::Abort {
            upload,
            api,
            fate: Fate::Heard,
        }],
        Op::Wait(millis) => vec![Op::Wait(millis / 2)],
        Op::Pass(secs) => vec![Op::Pass(secs / 2)],
        Op::Strike {
            struck,
            skip,
            fault,
        } => vec![Op::Strike {
            struck,
            skip: skip / 2,
            fault,
        }],
        Op::Crash { calls, after } => vec![Op::Crash {
            calls: calls / 2,
            after,
        }],
        _ => Vec::new(),
    }
}
