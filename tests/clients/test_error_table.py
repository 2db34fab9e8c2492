"""The table of errors against the service models: no code that a client would not know."""

from pathlib import Path
from typing import NamedTuple

import pytest

from conftest import MODELS, QUERY_MODELS, ROOT
from model import COMMON_ERRORS
from query import COMMON_ERRORS as QUERY_COMMON_ERRORS

GOLDEN = Path(ROOT) / "tests" / "golden" / "errors.txt"

# The models say whose fault an error is, the API references the status of those that are not the
# caller's; every other status is 400.
DOCUMENTED = {
    "DependencyTimeoutException": 503,
    "InternalFailure": 500,
    "InternalServiceError": 500,
    "KMSInternalException": 500,
    "KeyUnavailableException": 500,
}


class Line(NamedTuple):
    """A line of the golden table."""

    service: str
    material: str
    condition: str
    code: str
    status: int
    rest_status: int


def lines():
    """The table as tests/golden/errors.txt has it, which the crate's own tests keep true."""
    rows = (row for row in GOLDEN.read_text().splitlines() if row and not row.startswith("#"))
    for row in rows:
        *texts, status, rest_status = row.split("\t")
        yield Line(*texts, int(status), int(rest_status))


TABLE = list(lines())
JSON = [line for line in TABLE if line.service in MODELS]
QUERY = [line for line in TABLE if line.service in QUERY_MODELS]


def test_each_condition_has_its_line_for_each_kind_of_operation():
    kinds = {(line.service, line.material) for line in TABLE}
    json = {("secretsmanager", "unused"), ("kms", "unused"), ("kms", "used")}
    others = {(service, "unused") for service in ("iam", "sts", "cloudtrail", "rolesanywhere")}
    assert kinds == json | others
    for kind in kinds:
        conditions = [line.condition for line in TABLE if (line.service, line.material) == kind]
        assert len(conditions) == len(set(conditions)) == len(TABLE) / len(kinds)


@pytest.mark.parametrize("line", JSON, ids=lambda line: "-".join(line[:3]))
def test_a_code_is_an_exception_of_the_service_or_a_common_one(line):
    model = MODELS[line.service]
    modelled = {shape.name for shape in model.service.error_shapes}
    assert line.code in modelled or line.code in COMMON_ERRORS, line
    at_server = line.code in model.server_errors or COMMON_ERRORS.get(line.code) == "server"
    assert line.status == (DOCUMENTED[line.code] if at_server else 400)


@pytest.mark.parametrize("line", QUERY, ids=lambda line: "-".join(line[:3]))
def test_a_code_of_the_query_protocol_is_one_of_the_service_or_a_common_one(line):
    errors = {error["code"]: error["httpStatusCode"]
              for service in QUERY_MODELS.values()
              for shape in service.service.error_shapes
              if (error := shape.metadata.get("error"))}
    assert {**QUERY_COMMON_ERRORS, **errors}[line.code] == line.status, line


@pytest.mark.parametrize("line", TABLE, ids=lambda line: "-".join(line[:3]))
def test_rest_blames_whom_the_aws_protocol_blames(line):
    # A throttled caller and one without a token to serve it may both come again: 429 and 503.
    assert line.rest_status // 100 == line.status // 100


def test_a_key_without_its_token_is_unavailable_only_where_the_models_know_that_error():
    codes = {line.material: line.code for line in TABLE if line[:3:2] == ("kms", "KeyUnavailable")}
    assert codes == {"used": "KeyUnavailableException", "unused": "KMSInternalException"}
