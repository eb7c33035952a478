"""Ctrl-C at every moment of a command: it is never lost, and comes no second time."""

import asyncio
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator

import pytest

from farmlease.cli.signals import InterruptibleRunner

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a process sends itself no Ctrl-C there")


@pytest.fixture
def runner() -> Iterator[InterruptibleRunner]:
    """A runner that listens to Ctrl-C."""
    with asyncio.Runner() as of_asyncio, InterruptibleRunner(of_asyncio) as interruptible:
        yield interruptible
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def interrupt() -> None:
    """Press Ctrl-C; Python handles it before the next line."""
    os.kill(os.getpid(), signal.SIGINT)


class Finalized:
    """An object in whose finalizer Ctrl-C is pressed."""


async def value() -> str:
    """Return at once."""
    return "done"


async def interrupted_while_waiting() -> None:
    """Press Ctrl-C while the loop waits for the network."""
    asyncio.get_running_loop().call_later(0.01, interrupt)
    await asyncio.sleep(60)


async def interrupted_at_the_end() -> str:
    """Press Ctrl-C with nothing left to wait for."""
    interrupt()
    return "done"


async def swallowing() -> str:
    """Go on after a cancellation, as a library may."""
    try:
        await interrupted_while_waiting()
    except asyncio.CancelledError:
        return "done"
    return "not interrupted"


def test_a_command_that_waits_is_interrupted(runner: InterruptibleRunner) -> None:
    """And so is whatever it would do next."""
    with pytest.raises(KeyboardInterrupt):
        runner.run(interrupted_while_waiting())
    with pytest.raises(KeyboardInterrupt):
        runner.run(value())


@pytest.mark.parametrize("late", [interrupted_at_the_end, swallowing])
def test_what_was_done_already_is_told(runner: InterruptibleRunner, late: object) -> None:
    """And the next is not begun."""
    assert callable(late)
    assert "done" == runner.run(late())
    with pytest.raises(KeyboardInterrupt):
        runner.run(value())


def test_between_two_coroutines(runner: InterruptibleRunner) -> None:
    """Raised at once, as Python does."""
    assert "done" == runner.run(value())
    with pytest.raises(KeyboardInterrupt):
        interrupt()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_in_a_finalizer_of_which_nobody_hears(runner: InterruptibleRunner) -> None:
    """Python prints what is raised there and goes on: the next wait ends the command all the same."""
    unfinished = Finalized()
    weakref.finalize(unfinished, lambda: None)
    reference = weakref.ref(unfinished, lambda _: interrupt())
    del unfinished
    assert reference() is None
    with pytest.raises(KeyboardInterrupt):
        runner.run(value())


def test_an_error_of_its_own_is_raised(runner: InterruptibleRunner) -> None:
    """A cancellation that is no interruption too."""

    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        runner.run(cancelled())
    assert "done" == runner.run(value())


def test_what_is_ignored_stays_ignored() -> None:
    """As of a command started in a shell's background."""
    code = (
        "import asyncio, os, signal\n"
        "from farmlease.cli.signals import InterruptibleRunner\n"
        "with asyncio.Runner() as runner, InterruptibleRunner(runner) as interruptible:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    interruptible.run(asyncio.sleep(0))\n"
        "    print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)\n"
    )
    command = ["sh", "-c", 'trap "" INT; exec "$0" -c "$1"', sys.executable, code]
    assert "True\n" == subprocess.run(command, check=True, capture_output=True, text=True).stdout
