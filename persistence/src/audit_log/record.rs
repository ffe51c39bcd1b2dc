//! The bytes of one audit record, fixed for good: they are the leaves of the chain and of a later Merkle tree.
//!
//! A record is one JSON object on one line, without spaces, in printable ASCII only, with every field present in
//! this order (absent values are `null`):
//!
//! ```json
//! {"v":1,"seq":7,"time":"2026-11-22T10:00:00.000000001Z","mono_ns":12345,"boot":"<uuid>",
//!  "event":"load","outcome":"done","actor":"host","plugin":"geo","version":"1.0.0","digest":"<64 hex>",
//!  "key_id":"<16 hex>","tier":"in-process","generation":3,"code":null,"reason":null,"prev":"<64 hex>"}
//! ```
//!
//! (shown on three lines). Times have nine digits of a second and end in `Z`. Whatever is not printable ASCII is
//! written as `\uXXXX`, so a record can be printed on any terminal and is always one line. There is one spelling:
//! a record that would be written differently is not a record. `actor`, `code` and `reason` are cut so that a
//! record never exceeds [`AUDIT_RECORD_BYTES_MAX`]; a cut says how long the text was.
//!
//! The leaf hash is SHA-256 over a zero byte and the record (RFC 6962); `prev` is the leaf hash of the record
//! before, all zeros for the first.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};
use serde_json::ser::{Formatter, Serializer};
use sha2::{Digest as _, Sha256};
use themis_messages::audit::{AuditEntry, AuditEvent, AuditOutcome};
use themis_messages::ids::{Digest, GenerationId, KeyId, PluginName, PluginVersion, Tier};
use themis_messages::limits::{AUDIT_REASON_BYTES_MAX, AUDIT_RECORD_BYTES_MAX};

use crate::moment::{BootId, Moment};

/// Version of the record's form.
pub const RECORD_VERSION: u32 = 1;
/// Bytes of a hash.
pub(crate) const HASH_BYTES: usize = 32;
/// RFC 6962: what a leaf's hash starts with, so that no inner node can pass for a leaf.
const LEAF_PREFIX: [u8; 1] = [0];
/// Room for "who asked", as it is written.
const ACTOR_BYTES_MAX: usize = 256;
/// Room for a stable code, as it is written.
const CODE_BYTES_MAX: usize = 128;
/// Room for everything else: keys, numbers, hashes, ids.
const FIXED_BYTES_MAX: usize = 1 << 10;
const _: () = assert!(
    FIXED_BYTES_MAX + ACTOR_BYTES_MAX + CODE_BYTES_MAX + AUDIT_REASON_BYTES_MAX
        <= AUDIT_RECORD_BYTES_MAX
);

/// SHA-256 of a record as a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeafHash(Digest);

impl LeafHash {
    /// What the first record has as `prev`.
    pub const ZERO: Self = Self(Digest([0; HASH_BYTES]));

    /// Hashes the bytes of a record.
    #[must_use]
    pub fn of(record: &[u8]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(LEAF_PREFIX);
        hasher.update(record);
        Self(Digest(hasher.finalize().into()))
    }

    pub(crate) const fn from_bytes(bytes: [u8; HASH_BYTES]) -> Self {
        Self(Digest(bytes))
    }

    /// The hash itself.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; HASH_BYTES] {
        &self.0.0
    }
}

impl fmt::Display for LeafHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One record, field by field in the order it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditRecord {
    /// [`RECORD_VERSION`].
    pub v: u32,
    /// Position in the log, from 1.
    pub seq: u64,
    /// Wall clock.
    #[serde(with = "nanoseconds")]
    pub time: jiff::Timestamp,
    /// Nanoseconds since that boot.
    pub mono_ns: u64,
    /// Which boot of the machine.
    pub boot: String,
    /// What happened.
    pub event: AuditEvent,
    /// How far it came.
    pub outcome: AuditOutcome,
    /// Who asked.
    pub actor: String,
    /// The plugin.
    pub plugin: Option<PluginName>,
    /// The version.
    pub version: Option<PluginVersion>,
    /// Digest of the image.
    pub digest: Option<Digest>,
    /// The key it was signed with.
    pub key_id: Option<KeyId>,
    /// The tier.
    pub tier: Option<Tier>,
    /// The generation.
    pub generation: Option<GenerationId>,
    /// Stable code of a refusal or failure.
    pub code: Option<String>,
    /// The sentence for people.
    pub reason: Option<String>,
    /// Leaf hash of the record before.
    pub prev: LeafHash,
}

/// Why bytes are not a record, or a record has no bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// Over [`AUDIT_RECORD_BYTES_MAX`].
    #[error("{bytes} bytes are over the limit of {AUDIT_RECORD_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not JSON, or not with these fields.
    #[error("{what}")]
    Syntax {
        /// The parser's words.
        what: String,
    },
    /// A form this release does not know.
    #[error("version {found} of the record's form is not known")]
    Version {
        /// What the record says.
        found: u32,
    },
    /// Means something, but is not how it would be written.
    #[error("it is not spelt the one way records are")]
    Spelling,
}

impl AuditRecord {
    /// Adds place, time and chain to what an actor says happened, and cuts what is too long.
    #[must_use]
    pub fn new(entry: &AuditEntry, seq: u64, now: Moment, boot: &BootId, prev: LeafHash) -> Self {
        Self {
            v: RECORD_VERSION,
            seq,
            time: now.time,
            mono_ns: now.mono_ns,
            boot: boot.as_str().to_owned(),
            event: entry.event,
            outcome: entry.outcome,
            actor: cut(&entry.actor, ACTOR_BYTES_MAX),
            plugin: entry.plugin.clone(),
            version: entry.version.clone(),
            digest: entry.digest,
            key_id: entry.key_id,
            tier: entry.tier,
            generation: entry.generation,
            code: entry.code.as_deref().map(|code| cut(code, CODE_BYTES_MAX)),
            reason: entry.reason.as_deref().map(|reason| cut(reason, AUDIT_REASON_BYTES_MAX)),
            prev,
        }
    }

    /// The bytes of the record.
    ///
    /// # Errors
    /// [`RecordFault::TooLarge`] when a field that is not cut is longer than any valid one.
    pub fn encode(&self) -> Result<Vec<u8>, RecordFault> {
        let mut bytes = Vec::with_capacity(FIXED_BYTES_MAX);
        let mut serializer = Serializer::with_formatter(&mut bytes, Ascii);
        self.serialize(&mut serializer).map_err(|error| syntax(&error))?;
        if bytes.len() > AUDIT_RECORD_BYTES_MAX {
            return Err(RecordFault::TooLarge { bytes: bytes.len() });
        }
        Ok(bytes)
    }

    /// Reads a record back.
    ///
    /// # Errors
    /// [`RecordFault`] when the bytes are not exactly what [`AuditRecord::encode`] makes of a record.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordFault> {
        if bytes.len() > AUDIT_RECORD_BYTES_MAX {
            return Err(RecordFault::TooLarge { bytes: bytes.len() });
        }
        // First, because a newer form may have fields that this one refuses.
        let form: Form = serde_json::from_slice(bytes).map_err(|error| syntax(&error))?;
        if form.v != RECORD_VERSION {
            return Err(RecordFault::Version { found: form.v });
        }
        let record: Self = serde_json::from_slice(bytes).map_err(|error| syntax(&error))?;
        if record.encode()? != bytes {
            return Err(RecordFault::Spelling);
        }
        Ok(record)
    }
}

#[derive(Deserialize)]
struct Form {
    v: u32,
}

fn syntax(error: &serde_json::Error) -> RecordFault {
    RecordFault::Syntax { what: error.to_string() }
}

/// JSON in printable ASCII. `serde_json` escapes quotes, backslashes and what is below a space by itself.
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        text: &str,
    ) -> io::Result<()> {
        for part in text.split_inclusive(needs_escape) {
            let plain = part.trim_end_matches(needs_escape);
            writer.write_all(plain.as_bytes())?;
            for unit in part.get(plain.len()..).unwrap_or_default().encode_utf16() {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

const fn needs_escape(c: char) -> bool {
    !c.is_ascii() || c == '\u{7f}'
}

/// How many bytes a character takes inside a record.
const fn written_len(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        ' '..='~' => 1,
        _ => 6 * c.len_utf16(),
    }
}

/// Keeps at most `max` bytes as written, between characters, and says how long the text was.
fn cut(text: &str, max: usize) -> String {
    let written: usize = text.chars().map(written_len).fold(0, usize::saturating_add);
    if written <= max {
        return text.to_owned();
    }
    let mark = format!(" [cut, {} bytes in all]", text.len());
    let mut room = max.saturating_sub(mark.len());
    let kept = text.chars().take_while(|c| {
        let fits = written_len(*c) <= room;
        room = room.saturating_sub(written_len(*c));
        fits
    });
    kept.chain(mark.chars()).collect()
}

/// RFC 3339 with exactly nine digits of a second.
mod nanoseconds {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        time: &jiff::Timestamp,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{time:.9}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<jiff::Timestamp, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use proptest::prelude::*;

    fn boot() -> BootId {
        BootId::parse("01234567-89ab-cdef-0123-456789abcdef").unwrap()
    }

    fn moment() -> Moment {
        Moment { time: "2026-11-22T10:00:00.000000001Z".parse().unwrap(), mono_ns: 12_345 }
    }

    fn record(entry: &AuditEntry) -> AuditRecord {
        AuditRecord::new(entry, 1, moment(), &boot(), LeafHash::ZERO)
    }

    fn text(entry: &AuditEntry) -> String {
        String::from_utf8(record(entry).encode().unwrap()).unwrap()
    }

    fn full_entry() -> AuditEntry {
        AuditEntry {
            plugin: Some("geo".parse().unwrap()),
            version: Some("1.0.0".parse().unwrap()),
            digest: Some("0123456789abcdef".repeat(4).parse().unwrap()),
            key_id: Some("fedcba9876543210".parse().unwrap()),
            tier: Some(Tier::InProcess),
            generation: Some(GenerationId(u64::MAX)),
            code: Some("sig.mismatch".to_owned()),
            reason: Some("São Paulo".to_owned()),
            ..AuditEntry::new(AuditEvent::Load, AuditOutcome::Refused, "admin uid 1000")
        }
    }

    #[test]
    fn the_bytes_of_a_record_are_these() {
        let small = AuditEntry::new(AuditEvent::Start, AuditOutcome::Done, "kernel");
        expect![[r#"{"v":1,"seq":1,"time":"2026-11-22T10:00:00.000000001Z","mono_ns":12345,"boot":"01234567-89ab-cdef-0123-456789abcdef","event":"start","outcome":"done","actor":"kernel","plugin":null,"version":null,"digest":null,"key_id":null,"tier":null,"generation":null,"code":null,"reason":null,"prev":"0000000000000000000000000000000000000000000000000000000000000000"}"#]]
            .assert_eq(&text(&small));
        expect![[r#"{"v":1,"seq":1,"time":"2026-11-22T10:00:00.000000001Z","mono_ns":12345,"boot":"01234567-89ab-cdef-0123-456789abcdef","event":"load","outcome":"refused","actor":"admin uid 1000","plugin":"geo","version":"1.0.0","digest":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","key_id":"fedcba9876543210","tier":"in-process","generation":18446744073709551615,"code":"sig.mismatch","reason":"S\u00e3o Paulo","prev":"0000000000000000000000000000000000000000000000000000000000000000"}"#]]
            .assert_eq(&text(&full_entry()));
        expect!["743cd0fb"].assert_eq(&LeafHash::of(text(&small).as_bytes()).to_string()[..8]);
    }

    #[test]
    fn the_names_of_events_and_outcomes_are_these() {
        use AuditEvent as E;
        use AuditOutcome as O;
        let events = [
            E::Start,
            E::Stop,
            E::Discover,
            E::Load,
            E::Reload,
            E::Rollback,
            E::Unload,
            E::Retire,
            E::Quarantine,
            E::Release,
            E::Restart,
            E::SwapBack,
            E::Settle,
            E::FirstCall,
        ];
        let outcomes = [O::Intent, O::Done, O::Refused, O::Failed];
        expect![[r#"["start","stop","discover","load","reload","rollback","unload","retire","quarantine","release","restart","swap-back","settle","first-call"]["intent","done","refused","failed"]"#]]
            .assert_eq(&format!(
                "{}{}",
                serde_json::to_string(&events).unwrap(),
                serde_json::to_string(&outcomes).unwrap()
            ));
    }

    /// The published hashes of RFC 6962's empty leaf and of the leaf with one zero byte.
    #[test]
    fn leaf_hashes_are_those_of_rfc_6962() {
        let empty = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
        let zero = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7";
        assert_eq!(LeafHash::of(b"").to_string(), empty);
        assert_eq!(LeafHash::of(&[0]).to_string(), zero);
    }

    #[test]
    fn e17_a_text_cannot_pass_for_a_second_record_or_steer_a_terminal() {
        let trick =
            "x\",\"outcome\":\"done\"}\n{\"v\":1,\"seq\":2}\r\u{1b}[2J\u{9b}2J\u{7f}\u{202e}\0";
        let mut entry = full_entry();
        entry.actor = trick.to_owned();
        entry.reason = Some(trick.to_owned());
        let bytes = record(&entry).encode().unwrap();
        assert!(bytes.iter().all(|b| (b' '..=b'~').contains(b)), "one line of printable ASCII");
        let read = AuditRecord::decode(&bytes).unwrap();
        assert_eq!(read.outcome, AuditOutcome::Refused);
        assert_eq!(read.reason.as_deref(), Some(trick));
    }

    #[test]
    fn long_texts_are_cut_between_characters_and_say_so() {
        assert_eq!(cut("short", 5), "short");
        let long = "ä".repeat(3_000);
        let shown = cut(&long, 60);
        assert_eq!(shown, "äääää [cut, 6000 bytes in all]");
        let mut entry = full_entry();
        let worst = "\u{1}".repeat(100_000);
        (entry.actor, entry.code, entry.reason) = (worst.clone(), Some(worst.clone()), Some(worst));
        entry.plugin = Some("a".repeat(63).parse().unwrap());
        entry.version = Some("1.0.0-aaaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap());
        let mut record = record(&entry);
        (record.seq, record.mono_ns) = (u64::MAX, u64::MAX);
        record.time = jiff::Timestamp::MIN;
        let bytes = record.encode().unwrap();
        let texts = ACTOR_BYTES_MAX + CODE_BYTES_MAX + AUDIT_REASON_BYTES_MAX;
        assert!(bytes.len() <= FIXED_BYTES_MAX + texts, "{}", bytes.len());
        assert_eq!(AuditRecord::decode(&bytes).unwrap(), record);
    }

    #[test]
    fn only_the_one_spelling_is_a_record() {
        let good = text(&full_entry());
        AuditRecord::decode(good.as_bytes()).unwrap();
        for (from, to) in [
            ("{\"v\"", "{ \"v\""),
            ("\\u00e3", "ã"),
            ("\\u00e3", "\\u00E3"),
            ("10:00:00.000000001Z", "12:00:00.000000001+02:00"),
            ("\"v\":1,\"seq\":1", "\"seq\":1,\"v\":1"),
        ] {
            let other = good.replacen(from, to, 1);
            assert_ne!(other, good, "{from}");
            assert_eq!(AuditRecord::decode(other.as_bytes()), Err(RecordFault::Spelling), "{to}");
        }
        for (from, to) in [
            ("\"seq\":1", "\"seq\":1,\"seq\":1"),
            ("\"seq\":1", "\"seq\":-1"),
            ("\"seq\":1", "\"seq\":1,\"more\":1"),
            ("\"load\"", "\"explode\""),
            ("}", "} "),
            ("}", "}}"),
        ] {
            let other = good.replacen(from, to, 1);
            assert!(AuditRecord::decode(other.as_bytes()).is_err(), "{to}");
        }
        let absent = text(&AuditEntry::new(AuditEvent::Stop, AuditOutcome::Done, "kernel"));
        let omitted = absent.replacen("\"code\":null,", "", 1);
        assert_eq!(AuditRecord::decode(omitted.as_bytes()), Err(RecordFault::Spelling));
    }

    #[test]
    fn other_forms_and_sizes_are_refused_by_name() {
        let newer = br#"{"v":2,"anything":[]}"#;
        assert_eq!(AuditRecord::decode(newer), Err(RecordFault::Version { found: 2 }));
        let huge = vec![b' '; AUDIT_RECORD_BYTES_MAX + 1];
        let too_large = RecordFault::TooLarge { bytes: AUDIT_RECORD_BYTES_MAX + 1 };
        assert_eq!(AuditRecord::decode(&huge), Err(too_large));
        let mut record = record(&full_entry());
        record.reason = Some("x".repeat(AUDIT_RECORD_BYTES_MAX));
        assert!(matches!(record.encode(), Err(RecordFault::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn any_text_survives_and_stays_within_its_room(actor in any::<String>(), reason in "\\PC{0,700}|[\\x00-\\x7f]{0,1500}") {
            let mut entry = full_entry();
            entry.actor = actor;
            entry.reason = Some(reason);
            let record = record(&entry);
            let bytes = record.encode().unwrap();
            prop_assert!(bytes.iter().all(|b| (b' '..=b'~').contains(b)));
            prop_assert_eq!(AuditRecord::decode(&bytes).unwrap(), record);
        }

        #[test]
        fn the_room_of_a_text_is_counted_as_it_is_written(text in any::<String>(), max in 40_usize..200) {
            let shown = cut(&text, max);
            let mut bytes = Vec::new();
            shown.serialize(&mut Serializer::with_formatter(&mut bytes, Ascii)).unwrap();
            let quotes = 2;
            prop_assert_eq!(bytes.len() - quotes, shown.chars().map(written_len).sum::<usize>());
            prop_assert!(bytes.len() - quotes <= max);
            prop_assert!(shown == text || shown.ends_with("bytes in all]"));
        }

        #[test]
        fn decode_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(AuditRecord::decode(&bytes).is_err());
        }
    }
}
