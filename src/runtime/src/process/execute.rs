//! The last step of every process of a container, its init's and an exec's alike: become who the pod says, with what it may, then execute.
//!
//! Runs in a process of its own that is already in the container's namespaces and root, single-threaded and as root.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use serde::{Deserialize, Serialize};

/// Where executables are looked for when the environment does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A process to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Launch {
    pub(crate) args: Vec<String>,
    /// `NAME=value`.
    pub(crate) env: Vec<String>,
    /// Made if it is not there.
    pub(crate) cwd: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) capabilities: u64,
    pub(crate) no_new_privileges: bool,
    /// Compiled seccomp filters (`struct sock_filter` one after the other), in the order of installation.
    pub(crate) filters: Vec<Vec<u8>>,
    /// The AppArmor profile that it executes under.
    pub(crate) apparmor: Option<String>,
}

/// Does not return unless it fails; the text is for the pod's status.
pub(crate) fn execute(launch: &Launch) -> String {
    match prepare(launch) {
        Err((step, error)) => format!("{step}: {error}"),
        Ok(()) => run(launch),
    }
}

type Step<T> = Result<T, (&'static str, io::Error)>;

fn step(name: &'static str) -> impl FnOnce(io::Error) -> (&'static str, io::Error) {
    move |error| (name, error)
}

fn prepare(launch: &Launch) -> Step<()> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let mut entered = rustix::process::chdir(&*launch.cwd);
    if entered == Err(rustix::io::Errno::NOENT) {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&launch.cwd).map_err(step("making the working directory"))?;
        entered = rustix::process::chdir(&*launch.cwd);
    }
    own_stdio(launch.uid, launch.gid);
    // Said while a filter may not forbid it yet; it holds from execve on.
    if let Some(profile) = &launch.apparmor {
        confine(profile).map_err(step("applying the AppArmor profile"))?;
    }
    drop_bounding(launch.capabilities).map_err(step("dropping capabilities"))?;
    // Without no_new_privs a filter needs CAP_SYS_ADMIN, so it comes before that goes.
    if !launch.no_new_privileges {
        install(&launch.filters).map_err(step("installing the seccomp filter"))?;
    }
    become_user(launch).map_err(step("setting user and groups"))?;
    keep_capabilities(launch.capabilities).map_err(step("setting capabilities"))?;
    // What root may not enter (a volume of a server that squashes root), the user perhaps may.
    if entered.is_err() {
        rustix::process::chdir(&*launch.cwd).map_err(|error| ("entering the working directory", error.into()))?;
    }
    if launch.no_new_privileges {
        prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(step("setting no_new_privs"))?;
        install(&launch.filters).map_err(step("installing the seccomp filter"))?;
    }
    default_signals();
    Ok(())
}

/// The file is the kernel's, whatever the pod has mounted.
fn confine(profile: &str) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags};
    let open = |path| rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty());
    let file = match open("/proc/self/attr/apparmor/exec") {
        // One file of all security modules, before Linux 5.8.
        Err(rustix::io::Errno::NOENT) => open("/proc/self/attr/exec")?,
        other => other?,
    };
    if rustix::fs::fstatfs(&file)?.f_type != rustix::fs::PROC_SUPER_MAGIC {
        return Err(io::Error::other("/proc is not the kernel's"));
    }
    rustix::io::write(&file, format!("exec {profile}").as_bytes())?;
    Ok(())
}

fn prctl(option: libc::c_int, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: options used here take integers only.
    checked(unsafe { libc::prctl(option, value, 0, 0, 0) }.into()).map(drop)
}

fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Lets the user open /dev/stdout and the like by name.
pub(crate) fn own_stdio(uid: u32, gid: u32) {
    for fd in 0..3 {
        // SAFETY: descriptors 0 to 2 are open in every process that gets here and are not closed by this borrow.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let is_null = rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_rdev == rustix::fs::makedev(1, 3));
        if !is_null {
            let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
            // A pipe of a reader that is gone, a file on a read-only mount: not worth failing for.
            let _ = rustix::fs::fchown(fd, Some(uid), Some(gid));
        }
    }
}

fn drop_bounding(keep: u64) -> io::Result<()> {
    for number in (0..64).filter(|number| keep & (1 << number) == 0) {
        match prctl(libc::PR_CAPBSET_DROP, number) {
            // Beyond the last one that this kernel knows.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            other => other?,
        }
    }
    Ok(())
}

/// Root, in the user namespace that was just entered.
pub(crate) fn become_root() -> io::Result<()> {
    // SAFETY: numbers, and an empty list.
    unsafe {
        checked(libc::setresgid(0, 0, 0).into())?;
        checked(libc::setgroups(0, std::ptr::null()).into())?;
        checked(libc::setresuid(0, 0, 0).into()).map(drop)
    }
}

fn become_user(launch: &Launch) -> io::Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, 1)?;
    // SAFETY: the pointer and the length are those of one list; the others take numbers.
    unsafe {
        checked(libc::setgroups(launch.groups.len(), launch.groups.as_ptr()).into())?;
        checked(libc::setresgid(launch.gid, launch.gid, launch.gid).into())?;
        checked(libc::setresuid(launch.uid, launch.uid, launch.uid).into())?;
    }
    Ok(())
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityWord {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Version 3 of capget(2): 64 bits in two words.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

fn keep_capabilities(keep: u64) -> io::Result<()> {
    let header: [u32; 2] = [CAPABILITY_VERSION, 0];
    let mut words = [CapabilityWord::default(); 2];
    // SAFETY: header and words are as capget(2) describes for this version.
    checked(unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), words.as_mut_ptr()) })?;
    for (word, keep) in words.iter_mut().zip([keep as u32, (keep >> 32) as u32]) {
        // Nothing can be had that this process was not given.
        word.permitted &= keep;
        word.effective = word.permitted;
        word.inheritable = 0;
    }
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong)?;
    // SAFETY: as above; the kernel only reads.
    checked(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), words.as_ptr()) }).map(drop)
}

fn install(filters: &[Vec<u8>]) -> io::Result<()> {
    for filter in filters {
        let instructions = filter.chunks_exact(8).map(|bytes| libc::sock_filter {
            code: u16::from_ne_bytes([bytes[0], bytes[1]]),
            jt: bytes[2],
            jf: bytes[3],
            k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        });
        let mut instructions: Vec<libc::sock_filter> = instructions.collect();
        let program = libc::sock_fprog { len: instructions.len() as u16, filter: instructions.as_mut_ptr() };
        // SAFETY: `program` points at its own list, which lives until the call returns; the kernel copies it.
        checked(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) })?;
    }
    Ok(())
}

/// The bytes of a compiled filter, as `Launch::filters` has them.
pub(crate) fn filter_bytes(program: &[seccompiler::sock_filter]) -> Vec<u8> {
    let instruction = |i: &seccompiler::sock_filter| {
        let (code, k) = (i.code.to_ne_bytes(), i.k.to_ne_bytes());
        [code[0], code[1], i.jt, i.jf, k[0], k[1], k[2], k[3]]
    };
    program.iter().flat_map(instruction).collect()
}

/// Ignored and blocked signals outlive execve; a container starts with none (Rust itself ignores SIGPIPE).
pub(crate) fn default_signals() {
    // SAFETY: resets dispositions and the mask of this process, which is about to become another program.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

fn run(launch: &Launch) -> String {
    let Some(program) = launch.args.first() else { return "no command specified".to_owned() };
    let c_strings = |list: &[String]| list.iter().map(|text| CString::new(text.as_bytes())).collect::<Result<Vec<_>, _>>();
    let (Ok(args), Ok(env)) = (c_strings(&launch.args), c_strings(&launch.env)) else {
        return format!("exec: {program:?}: an argument or variable holds a NUL byte");
    };
    let pointers = |list: &[CString]| list.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>();
    let (argv, envp) = (pointers(&args), pointers(&env));
    let mut refused = None;
    for candidate in candidates(program, &launch.env) {
        let Ok(path) = CString::new(candidate) else { continue };
        // SAFETY: all strings and lists end with NUL and live until the call; it returns only on failure.
        unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {
                // There, and yet not: its interpreter is missing.
                if Path::new(&*path.to_string_lossy()).exists() {
                    refused.get_or_insert(format!("exec {}: no such file or directory", path.to_string_lossy()));
                }
            }
            Some(libc::EACCES) => _ = refused.get_or_insert(format!("exec: {program:?}: permission denied")),
            _ => return format!("exec {}: {error}", path.to_string_lossy()),
        }
    }
    refused.unwrap_or_else(|| match program.contains('/') {
        true => format!("exec: {program:?}: stat {program}: no such file or directory"),
        false => format!("exec: {program:?}: executable file not found in $PATH"),
    })
}

fn candidates(program: &str, env: &[String]) -> Vec<String> {
    if program.contains('/') || program.is_empty() {
        return vec![program.to_owned()];
    }
    let path = env.iter().rev().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or(PATH);
    path.split(':').map(|dir| if dir.is_empty() { program.to_owned() } else { format!("{dir}/{program}") }).collect()
}

/// Makes a new terminal of the container this session's, and stdin, stdout and stderr; its other end goes through `to`. With `console`, it is
/// also mounted as /dev/console.
pub(crate) fn take_terminal(to: BorrowedFd<'_>, console: bool) -> io::Result<()> {
    use rustix::{
        fs::{CWD, FileType, Mode, OFlags},
        mount::{MoveMountFlags, OpenTreeFlags},
    };
    let master = rustix::fs::open("/dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY)?;
    if console {
        // A node of the pod's own is covered as it is; nothing is followed or emptied.
        match rustix::fs::mknodat(CWD, "/dev/console", FileType::RegularFile, Mode::from_raw_mode(0o620), 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let tree = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let tree = rustix::mount::open_tree(&slave, "", tree)?;
        rustix::mount::move_mount(&tree, "", CWD, "/dev/console", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    }
    super::pass::send(to, b"t", &[rustix::fd::AsFd::as_fd(&master)])?;
    rustix::process::ioctl_tiocsctty(&slave)?;
    for fd in 0..3 {
        dup_onto(&slave, fd)?;
    }
    Ok(())
}

/// Makes `number` another name of `fd`, kept over execve.
pub(crate) fn dup_onto(fd: &OwnedFd, number: RawFd) -> io::Result<()> {
    if fd.as_raw_fd() == number {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
        return Ok(());
    }
    // SAFETY: only numbers pass; nothing in this process owns descriptors 0 to 2 in a way that would notice.
    let dup = unsafe { libc::dup2(fd.as_raw_fd(), number) };
    checked(dup.into()).map(drop)
}

/// Takes ownership of a descriptor by its number.
///
/// # Safety
/// The number must be of an open descriptor that nothing else owns.
pub(crate) unsafe fn own(number: RawFd) -> OwnedFd {
    // SAFETY: the caller's promise.
    unsafe { OwnedFd::from_raw_fd(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_looked_for_in_the_containers_path() {
        let env = |text: &str| vec!["A=1".to_owned(), format!("PATH={text}")];
        assert_eq!(candidates("sh", &env("/bin:/x")), ["/bin/sh", "/x/sh"]);
        assert_eq!(candidates("sh", &env(":/x")), ["sh", "/x/sh"]);
        assert_eq!(candidates("./sh", &env("/bin")), ["./sh"]);
        assert_eq!(candidates("sh", &[]).len(), 6);
    }

    #[test]
    fn filters_survive_their_encoding() {
        let program = [seccompiler::sock_filter { code: 0x15, jt: 1, jf: 2, k: 0xdead_beef }];
        let bytes = filter_bytes(&program);
        assert_eq!((bytes.len(), u16::from_ne_bytes([bytes[0], bytes[1]]), bytes[2], bytes[3]), (8, 0x15, 1, 2));
        assert_eq!(u32::from_ne_bytes(bytes[4..].try_into().unwrap()), 0xdead_beef);
    }
}
