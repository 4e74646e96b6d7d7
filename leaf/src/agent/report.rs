//! Telling the controller what is open.

use std::collections::BTreeMap;
use std::time::Duration;

use model::ids::{Generation, IndexUid, ShardId};
use proto::controller::{Held, Report};
use tokio::time::Instant;

use super::{Agent, next};

/// Between reports of everything: what was lost on the way is told again.
const ALL_EVERY: Duration = Duration::from_secs(10);
/// Between attempts at a report that failed.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// What of a shard is worth a report.
type News = (Option<Generation>, bool);

fn news(held: &Held) -> News {
    (held.generations.last().map(|at| at.generation), held.owned)
}

impl Agent {
    pub(super) async fn report(mut self) {
        let mut told: BTreeMap<(IndexUid, ShardId), News> = BTreeMap::new();
        let mut elected = None;
        let mut all_at = Instant::now();
        loop {
            // Taken before looking, so that no change falls between.
            let changed = self.leaf.changed();
            let controller = self.view.borrow_and_update().controller.clone();
            let mut retry = None;
            if let Some(controller) = controller {
                let complete = elected.as_ref() != Some(&controller) || Instant::now() >= all_at;
                match self.tell(&mut told, complete).await {
                    Ok(()) => {
                        elected = Some(controller);
                        if complete {
                            all_at = Instant::now() + ALL_EVERY;
                        }
                    }
                    Err(error) => {
                        tracing::debug!(%error, "failed to report what is open; it is tried again");
                        // Whether it arrived is not known.
                        elected = None;
                        retry = Some(Instant::now() + RETRY_AFTER);
                    }
                }
            }
            tokio::select! {
                () = changed, if retry.is_none() => {}
                ok = next(&mut self.view), if retry.is_none() => if !ok {
                    return;
                },
                () = tokio::time::sleep_until(retry.unwrap_or(all_at)) => {}
            }
        }
    }

    async fn tell(
        &self,
        told: &mut BTreeMap<(IndexUid, ShardId), News>,
        complete: bool,
    ) -> Result<(), proto::Error> {
        let held = self.leaf.opened();
        let now: BTreeMap<(IndexUid, ShardId), News> =
            held.iter().map(|held| ((held.uid.clone(), held.shard), news(held))).collect();
        let mut shards: Vec<Held> = held
            .into_iter()
            .filter(|held| complete || told.get(&(held.uid.clone(), held.shard)) != Some(&news(held)))
            .collect();
        let gone = told.keys().filter(|key| !now.contains_key(*key));
        shards.extend(gone.map(|(uid, shard)| Held {
            uid: uid.clone(),
            shard: *shard,
            owned: false,
            generations: Vec::new(),
        }));
        if !complete && shards.is_empty() {
            return Ok(());
        }
        let report = Report { node: self.leaf.node().clone(), complete, shards };
        self.directory.controller()?.report(report).await?;
        *told = now;
        Ok(())
    }
}
