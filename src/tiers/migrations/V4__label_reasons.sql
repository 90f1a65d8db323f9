-- Why somebody says so, for people.
ALTER TABLE labels ADD COLUMN reason text;
