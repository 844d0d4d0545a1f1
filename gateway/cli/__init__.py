"""The command ``gateway``: one file per verb, imported only when that verb is asked for.

A verb module has ``add_arguments(parser)`` and ``run(args) -> int``. Exit status: 0 done, 1 failed, 2 wrong usage,
130 after Ctrl-C. Output goes to standard output, complaints about usage to standard error.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

VERBS: dict[str, tuple[str, str]] = {
    "run": ("gateway.cli.run", "start the gateway"),
    "check": ("gateway.cli.check", "check a configuration and summarise it"),
    "reload": ("gateway.cli.reload", "make a running gateway read its configuration again"),
    "status": ("gateway.cli.status", "show what a running gateway is doing"),
    "breaker": ("gateway.cli.breaker", "show breakers, or hold one open or closed"),
    "schema": ("gateway.cli.schema", "print the JSON schema of the configuration"),
    "init": ("gateway.cli.init", "write a commented configuration to start from"),
    "version": ("gateway.cli.version", "print the version"),
}

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the exit status."""
    _open_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            return _dispatch(arguments)
        finally:
            sys.stdout.flush()  # a reader that has gone is noticed here, not when the interpreter exits
    except BrokenPipeError:
        # What is still buffered has nowhere to go; without this the interpreter complains about it on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _open_streams() -> None:
    """Gives a standard stream that came closed (`1>&-`) /dev/null: what is opened next would get its number, and libuv
    aborts when it is to close that.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)  # mostly gets that number itself
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _dispatch(arguments: list[str]) -> int:
    parser = _top_parser()
    if not arguments:
        parser.print_help()
        return EXIT_USAGE
    verb = arguments[0]
    if verb not in VERBS:
        return _top_level(parser, arguments)
    name, about = VERBS[verb]
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        print(f"gateway {verb}: not part of this build", file=sys.stderr)
        return EXIT_FAILED
    verb_parser = argparse.ArgumentParser(prog=f"gateway {verb}", description=f"{about[0].upper()}{about[1:]}.")
    module.add_arguments(verb_parser)
    try:
        args = verb_parser.parse_intermixed_args(_joined(arguments[1:]))
    except SystemExit as stop:  # argparse has printed the help or what is wrong
        return int(stop.code or 0)
    status: int = module.run(args)
    return status


def _joined(arguments: list[str]) -> list[str]:
    """`--for -5s` as `--for=-5s`: no option of ours is a number, so it is a value, for its verb to judge."""
    joined: list[str] = []
    for each in arguments:
        if joined and joined[-1].startswith("--") and "=" not in joined[-1] and each[:1] == "-" and each[1:2].isdigit():
            joined[-1] += f"={each}"
        else:
            joined.append(each)
    return joined


def _top_level(parser: argparse.ArgumentParser, arguments: list[str]) -> int:
    """``--help``, ``--version`` and what is no verb."""
    if arguments[0] == "--version":
        return _dispatch(["version"])
    if arguments[0] in ("-h", "--help", "help"):
        if len(arguments) > 1 and arguments[1] in VERBS:
            return _dispatch([arguments[1], "--help"])
        parser.print_help()
        return EXIT_OK
    from difflib import get_close_matches

    near = get_close_matches(arguments[0], VERBS, n=1)
    advice = f"; did you mean 'gateway {near[0]}'?" if near else "; see gateway --help"
    print(f"gateway: there is no command '{arguments[0]}'{advice}", file=sys.stderr)
    return EXIT_USAGE


def _top_parser() -> argparse.ArgumentParser:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {about}" for verb, (_, about) in VERBS.items())
    return argparse.ArgumentParser(
        prog="gateway",
        usage="gateway COMMAND [options]",
        description="The front door for model inference.",
        epilog=f"commands:\n{verbs}\n\ngateway COMMAND --help tells more about one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
