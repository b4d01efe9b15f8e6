//! Settings of the gateway as a whole that can be changed while it runs: session timeouts and IPVS's sysctls.
//!
//! A request to change some does all of it or, with the reason, nothing. What was changed is remembered, to be kept.

use std::collections::BTreeMap;

use super::kept::{KeptSettings, KeptTimeouts};
use super::protocol::{ErrorKind, Refusal, SysctlRow};
use super::refusal::{list, refuse};
use crate::balance::{Strategy, Sysctl, Sysctls, Timeouts};
use crate::config::{nearest, rules};

/// What holds now.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Session timeouts.
    pub timeouts: Timeouts,
    /// IPVS's sysctls.
    pub sysctls: Sysctls,
    /// What of them was changed at run time.
    pub kept: KeptSettings,
}

impl Settings {
    /// The configuration file's, with what was changed at run time in their place.
    pub fn new(timeouts: Timeouts, sysctls: Sysctls, kept: KeptSettings) -> Self {
        Self { timeouts: kept.timeouts.over(timeouts), sysctls: kept.sysctls.over(sysctls), kept }
    }

    /// Changes those timeouts that are given. Tells what has changed, a line each; none: it was so already.
    pub fn set_timeouts(&mut self, given: KeptTimeouts) -> Result<Vec<String>, Refusal> {
        let mut lines = Vec::new();
        let mut wanted = self.timeouts;
        let places = [
            ("tcp", given.tcp, &mut wanted.tcp),
            ("tcp_fin", given.tcp_fin, &mut wanted.tcp_fin),
            ("udp", given.udp, &mut wanted.udp),
        ];
        for (name, given, place) in places {
            let Some(seconds) = given.filter(|seconds| seconds != place) else { continue };
            if !rules::TIMEOUT.contains(&seconds) {
                let (least, most) = rules::TIMEOUT.into_inner();
                let message = format!("timeout {name}: {seconds} is no timeout; allowed: {least}-{most} seconds");
                return refuse(ErrorKind::Invalid, message);
            }
            lines.push(format!("timeout {name}: {place} -> {seconds} seconds"));
            *place = seconds;
        }
        self.timeouts = wanted;
        self.kept.timeouts = self.kept.timeouts.and(given);
        Ok(lines)
    }

    /// The same for sysctls, by their names. All faults are told at once.
    pub fn set_sysctls(&mut self, values: &BTreeMap<String, u32>) -> Result<Vec<String>, Refusal> {
        let mut wanted = self.clone();
        let (mut lines, mut faults, mut unknown) = (Vec::new(), Vec::new(), false);
        for (name, &value) in values {
            let sysctl = match known(name) {
                Ok(sysctl) => sysctl,
                Err(refusal) => {
                    unknown = true;
                    faults.push(refusal.message);
                    continue;
                }
            };
            let before = sysctl.value(&wanted.sysctls);
            if !sysctl.set(&mut wanted.sysctls, value) {
                faults.push(format!("sysctl {}: {value} is out of range; allowed: {}", sysctl.name, sysctl.allowed()));
                continue;
            }
            wanted.kept.sysctls.insert(sysctl, value);
            let after = sysctl.value(&wanted.sysctls);
            if after != before {
                lines.push(format!("sysctl {}: {before} -> {after}", sysctl.name));
            }
        }
        if !faults.is_empty() {
            return refuse(if unknown { ErrorKind::NotFound } else { ErrorKind::Invalid }, faults.join("\n"));
        }
        *self = wanted;
        Ok(lines)
    }

    /// The rows of the sysctls of these names in their order, or, without names, of all. `active` are the defence strategies that are
    /// active: automatic ones of them read 2.
    pub fn sysctl_rows(&self, names: &[String], active: &[String]) -> Result<Vec<SysctlRow>, Refusal> {
        if names.is_empty() {
            return Ok(Sysctl::ALL.iter().map(|sysctl| self.sysctl_row(sysctl, active)).collect());
        }
        names.iter().map(|name| known(name).map(|sysctl| self.sysctl_row(sysctl, active))).collect()
    }

    /// The sysctls that are others than these, as `NAME = VALUE`.
    pub fn differing_from(&self, file: &Sysctls) -> Vec<String> {
        let differing = Sysctl::ALL.iter().filter(|sysctl| sysctl.value(&self.sysctls) != sysctl.value(file));
        differing.map(|sysctl| format!("{} = {}", sysctl.name, sysctl.value(&self.sysctls))).collect()
    }

    fn sysctl_row(&self, sysctl: &Sysctl, active: &[String]) -> SysctlRow {
        let value = sysctl.value(&self.sysctls);
        let is_active = value == Strategy::AUTOMATIC && active.iter().any(|name| name == sysctl.name);
        SysctlRow {
            name: sysctl.name.to_owned(),
            value: if is_active { Strategy::ACTIVE } else { value },
            default: sysctl.value(&Sysctls::default()),
            least: *sysctl.range.start(),
            most: *sysctl.range.end(),
            changed_at_run_time: self.kept.sysctls.has(sysctl),
        }
    }
}

/// The sysctl of a name, or what may have been meant.
fn known(name: &str) -> Result<&'static Sysctl, Refusal> {
    let Some(sysctl) = Sysctl::find(name) else {
        let short = Sysctl::short_name(name);
        let names = || Sysctl::ALL.iter().map(|sysctl| sysctl.name);
        let message = match nearest(short, names()) {
            Some(meant) => format!("there is no sysctl {short:?}; did you mean {meant:?}?"),
            None => format!("there is no sysctl {short:?}; there are: {}", list(names())),
        };
        return refuse(ErrorKind::NotFound, message);
    };
    Ok(sysctl)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::new(Timeouts::default(), Sysctls::default(), KeptSettings::default())
    }

    fn values(values: &[(&str, u32)]) -> BTreeMap<String, u32> {
        values.iter().map(|&(name, value)| (name.to_owned(), value)).collect()
    }

    #[test]
    fn all_are_set_or_none_and_every_fault_is_told() {
        let mut settings = settings();
        let wrong = [("conn_reuse_mode", 4), ("sloppy_tcp", 1), ("net.ipv4.vs.slopy_sctp", 1), ("colour", 1)];
        let refusal = settings.set_sysctls(&values(&wrong)).unwrap_err();
        let lines: Vec<_> = refusal.message.lines().collect();
        assert!(lines[0].starts_with("there is no sysctl \"colour\"; there are: "), "{}", lines[0]);
        assert_eq!(lines[1], "sysctl conn_reuse_mode: 4 is out of range; allowed: 0-3");
        assert_eq!(lines[2], "there is no sysctl \"slopy_sctp\"; did you mean \"sloppy_sctp\"?");
        assert_eq!((settings.sysctls, &settings.kept), (Sysctls::default(), &KeptSettings::default()));

        let told = settings.set_sysctls(&values(&[("net/ipv4/vs/sloppy_tcp", 1), ("conn_reuse_mode", 1)])).unwrap();
        assert_eq!(told, ["sysctl sloppy_tcp: 0 -> 1"]);
        assert_eq!(settings.sysctls, Sysctls { sloppy_tcp: true, ..Sysctls::default() });
        assert!(settings.kept.sysctls.has(Sysctl::find("conn_reuse_mode").unwrap()), "also what was so by the file");
    }

    #[test]
    fn timeouts_are_set_all_or_none_and_kept_also_where_they_were_so() {
        let mut settings = settings();
        let before = settings.timeouts;
        let given = KeptTimeouts { tcp: Some(7), udp: Some(0), ..KeptTimeouts::default() };
        let message = settings.set_timeouts(given).unwrap_err().message;
        assert!(message.starts_with("timeout udp: 0 is no timeout; allowed: "), "{message}");
        assert_eq!((settings.timeouts, &settings.kept), (before, &KeptSettings::default()));

        let given = KeptTimeouts { tcp: Some(before.tcp), udp: Some(7), ..KeptTimeouts::default() };
        assert_eq!(settings.set_timeouts(given).unwrap(), [format!("timeout udp: {} -> 7 seconds", before.udp)]);
        assert_eq!(settings.timeouts, Timeouts { udp: 7, ..before });
        assert_eq!(settings.kept.timeouts, given);
    }

    #[test]
    fn an_automatic_strategy_that_is_active_reads_2() {
        let mut settings = settings();
        settings.set_sysctls(&values(&[("drop_entry", 1), ("drop_packet", 3)])).unwrap();
        let names = ["drop_entry", "drop_packet", "secure_tcp"].map(str::to_owned);
        let shown = |active: &[String]| {
            settings.sysctl_rows(&names, active).unwrap().into_iter().map(|row| row.value).collect::<Vec<_>>()
        };
        assert_eq!(shown(&[]), [1, 3, 0]);
        assert_eq!(shown(&names[..2]), [2, 3, 0]);
    }

    #[test]
    fn rows_come_in_the_order_asked_or_all_by_name() {
        let settings = settings();
        let names = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            settings.sysctl_rows(&names, &[]).map(|rows| rows.into_iter().map(|row| row.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["sloppy_tcp", "net.ipv4.vs.conn_reuse_mode"]).unwrap(), ["sloppy_tcp", "conn_reuse_mode"]);
        assert_eq!(names(&[]).unwrap().len(), Sysctl::ALL.len());
        assert_eq!(names(&["sloppy"]).unwrap_err().kind, ErrorKind::NotFound);
    }
}
