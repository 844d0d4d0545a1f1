"""The model that a route's own captures name, for breakers of single models: `/predict/{model}/{version}`."""

from __future__ import annotations

from gateway.routing.template import Template


class NamedModel:
    """Of one route. Paths that TensorFlow Serving and the Open Inference Protocol define need none."""

    __slots__ = ("_model", "_template", "_version")

    def __init__(self, template: Template) -> None:
        self._template = template
        self._model = template.names.index("model")
        self._version = template.names.index("version") if "version" in template.names else -1

    def of(self, path: bytes) -> bytes:
        """`M` or `M/versions/V`; nothing if the path does not fit."""
        found = self._template.captures(path)
        if found is None:
            return b""
        model = found[self._model]
        return model if self._version < 0 else b"%s/versions/%s" % (model, found[self._version])


def named_model(template: Template | None) -> NamedModel | None:
    """What reads the model off the paths of a route with this template, if that names one."""
    return NamedModel(template) if template is not None and "model" in template.names else None
