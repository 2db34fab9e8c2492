"""Checks raw answers against the public service models that botocore carries.

botocore itself is lenient: it drops what it does not know and leaves out what is missing. These
checks are strict, so that an answer which only some clients would understand is found here.
"""

import base64
import binascii
import json

import botocore.loaders
from botocore.model import ServiceModel

# Errors that any operation may answer though its model does not list them, and whose fault each
# is. Sources: "Common errors" in the API references of both services, and the JSON 1.1 protocol.
COMMON_ERRORS = {
    "AccessDeniedException": "caller",
    "ExpiredTokenException": "caller",
    "IncompleteSignatureException": "caller",
    "InternalFailure": "server",
    "InvalidSignatureException": "caller",
    "MalformedHttpRequestException": "caller",
    "MissingAuthenticationTokenException": "caller",
    # Not in any model: AWS KMS answers it for an alias that begins with alias/aws/.
    "NotAuthorizedException": "caller",
    "RequestEntityTooLargeException": "caller",
    "RequestTimeoutException": "caller",
    "SerializationException": "caller",
    "ServiceUnavailable": "server",
    "ServiceUnavailableException": "server",
    "ThrottlingException": "caller",
    "UnknownOperationException": "caller",
    "UnrecognizedClientException": "caller",
    "ValidationException": "caller",
}

CONTENT_TYPE = "application/x-amz-json-1.1"

# Timestamps are seconds; milliseconds, or a forgotten zero, fall out of these years (1990, 2200).
EARLIEST, LATEST = 631152000, 7258118400

INTEGER_BITS = {"integer": 32, "long": 64}


class ModelMismatch(AssertionError):
    """An answer that the service's model does not allow; one line for each fault."""


class Model:
    """The model of one service, `kms` or `secretsmanager`."""

    def __init__(self, service):
        description = botocore.loaders.Loader().load_service_model(service, "service-2")
        self.service = ServiceModel(description, service)
        shapes = description["shapes"].items()
        self.server_errors = {name for name, shape in shapes if shape.get("fault")}

    def operation(self, name):
        """The model of an operation, or None if the service has no such operation."""
        return self.service.operation_model(name) if name in self.service.operation_names else None

    def check(self, operation, status, headers, body):
        """Raises ModelMismatch unless this answer may come from this operation.

        `operation` is None for a request that named no known one; `headers` have lower-case
        names; `body` is bytes.
        """
        faults = header_faults(headers, body)
        if status == 200:
            faults += self.success_faults(operation, body)
        else:
            faults += self.error_faults(operation, status, headers, body)
        if faults:
            subject = f"{self.service.service_name} {operation}, status {status}"
            raise ModelMismatch("\n".join([subject, *faults, f"body: {body[:2000]!r}"]))

    def success_faults(self, operation, body):
        """What is wrong with a successful answer."""
        model = self.operation(operation)
        if model is None:
            return [f"success from an operation that does not exist: {operation}"]
        if model.output_shape is None:
            return [] if body in (b"", b"{}") else ["a body, and the operation has no output"]
        value, faults = parse(body)
        return faults or list(shape_faults(model.output_shape, value, "$"))

    def error_faults(self, operation, status, headers, body):
        """What is wrong with an error answer."""
        value, faults = parse(body)
        if faults:
            return faults
        if not isinstance(value, dict) or not isinstance(value.get("__type"), str):
            return ["an error without `__type`"]
        code = value.pop("__type").rpartition("#")[2]
        declared = headers.get("x-amzn-errortype", code).partition(":")[0].rpartition("#")[2]
        if declared != code:
            faults.append(f"x-amzn-errortype says {declared}, `__type` says {code}")
        model = self.operation(operation)
        modelled = {shape.name: shape for shape in model.error_shapes} if model else {}
        if code in modelled:
            shape = modelled[code]
            at_server = code in self.server_errors
            # An old model may know an error and not that it has a text.
            known = shape.members
            faults += shape_faults(shape, value, "$") if known else common_error_faults(value)
        elif code in COMMON_ERRORS:
            at_server = COMMON_ERRORS[code] == "server"
            faults += common_error_faults(value)
        else:
            return [*faults, f"{code} is not among the errors of {operation}"]
        expected = range(500, 600) if at_server else range(400, 500)
        if status not in expected:
            faults.append(f"{code} is the {'server' if at_server else 'caller'}'s fault")
        return faults


def header_faults(headers, body):
    """What every answer carries in its headers."""
    faults = [f"no {name} header" for name in ("x-amzn-requestid", "date") if not headers.get(name)]
    if body and headers.get("content-type") != CONTENT_TYPE:
        faults.append(f"content type {headers.get('content-type')!r}")
    return faults


def common_error_faults(members):
    """What is wrong with the members of an error that the model does not describe."""
    return [
        f"$.{name}: not a text, or unknown"
        for name, value in members.items()
        if name not in ("message", "Message") or not isinstance(value, str)
    ]


def parse(body):
    """The JSON value of a body, and what is wrong with its form."""
    faults = []

    def members(pairs):
        names = [name for name, _ in pairs]
        faults.extend(f"`{name}` twice in one object" for name in names if names.count(name) > 1)
        return dict(pairs)

    def constant(name):
        faults.append(f"{name} is not JSON")

    try:
        text = body.decode("utf-8")
        value = json.loads(text, object_pairs_hook=members, parse_constant=constant)
    except ValueError as error:
        return None, [f"not JSON: {error}"]
    return value, faults


def shape_faults(shape, value, path):
    """Yields what is wrong with a JSON value that should have this shape."""
    if value is None:
        yield f"{path}: null (leave the member out)"
        return
    kind = shape.type_name
    faults = list(CHECKS[kind](shape, value, path))
    yield from faults
    if not faults:
        yield from bound_faults(shape, value, path)


def bound_faults(shape, value, path):
    """The length or size that the model sets."""
    if isinstance(value, bool) or shape.type_name == "timestamp":
        return
    size = value if isinstance(value, int | float) else len(value)
    if shape.type_name == "blob":
        size = len(base64.b64decode(value))
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and size < low or high is not None and size > high:
        yield f"{path}: {size} is not within {low} to {high} ({shape.name})"


def structure_faults(shape, value, path):
    if not isinstance(value, dict):
        yield f"{path}: {value!r} is not an object"
        return
    for name in shape.required_members:
        if name not in value:
            yield f"{path}.{name}: missing"
    for name, member in value.items():
        if name in shape.members:
            yield from shape_faults(shape.members[name], member, f"{path}.{name}")
        else:
            yield f"{path}.{name}: unknown to {shape.name}"


def list_faults(shape, value, path):
    if not isinstance(value, list):
        yield f"{path}: {value!r} is not a list"
        return
    for index, item in enumerate(value):
        yield from shape_faults(shape.member, item, f"{path}[{index}]")


def map_faults(shape, value, path):
    if not isinstance(value, dict):
        yield f"{path}: {value!r} is not an object"
        return
    for key, item in value.items():
        yield from shape_faults(shape.key, key, f"{path} key {key!r}")
        yield from shape_faults(shape.value, item, f"{path}[{key!r}]")


def string_faults(shape, value, path):
    if not isinstance(value, str):
        yield f"{path}: {value!r} is not a text"
    elif shape.enum and value not in shape.enum:
        yield f"{path}: {value!r} is not one of {shape.enum}"


def boolean_faults(_shape, value, path):
    if not isinstance(value, bool):
        yield f"{path}: {value!r} is not true or false"


def integer_faults(shape, value, path):
    bits = INTEGER_BITS[shape.type_name]
    if isinstance(value, bool) or not isinstance(value, int):
        yield f"{path}: {value!r} is not a whole number"
    elif not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
        yield f"{path}: {value} needs more than {bits} bits"


def number_faults(_shape, value, path):
    if isinstance(value, bool) or not isinstance(value, int | float):
        yield f"{path}: {value!r} is not a number"


def timestamp_faults(_shape, value, path):
    if isinstance(value, bool) or not isinstance(value, int | float):
        yield f"{path}: {value!r} is not a number of seconds"
    elif not EARLIEST <= value <= LATEST:
        yield f"{path}: {value} seconds is no likely moment"


def blob_faults(_shape, value, path):
    try:
        base64.b64decode(value.encode("ascii"), validate=True)
    except (AttributeError, UnicodeEncodeError, binascii.Error):
        yield f"{path}: not base64"


CHECKS = {
    "structure": structure_faults,
    "list": list_faults,
    "map": map_faults,
    "string": string_faults,
    "boolean": boolean_faults,
    "integer": integer_faults,
    "long": integer_faults,
    "float": number_faults,
    "double": number_faults,
    "timestamp": timestamp_faults,
    "blob": blob_faults,
}
