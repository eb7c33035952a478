"""The wheel is whole: what is built is installed into an empty environment, imports there, and its command runs."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Mapping
from email import message_from_bytes
from pathlib import Path

import pytest

from farmlease import __version__

ROOT = Path(__file__).parent.parent


def run(*command: str | Path) -> str:
    """Run a command to its end, without this process's import path, and return what it prints."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environ |= {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_QUIET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ, cwd="/")
    assert 0 == done.returncode, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built with the build backend that is installed: no network is needed."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def contents(wheel: Path) -> Mapping[str, bytes]:
    """Every file of the wheel by its name."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of a new environment with the wheel; it sees this one's libraries behind its own."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=os.name != "nt")
    paths = sysconfig.get_paths("venv", vars={"base": str(folder), "platbase": str(folder)})
    commands = Path(paths["scripts"])
    run(sys.executable, "-m", "pip", "--python", commands / "python", "install", "--no-deps", wheel)
    # After that: pip would take a farmlease among those libraries for the one that it is to install.
    (Path(paths["purelib"]) / "libraries.pth").write_text(
        f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n", encoding="utf-8"
    )
    return commands


def test_every_file_of_the_package_is_in_the_wheel(contents: Mapping[str, bytes]) -> None:
    """Modules, Lua scripts and the mark of a typed package: what Git has below farmlease/ is there, byte for byte."""
    expected = {
        file.relative_to(ROOT).as_posix(): file.read_bytes()
        for file in (ROOT / "farmlease").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert expected == {name: text for name, text in contents.items() if name.startswith("farmlease/")}
    assert "farmlease/py.typed" in expected
    scripts = [name for name in expected if name.endswith(".lua")]
    assert 40 < len(scripts)


def test_nothing_but_the_package_is_in_the_wheel(contents: Mapping[str, bytes]) -> None:
    """Neither tests nor samples are installed on a host; beside the package there are the man pages."""
    parts = {kind: f"farmlease-{__version__}.{kind}" for kind in ("dist-info", "data")}
    assert {"farmlease", *parts.values()} == {name.split("/")[0] for name in contents}
    pages = {f"{parts['data']}/data/share/man/man1/{file.name}" for file in (ROOT / "deploy" / "man").iterdir()}
    assert pages == {name for name in contents if name.startswith(parts["data"])}


def test_man_finds_the_installed_pages(environment: Path) -> None:
    """``man`` looks beside the folder of a command in PATH, so that a virtual environment in it is enough."""
    assert (environment.parent / "share" / "man" / "man1" / "farmlease-lease.1").is_file()


def test_the_wheel_has_the_version_of_the_package(contents: Mapping[str, bytes]) -> None:
    """``farmlease/__init__.py`` is the one place that names the version."""
    metadata = message_from_bytes(contents[f"farmlease-{__version__}.dist-info/METADATA"])
    assert ("farmlease", __version__) == (metadata["Name"], metadata["Version"])


def test_the_installed_package_imports_every_module(environment: Path) -> None:
    """Each module of the wheel imports from where it was installed, with warnings as errors."""
    code = (
        "import importlib, pkgutil, sys, farmlease\n"
        "others = ('windows', 'posix')[sys.platform == 'win32']\n"
        "names = [m.name for m in pkgutil.walk_packages(farmlease.__path__, 'farmlease.')]\n"
        "names = [n for n in names if not n.endswith(('__main__', others))]\n"
        "for name in names: importlib.import_module(name)\n"
        "print(len(names), farmlease.__file__)\n"
    )
    count, _, file = run(environment / "python", "-W", "error", "-c", code).strip().partition(" ")
    assert 100 < int(count)
    assert environment.parent in Path(file).parents


def test_the_installed_command_runs(environment: Path) -> None:
    """The entry point ``farmlease`` is there, and says the version that was installed."""
    assert f"farmlease {__version__}\n" == run(environment / "farmlease", "--version")


def test_the_installed_package_finds_its_scripts(environment: Path) -> None:
    """A verb of the store is read with all that it shares with others, as an agent does when it starts."""
    code = "from farmlease.store.script import Script; print(Script.load('acquire').sha)"
    here = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert here == run(environment / "python", "-c", code)
