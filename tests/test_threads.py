"""Lines that may be lost: written whole and in order, or counted, and nobody waits for that."""

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from farmlease import threads as threads_module
from farmlease.threads import Outlet
from tests.support.patience import within

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows' pipes are others")


def missing(lines: int, why: str) -> str:
    """Word what was lost."""
    return json.dumps({"lines": lines, "why": why}) + "\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe: where it is read, and where it is written."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def read_all(reader: int, outlet: Outlet) -> bytes:
    """Read until nothing waits to be written any more."""
    got = b""
    deadline = time.monotonic() + within(20)
    while time.monotonic() < deadline:
        try:
            got += os.read(reader, 1 << 20)
        except BlockingIOError:
            if outlet.trouble is None:
                outlet.finish(0.1)
                break
            outlet.retry()
            time.sleep(0.01)
    try:
        return got + os.read(reader, 1 << 20)
    except BlockingIOError:
        return got


def test_lines_arrive_as_they_are(pipe: tuple[int, int]) -> None:
    """Whatever is in them and however long they are."""
    outlet = Outlet(pipe[1], missing)
    outlet.write("one\n")
    outlet.write("x" * 9000 + "\udc80\n")
    outlet.finish()
    assert b"one\n" + b"x" * 9000 + b"\\udc80\n" == os.read(pipe[0], 20_000)
    assert outlet.trouble is None


def test_where_nobody_reads_nobody_waits(pipe: tuple[int, int]) -> None:
    """Not for the first line either; a number of them waits, and who reads then has them, and how many are missing."""
    outlet = Outlet(pipe[1], missing)
    line = "x" * 999 + "\n"
    began = time.monotonic()
    for _ in range(3000):
        outlet.write(line)
    outlet.finish(0.1)
    assert time.monotonic() - began < within(1)
    assert "nobody reads it" in (outlet.trouble or "")
    got = read_all(pipe[0], outlet)
    assert outlet.trouble is None
    outlet.write("last\n")
    outlet.finish()
    *whole, told, last = (got + os.read(pipe[0], 1 << 20)).decode().splitlines()
    assert 3000 == len(whole) + json.loads(told)["lines"]
    assert 256 < len(whole) < 512
    assert {*whole} == {line[:-1]}
    assert "last" == last


def test_a_write_that_takes_too_long_is_trouble(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost yet, but nothing is written either; when it is, all is well."""
    monkeypatch.setattr(threads_module, "HANGS_AFTER", 0.1)
    outlet = Outlet(pipe[1], missing)
    outlet.write("y" * 200_000 + "\n")
    assert outlet.trouble is None
    outlet.finish()
    assert "nobody reads it" in str(outlet.trouble)
    assert b"y" * 200_000 + b"\n" == read_all(pipe[0], outlet)
    assert outlet.trouble is None


def test_a_pipe_that_does_not_wait(pipe: tuple[int, int]) -> None:
    """Another process may have made it so: it is tried again until there is room."""
    os.set_blocking(pipe[1], False)
    outlet = Outlet(pipe[1], missing)
    outlet.write("z" * 200_000 + "\n")
    time.sleep(0.2)
    got = b""
    deadline = time.monotonic() + within(10)
    while len(got) < 200_001 and time.monotonic() < deadline:
        got += os.read(pipe[0], 1 << 20)
        time.sleep(0.1)
    assert b"z" * 200_000 + b"\n" == got


def test_a_line_that_is_cut_is_ended(tmp_path: Path) -> None:
    """What comes after a line of which the end was lost stands on a line of its own."""
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "log"
    with path.open("ab") as file:
        outlet = Outlet(file.fileno(), missing)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, hard))
        try:
            outlet.write("y" * 9000 + "\n")
            outlet.finish()
            assert "File too large" == outlet.trouble
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        outlet.write("next\n")
        outlet.finish()
    begun, told, after = path.read_text().splitlines()
    assert ("y" * 6000, "next") == (begun, after)
    assert {"lines": 1, "why": "File too large"} == json.loads(told)


def test_a_full_device_and_a_closed_one() -> None:
    """The system's reason is the trouble; trying again does not help."""
    with Path("/dev/full").open("wb") as full:
        outlet = Outlet(full.fileno(), missing)
        outlet.write("lost\n")
        outlet.finish()
        outlet.retry()
        outlet.finish()
        assert "No space left on device" == outlet.trouble
    closed = Outlet(None, missing)
    assert closed.trouble is None
    closed.write("lost\n")
    closed.retry()
    closed.finish()
    assert "it is closed" == closed.trouble


def test_a_reader_that_has_gone() -> None:
    """The write fails, and nothing is raised."""
    reader, writer = os.pipe()
    os.close(reader)
    outlet = Outlet(writer, missing)
    outlet.write("lost\n")
    outlet.finish()
    assert "Broken pipe" == outlet.trouble
    os.close(writer)


def test_where_no_thread_can_be_started(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines are lost, and as soon as one can be they are counted."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    outlet = Outlet(pipe[1], missing)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        outlet.write("lost\n")
        assert "no thread can be started for it" == outlet.trouble
    outlet.retry()
    outlet.finish()
    assert {"lines": 1, "why": "no thread can be started for it"} == json.loads(os.read(pipe[0], 1000))


def test_lines_of_many_threads_stay_whole(pipe: tuple[int, int]) -> None:
    """None is lost, and none stands in another."""
    outlet = Outlet(pipe[1], missing)
    threads = [
        threading.Thread(target=lambda letter=letter: [outlet.write(letter * 50 + "\n") for _ in range(100)])
        for letter in "abcdefgh"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    got = read_all(pipe[0], outlet).decode().splitlines()
    assert 800 == len(got)
    assert {letter * 50 for letter in "abcdefgh"} == {*got}
