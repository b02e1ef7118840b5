-- Jobs that come in now, as columns, one row each. It is written out where it is used.
CREATE FUNCTION leasehold.newcomers(
    hour bigint, p_ids uuid[], p_queues text[], p_kinds text[], p_payloads bytea[], p_options text[], p_ranks smallint[],
    p_delays bigint[], p_dues bigint[], p_max_attempts integer[], p_leases bigint[],
    p_keep_succeeded bigint[], p_keep_failed bigint[], p_keep_cancelled bigint[], p_tags text[],
    p_limit_keys text[], p_limit_maxs bigint[], p_limit_ends boolean[],
    p_unique_keys text[], p_unique_scopes smallint[], p_unique_spans bigint[]
) RETURNS TABLE (
    id uuid, queue text, kind text, payload bytea, options text, rank smallint, due bigint, state smallint,
    max_attempts integer, lease bigint, keep_succeeded bigint, keep_failed bigint, keep_cancelled bigint, tags text[],
    limit_key text, limit_max bigint, limit_ends boolean,
    unique_key text, unique_scope smallint, unique_until bigint, n bigint
)
LANGUAGE sql IMMUTABLE AS $body$
    SELECT w.id, w.queue, w.kind, w.payload, w.options, w.rank, d.due, CASE WHEN d.due > hour THEN 1 ELSE 2 END::smallint,
        w.max_attempts, w.lease, w.keep_succeeded, w.keep_failed, w.keep_cancelled, string_to_array(w.tags, E'\n'),
        w.limit_key, w.limit_max, w.limit_ends, w.unique_key, w.unique_scope, leasehold.later(hour, w.unique_span), w.n
    FROM unnest(
            p_ids, p_queues, p_kinds, p_payloads, p_options, p_ranks, p_delays, p_dues, p_max_attempts,
            p_leases, p_keep_succeeded, p_keep_failed, p_keep_cancelled, p_tags, p_limit_keys, p_limit_maxs, p_limit_ends,
            p_unique_keys, p_unique_scopes, p_unique_spans
        ) WITH ORDINALITY AS w (
            id, queue, kind, payload, options, rank, delay, due, max_attempts,
            lease, keep_succeeded, keep_failed, keep_cancelled, tags, limit_key, limit_max, limit_ends,
            unique_key, unique_scope, unique_span, n)
        CROSS JOIN LATERAL (SELECT coalesce(w.due, leasehold.later(hour, w.delay))) AS d (due)
$body$;

-- Takes jobs in (clauses P2, P3, P4), also on a caller's own connection, whose settings are not ours: those that a plan
-- hangs on are set here. No id may come twice. The first row tells the hour; of each job that was not taken in one
-- more tells its place in the batch, and the holder of its unique key, or nobody if its id was there.
CREATE FUNCTION leasehold.enqueue(
    p_now bigint, p_ids uuid[], p_queues text[], p_kinds text[], p_payloads bytea[], p_options text[],
    p_ranks smallint[], p_delays bigint[], p_dues bigint[], p_max_attempts integer[], p_leases bigint[],
    p_keep_succeeded bigint[], p_keep_failed bigint[], p_keep_cancelled bigint[], p_tags text[],
    p_limit_keys text[], p_limit_maxs bigint[], p_limit_ends boolean[],
    p_unique_keys text[], p_unique_scopes smallint[], p_unique_spans bigint[], p_told text[]
) RETURNS TABLE (n bigint, holder uuid, at bigint)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET cpu_tuple_cost = 1 SET jit = off SET plan_cache_mode = force_generic_plan
AS $body$
DECLARE
    hour bigint := coalesce(p_now, leasehold.hour());
    created uuid[] := '{}';
    fresh uuid[];
    others bigint[];
    holders uuid[];
    all_told boolean;
BEGIN
    IF p_unique_keys IS NOT NULL THEN
        -- Keys whose period is over are free.
        UPDATE leasehold.jobs j SET unique_key = NULL
            WHERE j.unique_key = ANY (p_unique_keys) AND j.unique_until < hour;
    ELSIF p_told IS NULL THEN
        -- Nearly always none of the ids is there, and it is quicker not to look for them first. But not in a caller's own
        -- transaction, which would have a part of its own for each such try: many of them slow down every session.
        BEGIN
            WITH added AS (
                INSERT INTO leasehold.jobs AS j (
                    id, queue, kind, payload, options, rank, due, enqueued_at, state, max_attempts, lease,
                    keep_succeeded, keep_failed, keep_cancelled, tags, limit_key, limit_max, limit_ends)
                SELECT w.id, w.queue, w.kind, w.payload, w.options, w.rank, w.due, hour, w.state, w.max_attempts, w.lease,
                    w.keep_succeeded, w.keep_failed, w.keep_cancelled, w.tags, w.limit_key, w.limit_max, w.limit_ends
                FROM leasehold.newcomers(hour,
                    p_ids, p_queues, p_kinds, p_payloads, p_options, p_ranks, p_delays, p_dues, p_max_attempts, p_leases,
                    p_keep_succeeded, p_keep_failed, p_keep_cancelled, p_tags, p_limit_keys, p_limit_maxs, p_limit_ends,
                    NULL, NULL, NULL) AS w
                RETURNING j.id, j.due, j.limit_max, j.rank, j.state, j.queue, j.kind, j.limit_key, j.tags, j.limit_ends
            ), placed AS (
                INSERT INTO leasehold.waiting SELECT * FROM added
            )
            INSERT INTO leasehold.tallies SELECT a.queue, 0, a.state, count(*) FROM added a GROUP BY a.queue, a.state;
            created := p_ids;
        EXCEPTION WHEN unique_violation THEN
            NULL;
        END;
    END IF;
    FOR round IN 1..100 LOOP
        EXIT WHEN cardinality(created) = cardinality(p_ids);
        WITH added AS (
            INSERT INTO leasehold.jobs AS j (
                id, queue, kind, payload, options, rank, due, enqueued_at, state, max_attempts, lease,
                keep_succeeded, keep_failed, keep_cancelled, tags, limit_key, limit_max, limit_ends,
                unique_key, unique_scope, unique_until)
            SELECT w.id, w.queue, w.kind, w.payload, w.options, w.rank, w.due, hour, w.state, w.max_attempts, w.lease,
                w.keep_succeeded, w.keep_failed, w.keep_cancelled, w.tags, w.limit_key, w.limit_max, w.limit_ends,
                w.unique_key, w.unique_scope, w.unique_until
            FROM leasehold.newcomers(hour,
                p_ids, p_queues, p_kinds, p_payloads, p_options, p_ranks, p_delays, p_dues, p_max_attempts, p_leases,
                p_keep_succeeded, p_keep_failed, p_keep_cancelled, p_tags, p_limit_keys, p_limit_maxs, p_limit_ends,
                p_unique_keys, p_unique_scopes, p_unique_spans) AS w
            -- In the order of the keys, so that two batches with the same keys do not wait for each other.
            ORDER BY w.unique_key NULLS FIRST, w.n
            ON CONFLICT DO NOTHING
            RETURNING j.id, j.due, j.limit_max, j.rank, j.state, j.queue, j.kind, j.limit_key, j.tags, j.limit_ends
        ), placed AS (
            INSERT INTO leasehold.waiting SELECT * FROM added
        ), tallied AS (
            INSERT INTO leasehold.tallies SELECT a.queue, 0, a.state, count(*) FROM added a GROUP BY a.queue, a.state
        )
        SELECT coalesce(array_agg(a.id), '{}') INTO fresh FROM added a;
        created := created || fresh;
        EXIT WHEN cardinality(created) = cardinality(p_ids);
        SELECT array_agg(o.n), array_agg(o.holder), bool_and(o.there OR o.holder IS NOT NULL)
            INTO others, holders, all_told
        FROM (
            SELECT w.n, e.there IS NOT NULL AS there, CASE WHEN e.there IS NULL THEN h.id END AS holder
            FROM unnest(p_ids, p_unique_keys) WITH ORDINALITY AS w (id, unique_key, n)
                LEFT JOIN unnest(created) AS c (id) ON c.id = w.id
                LEFT JOIN LATERAL (SELECT true FROM leasehold.jobs j WHERE j.id = w.id LIMIT 1) AS e (there) ON true
                LEFT JOIN LATERAL (
                    SELECT j.id FROM leasehold.jobs j WHERE j.unique_key = w.unique_key LIMIT 1) AS h ON true
            WHERE c.id IS NULL) AS o;
        -- Whoever held a key may have let go of it meanwhile: then it is tried again.
        EXIT WHEN all_told;
        IF round = 100 THEN
            RAISE 'a unique key goes from hand to hand' USING ERRCODE = 'serialization_failure';
        END IF;
    END LOOP;
    IF p_told IS NOT NULL THEN
        PERFORM pg_notify(leasehold.channel(), told) FROM unnest(p_told) AS told;
    ELSIF random() < 0.01 THEN
        PERFORM leasehold.tidy(hour);
    END IF;
    RETURN QUERY SELECT 0::bigint, NULL::uuid, hour;
    IF cardinality(created) < cardinality(p_ids) THEN
        RETURN QUERY SELECT o.n, o.holder, hour FROM unnest(others, holders) AS o (n, holder);
    END IF;
END
$body$;

-- Gives the holder of a unique key what a newcomer brings, if it waits and is of the same kind (clause P4). Answers one row:
-- the hour, then who was replaced or holds the key and whether it was replaced, with its queue and when it is due now; nobody
-- if the newcomer may come in, and itself if it is there.
CREATE FUNCTION leasehold.replace(
    p_now bigint, p_id uuid, p_kind text, p_payload bytea, p_rank smallint, p_delay bigint, p_due bigint, p_key text,
    p_at_most bigint, p_remembered bigint
) RETURNS TABLE (at bigint, holder uuid, replaced boolean, queue text, due bigint)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET cpu_tuple_cost = 1 SET jit = off
AS $body$
DECLARE
    found_job leasehold.jobs;
    became smallint;
BEGIN
    replaced := false;
    -- One newcomer of a key after the other: each takes the holder from its place and puts it elsewhere, so whoever had
    -- locked the old place would stand in the way of one that waits for the row.
    PERFORM pg_advisory_xact_lock(hashtextextended('unique ' || p_key, 0));
    FOR round IN 1..100 LOOP
        at := coalesce(p_now, leasehold.hour());
        SELECT j.id INTO holder FROM leasehold.jobs j WHERE j.id = p_id LIMIT 1;
        EXIT WHEN FOUND;
        SELECT j.id, j.queue, j.due INTO holder, queue, due FROM leasehold.replaced r
            CROSS JOIN LATERAL (SELECT j.id, j.queue, j.due FROM leasehold.jobs j WHERE j.id = r.job OFFSET 0) AS j
            WHERE r.newcomer = p_id LIMIT 1;
        replaced := FOUND;
        EXIT WHEN replaced;
        SELECT j.id INTO holder FROM leasehold.jobs j
            WHERE j.unique_key = p_key AND (j.unique_until IS NULL OR j.unique_until >= at) LIMIT 1;
        EXIT WHEN NOT FOUND;
        SELECT * INTO found_job FROM leasehold.jobs j WHERE j.id = holder AND j.unique_key = p_key FOR NO KEY UPDATE;
        -- It let go of the key, or was replaced by a request of this very newcomer, while it was waited for.
        CONTINUE WHEN NOT FOUND OR EXISTS (SELECT FROM leasehold.replaced r WHERE r.newcomer = p_id);
        EXIT WHEN found_job.state > 2 OR found_job.kind <> p_kind;
        at := coalesce(p_now, leasehold.hour());
        queue := found_job.queue;
        due := least(coalesce(p_due, leasehold.later(at, p_delay)), leasehold.later(found_job.enqueued_at, p_at_most));
        became := CASE WHEN due > at THEN 1 ELSE 2 END;
        PERFORM leasehold.displace(ARRAY[holder]);
        UPDATE leasehold.jobs j SET payload = p_payload, rank = p_rank, due = replace.due, state = became,
            reason = 'replaced', progress = NULL WHERE j.id = holder;
        PERFORM leasehold.place(ARRAY[holder]);
        IF became <> found_job.state THEN
            INSERT INTO leasehold.tallies VALUES (replace.queue, found_job.state, became, 1);
        END IF;
        INSERT INTO leasehold.replaced (newcomer, job) VALUES (p_id, holder);
        DELETE FROM leasehold.replaced r WHERE r.newcomer IN (
            SELECT o.newcomer FROM leasehold.replaced o WHERE o.job = holder ORDER BY o.n DESC OFFSET p_remembered);
        replaced := true;
        EXIT;
    END LOOP;
    RETURN NEXT;
END
$body$;
