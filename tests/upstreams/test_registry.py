"""Backends live through a reload."""

from __future__ import annotations

from gateway.admission.admission import AdmissionSettings
from gateway.breakers.gate import BreakerSettings
from gateway.certificates import ClientTls, client_context
from gateway.http.dial import Address, Tls
from gateway.http.upstream import ClientLimits
from gateway.link.pool import LinkPool
from gateway.request import Outcome
from gateway.upstreams.registry import BackendRegistry, backend_key

ADDRESS = Address("127.0.0.1", 1)


def obtain(registry, name="a", address=ADDRESS, weight=1, pool="p", failures=1, idle=50.0, speaks="http", tls=None):
    return registry.obtain(
        pool, name, address, weight, BreakerSettings(failures=failures), ClientLimits(idle=idle), speaks, tls
    )


def test_the_same_backend_keeps_its_state_and_takes_new_settings():
    registry = BackendRegistry()
    backend = obtain(registry)
    backend.gate.release(backend.gate.try_acquire(0), Outcome.FAILURE, 0)
    backend.inflight = 3
    again = obtain(registry, "renamed", weight=7, failures=9, idle=1.0)
    assert again is backend
    assert (again.name, again.weight, again.inflight, again.gate.state) == ("renamed", 7, 3, "open")
    assert again.connections.limits.idle == 1.0


def test_another_pool_or_address_is_another_backend():
    registry = BackendRegistry()
    assert len({obtain(registry), obtain(registry, pool="q"), obtain(registry, address=Address("127.0.0.1", 2))}) == 3
    assert backend_key("p", ADDRESS) == "p/127.0.0.1:1"


def test_what_no_snapshot_names_is_forgotten():
    registry = BackendRegistry()
    kept, gone = obtain(registry), obtain(registry, pool="q")
    registry.retain({kept.key})
    assert registry.all() == [kept]
    assert registry.get(gone.key) is None
    assert obtain(registry, pool="q") is not gone


def test_a_change_of_protocol_keeps_the_backend_and_changes_its_connections():
    registry = BackendRegistry()
    backend = obtain(registry)
    http = backend.connections
    obtain(registry, speaks="auto")
    assert isinstance(backend.connections, LinkPool)
    assert not backend.connections.required
    link = backend.connections
    obtain(registry, speaks="auto")
    assert backend.connections is link
    obtain(registry, speaks="link")
    assert backend.connections.required
    obtain(registry)
    assert type(backend.connections) is type(http)
    assert backend.connections is not http


def test_other_tls_keeps_the_backend_and_changes_its_connections():
    def tls(name="a", **settings):
        own = ClientTls(**settings)
        return Tls(own, name, client_context(own))

    registry = BackendRegistry()
    backend = obtain(registry, tls=tls())
    backend.gate.release(backend.gate.try_acquire(0), Outcome.FAILURE, 0)
    before = backend.connections
    again = tls()
    obtain(registry, tls=again)
    assert backend.connections is before
    assert before.tls is again
    for other in (tls("b"), tls(min_version="1.3"), tls(verify=False), None):
        before = backend.connections
        obtain(registry, tls=other)
        assert backend.connections is not before
        assert backend.connections.tls is other
        assert before._closed
    assert backend.gate.state == "open"


PLACES = AdmissionSettings(0, 100, 10, 5_000_000)


def test_a_pools_admission_keeps_what_it_holds_and_has_learnt_through_a_reload():
    registry = BackendRegistry()
    admission = registry.admission("p", PLACES, 0)
    mark = admission.enter(1, 0)
    again = registry.admission("p", PLACES._replace(waiting=99), 1)
    assert again is admission
    assert (again.inflight, again.queue.most) == (1, 99)
    again.release(mark, 20_000_000, Outcome.SUCCESS, 20_000_000)
    assert again.limit.latency == 20_000_000
    assert registry.admission("q", PLACES, 0) is not admission


def test_every_admission_is_told_how_many_gateways_share_the_backends():
    registry = BackendRegistry()
    early = registry.admission("p", PLACES, 0)
    registry.share(6, 3, 0)
    late = registry.admission("q", PLACES, 0)
    assert (early.limit.gateways, late.limit.gateways) == (3, 3)


def test_the_admission_of_a_pool_that_no_snapshot_names_is_forgotten():
    registry = BackendRegistry()
    admission = registry.admission("p", PLACES, 0)
    registry.retain_pools({"q"})
    assert registry.admission("p", PLACES, 0) is not admission
