use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::builder::{Flow, OnParentFailure, Step};
use crate::error::{Error, Result};
use crate::job::{Due, JobOptions, NewJob, Payload, Retention};
use crate::name::{Kind, QueueName, RegisterName};
use crate::time::Timestamp;

/// The header of a job that says what it is called in a [`NamedFlow`].
pub const NAME_HEADER: &str = "leasehold-flow-job";

/// A flow as it is written down: its jobs have names, and say by them what they wait for, in any order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedFlow {
    /// What people call it.
    pub name: RegisterName,
    /// What becomes of jobs when one that they wait for did not succeed. Defaults to [`OnParentFailure::Cancel`].
    #[serde(default)]
    pub on_parent_failure: OnParentFailure,
    /// How long the flow is kept once it has ended. Defaults to [`Retention::default`].
    #[serde(default)]
    pub retention: Retention,
    /// Its jobs.
    pub jobs: Vec<NamedJob>,
}

/// A job of a [`NamedFlow`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedJob {
    /// What it is called in the flow.
    pub name: String,
    /// Which handler runs it.
    pub kind: Kind,
    /// Where it waits. Defaults to `default`.
    #[serde(default)]
    pub queue: QueueName,
    /// Its arguments. Default to none.
    #[serde(default)]
    pub args: serde_json::Value,
    /// Jobs that are to succeed before, by name. Default to none.
    #[serde(default)]
    pub after: Vec<String>,
    /// Jobs that are to end before, by name. Default to none.
    #[serde(default)]
    pub after_end: Vec<String>,
    /// What becomes of it when one that it waits for did not succeed. Defaults to the flow's.
    #[serde(default)]
    pub on_parent_failure: Option<OnParentFailure>,
    /// How long after it was let go it is due, in milliseconds. Defaults to at once.
    #[serde(default)]
    pub delay_ms: u64,
    /// When it is due, in place of a delay. Defaults to at once.
    #[serde(default)]
    pub run_at: Option<Timestamp>,
    /// Everything else.
    #[serde(default)]
    pub options: JobOptions,
}

impl NamedFlow {
    /// The flow. Its jobs stand in the order in which they can run; otherwise as they were written down.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if jobs wait for each other in a circle, which is named; if two have
    /// one name; if one waits for a job that is not there; and those of [`Adding::add`](super::Adding::add).
    pub fn build(&self) -> Result<Flow> {
        if self.jobs.is_empty() {
            return Err(Error::invalid("a flow without jobs does nothing; give it one at least"));
        }
        let mut indices = HashMap::with_capacity(self.jobs.len());
        for (index, job) in self.jobs.iter().enumerate() {
            if indices.insert(job.name.as_str(), index).is_some() {
                return Err(Error::invalid(format!("two jobs of the flow are called {:?}", job.name)));
            }
        }
        let find = |job: &NamedJob, name: &String| {
            let why = || {
                Error::invalid(format!("the job {:?} waits for {name:?}, which is not in the flow", job.name))
            };
            indices.get(name.as_str()).copied().ok_or_else(why)
        };
        let parents = |job: &NamedJob| {
            job.after.iter().chain(&job.after_end).map(|name| find(job, name)).collect::<Result<Vec<usize>>>()
        };
        let parents: Vec<Vec<usize>> = self.jobs.iter().map(parents).collect::<Result<_>>()?;
        let mut flow =
            Flow::new(&self.name)?.on_parent_failure(self.on_parent_failure).retention(self.retention);
        let mut steps: HashMap<&str, Step> = HashMap::with_capacity(self.jobs.len());
        for index in self.order(&parents)? {
            let job = &self.jobs[index];
            let named =
                |names: &[String]| names.iter().map(|name| steps[name.as_str()]).collect::<Vec<Step>>();
            let adding = flow.after(named(&job.after)).after_end(named(&job.after_end));
            let adding = match job.on_parent_failure {
                Some(policy) => adding.on_parent_failure(policy),
                None => adding,
            };
            let why = |error: Error| Error::invalid(format!("the job {:?} of the flow: {error}", job.name));
            steps.insert(&job.name, adding.add(job.new_job()?).map_err(why)?);
        }
        Ok(flow)
    }

    /// The jobs in an order in which each comes after those that it waits for.
    fn order(&self, parents: &[Vec<usize>]) -> Result<Vec<usize>> {
        let mut children = vec![Vec::new(); parents.len()];
        let mut left: Vec<usize> = parents.iter().map(Vec::len).collect();
        for (child, parents) in parents.iter().enumerate() {
            parents.iter().for_each(|parent| children[*parent].push(child));
        }
        let free = (0..left.len()).filter(|index| left[*index] == 0).map(|index| (index, ()));
        let mut free: BTreeMap<usize, ()> = free.collect();
        let mut order = Vec::with_capacity(parents.len());
        while let Some((index, ())) = free.pop_first() {
            order.push(index);
            for child in &children[index] {
                left[*child] -= 1;
                if left[*child] == 0 {
                    free.insert(*child, ());
                }
            }
        }
        if order.len() == parents.len() {
            return Ok(order);
        }
        Err(self.circle(parents, &left))
    }

    /// Names jobs that wait for each other, among those that wait for some that are left.
    fn circle(&self, parents: &[Vec<usize>], left: &[usize]) -> Error {
        let mut path: Vec<usize> = Vec::new();
        let mut at = left.iter().position(|left| *left > 0);
        while let Some(index) = at {
            if let Some(begin) = path.iter().position(|been| *been == index) {
                path.drain(..begin);
                break;
            }
            path.push(index);
            at = parents[index].iter().copied().find(|parent| left[*parent] > 0);
        }
        path.push(path[0]);
        const SHOWN: usize = 20;
        let mut names: Vec<String> =
            path.iter().take(SHOWN).map(|index| format!("{:?}", self.jobs[*index].name)).collect();
        if path.len() > SHOWN {
            names.push(format!("and {} more", path.len() - SHOWN));
        }
        Error::invalid(format!(
            "jobs of the flow wait for each other in a circle: {}; let one of them wait for another job, or for none",
            names.join(" waits for ")
        ))
    }
}

impl NamedJob {
    fn new_job(&self) -> Result<NewJob> {
        let mut job = NewJob::new(self.kind.clone(), Payload::json(&self.args)?).queue(self.queue.clone());
        job.options = self.options.clone();
        job.due = match self.run_at {
            Some(at) => Due::At(at),
            None => Due::In(Duration::from_millis(self.delay_ms)),
        };
        Ok(job.header(NAME_HEADER, &self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn flow(jobs: impl Into<serde_json::Value>) -> Result<Flow> {
        let jobs: serde_json::Value = jobs.into();
        let flow = serde_json::json!({ "name": "f", "jobs": jobs });
        serde_json::from_value::<NamedFlow>(flow).unwrap().build()
    }

    fn refused(jobs: impl Into<serde_json::Value>) -> String {
        let error = flow(jobs).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        error.to_string()
    }

    #[test]
    fn names_stand_for_jobs_in_any_order() {
        let flow = flow(serde_json::json!([
            { "name": "tell", "kind": "tell", "after_end": ["merge"], "delay_ms": 5 },
            { "name": "merge", "kind": "merge", "after": ["a", "b"], "args": { "n": 1 } },
            { "name": "b", "kind": "part", "queue": "q" },
            { "name": "a", "kind": "part", "on_parent_failure": "run" },
        ]))
        .unwrap();
        let names: Vec<&str> =
            flow.jobs.iter().map(|job| job.options.headers[NAME_HEADER].as_str()).collect();
        assert_eq!(names, ["b", "a", "merge", "tell"]);
        assert_eq!(flow.plan.parents(2), [(0, 2)]);
        assert_eq!(flow.plan.rows()[2].delay_ms, Some(5));
        assert_eq!((flow.jobs[0].queue.as_str(), flow.jobs[2].payload.as_bytes()), ("q", &b"{\"n\":1}"[..]));
    }

    #[test]
    fn a_circle_is_refused_and_named() {
        let why = refused(serde_json::json!([
            { "name": "in", "kind": "k", "after": ["c"] },
            { "name": "a", "kind": "k", "after": ["b"] },
            { "name": "b", "kind": "k", "after_end": ["c"] },
            { "name": "c", "kind": "k", "after": ["root", "a"] },
            { "name": "root", "kind": "k" },
        ]));
        assert!(why.contains(r#""c" waits for "a" waits for "b" waits for "c""#), "{why}");
        let why = refused(serde_json::json!([{ "name": "a", "kind": "k", "after": ["a"] }]));
        assert!(why.contains(r#""a" waits for "a""#), "{why}");
        let many: Vec<_> = (0..1_000)
            .map(|n| serde_json::json!({ "name": format!("{n}"), "kind": "k", "after": [format!("{}", (n + 1) % 1_000)] }))
            .collect();
        assert!(refused(many).contains("and 981 more"));
    }

    #[test]
    fn names_that_mean_nothing_or_two_are_refused() {
        assert!(refused(serde_json::json!([])).contains("without jobs"));
        let why = refused(serde_json::json!([{ "name": "a", "kind": "k", "after": ["nobody"] }]));
        assert!(why.contains(r#""a" waits for "nobody""#), "{why}");
        let twice = serde_json::json!([{ "name": "a", "kind": "k" }, { "name": "a", "kind": "k" }]);
        assert!(refused(twice).contains(r#"are called "a""#));
        let unique = serde_json::json!({ "key": "u", "scope": "until_finished" });
        let unique = serde_json::json!([{ "name": "a", "kind": "k", "options": { "unique": unique } }]);
        assert!(refused(unique).contains(r#"the job "a" of the flow"#));
    }
}
