"""bytewax as the runtime uses it: driving a flow to its end, with a recovery store or without."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

#: Without a recovery store a snapshot would be work for nobody.
_NO_EPOCHS = timedelta(days=1)


def drive(flow: Dataflow, store: Path | None, epoch_ms: int) -> None:
    """Run the flow in this thread until its sources end; raises what a step raised, wrapped.
    ``store``: a folder of :func:`make_store`, written at the end of every epoch."""
    if store is None:
        cli_main(flow, epoch_interval=_NO_EPOCHS)
    else:
        epoch = timedelta(milliseconds=epoch_ms)
        cli_main(flow, epoch_interval=epoch, recovery_config=RecoveryConfig(store))


def make_store(store: Path) -> None:
    """Make the recovery store of one worker in an empty folder."""
    init_db_dir(store, 1)
