"""Stub."""

from perennial import files


def write_result(path, result):
    files.write_json(path, result)
