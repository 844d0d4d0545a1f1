"""The composition root: the only package that knows everybody. Nothing below it constructs its collaborators."""
