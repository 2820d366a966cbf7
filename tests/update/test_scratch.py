"""The reused memory of folded weights: shape and layout, one piece per dtype, usable whatever mode it began in."""

import threading

import pytest
import torch

from randlora.update.scratch import release_scratch, scratch, scratch_like


def _on_a_new_thread(call):
    found = []

    def run():
        with torch.no_grad():  # of this thread
            found.append(call())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


@pytest.fixture(autouse=True)
def _as_in_an_autograd_function():
    with torch.no_grad():
        yield


def _like(matrix):
    return scratch_like("weight", matrix)


def test_shape_dtype_and_layout_are_those_of_the_matrix():
    for like in (torch.ones(5, 7), torch.ones(7, 5).T, torch.ones(3, 4, dtype=torch.bfloat16), torch.ones(1, 9)):
        memory = _like(like)
        assert (memory.shape, memory.dtype, memory.stride()) == (like.shape, like.dtype, like.stride())


def test_the_same_memory_serves_every_matrix_that_fits():
    def pointers():
        first = _like(torch.ones(8, 8)).data_ptr()
        return first, _like(torch.ones(3, 5).T).data_ptr(), _like(torch.ones(8, 8)).data_ptr()

    assert len(set(_on_a_new_thread(pointers))) == 1


def test_threads_do_not_share():
    here = _like(torch.ones(8, 8))
    assert _on_a_new_thread(lambda: _like(torch.ones(8, 8)).data_ptr()) != here.data_ptr()


def test_purposes_and_dtypes_do_not_overlap():
    one = torch.ones(1)
    pieces = [scratch(p, one, (4,), d) for p in ("a", "b") for d in (torch.float32, torch.bfloat16)]
    for value, piece in enumerate(pieces):
        piece.fill_(value)
    assert [piece.unique().tolist() for piece in pieces] == [[0], [1], [2], [3]]


def test_it_can_be_given_back():
    def sizes():
        _like(torch.ones(64, 64))
        release_scratch()
        return _like(torch.ones(2, 2)).untyped_storage().nbytes()

    assert _on_a_new_thread(sizes) == 16


def test_where_there_is_none():
    with torch.enable_grad():
        assert _like(torch.ones(6, 6)) is None
    assert _like(torch.ones(6, 6)[:, ::2]) is None
    assert _like(torch.ones(6, 6, device="meta")) is None


def test_first_used_in_inference_mode_it_serves_training():
    def train():
        with torch.inference_mode():
            _like(torch.ones(4, 4))
        memory = _like(torch.ones(4, 4))
        memory.fill_(2.0)
        x = torch.ones(3, 4, requires_grad=True)
        with torch.enable_grad():
            (x @ memory).sum().backward()
        return x.grad

    assert torch.equal(_on_a_new_thread(train), torch.full((3, 4), 8.0))


def test_layers_that_share_it_do_not_disturb_each_other(update, make_case):
    first = make_case("structured", 4, 24, 24, batch=(9,), bias=False, seed=1)
    second = make_case("structured", 4, 24, 24, batch=(9,), bias=False, seed=2)
    x = first.x

    @torch.enable_grad()
    def both(strategy):
        second.x = first.by(update, strategy)
        output = second.by(update, strategy)
        leaves = [x, first.lambda_, first.gamma, second.lambda_, second.gamma]
        return output.detach(), *torch.autograd.grad(output.square().sum(), leaves)

    for ours, theirs in zip(both("folded"), both("reference"), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
