"""Autoencoders and their relatives: objectives that are no bound, some with a discriminator of their own."""
