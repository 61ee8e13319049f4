"""Deterministic maps with ``in_features`` and ``out_features``, and no probability in them."""

from dlvm.nets.arguments import out_features
from dlvm.nets.conv import Conv, Deconv, Maps, ResidualBlock
from dlvm.nets.inputs import Filled, Logarithmic, OneHot, Standardised
from dlvm.nets.made import MADE
from dlvm.nets.mlp import MLP

__all__ = [
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
