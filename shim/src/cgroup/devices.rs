//! Which devices a container may use: none but the harmless ones (rule R15: default deny, in both versions).

use std::os::fd::{AsFd, BorrowedFd};

use super::Directory;
use crate::{
    error::{Call, SysError},
    sys::bpf::{self, Instruction},
};

/// One device or group of devices.
#[derive(Debug, Clone, Copy)]
struct Rule {
    /// `b` or `c`.
    kind: char,
    major: Option<u32>,
    minor: Option<u32>,
    /// Letters of `rwm`.
    access: &'static str,
}

const fn character(major: u32, minor: Option<u32>) -> Rule {
    Rule { kind: 'c', major: Some(major), minor, access: "rwm" }
}

/// docker's defaults: nodes may be made but not opened; null, zero, full, random, urandom, tty, console, ptmx, pts.
const ALLOWED: [Rule; 11] = [
    Rule { kind: 'c', major: None, minor: None, access: "m" },
    Rule { kind: 'b', major: None, minor: None, access: "m" },
    character(1, Some(3)),
    character(1, Some(5)),
    character(1, Some(7)),
    character(1, Some(8)),
    character(1, Some(9)),
    character(5, Some(0)),
    character(5, Some(1)),
    character(5, Some(2)),
    character(136, None),
];

/// Version 1: the devices controller of this cgroup.
pub(super) fn restrict_v1(cgroup: &Directory) -> Result<(), SysError> {
    cgroup.write("devices.deny", "a")?;
    for rule in ALLOWED {
        let number = |part: Option<u32>| part.map_or("*".to_owned(), |part| part.to_string());
        let line = format!("{} {}:{} {}", rule.kind, number(rule.major), number(rule.minor), rule.access);
        cgroup.write("devices.allow", &line)?;
    }
    Ok(())
}

/// Version 2: a program on this cgroup.
pub(super) fn restrict_v2(cgroup: BorrowedFd<'_>) -> Result<(), SysError> {
    let program = bpf::load_device_program(&compile(&ALLOWED)).call(|| "bpf(BPF_PROG_LOAD, devices)")?;
    bpf::attach_device_program(cgroup, program.as_fd()).call(|| "bpf(BPF_PROG_ATTACH, devices)")
}

// Operations and registers of linux/bpf.h and linux/bpf_common.h.
const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const MOVE: u8 = 0xb4;
const JUMP_NOT_EQUAL: u8 = 0x56;
const JUMP_BITS: u8 = 0x46;
const EXIT: u8 = 0x95;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers, offset, immediate }
}

/// The program: r0 = 1 if a rule fits the access, else 0. The context is struct `bpf_cgroup_dev_ctx`.
fn compile(rules: &[Rule]) -> Vec<Instruction> {
    let load = |register: u8, offset: i16| instruction(LOAD_WORD, register | CONTEXT << 4, offset, 0);
    let mut program = vec![
        load(KIND, 0),
        instruction(AND, KIND, 0, 0xffff),
        load(ACCESS, 0),
        instruction(SHIFT_RIGHT, ACCESS, 0, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules {
        program.extend(compile_rule(rule));
    }
    program.extend([instruction(MOVE, 0, 0, 0), instruction(EXIT, 0, 0, 0)]);
    program
}

fn compile_rule(rule: &Rule) -> Vec<Instruction> {
    // BPF_DEVCG_DEV_BLOCK is 1, _CHAR 2; BPF_DEVCG_ACC_MKNOD 1, _READ 2, _WRITE 4.
    let kind = if rule.kind == 'b' { 1 } else { 2 };
    let bit = |letter: char, bit: i32| if rule.access.contains(letter) { 0 } else { bit };
    let denied = bit('m', 1) | bit('r', 2) | bit('w', 4);
    let mut tests = vec![(JUMP_NOT_EQUAL, KIND, kind)];
    if denied != 0 {
        tests.push((JUMP_BITS, ACCESS, denied));
    }
    for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        if let Some(number) = number {
            tests.push((JUMP_NOT_EQUAL, register, i32::try_from(number).unwrap_or(-1)));
        }
    }
    let mut block = Vec::new();
    for (index, (code, register, immediate)) in tests.iter().enumerate() {
        // Over the tests that follow, and over the two instructions that allow.
        let distance = i16::try_from(tests.len() - index - 1 + 2).unwrap_or(0);
        block.push(instruction(*code, *register, distance, *immediate));
    }
    block.extend([instruction(MOVE, 0, 0, 1), instruction(EXIT, 0, 0, 0)]);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tiny machine for the few operations used.
    fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> i64 {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0i64; 6];
        let mut at = 0usize;
        loop {
            let step = program[at];
            let target = usize::from(step.registers & 0xf);
            let immediate = i64::from(step.immediate);
            let mut jump = false;
            match step.code {
                LOAD_WORD => {
                    registers[target] = i64::from(context[usize::try_from(step.offset / 4).unwrap()]);
                }
                AND => registers[target] &= immediate,
                SHIFT_RIGHT => registers[target] >>= immediate,
                MOVE => registers[target] = immediate,
                JUMP_NOT_EQUAL => jump = registers[target] != immediate,
                JUMP_BITS => jump = registers[target] & immediate != 0,
                EXIT => return registers[0],
                other => panic!("operation {other:#x}"),
            }
            at += 1 + if jump { usize::try_from(step.offset).unwrap() } else { 0 };
        }
    }

    #[test]
    fn only_the_listed_devices_may_be_opened() {
        let program = compile(&ALLOWED);
        let (block, character) = (1, 2);
        let (mknod, read, write) = (1, 2, 4);
        assert_eq!(run(&program, character, read | write, 1, 3), 1, "null");
        assert_eq!(run(&program, character, read, 136, 77), 1, "a pty");
        assert_eq!(run(&program, character, mknod, 1, 1), 1, "a node may be made");
        assert_eq!(run(&program, character, read, 1, 1), 0, "but /dev/mem not be read");
        assert_eq!(run(&program, block, read, 254, 0), 0, "nor a disk");
        assert_eq!(run(&program, block, read | mknod, 1, 3), 0, "nor a disk numbered as null");
    }
}
