"""KMS: automatic rotation, rotation on demand, and what old ciphertexts make of it."""

import datetime
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import error_of

DAY = datetime.timedelta(days=1)
NOBODYS = "1234abcd-12ab-34cd-56ef-1234567890ab"


@pytest.fixture
def key(kms):
    return kms.create_key()["KeyMetadata"]


def status(kms, key):
    answer = kms.get_key_rotation_status(KeyId=key["KeyId"])
    del answer["ResponseMetadata"]
    return answer


def material(kms, key):
    return kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"]["CurrentKeyMaterialId"]


# ---- The schedule ----------------------------------------------------------------------------


def test_a_new_key_is_not_rotated(kms, key):
    assert status(kms, key) == {"KeyId": key["KeyId"], "KeyRotationEnabled": False}


@pytest.mark.parametrize(("asked", "days"), [({}, 365), ({"RotationPeriodInDays": 90}, 90),
                                             ({"RotationPeriodInDays": 2560}, 2560)])
def test_rotation_is_turned_on_for_a_period_and_off_again(kms, key, asked, days):
    before = datetime.datetime.now(datetime.timezone.utc)
    kms.enable_key_rotation(KeyId=key["KeyId"], **asked)
    found = status(kms, key)
    assert (found["KeyRotationEnabled"], found["RotationPeriodInDays"]) == (True, days)
    assert abs(found["NextRotationDate"] - (before + days * DAY)) < datetime.timedelta(minutes=1)
    kms.disable_key_rotation(KeyId=key["KeyId"])
    assert status(kms, key) == {"KeyId": key["KeyId"], "KeyRotationEnabled": False}


def test_the_same_period_again_moves_no_date_and_another_period_does(kms, key):
    kms.enable_key_rotation(KeyId=key["Arn"])
    first = status(kms, key)
    kms.enable_key_rotation(KeyId=key["Arn"])
    assert status(kms, key) == first
    kms.enable_key_rotation(KeyId=key["Arn"], RotationPeriodInDays=100)
    assert status(kms, key)["NextRotationDate"] < first["NextRotationDate"]


@pytest.mark.parametrize("days", [89, 2561])
def test_a_period_is_from_90_to_2560_days(appliance, key, days):
    body = {"KeyId": key["KeyId"], "RotationPeriodInDays": days}
    answer = appliance.raw("TrentService.EnableKeyRotation", body)
    assert answer.code == "ValidationException"
    assert f"Value '{days}' at 'rotationPeriodInDays'" in answer.json["message"]


def test_a_disabled_key_keeps_its_schedule_and_takes_no_other(kms, key):
    kms.enable_key_rotation(KeyId=key["KeyId"])
    before = status(kms, key)
    kms.disable_key(KeyId=key["KeyId"])
    assert status(kms, key) == before
    expected = ("DisabledException", f"{key['Arn']} is disabled.")
    for call in (kms.enable_key_rotation, kms.disable_key_rotation, kms.rotate_key_on_demand):
        assert error_of(call, KeyId=key["KeyId"]) == expected


def test_a_key_that_is_pending_deletion_shows_as_not_rotated_until_it_is_kept(kms, key):
    kms.enable_key_rotation(KeyId=key["KeyId"])
    before = status(kms, key)
    kms.schedule_key_deletion(KeyId=key["KeyId"], PendingWindowInDays=7)
    assert status(kms, key) == {"KeyId": key["KeyId"], "KeyRotationEnabled": False}
    expected = ("KMSInvalidStateException", f"{key['Arn']} is pending deletion.")
    for call in (kms.enable_key_rotation, kms.disable_key_rotation, kms.rotate_key_on_demand):
        assert error_of(call, KeyId=key["KeyId"]) == expected
    kms.cancel_key_deletion(KeyId=key["KeyId"])
    assert status(kms, key) == before


def test_a_service_s_key_rotates_every_year_and_nobody_changes_that(kms):
    key = kms.describe_key(KeyId="alias/aws/secretsmanager")["KeyMetadata"]
    found = status(kms, key)
    assert (found["KeyRotationEnabled"], found["RotationPeriodInDays"]) == (True, 365)
    for call in (kms.enable_key_rotation, kms.disable_key_rotation, kms.rotate_key_on_demand):
        assert error_of(call, KeyId=key["KeyId"])[0] == "AccessDeniedException"


def test_an_alias_is_no_key_id_here(kms, key, name):
    kms.create_alias(AliasName=f"alias/{name}", TargetKeyId=key["KeyId"])
    calls = (kms.enable_key_rotation, kms.disable_key_rotation, kms.get_key_rotation_status,
             kms.rotate_key_on_demand, kms.list_key_rotations)
    for call in calls:
        assert error_of(call, KeyId=f"alias/{name}")[0] == "InvalidArnException"
        arn = key["Arn"].replace(key["KeyId"], NOBODYS)
        expected = ("NotFoundException", f"Key '{arn}' does not exist")
        assert error_of(call, KeyId=NOBODYS) == expected


# ---- On demand -------------------------------------------------------------------------------


def test_a_rotation_on_demand_changes_the_material_and_old_ciphertexts_still_open(kms, key):
    old = kms.encrypt(KeyId=key["KeyId"], Plaintext=b"old")["CiphertextBlob"]
    assert kms.rotate_key_on_demand(KeyId=key["KeyId"])["KeyId"] == key["Arn"]
    first, second = key["CurrentKeyMaterialId"], material(kms, key)
    assert first != second
    new = kms.encrypt(KeyId=key["KeyId"], Plaintext=b"new")["CiphertextBlob"]
    for ciphertext, plaintext, made_by in ((old, b"old", first), (new, b"new", second)):
        opened = kms.decrypt(CiphertextBlob=ciphertext, KeyId=key["KeyId"])
        assert (opened["Plaintext"], opened["KeyMaterialId"]) == (plaintext, made_by)
    moved = kms.re_encrypt(CiphertextBlob=old, DestinationKeyId=key["KeyId"])
    assert (moved["SourceKeyMaterialId"], moved["DestinationKeyMaterialId"]) == (first, second)
    found = error_of(kms.decrypt, CiphertextBlob=old + b"bad_data")
    assert found == ("InvalidCiphertextException", "")


def test_a_rotation_on_demand_moves_no_schedule_and_is_over_at_once(kms, key):
    kms.enable_key_rotation(KeyId=key["KeyId"], RotationPeriodInDays=90)
    before = status(kms, key)
    kms.rotate_key_on_demand(KeyId=key["KeyId"])
    assert status(kms, key) == before


def test_a_key_is_rotated_on_demand_25_times_and_no_more(kms, key):
    for _ in range(25):
        kms.rotate_key_on_demand(KeyId=key["KeyId"])
    assert error_of(kms.rotate_key_on_demand, KeyId=key["KeyId"]) == (
        "LimitExceededException",
        "The on-demand rotations limit has been reached for the given keyId. No more on-demand "
        f"rotations can be performed for this key: {key['Arn']}",
    )


def test_of_rotations_at_the_same_moment_each_makes_its_material_or_conflicts(appliance, kms, key):
    def rotate(_):
        answer = appliance.raw("TrentService.RotateKeyOnDemand", {"KeyId": key["KeyId"]})
        return answer.code

    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(rotate, range(16)))
    assert set(codes) <= {None, "ConflictException"}
    listed = kms.list_key_rotations(KeyId=key["KeyId"])["Rotations"]
    assert len(listed) == codes.count(None) >= 1
    assert len({entry["KeyMaterialId"] for entry in listed}) == len(listed)
    kms.encrypt(KeyId=key["KeyId"], Plaintext=b"x")


# ---- The list --------------------------------------------------------------------------------


def test_rotations_are_listed_the_oldest_first_and_the_first_material_on_request(kms, key):
    kms.rotate_key_on_demand(KeyId=key["KeyId"])
    kms.rotate_key_on_demand(KeyId=key["KeyId"])
    answer = kms.list_key_rotations(KeyId=key["KeyId"])
    assert answer["Truncated"] is False and "NextMarker" not in answer
    old, new = answer["Rotations"]
    assert old["RotationDate"] <= new["RotationDate"]
    assert (old["KeyMaterialState"], new["KeyMaterialState"]) == ("NON_CURRENT", "CURRENT")
    assert new["KeyMaterialId"] == material(kms, key)
    for entry in (old, new):
        assert (entry["KeyId"], entry["RotationType"]) == (key["KeyId"], "ON_DEMAND")
    everything = kms.list_key_rotations(KeyId=key["Arn"], IncludeKeyMaterial="ALL_KEY_MATERIAL")
    first, *rest = everything["Rotations"]
    assert rest == [old, new]
    assert first == {
        "KeyId": key["KeyId"],
        "KeyMaterialId": key["CurrentKeyMaterialId"],
        "KeyMaterialState": "NON_CURRENT",
    }


def test_a_key_that_was_never_rotated_has_an_empty_list(kms, key):
    answer = kms.list_key_rotations(KeyId=key["KeyId"], IncludeKeyMaterial="ROTATIONS_ONLY")
    assert answer["Rotations"] == []


def test_the_list_is_paged_and_its_marker_is_good_for_nothing_else(kms, key):
    for _ in range(3):
        kms.rotate_key_on_demand(KeyId=key["KeyId"])
    whole = kms.list_key_rotations(KeyId=key["KeyId"])["Rotations"]
    page = kms.list_key_rotations(KeyId=key["KeyId"], Limit=2)
    assert page["Truncated"] is True and page["Rotations"] == whole[:2]
    marker = page["NextMarker"]
    rest = kms.list_key_rotations(KeyId=key["KeyId"], Limit=2, Marker=marker)
    assert rest["Truncated"] is False and rest["Rotations"] == whole[2:]
    other = kms.create_key()["KeyMetadata"]["KeyId"]
    for given in ({"KeyId": other, "Marker": marker}, {"KeyId": key["KeyId"], "Marker": "junk"}):
        assert error_of(kms.list_key_rotations, **given)[0] == "InvalidMarkerException"


def test_an_unknown_choice_of_material_is_refused(appliance, key):
    body = {"KeyId": key["KeyId"], "IncludeKeyMaterial": "SOME"}
    answer = appliance.raw("TrentService.ListKeyRotations", body)
    assert answer.code == "ValidationException"


# ---- Restarts --------------------------------------------------------------------------------


def test_rotated_keys_outlive_the_process(own_appliance):
    running = own_appliance()
    kms = running.client("kms")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    made = [kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]]
    kms.enable_key_rotation(KeyId=key)
    for _ in range(3):
        kms.rotate_key_on_demand(KeyId=key)
        made.append(kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"])
    before = kms.get_key_rotation_status(KeyId=key)["NextRotationDate"]
    running.kill()
    running.start()
    kms = running.client("kms")
    opened = [kms.decrypt(CiphertextBlob=ciphertext) for ciphertext in made]
    assert len({answer["KeyMaterialId"] for answer in opened}) == 4
    assert kms.get_key_rotation_status(KeyId=key)["NextRotationDate"] == before
