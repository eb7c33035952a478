"""``python -P traced.py FILE ARGUMENTS...``: the command ``farmlease``, with the calls of a session start written to FILE.

Of an agent: all that it does for its first ``POST /v1/sessions``, in tasks, callbacks and threads too, and nothing that
its loops do meanwhile. Of any other command: all that it does. For measuring only.
"""

import contextvars
import importlib
import inspect
import json
import runpy
import sys
import threading
from asyncio.events import Handle
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

__all__ = ["OUTSIDE", "Calls", "trace_command", "trace_first_start"]

#: The caller of what no function of the package called: the event loop, a new thread, the interpreter.
OUTSIDE = "(outside)"
START = ("POST", "/v1/sessions")
#: Set in all that runs for the start: tasks and callbacks inherit it from who made them.
for_the_start = contextvars.ContextVar("for_the_start", default=False)


class Calls:
    """The calls between files of the package, in order; that a coroutine goes on is a call from who awaits it."""

    def __init__(self, package: Path) -> None:
        self._package = f"{package}/"
        self.made: list[tuple[str, str]] = []  #: the caller's file and the called function's, below the package

    def note(self, frame: FrameType, event: str, _: object) -> None:
        """Note a call of one of the package's functions; for ``threading.setprofile`` and ``sys.setprofile``."""
        if event == "call" and self._has(frame.f_code):
            self.made.append((self._caller(frame.f_back), self._file(frame.f_code)))

    def note_the_starts(self, frame: FrameType, event: str, argument: object) -> None:
        """Note a call that is made for the start."""
        if for_the_start.get():
            self.note(frame, event, argument)

    def write(self, file: Path) -> None:
        """Write the calls to a file, as JSON."""
        file.write_text(json.dumps(self.made), encoding="utf-8")

    def _caller(self, frame: FrameType | None) -> str:
        """Return the file of the package from which this frame was called, through libraries or not."""
        while frame is not None and frame.f_code is not Handle._run.__code__:
            if self._has(frame.f_code):
                return self._file(frame.f_code)
            frame = frame.f_back
        return OUTSIDE

    def _has(self, code: CodeType) -> bool:
        """Whether it is a function of the package; the body of a class or a module is none."""
        return code.co_filename.startswith(self._package) and bool(code.co_flags & inspect.CO_OPTIMIZED)

    def _file(self, code: CodeType) -> str:
        return code.co_filename.removeprefix(self._package)


def trace_first_start(calls: Calls, file: Path) -> None:
    """Have the HTTP server's application traced while it handles the first start, and the calls written to ``file``."""
    import uvicorn  # noqa: PLC0415 - a command has none

    class Traced(uvicorn.Config):
        def __init__(self, app: Any, **options: Any) -> None:
            async def traced(scope: Any, receive: Any, send: Any) -> None:
                if calls.made or (scope.get("method"), scope.get("path")) != START:
                    await app(scope, receive, send)
                    return
                for_the_start.set(True)
                threading.setprofile(calls.note)
                sys.setprofile(calls.note_the_starts)
                try:
                    await app(scope, receive, send)
                finally:
                    sys.setprofile(None)
                    threading.setprofile(None)
                    calls.write(file)

            super().__init__(traced, **options)

    uvicorn.Config = Traced
    run()


def trace_command(calls: Calls, file: Path) -> None:
    """Have the whole command traced."""
    sys.setprofile(calls.note)
    try:
        run()
    finally:
        sys.setprofile(None)
        calls.write(file)


def run() -> None:
    """Run the command."""
    runpy.run_module("farmlease", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _, name, *arguments = sys.argv
    sys.argv = ["farmlease", *arguments]
    origin = str(importlib.import_module("farmlease").__file__)
    print(origin, flush=True)  # noqa: T201 - who started this asks for it
    trace = trace_first_start if "agent" in arguments else trace_command
    trace(Calls(Path(origin).parent), Path(name))
