"""What the Python clients share: the bytes they send, and how a case is told.

Contract of every client, in any language: `CLIENT BASE KEPT` asks BASE once per case, and KEPT (the same server behind
something that counts connections) for the case `keep-alive`. It asserts nothing: it prints one JSON object a line,
{"case": NAME, ...what it saw}, or {"case": NAME, "error": TEXT}. A case that it does not print, it cannot do.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

SIZE = 5 * 1024 * 1024
LARGE = bytes(index % 251 for index in range(251)) * (SIZE // 251 + 1)
LARGE = LARGE[:SIZE]
SMALL = b'{"instances":[1,2,3]}'
BINARY = LARGE[:500_000]


def pieces() -> Iterator[bytes]:
    for start in range(0, SIZE, 65536):
        yield LARGE[start : start + 65536]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def show(name: str, seen: dict[str, Any]) -> None:
    print(json.dumps({"case": name, **seen}), flush=True)


def tell(name: str, do: Callable[[], dict[str, Any]]) -> None:
    try:
        seen = do()
    except Exception as error:  # noqa: BLE001 - whatever it was, it is told
        traceback.print_exc(file=sys.stderr)
        seen = {"error": f"{type(error).__name__}: {error}"}
    show(name, seen)


async def atell(name: str, do: Callable[[], Awaitable[dict[str, Any]]]) -> None:
    try:
        async with asyncio.timeout(30):
            seen = await do()
    except Exception as error:  # noqa: BLE001 - whatever it was, it is told
        traceback.print_exc(file=sys.stderr)
        seen = {"error": f"{type(error).__name__}: {error}"}
    show(name, seen)
