"""Addresses: what parses, to what, and what is refused."""

import pytest

from gateway.config.addresses import Listen, Origin, StoreUrl


@pytest.mark.parametrize(
    "text", ["127.0.0.1:8080", "[::1]:8080", "localhost:0", "0.0.0.0:65535", "unix:/run/g.sock", "[fe80::1%eth0]:80"]
)
def test_listen_round_trip(text: str) -> None:
    assert str(Listen.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8080",
        ":8080",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "::1:8080",
        "[::1]",
        "a b:80",
        "unix:x",
        "unix:/" + "x" * 107,
        "h:\u0665",
    ],
)
def test_no_listen(text: str) -> None:
    with pytest.raises(ValueError, match=r"must|not a host|bytes long"):
        Listen.parse(text)


@pytest.mark.parametrize(
    ("text", "loopback"), [("127.0.0.1:1", True), ("127.9.9.9:1", True), ("[::1]:1", True), ("localhost:1", True),
                           ("unix:/a", True), ("0.0.0.0:1", False), ("[::]:1", False), ("10.0.0.1:1", False)]
)  # fmt: skip
def test_loopback(text: str, loopback: bool) -> None:
    assert Listen.parse(text).loopback is loopback


def test_127_in_a_name_is_not_loopback() -> None:
    assert not Listen.parse("127.example.org:80").loopback


def test_store() -> None:
    assert StoreUrl.parse("embedded").embedded
    store = StoreUrl.parse("rediss://me:p%40ss@cache.internal:7000/3")
    assert (store.host, store.port, store.db, store.tls) == ("cache.internal", 7000, 3, True)
    assert (store.username, store.password) == ("me", "p@ss")
    assert str(store) == "rediss://me:***@cache.internal:7000/3"
    assert "p@ss" not in repr(store)
    assert StoreUrl.parse("redis://h") == StoreUrl.parse("valkey://h:6379/0")
    assert StoreUrl.parse("unix:///run/v.sock").unix_path == "/run/v.sock"
    assert StoreUrl.parse("redis://[::1]:6379").host == "::1"


def test_stores_of_several_servers() -> None:
    sentinels = StoreUrl.parse("redis+sentinel://me:p%40s,s@a:1,[::1],b/main/2")
    assert sentinels.sentinels == (("a", 1), ("::1", 26379), ("b", 26379))
    assert (sentinels.service, sentinels.db, sentinels.username, sentinels.password) == ("main", 2, "me", "p@s,s")
    assert str(sentinels) == "redis+sentinel://me:***@a:1,[::1]:26379,b:26379/main/2"
    cluster = StoreUrl.parse("valkeys+cluster://:secret@a,b:7001")
    assert (cluster.seeds, cluster.tls, cluster.password) == ((("a", 6379), ("b", 7001)), True, "secret")
    assert str(cluster) == "rediss+cluster://:***@a:6379,b:7001"
    with pytest.raises(ValueError, match=r"not a host") as caught:
        StoreUrl.parse("redis+cluster://:secret@a!,b")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "redis", "redis://", "redis://h:x", "redis://h:70000", "redis://h/a", "redis://h/0?db=1", "http://h",
     "unix://h/p", "unix://", "redis+sentinel://h", "redis+sentinel://h/x/y", "redis+sentinel:///x", "redis+sentinel://h:x/s", "redis+cluster://h/0",
     "redis+cluster://", "redis+cluster://h?x=1", "unix+cluster://h", "redis+proxy://h", "redis://[::1"],
)  # fmt: skip
def test_no_store(text: str) -> None:
    with pytest.raises(ValueError, match=r"store|cluster|host|port"):
        StoreUrl.parse(text)


@pytest.mark.parametrize(
    ("text", "authority"),
    [
        ("http://h", "h:80"),
        ("http://h:8501", "h:8501"),
        ("http://h:8501/", "h:8501"),
        ("http://[::1]:1", "[::1]:1"),
        ("http://[::1]", "[::1]:80"),
        ("https://h", "h:443"),
        ("https://h:8501/", "h:8501"),
        ("https://[::1]:1", "[::1]:1"),
        ("unix:/run/s.sock", "unix:/run/s.sock"),
    ],
)
def test_origin(text: str, authority: str) -> None:
    assert Origin.parse(text).authority == authority
    assert Origin.parse(str(Origin.parse(text))) == Origin.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h:80",
        "https://",
        "https://h/x",
        "unix:s.sock",
        f"unix:/{'s' * 107}",
        "ftp://h",
        "http://",
        "http://h/x",
        "http://u@h",
        "http://h?x",
        "http://h:a",
        "http://h:",
    ],
)
def test_no_origin(text: str) -> None:
    with pytest.raises(ValueError, match=r"https?://|port|host|path"):
        Origin.parse(text)
