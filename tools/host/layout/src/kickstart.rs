//! Parses the subset of wic's kickstart format that our templates use.
//!
//! Reference: the Yocto Project reference manual, "OpenEmbedded Kickstart (.wks) Reference". A command or option that is
//! not listed here is an error with file and line: an option that one build lane honours and the other ignores would
//! give two different disks.

/// A kickstart file that was refused, with the place and the reason.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{file}:{line}: {reason}")]
pub struct KickstartError {
    /// Name of the file.
    pub file: String,
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong, and what is allowed.
    pub reason: String,
}

/// Partition table type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableType {
    /// GUID partition table.
    Gpt,
    /// DOS partition table with four primaries.
    Msdos,
}

/// Filesystem that wic makes for a partition with no ready image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsType {
    /// FAT.
    Vfat,
    /// ext4.
    Ext4,
    /// None.
    None,
}

/// Where the content of a partition comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An image file, copied byte for byte (`--source rawcopy --sourceparams="file=…"`).
    RawCopy {
        /// File name in the deploy directory.
        file: String,
    },
    /// A filesystem with the files of `IMAGE_BOOT_FILES` (`--source bootimg-partition`).
    BootFiles,
    /// Left as it is (no `--source`, no `--fstype`, or `--source empty`).
    Empty,
    /// An empty filesystem (`--fstype` without `--source`).
    EmptyFs,
}

/// One `part` command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Line in the file, from 1.
    pub line: usize,
    /// Content.
    pub source: Source,
    /// Filesystem, where wic makes one.
    pub fstype: FsType,
    /// Filesystem label.
    pub label: Option<String>,
    /// What its mkfs is given beside label and file (`--mkfs-extraopts`).
    pub mkfs_options: Vec<String>,
    /// GPT partition name.
    pub part_name: Option<String>,
    /// GPT partition type GUID, upper case.
    pub part_type: Option<String>,
    /// Size in bytes (`--fixed-size`).
    pub size: u64,
    /// Start alignment in bytes.
    pub align: u64,
    /// Marked active / legacy bootable.
    pub active: bool,
}

/// A parsed kickstart file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kickstart {
    /// Table type.
    pub table: TableType,
    /// Partitions in disk order.
    pub parts: Vec<Part>,
}

/// Reads and parses a file whose `${VARIABLES}` are expanded already.
///
/// # Errors
/// When the text is not within the subset.
pub fn parse(file: &str, text: &str) -> Result<Kickstart, KickstartError> {
    let mut table = None;
    let mut parts = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let fail = |reason: String| KickstartError { file: file.to_owned(), line: index + 1, reason };
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let words = split_words(trimmed).map_err(&fail)?;
        match words.split_first() {
            Some((command, options)) if command == "part" || command == "partition" => {
                parts.push(parse_part(index + 1, options).map_err(&fail)?);
            }
            Some((command, options)) if command == "bootloader" => {
                if table.is_some() {
                    return Err(fail("a second bootloader command".to_owned()));
                }
                table = Some(parse_bootloader(options).map_err(&fail)?);
            }
            Some((command, _)) => {
                return Err(fail(format!("unknown command '{command}'; allowed are part and bootloader")));
            }
            None => {}
        }
    }
    let end = text.lines().count().max(1);
    let fail = |reason: &str| KickstartError { file: file.to_owned(), line: end, reason: reason.to_owned() };
    let table = table.ok_or_else(|| fail("no bootloader command; write: bootloader --ptable gpt"))?;
    if parts.is_empty() {
        return Err(fail("no partition"));
    }
    Ok(Kickstart { table, parts })
}

fn parse_bootloader(options: &[String]) -> Result<TableType, String> {
    let mut table = TableType::Msdos;
    for (name, value) in options_of(options, &[])? {
        match (name.as_str(), value.as_deref()) {
            ("--ptable", Some("gpt")) => table = TableType::Gpt,
            ("--ptable", Some("msdos")) => table = TableType::Msdos,
            ("--ptable", other) => return Err(format!("--ptable is {other:?}; allowed are gpt and msdos")),
            (other, _) => return Err(format!("unknown option '{other}' of bootloader; allowed is --ptable")),
        }
    }
    Ok(table)
}

const PART_FLAGS: &[&str] = &["--active"];
/// Options of a partition that take a value.
const WITH_VALUE: &[&str] = &[
    "--source",
    "--sourceparams",
    "--fstype",
    "--mkfs-extraopts",
    "--label",
    "--part-name",
    "--part-type",
    "--fixed-size",
    "--align",
];

fn parse_part(line: usize, options: &[String]) -> Result<Part, String> {
    // The device mounts by partition, not by what an image's fstab says.
    if let Some(first) = options.first().filter(|first| !first.starts_with("--")) {
        return Err(format!("a mount point is not used here: {first}"));
    }
    let mut part = Part {
        line,
        source: Source::Empty,
        fstype: FsType::None,
        label: None,
        mkfs_options: Vec::new(),
        part_name: None,
        part_type: None,
        size: 0,
        align: os_disk::MIN_ALIGN,
        active: false,
    };
    let (mut source, mut params) = (None, None);
    let mut seen = Vec::new();
    for (name, value) in options_of(options, PART_FLAGS)? {
        if seen.contains(&name) {
            return Err(format!("{name} is given twice"));
        }
        match (name.as_str(), value) {
            ("--source", Some(value)) => source = Some(value),
            ("--sourceparams", Some(value)) => params = Some(value),
            ("--fstype", Some(value)) => {
                part.fstype = match value.as_str() {
                    "vfat" | "msdos" => FsType::Vfat,
                    "ext4" => FsType::Ext4,
                    "none" => FsType::None,
                    other => return Err(format!("--fstype {other}; allowed are vfat, ext4 and none")),
                }
            }
            ("--label", Some(value)) => part.label = Some(value),
            ("--mkfs-extraopts", Some(value)) => {
                part.mkfs_options = value.split_ascii_whitespace().map(str::to_owned).collect();
            }
            ("--part-name", Some(value)) => part.part_name = Some(value),
            ("--part-type", Some(value)) => {
                os_disk::gpt::Guid::parse(&value).map_err(|e| format!("--part-type: {e}"))?;
                part.part_type = Some(value.to_ascii_uppercase());
            }
            ("--fixed-size", Some(value)) => part.size = size_bytes(&value, 'M')?,
            ("--align", Some(value)) => part.align = size_bytes(&value, 'K')?,
            ("--active", None) => part.active = true,
            (known, None) if WITH_VALUE.contains(&known) => return Err(format!("{known} needs a value")),
            (other, _) => {
                return Err(format!(
                    "unknown option '{other}' of part; allowed are {} {}",
                    WITH_VALUE.join(" "),
                    PART_FLAGS.join(" ")
                ));
            }
        }
        seen.push(name);
    }
    part.source = match (source.as_deref(), params) {
        (Some("rawcopy"), Some(params)) => match params.strip_prefix("file=") {
            Some(file) if !file.is_empty() && !file.contains([',', '/']) => Source::RawCopy { file: file.to_owned() },
            _ => return Err(format!("--sourceparams \"{params}\"; rawcopy takes file=NAME")),
        },
        (Some("rawcopy"), None) => return Err("rawcopy needs --sourceparams=\"file=NAME\"".to_owned()),
        (Some("bootimg-partition"), None) => Source::BootFiles,
        (Some("empty"), None) => Source::Empty,
        (None, None) if part.fstype == FsType::None => Source::Empty,
        (None, None) => Source::EmptyFs,
        (None, Some(_)) => return Err("--sourceparams without --source".to_owned()),
        (Some(other @ ("bootimg-partition" | "empty")), Some(_)) => {
            return Err(format!("{other} takes no --sourceparams here"));
        }
        (Some(other), _) => {
            return Err(format!("--source {other}; allowed are rawcopy, bootimg-partition and empty"));
        }
    };
    if part.size == 0 {
        return Err("every partition needs --fixed-size: the layout must not depend on its content".to_owned());
    }
    if part.align == 0 || !part.align.is_multiple_of(os_disk::SECTOR) {
        return Err(format!("--align is {} bytes; it must be a multiple of 512", part.align));
    }
    if !part.size.is_multiple_of(os_disk::SECTOR) {
        return Err(format!("--fixed-size is {} bytes; it must be a multiple of 512", part.size));
    }
    if part.source == Source::Empty && source.is_none() && !seen.iter().any(|name| name == "--fstype") {
        return Err("nothing says what is in it, and wic makes a FAT then; write --fstype none for nothing".to_owned());
    }
    if part.source == Source::BootFiles && part.fstype != FsType::Vfat {
        return Err("bootimg-partition needs --fstype vfat".to_owned());
    }
    Ok(part)
}

/// Parses `64`, `64M`, `1G`, `4096K`, `8s`; `unit` is what a bare number means.
fn size_bytes(text: &str, unit: char) -> Result<u64, String> {
    let bad = || format!("'{text}' is no size; write a number with K, M, G or s, such as 64M");
    let (digits, suffix) = match text.chars().last() {
        Some(last) if last.is_ascii_digit() => (text, unit),
        Some(last) => (text.strip_suffix(last).unwrap_or(text), last),
        None => return Err(bad()),
    };
    let factor: u64 = match suffix {
        's' | 'S' => 512,
        'K' | 'k' => 1 << 10,
        'M' => 1 << 20,
        'G' => 1 << 30,
        _ => return Err(bad()),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit()) {
        return Err(bad());
    }
    digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(bad)
}

/// Pairs options with their values: `--name value`, `--name=value`, `--flag`.
fn options_of(words: &[String], flags: &[&str]) -> Result<Vec<(String, Option<String>)>, String> {
    let mut out = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        if !word.starts_with("--") {
            return Err(format!("'{word}' stands where an option was expected"));
        }
        if let Some((name, value)) = word.split_once('=') {
            out.push((name.to_owned(), Some(value.to_owned())));
        } else if flags.contains(&word.as_str()) {
            out.push((word.clone(), None));
        } else {
            // An option that nobody knows may take none; it must not eat the one behind it.
            out.push((word.clone(), words.next_if(|next| !next.starts_with("--")).cloned()));
        }
    }
    Ok(out)
}

/// Splits a line as a shell would, quotes included; no escapes, no substitution.
fn split_words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word = None::<String>;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(q) = quote {
        return Err(format!("{q} is opened and not closed"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "# comment\nbootloader --ptable gpt\n\
        part --source bootimg-partition --fstype=vfat --label os-boot --part-name os-boot --fixed-size 64M\n\
        part --source rawcopy --sourceparams=\"file=root.img\" --part-name os-rootA --fixed-size 1G --align 4096\n\
        part --fstype none --part-name os-rootB --fixed-size 1G # empty\n\
        part --fstype ext4 --label os-state --fixed-size 128\n";

    #[test]
    fn reads_our_subset() {
        let ks = parse("x.wks", GOOD).unwrap();
        assert_eq!(ks.table, TableType::Gpt);
        assert_eq!(ks.parts.len(), 4);
        assert_eq!(ks.parts[0].source, Source::BootFiles);
        assert_eq!(ks.parts[1].source, Source::RawCopy { file: "root.img".to_owned() });
        assert_eq!(ks.parts[1].align, 4 << 20);
        assert_eq!(ks.parts[2].source, Source::Empty);
        assert_eq!(ks.parts[3].source, Source::EmptyFs);
        assert_eq!(ks.parts[3].size, 128 << 20);
    }

    #[test]
    fn everything_else_is_refused_with_its_line() {
        let cases = [
            ("bootloader --ptable gpt\npart --size 10 --fixed-size 1M\n", "x:2: unknown option '--size'"),
            ("bootloader --ptable gpt\nincludes y.wks\n", "x:2: unknown command 'includes'"),
            ("bootloader --ptable gpt\npart --use-uuid --fixed-size 1M\n", "x:2: unknown option '--use-uuid'"),
            ("bootloader --ptable gpt\npart --label --fixed-size 1M\n", "x:2: --label needs a value"),
            ("bootloader --timeout 1\n", "x:1: unknown option '--timeout'"),
            ("bootloader --ptable gpt\npart --fstype btrfs --fixed-size 1M\n", "x:2: --fstype btrfs"),
            ("bootloader --ptable gpt\npart --fixed-size 1T\n", "x:2: '1T' is no size"),
            ("bootloader --ptable gpt\npart --fixed-size 99999999999999999999G\n", "x:2:"),
            ("bootloader --ptable gpt\npart --label \"a --fixed-size 1M\n", "x:2: \" is opened"),
            ("bootloader --ptable gpt\npart --label a\n", "x:2: every partition needs --fixed-size"),
            ("bootloader --ptable gpt\npart --fixed-size 1M --fixed-size 2M\n", "x:2: --fixed-size is given twice"),
            ("bootloader --ptable gpt\npart --fixed-size 1M\n", "x:2: nothing says what is in it"),
            ("part --fstype none --fixed-size 1M\n", "x:1: no bootloader"),
            ("bootloader --ptable gpt\n", "x:1: no partition"),
            ("bootloader --ptable gpt\npart --fixed-size 1M --part-type zz\n", "x:2: --part-type"),
            ("bootloader --ptable gpt\npart /boot --fixed-size 1M\n", "x:2: a mount point is not used here: /boot"),
        ];
        for (text, want) in cases {
            let err = parse("x", text).unwrap_err().to_string();
            assert!(err.starts_with(want), "{text:?}\n  gave {err}\n  want {want}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = parse("x", &text);
        }

        #[test]
        fn never_panics_near_the_grammar(words in proptest::collection::vec(
            prop_oneof![Just("part"), Just("bootloader"), Just("--ptable"), Just("gpt"), Just("--fixed-size"), Just("1M"),
                Just("--source"), Just("rawcopy"), Just("--sourceparams=file=x"), Just("\""), Just("\n"), Just("--active")], 0..40)) {
            let _ = parse("x", &words.join(" "));
        }
    }
}
