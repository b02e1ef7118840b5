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
-- this very moment has no answer: ask again. On a caller's own connection its settings are not ours, as of an enqueue.
CREATE FUNCTION leasehold.settle(
    p_now bigint, p_recovers boolean, p_jobs uuid[], p_claims uuid[], p_verdicts smallint[], p_reasons text[],
    p_delays bigint[], p_results bytea[], p_failures text[], p_classes text[], p_queues text[]
) RETURNS TABLE (ns bigint[], answer smallint, queue text, state smallint)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET cpu_tuple_cost = 1 SET jit = off SET plan_cache_mode = force_generic_plan
AS $body$
DECLARE
    hour bigint := coalesce(p_now, leasehold.hour());
    recovering smallint := CASE WHEN p_recovers THEN 10 ELSE 0 END;
    settled bigint[] := '{}';
    busy uuid[] := '{}';
BEGIN
    IF p_recovers THEN
        -- What somebody is about to settle is not waited for.
        busy := ARRAY(
            SELECT u.job FROM unnest(p_jobs) AS u (job) LEFT JOIN LATERAL (
                SELECT true FROM leasehold.jobs e WHERE e.id = u.job OFFSET 0 FOR NO KEY UPDATE SKIP LOCKED) AS e (mine)
                ON true
            WHERE e.mine IS NULL);
    END IF;
    FOR ns, answer, queue, state IN
        WITH done AS (
            UPDATE leasehold.jobs j SET
                (state, reason, due, attempt, finished_at, expires_at, unique_key, result, queue) = (
                    SELECT t.state,
                        CASE WHEN t.state = s.verdict THEN s.reason WHEN t.state = 6 THEN 'cancelled'
                            WHEN t.state = 5 THEN 'max_attempts' ELSE s.reason END,
                        CASE WHEN t.state >= 4 THEN j.due ELSE t.due END,
                        CASE WHEN t.state <= 2 AND s.verdict = 2 THEN j.attempt - 1 ELSE j.attempt END,
                        CASE WHEN t.state >= 4 THEN hour END,
                        leasehold.later(hour, t.keep),
                        CASE WHEN t.state <= 2 OR j.unique_scope = 3 THEN j.unique_key END,
                        s.result,
                        -- One that ends stays where it is.
                        CASE WHEN t.state <= 2 THEN coalesce(s.queue, j.queue) ELSE j.queue END
                    FROM (
                        SELECT b.state, b.due, CASE b.state WHEN 4 THEN j.keep_succeeded WHEN 5 THEN j.keep_failed
                            WHEN 6 THEN j.keep_cancelled END AS keep
                        FROM (
                            SELECT leasehold.becomes(s.verdict, j.cancel_requested, j.attempt, j.max_attempts, d.due, hour)
                                AS state, d.due
                            FROM (SELECT CASE WHEN s.verdict = 2 AND s.delay = 0 THEN j.due
                                ELSE leasehold.later(hour, coalesce(s.delay, 0)) END AS due) AS d) AS b
                        -- So `keep` is a value: given the expression, `later` would be called, which takes longer than to
                        -- write it out here.
                        OFFSET 0) AS t),
                claim = NULL, lease_until = NULL, cancel_requested = false,
                crashes = CASE WHEN p_recovers THEN j.crashes + 1 ELSE j.crashes END,
                history = CASE WHEN s.failure IS NULL THEN j.history
                    ELSE leasehold.remember(j.history, s.failure, j.attempt, j.worker, hour) END,
                error_class = coalesce(s.class, j.error_class),
                settled_claim = j.claim, settled_as = s.verdict + recovering
            FROM (
                SELECT u.*, e.place, e.was_in
                FROM unnest(p_jobs, p_claims, p_verdicts, p_reasons, p_delays, p_results, p_failures, p_classes, p_queues)
                    WITH ORDINALITY AS u (job, claim, verdict, reason, delay, result, failure, class, queue, n)
                    CROSS JOIN LATERAL (
                        SELECT e.ctid, e.queue FROM leasehold.jobs e WHERE e.id = u.job OFFSET 0) AS e (place, was_in)
                WHERE u.job <> ALL (busy)
            ) AS s
            WHERE j.ctid = s.place AND j.claim = s.claim AND (NOT p_recovers OR j.lease_until < hour)
            RETURNING s.n, s.was_in, j.id, j.due, j.limit_max, j.rank, j.state, j.queue, j.kind, j.limit_key, j.tags, j.limit_ends,
                j.expires_at
        ), tallied AS (
            -- One that was sent to another queue left the one and came into the other.
            INSERT INTO leasehold.tallies
                SELECT d.queue, CASE WHEN d.was_in = d.queue THEN 3 ELSE 0 END, d.state, count(*) FROM done d GROUP BY 1, 2, 3
                UNION ALL
                SELECT d.was_in, 3, 0, count(*) FROM done d WHERE d.was_in <> d.queue GROUP BY d.was_in
        ), freed AS (
            DELETE FROM leasehold.slots f WHERE f.ctid = ANY (ARRAY(
                SELECT h.ctid FROM done d CROSS JOIN LATERAL (
                    SELECT h.ctid FROM leasehold.slots h WHERE h.limit_key = d.limit_key AND h.id = d.id OFFSET 0) AS h
                WHERE d.limit_key IS NOT NULL))
        ), waits AS (
            INSERT INTO leasehold.waiting
                SELECT d.id, d.due, d.limit_max, d.rank, d.state, d.queue, d.kind, d.limit_key, d.tags, d.limit_ends FROM done d
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
                AND (j.claim = s.claim AND (NOT p_recovers OR j.lease_until < hour AND s.job <> ALL (busy)))
                    IS NOT TRUE) AS o
        GROUP BY o.answer;
    END IF;
    IF random() < 0.01 THEN
        PERFORM leasehold.tidy(hour);
    END IF;
END
$body$;

-- Extends leases; those that are held have a row. One that somebody else has locked is not waited for, so that it keeps no
-- other from being extended: its row has no end, and it is asked for again. One that is lost already stays so.
CREATE FUNCTION leasehold.renew(
    p_now bigint, p_jobs uuid[], p_claims uuid[], p_leases bigint[], p_progress text[]
) RETURNS TABLE (n bigint, until bigint, cancel_requested boolean)
LANGUAGE plpgsql AS $body$
DECLARE
    hour bigint := coalesce(p_now, leasehold.hour());
    free uuid[];
BEGIN
    -- Where they lie is looked up next, and must be true until they are written.
    free := ARRAY(
        SELECT u.job FROM unnest(p_jobs) AS u (job) CROSS JOIN LATERAL (
            SELECT FROM leasehold.jobs e WHERE e.id = u.job OFFSET 0 FOR NO KEY UPDATE SKIP LOCKED) AS e);
    RETURN QUERY SELECT u.n, NULL::bigint, NULL::boolean
        FROM unnest(p_jobs, p_claims) WITH ORDINALITY AS u (job, claim, n) CROSS JOIN LATERAL (
            SELECT e.claim FROM leasehold.jobs e WHERE e.id = u.job OFFSET 0) AS e
        WHERE u.job <> ALL (free) AND e.claim = u.claim;
    RETURN QUERY
    UPDATE leasehold.jobs j SET
        lease_until = greatest(j.lease_until, leasehold.later(hour, s.lease)),
        progress = coalesce(s.progress, j.progress)
    FROM (
        SELECT u.*, e.place
        FROM unnest(p_jobs, p_claims, p_leases, p_progress) WITH ORDINALITY AS u (job, claim, lease, progress, n)
            CROSS JOIN LATERAL (SELECT e.ctid FROM leasehold.jobs e WHERE e.id = u.job OFFSET 0) AS e (place)
        WHERE u.job = ANY (free)
    ) AS s
    WHERE j.ctid = s.place AND j.claim = s.claim
    RETURNING s.n, j.lease_until, j.cancel_requested;
END
$body$;

-- The leases that ran out, longest ago first. Claims whose jobs are settled may stand before them, more than one call has
-- time for: what was looked through by then is not looked through again.
CREATE FUNCTION leasehold.expired(p_now bigint, p_limit bigint) RETURNS SETOF leasehold.jobs
LANGUAGE plpgsql AS $body$
DECLARE
    hour bigint := coalesce(p_now, leasehold.hour());
    patience timestamptz := clock_timestamp() + interval '2 seconds';
    looked record;
    seen uuid[] := '{}';
    last_end bigint;
    last_claim uuid;
    n bigint;
    all_n bigint := 0;
BEGIN
    LOOP
        SELECT * INTO looked FROM leasehold.look_through(hour, last_end, last_claim);
        EXIT WHEN looked.last_end IS NULL;
        RETURN QUERY SELECT j.* FROM unnest(looked.over) AS c (claim)
            CROSS JOIN LATERAL (SELECT o.jobs FROM leasehold.claims o WHERE o.claim = c.claim OFFSET 0) AS o
            CROSS JOIN unnest(o.jobs) AS u (job)
            CROSS JOIN LATERAL (SELECT * FROM leasehold.jobs e WHERE e.id = u.job OFFSET 0) AS j
            WHERE c.claim <> ALL (seen) AND j.claim = c.claim AND j.lease_until < hour
            ORDER BY j.lease_until, j.id LIMIT p_limit - all_n;
        GET DIAGNOSTICS n = ROW_COUNT;
        all_n := all_n + n;
        EXIT WHEN all_n >= p_limit OR clock_timestamp() > patience;
        seen := seen || looked.over;
        last_end := looked.last_end;
        last_claim := looked.last_claim;
    END LOOP;
END
$body$;

-- Looks through some claims behind this one of which a lease may have run out, and answers with those of which one has,
-- and the last one. It waits for nobody: what is noted here on an old view is noted too early at worst.
CREATE FUNCTION leasehold.look_through(p_hour bigint, p_after_end bigint, p_after_claim uuid)
RETURNS TABLE (over uuid[], last_end bigint, last_claim uuid)
LANGUAGE plpgsql AS $body$
BEGIN
    RETURN QUERY
    WITH few AS MATERIALIZED (
        SELECT f.claim, f.first_end, f.jobs FROM (
            SELECT c.*, sum(c.n) OVER (ORDER BY c.first_end, c.claim ROWS UNBOUNDED PRECEDING) - c.n AS before
            FROM (
                SELECT o.claim, o.first_end, o.jobs, cardinality(o.jobs) AS n FROM leasehold.claims o
                WHERE o.first_end < p_hour
                    AND (p_after_end IS NULL OR (o.first_end, o.claim) > (p_after_end, p_after_claim))
                ORDER BY o.first_end, o.claim LIMIT 2000) AS c) AS f
        WHERE f.before < 20000
    ), now AS MATERIALIZED (
        SELECT s.claim, s.first_end AS was, (
            SELECT min(j.lease_until) FROM unnest(s.jobs) AS u (job) CROSS JOIN LATERAL (
                SELECT e.claim, e.lease_until FROM leasehold.jobs e WHERE e.id = u.job OFFSET 0) AS j
            WHERE j.claim = s.claim) AS first_end
        FROM few s
    ), noted AS (
        UPDATE leasehold.claims c SET first_end = m.first_end FROM (
            SELECT n.first_end, l.place FROM now n CROSS JOIN LATERAL (
                SELECT l.ctid AS place FROM leasehold.claims l WHERE l.claim = n.claim AND l.first_end = n.was
                OFFSET 0 FOR UPDATE SKIP LOCKED) AS l
            WHERE n.first_end IS DISTINCT FROM n.was) AS m
        WHERE c.ctid = m.place
    )
    SELECT coalesce(array_agg(n.claim) FILTER (WHERE n.first_end < p_hour), '{}'),
        (array_agg(n.was ORDER BY n.was DESC, n.claim DESC))[1],
        (array_agg(n.claim ORDER BY n.was DESC, n.claim DESC))[1]
    FROM now n;
END
$body$;

-- Looks through all claims of which a lease may have run out, as far as there is time.
CREATE FUNCTION leasehold.look_through_all(p_hour bigint) RETURNS void
LANGUAGE plpgsql AS $body$
DECLARE
    patience timestamptz := clock_timestamp() + interval '20 seconds';
    last_one record;
BEGIN
    SELECT NULL::bigint AS last_end, NULL::uuid AS last_claim INTO last_one;
    LOOP
        SELECT l.last_end, l.last_claim INTO last_one
            FROM leasehold.look_through(p_hour, last_one.last_end, last_one.last_claim) l;
        EXIT WHEN last_one.last_end IS NULL OR clock_timestamp() > patience;
    END LOOP;
END
$body$;

-- Takes jobs out of where they stand, before their rows change in some way that has no statement of its own. Their rows are
-- locked: only who has a job's lock may take it from its place, or put it there.
CREATE FUNCTION leasehold.displace(p_jobs uuid[]) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
    DELETE FROM leasehold.waiting d WHERE d.ctid = ANY (ARRAY(SELECT w.place FROM leasehold.waiting_places(p_jobs) w));
    DELETE FROM leasehold.slots d WHERE d.ctid = ANY (ARRAY(
        SELECT h.ctid FROM leasehold.jobs j CROSS JOIN LATERAL (
            SELECT h.ctid FROM leasehold.slots h WHERE h.limit_key = j.limit_key AND h.id = j.id OFFSET 0) AS h
        WHERE j.id = ANY (p_jobs) AND j.state = 3 AND j.limit_key IS NOT NULL));
    DELETE FROM leasehold.ended d WHERE d.ctid = ANY (ARRAY(SELECT e.place FROM leasehold.ended_places(p_jobs) e));
END
$body$;

-- Where those of these jobs stand that wait.
CREATE FUNCTION leasehold.waiting_places(p_jobs uuid[]) RETURNS TABLE (place tid)
LANGUAGE plpgsql AS $body$
BEGIN
    RETURN QUERY SELECT w.ctid FROM leasehold.jobs j CROSS JOIN LATERAL (
            SELECT w.ctid FROM leasehold.waiting w
            WHERE w.limit_key IS NULL AND w.queue = j.queue AND w.rank = j.rank AND w.kind = j.kind
                AND w.due = j.due AND w.id = j.id OFFSET 0) AS w
        WHERE j.id = ANY (p_jobs) AND j.state <= 2 AND j.limit_key IS NULL;
    RETURN QUERY SELECT w.ctid FROM leasehold.jobs j CROSS JOIN LATERAL (
            SELECT w.ctid FROM leasehold.waiting w
            WHERE w.limit_key IS NOT NULL AND w.queue = j.queue AND w.rank = j.rank
                AND w.due = j.due AND w.id = j.id OFFSET 0) AS w
        WHERE j.id = ANY (p_jobs) AND j.state <= 2 AND j.limit_key IS NOT NULL;
END
$body$;

-- Where those of them stand that have ended.
CREATE FUNCTION leasehold.ended_places(p_jobs uuid[]) RETURNS TABLE (place tid)
LANGUAGE plpgsql AS $body$
BEGIN
    RETURN QUERY SELECT e.ctid FROM leasehold.jobs j CROSS JOIN LATERAL (
            SELECT e.ctid FROM leasehold.ended e WHERE e.expires_at = j.expires_at AND e.id = j.id OFFSET 0) AS e
        WHERE j.id = ANY (p_jobs) AND j.state > 3;
END
$body$;

-- Puts them where they stand now.
CREATE FUNCTION leasehold.place(p_jobs uuid[]) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
    INSERT INTO leasehold.waiting
        SELECT j.id, j.due, j.limit_max, j.rank, j.state, j.queue, j.kind, j.limit_key, j.tags, j.limit_ends FROM leasehold.jobs j
        WHERE j.id = ANY (p_jobs) AND j.state <= 2;
    INSERT INTO leasehold.ended SELECT j.expires_at, j.id FROM leasehold.jobs j
        WHERE j.id = ANY (p_jobs) AND j.state > 3 AND j.expires_at IS NOT NULL;
END
$body$;

-- Takes records that cannot be read out of the way, as failed (clause B3): those that still run under these claims.
CREATE FUNCTION leasehold.set_aside(p_now bigint, p_jobs uuid[], p_claims uuid[], p_keep bigint) RETURNS void
LANGUAGE plpgsql AS $body$
DECLARE
    hour bigint := coalesce(p_now, leasehold.hour());
    held uuid[];
BEGIN
    held := ARRAY(
        SELECT j.id FROM unnest(p_jobs, p_claims) AS u (job, claim) CROSS JOIN LATERAL (
            SELECT e.id FROM leasehold.jobs e WHERE e.id = u.job AND e.claim = u.claim OFFSET 0 FOR UPDATE) AS j);
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
