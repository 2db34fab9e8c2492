"""Bad inputs, made from the service models: what is wrong with each of them and what it must bring.

`faults(shape, good)` changes one place of a good input at a time. A fault is a description, the
value with the fault in it, and the verdict: the codes that may refuse it, or None where it is the
service's to decide whether it is bad.
"""

import base64
import re
from typing import Any, NamedTuple

# A piece of a secret, planted wherever a member is sensitive; no answer to a bad input repeats it.
PLANTED = "hunter2-planted-secret"
PLANTED_BLOB = base64.b64encode(PLANTED.encode()).decode()

# Longer than any limit of the models, shorter than the largest body.
HUGE = 300_000

TYPE_CODES = frozenset({"SerializationException"})

# The codes that refuse a value for what it is; none of them says that something is not there or
# in another state. `bound_codes` adds those of single members.
BOUND_CODES = frozenset({"ValidationException", "InvalidParameterException"})

# Some members have a code of their own for a bad value.
MEMBER_CODES = {
    "AliasName": {"InvalidAliasNameException"},
    "TargetKeyId": {"InvalidArnException", "NotFoundException"},
    "Marker": {"InvalidMarkerException"},
    "NextToken": {"InvalidNextTokenException"},
    "MaxResults": {"InvalidMaxResultsException"},
    "StartTime": {"InvalidTimeRangeException"},
    "EndTime": {"InvalidTimeRangeException"},
    "EventCategory": {"InvalidEventCategoryException"},
    "LookupAttributes": {"InvalidLookupAttributesException"},
    "AttributeKey": {"InvalidLookupAttributesException"},
    "AttributeValue": {"InvalidLookupAttributesException"},
    "TagKey": {"TagException"},
    "TagKeys": {"TagException"},
    "TagValue": {"TagException"},
    "Tags": {"TagException"},
    "Policy": {"MalformedPolicyDocumentException"},
    "PolicyName": {"NotFoundException"},
    "ResourcePolicy": {"MalformedPolicyDocumentException"},
    "KeySpec": {"UnsupportedOperationException"},
    "CustomerMasterKeySpec": {"UnsupportedOperationException"},
    "CustomKeyStoreId": {"CustomKeyStoreNotFoundException", "UnsupportedOperationException"},
    "CiphertextBlob": {"InvalidCiphertextException"},
}

JSON_TYPES = {
    "structure": dict,
    "map": dict,
    "list": list,
    "string": str,
    "blob": str,
    "boolean": bool,
    "integer": int,
    "long": int,
    "float": float,
    "double": float,
    "timestamp": float,
}


class Literal(str):
    """A JSON text that stands in a body as it is, though `json` would never write it."""


class Fault(NamedTuple):
    """One bad input."""

    what: str
    value: Any
    codes: frozenset | None


def is_sensitive(shape):
    """Whether the model says that values of this shape are secret."""
    return bool(shape.metadata.get("sensitive"))


def sample(shape, name, given):
    """A value that the model allows; `given` has those that must mean something."""
    if name in given:
        return given[name]
    kind = shape.type_name
    if kind == "structure":
        return {key: sample(member, key, given) for key, member in shape.members.items()}
    if kind == "list":
        return [sample(shape.member, name, given)]
    if kind == "map":
        return {sample(shape.key, name, given): sample(shape.value, name, given)}
    if kind == "string":
        text = PLANTED if is_sensitive(shape) else "sample"
        return shape.enum[0] if shape.enum else text.ljust(shape.metadata.get("min", 0), "x")
    if kind == "blob":
        return PLANTED_BLOB
    return False if kind == "boolean" else max(1, shape.metadata.get("min", 1))


def wrong_types(shape):
    """Values of every JSON type but the shape's own."""
    wanted = JSON_TYPES[shape.type_name]
    text = PLANTED if is_sensitive(shape) else "text"
    values = [7, -1, 0.5, Literal("1e400"), Literal("NaN"), Literal("1" * 400), True, text]
    values += [[], [text], [[text]], {}, {"a": text}, {"a": {"a": text}}]
    for value in values:
        literal = isinstance(value, Literal)
        fits = not literal and (type(value) is wanted or (wanted is float and type(value) is int))
        if not fits:
            yield value if literal else value, f"{'literal ' * literal}{str(value)[:20]!r}"


def violations(shape, name):
    """Values of the right type that break a bound, a pattern, an enumeration or base64."""
    kind, low, high = shape.type_name, shape.metadata.get("min"), shape.metadata.get("max")
    if kind == "string":
        yield from bad_texts(shape, name, low, high)
    elif kind == "blob":
        yield from bad_blobs(low, high)
    elif kind in ("integer", "long"):
        if low is not None:
            yield from ((value, "below the range") for value in (low - 1, -(2**31)))
        if high is not None:
            yield from ((value, "above the range") for value in (high + 1, 2**31 - 1))


def bad_texts(shape, name, low, high):
    """Texts that are too short, too long, outside of the pattern or the enumeration."""
    if low:
        yield "", "empty"
    if high:
        yield "a" * (high + 1), "one too long"
        yield "\N{SNOWMAN}" * (high + 1), "one too long, not ASCII"
    yield from ((text, "not of the enumeration") for text in ("", "NO_SUCH") if shape.enum)
    pattern = shape.metadata.get("pattern")
    if pattern:
        for text in ("", "\0", "a b\n", "\N{SNOWMAN}", "$(id)", "'--", "../..", "%00"):
            if not re.fullmatch(pattern, text):
                yield text, f"against the pattern of {name}"


def bad_blobs(low, high):
    """What is not base64, and blobs of the wrong length."""
    for text in ("hunter2-planted-secret!", "====", "YQ", "Y Q=", "YQ==\n", "YR==", "\N{SNOWMAN}"):
        yield text, "not base64"
    if low:
        yield "", "empty"
    if high:
        yield base64.b64encode(bytes(high + 1)).decode(), "one byte too long"


# Whether such a value is bad is the operation's to say; none of them may break anything.
ODD_TEXTS = (
    "\0",
    " ",
    "a" * HUGE,
    "\U0001f511" * 64,
    "\N{RIGHT-TO-LEFT OVERRIDE}x",
    "a\r\nX-Injected: 1",
    "${jndi:ldap://x}",
    "';DROP TABLE records;--",
    "../../etc/passwd",
    "%2e%2e%2f",
    "{}",
    "*",
)
ODD_NUMBERS = (0, -1, 2**31 - 1, -(2**31))


def odd(shape):
    """Values of the right type that a careless reader would trip over."""
    if shape.type_name == "string":
        yield from ODD_TEXTS
        yield Literal('"\\ud800"')
        yield Literal('"\\u0000"')
    elif shape.type_name == "blob":
        yield base64.b64encode(bytes(HUGE)).decode()
    elif shape.type_name in ("integer", "long"):
        yield from ODD_NUMBERS


def faults(shape, good, name="", given=None):
    """Yields every fault of a value of this shape; `good` is one without."""
    given = given or {}
    own = BOUND_CODES | MEMBER_CODES.get(name, set())
    for value, what in wrong_types(shape):
        yield Fault(f"{name}: {what} for a {shape.type_name}", value, TYPE_CODES)
    for value, what in violations(shape, name):
        codes = TYPE_CODES if what == "not base64" else own
        yield Fault(f"{name}: {str(value)[:20]!r}, {what}", value, codes)
    for value in odd(shape):
        yield Fault(f"{name}: odd {str(value)[:20]!r}", value, None)
    nested = {"structure": members, "list": items, "map": entries}.get(shape.type_name)
    if nested:
        yield from nested(shape, good, name, given, own)


def members(shape, good, name, given, own):
    """The faults of a structure: each member missing, null, unknown, or bad in itself."""
    for member, its_shape in shape.members.items():
        required = member in shape.required_members
        rest = {key: value for key, value in good.items() if key != member}
        codes = own | BOUND_CODES if required else None
        # For SDKs' sake Secrets Manager fills in a token that botocore's model has as optional.
        yield Fault(f"{name}.{member}: missing", rest, codes)
        yield Fault(f"{name}.{member}: null", {**good, member: None}, codes)
        inner = good[member] if member in good else sample(its_shape, member, given)
        for fault in faults(its_shape, inner, member, given):
            yield fault._replace(what=f"{name}.{fault.what}", value={**good, member: fault.value})
    yield Fault(f"{name}: an unknown member", {**good, "NoSuchMember": [{"a": [None]}]}, None)


def items(shape, good, name, given, own):
    """The faults of a list: too few, too many, a bad one among good ones."""
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low:
        yield Fault(f"{name}: empty list", [], own)
    if high:
        yield Fault(f"{name}: list one too long", [good[0]] * (high + 1), own)
    yield Fault(f"{name}: null in a list", [*good, None], TYPE_CODES)
    yield Fault(f"{name}: huge list", [good[0]] * 5000, None)
    for fault in faults(shape.member, good[0], name, given):
        yield fault._replace(what=f"{name}[]{fault.what}", value=[fault.value])


def entries(shape, good, name, given, own):
    """The faults of a map: bad keys, bad values, too many."""
    key = next(iter(good))
    yield Fault(f"{name}: null in a map", {**good, "n": None}, TYPE_CODES)
    yield Fault(f"{name}: huge map", {f"k{n}": "v" for n in range(5000)}, None)
    yield Fault(f"{name}: empty key", {"": good[key]}, None)
    for fault in faults(shape.value, good[key], name, given):
        yield fault._replace(what=f"{name}{{}}{fault.what}", value={key: fault.value})
