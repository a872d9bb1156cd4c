-- Events, steps and entries of conversations in the order in which they were written, found by an index. As rows of
-- trees by stream or run, those of hundreds of runs side by side were each put into the middle of it, and more than half
-- of all pages written were for that.
CREATE TABLE events_in_order (
    seq INTEGER PRIMARY KEY,
    stream_id TEXT NOT NULL,
    idx INTEGER NOT NULL,
    type TEXT NOT NULL,
    at INTEGER NOT NULL,
    step TEXT,
    interaction TEXT,
    data TEXT NOT NULL
) STRICT;

INSERT INTO events_in_order (stream_id, idx, type, at, step, interaction, data)
SELECT stream_id, idx, type, at, step, interaction, data FROM events ORDER BY at;

DROP TABLE events;
ALTER TABLE events_in_order RENAME TO events;

CREATE UNIQUE INDEX events_of_stream ON events (stream_id, idx);
CREATE INDEX events_of_interaction ON events (stream_id, interaction, idx) WHERE interaction IS NOT NULL;

CREATE TABLE steps_in_order (
    seq INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL,
    key TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    position INTEGER NOT NULL,
    input_digest TEXT,
    status TEXT NOT NULL,
    value TEXT,
    error TEXT,
    attempts INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    finished_at INTEGER,
    started_index INTEGER NOT NULL DEFAULT 0,
    recorded_index INTEGER NOT NULL DEFAULT 0
) STRICT;

INSERT INTO steps_in_order (
    run_id, key, kind, name, position, input_digest, status, value, error, attempts, started_at, finished_at,
    started_index, recorded_index
)
SELECT
    run_id, key, kind, name, position, input_digest, status, value, error, attempts, started_at, finished_at,
    started_index, recorded_index
FROM steps ORDER BY started_at;

DROP TABLE steps;
ALTER TABLE steps_in_order RENAME TO steps;

CREATE UNIQUE INDEX steps_of_run ON steps (run_id, key);

CREATE TABLE entries_in_order (
    seq INTEGER PRIMARY KEY,
    stream_id TEXT NOT NULL,
    session TEXT NOT NULL,
    position INTEGER NOT NULL,
    run_id TEXT NOT NULL,
    step_key TEXT NOT NULL,
    at INTEGER NOT NULL,
    entry TEXT NOT NULL
) STRICT;

INSERT INTO entries_in_order (stream_id, session, position, run_id, step_key, at, entry)
SELECT stream_id, session, position, run_id, step_key, at, entry FROM conversation_entries ORDER BY at;

DROP TABLE conversation_entries;
ALTER TABLE entries_in_order RENAME TO conversation_entries;

CREATE UNIQUE INDEX entries_of_session ON conversation_entries (stream_id, session, position);
