"""The appliance answers every kind of client that the other tests use."""

from botocore.exceptions import ClientError


def test_boto3_stores_a_secret_and_reads_it_back(secretsmanager, name):
    made = secretsmanager.create_secret(Name=name, SecretString="hunter2")
    read = secretsmanager.get_secret_value(SecretId=name)
    assert (read["ARN"], read["SecretString"]) == (made["ARN"], "hunter2")


def test_the_aws_cli_makes_a_key_and_sees_it(appliance):
    made = appliance.aws("kms", "create-key")
    assert made.code == 0, made.err
    seen = appliance.aws("kms", "describe-key", "--key-id", made.out["KeyMetadata"]["KeyId"])
    assert seen.out["KeyMetadata"]["Arn"] == made.out["KeyMetadata"]["Arn"]
    assert seen.out["KeyMetadata"]["AWSAccountId"] == appliance.account_id


def test_the_aws_cli_reports_the_services_own_error(appliance):
    ran = appliance.aws("secretsmanager", "get-secret-value", "--secret-id", "no-such-secret")
    assert ran.code in (254, 255)
    assert ran.out is None
    assert "ResourceNotFoundException" in ran.err


def test_a_raw_request_reaches_an_operation_and_a_wrong_target_none(appliance):
    assert "Keys" in appliance.raw("TrentService.ListKeys", {}).json
    assert appliance.raw("TrentService.MakeCoffee", {}).code == "UnknownOperationException"


def test_a_monitor_reads_numbers_without_a_signature(appliance):
    answer = appliance.post(b"", {}, path="/metrics", method="GET")
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/plain")
    lines = [line for line in answer.body.decode().splitlines() if not line.startswith("#")]
    values = {name: int(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
    assert values["strongroom_audit_ready"] == values['strongroom_token_up{token="main"}'] == 1
    assert values["strongroom_audit_records_total"] >= values["strongroom_audit_signed_records"]


def test_an_altered_body_is_refused(appliance):
    _, headers = appliance.signed("TrentService.ListKeys", {})
    answer = appliance.post(b'{"Limit": 1}', headers)
    assert (answer.status, answer.code) == (400, "InvalidSignatureException")


def test_state_outlives_a_restart(own_appliance, name):
    appliance = own_appliance()
    appliance.client("secretsmanager").create_secret(Name=name, SecretString="kept")
    appliance.stop()
    appliance.start()
    read = appliance.client("secretsmanager").get_secret_value(SecretId=name)
    assert read["SecretString"] == "kept"


def test_boto3_sees_a_modelled_exception(kms):
    try:
        kms.describe_key(KeyId="1234abcd-12ab-34cd-56ef-1234567890ab")
    except ClientError as error:
        assert error.response["Error"]["Code"] == "NotFoundException"
    else:
        raise AssertionError("a key that nobody made was described")
