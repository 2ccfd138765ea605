"""UDP datagrams, unicast or multicast, many per system call, each with the time of its arrival.

- Stamps come from the kernel (SO_TIMESTAMPNS), taken when the datagram reached the machine, not
  when we read it. Where the card stamps in hardware and its clock agrees with the system's within
  a second, its stamp is taken (SO_TIMESTAMPING); a card's clock that nobody sets is no time.
- The kernel says how many datagrams it dropped because we were slow (SO_RXQ_OVFL): ``drops``.
- The receive buffer is asked for as large as given, and ``buffer_bytes`` says what was granted.

IPv4; Linux.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketflow.sources.errors import SourceError
from marketflow.sources.lines.kernels.stamps import read_stamps

_SO_RCVBUFFORCE: Final = 33
_SO_TIMESTAMPNS: Final = 35
_SO_TIMESTAMPING: Final = 37
_SO_RXQ_OVFL: Final = 40
_RX_HARDWARE: Final = 1 << 2
_RAW_HARDWARE: Final = 1 << 6
_MSG_TRUNC: Final = 0x20

#: Room for a datagram; longer ones are cut, and told. Jumbo frames fit.
SLOT_BYTES: Final = 9216
_CONTROL_BYTES: Final = 192
BUFFER_BYTES: Final = 16 << 20

_MMSGHDR: Final = np.dtype(
    [
        ("name", "<u8"),
        ("name_size", "<u4"),
        ("iov", "<u8"),
        ("iov_count", "<u8"),
        ("control", "<u8"),
        ("control_size", "<u8"),
        ("flags", "<i4"),
        ("", "<i4"),  # the end of the msghdr
        ("size", "<u4"),
    ],
    align=True,
)
assert _MMSGHDR.itemsize == 64
_IOVEC: Final = np.dtype([("base", "<u8"), ("size", "<u8")])

_recvmmsg = ctypes.CDLL(None, use_errno=True).recvmmsg
_recvmmsg.argtypes = [
    ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p,
]  # fmt: skip


class Datagrams(NamedTuple):
    """What one call brought: datagram i is ``begins[i]`` .. of the caller's memory, ``sizes[i]``
    bytes long (below 0: so many bytes of a longer one); ``ts_recv`` in ns UTC."""

    begins: NDArray[np.int64]
    sizes: NDArray[np.int64]
    ts_recv: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.begins)


class UdpSocket:
    """A bound socket that fills ``memory[base:base + slots * SLOT_BYTES]``.

    ``interface`` is a name (eth0) or an address of this machine: where a multicast group is joined.
    Raises SourceError where the address cannot be had.
    """

    def __init__(
        self,
        host: str,
        port: int,
        memory: NDArray[np.uint8],
        base: int,
        slots: int,
        *,
        interface: str = "",
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        self._slots = slots
        #: Datagrams the kernel dropped since the socket was opened.
        self.drops = 0
        self.hardware_stamps = self.kernel_stamps = self.own_stamps = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._options(buffer_bytes)
            self._bind(host, port, interface)
        except OSError as error:
            self._socket.close()
            raise SourceError(
                f"udp {host}:{port}{f' on {interface}' if interface else ''}: {error.strerror}: "
                "give an address of this machine or a multicast group, and its interface"
            ) from error
        #: Where it listens.
        self.address: tuple[str, int] = self._socket.getsockname()
        #: Size of the kernel's buffer (it counts its own overhead in).
        self.buffer_bytes = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self._prepare(memory, base)

    def _options(self, buffer_bytes: int) -> None:
        sock = self._socket
        sock.setblocking(False)
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
        except PermissionError:
            # As much as the system's net.core.rmem_max lets everybody have.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _RX_HARDWARE | _RAW_HARDWARE)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)

    def _bind(self, host: str, port: int, interface: str) -> None:
        sock = self._socket
        address = socket.gethostbyname(host)
        multicast = 224 <= int(address.partition(".")[0]) < 240
        if not multicast:
            sock.bind((address, port))
            return
        # Several recorders of one machine may listen to a group.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        own, index = "0.0.0.0", 0
        if interface.replace(".", "").isdigit():
            own = interface
        elif interface:
            index = socket.if_nametoindex(interface)
        member = struct.pack("4s4si", socket.inet_aton(address), socket.inet_aton(own), index)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)

    def _prepare(self, memory: NDArray[np.uint8], base: int) -> None:
        """The headers of the system call point into ``memory`` once and for all."""
        slots = self._slots
        assert base + slots * SLOT_BYTES <= len(memory)
        self._memory = memory  # kept alive: the kernel writes to it
        self._begins = base + SLOT_BYTES * np.arange(slots, dtype=np.int64)
        self._control = np.zeros(slots * _CONTROL_BYTES, np.uint8)
        self._vectors = np.zeros(slots, _IOVEC)
        self._vectors["base"] = memory.ctypes.data + self._begins
        self._vectors["size"] = SLOT_BYTES
        self._headers = headers = np.zeros(slots, _MMSGHDR)
        steps = np.arange(slots, dtype=np.uint64)
        headers["iov"] = self._vectors.ctypes.data + _IOVEC.itemsize * steps
        headers["iov_count"] = 1
        headers["control"] = self._control.ctypes.data + _CONTROL_BYTES * steps
        self._at = headers.ctypes.data
        self._stamps = np.zeros((2, slots), np.int64)

    @property
    def stamps(self) -> str:
        """Where stamps come from: ``hardware``, ``kernel``, or ``clock`` (read after arrival)."""
        if self.hardware_stamps:
            return "hardware"
        return "clock" if self.own_stamps and not self.kernel_stamps else "kernel"

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, data: bytes, to: tuple[str, int]) -> None:
        """Send one datagram; where it cannot be sent now it is as good as lost on the way."""
        try:
            self._socket.sendto(data, to)
        except OSError:
            return

    def read(self, now_ns: int) -> Datagrams:
        """What is there, at most ``slots`` datagrams; they stay until the next call. ``now_ns``:
        the time, for those that the kernel has not stamped."""
        self._headers["control_size"] = _CONTROL_BYTES
        self._headers["flags"] = 0
        count = _recvmmsg(self.fileno(), self._at, self._slots, socket.MSG_DONTWAIT, None)
        if count < 0:
            code = ctypes.get_errno()
            # A refused datagram of ours (ECONNREFUSED) comes back as an error of the next read.
            if code not in (errno.EAGAIN, errno.EINTR, errno.ECONNREFUSED):
                raise OSError(code, os.strerror(code))
            count = 0
        sizes = self._headers["size"][:count].astype(np.int64)
        if count:
            sizes[(self._headers["flags"][:count] & _MSG_TRUNC) != 0] *= -1
            self._read_stamps(count, now_ns)
        return Datagrams(self._begins[:count], sizes, self._stamps[0, :count].copy())

    def _read_stamps(self, count: int, now_ns: int) -> None:
        sizes = self._headers["control_size"][:count].astype(np.int64)
        own, hardware, drops = read_stamps(
            self._control, _CONTROL_BYTES, sizes, now_ns, self._stamps[0]
        )
        self.own_stamps += own
        self.hardware_stamps += hardware
        self.kernel_stamps += count - own - hardware
        if drops >= 0:
            # The kernel counts in 32 bits.
            self.drops += (drops - self.drops) & 0xFFFFFFFF

    @property
    def is_full(self) -> bool:
        """Did the last call bring as many as fit? Then there may be more."""
        return bool(self._headers["control_size"][-1] != _CONTROL_BYTES)

    def close(self) -> None:
        """Close the socket; safe to call twice."""
        self._socket.close()
