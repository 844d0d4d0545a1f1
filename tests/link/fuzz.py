"""Recorded sessions with bytes changed, cut, doubled and put in, through the decoder: frames or a LinkViolation.

python -m tests.link.fuzz [--cases 100000] [--seed 1]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path

from gateway.errors import LinkViolation
from gateway.link.frames import Decoder, Settings
from tests.link.encode import Recorder

VECTORS = Path(__file__).parent.parent / "vectors" / "link"


def corpus():
    for vector in json.loads((VECTORS / "frames.json").read_text()):
        yield vector["receiver"], bytes.fromhex("".join(frame["hex"] for frame in vector["frames"]))


def mutated(data, rng):
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(data):
                data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 2:
                del data[at : at + rng.randint(1, 20)]
            case 3:
                data[at:at] = data[at : at + rng.randint(1, 40)]
            case _:
                data[at:at] = rng.randbytes(rng.randint(1, 12))
        if not data:
            data = bytearray(b"\x00")
    return bytes(data)


def fuzz(cases, rng):
    """Runs the cases; the number that were violations. Anything else that is raised is a bug."""
    seeds = list(corpus())
    violations = 0
    for _ in range(cases):
        receiver, data = rng.choice(seeds)
        data = mutated(data, rng)
        decoder = Decoder(Recorder(), Settings(), client=receiver == "client")
        step = rng.choice((len(data), 1 + rng.randrange(40)))
        try:
            for start in range(0, len(data), step):
                decoder.feed(data[start : start + step])
        except LinkViolation:
            violations += 1
    return violations


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.link.fuzz")
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.monotonic()
    found = fuzz(options.cases, random.Random(options.seed))
    print(f"{options.cases} mutated sessions: {found} violations, no other error, {time.monotonic() - began:.1f} s")
    sys.exit(0)
