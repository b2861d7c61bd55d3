"""Holds our signatures against the specification's own library."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from tenants.core.signing import encode_secret, sign

facts = st.dictionaries(st.text(max_size=10), st.text(max_size=20), max_size=4)
bodies = facts.map(lambda body: json.dumps(body).encode())


def verify(secret: str, *, message_id: str, at: int, signature: str, body: bytes):
    headers = {"webhook-id": message_id, "webhook-timestamp": str(at), "webhook-signature": signature}
    return Webhook(secret).verify(body, headers)


@given(entropy=st.binary(min_size=24, max_size=64), body=bodies)
def test_a_standard_receiver_accepts_our_signature(entropy, body):
    secret, at = encode_secret(entropy), int(datetime.now(UTC).timestamp())
    signature = sign(secret, message_id="m1", at=at, body=body)
    assert verify(secret, message_id="m1", at=at, signature=signature, body=body) == json.loads(body)


@given(body=bodies)
def test_a_changed_id_body_or_secret_is_refused(body):
    secret, at = encode_secret(b"k" * 32), int(datetime.now(UTC).timestamp())
    signature = sign(secret, message_id="m1", at=at, body=body)
    for wrong in ({"message_id": "m2"}, {"body": body + b" "}, {"at": at + 1}):
        sent = {"message_id": "m1", "at": at, "body": body, **wrong}
        with pytest.raises(WebhookVerificationError):
            verify(secret, signature=signature, **sent)
    with pytest.raises(WebhookVerificationError):
        verify(encode_secret(b"j" * 32), message_id="m1", at=at, signature=signature, body=body)
