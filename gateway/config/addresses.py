"""Where to listen, where the store is, where a backend is: addresses parsed once, at load.

Contract: ``parse`` raises ``ValueError`` with a whole sentence in plain words; ``str()`` of the result is safe to print
(a password in a store URL is shown as ``***``).
"""

import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

LOOPBACK = ("localhost", "::1")
REDIS_PORT = 6379
SENTINEL_PORT = 26379
_LOOPBACK_4 = re.compile(r"127(\.[0-9]{1,3}){3}", re.ASCII)
_NAME = r"[A-Za-z0-9](\.?[A-Za-z0-9_-])*(?<=[A-Za-z0-9])"
_HOST = re.compile(_NAME + r"|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9]+)?", re.ASCII)


def _port(text: str, what: str, least: int = 1) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) or not least <= int(text) <= 65535:
        raise ValueError(f"the port in {what!r} must be a number from {least} to 65535")
    return int(text)


def _host(text: str, what: str) -> str:
    if not _HOST.fullmatch(text):
        raise ValueError(f"{text!r} in {what!r} is not a host name or address")
    return text


def _socket(text: str) -> str:
    """The path in ``unix:/path``."""
    path = text.removeprefix("unix:")
    if not path.startswith("/"):
        raise ValueError(f"{text!r} must name an absolute path, such as unix:/run/gateway.sock")
    if len(path.encode()) > 107:  # sockaddr_un.sun_path is 108 bytes on Linux, one of them the final NUL
        raise ValueError(f"the socket path is {len(path.encode())} bytes long; the system allows 107")
    return path


@dataclass(frozen=True, slots=True)
class Listen:
    """One socket to listen on: ``host`` and ``port``, or ``unix_path`` (then ``host`` is "" and ``port`` 0).

    Port 0 asks the kernel for a free port.
    """

    host: str = ""
    port: int = 0
    unix_path: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Listen":
        if text.startswith("unix:"):
            return cls(unix_path=_socket(text))
        bracketed = re.fullmatch(r"\[([^\]]*)\]:(.*)", text)
        if bracketed:
            host, port = bracketed[1], bracketed[2]
        elif text.count(":") == 1:
            host, port = text.split(":")
        else:
            raise ValueError(f"{text!r} must be host:port, [ipv6]:port or unix:/path")
        return cls(host=_host(host, text), port=_port(port, text, least=0))

    @property
    def loopback(self) -> bool:
        """Only this machine can connect: 127.0.0.0/8, ::1, ``localhost`` or a unix socket."""
        return self.unix_path is not None or self.host in LOOPBACK or _LOOPBACK_4.fullmatch(self.host) is not None

    def __str__(self) -> str:
        if self.unix_path is not None:
            return f"unix:{self.unix_path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


_STORE_FORMS = (
    "embedded, redis://host:port/db, rediss://host:port/db, unix:///path, redis+sentinel:// or redis+cluster://"
)


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """Where the shared store is. ``embedded`` means that the gateway starts its own Valkey and the rest is unset.

    With ``sentinels`` the master of ``service`` is asked for; ``seeds`` are nodes of a cluster.
    """

    embedded: bool = False
    host: str = ""
    port: int = 0
    unix_path: str | None = None
    tls: bool = False
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""
    seeds: tuple[tuple[str, int], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "StoreUrl":
        if text == "embedded":
            return cls(embedded=True)
        scheme = text.partition("://")[0]
        kind, _, several = scheme.partition("+")
        if kind not in ("redis", "rediss", "valkey", "valkeys") or several not in ("", "sentinel", "cluster"):
            if scheme != "unix":
                raise ValueError(f"the store must be {_STORE_FORMS}")
        elif several:
            return cls._several(text, several, tls=kind in ("rediss", "valkeys"))
        try:
            url = urlsplit(text)
            port = url.port
        except ValueError:
            raise ValueError("the store URL has a bad address: write it as redis://host:port/db") from None
        if url.query or url.fragment:
            raise ValueError("the store URL takes no ?options: timeouts and the rest are keys of 'store'")
        user = unquote(url.username) if url.username else None
        password = unquote(url.password) if url.password else None
        if scheme == "unix":
            if url.hostname or len(url.path) < 2:
                raise ValueError("a store on a unix socket is written unix:///path/to/socket")
            return cls(unix_path=url.path, username=user, password=password)
        if not url.hostname or not _HOST.fullmatch(url.hostname):
            raise ValueError("the store URL names no host: write it as redis://host:port/db")
        if not re.fullmatch(r"/?|/[0-9]{1,4}", url.path, re.ASCII):
            raise ValueError("the database in the store URL must be a number, such as redis://host:6379/0")
        return cls(
            host=url.hostname,
            port=REDIS_PORT if port is None else port,
            tls=scheme in ("rediss", "valkeys"),
            db=int(url.path[1:] or 0),
            username=user,
            password=password,
        )

    @classmethod
    def _several(cls, text: str, kind: str, *, tls: bool) -> "StoreUrl":
        """``redis+sentinel://[user:password@]host:port,host:port/service[/db]`` or ``redis+cluster://...host:port,...``."""
        scheme, _, rest = text.partition("://")
        login, at, rest = rest.rpartition("@")
        user, _, password = login.partition(":")
        hosts, _, path = rest.partition("/")
        if "?" in text or "#" in text:
            raise ValueError("the store URL takes no ?options: timeouts and the rest are keys of 'store'")
        default = REDIS_PORT if kind == "cluster" else SENTINEL_PORT
        servers = tuple(
            _server(each, text.replace(f"{login}{at}", "***@" if at else ""), default) for each in hosts.split(",")
        )
        known = {"tls": tls, "username": unquote(user) or None, "password": unquote(password) or None}
        if kind == "cluster":
            if path:
                raise ValueError("a cluster has no numbered databases: end the store URL after the last host")
            return cls(seeds=servers, **known)  # type: ignore[arg-type]
        found = re.fullmatch(r"([A-Za-z0-9._-]{1,64})(?:/([0-9]{1,4}))?", path, re.ASCII)
        if found is None:
            raise ValueError(f"the store URL must name the service: {scheme}://host:port,host:port/SERVICE")
        return cls(sentinels=servers, service=found[1], db=int(found[2] or 0), **known)  # type: ignore[arg-type]

    def __str__(self) -> str:
        if self.embedded:
            return "embedded"
        login = f"{self.username or ''}{':***' if self.password else ''}"
        login = f"{login}@" if login else ""
        if self.unix_path is not None:
            return f"unix://{login}{self.unix_path}"
        scheme = "rediss" if self.tls else "redis"
        if self.sentinels:
            database = f"/{self.db}" if self.db else ""
            return f"{scheme}+sentinel://{login}{_servers(self.sentinels)}/{self.service}{database}"
        if self.seeds:
            return f"{scheme}+cluster://{login}{_servers(self.seeds)}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{login}{host}:{self.port}/{self.db}"


def _server(text: str, where: str, default: int) -> tuple[str, int]:
    """``host``, ``host:port`` or ``[ipv6]:port``."""
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", text)
    if bracketed:
        host, port = bracketed[1], bracketed[2]
    else:
        host, colon, port = text.partition(":")
        port = port if colon else None
    return _host(host, where), default if port is None else _port(port, where)


def _servers(servers: tuple[tuple[str, int], ...]) -> str:
    return ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in servers)


@dataclass(frozen=True, slots=True)
class Origin:
    """A backend's address: http:// or https:// (``tls``) with a host and a port, or ``unix_path``; nothing else."""

    host: str = ""
    port: int = 0
    unix_path: str | None = None
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> "Origin":
        if text.startswith("unix:"):
            return cls(unix_path=_socket(text))
        scheme, _, address = text.partition("://")
        if scheme not in ("http", "https"):
            raise ValueError(f"{text!r} must be http://host:port, https://host:port or unix:/path")
        address = address.removesuffix("/")
        if re.search(r"[/?#@]", address):
            raise ValueError(f"{text!r} must be {scheme}://host:port without a path, query or user name")
        bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", address)
        host, port = (bracketed[1], bracketed[2]) if bracketed else (address.partition(":")[0], None)
        if not bracketed and ":" in address:
            port = address.partition(":")[2]
        tls = scheme == "https"
        return cls(_host(host, text), (443 if tls else 80) if port is None else _port(port, text), tls=tls)

    @property
    def authority(self) -> str:
        """``host:port`` or ``unix:/path``: the default name of a backend."""
        if self.unix_path is not None:
            return f"unix:{self.unix_path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        scheme = "" if self.unix_path is not None else "https://" if self.tls else "http://"
        return f"{scheme}{self.authority}"
