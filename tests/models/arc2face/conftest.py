import pytest


@pytest.fixture(scope="session")
def miniature(tmp_path_factory):
    from arc2face_miniature import build

    return build(tmp_path_factory.mktemp("arc2face"))
