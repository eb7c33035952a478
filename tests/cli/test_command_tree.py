"""The command's tree: found without importing it, explained with an example, ended with one line and a status."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

from farmlease import __version__
from farmlease.cli import COMMANDS, LazyCommand, config_file, farmlease, main
from farmlease.errors import Damaged, StoreUnavailable
from tests.support.stand_in import answering


def run(*args: str) -> int:
    """Run the command line in this process and return its exit status."""
    with pytest.raises(SystemExit) as ended:
        main(args)
    code = ended.value.code
    return 0 if code is None else int(code)


@pytest.fixture
def misbehave(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Add a command ``farmlease misbehave`` whose module raises what its attribute ``fault`` holds."""
    module = ModuleType("misbehaving_command")

    @click.command()
    def misbehave() -> None:
        raise module.fault

    module.misbehave = misbehave  # type: ignore[attr-defined]  # a module made on the spot
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(COMMANDS, "misbehave", LazyCommand("misbehaving_command:misbehave", "Fail."))
    return module


def leaves(command: click.Command, ctx: click.Context) -> Iterator[click.Context]:
    """Yield the context of each command below ``command`` that is no group."""
    if not isinstance(command, click.Group):
        yield ctx
        return
    for name in command.list_commands(ctx):
        below = command.get_command(ctx, name)
        assert below is not None
        yield from leaves(below, click.Context(below, info_name=name, parent=ctx))


def test_help_names_every_command_and_imports_none() -> None:
    """``farmlease --help`` is answered from the table: no command's module is imported for it."""
    code = (
        "import sys\nfrom farmlease.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    status = end.code\n"
        "print(status, [m for m in sys.modules if m.startswith('farmlease.cli.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "0 []" == done.stdout.splitlines()[-1]
    for name, lazy in COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert lazy.help.split(";")[0] in " ".join(done.stdout.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_exists(name: str) -> None:
    """Each line of the table leads to a command of that name."""
    command = farmlease.get_command(click.Context(farmlease), name)
    assert isinstance(command, click.Command)
    assert name == command.name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_by_an_example(name: str) -> None:
    """The help of each command says what it does and shows how it is typed."""
    root = click.Context(farmlease, info_name="farmlease")
    command = farmlease.get_command(root, name)
    assert command is not None
    for ctx in leaves(command, click.Context(command, info_name=name, parent=root)):
        text = ctx.command.get_help(ctx)
        assert ctx.command.get_short_help_str(), ctx.command_path
        assert f"  {ctx.command_path}" in text.partition("Example")[2], ctx.command_path


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    """``farmlease --version`` prints the package's version."""
    assert 0 == run("--version")
    assert f"farmlease {__version__}\n" == capsys.readouterr().out


def test_python_m_farmlease_is_the_same_command() -> None:
    """``python -m farmlease`` calls itself farmlease."""
    command = [sys.executable, "-m", "farmlease", "session", "start", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: farmlease session start [OPTIONS] USER\n")


@pytest.mark.parametrize(
    ("args", "told", "where"),
    [
        (["lend"], "No such command 'lend'", "farmlease"),
        (["--colour"], "No such option", "farmlease"),
        (["session", "start", "john"], "Missing option '--session'", "farmlease session start"),
        (["session", "hold", "7", "--for", "soon"], "Invalid value for '--for'", "farmlease session hold"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    args: list[str], told: str, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was typed wrongly is said in one line on stderr, with where to look."""
    assert 2 == run(*args)
    out, err = capsys.readouterr()
    assert "" == out
    assert err.startswith(f"farmlease: {told}")
    assert err.endswith(f"; see '{where} --help'\n")
    assert 1 == err.count("\n")


def test_no_command_shows_the_help_and_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """``farmlease`` alone explains itself and exits 2."""
    assert 2 == run()
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "status", "told"),
    [
        (StoreUnavailable("the store is away;\nask again"), 4, "farmlease: the store is away; ask again\n"),
        (Damaged("the journal is damaged"), 5, "farmlease: the journal is damaged\n"),
        (KeyError("seat"), 1, "farmlease: KeyError: 'seat' (farmlease --debug … shows where)\n"),
    ],
)
def test_a_failure_is_one_line_and_its_status(
    misbehave: ModuleType, fault: Exception, status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error ends the command with its own exit status and one line on stderr, without a traceback."""
    misbehave.fault = fault  # type: ignore[attr-defined]  # a module made on the spot
    assert status == run("misbehave")
    captured = capsys.readouterr()
    assert told == captured.err
    assert "" == captured.out


def test_debug_shows_the_traceback(misbehave: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """With ``--debug`` the traceback stands above the line, and the status is the same."""
    misbehave.fault = StoreUnavailable("the store is away")  # type: ignore[attr-defined]  # a module made on the spot
    assert 4 == run("--debug", "misbehave")
    told = capsys.readouterr().err
    assert told.startswith("Traceback (most recent call last):\n")
    assert told.endswith("\nfarmlease: the store is away\n")


def test_an_interrupt_ends_with_130(misbehave: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends the command as shells count it, and without a traceback."""
    misbehave.fault = KeyboardInterrupt()  # type: ignore[attr-defined]  # a module made on the spot
    assert 130 == run("misbehave")
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(("key", "status"), [(KeyboardInterrupt(), 130), (EOFError(), 1)], ids=["Ctrl-C", "Ctrl-D"])
def test_an_interrupt_at_a_question_is_one_too(
    key: BaseException, status: int, misbehave: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C instead of yes or no is no other Ctrl-C; who only says nothing more has said no."""

    def pressed(_: str) -> str:
        raise key

    monkeypatch.setattr("click.termui.visible_prompt_func", pressed)
    misbehave.misbehave = click.Command("misbehave", callback=lambda: click.confirm("Go on?"))  # type: ignore[attr-defined]  # a module made on the spot
    assert status == run("misbehave")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no /dev/full")
@pytest.mark.parametrize("words", [["--version"], ["--help"], ["health", "--help"], ["session", "list"]], ids=" ".join)
def test_an_answer_that_cannot_be_printed_is_told_in_one_line(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk under the output is no defect of the program, and is told without a traceback."""
    with answering("127.0.0.1:0", lambda _: (200, b"[]")) as port, Path("/dev/full").open("wb") as full:
        (tmp_path / "token").write_text("secret")
        monkeypatch.setenv("FARMLEASE_AGENT__LISTEN", f"127.0.0.1:{port}")
        monkeypatch.setenv("FARMLEASE_AGENT__TOKEN_FILE", str(tmp_path / "token"))
        command = [sys.executable, "-m", "farmlease", *words]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    told = "farmlease: cannot write the answer (No space left on device). Fix the output.\n"
    assert (1, told) == (done.returncode, done.stderr)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no sh")
def test_nowhere_to_print_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook that closes its output, or has none, wants the status only."""
    with answering("127.0.0.1:0", lambda _: (200, b"[]")) as port:
        (tmp_path / "token").write_text("secret")
        monkeypatch.setenv("FARMLEASE_AGENT__LISTEN", f"127.0.0.1:{port}")
        monkeypatch.setenv("FARMLEASE_AGENT__TOKEN_FILE", str(tmp_path / "token"))
        command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "farmlease", "session", "list"]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)


def test_a_closed_pipe_is_quiet() -> None:
    """A reader that has gone (``| head``) is no error worth a word."""
    command = [sys.executable, "-m", "farmlease", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert "" == process.stderr.read()


def test_a_name_the_terminal_cannot_show_is_no_failure() -> None:
    """A code page without the user's letters must not turn an answer into an error."""
    code = (
        "import click\nfrom farmlease.cli import main\n"
        "try:\n    main(['--version'])\nexcept SystemExit:\n    click.echo('ł')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env={"PYTHONIOENCODING": "cp1252"}
    )
    assert b"\\u0142" in done.stdout


def test_a_command_finds_the_file_of_config(misbehave: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """``--config FILE`` reaches every command, however deep."""

    @click.command()
    def misbehave_() -> None:
        click.echo(config_file())

    misbehave.misbehave = misbehave_  # type: ignore[attr-defined]  # a module made on the spot
    assert 0 == run("--config", "/tmp/node.toml", "misbehave")  # noqa: S108 -- a name that is not opened
    assert 0 == run("misbehave")
    assert "/tmp/node.toml\n\n" == capsys.readouterr().out  # noqa: S108 -- likewise


def test_the_shell_completes_from_the_table() -> None:
    """Completion of a command's name imports no command, and completes options too."""
    ctx = click.Context(farmlease, info_name="farmlease")
    assert ["session"] == [item.value for item in farmlease.shell_complete(ctx, "se")]
    assert ["--config"] == [item.value for item in farmlease.shell_complete(ctx, "--c")]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_groups_list_has_whole_sentences(name: str) -> None:
    """In a terminal of 80 columns none of its commands is explained by half a sentence."""
    command = farmlease.get_command(click.Context(farmlease), name)
    assert command is not None
    ctx = click.Context(command, info_name=name, terminal_width=80)
    _, _, commands = command.get_help(ctx).partition("\nCommands:")
    assert [] == [line for line in commands.splitlines() if line.endswith("...")]
