"""What ADMIN.md and RELEASE.md say of wheels works as written, and where there is no index it needs none."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from farmlease import __version__
from tests.support.patience import within
from tests.support.samples import DEPLOY, ROOT, replaced
from tests.support.servers import require
from tests.support.wheelhouse import needed, wheels_of

BLOCK = re.compile(r"^ *```sh\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
#: What builds farmlease.
TOOLS = ("hatchling",)

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the commands are for Linux"),
    pytest.mark.timeout(1200),
]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an index would give: the wheels of what is installed here, and of what builds farmlease."""
    folder = tmp_path_factory.mktemp("index")
    wheels_of(needed("farmlease", *TOOLS) | set(TOOLS), folder)
    return folder


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what Git has of the project, as this tree has it now."""
    require("git")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (tmp_path / "project" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "project" / name)
    return tmp_path / "project"


def run(script: str, folder: Path, *, alone: bool = False, **environ: str) -> str:
    """Run commands as they stand, each of which must succeed; ``alone``: where there is no network at all."""
    programs = folder.parent / "programs"
    programs.mkdir(exist_ok=True)
    for name in ("python", "python3"):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (programs / name).chmod(0o755)
    system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    usual = {
        "PATH": f"{programs}:{system}", "HOME": str(folder.parent), "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_CACHE_DIR": "1",
        "PIP_NO_COMPILE": "1",
        "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.com",
        "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.com",
    }  # fmt: skip
    shut = ["unshare", "--user", "--map-root-user", "--net"] if alone else []
    done = subprocess.run(
        [*shut, "bash", "-euxo", "pipefail", "-c", script], cwd=folder, env={**usual, **environ},
        capture_output=True, text=True, check=False, timeout=within(300),
    )  # fmt: skip
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def blocks(page: str, heading: str) -> list[str]:
    """Return the commands of a section, block by block."""
    (section,) = re.findall(rf"^#+ {heading}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    return BLOCK.findall(section)


def test_farmlease_is_installed_where_no_index_is(copy: Path, wheels: Path, tmp_path: Path) -> None:
    """The wheelhouse holds all that a host needs: without network and index the command is installed from it, and runs."""
    gathered, installed = blocks((DEPLOY / "ADMIN.md").read_text(encoding="utf-8"), "Installing without an index")
    run(gathered, copy, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(wheels))
    host = tmp_path / "host"
    host.mkdir()
    shutil.move(copy / "wheelhouse", host)
    script = installed.replace("/opt/farmlease", str(tmp_path / "opt"))
    assert run(script, host, alone=True).endswith(f"farmlease {__version__}\n")


def test_a_release_ends_with_a_tag_and_a_checked_wheel(copy: Path, wheels: Path, tmp_path: Path) -> None:
    """Each step as written, one after the other; the tag is pushed and names the digest of the wheel that was checked."""
    page = (DEPLOY / "RELEASE.md").read_text(encoding="utf-8")
    log = copy / "deploy" / "CHANGELOG.md"
    newest = re.findall(r"^## (\S+),", log.read_text(encoding="utf-8"), re.MULTILINE)[0]
    (written,) = re.findall(r"version=(\S+)$", page, re.MULTILINE)
    if f"## {written}, unreleased" not in log.read_text(encoding="utf-8"):  # the page's example was released
        log.write_text(
            replaced(log.read_text(encoding="utf-8"), {f"## {newest},": f"## {written}, unreleased\n\n## {newest},"})
        )
    (copy / ".ci" / "run").write_text("#!/bin/sh\n")  # which runs this test
    run(
        f"git init -q -b main .; git add -A; git commit -qm begin; git init -q --bare {tmp_path}/origin\n"
        f"git remote add origin {tmp_path}/origin; cp -r {wheels} wheelhouse; echo wheelhouse >> .git/info/exclude", copy,
    )  # fmt: skip
    steps = BLOCK.findall(page)
    assert 5 == len(steps)
    run("\n".join(steps), copy, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(wheels))
    tagged = run(f"git for-each-ref --format='%(contents)' refs/tags/v{written}", tmp_path / "origin")
    sums = (copy / "dist" / "SHA256SUMS").read_text(encoding="utf-8")
    assert f"farmlease-{written}-py3-none-any.whl\n" == sums.partition("  ")[2]
    assert sums in tagged
    assert "" == run("git status --porcelain", copy)
