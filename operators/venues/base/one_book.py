"""Venues with several book channels per instrument: which one keeps its book."""

from __future__ import annotations

from marketflow.operators.normalise.feed import Frame
from marketflow.operators.venues.base.listing import ListedVenue
from marketflow.schemas.messages.frames import FrameKind


class OneBookVenue(ListedVenue):
    """The first channel seen keeps an instrument's book: others, of other depths, would only cut
    it off or fill it up, and number their messages apart. Another may take over when the
    connection was lost that carried it."""

    STATE = (*ListedVenue.STATE, "book_channels")

    def __init__(self) -> None:
        super().__init__()
        #: (venue, symbol) -> (channel that keeps the book, connection it last came on).
        self.book_channels: dict[tuple[str, str], tuple[str, str]] = {}

    def keeps_book(self, venue: str, symbol: str, channel: str, frame: Frame) -> bool:
        """Whether this channel keeps the book."""
        keeper, _ = self.book_channels.get((venue, symbol), (channel, ""))
        if keeper == channel:
            self.book_channels[venue, symbol] = (channel, frame.connection)
        return keeper == channel

    def release_books(self, frame: Frame) -> None:
        """A connection was opened or lost: what it carried may come on another channel now."""
        assert frame.kind in (FrameKind.CONNECT, FrameKind.DISCONNECT)
        for key, (_, connection) in list(self.book_channels.items()):
            if connection == frame.connection:
                del self.book_channels[key]
