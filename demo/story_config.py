"""The shipped configuration, moved to other ports and with a limit that a story can reach."""

from __future__ import annotations

from pathlib import Path

from demo.layout import ADMIN_PORT, CONFIG, GATEWAY_PORT, SERVERS, ModelServer
from loadtests.peers.processes import free_ports

RATE = 100  # requests per second and client
BURST = 100


class StoryConfig:
    """A configuration file in `folder` that can be rewritten while the gateway runs."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "gateway.yaml"
        ports = free_ports(2 + len(SERVERS))
        self.gateway_port, self.admin_port = ports[:2]
        self.servers = [
            ModelServer(server.name, server.model, port) for server, port in zip(SERVERS, ports[2:], strict=True)
        ]
        text = CONFIG.read_text()
        for old, new in [
            (f"127.0.0.1:{GATEWAY_PORT}", f"127.0.0.1:{self.gateway_port}"),
            (f"127.0.0.1:{ADMIN_PORT}", f"127.0.0.1:{self.admin_port}"),
            *((f"127.0.0.1:{a.port}", f"127.0.0.1:{b.port}") for a, b in zip(SERVERS, self.servers, strict=True)),
            ("rate: 200/s", f"rate: {RATE}/s"),
            ("burst: 400", f"burst: {BURST}"),
        ]:
            if old not in text:
                raise ValueError(f"{CONFIG} no longer holds {old!r}, which the story changes")
            text = text.replace(old, new)
        self.text = text
        for name in ("keys.yaml", "fallback/digits.json"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes((CONFIG.parent / name).read_bytes())
        self.write(text)

    def write(self, text: str) -> None:
        """Replaces the file in one step, as an editor or a deploy does."""
        aside = self.path.with_suffix(".new")
        aside.write_text(text)
        aside.replace(self.path)

    def weights(self, first: int, second: int) -> str:
        """The text with other weights for the two digits backends."""
        text = self.text
        for server, old, new in zip(self.servers, (3, 1), (first, second), strict=False):
            text = text.replace(f'127.0.0.1:{server.port}", weight: {old}', f'127.0.0.1:{server.port}", weight: {new}')
        return text

    def broken(self) -> tuple[str, int]:
        """The text with a misspelt key, and the line it is in."""
        text = self.text.replace("burst:", "brust:")
        line = next(number for number, line in enumerate(text.splitlines(), 1) if "brust:" in line)
        return text, line
