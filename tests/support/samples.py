"""What an administrator makes of the samples in ``deploy/``: passwords in, addresses and paths of this test's own."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from farmlease.config.model import Config
from farmlease.domain.toml_model import Section

__all__ = ["DEPLOY", "PASSWORDS", "ROOT", "acl_file", "options", "replaced"]

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
#: Of the users in users.acl.
PASSWORDS = {
    user: f"secret-of-{user}" for user in ("default", "agent", "admin", "viewer", "dashboard", "replica", "sentinel")
}


def replaced(text: str, values: Mapping[str, str]) -> str:
    """Put in what the administrator puts in; each placeholder must be there."""
    for placeholder, value in values.items():
        assert placeholder in text, f"the sample has no {placeholder}"
        text = text.replace(placeholder, value)
    return text


def acl_file(folder: Path) -> Path:
    """Write the sample's users with passwords, as its comments tell an administrator to."""
    lines = []
    for line in (DEPLOY / "redis" / "users.acl").read_text().splitlines():
        _, user, *_ = line.split()
        digest = hashlib.sha256(PASSWORDS[user].encode()).hexdigest()
        filled, count = re.subn(r"#0{64}", f"#{digest}", line)
        assert 1 == count, user
        lines.append(filled)
    file = folder / "users.acl"
    file.write_text("\n".join(lines) + "\n")
    return file


def options() -> dict[str, Any]:
    """Return every option as ``section.key`` with the model's own default; None: there is none to be shown.

    ``[identity]`` is none any more: it stands in the policy, and farmlease.toml may only still have it.
    """
    found: dict[str, Any] = {}
    for name, field in Config.model_fields.items():
        if name == "identity":
            continue
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            section = kind()
            for key, inner in kind.model_fields.items():
                found[f"{name}.{inner.alias or key}"] = getattr(section, key)
        else:
            found[name] = None
    return found
