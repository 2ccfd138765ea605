"""Texts of numbers, and what the kernel makes of them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from marketflow.operators.kernels import numbers

plain = st.from_regex(r"\A-?[0-9]{0,22}(\.[0-9]{0,22})?\Z")
zeros = st.from_regex(r"\A[1-9]{1,18}0{0,20}(\.[0-9]{0,3}0{0,30})?\Z")
scientific = st.from_regex(r"\A-?[0-9]{1,20}(\.[0-9]{1,20})?[eE][+-]?[0-9]{1,3}\Z")
noise = st.text("0123456789.-+eE xN", max_size=8)
texts = plain | zeros | scientific | noise


def parse(text: str) -> tuple[int, int, int]:
    data = np.frombuffer(b"\xff" + text.encode() + b"7", np.uint8)
    mantissa, scale, code = numbers.parse_number(data, 1, len(data) - 1)
    return int(mantissa), int(scale), int(code)
