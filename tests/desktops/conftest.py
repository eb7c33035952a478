"""A farm of session hosts with real desktops, for one story that is told from its beginning to its end."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.desktops.farm import Farm, farm_of_desktops
from tests.support.servers import missing, require

PROGRAMS = (
    "/usr/sbin/xrdp", "/usr/sbin/xrdp-sesman", "/usr/lib/xorg/modules/drivers/xrdpdev_drv.so", "/usr/lib/xorg/Xorg", "xfreerdp",
    "Xvfb", "xdotool", "xterm", "xmessage", "/usr/sbin/sshd", "ssh", "redis-server", "haproxy", "newusers",
)  # fmt: skip


@pytest.hookimpl(tryfirst=True, hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Stop where the story breaks off: what comes after it cannot be told."""
    report = (yield).get_result()
    if report.failed:
        item.session.shouldfail = f"the story broke off in {item.name}"


@pytest.fixture(scope="session")
def root() -> None:
    """Whether machines can be made here; if not, say why."""
    if sys.platform != "linux":
        pytest.skip("namespaces are Linux's")
    for program in ("unshare", "nsenter", "setpriv", "ip", "hostname", "pgrep"):
        require(program)
    if os.geteuid() != 0:
        missing("root, who may make machines of namespaces,")
    tried = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "true"], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        missing(f"the right to make namespaces ({tried.stderr.strip()})")


@pytest.fixture(scope="session")
def farm(root: None) -> Iterator[Farm]:
    """The farm, for the whole story."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        pytest.fail("the story is told in order, by one process: pytest -n 0 tests/desktops")
    for program in PROGRAMS:
        require(program)
    folder = Path(tempfile.mkdtemp(prefix="fl-desktops-"))
    folder.chmod(0o755)
    try:
        with farm_of_desktops(folder) as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)
