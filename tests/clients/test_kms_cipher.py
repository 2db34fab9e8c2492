"""KMS: Encrypt, Decrypt, ReEncrypt, data keys, random bytes."""

import base64

import pytest

from conftest import error_of

CONTEXT = {"purpose": "test", "owner": "Zoë"}
NOBODYS = "1234abcd-12ab-34cd-56ef-1234567890ab"
NO_KEY = "The key ID in the request does not identify a CMK that can perform this operation."
DRY = "The request would have succeeded, but the DryRun option is set."


@pytest.fixture
def key(kms):
    return kms.create_key()["KeyMetadata"]


@pytest.fixture
def other(kms):
    return kms.create_key()["KeyMetadata"]


@pytest.fixture
def sealed(kms, key):
    return kms.encrypt(KeyId=key["KeyId"], Plaintext=b"hunter2", EncryptionContext=CONTEXT)


def blob(text):
    return base64.b64encode(text).decode()


# ---- Encrypt and Decrypt ---------------------------------------------------------------------


def test_what_was_encrypted_is_decrypted_with_and_without_the_key_s_name(kms, key, sealed, name):
    kms.create_alias(AliasName=f"alias/{name}", TargetKeyId=key["KeyId"])
    alias_arn = key["Arn"].rpartition(":")[0] + f":alias/{name}"
    assert sealed["KeyId"] == key["Arn"]
    assert sealed["EncryptionAlgorithm"] == "SYMMETRIC_DEFAULT"
    ciphertext = sealed["CiphertextBlob"]
    for named in (None, key["KeyId"], key["Arn"], f"alias/{name}", alias_arn):
        naming = {"KeyId": named} if named else {}
        opened = kms.decrypt(CiphertextBlob=ciphertext, EncryptionContext=CONTEXT, **naming)
        assert opened["Plaintext"] == b"hunter2"
        assert opened["KeyId"] == key["Arn"]
        assert opened["EncryptionAlgorithm"] == "SYMMETRIC_DEFAULT"
        assert opened["KeyMaterialId"] == key["CurrentKeyMaterialId"]


def test_encrypt_answers_with_the_key_arn_where_an_alias_was_named(kms, key, name):
    kms.create_alias(AliasName=f"alias/{name}", TargetKeyId=key["KeyId"])
    assert kms.encrypt(KeyId=f"alias/{name}", Plaintext=b"x")["KeyId"] == key["Arn"]


@pytest.mark.parametrize("length", [1, 4096])
def test_every_length_from_1_to_4096_comes_back_and_stays_below_6144(kms, key, length):
    made = kms.encrypt(KeyId=key["KeyId"], Plaintext=b"\0" * length)
    assert len(made["CiphertextBlob"]) <= 6144
    assert kms.decrypt(CiphertextBlob=made["CiphertextBlob"])["Plaintext"] == b"\0" * length


def test_a_plaintext_of_4097_bytes_is_too_long_and_is_not_shown(kms, key):
    code, text = error_of(kms.encrypt, KeyId=key["KeyId"], Plaintext=b"x" * 4097)
    assert code == "ValidationException"
    assert text == (
        "1 validation error detected: Value at 'plaintext' failed to satisfy constraint: "
        "Member must have length less than or equal to 4096"
    )


def test_the_same_plaintext_never_gives_the_same_ciphertext(kms, key):
    made = {kms.encrypt(KeyId=key["KeyId"], Plaintext=b"x")["CiphertextBlob"] for _ in range(20)}
    assert len(made) == 20


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"purpose": "test"},
        {**CONTEXT, "more": ""},
        {"purpose": "TEST", "owner": "Zoë"},
        {"Purpose": "test", "owner": "Zoë"},
        {"purpose": "Zoë", "owner": "test"},
        {"purpose": "testowner", "": "Zoë"},
    ],
)
def test_another_context_is_an_invalid_ciphertext_without_a_text(kms, sealed, context):
    given = {"EncryptionContext": context} if context else {}
    found = error_of(kms.decrypt, CiphertextBlob=sealed["CiphertextBlob"], **given)
    assert found == ("InvalidCiphertextException", "")


def test_the_order_of_a_context_does_not_matter(kms, sealed):
    context = dict(reversed(CONTEXT.items()))
    kms.decrypt(CiphertextBlob=sealed["CiphertextBlob"], EncryptionContext=context)


def test_numbers_in_a_context_are_taken_for_texts(appliance, kms, key):
    body = {"KeyId": key["KeyId"], "Plaintext": blob(b"x"), "EncryptionContext": {"n": 7}}
    made = appliance.raw("TrentService.Encrypt", body).json
    ciphertext = base64.b64decode(made["CiphertextBlob"])
    assert kms.decrypt(CiphertextBlob=ciphertext, EncryptionContext={"n": "7"})["Plaintext"] == b"x"


@pytest.mark.parametrize("context", [{"n": None}, {"n": "x" * 8192}])
def test_an_unacceptable_context_is_refused(appliance, key, context):
    body = {"KeyId": key["KeyId"], "Plaintext": blob(b"x"), "EncryptionContext": context}
    answer = appliance.raw("TrentService.Encrypt", body)
    assert (answer.code, answer.json["message"]) == (
        "ValidationException",
        "Invalid EncryptionContext",
    )


def test_any_altered_or_shortened_or_lengthened_ciphertext_is_invalid(kms, sealed):
    ciphertext = sealed["CiphertextBlob"]
    told_apart = set()
    # One bit in every byte of the format; those that name the key (2 to 18) have their own test.
    for at in [0, 1, *range(19, len(ciphertext))]:
        altered = bytearray(ciphertext)
        altered[at] ^= 1
        found = error_of(kms.decrypt, CiphertextBlob=bytes(altered), EncryptionContext=CONTEXT)
        told_apart.add(found)
    for other in (ciphertext[:-1], ciphertext + b"\0", ciphertext[:99], b"\1", b"junk" * 64):
        found = error_of(kms.decrypt, CiphertextBlob=other, EncryptionContext=CONTEXT)
        told_apart.add(found)
    assert told_apart == {("InvalidCiphertextException", "")}


@pytest.mark.parametrize("at", [2, 3, 18])
def test_a_ciphertext_of_a_key_that_is_not_there_tells_nothing(kms, sealed, at):
    altered = bytearray(sealed["CiphertextBlob"])
    altered[at] ^= 1
    code, text = error_of(kms.decrypt, CiphertextBlob=bytes(altered), EncryptionContext=CONTEXT)
    assert code == "AccessDeniedException"
    assert text.endswith(
        " is not authorized to perform: kms:Decrypt on the resource associated with this "
        "ciphertext because the resource does not exist in this Region, no resource-based "
        "policies allow access, or a resource-based policy explicitly denies access"
    )


def test_another_key_than_the_ciphertext_s_is_an_incorrect_key(kms, other, sealed):
    given = {"CiphertextBlob": sealed["CiphertextBlob"], "EncryptionContext": CONTEXT}
    assert error_of(kms.decrypt, KeyId=other["KeyId"], **given) == ("IncorrectKeyException", NO_KEY)


def test_a_named_key_that_is_not_there_is_not_found(kms, key, sealed):
    arn = key["Arn"].replace(key["KeyId"], NOBODYS)
    expected = ("NotFoundException", f"Key '{arn}' does not exist")
    assert error_of(kms.decrypt, KeyId=NOBODYS, CiphertextBlob=sealed["CiphertextBlob"]) == expected
    assert error_of(kms.encrypt, KeyId=NOBODYS, Plaintext=b"x") == expected
    assert error_of(kms.generate_data_key, KeyId=NOBODYS, KeySpec="AES_256") == expected


def test_a_malformed_key_id_is_told_so(kms):
    found = error_of(kms.encrypt, KeyId="fake-key-id", Plaintext=b"x")
    assert found == ("NotFoundException", "Invalid keyId 'fake-key-id'")


def test_only_the_symmetric_algorithm_fits(kms, key, sealed):
    algorithm = "RSAES_OAEP_SHA_256"
    expected = (
        "InvalidKeyUsageException",
        f"Algorithm {algorithm} is incompatible with key spec SYMMETRIC_DEFAULT.",
    )
    given = {"KeyId": key["KeyId"], "EncryptionAlgorithm": algorithm}
    assert error_of(kms.encrypt, Plaintext=b"x", **given) == expected
    found = error_of(kms.decrypt, CiphertextBlob=sealed["CiphertextBlob"], **given)
    assert found == expected


def test_an_unknown_algorithm_is_a_validation_error(appliance, key):
    body = {"KeyId": key["KeyId"], "Plaintext": blob(b"x"), "EncryptionAlgorithm": "ROT13"}
    answer = appliance.raw("TrentService.Encrypt", body)
    assert answer.code == "ValidationException"
    assert "Value 'ROT13' at 'encryptionAlgorithm'" in answer.json["message"]


@pytest.mark.parametrize(
    ("body", "member"),
    [
        ({"Plaintext": "eA=="}, "keyId"),
        ({"KeyId": NOBODYS}, "plaintext"),
        ({"KeyId": NOBODYS, "Plaintext": ""}, "plaintext"),
        ({"KeyId": "", "Plaintext": "eA=="}, "keyId"),
        ({"KeyId": NOBODYS, "Plaintext": "eA==", "GrantTokens": ["t"] * 11}, "grantTokens"),
    ],
)
def test_what_is_missing_or_out_of_bounds_is_named(appliance, body, member):
    answer = appliance.raw("TrentService.Encrypt", body)
    assert answer.code == "ValidationException"
    assert f"at '{member}'" in answer.json["message"]


def test_decrypt_needs_a_ciphertext(appliance):
    answer = appliance.raw("TrentService.Decrypt", {})
    assert (answer.code, answer.json["message"]) == (
        "ValidationException",
        "1 validation error detected: Value null at 'ciphertextBlob' failed to satisfy "
        "constraint: Member must not be null",
    )


def test_bad_base64_is_a_serialization_error(appliance, key):
    body = {"KeyId": key["KeyId"], "Plaintext": "***"}
    assert appliance.raw("TrentService.Encrypt", body).code == "SerializationException"


# ---- Key states ------------------------------------------------------------------------------


def uses(kms, key, sealed):
    """Every cryptographic use of a key."""
    arn, ciphertext = key["Arn"], sealed["CiphertextBlob"]
    context = {"EncryptionContext": CONTEXT}
    source = {"CiphertextBlob": ciphertext, "SourceEncryptionContext": CONTEXT}
    return [
        (kms.encrypt, {"KeyId": arn, "Plaintext": b"x"}),
        (kms.decrypt, {"CiphertextBlob": ciphertext, **context}),
        (kms.decrypt, {"CiphertextBlob": ciphertext, "KeyId": arn, **context}),
        (kms.re_encrypt, {"DestinationKeyId": arn, **source}),
        (kms.generate_data_key, {"KeyId": arn, "KeySpec": "AES_256"}),
        (kms.generate_data_key_without_plaintext, {"KeyId": arn, "KeySpec": "AES_128"}),
    ]


def test_a_disabled_key_is_not_used(kms, key, sealed):
    kms.disable_key(KeyId=key["KeyId"])
    for call, given in uses(kms, key, sealed):
        assert error_of(call, **given) == ("DisabledException", f"{key['Arn']} is disabled.")
    kms.enable_key(KeyId=key["KeyId"])
    for call, given in uses(kms, key, sealed):
        call(**given)


def test_a_key_that_is_pending_deletion_is_not_used(kms, key, sealed):
    kms.schedule_key_deletion(KeyId=key["KeyId"], PendingWindowInDays=7)
    expected = ("KMSInvalidStateException", f"{key['Arn']} is pending deletion.")
    for call, given in uses(kms, key, sealed):
        assert error_of(call, **given) == expected


# ---- DryRun and recipients -------------------------------------------------------------------


def test_a_dry_run_that_would_succeed_says_so_and_does_nothing(kms, key, sealed):
    for call, given in uses(kms, key, sealed):
        assert error_of(call, DryRun=True, **given) == ("DryRunOperationException", DRY)
        call(DryRun=False, **given)


def test_a_dry_run_that_would_fail_fails_as_the_request_would(kms, key, sealed):
    kms.disable_key(KeyId=key["KeyId"])
    for call, given in uses(kms, key, sealed):
        assert error_of(call, DryRun=True, **given)[0] == "DisabledException"


def test_a_dry_run_of_decrypt_can_do_without_a_ciphertext(appliance, key):
    body = {"KeyId": key["KeyId"], "DryRun": True, "DryRunModifiers": ["IGNORE_CIPHERTEXT"]}
    answer = appliance.raw("TrentService.Decrypt", body)
    assert (answer.code, answer.json["message"]) == ("DryRunOperationException", DRY)
    del body["KeyId"]
    assert appliance.raw("TrentService.Decrypt", body).code == "ValidationException"


@pytest.mark.parametrize("operation", ["Decrypt", "GenerateDataKey", "GenerateRandom"])
def test_an_enclave_s_recipient_is_refused_and_never_overlooked(appliance, key, sealed, operation):
    bodies = {
        "Decrypt": {"CiphertextBlob": blob(sealed["CiphertextBlob"])},
        "GenerateDataKey": {"KeyId": key["KeyId"], "KeySpec": "AES_256"},
        "GenerateRandom": {"NumberOfBytes": 8},
    }
    recipient = {"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256", "AttestationDocument": "AA=="}
    body = {**bodies[operation], "Recipient": recipient}
    answer = appliance.raw(f"TrentService.{operation}", body)
    assert answer.code == "ValidationException"
    assert "Plaintext" not in answer.json


# ---- ReEncrypt -------------------------------------------------------------------------------


def test_a_ciphertext_moves_to_another_key_and_context(kms, key, other, sealed):
    moved = kms.re_encrypt(
        CiphertextBlob=sealed["CiphertextBlob"],
        SourceEncryptionContext=CONTEXT,
        SourceKeyId=key["KeyId"],
        DestinationKeyId=other["KeyId"],
        DestinationEncryptionContext={"new": "yes"},
    )
    assert (moved["SourceKeyId"], moved["KeyId"]) == (key["Arn"], other["Arn"])
    assert moved["SourceEncryptionAlgorithm"] == "SYMMETRIC_DEFAULT"
    assert moved["DestinationEncryptionAlgorithm"] == "SYMMETRIC_DEFAULT"
    assert moved["SourceKeyMaterialId"] == key["CurrentKeyMaterialId"]
    assert moved["DestinationKeyMaterialId"] == other["CurrentKeyMaterialId"]
    ciphertext = moved["CiphertextBlob"]
    opened = kms.decrypt(CiphertextBlob=ciphertext, EncryptionContext={"new": "yes"})
    assert (opened["Plaintext"], opened["KeyId"]) == (b"hunter2", other["Arn"])
    assert error_of(kms.decrypt, CiphertextBlob=ciphertext)[0] == "InvalidCiphertextException"


def test_re_encrypt_refuses_what_decrypt_and_encrypt_do(kms, key, other, sealed):
    given = {
        "CiphertextBlob": sealed["CiphertextBlob"],
        "SourceEncryptionContext": CONTEXT,
        "DestinationKeyId": key["KeyId"],
    }
    wrong = {**given, "SourceKeyId": other["KeyId"]}
    assert error_of(kms.re_encrypt, **wrong) == ("IncorrectKeyException", NO_KEY)
    wrong = {**given, "SourceEncryptionContext": {}}
    assert error_of(kms.re_encrypt, **wrong) == ("InvalidCiphertextException", "")
    wrong = {**given, "CiphertextBlob": b"junk"}
    assert error_of(kms.re_encrypt, **wrong) == ("InvalidCiphertextException", "")
    wrong = {**given, "DestinationKeyId": NOBODYS}
    assert error_of(kms.re_encrypt, **wrong)[0] == "NotFoundException"
    wrong = {**given, "DestinationEncryptionAlgorithm": "RSAES_OAEP_SHA_1"}
    assert error_of(kms.re_encrypt, **wrong)[0] == "InvalidKeyUsageException"
    kms.disable_key(KeyId=other["KeyId"])
    wrong = {**given, "DestinationKeyId": other["KeyId"]}
    found = error_of(kms.re_encrypt, **wrong)
    assert found == ("DisabledException", f"{other['Arn']} is disabled.")


# ---- Data keys -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "length"),
    [
        ({"KeySpec": "AES_256"}, 32),
        ({"KeySpec": "AES_128"}, 16),
        ({"NumberOfBytes": 1}, 1),
        ({"NumberOfBytes": 1024}, 1024),
    ],
)
def test_a_data_key_has_the_length_asked_for_and_opens_again(kms, key, asked, length):
    made = kms.generate_data_key(KeyId=key["KeyId"], EncryptionContext=CONTEXT, **asked)
    assert len(made["Plaintext"]) == length
    assert made["KeyId"] == key["Arn"]
    assert made["KeyMaterialId"] == key["CurrentKeyMaterialId"]
    opened = kms.decrypt(CiphertextBlob=made["CiphertextBlob"], EncryptionContext=CONTEXT)
    assert opened["Plaintext"] == made["Plaintext"]


def test_a_data_key_without_plaintext_opens_later(kms, key):
    made = kms.generate_data_key_without_plaintext(KeyId=key["KeyId"], NumberOfBytes=24)
    assert "Plaintext" not in made
    assert made["KeyId"] == key["Arn"]
    assert made["KeyMaterialId"] == key["CurrentKeyMaterialId"]
    assert len(kms.decrypt(CiphertextBlob=made["CiphertextBlob"])["Plaintext"]) == 24


def test_a_data_key_without_its_context_is_an_invalid_ciphertext(kms, key):
    made = kms.generate_data_key(KeyId=key["KeyId"], KeySpec="AES_256", EncryptionContext=CONTEXT)
    found = error_of(kms.decrypt, CiphertextBlob=made["CiphertextBlob"])
    assert found == ("InvalidCiphertextException", "")


@pytest.mark.parametrize("asked", [{}, {"KeySpec": "AES_256", "NumberOfBytes": 32}])
@pytest.mark.parametrize("operation", ["generate_data_key", "generate_data_key_without_plaintext"])
def test_a_data_key_needs_a_spec_or_a_number_and_not_both(kms, key, operation, asked):
    found = error_of(getattr(kms, operation), KeyId=key["KeyId"], **asked)
    text = "Please specify either number of bytes or key spec."
    assert found == ("ValidationException", text)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"NumberOfBytes": 0}, "Value '0' at 'numberOfBytes' failed to satisfy constraint: Member "
         "must have value greater than or equal to 1"),
        ({"NumberOfBytes": 1025}, "Value '1025' at 'numberOfBytes' failed to satisfy constraint: "
         "Member must have value less than or equal to 1024"),
        ({"KeySpec": "AES_512"}, "Value 'AES_512' at 'keySpec' failed to satisfy constraint: "
         "Member must satisfy enum value set: [AES_256, AES_128]"),
    ],
)
def test_lengths_and_specs_out_of_bounds_are_refused(appliance, key, asked, text):
    answer = appliance.raw("TrentService.GenerateDataKey", {"KeyId": key["KeyId"], **asked})
    assert answer.code == "ValidationException"
    assert answer.json["message"] == f"1 validation error detected: {text}"


# ---- Random bytes ----------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 12, 44, 91, 1024])
def test_random_bytes_have_the_length_asked_for(kms, length):
    assert len(kms.generate_random(NumberOfBytes=length)["Plaintext"]) == length


def test_random_bytes_are_never_the_same_and_look_even(kms):
    made = [kms.generate_random(NumberOfBytes=1024)["Plaintext"] for _ in range(16)]
    assert len(set(made)) == 16
    ones = sum(byte.bit_count() for bytes_ in made for byte in bytes_)
    # 131,072 bits: ten standard deviations from the half are 1,810.
    assert abs(ones - 65_536) < 1_810


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "NumberOfBytes is required."),
        ({"NumberOfBytes": 0}, "1 validation error detected: Value '0' at 'numberOfBytes' failed "
         "to satisfy constraint: Member must have value greater than or equal to 1"),
        ({"NumberOfBytes": 1025}, "1 validation error detected: Value '1025' at 'numberOfBytes' "
         "failed to satisfy constraint: Member must have value less than or equal to 1024"),
    ],
)
def test_a_number_of_random_bytes_is_from_1_to_1024(appliance, body, text):
    answer = appliance.raw("TrentService.GenerateRandom", body)
    assert (answer.code, answer.json["message"]) == ("ValidationException", text)


def test_there_is_no_custom_key_store_to_take_random_bytes_from(kms):
    given = {"NumberOfBytes": 8, "CustomKeyStoreId": "cks-1234567890abcdef0"}
    assert error_of(kms.generate_random, **given)[0] == "CustomKeyStoreNotFoundException"


# ---- Clients and restarts --------------------------------------------------------------------


def test_the_aws_cli_encrypts_and_decrypts(appliance, key, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"hunter2")
    ran = appliance.aws("kms", "encrypt", "--key-id", key["KeyId"], "--plaintext", f"fileb://{secret}")
    assert ran.code == 0, ran.err
    sealed = tmp_path / "sealed"
    sealed.write_bytes(base64.b64decode(ran.out["CiphertextBlob"]))
    ran = appliance.aws("kms", "decrypt", "--ciphertext-blob", f"fileb://{sealed}")
    assert base64.b64decode(ran.out["Plaintext"]) == b"hunter2"


def test_ciphertexts_outlive_the_process(own_appliance):
    running = own_appliance()
    kms = running.client("kms")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    made = kms.generate_data_key(KeyId=key, KeySpec="AES_256", EncryptionContext=CONTEXT)
    running.kill()
    running.start()
    kms = running.client("kms")
    opened = kms.decrypt(CiphertextBlob=made["CiphertextBlob"], EncryptionContext=CONTEXT)
    assert opened["Plaintext"] == made["Plaintext"]


def test_no_plaintext_reaches_the_log_or_the_disk(own_appliance, tmp_path):
    running = own_appliance()
    kms = running.client("kms")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    planted = b"planted-secret-4711"
    made = kms.encrypt(KeyId=key, Plaintext=planted)
    kms.decrypt(CiphertextBlob=made["CiphertextBlob"])
    running.stop()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "audit.jsonl" for path in files)
    for path in files:
        content = path.read_bytes()
        assert planted not in content, path
        assert base64.b64encode(planted)[:24] not in content, path
