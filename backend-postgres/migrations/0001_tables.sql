-- The tables. Moments and spans are milliseconds, moments since 1970 UTC. Texts that may hold any character are kept
-- as JSON or as bytes, since a text of the server's cannot hold the character of the number 0. No vacuum gives pages back to
-- the system (`vacuum_truncate`): jobs to come need them, and it would take a lock that stops everybody.

CREATE TABLE leasehold.meta (version integer NOT NULL);
INSERT INTO leasehold.meta VALUES (0);

-- state: 1 scheduled, 2 queued, 3 running, 4 succeeded, 5 failed, 6 cancelled. A waiting job keeps the state that
-- it was written with; whether it is due is told by `due` alone. `rank` is the priority with its sign turned, so that
-- every part of an index goes upwards.
CREATE TABLE leasehold.jobs (
    id               uuid NOT NULL,
    due              bigint NOT NULL,
    enqueued_at      bigint NOT NULL,
    started_at       bigint,
    finished_at      bigint,
    expires_at       bigint,
    lease            bigint,
    lease_until      bigint,
    keep_succeeded   bigint,
    keep_failed      bigint,
    keep_cancelled   bigint,
    unique_until     bigint,
    claim            uuid,
    worker           uuid,
    settled_claim    uuid,
    attempt          integer NOT NULL DEFAULT 0,
    max_attempts     integer NOT NULL,
    crashes          integer NOT NULL DEFAULT 0,
    generation       integer NOT NULL DEFAULT 0,
    limit_max        bigint,
    state            smallint NOT NULL,
    rank             smallint NOT NULL,
    unique_scope     smallint,
    settled_as       smallint,
    cancel_requested boolean NOT NULL DEFAULT false,
    limit_ends       boolean,
    queue            text COLLATE "C" NOT NULL,
    kind             text COLLATE "C" NOT NULL,
    reason           text,
    limit_key        text COLLATE "C",
    unique_key       text COLLATE "C",
    error_class      text COLLATE "C",
    tags             text[] COLLATE "C",
    options          text NOT NULL,
    progress         text,
    history          text[],
    payload          bytea NOT NULL,
    result           bytea,
    -- So the claim alone fences every write under a lease.
    CHECK ((state = 3) = (claim IS NOT NULL))
) WITH (
    fillfactor = 42,
    autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0.1, autovacuum_analyze_scale_factor = 0.1,
    autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off
);

-- Nothing in an index here is changed when a job is claimed, renewed or settled: such an update stays on its page and
-- adds to no index (HOT), which is what the empty part of each page is for. It is more than half, since a claim makes a
-- row longer by 48 bytes, and one claim may take all jobs of a page.
CREATE INDEX jobs_listed ON leasehold.jobs (enqueued_at, id);
-- After the other that has the id: of two that look alike, as on an empty table, the later one is taken.
ALTER TABLE leasehold.jobs ADD PRIMARY KEY (id);
CREATE UNIQUE INDEX jobs_unique ON leasehold.jobs (unique_key) WHERE unique_key IS NOT NULL;

-- Where jobs stand: each that waits, or that has ended and is not kept for ever, has one row in one of these, which is
-- added and removed but never changed. So a claim meets nothing that has ended.

-- Waiting jobs of one queue, rank and kind stand in one range, in the order in which they become due. Those with a
-- limit key stand apart, so that a claim can leave out a whole key that has no room.
CREATE TABLE leasehold.waiting (
    id        uuid NOT NULL,
    due       bigint NOT NULL,
    limit_max bigint,
    rank      smallint NOT NULL,
    state     smallint NOT NULL,
    queue     text COLLATE "C" NOT NULL,
    kind      text COLLATE "C" NOT NULL,
    limit_key text COLLATE "C",
    tags      text[] COLLATE "C",
    limit_ends boolean
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
          autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);
CREATE INDEX waiting_free ON leasehold.waiting (queue, rank, kind, due, id) WHERE limit_key IS NULL;
CREATE INDEX waiting_limited ON leasehold.waiting (queue, rank, due, id) WHERE limit_key IS NOT NULL;
CREATE INDEX waiting_of_limit ON leasehold.waiting (limit_key, limit_max, queue, rank, due, id)
    WHERE limit_key IS NOT NULL;
-- Those that end rather than wait for their limit.
CREATE INDEX waiting_ending ON leasehold.waiting (queue, rank, due, id) WHERE limit_ends;
CREATE INDEX waiting_scheduled ON leasehold.waiting (queue, due) WHERE state = 1;

-- Running jobs with a limit key have a row here as well: they are counted.
CREATE TABLE leasehold.slots (limit_key text COLLATE "C" NOT NULL, id uuid NOT NULL)
    WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
          autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);
CREATE INDEX slots_of_limit ON leasehold.slots (limit_key, id);

CREATE TABLE leasehold.ended (expires_at bigint NOT NULL, id uuid NOT NULL)
    WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
          autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);
CREATE INDEX ended_expire ON leasehold.ended (expires_at, id);

-- What each claim was given, as long as it may be repeated (clause E2) or a lease of it runs. None of those ends before
-- `first_end`, for a lease is only ever extended. Who settles jobs leaves the row alone; whoever looks for leases that ran
-- out notes when the first of those ends that are left, or that none is (function `look_through`).
CREATE TABLE leasehold.claims (claim uuid PRIMARY KEY, at bigint NOT NULL, first_end bigint, jobs uuid[] NOT NULL)
    WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 2000, vacuum_truncate = off);
-- Ids cannot be compressed, so it is not tried.
ALTER TABLE leasehold.claims ALTER jobs SET STORAGE EXTERNAL;
CREATE INDEX claims_end ON leasehold.claims (first_end, claim) WHERE first_end IS NOT NULL;
CREATE INDEX claims_over ON leasehold.claims (at) WHERE first_end IS NULL;

-- The newcomers that replaced a job with their unique key (clause P4), in order, as long as they may be repeated.
CREATE TABLE leasehold.replaced (newcomer uuid PRIMARY KEY, job uuid NOT NULL, n bigint GENERATED ALWAYS AS IDENTITY)
    WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);
CREATE INDEX replaced_of_job ON leasehold.replaced (job, n);

-- How many jobs of a queue went from one state to another; 0 is outside. Rows are only added, so nobody waits for
-- anybody to count; now and then those that say the same are made one (function `fold`).
CREATE TABLE leasehold.tallies (queue text COLLATE "C" NOT NULL, was smallint NOT NULL, became smallint NOT NULL, n bigint NOT NULL)
    WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
          autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);

CREATE TABLE leasehold.queues (
    queue      text COLLATE "C" PRIMARY KEY,
    settings   text NOT NULL,
    paused     boolean NOT NULL,
    rated      boolean NOT NULL,
    changed_at bigint NOT NULL
);

CREATE SEQUENCE leasehold.log_sequence CACHE 1;
CREATE TABLE leasehold.logs (
    sequence bigint PRIMARY KEY,
    job      uuid NOT NULL,
    worker   uuid,
    at       bigint NOT NULL,
    bytes    bigint NOT NULL,
    attempt  integer NOT NULL,
    level    text NOT NULL,
    message  bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.1);
CREATE INDEX logs_of_job ON leasehold.logs (job, sequence);
CREATE INDEX logs_of_worker ON leasehold.logs (worker, sequence) WHERE worker IS NOT NULL;

-- What is kept of a job's log, or of a worker's.
CREATE TABLE leasehold.log_heads (
    source   uuid PRIMARY KEY,
    lines    bigint NOT NULL DEFAULT 0,
    bytes    bigint NOT NULL DEFAULT 0,
    trimmed  bigint NOT NULL DEFAULT 0,
    claim    uuid,
    position bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 70);
-- How many bytes of lines came and went, as rows that are only added, like tallies.
CREATE TABLE leasehold.log_sizes (bytes bigint NOT NULL)
    WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

CREATE TABLE leasehold.workers (
    worker     uuid PRIMARY KEY,
    info       text NOT NULL,
    host       text COLLATE "C" NOT NULL,
    started_at bigint NOT NULL,
    seen_at    bigint NOT NULL,
    lost_after bigint NOT NULL,
    gone       boolean NOT NULL,
    stop       boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);

CREATE TABLE leasehold.registers (
    space   text COLLATE "C" NOT NULL,
    name    text COLLATE "C" NOT NULL,
    body    bytea NOT NULL,
    next    bigint,
    expires bigint,
    version uuid NOT NULL,
    PRIMARY KEY (space, name)
) WITH (fillfactor = 50);
CREATE INDEX registers_next ON leasehold.registers (space, next) WHERE next IS NOT NULL;
CREATE INDEX registers_expires ON leasehold.registers (expires) WHERE expires IS NOT NULL;

-- A table through which jobs pass looks empty to whoever measures it at the right moment, and then a plan may begin with
-- all of it. So where rows of such a table are looked up for others, `OFFSET 0` says which comes first.

-- The server's hour. Not that at which the transaction began: a call may have waited for a lock since.
CREATE FUNCTION leasehold.hour() RETURNS bigint LANGUAGE sql VOLATILE AS
$body$ SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint $body$;

-- A moment some milliseconds later, at most the end of the year 9999; none if no span is given.
CREATE FUNCTION leasehold.later(moment bigint, span bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS
$body$ SELECT CASE WHEN span > 253402300799999 - moment THEN 253402300799999 ELSE moment + span END $body$;

-- Where events are told, by a name that every schema may have.
CREATE FUNCTION leasehold.channel() RETURNS text LANGUAGE sql IMMUTABLE AS
$body$ SELECT 'leasehold_' || md5($name$leasehold.$name$) $body$;
