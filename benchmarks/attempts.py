"""One variant that cannot run must not cost the others their figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.results import Results

Call = Callable[[], object]


def ready(case: str, makers: Mapping[str, Callable[[], Call]], results: Results) -> dict[str, Call]:
    """Makes each variant and runs it once; those that raise are left out, with a remark that says why.

    Args:
        case: for the remark.
        makers: by variant, makes what is timed.
        results: where remarks go.
    """
    made = {}
    for name, maker in makers.items():
        try:
            call = maker()
            call()
        except Exception as error:  # peers and compilers may fail in any way, and the others are still to be timed
            lines = str(error).strip().splitlines() or [""]
            results.note(f"{case}: {name} did not run ({type(error).__name__}: {lines[0][:200]})")
        else:
            made[name] = call
    return made
