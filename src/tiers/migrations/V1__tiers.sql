-- The cold tier. docs/tiers.md says who writes and who reads what. Text is compared byte by byte (COLLATE "C"): keys are ids, and a
-- byte comparison is several times faster than a language's.

-- How far each topic's partition has come in: written in the transaction of the rows, so rows and progress are never apart.
CREATE TABLE projection (
    topic       text COLLATE "C" NOT NULL,
    partition   integer NOT NULL,
    generation  bigint NOT NULL,
    next_offset bigint NOT NULL,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition)
);

-- The newest profile of each user; (generation, changelog_offset) is its guard. Without a value it is a tombstone, kept 30 days.
-- No column that changes is indexed, so that an update touches no index.
CREATE TABLE profiles (
    user_id          text COLLATE "C" PRIMARY KEY,
    partition        integer NOT NULL,
    generation       bigint NOT NULL,
    changelog_offset bigint NOT NULL,
    updated_at       timestamptz NOT NULL,
    value            bytea,
    profile          json
) WITH (fillfactor = 70);
ALTER TABLE profiles ALTER COLUMN value SET STORAGE MAIN;
CREATE INDEX profiles_deleted ON profiles (updated_at) WHERE value IS NULL;

-- Each payment with the features it was scored with, and its verdict. `id` is topic:partition:offset of the payment's record. A
-- unique key of a partitioned table holds what it is partitioned by; the event time is part of the verdict, so the same id always
-- comes with the same one.
CREATE TABLE verdicts (
    id          text COLLATE "C" NOT NULL,
    event_time  timestamptz NOT NULL,
    tx_id       text COLLATE "C" NOT NULL,
    user_id     text COLLATE "C" NOT NULL,
    merchant    text COLLATE "C" NOT NULL,
    amount      double precision NOT NULL,
    currency    text COLLATE "C",
    fx          json,
    score       double precision,
    raw_score   double precision,
    severity    smallint NOT NULL, -- 0 NONE, 1 LOW, 2 MEDIUM, 3 HIGH, 4 CRITICAL
    is_anomaly  boolean NOT NULL,
    explanation text NOT NULL,
    reasons     json,              -- null where none were given
    features    real[] NOT NULL,   -- the f32 values that the forest got
    model_id    text COLLATE "C",
    PRIMARY KEY (id, event_time)
) PARTITION BY RANGE (event_time);
CREATE INDEX verdicts_time ON verdicts (event_time);
CREATE INDEX verdicts_user_time ON verdicts (user_id, event_time);
CREATE INDEX verdicts_merchant_time ON verdicts (merchant, event_time);
CREATE INDEX verdicts_model_time ON verdicts (model_id, event_time);
CREATE INDEX verdicts_anomalies_time ON verdicts (event_time) WHERE is_anomaly;

CREATE VIEW transactions AS
    SELECT id, event_time, tx_id, user_id, merchant, amount, currency, fx, features FROM verdicts;

-- What people found out. `id` is topic:partition:offset of the label's record; a later label on the same payment supersedes.
CREATE TABLE labels (
    id         text COLLATE "C" PRIMARY KEY,
    verdict_id text COLLATE "C",
    user_id    text COLLATE "C",
    tx_id      text COLLATE "C",
    label      text NOT NULL CHECK (label IN ('fraud', 'legitimate')),
    labelled_by text,
    labelled_at timestamptz NOT NULL,
    CHECK (verdict_id IS NOT NULL OR (user_id IS NOT NULL AND tx_id IS NOT NULL))
);
CREATE INDEX labels_verdict ON labels (verdict_id) WHERE verdict_id IS NOT NULL;
CREATE INDEX labels_user ON labels (user_id, tx_id) WHERE user_id IS NOT NULL;
CREATE INDEX labels_time ON labels (labelled_at);

CREATE TABLE models (
    model_id   text COLLATE "C" PRIMARY KEY,
    created_at timestamptz NOT NULL,
    document   json NOT NULL
);

CREATE TABLE notifications (
    id       text COLLATE "C" PRIMARY KEY,
    at       timestamptz NOT NULL,
    channel  text NOT NULL,
    outcome  text NOT NULL,
    document json NOT NULL
);
CREATE INDEX notifications_time ON notifications (at);

-- Who did what. Users appear by their keyed hash only.
CREATE TABLE audit (
    id       text COLLATE "C" PRIMARY KEY,
    at       timestamptz NOT NULL,
    actor    text NOT NULL,
    action   text NOT NULL,
    subject  text,
    outcome  text NOT NULL,
    document json NOT NULL
);
CREATE INDEX audit_time ON audit (at);
