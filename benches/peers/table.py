#!/usr/bin/env python3
"""Medians over the rows that run.sh left, as Markdown: table.py [results.jsonl]

Rows are grouped by peer, load and commit; a group of fewer than three runs is marked, since a median of two says nothing.
The raw rows follow, so that nobody has to trust the medians.
"""
import collections, json, pathlib, statistics, sys

COLUMNS = [
    ("rec/s", "steady_rec_s", 0), ("CPU us/rec", "cpu_us_rec", 1), ("broker us/rec", "broker_us_rec", 1), ("peak RSS MiB", "peak_rss_mib", 0),
    ("state, bytes a user", "state_bytes_per_user", 0),
    ("p50 ms", "lat_p50", 1), ("p99 ms", "lat_p99", 1), ("p99.9 ms", "lat_p999", 1),
    ("restart, state kept, s", "kept_all_s", 1), ("wiped, s", "wiped_all_s", 1), ("restore rec/s", "wiped_restore_rec_s", 0),
]


def cell(rows, field, digits):
    values = [r[field] for r in rows if r.get(field) is not None]
    if not values: return "-"
    spread = f" ({min(values):,.{digits}f}-{max(values):,.{digits}f})" if len(values) > 1 else ""
    return f"{statistics.median(values):,.{digits}f}{spread}"


def main():
    path = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).with_name("results.jsonl"))
    lines = [l for l in path.read_text().splitlines() if l.strip()]
    groups = collections.defaultdict(list)
    for row in map(json.loads, lines): groups[row["peer"], row["n"], row["users"], row.get("note", "")].append(row)
    print("Median (smallest-largest). Latency at the rate of the raw rows; `!` marks fewer than three runs.\n")
    print("| peer | records, users | runs | " + " | ".join(c[0] for c in COLUMNS) + " | output right | taken with |")
    print("|" + "---|" * (len(COLUMNS) + 5))
    for (peer, n, users, note), rows in sorted(groups.items()):
        right = f"{sum(r.get('right') is True for r in rows)} of {sum('right' in r for r in rows)}"
        cells = [cell(rows, field, digits) for _, field, digits in COLUMNS]
        print(f"| {peer} | {n:,}, {users:,} | {len(rows)}{' !' if len(rows) < 3 else ''} | " + " | ".join(cells) + f" | {right} | {note} |")
    print("\n```json\n" + "\n".join(lines) + "\n```")


main()
