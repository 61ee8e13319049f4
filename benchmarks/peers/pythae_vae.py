"""The autoencoder in pythae: its trainer's epoch, and its importance-sampled likelihood."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import CallbackHandler, TrainingCallback
from torch import Tensor, nn

from benchmarks.catalogue import Sizes


class Encoder(BaseEncoder):
    """x -> location and log-variance."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(sizes.x_dim, sizes.hidden), nn.ReLU(), nn.Linear(sizes.hidden, sizes.hidden), nn.ReLU()
        )
        self.head = nn.Linear(sizes.hidden, 2 * sizes.z_dim)

    def forward(self, x: Tensor) -> ModelOutput:
        loc, log_variance = self.head(self.layers(x)).chunk(2, dim=-1)
        return ModelOutput(embedding=loc, log_covariance=log_variance)


class Decoder(BaseDecoder):
    """z -> probabilities."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(sizes.z_dim, sizes.hidden),
            nn.ReLU(),
            nn.Linear(sizes.hidden, sizes.hidden),
            nn.ReLU(),
            nn.Linear(sizes.hidden, sizes.x_dim),
            nn.Sigmoid(),
        )

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.layers(z))


def autoencoder(sizes: Sizes) -> VAE:
    """The model with pythae's Bernoulli loss."""
    config = VAEConfig(input_dim=(sizes.x_dim,), latent_dim=sizes.z_dim, reconstruction_loss="bce")
    return VAE(config, encoder=Encoder(sizes), decoder=Decoder(sizes))


def epoch(greys: Tensor, batch: int, sizes: Sizes, lr: float, folder: str) -> Callable[[], float]:
    """A function that trains for one epoch and returns its mean loss; greys stay grey, and no progress bar is drawn.

    Args:
        greys: shape (n, x_dim).
        batch: data per step.
        sizes: widths.
        lr: learning rate of Adam.
        folder: pythae wants one; nothing is written to it.
    """
    settings = BaseTrainerConfig(output_dir=folder, per_device_train_batch_size=batch, learning_rate=lr, no_cuda=True)
    logging.getLogger("pythae.trainers.base_trainer.base_trainer").setLevel(logging.WARNING)
    trainer = BaseTrainer(autoencoder(sizes), BaseDataset(greys, torch.zeros(len(greys))), training_config=settings)
    trainer.set_optimizer()
    trainer.callback_handler = CallbackHandler([TrainingCallback()], trainer.model)
    return lambda: trainer.train_step(1)


def log_px(x: Tensor, sizes: Sizes, num_particles: int, rows: int = 1000) -> Callable[[], float]:
    """A function that estimates the mean log p(x), with ``rows`` particles at a time (pythae's default is 100)."""
    model = autoencoder(sizes).eval()

    def run() -> float:
        with torch.no_grad():
            return model.get_nll(x, n_samples=num_particles, batch_size=min(rows, num_particles))

    return run
