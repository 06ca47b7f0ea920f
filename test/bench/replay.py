"""Makes a run's worker calls directly in Python: ``python replay.py ADDRESS CALLS``.

CALLS is a file of ``[{"method", "request"}]``: the calls that TypeScript sent, in order, with
requests as base64 of the protobuf messages. Jobs are watched to their end and their snapshots
fetched. Nothing is analysed, drawn or written. Prints one JSON object.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from typing import Any

from google.protobuf import message_factory

from atlas_worker.client import Client

HANDLE_FIELDS = ("handle", "dataset", "atlas", "predictor")


def replay(client: Client, calls: list[dict[str, str]]) -> list[float]:
    """Make the calls; the last algebra's generators, row by row."""
    handles: dict[str, str] = {}
    generators: list[float] = []
    for call in calls:
        rpc, _ = client._methods[call["method"]]
        request: Any = message_factory.GetMessageClass(rpc.input_type).FromString(
            base64.b64decode(call["request"])
        )
        request.session_id = client.session
        translate(request, handles)
        fields = {field.name: value for field, value in request.ListFields()}
        answer = client.call(call["method"], **fields)
        match call["method"]:
            case "CreateObject":
                handles[call["created"]] = answer.object.handle
            case "StartJob":
                for event in client.watch(answer.job.job_id):
                    if event.epoch_finished.HasField("snapshot"):
                        client.receive(event.epoch_finished.snapshot)
            case "GetAlgebra":
                generators = client.receive(answer.generators).flatten().tolist()
            case "ReadDataset":
                client.receive(answer.inputs), client.receive(answer.targets)
    return generators


def translate(message: Any, handles: dict[str, str]) -> None:
    """The handles of the recorded session become this one's, wherever they stand in a message."""
    for field, value in message.ListFields():
        if field.name in HANDLE_FIELDS and isinstance(value, str):
            setattr(message, field.name, handles.get(value, value))
        elif field.message_type is not None and not field.is_repeated:
            translate(value, handles)


if __name__ == "__main__":
    address, path = sys.argv[1:]
    with open(path) as file:
        calls = json.load(file)
    start = time.perf_counter()
    with Client(address, label="bench") as client:
        generators = replay(client, calls)
    print(json.dumps({"seconds": time.perf_counter() - start, "generators": generators}))
