"""What every server is put through, by the same client and the same protocol (tus)."""

import re
from dataclasses import dataclass

UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True)
class Workload:
    key: str
    title: str
    load: str
    quick: str
    rounds: int = 3
    warm_up: bool = True
    # What is shown first: how fast, how much memory a connection, or what a cut costs.
    shows: str = "rate"

    def arguments(self, quick):
        return (self.quick if quick else self.load).split()

    def bytes(self, quick):
        """How many bytes the files have, all together."""
        words = self.arguments(quick)
        uploads = int(words[words.index("--uploads") + 1]) if "--uploads" in words else 1
        number, unit = re.fullmatch(r"(\d+)(\w+)", words[words.index("--size") + 1]).groups()
        return uploads * int(number) * UNITS[unit]


FILES = "--size 25MiB --concurrency 8"
SMALL = "--size 256KiB --concurrency 16"
CUTS = "--size 25MiB --chunk 5MiB --concurrency 8 --cut 0.5"
HANG = "--size 25MiB --concurrency 8 --cut 1 --hang --seconds 120"

DISK = (
    Workload("large", "1 GiB in one request", "--size 1GiB", "--size 128MiB"),
    Workload("files", "40 × 25 MiB, one request each, 8 at a time", f"--uploads 40 {FILES}", f"--uploads 8 {FILES}"),
    Workload("chunks", "the same in chunks of 1 MiB", f"--uploads 40 {FILES} --chunk 1MiB", f"--uploads 8 {FILES} --chunk 1MiB"),
    Workload("small", "4,000 × 256 KiB, 16 at a time", f"--uploads 4000 {SMALL}", f"--uploads 200 {SMALL}"),
    Workload(
        "slow",
        "5,000 clients at 4 KiB/s, 80 KiB each",
        "--uploads 5000 --concurrency 5000 --size 80KiB --rate 4KiB",
        "--uploads 500 --concurrency 500 --size 20KiB --rate 4KiB",
        rounds=2,
        warm_up=False,
        shows="slow",
    ),
    Workload("cuts", "25 MiB files in 5 MiB chunks, half of them cut somewhere", f"--uploads 40 {CUTS}", f"--uploads 8 {CUTS}", shows="cuts"),
    Workload(
        "lost",
        "8 × 25 MiB, the network lost once in each: the old connection stays open",
        f"--uploads 8 {HANG}",
        f"--uploads 2 {HANG}",
        rounds=2,
        warm_up=False,
        shows="cuts",
    ),
)
S3 = (
    DISK[0],
    DISK[1],
    Workload("chunks", "10 × 25 MiB in chunks of 1 MiB, 8 at a time", f"--uploads 10 {FILES} --chunk 1MiB", f"--uploads 4 {FILES} --chunk 1MiB"),
    Workload("small", "500 × 256 KiB, 16 at a time", f"--uploads 500 {SMALL}", f"--uploads 100 {SMALL}"),
    Workload(
        "slow",
        "1,000 clients at 4 KiB/s, 60 KiB each",
        "--uploads 1000 --concurrency 1000 --size 60KiB --rate 4KiB",
        "--uploads 200 --concurrency 200 --size 20KiB --rate 4KiB",
        rounds=2,
        warm_up=False,
        shows="slow",
    ),
    Workload("cuts", "25 MiB files in 5 MiB chunks, half of them cut somewhere", f"--uploads 16 {CUTS}", f"--uploads 4 {CUTS}", shows="cuts"),
)
BY_STORE = {"disk": DISK, "s3": S3}
