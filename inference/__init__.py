"""Objectives, the stepping of them, and what the result is worth."""

from inference.check import check
from inference.compiler import NoCompiler
from inference.epochs import Epoch
from inference.evaluate import evaluate
from inference.evaluation import Evaluation
from inference.faults import NonFinite
from inference.fit import fit
from inference.kinds import Baked
from inference.objectives import IWAE, Objective, Renyi
from inference.recording import Refused
from inference.svi import SVI
from inference.weights import log_weights

__all__ = [
    "IWAE",
    "SVI",
    "Baked",
    "Epoch",
    "Evaluation",
    "NoCompiler",
    "NonFinite",
    "Objective",
    "Refused",
    "Renyi",
    "check",
    "evaluate",
    "fit",
    "log_weights",
]
