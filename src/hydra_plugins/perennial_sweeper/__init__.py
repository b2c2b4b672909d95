"""Hydra's side of a sweep: ``hydra/sweeper=perennial`` and ``hydra/launcher=process``.

Hydra imports every module here whatever is run, so that nothing heavy may be imported at a head.
"""
