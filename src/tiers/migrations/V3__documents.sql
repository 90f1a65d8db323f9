-- Rows that later records change hold the place of the last one, as profiles do: (generation, record_offset) is their guard.
ALTER TABLE models
    ADD COLUMN generation bigint NOT NULL DEFAULT 0,
    ADD COLUMN record_offset bigint NOT NULL DEFAULT 0,
    ADD COLUMN removed_at timestamptz; -- the registry let it go
ALTER TABLE notifications
    ADD COLUMN generation bigint NOT NULL DEFAULT 0,
    ADD COLUMN record_offset bigint NOT NULL DEFAULT 0,
    ADD COLUMN ended_at timestamptz;   -- it arrived, or was forgotten

-- Where no token is asked for there is no actor.
ALTER TABLE audit ALTER COLUMN actor DROP NOT NULL;
