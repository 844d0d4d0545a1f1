"""Whom a request is for: Host, the forms of the target, and paths that mean two things (RFC 9112 section 3, RFC 3986)."""

from tests.conformance.case import MAX_REQUEST_LINE, Family, Once, get


def asks(target: bytes, host: bytes = b"Host: a") -> bytes:
    return get(line=b"GET " + target + b" HTTP/1.1", host=host)


def sees(target: bytes) -> Once:
    return Once(b"GET " + target + b" HTTP/1.1")


host = Family("Host", "RFC 9112 3.2, RFC 9110 7.2")
host.refused("missing", get(host=None))
host.refused("twice, the same", get(b"Host: a"))
host.refused("twice, different", get(b"Host: b"))
host.refused("twice, spelt differently", get(b"hOST: a"))
for value in (
    b"a, b", b"a b", b"a/b", b"a?b", b"a#b", b"a\\b", b"u@a", b"u:p@a", b"http://a", b"a:b", b"a:-1", b"a:+1", b"a:80:80",
    b"a:999999", b"a:65536", b"[::1", b"::1", b"[]", b"[:::::]", b"[::1]x", b"[v1.a]", b"[a]", b"<a>", b'"a"', b"{a}", b"a|b", b"a^b",
    b"%61", b"%00", b"%2e", b"%zz", b"\xc3\xbc", b"a\xa0", b"a\tb", b"[fe80::1%25eth0]",
):  # fmt: skip
    host.refused(value.decode("latin-1"), get(host=b"Host: " + value))
for value in (
    b"",
    b"a.example",
    b"A.Example:80",
    b"a:",
    b"a.",
    b"127.0.0.1:1",
    b"[::1]",
    b"[::1]:80",
    b"[::ffff:1.2.3.4]",
    b"xn--bcher-kva",
    b"a_b",
):
    host.passes(value.decode() or "empty", get(host=b"Host: " + value), Once(host=value))
host.passes("blanks around", get(host=b"Host: \t a \t"), Once())
host.passes("X-Forwarded-Host", get(b"X-Forwarded-Host: evil", b"X-Host: b"), Once(fields=b"x-host: b\r\n"))

forms = Family("target-forms", "RFC 9112 3.2")
forms.passes("absolute", asks(b"http://a/x?y"), sees(b"/x?y"), clause="RFC 9112 3.2.2")
forms.passes("absolute, capitals", asks(b"HTTP://A/x"), sees(b"/x"))
forms.passes("absolute without a path", asks(b"http://a"), sees(b"/"))
forms.passes("absolute with a query alone", asks(b"http://a?y"), sees(b"/?y"))
forms.passes("absolute, https", asks(b"https://a/"), sees(b"/"), note="TLS ended in front of us")
for what, target in {
    "another host": b"http://b/", "another port": b"http://a:81/", "a user": b"http://u@a/", "no host": b"http:///x",
    "one slash": b"http:/x", "no slash": b"http:a/x", "ftp": b"ftp://a/", "file": b"file:///etc/passwd", "no scheme": b"://a/",
    "backslash": b"http://a\\b/", "authority": b"a:80", "authority without a port": b"a", "asterisk": b"*", "asterisk and more": b"*/x",
    "a query alone": b"?a", "a fragment": b"/a#b", "a fragment in the query": b"/?a#b", "a relative path": b"x/y", "a dot": b"./x",
    "absolute, climbing": b"http://a/../x", "absolute, two slashes": b"http://a//x", "javascript": b"javascript:alert(1)",
    "a blank escape": b"%2fx",
}.items():  # fmt: skip
    forms.refused(what, asks(target))
forms.refused("absolute without a host, empty Host", asks(b"http:///x", b"Host:"), clause="RFC 9110 4.2.1")
for method in (b"HEAD", b"POST", b"PUT"):
    line = method + b" * HTTP/1.1"
    forms.refused(line[:-9].decode(), get(line=line), "only OPTIONS asks so", clause="RFC 9112 3.2.4")

paths = Family("paths", "RFC 3986 6.2.2, 3.3")
for target, sent in {
    b"/a/./b": b"/a/b", b"/a/../b": b"/b", b"/a/b/..": b"/a/", b"/a/.": b"/a/", b"/%61": b"/a", b"/%7Ea": b"/~a", b"/%c3%bc": b"/%C3%BC",
    b"/a/%2e/b": b"/a/b", b"/a/%2e%2e/b": b"/b", b"/a/.%2e/b": b"/b", b"/a%20b": b"/a%20b", b"/...": b"/...", b"/.a": b"/.a",
    b"/a;b=c": b"/a;b=c", b"/a;b/c": b"/a;b/c", b"/a%3Bb": b"/a%3Bb", b"/a%25b": b"/a%25b", b"/%252e%252e/a": b"/%252e%252e/a",
    b"/a%252fb": b"/a%252fb", b"/?a=%2f..%2f//": b"/?a=%2f..%2f//", b"/?%zz": b"/?%zz", b"/?a?b": b"/?a?b", b"/?": b"/?",
    b"/a:b@c!$&'()*+,=": b"/a:b@c!$&'()*+,=", b"/v1/models/m:predict": b"/v1/models/m:predict",
}.items():  # fmt: skip
    paths.passes(
        target.decode(), asks(target), sees(sent), note="" if target == sent else "one spelling for routes and backend"
    )
for target in (
    b"/..", b"/../a", b"/a/../..", b"/%2e%2e", b"/%2E%2E/a", b"/a/%2e%2e/%2e%2e/b", b"/.%2e/a", b"//", b"//a", b"/a//b", b"/a//", b"///",
    b"/%2f", b"/a%2Fb", b"/a%2f..%2fb", b"/a%5cb", b"/a%5C..%5Cb", b"/a\\b", b"/..\\a", b"/%00", b"/a%00.json", b"/a%", b"/a%2", b"/a%zz", b"/%u002e",
    b"/%%32e", b"/..;/a", b"/a/..;x=y/b", b"/a/.;/b", b"/a/..%3b/b", b"/a/%2e%2e;/b", b"/\xc3\xbc", b"/a\xff", b"/?\xff", b"/\x80",
):  # fmt: skip
    paths.refused(target.decode("latin-1"), asks(target))
paths.refused("longer than allowed", asks(b"/" + b"a" * MAX_REQUEST_LINE), status=414, clause="RFC 9110 15.5.15")
paths.refused("query longer than allowed", asks(b"/?" + b"a" * MAX_REQUEST_LINE), status=414, clause="RFC 9110 15.5.15")
paths.refused("far longer than allowed", asks(b"/" + b"a" * 100_000), status=414, clause="RFC 9110 15.5.15")
paths.passes(
    "exactly as long as allowed", asks(b"/" + b"a" * (MAX_REQUEST_LINE - 1)), sees(b"/" + b"a" * (MAX_REQUEST_LINE - 1))
)

FAMILIES = (host, forms, paths)
