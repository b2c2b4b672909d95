"""Runs and versions side by side, without a server: collect, read, compare.

Functions of plain values and arrays; what is shown of them is `perennial.reporting`'s.
"""
