"""Retrain the model that serves today: ``python train.py [overrides]``."""

from perennial.cli import train

if __name__ == "__main__":
    train()
