"""The files that a URL names: paths separated by commas, and globs, in that order.

The files of a glob are sorted by name. A comma in a file name can be written as the glob ``?``.
"""

from __future__ import annotations

import difflib
import glob
from pathlib import Path
from typing import Final

from marketflow.sources.errors import SourceError

#: In the place of a table: raw frames of a recorder.
FRAMES_TABLE: Final = "frames"


def find_paths(scheme: str, text: str, form: str) -> tuple[Path, ...]:
    """The files of ``text``; SourceError names what is missing. ``form``: of the URL."""
    found: list[Path] = []
    for item in text.split(","):
        if not item:
            raise SourceError(f"{scheme}: a path is missing in {scheme}:{text}; the form is {form}")
        path = Path(item).expanduser()
        if path.is_dir():
            raise SourceError(f"{path} is a directory, no lake; name its files, such as {path}/*")
        if path.exists():
            found.append(path)
        elif glob.has_magic(item):
            matches = sorted(
                p
                for p in map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207
                if p.is_file()
            )
            if not matches:
                raise SourceError(f"no file matches {item}; check the pattern and the folder")
            found += matches
        else:
            raise SourceError(_missing(path))
    return tuple(found)


def find_recorded(folder: Path, venue: str) -> tuple[Path, ...]:
    """The sealed files of a venue in a recorder's folder; SourceError says which venues it has."""
    below = folder / FRAMES_TABLE
    found = sorted((below / f"venue={venue}").glob("*.parquet"))
    if not found:
        known = sorted(p.name.partition("=")[2].lower() for p in below.glob("venue=*"))
        has = f"it has venue={', venue='.join(known)}" if known else "nothing was recorded there"
        raise SourceError(f"{folder} has no frames of venue={venue.lower()}: {has}")
    return tuple(found)


def _missing(path: Path) -> str:
    if not path.parent.is_dir():
        return f"no file {path}: there is no folder {path.parent}"
    near = difflib.get_close_matches(path.name, (p.name for p in path.parent.iterdir()), n=1)
    hint = f"; did you mean {path.parent / near[0]} ?" if near else "; check the path"
    return f"no file {path}{hint}"
