-- Who was erased, and up to which payment: what is projected again leaves their rows out. No id is in it, only its SHA-256.
CREATE TABLE erasures (
    user_key  bytea PRIMARY KEY,
    topic     text COLLATE "C" NOT NULL, -- `after` is an offset of this topic
    partition integer NOT NULL,
    after     bigint NOT NULL,           -- payments before this offset are gone
    erased_at timestamptz NOT NULL
);

-- When the label's record was written, which is not when somebody says to have found it out.
ALTER TABLE labels ADD COLUMN written_at timestamptz;
