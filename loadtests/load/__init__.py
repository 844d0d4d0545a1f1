"""The load generator: open and closed loop, exact counts of every way a request can end.

``python -m loadtests.load --help`` is its command line; :class:`Load` is what tests use.
"""

from loadtests.load.load import Load
from loadtests.load.model import Check, Client, Outcome, Request, Response
from loadtests.load.samples import Sample, Summary

__all__ = ["Check", "Client", "Load", "Outcome", "Request", "Response", "Sample", "Summary"]
