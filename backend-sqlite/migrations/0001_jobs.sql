-- The first schema. Moments are milliseconds since 1970 UTC, ids are blobs of 16 bytes, spans are milliseconds.
-- Everything is prefixed, since users may keep their own tables in the same file (clause P5).

CREATE TABLE leasehold_meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- state: 1 scheduled, 2 queued, 3 running, 4 succeeded, 5 failed, 6 cancelled. A waiting job keeps the state that
-- it was written with; whether it is due is told by `due` alone.
CREATE TABLE leasehold_jobs (
    seq              INTEGER PRIMARY KEY,
    id               BLOB NOT NULL UNIQUE,
    lane             INTEGER NOT NULL,
    state            INTEGER NOT NULL,
    reason           TEXT,
    due              INTEGER NOT NULL,
    enqueued_at      INTEGER NOT NULL,
    options          TEXT NOT NULL,
    keep_succeeded   INTEGER,
    tags             TEXT,
    attempt          INTEGER NOT NULL DEFAULT 0,
    max_attempts     INTEGER NOT NULL,
    crashes          INTEGER NOT NULL DEFAULT 0,
    generation       INTEGER NOT NULL DEFAULT 0,
    started_at       INTEGER,
    finished_at      INTEGER,
    expires_at       INTEGER,
    lease            INTEGER,
    claim            BLOB,
    worker           BLOB,
    lease_until      INTEGER,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    limit_key        TEXT,
    limit_max        INTEGER,
    unique_key       TEXT,
    unique_scope     INTEGER,
    unique_until     INTEGER,
    progress         TEXT,
    history          TEXT,
    error_class      TEXT,
    settled_claim    BLOB,
    settled_as       TEXT
) STRICT;

-- Apart, so that a claim, a renewal or a settlement does not write a large payload anew.
CREATE TABLE leasehold_payloads (seq INTEGER PRIMARY KEY, payload BLOB NOT NULL) STRICT;
CREATE TABLE leasehold_results (seq INTEGER PRIMARY KEY, result BLOB NOT NULL) STRICT;

-- A claim reads one range of the first index per lane: the state is not in it, so a job that becomes due needs no
-- write; the limit is, so that a job that must wait for its limit costs no look at its row.
CREATE INDEX leasehold_jobs_waiting ON leasehold_jobs (lane, due, id, limit_key, limit_max)
    WHERE state <= 2;
CREATE INDEX leasehold_jobs_scheduled ON leasehold_jobs (lane, due) WHERE state = 1;
CREATE INDEX leasehold_jobs_expiring_leases ON leasehold_jobs (lease_until) WHERE state = 3;
CREATE INDEX leasehold_jobs_expiring ON leasehold_jobs (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX leasehold_jobs_listed ON leasehold_jobs (enqueued_at, id);
CREATE UNIQUE INDEX leasehold_jobs_unique ON leasehold_jobs (unique_key) WHERE unique_key IS NOT NULL;

-- A lane is the jobs of one queue, priority and kind. Kept by the triggers below: how many of them are in which
-- state, by which a claim knows where to look.
CREATE TABLE leasehold_lanes (
    lane      INTEGER PRIMARY KEY,
    queue     TEXT NOT NULL,
    priority  INTEGER NOT NULL,
    kind      TEXT NOT NULL,
    scheduled INTEGER NOT NULL DEFAULT 0,
    queued    INTEGER NOT NULL DEFAULT 0,
    running   INTEGER NOT NULL DEFAULT 0,
    succeeded INTEGER NOT NULL DEFAULT 0,
    failed    INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0,
    UNIQUE (queue, priority, kind)
) STRICT;

-- What each claim was given, as a JSON array of `seq`, as long as it may be repeated (clause E2).
CREATE TABLE leasehold_claims (
    seq   INTEGER PRIMARY KEY,
    claim BLOB NOT NULL UNIQUE,
    at    INTEGER NOT NULL,
    jobs  TEXT NOT NULL
) STRICT;

-- How many jobs of each limit key run.
CREATE TABLE leasehold_limits (key TEXT PRIMARY KEY, running INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE leasehold_queues (
    queue      TEXT PRIMARY KEY,
    settings   TEXT,
    paused     INTEGER NOT NULL DEFAULT 0,
    rated      INTEGER NOT NULL DEFAULT 0,
    changed_at INTEGER,
    deleted    INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE leasehold_logs (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    job      BLOB NOT NULL,
    worker   BLOB,
    attempt  INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    level    TEXT NOT NULL,
    message  TEXT NOT NULL,
    bytes    INTEGER NOT NULL
) STRICT;
CREATE INDEX leasehold_logs_of_job ON leasehold_logs (job, sequence);
CREATE INDEX leasehold_logs_of_worker ON leasehold_logs (worker, sequence) WHERE worker IS NOT NULL;

-- What is kept of a job's log, of a worker's, and, under the empty blob, of the store's.
CREATE TABLE leasehold_log_heads (
    source   BLOB PRIMARY KEY,
    lines    INTEGER NOT NULL DEFAULT 0,
    bytes    INTEGER NOT NULL DEFAULT 0,
    trimmed  INTEGER NOT NULL DEFAULT 0,
    claim    BLOB,
    position INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
INSERT INTO leasehold_log_heads (source) VALUES (x'');

CREATE TABLE leasehold_workers (
    worker     BLOB PRIMARY KEY,
    info       TEXT NOT NULL,
    host       TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL,
    lost_after INTEGER NOT NULL,
    gone       INTEGER NOT NULL DEFAULT 0,
    stop       INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX leasehold_workers_seen ON leasehold_workers (seen_at);

CREATE TABLE leasehold_registers (
    space   TEXT NOT NULL,
    name    TEXT NOT NULL,
    body    BLOB NOT NULL,
    next    INTEGER,
    expires INTEGER,
    version BLOB NOT NULL,
    PRIMARY KEY (space, name)
) STRICT;
CREATE INDEX leasehold_registers_next ON leasehold_registers (space, next) WHERE next IS NOT NULL;
CREATE INDEX leasehold_registers_expires ON leasehold_registers (expires) WHERE expires IS NOT NULL;

CREATE TRIGGER leasehold_job_enqueued AFTER INSERT ON leasehold_jobs BEGIN
    UPDATE leasehold_lanes SET scheduled = scheduled + (new.state = 1), queued = queued + (new.state = 2)
        WHERE lane = new.lane;
END;

CREATE TRIGGER leasehold_job_changed AFTER UPDATE OF state ON leasehold_jobs
WHEN old.state <> new.state AND old.lane = new.lane BEGIN
    UPDATE leasehold_lanes SET scheduled = scheduled - (old.state = 1) + (new.state = 1),
            queued = queued - (old.state = 2) + (new.state = 2),
            running = running - (old.state = 3) + (new.state = 3),
            succeeded = succeeded - (old.state = 4) + (new.state = 4),
            failed = failed - (old.state = 5) + (new.state = 5),
            cancelled = cancelled - (old.state = 6) + (new.state = 6)
        WHERE lane = new.lane;
END;

CREATE TRIGGER leasehold_job_moved AFTER UPDATE OF lane ON leasehold_jobs WHEN old.lane <> new.lane BEGIN
    UPDATE leasehold_lanes SET scheduled = scheduled - (old.state = 1), queued = queued - (old.state = 2),
            running = running - (old.state = 3), succeeded = succeeded - (old.state = 4),
            failed = failed - (old.state = 5), cancelled = cancelled - (old.state = 6)
        WHERE lane = old.lane;
    UPDATE leasehold_lanes SET scheduled = scheduled + (new.state = 1), queued = queued + (new.state = 2),
            running = running + (new.state = 3), succeeded = succeeded + (new.state = 4),
            failed = failed + (new.state = 5), cancelled = cancelled + (new.state = 6)
        WHERE lane = new.lane;
    INSERT INTO leasehold_queues (queue, deleted)
        SELECT o.queue, 1 FROM leasehold_lanes AS o, leasehold_lanes AS n
        WHERE o.lane = old.lane AND n.lane = new.lane AND o.queue <> n.queue
        ON CONFLICT DO UPDATE SET deleted = deleted + 1;
END;

CREATE TRIGGER leasehold_limit_taken AFTER UPDATE OF state ON leasehold_jobs
WHEN new.limit_key IS NOT NULL AND new.state = 3 AND old.state <> 3 BEGIN
    INSERT INTO leasehold_limits VALUES (new.limit_key, 1) ON CONFLICT DO UPDATE SET running = running + 1;
END;

CREATE TRIGGER leasehold_limit_freed AFTER UPDATE OF state ON leasehold_jobs
WHEN new.limit_key IS NOT NULL AND old.state = 3 AND new.state <> 3 BEGIN
    UPDATE leasehold_limits SET running = running - 1 WHERE key = new.limit_key;
    DELETE FROM leasehold_limits WHERE key = new.limit_key AND running <= 0;
END;

CREATE TRIGGER leasehold_job_deleted AFTER DELETE ON leasehold_jobs BEGIN
    UPDATE leasehold_lanes SET scheduled = scheduled - (old.state = 1), queued = queued - (old.state = 2),
            running = running - (old.state = 3), succeeded = succeeded - (old.state = 4),
            failed = failed - (old.state = 5), cancelled = cancelled - (old.state = 6)
        WHERE lane = old.lane;
    INSERT INTO leasehold_queues (queue, deleted) SELECT queue, 1 FROM leasehold_lanes WHERE lane = old.lane
        ON CONFLICT DO UPDATE SET deleted = deleted + 1;
    DELETE FROM leasehold_payloads WHERE seq = old.seq;
    DELETE FROM leasehold_results WHERE seq = old.seq;
    UPDATE leasehold_log_heads SET
        lines = lines - (SELECT lines FROM leasehold_log_heads WHERE source = old.id),
        bytes = bytes - (SELECT bytes FROM leasehold_log_heads WHERE source = old.id)
        WHERE source = x'' AND EXISTS (SELECT 1 FROM leasehold_log_heads WHERE source = old.id);
    DELETE FROM leasehold_logs WHERE job = old.id;
    DELETE FROM leasehold_log_heads WHERE source = old.id;
END;
