"""Handlers of AWS Lambda's that do what handlers do, and what they should not."""

import os
import sys
import time


def returns(event, context):
    """Says what it has."""
    print("printed by a handler")
    return {
        "event": event,
        "environment": dict(os.environ),
        "function_name": context.function_name,
        "arn": context.invoked_function_arn,
        "request": context.aws_request_id,
        "left": context.get_remaining_time_in_millis(),
    }


def raises(_event, _context):
    """Fails."""
    return {}["no such thing"]


def exits(event, _context):
    """Ends the process."""
    sys.exit(event["status"])


def is_killed(_event, _context):
    """Has its process ended."""
    os.kill(os.getpid(), 9)


def returns_nonsense(_event, _context):
    """Returns no JSON."""
    return object()


def returns_too_much(_event, _context):
    """Returns more than Lambda does."""
    return "x" * (7 << 20)


def prints_garbage(_event, _context):
    """Prints, to the descriptor too."""
    os.write(1, b"E\xff\x00")
    print("R\x00garbage")
    return "well"


def hangs(_event, _context):
    """Sleeps, in two processes that say which they are."""
    child = os.fork()
    with open(os.environ["PIDS"], "a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(600)
    return child
