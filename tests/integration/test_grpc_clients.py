"""TensorFlow Serving's, Triton's and OVMS's own gRPC clients, unmodified, at go_infer.

Each client runs once through all its cases (tests/interop/clients/grpc_*.py) and prints what it saw; here it is judged.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from demo.layout import GO_INFER, MODELS, ROOT
from loadtests.peers.processes import Process, free_ports
from tests.integration.served import PROBES, make_probes, wait_until_ready
from tests.interop.environments import python
from tests.interop.programs import NotHere

SERVED = {"digits": MODELS / "digits", "types": PROBES / "types", "iris": PROBES / "iris"}
CLIENTS = ROOT / "tests" / "interop" / "clients"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The addresses of a server for digits, types and iris each."""
    make_probes()
    folder = tmp_path_factory.mktemp("servers")
    running, addresses = [], []
    try:
        for name, base in SERVED.items():
            rest, port = free_ports(2)
            config = folder / f"{name}.conf"
            policy = "model_version_policy { all {} }"
            config.write_text(
                f'model_config_list {{ config {{ name: "{name}" base_path: "{base.resolve()}" {policy} }} }}\n'
            )
            flags = [f"--model_config_file={config}", f"--rest_api_port={rest}", f"--port={port}"]
            running.append(
                Process(name, [str(GO_INFER), *flags, "--exit_with_parent", "--allow_model_control"], folder)
            )
            addresses.append((f"127.0.0.1:{port}", rest))
        for process, (_, rest) in zip(running, addresses, strict=True):
            process.wait_for_port(rest)
            wait_until_ready(rest)
        yield [address for address, _ in addresses]
    finally:
        for process in running:
            process.stop()


PACKAGES = {
    # The first one's stubs import TensorFlow itself, which is 250 MB and here already; the others want protobuf < 7.
    "tfserving": ("tensorflow-serving-api==2.21.0", "grpcio-reflection>=1.80,<2", "grpcio-health-checking>=1.80,<2"),
    "triton": ("tritonclient[grpc]==2.73.0", "ovmsclient==2023.1"),
}


def _seen(name: str, script: str, servers: list[str]) -> dict[str, dict[str, Any]]:
    """What a client saw, by case."""
    try:
        own = python(name, *PACKAGES[name], borrows=name == "tfserving")
    except NotHere as why:
        pytest.skip(str(why))
    data = [str(SERVED["digits"] / "heldout.json"), str(SERVED["iris"] / "heldout.json")]
    ran = subprocess.run(
        [str(own), str(CLIENTS / script), *servers, *data], capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    cases = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    return {seen.pop("case"): seen for seen in cases}


@pytest.fixture(scope="module")
def tfserving(servers: list[str]) -> dict[str, dict[str, Any]]:
    return _seen("tfserving", "grpc_tfserving.py", servers)


@pytest.fixture(scope="module")
def triton(servers: list[str]) -> dict[str, dict[str, Any]]:
    return _seen("triton", "grpc_triton.py", servers)


def test_tensorflow_serving_names_digits(tfserving):
    seen = tfserving["named"]
    assert seen["right"] >= 95
    assert (seen["version"], seen["signature"], seen["fields"]) == (2, "serving_default", [1000, 0])
    assert seen["one"] == [1, ["label"]]


def test_tensorflow_serving_gets_every_type_back(tfserving):
    assert tfserving["round_trips"] == {"types": 14, "wrong": []}


def test_tensorflow_serving_classifies_and_regresses(tfserving):
    one, both, made = tfserving["examples"]["accuracy"]
    assert one == both == pytest.approx(made)
    one, both, made = tfserving["examples"]["error"]
    assert one == both == pytest.approx(made, abs=1e-4)


def test_tensorflow_serving_is_told_of_the_model(tfserving):
    assert tfserving["metadata"] == {"dtype": 1, "shape": [-1, 64], "version": 2}
    assert tfserving["status"] == {"versions": [[2, "AVAILABLE", 0], [1, "AVAILABLE", 0]]}


def test_tensorflow_serving_reloads_a_configuration(tfserving):
    assert tfserving["reload"]["same"] == ["OK", ""]
    assert tfserving["reload"]["empty"] == [
        "INVALID_ARGUMENT",
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported",
    ]


def test_tensorflow_serving_is_refused_in_its_words(tfserving):
    assert tfserving["errors"] == {
        "unknown model": ["NOT_FOUND", "Servable not found for request: Latest(cats)"],
        "unknown version": ["NOT_FOUND", "Servable not found for request: Specific(digits, 9)"],
        "unknown label": ["INVALID_ARGUMENT", "Unrecognized servable version label: new"],
        "unknown signature": ["FAILED_PRECONDITION", 'Serving signature key "x" not found.'],
        "wrong type": [
            "INVALID_ARGUMENT",
            'Expects arg[0] to be float but double is provided (input "image" is float [-1,64])',
        ],
        "no input": [
            "INVALID_ARGUMENT",
            "input size does not match signature: 0!=1 len({}) != len({image}). Sent extra: {}. Missing but required: {image}.",
        ],
        "no name": ["INVALID_ARGUMENT", "ModelSpec has no name specified."],
        "deadline": ["DEADLINE_EXCEEDED"],
    }


def test_a_client_that_knows_only_the_address_finds_its_way(tfserving):
    seen = tfserving["reflection"]
    assert {
        *("grpc.health.v1.Health", "inference.GRPCInferenceService"),
        *("tensorflow.serving.ModelService", "tensorflow.serving.PredictionService"),
    } <= set(seen["services"])
    assert seen["versions"] == [2, 1]


def test_health_is_told_of_the_server_and_of_models(tfserving):
    serving = dict.fromkeys(("", "tensorflow.serving.PredictionService", "digits", "digits/versions/1"), "SERVING")
    assert tfserving["health"] == {**serving, "cats": "NOT_FOUND"}


def test_triton_names_digits(triton):
    seen = triton["infer"]
    assert seen["right"] >= 95
    assert seen["told"] == ["digits", "2", "r7"]
    assert seen["only"] == ["1", ["label"], [2]]


def test_triton_gets_the_best_classes(triton):
    seen = triton["classification"]
    assert seen["shape"] == [1, 2]
    assert seen["sure"]
    assert seen["index"] == int(seen["label"]) == seen["is"]


def test_triton_gets_every_type_back(triton):
    assert triton["round_trips"] == {"types": 13, "wrong": []}


def test_triton_is_told_of_server_and_model(triton):
    seen = triton["told"]
    assert seen["server"] == [True, True, "go_infer"]
    assert seen["ready"] == [True, True, False]
    assert seen["metadata"] == [["1", "2"], "FP32", [-1, 64]]
    assert seen["config"] == [32, [64], "tensorflow_savedmodel"]
    assert seen["counted"] == 3


def test_triton_controls_the_repository(triton):
    assert triton["control"]["index"] == [["digits", "1", "READY"], ["digits", "2", "READY"]]
    assert triton["control"]["load"]


def test_triton_is_refused_in_its_words(triton):
    assert triton["errors"] == {
        "unknown model": ["NOT_FOUND", "Request for unknown model: 'cats' is not found"],
        "unknown version": ["NOT_FOUND", "Request for unknown model: 'digits' version 9 is not found"],
        "wrong shape": [
            "INVALID_ARGUMENT",
            "unexpected shape for input 'image' for model 'digits'. Expected [-1,64], got [1,63]",
        ],
        "deadline": ["DEADLINE_EXCEEDED"],
    }


def test_triton_streams(triton):
    refused = ["Request for unknown model: 'cats' is not found"]
    assert triton["streaming"] == {"in order": True, "answers": 49, "refused": refused}


def test_ovmsclient_predicts_and_asks(triton):
    seen = triton["ovms"]
    assert seen["right"] >= 18
    assert seen["status"] == {"1": "AVAILABLE", "2": "AVAILABLE"}
    assert seen["metadata"] == [-1, 64]
