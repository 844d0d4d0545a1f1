"""httpx, one client."""

import sys
import time

import httpx
from common import LARGE, SMALL, digest, pieces, tell

base, kept = sys.argv[1:]
client = httpx.Client(trust_env=False, timeout=20)


def get():
    answer = client.get(f"{base}/o/hello")
    return {"status": answer.status_code, "body": answer.text, "type": answer.headers["content-type"]}


def head():
    answer = client.head(f"{base}/o/hello")
    return {"status": answer.status_code, "body": answer.text, "length": answer.headers["content-length"]}


def upload(data):
    headers = {"content-type": "application/json"} if data is SMALL else {}
    answer = client.post(f"{base}/o/digest", content=data, headers=headers)
    return {"status": answer.status_code, "told": answer.json()}


def download(query):
    with client.stream("GET", f"{base}/o/large{query}") as answer:
        body = b"".join(answer.iter_bytes())
    return {"status": answer.status_code, "sha256": digest(body), "length": answer.headers.get("content-length")}


def keep_alive():
    return {"statuses": [client.get(f"{kept}/o/hello").status_code for _ in range(6)]}


def zipped():
    with client.stream("GET", f"{base}/o/gzip", headers={"accept-encoding": "gzip"}) as answer:
        raw = b"".join(answer.iter_raw())
    return {"status": answer.status_code, "sha256": digest(raw), "encoding": answer.headers["content-encoding"]}


def nothing():
    answer = client.get(f"{base}/o/nothing")
    return {"status": answer.status_code, "body": answer.text}


def unchanged():
    answer = client.get(f"{base}/o/tagged", headers={"if-none-match": '"v1"'})
    return {"status": answer.status_code, "body": answer.text, "etag": answer.headers["etag"]}


def absent():
    answer = client.get(f"{base}/no/such")
    return {"status": answer.status_code, "type": answer.headers["content-type"], "told": answer.json()["status"]}


def redirect():
    first = client.get(f"{base}/o/redirect")
    last = client.get(f"{base}/o/redirect", follow_redirects=True)
    return {"status": first.status_code, "location": first.headers["location"], "body": last.text}


def early_close():
    with client.stream("GET", f"{base}/o/endless") as answer:
        size = len(next(answer.iter_bytes()))
    return {"status": answer.status_code, "some": size > 0}


def events():
    times, data = [], []
    with client.stream("GET", f"{base}/o/events") as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                times.append(time.monotonic())
                data.append(line[6:])
    return {"status": answer.status_code, "type": answer.headers["content-type"], "data": data, "times": times}


tell("get", get)
tell("head", head)
tell("post", lambda: upload(SMALL))
tell("upload", lambda: upload(LARGE))
tell("upload-chunked", lambda: upload(pieces()))
tell("download", lambda: download(""))
tell("download-chunked", lambda: download("?chunked"))
tell("keep-alive", keep_alive)
tell("gzip", zipped)
tell("204", nothing)
tell("304", unchanged)
tell("404", absent)
tell("redirect", redirect)
tell("early-close", early_close)
tell("events", events)
