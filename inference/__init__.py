"""Objectives, the stepping of them, and what the result is worth."""

from dlvm.inference.autoencoders.adversarial import ali, vae_gan
from dlvm.inference.autoencoders.discriminator import Discriminator
from dlvm.inference.autoencoders.matched import matched
from dlvm.inference.autoencoders.mmd import MMD, RBF, InverseMultiquadric, mmd
from dlvm.inference.autoencoders.penalised import DecoderGradient, EncoderGradient, penalised
from dlvm.inference.autoencoders.reconstruction import Reconstruction
from dlvm.inference.bounds.bound import Bound
from dlvm.inference.checkpoints.folder import CheckpointFailed
from dlvm.inference.distributed.job import RankLost, joined
from dlvm.inference.engine.backends import NoCompiler
from dlvm.inference.engine.cache import Baked
from dlvm.inference.engine.recording import Refused
from dlvm.inference.estimators.baselines import NVIL, MovingAverage
from dlvm.inference.estimators.coupled import DisARM
from dlvm.inference.estimators.enumeration import Enumeration
from dlvm.inference.estimators.estimator import Coefficients, Estimator
from dlvm.inference.estimators.pathwise import STL, DReG, Total
from dlvm.inference.estimators.rebar import REBAR
from dlvm.inference.estimators.relax import RELAX
from dlvm.inference.estimators.relaxations import GumbelRao, GumbelSoftmax, StraightThrough
from dlvm.inference.estimators.score_function import VIMCO, ScoreFunction
from dlvm.inference.evaluation.evaluate import Evaluation, evaluate
from dlvm.inference.evaluation.verdict import Verdict, verdict
from dlvm.inference.objectives.cubo import CUBO
from dlvm.inference.objectives.elbo import ELBO
from dlvm.inference.objectives.fivo import FIVO
from dlvm.inference.objectives.iwae import CIWAE, IWAE, MIWAE, PIWAE
from dlvm.inference.objectives.maximum_likelihood import MAP, MaximumLikelihood
from dlvm.inference.objectives.objective import Objective
from dlvm.inference.objectives.rate_control import capacity, free_bits
from dlvm.inference.objectives.renyi import Renyi, VRMax
from dlvm.inference.objectives.schedules import constant, cosine, cyclical, linear
from dlvm.inference.objectives.separate import Separate
from dlvm.inference.objectives.supervised import supervised
from dlvm.inference.objectives.tempered import tempered
from dlvm.inference.objectives.total_correlation import total_correlation
from dlvm.inference.objectives.tvo import TVO
from dlvm.inference.objectives.wake_sleep import RWS, WakeSleep
from dlvm.inference.particles.resampling import Resampling
from dlvm.inference.particles.weights import log_weights
from dlvm.inference.programs.errors import NonFinite
from dlvm.inference.programs.statement import described
from dlvm.inference.saved.pair import load, save
from dlvm.inference.training.check import check
from dlvm.inference.training.em import EMStep, Maximisable, fit_em
from dlvm.inference.training.epochs import Epoch
from dlvm.inference.training.fit import fit, train
from dlvm.inference.training.svi import SVI
from dlvm.inference.use.decode import decode
from dlvm.inference.use.encode import Code, encode
from dlvm.inference.use.generate import generate
from dlvm.inference.use.impute import Imputed, impute
from dlvm.inference.use.interpolate import interpolate
from dlvm.inference.use.log_px import LogPx, log_px
from dlvm.inference.use.predict import Prediction, predict
from dlvm.inference.use.reconstruct import reconstruct
from dlvm.inference.use.traverse import traverse

__all__ = [
    "CIWAE",
    "CUBO",
    "ELBO",
    "FIVO",
    "IWAE",
    "Imputed",
    "LogPx",
    "MAP",
    "MIWAE",
    "MMD",
    "NVIL",
    "PIWAE",
    "Prediction",
    "RBF",
    "REBAR",
    "RELAX",
    "RWS",
    "STL",
    "SVI",
    "TVO",
    "VIMCO",
    "Baked",
    "Bound",
    "CheckpointFailed",
    "Code",
    "Coefficients",
    "DReG",
    "DecoderGradient",
    "Discriminator",
    "DisARM",
    "EMStep",
    "EncoderGradient",
    "Enumeration",
    "Epoch",
    "Estimator",
    "Evaluation",
    "GumbelRao",
    "GumbelSoftmax",
    "InverseMultiquadric",
    "Maximisable",
    "MaximumLikelihood",
    "MovingAverage",
    "NoCompiler",
    "NonFinite",
    "Objective",
    "RankLost",
    "Reconstruction",
    "Refused",
    "Renyi",
    "Resampling",
    "ScoreFunction",
    "Separate",
    "StraightThrough",
    "Total",
    "VRMax",
    "Verdict",
    "WakeSleep",
    "ali",
    "capacity",
    "check",
    "constant",
    "cosine",
    "cyclical",
    "decode",
    "described",
    "encode",
    "evaluate",
    "fit",
    "fit_em",
    "free_bits",
    "generate",
    "impute",
    "interpolate",
    "joined",
    "linear",
    "load",
    "log_px",
    "log_weights",
    "matched",
    "mmd",
    "penalised",
    "predict",
    "reconstruct",
    "save",
    "supervised",
    "tempered",
    "total_correlation",
    "train",
    "traverse",
    "vae_gan",
    "verdict",
]
