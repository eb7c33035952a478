"""A Containerfile read: its instructions, and what a linter of its kind objects to."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Instruction", "instructions", "objections"]


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its word and the rest, lines that go on joined."""

    word: str
    rest: str

    @property
    def words(self) -> list[str]:
        """The rest, word by word; of the form as JSON its elements."""
        _, bracket, listed = self.rest.partition("[")
        return list(json.loads(bracket + listed)) if bracket else self.rest.split()


def instructions(text: str) -> list[Instruction]:
    """Return the instructions of a Containerfile."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines()]


def objections(found: Sequence[Instruction], context: Path) -> Iterator[str]:
    """Yield what is wrong with a Containerfile, by the number that hadolint gives it where it has one."""
    stages = [re.search(r" AS (\w+)$", each.rest) for each in found if each.word == "FROM"]
    names = {each[1] for each in stages if each}
    last = found[max(number for number, each in enumerate(found) if each.word == "FROM") :]
    users = [each.rest for each in last if each.word == "USER"]
    if not users or users[-1].partition(":")[0] in {"root", "0"}:
        yield "DL3002 the last user is root"
    if users and not all(part.isdigit() for part in users[-1].split(":")):
        yield "the last user is no number, which an orchestrator cannot tell from root"
    for word in ("CMD", "HEALTHCHECK", "ENTRYPOINT"):
        if sum(each.word == word for each in last) > 1:
            yield f"DL4003 more than one {word}"
    if not any(each.word == "HEALTHCHECK" for each in last):
        yield "DL3057 no HEALTHCHECK"
    for each in found:
        yield from _objections(each, names, context)


def _objections(each: Instruction, stages: set[str], context: Path) -> Iterator[str]:
    """Yield what is wrong with one instruction."""
    match each.word:
        case "FROM" if not re.search(r":[\w.-]*\d", each.rest) or ":latest" in each.rest:
            yield "DL3006 an image without a version"
        case "ADD":
            yield "DL3020 ADD in place of COPY"
        case "WORKDIR" if not each.rest.startswith("/"):
            yield "DL3000 WORKDIR is relative"
        case "MAINTAINER":
            yield "DL4000 MAINTAINER is gone"
        case "CMD" | "ENTRYPOINT" | "HEALTHCHECK" if "[" not in each.rest:
            yield f"DL3025 {each.word} not as JSON: signals would go to a shell"
        case "ENV" | "ARG" if re.search(r"PASSWORD|SECRET|TOKEN|KEY", each.rest):
            yield "a secret in the image's history"
        case "COPY":
            yield from _copied(each, stages, context)
        case "RUN":
            yield from _run(each.rest)
        case _:
            pass


def _copied(each: Instruction, stages: set[str], context: Path) -> Iterator[str]:
    """Yield what is wrong with a COPY."""
    if found := re.match(r"--from=(\S+)", each.rest):
        if found[1] not in stages:
            yield f"DL3022 no stage {found[1]}"
        return
    *sources, target = each.words
    if len(sources) > 1 and not target.endswith("/"):
        yield "DL3021 several files to what is no folder"
    for source in sources:
        if source == "." or not (context / source).exists():
            yield f"copies all there is, or what is not there: {source}"


def _run(line: str) -> Iterator[str]:
    """Yield what is wrong with a RUN."""
    if "sudo" in line:
        yield "DL3004 sudo"
    if re.search(r"\bcd ", line):
        yield "DL3003 cd in place of WORKDIR"
    if "pip install" in line.replace("pip --python /opt/farmlease/bin/python", "pip") and "--no-cache-dir" not in line:
        yield "DL3042 pip keeps a cache"
    if re.search(r"apt(-get)? install", line) and (
        "--no-install-recommends" not in line or "rm -rf /var/lib/apt" not in line
    ):
        yield "DL3009 apt leaves its lists, or brings what nobody asked for"
    if "|" in line.replace("||", "") and "pipefail" not in line:
        yield "DL4006 a pipe whose first part may fail unseen"
    if re.search(r"\b(curl|wget)\b|chmod (-R )?777", line):
        yield "downloads what no digest checks, or opens files to everybody"
