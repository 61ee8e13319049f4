"""What schedules, guides set free, and records of evidence refuse."""

from __future__ import annotations

import torch
from hypothesis.strategies import just, sampled_from

import dlvm.evidence as room
from dlvm.guides import Diagonal, latents
from dlvm.models import VAE, LinearGaussianSSM
from refusals.case import NOT_CALLABLE, NOT_COUNTS, NOT_DATA, NOT_FINITE, NOT_NUMBERS, NOT_SEEDS, Case
from refusals.evidence_programs import PAIR, VALID, nothing
from refusals.pairs import LINEAR, MODEL, X

KNOWN = room.Estimate.exactly("elsewhere", torch.zeros(6))
FEW = KNOWN.of_weights("few samples", torch.zeros(2, 6))
BRACKET = room.Sandwich({"exact": KNOWN, "AIS": FEW}, simulated=False)
CHECKED = room.calibration(**VALID["calibration"])

NOT_FACTORIES = sampled_from([lambda spec, encoder: None, lambda spec: Diagonal, torch.nn.Bilinear, VAE])
NOT_FEATURES = NOT_DATA | sampled_from(
    [None, [[0.0] * 6], torch.zeros(6), torch.zeros(0, 6), torch.zeros(3, 5), torch.zeros(3, 6).long()]
)
NOT_WEIGHTS = NOT_DATA | sampled_from(
    [None, [[0.0]], torch.zeros(3), torch.zeros(0, 3), torch.zeros(2, 3, 4), torch.full((2, 3), torch.inf)]
)
NOT_VALUES = NOT_DATA | sampled_from([None, [0.0], torch.zeros(2, 3), torch.tensor([0.0, torch.nan])])
NOT_ROWS = sampled_from(["IWAE", "", None, 0, ["AIS"], KNOWN])
NOT_LEVELS = NOT_NUMBERS | NOT_FINITE | sampled_from([None, 0, 1, 95, -0.5, True])


def filtered(**settings: object) -> room.Estimate:
    """A particle filter of what a state space of one dimension makes of two columns."""
    known = {"model": LinearGaussianSSM(1, 2), "guide": None, "data": torch.zeros(4, 3, 2), "num_filters": 2}
    return room.particle_filter(**known | {"num_particles": 2} | settings)


NOT_FILTERED = [
    ("model", NOT_CALLABLE | sampled_from([VAE]), None),
    ("guide", NOT_CALLABLE.filter(lambda v: v is not None) | sampled_from([VAE, nothing, PAIR["guide"]]), None),
    ("data", NOT_DATA | sampled_from([None, [], torch.zeros(0, 3, 2)]), "batch"),
    ("data", sampled_from([torch.zeros(4, 3), torch.zeros(4, 3, 3)]), "shape"),
    ("num_particles", NOT_COUNTS, None),
    ("num_filters", NOT_COUNTS, None),
    ("resampling", sampled_from([3, "systematic", 0.5, True]), None),
    ("rows", NOT_COUNTS.filter(lambda v: v is not None), None),
    ("seed", NOT_SEEDS, None),
]

CASES = [
    *(Case("particle_filter", n, lambda v, n=n: filtered(**{n: v}), *more) for n, *more in NOT_FILTERED),
    Case("linear", "temperatures", room.linear, NOT_COUNTS),
    Case("sigmoid", "temperatures", room.sigmoid, NOT_COUNTS),
    Case("free", "guide", room.free, NOT_CALLABLE | just(PAIR["guide"])),
    Case("free", "guide", lambda v: room.free(v)(latents(LINEAR, X), 3), NOT_FACTORIES),
    Case("Freed", "guide", lambda v: room.Freed(v, torch.zeros(3, 6)), NOT_CALLABLE),
    Case("Freed", "guide", lambda v: room.Freed(v, torch.zeros(3, 6)), sampled_from([Diagonal, MODEL, nothing, room])),
    Case("Freed", "h", lambda v: room.Freed(PAIR["guide"], v), NOT_FEATURES),
    Case("Estimate.of_weights", "log_w", lambda v: KNOWN.of_weights("mine", v), NOT_WEIGHTS),
    Case("Estimate.of_weights", "side", lambda v: KNOWN.of_weights("mine", torch.zeros(2, 3), v), NOT_CALLABLE),
    Case("Estimate.exactly", "log_px", lambda v: KNOWN.exactly("mine", v), NOT_VALUES),
    Case("Estimate.joined", "parts", lambda v: KNOWN.joined(v, 0.0), sampled_from([[KNOWN, FEW], [FEW, KNOWN, FEW]])),
    Case("Estimate.joined", "parts", lambda v: KNOWN.joined(v, 0.0), sampled_from([[], ()]), "no batch"),
    Case("Sandwich.gap", "first", lambda v: BRACKET.gap(v, "AIS"), NOT_ROWS),
    Case("Sandwich.gap", "second", lambda v: BRACKET.gap("AIS", v), NOT_ROWS),
    Case("Calibration.coverage", "level", CHECKED.coverage, NOT_LEVELS),
]
