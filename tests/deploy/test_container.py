"""The image: its file has no flaw that a linter knows, and its steps make an agent that runs on a read-only root."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.containerfile import Instruction, instructions, objections
from tests.support.patience import within
from tests.support.samples import DEPLOY, ROOT
from tests.support.servers import missing, require
from tests.support.wheelhouse import needed, wheels_of

FILE = DEPLOY / "Containerfile"
CONFIG = """farm = "citrix-a"
node = "ctx-01"
[store]
url = "redis://127.0.0.1:6379/0"
"""
POLICY = """[[pool]]
name = "clearquest"
kind = "floating"
capacity = 2
"""
#: As a runtime starts what has no rights: no capability, and no way to get one.
AS_USER = "setpriv --reuid 873 --regid 873 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs"


def test_a_linter_has_no_objection() -> None:
    """No root, no shell between signals and the agent, versions named, nothing copied that is not there."""
    found = instructions(FILE.read_text(encoding="utf-8"))
    assert [] == list(objections(found, ROOT))
    assert 2 == sum(each.word == "FROM" for each in found)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("USER 873:873", "USER root", "DL3002"), ("USER 873:873", "USER farmlease", "no number"),
        ("python:3.13-slim-bookworm AS", "python AS", "DL3006"), ("COPY farmlease", "ADD farmlease", "DL3020"),
        ("WORKDIR /src", "WORKDIR src", "DL3000"), ('CMD ["farmlease", "agent"]', "CMD farmlease agent", "DL3025"),
        (" --no-cache-dir", "", "DL3042"), ("--from=build", "--from=built", "DL3022"),
        ("COPY farmlease ./farmlease", "COPY . .", "copies all"), ("COPY deploy/man", "COPY deploy/men", "copies all"),
        ("ENV PATH=", "ENV TOKEN=7 PATH=", "a secret"), ("EXPOSE 8732", "RUN curl http://a | sh", "DL4006"),
        ("EXPOSE 8732", "RUN apt-get install vim", "DL3009"), ("EXPOSE 8732", 'CMD ["sh"]', "DL4003"),
        ("HEALTHCHECK", "LABEL", "DL3057"),
    ],
)  # fmt: skip
def test_the_linter_sees_what_it_is_for(before: str, after: str, says: str) -> None:
    """Each flaw, put into the file, is objected to."""
    text = FILE.read_text(encoding="utf-8")
    assert before in text
    assert says in " ".join(objections(instructions(text.replace(before, after)), ROOT))


def of(found: list[Instruction], word: str) -> Instruction:
    """Return the last instruction of this word."""
    return [each for each in found if each.word == word][-1]


def as_a_builder(found: list[Instruction]) -> Iterator[str]:
    """Yield the steps as a shell has them. All stages share one root, so that what one copies from another is there."""
    folder = "/"
    for each in found:
        match each.word:
            case "WORKDIR":
                folder = each.rest
                yield f"mkdir -p {folder}; cd {folder}"
            case "ENV":
                yield f"export {each.rest}"
            case "RUN":
                yield each.rest
            case "COPY" if each.rest.startswith("--from="):
                _, source, target = each.words
                assert source == target
            case "COPY":
                *sources, target = each.words
                yield f"mkdir -p $(dirname {target}x)"
                yield " ".join(["cp -r", *(f"/context/{source}" for source in sources), target])
            case _:
                pass


def lay_out(folder: Path) -> None:
    """Lay out what the build and the container are given: the context, wheels in place of an index, a configuration."""
    wheels, etc = folder / "wheels", folder / "etc"
    for each in (wheels, etc, folder / "context" / "deploy", folder / "root"):
        each.mkdir(parents=True)
    wheels_of(needed("farmlease", "hatchling") | {"hatchling"}, wheels)
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / "context")
    for name in ("farmlease", "deploy/man"):
        shutil.copytree(ROOT / name, folder / "context" / name, ignore=shutil.ignore_patterns("__pycache__"))
    (etc / "farmlease.toml").write_text(CONFIG)
    (etc / "pools.toml").write_text(POLICY)


@pytest.mark.skipif(sys.platform != "linux", reason="an image is of Linux")
def test_the_steps_make_an_agent_that_runs_without_rights_on_a_read_only_root(tmp_path: Path) -> None:
    """Built step by step without a builder or a network; then a seat is taken, and the agent ends at SIGTERM in order."""
    for program in ("unshare", "setpriv", "useradd", "redis-server", "ip"):
        require(program)
    if os.geteuid() != 0:
        missing("root, as whom an image is built,")
    found = instructions(FILE.read_text(encoding="utf-8"))
    build = "\n".join(as_a_builder(found))
    environment = of(found, "ENV").rest
    command, check = (" ".join(of(found, word).words) for word in ("CMD", "HEALTHCHECK"))
    assert "873:873" == of(found, "USER").rest
    lay_out(tmp_path)
    (tmp_path / "build.sh").write_text(
        f"set -eu\nexport PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels PIP_CONFIG_FILE=/dev/null PIP_QUIET=1 PIP_NO_COMPILE=1\n{build}\n"
        "farmlease key generate\nfarmlease pool apply /etc/farmlease/pools.toml\n"
        "chown -R 873:873 /etc/farmlease; chmod 755 /root /etc/farmlease\n"
    )
    (tmp_path / "run.sh").write_text(
        f"set -eu\nexport {environment}\ntouch /opt/x 2>/dev/null && exit 70\n"
        f"{command} & agent=$!\n"
        f"for _ in $(seq {int(within(100))}); do {check} && break; sleep 0.2; done\n"
        "farmlease session start john --session 7\n"
        "farmlease lease list -o csv\nid\nkill -TERM $agent; wait $agent; echo ended $?\n"
    )
    script = f"""set -eu
ip link set lo up
redis-server --save '' --dir {tmp_path} >{tmp_path}/redis.log & redis=$!
trap 'kill $redis' EXIT
work={tmp_path}/root; root=$work/root
mount -t tmpfs tmpfs $work
mkdir $work/upper $work/work $root
mount -t overlay overlay -o lowerdir=/,upperdir=$work/upper,workdir=$work/work $root
mount --bind /proc $root/proc
mount --rbind /dev $root/dev
cp -r {tmp_path}/context {tmp_path}/wheels {tmp_path}/build.sh {tmp_path}/run.sh $root/
rm -rf $root/etc/farmlease; cp -r {tmp_path}/etc $root/etc/farmlease
chroot $root sh /build.sh
stat -c '%u:%g %a' $root/var/lib/farmlease $root/run/farmlease
mount -t tmpfs -o uid=873,gid=873,mode=700 tmpfs $root/var/lib/farmlease
mount -t tmpfs -o uid=873,gid=873,mode=755 tmpfs $root/run/farmlease
mount -o remount,ro $root
chroot $root {AS_USER} sh /run.sh
"""
    done = subprocess.run(
        ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", script],
        capture_output=True, text=True, check=False, timeout=within(300),
        env={"PATH": f"{sys.base_prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
    )  # fmt: skip
    assert 0 == done.returncode, done.stdout + done.stderr
    assert re.search(r"^873:873 700\n873:873 755$", done.stdout, re.MULTILINE), done.stdout
    assert "uid=873" in done.stdout
    assert '"clearquest","floating","active"' in done.stdout, done.stdout
    assert done.stdout.rstrip().endswith("ended 0"), done.stdout
