//! The image's health check, without a container: what it asks, of which command line.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

/// A program that shows its arguments, and fails if one of them is `fail`.
const PROGRAM: &str = "#!/bin/sh\nprintf '%s|' \"$@\"\ncase $* in *fail*) exit 3 ;; esac\n";

/// Runs the check for this command line of process 1; its exit code and output.
fn check(folder: &Path, command_line: &[&str]) -> (Option<i32>, String) {
    let file = folder.join("cmdline");
    let text: String = command_line.iter().map(|argument| format!("{argument}\0")).collect();
    fs::write(&file, text).expect("a file");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/healthcheck");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").expect("a path"));
    let output = Command::new(script).arg(file).env("PATH", path).output().expect("it runs");
    (output.status.code(), String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn the_health_check_asks_the_service_of_process_1_with_its_own_flags() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["producer", "consumer", "standalone"] {
        let program = folder.path().join(name);
        fs::write(&program, PROGRAM).expect("a program");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
    }
    let check = |command_line: &[&str]| check(folder.path(), command_line);
    let healthy = |shown: &str| (Some(0), shown.to_owned());
    assert_eq!(check(&["standalone"]), healthy("healthcheck|"));
    let flags = ["consumer", "--listen", "0.0.0.0:9000", "--topic", "a b"];
    assert_eq!(check(&flags), healthy("--listen|0.0.0.0:9000|--topic|a b|healthcheck|"));
    let with_init = ["/sbin/docker-init", "--", "producer", "--listen", "[::]:80"];
    assert_eq!(check(&with_init), healthy("--listen|[::]:80|healthcheck|"));
    // Docker knows 0 and 1.
    for other in [&["consumer", "fail"][..], &["bash"], &["/sbin/docker-init", "--"], &[]] {
        assert_eq!(check(other).0, Some(1), "{other:?}");
    }
}
