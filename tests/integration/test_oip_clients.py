"""go_infer's protocols with the clients people have, unmodified: what each claims is in tests/interop/clients."""

from __future__ import annotations

import ast
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.layout import GO_INFER, MODELS
from loadtests.peers.processes import Process, free_ports
from tests.integration.served import PROBES, make_probes, wait_until_ready
from tests.interop.environments import CLIENTS, perf_analyzer, python
from tests.interop.programs import NotHere

REQUESTS = ':tensorflow:serving:request_count{model_name="digits",status="OK"}'
HELPERS = ("image", "refused")  # the functions of a client's file that are no claims
CONFIG = (
    'config {{ name: "{name}" base_path: "{base}" model_platform: "tensorflow" model_version_policy {{ all {{}} }} }}\n'
)


def claims(client: str) -> list[str]:
    """The functions of a client's file, without importing what only its own environment has."""
    tree = ast.parse((CLIENTS / f"with_{client}.py").read_text())
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name not in HELPERS]


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """A server of the digits and of the probes, which lets requests load and unload models; its ports for HTTP and gRPC."""
    make_probes()
    folder = tmp_path_factory.mktemp("oip")
    bases = {"digits": MODELS / "digits", "types": PROBES / "types", "strings": PROBES / "strings"}
    models = "".join(CONFIG.format(name=name, base=base.resolve()) for name, base in bases.items())
    (folder / "models.config").write_text(f"model_config_list {{\n{models}}}\n")
    number, grpc = free_ports(2)
    flags = [f"--model_config_file={folder / 'models.config'}", f"--rest_api_port={number}", f"--port={grpc}"]
    server = Process("go_infer", [str(GO_INFER.resolve()), *flags, "--allow_model_control"], folder)
    try:
        server.wait_for_port(number)
        wait_until_ready(number)
        yield number, grpc
    finally:
        server.stop()


@pytest.fixture(scope="module")
def port(ports: tuple[int, int]) -> int:
    return ports[0]


def run(client: str, package: str, claim: str, port: int) -> None:
    try:
        interpreter = python(client, package)
    except NotHere as reason:
        pytest.skip(str(reason))
    command = [str(interpreter), str(CLIENTS / f"with_{client}.py"), f"127.0.0.1:{port}", claim]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("claim", claims("tritonclient"))
def test_tritonclient(port: int, claim: str) -> None:
    run("tritonclient", "tritonclient[http]", claim, port)


@pytest.mark.parametrize("claim", claims("ovmsclient"))
def test_ovmsclient(port: int, claim: str) -> None:
    run("ovmsclient", "ovmsclient", claim, port)


def test_perf_analyzer_measures_over_http(port: int, tmp_path: Path) -> None:
    """Its own figures of the server come from the statistics extension, so they must agree with what it sent."""
    try:
        program, environment = perf_analyzer()
    except NotHere as reason:
        pytest.skip(str(reason))
    table = tmp_path / "table.csv"
    options = "-i http --service-kind triton -b 4 --concurrency-range 4 --measurement-mode count_windows -r 3 -s 100"
    command = [str(program), "-m", "digits", "-u", f"127.0.0.1:{port}", "-f", str(table), *options.split()]
    command += ["--measurement-request-count", "200", "--verbose-csv"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    assert "Successful request count:" in done.stdout
    names, figures = (line.split(",") for line in table.read_text().splitlines()[:2])
    row = dict(zip(names, figures, strict=True))
    assert float(row["Inferences/Second"]) > 0
    assert float(row["Server Compute Infer"]) > 0


def test_perf_analyzer_measures_tensorflow_serving_over_grpc(ports: tuple[int, int], tmp_path: Path) -> None:
    """Its requests are TensorFlow Serving's Predict, and counted under TensorFlow Serving's names."""
    try:
        program, environment = perf_analyzer()
    except NotHere as reason:
        pytest.skip(str(reason))
    rest, grpc = ports
    table = tmp_path / "table.csv"
    options = "-i grpc --service-kind tfserving -b 4 --shape image:64 --concurrency-range 4 -r 3 -s 100"
    command = [str(program), "-m", "digits", "-u", f"127.0.0.1:{grpc}", "-f", str(table), *options.split()]
    command += ["--measurement-mode", "count_windows", "--measurement-request-count", "200"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    names, figures = (line.split(",") for line in table.read_text().splitlines()[:2])
    assert float(dict(zip(names, figures, strict=True))["Inferences/Second"]) > 0
    with urllib.request.urlopen(f"http://127.0.0.1:{rest}/metrics", timeout=5) as answer:
        metrics = answer.read().decode()
    [counted] = [line for line in metrics.splitlines() if line.startswith(REQUESTS)]
    assert float(counted.split()[-1]) >= 200
    assert ':tensorflow:serving:request_latency_count{model_name="digits",API="Predict",entrypoint="GRPC"}' in metrics


def test_schemathesis_finds_nothing(port: int, tmp_path: Path) -> None:
    """The OpenAPI document and the server agree, on thousands of good and bad requests made from it."""
    try:
        interpreter = python("schemathesis", "schemathesis>=4,<5")
    except NotHere as reason:
        pytest.skip(str(reason))
    # No schema can say that a shape, a name and the data fit each other and the model: a request that is right by the
    # document may still be refused with 400, as may loading a model that is not there.
    config = tmp_path / "schemathesis.toml"
    config.write_text('[checks.positive_data_acceptance]\nexpected-statuses = ["2xx", "400", "404", "503"]\n')
    limits = ["--checks", "all", "--continue-on-failure", "-n", "30", "--max-time", "40", "--seed", "1", "--no-color"]
    limits += ["--exclude-path-regex", "/(un)?load$"]  # a model unloaded by one request is missed by the next
    place = f"http://127.0.0.1:{port}/v2/openapi.json"
    command = [str(interpreter.with_name("schemathesis")), "--config-file", str(config), "run", place, *limits]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/digits/ready", timeout=5) as answer:
        assert json.load(answer) == {"name": "digits", "ready": True}
