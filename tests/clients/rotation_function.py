"""A rotation function in the style of AWS's samples; what it rotates is the password in a file.

It knows nothing of the appliance but the environment that Lambda gives to a function: credentials, and
`SECRETS_MANAGER_ENDPOINT`. `TARGET` is a file that holds the one password which logs in.
"""

import json
import os
import pathlib
import sys

import boto3


def lambda_handler(event, _context):
    """One step of a rotation."""
    arn, token, step = event["SecretId"], event["ClientRequestToken"], event["Step"]
    client = boto3.client("secretsmanager", endpoint_url=os.environ["SECRETS_MANAGER_ENDPOINT"])
    described = client.describe_secret(SecretId=arn)
    if not described.get("RotationEnabled"):
        raise ValueError(f"Secret {arn} is not enabled for rotation")
    stages = described["VersionIdsToStages"].get(token)
    if stages is None:
        raise ValueError(f"Secret version {token} has no stage for rotation of secret {arn}.")
    if "AWSCURRENT" in stages:
        return
    if "AWSPENDING" not in stages:
        raise ValueError(f"Secret version {token} not set as AWSPENDING for rotation of {arn}.")
    steps = {
        "createSecret": create_secret,
        "setSecret": set_secret,
        "testSecret": test_secret,
        "finishSecret": finish_secret,
    }
    steps[step](client, arn, token)


def read(client, arn, stage, token=None):
    """The secret's structure under a stage."""
    which = {"VersionId": token} if token else {}
    value = client.get_secret_value(SecretId=arn, VersionStage=stage, **which)
    return json.loads(value["SecretString"])


def create_secret(client, arn, token):
    """Puts a new password under AWSPENDING, unless it is there."""
    current = read(client, arn, "AWSCURRENT")
    try:
        read(client, arn, "AWSPENDING", token)
    except client.exceptions.ResourceNotFoundException:
        made = client.get_random_password(ExcludeCharacters="/@\"'\\")
        current["password"] = made["RandomPassword"]
        client.put_secret_value(
            SecretId=arn,
            ClientRequestToken=token,
            SecretString=json.dumps(current),
            VersionStages=["AWSPENDING"],
        )


def set_secret(client, arn, token):
    """Tells the target, logged in with the password of now, or of before."""
    target = pathlib.Path(os.environ["TARGET"])
    pending = read(client, arn, "AWSPENDING", token)
    accepted = target.read_text()
    if accepted == pending["password"]:
        return
    if accepted != read(client, arn, "AWSCURRENT")["password"]:
        raise ValueError("setSecret: Unable to log in with current or pending secret")
    target.write_text(pending["password"])


def test_secret(client, arn, token):
    """Logs in with the new password."""
    pending = read(client, arn, "AWSPENDING", token)
    if pathlib.Path(os.environ["TARGET"]).read_text() != pending["password"]:
        raise ValueError("testSecret: Unable to log in with pending secret")


def finish_secret(client, arn, token):
    """Moves AWSCURRENT."""
    versions = client.describe_secret(SecretId=arn)["VersionIdsToStages"]
    current = next(version for version, stages in versions.items() if "AWSCURRENT" in stages)
    if current != token:
        client.update_secret_version_stage(
            SecretId=arn,
            VersionStage="AWSCURRENT",
            MoveToVersionId=token,
            RemoveFromVersionId=current,
        )


if __name__ == "__main__":
    lambda_handler(json.load(sys.stdin), None)
