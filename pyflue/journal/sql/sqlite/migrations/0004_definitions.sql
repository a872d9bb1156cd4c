-- Definitions that come with a request: a run of a dialect's API may bring what it is to run.

-- JSON text or the name of a blob of the run, as the payload; NULL for runs of files. It stands last in the row, and no
-- list of columns has it: only whoever drives the run reads it.
ALTER TABLE runs ADD COLUMN definition TEXT;
