"""Objectives, the stepping of them, and what the result is worth."""

from inference.aided import tempered
from inference.baselines import NVIL, MovingAverage
from inference.bounds import IWAE, Renyi, VRMax
from inference.check import check
from inference.checkpoints import CheckpointFailed
from inference.compiler import NoCompiler
from inference.cubo import CUBO
from inference.distributed import RankLost, joined
from inference.elbo import ELBO
from inference.epochs import Epoch
from inference.estimators import STL, DReG, Estimator, Total
from inference.evaluate import evaluate
from inference.evaluation import Evaluation
from inference.faults import NonFinite
from inference.fit import fit
from inference.kinds import Baked
from inference.likelihood import MAP, MaximumLikelihood
from inference.mixed_bounds import CIWAE, MIWAE
from inference.objectives import Objective
from inference.rate import capacity, free_bits
from inference.recording import Refused
from inference.relaxations import GumbelSoftmax, StraightThrough
from inference.schedules import constant, cosine, cyclical, linear
from inference.score import VIMCO, ScoreFunction
from inference.separate import PIWAE, Separate
from inference.svi import SVI
from inference.total_correlation import total_correlation
from inference.tvo import TVO
from inference.verdict import Verdict, verdict
from inference.wake_sleep import RWS, WakeSleep
from inference.weights import log_weights

__all__ = [
    "CIWAE",
    "CUBO",
    "ELBO",
    "IWAE",
    "MAP",
    "MIWAE",
    "NVIL",
    "PIWAE",
    "RWS",
    "STL",
    "SVI",
    "TVO",
    "VIMCO",
    "Baked",
    "CheckpointFailed",
    "DReG",
    "Epoch",
    "Estimator",
    "Evaluation",
    "GumbelSoftmax",
    "MaximumLikelihood",
    "MovingAverage",
    "NoCompiler",
    "NonFinite",
    "Objective",
    "RankLost",
    "Refused",
    "Renyi",
    "ScoreFunction",
    "Separate",
    "StraightThrough",
    "Total",
    "VRMax",
    "Verdict",
    "WakeSleep",
    "capacity",
    "check",
    "constant",
    "cosine",
    "cyclical",
    "evaluate",
    "fit",
    "free_bits",
    "joined",
    "linear",
    "log_weights",
    "tempered",
    "total_correlation",
    "verdict",
]
