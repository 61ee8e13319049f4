"""The same autoencoder in other libraries, where they are installed."""

from __future__ import annotations

from importlib.util import find_spec

from benchmarks.results import Results


def installed(name: str, results: Results) -> bool:
    """Whether a peer can be imported; a remark says so if not."""
    found = find_spec(name) is not None
    if not found:
        results.note(f"{name}: not installed (pip install -c constraints.txt -e '.[bench]'); it has no rows")
    return found
