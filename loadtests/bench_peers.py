"""Install what `bench_proxy` compares the gateway with (`make bench-peers`).

Contract: idempotent; installs only what is missing; leaves no service running that was not running before: a package
that starts its daemon on installation is held back by a `policy-rc.d` for the time of the installation (an existing
one is kept), and under systemd a unit that came with *this* installation is disabled again. Everything that is built
goes to `build/peers/`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from loadtests.peers.programs import BUILT, ROOT, find_go, find_program

# Debian package -> a file or program that proves it is there.
PACKAGES = {
    "nginx": "nginx",
    "libnginx-mod-http-lua": "/usr/lib/nginx/modules/ngx_http_lua_module.so",
    "lua-resty-core": "/usr/share/lua/5.1/resty/core.lua",
    "lua-nginx-redis": "/usr/share/lua/5.1/nginx/redis.lua",
    "haproxy": "haproxy",
    "slowhttptest": "slowhttptest",
    "libfaketime": "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",  # for chaos_store
    "redis-tools": "/usr/bin/redis-check-rdb",  # the Redis server under another name, with TLS
    "wrk": "wrk",
    "nghttp2-client": "h2load",
}
DAEMONS = ("nginx", "haproxy")

# The Go programs of this repository: module and package.
OWN = {
    "goproxy": ("loadtests/peers/goproxy", "."),
    "openload": ("loadtests/peers/openload", "."),
    "slotserver": ("loadtests/peers/slotserver", "."),
    "linkecho": ("backends/go_infer", "./cmd/linkecho"),
}

# The commit of envoyproxy/ratelimit that the published figures are of; it has no release tags.
RATELIMIT = "github.com/envoyproxy/ratelimit/src/service_cmd@v1.4.1-0.20260122083618-3fb702589d36"

POLICY = Path("/usr/sbin/policy-rc.d")
POLICY_TEXT = "#!/bin/sh\n# Written by sluicegate's bench-peers for the time of one installation.\nexit 101\n"


def missing_packages(wanted: Sequence[str] = tuple(PACKAGES)) -> list[str]:
    """Debian packages among `wanted` whose proof is absent."""
    return [
        package
        for package, proof in PACKAGES.items()
        if package in wanted and not (Path(proof).exists() if proof.startswith("/") else find_program(proof))
    ]


@contextlib.contextmanager
def no_service_starts() -> Iterator[None]:
    """While inside, a package installation starts no daemon."""
    ours = not POLICY.exists()
    if ours:
        POLICY.write_text(POLICY_TEXT)
        POLICY.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            POLICY.unlink(missing_ok=True)


def install_packages(wanted: Sequence[str] = tuple(PACKAGES)) -> str | None:
    """Install the missing Debian packages among `wanted`; the reason when that cannot be done."""
    missing = missing_packages(wanted)
    if not missing:
        print("debian packages: all there")
        return None
    if not shutil.which("apt-get"):
        return f"no apt-get here: install {', '.join(missing)} by hand"
    if os.geteuid() != 0:
        return f"installing needs root; run: sudo apt-get install --no-install-recommends {' '.join(missing)}"
    new_daemons = [name for name in DAEMONS if name in missing]
    command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    print("installing", *missing, flush=True)
    with no_service_starts():
        done = _run(command, environment)
        if done.returncode:
            _run(["apt-get", "update"], environment)
            done = _run(command, environment)
    if done.returncode:
        return "apt-get failed:\n" + done.stderr.strip()[-2000:]
    if Path("/run/systemd/system").is_dir():
        for name in new_daemons:
            _run(["systemctl", "disable", name], environment)
    return None


def build_ratelimit(go: str) -> str | None:
    """Build envoyproxy/ratelimit; the reason when that cannot be done."""
    target = BUILT / "ratelimit"
    if target.exists():
        print("ratelimit: built")
        return None
    print("building envoyproxy/ratelimit (about a minute)", flush=True)
    done = _run([go, "install", RATELIMIT], {**os.environ, "GOBIN": str(BUILT), "CGO_ENABLED": "0"})
    if done.returncode:
        return "building ratelimit failed:\n" + done.stderr.strip()[-2000:]
    (BUILT / "service_cmd").rename(target)
    return None


def build_own(go: str, name: str) -> str | None:
    """Build one of the Go programs of this repository; the reason when that cannot be done."""
    folder, package = OWN[name]
    command = [go, "build", "-C", str(ROOT / folder), "-o", str(BUILT / name), package]
    done = _run(command, {**os.environ, "CGO_ENABLED": "0"})
    if done.returncode:
        return f"building {name} failed:\n" + done.stderr.strip()[-2000:]
    print(f"{name}: built")
    return None


def _run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def main() -> int:
    """Install and build; exit 0 when every peer can run, 1 otherwise. Names of packages: those alone, nothing built."""
    if sys.argv[1:]:
        problem = install_packages(sys.argv[1:])
        if problem:
            print(f"bench-peers: {problem}", file=sys.stderr)
        return 1 if problem else 0
    BUILT.mkdir(parents=True, exist_ok=True)
    problems = [install_packages()]
    go = find_go()
    if go:
        problems += [*(build_own(go, name) for name in OWN), build_ratelimit(go)]
    else:
        problems.append("no Go >= 1.24 found: no `go net/http`, `envoy+ratelimit`, link or latencies")
    found = [problem for problem in problems if problem]
    for problem in found:
        print(f"bench-peers: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
