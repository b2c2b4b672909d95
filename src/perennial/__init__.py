"""Perennial retrains deployed PyTorch models."""
