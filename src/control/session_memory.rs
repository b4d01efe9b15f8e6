//! Which pages each worker's session memory lies on, and taking them; and memory for templates of persistence, which is
//! all workers' and lies on ordinary pages: it is looked at when a session is set up only.
//!
//! The plan is made once DPDK has its memory and before a worker begins, from what the kernel says is free: so DPDK comes
//! first, workers do not race each other for the last pages, and what does not fit is an error with its reason. Each
//! worker then takes its memory on its own thread, whose node it so comes from.

use std::fs;
use std::path::Path;
use std::time::Instant;

use pages::{PageSize, Region};

use crate::balance::Templates;
use crate::config::{Config, SessionPages};
use crate::flow::HashSeed;
use crate::port::WorkerId;
use crate::session::Capacity;

/// Session memory that is not there.
#[derive(Debug, thiserror::Error)]
pub enum Shortage {
    /// Too little ordinary memory.
    #[error(
        "[session].capacity: {capacity} sessions for each of {workers} workers take {needed_mb} MB of memory on ordinary \
         pages, {available_mb} MB are available: allowed here are at most {most} (with this many workers); or reserve \
         hugepages with fullgate-hugepages"
    )]
    Ordinary {
        /// As configured.
        capacity: u32,
        /// Workers whose memory is to be on ordinary pages.
        workers: u64,
        /// What they need in all.
        needed_mb: u64,
        /// What there is.
        available_mb: u64,
        /// Sessions a worker that would fit.
        most: u64,
    },
    /// Too little ordinary memory for templates of persistence.
    #[error(
        "[session].persistence_capacity: {capacity} templates take {needed_mb} MB of memory on ordinary pages, \
         {available_mb} MB are available"
    )]
    Templates {
        /// As configured.
        capacity: u32,
        /// What they need.
        needed_mb: u64,
        /// What there is.
        available_mb: u64,
    },
    /// Too few hugepages of the size that was asked for.
    #[error(
        "[session].pages: worker {worker} needs {needed} hugepages of {size} on NUMA node {node}, {free} are free there: \
         reserve {missing} more with fullgate-hugepages, or set pages = \"auto\""
    )]
    Hugepages {
        /// Whose memory does not fit.
        worker: usize,
        /// Of the pages.
        size: &'static str,
        /// Where the worker's CPU is.
        node: usize,
        /// Pages that the worker needs.
        needed: u64,
        /// Pages left for it.
        free: u64,
        /// What it lacks.
        missing: u64,
    },
}

/// Takes memory for a table of templates, and tells the log.
pub fn take_templates(config: &Config, slots: usize, seed: HashSeed) -> Result<Templates, Shortage> {
    let capacity = config.session.persistence_capacity;
    let bytes = Templates::memory_bytes(capacity);
    let available = Available::now().ordinary;
    let shortage = || Shortage::Templates { capacity, needed_mb: bytes >> 20, available_mb: available >> 20 };
    if available < bytes {
        return Err(shortage());
    }
    let mut region = Region::map(bytes, PageSize::Ordinary, "fullgate-templates").map_err(|_| shortage())?;
    let templates = Templates::cut(&mut region, capacity, slots, seed).ok_or_else(shortage)?;
    tracing::info!("{} MB for {capacity} templates of persistence", bytes >> 20);
    Ok(templates)
}

/// Where one worker's session memory is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionPlace {
    size: PageSize,
    node: usize,
    /// Whether ordinary pages will do where these are gone by the time they are taken.
    lenient: bool,
}

impl SessionPlace {
    /// Takes memory for so many sessions, and tells the log. To be called by the worker's own thread.
    pub fn take(self, worker: WorkerId, Capacity { ipv4, ipv6 }: Capacity) -> Result<Region, String> {
        let start = Instant::now();
        let bytes = Capacity { ipv4, ipv6 }.memory_bytes();
        let map = |size| Region::map(bytes, size, &format!("fullgate-sessions-{}", worker.0));
        let (region, size) = match map(self.size) {
            Err(error) if self.lenient && self.size != PageSize::Ordinary => {
                let text = name(self.size);
                if Available::now().ordinary < bytes {
                    return Err(format!(
                        "hugepages of {text} for {ipv4} + {ipv6} sessions were free and are not: {error}"
                    ));
                }
                tracing::warn!("worker {}: hugepages of {text} were free and are not: {error}", worker.0);
                (map(PageSize::Ordinary), PageSize::Ordinary)
            }
            mapped => (mapped, self.size),
        };
        let region = region
            .map_err(|error| format!("no memory for {ipv4} + {ipv6} sessions on {} pages: {error}", name(size)))?;
        tracing::info!(
            "worker {}: {} MB for {ipv4} sessions and {ipv6} of IPv6, on {} {} pages of NUMA node {}, in {:.3} s",
            worker.0,
            region.len() >> 20,
            region.len() as u64 / size.bytes(),
            name(size),
            self.node,
            start.elapsed().as_secs_f64()
        );
        Ok(region)
    }
}

fn name(size: PageSize) -> &'static str {
    match size {
        PageSize::Ordinary => "ordinary",
        PageSize::TwoMegabytes => "2 MB",
        PageSize::OneGigabyte => "1 GB",
    }
}

/// Free hugepages of one size: by node, and those of them that nobody has a claim to yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Hugepages {
    by_node: Vec<u64>,
    unclaimed: u64,
}

impl Hugepages {
    fn on(&self, node: usize) -> u64 {
        self.by_node.get(node).copied().unwrap_or(0).min(self.unclaimed)
    }

    fn take(&mut self, node: usize, count: u64) {
        self.unclaimed -= count;
        self.by_node[node] -= count;
    }
}

/// Memory that can be had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Available {
    two_megabytes: Hugepages,
    one_gigabyte: Hugepages,
    /// Bytes that can be had without swapping.
    ordinary: u64,
    /// Nodes of CPUs; those that are not in here are on node 0.
    nodes: Vec<(u16, usize)>,
}

impl Available {
    /// What the kernel says that there is now; ordinary memory without limit where it does not say.
    pub fn now() -> Self {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kilobytes = || {
            let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        };
        let ordinary = kilobytes().map_or(u64::MAX, |kilobytes| kilobytes * 1024);
        Self { ordinary, ..Self::hugepages(Path::new("/sys")) }
    }

    /// Hugepages and nodes as a sysfs tells them.
    fn hugepages(sys: &Path) -> Self {
        let nodes = numbered(&sys.join("devices/system/node"), "node");
        let cpus = numbered(&sys.join("devices/system/cpu"), "cpu");
        let node_of = |cpu: &usize| {
            let node = *numbered(&sys.join(format!("devices/system/cpu/cpu{cpu}")), "node").first()?;
            Some((u16::try_from(*cpu).ok()?, node))
        };
        Self {
            two_megabytes: free_hugepages(sys, &nodes, PageSize::TwoMegabytes),
            one_gigabyte: free_hugepages(sys, &nodes, PageSize::OneGigabyte),
            ordinary: 0,
            nodes: cpus.iter().filter_map(node_of).collect(),
        }
    }

    /// Chooses each worker's pages. DPDK without hugepages means sessions without them, unless they are asked for.
    pub fn plan(mut self, config: &Config) -> Result<Vec<SessionPlace>, Shortage> {
        let wanted = match config.session.pages {
            SessionPages::Auto if config.dpdk.is_without_hugepages() => SessionPages::Ordinary,
            wanted => wanted,
        };
        let bytes = config.session.capacity().memory_bytes();
        let mut places = Vec::new();
        for (worker, core) in config.worker.cores.iter().enumerate() {
            let node = self.nodes.iter().find(|(cpu, _)| cpu == core).map_or(0, |&(_, node)| node);
            let size = match wanted {
                SessionPages::Auto => self.best(bytes, node),
                SessionPages::OneGigabyte => self.of_size(PageSize::OneGigabyte, bytes, worker, node)?,
                SessionPages::TwoMegabytes => self.of_size(PageSize::TwoMegabytes, bytes, worker, node)?,
                SessionPages::Ordinary => PageSize::Ordinary,
            };
            if let Some(free) = self.free(size) {
                free.take(node, bytes.div_ceil(size.bytes()));
            }
            places.push(SessionPlace { size, node, lenient: wanted == SessionPages::Auto });
        }
        self.ordinary = self.ordinary.saturating_sub(Templates::memory_bytes(config.session.persistence_capacity));
        let ordinary = places.iter().filter(|place| place.size == PageSize::Ordinary).count();
        self.check_ordinary(config.session.capacity, bytes, ordinary as u64)?;
        Ok(places)
    }

    /// The largest pages of which not too much is wasted: a quarter of a 1 GB page while there are 2 MB ones, three
    /// quarters where there are only ordinary ones besides.
    fn best(&mut self, bytes: u64, node: usize) -> PageSize {
        let (large, small) = (PageSize::OneGigabyte, PageSize::TwoMegabytes);
        let taken = bytes.next_multiple_of(large.bytes());
        let order: &[PageSize] = match () {
            () if bytes >= taken / 4 * 3 => &[large, small],
            () if bytes >= taken / 4 => &[small, large],
            () => &[small],
        };
        let fits = |size: &&PageSize| {
            let needed = bytes.div_ceil(size.bytes());
            self.free(**size).is_some_and(|free| free.on(node) >= needed)
        };
        order.iter().find(fits).copied().unwrap_or(PageSize::Ordinary)
    }

    /// Pages of one size, or why not.
    fn of_size(&mut self, size: PageSize, bytes: u64, worker: usize, node: usize) -> Result<PageSize, Shortage> {
        let needed = bytes.div_ceil(size.bytes());
        let free = self.free(size).map_or(0, |free| free.on(node));
        if free >= needed {
            return Ok(size);
        }
        Err(Shortage::Hugepages { worker, size: name(size), node, needed, free, missing: needed - free })
    }

    fn free(&mut self, size: PageSize) -> Option<&mut Hugepages> {
        match size {
            PageSize::Ordinary => None,
            PageSize::TwoMegabytes => Some(&mut self.two_megabytes),
            PageSize::OneGigabyte => Some(&mut self.one_gigabyte),
        }
    }

    /// Memory is touched as it is taken: what is not there would end the process without a word.
    fn check_ordinary(&self, capacity: u32, bytes: u64, workers: u64) -> Result<(), Shortage> {
        let needed = bytes.saturating_mul(workers);
        if needed <= self.ordinary {
            return Ok(());
        }
        let most = u128::from(capacity) * u128::from(self.ordinary) / u128::from(needed);
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        let mb = |bytes: u64| bytes >> 20;
        Err(Shortage::Ordinary { capacity, workers, needed_mb: mb(needed), available_mb: mb(self.ordinary), most })
    }
}

fn free_hugepages(sys: &Path, nodes: &[usize], size: PageSize) -> Hugepages {
    let folder = format!("hugepages-{}kB", size.bytes() >> 10);
    let read = |folder: &Path, file| {
        let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
        text.trim().parse::<u64>().unwrap_or(0)
    };
    let all = sys.join("kernel/mm/hugepages").join(&folder);
    let unclaimed = read(&all, "free_hugepages").saturating_sub(read(&all, "resv_hugepages"));
    let mut by_node = vec![0; nodes.last().map_or(1, |last| last + 1)];
    for &node in nodes {
        let folder = sys.join(format!("devices/system/node/node{node}/hugepages")).join(&folder);
        by_node[node] = read(&folder, "free_hugepages");
    }
    // A kernel without nodes tells of all pages only.
    if nodes.is_empty() {
        by_node[0] = unclaimed;
    }
    Hugepages { by_node, unclaimed }
}

/// The numbers of the entries of a directory whose names are `prefix` and a number, in order.
fn numbered(directory: &Path, prefix: &str) -> Vec<usize> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok();
    let mut numbers: Vec<usize> = entries.filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use PageSize::{OneGigabyte, Ordinary, TwoMegabytes};

    /// Two workers, on CPUs 1 and 2, of 1,048,576 sessions each.
    const TWO: &str = "[worker]\ncores = [1, 2]\n[session]\npages = \"auto\"\n[[port]]\nname = \"wan\"\n\
                       device = \"net_null0\"\naddresses = [\"10.0.0.1/24\"]\n";

    fn config(text: &str) -> Config {
        Config::parse(text, "f.toml").unwrap()
    }

    fn pages_needed() -> u64 {
        Capacity { ipv4: 1 << 20, ipv6: 1 << 17 }.memory_bytes().div_ceil(2 << 20)
    }

    /// Node 0 has CPU 1, node 1 CPU 2.
    fn available(two_megabytes: [u64; 2], one_gigabyte: [u64; 2], ordinary: u64) -> Available {
        let free = |by_node: [u64; 2]| Hugepages { by_node: by_node.to_vec(), unclaimed: by_node.iter().sum() };
        let (two_megabytes, one_gigabyte) = (free(two_megabytes), free(one_gigabyte));
        Available { two_megabytes, one_gigabyte, ordinary, nodes: vec![(1, 0), (2, 1)] }
    }

    fn sizes(available: Available, config: &Config) -> Vec<PageSize> {
        available.plan(config).unwrap().iter().map(|place| place.size).collect()
    }

    #[test]
    fn each_worker_gets_the_best_pages_of_its_own_node() {
        let (config, enough) = (config(TWO), pages_needed());
        assert_eq!(sizes(available([enough, enough], [9, 9], 0), &config), [TwoMegabytes; 2], "1 GB is too much");
        assert_eq!(sizes(available([enough, enough - 1], [0, 0], 1 << 40), &config), [TwoMegabytes, Ordinary]);
        assert_eq!(sizes(available([enough, 0], [9, 9], 1 << 40), &config), [TwoMegabytes, Ordinary], "1 GB for 94 MB");
        let middle = self::config(&TWO.replace("pages", "capacity = 6_000_000\npages"));
        assert_eq!(sizes(available([9999, 0], [9, 9], 0), &middle), [TwoMegabytes, OneGigabyte], "better than none");
        assert_eq!(sizes(available([0, 2 * enough], [0, 0], 1 << 40), &config), [Ordinary, TwoMegabytes]);
        let large = self::config(&TWO.replace("pages", "capacity = 9_500_000\npages"));
        assert_eq!(sizes(available([9999, 9999], [1, 1], 0), &large), [OneGigabyte; 2]);
    }

    #[test]
    fn pages_are_counted_once_and_claimed_ones_not_at_all() {
        let one_node = TWO.replace("[1, 2]", "[1, 7]");
        let (config, enough) = (config(&one_node), pages_needed());
        assert_eq!(sizes(available([2 * enough, 0], [0, 0], 0), &config), [TwoMegabytes; 2]);
        assert_eq!(sizes(available([2 * enough - 1, 0], [0, 0], 1 << 40), &config), [TwoMegabytes, Ordinary]);
        let mut claimed = available([2 * enough, 0], [0, 0], 1 << 40);
        claimed.two_megabytes.unclaimed = enough;
        assert_eq!(sizes(claimed, &config), [TwoMegabytes, Ordinary]);
    }

    #[test]
    fn without_hugepages_for_dpdk_there_are_none_for_sessions_unless_asked_for() {
        let text = format!("[dpdk]\neal_args = [\"--no-huge\"]\n{TWO}");
        let available = available([999, 999], [0, 0], 1 << 40);
        assert_eq!(sizes(available.clone(), &config(&text)), [Ordinary; 2]);
        assert_eq!(sizes(available, &config(&text.replace("auto", "2M"))), [TwoMegabytes; 2]);
    }

    #[test]
    fn pages_that_are_asked_for_and_not_there_are_an_error_that_says_what_to_do() {
        let config = config(&TWO.replace("auto", "2M"));
        let error = available([99, 10], [9, 9], 1 << 40).plan(&config).unwrap_err().to_string();
        let (needed, missing) = (pages_needed(), pages_needed() - 10);
        let words = format!(
            "[session].pages: worker 1 needs {needed} hugepages of 2 MB on NUMA node 1, 10 are free there: \
             reserve {missing} more with fullgate-hugepages, or set pages = \"auto\""
        );
        assert_eq!(error, words);
    }

    #[test]
    fn too_many_sessions_are_refused_with_what_would_fit() {
        let capacity = |text: &str| config(&TWO.replace("pages", &format!("capacity = {text}\npages")));
        let templates = Templates::memory_bytes(1 << 18);
        let available = available([0, 0], [0, 0], templates + (100 << 20));
        let error = available.clone().plan(&capacity("1_048_576")).unwrap_err();
        let Shortage::Ordinary { most, needed_mb, available_mb, workers, .. } = error else { unreachable!() };
        assert_eq!(
            (workers, available_mb, needed_mb),
            (2, 100, (2 * Capacity { ipv4: 1 << 20, ipv6: 1 << 17 }.memory_bytes()) >> 20)
        );
        assert!(available.clone().plan(&capacity(&(most - 10).to_string())).is_ok());
        assert!(available.plan(&capacity(&(most + 10_000).to_string())).is_err());
        assert!(Available::now().ordinary > 1 << 20);
    }

    #[test]
    fn a_sysfs_is_read() {
        let sys = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = sys.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "30\n");
        write("kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "5\n");
        write("devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages", "10\n");
        write("devices/system/node/node2/hugepages/hugepages-2048kB/free_hugepages", "20\n");
        write("devices/system/node/node2/hugepages/hugepages-1048576kB/free_hugepages", "1\n");
        write("devices/system/cpu/cpu0/node0/cpu0", "");
        write("devices/system/cpu/cpu3/node2/cpu3", "");
        write("devices/system/cpu/cpufreq/policy", "");
        let found = Available::hugepages(sys.path());
        assert_eq!(found.two_megabytes, Hugepages { by_node: vec![10, 0, 20], unclaimed: 25 });
        assert_eq!(found.one_gigabyte, Hugepages { by_node: vec![0, 0, 1], unclaimed: 0 });
        assert_eq!(found.nodes, [(0, 0), (3, 2)]);
    }
}
