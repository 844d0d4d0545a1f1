"""`make run`: prepare, start the whole chain, say how to use it, and stop it on Ctrl-C."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from types import FrameType

from demo.layout import ADMIN_PORT, BUILD, CONFIG, GATEWAY_PORT, MODELS, PICTURES, ROOT, SERVERS
from demo.prepare import prepare
from demo.stack import Stack, StackError, require_free


def hints() -> str:
    """What a newcomer can paste."""
    heldout = json.loads((MODELS / "digits" / "heldout.json").read_text())
    picture = json.dumps({"instances": heldout["instances"][:1]}, separators=(",", ":"))
    label = heldout["labels"][0]
    png = min(PICTURES.glob("*.png")).relative_to(ROOT)
    base = f"http://127.0.0.1:{GATEWAY_PORT}"
    return f"""
  gateway   {base}
  admin     http://127.0.0.1:{ADMIN_PORT}/status   /metrics   /readyz?verbose

A handwritten {label} as 64 numbers:
  curl -s {base}/v1/models/digits:predict -d '{picture}'

A picture:
  curl -s --data-binary @{png} {base}/classify

Break it: kill -9 the pid of a backend, ask again with curl -i, and look at the header `degraded`:
{{pids}}
Start it again and watch it recover:
{{commands}}
Ctrl-C stops everything.
"""


def _relative(command: list[str]) -> str:
    return " ".join(command).replace(f"{ROOT}/", "").replace(" --exit_with_parent", "")


def main() -> int:
    """Returns the exit status."""
    stop = threading.Event()

    def asked(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    stack = Stack(SERVERS, CONFIG, BUILD / "logs", GATEWAY_PORT, ADMIN_PORT)
    try:
        require_free(stack.ports)
        if status := prepare():
            return status
        began = time.monotonic()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, asked)
        stack.start()
        print(f"ready in {time.monotonic() - began:.1f} s")
        pids = "\n".join(f"  {child.name:<13} pid {child.pid}" for child in stack.servers.values())
        commands = "\n".join(f"  {_relative(child.command)} &" for child in stack.servers.values())
        print(hints().replace("{pids}", pids).replace("{commands}", commands), flush=True)
        while not stop.wait(0.5):
            if not stack.gateway.alive:
                print(f"the gateway ended: {stack.gateway.last_words()} (log: {stack.gateway.log})", file=sys.stderr)
                return 1
    except (StackError, OSError) as error:
        print(f"run: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        stack.stop()
    print("stopped")
    return 0


if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m demo", description=__doc__).parse_args()
    sys.exit(main())
