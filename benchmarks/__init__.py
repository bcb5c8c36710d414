"""Measurements behind flowsim's choices: ``python -m benchmarks [NAME] [--quick]``."""
