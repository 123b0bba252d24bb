//! [`JobRunner`]: a job from its beginning to its end, in a task of its own.
//!
//! Invariants: a job is begun by a caller and never runs in a caller's future, so one that leaves breaks nothing off
//! half done. Its result is kept before its callers are the only ones who know it.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::timeout_at;

use super::error::Error;
use super::job::{Product, Question};
use super::jobs::JobGuard;
use super::orders::{OrderSender, Patience};
use super::pager::Pager;
use super::resolver::Resolver;
use super::{Service, render};
use crate::kernel::metrics::AppLabels;
use crate::upstream::egress::Failure;
use crate::vendor::Vendor;
use crate::vendor::order::Payer;

/// One job under way.
pub(super) struct JobRunner {
    service: Arc<Service>,
    job: JobGuard,
    resolver: Arc<Resolver>,
}

impl JobRunner {
    /// For a job that this payer began.
    pub(super) fn new(service: Arc<Service>, guard: JobGuard, vendor: Vendor, payer: Payer) -> Self {
        let job = &guard.job;
        let orders = OrderSender {
            client: Arc::clone(&service.client),
            clock: service.clock.clone(),
            app: job.key.app.clone(),
            payer,
            sharers: Some(job.sharers.subscribe()),
            // It works for all who wait: that each of them is still let in is looked at where they wait.
            proof: None,
            patience: Patience::Callers { deadline: job.deadline(), stuck: job.stuck.clone() },
            sent: Some(job.sent.clone()),
            costs: job.costs.clone(),
        };
        let (metrics, counts) = (service.metrics.clone(), service.counts.clone());
        Self { service, resolver: Arc::new(Resolver { orders, vendor, metrics, counts }), job: guard }
    }

    /// Runs until there is an outcome, or nobody wants one.
    pub(super) async fn run(self) {
        let Self { service, job: guard, resolver } = self;
        let job = Arc::clone(&guard.job);
        let began = service.clock.now();
        let stopping = service.tasks.stopping();
        let mut work = pin!(timeout_at(job.end, product(&service, Arc::clone(&resolver), &job.key.question)));
        let mut outlived = pin!(service.jobs.outlived(&job));
        let mut told = false;
        let made = loop {
            tokio::select! {
                // In this order: a job that nobody wants any more publishes nothing, also when its work ends just then.
                biased;
                () = job.abandoned() => return,
                () = &mut outlived => return,
                () = stopping.cancelled(), if !told => {
                    told = true;
                    service.jobs.stop();
                }
                made = &mut work => break made.unwrap_or_else(|_| Err(Failure::TimedOut { sent: true }.into())),
            }
        };
        let now = service.clock.now();
        let labels = AppLabels { app: job.key.app.to_string() };
        service.metrics.history_resolve.get_or_create(&labels).observe((now - began).as_secs_f64());
        let again = job.is_past && made.is_ok();
        guard.publish(now, made.map(|member| Arc::new(Product { member })));
        // A count has no handle: it is kept to be given again, or to who left before it was there.
        if again || matches!(job.key.question, Question::Messages(_)) || service.jobs.owed().contains(&job.number) {
            service.results.keep(&job, &resolver.orders.payer.client, again, now).await;
            service.results.keep_swept(&service.tasks, &service.clock);
        }
    }
}

/// The member that answers the question.
async fn product(service: &Service, resolver: Arc<Resolver>, question: &Question) -> Result<Bytes, Error> {
    let query = match question {
        Question::Count(filter) => return resolver.count(filter).await.map(render::count),
        Question::Messages(query) => query,
    };
    let mut list = render::MessageList::new(service.memory.clone(), &resolver.orders.payer.client);
    let mut pager = Pager::new(resolver, query);
    while let Some(messages) = pager.next().await? {
        list.extend(&messages)?;
    }
    Ok(list.finish())
}
