"""bytewax as the runtime uses it: driving a flow to its end, with a recovery store or without."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

from marketflow.flows.catalogue import FlowSpec
from marketflow.flows.errors import UsageError

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


def check_steps(flow: FlowSpec, dataflow: Dataflow) -> None:
    """UsageError unless the Dataflow has the steps that the flow's spec names, and keeps state in
    no others: that state would be lost when feeds move between processes."""
    wanted = {
        "input": {flow.step_id(flow.input)},
        "output": {flow.step_id(flow.output)},
        "stateful_batch": set(map(flow.step_id, flow.steps)),
    }
    found: dict[str, set[str]] = {kind: set() for kind in wanted}
    todo = list(dataflow.substeps)
    while todo:
        step = todo.pop()
        todo += step.substeps
        kind = type(step).__name__
        if kind in found:
            found[kind].add(step.step_id)
    for kind, names in wanted.items():
        if found[kind] != names:
            raise UsageError(
                f"the Dataflow of {flow.name} has {kind} steps {', '.join(sorted(found[kind]))}; "
                f"its FlowSpec says {', '.join(sorted(names))}"
            )
