"""What the nets refuse."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

import dlvm.nets as room
from dlvm.nets import (
    GRU,
    MADE,
    MLP,
    NADE,
    BatchNorm,
    BatchNorm2d,
    Beside,
    Bottleneck,
    CausalAttention,
    CausalTransformer,
    Classes,
    Combiner,
    Conv,
    Corrupted,
    Deconv,
    DeepSet,
    Filled,
    GatedBlock,
    GatedConv,
    Joined,
    Logarithmic,
    Maps,
    NormedConv2d,
    NormedLinear,
    OneHot,
    OrderedMADE,
    PixelCNN,
    PixelFeatures,
    PixelMaps,
    PixelReadout,
    PixelsLeft,
    Pyramid,
    Read,
    ReadAll,
    Readout,
    Recurrent,
    ResidualBlock,
    RowsAbove,
    SpectralLinear,
    Standardised,
    SwitchingDiagonal,
    SwitchingLinear,
    Write,
    out_features,
)
from refusals import text
from refusals.case import NOT_COUNTS, NOT_NUMBERS, NOT_SEEDS, Case

ROOM = room
NOT_MAKERS = st.sampled_from(
    [
        None,
        3,
        "relu",
        [nn.ReLU],
        nn.ReLU(),
        torch.relu,
        nn.Linear,
        lambda: nn.ReLU,
        lambda: None,
        lambda: torch.relu,
        int,
    ]
)
NOT_MODULES = st.sampled_from([None, 3, "net", [], torch.zeros(2), nn.ReLU, MLP, torch.relu, lambda x: x])
NOT_WIDTHS = st.one_of(
    st.sampled_from([None, 64, "64", b"64", 2.5, {64}, {}, nn.ReLU, iter((64,)), torch.tensor([64])]),
    NOT_COUNTS.map(lambda width: (64, width)),
)
NOT_SQUARES = st.one_of(st.integers(-9, 900).filter(lambda n: n < 1 or int(n**0.5) ** 2 != n), NOT_COUNTS)
OF_OTHER_WIDTH = st.sampled_from(
    [torch.zeros(s) for s in ((5, 2), (5, 4), (5, 1), (5, 0), (3, 5), (), (0,), (5, 3, 1))]
)
NOT_FOUR_WIDE = OF_OTHER_WIDTH.filter(lambda v: v.shape[-1:] != (4,))
NOT_TENSORS = st.sampled_from([None, 3, 2.5, "x", [0.0, 0.0, 0.0], (1, 2, 3), {}, torch.zeros(2, 3).numpy(), Tensor])
OF_OTHER_KIND = st.sampled_from(
    [torch.zeros(5, 3, dtype=d) for d in (torch.float64, torch.float16, torch.complex64)]
    + [torch.zeros(5, 3, device="meta")]
)
NOT_BESIDE = st.sampled_from([torch.zeros(s) for s in ((5, 2), (5, 0), (4, 1), (3, 5, 2), (3, 4, 1), (), (0, 1))])
NOT_IMAGES = st.sampled_from([torch.zeros(s) for s in ((2, 4, 4), (5, 1, 4, 4), (3, 4), (3,), (), (4, 4, 3))])


class Narrow(nn.Module):
    """A net that says nothing, or something else, about its width."""

    def __init__(self, **settings: object):
        super().__init__()
        self.__dict__.update(settings)


WIDTHLESS = st.one_of(NOT_COUNTS.map(lambda width: Narrow(out_features=width)), st.builds(Narrow), NOT_MODULES)
NETS = {"MLP": lambda: MLP(3, 4, 2), "Conv": lambda: Conv(9, 2, 4), "Deconv": lambda: Deconv(3, 2, 16)}
ACTIVATED = {"MLP": lambda v: MLP(3, 4, 2, activation=v), "MADE": lambda v: MADE(3, activation=v)}
ACTIVATED |= {"Conv": lambda v: Conv(16, 2, 3, activation=v), "Deconv": lambda v: Deconv(3, 2, 16, activation=v)}
ACTIVATED |= {"OrderedMADE": lambda v: OrderedMADE(3, activation=v)}

NOT_FROM_0 = NOT_COUNTS.filter(lambda v: v is False or v != 0)
NOT_PICTURES = st.one_of(NOT_WIDTHS, st.sampled_from([(), (1,), (2, 2), (1, 2, 2, 2)]))
# Nets of densities by chain rule: {parameter: what must be a count}, and those that may be 0.
BY_CHAIN_RULE = {
    "OrderedMADE": (lambda **v: OrderedMADE(**{"dim": 4} | v), ("dim", "outputs", "orders"), ("context",)),
    "NADE": (lambda **v: NADE(**{"dim": 4, "hidden": 3} | v), ("dim", "hidden", "outputs"), ("context",)),
    "PixelCNN": (
        lambda **v: PixelCNN(**{"shape": (1, 2, 2), "channels": 2} | v),
        ("outputs", "channels", "layers"),
        ("receptive_field", "context"),
    ),
    "CausalTransformer": (
        lambda **v: CausalTransformer(**{"dim": 4, "tokens": 2, "width": 4} | v),
        ("dim", "tokens", "width", "layers", "heads"),
        ("context",),
    ),
    "CausalAttention": (lambda **v: CausalAttention(**{"width": 4} | v), ("width", "heads"), ()),
    "SwitchingDiagonal": (
        lambda **v: SwitchingDiagonal(**{"classes": 2, "features": 3} | v),
        ("classes", "features"),
        (),
    ),
    "SwitchingLinear": (
        lambda **v: SwitchingLinear(**{"classes": 2, "in_features": 3, "out_features": 3} | v),
        ("classes", "in_features", "out_features"),
        (),
    ),
    "RowsAbove": (lambda **v: RowsAbove(**{"inputs": 1, "outputs": 1} | v), ("inputs", "outputs"), ("reach",)),
    "PixelsLeft": (lambda **v: PixelsLeft(**{"inputs": 1, "outputs": 1} | v), ("inputs", "outputs"), ("reach",)),
}

NOT_PLACES = st.sampled_from([None, 3, "ab", (0.5,), (-1,), ("0",), (None,), object()])

X2 = torch.zeros(5, 2)
NOT_LABELS = st.sampled_from([[3], [-1], [0.5], [float("nan")], [0, 1, 7]]).map(torch.tensor)
WRAPPERS = {
    "OneHot": lambda v: OneHot(v, (3, 3)),
    "Beside": lambda v: Beside(v, [MLP(2)], [(0, 1)]),
    "Filled": Filled,
    "Corrupted": Corrupted,
    "Logarithmic": Logarithmic,
    "Standardised": lambda v: Standardised(v, torch.zeros(2), torch.ones(2)),
}
NOT_VECTORS = st.sampled_from(
    [torch.ones(s) for s in ((1, 2), (), (3,))] + [torch.full((2,), v) for v in (float("nan"), float("inf"))]
)

NOT_REAL = st.one_of(
    NOT_NUMBERS, st.floats(-9, -1e-6), st.sampled_from([None, float("nan"), float("inf"), torch.zeros(2)])
)
NOT_SHAPES = st.one_of(
    st.sampled_from([(), (16,), (3, 5), (4, 2, 4), (1, 1, 4, 4), 16, "44", [2.0, 8.0], (-4, -4), torch.Size([0, 16])]),
    NOT_COUNTS.map(lambda side: (side, 4)),
)
NOT_BLOCKS = st.sampled_from(
    [3, "gated", nn.ReLU(), [GatedBlock], GatedBlock(4), lambda: nn.ReLU(), lambda *n: None, lambda *n: nn.ReLU]
)
NOT_PADDINGS = NOT_COUNTS.filter(lambda v: v is False or v != 0)
SHAPED = {"Conv": lambda v: Conv(16, 4, 3, shape=v), "Deconv": lambda v: Deconv(3, 4, 16, shape=v)}
BLOCKED = {"Conv": lambda v: Conv(16, 4, 3, block=v), "Deconv": lambda v: Deconv(3, 4, 16, block=v)}
BOTTLENECK = {"in_features": 3, "middle": 2, "out_features": 3, "side": 4}
PYRAMID = {"x_dim": 64, "sides": (4, 1), "width": 3, "depth": 1, "middle": 2, "channels": 1}
MAPS_OF = {"width": 3, "side": 4, "factor": 2}
READOUT = {"width": 3, "x_dim": 16, "factor": 2, "numbers": 1, "channels": 1}
COUNTED = {
    ("GatedConv", "in_channels"): lambda v: GatedConv(v, 4),
    ("GatedConv", "out_channels"): lambda v: GatedConv(3, v),
    ("GatedConv", "kernel_size"): lambda v: GatedConv(3, 4, v),
    ("GatedConv", "stride"): lambda v: GatedConv(3, 4, stride=v),
    ("GatedBlock", "channels"): GatedBlock,
    ("SpectralLinear", "in_features"): lambda v: SpectralLinear(v, 4),
    ("SpectralLinear", "out_features"): lambda v: SpectralLinear(3, v),
    ("NormedLinear", "in_features"): lambda v: NormedLinear(v, 4),
    ("NormedLinear", "out_features"): lambda v: NormedLinear(3, v),
    ("NormedConv2d", "in_channels"): lambda v: NormedConv2d(v, 4),
    ("NormedConv2d", "out_channels"): lambda v: NormedConv2d(3, v),
    ("NormedConv2d", "kernel_size"): lambda v: NormedConv2d(3, 4, v),
    ("NormedConv2d", "stride"): lambda v: NormedConv2d(3, 4, stride=v),
    ("BatchNorm", "features"): BatchNorm,
    ("BatchNorm2d", "features"): BatchNorm2d,
    ("GRU", "in_features"): lambda v: GRU(v, 4),
    ("GRU", "out_features"): lambda v: GRU(3, v),
    ("GRU", "layers"): lambda v: GRU(3, 4, v),
    ("Combiner", "z_dim"): lambda v: Combiner(v, 4),
    ("Combiner", "width"): lambda v: Combiner(3, v),
    ("Combiner", "parts"): lambda v: Combiner(3, 4, v),
    ("Recurrent", "in_features"): lambda v: Recurrent(v, 4),
    ("Recurrent", "width"): lambda v: Recurrent(3, v),
    ("Recurrent", "layers"): lambda v: Recurrent(3, 4, layers=v),
}
NOT_RATES = st.sampled_from([0, -0.1, float("nan"), float("inf"), "0.1", None, [], torch.tensor(0.1)])
NOT_ROWS = st.sampled_from([torch.zeros(s) for s in ((5, 2), (1, 3), (5, 1, 3), (3,), ())])
SEQUENCED = {"DeepSet": DeepSet(MLP(3, 4), MLP(4, 2)), "GRU": GRU(3, 2)}
NOT_SEQUENCES = st.sampled_from([torch.zeros(s) for s in ((3,), ())])
NOT_PRESENT = st.sampled_from(
    [torch.zeros(s, dtype=torch.long) for s in ((), (4,), (5, 4))]
    + [torch.zeros(s, dtype=torch.bool) for s in ((), (5,), (5, 3))]
    + [torch.tensor([4, 5, 1, 1, 1]), torch.tensor([4, -1, 1, 1, 1]), torch.zeros(5), torch.zeros(5, 4), 3, [4] * 5]
)

NOT_PICTURES_OF_ANY = st.one_of(NOT_WIDTHS, st.sampled_from([(), (4,), (1, 1, 4, 4)]))
WINDOWS = {"Read": lambda v: Read(*v), "Write": lambda v: Write(*v)}
NOT_TWO_WIDE = st.one_of(NOT_TENSORS, OF_OTHER_WIDTH.filter(lambda v: v.shape[-1:] != (2,)))
NOT_PIXELS = st.one_of(NOT_TENSORS, OF_OTHER_WIDTH)
PIXELS, STATE = torch.zeros(5, 16), torch.zeros(5, 2)
NOT_SIZES_OF_MAPS = st.sampled_from([(1, 3, 5), (4, 4), 16, None, (1, 0, 4)])

CASES = [
    *text.NETS,
    *(
        Case(name, p, lambda v, make=make, p=p: make(**{p: v}), NOT_COUNTS)
        for name, (make, counts, _) in BY_CHAIN_RULE.items()
        for p in counts
    ),
    *(
        Case(name, p, lambda v, make=make, p=p: make(**{p: v}), NOT_FROM_0)
        for name, (make, _, sizes) in BY_CHAIN_RULE.items()
        for p in sizes
    ),
    *(
        Case(f"{name}.forward", "value", lambda v, make=make: make()(v), st.one_of(NOT_FOUR_WIDE, NOT_TENSORS))
        for name, (make, *_) in list(BY_CHAIN_RULE.items())[:4]
    ),
    *(
        Case(f"{name}.forward", "context", lambda v, make=make: make(context=3)(torch.zeros(5, 4), v), OF_OTHER_WIDTH)
        for name, (make, *_) in list(BY_CHAIN_RULE.items())[:4]
    ),
    Case("OrderedMADE", "hidden", lambda v: OrderedMADE(3, v), NOT_WIDTHS),
    Case("OrderedMADE", "seed", lambda v: OrderedMADE(3, seed=v), NOT_SEEDS),
    Case("PixelCNN", "shape", PixelCNN, NOT_PICTURES),
    Case(
        "CausalTransformer", "outputs", lambda v: CausalTransformer(3, 2, v), NOT_COUNTS.filter(lambda v: v is not None)
    ),
    Case(
        "CausalTransformer",
        "step",
        lambda v: CausalTransformer(3, 2, step=v),
        st.one_of(NOT_NUMBERS, st.sampled_from([None, 0, -1.0, float("nan"), float("inf")])),
    ),
    Case("MLP", "sizes", lambda v: MLP(v, 3), NOT_COUNTS),
    Case("MLP", "sizes", lambda v: MLP(3, 4, v), NOT_COUNTS),
    Case("MLP", "sizes", lambda v: MLP(v), st.sampled_from([[3, 4], (3, 4), True, None, nn.ReLU])),
    Case("MLP", "sizes", lambda v: MLP(*v), st.just(())),
    Case("MLP", "output", lambda v: MLP(3, 4, 2, output=v), NOT_MAKERS),
    *(Case(name, "activation", make, NOT_MAKERS) for name, make in ACTIVATED.items()),
    Case("Conv", "sizes", lambda v: Conv(16, v, 3), NOT_COUNTS),
    Case("Conv", "sizes", lambda v: Conv(16, 4, v), NOT_COUNTS),
    Case("Conv", "sizes", lambda v: Conv(v, 4, 3), NOT_SQUARES),
    Case("Conv", "sizes", lambda v: Conv(*v), st.sampled_from([(), (16,)])),
    Case("Deconv", "sizes", lambda v: Deconv(v, 16), NOT_COUNTS),
    Case("Deconv", "sizes", lambda v: Deconv(4, v, 16), NOT_COUNTS),
    Case("Deconv", "sizes", lambda v: Deconv(4, v), NOT_SQUARES),
    Case("Deconv", "sizes", lambda v: Deconv(*v), st.sampled_from([(), (16,)])),
    *(Case(name, "shape", make, NOT_SHAPES) for name, make in SHAPED.items()),
    *(Case(name, "block", make, NOT_BLOCKS) for name, make in BLOCKED.items()),
    *(Case(name, parameter, make, NOT_COUNTS) for (name, parameter), make in COUNTED.items()),
    *(
        Case(name, "in_features", lambda v, make=make: make((v, (4, 4), 3)), NOT_COUNTS)
        for name, make in WINDOWS.items()
    ),
    *(Case(name, "shape", lambda v, make=make: make((2, v, 3)), NOT_PICTURES_OF_ANY) for name, make in WINDOWS.items()),
    *(Case(name, "size", lambda v, make=make: make((2, (4, 4), v)), NOT_COUNTS) for name, make in WINDOWS.items()),
    Case("ReadAll", "x_dim", ReadAll, NOT_COUNTS),
    *(
        Case(f"{type(read).__name__}.forward", "x", lambda v, read=read: read(v, PIXELS, STATE), NOT_PIXELS)
        for read in (ReadAll(16), Read(2, (4, 4), 3))
    ),
    *(
        Case(f"{type(read).__name__}.forward", "error", lambda v, read=read: read(PIXELS, v, STATE), NOT_PIXELS)
        for read in (ReadAll(16), Read(2, (4, 4), 3))
    ),
    Case("ReadAll.forward", "state", lambda v: ReadAll(16)(PIXELS, PIXELS, v), NOT_TENSORS),
    Case("Read.forward", "state", lambda v: Read(2, (4, 4), 3)(PIXELS, PIXELS, v), NOT_TWO_WIDE),
    Case("Write.forward", "state", Write(2, (4, 4), 3), NOT_TWO_WIDE),
    Case("PixelFeatures", "net", lambda v: PixelFeatures(v, (2, 1, 1)), st.one_of(WIDTHLESS, NOT_MODULES)),
    Case("PixelFeatures", "shape", lambda v: PixelFeatures(MLP(3, 16), v), NOT_SHAPES),
    Case("PixelFeatures", "activation", lambda v: PixelFeatures(MLP(3, 16), (1, 4, 4), v), NOT_MAKERS),
    Case(
        "PixelReadout",
        "shape",
        lambda v: PixelReadout(v, 16),
        NOT_SIZES_OF_MAPS,
    ),
    Case("PixelReadout", "dim", lambda v: PixelReadout((1, 4, 4), v), st.one_of(NOT_COUNTS, st.just(15))),
    Case("PixelReadout", "per", lambda v: PixelReadout((1, 4, 4), 16, v), NOT_COUNTS),
    Case("PixelReadout", "activation", lambda v: PixelReadout((1, 4, 4), 16, activation=v), NOT_MAKERS),
    Case("GatedConv", "kernel_size", lambda v: GatedConv(3, 4, v), st.sampled_from([2, 4])),
    Case("GatedBlock", "activation", lambda v: GatedBlock(3, v), NOT_MAKERS),
    Case("NormedConv2d", "padding", lambda v: NormedConv2d(3, 4, padding=v), NOT_PADDINGS),
    Case("MLP", "layer", lambda v: MLP(3, 4, 2, layer=v), NOT_BLOCKS),
    Case("MLP", "norm", lambda v: MLP(3, 4, 2, norm=v), NOT_BLOCKS),
    *(Case(kind.__name__, "momentum", lambda v, kind=kind: kind(3, v), NOT_RATES) for kind in (BatchNorm, BatchNorm2d)),
    *(Case(kind.__name__, "eps", lambda v, kind=kind: kind(3, eps=v), NOT_RATES) for kind in (BatchNorm, BatchNorm2d)),
    Case("BatchNorm.forward", "value", lambda v: BatchNorm(3)(v), st.one_of(NOT_ROWS, NOT_TENSORS)),
    Case("BatchNorm2d.forward", "value", lambda v: BatchNorm2d(3)(v), st.one_of(NOT_IMAGES, NOT_TENSORS)),
    Case("GatedConv.forward", "maps", lambda v: GatedConv(3, 2)(v), st.one_of(NOT_IMAGES, NOT_TENSORS)),
    Case("GatedBlock.forward", "maps", lambda v: GatedBlock(3)(v), st.one_of(NOT_IMAGES, NOT_TENSORS)),
    Case("DeepSet", "element", lambda v: DeepSet(v, MLP(4, 3)), NOT_MODULES, named="element"),
    Case("DeepSet", "whole", lambda v: DeepSet(MLP(3, 4), v), NOT_MODULES),
    *(Case(f"{name}.forward", "x", make, st.one_of(NOT_TENSORS, NOT_SEQUENCES)) for name, make in SEQUENCED.items()),
    *(
        Case(f"{name}.forward", "present", lambda v, make=make: make(torch.zeros(5, 4, 3), v), NOT_PRESENT)
        for name, make in SEQUENCED.items()
    ),
    Case(
        "Recurrent", "direction", lambda v: Recurrent(3, 2, v), st.sampled_from([None, 3, "left", "", True, ["both"]])
    ),
    Case("Recurrent", "cell", lambda v: Recurrent(3, 2, cell=v), st.one_of(NOT_MAKERS, st.just(nn.LSTM))),
    Case("Recurrent", "inputs", lambda v: Recurrent(3, 2, inputs=v), NOT_MODULES.filter(lambda v: v is not None)),
    Case("Recurrent", "inputs", lambda v: Recurrent(3, 2, inputs=v), st.builds(Narrow), named="net"),
    Case("Recurrent.forward", "x", Recurrent(3, 2), st.one_of(NOT_TENSORS, NOT_SEQUENCES)),
    Case("Recurrent.forward", "lengths", lambda v: Recurrent(3, 2)(torch.zeros(5, 4, 3), v), NOT_PRESENT),
    *(
        Case("Bottleneck", name, lambda v, name=name: Bottleneck(**BOTTLENECK | {name: v}), NOT_COUNTS)
        for name in BOTTLENECK
    ),
    Case("Bottleneck", "last", lambda v: Bottleneck(3, 2, 3, 4, v), st.sampled_from([None, "1", -0.1, float("nan")])),
    *(
        Case(
            "Pyramid",
            name,
            lambda v, name=name: Pyramid(**PYRAMID | {name: v}),
            NOT_COUNTS.filter(lambda v: v is not None),
        )
        for name in PYRAMID
        if name != "sides"
    ),
    Case("Pyramid", "x_dim", lambda v: Pyramid(v, (1,), 3), NOT_SQUARES),
    Case("Pyramid", "sides", lambda v: Pyramid(64, v, 3), st.sampled_from([None, 4, (), (3,), (4, 3), (4, 4), (1, 4)])),
    *(Case("Readout", name, lambda v, name=name: Readout(**READOUT | {name: v}), NOT_COUNTS) for name in READOUT),
    *(Case("PixelMaps", name, lambda v, name=name: PixelMaps(**MAPS_OF | {name: v}), NOT_COUNTS) for name in MAPS_OF),
    Case("PixelMaps", "factor", lambda v: PixelMaps(3, 4, v), st.sampled_from([3, 8])),
    Case("Readout", "factor", lambda v: Readout(3, 16, v), st.sampled_from([3, 5, 8])),
    Case("ResidualBlock", "channels", ResidualBlock, NOT_COUNTS),
    Case("ResidualBlock", "activation", lambda v: ResidualBlock(3, v), NOT_MAKERS),
    Case("Maps", "layers", lambda v: Maps(nn.Conv2d(3, 3, 1), v), NOT_MODULES),
    Case(
        "Maps",
        "layers",
        lambda v: Maps(*v),
        st.sampled_from([(), (nn.ReLU(),), (nn.Linear(3, 3),), (nn.Conv1d(1, 1, 1),)]),
    ),
    Case("MADE", "dim", lambda v: MADE(v, hidden=(9,)), NOT_COUNTS),
    Case("MADE", "context", lambda v: MADE(3, v), NOT_COUNTS.filter(lambda v: v is False or v != 0)),
    Case("MADE", "hidden", lambda v: MADE(3, hidden=v), NOT_WIDTHS),
    Case("MADE", "hidden", lambda v: MADE(3, hidden=v), st.sampled_from([(2,), (1,), (9, 2), [2, 9]])),
    Case("MADE", "outputs", lambda v: MADE(3, outputs=v), NOT_COUNTS),
    *(Case(name, "net", make, st.one_of(WIDTHLESS, NOT_MODULES)) for name, make in WRAPPERS.items()),
    *(
        Case(f"{name}.forward", "x", lambda v, make=make: make(MLP(6, 2))(v), NOT_TENSORS)
        for name, make in WRAPPERS.items()
    ),
    Case("Corrupted", "drop", lambda v: Corrupted(MLP(2), v), st.one_of(NOT_REAL, st.sampled_from([1, 1.0, 1.5]))),
    Case("Corrupted", "scale", lambda v: Corrupted(MLP(2), scale=v), NOT_REAL),
    Case("Standardised", "loc", lambda v: Standardised(MLP(2), v, torch.ones(2)), st.one_of(NOT_TENSORS, NOT_VECTORS)),
    Case(
        "Standardised",
        "scale",
        lambda v: Standardised(MLP(2), torch.ones(2), v),
        st.one_of(NOT_TENSORS, NOT_VECTORS, st.sampled_from([torch.zeros(2), -torch.ones(2)])),
    ),
    Case("Beside", "fronts", lambda v: Beside(MLP(2), v, [(0, 1)]), st.sampled_from([None, 3, "x", [], ()])),
    Case("Beside", "fronts", lambda v: Beside(MLP(2), [v], [(0, 1)]), NOT_MODULES),
    Case("Beside", "net", lambda v: Beside(MLP(2), [v], [(0, 1)]), st.builds(nn.ReLU)),
    Case("Beside", "columns", lambda v: Beside(MLP(2), [MLP(2)], v), st.sampled_from([None, 3, [], [(0,), (1,)]])),
    Case("Beside", "columns", lambda v: Beside(MLP(2), [MLP(2)], [v]), NOT_PLACES),
    Case("Joined", "net", lambda v: Joined(v, [MLP(2)]), st.one_of(WIDTHLESS, NOT_MODULES)),
    Case("Joined", "fronts", lambda v: Joined(MLP(2), v), st.sampled_from([None, 3, "x", [], ()])),
    Case("Joined", "fronts", lambda v: Joined(MLP(2), [v]), NOT_MODULES),
    Case("Joined.forward", "arguments", lambda v: Joined(MLP(2), [MLP(2)])(*v), st.sampled_from([(), (X2, X2)])),
    Case("Joined.forward", "arguments", lambda v: Joined(MLP(2), [MLP(2)])(v), NOT_TENSORS, "x must be a tensor"),
    Case("Classes", "classes", Classes, NOT_COUNTS),
    Case("Classes.forward", "y", Classes(3), NOT_LABELS),
    Case("Classes.forward", "y", Classes(3), NOT_TENSORS, "x must be a tensor"),
    Case("OneHot", "sizes", lambda v: OneHot(MLP(2), v), NOT_WIDTHS),
    Case("out_features", "net", out_features, WIDTHLESS),
    Case("MLP.forward", "input", lambda v: MLP(3, 4, 2)(v), st.one_of(OF_OTHER_WIDTH, NOT_TENSORS, OF_OTHER_KIND)),
    Case("MLP.forward", "input", lambda v: MLP(3, 2)(torch.zeros(5, 2), v), st.one_of(NOT_BESIDE, NOT_TENSORS)),
    Case("Conv.forward", "input", lambda v: Conv(9, 2, 4)(v), st.one_of(OF_OTHER_WIDTH, NOT_TENSORS, NOT_IMAGES)),
    Case(
        "Deconv.forward", "input", lambda v: Deconv(3, 2, 16)(v), st.one_of(OF_OTHER_WIDTH, NOT_TENSORS, OF_OTHER_KIND)
    ),
    Case("Maps.forward", "maps", lambda v: Maps(nn.Conv2d(3, 2, 1))(v), st.one_of(NOT_IMAGES, NOT_TENSORS)),
    Case("ResidualBlock.forward", "maps", lambda v: ResidualBlock(3)(v), st.one_of(NOT_IMAGES, NOT_TENSORS)),
    Case("MADE.forward", "value", lambda v: MADE(3)(v), st.one_of(OF_OTHER_WIDTH, NOT_TENSORS)),
    Case("MADE.forward", "context", lambda v: MADE(3, 3)(torch.zeros(5, 3), v), st.one_of(OF_OTHER_WIDTH, NOT_TENSORS)),
    Case("MADE.forward", "context", lambda v: MADE(3)(torch.zeros(5, 3), v), st.sampled_from([torch.zeros(5, 3), 1])),
]
FLAGS = ("MADE(reverse)", "MADE(film)", "MADE(direct)", "OrderedMADE(direct)", "RowsAbove(strict)")
ANY = dict.fromkeys((*FLAGS, "PixelsLeft(strict)"), "any truth value")
ANY |= {
    "PixelReadout(last)": "any truth value",
    "Readout(last)": "any truth value",
    "NormedLinear(bias)": "any truth value",
    "SpectralLinear(bias)": "any truth value",
    "DeepSet(mean)": "any truth value",
    "GRU(reverse)": "any truth value",
}
RECORDS: set[str] = set()
