-- The first schema. Files of this folder are numbered and never edited once released: changes are new files.
--
-- Times are microseconds since 1970-01-01 UTC. JSON columns hold compact JSON text; a payload or result longer than
-- 2 KiB is kept as a blob and its column holds the blob's name, `sha256:<hex>` (which no JSON text can start with).

-- One invocation of a workflow. The row is also the head of the run's stream of events (`last_index`), and names who
-- may write for it (`owner`, `attempt`). `seq` is the order of acceptance.
CREATE TABLE runs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL UNIQUE,
    workflow TEXT NOT NULL,
    kind TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('queued', 'running', 'waiting', 'completed', 'failed', 'cancelled')),
    owner TEXT,
    attempt INTEGER NOT NULL,
    last_index INTEGER NOT NULL,
    crashes INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER,
    deadline_at INTEGER,
    cancel_requested_at INTEGER,
    workflow_version TEXT NOT NULL,
    tags TEXT NOT NULL,
    parent_run_id TEXT,
    retried_from TEXT,
    forked_from TEXT,
    idempotency_key TEXT,
    usage TEXT,
    error TEXT,
    request TEXT,
    payload TEXT NOT NULL,
    result TEXT
) STRICT;

CREATE INDEX runs_by_workflow ON runs (workflow, seq);
CREATE INDEX runs_by_parent ON runs (parent_run_id, seq) WHERE parent_run_id IS NOT NULL;
CREATE INDEX runs_unfinished ON runs (status, seq) WHERE finished_at IS NULL;
CREATE INDEX runs_suspect ON runs (crashes) WHERE finished_at IS NULL AND crashes >= 2;
CREATE INDEX runs_by_deadline ON runs (deadline_at) WHERE finished_at IS NULL AND deadline_at IS NOT NULL;
CREATE INDEX runs_ended_badly ON runs (status, seq) WHERE status IN ('failed', 'cancelled');
CREATE INDEX runs_by_end ON runs (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE run_tags (
    tag TEXT NOT NULL,
    seq INTEGER NOT NULL REFERENCES runs (seq) ON DELETE CASCADE,
    PRIMARY KEY (tag, seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX run_tags_by_run ON run_tags (seq);

-- A stream that is not a run: a continuing agent's instance (`agent:<name>:<id>`).
CREATE TABLE streams (
    stream_id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    owner TEXT,
    attempt INTEGER NOT NULL,
    last_index INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One numbered fact of a stream; `idx` is 1, 2, 3 … without gaps.
CREATE TABLE events (
    stream_id TEXT NOT NULL,
    idx INTEGER NOT NULL,
    type TEXT NOT NULL,
    at INTEGER NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (stream_id, idx)
) STRICT, WITHOUT ROWID;

-- A durable call of a run and what came of it. At most one row per key.
CREATE TABLE steps (
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
    PRIMARY KEY (run_id, key)
) STRICT, WITHOUT ROWID;

-- Something a run is parked on.
CREATE TABLE waits (
    run_id TEXT NOT NULL,
    key TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('timer', 'signal', 'approval', 'child')),
    name TEXT NOT NULL,
    request TEXT,
    digest TEXT,
    due_at INTEGER,
    state TEXT NOT NULL CHECK (state IN ('open', 'answered', 'expired', 'cancelled')),
    answer TEXT,
    created_at INTEGER NOT NULL,
    answered_at INTEGER,
    PRIMARY KEY (run_id, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX waits_open ON waits (kind, due_at) WHERE state = 'open';

-- A signal sent to a run; kept until a wait consumes it.
CREATE TABLE signals (
    run_id TEXT NOT NULL,
    signal_id TEXT NOT NULL,
    name TEXT NOT NULL,
    data TEXT NOT NULL,
    at INTEGER NOT NULL,
    consumed_by TEXT,
    PRIMARY KEY (run_id, signal_id)
) STRICT, WITHOUT ROWID;

-- A large value, named by its content within its stream, so that it is deleted with it.
CREATE TABLE blobs (
    stream_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (stream_id, digest)
) STRICT;

-- One entry of a conversation, in the provider's content blocks.
CREATE TABLE conversation_entries (
    stream_id TEXT NOT NULL,
    session TEXT NOT NULL,
    position INTEGER NOT NULL,
    step_key TEXT,
    entry TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (stream_id, session, position)
) STRICT, WITHOUT ROWID;

-- Input handed to a continuing agent, with its receipt and result.
CREATE TABLE dispatches (
    dispatch_id TEXT PRIMARY KEY,
    stream_id TEXT NOT NULL,
    session TEXT NOT NULL,
    status TEXT NOT NULL,
    owner TEXT,
    attempt INTEGER NOT NULL,
    input TEXT NOT NULL,
    result TEXT,
    error TEXT,
    created_at INTEGER NOT NULL,
    finished_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX dispatches_unfinished ON dispatches (stream_id, created_at) WHERE finished_at IS NULL;

-- A request that must not start work twice.
CREATE TABLE idempotency_keys (
    key TEXT PRIMARY KEY,
    request_digest TEXT NOT NULL,
    run_id TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
