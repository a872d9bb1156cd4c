-- Statements of the SQLite journal, one name and one sentence each. Python calls them by name and binds the values.

-- accept_run --
-- Record a run; with an owner it is running from the first moment, in attempt 1 with one event written.
INSERT INTO runs (
    run_id, workflow, kind, status, owner, attempt, last_index, created_at, started_at, deadline_at,
    workflow_version, tags, parent_run_id, retried_from, forked_from, idempotency_key, request, payload,
    depth, stream, lane, is_behind, definition
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- head_of_lane --
-- The oldest run of a lane that has not ended.
SELECT run_id FROM runs WHERE finished_at IS NULL AND lane = :lane ORDER BY seq LIMIT 1;

-- move_lane --
-- Let the oldest run of a lane that has not ended be claimed, if it was behind another one.
UPDATE runs SET is_behind = 0
WHERE
    is_behind = 1
    AND seq = (SELECT seq FROM runs AS next WHERE finished_at IS NULL AND lane = :lane ORDER BY seq LIMIT 1)
RETURNING run_id;

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
INSERT INTO events (stream_id, idx, type, at, data, step, interaction) VALUES /*row*/(?, ?, ?, ?, ?, ?, ?)/*end*/;

-- add_stream --
-- Make the stream of an agent's instance, unless it is there.
INSERT INTO streams (stream_id, agent, last_index, created_at, updated_at) VALUES (:stream_id, :agent, 0, :at, :at)
ON CONFLICT (stream_id) DO NOTHING;

-- take_stream_indexes --
-- Move the last_index of an instance's stream forward.
UPDATE streams SET last_index = last_index + ?1, updated_at = max(updated_at, ?2) WHERE stream_id = ?3
RETURNING last_index;

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
    last_index = last_index + ?5
WHERE run_id = ?6 AND owner = ?7 AND attempt = ?8 AND finished_at IS NULL
RETURNING
    last_index, status, parent_run_id, EXISTS (SELECT 1 FROM waits WHERE waits.run_id = ?6 AND waits.state = 'open'),
    lane;

-- finish_queued_run --
-- Make a run final that nobody drives.
UPDATE runs SET
    status = ?1, error = ?2, finished_at = max(?3, coalesce(started_at, created_at)), last_index = last_index + 1
WHERE run_id = ?4 AND finished_at IS NULL AND owner IS NULL
RETURNING
    last_index, parent_run_id, EXISTS (SELECT 1 FROM waits WHERE waits.run_id = ?4 AND waits.state = 'open'), lane;

-- release_run --
-- Take a run from its owner that gives it up in good order: it is queued again, or stays waiting.
UPDATE runs SET
    status = iif(status = 'waiting', 'waiting', 'queued'), owner = NULL,
    interrupted = iif(status = 'running', 1, interrupted)
WHERE run_id = :run_id AND owner = :owner AND attempt = :attempt AND finished_at IS NULL
RETURNING cancel_requested_at;

-- resumed_runs --
-- The oldest queued runs that were begun before (and crashed fewer than :max_crashes times, unless that is NULL).
SELECT run_id FROM runs INDEXED BY runs_resumed
WHERE
    finished_at IS NULL AND status = 'queued' AND attempt > 0 AND (:max_crashes IS NULL OR crashes < :max_crashes)
ORDER BY seq LIMIT :limit;

-- fresh_runs --
-- The oldest queued runs that were never begun and are not behind another one of their lane (and crashed fewer than
-- :max_crashes times, unless that is NULL).
SELECT run_id FROM runs INDEXED BY runs_fresh
WHERE
    finished_at IS NULL AND status = 'queued' AND attempt = 0 AND is_behind = 0
    AND (:max_crashes IS NULL OR crashes < :max_crashes)
ORDER BY seq LIMIT :limit;

-- claim_run --
-- Start a queued run as its owner, unless it is behind another one of its lane.
UPDATE runs SET
    status = 'running', owner = :owner, attempt = attempt + 1, started_at = coalesce(started_at, max(:at, created_at)),
    last_index = last_index + 1
WHERE run_id = :run_id AND finished_at IS NULL AND status = 'queued' AND is_behind = 0
RETURNING last_index;

-- requeue_run --
-- Take a run from a fence whose engine has died, or has lost the run's task: it is queued again, or stays waiting.
UPDATE runs SET
    status = iif(status = 'waiting', 'waiting', 'queued'), owner = NULL,
    crashes = crashes + iif(:crashed AND status = 'running', 1, 0),
    interrupted = iif(status = 'running', 1, interrupted)
WHERE run_id = :run_id AND owner = :owner AND attempt = :attempt AND finished_at IS NULL
RETURNING cancel_requested_at;

-- disown_runs --
-- Let all waiting runs of an engine belong to nobody.
UPDATE runs SET owner = NULL WHERE finished_at IS NULL AND status = 'waiting' AND owner = :owner;

-- waiting_to_cancel --
-- An engine's waiting runs that somebody asked to end.
SELECT run_id FROM runs
WHERE finished_at IS NULL AND status = 'waiting' AND owner = :owner AND cancel_requested_at IS NOT NULL;

-- request_cancel --
-- Mark a run that has an owner as to be ended.
UPDATE runs SET cancel_requested_at = :at
WHERE run_id = :run_id AND finished_at IS NULL AND owner IS NOT NULL AND cancel_requested_at IS NULL;

-- runs_below --
-- The runs that a run started, and those that they started, that are not final; those further up first.
WITH RECURSIVE below (run_id, finished_at, depth) AS (
    SELECT run_id, finished_at, 1 FROM runs WHERE parent_run_id = :run_id
    UNION ALL
    SELECT runs.run_id, runs.finished_at, below.depth + 1
    FROM below CROSS JOIN runs ON runs.parent_run_id = below.run_id
)
SELECT run_id FROM below WHERE finished_at IS NULL ORDER BY depth;

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
    seq, run_id, workflow, kind, status, owner, attempt, last_index, crashes, interrupted, depth, created_at, started_at,
    finished_at, deadline_at, cancel_requested_at, workflow_version, tags, parent_run_id, retried_from,
    forked_from, idempotency_key, usage, error, request, payload, result
FROM runs WHERE run_id = :run_id;

-- definition --
-- The definition that came with the request for a run.
SELECT definition FROM runs WHERE run_id = :run_id;

-- run_head --
-- One run without its values.
SELECT
    seq, run_id, workflow, kind, status, owner, attempt, last_index, crashes, interrupted, depth, created_at, started_at,
    finished_at, deadline_at, cancel_requested_at, workflow_version, tags, parent_run_id, retried_from,
    forked_from, idempotency_key, usage, error
FROM runs WHERE run_id = :run_id;

-- runs --
-- Runs of workflows, newest first.
SELECT
    seq, run_id, workflow, kind, status, owner, attempt, last_index, crashes, interrupted, depth, created_at, started_at,
    finished_at, deadline_at, cancel_requested_at, workflow_version, tags, parent_run_id, retried_from,
    forked_from, idempotency_key, usage, error
FROM runs
WHERE seq < :before AND stream IS NULL /*filters*/
ORDER BY seq DESC LIMIT :limit;

-- interactions --
-- The interactions with an agent's instance, newest first.
SELECT
    seq, run_id, workflow, kind, status, owner, attempt, last_index, crashes, interrupted, depth, created_at, started_at,
    finished_at, deadline_at, cancel_requested_at, workflow_version, tags, parent_run_id, retried_from,
    forked_from, idempotency_key, usage, error
FROM runs
WHERE stream = :stream_id AND seq < :before
ORDER BY seq DESC LIMIT :limit;

-- unfinished_runs --
-- Runs that somebody drives, oldest first.
SELECT
    seq, run_id, workflow, kind, status, owner, attempt, last_index, crashes, interrupted, depth, created_at, started_at,
    finished_at, deadline_at, cancel_requested_at, workflow_version, tags, parent_run_id, retried_from,
    forked_from, idempotency_key, usage, error
FROM runs
WHERE finished_at IS NULL AND status IN ('running', 'waiting') AND (:owner IS NULL OR owner = :owner)
ORDER BY seq;

-- lost_runs --
-- Running runs of some owners (a JSON list), oldest first.
SELECT
    seq, run_id, workflow, kind, status, owner, attempt, last_index, crashes, interrupted, depth, created_at, started_at,
    finished_at, deadline_at, cancel_requested_at, workflow_version, tags, parent_run_id, retried_from,
    forked_from, idempotency_key, usage, error
FROM runs
WHERE finished_at IS NULL AND status = 'running' AND owner IN (SELECT value FROM json_each(:owners))
ORDER BY seq;

-- count_unfinished --
-- How many runs an engine drives or keeps waiting.
SELECT count(*) FROM runs WHERE finished_at IS NULL AND status IN ('running', 'waiting') AND owner = :owner;

-- owners_of_running --
-- The engines that own running runs.
SELECT DISTINCT owner FROM runs WHERE finished_at IS NULL AND status = 'running';

-- owners_of_waiting --
-- The engines that own waiting runs.
SELECT DISTINCT owner FROM runs INDEXED BY runs_waiting
WHERE finished_at IS NULL AND status = 'waiting' AND owner IS NOT NULL;

-- count_queued --
-- How many runs nobody drives yet.
SELECT count(*) FROM runs WHERE finished_at IS NULL AND status = 'queued';

-- has_queued --
-- Whether there is a run to claim (that crashed fewer than :max_crashes times, unless that is NULL).
SELECT EXISTS (
    SELECT 1 FROM runs INDEXED BY runs_fresh
    WHERE
        finished_at IS NULL AND status = 'queued' AND attempt = 0 AND is_behind = 0
        AND (:max_crashes IS NULL OR crashes < :max_crashes)
) OR EXISTS (
    SELECT 1 FROM runs INDEXED BY runs_resumed
    WHERE
        finished_at IS NULL AND status = 'queued' AND attempt > 0
        AND (:max_crashes IS NULL OR crashes < :max_crashes)
);

-- expired_unowned --
-- Runs that nobody drives and whose deadline has passed.
SELECT run_id, deadline_at FROM runs
WHERE finished_at IS NULL AND deadline_at IS NOT NULL AND deadline_at <= :now AND owner IS NULL;

-- events --
-- Events of a stream above an index.
SELECT stream_id, idx, type, at, data, step, interaction FROM events
WHERE stream_id = ? AND idx > ? ORDER BY idx LIMIT ?;

-- events_of_types --
-- Events of a stream above an index, of some types (a JSON list) only.
SELECT stream_id, idx, type, at, data, step, interaction FROM events
WHERE stream_id = ? AND idx > ? AND type IN (SELECT value FROM json_each(?)) ORDER BY idx LIMIT ?;

-- events_of_interaction --
-- Events of one interaction above an index of its stream (of some types only, unless that is NULL).
SELECT stream_id, idx, type, at, data, step, interaction FROM events INDEXED BY events_of_interaction
WHERE
    stream_id = ?1 AND interaction = ?2 AND idx > ?3 AND (?4 IS NULL OR type IN (SELECT value FROM json_each(?4)))
ORDER BY idx LIMIT ?5;

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
-- Remove the events of a run.
DELETE FROM events WHERE stream_id = :run_id;

-- delete_steps --
-- Remove the steps of a run.
DELETE FROM steps WHERE run_id = :run_id;

-- delete_waits --
-- Remove the waits of a run.
DELETE FROM waits WHERE run_id = :run_id;

-- delete_signals --
-- Remove the signals of a run.
DELETE FROM signals WHERE run_id = :run_id;

-- delete_blobs --
-- Remove the large values of a deleted run.
DELETE FROM blobs WHERE stream_id = :run_id;

-- delete_entries --
-- Remove the conversations of a deleted run.
DELETE FROM conversation_entries WHERE stream_id = :run_id;

-- delete_files --
-- Remove the workspaces of a deleted run.
DELETE FROM workspace_files WHERE stream_id = :run_id;

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

-- record_progress --
-- Move a running run's last_index forward, if the fence still holds and nothing else about the run has to change.
UPDATE runs SET last_index = last_index + ?1
WHERE
    run_id = ?2 AND owner = ?3 AND attempt = ?4 AND finished_at IS NULL AND status = 'running' AND crashes = 0
RETURNING last_index, seq;

-- write_heads --
-- Write how far running runs are, and what they have used (NULL: as before).
UPDATE runs SET last_index = head.column2, usage = coalesce(head.column3, runs.usage)
FROM (VALUES /*row*/(?, ?, ?)/*end*/) AS head
WHERE runs.seq = head.column1;

-- record_first_progress --
-- The same for a run that was waiting or has crashed: it runs, and its crashes are forgotten.
UPDATE runs SET last_index = last_index + ?1, status = 'running', crashes = 0
WHERE run_id = ?2 AND owner = ?3 AND attempt = ?4 AND finished_at IS NULL
RETURNING last_index, seq;

-- keep_running --
-- Make sure that a run is running, if the fence still holds.
UPDATE runs SET status = 'running', interrupted = 0
WHERE run_id = ?1 AND owner = ?2 AND attempt = ?3 AND finished_at IS NULL
RETURNING last_index;

-- park_run --
-- Make a running run wait, if the fence still holds and it has exactly so many open waits.
UPDATE runs SET status = 'waiting', interrupted = 0, last_index = last_index + 1
WHERE
    run_id = ?1 AND owner = ?2 AND attempt = ?3 AND finished_at IS NULL AND status = 'running'
    AND (SELECT count(*) FROM waits WHERE waits.run_id = ?1 AND waits.state = 'open') = ?4
RETURNING last_index;

-- add_to_stream --
-- Move a run's last_index forward for events that are not its owner's.
UPDATE runs SET last_index = last_index + ?1 WHERE run_id = ?2 AND finished_at IS NULL RETURNING last_index;

-- wake_run --
-- The same because one of the run's waits has ended: its owner goes on, or if it has none, an engine will claim it.
UPDATE runs SET
    last_index = last_index + ?1, crashes = 0,
    status = iif(status = 'waiting', iif(owner IS NULL, 'queued', 'running'), status)
WHERE run_id = ?2 AND finished_at IS NULL
RETURNING last_index;

-- put_step --
-- Record a step; of an earlier record of its key only one that says `retrying`, `started` or `cancelled` is replaced.
INSERT INTO steps (
    run_id, key, kind, name, position, input_digest, status, value, error, attempts, started_at, finished_at,
    started_index, recorded_index
) VALUES /*row*/(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)/*end*/
ON CONFLICT (run_id, key) DO UPDATE SET
    kind = excluded.kind, name = excluded.name, position = excluded.position, input_digest = excluded.input_digest,
    status = excluded.status, value = excluded.value, error = excluded.error, attempts = excluded.attempts,
    started_at = excluded.started_at, finished_at = excluded.finished_at, started_index = excluded.started_index,
    recorded_index = excluded.recorded_index
WHERE steps.status IN ('retrying', 'started', 'cancelled');

-- put_wait --
-- Open a wait; one of its key that is not open any more is replaced.
INSERT INTO waits (
    run_id, key, kind, name, position, wait_id, request, digest, due_at, started_index, created_at, state
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'open')
ON CONFLICT (run_id, key) DO UPDATE SET
    kind = excluded.kind, name = excluded.name, position = excluded.position, wait_id = excluded.wait_id,
    request = excluded.request, digest = excluded.digest, due_at = excluded.due_at,
    started_index = excluded.started_index, created_at = excluded.created_at, state = 'open', answer = NULL,
    answered_at = NULL, answered_index = 0, answer_seq = NULL
WHERE waits.state <> 'open';

-- end_wait --
-- End an open wait.
UPDATE waits SET state = ?1, answer = ?2, answered_at = max(?3, created_at), answered_index = ?4, answer_seq = ?5
WHERE run_id = ?6 AND key = ?7 AND state = 'open';

-- next_answer --
-- The number of the wait that ends now, among all that ever ended.
UPDATE counters SET value = value + 1 WHERE name = 'ended_waits' RETURNING value;

-- answers_so_far --
-- How many waits have ended.
SELECT value FROM counters WHERE name = 'ended_waits';

-- answers_between --
-- Waits that ended after one and not after another.
SELECT run_id, key FROM waits WHERE answer_seq > ?1 AND answer_seq <= ?2 ORDER BY answer_seq;

-- close_wait --
-- Give up an open wait.
UPDATE waits SET state = 'cancelled', answered_at = max(:at, created_at)
WHERE run_id = :run_id AND key = :key AND state = 'open'
RETURNING kind, name;

-- close_waits --
-- Close what a run still waited for.
UPDATE waits SET state = 'cancelled', answered_at = max(:at, created_at)
WHERE run_id = :run_id AND state = 'open'
RETURNING kind, name;

-- add_signal --
-- Keep a signal.
INSERT INTO signals (run_id, signal_id, name, data, at, consumed_by, arrived_index) VALUES (?, ?, ?, ?, ?, ?, ?);

-- known_signal --
-- A run's signal of an id.
SELECT name, data FROM signals WHERE run_id = :run_id AND signal_id = :signal_id;

-- kept_signal --
-- The oldest signal of a name that no wait has taken.
SELECT signal_id, data FROM signals
WHERE run_id = :run_id AND name = :name AND consumed_by IS NULL ORDER BY arrived_index LIMIT 1;

-- take_signal --
-- Let a wait take a signal.
UPDATE signals SET consumed_by = :key WHERE run_id = :run_id AND signal_id = :signal_id;

-- keep_signals_again --
-- Let no wait of a run have taken any signal.
UPDATE signals SET consumed_by = NULL WHERE run_id = :run_id AND consumed_by IS NOT NULL;

-- wait --
-- One wait.
SELECT
    run_id, key, kind, name, position, wait_id, request, digest, state, answer, created_at, due_at, answered_at,
    started_index, answered_index
FROM waits WHERE run_id = :run_id AND key = :key;

-- waits --
-- All waits of a run.
SELECT
    run_id, key, kind, name, position, wait_id, request, digest, state, answer, created_at, due_at, answered_at,
    started_index, answered_index
FROM waits WHERE run_id = :run_id ORDER BY key;

-- open_waits --
-- What a run waits for, oldest first.
SELECT
    run_id, key, kind, name, position, wait_id, request, digest, state, answer, created_at, due_at, answered_at,
    started_index, answered_index
FROM waits WHERE run_id = :run_id AND state = 'open' ORDER BY wait_id;

-- wait_for_signal --
-- The oldest open wait of a run that takes a signal of a name.
SELECT
    run_id, key, kind, name, position, wait_id, request, digest, state, answer, created_at, due_at, answered_at,
    started_index, answered_index
FROM waits
WHERE
    run_id = :run_id AND state = 'open' AND kind = 'signal' AND name = :name AND (due_at IS NULL OR due_at > :now)
ORDER BY wait_id LIMIT 1;

-- wait_for_child --
-- The open wait for a run's end.
SELECT
    run_id, key, kind, name, position, wait_id, request, digest, state, answer, created_at, due_at, answered_at,
    started_index, answered_index
FROM waits
WHERE name = :name AND state = 'open' AND kind = 'child' AND (due_at IS NULL OR due_at > :now);

-- approval --
-- One approval and the workflow of its run.
SELECT
    waits.run_id, key, waits.kind, name, position, wait_id, waits.request, digest, state, answer, waits.created_at,
    due_at, answered_at, started_index, answered_index, workflow
FROM waits JOIN runs ON runs.run_id = waits.run_id
WHERE wait_id = :wait_id AND waits.kind = 'approval';

-- approvals --
-- Approvals, newest first.
SELECT
    waits.run_id, key, waits.kind, name, position, wait_id, waits.request, digest, state, answer, waits.created_at,
    due_at, answered_at, started_index, answered_index, workflow
FROM waits CROSS JOIN runs ON runs.run_id = waits.run_id
WHERE waits.kind = 'approval' AND wait_id IS NOT NULL AND wait_id < :before /*filters*/
ORDER BY wait_id DESC LIMIT :limit;

-- has_parked --
-- Whether there is a waiting run that nobody owns.
SELECT EXISTS (
    SELECT 1 FROM runs INDEXED BY runs_waiting WHERE finished_at IS NULL AND status = 'waiting' AND owner IS NULL
);

-- parked_timers --
-- Open waits with a time limit, of waiting runs that nobody owns, in the order in which they are due.
SELECT waits.run_id, key, waits.created_at, due_at
FROM waits CROSS JOIN runs ON runs.run_id = waits.run_id
WHERE
    state = 'open' AND due_at IS NOT NULL
    AND runs.finished_at IS NULL AND runs.status = 'waiting' AND runs.owner IS NULL
ORDER BY due_at LIMIT :limit;

-- all_steps --
-- All steps of a run.
SELECT
    run_id, key, kind, name, position, status, input_digest, value, error, attempts, started_at, finished_at,
    started_index, recorded_index
FROM steps WHERE run_id = :run_id ORDER BY recorded_index, key;

-- step --
-- One step.
SELECT
    run_id, key, kind, name, position, status, input_digest, value, error, attempts, started_at, finished_at,
    started_index, recorded_index
FROM steps WHERE run_id = :run_id AND key = :key;

-- calls --
-- Which steps and waits a run has, in the order they were recorded, open waits last; from behind a key if it is given.
WITH calls (call, key, place) AS (
    SELECT 'step', key, recorded_index FROM steps WHERE run_id = :run_id
    UNION ALL
    SELECT
        'wait', key,
        CASE state WHEN 'open' THEN 9223372036854775807 WHEN 'cancelled' THEN started_index ELSE answered_index END
    FROM waits WHERE run_id = :run_id
)
SELECT call, key FROM calls
WHERE :after IS NULL OR (place, key) > (SELECT max(place), :after FROM calls WHERE key = :after)
ORDER BY place, key LIMIT :limit;

-- copy_steps --
-- Let a new run begin with the completed steps of an earlier one.
INSERT INTO steps (
    run_id, key, kind, name, position, input_digest, status, value, error, attempts, started_at, finished_at,
    started_index, recorded_index
)
SELECT
    :run_id, key, steps.kind, name, position, input_digest, steps.status, value, steps.error, attempts,
    steps.started_at, steps.finished_at, started_index - last_index - 1, recorded_index - last_index - 1
FROM steps JOIN runs ON runs.run_id = steps.run_id
WHERE
    steps.run_id = :source AND steps.status = 'completed' AND (:until IS NULL OR recorded_index <= :until);

-- copy_waits --
-- Let a new run begin with the ended waits of an earlier one, but not with the failures of its children.
INSERT INTO waits (
    run_id, key, kind, name, position, request, digest, due_at, state, answer, created_at, answered_at,
    started_index, answered_index
)
SELECT
    :run_id, key, waits.kind, name, position, waits.request, digest, due_at, state, answer, waits.created_at,
    answered_at, started_index - last_index - 1, answered_index - last_index - 1
FROM waits JOIN runs ON runs.run_id = waits.run_id
WHERE
    waits.run_id = :source AND state IN ('answered', 'expired') AND (:until IS NULL OR answered_index <= :until)
    AND NOT (:keeps_signals AND state = 'expired' AND waits.kind <> 'timer')
    AND NOT (
        waits.kind = 'child' AND state = 'answered' AND json_extract(
            iif(
                answer LIKE 'sha256:%',
                (SELECT CAST(data AS TEXT) FROM blobs WHERE stream_id = :source AND blobs.digest = answer),
                answer
            ),
            '$.status'
        ) <> 'completed'
    );

-- copy_signals --
-- Let a new run begin with the signals that none of its copied waits has taken.
INSERT INTO signals (run_id, signal_id, name, data, at, arrived_index)
SELECT :run_id, signal_id, name, data, at, arrived_index - last_index - 1
FROM signals JOIN runs ON runs.run_id = signals.run_id
WHERE
    signals.run_id = :source
    AND (consumed_by IS NULL OR consumed_by NOT IN (SELECT key FROM waits WHERE waits.run_id = :run_id));

-- copy_entries --
-- Let a new run begin with the conversations of its copied steps.
INSERT INTO conversation_entries (stream_id, session, position, run_id, step_key, at, entry)
SELECT
    :run_id, session, row_number() OVER (PARTITION BY session ORDER BY position), :run_id, step_key, at, entry
FROM conversation_entries
WHERE
    stream_id = :source AND run_id = :source AND step_key IN (SELECT key FROM steps WHERE steps.run_id = :run_id);

-- copy_files --
-- Let a new run begin with the workspaces of its copied steps.
INSERT INTO workspace_files (
    stream_id, position, workspace, path, run_id, step_key, recorded_index, kind, mode, target, digest
)
SELECT
    :run_id, row_number() OVER (ORDER BY position), workspace, path, :run_id, step_key,
    recorded_index - runs.last_index - 1, workspace_files.kind, mode, target, digest
FROM workspace_files JOIN runs ON runs.run_id = workspace_files.run_id
WHERE
    stream_id = :source AND workspace_files.run_id = :source
    AND step_key IN (SELECT key FROM steps WHERE steps.run_id = :run_id);

-- copy_blobs --
-- Let a new run have the large values of its copied records.
INSERT OR IGNORE INTO blobs (stream_id, digest, data)
SELECT :run_id, digest, data FROM blobs
WHERE
    stream_id = :source AND digest IN (
        SELECT value FROM steps WHERE run_id = :run_id
        UNION SELECT request FROM waits WHERE run_id = :run_id
        UNION SELECT answer FROM waits WHERE run_id = :run_id
        UNION SELECT data FROM signals WHERE run_id = :run_id
        UNION SELECT digest FROM workspace_files WHERE stream_id = :run_id
    );

-- put_usage --
-- Set a run's usage.
UPDATE runs SET usage = :usage WHERE run_id = :run_id;

-- add_entry --
-- Append an entry to a session's conversation.
INSERT INTO conversation_entries (stream_id, session, position, run_id, step_key, at, entry)
VALUES /*row*/(?, ?, ?, ?, ?, ?, ?)/*end*/;

-- last_entry --
-- The position of the last entry of a session; 0 if it has none.
SELECT coalesce(max(position), 0) FROM conversation_entries WHERE stream_id = ? AND session = ?;

-- add_file --
-- Record what became of a path of a workspace.
INSERT INTO workspace_files (
    stream_id, position, workspace, path, run_id, step_key, recorded_index, kind, mode, target, digest
) VALUES (
    ?1, (SELECT coalesce(max(position), 0) + 1 FROM workspace_files WHERE stream_id = ?1),
    ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10
);

-- forget_older_files --
-- Remove all versions of a path but the newest.
DELETE FROM workspace_files INDEXED BY workspace_files_by_path
WHERE
    stream_id = ?1 AND workspace = ?2 AND path = ?3 AND position < (
        SELECT max(position) FROM workspace_files WHERE stream_id = ?1 AND workspace = ?2 AND path = ?3
    )
RETURNING digest;

-- forget_content --
-- Remove the content of files that no version in the stream has any more.
DELETE FROM blobs
WHERE
    stream_id = ?1 AND digest = ?2
    AND NOT EXISTS (SELECT 1 FROM workspace_files WHERE stream_id = ?1 AND workspace_files.digest = ?2);

-- forget_entries_of_run --
-- Remove from a stream the entries that a run has recorded.
DELETE FROM conversation_entries WHERE stream_id = :stream_id AND run_id = :run_id;

-- forget_files_of_run --
-- Remove from a stream the versions of files that a run has recorded.
DELETE FROM workspace_files WHERE stream_id = :stream_id AND run_id = :run_id RETURNING digest;

-- entries --
-- Entries of a conversation above a position.
SELECT stream_id, session, position, run_id, step_key, at, entry FROM conversation_entries
WHERE stream_id = :stream_id AND session = :session AND position > :after ORDER BY position LIMIT :limit;

-- sessions --
-- The sessions of a stream, by name.
SELECT session, count(*), min(at), max(at) FROM conversation_entries
WHERE stream_id = :stream_id GROUP BY session ORDER BY session;

-- delete_session --
-- Remove a conversation.
DELETE FROM conversation_entries WHERE stream_id = :stream_id AND session = :session;

-- files --
-- The recorded versions of a workspace's files, oldest first.
SELECT
    position, run_id, step_key, recorded_index, workspace, path, kind, mode, target,
    (SELECT data FROM blobs WHERE blobs.stream_id = :stream_id AND blobs.digest = workspace_files.digest)
FROM workspace_files
WHERE stream_id = :stream_id AND workspace = :workspace ORDER BY position;

-- stream --
-- The stream of an agent's instance.
SELECT seq, stream_id, last_index, created_at, updated_at FROM streams WHERE stream_id = :stream_id;

-- streams --
-- The streams of an agent's instances, those that were created last first.
SELECT seq, stream_id, last_index, created_at, updated_at FROM streams
WHERE agent = :agent AND seq < :before ORDER BY seq DESC LIMIT :limit;

-- has_unfinished_interactions --
-- Whether an interaction with an agent's instance has not ended.
SELECT EXISTS (SELECT 1 FROM runs WHERE stream = :stream_id AND finished_at IS NULL);

-- all_interactions --
-- The interactions with an agent's instance.
SELECT run_id FROM runs WHERE stream = :stream_id;

-- delete_stream --
-- Remove the stream of an agent's instance.
DELETE FROM streams WHERE stream_id = :stream_id;
