-- Whether a job's tags are what a claim asks for (clause C7).
CREATE FUNCTION leasehold.suits(tags text[], p_has_all text[], p_offered text[]) RETURNS boolean LANGUAGE sql IMMUTABLE AS
$body$ SELECT (p_has_all IS NULL OR coalesce(tags, '{}') @> p_has_all) AND (p_offered IS NULL OR coalesce(tags, '{}') <@ p_offered) $body$;

-- The kinds of which jobs without a limit key wait in these queues at this rank: one look per kind that there is.
CREATE FUNCTION leasehold.lanes(p_queues text[], p_rank smallint, p_only text[], p_except text[])
RETURNS TABLE (queue text, kind text)
LANGUAGE plpgsql STABLE AS $body$
BEGIN
    IF p_only IS NOT NULL THEN
        RETURN QUERY SELECT q, k FROM unnest(p_queues) q CROSS JOIN unnest(p_only) k;
        RETURN;
    END IF;
    RETURN QUERY
    WITH RECURSIVE found AS (
        SELECT q.queue, j.kind FROM unnest(p_queues) AS q (queue) CROSS JOIN LATERAL (
            SELECT w.kind FROM leasehold.waiting w
            WHERE w.queue = q.queue AND w.rank = p_rank AND w.limit_key IS NULL
            ORDER BY w.kind LIMIT 1) AS j
        UNION ALL
        SELECT f.queue, j.kind FROM found f CROSS JOIN LATERAL (
            SELECT w.kind FROM leasehold.waiting w
            WHERE w.queue = f.queue AND w.rank = p_rank AND w.kind > f.kind AND w.limit_key IS NULL
            ORDER BY w.kind LIMIT 1) AS j
    )
    SELECT f.queue, f.kind FROM found f WHERE p_except IS NULL OR f.kind <> ALL (p_except);
END
$body$;

-- The next lower priority of which jobs wait in these queues; none if there is none.
CREATE FUNCTION leasehold.next_rank(p_queues text[], p_after smallint) RETURNS smallint LANGUAGE plpgsql STABLE AS $body$
BEGIN
    RETURN (
        SELECT min(r.rank) FROM unnest(p_queues) AS q (queue) CROSS JOIN LATERAL (
            (SELECT w.rank FROM leasehold.waiting w
             WHERE w.queue = q.queue AND w.rank > p_after AND w.limit_key IS NULL
             ORDER BY w.rank LIMIT 1)
            UNION ALL
            (SELECT w.rank FROM leasehold.waiting w
             WHERE w.queue = q.queue AND w.rank > p_after AND w.limit_key IS NOT NULL
             ORDER BY w.rank LIMIT 1)) AS r);
END
$body$;

-- The first due jobs without a limit key of these queues at this rank, locked; what others hold is passed over. A row of
-- `waiting` never changes, so it is told by where it lies.
CREATE FUNCTION leasehold.pick_free(
    p_hour bigint, p_queues text[], p_rank smallint, p_only text[], p_except text[], p_has_all text[],
    p_offered text[], p_room bigint
) RETURNS tid[]
LANGUAGE plpgsql AS $body$
DECLARE
    lane_queues text[];
    lane_kinds text[];
    shares bigint[];
    picked tid[];
BEGIN
    SELECT array_agg(l.queue), array_agg(l.kind), array_agg(p_room) INTO lane_queues, lane_kinds, shares
        FROM leasehold.lanes(p_queues, p_rank, p_only, p_except) AS l;
    IF cardinality(lane_queues) > 1 THEN
        -- How many of each lane are among the first; only so many are locked.
        SELECT array_agg(coalesce(s.n, 0) ORDER BY l.place) INTO shares
        FROM unnest(lane_queues, lane_kinds) WITH ORDINALITY AS l (queue, kind, place) LEFT JOIN (
            SELECT f.place, count(*) AS n FROM (
                SELECT l.place FROM unnest(lane_queues, lane_kinds) WITH ORDINALITY AS l (queue, kind, place)
                CROSS JOIN LATERAL (
                    SELECT w.due, w.id FROM leasehold.waiting w
                    WHERE w.queue = l.queue AND w.rank = p_rank AND w.kind = l.kind AND w.due <= p_hour
                        AND w.limit_key IS NULL AND leasehold.suits(w.tags, p_has_all, p_offered)
                    ORDER BY w.due, w.id LIMIT p_room) AS c
                ORDER BY c.due, c.id LIMIT p_room) AS f
            GROUP BY f.place) AS s ON s.place = l.place;
    END IF;
    picked := leasehold.lock_free(p_hour, p_rank, p_has_all, p_offered, lane_queues, lane_kinds, shares, '{}');
    IF cardinality(lane_queues) > 1 AND cardinality(picked) < (SELECT sum(s) FROM unnest(shares) s) THEN
        -- Somebody holds some of them; what comes behind those, in whatever lane, may be had.
        SELECT array_agg(p_room - cardinality(picked)) INTO shares FROM unnest(lane_queues);
        picked := picked || (leasehold.lock_free(
            p_hour, p_rank, p_has_all, p_offered, lane_queues, lane_kinds, shares, picked))[:p_room - cardinality(picked)];
    END IF;
    RETURN picked;
END
$body$;

-- The first of these lanes, as many of each as its share, but for those that are left out; locked.
CREATE FUNCTION leasehold.lock_free(
    p_hour bigint, p_rank smallint, p_has_all text[], p_offered text[], p_queues text[], p_kinds text[],
    p_shares bigint[], p_left_out tid[]
) RETURNS tid[]
LANGUAGE plpgsql AS $body$
BEGIN
    RETURN ARRAY(
        SELECT c.ctid FROM unnest(p_queues, p_kinds, p_shares) AS l (queue, kind, n) CROSS JOIN LATERAL (
            SELECT w.ctid, w.id, w.due FROM leasehold.waiting w CROSS JOIN LATERAL (
                SELECT FROM leasehold.jobs j WHERE j.id = w.id AND j.state <= 2 OFFSET 0 FOR NO KEY UPDATE SKIP LOCKED) AS j
            WHERE w.queue = l.queue AND w.rank = p_rank AND w.kind = l.kind AND w.due <= p_hour
                AND w.limit_key IS NULL AND leasehold.suits(w.tags, p_has_all, p_offered)
                AND w.ctid <> ALL (p_left_out)
            ORDER BY w.due, w.id LIMIT l.n) AS c
        WHERE l.n > 0
        ORDER BY c.due, c.id);
END
$body$;

-- How many jobs of each limit key run.
CREATE FUNCTION leasehold.running() RETURNS TABLE (limit_key text, n bigint) LANGUAGE plpgsql AS $body$
BEGIN
    RETURN QUERY SELECT r.limit_key, count(*) FROM leasehold.slots r GROUP BY r.limit_key;
END
$body$;

-- The first due jobs with a limit key that has room, as far as is known before any lock is taken. Of each key no more
-- than have room. First by walking over those that wait; where thousands wait for keys that are full, by looking at
-- each key once.
CREATE FUNCTION leasehold.look_limited(
    p_hour bigint, p_queues text[], p_rank smallint, p_only text[], p_except text[], p_has_all text[],
    p_offered text[], p_room bigint, p_chosen uuid[], p_chosen_keys text[], p_tried uuid[]
) RETURNS TABLE (place tid, id uuid, limit_key text)
LANGUAGE plpgsql AS $body$
DECLARE
    walk bigint := 256 + p_room;
    full_keys text[];
    full_counts bigint[];
    walked boolean;
BEGIN
    -- What runs and what this claim has chosen already.
    SELECT array_agg(r.k), array_agg(r.n) INTO full_keys, full_counts FROM (
        SELECT a.k, sum(a.n)::bigint AS n FROM (
            SELECT u.limit_key AS k, u.n FROM leasehold.running() u
            UNION ALL SELECT c, 1 FROM unnest(p_chosen_keys) c) AS a GROUP BY a.k) AS r;
    walked := NOT EXISTS (
        SELECT FROM unnest(p_queues) AS q (queue) WHERE (
            SELECT true FROM leasehold.waiting w
            WHERE w.queue = q.queue AND w.rank = p_rank AND w.due <= p_hour AND w.limit_key IS NOT NULL
            ORDER BY w.due, w.id OFFSET walk LIMIT 1));
    IF walked THEN
        RETURN QUERY
        SELECT o.ctid, o.id, o.limit_key FROM (
            SELECT c.*, coalesce(r.n, 0)
                + row_number() OVER (PARTITION BY c.limit_key, c.limit_max ORDER BY c.due, c.id) AS number
            FROM unnest(p_queues) AS q (queue)
                CROSS JOIN LATERAL (
                    SELECT w.ctid, w.* FROM leasehold.waiting w
                    WHERE w.queue = q.queue AND w.rank = p_rank AND w.due <= p_hour
                        AND w.limit_key IS NOT NULL
                    ORDER BY w.due, w.id) AS c
                LEFT JOIN unnest(full_keys, full_counts) AS r (k, n) ON r.k = c.limit_key
            WHERE leasehold.suits(c.tags, p_has_all, p_offered)
                AND (p_only IS NULL OR c.kind = ANY (p_only)) AND (p_except IS NULL OR c.kind <> ALL (p_except))
                AND c.id <> ALL (p_chosen) AND c.id <> ALL (p_tried) AND coalesce(r.n, 0) < c.limit_max) AS o
        WHERE o.number <= o.limit_max ORDER BY o.due, o.id LIMIT p_room;
        RETURN;
    END IF;
    RETURN QUERY
    WITH RECURSIVE keys AS (
        (SELECT w.limit_key AS k, w.limit_max AS m FROM leasehold.waiting w WHERE w.limit_key IS NOT NULL
         ORDER BY w.limit_key, w.limit_max LIMIT 1)
        UNION ALL
        SELECT j.k, j.m FROM keys CROSS JOIN LATERAL (
            SELECT w.limit_key AS k, w.limit_max AS m FROM leasehold.waiting w
            WHERE w.limit_key IS NOT NULL AND (w.limit_key, w.limit_max) > (keys.k, keys.m)
            ORDER BY w.limit_key, w.limit_max LIMIT 1) AS j
    )
    SELECT c.ctid, c.id, c.limit_key
    FROM keys LEFT JOIN unnest(full_keys, full_counts) AS r (k, n) ON r.k = keys.k
        CROSS JOIN unnest(p_queues) AS q (queue)
        CROSS JOIN LATERAL (
            SELECT w.ctid, w.id, w.limit_key, w.due FROM leasehold.waiting w
            WHERE w.limit_key = keys.k AND w.limit_max = keys.m AND w.queue = q.queue AND w.rank = p_rank
                AND w.due <= p_hour
                AND leasehold.suits(w.tags, p_has_all, p_offered)
                AND (p_only IS NULL OR w.kind = ANY (p_only)) AND (p_except IS NULL OR w.kind <> ALL (p_except))
                AND w.id <> ALL (p_chosen) AND w.id <> ALL (p_tried)
            ORDER BY w.due, w.id LIMIT least(p_room, keys.m - coalesce(r.n, 0))) AS c
    WHERE coalesce(r.n, 0) < keys.m
    ORDER BY c.due, c.id LIMIT p_room;
END
$body$;

-- The first due jobs with limit keys that may run, locked (clause C9). Whoever takes jobs of a key holds the key's lock
-- until it commits; only then are those that run counted. The locks are few, so that no claim can use them up: keys
-- may share one. At first they are waited for, in order; later, where an order cannot be kept, they are tried.
CREATE FUNCTION leasehold.pick_limited(
    p_hour bigint, p_queues text[], p_rank smallint, p_only text[], p_except text[], p_has_all text[],
    p_offered text[], p_room bigint, p_first boolean, p_taken_keys text[]
) RETURNS tid[]
LANGUAGE plpgsql AS $body$
DECLARE
    chosen tid[] := '{}';
    chosen_ids uuid[] := '{}';
    -- And those of what the claim takes of higher priorities.
    chosen_keys text[] := p_taken_keys;
    tried uuid[] := '{}';
    places tid[];
    seen uuid[];
    seen_keys text[];
    waits boolean := p_first;
    candidate record;
    present text;
    used bigint;
    before integer;
BEGIN
    LOOP
        SELECT array_agg(c.place), array_agg(c.id), array_agg(c.limit_key) INTO places, seen, seen_keys
        FROM leasehold.look_limited(
            p_hour, p_queues, p_rank, p_only, p_except, p_has_all, p_offered,
            p_room - cardinality(chosen), chosen_ids, chosen_keys, tried) AS c;
        EXIT WHEN seen IS NULL;
        IF waits THEN
            PERFORM pg_advisory_xact_lock(leasehold.lock_space(), l.bucket) FROM (
                SELECT DISTINCT leasehold.bucket(k) AS bucket FROM unnest(seen_keys) k ORDER BY 1 OFFSET 0) AS l;
        ELSE
            SELECT array_agg(s.place), array_agg(s.id), array_agg(s.k) INTO places, seen, seen_keys FROM (
                SELECT c.place, c.id, c.k FROM unnest(places, seen, seen_keys) AS c (place, id, k)
                WHERE leasehold.bucket(c.k) IN (
                    SELECT b.bucket FROM (SELECT DISTINCT leasehold.bucket(k) AS bucket FROM unnest(seen_keys) k OFFSET 0) AS b
                    WHERE pg_try_advisory_xact_lock(leasehold.lock_space(), b.bucket))) AS s;
            EXIT WHEN seen IS NULL;
        END IF;
        waits := false;
        before := cardinality(chosen);
        present := NULL;
        FOR candidate IN
            SELECT c.ctid AS place, c.id, c.limit_key, c.limit_max,
                coalesce((SELECT r.n FROM unnest(rr.ks, rr.ns) AS r (k, n) WHERE r.k = c.limit_key), 0) AS running
            FROM (
                -- Where one of them lay there may be another job by now.
                SELECT w.ctid, w.id, w.limit_key, w.limit_max, w.due
                FROM leasehold.waiting w CROSS JOIN LATERAL (
                    SELECT FROM leasehold.jobs j WHERE j.id = w.id AND j.state <= 2 OFFSET 0 FOR NO KEY UPDATE SKIP LOCKED) AS j
                WHERE w.ctid = ANY (places) AND w.id = ANY (seen) AND w.due <= p_hour
                    AND w.queue = ANY (p_queues) AND w.rank = p_rank
                ORDER BY w.due, w.id) AS c
                CROSS JOIN (
                    SELECT array_agg(a.k) AS ks, array_agg(a.n) AS ns FROM (
                        SELECT u.k, sum(u.n) AS n FROM (
                            SELECT r.limit_key AS k, r.n FROM leasehold.running() r
                            UNION ALL SELECT k, 1 FROM unnest(chosen_keys) k) AS u GROUP BY u.k) AS a) AS rr
            ORDER BY c.limit_key, c.due, c.id
        LOOP
            IF candidate.limit_key IS DISTINCT FROM present THEN
                present := candidate.limit_key;
                used := candidate.running;
            END IF;
            IF used < candidate.limit_max THEN
                used := used + 1;
                chosen := chosen || candidate.place;
                chosen_ids := chosen_ids || candidate.id;
                chosen_keys := chosen_keys || candidate.limit_key;
            END IF;
        END LOOP;
        EXIT WHEN cardinality(chosen) >= p_room;
        tried := tried || seen;
    END LOOP;
    RETURN chosen;
END
$body$;

-- The locks of limit keys: a number for this schema, and one of 256 for the key.
CREATE FUNCTION leasehold.lock_space() RETURNS integer LANGUAGE sql IMMUTABLE AS
$body$ SELECT hashtext('leasehold limits of ' || $name$leasehold.$name$) $body$;
CREATE FUNCTION leasehold.bucket(key text) RETURNS integer LANGUAGE sql IMMUTABLE AS
$body$ SELECT hashtext(key) & 255 $body$;

-- When the next job of these queues becomes due.
CREATE FUNCTION leasehold.next_due(p_hour bigint, p_queues text[]) RETURNS bigint LANGUAGE plpgsql STABLE AS $body$
DECLARE
    level smallint := -32768;
    first bigint;
    found_due bigint;
BEGIN
    LOOP
        level := leasehold.next_rank(p_queues, level);
        EXIT WHEN level IS NULL;
        SELECT min(d.due) INTO found_due FROM (
            (SELECT c.due FROM leasehold.lanes(p_queues, level, NULL, NULL) AS l CROSS JOIN LATERAL (
                SELECT w.due FROM leasehold.waiting w
                WHERE w.queue = l.queue AND w.rank = level AND w.kind = l.kind AND w.due > p_hour
                    AND w.limit_key IS NULL
                ORDER BY w.due LIMIT 1) AS c)
            UNION ALL
            (SELECT c.due FROM unnest(p_queues) AS q (queue) CROSS JOIN LATERAL (
                SELECT w.due FROM leasehold.waiting w
                WHERE w.queue = q.queue AND w.rank = level AND w.due > p_hour
                    AND w.limit_key IS NOT NULL
                ORDER BY w.due LIMIT 1) AS c)) AS d;
        first := least(first, found_due);
    END LOOP;
    RETURN first;
END
$body$;

-- The roots that a queue lies under: of `a/b/c`, `a/` and `a/b/` (clause C10).
CREATE FUNCTION leasehold.roots(p_queue text) RETURNS text[] LANGUAGE sql IMMUTABLE AS $body$
    SELECT ARRAY(SELECT left(p_queue, n) FROM generate_series(1, length(p_queue) - 1) AS n
        WHERE substr(p_queue, n, 1) = '/')
$body$;

-- Ends jobs without room under their limit keys that would rather end than wait (clause C9), of those that a claim came by:
-- that stand before this place, or all if it has room left.
CREATE FUNCTION leasehold.end_without_room(
    p_hour bigint, p_queues text[], p_only text[], p_except text[], p_has_all text[], p_offered text[],
    p_last_rank smallint, p_rank smallint, p_due bigint, p_id uuid, p_most bigint
) RETURNS void
LANGUAGE plpgsql AS $body$
DECLARE
    found_jobs uuid[];
BEGIN
    found_jobs := ARRAY(
        SELECT w.id FROM leasehold.waiting w CROSS JOIN LATERAL (
            -- And stands there still.
            SELECT FROM leasehold.jobs j
            WHERE j.id = w.id AND j.state <= 2 AND j.queue = w.queue AND j.rank = w.rank AND j.due = w.due
            OFFSET 0 FOR NO KEY UPDATE SKIP LOCKED) AS j
        WHERE w.limit_ends AND w.queue = ANY (p_queues) AND w.rank <= p_last_rank AND w.due <= p_hour
            AND (p_only IS NULL OR w.kind = ANY (p_only)) AND (p_except IS NULL OR w.kind <> ALL (p_except))
            AND leasehold.suits(w.tags, p_has_all, p_offered)
            AND (w.rank, w.due, w.id) < (p_rank, p_due, p_id)
            AND (SELECT count(*) FROM leasehold.slots s WHERE s.limit_key = w.limit_key) >= w.limit_max
        ORDER BY w.rank, w.due, w.id LIMIT p_most);
    IF cardinality(found_jobs) = 0 THEN
        RETURN;
    END IF;
    PERFORM leasehold.displace(found_jobs);
    INSERT INTO leasehold.tallies SELECT j.queue, j.state, 6, count(*) FROM leasehold.jobs j
        WHERE j.id = ANY (found_jobs) GROUP BY j.queue, j.state;
    UPDATE leasehold.jobs j SET state = 6, reason = 'limit_reached', finished_at = p_hour,
        expires_at = leasehold.later(p_hour, j.keep_cancelled),
        unique_key = CASE WHEN j.unique_scope = 3 THEN j.unique_key END
        WHERE j.id = ANY (found_jobs);
    PERFORM leasehold.place(found_jobs);
END
$body$;

-- Gives jobs out (clauses C1, C4, C6, C7, C9, C10, F8, E2). Plans are kept, as of an enqueue and a settlement: by what rows
-- cost in our sessions the server would make some of them anew for each call, which takes a quarter of it. If there are fewer than asked for, a last row has no id: it tells
-- the hour as `started_at`, and as `due` when the next job becomes due.
CREATE FUNCTION leasehold.claim(
    p_now bigint, p_claim uuid, p_worker uuid, p_queues text[], p_only text[], p_except text[],
    p_has_all text[], p_offered text[], p_last_rank smallint, p_limit bigint, p_lease bigint, p_rated boolean,
    p_most_ended bigint
) RETURNS SETOF leasehold.jobs
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $body$
DECLARE
    hour bigint;
    open_queues text[];
    ids uuid[];
    given tid[] := '{}';
    picked tid[];
    level smallint := -32768;
    limited boolean;
    first boolean := true;
    n bigint := 0;
    rest leasehold.jobs;
    last leasehold.jobs;
BEGIN
    -- A claim that is made again while the first is still at work waits for what that one is given (clause E2).
    PERFORM pg_advisory_xact_lock(hashtextextended('claim ' || p_claim, 0));
    SELECT c.jobs INTO ids FROM leasehold.claims c WHERE c.claim = p_claim;
    IF FOUND THEN
        RETURN QUERY SELECT * FROM leasehold.jobs j
            WHERE j.id = ANY (ids) AND j.claim = p_claim ORDER BY j.rank, j.due, j.id;
        RETURN;
    END IF;
    hour := coalesce(p_now, leasehold.hour());
    open_queues := ARRAY(SELECT q FROM unnest(p_queues) q
        WHERE NOT EXISTS (SELECT FROM leasehold.queues s WHERE s.queue = q AND (s.paused OR s.rated AND NOT p_rated))
            AND (strpos(q, '/') = 0 OR NOT EXISTS (
                SELECT FROM leasehold.queues s WHERE s.queue = ANY (leasehold.roots(q)) AND s.paused)));
    WHILE cardinality(given) < p_limit LOOP
        level := leasehold.next_rank(open_queues, level);
        EXIT WHEN level IS NULL OR level > p_last_rank;
        limited := EXISTS (SELECT FROM unnest(open_queues) AS q (queue) WHERE (
            SELECT true FROM leasehold.waiting w
            WHERE w.queue = q.queue AND w.rank = level AND w.due <= hour AND w.limit_key IS NOT NULL
            LIMIT 1));
        picked := '{}';
        IF limited THEN
            picked := leasehold.pick_limited(hour, open_queues, level, p_only, p_except, p_has_all, p_offered,
                p_limit - cardinality(given), first,
                ARRAY(SELECT w.limit_key FROM leasehold.waiting w WHERE w.ctid = ANY (given) AND w.limit_key IS NOT NULL));
            first := false;
        END IF;
        picked := picked || leasehold.pick_free(hour, open_queues, level, p_only, p_except, p_has_all, p_offered,
            p_limit - cardinality(given));
        IF limited THEN
            picked := ARRAY(SELECT w.ctid FROM leasehold.waiting w WHERE w.ctid = ANY (picked)
                ORDER BY w.due, w.id LIMIT p_limit - cardinality(given));
        END IF;
        given := given || picked;
    END LOOP;
    IF cardinality(given) > 0 THEN
        -- The hour again, since it may have been waited for locks.
        hour := coalesce(p_now, leasehold.hour());
        RETURN QUERY
        WITH gone AS (
            DELETE FROM leasehold.waiting w WHERE w.ctid = ANY (given) RETURNING w.id, w.queue, w.state
        ), tallied AS (
            INSERT INTO leasehold.tallies SELECT g.queue, g.state, 3, count(*) FROM gone g GROUP BY g.queue, g.state
        ), taken AS (
            UPDATE leasehold.jobs j SET state = 3, reason = NULL, attempt = j.attempt + 1, started_at = hour,
                claim = p_claim, worker = p_worker,
                lease_until = leasehold.later(hour, coalesce(j.lease, p_lease)),
                unique_key = CASE WHEN j.unique_scope = 1 THEN NULL ELSE j.unique_key END
            WHERE j.id = ANY (ARRAY(SELECT g.id FROM gone g)) RETURNING j.*
        ), noted AS (
            INSERT INTO leasehold.claims SELECT p_claim, hour, min(t.lease_until), array_agg(t.id) FROM taken t HAVING count(*) > 0
        ), counted AS (
            INSERT INTO leasehold.slots SELECT t.limit_key, t.id FROM taken t WHERE t.limit_key IS NOT NULL
        )
        SELECT * FROM taken t ORDER BY t.rank, t.due, t.id;
        GET DIAGNOSTICS n = ROW_COUNT;
        -- Whoever adds claims forgets as many, however few calls their jobs are settled by.
        IF random() < 0.01 THEN
            PERFORM leasehold.tidy(hour);
        END IF;
    END IF;
    IF EXISTS (SELECT FROM unnest(open_queues) AS q (queue) WHERE (
            SELECT true FROM leasehold.waiting w WHERE w.queue = q.queue AND w.limit_ends AND w.rank <= p_last_rank LIMIT 1)) THEN
        IF n >= p_limit THEN
            SELECT c.jobs INTO ids FROM leasehold.claims c WHERE c.claim = p_claim;
            SELECT * INTO last FROM leasehold.jobs j WHERE j.id = ANY (ids) ORDER BY j.rank DESC, j.due DESC, j.id DESC LIMIT 1;
        END IF;
        PERFORM leasehold.end_without_room(hour, open_queues, p_only, p_except, p_has_all, p_offered, p_last_rank,
            coalesce(last.rank, 32767::smallint), coalesce(last.due, 9223372036854775807),
            coalesce(last.id, 'ffffffff-ffff-ffff-ffff-ffffffffffff'), p_most_ended);
    END IF;
    IF n < p_limit THEN
        rest.started_at := hour;
        rest.due := leasehold.next_due(hour, open_queues);
        RETURN NEXT rest;
    END IF;
END
$body$;
