#!/usr/bin/env python3
"""The ten features of FEATURES.md once more, in plain Python, to check verdicts against: shares no code with Mangrove.

    features_reference.py VERDICTS.ndjson [--csv PAYMENTS.csv[.gz]] [--global-amount-p99 X] [--model-from ROW] [--one-in N] [--limit ROWS]

Reads verdicts in the order of their records (one partition, or any number of them: only the order within a user counts), keeps a profile
for each user, and compares all ten features at 1e-5 relative or 1e-6 absolute. With --csv it also checks that row by row the verdict is
about the payment in the file. --one-in N takes the users whose name's CRC-32 is a multiple of N, with all of their payments.
Prints the first mismatches and a summary; the exit code is 1 where there was any.
"""
import argparse
import csv
import datetime
import gzip
import json
import math
import sys
import zlib

HOUR_MS = 3_600_000
DAY_MS = 86_400_000
NAMES = ("log_amount amount_zscore amount_percentile velocity_ratio hour_deviation day_deviation time_since_last "
         "merchant_familiarity is_new_user global_amount_flag").split()


def bucket_of(amount):
    if amount < 0.01:
        return 0
    return 1 + math.floor(math.log(amount / 0.01) / 0.09531017980432493)


class Profile:
    """State of one user before the next transaction."""

    def __init__(self):
        self.n = 0
        self.mean = 0.0
        self.m2 = 0.0
        self.sketch = {}
        self.hours = [0] * 24
        self.days = [0] * 7
        self.first_t = None
        self.last_t = None
        self.recent = []  # event times in order of arrival
        self.merchants = {}  # name -> [count, number of the last transaction with it]

    def features(self, amount, t, merchant, p99):
        n = self.n
        log_amount = math.log1p(amount)
        new = 1.0 if n < 20 else 0.0
        flag = 1.0 if p99 is not None and amount > p99 else 0.0
        if n == 0:
            return [log_amount, 0.0, 0.5, 1.0, 0.0, 0.0, math.log1p(2_592_000), 0.0, new, flag]
        zscore = 0.0
        if n >= 2:
            sd = math.sqrt(self.m2 / (n - 1))
            zscore = (amount - self.mean) / max(sd, 0.01 * abs(self.mean), 0.01)
            zscore = min(max(zscore, -50.0), 50.0)
        bucket = bucket_of(amount)
        below = same = 0
        for k, count in self.sketch.items():
            if k < bucket:
                below += count
            elif k == bucket:
                same = count
        percentile = (below + same / 2) / n
        last_hour = 0
        for x in self.recent:
            if t - HOUR_MS < x <= t:
                last_hour += 1
        span_h = max((t - self.first_t) / HOUR_MS, 1.0)
        velocity = (last_hour + 1) / (1 + n / span_h)
        c = self.hours
        usual = max(c[h - 1] / 4 + c[h] / 2 + c[h - 23] / 4 for h in range(24)) + 1 / 24
        h = t // HOUR_MS % 24
        hour = 1 - (c[h - 1] / 4 + c[h] / 2 + c[(h + 1) % 24] / 4 + 1 / 24) / usual
        d = (t // DAY_MS + 3) % 7
        day = 1 - (self.days[d] + 1 / 7) / (max(self.days) + 1 / 7)
        since = math.log1p(max(t - self.last_t, 0) / 1000)
        known = self.merchants.get(merchant)
        familiarity = known[0] / n if known else 0.0
        return [log_amount, zscore, percentile, velocity, hour, day, since, familiarity, new, flag]

    def update(self, amount, t, merchant):
        self.n += 1
        d = amount - self.mean
        self.mean += d / self.n
        self.m2 += d * (amount - self.mean)
        bucket = bucket_of(amount)
        self.sketch[bucket] = self.sketch.get(bucket, 0) + 1
        self.hours[t // HOUR_MS % 24] += 1
        self.days[(t // DAY_MS + 3) % 7] += 1
        self.first_t = t if self.first_t is None else min(self.first_t, t)
        self.last_t = t if self.last_t is None else max(self.last_t, t)
        self.recent.append(t)
        horizon = self.last_t - HOUR_MS
        self.recent = [x for x in self.recent if x > horizon]
        while len(self.recent) > 256:
            del self.recent[0]
        known = self.merchants.get(merchant)
        if known:
            known[0] += 1
            known[1] = self.n
            return
        if len(self.merchants) == 64:
            leaves, fewest = None, None
            for name, (count, last) in self.merchants.items():
                if fewest is None or (count, last) < fewest:
                    leaves, fewest = name, (count, last)
            del self.merchants[leaves]
        self.merchants[merchant] = [1, self.n]


def close(a, b):
    return abs(a - b) <= max(1e-6, 1e-5 * abs(b))


def time_of(row):
    """Event time of a CSV row in integer milliseconds."""
    text = row.get("timestamp")
    if text is None:
        return round(float(row["ts_s"]) * 1000)
    try:
        return int(text)
    except ValueError:
        moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
        epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
        return (moment - epoch) // datetime.timedelta(milliseconds=1)


def payments(path):
    opened = gzip.open(path, "rt", encoding="utf-8", newline="") if open(path, "rb").read(2) == b"\x1f\x8b" else open(
        path, encoding="utf-8", newline="")
    with opened as file:
        for row in csv.DictReader(file):
            merchant = row["merchant"] if "merchant" in row else row["merchant_id"]
            yield row["user_id"], float(row["amount"]) + 0.0, merchant, time_of(row)


class Mismatches:
    def __init__(self):
        self.count = 0

    def add(self, row, what):
        self.count += 1
        if self.count <= 20:
            print(f"row {row}: {what}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("verdicts")
    parser.add_argument("--csv")
    parser.add_argument("--global-amount-p99", type=float)
    parser.add_argument("--model-from", type=int, default=0, help="column 9 is 0 before this row (no model yet)")
    parser.add_argument("--one-in", type=int, default=1)
    parser.add_argument("--limit", type=int)
    args = parser.parse_args()
    file_rows = payments(args.csv) if args.csv else None
    profiles, wrong, rows, checked = {}, Mismatches(), 0, 0
    with open(args.verdicts, encoding="utf-8") as lines:
        for line in lines:
            if rows == args.limit:
                break
            verdict = json.loads(line)
            user, merchant, t = verdict["user_id"], verdict["merchant"], verdict["event_time"]
            if file_rows is not None:
                said = (user, verdict["amount"], merchant, t)
                wanted = next(file_rows, None)
                if said != wanted:
                    wrong.add(rows, f"the verdict is about {said}, the file has {wanted}")
            rows += 1
            if zlib.crc32(user.encode()) % args.one_in:
                continue
            amount = verdict["fx"]["amount"] if "fx" in verdict else verdict["amount"]
            profile = profiles.get(user)
            if profile is None:
                profile = profiles[user] = Profile()
            p99 = args.global_amount_p99 if rows > args.model_from else None
            want = profile.features(amount, t, merchant, p99)
            got = verdict["features"]
            if len(got) != 10:
                wrong.add(rows - 1, f"{len(got)} features")
            for name, g, w in zip(NAMES, got, want):
                if not close(g, w):
                    wrong.add(rows - 1, f"user {user}, payment {profile.n}: {name} is {g!r}, the reference says {w!r}")
            profile.update(amount, t, merchant)
            checked += 1
    if args.limit is None and file_rows is not None and next(file_rows, None) is not None:
        wrong.add(rows, "the file has more rows than there are verdicts")
    print(f"{rows} verdicts, {checked} checked, {len(profiles)} users, {wrong.count} mismatches")
    return 1 if wrong.count or not checked else 0


if __name__ == "__main__":
    sys.exit(main())
