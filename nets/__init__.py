"""Deterministic maps with ``in_features`` and ``out_features``, and no probability in them."""

from nets.conv import Conv, Deconv, Maps, ResidualBlock
from nets.features import out_features
from nets.made import MADE
from nets.mlp import MLP

__all__ = ["MADE", "MLP", "Conv", "Deconv", "Maps", "ResidualBlock", "out_features"]
