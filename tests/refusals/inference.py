"""What objectives, estimators, fit and evaluate refuse."""

from __future__ import annotations

import dlvm.inference as room
from refusals import autoencoders, inference_fit, inference_objectives, inference_saved, inference_steps, inference_use

PARTS = autoencoders, inference_objectives, inference_steps, inference_fit, inference_saved, inference_use
ROOM = room
CASES = [case for part in PARTS for case in part.CASES]
ANY: dict[str, str] = {name: why for part in PARTS for name, why in part.ANY.items()}
RECORDS = {
    *("Code", "Imputed", "LogPx", "Prediction", "Coefficients", "EMStep", "Epoch", "Evaluation", "Verdict"),
    "Maximisable",
    *("Baked", "CheckpointFailed", "NoCompiler", "NonFinite", "RankLost", "Refused"),
}
