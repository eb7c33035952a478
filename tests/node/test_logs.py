"""The agent's log: JSON lines, and silent about names."""

import json
import subprocess
import sys
import textwrap
from typing import Any

import pytest

CANARY = "canary-corp\\\\john"


def lines(program: str) -> list[dict[str, Any]]:
    """Run a program that logs, and return what it wrote to standard error, each line as JSON."""
    start = (
        "import asyncio, logging, warnings, structlog\nfrom farmlease.node.logs import *\nlog = write_json_lines()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", start + textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    assert "" == done.stdout
    assert "canary" not in done.stderr
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_an_event_is_one_line_of_json() -> None:
    """Each line has its time in UTC, its level, its event and its facts."""
    (line,) = lines("structlog.get_logger().info('session.granted', session='7', fence=1)")
    assert line.pop("timestamp").endswith("Z")
    assert {"event": "session.granted", "level": "info", "session": "7", "fence": 1} == line


def test_debug_is_not_told() -> None:
    """What may hold names is below the default level."""
    assert [] == lines("structlog.get_logger().debug('canary')\nlogging.getLogger('x').info('canary')")


def test_libraries_log_the_same_way() -> None:
    """A library's warning is a line like ours, and so are Python's own warnings."""
    first, second = lines("logging.getLogger('uvicorn.error').warning('Invalid %s', 'request')\nwarnings.warn('old')")
    assert ("Invalid request", "warning") == (first["event"], first["level"])
    assert "warning" == second["level"]


def test_of_an_exception_only_type_and_place() -> None:
    """A library's exception may quote a user's name: its text is not told, nor are those of its causes."""
    program = f"""
    def fails():
        try:
            int({CANARY!r})
        except ValueError as error:
            raise KeyError({CANARY!r}) from error
    try:
        fails()
    except KeyError:
        structlog.get_logger().error('fault', exc_info=True)
        logging.getLogger('uvicorn.error').error('fault', exc_info=True)
    """
    for line in lines(program):
        assert ("fault", "KeyError from ValueError") == (line["event"], line["exception"]["type"])
        assert any(place.endswith("fails") for place in line["exception"]["at"])


def test_a_fault_of_the_event_loop_is_told_without_its_text() -> None:
    """asyncio's own message quotes the exception; ours says type and place."""
    program = f"""
    async def main():
        log_loop_faults(log)
        asyncio.get_running_loop().call_soon(lambda: int({CANARY!r}))
        await asyncio.sleep(0.01)
    asyncio.run(main())
    """
    (line,) = lines(program)
    assert ("loop.fault", "ValueError") == (line["event"], line["exception"]["type"])


def test_faults_that_are_alike_are_counted() -> None:
    """The first at once; those of its minute in one line when it is over; and nothing if there were none."""
    program = """
    from farmlease.node import logs
    for number in range(3):
        log.fault('listener.full', uid=number)
        log.fault('other')
    log.tend()
    logs.MINUTE = 0
    log.tend()
    log.tend()
    log.fault('other')
    """
    told = [(line["event"], line["times"], line.get("uid")) for line in lines(program)]
    first, then = [("listener.full", 1, 0), ("other", 1, None)], [("listener.full", 2, 2), ("other", 2, None)]
    assert [*first, *then, ("other", 1, None)] == told


def test_libraries_that_repeat_themselves_are_counted() -> None:
    """By their text as they wrote it, whatever they fill in."""
    program = """
    from farmlease.node import logs
    for number in range(5):
        logging.getLogger('a').warning('busy %d', number)
    logging.getLogger('b').warning('busy %d', 7)
    logs.MINUTE = 0
    log.tend()
    """
    told = [(line["event"], line.get("times", 1)) for line in lines(program)]
    assert [("busy 0", 1), ("busy 7", 1), ("busy 4", 4)] == told


def test_a_loop_that_fails_again_and_again_is_a_line_a_minute() -> None:
    """With the number of its faults."""
    program = """
    from farmlease.node import logs
    async def main():
        log_loop_faults(log)
        for _ in range(50):
            asyncio.get_running_loop().call_soon(lambda: int('x'))
        await asyncio.sleep(0.05)
        logs.MINUTE = 0
        log.tend()
    asyncio.run(main())
    """
    assert [("loop.fault", 1), ("loop.fault", 49)] == [(line["event"], line["times"]) for line in lines(program)]


def test_kinds_of_faults_are_bounded() -> None:
    """A library that puts something new into each of its texts fills no memory."""
    program = """
    from farmlease.node import logs
    for number in range(1000):
        log.fault(f'kind-{number}')
    logs.MINUTE = 0
    log.tend()
    """
    told = lines(program)
    assert len(told) < 300
    assert 1000 == sum(line["times"] for line in told)


@pytest.mark.parametrize("logs", ["log.fault({!r})", "logging.getLogger({!r}).warning({!r})"])
def test_a_finalizer_that_logs_in_the_midst_of_a_line_holds_up_no_thread(logs: str) -> None:
    """A collection may fall into any line, also where another thread logs at that moment."""
    program = f"""
    import threading, time
    inside = threading.Event()
    class Line(bytes):
        def __len__(self):  # where the outlet adds it up
            if not inside.is_set():
                inside.set()
                time.sleep(0.3)
                {logs.format("finalizer", "finalizer")}
            return 2
    def other():
        inside.wait()
        {logs.format("other", "other")}
    threads = [threading.Thread(target=each, daemon=True) for each in (lambda: log.outlet.send(Line(b"{{}}\\n")), other)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(10)
    assert not any(each.is_alive() for each in threads)
    """
    assert ["finalizer", "other"] == sorted(line["event"] for line in lines(program) if line)


def test_a_finalizer_that_logs_in_the_midst_of_its_own_threads_line_does_not_wait_for_itself() -> None:
    """Its line is one of its own."""
    program = """
    import threading
    from farmlease.threads import Outlet
    real, collected = Outlet.send, []
    def send(outlet, line):
        if not collected:
            collected.append(line)
            structlog.get_logger().info('finalizer')
        real(outlet, line)
    Outlet.send = send
    thread = threading.Thread(target=lambda: structlog.get_logger().info('line'), daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    """
    assert ["finalizer", "line"] == [line["event"] for line in lines(program)]
