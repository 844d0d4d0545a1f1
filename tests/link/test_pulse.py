"""Whether the other end of a link is alive: silence, a question, and its reply."""

from __future__ import annotations

from gateway.link.pulse import ASK, DEAD, FINE, LinkLimits, Pulse


def began(**times):
    """A pulse with an exchange since 100 s: a second of silence, half a second for a reply."""
    pulse = Pulse(LinkLimits(silence=1.0, patience=0.5, **times))
    pulse.begin(100.0)
    return pulse


def heard(pulse, now):
    pulse.quiet = False
    pulse.look(now)


def test_a_link_that_is_heard_is_never_asked():
    pulse = began()
    for now in range(101, 110):
        heard(pulse, now)
        assert pulse.doubt(now + 0.9) == FINE


def test_silence_asks_once_and_then_gives_up_after_one_more_round():
    pulse = began()
    assert [pulse.doubt(now) for now in (101.0, 101.1, 101.2, 101.6)] == [FINE, ASK, FINE, FINE]
    assert pulse.doubt(101.7) == FINE, "a busy loop may not have read yet"
    assert pulse.doubt(101.71) == DEAD


def test_a_reply_makes_good():
    pulse = began()
    assert pulse.doubt(101.1) == ASK
    assert pulse.doubt(101.7) == FINE
    heard(pulse, 101.8)
    assert [pulse.doubt(now) for now in (102.7, 102.9)] == [FINE, ASK]


def test_an_idle_link_must_have_replied_by_the_next_look():
    pulse = Pulse(LinkLimits())
    assert pulse.doubt_idle(5.0) == ASK
    pulse.quiet = False
    assert pulse.doubt_idle(10.0) == ASK
    assert pulse.doubt_idle(15.0) == DEAD


def test_a_sign_of_life_is_due_now_and_then():
    pulse = began(sign_of_life=30.0)
    assert [pulse.owes_sign(now) for now in (130.0, 130.1, 131.0, 160.2)] == [False, True, False, True]
