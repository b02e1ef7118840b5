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
-- what the job has become; 2 already applied; 3 lost. One that changed hands this very moment has no row: ask again.
CREATE FUNCTION leasehold.settle(
    p_now bigint, p_recovers boolean, p_jobs uuid[], p_claims uuid[], p_verdicts smallint[], p_reasons text[],
    p_delays bigint[], p_results bytea[], p_failures text[], p_classes text[]
) RETURNS TABLE (n bigint, answer smallint, queue text, state smallint, at bigint)
LANGUAGE plpgsql AS $body$
DECLARE
    hour bigint := coalesce(p_now, leasehold.hour());
    recovering smallint := CASE WHEN p_recovers THEN 10 ELSE 0 END;
BEGIN
    RETURN QUERY
    WITH s AS MATERIALIZED (
        SELECT * FROM unnest(p_jobs, p_claims, p_verdicts, p_reasons, p_delays, p_results, p_failures, p_classes)
            WITH ORDINALITY AS u (job, claim, verdict, reason, delay, result, failure, class, n)
    ), done AS (
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
                        ELSE leasehold.later(hour, s.delay) END AS due) AS d) AS t),
            claim = NULL, lease_until = NULL, lease_from = NULL, cancel_requested = false,
            crashes = CASE WHEN p_recovers THEN j.crashes + 1 ELSE j.crashes END,
            history = leasehold.remember(j.history, s.failure, j.attempt, j.worker, hour),
            error_class = coalesce(s.class, j.error_class),
            settled_claim = j.claim, settled_as = s.verdict + recovering
        FROM s
        WHERE j.id = s.job AND j.claim = s.claim AND (NOT p_recovers OR j.lease_until < hour)
        RETURNING s.n, j.queue, j.state
    ), tallied AS (
        INSERT INTO leasehold.tallies SELECT d.queue, 3, d.state, count(*) FROM done d GROUP BY d.queue, d.state
    )
    SELECT d.n, 1::smallint, d.queue, d.state, hour FROM done d
    UNION ALL
    SELECT s.n, CASE WHEN j.settled_claim = s.claim AND j.settled_as = s.verdict + recovering
            AND j.claim IS DISTINCT FROM s.claim THEN 2 ELSE 3 END::smallint,
        NULL, NULL, hour
    FROM s LEFT JOIN leasehold.jobs j ON j.id = s.job
    WHERE (j.claim = s.claim AND (NOT p_recovers OR j.lease_until < hour)) IS NOT TRUE;
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
    RETURN QUERY SELECT * FROM leasehold.jobs j
        WHERE j.state = 3 AND j.lease_from < hour AND j.lease_until < hour
        ORDER BY j.lease_until, j.id LIMIT p_limit;
END
$body$;

-- Takes records that cannot be read out of the way, as failed (clause B3): those that still run under these claims.
CREATE FUNCTION leasehold.set_aside(p_now bigint, p_jobs uuid[], p_keep bigint) RETURNS void
LANGUAGE plpgsql AS $body$
DECLARE
    hour bigint := coalesce(p_now, leasehold.hour());
BEGIN
    WITH done AS (
        UPDATE leasehold.jobs j SET state = 5, reason = 'unreadable', finished_at = hour,
            expires_at = leasehold.later(hour, p_keep), claim = NULL, lease_until = NULL, lease_from = NULL,
            unique_key = NULL
        WHERE j.id = ANY (p_jobs) AND j.claim IS NOT NULL RETURNING j.queue
    )
    INSERT INTO leasehold.tallies SELECT d.queue, 3, 5, count(*) FROM done d GROUP BY d.queue;
END
$body$;
