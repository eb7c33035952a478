"""As much of systemctl as the operator's guide uses, for hosts that are folders: starts the real programs.

``python -m tests.support.service_manager ROOT enable --now UNIT``. An agent is started as its unit under ROOT says: program,
environment and credentials; and a start is over when the program itself says READY=1, as with systemd.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.support.patience import within

__all__ = ["PATIENCE", "stop_all"]

PATIENCE = 60.0  #: seconds for a program to be ready, or gone


def main(root: Path, words: list[str]) -> None:
    """Do what systemctl would."""
    match words:
        case ["daemon-reload"]:
            return
        case ["enable", "--now", *units] | ["start", *units]:
            pass
        case ["restart" | "stop", *units]:
            for unit in units:
                stop(root, unit)
        case _:
            sys.exit(f"no such use of systemctl: {words}")
    if words[0] != "stop":
        for unit in units:
            start(root, unit)


def start(root: Path, unit: str) -> None:
    """Start a program and return when it says that it is ready, or has ended if it is to be run once."""
    if unit.endswith(".timer"):
        assert "OnCalendar=" in (root / "etc/systemd/system" / unit).read_text()
        return  # it waits for the night
    command, environ = started_by(root, unit)
    folder = root / "run"
    folder.mkdir(exist_ok=True)
    if is_run_once(root, unit):
        subprocess.run(command, stdin=subprocess.DEVNULL, check=True, cwd=root, env=environ)
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard, (folder / f"{unit}.log").open("ab") as log:
        (folder / f"{unit}.notify").unlink(missing_ok=True)
        heard.bind(str(folder / f"{unit}.notify"))
        heard.settimeout(0.1)
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=root,
            env={**environ, "NOTIFY_SOCKET": str(folder / f"{unit}.notify")},
        )  # fmt: skip
        (folder / f"{unit}.pid").write_text(str(process.pid))
        deadline = time.monotonic() + within(PATIENCE)
        while process.poll() is None and time.monotonic() < deadline:
            with suppress(TimeoutError):
                if "READY=1" in heard.recv(4096).decode().splitlines():
                    return
    sys.exit(f"{unit} does not get ready:\n{(folder / f'{unit}.log').read_text()}")


def started_by(root: Path, unit: str) -> tuple[list[str], Mapping[str, str]]:
    """Return what starts a unit: Debian's way for its own, and for the agent what its unit says."""
    kept = "FARMLEASE_STORE__TIMEOUT"  # which is longer on a busy machine
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FARMLEASE_") or name == kept}
    supervised = ["--supervised", "systemd", "--daemonize", "no"]
    match unit:
        case "redis-server":
            return ["redis-server", f"{root}/etc/redis/redis.conf", *supervised], environ
        case "redis-sentinel":
            return ["redis-server", f"{root}/etc/redis/sentinel.conf", "--sentinel", *supervised], environ
        case "haproxy":
            return ["haproxy", "-Ws", "-f", f"{root}/etc/haproxy/haproxy.cfg"], environ
    text = (root / "etc/systemd/system" / f"{unit}.service").read_text()
    credentials = data(root, unit)
    for name, source in re.findall(r"^LoadCredential=([\w.-]+):(.+)$", text, re.MULTILINE):
        (credentials / name).unlink(missing_ok=True)
        (credentials / name).write_bytes(Path(source).read_bytes())
        (credentials / name).chmod(0o400)
    given = dict(re.findall(r"^Environment=(\w+)=(.+)$", text, re.MULTILINE))
    environ |= {name: value.replace("%d", str(credentials)) for name, value in given.items()}
    for kind, parent in (("State", "var/lib"), ("Runtime", "run")):
        for folder in re.findall(rf"^{kind}Directory=(.+)$", text, re.MULTILINE):
            (root / parent / folder).mkdir(parents=True, exist_ok=True)
    (command,) = re.findall(r"^ExecStart=(.+)$", text, re.MULTILINE)
    return command.split(), environ


def is_run_once(root: Path, unit: str) -> bool:
    """Whether a unit is a command that is run to its end."""
    file = root / "etc/systemd/system" / f"{unit}.service"
    return file.exists() and "Type=oneshot" in file.read_text()


def data(root: Path, unit: str) -> Path:
    """Return a folder of a unit's own."""
    folder = root / "run" / f"{unit}.data"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def stop(root: Path, unit: str, *, how: signal.Signals = signal.SIGTERM) -> None:
    """End what ``start`` has started, if anything, and return when it is gone."""
    file = root / "run" / f"{unit}.pid"
    if not file.exists():
        return
    pid = int(file.read_text())
    with suppress(ProcessLookupError):
        os.kill(pid, how)
    deadline = time.monotonic() + within(PATIENCE)
    while lives(pid):
        if time.monotonic() > deadline:
            sys.exit(f"{unit} does not end")
        time.sleep(0.02)
    file.unlink()


def lives(pid: int) -> bool:
    """Tell whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def stop_all(root: Path) -> None:
    """End whatever runs on a host, whatever became of it."""
    for file in (root / "run").glob("*.pid"):
        stop(root, file.stem, how=signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
