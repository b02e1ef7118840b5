//! Raw queues, which are made of ordinary operations: bare payloads, many to a record or each once while it waits.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_core::client::Raw;
use leasehold_core::{Due, LeasedJob, Payload, QueueName, State};

use crate::bench::{Bench, secs};
use crate::breach::{Breach, Done, Kept, must, must_eq};
use crate::case::cases;
use crate::history::Rules;
use crate::processes::{Crew, Hour, Order, Said, bound};

cases! {
    /// Of the payloads that several clients add to a set at once, each waits once.
    [P4] keeps_each_payload_of_a_set_once;
    /// Of a sorted set the lowest score comes first, and a payload that is added again moves.
    [C6, P4] gives_out_the_lowest_score_first;
    /// Of a timed set nothing is given out before its time, and a payload that is added again moves.
    [C8, P4] gives_out_a_payload_at_its_latest_time;
    /// Payloads are removed by themselves, and all at once; what was not there is not.
    [P4, F4] removes_payloads;
    /// Workers that run the payloads of a list are killed at any moment: each payload is run, and each that failed
    /// becomes one job.
    [P1, P2, C3, C5, S2] runs_every_payload_of_a_list_though_workers_die needs [Processes] within bound;
}

fn raw(t: &Bench) -> Done<Raw> {
    Ok(t.store().queue(QueueName::default())?.raw("raw")?)
}

fn texts(leases: &[LeasedJob]) -> Vec<String> {
    let text = |lease: &LeasedJob| String::from_utf8_lossy(lease.job.payload.as_bytes()).into_owned();
    leases.iter().map(text).collect()
}

async fn keeps_each_payload_of_a_set_once(t: Bench) -> Kept {
    const PAYLOADS: usize = 40;
    let clients = t.several(4).await?;
    let payloads = || (0..PAYLOADS).flat_map(|n| [n, n]).map(|n| format!("{n} $where \u{0}"));
    let push = |client: &Bench| {
        let set = raw(client).map(Raw::set);
        async move { Ok::<u64, crate::breach::Trouble>(set?.push_many(payloads()).await?) }
    };
    let mut new = 0;
    for pushed in futures::future::join_all(clients.iter().map(push)).await {
        new += pushed?;
    }
    must_eq!(new, PAYLOADS as u64, "how many were new");
    let set = raw(&t)?.set();
    must_eq!(set.count().await?.payloads, PAYLOADS as u64);
    let given: BTreeSet<String> = texts(&t.claim_all(100).await?).into_iter().collect();
    must_eq!(given, payloads().collect::<BTreeSet<_>>());
    must!(set.push(format!("{} $where \u{0}", 0)).await?, "a payload that runs could not be added again");
    Ok(())
}

async fn gives_out_the_lowest_score_first(t: Bench) -> Kept {
    let most = 750_000_000_000;
    let sorted = raw(&t)?.sorted();
    let pushed = [("c", 7), ("a", -most), ("e", 101), ("d", 8), ("b", 100)];
    sorted.push_many(pushed.map(|(text, score)| (text.to_owned(), score))).await?;
    must_eq!(sorted.push_many([("b".to_owned(), -3)]).await?, 0);
    let mut first = sorted.first(10).await?;
    first.sort_by_key(|(_, score)| *score);
    must_eq!(first[..2], [(Payload::from("a".to_owned()), -most), (Payload::from("b".to_owned()), -3)]);
    must_eq!(sorted.graph(-3..8, 1).await?.slices, [2]);
    let mut given = Vec::new();
    for _ in 0..pushed.len() {
        given.extend(texts(&t.claim(1).await?));
    }
    must_eq!(given, ["a", "b", "c", "d", "e"]);
    Ok(())
}

async fn gives_out_a_payload_at_its_latest_time(t: Bench) -> Kept {
    let timed = raw(&t)?.timed();
    let at = |seconds| Due::At(t.hour().plus(secs(seconds)));
    timed.push_many([("a", at(10)), ("b", at(20)), ("c", at(30))].map(|(p, at)| (p.to_owned(), at))).await?;
    must_eq!(timed.push_many([("a".to_owned(), at(25)), ("c".to_owned(), at(5))]).await?, 0);
    for (passes, wanted) in [(0, vec![]), (5, vec!["c"]), (14, vec![]), (1, vec!["b"]), (5, vec!["a"])] {
        t.advance(secs(passes));
        must_eq!(texts(&t.claim(10).await?), wanted, "{passes} s later");
    }
    Ok(())
}

async fn removes_payloads(t: Bench) -> Kept {
    let set = raw(&t)?.set();
    set.push_many((0..10).map(|n| n.to_string())).await?;
    must!(set.remove("3".to_owned()).await?, "a payload that waits was not removed");
    must!(!set.remove("3".to_owned()).await?, "a payload was removed twice");
    must!(!set.remove("x".to_owned()).await?, "a payload was removed that was never there");
    must!(set.push("3".to_owned()).await?, "a payload that was removed could not be added again");
    must!(set.remove("4".to_owned()).await?, "a payload that waits was not removed");
    must_eq!(set.count().await?.payloads, 9);
    must_eq!(set.clear().await?, 9);
    let list = raw(&t)?.list().per_record(3);
    list.push_many((0..10).map(|n| n.to_string())).await?;
    must_eq!(list.count().await?.payloads, 10);
    must_eq!(list.first(4).await?, (0..4).map(|n| Payload::from(n.to_string())).collect::<Vec<_>>());
    must_eq!(list.clear().await?, 4);
    must_eq!(t.claim(10).await?.len(), 0);
    Ok(())
}

const PAYLOADS: u64 = 600;
const PER_RECORD: usize = 100;
/// Every payload of this remainder fails when it first runs.
pub(crate) const FAILS: (u64, u64) = (50, 7);
const KILLS: usize = 8;
/// How many race for the first records.
const RACERS: usize = 16;
const ROUNDS: usize = 60;

async fn runs_every_payload_of_a_list_though_workers_die(t: Bench) -> Kept {
    let mut crew = Crew::gather(&t, Hour::Manual).await?;
    let list = raw(&crew.t)?.list().per_record(PER_RECORD);
    list.push_many((0..PAYLOADS).map(|n| n.to_string())).await?;
    let mut ran: BTreeMap<u64, u32> = BTreeMap::new();
    let mut kills = 0;
    for round in 0..ROUNDS {
        let mut children = Vec::new();
        for _ in 0..if round == 0 { RACERS } else { 2 } {
            children.push(crew.start(&[]).await?);
        }
        for child in &children {
            crew.tell(*child, &Order::WorkRaw)?;
        }
        let dies_after = (kills < KILLS).then(|| fastrand::usize(1..150));
        kills += usize::from(work(&mut crew, &children, dies_after, &mut ran).await?);
        crew.pass(60).await?;
        let counts = crew.t.store().queue(QueueName::default())?.counts().await?;
        let living = [State::Scheduled, State::Queued, State::Running].map(|state| counts.of(state));
        if living == [0, 0, 0] {
            must_eq!(counts.of(State::Failed), 0, "how many failed for good after {round} rounds");
            break;
        }
    }
    must!(kills > 0, "nobody was killed");
    let missing: Vec<u64> = (0..PAYLOADS).filter(|n| !ran.contains_key(n)).collect();
    must_eq!(missing, [0; 0], "payloads that were never run, after {kills} kills");
    let (every, rest) = FAILS;
    let once: Vec<_> = ran.iter().filter(|(n, runs)| *n % every == rest && **runs < 2).collect();
    // What a child did last before it was killed may not have been heard.
    must!(once.len() <= kills, "after {kills} kills payloads that failed were not tried again: {once:?}");
    crew.verdict(&Rules::drained(PAYLOADS as usize / PER_RECORD)).await?;
    Ok(())
}

/// Hears what children run until they have nothing to do, and kills one of them after so many runs.
async fn work(
    crew: &mut Crew,
    children: &[usize],
    mut dies_after: Option<usize>,
    ran: &mut BTreeMap<u64, u32>,
) -> Kept<bool> {
    let (mut busy, mut dead) = (children.iter().copied().collect::<BTreeSet<_>>(), None);
    while !busy.is_empty() {
        let (who, said) = crew.hear().await?;
        match said {
            Said::Count(payload) => {
                *ran.entry(payload).or_default() += 1;
                if dies_after == Some(0) && dead.is_none() {
                    crew.kill(who)?;
                    dead = Some(who);
                }
                dies_after = dies_after.map(|left| left.saturating_sub(1));
            }
            Said::Done if dead != Some(who) => drop(busy.remove(&who)),
            Said::Gone if dead == Some(who) => drop(busy.remove(&who)),
            // It may have been done before the signal came; and those of earlier rounds are sent home now and then.
            Said::Done | Said::Gone => {}
            other => return Err(Breach::new(format!("child {who} said {other:?}"))),
        }
    }
    Ok(dead.is_some())
}
