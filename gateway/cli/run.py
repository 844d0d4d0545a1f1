"""`gateway run`: start the gateway and stay in the foreground until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys

from gateway.cli.options import add_config, config_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    from gateway.cli.loaded import loaded

    # Until there is a gateway: a stop ends the command at once, and a reload waits for one that can.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    config = loaded(args)
    if config is None:
        return 1
    from gateway.app.gateway import Gateway
    from gateway.app.loop import run_in_loop
    from gateway.errors import StartError
    from gateway.telemetry.logs import set_up_logs

    def say_ready(gateway: Gateway) -> None:
        listening = ", ".join(gateway.listeners.said)
        with contextlib.suppress(OSError):  # stderr may be a file on a disk that is full
            print(f"gateway: serving on {listening}; admin on {config.admin.listen}", file=sys.stderr, flush=True)

    async def serve() -> None:
        await Gateway(config_path(args), config, say_ready).run()

    try:
        set_up_logs("supervisor")
        run_in_loop(serve())
    except StartError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 1
    return 0
