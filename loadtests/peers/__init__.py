"""The proxies that the gateway is compared with: one file per program, one line each in :data:`PEERS`.

Adding one: a file with a :class:`~loadtests.peers.base.Peer`, and its line here.
"""

from loadtests.peers.base import Peer
from loadtests.peers.echoed import EnvoyEcho, EnvoyRatelimitEcho, NginxLuaEcho, SluicegateEcho, SluicegateLink
from loadtests.peers.envoy import Envoy, EnvoyRatelimit
from loadtests.peers.golang import Caddy, GoProxy
from loadtests.peers.haproxy import Haproxy
from loadtests.peers.nginx import Nginx, NginxLua
from loadtests.peers.sluicegate import Sluicegate

__all__ = ["PEERS", "Peer"]

PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        Sluicegate, Nginx, NginxLua, Haproxy, Envoy, EnvoyRatelimit, Caddy, GoProxy,
        SluicegateLink, SluicegateEcho, EnvoyEcho, EnvoyRatelimitEcho, NginxLuaEcho,
    )
}  # fmt: skip
