"""One run: a fresh server, the load, what both used."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from servers import BENCH, PORT, PROJECT, RELEASE, environment

WORK = BENCH / "work"
WORN = BENCH / "worn"
TICKS = os.sysconf("SC_CLK_TCK")


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class DevS3:
    """The S3 server of scripts/dev-s3, empty at first, on a port of its own."""

    def __init__(self):
        self.data = BENCH / "s3"
        self.env_file = BENCH / "s3.env"
        self.env = environment(JUMAR_DEV_S3_PORT="13900")

    def __enter__(self):
        self.call("wipe")
        toml = self.call("start", "--env", str(self.env_file))
        lines = self.env_file.read_text().split()
        self.settings = dict(line.removeprefix("JUMAR_TEST_S3_").split("=", 1) for line in lines)
        self.settings["toml"] = toml
        self.pid = int((self.data / "pid").read_text().split()[0])
        return self

    def __exit__(self, *_):
        self.call("wipe")
        self.env_file.unlink(missing_ok=True)

    def call(self, command, *more):
        command = [PROJECT / "scripts/dev-s3", command, *more, "--data", self.data]
        return subprocess.run(command, env=self.env, check=True, stdout=subprocess.PIPE, text=True).stdout

    def as_environment(self):
        return {f"JUMAR_TEST_S3_{name}": value for name, value in self.settings.items() if name != "toml"}


class fresh_folder:
    """An empty folder for one server, with nothing of the run before still on its way to the disk.

    What a run leaves is emptied and put by until the benchmark ends, not removed: ext4 does not give out a removed file's
    inode again for a minute or more, and looks for another one each time, so whoever ran next would pay for it (up to half
    its rate with small files).
    """

    def __enter__(self):
        shutil.rmtree(WORK, ignore_errors=True)
        WORK.mkdir(parents=True)
        os.sync()
        return WORK

    def __exit__(self, *_):
        for folder, _, files in os.walk(WORK):
            for file in files:
                os.truncate(os.path.join(folder, file), 0)
        WORN.mkdir(parents=True, exist_ok=True)
        WORK.rename(WORN / str(time.monotonic_ns()))


def load(process, arguments, protocol="tus"):
    """The load generator's report; failed uploads are in it."""
    command = [RELEASE / "examples/load", "--json", "--url", f"http://127.0.0.1:{PORT}", "--pid", process.pid]
    command += ["--protocol", protocol, *arguments]
    if protocol == "tus":
        command += ["--base", process.base]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=900)
    if not done.stdout:
        raise RuntimeError(done.stderr.strip()[-400:])
    report = json.loads(done.stdout)
    report["errors"] = done.stderr.strip()[-400:]
    return report


def compare(server, arguments, wanted_bytes, s3=None):
    """What one run of a workload gave."""
    with fresh_folder() as folder:
        process = server.start(folder, s3 and s3.settings)
        try:
            idle = process.resident_kib()
            s3_before = cpu_seconds(s3.pid) if s3 else 0
            report = load(process, arguments)
            s3_used = cpu_seconds(s3.pid) - s3_before if s3 else None
        finally:
            process.stop()
    return summary(report, idle, s3_used) | {"wanted_bytes": wanted_bytes}


def summary(report, idle_kib, s3_cpu):
    server, latency = report["server"], report["latency"]
    gib = report["bytes"] / 2**30 or 1
    whole = latency.get("upload", {})
    return {
        "seconds": round(report["seconds"], 3),
        "uploads": report["uploads"],
        "failed": report["failed"] + report["workers_out_of_time"],
        "bytes": report["bytes"],
        "mb_per_s": round(report["mb_per_s"], 1),
        "uploads_per_s": round(report["uploads_per_s"], 1),
        "cpu_s_per_gib": round(server["cpu_seconds"] / gib, 3),
        "cpu_s": round(server["cpu_seconds"], 2),
        "peak_mib": round(server["peak_rss_kib"] / 1024, 1),
        "idle_mib": round(idle_kib / 1024, 1),
        "disk_mb": round(server["write_bytes"] / 1e6, 2),
        "p50_ms": round(whole.get("p50_ms", 0), 2),
        "p99_ms": round(whole.get("p99_ms", 0), 2),
        "resume_p50_ms": round(latency["resume"]["p50_ms"], 2) if "resume" in latency else None,
        "resume_p99_ms": round(latency["resume"]["p99_ms"], 2) if "resume" in latency else None,
        "cuts": report["cuts"],
        "load_cpu_s": round(report["own"]["cpu_seconds"], 2),
        "s3_cpu_s_per_gib": round(s3_cpu / gib, 2) if s3_cpu is not None else None,
        "error": report["errors"] or None,
    }


def sdk_put(mib, s3):
    """The AWS SDK alone, putting parts from memory: what a server that writes to the same S3 can be measured by."""
    s3_before = cpu_seconds(s3.pid)
    command = [RELEASE / "examples/sdk_put", "--mib", str(mib)]
    line = subprocess.check_output(command, env=environment(**s3.as_environment()), text=True)
    rate, per_gib = re.search(r": ([\d.]+) MB/s.*?([\d.]+) CPU s/GiB", line).groups()
    return {
        "mb_per_s": float(rate),
        "cpu_s_per_gib": float(per_gib),
        "bytes": mib << 20,
        "failed": 0,
        "s3_cpu_s_per_gib": round((cpu_seconds(s3.pid) - s3_before) / (mib / 1024), 2),
    }
