//! The pieces that every byte or every chunk goes through: hashing, the set of received ranges, the part grid, and the catalog's
//! group commit.
//!
//! ```text
//! cargo bench --bench hot -- 'group commit'
//! ```

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use futures_util::future::join_all;
use jumar::catalog::sqlite::{SqliteCatalog, Synchronous, migrate};
use jumar::catalog::{Catalog, Commit, NewUpload};
use jumar::engine::hasher::Hasher;
use jumar::model::digest::Digests;
use jumar::model::plan::MIN_PART_BYTES;
use jumar::model::upload::{Declared, Epoch, Protocol, Role};
use jumar::model::{
    ByteRange, Length, Limits, Offset, Plan, RangeSet, Timestamp, UploadId, UploadKey, UploadOwner,
};

const MIB: u64 = 1 << 20;
const CHUNKS: u64 = 10_000;

fn main() {
    let mut criterion = Criterion::default()
        .measurement_time(Duration::from_secs(3))
        .warm_up_time(Duration::from_secs(1))
        .configure_from_args();
    hasher(&mut criterion);
    ranges(&mut criterion);
    plan(&mut criterion);
    group_commit(&mut criterion);
    criterion.final_summary();
}

fn hasher(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hasher");
    for kib in [4_u32, 64, 1024] {
        let frame = vec![0xa5; kib as usize * 1024];
        group.throughput(Throughput::Bytes(u64::from(kib) * 1024));
        group.bench_function(BenchmarkId::new("sha-256, a frame in KiB", kib), |bench| {
            let mut hash = Hasher::of_whole(&Digests::default());
            bench.iter(|| hash.update(black_box(&frame)));
        });
    }
    group.finish();
}

/// All chunks of an upload, of 1 MiB each, in an order that a multiplier prime to their number makes.
fn chunks(multiplier: u64) -> impl Iterator<Item = ByteRange> {
    (0..CHUNKS).map(move |n| {
        let start = n * multiplier % CHUNKS * MIB;
        ByteRange::new(start, start + MIB).expect("not empty")
    })
}

fn ranges(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ranges");
    group.throughput(Throughput::Elements(CHUNKS));
    for (name, multiplier) in [("10,000 in order", 1), ("10,000 out of order", 6_007)] {
        group.bench_function(name, |bench| {
            bench.iter_batched(
                RangeSet::new,
                |mut set| {
                    for range in chunks(multiplier) {
                        set.insert(black_box(range));
                    }
                    assert!(set.covers_length(Length(CHUNKS * MIB)));
                    set
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn plan(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan");
    let plans = [
        ("equal", Some(Length(50 << 30)), 8 * MIB),
        ("growing", None, 8 * MIB),
    ];
    for (name, length, cell) in plans {
        let plan = Plan::for_parts(cell, MIN_PART_BYTES, length, false);
        group.bench_function(BenchmarkId::new("the cell at 49 GiB", name), |bench| {
            bench.iter(|| plan.cell_at(black_box(49 << 30), length));
        });
        let range = ByteRange::new(MIB, 1 << 30).expect("not empty");
        group.bench_function(BenchmarkId::new("the cells of 1 GiB", name), |bench| {
            bench.iter(|| plan.cells(black_box(range), length).count());
        });
    }
    group.finish();
}

/// So many uploads commit at once; each iteration is one commit of every one of them.
fn group_commit(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let mut group = criterion.benchmark_group("group commit");
    for (name, synchronous) in [
        ("synced", Synchronous::Full),
        ("unsynced", Synchronous::Normal),
    ] {
        for committers in [1_u64, 16, 64] {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("catalog.db");
            migrate(&path).expect("a new catalog");
            let catalog = SqliteCatalog::open(&path, synchronous).expect("it opens");
            let create = (0..committers).map(|_| create(&catalog));
            let ids = runtime.block_on(join_all(create));
            let mut offset = 0;
            group.throughput(Throughput::Elements(committers));
            group.bench_function(BenchmarkId::new(name, committers), |bench| {
                bench.iter(|| {
                    let range = ByteRange::new(offset, offset + MIB).expect("not empty");
                    offset += MIB;
                    let commits = ids.iter().map(|id| catalog.commit(commit(*id, range)));
                    for done in runtime.block_on(join_all(commits)) {
                        done.expect("it commits");
                    }
                });
            });
        }
    }
    group.finish();
}

async fn create(catalog: &SqliteCatalog) -> UploadId {
    let id = UploadId::generate();
    let new = NewUpload {
        id,
        key_hash: UploadKey::generate().hash(),
        owner: UploadOwner::default(),
        max_size: None,
        typed: false,
        retention: None,
        limits: Limits::new(),
        idle_since: Timestamp(0),
        protocol: Protocol::Native,
        role: Role::Whole,
        parts: Vec::new(),
        sealed: None,
        declared: Declared::default(),
        length: None,
        plan: Plan::OneCell,
        store_key: id.to_string().parse().expect("a safe key"),
        now: Timestamp(1),
        expires_at: Timestamp(1 << 50),
        instant: None,
        held_until: Timestamp(1),
    };
    catalog.create(new, None).await.expect("it is created");
    id
}

/// What a writer of a chunk commits: the range, and how far it is hashed.
fn commit(id: UploadId, received: ByteRange) -> Commit {
    Commit {
        id,
        epoch: Epoch(1),
        received: vec![received],
        parts: Vec::new(),
        closed: Vec::new(),
        hash: Some(jumar::model::upload::HashPoint {
            offset: Offset(received.end()),
            state: vec![0; 105],
        }),
        length: None,
        readback: false,
        boot: None,
        now: Timestamp(2),
        expires_at: None,
        assemble: None,
    }
}
