"""Sweeps: what is searched, how, what is pruned, chosen and recorded."""
