//! Drives exported descriptors through raw pointers, as the kernel does, with a host of its own.
#![expect(unsafe_code, reason = "plays the host's side of the C ABI")]

use std::ffi::c_void;
use std::ptr;
use std::sync::Mutex;

use crate::abi::{self, Descriptor, Reply, Slice};
use crate::native::descriptor;
use crate::{Config, Error, Host, Plugin, Stateful};

mod geo;

/// What the fake host was told.
#[derive(Default)]
struct Told {
    lines: Mutex<Vec<(u32, String)>>,
    counted: Mutex<Vec<(String, u64)>>,
}

fn text(slice: Slice) -> String {
    // SAFETY: the SDK passes slices of live strings.
    let bytes = unsafe { std::slice::from_raw_parts(slice.ptr, slice.len) };
    String::from_utf8(bytes.to_vec()).unwrap()
}

unsafe extern "C" fn log(ctx: *mut c_void, level: u32, message: Slice) {
    // SAFETY: every test keeps its `Told` alive for longer than the host.
    unsafe { &*ctx.cast::<Told>() }.lines.lock().unwrap().push((level, text(message)));
}

unsafe extern "C" fn now(_ctx: *mut c_void) -> i64 {
    42
}

unsafe extern "C" fn count(ctx: *mut c_void, name: Slice, delta: u64) {
    // SAFETY: as for `log`.
    unsafe { &*ctx.cast::<Told>() }.counted.lock().unwrap().push((text(name), delta));
}

/// One file, `data/a`, of 20,000 bytes of 7.
unsafe extern "C" fn read(
    _ctx: *mut c_void,
    path: Slice,
    offset: u64,
    dst: *mut u8,
    cap: usize,
) -> i64 {
    if text(path) != "data/a" {
        return -1;
    }
    let left = 20_000_usize.saturating_sub(offset as usize).min(cap);
    // SAFETY: the SDK passes a buffer of `cap` bytes.
    unsafe { ptr::write_bytes(dst, 7, left) };
    left as i64
}

fn host(told: &Told) -> abi::Host {
    abi::Host {
        struct_size: size_of::<abi::Host>() as u32,
        abi_major: abi::ABI_MAJOR,
        abi_minor: abi::ABI_MINOR,
        ctx: ptr::from_ref(told).cast_mut().cast(),
        log,
        now_ns: now,
        counter_add: count,
        resource_read: read,
    }
}

unsafe extern "C" fn take(ctx: *mut c_void, chunk: Slice) -> i32 {
    // SAFETY: `sink` points the context at a vector that outlives the call.
    let bytes = unsafe { &mut *ctx.cast::<Vec<u8>>() };
    // SAFETY: the SDK passes live bytes.
    bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(chunk.ptr, chunk.len) });
    0
}

unsafe extern "C" fn refuse(_ctx: *mut c_void, _chunk: Slice) -> i32 {
    1
}

fn sink(bytes: &mut Vec<u8>) -> Reply {
    Reply { struct_size: 24, ctx: ptr::from_mut(bytes).cast(), write: take }
}

/// An instance, driven like the kernel drives it.
struct Driven {
    descriptor: Descriptor,
    instance: *mut c_void,
}

impl Driven {
    fn init(descriptor: Descriptor, host: &abi::Host, config: &str) -> Result<Self, (i32, String)> {
        let mut instance = ptr::null_mut();
        let mut message = Vec::new();
        let sink = sink(&mut message);
        let config = Slice::new(config.as_bytes());
        // SAFETY: all pointers are valid, and tests keep the host alive until after shutdown.
        let code = unsafe { descriptor.init.unwrap()(host, config, &mut instance, &sink) };
        match code {
            0 => Ok(Self { descriptor, instance }),
            code => Err((code, String::from_utf8(message).unwrap())),
        }
    }

    fn call(&self, method: u32, request: &[u8]) -> (i32, Vec<u8>) {
        let mut reply = Vec::new();
        let sink = sink(&mut reply);
        let request = Slice::new(request);
        // SAFETY: the instance is live and all pointers are valid.
        let code = unsafe { self.descriptor.call.unwrap()(self.instance, method, request, &sink) };
        (code, reply)
    }

    fn refusal(&self, method: u32, request: &[u8]) -> (i32, String) {
        let (code, reply) = self.call(method, request);
        (code, String::from_utf8(reply).unwrap())
    }

    fn health(&self) -> i32 {
        // SAFETY: the instance is live.
        unsafe { self.descriptor.health.unwrap()(self.instance) }
    }

    fn shutdown(self) -> i32 {
        // SAFETY: the instance is live, and `self` ends here.
        unsafe { self.descriptor.shutdown.unwrap()(self.instance) }
    }
}

/// Does one of everything.
struct Busy {
    host: Host,
}

static ESCAPED: Mutex<Option<Host>> = Mutex::new(None);

impl Plugin for Busy {
    fn init(host: Host, config: Config) -> Result<Self, Error> {
        #[derive(serde::Deserialize)]
        struct Settings {
            fail: Option<String>,
        }
        match config.parse::<Settings>()?.fail.as_deref() {
            Some("panic") => panic!("no {}", "init"),
            Some(text) => Err(Error::new(text)),
            None => Ok(Self { host }),
        }
    }

    fn health(&self) -> Result<(), Error> {
        Err(Error::new("unwell"))
    }

    fn shutdown(self) -> Result<(), Error> {
        *ESCAPED.lock().unwrap() = Some(self.host.clone());
        panic!("no shutdown")
    }
}

impl Stateful for Busy {
    fn save_state(&self) -> Result<Vec<u8>, Error> {
        Ok(b"state".to_vec())
    }

    fn reload(&self, from_version: &str, state: &[u8]) -> Result<(), Error> {
        let state = std::str::from_utf8(state)?;
        Err(Error::new(format_args!("will not take {state:?} from {from_version}")))
    }
}

impl Busy {
    fn add(&self, (a, b): (u32, u32)) -> Result<u32, Error> {
        a.checked_add(b).ok_or_else(|| Error::new("too large"))
    }

    fn echo(&self, request: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(request.to_vec())
    }

    fn explode(&self, _request: &[u8]) -> Result<Vec<u8>, Error> {
        panic!("boom")
    }

    fn use_host(&self, _request: &[u8]) -> Result<Vec<u8>, Error> {
        crate::info!(self.host, "at {}", self.host.now_ns());
        self.host.counter_add("uses", 3);
        assert_eq!(self.host.resource("data/b"), None);
        Ok(self.host.resource("data/a").unwrap_or_default())
    }
}

crate::__implement! {
    plugin: Busy, name: "busy", version: "1.2.3-rc.1", thread_safe: true, stateful: true,
    methods: { 1 => add, 2 => raw echo, 3 => raw explode, 4 => raw use_host, }
}

/// Not `Sync`: the SDK keeps its calls apart.
struct Turns(std::cell::Cell<u32>);

impl Plugin for Turns {
    fn init(_host: Host, _config: Config) -> Result<Self, Error> {
        Ok(Self(std::cell::Cell::new(0)))
    }
}

impl Turns {
    fn next(&self, (): ()) -> Result<u32, Error> {
        self.0.set(self.0.get() + 1);
        Ok(self.0.get())
    }
}

crate::__implement! {
    plugin: Turns, name: "turns", version: "1.0.0", thread_safe: false,
    methods: { 1 => next }
}

fn packed<T: serde::Serialize>(value: T) -> Vec<u8> {
    rmp_serde::to_vec(&value).unwrap()
}

#[test]
fn the_descriptor_says_what_the_plugin_is() {
    let made = const { descriptor::<Busy>() };
    assert_eq!(made.magic, *b"THEMIS1\0");
    assert_eq!((made.struct_size, made.abi_major, made.abi_minor), (168, 1, 0));
    assert_eq!(made.features, abi::THREAD_SAFE);
    assert_eq!(&made.name[..5], b"busy\0");
    assert!(made.name[4..].iter().all(|byte| *byte == 0), "padded with NUL");
    assert_eq!(&made.version[..11], b"1.2.3-rc.1\0");
    assert!(made.save_state.is_some() && made.reload.is_some());

    let made = const { descriptor::<Turns>() };
    assert_eq!(made.features, 0);
    assert!(made.save_state.is_none() && made.reload.is_none(), "only for those who opt in");
}

#[test]
fn methods_answer_and_refuse_with_the_codes_of_the_abi() {
    let told = Told::default();
    let host = host(&told);
    let busy = Driven::init(descriptor::<Busy>(), &host, "{}").unwrap();
    assert_eq!(busy.call(1, &packed((2, 3))), (0, packed(5)));
    assert_eq!(busy.call(2, b"\0bytes\xff"), (0, b"\0bytes\xff".to_vec()));
    assert_eq!(busy.call(2, b""), (0, Vec::new()));
    assert_eq!(busy.refusal(1, &packed((u32::MAX, 1))), (1, "too large".to_owned()));
    assert_eq!(busy.call(99, b""), (2, Vec::new()));
    let (code, why) = busy.refusal(1, b"\xc1");
    assert!(code == 3 && why.starts_with("arguments: "), "{why}");
    let mut more = packed((2, 3));
    more.push(0);
    assert_eq!(busy.refusal(1, &more), (3, "arguments: bytes are left over".to_owned()));
    assert_eq!(busy.shutdown(), 1);
}

#[test]
fn a_panic_never_leaves_an_entry() {
    let told = Told::default();
    let host = host(&told);
    let refused = Driven::init(descriptor::<Busy>(), &host, r#"{"fail":"panic"}"#).err();
    assert_eq!(refused, Some((1, "panicked: no init".to_owned())));
    let busy = Driven::init(descriptor::<Busy>(), &host, "{}").unwrap();
    assert_eq!(busy.refusal(3, b""), (1, "panicked: boom".to_owned()));
    assert_eq!(busy.call(1, &packed((2, 3))).0, 0, "it serves on");
    assert_eq!(busy.shutdown(), 1);
    let lines = told.lines.lock().unwrap();
    assert_eq!(lines.last(), Some(&(2, "shutdown: panicked: no shutdown".to_owned())));
}

#[test]
fn init_refuses_with_a_text() {
    let told = Told::default();
    let host = host(&told);
    let init = |config| Driven::init(descriptor::<Busy>(), &host, config).err();
    assert_eq!(init(r#"{"fail":"no table"}"#), Some((1, "no table".to_owned())));
    let (code, why) = init("{").unwrap();
    assert!(code == 1 && why.starts_with("config: "), "{why}");
}

#[test]
fn a_host_of_another_shape_is_refused() {
    let told = Told::default();
    let wrong =
        [abi::Host { struct_size: 40, ..host(&told) }, abi::Host { abi_major: 2, ..host(&told) }];
    for wrong in &wrong {
        let (code, _) = Driven::init(descriptor::<Busy>(), wrong, "{}").err().unwrap();
        assert_eq!(code, 1);
    }
}

#[test]
fn the_host_is_reached_until_shutdown_and_never_after() {
    let told = Told::default();
    let host = host(&told);
    let busy = Driven::init(descriptor::<Busy>(), &host, "{}").unwrap();
    assert_eq!(busy.call(4, b""), (0, vec![7; 20_000]));
    assert_eq!(busy.health(), 1);
    let expected = [(3, "at 42".to_owned()), (2, "health: unwell".to_owned())];
    assert_eq!(*told.lines.lock().unwrap(), expected);
    assert_eq!(*told.counted.lock().unwrap(), [("uses".to_owned(), 3)]);
    assert_eq!(busy.shutdown(), 1);
    let lines = told.lines.lock().unwrap().len();
    let escaped = ESCAPED.lock().unwrap().take().unwrap();
    crate::error!(escaped, "too late");
    assert_eq!(escaped.now_ns(), 0);
    assert_eq!(escaped.resource("data/a"), None);
    assert_eq!(told.lines.lock().unwrap().len(), lines, "a closed gate lets nothing through");
}

#[test]
fn state_travels_through_sinks() {
    let told = Told::default();
    let host = host(&told);
    let busy = Driven::init(descriptor::<Busy>(), &host, "{}").unwrap();
    let mut bytes = Vec::new();
    let out = sink(&mut bytes);
    // SAFETY: the instance is live and the sink valid.
    assert_eq!(unsafe { busy.descriptor.save_state.unwrap()(busy.instance, &out) }, 0);
    assert_eq!(bytes, b"state");
    bytes.clear();
    let out = sink(&mut bytes);
    let (from, state) = (Slice::new(b"1.0.0"), Slice::new(b"old"));
    // SAFETY: as above.
    let code = unsafe { busy.descriptor.reload.unwrap()(busy.instance, from, state, &out) };
    assert_eq!(code, 1);
    assert_eq!(bytes, br#"will not take "old" from 1.0.0"#);
    assert_eq!(busy.shutdown(), 1, "owed also after a refused reload");
}

#[test]
fn an_answer_that_is_not_taken_is_an_error() {
    let told = Told::default();
    let host = host(&told);
    let busy = Driven::init(descriptor::<Busy>(), &host, "{}").unwrap();
    let full = Reply { struct_size: 24, ctx: ptr::null_mut(), write: refuse };
    let call = busy.descriptor.call.unwrap();
    // SAFETY: the instance is live and the sink valid.
    assert_eq!(unsafe { call(busy.instance, 2, Slice::new(b"x"), &full) }, 1);
    // SAFETY: the instance is live, and the SDK takes NULL for a sink that takes nothing.
    assert_eq!(unsafe { call(busy.instance, 2, Slice::new(b"x"), ptr::null()) }, 1);
    assert_eq!(busy.shutdown(), 1);
}

#[test]
fn calls_of_a_plugin_that_is_not_thread_safe_never_overlap() {
    struct Everywhere(Driven);
    // SAFETY: the instance's address may be used from any thread; keeping calls apart is what is tested.
    unsafe impl Sync for Everywhere {}
    let told = Told::default();
    let host = host(&told);
    let turns = Everywhere(Driven::init(descriptor::<Turns>(), &host, "{}").unwrap());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let turns = &turns;
            scope.spawn(move || {
                for _ in 0..1000 {
                    assert_eq!(turns.0.call(1, &packed(())).0, 0);
                    assert_eq!(turns.0.health(), 0);
                }
            });
        }
    });
    assert_eq!(turns.0.call(1, &packed(())), (0, packed(4001)));
    assert_eq!(turns.0.shutdown(), 0);
}
