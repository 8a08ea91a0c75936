"""The servers that are compared: how each is installed, started, and what is said about it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", PROJECT / "target")).resolve()
BENCH = TARGET / "bench"
PEERS = BENCH / "peers"
OURS = Path(__file__).resolve().parent / "peers"
RELEASE = TARGET / "release"

PORT = 18080
TUSD = "v2.9.1"
RUSTUS = "0.5.10"
SECRETS = ("JUMAR_", "AWS_", "S3_", "RUSTUS_")


def environment(**more):
    """Ours, without what would configure one of the servers."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(SECRETS)}
    return kept | more


def run(*command, **options):
    subprocess.run([str(word) for word in command], check=True, **options)


class Process:
    """A server that runs, in a folder of its own."""

    def __init__(self, command, folder, env, base):
        self.folder, self.base = folder, base
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        self.log = folder / "log"
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                [str(word) for word in command],
                cwd=folder,
                env=env | {"TMPDIR": str(folder / "tmp")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.pid = self.child.pid
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", PORT), 1).close()
                return
            except OSError as error:
                if self.child.poll() is not None or time.monotonic() > deadline:
                    tail = self.log.read_text(errors="replace")[-600:]
                    self.stop()
                    raise RuntimeError(f"it does not start: {error}: {tail}") from error
                time.sleep(0.01)

    def resident_kib(self):
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        return 0

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(15)
            except subprocess.TimeoutExpired:
                self.child.kill()
        self.child.wait()


class Jumar:
    stores = ("disk", "s3")

    def __init__(self, durability):
        self.name = f"jumar ({durability})"
        self.durability = durability

    def install(self):
        run("cargo", "build", "--release", "--locked", "--bins", "--examples", cwd=PROJECT, env=environment())

    def version(self):
        return subprocess.check_output(["git", "describe", "--always", "--dirty"], cwd=PROJECT, text=True).strip()

    def about(self):
        synced = "everything is synced before it is acknowledged" if self.durability == "power" else "nothing is synced"
        return f'`durability = "{self.durability}"`: {synced}. Defaults beside that, with room for 8,192 connections. SHA-256 of every file'

    def config(self, folder, s3, more=""):
        store = 'kind = "fs"\n[store.fs]\npath = "data"' if s3 is None else s3["toml"].removeprefix("[store]\n")
        text = f"""[server]
listen = "127.0.0.1:{PORT}"
admin_listen = "127.0.0.1:{PORT + 1}"
max_connections = 8192
[catalog]
url = "sqlite:data/jumar.db"
[store]
{store}
[spool]
path = "data/spool"
[uploads]
durability = "{self.durability}"
{more}
[log]
level = "warn"
"""
        (folder / "data").mkdir(parents=True, exist_ok=True)
        (folder / "jumar.toml").write_text(text)

    def start(self, folder, s3=None, more=""):
        self.config(folder, s3, more)
        command = [RELEASE / "jumar", "serve", "--config", "jumar.toml"]
        return Process(command, folder, environment(), "/files")


class Tusd:
    name = "tusd"
    stores = ("disk", "s3")

    def install(self):
        if not (PEERS / "tusd/tusd").exists():
            run("go", "install", f"github.com/tus/tusd/v2/cmd/tusd@{TUSD}", env=os.environ | {"GOBIN": str(PEERS / "tusd")})

    def version(self):
        return TUSD

    def about(self):
        return "defaults: parts of 50 MiB on S3, ten at a time, through temporary files. Syncs nothing on disk. No SHA-256 of files. No hooks"

    def start(self, folder, s3=None):
        command = [PEERS / "tusd/tusd", "-host", "127.0.0.1", "-port", PORT, "-verbose=false"]
        if s3 is None:
            return Process([*command, "-upload-dir", folder / "data"], folder, environment(), "/files/")
        command += ["-s3-bucket", s3["BUCKET"], "-s3-endpoint", s3["ENDPOINT"]]
        return Process(command, folder, environment(**aws(s3)), "/files/")


class TusServer:
    name = "@tus/server"
    stores = ("disk", "s3")

    def install(self):
        folder = PEERS / "node"
        folder.mkdir(parents=True, exist_ok=True)
        for file in ("package.json", "tus-server.mjs"):
            shutil.copy(OURS / file, folder)
        if not (folder / "node_modules/@tus/s3-store").exists():
            run("npm", "install", "--no-audit", "--no-fund", cwd=folder)

    def version(self):
        pinned = json.loads((OURS / "package.json").read_text())["dependencies"]
        node = subprocess.check_output(["node", "--version"], text=True).strip()
        return ", ".join(f"{name} {version}" for name, version in pinned.items()) + f", Node {node}"

    def about(self):
        return "as in its README: parts of 8 MiB on S3, through temporary files. Syncs nothing on disk. No SHA-256 of files"

    def start(self, folder, s3=None):
        command = ["node", PEERS / "node/tus-server.mjs", PORT]
        if s3 is None:
            return Process([*command, folder / "data"], folder, environment(), "/files")
        return Process([*command, "s3"], folder, environment(**aws(s3)), "/files")


class Rustus:
    name = "rustus"
    stores = ("disk",)

    def install(self):
        if not (PEERS / "rustus/bin/rustus").exists():
            root = PEERS / "rustus"
            env = environment(CARGO_TARGET_DIR=str(root / "target"))
            run("cargo", "install", "rustus", "--version", RUSTUS, "--locked", "--root", root, env=env)

    def version(self):
        return f"{RUSTUS}, the newest on crates.io"

    def about(self):
        return "defaults, log at `ERROR`, bodies of up to 4 GiB (256 KiB by default). Syncs nothing on disk, and stores nothing in S3 in this version. No SHA-256 of files"

    def start(self, folder, s3=None):
        data = folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        command = [PEERS / "rustus/bin/rustus", "--host", "127.0.0.1", "--port", PORT, "--log-level", "ERROR"]
        command += ["--data-dir", data, "--info-dir", data, "--max-body-size", 4 << 30]
        return Process(command, folder, environment(), "/files/")


def aws(s3):
    return {
        "AWS_REGION": s3["REGION"],
        "AWS_ACCESS_KEY_ID": s3["ACCESS_KEY_ID"],
        "AWS_SECRET_ACCESS_KEY": s3["SECRET_ACCESS_KEY"],
        "S3_ENDPOINT": s3["ENDPOINT"],
        "S3_BUCKET": s3["BUCKET"],
    }


ALL = (Jumar("process"), Jumar("power"), Tusd(), TusServer(), Rustus())
