"""Estimators of log p(x), and the bracket around it."""
