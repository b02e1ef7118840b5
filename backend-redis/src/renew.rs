//! Makes leases longer: see `Backend::renew`.

use leasehold_core::backend::{Renew, Renewal, Renewed};
use redis::Cmd;

use crate::error::Done;
use crate::scripts::RENEW;
use crate::session::{Db, millis, moment};

pub(crate) async fn renew(db: &Db, request: Renew) -> Done<Vec<Renewed>> {
    let answers: Vec<Option<(i64, bool)>> = db.run_parts(&RENEW, |_| {}, &request.renewals, push).await?;
    let held = |(until, cancel_requested)| Renewed::Held { until: moment(until), cancel_requested };
    Ok(answers.into_iter().map(|answer| answer.map_or(Renewed::Lost, held)).collect())
}

fn push(command: &mut Cmd, renewal: &Renewal) -> Done<()> {
    let Renewal { job, token, lease, progress } = renewal;
    let progress = progress.as_ref().map(serde_json::to_string).transpose()?;
    command.arg(job.to_string()).arg(token.claim(*job).to_string());
    command.arg(millis(*lease)).arg(progress.unwrap_or_default());
    Ok(())
}
