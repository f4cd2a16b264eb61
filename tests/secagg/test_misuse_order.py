"""Every step once, in order, and no attempt twice."""

from __future__ import annotations

import pytest

from hansa.secagg import (
    Advert,
    Answer,
    Fault,
    Inbox,
    Roster,
    Survivors,
    Votes,
    client_flow,
)
from tests.secagg.lies import (
    FOLK,
    ME,
    number,
    refused,
    seated,
    tell,
    voted,
    zeros,
)
from tests.support.cohort import session


def test_a_second_question_after_the_answer_is_not_heard():
    seats = voted()
    asked = seats.due(ME, Votes)
    answer = seats.clients[ME].send(asked)
    assert isinstance(answer, Answer)
    for message in (asked, Survivors(1, 2), None):
        with pytest.raises(StopIteration):
            seats.clients[ME].send(message)


def test_an_answer_holds_exactly_one_share_of_each_client():
    seats = voted()
    answer = seats.clients[ME].send(seats.due(ME, Votes))
    assert isinstance(answer, Answer)
    assert answer.keys.keys() == {number(seats, "c00005")}
    assert answer.seeds.keys() == set(range(6)) - answer.keys.keys()


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 3), (3, 2), (3, 0)])
def test_no_attempt_and_no_earlier_one_is_begun_again(first, second):
    member = FOLK.member(ME)
    client_flow(session(attempt=first), member, zeros()).send(None)
    with refused(Fault.REPEATED):
        client_flow(session(attempt=second), member, zeros()).send(None)


def test_an_attempt_that_was_refused_half_way_is_not_begun_again():
    seats = seated().step()
    member = FOLK.member(ME)
    flow = client_flow(seats.session, member, zeros())
    flow.send(None)
    with refused(Fault.COHORT):
        flow.send(Roster(b"", 0, 0, {}))
    with refused(Fault.REPEATED):
        client_flow(seats.session, member, zeros()).send(None)


@pytest.mark.parametrize(
    "words", [{"attempt": 1}, {"round": 4}, {"round": 2}, {"purpose": "evaluate"}, {"job": "job-2"}]
)
def test_another_attempt_round_purpose_or_job_is_begun(words):
    member = FOLK.member(ME)
    client_flow(session(), member, zeros()).send(None)
    assert isinstance(client_flow(session(**words), member, zeros()).send(None), Advert)


MESSAGES = {
    Roster: Roster(b"", 5, 4, {}),
    Inbox: Inbox({}),
    Survivors: Survivors(63, 0),
    Votes: Votes({}),
}


@pytest.mark.parametrize("due", MESSAGES)
@pytest.mark.parametrize("sent", [*MESSAGES, Advert, type(None), dict, str])
def test_a_message_that_is_not_due_is_refused(due, sent):
    if sent is due:
        return
    seats = seated().until(due)
    message = MESSAGES.get(sent) if sent in MESSAGES else seats.sent[Advert][ME]
    tell(seats, message if sent in (*MESSAGES, Advert) else sent(), Fault.UNEXPECTED)


def test_the_votes_are_not_answered_before_the_survivors_are_known():
    seats = seated().until(Survivors)
    tell(seats, Votes({}), Fault.UNEXPECTED)
