"""What a raw path asks for, and which ones are read in two ways."""

import pytest

from serving.core.paths import is_odd, plain, twin_of, with_deployment


@pytest.mark.parametrize(
    ("path", "twin", "deployment"),
    [
        (b"/openai/deployments/gpt-4o.x_1/chat/completions", b"/v1/chat/completions", "gpt-4o.x_1"),
        (b"/openai/v1/responses", b"/v1/responses", ""),
        (b"/openai/responses", b"/v1/responses", ""),
        (b"/openai/deployments", b"/v1/deployments", ""),
        (b"/openai/deployments/a/", b"/v1/deployments/a/", ""),
        (b"/openai/deployments/../chat/completions", b"/v1/deployments/../chat/completions", ""),
        (b"/openai/deployments/a%2fb/chat/completions", b"/v1/deployments/a%2fb/chat/completions", ""),
    ],
)
def test_the_twin_of_azures_paths(path, twin, deployment):
    assert twin_of(path) == (twin, deployment)


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        (b"/v1/Batches/", b"/v1/batches"),
        (b"/openai/V1/batches", b"/v1/batches"),
        (b"/openai/%76%31/batches", b"/v1/batches"),
        (b"/openai/Deployments/x/audio/speech", b"/v1/audio/speech"),
        (b"/openai/deployments%2fx/audio/speech", b"/v1/audio/speech"),
        (b"/openai/deployments/a%2faudio/speech", b"/v1/audio/speech"),
        (b"/v1/models/org%2Fname", b"/v1/models/org/name"),
    ],
)
def test_a_path_is_judged_by_its_plain_form(path, meant):
    assert plain(path) == meant


@pytest.mark.parametrize(
    "path",
    [
        *(b"/v1//batches", b"/v1/%2fbatches", b"/openai/%2Fdeployments", b"/v1/a%2f/b", b"/v1/a%2f%2fb"),
        *(b"/v1/../x", b"/v1/%2e%2e/x", b"/v1/a%2f..%2fb", b"/v1/..", b"/v1/a%2f.."),
        *(b"/v1/a;b", b"/v1/a%3bb", b"/v1/a\\b", b"/v1/a%5cb", b"/v1/a%252fb", b"/v1/a%00", b"/v1/a\x00"),
    ],
)
def test_what_may_be_read_in_two_ways_is_odd(path):
    assert is_odd(path)


@pytest.mark.parametrize(
    "path", [b"/v1/models/org%2Fname", b"/v1/files/file-1.2/content", b"/openai/v1/responses/r..1"]
)
def test_what_is_read_in_one_way_is_not(path):
    assert not is_odd(path)


def test_another_deployment_takes_the_place_of_one_and_no_others():
    assert with_deployment("/openai/deployments/a/embeddings", "b c/d") == "/openai/deployments/b%20c%2Fd/embeddings"
    assert with_deployment("/openai/files", "b") == "/openai/files"
