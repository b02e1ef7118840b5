-- Brings jobs that have just been taken in to where they stood in another store (clause P8). What is not in these lists was
-- written when they came in.
CREATE FUNCTION leasehold.bring(
    p_ids uuid[], p_options text[], p_states smallint[], p_reasons text[], p_attempts integer[], p_crashes integer[],
    p_generations integer[], p_enqueued_ats bigint[], p_started_ats bigint[], p_finished_ats bigint[], p_expires_ats bigint[],
    p_workers uuid[], p_progresses text[], p_results bytea[], p_histories text[], p_error_classes text[],
    p_unique_scopes smallint[], p_unique_untils bigint[]
) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
    PERFORM leasehold.displace(p_ids);
    WITH done AS (
        UPDATE leasehold.jobs AS j SET
            options = s.options, state = s.state, reason = s.reason, attempt = s.attempt, crashes = s.crashes,
            generation = s.generation, enqueued_at = s.enqueued_at, started_at = s.started_at, finished_at = s.finished_at,
            expires_at = s.expires_at, worker = s.worker, progress = s.progress, result = s.result,
            history = (SELECT array_agg(f.failure ORDER BY f.n)
                FROM json_array_elements_text(s.history::json) WITH ORDINALITY AS f (failure, n)),
            error_class = s.error_class, unique_scope = s.unique_scope, unique_until = s.unique_until
        FROM (
            SELECT u.*, e.place, e.was
            FROM unnest(
                p_ids, p_options, p_states, p_reasons, p_attempts, p_crashes, p_generations, p_enqueued_ats, p_started_ats,
                p_finished_ats, p_expires_ats, p_workers, p_progresses, p_results, p_histories, p_error_classes,
                p_unique_scopes, p_unique_untils
            ) AS u (
                id, options, state, reason, attempt, crashes, generation, enqueued_at, started_at, finished_at, expires_at,
                worker, progress, result, history, error_class, unique_scope, unique_until)
            CROSS JOIN LATERAL (
                SELECT e.ctid, e.state FROM leasehold.jobs e WHERE e.id = u.id OFFSET 0) AS e (place, was)
        ) AS s
        WHERE j.ctid = s.place
        RETURNING j.queue, s.was, j.state
    )
    INSERT INTO leasehold.tallies
        SELECT d.queue, d.was, d.state, count(*) FROM done d WHERE d.was <> d.state GROUP BY d.queue, d.was, d.state;
    PERFORM leasehold.place(p_ids);
END
$body$;

-- Takes in the logs of such jobs; lines come in order. As where lines are appended, heads are locked, so that a worker's lines
-- appear in the order of their sequences.
CREATE FUNCTION leasehold.admit_logs(
    p_jobs uuid[], p_workers uuid[], p_attempts integer[], p_ats bigint[], p_levels text[], p_messages bytea[],
    p_job_lines bigint, p_job_bytes bigint
) RETURNS void
LANGUAGE plpgsql AS $body$
DECLARE
    sources uuid[] := ARRAY(
        SELECT DISTINCT s.source FROM unnest(p_jobs || p_workers) AS s (source) WHERE s.source IS NOT NULL ORDER BY 1);
    head leasehold.log_heads;
    added bigint;
BEGIN
    INSERT INTO leasehold.log_heads (source) SELECT s.source FROM unnest(sources) AS s (source) ON CONFLICT DO NOTHING;
    PERFORM FROM leasehold.log_heads h WHERE h.source = ANY (sources) ORDER BY h.source FOR UPDATE;
    WITH new AS (
        INSERT INTO leasehold.logs AS g (sequence, job, worker, attempt, at, level, message, bytes)
        SELECT nextval($name$leasehold.log_sequence$name$), l.job, l.worker, l.attempt, l.at, l.level, l.message,
            octet_length(l.message) + 64
        FROM (
            SELECT * FROM unnest(p_jobs, p_workers, p_attempts, p_ats, p_levels, p_messages)
                WITH ORDINALITY AS u (job, worker, attempt, at, level, message, n) ORDER BY u.n) AS l
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
    INSERT INTO leasehold.log_sizes VALUES (added);
END
$body$;
