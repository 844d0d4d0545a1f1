"""Passwords, users and TLS with real servers: one, a master that sentinels exchange, and a cluster; and what is said
when the wrong word is given.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.app.compile import store_address
from gateway.config.load import load_text
from gateway.store.link import StoreTimes
from gateway.store.shared import SharedStore
from loadtests.peers.processes import free_ports
from loadtests.peers.programs import find_tls_store
from loadtests.peers.valkeys import PLAIN, Guard, Nodes, Server, Watched
from tests.store.test_cluster import CLIENT, Worker, until

pytestmark = pytest.mark.long

TIMES = StoreTimes(deadline=0.2, connect_timeout=0.5, reconnect_min=0.01, reconnect_max=0.1)
ROOT = Path(__file__).parents[2]
OPENSSL = shutil.which("openssl")
SERVER = find_tls_store()
tls_needed = pytest.mark.skipif(
    not (OPENSSL and SERVER), reason="openssl and a Redis with TLS (redis-tools) are needed"
)
CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def issue(folder: Path) -> Path:
    """An authority and a server's certificate for 127.0.0.1, both in `folder`."""
    folder.mkdir()
    (folder / "san").write_text("subjectAltName=DNS:store.test,IP:127.0.0.1\n")
    for words in (
        ("req", "-x509", *CURVE, "-days", "2", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem"),
        ("req", *CURVE, "-subj", "/CN=store", "-keyout", "key.pem", "-out", "csr"),
        ("x509", "-req", "-in", "csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1",
         "-extfile", "san", "-out", "cert.pem"),
    ):  # fmt: skip
        subprocess.run([str(OPENSSL), *words], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return issue(tmp_path_factory.mktemp("tls") / "right")


def address(folder: Path, url: str, **keys: str):
    """As a configuration says it, with everything that reads it in between."""
    more = "".join(f", {name}: {value}" for name, value in keys.items())
    text = f'version: 1\nstore: {{url: "{url}"{more}}}\n'
    text += 'pools: {p: {backends: [{url: "http://127.0.0.1:1"}]}}\nroutes: [{name: r, match: {path: /}, pool: p}]\n'
    return store_address(load_text(text, folder / "gateway.yaml").store)


class Told(Worker):
    def __init__(self, where):
        super().__init__("redis+cluster://127.0.0.1:1")
        self.store = SharedStore(where, TIMES, "gw", lambda up, forgot: self.turns.append((up, forgot)))
        self.limiter._store = self.store.buckets


async def works(where):
    worker = await Told(where).start()
    verdict = await worker.ask(CLIENT)
    assert (verdict.by, verdict.allowed) == (0, True)
    return worker


async def refused(where, caplog):
    """What the log says of it."""
    caplog.clear()
    worker = Told(where)
    worker.store.start()
    assert not await worker.store.ready(0.7)
    assert (await worker.ask(CLIENT)).by == 1
    await worker.store.close()
    assert "secret" not in caplog.text
    return caplog.text


GUARDS = {"password": Guard("secret-1", sentinel_password="secret-2"), "user": Guard("secret-1", "limits", "secret-2")}


def guard_of(kind: str, request: pytest.FixtureRequest) -> Guard:
    return Guard(certificates=request.getfixturevalue("certificates")) if kind == "tls" else GUARDS[kind]


KINDS = pytest.mark.parametrize("kind", ["password", "user", pytest.param("tls", marks=tls_needed)])


@KINDS
async def test_one_server(kind, request, tmp_path, caplog):
    guard = guard_of(kind, request)
    server = Server(tmp_path / "one", free_ports(1)[0], [*PLAIN, *guard.login()], guard=guard)
    server.start()
    try:
        host = f"127.0.0.1:{server.port}"
        if kind == "tls":
            tls = f"{{ca: {guard.certificates}/ca.pem}}"
            worker = await works(address(tmp_path, f"rediss://{host}", tls=tls))
            await worker.store.close()
            by_name = f"{{ca: {guard.certificates}/ca.pem, server_name: store.test}}"
            worker = await works(address(tmp_path, f"rediss://{host}", tls=by_name))
            await worker.store.close()
            by_name = by_name.replace("store.test", "other.test")
            said = await refused(address(tmp_path, f"rediss://{host}", tls=by_name), caplog)
            assert "its certificate is not accepted: Hostname mismatch" in said
            other = issue(tmp_path / "wrong")
            said = await refused(address(tmp_path, f"rediss://{host}", tls=f"{{ca: {other}/ca.pem}}"), caplog)
            assert f"{host}/0: its certificate is not accepted: self-signed certificate in certificate chain" in said
            assert "store.tls.ca" in said
            assert "does it speak TLS" in await refused(address(tmp_path, f"redis://{host}"), caplog)
        else:
            worker = await works(address(tmp_path, f"redis://{guard.username}:secret-1@{host}"))
            await worker.store.close()
            said = await refused(address(tmp_path, f"redis://{guard.username}:secret-0@{host}"), caplog)
            assert f"{host}/0: WRONGPASS" in said
            assert "(check the user name and the password)" in said
            said = await refused(address(tmp_path, f"redis://{host}"), caplog)
            assert f"{host}/0: NOAUTH Authentication required. (it asks for a password)" in said
    finally:
        server.kill()


async def test_a_password_for_a_server_that_has_none(tmp_path, caplog):
    server = Server(tmp_path / "one", free_ports(1)[0], PLAIN)
    server.start()
    try:
        said = await refused(address(tmp_path, f"redis://:secret-1@127.0.0.1:{server.port}"), caplog)
        assert "(it has no password: give none)" in said
    finally:
        server.kill()


async def test_a_user_who_may_not_do_what_limits_need(tmp_path, caplog):
    guard = Guard("secret-1", "limits")
    server = Server(tmp_path / "one", free_ports(1)[0], [*PLAIN, *guard.login()], guard=guard)
    server.start()
    try:
        server.client.execute_command("ACL", "SETUSER", "reader", "on", ">secret-3", "~*", "+ping", "+get")
        said = await refused(address(tmp_path, f"redis://reader:secret-3@127.0.0.1:{server.port}"), caplog)
        assert "NOPERM" in said
        assert "docs/limits.md" in said
    finally:
        server.kill()


async def test_the_user_of_the_page_on_limits_may_do_what_limits_need(tmp_path):
    page = (ROOT / "docs/limits.md").read_text(encoding="utf-8")
    [rule] = re.findall("^ACL SETUSER gateway (.*)$", page, re.MULTILINE)
    script = (ROOT / "gateway/limits/bucket.lua").read_text(encoding="utf-8")
    assert {f"+{command.lower()}" for command in re.findall(r"redis\.call\('([A-Z]+)'", script)} <= set(rule.split())
    server = Server(tmp_path / "one", free_ports(1)[0], PLAIN)
    server.start()
    try:
        server.client.execute_command("ACL", "SETUSER", "gateway", *rule.replace("sluicegate", "gw").split())
        worker = await works(address(tmp_path, f"redis://gateway:PASSWORD@127.0.0.1:{server.port}"))
        await worker.store.close()
    finally:
        server.kill()


@tls_needed
async def test_tls_to_a_server_that_speaks_none(tmp_path, certificates, caplog):
    server = Server(tmp_path / "one", free_ports(1)[0], PLAIN)
    server.start()
    try:
        tls = f"{{ca: {certificates}/ca.pem}}"
        said = await refused(address(tmp_path, f"rediss://127.0.0.1:{server.port}", tls=tls), caplog)
        assert "(does it speak TLS on this port?)" in said
    finally:
        server.kill()


@KINDS
async def test_a_master_that_sentinels_exchange(kind, request, tmp_path, caplog):
    guard = guard_of(kind, request)
    keys = {"tls": f"{{ca: {guard.certificates}/ca.pem}}"} if kind == "tls" else {"sentinel_password_file": "word"}
    (tmp_path / "word").write_text("secret-2\n")
    (tmp_path / "wrong-word").write_text("secret-0\n")
    watched = Watched(tmp_path, guard)
    try:
        where = address(tmp_path, watched.guarded_url, **keys)
        worker = await works(where)
        if kind == "tls":
            other = issue(tmp_path / "wrong")
            said = await refused(address(tmp_path, watched.guarded_url, tls=f"{{ca: {other}/ca.pem}}"), caplog)
            assert "no sentinel names a master of 'main': 127.0.0.1" in said
            assert "its certificate is not accepted" in said
        else:
            wrong = address(tmp_path, watched.guarded_url, sentinel_password_file="wrong-word")
            assert "no sentinel names a master of 'main': 127.0.0.1" in (said := await refused(wrong, caplog))
            assert "WRONGPASS" in said
            said = await refused(address(tmp_path, watched.guarded_url), caplog)
            assert "NOAUTH Authentication required. (it asks for a password)" in said
            url = watched.guarded_url.replace("secret-1", "secret-9")
            said = await refused(address(tmp_path, url, **keys), caplog)
            assert f"127.0.0.1:{watched.master().port}/0: WRONGPASS" in said, "the sentinels let us in, the master not"
        said = await refused(address(tmp_path, watched.guarded_url.replace("/main", "/other"), **keys), caplog)
        assert "it does not know the service 'other'" in said
        old = watched.master()
        old.kill()
        await until(lambda: not worker.store.up)
        await until(lambda: worker.store.up, 20)
        assert watched.master() is not old
        assert (await worker.ask(CLIENT)).by == 0
        await worker.store.close()
    finally:
        watched.close()


@KINDS
async def test_a_cluster(kind, request, tmp_path, caplog):
    guard = guard_of(kind, request)
    nodes = Nodes(tmp_path, guard=guard)
    try:
        keys = {"tls": f"{{ca: {guard.certificates}/ca.pem}}"} if kind == "tls" else {}
        worker = await works(address(tmp_path, nodes.guarded_url, **keys))
        verdicts = await asyncio.gather(*(worker.ask(CLIENT, client=b"c%d" % i) for i in range(30)))
        assert {verdict.by for verdict in verdicts} == {0}
        assert len({worker.store.link(b"{c%d}" % i) for i in range(30)}) == 3
        await worker.store.close()
        if kind == "tls":
            other = issue(tmp_path / "wrong")
            said = await refused(address(tmp_path, nodes.guarded_url, tls=f"{{ca: {other}/ca.pem}}"), caplog)
            assert "its certificate is not accepted" in said
        else:
            wrong = nodes.guarded_url.replace("secret-1", "secret-9")
            assert "WRONGPASS" in await refused(address(tmp_path, wrong), caplog)
    finally:
        nodes.close()
