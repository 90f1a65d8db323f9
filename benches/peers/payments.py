"""Payments of the harness's load (bench.py `columns`) with 2,000 users, as CSV: what the model of the comparison is trained on."""
import sys

import numpy as np


def zipf_cdf(n, s=0.9):
    w = np.arange(1, n + 1, dtype=float) ** -s
    return np.cumsum(w / w.sum())


n, users = int(sys.argv[1]), 2000
r = np.random.default_rng(7)
u = np.searchsorted(zipf_cdf(users), r.random(n)).clip(max=users - 1)
m = np.searchsorted(zipf_cdf(2000), r.random(n)).clip(max=1999)
mu = 3 + 0.7 * r.standard_normal(users)
a = np.round(np.exp(mu[u] + 0.8 * r.standard_normal(n)), 2)
t = 1_700_000_000_000 + (np.arange(n) * (86_400_000 / (5 * users))).astype(np.int64)
print('timestamp,user_id,merchant,amount')
for row in zip(t.tolist(), u.tolist(), m.tolist(), a.tolist()):
    print('%d,u%07d,m%04d,%.2f' % row)
