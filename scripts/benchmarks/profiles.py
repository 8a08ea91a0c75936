"""Where the server's time goes: samples of its stacks under a load, told apart by kind and drawn as a flame graph."""

import collections
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from measure import DevS3, fresh_folder, load, say
from servers import Jumar

WORKLOADS = {
    "large": ("disk", "1 GiB to a folder, one request", "--size 1GiB"),
    "small": ("disk", "256 KiB files to a folder", "--uploads 8000 --size 256KiB --concurrency 16"),
    "s3-large": ("s3", "1 GiB to S3, one request", "--size 1GiB"),
    "s3-small": ("s3", "256 KiB files to S3", "--uploads 1000 --size 256KiB --concurrency 16"),
}
QUICK = "--uploads 100 --size 256KiB --concurrency 16"

# The first that is somewhere in a stack says what it was doing.
KINDS = (
    ("SHA-256", "sha256_block"),
    ("checksums of parts", "crc_fast"),
    ("reading sockets", "recvfrom|__libc_recv"),
    ("writing sockets", "sock_write_iter|tcp_sendmsg"),
    ("writing files", "do_pwritev"),
    ("opening, linking, removing, closing files", "openat|do_linkat|do_unlink|__x64_sys_close|statx|ftruncate|fallocate"),
    ("the catalog: SQLite and its log", "sqlite3|rusqlite|jumar::catalog::sqlite"),
    ("waiting and waking", "do_futex|epoll|eventfd"),
    ("allocating", "malloc|_int_free|cfree|realloc|calloc|mprotect|madvise|munmap|page_fault"),
    ("copying in memory", "memmove|memcpy"),
)
OTHER = "the rest: HTTP, tasks, our own code"


def measure(options, results, save, charts):
    missing = [tool for tool in ("perf", "inferno-collapse-perf", "inferno-flamegraph") if not shutil.which(tool)]
    if missing:
        say(f"no profile: {', '.join(missing)} not found (perf; cargo install inferno)")
        return
    for key, (store, title, arguments) in WORKLOADS.items():
        if options.only and key not in options.only:
            continue
        arguments = (QUICK if options.quick else arguments).split()
        s3 = DevS3().__enter__() if store == "s3" else None
        try:
            profile = one(key, title, arguments, s3, charts)
        finally:
            if s3:
                s3.__exit__()
        # One of each version, so that what a change brought can be seen.
        known = results.setdefault(key, {"title": title, "versions": {}})
        known["versions"][Jumar("process").version()] = profile
        say(f"profile {key}: {profile}")
        save()


def one(key, title, arguments, s3, charts):
    with fresh_folder() as folder, tempfile.TemporaryDirectory() as scratch:
        process = Jumar("process").start(folder, s3 and s3.settings)
        samples = Path(scratch) / "samples"
        command = ["perf", "record", "-F", "499", "--call-graph", "dwarf,16384", "-o", samples, "-p", str(process.pid)]
        recording = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(0.5)
            report = load(process, arguments)
        finally:
            recording.send_signal(signal.SIGINT)
            recording.wait()
            process.stop()
        if report["failed"]:
            raise RuntimeError(report["errors"])
        script = subprocess.run(["perf", "script", "--no-inline", "-i", samples], capture_output=True, text=True, check=True).stdout
        folded = subprocess.run(["inferno-collapse-perf"], input=script, capture_output=True, text=True, check=True).stdout
    graph = ["inferno-flamegraph", "--title", title, "--minwidth", "0.3", "--width", "1200", "--deterministic"]
    svg = subprocess.run(graph, input=folded, capture_output=True, text=True, check=True).stdout
    (charts / f"profile-{key}.svg").write_text(svg)
    gib = report["bytes"] / 2**30
    return {"cpu_s_per_gib": round(report["server"]["cpu_seconds"] / gib, 2), "shares": tell_apart(folded)}


def tell_apart(folded):
    counts, total = collections.Counter(), 0
    for line in folded.splitlines():
        stack, count = line.rsplit(" ", 1)
        kind = next((kind for kind, pattern in KINDS if re.search(pattern, stack)), OTHER)
        counts[kind] += int(count)
        total += int(count)
    return {kind: round(100 * count / total, 1) for kind, count in counts.most_common()}
