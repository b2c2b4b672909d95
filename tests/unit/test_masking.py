from __future__ import annotations

import pathlib

import numpy as np
import pytest
from omegaconf import OmegaConf

from perennial.masking import MASK, mask_text, plain


@pytest.mark.parametrize(
    "key",
    ["password", "db_password", "token", "hf_token", "client_secret", "api_key", "apiKey", "APIKEY",
     "OPENAI_API_KEY", "aws_access_key", "private-key", "credentials"],
)  # fmt: skip
def test_secret_keys_are_masked(key):
    assert plain({"a": [{key: "hunter2"}]}) == {"a": [{key: MASK}]}
    assert plain({key: 1234}) == {key: MASK}
    assert plain({key: {"inner": "hunter2"}}) == {key: MASK}


@pytest.mark.parametrize("key", ["max_tokens", "tokenizer", "keyboard", "key", "monkey", "art"])
def test_ordinary_keys_stay(key):
    assert plain({key: 8}) == {key: 8}


def test_an_unset_secret_is_visible():
    assert plain({"token": None, "password": ""}) == {"token": None, "password": ""}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql+psycopg://ann:pw@db:5432/reg", "postgresql+psycopg://ann:***@db:5432/reg"),
        ("postgresql://ann:p@/w@db/reg", "postgresql://ann:***@db/reg"),
        ("redis://:pw@db", "redis://:***@db"),
        ("registry.url=postgresql://ann:pw@db/r", "registry.url=postgresql://ann:***@db/r"),
        (
            "pg://db/r?user=ann&password=pw&x=1",
            "pg://db/r?user=ann&password=***&x=1",
        ),
        ("host=db password=pw dbname=r", "host=db password=*** dbname=r"),
        ("tracking.api_key=pw", "tracking.api_key=***"),
        ("sqlite:///./.perennial/registry.db", "sqlite:///./.perennial/registry.db"),
        ("postgresql://ann@db:5432/r", "postgresql://ann@db:5432/r"),
        ("model.max_tokens=8", "model.max_tokens=8"),
        ("notify.url=https://h.example/a/b", "notify.url=***"),
        ("- 'notify.headers={X: Bearer a}'\n", "- 'notify.headers=***'\n"),
        ("notify.when=[failed]", "notify.when=[failed]"),
    ],
)
def test_text(text, masked):
    assert mask_text(text) == masked
    assert plain({"x": [text]}) == {"x": [masked]}


def test_values_become_plain():
    found = plain(
        {
            "p": pathlib.Path("a/b"),
            "t": (1, 2.5),
            "s": {2, 1},
            "n": np.float64(0.5),
            3: True,
            "f": len,
        }
    )
    assert found == {
        "p": str(pathlib.Path("a/b")), "t": [1, 2.5], "s": [1, 2], "n": 0.5, "3": True,
        "f": str(len),
    }  # fmt: skip


def test_an_omegaconf_is_read_through():
    config = OmegaConf.create({"registry": {"url": "pg://a:b@c", "list": [1, "${registry.url}"]}})
    assert plain(config) == {"registry": {"url": "pg://a:***@c", "list": [1, "pg://a:***@c"]}}
