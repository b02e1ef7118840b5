//! Several processes on one store: they race, are killed and frozen, and have clocks that are wrong.

use std::collections::BTreeSet;

use leasehold_core::backend::Answer;

use crate::bench::{Bench, in_time, job, jobs, limit_key};
use crate::breach::{Breach, Kept, must, must_be, must_eq};
use crate::case::cases;
use crate::history::Rules;
use crate::processes::{Crew, Ending, Hour, Order, Said, Skew, bound};

cases! {
    /// Of the jobs that several processes claim at once, each goes to one of them.
    [C1, C11] gives_each_job_to_one_of_racing_processes needs [Processes] within bound;
    /// Of sixteen processes that produce under one unique key at once, one gets in, also where one of them is killed.
    [P4] lets_in_one_of_racing_processes needs [Processes] within bound;
    /// However many processes claim at once, no more jobs of one limit key run than it allows, and one that is killed
    /// leaks no place and doubles none.
    [C9] holds_a_limit_over_processes needs [Processes, StrictLimits] within bound;
    /// Processes claim, renew, settle, forget and recover, are killed at any moment, and are frozen for longer than
    /// their leases: no invariant is broken.
    [C1, C2, C3, S1, S2, E2] keeps_its_word_to_processes_that_die needs [Processes] within bound;
    /// The same, and requests and answers are lost, late, doubled and out of order.
    [C1, C2, C3, S1, S2, E2] keeps_its_word_to_processes_that_die_on_bad_lines needs [Processes] within bound;
    /// A process that was frozen for longer than its leases has lost them: nothing that it writes then is taken.
    [C2, C3] refuses_a_process_that_slept_through_its_leases needs [Processes] within bound;
    /// Clients whose clocks are an hour fast and slow get nothing early, take nobody's lease, and are fenced as others.
    [C8, C1, C2, S3] goes_by_no_clock_of_its_clients needs [Processes, OwnClock, Skew] within bound;
}

const PROCESSES: usize = 3;
/// How many race for a key.
const RACERS: usize = 16;

async fn gives_each_job_to_one_of_racing_processes(t: Bench) -> Kept {
    const JOBS: usize = 60;
    let mut crew = Crew::gather(&t, Hour::Manual).await?;
    crew.t.add_all(jobs(JOBS)).await?;
    crew.start_all(PROCESSES).await?;
    let mut given = BTreeSet::new();
    for _ in 0..JOBS {
        let before = given.len();
        for said in together(&mut crew, 0..PROCESSES, &Order::Claim(3, 60)).await? {
            let Said::Leases(leases) = said else { return Err(Breach::new(format!("it said {said:?}"))) };
            for (job, _) in leases {
                must!(given.insert(job), "job {job} was given to two processes");
            }
        }
        if given.len() == before {
            break;
        }
    }
    must_eq!(given.len(), JOBS);
    for said in together(&mut crew, 0..PROCESSES, &Order::Settle(Ending::Succeed)).await? {
        must_be!(said, Said::Answers(answers) if answers.iter().all(|answer| *answer == Answer::Applied));
    }
    crew.verdict(&Rules::drained(JOBS)).await?;
    Ok(())
}

async fn lets_in_one_of_racing_processes(t: Bench) -> Kept {
    let mut crew = Crew::gather(&t, Hour::Manual).await?;
    crew.start_all(RACERS).await?;
    let mut created = 0;
    let keys = |of: &str| (0..20).map(|n| format!("{of} {n}")).collect::<Vec<_>>();
    for said in together(&mut crew, 0..RACERS, &Order::Produce(keys("first"))).await? {
        let Said::Jobs(jobs) = said else { return Err(Breach::new(format!("it said {said:?}"))) };
        created += jobs.len();
    }
    must_eq!(created, 20, "how many jobs were let in under as many keys");
    tell_all(&mut crew, 0..RACERS, &Order::Produce(keys("second")))?;
    crew.kill(0)?;
    hear_all(&mut crew, 1..RACERS).await?;
    let there = crew.t.counts().await?.total();
    must_eq!(there, 40, "how many jobs were let in under as many keys when one was killed");
    crew.drain().await?;
    crew.verdict(&Rules::drained(40)).await?;
    Ok(())
}

async fn holds_a_limit_over_processes(t: Bench) -> Kept {
    const MOST: usize = 4;
    let mut crew = Crew::gather(&t, Hour::Manual).await?;
    let limited = |_| job().limit(limit_key("narrow"), MOST as u32);
    crew.t.add_all((0..5 * MOST).map(limited)).await?;
    crew.start_all(RACERS).await?;
    let mut held = [0; RACERS];
    for _ in 0..2 {
        for (number, said) in
            together(&mut crew, 0..RACERS, &Order::Claim(1, 60)).await?.into_iter().enumerate()
        {
            let Said::Leases(leases) = said else { return Err(Breach::new(format!("it said {said:?}"))) };
            held[number] += leases.len();
        }
    }
    must_eq!(held.iter().sum::<usize>(), MOST, "how many jobs run of a limit key that allows {MOST}");
    let holder = held.iter().position(|held| *held > 0).unwrap_or_default();
    crew.kill(holder)?;
    let others = || (0..RACERS).filter(move |number| *number != holder);
    for said in together(&mut crew, others(), &Order::Claim(1, 60)).await? {
        must_be!(said, Said::Leases(leases) if leases.is_empty());
    }
    for said in together(&mut crew, others(), &Order::Settle(Ending::Succeed)).await? {
        must_be!(said, Said::Answers(_));
    }
    let mut again = 0;
    for said in together(&mut crew, others(), &Order::Claim(1, 60)).await? {
        let Said::Leases(leases) = said else { return Err(Breach::new(format!("it said {said:?}"))) };
        again += leases.len();
    }
    must_eq!(again, MOST - held[holder], "how many jobs run beside those of one that was killed");
    crew.drain().await?;
    crew.verdict(&Rules::drained(5 * MOST)).await?;
    Ok(())
}

/// Tells children at once, and hears all of them.
async fn together(
    crew: &mut Crew,
    numbers: impl Iterator<Item = usize> + Clone,
    order: &Order,
) -> Kept<Vec<Said>> {
    tell_all(crew, numbers.clone(), order)?;
    hear_all(crew, numbers).await
}

fn tell_all(crew: &mut Crew, numbers: impl Iterator<Item = usize>, order: &Order) -> Kept {
    for number in numbers {
        crew.tell(number, order)?;
    }
    Ok(())
}

async fn hear_all(crew: &mut Crew, numbers: impl Iterator<Item = usize>) -> Kept<Vec<Said>> {
    let mut said = Vec::new();
    for number in numbers {
        said.push(crew.hear_from(number).await?);
    }
    Ok(said)
}

async fn keeps_its_word_to_processes_that_die(t: Bench) -> Kept {
    rage(&t, false).await
}

async fn keeps_its_word_to_processes_that_die_on_bad_lines(t: Bench) -> Kept {
    rage(&t, true).await
}

const ROUNDS: usize = 8;
const STEPS: usize = 16;

/// Lets processes race in rounds. In each, one is killed at some moment, and another one sleeps.
async fn rage(t: &Bench, chaos: bool) -> Kept {
    let mut crew = Crew::gather(t, Hour::Manual).await?;
    let mut alive = BTreeSet::new();
    let mut sleeper = None;
    for round in 0..ROUNDS {
        while alive.len() < PROCESSES {
            alive.insert(crew.start(&[]).await?);
        }
        let awake: Vec<usize> = alive.iter().copied().filter(|number| Some(*number) != sleeper).collect();
        for number in &awake {
            crew.tell(*number, &Order::Rage { seed: fastrand::u64(..), steps: STEPS, chaos })?;
        }
        let victim = *fastrand::choice(&awake).ok_or_else(|| Breach::new("nobody is awake"))?;
        let dies_after = (round % 2 == 1).then(|| fastrand::usize(1..STEPS));
        if play_round(&mut crew, &awake, victim, dies_after).await? {
            alive.remove(&victim);
        }
        crew.pass(fastrand::u64(5..25)).await?;
        if let Some(number) = sleeper.take() {
            crew.thaw(number)?;
        } else if let Some(number) = alive.iter().copied().find(|number| *number != victim) {
            crew.freeze(number)?;
            sleeper = Some(number);
        }
    }
    if let Some(number) = sleeper {
        crew.thaw(number)?;
    }
    crew.drain().await?;
    let capabilities = crew.t.capabilities().await?;
    let rules = Rules::drained(30).losses(3).faults(2).of_a_store(&capabilities).runs_told();
    crew.verdict(&if chaos { rules.unknown(3).repeats_inside() } else { rules }).await?;
    Ok(())
}

/// Hears all who are awake out, and kills one after so many of its steps. Answers whether it was killed.
async fn play_round(
    crew: &mut Crew,
    awake: &[usize],
    victim: usize,
    mut dies_after: Option<usize>,
) -> Kept<bool> {
    let mut busy: BTreeSet<usize> = awake.iter().copied().collect();
    let mut killed = false;
    while !busy.is_empty() {
        let (who, said) = crew.hear().await?;
        match said {
            Said::Step if who == victim && dies_after == Some(0) && !killed => {
                crew.kill(who)?;
                killed = true;
            }
            Said::Step if who == victim => dies_after = dies_after.map(|left| left.saturating_sub(1)),
            Said::Step => {}
            // It may have been done before the signal came.
            Said::Done if !(killed && who == victim) => drop(busy.remove(&who)),
            Said::Gone if killed && who == victim => drop(busy.remove(&who)),
            Said::Done => {}
            other => return Err(Breach::new(format!("child {who} said {other:?}"))),
        }
    }
    Ok(killed)
}

async fn refuses_a_process_that_slept_through_its_leases(t: Bench) -> Kept {
    const JOBS: usize = 4;
    let mut crew = Crew::gather(&t, Hour::Manual).await?;
    crew.t.add_all(jobs(JOBS)).await?;
    crew.start_all(2).await?;
    let (zombie, heir) = (0, 1);
    must_be!(crew.ask(zombie, &Order::Claim(JOBS, 30)).await?, Said::Leases(leases) if leases.len() == JOBS);
    must_be!(crew.ask(zombie, &Order::Renew).await?, Said::Answers(answers) if *answers == [Answer::Applied; JOBS]);
    crew.freeze(zombie)?;
    let writes =
        [Order::Renew, Order::Log, Order::Settle(Ending::RetryIn(0)), Order::Settle(Ending::Succeed)];
    for order in &writes {
        crew.tell(zombie, order)?;
    }
    crew.pass(31).await?;
    must_be!(crew.ask(heir, &Order::Recover).await?, Said::Answers(answers) if *answers == [Answer::Applied; JOBS]);
    must_be!(crew.ask(heir, &Order::Claim(JOBS, 30)).await?, Said::Leases(leases) if leases.len() == JOBS);
    crew.thaw(zombie)?;
    for order in writes {
        let said = crew.hear_from(zombie).await?;
        must_eq!(said, Said::Answers(vec![Answer::Lost; JOBS]), "{order:?} of a process that had slept");
    }
    for order in [Order::Log, Order::Renew, Order::Settle(Ending::Succeed)] {
        let said = crew.ask(heir, &order).await?;
        must_eq!(said, Said::Answers(vec![Answer::Applied; JOBS]), "{order:?} of the holder");
    }
    crew.verdict(&Rules::drained(2 * JOBS).losses(JOBS)).await?;
    Ok(())
}

async fn goes_by_no_clock_of_its_clients(t: Bench) -> Kept {
    const HOUR: i64 = 3_600_000;
    let mut crew = Crew::gather(&t, Hour::Stores).await?;
    let skewed = |millis| Skew::new(millis).map_err(|why| Breach::new(why.to_string()));
    let (ahead, behind) = (skewed(HOUR)?, skewed(-HOUR)?);
    let fast = crew.start(&ahead.environment()).await?;
    let slow = crew.start(&behind.environment()).await?;
    let hours = [crew.ask(fast, &Order::Hours).await?, crew.ask(slow, &Order::Hours).await?];
    let [Said::Hours(one, early), Said::Hours(other, late)] = hours else {
        return Err(Breach::new(format!("they said {hours:?}")));
    };
    let apart = early.as_millis() - late.as_millis();
    must!((apart - 2 * HOUR).abs() < HOUR / 4, "their own clocks are {apart} ms apart");
    let apart = one.as_millis() - other.as_millis();
    must!(apart.abs() < HOUR / 4, "by the store's clock they are {apart} ms apart");
    for (one, other) in [(fast, slow), (slow, fast)] {
        // What one makes for now is due for the other, and what is for later is not.
        let said = crew.ask(one, &Order::ProduceLater(1_800)).await?;
        let Said::Jobs(made) = said else { return Err(Breach::new(format!("it said {said:?}"))) };
        let said = crew.ask(other, &Order::Claim(9, 600)).await?;
        let Said::Leases(leases) = said else { return Err(Breach::new(format!("it said {said:?}"))) };
        must_eq!(leases.iter().map(|(job, _)| *job).collect::<Vec<_>>(), made[..1]);
        // Nobody takes the lease of the other, nor finds it over.
        must_eq!(crew.ask(one, &Order::Claim(9, 600)).await?, Said::Leases(Vec::new()));
        must_eq!(crew.ask(one, &Order::Recover).await?, Said::Answers(Vec::new()));
        must_eq!(crew.ask(one, &Order::Seize(leases.clone())).await?, Said::Answers(vec![Answer::Lost]));
        must_eq!(crew.t.expired(9).await?, []);
        must_eq!(crew.ask(other, &Order::Renew).await?, Said::Answers(vec![Answer::Applied]));
        // A try that is to wait waits, for whoever asks.
        must_eq!(
            crew.ask(other, &Order::Settle(Ending::RetryIn(1_800))).await?,
            Said::Answers(vec![Answer::Applied])
        );
        must_eq!(crew.ask(one, &Order::Claim(9, 600)).await?, Said::Leases(Vec::new()));
        must_eq!(crew.ask(other, &Order::Drop).await?, Said::Done);
    }
    takes_over_what_ran_out(&mut crew, fast, slow).await?;
    crew.verdict(&Rules::default().losses(2)).await?;
    Ok(())
}

/// A lease that is really over is taken over, by whomever, and its holder is fenced.
async fn takes_over_what_ran_out(crew: &mut Crew, fast: usize, slow: usize) -> Kept {
    for (one, other) in [(fast, slow), (slow, fast)] {
        let job = crew.t.add(job()).await?;
        let said = crew.ask(one, &Order::Claim(1, 1)).await?;
        must_be!(said, Said::Leases(leases) if leases.len() == 1 && leases[0].0 == job);
        let until = crew.t.find(job).await?.lease_until.unwrap_or_default();
        while crew.t.backend().now(in_time(0)).await? <= until {
            tokio::task::yield_now().await;
        }
        must_eq!(crew.ask(other, &Order::Recover).await?, Said::Answers(vec![Answer::Applied]));
        must_be!(crew.ask(other, &Order::Claim(1, 600)).await?, Said::Leases(leases) if leases.len() == 1);
        must_eq!(crew.ask(one, &Order::Settle(Ending::Succeed)).await?, Said::Answers(vec![Answer::Lost]));
        must_eq!(
            crew.ask(other, &Order::Settle(Ending::Succeed)).await?,
            Said::Answers(vec![Answer::Applied])
        );
        must_eq!(crew.ask(one, &Order::Drop).await?, Said::Done);
        must_eq!(crew.ask(other, &Order::Drop).await?, Said::Done);
    }
    Ok(())
}
