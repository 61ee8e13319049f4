"""From the command line to a script's main function."""

from __future__ import annotations

from collections.abc import Callable

import tyro

from inference import Baked, NoCompiler, Refused
from inference.checkpoints import CheckpointFailed


def start(main: Callable, config: type, name: str) -> None:
    """Parses the command line into a config and calls main; a user's mistake, or an engine that cannot
    run what it was asked to, ends in one line, not in a traceback.

    Args:
        main: called with the config.
        config: a dataclass whose fields are the options.
        name: of the script's module.
    """
    settings = tyro.cli(config, prog=f"python -m experiments.{name}")
    try:
        main(settings)
    except (ValueError, OSError, ArithmeticError, CheckpointFailed, Refused, NoCompiler, Baked) as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt as error:
        raise SystemExit(f"interrupted; {error or 'what was done is in the folder of the run'}") from None
