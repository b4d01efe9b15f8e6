//! Persistence at session set-up: the real server that a client has had, else one that the scheduler chooses and that is
//! remembered (net/netfilter/ipvs/ip_vs_core.c, `ip_vs_sched_persist`).
//!
//! A template is looked for, and one entered, with the bucket claimed; the scheduler chooses in between with nothing
//! claimed. Where that was too late, since another worker has entered one meanwhile, what was entered first counts.

use super::balancer::Balancer;
use crate::balance::scheduler::Arrival;
use crate::balance::{Persistence, Service, ServiceTable, Template, TemplateError, TemplateIndex, TemplateKey};

/// Who serves a new session.
pub(super) struct Chosen {
    /// The real server's index in its service.
    pub(super) server: usize,
    /// The template that the session is one of.
    pub(super) template: Option<TemplateIndex>,
    /// Why there is none where there should be one.
    pub(super) missed: Option<TemplateError>,
}

impl Chosen {
    /// By the scheduler alone.
    pub(super) fn freely(server: usize) -> Self {
        Self { server, template: None, missed: None }
    }
}

impl Balancer {
    /// Chooses a real server for a new session of a service with persistence. A template that it gives has the session
    /// among its own.
    #[inline(never)]
    pub(super) fn choose_persistent(
        &mut self,
        table: &ServiceTable,
        index: usize,
        persistence: Persistence,
        arrival: &Arrival,
    ) -> Option<Chosen> {
        let service = table.services.get(index)?;
        let network = persistence.network_of(arrival.client.0);
        let key = TemplateKey::new(network, service.key.into());
        let (timeout, now) = (persistence.timeout_seconds, arrival.now);
        let missed = match table.templates.find(&key, timeout, now) {
            Ok(found) => {
                if let Some(chosen) = found.and_then(|template| usable(table, service, template)) {
                    // It may have got below its lower threshold.
                    self.look_at(table, &service.real_servers[chosen.server]);
                    return Some(chosen);
                }
                None
            }
            Err(error) => Some(error),
        };
        let server = self.choose(table, index, arrival)?;
        if missed.is_some() {
            return Some(Chosen { missed, ..Chosen::freely(server) });
        }
        let position = u32::try_from(server).unwrap_or(u32::MAX);
        let slot = service.real_servers.get(server)?.slot;
        match table.templates.enter(&key, (slot, position), timeout, now) {
            // One that another worker has entered and that cannot be used here is no template the next time.
            Ok(template) => usable(table, service, template).or(Some(Chosen::freely(server))),
            Err(error) => Some(Chosen { missed: Some(error), ..Chosen::freely(server) }),
        }
    }
}

/// What a template says, if its real server is there and may be used; else it is retired. A threshold is no obstacle, nor
/// is weight 0 unless that ends templates (`ip_vs_check_template`).
fn usable(table: &ServiceTable, service: &Service, template: Template) -> Option<Chosen> {
    let servers = &service.real_servers;
    let is_it = |position: &usize| servers.get(*position).is_some_and(|server| server.slot == template.server);
    let hint = template.position as usize;
    let found = Some(hint).filter(is_it).or_else(|| (0..servers.len()).find(is_it));
    let may = |position: &usize| !table.sysctls.expire_quiescent_template || servers[*position].weight.0 > 0;
    let Some(server) = found.filter(may) else {
        table.templates.retire(template.index);
        return None;
    };
    if server != hint {
        table.templates.set_position(template.index, u32::try_from(server).unwrap_or(u32::MAX));
    }
    Some(Chosen { server, template: Some(template.index), missed: None })
}
