"""The harness (peers/bench.py, unchanged) with what it does not vary by itself: partitions, a hot key, profiles at their largest.

  growth.py PARTITIONS SHAPE run [the harness's options]

SHAPE: `zipf` is the harness's own load; `hot` gives 30 % of the records to one user; `full` has each user pay at 2,000 merchants of long names, amounts
over twelve decades, so that a profile soon holds all that it may: 64 merchants and some hundred amount buckets.
"""
import argparse, importlib.util, os, sys

import numpy as np

HOT_SHARE = 0.3


def hot(columns):
    def shaped(n, users, seed):
        u, m, a, t = columns(n, users, seed)
        u[np.random.default_rng(seed + 2).random(n) < HOT_SHARE] = 0
        return u, m, a, t
    return shaped


def full(columns):
    def shaped(n, users, seed):
        t, r = columns(n, users, seed)[3], np.random.default_rng(seed + 3)
        return r.integers(0, users, n), r.integers(0, 2_000, n), np.round(10 ** r.uniform(-2, 10, n), 2), t
    return shaped


SHAPES = {"zipf": lambda columns: columns, "hot": hot, "full": full}


def main():
    partitions, shape = int(sys.argv[1]), sys.argv[2]
    spec = importlib.util.spec_from_file_location("bench", os.path.join(os.environ.get("PEERS_DIR", "../shared/peers"), "bench.py"))
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    bench.PARTS = partitions
    bench.make_topics.__defaults__ = bench.murmur2_part.__defaults__ = (partitions,)
    bench.columns = SHAPES[shape](bench.columns)
    if shape == "full":
        bench.TX = bench.TX.replace(b"m%04d", b"a merchant whose name is as long as names on statements are %04d")
    # Topics of the load are named after the seed.
    bench.run(options(sys.argv[4:], seed=10 * partitions + list(SHAPES).index(shape)))


def options(given, seed):
    """The harness's own, with its defaults but for the phases: those that mean something here."""
    parser = argparse.ArgumentParser()
    defaults = dict(bootstrap="", n=1_000_000, users=100_000, seed=seed, name="peer", cmd="", phases="throughput,verify", drop=1.0, limit=600.0,
                    settle=2.0, broker_pid=0, broker_dir="", work="work", out="", extra="", note="")
    for name, default in defaults.items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(default), default=default)
    for flag in ("--eos", "--keep"):
        parser.add_argument(flag, action="store_true")
    chosen = parser.parse_args(given)
    os.makedirs(chosen.work, exist_ok=True)
    return chosen


main()
