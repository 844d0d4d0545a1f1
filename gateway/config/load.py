"""Files to a complete ``Config``, or to every diagnostic at once.

``load(path)`` reads the file and all files it names, relative to its folder. ``load_text`` does the same for text
that is not (yet) a file; ``path`` then says how to call it and where its folder is. Both raise :class:`ConfigError`
and nothing else.
"""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from gateway.config.checks import check
from gateway.config.diagnosis import from_pydantic
from gateway.config.errors import ConfigError, ConfigException, Diagnostic
from gateway.config.model import Config
from gateway.config.provenance import Provenance
from gateway.config.scalars import refuse
from gateway.config.sections.base import Section
from gateway.config.sections.limits import OverrideFile
from gateway.config.sections.policies import KeyFile
from gateway.config.source import Source, parse

MAX_FILE = 16 * 1024 * 1024

S = TypeVar("S", bound=Section)


def load(path: Path) -> Config:
    """The configuration in ``path``."""
    try:
        text = _text(_content(path))
    except UnreadableError as error:
        hint = "gateway init writes a configuration to start from" if not path.exists() else None
        raise ConfigError([Diagnostic(str(path), 0, 0, f"{error}", hint)]) from None
    return load_text(text, path)


def load_text(text: str, path: Path) -> Config:
    """The configuration in ``text``, which stands for the file ``path``."""
    source = parse(text, str(path))
    files = Files(path.parent)
    config, diagnostics = _validate(Config, source, files, check(source))
    diagnostics += files.diagnostics
    if config is None or diagnostics:
        raise ConfigError(diagnostics)
    return config.placed(Provenance(source))


def _validate(
    model: type[S], source: Source, files: "Files | None", found: list[Diagnostic]
) -> tuple[S | None, list[Diagnostic]]:
    """The model, or None, and all diagnostics of one file by line. One place gets one diagnostic, the most specific."""
    diagnostics = [*source.diagnostics, *found]
    result = None
    try:
        result = model.model_validate(source.data, context=files or Files(Path()))
    except ValidationError as error:
        shape = from_pydantic(error.errors(include_url=False), source, model)
        unknown = {(each.line, each.col) for each in shape if each.message.startswith("unknown key")}
        diagnostics = [each for each in diagnostics if (each.line, each.col) not in unknown]
        taken = {(each.line, each.col) for each in diagnostics}
        diagnostics += [each for each in shape if (each.line, each.col) not in taken]
    return result, sorted(diagnostics, key=lambda each: (each.line, each.col))


class UnreadableError(ConfigException):
    """A file cannot be read; the text says why, in plain words."""


class Files:
    """The files beside a configuration, each read once: what the model sees as ``Surroundings``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.diagnostics: list[Diagnostic] = []
        self._contents: dict[str, bytes] = {}
        self._keys: dict[str, dict[str, str]] = {}
        self._tenants: dict[str, dict[str, str]] = {}
        self._overrides: dict[str, dict[str, Any]] = {}

    def read(self, name: str) -> bytes:
        if name not in self._contents:
            try:
                self._contents[name] = _content(self.folder / name)
            except UnreadableError as error:
                raise refuse(f": {error}", "file names are relative to the configuration's folder") from None
        return self._contents[name]

    def api_keys(self, name: str) -> dict[str, str]:
        if name not in self._keys:
            self._keys[name] = {}
            try:
                text = _text(self.read(name))
            except UnreadableError as error:
                raise refuse(f": {error}") from None
            try:
                source = parse(text, str(self.folder / name), secret=True)
            except ConfigError as error:
                self.diagnostics += error.diagnostics
                return {}
            found = [*_repeated_keys(source), *_two_tenants(source)]
            keys, diagnostics = _validate(KeyFile, source, None, found)
            self.diagnostics += diagnostics
            self._keys[name] = {each.sha256: each.client for each in keys.keys} if keys else {}
            self._tenants[name] = {each.client: each.tenant for each in keys.keys if each.tenant} if keys else {}
        return self._keys[name]

    def tenants(self, name: str) -> dict[str, str]:
        self.api_keys(name)
        return self._tenants.get(name, {})

    def overrides(self, name: str) -> dict[str, Any]:
        if name not in self._overrides:
            self._overrides[name] = {}
            try:
                text = _text(self.read(name))
            except UnreadableError as error:
                raise refuse(f": {error}") from None
            try:
                source = parse(text, str(self.folder / name))
            except ConfigError as error:
                self.diagnostics += error.diagnostics
                return {}
            found, diagnostics = _validate(OverrideFile, source, None, [])
            self.diagnostics += diagnostics
            self._overrides[name] = dict(found.overrides) if found else {}
        return self._overrides[name]


def _repeated_keys(source: Source) -> list[Diagnostic]:
    entries = source.data.get("keys") if isinstance(source.data, dict) else None
    found, lines = [], dict[str, int]()
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        digest = entry.get("sha256") if isinstance(entry, dict) else None
        if not isinstance(digest, str):
            continue
        place = source.places["keys", index, "sha256"].value
        if digest in lines:
            message = f"keys[{index}].sha256: the same key is already in line {lines[digest]}"
            found.append(source.at(place, message, "a key belongs to one client"))
        lines.setdefault(digest, place.line + 1)
    return found


def _two_tenants(source: Source) -> list[Diagnostic]:
    """A client's keys must agree on its tenant, or its limits would depend on the key it uses."""
    entries = source.data.get("keys") if isinstance(source.data, dict) else None
    found, tenants = [], dict[str, object]()
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if not isinstance(entry, dict) or not isinstance(entry.get("client"), str):
            continue
        client, tenant = entry["client"], entry.get("tenant")
        if tenants.setdefault(client, tenant) != tenant:
            message = f"keys[{index}]: the client '{client}' has another tenant above, or none"
            loc = ("keys", index, "tenant" if "tenant" in entry else "client")
            found.append(source.at(source.places[loc].value, message, "give all keys of a client the same tenant"))
    return found


def _content(path: Path) -> bytes:
    """The bytes of a regular file of reasonable size; or ``UnreadableError``."""
    try:
        if path.exists() and not path.is_file():
            raise UnreadableError(f"'{path}' is not a regular file")
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        raise UnreadableError(f"there is no file '{path}'") from None
    except OSError as error:
        raise UnreadableError(f"'{path}' cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE:
        raise UnreadableError(f"'{path}' is larger than {MAX_FILE // 1024 // 1024} MiB")
    return content


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UnreadableError(f"byte {error.start + 1} is not UTF-8 text") from None
