//! What a plugin written in Rust tries by means of the standard library, some of it with the best intentions.
//!
//! Built by `rustc` alone, with `panic=abort`: there is no SDK between the plugin and its worker. The method is the
//! number of the attempt; method 1 echoes. An attempt that fails answers "errno N", one that does not "ok".

// The definition of the ABI, whose every part is not needed here.
#[path = "../../sdk/src/abi.rs"]
#[expect(dead_code, reason = "a plugin without the SDK needs a part of the ABI")]
mod abi;

use std::collections::HashMap;
use std::ffi::c_void;
use std::io::{Error, Read, Write};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::{Duration, Instant, SystemTime};

const fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let mut at = 0;
    while at < text.len() {
        bytes[at] = text.as_bytes()[at];
        at += 1;
    }
    bytes
}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".themis")]
pub static themis_plugin: abi::Descriptor = abi::Descriptor {
    magic: abi::MAGIC,
    struct_size: size_of::<abi::Descriptor>() as u32,
    abi_major: abi::ABI_MAJOR,
    abi_minor: abi::ABI_MINOR,
    features: 0,
    name: padded(env!("NAME")),
    version: padded(env!("VERSION")),
    init: Some(init),
    call: Some(call),
    health: None,
    save_state: None,
    reload: None,
    shutdown: Some(shutdown),
};

unsafe extern "C" fn init(
    _host: *const abi::Host,
    _config: abi::Slice,
    instance: *mut *mut c_void,
    _message: *const abi::Reply,
) -> i32 {
    // SAFETY: the kernel hands over a place to write the instance to.
    unsafe { instance.write(std::ptr::null_mut()) };
    abi::OK
}

unsafe extern "C" fn shutdown(_instance: *mut c_void) -> i32 {
    abi::OK
}

unsafe extern "C" fn call(
    _instance: *mut c_void,
    method: u32,
    request: abi::Slice,
    reply: *const abi::Reply,
) -> i32 {
    let answer = if method == 1 {
        // SAFETY: the slice is valid during the call, and never null when it has a length.
        unsafe { std::slice::from_raw_parts(request.ptr, request.len) }.to_vec()
    } else {
        match attempt(method) {
            Ok(text) => text.into_bytes(),
            Err(error) => {
                error.raw_os_error().map_or(error.to_string(), |it| format!("errno {it}")).into()
            }
        }
    };
    // SAFETY: the sink is valid during the call.
    let written = unsafe { ((*reply).write)((*reply).ctx, abi::Slice { ptr: answer.as_ptr(), len: answer.len() }) };
    if written == 0 { abi::OK } else { abi::ERROR }
}

fn attempt(method: u32) -> Result<String, Error> {
    match method {
        100..200 => ordinary(method),
        200..300 => outside(method),
        _ => fatal(method),
    }
    .map(|()| "ok".to_owned())
}

/// What any library may do without a thought.
fn ordinary(method: u32) -> Result<(), Error> {
    match method {
        100 => assert_eq!(HashMap::from([(1, 2)]).get(&1), Some(&2)),
        101 => assert!(Instant::now().elapsed() < Duration::from_secs(60)),
        102 => assert!(SystemTime::UNIX_EPOCH.elapsed().is_ok()),
        103 => std::thread::sleep(Duration::from_millis(1)),
        104 => assert_eq!(threads(8), 8),
        105 => assert!(std::thread::available_parallelism().is_ok()),
        106 => {
            let (sender, receiver) = mpsc::channel();
            std::thread::spawn(move || sender.send(7));
            assert_eq!(receiver.recv_timeout(Duration::from_secs(10)), Ok(7));
        }
        107 => println!("to nobody"),
        108 => eprintln!("to the log"),
        109 => assert_eq!(std::env::vars_os().count(), 0),
        110 => assert_eq!(vec![1_u8; 32 << 20].iter().map(|it| u64::from(*it)).sum::<u64>(), 32 << 20),
        // More than there may ever be, asked for politely.
        111 => assert!(Vec::<u8>::new().try_reserve_exact(1 << 40).is_err()),
        112 => {
            let _ = std::backtrace::Backtrace::force_capture();
        }
        113 => assert!(std::process::id() > 0),
        _ => return Err(Error::other("there is no such attempt")),
    }
    Ok(())
}

/// So many threads at once.
fn threads(count: usize) -> usize {
    let barrier = Arc::new(Barrier::new(count));
    let met = Arc::new(Mutex::new(0));
    let threads: Vec<_> = (0..count)
        .map(|_| {
            let (barrier, met) = (Arc::clone(&barrier), Arc::clone(&met));
            std::thread::spawn(move || {
                barrier.wait();
                *met.lock().unwrap() += 1;
            })
        })
        .collect();
    threads.into_iter().for_each(|it| it.join().unwrap());
    let met = met.lock().unwrap();
    *met
}

/// What reaches out of the process.
fn outside(method: u32) -> Result<(), Error> {
    match method {
        200 => std::fs::read("/etc/passwd").map(drop),
        201 => std::fs::File::create("/tmp/made").and_then(|mut it| it.write_all(b"made")),
        202 => std::fs::read_dir("/").map(drop),
        203 => std::fs::read("/proc/self/environ").map(drop),
        204 => std::fs::File::open("/proc/self/mem").and_then(|mut it| it.read_exact(&mut [0])),
        205 => std::fs::remove_file("/tmp/made"),
        206 => std::fs::metadata("/etc/passwd").map(drop),
        207 => std::fs::read_link("/proc/self/exe").map(drop),
        210 => std::net::TcpListener::bind("127.0.0.1:0").map(drop),
        211 => std::net::TcpStream::connect("127.0.0.1:1").map(drop),
        212 => std::net::UdpSocket::bind("127.0.0.1:0").map(drop),
        213 => std::os::unix::net::UnixStream::pair().map(drop),
        214 => std::net::ToSocketAddrs::to_socket_addrs("localhost:80").map(drop),
        220 => std::process::Command::new("/bin/true").status().map(drop),
        221 => Err(std::os::unix::process::CommandExt::exec(&mut std::process::Command::new("/bin/true"))),
        222 => std::env::set_current_dir("/tmp"),
        _ => Err(Error::other("there is no such attempt")),
    }
}

/// What no process survives.
fn fatal(method: u32) -> Result<(), Error> {
    match method {
        300 => panic!("the plugin has had enough"),
        301 => drop(std::thread::spawn(|| panic!("a thread of it has had enough")).join()),
        302 => std::process::abort(),
        303 => std::process::exit(3),
        304 => assert!(deep(1) > 0),
        // SAFETY: there is none: it is what shall go wrong.
        305 => assert_eq!(unsafe { std::ptr::without_provenance::<u64>(8).read_volatile() }, 0),
        306 => {
            let mut hoard: Vec<Vec<u8>> = Vec::new();
            loop {
                hoard.push(vec![0xA5; 1 << 20]);
                std::hint::black_box(&hoard);
            }
        }
        307 => loop {
            std::hint::spin_loop();
        },
        308 => loop {
            std::thread::park();
        },
        309 => {
            let nothing: [u8; 0] = std::hint::black_box([]);
            let at = std::hint::black_box(3);
            drop(nothing[at]);
        }
        310 => {
            let (_sender, receiver) = mpsc::channel::<()>();
            drop(receiver.recv());
        }
        _ => {}
    }
    Ok(())
}

#[expect(unconditional_recursion, reason = "it is what shall go wrong")]
fn deep(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 512]);
    deep(depth + 1) + room[(depth % 512) as usize]
}
