"""curl: each case one command."""

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import LARGE, SMALL, digest, tell

base, kept = sys.argv[1:]
COMMAND = ["curl", "-q", "-sS", "--noproxy", "*", "--max-time", "20"]


def curl(*arguments, sent=None):
    done = subprocess.run([*COMMAND, "-i", *arguments], input=sent, capture_output=True, check=True)
    rest, heads = done.stdout, []
    while rest.startswith(b"HTTP/"):
        head, _, rest = rest.partition(b"\r\n\r\n")
        heads.append(head.decode())
    fields = dict(re.findall(r"^(.*?): (.*?)\r?$", heads[-1].lower(), re.MULTILINE))
    return [int(head.split()[1]) for head in heads], fields, rest


def get():
    statuses, fields, body = curl(f"{base}/o/hello")
    return {"status": statuses[-1], "body": body.decode(), "type": fields["content-type"]}


def head():
    statuses, fields, body = curl("--head", f"{base}/o/hello")
    return {"status": statuses[-1], "body": body.decode(), "length": fields["content-length"]}


def upload(*arguments, data=LARGE):
    statuses, _, body = curl(*arguments, "--data-binary", "@-", f"{base}/o/digest", sent=data)
    return {"status": statuses[-1], "told": json.loads(body), "before": statuses[:-1]}


def no_expect(seen):
    seen.pop("before")
    return seen


def download(query, *arguments):
    statuses, fields, body = curl(*arguments, f"{base}/o/large{query}")
    return {"status": statuses[-1], "sha256": digest(body), "length": fields.get("content-length")}


def keep_alive():
    out = [word for _ in range(6) for word in ("-o", "/dev/null")]
    command = [*COMMAND, "-w", "%{http_code} ", *out, *[f"{kept}/o/hello"] * 6]
    return {"statuses": [int(word) for word in subprocess.check_output(command).split()]}


def zipped():
    statuses, fields, body = curl("-H", "Accept-Encoding: gzip", f"{base}/o/gzip")
    return {"status": statuses[-1], "sha256": digest(body), "encoding": fields["content-encoding"]}


def nothing():
    statuses, _, body = curl(f"{base}/o/nothing")
    return {"status": statuses[-1], "body": body.decode()}


def unchanged():
    statuses, fields, body = curl("-H", 'If-None-Match: "v1"', f"{base}/o/tagged")
    return {"status": statuses[-1], "body": body.decode(), "etag": fields["etag"]}


def absent():
    statuses, fields, body = curl(f"{base}/no/such")
    return {"status": statuses[-1], "type": fields["content-type"], "told": json.loads(body)["status"]}


def redirect():
    statuses, fields, _ = curl(f"{base}/o/redirect")
    body = curl("-L", f"{base}/o/redirect")[2]
    return {"status": statuses[-1], "location": fields["location"], "body": body.decode()}


def early_close():
    command = [*COMMAND, "-N", f"{base}/o/endless"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        some = process.stdout.read(100_000)
        process.kill()
    return {"status": 200, "some": len(some) > 0}


def events():
    times, data = [], []
    with subprocess.Popen([*COMMAND, "-N", "-i", f"{base}/o/events"], stdout=subprocess.PIPE) as process:
        head = b"".join(iter(process.stdout.readline, b"\r\n")).decode().lower()
        for line in process.stdout:
            if line.startswith(b"data: "):
                times.append(time.monotonic())
                data.append(line[6:].decode().strip())
    kind = re.search(r"^content-type: (.*?)\r$", head, re.MULTILINE)[1]
    return {"status": int(head.split()[1]), "type": kind, "data": data, "times": times}


def refused():
    """Told no before it sends: curl keeps the 20 MB to itself."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload"
        path.write_bytes(LARGE * 4)
        command = [*COMMAND, "--expect100-timeout", "10", "-H", "Expect: 100-continue", "-o", "/dev/null"]
        command += ["-w", "%{http_code} %{size_upload}", "-T", str(path), "-X", "POST", f"{base}/o/digest"]
        status, sent = subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout.split()
    return {"status": int(status), "sent": int(sent)}


EXPECT = ("--expect100-timeout", "10", "-H", "Expect: 100-continue")
tell("get", get)
tell("head", head)
tell("post", lambda: no_expect(upload("-H", "Expect:", "-H", "Content-Type: application/json", data=SMALL)))
tell("upload", lambda: no_expect(upload("-H", "Expect:")))
tell("upload-chunked", lambda: no_expect(upload("-H", "Expect:", "-H", "Transfer-Encoding: chunked")))
tell("expect", lambda: upload(*EXPECT))
tell("expect-chunked", lambda: upload(*EXPECT, "-H", "Transfer-Encoding: chunked"))
tell("expect-refused", refused)
tell("download", lambda: download(""))
tell("download-chunked", lambda: download("?chunked"))
tell("http-1.0", lambda: download("", "--http1.0"))
tell("http-1.0-chunked", lambda: download("?chunked", "--http1.0"))
tell("keep-alive", keep_alive)
tell("gzip", zipped)
tell("204", nothing)
tell("304", unchanged)
tell("404", absent)
tell("redirect", redirect)
tell("early-close", early_close)
tell("events", events)
