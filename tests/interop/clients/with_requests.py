"""requests, one session."""

import sys
import time

import requests
from common import LARGE, SMALL, digest, pieces, tell

base, kept = sys.argv[1:]
session = requests.Session()
session.trust_env = False


def get():
    answer = session.get(f"{base}/o/hello")
    return {"status": answer.status_code, "body": answer.text, "type": answer.headers["content-type"]}


def head():
    answer = session.head(f"{base}/o/hello")
    return {"status": answer.status_code, "body": answer.text, "length": answer.headers["content-length"]}


def upload(data):
    headers = {"content-type": "application/json"} if data is SMALL else {}
    answer = session.post(f"{base}/o/digest", data=data, headers=headers)
    return {"status": answer.status_code, "told": answer.json()}


def download(query):
    answer = session.get(f"{base}/o/large{query}", stream=True)
    body = b"".join(answer.iter_content(65536))
    return {"status": answer.status_code, "sha256": digest(body), "length": answer.headers.get("content-length")}


def keep_alive():
    return {"statuses": [session.get(f"{kept}/o/hello").status_code for _ in range(6)]}


def zipped():
    answer = session.get(f"{base}/o/gzip", headers={"accept-encoding": "gzip"}, stream=True)
    raw = answer.raw.read(decode_content=False)
    return {"status": answer.status_code, "sha256": digest(raw), "encoding": answer.headers["content-encoding"]}


def nothing():
    answer = session.get(f"{base}/o/nothing")
    return {"status": answer.status_code, "body": answer.text}


def unchanged():
    answer = session.get(f"{base}/o/tagged", headers={"if-none-match": '"v1"'})
    return {"status": answer.status_code, "body": answer.text, "etag": answer.headers["etag"]}


def absent():
    answer = session.get(f"{base}/no/such")
    return {"status": answer.status_code, "type": answer.headers["content-type"], "told": answer.json()["status"]}


def redirect():
    first = session.get(f"{base}/o/redirect", allow_redirects=False)
    last = session.get(f"{base}/o/redirect")
    return {"status": first.status_code, "location": first.headers["location"], "body": last.text}


def early_close():
    with requests.Session() as other:
        other.trust_env = False
        answer = other.get(f"{base}/o/endless", stream=True)
        size = len(next(answer.iter_content(100_000)))
        answer.close()
    return {"status": answer.status_code, "some": size > 0}


def events():
    answer = session.get(f"{base}/o/events", stream=True)
    times, data = [], []
    for line in answer.iter_lines(chunk_size=1):
        if line.startswith(b"data: "):
            times.append(time.monotonic())
            data.append(line[6:].decode())
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
