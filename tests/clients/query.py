"""Checks raw answers of the Query protocol (IAM, STS) against the service models."""

import re
from datetime import datetime
from xml.etree import ElementTree

from model import Model, shape_faults

# What any operation may answer: "Common errors" in the API references, AWS's own code for an
# unknown action, and what stands in the way of a request before an operation is known.
COMMON_ERRORS = {
    "AccessDenied": 403,
    "ExpiredToken": 403,
    "IncompleteSignature": 400,
    "InvalidAction": 400,
    "InvalidClientTokenId": 403,
    "MalformedInput": 400,
    "MissingAction": 400,
    "MissingAuthenticationToken": 403,
    "ServiceFailure": 500,
    "SignatureDoesNotMatch": 403,
    "Throttling": 400,
    "ValidationError": 400,
}

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


class QueryModel(Model):
    """The model of one service that speaks the Query protocol, `iam` or `sts`."""

    def check(self, operation, status, headers, body):
        """As in Model, for XML."""
        faults = [f"no {name}" for name in ("x-amzn-requestid", "date") if not headers.get(name)]
        if headers.get("content-type") != "text/xml":
            faults.append(f"content type {headers.get('content-type')!r}")
        root = ElementTree.fromstring(body)
        namespace = self.service.metadata["xmlNamespace"]
        if root.tag.partition("}")[0] != f"{{{namespace}":
            faults.append(f"namespace of {root.tag}")
        faults += self.success(operation, root) if status == 200 else self.error(operation, status, root)
        request_id = root.findtext(".//{*}RequestId")
        if request_id != headers.get("x-amzn-requestid"):
            faults.append(f"RequestId {request_id}")
        assert not faults, [self.service.service_name, operation, status, *faults, body[:2000]]

    def success(self, operation, root):
        """What is wrong with a successful answer."""
        shape = self.operation(operation).output_shape
        names = [local(child) for child in root]
        if local(root) != f"{operation}Response":
            return [f"root {root.tag}"]
        if shape is None:
            return [] if names == ["ResponseMetadata"] else [f"children {names}"]
        if names != [f"{operation}Result", "ResponseMetadata"]:
            return [f"children {names}"]
        return list(shape_faults(shape, value_of(shape, root[0]), "$"))

    def error(self, operation, status, root):
        """What is wrong with an error."""
        if (local(root), [local(child) for child in root]) != ("ErrorResponse", ["Error", "RequestId"]):
            return ["not an ErrorResponse"]
        members = {local(child): child.text or "" for child in root[0]}
        if set(members) != {"Type", "Code", "Message"}:
            return [f"members {sorted(members)}"]
        modelled = {}
        for shape in self.operation(operation).error_shapes:
            error = shape.metadata.get("error", {})
            modelled[error.get("code", shape.name)] = error.get("httpStatusCode", 400)
        expected = modelled.get(members["Code"], COMMON_ERRORS.get(members["Code"]))
        faults = [] if expected == status else [f"{members['Code']} has status {expected}"]
        if members["Type"] != ("Sender" if status < 500 else "Receiver"):
            faults.append(f"type {members['Type']}")
        return faults


def local(element):
    """The name of an element without its namespace."""
    return element.tag.rpartition("}")[2]


def value_of(shape, element):
    """The JSON value that stands in an element; what can't be read stays a text, and is a fault."""
    text = element.text or ""
    kind = shape.type_name
    if kind == "structure":
        # An unknown member stays there, for `shape_faults` to find.
        return {
            local(child): value_of(shape.members[local(child)], child)
            if local(child) in shape.members
            else child.text
            for child in element
        }
    if kind == "list":
        good = all(local(child) == "member" for child in element)
        return [value_of(shape.member, child) for child in element] if good else text
    if kind == "map":
        good = all([local(part) for part in child] == ["key", "value"] for child in element)
        return {child[0].text: value_of(shape.value, child[1]) for child in element} if good else text
    if kind == "boolean":
        return {"true": True, "false": False}.get(text, text)
    if kind in ("integer", "long"):
        return int(text) if re.fullmatch(r"-?\d+", text) else text
    if kind == "timestamp":
        return datetime.fromisoformat(text).timestamp() if MOMENT.fullmatch(text) else text
    return text
