"""Deterministic maps with ``in_features`` and ``out_features``, and no probability in them."""

from dlvm.nets.arguments import out_features
from dlvm.nets.autoregressive.causal_attention import CausalAttention, CausalTransformer
from dlvm.nets.autoregressive.causal_conv import PixelsLeft, RowsAbove
from dlvm.nets.autoregressive.causal_gru import CausalGRU
from dlvm.nets.autoregressive.causal_tcn import CausalTCN
from dlvm.nets.autoregressive.nade import NADE
from dlvm.nets.autoregressive.orders import OrderedMADE
from dlvm.nets.autoregressive.pixel_cnn import PixelCNN
from dlvm.nets.batch_norm import BatchNorm, BatchNorm2d
from dlvm.nets.conv import Conv, Deconv, Maps, ResidualBlock
from dlvm.nets.corrupted import Corrupted
from dlvm.nets.gated import GatedBlock, GatedConv
from dlvm.nets.inputs import Beside, Filled, Logarithmic, OneHot, Standardised
from dlvm.nets.joined import Classes, Embedded, Joined, SwitchingDiagonal, SwitchingLinear
from dlvm.nets.made import MADE
from dlvm.nets.mlp import MLP
from dlvm.nets.pixels import PixelFeatures, PixelReadout
from dlvm.nets.residual import Bottleneck, PixelMaps, Pyramid, Readout
from dlvm.nets.sequences.combiner import Combiner
from dlvm.nets.sequences.over_time import Recurrent
from dlvm.nets.sequences.recurrent import GRU
from dlvm.nets.sets import DeepSet
from dlvm.nets.weight_norm import NormedConv2d, NormedLinear, SpectralLinear
from dlvm.nets.windows.glimpses import Read, ReadAll, Write

__all__ = [
    "PixelFeatures",
    "PixelReadout",
    "GRU",
    "MADE",
    "MLP",
    "NADE",
    "BatchNorm",
    "BatchNorm2d",
    "CausalAttention",
    "CausalGRU",
    "CausalTCN",
    "CausalTransformer",
    "Beside",
    "Bottleneck",
    "Classes",
    "Combiner",
    "Conv",
    "Corrupted",
    "Deconv",
    "DeepSet",
    "Embedded",
    "Filled",
    "GatedBlock",
    "GatedConv",
    "Joined",
    "Logarithmic",
    "Maps",
    "NormedConv2d",
    "NormedLinear",
    "OneHot",
    "OrderedMADE",
    "PixelCNN",
    "PixelsLeft",
    "PixelMaps",
    "Pyramid",
    "Read",
    "ReadAll",
    "Readout",
    "Recurrent",
    "ResidualBlock",
    "RowsAbove",
    "SpectralLinear",
    "Standardised",
    "SwitchingDiagonal",
    "SwitchingLinear",
    "Write",
    "out_features",
]
