//! One cell of the matrix: a call that goes wrong in one way while the server is at one thing.

use std::time::Duration;

use crate::Calls;
use crate::audit;
use crate::bench::Bench;
use crate::client::File;
use crate::scenes::{Kind, Phase, Scene, Strike, Wrong};
use crate::support::s3::{Fault, Op, When};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell {
    pub(crate) scene: &'static Scene,
    pub(crate) op: Op,
    pub(crate) wrong: Wrong,
    pub(crate) strike: Strike,
    /// How often the call is made when nothing goes wrong.
    pub(crate) usual: usize,
}

/// The calls that a scene makes when nothing goes wrong.
pub(crate) async fn without_fault(scene: &Scene) -> Calls {
    let (bench, mut files) = begin(scene, 1).await;
    bench.act(scene, &mut files[0], false).await;
    let mut calls = Calls::new();
    for call in bench.control().calls() {
        *calls.entry(format!("{:?}", call.op)).or_default() += 1;
    }
    // A client's own.
    if scene.kind == Kind::Direct && scene.phase == Phase::Chunk {
        calls.remove("UploadPart");
    }
    calls
}

/// So many files before the scene; for a start-up, in a process that has just begun.
async fn begin(scene: &Scene, count: u64) -> (Bench, Vec<File>) {
    let mut bench = Bench::start(scene.kind).await;
    let mut files = Vec::new();
    for seed in 1..=count {
        bench.control().heal();
        files.push(bench.prepare(scene, seed).await);
    }
    if scene.phase == Phase::StartUp {
        bench = bench.restart().await;
    }
    let control = bench.control();
    // What is to be removed does not go on by itself.
    if !scene.phase.removes() {
        control.heal();
    }
    control.forget_calls();
    if scene.kind == Kind::Lost && scene.phase == Phase::Complete {
        let lost = Fault::ResetAfter;
        control.fail(Op::CompleteMultipartUpload, When::Next(1), lost);
    }
    (bench, files)
}

impl Cell {
    pub(crate) fn name(&self) -> String {
        let phase = self.scene.phase.name();
        let (kind, op) = (self.scene.kind, self.op);
        format!("{phase}/{op:?}/{kind:?}/{:?}/{:?}", self.wrong, self.strike)
    }

    /// What is seen. Panics where something does not hold that has to.
    pub(crate) async fn run(&self) -> String {
        match self.strike {
            Strike::Once => Box::pin(self.once()).await,
            Strike::Lasting => Box::pin(self.lasting()).await,
        }
    }

    async fn once(&self) -> String {
        let (bench, mut files) = begin(self.scene, 1).await;
        bench
            .control()
            .fail(self.op, When::Next(1), self.wrong.fault());
        self.start_up(&bench).await;
        let mut seen = bench.act(self.scene, &mut files[0], false).await;
        if self.scene.phase == Phase::Chunk && seen == "204" {
            settled(&bench).await;
        }
        // How often a lost answer was tried for before is not always the same.
        if self.scene.kind != Kind::Stray && bench.control().count(self.op) > self.usual {
            seen.push_str(", retried");
        }
        seen.push_str(&self.left_over(&bench));
        self.end(&bench, files).await;
        seen
    }

    /// Two files are struck: one gets through in the end, one is aborted.
    async fn lasting(&self) -> String {
        // Only the first file's answer is lost.
        let count = if self.scene.kind == Kind::Lost { 1 } else { 2 };
        let (mut bench, mut files) = begin(self.scene, count).await;
        bench
            .control()
            .fail(self.op, When::Always, self.wrong.fault());
        self.start_up(&bench).await;
        let (first, others) = files.split_at_mut(1);
        let others = async {
            for other in others {
                bench.act(self.scene, other, true).await;
            }
        };
        let (mut seen, ()) = tokio::join!(bench.act(self.scene, &mut first[0], true), others);
        if self.scene.phase == Phase::Chunk && seen == "204" && !bench.in_spool().is_empty() {
            seen.push_str(", kept in the tail");
        }
        seen.push_str(&self.left_over(&bench));
        bench.a_minute_later().await;
        if self.scene.phase == Phase::Chunk {
            bench = bench.restart().await;
        } else {
            bench.act(self.scene, &mut files[0], true).await;
        }
        self.end(&bench, files).await;
        seen
    }

    async fn start_up(&self, bench: &Bench) {
        if self.scene.phase == Phase::StartUp && self.scene.kind != Kind::Ready {
            let recovered = bench.server.running.engine().recover(true).await;
            recovered.expect("recovered");
            // The client asks when the first try is over, or hangs.
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    }

    /// Whether something is left of an upload that was to be removed.
    fn left_over(&self, bench: &Bench) -> String {
        if self.scene.phase.removes() && !without_warm_up(bench).is_empty() {
            ", the next round removes it".to_owned()
        } else {
            String::new()
        }
    }

    /// The fault is over. What is to be completed gets through, what is to be removed goes, and nothing else is left.
    async fn end(&self, bench: &Bench, files: Vec<File>) {
        bench.control().heal();
        let mut completed = Vec::new();
        if !self.scene.phase.removes() && self.scene.kind != Kind::Ready {
            for (mut file, at) in files.into_iter().zip(0..) {
                if at == 0 || !abort(bench, &file).await {
                    bench.get_through(&mut file).await;
                    audit::completed_once(bench, &file).await;
                    completed.push(file);
                }
            }
        }
        // What was held back by silence comes late.
        tokio::time::sleep(Duration::from_millis(200)).await;
        bench.server.let_expire();
        bench.server.prune().await;
        bench.server.prune().await;
        bench.assert_foreign_untouched();
        assert_eq!(bench.in_spool(), Vec::<String>::new());
        let mut expected = Vec::new();
        for file in &completed {
            audit::completed_once(bench, file).await;
            expected.push(Some(file.bytes.clone()));
        }
        let left = without_warm_up(bench);
        let backend = bench.server.s3_server().backend();
        let mut found: Vec<_> = left.iter().map(|key| backend.bytes(key)).collect();
        found.sort();
        expected.sort();
        assert!(
            found == expected,
            "{} objects are to be there, and there is {left:?}",
            expected.len()
        );
    }
}

/// Whether the upload is gone; one that is being completed can no more be.
async fn abort(bench: &Bench, file: &File) -> bool {
    let Some(upload) = &file.upload else {
        return true;
    };
    for _ in 0..20 {
        let answer = bench.server.abort(upload).await;
        audit::sound(&answer);
        match answer.status {
            204 => return true,
            409 => return false,
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    panic!("it cannot be aborted");
}

/// What of ours is in the bucket, but for the objects that are to be there.
fn without_warm_up(bench: &Bench) -> Vec<String> {
    let backend = bench.server.s3_server().backend();
    let mut found = bench.in_bucket();
    found.retain(|key| backend.bytes(key).as_deref() != Some(b"to find out"));
    found
}

/// Waits until nothing waits for the store any more.
async fn settled(bench: &Bench) {
    for _ in 0..120 {
        if bench.in_spool().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the tail never went: {:?}", bench.in_spool());
}
