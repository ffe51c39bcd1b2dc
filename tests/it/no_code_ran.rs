//! For every reason to refuse a plugin: not even its ELF constructor has run.
//!
//! The plugin's constructor writes a file. Each case below is rightly signed but for the one thing it is about, and
//! must be refused with exactly that code, leaving no file. A new refusal without a case does not compile; the
//! last test shows that the constructor does write when nothing is wrong.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "`provoke` names every refusal; the parts it hands on to name theirs"
)]

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use themis_kernel::admission::gpg::{Gpg, GpgRule};
use themis_kernel::admission::{NameSet, SigningKey, pack_dir, sign_detached, sign_dir};
use themis_kernel::admit::AdmitErrorKind;
use themis_kernel::ids::{Digest, PluginName, Tier};
use themis_kernel::lifecycle::LoadRequest;
use themis_kernel::manifest::Manifest;
use themis_kernel::{Config, Kernel};
use themis_tests::{Fixture, Site, every_admit_error};

const NAME: &str = "ctor_writes";
/// The first bytes of a wasm component.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// A site with one good plugin, and the handles to spoil it.
struct Case {
    site: Site,
    config: Config,
    request: LoadRequest,
}

impl Case {
    fn new(fixture: &Fixture) -> Self {
        let site = Site::new();
        let witness = format!("-DWITNESS=\"{}\"", site.path().join("witness").display());
        let below = site.add(&fixture.clone().flag(&witness));
        let config = site.config(&[NAME]);
        Self { site, config, request: LoadRequest::at(below) }
    }

    fn good() -> Self {
        Self::new(&fixture())
    }

    fn flags(flags: &[&str]) -> Self {
        Self::new(&flags.iter().fold(fixture(), |fixture, flag| fixture.flag(flag)))
    }

    fn manifest(key: &str, value: Value) -> Self {
        // Signing refuses what a loader would refuse, so the manifest is spoilt first and signed by hand.
        let case = Self::good();
        case.rewrite(|manifest| manifest[key] = value);
        case
    }

    fn dir(&self) -> PathBuf {
        self.site.root().join(NAME).join("1.0.0")
    }

    fn library(&self) -> PathBuf {
        self.dir().join(format!("linux-x86_64/lib{NAME}.so"))
    }

    /// Changes the manifest and signs its new bytes.
    fn rewrite(&self, change: impl FnOnce(&mut Value)) {
        let path = self.dir().join("manifest.json");
        let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut manifest);
        self.sign_bytes(serde_json::to_string(&manifest).unwrap().as_bytes());
    }

    fn sign_bytes(&self, manifest: &[u8]) {
        let path = self.dir().join("manifest.json");
        std::fs::write(&path, manifest).unwrap();
        sign_detached(&path, &self.dir().join("plugin.sig"), &self.site.key).unwrap();
    }

    /// Changes the library and signs the plugin anew, so that only the library itself is wrong.
    fn patch(change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let case = Self::good();
        let mut bytes = std::fs::read(case.library()).unwrap();
        change(&mut bytes);
        std::fs::write(case.library(), bytes).unwrap();
        sign_dir(&case.dir(), &case.site.key).unwrap();
        case
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

fn fixture() -> Fixture {
    Fixture::c("ctor_writes.c", NAME, "1.0.0")
}

/// Where `needle` starts.
fn find(bytes: &[u8], needle: &[u8]) -> usize {
    bytes.windows(needle.len()).position(|window| window == needle).unwrap()
}

/// Where the descriptor starts in a library.
fn descriptor(bytes: &[u8]) -> usize {
    find(bytes, b"THEMIS1\0")
}

/// The file offset of the flags of the executable load segment.
fn executable_segment_flags(bytes: &[u8]) -> usize {
    let at = |offset: usize, len: usize| -> u64 {
        bytes[offset..offset + len].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let table = usize::try_from(at(32, 8)).unwrap();
    let count = usize::try_from(at(56, 2)).unwrap();
    (0..count)
        .map(|index| table + index * 56)
        .find(|header| at(*header, 4) == 1 && at(*header + 4, 4) == 5)
        .unwrap()
        + 4
}

fn names(names: &[&str]) -> NameSet {
    NameSet::Only(names.iter().map(|name| name.parse::<PluginName>().unwrap()).collect())
}

fn time(text: &str) -> Option<themis_tests::Timestamp> {
    Some(text.parse().unwrap())
}

/// How to provoke one refusal; `Err` says why that cannot be done here.
fn provoke(kind: AdmitErrorKind) -> Result<Case, &'static str> {
    use AdmitErrorKind as K;
    Ok(match kind {
        K::NotAllowed => Case::good().with(|it| it.config.allow = names(&["other"])),
        K::NotTrustedInProcess => Case::good().with(|it| it.config.trusted_in_process.clear()),
        K::Bundle | K::Wasm => portable(kind),
        K::BelowFloor => Case::good().with(|it| {
            let plugin = it.config.plugins.entry(NAME.parse().unwrap()).or_default();
            (plugin.autoload, plugin.floor) = (false, Some("1.0.1".parse().unwrap()));
        }),
        K::DigestRevoked => Case::good().with(|it| {
            let digest = themis_tests::sha256(&it.library());
            it.config.revoked_digests = BTreeSet::from([Digest(digest)]);
        }),
        K::PathInvalid
        | K::PathEscapes
        | K::PathSymlink
        | K::NotFound
        | K::WrongFileType
        | K::WritableByOthers
        | K::ForeignOwner
        | K::FileTooLarge
        | K::Io
        | K::ImageRefused => return path(kind),
        K::ManifestSyntax
        | K::ManifestDuplicateKey
        | K::ManifestUnknownKey
        | K::ManifestMissingField
        | K::ManifestField
        | K::NameMismatch
        | K::VersionMismatch
        | K::ManifestExpired
        | K::ManifestDiffers
        | K::NoTarget
        | K::AbiUnsupported => manifest(kind),
        K::SignatureMissing
        | K::SignatureLength
        | K::SignatureScalarRange
        | K::SignatureMismatch
        | K::KeyUnknown
        | K::KeyRevoked
        | K::KeyNotYetValid
        | K::KeyExpired
        | K::KeyNotEntitled
        | K::KeyAmbiguous => signature(kind),
        K::OpenPgpMissing | K::OpenPgp => openpgp(kind),
        K::DigestMismatch | K::SizeMismatch | K::UnlistedFile | K::MissingFile => files(kind),
        K::ElfFormat
        | K::ElfArchitecture
        | K::ElfTextRelocations
        | K::ElfExecutableStack
        | K::ElfWritableCode
        | K::ElfSearchPath
        | K::ElfFilter
        | K::ElfUniqueSymbol
        | K::ElfStaticTls
        | K::ElfNeeded => elf(kind),
        K::DescriptorMissing | K::DescriptorInvalid | K::DescriptorMismatch | K::FeatureUnknown => {
            descriptor_case(kind)
        }
    })
}

/// What is in a bundle, or compiled.
fn portable(kind: AdmitErrorKind) -> Case {
    use AdmitErrorKind as K;
    match kind {
        K::Bundle => Case::good().with(|it| {
            // A good bundle, with something in front.
            let bundle = it.site.root().join("it.tdb");
            pack_dir(&it.dir(), Some(&bundle)).unwrap();
            let bytes = [b"#!/bin/sh\n", &*std::fs::read(&bundle).unwrap()].concat();
            std::fs::write(&bundle, bytes).unwrap();
            it.request.path = "it.tdb".into();
        }),
        K::Wasm => Case::good().with(|it| {
            it.config.default_tier = Tier::Wasm;
            std::fs::write(it.dir().join("it.wasm"), COMPONENT).unwrap();
            it.rewrite(|manifest| {
                let listed = json!({"path": "it.wasm", "target": "wasm32"});
                manifest["files"].as_array_mut().unwrap().push(listed);
            });
            sign_dir(&it.dir(), &it.site.key).unwrap();
        }),
        other => panic!("{other:?} is about neither bundles nor modules"),
    }
}

/// Paths and files, as the file system has them.
fn path(kind: AdmitErrorKind) -> Result<Case, &'static str> {
    use AdmitErrorKind as K;
    Ok(match kind {
        K::PathInvalid => Case::good().with(|it| it.request.path = "ctor_writes/1.0\0.0".into()),
        K::PathEscapes => Case::good().with(|it| it.request.path = "/etc".into()),
        K::PathSymlink => Case::good().with(|it| {
            let elsewhere = it.site.path().join("elsewhere");
            std::fs::rename(it.dir(), &elsewhere).unwrap();
            symlink(elsewhere, it.dir()).unwrap();
        }),
        K::NotFound => Case::good().with(|it| it.request.path = "ctor_writes/9.9.9".into()),
        K::WrongFileType => Case::good().with(|it| {
            std::fs::remove_file(it.library()).unwrap();
            std::fs::create_dir(it.library()).unwrap();
        }),
        K::WritableByOthers => Case::good().with(|it| mode(&it.dir(), 0o777)),
        K::ForeignOwner => {
            let case = Case::good();
            if std::os::unix::fs::chown(case.dir(), Some(12_345), None).is_err() {
                return Err("only root can give a file away");
            }
            case
        }
        K::FileTooLarge => Case::good().with(|it| it.sign_bytes(&vec![b' '; (64 << 10) + 1])),
        K::Io | K::ImageRefused => {
            return Err("needs a failing disk or kernel: tested beside the code");
        }
        other => panic!("{other:?} is not about paths"),
    })
}

fn manifest(kind: AdmitErrorKind) -> Case {
    use AdmitErrorKind as K;
    match kind {
        K::ManifestSyntax => Case::good().with(|it| it.sign_bytes(b"{\"schema\": 1,}")),
        K::ManifestDuplicateKey => Case::good().with(|it| {
            let text = std::fs::read_to_string(it.dir().join("manifest.json")).unwrap();
            it.sign_bytes(text.replacen('{', "{\"name\": \"other\",", 1).as_bytes());
        }),
        K::ManifestUnknownKey => Case::manifest("run_as_root", json!(true)),
        K::ManifestMissingField => Case::good().with(|it| {
            it.rewrite(|manifest| drop(manifest.as_object_mut().unwrap().remove("methods")));
        }),
        K::ManifestField => Case::manifest("capabilities", json!(["root"])),
        K::NameMismatch => Case::manifest("name", json!("another")),
        K::VersionMismatch => Case::manifest("version", json!("1.0.1")),
        K::ManifestExpired => Case::manifest("expires", json!("2020-01-01T00:00:00Z")),
        K::ManifestDiffers => Case::good().with(|it| {
            let path = it.dir().join("manifest.json");
            let mut given = Manifest::parse(&path, &std::fs::read(&path).unwrap()).unwrap();
            given.methods.clear();
            it.request.manifest = Some(given);
        }),
        K::NoTarget => Case::good().with(|it| {
            it.rewrite(|manifest| manifest["files"][0]["target"] = json!("linux-riscv64"));
        }),
        K::AbiUnsupported => Case::manifest("abi", json!("2.0")),
        other => panic!("{other:?} is not about the manifest"),
    }
}

fn signature(kind: AdmitErrorKind) -> Case {
    use AdmitErrorKind as K;
    let spoil = |change: &dyn Fn(&mut Vec<u8>)| {
        Case::good().with(|it| {
            let path = it.dir().join("plugin.sig");
            let mut bytes = std::fs::read(&path).unwrap();
            change(&mut bytes);
            std::fs::write(path, bytes).unwrap();
        })
    };
    match kind {
        K::SignatureMissing => {
            Case::good().with(|it| std::fs::remove_file(it.dir().join("plugin.sig")).unwrap())
        }
        K::SignatureLength => spoil(&|bytes| bytes.truncate(63)),
        K::SignatureScalarRange => spoil(&|bytes| bytes[63] |= 0xf0),
        K::SignatureMismatch => spoil(&|bytes| bytes[40] ^= 1),
        K::KeyUnknown => Case::good().with(|it| {
            let stranger = SigningKey::generate().unwrap();
            sign_dir(&it.dir(), &stranger).unwrap();
        }),
        K::KeyRevoked => Case::good().with(|it| {
            it.config.revoked_keys = BTreeSet::from([it.site.key.public_key().key_id()]);
        }),
        K::KeyNotYetValid => Case::good()
            .with(|it| it.config.trusted_keys[0].not_before = time("2100-01-01T00:00:00Z")),
        K::KeyExpired => Case::good()
            .with(|it| it.config.trusted_keys[0].not_after = time("2020-01-01T00:00:00Z")),
        K::KeyNotEntitled => {
            Case::good().with(|it| it.config.trusted_keys[0].plugins = names(&["other"]))
        }
        K::KeyAmbiguous => Case::good().with(|it| {
            let binary = it.site.root().join("detached.so");
            std::fs::copy(it.library(), &binary).unwrap();
            mode(&binary, 0o644);
            let signature = it.site.root().join("detached.so.sig");
            sign_detached(&binary, &signature, &it.site.key).unwrap();
            let mut second = it.config.trusted_keys[0].clone();
            second.key = SigningKey::generate().unwrap().public_key();
            it.config.trusted_keys.push(second);
            it.request.path = "detached.so".into();
        }),
        other => panic!("{other:?} is not about signatures"),
    }
}

/// What the operator demands beside the Ed25519 signature. Neither case comes as far as running gpg.
fn openpgp(kind: AdmitErrorKind) -> Case {
    use AdmitErrorKind as K;
    Case::good().with(|it| {
        it.config.gpg = Some(GpgRule {
            gpg: Gpg::new("/usr/bin/gpg", it.site.path(), it.site.path().join("keyring")),
            fingerprints: ["A".repeat(40).parse().unwrap()].into(),
            plugins: names(&[NAME]),
        });
        match kind {
            K::OpenPgpMissing => {}
            K::OpenPgp => std::fs::write(it.dir().join("manifest.json.asc"), "no packet").unwrap(),
            other => panic!("{other:?} is not about OpenPGP"),
        }
    })
}

fn files(kind: AdmitErrorKind) -> Case {
    use AdmitErrorKind as K;
    let spoil = |change: &dyn Fn(&mut Vec<u8>)| {
        Case::good().with(|it| {
            let mut bytes = std::fs::read(it.library()).unwrap();
            change(&mut bytes);
            std::fs::write(it.library(), bytes).unwrap();
        })
    };
    match kind {
        K::DigestMismatch => spoil(&|bytes| *bytes.last_mut().unwrap() ^= 1),
        K::SizeMismatch => spoil(&|bytes| bytes.push(0)),
        K::UnlistedFile => {
            Case::good().with(|it| std::fs::write(it.dir().join("extra"), b"").unwrap())
        }
        K::MissingFile => Case::good().with(|it| std::fs::remove_file(it.library()).unwrap()),
        other => panic!("{other:?} is not about listed files"),
    }
}

fn elf(kind: AdmitErrorKind) -> Case {
    use AdmitErrorKind as K;
    match kind {
        K::ElfFormat => Case::patch(|bytes| *bytes = b"just a text\n".to_vec()),
        K::ElfArchitecture => Case::patch(|bytes| bytes[18] = 183),
        K::ElfTextRelocations => Case::flags(&["-DTEXT_RELOCATION", "-Wl,-z,notext"]),
        K::ElfExecutableStack => Case::flags(&["-Wl,-z,execstack"]),
        K::ElfWritableCode => Case::patch(|bytes| {
            let flags = executable_segment_flags(bytes);
            bytes[flags] = 7;
        }),
        K::ElfSearchPath => Case::flags(&["-Wl,-rpath,/tmp"]),
        K::ElfFilter => Case::flags(&["-Wl,-f,libm.so.6"]),
        K::ElfUniqueSymbol => Case::flags(&["-DUNIQUE_SYMBOL"]),
        K::ElfStaticTls => Case::flags(&["-DSTATIC_TLS", "-ftls-model=initial-exec"]),
        K::ElfNeeded => Case::flags(&["-Wl,--no-as-needed,-l:libresolv.so.2"]),
        other => panic!("{other:?} is not about ELF"),
    }
}

fn descriptor_case(kind: AdmitErrorKind) -> Case {
    use AdmitErrorKind as K;
    match kind {
        K::DescriptorMissing => Case::flags(&["-Dthemis_plugin=another_symbol"]),
        K::DescriptorInvalid => Case::patch(|bytes| {
            let start = descriptor(bytes);
            bytes[start + 6] = b'9';
        }),
        K::DescriptorMismatch => Case::patch(|bytes| {
            let start = descriptor(bytes);
            bytes[start + 24] = b'x';
        }),
        K::FeatureUnknown => Case::patch(|bytes| {
            let start = descriptor(bytes);
            bytes[start + 16 + 7] = 0x80;
        }),
        other => panic!("{other:?} is not about the descriptor"),
    }
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Loads, and answers the code of the refusal and whether the constructor ran.
fn load(case: Case) -> (Result<(), String>, bool) {
    let witness = case.site.path().join("witness");
    let kernel = Kernel::start_blocking(case.config).unwrap();
    let loader = kernel.loader();
    let outcome = themis_tests::block_on(loader.load_request(case.request));
    let records = kernel.audit_records_blocking(0, 1_000).unwrap();
    if let Err(error) = &outcome {
        let told = records.iter().filter(|it| it.code.as_deref() == Some(error.code())).count();
        assert_eq!(told, 1, "{}: one audit record for a refusal", error.code());
    }
    kernel.shutdown_blocking();
    (outcome.map(drop).map_err(|error| error.code().to_owned()), witness.exists())
}

#[test]
fn no_refused_plugin_runs() {
    let (mut ran, mut skipped) = (0, 0);
    for kind in every_admit_error() {
        match provoke(kind) {
            Ok(case) => {
                let (outcome, witnessed) = load(case);
                // Modules, bundles and gpg have codes of their own.
                let code = match kind {
                    AdmitErrorKind::Wasm => "wasm.component",
                    AdmitErrorKind::Bundle => "bundle.prepended",
                    AdmitErrorKind::OpenPgp => "gpg.signature_armor",
                    kind => kind.code(),
                };
                assert_eq!(outcome, Err(code.to_owned()), "{kind:?}");
                assert!(!witnessed, "{kind:?}: the plugin was refused, and its constructor ran");
                ran += 1;
            }
            Err(why) => {
                println!("skipped {kind:?}: {why}");
                skipped += 1;
            }
        }
    }
    println!("{ran} refusals ran, {skipped} skipped");
    assert!(skipped <= 3, "a refusal without its proof");
}

#[test]
fn the_constructor_runs_when_nothing_is_wrong() {
    assert_eq!(load(Case::good()), (Ok(()), true));
}
