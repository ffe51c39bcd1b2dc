//! Maps real shared libraries, built from the test plugins in C, and calls them.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use themis_messages::instance::{CallStatus, Concurrency, HookError, Instance, ReplyBuffer};
use themis_messages::lifecycle::MapError;
use themis_messages::limits::{HOOK_MESSAGE_BYTES_MAX, LOG_LINE_BYTES_MAX, MESSAGE_BYTES_MAX};
use themis_messages::manifest::Capability;

use super::loader::Loader;
use super::{HostServices, Image, LogLevel};
use crate::admission::{Descriptor, SealedFile};

mod state;

/// A directory for what one test builds.
struct Bench {
    dir: tempfile::TempDir,
    loader: Loader,
}

/// One built plugin: the sealed file and what its descriptor says.
struct Built {
    file: SealedFile,
    described: Descriptor,
}

impl Bench {
    /// `None`, and a line that says so, where there is no C compiler.
    fn new() -> Option<Self> {
        if Command::new("cc").arg("--version").output().is_err() {
            eprintln!("skipped: there is no C compiler `cc`");
            return None;
        }
        let loader = Loader::new(Duration::from_millis(50));
        Some(Self { dir: tempfile::tempdir().unwrap(), loader })
    }

    fn compile(&self, plugin: &str, flags: &[&str]) -> PathBuf {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let out = self.dir.path().join("plugin.so");
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-fvisibility=hidden", "-O1", "-D_GNU_SOURCE"])
            .args(["-Wl,--build-id", "-Wl,-z,noexecstack", "-I"])
            .arg(root.join("sdk/include"))
            .args(flags)
            .arg("-o")
            .arg(&out)
            .arg(root.join("tests/plugins").join(plugin).with_extension("c"))
            .status()
            .unwrap();
        assert!(status.success(), "{plugin} does not compile");
        out
    }

    fn build(&self, plugin: &str, flags: &[&str]) -> Built {
        let bytes = std::fs::read(self.compile(plugin, flags)).unwrap();
        Built { file: SealedFile::seal_for_test(&bytes), described: Descriptor::for_test(&bytes) }
    }

    fn map(&self, built: &Built) -> Result<Arc<Image>, MapError> {
        self.loader.map(built.described.name.as_str(), &built.file, &built.described)
    }

    fn start(&self, plugin: &str, flags: &[&str]) -> Arc<dyn Instance> {
        let image = self.map(&self.build(plugin, flags)).unwrap();
        image.init(Heard::default().services(&[]), b"{}").unwrap()
    }

    fn fifo(&self) -> PathBuf {
        let path = self.dir.path().join("fifo");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        path
    }
}

/// What a plugin told the host.
#[derive(Clone, Default)]
struct Heard {
    lines: Arc<Mutex<Vec<(LogLevel, String)>>>,
    counts: Arc<Mutex<Vec<(String, u64)>>>,
    data: Arc<BTreeMap<String, SealedFile>>,
}

impl Heard {
    fn services(&self, capabilities: &[Capability]) -> HostServices {
        let (lines, counts) = (Arc::clone(&self.lines), Arc::clone(&self.counts));
        HostServices {
            plugin: "test".parse().unwrap(),
            capabilities: capabilities.to_vec(),
            log: Arc::new(move |level, text| lines.lock().push((level, text.to_owned()))),
            counter: Arc::new(move |name, delta| counts.lock().push((name.to_owned(), delta))),
            data: Arc::clone(&self.data),
        }
    }
}

fn call(instance: &Arc<dyn Instance>, method: u32, request: &[u8]) -> (CallStatus, Vec<u8>) {
    let mut bytes = Vec::new();
    let status = instance.call(method, request, &mut ReplyBuffer::new(&mut bytes));
    (status, bytes)
}

fn text(instance: &Arc<dyn Instance>, method: u32) -> (CallStatus, String) {
    let (status, bytes) = call(instance, method, b"");
    (status, String::from_utf8(bytes).unwrap())
}

#[test]
fn a_plugin_in_c_loads_answers_and_ends() {
    let Some(bench) = Bench::new() else { return };
    let built = bench.build("counter", &[]);
    let image = bench.map(&built).unwrap();
    let evidence = image.evidence().clone();
    assert_eq!(evidence.digest, built.file.digest());
    assert_eq!((evidence.inode, evidence.bytes), (built.file.inode(), built.file.len()));
    assert_eq!(evidence.build_id.map(|id| id.len()), Some(40), "SHA-1 in hexadecimal");
    assert!(!evidence.reused);

    let instance = image.init(Heard::default().services(&[]), b"{}").unwrap();
    assert_eq!(instance.concurrency(), Concurrency::Parallel);
    assert_eq!(text(&instance, 1), (CallStatus::Ok, "1.0.0".to_owned()));
    assert_eq!(call(&instance, 2, b"\0\xff"), (CallStatus::Ok, b"\0\xff".to_vec()));
    assert_eq!(call(&instance, 2, b""), (CallStatus::Ok, Vec::new()));
    let refused = (CallStatus::PluginError, "counter is out of order".to_owned());
    assert_eq!(text(&instance, 3), refused);
    assert_eq!(text(&instance, 4).0, CallStatus::UnknownMethod);
    assert_eq!(text(&instance, 5).0, CallStatus::BadRequest);
    assert_eq!(instance.health(), Ok(()), "it has no such hook");
    assert_eq!(instance.shutdown(), Ok(()));
    assert_eq!(instance.shutdown(), Ok(()), "a second one does nothing");
    assert!(matches!(text(&instance, 1).0, CallStatus::Fault(_)), "nobody is there to answer");
}

#[test]
fn a_private_copy_on_disk_maps_as_a_memory_file_does() {
    let Some(bench) = Bench::new() else { return };
    let bytes = std::fs::read(bench.compile("counter", &[])).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    let scratch = tempfile::Builder::new().permissions(private).tempdir().unwrap();
    let file = SealedFile::copy_for_test(scratch.path(), &bytes);
    let image = bench.map(&Built { file, described: Descriptor::for_test(&bytes) }).unwrap();
    let instance = image.init(Heard::default().services(&[]), b"{}").unwrap();
    assert_eq!(call(&instance, 2, b"mapped"), (CallStatus::Ok, b"mapped".to_vec()));
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "the copy has no name");
}

#[test]
fn the_same_digest_is_mapped_once() {
    let Some(bench) = Bench::new() else { return };
    let first = bench.build("counter", &[]);
    let second = bench.build("counter", &[]);
    assert_eq!(first.file.digest(), second.file.digest());
    assert_ne!(first.file.inode(), second.file.inode());
    let one = bench.map(&first).unwrap();
    let two = bench.map(&second).unwrap();
    assert!(!one.evidence().reused && two.evidence().reused);
    assert_eq!(two.evidence().inode, first.file.inode(), "it names what is mapped");
    let services = Heard::default().services(&[]);
    let one = one.init(services.clone(), b"{}").unwrap();
    let two = two.init(services, b"{}").unwrap();
    let count = |instance| u64::from_le_bytes(call(instance, 6, b"").1.try_into().unwrap());
    assert_eq!(count(&one), 1);
    assert_eq!(count(&two), 2, "statics belong to the image");
    one.shutdown().unwrap();
    assert_eq!(count(&two), 3, "instances end apart");
    two.shutdown().unwrap();
}

#[test]
fn many_threads_that_map_one_digest_map_it_once() {
    let Some(bench) = Bench::new() else { return };
    let bench = Bench { loader: Loader::new(Duration::from_secs(60)), ..bench };
    let built = bench.build("counter", &[]);
    let mapped = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| bench.map(&built).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let fresh = mapped.iter().filter(|image| !image.evidence().reused).count();
    assert_eq!(fresh, 1);
}

#[test]
fn versions_of_one_plugin_answer_side_by_side() {
    let Some(bench) = Bench::new() else { return };
    let old = bench.start("counter", &["-DVERSION=\"1.0.0\""]);
    let new = bench.start("counter", &["-DVERSION=\"2.0.0\""]);
    assert_ne!(old.evidence().build_id, new.evidence().build_id);
    assert_eq!(text(&old, 1).1, "1.0.0");
    assert_eq!(text(&new, 1).1, "2.0.0");
    old.shutdown().unwrap();
    assert_eq!(text(&new, 1).1, "2.0.0");
    new.shutdown().unwrap();
}

#[test]
fn a_descriptor_number_used_again_maps_the_new_file() {
    let Some(bench) = Bench::new() else { return };
    let old = bench.build("counter", &["-DVERSION=\"1.0.0\""]);
    let number = old.file.fd().as_raw_fd();
    let old_image = bench.map(&old).unwrap();
    drop(old);
    let new = bench.build("counter", &["-DVERSION=\"2.0.0\""]);
    assert_eq!(new.file.fd().as_raw_fd(), number, "the trap is set");
    let instance = bench.map(&new).unwrap().init(Heard::default().services(&[]), b"{}").unwrap();
    assert_eq!(text(&instance, 1).1, "2.0.0");
    let instance = old_image.init(Heard::default().services(&[]), b"{}").unwrap();
    assert_eq!(text(&instance, 1).1, "1.0.0", "the closed descriptor's image lives on");
}

#[test]
fn an_entry_that_is_missing_or_foreign_is_never_called() {
    let Some(bench) = Bench::new() else { return };
    for (flag, entry) in
        [("-DINIT=NULL", "init"), ("-DCALL=NULL", "call"), ("-DSHUTDOWN=NULL", "shutdown")]
    {
        let refused = bench.map(&bench.build("null_entry", &[flag])).unwrap_err();
        assert_eq!(refused, MapError::NullEntry { entry });
    }
    let visible = bench.build("global_entry", &["-fvisibility=default"]);
    let refused = bench.map(&visible).unwrap_err();
    let MapError::NotTheVerifiedImage { what } = refused else { panic!("{refused}") };
    assert_eq!(what, "entry shutdown points out of the image: declare it static");
    bench.map(&bench.build("global_entry", &["-fvisibility=hidden"])).unwrap();
}

#[test]
fn a_constructor_cannot_change_what_was_signed() {
    let Some(bench) = Bench::new() else { return };
    for (field, set, value) in [
        ("magic", "magic[6]", "'2'"),
        ("struct_size", "struct_size", "120"),
        ("abi_major", "abi_major", "2"),
        ("abi_minor", "abi_minor", "1"),
        ("features", "features", "0"),
        ("name", "name[0]", "'x'"),
        ("name", "name[63]", "'x'"),
        ("version", "version[0]", "'2'"),
    ] {
        let flags = [format!("-DFIELD={set}"), format!("-DVALUE={value}")];
        let built = bench.build("changes_descriptor", &[&flags[0], &flags[1]]);
        assert_eq!(bench.map(&built).unwrap_err(), MapError::DescriptorChanged { field });
    }
}

#[test]
fn what_the_systems_loader_refuses_is_told_in_its_words() {
    let Some(bench) = Bench::new() else { return };
    let built = bench.build("counter", &[]);
    let not_elf =
        Built { file: SealedFile::seal_for_test(b"not a library"), described: built.described };
    let refused = bench.map(&not_elf).unwrap_err();
    let MapError::Loader { what } = refused else { panic!("{refused}") };
    assert!(what.starts_with("the image: ") && !what.contains("/proc"), "{what}");
}

#[test]
fn init_refuses_in_the_plugins_words() {
    let Some(bench) = Bench::new() else { return };
    let fail = |flags: &[&str]| {
        let image = bench.map(&bench.build("fail_init", flags)).unwrap();
        image.init(Heard::default().services(&[]), b"{}").unwrap_err()
    };
    let refused = HookError::Refused { message: "the licence has run out".to_owned() };
    assert_eq!(fail(&[]), refused);
    assert_eq!(fail(&["-DINIT_CODE=3"]), refused);
    for code in [2, 4, 63, 64, -1] {
        assert_eq!(fail(&[&format!("-DINIT_CODE={code}")]), HookError::Fault { code });
    }
    let message = format!("{}…", "x".repeat(HOOK_MESSAGE_BYTES_MAX));
    assert_eq!(fail(&["-DLONG_TEXT"]), HookError::Refused { message });
}

#[test]
fn codes_outside_the_abi_are_faults() {
    let Some(bench) = Bench::new() else { return };
    let instance = bench.start("wild_code", &[]);
    assert_eq!(text(&instance, 1).0, CallStatus::Fault(77));
    assert_eq!(instance.health(), Err(HookError::Fault { code: 78 }));
    assert_eq!(instance.shutdown(), Err(HookError::Fault { code: 79 }));
    assert_eq!(instance.shutdown(), Ok(()), "also a failed one is never repeated");
    assert!(instance.health().is_err(), "it is gone all the same");
}

#[test]
fn a_reply_ends_at_its_cap() {
    let Some(bench) = Bench::new() else { return };
    let instance = bench.start("big_reply", &[]);
    let (status, bytes) = call(&instance, 2, b"");
    assert_eq!((status, bytes.len()), (CallStatus::Ok, MESSAGE_BYTES_MAX));
    let (status, bytes) = call(&instance, 1, b"");
    assert_eq!(status, CallStatus::ReplyTooLarge, "whatever the plugin says of it");
    assert_eq!(bytes.len(), MESSAGE_BYTES_MAX, "nothing was taken after the refusal");
}

#[test]
fn a_serial_plugin_says_so() {
    let Some(bench) = Bench::new() else { return };
    assert_eq!(bench.start("slow_serial", &[]).concurrency(), Concurrency::Serial);
}

fn with_data() -> Heard {
    let file = SealedFile::seal_for_test(b"twelve bytes");
    Heard { data: Arc::new(BTreeMap::from([("data/a".to_owned(), file)])), ..Heard::default() }
}

#[test]
fn granted_capabilities_work() {
    use Capability::{Clock, Log, Metrics, Resources};
    let Some(bench) = Bench::new() else { return };
    let image = bench.map(&bench.build("uses_host", &[])).unwrap();
    let heard = with_data();
    let services = heard.services(&[Log, Clock, Metrics, Resources]);
    let instance = image.init(services, b"{\"a\":1}").unwrap();
    assert_eq!(call(&instance, 1, b"data/a"), (CallStatus::Ok, b"twelve bytes".to_vec()));
    for absent in [&b"data/b"[..], b"", b"/etc/passwd", b"\xff", &[b'a'; 600]] {
        assert_eq!(call(&instance, 1, absent).0, CallStatus::PluginError);
    }
    let now = || i64::from_le_bytes(call(&instance, 2, b"").1.try_into().unwrap());
    let earlier = now();
    assert!(earlier >= 0 && now() >= earlier);
    let long = vec![b'y'; LOG_LINE_BYTES_MAX + 1];
    for (method, request) in
        [(3, &b"two\nlines"[..]), (3, &long), (4, b"hits"), (4, b"No!"), (5, b"")]
    {
        assert_eq!(call(&instance, method, request).0, CallStatus::Ok);
    }
    instance.shutdown().unwrap();
    let lines = heard.lines.lock();
    let expected = [
        (LogLevel::Info, "{\"a\":1}".to_owned()),
        (LogLevel::Warn, "two lines".to_owned()),
        (LogLevel::Warn, format!("{}…", "y".repeat(LOG_LINE_BYTES_MAX))),
        (LogLevel::Trace, "…".to_owned()),
        (LogLevel::Info, "bye".to_owned()),
    ];
    assert_eq!(*lines, expected);
    assert_eq!(*heard.counts.lock(), [("hits".to_owned(), 7)]);
}

#[test]
fn without_a_capability_nothing_happens() {
    let Some(bench) = Bench::new() else { return };
    let image = bench.map(&bench.build("uses_host", &[])).unwrap();
    let heard = with_data();
    let instance = image.init(heard.services(&[]), b"{}").unwrap();
    assert_eq!(call(&instance, 1, b"data/a").0, CallStatus::PluginError);
    assert_eq!(call(&instance, 2, b""), (CallStatus::Ok, vec![0; 8]));
    assert_eq!(call(&instance, 3, b"line").0, CallStatus::Ok);
    assert_eq!(call(&instance, 4, b"hits").0, CallStatus::Ok);
    instance.shutdown().unwrap();
    assert!(heard.lines.lock().is_empty() && heard.counts.lock().is_empty());
}

#[test]
fn a_panic_of_the_host_does_not_enter_the_plugin() {
    let Some(bench) = Bench::new() else { return };
    let image = bench.map(&bench.build("uses_host", &[])).unwrap();
    let services = HostServices {
        log: Arc::new(|_, text| panic!("cannot log {text}")),
        ..Heard::default().services(&[Capability::Log])
    };
    let instance = image.init(services, b"{}").unwrap();
    assert_eq!(call(&instance, 3, b"line").0, CallStatus::Ok);
    instance.shutdown().unwrap();
}

#[test]
fn a_constructor_that_hangs_stops_mapping_and_nothing_else() {
    let Some(bench) = Bench::new() else { return };
    let known = bench.build("counter", &[]);
    let running = bench.map(&known).unwrap();
    let running = running.init(Heard::default().services(&[]), b"{}").unwrap();
    let fifo = bench.fifo();
    let hanging = bench.build("hang_ctor", &[&format!("-DHANG_FIFO=\"{}\"", fifo.display())]);
    let other = bench.build("counter", &["-DVERSION=\"2.0.0\""]);
    let stuck = || MapError::LoaderStuck { plugin: "hang_ctor".to_owned() };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| bench.map(&hanging).map(drop));
        while bench.loader.stuck().is_none() {
            std::thread::yield_now();
        }
        assert_eq!(bench.loader.stuck().as_deref(), Some("hang_ctor"));
        assert_eq!(bench.map(&other).unwrap_err(), stuck());
        assert_eq!(text(&running, 1), (CallStatus::Ok, "1.0.0".to_owned()), "it goes on");
        assert!(bench.map(&known).unwrap().evidence().reused, "what is mapped can be used");
        // Opening the other end lets the constructor return.
        drop(File::options().write(true).open(&fifo).unwrap());
        assert_eq!(thread.join().unwrap(), Ok(()));
    });
    assert_eq!(bench.loader.stuck(), None);
    bench.map(&other).unwrap();
}
