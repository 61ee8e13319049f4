"""What data are made of: modules from a context to a distribution of counts, real numbers, classes, shares or greys."""
