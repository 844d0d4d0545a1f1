"""Flask under gunicorn; what each path answers is told in with_aiohttp.py."""

import hashlib

from flask import Flask, Response, jsonify, request

app = Flask(__name__)


@app.after_request
def say_peer(answer):
    answer.headers["X-Peer"] = f"{request.remote_addr}:{request.environ['REMOTE_PORT']}"
    return answer


@app.get("/hello")
def hello():
    return Response("hello\n", mimetype="text/plain")


@app.get("/chunked")
def chunked():
    return Response((bytes([97 + number]) * 65536 for number in range(16)), mimetype="text/plain")


@app.post("/digest")
def digest():
    sum_, size = hashlib.sha256(), 0
    while data := request.stream.read(65536):
        sum_.update(data)
        size += len(data)
    return jsonify(size=size, sha256=sum_.hexdigest())


@app.get("/nothing")
def nothing():
    return Response(status=204)
