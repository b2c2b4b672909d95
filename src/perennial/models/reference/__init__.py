"""Small plain models for the experiments; large backbones come from transformers."""

from perennial.models.reference.conv import ConvNet
from perennial.models.reference.mlp import MLP
from perennial.models.reference.sequential import Sequential
from perennial.models.reference.tabular import Tabular

__all__ = ["MLP", "ConvNet", "Sequential", "Tabular"]
