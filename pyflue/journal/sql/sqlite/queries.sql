-- Statements of the SQLite journal, one name and one sentence each. Python calls them by name and binds the values.

-- accept_run --
-- Record a run; with an owner it is running from the first moment, in attempt 1 with one event written.
INSERT INTO runs (
    run_id, workflow, kind, status, owner, attempt, last_index, created_at, started_at, deadline_at,
    workflow_version, tags, parent_run_id, retried_from, forked_from, idempotency_key, request, payload
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- add_tag --
-- Make the newest run findable by a tag.
INSERT OR IGNORE INTO run_tags (tag, seq) VALUES (:tag, :seq);

-- known_key --
-- The run an idempotency key started, and the digest of the request that came with it.
SELECT run_id, request_digest FROM idempotency_keys WHERE key = :key;

-- add_key --
-- Remember an idempotency key.
INSERT INTO idempotency_keys (key, request_digest, run_id, created_at) VALUES (:key, :digest, :run_id, :at);

-- append_event --
-- Add an event to a stream. The writer has just taken the index from the stream's last_index in this transaction: no gaps.
INSERT INTO events (stream_id, idx, type, at, data) VALUES (?, ?, ?, ?, ?);

-- take_indexes --
-- Move a run's last_index forward, if the fence still holds.
UPDATE runs SET last_index = last_index + ?1
WHERE run_id = ?2 AND owner = ?3 AND attempt = ?4 AND finished_at IS NULL
RETURNING last_index;

-- finish_run --
-- Make a run final, if the fence still holds. A cancellation that was requested before wins over every other outcome.
UPDATE runs SET
    status = iif(cancel_requested_at IS NULL, ?1, 'cancelled'),
    result = iif(cancel_requested_at IS NULL, ?2, NULL),
    error = iif(cancel_requested_at IS NULL, ?3, NULL),
    finished_at = max(?4, coalesce(started_at, created_at)),
    last_index = last_index + 1
WHERE run_id = ?5 AND owner = ?6 AND attempt = ?7 AND finished_at IS NULL
RETURNING last_index, status;

-- release_run --
-- Queue a run again that its engine gives up in good order.
UPDATE runs SET status = 'queued', owner = NULL
WHERE run_id = :run_id AND owner = :owner AND attempt = :attempt AND finished_at IS NULL
RETURNING cancel_requested_at;

-- queued_runs --
-- The oldest runs that nobody drives (and that crashed fewer than :max_crashes times, unless that is NULL).
SELECT run_id FROM runs
WHERE finished_at IS NULL AND status = 'queued' AND (:max_crashes IS NULL OR crashes < :max_crashes)
ORDER BY seq LIMIT :limit;

-- claim_run --
-- Start a queued run as its owner.
UPDATE runs SET
    status = 'running', owner = :owner, attempt = attempt + 1, started_at = coalesce(started_at, max(:at, created_at)),
    last_index = last_index + 1
WHERE run_id = :run_id AND finished_at IS NULL AND status = 'queued'
RETURNING last_index;

-- requeue_run --
-- Take a run from a fence whose engine has died, or has lost the run's task, and queue it.
UPDATE runs SET status = 'queued', owner = NULL, crashes = crashes + iif(:crashed AND status = 'running', 1, 0)
WHERE run_id = :run_id AND owner = :owner AND attempt = :attempt AND finished_at IS NULL
RETURNING cancel_requested_at;

-- request_cancel --
-- Mark a run that has an owner as to be ended.
UPDATE runs SET cancel_requested_at = :at
WHERE run_id = :run_id AND finished_at IS NULL AND status <> 'queued' AND cancel_requested_at IS NULL;

-- finish_queued_run --
-- Make a run final that nobody drives.
UPDATE runs SET
    status = :status, error = :error, finished_at = max(:at, coalesce(started_at, created_at)),
    last_index = last_index + 1
WHERE run_id = :run_id AND finished_at IS NULL AND status = 'queued'
RETURNING last_index;

-- cancel_requests --
-- An engine's runs that somebody asked to end.
SELECT run_id FROM runs
WHERE finished_at IS NULL AND status IN ('running', 'waiting') AND owner = :owner AND cancel_requested_at IS NOT NULL;

-- suspects --
-- Queued runs that crashed so often that they have to be tried apart.
SELECT run_id FROM runs
WHERE finished_at IS NULL AND crashes >= 2 AND crashes >= :crashes AND status = 'queued' ORDER BY seq;

-- run --
-- One run with everything.
SELECT
    seq, run_id, workflow, kind, status, owner, attempt, last_index, crashes, created_at, started_at, finished_at,
    deadline_at, cancel_requested_at, workflow_version, tags, parent_run_id, retried_from, forked_from,
    idempotency_key, usage, error, request, payload, result
FROM runs WHERE run_id = :run_id;

-- run_head --
-- One run without its values.
SELECT
    seq, run_id, workflow, kind, status, owner, attempt, last_index, crashes, created_at, started_at, finished_at,
    deadline_at, cancel_requested_at, workflow_version, tags, parent_run_id, retried_from, forked_from,
    idempotency_key, usage, error
FROM runs WHERE run_id = :run_id;

-- runs --
-- Runs, newest first; a NULL filter lets everything pass.
SELECT
    seq, run_id, workflow, kind, status, owner, attempt, last_index, crashes, created_at, started_at, finished_at,
    deadline_at, cancel_requested_at, workflow_version, tags, parent_run_id, retried_from, forked_from,
    idempotency_key, usage, error
FROM runs
WHERE seq < :before /*filters*/
ORDER BY seq DESC LIMIT :limit;

-- unfinished_runs --
-- Runs that somebody drives, oldest first.
SELECT
    seq, run_id, workflow, kind, status, owner, attempt, last_index, crashes, created_at, started_at, finished_at,
    deadline_at, cancel_requested_at, workflow_version, tags, parent_run_id, retried_from, forked_from,
    idempotency_key, usage, error
FROM runs
WHERE finished_at IS NULL AND status IN ('running', 'waiting') AND (:owner IS NULL OR owner = :owner)
ORDER BY seq;

-- owners --
-- The engines that own unfinished runs.
SELECT DISTINCT owner FROM runs WHERE finished_at IS NULL AND status IN ('running', 'waiting');

-- count_queued --
-- How many runs nobody drives yet.
SELECT count(*) FROM runs WHERE finished_at IS NULL AND status = 'queued';

-- has_queued --
-- Whether there is a run that nobody drives (and that crashed fewer than :max_crashes times, unless that is NULL).
SELECT EXISTS (
    SELECT 1 FROM runs
    WHERE finished_at IS NULL AND status = 'queued' AND (:max_crashes IS NULL OR crashes < :max_crashes)
);

-- expired_queued --
-- Runs that nobody drives and whose deadline has passed.
SELECT run_id, deadline_at FROM runs
WHERE finished_at IS NULL AND deadline_at IS NOT NULL AND deadline_at <= :now AND status = 'queued';

-- events --
-- Events of a stream above an index.
SELECT stream_id, idx, type, at, data FROM events WHERE stream_id = ? AND idx > ? ORDER BY idx LIMIT ?;

-- events_of_types --
-- Events of a stream above an index, of some types (a JSON list) only.
SELECT stream_id, idx, type, at, data FROM events
WHERE stream_id = ? AND idx > ? AND type IN (SELECT value FROM json_each(?)) ORDER BY idx LIMIT ?;

-- index_before --
-- The index before a stream's first event at or after a time.
SELECT coalesce(
    (SELECT idx - 1 FROM events WHERE stream_id = :stream_id AND at >= :since ORDER BY idx LIMIT 1),
    (SELECT max(idx) FROM events WHERE stream_id = :stream_id),
    0
);

-- put_blob --
-- Keep a large value of a stream under the name of its content.
INSERT OR IGNORE INTO blobs (stream_id, digest, data) VALUES (:stream_id, :digest, :data);

-- blob --
-- A large value of a stream.
SELECT data FROM blobs WHERE stream_id = :stream_id AND digest = :digest;

-- delete_run --
-- Remove a final run's row (its tags go with it).
DELETE FROM runs WHERE run_id = :run_id AND finished_at IS NOT NULL RETURNING seq;

-- delete_events --
-- Remove the events of a deleted run.
DELETE FROM events WHERE stream_id = :run_id;

-- delete_steps --
-- Remove the steps of a deleted run.
DELETE FROM steps WHERE run_id = :run_id;

-- delete_waits --
-- Remove the waits of a deleted run.
DELETE FROM waits WHERE run_id = :run_id;

-- delete_signals --
-- Remove the signals of a deleted run.
DELETE FROM signals WHERE run_id = :run_id;

-- delete_blobs --
-- Remove the large values of a deleted run.
DELETE FROM blobs WHERE stream_id = :run_id;

-- delete_entries --
-- Remove the conversations of a deleted run.
DELETE FROM conversation_entries WHERE stream_id = :run_id;

-- finished_before --
-- Runs that ended before a time.
SELECT run_id FROM runs WHERE finished_at IS NOT NULL AND finished_at < :before ORDER BY finished_at LIMIT :limit;

-- delete_key --
-- Remove the idempotency key that started a run.
DELETE FROM idempotency_keys
WHERE run_id = :run_id AND key = (SELECT idempotency_key FROM runs WHERE run_id = :run_id);

-- forget_keys --
-- Forget idempotency keys whose time is over.
DELETE FROM idempotency_keys WHERE created_at < :before;
