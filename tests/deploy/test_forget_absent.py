"""``deploy/haproxy/forget-absent``: what it has a balancer forget, and what it leaves alone. A real one: tests/desktops."""

import json
import socketserver
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from typing_extensions import override

from tests.support.patience import within
from tests.support.samples import DEPLOY, replaced

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the sample runs beside PAM, on POSIX")

#: As HAProxy 2.6 prints it.
TABLE = """\
# table: rdp_hosts, type: string, size:102400, used:9
0x55d0c8a1f0a0: key=john use=0 exp=43199980 server_id=1 server_key=ctx-01
0x55d0c8a1f0b0: key=CORP\\peter use=0 exp=43199980 server_id=1 server_key=ctx-01
0x55d0c8a1f0c0: key=mary use=0 exp=43199980 server_id=1 server_key=ctx-01
0x55d0c8a1f0d0: key=corp\\mar use=0 exp=43199980 server_id=1 server_key=ctx-01
0x55d0c8a1f0d8: key=CORP\\alex use=0 exp=43199980 server_id=1 server_key=ctx-01
0x55d0c8a1f0dc: key=jo use=0 exp=43199980 server_id=1 server_key=ctx-01
0x55d0c8a1f0e0: key=ann use=1 exp=43199980 server_id=1 server_key=ctx-01
0x55d0c8a1f0f0: key=ben use=0 exp=43199980 server_id=2 server_key=ctx-02
0x55d0c8a1f100: key=cara;set server rdp_hosts/ctx-02 state maint use=0 exp=43199980 server_id=1 server_key=ctx-01

"""


@pytest.mark.parametrize(
    ("left", "cleared"),
    [
        ((), ["john", r"CORP\\peter", r"CORP\\alex", "jo"]),
        ((r"corp\john",), ["john"]),
        ((r"corp\peter",), [r"CORP\\peter"]),
        (("peter",), [r"CORP\\peter"]),
        ((r"corp\alexander",), [r"CORP\\alex"]),
        ((r"corp\mary",), []),
        ((r"corp\ann",), []),
        ((r"corp\ben",), []),
    ],
)
def test_who_has_no_session_here_is_forgotten(tmp_path: Path, left: tuple[str, ...], cleared: list[str]) -> None:
    """Mary has one, by any name she may have come by; Ann comes just now; Ben is elsewhere; no command comes from a name.

    When John leaves, his entry alone is cleared: Jo may be there without a licence. Alexander's client sends nine
    characters.
    """
    farmlease = tmp_path / "farmlease"
    present = json.dumps([{"user": "corp\\mary"}])
    farmlease.write_text(f"#!/bin/sh\ncat <<'END'\n{present}\nEND\n")
    farmlease.chmod(0o755)
    script = tmp_path / "forget-absent"
    sample = (DEPLOY / "haproxy" / "forget-absent").read_text(encoding="utf-8")
    script.write_text(replaced(sample, {"/opt/farmlease/bin/farmlease": str(farmlease)}), encoding="utf-8")
    heard = list[str]()

    class Balancer(socketserver.StreamRequestHandler):
        @override
        def handle(self) -> None:
            heard.append(self.rfile.readline().decode().rstrip("\n"))
            if heard[-1].startswith("show"):
                self.wfile.write(TABLE.encode())

    with socketserver.TCPServer(("127.0.0.1", 0), Balancer) as balancer:
        threading.Thread(target=balancer.serve_forever, daemon=True).start()
        where = f"127.0.0.1:{balancer.server_address[1]}"
        subprocess.run([sys.executable, script, where, "ctx-01", *left], check=True, timeout=within(30))
        balancer.shutdown()
    assert ["show table rdp_hosts", *(f"clear table rdp_hosts key {name}" for name in cleared)] == heard
