"""Nothing in ``deploy/`` names a command, option, key, variable, path or file that does not exist."""

import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
import yaml

from farmlease.domain.identity_table import IdentityTable
from farmlease.node.http.api import create_app
from tests.support.command_lines import check, command_lines
from tests.support.metric_names import known_names, named_in
from tests.support.samples import DEPLOY, options

#: But for the manual, which is made from the commands' help: test_man_pages.py judges it.
FILES = sorted(file for file in DEPLOY.rglob("*") if file.is_file() and file.parent.name != "man")
EVERY_FILE = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(DEPLOY)))
PROBES = {"livez", "readyz", "healthz"}


@EVERY_FILE
def test_every_command_exists(file: Path) -> None:
    """Each command line is one that farmlease takes, with its options and arguments."""
    for line in command_lines(file):
        try:
            check(shlex.split(line))
        except (click.ClickException, AssertionError, ValueError) as error:
            pytest.fail(f"{file.name}: farmlease {line}: {error}")


def test_commands_are_found_where_they_stand() -> None:
    """The search sees through comments, units, scripts and prose; what does not exist is a complaint."""
    assert ["agent"] == command_lines(DEPLOY / "systemd" / "farmlease-agent.service")
    assert 2 == len(command_lines(DEPLOY / "pam" / "pam-session"))
    assert 2 == len(command_lines(DEPLOY / "pools-qlikview.toml"))
    assert 4 <= len(command_lines(DEPLOY / "compose.yaml"))
    assert {"pool show", "lease list"} <= {*command_lines(DEPLOY / "prometheus" / "farmlease.rules.yml")}
    for wrong in (
        "drain ctx-01",
        "session start",
        "session begin x",
        "session start x --session 7 --pools q",
        "agent now",
    ):
        with pytest.raises((click.ClickException, AssertionError)):
            check(shlex.split(wrong))


@EVERY_FILE
def test_every_variable_sets_an_option(file: Path) -> None:
    """FARMLEASE_CONFIG, or FARMLEASE_<SECTION>__<KEY> of an option that there is."""
    known = {"FARMLEASE_CONFIG"} | {f"FARMLEASE_{name.replace('.', '__').upper()}" for name in options()}
    given = set(re.findall(r"\bFARMLEASE_[A-Z]\w*", file.read_text(encoding="utf-8")))
    assert given - {"FARMLEASE_STORE__KEY"} <= known


@EVERY_FILE
def test_every_key_of_the_configuration_exists(file: Path) -> None:
    """``[section] key`` in a sentence is an option of farmlease.toml, or a key of [identity] in pools.toml."""
    given = re.findall(r"\[([a-z]\w*)\] (?!of\b)(\w+)", file.read_text(encoding="utf-8"))
    known = {*options(), *(f"identity.{key}" for key in IdentityTable.model_fields)}
    assert [] == [f"[{section}] {key}" for section, key in given if f"{section}.{key}" not in known]


@EVERY_FILE
def test_every_file_that_is_named_is_there(file: Path) -> None:
    """Each path into this folder leads to a file."""
    folders = "|".join(re.escape(each.name) for each in DEPLOY.iterdir() if each.is_dir())
    text = file.read_text(encoding="utf-8")
    given = re.findall(rf"(?<![\w/.-])(?:deploy/)?((?:{folders})/[\w./-]*\w)", text)
    given += re.findall(r"(?<![\w./-])deploy/([\w./-]*\w)", text)
    given += re.findall(r"\]\((?!http|#)([^)#]+)", text) if file.suffix == ".md" else []
    assert [] == [each for each in given if not (DEPLOY / each).exists()]


@EVERY_FILE
def test_every_path_of_http_exists(file: Path) -> None:
    """What a balancer or hook asks for is what an agent serves."""
    node = SimpleNamespace(awake=lambda: None)  # nobody asks it
    app = create_app(node, node)
    served = {app.openapi_url} | {re.sub(r"\{\w+\}", "*", path) for path in app.openapi()["paths"]}
    text = file.read_text(encoding="utf-8")
    assert PROBES >= set(re.findall(r"(?<![\w.])/([a-z]+z)\b", text))
    assert served >= {re.sub(r"/sessions/[^/]+", "/sessions/*", each) for each in re.findall(r"/v1/[\w/{}.-]*\w", text)}


@EVERY_FILE
def test_every_metric_exists(file: Path) -> None:
    """What looks like a metric of ours is one that a node exports or a rule records."""
    assert set() == named_in(file.read_text(encoding="utf-8")) - known_names()


def test_metrics_are_found_where_they_stand() -> None:
    """The search looks at something, and what does not exist is a complaint."""
    found = {file.name: named_in(file.read_text(encoding="utf-8")) for file in FILES}
    assert {"farmlease.rules.yml", "farmlease.tests.yml", "farmlease.json"} <= {name for name in found if found[name]}
    assert not named_in("sum(farmlease_seats_total)") <= known_names()


# --- Windows ------------------------------------------------------------------------------------------------------------


def test_the_tasks_of_windows_run_commands_that_exist() -> None:
    """Nobody ran install.ps1 here, but each command of its tasks is one that farmlease takes."""
    text = (DEPLOY / "windows" / "install.ps1").read_text(encoding="utf-8")
    assert "NOT TRIED ON WINDOWS" in text
    values = dict(re.findall(r"^\$(\w+) = '(.*)'$", text, re.MULTILINE))
    tasks = re.findall(r"^Register-Task '(\w+)' (?:\(.*?\)|'.*?'|\$\w+) (?:'(.*?)'|\$(\w+)) '", text, re.MULTILINE)
    assert ["agent", "logon", "connect", "disconnect", "logoff", "activity"] == [name for name, _, _ in tasks]
    listed = re.search(r"^\$names = (.*)$", text, re.MULTILINE)
    assert listed is not None
    assert [name for name, _, _ in tasks] == re.findall(r"'(\w+)'", listed[1])
    assert "report" == tasks.pop()[2]
    for _, arguments, variable in tasks:
        check(shlex.split(arguments or values[variable]))


def test_the_task_of_activity_runs_its_script() -> None:
    """Install.ps1 copies the script that it runs, and the script's own command is one that farmlease takes."""
    installed = (DEPLOY / "windows" / "install.ps1").read_text(encoding="utf-8")
    script = (DEPLOY / "windows" / "activity.ps1").read_text(encoding="utf-8")
    assert "Join-Path $PSScriptRoot 'activity.ps1'" in installed
    assert "NOT TRIED ON WINDOWS" in script
    (typed,) = re.findall(r"& \$Program (session \w+ .*?) \*>", script)
    check(shlex.split(typed))


@pytest.mark.parametrize(
    ("script", "here_strings"),
    [("install.ps1", 1), ("import-task.ps1", 0), ("activity.ps1", 1), ("mail-status.ps1", 0)],
)
def test_the_scripts_of_windows_are_balanced(script: str, here_strings: int) -> None:
    """As much of a parser as there is here: strings end, here-strings end at a line's start, brackets pair."""
    text = (DEPLOY / "windows" / script).read_text(encoding="utf-8")
    assert "NOT TRIED ON WINDOWS" in text
    text = re.sub(r"<#.*?#>", "", text, flags=re.DOTALL)
    text, here = re.subn(r'@"\n.*?\n"@', "''", text, flags=re.DOTALL)
    assert here_strings == here
    text = re.sub(r"'[^']*'", "''", re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE))
    text = re.sub(r'"(?:`.|[^"`])*"', "''", text)
    assert '"' not in text
    for opening, closing in ("()", "{}", "[]"):
        assert text.count(opening) == text.count(closing)


# --- compose ------------------------------------------------------------------------------------------------------------


def test_the_try_out_runs_commands_that_exist() -> None:
    """Nobody ran compose.yaml here, but it is YAML, its agents are two, and its commands and options exist."""
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    assert "never run" in text
    services = yaml.safe_load(text)["services"]
    assert {"redis", "set-up", "ctx-01", "ctx-02"} == services.keys()
    assert "redis:7.2-alpine" == services["redis"]["image"]
    for name in ("ctx-01", "ctx-02"):
        assert name == services[name]["environment"]["FARMLEASE_NODE"]
        assert services["set-up"]["environment"].items() <= services[name]["environment"].items()
        for words in (services[name]["command"], services[name]["healthcheck"]["test"][1:]):
            assert "farmlease" == words[0]
            check(words[1:])
    ports = [port for name in ("ctx-01", "ctx-02") for port in services[name]["ports"]]
    assert [True, True] == [port.startswith("127.0.0.1:") and port.endswith(":8732") for port in ports]
    assert set(yaml.safe_load(text)["volumes"]) == {"keys", "redis"}
    for service in services.values():
        assert set(service.get("depends_on", {})) <= services.keys()
