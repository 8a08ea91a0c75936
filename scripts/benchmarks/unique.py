"""What only jumar does: completing with a SHA-256, ranges in any order, starting with a million sessions, pruning."""

import json
import os
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
import uuid

from measure import DevS3, cpu_seconds, fresh_folder, load, say
from servers import PORT, RELEASE, Jumar, environment

ADMIN = f"http://127.0.0.1:{PORT + 1}"
HOUR = 3600 * 1000


def measure(options, results, save):
    for name, one in MEASUREMENTS.items():
        if options.only and name not in options.only:
            continue
        try:
            results[name] = one(options.quick)
        except (OSError, RuntimeError, KeyError, ValueError, sqlite3.Error, subprocess.SubprocessError) as error:
            results[name] = {"aborted": str(error)[-400:]}
        say(f"{name}: {json.dumps(results[name])[:600]}")
        save()


def completing(quick):
    """From the last byte of a large file to its completion, its SHA-256 declared before (native) or only computed (tus)."""
    rows = []
    size = "128MiB" if quick else "1GiB"
    with DevS3() as s3:
        for number in range(1 if quick else 5):
            for where, durability in (("disk", "process"), ("disk", "power"), ("s3", "power")):
                for protocol in ("native", "tus"):
                    rows.append(completing_once(where, durability, protocol, size, s3) | {"round": number + 1})
    return {"size": size, "runs": rows}


def completing_once(where, durability, protocol, size, s3):
    declare = ["--declare"] if protocol == "native" else []
    with fresh_folder() as folder:
        process = Jumar(durability).start(folder, s3.settings if where == "s3" else None)
        try:
            report = load(process, ["--size", size, *declare], protocol)
            store = store_calls()
        finally:
            process.stop()
    if report["failed"]:
        raise RuntimeError(report["errors"])
    answer = report["latency"]["answer"]["max_ms"]
    complete = report["latency"].get("complete", {"max_ms": 0.0})["max_ms"]
    finish = store.get("finish") if where == "s3" else None
    return {
        "store": where,
        "durability": durability,
        "protocol": protocol,
        "answer_ms": round(answer, 2),
        "complete_ms": round(complete, 2),
        "in_all_ms": round(answer + complete, 2),
        "finish_call_ms": finish and round(finish * 1000, 2),
    }


def store_calls():
    """How long the calls of each kind took in all, in seconds."""
    text = urllib.request.urlopen(f"{ADMIN}/metrics", timeout=5).read().decode()
    prefix = "jumar_store_call_duration_seconds_sum{"
    sums = {}
    for line in text.splitlines():
        if line.startswith(prefix):
            labels, value = line.removeprefix(prefix).rsplit("} ", 1)
            call = labels.split('call="', 1)[1].split('"', 1)[0]
            sums[call] = sums.get(call, 0) + float(value)
    return sums


def ranges(quick):
    """One upload in 10,000 chunks that come in random order, 16 at once: what each tenth of them cost."""
    count, chunk = (1000, 64) if quick else (10_000, 128)
    outcome = {"chunks": count, "chunk_kib": chunk, "parallel": 16}
    for durability in ("process", "power"):
        arguments = ["--size", f"{count * chunk}KiB", "--chunk", f"{chunk}KiB", "--parallel", "16", "--shuffle", "--marks", "10"]
        with fresh_folder() as folder:
            process = Jumar(durability).start(folder, more="max_parallel_chunks = 16")
            try:
                before = {"chunks": 0, "seconds": 0.0, "cpu_seconds": cpu_seconds(process.pid)}
                report = load(process, arguments, "native")
            finally:
                process.stop()
        if report["failed"]:
            raise RuntimeError(report["errors"])
        tenths = []
        for mark in report["marks"]:
            chunks = mark["chunks"] - before["chunks"]
            tenths.append(
                {
                    "received": mark["chunks"],
                    "ms": round((mark["seconds"] - before["seconds"]) / chunks * 1000, 4),
                    "cpu_ms": round((mark["cpu_seconds"] - before["cpu_seconds"]) / chunks * 1000, 4),
                }
            )
            before = mark
        outcome[durability] = {
            "tenths": tenths,
            "chunk_p50_ms": round(report["latency"]["chunk"]["p50_ms"], 3),
            "chunk_p99_ms": round(report["latency"]["chunk"]["p99_ms"], 3),
            "complete_ms": round(report["latency"]["complete"]["max_ms"], 1),
            "peak_mib": round(report["server"]["peak_rss_kib"] / 1024, 1),
        }
    return outcome


def seed(folder, count, expired):
    """Copies an open upload that the server made, so often. Ids are as the server makes them, and so are the rows."""
    server = Jumar("power")
    process = server.start(folder)
    try:
        report = load(process, ["--size", "1MiB", "--chunk", "64KiB", "--uploads", "1", "--no-complete"], "native")
    finally:
        process.stop()
    if report["failed"]:
        raise RuntimeError(report["errors"])
    catalog = sqlite3.connect(folder / "data/jumar.db")
    catalog.row_factory = sqlite3.Row
    upload = dict(catalog.execute("SELECT * FROM upload_sessions").fetchone())
    spans = [tuple(row) for row in catalog.execute("SELECT start, stop FROM upload_ranges WHERE upload_id = ?", (upload["id"],))]
    old = str(uuid.UUID(bytes=upload["id"]))
    now = int(time.time() * 1000)
    if expired:
        upload["expires_at"] = now - HOUR
    columns = list(upload)
    ids = []

    def copies():
        for _ in range(count):
            new = bytearray(now.to_bytes(6, "big") + os.urandom(10))
            new[6] = new[6] & 0x0F | 0x70
            new[8] = new[8] & 0x3F | 0x80
            ids.append(bytes(new))
            name = str(uuid.UUID(bytes=bytes(new)))
            copy = upload | {"id": bytes(new), "key_hash": os.urandom(32), "store_key": upload["store_key"].replace(old, name)}
            yield [copy[column] for column in columns]

    with catalog:
        marks = ", ".join("?" * len(columns))
        catalog.executemany(f"INSERT INTO upload_sessions ({', '.join(columns)}) VALUES ({marks})", copies())
        rows = ((one, start, stop) for one in ids for start, stop in spans)
        catalog.executemany("INSERT INTO upload_ranges (upload_id, start, stop) VALUES (?, ?, ?)", rows)
    catalog.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    catalog.close()
    return [str(uuid.UUID(bytes=one)) for one in ids]


def restart(quick):
    """How long a server takes to be ready with so many open uploads in its catalog, and what is resident then."""
    count = 20_000 if quick else 1_000_000
    times, resident = [], []
    with fresh_folder() as folder:
        seed(folder, count, expired=False)
        size = (folder / "data/jumar.db").stat().st_size
        for _ in range(3):
            began = time.monotonic()
            process = Jumar("power").start(folder)
            try:
                wait_ready()
                times.append(round(time.monotonic() - began, 3))
                resident.append(round(process.resident_kib() / 1024, 1))
                report = load(process, ["--size", "1MiB", "--uploads", "20"], "native")
            finally:
                # As a crash would.
                process.child.kill()
                process.stop()
    if report["failed"]:
        raise RuntimeError(report["errors"])
    return {"sessions": count, "catalog_mb": round(size / 1e6), "seconds": times, "resident_mib": resident}


def wait_ready():
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{ADMIN}/readyz", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.005)
    raise RuntimeError("not ready after 60 s")


def prune(quick):
    """How fast expired uploads go, each with a staged file; `jumar prune` from its start to its end."""
    count = 1_000 if quick else 30_000
    with fresh_folder() as folder:
        staging = folder / "data/staging"
        for name in seed(folder, count, expired=True):
            (staging / name).write_bytes(b"x" * 4096)
        os.sync()
        began = time.monotonic()
        command = [RELEASE / "jumar", "prune", "--config", "jumar.toml"]
        told = subprocess.check_output(command, cwd=folder, env=environment(), text=True, stderr=subprocess.STDOUT)
        seconds = time.monotonic() - began
        left = len(list(staging.iterdir()))
    report = json.loads(told.splitlines()[-1])
    if left > 1:
        raise RuntimeError(f"{left} staged files are left: {told}")
    return {"uploads": count, "seconds": round(seconds, 2), "per_second": round(count / seconds), "report": report}


MEASUREMENTS = {"completing": completing, "ranges": ranges, "restart": restart, "prune": prune}
