"""``deploy/haproxy/forget-absent``: what it has a balancer forget, and what it leaves alone. A real one: tests/desktops."""

import json
import socketserver
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.samples import DEPLOY, replaced

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the sample runs beside PAM, on POSIX")

#: As HAProxy 2.6 prints it.
TABLE = """\
# table: rdp_hosts, type: string, size:102400, used:7
0x55d0c8a1f0a0: key=john use=0 exp=43199980 server_id=1 server_key=ctx-01
0x55d0c8a1f0b0: key=CORP\\peter use=0 exp=43199980 server_id=1 server_key=ctx-01
0x55d0c8a1f0c0: key=mary use=0 exp=43199980 server_id=1 server_key=ctx-01
0x55d0c8a1f0d0: key=corp\\mar use=0 exp=43199980 server_id=1 server_key=ctx-01
0x55d0c8a1f0e0: key=ann use=1 exp=43199980 server_id=1 server_key=ctx-01
0x55d0c8a1f0f0: key=ben use=0 exp=43199980 server_id=2 server_key=ctx-02
0x55d0c8a1f100: key=cara;set server rdp_hosts/ctx-02 state maint use=0 exp=43199980 server_id=1 server_key=ctx-01

"""


def test_who_has_no_session_here_is_forgotten(tmp_path: Path) -> None:
    """Mary has one, by any name she may have come by; Ann comes just now; Ben is elsewhere; no command comes from a name."""
    farmlease = tmp_path / "farmlease"
    present = json.dumps([{"user": "corp\\mary"}])
    farmlease.write_text(f"#!/bin/sh\ncat <<'END'\n{present}\nEND\n")
    farmlease.chmod(0o755)
    script = tmp_path / "forget-absent"
    sample = (DEPLOY / "haproxy" / "forget-absent").read_text(encoding="utf-8")
    script.write_text(replaced(sample, {"/opt/farmlease/bin/farmlease": str(farmlease)}), encoding="utf-8")
    heard = list[str]()

    class Balancer(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            heard.append(self.rfile.readline().decode().rstrip("\n"))
            if heard[-1].startswith("show"):
                self.wfile.write(TABLE.encode())

    with socketserver.TCPServer(("127.0.0.1", 0), Balancer) as balancer:
        threading.Thread(target=balancer.serve_forever, daemon=True).start()
        where = f"127.0.0.1:{balancer.server_address[1]}"
        subprocess.run([sys.executable, script, where, "ctx-01"], check=True, timeout=30)
        balancer.shutdown()
    cleared = ["clear table rdp_hosts key john", "clear table rdp_hosts key CORP\\\\peter"]
    assert ["show table rdp_hosts", *cleared] == heard
