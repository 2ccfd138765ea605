"""The one decorator of all kernels: compiled once, cached, without the GIL.

Numba's own cache sees a change in the kernel's file but not in the functions and constants it
takes from other files. The cache folder of a kernel is therefore named by the hash of its module
and of every module of ours that it imports, however far away: a change anywhere below compiles
anew, a run without changes never does.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import numba
from numba.core import caching, config, types

from marketflow.schemas.cache import cache_folder
from marketflow.schemas.kernel_parts import KernelCompiler, PartCompiler

_F = TypeVar("_F", bound=Callable[..., Any])
_PACKAGE = Path(__file__).resolve().parents[1]
_WORD_BITS = 64
# NUMBA_CACHE_DIR wins: an image may bake its own.
_CACHE = Path(config.CACHE_DIR) if config.CACHE_DIR else cache_folder() / "numba"  # type: ignore[attr-defined]
#: An import of ours at the top level of a module, and the names it takes, if any.
_IMPORT: Final = re.compile(
    r"^(?:from|import) +(marketflow[\w.]*)(?: +import +(\([^)]*\)|[^\n]*))?", re.MULTILINE
)
_NAME: Final = re.compile(r"\w+")
_LOCK: Final = ".lock"
_save: Final[Any] = caching.IndexDataCacheFile.save


def _save_alone(self: Any, key: Any, data: Any) -> None:
    """Numba chooses a file's name and notes it in two steps: of two processes that keep a function
    for different types, each could take the other's file for its own."""
    with (Path(self._cache_path) / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _save(self, key, data)


caching.IndexDataCacheFile.save = _save_alone  # type: ignore[method-assign]


def _path(module: str) -> Path:
    path = _PACKAGE.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _read(module: str) -> tuple[bytes, tuple[str, ...]]:
    """Source of a module of ours, and the modules of ours that its top level may import; nothing
    where ``module`` is no file (``from a import b`` may mean the module a.b)."""
    path = _path(module)
    if not path.is_file():
        return b"", ()
    source = path.read_bytes()
    # Not with ast: parsing every module below a kernel would take a tenth of a start.
    found: list[str] = []
    for module, names in _IMPORT.findall(source.decode()):
        found.append(module)
        found += [f"{module}.{name}" for name in _NAME.findall(names)]
    return source, tuple(found)


@cache
def _closure_hash(module: str) -> str:
    """Hash of a module's source and of all modules of ours below it."""
    sources: dict[str, bytes] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in sources:
            sources[name], imported = _read(name)
            waiting += imported
    digest = hashlib.sha256(f"{numba.__version__} {sys.version_info[:3]}".encode())
    for name in sorted(name for name, source in sources.items() if source):
        digest.update(name.encode() + b"\0" + sources[name] + b"\0")
    return digest.hexdigest()[:16]


def _compiled(function: _F, compiler: type[KernelCompiler] = KernelCompiler, **options: bool) -> _F:
    name = function.__module__
    folder = f"{name.removeprefix('marketflow.')}-{_closure_hash(name)}"
    config.CACHE_DIR = str(_CACHE / folder)  # type: ignore[attr-defined]
    return numba.njit(cache=True, nogil=True, pipeline_class=compiler, **options)(function)  # type: ignore


def _plain(kind: Any) -> Any:
    """The type an argument is passed as: no constants, no integers narrower than a word."""
    plain: Any = types.unliteral(kind)  # type: ignore[no-untyped-call]
    narrow = plain in types.integer_domain and plain.bitwidth < _WORD_BITS
    return types.int64 if narrow else plain


def kernel(function: _F) -> _F:
    """Compile ``function`` with numba, cached on disk, releasing the GIL."""
    return _compiled(function)


def bare_kernel(function: _F) -> _F:
    """A kernel that allocates nothing, compiled without reference counting.

    Counting is an atomic instruction per array and call, which costs more than what small
    functions on many arrays do. Whoever calls from Python keeps the arrays alive.
    """
    return _compiled(function, _nrt=False)


def kernel_part(function: _F) -> _F:
    """A part of bare kernels that only they call.

    It is translated once, not once per constant and width of integers it is called with, and
    optimised and made machine code only as a piece of those that call it.
    """
    dispatcher: Any = _compiled(
        function, PartCompiler, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True
    )
    exact = dispatcher.get_call_template

    def call_template(args: tuple[Any, ...], kws: dict[str, Any]) -> Any:
        return exact(tuple(map(_plain, args)), {k: _plain(v) for k, v in kws.items()})

    dispatcher.get_call_template = call_template
    return dispatcher  # type: ignore[no-any-return]
