"""`python -m backends.models.optimize`: variants that are as good are published whole, and go_infer serves them."""

import hashlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from backends.interrupt import Interrupts
from backends.models import publication
from demo.layout import MODELS, ROOT
from demo.serving import Served

DIGITS = MODELS / "digits/2"
HELDOUT = MODELS / "digits/heldout.json"


def optimize(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "backends.models.optimize", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)


def last(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.strip().splitlines()[-1]


def test_int8_is_published_within_the_loss_and_served_from_its_manifest(tmp_path: Path) -> None:
    base, report = tmp_path / "digits", tmp_path / "report.json"
    done = optimize(
        DIGITS, "--data", HELDOUT, "--publish", "int8", "--to", base, "--number", "7", "--report", report,
        "--seconds", "0.02",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(report.read_text())["variants"]
    assert {"original", "float16", "bfloat16", "int8"} <= set(figures)
    assert figures["int8"]["bytes"] < 0.5 * figures["original"]["bytes"]
    assert figures["float16"]["bytes"] < 0.7 * figures["original"]["bytes"]
    assert figures["int8"]["accuracy"] >= figures["original"]["accuracy"] - 0.005
    assert [path.name for path in base.iterdir()] == ["7"]
    version = base / "7"
    listed = dict(reversed(line.split("  ")) for line in (version / "manifest.sha256").read_text().splitlines())
    there = {str(path.relative_to(version)) for path in version.rglob("*") if path.is_file()} - {"manifest.sha256"}
    assert set(listed) == there
    assert all(hashlib.sha256((version / name).read_bytes()).hexdigest() == digest for name, digest in listed.items())
    said = json.loads((version / "assets.extra/sluicegate.json").read_text())
    assert said["optimized"]["variant"] == "int8"
    assert said["labels"] == [str(digit) for digit in range(10)]
    heldout = json.loads(HELDOUT.read_text())
    with Served("digits", base) as served:
        labels = served.predict({"image": heldout["instances"]})["label"]
    assert np.mean(np.asarray(labels) == np.asarray(heldout["labels"])) == pytest.approx(figures["int8"]["accuracy"])


def test_a_disk_that_takes_no_more_fails_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    base, scratch = tmp_path / "digits", tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "backends.models.optimize", DIGITS, "--data", HELDOUT, "--variants", "float16"]
    done = subprocess.run(
        [*map(str, command), "--publish", "float16", "--to", str(base), "--seconds", "0.02"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "TMPDIR": str(scratch)},
        preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_FSIZE, (2000, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        ),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "make room, or choose another disk" in last(done)
    assert not base.exists()
    assert not list(scratch.iterdir())


def test_a_version_that_the_disk_has_no_room_for_is_not_published(tmp_path: Path) -> None:
    def build(directory: Path) -> None:
        directory.mkdir()
        (directory / "saved_model.pb").write_bytes(bytes(100_000))

    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Interrupts() as interrupts:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, usual[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                publication.publish(build, tmp_path, 1, interrupts)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        assert not list(tmp_path.iterdir())
        assert publication.publish(build, tmp_path, 1, interrupts) == tmp_path / "1"
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


DENSE = """
import sys, numpy as np, tensorflow as tf
place, data = sys.argv[1:]
random = np.random.default_rng(1)
weights = [random.normal(0, 0.03, shape).astype(np.float32) for shape in ((32, 1024), (1024, 1024), (1024, 10))]
class Dense(tf.Module):
    def __init__(self):
        super().__init__()
        self.weights = [tf.Variable(values) for values in weights]
    @tf.function(input_signature=[tf.TensorSpec([None, 32], tf.float32, name="x")])
    def answer(self, x):
        for kernel in self.weights[:-1]:
            x = tf.nn.relu(tf.matmul(x, kernel))
        return {"y": tf.matmul(x, self.weights[-1])}
model = Dense()
tf.saved_model.save(model, place, signatures={"serving_default": model.answer})
np.savez(data, x=random.normal(0, 1, (64, 32)).astype(np.float32))
"""


def test_large_products_are_computed_in_int8_by_go_infer_too(tmp_path: Path) -> None:
    base, data, report = tmp_path / "dense", tmp_path / "rows.npz", tmp_path / "report.json"
    subprocess.run(
        [sys.executable, "-c", DENSE, base / "1", data], cwd=ROOT, check=True, capture_output=True, timeout=120
    )
    done = optimize(
        base / "1", "--data", data, "--variants", "int8,int8-matmul", "--publish", "int8-matmul", "--max-loss", "0.02",
        "--report", report, "--seconds", "0.05",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(report.read_text())["variants"]
    assert 0.98 < figures["int8-matmul"]["agreement"] < 1
    assert figures["int8-matmul"]["bytes"] < 0.3 * figures["original"]["bytes"]
    x = np.load(data)["x"].tolist()
    assert json.loads((base / "2/assets.extra/sluicegate.json").read_text())["batching"] is True
    with Served("dense", base) as served:
        rows = np.asarray(served.predict({"x": x})["output"])
    with Served("dense", base, "--max_batch=1") as alone:
        single = np.asarray(alone.predict({"x": x[:1]})["output"])
    assert rows.shape == (64, 10)
    cosine = rows[0] @ single[0] / np.linalg.norm(rows[0]) / np.linalg.norm(single[0])
    assert cosine > 0.98


NORMALISED = DENSE.replace("return {", "x = x - tf.reduce_mean(x, axis=0)\n        return {")


def test_rows_that_know_of_each_other_are_not_declared_independent(tmp_path: Path) -> None:
    base, data = tmp_path / "dense", tmp_path / "rows.npz"
    subprocess.run(
        [sys.executable, "-c", NORMALISED, base / "1", data], cwd=ROOT, check=True, capture_output=True, timeout=120
    )
    done = optimize(
        base / "1", "--data", data, "--variants", "int8-matmul", "--publish", "int8-matmul", "--max-loss", "0.1",
        "--seconds", "0.02",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "batching" not in json.loads((base / "2/assets.extra/sluicegate.json").read_text())


def test_what_does_not_pay_is_not_made() -> None:
    done = optimize(DIGITS, "--data", HELDOUT, "--variants", "int8-matmul", "--seconds", "0.02")
    assert done.returncode == 0
    assert "int8-matmul  not made: no product with at least 524288 weights, from where int8 pays" in done.stdout


def test_a_variant_that_loses_too_much_is_not_published(tmp_path: Path) -> None:
    """Labels that are the original's own answers but for rows turned upside down: any change of an answer is a loss."""
    rows = np.random.default_rng(3).integers(0, 17, (64, 64)).astype(np.float32) * 1e-4
    np.savez(tmp_path / "rows.npz", image=rows)
    base = tmp_path / "digits"
    done = optimize(
        DIGITS, "--data", tmp_path / "rows.npz", "--variants", "bfloat16", "--publish", "bfloat16", "--to", base,
        "--max-loss", "0", "--seconds", "0.02",
    )  # fmt: skip
    assert done.returncode == 1
    assert "bfloat16 loses" in last(done)
    assert "more than --max-loss 0.00%; nothing was published" in last(done)
    assert not base.exists()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"instances": [[0.0] * 64] * 8}, "[8] rows; every input and the labels need the same, at least 32"),
        ({"instances": [[0.0] * 63] * 32}, "image is [32, 63]; the signature says [-1, 64]"),
        ({"instances": [[0.0] * 64] * 32, "labels": [0] * 31}, "[31, 32] rows"),
        ({"instances": [{"picture": 1.0}] * 32}, "inputs missing: ['image'], unknown: ['picture']"),
        ({}, "no 'instances'"),
    ],
)
def test_data_that_does_not_fit_is_named(tmp_path: Path, data: object, said: str) -> None:
    (tmp_path / "data.json").write_text(json.dumps(data))
    done = optimize(DIGITS, "--data", tmp_path / "data.json")
    assert done.returncode == 1
    assert said in last(done)
    assert "data.json" in last(done)


def test_a_version_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    done = optimize(
        DIGITS, "--data", HELDOUT, "--variants", "int8", "--publish", "int8", "--to", tmp_path, "--number", "7",
        "--seconds", "0.02",
    )  # fmt: skip
    assert done.returncode == 1
    assert "versions are not replaced" in last(done)
    assert [path.name for path in tmp_path.iterdir()] == ["7"]
    assert list((tmp_path / "7").iterdir()) == []


def test_wrong_usage_is_told_before_tensorflow_is_loaded(tmp_path: Path) -> None:
    assert optimize(tmp_path, "--data", HELDOUT, "--variants", "int4").stderr.strip().endswith(
        "unknown variants int4; there are float16, bfloat16, int8, int8-matmul, onnx"
    )  # fmt: skip
    assert "--max-loss is 1.5; it must be 0..1" in optimize(tmp_path, "--data", HELDOUT, "--max-loss", "1.5").stderr
    assert f"{tmp_path}/saved_model.pb does not exist" in last(optimize(tmp_path, "--data", HELDOUT))
    wrong = optimize(DIGITS, "--data", HELDOUT, "--signature", "nothing")
    assert "has no signature 'nothing'; it has serving_default" in last(wrong)


def test_a_signature_that_writes_its_variables_is_refused_by_name(tmp_path: Path) -> None:
    export = (
        "import sys, tensorflow as tf; m = tf.Module(); m.total = tf.Variable(0.0)\n"
        "f = tf.function(lambda x: {'y': x + m.total.assign_add(1.0)})\n"
        "tf.saved_model.save(m, sys.argv[1], signatures=f.get_concrete_function(tf.TensorSpec([None], tf.float32, 'x')))"
    )
    subprocess.run([sys.executable, "-c", export, str(tmp_path / "1")], check=True, capture_output=True, timeout=240)
    done = optimize(tmp_path / "1", "--data", HELDOUT)
    assert done.returncode == 1
    assert "signature 'serving_default' cannot be one constant graph; does it change its variables?" in last(done)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
