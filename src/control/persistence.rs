//! What was changed at run time, kept in `services.json` of the state directory.
//!
//! The file is replaced as a whole: written beside, synced, renamed, and the directory synced, so that a crash leaves
//! the old file or the new one. One process at a time may use a state directory (`lock` is flocked); a file that
//! cannot be used is never deleted, only moved aside when the user says so.
//!
//! Which wins at start: the state, since it is what the gateway last did; the configuration file's services and pools
//! count when there is no state, when it is discarded, and when they are applied.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::kept::{KeptSettings, KeptSysctls, KeptTimeouts};
use super::settings::Settings;
use crate::balance::{Sysctls, Timeouts};
use crate::config::{BalanceConfig, LocalPoolConfig, MarkConfig, ServiceConfig, SnatConfig};

/// The version of the file's form.
pub const STATE_VERSION: u32 = 1;

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the messages say")]
pub enum StateError {
    #[error("{}: {action}: {source}", .path.display())]
    Io { path: PathBuf, action: &'static str, source: io::Error },
    #[error("{}: another fullgate{} uses this state directory: stop it, or give each a state_dir of its own", .path.display(), .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Locked { path: PathBuf, pid: Option<u32> },
    #[error(
        "{}: not a state of services: {reason}; repair it, or start with --discard-state, which moves it aside and \
         takes the services of the configuration file", .path.display()
    )]
    Corrupt { path: PathBuf, reason: String },
    #[error(
        "{}: its version is {found}, this fullgate reads {STATE_VERSION}; start the fullgate that wrote it, or start \
         with --discard-state, which moves it aside and takes the services of the configuration file", .path.display()
    )]
    Version { path: PathBuf, found: u32 },
}

/// The state directory, locked while this lives.
#[derive(Debug)]
pub struct StateStore {
    directory: PathBuf,
    file: PathBuf,
    /// Held for its lock.
    _lock: File,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile<B> {
    version: u32,
    balance: B,
    #[serde(default, skip_serializing_if = "KeptTimeouts::is_empty")]
    timeouts: KeptTimeouts,
    #[serde(default, skip_serializing_if = "KeptSysctls::is_empty")]
    sysctls: KeptSysctls,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

impl StateStore {
    /// Opens and locks a state directory, which is made if it is missing.
    pub fn open(directory: &Path) -> Result<Self, StateError> {
        let make = DirBuilder::new().recursive(true).mode(0o755).create(directory);
        make.map_err(io_error(directory, "state directory cannot be made"))?;
        let path = directory.join("lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o644);
        let mut lock = options.open(&path).map_err(io_error(&path, "cannot be opened"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let pid = lock.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(StateError::Locked { path, pid });
            }
            Err(TryLockError::Error(source)) => {
                return Err(StateError::Io { path, action: "cannot be locked", source });
            }
        }
        let note = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
        note.map_err(io_error(&path, "cannot be written"))?;
        Ok(Self { directory: directory.to_owned(), file: directory.join("services.json"), _lock: lock })
    }

    /// The file that the state is in.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The services, pools and rules of the state, if there is one.
    pub fn load(&self) -> Result<Option<BalanceConfig>, StateError> {
        Ok(self.read()?.map(|state| state.balance))
    }

    /// The timeouts and sysctls of the state.
    pub fn settings(&self) -> Result<KeptSettings, StateError> {
        let settings = |StateFile { timeouts, sysctls, .. }| KeptSettings { timeouts, sysctls };
        Ok(self.read()?.map(settings).unwrap_or_default())
    }

    fn read(&self) -> Result<Option<StateFile<BalanceConfig>>, StateError> {
        let text = match fs::read(&self.file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(StateError::Io { path: self.file.clone(), action: "cannot be read", source });
            }
        };
        let corrupt =
            |error: serde_json::Error| StateError::Corrupt { path: self.file.clone(), reason: error.to_string() };
        let VersionOnly { version } = serde_json::from_slice(&text).map_err(corrupt)?;
        if version != STATE_VERSION {
            return Err(StateError::Version { path: self.file.clone(), found: version });
        }
        let state: StateFile<BalanceConfig> = serde_json::from_slice(&text).map_err(corrupt)?;
        let no_timeouts = || format!("{:?} has what is no timeout", state.timeouts);
        let fault = (!state.timeouts.are_valid()).then(no_timeouts).or_else(|| state.sysctls.fault());
        match fault {
            Some(reason) => Err(StateError::Corrupt { path: self.file.clone(), reason }),
            None => Ok(Some(state)),
        }
    }

    /// Moves the state aside, as `services.json.bad` or that with a number. Returns where it went, if there was one.
    pub fn discard(&self) -> Result<Option<PathBuf>, StateError> {
        let candidates = (0..).map(|number: u32| match number {
            0 => self.directory.join("services.json.bad"),
            _ => self.directory.join(format!("services.json.bad.{number}")),
        });
        let Some(aside) = candidates.into_iter().find(|path| fs::symlink_metadata(path).is_err()) else {
            return Ok(None);
        };
        match fs::rename(&self.file, &aside) {
            Ok(()) => Ok(Some(aside)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::Io { path: self.file.clone(), action: "cannot be moved aside", source }),
        }
    }

    /// What writes the state. Only one write may be under way at a time.
    pub fn writer(&self) -> StateWriter {
        StateWriter { directory: self.directory.clone(), file: self.file.clone() }
    }
}

fn io_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io { path, action, source }
}

/// Writes the state, from any thread.
#[derive(Clone, Debug)]
pub struct StateWriter {
    directory: PathBuf,
    file: PathBuf,
}

impl StateWriter {
    /// Replaces the state. It is on the disk when this returns.
    pub fn save(&self, balance: &BalanceConfig, kept: &KeptSettings) -> Result<(), StateError> {
        let temporary = self.directory.join("services.json.new");
        write_synced(&temporary, balance, kept).map_err(io_error(&temporary, "cannot be written"))?;
        fs::rename(&temporary, &self.file).map_err(io_error(&self.file, "cannot be replaced"))?;
        let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
        synced.map_err(io_error(&self.directory, "cannot be synced"))
    }
}

fn write_synced(path: &Path, balance: &BalanceConfig, kept: &KeptSettings) -> io::Result<()> {
    // What the socket tells only those who may use it, the file tells only its owner.
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut buffer = io::BufWriter::with_capacity(1 << 16, file);
    let KeptSettings { timeouts, sysctls } = kept.clone();
    serde_json::to_writer_pretty(&mut buffer, &StateFile { version: STATE_VERSION, balance, timeouts, sysctls })?;
    buffer.write_all(b"\n")?;
    buffer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// How far the state and the configuration file are apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Services in one of them only, or in both but not the same.
    pub services: usize,
    /// Local pools likewise.
    pub local_pools: usize,
    /// Rules for source NAT likewise; 1 if only their order differs.
    pub snat: usize,
    /// Rules for marks likewise.
    pub marks: usize,
}

/// What to begin with: the state if there is one and it is not discarded, else the file; and how far they differ.
pub fn initial_balance(
    state: Option<BalanceConfig>,
    file: BalanceConfig,
    discard: bool,
) -> (BalanceConfig, Differences) {
    match state {
        Some(state) if !discard => {
            let differences = Differences {
                services: count_differences(&state.services, &file.services, ServiceConfig::key),
                local_pools: count_differences(&state.local_pools, &file.local_pools, |pool: &LocalPoolConfig| {
                    pool.name.clone()
                }),
                snat: count_differences(&state.snat, &file.snat, |rule: &SnatConfig| rule.name.clone())
                    .max(usize::from(state.snat != file.snat)),
                marks: count_differences(&state.marks, &file.marks, |rule: &MarkConfig| rule.name.clone())
                    .max(usize::from(state.marks != file.marks)),
            };
            (state, differences)
        }
        _ => (file, Differences::default()),
    }
}

fn count_differences<T: PartialEq, K: Eq + std::hash::Hash>(one: &[T], other: &[T], key: impl Fn(&T) -> K) -> usize {
    let others: HashMap<K, &T> = other.iter().map(|item| (key(item), item)).collect();
    let common = one.iter().filter(|item| others.contains_key(&key(item))).count();
    let equal = one.iter().filter(|item| others.get(&key(item)) == Some(item)).count();
    one.len() + other.len() - common - equal
}

/// Reads the state and chooses what to begin with; says in the log where the state differs from the file. With
/// `discard`, the state is moved aside first.
pub fn restore(store: &StateStore, file: BalanceConfig, discard: bool) -> Result<BalanceConfig, StateError> {
    if discard && let Some(aside) = store.discard()? {
        tracing::warn!(moved_to = %aside.display(), "state discarded: beginning with the configuration file's services");
    }
    let (balance, differences) = initial_balance(store.load()?, file, false);
    if differences != Differences::default() {
        tracing::warn!(
            state = %store.file().display(),
            services = differences.services,
            local_pools = differences.local_pools,
            snat = differences.snat,
            marks = differences.marks,
            "the state kept from run time differs from the configuration file and wins: `fullgate apply` makes the \
             gateway equal to the file, a start with --discard-state begins with the file"
        );
    }
    Ok(balance)
}

/// Reads the timeouts and sysctls that were changed at run time, which win over the file's; says in the log where they are
/// others.
pub fn restore_settings(
    store: &StateStore,
    (timeouts, sysctls): (Timeouts, Sysctls),
) -> Result<KeptSettings, StateError> {
    let kept = store.settings()?;
    let settings = Settings::new(timeouts, sysctls, kept.clone());
    if settings.timeouts != timeouts {
        let Timeouts { tcp, tcp_fin, udp, .. } = settings.timeouts;
        tracing::warn!(tcp, tcp_fin, udp, "timeouts kept from run time differ from the configuration file's and win");
    }
    let differ = settings.differing_from(&sysctls);
    if !differ.is_empty() {
        tracing::warn!(
            "sysctls kept from run time differ from the configuration file's and win: {}",
            differ.join(", ")
        );
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::balance::Sysctl;

    fn balance(ports: &[u16]) -> BalanceConfig {
        let service = |port: &u16| {
            serde_json::json!({
                "vip": format!("10.0.0.1:{port}"), "protocol": "udp", "scheduler": "wlc", "mode": "fullnat",
                "local_pool": "lan", "real_server": [{"address": "10.1.0.1:80", "weight": 3}],
            })
        };
        let services: Vec<_> = ports.iter().map(service).collect();
        let pool =
            serde_json::json!({"name": "lan", "port": "lan", "addresses": ["10.1.0.200"], "ports": "1024-65535"});
        serde_json::from_value(serde_json::json!({"local_pool": [pool], "service": services})).unwrap()
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let store = StateStore::open(&directory.path().join("a/b")).unwrap();
        assert_eq!(store.load().unwrap(), None);
        store.writer().save(&balance(&[80]), &KeptSettings::default()).unwrap();
        store.writer().save(&balance(&[80, 81]), &KeptSettings::default()).unwrap();
        assert_eq!(store.load().unwrap(), Some(balance(&[80, 81])));
        let mut names: Vec<_> =
            fs::read_dir(directory.path().join("a/b")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["lock", "services.json"]);
        assert_eq!(fs::metadata(store.file()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn settings_that_were_changed_are_kept_and_win() {
        let directory = tempfile::tempdir().unwrap();
        let store = StateStore::open(directory.path()).unwrap();
        assert_eq!(store.settings().unwrap(), KeptSettings::default());
        let timeouts = KeptTimeouts { tcp: Some(600), ..KeptTimeouts::default() };
        let timeouts = timeouts.and(KeptTimeouts { tcp: Some(700), udp: Some(60), tcp_fin: None });
        let mut kept = KeptSettings { timeouts, ..KeptSettings::default() };
        kept.sysctls.insert(Sysctl::find("conn_reuse_mode").unwrap(), 0);
        store.writer().save(&balance(&[80]), &kept).unwrap();
        assert_eq!(store.settings().unwrap(), kept);
        let file = Timeouts { tcp: 5, tcp_fin: 6, udp: 7, icmp: 8, ..Timeouts::default() };
        let file_sysctls = Sysctls { sloppy_tcp: true, ..Sysctls::default() };
        let all = Settings::new(file, file_sysctls, kept.clone());
        let Timeouts { tcp, tcp_fin, udp, icmp, .. } = all.timeouts;
        assert_eq!((tcp, tcp_fin, udp, icmp), (700, 6, 60, 8));
        assert_eq!(all.sysctls, Sysctls { conn_reuse_mode: 0, ..file_sysctls });
        assert_eq!(all.differing_from(&file_sysctls), ["conn_reuse_mode = 0"]);
        kept.timeouts.udp = Some(0);
        store.writer().save(&balance(&[80]), &kept).unwrap();
        assert!(store.settings().unwrap_err().to_string().contains("no timeout"));
        let text = r#"{"version":1,"balance":{},"sysctls":{"sloppy_udp":1}}"#;
        fs::write(store.file(), text).unwrap();
        assert!(store.settings().unwrap_err().to_string().contains("there is no sysctl \"sloppy_udp\""));
        assert_eq!(restore(&store, balance(&[80]), true).unwrap(), balance(&[80]));
        assert_eq!(store.settings().unwrap(), KeptSettings::default(), "discarded with the services");
    }

    #[test]
    fn a_second_daemon_is_refused_and_told_which_is_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let first = StateStore::open(directory.path()).unwrap();
        let error = StateStore::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
        drop(first);
        StateStore::open(directory.path()).unwrap();
    }

    #[test]
    fn what_cannot_be_used_is_named_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let store = StateStore::open(directory.path()).unwrap();
        let cases = [
            ("{\"version\":1,\"balance\":{", "not a state of services"),
            ("{\"version\":2,\"balance\":{}}", "its version is 2, this fullgate reads 1"),
            ("{\"version\":1,\"balance\":{\"service\":[{\"vip\":\"x\"}]}}", "not a state of services"),
            ("", "not a state of services"),
        ];
        for (index, (text, words)) in cases.into_iter().enumerate() {
            fs::write(store.file(), text).unwrap();
            let error = store.load().unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("--discard-state"), "{error}");
            assert!(error.starts_with(&store.file().display().to_string()), "{error}");
            assert_eq!(restore(&store, balance(&[80]), true).unwrap(), balance(&[80]));
            let suffix = if index == 0 { String::new() } else { format!(".{index}") };
            let aside = directory.path().join(format!("services.json.bad{suffix}"));
            assert_eq!(fs::read_to_string(aside).unwrap(), text);
        }
        assert_eq!(store.discard().unwrap(), None);
    }

    #[test]
    fn the_state_wins_and_differences_are_counted() {
        let (state, file) = (balance(&[80, 81, 82]), balance(&[81, 82, 83]));
        let mut changed = state.clone();
        changed.services[1].real_servers.clear();
        let (chosen, differences) = initial_balance(Some(changed.clone()), file.clone(), false);
        assert_eq!((chosen, differences), (changed.clone(), Differences { services: 3, ..Differences::default() }));
        assert_eq!(initial_balance(Some(changed), file.clone(), true), (file.clone(), Differences::default()));
        assert_eq!(initial_balance(None, file.clone(), false).0, file);
    }

    #[test]
    fn a_failed_write_leaves_the_old_state() {
        let directory = tempfile::tempdir().unwrap();
        let store = StateStore::open(directory.path()).unwrap();
        store.writer().save(&balance(&[80]), &KeptSettings::default()).unwrap();
        fs::create_dir(directory.path().join("services.json.new")).unwrap();
        let error = store.writer().save(&balance(&[81]), &KeptSettings::default()).unwrap_err().to_string();
        assert!(error.contains("services.json.new: cannot be written"), "{error}");
        assert_eq!(store.load().unwrap(), Some(balance(&[80])));
    }
}
