"""The compiled form of every recipe's pipeline: `python -m tests.golden` writes it anew after a wanted change."""
