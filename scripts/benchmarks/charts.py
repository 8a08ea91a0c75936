"""Charts as SVG: grouped bars with their spread, and lines. Readable on light and on dark pages."""

from html import escape

COLOURS = {
    "jumar (process)": "#2f9e62",
    "jumar (power)": "#2b7fd0",
    "tusd": "#d9822b",
    "@tus/server": "#c94277",
    "rustus": "#8a63d2",
    "AWS SDK alone": "#868e96",
}
STYLE = """<style>
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-size: 14px; font-weight: 600 }
.grid { stroke: #8884 } .spread { stroke: #24292f; fill: none } .line { fill: none; stroke-width: 2 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .spread { stroke: #e6edf3 } }
</style>"""
WIDTH, LEFT, RIGHT, BAR = 860, 200, 90, 15


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def document(height, title, parts):
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">'
    lines = [head, f"<title>{escape(title)}</title>", STYLE, f'<text class="title" x="8" y="20">{escape(title)}</text>', *parts, "</svg>"]
    return "\n".join(lines) + "\n"


def legend(names, y):
    parts, x = [], 8
    for name in names:
        parts.append(f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{COLOURS.get(name, "#888")}"/>')
        parts.append(f'<text x="{x + 17}" y="{y}">{escape(name)}</text>')
        x += 40 + 7 * len(name)
    return parts


def bars(title, groups):
    """Groups are (label, [(name, median, least, most)]). Each group has a scale of its own, because what is compared is within it."""
    groups = [(label, rows) for label, rows in groups if rows]
    names = list(dict.fromkeys(name for _, rows in groups for name, *_ in rows))
    parts, y = legend(names, 44), 62
    for label, rows in groups:
        most = max(row[3] for row in rows) or 1
        middle = y + len(rows) * (BAR + 3) / 2
        lines = wrap(label, 28)
        for index, line in enumerate(lines):
            parts.append(f'<text x="8" y="{middle + 4 + 15 * (index - (len(lines) - 1) / 2):.0f}">{escape(line)}</text>')
        for name, median, least, top in rows:
            scale = (WIDTH - LEFT - RIGHT) / most
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{max(median * scale, 1):.1f}" height="{BAR}" fill="{COLOURS.get(name, "#888")}"/>')
            if top > least:
                low, high, at = LEFT + least * scale, LEFT + top * scale, y + BAR / 2
                parts.append(f'<path class="spread" d="M{low:.1f} {at - 3}v6M{low:.1f} {at}H{high:.1f}M{high:.1f} {at - 3}v6"/>')
            end = LEFT + max(median, top) * scale + 6
            parts.append(f'<text x="{end:.1f}" y="{y + BAR - 3}">{number(median)}</text>')
            y += BAR + 3
        y += 12
    return document(y, title, parts)


def wrap(text, width):
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def lines(title, across, series):
    """Series are (name, [(x, y)]); both axes begin at 0."""
    top, bottom, right = 62, 280, WIDTH - 30
    most_x = max(x for _, points in series for x, _ in points)
    most_y = max(y for _, points in series for _, y in points) * 1.1 or 1
    place_x = lambda x: 70 + x / most_x * (right - 70)
    place_y = lambda y: bottom - y / most_y * (bottom - top)
    parts = legend([name for name, _ in series], 44)
    for step in range(5):
        y = most_y * step / 4
        parts.append(f'<path class="grid" d="M70 {place_y(y):.1f}H{right}"/>')
        parts.append(f'<text x="62" y="{place_y(y) + 4:.1f}" text-anchor="end">{number(y)}</text>')
    for x in sorted({x for _, points in series for x, _ in points}):
        parts.append(f'<text x="{place_x(x):.1f}" y="{bottom + 18}" text-anchor="middle">{x:,}</text>')
    parts.append(f'<text x="{right}" y="{bottom + 36}" text-anchor="end">{escape(across)}</text>')
    for name, points in series:
        path = "L".join(f"{place_x(x):.1f} {place_y(y):.1f}" for x, y in points)
        parts.append(f'<path class="line" stroke="{COLOURS.get(name, "#888")}" d="M{path}"/>')
    return document(bottom + 46, title, parts)
