//! Which devices a container may open: rules, as cgroup v1 takes them and as a program for cgroup v2.

use std::{io, os::fd::AsRawFd, path::Path};

/// Allows some access to some devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// `c` or `b`; `a` is both.
    pub(super) kind: char,
    /// `None` is every.
    pub(super) major: Option<u32>,
    /// `None` is every.
    pub(super) minor: Option<u32>,
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) mknod: bool,
}

impl Rule {
    const fn all(kind: char, major: Option<u32>, minor: Option<u32>) -> Self {
        Self { kind, major, minor, read: true, write: true, mknod: true }
    }

    /// As `devices.allow` takes it.
    pub(super) fn to_v1(self) -> String {
        let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        let access: String =
            [(self.read, 'r'), (self.write, 'w'), (self.mknod, 'm')].into_iter().filter_map(|(on, c)| on.then_some(c)).collect();
        format!("{} {}:{} {access}", self.kind, number(self.major), number(self.minor))
    }
}

/// What every container may: make nodes, use the harmless ones, and its terminals.
pub(super) const DEFAULT: [Rule; 11] = [
    Rule { kind: 'c', major: None, minor: None, read: false, write: false, mknod: true },
    Rule { kind: 'b', major: None, minor: None, read: false, write: false, mknod: true },
    Rule::all('c', Some(1), Some(3)),
    Rule::all('c', Some(1), Some(5)),
    Rule::all('c', Some(1), Some(7)),
    Rule::all('c', Some(1), Some(8)),
    Rule::all('c', Some(1), Some(9)),
    Rule::all('c', Some(5), Some(0)),
    Rule::all('c', Some(5), Some(1)),
    Rule::all('c', Some(5), Some(2)),
    Rule::all('c', Some(136), None),
];

/// What a privileged one may.
pub(super) const EVERYTHING: [Rule; 1] = [Rule::all('a', None, None)];

/// An instruction of eBPF (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn op(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: to | from << 4, offset, immediate }
}

/// Loads a word of the context.
const LOAD: u8 = 0x61;
/// `to = immediate`, 64 bits.
const SET: u8 = 0xb7;
/// `to = from`, 64 bits.
const COPY: u8 = 0xbf;
/// `to &= immediate`, 64 bits.
const AND: u8 = 0x57;
/// `to >>= immediate`, 64 bits.
const SHIFT: u8 = 0x77;
/// Skips `offset` instructions unless equal to the immediate.
const SKIP_UNLESS: u8 = 0x55;
/// Skips `offset` instructions unless equal to the other register.
const SKIP_UNLESS_SAME: u8 = 0x5d;
const EXIT: u8 = 0x95;

/// The program: 1 (allowed) for the first rule that covers kind, number and all of the access, else 0.
fn program(rules: &[Rule]) -> Vec<Instruction> {
    // The context: kind in the lower half and access in the upper half of the first word, then major and minor.
    let mut program = vec![op(LOAD, 2, 1, 0, 0), op(COPY, 3, 2, 0, 0), op(AND, 3, 0, 0, 0xffff), op(SHIFT, 2, 0, 0, 16)];
    program.extend([op(LOAD, 4, 1, 4, 0), op(LOAD, 5, 1, 8, 0)]);
    for rule in rules {
        let mut block = Vec::new();
        match rule.kind {
            'b' => block.push(op(SKIP_UNLESS, 3, 0, 0, 1)),
            'c' => block.push(op(SKIP_UNLESS, 3, 0, 0, 2)),
            _ => {}
        }
        let access = i32::from(rule.mknod) | i32::from(rule.read) << 1 | i32::from(rule.write) << 2;
        if access != 7 {
            block.extend([op(COPY, 6, 2, 0, 0), op(AND, 6, 0, 0, access), op(SKIP_UNLESS_SAME, 6, 2, 0, 0)]);
        }
        for (register, number) in [(4, rule.major), (5, rule.minor)] {
            if let Some(number) = number {
                block.push(op(SKIP_UNLESS, register, 0, 0, number as i32));
            }
        }
        let of_all = block.is_empty();
        block.extend([op(SET, 0, 0, 0, 1), op(EXIT, 0, 0, 0, 0)]);
        if of_all {
            // Nothing comes after it, and the kernel takes no program with instructions that are never reached.
            program.extend(block);
            return program;
        }
        let length = block.len() as i16;
        for (at, instruction) in (0..).zip(&mut block) {
            if matches!(instruction.code, SKIP_UNLESS | SKIP_UNLESS_SAME) {
                instruction.offset = length - at - 1;
            }
        }
        program.extend(block);
    }
    program.extend([op(SET, 0, 0, 0, 0), op(EXIT, 0, 0, 0, 0)]);
    program
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Programs of groups above and of others on this one stay in force.
const BPF_F_ALLOW_MULTI: u32 = 2;

#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Puts a container's cgroup (v2) under these rules; they last as long as it does.
pub(super) fn attach(cgroup: &Path, rules: &[Rule]) -> io::Result<()> {
    let program = program(rules);
    let load = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..Load::default()
    };
    // SAFETY: the structure is the head of `union bpf_attr` for this command; its pointers live until the call returns.
    let loaded = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<Load>()) };
    if loaded < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that only this function knows.
    let loaded = unsafe { crate::process::execute::own(loaded as i32) };
    let dir = std::fs::File::open(cgroup)?;
    let attach =
        Attach { target: dir.as_raw_fd() as u32, program: loaded.as_raw_fd() as u32, kind: BPF_CGROUP_DEVICE, flags: BPF_F_ALLOW_MULTI };
    // SAFETY: as above.
    match unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attach, size_of::<Attach>()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Write,
        process::{Command, Stdio},
    };

    use super::*;
    use crate::cgroup::{Cgroup, Hierarchies};

    /// What a shell may under these rules, by the kernel itself, on any machine with cgroup v2 (beside v1 hierarchies it counts as well).
    async fn said_under(rules: &[Rule], name: &str) -> String {
        let path = format!("/coracle-test-devices-{name}-{}", std::process::id());
        let group = Cgroup::new(&Hierarchies::detect().unwrap(), &path).unwrap();
        let cgroup = group.v2_dir().expect("cgroup v2 is mounted");
        fs::create_dir(&cgroup).unwrap();
        let dir = tempfile::tempdir().unwrap();
        attach(&cgroup, rules).unwrap();
        let script = "read go; try() { if (eval \"$2\") 2>/dev/null; then echo $1 yes; else echo $1 no; fi; }
            try null 'mknod null c 1 3 && echo x > null'; try zero 'mknod zero c 1 5 && head -c 1 < zero > null'
            try mem-made 'mknod mem c 1 1'; try mem 'head -c 1 < mem > null'
            try disk-made 'mknod disk b 7 0'; try disk ': < disk'
            try kmsg-read 'mknod kmsg c 1 11; : < kmsg'; try kmsg-written ': > kmsg'";
        let mut shell =
            Command::new("sh").args(["-c", script]).current_dir(dir.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        fs::write(cgroup.join("cgroup.procs"), shell.id().to_string()).unwrap();
        shell.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let said = shell.wait_with_output().unwrap().stdout;
        group.remove().await.unwrap();
        String::from_utf8_lossy(&said).into_owned()
    }

    #[tokio::test]
    async fn the_kernel_takes_the_program_and_obeys_it() {
        let one = Rule { read: true, write: false, mknod: false, ..Rule::all('c', Some(1), Some(11)) };
        let rules: Vec<Rule> = DEFAULT.into_iter().chain([one]).collect();
        let expected = "null yes\nzero yes\nmem-made yes\nmem no\ndisk-made yes\ndisk no\nkmsg-read yes\nkmsg-written no\n";
        assert_eq!(said_under(&rules, "default").await, expected);
    }

    #[tokio::test]
    async fn the_kernel_takes_the_program_that_allows_everything() {
        let said = said_under(&EVERYTHING, "everything").await;
        assert!(said.contains("kmsg-read yes\nkmsg-written yes\n"), "{said}");
    }

    /// Runs a program as the kernel would: kind, access, major, minor.
    fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0u64; 11];
        let mut at = 0usize;
        loop {
            let i = program[at];
            let (to, from) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            let skip = |unequal: bool| if unequal { i.offset as usize } else { 0 };
            at += 1 + match i.code {
                SKIP_UNLESS => skip(registers[to] != i.immediate as u64),
                SKIP_UNLESS_SAME => skip(registers[to] != registers[from]),
                _ => 0,
            };
            match i.code {
                LOAD => registers[to] = context[i.offset as usize / 4].into(),
                SET => registers[to] = i.immediate as u64,
                COPY => registers[to] = registers[from],
                AND => registers[to] &= i.immediate as u64,
                SHIFT => registers[to] >>= i.immediate,
                EXIT => return registers[0] == 1,
                _ => {}
            }
        }
    }

    #[test]
    fn the_default_opens_null_and_no_disk() {
        let program = program(&DEFAULT);
        let (block, char, mknod, read, write) = (1, 2, 1, 2, 4);
        for (kind, access, major, minor, allowed) in [
            (char, read | write, 1, 3, true),
            (char, read, 136, 7, true),
            (char, read, 1, 1, false),
            (block, read, 8, 0, false),
            (block, mknod, 8, 0, true),
            (block, mknod | read, 8, 0, false),
            (char, write, 10, 200, false),
        ] {
            assert_eq!(run(&program, kind, access, major, minor), allowed, "{kind} {access} {major}:{minor}");
        }
        assert!(run(&super::program(&EVERYTHING), block, 7, 8, 0));
        let one = Rule { write: false, mknod: false, ..Rule::all('b', Some(8), Some(1)) };
        assert!(run(&super::program(&[one]), block, read, 8, 1));
        assert!(!run(&super::program(&[one]), block, write, 8, 1));
    }

    #[test]
    fn rules_read_as_cgroup_v1_takes_them() {
        assert_eq!(DEFAULT[0].to_v1(), "c *:* m");
        assert_eq!(DEFAULT[10].to_v1(), "c 136:* rwm");
        assert_eq!(EVERYTHING[0].to_v1(), "a *:* rwm");
    }
}
