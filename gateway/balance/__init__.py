"""Balancing policies: one file each, registered by the name that the configuration uses (`registry.py`).

A policy is one class with `settle(members)` and `pick(request, tried, total)`, see `policy.py`. Invariants, held by one
contract test over all policies: over many picks the share follows `Candidate.share`; nobody whose share is 0 and nobody
who was tried is ever returned. Beside the policies: `levels.py` (priority groups and zones), `ramp.py` (slow start),
`latency.py` (what is remembered of response times), `load.py` (what backends report of themselves).
"""
