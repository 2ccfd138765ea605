"""Ids: every text comes back as it was, single and in bulk alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.operators import ids
from marketflow.operators.events import IdKind
from marketflow.operators.kernels.ids import NOT_AN_ID

HEX = "0123456789abcdef"
TEXTS = st.one_of(
    st.integers(0, 2**128 + 5).map(str),
    st.sampled_from([2**64 - 1, 2**64, 10**19 - 1, 10**19, 10**38, 2**128 - 1, 2**128]).map(str),
    st.uuids().map(str),
    st.text(HEX, min_size=23, max_size=25),
    st.text(st.characters(max_codepoint=130), max_size=17),
    st.text(HEX + "-ABC", min_size=36, max_size=36),
    st.text("0123456789", min_size=1, max_size=40),
)


@given(TEXTS)
def test_a_text_comes_back_or_is_refused(text: str) -> None:
    found = ids.parse(text)
    if found is None:
        assert len(text) > 15 or not text.isascii()
    else:
        assert found.hi < 2**64
        assert found.lo < 2**64
        assert ids.text_of(*found) == text


@given(st.lists(st.one_of(st.none(), TEXTS), max_size=40))
def test_bulk_is_single(texts: list[str | None]) -> None:
    spans, data = [], b"..."
    for text in texts:
        start = len(data)
        data += (text or "").encode()
        spans.append((-1, -1) if text is None else (start, len(data)))
    starts, stops = np.array(spans, np.int64).reshape(-1, 2).T
    hi, lo, kinds, bad = ids.from_spans(np.frombuffer(data, np.uint8), starts.copy(), stops.copy())
    singles = [ids.NO_ID if text is None else ids.parse(text) for text in texts]
    assert bad == singles.count(None)
    for i, single in enumerate(singles):
        if single is None:
            assert kinds[i] == NOT_AN_ID
        else:
            assert (hi[i], lo[i], kinds[i]) == single
    known = kinds != NOT_AN_ID
    column = ids.to_arrow(hi[known], lo[known], kinds[known])
    column.validate(full=True)
    assert column.to_pylist() == [t for t, s in zip(texts, singles, strict=True) if s is not None]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("0", IdKind.UINT),
        ("007", IdKind.ASCII),
        (str(2**128 - 1), IdKind.UINT),
        ("600000000000000000000001", IdKind.UINT),
        ("000000000000000000000001", IdKind.HEX),
        ("5c35db8bbb9a9f5e7c7f5a01", IdKind.HEX),
        ("ba7e7d1b-0a2f-4b7e-8f0e-000000000000", IdKind.UUID),
        ("OID-1234", IdKind.ASCII),
        ("", IdKind.ASCII),
    ],
)
def test_forms(text: str, kind: IdKind) -> None:
    found = ids.parse(text)
    assert found is not None
    assert found.kind is kind


@pytest.mark.parametrize(
    "text",
    [str(2**128), "BA7E7D1B-0A2F-4B7E-8F0E-000000000000", "é", "sixteen bytes id", "12\n" * 6],
)
def test_no_form(text: str) -> None:
    assert ids.parse(text) is None
