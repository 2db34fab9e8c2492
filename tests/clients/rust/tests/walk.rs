//! What an application does with the AWS SDK for Rust, and what the SDK makes of the answers: its
//! own strict parsers, its modelled errors, its correction of a wrong clock.

use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::decrypt::DecryptError;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeySpec, KeyState};
use aws_sdk_secretsmanager::types::Tag;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use strongroom_client_tests::{Appliance, Clock, RIGHT};

/// A name that no other run uses.
fn unique(what: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    format!("rust-{what}-{}", now.as_nanos())
}

#[tokio::test]
async fn a_secret_is_made_read_changed_listed_and_deleted() {
    let appliance = Appliance::start().expect("an appliance");
    let client = appliance.secrets_manager();
    let name = unique("secret");
    let tag = Tag::builder().key("team").value("shop").build();
    let create = client.create_secret().name(&name).secret_string("first").tags(tag);
    let made = create.send().await.expect("made");
    let (arn, first) = (made.arn().expect("an ARN"), made.version_id().expect("a version"));

    let read = client.get_secret_value().secret_id(arn).send().await.expect("read");
    assert_eq!((read.secret_string(), read.version_id()), (Some("first"), Some(first)));
    assert_eq!(read.version_stages(), ["AWSCURRENT"]);
    assert!(read.created_date().is_some_and(|date| date.secs() > 1_700_000_000));

    let put = client.put_secret_value().secret_id(&name).secret_binary(Blob::new([0, 255]));
    let second = put.send().await.expect("put").version_id.expect("a version");
    let read = client.get_secret_value().secret_id(&name).send().await.expect("read");
    assert_eq!(read.secret_binary(), Some(&Blob::new([0, 255])));
    let previous = client.get_secret_value().secret_id(&name).version_stage("AWSPREVIOUS");
    let previous = previous.send().await.expect("read");
    assert_eq!(previous.secret_string(), Some("first"));

    let told = client.describe_secret().secret_id(&name).send().await.expect("described");
    assert_eq!(told.tags().first().and_then(Tag::value), Some("shop"));
    let stages = told.version_ids_to_stages().expect("versions");
    assert_eq!(stages.get(&second).map(Vec::as_slice), Some(["AWSCURRENT".to_owned()].as_slice()));

    let second_name = unique("secret");
    client.create_secret().name(&second_name).send().await.expect("made");
    let mut pages = client.list_secrets().into_paginator().page_size(1).send();
    let (mut listed, mut seen) = (Vec::new(), 0);
    while let Some(page) = pages.next().await {
        seen += 1;
        let entries = page.expect("listed").secret_list.unwrap_or_default();
        listed.extend(entries.into_iter().filter_map(|entry| entry.name));
    }
    assert!(listed.contains(&name) && listed.contains(&second_name), "{listed:?}");
    assert!(seen >= 2, "a page holds one");

    let gone = client.delete_secret().secret_id(&name).force_delete_without_recovery(true);
    assert!(gone.send().await.expect("deleted").deletion_date().is_some());
}

#[tokio::test]
async fn errors_of_secrets_manager_are_the_sdk_s_own_variants() {
    let appliance = Appliance::start().expect("an appliance");
    let client = appliance.secrets_manager();
    let name = unique("errors");

    let missing = client.get_secret_value().secret_id(&name).send().await.expect_err("missing");
    assert_eq!(missing.message(), Some("Secrets Manager can't find the specified secret."));
    assert!(missing.raw_response().is_some_and(|answer| answer.status().as_u16() == 400));
    let missing = missing.into_service_error();
    assert!(missing.is_resource_not_found_exception(), "{missing:?}");
    assert!(missing.meta().extra("aws_request_id").is_some(), "{missing:?}");

    let create = || client.create_secret().name(&name).secret_string("x");
    create().send().await.expect("made");
    let taken = create().send().await.expect_err("taken").into_service_error();
    assert!(taken.is_resource_exists_exception(), "{taken:?}");

    let both = client.put_secret_value().secret_id(&name).secret_string("x");
    let both = both.secret_binary(Blob::new("x")).send().await.expect_err("two values");
    let both = both.into_service_error();
    assert!(both.is_invalid_parameter_exception(), "{both:?}");

    client.delete_secret().secret_id(&name).send().await.expect("deleted");
    let marked = client.get_secret_value().secret_id(&name).send().await.expect_err("marked");
    let marked = marked.into_service_error();
    assert!(marked.is_invalid_request_exception(), "{marked:?}");
    client.restore_secret().secret_id(&name).send().await.expect("restored");
}

#[tokio::test]
async fn keys_encrypt_decrypt_and_make_data_keys() {
    let appliance = Appliance::start().expect("an appliance");
    let client = appliance.kms(RIGHT, 1);
    let made = client.create_key().description("orders").send().await.expect("made");
    let made = made.key_metadata.expect("metadata");
    assert_eq!(made.key_state(), Some(&KeyState::Enabled));
    let key = made.key_id();
    let alias = format!("alias/{}", unique("key"));
    let named = client.create_alias().alias_name(&alias).target_key_id(key);
    named.send().await.expect("named");

    let context = ("purpose".to_owned(), "test".to_owned());
    let encrypt = client.encrypt().key_id(&alias).plaintext(Blob::new("milk"));
    let sealed = encrypt.encryption_context(&context.0, &context.1).send().await.expect("sealed");
    assert_eq!(sealed.key_id(), made.arn());
    let sealed = sealed.ciphertext_blob.expect("a ciphertext");
    let decrypt = client.decrypt().ciphertext_blob(sealed.clone());
    let opened = decrypt.encryption_context(&context.0, &context.1).send().await.expect("opened");
    assert_eq!(opened.plaintext(), Some(&Blob::new("milk")));

    let spec = DataKeySpec::Aes256;
    let pair = client.generate_data_key().key_id(key).key_spec(spec).send().await.expect("made");
    let plaintext = pair.plaintext().expect("a key");
    assert_eq!(plaintext.as_ref().len(), 32);
    let wrapped = pair.ciphertext_blob().expect("a ciphertext").clone();
    let opened = client.decrypt().ciphertext_blob(wrapped).send().await.expect("opened");
    assert_eq!(opened.plaintext(), Some(plaintext));

    let other = client.create_key().send().await.expect("made").key_metadata.expect("metadata");
    let again = client.re_encrypt().ciphertext_blob(sealed).destination_key_id(other.key_id());
    let again = again.source_encryption_context(&context.0, &context.1);
    let again = again.send().await.expect("sealed again");
    assert_eq!((again.source_key_id(), again.key_id()), (made.arn(), other.arn()));
    let again = again.ciphertext_blob.expect("a ciphertext");
    let opened = client.decrypt().ciphertext_blob(again).send().await.expect("opened");
    assert_eq!(opened.plaintext(), Some(&Blob::new("milk")));
}

#[tokio::test]
async fn errors_of_kms_are_the_sdk_s_own_variants() {
    let appliance = Appliance::start().expect("an appliance");
    let client = appliance.kms(RIGHT, 1);
    let missing = client.describe_key().key_id("1234abcd-12ab-34cd-56ef-1234567890ab");
    let missing = missing.send().await.expect_err("missing").into_service_error();
    assert!(missing.is_not_found_exception(), "{missing:?}");

    let key = client.create_key().send().await.expect("made").key_metadata.expect("metadata");
    let encrypt = || client.encrypt().key_id(key.key_id()).plaintext(Blob::new("milk"));
    let sealed = encrypt().send().await.expect("sealed").ciphertext_blob.expect("a ciphertext");
    let mut altered = sealed.clone().into_inner();
    *altered.last_mut().expect("not empty") ^= 1;
    let altered = client.decrypt().ciphertext_blob(Blob::new(altered)).send().await;
    let SdkError::ServiceError(altered) = altered.expect_err("altered") else {
        panic!("no answer")
    };
    let DecryptError::InvalidCiphertextException(told) = altered.err() else {
        panic!("another error: {altered:?}")
    };
    assert_eq!(told.message().unwrap_or_default(), "");

    let other = client.create_key().send().await.expect("made").key_metadata.expect("metadata");
    let wrong = client.decrypt().ciphertext_blob(sealed).key_id(other.key_id());
    let wrong = wrong.send().await.expect_err("another key").into_service_error();
    assert!(wrong.is_incorrect_key_exception(), "{wrong:?}");

    client.disable_key().key_id(key.key_id()).send().await.expect("disabled");
    let disabled = encrypt().send().await.expect_err("disabled").into_service_error();
    assert!(disabled.is_disabled_exception(), "{disabled:?}");
}

/// The SDK takes the time from the `Date` header of the refusal and tries again with it.
#[tokio::test]
async fn a_client_whose_clock_is_wrong_corrects_itself() {
    let appliance = Appliance::start().expect("an appliance");
    let slow = Clock { slow: Duration::from_secs(3600) };
    let refused = appliance.kms(slow, 1).list_keys().send().await.expect_err("an hour late");
    assert_eq!(refused.code(), Some("InvalidSignatureException"));
    let client = appliance.kms(slow, 2);
    client.list_keys().send().await.expect("corrected");
    client.create_key().send().await.expect("and remembered");
}
