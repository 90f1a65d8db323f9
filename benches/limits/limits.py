#!/usr/bin/env python3
"""Peak memory under load, and the speed of a full restore, of one instance on a real Kafka. Prints one JSON row.

    benches/limits/limits.py --bootstrap 127.0.0.1:9092 [--users 100000] [--payments 1000000] [--changelog 1020000] [--memory 512MiB]

1. `payments` of `users` users wait in a topic of 8 partitions; the instance takes them in; its peak RSS (VmHWM) is read.
2. It stops. The changelog's records are written once more, from the first to the last and over again, until it has `changelog` of them: the
   fold of that is the state that was, so the committed offsets still fit.
3. Its folder is wiped and it starts again: restore time (its own log, monotonic clock), time from exec to all tasks running, peak RSS.
Needs confluent-kafka and numpy (the peers' environment has both: benches/peers/run.sh makes it).
"""
import argparse, json, os, shutil, signal, subprocess, sys, tempfile, time, uuid

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

PARTS = 8
ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument('--bootstrap', required=True)
ap.add_argument('--binary', default='target/release/mangrove')
ap.add_argument('--users', type=int, default=100_000)
ap.add_argument('--payments', type=int, default=1_000_000)
ap.add_argument('--changelog', type=int, default=1_020_000)
ap.add_argument('--memory', default='512MiB')
ap.add_argument('--workers', default='1')
ap.add_argument('--restore-workers', default='', help='default: as --workers')
ap.add_argument('--model', default='', help='a forest; without one verdicts say that there is none')
ap.add_argument('--note', default='')
a = ap.parse_args()
app = f'limits-{uuid.uuid4().hex[:8]}'
work = tempfile.mkdtemp(prefix='limits-')
admin = AdminClient({'bootstrap.servers': a.bootstrap})


def settle(futures):
    for future in futures.values():
        future.result()


def producer():
    return Producer({'bootstrap.servers': a.bootstrap, 'compression.type': 'lz4', 'linger.ms': 20, 'batch.size': 1_000_000,
                     'queue.buffering.max.messages': 200_000, 'partitioner': 'murmur2_random', 'enable.idempotence': True})


def send(p, *args, **kw):
    while True:
        try:
            return p.produce(*args, **kw)
        except BufferError:
            p.poll(0.05)


def watcher(isolation):
    return Consumer({'bootstrap.servers': a.bootstrap, 'group.id': f'{app}-watch', 'enable.auto.commit': False, 'isolation.level': isolation,
                     'enable.partition.eof': True, 'auto.offset.reset': 'error'})


def ends(c, topic):
    return [c.get_watermark_offsets(TopicPartition(topic, n), timeout=20)[1] for n in range(PARTS)]


def lag():
    """Payments not yet covered by the group's offsets."""
    c = Consumer({'bootstrap.servers': a.bootstrap, 'group.id': app, 'enable.auto.commit': False})
    committed = c.committed([TopicPartition(f'{app}-in', n) for n in range(PARTS)], timeout=20)
    left = sum(end - max(at.offset, 0) for end, at in zip(ends(c, f'{app}-in'), committed))
    c.close()
    return left


class Instance:
    def __init__(self, workers):
        self.log = os.path.join(work, f'log-{time.monotonic_ns()}')
        env = {'KAFKA_BOOTSTRAP_SERVERS': a.bootstrap, 'APPLICATION_ID': app, 'TRANSACTIONS_TOPIC': f'{app}-in', 'VERDICTS_TOPIC': f'{app}-out',
               'ANOMALIES_TOPIC': f'{app}-anomalies', 'DEAD_LETTERS_TOPIC': f'{app}-dead', 'COMMANDS_TOPIC': f'{app}-commands',
               'STATE_DIR': f'{work}/state', 'WORKERS': workers, 'MEMORY_LIMIT': a.memory, 'AUTO_TRAIN': 'off', 'LOG_FORMAT': 'json',
               'HTTP_ADDR': '127.0.0.1:0', 'MODEL_PATH': a.model or f'{work}/none', 'INSTANCE_ID': 'limits', 'PATH': os.environ['PATH']}
        env.update({k: v for k, v in os.environ.items() if k.startswith('MALLOC_')})
        self.began = time.monotonic()
        self.p = subprocess.Popen([os.path.abspath(a.binary), 'run'], env=env, cwd=work, stdout=subprocess.DEVNULL, stderr=open(self.log, 'w'))

    def lines(self):
        for line in open(self.log):
            try:
                yield json.loads(line)
            except ValueError:
                pass

    def rss(self, field='VmHWM'):
        line = next(line for line in open(f'/proc/{self.p.pid}/status') if line.startswith(field))
        return int(line.split()[1]) / 1024

    def cpu(self):
        fields = open(f'/proc/{self.p.pid}/stat').read().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def check(self):
        if self.p.poll() is not None:
            sys.exit(f'the instance ended: see {self.log}\n' + open(self.log).read()[-2000:])

    def stop(self):
        self.p.send_signal(signal.SIGTERM)
        self.p.wait(30)


def load():
    r = np.random.default_rng(7)
    weights = np.cumsum(np.arange(1, a.users + 1, dtype=float) ** -0.9)
    users = np.searchsorted(weights / weights[-1], r.random(a.payments)).clip(max=a.users - 1).tolist()
    shops = (r.random(a.payments) ** 2 * 2000).astype(int).tolist()
    amounts = np.exp(3 + 0.8 * r.standard_normal(a.payments)).tolist()
    p = producer()
    for n, (u, m, amount) in enumerate(zip(users, shops, amounts)):
        at = 1_700_000_000_000 + int(n * 86_400_000 / (5 * a.users))
        value = '{"user_id":"u%07d","amount":%.2f,"timestamp":%d,"merchant":"m%04d"}' % (u, amount, at, m)
        send(p, f'{app}-in', value, key='u%07d' % u, timestamp=at)
    p.flush()
    return len(set(users))


def grow_changelog(topic):
    """Writes its records again until there are enough. Returns how many data records there are."""
    c, records, left = watcher('read_committed'), [], PARTS
    c.assign([TopicPartition(topic, n, 0) for n in range(PARTS)])
    while left:
        for m in c.consume(10_000, 1.0):
            if m.error():
                left -= 1
            else:
                records.append((m.partition(), m.key(), m.value()))
    c.close()
    p, missing = producer(), max(a.changelog - len(records), 0)
    # The end of a pass last, so that the last value of each key stays the last one.
    again = records * (missing // len(records)) + records[len(records) - missing % len(records):]
    for part, key, value in again:
        send(p, topic, value, key=key, partition=part)
    p.flush()
    return len(records), len(records) + len(again)


# Payments are of the past: the broker would drop them.
settle(admin.create_topics([NewTopic(f'{app}-in', PARTS, 1, config={'retention.ms': '-1'})]))
row = {'note': a.note, 'users': a.users, 'payments': a.payments, 'memory': a.memory, 'workers': a.workers}
instance = None
try:
    row['users_seen'] = load()
    instance = Instance(a.workers)
    time.sleep(2)
    row['rss_early_mib'] = round(instance.rss('VmRSS'))
    while lag():
        instance.check()
        time.sleep(0.2)
    row.update(load_s=round(time.monotonic() - instance.began, 1), load_cpu_s=round(instance.cpu(), 1), load_peak_rss_mib=round(instance.rss()))
    time.sleep(3)
    row['idle_rss_mib'] = round(instance.rss('VmRSS'))
    instance.stop()
    changelog = f'{app}-profiles-changelog'
    # Compaction in the middle would make another changelog of it.
    row['changelog_written'], row['changelog'] = grow_changelog(changelog)
    shutil.rmtree(f'{work}/state')
    instance = Instance(a.restore_workers or a.workers)
    while sum(line.get('message') == 'task restored and running' for line in instance.lines()) < PARTS:
        instance.check()
        time.sleep(0.02)
    row['exec_to_running_s'] = round(time.monotonic() - instance.began, 2)
    begun = [line['at_s'] for line in instance.lines() if line.get('message') == 'restoring']
    done = [(line['at_s'], line['records']) for line in instance.lines() if line.get('message') == 'task restored and running']
    row['restored'] = sum(records for _, records in done)
    row['restore_s'] = round(max(at for at, _ in done) - min(begun), 2)
    row['restore_rec_s'] = round(row['restored'] / row['restore_s'])
    row.update(restore_cpu_s=round(instance.cpu(), 2), restore_peak_rss_mib=round(instance.rss()))
    instance.stop()
    print(json.dumps(row), flush=True)
finally:
    if instance and instance.p.poll() is None:
        instance.p.kill()
    topics = [t for t in admin.list_topics(timeout=20).topics if t.startswith(app)]
    settle(admin.delete_topics(topics))
    shutil.rmtree(work, ignore_errors=True)
