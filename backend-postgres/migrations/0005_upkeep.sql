-- Makes rows that say the same one, and forgets claims that are too old to be repeated (clause E2). Whoever comes by
-- does it now and then; what others are at is left to them.
CREATE FUNCTION leasehold.tidy(p_hour bigint) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
    -- A caller's own transaction must not fail for it.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RETURN;
    END IF;
    WITH gone AS (
        DELETE FROM leasehold.tallies t USING (
            SELECT x.ctid FROM leasehold.tallies x LIMIT 5000 FOR UPDATE SKIP LOCKED) AS few
        WHERE t.ctid = few.ctid RETURNING t.queue, t.was, t.became, t.n
    )
    INSERT INTO leasehold.tallies
        SELECT g.queue, g.was, g.became, sum(g.n) FROM gone g GROUP BY g.queue, g.was, g.became HAVING sum(g.n) <> 0;
    DELETE FROM leasehold.claims c USING (
        SELECT o.claim FROM leasehold.claims o WHERE o.at < p_hour - 600000 AND o.first_end IS NULL
        ORDER BY o.at LIMIT 1000 FOR UPDATE SKIP LOCKED) AS old
    WHERE c.claim = old.claim;
END
$body$;

-- Removes jobs with all that is kept of them.
CREATE FUNCTION leasehold.remove(p_jobs uuid[]) RETURNS bigint
LANGUAGE plpgsql AS $body$
DECLARE
    n bigint;
BEGIN
    PERFORM leasehold.displace(p_jobs);
    WITH gone AS (
        DELETE FROM leasehold.jobs j WHERE j.id = ANY (p_jobs) RETURNING j.queue, j.state
    ), tallied AS (
        INSERT INTO leasehold.tallies SELECT g.queue, g.state, 0, count(*) FROM gone g GROUP BY g.queue, g.state
    )
    SELECT count(*) INTO n FROM gone;
    DELETE FROM leasehold.replaced r WHERE r.job = ANY (p_jobs);
    DELETE FROM leasehold.logs l WHERE l.job = ANY (p_jobs);
    WITH gone AS (DELETE FROM leasehold.log_heads h WHERE h.source = ANY (p_jobs) RETURNING h.bytes)
    INSERT INTO leasehold.log_sizes SELECT -sum(g.bytes) FROM gone g HAVING sum(g.bytes) > 0;
    RETURN n;
END
$body$;

-- Removes ended jobs whose retention is over, and workers long gone, and registers that expired (clauses F5, F6).
CREATE FUNCTION leasehold.prune(p_now bigint, p_limit bigint, p_workers_after bigint)
RETURNS TABLE (jobs bigint, workers bigint, registers bigint, more boolean)
LANGUAGE plpgsql AS $body$
DECLARE
    hour bigint := coalesce(p_now, leasehold.hour());
    over uuid[];
BEGIN
    over := ARRAY(
        SELECT e.id FROM leasehold.ended e CROSS JOIN LATERAL (
            SELECT FROM leasehold.jobs j WHERE j.id = e.id AND j.expires_at < hour OFFSET 0 FOR UPDATE SKIP LOCKED) AS j
        WHERE e.expires_at < hour ORDER BY e.expires_at, e.id LIMIT p_limit);
    jobs := leasehold.remove(over);
    DELETE FROM leasehold.workers w WHERE w.seen_at < greatest(hour - p_workers_after, 0);
    GET DIAGNOSTICS workers = ROW_COUNT;
    -- One that is being written expires later, or not at all: its new version is looked at again.
    DELETE FROM leasehold.registers r USING (
        SELECT x.space, x.name FROM leasehold.registers x WHERE x.expires < hour
        ORDER BY x.expires LIMIT p_limit FOR UPDATE SKIP LOCKED) AS few
    WHERE r.space = few.space AND r.name = few.name;
    GET DIAGNOSTICS registers = ROW_COUNT;
    more := jobs = p_limit AND EXISTS (SELECT FROM leasehold.ended e WHERE e.expires_at < hour)
        OR registers = p_limit AND EXISTS (SELECT FROM leasehold.registers x WHERE x.expires < hour);
    PERFORM leasehold.tidy(hour);
    RETURN NEXT;
END
$body$;

-- Changes the settings of a queue (clauses C10, F8).
CREATE FUNCTION leasehold.set_queue(
    p_now bigint, p_queue text, p_settings text, p_paused boolean, p_rated boolean
) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
    INSERT INTO leasehold.queues VALUES (p_queue, p_settings, p_paused, p_rated, coalesce(p_now, leasehold.hour()))
    ON CONFLICT (queue) DO UPDATE SET
        settings = excluded.settings, paused = excluded.paused, rated = excluded.rated,
        changed_at = excluded.changed_at;
END
$body$;

-- The due job of a queue that waits longest.
CREATE FUNCTION leasehold.oldest_due(p_hour bigint, p_queue text) RETURNS bigint LANGUAGE plpgsql STABLE AS $body$
DECLARE
    level smallint := -32768;
    first bigint;
BEGIN
    LOOP
        level := leasehold.next_rank(ARRAY[p_queue], level);
        EXIT WHEN level IS NULL;
        first := least(first, (
            SELECT min((SELECT w.due FROM leasehold.waiting w
                WHERE w.queue = p_queue AND w.rank = level AND w.kind = l.kind AND w.limit_key IS NULL
                ORDER BY w.due LIMIT 1))
            FROM leasehold.lanes(ARRAY[p_queue], level, NULL, NULL) AS l), (
            SELECT w.due FROM leasehold.waiting w
            WHERE w.queue = p_queue AND w.rank = level AND w.limit_key IS NOT NULL
            ORDER BY w.due LIMIT 1));
    END LOOP;
    RETURN CASE WHEN first <= p_hour THEN first END;
END
$body$;

-- Writes a register over the version that its writer read; answers whether it is written (clause F6). A version that is
-- there already is a repetition.
CREATE FUNCTION leasehold.put_register(
    p_space text, p_name text, p_body bytea, p_next bigint, p_expires bigint, p_version uuid, p_expected uuid
) RETURNS boolean
LANGUAGE plpgsql AS $body$
BEGIN
    IF p_expected IS NULL THEN
        INSERT INTO leasehold.registers VALUES (p_space, p_name, p_body, p_next, p_expires, p_version)
            ON CONFLICT DO NOTHING;
    ELSE
        UPDATE leasehold.registers r
            SET body = p_body, next = p_next, expires = p_expires, version = p_version
            WHERE r.space = p_space AND r.name = p_name AND r.version = p_expected AND r.version <> p_version;
    END IF;
    RETURN EXISTS (SELECT FROM leasehold.registers r
        WHERE r.space = p_space AND r.name = p_name AND r.version = p_version);
END
$body$;

-- A worker lives; answers whether somebody asked it to stop (clause F1).
CREATE FUNCTION leasehold.check_in(
    p_now bigint, p_worker uuid, p_info text, p_host text, p_lost_after bigint, p_gone boolean
) RETURNS boolean
LANGUAGE plpgsql AS $body$
DECLARE
    hour bigint := coalesce(p_now, leasehold.hour());
    asked boolean;
BEGIN
    INSERT INTO leasehold.workers AS w VALUES (p_worker, p_info, p_host, hour, hour, p_lost_after, p_gone)
    ON CONFLICT (worker) DO UPDATE SET info = excluded.info, host = excluded.host, seen_at = excluded.seen_at,
        lost_after = excluded.lost_after, gone = excluded.gone
    RETURNING w.stop INTO asked;
    RETURN asked;
END
$body$;
