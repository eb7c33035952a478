"""Lines that may be lost: written whole, in order and without a wait, or counted."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from farmlease.node.threads import Outlet
from tests.support.patience import within

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows does not say whether a pipe takes anything")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe: where it is read, and where it is written."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_lines_arrive_as_they_are(pipe: tuple[int, int]) -> None:
    """Whatever is in them and however long they are."""
    outlet = Outlet(pipe[1])
    outlet.write("one\n")
    outlet.write("x" * 9000 + "\udc80\n")
    assert b"one\n" + b"x" * 9000 + b"\\udc80\n" == os.read(pipe[0], 20_000)
    assert outlet.trouble is None


def test_where_nobody_reads_nobody_waits(pipe: tuple[int, int]) -> None:
    """The first line waits a moment, the next ones not at all; then whole lines arrive, and how many are missing."""
    outlet = Outlet(pipe[1])
    line = "x" * 999 + "\n"
    began = time.monotonic()
    for _ in range(1000):
        outlet.write(line)
    assert time.monotonic() - began < within(2)
    assert "nobody reads it" == outlet.trouble
    got = os.read(pipe[0], 1 << 20)
    outlet.retry()
    assert outlet.trouble is None
    outlet.write("last\n")
    *whole, told, last = (got + os.read(pipe[0], 1 << 20)).decode().splitlines()
    assert 1000 == sum(each + "\n" == line for each in whole) + json.loads(told)["lines"]
    assert ("log.lost", "nobody reads it") == (json.loads(told)["event"], json.loads(told)["why"])
    assert {*whole[:-1]} == {line[:-1]}
    assert "last" == last


def test_a_line_that_is_cut_is_ended(pipe: tuple[int, int]) -> None:
    """What comes after a line of which the end was lost stands on a line of its own."""
    outlet = Outlet(pipe[1])
    outlet.write("y" * 200_000 + "\n")
    assert outlet.trouble is not None
    begun = os.read(pipe[0], 1 << 20)
    assert {*b"y"} == {*begun}
    outlet.write("next\n")
    rest = os.read(pipe[0], 1 << 20).decode().splitlines()
    assert ["", "next"] == [rest[0], rest[2]]
    assert 1 == json.loads(rest[1])["lines"]


def test_a_full_device_and_a_closed_one() -> None:
    """The system's reason is the trouble; trying again does not help."""
    with Path("/dev/full").open("wb") as full:
        outlet = Outlet(full.fileno())
        outlet.write("lost\n")
        outlet.retry()
        assert "No space left on device" == outlet.trouble
    closed = Outlet(None)
    assert closed.trouble is None
    closed.write("lost\n")
    closed.retry()
    assert "it is closed" == closed.trouble


def test_a_reader_that_has_gone() -> None:
    """The write fails, and nothing is raised."""
    reader, writer = os.pipe()
    os.close(reader)
    outlet = Outlet(writer)
    outlet.write("lost\n")
    assert "Broken pipe" == outlet.trouble
    os.close(writer)
