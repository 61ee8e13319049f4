"""``python -m dlvm.experiments``: the command ``dlvm``, where that is not on the path."""

from dlvm.experiments.command import main

if __name__ == "__main__":
    main()
