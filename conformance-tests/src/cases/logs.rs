//! L1, L2 and L3: what jobs write while they run.

use leasehold_core::backend::{Action, Answer, AppendLogs, Level, LogAppend, LogLine, LogSource, NewLine};
use leasehold_core::{JobId, LeasedJob};

use crate::bench::{Bench, LOST_ATTEMPT, RETRY, SUCCEED, in_time, job, lines, secs};
use crate::breach::{Done, Kept, Trouble, must, must_eq};
use crate::case::cases;

cases! {
    /// Lines come back in the order written, each with a larger sequence, whoever reads them.
    [L2] returns_lines_in_the_order_written;
    /// A line comes back as it was written, with its level, attempt, worker and time.
    [L2] returns_lines_as_they_were_written;
    /// The log of a job goes on over its attempts, and no sequence comes twice.
    [L2] numbers_the_lines_of_all_attempts_upwards;
    /// An append that is repeated is recognised by its position, whole or in part, and written once.
    [L2, E2] takes_a_repeated_append_once;
    /// Of appends that arrive twice at the same moment each line is written once, and no sequence is given twice.
    [L2, E2] takes_racing_appends_once;
    /// Each append of a batch is answered, in order; one that is lost spoils no other.
    [L2, C11] answers_a_batch_of_appends_in_order;
    /// A reader goes on after the last sequence that it saw, page by page, and misses nothing.
    [L3] resumes_after_a_sequence;
    /// A reader sees lines as they come, while the job runs, and after it has ended.
    [L3] shows_lines_while_the_job_runs;
    /// The lines of a worker are those of all jobs that it ran, in order.
    [L2, L3] follows_a_worker_over_its_jobs;
    /// The log of a job is bounded: the oldest lines go, the latest stay, and appending goes on.
    [L1, L2] drops_the_oldest_lines_at_the_cap;
    /// Long lines fill the cap sooner than short ones.
    [L1] bounds_a_log_by_its_bytes_too;
    /// A reader that fell behind the cap is told of the gap; one that did not is told of none.
    [L3, L1] tells_a_slow_reader_of_the_gap;
    /// A job that logs without end takes nothing from the log of another.
    [L1] keeps_a_quiet_jobs_log_beside_a_loud_one;
    /// Nobody's log is empty, and so is that of a job that wrote nothing or is not there.
    [L3] shows_an_empty_log_where_there_is_none;
    /// The log of a job goes with the job.
    [L1, F5] deletes_a_log_with_its_job;
}

async fn read(t: &Bench, job: JobId, after: u64, limit: usize) -> Done<Vec<LogLine>> {
    Ok(t.read_log(LogSource::Job(job), after, limit).await?.lines)
}

/// Reads all that is left of a log, a page at a time, and answers it with whether a gap was told.
async fn read_all(t: &Bench, source: LogSource, mut after: u64) -> Done<(Vec<LogLine>, bool)> {
    let (mut all, mut gap) = (Vec::new(), false);
    loop {
        let page = t.read_log(source, after, 700).await?;
        gap |= page.gap;
        let Some(last) = page.lines.last() else { return Ok((all, gap)) };
        if last.sequence <= after {
            return Err(Trouble::Unmet(format!("after {after} came the line {}", last.sequence)));
        }
        after = last.sequence;
        all.extend(page.lines);
    }
}

fn rises(lines: &[LogLine]) -> bool {
    lines.windows(2).all(|two| two[0].sequence < two[1].sequence)
}

async fn returns_lines_in_the_order_written(t: Bench) -> Kept {
    let lease = t.hold().await?;
    let mut wanted = Vec::new();
    for part in 0..5u64 {
        let texts: Vec<String> = (0..7).map(|i| format!("line {part}.{i}")).collect();
        must_eq!(t.log(&lease, part * 7, lines(texts.clone())).await?, Answer::Applied);
        wanted.extend(texts);
    }
    let found = read(&t.another().await?, lease.job.id, 0, 100).await?;
    must!(rises(&found), "the sequences do not rise: {found:?}");
    must_eq!(found.into_iter().map(|line| line.message).collect::<Vec<_>>(), wanted);
    Ok(())
}

async fn returns_lines_as_they_were_written(t: Bench) -> Kept {
    let lease = t.hold().await?;
    t.advance(secs(2));
    let levels = [Level::Debug, Level::Info, Level::Warn, Level::Error];
    let texts = ["", "$a {\"$set\":1} '; --", "\u{1b}[31mred\u{1b}[0m\r\n\ttab", "ä漢\u{1f600}"];
    let written: Vec<NewLine> =
        levels.into_iter().zip(texts).map(|(level, text)| NewLine { level, message: text.into() }).collect();
    t.log(&lease, 0, written.clone()).await?;
    let found = read(&t, lease.job.id, 0, 100).await?;
    must_eq!(found.len(), written.len());
    for (line, new) in found.into_iter().zip(written) {
        must_eq!((line.job, line.attempt, line.worker), (lease.job.id, 1, Some(t.worker)));
        must_eq!((line.at, line.level, line.message), (t.hour(), new.level, new.message));
    }
    Ok(())
}

async fn numbers_the_lines_of_all_attempts_upwards(t: Bench) -> Kept {
    let id = t.add(job()).await?;
    for _ in 0..2 {
        let lease = t.take().await?;
        t.log(&lease, 0, lines(["first", "second"])).await?;
        t.finish(&lease, RETRY).await?;
    }
    let lost = t.take().await?;
    t.log(&lost, 0, lines(["third"])).await?;
    t.lose(&lost, LOST_ATTEMPT).await?;
    let last = t.take().await?;
    t.log(&last, 0, lines(["fourth"])).await?;
    let found = read(&t, id, 0, 100).await?;
    must!(rises(&found), "the sequences do not rise: {found:?}");
    must_eq!(found.iter().map(|line| line.attempt).collect::<Vec<_>>(), [1, 1, 2, 2, 3, 4]);
    Ok(())
}

async fn takes_a_repeated_append_once(t: Bench) -> Kept {
    let lease = t.hold().await?;
    must_eq!(t.log(&lease, 0, lines(["a", "b", "c"])).await?, Answer::Applied);
    must!(t.log(&lease, 0, lines(["a", "b", "c"])).await? != Answer::Lost, "a repeated append was lost");
    let other = t.another().await?;
    must!(other.log(&lease, 1, lines(["b", "c", "d"])).await? != Answer::Lost, "an append was lost");
    must!(t.log(&lease, 2, lines(["c"])).await? != Answer::Lost, "a repeated append was lost");
    must_eq!(t.log(&lease, 4, lines(["e"])).await?, Answer::Applied);
    must_eq!(t.said(lease.job.id).await?, ["a", "b", "c", "d", "e"]);
    Ok(())
}

async fn takes_racing_appends_once(t: Bench) -> Kept {
    const ROUNDS: u64 = 20;
    let (clients, lease) = (t.several(4).await?, t.hold().await?);
    for round in 0..ROUNDS {
        let append = |client: &'_ Bench| {
            let (client, lease) = (client.clone(), lease.clone());
            async move { client.log(&lease, 2 * round, lines([format!("{round}.0"), format!("{round}.1")])).await }
        };
        for answer in futures::future::join_all(clients.iter().map(append)).await {
            must!(answer? != Answer::Lost, "an append of the holder was lost");
        }
    }
    let found = read(&t, lease.job.id, 0, 1_000).await?;
    must!(rises(&found), "the sequences do not rise: {found:?}");
    let wanted: Vec<String> = (0..ROUNDS).flat_map(|n| [format!("{n}.0"), format!("{n}.1")]).collect();
    must_eq!(found.into_iter().map(|line| line.message).collect::<Vec<_>>(), wanted);
    Ok(())
}

async fn answers_a_batch_of_appends_in_order(t: Bench) -> Kept {
    t.add_all([job(), job(), job()]).await?;
    let leases = t.claim(3).await?;
    t.finish(&leases[1], SUCCEED).await?;
    let append = |lease: &LeasedJob| {
        let (job, token) = (lease.job.id, lease.token);
        LogAppend { job, token, position: 0, lines: lines([format!("of {job}")]) }
    };
    let request = AppendLogs { appends: leases.iter().map(append).collect() };
    let answers = t.backend().append_logs(in_time(0), request).await?;
    must_eq!(answers, [Answer::Applied, Answer::Lost, Answer::Applied]);
    for (lease, answer) in leases.iter().zip(answers) {
        let wanted = usize::from(answer == Answer::Applied);
        must_eq!(t.said(lease.job.id).await?.len(), wanted);
    }
    Ok(())
}

async fn resumes_after_a_sequence(t: Bench) -> Kept {
    let lease = t.hold().await?;
    t.log(&lease, 0, lines((0..10).map(|i| i.to_string()))).await?;
    let first = read(&t, lease.job.id, 0, 4).await?;
    must_eq!(first.iter().map(|line| &line.message).collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    let rest = read(&t.another().await?, lease.job.id, first[3].sequence, 100).await?;
    must_eq!(rest.first().map(|line| line.message.as_str()), Some("4"));
    must_eq!(rest.len(), 6);
    let last = rest[5].sequence;
    must_eq!(read(&t, lease.job.id, last, 100).await?, []);
    t.log(&lease, 10, lines(["10"])).await?;
    must_eq!(read(&t, lease.job.id, last, 100).await?.len(), 1);
    must_eq!(read(&t, lease.job.id, 0, 0).await?, []);
    Ok(())
}

async fn shows_lines_while_the_job_runs(t: Bench) -> Kept {
    let (reader, lease) = (t.another().await?, t.hold().await?);
    let mut after = 0;
    for position in 0..5 {
        t.log(&lease, position, lines([position.to_string()])).await?;
        let seen = read(&reader, lease.job.id, after, 100).await?;
        must_eq!(seen.iter().map(|line| line.message.clone()).collect::<Vec<_>>(), [position.to_string()]);
        after = seen[0].sequence;
    }
    t.finish(&lease, SUCCEED).await?;
    must_eq!(reader.said(lease.job.id).await?.len(), 5);
    Ok(())
}

async fn follows_a_worker_over_its_jobs(t: Bench) -> Kept {
    let other = t.another().await?;
    let (a, b, foreign) = (t.hold().await?, t.hold().await?, other.hold().await?);
    for (i, lease) in [&a, &b, &a, &foreign, &b].into_iter().enumerate() {
        t.log(lease, i as u64, lines([i.to_string()])).await?;
    }
    let (found, gap) = read_all(&t, LogSource::Worker(t.worker), 0).await?;
    must_eq!(found.iter().map(|line| line.message.as_str()).collect::<Vec<_>>(), ["0", "1", "2", "4"]);
    must_eq!(found.iter().map(|line| line.job).collect::<Vec<_>>(), [a.job.id, b.job.id, a.job.id, b.job.id]);
    must!(rises(&found) && !gap, "the sequences of a worker's lines do not rise: {found:?}");
    let later = t.read_log(LogSource::Worker(t.worker), found[1].sequence, 100).await?;
    must_eq!(later.lines, found[2..]);
    Ok(())
}

/// Lines that are written until something goes to the cap, which has to come before this many.
const FLOOD: u64 = 60_000;
const PART: u64 = 1_000;

/// Writes lines of this length until the first has gone, and answers how many were written.
async fn flood(t: &Bench, lease: &LeasedJob, length: usize) -> Done<u64> {
    let mut written = 0;
    while written < FLOOD {
        let texts = (written..written + PART).map(|i| format!("{i:length$}"));
        match t.log(lease, written, lines(texts)).await? {
            Answer::Applied => written += PART,
            other => return Err(Trouble::Unmet(format!("a log that had {written} lines answered {other}"))),
        }
        let first = t.read_log(LogSource::Job(lease.job.id), 0, 1).await?;
        if first.lines.first().is_some_and(|line| line.message.trim() != "0") {
            return Ok(written);
        }
    }
    Err(Trouble::Unmet(format!("{FLOOD} lines of {length} bytes came to no cap")))
}

async fn drops_the_oldest_lines_at_the_cap(t: Bench) -> Kept {
    let lease = t.hold().await?;
    let before = {
        t.log(&lease, 0, lines([format!("{:40}", 0)])).await?;
        read(&t, lease.job.id, 0, 1).await?[0].sequence
    };
    let written = flood(&t, &lease, 40).await?;
    let (kept, _) = read_all(&t, LogSource::Job(lease.job.id), 0).await?;
    must!(rises(&kept) && kept[0].sequence > before, "a sequence was used again");
    let first = written - kept.len() as u64;
    let wanted: Vec<String> = (first..written).map(|i| i.to_string()).collect();
    let kept: Vec<&str> = kept.iter().map(|line| line.message.trim()).collect();
    must_eq!(kept, wanted, "the lines kept of {written}");
    Ok(())
}

async fn bounds_a_log_by_its_bytes_too(t: Bench) -> Kept {
    let (short, long) = (t.hold().await?, t.hold().await?);
    flood(&t, &short, 10).await?;
    flood(&t, &long, 5_000).await?;
    let (short, _) = read_all(&t, LogSource::Job(short.job.id), 0).await?;
    let (long, _) = read_all(&t, LogSource::Job(long.job.id), 0).await?;
    must!(!long.is_empty(), "nothing was kept of long lines");
    must!(long.len() < short.len(), "{} long lines were kept and {} short ones", long.len(), short.len());
    Ok(())
}

async fn tells_a_slow_reader_of_the_gap(t: Bench) -> Kept {
    let lease = t.hold().await?;
    let written = flood(&t, &lease, 40).await?;
    let page = t.read_log(LogSource::Job(lease.job.id), 0, 5).await?;
    must!(page.gap, "lines were lost to the cap and no gap was told");
    let (kept, _) = read_all(&t, LogSource::Job(lease.job.id), 0).await?;
    let newer = t.read_log(LogSource::Job(lease.job.id), kept[0].sequence, 5).await?;
    must!(!newer.gap, "a gap was told to a reader that missed nothing");
    let mine = t.read_log(LogSource::Worker(t.worker), 0, 5).await?;
    must!(mine.gap, "lines of a worker were lost to the cap and no gap was told");
    let last = kept[kept.len() - 1].sequence;
    t.log(&lease, written, lines(["after"])).await?;
    let page = t.read_log(LogSource::Job(lease.job.id), last, 5).await?;
    must!(!page.gap && page.lines.len() == 1, "a reader that kept up was told {page:?}");
    Ok(())
}

async fn keeps_a_quiet_jobs_log_beside_a_loud_one(t: Bench) -> Kept {
    let (quiet, loud) = (t.hold().await?, t.hold().await?);
    t.log(&quiet, 0, lines(["kept"])).await?;
    flood(&t, &loud, 40).await?;
    must_eq!(t.said(quiet.job.id).await?, ["kept"]);
    Ok(())
}

async fn shows_an_empty_log_where_there_is_none(t: Bench) -> Kept {
    let waiting = t.add(job()).await?;
    let sources = [
        LogSource::Job(waiting),
        LogSource::Job(JobId::generate()),
        LogSource::Worker(leasehold_core::WorkerId::generate()),
    ];
    for source in sources {
        let page = t.read_log(source, 0, 10).await?;
        must!(page.lines.is_empty() && !page.gap, "{source:?} has the log {page:?}");
    }
    Ok(())
}

async fn deletes_a_log_with_its_job(t: Bench) -> Kept {
    let lease = t.hold().await?;
    t.log(&lease, 0, lines(["gone"])).await?;
    t.finish(&lease, SUCCEED).await?;
    t.amend(lease.job.id, Action::Delete).await?;
    must_eq!(t.said(lease.job.id).await?.len(), 0);
    Ok(())
}
