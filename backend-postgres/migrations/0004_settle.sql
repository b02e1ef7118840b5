-- Verdicts: 1 retry, 2 release, 4 succeed, 5 fail, 6 cancel; the last three are the states in which a job ends.

-- What an attempt that ended so makes of its job (clauses C4, S5). A policy does not ask for a retry when no attempt is
-- left; if one does, the job must not wait for a claim that never takes it.
CREATE FUNCTION leasehold.becomes(
    verdict smallint, cancel_requested boolean, attempt integer, max_attempts integer, due bigint, hour bigint
) RETURNS smallint LANGUAGE sql IMMUTABLE AS $body$
    SELECT CASE
        WHEN verdict >= 4 THEN verdict
        WHEN cancel_requested THEN 6
        WHEN verdict = 1 AND attempt >= max_attempts THEN 5
        WHEN due > hour THEN 1
        ELSE 2
    END::smallint
$body$;

-- A failure joins a history, which keeps the first and the latest, ten in all (clause S4).
CREATE FUNCTION leasehold.remember(
    history text[], failure text, attempt integer, worker uuid, hour bigint
) RETURNS text[] LANGUAGE sql IMMUTABLE AS $body$
    SELECT CASE WHEN failure IS NULL THEN history
        WHEN cardinality(history) >= 10 THEN history[1:1] || history[3:10] || told.told
        ELSE coalesce(history, '{}') || told.told
    END
    FROM (SELECT format('{"attempt":%s,"worker":%s,"at":%s,%s', attempt,
        coalesce('"' || worker || '"', 'null'), hour, failure)) AS told (told)
$body$;

-- Records how attempts ended, as their holders or recoverers say. No job may come twice. Answers: 1 applied, with
-- what the jobs have become; 2 already applied; 3 lost. What has the same answer shares a row. One that changed hands
-- this very moment has no answer: ask again.
CREATE FUNCTION leasehold.settle(
    p_now bigint, p_recovers boolean, p_jobs uuid[], p_claims uuid[], p_verdicts smallint[], p_reasons text[],
    p_delays bigint[], p_results bytea[], p_failures text[], p_classes text[]
) RETURNS TABLE (ns bigint[], answer smallint, queue text, state smallint)
LANGUAGE plpgsql AS $body$
DECLARE
    hour bigint := coalesce(p_now, leasehold.hour());
    recovering smallint := CASE WHEN p_recovers THEN 10 ELSE 0 END;
    settled bigint[] := '{}';
BEGIN
    FOR ns, answer, queue, state IN
        WITH done AS (
            UPDATE leasehold.jobs j SET
                (state, reason, due, attempt, finished_at, expires_at, unique_key, result) = (
                    SELECT t.state,
                        CASE WHEN t.state = s.verdict THEN s.reason WHEN t.state = 6 THEN 'cancelled'
                            WHEN t.state = 5 THEN 'max_attempts' ELSE s.reason END,
                        CASE WHEN t.state >= 4 THEN j.due ELSE t.due END,
                        CASE WHEN t.state <= 2 AND s.verdict = 2 THEN j.attempt - 1 ELSE j.attempt END,
                        CASE WHEN t.state >= 4 THEN hour END,
                        leasehold.later(hour, CASE t.state WHEN 4 THEN j.keep_succeeded WHEN 5 THEN j.keep_failed
                            WHEN 6 THEN j.keep_cancelled END),
                        CASE WHEN t.state <= 2 OR j.unique_scope = 3 THEN j.unique_key END,
                        s.result
                    FROM (
                        SELECT leasehold.becomes(s.verdict, j.cancel_requested, j.attempt, j.max_attempts, d.due, hour)
                            AS state, d.due
                        FROM (SELECT CASE WHEN s.verdict = 2 AND s.delay = 0 THEN j.due
                            ELSE leasehold.later(hour, coalesce(s.delay, 0)) END AS due) AS d) AS t),
                claim = NULL, lease_until = NULL, cancel_requested = false,
                crashes = CASE WHEN p_recovers THEN j.crashes + 1 ELSE j.crashes END,
                history = CASE WHEN s.failure IS NULL THEN j.history
                    ELSE leasehold.remember(j.history, s.failure, j.attempt, j.worker, hour) END,
                error_class = coalesce(s.class, j.error_class),
                settled_claim = j.claim, settled_as = s.verdict + recovering
            FROM unnest(p_jobs, p_claims, p_verdicts, p_reasons, p_delays, p_results, p_failures, p_classes)
                WITH ORDINALITY AS s (job, claim, verdict, reason, delay, result, failure, class, n)
            WHERE j.id = s.job AND j.claim = s.claim AND (NOT p_recovers OR j.lease_until < hour)
            RETURNING s.n, j.id, j.due, j.limit_max, j.rank, j.state, j.queue, j.kind, j.limit_key, j.tags,
                j.lease_from, j.expires_at
        ), tallied AS (
            INSERT INTO leasehold.tallies SELECT d.queue, 3, d.state, count(*) FROM done d GROUP BY d.queue, d.state
        ), returned AS (
            DELETE FROM leasehold.leases l USING done d WHERE l.lease_from = d.lease_from AND l.id = d.id
        ), waits AS (
            INSERT INTO leasehold.waiting
                SELECT d.id, d.due, d.limit_max, d.rank, d.state, d.queue, d.kind, d.limit_key, d.tags FROM done d
                WHERE d.state <= 2
        ), is_over AS (
            INSERT INTO leasehold.ended SELECT d.expires_at, d.id FROM done d
                WHERE d.state >= 4 AND d.expires_at IS NOT NULL
        )
        SELECT array_agg(d.n), 1::smallint, d.queue, d.state FROM done d GROUP BY d.queue, d.state
    LOOP
        settled := settled || ns;
        RETURN NEXT;
    END LOOP;
    IF cardinality(settled) < cardinality(p_jobs) THEN
        RETURN QUERY
        SELECT array_agg(o.n), o.answer, NULL, NULL::smallint FROM (
            SELECT s.n, CASE WHEN j.settled_claim = s.claim AND j.settled_as = s.verdict + recovering
                AND j.claim IS DISTINCT FROM s.claim THEN 2 ELSE 3 END::smallint AS answer
            FROM unnest(p_jobs, p_claims, p_verdicts) WITH ORDINALITY AS s (job, claim, verdict, n)
                LEFT JOIN leasehold.jobs j ON j.id = s.job
            WHERE s.n <> ALL (settled)
                AND (j.claim = s.claim AND (NOT p_recovers OR j.lease_until < hour)) IS NOT TRUE) AS o
        GROUP BY o.answer;
    END IF;
    IF random() < 0.01 THEN
        PERFORM leasehold.tidy(hour);
    END IF;
END
$body$;

-- Extends leases; those that are held have a row.
CREATE FUNCTION leasehold.renew(
    p_now bigint, p_jobs uuid[], p_claims uuid[], p_leases bigint[], p_progress text[]
) RETURNS TABLE (n bigint, until bigint, cancel_requested boolean)
LANGUAGE plpgsql AS $body$
DECLARE
    hour bigint := coalesce(p_now, leasehold.hour());
BEGIN
    RETURN QUERY
    UPDATE leasehold.jobs j SET
        lease_until = greatest(j.lease_until, leasehold.later(hour, s.lease)),
        progress = coalesce(s.progress, j.progress)
    FROM unnest(p_jobs, p_claims, p_leases, p_progress) WITH ORDINALITY AS s (job, claim, lease, progress, n)
    WHERE j.id = s.job AND j.claim = s.claim
    RETURNING s.n, j.lease_until, j.cancel_requested;
END
$body$;

-- The leases that ran out, longest ago first.
CREATE FUNCTION leasehold.expired(p_now bigint, p_limit bigint) RETURNS SETOF leasehold.jobs
LANGUAGE plpgsql AS $body$
DECLARE
    hour bigint := coalesce(p_now, leasehold.hour());
BEGIN
    RETURN QUERY SELECT j.* FROM leasehold.leases l JOIN leasehold.jobs j ON j.id = l.id
        WHERE l.lease_from < hour AND j.claim IS NOT NULL AND j.lease_until < hour
        ORDER BY j.lease_until, j.id LIMIT p_limit;
END
$body$;

-- Takes jobs out of where they stand, before their rows change in some way that has no statement of its own.
CREATE FUNCTION leasehold.displace(p_jobs uuid[]) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
    DELETE FROM leasehold.waiting w USING leasehold.jobs j
        WHERE j.id = ANY (p_jobs) AND j.state <= 2 AND j.limit_key IS NULL AND w.limit_key IS NULL
            AND w.queue = j.queue AND w.rank = j.rank AND w.kind = j.kind AND w.due = j.due AND w.id = j.id;
    DELETE FROM leasehold.waiting w USING leasehold.jobs j
        WHERE j.id = ANY (p_jobs) AND j.state <= 2 AND j.limit_key IS NOT NULL AND w.limit_key IS NOT NULL
            AND w.queue = j.queue AND w.rank = j.rank AND w.due = j.due AND w.id = j.id;
    DELETE FROM leasehold.leases l USING leasehold.jobs j
        WHERE j.id = ANY (p_jobs) AND j.state = 3 AND l.lease_from = j.lease_from AND l.id = j.id;
    DELETE FROM leasehold.ended e USING leasehold.jobs j
        WHERE j.id = ANY (p_jobs) AND j.state > 3 AND e.expires_at = j.expires_at AND e.id = j.id;
END
$body$;

-- Puts them where they stand now.
CREATE FUNCTION leasehold.place(p_jobs uuid[]) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
    INSERT INTO leasehold.waiting
        SELECT j.id, j.due, j.limit_max, j.rank, j.state, j.queue, j.kind, j.limit_key, j.tags FROM leasehold.jobs j
        WHERE j.id = ANY (p_jobs) AND j.state <= 2;
    INSERT INTO leasehold.ended SELECT j.expires_at, j.id FROM leasehold.jobs j
        WHERE j.id = ANY (p_jobs) AND j.state > 3 AND j.expires_at IS NOT NULL;
END
$body$;

-- Keeps claims and prunings away from jobs that are to be locked next: those lock where a job stands before its row, so
-- whoever changes a job does it in that order too.
CREATE FUNCTION leasehold.hold(p_jobs uuid[]) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
    PERFORM FROM leasehold.jobs j CROSS JOIN LATERAL (
            SELECT w.id FROM leasehold.waiting w
            WHERE j.limit_key IS NULL AND w.limit_key IS NULL
                AND w.queue = j.queue AND w.rank = j.rank AND w.kind = j.kind AND w.due = j.due AND w.id = j.id
            FOR UPDATE) AS h
        WHERE j.id = ANY (p_jobs) AND j.state <= 2;
    PERFORM FROM leasehold.jobs j CROSS JOIN LATERAL (
            SELECT w.id FROM leasehold.waiting w
            WHERE j.limit_key IS NOT NULL AND w.limit_key IS NOT NULL
                AND w.queue = j.queue AND w.rank = j.rank AND w.due = j.due AND w.id = j.id
            FOR UPDATE) AS h
        WHERE j.id = ANY (p_jobs) AND j.state <= 2;
    PERFORM FROM leasehold.jobs j CROSS JOIN LATERAL (
            SELECT e.id FROM leasehold.ended e WHERE e.expires_at = j.expires_at AND e.id = j.id FOR UPDATE) AS h
        WHERE j.id = ANY (p_jobs) AND j.state > 3;
END
$body$;

-- Takes records that cannot be read out of the way, as failed (clause B3): those that still run under these claims.
CREATE FUNCTION leasehold.set_aside(p_now bigint, p_jobs uuid[], p_keep bigint) RETURNS void
LANGUAGE plpgsql AS $body$
DECLARE
    hour bigint := coalesce(p_now, leasehold.hour());
    held uuid[];
BEGIN
    held := ARRAY(SELECT j.id FROM leasehold.jobs j WHERE j.id = ANY (p_jobs) AND j.claim IS NOT NULL
        ORDER BY j.id FOR UPDATE);
    PERFORM leasehold.displace(held);
    WITH done AS (
        UPDATE leasehold.jobs j SET state = 5, reason = 'unreadable', finished_at = hour,
            expires_at = leasehold.later(hour, p_keep), claim = NULL, lease_until = NULL, unique_key = NULL
        WHERE j.id = ANY (held) RETURNING j.queue
    )
    INSERT INTO leasehold.tallies SELECT d.queue, 3, 5, count(*) FROM done d GROUP BY d.queue;
    PERFORM leasehold.place(held);
END
$body$;
