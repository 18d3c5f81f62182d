"""What the client scripts share: naming steps, and the file between two phases."""

import contextlib
import json
import os


@contextlib.contextmanager
def step(name):
    """Runs one step and prints whether it held; the first that does not ends the script."""
    try:
        yield
    except Exception as error:  # whatever the client library raises is a failed step
        print(f"FAILED {name}: {type(error).__name__}: {error}", flush=True)
        os._exit(1)  # without the complaints of clients that were not closed
    print(f"ok {name}", flush=True)


def expect(condition, message):
    """Fails the step unless the condition holds."""
    if not condition:
        raise AssertionError(message)


def save(path, value):
    """Keeps what the phase after the restart has to find."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file)


def load(path):
    """What the phase before the restart kept."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)
