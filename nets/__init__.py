"""Deterministic maps with ``in_features`` and ``out_features``, and no probability in them."""

from dlvm.nets.arguments import out_features
from dlvm.nets.batch_norm import BatchNorm, BatchNorm2d
from dlvm.nets.conv import Conv, Deconv, Maps, ResidualBlock
from dlvm.nets.gated import GatedBlock, GatedConv
from dlvm.nets.inputs import Filled, Logarithmic, OneHot, Standardised
from dlvm.nets.made import MADE
from dlvm.nets.mlp import MLP
from dlvm.nets.recurrent import GRU
from dlvm.nets.sets import DeepSet
from dlvm.nets.weight_norm import NormedConv2d, NormedLinear

__all__ = [
    "NormedLinear",
    "NormedConv2d",
    "GatedConv",
    "GatedBlock",
    "GRU",
    "DeepSet",
    "BatchNorm2d",
    "BatchNorm",
    "MADE",
    "MLP",
    "Conv",
    "Deconv",
    "Filled",
    "Logarithmic",
    "Maps",
    "OneHot",
    "ResidualBlock",
    "Standardised",
    "out_features",
]
