//! Settings of the gateway as a whole that were changed at run time: they are kept, and win over the configuration file's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::balance::{Sysctl, Sysctls, Timeouts};
use crate::config::rules;

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptSettings {
    /// Session timeouts.
    pub timeouts: KeptTimeouts,
    /// IPVS's sysctls.
    pub sysctls: KeptSysctls,
}

/// Session timeouts that were changed, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are called as in [timeouts]")]
pub struct KeptTimeouts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_fin: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<u32>,
}

impl KeptTimeouts {
    /// Whether none was changed.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde wants it")]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These, and over them later changes.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        Self { tcp: later.tcp.or(self.tcp), tcp_fin: later.tcp_fin.or(self.tcp_fin), udp: later.udp.or(self.udp) }
    }

    /// All timeouts, with these in place of the file's.
    pub fn over(self, file: Timeouts) -> Timeouts {
        Timeouts {
            tcp: self.tcp.unwrap_or(file.tcp),
            tcp_fin: self.tcp_fin.unwrap_or(file.tcp_fin),
            udp: self.udp.unwrap_or(file.udp),
            ..file
        }
    }

    /// Whether each of them is one that can be set.
    pub fn are_valid(&self) -> bool {
        [self.tcp, self.tcp_fin, self.udp].into_iter().flatten().all(|seconds| rules::TIMEOUT.contains(&seconds))
    }
}

/// Sysctls that were changed, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeptSysctls(BTreeMap<String, u32>);

impl KeptSysctls {
    /// Whether none was changed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this one was changed.
    pub fn has(&self, sysctl: &Sysctl) -> bool {
        self.0.contains_key(sysctl.name)
    }

    /// Remembers that one was set to this value.
    pub fn insert(&mut self, sysctl: &Sysctl, value: u32) {
        self.0.insert(sysctl.name.to_owned(), value);
    }

    /// All sysctls, with these in place of the file's.
    pub fn over(&self, file: Sysctls) -> Sysctls {
        let mut all = file;
        for (name, &value) in &self.0 {
            // `fault` has looked at what was read from a file.
            let _known_and_in_range = Sysctl::find(name).is_some_and(|sysctl| sysctl.set(&mut all, value));
        }
        all
    }

    /// What is wrong with one of them, if anything is.
    pub fn fault(&self) -> Option<String> {
        let is_wrong = |(name, value): (&String, &u32)| match Sysctl::ALL.iter().find(|sysctl| sysctl.name == name) {
            None => Some(format!("there is no sysctl {name:?}")),
            Some(sysctl) if !sysctl.range.contains(value) => {
                Some(format!("sysctl {name}: {value} is out of range; allowed: {}", sysctl.allowed()))
            }
            Some(_) => None,
        };
        self.0.iter().find_map(is_wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_wins_and_the_rest_is_the_files() {
        let mut kept = KeptSysctls::default();
        kept.insert(Sysctl::find("conn_reuse_mode").unwrap(), 0);
        let file = Sysctls { sloppy_tcp: true, conn_reuse_mode: 3, ..Sysctls::default() };
        assert_eq!(kept.over(file), Sysctls { conn_reuse_mode: 0, ..file });
        assert_eq!(kept.fault(), None);
    }

    #[test]
    fn what_is_no_sysctl_or_out_of_range_is_named() {
        let fault = |text| serde_json::from_str::<KeptSysctls>(text).unwrap().fault().unwrap();
        assert_eq!(fault(r#"{"sloppy_udp":1}"#), "there is no sysctl \"sloppy_udp\"");
        assert_eq!(fault(r#"{"sloppy_tcp":2}"#), "sysctl sloppy_tcp: 2 is out of range; allowed: 0-1");
    }
}
