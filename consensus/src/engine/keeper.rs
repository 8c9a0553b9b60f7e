//! The task that keeps the engine running that the state has in force.
//!
//! It watches what the state says, and nothing else makes it change engines. When the state names another order than
//! the one that runs, the running engine is stopped, its applier is taken over, and the log is opened anew under it, just
//! as at the start of a process: so a change that was interrupted and one that was not go the same way. Readers keep the
//! state all the time. What was proposed and has not become an entry that counts is told as lost by the engine that
//! ends; whoever asks in between hears that nobody leads.
//!
//! A replica whose group has gone on with another engine without it brings a snapshot of another member onto its disk
//! while its own engine still runs: nobody's word is enough to stop that, and others may yet need it. It hears so from those
//! who have gone on, and asks them when it hears nobody. A Byzantine member takes decided values first, and does all of this
//! by itself.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use ledger::ids::NodeId;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Means, Running, Shared};
use crate::bft::Caught;
use crate::port::{Applier, Order, RoleView, Timing};
use crate::raft::fetch::LastAsked;
use crate::raft::{Borrowed, Lookout, Opening, Prepared, StartError, Started};
use crate::sequencer::Sequencer;

/// So long a leader of Raft goes on behind the entry that hands over at least.
const FAREWELL_HEARTBEATS: u32 = 2;
/// And so many election time-outs at most, while others have not heard of that entry without whom the group could not go on.
const FAREWELL_ELECTIONS: u32 = 10;
/// A replica that has heard no leader for so many election time-outs asks where the others are.
const SILENT_ELECTIONS: u32 = 2;

/// An engine that runs, and what is followed of it.
struct Stint {
    running: Running,
    order: Order,
    /// What the state says, as it changes.
    orders: watch::Receiver<Option<Order>>,
    role: watch::Receiver<RoleView>,
    /// Who of a later stint has been heard; a Byzantine member sees to that itself.
    ahead: Option<watch::Receiver<Option<(NodeId, u64)>>>,
}

/// The owner of a replica's engine.
pub(super) struct Keeper {
    opening: Opening,
    means: Means,
    stint: Stint,
    shared: Arc<Shared>,
    role: watch::Sender<RoleView>,
    caught: Caught,
    /// A snapshot of a member that has gone on, on its way here.
    borrowing: Option<BoxFuture<'static, Option<Borrowed>>>,
    /// When to look again whether the group has gone on without this replica.
    look_at: Instant,
    /// It looked like that the last time.
    lost: bool,
    /// Who has lent a snapshot that did not hold.
    last_asked: LastAsked,
}

/// What [`Keeper::start`] gives: the task's owner, what runs, and what the replica is.
type Kept = (Keeper, Arc<Shared>, watch::Receiver<RoleView>);

impl Keeper {
    pub(super) async fn start(prepared: Prepared, means: Means, caught: Caught) -> Result<Kept, StartError> {
        let opening = prepared.opening();
        let stint = begin(prepared, &means, &caught).await?;
        let shared = Arc::new(Shared::new(stint.running.clone()));
        let (role, following) = watch::channel(stint.role.borrow().clone());
        let look_at = Instant::now() + pause(&opening);
        let handle = shared.clone();
        let keeper = Self {
            opening,
            means,
            stint,
            shared,
            role,
            caught,
            borrowing: None,
            look_at,
            lost: false,
            last_asked: LastAsked::default(),
        };
        Ok((keeper, handle, following))
    }

    /// Runs until the replica is stopped.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let (mut followed, mut led) = (true, true);
        loop {
            let said = *self.stint.orders.borrow_and_update();
            if said != Some(self.stint.order) {
                let (running, role) = (self.stint.running.clone(), self.stint.role.clone());
                tokio::select! {
                    biased;
                    _ = stop.changed() => break,
                    () = farewell(running, role, said, self.opening.timing()) => {}
                }
                match self.change(None).await {
                    Ok(()) => (followed, led) = (true, true),
                    Err(error) => return self.ended(&error, stop).await,
                }
                continue;
            }
            tokio::select! {
                biased;
                _ = stop.changed() => break,
                changed = self.stint.orders.changed(), if followed => followed = changed.is_ok(),
                borrowed = arrived(&mut self.borrowing) => {
                    self.borrowing = None;
                    self.look_at = Instant::now() + pause(&self.opening);
                    if let Some(borrowed) = borrowed {
                        match self.change(Some(borrowed)).await {
                            Ok(()) => (followed, led) = (true, true),
                            Err(error) => return self.ended(&error, stop).await,
                        }
                    }
                }
                changed = self.stint.role.changed(), if led => {
                    led = changed.is_ok();
                    self.publish();
                }
                () = tokio::time::sleep_until(self.look_at), if self.borrowing.is_none() => self.look(),
            }
        }
        shut_down(&self.stint.running).await;
        let last = self.stint.role.borrow().clone();
        self.role.send_replace(RoleView { leads: false, leader: None, ..last });
    }

    fn publish(&self) {
        let now = self.stint.role.borrow().clone();
        self.role.send_if_modified(|last| {
            let changed = *last != now;
            *last = now;
            changed
        });
    }

    /// The replica cannot go on, and says why until somebody stops it.
    async fn ended(self, error: &StartError, mut stop: watch::Receiver<bool>) {
        let (group, reason) = (self.opening.group(), error.to_string());
        tracing::error!(%group, %reason, "the replica could not go over to another engine");
        let engine = self.stint.orders.borrow().map_or(self.stint.order.engine, |order| order.engine);
        self.shared.set(Running::Ended(engine, reason.clone()));
        self.role.send_modify(|role| {
            role.leads = false;
            role.leader = None;
            role.stopped = Some(reason);
        });
        // Whoever holds the other end is gone, or has asked for the end.
        drop(stop.wait_for(|stop| *stop).await);
    }

    /// Stops the running engine, and starts the one that the state has in force. With a snapshot of another replica
    /// that may be another one than before; where the snapshot does not hold, it is the same.
    async fn change(&mut self, borrowed: Option<Borrowed>) -> Result<(), StartError> {
        let group = self.opening.group();
        let began = Instant::now();
        let engine = self.stint.orders.borrow().map_or(self.stint.order.engine, |order| order.engine);
        self.shared.set(Running::Between(engine));
        self.borrowing = None;
        self.lost = false;
        // One that may have forgotten what it promised does not take part by having run.
        let takes_part = match &self.stint.running {
            Running::Raft(_) => true,
            Running::Bft(one) => one.votes(),
            Running::Follower(_) | Running::Between(_) | Running::Ended(..) => false,
        };
        let Some(applier) = retire(&self.stint.running).await else {
            return Err(StartError::Storage { group, detail: "the replica was shut down meanwhile".to_owned() });
        };
        let prepared = self.opening.open(applier).await?;
        if takes_part {
            prepared.takes_part();
        }
        if let Some(borrowed) = borrowed {
            let lender = borrowed.node();
            if let Err(error) = prepared.install(borrowed).await {
                self.last_asked.add(lender);
                tracing::warn!(%group, %lender, %error, "a snapshot of another replica does not become the state");
            }
        }
        self.stint = begin(prepared, &self.means, &self.caught).await?;
        self.shared.set(self.stint.running.clone());
        self.publish();
        let (engine, took_ms) = (self.stint.order.engine.name(), began.elapsed().as_millis());
        tracing::info!(%group, engine, stint = self.stint.order.stint(), took_ms, "an engine runs");
        Ok(())
    }

    /// Sees whether the group has gone on with another engine without this replica, and asks for what is missing then.
    fn look(&mut self) {
        self.look_at = Instant::now() + pause(&self.opening);
        let Some(ahead) = &self.stint.ahead else { return };
        let silent = SILENT_ELECTIONS * pause(&self.opening);
        let (lookout, alone) = match &self.stint.running {
            // Whoever leads hears no leader, and knows by itself when nobody follows.
            Running::Raft(raft) => (raft.lookout(), !self.stint.role.borrow().leads && raft.hears_nobody(silent)),
            Running::Follower(follower) => (follower.lookout(), false),
            Running::Bft(_) | Running::Between(_) | Running::Ended(..) => return,
        };
        let own = self.stint.order.stint();
        let heard = *ahead.borrow();
        let heard = heard.filter(|(_, stint)| *stint > own);
        // Those who have gone on may not be able to reach this replica, which can reach them.
        let lost = heard.is_some() || alone || self.stint.role.borrow().leader.is_none();
        // Most that hear so are about to apply the same entry, and most that nobody leads are about to elect somebody.
        if !std::mem::replace(&mut self.lost, lost) || !lost {
            return;
        }
        let mut nodes = (self.means.others)();
        if let Some((node, _)) = heard {
            nodes.retain(|other| *other != node);
            nodes.insert(0, node);
        }
        let nodes = self.last_asked.order(&nodes);
        let stint = heard.map(|(_, stint)| stint);
        self.borrowing = Some(Box::pin(borrow(lookout, nodes, own, stint)));
    }
}

/// Waits for what is on its way; for ever where nothing is.
async fn arrived(borrowing: &mut Option<BoxFuture<'static, Option<Borrowed>>>) -> Option<Borrowed> {
    match borrowing {
        Some(borrowed) => borrowed.await,
        None => std::future::pending().await,
    }
}

/// A leader of Raft goes on leading for a while behind the entry that hands over to another engine: its followers hear from it
/// that this entry is committed, and whoever does not hear it finds out as one that was away does, which takes longer. They go
/// without it if the leader goes: were too few to do so that the others could be shown what was decided, and too few left to
/// decide it again, nobody would go on. So as many have to have that entry as the engine that begins needs; or as long as that
/// may take has passed, and then it does not matter who goes.
async fn farewell(running: Running, role: watch::Receiver<RoleView>, next: Option<Order>, timing: Timing) {
    let (Running::Raft(raft), Some(next)) = (running, next) else { return };
    let (leader, voters) = {
        let role = role.borrow();
        if !role.leads {
            return;
        }
        (role.leader, role.voters.clone())
    };
    let others: Vec<NodeId> = voters.iter().copied().filter(|node| Some(*node) != leader).collect();
    let needed = others.len().saturating_sub(next.engine.tolerated(voters.len()));
    let heartbeat = Duration::from_millis(timing.heartbeat_ms);
    let until = Instant::now() + FAREWELL_ELECTIONS * Duration::from_millis(timing.election_max_ms);
    tokio::time::sleep(FAREWELL_HEARTBEATS * heartbeat).await;
    let lookout = raft.lookout();
    loop {
        let leads = role.borrow().leads;
        if !leads || Instant::now() >= until {
            return;
        }
        if lookout.gone_on(next.stint(), &others, FAREWELL_HEARTBEATS * heartbeat).await >= needed {
            return;
        }
        tokio::time::sleep(heartbeat).await;
    }
}

/// Between two looks for others that have gone on.
fn pause(opening: &Opening) -> Duration {
    Duration::from_millis(opening.timing().election_max_ms)
}

/// Brings a snapshot onto this disk that reaches the stint that others are in, if that is a later one.
async fn borrow(lookout: Lookout, nodes: Vec<NodeId>, own: u64, heard: Option<u64>) -> Option<Borrowed> {
    let stint = match heard {
        Some(stint) => Some(stint),
        None => lookout.latest_stint(&nodes).await,
    };
    let stint = stint.filter(|stint| *stint > own)?;
    let group = lookout.group();
    tracing::info!(%group, stint, "the group has gone on with another engine; a snapshot of another replica is fetched");
    match lookout.borrow_snapshot(stint, &nodes).await {
        Ok(borrowed) => Some(borrowed),
        Err(error) => {
            tracing::warn!(%group, %error, "no snapshot of another replica");
            None
        }
    }
}

/// Starts the engine that the state has in force.
async fn begin(prepared: Prepared, means: &Means, caught: &Caught) -> Result<Stint, StartError> {
    let (group, _) = prepared.identity();
    // The engine may apply an entry that hands over while it starts: what it tells is compared with this.
    let orders = prepared.orders();
    let Some(order) = prepared.order() else {
        let detail = "the state does not say which engine orders its entries".to_owned();
        return Err(StartError::Storage { group, detail });
    };
    let (running, role, ahead) = match order.engine {
        ledger::Engine::Raft => match prepared.start_or_follow(means.others.clone()).await? {
            Started::Member(raft) => {
                let (role, ahead) = (raft.role(), raft.ahead());
                (Running::Raft(raft), role, Some(ahead))
            }
            Started::Follower(follower) => {
                let (role, ahead) = (follower.role(), follower.ahead());
                (Running::Follower(follower), role, Some(ahead))
            }
        },
        ledger::Engine::Bft => {
            let bft = prepared.start_bft(means.parts(&order, caught.clone())).await?;
            let role = bft.role();
            (Running::Bft(bft), role, None)
        }
    };
    Ok(Stint { running, order, orders, role, ahead })
}

async fn retire(running: &Running) -> Option<Box<dyn Applier>> {
    match running {
        Running::Raft(one) => one.retire().await,
        Running::Follower(one) => one.retire().await,
        Running::Bft(one) => one.retire().await,
        Running::Between(_) | Running::Ended(..) => None,
    }
}

async fn shut_down(running: &Running) {
    match running {
        Running::Raft(one) => one.shutdown().await,
        Running::Follower(one) => one.shutdown().await,
        Running::Bft(one) => one.shutdown().await,
        Running::Between(_) | Running::Ended(..) => {}
    }
}
