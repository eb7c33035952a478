"""Every link of every Markdown file leads somewhere: to a file of the project, and to a heading that is in it."""

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parent.parent
#: Folders that tools make; what lies there is not ours.
MADE = {"build", "dist", "node_modules"}


def is_ours(file: Path) -> bool:
    """Whether a file is the project's: not in a tool's folder, hidden or not."""
    folders = file.relative_to(ROOT).parts[:-1]
    return not any(name in MADE or (name.startswith(".") and name != ".github") for name in folders)


PAGES = sorted(file for file in ROOT.rglob("*.md") if is_ours(file))
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


@cache
def prose(page: Path) -> str:
    """Return a page without its blocks of code and its comments."""
    text = re.sub(r"^( *)(```+|~~~+).*?^\1\2 *$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


@cache
def links(page: Path) -> list[str]:
    """Return where a page's links lead to: of links, pictures, and references defined at a line's start."""
    text = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "`code`", prose(page), flags=re.DOTALL)
    inline = re.findall(r"\[[^\]]*\]\(\s*<?([^)\s>]*)", text)
    return inline + re.findall(r"^ {0,3}\[[^\]]+\]:\s*<?([^\s>]+)", text, re.MULTILINE)


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives to a heading: words in lower case, hyphens for blanks, nothing else."""
    shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
    return re.sub(r"[^\w\- ]", "", shown.strip().lower()).replace(" ", "-")


@cache
def anchors(page: Path) -> set[str]:
    """Return what a link to a page may name; a heading that comes again gets a number."""
    found = set[str]()
    for heading in re.findall(r"^#{1,6} +(.+?)(?: +#+)?$", prose(page), re.MULTILINE):
        name, times = slug(heading), 0
        while name in found:
            times += 1
            name = f"{slug(heading)}-{times}"
        found.add(name)
    return found | set(re.findall(r"""<a (?:id|name)=["']([^"']+)["']""", prose(page)))


def fault(page: Path, link: str) -> str | None:
    """Return what is wrong with a link of a page; None if it leads somewhere, or out of the project."""
    to = urlsplit(link)
    if to.scheme or to.netloc:
        return None if to.scheme in {"https", "http", "mailto"} else "is no address"
    target = (page.parent / unquote(to.path)).resolve() if to.path else page
    if to.path.startswith("/") or not target.is_relative_to(ROOT) or not target.exists():
        return "leads to no file of the project"
    if to.fragment and (target.suffix != ".md" or unquote(to.fragment) not in anchors(target)):
        return f"leads to no heading of {target.name}"
    return None


@EACH_PAGE
def test_every_link_leads_somewhere(page: Path) -> None:
    """Each relative link is a file of the project, each anchor a heading in it."""
    assert [] == [f"{link} {wrong}" for link in links(page) if (wrong := fault(page, link))]


def test_every_page_is_found_from_the_readme() -> None:
    """A stranger who follows links from the README comes to every page; ``.github`` has pages that GitHub shows itself."""
    reached, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        paths = [urlsplit(link).path for link in links(page) if not urlsplit(link).scheme]
        waiting += [(page.parent / unquote(path)).resolve() for path in paths if path]
    assert [] == [
        page.relative_to(ROOT).as_posix() for page in PAGES if page not in reached and ".github" not in page.parts
    ]


def test_links_are_found_where_they_stand(tmp_path: Path) -> None:
    """The search sees links in text and tables and none in code; what leads nowhere is a complaint."""
    page = tmp_path / "page.md"
    page.write_text(
        "# One `two`, and *three*!\n\n## Again\n## Again\n| [a](b.md#c) | `[no](no.md)` |\n```sh\n# no\n[no](no.md)\n```\n"
        "see [long\ntext](<d.md>)\n\n[ref]: e.md\n"
    )
    assert ["b.md#c", "d.md", "e.md"] == links(page)
    assert {"one-two-and-three", "again", "again-1"} == anchors(page)
    readme = ROOT / "README.md"
    assert None is fault(readme, "deploy/README.md#day-two")
    assert None is fault(readme, "https://example.com/x#y")
    for wrong in (
        "deploy/NOTHING.md",
        "#nothing",
        "deploy/README.md#nothing",
        "LICENSE#x",
        "/README.md",
        "../x",
        "ftp:x",
    ):
        assert None is not fault(readme, wrong), wrong


@pytest.mark.parametrize("page", [ROOT / "tests" / "README.md"], ids=["tests"])
def test_every_test_file_that_is_named_is_there(page: Path) -> None:
    """Whoever looks up a rule finds its test; a name without folder is one somewhere below ``tests``."""
    named = set(re.findall(r"(?<![\w*/])(?:tests/[\w/]*)?test_\w+\.py", page.read_text(encoding="utf-8")))
    here = {file.relative_to(ROOT).as_posix() for file in (ROOT / "tests").rglob("test_*.py")}
    assert len(named) > 40
    assert [] == sorted(name for name in named if not any(each == name or each.endswith(f"/{name}") for each in here))


def test_every_rule_is_tested_in_the_rooms_of_its_row() -> None:
    """Each file of the map from rule to test lies in a room of its row, and each room of a row has one of its files."""
    tests = ROOT / "tests"
    (table,) = re.findall(
        r"^\| rule \| test file \| room \|\n\|[-|]+\|\n((?:\|.*\n)+)",
        (tests / "README.md").read_text("utf-8"),
        re.MULTILINE,
    )
    wrong = list[str]()
    for row in table.splitlines():
        _, files, cell = row.removeprefix("| ").removesuffix(" |").split(" | ")
        rooms = [tests / ("" if each == "top" else each.strip("` ")) for each in cell.split(", ")]
        names = re.findall(r"`(test_\w+\.py)`", files)
        wrong += [name for name in names if not any((room / name).exists() for room in rooms)]
        wrong += [f"{room}: {row}" for room in rooms if not any((room / name).exists() for name in names)]
    assert len(table.splitlines()) > 30
    assert [] == wrong


HOUSE = ROOT / "farmlease"


def test_every_room_and_module_on_the_map_is_there() -> None:
    """The map of the house names no module, script or room that does not exist."""
    named = set(
        re.findall(r"`((?:\w+/)+(?:\w+\.(?:py|lua))?|\w+\.py)`", (HOUSE / "README.md").read_text(encoding="utf-8"))
    )
    assert len(named) > 40
    assert [] == sorted(name for name in named if not (HOUSE / name).exists() and not (ROOT / name).exists())


def test_every_class_and_method_on_the_map_is_there() -> None:
    """The map names no class that is not defined, and none of its methods or fields that its file does not name."""
    sources = [file.read_text(encoding="utf-8") for file in HOUSE.rglob("*.py")]
    named = re.findall(r"`(_?[A-Z][a-z]\w+)(?:\.(\w+))?`", (HOUSE / "README.md").read_text(encoding="utf-8"))
    defined = {name: [text for text in sources if f"\nclass {name}" in text] for name, _ in named}
    assert len(defined) > 15
    assert [] == sorted(
        f"{name}.{member}"
        for name, member in named
        if not any(re.search(rf"\b{member}\b", text) for text in defined[name])
    )


def test_every_room_is_on_the_map() -> None:
    """A room that nobody drew is not found; the commands' folders are one for each noun, and named as one."""
    drawn = set(re.findall(r"`((?:\w+/)+)`", (HOUSE / "README.md").read_text(encoding="utf-8")))
    rooms = {
        file.parent.relative_to(HOUSE).as_posix() + "/" for file in HOUSE.rglob("*") if file.suffix in {".py", ".lua"}
    }
    assert [] == sorted(room for room in rooms - {"./"} if room not in drawn and not room.startswith("cli/"))
