"""Work that goes on when nobody waits for it any more."""

import asyncio
import threading

import pytest
from structlog.testing import capture_logs

from farmlease.errors import FileRefused
from farmlease.node.concurrency import BackgroundTasks, in_thread
from tests.support.patience import within


async def test_what_was_begun_is_finished() -> None:
    """A caller that is cancelled in the middle does not stop what it began."""
    errands, go, log = BackgroundTasks(), asyncio.Event(), list[str]()

    async def work() -> None:
        await go.wait()
        log.append("done")

    caller = asyncio.create_task(errands.finish(work()))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    go.set()
    await errands.done()
    assert ["done"] == log


async def test_a_failure_at_the_moment_its_caller_leaves_is_told() -> None:
    """It is one line in the log, and no task whose error nobody ever took."""
    errands = BackgroundTasks()

    async def fails() -> None:
        raise FileRefused("the file is refused")

    caller = asyncio.create_task(errands.finish(fails()))
    await asyncio.sleep(0)  # the work begins with the next step, and fails in it
    with capture_logs() as log:
        asyncio.get_running_loop().call_soon(caller.cancel)
        await asyncio.gather(caller, return_exceptions=True)
        await asyncio.sleep(0)
    assert ["the file is refused"] == [line["why"] for line in log]


async def test_patience_ends_before_the_work() -> None:
    """Who waits no longer gets a TimeoutError; the work goes on."""
    errands, go = BackgroundTasks(), asyncio.Event()
    with pytest.raises(TimeoutError):
        await errands.finish(go.wait(), within=0.0)
    go.set()
    await errands.done()


async def test_answers_and_errors_come_back() -> None:
    """What the work returns or raises is the caller's."""

    async def answer() -> int:
        return 7

    async def refuse() -> None:
        raise FileRefused("no")

    assert 7 == await BackgroundTasks().finish(answer())
    with pytest.raises(FileRefused):
        await BackgroundTasks().finish(refuse())


async def test_one_errand_of_a_name_at_a_time() -> None:
    """A heartbeat that finds its last errand still under way does not begin it once more."""
    errands, go, log = BackgroundTasks(), asyncio.Event(), list[str]()

    async def work() -> None:
        log.append("begun")
        await go.wait()

    errands.run("lost 7", work)
    errands.run("lost 7", work)
    await asyncio.sleep(0)
    go.set()
    await errands.done()
    errands.run("lost 7", work)
    await errands.done()
    assert ["begun", "begun"] == log


@pytest.mark.parametrize("error", [ZeroDivisionError("a name"), FileRefused("the file is refused")])
async def test_a_failure_that_nobody_waits_for_is_told(error: Exception) -> None:
    """It is in the log, and ends nothing else."""
    errands = BackgroundTasks()

    async def fails() -> None:
        raise error

    with capture_logs() as log:
        errands.run("fails", fails)
        await errands.done()
    (event,) = log
    assert "task.failed" == event["event"]
    assert str(error) == event["why"] if isinstance(error, FileRefused) else error is event["exc_info"]


async def test_a_thread_of_its_own() -> None:
    """Work in a thread returns and raises as if it were here, and a hanging one is left behind by the process."""
    assert threading.current_thread() is not await in_thread(threading.current_thread)
    assert await in_thread(lambda: threading.current_thread().daemon)
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0)


async def test_many_threads_that_hang_hold_up_nobody() -> None:
    """A hundred hanging disks do not use up what others need."""
    go = threading.Event()
    hanging = [asyncio.create_task(in_thread(lambda: go.wait(within(20)))) for _ in range(100)]
    assert 7 == await in_thread(lambda: 7)
    go.set()
    assert [True] * 100 == await asyncio.gather(*hanging)


async def test_a_thread_that_nobody_waits_for() -> None:
    """Cancelled in the middle: the thread ends by itself and disturbs nobody."""
    go, ended = threading.Event(), threading.Event()

    def work() -> None:
        go.wait(within(20))
        ended.set()

    waiting = asyncio.create_task(in_thread(work))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    go.set()
    assert ended.wait(within(20))
    await asyncio.sleep(0)
