//! Programs in bounds: what they may not call, that nothing of them is left, what is heard of them.
#![expect(clippy::expect_used, reason = "a test may panic")]

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};
use strongroom::rotate::confined::{Ended, How, Task, run};

const HOST: &str = env!("CARGO_BIN_EXE_strongroom");

fn task(program: &[&str]) -> Task<'static> {
    Task {
        host: Path::new(HOST),
        program: program.iter().map(OsString::from).collect(),
        environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
        folder: Path::new("/"),
        input: b"",
        deadline: Duration::from_secs(60),
        answer: Some(1 << 20),
        listen: true,
    }
}

/// Runs a script; what it prints must be there.
async fn sh(script: &str) -> Ended {
    run(task(&["sh", "-c", script])).await.expect("runs")
}

async fn python(script: &str) -> Ended {
    run(task(&["python3", "-c", script])).await.expect("runs")
}

fn printed(ended: &Ended) -> &str {
    std::str::from_utf8(&ended.answer).expect("text").trim_end()
}

/// Whether a process is there that does work.
fn lives(pid: &str) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = state.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    state.is_some_and(|state| state != 'Z')
}

async fn gone(pid: &str) {
    let begun = Instant::now();
    while lives(pid) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{pid} works on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_program_has_its_input_and_its_environment_and_nothing_else() {
    let program = "cat; env; ls /proc/self/fd; umask; ulimit -c; grep NoNewPrivs /proc/self/status";
    let task = Task { input: b"{\"Step\": 1}\n", ..task(&["sh", "-c", program]) };
    let ended = run(task).await.expect("runs");
    assert_eq!(ended.how, How::Exited(0));
    let text = printed(&ended).replace("PWD=/\n", "");
    // 3 is the folder that `ls` reads.
    let expected = "{\"Step\": 1}\nPATH=/usr/bin:/bin\n0\n1\n2\n3\n0077\n0\nNoNewPrivs:\t1";
    assert_eq!(text, expected);
}

#[tokio::test]
async fn how_it_ends_is_told() {
    assert_eq!(sh("exit 7").await.how, How::Exited(7));
    assert_eq!(sh("kill -9 $$").await.how, How::Killed(9));
    let ended = run(task(&["/no/such/program"])).await.expect("runs");
    assert_eq!(ended.how, How::NotStarted("No such file or directory (os error 2)".to_owned()));
    // Who ends the process at the head ends all, whatever it may gain by that.
    let Ended { how, answer, .. } = sh("sleep 600 & echo $!; kill -9 $PPID; sleep 600").await;
    assert!(matches!(how, How::NotStarted(_)), "{how:?}");
    gone(std::str::from_utf8(&answer).expect("text").trim()).await;
}

#[tokio::test]
async fn of_what_it_says_the_end_is_kept_and_of_what_it_prints_the_beginning() {
    let ended = sh("seq 1 200000 >&2; echo last >&2").await;
    assert_eq!(ended.says.len(), 64 * 1024);
    assert!(ended.says.ends_with(b"200000\nlast\n"));
    let task = Task { answer: Some(10), listen: true, ..task(&["sh", "-c", "seq 1 200000"]) };
    let ended = run(task).await.expect("runs");
    assert_eq!((ended.how, ended.answer.as_slice()), (How::Exited(0), &b"1\n2\n3\n4\n5\n6"[..11]));
}

#[tokio::test]
async fn when_the_time_is_over_nothing_of_it_is_left() {
    let script =
        "trap '' TERM; (sleep 600; echo late) & echo $!; echo $$; echo said >&2; sleep 600";
    let late = Task { deadline: Duration::from_secs(1), ..task(&["sh", "-c", script]) };
    let begun = Instant::now();
    let ended = run(late).await.expect("runs");
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!((ended.how.clone(), ended.says.as_slice()), (How::Late, &b"said\n"[..]));
    for pid in printed(&ended).lines() {
        gone(pid).await;
    }
}

#[tokio::test]
async fn what_it_leaves_behind_when_it_ends_does_not_go_on() {
    let ended = sh("sleep 600 & echo $!").await;
    assert_eq!(ended.how, How::Exited(0));
    gone(printed(&ended)).await;
    let script = "
import os, sys, time
if os.fork() == 0:
    try:
        os.setsid()
        print('free')
    except PermissionError:
        print(os.getpid())
    sys.stdout.flush()
    os.close(0); os.close(1); os.close(2)
    time.sleep(600)
time.sleep(0.5)
";
    let ended = python(script).await;
    assert_eq!(ended.how, How::Exited(0), "{}", String::from_utf8_lossy(&ended.says));
    gone(printed(&ended)).await;
}

#[tokio::test]
async fn who_loses_interest_ends_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pid");
    let script = format!("echo $$ > {}; sleep 600", file.display());
    let running = tokio::spawn(async move { run(task(&["sh", "-c", &script])).await.is_ok() });
    let pid = loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        match std::fs::read_to_string(&file) {
            Ok(pid) if pid.ends_with('\n') => break pid.trim().to_owned(),
            _ => {}
        }
    };
    assert!(lives(&pid));
    running.abort();
    gone(&pid).await;
}

/// Calls what must be refused, from Python as a function would.
#[tokio::test]
async fn what_reaches_beyond_itself_is_refused() {
    let script = "
import ctypes, errno, os, platform, signal, socket
libc = ctypes.CDLL(None, use_errno=True)
def refused(name, *arguments):
    answer = getattr(libc, name)(*arguments)
    print(name, answer, errno.errorcode.get(ctypes.get_errno()))
here = {'x86_64': 0, 'aarch64': 1}[platform.machine()]
refused('ptrace', 16, os.getppid(), 0, 0)
refused('process_vm_readv', os.getppid(), 0, 0, 0, 0, 0)
refused('unshare', 0x10000000)
refused('setns', 0, 0)
refused('mount', None, b'/', None, 0, None)
refused('setsid')
refused('setpgid', 0, 0)
refused('personality', 0xffffffff)
for name, number in (('io_uring_setup', (425, 425)), ('bpf', (321, 280)), ('keyctl', (250, 219)),
                     ('userfaultfd', (323, 282)), ('clock_settime', (227, 112)), ('kexec_load', (246, 104)),
                     ('perf_event_open', (298, 241)), ('clone3', (435, 435))):
    answer = libc.syscall(number[here], 0, 0, 0, 0, 0)
    print(name, answer, errno.errorcode.get(ctypes.get_errno()))
SIGCHLD = 17
answer = libc.syscall((56, 220)[here], 0x10000000 | SIGCHLD, 0, 0, 0, 0)
print('clone', answer, errno.errorcode.get(ctypes.get_errno()))
libc.prlimit.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
refused('prlimit', os.getppid(), 7, None, None)
";
    let ended = python(script).await;
    assert_eq!(ended.how, How::Exited(0), "{}", String::from_utf8_lossy(&ended.says));
    for line in printed(&ended).lines() {
        let expected = match line.split(' ').next().expect("a word") {
            "clone3" => "-1 ENOSYS",
            // The proof that a call which is allowed does answer.
            "personality" => "0 ",
            _ => "-1 EPERM",
        };
        assert!(line.split_once(' ').is_some_and(|(_, a)| a.starts_with(expected)), "{line}");
    }
    assert_eq!(printed(&ended).lines().count(), 18);
}

/// What interpreters and their libraries do every day goes on.
#[tokio::test]
async fn threads_children_and_sockets_are_as_ever() {
    let script = "
import socket, subprocess, threading, tempfile, concurrent.futures, resource
assert subprocess.run(['sh', '-c', 'echo child'], capture_output=True, text=True).stdout == 'child\\n'
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    assert list(pool.map(str, range(9))) == list('012345678')
server = socket.create_server(('127.0.0.1', 0))
client = socket.create_connection(server.getsockname())
client.sendall(b'x')
assert server.accept()[0].recv(1) == b'x'
with tempfile.TemporaryFile() as file:
    file.write(b'x')
resource.getrlimit(resource.RLIMIT_NOFILE)
print('well')
";
    let ended = python(script).await;
    assert_eq!(printed(&ended), "well", "{}", String::from_utf8_lossy(&ended.says));
}

/// Kernels before 6.12 do not know how to keep a program from it.
#[tokio::test]
async fn it_signals_nobody_but_what_it_started() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let known = (numbers.next(), numbers.next()) >= (Some(6), Some(12));
    let mut other = std::process::Command::new("sleep").arg("600").spawn().expect("runs");
    let ended = sh(&format!("kill -0 {}; kill -9 $$", other.id())).await;
    other.kill().expect("is killed");
    other.wait().expect("is gone");
    let told = String::from_utf8_lossy(&ended.says).into_owned();
    assert_eq!(told.contains("not permitted"), known, "{release} {told}");
    assert_eq!(ended.how, How::Killed(9));
}

#[test]
fn nobody_else_starts_a_host() {
    let ran = std::process::Command::new(HOST)
        .args(["function-host", "--", "echo", "ran"])
        .stdin(std::process::Stdio::null())
        .output()
        .expect("runs");
    assert_eq!((ran.status.code(), ran.stdout.as_slice()), (Some(1), &b""[..]));
    let told = String::from_utf8_lossy(&ran.stderr);
    assert!(told.contains("`function-host` is started by the server alone"), "{told}");
}
