import numpy as np
import pytest

from synface.core import plugins
from synface.core.errors import InputError


def test_a_callable_by_its_import_path():
    assert plugins.load("style", "numpy:asarray") is np.asarray


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("numpy:pi", "detector 'numpy:pi': is not callable"),
        ("numpy", "give a callable as package.module:attribute"),
        ("no.such:thing", "cannot be imported"),
        ("numpy:nothing", "cannot be imported"),
    ],
)
def test_anything_else_is_refused(name, message):
    with pytest.raises(InputError, match=message):
        plugins.load("detector", name)
