import io

import numpy as np
import pytest

from shards.reading.npy import from_bytes


def npy(values: np.ndarray, **options: bool) -> bytes:
    content = io.BytesIO()
    np.save(content, values, **options)
    return content.getvalue()


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8", "int64", ">f4"])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (4, 2, 3)])
def test_an_array_comes_back_as_it_was_saved(dtype: str, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    for saved in (values, values.T):
        read = from_bytes(npy(saved))
        assert read.dtype == saved.dtype
        np.testing.assert_array_equal(read, saved)


def test_arrays_of_python_objects_are_refused() -> None:
    with pytest.raises(ValueError, match="would need pickle"):
        from_bytes(npy(np.array([{}], dtype=object), allow_pickle=True))


@pytest.mark.parametrize("kept", [0, 6, 9, 60, 130])
def test_a_file_cut_short_is_refused(kept: int) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_bytes(npy(np.ones(3))[:kept])
