"""The autoencoder in NumPyro: a whole epoch, shuffling and binarisation included, as one jitted scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import SVI, Trace_ELBO

from benchmarks.catalogue import Sizes


def _network(name: str, h: jax.Array, *sizes: int) -> jax.Array:
    """Linear layers with ReLUs between them."""
    for i, (a, b) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        h = jax.nn.relu(h) if i else h
        start = jax.nn.initializers.glorot_uniform()
        weight = numpyro.param(f"{name}.{i}.weight", lambda key, a=a, b=b, start=start: start(key, (a, b)))
        h = h @ weight + numpyro.param(f"{name}.{i}.bias", jnp.zeros(b))
    return h


def programs(sizes: Sizes) -> tuple[Callable, Callable]:
    """Model and guide, (x) -> None each, x of shape (batch, x_dim)."""
    x_dim, hidden, z_dim = sizes.x_dim, sizes.hidden, sizes.z_dim

    def model(x: jax.Array) -> None:
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(z_dim), jnp.ones(z_dim)).to_event(1))
            logits = _network("decoder", z, z_dim, hidden, hidden, x_dim)
            numpyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(x: jax.Array) -> None:
        loc, raw = jnp.split(_network("encoder", x, x_dim, hidden, hidden, 2 * z_dim), 2, axis=-1)
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Normal(loc, jnp.exp(10 * jnp.tanh(raw / 10))).to_event(1))

    return model, guide


def epoch(greys: np.ndarray, batch: int, sizes: Sizes, lr: float) -> Callable[[], float]:
    """A function that trains for one epoch and returns its mean loss, in nats per datum.

    Args:
        greys: shape (n, x_dim), probabilities of a 1.
        batch: data per step.
        sizes: widths.
        lr: learning rate of Adam.
    """
    svi = SVI(*programs(sizes), numpyro.optim.Adam(lr), Trace_ELBO())
    data = jnp.asarray(greys)
    steps = len(data) // batch

    def body(state: Any, xs: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
        rows, key = xs
        x = jax.random.bernoulli(key, data[rows]).astype(data.dtype)
        return svi.update(state, x)

    @jax.jit
    def one(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        shuffling, drawing = jax.random.split(key)
        rows = jax.random.permutation(shuffling, len(data))[: steps * batch].reshape(steps, batch)
        return jax.lax.scan(body, state, (rows, jax.random.split(drawing, steps)))

    state, key = svi.init(jax.random.key(0), data[:batch]), jax.random.key(1)

    def run() -> float:
        nonlocal state, key
        key, now = jax.random.split(key)
        state, losses = one(state, now)
        return float(losses.mean()) / batch

    return run
