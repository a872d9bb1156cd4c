-- Durable calls: what steps, waits and signals need so that a run can be parked, woken, copied and resumed.

-- How many runs stand above a run: 0 unless another run started it.
ALTER TABLE runs ADD COLUMN depth INTEGER NOT NULL DEFAULT 0;

-- Whether a run lost its engine while it was running, and has not begun to wait since.
ALTER TABLE runs ADD COLUMN interrupted INTEGER NOT NULL DEFAULT 0;

-- The run's last_index when the step began and when it was recorded; negative in copies from an earlier run.
ALTER TABLE steps ADD COLUMN started_index INTEGER NOT NULL DEFAULT 0;
ALTER TABLE steps ADD COLUMN recorded_index INTEGER NOT NULL DEFAULT 0;

-- `wait_id` is a ULID and the order in which waits were opened; copies have none. `answered_index` is the run's
-- last_index when the wait ended, `answer_seq` its place among all waits that ever ended (of whichever run).
ALTER TABLE waits ADD COLUMN position INTEGER NOT NULL DEFAULT 0;
ALTER TABLE waits ADD COLUMN wait_id TEXT;
ALTER TABLE waits ADD COLUMN started_index INTEGER NOT NULL DEFAULT 0;
ALTER TABLE waits ADD COLUMN answered_index INTEGER NOT NULL DEFAULT 0;
ALTER TABLE waits ADD COLUMN answer_seq INTEGER;

-- The index of the signal's event: the order in which a run's signals came. Negative in copies, too.
ALTER TABLE signals ADD COLUMN arrived_index INTEGER NOT NULL DEFAULT 0;

-- Numbers that only ever grow, whatever is deleted.
CREATE TABLE counters (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO counters (name, value) VALUES ('ended_waits', 0);

CREATE INDEX runs_resumed ON runs (seq) WHERE finished_at IS NULL AND status = 'queued' AND attempt > 0;
CREATE INDEX runs_waiting ON runs (owner, seq) WHERE finished_at IS NULL AND status = 'waiting';

DROP INDEX waits_open;
CREATE INDEX waits_open ON waits (run_id, wait_id) WHERE state = 'open';
CREATE INDEX waits_due ON waits (due_at) WHERE state = 'open' AND due_at IS NOT NULL;
CREATE INDEX waits_for_children ON waits (name) WHERE state = 'open' AND kind = 'child';
CREATE INDEX waits_ended ON waits (answer_seq) WHERE answer_seq IS NOT NULL;
CREATE UNIQUE INDEX waits_by_id ON waits (wait_id) WHERE wait_id IS NOT NULL;
CREATE INDEX approvals ON waits (wait_id) WHERE kind = 'approval' AND wait_id IS NOT NULL;
CREATE INDEX approvals_open ON waits (wait_id) WHERE kind = 'approval' AND state = 'open';

CREATE INDEX signals_kept ON signals (run_id, name, arrived_index) WHERE consumed_by IS NULL;

-- The attempt at a step that said something: when a run is replayed, a finished step says nothing.
ALTER TABLE events ADD COLUMN step TEXT;
