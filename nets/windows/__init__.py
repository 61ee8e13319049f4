"""Windows on images: where a net looks, what it reads there, and what it puts there."""
