"""Callers of an agent's Unix socket who are other users of this host: processes of their own, under their own uid."""

import json
import pwd
import subprocess
import sys
from typing import Any

from tests.support.agents import RunningAgent

__all__ = ["OWN_PID", "as_account", "as_uid"]

#: In a request: the pid of the process that sends it.
OWN_PID = "pid of the caller"
#: A client that becomes another user once it runs, for that user may not be able to start our Python.
_CLIENT = f"""
import http.client, json, os, socket, sys
path, method, target, body, uid = sys.argv[1:]
os.setgroups([])
os.setgid(65534)
os.setuid(int(uid))
body = body.replace('"{OWN_PID}"', str(os.getpid()))
connection = http.client.HTTPConnection("localhost", timeout=30)
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(path)
try:
    connection.request(method, target, body.encode() or None, {{"Content-Type": "application/json"}})
except (BrokenPipeError, ConnectionResetError):
    pass  # refused unheard
response = connection.getresponse()
print(json.dumps([response.status, response.read().decode()]))
"""


def as_uid(uid: int, agent: RunningAgent, method: str, path: str, document: object = None) -> tuple[int, Any]:
    """Ask as another user of this host; return status and document. Only root can."""
    body = "" if document is None else json.dumps(document)
    given = [agent.listen.removeprefix("unix:"), method, path, body, str(uid)]
    done = subprocess.run(
        [sys.executable, "-I", "-c", _CLIENT, *given], cwd="/", capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stderr
    status, text = json.loads(done.stdout)
    return status, json.loads(text) if text else None


def as_account(name: str, agent: RunningAgent, method: str, path: str, document: object = None) -> tuple[int, Any]:
    """Ask as the user of this name, who has an account on this host."""
    return as_uid(pwd.getpwnam(name).pw_uid, agent, method, path, document)
