"""Texts to token ids by the tokenizer that belongs to a model.

Shapes: N rows, L tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perennial.data.columns import Column
from perennial.data.preprocess.base import Features
from perennial.errors import ConfigError
from perennial.paths import folder_of

FILE = "tokenizer.json"
MAX_LENGTH = 1 << 20
# what tokenizers are padded with where nothing else is said; a mask hides it in any case
_PADS = ("[PAD]", "<pad>", "<|endoftext|>", "</s>")


class Text:
    """A column of text to ``input_ids`` and ``attention_mask`` (N, L), or a pair of columns.

    With ``pair`` there are ``token_type_ids`` too. Texts are cut at L tokens and filled up to it.
    The tokenizer's file is kept with every version, byte for byte.

    Args:
        column: The texts.
        tokenizer: A ``tokenizer.json``, or a folder that holds one, as Hugging Face models have it;
            ``package:NAME/FOLDER`` is one inside an installed package.
        max_length: L, special tokens included, from 1 to `MAX_LENGTH`.
        pair: A second column, for models that take two texts.

    Raises:
        ConfigError: The tokenizer is not there or unreadable, or ``max_length`` is out of
            range.
    """

    def __init__(
        self,
        *,
        column: str = "text",
        tokenizer: str | None = None,
        max_length: int = 128,
        pair: str | None = None,
    ) -> None:
        if not 1 <= max_length <= MAX_LENGTH:
            raise ConfigError(
                f"A text cannot be cut at {max_length} tokens.",
                where="data.preprocess.max_length",
                mend=f"use 1 to {MAX_LENGTH:,}; most encoders take 128 to 512",
            )
        self.column = column
        self.pair = pair
        self.max_length = max_length
        self._bytes: bytes | None = None
        self._pad = 0
        self._tokenizer: Any = None
        if tokenizer is not None:
            path = _file(folder_of(tokenizer, where="data.preprocess.tokenizer"))
            self._bytes = path.read_bytes()
            self._open(str(path), beside=path.parent / "tokenizer_config.json")

    @property
    def columns(self) -> tuple[str, ...]:
        """One column, or two."""
        return (self.column,) if self.pair is None else (self.column, self.pair)

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments without the tokenizer's path: a lineage is held to its bytes instead."""
        return {"column": self.column, "max_length": self.max_length, "pair": self.pair}

    def kind(self, column: str, nature: str) -> str:
        """``text`` for its own columns, ``fixed`` for others."""
        return "text" if column in self.columns else "fixed"

    def fit(self, features: Features) -> None:
        """Nothing is fitted: a tokenizer comes whole.

        Raises:
            ConfigError: None is named.
        """
        if self._bytes is None:
            raise ConfigError(
                "The lineage is to be founded, and no tokenizer is named.",
                where="data.preprocess.tokenizer",
                mend="name a tokenizer.json or the folder of a Hugging Face model",
            )

    def knowing(self, label_names: Sequence[str]) -> Text:
        """Itself: a tokenizer knows no classes."""
        return self

    def apply(self, features: Features) -> dict[str, Column]:
        """``input_ids`` int32, ``attention_mask`` uint8, then other columns."""
        encoded = self._encoded(features)
        shape = (len(encoded), self.max_length)
        found: dict[str, Column] = {
            "input_ids": np.array([one.ids for one in encoded], dtype=np.int32).reshape(shape),
            "attention_mask": np.array(
                [one.attention_mask for one in encoded], dtype=np.uint8
            ).reshape(shape),
        }
        if self.pair is not None:
            kinds = np.array([one.type_ids for one in encoded], dtype=np.uint8)
            found["token_type_ids"] = kinds.reshape(shape)
        return found | {k: values for k, values in features.items() if k not in self.columns}

    def notes(self, features: Features, *, name: str) -> list[str]:
        """How many texts are cut."""
        cut = sum(bool(one.overflowing) for one in self._encoded(features))
        if not cut:
            return []
        return [
            f"{name}: {cut} of {len(features[self.column])} texts are cut at {self.max_length} "
            "tokens (data.preprocess.max_length)"
        ]

    def fills(self) -> dict[str, Any]:
        """``vocabulary``: number of token ids; ``padding``: the id that fills up."""
        return {"vocabulary": self._tokenizer.get_vocab_size(), "padding": self._pad}

    def state(self) -> dict[str, Any]:
        """The id that texts are filled up with."""
        return {"pad_id": self._pad}

    def files(self) -> dict[str, bytes]:
        """The tokenizer."""
        return {} if self._bytes is None else {FILE: self._bytes}

    def load(self, state: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Take a version's tokenizer."""
        self._bytes = files[FILE]
        self._open(FILE, pad_id=int(state["pad_id"]))

    def __deepcopy__(self, memo: Any) -> Text:
        """Another one with the same tokenizer, which keeps no state of texts."""
        other = Text(column=self.column, max_length=self.max_length, pair=self.pair)
        other._bytes, other._pad, other._tokenizer = self._bytes, self._pad, self._tokenizer
        return other

    def _encoded(self, features: Features) -> list[Any]:
        assert self._tokenizer is not None, "fit or load comes first"
        texts = features[self.column].tolist()
        if self.pair is None:
            given: list[Any] = texts
        else:
            given = list(zip(texts, features[self.pair].tolist(), strict=True))
        encoded: list[Any] = self._tokenizer.encode_batch(given)
        return encoded

    def _open(self, where: str, *, beside: Path | None = None, pad_id: int | None = None) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ConfigError(
                "Texts need the library tokenizers, which is not installed.",
                where="data.preprocess",
                mend="pip install 'perennial[hf]'",
            ) from error
        assert self._bytes is not None
        try:
            tokenizer = Tokenizer.from_str(self._bytes.decode())
        except Exception as error:  # the library raises Exception itself
            raise ConfigError(
                f"The tokenizer cannot be read: {error}.",
                where=where,
                mend="give a tokenizer.json that the library tokenizers wrote",
            ) from error
        special = tokenizer.num_special_tokens_to_add(self.pair is not None)
        if special >= self.max_length:
            raise ConfigError(
                f"{self.max_length} tokens leave no room for text beside {special} special ones.",
                where="data.preprocess.max_length",
                mend=f"use more than {special}",
            )
        self._pad = _pad_id(tokenizer, beside) if pad_id is None else pad_id
        tokenizer.enable_truncation(self.max_length)
        tokenizer.enable_padding(
            length=self.max_length,
            pad_id=self._pad,
            pad_token=tokenizer.id_to_token(self._pad) or _PADS[0],
        )
        self._tokenizer = tokenizer


def _file(name: str) -> Path:
    path = Path(name).expanduser()
    found = path / FILE if path.is_dir() else path
    if not found.is_file():
        raise ConfigError(
            "There is no tokenizer.",
            where=f"data.preprocess.tokenizer={path}",
            mend=f"name a {FILE} or a folder that holds one; a model with other tokenizer files "
            "writes one with AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)",
        )
    return found


def _pad_id(tokenizer: Any, beside: Path | None) -> int:
    """The id to fill up with: the tokenizer's own, that of its configuration, or a usual one."""
    if tokenizer.padding is not None:
        return int(tokenizer.padding["pad_id"])
    tokens = list(_PADS)
    if beside is not None and beside.is_file():
        given = json.loads(beside.read_text()).get("pad_token")
        tokens.insert(0, given["content"] if isinstance(given, dict) else str(given))
    found = (tokenizer.token_to_id(token) for token in tokens)
    return next((number for number in found if number is not None), 0)
