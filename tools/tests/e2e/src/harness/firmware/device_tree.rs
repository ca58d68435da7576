//! Writes `/chosen/bootloader` into a device tree, as the firmware does (Devicetree Specification, "Flattened Devicetree (DTB)
//! Format").

use anyhow::{Context, Result, ensure};

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;

/// Where the header has what we need of it.
const TOTAL_SIZE: usize = 4;
const OFF_STRUCT: usize = 8;
const OFF_STRINGS: usize = 12;
const OFF_RESERVED: usize = 16;
const SIZE_STRINGS: usize = 32;
const SIZE_STRUCT: usize = 36;
const HEADER: usize = 40;

/// Names of our properties, as the strings block has them.
const NAMES: &[u8] = b"partition\0tryboot\0";
const TRYBOOT: u32 = 10;

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    let four = bytes.get(at..).and_then(|rest| rest.first_chunk()).context("the device tree ends too early")?;
    Ok(u32::from_be_bytes(*four))
}

fn size(bytes: &[u8], at: usize) -> Result<usize> {
    Ok(usize::try_from(word(bytes, at)?)?)
}

/// The tree with `partition` and `tryboot` in `/chosen/bootloader`.
pub(super) fn with_bootloader(tree: &[u8], partition: u32, tryboot: bool) -> Result<Vec<u8>> {
    ensure!(word(tree, 0)? == 0xd00d_feed, "this is no device tree");
    let block = |offset: usize, length: usize| {
        let (from, length) = (size(tree, offset)?, size(tree, length)?);
        tree.get(from..from + length).context("a block of the device tree lies beyond its end")
    };
    let (structure, strings) = (block(OFF_STRUCT, SIZE_STRUCT)?, block(OFF_STRINGS, SIZE_STRINGS)?);
    let at = end_of_chosen(structure)?;
    let name = u32::try_from(strings.len())?;
    let mut node = Vec::new();
    node.extend(BEGIN_NODE.to_be_bytes());
    node.extend(b"bootloader\0\0");
    for (name, value) in [(name, partition), (name + TRYBOOT, u32::from(tryboot))] {
        for number in [PROP, 4, name, value] {
            node.extend(number.to_be_bytes());
        }
    }
    node.extend(END_NODE.to_be_bytes());
    let (before, after) = structure.split_at(at);
    let structure = [before, &node, after].concat();
    let strings = [strings, NAMES].concat();
    // Without what was free in it: QEMU doubles what it is given, and Linux takes no tree of more than 2 MiB.
    let mut made = tree.get(..HEADER).context("the device tree has no header")?.to_vec();
    let reserved = tree.get(size(tree, OFF_RESERVED)?..).unwrap_or_default();
    let entries = reserved.chunks_exact(16).position(|entry| entry.iter().all(|byte| *byte == 0));
    let entries = entries.context("the reserved memory of the device tree has no end")?;
    made.extend(reserved.get(..(entries + 1) * 16).unwrap_or_default());
    let (at_structure, at_strings) = (made.len(), made.len() + structure.len());
    made.extend(&structure);
    made.extend(&strings);
    let total = made.len();
    for (at, value) in [
        (TOTAL_SIZE, total),
        (OFF_RESERVED, HEADER),
        (OFF_STRUCT, at_structure),
        (OFF_STRINGS, at_strings),
        (SIZE_STRINGS, strings.len()),
        (SIZE_STRUCT, structure.len()),
    ] {
        let field = made.get_mut(at..at + 4).context("the device tree has no header")?;
        field.copy_from_slice(&u32::try_from(value)?.to_be_bytes());
    }
    Ok(made)
}

/// Where the node `/chosen` ends in the structure block.
fn end_of_chosen(structure: &[u8]) -> Result<usize> {
    let (mut at, mut depth, mut within) = (0, 0, false);
    loop {
        let token = word(structure, at)?;
        match token {
            BEGIN_NODE => {
                let rest = structure.get(at + 4..).context("the device tree ends too early")?;
                let name = rest.split(|byte| *byte == 0).next().unwrap_or_default();
                within = within || (depth == 1 && name == b"chosen");
                depth += 1;
                at += 4 + (name.len() + 1).next_multiple_of(4);
            }
            END_NODE if within && depth == 2 => return Ok(at),
            END_NODE => {
                depth -= 1;
                at += 4;
            }
            PROP => at += 12 + size(structure, at + 4)?.next_multiple_of(4),
            NOP => at += 4,
            _ => anyhow::bail!("the device tree has no /chosen"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `/ { chosen { a { }; }; z { chosen { }; }; };`, with a property in its `/chosen`.
    fn tree() -> Vec<u8> {
        let mut structure = Vec::new();
        let open = |structure: &mut Vec<u8>, name: &str| {
            structure.extend(BEGIN_NODE.to_be_bytes());
            structure.extend(name.as_bytes());
            structure.resize(structure.len() + (name.len() + 1).next_multiple_of(4) - name.len(), 0);
        };
        let close = |structure: &mut Vec<u8>| structure.extend(END_NODE.to_be_bytes());
        open(&mut structure, "");
        open(&mut structure, "z");
        open(&mut structure, "chosen");
        close(&mut structure);
        close(&mut structure);
        open(&mut structure, "chosen");
        for number in [PROP, 5, 0] {
            structure.extend(number.to_be_bytes());
        }
        structure.extend(b"abcd\0\0\0\0");
        open(&mut structure, "a");
        close(&mut structure);
        close(&mut structure);
        close(&mut structure);
        structure.extend(9_u32.to_be_bytes());
        let strings = b"bootargs\0";
        let header = [0xd00d_feed_u32, 0, 56, 0, 40, 17, 16, 0, 0, 0].map(u32::to_be_bytes).concat();
        let mut made = [&header[..], &[0; 16], &structure, strings].concat();
        let fields = [
            (TOTAL_SIZE, made.len()),
            (OFF_STRINGS, 56 + structure.len()),
            (SIZE_STRINGS, strings.len()),
            (SIZE_STRUCT, structure.len()),
        ];
        for (at, value) in fields {
            made[at..at + 4].copy_from_slice(&u32::try_from(value).unwrap().to_be_bytes());
        }
        made
    }

    #[test]
    fn the_node_is_the_last_in_chosen_and_nothing_else_changes() {
        let before = tree();
        let made = with_bootloader(&before, 3, true).unwrap();
        let block = |tree: &[u8], offset, length| {
            let from = size(tree, offset).unwrap();
            tree[from..from + size(tree, length).unwrap()].to_vec()
        };
        let (old, new) = (block(&before, OFF_STRUCT, SIZE_STRUCT), block(&made, OFF_STRUCT, SIZE_STRUCT));
        let at = end_of_chosen(&old).unwrap();
        assert_eq!((&new[..at], &new[at + 52..]), (&old[..at], &old[at..]));
        assert_eq!(&new[at + 4..at + 14], b"bootloader");
        assert_eq!(end_of_chosen(&new).unwrap(), at + 52);
        let strings = block(&made, OFF_STRINGS, SIZE_STRINGS);
        for (property, name, value) in [(at + 16, "partition", 3), (at + 32, "tryboot", 1)] {
            let from = size(&new, property + 8).unwrap();
            assert!(strings[from..].starts_with(format!("{name}\0").as_bytes()));
            assert_eq!(word(&new, property + 12).unwrap(), value);
        }
        assert_eq!(size(&made, TOTAL_SIZE).unwrap(), made.len());
        assert_eq!(made.len(), before.len() + 52 + NAMES.len());
        let padded = [&before[..], &[0; 4096]].concat();
        assert_eq!(with_bootloader(&padded, 3, true).unwrap(), made, "what was free is left out");
    }

    #[test]
    fn what_is_no_tree_or_has_no_chosen_is_refused() {
        let whole = tree();
        for length in 0..whole.len() {
            let _ = with_bootloader(&whole[..length], 2, false);
        }
        assert!(with_bootloader(b"", 2, false).is_err());
        let lost = whole.iter().map(|byte| if *byte == b'c' { b'C' } else { *byte }).collect::<Vec<_>>();
        assert!(with_bootloader(&lost, 2, false).is_err());
    }
}
