-- Events in the order in which they were written, found by an index. As rows of a tree by stream, those of hundreds of
-- runs side by side were each put into the middle of it, and half of all pages written were for that.
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
