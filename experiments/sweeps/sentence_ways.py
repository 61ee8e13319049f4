"""Ways to train a sentence VAE so that z says something, one remedy at a time, and the language model beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dlvm.experiments.data import Loader
from dlvm.experiments.options.variables import TokenNetWord
from dlvm.experiments.setups.language_model import LanguageModelSetup
from dlvm.experiments.setups.sentence_vae import SentenceVAESetup
from dlvm.experiments.sweeps.equal_steps import StepsOptions
from dlvm.inference import ELBO, Objective, cyclical, free_bits, tempered

Way = Literal["plain", "elbo", "annealed", "cyclical", "free_bits", "word_dropout"]
LABELS: dict[Way, str] = {
    "plain": "language model, no z",
    "elbo": "ELBO",
    "annealed": "KL annealing",
    "cyclical": "cyclical annealing",
    "free_bits": "free bits",
    "word_dropout": "word dropout",
}


@dataclass(frozen=True)
class SentenceOptions(StepsOptions):
    """What all ways have in common, and the number of each."""

    epochs: int = 30
    """Passes over the training data, the same for all; the parameters of the best validation bound are kept."""
    warm_up: int = 10
    """For annealed: epochs over which the weight of log q - log p rises from 0 to 1."""
    cycles: int = 4
    """For cyclical: how often that weight rises from 0, over three quarters of the epochs."""
    free_nats: float = 4.0
    """For free_bits: nats of log q - log p per sentence that cost nothing while training."""
    word_dropout: float = 0.4
    """For word_dropout: share of earlier tokens that the decoder is not shown while it is trained."""
    z_dim: int = 16
    """Latent dimensions."""
    net: TokenNetWord = "gru"
    """What sees earlier tokens: gru, gated states; tcn, dilated convolutions."""
    width: int = 128
    """Numbers of a token's vector, and of each state or map."""


@dataclass(frozen=True)
class SentenceWay(SentenceOptions):
    """One way."""

    way: Way = "elbo"

    @property
    def setup(self) -> SentenceVAESetup | LanguageModelSetup:
        """The model, with word dropout where that is the way."""
        if self.way == "plain":
            return LanguageModelSetup(self.net, self.width)
        drop = self.word_dropout if self.way == "word_dropout" else 0.0
        return SentenceVAESetup(self.z_dim, self.net, self.width, word_dropout=drop)

    def objective(self, train: Loader) -> Objective:
        """What trains it; what is reported is the bound itself."""
        if self.way == "annealed":
            return super().objective(train)
        if self.way == "cyclical":
            return tempered(ELBO(), cyclical(0.0, 1.0, 3 * self.epochs * len(train) // 4, self.cycles))
        return free_bits(ELBO(), self.free_nats) if self.way == "free_bits" else ELBO()
