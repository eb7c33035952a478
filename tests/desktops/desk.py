"""A user at his desk: a screen (Xvfb), FreeRDP on it, and a keyboard; or a terminal with ssh."""

import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from tests.desktops.host import PASSWORD
from tests.desktops.machine import Machine
from tests.support.agents import soon
from tests.support.patience import within

__all__ = ["Desk"]

_PICTURE = "import sys; from PIL import ImageGrab; ImageGrab.grab(xdisplay=sys.argv[1]).save(sys.argv[2])"
_OPTIONS = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "PubkeyAuthentication=no", "LogLevel=ERROR")


@dataclass(slots=True)
class Desk:
    """One user's desk; its screen is his own."""

    user: str
    office: Machine
    number: int
    seen: subprocess.Popen[bytes] | None = field(default=None)
    screen: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def display(self) -> str:
        """His screen's number."""
        return f":{self.number}"

    def log_on(self, address: str) -> None:
        """Call up a desktop, as by a click on its icon. Does not wait for it."""
        assert self.seen is None or self.seen.poll() is not None, f"{self.user} looks at a desktop already"
        if self.screen is None:
            self.screen = self.office.start(
                f"{self.user}.screen", "Xvfb", self.display, "-screen", "0", "800x600x24", "-nolisten", "tcp"
            )
            socket = self.office.inside(f"/tmp/.X11-unix/X{self.number}")  # noqa: S108 - where X has it
            soon(socket.exists, f"{self.user} has no screen")
        self.seen = self.office.start(
            f"{self.user}.xfreerdp", "env", f"DISPLAY={self.display}", "HOME=/run", "xfreerdp", f"/v:{address}",
            f"/u:{self.user}", f"/p:{PASSWORD}", "/cert:ignore", "/size:800x600", "-decorations",
        )  # fmt: skip

    def type(self, line: str) -> None:
        """Type a line into the window in the corner of the desktop."""
        tool = ("env", f"DISPLAY={self.display}", "xdotool")
        self.office.run(*tool, "mousemove", "150", "150", "sleep", "0.2", "type", "--delay", "15", line)
        self.office.run(*tool, "key", "Return")

    def hang_up(self) -> None:
        """Close FreeRDP's window without logging off: the desktop stays where it is."""
        assert self.seen is not None
        self.seen.kill()
        self.seen.wait(within(10))

    def wait_closed(self) -> None:
        """Wait until the host has closed the desktop."""
        assert self.seen is not None
        self.seen.wait(within(20))

    def picture(self, file: Path) -> Path:
        """Take a picture of his screen."""
        taken = self.office.logs / f"{self.user}.png"
        self.office.run(sys.executable, "-c", _PICTURE, self.display, taken)
        shutil.copyfile(taken, file)
        return file

    def read_and_close(self, file: Path) -> None:
        """Wait until there is a window on the black screen, take a picture of it, and press the button in its corner."""

        def box() -> tuple[int, int, int, int] | None:
            with Image.open(self.picture(file)) as taken:
                return taken.convert("L").getbbox()

        soon(box, f"{self.user} sees nothing", 20)
        found = box()
        assert found is not None
        left, _, _, bottom = found
        place = (str(left + 30), str(bottom - 13))
        self.office.run("env", f"DISPLAY={self.display}", "xdotool", "mousemove", *place, "sleep", "0.2", "click", "1")
        self.wait_closed()

    def ssh(self, address: str, command: str) -> subprocess.CompletedProcess[str]:
        """Log on from a terminal with his password, run a command, and log off."""
        answer = Path(f"/run/password-of-{self.user}")
        self.office.write(str(answer), f"#!/bin/sh\necho {PASSWORD}\n", 0o755)
        options = [word for option in _OPTIONS for word in ("-o", option)]
        return self.office.run(
            "env", "HOME=/run", f"SSH_ASKPASS={answer}", "SSH_ASKPASS_REQUIRE=force",
            "ssh", *options, "-l", self.user, address, command, check=False,
        )  # fmt: skip
