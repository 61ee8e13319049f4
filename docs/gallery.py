"""The gallery: models after a short training each; run, it draws docs/pictures and writes docs/gallery.md.

``python docs/gallery.py vae draw`` draws these two anew; without words, all. Data are embedded or simulated.
"""

from __future__ import annotations

import sys
from functools import partial
from io import BytesIO
from pathlib import Path

from catalogue import PICTURES, ROOT, formula, program
from PIL import Image, ImageOps

from dlvm.experiments.setups.named import about, named

PAGE = ROOT / "docs" / "gallery.md"
MARK, END = "<!-- gallery: python docs/gallery.py -->", "<!-- end of gallery -->"
WIDTH, MOST = 560, 60_000  # pixels, bytes of a picture
GREYS = "--data digits --binarize none"
# {word: (options of dlvm train, which of its figures, what is seen)}
SHOWN = {
    "vae": ("--data digits --epochs 60", "latent_space", "Where the encoder puts the digits, in two dimensions."),
    "hvae": ("--data digits --sizes 8 4 --epochs 60 --warm-up 20", "samples", "Draws through two layers of latents."),
    "top_down": ("--data digits --epochs 6", "reconstructions", "Digits, and what maps of latents keep of them."),
    "gmvae": ("--data digits --z-dim 4 --epochs 15", "samples", "Draws from a prior with clusters."),
    "discrete_vae": ("--data digits --epochs 15", "reconstructions", "Digits, and what a few bits keep of them."),
    "vq_vae": (
        "--data digits --epochs 30",
        "reconstructions",
        "Digits, and what codes of a learned list keep of them.",
    ),
    "ppca": (f"{GREYS} --epochs 40", "reconstructions", "Grey digits, and their projections on a plane."),
    "bayesian_vae": ("--data digits --z-dim 8 --epochs 30", "samples", "Draws of a decoder with random weights."),
    "cvae": ("--data digits --epochs 40", "samples", "Draws given their class."),
    "draw": ("--data digits --epochs 6 --objective analytic_kl", "canvas", "A canvas filled step by step."),
    "air": ("--data multi_digits --objective elbo --estimator nvil --epochs 8", "objects", "Where objects are seen."),
    "bernoulli_mixture": ("--data digits --components 20", "samples", "What its clusters draw."),
    "diffusion": ("--data digits --layers 20 --epochs 30", "samples", "Draws, noise taken out layer by layer."),
    "pixel_vae": ("--data digits --receptive-field 1 --epochs 8", "samples", "Draws whose pixels see one another."),
    "pixelcnn": ("--data digits --receptive-field 4 --layers 3 --epochs 10", "samples", "Draws without latents."),
    "made": ("--data digits --hidden 200 --epochs 20", "samples", "Draws of one pass for each pixel."),
    "nade": ("--data digits --hidden 100 --epochs 15", "samples", "Draws pixel after pixel."),
    "nice": ("--data digits --depth 6 --epochs 20", "samples", "Draws by a map that can be inverted."),
    "realnvp": ("--data digits --actnorm --mixing --width 16 --epochs 6", "samples", "Draws by couplings of scales."),
}


def drawn(word: str) -> bytes:
    """The picture of a model, trained by its options, as a small PNG.

    Raises:
        ValueError: the word is not in the gallery, the setup draws no such figure, or the picture is too large.
    """
    import pyro
    import torch

    from dlvm.experiments import train as script
    from dlvm.experiments.options.command_line import parsed
    from dlvm.experiments.runs.recipe import Recipe
    from dlvm.inference import train

    if word not in SHOWN:
        raise ValueError(f"word must be one of {', '.join(SHOWN)}, got {word!r}")
    options, name, _ = SHOWN[word]
    config = parsed(script.Config, ["--model", word, *options.split()], "train")
    batches, valid, test = (recipe := Recipe.by(config)).splits("cpu")
    pyro.set_rng_seed(config.seed)
    model, guide = recipe.pair(batches)
    objective = script.maximised(config, model, guide, batches)
    adam = partial(torch.optim.Adam, lr=config.lr)
    stepped = config.setup.trained(model, guide)
    train(*stepped, objective, batches, valid, epochs=config.epochs, optimizer=adam, seed=config.seed, progress=False)
    judged = config.setup.evaluated(model, guide, batches)
    drawings = {title: draw for title, draw, _ in config.setup.pictures(*judged, test)}
    if name not in drawings:
        raise ValueError(f"{word} draws {', '.join(drawings)}, and no {name!r}; name one of these in SHOWN")
    return small(drawings[name]())


def small(fig: object) -> bytes:
    """A figure without its white borders, as a PNG of 64 colours."""
    whole, found = BytesIO(), BytesIO()
    fig.savefig(whole, format="png", dpi=150)
    with Image.open(whole) as image:
        rgb = trimmed(image.convert("RGB"))
    rgb.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    rgb.quantize(64).save(found, "PNG", optimize=True)
    if len(found.getvalue()) > MOST:
        raise ValueError(f"the picture has {len(found.getvalue())} bytes where {MOST} are the most; make WIDTH smaller")
    return found.getvalue()


def trimmed(image: Image.Image) -> Image.Image:
    """What is inside the white borders."""
    return image.crop(ImageOps.invert(image).getbbox())


def entry(word: str) -> list[str]:
    """A model in the gallery: its picture, what it is, how it factorises, and the command of the picture."""
    options, _, seen = SHOWN[word]
    lines = formula(program(word))[:1]
    return [
        '<div markdown="1">',
        "",
        f"[![{word}: {seen}]({PICTURES.name}/{word}.png)](models.md#{word})",
        "",
        f"**[`{word}`](models.md#{word})** {about(named(word))}",
        "",
        *(["```", lines[0], "```", ""] if lines else []),
        f"{seen} `dlvm train --model {word} {options}`",
        "",
        "</div>",
        "",
    ]


def written(page: str) -> str:
    """A page with the gallery between its marks; of models whose picture is there.

    Raises:
        ValueError: the page has no marks.
    """
    if not (MARK in page and END in page):
        raise ValueError(f"page must have the lines {MARK} and {END}, between which the gallery goes; add them")
    before, _, rest = page.partition(MARK)
    inside = [line for word in SHOWN if (PICTURES / f"{word}.png").exists() for line in entry(word)]
    body = ['<div class="gallery" markdown="1">', "", *inside, "</div>", ""]
    return "\n".join([f"{before}{MARK}", "", *body, f"{END}{rest.partition(END)[2]}"])


if __name__ == "__main__":
    for each in sys.argv[1:] or SHOWN:
        PICTURES.mkdir(exist_ok=True)
        Path(PICTURES, f"{each}.png").write_bytes(drawn(each))
        print(f"drawn: {each}", file=sys.stderr, flush=True)
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
    print(f"written to {PAGE}", file=sys.stderr)
