use std::ops::Range;

use futures::{Stream, TryStreamExt};

use super::super::stride::Stride;
use super::{Flows, missing};
use crate::error::{Error, Result};
use crate::flow::{FlowRecord, Member, Plan};
use crate::id::{FlowId, JobId};
use crate::job::JobRecord;

/// A job of a flow, and what it waits for.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MemberRecord {
    /// Its number in the flow, from 0.
    pub index: u32,
    /// Its id.
    pub id: JobId,
    /// The job; none if it is there no more.
    pub job: Option<JobRecord>,
    /// The numbers of those that it waits for, or waited.
    pub parents: Vec<Range<u32>>,
}

/// A walk through all jobs of a flow, as many at a time as one call reads well.
pub(super) struct Walk {
    flow: FlowId,
    left: Range<u32>,
    stride: Stride,
}

impl Walk {
    pub(super) fn of(record: &FlowRecord) -> Self {
        Self { flow: record.id, left: 0..record.size, stride: Stride::default() }
    }
}

impl Flows {
    /// A page of the jobs of a flow, by number, from this one on.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if there is no such flow; [`Corrupt`](crate::ErrorKind::Corrupt) if a record cannot
    /// be read.
    pub async fn members(&self, flow: FlowId, from: u32, limit: usize) -> Result<Vec<MemberRecord>> {
        let members: Vec<MemberRecord> = self
            .of_plan(flow, |plan| {
                let to = from.saturating_add(u32::try_from(limit).unwrap_or(u32::MAX)).min(plan.size());
                let parents = |index| plan.parents(index).into_iter().map(|(from, to)| from..to).collect();
                let member = |index| MemberRecord {
                    index,
                    id: flow.member(index),
                    job: None,
                    parents: parents(index),
                };
                (from..to).map(member).collect()
            })
            .await?;
        let ids: Vec<JobId> = members.iter().map(|member| member.id).collect();
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(self.batch()) {
            found.append(&mut self.store.find_all(ids.to_vec()).await?);
        }
        Ok(members.into_iter().zip(found).map(|(member, job)| MemberRecord { job, ..member }).collect())
    }

    /// The jobs that a job of a flow waited for, by number, as they are now; those that are there no more are left out. An error
    /// ends the stream.
    pub fn parents(&self, member: Member) -> impl Stream<Item = Result<JobRecord>> + Send + use<> {
        let this = self.clone();
        let pages = async move {
            let Member { flow, index } = member;
            let spans = this.of_plan(flow, |plan| plan.parents(index)).await?;
            let ids = spans.into_iter().flat_map(|(from, to)| from..to).map(move |index| flow.member(index));
            let from = (this, ids, Stride::default());
            Ok::<_, Error>(futures::stream::try_unfold(from, |(this, mut ids, stride)| async move {
                let page: Vec<JobId> = ids.by_ref().take(stride.at_most(this.batch())).collect();
                if page.is_empty() {
                    return Ok::<_, Error>(None);
                }
                let found = this.store.find_all(page).await?;
                stride.saw(found.iter().flatten());
                Ok(Some((futures::stream::iter(found.into_iter().flatten().map(Ok)), (this, ids, stride))))
            }))
        };
        futures::stream::once(pages).try_flatten().try_flatten()
    }

    /// The next jobs of a walk that are there, with their numbers; none when all were read.
    pub(super) async fn next_of(&self, walk: &mut Walk) -> Result<Option<Vec<(u32, JobRecord)>>> {
        let numbers: Vec<u32> = walk.left.by_ref().take(walk.stride.at_most(self.batch())).collect();
        if numbers.is_empty() {
            return Ok(None);
        }
        let ids = numbers.iter().map(|number| walk.flow.member(*number)).collect();
        let found = self.store.find_all(ids).await?;
        walk.stride.saw(found.iter().flatten());
        Ok(Some(numbers.into_iter().zip(found).filter_map(|(number, job)| Some((number, job?))).collect()))
    }

    /// What a flow's plan tells, from what this process knows if it can.
    async fn of_plan<T>(&self, flow: FlowId, tell: impl FnOnce(&Plan) -> T) -> Result<T> {
        if let Some(live) = self.store.flow_cache().get(flow) {
            return Ok(tell(live.progress().plan()));
        }
        let record = self.get(flow).await?.ok_or_else(|| missing(flow))?;
        Ok(tell(&self.plan(&record).await?))
    }
}
