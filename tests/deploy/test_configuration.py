"""``deploy/farmlease.toml`` is the whole configuration: it loads, names every option, and says each one's default."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from farmlease.config.model import Config, load_config
from tests.support.samples import DEPLOY, options

SAMPLE = DEPLOY / "farmlease.toml"
TEXT = SAMPLE.read_text(encoding="utf-8")
#: A commented key, as against a sentence.
KEY = re.compile(r"^# (?=[a-z_]+ = )", re.MULTILINE)


def shown(text: str) -> dict[str, Any]:
    """Return what a file sets, as ``section.key``."""
    found = {}
    for key, value in tomllib.loads(text).items():
        if isinstance(value, dict):
            found |= {f"{key}.{inner}": each for inner, each in value.items()}
        else:
            found[key] = value
    return found


def test_the_sample_loads_as_it_is() -> None:
    """A node needs the farm's name, and everything else is the default."""
    config = load_config(SAMPLE, {})
    assert "citrix-a" == config.farm
    assert Config(farm="citrix-a", node=config.node) == config


def test_the_sample_names_every_option_and_no_other() -> None:
    """With its comment signs removed it sets each option that there is."""
    assert options().keys() == shown(KEY.sub("", TEXT)).keys()


def test_what_is_commented_out_loads_too(tmp_path: Path) -> None:
    """Each example is one that farmlease takes; TLS and Sentinels need another URL."""
    file = tmp_path / "farmlease.toml"
    file.write_text(
        KEY.sub("", TEXT).replace('url = "redis://127.0.0.1:6379/0"', 'url = "redis+sentinel://h/mymaster"')
    )
    assert ("ctx-01", "agent") == ((config := load_config(file, {})).node, config.store.username)
    assert ("tell-user", 4) == (Path(config.hooks.lost[0]).name, len(config.hooks.lost))


@pytest.mark.parametrize("option", [name for name, default in options().items() if default not in (None, {}, ())])
def test_the_default_that_is_shown_is_the_default(tmp_path: Path, option: str) -> None:
    """Setting an option to what the sample shows changes nothing."""
    section, _, key = option.partition(".")
    file = tmp_path / "farmlease.toml"
    value = re.search(rf"^\[{section}\]\n(?:(?!\[).*\n)*?(?:# )?({key} = .*)$", TEXT, re.MULTILINE)
    assert value is not None
    file.write_text(f'farm = "f"\nnode = "n"\n[{section}]\n{value[1]}\n')
    assert Config(farm="f", node="n") == load_config(file, {})
