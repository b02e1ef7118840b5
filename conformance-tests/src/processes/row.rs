use futures::future::BoxFuture;

use super::matrix::{CutPoint, Step, points_of};
use super::{Crew, Hour, Plan};
use crate::bench::Bench;
use crate::breach::Kept;
use crate::history::Rules;

/// What is done where a row and a cut point meet.
pub(crate) type Cell = for<'a> fn(&'a mut Crew, &'a Plan, &'a CutPoint) -> BoxFuture<'a, Kept>;

/// One row of a matrix: a step, made ready and then put through `cell` at every cut point that `fits`. `how` says
/// of a breach what was done there.
pub(crate) async fn row(t: &Bench, step: Step, how: &str, fits: fn(&CutPoint) -> bool, cell: Cell) -> Kept {
    let mut crew = Crew::gather(t, Hour::Manual).await?;
    let points: Vec<CutPoint> = points_of(t.harness(), step).filter(fits).collect();
    for point in &points {
        let plan = Plan::make_ready(&crew.t, step).await?;
        if step == Step::Recover {
            crew.pass(120).await?;
        }
        cell(&mut crew, &plan, point)
            .await
            .map_err(|breach| breach.during(&format!("{step}, {how} at {}", point.name)))?;
    }
    crew.verdict(&Rules::drained(points.len())).await?;
    Ok(())
}
