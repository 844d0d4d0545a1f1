"""Ejection over the cells of all workers."""

from __future__ import annotations

from pathlib import Path

from gateway.app.outliers import Outliers
from gateway.app.series import allot, backend_cells
from gateway.config.load import load_text
from gateway.request import Outcome
from gateway.telemetry.cells import Catalogue, Cells

CONFIG = """version: 1
pools:
  models:
    backends: [{url: "http://a:80"}, {url: "http://b:80"}, {url: "http://c:80"}]
    ejection: {interval: 1s, min_calls: 50, base: 5s}
  other: {backends: [{url: "http://a:80"}]}
routes: [{name: all, match: {path: "/*"}, pool: models}, {name: other, match: {path: "/*"}, pool: other}]
"""
SECOND = 1_000_000_000


def test_the_workers_together_have_enough_calls():
    config, catalogue = load_text(CONFIG, Path("x.yaml")), Catalogue()
    allot(catalogue, config, 2)
    own, *workers = (Cells(Cells.create(f"test-{number}")) for number in range(3))
    outliers = Outliers(catalogue, own.values, lambda: [each.values for each in workers])
    outliers.use(config, 0)
    assert not outliers.look(SECOND)
    for worker in workers:
        for backend in "abc":
            first = backend_cells(catalogue, "models", f"{backend}:80")
            for _ in range(30):
                outcome = Outcome.FAILURE if backend == "b" else Outcome.SUCCESS
                worker.add(first + outcome)
                worker.observe(first + len(Outcome), 5_000_000)
    assert outliers.look(2 * SECOND)
    assert outliers.ejected == {"models/b:80"}
    shown = {
        f"{metric.name} {dict(labels).get('backend')}": own.values[place]
        for metric, labels, place in catalogue.series()
    }
    assert shown["gateway_backend_ejected b:80"] == 1
    outliers.use(config, 3 * SECOND)
    assert not outliers.look(3 * SECOND), "a reload forgets nobody"
    assert outliers.look(7 * SECOND)
    assert outliers.ejected == frozenset()
    outliers.use(
        load_text(CONFIG.replace("    ejection: {interval: 1s, min_calls: 50, base: 5s}\n", ""), Path("x.yaml")), 0
    )
    assert not outliers.look(99 * SECOND)
