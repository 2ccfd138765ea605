"""``python -m tests.support.fake_venue --venue binance --capture FILE``: a venue on loopback.

Prints its address as one line of JSON ({"ws": …, "rest": …}) and serves until it is killed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
from pathlib import Path

from tests.support.fake_venue import faults as fault_texts
from tests.support.fake_venue.faults import parse_faults
from tests.support.fake_venue.models import MODELS
from tests.support.fake_venue.recording import load
from tests.support.fake_venue.server import FakeVenue


def main() -> None:
    """Parse the command line, and serve."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.fake_venue",
        description="Replays a capture over WebSocket and REST on loopback.",
        epilog=fault_texts.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--venue", required=True, choices=sorted(MODELS))
    parser.add_argument("--capture", required=True, type=Path, help="JSONL recording, may be .zst")
    parser.add_argument("--market", default="", help="end of the addresses to take")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fault", action="append", default=[], metavar="KIND:N")
    parser.add_argument("--speed", default="max", help="max, or times real time such as 1x, 10x")
    parser.add_argument("--clients", type=int, default=1, help="begin when so many have subscribed")
    parser.add_argument("--topics", type=int, default=0, help="... to so many topics each")
    chosen = parser.parse_args()
    try:
        speed = 0.0 if chosen.speed == "max" else float(chosen.speed.rstrip("x"))
        faults = parse_faults(chosen.fault)
        if not chosen.capture.is_file():
            raise ValueError(f"no file {chosen.capture}: name a recording with --capture")
    except ValueError as error:
        parser.error(str(error))
    venue = FakeVenue(
        chosen.venue,
        load(chosen.capture, chosen.market),
        faults,
        speed=speed,
        clients=chosen.clients,
        topics=chosen.topics,
    )
    venue.port = chosen.port

    def tell() -> None:
        venue.wait_ready()
        print(json.dumps({"ws": venue.url, "rest": venue.rest}), flush=True)

    threading.Thread(target=tell, daemon=True).start()
    try:
        asyncio.run(venue.main())
    except KeyboardInterrupt:
        raise SystemExit(0) from None


if __name__ == "__main__":
    main()
