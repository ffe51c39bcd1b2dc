//! What a library would bring into a process, for people who want to know before it does.
//!
//! Nothing here decides anything. Names are read up to a bound and lists are cut, because nobody has signed
//! the file yet.

use std::mem::offset_of;

use object::elf;
use object::read::elf::{ProgramHeader as _, Sym as _};
use themis_plugin::abi;

use super::{Image, LE, PAGE, TEXT_MAX, is_exported, text};
use crate::admission::inspect::{Entry, Import, Segment, Symbols};

type Rela = elf::Rela64<object::LittleEndian>;

/// Imported functions an operator may want to hear of, by what they do.
const NOTABLE: [(&str, &[&str]); 9] = [
    ("runs other programs", &["execve", "execv", "execvp", "execl", "execlp", "fexecve"]),
    ("runs other programs", &["posix_spawn", "posix_spawnp", "system", "popen"]),
    ("starts processes", &["fork", "vfork", "clone", "daemon"]),
    ("can end the host", &["exit", "_exit", "_Exit", "quick_exit", "abort", "kill", "raise"]),
    ("loads code that nobody signed", &["dlopen", "dlmopen"]),
    ("changes how the host takes signals", &["signal", "sigaction", "sigprocmask"]),
    ("uses the network", &["socket", "connect", "bind", "listen", "accept4", "getaddrinfo"]),
    ("jumps out of functions", &["longjmp", "siglongjmp", "__longjmp_chk"]),
    ("changes the host's environment", &["setenv", "putenv", "unsetenv", "chdir", "setlocale"]),
];

/// The entries of a descriptor, in its order.
const ENTRIES: [(&str, usize); 6] = [
    ("init", offset_of!(abi::Descriptor, init)),
    ("call", offset_of!(abi::Descriptor, call)),
    ("health", offset_of!(abi::Descriptor, health)),
    ("save_state", offset_of!(abi::Descriptor, save_state)),
    ("reload", offset_of!(abi::Descriptor, reload)),
    ("shutdown", offset_of!(abi::Descriptor, shutdown)),
];

/// No list is longer than this, whatever the file says.
pub(in crate::admission) const LIST_MAX: usize = 256;

impl Image<'_> {
    /// The libraries it pulls in.
    pub(in crate::admission) fn needed(&self) -> Vec<String> {
        let needed = self.dynamic.iter().filter(|entry| entry.d_tag.get(LE) == elf::DT_NEEDED);
        needed.take(LIST_MAX).map(|entry| text(self.short(entry.d_val.get(LE)))).collect()
    }

    /// Symbols it takes from others.
    pub(in crate::admission) fn imports(&self) -> (usize, Vec<Import>) {
        let mut count = 0;
        let mut notable = Vec::new();
        // The first symbol of every table is empty.
        for symbol in self.symbols.iter().skip(1).filter(|symbol| symbol.is_undefined(LE)) {
            count += 1;
            let name = text(self.short(symbol.st_name(LE).into()));
            let known = NOTABLE.iter().find(|(_, names)| names.contains(&name.as_str()));
            if let Some((does, _)) = known.filter(|_| notable.len() < LIST_MAX) {
                notable.push(Import { symbol: name, does });
            }
        }
        notable.sort_unstable();
        (count, notable)
    }

    /// Symbols it offers to others.
    pub(in crate::admission) fn exports(&self) -> Symbols {
        let exported = || self.symbols.iter().filter(|symbol| is_exported(symbol));
        let names = exported().take(LIST_MAX);
        let names = names.map(|symbol| text(self.short(symbol.st_name(LE).into())));
        Symbols { count: exported().count(), first: names.collect() }
    }

    /// The ranges that would be mapped.
    pub(in crate::admission) fn mapped(&self) -> Vec<Segment> {
        let loads = self.segments.iter().filter(|segment| segment.p_type(LE) == elf::PT_LOAD);
        let segment = |segment: &super::Segment| {
            let flags = segment.p_flags(LE).0;
            let letter = |bit: u32, letter| if flags & bit != 0 { letter } else { '-' };
            let (address, size) = (segment.p_vaddr(LE), segment.p_memsz(LE));
            let end = address.saturating_add(size).div_ceil(PAGE);
            Segment {
                address,
                file_bytes: segment.p_filesz(LE),
                memory_bytes: size,
                mapped_bytes: end.saturating_sub(address / PAGE).saturating_mul(PAGE),
                rights: [(elf::PF_R, 'r'), (elf::PF_W, 'w'), (elf::PF_X, 'x')]
                    .map(|(bit, it)| letter(bit.0, it))
                    .iter()
                    .collect(),
            }
        };
        loads.map(segment).collect()
    }

    /// Which entries its descriptor will have. The pointers themselves are only there once the loader has
    /// relocated them, but the file says which ones it will.
    pub(in crate::admission) fn entries(&self) -> Vec<Entry> {
        let Ok(descriptor) = self.descriptor_symbol() else { return Vec::new() };
        let start = descriptor.st_value(LE);
        let end = start.saturating_add(size_of::<abi::Descriptor>() as u64);
        let relocated: Vec<u64> = self
            .relocations()
            .iter()
            .map(|relocation| relocation.r_offset.get(LE))
            .filter(|address| (start..end).contains(address))
            .collect();
        let has = |offset: usize| {
            let address = start.saturating_add(offset as u64);
            let in_file =
                self.slice_at::<u8>(address, 8).is_some_and(|it| it.iter().any(|b| *b != 0));
            in_file || relocated.contains(&address)
        };
        ENTRIES.iter().map(|(name, offset)| Entry { name, present: has(*offset) }).collect()
    }

    fn relocations(&self) -> &[Rela] {
        let table = self.entry(elf::DT_RELA).ok().flatten();
        let size = self.entry(elf::DT_RELASZ).ok().flatten();
        let (Some(address), Some(size)) = (table, size) else { return &[] };
        let count = usize::try_from(size).unwrap_or(usize::MAX) / size_of::<Rela>();
        self.slice_at(address, count).unwrap_or(&[])
    }

    /// A name's beginning: enough to show, and no work that grows with the file.
    fn short(&self, offset: u64) -> &[u8] {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.strings.get(start..).unwrap_or(&[]);
        let rest = rest.get(..TEXT_MAX).unwrap_or(rest);
        rest.split(|byte| *byte == 0).next().unwrap_or(rest)
    }
}
