"""What the documentation shows is what the program does, and what it names is there."""

import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.cli import VERBS
from gateway.config.load import load_text
from gateway.config.source import parse
from gateway.telemetry import names
from gateway.telemetry.cells import Metric

ROOT = Path(__file__).resolve().parent.parent
GO_README = "backends/go_infer/README.md"
#: Every page that a reader is led to. ADRs and the changelog tell of what was.
PAGES = (
    "README.md", "ARCHITECTURE.md", "THREAT_MODEL.md", "loadtests/README.md", GO_README,
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
)  # fmt: skip
LINKED = (*PAGES, "CHANGELOG.md", *(f"docs/adr/{path.name}" for path in sorted((ROOT / "docs/adr").glob("*.md"))))
ROUTE = {"name": "r", "match": {"path": "/"}}


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose(page: str) -> str:
    """Without fenced blocks."""
    return re.sub(r"^ *```.*?^ *```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def go_sources(under: str) -> str:
    files = sorted((ROOT / "backends/go_infer" / under).rglob("*.go"))
    return "".join(path.read_text(encoding="utf-8") for path in files if not path.name.endswith("_test.go"))


def go_flags() -> set[str]:
    """As the sources register them: `f.IntVar(&g.port, "port", ...)`, `f.Var(value, "name", ...)`, `f.Func("name", ...)`."""
    return set(re.findall(r'\bf\.\w+\((?:&?[\w.]+(?:\([^)]*\))?, )?"([a-z0-9_]+)", ', go_sources("cmd/go_infer")))


def go_metrics() -> set[str]:
    return set(re.findall(r'"(go_infer_[a-z_]+)"', go_sources("")))


@pytest.mark.parametrize("script", ["config_docs.py", "metrics_docs.py"])
def test_a_page_that_is_made_from_the_sources_is_in_step(script: str) -> None:
    check = subprocess.run(
        [sys.executable, f"scripts/{script}", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stderr


def test_make_help_lists_every_target_with_a_word_about_it() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    phony = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY:"))
    for target in phony.removeprefix(".PHONY:").split():
        assert f"make {target}" in listed, f"make {target} has no '## what it does'"


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", each.strip().lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", LINKED)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", LINKED)
def test_decisions_are_named_by_their_number(page: str) -> None:
    text = text_of(page)
    for number, link in re.findall(r"\[(?:ADR )?(\d+)\]\(([^)]*/\d{4}-[^)]*)\)", text):
        assert re.search(rf"/{int(number):04}-", f"/{link}"), f"{number}: {link}"
    for number in re.findall(r"\bADR (\d+)", text):
        assert list((ROOT / "docs/adr").glob(f"{int(number):04}-*.md")), f"ADR {number}"


@pytest.mark.parametrize("page", PAGES)
def test_metrics_that_are_named_exist(page: str) -> None:
    known = {each.name for each in vars(names).values() if isinstance(each, Metric)} | go_metrics()
    for name in re.findall(r"\b(?:gateway|go_infer|http_server|http_client)_[a-z_]*[a-z]\b", text_of(page)):
        assert name in known, name


def test_every_metric_of_go_infer_is_in_its_readme() -> None:
    assert go_metrics() - set(re.findall(r"\bgo_infer_[a-z_]+", text_of(GO_README))) == set()


@pytest.mark.parametrize("page", (*PAGES, "CHANGELOG.md"))
def test_flags_of_go_infer_that_are_named_exist(page: str) -> None:
    known = go_flags() | {"ssl_config_file"}  # TensorFlow Serving's
    for flag in re.findall(r"--([a-z0-9]+(?:_[a-z0-9]+)+)\b(?![{*-])", text_of(page)):
        assert flag in known, flag


def test_every_flag_of_go_infer_is_in_its_readme() -> None:
    flags = go_flags()
    assert len(flags) > 80
    assert {flag for flag in flags if not re.search(rf"`--{flag}\b", text_of(GO_README))} == set()


def config_keys() -> set[str]:
    """`pools.NAME.breaker.failures` as `pools.breaker.failures`: pages leave names and brackets out."""
    rows = re.findall(r"^\| `([^`]+)` \|", text_of("docs/configuration.md"), re.MULTILINE)
    return {plain(row) for row in rows}


def plain(key: str) -> str:
    return re.sub(r"\.NAME\b|\[\]", "", key)


@pytest.mark.parametrize("page", PAGES)
def test_keys_of_the_configuration_that_are_named_exist(page: str) -> None:
    known = config_keys()
    tops = {key for key in known if "." not in key} - {"limits", "version"}  # a folder of Python, a word of JSON
    for key in re.findall(r"`([a-z_]+(?:\[\])?(?:\.[A-Za-z_]+(?:\[\])?)+)(?:: [^`]*)?`", prose(page)):
        if plain(key).split(".")[0] in tops and not key.endswith((".py", ".go", ".yaml", ".md")):
            assert plain(key) in known, key


@pytest.mark.parametrize("page", (*PAGES, "CHANGELOG.md"))
def test_commands_that_are_named_exist(page: str) -> None:
    text = text_of(page)
    for module in re.findall(r"python -m ((?:backends|demo|loadtests|tests)[a-z_.]*[a-z_])\b", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists() or module == "loadtests", module
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", text_of("Makefile"), re.MULTILINE), target
    for verb in re.findall(r"(?:^|`)gateway ([a-z]+)", text, re.MULTILINE):
        assert verb in VERBS, verb


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    folders = "gateway|tests|loadtests|backends|config|scripts|demo|nginx|docs"
    for path in re.findall(rf"`((?:{folders})/[\w./-]+)`", text_of(page)):
        assert any((base / path).exists() for base in (ROOT, ROOT / "gateway")), path


def samples() -> Iterator[Any]:
    for page in PAGES:
        blocks = re.findall(r"^ *```yaml\n(.*?)^ *```", text_of(page), re.DOTALL | re.MULTILINE)
        for number, block in enumerate(blocks, 1):
            yield pytest.param(textwrap.dedent(block), id=f"{page}-{number}")


@pytest.mark.parametrize("block", list(samples()))
def test_samples_are_configurations(block: str, tmp_path: Path) -> None:
    """A sample may leave out what is not its subject: it is then added here."""
    (tmp_path / "sorry.json").write_text("{}")
    (tmp_path / "session.key").write_text("0123456789abcdef")
    said = parse(block.replace("[...]", '[{url: "http://a:1"}]'), "x.yaml").data
    properties = json.loads((ROOT / "config/gateway.schema.json").read_text())
    if isinstance(said, list):
        said = {"routes": said}
    elif not said.keys() <= properties["properties"].keys():
        in_route = said.keys() <= properties["$defs"]["Route"]["properties"].keys() and "sticky" not in said
        said = {"routes": [ROUTE | {"pool": "p"} | said]} if in_route else {"pools": {"p": said}}
    said = {"version": 1, "pools": {}, "routes": [ROUTE | {"pool": "p"}]} | said
    for pool in {"p", *re.findall(r"\bpool: ([\w-]+)", block)}:
        said["pools"].setdefault(pool, {})
    for pool in said["pools"].values():
        pool.setdefault("backends", [{"url": "http://a:1"}])
    clients = [{"client": name, "sha256": f"{number:064x}"} for number, name in enumerate(["shop", "acme"], 1)]
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump({"version": 1, "keys": clients}))
    said.setdefault("identity", {"api_keys": {"file": "keys.yaml"}})
    load_text(yaml.safe_dump(said), tmp_path / "x.yaml")
