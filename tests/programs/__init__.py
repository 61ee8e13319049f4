"""Programs of every kind that people bring, each with an exact answer that owes nothing to this laboratory."""

from importlib import import_module

from programs.brought import Brought

KINDS = (
    "plates",
    "no_plate",
    "described",
    "batches",
    "buckets",
    "missing_arguments",
    "masks",
    "scales",
    "latent_kinds",
    "particles",
    "parameters",
    "instances",
    "automatic",
    "sequences",
    "discrete",
    "hierarchical",
    "pyro_examples",
    "more_examples",
)


def programs() -> list[Brought]:
    """All of them, in the order of their files."""
    modules = (import_module(f"programs.{kind}") for kind in KINDS)
    return [found for module in modules for found in vars(module).values() if isinstance(found, Brought)]
