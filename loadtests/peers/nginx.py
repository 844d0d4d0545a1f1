"""nginx as a plain proxy, and nginx with a token bucket in Redis asked from Lua, one EVALSHA a request.

The Lua peer is what a team builds today when it wants limits shared by several proxies without a sidecar; it uses
Debian's `lua-nginx-redis` client with its keep-alive pool. Its bucket does what the gateway's does: one hash, Redis'
own clock.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from loadtests.peers.base import BURST, RATE, Endpoint, Peer
from loadtests.peers.processes import Process, free_ports
from loadtests.peers.programs import find_program

MODULES = Path("/usr/lib/nginx/modules")
LUA_FILES = (
    MODULES / "ndk_http_module.so",
    MODULES / "ngx_http_lua_module.so",
    Path("/usr/share/lua/5.1/resty/core.lua"),
    Path("/usr/share/lua/5.1/nginx/redis.lua"),
)

BASE = """\
%(modules)s
worker_processes 1;
daemon off;
user root;
pid %(workdir)s/%(name)s.pid;
error_log stderr warn;
events { worker_connections 4096; }
http {
    access_log off;
    server_tokens off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    client_body_temp_path %(workdir)s/%(name)s-body;
    proxy_temp_path %(workdir)s/%(name)s-proxy;
    fastcgi_temp_path %(workdir)s/%(name)s-fastcgi;
    uwsgi_temp_path %(workdir)s/%(name)s-uwsgi;
    scgi_temp_path %(workdir)s/%(name)s-scgi;
%(http)s
}
"""

PROXY = """\
    upstream origin { server %(origin)s; keepalive 256; keepalive_requests 1000000000; }
    server {
        listen 127.0.0.1:%(port)d;
        location / {
%(before)s
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Request-Id $request_id;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }
    }
"""

BUCKET = """\
    init_by_lua_block {
        redis = require "nginx.redis"
        bucket = [[
            local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
            local t = redis.call('TIME')
            local now = tonumber(t[1]) + tonumber(t[2]) / 1e6
            local old = redis.call('HMGET', KEYS[1], 'n', 't')
            local n = tonumber(old[1]) or burst
            n = math.min(burst, n + math.max(0, now - (tonumber(old[2]) or now)) * rate)
            local ok = n >= 1 and 1 or 0
            n = n - ok
            redis.call('HSET', KEYS[1], 'n', n, 't', now)
            redis.call('PEXPIRE', KEYS[1], math.ceil(burst / rate * 1000) + 1000)
            return {ok, math.floor(n)}
        ]]
    }
"""

ASK = """\
            access_by_lua_block {
                local red = redis:new()
                red:set_timeout(100)
                local ok, err = red:connect("%(store_host)s", %(store_port)d)
                if not ok then return ngx.exit(503) end
                local key = "lua:{" .. (ngx.var.http_x_api_key or ngx.var.remote_addr) .. "}"
                local res
                if bucket_sha then res, err = red:evalsha(bucket_sha, 1, key, %(rate)d, %(burst)d) end
                if not res then
                    bucket_sha = red:script("load", bucket)
                    res, err = red:evalsha(bucket_sha, 1, key, %(rate)d, %(burst)d)
                end
                red:set_keepalive(60000, 256)
                if not res then return ngx.exit(503) end
                ngx.header["RateLimit"] = '"per-client";r=' .. res[2]
                if res[1] == 0 then return ngx.exit(429) end
            }
"""


def start_nginx(name: str, workdir: Path, http: str, modules: str = "") -> Process:
    """nginx with one worker and this inside `http {}`."""
    program = find_program("nginx") or "nginx"
    file = workdir / f"{name}.conf"
    file.write_text(BASE % {"modules": modules, "workdir": workdir, "name": name, "http": http})
    return Process(name, [program, "-p", str(workdir), "-e", "stderr", "-c", str(file)], workdir)


class Nginx(Peer):
    """Plain proxy."""

    name: ClassVar[str] = "nginx"
    does: ClassVar[str] = "plain proxy"

    def available(self) -> str | None:
        return None if find_program("nginx") else "nginx is not installed"

    def start(self, origin: Endpoint, store: Endpoint, workdir: Path) -> int:
        del store
        [port] = free_ports(1)
        http = PROXY % {"origin": origin, "port": port, "before": ""}
        self.run(start_nginx("nginx", workdir, http), port)
        return port


class NginxLua(Peer):
    """nginx asking Redis from Lua."""

    name: ClassVar[str] = "nginx+lua+redis"
    does: ClassVar[str] = "token bucket, one EVALSHA a request"
    limits: ClassVar[bool] = True

    def available(self) -> str | None:
        missing = [file.name for file in LUA_FILES if not file.exists()]
        if not find_program("nginx"):
            return "nginx is not installed"
        return f"missing {', '.join(missing)}" if missing else None

    def start(self, origin: Endpoint, store: Endpoint, workdir: Path) -> int:
        [port] = free_ports(1)
        ask = ASK % {"store_host": store.host, "store_port": store.port, "rate": RATE, "burst": BURST}
        modules = "\n".join(f"load_module {file};" for file in LUA_FILES[:2])
        http = BUCKET + PROXY % {"origin": origin, "port": port, "before": ask}
        self.run(start_nginx("nginx-lua", workdir, http, modules), port)
        return port
