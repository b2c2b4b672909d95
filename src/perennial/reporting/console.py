"""Stub."""


def print_result(result, console):
    console.print_json(data={k: v for k, v in result.items() if k != "environment"}, default=str)
