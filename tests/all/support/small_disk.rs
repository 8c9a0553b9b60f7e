//! A disk that can be filled: a small tmpfs, which gives the same error as any file system without
//! room (`ENOSPC`), mounted in a namespace of its own.
//!
//! The mount belongs to a process that this test holds: it is gone with the test, however that ends,
//! and nobody outside sees it. What has to see it is started with [`SmallDisk::command`].

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::program::Process;

/// Takes what room is left.
const BALLAST: &str = "ballast";
/// Written at a time, larger parts first.
const PARTS_BYTES: [usize; 2] = [256 << 10, 1 << 10];

/// A mounted tmpfs.
pub struct SmallDisk {
    /// Holds the namespace until its stdin is closed.
    holder: Process,
    /// Whether the namespace has users of its own, which mounting needs without root.
    own_users: bool,
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts a disk of this size at a folder, which is made.
    pub async fn mount(at: &Path, bytes: u64) -> Self {
        fs::create_dir_all(at).unwrap();
        let log = at.with_extension("mount.log");
        let own_users = !may_mount(false);
        assert!(
            !own_users || may_mount(true),
            "this test mounts a small tmpfs, as root ('unshare -m') or in a user namespace of its own \
             ('unshare -Urm'), and neither works here. Run it as root, or in a container started with \
             --cap-add SYS_ADMIN, or allow user namespaces: sysctl -w kernel.unprivileged_userns_clone=1 \
             (and kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu)"
        );
        let mut command = unshare(own_users);
        command.args([
            "sh",
            "-c",
            "mount -t tmpfs -o \"size=$1,mode=700\" seamark-test \"$2\" && echo mounted && exec cat",
        ]);
        command.arg("mount").arg(bytes.to_string()).arg(at);
        let mut holder = Process::start(command, &log);
        holder.says("mounted").await;
        Self { holder, own_users, at: at.to_owned() }
    }

    /// This command, where the disk is mounted.
    pub fn command_of(&self, command: Command) -> Command {
        let mut here = self.command(command.get_program());
        here.args(command.get_args());
        here
    }

    /// A command that runs where the disk is mounted.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        if self.own_users {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.args(["--mount", "--target", &self.holder.pid().as_raw_pid().to_string()]).arg(program);
        command
    }

    /// The disk as this process reaches it.
    fn seen_from_here(&self) -> PathBuf {
        let root = format!("/proc/{}/root", self.holder.pid().as_raw_pid());
        Path::new(&root).join(self.at.strip_prefix("/").unwrap())
    }

    /// Writes until there is no room for another kilobyte.
    pub fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.seen_from_here().join(BALLAST)).unwrap();
        for part in PARTS_BYTES {
            let bytes = vec![0xbb; part];
            loop {
                match file.write_all(&bytes) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => panic!("{}: {error}", self.at.display()),
                }
            }
        }
    }

    /// Gives back the room that [`SmallDisk::fill`] took.
    pub fn free(&self) {
        fs::remove_file(self.seen_from_here().join(BALLAST)).unwrap();
    }
}

fn unshare(own_users: bool) -> Command {
    let mut command = Command::new("unshare");
    command.args(if own_users { &["--user", "--map-root-user", "--mount"][..] } else { &["--mount"][..] });
    command
}

/// Whether a tmpfs can be mounted in a new namespace.
fn may_mount(own_users: bool) -> bool {
    let mut command = unshare(own_users);
    command.args(["mount", "-t", "tmpfs", "seamark-test", "/tmp"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
