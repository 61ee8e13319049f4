"""One thread at a time in what the whole process shares: Pyro's handlers and store, and the random state.

Pyro keeps one stack of handlers for all threads: two programs that run at once see each other's plates and traces. So
every public function that runs a program waits for its turn: training takes turns by the epoch (``fit``) or the step
(``SVI``), everything else by the call. Runs in several threads then give the numbers that each gives alone, provided
that each draws from a stream of its own, as ``fit`` and ``evaluate`` do with a ``seed``; to gain time, use processes.

A program called by hand takes no turn by itself; beside a run in another thread write

    with TURN:
        x = model(n=64)
"""

from __future__ import annotations

import threading

TURN = threading.RLock()
