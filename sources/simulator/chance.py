"""What the simulated feeds share: compiling, chance and time, all in whole numbers.

The stream of random bits is SplitMix64 (Steele, Lea, Flood 2014), so that a seed means the same
feed with every release of numpy. No float takes part: results do not depend on the machine.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from marketflow.schemas.kernel import bare_kernel

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)
_TOP: Final = np.uint64(1 << 63)
_ONE_BIT: Final = np.uint64(1)

#: 1.0 of the fixed-point factors that stretch a gap in time.
ONE: Final = 1 << 16
_MOST_NS: Final = 1 << 44

#: Slots of the int64 ``flow`` state that both formats share.
TS, LEFT, BURST_LEFT, BURST_SYMBOL = range(4)
SHARED_SLOTS: Final = 4


@bare_kernel
def draw(rng: Any) -> Any:
    """The next 64 random bits; ``rng`` is a uint64 array of one."""
    rng[0] += _GOLDEN
    z = rng[0]
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


@bare_kernel
def below(bits: Any, limit: Any) -> Any:
    """A number in range(limit) from the low 32 of ``bits``; ``limit`` below 2**31."""
    return np.int64(((bits & np.uint64(0xFFFFFFFF)) * np.uint64(limit)) >> np.uint64(32))


@bare_kernel
def exponential(bits: Any) -> Any:
    """An exponential variate with mean 1.5 * ONE: -log2 of the bits, linear between powers."""
    whole = 0
    while bits & _TOP == np.uint64(0) and whole < 40:
        bits <<= _ONE_BIT
        whole += 1
    fraction = np.int64((bits << _ONE_BIT) >> np.uint64(48))
    return (whole + 1) * ONE - fraction


class Day:
    """When things happen: a span cut into equal buckets of different activity.

    ``weights``: relative activity by bucket. ``rest[i]``: activity from bucket i to the end.
    """

    def __init__(self, begin_ns: int, bucket_ns: int, weights: tuple[int, ...]) -> None:
        self.begin_ns = begin_ns
        self.bucket_ns = bucket_ns
        self.weights: NDArray[np.int64] = np.array(weights, np.int64)
        amounts = np.append(self.weights * bucket_ns, 0)
        self.rest: NDArray[np.int64] = amounts[::-1].cumsum()[::-1].astype(np.int64)

    @property
    def end_ns(self) -> int:
        return self.begin_ns + len(self.weights) * self.bucket_ns


@bare_kernel
def advance(flow: Any, rng: Any, begin: Any, bucket: Any, weights: Any, rest: Any) -> Any:
    """Move ``flow[TS]`` to the next event and say whether it belongs to a burst.

    Doubly stochastic: three of four events come in bursts of 40 or so, 1/32 of the mean gap
    apart. Gaps are shares of what is left of the day for the events that are left, so that the
    last event is inside it whatever was drawn.
    """
    ts, left = flow[TS], flow[LEFT]
    now = (ts - begin) // bucket
    weight = weights[now]
    activity = rest[now + 1] + (begin + (now + 1) * bucket - ts) * weight
    bits = draw(rng)
    burst = flow[BURST_LEFT] > 0
    if burst:
        flow[BURST_LEFT] -= 1
        stretch = exponential(bits) // 48
    else:
        stretch = exponential(bits) * 13 // 5
        if below(draw(rng), 13) == 0:
            flow[BURST_LEFT] = 8 + below(draw(rng), 64)
    mean = min(activity // left, _MOST_NS)
    gap = (mean >> 8) * stretch >> 8
    most = (begin + len(weights) * bucket - ts) // 2
    flow[TS] = ts + min(gap // weight, most)
    return burst


def zipf_table(symbols: int) -> NDArray[np.int32]:
    """Symbol by random slot: symbol i comes about 1 / (i + 1) as often as the first one."""
    slots = 1 << max(12, (symbols * 16).bit_length())
    weights = np.array([10**9 // (i + 1) for i in range(symbols)], np.int64)
    counts = np.maximum(weights * slots // int(weights.sum()), 1)
    counts[0] += slots - int(counts.sum())
    assert counts[0] > 0
    return np.repeat(np.arange(symbols, dtype=np.int32), counts)


def ticker(index: int) -> str:
    """A made-up ticker of four letters, the same for every seed; 11,025 of them."""
    number = (index * 4_259 + 1_203) % 11_025
    consonants, vowels = "BCDFGHJKLMNPQRSTVWXYZ", "AEIOU"
    number, last = divmod(number, 5)
    number, third = divmod(number, 21)
    first, second = divmod(number, 5)
    return consonants[first] + vowels[second] + consonants[third] + vowels[last]


#: How many different tickers there are.
TICKERS: Final = 11_025
