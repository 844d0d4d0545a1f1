"""Export the small SavedModels that go_infer's tests ask what no digit can be asked: strings, every type, tf.Example.

    python -m backends.models.probes --out build/probes

Writes `OUT/strings/1` (functions of text), `OUT/types/1` (a signature per element type), `OUT/rows/1`
(rows that know of each other, and rows that do not), `OUT/state/1` (Runs that change what later ones find),
`OUT/endless/1` (a Run that never ends), `OUT/iris/1` and `OUT/iris-width/1` (trained on scikit-learn's `load_iris`,
measured on flowers held out: a classification and a regression of serialized tf.Example on one graph, as TensorFlow 1
exported them), and `OUT/iris/heldout.json`.

Invariants: as of `backends.models.digits`: written aside and renamed, stamped last, a second call returns at once,
and a model that misses its floor is not published. Exit code 0, or 1 with one line on stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from backends import aside, stamp
from backends.interrupt import Interrupts

DEFAULT_OUT = Path("build/probes")
MADE_WITH = ("tensorflow-cpu", "scikit-learn", "numpy")
RESULTS = ("strings/1", "types/1", "rows/1", "state/1", "endless/1", "iris/1", "iris-width/1", "iris/heldout.json")
SERVED = (
    *("float16", "bfloat16", "float32", "float64", "bool", "string"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)
REFUSED = ("complex64", "complex128", "qint8", "quint8", "qint32")
SEED = 7
ACCURACY_FLOOR = 0.9  # of flowers named rightly
ERROR_CEILING = 0.25  # centimetres of petal width, root mean square


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m backends.models.probes", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="directory of the models (default: %(default)s)")
    out: Path = parser.parse_args(arguments).out
    try:
        expected = stamp.fingerprint([Path(__file__)], [f"{name}=={metadata.version(name)}" for name in MADE_WITH])
        if all((out / result).exists() for result in RESULTS) and stamp.matches(out / "probes.stamp", expected):
            print(f"models in {out} are up to date")
            return 0
        with Interrupts() as interrupts, interrupts.made(lambda: aside.directory(out), aside.remove) as unfinished:
            _export(unfinished)
            with interrupts.held():
                aside.remove(out)
                unfinished.rename(out)
                stamp.write(out / "probes.stamp", expected)
    except metadata.PackageNotFoundError as missing:
        return _fail(f"{missing.name} is not installed in {sys.prefix}: '{sys.executable} -m pip install -e .[models]'")
    except (OSError, ValueError) as error:
        return _fail(str(error))
    print(f"models written to {out}")
    return 0


def _export(directory: Path) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import tensorflow as tf

    print("exporting strings and types ...", flush=True)
    _strings(tf, directory / "strings/1")
    _types(tf, directory / "types/1")
    _rows(tf, directory / "rows/1")
    _state(tf, directory / "state/1")
    _endless(tf, directory / "endless/1")
    print("training on flowers ...", flush=True)
    _iris(tf, directory)


def _strings(tf: Any, place: Path) -> None:
    """What can be done to text: row by row, to one scalar, of many words in a row, beside numbers; and refused."""

    def signature(function: Any, **inputs: tuple[list[int | None], Any]) -> Any:
        specs = {name: tf.TensorSpec(shape, dtype, name) for name, (shape, dtype) in inputs.items()}
        return tf.function(function).get_concrete_function(**specs)

    def describe(text: Any) -> dict[str, Any]:
        return {
            "upper": tf.strings.upper(text),
            "length": tf.strings.length(text),
            "echo_bytes": tf.identity(text),
        }

    def numbers(text: Any) -> dict[str, Any]:  # StringToNumber refuses what is no number
        return {"number": tf.strings.to_number(text, tf.float32)}

    def tag(text: Any, number: Any) -> dict[str, Any]:
        return {"tagged": tf.strings.join([text, tf.strings.as_string(number)], "#")}

    module = tf.Module()
    module.unused = tf.Variable(0.0)  # a SavedModel without variables has no files of them
    words: tuple[list[int | None], Any] = ([None], tf.string)
    tf.saved_model.save(
        module,
        str(place),
        signatures={
            "serving_default": signature(describe, text=words),
            "numbers": signature(numbers, text=words),
            "tag": signature(tag, text=words, number=([None], tf.int32)),
            "join": signature(
                lambda words: {"line": tf.strings.reduce_join(words, axis=1, separator=" ")},
                words=([None, 2], tf.string),
            ),
            "scalar": signature(lambda text: {"upper": tf.strings.upper(text)}, text=([], tf.string)),
            "split": signature(lambda text: {"words": tf.strings.split(text).to_tensor("")}, text=words),
        },
    )


def _types(tf: Any, place: Path) -> None:
    """A signature per type, which gives back what it was given; and of some types one that is refused."""

    def same(dtype: Any) -> Any:
        spec = tf.TensorSpec([None, 2], dtype, "x")
        return tf.function(lambda x: {"y": tf.identity(x)}).get_concrete_function(spec)

    module = tf.Module()
    module.unused = tf.Variable(0.0)
    signatures = {name: same(tf.dtypes.as_dtype(name)) for name in (*SERVED, *REFUSED)}
    tf.saved_model.save(module, str(place), signatures=signatures)


def _rows(tf: Any, place: Path) -> None:
    """All are declared [-1,2] -> [-1,...], as if rows were independent; most are not."""

    def positive(x: Any) -> Any:
        with tf.control_dependencies([tf.debugging.assert_positive(x)]):
            return tf.math.log(x)

    def single(x: Any) -> Any:
        with tf.control_dependencies([tf.debugging.assert_equal(tf.shape(x)[0], 1)]):
            return x + 1.0

    def to_nine(x: Any) -> Any:  # of which only a Run knows
        return tf.reshape(x, tf.concat([[-1], tf.ones(tf.shape(x)[1:] * 4, tf.int32)], 0))

    functions = {
        "serving_default": lambda x: x * 2.0,
        "relative": lambda x: x / tf.reduce_sum(x, axis=0, keepdims=True),
        "filtered": lambda x: tf.boolean_mask(x, x[:, 0] > 0),
        "flat": lambda x: tf.reshape(x, [-1]),
        "wide": lambda x: tf.tile(x[:, :1], [1, tf.cast(tf.reduce_max(x), tf.int32)]),
        "positive": positive,
        "single": single,
        "random": lambda x: x + tf.random.uniform(tf.shape(x)),
        "ids": lambda x: tf.gather([[1.0], [2.0]], tf.cast(x[:, 0], tf.int32) + 100),  # takes -100 and -99 only
        "nine": lambda x: tf.reshape(x, [-1, *[1] * 7, 2]),  # more dimensions than go_infer serves
        "to_nine": to_nine,
        "late": lambda x: tf.boolean_mask(x, x[:, 0] < 100),  # the made-up rows are all kept
    }
    module = tf.Module()
    module.unused = tf.Variable(0.0)
    spec = tf.TensorSpec([None, 2], tf.float32, "x")
    signatures = {
        name: tf.function(lambda x, function=function: {"y": function(x)}).get_concrete_function(spec)
        for name, function in functions.items()
    }
    tf.saved_model.save(module, str(place), signatures=signatures)


def _state(tf: Any, place: Path) -> None:
    """A sum over all that was ever asked and a table of it; what changes them, in several ways, and what only looks."""
    module = tf.Module()
    module.total = tf.Variable(0.0)
    module.table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, default_value=-1)
    module.rows = tf.Variable(tf.zeros([4, 2]))

    def everywhere(x: Any, value: Any) -> Any:
        return tf.zeros_like(x) + tf.cast(value, tf.float32)

    def add(x: Any) -> Any:
        return {"y": everywhere(x, module.total.assign_add(tf.reduce_sum(x)))}

    def deep(x: Any) -> Any:  # in a branch of a loop
        def step(i: Any, total: Any) -> Any:
            odd = tf.equal(i % 2, 1)
            return i + 1, total + tf.cond(odd, lambda: module.total.assign_add(1.0), lambda: tf.constant(0.0))

        return {"y": everywhere(x, tf.while_loop(lambda i, _: i < 4, step, (0, 0.0))[1])}

    def scatter(x: Any) -> Any:
        module.rows.scatter_add(tf.IndexedSlices(x[:1], tf.constant([1])))
        return {"y": everywhere(x, module.rows[1, 0])}

    def insert(key: Any) -> Any:
        module.table.insert(key, tf.ones_like(key, tf.int64))
        return {"size": tf.zeros_like(key, tf.int64) + module.table.size()}

    numbers, words = tf.TensorSpec([None, 2], tf.float32, "x"), tf.TensorSpec([None], tf.string, "key")
    signatures = {
        "serving_default": tf.function(lambda x: {"y": everywhere(x, module.total)}).get_concrete_function(numbers),
        "add": tf.function(add).get_concrete_function(numbers),
        "deep": tf.function(deep).get_concrete_function(numbers),
        "scatter": tf.function(scatter).get_concrete_function(numbers),
        "insert": tf.function(insert).get_concrete_function(words),
        "find": tf.function(lambda key: {"found": module.table.lookup(key)}).get_concrete_function(words),
    }
    tf.saved_model.save(module, str(place), signatures=signatures)


def _endless(tf: Any, place: Path) -> None:
    """A model may loop for as long as its input says; this one does for ever."""

    def forever(x: Any) -> Any:
        return {"y": tf.while_loop(lambda _: tf.constant(value=True), lambda x: (x + 1.0,), (x,))[0]}

    module = tf.Module()
    module.unused = tf.Variable(0.0)
    spec = tf.TensorSpec([None, 2], tf.float32, "x")
    tf.saved_model.save(module, str(place), signatures=tf.function(forever).get_concrete_function(spec))


def _iris(tf: Any, directory: Path) -> None:
    import numpy as np
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.model_selection import train_test_split

    data = load_iris()
    train_x, held_x, train_y, held_y = train_test_split(
        data.data, data.target, test_size=0.3, random_state=SEED, stratify=data.target
    )
    species = LogisticRegression(max_iter=2000).fit(train_x[:, :3], train_y)
    width = LinearRegression().fit(train_x[:, :3], train_x[:, 3])
    accuracy = float(np.mean(species.predict(held_x[:, :3]) == held_y))
    error = float(np.sqrt(np.mean((width.predict(held_x[:, :3]) - held_x[:, 3]) ** 2)))
    print(
        f"iris: {accuracy:.1%} of {len(held_y)} held-out flowers named, petal width within {error:.3f} cm", flush=True
    )
    if accuracy < ACCURACY_FLOOR or error > ERROR_CEILING:
        raise ValueError(f"iris: accuracy {accuracy:.1%}, error {error:.3f} cm: not good enough to publish")
    names = [str(name) for name in data.target_names]
    weights = (species.coef_.T, species.intercept_, width.coef_.reshape(-1, 1), width.intercept_.reshape(-1))
    for name, default in (("iris", "classify"), ("iris-width", "regress")):
        _graph(tf, directory / name / "1", weights, names, default)
    examples = [
        {"sepal_length": float(a), "sepal_width": float(b), "petal_length": float(c)} for a, b, c in held_x[:, :3]
    ]
    answers = {"labels": [names[y] for y in held_y], "widths": held_x[:, 3].tolist()}
    quality = {"accuracy": accuracy, "error": error}
    (directory / "iris/heldout.json").write_text(json.dumps({"examples": examples, **answers, **quality}) + "\n")


def _graph(tf: Any, place: Path, weights: tuple[Any, ...], names: list[str], default: str) -> None:
    """TensorFlow 1's way, because only that writes tensorflow/serving/classify and regress, on one input tensor."""
    v1 = tf.compat.v1
    v1.logging.set_verbosity(v1.logging.ERROR)  # it says of all of this that it is version 1's
    with v1.Graph().as_default(), v1.Session() as session:
        examples = v1.placeholder(tf.string, [None], "examples")
        scalar = v1.FixedLenFeature([], tf.float32)
        features = v1.parse_example(
            examples,
            {
                "sepal_length": scalar,
                "sepal_width": scalar,
                "petal_length": scalar,
                "note": v1.FixedLenFeature([], tf.string, ""),
            },
        )
        row = tf.stack([features["sepal_length"], features["sepal_width"], features["petal_length"]], axis=1)
        a, b, c, d = (v1.get_variable(f"w{i}", initializer=w.astype("float32")) for i, w in enumerate(weights))
        scores = tf.nn.softmax(row @ a + b)
        widths = tf.squeeze(row @ c + d, axis=1)
        classes = tf.tile(tf.constant([names]), [tf.shape(examples)[0], 1])
        build = v1.saved_model.build_tensor_info
        define = v1.saved_model.build_signature_def
        serialized = {"inputs": build(examples)}

        def method(inputs: Any, outputs: dict[str, Any], name: str) -> Any:
            return define(inputs, {alias: build(out) for alias, out in outputs.items()}, f"tensorflow/serving/{name}")

        signatures = {
            "classify": method(serialized, {"classes": classes, "scores": scores}, "classify"),
            "scores": method(serialized, {"scores": scores}, "classify"),
            "classes": method(serialized, {"classes": classes}, "classify"),
            "regress": method(serialized, {"outputs": widths}, "regress"),
            "regress_column": method(serialized, {"outputs": widths[:, None]}, "regress"),
            "predict": method({"row": build(row)}, {"scores": scores, "width": widths}, "predict"),
            "notes": method(serialized, {"note": features["note"]}, "predict"),
        }
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(place))
        builder.add_meta_graph_and_variables(
            session,
            [v1.saved_model.tag_constants.SERVING],
            {**signatures, "serving_default": signatures[default]},
        )
        builder.save()


def _fail(reason: str) -> int:
    print(f"backends.models.probes: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
