"""From files to a complete configuration: the shipped ones, what the model holds, and that it travels to workers."""

import hashlib
import pickle
from pathlib import Path

import pytest

from gateway.config.errors import ConfigError
from gateway.config.lint import lint
from gateway.config.load import load, load_text
from gateway.config.model import Config, PoolRung, StaleRung, StaticRung

ROOT = Path(__file__).parents[2]
SHIPPED = [ROOT / "config/gateway.yaml", *sorted((ROOT / "config/examples").glob("*.yaml"))]
EDGE, TLS_BACKENDS = (ROOT / f"config/examples/{name}.yaml" for name in ("edge", "tls-backends"))
for names_a_certificate in (EDGE, TLS_BACKENDS):  # that everybody makes for themselves
    SHIPPED.remove(names_a_certificate)
MINIMAL = """
version: 1
pools: {p: {backends: [{url: "http://127.0.0.1:8501"}]}}
routes: [{name: r, match: {path: "/*"}, pool: p}]
"""


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_files_are_clean(path: Path) -> None:
    assert lint(load(path)) == []


def test_the_demo() -> None:
    config = load(ROOT / "config/gateway.yaml")
    assert [(str(each), each.address.host, each.address.port) for each in config.listen] == [
        ("127.0.0.1:8080", "127.0.0.1", 8080)
    ]
    assert config.workers == 2
    assert config.store.url.embedded
    assert [(each.name, each.weight) for each in config.pools["digits"].backends] == [
        ("127.0.0.1:8501", 3),
        ("127.0.0.1:8502", 1),
    ]
    health = config.pools["digits"].health
    assert health is not None
    assert (health.path, health.interval, health.timeout) == ("/readyz", 0.5, 0.4)
    by_name = {route.name: route for route in config.routes}
    stale, small, static = by_name["predict"].degrade
    assert isinstance(stale, StaleRung)
    assert isinstance(small, PoolRung)
    assert isinstance(static, StaticRung)
    assert static.content == (ROOT / "config/fallback/digits.json").read_bytes()
    assert static.content_type == "application/json"
    rewrite = by_name["digits"].degrade[-1]
    assert isinstance(rewrite, PoolRung)
    assert rewrite.rewrite == {"/v1/models/digits": "/v1/models/digits-small"}
    assert config.identity.api_keys is not None
    alice = hashlib.sha256(b"demo-key-alice").hexdigest()
    assert config.identity.api_keys.clients[alice] == "alice"


def test_defaults() -> None:
    config = load_text(MINIMAL, Path("x.yaml"))
    assert config.workers == "auto"
    assert (config.admin.listen.port, config.admin.token) == (9090, None)
    assert (config.store.timeout, config.store.key_prefix) == (0.025, "sluicegate")
    assert config.http.max_header_bytes == 32768
    assert config.pools["p"].breaker.open_for == 5.0
    assert config.routes[0].retry.on == ("connect",)
    assert config.access_log.path == "off"


def test_pickle_round_trip() -> None:
    config = load(ROOT / "config/gateway.yaml")
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(config, protocol))
        assert copy == config
        assert [each.content for each in copy.routes[3].degrade if isinstance(each, StaticRung)] == [
            (ROOT / "config/fallback/digits.json").read_bytes()
        ]
        assert copy.identity.api_keys
        assert sorted(copy.identity.api_keys.clients.values()) == ["alice", "bob"]
        assert copy.provenance.source is None
    assert len(pickle.dumps(config)) < 20_000, "places and source text stay at home"


def test_a_moved_line_is_no_change() -> None:
    assert load_text(MINIMAL, Path("a.yaml")) == load_text("# moved\n" + MINIMAL, Path("b.yaml"))


def test_an_error_pickles() -> None:
    with pytest.raises(ConfigError) as caught:
        load(Path("nowhere.yaml"))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_model_made_in_python_takes_plain_numbers() -> None:
    config = load_text(MINIMAL, Path("x.yaml"))
    again = Config.model_validate(config.model_dump())
    assert again == config
    route = config.routes[0].model_copy(update={"timeout": 0.5})
    assert route.timeout == 0.5


def test_frozen() -> None:
    config = load_text(MINIMAL, Path("x.yaml"))
    with pytest.raises(ValueError, match="frozen"):
        config.workers = 3


@pytest.mark.parametrize("content", [b"", b"two words\nand a line", b"caf\xc3\xa9", b"\x00"])
def test_bad_admin_token(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(ConfigError, match="one line of printable ASCII"):
        load_text(MINIMAL + "admin: {token_file: token}\n", tmp_path / "x.yaml")


def test_admin_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    config = load_text(MINIMAL + "admin: {listen: 0.0.0.0:9090, token_file: token}\n", tmp_path / "x.yaml")
    assert config.admin.token == "s3cret"
    assert "s3cret" not in repr(config)
    assert "s3cret" not in config.model_dump_json()


@pytest.mark.parametrize("name", [".", "/dev/zero"])
def test_only_regular_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="not a regular file"):
        load(tmp_path / name)


def test_windows_line_ends_and_byte_order_mark() -> None:
    assert load_text("\ufeff" + MINIMAL.replace("\n", "\r\n"), Path("x.yaml")) == load_text(MINIMAL, Path("x.yaml"))


def test_a_client_may_have_two_keys(tmp_path: Path) -> None:
    keys = f"version: 1\nkeys:\n  - {{client: a, sha256: {'a' * 64}}}\n  - {{client: a, sha256: {'1' * 64}}}\n"
    (tmp_path / "keys.yaml").write_text(keys)
    config = load_text(MINIMAL + "identity: {api_keys: {file: keys.yaml}}\n", tmp_path / "x.yaml")
    assert config.identity.api_keys is not None
    assert config.identity.api_keys.clients == {"a" * 64: "a", "1" * 64: "a"}


def test_the_edge_example(tmp_path: Path) -> None:
    for ours, theirs in (("long.pem", "cert.pem"), ("key.pem", "key.pem")):
        (tmp_path / theirs).write_bytes((Path(__file__).parent / "certificates" / ours).read_bytes())
    config = load_text(EDGE.read_text(), tmp_path / "edge.yaml")
    assert lint(config) == []
    assert list(map(str, config.listen)) == [
        "127.0.0.1:8080",
        "0.0.0.0:8443 (tls)",
        "10.0.0.5:8444 (tls, proxy_protocol)",
        "unix:/run/sluicegate/gateway.sock",
    ]
    again = pickle.loads(pickle.dumps(config))
    assert again.listen[1].tls is not None
    assert again.listen[1].tls.pem.key == (tmp_path / "key.pem").read_bytes()
    assert "PRIVATE" not in repr(config)


def test_the_example_of_backends_over_tls(tmp_path: Path) -> None:
    for ours, theirs in (("long.pem", "cert.pem"), ("key.pem", "key.pem")):
        (tmp_path / theirs).write_bytes((Path(__file__).parent / "certificates" / ours).read_bytes())
    config = load_text(TLS_BACKENDS.read_text(), tmp_path / "tls-backends.yaml")
    assert lint(config) == []
    assert [each.name for pool in config.pools.values() for each in pool.backends] == [
        "models.example.com:443",
        "10.0.0.11:8443",
        "10.0.0.12:8443",
        "unix:/run/models/http.sock",
    ]
    again = pickle.loads(pickle.dumps(config))
    assert again.pools["public"].tls is None
    assert again.pools["inside"].tls.settings == config.pools["inside"].tls.settings
    assert again.pools["inside"].tls.settings.key == (tmp_path / "key.pem").read_bytes()
    assert "PRIVATE" not in repr(config)
