import torch

from pretrain.objectives.fused_words import word_means, word_vectors
from triptych.models.encoder import Fused

# one clip of sound in steps of 65 ms each 50 ms, the last two of eight being padding
STARTS = torch.arange(8) * 0.05
SOUND = Fused(
    sequence=torch.randn(1, 8, 4, generator=torch.Generator().manual_seed(0)),
    mask=(torch.arange(8) < 6)[None],
    times=torch.stack([STARTS, STARTS + 0.065], dim=-1)[None],
)


def means(*spans):
    return word_means(SOUND, torch.tensor([spans]))[0]


def test_a_words_vector_is_the_mean_of_exactly_the_steps_that_overlap_it():
    steps = SOUND.sequence[0]
    # step i covers [0.05 i, 0.05 i + 0.065): step 1 ends at .115, step 4 begins at .2
    inside, all_of_it, beyond = means((0.116, 0.2), (-1.0, 9.0), (0.26, 9.0))
    torch.testing.assert_close(inside, steps[2:4].mean(dim=0))
    torch.testing.assert_close(all_of_it, steps[:6].mean(dim=0))
    torch.testing.assert_close(beyond, steps[4:6].mean(dim=0))


def test_a_word_beside_all_steps_has_the_nearest_real_one():
    before, after = means((-0.3, -0.2), (0.36, 0.4))  # padding covers .36, but says nothing
    torch.testing.assert_close(before, SOUND.sequence[0, 0])
    torch.testing.assert_close(after, SOUND.sequence[0, 5])


def test_padding_has_exactly_no_influence():
    sequence = SOUND.sequence.clone().requires_grad_()
    fused = Fused(sequence=sequence, mask=SOUND.mask, times=SOUND.times)
    word_means(fused, torch.tensor([[[0.1, 0.2], [0.36, 0.4], [-1.0, 9.0]]])).square().sum().backward()
    assert torch.all(sequence.grad[0, 6:] == 0)
    assert torch.all(sequence.grad[0, :6].abs().sum(dim=-1) > 0)


def test_anchors_that_a_clip_has_are_averaged_and_the_words_own_is_the_words_step():
    generator = torch.Generator().manual_seed(1)
    times = torch.tensor([[[0.0, 0.1], [0.1, 0.3]]]).expand(3, -1, -1)
    words = Fused(
        sequence=torch.randn(3, 2, 4, generator=generator),
        mask=torch.tensor([[True, True], [True, True], [False, False]]),
        times=times,
    )
    sound = Fused(
        sequence=torch.randn(3, 8, 4, generator=generator),
        mask=SOUND.mask & torch.tensor([[True], [False], [True]]),
        times=SOUND.times.expand(3, -1, -1),
    )
    asked = torch.tensor([[False, True], [True, False], [True, True]])
    vectors = word_vectors({"text": words, "audio": sound}, times, asked)
    by_sound = word_means(sound, times)
    torch.testing.assert_close(vectors[0], (words.sequence[0, 1] + by_sound[0, 1]) / 2)
    assert torch.equal(vectors[1], words.sequence[1, 0])
    torch.testing.assert_close(vectors[2:], by_sound[2])
    asked[2] = False
    assert torch.equal(word_vectors({"text": words}, times, asked), words.sequence[asked])
