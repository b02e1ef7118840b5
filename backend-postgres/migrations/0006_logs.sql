-- Adds lines to the logs of running jobs (clauses C2, E2, L1, L2). Lines come flat, each with the number of its append
-- and its place in it, from 1. Answers: 1 applied, 2 already applied, 3 lost. The first row tells whether all logs
-- together have grown beyond their cap.
--
-- Job rows are held until the lines are there, so that nobody takes a job back in between; the heads of a job's and of
-- a worker's log are locked, always in one order, so that lines appear in the order of their sequences.
CREATE FUNCTION leasehold.append_logs(
    p_now bigint, p_jobs uuid[], p_claims uuid[], p_positions bigint[], p_counts bigint[],
    p_appends integer[], p_places bigint[], p_levels text[], p_messages bytea[],
    p_job_lines bigint, p_job_bytes bigint, p_store_bytes bigint
) RETURNS TABLE (n bigint, answer smallint, queue text, over boolean)
LANGUAGE plpgsql AS $body$
DECLARE
    hour bigint := coalesce(p_now, leasehold.hour());
    skips bigint[] := '{}';
    held record;
    head leasehold.log_heads;
    known bigint;
    added bigint;
BEGIN
    PERFORM FROM leasehold.jobs j WHERE j.id = ANY (p_jobs) AND j.claim IS NOT NULL ORDER BY j.id FOR SHARE;
    INSERT INTO leasehold.log_heads (source)
        SELECT DISTINCT h.source FROM (
            SELECT unnest(ARRAY[j.id, j.worker]) AS source FROM leasehold.jobs j
            WHERE j.id = ANY (p_jobs) AND j.claim IS NOT NULL) AS h
        WHERE h.source IS NOT NULL ORDER BY 1
        ON CONFLICT DO NOTHING;
    PERFORM FROM leasehold.log_heads h
        WHERE h.source IN (
            SELECT unnest(ARRAY[j.id, j.worker]) FROM leasehold.jobs j WHERE j.id = ANY (p_jobs) AND j.claim IS NOT NULL)
        ORDER BY h.source FOR UPDATE;
    FOR held IN
        SELECT a.n, a.job, a.claim, a.position, a.count, j.queue, j.id IS NOT NULL AS is_held
        FROM unnest(p_jobs, p_claims, p_positions, p_counts) WITH ORDINALITY AS a (job, claim, position, count, n)
            LEFT JOIN leasehold.jobs j ON j.id = a.job AND j.claim = a.claim
        ORDER BY a.n
    LOOP
        n := held.n;
        queue := held.queue;
        known := held.count;
        answer := 3;
        IF held.is_held THEN
            SELECT * INTO head FROM leasehold.log_heads h WHERE h.source = held.job;
            IF head.claim IS DISTINCT FROM held.claim THEN
                head.position := 0;
            END IF;
            known := least(greatest(head.position - held.position, 0), held.count);
            UPDATE leasehold.log_heads h
                SET claim = held.claim, position = greatest(head.position, held.position + held.count)
                WHERE h.source = held.job;
            answer := CASE WHEN known = held.count AND held.count > 0 THEN 2 ELSE 1 END;
        END IF;
        skips := skips || known;
        RETURN NEXT;
    END LOOP;
    WITH new AS (
        INSERT INTO leasehold.logs AS g (sequence, job, worker, attempt, at, level, message, bytes)
        SELECT nextval($name$leasehold.log_sequence$name$), l.job, j.worker, j.attempt, hour, l.level, l.message,
            octet_length(l.message) + 64
        FROM (
            SELECT p_jobs[u.append] AS job, u.level, u.message, u.n
            FROM unnest(p_appends, p_places, p_levels, p_messages) WITH ORDINALITY AS u (append, place, level, message, n)
            WHERE u.place > skips[u.append] ORDER BY u.n) AS l
            CROSS JOIN LATERAL (
                SELECT e.worker, e.attempt FROM leasehold.jobs e WHERE e.id = l.job OFFSET 0) AS j
        RETURNING g.job, g.bytes
    ), grown AS (
        UPDATE leasehold.log_heads h SET lines = h.lines + c.n, bytes = h.bytes + c.bytes
        FROM (SELECT w.job, count(*) AS n, sum(w.bytes)::bigint AS bytes FROM new w GROUP BY w.job) AS c
        WHERE h.source = c.job
    )
    SELECT coalesce(sum(w.bytes), 0) INTO added FROM new w;
    FOR head IN
        SELECT h.* FROM leasehold.log_heads h
        WHERE h.source = ANY (p_jobs) AND (h.lines > p_job_lines OR h.bytes > p_job_bytes)
    LOOP
        added := added - leasehold.trim_log(head, head.lines - p_job_lines, head.bytes - p_job_bytes);
    END LOOP;
    IF added <> 0 THEN
        INSERT INTO leasehold.log_sizes VALUES (added);
    END IF;
    n := 0;
    over := random() < greatest(0.02, 50.0 * added / p_store_bytes)
        AND (SELECT sum(z.bytes) FROM leasehold.log_sizes z) > p_store_bytes;
    RETURN NEXT;
END
$body$;

-- Drops at least so many lines and bytes of a job's log, the oldest first, and tells how many bytes went.
CREATE FUNCTION leasehold.trim_log(p_head leasehold.log_heads, p_lines bigint, p_bytes bigint) RETURNS bigint
LANGUAGE plpgsql AS $body$
DECLARE
    line record;
    cut bigint := 0;
    dropped bigint := 0;
    passed bigint := 0;
BEGIN
    FOR line IN
        SELECT l.sequence, l.bytes FROM leasehold.logs l
        WHERE l.job = p_head.source AND l.sequence > p_head.trimmed ORDER BY l.sequence
    LOOP
        EXIT WHEN passed >= p_lines AND dropped >= p_bytes;
        cut := line.sequence;
        passed := passed + 1;
        dropped := dropped + line.bytes;
    END LOOP;
    WITH gone AS (
        DELETE FROM leasehold.logs l
        WHERE l.job = p_head.source AND l.sequence > p_head.trimmed AND l.sequence <= cut
        RETURNING l.worker, l.sequence
    )
    UPDATE leasehold.log_heads h SET trimmed = greatest(h.trimmed, w.last)
    FROM (SELECT g.worker, max(g.sequence) AS last FROM gone g WHERE g.worker IS NOT NULL GROUP BY g.worker) AS w
    WHERE h.source = w.worker;
    UPDATE leasehold.log_heads h SET lines = h.lines - passed, bytes = h.bytes - dropped, trimmed = cut
    WHERE h.source = p_head.source;
    RETURN dropped;
END
$body$;

-- Drops the oldest lines of all logs until these are under their cap again, a bounded batch at a time. One at a time.
CREATE FUNCTION leasehold.trim_logs(p_store_bytes bigint) RETURNS boolean
LANGUAGE plpgsql AS $body$
DECLARE
    excess bigint;
    line record;
    sequences bigint[] := '{}';
    dropped bigint := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(leasehold.lock_space(), 256) THEN
        RETURN false;
    END IF;
    WITH gone AS (
        DELETE FROM leasehold.log_sizes s USING (
            SELECT x.ctid FROM leasehold.log_sizes x LIMIT 5000 FOR UPDATE SKIP LOCKED) AS few
        WHERE s.ctid = few.ctid RETURNING s.bytes
    )
    INSERT INTO leasehold.log_sizes SELECT sum(g.bytes) FROM gone g HAVING sum(g.bytes) <> 0;
    excess := (SELECT sum(s.bytes) FROM leasehold.log_sizes s) - p_store_bytes;
    IF excess <= 0 THEN
        RETURN false;
    END IF;
    FOR line IN SELECT l.sequence, l.bytes FROM leasehold.logs l ORDER BY l.sequence LIMIT 10000 LOOP
        EXIT WHEN dropped >= excess;
        sequences := sequences || line.sequence;
        dropped := dropped + line.bytes;
    END LOOP;
    PERFORM FROM leasehold.log_heads h WHERE h.source IN (
        SELECT unnest(ARRAY[l.job, l.worker]) FROM leasehold.logs l WHERE l.sequence = ANY (sequences))
        ORDER BY h.source FOR UPDATE;
    WITH gone AS (
        DELETE FROM leasehold.logs l WHERE l.sequence = ANY (sequences) RETURNING l.job, l.worker, l.sequence, l.bytes
    ), of_jobs AS (
        UPDATE leasehold.log_heads h
        SET lines = h.lines - d.n, bytes = h.bytes - d.bytes, trimmed = greatest(h.trimmed, d.last)
        FROM (SELECT g.job, count(*) AS n, sum(g.bytes)::bigint AS bytes, max(g.sequence) AS last FROM gone g GROUP BY g.job) AS d
        WHERE h.source = d.job
    ), of_workers AS (
        UPDATE leasehold.log_heads h SET trimmed = greatest(h.trimmed, d.last)
        FROM (SELECT g.worker, max(g.sequence) AS last FROM gone g WHERE g.worker IS NOT NULL GROUP BY g.worker) AS d
        WHERE h.source = d.worker
    )
    INSERT INTO leasehold.log_sizes SELECT -sum(g.bytes) FROM gone g HAVING sum(g.bytes) > 0;
    RETURN dropped < excess;
END
$body$;
