"""The texts of a diagnosis, numbered from 0 in a fixed order, and how each becomes token ids and token types."""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sinkablate.diagnose.images import LazyImage
from sinkablate.errors import UserError
from sinkablate.files.suggestions import first_few
from sinkablate.vit.tokens import TextTokenType

MIN_TOKENS = 2
"""A text of fewer tokens has no attention to measure."""
UNKNOWN_CHARACTER = "\ufffd"
"""How a tokenizer decodes a part of a character."""


@dataclass(frozen=True)
class TextEncoder:
    """Turns a text into token ids and token types.

    Args:
        tokenizer: A tokenizer of transformers.
        max_tokens: Largest number of tokens that the model accepts.
        vocabulary: Number of token ids that the model knows.
        causal: Whether the model reads from left to right.
    """

    tokenizer: Any
    max_tokens: int
    vocabulary: int
    causal: bool

    def __call__(self, text: str) -> tuple[Tensor, int]:
        """Return ids and types of the tokens that the model accepts, (2, N) int64, and the number of all tokens.

        Raises:
            UserError: The tokenizer produces token ids that the model does not know.
        """
        count = len(self.tokenizer(text, verbose=False)["input_ids"])
        ids = self.tokenizer(text, truncation=True, max_length=self.max_tokens)["input_ids"]
        if max(ids, default=0) >= self.vocabulary:
            raise UserError(
                f"hf={self.tokenizer.name_or_path}: the tokenizer produces token id {max(ids)}, but the model knows "
                f"only {self.vocabulary} tokens; use the tokenizer of this model"
            )
        kinds = [self._kind(token, position) for position, token in enumerate(ids)]
        return torch.tensor([ids, kinds], dtype=torch.long), count

    def _kind(self, token: int, position: int) -> TextTokenType:
        names = self._special
        if position == 0 and self.causal:
            return TextTokenType.BOS
        if token == names["cls"] or (position == 0 and token == names["bos"]):
            return TextTokenType.CLS
        if token in (names["sep"], names["eos"]):
            return TextTokenType.SEP
        word = self.tokenizer.decode([token])
        is_word = UNKNOWN_CHARACTER in word or any(character.isalnum() for character in word)
        return TextTokenType.WORD if is_word else TextTokenType.PUNCTUATION

    @cached_property
    def _special(self) -> dict[str, int | None]:
        return {name: getattr(self.tokenizer, f"{name}_token_id", None) for name in ("cls", "bos", "sep", "eos")}


class TextSource:
    """A set of texts in a fixed order.

    Args:
        location: A UTF-8 file with one text per line, or `builtin`: passages that are part of this package.
        encode: Turns a text into a tensor.

    Raises:
        UserError: The file cannot be read or holds no text of at least two tokens.
    """

    def __init__(self, location: str, encode: TextEncoder) -> None:
        self.skipped: Counter[str] = Counter()
        """Lines that are not texts, by reason; they are not numbered."""
        self.texts: list[tuple[str, Tensor]] = []
        cut: list[str] = []
        for number, line in enumerate(_lines(location), 1):
            if not line.strip():
                self.skipped["empty line"] += 1
                continue
            tokens, count = encode(line.strip())
            if tokens.shape[1] < MIN_TOKENS:
                self.skipped["fewer than two tokens"] += 1
                continue
            name = f"line {number}"
            self.texts.append((name, tokens))
            if count > tokens.shape[1]:
                cut.append(name)
        if not self.texts:
            raise UserError(
                f"texts={location}: there is no text of at least {MIN_TOKENS} tokens; write one text per line"
            )
        if cut:
            print(
                f"truncated: {len(cut)} of {len(self.texts)} texts are longer than the {encode.max_tokens} tokens that "
                f"the model accepts, and are measured only up to that length ({first_few(cut)})",
                file=sys.stderr,
            )

    def __len__(self) -> int:
        return len(self.texts)

    def start(self, first: int) -> Iterator[LazyImage]:
        """Yield the texts from number `first` on."""
        for name, tokens in self.texts[first:]:
            yield LazyImage(name, lambda tokens=tokens: tokens)  # type: ignore[misc]


def _lines(location: str) -> list[str]:
    """Return the lines of a file.

    Raises:
        UserError: There is no such file, or it is not encoded as UTF-8.
    """
    if location == "builtin":
        return (files("sinkablate.diagnose") / "passages.txt").read_text(encoding="utf-8").splitlines()
    path = Path(location)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise UserError(f"texts={location}: {found}; name a UTF-8 file with one text per line, or `builtin`")
    try:
        return path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(
            f"texts={location}: byte {error.start} is not UTF-8; convert the file, for example with iconv"
        ) from None
    except OSError as error:
        raise UserError(f"texts={location}: the file cannot be read ({error.strerror})") from None
