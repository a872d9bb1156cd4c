-- Agents: interactions with instances, which are runs with a stream in common, conversations and workspaces.
--
-- The tables that are made anew here were in the schema before anything wrote to them.

-- For interactions the stream of the agent's instance; NULL for the runs of workflows, which have their own.
ALTER TABLE runs ADD COLUMN stream TEXT;

-- Runs of one lane go one after the other. `is_behind` is 1 while an earlier run of the lane has not ended.
ALTER TABLE runs ADD COLUMN lane TEXT;
ALTER TABLE runs ADD COLUMN is_behind INTEGER NOT NULL DEFAULT 0;

CREATE INDEX runs_by_stream ON runs (stream, seq) WHERE stream IS NOT NULL;
CREATE INDEX runs_in_lane ON runs (lane, seq) WHERE finished_at IS NULL AND lane IS NOT NULL;
CREATE INDEX runs_fresh ON runs (seq)
WHERE finished_at IS NULL AND status = 'queued' AND attempt = 0 AND is_behind = 0;

-- The interaction that an event on the stream of an agent's instance comes from: the ULID in its run id.
ALTER TABLE events ADD COLUMN interaction TEXT;
CREATE INDEX events_of_interaction ON events (stream_id, interaction, idx) WHERE interaction IS NOT NULL;

-- The stream of an agent's instance (`agent:<name>:<id>`). `seq` is the order of creation.
DROP TABLE streams;
CREATE TABLE streams (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    stream_id TEXT NOT NULL UNIQUE,
    agent TEXT NOT NULL,
    last_index INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE INDEX streams_by_agent ON streams (agent, seq);

-- One entry of a conversation, recorded with a step of a run. It stands last in its row: it may be large.
DROP TABLE conversation_entries;
CREATE TABLE conversation_entries (
    stream_id TEXT NOT NULL,
    session TEXT NOT NULL,
    position INTEGER NOT NULL,
    run_id TEXT NOT NULL,
    step_key TEXT NOT NULL,
    at INTEGER NOT NULL,
    entry TEXT NOT NULL,
    PRIMARY KEY (stream_id, session, position)
) STRICT, WITHOUT ROWID;

-- What became of a path of a workspace, recorded with a step of a run. `digest` names the content of a file, a blob of
-- the stream (`file:sha256:<hex>`). A run keeps all versions; the stream of an instance the newest of each path.
CREATE TABLE workspace_files (
    stream_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    workspace TEXT NOT NULL,
    path TEXT NOT NULL,
    run_id TEXT NOT NULL,
    step_key TEXT NOT NULL,
    recorded_index INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('file', 'folder', 'link', 'gone')),
    mode INTEGER NOT NULL,
    target TEXT,
    digest TEXT,
    PRIMARY KEY (stream_id, position)
) STRICT, WITHOUT ROWID;

CREATE INDEX workspace_files_by_path ON workspace_files (stream_id, workspace, path, position);
CREATE INDEX workspace_files_by_content ON workspace_files (stream_id, digest) WHERE digest IS NOT NULL;

DROP TABLE dispatches;
