"""The page and the charts, from the results. What was not measured is left out; what failed is said."""

from statistics import median

import charts
from workloads import BY_STORE

BEGIN, END = "<!-- scripts/bench writes from here -->", "<!-- to here -->"
JUMAR = ("jumar (process)", "jumar (power)")
STORES = {"disk": "On a local disk", "s3": "On S3"}


class Figures:
    """All runs of one server in one workload."""

    def __init__(self, runs):
        self.all = len(runs)
        self.reasons = list(dict.fromkeys(run["aborted"] for run in runs if "aborted" in run))
        self.runs = [run for run in runs if "aborted" not in run]
        self.failed = sum(run["failed"] for run in self.runs)
        self.reasons += list(dict.fromkeys(run["error"] for run in self.runs if run.get("error")))
        # A run in which uploads failed says nothing of how fast the others were.
        self.good = [run for run in self.runs if not run["failed"]]

    def of(self, what):
        values = [what(run) if callable(what) else run.get(what) for run in self.good]
        values = [value for value in values if value is not None]
        return (median(values), min(values), max(values)) if values else None

    def middle(self, what):
        figures = self.of(what)
        return figures and figures[0]


class Results:
    def __init__(self, results):
        self.raw = results

    def servers(self, store, workload):
        names = (run["server"] for run in self.raw["runs"] if (run["store"], run["workload"]) == (store, workload))
        order = list(charts.COLOURS)
        return sorted(dict.fromkeys(names), key=order.index)

    def figures(self, store, workload, server):
        mine = (store, workload, server)
        return Figures([run for run in self.raw["runs"] if (run["store"], run["workload"], run["server"]) == mine])

    def middle(self, store, workload, server, what):
        return self.figures(store, workload, server).middle(what)

    def peers(self, store, workload, what):
        """What each peer has."""
        names = [name for name in self.servers(store, workload) if name not in (*JUMAR, "AWS SDK alone")]
        values = {name: self.middle(store, workload, name, what) for name in names}
        return {name: value for name, value in values.items() if value}


def spread(figures, unit=""):
    if figures is None:
        return ""
    middle, least, most = figures
    if least == most:
        return f"{charts.number(middle)}{unit}"
    return f"{charts.number(middle)} ({charts.number(least)} to {charts.number(most)}){unit}"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def again(run):
    """MiB that were sent more than once, refused and repeated ones among them."""
    return max(run["bytes"] - run["wanted_bytes"], 0) / 2**20


def columns(workload, store):
    """Of a workload's table: heading, and what of a run stands there."""
    common = [("CPU s/GiB", "cpu_s_per_gib"), ("peak MiB", "peak_mib"), ("MB written to disk", "disk_mb")]
    if store == "s3":
        common.append(("CPU s/GiB of the S3 server", "s3_cpu_s_per_gib"))
    if workload.shows == "slow":
        return [("KiB resident a connection", each), ("CPU s in all", "cpu_s"), ("peak MiB", "peak_mib"), ("p99 of an upload, s", lambda run: run["p99_ms"] / 1e3)]
    if workload.shows == "cuts":
        return [("MiB sent again", again), ("resume p50 ms", "resume_p50_ms"), ("resume p99 ms", "resume_p99_ms"), ("seconds in all", "seconds"), *common[:1]]
    latency = [("p50 ms", "p50_ms"), ("p99 ms", "p99_ms")] if "×" in workload.title else []
    if "256" in workload.title:
        latency.insert(0, ("files/s", "uploads_per_s"))
    elif workload.key == "chunks":
        latency = [("p50 ms", "p50_ms"), ("p99 ms", "p99_ms")]
    return [("MB/s", "mb_per_s"), *latency, *common]


def each(run):
    return (run["peak_mib"] - run["idle_mib"]) * 1024 / run["uploads"] if run["uploads"] else None


def workload_section(results, store, workload):
    names = results.servers(store, workload.key)
    if not names:
        return []
    wanted = columns(workload, store)
    rows, notes = [], []
    for name in names:
        figures = results.figures(store, workload.key, name)
        rows.append([name, *(spread(figures.of(what)) for _, what in wanted)])
        if figures.failed:
            notes.append(f"- {name}: {figures.failed} uploads failed; runs with a failed one are left out ({len(figures.good)} of {figures.all} are left).")
        if len(figures.runs) < figures.all:
            notes.append(f"- {name}: {figures.all - len(figures.runs)} of {figures.all} runs were aborted.")
        notes += [f"  `{reason.strip()[:300]}`".replace("\n", " ") for reason in figures.reasons[:1]]
    return [f"#### {workload.title}", table(["", *(head for head, _ in wanted)], rows), *(["\n".join(notes)] if notes else [])]


def chart(results, store, shows, what):
    groups = []
    for workload in BY_STORE[store]:
        if workload.shows == shows:
            figures = ((name, results.figures(store, workload.key, name).of(what)) for name in results.servers(store, workload.key))
            groups.append((workload.title, [(name, *found) for name, found in figures if found]))
    return groups


def write_charts(results, folder):
    """Returns the names of those that there is something for."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {}
    for store, place in STORES.items():
        where = place[0].lower() + place[1:]
        wanted[f"{store}-rate"] = (f"Rate {where}, MB/s: longer is better", chart(results, store, "rate", "mb_per_s"))
        wanted[f"{store}-cpu"] = (f"CPU of the server {where}, s/GiB: shorter is better", chart(results, store, "rate", "cpu_s_per_gib"))
        wanted[f"{store}-memory"] = (f"Peak memory of the server {where}, MiB: shorter is better", chart(results, store, "rate", "peak_mib"))
        wanted[f"{store}-slow"] = (f"Slow clients {where}, KiB resident a connection: shorter is better", chart(results, store, "slow", each))
        wanted[f"{store}-cuts"] = (f"Cut connections {where}, MiB sent again: shorter is better", chart(results, store, "cuts", again))
        wanted[f"{store}-resume"] = (f"Cut connections {where}, ms until it is known where to go on (p50): shorter is better", chart(results, store, "cuts", "resume_p50_ms"))
    made = set()
    for name, (title, groups) in wanted.items():
        if any(rows for _, rows in groups):
            (folder / f"{name}.svg").write_text(charts.bars(title, groups))
            made.add(name)
    ranges = results.raw["unique"].get("ranges", {})
    series = [(f"jumar ({d})", [(t["received"], t["cpu_ms"]) for t in ranges[d]["tenths"]]) for d in ("process", "power") if d in ranges]
    if series:
        title = f"CPU ms of a chunk of {ranges['chunk_kib']} KiB, by how many were received"
        (folder / "ranges.svg").write_text(charts.lines(title, "chunks received, in random order", series))
        made.add("ranges")
    return made


def about(results):
    machine, raw = results.raw["machine"], results.raw
    sha = "with SHA instructions" if machine["sha"] else "without SHA instructions"
    quick = ["**Small sizes and one round (`--quick`): these figures say nothing but that it runs.**"] if raw.get("quick") else []
    rows = []
    for name, server in raw["servers"].items():
        rows.append([name, server.get("version", "missing"), server.get("about", server.get("missing", "")[:200])])
    busy = max((run["load_cpu_s"] / run["seconds"] for run in raw["runs"] if run.get("load_cpu_s")), default=0)
    return [
        *quick,
        f"{machine['date']}, {machine['threads']} hardware threads of {machine['cpu']} ({sha}), {machine['memory_gib']} GiB, "
        f"{machine['filesystem']}, Linux {machine['kernel']}. Client, servers and S3 (Garage of `scripts/dev-s3`, which syncs nothing) share the machine, so ratios count. "
        "Every server gets the same bytes from the same client (`examples/load --protocol tus`). Each run has a fresh server and an empty folder; "
        "servers take turns within each round, in another order each time, after a small round that is thrown away. Figures are the median, and the least and the most in brackets. "
        "CPU is user and system time of the server, memory what was resident at most (`VmHWM`), what is written to disk is `write_bytes` of `/proc`. "
        "p50 and p99 are of whole uploads, from creation to the last answer. "
        f"The client has one thread, and was at most {busy:.0%} busy.",
        table(["server", "version", "how it is set up"], rows),
    ]


def goal(rows, work, aim, text):
    rows.append([work, aim, text or "not measured"])


def ratio(ours, theirs):
    return ours / theirs if ours and theirs else None


def goals(results):
    """The figures that are aimed at, beside what was measured."""
    rows = []
    best = lambda store, workload, what, pick: pick(results.peers(store, workload, what).items(), key=lambda item: item[1], default=(None, None))
    said = lambda value, suffix: f"{value:.2f} {suffix}" if value else None

    def against(work, aim, store, workload, server, what, pick):
        name, value = best(store, workload, what, pick)
        goal(rows, work, aim, said(ratio(results.middle(store, workload, server, what), value), f"× {name}"))

    disk = "1 GiB to disk, one request, `process`"
    against(disk, "2 × the best peer's rate", "disk", "large", JUMAR[0], "mb_per_s", max)
    against(disk, "0.8 × the CPU of the best peer", "disk", "large", JUMAR[0], "cpu_s_per_gib", min)
    to_s3 = "1 GiB to S3, one request"
    sdk = results.middle("s3", "large", "AWS SDK alone", "mb_per_s")
    goal(rows, to_s3, "0.75 × the rate of the AWS SDK alone", said(ratio(results.middle("s3", "large", JUMAR[1], "mb_per_s"), sdk), "×"))
    goal(rows, to_s3, "at most 1.2 CPU s/GiB", said(results.middle("s3", "large", JUMAR[1], "cpu_s_per_gib"), "CPU s/GiB"))
    against(to_s3, "0.5 × the CPU of the best peer", "s3", "large", JUMAR[1], "cpu_s_per_gib", min)
    goal(rows, to_s3, "no disk", said(results.middle("s3", "large", JUMAR[1], "disk_mb"), "MB written (catalog)"))
    node = lambda workload, server: said(ratio(results.middle("s3", workload, server, "mb_per_s"), results.middle("s3", workload, "@tus/server", "mb_per_s")), f"× ({server.split('(')[1]}")
    for workload, work in (("chunks", "25 MiB files in 1 MiB chunks to S3"), ("small", "256 KiB files to S3")):
        both = [text for text in (node(workload, server) for server in JUMAR) if text]
        goal(rows, work, "4 × @tus/server", ", ".join(both))
    against("256 KiB files to disk, `power`", "2 × the rate of the best peer, which does not sync", "disk", "small", JUMAR[1], "mb_per_s", max)
    against("256 KiB files to disk, `process`", "3 × the rate of the best peer", "disk", "small", JUMAR[0], "mb_per_s", max)
    goal(rows, "a slow connection, 5,000 of them", "at most 24 KiB resident", said(results.middle("disk", "slow", JUMAR[1], each), "KiB"))
    runs = results.raw["unique"].get("completing", {}).get("runs", [])
    for store, aim in (("disk", "under 50 ms after the last byte"), ("s3", "what CompleteMultipartUpload takes plus 20 ms")):
        mine = [run for run in runs if run["store"] == store]
        texts = []
        for durability in dict.fromkeys(run["durability"] for run in mine):
            of = [run for run in mine if run["durability"] == durability]
            text = f"{median(run['in_all_ms'] for run in of):.0f} ms ({durability})"
            if store == "s3":
                text += f", of which that call {median(run['finish_call_ms'] or 0 for run in of):.0f} ms"
            texts.append(text)
        goal(rows, f"completing {results.raw['unique'].get('completing', {}).get('size', '1GiB')}, SHA-256 verified, {store}", aim, ", ".join(texts))
    for server in JUMAR:
        sent, resume = results.middle("disk", "cuts", server, again), results.middle("disk", "cuts", server, "resume_p50_ms")
        if resume is not None:
            goal(rows, f"a cut, disk, {server}", "0 bytes sent twice; resume within 10 ms p50", f"{sent:.2f} MiB; {resume:.1f} ms")
    ranges = results.raw["unique"].get("ranges", {})
    for durability in ("process", "power"):
        if durability in ranges:
            tenths = ranges[durability]["tenths"]
            text = f"CPU of a chunk in the last tenth {tenths[-1]['cpu_ms']:.3f} ms, in the second {tenths[1]['cpu_ms']:.3f} ms"
            goal(rows, f"{ranges['chunks']:,} chunks out of order, `{durability}`", "the cost of a chunk does not grow", text)
    return ["### The figures that are aimed at", table(["work", "aim", "measured"], rows)]


def only_jumar(results, made):
    unique, parts = results.raw["unique"], ["### What only jumar does"]
    for name, one in unique.items():
        if "aborted" in one:
            parts.append(f"`{name}` was aborted: `{one['aborted'][:300]}`")
    completing = unique.get("completing", {}).get("runs")
    if completing:
        rows = []
        for key in dict.fromkeys((run["store"], run["durability"], run["protocol"]) for run in completing):
            mine = [run for run in completing if (run["store"], run["durability"], run["protocol"]) == key]
            of = lambda what: spread((median(values := [run[what] for run in mine]), min(values), max(values))) if mine[0][what] is not None else ""
            rows.append([key[0], key[1], key[2], of("answer_ms"), of("complete_ms"), of("in_all_ms"), of("finish_call_ms")])
        parts.append(
            f"#### From the last byte of {unique['completing']['size']} to its completion\n\nSHA-256 included: over the native API it was declared at creation and is verified, over tus it is computed. ms."
        )
        parts.append(table(["store", "durability", "protocol", "last byte to its answer", "complete call", "in all", "the store's own call"], rows))
    ranges = unique.get("ranges", {})
    measured = [d for d in ("process", "power") if d in ranges]
    if measured:
        parts.append(f"#### {ranges['chunks']:,} chunks of {ranges['chunk_kib']} KiB of one upload, in random order, {ranges['parallel']} at once")
        if "ranges" in made:
            parts.append("![CPU of a chunk by how many were received](charts/ranges.svg)")
        head = ["received", *(f"{what}, {d}" for d in measured for what in ("ms a chunk", "CPU ms a chunk"))]
        rows = []
        for index, tenth in enumerate(ranges[measured[0]]["tenths"]):
            figures = [f"{ranges[d]['tenths'][index][what]:.3f}" for d in measured for what in ("ms", "cpu_ms")]
            rows.append([f"{tenth['received']:,}", *figures])
        parts.append(table(head, rows))
        told = [f"`{d}`: p50 {ranges[d]['chunk_p50_ms']} ms, p99 {ranges[d]['chunk_p99_ms']} ms, completed in {ranges[d]['complete_ms']} ms, peak {ranges[d]['peak_mib']} MiB" for d in measured]
        parts.append(". ".join(told) + ".")
    restart = unique.get("restart", {})
    if "seconds" in restart:
        parts.append(
            f"#### A restart with {restart['sessions']:,} open uploads\n\nTheir rows were copied into the catalog ({restart['catalog_mb']} MB) from one that the server made. From the start of the process to "
            f"`/readyz`, after `kill -9`: {', '.join(f'{s:.2f} s' for s in restart['seconds'])}. Resident then: {', '.join(f'{m:.0f} MiB' for m in restart['resident_mib'])}."
        )
    prune = unique.get("prune", {})
    if "seconds" in prune:
        parts.append(
            f"#### Pruning\n\n`jumar prune` of {prune['uploads']:,} expired uploads with a staged file each, synced: {prune['seconds']} s, {prune['per_second']:,} a second."
        )
    return parts if len(parts) > 1 else []


def where_the_time_goes(results):
    """Shares of the server's CPU time by kind of work, a column for each version that was looked at."""
    parts = []
    for key, profile in results.raw.get("profile", {}).items():
        versions = profile["versions"]
        kinds = list(dict.fromkeys(kind for one in versions.values() for kind in one["shares"]))
        kinds.sort(key=lambda kind: -max(one["shares"].get(kind, 0) for one in versions.values()))
        rows = [["CPU s/GiB, all of it", *(f"{one['cpu_s_per_gib']:.2f}" for one in versions.values())]]
        for kind in kinds:
            seconds = [one["cpu_s_per_gib"] * one["shares"].get(kind, 0) / 100 for one in versions.values()]
            rows.append([kind, *(f"{s:.2f}" for s in seconds)])
        parts.append(f"#### {profile['title']}\n\n![flame graph](charts/profile-{key}.svg)")
        parts.append(table(["", *versions], rows))
    if parts:
        told = (
            "CPU seconds of the server for each GiB by kind of work, `durability = \"process\"`, by samples of its stacks (`perf`, whose own work is in "
            "them), a column for each version that was looked at; the flame graphs are of the last."
        )
        parts = ["### Where the time goes", told, *parts]
    return parts


def page(raw, out):
    """Writes the charts, and the page between its two marks; what stands around them stays."""
    results = Results(raw)
    made = write_charts(results, out / "charts")
    parts = [BEGIN, "## Side by side", *about(results), *goals(results)]
    for store, title in STORES.items():
        sections = [part for workload in BY_STORE[store] for part in workload_section(results, store, workload)]
        if sections:
            shown = [name for name in ("rate", "cpu", "memory", "slow", "cuts", "resume") if f"{store}-{name}" in made]
            parts += [f"### {title}", "\n".join(f"![{name}](charts/{store}-{name}.svg)" for name in shown), *sections]
    parts += [*only_jumar(results, made), *where_the_time_goes(results), END]
    file = out / "benchmarks.md"
    text = file.read_text() if file.exists() else f"{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    file.write_text(before + "\n\n".join(parts) + after)
