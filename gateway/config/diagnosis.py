"""pydantic's error list to diagnostics in our own plain sentences, each at its place in the file.

Every error type the model can raise has a row in ``SENTENCES``; a type without a row is shown with pydantic's
wording, and ``tests/config/test_diagnosis.py`` holds that the bad-file corpus never gets there.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, get_args, get_origin

from pydantic import BaseModel, Tag
from pydantic_core import ErrorDetails

from gateway.config.errors import Diagnostic
from gateway.config.scalars import shown
from gateway.config.source import Loc, Source

Sentence = tuple[str, str | None]  # message, hint


def from_pydantic(errors: Iterable[ErrorDetails], source: Source, model: type[BaseModel]) -> list[Diagnostic]:
    """One diagnostic for each error that is not merely the consequence of another."""
    return [_diagnose(error, source, model) for error in errors if not _consequence(error)]


def _consequence(error: ErrorDetails) -> bool:
    if error["type"] == "default_factory_not_called":
        return True
    if error["input"] is None and error["type"] not in ("missing", "extra_forbidden"):
        return True  # gateway.config.checks tells of every key without a value
    # A list whose every item failed is "too short" as well.
    return error["type"] == "too_short" and bool(error["input"])


@dataclass(frozen=True, slots=True)
class Fault:
    """One of pydantic's errors with what the sentences need to know about it."""

    error: ErrorDetails
    loc: Loc
    model: type[BaseModel]

    @property
    def at(self) -> str:
        return spell(self.loc)

    @property
    def name(self) -> str:
        return str(self.loc[-1])

    @property
    def value(self) -> object:
        return self.error["input"]

    @property
    def owner(self) -> type[BaseModel] | None:
        """The section that the last key of the location belongs, or would belong, to."""
        return section_at(self.model, self.error["loc"][:-1])


def _diagnose(error: ErrorDetails, source: Source, model: type[BaseModel]) -> Diagnostic:
    loc = real_loc(error["loc"], source)
    if blamed := error.get("ctx", {}).get("at"):
        loc = (*loc, *blamed) if isinstance(blamed, tuple) else (*loc, blamed)
    fault = Fault(error, loc, model)
    message, hint = SENTENCES.get(error["type"], _unforeseen)(fault)
    key = error["type"] in ABOUT_KEYS or error["loc"][-1:] == ("[key]",)
    return source.diagnose(loc, message, hint, key=key)


def real_loc(loc: Sequence[str | int], source: Source) -> Loc:
    """The location that pydantic gives, without its union tags and key markers (unless the file has such a key)."""
    real: Loc = ()
    for part in loc:
        here = (*real, part) in source.places
        if isinstance(part, int) and not here and real in source.places:
            continue  # one value written without the list that it stands for
        if here or part not in MARKERS:
            real = (*real, part)
    return real


def spell(loc: Loc) -> str:
    """``routes[0].retry.on[1]``."""
    parts: list[str] = []
    for part in loc:
        if isinstance(part, int):
            parts.append(f"[{part}]")
        elif re.fullmatch(r"[\w-]+", part):
            parts.append(f".{part}" if parts else part)
        else:
            parts.append(f"[{part!r}]")
    return "".join(parts) or "the file"


def near_miss(value: object, known: Iterable[str]) -> str | None:
    """Only the ``did you mean``, where the sentence already lists what is allowed."""
    hint = suggest(value, known) if isinstance(value, str) and value.isalpha() else None
    return hint if hint and hint.startswith("did") else None


def within(loc: Loc) -> str:
    return f" in {spell(loc)}" if loc else ""


def suggest(word: str, known: Iterable[str], otherwise: str = "known are") -> str | None:
    """``did you mean 'x'?`` for a near miss, else the list of what is known."""
    from difflib import get_close_matches  # noqa: PLC0415 - costs 5 ms, and only a broken file needs it

    known = list(known)
    near = get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"{otherwise}: {', '.join(known)}" if known else None


def _missing(fault: Fault) -> Sentence:
    examples = fault.owner.model_fields[fault.name].examples if fault.owner else None
    hint = f"for example {fault.name}: {examples[0]}" if examples else None
    return f"missing key '{fault.name}'{within(fault.loc[:-1])}", hint


def _unknown(fault: Fault) -> Sentence:
    hint = suggest(fault.name, fault.owner.model_fields if fault.owner else (), "allowed keys")
    return f"unknown key '{fault.name}'{within(fault.loc[:-1])}", hint


def _choice(fault: Fault) -> Sentence:
    expected = fault.error["ctx"]["expected"]
    allowed = re.findall(r"'([^']*)'", expected) or [expected]
    choices = f"{', '.join(allowed[:-1])} or {allowed[-1]}" if len(allowed) > 1 else allowed[0]
    return f"{fault.at} must be {choices}, not {shown(fault.value)}", near_miss(fault.value, allowed)


def _container(fault: Fault) -> Sentence:
    what = CONTAINERS[fault.error["type"]]
    hint = f"write it as a list: [{fault.value}]" if what == "a list" and isinstance(fault.value, (str, int)) else None
    return f"{fault.at} must be {what}, not {shown(fault.value)}", hint


def _boolean(fault: Fault) -> Sentence:
    return f"{fault.at} must be true or false, not {shown(fault.value)}", None


def _empty(fault: Fault) -> Sentence:
    return f"{fault.at} must not be empty", None


def _rung(fault: Fault) -> Sentence:
    return f"{fault.at} {fault.error['msg']}, not {shown(fault.value)}", near_miss(fault.value, ["stale"])


def _own(fault: Fault) -> Sentence:
    """Errors that the model's own rules raise with ``refuse``."""
    context = fault.error["ctx"]
    message: str = context["message"]
    if fault.error["loc"][-1:] == ("[key]",):
        return f"a key in {spell(fault.loc[:-1])} {message}", context["hint"]
    return f"{fault.at}{'' if message[0] in ': ' else ' '}{message}", context["hint"]


def _unforeseen(fault: Fault) -> Sentence:
    return f"{fault.at}: {fault.error['msg']}", None


CONTAINERS = {
    "tuple_type": "a list",
    "dict_type": "a mapping of keys to values",
    "mapping_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
}

SENTENCES: dict[str, Callable[[Fault], Sentence]] = {
    "gateway": _own,
    "missing": _missing,
    "extra_forbidden": _unknown,
    "literal_error": _choice,
    "bool_type": _boolean,
    "too_short": _empty,
    "rung": _rung,
    **dict.fromkeys(CONTAINERS, _container),
}

MARKERS = ("[key]", "<stale>", "<pool>", "<static>", "<address>", "<listener>")

ABOUT_KEYS = ("missing", "extra_forbidden", "too_short")


def section_at(annotation: object, loc: Sequence[str | int]) -> type[BaseModel] | None:
    """The section class that describes ``loc``, following pydantic's location with its union tags."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not loc:
            return annotation
        field = annotation.model_fields.get(str(loc[0]))
        return section_at(field.annotation, loc[1:]) if field else None
    if origin is Annotated:
        return section_at(arguments[0], loc)
    if origin is tuple:
        return section_at(arguments[0], loc[1:])
    if origin is Mapping:
        return section_at(arguments[1], loc[1:])
    if loc and str(loc[0]).startswith("<"):
        tagged = (each for each in arguments if Tag(str(loc[0])) in getattr(each, "__metadata__", ()))
        return next((section_at(each, loc[1:]) for each in tagged), None)
    return next((found for each in arguments if (found := section_at(each, loc)) is not None), None)
