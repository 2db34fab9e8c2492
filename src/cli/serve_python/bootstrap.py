"""Runs one invocation of a Lambda handler: `python3 -c THIS FILE HANDLER`.

The event and its context come on standard input; on standard output goes `R` and what the handler
returns, or `E` and what it raised, in AWS Lambda's form. What the handler prints is its log.
"""

import importlib
import json
import os
import sys
import time
import traceback

# The handler's own children do not inherit it.
ANSWER = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)


class Context:
    """https://docs.aws.amazon.com/lambda/latest/dg/python-context.html"""

    identity = None
    client_context = None

    def __init__(self, given):
        self.aws_request_id = given["aws_request_id"]
        self.function_name = given["function_name"]
        self.function_version = given["function_version"]
        self.invoked_function_arn = given["invoked_function_arn"]
        self.memory_limit_in_mb = "128"
        self.log_group_name = f"/aws/lambda/{self.function_name}"
        self.log_stream_name = self.aws_request_id
        self._deadline = given["deadline_ms"]

    def get_remaining_time_in_millis(self):
        """Until the process is killed."""
        return max(0, self._deadline - int(time.time() * 1000))


class Unusable(Exception):
    """What AWS Lambda's own runtime says of a handler."""

    def __init__(self, kind, text):
        super().__init__(text)
        self.kind = kind


def handler(file, name):
    """Finds it as Lambda does: a module in its task's folder."""
    folder, module = os.path.split(os.path.abspath(file))
    module = module.removesuffix(".py")
    sys.path[0] = folder
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        text = f"Unable to import module '{module}': {error}"
        raise Unusable("Runtime.ImportModuleError", text) from error
    except SyntaxError as error:
        text = f"Syntax error in module '{module}': {error}"
        raise Unusable("Runtime.UserCodeSyntaxError", text) from error
    if not callable(getattr(found, name, None)):
        text = f"Handler '{name}' missing on module '{module}'"
        raise Unusable("Runtime.HandlerNotFound", text)
    return getattr(found, name)


def told(error, request):
    """An exception in AWS Lambda's form."""
    frames, kind = [], getattr(error, "kind", None)
    if kind is None or not isinstance(error, Unusable):
        kind = type(error).__name__
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != "<string>"]
    return {
        "errorMessage": str(error),
        "errorType": kind,
        "requestId": request,
        "stackTrace": traceback.format_list(frames),
    }


def main(file, name):
    """Reads, runs, answers."""
    given = json.load(sys.stdin)
    context = Context(given["context"])
    try:
        returned = handler(file, name)(given["event"], context)
        try:
            mark, answer = b"R", json.dumps(returned, ensure_ascii=False)
        except (TypeError, ValueError) as error:
            text = f"Unable to marshal response: {error}"
            raise Unusable("Runtime.MarshalError", text) from error
    except Exception as error:
        mark, answer = b"E", json.dumps(told(error, context.aws_request_id))
    ANSWER.write(mark + answer.encode("utf-8", "surrogatepass"))
    ANSWER.flush()
    sys.stdout.flush()
    # Threads that the handler has left behind are not waited for.
    os._exit(0)


main(*sys.argv[1:])
